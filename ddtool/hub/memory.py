"""What was seen of the Hub, kept for offline use, and whether the Hub may be asked at all."""

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from ddtool.hub.access import access
from ddtool.runtime.cache import cache_root
from ddtool.runtime.files import write_atomically

REMEMBERED = 8
"""Commits of a repo whose file lists are kept."""

Listing = dict[str, tuple[int, str]]
"""Name of a file → bytes and hash."""


def offline() -> bool:
    """Whether the user has said that nothing may be asked: in this call, now, or when huggingface_hub was imported."""
    if access().local_files_only:
        return True
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    if any(os.environ.get(s, "").upper() in ("1", "ON", "YES", "TRUE") for s in switches):
        return True
    return bool(getattr(sys.modules.get("huggingface_hub.constants"), "HF_HUB_OFFLINE", False))


def read_memory(file: Path) -> dict[str, Any]:
    """What was seen online, a JSON object; empty when there is no such file or it is damaged."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def write_memory(file: Path, known: dict[str, Any]) -> None:
    """Best effort: without it only offline use is lost, and a cache that cannot be written complains by itself."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, lambda temporary: temporary.write_text(json.dumps(known, indent=1), encoding="utf-8"))


def commit_of(kind: str, repo: str, branch: str) -> str | None:
    """The commit that a branch had when it was last seen; None when it was not."""
    return _branches(_recall(kind, repo)).get(branch)


def files_of(kind: str, repo: str, sha: str) -> Listing:
    """Those files of a commit that were seen."""
    return _listings(_recall(kind, repo)).get(sha, {})


def remember_commit(kind: str, repo: str, branch: str, sha: str) -> None:
    """Keep which commit a branch has."""
    known = _recall(kind, repo)
    _keep(kind, repo, _branches(known) | {branch: sha}, _listings(known))


def remember_files(kind: str, repo: str, sha: str, files: Listing) -> None:
    """Add files of a commit to those that were seen; the lists of the oldest commits go first."""
    known = _recall(kind, repo)
    listings = _listings(known)
    listings[sha] = {**listings.pop(sha, {}), **files}
    _keep(kind, repo, _branches(known), dict(list(listings.items())[-REMEMBERED:]))


def _file(kind: str, repo: str) -> Path:
    return cache_root() / "hub" / f"{kind}--{repo.replace('/', '--')}.json"


def _recall(kind: str, repo: str) -> dict[str, Any]:
    """{"refs": {branch: sha}, "files": {sha: {name: [size, hash]}}}, as it was written."""
    return read_memory(_file(kind, repo))


def _keep(kind: str, repo: str, branches: dict[str, str], listings: dict[str, Listing]) -> None:
    write_memory(_file(kind, repo), {"refs": branches, "files": listings})


def _branches(known: dict[str, Any]) -> dict[str, str]:
    refs = known.get("refs")
    return {branch: sha for branch, sha in refs.items() if isinstance(sha, str)} if isinstance(refs, dict) else {}


def _listings(known: dict[str, Any]) -> dict[str, Listing]:
    """The lists of files by commit; what is damaged is forgotten."""
    files = known.get("files")
    found = files.items() if isinstance(files, dict) else ()
    return {sha: {n: (f[0], f[1]) for n, f in listed.items()} for sha, listed in found if _is_listing(listed)}


def _is_listing(listed: object) -> bool:
    return isinstance(listed, dict) and all(
        isinstance(file, list) and list(map(type, file)) == [int, str] for file in listed.values()
    )
