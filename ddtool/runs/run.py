"""The run directory: the one place that knows file names. Every file appears whole or not at all.

config.json  env.json  metrics.jsonl  results.json  preview.png
generator/          config.json, model.safetensors: the adapted generator; labels.safetensors: θ and W_θ of Eq. 3
pool/train.parquet  the initial samples Z (real images), image-major
synthetic/ipcN/     train.parquet (image, label, soft_label), exact.safetensors (float images and labels)
stages/             earlier stages of each set, in the exact format: ipcN-initial, ipcN-generated
checkpoints/        what an unfinished phase needs to go on
"""

import contextlib
import errno
import io
import json
import math
import os
import platform
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ddtool.config import RunConfig, from_dict, to_dict
from ddtool.data import whitening
from ddtool.data.images import CENTRED, LARGEST_FACTOR, ImageData, SyntheticSet
from ddtool.data.whitening import Whitening
from ddtool.errors import DataError, RunError, UsageError
from ddtool.evaluation.measure import ScoreKey
from ddtool.events import Done, Event, Note, Step
from ddtool.models.generator import Generator
from ddtool.runtime import files
from ddtool.runtime.engine import Engine, finite
from ddtool.runtime.loop import Checkpoint
from ddtool.version import __version__

STAGES = ("initial", "generated", "refined", "distilled")
LABEL_METHODS = ("hard", "analytical", "fitted", "learned")
LABEL_INFO = ("class_names", "mean", "std", "shape", "label_width", "mirror", "source")
"""What is kept beside θ and W_θ: all that is needed to use them."""
WHITENING = "checkpoints/whitening.safetensors"
RESTORE = "Restore the file, or start a new run."
ROW_GROUP = 100
"""Pictures in a row group of a parquet file, as `datasets` has them: a viewer reads one at a time."""
LARGEST_SIDE, MOST_PICTURES, MOST_BYTES = 4096, 10**7, 2**32
"""Bounds on what a file may claim to hold: pixels a side, pictures, and bytes in memory."""
OURS = re.compile(
    r"(config|env|results|ddtool|pretraining)\.json|(metrics|skipped)\.jsonl|preview\.png|model\.safetensors"
    r"|generator/((config|pretraining)\.json|(model|labels)\.safetensors)|pool/train\.parquet|pictures/iteration-[0-9]+\.png"
    r"|(synthetic/)?ipc[0-9]+/(train\.parquet|exact\.safetensors)|stages/ipc[0-9]+-[a-z]+\.safetensors"
    r"|checkpoints/[\w-]+\.safetensors|(.*/)?\.[^/]+\.tmp(/.*)?"
)
"""The files below a folder that an adaptation, a pre-training or a pull writes."""
Header = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor in a safetensors file."""


class Run:
    """One run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"<Run {self.folder}: sets of IPC {', '.join(map(str, self.ipcs())) or 'none'}>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the picture of the run, once there is one."""
        return (self.folder / "preview.png").read_bytes() if self.has("preview.png") else None

    # ------------------------------------------------------------------------------------------------ life of a run

    @classmethod
    def create(cls, folder: Path, config: RunConfig, engine: Engine, force: bool = False) -> "Run":
        """A new run; RunError when the folder is taken, unless `force` says to replace a run (and only a run)."""
        folder = Path(folder)
        check_free(folder, force)
        if is_run(folder):
            shutil.rmtree(folder)
        with staged_folder(folder) as temporary:
            run = cls(temporary)
            run.write_json("config.json", to_dict(config))
            run.write_json("env.json", environment(engine))
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """An existing run; RunError when there is none."""
        if not is_run(Path(folder)):
            raise RunError(f"No run of ddtool at {folder}.", "Make one with `ddtool adapt DATASET --ipc 10 --out DIR`.")
        return cls(folder)

    def config(self) -> RunConfig:
        """The resolved configuration it was started with."""
        try:
            return from_dict(RunConfig, self.read_json("config.json"))
        except UsageError as error:
            hint = error.hint or "Undo the change to the file, or start a new run."
            raise RunError(f"{self.folder / 'config.json'}: {error.message}", hint) from error

    # ------------------------------------------------------------------------------------------------------- results

    def results(self) -> dict[str, Any]:
        """Scores, timings and facts so far; RunError when the file is damaged."""
        if not self.has("results.json"):
            return {"scores": [], "timings": {}, "facts": {}}
        results = self.read_json("results.json")
        parts = {"scores": list, "timings": dict, "facts": dict}
        if not isinstance(results, dict) or not all(isinstance(results.get(k), t) for k, t in parts.items()):
            raise self.damaged("results.json", "scores, timings and facts are expected")
        return results

    def record(self, *, score: dict[str, Any] | None = None, **facts: Any) -> None:
        """Add a score (replacing one of the same measurement), timings or facts."""
        results = self.results()
        if score is not None:
            kept = [s for s in results["scores"] if ScoreKey.of(s) != ScoreKey.of(score)]
            results["scores"] = [*kept, score]
        results["timings"] |= facts.pop("timings", {})
        results["facts"] |= facts
        self.write_json("results.json", results)

    def record_spent(self, ipc: int, steps: int, step_seconds: float, outside_seconds: float) -> None:
        """What a set took: steps, seconds in them, and seconds outside them."""
        spent = {"steps": steps, "step_seconds": round(step_seconds, 2), "outside_seconds": round(outside_seconds, 2)}
        self.record(spent=self.results()["facts"].get("spent", {}) | {f"ipc{ipc}": spent})

    def steps(self) -> dict[str, int]:
        """The last step that each phase has reported."""
        out: dict[str, int] = {}
        path = self.folder / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
        for line in lines:
            with contextlib.suppress(ValueError, LookupError, TypeError):  # a killed process tears its last line
                event = json.loads(line)
                out[event["phase"]] = event["step"]
        return out

    def drop_scores(self, ipc: int) -> None:
        """Forget the scores of a set that is replaced; those of random real images stay true."""
        results = self.results()
        results["scores"] = [s for s in results["scores"] if s["ipc"] != ipc or s["stage"] == "random"]
        self.write_json("results.json", results)

    def log(self, event: Event) -> None:
        """Append an event to metrics.jsonl. A phase that ends again has begun anew, or counts all its sittings."""
        append_event(self.folder / "metrics.jsonl", event)
        if isinstance(event, Done):
            self.record(timings={event.phase: round(event.seconds, 2)})

    # ----------------------------------------------------------------------------------------------------- artefacts

    def has(self, name: str) -> bool:
        """Whether an artefact (a path below the run) is there."""
        return (self.folder / name).exists()

    def save_generator(self, generator: Generator) -> None:
        with staged_folder(self.folder / "generator") as folder:
            generator.save(folder)

    def has_generator(self) -> bool:
        return self.has("generator/config.json")

    def load_generator(self) -> Generator:
        return Generator.load(self.folder / "generator")

    def save_label_head(self, theta: dict[str, Tensor], W: Tensor, info: dict[str, Any]) -> None:
        """θ (the fixed network's weights) and W_θ of Eq. 3, with what is needed to use them; `info["whitening"]` among it."""
        tensors = {f"theta.{k}": v for k, v in theta.items()} | {"W": W}
        write_whitened(self.folder / "generator" / "labels.safetensors", tensors, info)

    def load_label_head(self) -> tuple[dict[str, Tensor], Tensor, dict[str, Any]]:
        """θ, W_θ and the information saved beside them; RunError when anything is missing."""
        path = self.folder / "generator" / "labels.safetensors"

        def check(header: Header, info: dict[str, Any]) -> None:
            absent = [name for name in LABEL_INFO if name not in info] + ["W"] * ("W" not in header)
            shape = info.get("shape")
            fault = f"it misses {', '.join(absent)}" if absent else ""
            fault = fault or description_fault(info, shape if isinstance(shape, list) else ())
            fault = fault or whitening_fault(header, info, shape or ())
            if fault:
                raise RunError(f"{path} is not the label network of a run: {fault}.", RESTORE)

        tensors, info = read_tensors(path, check)
        info["whitening"] = restored_whitening(path, tensors, info)
        theta = {k.removeprefix("theta."): v for k, v in tensors.items() if k.startswith("theta.")}
        return theta, tensors["W"], info

    def save_whitening(self, whitening: Whitening | None) -> None:
        """What networks see of the target, until the sets that hold it are made."""
        if whitening is not None:
            write_whitened(self.folder / WHITENING, {}, {"whitening": whitening})

    def load_whitening(self) -> Whitening | None:
        """What `save_whitening` kept, or else a finished set holds; RunError when the run whitens and neither is there."""
        if self.has(WHITENING):
            tensors, info = read_tensors(self.folder / WHITENING)
            return restored_whitening(self.folder / WHITENING, tensors, info)
        if self.ipcs():
            return self.load_set(self.ipcs()[0]).whitening
        if self.results()["facts"].get("whitening", "none") != "none":
            raise RunError(f"{self.folder / WHITENING} is missing.", "Start the run again: `ddtool adapt … --force`.")
        return None

    def save_pool(self, data: ImageData, indices: Tensor) -> None:
        """Z: the chosen real images as parquet."""
        images, labels = data.images[indices].cpu(), data.labels[indices].cpu()
        write_parquet(self.folder / "pool" / "train.parquet", images, labels, None, data.class_names)

    def load_pool(self, class_names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Z: uint8 images (m, c, h, w) and labels (m,), image-major."""
        return read_parquet(self.folder / "pool" / "train.parquet", len(class_names))

    def set_path(self, ipc: int, stage: str | None = None) -> Path:
        """Where the exact tensors of a set are: the final one, or an earlier stage."""
        if stage is None or (stage not in ("initial", "generated")):
            return self.folder / "synthetic" / f"ipc{ipc}" / "exact.safetensors"
        return self.folder / "stages" / f"ipc{ipc}-{stage}.safetensors"

    def ipcs(self) -> list[int]:
        """The images per class of the finished sets."""
        return ipcs_in(self.folder / "synthetic")

    def save_stage(self, synthetic: SyntheticSet) -> None:
        """An earlier stage of a set, in the exact format only."""
        write_set(self.set_path(synthetic.ipc, synthetic.stage), synthetic)

    def save_final(self, synthetic: SyntheticSet, force: bool = False) -> Path:
        """A finished set: parquet that `datasets` reads, and the exact tensors. Returns its folder."""
        target = self.set_path(synthetic.ipc).parent
        if self.set_path(synthetic.ipc).exists() and not force:
            raise RunError(f"{target} exists already.", "Replace it with --force.")
        with staged_folder(target) as folder:
            images, classes = synthetic.pixels(), synthetic.class_names
            write_parquet(folder / "train.parquet", images, synthetic.hard, synthetic.labels, classes)
            write_set(folder / "exact.safetensors", synthetic)
        return target

    def load_set(self, ipc: int, stage: str | None = None) -> SyntheticSet:
        """A set of this run; RunError when it was not made."""
        path = self.set_path(ipc, stage)
        found = read_set(path) if path.exists() else None
        if found is None or stage not in (None, found.stage):
            there = ", ".join(map(str, self.ipcs())) or "none"
            hint = f"Sets there: {there}."
            if self.has_generator():
                hint += f" Make it with `ddtool generate {self.folder} --ipc {ipc}`."
            if found:
                hint = f"That set is there as it was {found.stage}; leave --stage out."
            raise RunError(f"{self.folder} has no synthetic set of ipc {ipc}{f' ({stage})' if stage else ''}.", hint)
        return found

    # --------------------------------------------------------------------------------------------------- checkpoints

    def saver(self, phase: str) -> "FileSaver":
        """Keeps the checkpoint of one phase of this run."""
        return FileSaver(self.folder / "checkpoints" / f"{phase}.safetensors")

    def drop_checkpoints(self) -> None:
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def sweep(self) -> None:
        """Remove the temporary files that a killed process left behind."""
        sweep(self.folder)

    def read_json(self, name: str) -> Any:
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.damaged(name, str(error)) from error

    def damaged(self, name: str, reason: str) -> RunError:
        """The explanation for a JSON file of the run that cannot be used."""
        hint = f"Remove it; `ddtool adapt --resume {self.folder}` measures the scores again."
        return RunError(f"{self.folder / name} is damaged: {reason}.", hint if name == "results.json" else RESTORE)

    def save_broken(self, images: Sequence[Mapping[str, Any]]) -> None:
        """The broken images of the dataset that were set aside, one a line in skipped.jsonl; no file when there are none."""
        if images:
            lines = "".join(json.dumps(image) + "\n" for image in images)
            path = self.folder / "skipped.jsonl"
            write_atomically(path, lambda temporary: temporary.write_text(lines, "utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        write_json(self.folder / name, value)


class FileSaver:
    """A loop's checkpoint in one safetensors file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Checkpoint | None:
        return read_tensors(self.path)[0] if self.path.exists() else None

    def save(self, checkpoint: Checkpoint) -> None:
        write_tensors(self.path, checkpoint, {})


def ipcs_in(folder: Path) -> list[int]:
    """The images per class of the sets in a folder's ipcN/."""
    names = (path.parent.name[3:] for path in folder.glob("ipc*/exact.safetensors"))
    return sorted(int(name) for name in names if name.isdigit())


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory (of `ddtool adapt`: a pre-training's looks alike)."""
    return (folder / "config.json").is_file() and (folder / "env.json").is_file() and not is_pretraining(folder)


def is_pretraining(folder: Path) -> bool:
    """Whether a folder is one of `ddtool pretrain`: its config.json lists `datasets`."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "datasets" in config and (folder / "env.json").is_file()


def check_free(folder: Path, force: bool) -> None:
    """RunError when a new run cannot be made at `folder`; `force` allows a run there, which will be replaced."""
    check_taken(folder, force, is_run(folder), "run", "ddtool adapt")


def check_taken(folder: Path, force: bool, ours: bool, kind: str, command: str) -> None:
    """RunError when `folder` is taken, unless what is there is `ours` (of that kind) and `force` says to replace it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not ours:
        hint = f"Choose another --out; --force replaces a {kind} and nothing else, --resume goes on with one."
        raise RunError(f"{folder} exists already and is not a {kind} of ddtool.", hint)
    if not force:
        hint = f"Go on with it by `{command} --resume {folder}`, replace it with --force, or choose another --out."
        raise RunError(f"{folder} exists already.", hint)
    check_strangers(folder)


def check_strangers(folder: Path) -> None:
    """RunError when --force would remove what ddtool did not write."""
    if others := strangers(folder):
        message = f"{folder} also holds what ddtool did not write: {', '.join(others[:3])}."
        raise RunError(message, "--force would remove it: move it away, or choose another --out.")


def strangers(folder: Path) -> list[str]:
    """What lies below a folder and was written by no adaptation, no pre-training and no pull."""
    below = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in below if not OURS.fullmatch(name := path.relative_to(folder).as_posix()))


def environment(engine: Engine) -> dict[str, Any]:
    """Versions, device and time: what a reader needs to judge the numbers."""
    return {
        "ddtool": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": engine.describe(),
        "precision": "bf16" if engine.bf16 else "fp32",
        **({"threads": torch.get_num_threads()} if engine.device.type == "cpu" else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def append_event(path: Path, event: Event) -> None:
    """One line of metrics.jsonl."""
    if isinstance(event, Note):
        line: dict[str, Any] = {"note": event.text}
    elif isinstance(event, Step):
        line = {"phase": event.phase, "step": event.step, "total": event.total} | event.values
    else:
        line = {"phase": event.phase, "seconds": round(event.seconds, 2)}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise disk_error(path, error) from error


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left below `folder`."""
    for path in folder.rglob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# ------------------------------------------------------------------------------------------------------- file formats


SET_TENSORS = ("images", "labels", "hard")
SET_HINT = "Make the set again: `ddtool generate RUN --ipc N --force`."


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


def whitening_fault(header: Header, info: dict[str, Any], image: Sequence[int]) -> str:
    """What is wrong with the whitening of images of a shape (c, h, w); empty when nothing is. Files of version 0.1 have none."""
    info.setdefault("whitening", None)
    return whitening.fault(info["whitening"], {name: shape for name, (_, shape) in header.items()}, image)


def restored_whitening(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> Whitening | None:
    """The whitening that a file holds; RunError when it cannot be inverted."""
    try:
        return Whitening.restored(info["whitening"], tensors) if info["whitening"] else None
    except DataError as error:
        raise RunError(f"{path} is refused. {error.message}", RESTORE) from error


def write_whitened(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """`write_tensors` of `info` with a whitening in it, which goes to tensors and a description."""
    found: Whitening | None = info["whitening"]
    described = info | {"whitening": None if found is None else found.description()}
    write_tensors(path, tensors | ({} if found is None else found.tensors()), described)


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


def write_tensors(path: Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """A safetensors file with `info` as JSON in its metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, lambda temporary: save_file(plain, temporary, metadata={"ddtool": json.dumps(info)}))


def read_tensors(
    path: Path, check: Callable[[Header, dict[str, Any]], None] | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and `info` of `write_tensors`; RunError when the file is missing or damaged.

    check: sees each tensor's type and shape, and `info`, before a tensor is read, and raises to refuse the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            info = json.loads((file.metadata() or {})["ddtool"])
            if not isinstance(info, dict):
                raise RunError(f"{path} is not a file of ddtool.", RESTORE)
            if check:
                slices = {name: file.get_slice(name) for name in list(file.keys())}
                check({name: (part.get_dtype(), tuple(part.get_shape())) for name, part in slices.items()}, info)
            tensors = {
                name: file.get_tensor(name).clone() for name in list(file.keys())
            }  # copies: Windows replaces no mapped file
    except FileNotFoundError:
        hint = f"The run is incomplete: `ddtool adapt --resume {run_above(path) or 'RUN'}` finishes it."
        raise RunError(f"{path} is missing.", hint) from None
    except (SafetensorError, OSError, ValueError, KeyError, RecursionError) as error:
        reason = "it says nothing about ddtool" if isinstance(error, KeyError) else error
        hint = f"Remove it, then `ddtool adapt --resume {run_above(path) or 'RUN'}` makes it again."
        raise RunError(f"{path} is damaged or not a file of ddtool: {reason}.", hint) from error
    return tensors, info


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
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda temporary: parquet.write_table(table.data.table, temporary, **options))


def read_parquet(path: Path, num_classes: int) -> tuple[Tensor, Tensor]:
    """Images uint8 (m, c, h, w) and labels of `write_parquet`; RunError when damaged or beyond every use.

    Read in small batches, each picture's size seen before it is decoded: a small file may claim to hold very much.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
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


def write_json(path: Path, value: Any) -> None:
    """A JSON file, whole or not at all."""
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place; a full disk is a RunError."""
    try:
        files.write_atomically(path, write)
    except (OSError, SafetensorError) as error:
        raise disk_error(path, error) from error


@contextlib.contextmanager
def staged_folder(target: Path, replacing: bool = False) -> Iterator[Path]:
    """A temporary folder whose files move to `target` when all of them are written, each replacing its like.

    replacing: nothing of an older `target` stays.
    """
    named, target = target, target.resolve()  # "." has no name; a link stays one
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        if replacing and target.exists():
            empty(target)
        if not target.exists():
            os.replace(temporary, target)
        else:
            for file in sorted(temporary.iterdir(), reverse=True):
                os.replace(file, target / file.name)
    except (OSError, SafetensorError) as error:
        raise disk_error(named, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def empty(folder: Path) -> None:
    """Remove what is in a folder, and not the folder: somebody may stand in it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def disk_error(path: Path, error: Exception) -> RunError:
    """A write that failed, explained. What was there before is untouched."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    folder = run_above(path)
    hint = f"Free some space, then go on: `ddtool adapt --resume {folder}`." if folder else "Free some space."
    if not full:
        hint = "Check the folder and its permissions."
    return RunError(f"Cannot write {path}: {'the disk is full' if full else error}.", hint)


def run_above(path: Path) -> str:
    """The run directory that a file is in, quoted for a shell; empty when it is in none."""
    return next((shlex.quote(str(folder)) for folder in path.parents if is_run(folder)), "")
