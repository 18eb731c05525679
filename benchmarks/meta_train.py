"""Meta-train the bundled generator: first-order MAML on a large dataset, with a check on held-out classes.

    python benchmarks/meta_train.py DATASET --out OUT [--iterations N] [--outer maml|reptile]

Kill it and start it again: it goes on from its checkpoint. Writes OUT/generator, OUT/history.jsonl, OUT/settings.json.
"""

import argparse
import copy
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from ddtool import mgdd, sources
from ddtool.config import AdaptConfig, MetaConfig, to_dict
from ddtool.data import accuracy
from ddtool.engine import Engine
from ddtool.events import Done, Event, Step
from ddtool.generator import Generator, GeneratorConfig
from ddtool.nets import RandomFeatures, depth_for, pyramid
from ddtool.runs import FileSaver

HELD_OUT = 20


def held_out_accuracy(
    g: Generator, f: RandomFeatures, real: mgdd.Real, classes: torch.Tensor, config: MetaConfig, engine: Engine
) -> dict[str, float]:
    """Kernel-ridge accuracy on 2 tasks of held-out classes after 0, 20 and 100 adaptation steps."""
    out: dict[str, float] = {}
    for k in range(2):
        rng = engine.rng(k, "held-out")
        task, pool = mgdd.draw_task(real, f, classes, replace(config, label_images=500), rng)
        fit, held = task.data.head(4000), slice(4000, 5000)
        train = mgdd.Real.of(fit, engine)
        X, y = task.normalise(task.data.images[held]), task.data.labels[held]
        for steps in (0, 20, 100):
            adapted = copy.deepcopy(g)
            settings = replace(config.task, steps=steps, seen_ipcs=(config.ipc,), lr_floor=0.05)
            rng = engine.rng(k, "held-out adapt")
            if steps:
                mgdd.adapt(adapted, f, train, pool, settings, engine, rng)
            made = mgdd.generate(adapted, pool.X_s, task.normalise, engine)
            with torch.no_grad():
                W = mgdd.ridge_head(f.draw(engine.rng(9, k))(made), pool.Y_s, 1e-3)
                score = accuracy(torch.cat([f(part) @ W for part in X.split(500)]), y)
            out[f"accuracy after {steps}"] = out.get(f"accuracy after {steps}", 0) + score / 2
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--iterations", type=int, default=400)
    parser.add_argument("--outer", default="reptile")
    parser.add_argument("--outer-lr", type=float, default=5e-4)
    parser.add_argument("--inner-lr", type=float, default=2e-3)
    parser.add_argument("--inner-steps", type=int, default=20)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--blocks", type=int, default=1)
    parser.add_argument("--check-every", type=int, default=50)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    engine = Engine.choose()
    config = MetaConfig(
        iterations=args.iterations,
        inner_steps=args.inner_steps,
        outer=args.outer,
        outer_lr=args.outer_lr,
        task=AdaptConfig(lr=args.inner_lr, real_batch=200),
    )
    args.out.mkdir(parents=True, exist_ok=True)
    settings = {"dataset": Path(args.dataset).name, "seed": args.seed, "device": engine.describe(), **to_dict(config)}
    (args.out / "settings.json").write_text(json.dumps(settings, indent=2) + "\n")
    real = mgdd.Real.of(sources.load(args.dataset).train, engine)
    rng = engine.rng(args.seed, "meta")
    order = torch.randperm(real.data.num_classes, generator=engine.rng(args.seed, "classes"))
    f = RandomFeatures(real.data.shape, pyramid(128, depth_for(real.data.shape)), "none", engine, rng)
    g = engine.place(Generator.build(GeneratorConfig(args.width, args.blocks), args.seed))
    started = time.perf_counter()

    def check(step: int, loss: float) -> None:
        g.save(args.out / "generator")
        row = {"iteration": step, "loss": loss, "seconds": round(time.perf_counter() - started)}
        row |= held_out_accuracy(g, RandomFeatures(real.data.shape, pyramid(128, 3), "none", engine, engine.rng(1, "f")),
                                 real, order[:HELD_OUT], config, engine)  # fmt: skip
        with (args.out / "history.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)

    def report(event: Event) -> None:
        if isinstance(event, Step) and event.step % args.check_every == 0:
            check(event.step, event.values["loss"])
        elif isinstance(event, Done):
            g.save(args.out / "generator")

    saver = FileSaver(args.out / "checkpoint.safetensors")
    if not saver.path.exists():
        check(0, float("nan"))
    mgdd.meta_train(g, f, real, order[HELD_OUT:], config, engine, rng, report, saver)


if __name__ == "__main__":
    main()
