"""Validation of a meta generator on classes that no task of its pre-training sees."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

import torch

from ddtool.config import FitConfig, PretrainConfig, Values, to_dict
from ddtool.data.batches import with_flips
from ddtool.data.images import ImageData, SyntheticSet, accuracy
from ddtool.errors import DivergedError
from ddtool.events import Event, Report, Step
from ddtool.hub import generators
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.models.generator import Generator
from ddtool.models.ridge import ridge_head
from ddtool.pretraining.folder import FIGURES, Point, Pretraining, describe
from ddtool.pretraining.tasks import LargeSet, TaskPlan, task_images, whitened
from ddtool.runs.files import staged_folder, write_json
from ddtool.runs.preview import preview
from ddtool.runtime.distributed import Ranks
from ddtool.runtime.engine import Engine, seeded_generator
from ddtool.runtime.loop import Loop

WAYS, IPC = 10, 10
"""Classes of a validation task, or as many as there are."""

FIT = FitConfig(networks=16, augmented_copies=0)
"""How the labels of a validated set are fitted before its accuracy is taken."""


class Account(TypedDict):
    """How a generator was made, for its card: plain JSON values."""

    datasets: list[Values]
    iterations: int
    weights_of_iteration: int
    tasks: int
    hardware: str
    seconds: float
    settings: Values
    curve: list[Point]


@dataclass
class Validation:
    """Judges ω on tasks of held-out classes, always the same ones; keeps the best as the generator, draws pictures."""

    run: Pretraining
    config: PretrainConfig
    g: Generator
    features: dict[int, RandomFeatures]
    sets: Sequence[LargeSet]
    engine: Engine
    ranks: Ranks
    report: Report

    def listen(self, event: Event) -> None:
        """Record an event and pass it on."""
        self.run.log(event)
        self.report(event)

    def visit(self, loop: Loop) -> None:
        """Validate when it is time and was not done before; rank 0 only. The checkpoint is kept first."""
        due = loop.step % self.config.validate_every == 0 or loop.step == loop.steps
        if not (self.ranks.main and due):
            return
        curve = self.run.curve()
        if curve and curve[-1]["iteration"] == loop.step:
            return
        loop.save()
        figures, pictures = self.measure()
        if not all(map(math.isfinite, figures)):
            hint = "Lower meta.outer_lr and meta.task.lr or raise meta.task.ridge; with bf16, try --precision fp32."
            raise DivergedError(f"The validation at iteration {loop.step} is not finite.", hint)
        path = self.run.folder / "pictures" / f"iteration-{loop.step:06}.png"
        path.parent.mkdir(exist_ok=True)
        preview(pictures, f"ddtool pretrain · held-out classes · iteration {loop.step}", path)
        before, after, reached = (round(v, 4) for v in figures)
        point: Point = {
            "iteration": loop.step, "loss before": before, "loss after": after, "accuracy": reached,
            "seconds": round(loop.seconds, 1),
        }  # fmt: skip
        self.keep([*curve, point])
        self.listen(Step("validate", loop.step, loop.steps, {name: point[name] for name in FIGURES}))

    def keep(self, curve: list[Point]) -> None:
        """The generator, when it is the best that was trained so far, and always how it came about."""
        trained = [row for row in curve if row["iteration"] > 0]
        if not trained:
            return
        best = max(trained, key=lambda row: (row["accuracy"], -row["loss after"]))
        account = self.account(curve, best["iteration"])
        if best is trained[-1]:
            with staged_folder(self.run.generator) as folder:
                self.g.save(folder)
                write_json(folder / generators.PRETRAINING, account)
        else:
            write_json(self.run.generator / generators.PRETRAINING, account)

    def account(self, curve: list[Point], best: int) -> Account:
        """How the generator was made: nothing of this machine but the name of its hardware."""
        settings = {k: v for k, v in to_dict(self.config).items() if k not in ("datasets", "data")}
        return {
            "datasets": [describe(large) for large in self.sets],
            "iterations": curve[-1]["iteration"],
            "weights_of_iteration": best,
            "tasks": curve[-1]["iteration"] * self.config.meta.meta_batch,
            "hardware": f"{self.ranks.world} x {self.engine.describe()}",
            "seconds": curve[-1]["seconds"],
            "settings": settings,
            "curve": curve,
        }

    def measure(self) -> tuple[list[float], dict[str, SyntheticSet]]:
        """Loss before and after τ steps and accuracy, means over the tasks; pictures of the first task."""
        rows, pictures = [], {}  # type: list[list[float]], dict[str, SyntheticSet]
        for k in range(self.config.validate_tasks):
            figures, shown = self.measure_task(k)
            rows.append(figures)
            pictures = pictures or shown
        return torch.tensor(rows).mean(0).tolist(), pictures

    def measure_task(self, k: int) -> tuple[list[float], dict[str, SyntheticSet]]:
        """The three figures of one task, and what is seen of it."""
        engine, seed, task = self.engine, self.config.seed, self.config.meta.task
        data, plan = self.held_out_task(k)
        f, fit = self.features[data.shape[0]], len(data) * 4 // 5 // data.num_classes * data.num_classes
        seen = whitened(data.head(fit), self.config.meta)
        real, pool = mgdd.draw_task(seen, plan.ipc, f, self.config.meta, engine.rng(seed, "validate task", k))
        task = replace(task, seen_ipcs=(plan.ipc,))

        @torch.no_grad()
        def loss(g: Generator) -> float:
            rng, run = engine.rng(seed, "validate loss", k), engine.wrap(g)
            losses = [mgdd.training_loss(run, f, real, pool, plan.ipc, task, rng) for _ in range(4)]
            return torch.stack(losses).mean().item()

        def adapted(steps: int, min_lr_ratio: float) -> Generator:
            g, rng = copy.deepcopy(self.g), engine.rng(seed, "validate adapt", k)
            mgdd.adapt(g, f, real, pool, replace(task, steps=steps, min_lr_ratio=min_lr_ratio), engine, rng)
            return g

        before, after = loss(self.g), loss(adapted(self.config.meta.inner_steps, 1.0))
        final = adapted(self.config.validate_steps, task.min_lr_ratio)
        made = {
            "initial": pool.X_s,
            "generated": mgdd.generate(self.g, pool.X_s, real.inputs, engine),
            "adapted": mgdd.generate(final, pool.X_s, real.inputs, engine),
        }
        X, y = real.inputs(data.images[fit:]), data.labels[fit:]
        fit_labels = replace(FIT, ridge=task.ridge, flip=task.flip)
        Y_s = mgdd.fitted_labels(made["adapted"], f, real, fit_labels, engine.rng(seed, "validate labels", k))
        S = with_flips(made["adapted"], Y_s, task.flip)
        rng, scores = engine.rng(seed, "validate accuracy", k), []
        with torch.no_grad():
            for _ in range(4):
                W = ridge_head(f.draw(rng)(S[0]), S[1], task.ridge)
                scores.append(accuracy(mgdd.analytical_labels(f, W, X), y))
        shown = {
            stage: SyntheticSet(
                real.inputs.inverse(X_s).cpu(), pool.Y_s[plan.ipc].cpu(), data.labels[: len(X_s)].cpu(), plan.ipc,
                data.class_names, data.mean, data.std, stage=stage, source=data.source,
            )
            for stage, X_s in made.items()
        }  # fmt: skip
        return [before, after, sum(scores) / len(scores)], shown

    def held_out_task(self, k: int) -> tuple[ImageData, TaskPlan]:
        """Images of one task of held-out classes as they are, a quarter more than a task has, and what it is made of."""
        large, meta = self.sets[k % len(self.sets)], self.config.meta
        rng = seeded_generator("cpu", self.config.seed, "validate", k)
        order = torch.randperm(len(large.held), generator=rng)[:WAYS].tolist()
        classes, per_class = [large.held[i] for i in order], meta.label_images * 5 // 4
        plan = TaskPlan(large, classes, min(IPC, meta.ipc[1]), per_class, grey=False, flip=False, colour=None)
        return task_images(plan, rng, self.engine.device), plan
