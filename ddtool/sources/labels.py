"""Labels as they are stored → class numbers: which values are classes, which mean "no label", which cannot be taken."""

import re
import unicodedata
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ddtool.errors import DataError
from ddtool.sources.schema import Column
from ddtool.text import count, is_or_are, listed

MAX_CLASSES = 100_000
"""More classes than this are taken for a mistake (a free-text column, for example)."""


NO_LABEL = "-1, which in datasets stands for no label"
NO_LABEL_HINT = "Remove these rows, or give each its class. If -1 is a class itself, write the classes as names."
"""What a label of -1 is said to be, and what to do about the rows that have it."""


_KEPT_BYTE = re.compile("[\udc80-\udcff]")


class _Dropped:
    """Stands for the label of a row that the user has said to leave out."""


DROPPED = _Dropped()


def plain(values: Sequence[Any], column: str, split: str, multi_label: str | None = None) -> list[Any]:
    """Labels as they are stored → numbers, truth values or text; None for no label, DROPPED for a row to leave out.

    A list of one is its element, a whole float its integer, bytes are text. Raises DataError for anything else, and for
    lists of several unless `multi_label` ("first" or "drop") says what to do with them.
    """
    if any(isinstance(value, list | tuple) for value in values):
        values = _single(values, column, split, multi_label)
    strange = [value for value in values if not _is_class(value)]
    if strange:
        shown = ", ".join(text[:40] for text in list(dict.fromkeys(map(repr, strange)))[:3])
        message = f"Column '{column}' of split '{split}' has values that are no classes: {shown}"
        kind = type(strange[0]).__name__
        hint = "Make whole numbers or names of them, or name another column with --label-column."
        raise DataError(f"{message} ({kind}).", hint)
    return [_plain(value) for value in values]


