"""The jobs of a comparison, a few at a time, wherever an executor runs them; one that fails leaves the rest alone."""

import re
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddtool.events import Note, Report, Step
from ddtool.experiments.executors import LOST, Ended, Executor, Handed, Local
from ddtool.experiments.folder import Folder, Outcome
from ddtool.experiments.grid import Job, Request
from ddtool.runs import files
from ddtool.runtime.signals import Asked, StoppedError, deferred_interrupt
from ddtool.text import count, duration

POLL = 0.1
"""Seconds between two looks at the processes."""
FOLLOW = 1.0
"""Seconds between two looks at how far their runs are."""
LAST_EVENTS = 2**14
"""Bytes at the end of what a run has noted that are looked at."""
LAST_LINES, LAST_BYTES = 40, 2**16
"""What is kept of what a job said."""
Command = Callable[[Job, int], list[str]]
"""The command of a job in one of the places where jobs run beside each other."""

KILLED = 9
"""The signal of a process that was ended for want of memory."""


@dataclass(frozen=True)
class Working:
    """A job that runs."""

    job: Job
    handed: Handed
    started: float


class Workers:
    """Runs jobs in `places` places at a time.

    command: what to run for a job in a place;  changed: called after each job, when the folder says something new;
    executor: where they run, by default as processes of this machine;  took: the seconds of each job that has ended.
    """

    def __init__(
        self, folder: Folder, request: Request, command: Command, places: int, report: Report,
        changed: Callable[[], object], executor: Executor | None = None,
    ) -> None:  # fmt: skip
        self.folder, self.request, self.command, self.places = folder, request, command, places
        self.report, self.changed, self.executor = report, changed, executor or Local()
        self.working: dict[int, Working] = {}
        self.total, self.begun = 0, 0
        self.took: list[float] = []
        self.looked = 0.0

    def run(self, jobs: Sequence[Job]) -> None:
        """Run those of the jobs that are not finished.

        Ctrl-C (a polite kill, a closed terminal) is passed on to the jobs once, so that each keeps its last step; then
        StoppedError. A second one ends them at once.
        """
        left = deque(job for job in jobs if self.folder.outcome(job, self.request).state != "finished")
        self.total, self.begun = len(jobs), len(jobs) - len(left)
        if done := self.begun:
            self.report(Note(f"Finished already: {done} of {count(len(jobs), 'job')}."))
        with deferred_interrupt() as asked:
            try:
                self.work(left, asked)
            finally:
                self.end()
        if asked.is_set():
            raise StoppedError(asked.number)

    def work(self, left: deque[Job], asked: Asked) -> None:
        """Run the jobs until none is left, or, once it is asked to stop, until those that run have ended."""
        passed_on = False
        while self.working or (left and not asked.is_set()):
            while left and not asked.is_set() and len(self.working) < self.places:
                self.start(left.popleft())
            time.sleep(POLL)
            self.collect(asked.is_set(), len(left))
            self.follow()
            if asked.is_set() and not passed_on:
                passed_on = self.pass_on()

    def collect(self, stopping: bool, left: int) -> None:
        """Conclude the jobs that have ended; `left` have not begun."""
        for place, working in list(self.working.items()):
            if end := working.handed.ended():
                del self.working[place]
                self.conclude(working, end, stopping, left + len(self.working))

    def follow(self) -> None:
        """Say now and then how far each job is in the phase that it is at, by what its run has noted."""
        if time.perf_counter() - self.looked < FOLLOW:
            return
        self.looked = time.perf_counter()
        for place, working in self.working.items():
            noted = files.events(self.folder.run(working.job) / files.METRICS, LAST_EVENTS)
            steps = [(event.get("step"), event.get("total")) for event in noted if "step" in event]
            step, total = steps[-1] if steps else (None, None)
            if isinstance(step, int) and isinstance(total, int):
                name = "job" if self.places == 1 else f"job in place {place + 1}"
                self.report(Step(name, step, total, {}))

    def pass_on(self) -> bool:
        """Press Ctrl-C for every job that runs."""
        for working in self.working.values():
            working.handed.interrupt()
        return True

    def start(self, job: Job) -> None:
        """Start a job in the first free place."""
        place = next(n for n in range(self.places) if n not in self.working)
        self.begun += 1
        self.report(Note(f"{job.words}: {self.executor.begins} (job {self.begun} of {self.total})"))
        self.folder.failed(job).unlink(missing_ok=True)
        log = self.folder.log(job)
        log.write_bytes(b"")
        try:
            handed = self.executor.start(job.name, self.command(job, place), log)
        except OSError as error:
            self.folder.fail(job, f"It could not be started: {error}")
            self.tell(self.folder.outcome(job, self.request), 0.0, "")
            return
        self.working[place] = Working(job, handed, time.perf_counter())

    def conclude(self, ended: Working, end: Ended, stopping: bool, left: int) -> None:
        """Take note of how a job ended."""
        job, log = ended.job, self.folder.log(ended.job)
        said = shorten(log)
        outcome = self.folder.outcome(job, self.request)
        if outcome.state == "finished" or stopping:
            log.unlink(missing_ok=True)
        if stopping:
            return
        if outcome.state not in ("finished", "failed"):
            self.folder.fail(job, LOST.format(end.lost) if end.lost else why(said, end.code))
        seconds = time.perf_counter() - ended.started
        self.took.append(seconds)
        self.tell(self.folder.outcome(job, self.request), seconds, self.to_go(left))

    def to_go(self, left: int) -> str:
        """How many jobs are left and about how long they take: each as long as those that have ended, in all places."""
        if not left:
            return ""
        mean = sum(self.took) / len(self.took)
        return f" ({left} to go, about {duration(mean * left / min(left, self.places))})"

    def tell(self, outcome: Outcome, seconds: float, to_go: str) -> None:
        """Say how a job went."""
        if outcome.state == "finished":
            how = f"{outcome.accuracy:.1f} %, {seconds:.0f} s {self.executor.lasts}"
        else:
            how = f"failed. {outcome.reason}"
        self.report(Note(f"{outcome.job.words}: {how}{to_go}"))
        self.changed()

    def end(self) -> None:
        """End what still runs, with the processes that it started."""
        for working in self.working.values():
            working.handed.kill()
        self.working.clear()


def shorten(log: Path) -> list[str]:
    """Cut a log back to its last lines, without colours; returns them."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LAST_BYTES))
        text = re.sub(r"\x1b\[[0-9;]*m", "", file.read().decode("utf-8", "replace"))
    lines = text.splitlines()[-LAST_LINES:]
    log.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return lines


def why(said: Sequence[str], code: int) -> str:
    """Why a job failed: the sentence after its last `Error:`, the signal that killed it, or its last line."""
    for line in reversed(said):
        if line.startswith("Error:"):
            return line.removeprefix("Error:").strip()
    if code == -KILLED:
        return "It was killed, perhaps because memory ran out."
    if code < 0:
        return f"It was ended by signal {-code}."
    last = next((line.strip() for line in reversed(said) if line.strip()), "")
    return last or (f"It ended with exit code {code}." if code else "It ended before it was finished.")
