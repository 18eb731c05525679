"""What a person sees while work goes on: bars on a terminal or in a notebook, plain lines elsewhere."""

import contextlib
import sys
import textwrap
import time
from collections.abc import Iterator
from importlib.util import find_spec

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from ddtool.events import Done, Event, Note, Report, Step, silent
from ddtool.runs import words
from ddtool.text import duration, printable

APART = 2.0
"""Seconds between two lines of a phase at least: a phase that is soon over has one, and the line of its end."""


class Progress:
    """A listener that shows events: `with Progress(console) as progress: work(report=progress.listener)`.

    On a terminal, and in a notebook with ipywidgets, each phase has a bar with its rate and the time left. Elsewhere, a dumb
    terminal included, a line is written for every tenth of a phase that takes long. Phases are called by the words in `runs.words`.
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bars: Bars | None = None
        self._tasks: dict[str, TaskID] = {}
        self._written: dict[str, tuple[int, float]] = {}
        self._began: dict[str, tuple[int, float]] = {}
        self._last: dict[str, int] = {}
        self._noted: set[str] = set()
        self._classes: int | None = None

    def __enter__(self) -> "Progress":
        if self.console.is_interactive or (self.console.is_jupyter and find_spec("ipywidgets")):
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[values]}", markup=False),
            )
            self._bars = Bars(*columns, console=self.console, transient=True)
            self._bars.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._bars:
            self._bars.stop()
            self._bars = None

    def listener(self, event: Event) -> None:
        """Show an event."""
        if isinstance(event, Note):
            self._note(event)
        elif isinstance(event, Done):
            self._finish(event)
        elif self._bars:
            self._advance(event)
        else:
            self._line(event)

    def say(self, text: str) -> None:
        """A line for people; a terminal breaks it between words, and keeps a long path whole."""
        lines = printable(text, keep="\n\t").split("\n")
        if self.console.is_terminal:
            wrap = textwrap.TextWrapper(self.console.width, break_long_words=False, break_on_hyphens=False)
            lines = [wrap.fill(line) for line in lines]
        self.console.print(escape("\n".join(lines)), soft_wrap=True)

    def _note(self, event: Note) -> None:
        """Each note once, though a dataset is opened several times."""
        self._classes = event.classes or self._classes
        if event.text not in self._noted:
            self._noted.add(event.text)
            self.say(event.text)

    def _advance(self, event: Step) -> None:
        assert self._bars is not None
        if event.phase not in self._tasks:
            self._clear()
            self._tasks[event.phase] = self._bars.add_task(
                self._words(event.phase), total=event.total, rate="", values=""
            )
        rate = self._rate(event)
        self._bars.update(
            self._tasks[event.phase],
            completed=event.step,
            total=event.total,
            values=_in_words(event.values),
            rate=f"{rate:.1f}/s" if rate else "",
        )

    def _clear(self) -> None:
        """Take away the bars of phases that are through and of whose end nobody has told, such as decoding."""
        assert self._bars is not None
        through = {task.id for task in self._bars.tasks if task.finished}
        for phase in [phase for phase, task in self._tasks.items() if task in through]:
            self._bars.remove_task(self._tasks.pop(phase))

    def _line(self, event: Step) -> None:
        now, tenth = time.perf_counter(), event.step * 10 // max(1, event.total)
        rate = self._rate(event)
        before, at = self._written.get(event.phase, (-1, now - APART))
        if tenth == before or now - at < APART:
            return
        self._written[event.phase] = tenth, now
        pace = f"{rate:.1f}/s  {duration((event.total - event.step) / rate)} left" if rate else ""
        self.say(f"{self._words(event.phase)}  {event.step}/{event.total}  {pace}  {_in_words(event.values)}".rstrip())

    def _rate(self, event: Step) -> float:
        """Steps a second since the phase was first heard of, or began anew; 0 while that cannot be told."""
        if event.step < self._last.get(event.phase, event.step):
            self._began.pop(event.phase, None)
        self._last[event.phase] = event.step
        first, since = self._began.setdefault(event.phase, (event.step, time.perf_counter()))
        elapsed = time.perf_counter() - since
        return (event.step - first) / elapsed if event.step > first and elapsed > 0 else 0.0

    def _finish(self, event: Done) -> None:
        self._began.pop(event.phase, None)
        if self._bars and event.phase in self._tasks:
            self._bars.remove_task(self._tasks.pop(event.phase))
        self.say(f"{self._words(event.phase)}: {event.seconds:.1f} s")

    def _words(self, phase: str) -> str:
        """A phase as the beginning of a line."""
        text = words.phase(phase, self._classes)
        return text[:1].upper() + text[1:]


@contextlib.contextmanager
def shown(report: Report | None, progress: bool | None) -> Iterator[Report]:
    """The listener of a call of the API: `report` where one is given, else progress on stderr where a person can see it.

    progress: False says nothing, True shows it in any case, None where stderr is a terminal or the caller is a notebook.
    """
    console = Console(stderr=True, highlight=False, emoji=False)
    if report is not None or progress is False or not (progress or console.is_jupyter or sys.stderr.isatty()):
        yield report or silent
        return
    with Progress(console) as bars:
        yield bars.listener


def _in_words(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4f}" for name, value in values.items())
