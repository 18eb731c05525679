"""What a comparison is asked for: methods, sizes, seeds and budgets, and the jobs that follow from them.

A job is one method at one IPC, budget and seed: a `ddtool adapt` in a process and a run directory of its own, so that its
seconds, its peak memory and its failures are its own.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PlainSerializer

from ddtool.config import Values, merged
from ddtool.config.layers import leaves
from ddtool.errors import UsageError, did_you_mean
from ddtool.evaluation.protocols import once_each, protocols_in
from ddtool.methods import METHODS, Record, Variant
from ddtool.models.registry import DEFAULT

USUAL = "quick,dsa-ce"
"""The protocols of a comparison that names none. MGDD and FRePo learn labels for squared error and networks without norm layers,
which is how quick trains; the others learn images for cross-entropy and instance norm, as dsa-ce trains. By one of them alone, one
side would be judged by the other's rules."""
NO_MORE_KEYS = ConfigDict(extra="forbid")
Count = Annotated[int, Field(ge=1)]


@dataclass(frozen=True)
class Entry:
    """What a name of `--methods` stands for: a method, in one of its variants."""

    method: Record
    variant: Variant


def entries() -> dict[str, Entry]:
    """What every name stands for that `--methods` takes, in the order of the tables."""
    return {v.name: Entry(kind.record, v) for kind in METHODS.values() for v in kind.record.compared()}


def entry_of(name: str) -> Entry:
    """What a name stands for; of a name that another version knows, a method that can do nothing special."""
    unknown = Record(name=name, title=name)
    return entries().get(name) or Entry(unknown, unknown.compared()[0])


def known_methods() -> list[str]:
    """Every name that `--methods` takes, in the order of the tables."""
    return list(entries())


def find_methods(names: Sequence[str]) -> list[str]:
    """The methods of names, which may be lists with commas, or 'all'; UsageError for one that there is not."""
    words = [word.strip() for name in names for word in name.split(",") if word.strip()]
    for word in words:
        if word not in ("all", *known_methods()):
            raise UsageError(f"Unknown method '{word}'.", did_you_mean(word, ["all", *known_methods()], listed=True))
    if not words:
        raise UsageError("No method was asked for.", "Name some, or --methods all.")
    return [name for name in known_methods() if name in words or "all" in words]


@dataclass(frozen=True)
class Budget:
    """How much a job may take. Its text is the one of tables and results: '100 steps', '1 step', '2.5 s'."""

    unit: Literal["steps", "seconds"]
    amount: float

    @classmethod
    def parse(cls, text: str) -> "Budget | None":
        """The budget of a text; None for an empty one. ValueError for any other."""
        found = re.fullmatch(r"([0-9]+) steps?|([0-9.e+-]+) s", text)
        if text and not found:
            raise ValueError(f"'{text:.40}' is no budget")
        return found and (cls("steps", int(found[1])) if found[1] else cls("seconds", float(found[2])))

    def __str__(self) -> str:
        if self.unit == "seconds":
            return f"{plain(self.amount)} s"
        return f"{self.amount} step{'s' if self.amount != 1 else ''}"


def _budget(value: Any) -> Any:
    return Budget.parse(value) if isinstance(value, str) else value


MaybeBudget = Annotated[
    Budget | None, BeforeValidator(_budget), PlainSerializer(lambda budget: str(budget or ""), return_type=str)
]
"""A budget, or None for a selection of real images; text in JSON."""


