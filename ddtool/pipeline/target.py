"""What is measured on a target before anything is made: whether classes survive a mirror, and whether whitening helps."""

import math
import time
from dataclasses import replace

import torch
from torch import Tensor

from ddtool.config import FitConfig, RunConfig
from ddtool.data import whitening
from ddtool.data.images import ImageData, accuracy, draw_per_class
from ddtool.data.whitening import Whitening
from ddtool.events import Done, Note, Report
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures, depth_for, pyramid
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, seeded_generator

MIRROR_KEEPS = 0.9
"""Classes survive a mirror when a head scores at least this share of its accuracy on mirrored images."""

TRIAL_IMAGES, TRIAL_HELD_OUT, TRIAL_NETWORKS = 100, 2000, 4
"""Of the trial that decides about whitening: images whose labels are fitted (at least one a class), held-out images that are
classified, networks that classify."""
GAIN = 1.0
"""Percentage points that whitening has to gain in the trial: less is not worth asking users of a set to whiten."""


def measured_target(
    config: RunConfig, train: ImageData, run: Run, engine: Engine, report: Report
) -> tuple[mgdd.Real, bool]:
    """The target as networks will see it, and whether its classes survive a mirror; both said aloud and recorded."""
    plain = mgdd.Real.of(train, engine)
    mirror = measured_mirror(config, plain, engine, report)
    started = time.perf_counter()
    fitted = chosen_whitening(config, plain, mirror, engine, report)
    engine.synchronise()
    report(Done("whitening", time.perf_counter() - started))
    run.record(whitening="none" if fitted is None else fitted.kind)
    return mgdd.Real.of(replace(plain.data, whitening=fitted), engine), mirror


def measured_mirror(config: RunConfig, real: mgdd.Real, engine: Engine, report: Report) -> bool:
    """Whether classes survive a mirror: what the configuration says, or what is measured, said aloud."""
    if config.mirror is not None:
        return config.mirror
    mirror, kept = mirror_keeps_classes(config, real, engine)
    said = f"Mirror images {'keep' if mirror else 'do not keep'} their class here ({kept:.0%} of accuracy left)."
    if math.isnan(kept):
        said = "Mirror images are not made: too few images to tell whether they keep their class (--set mirror=true has them)."
    report(Note(said))
    return mirror


@torch.no_grad()
def mirror_keeps_classes(config: RunConfig, real: mgdd.Real, engine: Engine) -> tuple[bool, float]:
    """Whether a ridge head solved on real images (at most 4,000) classifies mirrored ones about as well as upright ones, and
    the share of accuracy left; (False, nan) where the head does too little on the others to tell."""
    rng = engine.rng(config.seed, "mirror")
    rows = torch.randperm(len(real.data), generator=rng, device=engine.device)[:6000]
    fit, held = rows[: len(rows) * 2 // 3], rows[len(rows) * 2 // 3 :]
    f = RandomFeatures(real.data.shape, pyramid(64, depth_for(real.data.shape)), "none", engine, rng)
    W = mgdd.label_head(f, real, fit, config.labels.ridge)
    X, _ = real.at(held)
    y = real.data.labels[held]
    upright, mirrored = (accuracy(mgdd.analytical_labels(f, W, x), y) for x in (X, X.flip(3)))
    chance = 100 / real.data.num_classes
    noise = math.sqrt(chance * (100 - chance) / max(len(held), 1))
    if upright < chance + 3 * noise:
        return False, math.nan
    kept = mirrored / upright
    return kept >= MIRROR_KEEPS, kept


def chosen_whitening(
    config: RunConfig, plain: mgdd.Real, mirror: bool, engine: Engine, report: Report
) -> Whitening | None:
    """The whitening that the configuration names, fitted on training images; 'auto' is dct where a trial says that it helps."""
    kind = config.whitening.kind
    if kind == "none":
        return None
    fitted = fitted_whitening(config, plain, "dct" if kind == "auto" else kind, engine)
    if kind != "auto":
        return fitted
    without, with_it = (whitening_accuracy(config, plain, tried, mirror, engine) for tried in (None, fitted))
    if math.isnan(without):
        report(Note("Whitening is off: too few images of a class to tell whether it helps (--whiten dct has it)."))
        return None
    helps = with_it - without >= GAIN
    said = (
        f"{with_it:.1f} % against {without:.1f} % of held-out training images, by random real images with fitted labels"
    )
    report(Note(f"Whitening (dct) is {'on' if helps else 'off'}: {said}."))
    return fitted if helps else None


def fitted_whitening(config: RunConfig, plain: mgdd.Real, kind: str, engine: Engine) -> Whitening:
    """A whitening fitted on at most `config.whitening.images` random training images, the same ones whatever the seed of the run:
    it belongs to the dataset."""
    order = torch.randperm(len(plain.data), generator=seeded_generator("cpu", 0, "whitening"))
    rows = order[: config.whitening.images].to(engine.device)
    return whitening.fit(
        lambda part: plain.inputs.standardise(plain.data.images[part]), rows, kind, config.whitening.eps
    )


def whitening_accuracy(
    config: RunConfig, plain: mgdd.Real, fitted: Whitening | None, mirror: bool, engine: Engine
) -> float:
    """Held-out accuracy in percent with a whitening (or without): of ridge heads on random networks' features of a few real
    images, with labels fitted to them in closed form. The images and networks are the same for whatever whitening."""
    rng = engine.rng(config.seed, "whitening trial")
    order = torch.randperm(len(plain.data), generator=rng, device=rng.device)
    held = order[: min(TRIAL_HELD_OUT, len(order) // 5)]
    rest = order[len(held) :]
    seen = replace(plain.data, images=plain.data.images[rest], labels=plain.data.labels[rest], whitening=fitted)
    return trial_accuracy(config, seen, (plain.data.images[held], plain.data.labels[held]), mirror, engine)


@torch.no_grad()
def trial_accuracy(
    config: RunConfig, seen: ImageData, tests: tuple[Tensor, Tensor], mirror: bool, engine: Engine
) -> float:
    """Mean accuracy in percent on `tests` (images, labels) of heads on a few images of `seen`, as networks see them."""
    real, rng = mgdd.Real.of(seen, engine), engine.rng(config.seed, "whitening trial", "networks")
    ipc = min(max(1, TRIAL_IMAGES // seen.num_classes), int(seen.class_counts().min()))
    if ipc < 1:  # all images of a class are held out: there is nothing to try
        return math.nan
    f = RandomFeatures(seen.shape, pyramid(config.features.width, depth_for(seen.shape)), "none", engine, rng)
    X, _ = real.at(draw_per_class(seen, ipc, rng))
    fit = FitConfig(networks=2 * TRIAL_NETWORKS, mirror=mirror)
    Y = mgdd.fitted_labels(X, f, real, fit, rng)
    scores = []
    for _ in range(TRIAL_NETWORKS):
        W = mgdd.ridge_head(mgdd.in_chunks(f.draw(rng), (S := mgdd.mirrored(X, Y, mirror))[0]), S[1], fit.ridge)
        scores.append(accuracy(mgdd.in_chunks(lambda part: f(real.inputs(part)), tests[0]) @ W, tests[1]))
    return sum(scores) / len(scores)
