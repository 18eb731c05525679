"""Many classes and many files, measured: what a dataset of 1,000 classes takes in processor seconds and memory, stage by stage.

    python benchmarks/large.py OUT.json [--parts files steps ipc1 ipc10]

Its pictures are drawn here (stripes of an angle, a width and two colours for each class), so accuracies would say nothing.

    files        200,000 PNGs of 16x16 in 1,000 folders: what hashing, listing, looking at and decoding them takes
    steps        1,000 classes at IPC 10, 32x32, preset small: the labels of the pool, a step of adaptation and one of refinement,
                 and the labels of the finished set for 4 networks (of 32; the pool's take as many parts with either number)
    ipc1, ipc10  1,000 classes of 11 training images, 64x64, preset small, 2 networks to fit and 3 steps: processor seconds and peak
                 resident memory of every stage, and the sizes of what is kept. The trials (flips, whitening) are in ipc1 alone; of
                 the labels of the pool, which are found part by part, a quarter of the parts (`SEEN` is 1)

Processor seconds of this process and its threads, so that other work on the machine counts little. A part that is in OUT.json is
not measured again. What ImageNet-1k at 224x224 would take follows on paper: `benchmarks/imagenet.py`.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddtool import api
from ddtool.data import batches
from ddtool.data.images import SyntheticSet
from ddtool.evaluation.measure import training
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.events import Done, Event, Step
from ddtool.runs.formats import write_set_folder
from ddtool.runtime.engine import Engine, hardware
from ddtool.sources import load as sources
from ddtool.sources.pixels import Rules, decode_image

CLASSES = 1000


def drawn(c: int, i: int, side: int) -> bytes:
    """A PNG of image i of class c: its stripes, shifted and with noise."""
    draw = np.random.default_rng((c, i))
    kind = np.random.default_rng(c)
    angle, width = kind.uniform(0, np.pi), kind.uniform(2, 8)
    low, high = kind.uniform(0, 255, (2, 3))
    y, x = np.mgrid[:side, :side]
    wave = 0.5 + 0.5 * np.sin((x * np.cos(angle) + y * np.sin(angle)) / width + draw.uniform(0, 6))
    pixels = low + wave[..., None] * (high - low) + draw.normal(0, 16, (side, side, 3))
    out = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(out, "PNG", compress_level=1)
    return out.getvalue()


def folder(root: Path, images: int, side: int) -> Path:
    """A folder of 1,000 classes with so many images each, a tenth of which are drawn and the others copies of those."""
    for c in range(CLASSES):
        (inner := root / f"class {c}").mkdir(parents=True)
        raws = [drawn(c, i, side) for i in range(max(2, images // 10))]
        for i in range(images):
            (inner / f"{i}.png").write_bytes(raws[i % len(raws)])
    return root


class Clock:
    """A listener that keeps the processor time of every event, by phase."""

    def __init__(self) -> None:
        self.at: dict[str, list[float]] = defaultdict(list)
        self.ends: dict[str, float] = {}
        self.last = time.process_time()

    def __call__(self, event: Event) -> None:
        now = time.process_time()
        if isinstance(event, Step):
            self.at[event.phase].append(now)
        if isinstance(event, Done):
            self.ends[event.phase] = now - self.last
        if isinstance(event, Done):
            self.last = now

    def step(self, phase: str) -> float:
        """The median of a step of a phase that reports every one."""
        return statistics.median(np.diff(self.at[phase]))


def files(work: Path) -> dict[str, Any]:
    """Processor seconds of each part of reading 200,000 files, and of opening them again from the cache."""
    data, clock = folder(work / "data", 200, 16), Clock()
    started = time.process_time()
    target = sources.load(str(data), cache_dir=work / "cache", report=clock)
    read = time.process_time()
    ends = {phase: round(at[-1] - started, 1) for phase, at in clock.at.items()}
    sources.load(str(data), cache_dir=work / "cache")
    return {
        "images": len(target.train) + target.test_size,
        "cpu_seconds": round(read - started, 1),
        "at_the_end_of": ends,
        "reports": {phase: len(at) for phase, at in clock.at.items()},
        "again_cpu_seconds": round(time.process_time() - read, 1),
    }


def steps(work: Path) -> dict[str, Any]:
    """Processor seconds of the phases and steps of a run whose steps are few."""
    data, clock = folder(work / "data", 25, 32), Clock()
    few = {"adapt": {"steps": 5}, "refine": {"steps": 5}, "fit": {"networks": 4}, "evaluate": {"enabled": False}}
    settings = few | {"flip": False, "whitening": {"kind": "none"}}
    api.adapt(
        str(data), ipc=10, out=work / "run", preset_name="small", settings=settings, report=clock,
        engine=Engine.choose("cpu"),
    )  # fmt: skip
    phases = {phase: round(seconds, 1) for phase, seconds in clock.ends.items()}
    per_step = {phase: round(clock.step(phase), 2) for phase in clock.at if len(clock.at[phase]) == 5}
    return {"phases_cpu_seconds": phases, "step_cpu_seconds": per_step}


class Stages:
    """A listener that keeps processor seconds and peak resident MiB of every stage, from the end of the one before."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, float]] = {}
        self.begin()

    def begin(self) -> None:
        """Count from here on: `clear_refs` sets the peak of this process to what it holds now (Linux)."""
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        self.last, self.steps = time.process_time(), list[float]()

    def end(self, name: str) -> None:
        """Keep what has been taken since the last stage."""
        status = Path("/proc/self/status").read_text(encoding="ascii")
        peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
        self.found[name] = {"cpu_seconds": round(time.process_time() - self.last, 2), "peak_mib": round(peak / 1024)}
        if len(self.steps) > 1:
            self.found[name]["step_cpu_seconds"] = round(statistics.median(np.diff(self.steps)), 2)
        self.begin()

    def __call__(self, event: Event) -> None:
        if isinstance(event, Step):
            self.steps.append(time.process_time())
        if isinstance(event, Done):
            self.end(event.phase)


