"""What is measured on a target first: whether images flipped left-right keep their class, and whether whitening helps."""

import math
from dataclasses import replace

import torch
from torch import Tensor

from ddtool.config import FitConfig
from ddtool.data import whitening
from ddtool.data.batches import Real, in_chunks, with_flips
from ddtool.data.images import ImageData, accuracy, draw_per_class
from ddtool.data.whitening import Whitening
from ddtool.events import Note, Phase
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.models.ridge import ridge_head
from ddtool.pipeline.session import Problem, Session
from ddtool.runtime.engine import seeded_generator

FLIP_KEEPS, FLIP_WIDTH = 0.9, 64
"""Images keep their class when flipped if a head keeps at least this share of its accuracy on flipped ones; how wide the network
is whose features it takes."""

TRIAL_IMAGES, TRIAL_HELD_OUT, TRIAL_NETWORKS, TRIAL_WIDTH = 100, 2000, 4, 128
"""What the trial that decides about whitening takes: images whose labels are fitted (at least one a class), held-out images that
are classified, networks that classify, and how wide these are at most."""
GAIN, GAIN_SHARE = 1.0, 0.03
"""What whitening has to gain in the trial: percentage points, or this share of the accuracy where that is less, as of many classes.
Less is not worth asking users of a set to whiten."""

WHITENING = Phase("whitening")
"""The trial that decides about whitening, and its fit: a part of what a set takes, whatever the method."""


def measured_problem(session: Session, train: ImageData) -> Problem:
    """The target as networks will see it, and whether flipped images keep their class; both said aloud and recorded."""
    plain = Real.of(train, session.engine)
    problem = Problem(plain, measured_flip(session, plain))
    with session.timed(WHITENING):
        fitted = chosen_whitening(session, problem)
    session.run.record(whitening="none" if fitted is None else fitted.kind)
    return replace(problem, real=Real.of(replace(plain.data, whitening=fitted), session.engine))


def measured_flip(session: Session, real: Real) -> bool:
    """Whether flipped images keep their class: what the configuration says, or what is measured, said aloud."""
    if session.config.flip is not None:
        return session.config.flip
    flip, kept = flip_keeps_classes(session, real)
    session.report(Note(_flips_in_words(flip, kept)))
    return flip


def _flips_in_words(flip: bool, kept: float) -> str:
    """What was found about flipped images, for people; kept: the share of accuracy left on them, nan where it says nothing."""
    if math.isnan(kept):
        return "There are too few images to tell whether flipping them left-right keeps their class, so it is off (--flip: on)."
    if flip:
        return (
            f"Images flipped left-right show the same here ({kept:.0%} of accuracy left on them), so they are used too."
        )
    return f"Flipping images left-right changes what they show here ({kept:.0%} of accuracy left), so it is off."


