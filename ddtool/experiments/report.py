"""A comparison as tables and a plot: results.json, results.csv, results.md, report.html, accuracy-over-seconds.svg."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from html import escape
from itertools import groupby
from pathlib import Path
from typing import Any

from ddtool.experiments.compare import (
    MGDD,
    OURS,
    PLAIN,
    Comparison,
    Factor,
    Folder,
    Request,
    Row,
    gather,
    known_methods,
)
from ddtool.experiments.plot import Level, Line, Panel, Point, draw
from ddtool.runs.run import write_atomically

HEADERS = ("method", "IPC", "budget", "accuracy, %", "steps", "s in steps", "s outside", "pre-training, s", "peak MiB")
PAGE = "report.html"
COLOURS = {
    "dc": ("#6b7280", "#9ca3af"), "dsa": ("#0d9488", "#2dd4bf"), "idc": ("#7c3aed", "#a78bfa"),
    "mtt": ("#2563eb", "#60a5fa"), "dm": ("#4d7c0f", "#a3e635"), "frepo": ("#c026d3", "#e879f9"),
    "mgdd-generator": ("#ea8a00", "#fbbf24"), "mgdd": ("#dc2626", "#f87171"),
}  # fmt: skip
"""Of a method's line, on light and on dark paper: the same in every comparison."""
OTHER = ("#475569", "#cbd5e1")
NAMES = {"dc": "DC", "dsa": "DSA", "idc": "IDC", "mtt": "MTT", "dm": "DM", "frepo": "FRePo"} | MGDD
"""Short names for the plot."""

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --ink: #1f2328; --quiet: #667079; --rule: #d9dde1; --band: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #15181c; --ink: #e6e8eb; --quiet: #98a2ad; --rule: #333a42; --band: #1d2126; }
}
body { margin: 0 auto; padding: 2rem 1.5rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 .25rem; }
h2 { font-size: 1.1rem; margin: 2.25rem 0 .5rem; }
p, li { max-width: 48rem; }
.lead, .quiet, caption { color: var(--quiet); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .5rem 0 1rem; }
caption { text-align: left; padding-bottom: .35rem; }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: .4rem; }
thead th { border-bottom: 1px solid var(--rule); font-weight: 600; vertical-align: bottom; }
.factors :is(th, td):is(:nth-child(2), :nth-child(5)) { text-align: left; }
tr.group th { text-align: left; font-weight: 500; color: var(--quiet); background: var(--band); font-size: .87em; }
tr.ours td { font-weight: 650; }
tbody tr:last-child td { border-bottom: 1px solid var(--rule); }
td.failed { color: #c2410c; font-weight: 400; }
svg { max-width: 100%; height: auto; }
"""


def render(folder: Folder) -> Comparison:
    """Write what the folder says by now; returns it. Several processes may do so at once: the last word is the latest."""
    found = gather(folder)
    while True:
        for name, text in files(found).items():
            write_text(folder.path / name, text)
        written, found = found, gather(folder)
        if found == written:
            return found


def write_text(path: Path, text: str) -> None:
    """A text file, whole or not at all, with the line ends that it has."""
    write_atomically(path, lambda temporary: temporary.write_bytes(text.encode()))


def files(found: Comparison) -> dict[str, str]:
    """Every file of a report by its name."""
    plot = draw(panels(found), "seconds, in steps and outside them (logarithmic)", "test accuracy, %")
    out = {
        "results.json": json.dumps(to_json(found), indent=2) + "\n",
        "results.csv": to_csv(found),
        "results.md": to_markdown(found),
        PAGE: to_html(found, plot),
    }
    return out | ({"accuracy-over-seconds.svg": plot} if plot else {})


# ------------------------------------------------------------------------------------------------------ words, cells


def title(found: Comparison) -> str:
    """What is compared."""
    name = found.request.dataset
    return f"Dataset distillation on {Path(name).name if name[:1] in ('/', '.', '~') else name}"


def per_class(ipc: int) -> str:
    """An IPC in words."""
    return f"{ipc} image{'s' if ipc > 1 else ''} per class"


def lead(found: Comparison) -> str:
    """One line on the conditions."""
    request = found.request
    return f"Protocol {request.protocol}, {networks(request)} a job; {', '.join(found.devices) or 'nothing is finished yet'}."


def networks(request: Request) -> str:
    """How many a job's score is the mean of."""
    return f"{request.networks} fresh network{'s' if request.networks > 1 else ''}"


def number(value: float | None) -> str:
    """A figure with the digits that matter; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.1f}" if 0 < abs(value) < 10 else f"{value:,.0f}"


def accuracy(row: Row) -> str:
    """Mean ± std (n), or what became of the jobs."""
    troubles = [f"{row.failed} failed"] * (row.failed > 0) + [f"{row.waiting} to go"] * (row.waiting > 0)
    if row.accuracy is None:
        return "failed" if not row.waiting else "to go" if not row.failed else ", ".join(troubles)
    spread = f" ± {row.std:.1f}" if row.std else ""
    return f"{row.accuracy:.1f}{spread} ({', '.join([f'n={row.seeds}', *troubles])})"


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, by `HEADERS`."""
    share = "" if row.pretraining_seconds is None else f" ({number(row.pretraining_share)})"
    steps = "–" if row.steps is None else f"{row.steps:,.0f}"
    return (
        row.title, str(row.ipc), row.budget or "–", accuracy(row), steps, number(row.step_seconds),
        number(row.outside_seconds), number(row.pretraining_seconds) + share, number(row.peak_memory_mib),
    )  # fmt: skip


def columns(found: Comparison) -> list[str]:
    """The headers of the table of one IPC: those that say something here. Where all budgets are steps, `steps` is enough."""
    left_out = {"IPC"}
    if not any(row.budget.endswith(" s") for row in found.rows):
        left_out.add("budget")
    if all(row.pretraining_seconds is None for row in found.rows):
        left_out.add("pre-training, s")
    return [name for name in HEADERS if name not in left_out]


def line(row: Row, headers: Sequence[str]) -> list[str]:
    """A row as text under some of `HEADERS`; the steps asked for where none were taken."""
    shown = dict(zip(HEADERS, cells(row), strict=True))
    if row.steps is None and "budget" not in headers:
        shown["steps"] = f"{int(row.budget.split()[0]):,}" if row.budget else "–"
    return [shown[name] for name in headers]


def factor_cells(factor: Factor) -> tuple[str, ...]:
    """A factor as text: IPC, baseline, its accuracy and seconds, who reaches it when, the factor."""
    base, first = factor.baseline, factor.mgdd
    start = (str(base.ipc), base.title, f"{base.accuracy or 0:.1f}", number(base.total_seconds))
    if first is None or factor.factor is None:
        return (*start, "not reached", "–", "–", "–")
    times = f"{'≥ ' if factor.at_least else ''}{factor.factor:.3g}"
    who = f"{first.title}, {first.budget}"
    return (*start, who, f"{first.accuracy or 0:.1f}", number(first.total_seconds), times)


FACTOR_HEADERS = ("IPC", "baseline", "its accuracy, %", "its s", "reached by", "accuracy, %", "s", "factor")


def notes(found: Comparison) -> list[str]:
    """What one has to know to read the tables, and what went wrong."""
    request = found.request
    out = [
        f"Accuracy: percent of the test split, of {networks(request)} a job. ± is the standard deviation over n seeds; "
        "over the networks where there is one seed.",
        "s outside: work of the method that is not a step: experts, networks trained between the steps, labels. "
        "Data, scores and the start of the process are in no column.",
    ]
    if any(row.budget.endswith(" s") and row.method == "mtt" for row in found.rows):
        out.append("A budget in seconds is for steps and the work between them: MTT's experts come on top of it.")
    if any(row.pretraining_seconds is not None for row in found.rows):
        out.append(
            "Pre-training: the whole of it, once for all targets, and in brackets its share, divided by the MGDD jobs of "
            "this table. It is in neither the plot's seconds nor the factors'; results.json has the factors with the "
            "whole of it."
        )
    out.append(
        "Every method has the network and the settings of its publication, but for what docs/methods.md lists as ours: widths "
        "differ, MGDD's is 32-64-128."
        if request.published
        else "Distillation networks have 32-64-128 channels for all, unless a setting says otherwise, and the norm layer of each "
        "method (FRePo batch, MGDD and herding none, the others instance). Settings suit minutes; they were chosen on images "
        "held out of CIFAR-10, learning rates also on FashionMNIST, at IPC 1 and 10."
    )
    for group in dict.fromkeys(row.group for row in found.rows if row.group not in (PLAIN, OURS)):
        out.append(
            f"{group[:1].upper()}{group[1:]}: smaller ones, stored at the same size; not the storage of the others."
        )
    if found.factors:
        out.append(
            "Factor: a baseline's seconds where it is most accurate over those of MGDD's first budget with at least that mean "
            "accuracy. ≥: that is MGDD's smallest budget, a smaller one might do."
        )
    if found.shared:
        out.append("Jobs ran beside each other on one device: seconds are longer than those of a job alone.")
    if len(found.devices) > 1:
        out.append(f"Seconds are from different devices: {'; '.join(found.devices)}.")
    out += [f"Failed: {job}. {reason}" for job, reason in found.failures]
    if found.waiting:
        out.append(f"{found.waiting} jobs are still to do.")
    return out


def overview(found: Comparison) -> Iterator[tuple[Row, list[str]]]:
    """The paper's table: each method's accuracy at its largest budget, by IPC."""
    largest: dict[tuple[str, int], Row] = {}
    for row in found.rows:
        rival = largest.get((row.method, row.ipc))
        if rival is None or (row.total_seconds or 0.0) >= (rival.total_seconds or 0.0):
            largest[row.method, row.ipc] = row
    methods = {row.method: row for row in sorted(largest.values(), key=place)}
    for method, row in methods.items():
        there = [largest.get((method, ipc)) for ipc in found.ipcs()]
        yield row, ["–" if cell is None else accuracy(cell) for cell in there]


def place(row: Row) -> tuple[bool, bool, int]:
    """Where a method stands in the paper's table."""
    known = known_methods()
    return row.ours, row.group != PLAIN, known.index(row.method) if row.method in known else len(known)


# ---------------------------------------------------------------------------------------------------------- formats


def to_json(found: Comparison) -> dict[str, Any]:
    """Everything, as plain JSON values."""
    return {
        "request": asdict(found.request),
        "rows": [asdict(row) for row in found.rows],
        "factors": [
            asdict(factor) | {"baseline": about(factor.baseline), "mgdd": factor.mgdd and about(factor.mgdd)}
            for factor in found.factors
        ],
        "failures": [{"job": job, "reason": reason} for job, reason in found.failures],
        "waiting": found.waiting,
        "devices": list(found.devices),
        "shared_device": found.shared,
        "notes": notes(found),
    }


def about(row: Row) -> dict[str, Any]:
    """A row in short."""
    return {name: getattr(row, name) for name in ("method", "ipc", "budget", "accuracy", "total_seconds")}


def to_csv(found: Comparison) -> str:
    """One line a row, with every figure in full."""
    out = io.StringIO()
    names = [f.name for f in fields(Row) if f.name != "jobs"]
    writer = csv.writer(out)
    writer.writerow(names)
    writer.writerows([getattr(row, name) for name in names] for row in found.rows)
    return out.getvalue()


def to_markdown(found: Comparison) -> str:
    """The tables for a README or an issue."""
    headers = columns(found)
    lines = [f"# {in_markdown(title(found))}", "", in_markdown(lead(found)), ""]
    lines += markdown_table(
        ["method", *(f"IPC {ipc}" for ipc in found.ipcs())],
        ((row, [row.title, *scores]) for row, scores in overview(found)),
    )
    for ipc in found.ipcs():
        lines += ["", f"## {per_class(ipc)}", ""]
        lines += markdown_table(headers, ((row, line(row, headers)) for row in found.rows if row.ipc == ipc))
    if found.factors:
        lines += ["", "## Until MGDD is as accurate", "", *markdown_rows(FACTOR_HEADERS)]
        lines += [markdown_row(factor_cells(factor)) for factor in found.factors]
    return "\n".join([*lines, "", *(f"- {in_markdown(note)}" for note in notes(found))]) + "\n"


def markdown_table(headers: Sequence[str], rows: Iterator[tuple[Row, Sequence[str]]]) -> list[str]:
    """A table with a line above each group but the first; MGDD's rows bold."""
    lines = markdown_rows(headers)
    for group, members in groupby(rows, key=lambda pair: pair[0].group):
        if group != PLAIN:
            lines.append(markdown_row([f"*{group}*", *[""] * (len(headers) - 1)], escaped=True))
        for row, texts in members:
            shown = [in_markdown(cell) for cell in texts]
            lines.append(markdown_row([f"**{cell}**" for cell in shown] if row.ours else shown, escaped=True))
    return lines


def markdown_rows(headers: Sequence[str]) -> list[str]:
    """The head of a table."""
    return [markdown_row(headers), "|:--" + "|--:" * (len(headers) - 1) + "|"]


def markdown_row(texts: Sequence[str], escaped: bool = False) -> str:
    return "| " + " | ".join(text if escaped else in_markdown(text) for text in texts) + " |"


def in_markdown(text: str) -> str:
    """Text that means nothing to Markdown."""
    for character in "\\`*_[]<>|#":
        text = text.replace(character, f"\\{character}")
    return text


def to_html(found: Comparison, plot: str) -> str:
    """One page that needs nothing beside itself."""
    headers = columns(found)
    parts = [
        f"<h1>{escape(title(found))}</h1>", f'<p class="lead">{escape(lead(found))}</p>',
        "<h2>Test accuracy at the largest budget</h2>",
        html_table(
            ["method", *(f"IPC {ipc}" for ipc in found.ipcs())],
            [(row, [row.title, *scores]) for row, scores in overview(found)],
        ),
    ]  # fmt: skip
    if plot:
        parts += ["<h2>Accuracy over seconds</h2>", plot]
    if found.factors:
        parts += ["<h2>Until MGDD is as accurate</h2>", html_factors(found.factors)]
    for ipc in found.ipcs():
        rows = [(row, line(row, headers)) for row in found.rows if row.ipc == ipc]
        parts += [f"<h2>{per_class(ipc)}</h2>", html_table(headers, rows)]
    parts += ["<h2>How to read this</h2>", "<ul>", *(f"<li>{escape(note)}</li>" for note in notes(found)), "</ul>"]
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title(found))}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )


