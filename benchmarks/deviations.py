"""What a setting or a version is worth: sets by a method in counted steps, scored by fresh networks on the test split.

    OMP_NUM_THREADS=1 python benchmarks/deviations.py OUT.json --data DATA --seeds 0 1 2 --cells CELL [CELL ...]

A cell is method:dataset:ipc:steps[:name=value,...], its settings those for minutes (`ddtool compare`) with the named ones in
their place; nothing is whitened. A version is measured by having it first in PYTHONPATH; `--version` says in the file which one it
was. Cells that OUT.json holds already are not repeated. What an augmentation is worth in scoring alone is of a set that is there:

    OMP_NUM_THREADS=1 python benchmarks/deviations.py OUT.json --set EXACT.safetensors --networks 3 --cells frepo-mse:quick

with a protocol and the family of augmentation that takes the place of its own; quick+crop is quick with FRePo's crop.
"""

import argparse
import json
import statistics
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

import ddtool
from ddtool.data.augment import FAMILIES
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.methods import find

SMALL = {"doubling_widths": True}
"""Networks of 32-64-128 channels, as `ddtool compare` has them."""


def settings_of(cell: str, protocol: str, networks: int) -> dict[str, Any]:
    """The settings of a run for a cell."""
    method, _, _, steps, *named = cell.split(":")
    own = {}
    for pair in named[0].split(",") if named else ():
        name, _, value = pair.partition("=")
        own[name] = (
            json.loads(value) if value[:1] in "0123456789-tfn" and value != "none" and value != "noise" else value
        )
    baseline = SMALL | dict(find(method).quick_settings) | {"steps": int(steps)} | own
    return {
        "whitening": {"kind": "none"},
        "baseline": baseline,
        "evaluate": {"baseline": False, "kernel_ridge": False, "protocol": protocol, "seeds": networks},
    }


def scores_of(cell: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """Accuracies by protocol, and what the run notes of its set."""
    method, dataset, ipc, *_ = cell.split(":")
    flip = dataset.startswith("cifar")
    settings = settings_of(cell, args.protocol, args.networks) | {"flip": flip}
    with tempfile.TemporaryDirectory() as folder:
        run = ddtool.adapt(
            str(args.data / dataset), ipc=int(ipc), method=method, seed=seed, out=Path(folder) / "run",
            engine=ddtool.Engine.choose("cpu", "fp32"), settings=settings,
        )  # fmt: skip
        results: Any = run.results()
    usual = [s for s in results["scores"] if s.get("pixels") != "exact"]
    facts = {name: value for name, value in results["facts"].items() if name.startswith("nearest_real")}
    spent = results["facts"]["spent"][f"ipc{ipc}"]
    return {s["protocol"]: s["mean"] for s in usual} | facts | {"seconds": spent["step_seconds"]}


def rescored(cell: str, seed: int, args: argparse.Namespace) -> dict[str, Any]:
    """The accuracy of networks trained on a set by a protocol with another augmentation, on the dataset that it was made from."""
    protocol, _, family = cell.partition(":")
    FAMILIES["quick+crop"] = FAMILIES["quick"] | {"crop": FAMILIES["frepo"]["crop"]}
    usual = PROTOCOLS[protocol]
    PROTOCOLS[protocol] = replace(usual, family=family)
    try:
        (score,) = ddtool.evaluate(
            args.set, protocol=protocol, seeds=args.networks, seed=seed, baseline=False,
            engine=ddtool.Engine.choose("cpu", args.precision),
        )  # fmt: skip
    finally:
        PROTOCOLS[protocol] = usual
    return {protocol: score.mean, "over networks": score.std, "seconds": score.seconds}


def summary(runs: list[dict[str, Any]]) -> dict[str, str]:
    """Mean and standard deviation over seeds, by protocol."""
    out = {}
    for name in runs[0]:
        values = [run[name] for run in runs]
        if name != "seconds" and all(isinstance(value, float) for value in values):
            std = statistics.stdev(values) if len(values) > 1 else 0.0
            out[name] = f"{statistics.fmean(values):.1f} ± {std:.1f}"
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--set", type=Path, help="exact.safetensors of a set to score")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--protocol", default="quick")
    parser.add_argument("--networks", type=int, default=1)
    parser.add_argument("--version", default="this one")
    parser.add_argument("--cells", nargs="+", required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = json.loads(args.out.read_text())["rows"] if args.out.is_file() else []
    for cell in args.cells:
        key = {"cell": cell, "version": args.version, "protocol": cell.partition(":")[0] if args.set else args.protocol}
        if any(key.items() <= row.items() for row in rows):
            continue
        runs = [(rescored if args.set else scores_of)(cell, seed, args) for seed in args.seeds]
        rows.append(key | {"networks": args.networks, "seeds": args.seeds, "runs": runs, "summary": summary(runs)})
        print(key, rows[-1]["summary"], flush=True)
        hardware = ddtool.Engine.choose("cpu", "fp32").describe()
        command = f"OMP_NUM_THREADS=1 python benchmarks/deviations.py {args.out.name} --seeds {' '.join(map(str, args.seeds))}"
        result = {
            "command": f"{command} --data DATA --cells …",
            "hardware": hardware,
            "torch": torch.__version__,
            "rows": rows,
        }
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