@torch.no_grad()
def flip_keeps_classes(session: Session, real: Real) -> tuple[bool, float]:
    """Whether a ridge head solved on real images (at most 4,000) classifies flipped ones about as well as upright ones, and
    the share of accuracy left; (False, nan) where the head does too little on the others to tell."""
    rng = session.rng("mirror")
    rows = torch.randperm(len(real.data), generator=rng, device=rng.device)[:6000]
    fit, held = rows[: len(rows) * 2 // 3], rows[len(rows) * 2 // 3 :]
    f = RandomFeatures.doubling(real.data.shape, FLIP_WIDTH, "none", session.engine, rng)
    W = mgdd.label_head(f, real, fit, session.config.labels.ridge)
    X, _ = real.at(held)
    y = real.data.labels[held]
    upright, flipped = (accuracy(mgdd.analytical_labels(f, W, x), y) for x in (X, X.flip(3)))
    chance = 100 / real.data.num_classes
    noise = math.sqrt(chance * (100 - chance) / max(len(held), 1))
    if upright < chance + 3 * noise:
        return False, math.nan
    kept = flipped / upright
    return kept >= FLIP_KEEPS, kept


def chosen_whitening(session: Session, plain: Problem) -> Whitening | None:
    """The whitening that the configuration names, fitted on training images; 'auto' is dct where a trial says that it helps."""
    kind = session.config.whitening.kind
    if kind == "none":
        return None
    fitted = fitted_whitening(session, plain.real, "dct" if kind == "auto" else kind)
    if kind != "auto":
        return fitted
    without, with_it = (whitening_accuracy(session, plain, tried) for tried in (None, fitted))
    if math.isnan(without):
        said = "Whitening is off: too few images of a class to tell whether it helps (--whiten dct has it)."
        session.report(Note(said))
        return None
    helps = is_worth_it(without, with_it)
    said = (
        f"{with_it:.1f} % against {without:.1f} % of held-out training images, by random real images with fitted labels"
    )
    session.report(Note(f"Whitening (dct) is {'on' if helps else 'off'}: {said}."))
    return fitted if helps else None


def is_worth_it(without: float, with_it: float) -> bool:
    """Whether the trial's accuracies, in percent, without and with whitening are far enough apart."""
    return with_it - without >= min(GAIN, GAIN_SHARE * without)


def fitted_whitening(session: Session, plain: Real, kind: str) -> Whitening:
    """A whitening fitted on at most `whitening.images` random training images, the same ones whatever the seed of the run: it
    belongs to the dataset."""
    settings = session.config.whitening
    order = torch.randperm(len(plain.data), generator=seeded_generator("cpu", 0, "whitening"))
    rows = order[: settings.images].to(session.engine.device)
    return whitening.fit(lambda part: plain.inputs.standardise(plain.data.at(part)), rows, kind, settings.eps)


def whitening_accuracy(session: Session, plain: Problem, fitted: Whitening | None) -> float:
    """Held-out accuracy in percent with a whitening (or without): of ridge heads on random networks' features of a few real
    images, with labels fitted to them in closed form. The images and networks are the same for whatever whitening."""
    rng, data = session.rng("whitening trial"), plain.real.data
    order = torch.randperm(len(data), generator=rng, device=rng.device)
    held = order[: min(TRIAL_HELD_OUT, len(order) // 5)]
    rest = order[len(held) :]
    seen = Real.of(replace(data, whitening=fitted), session.engine).among(rest)
    return trial_accuracy(session, Problem(seen, plain.flip), rest, (data.at(held), data.labels[held]))


@torch.no_grad()
def trial_accuracy(session: Session, problem: Problem, rest: Tensor, tests: tuple[Tensor, Tensor]) -> float:
    """Mean accuracy in percent on `tests` (images, labels) of heads on a few images of the problem, of those at `rest`, as networks
    see them."""
    real, flip, seen = problem.real, problem.flip, problem.real.data
    rng = session.rng("whitening trial", "networks")
    ipc = min(max(1, TRIAL_IMAGES // seen.num_classes), int(real.sampler.counts.min()))
    if ipc < 1:  # all images of a class are held out: there is nothing to try
        return math.nan
    width = min(session.config.features.width, TRIAL_WIDTH)
    f = RandomFeatures.doubling(seen.shape, width, "none", session.engine, rng)
    X, _ = real.at(draw_per_class(seen, ipc, rng, among=rest))
    fit = FitConfig(networks=2 * TRIAL_NETWORKS, flip=flip, augmented_copies=0)
    Y = mgdd.fitted_labels(X, f, real, fit, rng)
    scores = []
    for _ in range(TRIAL_NETWORKS):
        W = ridge_head(in_chunks(f.draw(rng), (S := with_flips(X, Y, flip))[0]), S[1], fit.ridge)
        scores.append(accuracy(in_chunks(lambda part: f(real.inputs(part)), tests[0]) @ W, tests[1]))
    return sum(scores) / len(scores)
