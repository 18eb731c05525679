"""`ddtool adapt`: a dataset's name in, a scored synthetic set out."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output, score_table
from ddtool.errors import DDToolError, UsageError
from ddtool.text import shell

if TYPE_CHECKING:
    from ddtool.config import RunConfig, Values
    from ddtool.hub.upload import Pushed
    from ddtool.methods import Record
    from ddtool.runs.run import Run
    from ddtool.runtime.engine import Engine

STAGES = "Method"


@handled
@o.reads_data
def command(
    dataset: Annotated[
        str | None,
        typer.Argument(
            help="Alias (cifar10, mnist, …), Hub id, hf://…, folder, archive, table, parquet file, or 'sample'."
        ),
    ] = None,
    ipc: Annotated[
        list[int] | None, typer.Option(help="Images per class; several with commas or repeated. Default 10.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run directory. Default runs/NAME-ipcN-TIME.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="Meta generator: bundled, scratch, a folder, or a Hub REPO[@revision].")
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="mgdd, or another: random, herding, k-centre, el2n, dc, dsa, idc, dm, mtt, frepo. Default mgdd.",
            rich_help_panel=STAGES,
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=0, help="Adaptation steps; of another method its steps.", rich_help_panel=STAGES)
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=0, help="Wall clock for the one set, in place of counted steps.", rich_help_panel=STAGES),
    ] = None,
    refine_steps: Annotated[
        int | None,
        typer.Option(min=0, help="Refinement steps on pixels and labels; 0 for none.", rich_help_panel=STAGES),
    ] = None,
    factor: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="N x N images of lower resolution in each image of the set, each with its own label. Default 1; idc: 2.",
            rich_help_panel=STAGES,
        ),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip",
            help="Whether images flipped left-right keep their class. Default: measured.",
            rich_help_panel=STAGES,
        ),
    ] = None,
    whiten: o.Whiten = None,
    protocol: Annotated[
        list[str] | None,
        typer.Option(
            help="Score by quick, frepo-mse, dsa-ce, idc-ce or kernel-ridge; several with commas or repeated. Default quick.",
            rich_help_panel=STAGES,
        ),
    ] = None,
    eval_seeds: Annotated[int | None, typer.Option(min=1, help="Networks per score.", rich_help_panel=STAGES)] = None,
    allow_repeat: Annotated[
        bool | None,
        typer.Option("--allow-repeat", help="Let an IPC be more than a class holds: its images begin several each."),
    ] = None,
    evaluate: Annotated[
        bool | None,
        typer.Option(
            "--evaluate/--no-evaluate", help="Whether to score the sets. Default: yes.", rich_help_panel=STAGES
        ),
    ] = None,
    animation: Annotated[
        bool | None,
        typer.Option(
            "--animation", help="Leave a short animation of the refinement, animation.png.", rich_help_panel=STAGES
        ),
    ] = None,
    curve: Annotated[
        bool | None,
        typer.Option(
            "--curve", help="Keep the set at doubling steps, for `ddtool curve` to score.", rich_help_panel=STAGES
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every random draw follows from it. Default 0.")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an unfinished run.")] = None,
    moved: o.Moved = None,
    push_to: Annotated[
        str | None,
        typer.Option(
            metavar="NAMESPACE/NAME", help="Push the finished run to the Hub (checked before the work begins)."
        ),
    ] = None,
    private: o.Private = False,
    pool: o.Pool = True,
    force: o.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be done; write nothing.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings from a YAML, JSON or TOML file.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Any other setting.")] = None,
    preset: Annotated[
        str, typer.Option(help="How wide and long: small, medium, large, or auto, by the speed of this machine.")
    ] = "auto",
    *,
    data: o.Given,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    compile_: o.Compile = False,
    threads: o.Threads = None,
    memory: o.Memory = None,
    graphs: o.Graphs = False,
    track: o.Track = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Adapt a meta generator to a dataset; generate, refine and score a synthetic set for each IPC.

    Several processes can share each step: start it by `torchrun --nproc_per_node N -m ddtool adapt …` or
    `accelerate launch … -m ddtool adapt …`. The first process makes the run, and the others compute for it.

    Examples:

      ddtool adapt sample --ipc 10

      ddtool adapt cifar10 --ipc 1 --ipc 10 --ipc 50 --out runs/cifar10
    """
    from ddtool import api
    from ddtool.cli.machine import engine_for, one_voice
    from ddtool.pipeline.together import together
    from ddtool.runs import tracking
    from ddtool.runs.run import Run
    from ddtool.runtime.distributed import Ranks

    ranks = Ranks.from_environment()
    with Output(json_, quiet or not ranks.main) as output:
        flags = o.given(
            dataset=dataset, ipc=ipc, generator=generator, seed=seed, flip=flip, data=data or None,
            method=method, seconds=seconds, allow_repeat=allow_repeat, animation=animation, curve=curve,
        )  # fmt: skip
        stages = {
            "adapt": o.given(steps=steps),
            "refine": o.given(steps=refine_steps),
            "whitening": o.given(kind=whiten),
            "evaluate": o.given(enabled=evaluate, protocol=o.together(protocol), seeds=eval_seeds),
        }
        goal = goal_of(push_to, private, pool)
        tracking.check(track)
        machine = o.machine_flags(device, precision, threads, compile_, memory, graphs) + (
            f" {goal.flags()}" if goal else ""
        )
        others = flags or any(stages.values()) or factor or out or config or set_ or force or dry_run
        if resume is not None and (others or preset != "auto"):
            hint = shell("ddtool adapt --resume", resume, machine)
            raise UsageError("--resume takes every setting from the run; no other one goes with it.", hint)
        if resume is None and moved is not None:
            raise UsageError("--data goes with --resume.", "Name the dataset of a new run without it.")
        chosen_engine = ranks.engine(engine_for(device, precision, compile_, threads, output, memory, graphs))
        with one_voice(ranks), together(ranks, chosen_engine) as engine:
            if engine is None:
                return
            if resume is not None:
                check_goal(goal, Run.open(resume).config().method)
                finish(output, go_on(resume, engine, machine, output, moved, track), goal)
                return
            layers = (o.read_config_file(config), o.parse_settings(set_ or []))
            chosen = chosen_method(*layers, flags)
            check_takes_factor(chosen, factor)
            if chosen.has_generator:
                flags |= o.given(factor=factor)
            else:
                check_without_generator(generator, refine_steps)
                stages["baseline"] = stages.pop("adapt") | o.given(factor=factor)
            settings = api.resolve(engine, preset, *layers, stages, flags, report=output.listener)
            check_budget(settings.seconds, steps, refine_steps)
            folder = out or api.default_folder(settings)
            if dry_run:
                show_plan(output, settings, folder, engine, force, goal)
                return
            check_goal(goal, settings.method)
            run = api.start(settings, folder, engine, force, output.listener)
            finish(output, go_on(run.folder, engine, machine, output, track=track), goal)


