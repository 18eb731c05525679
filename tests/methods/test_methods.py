"""What every method of the field promises, whichever it is; what is special to one is tested in a file of its own."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from method_case import TINY, by_steps, method_of, task_of
from torch import Tensor

from ddtool.config import LARGEST_FACTOR
from ddtool.data.images import ImageData, one_hot
from ddtool.errors import UsageError
from ddtool.events import Event, Step
from ddtool.methods import distil, find, settings_of
from ddtool.runtime.signals import Interrupted

EVERY = sorted(by_steps())
LEARNING = [name for name in EVERY if find(name).learns]


def finished(name: str, data: ImageData, **settings: Any) -> tuple[Tensor, Tensor]:
    method = method_of(name, task_of(data), **settings)
    distil(method)
    return method.result()


def test_every_method_is_tested_here() -> None:
    assert set(TINY) == set(by_steps())


@pytest.mark.parametrize("name", EVERY)
def test_gives_images_in_range_and_labels_of_its_kind(name: str, toy: ImageData, untouched_global_rng: None) -> None:
    task = task_of(toy)
    method = method_of(name, task)
    spent = distil(method)
    X, Y = method.result()
    assert X.shape == (8, 3, 16, 16)
    assert Y.shape == (8, 4)
    pixels = X * task.real.inputs.std + task.real.inputs.mean
    assert pixels.min() >= -1e-6
    assert pixels.max() <= 1 + 1e-6
    assert not X.requires_grad
    assert not Y.requires_grad
    hard = one_hot(task.classes(), task.num_classes)
    assert torch.equal(Y, hard) != find(name).soft
    assert spent.steps == (6 if find(name).learns else 0)
    assert spent.step_seconds >= 0
    assert spent.overhead_seconds >= 0


@pytest.mark.parametrize("name", EVERY)
def test_a_grey_set_without_flip_works_as_well(name: str, grey_toy: ImageData) -> None:
    method = method_of(name, task_of(grey_toy, ipc=1, flip=False), steps=2)
    distil(method)
    assert method.result()[0].shape == (4, 1, 16, 16)


@pytest.mark.parametrize("name", EVERY)
def test_follows_from_the_seed(name: str, toy: ImageData) -> None:
    (X, Y), (again, labels) = finished(name, toy), finished(name, toy)
    assert torch.equal(X, again)
    assert torch.equal(Y, labels)


@pytest.mark.parametrize("name", LEARNING)
def test_changes_every_image(name: str, toy: ImageData) -> None:
    before = method_of(name, task_of(toy)).result()[0].clone()
    after = finished(name, toy)[0]
    assert ((after - before).flatten(1).abs().amax(1) > 0).all()


@pytest.mark.parametrize("name", LEARNING)
def test_resumes_to_the_same_bits(name: str, toy: ImageData, saver: Any, interrupt_at: Callable) -> None:
    whole = finished(name, toy)
    first = method_of(name, task_of(toy))
    with pytest.raises(Interrupted):
        distil(first, saver=saver, report=interrupt_at(3))
    second = method_of(name, task_of(toy))
    distil(second, saver=saver)
    assert all(torch.equal(a, b) for a, b in zip(whole, second.result(), strict=True))


@pytest.mark.parametrize("name", LEARNING)
def test_looking_at_the_set_between_the_steps_changes_nothing(name: str, toy: ImageData) -> None:
    method, seen = method_of(name, task_of(toy)), []
    distil(method, visit=lambda loop: seen.append((method.pixels().clone(), *(t.clone() for t in method.result()))))
    assert len(seen) == 7
    assert torch.equal(seen[0][0], method_of(name, task_of(toy)).pixels())
    assert all(torch.equal(a, b) for a, b in zip(seen[-1], (method.pixels(), *method.result()), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(finished(name, toy), method.result(), strict=True))


@pytest.mark.parametrize("name", LEARNING)
def test_a_budget_in_seconds_ends_it(name: str, toy: ImageData) -> None:
    method = method_of(name, task_of(toy), steps=10**9)
    assert 1 <= distil(method, seconds=0.2).steps < 10**6


@pytest.mark.parametrize("name", LEARNING)
def test_reports_losses_that_are_numbers(name: str, toy: ImageData) -> None:
    seen: list[Event] = []
    distil(method_of(name, task_of(toy)), report=seen.append)
    losses = [event.values["loss"] for event in seen if isinstance(event, Step) and event.phase == "distil"]
    assert len(losses) == 6
    assert all(loss == loss for loss in losses)


@pytest.mark.parametrize("name", EVERY)
def test_the_settings_for_minutes_are_settings(name: str, toy: ImageData) -> None:
    """They are taken as they stand, change what is published, and a step under them works."""
    quick = dict(find(name).quick_settings)
    assert (settings_of(name, quick) != settings_of(name, {})) == bool(quick)
    assert quick or not find(name).learns
    small = {key: value for key, value in TINY[name].items() if key not in quick} | {"steps": 1}
    distil(method_of(name, task_of(toy), **quick | small))


def test_settings_are_checked() -> None:
    with pytest.raises(UsageError, match="Unknown method 'rendom'"):
        settings_of("rendom", {})
    with pytest.raises(UsageError, match="'baseline' are those of other methods"):
        settings_of("mgdd", {})
    with pytest.raises(UsageError, match=r"'baseline\.lr_images'"):
        settings_of("random", {"lr_images": 1})
    with pytest.raises(UsageError, match=r"'baseline\.width' must be at least 1"):
        settings_of("random", {"width": 0})
    with pytest.raises(UsageError, match=r"'baseline\.init' must be 'real' or 'noise', got 'zeros'"):
        settings_of("random", {"init": "zeros"})
    with pytest.raises(UsageError, match="Unknown norm"):
        settings_of("random", {"norm": "layer"})


def test_a_factor_that_no_set_may_have_is_refused_before_the_work() -> None:
    assert settings_of("idc", {"factor": LARGEST_FACTOR}).factor == LARGEST_FACTOR  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=f"'baseline.factor' must be at most {LARGEST_FACTOR}") as refusal:
        settings_of("idc", {"factor": LARGEST_FACTOR + 1})
    assert "baseline.factor=2" in refusal.value.hint
