"""Where the jobs of a comparison run: processes of this machine, jobs of SLURM (through submitit), or tasks of Ray.

A job is handed over as a command line. What submitit and Ray are given is `subprocess.call` with a list of strings, no object of
ours; what comes back is an exit code. Everything else is said by the comparison's folder, which all machines must share.
"""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from ddtool.config.checked import AtLeastOne, Count, checked
from ddtool.errors import UsageError, did_you_mean
from ddtool.runtime.distributed import PLACES

NAMES = ("local", "slurm", "ray")
PACKAGES = {"slurm": "submitit", "ray": "ray"}
"""What an executor needs, each an extra of this package."""
LOST = "Its worker was lost ({}). The same command runs it again."
GROUP = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""What `start_new_session` is on Windows."""
POLLED = 10**9
"""Seconds: a wait with a limit looks again and again, so that Ray can interrupt it."""
SUPERVISED = f"""unset {" ".join(PLACES)}
trap : INT TERM; trap '' USR2; exec 3<&0
"$@" </dev/null >/dev/null 2>"$0" 3<&- & job=$!
(cat <&3 >/dev/null; kill -TERM $job) 2>/dev/null & watch=$!
wait $job; code=$?
while kill -0 $job 2>/dev/null; do wait $job; code=$?; done
kill $watch 2>/dev/null
exit $code"""
"""A shell's lines: run a job, what it says into a file; ask it to stop once the process that started the shell is gone, which
closes the shell's input. So no job works on in a folder that another worker may take over."""


@checked
class Resources:
    """What each job is given by SLURM or Ray (`--resources NAME=VALUE,…`)."""

    gpus: Count = 0
    cpus: AtLeastOne = 1
    memory: AtLeastOne | None = None
    """GiB; None: what the cluster gives by itself."""
    minutes: AtLeastOne = 240
    """SLURM ends a job after these."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    cluster: Literal["slurm", "local"] = "slurm"
    """local: submitit's processes of this machine, to try a command without SLURM."""
    address: str | None = None
    """The address of a Ray cluster; None: the one that RAY_ADDRESS names, or a new one of this machine."""


@dataclass(frozen=True)
class Ended:
    """How a job ended: its exit code (minus the number of the signal that killed it), or why nobody knows it."""

    code: int = 0
    lost: str = ""


class Handed(Protocol):
    """A job that was handed over."""

    def ended(self) -> Ended | None:
        """How it ended; None while it waits or runs."""

    def interrupt(self) -> None:
        """Ask it to keep its last step and end; one that has not begun is withdrawn."""

    def kill(self) -> None:
        """End it at once."""


class Executor(Protocol):
    """Where jobs run. begins, lasts: how one says that a job begins, and what its seconds are."""

    begins: str
    lasts: str

    def start(self, name: str, words: Sequence[str], log: Path) -> Handed:
        """Hand over the command `words`, whose stderr goes to the file `log`. OSError when it cannot be started."""

    def close(self) -> None:
        """Leave the cluster."""


# ---------------------------------------------------------------------------------------------------------------- local


@dataclass(frozen=True)
class Process:
    """A job that is a process of this machine, in a session of its own: a terminal's Ctrl-C does not reach it."""

    process: subprocess.Popen

    def ended(self) -> Ended | None:
        code = self.process.poll()
        return None if code is None else Ended(code)

    def interrupt(self) -> None:
        """Press Ctrl-C for it (on Windows Ctrl-Break: there Ctrl-C reaches no other process group)."""
        if sys.platform == "win32":
            self.process.send_signal(signal.CTRL_BREAK_EVENT)
        else:
            self.process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it with the processes that it started (on Windows those notice, and end by themselves)."""
        if sys.platform == "win32":
            self.process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Local:
    """Jobs as processes of this machine. inherited: open files that each of them keeps open until it has ended."""

    begins, lasts = "begins", "with data and scores"

    def __init__(self, inherited: tuple[int, ...] = ()) -> None:
        self.inherited = inherited

    def start(self, name: str, words: Sequence[str], log: Path) -> Handed:
        with log.open("wb") as said:
            process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
                env={name: value for name, value in os.environ.items() if name not in PLACES},
                start_new_session=True, creationflags=GROUP, pass_fds=self.inherited,
            )  # fmt: skip
        return Process(process)

    def close(self) -> None:
        pass


# -------------------------------------------------------------------------------------------------------------- clusters


def supervised(words: Sequence[str], log: Path) -> list[str]:
    """A job's command with a shell around it that can be started on any machine (`SUPERVISED`)."""
    return ["/bin/sh", "-c", SUPERVISED, str(log.absolute()), *words]


def as_ended(code: int) -> Ended:
    """A shell's exit code: above 128 it is that of a signal."""
    return Ended(128 - code if code > 128 else code)


