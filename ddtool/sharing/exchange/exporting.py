"""Sets of ours for others: a folder of images, .npz, .pt in the field's form, or a WebDataset.

npz and pt hold every tensor to the bit with the description of exact.safetensors; the others hold 8-bit images.
"""

import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ddtool.data.images import SyntheticSet
from ddtool.errors import RunError, UsageError, did_you_mean
from ddtool.events import Note, Report, silent
from ddtool.runs.files import EXACT, staged_folder
from ddtool.runs.formats import set_parts
from ddtool.sharing.exchange import pickles
from ddtool.sharing.exchange.containers import OURS
from ddtool.sharing.exchange.loose import outside

PICTURES = ("folder", "webdataset")
"""The forms that hold 8-bit images; the others hold every tensor."""


def export_sets(
    sets: Sequence[SyntheticSet], kind: str, out: Path, force: bool = False, report: Report = silent
) -> list[Path]:
    """Write sets into the folder `out`, of several of one IPC the k-th into `out`/setK; returns what was written.

    What the form `kind` does not hold of them is reported. Raises as `export` does, before anything is written.
    """
    places = [(one, out / folder) for one, folder in zip(sets, told_apart([one.ipc for one in sets]), strict=True)]
    for one, place in places:
        free_target(one, kind, place, force)
    for text in dict.fromkeys(text for one in sets for text in losses(one, kind)):
        report(Note(text))
    return [export(one, kind, place, force) for one, place in places]


def told_apart(ipcs: Sequence[int]) -> list[str]:
    """A folder for each set: none of its own ('') where no other has its IPC, else set1, set2 and so on."""
    number, seen, folders = Counter(ipcs), Counter[int](), []
    for ipc in ipcs:
        seen[ipc] += 1
        folders.append(f"set{seen[ipc]}" if number[ipc] > 1 else "")
    return folders


def export(synthetic: SyntheticSet, kind: str, out: Path, force: bool = False) -> Path:
    """Write a set into the folder `out`; returns the file, or the folder of images.

    kind: one of FORMATS. Raises UsageError for another one, RunError when the result is there and `force` does not replace it, or
    when it would replace a set of ours.
    """
    target, (_, write) = free_target(synthetic, kind, out, force), FORMATS[kind]
    if kind == "folder":
        with staged_folder(target, replacing=True) as temporary:
            write(synthetic.to("cpu"), temporary)
        return target
    with staged_folder(out) as temporary:
        write(synthetic.to("cpu"), temporary / target.name)
    return target


def free_target(synthetic: SyntheticSet, kind: str, out: Path, force: bool) -> Path:
    """The file or folder that a set would be written to. Raises as `export`."""
    if kind not in FORMATS:
        raise UsageError(f"Unknown format '{kind}'.", did_you_mean(kind, FORMATS, listed=True))
    target = out / FORMATS[kind][0].format(ipc=synthetic.ipc)
    if (target / EXACT).exists():
        raise RunError(f"{target} is a set of ddtool, which images are not to replace.", "Choose another --out.")
    if target.exists() and not force:
        raise RunError(f"{target} exists already.", "Replace it with --force.")
    return target


def losses(synthetic: SyntheticSet, kind: str) -> list[str]:
    """What the form `kind` does not hold of a set, or holds in a way to know of, a sentence each."""
    of_pictures, of_pt, factor = kind in PICTURES, kind == "pt", synthetic.factor
    names = folder_names(synthetic.class_names)
    soft, whitened, cut = synthetic.label_method != "hard", synthetic.whitening is not None, outside(synthetic.images)
    texts = {
        "Folders of images have classes alone: the soft labels are left out (npz, pt and webdataset have them).":
            kind == "folder" and soft,
        f"Not all names of classes can be those of folders, so these are numbers: {names[0]} is '{synthetic.class_names[0]}'.":
            kind == "folder" and names != list(synthetic.class_names),
        "Pictures do not say how they are to be whitened, and are worth less without (npz and pt hold the whitening).":
            of_pictures and whitened,
        f"{cut:.1%} of the pixel values lie outside [0, 1], where pictures cut them off (npz and pt keep them).":
            of_pictures and cut > 0,
        f"Each picture holds {factor} x {factor} smaller images, and does not say so (npz and pt have the factor).":
            of_pictures and factor > 1,
        "Pictures do not have the learned learning rate (npz and pt have it).":
            of_pictures and synthetic.learned_lr is not None,
        "`data` in a pt has classes alone, for DatasetCondensation's code; the soft labels are in `labels` beside it.":
            of_pt and soft,
        "`data` in a pt is whitened: test images are to be whitened alike, by the tensors `whitening.*` beside it.":
            of_pt and whitened,
    }  # fmt: skip
    return [text for text, applies in texts.items() if applies]


