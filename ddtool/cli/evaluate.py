"""`ddtool evaluate`: fresh networks on a synthetic set, tested on the whole test split."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output, score_table
from ddtool.errors import UsageError
from ddtool.text import shell

if TYPE_CHECKING:
    from ddtool.pipeline.robustness import Robustness

USUAL, OTHER = "frepo-mse", "dsa-ce"
"""The protocols of scores that are worth stating."""
CAPTION = (
    "LRS, ARS: 0 to 1, more is better. HLR: points that the set with hard labels is behind the whole training set. IOR: points "
    "ahead of random real images with labels made alike; plain: without augmentation."
)


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
            help="frepo-mse, dsa-ce (full length; of a set with a learned learning rate dsa-ce-lr, too), idc-ce, quick or "
            "kernel-ridge; several with commas or repeated. Default: frepo-mse."
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
    whole: Annotated[
        bool,
        typer.Option("--whole", help="Score the whole training set beside it: once for a dataset, then it is kept."),
    ] = False,
    robust: Annotated[
        bool,
        typer.Option(
            "--robust",
            help="DD-Ranking's label-robust and augmentation-robust scores instead, by dsa-ce unless another is named.",
        ),
    ] = False,
    whole_accuracy: Annotated[
        float | None,
        typer.Option(
            min=0, max=100, help="With --robust: accuracy of the whole training set, %. Default: it is measured."
        ),
    ] = None,
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

      ddtool evaluate runs/cifar10 --robust --protocol quick --eval-seeds 3
    """
    from ddtool import api
    from ddtool.cli.machine import engine_for

    with Output(json_, quiet) as output:
        engine = engine_for(device, precision, compile_, threads, output, memory)
        if robust:
            refuse_with_robust({"--exact": exact, "--no-whiten": not whiten, "--whole": whole})
            found = api.robustness(
                run_or_set, ipc=ipc, stage=stage, on=on, moved=moved, protocol=protocol or OTHER, arch=arch or "convnet",
                seeds=eval_seeds, seed=seed, whole_accuracy=whole_accuracy, data=data, engine=engine, report=output.listener,
            )  # fmt: skip
            show_robust(output, found)
            return
        if whole_accuracy is not None:
            raise UsageError("--whole-accuracy is for --robust.", "Leave it out.")
        scores = api.evaluate(
            run_or_set, ipc=ipc, stage=stage, on=on, moved=moved, protocol=protocol or USUAL,
            arch=arch or "convnet", seeds=eval_seeds, seed=seed, baseline=baseline, whole=whole, exact=exact, whiten=whiten,
            data=data, engine=engine, report=output.listener,
        )  # fmt: skip
        means = "\n".join(f"{score.mean:.2f}" for score in scores)
        output.result({"scores": [score.to_dict() for score in scores]}, means, [score_table(scores)])
        if other := next_protocol(api.several(protocol or USUAL)):
            what = as_given(
                ("--ipc", ipc), ("--stage", stage), ("--on", on), ("--data", moved), ("--arch", o.together(arch)),
                ("--seed", seed),
            )  # fmt: skip
            how = as_given(
                ("--no-baseline", not baseline), ("--whole", whole), ("--exact", exact), ("--no-whiten", not whiten)
            )
            machine = o.machine_flags(device, precision, threads, compile_, memory)
            same = [*what, o.as_typed(data), f"--protocol {other} --eval-seeds {eval_seeds}", *how, machine]
            output.next_step(shell("ddtool evaluate", run_or_set, " ".join(filter(None, same))))


def as_given(*options: tuple[str, object]) -> list[str]:
    """Options as they were typed: with their value, or alone where it is true; without those that were not given."""
    return [flag if value is True else shell(flag, str(value)) for flag, value in options if value]


def refuse_with_robust(given: dict[str, bool]) -> None:
    """UsageError for options of plain scores that were given together with --robust."""
    if name := next((name for name, asked in given.items() if asked), None):
        raise UsageError(f"--robust and {name} exclude each other.", "Robust scores are of a set as people use it.")


def show_robust(output: Output, found: "Sequence[Robustness]") -> None:
    """The robust scores, and what they are made of."""
    from rich.table import Table

    table = Table(title="DD-Ranking's scores", title_justify="left", caption=CAPTION, caption_justify="left")
    for name in ("IPC", "protocol", "network", "LRS", "ARS", "HLR", "IOR", "IOR, plain"):
        table.add_column(name, justify="left" if name in ("protocol", "network") else "right")
    for one in found:
        mean = {name: pair[0] for name, pair in one.figures.items()}
        shares = (f"{mean[name]:.3f} ± {one.figures[name][1]:.3f}" for name in ("lrs", "ars"))
        parts = (f"{mean[name]:.1f}" for name in ("hlr", "ior", "ior_plain"))
        table.add_row(str(one.ipc), one.protocol, one.arch, *shares, *parts)
    means = "\n".join(f"{one.figures['lrs'][0]:.4f} {one.figures['ars'][0]:.4f}" for one in found)
    output.result({"robustness": [one.values for one in found]}, means, [table])


def next_protocol(done: Sequence[str]) -> str | None:
    """The protocol to score by next; None where a set has been scored by both that are worth stating."""
    return next((name for name in (USUAL, OTHER) if name not in done), None)
