"""What a run would do, and what it would refuse at its start: nothing here computes or writes anything."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TypedDict

from pydantic import JsonValue

from ddtool import methods
from ddtool.config import LARGEST_FACTOR, RunConfig, Values, to_dict
from ddtool.data.batches import on_device
from ddtool.data.images import ImageData, Source
from ddtool.data.parts import cuts
from ddtool.errors import RunError, UsageError
from ddtool.evaluation.protocols import protocols_in
from ddtool.events import Note, Report, silent
from ddtool.models import registry
from ddtool.models.convnet import known_norm
from ddtool.pipeline.networks import load_generator
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.speed import fitted_to_machine, real_batch
from ddtool.runs.facts import KnownTarget
from ddtool.runs.files import ANIMATION, POINTS
from ddtool.runs.formats import MOST_BYTES, LabelHead
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine
from ddtool.sources.load import Target
from ddtool.sources.names import placed

POOL_IPC, POOL_BYTES = 50, 2**30
"""Initial samples per class that are kept in a run for sets of other sizes, and how many bytes of pixels at most for those."""

FITTING, MOST_FITTING = 36, 16 * 2**30
"""Bytes that fitting the labels of a set takes for each pair of its images, and how many are too many."""

WHOLE = {"seed", "generator", "architecture", "features", "adapt", "refine", "evaluate"}
"""Sections that the whole configuration of a run has, in every version; a person's own settings hardly have all of them."""

RUN_FILES = ("config.json", "env.json", "metrics.jsonl", "results.json", "preview.png", "report.html")
"""The files that every run leaves."""
GENERATOR_FILES = (
    "pool/train.parquet",
    *(f"generator/{n}" for n in ("config.json", "model.safetensors", "labels.safetensors")),
)
"""Those that one with a generator leaves beside them."""


# ---------------------------------------------------------------------------------------------------------- settings


def check_config(config: RunConfig) -> None:
    """UsageError for values that no run can use, before anything is loaded."""
    protocols_in(config.evaluate.protocol)
    registry.find(config.evaluate.arch)
    if config.baseline or methods.find(config.method).settings is not None:
        methods.settings_of(config.method, config.baseline)
    known_norm(config.features.norm)
    if not methods.find(config.method).learns:
        check_no_steps(config)


def check_no_steps(config: RunConfig) -> None:
    """UsageError for what is asked of the steps of a method that takes none."""
    said = f"The method '{config.method}' takes no steps"
    if config.curve:
        raise UsageError(f"{said}, so there is no curve of it.", "Leave --curve out.")
    for option, value in (("--steps", config.baseline.get("steps")), ("--seconds", config.seconds)):
        if value is not None:
            raise UsageError(f"{said}: {option} would have no effect.", "Leave it out.")


def check_captured(config: RunConfig, engine: Engine) -> None:
    """UsageError where steps are to be captured and those of the method are not, or where the clock is to end them: a replay
    returns before the device has done it, so the clock would be read too early."""
    if not engine.graphs:
        return
    if not methods.find(config.method).has_generator:
        hint = "Leave --graphs out, or leave --method out."
        said = f"--graphs captures the steps of MGDD; those of the method '{config.method}' are not captured."
        raise UsageError(said, hint)
    if config.seconds is not None:
        hint = "Count the steps instead: --preset small --steps 300 --refine-steps 2000."
        raise UsageError("--graphs and --seconds exclude each other: the clock does not see when a replay ends.", hint)


def check_divided(config: RunConfig, engine: Engine) -> None:
    """UsageError where several processes are to share the steps of a method that cannot be divided."""
    if engine.processes == 1:
        return
    method = methods.find(config.method)
    hint = "Start it without the launcher, as one process; `ddtool compare` gives whole jobs to processes."
    if not method.divided:
        said = f"{engine.processes} processes cannot share a run of the method '{method.name}'."
        raise UsageError(said, hint)
    own = None if method.settings is None else methods.settings_of(config.method, config.baseline)
    if (config.features.norm if own is None else own.norm) == "batch":
        why = "Batch norm takes its statistics from all images at once"
        raise UsageError(f"{why}, so {engine.processes} processes cannot share them.", hint)


def check_given(method: str, *layers: Mapping[str, JsonValue]) -> None:
    """UsageError for settings of MGDD alone that were given for another method, which would not see them.

    A run's whole configuration has a value for each of them, and is let through.
    """
    owners = owners_of_foreign_settings(method)
    partial = [layer for layer in layers if not layer.keys() >= WHOLE]
    for name, value in ((name, layer[name]) for layer in partial for name in owners if name in layer):
        if value in ({}, RunConfig().generator):
            continue
        hint = "Leave it out, or leave --method out."
        if isinstance(value, Mapping) and "steps" in value:
            hint = f"Its own are in the section 'baseline': --set baseline.steps={value['steps']}."
        setting = f"{name}.{next(iter(value))}" if isinstance(value, Mapping) else name
        raise UsageError(f"Setting '{setting}' is {owners[name]}'s: the method '{method}' does not use it.", hint)


