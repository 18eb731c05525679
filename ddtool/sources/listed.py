"""Tables that name image files and their labels: `train.csv` beside `images/`, `metadata.csv` or `.jsonl`, and the like.

Every value stays the text that it is in the file, so the labels `007` and `7` are two. Rows without an image and images
without a row are counted and said.
"""

import csv
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ddtool.config import Values
from ddtool.errors import DataError, did_you_mean
from ddtool.sources.files import Folder, ending
from ddtool.sources.folders import split_folders
from ddtool.sources.names import TABLES
from ddtool.sources.options import DataOptions
from ddtool.sources.readers import Found, ImageFile, ImageFiles
from ddtool.sources.schema import TEST_NAMES, TRAIN_NAMES, label_hint
from ddtool.text import parsed_json

_LABELS = ("label", "labels", "class", "class_name", "classname", "category", "target", "species", "breed", "diagnosis")
_SPLITS = ("split", "set", "subset", "partition", "data set", "dataset")
_LOOK = 200  # rows by which the column of file names is found
_PIXEL = re.compile(r"(pixel|px|p|x|)[ _-]?\d+(x\d+)?", re.IGNORECASE)
_NO_DATA = re.compile(r"(sample)?[ _-]?submission", re.IGNORECASE)


@dataclass
class Table:
    """One table: where it is, its columns and its rows."""

    inside: str
    """Its path below the root, with slashes."""

    columns: list[str]
    """Their names, each once: a name that is there again is followed by the number of its column."""

    rows: list[Values]
    header: list[str] = field(default_factory=list)
    """The names as the file has them; of JSON lines none."""

    file: str = ""
    """The column that names files."""

    hits: int = 0
    """How many of the first rows name an image that is there."""

    @property
    def folder(self) -> str:
        return self.inside.rpartition("/")[0]

    @property
    def name(self) -> str:
        return self.inside.rpartition("/")[2]


@dataclass
class _Index:
    """The images of a folder by the ways in which a table may name them."""

    paths: set[str]
    short: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @classmethod
    def of(cls, paths: Sequence[str]) -> "_Index":
        index = cls(set(paths))
        for path in paths:
            name = path.rpartition("/")[2]
            index.short[name].append(path)
            index.short[name.rpartition(".")[0] or name].append(path)
        return index

    def find(self, value: object, table: Table, split: str = "") -> str | None:
        """The image that a cell names: by its path, by its name, or by its name without the ending."""
        named = str(value).replace("\\", "/").removeprefix("./")
        beside = f"{table.folder}/{named}" if table.folder else named
        for path in (beside, named):
            if path in self.paths:
                return path
        found = self.short.get(named) or self.short.get(named.rpartition("/")[2]) or []
        if len(found) > 1:
            found = [path for path in found if _split_of(path.rpartition("/")[0]) == split] or found
        return found[0] if len(found) == 1 else None


def read_listed(root: Folder, options: DataOptions) -> ImageFiles | None:
    """The images that tables below `root` give labels to; None when there are no such tables, or folders say the same.

    Raises DataError for tables that name no image where there is nothing else to read.
    """
    index = _Index.of(list(root.all_images()))
    found = [_matched(table, index, options) for table in _tables(root, options)]
    tables = [table for table in found if table.hits]
    if found and not tables and (options.config is not None or not root.holds_images):
        raise _names_nothing(found[0], root)
    if not tables or (options.config is None and not _decide(root, tables, index, options)):
        return None
    reader = _Listing(root, index, options).read(tables)
    for folder in root.walk():
        reader.found.skipped += folder.left_out()
    for table in tables:
        reader.found.skipped[ending(table.name)] -= 1
    reader.found.skipped = +reader.found.skipped
    return reader


def _names_nothing(table: Table, root: Folder) -> DataError:
    if not table.columns:
        return DataError(f"The table '{table.inside}' is empty.", "Fill it, or remove it.")
    columns = ", ".join(table.columns[:12]) + (", …" if len(table.columns) > 12 else "")
    message = f"The table '{table.inside}' names no image in '{root.path}'; its columns are {columns}."
    if sum(bool(_PIXEL.fullmatch(name)) for name in table.columns) > 48:
        message = f"The table '{table.inside}' holds pixels in {len(table.columns)} columns, which is not read."
        return DataError(message, "Save each row as an image file, in one folder for each class.")
    hint = "One column should hold file names, as paths from the table's folder or without folder and ending."
    return DataError(message, hint)


# --- tables ---------------------------------------------------------------------------------------------------------


