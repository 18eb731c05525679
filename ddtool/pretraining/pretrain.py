"""`ddtool pretrain`: from the names of large datasets to a meta generator."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypedDict

import torch
from pydantic import JsonValue

from ddtool.config import (
    MetaConfig,
    PretrainConfig,
    by_device,
    from_dict,
    layered,
    to_dict,
)
from ddtool.data.images import ImageData
from ddtool.errors import UsageError
from ddtool.events import Note, Report, silent
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths, known_norm
from ddtool.models.generator import Generator
from ddtool.pretraining.folder import Pretraining, RankSaver, check_free
from ddtool.pretraining.tasks import LargeSet, task_source
from ddtool.pretraining.validation import Validation
from ddtool.runs.files import dated_folder, sweep
from ddtool.runs.tracking import tracked
from ddtool.runtime.distributed import ALONE, Ranks
from ddtool.runtime.engine import Engine, seeded_generator
from ddtool.sources import load as sources
from ddtool.sources.names import placed

# -------------------------------------------------------------------------------------------------- beginning, resuming


def resolve(
    engine: Engine, preset_name: str, *layers: Mapping[str, JsonValue], report: Report = silent
) -> PretrainConfig:
    """defaults < preset < layers, left to right; UsageError for an unknown key or a value that cannot be used.

    `report` hears of settings that are given by the name of an earlier version.
    """
    usual = by_device(preset_name, engine.device.type)
    config = from_dict(PretrainConfig, layered(usual, *layers, note=lambda text: report(Note(text))))
    check_config(config)
    return config


def check_config(config: PretrainConfig) -> None:
    """UsageError for values that no pre-training can use, before anything is loaded."""
    if not config.datasets:
        hint = "For example: `ddtool pretrain zh-plus/tiny-imagenet --resolution 32 --out DIR`."
        raise UsageError("No dataset was given.", hint)
    known_norm(config.features.norm)


def start(
    config: PretrainConfig, folder: Path, engine: Engine, ranks: Ranks = ALONE, force: bool = False,
    report: Report = silent,
) -> Pretraining:  # fmt: skip
    """A new pre-training whose datasets can be had; nothing is written before that. Rank 0 makes it, the others wait."""
    check_processes(config, ranks)
    check_eager(engine)
    if ranks.main:
        check_free(folder, force)
        sets = load_sets(config, report)
        config = replace(config, datasets=tuple(map(placed, config.datasets)))
        Pretraining.create(folder, config, engine, sets, force)
    ranks.barrier()
    return Pretraining.open(folder)


def finish(
    run: Pretraining, engine: Engine, ranks: Ranks = ALONE, report: Report = silent, track: str | None = None
) -> None:
    """Bring a pre-training to its end, from wherever it stands; on the CPU the result is the same, bit for bit, as without
    an interruption.

    track: follow it by tensorboard, wandb or trackio as well; one that is tracked already goes on in the same tracked run.
    """
    with tracked(run.folder, track, to_dict(run.config()), report, ranks.main) as tracker:
        train(run, engine, ranks, tracker.listener)


def train(run: Pretraining, engine: Engine, ranks: Ranks, report: Report) -> None:
    """The work of `finish`."""
    config, engine = run.config(), replace(engine, varying_sizes=True)
    check_processes(config, ranks)
    check_eager(engine)
    sets = load_first(config, ranks, report)
    run.check_same_data(sets)
    saver = RankSaver(run.folder / "checkpoints" / "pretrain.safetensors", ranks)
    features = feature_networks(config, sets, engine)
    g = engine.place(Generator.build(config.architecture, config.seed))
    if ranks.main:
        sweep(run.folder)
        saved = saver.load()
        run.rewind(-1 if saved is None else int(saved["step"]))
    validation = Validation(run, config, g, features, sets, engine, ranks, report)
    listen = validation.listen if ranks.main else silent
    mgdd.meta_train(
        g,
        features,
        task_source(sets, config.meta, engine.device),
        config.meta,
        engine,
        config.seed,
        listen,
        saver,
        ranks,
        validation.visit,
    )
    ranks.barrier()


def check_processes(config: PretrainConfig, ranks: Ranks) -> None:
    """UsageError when a process would have nothing to do."""
    if ranks.world > config.meta.meta_batch:
        hint = f"Start {config.meta.meta_batch} or fewer, or give a larger --meta-batch."
        raise UsageError(f"{ranks.world} processes for {config.meta.meta_batch} tasks an iteration.", hint)


def check_eager(engine: Engine) -> None:
    """UsageError where steps are to be captured: every task would be captured anew, and what processes send each other never is."""
    if engine.graphs:
        raise UsageError("The steps of pre-training are not captured in CUDA graphs.", "Take an Engine without graphs.")


def load_sets(config: PretrainConfig, report: Report) -> list[LargeSet]:
    """Every dataset, memory-mapped. Raises UsageError when their images differ in size."""
    options = from_dict(sources.DataOptions, config.data, "data.")
    needed = 2 * config.meta.ipc[1]  # as many again as the largest Z, for the real batches
    trains = [sources.load(name, options, scattered=True, report=report).train for name in config.datasets]
    sizes = {train.shape[1:]: name for name, train in zip(config.datasets, trains, strict=True)}
    if len(sizes) > 1:
        said = ", ".join(f"{name} has {h}x{w}" for (h, w), name in sizes.items())
        raise UsageError(
            f"The datasets' images differ in size: {said}.", "Give them one size, for example --resolution 32."
        )
    return [LargeSet.of(train, config.held_out, needed, config.seed, report) for train in trains]


def load_first(config: PretrainConfig, ranks: Ranks, report: Report) -> list[LargeSet]:
    """`load_sets` on rank 0 before all others, so that a dataset is decoded once."""
    if not ranks.main:
        ranks.barrier()
        return load_sets(config, silent)
    sets = load_sets(config, report)
    ranks.barrier()
    return sets


def feature_networks(config: PretrainConfig, sets: Sequence[LargeSet], engine: Engine) -> dict[int, RandomFeatures]:
    """The network that f_θ* is drawn into, by the number of channels; tasks may be grey."""
    _, h, w = sets[0].data.shape
    widths, norm = doubling_widths(config.features.width, depth_for((1, h, w))), config.features.norm
    channels = {1, *(large.data.shape[0] for large in sets)}
    return {
        c: RandomFeatures((c, h, w), widths, norm, engine, engine.rng(config.seed, "features", c)) for c in channels
    }


# ----------------------------------------------------------------------------------------------------------------- plan


class DataPlan(TypedDict):
    """A dataset of a pre-training, plain JSON values; None: only decoding tells."""

    name: str
    train: int | None
    """Training images."""
    classes: int | None
    image: tuple[int, int, int] | None
    """(c, h, w)."""
    cached: bool
    """Whether it is decoded already."""
    cache_mb: int | None


class PretrainPlan(TypedDict):
    """What a pre-training would take, plain JSON values; None: only decoding tells."""

    datasets: list[DataPlan]
    cache_mb: int | None
    tasks: int
    seconds_an_iteration: float | None
    hours: float | None
    memory_mib: int | None


def plan(config: PretrainConfig, engine: Engine, ranks: Ranks = ALONE, report: Report = silent) -> PretrainPlan:
    """What a pre-training would take: data and cache sizes in MB, tasks, seconds and peak memory by one trial iteration.

    The trial is on the data where it is decoded already, else on random images of its shape. Nothing is written.
    """
    check_processes(config, ranks)
    engine = replace(engine, varying_sizes=True)
    options = from_dict(sources.DataOptions, config.data, "data.")
    looks = [sources.inspect(name, options, report=report) for name in config.datasets]
    if all(look.cached for look in looks):
        sets = load_sets(config, report)
    else:
        sets = [stand_in(look, config) for look in looks if look.shape]
    sizes = [look.cache_bytes for look in looks]
    shares = len(ranks.share(config.meta.meta_batch))
    out: PretrainPlan = {
        "datasets": [data_plan(name, look) for name, look in zip(config.datasets, looks, strict=True)],
        "cache_mb": None if None in sizes else round(sum(size or 0 for size in sizes) / 1e6),
        "tasks": config.meta.iterations * config.meta.meta_batch,
        "seconds_an_iteration": None,
        "hours": None,
        "memory_mib": None,
    }
    if len(sets) < len(looks):
        return out
    iteration = trial(replace(config.meta, meta_batch=shares), config, sets, engine)
    peak = engine.peak_memory_mib()
    step = iteration / shares / (config.meta.inner_steps + config.meta.meta_test)
    validations = 2 + (config.meta.iterations - 1) // config.validate_every
    validating = validations * config.validate_tasks * (config.meta.inner_steps + config.validate_steps) * step
    out["seconds_an_iteration"] = round(iteration, 2)
    out["hours"] = round((config.meta.iterations * iteration + validating) / 3600, 2)
    out["memory_mib"] = None if peak is None else round(peak)
    return out


def data_plan(name: str, look: sources.Outlook) -> DataPlan:
    """What can be told of a dataset before it is decoded."""
    size = look.cache_bytes
    return {
        "name": Path(name).name,
        "train": look.train,
        "classes": look.classes,
        "image": look.shape,
        "cached": look.cached,
        "cache_mb": None if size is None else round(size / 1e6),
    }


def trial(meta: MetaConfig, config: PretrainConfig, sets: Sequence[LargeSet], engine: Engine) -> float:
    """Seconds of one iteration, after a short one that warms up."""
    features = feature_networks(config, sets, engine)
    g = engine.place(Generator.build(config.architecture, config.seed))
    for trial in (replace(meta, iterations=1, meta_batch=1, inner_steps=1), replace(meta, iterations=1)):
        started = time.perf_counter()
        mgdd.meta_train(g, features, task_source(sets, trial, engine.device), trial, engine, config.seed)
    return time.perf_counter() - started


def stand_in(look: sources.Outlook, config: PretrainConfig) -> LargeSet:
    """Random images in place of a dataset that is not decoded yet: the most classes of a task, as many images as one needs."""
    C, per_class = config.meta.ways[1] + config.held_out, max(config.meta.label_images, 2 * config.meta.ipc[1])
    assert look.shape is not None
    images = torch.randint(0, 256, (C * per_class, *look.shape), generator=seeded_generator("cpu", 0, "stand-in"))
    c, labels = look.shape[0], torch.arange(C).repeat(per_class)
    names = tuple(map(str, range(C)))
    data = ImageData(images.to(torch.uint8), labels, names, (0.5,) * c, (0.3,) * c)
    return LargeSet.of(data, config.held_out, 1, config.seed)


def default_folder() -> Path:
    """runs/pretrain-DATE-TIME below the current folder, with a number behind it where that is taken."""
    return dated_folder("pretrain")
