"""What a method is for the rest of the program, which never asks for its name: what it can do, and how a comparison shows it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One way in which a comparison runs a method: a row of its own in tables, a line of its own in plots."""

    name: str
    """As in `ddtool compare --methods`."""
    title: str
    """The title in tables: with authors and year where it is a method's own."""
    colour: str = ""
    """The colour of its line; empty: grey. Those of the methods here were searched for: they stay apart for eyes that miss one
    kind of cone, and each stands out from light and from dark paper."""
    marker: str = ""
    """The mark on its line, as matplotlib names it; empty: one that follows from the name."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of the method's own settings that make it this variant."""
    adapts_one_in: int = 1
    """With a generator: of a budget in steps one in so many adapts it, the others refine; 1: all adapt, nothing is refined."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a method can do, how its settings are called, and how it is shown."""

    name: str
    """As in `ddtool adapt --method`."""
    title: str
    """With its authors and year, for tables and cards."""
    paper: str = ""
    """Authors, conference and year, as in docs/methods.md; empty where there is none."""
    settings: type | None = None
    """The class of its own settings, the section 'baseline' of a configuration; None: they are sections of `RunConfig`."""
    sections: tuple[str, ...] = ("baseline",)
    """The settings of `RunConfig` that are for this method, and not for all."""
    quick_settings: Mapping[str, Any] = field(default_factory=dict)
    """Ours: values of its own settings (without a class of them: of `RunConfig`) that do well in minutes, where the published
    ones take hours; `ddtool compare` uses them unless told otherwise. Chosen in up to a minute of one CPU thread, on images held
    out of the train splits of CIFAR-10 and, for learning rates, FashionMNIST (docs/log.md)."""
    ours: bool = False
    """Whether it is this package's own: a comparison says how much sooner it is as accurate as each other method."""
    has_generator: bool = False
    """Whether it adapts a generator: a run leaves one beside its sets, and `ddtool generate` makes sets of other sizes."""
    learns: bool = True
    """Whether there are steps at all: a selection of real images is finished when it is made."""
    soft: bool = False
    """Whether labels are learned."""
    factor: int = 1
    """Each stored image holds factor x factor images of lower resolution, by its publication."""
    divided: bool = False
    """Whether several processes can share its steps (`runtime.team`): much of a step is a row-wise function."""
    min_lr_ratio: float = 1.0
    """Where the half cosine of the learning rate ends, as a share of its start; 1: constant."""
    own_protocol: str = ""
    """The protocol by which its authors score its sets, where that is another than the field's: a row beside that, never in its
    place."""
    unbudgeted: str = ""
    """What is made once, before a budget in seconds begins; empty: nothing."""
    stages: tuple[str, ...] = ("initial", "distilled")
    """The stages of a set, the finished one last; with a generator the last one is left out where nothing is refined."""
    colour: str = ""
    """Its colour in plots, where it has no variants; empty: grey."""
    marker: str = ""
    """Its mark in plots, likewise."""
    variants: tuple[Variant, ...] = ()
    """The ways in which a comparison runs it, where there are several."""

    @property
    def short_title(self) -> str:
        """The title without authors and year."""
        return self.title.partition(" (")[0]

    @property
    def takes_factor(self) -> bool:
        """Whether it can be told how many images a stored one holds: by a setting of its own, or by that of `RunConfig`."""
        own = fields(self.settings) if self.settings else ()
        return "factor" in self.sections or any(setting.name == "factor" for setting in own)

    def compared(self) -> tuple[Variant, ...]:
        """The ways in which a comparison runs it: its variants, or itself as the only one."""
        return self.variants or (Variant(name=self.name, title=self.title, colour=self.colour, marker=self.marker),)


class Registered:
    """What the registry holds: a class with a record."""

    record: ClassVar[Record]
