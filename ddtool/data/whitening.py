"""Whitening: an invertible linear map after which neighbouring pixels and colours of the target are no longer correlated.

KIP, FRePo and MTT whiten colour images by ZCA, a matrix over all c·h·w pixel values. Ours, `dct`: the orthonormal discrete cosine
transform (DCT-II) of each channel takes most of the correlation between pixels by itself, so at each frequency only the c x c
covariance of the colours is left to be whitened. That is 12·h·w numbers for colour images instead of (3·h·w)², and it is as good
(docs/log.md).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import torch
from torch import Tensor

from ddtool.errors import DataError, UsageError

DCT, ZCA = "dct", "zca"
KINDS = (DCT, ZCA)
FORMAT = 1
"""The version of the stored form."""
LARGEST_ZCA = 4096
"""The most pixel values of an image (c·h·w) for ZCA: its matrix has the square of that many numbers, 64 MiB for 4096."""
CHUNK = 1000
"""Images whose statistics are taken at once."""


class Stored(TypedDict):
    """What a file says of a whitening, beside its tensors: plain JSON values. See `Whitening` for their meaning."""

    kind: str
    eps: float
    fitted_on: int
    format: int


@dataclass(frozen=True, eq=False)
class Whitening:
    """A fitted whitening of standardised images x (n, c, h, w): x → M (x − mean), and back.

    kind: 'dct' or 'zca';  eps: what is added to the covariance of standardised pixel values;  fitted_on: training images;
    mean: the mean image, float32 (c, h, w);
    matrix: float32, of dct (c, c, h, w): M of the colours at each frequency, its rows and columns in the first two places; of zca
    (d, d) with d = c·h·w. The scale that gives whitened training images unit variance is in it;
    back: the inverse of each M, of the same shape.
    """

    kind: str
    eps: float
    fitted_on: int
    mean: Tensor
    matrix: Tensor
    back: Tensor

    def forward(self, images: Tensor) -> Tensor:
        """Standardised images (n, c, h, w) → whitened ones, zero mean and unit variance over the images it was fitted on."""
        return self._apply(self.matrix, images - self.mean)

    def inverse(self, whitened: Tensor) -> Tensor:
        """Whitened images back to standardised ones."""
        return self._apply(self.back, whitened) + self.mean

    def to(self, device: torch.device | str) -> "Whitening":
        return Whitening(
            self.kind, self.eps, self.fitted_on, *(t.to(device) for t in (self.mean, self.matrix, self.back))
        )

    def _apply(self, M: Tensor, images: Tensor) -> Tensor:
        # not under autocast: with bf16 the inverse would not give the image back
        with torch.autocast(images.device.type, enabled=False):
            x = images.float().contiguous()
            if self.kind == ZCA:
                return (x.flatten(1) @ M).view_as(x)  # M is symmetric
            rows, columns = (dct_matrix(side, x.device) for side in x.shape[2:])
            z = rows @ x @ columns.T
            mixed = M[:, 0] * z[:, 0, None]  # the colours, at each frequency
            for d in range(1, len(M)):
                mixed = torch.addcmul(mixed, M[:, d], z[:, d, None])
            return rows.T @ mixed @ columns

    # ------------------------------------------------------------------------------------------------------- stored form

    def tensors(self) -> dict[str, Tensor]:
        """What a file keeps of it; the inverse follows from these."""
        return {"whitening.mean": self.mean, "whitening.matrix": self.matrix}

    def description(self) -> Stored:
        """What a file says of it, plain JSON values."""
        return {"kind": self.kind, "eps": self.eps, "fitted_on": self.fitted_on, "format": FORMAT}

    @classmethod
    def restored(cls, description: Stored, tensors: dict[str, Tensor]) -> "Whitening":
        """The inverse of `tensors` and `description`, which are untrusted but for what `fault` checks.

        A fitted whitening is made by it as well: so the way back is the same to the bit for the run and for its readers.

        Raises DataError for a matrix that has no usable inverse.
        """
        mean, matrix = tensors["whitening.mean"], tensors["whitening.matrix"]
        back, failed = torch.linalg.inv_ex(_square(matrix.double()))
        if bool(failed.any()) or not all(bool(torch.isfinite(t).all()) for t in (mean, matrix, back)):
            raise DataError("Its whitening cannot be inverted.", "")
        kind, eps = description["kind"], float(description["eps"])
        return cls(kind, eps, description["fitted_on"], mean, matrix, _unsquare(back).float())


def fault(description: object, shapes: dict[str, tuple[int, ...]], image: Sequence[int]) -> str:
    """Say what is wrong with an untrusted whitening before a tensor is read; empty when it is none (None) or one of ours.

    shapes: of all tensors in the file;  image: (c, h, w).
    """
    there = {name: shape for name, shape in shapes.items() if name.startswith("whitening.")}
    if description is None:
        return f"it has the unknown tensor '{next(iter(there))}'" if there else ""
    if not isinstance(description, dict) or description.keys() != {"kind", "eps", "fitted_on", "format"}:
        return "its whitening is not described"
    if any(type(description[name]) is not int for name in ("format", "fitted_on")) or description["format"] != FORMAT:
        return f"its whitening has the format {description['format']!r:.20}, made by another version of ddtool"
    if description["kind"] not in KINDS or type(description["eps"]) not in (int, float):
        return f"its whitening is {description['kind']!r:.20}, eps {description['eps']!r:.20}"
    if not 0 < description["eps"] < math.inf:
        return "the eps of its whitening is not positive"
    c, h, w = image
    if description["kind"] == ZCA and c * h * w > LARGEST_ZCA:
        return f"its whitening is a matrix of {c * h * w} by {c * h * w}"
    matrix = (c * h * w,) * 2 if description["kind"] == ZCA else (c, c, h, w)
    if there != {"whitening.mean": (c, h, w), "whitening.matrix": matrix}:
        return f"its whitening does not go with images of {c}x{h}x{w}"
    return ""


def fit(
    images: Callable[[Tensor], Tensor], rows: Tensor, kind: str, eps: float, *, published: bool = False
) -> Whitening:
    """The whitening of the training images at `rows`, in closed form.

    images: rows → standardised images (n, c, h, w);  kind: 'dct' or 'zca'. With Σ the covariance of the mean-free values (all c·h·w
    of an image for zca, the c colours at each frequency for dct), M = (Σ + eps·I)^(−1/2) / scale. Sums are float64.
    published: as kornia has it, Σ over n − 1 and no scale.
    Raises UsageError for images too large for zca.
    """
    shape = tuple(images(rows[:1]).shape[1:])
    if kind == ZCA and math.prod(shape) > LARGEST_ZCA:
        hint = "The kind dct (`ddtool adapt --whiten dct`) takes images of any size."
        raise UsageError(f"Whitening by ZCA takes a square matrix of {math.prod(shape)} rows for these images.", hint)
    parts = rows.split(CHUNK)
    mean = (torch.stack([images(part).double().sum(0) for part in parts]).sum(0) / len(rows)).float()
    covariance = _second_moment(images(parts[0]) - mean, kind)
    for part in parts[1:]:
        covariance += _second_moment(images(part) - mean, kind)
    values, vectors = torch.linalg.eigh(covariance / (len(rows) - published))
    values = values.clamp_min(0)
    # variance of the whitened images over all their values, known from the eigenvalues: Σ/(Σ + eps)
    scale = torch.ones(()) if published else (values / (values + eps)).mean().sqrt().clamp_min(1e-6)
    matrix = (vectors * (values + eps).rsqrt()[..., None, :] / scale) @ vectors.mT
    stored = {"whitening.mean": mean, "whitening.matrix": _unsquare(matrix).float()}
    return Whitening.restored({"kind": kind, "eps": eps, "fitted_on": len(rows), "format": FORMAT}, stored)


def _second_moment(x: Tensor, kind: str) -> Tensor:
    """Sum over images x (n, c, h, w) of the products of their values, float64: (d, d), or (h, w, c, c) of DCT coefficients."""
    x = x.contiguous()
    if kind == ZCA:
        return (x.flatten(1).T @ x.flatten(1)).double()
    rows, columns = (dct_matrix(side, x.device) for side in x.shape[2:])
    z = (rows @ x @ columns.T).permute(2, 3, 1, 0)  # (h, w, c, n)
    return (z @ z.mT).double()


def _square(matrix: Tensor) -> Tensor:
    """The matrices in the last two places, for torch.linalg."""
    return matrix if matrix.ndim == 2 else matrix.permute(2, 3, 0, 1)


def _unsquare(matrices: Tensor) -> Tensor:
    """The inverse of `_square`."""
    return matrices if matrices.ndim == 2 else matrices.permute(2, 3, 0, 1).contiguous()


@lru_cache(maxsize=16)
def dct_matrix(n: int, device: torch.device) -> Tensor:
    """The orthonormal DCT-II as a matrix (n, n): row k is the cosine of frequency k; its transpose is the inverse."""
    with torch.inference_mode(False), torch.no_grad():
        k = torch.arange(n, dtype=torch.float64)
        B = torch.cos(math.pi / n * (k + 0.5) * k[:, None]) * math.sqrt(2 / n)
        B[0] /= math.sqrt(2)
        return B.float().to(device)
