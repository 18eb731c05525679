"""`ddtool generate`: any other IPC from an adapted run, without adapting again."""

from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output


@handled
def command(
    run: o.RunFolder,
    ipc: Annotated[list[int], typer.Option(help="Images per class; repeat for several sets.")],
    force: o.Force = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Generate a synthetic set of any IPC from an adapted run: one pass, offline, nothing optimised.

    Example:

      ddtool generate runs/cifar10 --ipc 20
    """
    from ddtool import pipeline
    from ddtool.api import recorded
    from ddtool.cli.machine import engine_for
    from ddtool.runs import Run

    with Output(json_, quiet) as output:
        engine = engine_for(device, precision, False, None, output)
        opened = Run.open(run)
        listener = recorded(opened, output.listener)
        folders = [pipeline.generate(opened, n, engine, force=force, report=listener) for n in ipc]
        data = {"run": str(run), "sets": {str(n): str(folder) for n, folder in zip(ipc, folders, strict=True)}}
        output.result(data, "\n".join(map(str, folders)))
        output.next_step(o.shell("ddtool evaluate", run, f"--ipc {ipc[0]}"))
