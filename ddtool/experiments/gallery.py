"""What the sets of a comparison look like: an image of each class by each method."""

import contextlib
from dataclasses import dataclass

from ddtool.data.images import SyntheticSet
from ddtool.errors import RunError
from ddtool.experiments.folder import Folder
from ddtool.experiments.table import Comparison
from ddtool.experiments.words import per_class
from ddtool.reports.pictures import MOST_CLASSES, Picture, one_of_each
from ddtool.runs.run import Run
from ddtool.text import count


@dataclass(frozen=True)
class Gallery:
    """Images by method. part: what of all is shown; heading: their size; rows: the method's title, its images."""

    part: str
    heading: str
    rows: list[tuple[str, list[Picture]]]


def gallery(found: Comparison, folder: Folder) -> Gallery:
    """The images of each method's set at the smallest IPC and its largest budget that is finished."""
    sets = finished_sets(found, folder)
    C = max((made.num_classes for made in sets.values()), default=0)
    which = f"the first {MOST_CLASSES} of {count(C, 'class')}" if C > MOST_CLASSES else "each class"
    return Gallery(
        part=f"One image of {which}, at each method's largest budget. Point at an image to see its label.",
        heading=per_class(min(found.ipcs(), default=1)),
        rows=[(title, one_of_each(made)) for title, made in sets.items()],
    )


def finished_sets(found: Comparison, folder: Folder) -> dict[str, SyntheticSet]:
    """A finished set of each method by its title, at the smallest IPC and the largest budget; those that cannot be read are left
    out."""
    done, sets = folder.finished(), {}
    for row in found.rows:
        made = [name for name in row.jobs if name in done]
        if made and row.ipc == min(found.ipcs()):
            with contextlib.suppress(RunError):
                sets[row.title] = Run(folder.path / "jobs" / made[0]).load_set(row.ipc)
    return sets
