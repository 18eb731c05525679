"""The formats of a run's artefacts: safetensors of sets, labels and whitening, parquet of pictures.

What is read may be of others: a header is found right before a value is read, a picture's size before its pixels.
"""

import io
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddtool.data import whitening
from ddtool.data.images import CENTRED, LARGEST_FACTOR, SyntheticSet
from ddtool.data.whitening import Whitening
from ddtool.errors import DataError, RunError
from ddtool.runs.files import RESTORE, run_above, write_atomically
from ddtool.runtime.digest import digest
from ddtool.runtime.engine import finite
from ddtool.runtime.loop import Checkpoint

Header = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor in a safetensors file."""
LARGEST_SIDE, MOST_PICTURES, MOST_BYTES = 4096, 10**7, 2**32
"""Bounds on what a file may claim to hold: pixels a side, pictures, and bytes in memory."""
LABEL_METHODS = ("hard", "analytical", "fitted", "learned")
LABEL_INFO = ("class_names", "mean", "std", "shape", "label_width", "mirror", "source")
"""What is kept beside θ and W_θ: all that is needed to use them."""
SET_TENSORS = ("images", "labels", "hard")
DIGEST = "digest"
"""Of the tensors and the description of a file, in the description; files of version 0.1 have none."""
SET_HINT = "Make the set again: `ddtool generate RUN --ipc N --force`."


def write_tensors(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """A safetensors file with `info` as JSON in its metadata, and in it a digest of all: the order of several keys is random."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = json.dumps(info | {DIGEST: digest(plain, json.dumps(info))})
    write_atomically(path, lambda temporary: save_file(plain, temporary, metadata={"ddtool": said}))


def read_tensors(
    path: Path, check: Callable[[Header, dict[str, Any]], None] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `info` of `write_tensors`; RunError when the file is missing, damaged, or not as it was written.

    check: sees each tensor's type and shape, and `info`, before a tensor is read, and raises to refuse the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})["ddtool"])
            if not isinstance(info, dict):
                raise RunError(f"{path} is not a file of ddtool.", RESTORE)
            stated, said = info.pop(DIGEST, None), json.dumps(info)
            if check:
                slices = {name: file.get_slice(name) for name in list(file.keys())}
                check({name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}, info)
            tensors = {
                name: file.get_tensor(name).clone() for name in list(file.keys())
            }  # copies: Windows replaces no mapped file
            if stated is not None and stated != digest(tensors, said):
                raise ValueError("its values are not those that were written")
    except FileNotFoundError:
        hint = f"The run is incomplete: `ddtool adapt --resume {run_above(path) or 'RUN'}` finishes it."
        raise RunError(f"{path} is missing.", hint) from None
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        reason = "it says nothing about ddtool" if isinstance(error, KeyError) else error
        hint = f"Remove it, then `ddtool adapt --resume {run_above(path) or 'RUN'}` makes it again."
        raise RunError(f"{path} is damaged or not a file of ddtool: {reason}.", hint) from error
    return tensors, info


def write_set(path: Path, synthetic: SyntheticSet) -> None:
    """A synthetic set in the exact format, one safetensors file: its tensors, those of its whitening, and JSON metadata."""
    info = {f.name: getattr(synthetic, f.name) for f in fields(SyntheticSet) if f.name not in SET_TENSORS}
    write_whitened(path, {name: getattr(synthetic, name) for name in SET_TENSORS}, info)


def read_set(path: Path) -> SyntheticSet:
    """The inverse of `write_set`; RunError for a damaged or foreign file. Nothing is read before the header is found right."""

    def check(header: Header, info: dict[str, Any]) -> None:
        if fault := set_fault(header, info):
            raise RunError(f"{path} is not a synthetic set of ddtool: {fault}.", SET_HINT)

    tensors, info = read_tensors(path, check)
    for name in ("class_names", "mean", "std"):
        info[name] = tuple(info[name])
    info["whitening"] = restored_whitening(path, tensors, info)
    found = SyntheticSet(images=tensors["images"], labels=tensors["labels"], hard=tensors["hard"], **info)
    if not finite(found.images) or not finite(found.labels) or not labels_fit(found.hard, found.num_classes):
        raise RunError(f"{path} has values that are not finite, or labels that name no class.", SET_HINT)
    return found


def set_fault(header: Header, info: dict[str, Any]) -> str:
    """What is wrong with the header of a set's file; empty when it is one of ours."""
    info.setdefault("factor", 1)  # files of version 0.1 have neither
    info.setdefault("whitening", None)
    kinds: dict[str, tuple[type, ...]] = {"ipc": (int,), "label_scale": (int, float), "factor": (int,)}
    kinds |= dict.fromkeys(("method", "stage", "label_method", "label_convention"), (str,))
    known = {f.name for f in fields(SyntheticSet)} - set(SET_TENSORS)
    if info.keys() != known:
        return f"its description is about {', '.join(sorted(info.keys() ^ known))}"
    if wrong := [name for name, kind in kinds.items() if type(info[name]) not in kind]:
        return f"'{wrong[0]}' is {info[wrong[0]]!r:.40}"
    shapes = {name: shape for name, (_, shape) in header.items() if not name.startswith("whitening.")}
    images, C = shapes.get("images", ()), len(info["class_names"]) if isinstance(info["class_names"], list) else 0
    m = info["ipc"] * C
    if len(images) != 4 or shapes != {"images": (m, *images[1:]), "labels": (m, C), "hard": (m,)} or m < 1:
        return f"ipc {info['ipc']} and {C} classes do not go with tensors {shapes}"
    if any(dtype != ("I64" if name == "hard" else "F32") for name, (dtype, _) in header.items()):
        return "its tensors are of other types"
    if not 1 <= info["factor"] <= min(LARGEST_FACTOR, *images[2:]):
        return f"'factor' is {info['factor']}"
    if not 0 < info["label_scale"] < math.inf:
        return "'label_scale' is not positive"
    if info["label_convention"] != CENTRED or info["label_method"] not in LABEL_METHODS:
        return f"its labels are '{info['label_convention']:.40}', '{info['label_method']:.40}'"
    return description_fault(info, images[1:]) or whitening_fault(header, info, images[1:])


def description_fault(info: dict[str, Any], shape: Sequence[Any]) -> str:
    """What is wrong with class names, mean, std and source of images of `shape` (c, h, w); empty when nothing is."""
    if not all(type(n) is int for n in shape) or len(shape) != 3 or shape[0] not in (1, 3):
        return f"images of shape {tuple(shape)!r:.60} are none"
    if not 1 <= min(shape[1:]) <= max(shape[1:]) <= LARGEST_SIDE:
        return f"images of {shape[1]}x{shape[2]} pixels are too large"
    names = info["class_names"]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) and len(n) <= 200 for n in names):
        return "its class names are no list of names"
    for name, least in (("mean", -math.inf), ("std", 0)):
        values = info[name]
        sound = isinstance(values, list) and all(type(v) in (int, float) and least < v < math.inf for v in values)
        if not sound or len(values) != shape[0]:
            return f"'{name}' is not {shape[0]} usable numbers"
    if type(info["mirror"]) is not bool or not isinstance(info["source"], dict):
        return "'mirror' or 'source' is of another type"
    return ""


