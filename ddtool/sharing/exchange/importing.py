"""Published sets → folders of sets of ours, and sets that are scored without being kept."""

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ddtool.config import Values
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.errors import DataError, RunError, UsageError
from ddtool.events import Note, Report, silent
from ddtool.runs.files import EXACT, ipcs_in, is_run, write_json
from ddtool.runs.formats import read_set, stored, write_set_folder, write_tensors
from ddtool.sharing.exchange import containers, tables
from ddtool.sharing.exchange.containers import Content
from ddtool.sharing.exchange.loose import Loose, Reading, Space, as_set, outside
from ddtool.sharing.exchange.published import mtt_whitening, published_space, usual_flip
from ddtool.sources.files import IMAGE_ENDINGS
from ddtool.sources.names import FILES

FACTS = "import.json"
"""What was taken for what, beside an imported set."""
TENSORS = (".safetensors", ".npz", ".pt", ".pth")
"""Endings of files that hold a set as tensors."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How a file is taken, where it does not say so itself.

    format: one of `containers.FORMATS`;  normalised: whether float images are normalised; None: by the format;
    mean, std: what they were normalised with; None: the field's for the dataset;  zca: whether they are whitened as in MTT's
    code;  labels: one of `loose.CONVENTIONS`;  flip: None: as the field's code does;  method: what the set is called.
    """

    format: str | None = None
    normalised: bool | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    zca: bool = False
    labels: str | None = None
    label_scale: float | None = None
    factor: int | None = None
    learned_lr: float | None = None
    flip: bool | None = None
    method: str = "imported"


@dataclass(frozen=True)
class Imported:
    """A set that was brought here: its folder, what it is, and what was taken for what."""

    folder: Path
    synthetic: SyntheticSet
    facts: Values


def import_sets(
    file: Path, like: ImageData, out: Path, options: ImportOptions, force: bool = False, report: Report = silent
) -> list[Imported]:
    """Every set of a file into `out`/ipcN, or `out`/setK/ipcN where there are several. Returns them in the file's order.

    Raises DataError or UsageError before anything is written, RunError when `out` is taken and `force` does not replace sets.
    """
    content = containers.read(file, options.format, options.factor)
    if content.own:
        pairs = [own_set(content, file)]
    else:
        pairs = [converted(one, like, content.format, options, report) for one in content.sets]
    places = [out / f"set{k}" if len(pairs) > 1 else out for k in range(1, len(pairs) + 1)]
    folders = [place / f"ipc{synthetic.ipc}" for place, (synthetic, _) in zip(places, pairs, strict=True)]
    if taken := [folder for folder in folders if (folder / EXACT).exists() and not force]:
        raise RunError(f"{taken[0]} exists already.", "Replace it with --force.")
    made = []
    for k, (folder, (synthetic, facts)) in enumerate(zip(folders, pairs, strict=True), 1):
        facts = {"file": file.name, "set": k, "of": len(pairs), "format": content.format, **facts}
        write_set_folder(folder, synthetic)
        write_json(folder / FACTS, facts)
        made.append(Imported(folder, synthetic, facts))
    return made


def own_set(content: Content, file: Path) -> tuple[SyntheticSet, Values]:
    """A set of `ddtool export`, checked as every file of ours; DataError for one that is damaged."""
    assert content.own is not None
    tensors, told = content.own
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        try:
            write_tensors(copy, tensors, json.loads(told))
            return read_set(copy), {"made_by": "ddtool export"}
        except ValueError as error:
            raise DataError(
                f"{file} is refused: its description is damaged: {error}.", "Export the set again."
            ) from error
        except RunError as error:
            raise DataError(error.message.replace(str(copy), str(file)), "Export the set again.") from error


