"""What every kind of source offers, and the one for image files whose labels are known."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ddtool.sources.decode import CHUNK, Encoded
from ddtool.sources.files import kinds
from ddtool.sources.schema import Column


@dataclass
class Found:
    """What was found in a source beside what is used."""

    skipped: Counter[str] = field(default_factory=Counter)
    """Files that are not used, by kind."""

    notes: list[str] = field(default_factory=list)
    """What the user should know of the choices that were made."""

    def sentences(self) -> list[str]:
        """The notes, and the files that were skipped."""
        if not self.skipped:
            return self.notes
        total = sum(self.skipped.values())
        return [*self.notes, f"{total} {'file' if total == 1 else 'files'} skipped: {kinds(self.skipped)}."]


class Reader(Protocol):
    """A dataset whose splits can be read."""

    @property
    def names(self) -> list[str]:
        """The splits."""

    @property
    def found(self) -> Found:
        """What else there is."""

    def columns(self, split: str) -> Mapping[str, Column]:
        """The columns of a split."""

    def values(self, split: str, column: str) -> Sequence[Any]:
        """A whole column as it is stored; of class numbers those that the names of `columns` belong to."""

    def images(self, split: str, column: str, used: np.ndarray | None = None) -> Iterator[list[Encoded]]:
        """The encoded images of a split in row order, at most decode.CHUNK at a time. Those that are not `used` (bool (n,))
        may be empty."""


@dataclass(frozen=True)
class ImageFile:
    """One image file below a folder."""

    inside: str
    """Its path below the folder, with slashes."""

    label: Any
    """Its class; None when it has none."""


@dataclass
class ImageFiles:
    """Image files below one folder, with a column `image` and a column of labels.

    classes: the names that the labels are numbers of; None when the labels are plain values.
    """

    root: Path
    splits: dict[str, list[ImageFile]]
    classes: tuple[str, ...] | None
    found: Found
    image: str = "image"
    label: str = "label"

    @property
    def names(self) -> list[str]:
        return list(self.splits)

    def columns(self, split: str) -> dict[str, Column]:
        labels = Column("label", type="text") if self.classes is None else Column("class", self.classes)
        return {self.image: Column("image"), self.label: labels}

    def values(self, split: str, column: str) -> list[Any]:
        return [file.inside if column == self.image else file.label for file in self.splits[split]]

    def images(self, split: str, column: str, used: np.ndarray | None = None) -> Iterator[list[Encoded]]:
        files = self.splits[split]
        for start in range(0, len(files), CHUNK):
            yield [Encoded(self.root / file.inside, f"'{file.inside}'") for file in files[start : start + CHUNK]]
