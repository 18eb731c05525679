"""Encoded images → uint8 arrays on disk, decoded once: the decoder, its processes, and the cache entries it fills.

An entry is a folder of four .npy files and a `meta.json`. It is filled under a temporary name beside its place and moved
there in one step, so that a kill leaves nothing half-made; a damaged entry reads as absent. Nothing here imports torch,
so the decoding processes start quickly.
"""

import io
import json
import math
import mmap
import multiprocessing
import os
import shutil
import signal
import struct
import tempfile
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ddtool.errors import DataError
from ddtool.events import Note, Report, Step

if TYPE_CHECKING:
    from PIL.Image import Image

FORMAT = 1
"""Version of the entry layout and of the decoding rules; part of every cache key."""

CHUNK = 128
"""Images that travel to a decoding process together."""

POOL_FROM = 8_000
"""Fewer images than this are decoded in this process: starting others costs more."""

MAX_NATIVE = 128
"""Largest side, in pixels, that is taken without an explicit resolution."""

PARTS = ("train", "test")

_PICTURES = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")  # no EPS: it would start Ghostscript
_ABANDONED = 24 * 3600.0  # seconds after which a temporary folder belongs to nobody

Task = tuple[str, int, list[bytes | None], "Plan"]


@dataclass(frozen=True)
class Plan:
    """What every image becomes: (channels, height, width); `resolution` None means the native size."""

    channels: int
    height: int
    width: int
    resolution: int | None


@dataclass(frozen=True)
class Split:
    """One split of the source: its labels, which rows are for testing, and its encoded images in row order.

    labels: int64 (n,);  held: bool (n,), True where the row belongs to the test part;
    chunks(): lists of at most CHUNK encoded images, None for a missing one, n in all.
    """

    name: str
    labels: np.ndarray
    held: np.ndarray
    chunks: Callable[[], Iterator[list[bytes | None]]]


@dataclass(frozen=True)
class Entry:
    """A filled cache folder and its `meta.json`: format, class_names, mean, std, source, notes, shapes by part."""

    folder: Path
    meta: dict[str, Any]


class ColourFoundError(Exception):
    """A colour image turned up where all were grey so far: the decoding starts again in colour."""


# --- one image ------------------------------------------------------------------------------------------------------


def decode_image(raw: bytes, resolution: int | None = None) -> np.ndarray:
    """One encoded image → uint8 (h, w) if it is grey, (h, w, 3) otherwise.

    EXIF orientation is applied, transparency is laid on white, 16-bit grey keeps its high byte. With a resolution the
    shorter side is resized to it (Lanczos, antialiased) and the centre is cropped to a square.
    """
    from PIL import Image, ImageOps

    image: Image.Image = Image.open(io.BytesIO(raw), formats=_PICTURES)
    if resolution is not None:
        image.draft(None, (2 * resolution, 2 * resolution))  # lets the JPEG decoder skip most of a large photograph
    ImageOps.exif_transpose(image, in_place=True)
    image = _flatten(image)
    return np.asarray(image if resolution is None else _square(image, resolution))


def _flatten(image: "Image") -> "Image":
    """Any mode → L or RGB."""
    from PIL import Image

    if image.mode.startswith("I"):  # 16-bit grey; older Pillow opens it as I
        return Image.fromarray(np.clip(np.asarray(image).astype(np.int64) >> 8, 0, 255).astype(np.uint8))
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    grey = image.mode in ("1", "L", "LA")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        paper = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(paper, image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _square(image: "Image", side: int) -> "Image":
    """Shorter side resized to `side`, centre cropped to side x side."""
    from PIL import Image

    w, h = image.size
    scale = side / min(w, h)
    w, h = max(side, round(w * scale)), max(side, round(h * scale))
    if (w, h) != image.size:
        image = image.resize((w, h), Image.Resampling.LANCZOS)
    left, top = (w - side) // 2, (h - side) // 2
    return image.crop((left, top, left + side, top + side))


def _decode_row(raw: bytes | None, split: str, row: int, resolution: int | None) -> np.ndarray:
    """decode_image, with whatever a broken file can raise turned into a DataError that names the row."""
    from PIL.Image import DecompressionBombError

    hint = "Remove the row from the dataset, or replace its image."
    if not raw:
        raise DataError(f"Row {row} of split '{split}' has no image.", hint)
    broken = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, ArithmeticError, struct.error)
    try:
        return decode_image(raw, resolution)
    except (*broken, zlib.error, DecompressionBombError) as error:
        reason = "not a picture in a known format" if "BytesIO" in str(error) else str(error) or type(error).__name__
        raise DataError(f"The image in row {row} of split '{split}' cannot be decoded ({reason}).", hint) from error


