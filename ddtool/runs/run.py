"""The run directory, from its creation to its scores. Every file appears whole or not at all.

config.json  env.json  metrics.jsonl  results.json  preview.png  report.html
generator/          config.json, model.safetensors: the adapted generator; labels.safetensors: θ and W_θ of Eq. 3
pool/train.parquet  the initial samples Z (real images), image-major
synthetic/ipcN/     train.parquet (image, label, soft_label), exact.safetensors (float images and labels)
stages/             earlier stages of each set, in the exact format: ipcN-initial, ipcN-generated
curve/              with --curve: what the set is at doubling steps of each phase
checkpoints/        what an unfinished phase needs to go on
"""

import json
import math
import platform
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from pydantic import JsonValue
from torch import Tensor

from ddtool.config import RunConfig, Values, from_dict, to_dict
from ddtool.config.layers import as_begun
from ddtool.config.presets import Pace
from ddtool.data.images import ImageData, Source, SyntheticSet
from ddtool.data.whitening import Whitening
from ddtool.errors import RunError, UsageError, did_you_mean
from ddtool.evaluation.protocols import Score, ScoreKey
from ddtool.events import Done, Event
from ddtool.models.generator import Generator
from ddtool.runs import files, formats
from ddtool.runs.facts import Environment, RunFacts, Spent
from ddtool.runs.files import RESTORE, write_atomically
from ddtool.runs.foreign import check_free
from ddtool.runtime.engine import Engine
from ddtool.runtime.files import held
from ddtool.sources.decode import Broken
from ddtool.text import parsed_json, shell
from ddtool.version import __version__

STAGES = ("initial", "generated", "refined", "distilled")
"""What a set of a run may be at, first to last."""
NOWHERE: Source = {}
"""The source of data that nobody described."""


def check_stage(stage: str | None) -> None:
    """UsageError for a stage that does not exist."""
    if stage is not None and stage not in STAGES:
        raise UsageError(f"Unknown stage '{stage}'.", did_you_mean(stage, STAGES))


class Results(TypedDict):
    """The content of results.json, as it is written."""

    scores: list[Values]
    timings: dict[str, float]
    facts: Values


