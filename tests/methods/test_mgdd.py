"""The method: every equation against an independent computation, every loop against itself resumed."""

import copy
import os
import signal
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddtool.config import AdaptConfig, FitConfig, MetaConfig, RefineConfig
from ddtool.data.augment import augmented_copies
from ddtool.data.batches import Pool, Real, balanced_part, covering_parts, in_passes, usual_batch, with_flips
from ddtool.data.images import ImageData, draw_per_class
from ddtool.errors import DivergedError
from ddtool.events import Event, Step, silent
from ddtool.methods import mgdd
from ddtool.methods.mgdd import (
    adapt,
    analytical_labels,
    draw_task,
    fitted_labels,
    generate,
    label_head,
    meta_gradient,
    meta_train,
    refine,
    refinement_loss,
    ridge_loss,
    training_loss,
    turns_of,
    with_copies,
)
from ddtool.models.convnet import RandomFeatures
from ddtool.models.generator import GAIN, Generator, GeneratorConfig
from ddtool.models.ridge import ridge_head, solve_regularised
from ddtool.pretraining.tasks import LargeSet, plan_task, task_images, task_source, whitened
from ddtool.runtime.engine import Engine, seeded_generator
from ddtool.runtime.loop import Deadline
from ddtool.runtime.signals import Interrupted

ADAPT = AdaptConfig(
    steps=30, lr=3e-3, real_batch=64, seen_ipcs=(1, 2), ridge=1e-2, flip=False, augmented_copies=0
)  # fmt: skip
REFINE = RefineConfig(steps=20, real_batch=64, ridge=1e-2, flip=False, augmented_copies=0)
META = MetaConfig(
    iterations=6, meta_batch=1, inner_steps=1, ways=(3, 3), ipc=(2, 2), label_images=8, grey=0.0, flip=False, jitter=0.0,
    whitening="none", fit=FitConfig(networks=0),
    task=replace(ADAPT, real_batch=12),
)  # fmt: skip


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def real(toy: ImageData, engine: Engine) -> Real:
    return Real.of(toy, engine)


@pytest.fixture
def held(toy_test: ImageData, engine: Engine) -> Real:
    """Images that no training has seen."""
    return Real.of(toy_test, engine)


@pytest.fixture
def f(engine: Engine) -> RandomFeatures:
    return RandomFeatures((3, 16, 16), (8, 16), "none", engine, rng(11))


@pytest.fixture
def pool(real: Real, engine: Engine) -> Pool:
    """2 initial samples per class with analytical labels."""
    theta = RandomFeatures((3, 16, 16), (16, 16), "none", engine, rng(12))
    X = real.inputs(real.data.images[draw_per_class(real.data, 2, rng(13))])
    Y = analytical_labels(theta, label_head(theta, real, torch.arange(160), 1e-2), X)
    return Pool(X, {1: Y[:4], 2: Y})


def labels(pool: Pool) -> Tensor:
    """Y_s of all of its images."""
    return pool.Y_s[max(pool.Y_s)]


def new_generator(engine: Engine, seed: int = 0, shake: float = 0.0) -> Generator:
    """A tiny generator; `shake` moves every weight away from the start, where most gradients are zero."""
    g = engine.place(Generator.build(GeneratorConfig(slots=8, side=16), seed))
    with torch.no_grad():
        for i, (name, p) in enumerate(g.named_parameters()):
            p.add_(torch.randn(p.shape, generator=rng(100 + i)), alpha=shake / (GAIN if name == "values" else 1))
    return g


def flat(tensors: Any) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


class Losses:
    """A listener that keeps the reported losses."""

    def __init__(self, then: Callable[[Event], None] = silent) -> None:
        self.values: list[float] = []
        self.then = then

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self.values.append(event.values["loss"])
        self.then(event)


# ---------------------------------------------------------------------------------------------------- ridge regression


def random_problem(m: int, d: int, C: int, seed: int) -> tuple[Tensor, Tensor]:
    stream = rng(seed)
    return (
        torch.randn(m, d, generator=stream, dtype=torch.float64),
        torch.randn(m, C, generator=stream, dtype=torch.float64),
    )


@pytest.mark.parametrize(("m", "d"), [(3, 7), (7, 3), (5, 5), (1, 4), (4, 1)])
def test_ridge_head_is_the_closed_form(m: int, d: int, svd_head: Callable) -> None:
    F, Y = random_problem(m, d, 3, 0)
    c = 0.1 * sum(float(v) ** 2 for v in F.flatten()) / min(m, d)
    W = ridge_head(F, Y, 0.1)
    feature_form = torch.linalg.inv(F.T @ F + c * torch.eye(d, dtype=F.dtype)) @ F.T @ Y
    kernel_form = F.T @ torch.linalg.inv(F @ F.T + c * torch.eye(m, dtype=F.dtype)) @ Y
    for expected in (feature_form, kernel_form, svd_head(F, Y, 0.1)):
        assert torch.allclose(W, expected, rtol=1e-9, atol=1e-11)


SHAPES = {"m": st.integers(1, 12), "d": st.integers(1, 12), "C": st.integers(1, 4), "seed": st.integers(0, 10**6)}
RIDGES = st.floats(-5, 1).map(lambda e: 10**e)


@given(**SHAPES, ridge=RIDGES)
def test_ridge_head_is_least_squares_on_the_augmented_system(m: int, d: int, C: int, seed: int, ridge: float) -> None:
    F, Y = random_problem(m, d, C, seed)
    c = ridge * float(F.square().sum()) / min(m, d)
    augmented = torch.cat([F, c**0.5 * torch.eye(d, dtype=torch.float64)])
    expected = torch.linalg.lstsq(augmented, torch.cat([Y, torch.zeros(d, C, dtype=torch.float64)])).solution
    assert torch.allclose(ridge_head(F, Y, ridge), expected, rtol=1e-6, atol=1e-8)


@given(**SHAPES, ridge=RIDGES, exponent=st.integers(-6, 6))
def test_predictions_do_not_depend_on_the_scale_of_features(
    m: int, d: int, C: int, seed: int, ridge: float, exponent: int
) -> None:
    F, Y = random_problem(m, d, C, seed)
    big = F * 10.0**exponent
    assert torch.allclose(big @ ridge_head(big, Y, ridge), F @ ridge_head(F, Y, ridge), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("m", "d"), [(40, 200), (200, 40)])
def test_ridge_head_in_float32(m: int, d: int, svd_head: Callable) -> None:
    F, Y = random_problem(m, d, 10, 0)
    W = ridge_head(F.float(), Y.float(), 1e-3)
    assert W.dtype == torch.float32
    assert (W - svd_head(F, Y, 1e-3)).norm() / W.norm() < 1e-3


def smooth_features(d: int) -> Callable[[Tensor], Tensor]:
    """Differentiable float64 features of 1x2x3 images."""
    A = torch.randn(6, d, generator=rng(1), dtype=torch.float64)
    return lambda x: torch.tanh(x.flatten(1) @ A)


