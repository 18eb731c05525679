"""Tasks of large sets: whose classes, which images, how they are changed, and what stays on the disk."""

import resource
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import toy_images
from PIL import Image
from torch import Tensor

from ddtool.config import MetaConfig
from ddtool.data.images import ImageData
from ddtool.errors import DataError
from ddtool.events import Event, Note
from ddtool.pretraining.tasks import LargeSet, luminance, plan_task, recoloured, recolouring, task_images

CPU = torch.device("cpu")
COUNTS = (9, 6, 3, 8, 12, 7, 10)
META = MetaConfig(ways=(2, 3), ipc=(1, 3), label_images=5, grey=0.0, flip=False, jitter=0.0)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(counts: tuple[int, ...] = COUNTS, name: str = "numbers") -> ImageData:
    """Images of 3x4x4 whose first pixel is (class, number of the image, 0); the rest is noise."""
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=rng(1))]
    images = torch.randint(0, 256, (len(labels), 3, 4, 4), generator=rng(2)).to(torch.uint8)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = labels.to(torch.uint8), torch.arange(len(labels)).to(torch.uint8)
    names = tuple(f"{name} {c}" for c in range(len(counts)))
    return ImageData(images, labels, names, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), {"name": name})


@pytest.fixture
def large() -> LargeSet:
    return LargeSet.of(numbered(), 2, 1, 0)


# --------------------------------------------------------------------------------------------------- whose classes


def test_held_out_classes_are_no_task_classes() -> None:
    splits = set()
    for seed in range(10):
        large = LargeSet.of(numbered(), 2, 1, seed)
        assert len(large.held) == 2
        assert sorted(large.held + large.train) == list(range(7))
        splits.add(tuple(large.held))
    assert len(splits) > 3  # the seed chooses
    assert LargeSet.of(numbered(), 2, 1, 3).held == LargeSet.of(numbered(), 2, 1, 3).held


def test_small_classes_are_left_out_aloud() -> None:
    events: list[Event] = []
    large = LargeSet.of(numbered(), 2, 7, 0, events.append)
    assert sorted(large.held + large.train) == [0, 3, 4, 5, 6]
    assert events == [Note("2 of 7 classes of numbers hold fewer than 7 images: left out.")]
    events.clear()
    LargeSet.of(numbered(), 2, 3, 0, events.append)
    assert events == []


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(DataError, match="numbers has 3 classes of at least 9 images; 2 are held out") as caught:
        LargeSet.of(numbered(), 2, 9, 0)
    assert "held_out" in caught.value.hint
    assert len(LargeSet.of(numbered(), 2, 8, 0).train) == 2


# ----------------------------------------------------------------------------------------------------- which images


def test_draws_are_without_replacement_and_image_major(large: LargeSet) -> None:
    seen: set[int] = set()
    for seed in range(60):
        rows = large.draw([4, 0, 6], 5, rng(seed))
        assert large.data.labels[rows].tolist() == [4, 0, 6] * 5
        assert len(set(rows.tolist())) == 15
        seen |= set(rows.tolist())
    assert seen == {i for i, c in enumerate(large.data.labels.tolist()) if c in (0, 4, 6)}  # every image can be drawn


@pytest.mark.parametrize("wanted", [3, 4, 100])
def test_no_more_of_each_class_than_the_smallest_holds(wanted: int, large: LargeSet) -> None:
    rows = large.draw([2, 4], wanted, rng())
    assert large.data.labels[rows].tolist() == [2, 4] * 3
    assert {i for i, c in enumerate(large.data.labels.tolist()) if c == 2} <= set(rows.tolist())


def test_images_come_in_the_order_asked_for(large: LargeSet) -> None:
    rows = torch.tensor([40, 3, 17, 0, 54])
    assert torch.equal(large.images(rows), large.data.images[rows])


class Disk(torch.Tensor):
    """Images that note which rows are read of them."""

    read: list[Tensor]

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        if func is Tensor.__getitem__:
            args[0].read.append(args[1])
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))


