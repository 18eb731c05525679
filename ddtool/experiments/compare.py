"""A comparison of all methods: what was asked for, which jobs it takes, and what their run directories say.

A job is one method at one IPC, budget and seed: a `ddtool adapt` in a process and a run directory of its own, so that its
seconds, its peak memory and its failures are its own. A comparison is a folder:

compare.json         the request that all jobs share, and the jobs
jobs/NAME/           a job's run directory
jobs/NAME.log        the last lines that it said
jobs/NAME.failed     why it failed; gone when it is tried again
results.json …       the tables and the plot (`comparison_report.py`), a pure function of what is above
"""

import contextlib
import json
import math
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from ddtool.config import MGDD_SETTINGS, RunConfig, checked, from_dict, merged, preset, to_dict
from ddtool.errors import RunError, UsageError, did_you_mean
from ddtool.evaluation.measure import check_protocol
from ddtool.events import Report, silent
from ddtool.methods import METHODS
from ddtool.pipeline import adapt as pipeline
from ddtool.pipeline import distil as baselines
from ddtool.runs.run import Run, is_run, write_atomically, write_json

MGDD = {"mgdd-generator": "MGDD, generator alone", "mgdd": "MGDD, refined"}
"""MGDD's two entries: of the refined one's steps a fifth adapt the generator."""
MGDD_SHORT = {"labels": {"images": 4000}, "fit": {"networks": 8}}
"""As the other methods' `short`: what MGDD does before and around its steps is to leave time for them."""
PLAIN, OURS = "plain pixels", "MGDD"
"""The groups of a table beside those of methods that store several images in the place of one."""
FORCED = {"evaluate": {"baseline": False, "kernel_ridge": False}}
"""What no job does: random real images are a method of their own here."""


def known_methods() -> list[str]:
    """Every name that `--methods` takes, in the order of the tables."""
    return [*METHODS, *MGDD]


def find_methods(names: Sequence[str]) -> list[str]:
    """The methods of names, which may be lists with commas, or 'all'; UsageError for one that there is not."""
    words = [word.strip() for name in names for word in name.split(",") if word.strip()]
    for word in words:
        if word not in ("all", *known_methods()):
            raise UsageError(f"Unknown method '{word}'.", did_you_mean(word, ["all", *known_methods()]))
    if not words:
        raise UsageError("No method was asked for.", "Name some, or --methods all.")
    return [name for name in known_methods() if name in words or "all" in words]


# ------------------------------------------------------------------------------------------------ what is asked for


@checked
class Request:
    """What all jobs of a comparison share; a folder holds the jobs of one request."""

    dataset: str
    """Alias, Hub id, path, or 'sample'."""
    protocol: str = "quick"
    """How every set is scored."""
    networks: int = 1
    """Fresh networks a job."""
    published: bool = False
    """Leave every method its published settings; otherwise all distil with MGDD's network (32-64-128), by `Method.short`."""
    generator: str = "bundled"
    """Meta generator of the MGDD jobs."""
    preset: str = "auto"
    """Defaults by device."""
    precision: str = "auto"
    """bf16 or fp32."""
    compiled: bool = False
    """Whether networks are compiled."""
    data: dict[str, Any] = field(default_factory=dict)
    """Options of the data source."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Values of `RunConfig` for all jobs."""
    own: dict[str, Any] = field(default_factory=dict)
    """Values of `RunConfig` for the jobs of one method, by its name."""

    def settings_for(self, method: str) -> dict[str, Any]:
        """Values of `RunConfig` for the jobs of a method: `baseline` is not for MGDD's, and MGDD's sections for them alone."""
        others = ("baseline",) if method in MGDD else MGDD_SETTINGS
        given = {name: value for name, value in self.settings.items() if name not in others}
        if method in MGDD:
            everybody = merged({} if self.published else MGDD_SHORT, given)
        else:
            short = METHODS[method].short if method in METHODS else {}
            same: dict[str, Any] = {} if self.published else {"baseline": {"pyramid": True} | short}
            everybody = merged(same, given)
        return merged(everybody, self.own.get(method, {}))


