"""What a run says before its first stage, and runs that are not scored."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
from conftest import toy_images

from ddtool.config import AdaptConfig, RefineConfig, RunConfig
from ddtool.config.presets import Pace
from ddtool.events import Event, Note, Step
from ddtool.pipeline import overview
from ddtool.pipeline.overview import say_overview
from ddtool.pipeline.session import Session
from ddtool.runs.facts import ProbedPace
from ddtool.runs.run import Run


def said(
    config: RunConfig, tmp_path: Path, classes: int = 4, pace: Pace | None = None, each: int = 5
) -> dict[str, str]:
    """The lines of a run on a toy dataset, by their first word."""
    run = Run.create(tmp_path / "run", config, tiny.ENGINE, force=True)
    if pace:
        run.save_pace(pace)
    heard: list[Event] = []
    target: Any = SimpleNamespace(name="toy", train=toy_images(each, 0, classes=classes), test_size=1)
    say_overview(Session(config, run, tiny.ENGINE, heard.append), target)
    lines = [event.text for event in heard if isinstance(event, Note)]
    return dict(line.split(": ", 1) for line in lines)


def test_a_run_says_what_it_is_about_to_do(tmp_path: Path) -> None:
    lines = said(RunConfig(dataset="toy"), tmp_path)
    assert list(lines) == ["Data", "To make", "Copies", "Device", "Stages", "Folder"]
    assert lines["Data"] == "toy, 20 training images and 1 test image of 4 classes, 16x16 pixels"
    assert lines["To make"] == "10 images per class, 40 in all (--ipc; the default is 10)"
    assert lines["Stages"] == (
        "labels of the initial samples, adaptation (1,000 steps), refinement (1,000 steps), "
        "scores by quick (1 network for each)"
    )
    assert lines["Folder"] == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ipc": (10,)}, "4 of each image at IPC 10, augmented, in each step (refine.augmented_copies)"),
        (
            {"ipc": (1, 5, 41)},
            "40 of each image at IPC 1 and 8 of each image at IPC 5, augmented, in each step (refine.augmented_copies)",
        ),
        ({"ipc": (1,), "factor": 2}, "10 of each image at IPC 1, augmented, in each step (refine.augmented_copies)"),
        ({"ipc": (10,), "refine": RefineConfig(augmented_copies=2)}, "2 of each image at IPC 10, augmented, in each step "
         "(refine.augmented_copies)"),
        ({"ipc": (10,), "refine": RefineConfig(steps=0)}, "4 of each image at IPC 10, augmented, in each step "
         "(adapt.augmented_copies)"),
        ({"ipc": (10,), "refine": RefineConfig(augmented_copies=0)}, ""),
        ({"ipc": (40,)}, "1 of each image at IPC 40, augmented, in each step (refine.augmented_copies)"),
        ({"ipc": (41,)}, ""),
        ({"ipc": (1,), "method": "dm"}, ""),
    ],
)  # fmt: skip
def test_augmented_copies_are_said_where_there_are_any(settings: dict[str, Any], words: str, tmp_path: Path) -> None:
    lines = said(RunConfig(dataset="toy", **settings), tmp_path, each=120)
    assert lines.get("Copies", "") == words


def test_every_size_is_named(tmp_path: Path) -> None:
    config = RunConfig(dataset="toy", ipc=(1, 5), adapt=AdaptConfig(steps=1))
    lines = said(config, tmp_path)
    assert (
        lines["To make"] == "1 image per class, 4 in all and 5 images per class, 20 in all (--ipc; the default is 10)"
    )
    assert "adaptation (1 step), refinement (1,000 steps for each set)" in lines["Stages"]


@pytest.mark.parametrize(
    ("ipc", "method", "classes", "each", "told"),
    [
        (1, "mgdd", 4, 4, True), (2, "mgdd", 4, 4, False), (1, "dm", 4, 4, False), (1, "mgdd", 5, 4, False),
        (1, "mgdd", 4, 3, False),
    ],
)  # fmt: skip
def test_few_images_are_told_of_the_factor(
    ipc: int, method: str, classes: int, each: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "FEW_CLASSES", 4)
    line = said(RunConfig(dataset="toy", ipc=(ipc,), method=method), tmp_path, classes, each=each)["To make"]
    assert ("--factor 2 stores four smaller ones in each" in line) == told


def test_smaller_images_in_each_are_said(tmp_path: Path) -> None:
    lines = said(RunConfig(dataset="toy", factor=2), tmp_path)
    assert lines["To make"].endswith("the default is 10); each holds 2x2 smaller images (--factor)")


def test_a_budget_in_seconds_is_said_in_place_of_steps(tmp_path: Path) -> None:
    config = RunConfig(dataset="toy", seconds=60.0)
    config = replace(config, evaluate=replace(config.evaluate, enabled=False))
    stages = said(config, tmp_path)["Stages"]
    assert stages == "in 60 s, scores not counted: labels of the initial samples, adaptation, refinement"


def test_the_stages_say_about_how_long_they_take_where_that_was_measured(tmp_path: Path) -> None:
    config = RunConfig(dataset="toy", ipc=(1, 5), adapt=AdaptConfig(steps=300))
    assert said(config, tmp_path, pace=Pace(0.1, 12.3))["Stages"].startswith(
        "labels of the initial samples and of the sets (about 12 s), adaptation (300 steps, about 30 s), "
        "refinement (1,000 steps for each set, about 1:40 min), scores"
    )
    timed = replace(config, ipc=(5,), seconds=60.0, adapt_share=0.25)
    assert said(timed, tmp_path, pace=Pace(0.1, 20.0))["Stages"].startswith(
        "in 60 s, scores not counted: labels of the initial samples and of the sets (about 20 s), adaptation (about 10 s), "
        "refinement (about 30 s), scores"
    )


def test_what_was_measured_on_another_machine_is_not_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddtool.runs.run.environment", lambda engine: {"device": "cpu (another)"})
    assert "about" not in said(RunConfig(dataset="toy"), tmp_path, pace=Pace(0.1, 12.3))["Stages"]


def test_a_probed_run_says_so_at_its_start_and_shares_no_pace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)
    monkeypatch.setattr("ddtool.pipeline.speed.step_seconds", lambda *unused: 10.0)
    heard: list[Event] = []
    settings = {name: value for name, value in tiny.SETTINGS.items() if name not in ("adapt", "refine")}
    run = tiny.adapt(tiny.image_folder(tmp_path / "clothes"), tmp_path / "run", heard.append, settings=settings)
    (stages,) = [event.text for event in heard if isinstance(event, Note) and event.text.startswith("Stages: ")]
    assert re.search(r"adaptation \(\d steps?, about \d+ s\), refinement \(\d steps?, about ", stages)
    assert run.environment().pace == ProbedPace(step_seconds=10.0, before_seconds=run.environment().pace.before_seconds)
    assert "pace" not in run.environment().stated()


@pytest.mark.parametrize(
    ("method", "words"), [("dm", "DM (7 steps), scores"), ("random", "random real images, scores")]
)
def test_other_methods_have_one_stage(method: str, words: str, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"steps": 7} if method == "dm" else {}
    assert said(RunConfig(dataset="toy", method=method, baseline=settings), tmp_path)["Stages"].startswith(words)


def test_the_overview_goes_before_the_first_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)
    heard: list[Event] = []
    tiny.adapt(tiny.image_folder(tmp_path / "clothes"), tmp_path / "run", heard.append)
    texts = [event.text if isinstance(event, Note) else "" for event in heard]
    place = next(k for k, text in enumerate(texts) if text.startswith("Stages: "))
    assert not any(isinstance(event, Step) and event.phase == "adapt" for event in heard[:place])
    assert f"Folder: {tmp_path / 'run'}" in texts


def test_scores_can_be_left_out(tmp_path: Path) -> None:
    dataset, run = tiny.image_folder(tmp_path / "clothes"), tmp_path / "run"
    result = tiny.done("adapt", dataset, "--ipc", 1, *tiny.OPTIONS, "--no-evaluate", "--out", run)
    assert f"No scores, as asked. `ddtool evaluate {run}` makes them." in result.stderr
    assert "To make: 1 image per class, 3 in all" in result.stderr
    assert (result.stdout.strip(), Run(run).results()["scores"]) == (str(run), [])
    assert Run(run).noted().facts.finished
    assert "No score yet" in (run / "report.html").read_text(encoding="utf-8")
    quiet = tiny.done("adapt", "--resume", run, "-q")
    assert (quiet.stderr, quiet.stdout.strip()) == ("", str(run))
    facts = tiny.done("info", run).stdout
    assert "training images" in facts
    assert not [
        name for name in json.loads((run / "results.json").read_text())["facts"] if f"{name} " in facts and "_" in name
    ]
    assert "spent on IPC 1" in facts
    made = tiny.done("generate", run, "--ipc", 2)
    assert "--labels analytical` leaves it out" in made.stderr
    assert "leaves it out" not in tiny.done("generate", run, "--ipc", 2, "--force", "--labels", "analytical").stderr


@pytest.mark.parametrize(("baseline", "factor"), [({}, 2), ({"factor": 3}, 3), ({"factor": 1}, 1)])
def test_smaller_images_are_said_of_a_method_that_has_them_itself(
    baseline: dict[str, Any], factor: int, tmp_path: Path
) -> None:
    lines = said(RunConfig(dataset="toy", method="idc", baseline=baseline), tmp_path)
    assert (f"each holds {factor}x{factor} smaller images (--factor)" in lines["To make"]) == (factor > 1)