def owners_of_foreign_settings(method: str) -> dict[str, str]:
    """The settings of `RunConfig` that are of other methods and not of this one, with the short title of the method they are of.

    The section 'baseline' is not among them: `check_config` answers for it.
    """
    own = methods.find(method).sections
    others = [kind.record for kind in methods.METHODS.values() if kind.record.settings is None]
    return {name: other.short_title for other in others for name in other.sections if name not in own}


# -------------------------------------------------------------------------------------------------------------- data


def check_held(train: ImageData, engine: Engine) -> None:
    """UsageError where steps are to be captured and real images stay on the host: each step would ask it for a batch."""
    if engine.graphs and not on_device(train, engine):
        need = train.images.nbytes / 2**30
        hint = f"Give more (--memory {need + 0.1:.1f} or above), if the device has it, or leave --graphs out."
        message = f"The training images take {need:.1f} GiB, more than the memory to work in, so they stay on the host,"
        raise UsageError(f"{message} from which captured steps cannot read.", hint)


def check_start(config: RunConfig, report: Report) -> Target:
    """The dataset of a run that can begin: its IPCs fit the classes, its generator (if it takes one) can be loaded."""
    target = load_target(config, report)
    check_ipcs(config, target.train)
    registry.find(config.evaluate.arch).check(target.train.shape)
    if methods.find(config.method).has_generator:
        check_fit(config, target.train.num_classes, max(config.ipc + config.adapt.seen_ipcs))
        load_generator(config, report)
    return target


def check_fit(config: RunConfig, C: int, ipc: int) -> None:
    """UsageError for a set that is too large to fit its labels: FITTING bytes for each pair of images."""
    m = config.samples(ipc) * C
    if config.fit.networks and FITTING * m**2 > MOST_FITTING:
        need = FITTING * m**2 / 2**30
        message = f"Labels of {m:,} images at once (IPC {ipc}) would take about {need:,.0f} GiB of memory to fit."
        raise UsageError(message, "Ask for fewer, or take the labels of Eq. 3: --set fit.networks=0.")


def check_ipcs(config: RunConfig, train: ImageData) -> None:
    """UsageError for an IPC that is not positive or more than a class holds, and for a factor that images cannot be cut by."""
    if not config.ipc:
        raise UsageError("No IPC was asked for.", "Give --ipc 10.")
    if not cuts(config.factor, train.shape):
        h, w = train.shape[1:]
        fits = [str(n) for n in range(1, LARGEST_FACTOR + 1) if cuts(n, train.shape)]
        message = f"--factor {config.factor} does not cut images of {h}x{w} pixels into equal parts."
        raise UsageError(message, f"Use {', '.join(fits[:-1])} or {fits[-1]}." if fits[1:] else "Leave it out.")
    for ipc in config.ipc:
        if ipc < 1:
            raise UsageError(
                f"--ipc must be at least 1, got {ipc}.", "IPC is the number of synthetic images per class."
            )
        check_class_sizes(config, train, ipc, ", or let images begin several: --allow-repeat")
        if (size := config.samples(ipc) * train.num_classes * math.prod(train.shape)) > MOST_BYTES:  # of the pool
            message = f"The pixels of --ipc {ipc} are {size / 2**30:,.0f} GiB, more than a run can keep."
            raise UsageError(message, "Use a smaller --resolution or --ipc.")


def check_class_sizes(config: RunConfig, train: ImageData, ipc: int, otherwise: str = "") -> None:
    """UsageError for an IPC that takes more images of a class than it holds, unless they may come again. otherwise: what else its
    hint says."""
    most, each = int(train.class_counts().min()), config.samples(1)
    if ipc * each <= most or config.allow_repeat:
        return
    name = train.class_names[int(train.class_counts().argmin())]
    asked = f"--ipc {ipc}" if config.factor == 1 else f"--ipc {ipc} times {config.factor}x{config.factor}"
    fewer = f"--ipc {most // each} or less" if most >= each else "a smaller --factor"
    raise UsageError(f"{asked} is more than class '{name:.60}' holds ({most}).", f"Use {fewer}{otherwise}.")


def check_same_data(known: LabelHead | KnownTarget, train: ImageData, run: Run, report: Report) -> None:
    """RunError when the dataset is not the one that the run was started with, by what the run keeps of it.

    Files that differ alone are said: a note beside the images changes them as well.
    """
    for name in KnownTarget.model_fields:
        if tuple(getattr(known, name)) != tuple(getattr(train, name)):
            raise RunError(
                f"The dataset has changed since {run.folder} was started (its {name.replace('_', ' ')} differ).",
                "Bring the old data back, or start a new run.",
            )
    before, now = run.content_hash(), train.source.get("content_hash")
    if before and now and before != now:
        report(
            Note(
                f"Files of the dataset have changed since {run.folder} was started. Its classes, their order, and the mean and "
                "standard deviation of its pixels have not, so the run goes on; if images have changed, start a new one."
            )
        )


