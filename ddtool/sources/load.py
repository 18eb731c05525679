"""A dataset's name → decoded images, memory-mapped: decoded on the first call, opened from the cache after that.

The key of a cache entry is the content of the data (or its commit on the Hub) and the options, never a name or a path.
`datasets` is imported only to decode: a cache hit on local data loads neither it nor huggingface_hub.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ddtool.config import Number, checked
from ddtool.data.images import ImageData
from ddtool.errors import DataError, UsageError
from ddtool.events import Note, Report, silent
from ddtool.runtime.cache import cache_root
from ddtool.sources import decode, origins, schema
from ddtool.sources.origins import ALIASES, Origin

__all__ = ["ALIASES", "DataOptions", "Outlook", "Target", "load", "look"]


@checked
class DataOptions:
    """How to read a dataset; None means: find out."""

    config: str | None = None
    """Configuration (subset) of the dataset."""

    image_column: str | None = None
    """Column that holds the images."""

    label_column: str | None = None
    """Column that holds the classes."""

    train_split: str | None = None
    """Split to distil."""

    test_split: str | None = None
    """Split to score on."""

    revision: str | None = None
    """Branch, tag or commit of a Hub dataset."""

    resolution: int | None = None
    """Side of the square images, in pixels: the shorter side is resized, the centre cropped. None: native size."""

    test_fraction: Number = 0.1
    """Share of every class held out of the training split when there is no labelled test split."""

    seed: int = 0
    """Seed of that held-out choice."""

    def __post_init__(self) -> None:
        if self.resolution is not None and not 8 <= self.resolution <= 1024:
            raise UsageError(f"resolution must be between 8 and 1024 pixels, got {self.resolution}.", "Try 32.")
        if not 0 < self.test_fraction < 1:
            raise UsageError(f"test_fraction must lie between 0 and 1, got {self.test_fraction}.", "Try 0.1.")


DEFAULTS = DataOptions()


@dataclass
class Target:
    """A dataset to distil. The test images are opened only by `test()`, so training cannot touch them by accident."""

    name: str
    """As the user typed it."""

    train: ImageData
    """The training images, memory-mapped."""

    test_size: int
    """How many test images there are."""

    open_test: Callable[[], ImageData] = field(repr=False)

    def test(self) -> ImageData:
        """The test images, memory-mapped, with the mean and std of the training images."""
        return self.open_test()


@dataclass(frozen=True)
class Outlook:
    """What can be told of a dataset without decoding it; None: only decoding tells."""

    train: int | None
    """Training images."""

    images: int | None
    """Images in all, with those to score on."""

    classes: int | None
    """Number of classes."""

    shape: tuple[int, int, int] | None
    """(c, h, w) of one image; before decoding c is that of the first image."""

    cached: bool
    """Whether it is decoded already."""

    @property
    def cache_bytes(self) -> int | None:
        """Size of the decoded images in the cache."""
        return None if self.images is None or self.shape is None else self.images * math.prod(self.shape)


def load(
    name: str,
    options: DataOptions = DEFAULTS,
    *,
    cache_dir: Path | None = None,
    workers: int | None = None,
    scattered: bool = False,
    report: Report = silent,
) -> Target:
    """The dataset `name`: an alias, `namespace/name[@revision]`, a local folder or parquet file, or `sample`.

    Decoded on the first call by `workers` processes (default: one per processor), opened from the cache after that;
    `scattered` says that few rows will be read at a time, from all over the set.
    Choices made for the user are reported as `Note`, decoding as `Step("decode SPLIT", …)`.
    Raises DataError for everything that is wrong with the data, UsageError for options that contradict each other.
    """
    cache = Path(cache_dir) if cache_dir else cache_root()
    origin = origins.find(name, options.config, options.revision, cache)
    request = _Request(name, origin, options, cache, workers or min(os.cpu_count() or 1, 32), report, scattered)
    entry, train = request.open("train")
    return Target(name, train, entry.meta["test"][0], lambda: request.open("test")[1])


def look(
    name: str, options: DataOptions = DEFAULTS, *, cache_dir: Path | None = None, report: Report = silent
) -> Outlook:
    """What `load` would find, without decoding or downloading images: from the cache, else from the files' label columns
    and the first image, else (on the Hub) from what the dataset says of itself. Raises what `load` raises at its start."""
    cache = Path(cache_dir) if cache_dir else cache_root()
    origin = origins.find(name, options.config, options.revision, cache)
    entry = _Request(name, origin, options, cache, 1, report).entry()
    if entry is not None:
        (train, *shape), test = entry.meta["train"], entry.meta["test"][0]
        c, h, w = shape
        return Outlook(train, train + test, len(entry.meta["class_names"]), (c, h, w), True)
    if origin.kind == "hub":
        return _hub_outlook(origin, options)
    survey = _survey(_Tables(origin), options, lambda text: report(Note(text)))
    plan = decode.first_look(survey.splits[0], options.resolution)
    images = sum(len(split.labels) for split in survey.splits)
    train = images - sum(int(split.held.sum()) for split in survey.splits)
    return Outlook(train, images, len(survey.class_names), (plan.channels, plan.height, plan.width), False)


def _hub_outlook(origin: Origin, options: DataOptions) -> Outlook:
    """From the metadata of a Hub dataset, where it has any."""
    with origins.reading(origin):
        info = _hub_builder(origin).info
    counts = {str(split): int(part.num_examples) for split, part in (info.splits or {}).items()}
    labels = [f for f in (info.features or {}).values() if type(f).__name__ == "ClassLabel"]
    side = options.resolution
    shape = (3, side, side) if side else None
    classes = labels[0].num_classes if labels else None
    if not counts:
        return Outlook(None, None, classes, shape, False)
    train = schema.train_split(list(counts), options.train_split)
    tests = schema.test_splits(list(counts), train, options.test_split)
    held = sum(counts[split] for split in tests[:1])
    return Outlook(counts[train], counts[train] + held, classes, shape, False)


@dataclass(frozen=True)
class _Request:
    """One call of `load`: opens a part of its cache entry, building the entry when it is absent or damaged."""

    name: str
    origin: Origin
    options: DataOptions
    cache: Path
    workers: int
    report: Report
    scattered: bool = False

    def open(self, part: str) -> tuple[decode.Entry, ImageData]:
        for held_out in (False, True):
            entry = decode.read_entry(self._place(held_out))
            if entry and (arrays := decode.open_part(entry, part, self.scattered)):
                for note in entry.meta["notes"] if part == "train" else ():
                    self.report(Note(str(note)))
                return entry, self._data(entry, arrays)
        entry = self._build()
        if arrays := decode.open_part(entry, part, self.scattered):
            return entry, self._data(entry, arrays)
        raise DataError(f"The cache entry {entry.folder} is damaged as soon as it is written.", "Set DDTOOL_CACHE.")

    def entry(self) -> decode.Entry | None:
        """The cache entry, when there is one whose images are whole."""
        for held_out in (False, True):
            entry = decode.read_entry(self._place(held_out))
            if entry and decode.open_part(entry, "train"):
                return entry
        return None

    def _place(self, held_out: bool) -> Path:
        """The entry's folder. Fraction and seed are in its key only when a test set is held out with them."""
        options = asdict(self.options) | {"config": None, "revision": None}  # the origin has them
        if not held_out:
            options |= {"test_fraction": None, "seed": None}
        key = {"format": decode.FORMAT, **self.origin.identity(), "options": options}
        return self.cache / hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _build(self) -> decode.Entry:
        notes: list[str] = []

        def say(text: str) -> None:
            notes.append(text)
            self.report(Note(text))

        survey = _survey(_Tables(self.origin), self.options, say)
        return decode.build(
            survey.splits,
            {"class_names": survey.class_names, "source": survey.source, "notes": notes},
            self._place(survey.held_out),
            resolution=self.options.resolution,
            workers=self.workers,
            report=self.report,
        )

    def _data(self, entry: decode.Entry, arrays: tuple[np.ndarray, np.ndarray]) -> ImageData:
        meta = entry.meta
        source = {"name": self.name, **self.origin.describe(), **meta["source"], "licence": self.origin.licence}
        images, labels = (torch.from_numpy(array) for array in arrays)
        return ImageData(images, labels, tuple(meta["class_names"]), tuple(meta["mean"]), tuple(meta["std"]), source)