def _tables(root: Folder, options: DataOptions) -> list[Table]:
    """The tables in the root, in its folders, or the one that was asked for as a configuration."""
    places = [
        folder.place(name)
        for folder in (root, *root.folders)
        for name in folder.files
        if ending(name) in TABLES and not _NO_DATA.search(name)
    ]
    if options.config is not None:
        if options.config not in places:
            raise DataError(
                f"There is no table '{options.config}' in '{root.path}'.", did_you_mean(options.config, places)
            )
        return [read_table(root.path, options.config)]
    tables = []
    for place in places:
        try:
            tables.append(read_table(root.path, place))
        except DataError:
            if "metadata." in place.lower() or len(root.folders) < 2:
                raise  # else some other file, beside folders that are classes
    return tables


def read_table(root: Path, inside: str) -> Table:
    """A table of text: comma, semicolon or tab between columns, or one JSON object a line. Raises DataError."""
    path = root / inside
    try:
        text = _decoded(path.read_bytes())
        if ending(inside) in (".jsonl", ".ndjson"):
            rows = [parsed_json(line) for line in text.splitlines() if line.strip()]
            if not all(isinstance(row, dict) for row in rows):
                raise ValueError("a line is no JSON object")
            return Table(inside, list(dict.fromkeys(key for row in rows for key in row)), rows)
        lines = text.splitlines(keepends=True)
        mark = "\t" if ending(inside) == ".tsv" else max(",;\t", key=(lines[0] if lines else "").count)
        csv.field_size_limit(1 << 24)
        cells = [row for row in csv.reader(lines, delimiter=mark) if row]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(
            f"The table '{path}' cannot be read: {error}.", "Save it as CSV or JSON lines in UTF-8."
        ) from error
    header = [name.strip() for name in cells[0]] if cells else []
    columns = [f"{name} ({i})" if name in header[: i - 1] else name for i, name in enumerate(header, 1)]
    return Table(inside, columns, [dict(zip(columns, row, strict=False)) for row in cells[1:]], header)


def _decoded(raw: bytes) -> str:
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        return raw.decode("utf-16")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return raw.decode("cp1252", "replace")


def _matched(table: Table, index: _Index, options: DataOptions) -> Table:
    """The table with the column that names the most images; without a header its columns are numbered."""
    if any(index.find(name, table) for name in table.columns):
        header = [f"column {i}" for i, _ in enumerate(table.columns, 1)]
        first: Values = dict(zip(header, table.header or table.columns, strict=True))
        rows = [dict(zip(header, row.values(), strict=False)) for row in table.rows]
        table = Table(table.inside, header, [first, *rows])
    hits = _hits(table, index)
    asked = options.image_column if options.image_column in hits else None
    if hits:
        table.file = asked or max(hits, key=lambda name: hits[name])
        table.hits = hits[table.file]
    return table


def _hits(table: Table, index: _Index) -> Counter[str]:
    """How many of the first rows name an image, by column."""
    split = _split_of(table.name.rpartition(".")[0])
    found = (name for row in table.rows[:_LOOK] for name, value in row.items() if _resolves(value, index, table, split))
    return Counter(found)


def _resolves(value: Any, index: _Index, table: Table, split: str) -> bool:
    return isinstance(value, str | int) and value != "" and index.find(value, table, split or "train") is not None


def _decide(root: Folder, tables: list[Table], index: _Index, options: DataOptions) -> bool:
    """Whether tables, not folders, say the labels: where one called `metadata` has labels, and where folders do not."""
    labelled = [table for table in tables if _known_label(table, options)]
    if any(table.name.lower().startswith("metadata.") for table in labelled):
        return True
    try:
        splits = split_folders(root, options)
    except DataError:
        splits = {}
    train = next((splits[name] for name in TRAIN_NAMES if name in splits), root)
    if len([folder for folder in train.folders if folder.holds_images]) < 2:
        return True  # no classes in folders
    return not splits and bool(labelled) and not all(_agrees(table, index) for table in labelled)


def _known_label(table: Table, options: DataOptions) -> str:
    """The column that is the label by its name, or the one that was asked for; empty when there is none."""
    others = {name.lower(): name for name in table.columns if name != table.file}
    if options.label_column is not None:
        return options.label_column if options.label_column in others.values() else ""
    return next((others[name] for name in _LABELS if name in others), "")


def _agrees(table: Table, index: _Index) -> bool:
    """Whether some column of the table has one value for each folder of images, and another for each."""
    rows = [(row, path) for row in table.rows[:_LOOK] if (path := index.find(row.get(table.file, ""), table))]
    for name in table.columns:
        pairs = {(path.rpartition("/")[0], str(row.get(name))) for row, path in rows}
        if len(pairs) > 1 and len(pairs) == len({folder for folder, _ in pairs}) == len({value for _, value in pairs}):
            return True
    return False


