"""Tables as `datasets` reads them: parquet, arrow, WebDataset, folders of `save_to_disk`, and repositories of the Hub.

Local data is streamed: `datasets` does not key its own cache on a folder's content, so a rewritten folder would silently give
the old rows. Data of the Hub is downloaded, or with `streaming` read where it is, and not kept. Class numbers are taken by the
names that each file itself gives them, never by number alone.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import StrictInt, StrictStr, TypeAdapter

from ddtool.errors import DataError
from ddtool.events import Report, Step, silent
from ddtool.hub.errors import why_offline
from ddtool.hub.memory import fitting, offline, read_memory, write_memory
from ddtool.sources.decode import CHUNK, Encoded, Fetch
from ddtool.sources.files import Folder, ending
from ddtool.sources.names import ARCHIVES, Origin, reading
from ddtool.sources.ranges import RemoteSplit, hub_files, remote_splits
from ddtool.sources.readers import Found
from ddtool.sources.schema import Column
from ddtool.version import __version__

_SHARD = re.compile(r"(.*?)-(\d{5,})-of-(\d{5,})(\..*)?")
LABELS = 10_000
"""Labels that are read at a time, and after which it is said how far the reading is."""
_DOCUMENTS = (".md", ".json", ".txt", ".yaml", "")  # beside tables these are about the data, not data


@dataclass(frozen=True)
class Shard:
    """One file of a split: how many rows it has, and the names that it gives its class numbers, by column."""

    name: str
    rows: int
    names: dict[str, tuple[str, ...]]


SHARDS = TypeAdapter(dict[str, list[tuple[StrictStr, StrictInt, dict[str, tuple[StrictStr, ...]]]]])
"""The fields of the shards of each split, as they are remembered."""


class Tables:
    """The splits of a dataset as `datasets` reads them. Raises DataError when the dataset cannot be opened.

    streaming: whether a dataset of the Hub is read without downloading its files."""

    def __init__(
        self, origin: Origin, folder: Folder | None = None, *, streaming: bool = False, report: Report = silent
    ) -> None:
        self.origin, self.found, self.report = origin, Found(), report
        self._streaming = streaming and origin.kind == "hub"
        self._shards: dict[str, list[Shard]] = {}
        with reading(origin):
            self._splits = self._open(folder)
        self.names = [str(name) for name in self._splits]

    def _open(self, folder: Folder | None) -> Mapping[Any, Any]:
        import datasets

        if self._streaming:
            return self._open_remote()
        if self.origin.kind == "hub":
            builder = hub_builder(self.origin)
            builder.download_and_prepare()
            self._recall_shards(builder)
            return builder.as_dataset()
        if folder is not None and {"dataset_dict.json", "state.json"} & set(folder.files):
            loaded = datasets.load_from_disk(str(self.origin.path))
            return loaded if isinstance(loaded, datasets.DatasetDict) else {"train": loaded}
        builder = local_builder(self.origin.path, self.origin.config, folder)
        self._note_shards(builder, folder)
        return builder.as_streaming_dataset()

    def _open_remote(self) -> Mapping[Any, Any]:
        """A dataset of the Hub that stays there."""
        if offline():
            raise DataError(
                f"{why_offline()}, so '{self.origin.where}' cannot be streamed.",
                "Leave --streaming out to read what was downloaded before, or allow the connection.",
            )
        builder = hub_builder(self.origin)
        files = _data_files(builder)
        self._note_missing(files)
        if not _all_parquet(files):
            _refuse_archives(builder, files)
            return builder.as_streaming_dataset()
        splits = remote_splits(files, builder.info.features)
        self._shards = {split: [_told(file.place, file.meta) for file in part.files] for split, part in splits.items()}
        return splits

    def _recall_shards(self, builder: Any) -> None:
        """Note the shards of a Hub dataset, and remember them beside its rows: offline the files may be out of reach."""
        place = _own_cache(self.origin) / "shards.json"
        key, known = str(self.origin.config), read_memory(place)
        if (kept := fitting(SHARDS, known.get(key))) is not None:
            self._shards = {split: [Shard(*shard) for shard in shards] for split, shards in kept.items()}
            return
        self._note_shards(builder, None)
        shards = {split: [astuple(shard) for shard in shards] for split, shards in self._shards.items()}
        write_memory(place, {**known, key: shards})

    def _note_shards(self, builder: Any, folder: Folder | None) -> None:
        """Keep what each parquet file says of itself; say which files are missing or not used."""
        files = _data_files(builder)
        self._note_missing(files)
        if folder is not None:
            used = {os.path.realpath(file) for names in files.values() for file in names}
            for inner in folder.walk():
                left = [name for name in inner.files if os.path.realpath(inner.path / name) not in used]
                self.found.skipped += Counter(ending(name) for name in left if ending(name) not in _DOCUMENTS)
        if _all_parquet(files):
            self._shards = {split: [_shard(file) for file in names] for split, names in files.items()}

    def _note_missing(self, files: Mapping[str, Sequence[str]]) -> None:
        self.found.notes += _missing_shards([Path(file).name for names in files.values() for file in names])

    # --- what there is ----------------------------------------------------------------------------------------------

    def columns(self, split: str) -> dict[str, Column]:
        return {name: _described(feature) for name, feature in (self._splits[split].features or {}).items()}

    def values(self, split: str, column: str) -> list[Any]:
        values, rows = list[Any](), sum(shard.rows for shard in self._shards.get(split, []))
        for batch in self._batches(split, column, LABELS):
            values += batch
            if len(values) % LABELS < len(batch):
                self.report(Step("read labels", len(values), max(rows, len(values)), {}))
        return self._by_name(values, split, column)

    def images(self, split: str, column: str, used: np.ndarray | None = None) -> Iterator[list[Encoded]]:
        find, row = _finding(self.origin, self._streaming), 0
        for batch in self._batches(split, column, CHUNK, used):
            yield [_encoded(cell, find, self._where(split, row + i)) for i, cell in enumerate(batch)]
            row += len(batch)

    def _batches(self, split: str, column: str, size: int, used: np.ndarray | None = None) -> Iterator[list[Any]]:
        with reading(self.origin):
            if isinstance(part := self._splits[split], RemoteSplit):
                yield from part.batches(column, size, used)
                return
            rows = self._splits[split].select_columns([column]).with_format("arrow")
            for table in rows.iter(batch_size=size):
                yield table.column(column).to_pylist()

    def _where(self, split: str, row: int) -> str:
        shards, first = self._shards.get(split, []), 0
        for shard in shards if len(shards) > 1 else []:
            if row < first + shard.rows:
                return f"in row {row} of split '{split}' (row {row - first} of {shard.name})"
            first += shard.rows
        return f"in row {row} of split '{split}'"

    # --- class numbers by name --------------------------------------------------------------------------------------

    def _by_name(self, values: list[Any], split: str, column: str) -> list[Any]:
        """Class numbers as numbers of the names that the first split gives, wherever a file or split orders them differently."""
        names = self.columns(self.names[0])[column].names if column in self.columns(self.names[0]) else ()
        own = self.columns(split)[column].names
        if not names or not own:
            return values
        shards = self._shards.get(split) or [Shard(split, len(values), {column: own})]
        out, first = [], 0
        for shard in shards:
            rows = values[first : first + shard.rows]
            theirs = tuple(shard.names.get(column, own))
            out += rows if theirs == names else _renumbered(rows, theirs, names, shard.name, column)
            first += shard.rows
        return out


def _renumbered(
    values: Sequence[Any], theirs: Sequence[str], names: Sequence[str], where: str, column: str
) -> list[Any]:
    position = {name: i for i, name in enumerate(names)}

    def number(value: Any) -> Any:
        if isinstance(value, list):
            return [number(inner) for inner in value]
        if not isinstance(value, int) or not 0 <= value < len(theirs):
            return value
        if (name := theirs[value]) not in position:
            raise DataError(
                f"Column '{column}' of {where} has the class '{name[:80]}', which the first file of the dataset does not know.",
                "Give all files the same class names.",
            )
        return position[name]

    return [number(value) for value in values]


def _shard(file: str) -> Shard:
    """What a parquet file says of itself. A file on the Hub is in the local cache by now."""
    import pyarrow.parquet as pq

    path = file
    if "://" in file:
        import datasets
        from datasets.utils.file_utils import cached_path

        path = cached_path(file, download_config=datasets.DownloadConfig(local_files_only=True))
    return _told(file, pq.read_metadata(path))


def _told(file: str, meta: Any) -> Shard:
    """What the metadata of a parquet file says."""
    import datasets

    features = datasets.Features.from_arrow_schema(meta.schema.to_arrow_schema())
    names = {name: column.names for name in features if (column := _described(features[name])).names}
    return Shard(Path(file).name, meta.num_rows, names)


def _data_files(builder: Any) -> dict[str, list[str]]:
    """Where the files of each split are."""
    return {str(split): [str(file) for file in files] for split, files in (builder.config.data_files or {}).items()}


def _all_parquet(files: Mapping[str, Sequence[str]]) -> bool:
    return all(file.endswith(".parquet") for names in files.values() for file in names)


def _refuse_archives(builder: Any, files: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError for archives that have to be unpacked: only those of WebDataset can be read from front to back."""
    from datasets.packaged_modules.webdataset.webdataset import WebDataset

    packed = [file for names in files.values() for file in names if file.lower().endswith((*ARCHIVES, ".7z", ".rar"))]
    if packed and not isinstance(builder, WebDataset):
        raise DataError(
            f"The data is in archives ('{Path(packed[0]).name}'), which have to be downloaded to be unpacked.",
            "Leave --streaming out. The Hub may have a copy that can be streamed: --revision refs/convert/parquet.",
        )


