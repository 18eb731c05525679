"""The folder of a comparison: what is written down, and what the run directories of jobs say."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_jobs import REQUEST, A, B, C, config, finish, job, results
from tiny import listing

from ddtool.config import RunConfig, from_dict
from ddtool.errors import RunError, UsageError
from ddtool.experiments.folder import Folder, final_score
from ddtool.experiments.grid import Grid, Job, Request
from ddtool.experiments.table import gather
from ddtool.runs.facts import RunFacts
from ddtool.runs.run import Run


def test_a_folder_takes_more_jobs_of_the_same_request_only(folder: Folder) -> None:
    folder.add(REQUEST, [A, B], False)
    folder.add(REQUEST, [B, C], True)
    folder.add(REQUEST, [A], False)
    assert folder.read() == Grid(REQUEST, (A, B, C), True)
    for other in (replace(REQUEST, dataset="mnist"), replace(REQUEST, settings={"refine": {"ridge": 1}})):
        with pytest.raises(UsageError, match="another request"):
            folder.add(other, [A], False)
    assert folder.read().request == REQUEST


def test_a_request_survives_its_file(folder: Folder) -> None:
    request = Request(
        "x", "dsa-ce", 2, True, "scratch", "cpu", "fp32", True, {"resolution": 32}, {"a": {"b": [1, None]}}, {"dm": {"c": 1.5}}
    )  # fmt: skip
    jobs = [A, Job("dm", 1, None, 2.5, 3)]
    folder.add(request, jobs, False)
    assert folder.read() == Grid(request, tuple(jobs), False)


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


def test_a_folder_of_version_0_1_is_read(folder: Folder) -> None:
    """The file as 0.1.0 wrote it, key by key."""
    request = {
        "dataset": "cifar10", "protocol": "quick", "networks": 1, "published": False, "generator": "bundled",
        "preset": "auto", "precision": "auto", "compiled": False, "data": {"revision": "abc"},
        "settings": {"flip": True}, "own": {"dm": {"baseline": {"lr": 10}}},
    }  # fmt: skip
    jobs = [
        {"method": "dm", "ipc": 1, "steps": None, "seconds": 15.0, "seed": 0},
        {"method": "gone", "ipc": 10, "steps": 5, "seconds": None, "seed": 2},
    ]
    said = {"request": request, "jobs": jobs, "shared": False}
    folder.path.mkdir()
    (folder.path / "compare.json").write_text(json.dumps(said))
    grid = folder.read()
    assert grid.request.own == {"dm": {"baseline": {"lr": 10}}}
    assert [job.name for job in grid.jobs] == ["dm-ipc1-15s-seed0", "gone-ipc10-5steps-seed2"]
    folder.add(grid.request, [], False)
    assert json.loads((folder.path / "compare.json").read_text()) == said


JOB = {"method": "dm", "ipc": 1, "steps": 5, "seconds": None, "seed": 0}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"method": "../../dm"}, "jobs.0.method"), ({"ipc": 0}, "jobs.0.ipc"), ({"seconds": -1}, "jobs.0.seconds"),
        ({"steps": "many"}, "jobs.0.steps"), ({"colour": 1}, "jobs.0.colour"),
    ],
)  # fmt: skip
def test_a_job_that_cannot_be_is_named(folder: Folder, change: dict[str, Any], says: str) -> None:
    folder.add(REQUEST, [A], False)
    said = json.loads((folder.path / "compare.json").read_text())
    (folder.path / "compare.json").write_text(json.dumps(said | {"jobs": [JOB | change]}))
    with pytest.raises(RunError, match=says) as caught:
        folder.read()
    assert "https" not in caught.value.message
    assert "Restore the file" in caught.value.hint


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
        {"spent": {}}, {"spent": 3}, {"spent": {"ipc1": {"steps": 1, "step_seconds": None, "overhead_seconds": 0}}},
        {"spent": {"ipc2": {"steps": 1, "step_seconds": 1.0, "overhead_seconds": 0}}}, {"factor": []},
        {"peak_memory_mib": "much"}, {"peak_memory_mib": float("nan")},
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
        others |= {"protocol_version": 7}
        scores += [score | {name: other} for score in scores for name, other in others.items()]
        run_config = from_dict(RunConfig, json.loads(config(wanted)))
        found = RunFacts.of({"scores": scores, "timings": {}, "facts": {}}).scores
        return final_score(found, wanted, REQUEST, run_config).stage

    assert pick(job("mgdd"), "generated", "refined", "random") == "refined"
    assert pick(job("mgdd-generator"), "random", "generated") == "generated"
    assert pick(job("dm"), "random", "distilled") == "distilled"
    assert pick(A, "random", "distilled") == "distilled"
    for wanted, stages in ((A, []), (A, ["random"]), (job("mgdd"), ["generated"])):
        with pytest.raises(ValueError, match="no score by quick with 1 network on toy"):
            pick(wanted, *stages)


def test_scores_that_evaluate_has_added_are_not_the_job_s(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0)
    run = Run(folder.run(A))
    score = replace(run.noted().scores[0], mean=99.0)
    run.record_score(replace(score, seeds=3))
    assert folder.outcome(A, REQUEST).accuracy == 50.0
    run.record_score(replace(score, arch="mlp-w128-none"))
    run.record_score(replace(score, arch="convnet3-w64-none", mean=51.0))
    monkeypatch.setattr(Run, "load_set", lambda self, ipc: SimpleNamespace(shape=(3, 32, 32)))
    assert folder.outcome(A, REQUEST).accuracy == 51.0
    assert folder.finished() == {A.name}


def test_a_job_without_its_score_says_how_to_measure_it(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0)
    Run(folder.run(A)).drop_scores(A.ipc)
    found = folder.outcome(A, REQUEST)
    assert found.state == "failed"
    assert "the same `ddtool compare` measures it again" in found.reason
    assert folder.finished() == set()


def test_a_run_without_the_score_that_was_asked_for_has_failed(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0)
    run = Run(folder.run(A))
    (own,) = run.results()["scores"]
    run.write_json("results.json", run.results() | {"scores": [own | {"seeds": 3}]})
    found = folder.outcome(A, REQUEST)
    assert found.state == "failed"
    assert "has no score by quick with 1 network" in found.reason
    assert "the same `ddtool compare` measures it again" in found.reason
    assert folder.finished() == set()
