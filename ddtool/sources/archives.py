"""A zip or tar archive → the folder that it holds, unpacked for as long as it is read."""

import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from ddtool.errors import DataError
from ddtool.events import Report, Step

DAMAGED = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    tarfile.TarError,
)
"""What is raised while a damaged archive is read."""


@contextmanager
def unpacked(archive: Path, beside: Path, report: Report) -> Iterator[Path]:
    """A temporary folder below `beside` with the files of the archive; links and devices in it are not made.

    Raises DataError for an archive that is damaged, encrypted, too large for the disk, or that names files outside of itself.
    """
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=beside) as folder:
        try:
            _unpack(archive, Path(folder), report)
        except DAMAGED as error:
            said = getattr(error, "strerror", None) or str(error)
            raise DataError(
                f"The archive '{archive}' cannot be unpacked: {said}.", "Unpack it, and name the folder."
            ) from error
        yield Path(folder)


def _unpack(archive: Path, folder: Path, report: Report) -> None:
    """Every regular file of the archive into a folder."""
    for done, total, name, stream in _members(archive, folder):
        with stream, open(_place(folder, name, archive), "wb") as file:
            shutil.copyfileobj(stream, file, 1 << 20)
        if done % 1000 == 0:
            report(Step("unpack", done, total, {}))


def names_in(archive: Path) -> list[str]:
    """The names of the files in an archive. Raises DataError when it cannot be read."""
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as file:
                return file.namelist()
        with tarfile.open(archive) as tar:
            names = tar.getnames()
            _check_end(tar)
            return names
    except DAMAGED as error:
        raise DataError(f"The archive '{archive}' cannot be read: {error}.", "Download it again.") from error


def _members(archive: Path, folder: Path) -> Iterator[tuple[int, int, str, IO[bytes]]]:
    """(number, how many in all, name, content) of every regular file, which are to go into a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            infos = [info for info in file.infolist() if not info.filename.endswith("/") and not _is_link(info)]
            _check_room(sum(info.file_size for info in infos), folder, archive)
            for done, info in enumerate(infos, 1):
                yield done, len(infos), info.filename, file.open(info)
        return
    with tarfile.open(archive) as tar:
        members = [member for member in tar.getmembers() if member.isfile()]
        _check_end(tar)
        _check_room(sum(member.size for member in members), folder, archive)
        for done, member in enumerate(members, 1):
            stream = tar.extractfile(member)
            assert stream is not None, "a regular file has content"
            yield done, len(members), member.name, stream


def _check_end(tar: tarfile.TarFile) -> None:
    """ReadError where something stands that is no file, and not the zeros of the end: tarfile takes it for the end all the same."""
    assert tar.fileobj is not None, "an archive that is read has a file"
    tar.fileobj.seek(tar.offset)
    if tar.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise tarfile.ReadError(f"it is damaged or cut off after {len(tar.getmembers())} of its entries")


def _check_room(size: int, folder: Path, archive: Path) -> None:
    """DataError, before a file is written, when all of them are larger than what is free: a small archive may hold very much."""
    if size > (free := shutil.disk_usage(folder).free):
        message = (
            f"The archive '{archive}' unpacks to {size:,} bytes, and only {free:,} are free on the disk of the cache."
        )
        raise DataError(message, "Free some space, or name another place for the cache: DDTOOL_CACHE.")


def _is_link(info: zipfile.ZipInfo) -> bool:
    return stat.S_ISLNK(info.external_attr >> 16)


def _place(folder: Path, name: str, archive: Path) -> Path:
    """Where a member goes, its folder made. Raises DataError for a name that leads out of the archive."""
    inside = PurePosixPath(name.replace("\\", "/"))
    if not inside.parts:
        raise ValueError("a file in it has no name")
    if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
        message = f"The archive '{archive}' names a file outside of itself: '{name[:80]}'."
        raise DataError(message, "Do not trust it; take the data from its publisher.")
    path = folder / inside
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
