"""A run by a method without a generator: `ddtool adapt --method dm`. Its directory is that of other runs, without generator/."""

import hashlib
import json
from dataclasses import replace

from torch import Tensor

from ddtool import methods
from ddtool.data.batches import Real
from ddtool.data.images import ImageData, SyntheticSet, draw_pool, real_images
from ddtool.errors import RunError
from ddtool.events import Note, Phase
from ddtool.pipeline.finish import finish
from ddtool.pipeline.overview import say_overview
from ddtool.pipeline.plan import check_ipcs, check_same_data
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import Problem, Session
from ddtool.pipeline.target import WHITENING, measured_problem
from ddtool.runs.facts import KnownTarget
from ddtool.runs.formats import read_tensors, write_tensors
from ddtool.runs.points import learned
from ddtool.runtime.cache import cache_root


def distil(session: Session) -> None:
    """Bring a run to its end, from wherever it stands: a set for every IPC, its score, the picture."""
    target = load_target(session.config, session.report)
    say_overview(session, target)
    session.run.save_broken(target.broken)
    check_ipcs(session.config, target.train)
    problem = described_problem(session, target.train)
    for ipc in session.config.ipc:
        if not session.run.set_path(ipc).exists():
            make_set(session, problem, ipc)
    finish(session, target)


def described_problem(session: Session, train: ImageData) -> Problem:
    """The target as networks see it, and whether flipped images keep their class: measured and recorded, or else, in a run that has
    begun, checked against what was recorded."""
    run, facts = session.run, session.run.noted().facts
    if facts.target is not None:
        check_same_data(facts.target, train, run, session.report)
        seen = replace(train, whitening=run.load_whitening())
        return Problem(Real.of(seen, session.engine), bool(facts.flip))
    problem = measured_problem(session, train)
    run.save_whitening(problem.real.data.whitening)
    known = KnownTarget(class_names=train.class_names, shape=train.shape, mean=train.mean, std=train.std)
    run.record(classes=train.num_classes, train_images=len(train), flip=problem.flip, target=known.stated())
    return problem


def make_set(session: Session, problem: Problem, ipc: int) -> None:
    """Distil the set of one IPC, and record what it took; whitening is a part of it, as of MGDD's."""
    config, run, data = session.config, session.run, problem.real.data
    rows, phase = draw_pool(data, ipc, config.seed, config.allow_repeat), Phase("distil", ipc)
    method = methods.make(
        config.method,
        task_of(session, problem, rows),
        methods.settings_of(config.method, config.baseline),
        session.rng(config.method, ipc),
    )
    initial = real_images(data, rows, problem.flip, "initial")
    initial = replace(initial, method=config.method, label_method="hard")

    def made() -> SyntheticSet:
        """The set as it stands."""
        return replace(finished(method, initial), stage=session.final_stage).scaled(config.label_scale)

    keep = session.visitor(phase, lambda loop: learned(made()))
    whitening, left = session.seconds_of([WHITENING]), session.seconds_left([WHITENING])
    spent = methods.distil(method, left, session.report, session.saver(phase), str(phase), keep)
    if method.record.learns and config.seconds is not None and spent.steps == 0:
        session.report(Note(f"The {config.seconds:g} seconds were over before the first step: raise --seconds."))
    run.save_stage(initial.scaled(config.label_scale))
    run.record_spent(ipc, spent.steps, spent.step_seconds, whitening + spent.overhead_seconds)
    if method.record.factor > 1:
        run.record(factor=method.factor)
    if facts := method.facts():
        run.record(**{str(Phase(config.method, ipc)): facts})
    run.drop_scores(ipc)  # those of a set that was here before and was lost
    run.save_final(made(), force=True)


def task_of(session: Session, problem: Problem, rows: Tensor) -> methods.Task:
    """What the method is given: the problem, and the real images at `rows` to start from (image-major)."""
    data, engine = problem.real.data, session.engine
    return methods.Task(
        real=problem.real,
        ipc=len(rows) // data.num_classes,
        rows=rows.to(engine.device),
        flip=problem.flip,
        engine=engine,
        seed=session.config.seed,
        store=ExpertStore(data),
    )


def finished(method: methods.Method, initial: SyntheticSet) -> SyntheticSet:
    """The method's result as a set of the initial one's stage."""
    images, (_, Y), record = method.pixels().cpu(), method.result(), method.record
    return replace(
        initial,
        images=images if record.learns else images.mul(255).round().div(255),  # real ones are the source's to the bit
        labels=Y.cpu(),
        label_method=method.label_method,
        factor=method.factor,
        learned_lr=method.learned_lr(),
    )


class ExpertStore:
    """What methods make once for a dataset and use again, as safetensors below the cache; a damaged file is made again."""

    def __init__(self, data: ImageData) -> None:
        seen = [data.whitening.description()] if data.whitening else []
        described = json.dumps(
            [data.source, data.shape, data.class_names, len(data), *seen], sort_keys=True, default=str
        )
        self.folder = cache_root() / "methods" / hashlib.sha256(described.encode()).hexdigest()[:16]

    def load(self, name: str) -> dict[str, Tensor] | None:
        path = self.folder / f"{name}.safetensors"
        if not path.is_file():
            return None
        try:
            return read_tensors(path)[0]
        except RunError:
            return None

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        write_tensors(self.folder / f"{name}.safetensors", tensors, {})
