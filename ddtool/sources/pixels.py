"""One encoded image → uint8 pixels: a documented rule for each pixel format (docs/datasets.md), and a sentence for each way
to be broken. Nothing here imports torch."""

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ddtool.sources.files import ending, heif_is_here, image_format
from ddtool.sources.options import BACKGROUNDS

if TYPE_CHECKING:
    from PIL.Image import Image

FULL_SCALES = tuple(float(2**bits - 1) for bits in (8, 10, 12, 14, 16, 24, 32))
"""What the largest integer of a dataset is rounded up to: the brightest value that its cameras can give."""

_LARGE = 20_000_000  # pixels from which images are decoded one at a time, so that threads do not multiply the memory
_one_large = threading.Lock()


class BrokenImageError(ValueError):
    """An image that cannot be decoded; the text says why, as the end of a sentence in brackets."""


class DeepFoundError(Exception):
    """An image with more than 8 bits a channel turned up before the range of its kind of number was known."""


class PaperFoundError(Exception):
    """An image with transparency becomes all of one colour on black, and not on white."""


@dataclass(frozen=True)
class Rules:
    """How every image of a dataset is decoded."""

    resolution: int | None = None
    """Side of the square images; None keeps the native size."""

    background: str | None = None
    """What transparency is laid on; None: black, and PaperFoundError where that would leave one colour."""

    scales: tuple[tuple[str, float, float], ...] | None = None
    """(kind of number, value that becomes 0, value that becomes 255) for images deeper than 8 bits; None: not known."""

    max_pixels: float = 256e6
    """More pixels than this are refused."""


# --- opening --------------------------------------------------------------------------------------------------------

_broken = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    struct.error,
    zlib.error,
)
BROKEN = (*_broken, RuntimeError, AttributeError, AssertionError, MemoryError)
"""What Pillow raises for damaged files."""


@contextmanager
def decoding() -> Iterator[None]:
    """Prepare Pillow for threads that decode: every format known, no warnings, sizes judged by us."""
    from PIL import Image

    if heif_is_here():
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _open(raw: bytes, name: str, rules: Rules) -> "Image":
    """The image, its header read. A JPEG is set to be read at the least size that a resolution needs."""
    from PIL import Image

    if not raw:
        raise BrokenImageError("the file is empty")
    kind = image_format(raw, name)
    if kind is None or (kind == "HEIF" and not heif_is_here()):
        raise BrokenImageError(_what_it_is(raw, name))
    image: Image.Image = Image.open(io.BytesIO(raw), formats=(kind,))
    if rules.resolution is not None:
        image.draft(None, (2 * rules.resolution, 2 * rules.resolution))
    pixels = image.width * image.height
    if pixels > rules.max_pixels:
        size = f"{image.width}x{image.height}, {pixels / 1e6:.0f} million pixels"
        raise BrokenImageError(f"it is {size}, more than --max-megapixels allows")
    return image


def _what_it_is(raw: bytes, name: str) -> str:
    start = raw[:400].lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the image; `git lfs pull` fetches it"
    if start.startswith((b"<!doctype html", b"<html")):
        return "it is a web page, not an image: a download failed"
    if b"ftyp" in start[:12] or ending(name) in (".heic", ".heif"):
        return "HEIC images need another package: pip install pillow-heif"
    return "not a picture in a known format"


@contextmanager
def _explained() -> Iterator[None]:
    """Whatever a broken file can raise, as BrokenImageError."""
    from PIL.Image import DecompressionBombError

    try:
        yield
    except BrokenImageError:
        raise
    except (*BROKEN, DecompressionBombError) as error:
        said = str(error) or type(error).__name__
        if "BytesIO" in said:
            said = "its header is damaged"
        elif "truncated" in said or "unexpected end" in said.lower() or isinstance(error, EOFError):
            said = f"the file ends too early: {said}"
        raise BrokenImageError(said) from error


