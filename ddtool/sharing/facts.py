"""What a repo of ddtool, or a run, states about itself: records that are parsed and checked once, where they enter.

A repo's ddtool.json comes from anybody. Here it becomes a `RepoFacts`, or a ValueError that says what is wrong; no other
file meets an unchecked value. A field is added in one line, with a default for the files of earlier versions. What is
written again is what was read: fields that a file does not have stay out.
"""

import json
import re
from collections.abc import Mapping
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AliasPath,
    BeforeValidator,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from ddtool import methods
from ddtool.config import Factor
from ddtool.hub.names import DATASET, MODEL, is_commit, is_repo, parse
from ddtool.runs.facts import Environment, Notes, Perhaps, Record, Scores
from ddtool.sources.names import ALIASES

FORMAT = 1
Kind = Literal["adapted-generator", "meta-generator", "synthetic-dataset"]
ADAPTED: Final = "adapted-generator"
META: Final = "meta-generator"
SETS: Final = "synthetic-dataset"
KINDS: dict[str, tuple[Kind, ...]] = {MODEL: (ADAPTED, META), DATASET: (SETS,)}
"""What a repo of each kind may hold."""

WIDEST, MOST_CLASSES, MOST_IPCS = 4096, 100_000, 1000
"""Bounds on what a description may hold: pixels a side, classes and sets."""

PLAIN = re.compile(r"[\w-][\w .-]{0,199}")
"""A name that is no path."""

_METHOD = re.compile("[a-z][a-z0-9-]{0,30}")


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
    no_splits: bool | None = None
    class_level: int | None = None
    multi_label: str | None = None
    skip_broken: float | None = None
    background: str | None = None
    max_megapixels: float | None = None
    max_per_class: int | None = None
    test_fraction: float | None = None
    seed: int | None = None
    licence: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _known_things(cls, values: object) -> object:
        if not isinstance(values, Mapping) or values.keys() - cls.model_fields.keys():
            raise ValueError("its source is described by other things than ddtool does")
        if not all(value is None or type(value) in (str, int, float, bool) for value in values.values()):
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


class Settings(Record):
    """What cards tell of a run's configuration, whatever version wrote it."""

    seconds: Perhaps[float] = None
    label_scale: Perhaps[float] = None
    adapt_steps: Perhaps[int] = Field(None, validation_alias=AliasPath("adapt", "steps"))
    refine_steps: Perhaps[int] = Field(None, validation_alias=AliasPath("refine", "steps"))
    fit_networks: Perhaps[int] = Field(None, validation_alias=AliasPath("fit", "networks"))
    init: Perhaps[str] = Field(None, validation_alias=AliasPath("baseline", "init"))


class SetFacts(Record):
    """One synthetic set: how it was made, on what, in what time, and how well networks trained on it do."""

    command: str = ""
    stage: str = ""
    labels: str = ""
    label_scale: float | None = None
    images: int | None = None
    factor: Factor = 1
    whitening: Literal["dct", "zca"] | None = None
    """How networks are to see it, standardised apart."""
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
    """The method that made the sets."""

    name: str
    title: str = ""
    learns: bool = True
    has_generator: bool = False
    """Absent in files of earlier versions, which named methods without a generator alone."""

    @classmethod
    def of_record(cls, method: methods.Record) -> Self:
        """What is published of a method."""
        if method.has_generator:
            return cls(name=method.name, title=method.short_title, learns=method.learns, has_generator=True)
        return cls(name=method.name, title=method.title, learns=method.learns)


def _method(values: object) -> object:
    name = (
        values.name if isinstance(values, MethodFacts) else values.get("name") if isinstance(values, Mapping) else None
    )
    if not isinstance(name, str) or not _METHOD.fullmatch(name):
        raise ValueError("its method is not named as ddtool does")
    return values


def _usual_method() -> MethodFacts:
    return MethodFacts.of_record(methods.default())


def _repo(name: object, field: ValidationInfo) -> object:
    if name is not None and not is_repo(name):
        raise ValueError(f"'{field.field_name}' is not a repo")
    return name


def format_of(number: object) -> object:
    """The format of a ddtool.json; ValueError for another than ours."""
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


class CardFacts(Record):
    """What ddtool has written into a README.md, by hashes: its text, and each key of the metadata."""

    part: str
    metadata: dict[str, str]


Ipc = Annotated[int, Field(ge=1, lt=10**6)]
Repo = Annotated[str | None, BeforeValidator(_repo)]


class LicenceFacts(Record):
    """Under which terms something is that the files of a repo were made with."""

    what: str
    """What it is called."""
    licence: str | None = None
    """As it is stated; None when none is."""
    repo: Repo = None
    """Where to read it."""
    kind: Literal["model", "dataset"] = "model"
    """What that repo is."""


class RepoFacts(Record):
    """What a repo states in its ddtool.json; its card is made of this alone."""

    format: Annotated[int, BeforeValidator(format_of)]
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
    generator_licence: LicenceFacts | None = None
    """The terms of the weights that the adaptation began with."""
    parameters: int | None = None
    pool: int = 0
    """Real images in the repo, or shown on its card."""
    method: Annotated[MethodFacts, BeforeValidator(_method)] = Field(default_factory=_usual_method)
    """What made the sets; a file of an earlier version that names none is of the default method."""
    sets: Annotated[dict[Ipc, SetFacts], Field(max_length=MOST_IPCS)]
    """By images per class."""
    pretraining: JsonValue = None
    """What a meta generator says of its own making, as it was written."""
    card: CardFacts | None = None
    """What ddtool has written into the README.md; absent in files of version 0.1."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        needed = {
            "it names no set": self.sets,
            "its class names are no list of names": self.class_names,
            "images of shape None are none": self.shape,
            "its source is not described": self.source,
        }
        faults = [fault for fault, there in needed.items() if not there]
        if self.kind == META:
            faults = ["a meta generator has no sets"] if self.sets else []
        if faults:
            raise ValueError(faults[0])
        return self

    @classmethod
    def fault(cls, error: ValidationError) -> str:
        """The first fault, sets that are named by something else in plain words."""
        where = error.errors(include_url=False, include_input=False)[0]["loc"]
        if where[:1] == ("sets",) and (where[-1] == "[key]" or len(where) == 1):
            return "its sets are not named by their images per class"
        return super().fault(error)

    @property
    def ipcs(self) -> list[int]:
        """The images per class of the sets."""
        return sorted(self.sets)

    @property
    def made_by(self) -> str:
        """The name of the method that made the sets."""
        return self.method.name

    @property
    def provenance(self) -> tuple[str | None, ...]:
        """Which data, at which state, the facts are about, and the method."""
        assert self.source is not None
        source = self.source
        return source.kind, source.id, source.config, source.revision, source.content_hash, self.made_by

    def written(self) -> bytes:
        """The content of ddtool.json: the same facts give the same bytes."""
        return (json.dumps(self.stated(), indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def read_repo(text: bytes, repo_kind: str) -> RepoFacts:
    """The facts in a ddtool.json of a repo of that kind; ValueError for what is refused."""
    facts = RepoFacts.read(text)
    if facts.kind not in KINDS[repo_kind]:
        raise ValueError(f"a {repo_kind} repo does not hold '{facts.kind}'")
    return facts
