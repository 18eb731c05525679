"""From a dataset's name to a scored run directory. Each finished stage is a file of the run; what is there is not made again."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddtool import methods
from ddtool.config import MGDD_SETTINGS, AdaptConfig, RunConfig, to_dict
from ddtool.data.batches import usual_batch
from ddtool.data.images import ImageData, SyntheticSet, draw_pool
from ddtool.data.inputs import NetworkInput
from ddtool.errors import DataError, HubError, RunError, UsageError, did_you_mean
from ddtool.evaluation.protocols import check_protocol
from ddtool.events import Done, Note, Report, silent
from ddtool.hub import generators
from ddtool.methods import mgdd
from ddtool.models import registry
from ddtool.models.convnet import ConvNet, RandomFeatures, depth_for, known_norm, pyramid
from ddtool.models.generator import Generator, GeneratorConfig
from ddtool.pipeline.scoring import load_target, score_run
from ddtool.pipeline.target import measured_target
from ddtool.runs.files import RESTORE
from ddtool.runs.formats import MOST_BYTES
from ddtool.runs.preview import preview
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, finite
from ddtool.sources.load import Target

MGDD = "mgdd"
"""The method of this package; the others are in `methods`."""

LABELLINGS = ("fitted", "analytical")
"""How `generate` can find labels."""

GENERATOR_SHARE = 0.9
"""How much of what the labels leave of a budget in seconds goes to adaptation when nothing is refined: the rest is for fitting."""

POOL_IPC, POOL_BYTES = 50, 2**30
"""Initial samples per class that are kept in a run for sets of other sizes, and how many bytes of pixels at most for those."""

FITTING, MOST_FITTING = 36, 16 * 2**30
"""Bytes that fitting the labels of a set takes for each pair of its images, and how many are too many."""

WIDEST = 4096
"""The most channels that a label network may have."""


@dataclass
class Adapted:
    """All that deployment needs: g, θ with W_θ, Z, and how images are read. The original dataset is not among it."""

    generator: Generator
    label_features: RandomFeatures
    W: Tensor
    pool_images: Tensor  # uint8 (m, c, h, w), image-major
    pool_labels: Tensor  # (m,)
    info: dict[str, Any]
    engine: Engine

    @classmethod
    def load(cls, run: Run, engine: Engine) -> "Adapted":
        """From a run directory; RunError or GeneratorError when a part is missing or damaged."""
        features, W, info = load_labels(run, engine)
        images, labels = run.load_pool(tuple(info["class_names"]))
        generator = engine.place(run.load_generator())
        return cls(generator, features, W, images.to(engine.device), labels.to(engine.device), info, engine)

    @property
    def num_classes(self) -> int:
        return len(self.info["class_names"])

    @property
    def pool_ipc(self) -> int:
        """Images per class of Z."""
        return len(self.pool_images) // self.num_classes

    def synthesise(self, ipc: int) -> tuple[SyntheticSet, SyntheticSet]:
        """The initial samples with analytical labels, and what the generator makes of them in one pass."""
        m = ipc * self.num_classes
        inputs = NetworkInput(self.info["mean"], self.info["std"], self.info["whitening"], self.engine.device)
        X = mgdd.in_passes(inputs, self.pool_images[:m])
        Y = mgdd.analytical_labels(self.label_features, self.W, X)
        initial = SyntheticSet(
            images=self.pool_images[:m].float() / 255,
            labels=Y,
            hard=self.pool_labels[:m],
            ipc=ipc,
            class_names=tuple(self.info["class_names"]),
            mean=tuple(self.info["mean"]),
            std=tuple(self.info["std"]),
            whitening=self.info["whitening"],
            mirror=self.info["mirror"],
            stage="initial",
            source=self.info["source"],
        )
        made = mgdd.generate(self.generator, X, inputs, self.engine)
        return initial, replace(initial, images=mgdd.in_passes(inputs.inverse, made), stage="generated")


# ------------------------------------------------------------------------------------------------------------ adapt


def adapt(config: RunConfig, run: Run, engine: Engine, report: Report = silent) -> None:
    """Bring `run` to its end, from wherever it stands: labels and pool, adaptation, a set for every IPC, scores, picture."""
    started = time.perf_counter()
    target = load_target(config, report)
    run.save_broken(target.broken)
    check_ipcs(config, target.train)
    missing = [ipc for ipc in config.ipc if not has_set(config, ipc, run)]
    if not run.has("generator/labels.safetensors"):
        prepare(config, target.train, run, engine, report)
    info = run.load_label_head()[2]
    check_same_data(info, target.train, run)
    real = mgdd.Real.of(replace(target.train, whitening=info["whitening"]), engine)
    features = feature_network(config, real.data.shape, engine)
    if not run.has_generator():
        adapt_generator(config, real, features, info, run, engine, report)
    adapted = Adapted.load(run, engine)
    for ipc in missing:
        make_set(config, ipc, adapted, real, features, run, engine, report)
    if missing:
        run.record(timings={"adapt command, until the sets were written": round(time.perf_counter() - started, 1)})
    record_peak(run, engine)
    draw_preview(run, max(config.ipc))
    score_run(config, run, target, engine, report)
    finish(run)


def record_peak(run: Run, engine: Engine) -> None:
    """Record the peak of memory until the sets were there: what scoring takes is not the method's."""
    peak = engine.peak_memory_mib()
    if peak is not None:
        run.record(peak_memory_mib=max(round(peak), run.results()["facts"].get("peak_memory_mib", 0)))