def labels_fit(labels: Tensor, num_classes: int) -> bool:
    """Whether every label is a class."""
    return int(labels.min()) >= 0 and int(labels.max()) < num_classes


def write_whitened(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """`write_tensors` of `info` with a whitening in it, which goes to tensors and a description."""
    found: Whitening | None = info["whitening"]
    described = info | {"whitening": None if found is None else found.description()}
    write_tensors(path, tensors | ({} if found is None else found.tensors()), described)


def restored_whitening(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> Whitening | None:
    """The whitening that a file holds; RunError when it cannot be inverted."""
    try:
        return Whitening.restored(info["whitening"], tensors) if info["whitening"] else None
    except DataError as error:
        raise RunError(f"{path} is refused. {error.message}", RESTORE) from error


def whitening_fault(header: Header, info: dict[str, Any], image: Sequence[int]) -> str:
    """What is wrong with the whitening of images of a shape (c, h, w); empty when nothing is. Files of version 0.1 have none."""
    info.setdefault("whitening", None)
    return whitening.fault(info["whitening"], {name: shape for name, (_, shape) in header.items()}, image)


def write_whitening(path: Path, found: Whitening) -> None:
    """Write a whitening alone."""
    write_whitened(path, {}, {"whitening": found})


def read_whitening(path: Path) -> Whitening | None:
    """Read what `write_whitening` wrote; RunError for a damaged file."""
    tensors, info = read_tensors(path)
    return restored_whitening(path, tensors, info)


LabelHead = tuple[dict[str, Tensor], Tensor, dict[str, Any]]
"""θ (weights of the fixed network, by name), W_θ (d, C), and what is needed to use them: `LABEL_INFO` and the whitening."""


def write_label_head(path: Path, theta: dict[str, Tensor], W: Tensor, info: dict[str, Any]) -> None:
    """Write θ and W_θ of Eq. 3 with what is needed to use them."""
    write_whitened(path, {f"theta.{k}": v for k, v in theta.items()} | {"W": W}, info)


def read_label_head(path: Path) -> LabelHead:
    """Read what `write_label_head` wrote; RunError when anything is missing, before a tensor is read."""

    def check(header: Header, info: dict[str, Any]) -> None:
        if fault := label_head_fault(header, info):
            raise RunError(f"{path} is not the label network of a run: {fault}.", RESTORE)

    tensors, info = read_tensors(path, check)
    info["whitening"] = restored_whitening(path, tensors, info)
    theta = {k.removeprefix("theta."): v for k, v in tensors.items() if k.startswith("theta.")}
    return theta, tensors["W"], info


def label_head_fault(header: Header, info: dict[str, Any]) -> str:
    """What is wrong with the header of a label network's file; empty when nothing is."""
    absent = [name for name in LABEL_INFO if name not in info] + ["W"] * ("W" not in header)
    if absent:
        return f"it misses {', '.join(absent)}"
    shape = info["shape"] if isinstance(info["shape"], list) else ()
    return description_fault(info, shape) or whitening_fault(header, info, shape)


class FileSaver:
    """A loop's checkpoint in one safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Checkpoint | None:
        return read_tensors(self.path)[0] if self.path.exists() else None

    def save(self, checkpoint: Checkpoint) -> None:
        write_tensors(self.path, checkpoint, {})


ROW_GROUP = 100
"""Pictures in a row group of a parquet file, as `datasets` has them: a viewer reads one at a time."""


def write_parquet(
    path: Path, images: Tensor, labels: Tensor, soft: Tensor | None, class_names: tuple[str, ...]
) -> None:
    """Images (uint8) as PNG, class labels and soft labels, with the features that `datasets` and the Hub's viewer read.

    Every value in full: from a dictionary of values a small file could unpack to very much, and is not read.
    """
    import datasets
    from PIL import Image
    from pyarrow import parquet

    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    columns: dict[str, Any] = {"label": labels.tolist()}
    columns["image"] = [
        Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())
        for image in images.cpu()
    ]
    if soft is not None:
        features["soft_label"] = datasets.Sequence(datasets.Value("float32"), length=soft.shape[1])
        columns["soft_label"] = soft.cpu().numpy()
    table = datasets.Dataset.from_dict({k: columns[k] for k in features}, features=datasets.Features(features))
    options = {"use_dictionary": False, "row_group_size": ROW_GROUP, "write_page_index": True}
    options["write_page_checksum"] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: parquet.write_table(table.data.table, temporary, **options))


def read_parquet(path: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images uint8 (m, c, h, w) and labels of `write_parquet`; RunError when damaged or beyond every use.

    Read in small batches, each picture's size seen before it is decoded: a small file may claim to hold very much.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path, page_checksum_verification=True) as file:
            check_parquet(file.metadata)
            if file.schema_arrow.field("label").type != pyarrow.int64():
                raise ValueError("its labels are of another type")
            pictures: list[Any] = []
            labels: list[Any] = []
            for batch in file.iter_batches(batch_size=16, columns=["image.bytes", "label"]):
                for cell in batch["image"]:
                    pictures.append(decoded(cell["bytes"].as_py(), pictures[:1], file.metadata.num_rows))
                labels.append(batch["label"].to_numpy(zero_copy_only=False))
        images, classes = torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.concatenate(labels))
    except FileNotFoundError:
        raise RunError(f"{path} is missing.", "Only sets that were made already can be used from this run.") from None
    except (pyarrow.ArrowException, OSError, LookupError, TypeError, ValueError, SyntaxError) as error:
        raise RunError(f"{path} is damaged: {error}.", RESTORE) from error
    if classes.ndim != 1 or classes.is_floating_point() or not labels_fit(classes, num_classes):
        raise RunError(f"{path} has labels outside the {num_classes} classes of the run.", RESTORE)
    return (images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)).contiguous(), classes


def check_parquet(metadata: Any) -> None:
    """ValueError for a file that could unpack to much more than its size: other codecs than ours pack a thousandfold."""
    columns = [
        metadata.row_group(group).column(column)
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    ]
    packed = {column.compression for column in columns} - {"SNAPPY", "UNCOMPRESSED"}
    packed |= {encoding for column in columns for encoding in column.encodings} - {"PLAIN", "RLE", "BIT_PACKED"}
    if packed:
        raise ValueError(f"it is packed by {', '.join(sorted(packed))}")
    if metadata.num_rows > MOST_PICTURES or sum(column.total_uncompressed_size for column in columns) > MOST_BYTES:
        raise ValueError(f"it claims to hold {metadata.num_rows:,} rows")


def decoded(png: bytes, first: Sequence[Any], rows: int) -> Any:
    """One picture (h, w) or (h, w, 3); ValueError, before it is decoded, unless it is as the `first` and all fit memory.

    More bytes than its pixels take hold something else; many such cells are not to be kept waiting.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as picture:
            width, height = picture.size
            shape = (height, width) if picture.mode == "L" else (height, width, 3)
            if picture.mode not in ("L", "RGB") or max(picture.size) > LARGEST_SIDE:
                raise ValueError(f"a picture of {width}x{height} pixels, mode {picture.mode}")
            if (first and shape != first[0].shape) or math.prod(shape) * rows > MOST_BYTES:
                raise ValueError(f"pictures of different or absurd sizes ({width}x{height})")
            if len(png) > 4 * math.prod(shape) + 2**16:
                raise ValueError(f"{len(png):,} bytes for a picture of {width}x{height} pixels")
            return np.array(picture)
    except Image.DecompressionBombError as error:
        raise ValueError(str(error)) from error
