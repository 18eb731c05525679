"""Time one step of adaptation and of refinement against the naive form, side by side in one run.

    python benchmarks/steps.py [DATASET] [--ipc 10] [--rounds 10] [--device auto] [--loop-steps 300] [--out FILE.json]

Naive: what research scripts do: NCHW, float32, eager, 128-128-128 ConvNet with instance norm. Ours: ddtool's defaults.
The forms take turns within each round, so that a drift of the machine's speed meets all of them; medians are reported.
On a GPU it also times whole loops of our form, in three ways: as they are, with the optimiser that captured steps have, and with
steps captured in CUDA graphs (`ddtool adapt --graphs`).
"""

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch

from ddtool.config import AdaptConfig, RefineConfig
from ddtool.data.batches import Pool, Real
from ddtool.data.images import draw_per_class
from ddtool.events import Event, Report, Step
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths
from ddtool.models.generator import Generator, GeneratorConfig
from ddtool.runtime import capture
from ddtool.runtime.engine import Engine
from ddtool.sources import load as sources

FORMS = {  # name → (bf16 and channels last, widths of the feature network, norm)
    "naive: NCHW, float32, instance norm, 128-128-128": (False, "flat", "instance"),
    "bf16, channels last, instance norm, 128-128-128": (True, "flat", "instance"),
    "bf16, channels last, no norm, 128-128-128": (True, "flat", "none"),
    "ours: bf16, channels last, no norm, 32-64-128": (True, "doubling_widths", "none"),
}


class PlainEngine(Engine):
    """float32 and contiguous: the naive form's placement."""

    def place(self, module):  # type: ignore[no-untyped-def]
        return module.to(self.device, memory_format=torch.contiguous_format)


def steps_of(
    form: tuple[bool, str, str], target: sources.Target, ipc: int, device: str
) -> dict[str, Callable[[], None]]:
    """One step of each kind in one form, as functions without arguments."""
    fast, kind, norm = form
    engine = (
        Engine.choose(device, "bf16" if fast else "fp32") if fast else PlainEngine(Engine.choose(device).device, False)
    )
    real, rng = Real.of(target.train, engine), engine.rng(0, "steps")
    if not fast:
        inputs = real.inputs
        real.inputs = copy.copy(inputs)
        real.inputs.__class__ = type("Plain", (type(inputs),), {"__call__": _plain_call(type(inputs))})
    depth = depth_for(target.train.shape)
    widths = doubling_widths(128, depth) if kind == "doubling_widths" else (128,) * depth
    f = RandomFeatures(target.train.shape, widths, norm, engine, rng)
    X, Y = real.at(draw_per_class(real.data, ipc, rng))
    g = engine.place(Generator.build(GeneratorConfig(), 0))
    uses = AdaptConfig(steps=1, seen_ipcs=(ipc,), flip=True), RefineConfig(steps=1, flip=True)
    return {
        "adaptation": lambda: mgdd.adapt(g, f, real, Pool(X, {ipc: Y}), uses[0], engine, rng),
        "refinement": lambda: mgdd.refine(X, Y, f, real, uses[1], rng) and None,
    }


LOOPS = ("eager", "eager, fused Adam", "captured")


def loop_rows(target: sources.Target, ipc: int, engine: Engine, steps: int, rounds: int) -> list[dict]:
    """Steps a second of whole loops of our form, eager and captured in turn; and the last loss of each, which should agree."""
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for _ in range(rounds):
        for way in LOOPS:
            for kind, timed in loops_of(way, target, ipc, engine, steps).items():
                found.setdefault((kind, way), []).append(timed)
    rows = []
    for kind, way in sorted(found):
        speeds, losses = zip(*found[kind, way], strict=True)
        speed = round(statistics.median(speeds), 1)
        rows.append({"step": kind, "loop": way, "steps a second": speed, "loss": round(losses[-1], 6)})
        print(f"{kind:<11} {speed:>8.1f} steps a second, loss {losses[-1]:.6f}  {way}")
    return rows


def loops_of(way: str, target: sources.Target, ipc: int, engine: Engine, steps: int) -> dict[str, tuple[float, float]]:
    """Steps a second and the last loss of a loop of each kind, begun alike whatever the way."""
    engine = replace(engine, graphs=way != "eager")
    capture.WARM_UP = 3 if way == "captured" else steps
    real, rng = Real.of(target.train, engine), engine.rng(0, "loops")
    f = RandomFeatures.doubling(target.train.shape, 128, "none", engine, rng)
    X, Y = real.at(draw_per_class(real.data, ipc, rng))
    g = engine.place(Generator.build(GeneratorConfig(), 0))
    adapting, refining = AdaptConfig(steps=steps, seen_ipcs=(ipc,), flip=True), RefineConfig(steps=steps, flip=True)
    pool = Pool(X, {ipc: Y})
    return {
        "adaptation": clocked(lambda heard: mgdd.adapt(g, f, real, pool, adapting, engine, rng, heard), steps),
        "refinement": clocked(lambda heard: mgdd.refine(X, Y, f, real, refining, rng, heard) and None, steps),
    }


def clocked(loop: Callable[[Report], None], steps: int) -> tuple[float, float]:
    """Steps a second from the first report after a tenth of the steps (warm-up and capture are over) to the last; and its loss."""
    heard: list[tuple[float, Step]] = []

    def listen(event: Event) -> None:  # a report has waited for the device
        if isinstance(event, Step) and (event.step >= steps / 10 or event.step == event.total):
            heard.append((time.perf_counter(), event))

    loop(listen)
    (began, first), (ended, last) = heard[0], heard[-1]
    return (last.step - first.step) / (ended - began), last.values["loss"]


def _plain_call(base: type) -> Callable:
    return lambda self, images: base.__call__(self, images).contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="sample")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--loop-steps", type=int, default=300, help="steps of each loop on a GPU")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    target = sources.load(args.dataset)
    forms = {name: steps_of(form, target, args.ipc, args.device) for name, form in FORMS.items()}
    times: dict[tuple[str, str], list[float]] = {}
    for round_ in range(args.rounds + 1):
        for name, steps in forms.items():
            for kind, step in steps.items():
                started = time.perf_counter()
                step()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                if round_:  # the first round warms up
                    times.setdefault((kind, name), []).append(time.perf_counter() - started)
    rows = []
    for kind in ("adaptation", "refinement"):
        naive = times[kind, next(iter(FORMS))]
        for name in FORMS:
            ours = times[kind, name]
            ratio = statistics.median(a / b for a, b in zip(naive, ours, strict=True))
            milliseconds = round(1000 * statistics.median(ours), 1)
            rows.append({"step": kind, "form": name, "milliseconds": milliseconds, "times as fast": round(ratio, 2)})
            print(f"{kind:<11} {milliseconds:>8.1f} ms  {ratio:>5.2f}x  {name}")
    engine = Engine.choose(args.device)
    cuda = engine.device.type == "cuda"
    loops = loop_rows(target, args.ipc, engine, args.loop_steps, min(3, args.rounds)) if cuda else []
    if args.out:
        result = {
            "command": f"python benchmarks/steps.py {Path(args.dataset).name} --ipc {args.ipc} --rounds {args.rounds}",
            "hardware": engine.describe(),
            "torch": torch.__version__,
            "rows": rows,
        } | ({"loops": loops} if loops else {})
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
