"""The report of a comparison: results.json, results.csv, results.md, report.html, accuracy-over-seconds.svg and .png."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from itertools import groupby, product
from pathlib import Path

from pydantic import TypeAdapter

from ddtool.config import Values
from ddtool.experiments.folder import Folder, values_of
from ddtool.experiments.gallery import Gallery, gallery
from ddtool.experiments.grid import entry_of
from ddtool.experiments.plot import Level, Line, Panel, Point, Style, draw, spare_style
from ddtool.experiments.table import OURS, PLAIN, Comparison, Row, gather
from ddtool.experiments.words import (
    OF_OTHERS,
    SPEEDUP_HEADERS,
    columns,
    heading,
    lead,
    line,
    notes,
    overview,
    short_title,
    speedup_cells,
    title,
)
from ddtool.reports.canvas import DARK
from ddtool.reports.layout import in_base64, page
from ddtool.runs.files import REPORT, write_bytes
from ddtool.text import dataset_name

PAGE = REPORT
PLOT = "accuracy-over-seconds"
AXES = ("seconds, overhead included (logarithmic)", "test accuracy, %")
TEMPLATE = Path(__file__).parent / "templates" / "comparison.html.j2"
ROW = TypeAdapter(Row)
TextRow = tuple[Row, Sequence[str]]
"""A row and its cells."""


def render(folder: Folder) -> Comparison:
    """Write what the folder says by now; returns it. Several processes may do so at once: the last word is the latest."""
    found = gather(folder)
    while True:
        for name, content in files(found, folder).items():
            write_bytes(folder.path / name, content)
        written, found = found, gather(folder)
        if found == written:
            return found


def files(found: Comparison, folder: Folder) -> dict[str, bytes]:
    """Every file of a report by its name; plots and images only where something is finished."""
    shown = panels(found)
    plots = {f"{PLOT}.svg": draw(shown, *AXES), f"{PLOT}.png": draw(shown, *AXES, kind="png")} if shown else {}
    texts = {
        "results.json": json.dumps(to_json(found), indent=2) + "\n",
        "results.csv": to_csv(found),
        "results.md": to_markdown(found),
        PAGE: to_html(
            found, plots.get(f"{PLOT}.svg"), draw(shown, *AXES, paper=DARK) if shown else None, gallery(found, folder)
        ),
    }
    return {name: text.encode() for name, text in texts.items()} | plots


# -------------------------------------------------------------------------------------------------------- JSON and CSV


def to_json(found: Comparison) -> Values:
    """Everything, as plain JSON values."""
    others: Values = {"others": [to_json(one) for one in found.others]} if found.others else {}
    return others | {
        "request": values_of(found.request),
        "rows": [ROW.dump_python(row, mode="json") for row in found.rows],
        "speedups": [
            asdict(one) | {"baseline": about(one.baseline), "mgdd": one.mgdd and about(one.mgdd)}
            for one in found.speedups
        ],
        "failures": [{"job": job, "reason": reason} for job, reason in found.failures],
        "waiting": found.waiting,
        "devices": list(found.devices),
        "shared_device": found.shared,
        "notes": [*notes(found)],
    }


def about(row: Row) -> Values:
    """A row in short."""
    names = {"method", "ipc", "budget", "accuracy", "total_seconds"}
    return ROW.dump_python(row, mode="json", include=names)


def to_csv(found: Comparison) -> str:
    """One line a row, with every figure in full."""
    out = io.StringIO()
    names = [f.name for f in fields(Row) if f.name != "jobs"]
    writer = csv.writer(out)
    writer.writerow(["protocol", *names])
    for one in found.by_protocol:
        writer.writerows([one.request.protocol, *(getattr(row, name) for name in names)] for row in one.rows)
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------------ Markdown


def to_markdown(found: Comparison) -> str:
    """The tables for a README or an issue."""
    headers, several = columns(found), bool(found.others)
    lines = [f"# {in_markdown(title(found))}", "", in_markdown(lead(found)), ""]
    for one in found.by_protocol:
        lines += ["", f"## Protocol {one.request.protocol}", ""] if several else []
        lines += markdown_table(overview_headers(one), overview_rows(one))
    for ipc, one in product(found.ipcs(), found.by_protocol):
        lines += ["", f"## {heading(one, ipc, several)}", ""]
        lines += markdown_table(headers, rows_of(one, ipc))
    for one in found.by_protocol:
        if one.speedups:
            under = f", protocol {one.request.protocol}" if several else ""
            lines += ["", f"## Until MGDD is as accurate{under}", "", *markdown_head(SPEEDUP_HEADERS)]
            lines += [markdown_row(speedup_cells(speedup)) for speedup in one.speedups]
    return "\n".join([*lines, "", *(f"- {in_markdown(note)}" for note in notes(found))]) + "\n"


def markdown_table(headers: Sequence[str], rows: Sequence[TextRow]) -> Iterator[str]:
    """A table with a line above each group but the first."""
    yield from markdown_head(headers)
    for group, members in groupby(rows, key=lambda pair: pair[0].group):
        if group != PLAIN:
            yield markdown_row([f"*{group}*", *[""] * (len(headers) - 1)], escaped=True)
        for _, texts in members:
            yield markdown_row([in_markdown(cell) for cell in texts], escaped=True)


def markdown_head(headers: Sequence[str]) -> list[str]:
    """The head of a table."""
    return [markdown_row(headers), "|:--" + "|--:" * (len(headers) - 1) + "|"]


def markdown_row(texts: Sequence[str], escaped: bool = False) -> str:
    """A line of a table."""
    return "| " + " | ".join(text if escaped else in_markdown(text) for text in texts) + " |"


def in_markdown(text: str) -> str:
    """Text that means nothing to Markdown."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text


