"""Datasets that are unlike the usual ones, end to end: `ddtool adapt` beside as many random real images.

    python benchmarks/own_data.py OUT.json --cifar10 DATASET --cifar100 DATASET [--cells colour-64 …] [--protocols quick …]

Their pictures are the two CIFARs', and nothing else is: larger ones are scaled up (bicubic), so they hold no finer detail.

    imbalanced-50    50 classes of CIFAR-100 with 500 down to 10 training images, IPC 5
    classes-1000     1,000 classes: CIFAR-100's in ten tints each (a hue over the grey picture), 50 training images a class, IPC 1
    colour-64        CIFAR-10 at 64x64, 500 images of each class to train on and 100 to score on, IPC 1
    colour-128       the same at 128x128

Every cell is a run of the preset small; then the refined set and as many random real images, used alike, are scored by the
protocols that are named, 3 networks each, on the whole test split. OUT.json is written after every cell, and what is in it is not
done again; data and runs are in the folder OUT beside it, and an unfinished run is gone on with.
"""

import argparse
import colorsys
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddtool.runtime.engine import hardware
from ddtool.sources import load as sources

CELLS = {
    "imbalanced-50": "--ipc 5 --steps 100 --refine-steps 400",
    "colour-64": "--ipc 1 --steps 5 --refine-steps 20 --whiten none --set fit.networks=4 --set labels.images=2000",
    "classes-1000": "--ipc 1 --steps 2 --refine-steps 8 --whiten none --set fit.networks=4 --set labels.images=5000",
    "colour-128": "--ipc 1 --steps 2 --refine-steps 8 --whiten none --set fit.networks=2 --set labels.images=500",
}
"""What is made, with the options of its run beside the preset: few steps, so that a cell is a minute or two of one core."""
NETWORKS = 3
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


def enlarged(images: np.ndarray, labels: np.ndarray, test: bool, side: int) -> Rows:
    """The first images of each of ten classes, scaled up."""
    for c in range(10):
        for row in np.flatnonzero(labels == c)[: 100 if test else 500]:
            picture = Image.fromarray(images[row].transpose(1, 2, 0))
            yield np.asarray(picture.resize((side, side), Image.Resampling.BICUBIC)), c


RECIPES: dict[str, tuple[str, int, Callable[[np.ndarray, np.ndarray, bool], Rows]]] = {
    "imbalanced-50": ("cifar100", 50, imbalanced),
    "classes-1000": ("cifar100", 100 * TINTS, tinted),
    "colour-64": ("cifar10", 10, partial(enlarged, side=64)),
    "colour-128": ("cifar10", 10, partial(enlarged, side=128)),
}
"""What each cell is made of, how many classes it has, and how its rows are made."""


def make(cell: str, source: str, folder: Path) -> Path:
    """The dataset of a cell as two parquet files."""
    import datasets

    folder.mkdir(parents=True, exist_ok=True)
    target, (_, number, recipe) = sources.load(source), RECIPES[cell]
    classes = datasets.ClassLabel(names=[f"class {c}" for c in range(number)])
    features = datasets.Features({"image": datasets.Image(), "label": classes})
    for split, data in (("train", target.train), ("test", target.test())):
        rows = recipe(data.images.numpy(), data.labels.numpy(), split == "test")
        table = [{"image": {"bytes": png(image), "path": None}, "label": label} for image, label in rows]
        datasets.Dataset.from_list(table, features).to_parquet(folder / f"{split}-00000-of-00001.parquet")
    return folder


def png(image: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "PNG")
    return out.getvalue()


def run(dataset: str, options: str, protocols: list[str], work: Path) -> dict[str, Any]:
    """The options of one run, its scores, what it found out of the dataset, and the seconds of each phase (by the wall clock)."""
    folder = str(work / "run")
    if (work / "run").exists():
        ddtool("adapt", "--resume", folder)
    else:
        ddtool("adapt", dataset, "--preset", "small", *options.split(), "--no-evaluate", "--out", folder)
    named = [word for protocol in protocols for word in ("--protocol", protocol)]
    ddtool("evaluate", folder, "--stage", "refined", *named, "--eval-seeds", str(NETWORKS))
    results = json.loads((work / "run" / "results.json").read_text(encoding="utf-8"))
    keys = ("stage", "protocol", "mean", "std", "seeds", "pixels", "arch")
    return {
        "options": options,
        "scores": [{key: score.get(key) for key in keys} for score in results["scores"]],
        "facts": {key: results["facts"].get(key) for key in ("flip", "classes", "train_images", "whitening")},
        "timings": results["timings"],
        "peak_memory_mib": results["facts"].get("peak_memory_mib"),
        "load": round(os.getloadavg()[0], 1),
    }


def ddtool(*words: str) -> None:
    """A command, which must succeed."""
    done = subprocess.run([sys.executable, "-m", "ddtool", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr[-2000:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cifar10", default="cifar10")
    parser.add_argument("--cifar100", default="cifar100")
    parser.add_argument("--cells", nargs="+", choices=[*CELLS], default=[*CELLS])
    parser.add_argument("--protocols", nargs="+", default=["kernel-ridge", "quick"])
    args = parser.parse_args()
    known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {"cells": {}}
    known |= {"hardware": hardware(torch.device("cpu")), "threads": torch.get_num_threads(), "torch": torch.__version__}
    for cell in args.cells:
        scored = {score["protocol"] for score in known["cells"].get(cell, {"scores": []})["scores"]}
        if not (missing := [protocol for protocol in args.protocols if protocol not in scored]):
            continue
        work = args.out.with_suffix("") / cell
        data = make(cell, getattr(args, RECIPES[cell][0]), work / "data")
        known["cells"][cell] = run(str(data), CELLS[cell], missing, work)
        args.out.write_text(json.dumps(known, indent=1) + "\n", encoding="utf-8")
        print(cell, json.dumps(known["cells"][cell]["scores"]), flush=True)


if __name__ == "__main__":
    main()
