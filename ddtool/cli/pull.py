"""`ddtool pull`: from the Hub into a folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output


@handled
def command(
    repo: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME[@REVISION]", help="A repo of `ddtool push`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder. Default runs/NAME, generators/NAME or sets/NAME, by what it is.")
    ] = None,
    with_sets: Annotated[
        bool,
        typer.Option(
            "--with-sets", help="Into a run, also the sets of the dataset repo that it names, and their scores."
        ),
    ] = False,
    force: o.Force = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Pull an adapted generator (as a run), a meta generator or synthetic sets from the Hub. Everything is checked.

    Example:

      ddtool pull NAMESPACE/NAME --out runs/pulled
    """
    from ddtool import api

    with Output(json_, quiet) as output:
        pulled = api.pulled(repo, out=out, with_sets=with_sets, force=force, report=output.listener)
        output.result(asdict(pulled) | {"path": str(pulled.path)}, str(pulled.path))
        output.next_step(o.next_with(pulled.kind, pulled.path))