def decode_image(raw: bytes, rules: Rules, name: str = "") -> np.ndarray:
    """One encoded image → uint8 (h, w) if it is grey, (h, w, 3) otherwise.

    EXIF orientation is applied; of several frames the first is taken. With a resolution the shorter side is resized to it
    (Lanczos, antialiased) and the centre is cropped to a square. Raises BrokenImageError with the reason, DeepFoundError
    and PaperFoundError where `rules` do not settle what the image needs.
    """
    from PIL import ImageOps

    with _explained():
        image = _open(raw, name, rules)
        with _one_large if image.width * image.height > _LARGE else nullcontext():
            ImageOps.exif_transpose(image, in_place=True)
            image = _flat(image, rules)
            return np.asarray(image if rules.resolution is None else _square(image, rules.resolution))


def image_size(raw: bytes, name: str = "") -> tuple[int, int]:
    """(width, height) as a viewer shows it, from the header alone. Raises BrokenImageError."""
    with _explained():
        image = _open(raw, name, Rules(max_pixels=float("inf")))
        turned = image.getexif().get(0x0112, 1) >= 5  # a quarter turn
        return (image.height, image.width) if turned else image.size


# --- pixel formats --------------------------------------------------------------------------------------------------


def _flat(image: "Image", rules: Rules) -> "Image":
    """Any mode → L or RGB."""
    if deep_kind(image):
        return _shallow(image, rules)
    grey = image.mode in ("1", "L", "LA", "La")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = _on_paper(image.convert("RGBA"), rules)
    return image.convert("L" if grey else "RGB")


def deep_kind(image: "Image") -> str:
    """ "integer" or "float" for pixels of more than 8 bits, empty for others."""
    return "integer" if image.mode.startswith("I") else "float" if image.mode == "F" else ""


def _shallow(image: "Image", rules: Rules) -> "Image":
    """Deep pixels → L by the range of their dataset."""
    from PIL import Image

    if rules.scales is None:
        raise DeepFoundError
    low, high = next(((low, high) for kind, low, high in rules.scales if kind == deep_kind(image)), (0.0, 255.0))
    values = _finite_values(image)
    scaled = (values - low) * (255 / (high - low) if high > low else 0)
    return Image.fromarray(np.clip(np.rint(scaled), 0, 255).astype(np.uint8))


def _finite_values(image: "Image") -> np.ndarray:
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all():
        raise BrokenImageError("some of its pixels are no numbers (NaN or infinite)")
    return values


def deep_range(raw: bytes, rules: Rules, name: str = "") -> tuple[str, float, float] | None:
    """(kind of number, least, greatest) of a deep image; None for an 8-bit one. Raises BrokenImageError."""
    with _explained():
        image = _open(raw, name, rules)
        if not (kind := deep_kind(image)):
            return None
        values = _finite_values(image)
        return kind, float(values.min()), float(values.max())


def scale_of(kind: str, least: float, greatest: float) -> tuple[str, float, float]:
    """What becomes 0 and what 255 in a dataset whose deep images hold values from `least` to `greatest`.

    Integers from zero up: the full scale of 8, 10, 12, 14, 16, 24 or 32 bits that holds them. Floats within [0, 1] or
    [0, 255]: that. Anything else, negative values for example: the values that are there.
    """
    scales = (1.0, 255.0) if kind == "float" else FULL_SCALES
    if least >= 0 and greatest <= scales[-1]:
        return kind, 0.0, next(full for full in scales if greatest <= full)
    return kind, least, greatest


def _on_paper(image: "Image", rules: Rules) -> "Image":
    """RGBA → RGB on the background."""
    flat = _laid_on(image, rules.background or "black")
    see_through = image.getchannel("A").getextrema() != (255, 255)
    if rules.background is None and see_through and one_colour(flat) and not one_colour(_laid_on(image, "white")):
        raise PaperFoundError
    return flat


def _laid_on(image: "Image", background: str) -> "Image":
    from PIL import Image

    value = BACKGROUNDS[background]
    return Image.alpha_composite(Image.new("RGBA", image.size, (value, value, value, 255)), image).convert("RGB")


def one_colour(image: "Image") -> bool:
    """Whether every pixel of an L or RGB image is the same."""
    extrema = image.getextrema()
    bands = extrema if isinstance(extrema[0], tuple) else (extrema,)
    return all(low == high for low, high in bands)


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
