"""The animation of a refinement: on request only, the same set, frames that survive an interruption."""

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from PIL import Image

from ddtool import api
from ddtool.events import Event, Step
from ddtool.runs.film import FRAMES, sheet
from ddtool.runs.run import Run

SETTINGS = tiny.SETTINGS | {"refine": {"steps": 30, "real_batch": 12}, "evaluate": {"enabled": False}}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.image_folder(tmp_path_factory.mktemp("film") / "clothes")


def frames(path: Path) -> list[bytes]:
    """The pixels of each frame."""
    out = []
    with Image.open(path) as film:
        for k in range(getattr(film, "n_frames", 1)):
            film.seek(k)
            out.append(film.convert("RGB").tobytes())
    return out


def test_a_run_leaves_an_animation_on_request(dataset: Path, tmp_path: Path) -> None:
    plain = tiny.adapt(dataset, tmp_path / "plain", settings=SETTINGS)
    filmed = tiny.adapt(dataset, tmp_path / "filmed", settings=SETTINGS | {"animation": True})
    assert not plain.has("animation.png")
    assert tiny.all_bytes(plain.folder) == tiny.all_bytes(filmed.folder)  # nothing else has changed, no frame is left
    shown = frames(filmed.folder / "animation.png")
    assert 10 < len(shown) <= FRAMES + 1
    made = filmed.load_set(2)
    assert shown[-1] == sheet(made.images, 3).tobytes()
    assert shown[0] == sheet(filmed.load_set(2, "generated").images, 3).tobytes()
    assert "The refinement, step by step" in (filmed.folder / "report.html").read_text(encoding="utf-8")


def test_an_interrupted_run_keeps_its_frames(
    dataset: Path, tmp_path: Path, interrupt_at: Callable[[int], Callable[[Event], None]]
) -> None:
    settings = SETTINGS | {"animation": True}
    whole = tiny.adapt(dataset, tmp_path / "whole", settings=settings)
    press = interrupt_at(20)

    def in_refinement(event: Event) -> None:
        if isinstance(event, Step) and event.phase.startswith("refine"):
            press(event)

    with pytest.raises(KeyboardInterrupt):
        tiny.adapt(dataset, tmp_path / "run", report=in_refinement, settings=settings)
    run = api.resume(tmp_path / "run", engine=tiny.ENGINE, progress=False)
    assert frames(run.folder / "animation.png") == frames(whole.folder / "animation.png")


def test_an_animation_is_of_the_refinement(dataset: Path, tmp_path: Path) -> None:
    assert "animation" in tiny.refused(2, "adapt", dataset, "--method", "dm", "--animation", "--out", tmp_path / "run")
    made = tiny.done(
        "adapt", dataset, "--ipc", 1, *tiny.OPTIONS, "--animation", "--no-evaluate", "-q", "--out", tmp_path / "r"
    )
    assert Run(Path(made.stdout.strip())).has("animation.png")
