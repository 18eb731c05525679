"""Jobs of a comparison that train nothing: folders that look finished, and processes that make them; no tests here."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ddtool.evaluation.protocols import version_of
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Job, Request, entry_of

REQUEST = Request("sample", protocol="quick")
A, B, C = (Job("random", 1, None, None, seed) for seed in range(3))

WORDS = ("--ipc", 1, "--methods", "random,mgdd", "--steps", 5, "--seeds", 2, "--device", "cpu")
"""A comparison of four jobs on the command line."""

SCRIPT = """
import json, os, pathlib, signal, sys, time
folder, config, results, then = pathlib.Path(sys.argv[1]), *sys.argv[2:]
then = json.loads(then)
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.json").write_text(config)
(folder / "env.json").write_text('{"device": "cpu (toy)"}')
if "wait_for" in then:
    deadline = time.monotonic() + 60
    while not pathlib.Path(then["wait_for"]).exists():
        if time.monotonic() > deadline:
            sys.exit("the other one did not come")
        time.sleep(0.01)
if "say" in then:
    print(then["say"], file=sys.stderr)
if "signal" in then:
    os.kill(os.getpid(), then["signal"])
if "sleep" in then:
    caught = []
    signal.signal(signal.SIGINT, lambda *_: caught.append(1))
    (folder / "group").write_text(str(os.getpgrp()))
    (folder / "ready").touch()
    while not caught:
        time.sleep(0.01)
    time.sleep(0.3)
    (folder / "interrupts").write_text(str(len(caught)))
    sys.exit(130)
if "exit" in then:
    sys.exit(then["exit"])
(folder / "results.json").write_text(results)
"""
"""What a fake job does; it starts in a few hundredths of a second."""


def job(method: str, steps: int | None = 100, seed: int = 0, ipc: int = 10) -> Job:
    """A job; a selection of real images has no steps."""
    return Job(method, ipc, steps if entry_of(method).method.learns else None, None, seed)


def config(job: Job) -> str:
    """The config.json of a job, as far as a comparison reads it."""
    method = entry_of(job.method).method.name
    return json.dumps(
        {"dataset": "toy", "method": method, "refine": {"steps": 0 if job.method == "mgdd-generator" else 1}}
    )


def results(
    job: Job,
    accuracy: float,
    step_seconds: float = 1.0,
    overhead: float = 0.0,
    protocols: Sequence[str] = ("quick",),
    **facts: Any,
) -> dict[str, Any]:
    """The results.json of a finished job, as the pipeline writes it."""
    stage = {"mgdd": "refined", "mgdd-generator": "generated"}.get(job.method, "distilled")
    score = {
        "stage": stage, "method": entry_of(job.method).method.name, "ipc": job.ipc, "arch": "ConvNet",
        "dataset": "toy", "mean": accuracy, "std": 0.0, "seeds": 1, "seconds": 1.0,
    }  # fmt: skip
    spent = {"steps": job.steps or 0, "step_seconds": step_seconds, "overhead_seconds": overhead}
    known = {"finished": True, "spent": {f"ipc{job.ipc}": spent}, "peak_memory_mib": 100}
    scores = [score | {"protocol": name, "protocol_version": version_of(name)} for name in protocols]
    return {"scores": scores, "timings": {}, "facts": known | facts}


def finish(folder: Folder, job: Job, accuracy: float, *seconds: float, device: str = "cpu (toy)", **facts: Any) -> None:
    """Make a job's folder look finished."""
    run = folder.run(job)
    run.mkdir(parents=True, exist_ok=True)
    (run / "config.json").write_text(config(job))
    (run / "env.json").write_text(json.dumps({"device": device}))
    (run / "results.json").write_text(json.dumps(results(job, accuracy, *seconds, **facts)))


def process(
    run: Path, job: Job, accuracy: float = 50.0, protocols: Sequence[str] = ("quick",), **then: Any
) -> list[str]:
    """The command of a process that makes a finished run, or ends as `then` says: say, exit, signal, sleep, wait_for."""
    made = json.dumps(results(job, accuracy, protocols=protocols))
    return [sys.executable, "-S", "-c", SCRIPT, str(run), config(job), made, json.dumps(then)]


def press(when: Callable[[], bool], times: int = 1, number: int = signal.SIGINT) -> None:
    """Press Ctrl-C once something has happened."""

    def wait() -> None:
        while not when():
            time.sleep(0.01)
        for _ in range(times):
            os.kill(os.getpid(), number)
            time.sleep(0.15)

    threading.Thread(target=wait, daemon=True).start()


def alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be taken note of does not."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return bool(found.stdout.strip()) and not found.stdout.startswith("Z")