def stages(work: Path, ipc: int) -> dict[str, Any]:
    """Every stage of a run of 1,000 classes at 64x64, from reading to a step of scoring."""
    data, clock, engine = folder(work / "data", 12, 64), Stages(), Engine.choose("cpu")
    os.environ["DDTOOL_CACHE"], batches.SEEN = str(work / "cache"), 1
    clock.begin()
    target = sources.load(str(data))
    clock.end("read")
    trials = {} if ipc == 1 else {"flip": False, "whitening": {"kind": "none"}}
    few = {"adapt": {"steps": 3}, "refine": {"steps": 3}, "fit": {"networks": 2}, "evaluate": {"enabled": False}}
    run = api.adapt(
        str(data), ipc=ipc, out=work / "run", preset_name="small", settings=few | trials, report=clock, engine=engine
    )
    clock.end("write stages, set, preview and page")
    made = run.load_set(ipc)
    clock.end("read the set")
    write_set_folder(work / "again", made)
    clock.end("write the set")
    score_steps(made, engine, clock)
    files = sorted(path for path in run.folder.rglob("*") if path.suffix in (".parquet", ".safetensors"))
    return {
        "train": list(target.train.images.shape),
        "set": list(made.images.shape),
        "whitening": made.whitening and made.whitening.kind,
        "flip": made.flip,
        "stages": clock.found,
        "file_bytes": {path.relative_to(run.folder).as_posix(): path.stat().st_size for path in files},
        "photograph_cpu_ms": photograph_ms(),
    }


def score_steps(made: SyntheticSet, engine: Engine, clock: Stages) -> None:
    """The first four steps of a network by the protocol quick; the median leaves out what comes before them."""
    p, clock.steps = PROTOCOLS["quick"], []
    taught = training(made, p, p.steps(len(made)), engine, (0, 0))
    for _ in range(5):
        next(taught)
        clock.steps.append(time.process_time())
    clock.end("score")


def photograph_ms() -> float:
    """Processor's milliseconds to decode a JPEG of 500x375, such as ImageNet has, and bring it to 224x224: median of 20."""
    smooth = Image.fromarray(np.random.default_rng(0).integers(0, 255, (38, 50, 3), np.uint8)).resize((500, 375))
    noise = np.random.default_rng(1).normal(0, 8, (375, 500, 3))
    Image.fromarray((np.asarray(smooth) + noise).clip(0, 255).astype(np.uint8)).save(
        out := io.BytesIO(), "JPEG", quality=92
    )
    taken = []
    for _ in range(20):
        started = time.process_time()
        decode_image(out.getvalue(), Rules(224, "black"))
        taken.append(1000 * (time.process_time() - started))
    return round(statistics.median(taken), 2)


PARTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "files": files,
    "steps": steps,
    "ipc1": partial(stages, ipc=1),
    "ipc10": partial(stages, ipc=10),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    args = parser.parse_args()
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    known |= {"hardware": hardware(torch.device("cpu")), "threads": torch.get_num_threads(), "torch": torch.__version__}
    for part in [part for part in args.parts if part not in known]:
        with tempfile.TemporaryDirectory() as work:
            known[part] = PARTS[part](Path(work)) | {"load": round(os.getloadavg()[0], 1)}
        args.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(part, json.dumps(known[part]), flush=True)


if __name__ == "__main__":
    main()