# --- deciding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Survey:
    """What is decided about a dataset before it is decoded."""

    splits: list[decode.Split]
    class_names: tuple[str, ...]
    source: dict[str, Any]
    held_out: bool


def _survey(tables: "_Tables", options: DataOptions, say: schema.Say) -> _Survey:
    """Columns, splits and labels of a dataset; reads label columns only."""
    train = schema.train_split(tables.names, options.train_split)
    columns = tables.columns(train)
    image = schema.image_column(columns, options.image_column)
    label = schema.label_column(columns, options.label_column, say)
    values = tables.values(train, label)
    classes = schema.classes(columns[label], values)
    labels = classes.numbers(values, train)
    schema.check_every_class(labels, classes.names, train)
    test = _test_labels(tables, train, label, classes, options, say)
    if test is None:
        held = schema.hold_out(labels, options.test_fraction, options.seed)
        scored_on = f"{options.test_fraction:.0%} of {train}, seed {options.seed}"
        say(f"There is no labelled test split: {scored_on}, is held out to score on (the same share of every class).")
        splits = [tables.split(train, image, labels, held)]
    else:
        scored_on, test_labels = test
        splits = [
            tables.split(train, image, labels, np.zeros(len(labels), bool)),
            tables.split(scored_on, image, test_labels, np.ones(len(test_labels), bool)),
        ]
    source = {"train_split": train, "test_split": scored_on, "image_column": image, "label_column": label}
    return _Survey(splits, classes.names, source | {"resolution": options.resolution}, test is None)


