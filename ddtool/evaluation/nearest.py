"""How near synthetic images are to real ones: a figure for those who must not publish these."""

import torch
from torch import Tensor

from ddtool.config import Values
from ddtool.data.images import ImageData, SyntheticSet

MOST = 1000
"""Synthetic images that are compared, at most: the first ones of the set."""
WORK = 2 * 10**12
"""Products of two pixel values, at most: of a dataset that is very large fewer images are compared, so that it takes a minute."""
AT_ONCE = 2**23
"""Values of real images in one pass: 32 MiB."""


@torch.no_grad()
def distances(images: Tensor, real: Tensor) -> Tensor:
    """The distance of each image to the nearest real one, (m,): root mean square over its values, in the 255 levels of a byte.

    images: (m, c, h, w) in [0, 1];  real: uint8 (n, c, h, w), all classes.
    """
    X = images.flatten(1).mul(255)
    nearest, rows = torch.full((len(X),), float("inf"), device=X.device), torch.zeros(len(X), dtype=torch.long)
    rows, size = rows.to(X.device), max(1, AT_ONCE // X.shape[1])
    for begin in range(0, len(real), size):
        R = real[begin : begin + size].to(X.device).flatten(1).float()
        least, at = (R.square().sum(1) - 2 * X @ R.T).min(1)  # ‖X − R‖² but for ‖X‖²
        rows = torch.where(least < nearest, at + begin, rows)
        nearest = torch.minimum(nearest, least)
    found = real[rows.to(real.device)].to(X.device).flatten(1).float()
    return (X - found).square().mean(1).sqrt()


def nearness(synthetic: SyntheticSet, real: ImageData) -> Values:
    """Median and least distance of a set's 8-bit images, as networks see them, to the nearest real image."""
    images = synthetic.rounded().decoded().images
    most = min(MOST, WORK // real.images.numel())
    found = distances(images[: max(1, most)], real.images)
    return {"median": round(found.median().item(), 1), "least": round(found.min().item(), 1)}