def test_a_task_reads_its_own_rows_from_front_to_back() -> None:
    data = numbered()
    disk = data.images.as_subclass(Disk)
    disk.read = []
    large = LargeSet.of(replace(data, images=disk), 2, 1, 0)
    assert disk.read == []
    plan = plan_task([large], META, rng())
    made = task_images(plan, rng(), CPU)
    (rows,) = disk.read
    assert rows.tolist() == sorted(made.images[:, 1, 0, 0].tolist())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_a_memory_mapped_set_is_never_copied(tmp_path: Path) -> None:
    """1 GB on a sparse disk: tasks of it take a fraction of that."""
    n, path = 80_000, tmp_path / "images.npy"
    np.lib.format.open_memmap(path, "w+", np.uint8, (n, 3, 64, 64)).flush()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = torch.from_numpy(np.load(path, mmap_mode="c"))
    data = ImageData(images, torch.arange(n) % 50, tuple(map(str, range(50))), (0.5,) * 3, (0.3,) * 3)
    large = LargeSet.of(data, 5, 100, 0)
    config = MetaConfig(ways=(2, 4), ipc=(1, 5), label_images=50, grey=0.5, jitter=0.3)
    for seed in range(4):
        assert len(task_images(plan_task([large], config, rng(seed)), rng(seed), CPU).images) >= 100
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 300


# -------------------------------------------------------------------------------------------------------- the plan


def test_plans_stay_in_their_bounds_and_reach_them(large: LargeSet) -> None:
    plans = [plan_task([large], replace(META, grey=0.3, flip=True, jitter=0.2), rng(seed)) for seed in range(300)]
    assert Counter(len(p.classes) for p in plans).keys() == {2, 3}
    assert Counter(p.ipc for p in plans).keys() == {1, 2, 3}
    assert {c for p in plans for c in p.classes} == set(large.train)
    assert all(len(set(p.classes)) == len(p.classes) for p in plans)
    assert 60 < sum(p.grey for p in plans) < 120
    assert 120 < sum(p.flip for p in plans) < 180
    assert len({tuple(p.colour.flatten().tolist()) for p in plans if p.colour is not None}) == 300
    again = plan_task([large], replace(META, grey=0.3, flip=True, jitter=0.2), rng(7))
    assert (again.classes, again.ipc, again.grey, again.flip) == (
        plans[7].classes, plans[7].ipc, plans[7].grey, plans[7].flip,
    )  # fmt: skip


def test_what_is_not_wanted_does_not_happen(large: LargeSet) -> None:
    for seed in range(50):
        plan = plan_task([large], META, rng(seed))
        assert (plan.grey, plan.flip, plan.colour) == (False, False, None)


def test_a_task_is_of_one_set_chosen_by_its_classes() -> None:
    sets = [LargeSet.of(numbered((5,) * 11, "big"), 2, 1, 0), LargeSet.of(numbered((5,) * 5, "small"), 2, 1, 0)]
    chosen = Counter()  # type: Counter[str]
    for seed in range(400):
        plan = plan_task(sets, META, rng(seed))
        data = task_images(plan, rng(seed), CPU)
        (name,) = {n.split()[0] for n in data.class_names}
        assert {int(n.split()[1]) for n in data.class_names} <= set(plan.large.train)
        assert plan.large.data.source["name"] == name
        chosen[name] += 1
    assert 250 < chosen["big"] < 350  # 9 classes of 12


def test_fewer_classes_than_ways(large: LargeSet) -> None:
    plan = plan_task([large], replace(META, ways=(20, 20)), rng())
    assert sorted(plan.classes) == large.train


# ------------------------------------------------------------------------------------------------- colour, grey, flips


def test_an_unchanged_task(large: LargeSet) -> None:
    plan = plan_task([large], META, rng(3))
    data = task_images(plan, rng(4), CPU)
    assert data.images[:, 0, 0, 0].tolist() == plan.classes * 5
    assert data.labels.tolist() == list(range(len(plan.classes))) * 5
    assert data.class_names == tuple(f"numbers {c}" for c in plan.classes)
    assert (data.mean, data.std) == (large.data.mean, large.data.std)
    assert torch.equal(data.images, large.data.images[data.images[:, 1, 0, 0].long()])