@checked
class Job:
    """One method at one IPC, budget and seed. The budget is steps or seconds; a selection of real images has neither."""

    method: str
    ipc: int
    steps: int | None
    seconds: float | None
    seed: int

    @property
    def budget(self) -> str:
        """In words; empty for a selection."""
        if self.seconds is not None:
            return f"{plain(self.seconds)} s"
        return "" if self.steps is None else f"{self.steps} step{'s' if self.steps != 1 else ''}"

    @property
    def name(self) -> str:
        """Its folder."""
        return "-".join(filter(None, [self.method, f"ipc{self.ipc}", self.budget.replace(" ", ""), f"seed{self.seed}"]))

    @property
    def words(self) -> str:
        """For people."""
        return ", ".join(filter(None, [self.method, f"IPC {self.ipc}", self.budget, f"seed {self.seed}"]))


def plain(number: float) -> str:
    """A number without a point that says nothing."""
    return str(number).removesuffix(".0")


def jobs_of(
    methods: Sequence[str], ipcs: Sequence[int], steps: Sequence[int], seconds: Sequence[float], seeds: int
) -> list[Job]:
    """The jobs of a command, the first seed of everything first; UsageError unless the budgets are of one kind."""
    if steps and seconds:
        raise UsageError("The budget is in steps or in seconds, not both.", "Two commands into one --out make both.")
    budgets = [(n, None) for n in sorted(set(steps))] + [(None, float(s)) for s in sorted(set(seconds))]
    return [
        Job(method, ipc, count, clock, seed)
        for seed in range(seeds)
        for ipc in sorted(set(ipcs))
        for method in methods
        for count, clock in (budgets if method in MGDD or METHODS[method].learns else [(None, None)])
    ]


def check(request: Request, jobs: Sequence[Job], device_type: str, report: Report = silent) -> dict[str, Any]:
    """What any job would refuse at its start, refused before the first one begins; it also leaves the dataset decoded.

    Returns what the dataset is, as `ImageData.source`."""
    check_protocol(request.protocol)
    for name in request.own:
        if name not in known_methods():
            raise UsageError(f"Unknown method '{name}'.", did_you_mean(name, known_methods()))
    config = RunConfig()
    for method in dict.fromkeys(job.method for job in jobs):
        values = request.settings_for(method) | {"method": adapt_method(method)}
        try:
            config = from_dict(RunConfig, merged(preset(request.preset, device_type), values))
            pipeline.check_config(config)
            pipeline.check_given(config.method, values)
        except UsageError as error:
            error.message = f"{method}: {error.message}"
            error.hint = f"{error.hint} A setting for one method alone: --set-for {method}:NAME=VALUE.".lstrip()
            raise
    ipcs = tuple(sorted({job.ipc for job in jobs}))
    config = replace(config, dataset=request.dataset, ipc=ipcs, data=request.data, generator=request.generator)
    return pipeline.check_start(config, report).train.source


def pinned(request: Request, source: Mapping[str, Any]) -> Request:
    """The request with its Hub dataset at the commit that was read, unless it names a revision: all jobs see the same data."""
    if source.get("kind") != "hub" or source.get("converted") or "revision" in request.data or "@" in request.dataset:
        return request
    return replace(request, data=request.data | {"revision": source["revision"]})


def command(request: Request, job: Job, folder: Path, machine: Sequence[str]) -> list[str]:
    """The `ddtool adapt` of a job, or the one that goes on with its run. machine: device and threads, as options."""
    start = [sys.executable, "-m", "ddtool", "adapt"]
    last = [*machine, "--precision", request.precision, *["--compile"] * request.compiled, "--quiet"]
    if is_run(folder):
        return [*start, "--resume", str(folder), *last]
    words = ["--method", adapt_method(job.method), *budget_options(job)]
    words += ["--ipc", str(job.ipc), "--seed", str(job.seed), "--out", str(folder), "--preset", request.preset]
    words += ["--protocol", request.protocol, "--eval-seeds", str(request.networks)]
    if job.method in MGDD:
        words += ["--generator", request.generator]
    for name, value in request.data.items():
        words += [f"--{'dataset-config' if name == 'config' else name.replace('_', '-')}", str(value)]
    for pair in flat(merged(request.settings_for(job.method), FORCED)):
        words += ["--set", pair]
    return [*start, request.dataset, *words, *last]


def adapt_method(method: str) -> str:
    """The `ddtool adapt --method` of a method here."""
    return "mgdd" if method in MGDD else method


def budget_options(job: Job) -> list[str]:
    """A job's budget as options of `ddtool adapt`. With seconds, the pipeline shares them out between MGDD's stages."""
    alone = ["--refine-steps", "0"] if job.method == "mgdd-generator" else []
    if job.seconds is not None:
        return ["--seconds", plain(job.seconds), *alone]
    if job.steps is None:
        return []
    if job.method == "mgdd":
        adapting = job.steps // 5
        return ["--steps", str(adapting), "--refine-steps", str(job.steps - adapting)]
    return ["--steps", str(job.steps), *alone]


