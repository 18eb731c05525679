"""Could pre-training help at all? A generator that was adapted to the target itself, with another pool, against one from scratch.

    python benchmarks/pretraining_bound.py OUT.json cifar10 --starts 0 300 --steps 0 30 100 --seeds 0 1
    python benchmarks/pretraining_bound.py OUT.json cifar10 --starts 0 --lr 2e-3 4e-3 8e-3 --steps 30 100 --seeds 0 1

A start is a number of steps by which the generator was adapted to the target before, with the pool of seed 5; 0 is from scratch.
From there it is adapted with the pool of each seed, whitened (DCT), and labels are fitted at the end. Figures are kernel-ridge of 3
random networks on 5,000 images held out of the training split, of the 8-bit set. The file is written after every figure, and what
it holds is not measured again.
"""

import argparse
import copy
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import curves
import torch
from curves import Bench
from widths import HELD_OUT, part_of

from ddtool import api
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.evaluation.measure import kernel_ridge
from ddtool.events import silent
from ddtool.methods import mgdd
from ddtool.models.generator import Generator
from ddtool.pipeline.adapt import feasible, labelled_pool
from ddtool.pipeline.scoring import load_target
from ddtool.runs.files import write_json
from ddtool.runtime.engine import Engine, seeded_generator

BEFORE = 5
"""The seed of the pool and of the weights that a start is made with."""


@dataclass(frozen=True)
class HeldOut:
    """A target whose test images are training images that were set apart."""

    train: ImageData
    held: ImageData

    @classmethod
    def load(cls, config: Any, report: Any) -> "HeldOut":
        """In the place of `load_target`."""
        train = load_target(config, report).train
        order = torch.randperm(len(train), generator=seeded_generator("cpu", 0, "held out"))
        few = min(HELD_OUT, len(order) // 5)
        return cls(part_of(train, order[few:]), part_of(train, order[:few]))

    def test(self) -> ImageData:
        return self.held


def adapt(bench: Bench, g: Generator, steps: int, lr: float | None) -> None:
    """Adapt a generator in place on the pool of a bench."""
    config, engine, data = bench.config, bench.engine, bench.real.data
    settings = replace(config.adapt, steps=steps, flip=bench.flip, lr=lr or config.adapt.lr)
    settings = feasible(settings, config.ipc, data, silent)
    if steps:
        X, _ = bench.real.at(bench.rows)
        head = bench.theta, bench.W
        bench.pool = bench.pool or labelled_pool(bench.session, bench.problem, settings, X, head)
        mgdd.adapt(g, bench.features, bench.real, bench.pool, settings, engine, engine.rng(config.seed, "adapt"))


def made(bench: Bench, g: Generator) -> SyntheticSet:
    """The set of a generator as people load it."""
    first = bench.initial()
    X, _ = bench.real.at(bench.rows[: len(first)])
    images = bench.real.inputs.inverse(mgdd.generate(g, X, bench.real.inputs, bench.engine))
    fitted = bench.fitted(replace(first, images=images, stage="generated"))
    return fitted.scaled(bench.config.label_scale).rounded()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("dataset")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--starts", type=int, nargs="+", default=[0, 300])
    parser.add_argument("--steps", type=int, nargs="+", default=[0, 30, 100])
    parser.add_argument("--lr", type=float, nargs="+", default=[None], help="default: that of a run")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    args = parser.parse_args()
    engine, name = Engine.choose(), Path(args.dataset).name
    rows = json.loads(args.out.read_text(encoding="utf-8"))["rows"] if args.out.exists() else []
    known = {(r["dataset"], r["ipc"], r["start"], r["lr"], r["seed"], r["steps"]) for r in rows}
    curves.load_target = HeldOut.load  # type: ignore[assignment]

    def bench_of(seed: int) -> Bench:
        chosen = {"dataset": args.dataset, "ipc": [args.ipc], "seed": seed, "whitening": {"kind": "dct"}}
        return Bench(api.resolve(engine, "auto", chosen), engine)

    for start in args.starts:
        before = bench_of(BEFORE)
        warm = engine.place(Generator.build(before.config.architecture, BEFORE))
        adapt(before, warm, start, None)
        for seed in args.seeds:
            bench = bench_of(seed)
            for lr in args.lr:
                used = lr or bench.config.adapt.lr
                for steps in args.steps:
                    if (name, args.ipc, start, used, seed, steps) in known:
                        continue
                    g = copy.deepcopy(warm)
                    adapt(bench, g, steps, lr)
                    score = kernel_ridge(made(bench, g), bench.target.test(), engine, seeds=3)
                    row = {"dataset": name, "ipc": args.ipc, "start": start, "lr": used, "seed": seed, "steps": steps}
                    rows.append(row | {"kernel-ridge": score.mean})
                    print(json.dumps(rows[-1]), flush=True)
                    write_json(args.out, {"device": engine.describe(), "held out": HELD_OUT, "rows": rows})


if __name__ == "__main__":
    main()