def html_table(headers: Sequence[str], rows: Sequence[tuple[Row, Sequence[str]]]) -> str:
    """A table with a line above each group; MGDD's rows bold."""
    head = "".join(f"<th>{escape(name)}</th>" for name in headers)
    lines = [f'<div class="wide"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>']
    for group, members in groupby(rows, key=lambda pair: pair[0].group):
        lines.append(f'<tr class="group"><th colspan="{len(headers)}">{escape(group)}</th></tr>')
        for row, texts in members:
            body = "".join(html_cell(cell) for cell in texts)
            lines.append(f'<tr class="ours">{body}</tr>' if row.ours else f"<tr>{body}</tr>")
    return "\n".join([*lines, "</tbody></table></div>"])


def html_cell(cell: str) -> str:
    return f'<td class="failed">{escape(cell)}</td>' if cell == "failed" else f"<td>{escape(cell)}</td>"


def html_factors(factors: Sequence[Factor]) -> str:
    """The factors as a table."""
    head = "".join(f"<th>{escape(name)}</th>" for name in FACTOR_HEADERS)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in factor_cells(factor)) + "</tr>\n" for factor in factors
    )
    return f'<div class="wide"><table class="factors">\n<thead><tr>{head}</tr></thead>\n<tbody>{body}</tbody></table></div>'