def flat(values: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """Nested settings as NAME=JSON."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{above}{name}.")
        else:
            yield f"{above}{name}={json.dumps(value)}"


# ------------------------------------------------------------------------------------------------------- the folder


@dataclass(frozen=True)
class Outcome:
    """What a job's folder says. The figures are there when it is finished."""

    job: Job
    state: str
    """finished, failed, begun or missing."""
    reason: str = ""
    """Why it failed."""
    accuracy: float = 0.0
    """In percent of the test split."""
    std: float = 0.0
    """Over the job's networks."""
    steps: int = 0
    step_seconds: float = 0.0
    outside_seconds: float = 0.0
    """Experts, networks trained between the steps, labels."""
    pretraining_seconds: float | None = None
    peak_memory_mib: float | None = None
    factor: int = 1
    """Each stored image holds factor x factor images."""
    device: str = ""

    @property
    def total_seconds(self) -> float:
        return self.step_seconds + self.outside_seconds


class Folder:
    """A comparison's folder: the one place that knows its names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> tuple[Request, list[Job], bool]:
        """The request, the jobs, and whether jobs have shared a device; RunError for a folder that says something else."""
        try:
            said = json.loads((self.path / "compare.json").read_text(encoding="utf-8"))
            request = from_dict(Request, said["request"])
            return request, [from_dict(Job, job) for job in said["jobs"]], said["shared"] is True
        except FileNotFoundError:
            raise RunError(f"No comparison at {self.path}.", "Make one with `ddtool compare DATASET`.") from None
        except (OSError, ValueError, LookupError, TypeError, UsageError) as error:
            hint = "Restore the file, or choose another --out."
            raise RunError(f"{self.path / 'compare.json'} is damaged: {error}.", hint) from error

    def continued(self, request: Request) -> Request | None:
        """The request at the revision that the comparison here was begun with, unless it names one; None: begin anew."""
        if not (self.path / "compare.json").exists():
            return None
        before = self.read()[0]
        if before.dataset != request.dataset or "revision" in request.data or "revision" not in before.data:
            return request
        return replace(request, data=request.data | {"revision": before.data["revision"]})

    def check(self, request: Request) -> None:
        """RunError unless jobs of this request may be here: the folder is free, or its request is the same."""
        if not (self.path / "compare.json").exists():
            there = (
                [self.path] if self.path.is_file() else self.path.glob("[!.]*")
            )  # other processes may be beginning it
            if any(there):
                raise RunError(f"{self.path} exists already and is not a comparison.", "Choose another --out.")
            return
        before = to_dict(self.read()[0])
        changed = [name for name, value in to_dict(request).items() if value != before[name]]
        if changed:
            was = "; ".join(f"{name} {json.dumps(before[name])}" for name in changed)
            raise UsageError(
                f"{self.path} holds a comparison of another request. There it is: {was:.300}.",
                "Only methods, IPCs, seeds and budgets can be added to it. Ask as before, or choose another --out.",
            )

    def add(self, request: Request, jobs: Sequence[Job], shared: bool) -> None:
        """Write down the request, and the jobs beside those that are there. Raises as `check`."""
        self.check(request)
        before, was_shared = self.read()[1:] if (self.path / "compare.json").exists() else ([], False)
        self.path.mkdir(parents=True, exist_ok=True)
        together = [asdict(job) for job in dict.fromkeys([*before, *jobs])]
        said = {"request": to_dict(request), "jobs": together, "shared": shared or was_shared}
        write_json(self.path / "compare.json", said)
        (self.path / "jobs").mkdir(exist_ok=True)

    def run(self, job: Job) -> Path:
        """A job's run directory."""
        return self.path / "jobs" / job.name

    def log(self, job: Job) -> Path:
        """What a job says on stderr."""
        return self.path / "jobs" / f"{job.name}.log"

    def failed(self, job: Job) -> Path:
        """Why a job failed."""
        return self.path / "jobs" / f"{job.name}.failed"

    def fail(self, job: Job, reason: str) -> None:
        """Write down why a job failed."""
        write_atomically(self.failed(job), lambda temporary: temporary.write_text(printable(reason) + "\n", "utf-8"))

    def finished(self) -> set[str]:
        """The names of the jobs that are finished; RunError when it is no comparison's."""
        request, jobs, _ = self.read()
        return {job.name for job in jobs if self.outcome(job, request).state == "finished"}

    def outcome(self, job: Job, request: Request) -> Outcome:
        """What is known of a job."""
        run = self.run(job)
        if is_run(run):
            try:
                if Run(run).results()["facts"].get("finished") is True:
                    return finished(job, request, Run(run))
            except (RunError, LookupError, TypeError, ValueError, AttributeError) as error:
                return Outcome(job, "failed", printable(f"its results cannot be used: {error!s}"))
        with contextlib.suppress(FileNotFoundError):
            return Outcome(job, "failed", printable(self.failed(job).read_text(encoding="utf-8", errors="replace")))
        return Outcome(job, "begun" if is_run(run) else "missing")


def finished(job: Job, request: Request, run: Run) -> Outcome:
    """The figures of a finished job. LookupError, TypeError or ValueError when its results miss one."""
    results = run.results()
    facts, score = results["facts"], final_score(results["scores"], job, request, run.config())
    spent = facts["spent"][f"ipc{job.ipc}"]
    pretraining = facts.get("pretraining_seconds") if job.method in MGDD else None
    peak = facts.get("peak_memory_mib")
    return Outcome(
        job, "finished", "", figure(score["mean"]), figure(score["std"]), int(spent["steps"]),
        figure(spent["step_seconds"]), figure(spent["outside_seconds"]),
        None if pretraining is None else figure(pretraining), None if peak is None else figure(peak),
        int(facts.get("factor", images_a_side(job.method))), str(run.read_json("env.json").get("device", "")),
    )  # fmt: skip


def figure(value: Any) -> float:
    """A finite number; ValueError or TypeError for anything else."""
    if not math.isfinite(value):
        raise ValueError(f"{value} is no figure")
    return float(value)


def final_score(scores: Sequence[dict[str, Any]], job: Job, request: Request, config: RunConfig) -> dict[str, Any]:
    """The score of a job's final set as the request asks for it; `config` is that of its run.

    ValueError when there is none: `ddtool evaluate` keeps another one in its place.
    """
    wanted = {
        "stage": pipeline.final_stage(config) if job.method in MGDD else baselines.STAGE,
        "method": adapt_method(job.method),
        "ipc": job.ipc,
        "protocol": request.protocol,
        "dataset": config.dataset,
        "seeds": request.networks,
    }
    fitting = [score for score in scores if all(score[name] == value for name, value in wanted.items())]
    if not fitting:
        networks = f"{request.networks} network{'s' if request.networks > 1 else ''}"
        raise ValueError(
            f"its set has no score by {request.protocol} with {networks} on {config.dataset}, perhaps because "
            "`ddtool evaluate` has put another in its place; the same `ddtool compare` measures it again"
        )
    return fitting[-1]


def printable(text: str) -> str:
    """One line without control characters."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:500]


# --------------------------------------------------------------------------------------------------- what came out


@dataclass(frozen=True)
class Row:
    """One method at one IPC and budget: means over the seeds that are finished, None where there is none."""

    method: str
    title: str
    group: str
    """Methods whose images take the same storage stand together."""
    ipc: int
    budget: str
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
    outside_seconds: float | None = None
    total_seconds: float | None = None
    """In steps and outside; pre-training is not in it."""
    pretraining_seconds: float | None = None
    """The whole of it."""
    pretraining_share: float | None = None
    """Divided by the MGDD jobs of the table."""
    peak_memory_mib: float | None = None
    """The largest of the seeds."""
    jobs: tuple[str, ...] = ()
    """Their folders."""

    @property
    def ours(self) -> bool:
        return self.method in MGDD


@dataclass(frozen=True)
class Factor:
    """How much sooner MGDD is as accurate as a baseline ever is here."""

    baseline: Row
    """At the budget where it is most accurate, the shortest if there are several."""
    mgdd: Row | None
    """The first of MGDD's budgets, by seconds, whose accuracy is at least the same; None: not reached."""
    factor: float | None
    """The baseline's seconds over MGDD's, in steps and outside."""
    at_least: bool
    """It is MGDD's smallest budget: a smaller one might do as well."""
    with_pretraining: float | None
    """The same with the whole pre-training in MGDD's seconds; None: its seconds are not known, or there was none."""


@dataclass(frozen=True)
class Comparison:
    """All that a folder says."""

    request: Request
    rows: tuple[Row, ...]
    """By IPC, group, method and budget; MGDD last."""
    factors: tuple[Factor, ...]
    failures: tuple[tuple[str, str], ...]
    """Job and reason."""
    devices: tuple[str, ...]
    """Where the finished jobs ran."""
    shared: bool
    """Whether jobs ran beside each other on one device."""

    @property
    def waiting(self) -> int:
        """Jobs that are not finished and have not failed."""
        return sum(row.waiting for row in self.rows)

    def ipcs(self) -> list[int]:
        return sorted({row.ipc for row in self.rows})


def gather(folder: Folder) -> Comparison:
    """What the jobs in a folder have come to so far; RunError when it is no comparison's."""
    request, jobs, shared = folder.read()
    outcomes = [folder.outcome(job, request) for job in jobs]
    done = [outcome for outcome in outcomes if outcome.state == "finished"]
    places = sum(outcome.job.method in MGDD for outcome in done)
    factors = {outcome.job.method: outcome.factor for outcome in done}

    def cell(outcome: Outcome) -> tuple:
        job = outcome.job
        images = factors.get(job.method, images_a_side(job.method))
        return job.ipc, job.method in MGDD, images, order(job.method), job.steps or 0, job.seconds or 0.0

    outcomes.sort(key=lambda outcome: (*cell(outcome), outcome.job.seed))
    rows = tuple(row_of(list(members), key[2], places) for key, members in groupby(outcomes, cell))
    failures = tuple((o.job.words, o.reason) for o in outcomes if o.state == "failed")
    devices = tuple(sorted({outcome.device for outcome in done}))
    return Comparison(request, rows, tuple(factors_of(rows)), failures, devices, shared)


def order(method: str) -> tuple[int, str]:
    """Where a method stands in a table; one of another version stands last."""
    known = known_methods()
    return (known.index(method) if method in known else len(known), method)


def images_a_side(method: str) -> int:
    """How many images a stored one of this method holds, each way, by its publication."""
    return METHODS[method].factor if method in METHODS else 1


def row_of(outcomes: Sequence[Outcome], images: int, mgdd_jobs: int) -> Row:
    """The row of the jobs of one cell, which differ in their seed."""
    job, done = outcomes[0].job, [outcome for outcome in outcomes if outcome.state == "finished"]
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    title = MGDD.get(job.method) or (METHODS[job.method].title if job.method in METHODS else job.method)
    group = OURS if job.method in MGDD else PLAIN if images == 1 else f"{images**2} images in the place of one"
    row = Row(
        job.method, title, group, job.ipc, job.budget, len(done), failed, len(outcomes) - len(done) - failed,
        jobs=tuple(outcome.job.name for outcome in outcomes),
    )  # fmt: skip
    if not done:
        return row
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
        outside_seconds=statistics.fmean(outcome.outside_seconds for outcome in done),
        total_seconds=statistics.fmean(outcome.total_seconds for outcome in done),
        pretraining_seconds=whole,
        pretraining_share=None if whole is None else whole / mgdd_jobs,
        peak_memory_mib=max(peaks, default=None),
    )


