"""`ddtool generate`: any other IPC from an adapted run, without adapting again."""

from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output
from ddtool.text import shell


@handled
def command(
    run: o.RunName,
    ipc: Annotated[list[int], typer.Option(help="Images per class; several with commas or repeated.")],
    labels: Annotated[
        str | None,
        typer.Option(
            help="fitted (with the dataset) or analytical (without it). Default: fitted where the dataset can be had."
        ),
    ] = None,
    force: o.Force = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    memory: o.Memory = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Generate a synthetic set of any IPC from an adapted run: one pass, no steps. A Hub repo is pulled first.

    Examples:

      ddtool generate runs/cifar10 --ipc 20

      ddtool generate NAMESPACE/NAME --ipc 20
    """
    from ddtool import api
    from ddtool.cli.machine import engine_for

    with Output(json_, quiet) as output:
        engine = engine_for(device, precision, False, None, output, memory)
        opened = api.open_run(run, output.listener)
        ipc = list(dict.fromkeys(ipc))
        for n in ipc:
            api.generate(opened, n, labels=labels, engine=engine, force=force, report=output.listener)
        folders = [opened.set_path(n).parent for n in ipc]
        data = {
            "run": str(opened.folder),
            "sets": {str(n): str(folder) for n, folder in zip(ipc, folders, strict=True)},
        }
        output.result(data, "\n".join(map(str, folders)))
        output.next_step(shell("ddtool evaluate", opened.folder, f"--ipc {ipc[0]}"))
