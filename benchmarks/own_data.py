"""Datasets that are unlike the usual ones, end to end: `ddtool adapt` beside as many random real images.

    python benchmarks/own_data.py OUT.json --cifar10 DATASET --cifar100 DATASET [--cells colour-64 imbalanced-50 …]

Their pictures are the two CIFARs', and nothing else is: larger ones are scaled up, so they hold no finer detail.

    colour-64        CIFAR-10 read at 64x64, IPC 10
    colour-128       CIFAR-10 read at 128x128, 500 images of each class, IPC 1
    imbalanced-50    50 classes of CIFAR-100 with 500 down to 10 training images, IPC 5
    classes-1000     1,000 classes: CIFAR-100's in ten tints each (a hue over the grey picture), 50 training images a class, IPC 1

Every cell is a run with the settings that it names, scored by quick, 3 networks, on its whole test split. OUT.json is written after
every cell, and a cell that is in it is not run again.
"""

import argparse
import colorsys
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddtool.runtime.engine import hardware
from ddtool.sources import load as sources

SIZES = {
    "colour-64": ("cifar10", ["--ipc", "10", "--resolution", "64"]),
    "colour-128": ("cifar10", ["--ipc", "1", "--resolution", "128", "--max-per-class", "500"]),
}
MADE = {"imbalanced-50": ["--ipc", "5"], "classes-1000": ["--ipc", "1"]}
STEPS = ["--preset", "small", "--steps", "100", "--refine-steps", "400"]
TINTS = 10

Rows = Iterator[tuple[np.ndarray, int]]


def imbalanced(images: np.ndarray, labels: np.ndarray, test: bool) -> Rows:
    """The first 50 classes, of which class c keeps 500 · 0.02^(c/49) training images and all test images."""
    for c in range(50):
        kept = np.flatnonzero(labels == c)
        for row in kept if test else kept[: round(500 * 0.02 ** (c / 49))]:
            yield images[row].transpose(1, 2, 0), c


def tinted(images: np.ndarray, labels: np.ndarray, test: bool) -> Rows:
    """Each class ten times, other images in each tint: the picture in grey, times a colour of that hue."""
    colours = np.array([colorsys.hsv_to_rgb(t / TINTS, 0.6, 1.0) for t in range(TINTS)], np.float32)
    for c in range(100):
        for i, row in enumerate(np.flatnonzero(labels == c)[: 100 if test else 500]):
            grey = images[row].astype(np.float32).mean(0)
            yield (grey[..., None] * colours[i % TINTS]).clip(0, 255).astype(np.uint8), c * TINTS + i % TINTS


RECIPES = {"imbalanced-50": imbalanced, "classes-1000": tinted}


def make(cell: str, source: str, folder: Path) -> Path:
    """A dataset of two parquet files, derived from CIFAR-100."""
    import datasets

    target, names = sources.load(source), 50 if cell == "imbalanced-50" else 100 * TINTS
    classes = datasets.ClassLabel(names=[f"class {c}" for c in range(names)])
    features = datasets.Features({"image": datasets.Image(), "label": classes})
    for split, data in (("train", target.train), ("test", target.test())):
        rows = RECIPES[cell](data.images.numpy(), data.labels.numpy(), split == "test")
        table = [{"image": {"bytes": png(image), "path": None}, "label": label} for image, label in rows]
        datasets.Dataset.from_list(table, features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def run(words: list[str], work: Path) -> dict[str, Any]:
    """Scores of one run, the seconds until its set was written, and what it said."""
    asked = [*words, *STEPS, "--protocol", "quick", "--eval-seeds", "3", "--out", str(work / "run"), "--json"]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "ddtool", *asked], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])
    results = json.loads((work / "run" / "results.json").read_text(encoding="utf-8"))
    keys = ("stage", "protocol", "mean", "std", "seeds", "pixels", "arch")
    scores = [{key: score.get(key) for key in keys} for score in results["scores"]]
    return {
        "scores": scores,
        "timings": results["timings"],
        "facts": {key: results["facts"].get(key) for key in ("flip", "classes", "train_images", "whitening")},
        "peak_memory_mib": results["facts"].get("peak_memory_mib"),
        "seconds": round(time.perf_counter() - started),
        "load": os.getloadavg()[0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", default="cifar10")
    parser.add_argument("--cifar100", default="cifar100")
    parser.add_argument("--cells", nargs="+", choices=[*SIZES, *MADE], default=[*MADE, *SIZES])
    args = parser.parse_args()
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"cells": {}}
    known |= {"hardware": hardware(torch.device("cpu")), "torch": torch.__version__, "settings": " ".join(STEPS)}
    for cell in args.cells:
        if cell in known["cells"]:
            continue
        with tempfile.TemporaryDirectory() as work:
            if cell in SIZES:
                name, options = getattr(args, SIZES[cell][0]), SIZES[cell][1]
            else:
                (Path(work) / "data").mkdir()
                name, options = str(make(cell, args.cifar100, Path(work) / "data")), MADE[cell]
            known["cells"][cell] = run(["adapt", name, *options], Path(work))
        args.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(cell, json.dumps(known["cells"][cell]["scores"]), flush=True)


if __name__ == "__main__":
    main()
