"""`ddtool sweep`: sizes from one generator, scored once, with a table and a curve."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from tiny import done, refused

import ddtool
from ddtool import api
from ddtool.errors import RunError
from ddtool.evaluation.protocols import Score
from ddtool.experiments import plot
from ddtool.experiments import sweep as sweeps
from ddtool.experiments.plot import LIGHT, sheet
from ddtool.runs.foreign import strangers
from ddtool.runs.run import Run


@pytest.fixture(scope="module")
def made(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """An adapted and refined run of IPC 2, not to be changed."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTOOL_CACHE", str(folder / "cache"))
        tiny.shorten_protocols(patch)
        settings = tiny.SETTINGS | {"evaluate": {"seeds": 1, "protocol": "quick"}}
        return tiny.adapt(data, folder / "run", settings=settings)


@pytest.fixture
def run(made: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A copy of it; protocols are short."""
    tiny.shorten_protocols(monkeypatch)
    return Run(shutil.copytree(made.folder, tmp_path / "run"))


def test_seen_and_unseen_sizes_are_scored_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = run.load_set(2)
    measured: list[tuple[int, str, str]] = []
    real = sweeps.Judge.measure

    def counted(judge: object, synthetic: object, target: object, wanted: object) -> Score:
        score = real(judge, synthetic, target, wanted)  # type: ignore[arg-type]
        measured.append((score.ipc, score.stage, score.protocol))
        if len(measured) == stop_after:
            raise KeyboardInterrupt
        return score

    monkeypatch.setattr(sweeps.Judge, "measure", counted)
    stop_after = 3
    with pytest.raises(KeyboardInterrupt):
        api.sweep(run, [1, 3, 2], engine=tiny.ENGINE)
    assert sorted({ipc for ipc, _, _ in measured}) == [1]
    stop_after = -1
    lost = measured.pop()  # its score was not recorded
    with monkeypatch.context() as patch:
        patch.setattr(plot, "drawn", lambda *_: b"")  # the last one draws
        found = api.sweep(run, [1, 3, 2], engine=tiny.ENGINE)
    assert measured.count(lost) == 1
    assert len(measured) == len(set(measured))  # nothing twice
    wanted = {(n, stage, p) for n in (1, 2, 3) for stage in ("generated", "random") for p in ("kernel-ridge", "quick")}
    assert {(s.ipc, s.stage, s.protocol) for s in found.scores} == wanted
    assert len(found.scores) == len(wanted)
    again = len(measured)
    assert api.sweep(run, [1, 3, 2], engine=tiny.ENGINE) == found
    assert len(measured) == again
    assert run.load_set(2).stage == before.stage == "refined"  # what is refined stays
    assert run.ipcs() == [1, 2, 3]
    assert found.seen == (2, 4)
    rows = json.loads((run.folder / "sweep.json").read_text())["rows"]
    assert [row["ipc"] for row in rows if row["seen"]] == [2] * 4
    csv, markdown = ((run.folder / f"sweep.{kind}").read_text().splitlines() for kind in ("csv", "md"))
    assert (len(csv), len(markdown)) == (13, 14)
    assert (run.folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (run.folder / "sweep.svg").read_bytes()
    assert strangers(run.folder) == []


def test_a_refined_set_without_its_stages_is_swept_all_the_same(run: Run) -> None:
    refined, before = run.load_set(2), run.load_set(2, "generated")
    shutil.rmtree(run.folder / "stages")  # as in a run that was pulled with its sets
    found = api.sweep(run, [2], protocol="kernel-ridge", baseline=False, engine=tiny.ENGINE)
    assert [(score.ipc, score.stage) for score in found.scores] == [(2, "generated")]
    assert torch.equal(run.load_set(2, "generated").images, before.images)
    assert torch.equal(run.load_set(2).images, refined.images)


def test_the_curve_marks_the_sizes_that_were_seen() -> None:
    def score(ipc: int, stage: str, mean: float) -> Score:
        return Score(stage, "mgdd", ipc, "convnet", "quick", "toy", mean, 0.5, 2, 1.0, "8-bit")

    scores = [
        score(n, stage, n + 10.0 * (stage == "generated")) for n in (1, 10, 50) for stage in ("generated", "random")
    ]
    found = sweeps.Swept("some/toy", tuple(scores), (10,))
    assert [(panel.dataset, panel.title) for panel in sweeps.panels(found)] == [("some/toy", "quick")]
    (axes,) = sheet(sweeps.panels(found), "x", "y", LIGHT).axes
    marks = {bars.get_label(): bars[0] for bars in axes.containers}
    assert marks["generator alone"].get_xydata().tolist() == [[1, 11], [10, 20], [50, 60]]
    assert marks["random real images"].get_xydata().tolist() == [[1, 1], [10, 10], [50, 50]]
    assert marks["seen in adaptation"].get_xydata().tolist() == [[10, 20]]
    assert marks["seen in adaptation"].get_linestyle() == "None"


def test_scores_by_other_networks_are_no_rows(run: Run) -> None:
    found = api.sweep(run, [2], protocol="quick", engine=tiny.ENGINE)
    api.evaluate(run, ipc=2, stage="generated", protocol="quick", arch="mlp", seeds=1, engine=tiny.ENGINE)
    assert {score.arch for score in run.noted().scores if score.stage == "generated"} > {"mlp-w128-none"}
    assert api.sweep(run, [2], protocol="quick", engine=tiny.ENGINE) == found
    assert len(found.scores) == 2


def test_the_command_shows_the_table(run: Run) -> None:
    words = ("sweep", run.folder, "--ipc", 1, "--ipc", 3, "--protocol", "kernel-ridge", "--no-baseline")
    shown = json.loads(done(*words, "--json").stdout)
    assert [(row["ipc"], row["images"]) for row in shown["rows"]] == [(1, "generator alone"), (3, "generator alone")]
    assert "generator alone" in done(*words).stdout
    said = done(*words[:2], "--ipc", 4, *words[6:]).stderr
    assert "`ddtool generate --labels analytical` leaves it out" in said  # ddtool sweep itself has no --labels
    assert "smallest class holds (8)" in refused(2, "sweep", run.folder, "--ipc", "1,9")
    assert "'--ipc'" in refused(2, "sweep", run.folder, "--ipc", "1,x")
    assert "Unknown evaluation protocol" in refused(2, "sweep", run.folder, "--protocol", "quik")


def test_from_python_a_run_has_all_the_names_that_generate_takes(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(run.folder.parent))
    monkeypatch.setattr("ddtool.sharing.pull.pulled_run", lambda name, report: run)
    for name in (f"~/{run.folder.name}", "ann/gen"):
        found = ddtool.sweep(name, [1], protocol="kernel-ridge", baseline=False, engine=tiny.ENGINE)
        assert [score.ipc for score in found.scores] == [1]


def test_a_run_without_a_generator_has_no_sizes(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)
    run = tiny.adapt(
        data,
        tmp_path / "random",
        method="random",
        generator="bundled",
        settings={"evaluate": {"enabled": False}},
    )
    with pytest.raises(RunError, match="no adapted generator"):
        api.sweep(run, [1], engine=tiny.ENGINE)
