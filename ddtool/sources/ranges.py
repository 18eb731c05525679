"""Parquet files on the Hub, read over ranges of their bytes: of the columns that are asked for, and of the groups of rows
that are used. Nothing of them is kept on disk.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np

from ddtool.hub.access import access
from ddtool.sources.decode import in_threads

_AT_ONCE = 8
"""Files, or groups of rows of a label column, that are asked for at a time: each answer is short, and slow to come."""
_AHEAD = 2
"""Groups of rows with images that are read at a time; twice as many may lie in memory."""
_BLOCK = 2**16
"""Bytes of the end of a file that are asked for at once: there it tells of its columns and groups of rows."""


@dataclass(frozen=True)
class RemoteFile:
    """One parquet file of the Hub: where it is, its bytes, and what it says of itself (`pyarrow.parquet.FileMetaData`)."""

    place: str
    size: int
    meta: Any

    def groups(self) -> list[int]:
        """How many rows each group has."""
        return [self.meta.row_group(i).num_rows for i in range(self.meta.num_row_groups)]


class RemoteSplit:
    """The parquet files of a split. `features`: what `datasets` says of its columns; None: as the first file has it."""

    def __init__(self, hub: Any, files: Sequence[RemoteFile], features: Any = None) -> None:
        self._hub, self.files = hub, files
        self.features = features or _own_features(files[0])

    def batches(self, column: str, size: int, used: np.ndarray | None = None) -> Iterator[list[Any]]:
        """The cells of a column in order, at most `size` at a time; None in place of those in groups without a row of
        `used` (bool (n,)), which are not asked for."""
        workers = _AT_ONCE if used is None else _AHEAD
        for cells in in_threads(workers, lambda group: self._cells(column, *group), self._groups(used)):
            yield from (cells[start : start + size] for start in range(0, len(cells), size))

    def _groups(self, used: np.ndarray | None) -> Iterator[tuple[RemoteFile, int, bool]]:
        """(file, number of the group in it, whether one of its rows is used) of all groups."""
        groups = [(file, i, rows) for file in self.files for i, rows in enumerate(file.groups())]
        ends = accumulate(rows for _, _, rows in groups)
        for (file, i, rows), end in zip(groups, ends, strict=True):
            yield file, i, used is None or bool(used[end - rows : end].any())

    def _cells(self, column: str, file: RemoteFile, group: int, wanted: bool) -> list[Any]:
        import pyarrow.parquet as pq
        from datasets import Features
        from datasets.table import table_cast

        if not wanted:
            return [None] * file.groups()[group]
        with self._hub.open(file.place, cache_type="none", size=file.size) as stream:
            table = pq.ParquetFile(stream, metadata=file.meta, pre_buffer=True).read_row_group(group, [column])
        cast = table_cast(table, Features({column: self.features[column]}).arrow_schema)
        return list(cast.column(column).to_pylist())


def hub_files() -> Any:
    """The files of the Hub as a file system (`huggingface_hub.HfFileSystem`)."""
    from huggingface_hub import HfFileSystem

    return HfFileSystem(token=access().token)


def remote_splits(files: Mapping[str, Sequence[str]], features: Any) -> dict[str, RemoteSplit]:
    """The splits of a dataset by the addresses (`hf://…`) of their files. Raises what pyarrow and the Hub's client raise."""
    import pyarrow.parquet as pq

    hub = hub_files()

    def described(place: str) -> RemoteFile:
        with hub.open(place, block_size=_BLOCK) as stream:
            return RemoteFile(place, stream.size, pq.read_metadata(stream))

    places = [place for names in files.values() for place in names]
    found = dict(zip(places, in_threads(_AT_ONCE, described, iter(places)), strict=True))
    splits: dict[str, RemoteSplit] = {}
    for split, names in files.items():
        splits[split] = RemoteSplit(hub, [found[name] for name in names], features)
        features = splits[split].features  # as `datasets` has it, of all splits
    return splits


def _own_features(file: RemoteFile) -> Any:
    import datasets

    return datasets.Features.from_arrow_schema(file.meta.schema.to_arrow_schema())
