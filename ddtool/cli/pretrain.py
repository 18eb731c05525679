"""`ddtool pretrain`: large datasets in, a meta generator out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.adapt import STAGES
from ddtool.cli.errors import handled
from ddtool.cli.output import Output
from ddtool.errors import UsageError
from ddtool.text import shell

if TYPE_CHECKING:
    from rich.table import Table

    from ddtool.config import PretrainConfig
    from ddtool.pretraining.folder import Point, Pretraining
    from ddtool.runtime.distributed import Ranks
    from ddtool.runtime.engine import Engine


@handled
@o.reads_data
def command(
    datasets: Annotated[
        list[str] | None, typer.Argument(metavar="DATASET", help="Alias, Hub id, hf://…, folder or parquet file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write. Default runs/pretrain-TIME.")] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="Outer updates.", rich_help_panel=STAGES)] = None,
    meta_batch: Annotated[
        int | None, typer.Option(min=1, help="Tasks per outer update, over all processes.", rich_help_panel=STAGES)
    ] = None,
    inner_steps: Annotated[
        int | None, typer.Option(min=0, help="Inner updates on each task.", rich_help_panel=STAGES)
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every random draw follows from it. Default 0.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="DIR", help="Go on with an unfinished pre-training.")] = None,
    force: o.Force = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the sizes, time and memory it would take; write nothing.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML, JSON or TOML file.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting.")] = None,
    preset: Annotated[str, typer.Option(help="Defaults for a device: auto, cpu or gpu.")] = "auto",
    *,
    data: o.Given,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    compile_: o.Compile = False,
    threads: o.Threads = None,
    memory: o.Memory = None,
    track: o.Track = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Pre-train a meta generator on large datasets, by first-order MAML over tasks of random classes.

    Several processes share the tasks: start it by `torchrun --nproc_per_node N -m ddtool pretrain …` or
    `accelerate launch -m ddtool pretrain …`.

    Examples:

      ddtool pretrain zh-plus/tiny-imagenet --resolution 32 --out runs/meta

      ddtool pretrain --resume runs/meta
    """
    from ddtool.cli.machine import engine_for, one_voice
    from ddtool.pretraining import pretrain
    from ddtool.pretraining.folder import Pretraining
    from ddtool.runs import tracking
    from ddtool.runtime.distributed import Ranks

    ranks = Ranks.from_environment()
    with Output(json_, quiet or not ranks.main) as output:
        tracking.check(track)
        flags = o.given(datasets=datasets, seed=seed, data=data or None)
        meta = {"meta": o.given(iterations=iterations, meta_batch=meta_batch, inner_steps=inner_steps)}
        machine = o.machine_flags(device, precision, threads, compile_, memory)
        if resume is not None and (
            flags or meta["meta"] or out or config or set_ or force or dry_run or preset != "auto"
        ):
            hint = shell("ddtool pretrain --resume", resume, machine)
            raise UsageError("--resume takes every setting from the folder; no other one goes with it.", hint)
        engine = ranks.engine(engine_for(device, precision, compile_, threads, output, memory))
        if resume is not None:
            run = Pretraining.open(resume)
            with one_voice(ranks), ranks.joined(engine):
                finish(output, run, engine, ranks, machine, track)
            return
        settings = pretrain.resolve(
            engine,
            preset,
            o.read_config_file(config),
            o.parse_settings(set_ or []),
            meta,
            flags,
            report=output.listener,
        )
        if ranks.world > 1 and out is None:
            raise UsageError("Several processes need one folder.", "Name it: --out DIR.")
        folder = out or pretrain.default_folder()
        if dry_run:
            if ranks.main:
                show_plan(output, settings, folder, engine, ranks, force)
            return
        with one_voice(ranks), ranks.joined(engine):
            run = pretrain.start(settings, folder, engine, ranks, force, output.listener)
            finish(output, run, engine, ranks, machine, track)


def finish(
    output: Output, run: "Pretraining", engine: "Engine", ranks: "Ranks", machine: str, track: str | None = None
) -> None:
    """Bring a pre-training to its end and show how it went; an interruption says how to go on later."""
    from ddtool.pretraining import pretrain

    try:
        pretrain.finish(run, engine, ranks, output.listener, track)
    except KeyboardInterrupt as stop:
        how = "Go on" if ranks.world == 1 else "Go on, by the same launcher"
        command = shell("ddtool pretrain --resume", run.folder, machine)
        stop.hint = f"Everything up to the last checkpoint is kept. {how}: {command}"  # type: ignore[attr-defined]
        raise
    if ranks.main:
        curve = run.curve()
        data = {"run": str(run.folder), "generator": str(run.generator), "curve": curve}
        output.result(data, str(run.folder), [curve_table(curve)])
        output.say(f"Generator: {run.generator} (pictures of it: {run.folder / 'pictures'})")
        output.next_step(shell("ddtool adapt DATASET --ipc 10 --generator", run.folder))


def curve_table(curve: "list[Point]") -> "Table":
    """The validations as a table."""
    from rich.table import Table

    table = Table(title="held-out classes", title_justify="left")
    for name in ("iteration", "loss before", "loss after", "accuracy", "seconds"):
        table.add_column(name, justify="right")
    for row in curve:
        losses = f"{row['loss before']:.4f}", f"{row['loss after']:.4f}"
        table.add_row(str(row["iteration"]), *losses, f"{row['accuracy']:.1f}", f"{row['seconds']:.0f}")
    return table


def show_plan(
    output: Output, config: "PretrainConfig", folder: Path, engine: "Engine", ranks: "Ranks", force: bool
) -> None:
    """--dry-run: the resolved configuration, sizes of data and cache, tasks, and the time and memory they would take."""
    import json

    from ddtool.config import to_dict
    from ddtool.pretraining import pretrain
    from ddtool.pretraining.folder import check_free

    check_free(folder, force)
    plan = pretrain.plan(config, engine, ranks, output.listener)
    data = {"config": to_dict(config), "device": engine.describe(), "out": str(folder), **plan}
    output.result(data, str(folder) if output.quiet else json.dumps(data, indent=2))
    output.next_step("the same command without --dry-run")
