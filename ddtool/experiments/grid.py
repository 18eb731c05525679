"""What a comparison is asked for: methods, sizes, seeds and budgets, and the jobs that follow from them.

A job is one method at one IPC, budget and seed: a `ddtool adapt` in a process and a run directory of its own, so that its
seconds, its peak memory and its failures are its own.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import ConfigDict, Field, JsonValue

from ddtool.config import MGDD_SETTINGS, merged
from ddtool.errors import UsageError, did_you_mean
from ddtool.methods import METHODS

MGDD = {"mgdd-generator": "MGDD, generator alone", "mgdd": "MGDD, refined"}
"""The two entries of MGDD with their titles. Of the refined one's steps a fifth adapt the generator."""
MGDD_SHORT: "Values" = {"labels": {"images": 4000}, "fit": {"networks": 8}}
"""What `Method.short` is for the other methods: less work before and around the steps, which leaves time for them."""
NO_MORE_KEYS = ConfigDict(extra="forbid")
Values = dict[str, JsonValue]
"""Settings or options by name, as JSON has them."""
Count = Annotated[int, Field(ge=1)]


def known_methods() -> list[str]:
    """Every name that `--methods` takes, in the order of the tables."""
    return [*METHODS, *MGDD]


def find_methods(names: Sequence[str]) -> list[str]:
    """The methods of names, which may be lists with commas, or 'all'; UsageError for one that there is not."""
    words = [word.strip() for name in names for word in name.split(",") if word.strip()]
    for word in words:
        if word not in ("all", *known_methods()):
            raise UsageError(f"Unknown method '{word}'.", did_you_mean(word, ["all", *known_methods()]))
    if not words:
        raise UsageError("No method was asked for.", "Name some, or --methods all.")
    return [name for name in known_methods() if name in words or "all" in words]


def adapt_method(method: str) -> str:
    """The `ddtool adapt --method` of a method here."""
    return "mgdd" if method in MGDD else method


@dataclass(frozen=True)
class Request:
    """What all jobs of a comparison share; a folder holds the jobs of one request."""

    __pydantic_config__: ClassVar = NO_MORE_KEYS

    dataset: str
    """Alias, Hub id, path, or 'sample'."""
    protocol: str = "quick"
    """How every set is scored."""
    networks: Count = 1
    """Fresh networks a job."""
    published: bool = False
    """Leave every method its published settings; otherwise all distil with MGDD's network (32-64-128), by `Method.short`."""
    generator: str = "bundled"
    """Meta generator of the MGDD jobs."""
    preset: str = "auto"
    """Defaults by device."""
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

    def settings_for(self, method: str) -> Values:
        """Values of `RunConfig` for the jobs of a method: `baseline` is not for MGDD's, and MGDD's sections for them alone."""
        others = ("baseline",) if method in MGDD else MGDD_SETTINGS
        given = {name: value for name, value in self.settings.items() if name not in others}
        everybody = merged({} if self.published else quick_settings(method), given)
        return merged(everybody, self.own.get(method, {}))


def quick_settings(method: str) -> Values:
    """Settings of a method that suit minutes, with the network that all methods have in common."""
    if method in MGDD:
        return MGDD_SHORT
    return {"baseline": {"pyramid": True} | (METHODS[method].short if method in METHODS else {})}


@dataclass(frozen=True)
class Job:
    """One method at one IPC, budget and seed. The budget is steps or seconds; a selection of real images has neither."""

    __pydantic_config__: ClassVar = NO_MORE_KEYS

    method: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    """One of `known_methods()`, or one that another version knows."""
    ipc: Count
    steps: Count | None
    seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None
    seed: Annotated[int, Field(ge=0)]

    @property
    def budget(self) -> str:
        """The budget in words; empty for a selection."""
        if self.seconds is not None:
            return f"{plain(self.seconds)} s"
        return "" if self.steps is None else f"{self.steps} step{'s' if self.steps != 1 else ''}"

    @property
    def name(self) -> str:
        """The name of its folder."""
        return "-".join(filter(None, [self.method, f"ipc{self.ipc}", self.budget.replace(" ", ""), f"seed{self.seed}"]))

    @property
    def words(self) -> str:
        """The job in words."""
        return ", ".join(filter(None, [self.method, f"IPC {self.ipc}", self.budget, f"seed {self.seed}"]))


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
        for count, clock in (budgets if method in MGDD or METHODS[method].learns else [(None, None)])
    ]
