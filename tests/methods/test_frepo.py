"""FRePo: its loss and gradients against sums written out in float64, its pool against a simulation, what it may not do unseen."""

import copy
import math

import pytest
import torch
from method_case import method_of, task_of
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.data.images import ImageData, one_hot
from ddtool.errors import DivergedError, UsageError
from ddtool.methods import distil, settings_of
from ddtool.methods.frepo import FRePo, margin, regression_loss, usual_flips
from ddtool.models.layers import Halved


def frepo(data: ImageData, ipc: int = 2, flip: bool = True, **settings: object) -> FRePo:
    method = method_of("frepo", task_of(data, ipc, flip=flip), **settings)
    assert isinstance(method, FRePo)
    return method


def features(net: nn.Module, X: Tensor) -> Tensor:
    """(batch norm by statistics that were kept →) conv → ReLU → pool, per block, in float64."""
    for module in net.body:
        if isinstance(module, nn.Conv2d):
            X = F.conv2d(X, module.weight.double(), module.bias.double(), padding=module.padding)
            X = X * (X > 0)
        elif isinstance(module, nn.BatchNorm2d):
            mean, var, weight, bias = (
                t.double().view(1, -1, 1, 1)
                for t in (module.running_mean, module.running_var, module.weight, module.bias)
            )
            X = (X - mean) / (var + 1e-5).sqrt() * weight + bias
        elif isinstance(module, Halved):
            X = F.avg_pool2d(X, 2)
    return X.flatten(1)


@torch.no_grad()
def brute_force(method: FRePo, net: nn.Module, X: Tensor, Y: Tensor, real: tuple[Tensor, Tensor]) -> float:
    """The loss as the module's docstring has it: every kernel entry, the inverse, and every sum."""
    X, Y, X_t, Y_t = X.double(), Y.double(), real[0].double(), real[1].double()
    if method.task.flip:
        X, Y = torch.cat([X, X.flip(3)]), torch.cat([Y, Y])
    m, n, C = len(X), len(X_t), Y.shape[1]
    f_s, f_t = features(net, X), features(net, X_t)
    K_ss = torch.tensor([[float(f_s[i] @ f_s[j]) for j in range(m)] for i in range(m)], dtype=torch.float64)
    K_ts = torch.tensor([[float(f_t[i] @ f_s[j]) for j in range(m)] for i in range(n)], dtype=torch.float64)
    shift = method.config.ridge * sum(float(K_ss[i, i]) for i in range(m)) / m
    for i in range(m):
        K_ss[i, i] += shift
    predicted = K_ts @ torch.linalg.inv(K_ss) @ Y
    loss = sum(0.5 * float(predicted[i, c] - Y_t[i, c]) ** 2 for i in range(n) for c in range(C)) / n
    for row in Y.tolist():
        first, second, *_ = sorted(row, reverse=True)
        loss -= min(first - second, 1 / C) / m
    return loss


@pytest.mark.parametrize(("width", "ipc", "flip", "ridge"), [(8, 2, True, 1e-6), (8, 1, False, 0.1), (1, 4, True, 0.1)])
def test_loss_and_gradients(toy: ImageData, width: int, ipc: int, flip: bool, ridge: float) -> None:
    """In feature dimensions above and below m, on networks that have trained, with labels on both sides of 1/C."""
    method = frepo(toy, ipc, flip, width=width, ridge=ridge, real_batch=8, networks=3, updates=50)
    for step in range(6):
        method.after_step(step)
    stream = torch.Generator().manual_seed(5)
    with torch.no_grad():
        method.Y.copy_(0.3 * torch.randn(method.Y.shape, generator=stream))
    rng = torch.Generator()
    rng.set_state(method.rng.get_state())
    real = method.task.real.batch(8, rng)
    loss = method.gradient(7)
    net = method.pool[method.drawn(7)].net
    X, Y = method.X.detach().double(), method.Y.detach().double()
    assert float(loss) == pytest.approx(brute_force(method, net, X, Y, real), rel=1e-4)
    for values, gradient in ((X, method.X.grad), (Y, method.Y.grad)):
        assert gradient is not None
        largest = float(gradient.abs().max())
        for at in torch.randint(values.numel(), (4,), generator=stream).tolist():
            here = tuple(int(i) for i in torch.unravel_index(torch.tensor(at), values.shape))
            before, ends = float(values[here]), []
            for moved in (before + 1e-5, before - 1e-5):
                values[here] = moved
                ends.append(brute_force(method, net, X, Y, real))
            values[here] = before
            assert float(gradient[here]) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-3, abs=2e-4 * largest)


