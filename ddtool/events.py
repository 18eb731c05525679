"""What a loop tells the world while it works. Bars, logs and trackers are listeners; a loop never prints."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """Progress of a phase: `step` of `total` are done; `values` are the latest figures by name."""

    phase: str
    step: int
    total: int
    values: dict[str, float]


@dataclass(frozen=True)
class Done:
    """A phase ended after `seconds` of wall clock."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class Note:
    """One line worth saying: a choice that was made for the user, or a fact they should know."""

    text: str


Event = Step | Done | Note
Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that ignores everything."""