def finish(run: Run) -> None:
    """Record that all is done; nothing to resume is kept."""
    run.record(finished=True)
    run.drop_checkpoints()


def seconds_left(config: RunConfig, run: Run, phase: str) -> float | None:
    """What the phases before `phase` leave of a budget in seconds; None when steps are counted.

    Its own seconds and later ones, which an earlier attempt may have logged, are not counted.
    """
    if config.seconds is None:
        return None
    timings, order = run.results()["timings"], phases(config.ipc[0])
    return max(0.0, config.seconds - sum(timings.get(before, 0.0) for before in order[: order.index(phase)]))


def phases(ipc: int) -> list[str]:
    """The phases whose seconds a set takes, in their order."""
    return [
        "whitening",
        "labels",
        "pool labels",
        "adapt",
        f"generate ipc{ipc}",
        f"fit labels ipc{ipc}",
        f"refine ipc{ipc}",
    ]


def record_spent(ipc: int, run: Run) -> None:
    """What the set of one IPC took, by the events that were logged."""
    timings, steps = run.results()["timings"], run.steps()
    stepping = ("adapt", f"refine ipc{ipc}")
    inside = sum(timings.get(phase, 0.0) for phase in stepping)
    outside = sum(timings.get(phase, 0.0) for phase in phases(ipc) if phase not in stepping)
    run.record_spent(ipc, sum(steps.get(phase, 0) for phase in stepping), inside, outside)


def check_same_data(info: dict[str, Any], train: ImageData, run: Run) -> None:
    """RunError when the dataset is not the one that the run was started with."""
    for name in ("class_names", "shape", "mean", "std"):
        if list(info[name]) != list(getattr(train, name)):
            raise RunError(
                f"The dataset has changed since {run.folder} was started (its {name.replace('_', ' ')} differ).",
                "Bring the old data back, or start a new run.",
            )


def check_start(config: RunConfig, report: Report) -> Target:
    """The dataset of a run that can begin: its IPCs fit the classes, its generator (if it takes one) can be loaded."""
    target = load_target(config, report)
    check_ipcs(config, target.train)
    registry.find(config.evaluate.arch).check(target.train.shape)
    if config.method == MGDD:
        check_fit(config, target.train.num_classes, max(config.ipc + config.adapt.seen_ipcs))
        load_generator(config, report)
    return target


