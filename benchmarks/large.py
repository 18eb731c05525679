"""Many classes and many files, measured: the processor seconds that a dataset of 1,000 classes takes before and in the steps.

    python benchmarks/large.py OUT.json [--parts files steps]

Its pictures are drawn here (stripes of an angle, a width and two colours for each class), so accuracies would say nothing.

    files    200,000 PNGs of 16x16 in 1,000 folders: what hashing, listing, looking at and decoding them takes
    steps    1,000 classes at IPC 10, 32x32, preset small: the labels of the pool, a step of adaptation and one of refinement, and
             the labels of the finished set for 4 networks (of 32; the pool's take as many parts with either number)

Processor seconds of this process and its threads, so that other work on the machine counts little. A part that is in OUT.json is
not measured again.
"""

import argparse
import io
import json
import os
import statistics
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddtool import api
from ddtool.events import Done, Event, Step
from ddtool.runtime.engine import Engine, hardware
from ddtool.sources import load as sources

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--parts", nargs="+", choices=["files", "steps"], default=["files", "steps"])
    args = parser.parse_args()
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    known |= {"hardware": hardware(torch.device("cpu")), "threads": torch.get_num_threads(), "torch": torch.__version__}
    for part in [part for part in args.parts if part not in known]:
        with tempfile.TemporaryDirectory() as work:
            known[part] = {"files": files, "steps": steps}[part](Path(work)) | {"load": round(os.getloadavg()[0], 1)}
        args.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(part, json.dumps(known[part]), flush=True)


if __name__ == "__main__":
    main()
