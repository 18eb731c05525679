"""The folder of a comparison: its file names, and what the run directories of its jobs say.

compare.json             the request that all jobs share, and the jobs
jobs/NAME/               a job's run directory
jobs/NAME.log            the last lines that it said
jobs/NAME.failed         why it failed; gone when it is tried again
whole.json               scores of the whole training set, where they were asked for (`whole`)
report.html, results.json, results.csv, results.md, accuracy-over-seconds.svg and .png
                         the report, a pure function of what is above (`report`)
"""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from ddtool.config import RunConfig, Values
from ddtool.errors import RunError, UsageError
from ddtool.evaluation.measure import arch_text
from ddtool.evaluation.protocols import Score, version_of
from ddtool.experiments.grid import Grid, Job, Request, entry_of
from ddtool.pipeline.session import final_stage
from ddtool.runs.facts import RunFacts
from ddtool.runs.files import is_run, write_atomically, write_json
from ddtool.runs.run import Run
from ddtool.runtime.files import held
from ddtool.text import count, one_line, without_secrets

REQUEST, GRID = TypeAdapter(Request), TypeAdapter(Grid)


@dataclass(frozen=True)
class Outcome:
    """What a job's folder says. The figures are there when it is finished."""

    job: Job
    state: Literal["finished", "failed", "begun", "missing"]
    reason: str = ""
    """Why it failed."""
    accuracy: float = 0.0
    """In percent of the test split."""
    std: float = 0.0
    """Over the job's networks."""
    steps: int = 0
    step_seconds: float = 0.0
    overhead_seconds: float = 0.0
    """Experts, networks trained between the steps, labels."""
    pretraining_seconds: float | None = None
    peak_memory_mib: float | None = None
    factor: int = 1
    """Each stored image holds factor x factor images."""
    device: str = ""
    content_hash: str | None = None
    """Of the local data that it read."""
    set_bytes: int | None = None
    """Bytes of 8-bit pixels, labels and whitening (`SyntheticSet.stored_bytes`)."""

    @property
    def total_seconds(self) -> float:
        return self.step_seconds + self.overhead_seconds


class Folder:
    """A comparison's folder: the one place that knows its names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> Grid:
        """What the comparison was asked for so far; RunError for a folder that says something else."""
        try:
            return GRID.validate_json((self.path / "compare.json").read_bytes())
        except FileNotFoundError:
            raise RunError(f"No comparison at {self.path}.", "Make one with `ddtool compare DATASET`.") from None
        except (OSError, ValueError) as error:
            hint = "Restore the file, or choose another --out."
            raise RunError(f"{self.path / 'compare.json'} is damaged: {fault(error)}.", hint) from error

    def is_begun(self) -> bool:
        """Whether a comparison was begun here."""
        return (self.path / "compare.json").exists()

    def continued(self, request: Request, named_protocol: bool) -> Request | None:
        """The request as it goes on here: by the protocols that the comparison was begun with, unless it names some, and at that
        revision, unless it names one. None: begin anew."""
        if not self.is_begun():
            return None
        before = self.read().request
        request = request if named_protocol else replace(request, protocol=before.protocol)
        if before.dataset != request.dataset or "revision" in request.data or "revision" not in before.data:
            return request
        return replace(request, data=request.data | {"revision": before.data["revision"]})

    def check(self, request: Request) -> None:
        """RunError unless jobs of this request may be here: the folder is free, or its request is the same."""
        if not self.is_begun():
            # hidden files are those of other processes, which may be beginning the comparison
            if self.path.is_file() or any(self.path.glob("[!.]*")):
                raise RunError(f"{self.path} exists already and is not a comparison.", "Choose another --out.")
            return
        before = values_of(self.read().request)
        changed = [name for name, value in values_of(request).items() if value != before[name]]
        if changed:
            was = "; ".join(f"{name} {json.dumps(before[name])}" for name in changed)
            raise UsageError(
                f"{self.path} holds a comparison of another request. There it is: {was:.300}.",
                "Only methods, IPCs, seeds and budgets can be added to it. Ask as before, or choose another --out.",
            )

    def add(self, request: Request, jobs: Sequence[Job], shared: bool) -> None:
        """Write down the request, and the jobs beside those that are there. Raises as `check`."""
        self.check(request)
        before = self.read() if self.is_begun() else Grid(request, (), False)
        grid = Grid(request, tuple(dict.fromkeys([*before.jobs, *jobs])), shared or before.shared)
        self.path.mkdir(parents=True, exist_ok=True)
        write_json(self.path / "compare.json", GRID.dump_python(grid, mode="json"))
        (self.path / "jobs").mkdir(exist_ok=True)

    def held(self, launched: bool) -> contextlib.AbstractContextManager[tuple[int, ...]]:
        """Keep other commands out of the folder, which is made if need be; RunError while one works here, or while a job of one
        that was killed does.

        Yields what a job has to inherit so that the folder stays held until it has ended. launched: the processes of a launcher
        work here together.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        hint = "Wait until it has ended. One that was killed leaves a job at work; `ps` shows it as `ddtool adapt`."
        return held(self.path, RunError(f"Another `ddtool compare` is at work in {self.path}.", hint), shared=launched)

    def run(self, job: Job) -> Path:
        """A job's run directory."""
        return self.path / "jobs" / job.name

    def log(self, job: Job) -> Path:
        """The file of what a job says on stderr."""
        return self.path / "jobs" / f"{job.name}.log"

    def failed(self, job: Job) -> Path:
        """The file that says why a job failed."""
        return self.path / "jobs" / f"{job.name}.failed"

    def fail(self, job: Job, reason: str) -> None:
        """Write down why a job failed."""
        write_atomically(self.failed(job), lambda temporary: temporary.write_text(reason_of(reason) + "\n", "utf-8"))

    def finished(self) -> set[str]:
        """The names of the jobs that are finished; RunError when it is no comparison's."""
        grid = self.read()
        return {job.name for job in grid.jobs if self.outcome(job, grid.request).state == "finished"}

    def outcome(self, job: Job, request: Request) -> Outcome:
        """What is known of a job; its accuracy is by the first protocol of the request, and it is finished with all of them."""
        run = self.run(job)
        if is_run(run):
            try:
                results = Run(run).noted()
                if results.facts.finished:
                    first, *_ = [finished(job, one, Run(run), results) for one in request.by_protocol()]
                    return first
            except (RunError, LookupError, ValueError) as error:
                return Outcome(job, "failed", reason_of(f"its results cannot be used: {fault(error)}"))
        with contextlib.suppress(FileNotFoundError):
            return Outcome(job, "failed", reason_of(self.failed(job).read_text(encoding="utf-8", errors="replace")))
        return Outcome(job, "begun" if is_run(run) else "missing")