def small_sets(m: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    stream = rng(2)
    shapes = ((5, 1, 2, 3), (5, 3), (m, 1, 2, 3), (m, 3))
    X_t, Y_t, X_s, Y_s = (torch.randn(shape, generator=stream, dtype=torch.float64) for shape in shapes)
    return X_t, Y_t, X_s, Y_s


@pytest.mark.parametrize(("m", "d"), [(3, 5), (5, 3)])
def test_gradient_of_the_loss(m: int, d: int) -> None:
    f, (X_t, Y_t, X_s, Y_s) = smooth_features(d), small_sets(m)
    inputs = (X_s.requires_grad_(), Y_s.requires_grad_())
    assert torch.autograd.gradcheck(lambda x, y: ridge_loss(f, X_t, Y_t, x, y, 0.1), inputs)


@pytest.mark.parametrize(("m", "d"), [(3, 5), (5, 3)])
def test_loss_is_equation_1(m: int, d: int) -> None:
    f, (X_t, Y_t, X_s, Y_s) = smooth_features(d), small_sets(m)
    F_t, F_s = f(X_t).numpy(), f(X_s).numpy()
    K = F_s @ F_s.T
    shift = 0.1 * np.trace(K) / min(m, d)
    predictions = F_t @ F_s.T @ np.linalg.inv(K + shift * np.eye(m)) @ Y_s.numpy()
    total = 0.0
    for row in range(5):
        for c in range(3):
            total += (predictions[row, c] - float(Y_t[row, c])) ** 2
    assert ridge_loss(f, X_t, Y_t, X_s, Y_s, 0.1).item() == pytest.approx(total / 5, rel=1e-10)


def test_an_indefinite_system_gives_nan_not_an_exception() -> None:
    A = torch.diag(torch.tensor([1.0, -3.0, 1.0]))
    assert solve_regularised(A, torch.ones(3, 2), 1e-3, 3).isnan().all()
    features = torch.tensor([[1.0, float("nan")], [0.0, 1.0]], requires_grad=True)
    loss = ridge_loss(lambda x: x, torch.ones(2, 2), torch.ones(2, 2), features, torch.ones(2, 2), 1e-3)
    assert loss.isnan()
    loss.backward()


# --------------------------------------------------------------------------------------- real data, analytical labels


def test_real_batches_are_balanced_normalised_and_centred(real: Real, toy: ImageData) -> None:
    X, Y = real.batch(22, rng())
    assert X.shape == (20, 3, 16, 16)
    assert torch.allclose(Y.sum(0), torch.zeros(4), atol=1e-6)
    X, Y = real.at(torch.tensor([5, 0]))
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (toy.mean, toy.std))
    assert torch.allclose(X * std + mean, toy.images[[5, 0]] / 255, atol=1e-6)
    assert (Y + 0.25).argmax(1).tolist() == toy.labels[[5, 0]].tolist()
    assert Y.sum(1).tolist() == pytest.approx([0, 0])


def test_pool_batch_is_the_first_of_every_class(pool: Pool, real: Real) -> None:
    wide = Pool(torch.arange(12.0), {2: torch.arange(8.0)[:, None].expand(8, 4)})
    X, Y = wide.batch(2, 8, rng())
    assert X.tolist() == Y[:, 0].tolist() == list(range(8))
    assert torch.equal(pool.batch(2, 1000, rng())[0], pool.X_s)
    parts = [wide.batch(2, 7, rng(seed))[0].tolist() for seed in range(20)]
    assert {tuple(p) for p in parts} == {(0, 1, 2, 3), (4, 5, 6, 7)}  # of the first two rounds, one


