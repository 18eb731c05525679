"""`ddtool compare`: which jobs there are, how they run, and what the report says of them."""

import csv
import io
import json
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import typer
from fake_jobs import config, finish, process, results
from tiny import OPTIONS, ROOT, ddtool, done, image_folder, listing, refused

from ddtool.cli.app import app
from ddtool.config import RunConfig, from_dict
from ddtool.errors import RunError, UsageError
from ddtool.events import Event, Note, silent
from ddtool.experiments import compare
from ddtool.experiments import plot as line_plot
from ddtool.experiments.compare import Folder, Job, Request, gather
from ddtool.experiments.plot import Axes, Box, Level, Line, Panel, Point, draw, places
from ddtool.experiments.report import files, panels, render
from ddtool.experiments.workers import Workers, why
from ddtool.methods import METHODS
from ddtool.methods.selection import Random
from ddtool.runs.run import Run
from ddtool.runtime.engine import spread

REQUEST = Request("sample")
A, B, C = (Job("random", 1, None, None, seed) for seed in range(3))


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that learn, known by these titles whatever else there is."""
    for name, factor in (("dm", 1), ("idc", 2)):
        made = type(name, (Random,), {"name": name, "title": name.upper(), "learns": True, "factor": factor})
        monkeypatch.setitem(METHODS, name, made)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three classes with eight images each."""
    return image_folder(tmp_path_factory.mktemp("data") / "toy")


def job(method: str, steps: int | None = 100, seed: int = 0, ipc: int = 10) -> Job:
    return Job(method, ipc, None if method in ("random", "herding") else steps, None, seed)


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


# ------------------------------------------------------------------------------------------------------- the request


def test_methods_are_found_by_name() -> None:
    assert compare.find_methods(["mgdd, dm", "random"]) == ["random", "dm", "mgdd"]
    assert compare.find_methods(["all"]) == [*METHODS, "mgdd-generator", "mgdd"]
    with pytest.raises(UsageError) as refusal:
        compare.find_methods(["mgdd-generater"])
    assert refusal.value.hint == "Did you mean 'mgdd-generator'?"
    with pytest.raises(UsageError):
        compare.find_methods([","])


def test_a_selection_is_one_job_whatever_the_budgets() -> None:
    jobs = compare.jobs_of(["random", "dm", "mgdd"], [10, 1], [300, 100, 100], [], 2)
    assert len(jobs) == len(set(jobs)) == len({j.name for j in jobs}) == 2 * 2 * (1 + 2 + 2)
    assert [j.seed for j in jobs] == [0] * 10 + [1] * 10  # something of everything first
    assert jobs[0] == Job("random", 1, None, None, 0)
    assert jobs[0].name == "random-ipc1-seed0"
    assert jobs[1].name == "dm-ipc1-100steps-seed0"
    assert jobs[1].words == "dm, IPC 1, 100 steps, seed 0"


def test_budgets_are_of_one_kind() -> None:
    jobs = compare.jobs_of(["dm"], [1], [], [60, 2.5], 1)
    assert [j.name for j in jobs] == ["dm-ipc1-2.5s-seed0", "dm-ipc1-60s-seed0"]
    with pytest.raises(UsageError):
        compare.jobs_of(["dm"], [1], [10], [60], 1)


def options_of(request: Request, wanted: Job) -> dict[str, Any]:
    """A job's command as {option: value}, `--set` as a mapping."""
    words = compare.command(request, wanted, Path("runs/x/jobs/y"), ["--device", "cpu"])
    assert words[1:5] == ["-m", "ddtool", "adapt", request.dataset]
    assert words[-1] == "--quiet"
    pairs = list(zip(words[5:-1:2], words[6:-1:2], strict=True))
    return dict(pairs) | {"--set": dict(value.split("=", 1) for name, value in pairs if name == "--set")}


def test_each_method_gets_its_budget_and_the_same_network() -> None:
    dm = options_of(REQUEST, job("dm", 1003))
    assert (dm["--method"], dm["--steps"], dm["--ipc"], dm["--seed"]) == ("dm", "1003", "10", "0")
    forced = {"evaluate.baseline": "false", "evaluate.kernel_ridge": "false"}
    assert dm["--set"] == {"baseline.pyramid": "true"} | forced
    assert "--refine-steps" not in dm
    assert dm["--device"] == "cpu"
    assert (dm["--protocol"], dm["--eval-seeds"], dm["--precision"]) == ("quick", "1", "auto")
    refined, alone = (options_of(REQUEST, job(method, 1003)) for method in ("mgdd", "mgdd-generator"))
    assert (refined["--method"], refined["--steps"], refined["--refine-steps"]) == ("mgdd", "200", "803")
    assert (alone["--method"], alone["--steps"], alone["--refine-steps"]) == ("mgdd", "1003", "0")
    short = {"labels.images": "4000", "fit.networks": "8"}
    assert refined["--set"] == short | forced
    assert not {"--steps", "--seconds"} & options_of(REQUEST, job("random")).keys()


