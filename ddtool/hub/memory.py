"""What was seen of the Hub, kept for offline use, and whether the Hub may be asked at all."""

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import JsonValue, StrictInt, StrictStr, TypeAdapter, ValidationError

from ddtool.config import Values
from ddtool.hub.access import access
from ddtool.runtime.cache import cache_root
from ddtool.runtime.files import write_atomically
from ddtool.text import parsed_json

T = TypeVar("T")
REMEMBERED = 8
"""Commits of a repo whose file lists are kept."""

Listing = dict[str, tuple[int, str]]
"""Name of a file → bytes and hash."""
LISTING = TypeAdapter(dict[str, tuple[StrictInt, StrictStr]])


def offline() -> bool:
    """Whether the user has said that nothing may be asked: in this call, now, or when huggingface_hub was imported."""
    if access().local_files_only:
        return True
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    if any(os.environ.get(s, "").upper() in ("1", "ON", "YES", "TRUE") for s in switches):
        return True
    return bool(getattr(sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE", False))


def read_memory(file: Path) -> Values:
    """What was seen online, a JSON object; empty when there is no such file or it is damaged."""
    try:
        known = parsed_json(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}


def fitting(kind: TypeAdapter[T], value: JsonValue) -> T | None:
    """A value that was kept, as what it should be; None for one that is not: it is forgotten."""
    try:
        return kind.validate_python(value)
    except ValidationError:
        return None


def write_memory(file: Path, known: Mapping[str, object]) -> None:
    """Best effort: without it only offline use is lost, and a cache that cannot be written complains by itself."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda temporary: temporary.write_text(json.dumps(known, indent=1), encoding="utf-8"))


@dataclass(frozen=True)
class Seen:
    """What was seen of a repo: the commit of each branch, and the files of each commit, the oldest first."""

    branches: dict[str, str]
    listings: dict[str, Listing]


def commit_of(kind: str, repo: str, branch: str) -> str | None:
    """The commit that a branch had when it was last seen; None when it was not."""
    return _recall(kind, repo).branches.get(branch)


def files_of(kind: str, repo: str, sha: str) -> Listing:
    """Those files of a commit that were seen."""
    return _recall(kind, repo).listings.get(sha, {})


def remember_commit(kind: str, repo: str, branch: str, sha: str) -> None:
    """Keep which commit a branch has."""
    known = _recall(kind, repo)
    _keep(kind, repo, Seen(known.branches | {branch: sha}, known.listings))


def remember_files(kind: str, repo: str, sha: str, files: Listing) -> None:
    """Add files of a commit to those that were seen; the lists of the oldest commits go first."""
    known = _recall(kind, repo)
    older = {commit: listed for commit, listed in known.listings.items() if commit != sha}
    listings = older | {sha: known.listings.get(sha, {}) | files}
    _keep(kind, repo, Seen(known.branches, dict(list(listings.items())[-REMEMBERED:])))


def _file(kind: str, repo: str) -> Path:
    return cache_root() / "hub" / f"{kind}--{repo.replace('/', '--')}.json"


def _recall(kind: str, repo: str) -> Seen:
    """What the file of a repo says, {"refs": {branch: sha}, "files": {sha: {name: [size, hash]}}}; what is damaged is forgotten."""
    known = read_memory(_file(kind, repo))
    refs, files = known.get("refs"), known.get("files")
    return Seen(
        {branch: sha for branch, sha in _object(refs).items() if isinstance(sha, str)},
        {sha: listing for sha, listed in _object(files).items() if (listing := fitting(LISTING, listed)) is not None},
    )


def _keep(kind: str, repo: str, seen: Seen) -> None:
    write_memory(_file(kind, repo), {"refs": seen.branches, "files": seen.listings})


def _object(value: JsonValue) -> Values:
    """A JSON object, or an empty one in place of anything else."""
    return value if isinstance(value, dict) else {}
