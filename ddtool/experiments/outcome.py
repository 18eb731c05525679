"""What an experiment on one run leaves in its folder: a table as JSON, CSV and Markdown, and a plot as SVG and PNG."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from ddtool.config import Values
from ddtool.experiments.plot import Panel, draw
from ddtool.runs.files import write_bytes, write_json

ACCURACY = "test accuracy, %"
"""What is drawn upwards."""


def write(
    folder: Path, name: str, dataset: str, rows: Sequence[Values], markdown: str, panels: Sequence[Panel], x_name: str
) -> None:
    """Write all of it as NAME.json, .csv, .md, .svg and .png, each file whole or not at all. rows: at least one; x_name: of the
    axis of panels that do not name theirs."""
    write_rows(folder, name, dataset, rows)
    contents = {
        "csv": as_csv(rows).encode(),
        "md": markdown.encode(),
        "svg": draw(panels, x_name, ACCURACY),
        "png": draw(panels, x_name, ACCURACY, kind="png"),
    }
    for ending, content in contents.items():
        write_bytes(folder / f"{name}.{ending}", content)


def write_rows(folder: Path, name: str, dataset: str, rows: Sequence[Values]) -> None:
    """Write NAME.json alone."""
    write_json(folder / f"{name}.json", {"dataset": dataset, "rows": rows})


def as_csv(rows: Sequence[Values]) -> str:
    """One line a row, below their names."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_markdown(headers: Sequence[str], columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The table for a README. columns: how each is set, ':--' or '--:'."""
    lines = ["| " + " | ".join(headers) + " |", "|" + "|".join(columns) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(cells) + " |" for cells in rows)]) + "\n"
