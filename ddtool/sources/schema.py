"""Which column is the image, which the class, which split is for what: decisions on names and labels, no reading."""

import unicodedata
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ddtool.errors import DataError, UsageError, did_you_mean

MAX_CLASSES = 100_000
"""More classes than this are taken for a mistake (a free-text column, for example)."""

Say = Callable[[str], None]
"""Receives one sentence about a choice that was made for the user."""

_LABEL_NAMES = ("label", "labels", "fine_label")  # preferred in this order
_TEST_NAMES = ("test", "validation", "valid", "val")


@dataclass(frozen=True)
class Column:
    """A column of the source. kind: "image" | "class" (class numbers with `names`) | "value" (int or text) | "other"."""

    kind: str
    names: tuple[str, ...] = ()


Columns = Mapping[str, Column]


def image_column(columns: Columns, asked: str | None = None) -> str:
    """The column with the images. Raises DataError when `asked` is none, or when there is not exactly one."""
    images = [name for name, column in columns.items() if column.kind == "image"]
    if asked is not None:
        _must_exist(asked, columns)
        if asked not in images:
            raise DataError(f"Column '{asked}' does not hold images.", did_you_mean(asked, images))
        return asked
    if len(images) != 1:
        found = f"several image columns ({', '.join(images)})" if images else "no image column"
        hint = "Choose one with --image-column NAME." if images else "Name it with --image-column, or convert the data."
        raise DataError(f"The dataset has {found}; its columns are {', '.join(columns)}.", hint)
    return images[0]


def label_column(columns: Columns, asked: str | None = None, say: Say = lambda text: None) -> str:
    """The column with the classes; a choice among several is said. Raises DataError when there is none to choose."""
    classes = [name for name, column in columns.items() if column.kind == "class"]
    if asked is not None:
        _must_exist(asked, columns)
        if columns[asked].kind not in ("class", "value"):
            raise DataError(f"Column '{asked}' does not hold classes.", did_you_mean(asked, classes))
        return asked
    values = [name for name in _LABEL_NAMES[:2] if name in columns and columns[name].kind == "value"]
    candidates = classes or values
    if len(candidates) == 1:
        return candidates[0]
    for name in _LABEL_NAMES:
        if name in classes:
            say(f"Of the label columns {', '.join(classes)}, '{name}' is used (--label-column chooses another).")
            return name
    found = f"several label columns ({', '.join(candidates)})" if candidates else "no label column"
    listed = ", ".join(columns)
    raise DataError(f"The dataset has {found}; its columns are {listed}.", "Name it with --label-column NAME.")


def _must_exist(asked: str, columns: Columns) -> None:
    if asked not in columns:
        raise DataError(f"The dataset has no column '{asked}'.", did_you_mean(asked, columns))


def train_split(splits: Sequence[str], asked: str | None = None) -> str:
    """The split to distil: the one asked for, else `train`, else the only one. Raises DataError."""
    if asked is not None:
        return _known_split(asked, splits)
    if "train" in splits or len(splits) == 1:
        return "train" if "train" in splits else splits[0]
    raise DataError(
        f"The dataset has no split 'train', but {', '.join(splits)}.", "Choose one with --train-split NAME."
    )


def test_splits(splits: Sequence[str], train: str, asked: str | None = None) -> list[str]:
    """Splits that may serve as the test set, best first; none means: hold some of the training split out."""
    if asked is not None:
        if _known_split(asked, splits) == train:
            raise UsageError(
                f"Split '{train}' cannot be both trained on and tested on.", "Choose another --test-split."
            )
        return [asked]
    return [name for name in _TEST_NAMES if name in splits and name != train]


def _known_split(asked: str, splits: Sequence[str]) -> str:
    if asked not in splits:
        raise DataError(f"The dataset has no split '{asked}'.", did_you_mean(asked, splits))
    return asked


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset: their names, and the values that stand for them in a column of plain values."""

    names: tuple[str, ...]
    values: tuple[Hashable, ...] | None = None

    def numbers(self, column: Sequence[Hashable], split: str) -> np.ndarray:
        """Labels as they are stored → int64 (n,) in [0, C). Raises DataError for a row that has none of them."""
        if self.values is None:
            labels = np.array([-1 if label is None else label for label in column], np.int64)
        else:
            position = {value: i for i, value in enumerate(self.values)}
            labels = np.array([position.get(value, -1) for value in column], np.int64)
        _check_labels(labels, column, self.names, split)
        return labels


def classes(column: Column, values: Sequence[Hashable]) -> Classes:
    """The classes of the label column, whose training rows hold `values`: its names, or the sorted distinct values."""
    if column.kind == "class":
        return Classes(class_names(column.names))
    found = {value for value in values if value is not None and value != -1}
    _check_count(len(found))
    known = tuple(sorted(found))  # type: ignore[type-var]  # a column has one type
    return Classes(class_names(known), known)


def unlabelled(values: Sequence[Hashable]) -> bool:
    """Whether no row has a label: test sets are often published so."""
    return all(value is None or value == -1 for value in values)


def class_names(names: Sequence[object]) -> tuple[str, ...]:
    """Names from an untrusted source made safe to print and save: no control characters, bounded, non-empty, unique."""
    _check_count(len(names))
    if len(names) < 2:
        raise DataError(f"The dataset has {len(names)} class; distillation needs two.", "Check --label-column.")
    seen: dict[str, None] = {}
    for i, name in enumerate(names):
        clean = "".join(ch for ch in str(name) if unicodedata.category(ch)[0] != "C").strip()[:200] or f"class {i}"
        while clean in seen:
            clean += f" ({i})"
        seen[clean] = None
    return tuple(seen)


def _check_count(classes: int) -> None:
    if classes > MAX_CLASSES:
        hint = "Choose the column of the classes with --label-column NAME."
        raise DataError(f"The label column has {classes} different values; at most {MAX_CLASSES} are taken.", hint)


def _check_labels(labels: np.ndarray, column: Sequence[Hashable], names: Sequence[str], split: str) -> None:
    """Raises DataError for an empty split and for the first row without a label in [0, len(names))."""
    if len(labels) == 0:
        raise DataError(f"Split '{split}' is empty.", "Choose another with --train-split or --test-split.")
    bad = np.flatnonzero((labels < 0) | (labels >= len(names)))
    if len(bad):
        value = column[bad[0]]
        what = "no label" if value is None else f"label {str(value)[:80]!r}"
        message = f"Row {bad[0]} of split '{split}' has {what}, which is none of the {len(names)} classes."
        raise DataError(message, f"{len(bad)} of {len(labels)} rows are affected: correct or remove them.")


def check_every_class(labels: np.ndarray, names: Sequence[str], split: str) -> None:
    """Raises DataError when a class has no image to distil."""
    empty = np.flatnonzero(np.bincount(labels, minlength=len(names)) == 0)
    if len(empty):
        listed = ", ".join(f"'{names[i]}'" for i in empty[:5]) + (", …" if len(empty) > 5 else "")
        message = f"{len(empty)} of {len(names)} classes have no image in split '{split}': {listed}."
        raise DataError(message, "Add images of every class, or remove the class from the dataset's names.")


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """bool (n,): a random `fraction` of every class, at least one and never all; a class of one stays for training.

    Raises DataError when nothing can be held out.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held[rng.permutation(rows)[:count]] = True
    if not held.any():
        raise DataError("There is no test split, and no class has two images to hold one out.", "Add images.")
    return held
