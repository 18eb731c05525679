"""The files below a folder: walked once, told apart by their content, hashed, drawn as a tree."""

import hashlib
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from ddtool.errors import DataError
from ddtool.events import Report, Step, silent
from ddtool.text import count

IMAGE_ENDINGS = {
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm",
    ".pbm", ".pnm", ".jp2", ".j2k", ".jpx", ".tga", ".avif", ".heic", ".heif",
}  # fmt: skip
"""A file with one of these is an image, whatever is in it: when it cannot be decoded, it is broken and not left out."""

NEEDS_HEIF = "needs pillow-heif"
"""What is said of HEIC files while the package for them is absent."""

_HIDDEN = ("__MACOSX", "Thumbs.db", "desktop.ini")  # left by systems
_UNSEEN = re.compile(r"\.git|\.cache|cache-.*\.arrow", re.DOTALL)
"""Left by tools that keep data; neither counted nor part of the content."""
MOST_DEEP = 100
"""How many folders deep the files of a dataset may lie."""
EVERY = 1000
"""Files after which it is said how far the work on a folder is."""
_HEAD = 64  # bytes from which a format is told
_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "PNG"), (b"\xff\xd8\xff", "JPEG"), (b"GIF87a", "GIF"), (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"), (b"MM\0*", "TIFF"), (b"II+\0", "TIFF"), (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG2000"), (b"\xff\x4f\xff\x51", "JPEG2000"),
)  # fmt: skip
_TGA_FOOTER = b"TRUEVISION-XFILE.\0"


def heif_is_here() -> bool:
    """Whether the package that reads HEIC is installed."""
    return find_spec("pillow_heif") is not None


def image_format(raw: bytes, name: str = "") -> str | None:
    """The format of an image as Pillow calls it, by its first bytes (and last ones, for TGA); None for anything else.

    TGA of the first version has no mark at all, so there alone the ending counts.
    """
    for mark, kind in _MAGIC:
        if raw.startswith(mark):
            return kind
    if raw[:4] == b"RIFF" and raw[8:12] == b"WEBP":
        return "WEBP"
    if raw[:2] == b"BM" and raw[6:10] == b"\0\0\0\0":
        return "BMP"
    if raw[:1] == b"P" and raw[1:2] in b"1234567fF" and raw[2:3].isspace():
        return "PPM"
    if raw[4:8] == b"ftyp":
        return _boxed_format(raw[8:_HEAD])
    return "TGA" if raw.endswith(_TGA_FOOTER) or (ending(name) == ".tga" and not _is_text(raw[:_HEAD])) else None


