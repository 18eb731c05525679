"""`ddtool import`: sets that the field publishes as .pt or .npz, as sets of ours."""

from pathlib import Path
from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output
from ddtool.errors import UsageError
from ddtool.text import shell


@handled
@o.reads_data
def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .pt, .npz or .safetensors file.")],
    on: Annotated[str, typer.Option(help="The dataset that the set was made from.")],
    out: Annotated[Path, typer.Option(help="Folder for the sets.")],
    format_: Annotated[
        str | None, typer.Option("--format", help="dc, mtt, idc, npz or safetensors. Default: found.")
    ] = None,
    normalised: Annotated[
        bool | None,
        typer.Option(
            "--normalised/--no-normalised", help="Images are normalised, or pixels in [0, 1]. Default: by the format."
        ),
    ] = None,
    mean: Annotated[
        str | None,
        typer.Option(metavar="X,X,X", help="Subtracted from each channel when normalised. Default: the field's."),
    ] = None,
    std: Annotated[
        str | None,
        typer.Option(metavar="X,X,X", help="What each channel was divided by when normalised. Default: the field's."),
    ] = None,
    zca: Annotated[bool, typer.Option("--zca", help="Images are whitened as by MTT's code.")] = False,
    labels: Annotated[
        str | None,
        typer.Option(metavar="probabilities|centred", help="What soft labels are. Default: found."),
    ] = None,
    label_scale: Annotated[float | None, typer.Option(help="The factor in centred labels. Default 1.")] = None,
    factor: Annotated[
        int | None,
        typer.Option(
            min=1, max=8, help="Each image holds N x N smaller images side by side. Default: 2 of idc, else 1."
        ),
    ] = None,
    learned_lr: Annotated[float | None, typer.Option(help="The learning rate that was learned with the set.")] = None,
    flip: Annotated[
        bool | None,
        typer.Option("--flip/--no-flip", help="Flipped images keep their class. Default: as the field has it."),
    ] = None,
    method: Annotated[str, typer.Option(help="What scores call it.")] = "imported",
    force: o.Force = False,
    *,
    data: o.Given,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Bring the published sets of other methods here, un-normalised and with what was assumed written beside them.

    No code in a file is run: only tensors, numbers and text are read.

    Examples:

      ddtool import res_DSA_CIFAR10_ConvNet_10ipc.pt --on cifar10 --method dsa --out sets/dsa

      ddtool import images_best.pt --on cifar10 --zca --method mtt --out sets/mtt
    """
    from ddtool import api
    from ddtool.sharing.exchange.importing import listed

    with Output(json_, quiet) as output:
        made = api.import_sets(
            file, out, on=on, force=force, data=data, report=output.listener, format=format_, normalised=normalised,
            mean=numbers(mean), std=numbers(std), zca=zca, labels=labels, label_scale=label_scale, factor=factor,
            learned_lr=learned_lr, flip=flip, method=method,
        )  # fmt: skip
        output.result({"sets": listed(made)}, "\n".join(str(one.folder) for one in made))
        for one in made:
            output.say(f"{one.folder}: {one.synthetic!r}")
        exact = " --exact" if any(one.facts.get("outside") for one in made) else ""
        output.next_step(shell("ddtool evaluate", out, f"--protocol dsa-ce{exact}"))


def numbers(text: str | None) -> tuple[float, ...] | None:
    """Numbers with commas between them; UsageError for anything else."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(f"'{text}' is no list of numbers.", "For example 0.4914,0.4822,0.4465.") from error
