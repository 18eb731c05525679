"""Augmentation on the device: the families of DSA (Zhao and Bilen 2021) and FRePo (Zhou et al. 2022).

Each batch gets one operation of the family, with parameters of its own for every image. Images are normalised
(n, c, h, w); what is moved in from outside is zero, the mean colour.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

Operation = Callable[[Tensor, torch.Generator], Tensor]


def uniform(images: Tensor, low: float, high: float, rng: torch.Generator) -> Tensor:
    """One number per image, (n, 1, 1, 1)."""
    return torch.rand(len(images), 1, 1, 1, generator=rng, device=images.device) * (high - low) + low


def flip(images: Tensor, rng: torch.Generator) -> Tensor:
    """Mirror left-right with probability one half."""
    return torch.where(uniform(images, 0, 1, rng) < 0.5, images.flip(3), images)


def colour(brightness: float, saturation: float, contrast: float) -> Operation:
    """Add U(±brightness/2); scale the distance to grey by U(1±saturation/2); to the mean by U(1±contrast)."""

    def apply(images: Tensor, rng: torch.Generator) -> Tensor:
        x = images + uniform(images, -brightness / 2, brightness / 2, rng)
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * uniform(images, 1 - saturation / 2, 1 + saturation / 2, rng) + grey
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * uniform(images, 1 - contrast, 1 + contrast, rng) + mean

    return apply


def crop(ratio: float) -> Operation:
    """Shift by whole pixels, up to `ratio` of the side each way."""

    def apply(images: Tensor, rng: torch.Generator) -> Tensor:
        height, width = images.shape[2:]
        dy, dx = round(height * ratio), round(width * ratio)
        shift_y = torch.randint(-dy, dy + 1, (len(images), 1), generator=rng, device=images.device)
        shift_x = torch.randint(-dx, dx + 1, (len(images), 1), generator=rng, device=images.device)
        padded = F.pad(images, (dx, dx, dy, dy))
        rows = torch.arange(height, device=images.device) + dy + shift_y  # (n, h)
        columns = torch.arange(width, device=images.device) + dx + shift_x  # (n, w)
        n = torch.arange(len(images), device=images.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return apply


def cutout(ratio: float) -> Operation:
    """Zero a square of `ratio` times the side, centred anywhere in the image."""

    def apply(images: Tensor, rng: torch.Generator) -> Tensor:
        height, width = images.shape[2:]
        half_h, half_w = height * ratio / 2, width * ratio / 2
        y = torch.arange(height, device=images.device).view(1, 1, -1, 1) + 0.5 - uniform(images, 0, height, rng)
        x = torch.arange(width, device=images.device).view(1, 1, 1, -1) + 0.5 - uniform(images, 0, width, rng)
        return images.masked_fill((y.abs() < half_h) & (x.abs() < half_w), 0.0)

    return apply


def scale(ratio: float) -> Operation:
    """Zoom each axis by U(1/ratio, ratio)."""

    def apply(images: Tensor, rng: torch.Generator) -> Tensor:
        zx, zy = uniform(images, 1 / ratio, ratio, rng).flatten(), uniform(images, 1 / ratio, ratio, rng).flatten()
        zero = torch.zeros_like(zx)
        return warp(images, torch.stack([zx, zero, zero, zero, zy, zero], 1).view(-1, 2, 3))

    return apply


def rotate(degrees: float) -> Operation:
    """Turn by U(±degrees)."""

    def apply(images: Tensor, rng: torch.Generator) -> Tensor:
        angle = uniform(images, -math.radians(degrees), math.radians(degrees), rng).flatten()
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return warp(images, torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3))

    return apply


def warp(images: Tensor, theta: Tensor) -> Tensor:
    """Bilinear affine resampling by (n, 2, 3) output-to-input maps; align_corners is stated, since torch versions differ."""
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, padding_mode="zeros", align_corners=True)


FAMILIES: dict[str, dict[str, Operation]] = {
    "dsa": {
        "flip": flip,
        "colour": colour(1.0, 2.0, 0.5),
        "crop": crop(0.125),
        "cutout": cutout(0.5),
        "scale": scale(1.2),
        "rotate": rotate(15),
    },
    "frepo": {
        "flip": flip,
        "colour": colour(0.25, 0.5, 0.25),
        "crop": crop(0.125),
        "rotate": rotate(15),
        "translate": crop(0.125),
        "cutout": cutout(0.25),
    },
}


def augmentation(
    family: str, mirror: bool, host_rng: torch.Generator, rng: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """A function that applies one random operation of the family to a batch (never `flip` without `mirror`).

    The operation is drawn from `host_rng` (on the CPU, so that no device is asked), its parameters from `rng`.
    """
    operations = [op for name, op in FAMILIES[family].items() if mirror or name != "flip"]

    def augment(images: Tensor) -> Tensor:
        choice = int(torch.randint(len(operations), (1,), generator=host_rng))
        return operations[choice](images, rng).contiguous(memory_format=torch.channels_last)

    return augment
