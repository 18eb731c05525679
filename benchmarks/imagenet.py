"""ImageNet-1k at 224x224 on paper: bytes and seconds on an H200, from arithmetic that is written out here.

    python benchmarks/imagenet.py [--measured benchmarks/results/large.json]

prints the tables of docs/large.md. Nothing of it was run at that size. `large.py` measured 1,000 classes at 64x64 on one thread of
a CPU. From there are the processor seconds of reading and writing an image, and how many copies of a set a stage holds. Settings
are those of the preset large.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ddtool.config import RunConfig, from_dict
from ddtool.config.presets import PRESETS
from ddtool.data.batches import SEEN, usual_batch
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.models.convnet import depth_for, doubling_widths
from ddtool.pipeline import target
from ddtool.pipeline.plan import FITTING, MOST_FITTING
from ddtool.runs.formats import MOST_BYTES

CLASSES, TRAIN, TEST, SHAPE = 1000, 1_281_167, 50_000, (3, 224, 224)
DEVICE = 141e9
"""Bytes of an H200."""
PEAK = 989e12
"""Operations a second of an H200 in bf16 without sparsity, as its maker states."""
TRIAL = {"steps": 2360, "seconds": 80, "real": 1000, "synthetic": 100, "shape": (3, 32, 32), "width": 512}
"""A trial by others: steps of refinement on CIFAR-10 at IPC 10 on an H200 that other work shared."""
HOST, DISK, THREADS = 5e9, 2e9, 16
"""Assumed: bytes a second from the host's memory, gathered row by row, to the device, and to a disk; threads that decode."""
CONFIG = from_dict(RunConfig, PRESETS["large"])
WIDTH, FITS = CONFIG.features.width, CONFIG.fit.networks


def operations(shape: tuple[int, int, int], widths: tuple[int, ...]) -> float:
    """Operations (two for a multiplication with its addition) of the convolutions for one image (c, h, w), forwards."""
    c, h, w = shape
    total = 0
    for i, width in enumerate(widths):
        total += 2 * 9 * c * width * (h >> i) * (w >> i)
        c = width
    return total


def judge(shape: tuple[int, int, int], width: int) -> float:
    """Operations of a network of random features for one image."""
    return operations(shape, doubling_widths(width, depth_for(shape)))


def step(real: int, synthetic: int, shape: tuple[int, int, int], width: int) -> float:
    """Operations of a step of Eq. 1: real images forwards; synthetic ones and their flips forwards, and back to the pixels."""
    return (real + 2 * 2 * synthetic) * judge(shape, width)


@dataclass(frozen=True)
class Size:
    """A set of so many images per class."""

    ipc: int

    @property
    def m(self) -> int:
        """Images of the set."""
        return self.ipc * CLASSES

    @property
    def bytes8(self) -> int:
        """Bytes of its pixels as they are stored."""
        return self.m * math.prod(SHAPE)

    @property
    def bytes32(self) -> int:
        """Bytes of its pixels in float32: one copy."""
        return 4 * self.bytes8

    @property
    def fit(self) -> int:
        """Bytes that fitting its labels takes beside the images."""
        return FITTING * self.m**2


TEN, FIFTY = Size(10), Size(50)


