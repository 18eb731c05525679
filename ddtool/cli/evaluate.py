"""`ddtool evaluate`: fresh networks on a synthetic set, tested on the whole test split."""

from collections.abc import Sequence
from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output, score_table

USUAL, OTHER = "frepo-mse", "dsa-ce"
"""The protocols of scores that are worth stating."""


@handled
@o.reads_data
def command(
    run_or_set: Annotated[
        str,
        typer.Argument(
            metavar="RUN_OR_SET",
            help="A run, a set's folder or exact.safetensors, or a Hub repo[@revision]. With --on also a set of others: a Hub "
            "dataset, parquet, safetensors, a folder of images by class, a WebDataset.",
        ),
    ],
    ipc: Annotated[int | None, typer.Option(min=1, help="Which set of the run. Default: all of them.")] = None,
    stage: Annotated[str | None, typer.Option(help="initial, generated or refined. Default: the final one.")] = None,
    on: Annotated[str | None, typer.Option(help="Dataset to test on. Default: the one the set was made from.")] = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="frepo-mse, dsa-ce (full length; of a set with a learned learning rate dsa-ce-lr, too), quick or kernel-ridge; "
            "several with commas or repeated. Default: frepo-mse."
        ),
    ] = None,
    arch: Annotated[
        list[str] | None,
        typer.Option(
            help="Network: convnet, convnet-wide, alexnet, vgg11, resnet18, mlp, lenet or vit, or one with another norm "
            "(vgg11-batch); several with commas or repeated. Default: convnet."
        ),
    ] = None,
    eval_seeds: Annotated[int, typer.Option(min=1, help="Fresh networks per score.")] = 3,
    seed: o.Seed = 0,
    baseline: Annotated[bool, typer.Option(help="Score as many random real images beside it.")] = True,
    exact: Annotated[bool, typer.Option("--exact", help="Train on the pixels before rounding to 8 bits.")] = False,
    whiten: Annotated[
        bool, typer.Option("--whiten/--no-whiten", help="Whiten as the set says, or see what it is worth without.")
    ] = True,
    moved: o.Moved = None,
    *,
    data: o.Given,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    compile_: o.Compile = False,
    threads: o.Threads = None,
    memory: o.Memory = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train fresh networks on a synthetic set and test them, beside as many random real images.

    Examples:

      ddtool evaluate runs/cifar10 --ipc 10 --protocol frepo-mse --eval-seeds 3

      ddtool evaluate runs/cifar10 --arch convnet,convnet-wide --protocol frepo-mse,quick

      ddtool evaluate NAMESPACE/NAME-ddtool --on cifar10

      ddtool evaluate their-set.parquet --on cifar10 --protocol dsa-ce
    """
    from ddtool import api
    from ddtool.cli.machine import engine_for

    with Output(json_, quiet) as output:
        engine = engine_for(device, precision, compile_, threads, output, memory)
        scores = api.evaluate(
            run_or_set, ipc=ipc, stage=stage, on=on, moved=moved, protocol=protocol or USUAL,
            arch=arch or "convnet", seeds=eval_seeds, seed=seed, baseline=baseline, exact=exact, whiten=whiten,
            data=data, engine=engine, report=output.listener,
        )  # fmt: skip
        means = "\n".join(f"{score.mean:.2f}" for score in scores)
        output.result({"scores": [score.to_dict() for score in scores]}, means, [score_table(scores)])
        if other := next_protocol(api.several(protocol or USUAL)):
            where = [o.shell(flag, place) for flag, place in (("--on", on), ("--data", moved)) if place]
            words = " ".join(filter(None, [*where, o.as_typed(data), f"--protocol {other} --eval-seeds 3"]))
            output.next_step(o.shell("ddtool evaluate", run_or_set, words))


def next_protocol(done: Sequence[str]) -> str | None:
    """The protocol to score by next; None where a set has been scored by both that are worth stating."""
    return next((name for name in (USUAL, OTHER) if name not in done), None)
