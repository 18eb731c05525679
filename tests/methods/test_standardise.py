"""Steps on pixels as large as those of the authors' code: what images are standardised by, and how far one step moves a pixel."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from method_case import method_of, task_of
from torch import Tensor

from ddtool.data import whitening
from ddtool.data.images import ImageData, Source
from ddtool.methods import Method, distil, find, settings_of
from ddtool.methods.base import CIFAR

THEIRS = ["dc", "dsa", "dm", "mtt", "idc"]
"""The methods whose code standardises CIFAR by less than the deviation of all pixels."""
CALLED: Source = {"name": "cifar10"}


@pytest.fixture
def cifar(toy: ImageData) -> ImageData:
    """`toy` under another name."""
    return replace(toy, source=CALLED)


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ({"name": "cifar10"}, "cifar10"), ({"name": "/data/CIFAR-100/"}, "cifar100"), ({"name": "fashion_mnist"}, "fashionmnist"),
        ({"name": "mnist@abc123"}, "mnist"), ({"name": "c10", "id": "uoft-cs/cifar10"}, "cifar10"), ({}, ""),
    ],
)  # fmt: skip
def test_what_a_dataset_is_called(toy: ImageData, source: Source, name: str) -> None:
    assert task_of(replace(toy, source=source)).dataset == name


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_cifars_are_standardised_as_in_the_authors_code(name: str, toy: ImageData) -> None:
    task = task_of(replace(toy, source={"name": name})).as_published()
    assert (task.real.data.mean, task.real.data.std) == CIFAR
    assert task.real.inputs.std.flatten().tolist() == pytest.approx([0.2023, 0.1994, 0.2010])
    assert torch.equal(task.start()[0], task.real.inputs(toy.images[task.rows]))


def test_others_and_whitened_ones_stay_as_they_are(toy: ImageData, cifar: ImageData) -> None:
    plain = toy.transform
    fitted = whitening.fit(lambda rows: plain.standardise(toy.images[rows]), torch.arange(len(toy)), "dct", 0.1)
    for data in (toy, replace(cifar, whitening=fitted)):
        task = task_of(data)
        assert task.as_published() is task


@pytest.mark.parametrize("name", THEIRS)
def test_published_settings_take_theirs_and_those_for_minutes_what_is_measured(name: str) -> None:
    published: Any = settings_of(name, {})
    quick: Any = settings_of(name, dict(find(name).quick_settings))
    assert (published.standardise, quick.standardise) == ("published", "measured")


@pytest.mark.parametrize("name", THEIRS)
def test_a_method_by_published_settings_is_one_on_data_of_that_deviation(
    name: str, toy: ImageData, cifar: ImageData
) -> None:
    """From the first random number to the last bit of the pixels."""
    mean, std = CIFAR
    ours = method_of(name, task_of(cifar), steps=3, standardise="published")
    theirs = method_of(name, task_of(replace(toy, mean=mean, std=std)), steps=3, standardise="measured")
    measured = method_of(name, task_of(cifar), steps=3, standardise="measured")
    for method in (ours, theirs, measured):
        distil(method)
    assert torch.equal(ours.pixels(), theirs.pixels())
    assert not torch.equal(ours.pixels(), measured.pixels())


def pixel_step(method: Method, target: Tensor) -> tuple[Tensor, Tensor]:
    """How far one step of the method's own optimiser down ½‖pixels − target‖² moves each pixel, and pixels − target before it."""
    inputs = method.task.real.inputs
    pixels = method.X * inputs.std + inputs.mean
    before = pixels.detach().clone()
    method.optimiser.zero_grad()
    (0.5 * (pixels - target).square().sum()).backward(inputs=[method.X])
    method.optimiser.step()
    return method.X.detach() * inputs.std + inputs.mean - before, before - target


@pytest.mark.parametrize("name", ["dc", "dsa", "dm", "mtt"])
def test_a_step_moves_pixels_by_the_square_of_the_deviation(name: str, cifar: ImageData) -> None:
    """−lr σ² ∂L/∂pixel with the σ of the authors' code; by the deviation of all pixels it is (σ'/σ)² as far."""
    target = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(3))
    rate = {"mtt": "lr_images"}.get(name, "lr")
    for standardise, std in (("published", CIFAR[1]), ("measured", cifar.std)):
        method = method_of(name, task_of(cifar), standardise=standardise, init="real", **{rate: 0.25})
        moved, gradient = pixel_step(method, target)
        square = torch.tensor(std).view(1, 3, 1, 1).square()
        assert torch.allclose(moved, -0.25 * square * gradient, atol=2e-6)


def test_idc_steps_are_on_pixels_whatever_the_deviation(cifar: ImageData) -> None:
    """Its rate is for pixels in [0, 1]: −lr ∂L/∂pixel."""
    method = method_of("idc", task_of(cifar), standardise="published", lr=0.5)
    method.gradient(0)
    assert method.X.grad is not None
    inputs, before = method.task.real.inputs, method.X.detach().clone()
    by_pixel = method.X.grad * inputs.std  # the gradient was divided by σ² and is one on X, which is pixels / σ
    method.optimiser.step()
    moved = (method.X.detach() - before) * inputs.std
    assert torch.allclose(moved, -0.5 * by_pixel, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("name", THEIRS)
def test_images_at_the_start_are_the_real_ones(name: str, toy: ImageData, cifar: ImageData) -> None:
    task = task_of(cifar)
    more = {"factor": 1} if name == "idc" else {}
    method = method_of(name, task, standardise="published", init="real", **more)
    assert torch.allclose(method.pixels(), toy.images[task.rows].float() / 255, atol=1e-6)