def test_settings_for_minutes_unless_the_published_ones_are_asked_for() -> None:
    ours = {f"baseline.{name}": json.dumps(value) for name, value in METHODS["dsa"].short.items()}
    forced = {"evaluate.baseline": "false", "evaluate.kernel_ridge": "false"}
    assert ours
    assert options_of(REQUEST, job("dsa"))["--set"] == {"baseline.pyramid": "true"} | ours | forced
    assert options_of(replace(REQUEST, published=True), job("dsa"))["--set"] == forced
    assert options_of(replace(REQUEST, published=True), job("mgdd"))["--set"] == forced


def test_a_budget_in_seconds_is_left_to_the_pipeline() -> None:
    timed = {m: options_of(REQUEST, Job(m, 10, None, 60.0, 0)) for m in ("dm", "mgdd", "mgdd-generator")}
    assert {options["--seconds"] for options in timed.values()} == {"60"}
    assert not any("--steps" in options for options in timed.values())
    assert [m for m, options in timed.items() if "--refine-steps" in options] == ["mgdd-generator"]


def test_settings_reach_whom_they_are_for() -> None:
    request = Request(
        "x", published=True, data={"config": "a", "train_split": "t"},
        settings={"baseline": {"width": 64}, "refine": {"ridge": 0.5}}, own={"dm": {"baseline": {"width": 32, "init": "noise"}}},
    )  # fmt: skip
    forced = {"evaluate.baseline": "false", "evaluate.kernel_ridge": "false"}
    dm = options_of(request, job("dm"))
    assert dm["--set"] == {"baseline.width": "32", "baseline.init": '"noise"'} | forced
    assert (dm["--dataset-config"], dm["--train-split"]) == ("a", "t")
    assert options_of(request, job("idc"))["--set"]["baseline.width"] == "64"
    assert options_of(request, job("mgdd"))["--set"] == {"refine.ridge": "0.5"} | forced


def test_a_begun_job_is_resumed(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    run = folder.run(A)
    assert "--resume" not in compare.command(REQUEST, A, run, [])
    finish(folder, A, 50.0, finished=False)
    words = compare.command(replace(REQUEST, compiled=True), A, run, ["--device", "cpu"])
    assert words[3:] == [
        "adapt",
        "--resume",
        str(run),
        "--device",
        "cpu",
        "--precision",
        "auto",
        "--compile",
        "--quiet",
    ]


@pytest.mark.parametrize("method", ["random", "dm", "mgdd", "mgdd-generator"])
@pytest.mark.parametrize("seconds", [None, 60.0])
def test_adapt_knows_the_options_of_a_job(method: str, seconds: float | None) -> None:
    wanted = Job(method, 10, None if seconds else 10, seconds, 0)
    words = compare.command(
        Request("sample", data={"config": "a"}, compiled=True), wanted, Path("x"), ["--threads", "1"]
    )
    group: Any = typer.main.get_command(app)
    group.commands["adapt"].make_context("adapt", words[4:])


def test_what_a_job_would_refuse_is_refused_before_the_first(data: Path) -> None:
    compare.check(replace(REQUEST, dataset=str(data)), [A, job("mgdd", ipc=1)], "cpu")
    cases: list[tuple[Request, str]] = [
        (replace(REQUEST, own={"random": {"baseline": {"wdth": 3}}}), "random: Unknown setting 'baseline.wdth'"),
        (replace(REQUEST, settings={"adapt": {"lr": -1}}), "adapt.lr"),
        (replace(REQUEST, protocol="quik"), "protocol"),
        (replace(REQUEST, own={"mtd": {}}), "Unknown method 'mtd'"),
        (replace(REQUEST, preset="tpu"), "tpu"),
    ]
    for request, words in cases:
        with pytest.raises(UsageError) as refusal:
            compare.check(request, [A, job("mgdd", ipc=1)], "cpu")
        assert words in refusal.value.message
        assert refusal.value.hint
    with pytest.raises(UsageError, match="--ipc 9"):
        compare.check(replace(REQUEST, dataset=str(data)), [Job("random", 9, None, None, 0)], "cpu")


# -------------------------------------------------------------------------------------------------------- the folder


def test_a_folder_takes_more_jobs_of_the_same_request_only(folder: Folder) -> None:
    folder.add(REQUEST, [A, B], False)
    folder.add(REQUEST, [B, C], True)
    folder.add(REQUEST, [A], False)
    assert folder.read() == (REQUEST, [A, B, C], True)
    for other in (replace(REQUEST, dataset="mnist"), replace(REQUEST, settings={"refine": {"ridge": 1}})):
        with pytest.raises(UsageError, match="another request"):
            folder.add(other, [A], False)
    assert folder.read()[0] == REQUEST


def test_a_request_survives_its_file(folder: Folder) -> None:
    request = Request(
        "x", "dsa-ce", 2, True, "scratch", "cpu", "fp32", True, {"resolution": 32}, {"a": {"b": [1, None]}}, {"dm": {"c": 1.5}}
    )  # fmt: skip
    jobs = [A, Job("dm", 1, None, 2.5, 3)]
    folder.add(request, jobs, False)
    assert folder.read() == (request, jobs, False)


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    with pytest.raises(RunError, match="not a comparison"):
        Folder(tmp_path / "out").add(REQUEST, [A], False)
    assert listing(tmp_path) == ["out/thesis.tex"]
    with pytest.raises(RunError, match="not a comparison"):
        Folder(tmp_path / "out" / "thesis.tex").check(REQUEST)
    with pytest.raises(RunError, match="No comparison"):
        gather(Folder(tmp_path / "nowhere"))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"request": {"dataset": 3}, "jobs": [], "shared": false}', "\xff"])
