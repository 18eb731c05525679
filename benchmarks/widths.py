"""Accuracy over steps, and the time of a step, for each width of the random networks that judge: what the table of
`ddtool/config/presets.py` was chosen by.

    python benchmarks/widths.py OUT.json cifar10 --cells 128:1000 256:300 128:2000 256:600 256:1200 512:300

A cell is WIDTH:STEPS: so many refinement steps (its rate falls to the end), from real images with fitted labels, whitened by DCT,
with the real batch of that width. Scores are on images held out of the training split, never the test split: kernel-ridge and
quick, two networks each. Each cell is written when it is there, and is not measured again. Seconds of a cell depend on what else
the machine does, so the load stands beside them; the time of a step is the least of the medians that any sitting had.
"""

import argparse
import json
import os
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from ddtool.config import FitConfig, RefineConfig, RunConfig
from ddtool.data.batches import Real
from ddtool.data.images import ImageData, SyntheticSet, draw_pool, real_images
from ddtool.evaluation.measure import kernel_ridge, train_and_test
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths
from ddtool.pipeline import target
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import Session
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, hardware, seeded_generator

REAL = {128: 256, 256: 500, 512: 1000}
"""Real images a step by width of the last block."""
HELD_OUT, NETWORKS, TIMED = 5000, 2, 7


class Bench:
    """One dataset, a part of whose training images is held out; and real images of the rest with fitted labels."""

    def __init__(self, config: RunConfig, engine: Engine) -> None:
        self.config, self.engine = config, engine
        train = load_target(config, lambda event: None).train
        order = torch.randperm(len(train), generator=seeded_generator("cpu", 0, "held out"))
        self.held, rest = (part_of(train, rows) for rows in (order[:HELD_OUT], order[HELD_OUT:]))
        session = Session(config, Run(Path("unused")), engine)  # nothing is written down
        plain = Real.of(rest, engine)
        self.flips = target.flip_keeps_classes(session, plain)[0]
        seen = replace(rest, whitening=target.fitted_whitening(session, plain, "dct"))
        self.real = Real.of(seen, engine)
        self.initial = real_images(seen, draw_pool(seen, config.ipc[0], config.seed), self.flips)
        fit = FitConfig(flip=self.flips)
        self.X = self.real.inputs(self.initial.images.to(engine.device))
        self.Y = mgdd.fitted_labels(self.X, self.features(128), self.real, fit, engine.rng(config.seed, "fit"))

    def features(self, width: int) -> RandomFeatures:
        shape = self.real.data.shape
        widths = doubling_widths(width, depth_for(shape))
        return RandomFeatures(shape, widths, "none", self.engine, self.engine.rng(self.config.seed, "features"))

    def refined(self, width: int, steps: int, real_batch: int) -> SyntheticSet:
        settings = RefineConfig(steps=steps, real_batch=real_batch, flip=self.flips)
        rng = self.engine.rng(self.config.seed, "refine")
        X, Y = mgdd.refine(self.X, self.Y, self.features(width), self.real, settings, rng)
        self.engine.synchronise()
        return replace(self.initial, images=self.real.inputs.inverse(X).cpu(), labels=Y.cpu(), stage="refined")

    def scores(self, made: SyntheticSet) -> dict[str, float]:
        """Held-out accuracy of the 8-bit set."""
        scaled = made.scaled().rounded()
        ridge = kernel_ridge(scaled, self.held, self.engine, seeds=NETWORKS)
        quick = train_and_test(scaled, self.held, "quick", self.engine, seeds=NETWORKS)
        return {"kernel-ridge": ridge.mean, "quick": quick.mean, "quick std": quick.std}

    def step_times(self) -> dict[str, dict[str, float]]:
        """Milliseconds of a step by width, and the load while they were taken; the widths take turns."""
        features = {width: self.features(width) for width in REAL}
        times: dict[int, list[float]] = {width: [] for width in REAL}
        for turn in range(TIMED + 1):
            for width, f in features.items():
                settings = RefineConfig(steps=1, real_batch=REAL[width], flip=self.flips)
                self.engine.synchronise()
                started = time.perf_counter()
                mgdd.refine(self.X, self.Y, f, self.real, settings, self.engine.rng(turn, "time"))
                self.engine.synchronise()
                times[width] += [time.perf_counter() - started] * bool(turn)  # the first one warms up
        return {
            str(w): {"milliseconds": round(1000 * statistics.median(t), 1), "load": load()} for w, t in times.items()
        }


def part_of(data: ImageData, rows: torch.Tensor) -> ImageData:
    return replace(data, images=data.images[rows], labels=data.labels[rows])


def load() -> float:
    """How many processes wanted to run in the last minute, this one among them."""
    return round(os.getloadavg()[0], 1)


def measured(bench: Bench, width: int, steps: int) -> dict[str, Any]:
    """One cell."""
    started = time.perf_counter()
    made = bench.refined(width, steps, REAL[width])
    seconds = round(time.perf_counter() - started, 1)
    cell = {"width": width, "real_batch": REAL[width], "steps": steps, "seconds": seconds, "load": load()}
    return cell | bench.scores(made)


def quieter(known: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """The quicker of two measurements of each width."""
    return {w: min(now[w], known.get(w, now[w]), key=lambda found: found["milliseconds"]) for w in now}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cells", nargs="*", default=[], metavar="WIDTH:STEPS")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--untimed", action="store_true", help="leave the time of a step as it is known")
    args = parser.parse_args()
    engine = Engine.choose(args.device, args.precision)
    bench = Bench(RunConfig(dataset=args.dataset, ipc=(args.ipc,), seed=args.seed), engine)
    known = json.loads(args.out.read_text()) if args.out.exists() else {"step": {}, "cells": []}
    name = f"{Path(args.dataset).name}, IPC {args.ipc}, seed {args.seed}, {HELD_OUT} images held out"
    if known.setdefault("measured on", name) != name:
        parser.error(f"{args.out} is of {known['measured on']}: choose another file.")
    precision = "bf16" if engine.bf16 else "fp32"
    known |= {"hardware": hardware(engine.device), "precision": precision, "torch": torch.__version__}
    if not args.untimed:
        known["step"] = quieter(known["step"], bench.step_times())
        args.out.write_text(json.dumps(known, indent=1) + "\n")
    print(json.dumps(known["step"]), flush=True)
    for width, steps in (tuple(map(int, cell.split(":"))) for cell in args.cells):
        if not any((row["width"], row["steps"]) == (width, steps) for row in known["cells"]):
            known["cells"].append(measured(bench, width, steps))
            print(json.dumps(known["cells"][-1]), flush=True)
            args.out.write_text(json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    main()
