"""Plots of accuracy: what is drawn, how it looks to different eyes, and that it is the same each time."""

import io
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from itertools import combinations
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from tiny import ROOT

from ddtool.experiments.grid import entries
from ddtool.experiments.plot import (
    Level,
    Line,
    Panel,
    Point,
    dashes_of,
    draw,
    logarithmic,
    places_of,
    sheet,
    spare_style,
)
from ddtool.experiments.report import style_of
from ddtool.experiments.words import short_title
from ddtool.reports.canvas import DARK, LIGHT, Paper

NAMES = ("seconds", "accuracy, %")
STYLES = {name: style_of(name) for name, entry in entries().items() if entry.variant.colour}
LEARNING = {name for name, entry in entries().items() if entry.method.learns}
MGDD, DM = STYLES["mgdd"], STYLES["dm"]


def panel(dataset: str = "toy", title: str = "10 images per class", points: int = 3) -> Panel:
    lines = tuple(
        Line(name, tuple(Point(10.0**k, 40 + 2 * k + n, 1.5) for k in range(points)), style, strong=n > 0)
        for n, (name, style) in enumerate((("DM", DM), ("MGDD", MGDD)))
    )
    return Panel(dataset, title, lines, (Level("random real images", 31.0), Level("herding", 33.0)))


def test_what_is_on_the_sheet() -> None:
    shown = panel()
    figure = sheet([shown], *NAMES, LIGHT)
    (axes,) = figure.axes
    assert (axes.get_title("left"), axes.get_xlabel(), axes.get_ylabel()) == (shown.title, *NAMES)
    assert axes.get_xscale() == "log"
    curves = {bars.get_label(): bars for bars in axes.containers}
    assert list(curves) == ["DM", "MGDD"]
    mark, _, (whiskers,) = curves["MGDD"]  # type: ignore[misc]
    assert mark.get_xydata().tolist() == [[1, 41], [10, 43], [100, 45]]
    assert (mark.get_color(), mark.get_marker()) == (MGDD.colour, MGDD.marker)
    assert [(low[1], high[1]) for low, high in whiskers.get_segments()] == [(39.5, 42.5), (41.5, 44.5), (43.5, 46.5)]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random real images", "herding", "DM", "MGDD"]


def test_a_level_looks_the_same_in_every_panel() -> None:
    """Also where another one is missing: there is one legend."""
    whole = replace(panel(), levels=(Level("whole training set", 87.0), *panel().levels))
    svg = draw([whole, panel()], *NAMES).decode()
    patterns = Counter(re.findall(r"stroke-dasharray: ([\d., ]+);", svg))
    assert list(patterns.values()) == [1 + 1, 2 + 1, 2 + 1]  # in the panels and in the legend


def test_levels_can_be_told_apart_by_name_and_pattern() -> None:
    """Those of real images with fitted labels from those of the same images without, also in the legend."""
    titles = {name: short_title(SimpleNamespace(title=entry.variant.title)) for name, entry in entries().items()}  # type: ignore[arg-type]
    assert len(set(titles.values())) == len(titles)
    assert titles["herding+labels"] == "herding, fitted labels"
    patterns = [
        pattern for _, pattern in dashes_of(titles[name] for name in entries() if name not in LEARNING).values()
    ]
    assert len(set(patterns)) == len(patterns) == 8
    assert max(map(sum, patterns)) <= 16  # widths of a line: the legend shows 20 points, and a line has 1.2


def test_a_row_for_each_dataset_and_two_panels_a_row() -> None:
    shown = [panel("a", "1"), panel("a", "10"), panel("a", "50"), panel("b", "1")]
    assert list(places_of(shown)) == [(0, 0), (0, 1), (1, 0), (2, 0)]
    figure = sheet(shown, *NAMES, LIGHT)
    assert [axes.get_title("left") for axes in figure.axes] == ["a, 1", "a, 10", "a, 50", "b, 1"]
    assert [bool(axes.get_xlabel()) for axes in figure.axes] == [False, True, False, True]  # at the bottom of a column
    assert [bool(axes.get_ylabel()) for axes in figure.axes] == [True, False, True, True]
    assert len(figure.legends) == 1


def test_long_names_do_not_leave_the_sheet() -> None:
    long = [replace(line, name=f"{line.name}, generator alone, 4 images in the place of one") for line in panel().lines]
    figure = sheet([replace(panel(), lines=tuple(long), levels=())], *NAMES, LIGHT)
    (legend,) = figure.legends
    assert legend.get_window_extent().width <= figure.bbox.width
    assert len(legend.get_texts()) == 2


@pytest.mark.parametrize("points", [1, 3])
def test_an_axis_with_plain_numbers(points: int) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    logarithmic(axes, [10.0**k for k in range(points)])
    low, high = axes.get_xlim()
    assert high / low >= 5
    ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert ticks == pytest.approx([0.5, 1, 2] if points == 1 else [1, 2, 5, 10, 20, 50, 100])
    assert [axes.xaxis.get_major_formatter()(x) for x in (0.5, 20.0, 5000.0)] == ["0.5", "20", "5,000"]