def _single(values: Sequence[Any], column: str, split: str, multi_label: str | None) -> list[Any]:
    """Lists → their only element."""
    several = [row for row, value in enumerate(values) if isinstance(value, list | tuple) and len(value) > 1]
    if several and multi_label is None:
        row = several[0]
        message = (
            f"{len(several)} of {len(values)} rows of split '{split}' have more than one label in column '{column}'"
        )
        raise DataError(
            f"{message}; the first is row {row}, with {values[row]!r:.60}.",
            "Distillation needs one class an image: --multi-label first takes the first one, --multi-label drop leaves "
            "such images out.",
        )
    dropping = multi_label == "drop"

    def one(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            return value
        if dropping and len(value) != 1:
            return DROPPED
        return value[0] if len(value) else None

    return [one(value) for value in values]


def _is_class(value: Any) -> bool:
    if isinstance(value, float):
        return value != value or value.is_integer()
    if isinstance(value, bytes):
        return _text(value) is not None
    return value is None or isinstance(value, str | int | bool | _Dropped)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if value != value else int(value)
    return _text(value) if isinstance(value, bytes) else value


def _text(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


@dataclass(frozen=True)
class Classes:
    """The classes of a dataset: their names, and the values that stand for them in a column of plain values."""

    names: tuple[str, ...]
    values: tuple[Hashable, ...] | None = None

    def numbers(self, column: Sequence[Hashable], split: str) -> np.ndarray:
        """Plain labels → int64 (n,) in [0, C), -1 for a dropped row. Raises DataError for a row that has none of them."""
        if self.values is None:
            labels = np.array([label if isinstance(label, int) else -1 for label in column], np.int64)
        else:
            position = {value: i for i, value in enumerate(self.values)}
            labels = np.array([position.get(value, -1) for value in column], np.int64)
        _check_labels(labels, column, self.names, split)
        return labels


def classes(column: Column, values: Sequence[Hashable]) -> Classes:
    """The classes of the label column, whose training rows hold `values`: its names, or the sorted distinct values."""
    if column.kind == "class":
        return Classes(class_names(column.names))
    found = {value for value in values if value is not None and value is not DROPPED}
    if found != {-1, 1}:  # elsewhere -1 says that a row has no label
        found -= {-1, ""}
    if len(found) < 2 and (without := sum(value == -1 for value in values)):
        there = f"there {is_or_are(len(found))} {count(len(found), 'class')}"
        said = f"Beside {NO_LABEL} ({without} of {len(values)} rows), {there}; distillation needs two."
        raise DataError(said, NO_LABEL_HINT)
    _check_count(len(found))
    alike = len({type(value) for value in found}) == 1
    known = tuple(sorted(found, key=None if alike else str))  # type: ignore[type-var, arg-type]
    return Classes(class_names(known), known)


def unlabelled(values: Sequence[Hashable]) -> bool:
    """Whether no row has a label: test sets are often published so."""
    return all(value is None or value in (-1, "") for value in values)


def class_names(names: Sequence[object]) -> tuple[str, ...]:
    """Names from an untrusted source made safe to print and save, whatever their length and script: no control characters,
    none that turn the direction of writing, none empty, none twice."""
    _check_count(len(names))
    if len(names) < 2:
        raise DataError(
            f"The dataset has {len(names)} class; distillation needs two.",
            "Check where its classes are: --label-column of a table, --class-level of a folder.",
        )
    clean = ["".join(filter(_is_writing, _decoded(str(name)))).strip() or f"class {i}" for i, name in enumerate(names)]
    seen: dict[str, None] = {}
    for i, name in enumerate(clean):
        while name in seen or (name != clean[i] and name in clean):
            name += f" ({i})"
        seen[name] = None
    return tuple(seen)


def _decoded(name: str) -> str:
    """A folder's name as it was written: where the system's encoding is not UTF-8, Python keeps its bytes as lone surrogates."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "replace") if _KEPT_BYTE.search(name) else name


def _is_writing(character: str) -> bool:
    """Whether a character is part of a name: the joiners of some scripts are, control and direction marks are not."""
    return character in "\u200c\u200d" or unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _check_count(classes: int) -> None:
    if classes > MAX_CLASSES:
        hint = "Choose the column of the classes with --label-column NAME."
        raise DataError(f"The label column has {classes} different values; at most {MAX_CLASSES} are taken.", hint)


def _check_labels(labels: np.ndarray, column: Sequence[Hashable], names: Sequence[str], split: str) -> None:
    """Raises DataError for an empty split and for the first row without a label in [0, len(names))."""
    if len(labels) == 0:
        raise DataError(f"Split '{split}' is empty.", "Choose another with --train-split or --test-split.")
    dropped = np.array([value is DROPPED for value in column])
    bad = np.flatnonzero(((labels < 0) | (labels >= len(names))) & ~dropped)
    if len(bad):
        value = column[bad[0]]
        if value == -1:
            rows = f"{sum(one == -1 for one in column)} of {len(column)} rows"
            raise DataError(f"Row {bad[0]} of split '{split}' has label {NO_LABEL} ({rows}).", NO_LABEL_HINT)
        other = f"label {str(value)[:80]!r}, which is none of the {len(names)} classes"
        message = f"Row {bad[0]} of split '{split}' has {'no label' if value in (None, '') else other}."
        hint = f"{len(bad)} of {len(labels)} rows {is_or_are(len(bad))} affected: correct or remove them."
        raise DataError(message, hint)


def check_every_class(labels: np.ndarray, names: Sequence[str], split: str) -> None:
    """Raises DataError when a class has no image to distil."""
    empty = np.flatnonzero(np.bincount(labels[labels >= 0], minlength=len(names)) == 0)
    if len(empty):
        message = f"{len(empty)} of {len(names)} classes have no image in split '{split}': {listed(names[int(i)] for i in empty)}."
        raise DataError(message, "Add images of every class, or remove the class from the dataset's names.")


def at_most(labels: np.ndarray, most: int, seed: int) -> np.ndarray:
    """The labels with -1, as for a row that is left out, where a class has more than `most` rows: a random part of it stays."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]  # class by class, in random order inside each
    ordered = labels[order]
    first = np.searchsorted(ordered, ordered)
    left_out = order[np.arange(len(order)) - first >= most]
    kept = labels.copy()
    kept[left_out] = -1
    return kept


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """bool (n,): a random `fraction` of every class, at least one and never all; a class of one stays for training.

    Raises DataError when nothing can be held out.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels[labels >= 0]):
        rows = np.flatnonzero(labels == label)
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held[rng.permutation(rows)[:count]] = True
    if not held.any():
        raise DataError("There is no test split, and no class has two images to hold one out.", "Add images.")
    return held
