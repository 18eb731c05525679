"""The local data of a run, where it is now: a run keeps the absolute place, and is told when the data has moved."""

import os
from pathlib import Path

from ddtool.errors import DataError, RunError, UsageError
from ddtool.events import Report
from ddtool.runs.run import Run
from ddtool.runtime.cache import cache_root
from ddtool.sources.names import TABLES, resolve


def follow(run: Run, moved: str | Path | None, command: str, report: Report) -> None:
    """Have a run find its data at `moved`. Without it: RunError, with `command` to say where the data is, when it is not where
    the run left it.

    Raises DataError when other data lies there, UsageError for a run whose data is not local.
    """
    dataset = run.config().dataset
    if moved is None:
        there = os.path.exists(os.path.expanduser(dataset))
        if not there and os.sep in dataset and run.content_hash() is not None:
            hint = f"If it has moved, say where it is: `{command} --data PATH`."
            raise RunError(f"The data of {run.folder} is not at {dataset} any more.", hint)
        return
    if (known := run.content_hash()) is None:
        message = f"{run.folder} was not made from local data, but from '{dataset}'."
        raise UsageError(message, "Leave --data out: it is for files and folders that have moved.")
    place = moved_to(moved, dataset)
    check_same_content(place, known, report)
    run.move_data(place)


def moved_to(moved: str | Path, dataset: str) -> str:
    """The absolute place of data that has moved; of a table, the file of the old name in the folder that is named."""
    place = os.path.abspath(os.path.expanduser(moved))
    table = os.path.join(place, os.path.basename(dataset))
    return table if dataset.lower().endswith(TABLES) and os.path.isfile(table) else place


def check_same_content(place: str, known: str, report: Report) -> None:
    """DataError unless the data at a place is that of a content hash."""
    if resolve(place, None, None, cache_root(), report).version != known:
        message = f"The data at {place} is not that of the run: its files differ in content or in name."
        raise DataError(message, "Name the place of the same files, or start a new run.")