def write_npz(synthetic: SyntheticSet, path: Path) -> None:
    """Write `images` (pixels), `labels` (soft, centred), `hard` (classes), and the description as text."""
    tensors, told = set_parts(synthetic)
    arrays: dict[str, Any] = {name: tensor.numpy() for name, tensor in tensors.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays | {OURS: np.array(json.dumps(told))})


def write_pt(synthetic: SyntheticSet, path: Path) -> None:
    """Write `{'data': [[inputs, classes]]}`, as DatasetCondensation's code reads it, with our own tensors beside it.

    The inputs are decoded, normalised, and whitened where the set says so: what networks train on.
    """
    tensors, told = set_parts(synthetic)
    whole = synthetic.decoded()
    data = [[whole.transform(whole.images).contiguous(), whole.hard]]
    pickles.save(path, {"data": data, **tensors, OURS: json.dumps(told)})


def write_images(synthetic: SyntheticSet, folder: Path) -> None:
    """Write train/CLASS/NNNNN.png; classes without a name that can be one of a folder are all numbers."""
    names = folder_names(synthetic.class_names)
    for row, (image, label) in enumerate(zip(synthetic.pixels(), synthetic.hard.tolist(), strict=True)):
        place = folder / "train" / names[label]
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{row:06d}.png").write_bytes(png(image))


def folder_names(class_names: tuple[str, ...]) -> list[str]:
    """Names of folders for classes, told apart on every system: the classes' own where all of them can be, else numbers."""
    plain = all(name == name.strip(". ") and not set(name) & set('/\\:*?"<>|') and name for name in class_names)
    plain = plain and len({name.casefold() for name in class_names}) == len(class_names)
    digits = len(str(len(class_names) - 1))
    return list(class_names) if plain else [f"{i:0{digits}d}" for i in range(len(class_names))]


def write_webdataset(synthetic: SyntheticSet, path: Path) -> None:
    """Write a tar of NNNNNN.png, NNNNNN.cls (the class as a number) and NNNNNN.json (its name, soft label and scale).

    An image that holds several has a list of soft labels, where each of those has its own.
    """
    soft_labels = synthetic.labels_by_image().tolist()
    rows = zip(synthetic.pixels(), synthetic.hard.tolist(), soft_labels, strict=True)
    with tarfile.open(path, "w") as tar:
        for row, (image, label, soft) in enumerate(rows):
            told = {"class": synthetic.class_names[label], "soft_label": soft, "label_scale": synthetic.label_scale}
            parts = {"png": png(image), "cls": str(label).encode(), "json": json.dumps(told).encode()}
            for ending, content in parts.items():
                entry = tarfile.TarInfo(f"{row:06d}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


def png(image: Tensor) -> bytes:
    """One image, uint8 (c, h, w), as PNG."""
    from PIL import Image

    array, out = image.numpy(), io.BytesIO()
    Image.fromarray(array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))).save(out, "PNG")
    return out.getvalue()


FORMATS: dict[str, tuple[str, Callable[[SyntheticSet, Path], None]]] = {
    "folder": ("ipc{ipc}", write_images),
    "npz": ("ipc{ipc}.npz", write_npz),
    "pt": ("ipc{ipc}.pt", write_pt),
    "webdataset": ("ipc{ipc}.tar", write_webdataset),
}
"""By the name that `--format` takes: what is written into the folder, and how."""
