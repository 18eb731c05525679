"""What a loop tells the world while it works. Bars, logs and trackers are listeners; a loop never prints."""

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Phase:
    """A part of a run's work. Its text, in metrics.jsonl and timings, is the kind and, of one set, the IPC: 'refine ipc10'."""

    kind: str
    ipc: int | None = None
    part: str = ""
    """Which part of it, as 'net 1/3'."""

    @classmethod
    def parse(cls, text: str) -> "Phase":
        """The phase of a text, which may also be another name of a figure that is of one set; any text is one."""
        found = re.fullmatch(r"(.*?) ipc([1-9][0-9]{0,5})(?: (.*))?", text, re.DOTALL)
        return cls(found[1], int(found[2]), found[3] or "") if found else cls(text)

    def __str__(self) -> str:
        return self.kind if self.ipc is None else f"{self.kind} ipc{self.ipc}{self.part and f' {self.part}'}"

    @property
    def file_name(self) -> str:
        """The text as a part of a file's name."""
        return str(self).replace(" ", "-")


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
    classes: int | None = None
    """How many classes the target has, where the line is about that: a listener can count images by it."""


Event = Step | Done | Note
Report = Callable[[Event], None]


def silent(event: Event) -> None:
    """The listener that ignores everything."""
