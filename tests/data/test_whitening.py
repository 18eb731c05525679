"""Whitening against its closed form in float64, its inverse, its stored form, and what networks see through it."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from ddtool.data import whitening
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.data.inputs import NetworkInput
from ddtool.data.whitening import KINDS, Whitening, dct_matrix, fault, fit
from ddtool.errors import DataError, UsageError

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"


def correlated(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Standardised-looking images whose neighbouring pixels and colours go together, with a mean image of their own."""
    rng = torch.Generator().manual_seed(seed)
    c, h, w = shape
    x = torch.randn(n, c, h, w, generator=rng).cumsum(2).cumsum(3) / math.sqrt(h * w)
    return x + 0.5 * x.mean(1, keepdim=True) + torch.linspace(-1, 1, h)[:, None]


def fitted(x: Tensor, kind: str = "dct", eps: float = 0.1) -> Whitening:
    return fit(lambda rows: x[rows], torch.arange(len(x)), kind, eps)


def slow_dct(x: Tensor) -> Tensor:
    """The orthonormal DCT-II of the last two axes by its definition, a sum over cosines; float64."""
    x = x.double()
    for axis in (-2, -1):
        n = x.shape[axis]
        moved, out = x.movedim(axis, -1), []
        for k in range(n):
            waves = torch.tensor([math.cos(math.pi * (i + 0.5) * k / n) for i in range(n)], dtype=torch.float64)
            out.append((moved * waves).sum(-1) * math.sqrt((1 if k == 0 else 2) / n))
        x = torch.stack(out, -1).movedim(-1, axis)
    return x