def test_the_solve_is_float64_where_float32_gives_up() -> None:
    """Nearly equal images: at λ = 1e-6 a float32 Cholesky fails or is far off."""
    rng = torch.Generator().manual_seed(0)
    F_s = torch.randn(1, 60, generator=rng) + 1e-4 * torch.randn(40, 60, generator=rng)
    F_t, Y_s, Y_t = (torch.randn(shape, generator=rng) for shape in ((5, 60), (40, 3), (5, 3)))
    K = F_s.double() @ F_s.double().T
    inverse = torch.linalg.inv(K + 1e-6 * K.trace() / 40 * torch.eye(40, dtype=torch.float64))
    predicted = F_t.double() @ F_s.double().T @ inverse @ Y_s.double()
    expected = float(0.5 * (predicted - Y_t.double()).square().sum(1).mean())
    assert float(regression_loss(F_t, Y_t, F_s, Y_s, 1e-6)) == pytest.approx(expected, rel=1e-5)


def test_margin_counts_up_to_one_over_the_classes() -> None:
    Y = torch.tensor([[0.9, 0.1, 0.0, 0.0], [0.0, 0.3, 0.2, -1.0], [0.5, 0.5, 0.0, 0.0]], requires_grad=True)
    value = margin(Y)
    assert float(value.detach()) == pytest.approx((0.25 + 0.1 + 0.0) / 3)
    (gradient,) = torch.autograd.grad(value, Y)
    assert gradient[0].tolist() == [0, 0, 0, 0]  # sure enough
    assert gradient[1].tolist() == pytest.approx([0, 1 / 3, -1 / 3, 0])


def test_a_kernel_that_cannot_be_solved_ends_the_run(toy: ImageData) -> None:
    method = frepo(toy, norm="none")
    with torch.no_grad():
        method.X.zero_()  # all features are zero, and so is the shift
    with pytest.raises(DivergedError, match="not finite at step 1"):
        distil(method)


def test_the_pool_ages_and_starts_afresh_as_simulated(toy: ImageData) -> None:
    method = frepo(toy, networks=4, updates=6)
    ages, updates, resets = [0, 1, 3, 4], [0, 0, 0, 0], 0
    assert method.ages.tolist() == ages
    for step in range(40):
        before = [[p.clone() for p in inner.net.parameters()] for inner in method.pool]
        method.after_step(step)
        k = method.drawn(step)
        ages[k], updates[k] = ages[k] + 1, updates[k] + 1
        if fresh := ages[k] == 6:
            ages[k], updates[k], resets = 0, 0, resets + 1
        assert method.ages.tolist() == ages
        for i, inner in enumerate(method.pool):
            same = [torch.equal(a, b) for a, b in zip(before[i], inner.net.parameters(), strict=True)]
            assert all(same) == (i != k)
            states = inner.optimiser.state.values()
            assert {int(state["step"]) for state in states} == {updates[i]}
            assert i != k or all(not state["exp_avg"].any() for state in states) == fresh
        assert not fresh or not method.pool[k].net.body[0].bias.any()  # LeCun's biases are zero
    assert resets >= 4


def test_which_network_a_step_takes_follows_from_seed_and_step(toy: ImageData) -> None:
    method, other = frepo(toy, networks=4), method_of("frepo", task_of(toy, seed=1), networks=4)
    state = method.rng.get_state()
    drawn = [method.drawn(step) for step in range(40)]
    assert set(drawn) == {0, 1, 2, 3}
    assert [method.drawn(step) for step in reversed(range(40))] == drawn[::-1]
    assert isinstance(other, FRePo)
    assert [other.drawn(step) for step in range(40)] != drawn
    assert torch.equal(method.rng.get_state(), state)


def test_weights_are_lecuns_and_a_step_on_images_leaves_the_networks_alone(toy: ImageData) -> None:
    method = frepo(toy, width=64, networks=1, real_batch=16)
    second = method.pool[0].net.body[4]
    assert isinstance(second, nn.Conv2d)
    assert float(second.weight.detach().std()) == pytest.approx(math.sqrt(1 / (64 * 9)), rel=0.02)
    before = {name: t.detach().clone() for name, t in method.tensors().items()}
    method.gradient(0)
    assert all(torch.equal(t, before[name]) for name, t in method.tensors().items())
    assert sum("running_mean" in name for name in before) == 1


def test_batch_norm_stands_before_the_convolutions_but_the_first(toy: ImageData) -> None:
    names = [type(module).__name__ for module in frepo(toy, width=8).pool[0].net.body]
    block = ["RectifiedConv", "Identity", "Halved"]
    assert names == [*block, "BatchNorm2d", *block]
    assert [m.num_features for m in frepo(toy, width=8).pool[0].net.modules() if isinstance(m, nn.BatchNorm2d)] == [8]


