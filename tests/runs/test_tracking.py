"""Runs followed by a tracker: each one read back by its own local back end, resumed in the same tracked run, and never harmful."""

import json
import shlex
import shutil
import struct
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny

from ddtool import api
from ddtool.config import Values
from ddtool.errors import RunError, UsageError
from ddtool.events import Done, Event, Note, Step, silent
from ddtool.runs import tracking
from ddtool.runs.foreign import strangers
from ddtool.runs.run import Run
from ddtool.runs.tracking import Followed

STEPS = {"adapt/loss", "refine-ipc2/loss"}
PRETRAINING = shlex.split(
    "--iterations 3 --meta-batch 1 --inner-steps 1 --precision fp32 --set held_out=2 --set architecture.slots=8 "
    "--set architecture.side=16 --set features.width=16 --set validate_every=2 --set validate_tasks=1 "
    "--set validate_steps=1 --set meta.ways=[2,2] --set meta.ipc=[1,2] --set meta.label_images=4 "
    "--set meta.fit.networks=1 --set meta.fit.real_batch=12 --set meta.task.real_batch=12"
)
SCORE = "scores/refined-ipc2-quick-convnet2-w8-none"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.image_folder(tmp_path_factory.mktemp("data") / "clothes")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)
    for name in ("WANDB_PROJECT", "TRACKIO_PROJECT", "TRACKIO_SPACE_ID", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)


class Spy:
    """A tracker that keeps what it is told; `fails` names what it raises at."""

    failures: tuple[type[Exception], ...] = (EOFError,)
    made: list["Spy"] = []  # noqa: RUF012
    fails: Mapping[str, Exception] = {}

    def __init__(self) -> None:
        self.run: Followed | None = None
        self.settings: Values = {}
        self.logged: list[tuple[str, int, dict[str, float]]] = []
        self.closed: tuple[dict[str, float], bool] | None = None
        Spy.made.append(self)

    def _do(self, what: str) -> None:
        if what in self.fails:
            raise self.fails[what]

    def open(self, run: Followed, folder: Path, settings: Values) -> str:
        self._do("open")
        self.run, self.settings = run, settings
        return run.name + ("" if run.begun else "-1")

    def where(self) -> str:
        return "in memory"

    def log(self, group: str, step: int, values: Mapping[str, float]) -> None:
        self._do("log")
        self.logged.append((group, step, dict(values)))

    def close(self, figures: Mapping[str, float], well: bool) -> None:
        self._do("close")
        self.closed = dict(figures), well


