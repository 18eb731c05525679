"""Files that appear whole or not at all, and folders in which one command works at a time."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from ddtool.errors import DDToolError


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


@contextlib.contextmanager
def held(folder: Path, refusal: DDToolError, shared: bool = False) -> Iterator[tuple[int, ...]]:
    """Keep others out of a folder while work goes on inside; they, or we, hear the `refusal`.

    Yields the open file that holds it: a process that inherits it keeps the folder held until it has ended. shared: others who
    say so may work here as well. Windows, other machines, and file systems without such locks keep nobody out.
    """
    if sys.platform == "win32":
        yield ()
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_NB | (fcntl.LOCK_SH if shared else fcntl.LOCK_EX))
        except BlockingIOError:
            raise refusal from None
        except OSError:
            pass
        yield (handle,)
    finally:
        os.close(handle)
