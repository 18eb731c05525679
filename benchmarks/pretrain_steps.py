"""Time iterations of pre-training against the naive loop, side by side in one run.

    python benchmarks/pretrain_steps.py DATASET [--rounds 3] [--ways 10] [--ipc 10] [--device auto] [--out FILE.json]

An iteration is one task from beginning to end: its images, labels, τ inner steps, the gradient, the outer update. Naive and
ours as in steps.py; both start from the memory-mapped cache. The forms take turns within each round on the same task, so that
a drift of the machine's speed meets all of them; medians are reported.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from steps import FORMS, PlainEngine

from ddtool.config import AdaptConfig, MetaConfig
from ddtool.data.inputs import NetworkInput
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths
from ddtool.models.generator import Generator, GeneratorConfig
from ddtool.pretraining.tasks import LargeSet, task_source
from ddtool.runtime.engine import Engine
from ddtool.sources import load as sources


class PlainNormaliser(NetworkInput):
    """The naive form's images: contiguous."""

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        return super().__call__(images).contiguous()


def iteration_of(
    form: tuple[bool, str, str], large: LargeSet, config: MetaConfig, architecture: GeneratorConfig, device: str
) -> Callable[[int], None]:
    """One outer iteration in one form, as a function of the seed that draws its task."""
    fast, kind, norm = form
    engine = Engine.choose(device, "bf16") if fast else PlainEngine(Engine.choose(device).device, False)
    shape, depth = large.data.shape, depth_for(large.data.shape)
    widths = doubling_widths(128, depth) if kind == "doubling_widths" else (128,) * depth
    features = {shape[0]: RandomFeatures(shape, widths, norm, engine, engine.rng(0, "features"))}
    g = engine.place(Generator.build(architecture, 0))

    def iteration(seed: int) -> None:
        mgdd.NetworkInput = NetworkInput if fast else PlainNormaliser  # type: ignore[misc]
        mgdd.meta_train(g, features, task_source([large], config, engine.device), config, engine, seed)

    return iteration


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", type=int, default=10)
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--inner-steps", type=int, default=MetaConfig().inner_steps)
    parser.add_argument("--slots", type=int, default=GeneratorConfig().slots)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    large = LargeSet.of(sources.load(args.dataset).train, 2, 2 * args.ipc, 0)
    config = MetaConfig(
        iterations=1, meta_batch=1, inner_steps=args.inner_steps, ways=(args.ways,) * 2, ipc=(args.ipc,) * 2, grey=0.0,
        task=AdaptConfig(real_batch=128),
    )  # fmt: skip
    architecture = GeneratorConfig(args.slots)
    forms = {name: iteration_of(form, large, config, architecture, args.device) for name, form in FORMS.items()}
    times: dict[str, list[float]] = {}
    for round_ in range(args.rounds + 1):
        for name, iteration in forms.items():
            started = time.perf_counter()
            iteration(round_)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_:  # the first round warms up
                times.setdefault(name, []).append(time.perf_counter() - started)
    rows = []
    naive = times[next(iter(FORMS))]
    for name, ours in times.items():
        ratio = statistics.median(a / b for a, b in zip(naive, ours, strict=True))
        rate = 1 / statistics.median(ours)
        rows.append({"form": name, "tasks a second": round(rate, 4), "times as fast": round(ratio, 2)})
        print(f"{rate:>7.4f} tasks/s  {ratio:>5.2f}x  {name}")
    if args.out:
        words = f"{Path(args.dataset).name} --rounds {args.rounds} --inner-steps {args.inner_steps}"
        result = {
            "command": f"python benchmarks/pretrain_steps.py {words}",
            "hardware": Engine.choose(args.device).describe(),
            "torch": torch.__version__,
            "rows": rows,
        }
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
