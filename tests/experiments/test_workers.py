"""The jobs of a comparison as processes: side by side, failing, interrupted."""

import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_jobs import REQUEST, A, B, C, alive, press, process

from ddtool.errors import RunError
from ddtool.events import Event, Note, silent
from ddtool.experiments.executors import Local
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Job
from ddtool.experiments.workers import Workers, why
from ddtool.runtime.engine import spread
from ddtool.runtime.signals import exit_code


def workers(
    folder: Folder,
    then: dict[Job, dict[str, Any]],
    places: int = 1,
    changed: Callable[[], object] = lambda: None,
    heard: Callable[[str], object] = lambda text: None,
) -> tuple[Workers, list[tuple[Job, int]], list[str]]:
    """Workers over fake jobs, with what they start and what they say."""
    started: list[tuple[Job, int]] = []
    said: list[str] = []

    def command(wanted: Job, place: int) -> list[str]:
        started.append((wanted, place))
        return process(folder.run(wanted), wanted, **then.get(wanted, {}))

    def report(event: Event) -> None:
        said.append(event.text if isinstance(event, Note) else f"{event.phase}: {event.step} of {event.total}")
        heard(said[-1])

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
    failed = "random, IPC 1, seed 0: failed. The [loss] is not finite. (3 to go, about "
    assert any(text.startswith(failed) for text in said)
    assert [text for text in said if "begins" in text][-1].endswith(": begins (job 4 of 4)")
    assert folder.log(A).read_text().splitlines()[-1] == "Hint: Lower it."
    assert not folder.log(B).exists()

    team, started, said = workers(folder, {})
    team.run(jobs)
    assert [one for one, _ in started] == [A, killed]
    assert said[0] == "Finished already: 2 of 4 jobs."
    assert {folder.outcome(one, REQUEST).state for one in jobs} == {"finished"}
    assert not folder.failed(A).exists()


@pytest.mark.parametrize(("places", "name"), [(1, "job"), (2, "job in place 1")])
def test_how_far_a_job_is_is_said(places: int, name: str, folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddtool.experiments.workers.FOLLOW", 0.0)
    folder.add(REQUEST, [A], False)

    def listener(text: str) -> None:
        if text.startswith(name + ": "):
            (folder.path / "heard").touch()

    team, _, said = workers(folder, {A: {"wait_for": str(folder.path / "heard")}}, places, heard=listener)
    folder.run(A).mkdir(parents=True)
    lines = [{"phase": "refine ipc1", "step": 30, "total": 400}, {"note": "x"}]
    (folder.run(A) / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"ste')
    team.run([A])
    assert f"{name}: 30 of 400" in said
    assert folder.outcome(A, REQUEST).state == "finished"


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


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_is_passed_on_once_and_is_no_failure(
    number: int, code: int, folder: Folder, signals: None
) -> None:
    folder.add(REQUEST, [A, B], False)
    team, started, _ = workers(folder, {A: {"sleep": True}})
    press((folder.run(A) / "ready").exists, number=number)
    with pytest.raises(KeyboardInterrupt) as caught:
        team.run([A, B])
    assert exit_code(caught.value) == code
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


@pytest.mark.skipif(sys.platform == "win32", reason="there the processes notice, and end by themselves")
def test_what_a_job_started_ends_with_it(folder: Folder, tmp_path: Path, signals: None) -> None:
    folder.add(REQUEST, [A], False)
    inner = f"import time; open({str(tmp_path / 'child')!r}, 'a').close(); time.sleep(100)"
    outer = (
        "import signal, subprocess, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); "
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {inner!r}]); "
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid)); child.wait()"
    )
    team = Workers(folder, REQUEST, lambda one, place: [sys.executable, "-S", "-c", outer], 1, silent, lambda: None)
    begun = [tmp_path / "child", tmp_path / "pid"]
    press(lambda: all(path.exists() for path in begun) and bool(begun[1].read_text()), times=2)
    with pytest.raises(KeyboardInterrupt):
        team.run([A])
    child = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and alive(child):
        time.sleep(0.02)
    assert not alive(child)


@pytest.mark.skipif(sys.platform == "win32", reason="there folders are not held")
def test_two_commands_are_not_at_work_in_one_folder(folder: Folder, tmp_path: Path) -> None:
    """Nor is one beside a job of a command that was killed."""
    with folder.held(launched=False):
        for launched in (False, True):
            with pytest.raises(RunError, match="Another `ddtool compare` is at work"), folder.held(launched):
                pass
    with folder.held(launched=True), folder.held(launched=True):
        pass
    with folder.held(launched=False) as inherited:
        waits = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]
        left = Local(inherited).start("job", waits, tmp_path / "log")
    with pytest.raises(RunError, match="Another"), folder.held(launched=False):
        pass
    left.kill()
    with folder.held(launched=False):
        pass


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
