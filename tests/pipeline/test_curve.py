"""`ddtool adapt --curve` and `ddtool curve`: points that are the run's own sets, kept through an interruption, scored once."""

import json
import shlex
import shutil
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file
from tiny import done, refused

import ddtool
from ddtool import api
from ddtool.data.images import SyntheticSet
from ddtool.errors import RunError
from ddtool.events import Event, Step
from ddtool.experiments import curve as curves
from ddtool.experiments.plot import LIGHT, sheet
from ddtool.pipeline.points import PointSets
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import Session
from ddtool.runs import formats
from ddtool.runs.foreign import strangers
from ddtool.runs.formats import Point, write_point
from ddtool.runs.run import Run

UNSCORED = ["--ipc", 2, "--no-evaluate", "-q"]
MGDD = [*tiny.UNCOUNTED, "--steps", 3, "--refine-steps", 4]
DM = shlex.split("--method dm --steps 5 --precision fp32 --set baseline.width=8 --set baseline.real_batch=6")
KEPT = {
    "mgdd": [f"adapt-{n}" for n in (0, 1, 2, 3)] + [f"refine-ipc2-{n}" for n in (0, 1, 2, 4)],
    "dm": [f"distil-ipc2-{n}" for n in (0, 1, 2, 4, 5)],
}
"""The points of the two runs, by method."""


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.image_folder(tmp_path_factory.mktemp("curve") / "clothes")


