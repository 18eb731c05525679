"""What a repo of ddtool, or a run, states about itself: records that are parsed and checked once, where they enter.

A repo's ddtool.json comes from anybody. Here it becomes a `RepoFacts`, or a ValueError that says what is wrong; no other
file meets an unchecked value. A field is added in one line, with a default for the files of earlier versions. What is
written again is what was read: fields that a file does not have stay out.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from pydantic import (
    AfterValidator,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from ddtool.evaluation.measure import Score
from ddtool.events import Phase
from ddtool.hub.names import DATASET, MODEL, is_commit, is_repo, parse
from ddtool.methods import default
from ddtool.sources.origins import ALIASES
from ddtool.text import one_line

FORMAT = 1
Kind = Literal["adapted-generator", "meta-generator", "synthetic-dataset"]
ADAPTED: Final = "adapted-generator"
META: Final = "meta-generator"
SETS: Final = "synthetic-dataset"
KINDS: dict[str, tuple[Kind, ...]] = {MODEL: (ADAPTED, META), DATASET: (SETS,)}
"""What a repo of each kind may hold."""

WIDEST, MOST_CLASSES, MOST_IPCS, MOST_DIGITS = 4096, 100_000, 1000, 20
"""Bounds on what a description may hold: pixels a side, classes, sets, and digits of a number."""

NOTED_APART = {"source", "pulled", "target", "spent", "finished"}
"""Facts of a run that are said elsewhere, or are of the run and not of a set."""

PLAIN = re.compile(r"[\w-][\w .-]{0,199}")
"""A name that is no path."""

_METHOD = re.compile("[a-z][a-z0-9-]{0,30}")
T = TypeVar("T")


class Record(BaseModel):
    """Facts with types. Unknown fields are left out, values of other types refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False)

    @classmethod
    def read(cls, text: str | bytes) -> Self:
        """The record in a JSON text; ValueError, with the fault as its message, when it is refused."""
        try:
            json.loads(text, parse_int=_whole)
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(fault(error)) from error
        except (ValueError, RecursionError) as error:
            raise ValueError(f"it is not readable JSON ({type(error).__name__})") from error

    @classmethod
    def of(cls, values: object) -> Self:
        """The record of JSON values; ValueError when it is refused."""
        return cls.read(json.dumps(values))

    def but(self, **changes: object) -> Self:
        """The same record with other values."""
        return type(self)(**{name: getattr(self, name) for name in self.model_fields_set} | changes)

    def stated(self) -> dict[str, Any]:
        """The JSON values that were given, as they are written."""
        return self.model_dump(mode="json", exclude_unset=True)


def fault(error: ValidationError) -> str:
    """The first fault of a refused record, as the end of a sentence."""
    first = error.errors(include_url=False, include_input=False)[0]
    if first["type"] == "json_invalid":
        return "it is not readable JSON"
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])
    if first["loc"][:1] == ("sets",) and (first["loc"][-1] == "[key]" or len(first["loc"]) == 1):
        return "its sets are not named by their images per class"
    where, said = ".".join(map(str, first["loc"])), first["msg"]
    return one_line(f"'{where}': {said[:1].lower()}{said[1:]}", 200)


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

# ------------------------------------------------------------------------------------------------------ where data is from


class Source(Record):
    """Where data came from: a Hub dataset at a commit, or a name that says nothing about a place on a disk."""

    kind: Literal["hub", "local", "sample"]
    name: str
    id: str | None = None
    revision: str | None = None
    content_hash: str | None = None
    config: str | None = None
    converted: bool | None = None
    train_split: str | None = None
    test_split: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    resolution: int | None = None
    licence: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_things(cls, values: object) -> object:
        if not isinstance(values, Mapping) or values.keys() - cls.model_fields.keys():
            raise ValueError("its source is described by other things than ddtool does")
        if not all(value is None or type(value) in (str, int, bool) for value in values.values()):
            raise ValueError("its source has values of other types")
        return values

    @model_validator(mode="after")
    def _no_place(self) -> Self:
        if self.kind == "hub":
            ref = parse(self.id or "")
            named = self.id in (self.name, ALIASES.get(self.name))
            if ref is None or ref.revision or not named or not is_commit(self.revision):
                raise ValueError("its source names no dataset on the Hub")
        elif not PLAIN.fullmatch(self.name) or (self.kind == "sample" and self.name != "sample"):
            raise ValueError(f"its source '{self.name:.60}' is a path")
        return self


# ---------------------------------------------------------------------------------------------------------------- a set


class Spent(Record):
    """What a set took: steps, seconds in them, and seconds beside them."""

    steps: int
    step_seconds: float
    outside_seconds: float


class Environment(Record):
    """The machine that made a set."""

    ddtool: str | None = None
    python: str | None = None
    torch: str | None = None
    platform: str | None = None
    device: str | None = None
    precision: str | None = None
    threads: int | None = None


class Noted(Record):
    """What was noted of the making of a run. What a method notes of its own is passed on unread."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, JsonValue]

    train_images: int | None = None
    mirror: bool | None = None
    pool_ipc: int | None = None


class Notes(Noted):
    """What was noted of the making of a set."""

    spent: Spent | None = None


class Settings(Record):
    """What cards tell of a run's configuration, whatever version wrote it."""

    seconds: Perhaps[float] = None
    label_scale: Perhaps[float] = None
    adapt_steps: Perhaps[int] = Field(None, validation_alias=AliasPath("adapt", "steps"))
    refine_steps: Perhaps[int] = Field(None, validation_alias=AliasPath("refine", "steps"))
    fit_networks: Perhaps[int] = Field(None, validation_alias=AliasPath("fit", "networks"))
    init: Perhaps[str] = Field(None, validation_alias=AliasPath("baseline", "init"))