def check_fit(config: RunConfig, C: int, ipc: int) -> None:
    """UsageError for a set that is too large to fit its labels: FITTING bytes for each pair of images."""
    if config.fit.networks and FITTING * (ipc * C) ** 2 > MOST_FITTING:
        need = FITTING * (ipc * C) ** 2 / 2**30
        message = f"Labels of {ipc * C:,} images at once (IPC {ipc}) would take about {need:,.0f} GiB of memory to fit."
        raise UsageError(message, "Ask for fewer, or take the labels of Eq. 3: --set fit.networks=0.")


def check_ipcs(config: RunConfig, train: ImageData) -> None:
    """UsageError for an IPC that is not positive or more than a class holds."""
    if not config.ipc:
        raise UsageError("No IPC was asked for.", "Give --ipc 10.")
    most = int(train.class_counts().min())
    for ipc in config.ipc:
        if ipc < 1:
            raise UsageError(
                f"--ipc must be at least 1, got {ipc}.", "IPC is the number of synthetic images per class."
            )
        if ipc > most:
            name = train.class_names[int(train.class_counts().argmin())]
            raise UsageError(f"--ipc {ipc} is more than class '{name}' holds ({most}).", f"Use --ipc {most} or less.")
        if (size := ipc * train.num_classes * math.prod(train.shape)) > MOST_BYTES:
            message = f"The pixels of --ipc {ipc} are {size / 2**30:,.0f} GiB, more than a run can keep."
            raise UsageError(message, "Use a smaller --resolution or --ipc.")


def prepare(config: RunConfig, train: ImageData, run: Run, engine: Engine, report: Report) -> None:
    """Find out what the target is like (`measured_target`), draw Z, solve W_θ (Eq. 3); keep all of it in the run."""
    real, mirror = measured_target(config, train, run, engine, report)
    started = time.perf_counter()
    data, C = real.data, real.data.num_classes
    pool_ipc = pool_size(config, data)
    indices = draw_pool(data, pool_ipc, config.seed)
    rng = engine.rng(config.seed, "labels")
    f = fixed_features(data.shape, config.labels.width, engine, rng)
    rows = torch.randperm(len(data), generator=rng, device=rng.device)[: config.labels.images]
    W = mgdd.label_head(f, real, rows, config.labels.ridge)
    engine.synchronise()
    report(Done("labels", time.perf_counter() - started))
    run.save_pool(data, indices)
    info = {
        "class_names": list(data.class_names),
        "mean": list(data.mean),
        "std": list(data.std),
        "shape": list(data.shape),
        "label_width": config.labels.width,
        "mirror": mirror,
        "pool_ipc": pool_ipc,
        "source": data.source,
        "whitening": data.whitening,
    }
    run.record(classes=C, train_images=len(data), mirror=mirror, pool_ipc=pool_ipc)
    run.save_label_head(dict(f.net.body.state_dict()), W, info)


