"""Deployment: a set of any IPC from an adapted run, in one pass; its labels; and the initial samples that it takes."""

from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from ddtool.data.batches import Real, in_passes
from ddtool.data.images import ImageData, SyntheticSet, draw_pool
from ddtool.data.inputs import NetworkInput
from ddtool.data.parts import cuts, tiled
from ddtool.errors import DataError, RunError, UsageError, did_you_mean
from ddtool.events import Note, Phase
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.models.generator import Generator
from ddtool.pipeline.networks import feature_network, load_labels
from ddtool.pipeline.plan import check_class_sizes, check_fit, check_same_data
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import JudgedProblem, Session
from ddtool.runs.files import RESTORE
from ddtool.runs.formats import LabelHead
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine
from ddtool.runtime.loop import NEVER, Deadline
from ddtool.text import count, shell

LABELLINGS = ("fitted", "analytical")
"""How `generate` can find labels."""


@dataclass(kw_only=True)
class Adapted:
    """All that deployment needs: g, θ with W_θ, Z, and how images are read and stored. The original dataset is not among it."""

    generator: Generator
    label_features: RandomFeatures
    head: LabelHead
    pool_images: Tensor  # uint8 (m, c, h, w), image-major
    pool_labels: Tensor  # (m,)
    factor: int
    engine: Engine

    @classmethod
    def load(cls, run: Run, engine: Engine) -> "Adapted":
        """From a run directory; RunError or GeneratorError when a part is missing or damaged."""
        features, head = load_labels(run, engine)
        images, labels = run.load_pool(head.class_names)
        factor = run.config().factor
        if not cuts(factor, head.shape):  # a run may be of others
            raise RunError(f"{run.folder} is refused: its images cannot be cut {factor} x {factor}.", RESTORE)
        return cls(
            generator=engine.place(run.load_generator()),
            label_features=features,
            head=head,
            pool_images=images.to(engine.device),
            pool_labels=labels.to(engine.device),
            factor=factor,
            engine=engine,
        )

    @property
    def num_classes(self) -> int:
        return len(self.head.class_names)

    @property
    def pool_ipc(self) -> int:
        """The largest IPC of a set that Z has enough initial samples for."""
        return len(self.pool_images) // self.num_classes // self.factor**2

    def synthesise(self, ipc: int) -> tuple[SyntheticSet, SyntheticSet]:
        """The initial samples with analytical labels, and what the generator makes of them in one pass."""
        m, head = ipc * self.num_classes, self.head
        inputs = NetworkInput(head.mean, head.std, head.whitening, self.engine.device, self.factor)
        samples = self.pool_images[: m * self.factor**2]
        X = in_passes(inputs.start, samples)
        Y = mgdd.analytical_labels(self.label_features, head.W, X)
        initial = SyntheticSet(
            images=samples.float() / 255 if self.factor == 1 else tiled(in_passes(inputs.parts, X), self.factor),
            labels=Y,
            hard=self.pool_labels[:m],
            ipc=ipc,
            class_names=head.class_names,
            mean=head.mean,
            std=head.std,
            whitening=head.whitening,
            flip=head.flip,
            stage="initial",
            source=head.source,
            factor=self.factor,
        )
        made = mgdd.generate(self.generator, X, inputs, self.engine)
        images = tiled(in_passes(inputs.parts, made), self.factor)
        return initial, replace(initial, images=images, stage="generated")


# -------------------------------------------------------------------------------------------------- a set and its labels


def generate(session: Session, ipc: int, *, labels: str | None = None, force: bool = False) -> Path:
    """Any IPC from an adapted run: one pass over Z, then labels. Returns the folder of the set.

    labels: 'fitted' in closed form with the dataset, which must be had; 'analytical' (Eq. 3), and the dataset is left
    alone; default: fitted where the dataset can be had. More initial samples than Z holds are drawn from it again.
    """
    check_labelling(session, labels)
    if not force and has_same(session, ipc, labels):
        session.report(Note(f"{session.run.folder} has this set of ipc {ipc} already; --force makes it anew."))
        return session.run.set_path(ipc).parent
    check_request(session, ipc, force)
    initial, generated = generate_stages(session, ipc, labels)
    session.run.drop_scores(ipc)
    return write_stages(session, initial, generated, generated, force)


