"""Accuracy over seconds along one run of each method: sets kept at doubling steps, scored after the clock, on one sheet.

    OMP_NUM_THREADS=1 python benchmarks/method_curves.py OUT.json cifar10 --ipc 1 --steps 64 --folder FOLDER [--plot FILE.svg]

The runs are the jobs of `ddtool compare` (its networks, and its settings for minutes), each with --curve; `ddtool curve` scores
their points. Only the last point of a line has had its learning rate fall to the end, as each point of a comparison has. What is in
FOLDER is not made again. The lines of MGDD are its refinement; the points of the adaptation before it are in the file.
"""

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from ddtool.config import RunConfig
from ddtool.events import Phase
from ddtool.experiments.grid import entry_of
from ddtool.experiments.plot import Line, Panel, Point, draw
from ddtool.experiments.report import style_of
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine

METHODS = "dm,dc,dsa,idc,mtt,frepo,mgdd"


def ddtool(*words: str) -> str:
    """What a command prints; what it says goes to the terminal. Ends the script where it fails."""
    done = subprocess.run([sys.executable, "-m", "ddtool", *words], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"`ddtool {shlex.join(words)}` ended with {done.returncode}.")
    return done.stdout


def runs(args: argparse.Namespace) -> dict[str, Path]:
    """Make what is missing; method → its finished run."""
    jobs = ("--ipc", str(args.ipc), "--steps", str(args.steps), "--seeds", "1", "--methods", args.methods)
    more = [word for setting in args.set for word in ("--set", setting)]
    plan = ("compare", args.dataset, *jobs, *more, "--protocol", args.protocol, "--out", str(args.folder))
    found = {}
    for line in ddtool(*plan, "--dry-run", "--quiet").splitlines():
        words = shlex.split(line)[1:]
        folder = Path(words[words.index("--out") + 1])
        if not folder.exists():
            ddtool(*words, "--curve", "--no-evaluate", "--quiet")
        elif not Run.open(folder).set_path(args.ipc).exists():
            ddtool("adapt", "--resume", str(folder), "--quiet")
        found[Run.open(folder).config().method] = folder
    return found


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """The points of every method with their scores."""
    curves = {}
    for method, folder in runs(args).items():
        scored = ("--protocol", args.protocol, "--eval-seeds", str(args.eval_seeds))
        curves[method] = json.loads(ddtool("curve", str(folder), *scored, "--json"))["rows"]
    engine = Engine.choose("cpu")
    machine = {"device": engine.describe(), "threads": torch.get_num_threads(), "torch": torch.__version__}
    named = {name: getattr(args, name) for name in ("ipc", "steps", "protocol", "eval_seeds", "set")}
    return {"dataset": Path(args.dataset).name, **named, **machine, "curves": curves}


def plot(found: dict[str, Any]) -> bytes:
    """Two panels, over steps and over seconds, with a line for each method."""
    panels = []
    for x, name in (("steps", "steps"), ("seconds", "seconds, with labels and experts")):
        lines = []
        for method, rows in found["curves"].items():
            last = [row for row in rows if row["phase"] != Phase("adapt").kind]
            points = tuple(Point(row[x], row["accuracy"], row["std"]) for row in last)
            lines.append(Line(entry_of(method).variant.title.partition(" (")[0], points, style_of(method)))
        title = f"IPC {found['ipc']}, by {found['protocol']}"
        panels.append(Panel(found["dataset"], title, tuple(lines), (), name))
    return draw(panels, "steps", "test accuracy, %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--ipc", type=int, default=RunConfig().ipc[0])
    parser.add_argument("--steps", type=int, default=64)
    parser.add_argument("--methods", default=METHODS)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of all runs")
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--eval-seeds", type=int, default=3)
    parser.add_argument("--folder", type=Path, required=True, help="keeps the runs")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    found = measured(args)
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if args.plot:
        args.plot.write_bytes(plot(found))


if __name__ == "__main__":
    main()
