"""The formats of a run's artefacts: safetensors of sets, labels and whitening, parquet of pictures.

What is read may be of others: a header is found right before a value is read, a picture's size before its pixels.
"""

import contextlib
import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddtool.config import Values
from ddtool.data.images import Source, SyntheticSet
from ddtool.data.whitening import Stored, Whitening
from ddtool.errors import DataError, RunError
from ddtool.runs.descriptions import (
    LARGEST_SIDE,
    Description,
    Header,
    LabelDescription,
    PointDescription,
    SetDescription,
)
from ddtool.runs.files import EXACT, POINTS, RESTORE, STAGES, TABLE, run_above, staged_folder, write_atomically
from ddtool.runtime.digest import digest
from ddtool.runtime.engine import finite
from ddtool.runtime.loop import Checkpoint
from ddtool.text import parsed_json

MOST_PICTURES, MOST_BYTES = 10**7, 2**32
"""Bounds on what a file may claim to hold: pictures, and bytes in memory."""
SET_TENSORS = ("images", "labels", "hard")
DIGEST = "digest"
"""The key of the digest of a file's tensors and description, in the description; files of version 0.1 have none."""
SET_HINT = "Make the set again: `ddtool generate RUN --ipc N --force`."
POINT_HINT = "Restore the file, or remove it: the curve goes without it then."
T = TypeVar("T")
D = TypeVar("D", SetDescription, LabelDescription)


# ------------------------------------------------------------------------------------------------ tensors with a description


def write_tensors(path: Path, tensors: dict[str, Tensor], info: Values) -> None:
    """A safetensors file with `info` as JSON in its metadata, and in it a digest of all: the order of several keys is random."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = json.dumps(info | {DIGEST: digest(plain, json.dumps(info))})
    write_atomically(path, lambda temporary: save_file(plain, temporary, metadata={"ddtool": said}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Values]:
    """Tensors and `info` of `write_tensors`; RunError when the file is missing, damaged, or not as it was written."""
    return read_described(path, lambda header, info: info)


def read_described(path: Path, parse: Callable[[Header, Values], T]) -> tuple[dict[str, Tensor], T]:
    """Tensors of a file, and what `parse` makes of its description; RunError when the file is missing or damaged.

    parse: sees each tensor's type and shape, and the description, before a tensor is read, and raises to refuse the file.
    """
    with opened(path) as file:
        parsed, stated, said = described_by(file, path, parse)
        tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}  # Windows replaces no mapped file
        if stated is not None and stated != digest(tensors, said):
            raise ValueError("its values are not those that were written")
    return tensors, parsed


def read_description(path: Path, parse: Callable[[Header, Values], T]) -> T:
    """What `parse` makes of a file's description, as in `read_described`; no tensor is read, so a damaged value is not found."""
    with opened(path) as file:
        return described_by(file, path, parse)[0]


def described_by(file: Any, path: Path, parse: Callable[[Header, Values], T]) -> tuple[T, str | None, str]:
    """What `parse` makes of the description of an open file, the digest that it states, and the text that is digested."""
    info = parsed_json((file.metadata() or {})["ddtool"])
    if not isinstance(info, dict):
        raise RunError(f"{path} is not a file of ddtool.", RESTORE)
    stated, said = info.pop(DIGEST, None), json.dumps(info)
    if "mirror" in info:  # as files of version 0.1 call it
        info.setdefault("flip", info.pop("mirror"))
    slices = {name: file.get_slice(name) for name in list(file.keys())}
    return parse({k: (part.get_dtype(), tuple(part.get_shape())) for k, part in slices.items()}, info), stated, said


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file, open; RunError when it is missing, and when it is damaged, as found here or inside."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        hint = f"The run is incomplete: `ddtool adapt --resume {run_above(path) or 'RUN'}` finishes it."
        raise RunError(f"{path} is missing.", hint) from None
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        reason = "it says nothing about ddtool" if isinstance(error, KeyError) else error
        raise RunError(f"{path} is damaged or not a file of ddtool: {reason}.", made_again(path)) from error


