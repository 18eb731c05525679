"""One sink for all commands: progress and talk on stderr, the result on stdout (for people, as JSON, or just a path)."""

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, JustifyMethod
from rich.markup import escape
from rich.table import Table

from ddtool.cli.errors import harmless

if TYPE_CHECKING:
    from ddtool.evaluation.protocols import Score
    from ddtool.events import Event


class Output:
    """What a command says. `listener` takes the library's events."""

    def __init__(self, json_: bool, quiet: bool) -> None:
        self.json, self.quiet = json_, quiet
        self.err = Console(stderr=True, highlight=False, emoji=False)
        self.out = Console(highlight=False, emoji=False)
        from ddtool.reports.progress import Progress  # not for `ddtool -h`, which shows none

        self.progress = Progress(self.err)

    def __enter__(self) -> "Output":
        if not self.quiet:
            self.progress.__enter__()
        return self

    def __exit__(self, *unused: object) -> None:
        self.progress.__exit__()

    def listener(self, event: "Event") -> None:
        """Show an event; nothing with --quiet."""
        if not self.quiet:
            self.progress.listener(event)

    def say(self, text: str) -> None:
        """A line for people, on stderr; nothing with --quiet."""
        if not self.quiet:
            self.progress.say(text)

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


def score_table(scores: "Sequence[Score]") -> Table:
    """Scores as a table, in percent of the test split. Networks stand below it, or in a column where a protocol has several."""
    pairs = sorted({(s.protocol_text, s.arch) for s in scores})
    several = len(pairs) > len({protocol for protocol, _ in pairs})
    networks = "" if several else harmless("; ".join(f"{protocol}: {arch}" for protocol, arch in pairs))
    table = Table(title="test accuracy", title_justify="left", caption=escape(networks) or None, caption_justify="left")
    for name in ("IPC", "images", "protocol", *["network"] * several, "accuracy", "seeds", "seconds"):
        justify: JustifyMethod = "left" if name in ("images", "protocol", "network") else "right"
        # Where the terminal is narrow, only words go on in the next line: no figure and no name of a network is cut off.
        table.add_column(name, justify=justify, no_wrap=name not in ("images", "network"), overflow="fold")
    for s in sorted(scores, key=lambda s: (s.ipc, s.protocol_text, s.arch, s.mean)):
        spread = f" ± {s.std:.1f}" if s.seeds > 1 else ""
        row = (str(s.ipc), images_of(s), s.protocol_text, *[s.arch] * several, f"{s.mean:.1f}{spread}")
        table.add_row(*(escape(harmless(cell)) for cell in row), str(s.seeds), f"{s.seconds:.0f}")
    return table


def images_of(score: "Score") -> str:
    """What images a score is of, in words short enough for a terminal."""
    from ddtool.runs.words import unusual

    names = {
        "random": "random real",
        "generated": "generator alone",
        "full": "whole training set",
        "distilled": score.method,
    }
    return names.get(score.stage, score.stage) + unusual(score)
