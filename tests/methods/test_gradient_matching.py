"""DC and DSA: the matching loss against loops in float64, its image gradient against differences, the published schedule."""

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from method_case import method_of, task_of
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.data.images import ImageData
from ddtool.errors import UsageError
from ddtool.methods import Method, distil
from ddtool.methods.base import InnerNetwork
from ddtool.methods.gradient_matching import DC, DSA, GradientMatching, cosine_distance, schedule
from ddtool.runtime.engine import Engine


def matching(name: str, data: ImageData, **settings: object) -> GradientMatching:
    method = method_of(name, task_of(data), **settings)
    assert isinstance(method, GradientMatching)
    return method


def double_gradients(net: nn.Module, X: Tensor, label: int) -> list[Tensor]:
    """Weight gradients in float64 of −log softmax, written out; `net` is a float64 copy."""
    scores = net(X)
    loss = (scores.exp().sum(1).log() - scores[:, label]).sum() / len(X)
    return list(torch.autograd.grad(loss, list(net.parameters())))


def cosine_by_loops(real: list[Tensor], synthetic: list[Tensor]) -> float:
    """Layer by layer, output by output; biases and norm layers say nothing."""
    total = 0.0
    for a, b in zip(real, synthetic, strict=True):
        if a.ndim == 1:
            continue
        for u, v in zip(a, b, strict=True):
            x, y = u.flatten().tolist(), v.flatten().tolist()
            dot = sum(p * q for p, q in zip(x, y, strict=True))
            total += 1 - dot / (math.sqrt(sum(p * p for p in x)) * math.sqrt(sum(q * q for q in y)) + 1e-6)
    return total


def test_cosine_distance_by_loops() -> None:
    rng = torch.Generator().manual_seed(0)
    shapes = [(4, 3, 3, 3), (5, 7)]
    real, synthetic = ([torch.randn(s, generator=rng, dtype=torch.float64) for s in shapes] for _ in range(2))
    synthetic[0][1] = 0  # a dead filter
    assert cosine_distance(real, synthetic).item() == pytest.approx(cosine_by_loops(real, synthetic), rel=1e-9)
    assert cosine_distance(real, [3 * g for g in real]).item() == pytest.approx(0, abs=1e-5)
    tiny = [1e-3 * g / g.flatten(1).norm(dim=1).view(-1, *[1] * (g.ndim - 1)) for g in real]
    assert cosine_distance(tiny, tiny).item() == pytest.approx(9 / 2)  # 1 − 1e-6 / (1e-6 + 1e-6), an output


def test_a_dead_filter_has_a_finite_gradient() -> None:
    a = torch.ones(2, 3)
    b = torch.tensor([[0.0, 0.0, 0.0], [1.0, 2.0, 3.0]], requires_grad=True)
    (gradient,) = torch.autograd.grad(cosine_distance([a], [b]), b)
    assert torch.isfinite(gradient).all()


def test_loss_and_image_gradient_by_brute_force(toy: ImageData) -> None:
    method = matching("dc", toy, width=3, real_batch=5, init="real")
    task, net = method.task, copy.deepcopy(method.inner_network.net).double()
    state = torch.Generator()
    state.set_state(method.rng.get_state())
    rows = task.real.sampler(5 * 4, state).view(4, 5)
    assert toy.labels[rows].tolist() == [[c] * 5 for c in range(4)]

    def loss_of(X: Tensor) -> float:
        total = 0.0
        for c in range(4):
            T = task.real.inputs(toy.images[rows[c]]).double()
            S = torch.stack([X[i] for i in range(8) if task.classes()[i] == c])
            total += cosine_by_loops(double_gradients(net, T, c), double_gradients(net, S, c))
        return total

    loss = method.gradient(0)
    X = method.X.detach().double()
    assert loss.item() == pytest.approx(loss_of(X), rel=1e-4)
    assert method.X.grad is not None
    for place in [(0, 0, 3, 4), (3, 1, 8, 8), (5, 2, 15, 0), (7, 0, 10, 6)]:
        up, down = X.clone(), X.clone()
        up[place] += 1e-5
        down[place] -= 1e-5
        difference = (loss_of(up) - loss_of(down)) / 2e-5
        assert method.X.grad[place].item() == pytest.approx(difference, rel=1e-2, abs=1e-4)
    assert method.X.grad.abs().max() > 1e-3


def test_bf16_gradients_point_the_same_way(toy: ImageData) -> None:
    gradients = []
    for bf16 in (False, True):
        task = replace(task_of(toy), engine=Engine(torch.device("cpu"), bf16))
        method = method_of("dsa", task)
        method.gradient(0)
        assert method.X.grad is not None
        gradients.append(method.X.grad.flatten())
    assert not torch.equal(*gradients)
    assert F.cosine_similarity(*gradients, dim=0) > 0.9


def alike(data: ImageData) -> ImageData:
    """Every image of a class is its first."""
    firsts = torch.stack([data.images[data.labels == c][0] for c in range(data.num_classes)])
    return replace(data, images=firsts[data.labels])


@pytest.mark.parametrize("name", ["dc", "dsa"])
def test_nothing_to_match_when_synthetic_images_are_the_real_ones(name: str, toy: ImageData) -> None:
    """With DSA only because both get the same operation with the same parameters."""
    method = matching(name, alike(toy), init="real")
    assert all(abs(method.gradient(step).item()) < 0.05 for step in range(8))
    assert matching(name, alike(toy), init="noise").gradient(0).item() > 1


