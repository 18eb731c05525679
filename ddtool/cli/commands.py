"""The registry of commands, each imported when it is used: the list of them needs one line of each and loads none."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from ddtool.cli import words
from ddtool.cli.errors import EXIT_USAGE, REFUSED, refuse, tell

HELP = {"help_option_names": ["-h", "--help"]}
"""Both names of help, for the group and for each command."""

REGISTRY = {
    "adapt": (
        "ddtool.cli.adapt",
        "Adapt a meta generator to a dataset; generate, refine and score a synthetic set for each IPC.",
    ),
    "pretrain": (
        "ddtool.cli.pretrain",
        "Pre-train a meta generator on large datasets, by first-order MAML over tasks of random classes.",
    ),
    "generate": (
        "ddtool.cli.generate",
        "Generate a synthetic set of any IPC from an adapted run: one pass, no steps. A Hub repo is pulled first.",
    ),
    "evaluate": (
        "ddtool.cli.evaluate",
        "Train fresh networks on a synthetic set and test them, beside as many random real images.",
    ),
    "compare": (
        "ddtool.cli.compare",
        "Run MGDD and the methods of the field at the same budget, network and evaluation; render the comparison.",
    ),
    "report": (
        "ddtool.cli.report",
        "Write one HTML page that needs nothing beside it: the images with their soft labels, scores, curves and settings.",
    ),
    "sweep": (
        "ddtool.cli.sweep",
        "Generate and score sets of seen and unseen sizes; the table and the curve go into the run as sweep.md and sweep.svg.",
    ),
    "curve": (
        "ddtool.cli.curve",
        "Score a run of `ddtool adapt --curve` along its steps; the table and the curve go into the run as curve.md and curve.svg.",
    ),
    "import": (
        "ddtool.cli.import_",
        "Bring the published sets of other methods here, un-normalised and with what was assumed written beside them.",
    ),
    "export": (
        "ddtool.cli.export",
        "Write a set as PNGs by class, .npz, .pt or a WebDataset, for code that does not know ddtool.",
    ),
    "push": (
        "ddtool.cli.push",
        "Push a run to two Hub repos, generator and synthetic sets, one commit each. Pushing again adds what is new.",
    ),
    "pull": (
        "ddtool.cli.pull",
        "Pull an adapted generator (as a run), a meta generator or synthetic sets from the Hub. Everything is checked.",
    ),
    "info": (
        "ddtool.cli.info",
        "Describe a run, a set, a comparison, a generator, a repo of `ddtool push`, or a dataset.",
    ),
    "cache": (
        "ddtool.cli.cache",
        "List what is cached (decoded datasets, experts, what was seen of the Hub) with sizes and last use; remove what is old.",
    ),
    "env": ("ddtool.cli.env", "Show versions, device and caches."),
}
"""Name → the module whose `command` it is, and the first line of its help, which a test compares with the function's own."""

LAUNCHED = ("adapt", "pretrain", "compare", "info", "env")
"""Those that a launcher may start in several processes: they share the work, or only say something."""


def check_launched(name: str, as_json: bool) -> None:
    """Refuse a command that a launcher has started in several processes, each of which would do all of it and write the same files.

    WORLD_SIZE alone is no sign of a launcher: the scripts of a cluster set it, too.
    """
    place = [os.environ.get(variable, "") for variable in ("RANK", "WORLD_SIZE", "MASTER_ADDR")]
    if name in LAUNCHED or not all(place) or place[1] == "1":
        return
    if place[0] == "0":  # one of them says it
        said = f"`ddtool {name}` is for one process, and a launcher has started {place[1]}."
        tell(
            said, "Start it without torchrun or accelerate launch (or unset RANK, WORLD_SIZE and MASTER_ADDR).", as_json
        )
    raise typer.Exit(EXIT_USAGE)


def function(name: str) -> Callable:
    """The function of a command."""
    return import_module(REGISTRY[name][0]).command


class Loaded(Mapping[str, Any]):
    """The commands by name; each is imported and its options are read when it is first asked for."""

    def __init__(self) -> None:
        self._parsers: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._parsers:
            alone = typer.Typer(add_completion=False, rich_markup_mode="rich", context_settings=HELP)
            alone.command(name)(function(name))
            self._parsers[name] = typer.main.get_command(alone)
        return self._parsers[name]

    def __contains__(self, name: object) -> bool:
        return name in REGISTRY

    def __iter__(self) -> Iterator[str]:
        return iter(REGISTRY)

    def __len__(self) -> int:
        return len(REGISTRY)


class Commands(TyperGroup):
    """The command group, which explains what the parser refuses as every other error is explained."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options | {"commands": Loaded()})

    def list_commands(self, ctx: Any) -> list[str]:
        """The names alone, in their order."""
        return list(REGISTRY)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the group and one line for each command, none of which is imported for it."""
        lines: dict[str, Any] = {name: TyperCommand(name, help=summary) for name, (_, summary) in REGISTRY.items()}
        shown = TyperGroup(
            name=self.name, commands=lines, params=self.params, help=self.help, rich_markup_mode=self.rich_markup_mode
        )
        shown.format_help(ctx, formatter)

    def main(self, *args: Any, **options: Any) -> Any:
        main: Any = super().main
        if not options.pop("standalone_mode", True):
            return main(*args, standalone_mode=False, **options)
        try:
            code = main(*args, standalone_mode=False, **options)  # raises what is wrong, returns the exit code
        except REFUSED as error:
            typed = options.get("args") or (args[0] if args else None) or sys.argv[1:]
            refuse(error, as_json="--json" in typed)
            code = EXIT_USAGE
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The subcommand and its words, options of earlier versions by their present names, lists of numbers one by one."""
        name, command, given = super().resolve_command(ctx, args)
        check_launched(name or "", "--json" in given)
        present = words.present(name or "", list(given), lambda note: typer.echo(f"Note: {note}", err=True))
        return name, command, words.one_by_one(present, words.repeated(command))