def values_of(request: Request) -> Values:
    """A request as plain JSON values."""
    return REQUEST.dump_python(request, mode="json")


def finished(job: Job, request: Request, run: Run, results: RunFacts) -> Outcome:
    """The figures of a finished job. LookupError or ValueError when its results miss one."""
    facts, score = (
        results.facts,
        final_score(by_its_network(results.scores, job, request, run), job, request, run.config()),
    )
    spent = facts.spent[f"ipc{job.ipc}"]
    return Outcome(
        job=job,
        state="finished",
        accuracy=score.mean,
        std=score.std,
        steps=spent.steps,
        step_seconds=spent.step_seconds,
        overhead_seconds=spent.overhead_seconds,
        pretraining_seconds=facts.pretraining_seconds if entry_of(job.method).method.has_generator else None,
        peak_memory_mib=facts.peak_memory_mib,
        factor=entry_of(job.method).method.factor if facts.factor is None else facts.factor,
        device=run.environment().device or "",
        content_hash=run.content_hash(),
        set_bytes=run.load_set(job.ipc).stored_bytes if run.set_path(job.ipc).exists() else None,
    )


def by_its_network(scores: Sequence[Score], job: Job, request: Request, run: Run) -> Sequence[Score]:
    """The scores by the network that the job's settings name: `ddtool evaluate --arch` puts those of others beside them."""
    if len({s.arch for s in scores if (s.ipc, s.protocol) == (job.ipc, request.protocol)}) < 2:
        return scores
    wanted = arch_text(run.config().evaluate.arch, request.protocol, run.load_set(job.ipc).shape)
    return [s for s in scores if s.arch == wanted]


def final_score(scores: Sequence[Score], job: Job, request: Request, config: RunConfig) -> Score:
    """The score of a job's final set as the request asks for it; `config` is that of its run.

    ValueError when there is none.
    """
    method = entry_of(job.method).method
    wanted = (final_stage(method, config), method.name, job.ipc, request.protocol, config.dataset, request.networks)
    fitting = [
        s for s in scores
        if s.key.usual and s.protocol_version == version_of(s.protocol)
        and (s.stage, s.method, s.ipc, s.protocol, s.dataset, s.seeds) == wanted
    ]  # fmt: skip
    if not fitting:
        raise ValueError(
            f"its set has no score by {request.protocol} with {count(request.networks, 'network')} on {config.dataset}; "
            "the same `ddtool compare` measures it again"
        )
    return fitting[-1]


def reason_of(text: str) -> str:
    """Why a job failed, on one line."""
    return one_line(without_secrets(text), 500)


def fault(error: Exception) -> str:
    """What is wrong, in one line: of values that do not fit, the first one's place and complaint."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        return ": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]]))
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
