"""The refinement of a set as a short animation: frames are kept while the steps go on, and put together at the end (APNG)."""

import torch
from PIL import Image
from torch import Tensor

from ddtool.data.images import SyntheticSet
from ddtool.runs import files, formats
from ddtool.runs.preview import ACROSS, PAPER, as_image
from ddtool.runs.run import Run

FRAMES = 24
"""Frames between the first and the last step."""
MOST_CLASSES, MOST_ROWS = 10, 2
"""The columns, and the images of each class."""
CELL = 64
"""About how many pixels an image's longer side is brought to, by whole factors."""
MILLISECONDS, LAST = 120, 1500
"""How long a frame stays, and the last one."""


class Film:
    """The frames of one set's refinement, each a file below the checkpoints of the run, so that an interrupted run keeps them."""

    def __init__(self, run: Run, beginning: SyntheticSet) -> None:
        self.run, self.C = run, beginning.num_classes
        self.ipc, self.shown = beginning.ipc, part(beginning)

    def name(self, number: int) -> str:
        """The file of a frame."""
        return f"checkpoints/film-ipc{self.ipc}-{number:02}.safetensors"

    def wants(self, done: float) -> bool:
        """Whether a frame of this moment (0 to 1, the share of the steps that is done) is to be kept."""
        return not self.run.has(self.name(int(done * FRAMES)))

    def keep(self, done: float, images: Tensor) -> None:
        """Keep a frame; images: float (m, c, h, w) in [0, 1]."""
        pixels = images[self.shown].mul(255).round().clamp(0, 255).byte().cpu().contiguous()
        formats.write_tensors(self.run.folder / self.name(int(done * FRAMES)), {"pixels": pixels}, {})

    def write(self, refined: SyntheticSet) -> None:
        """Put the frames together, the refined set last, as animation.png of the run."""
        names = [name for k in range(FRAMES + 1) if self.run.has(name := self.name(k))]
        kept = [formats.read_tensors(self.run.folder / name)[0]["pixels"].float() / 255 for name in names]
        sheets = [sheet(frame, min(self.C, MOST_CLASSES)) for frame in [*kept, refined.images[self.shown].cpu()]]
        times = [MILLISECONDS] * len(kept) + [LAST]
        files.write_atomically(
            self.run.folder / files.ANIMATION,
            lambda path: sheets[0].save(
                path, "PNG", save_all=True, append_images=sheets[1:], duration=times, loop=0, optimize=True
            ),
        )


def part(synthetic: SyntheticSet) -> list[int]:
    """The rows of the images that are shown: of the first classes the first images, class by class in each line."""
    lines = range(min(synthetic.ipc, MOST_ROWS))
    return [k * synthetic.num_classes + c for k in lines for c in range(min(synthetic.num_classes, MOST_CLASSES))]


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Images (n, c, h, w) in [0, 1] beside and below each other."""
    _, _, h, w = images.shape
    factor = max(1, round(CELL / max(h, w)))
    across, down = factor * w + ACROSS // 2, factor * h + ACROSS // 2
    out = Image.new("RGB", (columns * across, -(-len(images) // columns) * down), PAPER)
    for k, pixels in enumerate(torch.unbind(images)):
        one = as_image(pixels).resize((factor * w, factor * h), Image.Resampling.NEAREST)
        out.paste(one, (k % columns * across, k // columns * down))
    return out
