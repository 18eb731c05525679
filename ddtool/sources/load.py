"""A dataset's name → decoded images, memory-mapped: decoded on the first call, opened from the cache after that.

The key of a cache entry is the content of the data (or its commit on the Hub) and the options, never a name or a path.
`datasets` is imported only to decode: a cache hit on local data loads neither it nor huggingface_hub.
"""

import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch

from ddtool.config import Values
from ddtool.data.images import ImageData, Source
from ddtool.errors import DataError
from ddtool.events import Note, Report, Step, silent
from ddtool.runtime.cache import cache_root
from ddtool.sources import cache, decode, files, labels, local, names, pixels, schema, tables
from ddtool.sources.files import NEEDS_HEIF, heif_is_here
from ddtool.sources.names import ALIASES, Origin
from ddtool.sources.options import DEFAULTS, DataOptions
from ddtool.sources.readers import Reader
from ddtool.text import count, is_or_are, listed

__all__ = ["ALIASES", "DEFAULTS", "DataOptions", "Outlook", "Target", "inspect", "load"]


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

    skipped: dict[str, int] = field(default_factory=dict)
    """Files that were found and are not used, by kind."""

    notes: tuple[str, ...] = ()
    """What was said about the data when it was read."""

    broken: list[decode.Broken] = field(default_factory=list)
    """The broken images that were set aside."""

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

    sizes: dict[tuple[int, int], int] = field(default_factory=dict)
    """How many images have each (width, height), the most frequent first; only where they were asked for."""

    skipped: dict[str, int] = field(default_factory=dict)
    """Files that were found and are not used, by kind."""

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
    """The dataset `name`: an alias, `namespace/name[@revision]`, a local folder, file or archive, or `sample`.

    Decoded on the first call by `workers` threads (default: one per processor), opened from the cache after that;
    `scattered` says that few rows will be read at a time, from all over the set.
    Choices made for the user are reported as `Note`, decoding as `Step("decode SPLIT", …)`.
    Raises DataError for everything that is wrong with the data, UsageError for options that contradict each other.
    """
    root = Path(cache_dir) if cache_dir else cache_root()
    origin = names.resolve(name, options.config, options.revision, root, report)
    request = _Request(name, origin, options, root, workers or min(os.cpu_count() or 1, 32), report, scattered)
    entry, train = request.open("train")
    return Target(
        name,
        train,
        entry.meta.test[0],
        lambda: request.open("test")[1],
        entry.meta.found,
        entry.meta.notes,
        entry.broken(),
    )


def inspect(
    name: str,
    options: DataOptions = DEFAULTS,
    *,
    cache_dir: Path | None = None,
    sizes: bool = False,
    report: Report = silent,
) -> Outlook:
    """What `load` would find, without decoding or downloading images: from the cache, else from the files' label columns
    and the first image, else (on the Hub) from what the dataset says of itself. Raises what `load` raises at its start.

    With `sizes`, data that is here is looked through for the size of every image, from the headers; then images of several
    sizes, or large ones, are no error.
    """
    root = Path(cache_dir) if cache_dir else cache_root()
    origin = names.resolve(name, options.config, options.revision, root, report)
    entry = _Request(name, origin, options, root, 1, report).entry()
    if entry is not None:
        meta, (train, *_) = entry.meta, entry.meta.train
        return Outlook(train, train + meta.test[0], len(meta.class_names), meta.train[1:], True, {}, meta.found)
    if origin.kind == "hub":
        return _hub_outlook(origin, options)
    with local.opened(origin, options, root, report) as reader:
        survey = _survey(reader, options, lambda text: report(Note(text)))
        skipped = dict(reader.found.skipped)
        images = sum(len(split.labels) for split in survey.splits)
        train, classes = images - sum(int(split.held.sum()) for split in survey.splits), len(survey.class_names)
        if sizes:
            return Outlook(train, images, classes, None, False, _sizes(survey.splits, report), skipped)
        plan = decode.first_look(survey.splits, cache.rules(options), options.broken_allowed(images))
    return Outlook(train, images, classes, (plan.channels, plan.height, plan.width), False, {}, skipped)