def check_without_generator(generator: str | None, refine_steps: int | None) -> None:
    """UsageError for options that a method without a generator has not."""
    if generator is not None or refine_steps is not None:
        raise UsageError("--generator and --refine-steps are MGDD's.", "Leave them out, or leave --method out.")


def check_takes_factor(method: "Record", factor: int | None) -> None:
    """UsageError for --factor with a method whose images hold one image each."""
    from ddtool.methods import METHODS

    if factor is not None and not method.takes_factor:
        taking = " and ".join(kind.record.name for kind in METHODS.values() if kind.record.takes_factor)
        hint = f"Leave it out; the methods that take it are {taking}."
        raise UsageError(f"The method '{method.name}' takes no --factor: each of its images is one.", hint)


def check_budget(seconds: float | None, steps: int | None, refine_steps: int | None) -> None:
    """UsageError for a budget that is counted both ways."""
    if seconds is not None and (steps is not None or refine_steps):
        counted = "--refine-steps" if steps is None else "--steps"
        hint = f"Leave {counted} out, or the seconds."
        raise UsageError(f"A budget in seconds takes the place of {counted}; one of them only.", hint)


def chosen_method(*layers: "Values") -> "Record":
    """The method that the last of the layers to name one names; UsageError when there is no such method."""
    from ddtool import methods

    named = [str(layer["method"]) for layer in layers if "method" in layer]
    return methods.find(named[-1]) if named else methods.default()


