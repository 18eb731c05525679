"""What matplotlib draws for the page of a run: losses over steps, accuracy by class, and which class is taken for which."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

from ddtool.reports.canvas import LIGHT
from ddtool.text import one_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

OURS, THEIRS, FAINT = "#2f6fdb", "#c07a1e", "#b9cdf0"
"""The colours of the set, of random real images, and of single losses; they differ in brightness, too."""
MOST_POINTS = 500
"""The most points of a curve."""
MOST_PANELS, COLUMNS = 6, 3
"""The most curves, and how many stand beside each other."""
MOST_NAMED, MOST_COUNTED = 40, 12
"""The most classes of a confusion matrix with names beside it, and with figures in it."""


def curves(losses: Mapping[str, Mapping[int, float]], accuracies: Mapping[str, Mapping[float, float]]) -> "Figure":
    """The loss of each phase over its steps with its moving mean, a panel for each of the first ones; then, where there are any,
    the accuracies in percent over seconds, a line for each name."""
    from matplotlib.figure import Figure

    shown = dict(list(losses.items())[:MOST_PANELS])
    panels = len(shown) + bool(accuracies)
    columns = min(panels, COLUMNS)
    rows = -(-panels // columns)
    figure = Figure(figsize=(9.2, 2.7 * rows), layout="constrained")
    for place, (name, values) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(rows, columns, place)
        steps, losses_shown = thinned(values)
        axes.plot(steps, losses_shown, color=FAINT, linewidth=1.0)
        axes.plot(steps, smoothed(losses_shown), color=OURS, linewidth=2.0)
        axes.set_title(name, loc="left")
        axes.set_xlabel("step")
        axes.set_ylabel("loss" if place % columns == 1 or columns == 1 else "")
    if accuracies:
        stage_by_stage(figure.add_subplot(rows, columns, panels), accuracies)
    return figure


def stage_by_stage(axes: "Axes", accuracies: Mapping[str, Mapping[float, float]]) -> None:
    """A line for each name through its accuracies in percent, over seconds."""
    for (name, points), marker in zip(accuracies.items(), cycle("oDs^"), strict=False):
        axes.plot(list(points), list(points.values()), f"{marker}-", linewidth=2.0, markersize=6, label=name)
    axes.set_title("after each stage", loc="left")
    axes.set_xlabel("seconds")
    axes.set_ylabel("test accuracy, %")
    axes.legend(loc="lower right")


def thinned(values: Mapping[int, float]) -> tuple[list[int], list[float]]:
    """Steps and losses, at most `MOST_POINTS` of them, evenly spread."""
    every = -(-len(values) // MOST_POINTS)
    return list(values)[::every], list(values.values())[::every]


def smoothed(values: Sequence[float]) -> list[float]:
    """The mean of the values around each one, a tenth of all: each step meets another random network, so losses jump."""
    reach = len(values) // 20
    parts = [values[max(0, k - reach) : k + reach + 1] for k in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def by_class(
    names: Sequence[str],
    ours: Sequence[float],
    theirs: Sequence[float] | None,
    legend: tuple[str, str],
) -> "Figure":
    """The accuracy of each class in percent, a line each, from the best to the worst; that of another set beside it."""
    from matplotlib.figure import Figure

    order = sorted(range(len(names)), key=lambda c: ours[c])
    figure = Figure(figsize=(9.2, 1.2 + 0.27 * len(names)), layout="constrained")
    axes, heights = figure.add_subplot(), range(len(order))
    axes.plot([ours[c] for c in order], heights, "o", color=OURS, markersize=8, zorder=3, label=legend[0])
    if theirs is not None:
        ends = [sorted((ours[c], theirs[c])) for c in order]
        axes.hlines(heights, [low for low, _ in ends], [high for _, high in ends], color=LIGHT.grid, linewidth=3)
        axes.plot([theirs[c] for c in order], heights, "D", color=THEIRS, markersize=6, label=legend[1])
    axes.set_yticks(heights, [one_line(names[c], 28) for c in order], color=LIGHT.ink)
    axes.set_ylim(-0.7, len(order) - 0.3)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("accuracy, % of the test images of the class")
    figure.legend(loc="outside upper right", ncols=2)
    return figure


def confusion(names: Sequence[str], shares: Sequence[Sequence[float]]) -> "Figure":
    """Percent of each true class (a row) that is taken for each class (a column), on a square."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure

    C = len(names)
    side = 3.2 + 0.27 * min(C, MOST_NAMED) if C <= MOST_NAMED else 8.0
    figure = Figure(figsize=(min(9.2, side + 1.2), min(8.4, side)), layout="constrained")
    axes = figure.add_subplot()
    colours = LinearSegmentedColormap.from_list("ddtool", [LIGHT.paper, "#8fb4f2", OURS, "#0b2a66"])
    mesh = axes.pcolormesh(shares, cmap=colours, vmin=0, vmax=100, rasterized=C > MOST_NAMED)
    axes.grid(False)
    axes.invert_yaxis()
    axes.set_aspect("equal")
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    if C <= MOST_NAMED:
        short = [one_line(name, 20) for name in names]
        places = [k + 0.5 for k in range(C)]
        axes.set_xticks(places, short, rotation=90 if C > MOST_COUNTED else 45, ha="center" if C > MOST_COUNTED else "right",
                        rotation_mode="default" if C > MOST_COUNTED else "anchor", color=LIGHT.ink)  # fmt: skip
        axes.set_yticks(places, short, color=LIGHT.ink)
    axes.tick_params(length=0)
    if C <= MOST_COUNTED:
        write_figures(axes, shares)
    figure.colorbar(mesh, ax=axes, shrink=0.6, label="% of the class")
    return figure


def write_figures(axes: "Axes", shares: Sequence[Sequence[float]]) -> None:
    """Write each share that does not round to zero into its cell."""
    for row, values in enumerate(shares):
        for column, value in enumerate(values):
            if value >= 0.5:
                colour = "#ffffff" if value > 45 else LIGHT.ink
                axes.text(column + 0.5, row + 0.5, f"{value:.0f}", ha="center", va="center", fontsize=8, color=colour)
