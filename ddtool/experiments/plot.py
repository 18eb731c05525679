"""A plot of lines over a logarithmic axis as SVG: no script, no font and no file from elsewhere, light and dark."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

WIDTH, HEIGHT = 900, 430
LEFT, RIGHT, TOP, BOTTOM = 56, 150, 40, 48
LETTER, LINE = 6.7, 15
"""Size of a label's letter and line, about: text is not measured here."""

STYLE = """
.plot { font: 12px system-ui, sans-serif; --paper: #ffffff; --ink: #1f2328; --quiet: #667079; --grid: #e6e8eb; }
.plot text { fill: var(--ink); }
.plot .quiet { fill: var(--quiet); }
.plot .title { font-size: 14px; font-weight: 600; }
.plot .strong { font-weight: 600; }
.plot .grid { stroke: var(--grid); }
.plot .level { stroke: var(--quiet); stroke-dasharray: 2 4; }
.plot .line { fill: none; stroke-width: 1.75; }
.plot .line.strong { stroke-width: 3; }
.plot .line.apart { stroke-dasharray: 7 4; }
.plot .leader { stroke: var(--c); opacity: .6; }
.plot .halo { paint-order: stroke; stroke: var(--paper); stroke-width: 4px; stroke-linejoin: round; }
"""
DARK = ".plot { --paper: #15181c; --ink: #e6e8eb; --quiet: #98a2ad; --grid: #2b3036; }"


@dataclass(frozen=True)
class Point:
    """One measurement: x positive, y with its standard deviation; `note` shows under a pointer."""

    x: float
    y: float
    std: float
    note: str


@dataclass(frozen=True)
class Line:
    """Points of one name. light, dark: its colour on paper of either kind; apart: dashed, with square marks."""

    name: str
    points: tuple[Point, ...]
    light: str
    dark: str
    strong: bool = False
    apart: bool = False


@dataclass(frozen=True)
class Level:
    """A height that no x belongs to."""

    name: str
    y: float


@dataclass(frozen=True)
class Panel:
    """One pair of axes."""

    title: str
    lines: tuple[Line, ...]
    levels: tuple[Level, ...]


@dataclass(frozen=True)
class Box:
    """A rectangle on the sheet."""

    left: float
    top: float
    right: float
    bottom: float

    def overlap(self, other: "Box") -> float:
        """The area that both share."""
        width = min(self.right, other.right) - max(self.left, other.left)
        height = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, width) * max(0.0, height)


class Axes:
    """Where values are on the sheet, for one panel whose upper edge is at `top`."""

    def __init__(self, panel: Panel, top: float) -> None:
        points = [point for line in panel.lines for point in line.points]
        xs = [math.log10(point.x) for point in points]
        ys = [y for point in points for y in (point.y - point.std, point.y + point.std)]
        ys += [level.y for level in panel.levels]
        middle, reach = (min(xs) + max(xs)) / 2, max(max(xs) - min(xs), 0.8) * 0.56
        self.x = (middle - reach, middle + reach)
        margin = max(max(ys) - min(ys), 1.0) * 0.08
        self.y = (min(ys) - margin, max(ys) + margin)
        self.top, self.bottom, self.left, self.right = top + TOP, top + HEIGHT - BOTTOM, LEFT, WIDTH - RIGHT

    def at_x(self, x: float) -> float:
        return self.left + (math.log10(x) - self.x[0]) / (self.x[1] - self.x[0]) * (self.right - self.left)

    def at_y(self, y: float) -> float:
        return self.bottom - (y - self.y[0]) / (self.y[1] - self.y[0]) * (self.bottom - self.top)

    def x_ticks(self) -> list[float]:
        """1, 2 and 5 of every decade in sight, or whole decades where those are many."""
        decades = range(math.floor(self.x[0]), math.ceil(self.x[1]) + 1)
        for steps in ((1, 2, 5), (1,)):
            ticks = [step * 10.0**decade for decade in decades for step in steps]
            ticks = [tick for tick in ticks if self.x[0] <= math.log10(tick) <= self.x[1]]
            if len(ticks) <= 10:
                break
        return ticks

    def y_ticks(self) -> list[float]:
        """About five round values."""
        raw = (self.y[1] - self.y[0]) / 5
        decade = 10 ** math.floor(math.log10(raw))
        step = decade * next(factor for factor in (1, 2, 5, 10) if factor * decade >= raw)
        return [step * n for n in range(math.ceil(self.y[0] / step), math.floor(self.y[1] / step) + 1)]


