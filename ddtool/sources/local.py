"""Local data → the reader for its layout: tables, a listing, or a folder of images; archives are unpacked first."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ddtool.errors import DataError
from ddtool.events import Report
from ddtool.sources.archives import names_in, unpacked
from ddtool.sources.files import Folder, ending, look_at, read_tree
from ddtool.sources.folders import read_folder
from ddtool.sources.listed import read_listed
from ddtool.sources.names import ARCHIVES, TABLES, Origin, front_matter
from ddtool.sources.options import DataOptions
from ddtool.sources.readers import Reader
from ddtool.sources.tables import Tables

_SAVED = {"dataset_dict.json", "state.json"}


@contextmanager
def opened(origin: Origin, options: DataOptions, scratch: Path, report: Report) -> Iterator[Reader]:
    """The reader of a dataset that was found, for as long as it is read; archives are unpacked below `scratch`."""
    if origin.kind == "hub":
        yield Tables(origin, streaming=options.streaming, report=report)
    elif origin.path.is_file() and origin.path.name.lower().endswith(ARCHIVES) and not _is_webdataset(origin.path):
        with unpacked(origin.path, scratch, report) as folder:
            yield _of_folder(replace(origin, where=str(folder)), options, report)
    elif origin.path.is_file():
        yield Tables(origin, report=report)
    else:
        yield _of_folder(origin, options, report)


def _is_webdataset(archive: Path) -> bool:
    """Whether a tar holds samples of files with one name, `000.jpg` beside `000.cls` or `000.json`."""
    if ending(archive.name) == ".zip":
        return False
    endings = {ending(name) for name in names_in(archive)}
    return bool(endings & {".cls", ".json"}) and not endings & set(TABLES)


def _of_folder(origin: Origin, options: DataOptions, report: Report) -> Reader:
    root = read_tree(origin.path, report)
    options = replace(options, config=origin.config)
    if ending(options.config or "") not in TABLES and _holds_tables(root):
        return Tables(origin, root, report=report)
    look_at(root, report)
    if (listed := read_listed(root, options)) is not None:
        return listed
    if options.config is not None:
        raise DataError(f"A folder of images has no configuration '{options.config}'.", "Leave --dataset-config out.")
    reader = read_folder(root, options)
    if re.search(r"^configs:", front_matter(root.path), re.MULTILINE):
        reader.found.notes.append("What the README says in `configs` is not followed: folders say splits and classes.")
    return reader


def _holds_tables(root: Folder) -> bool:
    """Whether the data is in tables that `datasets` reads: files of rows, or what a README says of where they are."""
    files = [name for folder in root.walk() for name in folder.files]
    endings = {ending(name) for name in files}
    if endings & {".parquet", ".arrow"} or _SAVED & set(root.files):
        return True
    shards = [folder.path / name for folder in root.walk() for name in folder.files if ending(name) == ".tar"]
    return bool(shards) and not root.holds_images and _is_webdataset(shards[0])
