"""Jobs handed to submitit (its local mode) and to Ray (a cluster of this machine): done, failed, lost, interrupted."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_jobs import REQUEST, WORDS, A, B, C, alive, config, press, process
from tiny import OPTIONS, ROOT, ddtool, done, refused

from ddtool.errors import UsageError
from ddtool.events import Event, Note
from ddtool.experiments import jobs
from ddtool.experiments.executors import Executor, Ray, Resources, Slurm, check
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Job
from ddtool.experiments.workers import Workers
from ddtool.runtime.signals import exit_code

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="neither runs there")


@pytest.fixture(scope="module", params=["slurm", "ray"])
def executor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Executor]:
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "slurm":
            submitit = pytest.importorskip("submitit")
            # Of a job that is lost submitit awaits a result for 15 s, in case that it is on a slow network disk.
            patch.setattr(submitit.Job, "_results_timeout_s", 0)
            made: Executor = Slurm(Resources(cluster="local"), tmp_path_factory.mktemp("submitit"))
        else:
            pytest.importorskip("ray")
            made = Ray(Resources())
        yield made
        made.close()


def team(
    executor: Executor, folder: Folder, command: Callable[[Job], list[str]], said: list[str], places: int = 2
) -> Workers:
    """Workers over an executor; what they say goes into `said`."""

    def report(event: Event) -> None:
        assert isinstance(event, Note)
        said.append(event.text)

    return Workers(folder, REQUEST, lambda job, _: command(job), places, report, lambda: None, executor)


LASTING = """
import os, pathlib, signal, sys, time
folder, asked = pathlib.Path(sys.argv[1]), []
for name in (signal.SIGINT, signal.SIGTERM):
    signal.signal(name, lambda *_: asked.append(1))
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.json").write_text(sys.argv[2])
(folder / "env.json").write_text("{}")
(folder / "new").write_text(f"{os.getpid()} {os.environ.get('RANK')} {os.getcwd()}")
(folder / "new").rename(folder / "ready")
while not asked:
    time.sleep(0.01)
time.sleep(0.3)
(folder / "kept").touch()
sys.exit(143)
"""
"""A job that works until it is asked to stop, and then keeps its last step."""


def lasting(folder: Folder, job: Job) -> list[str]:
    return [sys.executable, "-S", "-c", LASTING, str(folder.run(job).absolute()), config(job)]


def parent(number: int) -> int:
    """The process that started a process."""
    found = subprocess.run(["ps", "-o", "ppid=", "-p", str(number)], capture_output=True, text=True, check=True)
    return int(found.stdout)


def wait_until(happened: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_jobs_end_as_they_do_on_this_machine(executor: Executor, folder: Folder) -> None:
    folder.add(REQUEST, [A, B, C], False)
    then: dict[Job, dict[str, Any]] = {A: {"say": "Error: No luck.", "exit": 1}, B: {"signal": signal.SIGKILL}}
    said: list[str] = []
    team(executor, folder, lambda job: process(folder.run(job), job, **then.get(job, {})), said).run([A, B, C])
    found = [folder.outcome(job, REQUEST) for job in (A, B, C)]
    assert [one.state for one in found] == ["failed", "failed", "finished"]
    assert found[0].reason == "No luck."
    assert "killed" in found[1].reason
    assert "random, IPC 1, seed 0: submitted (job 1 of 3)" in said
    assert any("since it was submitted" in text for text in said)


def test_a_lost_worker_costs_one_job(
    executor: Executor, folder: Folder, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    folder.add(REQUEST, [A, B], False)
    commands = {A: lasting(folder, A), B: process(folder.run(B), B)}
    said: list[str] = []
    workers = team(executor, folder, commands.__getitem__, said)
    looks = workers.collect

    def collect(stopping: bool, left: int) -> None:
        """Kill the worker of A, the process that started the job's shell, once B has ended."""
        ready = folder.run(A) / "ready"
        if ready.exists() and folder.outcome(B, REQUEST).state == "finished" and not killed:
            killed.append(int(ready.read_text().split()[0]))
            os.kill(parent(parent(killed[0])), signal.SIGKILL)
        looks(stopping, left)

    killed: list[int] = []
    monkeypatch.setattr(workers, "collect", collect)
    workers.run([A, B])
    assert [folder.outcome(job, REQUEST).state for job in (A, B)] == ["failed", "finished"]
    assert folder.outcome(A, REQUEST).reason.startswith("Its worker was lost (")
    wait_until(lambda: not alive(killed[0]))  # else it would work on beside its successor
    assert (folder.run(A) / "kept").exists() or isinstance(executor, Ray)  # Ray may end what a lost worker started
    commands[A] = process(folder.run(A), A)
    team(executor, folder, commands.__getitem__, said).run([A, B])
    assert {folder.outcome(job, REQUEST).state for job in (A, B)} == {"finished"}
    assert said.count("random, IPC 1, seed 1: submitted (job 2 of 2)") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_was_submitted_is_cancelled(
    number: int, executor: Executor, folder: Folder, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    monkeypatch.setenv("RANK", "1")
    folder.add(REQUEST, [A, B], False)
    press((folder.run(A) / "ready").exists, number=number)
    with pytest.raises(KeyboardInterrupt) as caught:
        team(executor, folder, lambda job: lasting(folder, job), [], places=1).run([A, B])
    assert exit_code(caught.value) == (130 if number == signal.SIGINT else 143)
    wait_until((folder.run(A) / "kept").exists)
    assert [folder.outcome(job, REQUEST).state for job in (A, B)] == ["begun", "missing"]
    assert not folder.failed(A).exists()
    _, rank, place = (folder.run(A) / "ready").read_text().split(maxsplit=2)
    assert (rank, place) == ("None", os.getcwd())


def test_the_table_is_the_same(tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]) -> None:
    pytest.importorskip("submitit")
    tables = {}
    for words in (("local",), ("slurm", "--resources", "cluster=local,gpus=0,minutes=5")):
        command = ("compare", data, *WORDS, "--out", tmp_path / words[0], "--executor", *words)
        faked["random-ipc1-seed1"] = {"exit": 1}
        assert "1 failed" in ddtool(*command).stdout
        faked.clear()
        tables[words[0]] = json.loads(done(*command, "--json").stdout)["rows"]
    assert tables["local"] == tables["slurm"]
    assert (tmp_path / "slurm" / "slurm").exists()


