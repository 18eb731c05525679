"""A synthetic set in the forms that datasets have: a repo of the Hub, parquet, a folder of images by class, WebDataset.

Read by what reads datasets; soft labels are the column `soft_label`, or stand in the JSON beside a WebDataset's images.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddtool.errors import DataError
from ddtool.events import Report, silent
from ddtool.runtime.cache import cache_root
from ddtool.sharing.exchange.loose import LABELS_HINT, Loose, positive
from ddtool.sources import cache, decode, labels, local, names, schema
from ddtool.sources.options import DEFAULTS
from ddtool.sources.readers import Reader
from ddtool.sources.schema import Column

SOFT = ("soft_label", "soft_labels")
"""Names of the column of soft labels."""
NEEDED = "A table needs the columns image and label, a folder of images one folder for each class."
BESIDE = "json"
"""The column of a WebDataset with what stands beside an image."""


def read(name: str, report: Report = silent) -> Loose:
    """The set of a Hub repo, a file or a folder: all rows of its training split. Raises DataError."""
    origin = names.resolve(name, None, None, cache_root(), report)
    cache_root().mkdir(parents=True, exist_ok=True)
    with without_options(), local.opened(origin, DEFAULTS, cache_root(), report) as reader:
        split = schema.train_split(reader.names)
        columns = reader.columns(split)
        soft, scale = soft_labels(reader, split, columns)
        classes, known = class_numbers(reader, split, columns, needed=soft is None)
        rows = len(soft) if soft is not None else len(classes if classes is not None else ())
        images = pictures(reader, split, schema.image_column(columns), rows)
    return Loose(images=images, classes=classes, soft=soft, names=known, label_scale=scale)


@contextmanager
def without_options() -> Iterator[None]:
    """Where the hint of a DataError names an option, which would be for the dataset, let it say what a set needs."""
    try:
        yield
    except DataError as error:
        raise DataError(error.message, NEEDED if "--" in error.hint else error.hint) from error


def soft_labels(reader: Reader, split: str, columns: Mapping[str, Column]) -> tuple[Tensor | None, float]:
    """Soft labels (m, C) and their scale; None where no image has any. DataError unless all of them are alike."""
    scales: list[Any] = []
    if name := next((name for name in SOFT if name in columns), None):
        rows = list(reader.values(split, name))
    elif BESIDE in columns:
        told = [value if isinstance(value, dict) else {} for value in reader.values(split, BESIDE)]
        rows = [one.get("soft_label") for one in told]
        scales = [1.0 if (scale := one.get("label_scale")) is None else scale for one in told]
    else:
        return None, 1.0
    if all(row is None for row in rows):
        return None, 1.0
    if any(row is None for row in rows):
        raise DataError("Some images have soft labels and others have none.", "Give all of them some, or none.")
    return stacked(rows), common_scale(scales)


def common_scale(scales: list[Any]) -> float:
    """The scale of all labels, 1 where none is stated; DataError unless it is one positive number."""
    if not all(map(positive, scales)) or len(set(scales)) > 1:
        raise DataError("The label_scale of the images is not one positive number.", "Bring all labels to one scale.")
    return float(scales[0]) if scales else 1.0


def stacked(rows: list[Any]) -> Tensor:
    """Rows of numbers as float32 (m, C); DataError for what is none."""
    try:
        return torch.from_numpy(np.array(rows, dtype=np.float32).reshape(len(rows), -1))
    except (TypeError, ValueError) as error:
        raise DataError(f"The soft labels are not the same number for every image: {error}.", LABELS_HINT) from error


def class_numbers(
    reader: Reader, split: str, columns: Mapping[str, Column], needed: bool
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Classes (m,) and their names; None where there is no column of them and soft labels are there. Numbers are no names."""
    hard = {name: column for name, column in columns.items() if name not in (*SOFT, BESIDE)}
    try:
        column = schema.label_column(hard)
    except DataError:
        if needed:
            raise
        return None, ()
    values = labels.plain(reader.values(split, column), column, split)
    known = labels.classes(hard[column], values)
    numbered = known.values is not None and all(isinstance(value, int) for value in known.values)
    return torch.from_numpy(known.numbers(values, split)), () if numbered else known.names


def pictures(reader: Reader, split: str, column: str, rows: int) -> Tensor:
    """The images of all rows, uint8 (m, c, h, w); DataError for one that is broken, or of another size."""
    everything, none = np.zeros(rows, np.int64), np.zeros(rows, bool)
    part = decode.Split(split, everything, none, lambda: reader.images(split, column))
    with tempfile.TemporaryDirectory() as folder:
        decode.write_images([part], Path(folder), cache.rules(DEFAULTS), 0, 1, silent)
        return torch.from_numpy(np.load(Path(folder) / "train-images.npy", allow_pickle=False))