def test_a_damaged_request_is_explained(folder: Folder, text: str) -> None:
    folder.add(REQUEST, [A], False)
    (folder.path / "compare.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match="damaged"):
        folder.read()


def test_states_of_a_job(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    assert folder.outcome(A, REQUEST).state == "missing"
    finish(folder, A, 50.0, finished=False)
    assert folder.outcome(A, REQUEST).state == "begun"
    folder.fail(A, "Too \x1b[31mbad\n  for words.")
    failed = folder.outcome(A, REQUEST)
    assert (failed.state, failed.reason) == ("failed", "Too [31mbad for words.")
    finish(folder, A, 51.5, 3.0, 4.0)  # whatever failed before
    found = folder.outcome(A, REQUEST)
    assert (found.state, found.accuracy, found.total_seconds, found.peak_memory_mib) == ("finished", 51.5, 7.0, 100)


@pytest.mark.parametrize(
    "change",
    [
        {"spent": {}}, {"spent": 3}, {"spent": {"ipc1": {"steps": 1, "step_seconds": None, "outside_seconds": 0}}},
        {"factor": []}, {"peak_memory_mib": "much"}, {"peak_memory_mib": float("nan")},
    ],
)  # fmt: skip
def test_results_that_cannot_be_used_are_a_failure(folder: Folder, change: dict[str, Any]) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0, **change)
    found = folder.outcome(A, REQUEST)
    assert found.state == "failed"
    assert found.reason.startswith("its results cannot be used")


def test_the_score_is_that_of_the_final_set() -> None:
    def pick(wanted: Job, *stages: str) -> str:
        scores = [results(wanted, 50.0)["scores"][0] | {"stage": stage} for stage in stages]
        others = {"protocol": "kernel-ridge", "ipc": 99, "seeds": 3, "dataset": "other", "method": "another"}
        scores += [score | {name: other} for score in scores for name, other in others.items()]
        run_config = from_dict(RunConfig, json.loads(config(wanted)))
        return str(compare.final_score(scores, wanted, REQUEST, run_config)["stage"])

    assert pick(job("mgdd"), "generated", "refined", "random") == "refined"
    assert pick(job("mgdd-generator"), "random", "generated") == "generated"
    assert pick(job("dm"), "random", "distilled") == "distilled"
    assert pick(A, "random", "distilled") == "distilled"
    for wanted, stages in ((A, []), (A, ["random"]), (job("mgdd"), ["generated"])):
        with pytest.raises(ValueError, match="no score by quick with 1 network on toy"):
            pick(wanted, *stages)


def test_a_score_that_evaluate_has_replaced_is_not_the_job_s(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0)
    assert folder.finished() == {A.name}
    run = Run(folder.run(A))
    run.record(score=run.results()["scores"][0] | {"seeds": 3, "mean": 99.0})
    found = folder.outcome(A, REQUEST)
    assert found.state == "failed"
    assert "`ddtool evaluate` has put another in its place" in found.reason
    assert "the same `ddtool compare` measures it again" in found.reason
    assert folder.finished() == set()


# ----------------------------------------------------------------------------------------------------------- workers


def workers(
    folder: Folder, then: dict[Job, dict[str, Any]], places: int = 1, changed: Callable[[], object] = lambda: None
) -> tuple[Workers, list[tuple[Job, int]], list[str]]:
    """Workers over fake jobs, with what they start and what they say."""
    started: list[tuple[Job, int]] = []
    said: list[str] = []

    def command(wanted: Job, place: int) -> list[str]:
        started.append((wanted, place))
        return process(folder.run(wanted), wanted, **then.get(wanted, {}))

    def report(event: Event) -> None:
        assert isinstance(event, Note)
        said.append(event.text)

    return Workers(folder, REQUEST, command, places, report, changed), started, said


def test_a_failed_job_leaves_the_rest_alone_and_is_tried_again(folder: Folder) -> None:
    killed = Job("random", 1, None, None, 3)
    jobs = [A, B, killed, C]
    folder.add(REQUEST, jobs, False)
    then = {
        A: {"say": "Traceback\n\x1b[1;31mError:\x1b[0m The [loss] is not finite.\nHint: Lower it.", "exit": 1},
        killed: {"signal": signal.SIGKILL},
    }
    looks: list[int] = []
    team, started, said = workers(folder, then, changed=lambda: looks.append(1))
    team.run(jobs)
    assert [one for one, _ in started] == jobs
    assert len(looks) == 4
    states = [folder.outcome(one, REQUEST) for one in jobs]
    assert [found.state for found in states] == ["failed", "finished", "failed", "finished"]
    assert states[0].reason == "The [loss] is not finite."
    assert "killed" in states[2].reason
    assert "random, IPC 1, seed 0: failed. The [loss] is not finite. (3 to go)" in said
    assert folder.log(A).read_text().splitlines()[-1] == "Hint: Lower it."
    assert not folder.log(B).exists()

    team, started, said = workers(folder, {})
    team.run(jobs)
    assert [one for one, _ in started] == [A, killed]
    assert said[0] == "2 of 4 jobs are finished already."
    assert {folder.outcome(one, REQUEST).state for one in jobs} == {"finished"}
    assert not folder.failed(A).exists()


def test_jobs_run_beside_each_other(folder: Folder) -> None:
    folder.add(REQUEST, [A, B, C], False)
    met = {A: {"wait_for": str(folder.run(B) / "env.json")}, B: {"wait_for": str(folder.run(A) / "env.json")}}
    team, started, _ = workers(folder, met, places=2)
    team.run([A, B, C])
    assert {folder.outcome(one, REQUEST).state for one in (A, B, C)} == {"finished"}
    assert [place for _, place in started[:2]] == [0, 1]
    assert started[2][1] in (0, 1)


def test_a_job_that_cannot_start_is_a_failure(folder: Folder) -> None:
    folder.add(REQUEST, [A, B], False)

    def command(wanted: Job, place: int) -> list[str]:
        return ["/nowhere/python"] if wanted is A else process(folder.run(wanted), wanted)

    Workers(folder, REQUEST, command, 1, silent, lambda: None).run([A, B])
    assert folder.outcome(A, REQUEST).reason.startswith("It could not be started")
    assert folder.outcome(B, REQUEST).state == "finished"


def press(when: Callable[[], bool], times: int = 1) -> None:
    """Press Ctrl-C once something has happened."""

    def wait() -> None:
        while not when():
            time.sleep(0.01)
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.15)

    threading.Thread(target=wait, daemon=True).start()


