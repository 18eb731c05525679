"""`ddtool export`: sets in the forms that others read."""

from pathlib import Path
from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output


@handled
def command(
    run_or_set: Annotated[
        str, typer.Argument(metavar="RUN_OR_SET", help="A run, a set's folder, or a Hub repo[@revision].")
    ],
    out: Annotated[Path, typer.Option(help="Folder for what is written.")],
    format_: Annotated[str, typer.Option("--format", help="folder, npz, pt or webdataset.")] = "folder",
    ipc: Annotated[int | None, typer.Option(min=1, help="Which set. Default: all of them.")] = None,
    stage: Annotated[str | None, typer.Option(help="initial, generated or refined. Default: the final one.")] = None,
    force: o.Force = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write a set as PNGs by class, .npz, .pt or a WebDataset, for code that does not know ddtool.

    Example:

      ddtool export runs/cifar10 --ipc 10 --format pt --out exported
    """
    from ddtool import api

    with Output(json_, quiet) as output:
        paths = api.export(
            run_or_set, out, format=format_, ipc=ipc, stage=stage, force=force, report=output.listener
        )  # fmt: skip
        output.result({"format": format_, "paths": [str(path) for path in paths]}, "\n".join(map(str, paths)))
