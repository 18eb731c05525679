"""What all plots share: colours that are written out, on a ground of their own, and files that are the same for the same data.

Text is drawn as shapes, so that an SVG looks alike in a browser, an editor and a printer. matplotlib is imported when a plot is
drawn and not before.
"""

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS_PER_INCH = 160
"""Dots per inch of a PNG."""
Kind = Literal["svg", "png"]
Drawing = Callable[[], "Figure"]
"""Makes a figure, once the settings hold."""


@dataclass(frozen=True)
class Paper:
    """The colours around the lines."""

    paper: str
    ink: str
    quiet: str
    grid: str


LIGHT = Paper("#ffffff", "#1f2328", "#667079", "#e3e6e9")
DARK = Paper("#15181c", "#e6e8eb", "#98a2ad", "#2f353c")


def drawn(make: Drawing, kind: Kind = "svg", paper: Paper = LIGHT) -> bytes:
    """The figure that `make` makes, as the bytes of a file; the same ones with the same matplotlib."""
    import matplotlib

    out = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a letter that no font here has is an empty box
        matplotlib.rcdefaults()  # the file does not depend on the user's own matplotlibrc
        matplotlib.rcParams.update(settings(paper))
        unsaid = ("Creator", "Date", "Format", "Type") if kind == "svg" else ("Software",)
        make().savefig(out, format=kind, dpi=DOTS_PER_INCH, metadata=dict.fromkeys(unsaid))
    return out.getvalue()


def settings(paper: Paper) -> dict[Any, Any]:
    """The settings of matplotlib for every plot."""
    return {
        "svg.fonttype": "path",
        "svg.hashsalt": "ddtool",
        "text.parse_math": False,  # a dataset's name may have dollar signs
        "font.size": 10,
        "text.color": paper.ink,
        "axes.labelcolor": paper.ink,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.edgecolor": paper.quiet,
        "axes.facecolor": paper.paper,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": paper.grid,
        "xtick.color": paper.quiet,
        "ytick.color": paper.quiet,
        "figure.facecolor": paper.paper,
        "savefig.facecolor": paper.paper,
        "legend.frameon": False,
    }
