"""What a comparison has come to: rows of means over seeds, and how much sooner MGDD is as accurate as a baseline."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from ddtool.evaluation.protocols import Score
from ddtool.experiments import whole
from ddtool.experiments.folder import Folder, Outcome
from ddtool.experiments.grid import Grid, MaybeBudget, Request, entries, entry_of
from ddtool.experiments.published import published
from ddtool.models.registry import DEFAULT

CONTROL, WHOLE = "whole", "whole training set"
"""The control row that is trained on all real images, in the place of a method, and its title."""
PLAIN, OURS = "plain pixels", "MGDD"
"""The groups of a table beside those of methods that store several images in the place of one."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One method at one IPC and budget: means over the seeds that are finished, None where there is none."""

    method: str
    title: str
    group: str
    """Methods whose images take the same storage stand together."""
    factor: int = 1
    """Each stored image holds factor x factor images."""
    ipc: int
    budget: MaybeBudget
    seeds: int
    """Finished ones, n of the mean."""
    failed: int
    waiting: int
    """Jobs that are not finished and have not failed."""
    accuracy: float | None = None
    std: float | None = None
    """Over seeds; over the networks of the one seed."""
    steps: float | None = None
    step_seconds: float | None = None
    overhead_seconds: float | None = None
    total_seconds: float | None = None
    """In steps and overhead; pre-training is not in it."""
    pretraining_seconds: float | None = None
    """The whole of it."""
    pretraining_share: float | None = None
    """Divided by the jobs of the table that adapt a generator."""
    peak_memory_mib: float | None = None
    """The largest of the seeds."""
    set_bytes: int | None = None
    """8-bit pixels, labels and whitening of a set, the largest of the seeds."""
    jobs: tuple[str, ...] = ()
    """Their folders."""
    equal_steps_accuracy: float | None = None
    """What MGDD's paper has for the method, of all methods after the same number of steps (`published.EQUAL_STEPS`)."""
    published_accuracy: float | None = None
    """What the method's own publication has at its full budget (`published.FULL_BUDGET`)."""
    published_protocol: str = ""
    """By which protocol; empty where there is no figure."""
    published_source: str = ""
    """Who published it; empty where there is no figure."""

    @property
    def ours(self) -> bool:
        """Whether it is of this package's own method."""
        return entry_of(self.method).method.ours


@dataclass(frozen=True, kw_only=True)
class Speedup:
    """How much sooner MGDD is as accurate as a baseline ever is here."""

    baseline: Row
    """At the budget where it is most accurate, the shortest if there are several."""
    mgdd: Row | None
    """The first of MGDD's budgets, by seconds, whose accuracy is at least the same; None: not reached."""
    speedup: float | None
    """The baseline's seconds over MGDD's, in steps and overhead."""
    at_least: bool
    """It is MGDD's smallest budget: a smaller one might do as well."""
    with_pretraining: float | None
    """The same with the whole pre-training in MGDD's seconds; None: its seconds are not known, or there was none."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that a folder says."""

    request: Request
    rows: tuple[Row, ...]
    """By IPC, group, method and budget; MGDD last."""
    speedups: tuple[Speedup, ...]
    failures: tuple[tuple[str, str], ...]
    """Job and reason."""
    devices: tuple[str, ...]
    """Where the finished jobs ran."""
    shared: bool
    """Whether jobs ran beside each other on one device."""
    changed: bool = False
    """Whether files of the dataset changed between finished jobs."""
    others: tuple["Comparison", ...] = ()
    """The same jobs by the further protocols of the request; `request` names the first one alone, where there are several."""

    @property
    def by_protocol(self) -> tuple["Comparison", ...]:
        """The comparison by each protocol."""
        return (self, *self.others)

    @property
    def waiting(self) -> int:
        """Jobs that are not finished and have not failed."""
        return sum(row.waiting for row in self.rows)

    def ipcs(self) -> list[int]:
        return sorted({row.ipc for row in self.rows})


def gather(folder: Folder) -> Comparison:
    """What the jobs in a folder have come to so far; RunError when it is no comparison's."""
    grid = folder.read()
    first, *rest = [by_one_protocol(folder, replace(grid, request=one)) for one in grid.request.by_protocol()]
    return replace(first, others=tuple(rest))


def by_one_protocol(folder: Folder, grid: Grid) -> Comparison:
    """The comparison by the one protocol of the grid's request."""
    outcomes = [folder.outcome(job, grid.request) for job in grid.jobs]
    done = [outcome for outcome in outcomes if outcome.state == "finished"]
    adapting = sum(entry_of(outcome.job.method).method.has_generator for outcome in done)
    factors = {outcome.job.method: outcome.factor for outcome in done}

    def cell(outcome: Outcome) -> tuple:
        job, method = outcome.job, entry_of(outcome.job.method).method
        factor = factors.get(job.method, grid.request.factor_for(job.method))
        return job.ipc, method.ours, factor, order(job.method), job.steps or 0, job.seconds or 0.0

    outcomes.sort(key=lambda outcome: (*cell(outcome), outcome.job.seed))
    rows = tuple(row_of(list(members), key[2], adapting) for key, members in groupby(outcomes, cell))
    rows = with_whole(rows, [score for score in whole.read(folder) if score.protocol == grid.request.protocol])
    rows = tuple(with_published(row, grid.request) for row in rows)
    failures = tuple((o.job.words, o.reason) for o in outcomes if o.state == "failed")
    devices = tuple(sorted({outcome.device for outcome in done}))
    return Comparison(
        request=grid.request,
        rows=rows,
        speedups=tuple(speedups_of(rows)),
        failures=failures,
        devices=devices,
        shared=grid.shared,
        changed=len({outcome.content_hash for outcome in done} - {None}) > 1,
    )


