"""Test accuracy over adaptation steps, from the meta generator and from scratch; and over refinement steps, from the
generator's output and from real images. One fresh network a seed (protocol `quick`), on the whole test split.

    python benchmarks/curves.py cifar10 --refine 100 300 --seeds 3 --out curves-cifar10.json
    python benchmarks/curves.py --plot curves.svg curves-cifar10.json curves-cifar100.json

Each point is an adaptation of just that length (its learning rate falls to the end), as `ddtool adapt --steps N` makes it, whitened
with --whiten dct. What is scored is the set as people load it (8 bits). --generators takes folders of `ddtool pretrain` too. The
file keeps every score, and the seconds that its set took to make; the same command again goes on with what is missing. The second
command draws files on one sheet.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch

from ddtool import api
from ddtool.config import RunConfig
from ddtool.data.batches import Pool, Real
from ddtool.data.images import ImageData, SyntheticSet, draw_pool, real_images
from ddtool.data.whitening import KINDS
from ddtool.evaluation.measure import kernel_ridge, train_and_test
from ddtool.evaluation.protocols import ROUNDED
from ddtool.events import silent
from ddtool.experiments.grid import entries
from ddtool.experiments.plot import Level, Line, Panel, Point, draw
from ddtool.experiments.report import style_of
from ddtool.hub.generators import generator_folder
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.models.generator import Generator
from ddtool.pipeline.adapt import feasible, labelled_pool
from ddtool.pipeline.generate import fit_labels
from ddtool.pipeline.networks import feature_network, fixed_features
from ddtool.pipeline.plan import pool_size
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.session import JudgedProblem, Session
from ddtool.pipeline.target import fitted_whitening, flip_keeps_classes
from ddtool.runs.files import write_json
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine

FIGURES = ("quick", "kernel-ridge")


class Bench:
    """One dataset and seed: everything that all points share."""

    def __init__(self, config: RunConfig, engine: Engine) -> None:
        self.config, self.engine, self.target = config, engine, load_target(config, lambda event: None)
        self.session = Session(config, Run(Path("unused")), engine)  # nothing is written down
        self.real = Real.of(self.seen(self.target.train), engine)
        data, rng = self.real.data, engine.rng(config.seed, "labels")
        self.features = feature_network(self.session, data.shape)
        self.theta: RandomFeatures = fixed_features(data.shape, config.labels.width, engine, rng)
        rows = torch.randperm(len(data), generator=rng, device=engine.device)[: config.labels.images]
        self.W = mgdd.label_head(self.theta, self.real, rows, config.labels.ridge)
        self.flip = flip_keeps_classes(self.session, self.real)[0]
        self.problem = JudgedProblem(self.real, self.flip, self.features)
        self.pool: Pool | None = None
        self.rows = draw_pool(data, pool_size(config, data), config.seed)

    def seen(self, train: ImageData) -> ImageData:
        """The training images as networks see them: whitened, where the configuration names a whitening."""
        kind = self.config.whitening.kind
        if kind not in KINDS:
            return train
        return replace(train, whitening=fitted_whitening(self.session, Real.of(train, self.engine), kind))

    def initial(self) -> SyntheticSet:
        """Real images with analytical labels (Eq. 3)."""
        rows = self.rows[: self.config.ipc[0] * self.real.data.num_classes]
        X, _ = self.real.at(rows)
        Y = mgdd.analytical_labels(self.theta, self.W, X)
        return real_images(self.real.data, rows, self.flip, "initial", Y)

    def generated(self, generator: str, steps: int) -> SyntheticSet:
        """The output of a generator after so many steps, with analytical labels."""
        config, engine = self.config, self.engine
        g = Generator.build(config.architecture, config.seed) if generator == "scratch" else None
        g = engine.place(g or Generator.load(generator_folder(generator)))
        X, _ = self.real.at(self.rows)
        settings = replace(config.adapt, steps=steps, flip=self.flip)
        settings = feasible(settings, config.ipc, self.real.data, silent)
        if steps:
            head = self.theta, self.W
            self.pool = self.pool or labelled_pool(self.session, self.problem, settings, X, head)
            mgdd.adapt(g, self.features, self.real, self.pool, settings, engine, engine.rng(config.seed, "adapt"))
        first = self.initial()
        made = mgdd.generate(g, X[: len(first)], self.real.inputs, engine)
        return replace(first, images=self.real.inputs.inverse(made), stage="generated")

    def finished(self, generator: str, steps: int) -> SyntheticSet:
        """The same with fitted labels, as `ddtool adapt` leaves it."""
        return self.fitted(self.generated(generator, steps))

    def fitted(self, synthetic: SyntheticSet) -> SyntheticSet:
        return fit_labels(self.session, self.problem, synthetic)

    def refined(self, synthetic: SyntheticSet, steps: int) -> SyntheticSet:
        settings = replace(self.config.refine, steps=steps, flip=self.flip)
        X, rng = self.real.inputs(synthetic.images), self.engine.rng(self.config.seed, "refine")
        X, Y = mgdd.refine(X, synthetic.labels, self.features, self.real, settings, rng)
        return replace(synthetic, images=self.real.inputs.inverse(X), labels=Y, label_method="learned")

    def scores(self, synthetic: SyntheticSet) -> dict[str, float]:
        scaled, test = synthetic.scaled(self.config.label_scale).rounded(), self.target.test()
        ridge = kernel_ridge(scaled, test, self.engine, seeds=1, seed=self.config.seed)
        quick = train_and_test(scaled, test, "quick", self.engine, seeds=1, seed=self.config.seed)
        return {"kernel-ridge": ridge.mean, "quick": quick.mean}


Make = Callable[[Bench], SyntheticSet]


def points(args: argparse.Namespace) -> Iterator[tuple[str, int, Make]]:
    """(name of the curve, steps, how a bench makes the set) of everything that is asked for."""
    if not args.no_real:
        yield "real images, hard labels", 0, lambda b: real_images(b.real.data, b.rows[: len(b.initial())], b.flip)
        yield "real images, analytical labels", 0, Bench.initial
        yield "real images, fitted labels", 0, lambda b: b.fitted(b.initial())
    for generator, steps in product(args.generators, args.adapt):
        if args.analytical:
            yield f"{generator}, analytical labels", steps, partial(Bench.generated, generator=generator, steps=steps)
        yield f"{generator}, fitted labels", steps, partial(Bench.finished, generator=generator, steps=steps)
    first, after = args.generators[0], args.refine_after
    for steps in args.refine:
        if args.analytical:
            yield "refined from real images, analytical labels", steps, partial(refined, Bench.initial, steps)
        yield "refined from real images, fitted labels", steps, partial(refined, lambda b: b.fitted(b.initial()), steps)
        made = partial(Bench.finished, generator=first, steps=after)
        yield f"refined from {first} after {after} steps", steps, partial(refined, made, steps)


def refined(start: Make, steps: int, bench: Bench) -> SyntheticSet:
    return bench.refined(start(bench), steps)


# ------------------------------------------------------------------------------------------------------- the file


def measure(args: argparse.Namespace) -> None:
    """Score what the file does not have yet, and write it after every score."""
    engine, scores = Engine.choose(), kept(args)
    done = {(row["curve"], row["steps"], row["seed"]) for row in scores}
    for seed in range(args.seeds):
        missing = [point for point in points(args) if (*point[:2], seed) not in done]
        if not missing:
            continue
        chosen = {"dataset": args.dataset, "ipc": [args.ipc], "seed": seed, "whitening": {"kind": args.whiten}}
        bench = Bench(api.resolve(engine, "auto", chosen), engine)
        for name, steps, make in missing:
            started = time.perf_counter()
            made = make(bench)
            engine.synchronise()
            row = {"curve": name, "steps": steps, "seed": seed, "seconds": round(time.perf_counter() - started, 1)}
            scores.append(row | bench.scores(made))
            print(json.dumps(scores[-1]), flush=True)
            said = head(args) | {"device": engine.describe(), "points": table(scores), "scores": scores}
            write_json(args.out, said)


def head(args: argparse.Namespace) -> dict[str, Any]:
    """What all scores of a file have in common."""
    settings = {"dataset": Path(args.dataset).name, "ipc": args.ipc, "refine_after": args.refine_after}
    settings |= {"pixels": ROUNDED, "whitening": args.whiten}
    return settings | {"architecture": asdict(RunConfig().architecture)}


def kept(args: argparse.Namespace) -> list[dict[str, Any]]:
    """The scores that the file has; it must be of the same dataset and settings."""
    if not args.out.exists():
        return []
    said = json.loads(args.out.read_text(encoding="utf-8"))
    for name, value in head(args).items():
        if said.get(name) != value:
            raise SystemExit(f"{args.out} has {name} {said.get(name)!r}, not {value!r}: choose another --out.")
    return said["scores"]


def table(scores: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Mean and standard deviation over seeds of every point, in the order in which they were first scored."""
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in scores:
        rows.setdefault((row["curve"], row["steps"]), []).append(row)
    return [
        {"curve": name, "steps": steps, "seeds": len(found)}
        | {k: round(statistics.mean(s[k] for s in found), 2) for k in FIGURES}
        | {f"{k} std": round(statistics.stdev([s[k] for s in found]) if len(found) > 1 else 0.0, 2) for k in FIGURES}
        for (name, steps), found in rows.items()
    ]