class Run:
    """One run directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def __repr__(self) -> str:
        return f"<Run {self.folder}: sets of IPC {', '.join(map(str, self.ipcs())) or 'none'}>"

    def _repr_png_(self) -> bytes | None:
        """What a notebook shows: the picture of the run, once there is one."""
        return (self.folder / files.PREVIEW).read_bytes() if self.has(files.PREVIEW) else None

    # ------------------------------------------------------------------------------------------------ life of a run

    @classmethod
    def create(
        cls, folder: Path, config: RunConfig, engine: Engine, force: bool = False, source: Source = NOWHERE
    ) -> "Run":
        """A new run on data from `source`; RunError when the folder is taken, unless `force` says to replace a run (and only a
        run), and always while another process works there."""
        folder = Path(folder)
        check_free(folder, force)
        if files.is_run(folder):
            with cls(folder).at_work():
                shutil.rmtree(folder)
        with files.staged_folder(folder) as temporary:
            run = cls(temporary)
            run.write_json(files.CONFIG, to_dict(config))
            version = {name: source[name] for name in ("content_hash", "revision") if source.get(name)}
            run.write_json(files.ENVIRONMENT, environment(engine) | {"data": version})
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> "Run":
        """An existing run; RunError when there is none."""
        folder = Path(folder).expanduser()
        if not files.is_run(folder):
            raise RunError(f"No run of ddtool at {folder}.", "Make one with `ddtool adapt DATASET --ipc 10 --out DIR`.")
        return cls(folder)

    def config(self) -> RunConfig:
        """The resolved configuration it was started with."""
        try:
            return from_dict(RunConfig, as_begun(self.read_json(files.CONFIG)))
        except UsageError as error:
            hint = error.hint or "Undo the change to the file, or start a new run."
            raise RunError(f"{self.folder / 'config.json'}: {error.message}", hint) from error

    def content_hash(self) -> str | None:
        """The hash of the local data that it was made from; None for data of the Hub, or where an earlier version kept none."""
        version = self.read_json(files.ENVIRONMENT).get("data")
        if isinstance(version, dict):
            known = version.get("content_hash")
        else:
            known = self.load_label_head().source.get("content_hash") if self.has(files.LABELS) else None
        return known if isinstance(known, str) else None

    def save_pace(self, pace: Pace) -> None:
        """What a probe has measured on the machine of the run, for the estimates in its overview."""
        known = {"step_seconds": round(pace.step, 5), "before_seconds": round(pace.before, 2)}
        self.write_json(files.ENVIRONMENT, self.read_json(files.ENVIRONMENT) | {"pace": known})

    def move_data(self, place: str) -> None:
        """Have the run find its data, the same data, at another place."""
        config, results = self.config(), self.results()
        moved = [score | {"dataset": place} for score in results["scores"] if score.get("dataset") == config.dataset]
        others = [score for score in results["scores"] if score.get("dataset") != config.dataset]
        if moved:
            self.write_json(files.RESULTS, results | {"scores": others + moved})
        self.write_json(files.CONFIG, to_dict(replace(config, dataset=place)))

    # ------------------------------------------------------------------------------------------------------- results

    def results(self) -> Results:
        """Scores, timings and facts so far, as JSON values; RunError when the file is damaged."""
        if not self.has(files.RESULTS):
            return {"scores": [], "timings": {}, "facts": {}}
        results = self.read_json(files.RESULTS)
        parts = {"scores": list, "timings": dict, "facts": dict}
        if not all(isinstance(results.get(k), t) for k, t in parts.items()):
            raise self.damaged(files.RESULTS, "scores, timings and facts are expected")
        if not all(isinstance(score, dict) for score in results["scores"]):
            raise self.damaged(files.RESULTS, "one of its scores is none")
        return cast(Results, results)

    def noted(self) -> RunFacts:
        """The same as a record, every value checked; RunError when the file is damaged."""
        try:
            return RunFacts.of(self.results())
        except ValueError as error:
            raise self.damaged(files.RESULTS, str(error)) from error

    def environment(self) -> Environment:
        """What it ran on; RunError when the file is damaged."""
        try:
            return Environment.of(self.read_json(files.ENVIRONMENT))
        except ValueError as error:
            raise self.damaged(files.ENVIRONMENT, str(error)) from error

    def record(self, **facts: JsonValue) -> None:
        """Add facts by name, each replacing one of the same name."""
        results = self.results()
        results["facts"] |= facts
        self.write_json(files.RESULTS, results)

    def record_score(self, score: Score) -> None:
        """Add a score, replacing one of the same measurement."""
        results = self.results()
        kept = [s for s in results["scores"] if ScoreKey.of(s) != score.key]
        results["scores"] = [*kept, score.to_dict()]
        self.write_json(files.RESULTS, results)

    def record_seconds(self, phase: str, seconds: float) -> None:
        """Add what a phase took, replacing what it took before."""
        results = self.results()
        results["timings"][phase] = seconds
        self.write_json(files.RESULTS, results)

    def record_spent(self, ipc: int, steps: int, step_seconds: float, overhead_seconds: float) -> None:
        """What a set took: steps, seconds in them, and seconds of overhead."""
        spent = Spent(steps=steps, step_seconds=round(step_seconds, 2), overhead_seconds=round(overhead_seconds, 2))
        known = {name: before.stated() for name, before in self.noted().facts.spent.items()}
        self.record(spent={**known, f"ipc{ipc}": spent.stated()})

    def steps(self) -> dict[str, int]:
        """The last step that each phase has reported."""
        return {phase: step for phase, step, _ in self._reported()}

    def losses(self) -> dict[str, dict[int, float]]:
        """The loss that each phase has reported, by step; what was reported twice, before and after a pause, once."""
        out: dict[str, dict[int, float]] = {}
        for phase, step, values in self._reported():
            loss = values.get("loss")
            if isinstance(loss, float) and math.isfinite(loss):
                out.setdefault(phase, {})[step] = loss
        return {phase: dict(sorted(losses.items())) for phase, losses in out.items()}

    def _reported(self) -> Iterator[tuple[str, int, Values]]:
        """Phase, step and values of each step in metrics.jsonl; lines that say none are passed over."""
        for event in files.events(self.folder / files.METRICS):
            phase, step = event.get("phase"), event.get("step")
            if isinstance(phase, str) and isinstance(step, int):
                yield phase, step, event

    def drop_scores(self, ipc: int) -> None:
        """Forget the scores of a set that is replaced; those of random real images stay true."""
        results = self.results()
        results["scores"] = [s for s in results["scores"] if s.get("ipc") != ipc or s.get("stage") == "random"]
        self.write_json(files.RESULTS, results)

    def log(self, event: Event) -> None:
        """Append an event to metrics.jsonl. A phase that ends again has begun anew, or counts all its sittings."""
        files.append_event(self.folder / files.METRICS, event)
        if isinstance(event, Done):
            self.record_seconds(event.phase, round(event.seconds, 2))

    # ----------------------------------------------------------------------------------------------------- artefacts

    def has(self, name: str) -> bool:
        """Whether an artefact (a path below the run) is there."""
        return (self.folder / name).exists()

    def save_generator(self, generator: Generator) -> None:
        with files.staged_folder(self.folder / files.GENERATOR) as folder:
            generator.save(folder)

    def has_generator(self) -> bool:
        return self.has("generator/config.json")

    def load_generator(self) -> Generator:
        return Generator.load(self.folder / files.GENERATOR)

    def save_label_head(self, head: formats.LabelHead) -> None:
        """θ (the fixed network's weights) and W_θ of Eq. 3, with what is needed to use them."""
        formats.write_label_head(self.folder / files.LABELS, head)

    def load_label_head(self) -> formats.LabelHead:
        """What `save_label_head` kept; RunError when anything is missing."""
        return formats.read_label_head(self.folder / files.LABELS)

    def save_whitening(self, whitening: Whitening | None) -> None:
        """What networks see of the target, until the sets that hold it are made."""
        if whitening is not None:
            formats.write_whitening(self.folder / files.WHITENING, whitening)

    def load_whitening(self) -> Whitening | None:
        """What `save_whitening` kept, or else a finished set holds; RunError when the run whitens and neither is there."""
        if self.has(files.WHITENING):
            return formats.read_whitening(self.folder / files.WHITENING)
        if self.ipcs():
            return self.load_set(self.ipcs()[0]).whitening
        if self.noted().facts.whitening != "none":
            raise RunError(
                f"{self.folder / files.WHITENING} is missing.", "Start the run again: `ddtool adapt … --force`."
            )
        return None

    def save_pool(self, data: ImageData, indices: Tensor) -> None:
        """Z: the chosen real images as parquet."""
        images, labels = data.at(indices).cpu(), data.labels[indices].cpu()
        formats.write_parquet(self.folder / files.POOL, images, labels, None, data.class_names)

    def load_pool(self, class_names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Z: uint8 images (m, c, h, w) and labels (m,), image-major."""
        return formats.read_parquet(self.folder / files.POOL, len(class_names))

    def set_path(self, ipc: int, stage: str | None = None) -> Path:
        """Where the exact tensors of a set are: the final one, or an earlier stage."""
        if stage is None or (stage not in ("initial", "generated")):
            return self.folder / "synthetic" / f"ipc{ipc}" / files.EXACT
        return self.folder / files.STAGES / f"ipc{ipc}-{stage}.safetensors"

    def ipcs(self) -> list[int]:
        """The images per class of the finished sets."""
        return files.ipcs_in(self.folder / "synthetic")

    def save_stage(self, synthetic: SyntheticSet) -> None:
        """An earlier stage of a set, in the exact format only."""
        formats.write_set(self.set_path(synthetic.ipc, synthetic.stage), synthetic)

    def save_final(self, synthetic: SyntheticSet, force: bool = False) -> Path:
        """A finished set: parquet that `datasets` reads, and the exact tensors. Returns its folder."""
        target = self.set_path(synthetic.ipc).parent
        if self.set_path(synthetic.ipc).exists() and not force:
            raise RunError(f"{target} exists already.", "Replace it with --force.")
        formats.write_set_folder(target, synthetic)
        return target

    def load_set(self, ipc: int, stage: str | None = None) -> SyntheticSet:
        """A set of this run; RunError when it was not made, UsageError for a stage that does not exist."""
        check_stage(stage)
        path = self.set_path(ipc, stage)
        found = formats.read_set(path) if path.exists() else None
        if found is None or stage not in (None, found.stage):
            there = ", ".join(map(str, self.ipcs())) or "none"
            hint = f"Sets there: {there}."
            if self.has_generator():
                hint += f" Make it with `{shell('ddtool generate', self.folder, f'--ipc {ipc}')}`."
            if found or (stage and self.set_path(ipc).exists()):
                final = found or formats.read_set(self.set_path(ipc))
                hint = f"That set is there as it was {final.stage}; leave --stage out."
            raise RunError(f"{self.folder} has no synthetic set of ipc {ipc}{f' ({stage})' if stage else ''}.", hint)
        return found

    # --------------------------------------------------------------------------------------------------- checkpoints

    def saver(self, phase: str) -> formats.FileSaver:
        """Keeps the checkpoint of one phase of this run."""
        return formats.FileSaver(self.folder / "checkpoints" / f"{phase}.safetensors")

    def drop_checkpoints(self) -> None:
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)

    def at_work(self) -> AbstractContextManager[object]:
        """Keep other processes from working on the run meanwhile, or from replacing it; RunError while one works here."""
        message = f"Another process is at work on the run {self.folder}."
        return held(self.folder, RunError(message, "Wait until it has ended, or stop it."))

    def sweep(self) -> None:
        """Remove the temporary files that a killed process left behind."""
        files.sweep(self.folder)

    def read_json(self, name: str) -> Any:
        """The JSON object in a file of the run; RunError when the file is damaged."""
        try:
            values = parsed_json((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise self.damaged(name, str(error)) from error
        if not isinstance(values, dict):
            raise self.damaged(name, "it is no JSON object")
        return values

    def damaged(self, name: str, reason: str) -> RunError:
        """The explanation for a JSON file of the run that cannot be used."""
        hint = f"Remove it; `{shell('ddtool adapt --resume', self.folder)}` measures the scores again."
        return RunError(f"{self.folder / name} is damaged: {reason}.", hint if name == files.RESULTS else RESTORE)

    def save_broken(self, images: Sequence[Broken]) -> None:
        """The broken images of the dataset that were set aside, one a line in skipped.jsonl; no file when there are none."""
        if images:
            lines = "".join(json.dumps(image) + "\n" for image in images)
            path = self.folder / "skipped.jsonl"
            write_atomically(path, lambda temporary: temporary.write_text(lines, "utf-8"))

    def write_json(self, name: str, value: Any) -> None:
        files.write_json(self.folder / name, value)


def environment(engine: Engine) -> dict[str, str | int]:
    """Versions, device and time: what a reader needs to judge the numbers."""
    return {
        "ddtool": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "device": engine.describe(),
        "precision": "bf16" if engine.bf16 else "fp32",
        **({"threads": torch.get_num_threads()} if engine.device.type == "cpu" else {}),
        **({"graphs": True} if engine.graphs else {}),
        **({"compiled": True} if engine.compile_networks else {}),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