def memory() -> list[tuple[str, float, float]]:
    """What is held, in bytes, at IPC 10 and at IPC 50."""
    set_, real = TRAIN * math.prod(SHAPE), usual_batch(CLASSES, WIDTH) * 4 * math.prod(SHAPE)
    depth = depth_for(SHAPE)
    d = WIDTH * (SHAPE[1] >> depth) * (SHAPE[2] >> depth)

    def both(name: str, of: Any) -> tuple[str, float, float]:
        return name, of(TEN), of(FIFTY)

    return [
        both("training set, uint8", lambda s: set_),
        both("training set in the trial of whitening before, a second copy of all but 2,000 images", lambda s: set_),
        both("test set, uint8, on the device for scores", lambda s: TEST * math.prod(SHAPE)),
        both("real images of a step, float32, three copies while they are standardised", lambda s: 3 * real),
        both("Z and the set, uint8 (a parquet file is about as large)", lambda s: s.bytes8),
        both("the set, float32: one copy (so large is `exact.safetensors`)", lambda s: s.bytes32),
        both("Z while it is standardised: three copies", lambda s: 3 * s.bytes32),
        both("generation: six copies, and Z as bytes", lambda s: 6 * s.bytes32 + s.bytes8),
        both("labels of the set: nine copies, of which real images are six", lambda s: 9 * s.bytes32),
        both(f"labels of the set: {FITTING} bytes for each pair of images", lambda s: s.fit),
        both(
            f"features of a network of that fit, (4m, {d:,}) float32", lambda s: 4 * 4 * s.m * d
        ),
        both("refinement: eight copies (Adam's two and the gradient among them)", lambda s: 8 * s.bytes32),
        both("a checkpoint of refinement: three copies", lambda s: 3 * s.bytes32),
        both("soft labels, m x 1,000 float32", lambda s: 4 * s.m * CLASSES),
    ]  # fmt: skip


def images_seen(size: Size) -> list[tuple[str, float, float]]:
    """Stages on the device: name, operations, and real images that are brought from the host."""
    real, synthetic = usual_batch(CLASSES, WIDTH), CONFIG.refine.synthetic_batch
    tried, held, networks = CLASSES, target.TRIAL_HELD_OUT, target.TRIAL_NETWORKS
    trial = 2 * (2 * networks * (2 * tried + 2 * tried) + networks * (2 * tried + held))
    brought = 2 * (2 * networks * 2 * tried + held) + CONFIG.whitening.images + 6000
    label_widths = (CONFIG.labels.width,) * depth_for(SHAPE)
    parts = SEEN * size.ipc
    one, adapting, refining = step(real, synthetic, SHAPE, WIDTH), CONFIG.adapt.steps, CONFIG.refine.steps
    return [
        ("trials of flips and whitening", trial * judge(SHAPE, target.TRIAL_WIDTH), brought),
        ("W_θ", CONFIG.labels.images * operations(SHAPE, label_widths), CONFIG.labels.images),
        ("labels of Z", parts * 4 * CLASSES * judge(SHAPE, WIDTH), parts * 2 * CLASSES),
        ("a step of adaptation or refinement", one, real),
        (f"adaptation, {adapting:,} steps", adapting * one, adapting * real),
        (f"refinement, {refining:,} steps", refining * one, refining * real),
        ("labels of the set", FITS * 4 * size.m * judge(SHAPE, WIDTH), FITS * 2 * size.m),
        ("scores by quick, one network", scoring(size.m), 0),
    ]


def scoring(m: int) -> float:
    """Operations of one network by the protocol quick: forwards and, twice as much, backwards; then the test images."""
    p = PROTOCOLS["quick"]
    return (3 * p.steps(m) * p.batch + TEST) * operations(SHAPE, (p.width,) * depth_for(SHAPE))


def slow() -> float:
    """Operations a second in the trial."""
    done = step(TRIAL["real"], TRIAL["synthetic"], TRIAL["shape"], TRIAL["width"])  # type: ignore[arg-type]
    return done * TRIAL["steps"] / TRIAL["seconds"]  # type: ignore[operator]


def table(head: str, rows: list[list[str]]) -> str:
    """A table in Markdown; all columns but the first are numbers."""
    columns = head.count("|") + 1
    lines = [f"| {head} |", "|---|" + "---:|" * (columns - 1)]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows)])


CELLS = ("ipc1", "ipc10")
"""The parts of large.json that are used."""


def number(value: float) -> str:
    """A number with two or three digits that say something."""
    return f"{value:,.0f}" if value >= 20 else f"{value:.2g}"


def memory_table() -> str:
    """What is held, in GB; what is more than one H200 has is marked."""
    rows = [[name, *(f"{v / 1e9:,.1f}" + " (!)" * (v > DEVICE) for v in values)] for name, *values in memory()]
    return table("held, GB | IPC 10 | IPC 50", rows)