def test_an_interruption_is_passed_on_once_and_is_no_failure(folder: Folder, signals: None) -> None:
    folder.add(REQUEST, [A, B], False)
    team, started, _ = workers(folder, {A: {"sleep": True}})
    press((folder.run(A) / "ready").exists)
    with pytest.raises(KeyboardInterrupt):
        team.run([A, B])
    assert (folder.run(A) / "interrupts").read_text() == "1"
    assert int((folder.run(A) / "group").read_text()) != os.getpgrp()  # else a terminal would interrupt it as well
    assert [one for one, _ in started] == [A]
    assert [folder.outcome(one, REQUEST).state for one in (A, B)] == ["begun", "missing"]
    assert not folder.failed(A).exists()
    assert not folder.log(A).exists()


def test_a_second_interruption_ends_the_jobs(folder: Folder, signals: None) -> None:
    folder.add(REQUEST, [A], False)
    stubborn = {A: {"wait_for": "/nowhere"}}
    team, _, _ = workers(folder, stubborn)
    command = team.command
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    team.command = lambda one, place: [w if "folder, config" not in w else f"{deaf}\n{w}" for w in command(one, place)]
    press((folder.run(A) / "env.json").exists, times=2)
    with pytest.raises(KeyboardInterrupt):
        team.run([A])
    assert not team.working


