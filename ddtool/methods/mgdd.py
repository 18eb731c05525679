"""MGDD on one page: a meta generator for fast dataset distillation (Liu and Wang, NeurIPS 2023), and the refinement we add.

Letters are the paper's. X_t (n, c, h, w), Y_t (n, C): real images and centred one-hot labels; X_s (m, c, h, w), Y_s (m, C):
synthetic ones; f: features of a random network, (·, d); g: the generator, image to image; Z: the pool of initial samples.
Batches are drawn by `data.batches`, heads solved by `models.ridge`. Images are what networks see (`data.inputs`); every random
draw comes from the `rng` that is passed in. Shapes in a step are fixed, and a step asks nothing of the host.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddtool.config import AdaptConfig, FitConfig, MetaConfig, RefineConfig
from ddtool.data.augment import augmented_copies, turns
from ddtool.data.batches import Pool, Real, balanced_part, covering_parts, in_chunks, in_passes, usual_batch, with_flips
from ddtool.data.images import BalancedSampler, ImageData
from ddtool.data.inputs import NetworkInput
from ddtool.events import Report, silent
from ddtool.methods.record import Record, Registered, Variant
from ddtool.models.convnet import RandomFeatures
from ddtool.models.generator import Generator
from ddtool.models.ridge import ridge_head, solve_regularised
from ddtool.runtime.distributed import ALONE, Ranks
from ddtool.runtime.engine import Engine, seeded_generator
from ddtool.runtime.loop import NEVER, Deadline, Loop, Saver

WITH_COPIES = 160
"""Augmented images of S in a step, at most, where no number of copies is set."""

# ------------------------------------------------------------------------------------------------ the loss, the labels


def real_images(
    real: Real, f: RandomFeatures, config: AdaptConfig | RefineConfig, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The real batch of a step: as many images as are set, else as many as suit the classes and the features."""
    return real.batch(config.real_batch or usual_batch(real.data.num_classes, f.width), rng)


def ridge_loss(f: Callable, X_t: Tensor, Y_t: Tensor, X_s: Tensor, Y_s: Tensor, ridge: float) -> Tensor:
    """Eq. 1: the best head on the features of S, judged on the real batch; squared error summed over classes, mean over n."""
    with torch.no_grad():
        F_t = in_chunks(f, X_t)
    return (F_t @ ridge_head(f(X_s), Y_s, ridge) - Y_t).square().sum(1).mean()


