"""Images in memory: normalisation, balanced draws, the synthetic set."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddtool.data.images import (
    BalancedSampler,
    ImageData,
    SyntheticSet,
    accuracy,
    draw_per_class,
    draw_pool,
    one_hot,
    real_images,
)
from ddtool.data.inputs import NetworkInput
from ddtool.errors import DataError, UsageError

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shuffled_labels(counts: list[int], seed: int = 0) -> torch.Tensor:
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return labels[torch.randperm(len(labels), generator=rng(seed))]


def data_of(counts: list[int]) -> ImageData:
    labels = shuffled_labels(counts)
    names = tuple(f"class {i}" for i in range(len(counts)))
    return ImageData(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8), labels, names, (0.5,), (0.25,))


# ------------------------------------------------------------------------------------------------------- image data


def test_image_data_facts(toy: ImageData) -> None:
    assert (len(toy), toy.num_classes, toy.shape) == (160, 4, (3, 16, 16))
    assert toy.class_counts().tolist() == [40] * 4
    assert torch.equal(toy.head(7).images, toy.images[:7])
    assert torch.equal(toy.head(7).labels, toy.labels[:7])
    assert len(toy.head(10**6)) == 160
    assert replace(toy, class_names=("a", "b", "c", "d", "none of it")).class_counts().tolist() == [40] * 4 + [0]


# ----------------------------------------------------------------------------------------------------- normalisation


def test_normaliser_is_the_affine_map_of_each_channel() -> None:
    inputs = NetworkInput((0.5, 0.25, 0.0), (0.25, 0.5, 1.0))
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 4, 5)
    out = inputs(images)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert out[1, :, 2, 3].tolist() == pytest.approx([-2.0, -0.1, 1.0])
    assert torch.allclose(inputs(images.float() / 255), out)


def test_normalised_training_images_have_zero_mean_and_unit_variance(toy: ImageData) -> None:
    x = NetworkInput(toy.mean, toy.std)(toy.images)
    assert torch.allclose(x.mean((0, 2, 3)), torch.zeros(3), atol=0.01)
    assert torch.allclose(x.std((0, 2, 3)), torch.ones(3), atol=0.01)


def test_normaliser_inverse(toy: ImageData) -> None:
    inputs = NetworkInput(toy.mean, toy.std)
    pixels = toy.images.float() / 255
    assert torch.allclose(inputs.inverse(inputs(toy.images)), pixels, atol=1e-6)
    outside = inputs.inverse(inputs(pixels * 4 - 2))
    assert torch.allclose(outside, (pixels * 4 - 2).clamp(0, 1), atol=1e-5)


def test_bound_cuts_pixels_to_the_unit_interval(toy: ImageData) -> None:
    inputs = NetworkInput(toy.mean, toy.std)
    pixels = torch.randn(5, 3, 4, 4, generator=rng()) + 0.5
    assert pixels.min() < 0
    assert pixels.max() > 1
    bounded = inputs.bound(inputs(pixels))
    assert torch.allclose(bounded, inputs(pixels.clamp(0, 1)), atol=1e-5)
    inputs.bound_(seen := inputs(pixels))
    assert torch.equal(seen, bounded)


# ------------------------------------------------------------------------------------------------------ balanced batches


def test_draws_among_some_images_are_those_of_a_copy_of_them() -> None:
    data = data_of([9, 4, 6])
    rows = torch.randperm(len(data), generator=rng(1))[:16]
    copy = replace(data, images=data.images[rows], labels=data.labels[rows])
    among, alone = BalancedSampler(data.labels, 3, rows), BalancedSampler(copy.labels, 3)
    assert torch.equal(among(30, rng()), rows[alone(30, rng())])
    assert torch.equal(draw_per_class(data, 2, rng(), among=rows), rows[draw_per_class(copy, 2, rng())])


@given(counts=COUNTS, n=st.integers(1, 40), seed=st.integers(0, 99))
def test_every_batch_is_balanced(counts: list[int], n: int, seed: int) -> None:
    labels = shuffled_labels(counts, seed)
    batch = BalancedSampler(labels, len(counts))(n, rng(seed))
    each = max(1, n // len(counts))
    assert torch.bincount(labels[batch], minlength=len(counts)).tolist() == [each] * len(counts)
    assert labels[batch].tolist() == sorted(labels[batch].tolist())  # grouped by class


def test_every_image_is_drawn_equally_often_within_its_class() -> None:
    counts = [1, 3, 20]
    labels = shuffled_labels(counts)
    drawn = torch.bincount(BalancedSampler(labels, 3)(60_000, rng()), minlength=len(labels)).float()
    expected = 20_000 / torch.tensor(counts, dtype=torch.float32)[labels]
    assert ((drawn - expected).abs() <= 5 * expected.sqrt()).all()


def test_balanced_batches_follow_from_the_generator(untouched_global_rng: None) -> None:
    sampler = BalancedSampler(shuffled_labels([50, 50]), 2)
    assert torch.equal(sampler(20, rng(1)), sampler(20, rng(1)))
    assert not torch.equal(sampler(20, rng(1)), sampler(20, rng(2)))
    stream = rng(1)
    assert not torch.equal(sampler(20, stream), sampler(20, stream))


# ------------------------------------------------------------------------------------------------------- draw per class


@given(counts=COUNTS, seed=st.integers(0, 99))
def test_draw_is_distinct_balanced_and_a_prefix_of_a_larger_one(counts: list[int], seed: int) -> None:
    data, C = data_of(counts), len(counts)
    draws = [draw_per_class(data, ipc, rng(seed)) for ipc in range(1, min(counts) + 1)]
    largest = draws[-1]
    assert len(set(largest.tolist())) == len(largest) == C * min(counts)
    for ipc, draw in enumerate(draws, 1):
        assert torch.equal(draw, largest[: C * ipc])
    assert torch.equal(data.labels[largest].view(-1, C), torch.arange(C).expand(min(counts), C))  # image-major


def test_draw_reaches_every_image_and_follows_from_the_generator(untouched_global_rng: None) -> None:
    data = data_of([3, 8])
    draws = [draw_per_class(data, 2, rng(seed)) for seed in range(100)]
    assert set(torch.cat(draws).tolist()) == set(range(11))
    assert torch.equal(draws[0], draw_per_class(data, 2, rng(0)))
    assert not all(torch.equal(draws[0], d) for d in draws)


def test_pool_follows_from_the_seed_and_grows_at_its_end() -> None:
    data = data_of([6, 9, 7])
    small, large = draw_pool(data, 2, 5), draw_pool(data, 6, 5)
    assert torch.equal(large[:6], small)
    assert torch.bincount(data.labels[large]).tolist() == [6, 6, 6]
    assert not torch.equal(draw_pool(data, 2, 6), small)


@pytest.mark.parametrize("ipc", [0, -1])
def test_draw_of_nothing_is_refused(ipc: int) -> None:
    with pytest.raises(UsageError, match=f"at least 1, got {ipc}"):
        draw_per_class(data_of([3, 3]), ipc, rng())


def test_draw_of_more_than_a_class_holds_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match=r"ipc 4 is more than class 'class 1' holds \(3 ") as caught:
        draw_per_class(data_of([5, 3, 9]), 4, rng())
    assert caught.value.hint == "Use --ipc 3 or less."


def test_empty_class_is_refused_with_a_hint() -> None:
    with pytest.raises(UsageError, match="class 'class 1' holds") as caught:
        draw_per_class(data_of([5, 0]), 1, rng())
    assert caught.value.hint == "Remove the empty class."


# ----------------------------------------------------------------------------------------------------- labels, accuracy


def test_one_hot_is_centred() -> None:
    y = one_hot(torch.tensor([2, 0]), 4)
    assert y.tolist() == [[-0.25, -0.25, 0.75, -0.25], [0.75, -0.25, -0.25, -0.25]]
    assert y.dtype == torch.float32


def test_accuracy_is_percent_of_largest_score_at_the_label() -> None:
    scores = torch.tensor([[1.0, 2.0], [5.0, -1.0], [0.0, 0.5], [3.0, 2.0]])
    assert accuracy(scores, torch.tensor([1, 0, 0, 0])) == 75.0


# -------------------------------------------------------------------------------------------------------- synthetic set


def synthetic(**changes: object) -> SyntheticSet:
    """3 classes, 2 images each."""
    hard = torch.tensor([0, 1, 2, 0, 1, 2])
    values = {"images": torch.zeros(6, 1, 4, 4), "labels": one_hot(hard, 3), "hard": hard, "ipc": 2}
    values |= {"class_names": ("a", "b", "c"), "mean": (0.5,), "std": (0.2,)}
    return SyntheticSet(**(values | changes))  # type: ignore[arg-type]


MISFITS = {
    "other ipc": {"ipc": 3},
    "an image too few": {"images": torch.zeros(5, 1, 4, 4)},
    "images without channels": {"images": torch.zeros(6, 4, 4)},
    "labels of more classes": {"labels": torch.zeros(6, 4)},
    "a label too few": {"labels": torch.zeros(5, 3)},
    "hard labels for soft": {"labels": torch.zeros(6)},
    "a hard label too few": {"hard": torch.zeros(5, dtype=torch.long)},
    "fewer names": {"class_names": ("a", "b")},
}


@pytest.mark.parametrize(
    "changes",
    MISFITS.values(),
    ids=MISFITS,
)
def test_a_set_that_does_not_fit_together_is_refused(changes: dict) -> None:
    assert len(synthetic()) == 6
    with pytest.raises(DataError, match="A synthetic set of ipc"):
        synthetic(**changes)


def test_probabilities_undo_the_centring_cut_negatives_and_sum_to_one() -> None:
    third = 1 / 3
    labels = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.25, -0.75], [-1.0, -2.0, -3.0], [3.0, 1.0, 0.0]]) - third
    p = synthetic(labels=torch.cat([labels, labels[:2]]), hard=torch.tensor([0, 0, 2, 1, 0, 0]))
    expected = torch.tensor([[1.0, 0.0, 0.0], [2 / 3, 1 / 3, 0.0], [0.0, 0.0, 1.0], [0.75, 0.25, 0.0]])
    assert torch.allclose(p.probabilities()[:4], expected, atol=1e-6)


def test_scaled_labels_are_the_same_distributions() -> None:
    labels = torch.randn(6, 3, generator=rng()) / 3
    plain = synthetic(labels=labels)
    tripled = plain.scaled(3.0)
    assert (plain.label_scale, tripled.label_scale) == (1.0, 3.0)
    assert torch.allclose(tripled.labels, 3 * labels)
    assert torch.allclose(tripled.probabilities(), plain.probabilities(), atol=1e-6)
    assert not torch.allclose(synthetic(labels=3 * labels).probabilities(), plain.probabilities(), atol=1e-2)
    assert torch.allclose(tripled.scaled(0.5).labels, labels / 2)
    assert torch.allclose(tripled.scaled(1.0).labels, labels)


@pytest.mark.parametrize(("classes", "scale"), [(2, 4.0), (10, 4.0), (11, 4.4), (100, 40.0)])
def test_the_usual_label_scale_grows_with_the_classes(classes: int, scale: float) -> None:
    names = tuple(f"c{k}" for k in range(classes))
    plain = synthetic(
        images=torch.zeros(classes, 1, 8, 8), labels=torch.eye(classes) - 1 / classes, hard=torch.arange(classes),
        ipc=1, class_names=names,
    )  # fmt: skip
    assert plain.scaled().label_scale == pytest.approx(scale)
    assert torch.allclose(plain.scaled().labels, scale * plain.labels)
    assert torch.allclose(plain.scaled(7.0).scaled().labels, scale * plain.labels, rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 999), scale=st.floats(1e-3, 1e3))
def test_probabilities_are_distributions(seed: int, scale: float) -> None:
    labels = torch.randn(6, 3, generator=rng(seed)) * scale
    p = synthetic(labels=labels).probabilities()
    assert (p >= 0).all()
    assert torch.allclose(p.sum(1), torch.ones(6), atol=1e-5)


def test_real_images_as_a_set(toy: ImageData) -> None:
    indices = draw_per_class(toy, 3, rng())
    plain = real_images(toy, indices, flip=False)
    assert torch.equal((plain.images * 255).round().to(torch.uint8), toy.images[indices])
    assert plain.images.max() <= 1
    assert torch.equal(plain.hard, toy.labels[indices])
    assert torch.equal(plain.labels, one_hot(toy.labels[indices], 4))
    assert (plain.ipc, plain.stage, plain.method, plain.flip) == (3, "random", "random", False)
    assert (plain.mean, plain.std, plain.class_names, plain.source) == (toy.mean, toy.std, toy.class_names, toy.source)
    solved = torch.randn(12, 4, generator=rng())
    initial = real_images(toy, indices, flip=True, stage="initial", labels=solved)
    assert (initial.stage, initial.method, initial.flip) == ("initial", "mgdd", True)
    assert torch.equal(initial.labels, solved)
    assert torch.equal(initial.hard, toy.labels[indices])


def test_sets_describe_themselves_in_a_line(toy: ImageData) -> None:
    assert repr(toy) == "<ImageData toy: 160 images 3x16x16, 4 classes>"
    synthetic = real_images(toy, draw_pool(toy, 2, 0), flip=True)
    assert repr(synthetic) == "<SyntheticSet random: 8 images 3x16x16, 2 per class, 4 classes, hard labels>"