@dataclass(frozen=True)
class Request:
    """What all jobs of a comparison share; a folder holds the jobs of one request."""

    __pydantic_config__: ClassVar = NO_MORE_KEYS

    dataset: str
    """Alias, Hub id, path, or 'sample'."""
    protocol: Annotated[str, AfterValidator(once_each)] = USUAL
    """How every set is scored; several with commas, each once."""
    networks: Count = 1
    """Fresh networks a job."""
    published: bool = False
    """Leave every method its published settings; otherwise all distil with MGDD's network (32-64-128), by their quick settings."""
    generator: str = "bundled"
    """Meta generator of the jobs that adapt one."""
    preset: str = "auto"
    """Defaults of all jobs."""
    precision: str = "auto"
    """bf16 or fp32."""
    compiled: bool = False
    """Whether networks are compiled."""
    data: Values = field(default_factory=dict)
    """Options of the data source that were given."""
    settings: Values = field(default_factory=dict)
    """Values of `RunConfig` for all jobs."""
    own: dict[str, Values] = field(default_factory=dict)
    """Values of `RunConfig` for the jobs of one method, by its name."""

    def by_protocol(self) -> "list[Request]":
        """The request with each of its protocols alone, in their order."""
        return [replace(self, protocol=name) for name in protocols_in(self.protocol)]

    @property
    def arch(self) -> str:
        """The network that every set is scored by."""
        return str(dict(leaves(self.settings)).get("evaluate.arch", DEFAULT))

    def settings_for(self, method: str) -> Values:
        """Values of `RunConfig` for the jobs of a method: sections that are of other methods alone are left out."""
        own = entry_of(method).method.sections
        others = {name for kind in METHODS.values() for name in kind.record.sections if name not in own}
        given = {name: value for name, value in self.settings.items() if name not in others}
        everybody = merged({} if self.published else quick_settings(method), given)
        variant = entry_of(method).variant.settings
        return merged(merged(everybody, {"baseline": dict(variant)} if variant else {}), self.own.get(method, {}))

    def factor_for(self, method: str) -> int:
        """How many images a side each stored image of a method's sets holds."""
        given, usual = dict(leaves(self.settings_for(method))), entry_of(method).method.factor
        asked = given.get("factor", given.get("baseline.factor"))
        return asked if isinstance(asked, int) else usual


def quick_settings(method: str) -> Values:
    """Settings of a method that suit minutes, with the network that all methods have in common."""
    record = entry_of(method).method
    quick = dict(record.quick_settings)
    return quick if record.has_generator else {"baseline": {"doubling_widths": True} | quick}


@dataclass(frozen=True)
class Job:
    """One method at one IPC, budget and seed. The budget is steps or seconds; a selection of real images has neither."""

    __pydantic_config__: ClassVar = NO_MORE_KEYS

    method: Annotated[str, Field(pattern=r"^[a-z][a-z0-9+-]*$")]
    """One of `known_methods()`, or one that another version knows."""
    ipc: Count
    steps: Count | None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    seed: Annotated[int, Field(ge=0)]

    @property
    def budget(self) -> Budget | None:
        """Its budget; None for a selection."""
        if self.seconds is not None:
            return Budget("seconds", self.seconds)
        return None if self.steps is None else Budget("steps", self.steps)

    @property
    def name(self) -> str:
        """The name of its folder."""
        budget = str(self.budget or "").replace(" ", "")
        return "-".join(filter(None, [self.method, f"ipc{self.ipc}", budget, f"seed{self.seed}"]))

    @property
    def words(self) -> str:
        """The job in words."""
        return ", ".join(filter(None, [self.method, f"IPC {self.ipc}", str(self.budget or ""), f"seed {self.seed}"]))


@dataclass(frozen=True)
class Grid:
    """All that a comparison was asked for so far."""

    request: Request
    jobs: tuple[Job, ...]
    shared: bool
    """Whether jobs have run beside each other on one device."""


def plain(number: float) -> str:
    """A number without a point that says nothing."""
    return str(number).removesuffix(".0")


def jobs_of(
    methods: Sequence[str], ipcs: Sequence[int], steps: Sequence[int], seconds: Sequence[float], seeds: int
) -> list[Job]:
    """The jobs of a command, the first seed of everything first; UsageError unless the budgets are of one kind."""
    if steps and seconds:
        raise UsageError("The budget is in steps or in seconds, not both.", "Two commands into one --out make both.")
    budgets = [(n, None) for n in sorted(set(steps))] + [(None, float(s)) for s in sorted(set(seconds))]
    return [
        Job(method, ipc, count, clock, seed)
        for seed in range(seeds)
        for ipc in sorted(set(ipcs))
        for method in methods
        for count, clock in (budgets if entry_of(method).method.learns else [(None, None)])
    ]