def test_a_flipped_task_is_flipped_whole(large: LargeSet) -> None:
    plan = plan_task([large], META, rng(3))
    upright, flipped = (task_images(replace(plan, flip=flip), rng(4), CPU) for flip in (False, True))
    assert torch.equal(flipped.images, upright.images.flip(3))
    assert not torch.equal(flipped.images, upright.images)


def test_a_grey_task_has_one_channel_and_its_own_statistics(large: LargeSet) -> None:
    plan = plan_task([large], META, rng(3))
    colour, grey = (task_images(replace(plan, grey=grey), rng(4), CPU) for grey in (False, True))
    assert grey.images.dtype == torch.uint8
    assert grey.shape == (1, 4, 4)
    for ours, image in zip(grey.images, colour.images, strict=True):
        pil = np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")).astype(int)
        assert np.abs(ours[0].numpy().astype(int) - pil).max() <= 1
    pixels = grey.images.double() / 255
    assert grey.mean == pytest.approx((pixels.mean().item(),), abs=1e-5)
    assert grey.std == pytest.approx((pixels.std().item(),), abs=1e-5)


def test_grey_sets_stay_as_they_are() -> None:
    large = LargeSet.of(toy_images(10, 0, channels=1), 2, 1, 0)
    plan = plan_task([large], replace(META, grey=1.0), rng())
    data = task_images(plan, rng(), CPU)
    assert plan.grey
    assert data.shape == (1, 16, 16)
    assert data.mean == large.data.mean


def test_a_black_task_can_be_normalised() -> None:
    data = replace(numbered(), images=torch.zeros(55, 3, 4, 4, dtype=torch.uint8))
    plan = plan_task([LargeSet.of(data, 2, 1, 0)], replace(META, grey=1.0), rng())
    assert task_images(plan, rng(), CPU).std == (1e-3,)


def by_hand(pixel: list[float], factors: list[float]) -> list[float]:
    """Saturation, contrast, channel gains, brightness of one RGB pixel in [0, 1]."""
    brightness, contrast, saturation, *gains = factors
    grey = 0.299 * pixel[0] + 0.587 * pixel[1] + 0.114 * pixel[2]
    out = []
    for value, gain in zip(pixel, gains, strict=True):
        value = grey + saturation * (value - grey)
        value = 0.5 + contrast * (value - 0.5)
        out.append(min(max(value * gain * brightness, 0.0), 1.0))
    return out


def test_recolouring_is_what_it_says() -> None:
    images = torch.randint(0, 256, (3, 3, 2, 2), generator=rng()).to(torch.uint8)
    factors = (1 + 0.4 * (2 * torch.rand(6, generator=rng(1)) - 1)).tolist()
    ours = recoloured(images, recolouring(0.4, rng(1)))
    assert ours.dtype == torch.uint8
    for n in range(3):
        for y in range(2):
            for x in range(2):
                expected = by_hand((images[n, :, y, x] / 255).tolist(), factors)
                assert (ours[n, :, y, x] / 255).tolist() == pytest.approx(expected, abs=0.5 / 255 + 1e-5)


def test_recolouring_of_grey_is_that_of_a_grey_pixel_on_average() -> None:
    images = torch.randint(60, 200, (3, 1, 2, 2), generator=rng()).to(torch.uint8)
    colour = recolouring(0.2, rng(1))
    coloured = recoloured(images.expand(-1, 3, -1, -1), colour).float().mean(1, keepdim=True)
    assert (recoloured(images, colour).float() - coloured).abs().max() <= 1


def test_no_strength_changes_nothing() -> None:
    images = torch.randint(0, 256, (3, 3, 2, 2), generator=rng()).to(torch.uint8)
    assert torch.equal(recoloured(images, recolouring(0.0, rng(1))), images)


def test_luminance_of_pure_colours() -> None:
    images = (255 * torch.eye(3)).to(torch.uint8).view(3, 3, 1, 1)
    assert luminance(images).flatten().tolist() == [76, 150, 29]
