"""The project's goals, measured: a row for each machine and budget, a cell for each dataset and size, filled cell by cell.

    python benchmarks/goals.py benchmarks/results/goals.json --row cpu-2min [--cells cifar10:10,mnist:1] [--data DIR]
    python benchmarks/goals.py benchmarks/results/goals.json --table

A cell is `ddtool adapt DATASET --ipc N --seconds S` as a user starts it, its clock from the start of the command to the set
written, taken from outside; then the set as people load it (8 bits) is scored by frepo-mse on the whole test split, last step, 3
fresh networks (convnet; on a GPU's row convnet-wide too). S is the row's budget less `--spare`, for what comes before and after:
reading and writing. Datasets are decoded before, once. The file is written after every cell; the same command again goes on with
what is missing. A cell that could not be filled says why. --data: a folder of local datasets, by their names (cifar10, …).
--runs: a folder that keeps the sets, so that they can be made on a quiet machine first (--no-scores) and scored by the same command
without it later. --generator-alone: score what the generator made, before refinement, too. --again: where a set is no longer
there, it is made again by the preset and the number of steps that the budget gave on the quiet machine, which the file holds; its
seconds stay those of the quiet machine.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddtool.config import RunConfig, to_dict
from ddtool.config.presets import PRESETS
from ddtool.errors import DDToolError
from ddtool.experiments.published import published
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, hardware

CELLS = [
    *(f"cifar10:{ipc}" for ipc in (1, 10, 50)),
    *(f"cifar100:{ipc}" for ipc in (1, 10)),
    *(f"fashion_mnist:{ipc}" for ipc in (1, 10, 50)),
    "mnist:1",
]
PAPER = {
    cell: published(name, "mgdd-generator", int(ipc)).equal_steps for cell in CELLS for name, ipc in [cell.split(":")]
}


@dataclass(frozen=True)
class Row:
    """A machine, a budget in seconds from outside, the networks that judge, and what is to be reached in each of CELLS."""

    device: str
    seconds: float
    networks: tuple[str, ...]
    goals: tuple[float, ...]


ROWS = {
    "cpu-2min": Row("cpu", 120, ("convnet",), (42, 58, 62, 22, 32, 73, 84, 86, 90)),
    "cpu-10min": Row("cpu", 600, ("convnet",), (44, 61, 66, 25, 36, 75, 85.5, 88, 92)),
    "gpu-60s": Row("cuda", 60, ("convnet", "convnet-wide"), (46, 64, 69, 27, 40, 76, 86.5, 88.5, 93)),
    "gpu-10min": Row("cuda", 600, ("convnet", "convnet-wide"), (50, 67, 72, 29, 43, 78, 87, 89, 94)),
}


USUAL = "frepo-mse"
"""The protocol of the goals; with 500 images and more it takes an hour or more of two CPU cores, so there a cell may hold quick,
and says so until it is scored by this one."""
QUIETLY = ["--quiet", "--no-evaluate"]
"""Options of a run that is not to score its sets."""
ALONE = "generator alone"
"""The scores of the set before refinement, in a cell."""
MADE = "made.json"
"""What a set took to make, in the folder of its run."""


class NotFilledError(Exception):
    """Why a cell stays empty."""


def filled(row: Row, cell: str, args: argparse.Namespace, known: dict[str, Any]) -> dict[str, Any]:
    """One cell: a set made (in place of the `known` one) and scored; NotFilledError where that cannot be."""
    if row.device == "cuda" and not torch.cuda.is_available():
        raise NotFilledError("no GPU was at hand")
    with tempfile.TemporaryDirectory() as work:
        folder = (args.runs or Path(work)) / f"{args.row}-{cell.replace(':', '-')}"
        if not (folder / MADE).exists():
            make_again(cell, args, folder, known) if args.again else make(row, cell, args, folder)
            known = {}
        found: dict[str, Any] = json.loads((folder / MADE).read_text(encoding="utf-8"))
        if args.no_scores:
            return found
        stages = {"scores": "refined"} | ({ALONE: "generated"} if args.generator_alone else {})
        for key, stage in stages.items():
            there = known.get(key) if known.get("protocol") == args.protocol else None
            found[key] = there or [scored(folder, cell, row, arch, stage, args) for arch in row.networks]
    return found | {"networks": row.networks, "protocol": args.protocol, "seeds": args.networks}


def make(row: Row, cell: str, args: argparse.Namespace, folder: Path) -> None:
    """Make the set of a cell in `folder`, with what it took in MADE."""
    name, ipc = cell.split(":")
    dataset = str(args.data / name) if args.data else name
    words = ["adapt", dataset, "--ipc", ipc, "--seed", str(args.seed), "--device", row.device]
    ddtool(*words, "--preset", "small", "--dry-run", "--quiet")  # the dataset is here and decoded
    seconds = args.seconds or row.seconds - args.spare
    asked = [*words, "--seconds", f"{seconds:g}", "--out", str(folder), *args.options.split()]
    took = seconds_until_written(asked, folder, int(ipc))
    run = Run.open(folder)
    spent, config = run.noted().facts.spent.get(f"ipc{ipc}"), run.config()
    found = {
        "seconds": took,
        "spent": spent.stated() if spent else {},
        "load": os.getloadavg()[0],
        "hardware": hardware(torch.device(row.device)),
        "torch": torch.__version__,
        "precision": Engine.choose(row.device).describe(),
        "command": f"ddtool adapt {name} --ipc {ipc} --seed {args.seed} --seconds {seconds:g} {args.options}".rstrip(),
        "width": config.features.width,
        "measured": to_dict(config)["measured"],
    }
    (folder / MADE).write_text(json.dumps(found), encoding="utf-8")


def make_again(cell: str, args: argparse.Namespace, folder: Path, known: dict[str, Any]) -> None:
    """Make the set of a cell by the steps that its budget gave before, with `known`, what that took, in MADE."""
    name, ipc = cell.split(":")
    if "spent" not in known:
        raise NotFilledError("no set of this cell was made before")
    preset = next(name for name, values in PRESETS.items() if values["features"] == {"width": known["width"]})
    steps = known["spent"]["steps"]
    adapting = round(RunConfig().adapt_share * steps)
    counts = ["--preset", preset, "--steps", str(adapting), "--refine-steps", str(steps - adapting)]
    words = ["--ipc", ipc, "--seed", str(args.seed), *counts]
    dataset = str(args.data / name) if args.data else name
    ddtool("adapt", dataset, *words, *args.options.split(), "--out", str(folder), *QUIETLY)
    kept = {key: value for key, value in known.items() if key not in ("empty", "scores", ALONE)}
    again = {"made_again": f"ddtool adapt {name} {' '.join(words)} {args.options}".rstrip()}
    (folder / MADE).write_text(json.dumps(kept | again), encoding="utf-8")


def seconds_until_written(words: list[str], folder: Path, ipc: int) -> float:
    """Seconds from the start of a command until its set is there; what the command does after that is not waited for."""
    written = folder / "synthetic" / f"ipc{ipc}" / "exact.safetensors"
    started = time.perf_counter()
    with subprocess.Popen([sys.executable, "-m", "ddtool", *words], stderr=subprocess.PIPE, text=True) as process:
        lines = tail_of(process)
        while not written.exists() and process.poll() is None:
            time.sleep(0.05)
        took = round(time.perf_counter() - started, 1)
        process.terminate()
    if not written.exists():
        raise NotFilledError("".join(lines[-2:]).strip() or f"the command ended with {process.returncode}")
    return took


def tail_of(process: subprocess.Popen) -> list[str]:
    """What a process says, read as it comes."""
    lines: list[str] = []

    def read() -> None:
        with contextlib.suppress(ValueError):  # closed, once the process has ended
            lines.extend(process.stderr or ())

    threading.Thread(target=read, daemon=True).start()
    return lines


def scored(folder: Path, cell: str, row: Row, arch: str, stage: str, args: argparse.Namespace) -> dict[str, Any]:
    """The score of a set by one kind of network."""
    ipc = cell.split(":")[1]
    words = ["evaluate", str(folder), "--ipc", ipc, "--stage", stage, "--protocol", args.protocol, "--arch", arch]
    words += ["--eval-seeds", str(args.networks)]
    said = json.loads(ddtool(*words, "--no-baseline", "--device", row.device, "--json"))
    found = said["scores"][-1]
    kept = {key: found[key] for key in ("arch", "mean", "std", "seeds", "pixels", "seconds")}
    return kept | {"protocol_version": found.get("protocol_version", 1)}


def ddtool(*words: str) -> str:
    """What a command prints; NotFilledError with its last lines where it fails."""
    done = subprocess.run([sys.executable, "-m", "ddtool", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NotFilledError(" ".join(done.stderr.strip().splitlines()[-2:]) or f"ended with {done.returncode}")
    return done.stdout


# ------------------------------------------------------------------------------------------------------------- the file


def table(known: dict[str, Any]) -> str:
    """All rows as Markdown: what was measured, the goal in brackets; – where nothing is known."""
    lines = ["| | " + " | ".join(CELLS) + " |", "|---|" + "---:|" * len(CELLS)]
    lines.append("| the paper | " + " | ".join(f"{PAPER[cell]}" for cell in CELLS) + " |")
    for name, row in ROWS.items():
        cells = known.get(name, {}).get("cells", {})
        goals = dict(zip(CELLS, row.goals, strict=True))
        lines.append(
            f"| {name} | " + " | ".join(f"{shown(cells.get(cell))} ({goals[cell]:g})" for cell in CELLS) + " |"
        )
    empty = [f"{name}, {cell}: {why}" for name in ROWS for cell, why in reasons(known.get(name, {})).items()]
    return "\n".join([*lines, "", *empty])


def reasons(row: dict[str, Any]) -> dict[str, str]:
    """Why cells of a row are empty."""
    return {cell: found["empty"] for cell, found in row.get("cells", {}).items() if "empty" in found}


def shown(cell: dict[str, Any] | None) -> str:
    """A cell of the table: its accuracies in the order of the networks."""
    if not cell or "scores" not in cell:
        return "–"
    by = "" if cell["protocol"] == USUAL else f" by {cell['protocol']}"
    return ", ".join(f"{s['mean']:.1f} ± {s['std']:.1f}" for s in cell["scores"]) + f"{by} in {cell['seconds']:.0f} s"


def write(path: Path, known: dict[str, Any]) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
    shutil.move(temporary, path)


def fill(args: argparse.Namespace, known: dict[str, Any]) -> None:
    """Fill the cells of one row that are missing."""
    row = ROWS[args.row]
    rows = known.setdefault(args.row, {"cells": {}})
    for cell in args.cells.split(","):
        there = rows["cells"].get(cell, {})
        wanted = {"scores", ALONE} if args.generator_alone else {"scores"}
        if wanted <= set(there) and there["protocol"] == args.protocol:
            continue
        try:
            rows["cells"][cell] = filled(row, cell, args, there)
        except (NotFilledError, DDToolError) as reason:
            rows["cells"][cell] = {"empty": str(reason)}
        print(args.row, cell, json.dumps(rows["cells"][cell]), flush=True)
        write(args.out, known)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--cells", default=",".join(CELLS), metavar="NAME:IPC,…")
    parser.add_argument("--data", type=Path, help="folder of local datasets; default: their aliases")
    parser.add_argument("--networks", type=int, default=3, help="fresh networks of each kind")
    parser.add_argument("--protocol", default=USUAL)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--spare", type=float, default=10, help="seconds of the budget for reading and writing")
    parser.add_argument("--seconds", type=float, help="another --seconds, to try the command out")
    parser.add_argument("--options", default="", help="further options of `ddtool adapt`")
    parser.add_argument("--runs", type=Path, help="folder that keeps the sets")
    parser.add_argument("--again", action="store_true", help="make sets by the steps that were counted before")
    parser.add_argument("--generator-alone", action="store_true", help="score the set before refinement too")
    parser.add_argument("--no-scores", action="store_true", help="make the sets in --runs alone")
    parser.add_argument("--table", action="store_true", help="print the table")
    args = parser.parse_args()
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    if args.row:
        fill(args, known)
    if args.table:
        print(table(known))


if __name__ == "__main__":
    main()
