"""Plots of accuracy over a logarithmic axis by matplotlib: a panel for each dataset and IPC, a line for each method.

How they become files is said in `reports.canvas`.
"""

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from ddtool.reports.canvas import LIGHT, Kind, Paper, drawn

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 4.8, 3.4
"""Inches of a panel."""
ALONE = 7.6
"""Inches of the width where one panel stands alone."""
MOST_COLUMNS = 2
Dashes = tuple[int, tuple[int, ...]]
"""A pattern of dashes and gaps, as matplotlib has it."""


@dataclass(frozen=True)
class Style:
    """What a line looks like on any paper: a colour with a mark of its own, for those who see few colours."""

    colour: str
    marker: str


SPARE = ("p", "*", "<", ">", "d")
"""Marks of methods that have no look of their own; they are grey."""


@dataclass(frozen=True)
class Point:
    """One measurement: x positive or 0, y with its standard deviation."""

    x: float
    y: float
    std: float = 0.0


@dataclass(frozen=True)
class Line:
    """The points of one name, by x. strong: thicker than the others; dashed: not quite comparable with them; joined: by a line."""

    name: str
    points: tuple[Point, ...]
    style: Style
    strong: bool = False
    dashed: bool = False
    joined: bool = True


@dataclass(frozen=True)
class Level:
    """A height that no x belongs to."""

    name: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes. Panels of one dataset stand together, each dataset begins a new row."""

    dataset: str
    title: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...] = ()
    x_name: str = ""
    """The name of its own x axis, where that is not the sheet's."""


def spare_style(name: str) -> Style:
    """The look of a line that has none of its own: grey, with a mark that follows from its name."""
    return Style("#7f7f7f", SPARE[zlib.crc32(name.encode()) % len(SPARE)])


def draw(panels: Sequence[Panel], x_name: str, y_name: str, kind: Kind = "svg", paper: Paper = LIGHT) -> bytes:
    """The panels on one sheet with one legend, as the bytes of a file. There must be at least one panel."""
    return drawn(lambda: sheet(panels, x_name, y_name, paper), kind, paper)


def sheet(panels: Sequence[Panel], x_name: str, y_name: str, paper: Paper) -> "Figure":
    """A figure with every panel in its place."""
    from matplotlib.figure import Figure

    places = list(places_of(panels))
    rows, columns = (1 + max(place[i] for place in places) for i in (0, 1))
    size = (ALONE if columns == 1 else columns * WIDTH, rows * HEIGHT + 1.0)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.add_gridspec(rows, columns)
    dashes = dashes_of(level.name for panel in panels for level in panel.levels)
    several = len({panel.dataset for panel in panels}) > 1
    for panel, place in zip(panels, places, strict=True):
        axes = figure.add_subplot(grid[place])
        axes.set_title(f"{panel.dataset}, {panel.title}" if several else panel.title, loc="left")
        fill(axes, panel, dashes, paper)
        axes.set_xlabel(panel.x_name or (x_name if (place[0] + 1, place[1]) not in places else ""))
        axes.set_ylabel(y_name if place[1] == 0 else "")
    legend(figure, columns)
    return figure


def places_of(panels: Sequence[Panel]) -> Iterator[tuple[int, int]]:
    """The (row, column) of each panel."""
    row = 0
    for _, members in groupby(panels, key=lambda panel: panel.dataset):
        number = len(list(members))
        for k in range(number):
            yield row + k // MOST_COLUMNS, k % MOST_COLUMNS
        row += -(-number // MOST_COLUMNS)


def fill(axes: "Axes", panel: Panel, dashes: Mapping[str, Dashes], paper: Paper) -> None:
    """Draw a panel's levels, then its lines, strong ones in front; each line with its standard deviations."""
    for level in panel.levels:
        axes.axhline(
            level.y, color=paper.quiet, linestyle=dashes[level.name], linewidth=1.2, label=level.name, zorder=1.5
        )
    for line in panel.lines:
        axes.errorbar(
            [point.x for point in line.points],
            [point.y for point in line.points],
            yerr=[point.std for point in line.points],
            label=line.name,
            color=line.style.colour,
            marker=line.style.marker,
            markersize=9 if line.strong else 8,
            markeredgecolor=paper.paper,
            markeredgewidth=0.7,
            linestyle=("--" if line.dashed else "-") if line.joined else "none",
            linewidth=2.6 if line.strong else 1.6,
            elinewidth=1.1,
            capsize=3,
            zorder=3 if line.strong else 2,
        )
    logarithmic(axes, [point.x for line in panel.lines for point in line.points])


def dashes_of(levels: Iterable[str]) -> dict[str, Dashes]:
    """A pattern for each name, the same in all panels, since they share a legend: dots, then short and long dashes, alone at first
    and then with more and more dots behind them. All are short enough to be told apart in the legend."""
    more = ((dash, 2) + (1, 2) * dots for dots in itertools.count() for dash in (4, 8))
    return {
        name: (0, pattern)
        for name, pattern in zip(dict.fromkeys(levels), itertools.chain([(1, 2)], more), strict=False)
    }


def logarithmic(axes: "Axes", xs: Sequence[float]) -> None:
    """A logarithmic x axis over the values with plain numbers on it, at least most of a decade wide. Where 0 is among them, it
    stands at the left, and the axis is linear from there to the smallest other value."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

    above = [x for x in xs if x > 0] or [1.0]
    low, high = min(above), max(above)
    margin = 1.25 * max(1.0, (6 / (high / low)) ** 0.5)
    ticks = LogLocator(subs=(1.0,) if high / low > 1000 else (1.0, 2.0, 5.0))
    if min(xs) > 0:
        axes.set_xscale("log")
        axes.set_xlim(low / margin, high * margin)
        axes.xaxis.set_major_locator(ticks)
    else:
        axes.set_xscale("symlog", linthresh=low, linscale=0.3)
        axes.set_xlim(-low / 3, high * margin)
        inside = [x for x in ticks.tick_values(low / margin, high * margin) if low <= x <= high * margin]
        axes.xaxis.set_major_locator(FixedLocator([0.0, *inside]))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
    axes.xaxis.set_minor_locator(NullLocator())


def legend(figure: "Figure", columns: int) -> None:
    """One legend below all panels, a name once, in as many columns as the figure is wide enough for."""
    found: dict[str, Artist] = {}
    for axes in figure.axes:
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    for ncols in range(min(len(found), 3 + columns // 2), 0, -1):
        made = figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=ncols)
        if ncols == 1 or made.get_window_extent().width <= figure.bbox.width:
            break
        made.remove()
