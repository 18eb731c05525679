"""`ddtool push`: a run or a meta generator to the Hub."""

from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.markup import escape
from rich.table import Table

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output
from ddtool.errors import UsageError
from ddtool.text import shell

if TYPE_CHECKING:
    from ddtool.hub.upload import Pushed
    from ddtool.sharing.parcels import PlannedRepo

T = TypeVar("T")


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
    space: Annotated[
        bool, typer.Option("--space", help="Make a Space, too: a page that shows the sets and trains a network.")
    ] = False,
    pool: o.Pool = True,
    private: o.Private = False,
    create_pr: Annotated[bool, typer.Option("--create-pr", help="Propose the commit as a pull request.")] = False,
    revision: Annotated[str | None, typer.Option(help="Branch to push to; made if it is not there.")] = None,
    force: o.Force = False,
    overwrite_card: Annotated[
        bool,
        typer.Option(
            "--overwrite-card",
            help="Write ddtool's part of README.md, and a Space's files, anew though it was changed by hand.",
        ),
    ] = False,
    commit_message: Annotated[str | None, typer.Option(help="Title of the commits. Default: what was pushed.")] = None,
    tag: Annotated[str | None, typer.Option(help="Tag the commits, as v1.0 say.")] = None,
    collection: Annotated[
        str | None, typer.Option(metavar="NAMESPACE/TITLE-ID", help="Add the repos to a collection on the Hub.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show files, sizes and cards; send nothing.")] = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Push a run to two Hub repos, generator and synthetic sets, one commit each. Pushing again adds what is new.

    A run of a method without a generator: its sets go to NAMESPACE/NAME-ddtool alone.

    Examples:

      ddtool push runs/cifar10 NAMESPACE/cifar10-mgdd --dry-run

      ddtool push --generator bundled NAMESPACE/meta-generator
    """
    from ddtool import api

    with Output(json_, quiet) as output:
        run, target = (run_or_repo, repo) if generator is None else (None, run_or_repo)
        if target is None or (generator is not None and repo is not None):
            message = "Give a run and a repo." if generator is None else "With --generator, give the repo alone."
            raise UsageError(message, "For example: ddtool push runs/cifar10 NAMESPACE/NAME")

        def asked(call: Callable[..., T]) -> T:
            return call(
                run, target, generator=generator, private=private, create_pr=create_pr, revision=revision, pool=pool,
                only=only, dataset_repo=dataset_repo, space=space, force=force, overwrite_card=overwrite_card,
                commit_message=commit_message, tag=tag, collection=collection, report=output.listener,
            )  # fmt: skip

        if dry_run:
            show_plan(output, asked(api.plan_push))
        else:
            show(output, asked(api.push), revision)


def show(output: Output, pushed: list["Pushed"], revision: str | None) -> None:
    """Where everything is, and what one would run with it."""
    rows = {made.kind: {"repo": made.repo, "url": made.url, "commit": made.sha, "changed": list(made.changed),
                        "pull_request": made.pull_request} for made in pushed}  # fmt: skip
    table = Table(title="on the Hub", title_justify="left")
    for name in ("repo", "kind", "commit", "files changed"):
        table.add_column(name)
    for made in pushed:
        table.add_row(*map(escape, (made.repo, made.kind, made.sha[:10], str(len(made.changed) or "none"))))
    output.result(rows, "\n".join(made.pull_request or made.url for made in pushed), [table])
    last = next(made for made in reversed(pushed) if made.kind != "space")
    name = f"{last.repo}@{revision}" if revision else last.repo
    output.next_step(shell("ddtool info" if last.pull_request else "ddtool pull", name))


def show_plan(output: Output, repos: list["PlannedRepo"]) -> None:
    """--dry-run: every file with its size and what would become of it, and the cards."""
    data, tables = {}, []
    for planned in repos:
        files = [asdict(file) for file in planned.files]
        data[planned.kind] = {"repo": planned.repo, "new": planned.new, "files": files, "card": planned.card}
        table = Table(title=f"{planned.kind} {planned.repo}{' (new)' if planned.new else ''}", title_justify="left")
        for name in ("file", "bytes", "state"):
            table.add_column(name, justify="right" if name == "bytes" else "left")
        for file in files:
            table.add_row(*(escape(str(cell)) if cell is not None else "" for cell in file.values()))
        tables.append(table)
    output.result(data, "\n".join(planned.repo for planned in repos), tables)
    if not output.json and not output.quiet:
        output.text(
            "\n\n".join(f"# README.md of {part['repo']}\n\n{part['card']}" for part in data.values() if part["card"])
        )
    output.next_step("the same command without --dry-run")