@pytest.mark.parametrize("rows", [torch.arange(160), torch.arange(159, 20, -2), torch.arange(9)], ids=len)
def test_label_head_is_ridge_regression_on_its_rows(
    real: Real, f: RandomFeatures, rows: Tensor, svd_head: Callable
) -> None:
    X, Y = real.at(rows)
    expected = svd_head(f(X), Y, 1e-2)
    for chunk in (7, 64, 1000):
        W = label_head(f, real, rows, 1e-2, chunk)
        assert W.dtype == torch.float32
        assert (W - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("n", [30, 160])
def test_labels_are_equation_3_in_its_kernel_form(n: int, real: Real, engine: Engine) -> None:
    """On both sides of d = 64 features."""
    f = RandomFeatures((3, 16, 16), (4, 4), "none", engine, rng())
    rows, X_s = torch.arange(n), real.at(torch.arange(100, 120))[0]
    X_t, Y_t = real.at(rows)
    F_t, F_s = f(X_t).double(), f(X_s).double()
    assert F_t.shape[1] == 64
    K = F_t @ F_t.T
    shift = 1e-2 * K.trace() / min(n, 64)
    expected = F_s @ F_t.T @ torch.linalg.inv(K + shift * torch.eye(n)) @ Y_t.double()
    Y_s = analytical_labels(f, label_head(f, real, rows, 1e-2), X_s, chunk=6)
    assert torch.allclose(Y_s.double(), expected, rtol=1e-3, atol=1e-4)
    assert Y_s.sum(1).abs().max() < 1e-3  # of centred labels


def test_analytical_labels_tell_the_class(real: Real, held: Real, f: RandomFeatures) -> None:
    W = label_head(f, real, torch.arange(160), 1e-1)
    X, _ = held.at(torch.arange(200))
    Y = analytical_labels(f, W, X)
    assert (Y.argmax(1) == held.data.labels).float().mean() > 0.6  # chance is 0.25
    assert not Y.requires_grad


FIT = FitConfig(networks=3, real_batch=40, ridge=1e-2, shrink=1e-2, flip=False, augmented_copies=0)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize(
    ("rows", "n", "most"),
    [
        (12, 40, None),
        (32, 64, None),
        (32, 64, 99),
        (32, 40, 19),
        (80, 160, None),
    ],  # two real images for each that a network judges
)
@pytest.mark.parametrize("widths", [(8, 16), (4, 4)], ids=["features", "fewer features than images"])
def test_fitted_labels_are_least_squares_over_all_networks(
    rows: int, n: int, most: int | None, flip: bool, widths: tuple[int, int], real: Real, engine: Engine
) -> None:
    """One float64 system of the stacked predictions, each in its kernel form, solved by SVD; images that a network does not
    see are columns of zeros."""
    f = RandomFeatures((3, 16, 16), widths, "none", engine, rng(11))
    X = real.at(torch.arange(rows))[0]
    stream, predictions, targets = rng(5), [], []
    parts = [torch.arange(rows)] * 3
    if most == 19:  # 4 of the 8 images of every class, four times all of them
        orders = [torch.randperm(8, generator=stream) for _ in range(4)]
        parts = [(4 * half[:, None] + torch.arange(4)).flatten() for order in orders for half in (order[:4], order[4:])]
    for part in parts:
        X_t, Y_t = real.batch(n, stream)
        f.draw(stream)
        X_b, k = X[part], len(part)
        F_t, F_s = f(X_t).double(), f(torch.cat([X_b, X_b.flip(3)]) if flip else X_b).double()
        K = F_s @ F_s.T
        A = F_t @ F_s.T @ torch.linalg.inv(K + 1e-2 * K.trace() / min(F_s.shape) * torch.eye(len(K)))
        prediction = torch.zeros(len(X_t), rows, dtype=torch.float64)
        prediction[:, part] = A[:, :k] + A[:, k:] if flip else A
        predictions.append(prediction)
        targets.append(Y_t.double())
    A, Y_t = torch.cat(predictions), torch.cat(targets)
    shift = 1e-2 * A.square().sum() / rows
    system = torch.cat([A, shift.sqrt() * torch.eye(rows)]), torch.cat([Y_t, torch.zeros(rows, 4)])
    expected = torch.linalg.lstsq(*system, driver="gelsd").solution
    fitted = fitted_labels(X, f, real, replace(FIT, flip=flip), rng(5), most)
    assert fitted.shape == (rows, 4)
    assert fitted.dtype == torch.float32
    assert (fitted - expected).norm() / expected.norm() < 1e-3


@pytest.mark.parametrize("most", [1, 3, 7, 8, 12, 15, 16, 29, 30, 31])
@pytest.mark.parametrize("parts", [0, 1, 4, 30])
def test_parts_cover_all_images(most: int, parts: int) -> None:
    """10 images of each of 3 classes: no image twice in a part, none left out, all about as often."""
    found = covering_parts(30, 3, most, parts, rng(1))
    assert len(found) >= parts
    assert len({len(rows) for rows in found}) <= 1
    images = max(1, most // 3) if most < 30 else 10
    for rows in found:
        assert len(rows) == 3 * images
        assert torch.equal(rows % 3, torch.arange(3).repeat(images))
        assert len(set(rows.tolist())) == len(rows)
    if most >= 30:
        assert len(found) == parts
    else:
        times = torch.bincount(torch.cat(found), minlength=30)
        assert times.min() >= 4
        assert times.max() <= 2 * times.min()
        assert not torch.equal(found[0], covering_parts(30, 3, most, parts, rng(2))[0])


def test_labels_of_parts_leave_no_image_without_one(real: Real, f: RandomFeatures) -> None:
    X = real.at(torch.arange(160))[0]
    Y = fitted_labels(X, f, real, replace(FIT, networks=1), rng(1), 8)
    assert (Y.norm(dim=1) > 1e-3).all()


class After(Deadline):
    """A deadline that is over after so many parts."""

    def __init__(self, parts: int) -> None:
        super().__init__(1.0)
        self.parts = parts

    def __call__(self) -> bool:
        self.parts -= 1
        return self.parts <= 0


def test_a_deadline_leaves_fewer_networks_to_fit_the_labels_on(real: Real, f: RandomFeatures, pool: Pool) -> None:
    many, few = replace(FIT, networks=50), replace(FIT, networks=3)
    ended = fitted_labels(pool.X_s, f, real, many, rng(1), enough=After(3))
    assert torch.equal(ended, fitted_labels(pool.X_s, f, real, few, rng(1)))
    at_least = fitted_labels(pool.X_s, f, real, many, rng(1), enough=After(0))
    assert torch.equal(at_least, fitted_labels(pool.X_s, f, real, replace(FIT, networks=1), rng(1)))


def test_a_deadline_leaves_no_image_without_a_label(real: Real, f: RandomFeatures) -> None:
    X = real.at(torch.arange(160))[0]
    seen: list[int] = []
    monitored = RandomFeatures((3, 16, 16), (8, 16), "none", Engine(torch.device("cpu"), False), rng(11))
    draw = monitored.draw
    monitored.draw = lambda rng: (seen.append(1), draw(rng))[1]  # type: ignore[method-assign]
    Y = fitted_labels(X, monitored, real, replace(FIT, networks=1000), rng(1), 8, After(0))
    assert len(seen) == 160 // 8  # the parts that cover all of them once, out of a thousand
    assert (Y.norm(dim=1) > 1e-3).all()


def test_a_deadline_leaves_fewer_images_for_the_label_head(real: Real, f: RandomFeatures) -> None:
    rows = torch.arange(160)
    ended = label_head(f, real, rows, 1e-2, chunk=30, enough=After(2))
    assert torch.equal(ended, label_head(f, real, rows[:60], 1e-2, chunk=30))
    assert torch.equal(label_head(f, real, rows, 1e-2, 30, After(0)), label_head(f, real, rows[:30], 1e-2))


def test_the_real_images_of_a_network_are_gone_when_the_next_are_drawn(
    real: Real, f: RandomFeatures, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are the most of what a fit of labels holds of images."""
    drawn: list[weakref.ref[Tensor]] = []
    batch = Real.batch

    def watched(self: Real, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        assert [one for one in drawn if one() is not None] == []
        X, Y = batch(self, n, rng)
        drawn.append(weakref.ref(X))
        return X, Y

    monkeypatch.setattr(Real, "batch", watched)
    fitted_labels(pool.X_s, f, real, replace(FIT, networks=3), rng(1))
    assert len(drawn) == 3


def test_fitted_labels_beat_analytical_ones_on_unseen_images(
    held: Real, real: Real, f: RandomFeatures, pool: Pool
) -> None:
    Y = fitted_labels(pool.X_s, f, real, replace(FIT, networks=20), rng(1))
    assert judged(f, held, pool.X_s, Y) < 0.98 * judged(f, held, pool.X_s, labels(pool))
    assert not Y.requires_grad


# ------------------------------------------------------------------------------------------ adaptation and generation


def test_training_loss_is_equation_1_of_the_generated_batch(
    real: Real, f: RandomFeatures, pool: Pool, engine: Engine
) -> None:
    g, config = new_generator(engine, shake=0.3), replace(ADAPT, flip=True)
    loss = training_loss(g, f, real, pool, 1, config, rng(5))
    stream = rng(5)
    X_t, Y_t = real.batch(64, stream)
    mean, std = real.inputs.mean, real.inputs.std
    pixels = g(pool.X_s[:4]) * std + mean
    assert pixels.min() < 0
    assert pixels.max() > 1
    X = (pixels.clamp(0, 1) - mean) / std
    X = torch.cat([X, X[:, :, :, torch.arange(15, -1, -1)]])
    Y = torch.cat([labels(pool)[:4], labels(pool)[:4]])
    f.draw(stream)
    F_s = f(X)
    predictions = f(X_t) @ F_s.T @ torch.linalg.inv(F_s @ F_s.T + 1e-2 * (F_s @ F_s.T).trace() / 8 * torch.eye(8)) @ Y
    assert loss.item() == pytest.approx((predictions - Y_t).square().sum(1).mean().item(), rel=1e-3)


def test_flips_are_added() -> None:
    X, Y = torch.randn(2, 3, 4, 5, generator=rng()), torch.eye(2)
    assert with_flips(X, Y, False) == (X, Y)
    X2, Y2 = with_flips(X, Y, True)
    assert torch.equal(X2[:2], X)
    assert torch.equal(X2[3, 1, 2], X[1, 1, 2, [4, 3, 2, 1, 0]])
    assert torch.equal(Y2, torch.cat([Y, Y]))


def average_loss(g: Callable, f: RandomFeatures, real: Real, pool: Pool, ipc: int) -> float:
    """The training loss over 16 fixed networks and batches."""
    stream = rng(99)
    with torch.no_grad():
        return sum(training_loss(g, f, real, pool, ipc, ADAPT, stream).item() for _ in range(16)) / 16


def test_adaptation_lowers_the_loss(real: Real, held: Real, f: RandomFeatures, pool: Pool, engine: Engine) -> None:
    g = new_generator(engine)
    before = [average_loss(g, f, data, pool, ipc) for data in (real, held) for ipc in (1, 2)]
    adapt(g, f, real, pool, ADAPT, engine, rng(1))
    after = [average_loss(g, f, data, pool, ipc) for data in (real, held) for ipc in (1, 2)]
    assert all(b < 0.93 * a for a, b in zip(before, after, strict=True)), (before, after)


def test_adaptation_sees_the_given_ipcs_in_turn_and_a_fresh_network_in_each_step(
    real: Real, f: RandomFeatures, pool: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, heads, draw, batch = [], [], RandomFeatures.draw, Pool.batch
    monkeypatch.setattr(Pool, "batch", lambda self, ipc, *rest: seen.append(ipc) or batch(self, ipc, *rest))

    def spy(self: RandomFeatures, stream: torch.Generator) -> RandomFeatures:
        drawn = draw(self, stream)
        heads.append(flat(self.net.body.parameters()).tolist())
        return drawn

    monkeypatch.setattr(RandomFeatures, "draw", spy)
    adapt(new_generator(engine), f, real, pool, replace(ADAPT, steps=5, seen_ipcs=(2, 1)), engine, rng())
    assert seen == [2, 1, 2, 1, 2]
    assert len({tuple(h) for h in heads}) == 5


def test_adaptation_uses_its_optimiser_settings(real: Real, f: RandomFeatures, pool: Pool, engine: Engine) -> None:
    """Adam's first step moves each weight with a gradient by the learning rate; the next follows from its moments."""
    g, config = new_generator(engine, shake=0.1), replace(ADAPT, steps=2, betas=(0.7, 0.8), lr=1e-3, min_lr_ratio=0.5)
    expected, stream = copy.deepcopy(g), rng(3)
    m = v = torch.zeros(len(flat(g.parameters())))
    for step, lr in enumerate((1e-3, 0.75e-3), 1):
        loss = training_loss(expected, f, real, pool, step, config, stream)
        gradient = flat(torch.autograd.grad(loss, list(expected.parameters())))
        m, v = 0.7 * m + 0.3 * gradient, 0.8 * v + 0.2 * gradient**2
        change = -lr * (m / (1 - 0.7**step)) / ((v / (1 - 0.8**step)).sqrt() + 1e-8)
        with torch.no_grad():
            for p, delta in zip(expected.parameters(), change.split([p.numel() for p in g.parameters()]), strict=True):
                p.add_(delta.view(p.shape))
    adapt(g, f, real, pool, config, engine, rng(3))
    error = (flat(g.parameters()) - flat(expected.parameters())).abs()
    assert (error < 1e-6).float().mean() > 0.99  # a few gradients are rounding errors, of either sign


ADAPT_LOSSES = [0.588405, 0.510155, 0.628166, 0.600645, 0.564334]
REFINE_LOSSES = [0.493687, 0.489136, 0.637195, 0.607651, 0.514243]


def test_adaptation_golden_losses(real: Real, f: RandomFeatures, pool: Pool, engine: Engine) -> None:
    config, losses = replace(ADAPT, steps=5, lr=2e-3, flip=True), Losses()
    adapt(new_generator(engine, shake=0.1), f, real, pool, config, engine, rng(1), losses)
    assert losses.values == pytest.approx(ADAPT_LOSSES, rel=1e-4)


def test_refinement_golden_losses(real: Real, f: RandomFeatures, pool: Pool) -> None:
    losses = Losses()
    refine(pool.X_s, labels(pool), f, real, replace(REFINE, steps=5, flip=True), rng(1), losses)
    assert losses.values == pytest.approx(REFINE_LOSSES, rel=1e-4)


def test_adaptation_follows_from_the_seed(
    real: Real, f: RandomFeatures, pool: Pool, engine: Engine, untouched_global_rng: None
) -> None:
    def adapted(seed: int) -> Tensor:
        g = new_generator(engine)
        adapt(g, f, real, pool, replace(ADAPT, steps=3), engine, rng(seed))
        return flat(g.parameters())

    assert torch.equal(adapted(1), adapted(1))
    assert not torch.equal(adapted(1), adapted(2))


def test_divergence_is_an_error(real: Real, f: RandomFeatures, pool: Pool, engine: Engine) -> None:
    broken = Pool(pool.X_s, {ipc: Y * float("nan") for ipc, Y in pool.Y_s.items()})
    with pytest.raises(DivergedError, match="phase 'adapt' is not finite at step 1"):
        adapt(new_generator(engine), f, real, broken, ADAPT, engine, rng())


def test_generation_is_one_pass_with_pixels_in_range(pool: Pool, real: Real, engine: Engine) -> None:
    g = new_generator(engine, shake=0.3)
    X = torch.cat([pool.X_s, -pool.X_s, pool.X_s / 2])
    out = generate(g, X, real.inputs, engine)
    mean, std = real.inputs.mean, real.inputs.std
    raw = g(X).detach() * std + mean
    assert raw.min() < 0
    assert raw.max() > 1
    assert torch.allclose(out * std + mean, raw.clamp(0, 1), atol=1e-5)
    assert not out.requires_grad
    for n in (1, 5, 24, 100):
        assert torch.equal(generate(g, X[:n], real.inputs, engine), out[:n])  # whatever else is made with it
        assert torch.allclose(in_passes(lambda part: real.inputs.bound(g(part)), X, n), out, atol=1e-5)


# --------------------------------------------------------------------------------------------------------- refinement


def judged(f: RandomFeatures, data: Real, X: Tensor, Y: Tensor) -> float:
    """Eq. 1 on 200 images over 16 fixed networks."""
    stream = rng(98)
    with torch.no_grad():
        return sum(ridge_loss(f.draw(stream), *data.batch(200, stream), X, Y, 1e-2).item() for _ in range(16)) / 16


def test_refinement_lowers_the_loss_on_unseen_images(held: Real, real: Real, f: RandomFeatures, pool: Pool) -> None:
    given_X, given_Y = pool.X_s.clone(), labels(pool).clone()
    X, Y = refine(pool.X_s, labels(pool), f, real, REFINE, rng(1))
    before, after = judged(f, held, given_X, given_Y), judged(f, held, X, Y)
    assert after < 0.9 * before
    assert judged(f, held, X, given_Y) < 0.95 * before  # the pixels have learned
    assert not torch.equal(Y, given_Y)
    assert not X.requires_grad
    assert not Y.requires_grad
    assert torch.equal(pool.X_s, given_X)
    assert torch.equal(labels(pool), given_Y)


def test_learned_labels_help(held: Real, real: Real, f: RandomFeatures, pool: Pool) -> None:
    config = replace(REFINE, lr_pixels=0.0, lr_labels=1e-2, steps=40)
    X, Y = refine(pool.X_s, labels(pool), f, real, config, rng(1))
    assert torch.equal(X, real.inputs.bound(pool.X_s))
    assert judged(f, held, X, Y) < judged(f, held, pool.X_s, labels(pool))


def test_the_learning_rate_of_labels_is_as_set_or_shrinks_with_the_classes(
    real: Real, f: RandomFeatures, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [mgdd.usual_label_rate(C) for C in (2, 10, 100, 1000)] == pytest.approx([3e-3, 3e-3, 3e-4, 3e-5])
    monkeypatch.setattr(mgdd, "usual_label_rate", lambda C: C / 10_000)
    start = labels(pool)

    def after_one_step(rate: float | None) -> Tensor:
        return refine(pool.X_s, start, f, real, replace(REFINE, steps=1, lr_labels=rate), rng(1))[1] - start

    assert after_one_step(None).abs().mean() == pytest.approx(
        start.shape[1] / 10_000, rel=0.1
    )  # Adam's first step is its learning rate
    assert after_one_step(1e-3).abs().mean() == pytest.approx(1e-3, rel=0.1)
    assert not after_one_step(0.0).any()


def test_a_usual_batch_has_ten_images_of_each_class_or_two_a_channel_or_256_in_all(
    real: Real, f: RandomFeatures, engine: Engine
) -> None:
    assert [usual_batch(C, 128) for C in (2, 25, 26, 100, 1000)] == [256, 256, 260, 1000, 2000]
    assert [usual_batch(10, width) for width in (16, 256, 512)] == [256, 512, 1024]
    wide = RandomFeatures((3, 16, 16), (4, 200), "none", engine, rng())
    unset = replace(REFINE, real_batch=None)
    assert [len(mgdd.real_images(real, g, unset, rng())[0]) for g in (f, wide)] == [256, 400]
    assert len(mgdd.real_images(real, wide, replace(REFINE, real_batch=8), rng())[0]) == 8


def test_refined_pixels_stay_in_range(real: Real, f: RandomFeatures, pool: Pool) -> None:
    mean, std = real.inputs.mean, real.inputs.std
    black_and_white = ((pool.X_s > 0).float() - mean) / std
    X, _ = refine(black_and_white, labels(pool), f, real, replace(REFINE, steps=5, lr_pixels=0.2), rng(1))
    pixels = X * std + mean
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    moved = (X - black_and_white).abs() > 0.05
    assert 0.2 < moved.float().mean() < 0.8  # about half want out, and stay


def test_balanced_part() -> None:
    C, n = 3, 7
    X, Y = torch.arange(C * n), torch.arange(C * n)[:, None].expand(-1, C)
    drawn = set()
    for seed in range(50):
        X_b, Y_b = balanced_part(X, Y, C, 8, rng(seed))
        assert torch.equal(X_b, Y_b[:, 0])  # images keep their labels
        assert len(set(X_b.tolist())) == 6
        assert torch.bincount(X_b % C).tolist() == [2, 2, 2]
        drawn |= set(X_b.tolist())
    assert drawn == set(range(C * n))
    assert not torch.equal(balanced_part(X, Y, C, 6, rng(1))[0], balanced_part(X, Y, C, 6, rng(2))[0])
    for most, rows in ((20, 18), (21, 21), (22, 21), (3, 3), (2, 3), (1, 3)):
        assert len(balanced_part(X, Y, C, most, rng())[0]) == rows
    assert torch.equal(balanced_part(X, Y, C, 21, rng())[0], X)


def test_adaptation_keeps_to_its_synthetic_batch(
    real: Real, f: RandomFeatures, pool: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes, loss = [], mgdd.ridge_loss
    monkeypatch.setattr(mgdd, "ridge_loss", lambda *a: sizes.append(len(a[3])) or loss(*a))
    config = replace(ADAPT, steps=4, synthetic_batch=6)
    adapt(new_generator(engine), f, real, pool, config, engine, rng())
    assert sizes == [4, 4, 4, 4]
    adapt(new_generator(engine), f, real, pool, replace(config, synthetic_batch=8), engine, rng())
    assert sizes[4:] == [4, 8, 4, 8]


@pytest.mark.parametrize(("limit", "rows"), [(15, 12), (12, 12), (4, 4), (3, 4), (16, 16), (1000, 16)])
def test_refinement_takes_balanced_parts_of_a_large_set(
    limit: int, rows: int, real: Real, f: RandomFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4 images of 4 classes: as many whole rounds of classes as the limit allows, and at least one."""
    labels = torch.eye(4).repeat(4, 1)
    X_s = real.inputs(real.data.images[draw_per_class(real.data, 4, rng())])
    batches: list[tuple[Tensor, Tensor]] = []
    loss = mgdd.ridge_loss

    def spy(f: Any, X_t: Tensor, Y_t: Tensor, X: Tensor, Y: Tensor, ridge: float) -> Tensor:
        batches.append((X.detach().clone(), Y.detach().clone()))
        return loss(f, X_t, Y_t, X, Y, ridge)

    monkeypatch.setattr(mgdd, "ridge_loss", spy)
    config = replace(REFINE, steps=12, synthetic_batch=limit, lr_labels=1e-5, lr_pixels=0.1)
    X, _ = refine(X_s, labels, f, real, config, rng(1))
    for X_b, Y_b in batches:
        assert len(X_b) == len(Y_b) == rows
        assert torch.bincount(Y_b.argmax(1), minlength=4).tolist() == [rows // 4] * 4
    assert ((X - X_s).abs().amax((1, 2, 3)) > 0.01).all()  # every image has had its turn


def test_refinement_follows_from_the_seed(
    real: Real, f: RandomFeatures, pool: Pool, untouched_global_rng: None
) -> None:
    config = replace(REFINE, steps=3, synthetic_batch=4)
    a, b, c = (flat(refine(pool.X_s, labels(pool), f, real, config, rng(seed))) for seed in (1, 1, 2))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)


def test_grey_images_go_the_same_way(grey_toy: ImageData, engine: Engine) -> None:
    """Adaptation, generation and refinement of 1-channel images lower the loss, and grey stays grey."""
    real = Real.of(grey_toy, engine)
    f = RandomFeatures(grey_toy.shape, (8, 16), "none", engine, rng(11))
    X = real.inputs(grey_toy.images[draw_per_class(grey_toy, 2, rng())])
    Y = analytical_labels(f, label_head(f, real, torch.arange(160), 1e-2), X)
    pool = Pool(X, {1: Y[:4], 2: Y})
    g = new_generator(engine)
    adapt(g, f, real, pool, ADAPT, engine, rng(1))
    generated = generate(g, X, real.inputs, engine)
    X_s, Y_s = refine(generated, labels(pool), f, real, replace(REFINE, steps=40), rng(1))
    losses = [judged(f, real, x, y) for x, y in ((X, labels(pool)), (generated, labels(pool)), (X_s, Y_s))]
    assert X_s.shape == (8, 1, 16, 16)
    assert losses[1] < 0.97 * losses[0]
    assert losses[2] < 0.95 * losses[1]


# -------------------------------------------------------------------------------------------------------------- resume


PHASES = ["adapt", "refine", "pretrain"]


class World:
    """One phase of six steps on the toy data, from a start and a random stream that `seed` decides."""

    def __init__(self, phase: str, real: Real, pool: Pool, engine: Engine) -> None:
        self.phase, self.real, self.pool, self.engine = phase, real, pool, engine

    def run(self, seed: int, report: Callable[[Event], None] = silent, saver: Any = None) -> Tensor:
        f = RandomFeatures((3, 16, 16), (4, 8), "none", self.engine, rng(seed))
        g, stream = new_generator(self.engine, seed), rng(seed)
        if self.phase == "adapt":
            adapt(g, f, self.real, self.pool, replace(ADAPT, steps=6), self.engine, stream, report, saver)
        elif self.phase == "pretrain":
            large = LargeSet.of(self.real.data, 0, 8, 0)
            meta_train(g, {3: f}, task_source([large], META, self.engine.device), META, self.engine, 7, report, saver)
        else:
            start = self.pool.X_s + seed
            config = replace(REFINE, steps=6, synthetic_batch=4)
            return flat(refine(start, labels(self.pool) - seed, f, self.real, config, stream, report, saver))
        return flat(g.parameters())


@pytest.mark.parametrize("phase", PHASES)
def test_six_steps_are_three_and_three(
    phase: str, real: Real, pool: Pool, engine: Engine, saver: Any, interrupt_at: Callable
) -> None:
    """Bit for bit; the second half starts elsewhere in every way, so that the checkpoint must hold all that counts."""
    world, whole, first, second = World(phase, real, pool, engine), Losses(), Losses(interrupt_at(3)), Losses()
    expected = world.run(0, whole)
    with pytest.raises(Interrupted):
        world.run(0, first, saver)
    assert int(saver.kept["step"]) == 3
    assert torch.equal(world.run(1, second, saver), expected)
    assert not torch.equal(world.run(1), expected)
    assert (len(first.values), len(second.values)) == (3, 3)
    assert first.values + second.values == whole.values


@pytest.mark.parametrize("phase", PHASES)
def test_phases_have_their_names_and_schedules(
    phase: str, real: Real, pool: Pool, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, int, float]] = []
    original = mgdd.Loop

    def spy(name: str, steps: int, *arguments: Any, min_lr_ratio: float, **limit: Any) -> Any:
        made.append((name, steps, min_lr_ratio))
        return original(name, steps, *arguments, min_lr_ratio=min_lr_ratio, **limit)

    monkeypatch.setattr(mgdd, "Loop", spy)
    World(phase, real, pool, engine).run(0)
    name = phase.split(",")[0]
    ratio = {"adapt": ADAPT, "refine": REFINE, "pretrain": META}[name].min_lr_ratio
    assert made == [(name, 6, ratio)]
    assert ADAPT.min_lr_ratio != META.min_lr_ratio != REFINE.min_lr_ratio


@pytest.mark.parametrize("phase", PHASES)
def test_a_crash_goes_on_from_the_last_checkpoint(
    phase: str, real: Real, pool: Pool, engine: Engine, saver: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in the fourth step, long after the checkpoint of the second."""
    world = World(phase, real, pool, engine)
    expected = world.run(0)
    original = mgdd.Loop

    def every_other_step(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **options, checkpoint_seconds=0.0)

    monkeypatch.setattr(mgdd, "Loop", every_other_step)

    class Crash(Exception):
        pass

    def crash(event: Event) -> None:
        if isinstance(event, Step) and event.step == 4:
            raise Crash

    with pytest.raises(Crash):
        world.run(0, crash, saver)
    assert int(saver.kept["step"]) == 3
    assert torch.equal(world.run(1, saver=saver), expected)


def test_ctrl_c_inside_a_step_waits_for_its_end(
    real: Real, pool: Pool, engine: Engine, saver: Any, monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    world, calls, loss = World("refine", real, pool, engine), [], mgdd.ridge_loss

    def press(*arguments: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*arguments)

    expected = world.run(0)
    monkeypatch.setattr(mgdd, "ridge_loss", press)
    with pytest.raises(Interrupted):
        world.run(0, saver=saver)
    assert int(saver.kept["step"]) == 2
    assert torch.equal(world.run(1, saver=saver), expected)


# -------------------------------------------------------------------------------------------------------- pre-training


@pytest.fixture
def coded() -> LargeSet:
    """6 classes of 5 to 10 images of 1x8x8, tasks see 1, 3, 4, 5; pixel 0 tells the class (x 40), the rest is noise."""
    labels = torch.cat([torch.full((5 + c,), c) for c in range(6)])[torch.randperm(45, generator=rng(3))]
    images = torch.randint(0, 256, (45, 1, 8, 8), generator=rng(4)).to(torch.uint8)
    images[:, 0, 0, 0] = (labels * 40).to(torch.uint8)
    whole = LargeSet.of(ImageData(images, labels, tuple("uvwxyz"), (0.5,), (0.3,)), 0, 1, 0)
    return replace(whole, train=[1, 3, 4, 5], held=[0, 2])


@pytest.fixture
def coded_f(engine: Engine) -> RandomFeatures:
    return RandomFeatures((1, 8, 8), (6,), "none", engine, rng())


def some_task(coded: LargeSet, f: RandomFeatures, config: MetaConfig, host: Any, stream: Any) -> tuple[Real, Pool]:
    """A task, drawn as `meta_train` draws it."""
    plan = plan_task([coded], config, host)
    data = whitened(task_images(plan, host, torch.device("cpu")), config)
    return draw_task(data, plan.ipc, f, config, stream)


def test_task_is_of_the_given_classes_with_labels_of_its_own(
    coded: LargeSet, coded_f: RandomFeatures, svd_head: Callable, untouched_global_rng: None
) -> None:
    used: set[int] = set()
    for seed in range(20):
        task, pool = some_task(coded, coded_f, META, rng(seed), rng(seed))
        codes = task.data.images[:, 0, 0, 0].long() // 40
        ways = [codes[task.data.labels == label].unique().tolist() for label in range(3)]
        assert all(len(w) == 1 for w in ways)  # a label is one class
        chosen = [w[0] for w in ways]
        assert len(set(chosen)) == 3
        assert task.data.class_names == tuple("uvwxyz"[c] for c in chosen)
        n = min(8, *(5 + c for c in chosen))  # as many as the smallest class has
        assert task.data.class_counts().tolist() == [n] * 3
        X, Y = task.at(torch.arange(3 * n))
        assert torch.equal(pool.X_s, X[:6])  # image-major
        expected = coded_f(X[:6]).double() @ svd_head(coded_f(X), Y, META.task.ridge)
        assert torch.allclose(labels(pool).double(), expected, rtol=1e-3, atol=1e-3)
        X_t, Y_t = task.batch(9, rng(seed))
        back = ((X_t[:, 0, 0, 0] * 0.3 + 0.5) * 255).round().long() // 40
        assert back.tolist() == [chosen[k] for k in Y_t.argmax(1)] == [c for c in chosen for _ in range(3)]
        used |= set(chosen)
    assert used == {1, 3, 4, 5}


def test_every_task_has_its_own_theta(coded: LargeSet, coded_f: RandomFeatures) -> None:
    one, other = (some_task(coded, coded_f, META, rng(1), rng(seed))[1] for seed in (1, 2))
    assert torch.equal(one.X_s, other.X_s)
    assert not torch.allclose(labels(one), labels(other), atol=1e-3)


def test_labels_of_a_task_are_fitted_to_its_images_in_its_own_data(coded: LargeSet, coded_f: RandomFeatures) -> None:
    config = replace(META, fit=replace(FIT, real_batch=12))
    task, pool = some_task(coded, coded_f, config, rng(1), rng(2))
    assert torch.equal(labels(pool), fitted_labels(pool.X_s, coded_f, task, config.fit, rng(2)))
    assert not torch.allclose(labels(pool), labels(some_task(coded, coded_f, META, rng(1), rng(2))[1]), atol=1e-2)


class Outer:
    """What the outer update needs, built twice alike: for our code and for the direct computation."""

    def __init__(self, coded: LargeSet, f: RandomFeatures, engine: Engine, **settings: Any) -> None:
        self.config = replace(META, **settings)
        self.f, self.engine, self.g = f, engine, new_generator(engine, shake=0.1)
        self.task, self.pool = some_task(coded, f, self.config, rng(8), rng(8))

    def loss(self, g: Callable, stream: torch.Generator) -> Tensor:
        return training_loss(g, self.f, self.task, self.pool, 2, self.config.task, stream)

    def inner(self, stream: torch.Generator) -> Generator:
        """ω' after the inner steps, by Adam's formulas."""
        fast, (b1, b2) = copy.deepcopy(self.g), self.config.task.betas
        parameters = list(fast.parameters())
        m = v = torch.zeros(len(flat(parameters)))
        for step in range(1, self.config.inner_steps + 1):
            gradient = flat(torch.autograd.grad(self.loss(fast, stream), parameters))
            m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
            change = self.config.task.lr * (m / (1 - b1**step)) / ((v / (1 - b2**step)).sqrt() + 1e-8)
            with torch.no_grad():
                for p, delta in zip(parameters, change.split([p.numel() for p in parameters]), strict=True):
                    p.sub_(delta.view(p.shape))
        return fast

    def ours(self, stream: torch.Generator) -> tuple[Tensor, Tensor]:
        start = flat(self.g.parameters())
        loss = meta_gradient(self.g, self.f, self.task, self.pool, self.config, self.engine, stream)
        assert torch.equal(flat(self.g.parameters()), start)  # ω itself waits for the outer update
        return loss, flat(p.grad for p in self.g.parameters())


def test_without_inner_steps_the_outer_gradient_is_that_of_the_loss(
    coded: LargeSet, coded_f: RandomFeatures, engine: Engine
) -> None:
    outer = Outer(coded, coded_f, engine, inner_steps=0, outer="maml")
    expected_loss = outer.loss(outer.g, rng(5))
    expected = flat(torch.autograd.grad(expected_loss, list(outer.g.parameters())))
    loss, gradient = outer.ours(rng(5))
    assert loss.item() == pytest.approx(expected_loss.item(), rel=1e-6)
    assert expected.norm() > 1e-3
    assert torch.allclose(gradient, expected, rtol=1e-4, atol=1e-7)


def test_maml_gradient_is_taken_after_the_inner_steps_and_averaged_over_tests(
    coded: LargeSet, coded_f: RandomFeatures, engine: Engine
) -> None:
    task = replace(META.task, lr=3e-3, betas=(0.6, 0.9))
    outer = Outer(coded, coded_f, engine, inner_steps=2, meta_test=3, outer="maml", task=task)
    stream = rng(5)
    fast = outer.inner(stream)
    expected, mean = torch.zeros(()), 0.0
    for _ in range(3):
        loss = outer.loss(fast, stream)
        expected = expected + flat(torch.autograd.grad(loss, list(fast.parameters()))) / 3
        mean += loss.item() / 3
    found, gradient = outer.ours(rng(5))
    assert found.item() == pytest.approx(mean, rel=1e-4)
    assert (gradient - expected).norm() / expected.norm() < 1e-2
    at_the_start = flat(torch.autograd.grad(outer.loss(outer.g, rng(5)), list(outer.g.parameters())))
    assert (gradient - at_the_start).norm() / expected.norm() > 0.2


def test_reptile_gradient_is_the_way_back(coded: LargeSet, coded_f: RandomFeatures, engine: Engine) -> None:
    outer = Outer(coded, coded_f, engine, inner_steps=2, outer="reptile")
    expected = flat(outer.g.parameters()) - flat(outer.inner(rng(5)).parameters())
    _, gradient = outer.ours(rng(5))
    assert expected.abs().max() > 1e-3
    assert (gradient - expected).norm() / expected.norm() < 1e-2


@pytest.mark.parametrize("outer", ["maml", "reptile"])
def test_outer_update_averages_its_tasks(outer: str, coded: LargeSet, coded_f: RandomFeatures, engine: Engine) -> None:
    """One iteration of two tasks: Adam's first step along the mean of the two tasks' gradients."""
    config = replace(META, iterations=1, meta_batch=2, outer=outer, outer_lr=1e-3)
    g, losses = new_generator(engine, shake=0.1), Losses()
    start = flat(g.parameters())
    gradients, values, single = [], [], replace(config, meta_batch=1)
    for k in range(2):
        stream = engine.rng(5, "inner loop", 0, k)
        task, pool = some_task(coded, coded_f, config, seeded_generator("cpu", 5, "task", 0, k), stream)
        g.zero_grad(set_to_none=True)
        values.append(meta_gradient(g, coded_f, task, pool, single, engine, stream).item())
        gradients.append(flat(p.grad for p in g.parameters()))
    mean = (gradients[0] + gradients[1]) / 2
    meta_train(g, {1: coded_f}, task_source([coded], config, engine.device), config, engine, 5, losses)
    expected = start - 1e-3 * mean / (mean.abs() + 1e-8)
    clear = mean.abs() > 1e-5
    assert clear.float().mean() > 0.4
    assert torch.allclose(flat(g.parameters())[clear], expected[clear], atol=2e-6)
    assert torch.allclose(flat(p.grad for p in g.parameters()), mean, rtol=1e-4, atol=1e-7)
    assert losses.values == pytest.approx([(values[0] + values[1]) / 2], rel=1e-5)


def test_no_two_tasks_of_a_run_are_alike(
    coded: LargeSet, coded_f: RandomFeatures, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The streams depend on the seed, the iteration and the task."""
    pools: list[Tensor] = []

    def note(g: Any, f: Any, task: Real, pool: Pool, *rest: Any) -> Tensor:
        pools.append(flat([pool.X_s, labels(pool)]))
        return torch.zeros(())

    monkeypatch.setattr(mgdd, "meta_gradient", note)
    for seed in (0, 1):
        config = replace(META, iterations=2, meta_batch=2)
        meta_train(
            new_generator(engine), {1: coded_f}, task_source([coded], config, engine.device), config, engine, seed
        )
    assert len(pools) == 8
    assert len({tuple(pool.tolist()) for pool in pools}) == 8


def test_a_visitor_sees_the_generator_before_every_update_and_after_the_last(
    coded: LargeSet, coded_f: RandomFeatures, engine: Engine
) -> None:
    seen: list[tuple[int, Tensor]] = []
    g = new_generator(engine)
    start, config = flat(g.parameters()).clone(), replace(META, iterations=2)
    meta_train(
        g,
        {1: coded_f},
        task_source([coded], config, engine.device),
        config,
        engine,
        0,
        visit=lambda loop: seen.append((loop.step, flat(g.parameters()))),
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert torch.equal(seen[0][1], start)
    assert torch.equal(seen[2][1], flat(g.parameters()))
    assert not torch.equal(seen[1][1], seen[2][1])


def plain_loss(
    g: Generator, f: RandomFeatures, task: Real, pool: Pool, ridge: float, stream: torch.Generator
) -> Tensor:
    """TrainingLoss in float64 (but for the generator's output), by the kernel form of Eq. 1."""
    X_t, Y_t = task.at(task.sampler(12, stream))
    net = copy.deepcopy(f.draw(stream).net).double()
    X_s = g(pool.X_s.double()).clamp(task.inputs.low.double(), task.inputs.high.double())
    F_t, F_s = net.features(X_t.double()), net.features(X_s)
    K = F_s @ F_s.T
    shifted = K + ridge * K.trace() / len(K) * torch.eye(len(K), dtype=K.dtype)
    errors = F_t @ F_s.T @ torch.linalg.inv(shifted) @ labels(pool).double() - Y_t
    return sum((row.square().sum() for row in errors), torch.zeros(())) / len(errors)


def test_first_order_gradient_by_brute_force_in_float64(
    coded: LargeSet, coded_f: RandomFeatures, engine: Engine
) -> None:
    """τ Adam steps by hand on a float64 copy, then the gradient at ω', which differences of the loss confirm."""
    task = replace(META.task, lr=3e-3, betas=(0.6, 0.9))
    outer = Outer(coded, coded_f, engine, inner_steps=3, outer="maml", task=task)
    fast, stream, m, v = copy.deepcopy(outer.g).double(), rng(5), 0.0, 0.0
    parameters = list(fast.parameters())

    def loss(stream: torch.Generator) -> Tensor:
        return plain_loss(fast, coded_f, outer.task, outer.pool, task.ridge, stream)

    def move(change: Tensor) -> None:
        with torch.no_grad():
            for p, part in zip(parameters, change.split([p.numel() for p in parameters]), strict=True):
                p.add_(part.view(p.shape))

    for step in (1, 2, 3):
        gradient = flat(torch.autograd.grad(loss(stream), parameters))
        m, v = 0.6 * m + 0.4 * gradient, 0.9 * v + 0.1 * gradient**2
        move(-3e-3 * (m / (1 - 0.6**step)) / ((v / (1 - 0.9**step)).sqrt() + 1e-8))
    state = stream.get_state()
    expected = flat(torch.autograd.grad(loss(stream), parameters))
    found, gradient = outer.ours(rng(5))
    assert (gradient - expected).norm() / expected.norm() < 1e-2
    direction, ends = expected / expected.norm(), []
    for h in (1e-2, -2e-2):
        move(h * direction)
        stream.set_state(state)
        ends.append(loss(stream).item())
    assert (ends[0] - ends[1]) / 2e-2 == pytest.approx(expected.norm().item(), rel=1e-2)
    assert found.item() == pytest.approx(sum(ends) / 2, rel=1e-2)


# ------------------------------------------------------------------------------------------------------ augmented copies


@pytest.mark.parametrize(
    ("m", "asked", "copies"),
    [(10, None, 16), (40, None, 4), (100, None, 1), (160, None, 1), (161, None, 0), (100, 3, 3), (10, 0, 0)],
)
def test_a_small_set_has_up_to_160_augmented_copies(m: int, asked: int | None, copies: int) -> None:
    X, Y = torch.randn(m, 3, 8, 8, generator=rng()), torch.randn(m, 4, generator=rng())
    for config in (AdaptConfig, RefineConfig, FitConfig):
        for flip in (True, False):
            images, labels = with_copies(X, Y, config(augmented_copies=asked, flip=flip), 0, rng())
            plain = m * (1 + flip)
            assert len(images) == len(labels) == plain + copies * m
            assert torch.equal(images[:m], X)
            assert torch.equal(labels, Y.repeat(1 + flip + copies, 1))


@pytest.mark.parametrize(
    ("m", "asked", "kinds"),
    [(10, None, 5), (160, None, 5), (161, None, 1), (1000, None, 1), (1001, None, 5), (1001, 0, 1), (500, 3, 5)],
)
def test_steps_are_of_one_kind_where_there_are_no_copies(m: int, asked: int | None, kinds: int) -> None:
    """A captured step is recorded for each kind. Of more than 1,000 images a step takes a part, which may be small."""
    assert turns_of(RefineConfig(augmented_copies=asked, flip=False), m) == kinds


@pytest.mark.parametrize("step", [training_loss, refinement_loss])
def test_copies_stand_beside_the_set_in_equation_1(step: Callable, real: Real, f: RandomFeatures) -> None:
    """The loss of a step is that of S with its copies, and has a gradient through them."""
    config: Any = replace(REFINE if step is refinement_loss else ADAPT, augmented_copies=4)
    X = real.inputs(real.data.images[:8]).requires_grad_()
    Y = torch.randn(8, 4, generator=rng(1))
    first = copy.deepcopy(f)  # a step draws other weights into it, in place
    if step is refinement_loss:
        loss = step(X, Y, f, real, config, rng(5), turn=2)
    else:
        loss = step(lambda x: x, f, real, Pool(X, {2: Y}), 2, replace(config, synthetic_batch=8), rng(5), turn=2)
    stream = rng(5)
    X_t, Y_t = real.batch(64, stream)
    first.draw(stream)
    bounded = X if step is refinement_loss else real.inputs.bound(X)
    S = torch.cat([bounded, augmented_copies(bounded, 4, 2, False, stream)])
    expected = ridge_loss(first, X_t, Y_t, S, Y.repeat(5, 1), config.ridge)
    assert torch.allclose(loss, expected, rtol=1e-5)
    gradient, wanted = (torch.autograd.grad(value, X)[0] for value in (loss, expected))
    assert (gradient - wanted).norm() / wanted.norm() < 1e-3


def test_labels_are_fitted_to_the_copies_too(real: Real, f: RandomFeatures) -> None:
    """The labels of Eq. 1 with copies, over stacked networks, by numpy."""
    config = replace(FIT, networks=3, augmented_copies=2)
    X = real.inputs(real.data.images[:8])
    labels = fitted_labels(X, f, real, config, rng(5))
    stream, rows, targets = rng(5), [], []
    for turn in range(1, 4):
        X_t, Y_t = real.batch(40, stream)
        f.draw(stream)
        S = torch.cat([X, augmented_copies(X, 2, turn, False, stream)])
        rows.append(f(X_t) @ ridge_head(f(S), torch.eye(8).repeat(3, 1), config.ridge))
        targets.append(Y_t)
    A, Y_t = torch.cat(rows).double(), torch.cat(targets).double()
    shrink = config.shrink * A.square().sum() / 8
    expected = torch.linalg.solve(A.T @ A + shrink * torch.eye(8), A.T @ Y_t)
    assert (labels - expected).norm() / expected.norm() < 1e-3