def pool_size(config: RunConfig, data: ImageData) -> int:
    """Images per class of Z: what is asked for and seen, and room for other sizes where nothing else is said."""
    room = min(POOL_IPC, POOL_BYTES // (data.num_classes * math.prod(data.shape)))
    return min(int(data.class_counts().min()), max(config.ipc + (config.adapt.seen_ipcs or (room,))))


def adapt_generator(
    config: RunConfig,
    real: mgdd.Real,
    features: RandomFeatures,
    info: dict[str, Any],
    run: Run,
    engine: Engine,
    report: Report,
) -> None:
    """The adaptation stage; leaves generator/ in the run."""
    settings = replace(config.adapt, mirror=config.adapt.mirror and info["mirror"])
    settings = feasible(settings, config.ipc, real.data, report)
    generator = engine.place(load_generator(config))
    images, _ = run.load_pool(tuple(info["class_names"]))
    f, W, _ = load_labels(run, engine)
    started, seen = time.perf_counter(), max(settings.seen_ipcs) * real.data.num_classes
    X = real.inputs(images[:seen].to(engine.device))
    pool = mgdd.Pool(X, {})
    if settings.steps or config.seconds is not None:
        pool = labelled_pool(config, settings, X, real, features, (f, W), engine)
        engine.synchronise()
        report(Done("pool labels", time.perf_counter() - started))
    if (cost := pretraining_seconds(config)) is not None:
        run.record(pretraining_seconds=cost)
    rng = engine.rng(config.seed, "adapt")
    left = seconds_left(config, run, "adapt")
    share = config.adapt_share if config.refine.steps else GENERATOR_SHARE
    seconds = None if left is None else left * share
    mgdd.adapt(generator, features, real, pool, settings, engine, rng, report, run.saver("adapt"), seconds)
    run.save_generator(generator)


def labelled_pool(
    config: RunConfig,
    settings: AdaptConfig,
    X: Tensor,
    real: mgdd.Real,
    features: RandomFeatures,
    head: tuple[RandomFeatures, Tensor],
    engine: Engine,
) -> mgdd.Pool:
    """Z with labels for every IPC that adaptation sees: fitted to the images, or with no networks to fit on, Eq. 3 of `head`."""
    first = {ipc: X[: ipc * real.data.num_classes] for ipc in settings.seen_ipcs}
    if config.fit.networks == 0:
        return mgdd.Pool(X, {ipc: mgdd.analytical_labels(*head, part) for ipc, part in first.items()})
    fit, most = replace(config.fit, mirror=config.fit.mirror and settings.mirror), settings.synthetic_batch
    rngs = {ipc: engine.rng(config.seed, "pool labels", ipc) for ipc in first}
    return mgdd.Pool(X, {k: mgdd.fitted_labels(X, features, real, fit, rngs[k], most) for k, X in first.items()})


def feasible(settings: AdaptConfig, ipcs: Sequence[int], data: ImageData, report: Report) -> AdaptConfig:
    """The settings with seen IPCs (by default `ipcs`) that the classes of this target can fill, said aloud when they change."""
    most = int(data.class_counts().min())
    settings = replace(settings, seen_ipcs=settings.seen_ipcs or tuple(ipcs))
    seen = tuple(dict.fromkeys(min(ipc, most) for ipc in settings.seen_ipcs))
    if set(seen) != set(settings.seen_ipcs):
        report(Note(f"Adaptation sees IPC {', '.join(map(str, seen))}: the smallest class holds {most} images."))
    return replace(settings, seen_ipcs=seen)


def make_set(
    config: RunConfig,
    ipc: int,
    adapted: Adapted,
    real: mgdd.Real,
    features: RandomFeatures,
    run: Run,
    engine: Engine,
    report: Report,
) -> None:
    """Generate, fit labels, refine and write the set of one IPC."""
    initial, generated = synthesise(config, ipc, adapted, real, features, report)
    final = refine_set(config, generated, real, features, run, engine, report)
    record_spent(ipc, run)
    write_stages(run, initial, generated, final, config.label_scale, force=True)


def synthesise(
    config: RunConfig, ipc: int, adapted: Adapted, real: mgdd.Real | None, features: RandomFeatures, report: Report
) -> tuple[SyntheticSet, SyntheticSet]:
    """The initial and the generated set of one IPC; with the real data at hand, the generated one's labels fitted to it."""
    started = time.perf_counter()
    initial, generated = adapted.synthesise(ipc)
    adapted.engine.synchronise()
    report(Done(f"generate ipc{ipc}", time.perf_counter() - started))
    if real is None or config.fit.networks == 0:
        return initial, generated
    started = time.perf_counter()
    generated = fit_labels(config, generated, real, features, adapted.engine)
    adapted.engine.synchronise()
    report(Done(f"fit labels ipc{ipc}", time.perf_counter() - started))
    return initial, generated


def fit_labels(
    config: RunConfig, synthetic: SyntheticSet, real: mgdd.Real, features: RandomFeatures, engine: Engine
) -> SyntheticSet:
    """The set with the labels that suit its images best over random networks."""
    check_fit(config, synthetic.num_classes, synthetic.ipc)
    settings = replace(config.fit, mirror=config.fit.mirror and synthetic.mirror)
    rng = engine.rng(config.seed, "fit", synthetic.ipc)
    X = real.inputs(synthetic.images.to(engine.device))
    return replace(synthetic, labels=mgdd.fitted_labels(X, features, real, settings, rng), label_method="fitted")


def has_set(config: RunConfig, ipc: int, run: Run) -> bool:
    """Whether the run has the set that its configuration asks for: `ddtool generate` leaves one that is not refined."""
    return run.set_path(ipc).exists() and run.load_set(ipc).stage == final_stage(config)


def final_stage(config: RunConfig) -> str:
    """The stage of the sets that a run of MGDD leaves."""
    return "refined" if config.refine.steps else "generated"


def write_stages(
    run: Run, initial: SyntheticSet, generated: SyntheticSet, final: SyntheticSet, scale: float | None, force: bool
) -> Path:
    """Keep all stages of a set, labels at one scale; the final one last, since its presence means: done."""
    run.save_stage(initial.scaled(scale))
    run.save_stage(generated.scaled(scale))
    return run.save_final(final.scaled(scale), force=force)


def refine_set(
    config: RunConfig,
    generated: SyntheticSet,
    real: mgdd.Real,
    features: RandomFeatures,
    run: Run,
    engine: Engine,
    report: Report,
) -> SyntheticSet:
    """The refined set, or the generated one when the configuration asks for no refinement."""
    if config.refine.steps == 0:
        return generated
    phase, generated = f"refine ipc{generated.ipc}", generated.to(engine.device)
    seconds = seconds_left(config, run, phase)
    if seconds == 0:
        report(Note(f"The {config.seconds:g} seconds were over before refinement began: raise --seconds."))
    mirror = config.refine.mirror and generated.mirror
    batch = max(config.refine.synthetic_batch, generated.num_classes)
    X, Y = mgdd.refine(
        real.inputs(generated.images),
        generated.labels,
        features,
        real,
        replace(config.refine, mirror=mirror, synthetic_batch=batch),
        engine.rng(config.seed, phase),
        report,
        run.saver(phase.replace(" ", "-")),
        phase,
        seconds,
    )
    return replace(generated, images=real.inputs.inverse(X), labels=Y, stage="refined", label_method="learned")


def feature_network(config: RunConfig, shape: tuple[int, int, int], engine: Engine) -> RandomFeatures:
    """The network that f_θ* is drawn into."""
    widths = pyramid(config.features.width, depth_for(shape))
    return RandomFeatures(shape, widths, config.features.norm, engine, engine.rng(config.seed, "features"))


def fixed_features(shape: tuple[int, int, int], width: int, engine: Engine, rng: torch.Generator) -> RandomFeatures:
    """f_θ of Eq. 3: one network, kept for the whole run."""
    return RandomFeatures(shape, (width,) * depth_for(shape), "none", engine, rng)


def load_labels(run: Run, engine: Engine) -> tuple[RandomFeatures, Tensor, dict[str, Any]]:
    """f_θ and W_θ of Eq. 3 as the run keeps them, with the information beside them; RunError when they do not fit it."""
    theta, W, info = run.load_label_head()
    check_labels(theta, W, info, run.folder)
    f = fixed_features(tuple(info["shape"]), info["label_width"], engine, engine.rng(0, "unused"))
    f.net.body.load_state_dict(theta)
    return f, W.to(engine.device), info


def check_labels(theta: dict[str, Tensor], W: Tensor, info: dict[str, Any], folder: Path) -> None:
    """RunError unless θ and W_θ are what their description says; the network itself is not made."""
    shape, width = tuple(info["shape"]), info["label_width"]
    if type(width) is not int or not 1 <= width <= WIDEST:
        raise RunError(f"The label network of {folder} is refused: its width is {width!r:.40}.", RESTORE)
    with torch.device("meta"):
        net = ConvNet(shape, 1, (width,) * depth_for(shape), "none")
    expected = {name: value.shape for name, value in net.body.state_dict().items()}
    if {name: value.shape for name, value in theta.items()} != expected:
        raise RunError(f"The label network of {folder} does not fit its description.", RESTORE)
    if W.shape != (net.feature_dim, len(info["class_names"])):
        raise RunError(f"The label head of {folder} does not fit its description.", RESTORE)
    if not all(value.dtype == torch.float32 and finite(value) for value in (*theta.values(), W)):
        raise RunError(f"The label network of {folder} has values that are not finite numbers.", RESTORE)


def pretraining_seconds(config: RunConfig) -> float | None:
    """What the pre-training of the generator took, by what it (untrusted) says of itself; None when it does not say."""
    if config.generator == "scratch":
        return None
    try:
        facts = generators.pretraining_of(config.generator)
        seconds = float(facts["seconds"]) if type(facts["seconds"]) in (int, float) else math.nan
    except (HubError, OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def load_generator(config: RunConfig, report: Report = silent) -> Generator:
    """The meta generator that a configuration names; it is said when the settings ask for another architecture."""
    if config.generator == "scratch":
        return Generator.build(config.architecture, config.seed)
    generator = Generator.load(generators.generator_folder(config.generator))
    if config.architecture not in (GeneratorConfig(), generator.config):
        slots, side = generator.config.slots, generator.config.side
        report(Note(f"The generator stays at {slots} slots, side {side}: settings of 'architecture' are for scratch."))
    return generator


# --------------------------------------------------------------------------------------------------------- generate


def generate(
    run: Run,
    ipc: int,
    engine: Engine,
    *,
    labels: str | None = None,
    force: bool = False,
    report: Report = silent,
) -> Path:
    """Any IPC from an adapted run: one pass over Z, then labels.

    labels: 'fitted' in closed form with the dataset, which must be had; 'analytical' (Eq. 3), and the dataset is left
    alone; default: fitted where the dataset can be had. More initial samples than Z holds are drawn from it again.
    """
    check_labelling(run, labels)
    if ipc < 1:
        raise UsageError(f"--ipc must be at least 1, got {ipc}.", "IPC is the number of synthetic images per class.")
    if (method := run.config().method) != MGDD:
        hint = f"A set of another size is another run: `ddtool adapt DATASET --method {method} --ipc {ipc}`."
        raise RunError(f"{run.folder} was made by the method '{method}', which has no generator.", hint)
    if not run.has_generator():
        raise RunError(
            f"{run.folder} has no adapted generator yet.", f"Finish it: `ddtool adapt --resume {run.folder}`."
        )
    if run.set_path(ipc).exists() and not force:
        stage = run.load_set(ipc).stage
        hint = "Replace it with --force" + (" (the new one will not be refined)." if stage == "refined" else ".")
        raise RunError(f"{run.folder} has a set of ipc {ipc} already, {stage}.", hint)
    if labels == "analytical":
        check_pool(run, ipc)
    if not run.has("pool/train.parquet"):
        restore_pool(run, report)
    adapted = Adapted.load(run, engine)
    if ipc > adapted.pool_ipc:
        extend_pool(run, ipc, adapted, report)
    config = run.config()
    fits = config.fit.networks > 0 and labels != "analytical"
    real = real_data(config, adapted, run, labels == "fitted", report) if fits else None
    features = feature_network(config, tuple(adapted.info["shape"]), engine)
    initial, generated = synthesise(config, ipc, adapted, real, features, report)
    run.drop_scores(ipc)
    return write_stages(run, initial, generated, generated, config.label_scale, force)


def check_labelling(run: Run, labels: str | None) -> None:
    """UsageError for labels that do not exist, or that the settings of the run leave out."""
    if labels not in (None, *LABELLINGS):
        raise UsageError(f"Unknown labels '{labels}'.", did_you_mean(str(labels), LABELLINGS))
    if labels == "fitted" and run.config().fit.networks == 0:
        raise UsageError(f"{run.folder} was made without fitted labels (fit.networks is 0).", "Leave --labels out.")


def check_pool(run: Run, ipc: int) -> None:
    """RunError when a set of this IPC takes more initial samples than the run keeps."""
    kept = run.load_label_head()[2]["pool_ipc"] if run.has("pool/train.parquet") else 0
    if ipc > kept:
        message = f"The run keeps {kept} initial samples per class; more are in its dataset, which --labels analytical"
        hint = f"Use --ipc {kept} or less, or leave --labels out." if kept else "Leave --labels out."
        raise RunError(f"{message} leaves alone.", hint)


def real_data(config: RunConfig, adapted: Adapted, run: Run, needed: bool, report: Report) -> mgdd.Real | None:
    """The target of a run, to fit labels on; when it is not at hand or has changed None, said aloud, or if `needed` RunError."""
    if run.results()["facts"].get("pulled"):
        report(
            Note(f"Fetching {config.dataset}, if it is not here, to fit labels; --labels analytical does without it.")
        )
    try:
        train = load_target(config, report).train
        check_same_data(adapted.info, train, run)
        train = replace(train, whitening=adapted.info["whitening"])
    except (DataError, RunError) as error:
        if needed:
            hint = f"{error.hint} Without it: --labels analytical.".lstrip()
            raise RunError(f"Fitted labels take the dataset of the run. {error.message}", hint) from error
        report(Note(f"Labels are the analytical ones of Eq. 3: to fit better ones takes the dataset. {error.message}"))
        return None
    return mgdd.Real.of(train, adapted.engine)


def extend_pool(run: Run, ipc: int, adapted: Adapted, report: Report) -> None:
    """Give `adapted` a larger Z, whose beginning is the old one: the same draw from the same data goes on.

    Raises RunError when the dataset cannot be had or has changed, UsageError when a class holds fewer images.
    """
    kept = adapted.pool_ipc
    report(Note(f"The run keeps {kept} initial samples per class; drawing {ipc} from {run.config().dataset}."))
    why = f"The run keeps {kept} initial samples per class; for {ipc} it needs its dataset."
    train, indices = draw_again(run, adapted.info, ipc, why, f"Use --ipc {kept} or less, or bring", report)
    device = adapted.engine.device
    adapted.pool_images, adapted.pool_labels = train.images[indices].to(device), train.labels[indices].to(device)


def restore_pool(run: Run, report: Report) -> None:
    """Draw the Z of a run that was pulled without it: the same seed, the same revision of the dataset. Raises as above."""
    info = run.load_label_head()[2]
    report(Note(f"The run has no initial samples; drawing them from {run.config().dataset} again."))
    train, indices = draw_again(run, info, info["pool_ipc"], "The run has no initial samples.", "Bring", report)
    run.save_pool(train, indices)


def draw_again(
    run: Run, info: dict[str, Any], ipc: int, why: str, otherwise: str, report: Report
) -> tuple[ImageData, Tensor]:
    """The run's dataset and the indices of its first `ipc` initial samples per class."""
    config = run.config()
    try:
        train = load_target(config, report).train
    except DataError as error:
        raise RunError(f"{why} {error.message}", f"{otherwise} the dataset back. {error.hint}") from error
    check_same_data(info, train, run)
    return train, draw_pool(train, ipc, config.seed)


def pinned(config: RunConfig, source: dict[str, Any]) -> RunConfig:
    """The configuration with its Hub dataset at the commit that was read, so that a run stays on it.

    The Hub's own parquet copy is named by its branch and has to stay so; its commit is in the source.
    """
    if source.get("kind") != "hub" or source.get("converted"):
        return config
    at = {"revision": source["revision"]}
    return replace(config, dataset=config.dataset.partition("@")[0], data=config.data | at)


# ------------------------------------------------------------------------------------------------- picture and plan


def draw_preview(run: Run, ipc: int, path: Path | None = None, real: bool = True) -> None:
    """preview.png of one set, in the run or at `path`: its stages above each other, without `real` not the initial ones."""
    final = run.load_set(ipc)
    ours = final.stage != "distilled"
    learned = ours or methods.find(final.method).learns
    shown = ["initial"] * (real and learned) + ["generated"] * ours
    stages = {stage: run.load_set(ipc, stage) for stage in shown}
    stages[final.stage if ours else final.method] = final
    name = Path(str(final.source.get("name", "dataset"))).name
    title = f"ddtool · {name} · {ipc} image{'s' if ipc > 1 else ''} per class"
    preview(stages, title, path or run.folder / "preview.png")


def check_config(config: RunConfig) -> None:
    """UsageError for values that no run can use, before anything is loaded."""
    check_protocol(config.evaluate.protocol)
    registry.find(config.evaluate.arch)
    if config.method != MGDD:
        methods.settings_of(config.method, config.baseline)
    elif config.baseline:
        raise UsageError("The settings of 'baseline' are those of other methods.", "Name one: --method dm.")
    known_norm(config.features.norm)


def check_given(method: str, *layers: Mapping[str, Any]) -> None:
    """UsageError for settings of MGDD alone that were given for another method, which would not see them.

    A run's whole configuration has a value for each of them, and is let through.
    """
    if method == MGDD:
        return
    partial = [layer for layer in layers if not layer.keys() >= to_dict(RunConfig()).keys()]
    for name, value in ((name, layer[name]) for layer in partial for name in MGDD_SETTINGS if name in layer):
        if value in ({}, "bundled"):
            continue
        hint = "Leave it out, or leave --method out."
        if isinstance(value, Mapping) and "steps" in value:
            hint = f"Its own are in the section 'baseline': --set baseline.steps={value['steps']}."
        setting = f"{name}.{next(iter(value))}" if isinstance(value, Mapping) else name
        raise UsageError(f"Setting '{setting}' is MGDD's: the method '{method}' does not use it.", hint)


def plan(config: RunConfig, report: Report = silent) -> dict[str, Any]:
    """What a run would do: sizes of the data, an estimate of working memory in MiB, and the files it would leave.

    Raises what the run would raise at its start.
    """
    target = check_start(config, report)
    train = target.train
    c, h, w = train.shape
    if config.method == MGDD:
        limit, stages = config.refine.synthetic_batch, ["initial", "generated"]
        widest = max(limit, min(max(config.ipc) * train.num_classes, 2 * limit))
        real_batch = config.refine.real_batch or usual_batch(train.num_classes)
        widest += min(real_batch, 500)  # in chunks, without gradients
        channels, pool = config.features.width // 4, pool_size(config, train) * train.num_classes
        largest = max(config.ipc + config.adapt.seen_ipcs) * train.num_classes
        fitting = FITTING * largest**2 if config.fit.networks else 0
        extra = ["pool/train.parquet"]
        extra += [f"generator/{n}" for n in ("config.json", "model.safetensors", "labels.safetensors")]
    else:
        settings, stages = methods.settings_of(config.method, config.baseline), ["initial"]
        widest = getattr(settings, "real_batch", 0) + max(config.ipc) * train.num_classes
        channels, pool, extra, fitting = settings.width // (4 if settings.pyramid else 1), 0, [], 0
    activations = widest * channels * h * w * 4 * 4
    sets = [f"synthetic/ipc{n}/{file}" for n in config.ipc for file in ("train.parquet", "exact.safetensors")]
    sets += [f"stages/ipc{n}-{stage}.safetensors" for n in config.ipc for stage in stages]
    return {
        "dataset": {
            "train": len(train),
            "test": target.test_size,
            "classes": train.num_classes,
            "image": [c, h, w],
            "source": train.source,
        },
        "memory_mib": round((train.images.numel() + pool * c * h * w * 4 + max(activations, fitting)) / 2**20),
        "files": ["config.json", "env.json", "metrics.jsonl", "results.json", "preview.png", *extra, *sets],
    }