def _missing_shards(files: Sequence[str]) -> list[str]:
    """A sentence for each set of shards "NAME-00000-of-00003" that is not whole."""
    there: dict[tuple[str, str], set[int]] = {}
    for file in files:
        if match := _SHARD.fullmatch(file):
            there.setdefault((match[1], match[3]), set()).add(int(match[2]))
    return [
        f"{int(total) - len(found)} of {int(total)} shards of '{name}' are missing."
        for (name, total), found in there.items()
        if len(found) < int(total)
    ]


def _described(feature: Any) -> Column:
    """A column by its `datasets` feature; a list counts as what it holds."""
    from datasets import ClassLabel, Image, Value

    kind = str(feature)[:120]
    if isinstance(feature, Image):
        return Column("image", type=kind)
    if isinstance(feature, dict) and {"bytes", "path"} == set(feature):
        return Column("image", type=kind)
    inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", feature)
    if isinstance(inner, ClassLabel):
        return Column("class", tuple(inner.names or ()), kind)
    if isinstance(inner, Value):
        if re.fullmatch(r"(large_|fixed_size_)?binary.*", inner.dtype):
            return Column("bytes", type=inner.dtype)
        if re.match(r"u?int|float|string|large_string|bool", inner.dtype):
            return Column("value", type=inner.dtype if inner is feature else f"list of {inner.dtype}")
    return Column("other", type=kind)


