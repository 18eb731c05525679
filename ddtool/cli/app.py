"""The `ddtool` command: one short file for each subcommand beside this one."""

from typing import Annotated

import typer

import ddtool
from ddtool.cli import (
    adapt,
    cache,
    compare,
    env,
    evaluate,
    export,
    generate,
    import_,
    info,
    pretrain,
    pull,
    push,
    report,
    sweep,
)
from ddtool.cli.errors import Commands

app = typer.Typer(
    name="ddtool",
    cls=Commands,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
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


app.command("adapt")(adapt.command)
app.command("pretrain")(pretrain.command)
app.command("generate")(generate.command)
app.command("evaluate")(evaluate.command)
app.command("compare")(compare.command)
app.command("report")(report.command)
app.command("sweep")(sweep.command)
app.command("import")(import_.command)
app.command("export")(export.command)
app.command("push")(push.command)
app.command("pull")(pull.command)
app.command("info")(info.command)
app.command("cache")(cache.command)
app.command("env")(env.command)
