"""A run with a generator: the order of its stages. Each one that is finished is a file of the run, and is not made again."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from ddtool.config import AdaptConfig
from ddtool.data.batches import Pool
from ddtool.data.images import ImageData, SyntheticSet, draw_pool
from ddtool.events import Note, Phase, Report
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.pipeline.finish import finish
from ddtool.pipeline.generate import Adapted, fit_labels, problem_of, synthesise, write_stages
from ddtool.pipeline.networks import fixed_features, load_generator, load_labels, pretraining_seconds
from ddtool.pipeline.overview import say_overview
from ddtool.pipeline.plan import check_held, check_ipcs, check_same_data, pool_size
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import JudgedProblem, Session
from ddtool.pipeline.speed import real_batch
from ddtool.pipeline.target import WHITENING, measured_problem
from ddtool.runs.film import Film
from ddtool.runs.formats import LabelHead
from ddtool.runs.points import learned
from ddtool.runtime.loop import Deadline, Loop
from ddtool.text import count

LABELS_SHARE = 0.5
"""How much of what is left of a budget in seconds the labels may take each time that labels are found, at most."""
GENERATOR_SHARE = 0.9
"""How much of what the labels leave of a budget in seconds goes to adaptation when nothing is refined: the rest is for fitting."""

ADAPT, LABELS, POOL_LABELS = Phase("adapt"), Phase("labels"), Phase("pool labels")


def adapt(session: Session) -> None:
    """Bring a run to its end, from wherever it stands: labels and pool, adaptation, a set for every IPC, scores, picture."""
    started = time.perf_counter()
    config, run = session.config, session.run
    target = load_target(config, session.report)
    say_overview(session, target)
    run.save_broken(target.broken)
    check_ipcs(config, target.train)
    check_held(target.train, session.engine)
    missing = [ipc for ipc in config.ipc if not has_set(session, ipc)]
    if begins := not run.has("generator/labels.safetensors"):
        prepare(session, target.train)
    head = run.load_label_head()
    check_same_data(head, target.train, run, session.report)
    problem = problem_of(session, target.train, head)
    if not run.has_generator():
        adapt_generator(session, problem)
    adapted = Adapted.load(run, session.engine)
    for ipc in missing:
        make_set(session, problem, *synthesise(session, adapted, ipc))
    if missing and begins:  # of several sittings the last alone would be counted
        run.record_seconds("adapt command, until the sets were written", round(time.perf_counter() - started, 1))
    finish(session, target)


def has_set(session: Session, ipc: int) -> bool:
    """Whether the run has the set that its configuration asks for: `ddtool generate` leaves one that is not refined."""
    return session.run.set_path(ipc).exists() and session.run.load_set(ipc).stage == session.final_stage


# ------------------------------------------------------------------------------------------------------------- seconds


def phases(ipc: int) -> list[Phase]:
    """The phases whose seconds a set takes, in their order."""
    alone = [WHITENING, LABELS, POOL_LABELS, ADAPT]
    return [*alone, *(Phase(kind, ipc) for kind in ("generate", "fit labels", "refine"))]


def seconds_left(session: Session, phase: Phase) -> float | None:
    """What the phases before `phase` leave of a budget in seconds; None when steps are counted.

    Its own seconds and later ones, which an earlier attempt may have logged, are not counted.
    """
    order = phases(phase.ipc or session.config.ipc[0])
    return session.seconds_left(order[: order.index(phase)])


def deadline(session: Session, phase: Phase, share: float) -> Deadline:
    """The end of a phase that may take a share of what is left of a budget in seconds; none when steps are counted."""
    left = seconds_left(session, phase)
    return Deadline(None if left is None else left * share, session.engine.synchronise)


def record_spent(session: Session, ipc: int) -> None:
    """Record what the set of one IPC took, by the events that were logged."""
    steps, stepping = session.run.steps(), (ADAPT, Phase("refine", ipc))
    overhead = session.seconds_of(phase for phase in phases(ipc) if phase not in stepping)
    taken = sum(steps.get(str(phase), 0) for phase in stepping)
    session.run.record_spent(ipc, taken, session.seconds_of(stepping), overhead)


# -------------------------------------------------------------------------------------------------------------- stages


def prepare(session: Session, train: ImageData) -> None:
    """Find out what the target is like (`measured_problem`), draw Z, solve W_θ (Eq. 3); keep all of it in the run."""
    config, run, engine = session.config, session.run, session.engine
    problem = measured_problem(session, train)
    real, data = problem.real, problem.real.data
    with session.timed(LABELS):
        pool_ipc = pool_size(config, data)
        indices = draw_pool(data, pool_ipc, config.seed, config.allow_repeat)
        rng = session.rng("labels")
        f = fixed_features(data.shape, config.labels.width, engine, rng)
        rows = torch.randperm(len(data), generator=rng, device=rng.device)[: config.labels.images]
        W = mgdd.label_head(f, real, rows, config.labels.ridge, enough=deadline(session, LABELS, LABELS_SHARE))
    run.save_pool(data, indices)
    run.record(classes=data.num_classes, train_images=len(data), flip=problem.flip, pool_ipc=pool_ipc)
    if config.factor > 1:
        run.record(factor=config.factor)
    head = LabelHead(
        theta=dict(f.net.body.state_dict()),
        W=W,
        class_names=data.class_names,
        mean=data.mean,
        std=data.std,
        shape=data.shape,
        label_width=config.labels.width,
        flip=problem.flip,
        pool_ipc=pool_ipc,
        source=data.source,
        whitening=data.whitening,
    )
    run.save_label_head(head)


def adapt_generator(session: Session, problem: JudgedProblem) -> None:
    """The adaptation stage; leaves generator/ in the run."""
    config, run, data = session.config, session.run, problem.real.data
    batch = real_batch(config.adapt, config, data.num_classes)
    settings = replace(config.adapt, flip=config.adapt.flip and problem.flip, real_batch=batch)
    if not config.allow_repeat:
        settings = feasible(settings, config.ipc, data, session.report, config.factor)
    settings = replace(settings, seen_ipcs=settings.seen_ipcs or config.ipc)
    generator = session.engine.place(load_generator(config))
    pool = pool_of(session, problem, settings)
    if (cost := pretraining_seconds(config)) is not None:
        run.record(pretraining_seconds=cost)
    left = seconds_left(session, ADAPT)
    share = config.adapt_share if config.refine.steps else GENERATOR_SHARE
    mgdd.adapt(
        generator,
        problem.features,
        problem.real,
        pool,
        settings,
        session.engine,
        rng=session.rng("adapt"),
        report=session.report,
        saver=session.saver(ADAPT),
        seconds=None if left is None else left * share,
        visit=session.visitor(ADAPT, lambda loop: loop.tensors),
    )
    run.save_generator(generator)
    session.saver(POOL_LABELS).drop()


def feasible(
    settings: AdaptConfig, ipcs: Sequence[int], data: ImageData, report: Report, factor: int = 1
) -> AdaptConfig:
    """The settings with seen IPCs (by default `ipcs`) that the classes of this target can fill, said aloud when they change."""
    held = int(data.class_counts().min())
    most = held // factor**2
    settings = replace(settings, seen_ipcs=settings.seen_ipcs or tuple(ipcs))
    seen = tuple(dict.fromkeys(min(ipc, most) for ipc in settings.seen_ipcs))
    if set(seen) != set(settings.seen_ipcs):
        enough = f", and each image of a set takes {factor**2}" if factor > 1 else ""
        said = f"the smallest class holds {count(held, 'image')}{enough}"
        report(Note(f"Adaptation sees IPC {', '.join(map(str, seen))}: {said}."))
    return replace(settings, seen_ipcs=seen)


def pool_of(session: Session, problem: JudgedProblem, settings: AdaptConfig) -> Pool:
    """Z as adaptation sees it: as many initial samples as it needs, with labels where there are steps to take. The labels are kept
    for a resumption of the run."""
    f, head = load_labels(session.run, session.engine)
    images, _ = session.run.load_pool(head.class_names)
    most = session.config.samples(max(settings.seen_ipcs))
    seen = images[: most * problem.real.data.num_classes].to(session.engine.device)
    X, saver = problem.real.inputs.start(seen), session.saver(POOL_LABELS)
    if not settings.steps and session.config.seconds is None:
        return Pool(X, {})
    if (kept := saver.load()) is not None:
        return Pool(X, {ipc: kept[str(ipc)].to(X.device) for ipc in settings.seen_ipcs})
    with session.timed(POOL_LABELS):
        pool = labelled_pool(session, problem, settings, X, (f, head.W))
    saver.save({str(ipc): labels.cpu() for ipc, labels in pool.Y_s.items()})
    return pool


def labelled_pool(
    session: Session, problem: JudgedProblem, settings: AdaptConfig, X: Tensor, head: tuple[RandomFeatures, Tensor]
) -> Pool:
    """Z with labels for every IPC that adaptation sees: fitted to the images, or with no networks to fit on, Eq. 3 of `head`."""
    config, real = session.config, problem.real
    first = {ipc: X[: config.samples(ipc) * real.data.num_classes] for ipc in settings.seen_ipcs}
    if config.fit.networks == 0:
        return Pool(X, {ipc: mgdd.analytical_labels(*head, part) for ipc, part in first.items()})
    fit, most = replace(config.fit, flip=config.fit.flip and settings.flip), settings.synthetic_batch
    rngs = {ipc: session.rng("pool labels", ipc) for ipc in first}
    fitted, share = {}, LABELS_SHARE / len(first)
    for ipc, part in first.items():
        enough = deadline(session, POOL_LABELS, share)
        fitted[ipc] = mgdd.fitted_labels(part, problem.features, real, fit, rngs[ipc], most, enough)
    return Pool(X, fitted)


def make_set(session: Session, problem: JudgedProblem, initial: SyntheticSet, generated: SyntheticSet) -> None:
    """Fit labels to a generated set, refine it, and write it with its stages."""
    phase, share = Phase("fit labels", generated.ipc), LABELS_SHARE if session.config.refine.steps else 1.0
    generated = fit_labels(session, problem, generated, deadline(session, phase, share))
    final = refine(session, problem, generated)
    record_spent(session, initial.ipc)
    session.run.drop_scores(initial.ipc)  # those of a set that was here before and was lost
    write_stages(session, initial, generated, final)


def refine(session: Session, problem: JudgedProblem, generated: SyntheticSet) -> SyntheticSet:
    """The refined set, or the generated one when the configuration asks for no refinement."""
    config, real = session.config, problem.real
    if config.refine.steps == 0:
        return generated
    phase, generated = Phase("refine", generated.ipc), generated.to(session.engine.device)
    seconds = seconds_left(session, phase)
    if seconds == 0:
        note = f"The {config.seconds:g} seconds were over before refinement began: raise --seconds."
        session.report(Note(note))
    batch = max(config.refine.synthetic_batch, generated.num_classes)
    whole = generated.decoded()
    film = Film(session.run, generated) if config.animation and generated.ipc == max(config.ipc) else None

    def made(X: Tensor, Y: Tensor) -> SyntheticSet:
        """The set of refined inputs and labels."""
        images = real.inputs.stored(X.detach())
        return replace(generated, images=images, labels=Y.detach(), stage="refined", label_method="learned")

    def visit(loop: Loop) -> None:
        if film and not loop.ended and film.wants(loop.done):
            film.keep(loop.done, real.inputs.stored(loop.tensors["X"].detach()))
        keep(loop)

    keep = session.visitor(phase, lambda loop: learned(made(**loop.tensors).scaled(config.label_scale)))
    X, Y = mgdd.refine(
        real.inputs(whole.images),
        whole.labels,
        problem.features,
        real,
        replace(
            config.refine,
            flip=config.refine.flip and problem.flip,
            synthetic_batch=batch,
            real_batch=real_batch(config.refine, config, real.data.num_classes),
        ),
        rng=session.rng(str(phase)),
        report=session.report,
        saver=session.saver(phase),
        phase=str(phase),
        seconds=seconds,
        visit=visit,
    )
    refined = made(X, Y)
    if film:
        film.write(refined)
    return refined
