"""How the Hub is asked in one call of the Python API: by which token, into which cache, and whether at all."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Access:
    """What `from_pretrained`, `load_set`, `pull` and `push` are given, by the names that huggingface_hub has for it."""

    token: str | bool | None = None
    """A token; None: that of the environment or of `hf auth login`; False: none at all."""
    cache_dir: str | Path | None = None
    """Where files are kept; None: HF_HOME."""
    force_download: bool = False
    """Download what is in the cache already."""
    local_files_only: bool = False
    """Take what was used here before, and ask nothing."""


USUAL = Access()
_NOW: ContextVar[Access] = ContextVar("access")


def access() -> Access:
    """How the Hub is asked now."""
    return _NOW.get(USUAL)


@contextlib.contextmanager
def asked(how: Access) -> Iterator[None]:
    """Inside, the Hub is asked so."""
    before = _NOW.set(how)
    try:
        yield
    finally:
        _NOW.reset(before)
