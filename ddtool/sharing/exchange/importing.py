"""Published sets → folders of sets of ours, and sets that are scored without being kept."""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from torch import Tensor

from ddtool.config import LARGEST_FACTOR, Values
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.errors import DataError, RunError, UsageError, did_you_mean
from ddtool.events import Note, Report, silent
from ddtool.runs.files import EXACT, ipcs_in, is_run, write_json
from ddtool.runs.formats import read_set, stored, write_set_folder, write_tensors
from ddtool.sharing.exchange import containers, tables
from ddtool.sharing.exchange.loose import (
    CONVENTIONS,
    PROBABILITIES,
    Loose,
    Reading,
    Space,
    as_set,
    checked,
    convention,
    outside,
    positive,
)
from ddtool.sharing.exchange.published import mtt_whitening, published_space, usual_flip
from ddtool.sources.files import IMAGE_ENDINGS
from ddtool.sources.names import FILES
from ddtool.text import parsed_json, shell

FACTS = "import.json"
"""What was taken for what, beside an imported set."""
TENSORS = (".safetensors", ".npz", ".pt", ".pth")
"""Endings of files that hold a set as tensors."""


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """How a file is taken, where it does not say so itself.

    format: one of `containers.FORMATS`;  normalised: whether float images are normalised; None: by the format;
    mean, std: what they were normalised with; None: the field's for the dataset;  zca: whether they are whitened as in MTT's
    code;  labels: one of `loose.CONVENTIONS`;  label_scale: of centred labels;  factor: each image holds factor x factor smaller
    ones;  learned_lr: learned with the set;  flip: None: as the field's code does;  method: what the set is called.
    Raises UsageError for values that cannot be, and for options that contradict each other.
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

    def __post_init__(self) -> None:
        self._check_values()
        stated = self.mean is not None or self.std is not None
        if self.zca and (stated or self.normalised is not None):
            others = "--mean, --std, --normalised and --no-normalised"
            raise UsageError(f"--zca excludes {others}: MTT's code whitens plain pixels.", "Leave either out.")
        if stated and self.normalised is False:
            message = "--mean and --std say that the images are normalised, --no-normalised that they are not."
            raise UsageError(message, "Leave either out.")

    def _check_values(self) -> None:
        for name in ("learned_lr", "label_scale"):
            if (value := getattr(self, name)) is not None and not positive(value):
                raise UsageError(f"{as_option(name)} is {value}, and has to be a positive number.", "Or leave it out.")
        if not all(map(positive, self.std or ())) or not all(map(math.isfinite, self.mean or ())):
            raise UsageError("--mean and --std take finite numbers, --std positive ones.", "For example 0.5,0.5,0.5.")
        if self.labels not in (None, *CONVENTIONS):
            raise UsageError(
                f"Unknown label convention '{self.labels}'.", did_you_mean(self.labels, CONVENTIONS, listed=True)
            )
        if self.factor is not None and not 1 <= self.factor <= LARGEST_FACTOR:
            raise UsageError(f"--factor is {self.factor}.", f"It takes whole numbers from 1 to {LARGEST_FACTOR}.")


def as_option(name: str) -> str:
    """The name of a field as it is on the command line."""
    return f"--{name.replace('_', '-')}"


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

    Raises DataError or UsageError before anything is written, RunError when `out` is taken and `force` does not replace sets,
    or when it holds others that would be taken for sets of this file.
    """
    content, say = containers.read(file, options.format, options.factor), each_once(report)
    if content.own:
        pairs = [own_set(content.own, file, like, options)]
    else:
        pairs = [converted(one, like, content.format, options, say) for one in content.sets]
    places = [out / f"set{k}" if len(pairs) > 1 else out for k in range(1, len(pairs) + 1)]
    folders = [place / f"ipc{synthetic.ipc}" for place, (synthetic, _) in zip(places, pairs, strict=True)]
    check_room(out, folders, force)
    made = []
    for k, (folder, (synthetic, facts)) in enumerate(zip(folders, pairs, strict=True), 1):
        facts = {"file": file.name, "set": k, "of": len(pairs), "format": content.format, **facts}
        write_set_folder(folder, synthetic)
        write_json(folder / FACTS, facts)
        made.append(Imported(folder, synthetic, facts))
    return made


def each_once(report: Report) -> Callable[[str], None]:
    """What reports a text as a note, each text once: what is to be said of the sets of one file is mostly the same."""
    said: set[str] = set()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            report(Note(text))

    return say