# --- opening --------------------------------------------------------------------------------------------------------


def local_builder(path: Path, config: str | None, folder: Folder | None) -> Any:
    """What reads local tables: one file by its kind, a folder as `datasets` finds the files in it."""
    import datasets

    if path.is_file():
        kinds = {".parquet": "parquet", ".arrow": "arrow"}
        return datasets.load_dataset_builder(kinds.get(ending(path.name), "webdataset"), data_files=str(path))
    if set("[]*?") & set(str(path)):
        raise DataError(f"'{path}' has one of [ ] * ? in it, which `datasets` reads as a pattern.", "Rename it.")
    return datasets.load_dataset_builder(str(path), config)


def hub_builder(origin: Origin) -> Any:
    """What prepares the commit `origin.version` of a Hub dataset, in a cache of its own; it has read the description only.

    In a shared cache `datasets` silently takes whatever version it finds when the Hub does not answer.
    """
    import datasets

    which = {"data_dir": origin.config or "default"} if origin.converted else {"name": origin.config}
    own, asks = str(_own_cache(origin)), datasets.DownloadConfig(user_agent=f"ddtool/{__version__}")
    where = {"revision": origin.version, "cache_dir": own, "download_config": asks}
    return datasets.load_dataset_builder(origin.where, **where, **which)


def _own_cache(origin: Origin) -> Path:
    """The folder where `datasets` keeps the rows of one commit."""
    import datasets

    return Path(datasets.config.HF_DATASETS_CACHE) / "ddtool" / origin.version


# --- cells ----------------------------------------------------------------------------------------------------------


def _encoded(cell: Any, find: Callable[[str, str], Path | Fetch], where: str) -> Encoded:
    """The image of a cell: bytes, or {bytes, path}; `find` gives the file of a path."""
    if isinstance(cell, bytes):
        return Encoded(cell or None, where)
    raw, named = (cell or {}).get("bytes"), (cell or {}).get("path")
    if raw:
        return Encoded(raw, f"'{named}' {where}" if named else where)
    if not named:
        return Encoded(None, where)
    file = find(named, where)
    return Encoded(file, f"'{file if isinstance(file, Path) else named}' {where}")


def _finding(origin: Origin, streaming: bool) -> Callable[[str, str], Path | Fetch]:
    """What finds the image file that a row names, and raises DataError for one that is not the dataset's."""
    if streaming:
        hub = hub_files()
        return lambda named, where: _remote(named, where, origin, hub)
    roots = _roots(origin)
    return lambda named, where: _local(named, where, roots)


def _roots(origin: Origin) -> list[Path]:
    """Folders that a row may name image files in: anything else is not the dataset's to read."""
    if origin.kind != "hub":
        return [origin.path]
    import datasets
    import huggingface_hub

    caches = datasets.config.HF_DATASETS_CACHE, huggingface_hub.constants.HF_HUB_CACHE
    return [Path(os.path.abspath(cache)) for cache in caches]


def _local(named: str, where: str, roots: list[Path]) -> Path:
    path = Path(os.path.abspath(named))  # a link that the user put into the folder is followed
    if not any(path.is_relative_to(root) for root in roots):
        raise _elsewhere(named, where)
    return path


def _remote(named: str, where: str, origin: Origin, hub: Any) -> Fetch:
    """A file of the repo at its commit."""
    if not re.fullmatch(rf"hf://datasets/{re.escape(origin.where)}@{origin.version}/[^:]*", named):
        raise _elsewhere(named, where)

    def fetch() -> bytes:
        with reading(origin), hub.open(named, "rb", block_size=0) as stream:
            return bytes(stream.read())

    return fetch


def _elsewhere(named: str, where: str) -> DataError:
    hint = "Unpack archives, and keep the image files in the dataset's folder."
    return DataError(f"The image {where} is not in the dataset but at '{named}'.", hint)
