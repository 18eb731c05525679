"""Pictures of a run: initial samples above generated above refined ones, by class."""

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from ddtool.data.images import SyntheticSet
from ddtool.runs.run import write_atomically

CELL, GAP, MARGIN, LABEL = 72, 4, 24, 104
INK, QUIET, PAPER = (32, 34, 38), (112, 116, 124), (255, 255, 255)


def preview(stages: dict[str, SyntheticSet], title: str, path: Path, *, columns: int = 10, rows: int = 3) -> None:
    """Draw up to `columns` classes and `rows` images of each class for every stage, and say what is left out; write a PNG."""
    first = next(iter(stages.values()))
    columns, rows = min(columns, first.num_classes), min(rows, first.ipc)
    band = rows * (CELL + GAP) + 18
    width = MARGIN * 2 + LABEL + columns * (CELL + GAP)
    height = MARGIN * 2 + 56 + len(stages) * band
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((MARGIN, MARGIN - 6), title, fill=INK, font=ImageFont.load_default(18))
    draw.text((MARGIN, MARGIN + 16), left_out(first, columns, rows), fill=QUIET, font=ImageFont.load_default(12))
    for column in range(columns):
        name = _fitted(first.class_names[column], CELL)
        x = MARGIN + LABEL + column * (CELL + GAP) + CELL // 2
        draw.text((x, MARGIN + 40), name, fill=INK, font=ImageFont.load_default(12), anchor="mm")
    for index, (stage, synthetic) in enumerate(stages.items()):
        top = MARGIN + 56 + index * band
        draw.text((MARGIN, top + 4), stage, fill=INK, font=ImageFont.load_default(15))
        for row in range(rows):
            for column in range(columns):
                picture = _picture(synthetic, row * synthetic.num_classes + column)
                sheet.paste(picture, (MARGIN + LABEL + column * (CELL + GAP), top + row * (CELL + GAP)))
    write_atomically(path, lambda temporary: sheet.save(temporary, format="PNG"))


def left_out(synthetic: SyntheticSet, columns: int, rows: int) -> str:
    """How much of a set a picture of so many classes and images of each shows, empty for all of it."""
    classes = f"{columns} of {synthetic.num_classes} classes" if columns < synthetic.num_classes else ""
    images = f"{rows} of {synthetic.ipc} images each" if rows < synthetic.ipc else ""
    return ", ".join(filter(None, [classes, images]))


def _picture(synthetic: SyntheticSet, row: int) -> Image.Image:
    pixels = synthetic.images[row].mul(255).round().byte().cpu()
    array = pixels[0].numpy() if len(pixels) == 1 else pixels.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(array).convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC)


def _fitted(name: str, width: int) -> str:
    """The name, shortened until it fits."""
    font = ImageFont.load_default(12)
    short = name
    while short and font.getlength(short) > width:
        short = short.rstrip("…")[:-1].rstrip() + "…"
        if len(short) < 3:
            break
    return short