def factors_of(rows: Sequence[Row]) -> Iterator[Factor]:
    """A `Factor` for each method with a budget and each IPC, where both sides have a score."""
    scored = [row for row in rows if row.accuracy is not None]
    best: dict[tuple[int, str], Row] = {}
    for row in scored:
        rival = best.get((row.ipc, row.method))
        if row.budget and not row.ours and (rival is None or merit(row) > merit(rival)):
            best[row.ipc, row.method] = row
    for baseline in best.values():
        ours = sorted((r for r in scored if r.ours and r.ipc == baseline.ipc), key=seconds_of)
        if not ours:
            continue
        first = next((row for row in ours if (row.accuracy or 0.0) >= (baseline.accuracy or 0.0)), None)
        if first is None:
            yield Factor(baseline, None, None, False, None)
            continue
        smallest = next(row for row in ours if row.method == first.method)
        ratio = seconds_of(baseline) / max(seconds_of(first), 1e-9)
        cost = first.pretraining_seconds
        whole = None if cost is None else seconds_of(baseline) / max(seconds_of(first) + cost, 1e-9)
        yield Factor(baseline, first, ratio, first is smallest, whole)


def merit(row: Row) -> tuple[float, float]:
    """More accurate is better, then sooner."""
    return row.accuracy or 0.0, -seconds_of(row)


def seconds_of(row: Row) -> float:
    """Seconds in steps and outside of a row that has some."""
    return row.total_seconds or 0.0