def check_room(out: Path, folders: Sequence[Path], force: bool) -> None:
    """RunError unless these folders of sets can be written and `out` has no others that would be scored as if of the same file
    (those of an equal IPC), or that would hide them or be hidden (ipcN beside setK/ipcN)."""
    if taken := [folder for folder in folders if (folder / EXACT).exists() and not force]:
        raise RunError(f"{taken[0]} exists already.", "Replace it with --force.")
    names, alone = {folder.name for folder in folders}, folders[0].parent == out
    there = {exact.parent for pattern in ("ipc*", "set*/ipc*") for exact in out.glob(f"{pattern}/{EXACT}")}
    others = [one for one in there - set(folders) if one.name in names or (one.parent == out) != alone]
    if others:
        listed = ", ".join(sorted(map(str, others)))
        raise RunError(f"Sets of another file are there: {listed}.", "Remove them, or choose another --out.")


def own_set(
    own: tuple[dict[str, Tensor], str], file: Path, like: ImageData, options: ImportOptions
) -> tuple[SyntheticSet, Values]:
    """A set of `ddtool export`, or an exact.safetensors, checked as every file of ours.

    Raises DataError for one that is damaged or of other classes than `like`, UsageError for options: it says all of it itself.
    """
    if given := [as_option(f.name) for f in fields(options) if getattr(options, f.name) != f.default]:
        message = f"{file} is of ddtool and says itself how it is to be taken: {', '.join(given)} would have no effect."
        raise UsageError(message, "Leave such options out.")
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / file.name
        try:
            made = read_set(file if file.suffix.lower() == TENSORS[0] else written_anew(own, copy))
        except ValueError as error:
            message = f"{file} is refused: its description is damaged: {error}."
            raise DataError(message, "Export the set again.") from error
        except RunError as error:
            raise DataError(error.message.replace(str(copy), str(file)), "Export the set again.") from error
    if made.class_names != like.class_names:
        message = f"The classes of the set are not those of '{like.source.get('name', '')}'."
        raise DataError(message, "Name the dataset that it was made from (--on).")
    return made, {"made_by": "ddtool export", **facts_of(made)}


def written_anew(own: tuple[dict[str, Tensor], str], path: Path) -> Path:
    """The tensors and the description of a set of ours as an exact.safetensors; ValueError for a description that is none."""
    tensors, told = own
    info = parsed_json(told)
    if not isinstance(info, dict):
        raise ValueError("it has no keys")
    write_tensors(path, tensors, info)
    return path


def converted(
    loose: Loose, like: ImageData, kind: str, options: ImportOptions, say: Callable[[str], None]
) -> tuple[SyntheticSet, Values]:
    """One set of a file of others, and the facts of what was taken for what."""
    loose = stated(checked(loose, like), options)
    space = space_of(loose, like, kind, options)
    flip = usual_flip(like) if options.flip is None else options.flip
    reading = Reading(like=like, space=space, labels=options.labels, flip=flip, method=options.method)
    synthetic = as_set(loose, reading)
    for text in (taken_as(synthetic, loose, space, options), *reading.notes):
        say(text)
    normalisation: Values | None = None if space.plain else {"mean": list(space.mean), "std": list(space.std)}
    return synthetic, {
        "normalisation": normalisation,
        "zca": stored(space.whitening),
        **facts_of(synthetic),
        "notes": list(reading.notes),
    }


def facts_of(synthetic: SyntheticSet) -> Values:
    """What import.json says of any set."""
    return {
        "labels": synthetic.label_method,
        "label_scale": synthetic.label_scale,
        "learned_lr": synthetic.learned_lr,
        "factor": synthetic.factor,
        "flip": synthetic.flip,
        "outside": round(outside(synthetic.images), 6),
    }


def taken_as(synthetic: SyntheticSet, loose: Loose, space: Space, options: ImportOptions) -> str:
    """What a set was taken for, as a sentence: stated by the options, by its format, or found."""
    mean, std = (", ".join(f"{value:.4g}" for value in values) for values in (space.mean, space.std))
    normalised = "pixels" if space.plain else f"images normalised by mean {mean} and std {std}"
    images = normalised if space.whitening is None else "images whitened by the ZCA of MTT's code"
    labels = "hard labels" if loose.soft is None else f"soft labels ({convention(loose.soft, options.labels)})"
    held = f"{loose.factor} x {loose.factor} smaller images in each" if loose.factor > 1 else "one image in each"
    rate = f"learned learning rate {loose.learned_lr:.4g}, " if loose.learned_lr is not None else ""
    flips = "flipped images keep their class" if synthetic.flip else "flipped images do not keep their class"
    return f"Taken as: {images}, {held}, {labels}, {rate}{flips}."


