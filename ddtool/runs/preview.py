"""The picture of a run: a band of rows for each stage, a column for each class, and what soft labels say of the last stage."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ddtool.data.images import SyntheticSet
from ddtool.methods import METHODS
from ddtool.runs.files import write_atomically
from ddtool.runs.words import STAGES

MARGIN, NAMES, BAND = 24, 156, 22
"""Pixels around the picture, for the names of the rows, and between bands."""
ACROSS, BELOW = 8, 4
"""Pixels between the images of a row, and between rows."""
CELLS = {10: 96, 20: 72}
"""Pixels of an image's side by the largest number of classes it is for; labels are shown with these."""
SMALL_CELL, MOST_COLUMNS = 56, 20
"""Pixels of an image's side, and the columns, where there are more classes than that."""
MOST_ROWS = 3
"""Images of a class in a band."""
LINE = 14
"""Pixels from a line of small text to the next."""
INK, QUIET, PAPER = (32, 34, 38), (96, 100, 108), (255, 255, 255)


@dataclass(frozen=True)
class Layout:
    """Which part of the sets is shown, and how large.

    classes: the columns, as numbers of classes;  rows: images of each class in a band;  cell: pixels of an image's side;
    labelled: whether the last band has two lines of text under each image.
    """

    classes: tuple[int, ...]
    rows: int
    cell: int
    labelled: bool

    @classmethod
    def of(cls, last: SyntheticSet) -> "Layout":
        """The layout for sets like `last`, the set of the last band."""
        C = last.num_classes
        columns = min(C, MOST_COLUMNS)
        cell = next((side for most, side in CELLS.items() if most >= C), SMALL_CELL)
        spread = tuple(k * C // columns for k in range(columns))
        labelled = cell != SMALL_CELL and last.label_method != "hard"
        return cls(spread, min(last.ipc, MOST_ROWS), cell, labelled)

    @property
    def width(self) -> int:
        """Pixels of a band."""
        return NAMES + len(self.classes) * (self.cell + ACROSS) - ACROSS

    def band(self, is_last: bool) -> int:
        """Pixels of a band's height, with the space below it."""
        return self.rows * self.row(is_last) + BAND

    def row(self, is_last: bool) -> int:
        """Pixels from one row of a band to the next."""
        return self.cell + BELOW + (2 * LINE + BELOW if is_last and self.labelled else 0)


def preview(stages: Mapping[str, SyntheticSet], title: str, path: Path) -> None:
    """Write a PNG of the stages below each other, by name; of many classes or images a part, which the picture says."""
    write_atomically(path, lambda temporary: picture(stages, title).save(temporary, format="PNG"))


def picture(stages: Mapping[str, SyntheticSet], title: str) -> Image.Image:
    """The stages below each other. There must be at least one, and all of the same classes and IPC."""
    *_, last = stages.values()
    layout, remark = Layout.of(last), remarks(stages)
    width = max(layout.width, int(font(17).getlength(title)), int(font(12).getlength(remark))) + 1
    bands = sum(layout.band(synthetic is last) for synthetic in stages.values())
    top = MARGIN + 24 + LINE + 12 + 2 * LINE
    sheet = Image.new("RGB", (2 * MARGIN + width, top + bands - BAND + MARGIN), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 6), title, fill=INK, font=font(17))
    draw.text((MARGIN, MARGIN + 19), remark, fill=QUIET, font=font(12))
    draw_class_names(draw, layout, last.class_names, top - 6)
    for name, synthetic in stages.items():
        draw_band(sheet, draw, layout, in_words(name), synthetic, top, synthetic is last)
        top += layout.band(synthetic is last)
    return sheet


def remarks(stages: Mapping[str, SyntheticSet]) -> str:
    """The line below the title: how much is shown, and what the text under images means. Empty where all speaks for itself."""
    *_, last = stages.values()
    layout, C = Layout.of(last), last.num_classes
    parts = [f"{len(layout.classes)} of {C} classes"] * (len(layout.classes) < C)
    parts += [f"{layout.rows} of {last.ipc} images of each class"] * (layout.rows < last.ipc)
    parts += [f"each holds {last.factor**2} smaller images"] * (last.factor > 1)
    parts += [f"under each image of the last stage: the two largest shares of {label_words(last)}"] * layout.labelled
    return "; ".join(parts)


def label_words(made: SyntheticSet) -> str:
    """What of its soft labels is shown beside an image."""
    return "its soft label" if len(made.labels) == len(made) else "the mean of its soft labels"


def in_words(stage: str) -> str:
    """The name of a row: of a stage, or of the method that made a finished set."""
    if stage in STAGES or stage not in METHODS:
        return STAGES.get(stage, stage)
    method = METHODS[stage].record
    return f"distilled by {method.short_title}" if method.learns else method.short_title