def _decode_chunk(task: Task) -> np.ndarray:
    """Encoded images of consecutive rows → uint8 (k, c, h, w). Raises ColourFoundError when c = 1 is not enough."""
    split, first, raws, plan = task
    block = np.empty((len(raws), plan.channels, plan.height, plan.width), np.uint8)
    for i, raw in enumerate(raws):
        pixels = _decode_row(raw, split, first + i, plan.resolution)
        if pixels.ndim == 3 and plan.channels == 1:
            raise ColourFoundError
        if pixels.shape[:2] != (plan.height, plan.width):
            raise _size_error(pixels, plan, split, first + i)
        block[i] = pixels.transpose(2, 0, 1) if pixels.ndim == 3 else pixels
    return block


def _size_error(pixels: np.ndarray, plan: Plan, split: str, row: int) -> DataError:
    h, w = pixels.shape[:2]
    return DataError(
        f"Images differ in size: row {row} of split '{split}' is {w}x{h}, the first image is {plan.width}x{plan.height}.",
        "Give them one size, for example --resolution 32.",
    )


# --- all images -----------------------------------------------------------------------------------------------------


def first_look(split: Split, resolution: int | None) -> Plan:
    """The plan that the first image suggests. Raises DataError when it is too large to be taken as it is."""
    raws = next(split.chunks(), [])
    pixels = _decode_row(raws[0] if raws else None, split.name, 0, resolution)
    h, w = pixels.shape[:2]
    if resolution is None and max(h, w) > MAX_NATIVE:
        raise DataError(
            f"Images of {w}x{h} pixels are too large to be distilled as they are (at most {MAX_NATIVE}).",
            "Name a smaller size, for example --resolution 32.",
        )
    return Plan(3 if pixels.ndim == 3 else 1, h, w, resolution)


def _write_images(splits: Sequence[Split], folder: Path, resolution: int | None, workers: int, report: Report) -> Plan:
    """Every image of every split, decoded into the parts' arrays; all in colour as soon as one is."""
    plan = first_look(splits[0], resolution)
    while True:
        try:
            _write_planned(splits, folder, plan, workers, report)
            return plan
        except ColourFoundError:
            plan = replace(plan, channels=3)
        except BrokenProcessPool:  # a script without `if __name__ == "__main__"`, or a process killed for memory
            report(Note("The decoding processes ended early; decoding in this process instead."))
            workers = 1


def _write_planned(splits: Sequence[Split], folder: Path, plan: Plan, workers: int, report: Report) -> None:
    total = sum(len(split.labels) for split in splits)
    tests = sum(int(split.held.sum()) for split in splits)
    shape = (plan.channels, plan.height, plan.width)
    with ExitStack() as stack:
        train = stack.enter_context(_array_file(folder / "train-images.npy", (total - tests, *shape)))
        test = stack.enter_context(_array_file(folder / "test-images.npy", (tests, *shape)))
        decode = stack.enter_context(_decoder(total, workers))
        for split in splits:
            _write_split(split, decode(_tasks(split, plan)), train, test, report)


