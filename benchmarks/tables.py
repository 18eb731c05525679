"""Sets that are there, scored by every network and protocol of the field: one resumable table, the cheapest cells first.

    OMP_NUM_THREADS=1 python benchmarks/tables.py OUT.json RUN [RUN …] [--seconds S] [--threads 1] [--arch A,B] [--protocol P,Q]
    python benchmarks/tables.py OUT.json --write docs/results.md

RUN: a run directory with one finished set (those of `benchmarks/goals.py --runs`). A cell is a set, a network and a protocol: 3
fresh networks, tested on the whole test split after their last step, the set as people load it (8 bits). OUT.json is written
after every cell, and the same command again goes on with what is missing; after S seconds no further cell begins. --arch and
--protocol measure the cells of these alone. A cell says of which set it is, and is measured anew for another one. A network that
does not take images of that size says so in its cell.
--write puts the tables between the marks in a page; what is not measured stays empty.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch

import ddtool
from ddtool.errors import UsageError
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.text import dataset_name

COSTS = {"mlp": 0.02, "convnet": 1.0, "alexnet": 3.5, "vit": 5.0, "vgg11": 5.5, "convnet-wide": 2.7, "resnet18": 24.0}
"""About how long an image of a step takes on one CPU thread, against the field's ConvNet: only for the order of the cells."""
NETWORKS = ("convnet", "convnet-wide", "alexnet", "vgg11", "resnet18", "mlp", "vit")
"""In the order of the table."""
TESTED = 10_000 / 3
"""Test images, each about a third of one in training."""
JUDGES = ("quick", "frepo-mse", "dsa-ce")
SETS = [*(f"cifar10:{ipc}" for ipc in (1, 10, 50)), *(f"fashion_mnist:{ipc}" for ipc in (1, 10, 50))]
BEGIN, END = "<!-- tables.py: begin -->", "<!-- tables.py: end -->"


@dataclass(frozen=True)
class Cell:
    """A set, a network and a protocol."""

    made: str
    """dataset:ipc."""
    arch: str
    protocol: str

    @property
    def key(self) -> str:
        """As the file has it; the version of the protocol is in it, so that a cell of an earlier one is measured anew."""
        return f"{self.made} {self.arch} {self.protocol} v{PROTOCOLS[self.protocol].version}"

    @property
    def cost(self) -> float:
        """About how much there is to compute: images that go through the network."""
        p, m = PROTOCOLS[self.protocol], 10 * int(self.made.split(":")[1])
        seen = p.steps(m) * min(m, p.batch) + TESTED
        return COSTS[self.arch] * seen * (p.width / 128 if self.arch == "convnet" else 1)


def cells(sets: list[str], networks: Sequence[str] = NETWORKS, protocols: Sequence[str] = JUDGES) -> list[Cell]:
    """Every cell of some sets, networks and protocols, the cheapest first."""
    return sorted((Cell(*names) for names in product(sets, networks, protocols)), key=lambda cell: cell.cost)


def found(folders: list[Path]) -> dict[str, Path]:
    """dataset:ipc → the exact tensors of the set in a run."""
    out = {}
    for folder in folders:
        run = ddtool.Run.open(folder)
        (ipc,) = run.config().ipc  # `ddtool sweep` may have added others
        out[f"{dataset_name(run.config().dataset)}:{ipc}"] = run.set_path(ipc)
    return out


def digest(path: Path) -> str:
    """By which a set is told from another one of its size."""
    return hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()


def filled(cell: Cell, path: Path, networks: int, engine: ddtool.Engine) -> dict[str, Any]:
    """What a cell holds: accuracy by its networks, or why there is none."""
    started, load = time.perf_counter(), os.getloadavg()[0]
    try:
        (score,) = ddtool.evaluate(
            path, protocol=cell.protocol, arch=cell.arch, seeds=networks, baseline=False, engine=engine
        )
    except UsageError as error:
        return {"refused": error.message}
    seconds = round(time.perf_counter() - started, 1)
    return {
        "mean": score.mean,
        "std": score.std,
        "networks": score.seeds,
        "arch": score.arch,
        "seconds": seconds,
        "load": load,
        "hardware": engine.describe(),
        "torch": torch.__version__,
    }


def fill(out: Path, sets: dict[str, Path], wanted: list[Cell], networks: int, seconds: float) -> None:
    """Measure what is missing, and write it down cell by cell."""
    engine, started = ddtool.Engine.choose("cpu"), time.perf_counter()
    document = read(out)
    digests = {made: digest(path) for made, path in sets.items()}
    for cell in wanted:
        if document["cells"].get(cell.key, {}).get("set") == digests[cell.made]:
            continue
        if time.perf_counter() - started > seconds:
            return
        document["cells"][cell.key] = filled(cell, sets[cell.made], networks, engine) | {"set": digests[cell.made]}
        print(cell.key, document["cells"][cell.key], flush=True)
        out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read(out: Path) -> dict[str, Any]:
    """What the file holds by now."""
    document: dict[str, Any] = {"cells": {}}
    return json.loads(out.read_text(encoding="utf-8")) if out.is_file() else document


def tables(document: dict[str, Any]) -> Iterator[str]:
    """A table for each set with a cell, in Markdown: a row for each network, a column for each protocol; then what has none."""
    begun = {key.split()[0] for key in document["cells"]}
    for made in [name for name in dict.fromkeys([*SETS, *sorted(begun)]) if name in begun]:
        yield f"| {made.replace(':', ', IPC ')} | {' | '.join(JUDGES)} |"
        yield "|:--" + "|--:" * len(JUDGES) + "|"
        for arch in NETWORKS:
            there = [document["cells"].get(Cell(made, arch, protocol).key) for protocol in JUDGES]
            yield f"| {arch} | {' | '.join(map(text, there))} |"
        yield ""
    if missing := [name.replace(":", ", IPC ") for name in SETS if name not in begun]:
        yield f"Nothing is measured yet of {'; '.join(missing)}."


def text(cell: dict[str, Any] | None) -> str:
    """A cell for people: empty where nothing was measured."""
    if cell is None:
        return ""
    return "not for this size" if "refused" in cell else f"{cell['mean']:.1f} ± {cell['std']:.1f}"


def write(page: Path, document: dict[str, Any]) -> None:
    """The tables between the marks of a page."""
    before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    measured, whole = len(document["cells"]), len(cells(SETS))
    lead = f"{measured} of {whole} cells are measured; the others are empty."
    page.write_text("\n".join([f"{before}{BEGIN}", lead, "", *tables(document), f"{END}{after}"]), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("runs", type=Path, nargs="*")
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--arch", default=",".join(NETWORKS), help="these networks alone")
    parser.add_argument("--protocol", default=",".join(JUDGES), help="these protocols alone")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    sets, networks, protocols = found(args.runs), args.arch.split(","), args.protocol.split(",")
    if strange := {*networks} - {*NETWORKS} | {*protocols} - {*JUDGES}:
        parser.error(f"no such network or protocol: {', '.join(sorted(strange))}")
    fill(args.out, sets, cells(list(sets), networks, protocols), args.networks, args.seconds)
    if args.write:
        write(args.write, read(args.out))


if __name__ == "__main__":
    main()