@pytest.mark.slow
def test_real_jobs_have_the_same_accuracy(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    real = jobs.command
    briefly = "import tiny; tiny.start()"
    monkeypatch.setattr(jobs, "command", lambda *what: [*real(*what)[:1], "-c", briefly, *real(*what)[3:]])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "tests")]))
    settings = [part for word in (*OPTIONS, "whitening.kind=none") if "=" in word for part in ("--set", word)]
    rows = {}
    for words in (("local",), ("slurm", "--resources", "cluster=local")):
        shown = done(
            "compare", data, "--ipc", 1, "--methods", "mgdd", "--steps", 5, "--seeds", 1, "--generator", "scratch",
            "--device", "cpu", "--precision", "fp32", "--threads", 1, "--out", tmp_path / words[0], "--json", *settings,
            "--executor", *words,
        )  # fmt: skip
        rows[words[0]] = [(row["method"], row["accuracy"], row["seeds"]) for row in json.loads(shown.stdout)["rows"]]
    assert rows["local"] == rows["slurm"]
    assert rows["local"][0][2] == 1


@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_missing_package_is_said_before_anything_is_done(
    name: str, tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda one, *more: None if one in ("ray", "submitit") else find(one, *more)
    )
    said = refused(2, "compare", data, *WORDS, "--out", tmp_path / "out", "--executor", name)
    assert f"pip install 'ddtool[{name}]'" in said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--executor", "slrum"], "Did you mean 'slurm'?"),
        (["--resources", "gpus=1"], "--executor slurm or --executor ray"),
        (["--executor", "ray", "--resources", "gpu=1"], "gpus"),
        (["--executor", "ray", "--resources", "gpus=-1"], "gpus"),
        (["--executor", "ray", "--resources", "gpus"], "NAME=VALUE"),
    ],
)
def test_bad_requests_are_refused(tmp_path: Path, data: Path, words: list[object], says: str) -> None:
    assert says in refused(2, "compare", data, *WORDS, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_slurm_and_under_a_launcher(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: object())
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(UsageError, match="srun was not found"):
        check("slurm", Resources())
    check("slurm", Resources(cluster="local"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    assert "Use one of them" in refused(2, "compare", data, *WORDS, "--out", tmp_path / "out", "--executor", "ray")