@dataclass(frozen=True)
class Goal:
    """Where --push-to sends the finished run. --force is for the run directory: on the Hub it replaces nothing."""

    repo: str
    private: bool
    pool: bool

    def check(self, method: str) -> None:
        """Refuse, before the long work, what cannot be pushed to."""
        from ddtool.sharing.options import Options
        from ddtool.sharing.push import check_target

        check_target(self.repo, Options(private=self.private, pool=self.pool).by_method(method))

    def repos(self, method: str) -> dict[str, str]:
        """The repos of a run of that method, by kind."""
        from ddtool.sharing.options import Options, repos

        return repos(self.repo, Options().by_method(method))

    def flags(self) -> str:
        """The same as options."""
        return f"--push-to {self.repo}{self.options()}"

    def options(self) -> str:
        """Those that go with the name of the repo."""
        return " --private" * self.private + " --no-pool" * (not self.pool)

    def push(self, run: "Run", output: Output) -> "list[Pushed]":
        """Push the run. What goes wrong says that the run is finished, and how to push it later."""
        from ddtool import api

        try:
            return api.push(run, self.repo, private=self.private, pool=self.pool, report=output.listener)
        except DDToolError as error:
            error.message = f"The run is finished ({run.folder}), and not pushed. {error.message}"
            again = shell("ddtool push", run.folder, f"{self.repo}{self.options()}")
            error.hint = error.hint if again in error.hint else f"{error.hint} Then: {again}".lstrip()
            raise


def goal_of(push_to: str | None, private: bool, pool: bool) -> Goal | None:
    """Where the run goes; None where it goes nowhere. UsageError for options of a push without one."""
    if push_to:
        return Goal(push_to, private, pool)
    if private or not pool:
        given = "--private" if private else "--no-pool"
        raise UsageError(f"{given} is for what is pushed.", "Add --push-to NAMESPACE/NAME, or leave it out.")
    return None


def check_goal(goal: Goal | None, method: str) -> None:
    """Refuse, before the long work, where a run of that method could not be pushed to."""
    if goal:
        goal.check(method)


def go_on(
    folder: Path, engine: "Engine", machine: str, output: Output, moved: Path | None = None, track: str | None = None
) -> "Run":
    """Bring a run to its end; an interruption says how to go on later."""
    from ddtool import api

    try:
        return api.resume(folder, moved=moved, track=track, engine=engine, report=output.listener)
    except KeyboardInterrupt as stop:
        command = shell("ddtool adapt --resume", folder, machine)
        how = "Go on" if engine.processes == 1 else "Go on, by the same launcher"
        stop.hint = f"Everything so far is kept. {how}: {command}"  # type: ignore[attr-defined]
        raise


def finish(output: Output, run: "Run", goal: Goal | None) -> None:
    """Push the run where it goes; show the scores and name the next command."""
    pushed = goal.push(run, output) if goal else []
    data = {"run": str(run.folder), "ipc": run.ipcs(), **run.results()}
    if pushed:
        data["pushed"] = {made.kind: made.url for made in pushed}
    scores = run.noted().scores
    output.result(data, str(run.folder), [score_table(scores)] if scores else [])
    output.say(
        f"Run: {run.folder} (report.html, preview.png, synthetic/{', generator/' if run.has_generator() else ''})"
    )
    if goal:
        output.say("On the Hub: " + ", ".join(made.url for made in pushed))
        output.next_step(shell("ddtool pull", pushed[-1].repo))
    else:
        output.next_step(shell("ddtool evaluate", run.folder, "--protocol frepo-mse --eval-seeds 3"))


def show_plan(
    output: Output, config: "RunConfig", folder: Path, engine: "Engine", force: bool, goal: Goal | None
) -> None:
    """--dry-run: the resolved configuration, dataset sizes, a memory estimate, the files and repos that would be written."""
    import json

    from ddtool.pipeline.plan import plan
    from ddtool.runs.foreign import check_free

    check_free(folder, force)
    planned = plan(config, engine, output.listener)
    data = {"config": planned["config"], "device": engine.describe(), "out": str(folder), **planned}
    if goal:
        data["push_to"] = goal.repos(config.method)
    output.result(data, str(folder) if output.quiet else json.dumps(data, indent=2))
    output.next_step("the same command without --dry-run")
