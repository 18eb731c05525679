"""Several images of lower resolution in one stored image, side by side ("multi-formation": IDC, Kim et al., ICML 2022).

A stored image (c, h, w) is cut factor x factor, and each part is brought back to h x w, bilinearly: networks see factor² images in
the place of one. Parts of m stored images are in the order of `decode`: first all top left ones, then the next in reading order.
So of a set that is image-major, the parts are too.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.errors import DataError


def cuts(factor: int, shape: Sequence[int]) -> bool:
    """Whether images of shape (c, h, w) are cut factor x factor into parts of one size: the functions below `decode` need that."""
    return not any(side % factor for side in shape[1:])


def decode(images: Tensor, factor: int) -> Tensor:
    """The images (m·factor², c, h, w) in stored ones (m, c, h, w). Where factor does not divide a side, the first parts are a
    pixel longer.

    Raises DataError when there are fewer pixels than parts.
    """
    h, w = images.shape[2:]
    if not 1 <= factor <= min(h, w):
        raise DataError(f"Images of {h}x{w} pixels cannot be cut into {factor}x{factor} parts.")
    if factor == 1:
        return images
    parts = [part for band in images.tensor_split(factor, 2) for part in band.tensor_split(factor, 3)]
    full = [F.interpolate(part, size=(h, w), mode="bilinear", align_corners=False) for part in parts]
    return torch.cat(full)


def tiled(parts: Tensor, factor: int) -> Tensor:
    """Parts of one size (m·factor², c, h / factor, w / factor) beside and below each other, as images (m, c, h, w)."""
    if factor == 1:
        return parts
    bands = parts.chunk(factor**2)
    rows = [torch.cat(bands[i : i + factor], 3) for i in range(0, factor**2, factor)]
    return torch.cat(rows, 2)


def enlarged(parts: Tensor, factor: int) -> Tensor:
    """Parts (n, c, h / factor, w / factor) as networks see them, (n, c, h, w): what `decode` does to each, as two products."""
    rows, columns = (enlargement(factor * side, factor, parts.device)[0] for side in parts.shape[2:])
    return rows @ parts @ columns.T


def reduced(images: Tensor, factor: int) -> Tensor:
    """The parts (n, c, h / factor, w / factor) whose enlargements come nearest to images (n, c, h, w), by squared error; factor
    divides both sides. Those of an enlarged part are that part."""
    rows, columns = (enlargement(side, factor, images.device)[1] for side in images.shape[2:])
    return rows @ images.contiguous() @ columns.T


@lru_cache(maxsize=32)
def enlargement(side: int, factor: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """E (side, side / factor), the bilinear weights by which one side of a part is enlarged, and its pseudoinverse."""
    with torch.autocast("cpu", enabled=False), torch.inference_mode(False), torch.no_grad():
        unit = torch.eye(side // factor, dtype=torch.float64)[None]
        E = F.interpolate(unit, size=side, mode="linear", align_corners=False)[0].T
        return E.float().to(device), torch.linalg.pinv(E).float().to(device)
