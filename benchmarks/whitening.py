"""What whitening is worth, in closed form: no step, held-out training images, many targets in minutes.

    python benchmarks/whitening.py OUT.json DATASET[:RESOLUTION] … [--eps 0.02 0.1 0.5 1] [--seeds 3]

For each target: a few real images (at least one a class) with fitted labels, judged by ridge heads on random networks; mean and
standard deviation over seeds, which choose other images, networks and held-out images. Kinds: none, dct with each eps, zca with
eps 0.1 where images are small enough. This is the trial by which `--whiten auto` decides (`ddtool/pipeline/target.py`). What is
measured already stays in OUT.json, so that the command goes on where it was stopped.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from ddtool.config import RunConfig, WhiteningConfig
from ddtool.data.batches import Real
from ddtool.data.whitening import LARGEST_ZCA
from ddtool.pipeline import target
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import Problem, Session
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, hardware

KINDS = {"none": [0.1], "zca": [0.1]}


def settings(eps: list[float]) -> list[tuple[str, float]]:
    """Every kind with its eps."""
    return [(kind, e) for kind, values in (KINDS | {"dct": eps}).items() for e in values]


def measure(name: str, kinds: list[tuple[str, float]], seeds: int, engine: Engine) -> dict[str, object]:
    """Held-out accuracy in percent by kind and eps, for one target."""
    dataset, _, side = name.partition(":")
    config = RunConfig(dataset=dataset, data={"resolution": int(side)} if side else {})
    plain = Real.of(load_target(config, lambda event: None).train, engine)
    session = Session(config, Run(Path("unused")), engine)  # nothing is written down
    problem = Problem(plain, target.flip_keeps_classes(session, plain)[0])
    shape = plain.data.shape
    found: dict[str, object] = {"shape": shape, "classes": plain.data.num_classes, "flip": problem.flip}
    for kind, eps in kinds:
        if kind == "zca" and shape[0] * shape[1] * shape[2] > LARGEST_ZCA:
            continue
        started, scores = time.perf_counter(), []
        for seed in range(seeds):
            chosen = replace(config, seed=seed, whitening=WhiteningConfig(kind="dct", eps=eps))
            tried = replace(session, config=chosen)
            fitted = None if kind == "none" else target.fitted_whitening(tried, plain, kind)
            scores.append(target.whitening_accuracy(tried, problem, fitted))
        found[f"{kind} {eps:g}"] = {
            "mean": round(statistics.fmean(scores), 2),
            "std": round(statistics.stdev(scores), 2) if seeds > 1 else 0.0,
            "seconds": round((time.perf_counter() - started) / seeds, 1),
        }
        print(name, kind, eps, found[f"{kind} {eps:g}"], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("targets", nargs="+")
    parser.add_argument("--eps", type=float, nargs="+", default=[0.02, 0.1, 0.5, 1.0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    engine = Engine.choose()
    known = json.loads(options.out.read_text()) if options.out.exists() else {"targets": {}}
    known |= {"hardware": hardware(engine.device), "torch": torch.__version__, "seeds": options.seeds}
    for name in options.targets:
        label = Path(name.partition(":")[0]).name + (f" at {name.partition(':')[2]} pixels" if ":" in name else "")
        if label not in known["targets"]:
            known["targets"][label] = measure(name, settings(options.eps), options.seeds, engine)
            options.out.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