def made_again(path: Path) -> str:
    """What to do about a damaged file: what can make it again, where anything can."""
    folder = run_above(path)
    if not folder:
        return "Copy or make it again."
    if path.parent.name == POINTS:
        return f"Remove it; `ddtool curve {folder}` goes on without this point."
    if path.parent.name == STAGES:
        return "Remove it; the finished set does not need it."
    hint = f"Remove it, then `ddtool adapt --resume {folder}` makes it again"
    return f"{hint}, or `ddtool generate {folder} --ipc N` if that made it." if path.name == EXACT else f"{hint}."


def read_own(path: Path, kind: type[D], what: str, hint: str) -> tuple[dict[str, Tensor], D]:
    """Tensors and description of a file of one kind; RunError, before a tensor is read, when they do not go together."""

    def parse(header: Header, info: Values) -> D:
        try:
            found = kind.of(info)
            fault = found.header_fault(header)
        except ValueError as error:
            fault = str(error)
        if fault:
            raise RunError(f"{path} is not {what}: {fault}.", hint)
        return found

    return read_described(path, parse)


def described(record: Any, names: Iterable[str]) -> Values:
    """The fields of a dataclass as JSON values, its whitening as what a file says of it."""
    return {name: getattr(record, name) for name in names} | {"whitening": stored(record.whitening)}


def stored(found: Whitening | None) -> Values | None:
    """What a file says of a whitening; None where there is none."""
    return None if found is None else cast(Values, found.description())


def whitening_tensors(found: Whitening | None) -> dict[str, Tensor]:
    """The tensors of a whitening, none where there is none."""
    return {} if found is None else found.tensors()


def restored_whitening(path: Path, tensors: dict[str, Tensor], said: object) -> Whitening | None:
    """The whitening that a file holds, whose description was found right; RunError when it cannot be inverted."""
    try:
        return Whitening.restored(cast(Stored, said), tensors) if said else None
    except DataError as error:
        raise RunError(f"{path} is refused. {error.message}", RESTORE) from error


# ------------------------------------------------------------------------------------------------------------------- a set


def write_set(path: Path, synthetic: SyntheticSet) -> None:
    """A synthetic set in the exact format, one safetensors file: its tensors, those of its whitening, and JSON metadata."""
    write_tensors(path, *set_parts(synthetic))


def set_parts(synthetic: SyntheticSet) -> tuple[dict[str, Tensor], Values]:
    """What a file holds of a set: its tensors with those of its whitening, and the rest as JSON values."""
    tensors = {name: getattr(synthetic, name) for name in SET_TENSORS} | whitening_tensors(synthetic.whitening)
    told = {f.name for f in fields(SyntheticSet)} - {*SET_TENSORS, "learned_lr" if synthetic.learned_lr is None else ""}
    return tensors, described(synthetic, [f.name for f in fields(SyntheticSet) if f.name in told])


def write_set_folder(folder: Path, synthetic: SyntheticSet) -> None:
    """The folder of a finished set, whole or not at all: parquet that `datasets` reads, and the exact tensors."""
    with staged_folder(folder) as temporary:
        soft = synthetic.labels_by_image()
        write_parquet(temporary / TABLE, synthetic.pixels(), synthetic.hard, soft, synthetic.class_names)
        write_set(temporary / EXACT, synthetic)


def read_set(path: Path) -> SyntheticSet:
    """The inverse of `write_set`; RunError for a damaged or foreign file. Nothing is read before the header is found right."""
    tensors, info = read_own(path, SetDescription, "a synthetic set of ddtool", SET_HINT)
    found = SyntheticSet(
        images=tensors["images"],
        labels=tensors["labels"],
        hard=tensors["hard"],
        ipc=info.ipc,
        class_names=info.class_names,
        mean=info.mean,
        std=info.std,
        flip=info.flip,
        label_scale=info.label_scale,
        method=info.method,
        stage=info.stage,
        label_method=info.label_method,
        source=source_of(info),
        label_convention=info.label_convention,
        factor=info.factor,
        whitening=restored_whitening(path, tensors, info.whitening),
        learned_lr=info.learned_lr,
    )
    if not finite(found.images) or not finite(found.labels) or not labels_fit(found.hard, found.num_classes):
        raise RunError(f"{path} has values that are not finite, or labels that name no class.", SET_HINT)
    return found


