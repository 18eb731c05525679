"""All the images of a dataset → two arrays on disk: threads decode, the order stays, what is broken is named or set aside.

What all images must agree on (channels, the range of deep pixels, what transparency is laid on) shows only on the way. Then
the decoding starts again with that settled. Nothing here imports torch.
"""

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict, TypeVar

import numpy as np

from ddtool.errors import DataError
from ddtool.events import Report, Step
from ddtool.sources import pixels
from ddtool.sources.pixels import BrokenImageError, DeepFoundError, PaperFoundError, Rules

CHUNK = 128
"""Images that a thread decodes at a time."""

MAX_NATIVE = 128
"""Largest side, in pixels, that is taken without an explicit resolution."""

DARK = 8
"""An image whose brightest value is below this counts as nearly black."""

Fetch = Callable[[], bytes]
"""Asks for the bytes of an image that is elsewhere. What it raises is of the connection, and says nothing of the image."""

A = TypeVar("A")
B = TypeVar("B")


class ColourFoundError(Exception):
    """A colour image turned up where all were grey so far."""


class SizesError(DataError):
    """Images of several sizes, or too large ones, where no resolution was asked for."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """One image as it is stored: its bytes, its file, or what fetches it (None: there is none), and where that is, for
    messages."""

    data: bytes | Path | Fetch | None
    where: str
    """ "'cat/1.png'" or "in row 3 of split 'train'"."""

    def read(self) -> bytes:
        """The bytes. Raises BrokenImageError."""
        if self.data is None:
            raise BrokenImageError("there is none")
        if isinstance(self.data, bytes):
            return self.data
        if not isinstance(self.data, Path):
            return self.data()
        try:
            return self.data.read_bytes()
        except OSError as error:
            raise BrokenImageError(f"it cannot be read: {error.strerror}") from error

    @property
    def name(self) -> str:
        return self.data.name if isinstance(self.data, Path) else ""


@dataclass(frozen=True)
class Split:
    """One split of the source: its labels, which rows are for testing, and its encoded images in row order.

    labels: int64 (n,), -1 for a row that is left out;  held: bool (n,), True where the row belongs to the test part;
    chunks(): lists of at most CHUNK images, n in all.
    """

    name: str
    labels: np.ndarray
    held: np.ndarray
    chunks: Callable[[], Iterator[list[Encoded]]]


@dataclass(frozen=True)
class Layout:
    """What every image becomes: (channels, height, width), by which rules."""

    channels: int
    height: int
    width: int
    rules: Rules


class Broken(TypedDict):
    """An image that was set aside, plain JSON values."""

    split: str
    row: int
    image: str
    """Where it is, for messages."""
    reason: str


@dataclass
class Written:
    """What decoding a dataset found out."""

    plan: Layout
    kept: list[np.ndarray]
    """For each split, bool (n,): the rows that are in the arrays."""

    broken: list[Broken] = field(default_factory=list)
    """The images that were set aside."""

    shared: int = 0
    """Test images whose pixels are those of a training image."""

    notes: list[str] = field(default_factory=list)
    """What the user should know of the pictures."""


@dataclass
class _Block:
    """Some consecutive rows of a split, decoded."""

    images: np.ndarray  # uint8 (k, c, h, w): rows that are kept
    kept: np.ndarray  # bool (n,), n >= k
    digests: list[bytes]
    plain: int  # images of one colour
    dark: int
    broken: list[Broken]


# --- before decoding ------------------------------------------------------------------------------------------------


def first_look(splits: Sequence[Split], rules: Rules, allowed: int = 0) -> Layout:
    """The plan that the first sound image suggests. Raises SizesError when it is too large to be taken as it is, and
    DataError when more than `allowed` images before it are broken."""
    trial = replace(rules, background=rules.background or "black", scales=())
    with pixels.decoding():
        found = _first_sound(splits, trial, allowed)
    h, w = found.shape[:2]
    if rules.resolution is None and max(h, w) > MAX_NATIVE:
        raise SizesError(
            f"Images of {w}x{h} pixels are too large to be distilled as they are (at most {MAX_NATIVE}).",
            "Name a smaller size, for example --resolution 32.",
        )
    return Layout(3 if found.ndim == 3 else 1, h, w, rules)


def _first_sound(splits: Sequence[Split], rules: Rules, allowed: int) -> np.ndarray:
    """The first image that is not broken, (h, w) or (h, w, 3). Raises DataError when more than `allowed` before it are."""
    for broken, image in enumerate(every_image(splits)):
        try:
            return pixels.decode_image(image.read(), rules, image.name)
        except BrokenImageError as error:
            if broken >= allowed:
                raise _broken(image.where, str(error)) from error
    raise DataError("None of the images can be decoded.", "Check the files.")


def every_image(splits: Sequence[Split]) -> Iterator[Encoded]:
    """The images that are used, split by split."""
    for split in splits:
        row = 0
        for chunk in split.chunks():
            yield from (image for i, image in enumerate(chunk) if split.labels[row + i] >= 0)
            row += len(chunk)


def _broken(where: str, reason: str) -> DataError:
    hint = "Remove or replace it, or set such images aside: --skip-broken 1% (or a number)."
    return DataError(f"The image {where} cannot be decoded ({reason}).", hint)


# --- all images -----------------------------------------------------------------------------------------------------


def write_images(
    splits: Sequence[Split], folder: Path, rules: Rules, allowed: int, workers: int, report: Report
) -> Written:
    """Every image of every split, decoded into `train-images.npy` and `test-images.npy` in `folder`.

    Raises DataError for more than `allowed` broken images, and SizesError for images of unequal size.
    """
    plan, notes = first_look(splits, rules, allowed), list[str]()
    with pixels.decoding():
        while True:
            try:
                written = _write_planned(splits, folder, plan, allowed, workers, report)
                return replace(written, notes=notes + written.notes)
            except ColourFoundError:
                plan = replace(plan, channels=3)
            except PaperFoundError:
                plan = replace(plan, rules=replace(plan.rules, background="white"))
                notes.append("Transparency is laid on white: on black an image would be all of one colour.")
            except DeepFoundError:
                scales = _scales(splits, plan.rules, workers)
                plan = replace(plan, rules=replace(plan.rules, scales=scales))
                notes += [
                    f"Pixels of {kind} type: {low:g} becomes black, {high:g} white." for kind, low, high in scales
                ]


def _write_planned(
    splits: Sequence[Split], folder: Path, plan: Layout, allowed: int, workers: int, report: Report
) -> Written:
    shape = (plan.channels, plan.height, plan.width)
    written, seen = Written(plan, []), (set[bytes](), list[bytes]())
    with ExitStack() as stack:
        files = [stack.enter_context(_array_file(folder / f"{part}-images.npy", shape)) for part in ("train", "test")]
        for split in splits:
            kept, plain, dark = np.zeros(len(split.labels), bool), 0, 0
            for row, block in _blocks(split, plan, workers):
                kept[row : row + len(block.kept)] = block.kept
                held = split.held[row : row + len(block.kept)][block.kept]
                files[0].write(block.images[~held].data)
                files[1].write(block.images[held].data)
                seen[0].update(digest for digest, test in zip(block.digests, held, strict=True) if not test)
                seen[1].extend(digest for digest, test in zip(block.digests, held, strict=True) if test)
                plain, dark = plain + block.plain, dark + block.dark
                written.broken += block.broken
                _check_broken(written.broken, allowed)
                report(Step(f"decode {split.name}", row + len(block.kept), len(split.labels), {}))
            written.kept.append(kept)
            written.notes += _doubts(split.name, int(kept.sum()), plain, dark)
    written.shared = sum(digest in seen[0] for digest in seen[1])
    return written


def _check_broken(broken: list[Broken], allowed: int) -> None:
    if len(broken) > allowed:
        first = broken[0]
        error = _broken(first["image"], first["reason"])
        if allowed:
            error.message += f" It is the first of {len(broken)} broken images; {allowed} may be set aside."
            error.hint = "Raise --skip-broken, or mend the files."
        raise error


def _doubts(split: str, images: int, plain: int, dark: int) -> list[str]:
    """A sentence for a split that is mostly of one colour, or nearly black."""
    found = [(plain, "are all of one colour"), (dark, "are nearly black")]
    return [
        f"Warning: {number} of {images} images of split '{split}' {what}; look at them before you distil."
        for number, what in found
        if 2 * number > images
    ][:1]


def _blocks(split: Split, plan: Layout, workers: int) -> Iterator[tuple[int, _Block]]:
    """(first row, block) of all rows in order. Raises DataError when the number of rows is not that of the labels."""
    n, row = len(split.labels), 0

    def tasks() -> Iterator[tuple[int, list[Encoded]]]:
        first = 0
        for chunk in split.chunks():
            if first + len(chunk) > n:
                raise DataError(f"Split '{split.name}' changed while it was read.", "Run the command again.")
            yield first, chunk
            first += len(chunk)

    for block in in_threads(workers, lambda task: _decode_chunk(split, plan, *task), tasks()):
        yield row, block
        row += len(block.kept)
    if row != n:
        raise DataError(f"Split '{split.name}' changed while it was read.", "Run the command again.")


def in_threads(workers: int, work: Callable[[A], B], tasks: Iterator[A]) -> Iterator[B]:
    """`work` on every task in order, with few tasks read ahead, so that memory stays bounded."""
    with ThreadPoolExecutor(workers) as threads:
        try:
            yield from _in_order(threads, workers, work, tasks)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)


def _in_order(threads: ThreadPoolExecutor, workers: int, work: Callable[[A], B], tasks: Iterator[A]) -> Iterator[B]:
    """The results of the tasks in order, with at most two tasks a worker waiting."""
    waiting: deque[Future[B]] = deque()
    for task in tasks:
        waiting.append(threads.submit(work, task))
        if len(waiting) >= 2 * workers:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode_chunk(split: Split, plan: Layout, first: int, chunk: list[Encoded]) -> _Block:
    """Decode consecutive rows. Raises ColourFoundError when one channel is not enough, SizesError for another size."""
    images = np.empty((len(chunk), plan.channels, plan.height, plan.width), np.uint8)
    kept, broken = split.labels[first : first + len(chunk)] >= 0, list[Broken]()
    for i in np.flatnonzero(kept):
        image = chunk[i]
        try:
            found = pixels.decode_image(image.read(), plan.rules, image.name)
        except BrokenImageError as error:
            kept[i] = False
            broken.append({"split": split.name, "row": first + int(i), "image": image.where, "reason": str(error)})
            continue
        if found.ndim == 3 and plan.channels == 1:
            raise ColourFoundError
        if found.shape[:2] != (plan.height, plan.width):
            raise _size_error(found, plan, image.where)
        images[i] = found.transpose(2, 0, 1) if found.ndim == 3 else found
    images = images[kept]
    least, greatest = (f(images, axis=(2, 3)) for f in (np.min, np.max))
    digests = [hashlib.blake2b(image.data, digest_size=16).digest() for image in images]
    return _Block(
        images, kept, digests, int((least == greatest).all(1).sum()), int((greatest < DARK).all(1).sum()), broken
    )


def _size_error(found: np.ndarray, plan: Layout, where: str) -> SizesError:
    h, w = found.shape[:2]
    return SizesError(
        f"Images differ in size: the one {where} is {w}x{h}, the first image is {plan.width}x{plan.height}.",
        "Give them one size, for example --resolution 32.",
    )


def _scales(splits: Sequence[Split], rules: Rules, workers: int) -> tuple[tuple[str, float, float], ...]:
    """What becomes 0 and 255 for each kind of deep pixels: by the training images, where they have that kind."""

    def ranges(task: tuple[Encoded, bool]) -> tuple[bool, tuple[str, float, float] | None]:
        try:
            return task[1], pixels.deep_range(task[0].read(), rules, task[0].name)
        except BrokenImageError:
            return task[1], None

    held = np.concatenate([split.held[split.labels >= 0] for split in splits])
    found: dict[tuple[str, bool], tuple[float, float]] = {}
    tasks = zip(every_image(splits), held.tolist(), strict=False)
    for test, range_ in in_threads(workers, ranges, tasks):
        if range_:
            low, high = found.get((range_[0], test), range_[1:])
            found[range_[0], test] = min(low, range_[1]), max(high, range_[2])
    kinds = sorted({kind for kind, _ in found})
    return tuple(pixels.scale_of(kind, *found.get((kind, False), found.get((kind, True), (0, 0)))) for kind in kinds)


@contextmanager
def _array_file(path: Path, shape: tuple[int, ...]) -> Iterator[io.BufferedWriter]:
    """A .npy file of uint8 images that is filled from front to back; how many there are is written at the end.

    Not a writable memory map: on a full disk that ends the process with SIGBUS, where this raises ENOSPC.
    """
    header = {"descr": "|u1", "fortran_order": False}
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, header | {"shape": (0, *shape)})
        start = file.tell()
        yield file
        count = (file.tell() - start) // int(np.prod(shape))
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, header | {"shape": (count, *shape)})
        assert file.tell() == start, "numpy leaves room in a header for the number of rows to grow"
