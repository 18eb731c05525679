"""A job as a command: its `ddtool adapt`, and what it would refuse, found out before the first job begins."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from ddtool.config import PRESETS, RunConfig, Values, from_dict, merged, preset
from ddtool.config.layers import leaves
from ddtool.data.images import ImageData, Source
from ddtool.errors import UsageError, did_you_mean
from ddtool.evaluation.protocols import protocols_in
from ddtool.events import Report, silent
from ddtool.experiments.grid import Job, Request, entry_of, known_methods, plain
from ddtool.pipeline.plan import check_config, check_given, check_ipcs, check_start
from ddtool.runs.files import is_run

FORCED: Values = {"evaluate": {"baseline": False, "kernel_ridge": False, "without_whitening": False}}
"""What no job does: random real images are a method of their own here."""

DECIDED = {
    "dataset": "It is the argument of `ddtool compare`.",
    "method": "Use --methods.",
    "ipc": "Use --ipc.",
    "seed": "Use --seeds.",
    "seconds": "Use --seconds.",
    "adapt.steps": "Use --steps.",
    "refine.steps": "Use --steps.",
    "baseline.steps": "Use --steps.",
    "generator": "Use --generator.",
    "evaluate.protocol": "Use --protocol.",
    "evaluate.seeds": "Use --eval-seeds.",
    "evaluate.enabled": "Leave it out: every job is scored.",
    "evaluate.baseline": "Use --methods random, which scores random real images.",
    "evaluate.kernel_ridge": "Score the run of a job: `ddtool evaluate … --protocol kernel-ridge`.",
    "evaluate.without_whitening": "Score the run of a job: `ddtool evaluate … --no-whiten`.",
}
"""The settings of jobs that the comparison itself decides, each with what one does instead."""


def check(request: Request, jobs: Sequence[Job], report: Report = silent) -> ImageData:
    """Refuse what any job would refuse at its start; this leaves the dataset decoded, too.

    Returns the images of its train split. Raises UsageError for a setting that the comparison decides, and the job's
    UsageError or DataError."""
    check_settings(request)
    protocols_in(request.protocol)
    for name in request.own:
        if name not in known_methods():
            raise UsageError(f"Unknown method '{name}'.", did_you_mean(name, known_methods(), listed=True))
    ipcs = tuple(sorted({job.ipc for job in jobs}))
    methods = dict.fromkeys(job.method for job in jobs)
    configs = [replace(checked_config(request, method), ipc=ipcs) for method in methods] or [RunConfig(ipc=ipcs)]
    last = configs[-1]
    data = last.data | request.data
    last = replace(last, dataset=request.dataset, data=data, generator=request.generator)
    train = check_start(last, report).train
    for config in configs:  # each may have a factor of its own
        check_ipcs(config, train)
    return train


def check_settings(request: Request) -> None:
    """UsageError for settings that would be overridden, or would leave nothing to compare."""
    given = [name for settings in (request.settings, *request.own.values()) for name, _ in leaves(settings)]
    if decided := next((name for name in given if name in DECIDED), None):
        raise UsageError(f"Setting '{decided}' cannot be given to jobs: the comparison decides it.", DECIDED[decided])
    for section, what in (("data", "read the same data"), ("evaluate", "are scored alike")):
        if any(section in settings for settings in request.own.values()):
            raise UsageError(f"All methods of a comparison {what}.", f"Use --set {section}.NAME=VALUE.")


def checked_config(request: Request, method: str) -> RunConfig:
    """The configuration of a method's jobs; UsageError, beginning with the method's name, for settings it cannot use."""
    values = request.settings_for(method) | {"method": entry_of(method).method.name}
    try:
        config = from_dict(RunConfig, merged(preset(request.preset), values))
        check_config(config)
        check_given(config.method, values)
    except UsageError as error:
        error.message = f"{method}: {error.message}"
        error.hint = f"{error.hint} A setting for one method alone: --set-for {method}:NAME=VALUE.".lstrip()
        raise
    return config


def pinned(request: Request, source: Source) -> Request:
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
    method = entry_of(job.method).method
    words = ["--method", method.name, *budget_options(job)]
    words += ["--ipc", str(job.ipc), "--seed", str(job.seed), "--out", str(folder), "--preset", named(request.preset)]
    words += ["--protocol", request.protocol, "--eval-seeds", str(request.networks)]
    if method.has_generator:
        words += ["--generator", request.generator]
    settings = merged(request.settings_for(job.method), {"data": request.data} if request.data else {})
    for name, value in leaves(merged(settings, FORCED)):
        words += ["--set", f"{name}={json.dumps(value)}"]
    return [*start, request.dataset, *words, *last]


def named(preset_name: str) -> str:
    """A preset that is the same in every job: none is to find out by itself how fast the machine is."""
    return next(iter(PRESETS)) if preset_name == "auto" else preset_name


def budget_options(job: Job) -> list[str]:
    """A job's budget as options of `ddtool adapt`. With seconds, the pipeline shares them out between the stages."""
    entry, one_in = entry_of(job.method), entry_of(job.method).variant.adapts_one_in
    alone = ["--refine-steps", "0"] if entry.method.has_generator and one_in == 1 else []
    if job.seconds is not None:
        return ["--seconds", plain(job.seconds), *alone]
    if job.steps is None:
        return []
    adapting = job.steps // one_in
    refining = [] if one_in == 1 else ["--refine-steps", str(job.steps - adapting)]
    return ["--steps", str(adapting), *refining, *alone]
