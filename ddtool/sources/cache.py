"""Entries of the cache: a folder of four .npy files and a `meta.json`, filled once, then opened as memory maps.

An entry is filled under a temporary name beside its place and moved there in one step, so that a kill leaves nothing
half-made; a damaged entry reads as absent. Nothing here imports torch.
"""

import json
import math
import mmap
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, FiniteFloat, TypeAdapter

from ddtool.config import Values
from ddtool.errors import DataError
from ddtool.events import Note, Report
from ddtool.runtime.files import synchronise
from ddtool.sources.decode import Broken, Split, Written, write_images
from ddtool.sources.labels import check_every_class
from ddtool.sources.options import DataOptions
from ddtool.sources.pixels import Rules
from ddtool.text import count, is_or_are, parsed_json

FORMAT = 2
"""Version of the entry layout and of the decoding rules; part of every cache key."""

PARTS = ("train", "test")

BROKEN = "skipped.jsonl"
"""The images that were set aside, one a line; only where there are any."""

_ABANDONED = 24 * 3600.0  # seconds after which a temporary folder belongs to nobody


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What is decided about a dataset before it is decoded."""

    name: str = ""
    """What the dataset is called, for `ddtool cache`."""
    class_names: tuple[str, ...]
    source: Values
    """Splits, columns and options, for `ImageData.source`."""
    found: dict[str, int]
    """Files that were found and are not used, by kind."""
    notes: tuple[str, ...]
    """What was said about the data when it was read."""


Channels = Annotated[tuple[FiniteFloat, ...], Field(min_length=1)]
"""A number for each channel."""
Shape = tuple[int, int, int, int]
"""The shape of the images of a part: (n, c, h, w)."""


@dataclass(frozen=True, kw_only=True)
class Meta(Facts):
    """The content of meta.json: the facts, and what decoding found out."""

    format: int
    mean: Channels
    std: Channels
    shared: int
    """Test images whose pixels are those of a training image."""
    train: Shape
    test: Shape

    def shape(self, part: str) -> Shape:
        """The shape of the images of "train" or "test"."""
        return self.train if part == "train" else self.test

    @property
    def sound(self) -> bool:
        """Whether its parts go together, and are of this version."""
        channels = {self.train[1], self.test[1], len(self.mean), len(self.std)}
        return self.format == FORMAT and len(channels) == 1 and len(self.class_names) > 1


META = TypeAdapter(Meta)


@dataclass(frozen=True)
class Entry:
    """A filled cache folder and its meta.json."""

    folder: Path
    meta: Meta

    def broken(self) -> list[Broken]:
        """The images that were set aside."""
        try:
            lines = (self.folder / BROKEN).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        return [parsed_json(line) for line in lines]


def rules(options: DataOptions) -> Rules:
    """How images are decoded under these options."""
    return Rules(options.resolution, options.background, max_pixels=options.max_megapixels * 1e6)


def build(
    splits: Sequence[Split],
    facts: Facts,
    final: Path,
    options: DataOptions,
    *,
    workers: int,
    report: Report,
) -> Entry:
    """Decode `splits` and put the entry at `final`; the facts go into its meta.json.

    Raises DataError for too many rows that cannot be decoded, images of unequal size, or a cache that cannot be written.
    """
    allowed = options.broken_allowed(sum(len(split.labels) for split in splits))
    try:
        with _scratch(final) as folder:
            written = write_images(splits, folder, rules(options), allowed, workers, report)
            meta = _write_labels(splits, folder, written, facts)
            meta = replace(meta, notes=(*facts.notes, *_said(written, report)))
            (folder / "meta.json").write_text(json.dumps(asdict(meta), indent=1), encoding="utf-8")
            if written.broken:
                lines = "".join(json.dumps(image) + "\n" for image in written.broken)
                (folder / BROKEN).write_text(lines, encoding="utf-8")
            synchronise(folder)
            _publish(folder, final)
    except OSError as error:
        raise cache_error(final.parent, error) from error
    return Entry(final, meta)


def _said(written: Written, report: Report) -> list[str]:
    """What the decoding found out, as sentences, reported."""
    said = list(written.notes)
    if written.broken:
        first, number = written.broken[0], len(written.broken)
        said.append(
            f"{count(number, 'broken image')} {is_or_are(number)} set aside, the first {first['image']} ({first['reason']})."
        )
    if written.shared:
        shared = f"{count(written.shared, 'image')} of the test part {is_or_are(written.shared)}"
        said.append(f"{shared} also in the training part, pixel for pixel.")
    for text in said:
        report(Note(text))
    return said


def cache_error(cache: Path, error: OSError) -> DataError:
    """The explanation for a cache folder that cannot be written."""
    return DataError(
        f"The cache {cache} cannot be written: {error.strerror or error}.",
        "Free some space there, or set DDTOOL_CACHE to a folder on another disk.",
    )


def _write_labels(splits: Sequence[Split], folder: Path, written: Written, facts: Facts) -> Meta:
    """Write the labels of both parts; returns the content of meta.json."""
    plan, counts = written.plan, list[int]()
    for part, held in zip(PARTS, (False, True), strict=True):
        rows = [s.labels[kept & (s.held == held)] for s, kept in zip(splits, written.kept, strict=True)]
        labels = np.concatenate(rows)
        if part == "train":
            check_every_class(labels, facts.class_names, splits[0].name)
        elif not len(labels):
            raise DataError("No image is left to score on.", "Mend the images of the test split.")
        np.save(folder / f"{part}-labels.npy", labels.astype(np.int64))
        counts.append(len(labels))
    mean, std = channel_stats(np.load(folder / "train-images.npy", mmap_mode="r"))
    train, test = ((n, plan.channels, plan.height, plan.width) for n in counts)
    return Meta(
        **vars(facts),
        format=FORMAT,
        mean=tuple(mean),
        std=tuple(std),
        shared=written.shared,
        train=train,
        test=test,
    )


def channel_stats(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation per channel of uint8 images (n, c, h, w), on the scale [0, 1].

    Sums are exact integers; std is at least 1e-3; both are rounded to 6 decimals.
    """
    c = images.shape[1]
    total, squares = [0] * c, [0] * c
    for start in range(0, len(images), 2048):
        chunk = np.asarray(images[start : start + 2048])
        for k in range(c):
            total[k] += int(chunk[:, k].sum(dtype=np.uint64))
            squares[k] += int(np.square(chunk[:, k], dtype=np.uint16).sum(dtype=np.uint64))  # 255² fits 16 bits
    n = images.size // c
    variance = [(n * s2 - s * s) / (255 * n) ** 2 for s, s2 in zip(total, squares, strict=True)]
    return [round(s / (255 * n), 6) for s in total], [round(max(math.sqrt(v), 1e-3), 6) for v in variance]


