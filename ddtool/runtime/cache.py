"""Where decoded datasets, experts and what was seen of the Hub are kept."""

import os
from pathlib import Path


def cache_root() -> Path:
    """Where decoded images are kept: DDTOOL_CACHE, else XDG_CACHE_HOME/ddtool, else ~/.cache/ddtool."""
    if own := os.environ.get("DDTOOL_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "ddtool"