def draw(panels: Sequence[Panel], x_name: str, y_name: str) -> str:
    """The panels above each other, as one <svg>; empty without panels."""
    if not panels:
        return ""
    parts: list[str] = []
    colours = {line.name: line for panel in panels for line in panel.lines}
    names = {name: f"c{n}" for n, name in enumerate(colours)}
    for n, panel in enumerate(panels):
        parts += panel_parts(panel, Axes(panel, n * HEIGHT), names, x_name, y_name)
    light = "".join(f".plot .{names[name]} {{ --c: {line.light}; }}\n" for name, line in colours.items())
    dark = "".join(f".plot .{names[name]} {{ --c: {line.dark}; }}\n" for name, line in colours.items())
    height = HEIGHT * len(panels)
    return (
        f'<svg class="plot" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img" aria-label="{escape(y_name)} over {escape(x_name)}">\n'
        f"<style>{STYLE}{light}@media (prefers-color-scheme: dark) {{ {DARK}\n{dark}}}</style>\n"
        f'<rect width="{WIDTH}" height="{height}" style="fill: var(--paper)"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def panel_parts(panel: Panel, axes: Axes, names: dict[str, str], x_name: str, y_name: str) -> Iterator[str]:
    """The elements of one panel, those in front last."""
    yield text(axes.left, axes.top - 18, panel.title, "title")
    for tick in axes.y_ticks():
        y = axes.at_y(tick)
        yield f'<path class="grid" d="M{axes.left},{y:.1f}H{axes.right}"/>'
        yield text(axes.left - 8, y + 4, f"{tick:g}", "quiet", "end")
    for tick in axes.x_ticks():
        x = axes.at_x(tick)
        yield f'<path class="grid" d="M{x:.1f},{axes.top}V{axes.bottom}"/>'
        yield text(x, axes.bottom + 17, f"{tick:,g}", "quiet", "middle")
    yield text(axes.right, axes.bottom + 36, x_name, "quiet", "end")
    yield text(axes.left, axes.top - 3, y_name, "quiet")
    taken = [Box(0, axes.top - 14, axes.left + LETTER * len(y_name), axes.top + 2)]
    taken += [mark_box(axes, point) for line in panel.lines for point in line.points]
    taken += [box for line in panel.lines for box in segment_boxes(axes, line)]
    for level in panel.levels:
        yield f'<path class="level" d="M{axes.left},{axes.at_y(level.y):.1f}H{axes.right}"/>'
    for line in sorted(panel.lines, key=lambda line: line.strong):
        yield from line_parts(line, axes, names[line.name])
    for level in panel.levels:
        y = axes.at_y(level.y)
        width = LETTER * len(level.name)
        lefts = [axes.left + 6, axes.right - width - 6, (axes.left + axes.right - width) / 2]
        box = freest([Box(left, y + dy, left + width, y + dy + LINE) for dy in (-LINE - 1, 2) for left in lefts], taken)
        taken.append(box)
        yield text(box.left, box.bottom - 3, level.name, "quiet halo")
    for line in sorted(panel.lines, key=lambda line: not line.strong):
        box = freest(places(axes, line), taken)
        taken.append(box)
        yield from leader(axes, line, box, names[line.name])
        yield text(box.left, box.bottom - 3, line.name, "halo strong" if line.strong else "halo")


def line_parts(line: Line, axes: Axes, colour: str) -> Iterator[str]:
    """A line, its whiskers and its marks."""
    where = [(axes.at_x(point.x), axes.at_y(point.y)) for point in line.points]
    kind = " strong" * line.strong + " apart" * line.apart
    path = "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in where)
    yield f'<g class="{colour}"><path class="line{kind}" style="stroke: var(--c)" d="{path}"/>'
    for (x, y), point in zip(where, line.points, strict=True):
        up, down = axes.at_y(point.y + point.std), axes.at_y(point.y - point.std)
        if down - up > 1:
            ends = f"M{x:.1f},{up:.1f}V{down:.1f}M{x - 4:.1f},{up:.1f}h8M{x - 4:.1f},{down:.1f}h8"
            yield f'<path style="stroke: var(--c)" d="{ends}"/>'
        style = 'style="fill: var(--c); stroke: var(--paper)"'
        note = f"<title>{escape(point.note)}</title>"
        if line.apart:
            yield f'<rect x="{x - 4.5:.1f}" y="{y - 4.5:.1f}" width="9" height="9" {style}>{note}</rect>'
        else:
            yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{6 if line.strong else 4.5}" {style}>{note}</circle>'
    yield "</g>"


def mark_box(axes: Axes, point: Point) -> Box:
    """What a mark with its whiskers covers."""
    x = axes.at_x(point.x)
    up, down = axes.at_y(point.y + point.std), axes.at_y(point.y - point.std)
    return Box(x - 6, up - 4, x + 6, down + 4)


def segment_boxes(axes: Axes, line: Line) -> Iterator[Box]:
    """Small rectangles along a line."""
    where = [(axes.at_x(point.x), axes.at_y(point.y)) for point in line.points]
    for (x0, y0), (x1, y1) in pairwise(where):
        parts = max(1, int(math.hypot(x1 - x0, y1 - y0) / 8))
        for n in range(parts + 1):
            x, y = x0 + (x1 - x0) * n / parts, y0 + (y1 - y0) * n / parts
            yield Box(x - 3, y - 3, x + 3, y + 3)


def places(axes: Axes, line: Line) -> Iterator[Box]:
    """Where the name of a line may stand, near its last point, the best place first."""
    end = line.points[-1]
    x, y = axes.at_x(end.x), axes.at_y(end.y)
    width = LETTER * len(line.name) * (1.08 if line.strong else 1.0)
    for away in range(0, 10 * LINE, LINE // 2):
        for left in (x + 10, x - width / 2, x - width - 10):
            for top in (y - LINE / 2 - away, y - LINE / 2 + away):
                shifted = top if left != x - width / 2 else top + math.copysign(LINE, top + LINE / 2 - y or -1)
                box = Box(left, shifted, left + width, shifted + LINE)
                if box.left > axes.left and box.right < WIDTH and box.top > axes.top - 8 and box.bottom < axes.bottom:
                    yield box


def leader(axes: Axes, line: Line, box: Box, colour: str) -> Iterator[str]:
    """A thin line from the last point to its name, where that stands apart from it."""
    end = line.points[-1]
    x, y = axes.at_x(end.x), axes.at_y(end.y)
    to_x, to_y = min(max(x, box.left), box.right), min(max(y, box.top + 3), box.bottom - 3)
    if math.hypot(to_x - x, to_y - y) > 1.5 * LINE:
        yield f'<path class="{colour} leader" d="M{x:.1f},{y:.1f}L{to_x:.1f},{to_y:.1f}"/>'


def freest(boxes: Iterator[Box] | Sequence[Box], taken: Sequence[Box]) -> Box:
    """The first of the boxes that covers least of what is taken."""
    return min(boxes, key=lambda box: sum(box.overlap(other) for other in taken))


def text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    """A text element."""
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(words)}</text>'