# ------------------------------------------------------------------------------------------------------------- drawing


def draw_class_names(draw: ImageDraw.ImageDraw, layout: Layout, names: Sequence[str], bottom: int) -> None:
    """Write the name of each column's class above it, the last line at `bottom`."""
    for column, c in enumerate(layout.classes):
        x = MARGIN + NAMES + column * (layout.cell + ACROSS) + layout.cell // 2
        lines = wrapped(names[c], 11, layout.cell, 2)
        for k, line in enumerate(reversed(lines)):
            draw.text((x, bottom - k * LINE), line, fill=INK, font=font(11), anchor="ms")


def draw_band(
    sheet: Image.Image,
    draw: ImageDraw.ImageDraw,
    layout: Layout,
    name: str,
    synthetic: SyntheticSet,
    top: int,
    is_last: bool,
) -> None:
    """Draw the rows of one stage with its name at their left; the last one with its labels if there is room."""
    for k, line in enumerate(wrapped(name, 13, NAMES - 12, 4)):
        draw.text((MARGIN, top + k * 18), line, fill=INK, font=font(13))
    shares = synthetic.probabilities().cpu() if is_last and layout.labelled else None
    for row in range(layout.rows):
        for column, c in enumerate(layout.classes):
            x, y = MARGIN + NAMES + column * (layout.cell + ACROSS), top + row * layout.row(is_last)
            index = row * synthetic.num_classes + c  # image-major
            image = enlarged(synthetic, index, layout.cell)
            sheet.paste(image, (x + (layout.cell - image.width) // 2, y + (layout.cell - image.height) // 2))
            if shares is not None:
                draw_label(
                    draw, top_two(shares[index].tolist(), synthetic.class_names), x, y + layout.cell, layout.cell
                )


def draw_label(draw: ImageDraw.ImageDraw, shares: Sequence[tuple[str, float]], x: int, y: int, width: int) -> None:
    """Write classes and their shares below each other, the first one darker."""
    for k, (name, share) in enumerate(shares):
        colour, percent = (QUIET if k else INK), f"{100 * share:.0f} %"
        line, room = y + 2 + (k + 1) * LINE - 3, width - font(10).getlength(percent) - 3
        draw.text((x, line), wrapped(name, 10, room, 1)[0], fill=colour, font=font(10), anchor="ls")
        draw.text((x + width, line), percent, fill=colour, font=font(10), anchor="rs")


def top_two(shares: Sequence[float], names: Sequence[str]) -> list[tuple[str, float]]:
    """The two classes with the largest shares (of a single class the one), the largest first."""
    best = sorted(range(len(shares)), key=lambda c: -shares[c])[:2]
    return [(names[c], shares[c]) for c in best]


def enlarged(synthetic: SyntheticSet, index: int, cell: int) -> Image.Image:
    """An image of the set, its longer side brought to `cell` pixels."""
    image = as_image(synthetic.images[index]).convert("RGB")
    w, h = image.size
    size = max(1, round(w * cell / max(h, w))), max(1, round(h * cell / max(h, w)))
    return image.resize(size, Image.Resampling.BICUBIC)


def as_image(pixels: Tensor) -> Image.Image:
    """An image of a set, float (c, h, w) in [0, 1], as 8 bits a channel; grey where c is 1."""
    whole = pixels.mul(255).round().clamp(0, 255).byte().cpu()
    return Image.fromarray(whole[0].numpy() if len(whole) == 1 else whole.permute(1, 2, 0).contiguous().numpy())


# ---------------------------------------------------------------------------------------------------------------- text


@cache
def font(size: int) -> ImageFont.FreeTypeFont:
    """The font that matplotlib brings along: Pillow's own knows no letters beyond English."""
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), size, layout_engine=ImageFont.Layout.BASIC)


def wrapped(text: str, size: int, width: float, most: int) -> list[str]:
    """The text in at most `most` lines of `width` pixels, broken at spaces, '_', '-', '/' and ','; the rest is cut off with '…'."""
    pieces = re.findall(r"[^\s_/,-]+[_/,-]*|[_/,-]+|\s+", " ".join(text.split())) or [""]
    lines = [""]
    for k, piece in enumerate(pieces):
        if font(size).getlength((lines[-1] + piece).rstrip()) <= width or not lines[-1]:
            lines[-1] += piece
        elif len(lines) < most:
            lines.append(piece.lstrip())
        else:
            lines[-1] += "".join(pieces[k:])
            break
    return [cut(line.strip(), size, width) for line in lines]


def cut(line: str, size: int, width: float) -> str:
    """A line that fits: shortened, and ended with '…', until it does; at least one character stays."""
    if font(size).getlength(line) <= width:
        return line
    while len(line) > 1 and font(size).getlength(line.rstrip() + "…") > width:
        line = line[:-1]
    return line.rstrip() + "…"
