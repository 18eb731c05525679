"""Augmentation on the device: the families of DSA (Zhao and Bilen 2021), FRePo (Zhou et al. 2022) and IDC (Kim et al. 2022).

Each batch gets one operation of the family, with parameters of its own for every image, or, siamese, the same for all; with IDC's
family two more.
Images are normalised (n, c, h, w); what is moved in from beyond the edge is zero, the mean colour, in FRePo's family the edge
again.
"""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Draw:
    """Where an operation's parameters come from: `rng`, on the images' device."""

    rng: torch.Generator
    siamese: bool = False
    """The same parameters for every image of the batch (DSA)."""

    def uniform(self, images: Tensor, low: float, high: float) -> Tensor:
        """One number per image, (n, 1, 1, 1)."""
        n = 1 if self.siamese else len(images)
        u = torch.rand(n, 1, 1, 1, generator=self.rng, device=images.device) * (high - low) + low
        return u.expand(len(images), 1, 1, 1)

    def shift(self, images: Tensor, most: int) -> Tensor:
        """A whole number from -most to most per image, (n, 1)."""
        n = 1 if self.siamese else len(images)
        return torch.randint(-most, most + 1, (n, 1), generator=self.rng, device=images.device).expand(len(images), 1)


Operation = Callable[[Tensor, Draw], Tensor]


def flip(images: Tensor, draw: Draw) -> Tensor:
    """Flip left-right with probability one half."""
    return torch.where(draw.uniform(images, 0, 1) < 0.5, images.flip(3), images)


def colour(brightness: float, saturation: float, contrast: float) -> Operation:
    """Add U(±brightness/2); scale the distance to grey by U(1±saturation/2); to the mean by U(1±contrast)."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        x = images + draw.uniform(images, -brightness / 2, brightness / 2)
        grey = x.mean(1, keepdim=True)
        x = (x - grey) * draw.uniform(images, 1 - saturation / 2, 1 + saturation / 2) + grey
        mean = x.mean((1, 2, 3), keepdim=True)
        return (x - mean) * draw.uniform(images, 1 - contrast, 1 + contrast) + mean

    return apply


def crop(ratio: float) -> Operation:
    """Shift by whole pixels, up to `ratio` of the side each way."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        height, width = images.shape[2:]
        dy, dx = round(height * ratio), round(width * ratio)
        shift_y, shift_x = draw.shift(images, dy), draw.shift(images, dx)
        padded = F.pad(images, (dx, dx, dy, dy))
        rows = torch.arange(height, device=images.device) + dy + shift_y  # (n, h)
        columns = torch.arange(width, device=images.device) + dx + shift_x  # (n, w)
        n = torch.arange(len(images), device=images.device)[:, None, None]
        return padded.permute(0, 2, 3, 1)[n, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)

    return apply


def jitter(brightness: float, factors: float) -> Operation:
    """FRePo's colour: add U(±brightness), then scale the distance to the mean, and to grey, by exp(U(±factors)) each."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        x = images + draw.uniform(images, -brightness, brightness)
        mean = x.mean((1, 2, 3), keepdim=True)
        x = (x - mean) * draw.uniform(images, -factors, factors).exp() + mean
        grey = x.mean(1, keepdim=True)
        return (x - grey) * draw.uniform(images, -factors, factors).exp() + grey

    return apply


def zoomed_crop(low: float, high: float) -> Operation:
    """FRePo's crop: zoom both axes by z, log-uniform in [low, high], and take a window of the image's size anywhere inside; where
    the zoomed image is the smaller one, anywhere around it."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        z = draw.uniform(images, math.log(low), math.log(high)).exp().flatten()
        x, y = (draw.uniform(images, -1, 1).flatten() * (z - 1) / z for _ in range(2))
        zero = torch.zeros_like(z)
        return warp(images, torch.stack([1 / z, zero, x, zero, 1 / z, y], 1).view(-1, 2, 3), repeat_edge=True)

    return apply


