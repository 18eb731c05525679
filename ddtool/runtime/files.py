"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place, with the mode that new files of
    this user have. What `write` raises leaves `path` as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        write(temporary)
        if temporary.stat().st_mode != usual:  # safetensors makes files that nobody else may read
            temporary.chmod(usual)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
