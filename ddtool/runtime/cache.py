"""Where decoded datasets, experts and what was seen of the Hub are kept, what is there, and what may go."""

import os
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ddtool.text import parsed_json


def cache_root() -> Path:
    """Where decoded images are kept: DDTOOL_CACHE, else XDG_CACHE_HOME/ddtool, else ~/.cache/ddtool."""
    if own := os.environ.get("DDTOOL_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ddtool"


@dataclass(frozen=True)
class Kept:
    """One thing in the cache."""

    kind: str
    """dataset, experts, hub or leftover."""
    name: str
    """What it is, as far as it says so."""
    path: Path
    bytes: int
    used: float
    """When it was last used, in seconds since 1970."""


def kept(root: Path) -> list[Kept]:
    """All that the cache holds, the largest first. What ddtool did not put there is not among it."""
    found = [_described(path) for path in _entries(root)]
    return sorted(found, key=lambda one: (-one.bytes, str(one.path)))


def _entries(root: Path) -> Iterator[Path]:
    for folder in (root, root / "methods"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if path.is_dir() and (_is_name(path.name) or path.name.startswith(".tmp-")):
                yield path
    if (root / "hub").exists():
        yield root / "hub"


def _is_name(name: str) -> bool:
    """Whether a folder is named by a hash, as decoded datasets and experts are."""
    return len(name) in (16, 32) and all(letter in "0123456789abcdef" for letter in name)


def _described(path: Path) -> Kept:
    """A folder of the cache: its size, and when any of its files was last read or written."""
    files = [file.stat() for file in path.rglob("*") if file.is_file()]
    used = max([max(file.st_atime, file.st_mtime) for file in files], default=path.stat().st_mtime)
    kind = "leftover" if path.name.startswith(".tmp-") else "experts" if path.parent.name == "methods" else "dataset"
    kind = "hub" if path.name == "hub" else kind
    return Kept(kind, _name_of(path), path, sum(file.st_size for file in files), used)


def _name_of(path: Path) -> str:
    """What a decoded dataset says that it is."""
    try:
        meta = parsed_json((path / "meta.json").read_text(encoding="utf-8"))
        classes, (images, c, h, w) = len(meta["class_names"]), meta["train"]
        return f"{meta.get('name') or 'dataset'}: {images:,} images {c}x{h}x{w}, {classes} classes"
    except (OSError, ValueError, LookupError, TypeError):
        return path.name


def prune(entries: Iterable[Kept], days: float, now: float | None = None) -> list[Kept]:
    """Remove what was not used for so many days; returns what is gone. It is made again when it is needed."""
    now = time.time() if now is None else now
    old = [one for one in entries if now - one.used >= days * 86400]
    for one in old:
        shutil.rmtree(one.path, ignore_errors=True)
    return [one for one in old if not one.path.exists()]