@dataclass(frozen=True)
class SlurmJob:
    """A job of submitit."""

    job: Any

    def ended(self) -> Ended | None:
        from submitit.core.utils import FailedJobError, UncompletedJobError

        if not self.job.done():
            return None
        try:
            return as_ended(self.job.result())
        except (FailedJobError, UncompletedJobError):
            return Ended(lost=f"job {self.job.job_id} left no result, its state is {self.job.state}")

    def interrupt(self) -> None:
        self.job.cancel(check=False)

    def kill(self) -> None:
        self.job.cancel(check=False)


class Slurm:
    """Jobs of SLURM. submitit keeps its scripts and what it says itself in `folder`."""

    begins, lasts = "submitted", "since it was submitted"

    def __init__(self, resources: Resources, folder: Path) -> None:
        from submitit import AutoExecutor

        self.executor = AutoExecutor(folder, cluster=resources.cluster)
        self.executor.update_parameters(
            timeout_min=resources.minutes, gpus_per_node=resources.gpus, cpus_per_task=resources.cpus,
            mem_gb=resources.memory, slurm_partition=resources.partition, slurm_account=resources.account,
            slurm_qos=resources.qos, slurm_constraint=resources.constraint,
        )  # fmt: skip

    def start(self, name: str, words: Sequence[str], log: Path) -> Handed:
        from submitit.core.utils import FailedJobError

        self.executor.update_parameters(name=name)
        try:
            return SlurmJob(self.executor.submit(subprocess.call, supervised(words, log), stdin=subprocess.PIPE))
        except FailedJobError as error:
            raise OSError(str(error)) from error

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class RayTask:
    """A job that is a task of Ray."""

    task: Any

    def ended(self) -> Ended | None:
        import ray

        if not ray.wait([self.task], timeout=0)[0]:
            return None
        try:
            return as_ended(ray.get(self.task))
        except ray.exceptions.RayError as error:
            return Ended(lost=str(error).splitlines()[0])

    def interrupt(self) -> None:
        import ray

        ray.cancel(self.task)

    def kill(self) -> None:
        import ray

        ray.cancel(self.task, force=True)


class Ray:
    """Tasks of a Ray cluster: the one at the address, or a new one of this machine."""

    begins, lasts = "submitted", "since it was submitted"

    def __init__(self, resources: Resources) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # else Ray tells its makers of each new cluster
        import ray

        try:
            ray.init(address=resources.address, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
        except (ConnectionError, RuntimeError, ValueError) as error:
            hint = "Set address=HOST:PORT in --resources, or leave it out for a new cluster of this machine."
            raise UsageError(f"The Ray cluster cannot be reached: {str(error).splitlines()[0]}", hint) from error
        memory = None if resources.memory is None else resources.memory * 2**30
        # max_retries: a job that was lost is said, and is there for the next command
        self.options = {
            "num_cpus": resources.cpus, "num_gpus": resources.gpus, "memory": memory, "max_retries": 0,
        }  # fmt: skip

    def start(self, name: str, words: Sequence[str], log: Path) -> Handed:
        import ray

        call, words = ray.remote(subprocess.call).options(name=name, **self.options), supervised(words, log)
        return RayTask(call.remote(words, stdin=subprocess.PIPE, cwd=str(Path.cwd()), timeout=POLLED))

    def close(self) -> None:
        import ray

        ray.shutdown()


# -------------------------------------------------------------------------------------------------------------- choosing


def check(name: str, resources: Resources) -> None:
    """UsageError for an executor that there is not, or whose package or cluster is missing here; nothing is submitted."""
    if name not in NAMES:
        raise UsageError(f"Unknown executor '{name}'.", did_you_mean(name, NAMES, listed=True))
    if name == "local":
        if resources != Resources():
            raise UsageError("--resources are for jobs of SLURM or Ray.", "Add --executor slurm or --executor ray.")
        return
    if sys.platform == "win32":
        raise UsageError(f"--executor {name} does not run on Windows.", "Use --executor local.")
    if importlib.util.find_spec(PACKAGES[name]) is None:
        raise UsageError(f"--executor {name} needs {PACKAGES[name]}.", f"Install it: pip install 'ddtool[{name}]'.")
    if name == "slurm" and resources.cluster == "slurm" and not shutil.which("srun"):
        hint = "Run it on a login node, or try the command here with --resources cluster=local."
        raise UsageError("There is no SLURM here: srun was not found.", hint)


def apart(name: str, resources: Resources) -> bool:
    """Whether each job has a GPU, or cores given by SLURM, to itself, wherever it runs."""
    return name != "local" and (resources.gpus > 0 or (name, resources.cluster) == ("slurm", "slurm"))


def opened(name: str, resources: Resources, folder: Path, inherited: tuple[int, ...] = ()) -> Executor:
    """The executor of a name that `check` has let pass; `folder` is for what it keeps itself; inherited: as `Local` says."""
    if name == "slurm":
        return Slurm(resources, folder)
    return Ray(resources) if name == "ray" else Local(inherited)
