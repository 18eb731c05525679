"""`ddtool report`: a run or a comparison as one page for a browser."""

from pathlib import Path
from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output
from ddtool.errors import UsageError


@handled
def command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run directory, or the folder of a comparison.")],
    out: Annotated[Path | None, typer.Option(help="The file to write. Default: report.html in the run.")] = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Write one HTML page that needs nothing beside it: the images with their soft labels, scores, curves and settings.

    `ddtool adapt` and `ddtool compare` leave it at their end; this makes it anew, after `ddtool evaluate` for example.

    Examples:

      ddtool report runs/cifar10

      ddtool report runs/cifar10 --out cifar10.html
    """
    from ddtool.experiments.folder import Folder
    from ddtool.experiments.report import PAGE, render
    from ddtool.reports.run_page import write_page
    from ddtool.runs.run import Run

    with Output(json_, quiet) as output:
        folder = Path(run).expanduser()
        if Folder(folder).is_begun():
            if out is not None:
                raise UsageError("--out is for the page of a run.", f"Leave it out: the page is {folder / PAGE}.")
            render(Folder(folder))
            path = folder / PAGE
        else:
            path = write_page(Run.open(folder), out)
        output.result({"page": str(path)}, str(path))
        output.say("Open it in a browser.")