def source_of(info: Description) -> Source:
    """Where the images came from, as a file says it; what comes from the Hub is checked by `sharing`."""
    return cast(Source, dict(info.source))


def labels_fit(labels: Tensor, num_classes: int) -> bool:
    """Whether every label is a class."""
    return int(labels.min()) >= 0 and int(labels.max()) < num_classes


# ------------------------------------------------------------------------------------------- labels of Eq. 3, a whitening


def write_whitening(path: Path, found: Whitening) -> None:
    """Write a whitening alone."""
    write_tensors(path, found.tensors(), {"whitening": stored(found)})


def read_whitening(path: Path) -> Whitening | None:
    """Read what `write_whitening` wrote; RunError for a damaged file."""
    tensors, info = read_tensors(path)
    return restored_whitening(path, tensors, info["whitening"])


@dataclass(frozen=True, kw_only=True)
class LabelHead:
    """θ (weights of the fixed network, by name) and W_θ (d, C) of Eq. 3, with what a run keeps of its target: all that is needed
    to use them.

    shape: (c, h, w) of an image;  label_width: channels of the fixed network;  mean, std: by channel;
    flip: whether images keep their class when flipped left-right;  pool_ipc: images per class of Z; None in files that do not say.
    """

    theta: dict[str, Tensor]
    W: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    shape: tuple[int, int, int]
    label_width: int
    flip: bool
    pool_ipc: int | None
    source: Source
    whitening: Whitening | None


def write_label_head(path: Path, head: LabelHead) -> None:
    """Write θ and W_θ of Eq. 3 with what is needed to use them."""
    tensors = {f"theta.{k}": v for k, v in head.theta.items()} | {"W": head.W} | whitening_tensors(head.whitening)
    write_tensors(path, tensors, described(head, [f.name for f in fields(LabelHead) if f.name not in ("theta", "W")]))


def read_label_head(path: Path) -> LabelHead:
    """Read what `write_label_head` wrote; RunError when anything is missing, before a tensor is read."""
    tensors, info = read_own(path, LabelDescription, "the label network of a run", RESTORE)
    return LabelHead(
        theta={k.removeprefix("theta."): v for k, v in tensors.items() if k.startswith("theta.")},
        W=tensors["W"],
        class_names=info.class_names,
        mean=info.mean,
        std=info.std,
        shape=info.shape,
        label_width=info.label_width,
        flip=info.flip,
        pool_ipc=info.pool_ipc,
        source=source_of(info),
        whitening=restored_whitening(path, tensors, info.whitening),
    )


# ---------------------------------------------------------------------------------------------------- points of a curve


@dataclass(frozen=True)
class Point:
    """What is learned in a phase, float32 by name, as it was after `step` steps and `seconds` of it."""

    step: int
    seconds: float
    tensors: dict[str, Tensor]


def write_point(path: Path, point: Point) -> None:
    """One point of a curve, one safetensors file."""
    write_tensors(path, point.tensors, {"step": point.step, "seconds": point.seconds})


def read_point(path: Path, like: Mapping[str, Tensor]) -> Point:
    """The inverse of `write_point`; RunError for a damaged file, and, before a tensor is read, for one that `describe_point`
    refuses."""
    tensors, said = read_described(path, point_parser(path, like))
    if not all(map(finite, tensors.values())):
        raise RunError(f"{path} has values that are not finite.", POINT_HINT)
    return Point(said.step, said.seconds, tensors)