def _sizes(splits: list[decode.Split], report: Report) -> dict[tuple[int, int], int]:
    """How many images have each size; broken ones have none."""

    def size(image: decode.Encoded) -> tuple[int, int] | None:
        try:
            return pixels.image_size(image.read(), image.name)
        except pixels.BrokenImageError:
            return None

    counts, total = Counter[tuple[int, int]](), sum(int((split.labels >= 0).sum()) for split in splits)
    with pixels.decoding():
        found = decode.in_threads(min(os.cpu_count() or 1, 8), size, decode.every_image(splits))
        for done, one in enumerate(found, 1):
            counts.update([one] if one else [])
            if done % files.EVERY == 0:
                report(Step("read sizes", done, total, {}))
    return dict(counts.most_common())


def _hub_outlook(origin: Origin, options: DataOptions) -> Outlook:
    """From the metadata of a Hub dataset, where it has any."""
    with names.reading(origin):
        info = tables.hub_builder(origin).info
    counts = {str(split): int(part.num_examples) for split, part in (info.splits or {}).items()}
    known = [f for f in (info.features or {}).values() if type(f).__name__ == "ClassLabel"]
    side = options.resolution
    shape = (3, side, side) if side else None
    classes = known[0].num_classes if known else None
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
    root: Path
    workers: int
    report: Report
    scattered: bool = False

    def open(self, part: str) -> tuple[cache.Entry, ImageData]:
        for held_out in (False, True):
            entry = self._entry(held_out)
            if entry and (arrays := cache.open_part(entry, part, self.scattered)):
                for note in entry.meta.notes if part == "train" else ():
                    self.report(Note(note))
                return entry, self._data(entry, arrays)
        entry = self._build()
        if arrays := cache.open_part(entry, part, self.scattered):
            return entry, self._data(entry, arrays)
        raise DataError(f"The cache entry {entry.folder} is damaged as soon as it is written.", "Set DDTOOL_CACHE.")

    def entry(self) -> cache.Entry | None:
        """The cache entry, when there is one whose images are whole."""
        for held_out in (False, True):
            entry = self._entry(held_out)
            if entry and cache.open_part(entry, "train"):
                return entry
        return None

    def _entry(self, held_out: bool) -> cache.Entry | None:
        """The cache entry, unless it lacks images that a package installed since then can read."""
        entry = cache.read_entry(self._place(held_out))
        lacking = entry is not None and any(NEEDS_HEIF in kind for kind in entry.meta.found)
        return None if lacking and heif_is_here() else entry

    def _place(self, held_out: bool) -> Path:
        """The entry's folder; fraction and seed are in its key only where images are drawn by them, for a test or of each class."""
        options = self.options.key()
        if not held_out:
            options |= {"test_fraction": None} | ({} if self.options.max_per_class else {"seed": None})
        key = {"format": cache.FORMAT, **self.origin.identity(), "options": options}
        return self.root / hashlib.blake2b(json.dumps(key, sort_keys=True).encode(), digest_size=16).hexdigest()

    def _build(self) -> cache.Entry:
        notes: list[str] = []

        def say(text: str) -> None:
            notes.append(text)
            self.report(Note(text))

        with local.opened(self.origin, self.options, self.root, self.report) as reader:
            survey = _survey(reader, self.options, say)
            return cache.build(
                survey.splits,
                cache.Facts(
                    name=Path(self.name.rstrip("/")).name if self.origin.kind == "local" else self.name,
                    class_names=survey.class_names,
                    source=survey.source,
                    found=dict(reader.found.skipped),
                    notes=tuple(notes),
                ),
                self._place(survey.held_out),
                self.options,
                workers=self.workers,
                report=self.report,
            )

    def _data(self, entry: cache.Entry, arrays: tuple[np.ndarray, np.ndarray]) -> ImageData:
        meta = entry.meta
        if self.options.strict and meta.shared:
            raise DataError(
                f"{count(meta.shared, 'image')} of the test part of '{self.name}' {is_or_are(meta.shared)} "
                "also in its training part.",
                "Remove them from one of the two, or leave --strict out.",
            )
        source = {"name": self.name, **self.origin.describe(), **meta.source, "licence": self.origin.licence}
        images, numbers = (torch.from_numpy(array) for array in arrays)
        return ImageData(images, numbers, meta.class_names, meta.mean, meta.std, cast(Source, source))