@pytest.fixture
def spies(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    """The trackers of the name 'spy' that were made."""
    monkeypatch.setitem(tracking.CLIENTS, "spy", Spy)
    monkeypatch.setattr(Spy, "made", [])
    return Spy.made


def score(run: Run) -> float:
    """The score of the finished set, whose name for a tracker is SCORE."""
    (final,) = [s for s in run.noted().scores if (s.stage, s.protocol) == ("refined", "quick")]
    return final.mean


def stopping(phase: str, step: int) -> Any:
    """A listener that ends the work at a step, as a kill does."""

    def listen(event: Event) -> None:
        if isinstance(event, Step) and (event.phase, event.step) == (phase, step):
            raise SystemExit(9)

    return listen


def twice(dataset: Path, folder: Path, tracker: str) -> Run:
    """A run that is stopped in its refinement and then resumed, which begins to be tracked by its first half."""
    with pytest.raises(SystemExit):
        tiny.adapt(dataset, folder, stopping("refine ipc2", 2), track=tracker)
    return api.resume(folder, engine=tiny.ENGINE)


# ----------------------------------------------------------------------------------------------------- whatever tracker


def test_a_tracker_is_told_what_the_metrics_file_is_told(dataset: Path, tmp_path: Path, spies: list[Spy]) -> None:
    run = tiny.adapt(dataset, tmp_path / "clothes-ipc2", track="spy")
    (spy,) = [one for one in spies if one.run]
    lines = map(json.loads, (run.folder / "metrics.jsonl").read_text().splitlines())
    steps = [line for line in lines if "step" in line]
    assert [(step, values) for _, step, values in spy.logged] == [
        (line["step"], {k: v for k, v in line.items() if k not in ("phase", "step", "total")}) for line in steps
    ]
    assert {name for name, _, _ in spy.logged} >= {"adapt", "refine-ipc2", "quick-refined-ipc2-net-1-of-1"}
    assert spy.run
    assert (spy.run.name, spy.run.project) == ("clothes-ipc2", "ddtool")
    assert spy.settings == json.loads((run.folder / "config.json").read_text())
    assert spy.closed
    figures, well = spy.closed
    assert well
    assert sum(name.startswith("scores/") for name in figures) == len(run.noted().scores)
    assert figures["seconds/adapt"] == run.noted().timings["adapt"]


def test_resume_goes_on_in_the_same_tracked_run(dataset: Path, tmp_path: Path, spies: list[Spy]) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        tiny.adapt(dataset, folder, stopping("adapt", 2), track="spy")
    api.resume(folder, engine=tiny.ENGINE)
    first, second = [one for one in spies if one.run]
    assert first.closed == ({}, False)
    assert first.run
    assert second.run == first.run.but(name="run-1", begun=True)
    assert second.closed
    assert second.closed[1]
    assert {name for name, _, _ in second.logged} >= {"adapt", "refine-ipc2"}


def test_tracking_changes_nothing_of_a_run(dataset: Path, tmp_path: Path, spies: list[Spy]) -> None:
    plain, followed = tiny.adapt(dataset, tmp_path / "a"), tiny.adapt(dataset, tmp_path / "b", track="spy")
    assert tiny.listing(followed.folder) == sorted([*tiny.listing(plain.folder), tracking.RECORD])
    for name in ("config.json", "synthetic/ipc2/exact.safetensors", "generator/model.safetensors"):
        assert (plain.folder / name).read_bytes() == (followed.folder / name).read_bytes()


@pytest.mark.parametrize("at", ["open", "log", "close"])
@pytest.mark.parametrize("error", [OSError("No route to hf_abcdefghij"), EOFError("gone"), RuntimeError()])
def test_a_tracker_that_fails_is_given_up_and_said_once(
    at: str, error: Exception, tmp_path: Path, spies: list[Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Spy, "fails", {at: error})
    heard: list[Event] = []
    with tracking.tracked(tmp_path, "spy", {}, heard.append) as tracker:
        for step in (1, 2):
            tracker.listener(Step("adapt", step, 2, {"loss": 0.5}))
        tracker.listener(Done("adapt", 1.0))
    said = [event.text for event in heard if isinstance(event, Note) and "tracker has failed" in event.text]
    assert len(said) == 1
    assert "hf_abc" not in said[0]
    assert said[0].endswith(("No route to ***", "gone", "RuntimeError"))
    assert [event for event in heard if not isinstance(event, Note)] == [
        Step("adapt", 1, 2, {"loss": 0.5}), Step("adapt", 2, 2, {"loss": 0.5}), Done("adapt", 1.0),
    ]  # fmt: skip
    assert tracking.recorded(tmp_path)  # the next try is the same tracked run


def test_an_error_of_the_run_is_not_the_trackers(tmp_path: Path, spies: list[Spy]) -> None:
    with pytest.raises(ValueError, match="mine"), tracking.tracked(tmp_path, "spy", {}, silent):
        raise ValueError("mine")
    assert spies[0].closed == ({}, False)


def test_a_run_has_one_tracker(tmp_path: Path, spies: list[Spy], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tracking.CLIENTS, "other", Spy)
    for name in ("spy", None, "spy"):
        with tracking.tracked(tmp_path, name, {}, silent):
            pass
    with pytest.raises(UsageError, match="followed by spy already"), tracking.tracked(tmp_path, "other", {}, silent):
        pass
    assert len({spy.run.id for spy in spies if spy.run}) == 1
    (tmp_path / tracking.RECORD).write_text("{")
    with pytest.raises(RunError, match="damaged"):
        tracking.recorded(tmp_path)


def test_other_processes_than_the_first_track_nothing(tmp_path: Path, spies: list[Spy]) -> None:
    with tracking.tracked(tmp_path, "spy", {}, silent, main=False) as tracker:
        tracker.listener(Step("pretrain", 1, 2, {"loss": 0.5}))
    assert (spies, list(tmp_path.iterdir())) == ([], [])


def test_no_secret_is_told() -> None:
    settings: Values = {"dataset": "https://me:word@host/x?sig=1", "data": {"revision": "hf_abcdefghijkl"}, "ipc": [1]}
    assert tracking.shareable(settings) == {"dataset": "https://***@host/x", "data": {"revision": "***"}, "ipc": [1]}


def test_a_tracked_run_is_named_after_its_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tracking.title(Path("runs/cifar10")) == "cifar10"
    assert tracking.title(Path("runs/compare-sample/jobs/dm-ipc1")) == "compare-sample-dm-ipc1"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert tracking.title(Path(".")) == "here"


def test_phases_are_one_part_of_a_figures_name() -> None:
    assert tracking.group("quick refined ipc1 net 1/3") == "quick-refined-ipc1-net-1-of-3"


# ------------------------------------------------------------------------------------------------ before any work starts


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "trackio"])
@pytest.mark.parametrize("command", ["adapt", "compare", "pretrain"])
def test_a_missing_package_is_said_before_anything_is_done(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    if name == "tensorboard":
        monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = tiny.refused(2, command, "no-such-dataset", "--track", name, "--out", tmp_path / "out")
    assert f"The package of the tracker {name} cannot be loaded: " in said
    assert f"pip install 'ddtool[{name}]'" in said
    assert not (tmp_path / "out").exists()
    if command == "adapt":
        with pytest.raises(UsageError, match="cannot be loaded"):
            api.adapt("no-such-dataset", track=name)


def test_an_unknown_tracker_is_refused() -> None:
    assert "Did you mean 'wandb'?" in tiny.refused(2, "adapt", "sample", "--track", "wandv")


def test_a_run_whose_tracker_is_gone_is_not_resumed_by_half(
    dataset: Path, tmp_path: Path, spies: list[Spy], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        tiny.adapt(dataset, tmp_path / "run", stopping("adapt", 2), track="spy")
    monkeypatch.delitem(tracking.CLIENTS, "spy")
    assert "Unknown tracker 'spy'" in tiny.refused(2, "adapt", "--resume", tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / tracking.FOLDER)
    api.resume(tmp_path / "run", engine=tiny.ENGINE)


# --------------------------------------------------------------------------------------------------------- TensorBoard


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard's own reader finds in a run: step and value by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / tracking.FOLDER), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


@pytest.fixture
def tensorboard() -> None:
    pytest.importorskip("tensorboard", reason="tensorboard, of the extra [tensorboard], is not installed")


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_reads_a_run_and_its_resumption(dataset: Path, tmp_path: Path) -> None:
    run = twice(dataset, tmp_path / "run", "tensorboard")
    found = scalars(run.folder)
    assert [step for step, _ in found["adapt/loss"]] == [1, 2, 3]
    assert set(found) >= STEPS | {SCORE, "seconds/adapt"}
    assert dict(found["refine-ipc2/loss"]) == pytest.approx(run.losses()["refine ipc2"])
    assert found[SCORE] == [(0, pytest.approx(score(run)))]


@pytest.mark.usefixtures("tensorboard")
def test_the_folder_of_a_tracker_is_ours(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    words = ["adapt", dataset, "--ipc", 2, *tiny.OPTIONS, "--no-evaluate", "--out", folder]
    said = tiny.done(*words, "--track", "tensorboard").stderr
    assert f"Tracked by tensorboard as run: `tensorboard --logdir {folder / 'tracking'}` shows it." in said
    assert strangers(folder) == []
    first = json.loads((folder / tracking.RECORD).read_text())
    tiny.done(*words, "--track", "tensorboard", "--force")
    assert json.loads((folder / tracking.RECORD).read_text())["id"] != first["id"]
    assert len(scalars(folder)["adapt/loss"]) == 3  # nothing of the run that was replaced
    tiny.done(*words, "--force")
    assert not (folder / tracking.FOLDER).exists()


@pytest.mark.usefixtures("tensorboard")
def test_a_run_can_be_tracked_from_its_resumption_on(dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(SystemExit):
        tiny.adapt(dataset, folder, stopping("refine ipc2", 1))
    tiny.done("adapt", "--resume", folder, "--precision", "fp32", "--track", "tensorboard", "-q")
    assert set(scalars(folder)) >= {"refine-ipc2/loss", SCORE}


@pytest.mark.usefixtures("tensorboard")
def test_a_pretraining_is_tracked_with_its_validation(tmp_path: Path) -> None:
    data = tiny.image_folder(tmp_path / "clothes", ("boot", "coat", "dress", "bag"))
    folder, words = tmp_path / "meta", ["--out", tmp_path / "meta", *PRETRAINING]
    tiny.done("pretrain", data, *words, "--track", "tensorboard", "-q")
    found = scalars(folder)
    assert [step for step, _ in found["pretrain/loss"]] == [1, 2, 3]
    assert [step for step, _ in found["validate/accuracy"]] == [0, 2, 3]
    tiny.done("pretrain", "--resume", folder, "--precision", "fp32", "-q")
    tiny.done("pretrain", data, *words, "--force", "-q")
    assert not (folder / tracking.FOLDER).exists()


@pytest.mark.usefixtures("tensorboard")
def test_every_job_of_a_comparison_is_tracked(dataset: Path, tmp_path: Path) -> None:
    words = ["--ipc", 1, "--methods", "random,mgdd", "--seeds", 1, "--device", "cpu", "--out", tmp_path / "small"]
    plan = tiny.done("compare", dataset, *words, "--track", "tensorboard", "--dry-run", "-q").stdout.splitlines()
    assert len(plan) == 2
    assert all(" --track tensorboard" in command for command in plan)


# --------------------------------------------------------------------------------------------- Weights & Biases, Trackio
def wandb_records(file: Path) -> Iterator[Any]:
    """The records of an offline run: a log of blocks of 32 KiB after 7 bytes, each piece with checksum, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, kept = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        room = 2**15 - at % 2**15
        if room < 7:
            at += room
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        kept, at = kept + data[at + 7 : at + 7 + size], at + 7 + size
        if kind in (1, 4):  # whole, or the last piece
            record = Record()
            record.ParseFromString(kept)
            yield record
            kept = b""


def test_wandb_keeps_a_run_offline(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb, of the extra [wandb], is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    run = twice(dataset, tmp_path / "clothes", "wandb")
    files = sorted((run.folder / tracking.FOLDER / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    records = [record for file in files for record in wandb_records(file)]
    runs = {(r.run.run_id, r.run.display_name, r.run.project) for r in records if r.HasField("run")}
    assert runs == {(json.loads((run.folder / tracking.RECORD).read_text())["id"], "clothes", "mine")}
    rows = [{i.key or i.nested_key[0]: i.value_json for i in r.history.item} for r in records if r.HasField("history")]
    losses = {int(row["refine-ipc2/step"]): float(row["refine-ipc2/loss"]) for row in rows if "refine-ipc2/loss" in row}
    assert losses == pytest.approx(run.losses()["refine ipc2"])
    settings = {u.key: u.value_json for r in records if r.HasField("config") for u in r.config.update}
    assert json.loads(settings["refine"])["steps"] == 3
    summary = {
        u.key or u.nested_key[0]: u.value_json for r in records if r.HasField("summary") for u in r.summary.update
    }
    assert float(summary[SCORE]) == pytest.approx(score(run))
    assert [r.exit.exit_code for r in records if r.HasField("exit")] == [1, 0]
    assert strangers(run.folder) == []


def test_trackio_keeps_a_run_on_this_machine(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio, of the extra [trackio], is not installed")
    from trackio.sqlite_storage import SQLiteStorage

    twice(dataset, tmp_path / "other" / "clothes", "trackio")
    run = twice(dataset, tmp_path / "clothes", "trackio")
    name = json.loads((run.folder / tracking.RECORD).read_text())["name"]
    assert name.startswith("clothes-")
    assert sorted(SQLiteStorage.get_runs("ddtool")) == ["clothes", name]
    rows = SQLiteStorage.get_logs("ddtool", name)
    losses = {row["step"]: row["refine-ipc2/loss"] for row in rows if "refine-ipc2/loss" in row}
    assert losses == pytest.approx(run.losses()["refine ipc2"])
    assert [row[SCORE] for row in rows if SCORE in row] == [pytest.approx(score(run))]
    assert capfd.readouterr().out == ""