def with_whole(rows: Sequence[Row], scores: Sequence[Score]) -> tuple[Row, ...]:
    """The rows with one of the whole training set before those of each IPC, where it was scored."""
    out: list[Row] = []
    for ipc, members in groupby(rows, lambda row: row.ipc):
        for score in scores:
            out.append(
                Row(
                    method=CONTROL, title=WHOLE, group=PLAIN, ipc=ipc, budget=None, seeds=score.seeds, failed=0, waiting=0,
                    accuracy=score.mean, std=score.std,
                )
            )  # fmt: skip
        out += members
    return tuple(out)


OF_OTHER_DATA = ("label_column", "resolution", "train_split", "test_split", "max_per_class")
"""Options of data with which a task is another than the published one."""


def with_published(row: Row, request: Request) -> Row:
    """The row with what others have published for its method at its IPC, on the dataset as they read it, with their factor and
    network."""
    given = request.settings.get("data")
    if any(name in OF_OTHER_DATA for name in (*request.data, *(given if isinstance(given, dict) else ()))):
        return row
    if row.factor != entry_of(row.method).method.factor or request.arch != DEFAULT:
        return row
    found = published(request.dataset, row.method, row.ipc)
    return replace(
        row,
        equal_steps_accuracy=found.equal_steps,
        published_accuracy=found.full_budget,
        published_protocol=found.protocol,
        published_source=found.source,
    )


def order(method: str) -> tuple[int, str]:
    """Where a method stands in a table; one of another version stands last."""
    known = [CONTROL, *entries()]
    return (known.index(method) if method in known else len(known), method)


def row_of(outcomes: Sequence[Outcome], factor: int, adapting: int) -> Row:
    """The row of the jobs of one cell, which differ in their seed. adapting: the jobs of the table that adapt a generator."""
    job, done = outcomes[0].job, [outcome for outcome in outcomes if outcome.state == "finished"]
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    entry = entry_of(job.method)
    several = in_place_of_one(factor)
    row = Row(
        method=job.method,
        title=entry.variant.title + f", {several}" * (entry.method.ours and factor > 1),
        group=OURS if entry.method.ours else PLAIN if factor == 1 else several,
        factor=factor,
        ipc=job.ipc,
        budget=job.budget,
        seeds=len(done),
        failed=failed,
        waiting=len(outcomes) - len(done) - failed,
        jobs=tuple(outcome.job.name for outcome in outcomes),
    )
    return with_means(row, done, adapting) if done else row


def in_place_of_one(factor: int) -> str:
    """What is said of sets whose images hold factor x factor images each."""
    return f"{factor**2} images in the place of one"


def with_means(row: Row, done: Sequence[Outcome], adapting: int) -> Row:
    """The row with the figures of its finished jobs."""
    pretraining = [o.pretraining_seconds for o in done if o.pretraining_seconds is not None]
    peaks = [o.peak_memory_mib for o in done if o.peak_memory_mib is not None]
    whole = max(pretraining, default=None)
    accuracies = [outcome.accuracy for outcome in done]
    return replace(
        row,
        accuracy=statistics.fmean(accuracies),
        std=statistics.stdev(accuracies) if len(done) > 1 else done[0].std,
        steps=statistics.fmean(outcome.steps for outcome in done),
        step_seconds=statistics.fmean(outcome.step_seconds for outcome in done),
        overhead_seconds=statistics.fmean(outcome.overhead_seconds for outcome in done),
        total_seconds=statistics.fmean(outcome.total_seconds for outcome in done),
        pretraining_seconds=whole,
        pretraining_share=None if whole is None else whole / adapting,
        peak_memory_mib=max(peaks, default=None),
        set_bytes=max((o.set_bytes for o in done if o.set_bytes is not None), default=None),
    )


def speedups_of(rows: Sequence[Row]) -> Iterator[Speedup]:
    """A `Speedup` for each method with a budget and each IPC, where both sides have a score."""
    scored = [row for row in rows if row.accuracy is not None]
    best: dict[tuple[int, str], Row] = {}
    for row in scored:
        rival = best.get((row.ipc, row.method))
        if row.budget and not row.ours and (rival is None or merit(row) > merit(rival)):
            best[row.ipc, row.method] = row
    for baseline in best.values():
        ours = sorted((r for r in scored if r.ours and r.ipc == baseline.ipc), key=seconds_of)
        if ours:
            yield speedup_over(baseline, ours)


def speedup_over(baseline: Row, ours: Sequence[Row]) -> Speedup:
    """MGDD's speed-up over a baseline. ours: MGDD's rows with a score at that IPC, by seconds."""
    first = next((row for row in ours if (row.accuracy or 0.0) >= (baseline.accuracy or 0.0)), None)
    if first is None:
        return Speedup(baseline=baseline, mgdd=None, speedup=None, at_least=False, with_pretraining=None)
    smallest = next(row for row in ours if row.method == first.method)
    ratio = seconds_of(baseline) / max(seconds_of(first), 1e-9)
    cost = first.pretraining_seconds
    whole = None if cost is None else seconds_of(baseline) / max(seconds_of(first) + cost, 1e-9)
    return Speedup(baseline=baseline, mgdd=first, speedup=ratio, at_least=first is smallest, with_pretraining=whole)


def merit(row: Row) -> tuple[float, float]:
    """A key that is larger for a more accurate row, then for a sooner one."""
    return row.accuracy or 0.0, -seconds_of(row)


def seconds_of(row: Row) -> float:
    """Seconds in steps and overhead of a row that has some."""
    return row.total_seconds or 0.0