@pytest.fixture(scope="module")
def made(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`ddtool adapt DATASET --curve` by MGDD and by another method: the runs, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    for name, words in (("mgdd", MGDD), ("dm", DM)):
        done("adapt", dataset, *UNSCORED, *words, "--curve", "--out", folder / name)
    return {name: folder / name for name in KEPT}


@pytest.fixture
def runs(made: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Copies of the two runs; protocols are short."""
    tiny.shorten_protocols(monkeypatch)
    return {name: shutil.copytree(path, tmp_path / name) for name, path in made.items()}


def point_sets(folder: Path) -> PointSets:
    run = Run(folder)
    return PointSets(Session(run.config(), run, tiny.ENGINE), load_target(run.config(), lambda event: None).train)


def points(folder: Path) -> dict[str, dict[str, Any]]:
    """The tensors of each point of a run."""
    return {path.stem: load_file(path) for path in sorted((folder / "curve").iterdir())}


def same(a: SyntheticSet, b: SyntheticSet) -> bool:
    return torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.label_scale == b.label_scale


# ---------------------------------------------------------------------------------------------------------- the points


def test_points_are_kept_at_doubling_steps_and_the_last_is_the_finished_set(made: dict[str, Path]) -> None:
    for name, folder in made.items():
        run, sets = Run(folder), point_sets(folder)
        assert list(points(folder)) == sorted(KEPT[name])
        places = list(sets.places())
        assert [f"{place.phase.file_name}-{place.step}" for place in places] == KEPT[name]
        assert same(sets.set_at(places[-1]), run.load_set(2))
        first = run.load_set(2, "generated" if name == "mgdd" else "initial")
        begun = next(place for place in places if place.phase.ipc == 2)
        assert same(sets.set_at(begun), first) or (sets.set_at(begun).images - first.images).abs().max() < 1e-6
        spent = run.noted().facts.spent["ipc2"]
        assert places[-1].steps == spent.steps
        assert places[-1].seconds == pytest.approx(spent.step_seconds + spent.overhead_seconds, abs=0.02)
        seconds = [place.seconds for place in places]
        assert seconds == sorted(seconds)
        assert strangers(folder) == []


def test_the_points_of_a_generator_are_what_it_made(made: dict[str, Path]) -> None:
    sets = point_sets(made["mgdd"])
    last = [place for place in sets.places() if place.phase.kind == "adapt"][-1]
    assert same(sets.set_at(last), Run(made["mgdd"]).load_set(2, "generated"))


def test_the_steps_are_the_same_bits_with_and_without(dataset: Path, made: dict[str, Path], tmp_path: Path) -> None:
    for name, words in (("mgdd", MGDD), ("dm", DM)):
        done("adapt", dataset, *UNSCORED, *words, "--out", tmp_path / name)
        with_points = tiny.all_bytes(made[name])
        assert tiny.all_bytes(tmp_path / name) == {
            file: content for file, content in with_points.items() if not file.startswith("curve/")
        }


@pytest.mark.parametrize(("phase", "step"), [("adapt", 2), ("refine ipc2", 2), ("distil ipc2", 3)])
def test_an_interrupted_run_has_the_same_points(
    phase: str, step: int, dataset: Path, made: dict[str, Path], tmp_path: Path,
    interrupt_at: Callable[[int], Callable[[Event], None]],
) -> None:  # fmt: skip
    name = "dm" if phase.startswith("distil") else "mgdd"
    press = interrupt_at(step)

    def in_phase(event: Event) -> None:
        if isinstance(event, Step) and event.phase == phase:
            press(event)

    engine, config = tiny.ENGINE, Run(made[name]).config()
    run = api.start(config, tmp_path / "run", engine, False, in_phase)
    with pytest.raises(KeyboardInterrupt):
        api.resume(run.folder, engine=engine, report=in_phase)
    before = {path.name: path.read_bytes() for path in (run.folder / "curve").iterdir()}
    assert before
    api.resume(run.folder, engine=engine, progress=False)
    found, whole = points(run.folder), points(made[name])
    assert list(found) == list(whole)
    assert all(torch.equal(found[k][tensor], whole[k][tensor]) for k in whole for tensor in whole[k])
    for file, content in before.items():
        assert (run.folder / "curve" / file).read_bytes() == content  # not made again


def test_points_beyond_what_a_killed_run_goes_on_from_are_removed(made: dict[str, Path], tmp_path: Path) -> None:
    """Its steps may be others, in a budget of seconds; and the last of them may be an earlier one."""
    run = api.start(Run(made["dm"]).config(), tmp_path / "run", tiny.ENGINE, False, lambda event: None)
    (run.folder / "curve").mkdir()
    final, earlier = Run(made["dm"]).load_set(2), points(made["dm"])
    for step in (2, 6):
        tensors = {"images": final.images * 0, "labels": final.labels}
        write_point(run.folder / "curve" / f"distil-ipc2-{step}.safetensors", Point(step, 0.5, tensors))
    api.resume(run.folder, engine=tiny.ENGINE, progress=False)
    found = points(run.folder)
    assert list(found) == list(earlier)
    assert all(torch.equal(found[k][tensor], earlier[k][tensor]) for k in earlier for tensor in earlier[k])


def test_a_plan_names_the_folder_of_the_points(dataset: Path, tmp_path: Path) -> None:
    words = ("adapt", dataset, *DM, "--ipc", 2, "--dry-run", "--out", tmp_path / "run")
    for more, there in (((), False), (("--curve",), True)):
        assert ("curve/" in json.loads(done(*words, *more).stdout)["files"]) == there


def test_a_selection_has_no_curve(dataset: Path, tmp_path: Path) -> None:
    said = refused(2, "adapt", dataset, "--method", "random", "--curve", "--out", tmp_path / "run")
    assert "takes no steps" in said
    assert not (tmp_path / "run").exists()


def test_places_are_known_by_what_their_files_say(runs: dict[str, Path]) -> None:
    """A value that is damaged is found where the set of its point is asked for, before it is scored."""
    for name in ("mgdd/curve/adapt-1", "mgdd/curve/refine-ipc2-2"):
        path = runs["mgdd"].parent / f"{name}.safetensors"
        content = path.read_bytes()
        sets = point_sets(runs["mgdd"])
        whole = list(sets.places())
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert list(sets.places()) == whole
        place = next(place for place in whole if path.stem == f"{place.phase.file_name}-{place.step}")
        with pytest.raises(RunError, match="not those that were written"):
            sets.set_at(place)
        path.write_bytes(content)


# ----------------------------------------------------------------------------------------------------------- the curve


def test_the_tensors_of_a_point_are_read_once_for_each_set_that_is_scored(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shorten_protocols(monkeypatch)
    few = [*tiny.UNCOUNTED, "--steps", 1, "--refine-steps", 1]
    done("adapt", dataset, "--ipc", "1,2", "--no-evaluate", "-q", *few, "--curve", "--out", tmp_path / "run")
    read, real = Counter[str](), formats.read_described

    def counted(path: Path, parse: Any) -> Any:
        read[path.stem] += path.parent.name == "curve"
        return real(path, parse)

    monkeypatch.setattr(formats, "read_described", counted)
    found = ddtool.curve(tmp_path / "run", protocol="kernel-ridge", engine=tiny.ENGINE)
    once = Counter([f"refine-ipc{ipc}-{n}" for ipc in (1, 2) for n in (0, 1)])
    assert +read == once + Counter(["adapt-0", "adapt-1"] * 2)  # for either size
    ddtool.curve(tmp_path / "run", protocol="kernel-ridge", engine=tiny.ENGINE)
    assert read.total() == len(found.rows()) == 8


@pytest.mark.parametrize("name", KEPT)
def test_the_command_scores_every_point_once(name: str, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder, measured, real = runs[name], [], curves.Judge.measure
    results = (folder / "results.json").read_bytes()

    def counted(judge: Any, synthetic: Any, target: Any, wanted: Any) -> Any:
        measured.append((wanted.protocol, synthetic.images.sum().item()))
        if len(measured) == stop_after:
            raise KeyboardInterrupt
        return real(judge, synthetic, target, wanted)

    monkeypatch.setattr(curves.Judge, "measure", counted)
    stop_after = 4
    with pytest.raises(KeyboardInterrupt):
        ddtool.curve(folder, engine=tiny.ENGINE, progress=False)
    assert len(json.loads((folder / "curve.json").read_text())["rows"]) == 3
    stop_after = -1
    shown = json.loads(done("curve", folder, "--precision", "fp32", "--json").stdout)
    assert len(measured) == 2 * len(KEPT[name]) + 1  # the one that was lost is measured again
    assert shown == json.loads(done("curve", folder, "--precision", "fp32", "--json").stdout)
    assert len(measured) == 2 * len(KEPT[name]) + 1
    assert (folder / "results.json").read_bytes() == results
    rows = shown["rows"]
    for protocol in ("kernel-ridge", "quick"):
        of_one = [row for row in rows if row["protocol"] == protocol]
        assert [f"{row['phase']}-{row['step']}" for row in of_one] == [k.replace("-ipc2", "") for k in KEPT[name]]
        assert [row["steps"] for row in of_one] == ([0, 1, 2, 3, 3, 4, 5, 7] if name == "mgdd" else [0, 1, 2, 4, 5])
    if name == "mgdd":  # where refinement begins is where adaptation ended
        ends = [row["accuracy"] for row in rows if (row["phase"], row["step"]) in (("adapt", 3), ("refine", 0))]
        assert ends[:2] == [ends[0]] * 2
    csv, markdown = ((folder / f"curve.{kind}").read_text().splitlines() for kind in ("csv", "md"))
    assert (len(csv), len(markdown)) == (len(rows) + 1, len(rows) + 2)
    assert b"<svg" in (folder / "curve.svg").read_bytes()
    assert (folder / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert strangers(folder) == []


def test_the_last_point_scores_as_the_finished_set(runs: dict[str, Path]) -> None:
    found = ddtool.curve(runs["dm"], protocol="quick", engine=tiny.ENGINE)
    (score,) = api.evaluate(runs["dm"], protocol="quick", seeds=1, baseline=False, engine=tiny.ENGINE)
    assert found.rows()[-1]["accuracy"] == score.mean


def test_other_seeds_take_the_place_of_earlier_scores(runs: dict[str, Path]) -> None:
    assert "test accuracy along the steps" in done("curve", runs["dm"], "--protocol", "quick").stdout
    rows = json.loads(done("curve", runs["dm"], "--protocol", "quick", "--eval-seeds", 2, "--json").stdout)["rows"]
    assert [row["networks"] for row in rows] == [2] * 5


def test_scores_by_earlier_versions_of_a_protocol_are_left_out(runs: dict[str, Path]) -> None:
    done("curve", runs["dm"], "--protocol", "quick")
    known = json.loads((runs["dm"] / "curve.json").read_text())
    for one in known["rows"]:
        one["protocol_version"] = 0
    (runs["dm"] / "curve.json").write_text(json.dumps(known))
    rows = json.loads(done("curve", runs["dm"], "--protocol", "kernel-ridge", "--json").stdout)["rows"]
    assert {row["protocol"] for row in rows} == {"kernel-ridge"}
    assert len(rows) == 5


def row(phase: str, step: int, steps: int, seconds: float) -> curves.Row:
    return curves.Row(
        ipc=10, phase=phase, step=step, steps=steps, seconds=seconds, protocol="quick", protocol_version=1,
        arch="convnet", accuracy=50.0 + steps, std=0.0, networks=1,
    )  # fmt: skip


def panels_of(*rows: curves.Row) -> tuple[Any, Any]:
    """The axes of accuracy over steps and over seconds."""
    steps, seconds = sheet(curves.panels(curves.Curve("some/toy", rows)), "", "y", LIGHT).axes
    return steps, seconds


def test_a_plot_has_adaptation_and_refinement_one_after_the_other() -> None:
    rows = (row("adapt", 0, 0, 2.0), row("adapt", 1, 1, 3.0), row("refine", 0, 1, 3.0), row("refine", 4, 5, 7.0))
    after = "seconds after the first 2.0 (logarithmic)"
    shown = curves.panels(curves.Curve("some/toy", rows))
    assert [(panel.title, panel.x_name) for panel in shown] == [
        ("10 images per class, quick", name) for name in (curves.STEPS, after)
    ]
    steps, seconds = panels_of(*rows)
    for axes, name, xs in ((steps, curves.STEPS, [0, 1, 1, 5]), (seconds, after, [0, 1, 1, 5])):
        marks = {bars.get_label(): bars[0].get_xydata().tolist() for bars in axes.containers}
        assert list(marks) == [curves.NAMES["adapt"], curves.NAMES["refine"]]
        assert [xy for line in marks.values() for xy in line] == [
            [x, r.accuracy] for x, r in zip(xs, rows, strict=True)
        ]
        assert (axes.get_xlabel(), axes.get_xscale()) == (name, "symlog")
        assert 0 in axes.get_xticks()
    alone, _ = panels_of(rows[0])
    assert alone.get_xlim()[0] < 0


@pytest.mark.parametrize("before", [0.0, 74.8, 5000.0])
def test_points_fill_the_axis_of_seconds_however_long_the_labels_took(before: float) -> None:
    doubling = [row("distil", n, n, before + 0.1 * n) for n in (0, 1, 2, 4, 8, 16, 32)]
    for axes in panels_of(*doubling):
        ((line, _, _),) = axes.containers
        across = (axes.transData + axes.transAxes.inverted()).transform(line.get_xydata())[:, 0]
        assert across[-1] - across[0] > 0.75
        assert min(b - a for a, b in pairwise(across)) > 0.05
    assert ("after the first" in axes.get_xlabel()) == (before > 0)


def test_seconds_begin_where_steps_do() -> None:
    """An adaptation of no steps leaves two points of step 0, a moment apart; a file that is removed leaves none."""
    two = (row("adapt", 0, 0, 29.44), row("refine", 0, 0, 29.441), row("refine", 1, 1, 29.67))
    assert curves.seconds_before(two) == 29.441
    assert panels_of(*two)[1].containers[0][0].get_xdata().tolist() == [0.0]
    assert curves.seconds_before(two[2:]) == 29.67


# -------------------------------------------------------------------------------------------------------------- errors


def test_a_run_without_points_says_how_to_keep_them(dataset: Path, tmp_path: Path) -> None:
    done("adapt", dataset, *UNSCORED, *DM, "--out", tmp_path / "run")
    said = refused(1, "curve", tmp_path / "run")
    assert "no points of a curve" in said
    assert "--curve" in said


def test_a_run_that_is_not_finished_is_to_be_finished(runs: dict[str, Path]) -> None:
    shutil.rmtree(runs["dm"] / "synthetic")
    assert "--resume" in refused(1, "curve", runs["dm"])


@pytest.mark.parametrize("name", ["mgdd", "dm"])
def test_points_are_not_scored_on_other_data(name: str, runs: dict[str, Path], tmp_path: Path) -> None:
    Run(runs[name]).move_data(str(tiny.image_folder(tmp_path / "others", side=12)))
    assert "The dataset has changed" in refused(1, "curve", runs[name])


@pytest.mark.parametrize(
    ("file", "damage", "reason"),
    [
        ("mgdd/curve/adapt-1.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-4]), "is damaged"),
        ("dm/curve/distil-ipc2-1.safetensors", lambda path: path.write_bytes(b"{}"), "is damaged"),
        ("dm/curve/distil-ipc2-2.safetensors", lambda path: shutil.copy(path.parents[2] / "mgdd/curve/adapt-0.safetensors", path),
         "not a point of this run"),
        ("dm/curve/distil-ipc2-1.safetensors", lambda path: shutil.copy(path.with_stem("distil-ipc2-4"), path), "it says step 4"),
        ("mgdd/curve/refine-ipc2-0.safetensors",
         lambda path: shutil.copy(path.parents[1] / "synthetic/ipc2/exact.safetensors", path), "not a point of a curve"),
    ],
)  # fmt: skip
def test_a_damaged_or_foreign_point_is_named(
    file: str, damage: Callable[[Path], Any], reason: str, runs: dict[str, Path]
) -> None:
    path = runs["dm"].parent / file
    damage(path)
    said = refused(1, "curve", runs[file.partition("/")[0]], "--protocol", "kernel-ridge")
    assert reason in said
    assert path.name in said


def test_values_that_are_not_finite_are_refused(runs: dict[str, Path]) -> None:
    run = Run(runs["dm"])
    final = run.load_set(2)
    tensors = {"images": final.images * float("nan"), "labels": final.labels}
    write_point(run.folder / "curve" / "distil-ipc2-1.safetensors", Point(1, 0.5, tensors))
    with pytest.raises(RunError, match="not finite"):
        ddtool.curve(run, engine=tiny.ENGINE)


def test_a_damaged_table_is_named(runs: dict[str, Path]) -> None:
    (runs["dm"] / "curve.json").write_text('{"dataset": "x", "rows": [{"ipc": "two"}]}')
    assert "curve.json is damaged" in refused(1, "curve", runs["dm"])