def translate(ratio: float) -> Operation:
    """FRePo's shift: by any distance up to `ratio` of the side each way."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        x, y = (draw.uniform(images, -2 * ratio, 2 * ratio).flatten() for _ in range(2))  # a side is 2 long
        zero, one = torch.zeros_like(x), torch.ones_like(x)
        return warp(images, torch.stack([one, zero, x, zero, one, y], 1).view(-1, 2, 3), repeat_edge=True)

    return apply


def hole(ratio: float) -> Operation:
    """FRePo's cutout: zero a square of `ratio` times the side, the whole of it inside the image."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        inside = []
        for axis in (2, 3):
            side = images.shape[axis]
            size = int(side * ratio)
            begin = draw.uniform(images, 0, side - size + 1).floor().clamp_max(side - size)
            place = torch.arange(side, device=images.device).view([-1 if k == axis else 1 for k in range(4)])
            inside.append((begin <= place) & (place < begin + size))
        return images.masked_fill(inside[0] & inside[1], 0.0)

    return apply


def cutout(ratio: float) -> Operation:
    """Zero a square of `ratio` times the side, centred anywhere in the image."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        height, width = images.shape[2:]
        half_h, half_w = height * ratio / 2, width * ratio / 2
        y = torch.arange(height, device=images.device).view(1, 1, -1, 1) + 0.5 - draw.uniform(images, 0, height)
        x = torch.arange(width, device=images.device).view(1, 1, 1, -1) + 0.5 - draw.uniform(images, 0, width)
        return images.masked_fill((y.abs() < half_h) & (x.abs() < half_w), 0.0)

    return apply


def scale(ratio: float) -> Operation:
    """Zoom each axis by U(1/ratio, ratio)."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        zx, zy = draw.uniform(images, 1 / ratio, ratio).flatten(), draw.uniform(images, 1 / ratio, ratio).flatten()
        zero = torch.zeros_like(zx)
        return warp(images, torch.stack([zx, zero, zero, zero, zy, zero], 1).view(-1, 2, 3))

    return apply


def rotate(degrees: float, repeat_edge: bool = False) -> Operation:
    """Turn by U(±degrees)."""

    def apply(images: Tensor, draw: Draw) -> Tensor:
        angle = draw.uniform(images, -math.radians(degrees), math.radians(degrees)).flatten()
        cos, sin, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
        return warp(images, torch.stack([cos, -sin, zero, sin, cos, zero], 1).view(-1, 2, 3), repeat_edge)

    return apply


def warp(images: Tensor, theta: Tensor, repeat_edge: bool = False) -> Tensor:
    """Bilinear affine resampling by (n, 2, 3) output-to-input maps; align_corners is stated, since torch versions differ.

    An axis runs from -1 to 1 between the centres of the outermost pixels, and zeros come in; with `repeat_edge` between the edges
    of the image, and the outermost pixels come in again.
    """
    corners, padding = (False, "border") if repeat_edge else (True, "zeros")
    grid = F.affine_grid(theta, list(images.shape), align_corners=corners)
    return F.grid_sample(images, grid, padding_mode=padding, align_corners=corners)


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
        "colour": jitter(0.25, 0.25),
        "crop": zoomed_crop(0.8, 1.25),
        "rotate": rotate(15, repeat_edge=True),
        "translate": translate(0.125),
        "cutout": hole(0.25),
    },
    "quick": {
        "flip": flip,
        "colour": colour(0.25, 0.5, 0.25),
        "crop": crop(0.125),
        "rotate": rotate(15),
        "translate": crop(0.125),
        "cutout": cutout(0.25),
    },
}
FAMILIES["idc"] = {name: FAMILIES["dsa"][name] for name in ("flip", "colour", "crop", "scale", "rotate")}
"""dsa, frepo and idc as in their authors' code. quick: ours, which version 1 of the protocol frepo-mse had as well."""
ALWAYS = {"idc": ("flip", "colour")}
"""Operations of a family that every batch gets, before one of the others."""