def stated(loose: Loose, options: ImportOptions) -> Loose:
    """The set with what the options say beside its file; UsageError for what they say of labels that it does not have."""
    rate, scale, soft = options.learned_lr, options.label_scale, loose.soft
    if soft is None and (scale is not None or options.labels is not None):
        raise UsageError("The labels are classes; --labels and --label-scale are of soft labels.", "Leave them out.")
    if soft is not None and scale is not None and convention(soft, options.labels) == PROBABILITIES:
        raise UsageError("The soft labels are probabilities, which have no scale.", "Leave --label-scale out.")
    return replace(
        loose,
        learned_lr=loose.learned_lr if rate is None else rate,
        label_scale=loose.label_scale if scale is None else scale,
    )


def space_of(loose: Loose, like: ImageData, kind: str, options: ImportOptions) -> Space:
    """What the values of a set's images are, by the options, else by its format; UsageError where neither says, and for
    options that say of bytes what they cannot be."""
    channels = loose.images.shape[1]
    explicit = options.mean is not None or options.std is not None
    if not loose.images.is_floating_point():
        if options.zca or explicit or options.normalised:
            message = "The images are bytes, so plain pixels: neither normalised nor whitened."
            raise UsageError(message, "Leave --zca, --mean, --std and --normalised out.")
        return Space.pixels(channels)
    if options.zca:
        return replace(Space.pixels(channels), whitening=mtt_whitening(like))
    if explicit:
        if len(options.mean or ()) != channels or len(options.std or ()) != channels:
            raise UsageError(f"--mean and --std take {channels} numbers each, with commas.", "For example 0.5,0.5,0.5.")
        return Space(options.mean or (), options.std or ())
    if options.normalised is None and kind in (containers.NPZ, containers.SAFETENSORS) and not in_range(loose.images):
        raise UsageError(
            "The images have values outside [0, 1], and the file does not say how they were normalised.",
            "Say it: --mean and --std, --normalised for the field's own, or --no-normalised for plain pixels.",
        )
    usual = kind in (containers.DC, containers.MTT)
    normalised = usual if options.normalised is None else options.normalised
    return published_space(like) if normalised else Space.pixels(channels)


def in_range(images: Tensor) -> bool:
    """Whether images can be plain pixels: bytes, or values within [0, 1]."""
    return not images.is_floating_point() or bool(images.min() >= 0 and images.max() <= 1)


# ----------------------------------------------------------------------------------------------- sets that are only scored


def is_foreign(path: Path) -> bool:
    """Whether a path is a set in a form of others: a table, an archive or tensors that are not ours, or a folder of images."""
    if path.is_file():
        ending = path.suffix.lower()
        return path.name.lower().endswith(FILES) or ending in TENSORS[1:] or (ending == TENSORS[0] and not ours(path))
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
    of_tensors = path.is_file() and path.suffix.lower() in TENSORS
    loose = checked(arrays_of(path) if of_tensors else tables.read(name, report), like)
    if of_tensors and not in_range(loose.images):
        raise unsaid(path)
    reading = Reading(like=like, space=Space.pixels(like.shape[0]), flip=usual_flip(like))
    made = as_set(loose, reading)
    for text in reading.notes:
        report(Note(text))
    return made


def arrays_of(path: Path) -> Loose:
    """The set in a file of tensors; UsageError for a form in which images are usually normalised."""
    if path.suffix.lower() in TENSORS[1:]:
        raise unsaid(path)
    return containers.read(path).sets[0]


def unsaid(path: Path) -> UsageError:
    """What says that a file has to be imported before its sets are scored."""
    hint = f"Bring it here first: `{shell('ddtool import', path, '--on DATASET --out DIR')}`."
    return UsageError(f"How the images of {path} were normalised has to be said.", hint)


def listed(made: Sequence[Imported]) -> list[Values]:
    """The facts of imported sets with their folders, for `--json`."""
    return [{"folder": str(one.folder), "ipc": one.synthetic.ipc, **one.facts} for one in made]