def describe_point(path: Path, like: Mapping[str, Tensor]) -> PointDescription:
    """What a point says beside its tensors, of which none is read; RunError for a file that is no whole point, and unless its
    tensors have the names, types and shapes of those in `like`."""
    return read_description(path, point_parser(path, like))


def point_parser(path: Path, like: Mapping[str, Tensor]) -> Callable[[Header, Values], PointDescription]:
    """What reads the description of a point and refuses one whose tensors are not as those in `like`."""
    wanted = {name: ("F32", tuple(tensor.shape)) for name, tensor in like.items()}

    def parse(header: Header, info: Values) -> PointDescription:
        try:
            found = PointDescription.of(info)
        except ValueError as error:
            raise RunError(f"{path} is not a point of a curve: {error}.", POINT_HINT) from error
        if header != wanted:
            raise RunError(f"{path} is not a point of this run: its tensors are {header}.", POINT_HINT)
        return found

    return parse


# ------------------------------------------------------------------------------------------------- checkpoints, parquet


class FileSaver:
    """A loop's checkpoint in one safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Checkpoint | None:
        return read_tensors(self.path)[0] if self.path.exists() else None

    def save(self, checkpoint: Checkpoint) -> None:
        write_tensors(self.path, checkpoint, {})

    def drop(self) -> None:
        """Keep nothing any more."""
        self.path.unlink(missing_ok=True)


ROW_GROUP = 100
"""Pictures in a row group of a parquet file, as `datasets` has them: a viewer reads one at a time."""


def write_parquet(
    path: Path, images: Tensor, labels: Tensor, soft: Tensor | None, class_names: tuple[str, ...]
) -> None:
    """Images (uint8) as PNG, class labels and soft labels, with the features that `datasets` and the Hub's viewer read.

    soft: (m, C); or (m, k, C), then a row has a list of k soft labels, one for each of the images that its image holds.
    Every value in full: from a dictionary of values a small file could unpack to very much, and is not read.
    """
    import datasets
    from PIL import Image
    from pyarrow import parquet

    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=list(class_names))}
    columns: dict[str, Sequence[object] | np.ndarray] = {"label": labels.tolist()}
    columns["image"] = [
        Image.fromarray(image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).contiguous().numpy())
        for image in images.cpu()
    ]
    if soft is not None:
        one = datasets.Sequence(datasets.Value("float32"), length=soft.shape[-1])
        features["soft_label"] = one if soft.ndim == 2 else datasets.Sequence(one, length=soft.shape[1])
        columns["soft_label"] = soft.cpu().numpy() if soft.ndim == 2 else soft.tolist()
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
            images, classes = rows_of(file)
    except FileNotFoundError:
        hint = (
            f"Remove {EXACT} beside it as well, and make the set again."
            if path.name == TABLE and (path.parent / EXACT).exists()
            else RESTORE
        )
        raise RunError(f"{path} is missing.", hint) from None
    except (pyarrow.ArrowException, OSError, LookupError, TypeError, ValueError, SyntaxError) as error:
        raise RunError(f"{path} is damaged: {error}.", RESTORE) from error
    if classes.ndim != 1 or classes.is_floating_point() or not labels_fit(classes, num_classes):
        raise RunError(f"{path} has labels outside the {num_classes} classes of the run.", RESTORE)
    return (images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)).contiguous(), classes


def rows_of(file: Any) -> tuple[Tensor, Tensor]:
    """Images uint8 (m, h, w) or (m, h, w, 3) and labels (m,) of an open parquet file. Raises as `decoded`."""
    pictures: list[Any] = []
    labels: list[Any] = []
    for batch in file.iter_batches(batch_size=16, columns=["image.bytes", "label"]):
        for cell in batch["image"]:
            pictures.append(decoded(cell["bytes"].as_py(), pictures[:1], file.metadata.num_rows))
        labels.append(batch["label"].to_numpy(zero_copy_only=False))
    return torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.concatenate(labels))


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