@pytest.mark.parametrize(
    ("xs", "shown"),
    [
        ([0.0, 0.23, 0.45], [0, 0.5]),
        ([0.0, 1.0, 2.0, 4.0], [0, 1, 2, 5]),
        ([0.0, 0.3, 40.0], [0, 0.5, 1, 2, 5, 10, 20, 50]),
        ([0.0, 1.4, 4000.0], [0, 10, 100, 1000]),
    ],
)
def test_an_axis_from_0_has_few_plain_numbers_too(xs: list[float], shown: list[float]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    logarithmic(axes, xs)
    assert axes.get_xticks().tolist() == pytest.approx(shown)


def test_few_ticks_over_many_decades() -> None:
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    logarithmic(axes, [1e-2, 1e4])
    low, high = axes.get_xlim()
    inside = [tick for tick in axes.get_xticks() if low <= tick <= high]
    assert 3 <= len(inside) <= 8
    assert all(math.log10(tick) == pytest.approx(round(math.log10(tick))) for tick in inside)


@pytest.mark.parametrize("kind", ["svg", "png"])
@pytest.mark.parametrize("paper", [LIGHT, DARK])
def test_the_same_bytes_each_time(kind: str, paper: Paper) -> None:
    first, second = (draw([panel()], *NAMES, kind, paper) for _ in range(2))  # type: ignore[arg-type]
    assert first == second
    assert not re.search(rb"20\d\d-\d\d-\d\d|<dc:date|Matplotlib v", first)


def test_the_users_own_settings_change_nothing_and_stay() -> None:
    import matplotlib

    before = draw([panel()], *NAMES)
    with matplotlib.rc_context({"font.size": 30, "axes.grid": False, "svg.hashsalt": "mine"}):
        assert draw([panel()], *NAMES) == before
        assert matplotlib.rcParams["font.size"] == 30


@pytest.mark.filterwarnings("error")
def test_a_letter_that_no_font_has_is_no_trouble() -> None:
    assert draw([panel("猫", "猫 $1"), panel("dog")], *NAMES) != draw([panel("x", "$1"), panel("dog")], *NAMES)


def test_a_picture_that_is_right_outside_browsers() -> None:
    text = draw([panel("x$_1$ <&>", "$y$"), panel("z")], *NAMES, paper=DARK).decode()
    ElementTree.fromstring(text)
    assert "var(" not in text
    assert "prefers-color-scheme" not in text
    assert "<text" not in text  # letters are shapes: no font is needed
    assert {DARK.paper, DARK.ink, MGDD.colour, DM.colour} <= set(re.findall(r"#[0-9a-f]{6}", text))


def test_pixels_of_the_paper() -> None:
    for paper, corner in ((LIGHT, (255, 255, 255)), (DARK, (0x15, 0x18, 0x1C))):
        with Image.open(io.BytesIO(draw([panel()], *NAMES, "png", paper))) as picture:
            assert picture.format == "PNG"
            assert picture.convert("RGB").getpixel((2, 2)) == corner
            assert picture.width > 1000


def test_nothing_is_drawn_through_pyplot() -> None:
    code = (
        "import sys; from ddtool.experiments import plot; assert 'matplotlib' not in sys.modules\n"
        "line = plot.Line('a', (plot.Point(1.0, 2.0),), plot.spare_style('dm'))\n"
        "for kind in ('svg', 'png'): plot.draw([plot.Panel('d', 't', (line,))], 'x', 'y', kind)\n"
        "assert 'matplotlib' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# ------------------------------------------------------------------------------------------------------------ colours

LOST_CONES = {
    "all there": np.eye(3),
    "protanopia": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "deuteranopia": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]]
    ),
    "tritanopia": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]]
    ),
}
"""What is left of a linear RGB colour (Machado, Oliveira and Fernandes, 2009)."""
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    """#rrggbb as linear RGB, (3,)."""
    c = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """Linear RGB (3,) as CIELAB (3,)."""
    x = TO_XYZ @ rgb.clip(0, 1) / TO_XYZ.sum(1)
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG."""
    low, high = sorted(float(TO_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_methods_have_colours_and_marks_of_their_own() -> None:
    assert STYLES.keys() == LEARNING
    assert len({style.colour for style in STYLES.values()}) == len({s.marker for s in STYLES.values()}) == len(STYLES)
    new = style_of("a-new-one")
    assert new == spare_style("a-new-one") == style_of("a-new-one")
    assert new.marker not in {style.marker for style in STYLES.values()}


@pytest.mark.parametrize("eye", LOST_CONES)
def test_colours_stay_apart_for_every_eye(eye: str) -> None:
    seen = {name: lab(LOST_CONES[eye] @ linear(style.colour)) for name, style in STYLES.items()}
    distances = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(seen, 2)}
    assert min(distances.values()) > 20, min(distances, key=lambda pair: distances[pair])


@pytest.mark.parametrize("paper", [LIGHT, DARK])
def test_colours_stand_out_from_the_paper(paper: Paper) -> None:
    assert min(contrast(style.colour, paper.paper) for style in STYLES.values()) > 2.3
    assert contrast(paper.ink, paper.paper) > 7
    assert contrast(paper.quiet, paper.paper) > 4.5
