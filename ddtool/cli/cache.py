"""`ddtool cache`: what is kept of datasets and of the Hub, and what may go."""

import time
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from ddtool.cli import options as o
from ddtool.cli.errors import handled, harmless
from ddtool.cli.output import Output
from ddtool.errors import UsageError
from ddtool.runtime.cache import Kept, cache_root, kept, prune

USUAL_DAYS = 30
"""Days without use after which a cached thing goes, where nothing else is said."""


@handled
def command(
    prune_: Annotated[
        bool, typer.Option("--prune", help="Remove what was not used for --days; it is made again when needed.")
    ] = False,
    days: Annotated[
        float | None, typer.Option(min=0, help="Days without use, for --prune; 0 removes everything. Default 30.")
    ] = None,
    json_: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """List what is cached (decoded datasets, experts, what was seen of the Hub) with sizes and last use; remove what is old.

    Examples:

      ddtool cache

      ddtool cache --prune --days 7
    """
    with Output(json_, quiet) as output:
        if days is not None and not prune_:
            raise UsageError("--days goes with --prune.", f"ddtool cache --prune --days {days:g}")
        root = cache_root()
        found = kept(root)
        removed = prune(found, USUAL_DAYS if days is None else days) if prune_ else []
        left = [one for one in found if one not in removed]
        data = {
            "cache": str(root),
            "bytes": sum(one.bytes for one in left),
            "entries": [stated(one) for one in left],
            "removed": [stated(one) for one in removed],
        }
        output.result(data, str(root), [table(left, str(root))])
        if prune_:
            output.say(f"Removed: {len(removed)}, {size(sum(one.bytes for one in removed))}.")
        elif left:
            output.next_step(f"ddtool cache --prune --days {USUAL_DAYS}")


def stated(one: Kept) -> dict[str, object]:
    """One thing in the cache as JSON values."""
    used = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(one.used))
    return {"kind": one.kind, "name": one.name, "path": str(one.path), "bytes": one.bytes, "used": used}


def table(entries: list[Kept], root: str) -> Table:
    """What is there, the largest first."""
    total = size(sum(one.bytes for one in entries))
    out = Table(title=escape(harmless(f"{root}: {total}")), title_justify="left")
    for name in ("kind", "what", "size", "last used"):
        out.add_column(name, justify="right" if name == "size" else "left")
    for one in entries:
        used = time.strftime("%Y-%m-%d", time.localtime(one.used))
        out.add_row(one.kind, escape(harmless(one.name)), size(one.bytes), used)
    return out


def size(count: int) -> str:
    """Bytes in a unit that people read."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