def test_operations_change_from_class_to_class_and_step_to_step(toy: ImageData) -> None:
    method, same = matching("dsa", toy), torch.randn(2, 3, 16, 16)
    outs = []
    for step in range(3):
        augment = method.together(step)
        outs += [augment([same, same]) for _ in range(4)]
    assert all(torch.equal(real, synthetic) for real, synthetic in outs)
    assert len({tuple(real.flatten().tolist()) for real, _ in outs}) >= 9


def test_without_flip_nothing_is_flipped(toy: ImageData) -> None:
    left = torch.zeros(1, 1, 16, 16)
    left[..., :6] = 1
    method = method_of("dsa", task_of(toy, flip=False))
    assert isinstance(method, DSA)
    outs = [out for step in range(60) for out in method.together(step)([left])]
    outs += [method.alone(step)(left) for step in range(60)]
    assert all(out[..., :6].mean() >= out[..., 10:].mean() for out in outs)


# --------------------------------------------------------------------------------------------------------- the network


def test_published_schedules() -> None:
    assert schedule(1)[0] == 1
    assert schedule(10) == (10, 50)
    assert schedule(50) == (50, 10)
    assert schedule(20) == (20, 25)
    assert schedule(30) == (30, 20)
    assert schedule(40) == (40, 15)
    assert schedule(200) == (50, 10)


def test_between_the_published_schedules_is_a_straight_line() -> None:
    assert [schedule(ipc)[1] for ipc in (2, 5, 15, 25, 35, 44)] == [50, 50, 38, 22, 18, 13]
    inner = [schedule(ipc)[1] for ipc in range(1, 101)]
    assert inner == sorted(inner, reverse=True)


def test_settings_go_before_the_schedule(toy: ImageData) -> None:
    method = method_of("dc", task_of(toy), outer=None, inner=None)
    assert method.facts() == {"outer": 2, "inner": 50}
    assert method_of("dc", task_of(toy), outer=7, inner=0).facts() == {"outer": 7, "inner": 0}
    with pytest.raises(UsageError, match=r"'baseline\.outer' must be at least 1"):
        method_of("dc", task_of(toy), outer=0)


def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to students, in order."""
    seen: list[str] = []

    def spied(name: str) -> Callable:
        original = getattr(InnerNetwork, name)
        return lambda *args: seen.append(name) or original(*args)  # type: ignore[func-returns-value]

    for name in ("update", "reset"):
        monkeypatch.setattr(InnerNetwork, name, spied(name))
    return seen


def test_a_network_is_trained_between_steps_and_then_replaced(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = calls(monkeypatch)
    distil(matching("dc", toy, outer=3, inner=2, net_batch=3, steps=7))
    epochs = ["update"] * 6  # two epochs of 8 images in batches of 3
    assert seen == [*epochs, *epochs, "reset", *epochs, *epochs, "reset", *epochs]


def test_the_network_learns_from_the_set_by_plain_sgd(toy: ImageData) -> None:
    method = matching("dc", toy, outer=2, inner=1, net_lr=0.5)
    net = copy.deepcopy(method.inner_network.net).double()
    F.cross_entropy(net(method.X.detach().double()), method.task.classes()).backward()
    method.after_step(0)
    for p, q in zip(net.parameters(), method.inner_network.net.parameters(), strict=True):
        assert p.grad is not None
        assert torch.allclose((p - 0.5 * p.grad).float(), q, atol=1e-5)


@pytest.mark.parametrize(("name", "plain"), [("dc", True), ("dsa", False)])
def test_dsa_augments_this_training_too(name: str, plain: bool, toy: ImageData) -> None:
    method, inputs = matching(name, toy, inner=3), []
    forward = method.matching.forward
    method.matching.forward = lambda X: inputs.append(X) or forward(X)  # type: ignore[func-returns-value]
    method.after_step(0)
    known = {tuple(x.flatten().tolist()) for x in method.X.detach()}
    seen = [tuple(x.flatten().tolist()) for X in inputs for x in X]
    assert len(seen) == 24
    assert (set(seen) == known) == plain


def test_second_derivatives_are_not_asked_of_compiled_networks(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: lambda x: function(x) + 1)
    task = task_of(toy)
    method = method_of("dc", replace(task, engine=replace(task.engine, compile_networks=True)))
    assert isinstance(method, DC)
    assert torch.equal(method.matching.forward(method.X), method.matching.forward_twice(method.X) + 1)


# ------------------------------------------------------------------------------------------------------------ the images


def test_dc_starts_from_noise_and_dsa_from_real_images(toy: ImageData) -> None:
    start = task_of(toy).start()[0]
    assert not torch.equal(matching("dc", toy).X, start)
    assert torch.equal(matching("dsa", toy).X, start)


def test_images_are_updated_by_sgd_with_momentum_within_pixels(toy: ImageData) -> None:
    method: Method = matching("dsa", toy, lr=0.3)
    bound = method.task.real.inputs.bound
    expected, velocity = method.X.detach().clone(), torch.zeros_like(method.X)
    twin = matching("dsa", toy, lr=0.3)
    for step in range(3):
        twin.gradient(step)
        assert twin.X.grad is not None
        velocity = 0.5 * velocity + twin.X.grad
        expected = bound(expected - 0.3 * velocity)
        with torch.no_grad():
            twin.X.copy_(expected)
        twin.after_step(step)
    distil(matching_steps := matching("dsa", toy, lr=0.3, steps=3))
    assert torch.allclose(matching_steps.X, expected, atol=1e-5)
    assert not torch.allclose(expected, method.X)