def seconds_table() -> str:
    """Seconds of the stages on one H200, at the assumed rates."""
    rows = []
    for ten, fifty in zip(images_seen(TEN), images_seen(FIFTY), strict=True):
        cells = [ten[0], *(f"{one[1] / 1e12:,.0f}" for one in (ten, fifty))]
        for _, done, brought in (ten, fifty):
            bytes_ = brought * math.prod(SHAPE)
            cells.append(f"{number(done / (PEAK / 10))} to {number(done / slow())}, {number(bytes_ / HOST)}")
        rows.append(cells)
    return table("stage | 10¹² operations, IPC 10 | IPC 50 | seconds, IPC 10 | IPC 50", rows)


NAMES = {
    "read": "files listed, read and decoded",
    "whitening": "trials of flips and whitening",
    "labels": "Z drawn, W_θ",
    "pool labels": "Z written and read, its labels",
    "adapt": "adaptation, 3 steps",
    "generate": "generation",
    "fit labels": "labels of the set, 2 networks",
    "refine": "refinement, 3 steps",
    "write stages, set, preview and page": "three stages written, nearness, picture, page",
    "score": "scoring by quick, 4 steps",
}
"""What the stages of large.json are called, where that is not plain."""
STEPPING = ("adapt", "refine", "score")


def measured_table(measured: dict[str, Any]) -> str:
    """Stages at 64x64: processor seconds, of a step in brackets, peak MiB, and how many float32 copies of 9,000 images the peak is
    larger by at IPC 10 than at IPC 1."""
    one, ten = ({name.partition(" ipc")[0]: took for name, took in measured[part]["stages"].items()} for part in CELLS)
    copy = 4 * math.prod(measured["ipc10"]["set"]) * 0.9 / 2**20
    rows = []
    for name in one:
        both = [one[name], *([ten[name]] if name != "whitening" else [])]  # no trials at IPC 10
        seconds = [f"{took['cpu_seconds']:.1f}" for took in both]
        if name in STEPPING:
            seconds = [f"{s} ({took['step_cpu_seconds']:.2f})" for s, took in zip(seconds, both, strict=True)]
        peaks = [f"{took['peak_mib']:,}" for took in both]
        grown = [f"{(both[1]['peak_mib'] - both[0]['peak_mib']) / copy:.1f}"] if len(both) == 2 else []
        cells = [*seconds, *["–"] * (2 - len(both)), *peaks, *["–"] * (2 - len(both)), *(grown or ["–"])]
        rows.append([NAMES.get(name, name), *cells])
    return table("stage | processor s, IPC 1 | IPC 10 | peak MiB, IPC 1 | IPC 10 | copies", rows)


def host_table(measured: dict[str, Any]) -> str:
    """Seconds of what the host does: from processor seconds that were measured, scaled by images and pixels."""
    photograph = measured["ipc10"]["photograph_cpu_ms"] / 1000
    write = measured["ipc10"]["stages"]["write the set"]["cpu_seconds"] * (SHAPE[1] / 64) ** 2
    rows = [
        [f"read and decode once, {THREADS} threads", *[number(photograph * (TRAIN + TEST) / THREADS)] * 2],
        ["write the set, one thread", number(write), number(5 * write)],
        ["a checkpoint, every 30 s of refinement", *(number(3 * s.bytes32 / DISK) for s in (TEN, FIFTY))],
    ]
    return table("host, seconds | IPC 10 | IPC 50", rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", type=Path, default=Path(__file__).parent / "results" / "large.json")
    measured = json.loads(parser.parse_args().measured.read_text(encoding="utf-8"))
    print(*tables(measured), sep="\n\n")
    print(
        f"\nslow: {slow() / 1e12:.1f}e12 operations a second, {slow() / PEAK:.1%} of the peak; fast: {PEAK / 10 / 1e12:.0f}e12"
    )
    print(
        f"refused at the start: pixels of more than {MOST_BYTES / 1e9:.1f} GB, a fit of more than {MOST_FITTING / 1e9:.1f} GB"
    )


def tables(measured: dict[str, Any]) -> list[str]:
    """The tables of the page."""
    return [measured_table(measured), memory_table(), seconds_table(), host_table(measured)]


if __name__ == "__main__":
    main()
