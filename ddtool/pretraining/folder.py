"""The directory of a pre-training: the one place that knows its file names.

config.json  env.json  metrics.jsonl
checkpoints/pretrain.safetensors  the state after the last whole iteration that was kept; it stays when all is done
generator/                        config.json, model.safetensors: the best by validation; pretraining.json: how it was made
pictures/iteration-000100.png     held-out images above what the generator makes of them, before and after adaptation
"""

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, TypedDict, cast

from pydantic import Field, ValidationError

from ddtool.config import PretrainConfig, Values, from_dict, to_dict
from ddtool.config.layers import as_begun
from ddtool.errors import RunError, UsageError
from ddtool.events import Event
from ddtool.pretraining.tasks import LargeSet
from ddtool.runs.facts import Record
from ddtool.runs.files import (
    METRICS,
    append_event,
    events,
    is_pretraining,
    staged_folder,
    write_atomically,
    write_json,
)
from ddtool.runs.foreign import check_taken
from ddtool.runs.formats import FileSaver
from ddtool.runs.run import environment
from ddtool.runtime.distributed import Ranks
from ddtool.runtime.engine import Engine
from ddtool.runtime.loop import Checkpoint
from ddtool.text import parsed_json

Figure = Literal["loss before", "loss after", "accuracy", "seconds"]
FIGURES: tuple[Figure, ...] = ("loss before", "loss after", "accuracy", "seconds")
"""Figures of a validation: Eq. 1 on held-out classes before and after τ steps, kernel-ridge accuracy in percent, time so far."""
Point = TypedDict(
    "Point", {"iteration": int, "loss before": float, "loss after": float, "accuracy": float, "seconds": float}
)
"""One validation: the iteration and `FIGURES`."""
PHASES = ("pretrain", "validate")
RESTORE = "Restore the file, or start a new pre-training."


class _Validated(Record):
    """The line of metrics.jsonl that a validation leaves."""

    phase: Literal["validate"]
    step: int
    before: float = Field(validation_alias="loss before")
    after: float = Field(validation_alias="loss after")
    accuracy: float
    seconds: float

    @property
    def point(self) -> Point:
        """The same as a point of the curve."""
        return {
            "iteration": self.step,
            "loss before": self.before,
            "loss after": self.after,
            "accuracy": self.accuracy,
            "seconds": self.seconds,
        }


class Pretraining:
    """One folder of `ddtool pretrain`."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    @classmethod
    def create(
        cls, folder: Path, config: PretrainConfig, engine: Engine, sets: Sequence[LargeSet], force: bool = False
    ) -> "Pretraining":
        """A new one; RunError when the folder is taken, unless `force` says to replace a pre-training (and only that)."""
        check_free(folder, force)
        if is_pretraining(folder):
            shutil.rmtree(folder)
        with staged_folder(folder) as temporary:
            write_json(temporary / "config.json", to_dict(config))
            write_json(temporary / "env.json", environment(engine) | {"datasets": [describe(s) for s in sets]})
        return cls(folder)

    @classmethod
    def open(cls, folder: Path) -> "Pretraining":
        """An existing one; RunError when there is none."""
        if not is_pretraining(Path(folder)):
            hint = "Start one with `ddtool pretrain DATASET --out DIR`."
            raise RunError(f"No pre-training of ddtool at {folder}.", hint)
        return cls(folder)

    def config(self) -> PretrainConfig:
        """The resolved configuration it was started with."""
        try:
            return from_dict(PretrainConfig, as_begun(self._read("config.json")))
        except UsageError as error:
            raise RunError(f"{self.folder / 'config.json'}: {error.message}", error.hint or RESTORE) from error

    def check_same_data(self, sets: Sequence[LargeSet]) -> None:
        """RunError when a dataset is not the one that the pre-training was started with."""
        if self._read("env.json").get("datasets") != [describe(large) for large in sets]:
            hint = "Bring the old data back, or start a new pre-training (--revision COMMIT holds a Hub dataset fast)."
            raise RunError(f"The datasets have changed since {self.folder} was started.", hint)

    def rewind(self, step: int) -> None:
        """Forget what metrics.jsonl says of iterations after `step`, and a line that a kill left torn."""
        path = self.folder / METRICS
        kept = [line for line in self._lines() if line.get("phase") not in PHASES or _step(line) <= step]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def curve(self) -> list[Point]:
        """The validations so far; a line that is none is passed over."""
        lines = []
        for line in self._lines():
            with contextlib.suppress(ValidationError):
                lines.append(_Validated.model_validate(line))
        return [line.point for line in lines]

    def log(self, event: Event) -> None:
        append_event(self.folder / METRICS, event)

    @property
    def generator(self) -> Path:
        """The generator's folder."""
        return self.folder / "generator"

    def _lines(self) -> list[Values]:
        return events(self.folder / METRICS)

    def _read(self, name: str) -> Values:
        try:
            return dict(parsed_json((self.folder / name).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{self.folder / name} is damaged: {error}.", RESTORE) from error


class RankSaver(FileSaver):
    """The checkpoint that rank 0 writes and every process reads: they must share the file system."""

    def __init__(self, path: Path, ranks: Ranks) -> None:
        super().__init__(path)
        self.ranks = ranks

    def load(self) -> Checkpoint | None:
        try:
            return super().load()
        except RunError as error:
            hint = f"Restore {self.path}, or remove it to begin at the first iteration again."
            raise RunError(error.message, hint) from error

    def save(self, checkpoint: Checkpoint) -> None:
        if self.ranks.main:
            super().save(checkpoint)


def check_free(folder: Path, force: bool) -> None:
    """RunError when a new pre-training cannot be made at `folder`; `force` allows one there, which will be replaced."""
    check_taken(folder, force, is_pretraining(folder), "pre-training", "ddtool pretrain")


def _step(line: Values) -> int:
    """The step that a line of metrics.jsonl is of; 0 of one that is of none."""
    step = line.get("step", 0)
    return step if isinstance(step, int) else 0


def describe(large: LargeSet) -> Values:
    """What a dataset is, without saying where it lies on this machine."""
    source = large.data.source
    known = cast(Values, source)
    return {
        "name": source.get("id") or Path(source.get("name", "dataset")).name,
        **{key: known[key] for key in ("revision", "content_hash", "config", "train_split") if known.get(key)},
        "images": len(large.data),
        "image": list(large.data.shape),
        "classes": large.data.num_classes,
        "held_out": [large.data.class_names[c] for c in large.held],
        "licence": source.get("licence"),
    }