def test_statistics_of_the_kernel_are_those_that_training_left(toy: ImageData) -> None:
    """Nine tenths of the last synthetic batch's, without its flipped images, a tenth of what was before."""
    method = frepo(toy, width=8, networks=1, updates=50)
    net = method.pool[0].net
    norm = net.body[3]
    assert isinstance(norm, nn.BatchNorm2d)
    mean, var = torch.zeros(8), torch.ones(8)
    assert torch.equal(norm.running_mean, mean)
    assert torch.equal(norm.running_var, var)
    for step in range(3):
        with torch.no_grad():
            seen = net.body[:3](method.X)
        method.after_step(step)
        mean, var = (0.1 * old + 0.9 * new for old, new in ((mean, seen.mean((0, 2, 3))), (var, seen.var((0, 2, 3)))))
        assert torch.allclose(norm.running_mean, mean, atol=1e-5)
        assert torch.allclose(norm.running_var, var, rtol=1e-4)
    method.gradient(3)
    assert torch.allclose(norm.running_mean, mean, atol=1e-5)  # neither real images nor the kernel's move them
    method.pool[0].reset(method.rng, "lecun")
    assert torch.equal(norm.running_var, torch.ones(8))


@pytest.mark.parametrize(
    ("C", "ipc", "flips"),
    [
        (10, 1, True), (10, 50, True), (100, 1, True), (100, 10, False), (100, 50, False), (200, 1, True), (200, 10, False),
        (1000, 1, False), (1000, 2, False),
    ],
)  # fmt: skip
def test_flipped_copies_stand_in_the_kernel_where_the_authors_have_them(C: int, ipc: int, flips: bool) -> None:
    assert usual_flips(C, ipc) == flips


@pytest.mark.parametrize(("flip", "asked", "copies"), [(True, None, 2), (True, False, 1), (False, True, 1)])
def test_the_kernel_sees_flipped_copies_unless_told_otherwise(
    toy: ImageData, flip: bool, asked: bool | None, copies: int
) -> None:
    method, seen = frepo(toy, flip=flip, flips=asked, networks=1), []
    f = method.features[0]
    method.features = [lambda X: seen.append(X.detach()) or f(X)]  # type: ignore[func-returns-value]
    method.gradient(0)
    synthetic = seen[1]
    assert len(synthetic) == copies * len(method.X)
    assert copies == 1 or torch.equal(synthetic[8:], synthetic[:8].flip(3))


@pytest.mark.parametrize("flip", [True, False])
def test_a_network_trains_by_adam_on_the_whole_set_without_flipped_copies(toy: ImageData, flip: bool) -> None:
    method = frepo(toy, flip=flip, networks=1, updates=9, lr_network=0.01)
    net = copy.deepcopy(method.pool[0].net).train()
    adam = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(3):
        method.after_step(step)
        X, Y = method.X.detach(), method.Y.detach()
        adam.zero_grad()
        (net(X) - Y).square().mean().backward()
        adam.step()
    for a, b in zip(method.pool[0].net.parameters(), net.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)
    assert method.X.grad is None
    assert method.Y.grad is None


def test_labels_start_hard_and_are_learned(toy: ImageData) -> None:
    method = frepo(toy)
    hard = one_hot(method.task.classes(), method.task.num_classes)
    assert torch.allclose(method.Y, hard / math.sqrt(0.4))
    assert torch.allclose(method.result()[1], hard)
    distil(method)
    assert torch.allclose(method.result()[1], method.Y.detach() * math.sqrt(0.4))
    assert ((method.result()[1] - hard).abs().amax(1) > 0).all()


def test_a_large_set_is_seen_in_balanced_parts(toy: ImageData) -> None:
    method = frepo(toy, ipc=5, synthetic_batch=8)
    X, Y = method.synthetic()
    assert len(X) == 8
    assert Y.argmax(1).tolist() == [0, 1, 2, 3] * 2
    method.gradient(0)
    assert method.X.grad is not None
    assert int(method.X.grad.flatten(1).any(1).sum()) == 8


def test_the_set_becomes_better_for_a_network_it_has_not_met(toy: ImageData, toy_test: ImageData) -> None:
    method = frepo(toy, steps=60, real_batch=64, lr_images=0.03, lr_labels=0.01)
    judge, test = method.inner_network().net.eval(), task_of(toy_test, ipc=50)

    @torch.no_grad()
    def loss() -> float:
        X_s, Y_s = method.synthetic()
        X_t, Y_t = test.start()
        return float(regression_loss(judge.features(X_t), Y_t, judge.features(X_s), Y_s, 1e-3))

    before = loss()
    distil(method)
    assert loss() < 0.8 * before


def test_settings_have_bounds() -> None:
    for name in ("networks", "updates", "synthetic_batch"):
        with pytest.raises(UsageError, match=rf"'baseline\.{name}' must be at least 1"):
            settings_of("frepo", {name: 0})
    with pytest.raises(UsageError, match=r"'baseline\.ridge' must be at least 0"):
        settings_of("frepo", {"ridge": -1.0})
