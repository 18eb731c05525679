"""One sink for all commands: progress and talk on stderr, the result on stdout (for people, as JSON, or just a path)."""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from ddtool.cli.errors import harmless
from ddtool.events import Done, Event, Note, Step

if TYPE_CHECKING:
    from ddtool.evaluation.protocols import Score


class Output:
    """What a command says. `listener` takes the library's events."""

    def __init__(self, json_: bool, quiet: bool) -> None:
        self.json, self.quiet = json_, quiet
        self.err = Console(stderr=True, highlight=False, emoji=False)
        self.out = Console(highlight=False, emoji=False)
        self._progress: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, tuple[int, float]] = {}
        self._noted: set[str] = set()

    def __enter__(self) -> "Output":
        if self.err.is_terminal and not self.quiet:
            columns = (
                TextColumn("{task.description:<28}", markup=False),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}", markup=False),
                TimeRemainingColumn(compact=True),
                TextColumn("{task.fields[values]}", markup=False),
            )
            self._progress = Progress(*columns, console=self.err, transient=True)
            self._progress.start()
        return self

    def __exit__(self, *unused: object) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None

    def listener(self, event: Event) -> None:
        """Show an event: a bar in a terminal, else a line every tenth of a phase."""
        if self.quiet:
            return
        if isinstance(event, Note):
            self._note(event)
        elif isinstance(event, Done):
            self._finish(event)
        elif self._progress:
            self._advance(event)
        else:
            self._line(event)

    def say(self, text: str) -> None:
        """A line for people, on stderr; nothing with --quiet."""
        if not self.quiet:
            self.err.print(escape(harmless(text)), soft_wrap=True)

    def next_step(self, command: str) -> None:
        """The command one would run next."""
        if not self.quiet:
            self.err.print(f"[dim]Next:[/] {escape(command)}", soft_wrap=True)

    def result(self, data: Mapping[str, object], short: str, tables: Sequence[Table] = ()) -> None:
        """The result: one JSON object, one short line (a path), or tables."""
        self.__exit__()
        if self.json:
            sys.stdout.write(json.dumps(data) + "\n")
        elif self.quiet or not tables:
            sys.stdout.write(short + "\n")
        else:
            for table in tables:
                self.out.print(table)
        sys.stdout.flush()

    def text(self, text: str) -> None:
        """A longer text that is part of the result, as it is."""
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

    def _note(self, event: Note) -> None:
        """Each note once, though a dataset is opened several times."""
        if event.text not in self._noted:
            self._noted.add(event.text)
            self.say(event.text)

    def _advance(self, event: Step) -> None:
        assert self._progress is not None
        if event.phase not in self._tasks:
            self._tasks[event.phase] = self._progress.add_task(event.phase, total=event.total, rate="", values="")
            self._said[event.phase] = (event.step, time.perf_counter())
        values = "  ".join(f"{name} {value:.4f}" for name, value in event.values.items())
        rate = self._rate(event)
        self._progress.update(
            self._tasks[event.phase], completed=event.step, total=event.total, values=values, rate=rate
        )

    def _rate(self, event: Step) -> str:
        first, since = self._said[event.phase]
        elapsed = time.perf_counter() - since
        return f"{(event.step - first) / elapsed:.1f}/s" if event.step > first and elapsed > 0 else ""

    def _line(self, event: Step) -> None:
        self._said.setdefault(event.phase, (event.step, time.perf_counter()))
        tenth = f"{event.phase}/{event.step * 10 // event.total}"
        if tenth in self._tasks:
            return
        self._tasks[tenth] = TaskID(0)
        values = "  ".join(f"{name} {value:.4f}" for name, value in event.values.items())
        self.say(f"{event.phase}  {event.step}/{event.total}  {self._rate(event)}  {values}".rstrip())

    def _finish(self, event: Done) -> None:
        if self._progress and event.phase in self._tasks:
            self._progress.remove_task(self._tasks.pop(event.phase))
        self.say(f"{event.phase}: {event.seconds:.1f} s")


def score_table(scores: "Sequence[Score]") -> Table:
    """Scores as a table, in percent of the test split. Networks stand below it, or in a column where a protocol has several."""
    pairs = sorted({(s.protocol, s.arch) for s in scores})
    several = len(pairs) > len({protocol for protocol, _ in pairs})
    networks = "" if several else harmless("; ".join(f"{protocol}: {arch}" for protocol, arch in pairs))
    table = Table(title="test accuracy", title_justify="left", caption=escape(networks) or None, caption_justify="left")
    for name in ("IPC", "images", "protocol", *["network"] * several, "accuracy", "seeds", "seconds"):
        words = name in ("images", "protocol", "network")
        table.add_column(name, justify="left" if words else "right", no_wrap=name not in ("network", "seconds"))
    for s in sorted(scores, key=lambda s: (s.ipc, s.protocol, s.arch, s.mean)):
        spread = f" ± {s.std:.1f}" if s.seeds > 1 else ""
        row = (str(s.ipc), images_of(s), s.protocol, *[s.arch] * several, f"{s.mean:.1f}{spread}")
        table.add_row(*(escape(harmless(cell)) for cell in row), str(s.seeds), f"{s.seconds:.0f}")
    return table


def images_of(score: "Score") -> str:
    """What images a score is of, and how they were used where that is not as usual."""
    names = {"random": "random real", "generated": "generator alone", "distilled": score.method}
    images = names.get(score.stage, score.stage)
    images += ", not rounded" * (score.pixels == "exact" and score.stage != "random")
    return images + ", not whitened" * (score.inputs == "not whitened")