def pinned(config: RunConfig, source: Source) -> RunConfig:
    """The configuration with its Hub dataset at the commit that was read, so that a run stays on it, or its local data by its
    absolute place, so that the run finds it from any folder.

    The Hub's own parquet copy is named by its branch and has to stay so; its commit is in the source.
    """
    if source.get("kind") != "hub" or source.get("converted"):
        return replace(config, dataset=placed(config.dataset))
    data = config.data | {"revision": source["revision"]}
    return replace(config, dataset=config.dataset.partition("@")[0], data=data)


class DataPlan(TypedDict):
    """The data of a run: how many images there are, and what they are."""

    train: int
    test: int
    classes: int
    image: list[int]
    """[c, h, w]."""
    source: Source


class RunPlan(TypedDict):
    """What a run would do, plain JSON values."""

    config: Values
    """The settings, those that the speed of the machine chose among them."""
    dataset: DataPlan
    memory_mib: int
    """MiB of working memory, an estimate."""
    files: list[str]
    """Those that it would leave, by their names below its folder; a folder with / behind it for those of `--curve`."""


# -------------------------------------------------------------------------------------------------------------- plan


def plan(config: RunConfig, engine: Engine, report: Report = silent) -> RunPlan:
    """What a run would do: its configuration, sizes of the data, an estimate of working memory in MiB, and the files it would
    leave.

    Raises what the run would raise at its start.
    """
    check_captured(config, engine)
    check_divided(config, engine)
    target = check_start(config, report)
    train = target.train
    check_held(train, engine)
    config = fitted_to_machine(config, train, engine, report)
    return {
        "config": to_dict(config),
        "dataset": {
            "train": len(train),
            "test": target.test_size,
            "classes": train.num_classes,
            "image": list(train.shape),
            "source": train.source,
        },
        "memory_mib": round(memory(config, train, engine) / 2**20),
        "files": run_files(config),
    }


def memory(config: RunConfig, train: ImageData, engine: Engine) -> float:
    """About how many bytes a run works with: real images where the device holds all of them, Z, and the larger of a step's
    activations (with a generator in parts that fit the engine's memory) and the fit of labels."""
    c, h, w = train.shape
    if methods.find(config.method).has_generator:
        widest, channels, pool = (
            batch_with_generator(config, train),
            config.features.width // 4,
            pool_size(config, train),
        )
        largest = config.samples(max(config.ipc + config.adapt.seen_ipcs)) * train.num_classes
        fitting = FITTING * largest**2 if config.fit.networks else 0
    else:
        settings = methods.settings_of(config.method, config.baseline)
        widest = getattr(settings, "real_batch", 0) + max(config.ipc) * train.num_classes
        channels, pool, fitting = settings.width // (4 if settings.doubling_widths else 1), 0, 0
    activations = widest * channels * h * w * 4 * 4
    if methods.find(config.method).has_generator:
        activations = min(activations, engine.memory)
    images = train.images.nbytes if on_device(train, engine) else 0
    return images + pool * train.num_classes * c * h * w * 4 + max(activations, fitting)


def batch_with_generator(config: RunConfig, train: ImageData) -> int:
    """The images of the largest step of adaptation or refinement."""
    limit = config.refine.synthetic_batch
    widest = max(limit, min(config.samples(max(config.ipc)) * train.num_classes, 2 * limit))
    return widest + min(real_batch(config.refine, config, train.num_classes), 500)  # in chunks, without gradients


def pool_size(config: RunConfig, data: ImageData) -> int:
    """Images per class of Z: what is asked for and seen, and room for other sizes where nothing else is said."""
    most = int(data.class_counts().min())
    room = min(most, POOL_IPC, POOL_BYTES // (data.num_classes * math.prod(data.shape)))
    wanted = max(config.samples(max(config.ipc + config.adapt.seen_ipcs)), 0 if config.adapt.seen_ipcs else room)
    return wanted if config.allow_repeat else min(most, wanted)


def run_files(config: RunConfig) -> list[str]:
    """The files that a run would leave, by their names below its folder."""
    method = methods.find(config.method)
    sets = [f"synthetic/ipc{n}/{file}" for n in config.ipc for file in ("train.parquet", "exact.safetensors")]
    sets += [f"stages/ipc{n}-{stage}.safetensors" for n in config.ipc for stage in method.stages[:-1]]
    more = [ANIMATION] if config.animation and config.refine.steps else []
    more += [f"{POINTS}/"] if config.curve else []
    return [*RUN_FILES, *more, *(GENERATOR_FILES if method.has_generator else ()), *sets]