def operations(family: str, flip: bool) -> dict[str, Operation]:
    """The operations of a family by name, the flip only if `flip`."""
    return {name: operation for name, operation in FAMILIES[family].items() if flip or name != "flip"}


def augmented_copies(images: Tensor, copies: int, turn: int, flip: bool, rng: torch.Generator) -> Tensor:
    """So many copies of images (m, c, h, w), one after the other (copies·m, c, h, w): each by one operation of FRePo's family, with
    parameters of its own for every image.

    Operations follow each other from copy to copy, and go on where those of the turn before ended; so nothing is asked of the host.
    """
    family = list(operations("frepo", flip).values())
    times = Counter(family[(turn * copies + k) % len(family)] for k in range(copies))
    made = [operation(images.repeat(n, 1, 1, 1), Draw(rng)) for operation, n in times.items()]
    return torch.cat(made).contiguous(memory_format=torch.channels_last)


def turns(flip: bool) -> int:
    """After so many turns `augmented_copies` begins with the same operation again."""
    return len(operations("frepo", flip))


def augmentation(
    family: str, flip: bool, host_rng: torch.Generator, rng: torch.Generator
) -> Callable[[Tensor], Tensor]:
    """A function that applies one random operation of the family to a batch (the flip only if `flip`).

    Those of `ALWAYS` come before it; an empty name is of no family, and nothing happens. The operation is drawn from `host_rng` (on
    the CPU, so that no device is asked), its parameters from `rng`.
    """
    if not family:
        return lambda images: images.contiguous(memory_format=torch.channels_last)
    usable = operations(family, flip)
    first = [usable.pop(name) for name in ALWAYS.get(family, ()) if name in usable]
    others = list(usable.values())

    def augment(images: Tensor) -> Tensor:
        choice = int(torch.randint(len(others), (1,), generator=host_rng))
        for operation in (*first, others[choice]):
            images = operation(images, Draw(rng))
        return images.contiguous(memory_format=torch.channels_last)

    return augment


def siamese(
    family: str, flip: bool, host_rng: torch.Generator, rng: torch.Generator
) -> Callable[[Sequence[Tensor]], list[Tensor]]:
    """A function that applies one random operation of the family, with the same parameters, to every image of several
    batches: DSA's, for real and synthetic images of a class. Random draws as in `augmentation`."""
    usable = list(operations(family, flip).values())

    def augment(batches: Sequence[Tensor]) -> list[Tensor]:
        choice = int(torch.randint(len(usable), (1,), generator=host_rng))
        moved = usable[choice](torch.cat(list(batches)), Draw(rng, siamese=True))
        parts = moved.split([len(batch) for batch in batches])
        return [part.contiguous(memory_format=torch.channels_last) for part in parts]

    return augment


def cutmix(
    X: Tensor, Y: Tensor, chance: float, host_rng: torch.Generator, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """With that chance X (n, c, h, w) with one rectangle taken from other images of the batch, its labels Y (n, C) mixed by
    area; the rectangle has a share U(0, 1) of the area before the border cuts it (CutMix, Yun et al., ICCV 2019)."""
    coin, share, *centre = torch.rand(4, generator=host_rng).tolist()
    if coin >= chance:
        return X, Y
    sides = X.shape[2:]
    spans = []
    for side, place in zip(sides, centre, strict=True):
        half, middle = int(side * math.sqrt(share)) // 2, int(side * place)
        spans.append(slice(max(0, middle - half), min(side, middle + half)))
    other, mixed = torch.randperm(len(X), generator=rng, device=X.device), X.clone()
    mixed[:, :, spans[0], spans[1]] = X[other, :, spans[0], spans[1]]
    area = math.prod(span.stop - span.start for span in spans) / math.prod(sides)
    return mixed, (1 - area) * Y + area * Y[other]
