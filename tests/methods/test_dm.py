"""DM: its loss against a computation written out a second time, and what is its own: one augmentation for both sides."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_case import doubles, method_of, plain_features, task_of
from torch import Tensor
from torch.nn import functional as F

from ddtool.data.images import ImageData
from ddtool.errors import UsageError
from ddtool.methods import distil, dm
from ddtool.runtime.engine import Engine


class Bystander:
    """Stands in for `siamese`: images stay as they are, what it was given is kept."""

    def __init__(self) -> None:
        self.seen: list[list[Tensor]] = []

    def __call__(self, family: str, flip: bool, host_rng: torch.Generator, rng: torch.Generator) -> Callable:
        def augment(batches: Sequence[Tensor]) -> list[Tensor]:
            self.seen.append([x.detach().clone() for x in batches])
            return list(batches)

        return augment


@pytest.fixture
def bystander(monkeypatch: pytest.MonkeyPatch) -> Bystander:
    stand_in = Bystander()
    monkeypatch.setattr(dm, "siamese", stand_in)
    return stand_in


@pytest.mark.parametrize("memory", [2**33, 2**20])
def test_the_loss_and_its_gradient_are_those_of_a_plain_computation(
    toy: ImageData, bystander: Bystander, memory: int
) -> None:
    """Also where the memory lets one class at a time through the network."""
    task = task_of(toy, ipc=3)
    task = replace(task, engine=replace(task.engine, memory=memory))
    method = method_of("dm", task, real_batch=5)
    with torch.no_grad():
        method.X.add_(0.3 * torch.randn(method.X.shape, generator=torch.Generator().manual_seed(5)))
    assert method.classes_a_pass() == (51 if memory == 2**33 else 1)
    loss = method.gradient(0)
    weights = doubles(method.net)
    reals = [sum(plain_features(weights, x[None].double())[0] for x in real) / len(real) for real, _ in bystander.seen]

    def plain(X: Tensor) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for c in range(4):
            rows = [i for i in range(12) if int(task.classes()[i]) == c]
            synthetic = sum(plain_features(weights, X[i : i + 1])[0] for i in rows) / len(rows)
            total += (reals[c] - synthetic).square().sum()
        return total

    X = method.X.detach().double()
    assert loss.item() == pytest.approx(plain(X).item(), rel=1e-4)
    for place in [(0, 0, 3, 4), (5, 1, 0, 0), (7, 2, 15, 8), (11, 0, 9, 15)]:
        nudge = torch.zeros_like(X)
        nudge[place] = 1e-6
        slope = (plain(X + nudge) - plain(X - nudge)) / 2e-6
        assert method.X.grad is not None
        assert method.X.grad[place].item() == pytest.approx(slope.item(), rel=1e-3, abs=1e-5)


def test_each_class_is_compared_with_real_images_of_its_own(toy: ImageData, bystander: Bystander) -> None:
    task = task_of(toy)
    method_of("dm", task, real_batch=7).gradient(0)
    assert len(bystander.seen) == 4
    for c, (real, synthetic) in enumerate(bystander.seen):
        own = task.real.inputs(toy.images[toy.labels == c]).flatten(1)
        assert len(real) == 7
        assert (torch.cdist(real.flatten(1), own).amin(1) < 0.1).all()  # others are 35 away
        assert torch.equal(synthetic, task.start()[0][task.classes() == c])


def test_both_sides_are_augmented_alike(toy: ImageData) -> None:
    """Classes of one image each: S is the real data, so the loss is zero exactly where both sides move together."""
    first = torch.stack([toy.images[toy.labels == c][0] for c in range(4)])
    same = replace(toy, images=first.repeat_interleave(3, 0), labels=torch.arange(4).repeat_interleave(3))
    method = method_of("dm", task_of(same))
    for step in range(12):
        assert method.gradient(step).item() < 1e-6


def test_dsa_moves_the_images_and_flips_only_where_classes_allow_it(
    toy: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, original = [], dm.siamese

    def watched(family: str, flip: bool, *generators: torch.Generator) -> Callable:
        augment = original(family, flip, *generators)

        def call(batches: Sequence[Tensor]) -> list[Tensor]:
            moved = augment(batches)
            told.append((family, flip, all(not torch.equal(a, b) for a, b in zip(batches, moved, strict=True))))
            return moved

        return call

    monkeypatch.setattr(dm, "siamese", watched)
    for flip in (True, False):
        told.clear()
        method = method_of("dm", task_of(toy, flip=flip))
        for step in range(5):
            method.gradient(step)
        assert {(family, allowed) for family, allowed, _ in told} == {("dsa", flip)}
        assert sum(moved for _, _, moved in told) > 10  # of 20: a flip, a shift of zero leave images alone


def test_passes_of_a_few_classes_sum_up_to_the_whole(toy: ImageData, bystander: Bystander) -> None:
    whole, parts = method_of("dm", task_of(toy)), method_of("dm", task_of(toy))
    loss = whole.gradient(0)
    sizes: list[int] = []
    f = parts.f
    parts.f = lambda x: (sizes.append(len(x)), f(x))[1]
    parts.at_once = 20
    assert parts.gradient(0).item() == pytest.approx(loss.item(), rel=1e-5)
    assert sizes == [16, 2] * 4
    assert torch.allclose(parts.X.grad, whole.X.grad, atol=1e-6)


def test_batch_norm_sees_all_classes_at_once(toy: ImageData, bystander: Bystander) -> None:
    method = method_of("dm", task_of(toy), norm="batch")
    method.at_once = 6
    sizes: list[int] = []
    f = method.f
    method.f = lambda x: (sizes.append(len(x)), f(x))[1]
    assert method.gradient(0).item() > 0
    assert sizes == [4 * 16, 8]


def test_every_step_has_a_network_of_its_own(toy: ImageData) -> None:
    method = method_of("dm", task_of(toy))
    seen = []
    for step in range(3):
        method.gradient(step)
        seen.append(torch.cat([p.flatten() for p in method.net.parameters()]))
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[1], seen[2])


@pytest.mark.parametrize(("ipc", "given", "lr"), [(10, None, 1.0), (99, None, 1.0), (100, None, 10.0), (10, 0.5, 0.5)])
def test_the_learning_rate_is_the_published_one_for_the_ipc(
    toy: ImageData, ipc: int, given: float | None, lr: float
) -> None:
    method = method_of("dm", replace(task_of(toy), ipc=ipc), lr=given)
    assert method.optimiser.param_groups[0]["lr"] == lr
    assert method.optimiser.param_groups[0]["momentum"] == 0.5


def test_settings_out_of_range_are_refused(toy: ImageData) -> None:
    for name, value in {"lr": -1, "real_batch": 0, "momentum": -0.1}.items():
        with pytest.raises(UsageError, match=rf"'baseline\.{name}'"):
            method_of("dm", task_of(toy), **{name: value})


def test_half_precision_points_the_same_way(toy: ImageData) -> None:
    def gradient(bf16: bool) -> Tensor:
        task: Any = replace(task_of(toy), engine=Engine(torch.device("cpu"), bf16))
        method = method_of("dm", task, width=32)
        method.gradient(0)
        return method.X.grad.flatten()

    assert F.cosine_similarity(gradient(True), gradient(False), dim=0) > 0.99


def test_steps_bring_the_means_together(toy: ImageData) -> None:
    method = method_of("dm", task_of(toy), init="noise", steps=60, real_batch=32)
    before = sum(method.gradient(10**6 + i).item() for i in range(5))
    distil(method)
    after = sum(method.gradient(10**6 + i).item() for i in range(5))
    assert after < 0.7 * before
