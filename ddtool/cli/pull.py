"""`ddtool pull`: from the Hub into a folder."""

from pathlib import Path
from typing import Annotated

import typer

from ddtool.cli import options as o
from ddtool.cli.errors import handled
from ddtool.cli.output import Output


@handled
def command(
    repo: Annotated[str, typer.Argument(metavar="NAMESPACE/NAME[@REVISION]", help="A repo of `ddtool push`.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder. Default runs/NAME, generators/NAME or sets/NAME, by what it is.")
    ] = None,
    force: o.Force = False,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Pull an adapted generator (as a run), a meta generator or synthetic sets from the Hub. Everything is checked.

    Example:

      ddtool pull NAMESPACE/NAME --out runs/pulled
    """
    from ddtool.sharing import pull as receive

    with Output(json_, quiet) as output:
        found, folder = receive.pull(repo, out, force, output.listener)
        facts = {"path": str(folder), "kind": found.kind, "repo": found.repo.repo, "revision": found.repo.sha}
        output.result(facts | {"ipc": found.ipcs}, str(folder))
        following = {
            receive.ADAPTED: o.shell("ddtool generate", folder, "--ipc 20"),
            receive.META: o.shell("ddtool adapt cifar10 --generator", folder),
            receive.SETS: o.shell("ddtool evaluate", folder),
        }
        output.next_step(following[found.kind])