def _boxed_format(brands: bytes) -> str | None:
    if brands[:4] in (b"avif", b"avis") or b"avif" in brands:
        return "AVIF"
    return "HEIF" if brands[:4] in (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1") else None


def _is_text(raw: bytes) -> bool:
    return not raw or all(byte >= 32 or byte in b"\t\r\n" for byte in raw)


def ending(name: str) -> str:
    """The ending of a file name in lower case, with its dot; empty when there is none."""
    return os.path.splitext(name)[1].lower()


@dataclass
class Folder:
    """One folder with what is below it: visible folders and files by name, in order."""

    path: Path
    inside: str
    """Its path below the root of the walk, with slashes; empty for the root."""

    folders: list["Folder"] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    """Hidden files."""

    left: dict[str, str] = field(default_factory=dict)
    """What else is here, by name with its kind: hidden folders, broken links, pipes."""

    _kinds: dict[str, str | None] = field(default_factory=dict, init=False, repr=False)

    @property
    def name(self) -> str:
        return self.path.name

    @cached_property
    def images(self) -> list[str]:
        """Names of the files right here that are images, by content, or by ending when the content is broken."""
        return [name for name, kind in self.told_apart() if kind is None]

    def told_apart(self) -> Iterator[tuple[str, str | None]]:
        """The files right here, each with the kind that it is left out as; None for an image. Each is opened once."""
        for name in self.files:
            if name not in self._kinds:
                self._kinds[name] = _left_out_as(os.path.join(self.path, name), name)
            yield name, self._kinds[name]

    def left_out(self) -> Counter[str]:
        """What is right here and no image, by kind."""
        kinds = Counter(kind for _, kind in self.told_apart() if kind is not None)
        return kinds + Counter(self.left.values()) + Counter({"hidden": len(self.hidden)})

    def walk(self) -> Iterator["Folder"]:
        """This folder and all below, in order."""
        yield self
        for folder in self.folders:
            yield from folder.walk()

    def all_images(self) -> Iterator[str]:
        """Every image here and below, as paths from the root of the walk."""
        for folder in self.walk():
            yield from (folder.place(name) for name in folder.images)

    @cached_property
    def holds_images(self) -> bool:
        """Whether there is an image here or below."""
        return bool(self.images) or any(folder.holds_images for folder in self.folders)

    def place(self, name: str) -> str:
        """The path of something right here, from the root of the walk."""
        return f"{self.inside}/{name}" if self.inside else name

    def tree(self, lines: int = 16) -> str:
        """A drawing of the folders below for a message, with how many images each holds."""
        drawn = [f"{self.name}/{self._count()}"]
        for folder in self.folders:
            drawn.append(f"  {folder.name}/{folder._count()}")
            drawn += [f"    {inner.name}/{inner._count()}" for inner in folder.folders[:3]]
            drawn += ["    …"] * (len(folder.folders) > 3)
        return "\n".join(drawn[:lines] + ["  …"] * (len(drawn) > lines))

    def _count(self) -> str:
        return f" ({count(len(self.images), 'image')})" if self.images else ""


def _left_out_as(path: str, name: str) -> str | None:
    """None for an image, broken or not; else the kind that the file is counted under."""
    suffix = ending(name)
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(_HEAD)
            if not suffix and file.seek(0, os.SEEK_END) > _HEAD:
                file.seek(-len(_TGA_FOOTER), os.SEEK_END)
                head += file.read()
    except OSError as error:
        raise _unreadable(path, error) from error
    kind = image_format(head, name)
    if (kind == "HEIF" or suffix in (".heic", ".heif")) and not heif_is_here():
        return f"{suffix or 'HEIC'} ({NEEDS_HEIF})"
    if kind or suffix in IMAGE_ENDINGS:
        return None
    return suffix or "without an ending"


def read_tree(root: Path, report: Report = silent) -> Folder:
    """Everything below `root`; how many of the folders known so far are listed is said. Links are followed.

    Raises DataError for a loop of links, for folders too deep inside each other, and for what cannot be read.
    """
    top, listed, entries = Folder(root, ""), 0, 0
    waiting = [(top, frozenset([os.path.realpath(root)]))]
    while waiting:
        folder, above = waiting.pop()
        if len(above) > MOST_DEEP:
            message = f"The folder '{folder.path!s:.80}…' lies more than {MOST_DEEP} folders deep."
            raise DataError(message, "Move what is in it further up, or name the folder that holds the images.")
        try:
            found = sorted(os.scandir(folder.path), key=lambda entry: entry.name)
        except OSError as error:
            raise _unreadable(folder.path, error) from error
        for entry in found:
            if (inner := _sorted_in(folder, entry)) is not None:
                waiting.append((inner, above | {_no_loop(inner.path, above)}))
            if (entries := entries + 1) % EVERY == 0:
                report(Step("list files", listed, listed + 1 + len(waiting), {}))
        listed += 1
    return top


def look_at(root: Folder, report: Report) -> None:
    """Tell the images below `root` from other files, by their content, and say how far that is; elsewhere it is known then."""
    folders = list(root.walk())
    total, done = sum(len(folder.files) for folder in folders), 0
    for folder in folders:
        for _ in folder.told_apart():
            if (done := done + 1) % EVERY == 0:
                report(Step("look at files", done, total, {}))


def _sorted_in(folder: Folder, entry: os.DirEntry[str]) -> Folder | None:
    """Put one entry where it belongs; a folder to go on with is returned."""
    if _UNSEEN.fullmatch(entry.name):
        return None
    hidden = entry.name.startswith(".") or entry.name in _HIDDEN
    try:
        mode = entry.stat().st_mode
    except OSError:  # a link to nothing, or one that goes round
        folder.left[entry.name] = "hidden" if hidden else "broken links"
        return None
    if stat.S_ISREG(mode):
        (folder.hidden if hidden else folder.files).append(entry.name)
    elif stat.S_ISDIR(mode) and not hidden:
        folder.folders.append(Folder(Path(entry.path), folder.place(entry.name)))
        return folder.folders[-1]
    else:
        folder.left[entry.name] = "hidden" if hidden else "neither file nor folder"
    return None


def _no_loop(path: Path, above: frozenset[str]) -> str:
    real = os.path.realpath(path)
    if real in above:
        raise DataError(f"The link '{path}' leads back to a folder that it is in.", "Remove the link.")
    return real


def _unreadable(path: str | Path, error: OSError) -> DataError:
    return DataError(f"'{error.filename or path}' cannot be read: {error.strerror}.", "Check its permissions.")


def content_hash(path: Path, report: Report) -> str:
    """A hash of a file's bytes, or of everything below a folder by relative path and bytes.

    Renamed, rewritten, added or removed files all change it; where the folder lies does not.
    """
    digest = hashlib.blake2b(digest_size=16)
    if path.is_file():
        _add(digest, path, ".")
        return digest.hexdigest()
    folders = list(read_tree(path, report).walk())
    places = [folder.place(name) for folder in folders for name in folder.files + folder.hidden]
    for done, place in enumerate(sorted(places, key=lambda place: place.split("/")), 1):
        _add(digest, os.path.join(path, place), place)
        if done % EVERY == 0:
            report(Step("read files", done, len(places), {}))
    for left in sorted((folder.place(name), kind) for folder in folders for name, kind in folder.left.items()):
        digest.update(json.dumps(left).encode())
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", file: str | Path, place: str) -> None:
    try:
        with open(file, "rb", buffering=0) as stream:
            digest.update(json.dumps([place, os.fstat(stream.fileno()).st_size]).encode())
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(file, error) from error


def kinds(left: Counter[str]) -> str:
    """ "9 .heic (needs pillow-heif), 3 hidden": how many files there are of each kind, the most frequent first."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(left.items(), key=lambda kn: (-kn[1], kn[0])))
