"""`ddtool compare`: every method on one dataset, at the same budget, in one table."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled, harmless
from ddtool.cli.evaluate import next_protocol
from ddtool.cli.output import Output
from ddtool.errors import UsageError
from ddtool.text import count, file_name, shell

if TYPE_CHECKING:
    from rich.table import Table

    from ddtool.config import Values
    from ddtool.experiments.executors import Executor
    from ddtool.experiments.folder import Folder
    from ddtool.experiments.grid import Job, Request
    from ddtool.experiments.table import Comparison
    from ddtool.runtime.distributed import Ranks
    from ddtool.runtime.engine import Engine

GRID = "Jobs"
Line = tuple[Sequence[str], str | None, bool]
"""Cells of a table's line, its style, and whether a rule follows."""


@handled
@o.reads_data
def command(
    dataset: Annotated[
        str, typer.Argument(help="Alias, Hub id, hf://…, folder, archive, table, parquet file, or 'sample'.")
    ],
    ipc: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Images per class; several with commas or repeated. Default 10.", rich_help_panel=GRID
        ),
    ] = None,
    steps: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Steps of every method; several with commas or repeated. Default 1000.", rich_help_panel=GRID
        ),
    ] = None,
    seconds: Annotated[
        list[float] | None,
        typer.Option(help="Wall clock of every method instead; several with commas or repeated.", rich_help_panel=GRID),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(help="Names; several with commas or repeated. Default: all.", rich_help_panel=GRID),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds 0, 1, … of everything.", rich_help_panel=GRID)] = 3,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Score by quick, frepo-mse, dsa-ce, idc-ce or kernel-ridge; several with commas or repeated. Default "
            "quick,dsa-ce, or the folder's. dsa-ce takes minutes of a CPU for each score, beside the budget; --protocol quick does "
            "without it."
        ),
    ] = None,
    eval_seeds: Annotated[int, typer.Option(min=1, help="Fresh networks for each job's score.")] = 1,
    generator: Annotated[
        str, typer.Option(help="Meta generator: bundled, scratch, a folder, or a Hub REPO[@revision].")
    ] = "bundled",
    published: Annotated[
        bool, typer.Option("--published", help="Each method's published settings and network, which need hours.")
    ] = False,
    config: Annotated[Path | None, typer.Option(help="Settings of all jobs from a YAML, JSON or TOML file.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of all jobs.")
    ] = None,
    set_for: Annotated[
        list[str] | None,
        typer.Option("--set-for", metavar="METHOD:NAME=VALUE", help="A setting of one method, as dm:baseline.lr=10."),
    ] = None,
    preset: Annotated[
        str,
        typer.Option(
            help="MGDD's settings: small (auto), medium or large. Its width and its labels follow it only with --published."
        ),
    ] = "auto",
    out: Annotated[Path | None, typer.Option(help="Its folder. Default runs/compare-NAME.")] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Jobs beside each other, on all GPUs in turn. Default 1; with slurm or ray all.",
            rich_help_panel="Machine",
        ),
    ] = None,
    executor: Annotated[
        str,
        typer.Option(help="Where jobs run: local, slurm or ray; the last two are extras.", rich_help_panel="Machine"),
    ] = "local",
    resources: Annotated[
        str,
        typer.Option(
            metavar="NAME=VALUE,…",
            rich_help_panel="Machine",
            help="Of each job with slurm or ray: gpus, cpus, memory (GiB), minutes, partition, account, qos, constraint, address.",
        ),
    ] = "",
    whole: Annotated[
        bool,
        typer.Option(
            "--whole",
            help="A row of the whole training set: a network for each protocol, once for a dataset, here at the end. By dsa-ce it "
            "needs a GPU.",
        ),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the jobs; run none.")] = False,
    *,
    data: o.Given,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    compile_: o.Compile = False,
    threads: o.Threads = None,
    track: o.Track = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run MGDD and the methods of the field at the same budget, network and evaluation; render the comparison.

    The same command again goes on where it was; with more methods, IPCs, seeds or budgets it adds them. Several GPUs:
    --workers N, or start it by `accelerate launch -m ddtool compare …`.

    Examples:

      ddtool compare sample --ipc 1 --ipc 10 --steps 200 --methods random,dm,mgdd --protocol quick

      ddtool compare cifar10 --ipc 10 --seconds 30 --seconds 60 --methods all --seeds 3
    """
    from ddtool.cli.machine import engine_for, one_voice
    from ddtool.config import from_dict, merged
    from ddtool.evaluation.protocols import once_each
    from ddtool.experiments import executors
    from ddtool.experiments.folder import Folder
    from ddtool.experiments.grid import USUAL, Request, find_methods, jobs_of
    from ddtool.experiments.jobs import check, pinned
    from ddtool.experiments.words import cost
    from ddtool.runs import tracking
    from ddtool.runtime.distributed import Ranks

    ranks = Ranks.from_environment()
    with Output(json_, quiet) as output:
        chosen = find_methods(methods or ["all"])
        tracking.check(track)
        given = from_dict(executors.Resources, o.parse_settings([part for part in resources.split(",") if part]))
        executors.check(executor, given)
        if executor != "local" and ranks.world > 1:
            raise UsageError(f"A launcher and --executor {executor} both share the jobs out.", "Use one of them.")
        if any(not 0 < clock < 1e9 for clock in seconds or []):
            raise UsageError("--seconds must be positive.", "For example --seconds 60.")
        jobs = jobs_of(chosen, ipc or [10], steps or ([] if seconds else [1000]), seconds or [], seeds)
        settings = merged(o.read_config_file(config), o.parse_settings(set_ or []))
        request = Request(
            dataset=dataset, protocol=once_each(o.together(protocol) or USUAL), networks=eval_seeds,
            published=published, generator=generator, preset=preset, precision=precision, compiled=compile_,
            data={**data}, settings=settings, own=settings_of_methods(set_for or []),
        )  # fmt: skip
        folder = Folder(out or default_folder(dataset))
        begun = folder.continued(request, named_protocol=bool(protocol))
        request = begun or request
        folder.check(request)
        if executor == "local":
            engine = ranks.engine(engine_for(device, precision, compile_, threads, output))
            machines = places_of(engine, device, threads, workers or 1, ranks)
            on_one = len({tuple(place) for place in machines}) < len(machines)
            shared = on_one or (ranks.world > 1 and engine.device.type == "cpu")
        else:
            machines = [machine_options(device, threads)] * (workers or len(jobs))
            shared = len(machines) > 1 and not executors.apart(executor, given)
        with one_voice(ranks):
            train = check(request, jobs, output.listener)
            request = begun or pinned(request, train.source)
            followed = ["--track", track] if track else []
            places = [[*place, *followed] for place in machines]
            to_do = [job for job in jobs if folder.outcome(job, request).state != "finished"]
            if to_do and ranks.main:
                output.say(cost(request, to_do, train, whole))
            if dry_run:
                show_plan(output, folder, request, jobs, places)
                return
            with folder.held(launched=ranks.world > 1) as inherited:
                folder.add(request, jobs, shared and len(to_do) > 1)
                runner = executors.opened(executor, given, folder.path / executor, inherited)
                control = engine_for(device, precision, compile_, threads, output) if whole and ranks.main else None
                work(output, folder, request, jobs, places, ranks, runner, control)


def settings_of_methods(pairs: list[str]) -> "dict[str, Values]":
    """`--set-for METHOD:NAME=VALUE` as nested settings by method."""
    from ddtool.config import merged

    out: dict[str, Values] = {}
    for pair in pairs:
        method, colon, setting = pair.partition(":")
        if not colon or not method or "=" in method:
            hint = "For example --set-for dm:baseline.lr=10."
            raise UsageError(f"--set-for takes METHOD:NAME=VALUE, got '{pair}'.", hint)
        out[method] = merged(out.get(method, {}), o.parse_settings([setting]))
    return out


def default_folder(dataset: str) -> Path:
    """runs/compare-NAME: the same for the same dataset, so that the same command goes on."""
    return Path("runs") / f"compare-{file_name(dataset)}"


def places_of(engine: "Engine", device: str, threads: int | None, workers: int, ranks: "Ranks") -> list[list[str]]:
    """The machine options of the jobs beside each other: under a launcher this process's device, else all in turn."""
    from ddtool.runtime.engine import spread, threads_each

    devices = [str(engine.device)] * workers if ranks.world > 1 else spread(device, workers)
    if threads is None and workers > 1 and engine.device.type == "cpu":
        threads = threads_each(workers)
    return [machine_options(name, threads) for name in devices]


def machine_options(device: str, threads: int | None) -> list[str]:
    """Device and threads as a job's options."""
    return ["--device", device, *(["--threads", str(threads)] if threads else [])]


def work(
    output: Output, folder: "Folder", request: "Request", jobs: "list[Job]", places: list[list[str]], ranks: "Ranks",
    executor: "Executor", control: "Engine | None" = None,
) -> None:  # fmt: skip
    """Run the jobs (this process's share of them) and show what came out; an interruption says how to go on.

    control: what the whole training set is scored on when all jobs are done; None: it is not."""
    from ddtool.experiments import jobs as one_job
    from ddtool.experiments import whole
    from ddtool.experiments.report import PAGE, render
    from ddtool.experiments.workers import Workers

    if folder.read().shared and ranks.main:
        output.say("Jobs share a device: their seconds compare among themselves, not with those of a job alone.")
    mine = [jobs[k] for k in ranks.share(len(jobs))]
    team = Workers(
        folder, request, lambda job, place: one_job.command(request, job, folder.run(job), places[place]),
        len(places), output.listener, lambda: render(folder), executor,
    )  # fmt: skip
    try:
        team.run(mine)
    except KeyboardInterrupt as stop:
        render(folder)
        stop.hint = (  # type: ignore[attr-defined]
            f"Finished jobs are kept ({folder.path / PAGE}). Go on: the same command again, into {folder.path}."
        )
        raise
    finally:
        executor.close()
    if control and folder.finished():
        whole.measure(folder, control, output.listener)
    found = render(folder)
    states = [folder.outcome(job, request).state for job in jobs]
    if set(states) <= {"finished", "failed"}:
        finish(output, folder, found, states.count("failed"), alone=ranks.world == 1)
    else:
        output.say("This process has done its share; others are still at work.")


def finish(output: Output, folder: "Folder", found: "Comparison", failed: int, alone: bool) -> None:
    """Show the tables. Failed jobs make the exit code 1, unless that would make a launcher end the other processes."""
    from ddtool.experiments.report import PAGE, to_json
    from ddtool.experiments.words import notes

    page = folder.path / PAGE
    data = {"folder": str(folder.path), "page": str(page), "failed": failed, **to_json(found)}
    several = bool(found.others)
    tables = [table for one in found.by_protocol for table in rows_tables(one, several)]
    tables += others_table(found)
    tables += [speedups_table(one, several) for one in found.by_protocol if one.speedups]
    output.result(data, str(folder.path), tables)
    for note in notes(found):
        output.say(f"- {note}")
    output.say(f"Report: {page}; the same as JSON, CSV and Markdown beside it.")
    if failed:
        output.say(
            f"{count(failed, 'job')} failed; the last lines are in {folder.path / 'jobs'}. The same command tries again; a job "
            "whose folder there was removed begins anew."
        )
    best = max(
        (r for r in found.rows if r.accuracy is not None and r.jobs), key=lambda r: r.accuracy or 0.0, default=None
    )
    other = next_protocol([one.request.protocol for one in found.by_protocol])  # the job's own score stays
    if best and other:
        done = next(name for name in best.jobs if name in folder.finished())
        output.next_step(shell("ddtool evaluate", folder.path / "jobs" / done, f"--protocol {other} --eval-seeds 3"))
    if failed and alone:
        raise SystemExit(1)


def rows_tables(found: "Comparison", several: bool) -> "list[Table]":
    """A table for each IPC, MGDD's rows last and bold, with a rule between groups; methods by the names that are typed."""
    from ddtool.experiments.words import OF_OTHERS, columns, heading, line

    headers, tables = [name for name in columns(found) if name not in OF_OTHERS], []
    for ipc in found.ipcs():
        rows = [row for row in found.rows if row.ipc == ipc]
        lines: list[Line] = []
        for row, after in zip(rows, [*rows[1:], None], strict=True):
            ends = after is not None and after.group != row.group
            lines.append(([row.method, *line(row, headers)[1:]], "bold" if row.ours else None, ends))
        tables.append(table(heading(found, ipc, several), headers, lines))
    return tables


def others_table(found: "Comparison") -> "list[Table]":
    """What others have published, once for all protocols: beside the figures of each it would not fit on a terminal."""
    from ddtool.experiments.words import published_table

    headers, lines = published_table(found)
    return [table("the paper, % / published, %", headers, [(line, None, False) for line in lines])] if lines else []


def speedups_table(found: "Comparison", several: bool) -> "Table":
    """How much sooner MGDD is as accurate."""
    from ddtool.experiments.words import SPEEDUP_HEADERS, speedup_cells

    lines = [(speedup_cells(one), None, False) for one in found.speedups]
    under = f", protocol {found.request.protocol}" if several else ""
    return table(f"until MGDD is as accurate{under}", SPEEDUP_HEADERS, lines)


def table(title: str, headers: Sequence[str], lines: "Sequence[Line]") -> "Table":
    """Lines of cells as a table."""
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    out = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in headers:
        words = name in ("method", "baseline", "reached by", "job", "published by")
        head = (
            name.replace("s in ", "s in\n").replace("s out", "s\nout").replace("pre-", "pre-\n").replace("k M", "k\nM")
        )
        out.add_column(head, justify="left" if words else "right", no_wrap=name in ("method", "job"))
    for line, style, ends in lines:
        out.add_row(*(escape(harmless(cell)) for cell in line), style=style, end_section=ends)
    return out


def show_plan(output: Output, folder: "Folder", request: "Request", jobs: "list[Job]", places: list[list[str]]) -> None:
    """--dry-run: every job, how far it is, and its command."""
    import shlex

    from ddtool.experiments import jobs as one_job

    plan = []
    for k, job in enumerate(jobs):
        words = one_job.command(request, job, folder.run(job), places[k % len(places)])
        state = folder.outcome(job, request).state
        plan.append({"job": job.name, "state": state, "command": shlex.join(["ddtool", *words[3:]])})
    lines = [((one["job"], one["state"]), None, False) for one in plan]
    short = "\n".join(one["command"] for one in plan)
    data = {"out": str(folder.path), "protocol": request.protocol, "jobs": plan}
    output.result(data, short, [table("jobs", ("job", "state"), lines)])
    finished = sum(one["state"] == "finished" for one in plan)
    output.say(f"{count(len(jobs), 'job')} into {folder.path}; {finished} finished. With --quiet: the commands.")
    output.next_step("the same command without --dry-run")