# ------------------------------------------------------------------------------------------------------------- plot


def panels(found: Comparison) -> list[Panel]:
    """Accuracy over seconds for each IPC where a method with a budget has a score."""
    out = []
    for ipc in found.ipcs():
        rows = [row for row in found.rows if row.ipc == ipc and row.accuracy is not None]
        timed = [row for row in rows if row.budget]
        lines = tuple(line_of(list(members)) for _, members in groupby(timed, key=lambda row: row.method))
        levels = tuple(
            Level(f"{row.title.partition(' (')[0]} {row.accuracy:.1f}", row.accuracy or 0.0)
            for row in rows
            if not row.budget
        )
        if lines:
            out.append(Panel(per_class(ipc), lines, levels))
    return out


def line_of(rows: Sequence[Row]) -> Line:
    """The line of one method: its budgets, by seconds."""
    light, dark = COLOURS.get(rows[0].method, OTHER)
    points = tuple(
        Point(max(row.total_seconds or 0.0, 1e-3), row.accuracy or 0.0, row.std or 0.0, tip(row))
        for row in sorted(rows, key=lambda row: row.total_seconds or 0.0)
    )
    name = NAMES.get(rows[0].method, rows[0].method)
    return Line(name, points, light, dark, rows[0].ours, rows[0].group not in (PLAIN, OURS))


def tip(row: Row) -> str:
    """What shows under a pointer."""
    return f"{row.title}, {row.budget}: {accuracy(row)} % in {number(row.total_seconds)} s"
