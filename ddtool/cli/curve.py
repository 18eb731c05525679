"""`ddtool curve`: the scores of a run along its steps, as a table and a plot."""

from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output


@handled
def command(
    run: o.RunName,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Protocols; several with commas or repeated. Default kernel-ridge,quick."),
    ] = None,
    eval_seeds: Annotated[int, typer.Option(min=1, help="Fresh networks per score; kernel-ridge takes 3.")] = 1,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    compile_: o.Compile = False,
    threads: o.Threads = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Score a run of `ddtool adapt --curve` along its steps; the table and the curve go into the run as curve.md and curve.svg.

    Points that are scored already are not scored again: the same command goes on where it was.

    Examples:

      ddtool adapt sample --ipc 10 --curve --out runs/sample

      ddtool curve runs/sample
    """
    from ddtool import api
    from ddtool.cli.compare import table
    from ddtool.cli.machine import engine_for
    from ddtool.experiments.curve import FILE, HEADERS, USUAL, cells

    with Output(json_, quiet) as output:
        engine = engine_for(device, precision, compile_, threads, output)
        opened = api.open_run(run, output.listener)
        found = api.curve(opened, protocol=protocol or USUAL, seeds=eval_seeds, engine=engine, report=output.listener)
        page = opened.folder / f"{FILE}.svg"
        data = {"run": str(opened.folder), "plot": str(page), "rows": found.rows()}
        shown = [(cells(row), None, False) for row in found.scored]
        output.result(data, str(page), [table("test accuracy along the steps", HEADERS, shown)])
        output.say(f"Curve: {page}; the table as JSON, CSV and Markdown beside it.")
