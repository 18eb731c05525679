"""A run by a method of the field: `ddtool adapt --method dm`. Its directory is that of MGDD's runs, without a generator."""

import hashlib
import json
from dataclasses import replace

from torch import Tensor

from ddtool import methods
from ddtool.config import RunConfig
from ddtool.data.batches import Real
from ddtool.data.images import ImageData, SyntheticSet, draw_pool, real_images
from ddtool.errors import RunError
from ddtool.events import Report, silent
from ddtool.pipeline import adapt as pipeline
from ddtool.pipeline.scoring import load_target, score_run
from ddtool.pipeline.target import measured_target
from ddtool.runs.formats import read_tensors, write_tensors
from ddtool.runs.run import Run
from ddtool.runtime.cache import cache_root
from ddtool.runtime.engine import Engine

STAGE = "distilled"
DESCRIBED = ("class_names", "shape", "mean", "std")
"""What is kept of the target, to notice when it has changed."""


def distil(config: RunConfig, run: Run, engine: Engine, report: Report = silent) -> None:
    """Bring `run` to its end, from wherever it stands: a set for every IPC, its score, the picture."""
    target = load_target(config, report)
    run.save_broken(target.broken)
    pipeline.check_ipcs(config, target.train)
    real, mirror = describe_target(config, target.train, run, engine, report)
    for ipc in config.ipc:
        if not run.set_path(ipc).exists():
            make_set(config, ipc, real, mirror, run, engine, report)
    pipeline.record_peak(run, engine)
    pipeline.draw_preview(run, max(config.ipc))
    score_run(config, run, target, engine, report)
    pipeline.finish(run)


def describe_target(config: RunConfig, train: ImageData, run: Run, engine: Engine, report: Report) -> tuple[Real, bool]:
    """Record what the target is, or check that it is still the same; returns it as networks see it, and whether its classes
    survive a mirror."""
    facts = run.results()["facts"]
    if "target" in facts:
        pipeline.check_same_data(facts["target"], train, run)
        return Real.of(replace(train, whitening=run.load_whitening()), engine), bool(facts["mirror"])
    real, mirror = measured_target(config, train, run, engine, report)
    run.save_whitening(real.data.whitening)
    described = {name: list(getattr(train, name)) for name in DESCRIBED}
    run.record(classes=train.num_classes, train_images=len(train), mirror=mirror, target=described)
    return real, mirror


def make_set(config: RunConfig, ipc: int, real: Real, mirror: bool, run: Run, engine: Engine, report: Report) -> None:
    """Distil the set of one IPC, and record what it took."""
    rows = draw_pool(real.data, ipc, config.seed)
    task = methods.Task(real, ipc, rows.to(engine.device), mirror, engine, config.seed, ExpertStore(real.data))
    settings = methods.settings_of(config.method, config.baseline)
    phase = f"distil ipc{ipc}"
    method = methods.find(config.method)(task, settings, engine.rng(config.seed, config.method, ipc))
    spent = methods.distil(method, config.seconds, report, run.saver(phase.replace(" ", "-")), phase)
    initial = replace(real_images(real.data, rows, mirror, "initial"), method=config.method, label_method="hard")
    run.save_stage(initial.scaled(config.label_scale))
    run.record_spent(ipc, spent.steps, spent.step_seconds, spent.outside_seconds)
    if type(method).factor > 1:
        run.record(factor=method.factor)
    if facts := method.facts():
        run.record(**{f"{config.method} ipc{ipc}": facts})
    run.save_final(finished(method, initial).scaled(config.label_scale), force=True)


def finished(method: methods.Method, initial: SyntheticSet) -> SyntheticSet:
    """The method's result as a set."""
    images, (_, Y) = method.pixels().cpu(), method.result()
    return replace(
        initial,
        images=images if method.learns else images.mul(255).round().div(255),  # real ones are the source's to the bit
        labels=Y.cpu(),
        stage=STAGE,
        label_method="learned" if method.soft else "hard",
        factor=method.factor,
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