def inverse_root(covariance: Tensor) -> Tensor:
    """C^(−1/2) by Denman and Beavers' iteration: no eigenvalues."""
    Y, Z = covariance.double(), torch.eye(len(covariance), dtype=torch.float64)
    for _ in range(40):
        Y, Z = (Y + Z.inverse()) / 2, (Z + Y.inverse()) / 2
    return Z


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_the_dct_is_orthonormal(n: int) -> None:
    B = dct_matrix(n, torch.device("cpu")).double()
    assert torch.allclose(B @ B.T, torch.eye(n, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(
        B @ torch.ones(n, dtype=torch.float64), math.sqrt(n) * torch.eye(n, dtype=torch.float64)[0], atol=1e-5
    )


@pytest.mark.parametrize("shape", [(3, 6, 5), (1, 7, 7)])
def test_dct_whitening_is_its_closed_form(shape: tuple[int, int, int]) -> None:
    x = correlated(200, shape)
    z = slow_dct(x - x.mean(0))
    expected = torch.empty_like(z)
    for i in range(shape[1]):
        for j in range(shape[2]):
            values = z[:, :, i, j]  # (n, c)
            covariance = values.T @ values / len(values)
            expected[:, :, i, j] = values @ inverse_root(covariance + 0.1 * torch.eye(shape[0]))
    expected /= expected.square().mean().sqrt()
    assert torch.allclose(slow_dct(fitted(x).forward(x)), expected, atol=2e-4)


def test_zca_is_its_closed_form() -> None:
    x = correlated(300, (2, 4, 3))
    flat = (x - x.mean(0)).flatten(1).double()
    expected = flat @ inverse_root(flat.T @ flat / len(flat) + 0.1 * torch.eye(24))
    expected /= expected.square().mean().sqrt()
    assert torch.allclose(fitted(x, "zca").forward(x).flatten(1).double(), expected, atol=2e-4)


@given(
    kind=st.sampled_from(KINDS), c=st.sampled_from([1, 3]), h=st.integers(1, 9), w=st.integers(1, 9),
    eps=st.sampled_from([1e-3, 0.1, 10.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_the_inverse_gives_every_image_back(kind: str, c: int, h: int, w: int, eps: float, seed: int) -> None:
    found = fitted(correlated(40, (c, h, w), seed), kind, eps)
    other = correlated(5, (c, h, w), seed + 1000) * 2
    assert torch.allclose(found.inverse(found.forward(other)), other, atol=1e-3)
    assert torch.allclose(found.forward(found.inverse(other)), other, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_whitened_training_images_have_no_mean_and_unit_variance(kind: str) -> None:
    x = correlated(500, (3, 8, 8))
    seen = fitted(x, kind).forward(x)
    assert torch.allclose(seen.mean(0), torch.zeros(3, 8, 8), atol=1e-4)
    assert seen.square().mean().item() == pytest.approx(1, abs=1e-3)


def test_neighbours_go_less_together_than_before() -> None:
    x = correlated(500, (3, 8, 8))
    seen = fitted(x, eps=1e-3).forward(x)

    def neighbours(images: Tensor) -> float:
        a, b = (images - images.mean(0))[..., 1:], (images - images.mean(0))[..., :-1]
        return ((a * b).mean() / images.var(0).mean()).item()

    assert neighbours(x) > 0.8
    assert abs(neighbours(seen)) < 0.1


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    x = correlated(100, (3, 6, 6))
    whole = fitted(x)
    monkeypatch.setattr(whitening, "CHUNK", 7)
    parts = fitted(x)
    assert torch.allclose(whole.matrix, parts.matrix, rtol=1e-3, atol=1e-4)
    assert torch.allclose(whole.mean, parts.mean, atol=1e-6)


def test_a_constant_pixel_is_whitened_by_eps_alone() -> None:
    """A black border, as digits have: no variance, nothing infinite."""
    x = correlated(50, (1, 6, 6))
    x[:, :, 0] = -1
    found = fitted(torch.zeros_like(x) - 1)
    assert all(torch.isfinite(t).all() for t in (found.matrix, found.back, fitted(x).matrix))


def test_an_image_too_large_for_zca_is_refused() -> None:
    with pytest.raises(UsageError, match="square matrix of 4107 rows") as caught:
        fitted(torch.zeros(2, 3, 37, 37), "zca")
    assert "`ddtool adapt --whiten dct`" in caught.value.hint  # an import meets it as well


def test_under_autocast_the_inverse_is_as_exact() -> None:
    x = correlated(50, (3, 8, 8))
    found = fitted(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.allclose(found.inverse(found.forward(x)), x, atol=1e-4)


def test_gradients_flow_through_it() -> None:
    x = correlated(6, (3, 4, 4))
    found = fitted(correlated(50, (3, 4, 4)))
    given = x.clone().requires_grad_()
    found.forward(given).square().sum().backward()
    step = torch.zeros_like(x)
    step[2, 1, 3, 0] = 1e-2
    slope = (found.forward(x + step).double().square().sum() - found.forward(x - step).double().square().sum()) / 2e-2
    assert given.grad is not None
    assert given.grad[2, 1, 3, 0].item() == pytest.approx(slope.item(), rel=2e-2)


# ------------------------------------------------------------------------------------------------------ what networks see


def seen(data: ImageData, kind: str = "dct") -> ImageData:
    plain = data.transform
    return replace(
        data, whitening=fit(lambda rows: plain.standardise(data.images[rows]), torch.arange(len(data)), kind, 0.1)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_come_back_to_the_bit(toy: ImageData, kind: str) -> None:
    inputs = seen(toy, kind).transform
    X = inputs(toy.images)
    assert X.is_contiguous(memory_format=torch.channels_last)
    assert X.dtype == torch.float32
    assert torch.equal(inputs.inverse(X).mul(255).round().to(torch.uint8), toy.images)


def test_whitened_images_are_cut_only_on_the_way_back(toy: ImageData) -> None:
    inputs = seen(toy).transform
    X = 5 * inputs(toy.images)
    assert torch.equal(inputs.bound(X), X)
    pixels = inputs.inverse(X)
    assert pixels.min() == 0
    assert pixels.max() == 1


def test_a_set_is_seen_as_it_says(toy: ImageData) -> None:
    data = seen(toy)
    small = SyntheticSet(
        toy.images[:4] / 255, torch.zeros(4, 4), torch.arange(4), 1, toy.class_names, toy.mean, toy.std,
        whitening=data.whitening,
    )  # fmt: skip
    assert torch.allclose(small.inputs, data.transform(toy.images[:4]), atol=1e-5)
    plain = replace(small, whitening=None)
    assert torch.allclose(plain.inputs, NetworkInput(toy.mean, toy.std)(toy.images[:4]), atol=1e-6)
    assert not torch.allclose(plain.inputs, small.inputs, atol=0.1)
    dark = replace(small, images=small.images * 0.501)
    assert torch.equal(dark.rounded().images, dark.pixels() / 255)
    assert not torch.equal(dark.rounded().images, dark.images)


def test_the_formula_of_the_formats_page_is_the_same(toy: ImageData) -> None:
    """Whoever reads a set without ddtool sees what ddtool sees."""
    code = next(
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
        if "def whiten" in block
    )
    names: dict[str, Any] = {"torch": torch}
    exec(code, names)
    for kind in KINDS:
        found = seen(toy, kind).whitening
        assert found is not None
        x = toy.transform.standardise(toy.images[:5])
        stored = found.tensors()
        assert torch.allclose(
            names["whiten"](x, stored["whitening.mean"], stored["whitening.matrix"]), found.forward(x), atol=1e-4
        )


# ------------------------------------------------------------------------------------------------------------ stored form


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_stored_is_all_of_it(kind: str) -> None:
    x = correlated(60, (3, 6, 5))
    found = fitted(x, kind)
    again = Whitening.restored(found.description(), found.tensors())
    assert (again.kind, again.eps, again.fitted_on) == (kind, 0.1, 60)
    assert torch.equal(again.forward(x), found.forward(x))
    assert torch.allclose(again.inverse(x), found.inverse(x), atol=1e-3)


GOOD = {"kind": "dct", "eps": 0.1, "fitted_on": 60, "format": 1}
SHAPES = {"whitening.mean": (3, 6, 5), "whitening.matrix": (3, 3, 6, 5), "images": (4, 3, 6, 5)}


def test_a_sound_description_has_no_fault() -> None:
    assert fault(GOOD, SHAPES, (3, 6, 5)) == ""
    assert fault(None, {"images": (4, 3, 6, 5)}, (3, 6, 5)) == ""
    zca = SHAPES | {"whitening.matrix": (90, 90)}
    assert fault(GOOD | {"kind": "zca"}, zca, (3, 6, 5)) == ""


@pytest.mark.parametrize(
    ("description", "shapes", "said"),
    [
        (None, SHAPES, "unknown tensor"),
        (7, SHAPES, "not described"),
        (GOOD | {"more": 1}, SHAPES, "not described"),
        (GOOD | {"format": 2}, SHAPES, "another version"),
        (GOOD | {"format": True}, SHAPES, "format True"),
        (GOOD | {"fitted_on": "many"}, SHAPES, "format"),
        (GOOD | {"kind": "pca"}, SHAPES, "'pca'"),
        (GOOD | {"kind": ["dct"]}, SHAPES, "'dct'"),
        (GOOD | {"eps": float("nan")}, SHAPES, "not positive"),
        (GOOD | {"eps": 0}, SHAPES, "not positive"),
        (GOOD | {"eps": True}, SHAPES, "eps True"),
        (GOOD, SHAPES | {"whitening.matrix": (90, 90)}, "does not go with"),
        (GOOD, {"whitening.mean": (3, 6, 5)}, "does not go with"),
        (GOOD, SHAPES | {"whitening.more": (1,)}, "does not go with"),
        (GOOD | {"kind": "zca"}, SHAPES, "does not go with"),
    ],
)
def test_a_foreign_description_is_refused_before_a_tensor_is_read(description: Any, shapes: Any, said: str) -> None:
    assert said in fault(description, shapes, (3, 6, 5))


def test_a_zca_matrix_of_absurd_size_is_refused() -> None:
    shapes = {"whitening.mean": (3, 500, 500), "whitening.matrix": (750_000, 750_000)}
    assert "750000 by 750000" in fault(GOOD | {"kind": "zca"}, shapes, (3, 500, 500))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_matrix_without_an_inverse_is_refused(value: float) -> None:
    found = fitted(correlated(60, (3, 4, 4)))
    tensors = found.tensors() | {"whitening.matrix": torch.full_like(found.matrix, value)}
    with pytest.raises(DataError, match="cannot be inverted"):
        Whitening.restored(found.description(), tensors)
