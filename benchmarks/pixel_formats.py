"""docs/images/formats.png: one drawing in every pixel format, as Pillow's `convert("RGB")` gives it and as ddtool reads it.

python benchmarks/pixel_formats.py docs/images/formats.png          (a second)
"""

import argparse
import io
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from ddtool.sources import pixels

SIDE = 72


def drawing() -> tuple[np.ndarray, np.ndarray]:
    """(values, disc): a grey ramp in [0, 1] with rings, and where a disc lies, both (SIDE, SIDE)."""
    y, x = np.mgrid[0:SIDE, 0:SIDE] / (SIDE - 1)
    radius = np.hypot(x - 0.5, y - 0.5)
    return 0.15 + 0.35 * x + 0.5 * (np.sin(40 * radius) > 0) * (1 - y), radius < 0.42


def samples() -> dict[str, tuple[bytes, pixels.Rules]]:
    """Title → (file, what the dataset settles)."""
    values, disc = drawing()
    clear = Image.fromarray((disc * 255).astype(np.uint8))
    ink = {name: Image.new("L", (SIDE, SIDE), value) for name, value in (("white", 255), ("black", 0))}
    colour = Image.fromarray((np.dstack([values, values[::-1], values.T]) * 255).astype(np.uint8))

    def whole(top: float, kind: type) -> Image.Image:
        return Image.fromarray((values * top).astype(kind))

    def file(image: Image.Image, kind: str) -> bytes:
        stream = io.BytesIO()
        image.save(stream, kind)
        return stream.getvalue()

    def scaled(kind: str, low: float, high: float) -> pixels.Rules:
        return pixels.Rules(scales=(pixels.scale_of(kind, low, high),))

    return {
        "colour, 8 bits": (file(colour, "PNG"), pixels.Rules()),
        "16 bits": (file(whole(65535, np.uint16), "PNG"), scaled("integer", 0, 65535)),
        "12 of 16 bits": (file(whole(4095, np.uint16), "PNG"), scaled("integer", 0, 4095)),
        "32 bits, to 255": (file(whole(255, np.int32), "TIFF"), scaled("integer", 0, 255)),
        "float, 0 to 1": (file(whole(1, np.float32), "TIFF"), scaled("float", 0, 1)),
        "white on clear": (file(Image.merge("LA", [ink["white"], clear]), "PNG"), pixels.Rules(background="black")),
        "black on clear": (file(Image.merge("LA", [ink["black"], clear]), "PNG"), pixels.Rules(background="white")),
        "CMYK": (file(colour.convert("CMYK"), "TIFF"), pixels.Rules()),
    }


def sheet() -> Image.Image:
    """Two rows of pictures with titles."""
    found = samples()
    cell, top, left = SIDE + 24, 22, 76
    page = Image.new("RGB", (left + cell * len(found), top + 2 * (SIDE + 8)), "white")
    draw = ImageDraw.Draw(page)
    for row, text in enumerate(("Pillow", "ddtool")):
        draw.text((8, top + row * (SIDE + 8) + SIDE // 2 - 6), text, fill="black")
    for column, (title, (raw, rules)) in enumerate(found.items()):
        draw.text((left + column * cell, 6), title, fill="black")
        plain = Image.open(io.BytesIO(raw)).convert("RGB")
        ours = Image.fromarray(pixels.decode_image(raw, rules)).convert("RGB")
        for row, picture in enumerate((plain, ours)):
            page.paste(picture, (left + column * cell, top + row * (SIDE + 8)))
    draw.rectangle((0, 0, page.width - 1, page.height - 1), outline="lightgrey")
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    sheet().quantize(64).save(parser.parse_args().out, optimize=True)


if __name__ == "__main__":
    main()
