"""The images of a set for a page: small PNGs in it, each with what its soft label says."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from ddtool.data.images import SyntheticSet
from ddtool.reports.layout import data_uri
from ddtool.runs.preview import as_image
from ddtool.text import one_line

MOST_CLASSES, MOST_IMAGES, MOST_SHARES = 20, 10, 5
"""The most classes, images of a class, and shares of a soft label that are shown."""
LARGEST = 128
"""Pixels of the longer side of the largest image; larger ones are made smaller."""
MOST_VALUES = 4 * 2**20
"""The most pixel values of all images together, so that a page stays a few MiB."""


@dataclass(frozen=True)
class Share:
    """What a soft label says of one class, in percent."""

    name: str
    percent: float


@dataclass(frozen=True)
class Picture:
    """One image: its address, what it is for those who do not see it, and the largest shares of its soft label."""

    address: str
    alt: str
    shares: tuple[Share, ...]


def images_shown(like: SyntheticSet, sets: int) -> int:
    """How many images of each class of `sets` sets like this one are shown, at least one."""
    c, h, w = like.shape
    scale = min(1.0, LARGEST / max(h, w))
    one = max(1, round(c * h * w * scale**2)) * min(like.num_classes, MOST_CLASSES) * sets
    return min(like.ipc, MOST_IMAGES, max(1, MOST_VALUES // one))


def pictures(synthetic: SyntheticSet, label: int, number: int) -> list[Picture]:
    """The first `number` images of a class."""
    C, name = synthetic.num_classes, one_line(synthetic.class_names[label], 60)
    rows = [k * C + label for k in range(number)]  # image-major
    soft = synthetic.label_method != "hard"
    shares = synthetic.probabilities()[rows].tolist() if soft else [[]] * number
    return [
        Picture(address(synthetic, row), f"{name}, image {k + 1}", largest(share, synthetic.class_names))
        for k, (row, share) in enumerate(zip(rows, shares, strict=True))
    ]


def one_of_each(synthetic: SyntheticSet) -> list[Picture]:
    """The first image of each of the first classes."""
    return [pictures(synthetic, label, 1)[0] for label in range(min(synthetic.num_classes, MOST_CLASSES))]


def address(synthetic: SyntheticSet, row: int) -> str:
    """An image as a PNG in a data URI."""
    image, out = as_image(synthetic.images[row]), io.BytesIO()
    image.thumbnail((LARGEST, LARGEST), Image.Resampling.BOX)
    image.save(out, "PNG", optimize=True)
    return data_uri(out.getvalue(), "png")


def largest(shares: Sequence[float], names: Sequence[str]) -> tuple[Share, ...]:
    """The classes with the largest shares, those that round to nothing left out."""
    order = sorted(range(len(shares)), key=lambda c: -shares[c])[:MOST_SHARES]
    return tuple(Share(one_line(names[c], 40), round(100 * shares[c], 1)) for c in order if shares[c] >= 0.005)