def _test_labels(
    tables: "_Tables", train: str, label: str, classes: schema.Classes, options: DataOptions, say: schema.Say
) -> tuple[str, np.ndarray] | None:
    """The split to score on and its labels (n,): the one asked for, or the first usual one that has labels."""
    for split in schema.test_splits(tables.names, train, options.test_split):
        values = tables.values(split, label)
        if options.test_split is None:
            if values and schema.unlabelled(values):
                say(f"Split '{split}' has no labels and is left out.")
                continue
            if split != "test":
                say(f"There is no labelled split 'test': '{split}' is used to score on.")
        return split, classes.numbers(values, split)
    return None


# --- reading --------------------------------------------------------------------------------------------------------


class _Tables:
    """The splits of a dataset as `datasets` reads them.

    Local data is streamed: `datasets` does not key its own cache on a folder's content, so a rewritten folder would
    silently give the old rows. Raises DataError when the dataset cannot be opened.
    """

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        with origins.reading(origin):
            self._splits = _open_hub(origin) if origin.kind == "hub" else _open_local(origin)
        self.names = [str(name) for name in self._splits]

    def columns(self, split: str) -> dict[str, schema.Column]:
        from datasets import ClassLabel, Image, Value

        def describe(feature: object) -> schema.Column:
            if isinstance(feature, Image):
                return schema.Column("image")
            if isinstance(feature, ClassLabel):
                return schema.Column("class", tuple(feature.names or ()))
            plain = isinstance(feature, Value) and re.match(r"u?int|string|large_string|bool", feature.dtype)
            return schema.Column("value" if plain else "other")

        return {name: describe(feature) for name, feature in (self._splits[split].features or {}).items()}

    def values(self, split: str, column: str) -> list[Any]:
        """The whole column as Python values."""
        return [value for batch in self._batches(split, column, 10_000) for value in batch]

    def split(self, name: str, image: str, labels: np.ndarray, held: np.ndarray) -> decode.Split:
        """The encoded images of a split, to be read when they are decoded."""
        return decode.Split(name, labels, held, lambda: self._images(name, image))

    def _images(self, split: str, column: str) -> Iterator[list[bytes | None]]:
        roots, row = _roots(self.origin), 0
        for batch in self._batches(split, column, decode.CHUNK):
            yield [_encoded(cell, roots, f"row {row + i} of split '{split}'") for i, cell in enumerate(batch)]
            row += len(batch)

    def _batches(self, split: str, column: str, size: int) -> Iterator[list[Any]]:
        with origins.reading(self.origin):
            rows = self._splits[split].select_columns([column]).with_format("arrow")
            for table in rows.iter(batch_size=size):
                yield table.column(column).to_pylist()


def _open_local(origin: Origin) -> Mapping[Any, Any]:
    import datasets

    if origin.path.is_file():
        return datasets.load_dataset("parquet", data_files=str(origin.path), streaming=True)
    return datasets.load_dataset(str(origin.path), origin.config, streaming=True)


def _open_hub(origin: Origin) -> Mapping[Any, Any]:
    """The commit `origin.version`, in a cache of its own.

    In a shared one `datasets` silently takes whatever version it finds when the Hub does not answer.
    """
    builder = _hub_builder(origin)
    builder.download_and_prepare()
    return builder.as_dataset()


def _hub_builder(origin: Origin) -> Any:
    """What prepares a Hub dataset; it has read the dataset's description only."""
    import datasets

    which = {"data_dir": origin.config or "default"} if origin.converted else {"name": origin.config}
    own = os.path.join(datasets.config.HF_DATASETS_CACHE, "ddtool", origin.version)
    return datasets.load_dataset_builder(origin.where, revision=origin.version, cache_dir=own, **which)


def _roots(origin: Origin) -> list[Path]:
    """Folders that a row may name image files in: anything else is not the dataset's to read."""
    if origin.kind != "hub":
        return [origin.path]
    import datasets
    import huggingface_hub

    caches = datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE
    return [Path(os.path.abspath(cache)) for cache in caches]


def _encoded(cell: dict[str, Any] | None, roots: list[Path], where: str) -> bytes | None:
    """The bytes of an image cell {bytes, path}, None when it is empty. Raises DataError for a path outside `roots`."""
    if cell is None or not (cell["bytes"] or cell["path"]):
        return None
    if cell["bytes"]:
        return cell["bytes"]
    path = Path(os.path.abspath(cell["path"]))  # a link that the user put into the folder is followed
    if not any(path.is_relative_to(root) for root in roots):
        hint = "Unpack archives, and keep the image files in the dataset's folder."
        raise DataError(f"The image of {where} is not in the dataset but at '{cell['path']}'.", hint)
    try:
        return path.read_bytes()
    except OSError as error:
        message = f"The image of {where}, '{path}', cannot be read: {error.strerror}."
        raise DataError(message, "Restore the file, or remove the row.") from error