def plot(files: list[Path], out: Path) -> None:
    """One panel a file: a line for every curve of several points, a level for every other. 0 steps stand at 1."""
    panels = []
    for file in files:
        said = json.loads(file.read_text(encoding="utf-8"))
        curves: dict[str, list[dict[str, Any]]] = {}
        for row in sorted(said["points"], key=lambda row: (row["curve"].startswith("refined"), row["curve"])):
            curves.setdefault(row["curve"], []).append(row)
        several = [(name, rows) for name, rows in curves.items() if len(rows) > 1]
        lines = tuple(line_of(name, rows, i) for i, (name, rows) in enumerate(several))
        levels = tuple(Level(name, rows[0]["quick"]) for name, rows in curves.items() if len(rows) == 1)
        panels.append(Panel(said["dataset"], f"{said['ipc']} images per class", lines, levels))
    out.write_bytes(draw(panels, "steps (logarithmic; none at 1)", "test accuracy, %"))


def line_of(name: str, rows: list[dict[str, Any]], i: int) -> Line:
    styles = [style_of(name) for name, entry in entries().items() if entry.variant.colour]
    style = styles[i % len(styles)]
    points = tuple(
        Point(max(r["steps"], 1), r["quick"], r["quick std"]) for r in sorted(rows, key=lambda r: r["steps"])
    )
    short = name.removesuffix(", fitted labels")
    return Line(short, points, style, dashed=name.startswith("refined"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="*", help="one dataset, or with --plot the files to draw")
    parser.add_argument("--plot", type=Path, help="draw files that were measured before")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--generators", nargs="+", default=["bundled", "scratch"])
    parser.add_argument("--adapt", type=int, nargs="*", default=[0, 10, 30, 100, 300, 1000])
    parser.add_argument("--refine", type=int, nargs="*", default=[])
    parser.add_argument("--refine-after", type=int, default=100, help="adaptation steps before the refinement")
    parser.add_argument("--analytical", action="store_true", help="the paper's labels (Eq. 3) beside the fitted ones")
    parser.add_argument("--no-real", action="store_true", help="leave out the sets of real images")
    parser.add_argument("--whiten", choices=("none", *KINDS), default="none")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.plot:
        return plot([Path(name) for name in args.dataset], args.plot)
    if len(args.dataset) != 1 or args.out is None:
        parser.error("name one dataset and --out FILE, or --plot FILE and the files to draw")
    args.dataset = args.dataset[0]
    if args.threads:
        torch.set_num_threads(args.threads)
    measure(args)


if __name__ == "__main__":
    main()