@contextmanager
def _scratch(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, removed at the end whatever happens; abandoned ones go too."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for old in final.parent.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=final.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, final: Path) -> None:
    """Move a finished folder to its place. Another process may have been quicker: then its entry stays."""
    aside = folder.with_name(folder.name + "-old")
    for _ in range(9):
        try:
            os.replace(folder, final)
            return
        except OSError:
            if not final.is_dir():  # not in the way: the disk is full, or the place is not ours
                raise
        theirs = read_entry(final)
        if theirs and all(open_part(theirs, part) for part in PARTS):
            return
        with suppress(FileNotFoundError):  # a third process moved the damaged entry away first
            os.replace(final, aside)
        shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, final)


def read_entry(folder: Path) -> Entry | None:
    """The entry in `folder`, or None when there is none or its meta.json is damaged."""
    try:
        meta = META.validate_json((folder / "meta.json").read_bytes())
    except (OSError, ValueError):
        return None
    return Entry(folder, meta) if meta.sound else None


def open_part(entry: Entry, part: str, scattered: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """(images uint8 (n, c, h, w), labels int64 (n,)) of "train" or "test"; None when they are missing or damaged.

    The images are a copy-on-write memory map: writing to them never reaches the file. `scattered`: they will be read here
    and there, so the system shall not read ahead (4,000 rows of a 16 GB file: 0.1 s instead of 5 to 23 s).
    """
    path = entry.folder / f"{part}-images.npy"
    try:
        images = np.load(path, mmap_mode="c", allow_pickle=False)
        labels = np.load(entry.folder / f"{part}-labels.npy", allow_pickle=False)
        whole = path.stat().st_size == images.offset + images.nbytes
    except (OSError, ValueError, EOFError, AttributeError):
        return None
    fits = images.dtype == np.uint8 and images.shape == entry.meta.shape(part)
    known = labels.dtype == np.int64 and labels.shape == images.shape[:1] and len(labels) > 0
    if not (whole and fits and known and labels.min() >= 0 and labels.max() < len(entry.meta.class_names)):
        return None
    if scattered and hasattr(mmap, "MADV_RANDOM"):  # not on Windows
        images._mmap.madvise(mmap.MADV_RANDOM)
    return images, labels
