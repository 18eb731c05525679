"""MTT: the unrolled student against computations written out a second time; experts that are kept, resumed, never trusted."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from method_case import doubles, method_of, plain_features, task_of
from torch import Tensor
from torch.nn import functional as F

from ddtool.data.images import ImageData, real_images
from ddtool.errors import DivergedError, RunError, UsageError
from ddtool.events import Done, Event, Note, Step
from ddtool.methods import distil, mtt
from ddtool.methods.base import Memory
from ddtool.methods.mtt import MTT, MTTSettings, Schedule, match, schedule_for, unflatten
from ddtool.pipeline.distil import finished
from ddtool.runtime.engine import Engine


class Counting(Memory):
    """A store that knows what was saved in it, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.saved: list[str] = []

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.saved.append(name[-7:])  # expert and epoch
        super().save(name, tensors)


def mtt_of(data: ImageData, store: Memory | None = None, seed: int = 0, **settings: Any) -> MTT:
    """MTT with tiny settings, before `prepare`."""
    method = method_of("mtt", task_of(data, store=store, seed=seed), **settings)
    assert isinstance(method, MTT)
    return method


def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images stay as they are."""
    monkeypatch.setattr(mtt, "augmentation", lambda family, flip, host_rng, rng: lambda images: images)


# --------------------------------------------------------------------------------------------------------- the student


def hand_gradient(W: Tensor, X: Tensor, labels: Tensor) -> Tensor:
    """The gradient of cross-entropy of tanh(X A) B by formulas; W holds A (3, 4) and B (4, 2), flat."""
    A, B = W[:12].view(3, 4), W[12:].view(4, 2)
    H = torch.tanh(X @ A)
    E = (torch.softmax(H @ B, 1) - F.one_hot(labels, 2)) / len(X)
    return torch.cat([(X.T @ ((E @ B.T) * (1 - H * H))).flatten(), (H.T @ E).flatten()])


def test_the_gradients_through_the_walk_are_exact() -> None:
    rng = torch.Generator().manual_seed(0)
    start, target = torch.randn(2, 20, generator=rng, dtype=torch.float64)
    images = torch.randn(3, 5, 3, generator=rng, dtype=torch.float64)
    labels = torch.randint(2, (3, 5), generator=rng)

    def loss(W: Tensor, X: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.tanh(X @ W[:12].view(3, 4)) @ W[12:].view(4, 2), y)

    def walked(images: Tensor, lr: float) -> float:
        W = start.clone()
        for X, y in zip(images, labels, strict=True):
            W = W - lr * hand_gradient(W, X, y)
        return float((W - target).square().sum() / (start - target).square().sum())

    lr = torch.tensor(0.7, dtype=torch.float64)
    batches = list(zip(images, labels, strict=True))
    value, d_images, d_lr = match(loss, start.clone(), target, batches, lr)
    assert value.item() == pytest.approx(walked(images, 0.7), rel=1e-12)
    assert d_lr.item() == pytest.approx((walked(images, 0.7 + 1e-6) - walked(images, 0.7 - 1e-6)) / 2e-6, rel=1e-6)
    for place in [(n, i, j) for n in range(3) for i in range(5) for j in range(3)]:
        nudge = torch.zeros_like(images)
        nudge[place] = 1e-5
        slope = (walked(images + nudge, 0.7) - walked(images - nudge, 0.7)) / 2e-5
        assert torch.stack(d_images)[place].item() == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_a_step_is_that_of_a_plain_computation(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)
    method = mtt_of(toy, student_steps=3, batch=8, start_before=1, lr_student=0.05, match_epochs=2)
    method.prepare()
    loss = method.gradient(0)
    start, target = (unflatten(method.experts.weights(0, e).double(), method.net) for e in (0, 2))
    X = method.X.detach().double().requires_grad_()
    lr = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    weights = {name: w.requires_grad_() for name, w in start.items()}
    for _ in range(3):  # S fits into a batch
        scores = plain_features(weights, X) @ weights["head.weight"].T + weights["head.bias"]
        ce = -torch.log_softmax(scores, 1)[range(8), method.task.classes()].mean()
        slopes = torch.autograd.grad(ce, list(weights.values()), create_graph=True)
        weights = {name: w - lr * g for (name, w), g in zip(weights.items(), slopes, strict=True)}
    missed = sum((weights[name] - target[name]).square().sum() for name in weights)
    expected = missed / sum((start[name] - target[name]).square().sum() for name in weights)
    d_X, d_lr = torch.autograd.grad(expected, (X, lr))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert method.lr.grad is not None
    assert method.lr.grad.item() == pytest.approx(d_lr.item(), rel=1e-2)
    assert method.X.grad is not None
    assert F.cosine_similarity(method.X.grad.flatten().double(), d_X.flatten(), dim=0) > 0.9999
    assert method.X.grad.norm().item() == pytest.approx(d_X.norm().item(), rel=1e-3)


def test_students_start_before_the_last_epoch_and_end_m_epochs_on(
    toy: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = mtt_of(toy, experts=2, expert_epochs=4, match_epochs=2, start_before=2)
    method.prepare()
    asked: list[tuple[int, int]] = []
    weights = method.experts.weights
    monkeypatch.setattr(method.experts, "weights", lambda i, t: (asked.append((i, t)), weights(i, t))[1])
    for step in range(40):
        method.gradient(step)
    pairs = set(zip(asked[::2], asked[1::2], strict=True))
    assert pairs == {((i, t), (i, t + 2)) for i in (0, 1) for t in (0, 1)}


def test_batches_go_through_the_whole_set(toy: ImageData) -> None:
    rows = list(mtt_of(toy, student_steps=4, batch=4).batches())
    assert [len(part) for part in rows] == [4, 4, 4, 4]
    assert sorted(torch.cat(rows[:2]).tolist()) == sorted(torch.cat(rows[2:]).tolist()) == list(range(8))
    assert rows[0].tolist() != rows[2].tolist()
    assert [len(part) for part in mtt_of(toy, student_steps=2, batch=100).batches()] == [8, 8]


def test_the_student_is_augmented_in_every_step(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    told, original = [], mtt.augmentation

    def watched(family: str, flip: bool, *generators: torch.Generator) -> Callable[[Tensor], Tensor]:
        augment = original(family, flip, *generators)
        return lambda images: (told.append((family, flip, images.requires_grad)), augment(images))[1]

    monkeypatch.setattr(mtt, "augmentation", watched)
    method = mtt_of(toy, student_steps=3)
    method.prepare()
    assert set(told) == {("dsa", True, False)}  # the experts
    told.clear()
    method.gradient(0)
    assert told == [("dsa", True, True)] * 3


def test_the_learning_rate_is_learned_and_stays_positive(toy: ImageData) -> None:
    method = mtt_of(toy, lr_student=0.02, lr_lr=1e-4)
    distil(method)
    assert method.facts()["student_lr"] != pytest.approx(0.02, rel=1e-6)
    for wild in (-1.0, 0.0, 1e-5):
        with torch.no_grad():
            method.lr.fill_(wild)
            method.project()
        assert method.lr.item() == pytest.approx(2e-4)


def test_half_precision_points_the_same_way(toy: ImageData) -> None:
    store = Memory()
    exact = mtt_of(toy, store, width=32, student_steps=5)
    exact.prepare()
    task: Any = replace(exact.task, engine=Engine(torch.device("cpu"), bf16=True))
    half = method_of("mtt", task, width=32, student_steps=5)
    assert isinstance(half, MTT)
    half.experts = exact.experts
    for method in (exact, half):
        method.gradient(0)
    assert exact.X.grad is not None
    assert half.X.grad is not None
    assert F.cosine_similarity(exact.X.grad.flatten(), half.X.grad.flatten(), dim=0) > 0.97


def test_steps_bring_students_nearer(toy: ImageData) -> None:
    method = mtt_of(toy, start_before=1, lr_student=0.05, lr_images=100, student_steps=4, steps=30, batch=8)
    method.prepare()
    before = sum(method.gradient(10**6 + i).item() for i in range(8))
    distil(method)
    assert sum(method.gradient(10**6 + i).item() for i in range(8)) < before


# --------------------------------------------------------------------------------------------------------- the experts


def test_an_epoch_is_plain_gradient_descent(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    still(monkeypatch)
    method = mtt_of(toy, expert_batch=160, expert_lr=0.1, expert_epochs=2)
    method.prepare()
    before, after = (method.experts.weights(0, e) for e in (0, 1))
    weights = {name: w.double().requires_grad_() for name, w in unflatten(before, method.net).items()}
    X = method.task.real.inputs(toy.images).double()
    scores = plain_features(weights, X) @ weights["head.weight"].T + weights["head.bias"]
    slopes = torch.autograd.grad(F.cross_entropy(scores, toy.labels), list(weights.values()))
    expected = torch.cat([(w - 0.1 * g).flatten() for w, g in zip(weights.values(), slopes, strict=True)])
    assert (after - expected).abs().max() < 1e-5
    assert (after - before).abs().max() > 1e-3


def test_experts_are_trained_once_and_only_as_far_as_students_look(toy: ImageData) -> None:
    store = Counting()
    method = mtt_of(toy, store, experts=2, expert_epochs=50, start_before=2, match_epochs=1)
    seconds = method.prepare()
    assert store.saved == [f"{i:03d}-{e:03d}" for i in (0, 1) for e in (0, 1, 2)]
    assert seconds > 0
    again = mtt_of(toy, store, experts=2, expert_epochs=50, start_before=2, match_epochs=1)
    assert again.prepare() == seconds  # what they took when they were made
    assert len(store.saved) == 6
    assert again.facts() | {"student_lr": 0} == {
        "experts": 2, "expert_epochs": 2, "expert_seconds": round(seconds, 1), "student_lr": 0
    }  # fmt: skip
    store.saved.clear()
    more = mtt_of(toy, store, experts=3, expert_epochs=50, start_before=3, match_epochs=1)
    more.prepare()
    assert store.saved == ["000-003", "001-003", "002-000", "002-001", "002-002", "002-003"]


@pytest.mark.parametrize(
    "change",
    [{"expert_lr": 0.02}, {"expert_batch": 32}, {"expert_images": 80}, {"width": 4}, {"norm": "none"}, {"seed": 1},
     {"doubling_widths": True}],
)  # fmt: skip
def test_what_decides_on_an_expert_is_in_its_name(toy: ImageData, change: dict[str, Any]) -> None:
    assert mtt_of(toy).experts.entry(0, 1) != mtt_of(toy, **change).experts.entry(0, 1)


def test_the_data_is_in_an_experts_name_what_students_do_is_not(toy: ImageData, grey_toy: ImageData) -> None:
    name = mtt_of(toy).experts.entry(0, 1)
    assert mtt_of(toy, student_steps=5, steps=9, lr_images=3, experts=7, init="noise").experts.entry(0, 1) == name
    assert mtt_of(grey_toy).experts.entry(0, 1) != name
    assert mtt_of(toy.head(100)).experts.entry(0, 1) != name
    task = task_of(toy)
    others = [replace(task, flip=False), replace(task, engine=Engine(torch.device("cpu"), bf16=True))]
    for other in others:
        method: Any = method_of("mtt", other)
        assert method.experts.entry(0, 1) != name


def test_an_interrupted_expert_goes_on_from_its_last_epoch(toy: ImageData) -> None:
    whole, broken = Memory(), Counting()
    settings: dict[str, Any] = {"experts": 2, "expert_epochs": 3}
    mtt_of(toy, whole, **settings).prepare()

    def stop(event: Event) -> None:
        if isinstance(event, Step) and event.step == 5:  # the second epoch of the second expert is not kept any more
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mtt_of(toy, broken, **settings).prepare(stop)
    assert broken.saved == ["000-000", "000-001", "000-002", "000-003", "001-000", "001-001"]
    mtt_of(toy, broken, **settings).prepare()
    assert broken.saved[6:] == ["001-002", "001-003"]
    assert whole.kept.keys() == broken.kept.keys()
    assert all(torch.equal(whole.kept[name]["weights"], broken.kept[name]["weights"]) for name in whole.kept)


DAMAGE: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "not finite": lambda e: e | {"weights": torch.where(torch.arange(len(e["weights"])) == 3, math.nan, e["weights"])},
    "too short": lambda e: e | {"weights": e["weights"][1:]},
    "two-dimensional": lambda e: e | {"weights": e["weights"][None]},
    "another type": lambda e: e | {"weights": e["weights"].double()},
    "negative time": lambda e: e | {"seconds": torch.tensor(-1.0)},
    "many times": lambda e: e | {"seconds": torch.zeros(3)},
    "endless time": lambda e: e | {"seconds": torch.tensor(math.nan)},
    "no time": lambda e: {"weights": e["weights"]},
    "nothing": lambda e: {},
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_epoch_is_trained_again_with_those_after_it(toy: ImageData, damage: str) -> None:
    store = Counting()
    method = mtt_of(toy, store, expert_epochs=3)
    method.prepare()
    intact = {name: entry["weights"].clone() for name, entry in store.kept.items()}
    name = method.experts.entry(0, 2)
    store.kept[name] = DAMAGE[damage](store.kept[name])
    store.saved.clear()
    with pytest.raises(RunError, match="gone or damaged"):
        method.experts.weights(0, 2)
    mtt_of(toy, store, expert_epochs=3).prepare()
    assert store.saved == ["000-002", "000-003"]
    assert all(torch.equal(store.kept[name]["weights"], intact[name]) for name in intact)


def test_progress_is_told(toy: ImageData) -> None:
    store, seen = Memory(), []  # type: tuple[Memory, list[Event]]
    mtt_of(toy, store, experts=2).prepare(seen.append)
    steps = [event for event in seen if isinstance(event, Step)]
    assert [(s.phase, s.step, s.total) for s in steps] == [("experts", n, 4) for n in (1, 2, 3, 4)]
    assert all(math.isfinite(s.values["loss"]) for s in steps)
    done = [event for event in seen if isinstance(event, Done)]
    assert [event.phase for event in done] == ["experts"]
    again: list[Event] = []
    mtt_of(toy, store, experts=2).prepare(again.append)
    assert [event for event in again if isinstance(event, Done)] == done  # what all took, not this look at them
    assert not [event for event in seen if isinstance(event, Note)]
    seen.clear()
    mtt_of(toy, store, experts=3).prepare(seen.append)
    assert [event.step for event in seen if isinstance(event, Step)] == [5, 6]
    assert [event.text for event in seen if isinstance(event, Note)] == ["4 of 6 epochs of experts were there already."]


def test_an_expert_that_diverges_is_told_and_not_kept(toy: ImageData) -> None:
    store = Counting()
    with pytest.raises(DivergedError, match="after epoch 1"):
        mtt_of(toy, store, norm="none", expert_lr=1e30).prepare()
    assert store.saved == ["000-000"]


def test_experts_on_a_part_of_the_images_see_every_class_alike(toy: ImageData) -> None:
    experts = mtt_of(toy, expert_images=41).experts
    rows = experts.images(0)
    assert torch.bincount(toy.labels[rows]).tolist() == [10] * 4
    assert len(set(rows.tolist())) == 40
    assert torch.equal(rows, experts.images(0))
    assert rows.tolist() != experts.images(1).tolist()
    assert sorted(mtt_of(toy).experts.images(0).tolist()) == list(range(160))
    assert len(mtt_of(toy, expert_images=10**6).experts.images(0)) == 160


# -------------------------------------------------------------------------------------------------------- the settings


def test_published_settings_follow_classes_and_ipc() -> None:
    usual = MTTSettings()
    assert schedule_for(usual, 10, 1) == Schedule(50, 2, 2, 10, 100.0, 1e-7, 0.01)
    assert schedule_for(usual, 10, 10).student_steps == 30
    assert schedule_for(usual, 100, 50).batch == 125
    assert schedule_for(usual, 4, 10) == Schedule()
    assert schedule_for(MTTSettings(student_steps=7, lr_lr=0.0), 10, 10) == replace(
        schedule_for(usual, 10, 10), student_steps=7, lr_lr=0.0
    )
    short = schedule_for(MTTSettings(expert_epochs=6), 10, 10)
    assert short.start_before + short.match_epochs - 1 == 6
    assert schedule_for(MTTSettings(expert_epochs=2), 10, 10).start_before == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"expert_epochs": 1}, "2 epochs on"),
        ({"student_steps": 0}, r"'baseline\.student_steps'"),
        ({"start_before": 0}, r"'baseline\.start_before'"),
        ({"batch": 0}, r"'baseline\.batch'"),
        ({"lr_student": -1}, r"'baseline\.lr_student'"),
        ({"expert_images": 3}, r"'baseline\.expert_images' must be at least 4"),
        ({"experts": 0}, r"'baseline\.experts'"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(toy: ImageData, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        mtt_of(toy, **settings)
    assert caught.value.hint


def test_weights_come_back_as_they_were(toy: ImageData) -> None:
    method = mtt_of(toy)
    flat = torch.cat([p.flatten() for p in doubles(method.net).values()])
    shaped = unflatten(flat, method.net)
    assert all(torch.equal(shaped[name], p) for name, p in doubles(method.net).items())
    assert list(shaped) == [name for name, _ in method.net.named_parameters()]


def test_the_learned_learning_rate_goes_with_the_set(toy: ImageData) -> None:
    task = task_of(toy)
    method = method_of("mtt", task, lr_lr=1e-2)
    distil(method)
    made = finished(method, real_images(toy, task.rows, True, "initial"))
    assert made.learned_lr == method.lr.item() != 0.01  # type: ignore[attr-defined]
    other = method_of("dm", task)
    assert finished(other, real_images(toy, task.rows, True, "initial")).learned_lr is None
