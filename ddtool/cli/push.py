"""`ddtool push`: a run or a meta generator to the Hub."""

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output
from ddtool.errors import UsageError

if TYPE_CHECKING:
    from ddtool.hub.upload import Pushed
    from ddtool.sharing.push import Parcel


@handled
def command(
    run_or_repo: Annotated[str, typer.Argument(metavar="RUN", help="A finished run. Not with --generator.")],
    repo: Annotated[str | None, typer.Argument(metavar="NAMESPACE/NAME", help="The model repo.")] = None,
    generator: Annotated[
        str | None, typer.Option(help="Push a meta generator instead of a run: bundled, or a folder.")
    ] = None,
    only: Annotated[str | None, typer.Option(help="generator or dataset: that repo alone.")] = None,
    dataset_repo: Annotated[
        str | None, typer.Option(metavar="NAMESPACE/NAME", help="The dataset repo. Default NAMESPACE/NAME-ddtool.")
    ] = None,
    pool: Annotated[
        bool, typer.Option("--pool/--no-pool", help="Push the initial samples, real images, with the generator.")
    ] = True,
    private: o.Private = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made if it is not there.")] = None,
    force: o.Force = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, sizes and cards; send nothing.")] = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Push a run to two Hub repos, generator and synthetic sets, one commit each. Pushing again adds what is new.

    A run of another method than mgdd has no generator: its sets go to NAMESPACE/NAME-ddtool alone.

    Examples:

      ddtool push runs/cifar10 NAMESPACE/cifar10-mgdd --dry-run

      ddtool push --generator bundled NAMESPACE/meta-generator
    """
    from ddtool.sharing import push as publish

    with Output(json_, quiet) as output:
        run, target = (run_or_repo, repo) if generator is None else (None, run_or_repo)
        if target is None or (generator is not None and repo is not None):
            message = "Give a run and a repo." if generator is None else "With --generator, give the repo alone."
            raise UsageError(message, "For example: ddtool push runs/cifar10 NAMESPACE/NAME")
        options = publish.Options(private, revision, create_pr, pool, only, dataset_repo, force)
        options = publish.options_for(run, options)
        if not dry_run:
            publish.check_target(target, options, generator)
        with publish.parcels(run, generator, target, options, output.listener) as parcels:
            if dry_run:
                show_plan(output, parcels)
                return
            pushed = publish.push(parcels, options, publish.again(run, generator, target, options), output.listener)
        show(output, pushed)


def show(output: Output, pushed: list["Pushed"]) -> None:
    """Where everything is, and what one would run with it."""
    rows = {made.kind: {"repo": made.repo, "url": made.url, "commit": made.sha, "changed": list(made.changed),
                        "pull_request": made.pull_request} for made in pushed}  # fmt: skip
    table = Table(title="on the Hub", title_justify="left")
    for name in ("repo", "kind", "commit", "files changed"):
        table.add_column(name)
    for made in pushed:
        table.add_row(*map(escape, (made.repo, made.kind, made.sha[:10], str(len(made.changed) or "none"))))
    output.result(rows, "\n".join(made.pull_request or made.url for made in pushed), [table])
    last = pushed[-1]
    output.next_step(o.shell("ddtool info" if last.pull_request else "ddtool pull", last.repo))


def show_plan(output: Output, parcels: list["Parcel"]) -> None:
    """--dry-run: every file with its size and what would become of it, and the cards."""
    data: dict[str, Any] = {}
    tables = []
    for parcel in parcels:
        states = parcel.states()
        sizes = {n: len(f) if isinstance(f, bytes) else f.stat().st_size for n, f in parcel.files.items()}
        files = [{"file": name, "bytes": sizes.get(name), "state": state} for name, state in sorted(states.items())]
        card = parcel.files["README.md"]
        assert isinstance(card, bytes)
        data[parcel.kind] = {"repo": parcel.repo, "new": parcel.base is None, "files": files, "card": card.decode()}
        table = Table(title=f"{parcel.kind} {parcel.repo}{'' if parcel.base else ' (new)'}", title_justify="left")
        for name in ("file", "bytes", "state"):
            table.add_column(name, justify="right" if name == "bytes" else "left")
        for file in files:
            table.add_row(*(escape(str(cell)) if cell is not None else "" for cell in file.values()))
        tables.append(table)
    output.result(data, "\n".join(parcel.repo for parcel in parcels), tables)
    if not output.json and not output.quiet:
        output.text("\n\n".join(f"# README.md of {part['repo']}\n\n{part['card']}" for part in data.values()))
    output.next_step("the same command without --dry-run")
