"""Which column is the image, which the class, which split is for what: decisions on names, no reading."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ddtool.errors import DataError, UsageError, did_you_mean

TRAIN_NAMES = ("train", "training")
"""Names of splits to learn from."""

VALIDATION_NAMES = ("validation", "valid", "val", "dev", "eval")
"""Names of splits that are never trained on, and scored on where there is no test split."""

TEST_NAMES = ("test", "testing", "holdout", *VALIDATION_NAMES)
"""Names of splits to score on, best first."""

Say = Callable[[str], None]
"""Receives one sentence about a choice that was made for the user."""

_LABEL_NAMES = ("label", "labels", "fine_label")  # preferred in this order
_CLASSES = ("class", "label", "value")  # kinds of columns that may hold classes
_VALUE_NAMES = ("label", "labels", "class", "target", "cls", "label.txt")  # taken where the column holds plain values


@dataclass(frozen=True)
class Column:
    """A column of the source. kind: "image" | "bytes" (may be images) | "class" (class numbers with `names`) | "label"
    (values that are known to be labels) | "value" | "other"; a list of classes or values counts as them."""

    kind: str
    names: tuple[str, ...] = ()
    type: str = ""
    """The type as `datasets` calls it, for messages."""


Columns = Mapping[str, Column]


def image_column(columns: Columns, asked: str | None = None) -> str:
    """The column with the images. Raises DataError when `asked` is none, or when there is not exactly one."""
    images = [name for name, column in columns.items() if column.kind == "image"]
    stored = [name for name, column in columns.items() if column.kind == "bytes"]
    images = images or stored
    if asked is not None:
        _must_exist(asked, columns)
        if columns[asked].kind not in ("image", "bytes"):
            message = f"Column '{asked}' does not hold images{_typed(columns[asked])}."
            raise DataError(message, did_you_mean(asked, images) or _NO_IMAGES)
        return asked
    if len(images) != 1:
        found = f"several image columns ({', '.join(images)})" if images else "no image column"
        hint = f"Choose one: --image-column {' or '.join(images)}." if images else _NO_IMAGES
        raise DataError(f"The dataset has {found}; {_those(columns)}.", hint)
    return images[0]


_NO_IMAGES = "Save the images as files, or as a column of the type Image (encoded as PNG, JPEG or the like)."


def _typed(column: Column) -> str:
    return f" but {column.type}" if column.type else ""


def label_column(
    columns: Columns,
    asked: str | None = None,
    say: Say = lambda text: None,
    examples: Callable[[str], Sequence[Any]] = lambda name: (),
) -> str:
    """The column with the classes; a choice among several is said. Raises DataError when there is none to choose, with
    the first values of a column that was asked for (`examples` reads them)."""
    classes = [name for name, column in columns.items() if column.kind in ("class", "label")]
    if asked is not None:
        _must_exist(asked, columns)
        if columns[asked].kind not in (*_CLASSES, "bytes"):
            shown = ", ".join(f"{value!r:.40}" for value in examples(asked))
            message = f"Column '{asked}' does not hold classes{_typed(columns[asked])}{shown and ': ' + shown}."
            raise DataError(message, _other_label(columns, asked))
        return asked
    values = [name for name in _VALUE_NAMES if name in columns and columns[name].kind == "value"]
    candidates = classes or values
    if len(candidates) == 1:
        return candidates[0]
    for name in _LABEL_NAMES:
        if name in classes:
            say(f"Of the label columns {', '.join(classes)}, '{name}' is used (--label-column chooses another).")
            return name
    found = f"several label columns ({', '.join(candidates)})" if candidates else "no label column"
    listed = [name + _in_brackets(column) for name, column in columns.items()]
    raise DataError(f"The dataset has {found}; {_those(listed)}.", _other_label(columns))


def _those(columns: Iterable[str]) -> str:
    """The end of a sentence that names the columns of a table, of which there may be none."""
    listed = ", ".join(columns)
    return f"its columns are {listed}" if listed else "it has no columns at all"


def _other_label(columns: Columns, refused: str = "") -> str:
    """What to do where no column, or not the one that was asked for, is known to hold the classes."""
    return label_hint([name for name, column in columns.items() if column.kind in _CLASSES and name != refused])


def label_hint(possible: Sequence[str]) -> str:
    """What to do where none of the columns that may hold the classes is clearly the one."""
    if not possible:
        return "Add a column with the class of each image: a number or a name."
    return f"Name the one with the classes: --label-column {' or '.join(possible[:5])}."


def _in_brackets(column: Column) -> str:
    return f" ({column.type})" if column.kind == "other" else ""


def _must_exist(asked: str, columns: Columns) -> None:
    if asked not in columns:
        raise DataError(f"The dataset has no column '{asked}'.", did_you_mean(asked, columns))


def train_split(splits: Sequence[str], asked: str | None = None) -> str:
    """The split to distil: the one asked for, else `train`, else the only one. Raises DataError, also where the only one
    is for testing by its name."""
    if asked is not None:
        return _known_split(asked, splits)
    trains = [name for name in splits if name.lower() in TRAIN_NAMES]
    if len(trains) == 1 or "train" in trains:
        return "train" if "train" in trains else trains[0]
    if len(splits) == 1 and splits[0].lower() not in TEST_NAMES:
        return splits[0]
    found = f"no split 'train', but {', '.join(splits)}" if not trains else f"several: {', '.join(trains)}"
    raise DataError(f"The dataset has {found}.", "Choose the one to distil with --train-split NAME.")


def test_splits(splits: Sequence[str], train: str, asked: str | None = None) -> list[str]:
    """Splits that may serve as the test set, best first; none means: hold some of the training split out."""
    if asked is not None:
        if _known_split(asked, splits) == train:
            raise UsageError(
                f"Split '{train}' cannot be both trained on and tested on.", "Choose another --test-split."
            )
        return [_known_split(asked, splits)]
    ranked = sorted(splits, key=lambda name: TEST_NAMES.index(name.lower()) if name.lower() in TEST_NAMES else -1)
    return [name for name in ranked if name.lower() in TEST_NAMES and name != train]


def _known_split(asked: str, splits: Sequence[str]) -> str:
    for name in splits:
        if name == asked or (asked not in splits and name.lower() == asked.lower()):
            return name
    raise DataError(f"The dataset has no split '{asked}'.", did_you_mean(asked, splits))
