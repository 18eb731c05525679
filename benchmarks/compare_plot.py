"""Accuracy over seconds of finished comparisons on one sheet, a row of panels for each dataset, a panel for each IPC.

python benchmarks/compare_plot.py docs/images/compare.png benchmarks/results/compare-cifar10-ipc10.json

Each file is the results.json of a `ddtool compare`, of version 0.1 too; --ipc leaves out all other sizes. The ending of the
first name says which kind of file is written: .png or .svg.
"""

import argparse
import json
from pathlib import Path

from pydantic import TypeAdapter

from ddtool.experiments.folder import REQUEST
from ddtool.experiments.plot import draw
from ddtool.experiments.report import AXES, panels
from ddtool.experiments.table import Comparison, Row

ROWS = TypeAdapter(tuple[Row, ...])


def read(file: Path, ipcs: list[int]) -> Comparison:
    """The rows of a results.json, as a comparison without its remarks; of these sizes, or of all."""
    said = json.loads(file.read_text(encoding="utf-8"))
    return Comparison(
        request=REQUEST.validate_python(said["request"]),
        rows=tuple(row for row in ROWS.validate_python(said["rows"]) if not ipcs or row.ipc in ipcs),
        speedups=(),
        failures=(),
        devices=(),
        shared=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--ipc", type=int, nargs="+", default=[])
    args = parser.parse_args()
    shown = panels(*(read(file, args.ipc) for file in args.results))
    args.out.write_bytes(draw(shown, *AXES, "png" if args.out.suffix == ".png" else "svg"))


if __name__ == "__main__":
    main()