# --- deciding -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Survey:
    """What is decided about a dataset before it is decoded."""

    splits: list[decode.Split]
    class_names: tuple[str, ...]
    source: Values
    held_out: bool


def _survey(reader: Reader, options: DataOptions, say: schema.Say) -> _Survey:
    """Columns, splits and labels of a dataset; reads label columns only."""
    for sentence in reader.found.sentences():
        say(sentence)
    train = schema.train_split(reader.names, options.train_split)
    columns = reader.columns(train)
    image = schema.image_column(columns, options.image_column)
    label = schema.label_column(columns, options.label_column, say, lambda name: reader.values(train, name)[:3])
    values = labels.plain(reader.values(train, label), label, train, options.multi_label)
    classes = labels.classes(columns[label], values)
    train_labels = classes.numbers(values, train)
    labels.check_every_class(train_labels, classes.names, train)
    if options.max_per_class is not None:
        train_labels = labels.at_most(train_labels, options.max_per_class, options.seed)
        used, whole = int((train_labels >= 0).sum()), len(train_labels)
        say(f"{used} of {whole} images of split '{train}' are read: at most {options.max_per_class} of every class.")
    test = _test_labels(reader, train, label, classes, options, say)

    def split(name: str, numbers: np.ndarray, held: np.ndarray) -> decode.Split:
        return decode.Split(name, numbers, held, lambda: reader.images(name, image, numbers >= 0))

    if test is None:
        held = labels.hold_out(train_labels, options.test_fraction, options.seed)
        scored_on = f"{options.test_fraction:.0%} of {train}, seed {options.seed}"
        say(f"There is no labelled test split: {scored_on}, is held out to score on (the same share of every class).")
        alone = [classes.names[i] for i in np.flatnonzero(np.bincount(train_labels[train_labels >= 0]) == 1)]
        if alone:
            have = "has" if len(alone) == 1 else "have"
            say(f"{count(len(alone), 'class')} {have} a single image, which is not held out: {listed(alone)}.")
        splits = [split(train, train_labels, held)]
    else:
        scored_on, test_labels = test
        splits = [
            split(train, train_labels, np.zeros(len(train_labels), bool)),
            split(scored_on, test_labels, np.ones(len(test_labels), bool)),
        ]
    if unused := [name for name in reader.names if name not in (train, scored_on)]:
        say(f"Not used: {'split' if len(unused) == 1 else 'splits'} {', '.join(unused)}.")
    source: Values = {"train_split": train, "test_split": scored_on, "image_column": image, "label_column": label}
    source |= {"resolution": options.resolution} | options.chosen()
    return _Survey(splits, classes.names, source, test is None)


def _test_labels(
    reader: Reader, train: str, label: str, classes: labels.Classes, options: DataOptions, say: schema.Say
) -> tuple[str, np.ndarray] | None:
    """The split to score on and its labels (n,): the one asked for, or the first usual one that has labels."""
    for split in schema.test_splits(reader.names, train, options.test_split):
        values = labels.plain(reader.values(split, label), label, split, options.multi_label)
        if options.test_split is None:
            if values and labels.unlabelled(values):
                say(f"Split '{split}' has no labels and is left out.")
                continue
            if split != "test":
                say(f"There is no labelled split 'test': '{split}' is used to score on.")
        return split, classes.numbers(values, split)
    return None