def _without_none(values: tuple[Score | None, ...]) -> tuple[Score, ...]:
    return tuple(value for value in values if value is not None)


Scores = Annotated[tuple[Annotated[Score, WrapValidator(_or_none)], ...], AfterValidator(_without_none)]
"""Scores as `ddtool evaluate` writes them; those that are written otherwise are left out."""


class SetFacts(Record):
    """One synthetic set: how it was made, on what, in what time, and how well networks trained on it do."""

    command: str = ""
    stage: str = ""
    labels: str = ""
    label_scale: float | None = None
    images: int | None = None
    factor: int = 1
    config: dict[str, JsonValue]
    """The resolved configuration, as it was written: read as a RunConfig only when a run is made of it."""
    env: Environment
    timings: dict[str, float]
    """Seconds by phase."""
    facts: Notes
    scores: Scores

    @property
    def settings(self) -> Settings:
        """What a card tells of the configuration."""
        return Settings.of(self.config)


# --------------------------------------------------------------------------------------------------------------- a repo


class MethodFacts(Record):
    """The method that made the sets, where it is another than the generator's."""

    name: str
    title: str = ""
    learns: bool = True


def _method(values: object) -> object:
    name = (
        values.name if isinstance(values, MethodFacts) else values.get("name") if isinstance(values, Mapping) else None
    )
    if not isinstance(name, str) or not _METHOD.fullmatch(name):
        raise ValueError("its method is not named as ddtool does")
    return values


def _repo(name: object, field: ValidationInfo) -> object:
    if name is not None and not is_repo(name):
        raise ValueError(f"'{field.field_name}' is not a repo")
    return name


def _format(number: object) -> object:
    if number != FORMAT:
        raise ValueError(f"it is not of format {FORMAT}")
    return number


def _shape(shape: object) -> object:
    sound = (
        isinstance(shape, list | tuple) and len(shape) == 3 and all(type(n) is int and 1 <= n <= WIDEST for n in shape)
    )
    if shape is not None and not sound:
        raise ValueError(f"images of shape {shape!r:.60} are none")
    return tuple(shape) if isinstance(shape, list) else shape


Ipc = Annotated[int, Field(ge=1, lt=10**6)]
Repo = Annotated[str | None, BeforeValidator(_repo)]


class RepoFacts(Record):
    """What a repo states in its ddtool.json; its card is made of this alone."""

    format: Annotated[int, BeforeValidator(_format)]
    kind: Kind
    ddtool: str = ""
    """The version that wrote it."""
    repo: Repo = None
    model_repo: Repo = None
    """The repo of the generator, beside a dataset repo."""
    dataset_repo: Repo = None
    """The repo of the sets, beside a generator's."""
    source: Source | None = None
    class_names: Annotated[tuple[str, ...], Field(max_length=MOST_CLASSES)] = ()
    shape: Annotated[tuple[int, int, int] | None, BeforeValidator(_shape)] = None
    generator: str | None = None
    """Where the adaptation began: bundled, scratch, a repo at a commit, or the name of a folder."""
    parameters: int | None = None
    pool: int = 0
    """Real images in the repo, or shown on its card."""
    method: Annotated[MethodFacts | None, BeforeValidator(_method)] = None
    """Absent where a generator made the sets."""
    sets: Annotated[dict[Ipc, SetFacts], Field(max_length=MOST_IPCS)]
    """By images per class."""
    pretraining: JsonValue = None
    """What a meta generator says of its own making, as it was written."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.kind == META:
            if self.sets:
                raise ValueError("a meta generator has no sets")
        elif not self.sets:
            raise ValueError("it names no set")
        elif not self.class_names:
            raise ValueError("its class names are no list of names")
        elif self.shape is None:
            raise ValueError("images of shape None are none")
        elif self.source is None:
            raise ValueError("its source is not described")
        return self

    @property
    def ipcs(self) -> list[int]:
        """The images per class of the sets."""
        return sorted(self.sets)

    @property
    def made_by(self) -> str:
        """The name of the method that made the sets."""
        return self.maker.name

    @property
    def maker(self) -> MethodFacts:
        """The method that made the sets: the default one, where the facts name no other."""
        usual = default()
        return self.method or MethodFacts(name=usual.name, title=usual.short_title, learns=usual.learns)

    def written(self) -> bytes:
        """The content of ddtool.json: the same facts give the same bytes."""
        return (json.dumps(self.stated(), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_repo(text: bytes, repo_kind: str) -> RepoFacts:
    """The facts in a ddtool.json of a repo of that kind; ValueError for what is refused."""
    facts = RepoFacts.read(text)
    if facts.kind not in KINDS[repo_kind]:
        raise ValueError(f"a {repo_kind} repo does not hold '{facts.kind}'")
    return facts


# ---------------------------------------------------------------------------------------------------------------- a run


class RunNotes(Noted):
    """The facts in a run's results.json."""

    spent: dict[str, Spent] = Field(default_factory=dict)
    finished: bool = False
    pulled: str | None = None

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