def test_the_launchers_place_is_not_the_jobs(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    folder.add(REQUEST, [A], False)
    command = [
        process(folder.run(A), A)[0],
        "-c",
        "import os, sys; sys.exit(sorted(os.environ.keys() & {'RANK', 'PATH'})[0])",
    ]
    Workers(folder, REQUEST, lambda one, place: command, 1, silent, lambda: None).run([A])
    assert folder.outcome(A, REQUEST).reason == "PATH"


def test_why_a_job_failed() -> None:
    assert why(["Error: one.", "Error: two.", "Hint: x"], 1) == "two."
    assert why(["what?", ""], 1) == "what?"
    assert why([], 3) == "It ended with exit code 3."
    assert why([], -15) == "It was ended by signal 15."
    assert why([], 0) == "It ended before it was finished."


def test_gpus_are_taken_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert spread("auto", 3) == ["cuda:0", "cuda:1", "cuda:0"]
    assert spread("cuda:1", 2) == ["cuda:1", "cuda:1"]
    assert spread("cpu", 2) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert spread("auto", 2) == ["auto", "auto"]


# --------------------------------------------------------------------------------------------------- what comes out


@pytest.fixture
def full(folder: Folder) -> Folder:
    """random, DM and IDC at 100 and 200 steps, MGDD at both; two seeds; IPC 10; one failure, one job to do."""
    figures: dict[tuple[str, int | None], tuple[float, float, float]] = {
        ("random", None): (30, 0, 0), ("dm", 100): (40, 10, 2), ("dm", 200): (44, 20, 4), ("idc", 200): (52, 100, 100),
        ("mgdd-generator", 100): (41, 2, 1), ("mgdd-generator", 200): (45, 4, 2), ("mgdd", 100): (43, 3, 1),
        ("mgdd", 200): (50, 6, 2),
    }  # fmt: skip
    jobs = [job(method, steps, seed) for (method, steps) in figures for seed in (0, 1)]
    folder.add(REQUEST, [*jobs, job("idc", 100), job("herding")], False)
    for one in jobs:
        accuracy, inside, outside = figures[one.method, one.steps]
        more: dict[str, Any] = {"pretraining_seconds": 800.0} if one.method in compare.MGDD else {}
        more |= {"peak_memory_mib": 100 + one.seed}
        finish(folder, one, accuracy + (2 * one.seed - 1), inside, outside, **more)
    folder.fail(job("idc", 100), "Out of <b>memory</b> | or `worse`.")
    return folder


def test_rows_are_means_over_seeds_by_group(full: Folder) -> None:
    found = gather(full)
    rows = {(row.method, row.budget): row for row in found.rows}
    assert [(row.method, row.budget) for row in found.rows][-6:] == [
        ("idc", "100 steps"), ("idc", "200 steps"), ("mgdd-generator", "100 steps"), ("mgdd-generator", "200 steps"),
        ("mgdd", "100 steps"), ("mgdd", "200 steps"),
    ]  # fmt: skip
    assert {row.method: row.group for row in found.rows} == {
        "random": "plain pixels", "herding": "plain pixels", "dm": "plain pixels",
        "idc": "4 images in the place of one", "mgdd": "MGDD", "mgdd-generator": "MGDD",
    }  # fmt: skip
    row = rows["dm", "200 steps"]
    assert (row.accuracy, row.seeds, row.total_seconds, row.peak_memory_mib) == (44, 2, 24, 101)
    assert row.std == pytest.approx(2**0.5)  # of 43 and 45
    assert row.pretraining_seconds is None
    assert (rows["mgdd", "100 steps"].pretraining_seconds, rows["mgdd", "100 steps"].pretraining_share) == (800, 100)
    assert (rows["idc", "100 steps"].accuracy, rows["idc", "100 steps"].failed) == (None, 1)
    assert rows["herding", ""].waiting == found.waiting == 1
    assert found.failures == (("idc, IPC 10, 100 steps, seed 0", "Out of <b>memory</b> | or `worse`."),)


def test_factors_until_the_same_accuracy(full: Folder) -> None:
    dm, idc = gather(full).factors
    # DM's 44.0 takes 24 s. MGDD by seconds: 41 in 3 s, 43 in 4 s, 45 in 6 s.
    assert (dm.baseline.method, dm.baseline.budget) == ("dm", "200 steps")
    assert dm.mgdd is not None
    assert (dm.mgdd.method, dm.mgdd.budget, dm.factor, dm.at_least) == ("mgdd-generator", "200 steps", 4.0, False)
    assert dm.with_pretraining == pytest.approx(24 / 806)
    assert (idc.baseline.method, idc.mgdd, idc.factor) == ("idc", None, None)
    row = replace(dm.mgdd, pretraining_seconds=None)
    assert [f.with_pretraining for f in compare.factors_of([dm.baseline, row])] == [
        None
    ]  # not as if it were for nothing
    for seed in (0, 1):
        finish(full, job("dm", 200, seed), 40.5, 20.0, 4.0)
    dm = gather(full).factors[0]
    assert dm.mgdd is not None
    assert (dm.mgdd.budget, dm.factor, dm.at_least) == ("100 steps", 8.0, True)


def test_one_seed_has_the_spread_of_its_networks(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0)
    said = json.loads((folder.run(A) / "results.json").read_text())
    said["scores"][0] |= {"std": 1.25}
    (folder.run(A) / "results.json").write_text(json.dumps(said))
    assert [(row.accuracy, row.std) for row in gather(folder).rows] == [(50.0, 1.25)]


def test_the_report_has_every_format(full: Folder) -> None:
    render(full)
    said = json.loads((full.path / "results.json").read_text())
    assert [row["accuracy"] for row in said["rows"] if row["method"] == "dm"] == [40, 44]
    assert said["factors"][0]["factor"] == 4
    lines = list(csv.DictReader(io.StringIO((full.path / "results.csv").read_text())))
    assert [line["total_seconds"] for line in lines if line["method"] == "dm"] == ["12.0", "24.0"]
    text = (full.path / "results.md").read_text()
    assert "| DM | 40.0 ± 1.4 (n=2) | 100 | 10 | 2.0 | – | 101 |" in text
    assert "| **MGDD, refined** | **50.0 ± 1.4 (n=2)** |" in text
    assert "| IDC | failed | 100 | – |" in text
    assert "| 10 | DM | 44.0 | 24 | MGDD, generator alone, 200 steps | 45.0 | 6.0 | 4 |" in text
    assert "| 10 | IDC | 52.0 | 200 | not reached | – | – | – |" in text
    page = (full.path / "report.html").read_text()
    assert '<td class="failed">failed</td>' in page
    assert '<tr class="ours"><td>MGDD, refined</td><td>50.0 ± 1.4 (n=2)</td></tr>' in page


def test_the_report_is_a_function_of_the_folder(full: Folder) -> None:
    render(full)
    before = {path.name: path.read_bytes() for path in full.path.glob("*.*")}
    assert {"results.json", "report.html", "accuracy-over-seconds.svg"} <= before.keys()
    render(full)
    assert {path.name: path.read_bytes() for path in full.path.glob("*.*")} == before


def test_whoever_renders_has_the_last_word(full: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that another process finishes while this one writes is in the report all the same."""
    from ddtool.experiments import report as comparison_report

    write = comparison_report.write_text

    def and_meanwhile(path: Path, text: str) -> None:
        write(path, text)
        finish(full, job("herding"), 33.0)

    monkeypatch.setattr(comparison_report, "write_text", and_meanwhile)
    assert render(full).waiting == 0
    assert json.loads((full.path / "results.json").read_text())["waiting"] == 0


def test_nothing_in_a_report_is_taken_for_markup(folder: Folder) -> None:
    name = 'x"><script>alert(1)</script> & | `y`'
    request = replace(REQUEST, dataset=name)
    jobs = [job("dm"), job("mgdd"), job("dm", seed=1)]
    folder.add(request, jobs, False)
    for one in jobs[:2]:
        finish(folder, one, 40.0, 2.0, device="cpu <img src=x>")
    folder.fail(jobs[2], "</li><script>evil()</script>")
    made = files(gather(folder))
    for text in (made["report.html"], made["accuracy-over-seconds.svg"]):
        assert not re.findall(
            r"<(script|img|link|iframe|object)|\bon\w+=|src=[\"']|href=|url\(|@import", text.replace("&lt;", "")
        )
        assert set(re.findall(r"https?://[^\"']+", text)) <= {"http://www.w3.org/2000/svg"}
    assert "&lt;/li&gt;&lt;script&gt;" in made["report.html"]
    assert "<script>" not in made["results.md"].replace("\\<", "")
    ElementTree.fromstring(made["accuracy-over-seconds.svg"])


def test_a_budget_in_seconds_is_shown_beside_the_steps_taken(folder: Folder) -> None:
    timed = Job("dm", 10, None, 60.0, 0)
    folder.add(REQUEST, [timed, replace(timed, seconds=2.5)], False)
    finish(folder, timed, 50.0, 55.0, 5.0, spent={"ipc10": {"steps": 1234, "step_seconds": 55, "outside_seconds": 5}})
    text = files(gather(folder))["results.md"]
    assert "| method | budget | accuracy, % | steps | s in steps | s outside | peak MiB |" in text
    assert "| DM | 60 s | 50.0 (n=1) | 1,234 | 55 | 5.0 | 100 |" in text
    assert "| DM | 2.5 s | to go | – | – | – | – |" in text


def test_a_report_of_nothing_yet(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    found = render(folder)
    assert found.waiting == 1
    assert not (folder.path / "accuracy-over-seconds.svg").exists()
    assert "to go" in (folder.path / "results.md").read_text()


# ---------------------------------------------------------------------------------------------------------- the plot


def test_lines_of_the_plot(full: Folder) -> None:
    (panel,) = panels(gather(full))
    assert [line.name for line in panel.lines] == ["DM", "IDC", "MGDD, generator alone", "MGDD, refined"]
    assert [(p.x, p.y) for p in panel.lines[0].points] == [(12, 40), (24, 44)]
    assert [line.apart for line in panel.lines] == [False, True, False, False]
    assert [(level.name, level.y) for level in panel.levels] == [("random real images 30.0", 30)]
    picture = ElementTree.fromstring(draw([panel], "seconds", "accuracy"))
    space = "{http://www.w3.org/2000/svg}"
    assert len(picture.findall(f".//{space}circle")) == 6
    tips = [title.text for title in picture.iter(f"{space}title")]
    assert "DM, 200 steps: 44.0 ± 1.4 (n=2) % in 24 s" in tips


def test_a_logarithmic_axis() -> None:
    line = Line("a", (Point(1, 10, 0, ""), Point(10, 20, 1, ""), Point(100, 30, 0, "")), "#000", "#fff")
    axes = Axes(Panel("", (line,), ()), 0)
    left, middle, right = (axes.at_x(x) for x in (1, 10, 100))
    assert middle - left == pytest.approx(right - middle)
    assert axes.left < left < right < axes.right
    assert axes.at_y(30) < axes.at_y(20) < axes.at_y(10) < axes.bottom
    assert axes.x_ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert axes.y_ticks() == [10, 15, 20, 25, 30]


@pytest.mark.parametrize("apart", [0.0, 0.2, 3.0])
def test_names_of_lines_do_not_cover_each_other(apart: float) -> None:
    lines = tuple(
        Line(f"method {n}", (Point(10, 20 + n, 0.1, ""), Point(100, 40 + apart * n, 0.1, "")), "#000", "#fff")
        for n in range(8)
    )
    panel = Panel("", lines, (Level("random", 12.0),))
    picture = ElementTree.fromstring(draw([panel], "x", "y"))
    words = [t for t in picture.iter() if "halo" in t.get("class", "")]
    assert {t.text for t in words} == {line.name for line in lines} | {"random"}
    boxes = []
    for t in words:
        x, y = float(t.get("x", "")), float(t.get("y", ""))
        boxes.append(Box(x, y - 12, x + line_plot.LETTER * len(t.text or ""), y + 3))
    overlaps = [a.overlap(b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert max(overlaps) == pytest.approx(0, abs=1e-6)
    assert all(box.left >= 0 and box.right <= line_plot.WIDTH for box in boxes)


def test_a_single_point_has_axes_too() -> None:
    line = Line("only one", (Point(1e-3, 50.0, 0.0, ""),), "#000", "#fff", strong=True)
    axes = Axes(Panel("", (line,), ()), 0)
    assert axes.left < axes.at_x(1e-3) < axes.right
    assert list(places(axes, line))
    ElementTree.fromstring(draw([Panel("<&>", (line,), ())], "x", "y"))
    assert draw([], "x", "y") == ""


# -------------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Jobs of the command line are fake ones; what is put in here by name says how they end."""
    then: dict[str, dict[str, Any]] = {}

    def command(request: Request, wanted: Job, run: Path, machine: list[str]) -> list[str]:
        return process(run, wanted, 40.0 + len(wanted.method), **then.get(wanted.name, {}))

    monkeypatch.setattr(compare, "command", command)
    return then


WORDS = ("--ipc", 1, "--methods", "random,mgdd", "--steps", 5, "--seeds", 2, "--device", "cpu")


def test_compare_runs_what_is_left_and_shows_the_table(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    faked["random-ipc1-seed1"] = {"say": "Error: No luck.", "exit": 1}
    shown = ddtool("compare", data, *WORDS, "--out", out)
    assert shown.exit_code == 1
    assert re.search(r"^ *random +46.0 \(n=1, 1 failed\) +0 ", shown.stdout, re.MULTILINE)
    assert re.search(r"^ *mgdd +44.0 \(n=2\) +5 ", shown.stdout, re.MULTILINE)
    assert "No luck." in shown.stderr
    assert "bug" not in shown.stderr
    assert "random-ipc1-seed0 --protocol frepo-mse" in shown.stderr
    faked.clear()
    shown = done("compare", data, *WORDS, "--out", out, "--json")
    said = json.loads(shown.stdout)
    assert [(row["method"], row["accuracy"], row["seeds"]) for row in said["rows"]] == [
        ("random", 46, 2),
        ("mgdd", 44, 2),
    ]
    assert (said["failed"], said["waiting"], said["folder"]) == (0, 0, str(out))
    assert "3 of 4 jobs are finished already." in shown.stderr
    assert done("compare", data, *WORDS, "--out", out, "--seeds", 3, "--quiet").stdout == f"{out}\n"
    assert len(gather(Folder(out)).rows[0].jobs) == 3
    message = refused(2, "compare", data, *WORDS, "--out", out, "--protocol", "dsa-ce")
    assert 'protocol "quick"' in message


def test_processes_of_a_launcher_share_the_jobs(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    faked["mgdd-ipc1-5steps-seed1"] = {"say": "Error: No luck.", "exit": 1}
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = {}
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        shown = done(
            "compare", data, *WORDS, "--out", tmp_path / "out"
        )  # a failed job ends no process: the launcher would end the others
        ran[rank] = re.findall(r"^(.*): begins$", shown.stderr, re.MULTILINE)
        assert ("others are still at work" in shown.stderr) == (rank == 0)
        assert ("mgdd" in shown.stdout) == (rank == 1)
    assert ran == {
        0: ["random, IPC 1, seed 0", "random, IPC 1, seed 1"],
        1: ["mgdd, IPC 1, 5 steps, seed 0", "mgdd, IPC 1, 5 steps, seed 1"],
    }


def test_a_dry_run_lists_the_jobs_and_writes_nothing(tmp_path: Path, data: Path) -> None:
    shown = done("compare", data, *WORDS, "--out", tmp_path / "out", "--dry-run", "--json", "--workers", 2)
    plan = json.loads(shown.stdout)["jobs"]
    assert [one["job"] for one in plan][:2] == ["random-ipc1-seed0", "mgdd-ipc1-5steps-seed0"]
    assert {one["state"] for one in plan} == {"missing"}
    assert plan[1]["command"].startswith(
        f"ddtool adapt {data} --method mgdd --steps 1 --refine-steps 4 --ipc 1 --seed 0"
    )
    assert "--threads" in plan[1]["command"]  # two beside each other share the cores
    assert not (tmp_path / "out").exists()
    assert "4 jobs" in done("compare", data, *WORDS, "--out", tmp_path / "out", "--dry-run").stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "mdgg"], "Did you mean 'mgdd'?"),
        (["--steps", 5, "--seconds", 5], "steps or in seconds"),
        (["--seconds", "nan"], "--seconds must be positive"),
        (["--set-for", "random"], "METHOD:NAME=VALUE"),
        (["--set-for", "randon:baseline.width=3"], "Did you mean 'random'?"),
        (["--methods", "random", "--set", "baseline.wdth=3"], "baseline.wdth"),
        (["--methods", "random", "--set-for", "random:adapt.steps=3"], "random: Setting 'adapt.steps' is MGDD's"),
        (["--methods", "random", "--ipc", 9], "--ipc 9 is more than class"),
        (["--device", "gpu9"], "gpu9"),
    ],
)
def test_bad_requests_are_refused(tmp_path: Path, data: Path, words: list[object], says: str) -> None:
    assert says in refused(2, "compare", data, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_command_of_the_page_parses() -> None:
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:.* -m )?ddtool compare (.*?)(?:  +#.*)?$", page, re.MULTILINE)
    group: Any = typer.main.get_command(app)
    for line in lines:
        group.commands["compare"].make_context("compare", shlex.split(line))
    assert len(lines) >= 6


def test_jobs_are_runs_of_adapt(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = compare.command
    briefly = "import tiny, pytest; tiny.shorten_protocols(pytest.MonkeyPatch()); tiny.app()"
    monkeypatch.setattr(compare, "command", lambda *what: [*real(*what)[:1], "-c", briefly, *real(*what)[3:]])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    settings = [part for word in OPTIONS if "=" in word for part in ("--set", word)]
    shown = done(
        "compare", data, "--ipc", 1, "--methods", "random,mgdd", "--steps", 5, "--seeds", 1, "--generator", "scratch",
        "--device", "cpu", "--precision", "fp32", "--threads", 1, "--out", tmp_path / "out", "--json", *settings,
    )  # fmt: skip
    said = json.loads(shown.stdout)
    assert [(row["method"], row["seeds"], row["steps"]) for row in said["rows"]] == [("random", 1, 0), ("mgdd", 1, 5)]
    assert all(0 <= row["accuracy"] <= 100 and row["peak_memory_mib"] > 0 for row in said["rows"])
    assert said["rows"][1]["step_seconds"] > 0
    assert "of 2 jobs" not in shown.stderr
