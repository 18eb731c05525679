"""Files of tensors → loose sets: .pt as the field publishes them, .npz, and .safetensors.

dc: `{'data': [[images, labels], …]}`, a set for each repetition (DC, DSA, DM);  mtt: images alone, with labels_*.pt and
lr_*.pt beside them;  idc: `[images, labels]`, with a factor;  npz, safetensors: arrays by the names `images` and `labels`.
Files of `ddtool export` hold a description beside their tensors and are read back to the bit.
"""

import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ddtool.errors import DataError, UsageError, did_you_mean
from ddtool.runs.formats import MOST_BYTES
from ddtool.sharing.exchange import pickles
from ddtool.sharing.exchange.loose import LABELS_HINT, Loose, positive, with_channels

DC, MTT, IDC, NPZ, SAFETENSORS = "dc", "mtt", "idc", "npz", "safetensors"
FORMATS = (DC, MTT, IDC, NPZ, SAFETENSORS)
ARRAYS = {".npz": NPZ, ".safetensors": SAFETENSORS}
"""Formats that the ending of a file tells."""
OURS = "ddtool"
"""The name of the description in files of `ddtool export`."""
IMAGES, LABELS = ("images", "image", "x", "data"), ("labels", "label", "y", "targets")
SOFT, LR = ("soft_labels", "soft_label"), ("learned_lr", "syn_lr", "lr")
"""Names of arrays, the best first."""
DAMAGED = (
    ArithmeticError,
    EOFError,
    MemoryError,
    OSError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What numpy raises for damaged files; headers are Python to it, and claim sizes."""
IDC_FACTOR = 2
"""The factor of IDC's published sets."""


@dataclass(frozen=True)
class Content:
    """What a file holds: loose sets, or (`own`) the tensors and the description of one of ours."""

    format: str
    sets: tuple[Loose, ...] = ()
    own: tuple[dict[str, Tensor], str] | None = None


def read(path: Path, kind: str | None = None, factor: int | None = None) -> Content:
    """The sets of a file; `kind` is one of FORMATS, or None to find out, `factor` that of IDC.

    Raises DataError for a file that is none of these, UsageError for a format that does not exist.
    """
    if kind not in (None, *FORMATS):
        raise UsageError(f"Unknown format '{kind}'.", did_you_mean(str(kind), FORMATS, listed=True))
    if not path.is_file():
        raise DataError(f"There is no file {path}.", "Name a .pt, .npz or .safetensors file.")
    ending = path.suffix.lower()
    if ending in ARRAYS and kind not in (None, ARRAYS[ending]):
        raise UsageError(f"{path} is not of the format {kind}.", "Leave --format out: its ending says what it is.")
    if ending == ".npz":
        return of_arrays(NPZ, npz_arrays(path), factor)
    if ending == ".safetensors":
        return of_arrays(SAFETENSORS, safetensors_arrays(path), factor)
    if ending not in (".pt", ".pth"):
        raise DataError(f"{path} is of no kind that can be imported.", "Name a .pt, .npz or .safetensors file.")
    return of_torch(path, pickles.load(path), kind, factor)


# ------------------------------------------------------------------------------------------------------------- files of torch


def of_torch(path: Path, content: Any, kind: str | None, factor: int | None) -> Content:
    """The sets of a .pt file, by its shape; DataError for any other content."""
    if isinstance(content, Mapping) and isinstance(content.get(OURS), str):
        tensors = {str(name): value.detach().clone() for name, value in content.items() if is_plain(value)}
        return Content(DC, own=(tensors, content[OURS]))
    found = next((name for name, fits in SHAPES.items() if fits(content)), None)
    if found is None or kind not in (None, found):
        known = "{'data': [[images, labels], …]}, images alone, or [images, labels]"
        raise DataError(f"{path} holds no set{f' of the format {kind}' if kind else ''}.", f"What is known: {known}.")
    if found == MTT:
        return Content(MTT, (mtt_set(path, content, factor or 1),))
    pairs = content["data"] if found == DC else [content]
    usual = IDC_FACTOR if found == IDC else 1
    return Content(found, tuple(pair(images, labels, factor or usual) for images, labels in pairs))


def is_plain(value: Any) -> TypeGuard[Tensor]:
    """Whether a value is a tensor of real numbers that lie in memory one beside the other, or are few: a single number can claim to
    be very many."""
    if not isinstance(value, Tensor) or value.layout != torch.strided:
        return False
    if value.is_quantized or value.is_meta or value.is_nested or value.is_complex():
        return False
    return value.nbytes <= max(MOST_BYTES, value.untyped_storage().nbytes())


def is_pair(value: Any) -> bool:
    """Whether a value is [images, labels]."""
    return isinstance(value, list | tuple) and len(value) == 2 and all(map(is_plain, value))


def is_pairs(value: Any) -> bool:
    """Whether a value is [[images, labels], …], with one pair at least."""
    return isinstance(value, list | tuple) and len(value) > 0 and all(map(is_pair, value))


SHAPES = {
    DC: lambda value: isinstance(value, Mapping) and is_pairs(value.get("data")),
    MTT: is_plain,
    IDC: is_pair,
}
"""How the content of each format is told."""


def mtt_set(path: Path, images: Tensor, factor: int) -> Loose:
    """MTT's set: labels, and in later code the learned learning rate, are in files of like names beside the images."""
    beside = {part: path.with_name(path.name.replace("images", part, 1)) for part in ("labels", "lr")}
    if path.name == beside["labels"].name or not beside["labels"].is_file():
        raise DataError(
            f"{path} holds images alone, and there is no file of labels beside it.",
            "As MTT's code names them: images_best.pt with labels_best.pt.",
        )
    rate = rate_of(pickles.load(beside["lr"])) if beside["lr"].is_file() else None
    labels = pickles.load(beside["labels"])
    if not is_plain(labels):
        raise DataError(f"{beside['labels']} holds no labels.", "It should be a tensor.")
    return pair(images, labels, factor, rate)


def rate_of(value: Any) -> float:
    """The learning rate that a file holds; DataError unless it is one positive number."""
    number = value.item() if is_plain(value) and value.numel() == 1 else value
    if not positive(number):
        raise DataError("The learning rate beside the images is not one positive number.", "Remove it from the set.")
    return float(number)


def pair(images: Tensor, labels: Tensor, factor: int = 1, learned_lr: float | None = None) -> Loose:
    """Images with labels, which are classes (m,) or soft (m, C); DataError for classes that are no whole numbers."""
    soft = labels.detach().float() if labels.ndim == 2 else None
    classes = labels.detach().long() if labels.ndim == 1 else None
    if classes is not None and not bool((classes == labels.double()).all()):
        raise DataError("The labels are one for each image, and no whole numbers.", LABELS_HINT)
    return Loose(
        images=with_channels(images.detach()), classes=classes, soft=soft, factor=factor, learned_lr=learned_lr
    )


# ------------------------------------------------------------------------------------------------------------ files of arrays


def of_arrays(kind: str, arrays: Mapping[str, Tensor | str], factor: int | None) -> Content:
    """The set in named arrays; DataError when there are no images."""
    tensors = {name: value for name, value in arrays.items() if is_plain(value)}
    if isinstance(told := arrays.get(OURS), str):
        return Content(kind, own=(tensors, told))
    images, labels, soft, rate = (first_of(tensors, names) for names in (IMAGES, LABELS, SOFT, LR))
    some = soft if labels is None else labels
    if images is None or some is None:
        raise DataError(f"It holds the arrays {', '.join(tensors) or 'none'}.", "`images` and `labels` are expected.")
    found = pair(images, some, factor or 1, None if rate is None else rate_of(rate))
    return Content(kind, (found if soft is None else replace(found, soft=soft.float()),))


def first_of(arrays: Mapping[str, Tensor], names: tuple[str, ...]) -> Tensor | None:
    """The array of the first of the names that there is."""
    return next((arrays[name] for name in names if name in arrays), None)


def npz_arrays(path: Path) -> dict[str, Tensor | str]:
    """The arrays of a .npz file, text as text; DataError for a damaged one, one of objects, and one that unpacks to very much."""
    try:
        with zipfile.ZipFile(path) as packed:
            if (total := sum(part.file_size for part in packed.infolist())) > MOST_BYTES:
                raise ValueError(f"it unpacks to {total:,} bytes")
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name] for name in arrays.files}
        return {name: of_numpy(array) for name, array in found.items() if isinstance(array, np.ndarray)}
    except DAMAGED as error:
        raise DataError(f"{path} is refused: {error}.", "It should hold plain arrays, saved by numpy.savez.") from error


def of_numpy(array: np.ndarray) -> Tensor | str:
    """An array as a tensor, a text as text. TypeError for what is neither."""
    return str(array) if array.dtype.kind == "U" else torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


def safetensors_arrays(path: Path) -> dict[str, Tensor | str]:
    """The tensors of a .safetensors file; DataError for a damaged one."""
    try:
        with safe_open(path, framework="pt") as file:
            told = (file.metadata() or {}).get(OURS)
            tensors: dict[str, Tensor | str] = {name: file.get_tensor(name).clone() for name in list(file.keys())}
            return tensors | ({} if told is None else {OURS: told})
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged: {error}.", "It should hold the tensors `images` and `labels`.") from error
