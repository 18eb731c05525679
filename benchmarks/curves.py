"""Test accuracy over adaptation steps, from the meta generator and from scratch; and over refinement steps, from the
generator's output and from real images. One fresh network a seed (protocol `quick`), on the whole test split.

    python benchmarks/curves.py cifar10 --adapt 0 10 30 100 300 --refine 0 100 300 --seeds 3 --out curves-cifar10.json

Each point is an adaptation of just that length (its learning rate falls to the end), as `ddtool adapt --steps N` makes it.
"""

import argparse
import json
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from ddtool import api, mgdd, pipeline
from ddtool.config import RunConfig
from ddtool.data import SyntheticSet, draw_pool, real_images
from ddtool.engine import Engine
from ddtool.evaluation import kernel_ridge, train_and_test
from ddtool.generator import Generator
from ddtool.hub import generator_folder
from ddtool.nets import RandomFeatures
from ddtool.scoring import load_target


class Bench:
    """One dataset and seed: everything that all points share."""

    def __init__(self, config: RunConfig, engine: Engine) -> None:
        self.config, self.engine, self.target = config, engine, load_target(config, lambda event: None)
        self.real = mgdd.Real.of(self.target.train, engine)
        data, rng = self.real.data, engine.rng(config.seed, "labels")
        self.features = pipeline.feature_network(config, data.shape, engine)
        self.theta: RandomFeatures = pipeline.fixed_features(data.shape, config.labels.width, engine, rng)
        rows = torch.randperm(len(data), generator=rng, device=engine.device)[: config.labels.images]
        self.W = mgdd.label_head(self.theta, self.real, rows, config.labels.ridge)
        self.mirror = pipeline.mirror_keeps_classes(config, self.real, engine)[0]
        most = int(data.class_counts().min())
        self.rows = draw_pool(data, min(most, max(*config.adapt.seen_ipcs, *config.ipc)), config.seed)

    def initial(self) -> SyntheticSet:
        """Real images with analytical labels (Eq. 3)."""
        rows = self.rows[: self.config.ipc[0] * self.real.data.num_classes]
        X, _ = self.real.at(rows)
        Y = mgdd.analytical_labels(self.theta, self.W, X)
        return real_images(self.real.data, rows, self.mirror, "initial", Y)

    def generated(self, generator: str, steps: int) -> SyntheticSet:
        """The output of a generator after so many steps, with analytical labels."""
        config, engine = self.config, self.engine
        g = Generator.build(config.architecture, config.seed) if generator == "scratch" else None
        g = engine.place(g or Generator.load(generator_folder(generator)))
        X, _ = self.real.at(self.rows)
        pool = mgdd.Pool(X, mgdd.analytical_labels(self.theta, self.W, X))
        settings = replace(config.adapt, steps=steps, mirror=self.mirror)
        settings = pipeline.feasible(settings, self.real.data, lambda event: None)
        mgdd.adapt(g, self.features, self.real, pool, settings, engine, engine.rng(config.seed, "adapt"))
        first = self.initial()
        made = mgdd.generate(g, X[: len(first)], self.real.normalise, engine)
        return replace(first, images=self.real.normalise.inverse(made), stage="generated")

    def fitted(self, synthetic: SyntheticSet) -> SyntheticSet:
        return pipeline.fit_labels(self.config, synthetic, self.real, self.features, self.engine)

    def refined(self, synthetic: SyntheticSet, steps: int) -> SyntheticSet:
        settings = replace(self.config.refine, steps=steps, mirror=self.mirror)
        X, rng = self.real.normalise(synthetic.images), self.engine.rng(self.config.seed, "refine")
        X, Y = mgdd.refine(X, synthetic.labels, self.features, self.real, settings, rng)
        return replace(synthetic, images=self.real.normalise.inverse(X), labels=Y, label_method="learned")

    def scores(self, synthetic: SyntheticSet) -> dict[str, float]:
        scaled, test = synthetic.scaled(self.config.label_scale), self.target.test()
        ridge = kernel_ridge(scaled, test, self.engine, seeds=1, seed=self.config.seed)
        quick = train_and_test(scaled, test, "quick", self.engine, seeds=1, seed=self.config.seed)
        return {"kernel-ridge": ridge.mean, "quick": quick.mean}


def points(bench: Bench, args: argparse.Namespace) -> Iterator[tuple[str, int, SyntheticSet]]:
    """(name of the curve, steps, set) of everything that is asked for."""
    first = bench.initial()
    yield "real images, hard labels", 0, real_images(bench.real.data, bench.rows[: len(first)], bench.mirror)
    yield "real images, analytical labels", 0, first
    yield "real images, fitted labels", 0, bench.fitted(first)
    for generator in args.generators:
        for steps in args.adapt:
            made = bench.generated(generator, steps)
            if args.analytical:
                yield f"{generator}, analytical labels", steps, made
            yield f"{generator}, fitted labels", steps, bench.fitted(made)
    for steps in args.refine:
        if args.analytical:
            yield "refined from real images, analytical labels", steps, bench.refined(first, steps)
        yield "refined from real images, fitted labels", steps, bench.refined(bench.fitted(first), steps)
        made = bench.fitted(bench.generated(args.generators[0], args.refine_after))
        yield f"refined from {args.generators[0]} after {args.refine_after} steps", steps, bench.refined(made, steps)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--generators", nargs="+", default=["bundled", "scratch"])
    parser.add_argument("--adapt", type=int, nargs="*", default=[0, 10, 30, 100, 300, 1000])
    parser.add_argument("--refine", type=int, nargs="*", default=[])
    parser.add_argument("--refine-after", type=int, default=100, help="adaptation steps before the refinement")
    parser.add_argument("--analytical", action="store_true", help="the paper's labels (Eq. 3) beside the fitted ones")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    engine, started = Engine.choose(), time.perf_counter()
    rows: dict[tuple[str, int], list[dict[str, float]]] = {}
    for seed in range(args.seeds):
        chosen = {"dataset": args.dataset, "ipc": [args.ipc], "seed": seed}
        bench = Bench(api.resolve(engine, "auto", chosen), engine)
        for name, steps, synthetic in points(bench, args):
            score = bench.scores(synthetic)
            rows.setdefault((name, steps), []).append(score)
            print(f"seed {seed}  {name:48} {steps:5}  {score}  {time.perf_counter() - started:.0f} s", flush=True)
            write(args, engine, rows, time.perf_counter() - started)


def write(args: argparse.Namespace, engine: Engine, rows: dict, seconds: float) -> None:
    """What has been measured so far: mean and standard deviation over seeds."""
    table = [
        {"curve": name, "steps": steps, "seeds": len(found)}
        | {k: round(statistics.mean(s[k] for s in found), 2) for k in found[0]}
        | {f"{k} std": round(statistics.stdev([s[k] for s in found]) if len(found) > 1 else 0.0, 2) for k in found[0]}
        for (name, steps), found in rows.items()
    ]
    head = {"dataset": Path(args.dataset).name, "ipc": args.ipc, "device": engine.describe(), "seconds": round(seconds)}
    args.out.write_text(json.dumps(head | {"points": table}, indent=1) + "\n")


if __name__ == "__main__":
    main()
