"""`ddtool sweep`: sets of many sizes from one adapted generator, with their scores and a curve."""

from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output


@handled
def command(
    run: o.RunName,
    ipc: Annotated[
        list[int] | None,
        typer.Option(help="Images per class; several with commas or repeated. Default 1,2,5,10,20,30,50,100."),
    ] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(help="Protocols; several with commas or repeated. Default kernel-ridge,quick."),
    ] = None,
    eval_seeds: Annotated[int, typer.Option(min=1, help="Fresh networks per score; kernel-ridge takes 3.")] = 1,
    baseline: Annotated[bool, typer.Option(help="Score as many random real images beside each size.")] = True,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    compile_: o.Compile = False,
    threads: o.Threads = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Generate and score sets of seen and unseen sizes; the table and the curve go into the run as sweep.md and sweep.svg.

    What the run holds already is neither made nor measured again: the same command goes on where it was.

    Example:

      ddtool sweep runs/cifar10 --ipc 1,2,5,10,20,30,50,100
    """
    from ddtool import api
    from ddtool.cli.compare import table
    from ddtool.cli.machine import engine_for
    from ddtool.experiments.sweep import FILE, HEADERS, SIZES, USUAL, cells

    with Output(json_, quiet) as output:
        engine = engine_for(device, precision, compile_, threads, output)
        opened = api.open_run(run, output.listener)
        found = api.sweep(
            opened, ipc or SIZES, protocol=protocol or USUAL, seeds=eval_seeds, baseline=baseline,
            engine=engine, report=output.listener,
        )  # fmt: skip
        page = opened.folder / f"{FILE}.svg"
        data = {"run": str(opened.folder), "plot": str(page), "rows": found.rows()}
        shown = [(cells(row), None, False) for row in found.rows()]
        output.result(data, str(page), [table("test accuracy by size", HEADERS, shown)])
        output.say(f"Curve: {page}; the table as JSON, CSV and Markdown beside it.")