def restore_stages(session: Session, ipc: int) -> None:
    """Make the initial and the generated stage of a finished set again, where the run does not hold them; the set stays."""
    initial, generated = generate_stages(session, ipc)
    save_stages(session, initial, generated)


def generate_stages(session: Session, ipc: int, labels: str | None = None) -> tuple[SyntheticSet, SyntheticSet]:
    """The initial and the generated set of one IPC, the latter with labels as `generate` has them."""
    if labels == "analytical":
        check_pool(session.run, ipc)
    if not session.run.has("pool/train.parquet"):
        restore_pool(session)
    adapted = Adapted.load(session.run, session.engine)
    if ipc > adapted.pool_ipc:
        extend_pool(session, adapted, ipc)
    fits = session.config.fit.networks > 0 and labels != "analytical"
    problem = problem_at_hand(session, adapted, needed=labels == "fitted") if fits else None
    initial, generated = synthesise(session, adapted, ipc)
    if problem is not None:
        session.report(
            Note("Fitting the labels takes most of the time; `ddtool generate --labels analytical` leaves it out.")
        )
        generated = fit_labels(session, problem, generated)
    return initial, generated


def synthesise(session: Session, adapted: Adapted, ipc: int) -> tuple[SyntheticSet, SyntheticSet]:
    """The initial and the generated set of one IPC, both with analytical labels."""
    with session.timed(Phase("generate", ipc)):
        return adapted.synthesise(ipc)


def fit_labels(
    session: Session, problem: JudgedProblem, synthetic: SyntheticSet, enough: Deadline = NEVER
) -> SyntheticSet:
    """The set with the labels that suit its images best over random networks; as it is where the settings ask for no fit."""
    config, ipc = session.config, synthetic.ipc
    if config.fit.networks == 0:
        return synthetic
    with session.timed(Phase("fit labels", ipc)):
        check_fit(config, synthetic.num_classes, ipc)
        settings = replace(config.fit, flip=config.fit.flip and problem.flip)
        X = problem.real.inputs(synthetic.decoded().images.to(session.engine.device))
        rng = session.rng("fit", ipc)
        labels = mgdd.fitted_labels(X, problem.features, problem.real, settings, rng, enough=enough)
    return replace(synthetic, labels=labels, label_method="fitted")


def write_stages(
    session: Session, initial: SyntheticSet, generated: SyntheticSet, final: SyntheticSet, force: bool = True
) -> Path:
    """Keep all stages of a set, labels at one scale; the final one last, since its presence means: done."""
    save_stages(session, initial, generated)
    return session.run.save_final(final.scaled(session.config.label_scale), force=force)


def save_stages(session: Session, initial: SyntheticSet, generated: SyntheticSet) -> None:
    """Keep what a set was before it was finished, labels at one scale."""
    for synthetic in (initial, generated):
        session.run.save_stage(synthetic.scaled(session.config.label_scale))


# ---------------------------------------------------------------------------------------------------------------- checks


def check_labelling(session: Session, labels: str | None) -> None:
    """UsageError for labels that do not exist, or that the settings of the run leave out."""
    if labels not in (None, *LABELLINGS):
        raise UsageError(f"Unknown labels '{labels}'.", did_you_mean(str(labels), LABELLINGS))
    if labels == "fitted" and session.config.fit.networks == 0:
        message = f"{session.run.folder} was made without fitted labels (fit.networks is 0)."
        raise UsageError(message, "Leave --labels out.")


def has_same(session: Session, ipc: int, labels: str | None) -> bool:
    """Whether the run has the set that is asked for: made by the generator alone, with such labels."""
    if not session.method.has_generator or not session.run.set_path(ipc).exists():
        return False
    made = session.run.load_set(ipc)
    return made.stage == "generated" and labels in (None, made.label_method)


def check_request(session: Session, ipc: int, force: bool) -> None:
    """UsageError or RunError unless the run can make a set of that IPC, and has none that only `force` replaces."""
    run, method = session.run, session.config.method
    if ipc < 1:
        raise UsageError(f"--ipc must be at least 1, got {ipc}.", "IPC is the number of synthetic images per class.")
    if not session.method.has_generator:
        hint = f"A set of another size is another run: `ddtool adapt DATASET --method {method} --ipc {ipc}`."
        raise RunError(f"{run.folder} was made by the method '{method}', which has no generator.", hint)
    if not run.has_generator():
        hint = f"Finish it: `{shell('ddtool adapt --resume', run.folder)}`."
        raise RunError(f"{run.folder} has no adapted generator yet.", hint)
    if run.set_path(ipc).exists() and not force:
        stage = run.load_set(ipc).stage
        hint = "Replace it with --force" + (" (the new one will not be refined)." if stage == "refined" else ".")
        raise RunError(f"{run.folder} has a set of ipc {ipc} already, {stage}.", hint)


