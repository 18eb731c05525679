"""Files that appear whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place, with the mode that new files of
    this user have. What `write` raises leaves `path` as it was; it is on the disk before it takes the place, so that a machine
    that loses power does not leave an empty file there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        usual = temporary.stat().st_mode
        write(temporary)
        if temporary.stat().st_mode != usual:  # safetensors makes files that nobody else may read
            temporary.chmod(usual)
        synchronise(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def synchronise(path: Path) -> None:
    """Wait until a file, or every file below a folder, is on the disk."""
    for file in [path] if path.is_file() else [below for below in path.rglob("*") if below.is_file()]:
        with open(file, "r+b") as opened:  # Windows refuses it for a file that is only read
            os.fsync(opened.fileno())