def _split_of(name: str) -> str:
    """The split that a word in a name says, "" for none: `train_labels`, `trainLabels`, `test-images`."""
    words = re.findall(r"[A-Z]?[a-z]+", name)
    return next((word.lower() for word in words if word.lower() in (*TRAIN_NAMES, *TEST_NAMES)), "")


# --- rows -----------------------------------------------------------------------------------------------------------


@dataclass
class _Listing:
    """The splits, labels and files that tables say, while they are read."""

    root: Folder
    index: _Index
    options: DataOptions
    found: Found = field(default_factory=Found)

    def read(self, tables: list[Table]) -> ImageFiles:
        splits: dict[str, list[ImageFile]] = {}
        owners: dict[str, str] = {}
        labels = {table.inside: self._label_column(table) for table in tables}
        column = next((label for label in labels.values() if label), "")
        for table in tables:
            for split, rows in self._by_split(table).items():
                if split in owners and self.options.config is None:
                    raise DataError(
                        f"Several tables say labels of split '{split}': {owners[split]}, {table.inside}.",
                        f"Choose one, for example --dataset-config {table.inside}",
                    )
                owners[split] = table.inside
                splits[split] = self._files(table, split, rows, labels[table.inside])
        asked = self.options.label_column
        if asked is not None and not column:
            known = [name for table in tables for name in table.columns]
            raise DataError(f"The tables have no column '{asked}'.", did_you_mean(asked, known))
        if not column:
            listed = ", ".join(tables[0].columns)
            raise DataError(
                f"The table {tables[0].inside} names images, but which of its columns is the label is not clear: {listed}.",
                label_hint([name for name in tables[0].columns if name != tables[0].file]),
            )
        named = {file.inside for files in splits.values() for file in files}
        if unnamed := sum(path not in named for path in self.index.paths):
            self.found.skipped["images that no table names"] += unnamed
        said = ", ".join(f"'{label}' of {inside}" for inside, label in labels.items() if label)
        self.found.notes.insert(0, f"The labels are those of column {said}.")
        order = sorted(splits, key=lambda name: name not in TRAIN_NAMES)
        return ImageFiles(
            self.root.path, {name: splits[name] for name in order}, None, self.found, tables[0].file, column
        )

    def _label_column(self, table: Table) -> str:
        """The column of the labels, empty when there is none. DataError for a name that two columns have."""
        left = [name for name in table.columns if name != table.file and name.lower() not in _SPLITS]
        only = left[0] if len(left) == 1 and self.options.label_column is None else ""
        label = _known_label(table, self.options) or only
        if table.header.count(label) > 1:
            raise DataError(f"The table '{table.inside}' has several columns called '{label}'.", "Rename all but one.")
        return label

    def _by_split(self, table: Table) -> dict[str, list[Values]]:
        """The rows of each split: by a column that says it, by the table's name, or by its folder's."""
        for name in table.columns:
            values = {str(row.get(name, "")).lower() for row in table.rows}
            if name.lower() in _SPLITS and values <= {*TRAIN_NAMES, *TEST_NAMES}:
                groups: dict[str, list[Values]] = defaultdict(list)
                for row in table.rows:
                    groups[str(row[name]).lower()].append(row)
                return groups
        stem = table.name.rpartition(".")[0]
        return {_split_of(stem) or _split_of(table.folder) or "train": table.rows}

    def _files(self, table: Table, split: str, rows: list[Values], label: str) -> list[ImageFile]:
        """The image of each row that has one, with the label; rows without are counted."""
        labels: dict[str, list[Any]] = {}
        missing, again = [], 0
        for row in rows:
            path = self.index.find(row.get(table.file, ""), table, split)
            if path is None:
                missing.append(str(row.get(table.file, "")))
            elif (value := row.get(label)) in labels.setdefault(path, []):
                again += 1
            else:
                labels[path].append(value)
        if missing:
            shown = ", ".join(f"'{name}'" for name in missing[:3]) + (", …" if len(missing) > 3 else "")
            what = f"{len(missing)} of {len(rows)} images that {table.inside} names are not there: {shown}."
            self.found.notes.append(what)
        if again:
            self.found.notes.append(f"{again} rows of {table.inside} say again what an earlier row says.")
        return [ImageFile(path, values[0] if len(values) == 1 else values) for path, values in labels.items()]