def check_pool(run: Run, ipc: int) -> None:
    """RunError when a set of this IPC takes more initial samples than the run keeps."""
    samples = (run.load_label_head().pool_ipc or 0) if run.has("pool/train.parquet") else 0
    kept = samples // run.config().samples(1)
    if ipc > kept:
        message = f"The run keeps {count(samples, 'initial sample')} per class; more are in its dataset, which --labels analytical"
        hint = f"Use --ipc {kept} or less, or leave --labels out." if kept else "Leave --labels out."
        raise RunError(f"{message} leaves alone.", hint)


# ----------------------------------------------------------------------------------------------- the dataset, once more


def problem_at_hand(session: Session, adapted: Adapted, needed: bool) -> JudgedProblem | None:
    """The target of a run, to fit labels on; when it is not at hand or has changed None, said aloud, or if `needed` RunError."""
    report, dataset = session.report, session.config.dataset
    if session.run.noted().facts.pulled:
        report(Note(f"Fetching {dataset}, if it is not here, to fit labels; --labels analytical does without it."))
    try:
        train = load_target(session.config, report).train
        check_same_data(adapted.head, train, session.run, session.report)
    except (DataError, RunError) as error:
        if needed:
            hint = f"{error.hint} Without it: --labels analytical.".lstrip()
            raise RunError(f"Fitted labels take the dataset of the run. {error.message}", hint) from error
        report(Note(f"Labels are the analytical ones of Eq. 3: to fit better ones takes the dataset. {error.message}"))
        return None
    return problem_of(session, train, adapted.head)


def problem_of(session: Session, train: ImageData, head: LabelHead) -> JudgedProblem:
    """The problem of a run that has begun: the target as the run says that it is seen."""
    real = Real.of(replace(train, whitening=head.whitening), session.engine, session.config.factor)
    return JudgedProblem(real, head.flip, feature_network(session, head.shape))


def extend_pool(session: Session, adapted: Adapted, ipc: int) -> None:
    """Give `adapted` a larger Z, whose beginning is the old one: the same draw from the same data goes on.

    Raises RunError when the dataset cannot be had or has changed, UsageError when a class holds fewer images.
    """
    config, device = session.config, adapted.engine.device
    kept = f"The run keeps {count(len(adapted.pool_images) // adapted.num_classes, 'initial sample')} per class"
    session.report(Note(f"{kept}; drawing {config.samples(ipc)} from {config.dataset}."))
    train = dataset_again(
        session,
        adapted.head,
        why=f"{kept}; for {config.samples(ipc)} it needs its dataset.",
        otherwise=f"Use --ipc {adapted.pool_ipc} or less, or bring",
    )
    check_class_sizes(config, train, ipc)
    indices = draw_pool(train, config.samples(ipc), config.seed, config.allow_repeat)
    adapted.pool_images, adapted.pool_labels = train.images[indices].to(device), train.labels[indices].to(device)


def restore_pool(session: Session) -> None:
    """Draw the Z of a run that was pulled without it: the same seed, the same revision of the dataset. Raises as above."""
    head = session.run.load_label_head()
    session.report(Note(f"The run has no initial samples; drawing them from {session.config.dataset} again."))
    train = dataset_again(session, head, why="The run has no initial samples.", otherwise="Bring")
    config = session.config
    session.run.save_pool(train, draw_pool(train, head.pool_ipc or 0, config.seed, config.allow_repeat))


def dataset_again(session: Session, head: LabelHead, *, why: str, otherwise: str) -> ImageData:
    """The training images of the run's dataset. why, otherwise: the first words of the error and of its hint, without it."""
    try:
        train = load_target(session.config, session.report).train
    except DataError as error:
        raise RunError(f"{why} {error.message}", f"{otherwise} the dataset back. {error.hint}") from error
    check_same_data(head, train, session.run, session.report)
    return train
