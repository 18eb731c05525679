"""How near images are to real ones: against distances one by one, for copies, in passes, of sets with several images in one."""

from dataclasses import replace

import pytest
import torch

from ddtool.data.images import ImageData, draw_per_class, real_images
from ddtool.evaluation import nearest
from ddtool.evaluation.nearest import distances, nearness


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("at_once", [1, 5 * 3 * 16 * 16, 2**23])
def test_distances_one_by_one(toy: ImageData, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "AT_ONCE", at_once)
    images = torch.rand(6, 3, 16, 16, generator=rng())
    expected = [
        min(float((image.double() * 255 - real.double()).square().mean().sqrt()) for real in toy.images)
        for image in images
    ]
    assert distances(images, toy.images).tolist() == pytest.approx(expected, rel=1e-4)


def test_a_copy_is_at_no_distance_and_a_level_off_at_one(toy: ImageData) -> None:
    copies = toy.images[[3, 70, 159]]
    assert distances(copies.float() / 255, toy.images).tolist() == pytest.approx([0, 0, 0], abs=1e-4)
    moved = torch.where(copies < 128, copies + 1, copies - 1)
    assert distances(moved.float() / 255, toy.images).tolist() == pytest.approx([1, 1, 1], abs=1e-3)


def test_nearness_of_a_set(toy: ImageData) -> None:
    rows = draw_per_class(toy, 2, rng())
    real = real_images(toy, rows, flip=False)
    assert nearness(real, toy) == {"median": 0.0, "least": 0.0}
    noise = torch.rand(real.images.shape, generator=rng(1))
    mixed = replace(real, images=torch.where(torch.arange(8).view(-1, 1, 1, 1) < 1, real.images, noise))
    found = nearness(mixed, toy)
    assert found["least"] == 0.0
    alone = distances(mixed.rounded().images, toy.images)
    assert found["median"] == round(alone.median().item(), 1) > 10


def test_of_images_in_images_each_counts(toy: ImageData) -> None:
    real = real_images(toy, draw_per_class(toy, 1, rng()), flip=False)
    seen = replace(real, factor=2)
    expected = distances(seen.rounded().decoded().images, toy.images)
    assert nearness(seen, toy)["least"] == round(expected.min().item(), 1) > 0


def test_of_many_images_the_first_are_compared(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "MOST", 4)
    real = real_images(toy, draw_per_class(toy, 3, rng()), flip=False)
    later = replace(real, images=torch.cat([real.images[:4], torch.rand(8, 3, 16, 16, generator=rng())]))
    assert nearness(later, toy) == {"median": 0.0, "least": 0.0}


def test_of_a_very_large_dataset_fewer_are_compared(toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    real = real_images(toy, draw_per_class(toy, 3, rng()), flip=False)
    later = replace(real, images=torch.cat([real.images[:5], torch.rand(7, 3, 16, 16, generator=rng())]))
    for work, median in ((12 * toy.images.numel(), True), (5 * toy.images.numel(), False), (0, False)):
        monkeypatch.setattr(nearest, "WORK", work)
        assert (nearness(later, toy)["median"] > 0) is median  # type: ignore[operator]