# ---------------------------------------------------------------------------------------------------------------- HTML


def to_html(found: Comparison, light: bytes | None, dark: bytes | None, images: Gallery) -> str:
    """One page that needs nothing beside itself. light, dark: the plot for either kind of screen, as SVG."""
    every, several = found.by_protocol, bool(found.others)
    tables = [(heading(one, ipc, several), rows_of(one, ipc)) for ipc, one in product(found.ipcs(), every)]
    return page(
        TEMPLATE,
        title=title(found),
        lead=lead(found),
        overviews=[(one.request.protocol, overview_headers(one), groups(overview_rows(one))) for one in every],
        plot={"light": light and in_base64(light), "dark": dark and in_base64(dark), "alt": alternative(found)},
        speedups=[
            (one.request.protocol, SPEEDUP_HEADERS, [speedup_cells(speedup) for speedup in one.speedups]) for one in every
        ],
        headers=columns(found),
        of_others=OF_OTHERS,
        tables=[(words, groups(rows)) for words, rows in tables],
        images=images,
        notes=notes(found),
    )  # fmt: skip


def alternative(found: Comparison) -> str:
    """What the plot shows, for those who do not see it."""
    parts = []
    for panel in panels(found):
        ends = (f"{one.name} {one.points[-1].y:.1f} % in {one.points[-1].x:,.0f} s" for one in panel.lines)
        parts.append(f"{panel.title}: {', '.join(ends)}.")
    return f"Test accuracy over seconds, a line for each method. {' '.join(parts)}"


def groups(rows: Sequence[TextRow]) -> list[tuple[str, list[TextRow]]]:
    """Rows by their group, in their order."""
    return [(group, list(members)) for group, members in groupby(rows, key=lambda pair: pair[0].group)]


# ------------------------------------------------------------------------------------- what several formats have in common


def overview_headers(found: Comparison) -> list[str]:
    """The headers of the paper's table."""
    return ["method", *(f"IPC {ipc}" for ipc in found.ipcs())]


def overview_rows(found: Comparison) -> list[TextRow]:
    """The rows of the paper's table."""
    return [(row, [row.title, *scores]) for row, scores in overview(found)]


def rows_of(found: Comparison, ipc: int) -> list[TextRow]:
    """The rows of one IPC."""
    headers = columns(found)
    return [(row, line(row, headers)) for row in found.rows if row.ipc == ipc]


# ---------------------------------------------------------------------------------------------------------------- plot


def panels(*comparisons: Comparison) -> list[Panel]:
    """Accuracy over seconds for each dataset and IPC where a method with a budget has a score."""
    return [
        panel
        for found in comparisons
        for ipc, one in product(found.ipcs(), found.by_protocol)
        for panel in panel_of(one, ipc, bool(found.others))
    ]


def panel_of(found: Comparison, ipc: int, several: bool = False) -> Iterator[Panel]:
    """The panel of one IPC, if there is a line to show."""
    rows = [row for row in found.rows if row.ipc == ipc and row.accuracy is not None]
    timed = [row for row in rows if row.budget]
    lines = tuple(line_of(list(members)) for _, members in groupby(timed, key=lambda row: row.method))
    levels = tuple(Level(short_title(row), row.accuracy or 0.0) for row in rows if not row.budget)
    if lines:
        yield Panel(dataset_name(found.request.dataset), heading(found, ipc, several), lines, levels)


def line_of(rows: Sequence[Row]) -> Line:
    """The line of one method: its budgets, by seconds."""
    points = tuple(
        Point(max(row.total_seconds or 0.0, 1e-3), row.accuracy or 0.0, row.std or 0.0)
        for row in sorted(rows, key=lambda row: row.total_seconds or 0.0)
    )
    first = rows[0]
    named = first.group in (PLAIN, OURS)  # the title of MGDD's says it
    name = short_title(first) if named else f"{short_title(first)} ({first.group})"
    return Line(name, points, style_of(first.method), strong=first.ours, dashed=first.factor > 1)


def style_of(method: str) -> Style:
    """The look of a method's line, the same in every plot."""
    variant = entry_of(method).variant
    return Style(variant.colour, variant.marker) if variant.colour else spare_style(method)
