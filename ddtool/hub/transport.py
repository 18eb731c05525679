"""What everything that asks the Hub shares: whether asking is allowed, what was seen before, what can go wrong."""

import contextlib
import json
import os
import re
import tempfile
from pathlib import Path
from typing import Any


def offline() -> bool:
    """Whether the user has said that nothing may be asked."""
    switches = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return any(os.environ.get(s, "").upper() in ("1", "ON", "YES", "TRUE") for s in switches)


def read_memory(file: Path) -> dict[str, Any]:
    """What was seen online, for use offline; empty when there is no such file or it is damaged."""
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def write_memory(file: Path, known: dict[str, Any]) -> None:
    """Best effort: without it only offline use is lost, and a cache that cannot be written complains by itself."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", dir=file.parent, prefix=".tmp-", delete=False, encoding="utf-8"
        ) as temporary:
            json.dump(known, temporary, indent=1)
        os.replace(temporary.name, file)


def transport_errors() -> tuple[type[Exception], ...]:
    """What the client raises for an unreachable or refusing Hub: httpx's errors, httpx2's from huggingface_hub 2 on."""
    from huggingface_hub.errors import HfHubHTTPError

    transport = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return (OSError, ValueError, RuntimeError, *transport)


def reason(error: BaseException) -> str:
    """The first lines of the deepest cause, without anything that looks like a credential."""
    while error.__cause__ is not None:
        error = error.__cause__
    line = " ".join(str(error).split()) or type(error).__name__
    if "BatchSize must be greater than 0" in line:  # how pyarrow says it
        return "a parquet file of it is empty"
    line = re.sub(r"hf_\w{8,}|(?<=://)[^/@\s]+@", "***", line)
    return (line if len(line) <= 300 else line[:297] + "…").rstrip(".")
