"""The probe that chooses width and steps: by a clock of its own, so that no real time is in a test."""

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from ddtool import api
from ddtool.config import PRESETS, RunConfig
from ddtool.config.presets import PAYS_FROM
from ddtool.data.batches import Real
from ddtool.data.images import ImageData
from ddtool.events import Event, Note, silent
from ddtool.pipeline import speed
from ddtool.runtime.engine import Engine

TINY = {"small": 8, "medium": 16, "large": 24}
OPEN = (
    "features.width",
    "labels.images",
    "adapt.steps",
    "adapt.synthetic_batch",
    "refine.steps",
    "refine.synthetic_batch",
)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Presets so narrow that a probe of them takes no time."""
    for name, width in TINY.items():
        monkeypatch.setitem(PRESETS, name, PRESETS[name] | {"features": {"width": width}})


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return tiny.image_folder(tmp_path / "data")


def clock(*steps: float) -> Callable[[], float]:
    """A clock by which the steps take so many seconds, each width's all alike (as many as are timed), then the next one's."""

    def ticks() -> Iterator[float]:
        now = 0.0
        for seconds in steps:
            for _ in range(1 + min(speed.TIMED, math.ceil(speed.LONG / seconds))):
                yield now
                now += seconds
                yield now

    times = ticks()
    return lambda: next(times)


def probed(data: ImageData, engine: Engine, times: tuple[float, ...], **settings: Any) -> tuple[RunConfig, list[str]]:
    """What is chosen where the steps take so many seconds, and what is said of it."""
    notes: list[str] = []

    def listen(event: Event) -> None:
        notes.extend([event.text] if isinstance(event, Note) else [])

    config = api.resolve(engine, "auto", {"dataset": "unread", "ipc": [2]}, settings)
    return speed.fitted_to_machine(config, data, engine, listen, clock(*times)), notes


def test_a_slow_machine_has_the_narrow_networks_and_fewer_steps(toy: ImageData, engine: Engine) -> None:
    slow, notes = probed(toy, engine, (0.1, 0.9))
    slower, _ = probed(toy, engine, (0.2, 1.8))
    assert slow.features.width == slower.features.width == TINY["small"]
    assert slow.refine.steps == pytest.approx(4 * slow.adapt.steps, abs=5)
    assert 1 < slower.refine.steps < slow.refine.steps
    assert slow.measured == OPEN
    again = f"--preset small --steps {slow.adapt.steps} --refine-steps {slow.refine.steps}"
    assert notes == [
        "A step takes about 100 ms on this machine, so the preset is small (8 channels, 256 real images a step), "
        f"with {slow.adapt.steps} steps of adaptation and {slow.refine.steps} of refinement in about 2 minutes. "
        f"The same on any machine: {again}"
    ]


def test_a_fast_machine_has_the_wide_ones_with_what_else_the_preset_says(toy: ImageData, engine: Engine) -> None:
    fast, notes = probed(toy, engine, (0.001, 0.002, 0.004))
    assert fast.features.width == TINY["large"]
    assert (
        fast.labels.images == RunConfig().labels.images != PRESETS["small"]["labels"]["images"]
    )  # which 'large' leaves as it is
    assert fast.adapt.synthetic_batch == RunConfig().adapt.synthetic_batch
    assert fast.adapt.steps + fast.refine.steps >= PAYS_FROM["large"]
    assert len(notes) == 1


def test_one_slow_step_says_nothing_of_the_machine(toy: ImageData, engine: Engine) -> None:
    """Another program had the processors for a moment."""
    now, took = [0.0], iter([0.5, 1.5, 0.05, 0.05])
    starts = iter([True, False] * 4)

    def ticks() -> float:
        now[0] += 0 if next(starts) else next(took)
        return now[0]

    config = api.resolve(engine, "small", {"dataset": "unread", "ipc": [2]})
    assert speed.step_seconds(config, Real.of(toy, engine), engine, ticks) == pytest.approx(0.05)


def test_a_step_of_seconds_is_timed_once_more_at_most(toy: ImageData, engine: Engine) -> None:
    _, notes = probed(toy, engine, (2.5,), features={"width": 8})
    assert notes[0].startswith("A step takes about 2,500 ms on this machine")


def test_what_the_user_gives_stands(toy: ImageData, engine: Engine) -> None:
    values = {"features": {"width": 12}, "labels": {"images": 7}, "adapt": {"steps": 5}}
    chosen, _ = probed(toy, engine, (0.001, 0.002, 0.004), **values)
    assert (chosen.features.width, chosen.labels.images, chosen.adapt.steps) == (12, 7, 5)
    assert chosen.refine.steps > 1000
    assert chosen.measured == ("adapt.synthetic_batch", "refine.steps", "refine.synthetic_batch")


def test_nothing_refined_leaves_all_steps_to_adaptation(toy: ImageData, engine: Engine) -> None:
    both, _ = probed(toy, engine, (0.1, 0.9))
    alone, _ = probed(toy, engine, (0.1, 0.9), refine={"steps": 0})
    assert alone.refine.steps == 0
    assert alone.adapt.steps == pytest.approx(both.adapt.steps + both.refine.steps, abs=5)


def test_several_sets_share_the_time(toy: ImageData, engine: Engine) -> None:
    one, _ = probed(toy, engine, (0.1, 0.9))
    three, _ = probed(toy, engine, (0.1, 0.9), ipc=[1, 2, 3])
    assert three.refine.steps < one.refine.steps / 2


def test_where_the_steps_are_given_only_the_width_is_spoken_of(toy: ImageData, engine: Engine) -> None:
    chosen, notes = probed(toy, engine, (0.1, 0.9), adapt={"steps": 7}, refine={"steps": 9})
    assert (chosen.adapt.steps, chosen.refine.steps) == (7, 9)
    assert "minutes" not in notes[0]
    assert notes[0].endswith("The same on any machine: --preset small")


def test_with_seconds_the_clock_counts_steps_and_only_the_width_is_chosen(toy: ImageData, engine: Engine) -> None:
    chosen, notes = probed(toy, engine, (0.001, 0.002, 0.004), seconds=60)
    assert chosen.features.width == TINY["large"]
    assert not {"adapt.steps", "refine.steps"} & set(chosen.measured)
    assert notes[0].endswith("for 60 s. The same networks on any machine: --preset large")
    short, _ = probed(toy, engine, (0.001,), seconds=0.5)
    assert short.features.width == TINY["small"]


@pytest.mark.parametrize(
    ("preset", "values"),
    [
        ("small", {}),
        ("cpu", {}),
        ("auto", {"features": {"width": 8}, "adapt": {"steps": 1}, "refine": {"steps": 1}}),
        ("auto", {"features": {"width": 8}, "seconds": 3}),
        ("auto", {"method": "dm"}),
    ],
)
def test_no_probe_where_nothing_is_left_open(preset: str, values: dict, toy: ImageData, engine: Engine) -> None:
    config = api.resolve(engine, preset, {"dataset": "unread"}, values)
    assert config.measured == ()

    def no_clock() -> float:
        raise AssertionError("a step was timed")

    assert speed.fitted_to_machine(config, toy, engine, silent, no_clock) is config


def test_a_run_keeps_what_was_chosen_and_can_be_made_again_by_it(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "step_seconds", lambda *_: 0.4)
    settings = {**tiny.SETTINGS, "features": {}, "refine": {"real_batch": 12}, "evaluate": {"enabled": False}}
    run = tiny.adapt(dataset, tmp_path / "run", settings=settings)
    config = run.config()
    assert config.measured[0] == "features.width"
    assert (config.features.width, config.adapt.steps) == (TINY["small"], tiny.SETTINGS["adapt"]["steps"])
    assert 1 < config.refine.steps < PAYS_FROM["medium"]
    monkeypatch.setattr(speed, "step_seconds", lambda *_: pytest.fail("a resumed run is not measured again"))
    assert api.resume(run.folder, engine=tiny.ENGINE).config() == config
    written = json.loads((run.folder / "config.json").read_text(encoding="utf-8"))
    again = api.resolve(tiny.ENGINE, "auto", written)
    assert again == replace(config, measured=())


def test_a_probe_times_the_steps_of_the_configuration(
    toy: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple] = []

    def refine(X: Any, Y: Any, f: Any, real: Any, settings: Any, rng: Any) -> None:
        seen.append((tuple(X.shape), tuple(Y.shape), settings.real_batch, settings.steps))

    monkeypatch.setattr(speed.mgdd, "refine", refine)
    config = RunConfig(ipc=(3,), features=replace(RunConfig().features, width=300))
    real = speed.Real.of(toy, engine)
    times = iter([0.0, 9.0, 10.0, 10.2, 20.0, 20.1, 30.0, 30.3])  # the first warms up
    assert speed.step_seconds(config, real, engine, lambda: next(times)) == pytest.approx(0.1)
    assert seen == [((12, 3, 16, 16), (12, 4), 600, 1)] * 4
    few = replace(config, refine=replace(config.refine, synthetic_batch=8))
    slow = iter([0.0, 9.0, 10.0, 14.0])  # a very long step is timed once
    assert speed.step_seconds(few, real, engine, lambda: next(slow)) == 4.0
    assert seen[-1][0] == (8, 3, 16, 16)


def test_a_probe_keeps_images_in_parts_where_the_steps_will(
    toy: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(speed.mgdd, "refine", lambda X, Y, f, real, *rest: seen.append((len(X), real.inputs.factor)))
    probed(toy, engine, (0.1, 0.1, 0.1), factor=2)
    assert set(seen) == {(2 * 4 * 4, 2)}
