"""Small datasets that tests write, and what of them was read, told by the pixels."""

import io
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ddtool.data.images import ImageData
from ddtool.events import Note, Step


class Ear:
    """Collects what is reported."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def notes(self) -> list[str]:
        return [event.text for event in self.events if isinstance(event, Note)]

    @property
    def steps(self) -> list[Step]:
        return [event for event in self.events if isinstance(event, Step)]

    def said(self, part: str) -> bool:
        """Whether a note has that in it."""
        return any(part in note for note in self.notes)


def encoded(pixels: Any, mode: str | None = None, kind: str = "PNG", **options: Any) -> bytes:
    """An array (h, w[, c]) or a Pillow image as an encoded file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def pattern(number: int) -> np.ndarray:
    """Grey pixels (8, 8) that no other number has."""
    return np.random.default_rng(number).integers(0, 256, (8, 8), np.uint8)


@cache
def picture(number: int, kind: str = "PNG") -> bytes:
    """`pattern(number)` as a file; lossless in every kind that tests use it with."""
    return encoded(pattern(number), kind=kind, **({"lossless": True} if kind == "WEBP" else {}))


def plant(root: Path, files: Mapping[str, bytes | str | int]) -> Path:
    """Write files below `root` by relative path: bytes, text, or the number of a picture."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        data = picture(content) if isinstance(content, int) else content
        path.write_bytes(data.encode() if isinstance(data, str) else data)
    return root


def used(part: ImageData, below: int = 200) -> dict[str, list[int]]:
    """Which pictures each class of a part holds, by number, in row order."""
    known = {pattern(number).tobytes(): number for number in range(below)}
    found: dict[str, list[int]] = {name: [] for name in part.class_names}
    for image, label in zip(part.images.numpy(), part.labels.tolist(), strict=True):
        found[part.class_names[label]].append(known[image[0].tobytes()])
    return found