def with_copies(
    X: Tensor, Y: Tensor, config: AdaptConfig | RefineConfig | FitConfig, turn: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """S as Eq. 1 sees it: its images, the same flipped left-right, and (ours) augmented copies, as many as are set, else as many as
    make up to `WITH_COPIES` images of S; each with the label of its image. turn: which of the operations come first."""
    copies = copies_of(config, len(X))
    images, labels = with_flips(X, Y, config.flip)
    if not copies:
        return images, labels
    more = augmented_copies(X, copies, turn, config.flip, rng)
    return torch.cat([images, more]), torch.cat([labels, Y.repeat(copies, 1)])


def copies_of(config: AdaptConfig | RefineConfig | FitConfig, m: int) -> int:
    """The augmented copies of each of m images."""
    return WITH_COPIES // m if config.augmented_copies is None else config.augmented_copies


def turns_of(config: AdaptConfig | RefineConfig, m: int) -> int:
    """How many steps on m images differ in the operations of their augmented copies; one kind of step where there are none."""
    whole = m <= config.synthetic_batch  # the part of a larger set may be small enough for copies
    return 1 if config.augmented_copies == 0 or (whole and not copies_of(config, m)) else turns(config.flip)


@torch.no_grad()
def label_head(
    f: Callable, real: Real, rows: Tensor, ridge: float, chunk: int = 500, enough: Deadline = NEVER
) -> Tensor:
    """Eq. 3: the head W_θ (d, C) of one fixed random network, solved on the images at `rows` in one pass.

    Features are computed in `chunk`s, of which `enough` may leave out all but the first; the sums FᵀF and FᵀY and the solve are
    float64.
    """
    FtF, FtY, seen = 0.0, 0.0, 0  # type: Tensor | float, Tensor | float, int
    for part in rows.split(chunk):
        X, Y = real.at(part)
        F = f(X)
        FtF, FtY, seen = FtF + (F.T @ F).double(), FtY + (F.T @ Y).double(), seen + len(part)
        if enough():
            break
    return solve_regularised(FtF, FtY, ridge, min(seen, len(FtF))).float()  # type: ignore


@torch.no_grad()
def analytical_labels(f: Callable, W: Tensor, X: Tensor, chunk: int = 512) -> Tensor:
    """Eq. 3: Y_s = f_θ(X_s) W_θ, (m, C)."""
    return in_chunks(f, X, chunk) @ W


@torch.no_grad()
def fitted_labels(
    X_s: Tensor,
    f: RandomFeatures,
    real: Real,
    config: FitConfig,
    rng: torch.Generator,
    most: int | None = None,
    enough: Deadline = NEVER,
) -> Tensor:
    """Ours, beyond the paper: the labels (m, C) that minimise Eq. 1, averaged over random networks, for fixed images.

    With `most`, those for steps that see a random class-balanced part of at most so many images: a network judges one part,
    and every image is in at least `SEEN` of them. `enough` may end it as soon as every image has been in one.

    The prediction of Eq. 1 is A Y_s, with A (n, m) a function of the images alone, so the best labels are one ridge
    regression: over the stacked rows of `config.networks` fresh networks, each with a fresh real batch. No steps; the
    sums AᵀA (m, m) and AᵀY_t and the solve are float64. Where every part holds one image of each class, parts of different
    images share no row: a regression for each.
    """
    m, C = len(X_s), real.data.num_classes
    most = m if most is None else most
    size = C if most < min(2 * C, m) else m  # parts of one image of each class have nothing in common
    AtA = X_s.new_zeros(m // size, size, size, dtype=torch.float64)
    AtY = X_s.new_zeros(m // size, size, C, dtype=torch.float64)
    for i, rows in enumerate(covering_parts(m, C, most, config.networks, rng), 1):
        X_t, Y_t = real.batch(max(config.real_batch, 2 * len(rows)), rng)
        quadratic, linear = normal_equations(*predictor(f.draw(rng), X_t, X_s[rows], config, i, rng), Y_t)
        if len(rows) == size:
            block = 0 if size == m else int(rows[0]) // size
            AtA[block] += quadratic
            AtY[block] += linear
        else:
            AtA[0][rows[:, None], rows] += quadratic.double()
            AtY[0][rows] += linear.double()
        del quadratic, X_t  # as large as the sums, and two copies of S, where S is large
        if enough() and i * len(rows) >= m:  # the first parts cover all images once
            break
    solved = [solve_regularised(*sums, config.shrink, size) for sums in zip(AtA, AtY, strict=True)]
    return torch.cat(solved).float()


def predictor(
    f: Callable, X_t: Tensor, X_s: Tensor, config: FitConfig, turn: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """A (n, m), what the best head on the features of S says of the real batch, per unit of each label: F_t (n, d) and W (d, m),
    whose product it is."""
    X_b, unit = with_copies(X_s, torch.eye(len(X_s), device=X_s.device), config, turn, rng)
    return in_chunks(f, X_t), ridge_head(in_chunks(f, X_b), unit, config.ridge)


def normal_equations(F_t: Tensor, W: Tensor, Y_t: Tensor) -> tuple[Tensor, Tensor]:
    """AᵀA (m, m) and AᵀY_t (m, C) for A = F_t W; with more images m than features d without A, which is the largest then."""
    d, m = W.shape
    if m > d:
        return W.T @ ((F_t.T @ F_t) @ W), W.T @ (F_t.T @ Y_t)
    A = F_t @ W
    return A.T @ A, A.T @ Y_t


# ------------------------------------------------------------------------------------------ adaptation and generation


def training_loss(
    g: Callable,
    f: RandomFeatures,
    real: Real,
    pool: Pool,
    ipc: int,
    config: AdaptConfig,
    rng: torch.Generator,
    turn: int = 0,
) -> Tensor:
    """TrainingLoss(T; ω): Eq. 1 of a generated batch in the feature space of a fresh random network."""
    X_t, Y_t = real_images(real, f, config, rng)
    X_s, Y_s = pool.batch(ipc, config.synthetic_batch, rng)
    X_s = real.inputs.bound(g(X_s))
    return ridge_loss(f.draw(rng), X_t, Y_t, *with_copies(X_s, Y_s, config, turn, rng), config.ridge)


def adapt(
    g: Generator,
    f: RandomFeatures,
    real: Real,
    pool: Pool,
    config: AdaptConfig,
    engine: Engine,
    rng: torch.Generator,
    report: Report = silent,
    saver: Saver | None = None,
    seconds: float | None = None,
    visit: Callable[[Loop], None] = lambda loop: None,
) -> None:
    """Adaptation: `config.steps` steps of g on the target (or `seconds`), in place.

    The IPC alternates between `config.seen_ipcs`. `visit`: as `Loop` says; the parameters of g are its tensors.
    """
    optimiser = engine.adam(g.parameters(), lr=config.lr, betas=config.betas)
    loop = Loop(
        "adapt", config.steps, dict(g.named_parameters()), optimiser, rng, report, saver,
        min_lr_ratio=config.min_lr_ratio, limit=seconds, captured=engine.captured(optimiser, rng), visit=visit,
    )  # fmt: skip
    run = engine.wrap(g)
    smallest = min(map(len, pool.Y_s.values()), default=1)
    losses = [
        partial(training_loss, run, f, real, pool, ipc, config, rng, turn)
        for turn in range(turns_of(config, smallest))
        for ipc in config.seen_ipcs
    ]
    for step in loop:
        loop.take(losses[step % len(losses)])


@torch.no_grad()
def generate(g: Generator, X_s: Tensor, inputs: NetworkInput, engine: Engine) -> Tensor:
    """Deployment: one pass of the adapted generator over initial samples, any number of them; pixels stay in [0, 1] where they
    are not whitened."""
    run = engine.wrap(g)
    return in_passes(lambda X: inputs.bound(run(X)), X_s)


# --------------------------------------------------------------------------------------------------------- refinement


def refinement_loss(
    X: Tensor, Y: Tensor, f: RandomFeatures, real: Real, config: RefineConfig, rng: torch.Generator, turn: int = 0
) -> Tensor:
    """Eq. 1 of the images and labels of S, or of a random part of them, in the feature space of a fresh random network."""
    X_t, Y_t = real_images(real, f, config, rng)
    f.draw(rng)
    X_b, Y_b = balanced_part(X, Y, Y.shape[1], config.synthetic_batch, rng)
    return ridge_loss(f, X_t, Y_t, *with_copies(X_b, Y_b, config, turn, rng), config.ridge)


def usual_label_rate(C: int) -> float:
    """Adam's learning rate on the labels where none is set: 3e-3, or 3e-2 / C where that is less. Adam's steps do not shrink with
    the entries of the labels, which do as there are more classes."""
    return min(3e-3, 3e-2 / C)


def refine(
    X_s: Tensor,
    Y_s: Tensor,
    f: RandomFeatures,
    real: Real,
    config: RefineConfig,
    rng: torch.Generator,
    report: Report = silent,
    saver: Saver | None = None,
    phase: str = "refine",
    seconds: float | None = None,
    visit: Callable[[Loop], None] = lambda loop: None,
) -> tuple[Tensor, Tensor]:
    """Ours, beyond the paper: `config.steps` direct steps (or `seconds`) on the pixels and labels of S under Eq. 1.

    Returns new X_s, Y_s. Pixels are projected back into [0, 1] after each step. `visit`: as `Loop` says, with the tensors X and Y.
    """
    X, Y = X_s.clone().requires_grad_(), Y_s.clone().requires_grad_()
    lr_labels = usual_label_rate(Y.shape[1]) if config.lr_labels is None else config.lr_labels
    groups = [{"params": [X], "lr": config.lr_pixels}, {"params": [Y], "lr": lr_labels}]
    optimiser = f.engine.adam(groups, betas=config.betas)
    loop = Loop(
        phase,
        config.steps,
        {"X": X, "Y": Y},
        optimiser,
        rng,
        report,
        saver,
        min_lr_ratio=config.min_lr_ratio,
        limit=seconds,
        captured=f.engine.captured(optimiser, rng),
        visit=visit,
    )
    losses = [partial(refinement_loss, X, Y, f, real, config, rng, turn) for turn in range(turns_of(config, len(X)))]
    for step in loop:
        loop.take(losses[step % len(losses)])
        with torch.no_grad():
            real.inputs.bound_(X)
    return X.detach(), Y.detach()


# ------------------------------------------------------------------------------------------------------- pre-training


def draw_task(
    data: ImageData, ipc: int, f: RandomFeatures, config: MetaConfig, rng: torch.Generator
) -> tuple[Real, Pool]:
    """The images of a task (image-major, on the device) as T, the first `ipc` of every class as Z with fitted labels.

    With no networks to fit on, labels are those of Eq. 3, f drawn afresh to be the task's θ.
    """
    C, device = data.num_classes, data.images.device
    task = Real(data, BalancedSampler(data.labels, C), data.transform)
    X_s, _ = task.at(torch.arange(ipc * C, device=device))
    if config.fit.networks:
        return task, Pool(X_s, {ipc: fitted_labels(X_s, f, task, config.fit, rng, config.task.synthetic_batch)})
    W = label_head(f.draw(rng), task, torch.arange(len(data), device=device), config.task.ridge)
    return task, Pool(X_s, {ipc: analytical_labels(f, W, X_s)})


def meta_train(
    g: Generator,
    features: dict[int, RandomFeatures],
    tasks: Callable[[torch.Generator], tuple[ImageData, int]],
    config: MetaConfig,
    engine: Engine,
    seed: int,
    report: Report = silent,
    saver: Saver | None = None,
    ranks: Ranks = ALONE,
    visit: Callable[[Loop], None] = lambda loop: None,
) -> None:
    """Pre-training: first-order MAML over `tasks` of random classes of large datasets, g changed in place.

    Meta-training takes τ inner steps on a copy ω'; meta-testing takes the gradient at ω' of `config.meta_test` further
    losses and applies it to ω. With `config.outer` 'reptile' the outer gradient is ω − ω' instead (Nichol et al., 2018).
    tasks: draws a task from a stream on the host: its images (image-major, on the device) and its IPC;
    features: a network for each number of channels. Every task has random streams of its own, one on the host and one on
    the device, so it does not matter which of the `ranks` computes it. `visit`: as `Loop` says.
    """
    outer = torch.optim.Adam(g.parameters(), lr=config.outer_lr, betas=config.outer_betas)
    loop = Loop(
        "pretrain",
        config.iterations,
        dict(g.named_parameters()),
        outer,
        None,
        report,
        saver,
        min_lr_ratio=config.min_lr_ratio,
        visit=visit,
    )
    for i in loop:
        loss = torch.zeros((), device=engine.device)
        outer.zero_grad(set_to_none=True)
        for k in ranks.share(config.meta_batch):
            host, rng = seeded_generator("cpu", seed, "task", i, k), engine.rng(seed, "inner loop", i, k)
            data, ipc = tasks(host)
            f = features[data.shape[0]]
            task, pool = draw_task(data, ipc, f, config, rng)
            loss = loss + meta_gradient(g, f, task, pool, config, engine, rng) / config.meta_batch
        loss, loop.stopping = ranks.sum_gradients(list(g.parameters()), loss, loop.asked)
        loop.apply(loss)


def meta_gradient(
    g: Generator, f: RandomFeatures, real: Real, pool: Pool, config: MetaConfig, engine: Engine, rng: torch.Generator
) -> Tensor:
    """Add one task's first-order gradient to ω's .grad; returns the loss after τ steps."""
    fast = copy.deepcopy(g)
    inner = torch.optim.Adam(fast.parameters(), lr=config.task.lr, betas=config.task.betas)
    run, (ipc,) = engine.wrap(fast), pool.Y_s
    for step in range(config.inner_steps):
        inner.zero_grad(set_to_none=True)
        training_loss(run, f, real, pool, ipc, config.task, rng, step).backward()
        inner.step()
    inner.zero_grad(set_to_none=True)
    losses = []
    for step in range(config.meta_test):  # one backward pass each: the next loss draws new weights into the same f
        loss = training_loss(run, f, real, pool, ipc, config.task, rng, config.inner_steps + step) / config.meta_test
        if config.outer == "maml":
            loss.backward()
        losses.append(loss.detach())
    for slow, quick in zip(g.parameters(), fast.parameters(), strict=True):
        gradient: Any = quick.grad if config.outer == "maml" else slow.detach() - quick.detach()
        scaled = gradient / config.meta_batch
        slow.grad = scaled if slow.grad is None else slow.grad + scaled
    return torch.stack(losses).sum()


# ---------------------------------------------------------------------------------------- for the rest of the program


class MGDD(Registered):
    """MGDD among the methods. The pipeline runs it by the functions above: adaptation, generation, labels, refinement."""

    record = Record(
        name="mgdd",
        title="MGDD (Liu and Wang, 2023)",
        paper="Liu and Wang, NeurIPS 2023",
        sections=(
            "generator",
            "architecture",
            "factor",
            "features",
            "labels",
            "adapt",
            "fit",
            "refine",
            "adapt_share",
            "animation",
        ),
        quick_settings={"features": {"width": 128}, "labels": {"images": 4000}, "fit": {"networks": 8}},
        ours=True,
        divided=True,
        has_generator=True,
        soft=True,
        min_lr_ratio=AdaptConfig.min_lr_ratio,
        stages=("initial", "generated", "refined"),
        variants=(
            Variant(name="mgdd-generator", title="MGDD, generator alone", colour="#9c5c38", marker="s"),
            Variant(name="mgdd", title="MGDD, refined", colour="#d55e00", marker="o", adapts_one_in=5),
        ),
    )