def _write_split(
    split: Split, blocks: Iterator[np.ndarray], train: io.BufferedWriter, test: io.BufferedWriter, report: Report
) -> None:
    n, row = len(split.labels), 0
    for block in blocks:  # (k, c, h, w)
        held = split.held[row : row + len(block)]
        row += len(block)
        if row > n:
            break
        train.write(block[~held].data)
        test.write(block[held].data)
        report(Step(f"decode {split.name}", row, n, {}))
    if row != n:
        raise DataError(f"Split '{split.name}' changed while it was read.", "Run the command again.")


def _tasks(split: Split, plan: Plan) -> Iterator[Task]:
    row = 0
    for raws in split.chunks():
        yield split.name, row, raws, plan
        row += len(raws)


@contextmanager
def _array_file(path: Path, shape: tuple[int, ...]) -> Iterator[io.BufferedWriter]:
    """A .npy file of uint8 that is filled from front to back.

    Not a writable memory map: on a full disk that ends the process with SIGBUS, where this raises ENOSPC.
    """
    with open(path, "wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _decoder(images: int, workers: int) -> Iterator[Callable[[Iterator[Task]], Iterator[np.ndarray]]]:
    """tasks → decoded blocks in the same order; in this process, or in `workers` others when there is enough to do."""
    if images < POOL_FROM or workers < 2 or multiprocessing.current_process().daemon:
        yield lambda tasks: map(_decode_chunk, tasks)
        return
    context = multiprocessing.get_context("spawn")  # fork is unsafe beside torch's threads
    try:
        executor = ProcessPoolExecutor(workers, mp_context=context, initializer=_serve_parent)
    except (OSError, ImportError, NotImplementedError) as error:  # a sandbox without semaphores
        raise BrokenProcessPool from error
    try:
        yield lambda tasks: _windowed(executor, tasks, 2 * workers)
    finally:
        executor.shutdown(cancel_futures=True)


def _serve_parent() -> None:
    """Set up a decoding process: Ctrl-C is the parent's business, and when the parent is gone, so is this."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _windowed(executor: ProcessPoolExecutor, tasks: Iterator[Task], window: int) -> Iterator[np.ndarray]:
    """executor.map that reads at most `window` tasks ahead, so that memory stays bounded."""
    waiting: deque[Future[np.ndarray]] = deque()
    for task in tasks:
        waiting.append(executor.submit(_decode_chunk, task))
        if len(waiting) >= window:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def channel_stats(images: np.ndarray) -> tuple[list[float], list[float]]:
    """Mean and population standard deviation per channel of uint8 images (n, c, h, w), on the scale [0, 1].

    Sums are exact integers; std is at least 1e-3; both are rounded to 6 decimals.
    """
    c = images.shape[1]
    total, squares = [0] * c, [0] * c
    for start in range(0, len(images), 2048):
        chunk = np.asarray(images[start : start + 2048])
        for k in range(c):
            total[k] += int(chunk[:, k].sum(dtype=np.uint64))
            squares[k] += int(np.square(chunk[:, k], dtype=np.uint16).sum(dtype=np.uint64))  # 255² fits 16 bits
    n = images.size // c
    variance = [(n * s2 - s * s) / (255 * n) ** 2 for s, s2 in zip(total, squares, strict=True)]
    return [round(s / (255 * n), 6) for s in total], [round(max(math.sqrt(v), 1e-3), 6) for v in variance]


# --- cache entries --------------------------------------------------------------------------------------------------


def build(
    splits: Sequence[Split],
    facts: dict[str, Any],
    final: Path,
    *,
    resolution: int | None,
    workers: int,
    report: Report,
) -> Entry:
    """Decode `splits` and put the entry at `final`; `facts` (class_names, source, notes) go into its meta.json.

    Raises DataError for a row that cannot be decoded, images of unequal size, or a cache that cannot be written.
    """
    try:
        with _scratch(final) as folder:
            plan = _write_images(splits, folder, resolution, workers, report)
            meta = facts | _write_labels(splits, folder, plan)
            (folder / "meta.json").write_text(json.dumps(meta, indent=1), encoding="utf-8")
            _publish(folder, final)
    except OSError as error:
        raise cache_error(final.parent, error) from error
    return Entry(final, meta)


def cache_error(cache: Path, error: OSError) -> DataError:
    """The explanation for a cache folder that cannot be written."""
    return DataError(
        f"The cache {cache} cannot be written: {error.strerror or error}.",
        "Free some space there, or set DDTOOL_CACHE to a folder on another disk.",
    )


def _write_labels(splits: Sequence[Split], folder: Path, plan: Plan) -> dict[str, Any]:
    """The labels of both parts; returns what meta.json says about the arrays."""
    shapes = {}
    for part, held in zip(PARTS, (False, True), strict=True):
        labels = np.concatenate([split.labels[split.held == held] for split in splits])
        np.save(folder / f"{part}-labels.npy", labels.astype(np.int64))
        shapes[part] = [len(labels), plan.channels, plan.height, plan.width]
    mean, std = channel_stats(np.load(folder / "train-images.npy", mmap_mode="r"))
    return {"format": FORMAT, "mean": mean, "std": std, **shapes}


@contextmanager
def _scratch(final: Path) -> Iterator[Path]:
    """A temporary folder beside `final`, removed at the end whatever happens; abandoned ones go too."""
    final.parent.mkdir(parents=True, exist_ok=True)
    for old in final.parent.glob(".tmp-*"):
        with suppress(OSError):
            if time.time() - old.stat().st_mtime > _ABANDONED:
                shutil.rmtree(old, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=".tmp-", dir=final.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(folder: Path, final: Path) -> None:
    """Move a finished folder to its place. Another process may have been quicker: then its entry stays."""
    aside = folder.with_name(folder.name + "-old")
    for _ in range(9):
        try:
            os.replace(folder, final)
            return
        except OSError:
            if not final.is_dir():  # not in the way: the disk is full, or the place is not ours
                raise
        theirs = read_entry(final)
        if theirs and all(open_part(theirs, part) for part in PARTS):
            return
        with suppress(FileNotFoundError):  # a third process moved the damaged entry away first
            os.replace(final, aside)
        shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, final)


def read_entry(folder: Path) -> Entry | None:
    """The entry in `folder`, or None when there is none or its meta.json is damaged."""
    try:
        meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
        channels = meta["train"][1]
        sound = (
            meta["format"] == FORMAT
            and all(len(meta[part]) == 4 and meta[part][1] == channels for part in PARTS)
            and len(meta["class_names"]) > 1
            and all(len(meta[key]) == channels and all(math.isfinite(v) for v in meta[key]) for key in ("mean", "std"))
            and isinstance(meta["source"], dict)
            and isinstance(meta["notes"], list)
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    return Entry(folder, meta) if sound else None


def open_part(entry: Entry, part: str, scattered: bool = False) -> tuple[np.ndarray, np.ndarray] | None:
    """(images uint8 (n, c, h, w), labels int64 (n,)) of "train" or "test"; None when they are missing or damaged.

    The images are a copy-on-write memory map: writing to them never reaches the file. `scattered`: they will be read here
    and there, so the system shall not read ahead (4,000 rows of a 16 GB file: 0.1 s instead of 5 to 23 s).
    """
    path = entry.folder / f"{part}-images.npy"
    try:
        images = np.load(path, mmap_mode="c", allow_pickle=False)
        labels = np.load(entry.folder / f"{part}-labels.npy", allow_pickle=False)
        whole = path.stat().st_size == images.offset + images.nbytes
    except (OSError, ValueError, EOFError, AttributeError):
        return None
    fits = images.dtype == np.uint8 and list(images.shape) == entry.meta[part]
    known = labels.dtype == np.int64 and labels.shape == images.shape[:1] and len(labels) > 0
    if not (whole and fits and known and labels.min() >= 0 and labels.max() < len(entry.meta["class_names"])):
        return None
    if scattered and hasattr(mmap, "MADV_RANDOM"):  # not on Windows
        images._mmap.madvise(mmap.MADV_RANDOM)
    return images, labels
