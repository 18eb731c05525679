"""Several images in one: cutting, enlarging and the way back, against loops and least squares; what networks see of them."""

import pytest
import torch
from torch import Tensor

from ddtool.data import whitening
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.data.inputs import NetworkInput
from ddtool.data.parts import decode, enlarged, reduced, tiled
from ddtool.errors import DataError

CUTS = [((2, 3, 8, 8), 2), ((1, 1, 9, 12), 3), ((2, 1, 8, 4), 4), ((2, 3, 5, 7), 1)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("shape", "factor"), CUTS)
def test_tiled_parts_lie_where_decode_cuts(shape: tuple[int, ...], factor: int) -> None:
    images = noise(*shape)
    h, w = shape[2] // factor, shape[3] // factor
    parts = [
        image[:, i * h : (i + 1) * h, j * w : (j + 1) * w]
        for i in range(factor) for j in range(factor) for image in images
    ]  # fmt: skip
    assert torch.equal(tiled(torch.stack(parts), factor), images)
    assert torch.allclose(enlarged(torch.stack(parts), factor), decode(images, factor), atol=1e-6)


@pytest.mark.parametrize(("shape", "factor"), CUTS)
def test_reduced_is_the_nearest_part(shape: tuple[int, ...], factor: int) -> None:
    """Against least squares over all pixels at once, in float64."""
    images = noise(*shape)
    h, w = shape[2] // factor, shape[3] // factor
    units = torch.eye(h * w).view(-1, 1, h, w)
    columns = torch.nn.functional.interpolate(units, shape[2:], mode="bilinear").flatten(1).T.double()
    expected = torch.linalg.lstsq(columns, images.flatten(2).flatten(0, 1).T.double()).solution.T
    found = reduced(images, factor)
    assert torch.allclose(found.double().flatten(), expected.flatten(), atol=1e-5)
    assert torch.allclose(reduced(enlarged(found, factor), factor), found, atol=1e-5)


def inputs_of(toy: ImageData, factor: int, whitened: bool) -> NetworkInput:
    plain = NetworkInput(toy.mean, toy.std)
    rows = torch.arange(len(toy))
    fitted = whitening.fit(lambda part: plain.standardise(toy.images[part]), rows, "dct", 0.1) if whitened else None
    return NetworkInput(toy.mean, toy.std, fitted, factor=factor)


@pytest.mark.parametrize("whitened", [False, True])
def test_a_bound_image_is_what_networks_see_of_the_stored_one(toy: ImageData, whitened: bool) -> None:
    """So steps are taken on what will be kept: enlarging the stored parts gives it back, before pixels are cut or rounded."""
    inputs = inputs_of(toy, 2, whitened)
    dim = 0.3 + 0.4 * toy.images[:16].float() / 255  # parts may be brighter and darker than what they stand for
    seen = inputs.start(dim)
    assert not torch.allclose(seen, inputs(dim), atol=0.05)
    if not whitened:
        seen = inputs.bound(seen + 0.3 * torch.randn(seen.shape, generator=torch.Generator().manual_seed(1)))
    stored = inputs.stored(seen)
    assert stored.shape == (4, *toy.shape)
    assert 0 <= stored.min() <= stored.max() <= 1
    parts = reduced(inputs.unwhiten(seen), 2)
    inside = ((parts >= inputs.low - 1e-4) & (parts <= inputs.high + 1e-4)).flatten(1).all(1)
    assert inside.sum() == 16
    assert torch.allclose(inputs(decode(stored, 2))[inside], seen[inside], atol=1e-3)
    assert torch.allclose(inputs.bound(seen), seen, atol=1e-3)
    changed = seen.clone()
    inputs.bound_(changed)
    assert torch.equal(changed, inputs.bound(seen))


def test_unbounded_pixels_stay_where_images_are_whitened(toy: ImageData) -> None:
    free, held = (inputs_of(toy, 2, whitened) for whitened in (True, False))
    far = [inputs.bound(9 * inputs.start(toy.images[:4])) for inputs in (free, held)]
    assert free.unwhiten(far[0]).abs().max() > free.high.max() + 1
    assert far[1].max() <= held.high.max() + 1e-4


def test_gradients_flow_through_a_bound(toy: ImageData) -> None:
    inputs = inputs_of(toy, 2, True)
    seen = inputs(toy.images[:4]).requires_grad_()
    inputs.bound(seen).square().sum().backward()
    assert seen.grad is not None
    assert seen.grad.abs().sum() > 0


def labelled(toy: ImageData, rows: int) -> SyntheticSet:
    labels = torch.eye(4)[torch.arange(4)].repeat(rows, 1) - 0.25
    return SyntheticSet(
        images=noise(4, *toy.shape), labels=labels, hard=torch.arange(4), ipc=1, class_names=toy.class_names,
        mean=toy.mean, std=toy.std, factor=2,
    )  # fmt: skip


def test_each_part_may_have_a_label_of_its_own(toy: ImageData) -> None:
    small = labelled(toy, 4)
    small.labels[4:8] = 0.25 - small.labels[:4]  # of the top right parts
    whole = small.decoded()
    assert torch.equal(whole.labels, small.labels)
    by_image = small.labels_by_image()
    assert by_image.shape == (4, 4, 4)
    assert torch.equal(by_image[3, 1], small.labels[4 + 3])
    mean = torch.stack([whole.probabilities()[part * 4 + 3] for part in range(4)]).mean(0)
    assert torch.allclose(small.probabilities()[3], mean)
    assert torch.equal(labelled(toy, 1).decoded().labels, labelled(toy, 4).labels)
    assert labelled(toy, 1).labels_by_image().shape == (4, 4)
    assert labelled(toy, 4).stored_bytes - labelled(toy, 1).stored_bytes == 4 * 4 * 12


def test_another_number_of_labels_is_refused(toy: ImageData) -> None:
    with pytest.raises(DataError, match=r"needs 4 images, labels \(4, 4\)"):
        labelled(toy, 3)