def converted(
    loose: Loose, like: ImageData, kind: str, options: ImportOptions, report: Report
) -> tuple[SyntheticSet, Values]:
    """One set of a file of others, and the facts of what was taken for what."""
    space = space_of(loose, like, kind, options)
    flip = usual_flip(like) if options.flip is None else options.flip
    reading = Reading(like=like, space=space, labels=options.labels, flip=flip, method=options.method)
    synthetic = as_set(stated(loose, options), reading)
    share = outside(synthetic)
    if share:
        reading.notes.append(
            f"{share:.1%} of the pixel values lie outside [0, 1]: exact.safetensors keeps them, pictures cut them; "
            "`ddtool evaluate --exact` scores the set as its authors would."
        )
    for text in reading.notes:
        report(Note(text))
    facts: Values = {
        "normalisation": None if space.plain else {"mean": list(space.mean), "std": list(space.std)},
        "zca": stored(space.whitening),
        "labels": synthetic.label_method,
        "label_scale": synthetic.label_scale,
        "learned_lr": synthetic.learned_lr,
        "factor": synthetic.factor,
        "flip": synthetic.flip,
        "outside": round(share, 6),
        "notes": list(reading.notes),
    }
    return synthetic, facts


def stated(loose: Loose, options: ImportOptions) -> Loose:
    """The set with what the options say beside its file."""
    rate, scale = options.learned_lr, options.label_scale
    return replace(
        loose,
        learned_lr=loose.learned_lr if rate is None else rate,
        label_scale=loose.label_scale if scale is None else scale,
    )


def space_of(loose: Loose, like: ImageData, kind: str, options: ImportOptions) -> Space:
    """What the values of a set's images are, by the options, else by its format; UsageError where neither says."""
    channels = loose.images.shape[1]
    if options.zca:
        return replace(Space.pixels(channels), whitening=mtt_whitening(like))
    if options.mean is not None or options.std is not None:
        if len(options.mean or ()) != channels or len(options.std or ()) != channels or min(options.std or (1,)) <= 0:
            raise UsageError(f"--mean and --std take {channels} numbers each, with commas.", "For example 0.5,0.5,0.5.")
        return Space(options.mean or (), options.std or ())
    in_range = not loose.images.is_floating_point() or bool(loose.images.min() >= 0 and loose.images.max() <= 1)
    normalised = options.normalised
    if normalised is None and kind in (containers.NPZ, containers.SAFETENSORS) and not in_range:
        raise UsageError(
            "The images have values outside [0, 1], and the file does not say how they were normalised.",
            "Say it: --mean and --std, --normalised for the field's own, or --no-normalised for plain pixels.",
        )
    if normalised is None:
        normalised = kind in (containers.DC, containers.MTT)
    return published_space(like) if normalised and loose.images.is_floating_point() else Space.pixels(channels)


# ----------------------------------------------------------------------------------------------- sets that are only scored


def is_foreign(path: Path) -> bool:
    """Whether a path is a set in a form of others: a table, an archive or tensors that are not ours, or a folder of images."""
    if path.is_file():
        ending = path.suffix.lower()
        return (
            path.name.lower().endswith(FILES) or ending in TENSORS[1:] or (ending == ".safetensors" and not ours(path))
        )
    if is_run(path) or ipcs_in(path) or (path / EXACT).exists() or any(path.glob(f"*/ipc*/{EXACT}")):
        return False
    return any(file.suffix.lower() in {*IMAGE_ENDINGS, *FILES} for file in path.rglob("*"))


def ours(path: Path) -> bool:
    """Whether a safetensors file has a description of ddtool; one that is damaged is left to its reader."""
    try:
        return containers.OURS in containers.safetensors_arrays(path)
    except DataError:
        return True


def foreign_set(name: str, like: ImageData, report: Report = silent) -> SyntheticSet:
    """The set of a Hub repo, table, folder of images or safetensors file, as one of ours. Raises DataError or UsageError."""
    path = Path(name).expanduser()
    if path.suffix.lower() in TENSORS[1:]:
        hint = f"Bring it here first: `ddtool import {path} --on DATASET --out DIR`."
        raise UsageError(f"How the images of {path} were normalised has to be said.", hint)
    if path.is_file() and path.suffix.lower() == ".safetensors":
        content = containers.read(path)
        loose, space = content.sets[0], space_of(content.sets[0], like, content.format, ImportOptions())
    else:
        loose, space = tables.read(name, report), Space.pixels(like.shape[0])
    reading = Reading(like=like, space=space, flip=usual_flip(like))
    made = as_set(loose, reading)
    for text in reading.notes:
        report(Note(text))
    return made


def listed(made: Sequence[Imported]) -> list[Values]:
    """The facts of imported sets with their folders, for `--json`."""
    return [{"folder": str(one.folder), "ipc": one.synthetic.ipc, **one.facts} for one in made]
