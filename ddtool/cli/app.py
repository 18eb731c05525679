"""The `ddtool` command: one short file for each subcommand beside this one, listed in commands.py."""

from typing import Annotated

import typer

import ddtool
from ddtool.cli.commands import HELP, Commands

app = typer.Typer(
    name="ddtool",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings=HELP,
    help="Make a tiny synthetic dataset that trains networks far better than as many real images do.\n\n"
    "A first try, offline, on the bundled data: [bold]ddtool adapt sample --ipc 10[/]",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"ddtool {ddtool.__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""
