"""What a run states about itself: the records of results.json and env.json, checked once where they are read.

A file may be of an earlier version, or of others. A field is added in one line, with a default for the files that lack it.
What is written again is what was read: fields that a file does not have stay out.
"""

import json
from typing import Annotated, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from ddtool.config import Values
from ddtool.evaluation.protocols import Score
from ddtool.events import Phase
from ddtool.text import one_line, parsed_json

MOST_DIGITS = 20
"""The most digits of a number in JSON: nothing is counted by more."""

NOTED_APART = {"source", "pulled", "target", "spent", "finished"}
"""Facts of a run that are said elsewhere, or are of the run and not of a set."""
T = TypeVar("T")


class Record(BaseModel):
    """Facts with types. Unknown fields are left out, values of other types refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """The record in a JSON text; ValueError, with the fault as its message, when it is refused."""
        try:
            parsed_json(text, parse_int=_whole)
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(cls.fault(error)) from error
        except ValueError as error:
            raise ValueError(f"it is not readable JSON ({type(error).__name__})") from error

    @classmethod
    def fault(cls, error: ValidationError) -> str:
        """The first fault of a refused record, as the end of a sentence."""
        first = error.errors(include_url=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            return "it is not readable JSON"
        if first["type"] == "value_error":
            return str(first["ctx"]["error"])
        where, said = ".".join(map(str, first["loc"])), first["msg"]
        return one_line(f"'{where}': {said[:1].lower()}{said[1:]}", 200)

    @classmethod
    def of(cls, values: object) -> Self:
        """The record of JSON values; ValueError when it is refused."""
        return cls.read(json.dumps(values))

    def but(self, **changes: object) -> Self:
        """The same record with other values."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def stated(self) -> Values:
        """The JSON values that were given, as they are written."""
        return self.model_dump(mode="json", exclude_unset=True)


def _whole(digits: str) -> int:
    """A whole number in JSON; ValueError for one that nothing is counted by."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def _or_none(value: object, check: ValidatorFunctionWrapHandler) -> object:
    try:
        return check(value)
    except ValidationError:
        return None


Perhaps = Annotated[T | None, WrapValidator(_or_none)]
"""A value of others that is None when it is of another type."""


class Spent(Record):
    """What a set took: steps, seconds in them, and seconds beside them."""

    steps: int
    step_seconds: float
    overhead_seconds: float = Field(validation_alias=AliasChoices("overhead_seconds", "outside_seconds"))


class ProbedPace(Record):
    """What a probe has measured: seconds of a step, and of all labels and trials together."""

    step_seconds: float
    before_seconds: float


class Environment(Record):
    """The machine that made a set."""

    ddtool: str | None = None
    python: str | None = None
    torch: str | None = None
    platform: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None
    graphs: bool = False
    """Whether the steps were captured in CUDA graphs; said only where they were."""
    compiled: bool = False
    """Whether the networks were compiled (torch.compile); said only where they were."""
    started: Perhaps[str] = Field(None, exclude=True)
    """Date and time; it is not written into what is shared."""
    pace: Perhaps[ProbedPace] = Field(None, exclude=True)
    """The pace that the probe measured, of this run alone; None where nothing was measured."""


class Noted(Record):
    """What was noted of the making of a run. What a method notes of its own is passed on unread."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    train_images: int | None = None
    flip: bool | None = Field(None, validation_alias=AliasChoices("flip", "mirror"))
    """Whether flipped images keep their class; `mirror` in files of version 0.1."""
    pool_ipc: int | None = None


class Notes(Noted):
    """What was noted of the making of a set."""

    spent: Spent | None = None


def _without_none(values: tuple[Score | None, ...]) -> tuple[Score, ...]:
    return tuple(value for value in values if value is not None)


Scores = Annotated[
    tuple[Annotated[Score, WrapValidator(_or_none), PlainSerializer(Score.to_dict)], ...], AfterValidator(_without_none)
]
"""Scores as `ddtool evaluate` writes them; those that are written otherwise are left out."""


class KnownTarget(Record):
    """What a run without a generator keeps of its target, to notice when it has changed."""

    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


class RunNotes(Noted):
    """The facts in a run's results.json."""

    spent: dict[str, Spent] = Field(default_factory=dict)
    """By set, as ipc10."""
    finished: bool = False
    pulled: str | None = None
    """The repo at its commit, where the run came from one."""
    pretraining_seconds: float | None = None
    """Seconds of pre-training of the generator that it began with."""
    peak_memory_mib: float | None = None
    factor: int | None = None
    """Images a side that each image of a set holds, where its method has more than one."""
    whitening: str = "none"
    """What networks see: none, or the kind of whitening."""
    target: KnownTarget | None = None
    """Where there is no generator, beside which it would be kept."""

    def of_set(self, ipc: int) -> Notes:
        """Those that are of one set, or of all."""
        own = {name: value for name, value in self.stated().items() if name not in NOTED_APART}
        own = {name: value for name, value in own.items() if Phase.parse(name).ipc in (None, ipc)}
        spent = self.spent.get(f"ipc{ipc}")
        return Notes.of(own | ({"spent": spent.stated()} if spent else {}))


class RunFacts(Record):
    """A run's results.json: scores, seconds by phase, and what was noted."""

    scores: Scores
    timings: dict[str, float]
    facts: RunNotes
