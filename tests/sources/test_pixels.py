"""Pixels mean what a viewer shows: each format against Pillow's own conversion or numpy; broken and very large images."""

import io
import json
import struct
import sys
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from image_trees import Ear, encoded, pattern, picture, plant, used
from PIL import Image

from ddtool.errors import DataError, UsageError
from ddtool.sources import decode, pixels
from ddtool.sources.load import DataOptions, inspect, load
from ddtool.sources.pixels import BrokenImageError, Rules, decode_image, scale_of

RAMP = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([RAMP, np.rot90(RAMP), RAMP.T], -1)


def rows(root: Path, **options: Any) -> np.ndarray:
    """All images of a dataset, train before test, in the order of their first pixels' sum."""
    target = load(str(root), DataOptions(**options))
    found = np.concatenate([target.train.images.numpy(), target.test().images.numpy()])
    return found[np.argsort(found.reshape(len(found), -1).sum(1), kind="stable")]


def deep(path: Path, values: np.ndarray) -> Path:
    """A PNG of 16 bits, or a TIFF of any type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def dataset_of(root: Path, images: list[np.ndarray], ending: str) -> Path:
    """Two classes in turn."""
    for i, image in enumerate(images):
        deep(root / "ab"[i % 2] / f"{i}{ending}", image)
    return root


# --- each pixel format ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("L", "PNG"), ("RGB", "PNG"), ("1", "PNG"), ("P", "PNG"), ("P", "GIF"), ("CMYK", "TIFF"), ("CMYK", "JPEG"),
        ("YCbCr", "JPEG"), ("RGB", "WEBP"), ("RGB", "BMP"), ("RGB", "TGA"), ("L", "TGA"), ("RGB", "JPEG2000"),
    ],
)  # fmt: skip
def test_eight_bits_are_what_pillow_converts_to(mode: str, kind: str) -> None:
    raw = encoded(Image.fromarray(COLOUR).convert(mode), kind=kind)
    with Image.open(io.BytesIO(raw)) as image:
        grey = image.mode in ("1", "L")
        wanted = np.asarray(image.convert("L" if grey else "RGB"))
    found = decode_image(raw, Rules(), "x.tga" if kind == "TGA" else "")
    assert found.dtype == np.uint8
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize(("background", "paper"), [("black", 0), ("grey", 128), ("white", 255)])
@pytest.mark.parametrize(
    "kind", ["RGBA", "LA", "P with one clear colour", "L with one clear grey", "RGB with one clear colour"]
)
def test_transparency_lies_on_the_background(kind: str, background: str, paper: int) -> None:
    alpha = np.rot90(RAMP)
    base = COLOUR if "RGB" in kind else np.stack([RAMP] * 3, -1)
    if kind == "RGBA":
        raw = encoded(np.dstack([COLOUR, alpha]))
    elif kind == "LA":
        raw = encoded(Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(np.ascontiguousarray(alpha))]))
    elif kind.startswith("P"):
        raw = encoded(
            Image.fromarray(RAMP).convert("P"), transparency=int(Image.fromarray(RAMP).convert("P").getpixel((3, 2)))
        )
        alpha = np.where(RAMP[2, 3] == RAMP, 0, 255)
    else:
        clear = int(RAMP[2, 3]) if kind.startswith("L") else tuple(int(v) for v in COLOUR[2, 3])
        raw = encoded(Image.fromarray(RAMP if kind.startswith("L") else COLOUR), transparency=clear)
        alpha = np.where((base == base[2, 3]).all(-1), 0, 255)
    share = (alpha / 255)[..., None]
    wanted = base * share + paper * (1 - share)
    found = decode_image(raw, Rules(background=background))
    assert found.ndim == (2 if kind in ("LA", "L with one clear grey") else 3)
    assert np.abs(found.astype(float) - (wanted[..., 0] if found.ndim == 2 else wanted)).max() <= 1


def test_white_drawings_lie_on_black_and_black_ones_on_white(tmp_path: Path) -> None:
    for ink in (255, 0):
        shapes = [np.where(pattern(i) > 128, 255, 0).astype(np.uint8) for i in range(4)]
        tree = {
            f"{'ab'[i % 2]}/{i}.png": encoded(np.dstack([np.full((8, 8), ink, np.uint8)] * 3 + [s]))
            for i, s in enumerate(shapes)
        }
        root, ear = plant(tmp_path / str(ink), tree), Ear()
        load(str(root), report=ear)
        assert ear.said("laid on white") == (ink == 0)
        wanted = shapes if ink else [255 - shape for shape in shapes]
        order = np.argsort([int(image.sum()) for image in wanted], kind="stable")
        assert np.array_equal(rows(root)[:, 0], np.stack(wanted)[order])
        assert len(np.unique(rows(root, background="grey"))) == 2


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("ending", [".png", ".tiff"])
def test_integers_by_the_range_that_the_dataset_uses(tmp_path: Path, bits: int, ending: str) -> None:
    full = 2**bits - 1
    images = [(np.arange(64).reshape(8, 8) * (full // 80) + i).astype(np.uint16) for i in range(4)]
    images[1][0, 0] = full // 2 + 2  # needs this many bits
    ear = Ear()
    root = dataset_of(tmp_path / "d", images, ending)
    load(str(root), report=ear)
    wanted = np.stack([np.rint(image * (255 / full)) for image in images]).astype(np.uint8)
    found = rows(root)[:, 0]
    assert sorted(map(bytes, found)) == sorted(map(bytes, wanted))
    assert ear.said(f"Pixels of integer type: 0 becomes black, {full} white.")


def test_integers_of_32_bits_and_negative_ones(tmp_path: Path) -> None:
    for name, low, high in (("small", 0, 255), ("large", 0, 2**24 - 1), ("signed", -1024, 3071)):
        images = [np.linspace(low, high, 64).astype(np.int32).reshape(8, 8) for _ in range(4)]
        found = rows(dataset_of(tmp_path / name, images, ".tiff"))[:, 0]
        wanted = np.rint((images[0].astype(float) - low) * 255 / (high - low))
        assert np.array_equal(found[0], wanted)


def test_floats_by_the_range_that_the_dataset_uses(tmp_path: Path) -> None:
    for name, low, high in (("unit", 0, 1), ("bytes", 0, 255), ("other", -3.5, 12)):
        images = [np.linspace(low, high, 64, dtype=np.float32).reshape(8, 8) for _ in range(4)]
        found = rows(dataset_of(tmp_path / name, images, ".tiff"))[:, 0]
        assert np.abs(found[0] - (images[0] - low) * 255 / (high - low)).max() <= 0.51
    broken = np.zeros((8, 8), np.float32)
    broken[3, 3] = np.nan
    root = dataset_of(tmp_path / "nan", [broken] * 4, ".tiff")
    with pytest.raises(DataError, match="no numbers"):
        load(str(root))


def test_the_range_is_that_of_the_training_images(tmp_path: Path) -> None:
    root = dataset_of(tmp_path / "d" / "train", [np.full((8, 8), v, np.uint16) for v in (0, 1000, 2000, 4095)], ".png")
    dataset_of(root.parent / "test", [np.full((8, 8), v, np.uint16) for v in (4095, 60000)], ".png")
    target = load(str(root.parent))
    assert sorted(target.train.images[:, 0, 0, 0].tolist()) == [0, 62, 125, 255]
    assert target.test().images[:, 0, 0, 0].tolist() == [255, 255]  # brighter than white stays white


@given(st.floats(-1e6, 1e6), st.floats(0, 1e6))
def test_every_value_of_a_range_has_its_place(least: float, width: float) -> None:
    for kind in ("integer", "float"):
        _, low, high = scale_of(kind, least, least + width)
        assert low <= least
        assert least + width <= high


def test_sixteen_bits_a_channel_in_colour_keep_their_high_byte() -> None:
    """As Pillow opens them; there is no other way to see their low byte."""
    wide = np.repeat(COLOUR.astype(">u2"), 1, -1) * 257
    line = b"".join(b"\0" + row.tobytes() for row in wide)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    raw = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(line)) + chunk(b"IEND", b"")
    assert np.array_equal(decode_image(raw, Rules()), COLOUR)


@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_turns_are_applied(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    raw = encoded(Image.fromarray(COLOUR[:, :5]), kind="PNG", exif=exif)
    turned = {
        1: COLOUR[:, :5], 2: COLOUR[:, :5][:, ::-1], 3: COLOUR[:, :5][::-1, ::-1], 4: COLOUR[:, :5][::-1],
        5: COLOUR[:, :5].transpose(1, 0, 2), 6: np.rot90(COLOUR[:, :5], -1), 7: COLOUR[:, :5][::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(COLOUR[:, :5]),
    }[turn]  # fmt: skip
    assert np.array_equal(decode_image(raw, Rules()), turned)
    assert pixels.image_size(raw) == turned.shape[1::-1]


def test_the_first_of_several_frames() -> None:
    frames = [Image.fromarray(pattern(i)) for i in range(3)]
    for kind in ("GIF", "TIFF", "PNG", "WEBP"):
        raw = encoded(
            frames[0],
            kind=kind,
            save_all=True,
            append_images=frames[1:],
            **({"lossless": True} if kind == "WEBP" else {}),
        )
        found = decode_image(raw, Rules())
        assert np.array_equal(found if found.ndim == 2 else found[..., 0], pattern(0))


# --- doubts ---------------------------------------------------------------------------------------------------------


def test_a_split_of_one_colour_or_nearly_black_is_a_warning_with_the_number(tmp_path: Path) -> None:
    plain = {f"{'ab'[i % 2]}/{i}.png": encoded(np.full((8, 8), 40 * i)) for i in range(6)}
    dark = {f"{'ab'[i % 2]}/{i}.png": encoded(pattern(i) // 64) for i in range(6)}
    fine = {f"{'ab'[i % 2]}/{i}.png": i for i in range(6)}
    for name, tree, said in (("p", plain, "are all of one colour"), ("d", dark, "are nearly black"), ("f", fine, None)):
        ear = Ear()
        load(
            str(plant(tmp_path / name, {f"{s}/{k}": v for s in ("train", "test") for k, v in tree.items()})), report=ear
        )
        warned = [note for note in ear.notes if note.startswith("Warning")]
        assert warned == (
            [
                f"Warning: 6 of 6 images of split '{s}' {said}; look at them before you distil."
                for s in ("train", "test")
            ]
            if said
            else []
        )


# --- broken images --------------------------------------------------------------------------------------------------

BROKEN = {
    "empty": (b"", "the file is empty"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "Git LFS pointer"),
    "html": (b"\n<!DOCTYPE html><html>404</html>", "a web page, not an image"),
    "text": (b"no picture", "not a picture in a known format"),
    "cut": (encoded(np.tile(COLOUR, (20, 20, 1)), kind="JPEG")[:900], "the file ends too early"),
    "cutpng": (picture(1)[:60], "the file ends too early"),
    "header": (b"\x89PNG\r\n\x1a\n" + bytes(40), ""),
}


@pytest.mark.parametrize("kind", sorted(BROKEN))
def test_a_broken_image_is_named_with_its_reason(tmp_path: Path, kind: str) -> None:
    raw, reason = BROKEN[kind]
    root = plant(
        tmp_path / "d", {f"{c}/{i}.png": 10 * i + j for j, c in enumerate("ab") for i in range(4)} | {"b/9.jpg": raw}
    )
    with pytest.raises(DataError) as caught:
        load(str(root))
    assert "'b/9.jpg' cannot be decoded (" in caught.value.message
    assert reason in caught.value.message
    assert "--skip-broken" in caught.value.hint


def test_heic_without_its_package_has_its_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "heif_is_here", lambda: False)
    with pytest.raises(BrokenImageError, match="pip install pillow-heif"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), Rules())


def test_broken_images_are_set_aside_when_asked(tmp_path: Path) -> None:
    tree: dict[str, bytes | str | int] = {
        f"{s}/{c}/{i}.png": 50 * k + 10 * j + i
        for k, s in enumerate(["train", "test"])
        for j, c in enumerate("ab")
        for i in range(8)
    }
    tree |= {
        "train/a/3.png": b"",
        "train/b/1.jpg": "no picture",
        "test/a/0.png": BROKEN["cut"][0],
        "train/a/0.png": b"",
    }
    root = plant(tmp_path / "d", tree)
    for allowed in (4, 0.2, 100):
        ear = Ear()
        target = load(str(root), DataOptions(skip_broken=allowed), report=ear)
        assert used(target.train) == {"a": [1, 2, 4, 5, 6, 7], "b": [10, 11, 12, 13, 14, 15, 16, 17]}
        assert used(target.test()) == {"a": [51, 52, 53, 54, 55, 56, 57], "b": [60, 61, 62, 63, 64, 65, 66, 67]}
        assert [image["image"] for image in target.broken] == [
            "'train/a/0.png'",
            "'train/a/3.png'",
            "'train/b/1.jpg'",
            "'test/a/0.png'",
        ]
        assert all(set(image) == {"split", "row", "image", "reason"} for image in target.broken)
        assert ear.said("4 broken images are set aside, the first 'train/a/0.png' (the file is empty).")
    for allowed in (3, 0.05):
        with pytest.raises(DataError, match="may be set aside") as caught:
            load(str(root), DataOptions(skip_broken=allowed))
        assert "Raise --skip-broken" in caught.value.hint
    entry = next((tmp_path / "cache").glob("*/skipped.jsonl"))
    assert [json.loads(line)["row"] for line in entry.read_text().splitlines()] == [0, 3, 9, 0]


def test_a_class_that_loses_all_its_images_is_an_error(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", {"train/a/1.png": 1, "train/b/2.png": b"", "test/a/3.png": 3, "test/b/4.png": 4})
    with pytest.raises(DataError, match="1 of 2 classes have no image in split 'train': 'b'"):
        load(str(root), DataOptions(skip_broken=1))


# --- large images ---------------------------------------------------------------------------------------------------


def test_a_jpeg_of_many_megapixels_is_read_at_reduced_size() -> None:
    large = encoded(Image.new("L", (14_000, 13_930), 90), kind="JPEG", quality=30)  # 195 megapixels
    with pixels.decoding():
        small = decode_image(large, Rules(16, max_pixels=4e6))
        assert small.shape == (16, 16)
        assert np.abs(small.astype(int) - 90).max() <= 2
        with pytest.raises(BrokenImageError, match="195 million pixels"):
            decode_image(large, Rules(max_pixels=4e6))


def test_the_limit_is_lifted_by_an_option(tmp_path: Path) -> None:
    tree = {f"{'ab'[i % 2]}/{i}.png": encoded(np.full((1100, 1000), 60 * i, np.uint8)) for i in range(4)}
    root = plant(tmp_path / "d", tree)
    with pytest.raises(DataError, match="more than --max-megapixels allows"):
        load(str(root), DataOptions(resolution=8, max_megapixels=1))
    assert sorted(rows(root, resolution=8, max_megapixels=1.2)[:, 0, 0, 0].tolist()) == [0, 60, 120, 180]


def test_pillow_keeps_its_own_limit_outside() -> None:
    before = Image.MAX_IMAGE_PIXELS
    with pixels.decoding():
        assert Image.MAX_IMAGE_PIXELS is None
    assert before == Image.MAX_IMAGE_PIXELS


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "_LARGE", 10)
    inside: list[int] = [0, 0]
    flat = pixels._flat

    def watched(image: Any, rules: Rules) -> Any:
        inside[0] += 1
        inside[1] = max(inside)
        made = flat(image, rules)
        inside[0] -= 1
        return made

    monkeypatch.setattr(pixels, "_flat", watched)
    with pixels.decoding():
        list(decode.in_threads(4, lambda i: decode_image(picture(i), Rules()), iter(range(40))))
    assert inside[1] == 1


# --- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"background": "pink"}, {"multi_label": "all"}, {"skip_broken": -1}, {"max_megapixels": 0}, {"class_level": 0},
        {"class_level": 99},
    ],
)  # fmt: skip
def test_reading_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        DataOptions(**options)


@pytest.mark.parametrize(
    "options",
    [{"background": "white"}, {"skip_broken": 1.0}, {"max_megapixels": 9.0}, {"no_splits": True}, {"class_level": 1}],
)  # fmt: skip
def test_options_that_change_the_result_are_part_of_the_key(tmp_path: Path, options: dict[str, Any]) -> None:
    root = plant(tmp_path / "d", {f"{c}/{i}.png": 10 * i + j for j, c in enumerate("ab") for i in range(4)})
    load(str(root))
    ear = Ear()
    load(str(root), DataOptions(strict=True), report=ear)
    assert ear.steps == []
    load(str(root), DataOptions(**options), report=ear)
    assert ear.steps


def test_a_look_before_decoding_agrees_with_what_is_decoded(tmp_path: Path) -> None:
    root = plant(
        tmp_path / "d",
        {f"{c}/{i}.png": 10 * i + j for j, c in enumerate("ab") for i in range(4)} | {"a/0.png": b"", "a/n.txt": "x"},
    )
    options = DataOptions(skip_broken=1)
    look = inspect(str(root), options)
    assert (look.images, look.classes, look.shape, look.cached, look.skipped) == (8, 2, (1, 8, 8), False, {".txt": 1})
    target = load(str(root), options)
    assert target.skipped == look.skipped
    again = inspect(str(root), options)
    assert (again.images, again.shape, again.cached) == (7, target.train.shape, True)


# --- mutated bytes --------------------------------------------------------------------------------------------------

KINDS = (
    "PNG",
    "JPEG",
    "GIF",
    "BMP",
    "TIFF",
    "WEBP",
    "PPM",
    "TGA",
    "JPEG2000",
    "AVIF",
    "16-bit PNG",
    "palette PNG",
    "float TIFF",
    "CMYK JPEG",
)


def seeds() -> list[tuple[str, bytes]]:
    """(name, a sound file) of every kind that is read."""
    sound = {kind: encoded(COLOUR, kind=kind) for kind in KINDS[:9]}
    if "AVIF" in Image.registered_extensions().values():
        sound["AVIF"] = encoded(COLOUR, kind="AVIF")
    sound["16-bit PNG"] = encoded(Image.fromarray(RAMP.astype(np.uint16) * 200))
    sound["palette PNG"] = encoded(COLOUR, "P", transparency=3)
    sound["float TIFF"] = encoded(Image.fromarray(RAMP.astype(np.float32)), kind="TIFF", compression="tiff_deflate")
    sound["CMYK JPEG"] = encoded(COLOUR, "CMYK", "JPEG", progressive=True)
    return [("x.tga" if kind == "TGA" else "x", raw) for kind, raw in sound.items()]


def mutated(raw: bytes, draw: np.random.Generator) -> bytes:
    """A damaged copy: bytes changed, cut out, doubled, or the end cut off."""
    data = bytearray(raw)
    for _ in range(draw.integers(1, 6)):
        at = int(draw.integers(0, len(data)))
        how = draw.integers(0, 5)
        if how == 0:
            data[at] ^= 1 << int(draw.integers(0, 8))
        elif how == 1:
            data[at] = int(draw.integers(0, 256))
        elif how == 2:
            del data[at : at + int(draw.integers(1, 9))]
        elif how == 3:
            data[at:at] = data[at : at + int(draw.integers(1, 9))]
        else:
            del data[max(at, 12) :]
        if not data:
            break
    return bytes(data)


def survives(raw: bytes, name: str) -> str:
    """Decode damaged bytes under every kind of rule; "image" or "error". Anything else is raised."""
    outcome = "image"
    for rules in (
        Rules(max_pixels=1e7),
        Rules(8, background="white", scales=(("integer", 0, 65535), ("float", 0, 1)), max_pixels=1e7),
    ):
        try:
            found = decode_image(raw, rules, name)
            assert found.dtype == np.uint8
            assert found.ndim in (2, 3)
            assert rules.resolution is None or found.shape[:2] == (8, 8)
        except (BrokenImageError, pixels.DeepFoundError, pixels.PaperFoundError):
            outcome = "error"
    try:
        pixels.image_size(raw, name)
        pixels.deep_range(raw, Rules(max_pixels=1e7), name)
    except BrokenImageError:
        outcome = "error"
    return outcome


def fuzz(each: int, seed: int) -> Counter[str]:
    """How often damaged copies of a sound file of every kind gave an image and an error."""
    draw, outcomes = np.random.default_rng(seed), Counter[str]()
    with pixels.decoding():
        for name, raw in seeds():
            assert survives(raw, name) in ("image", "error")
            outcomes.update(survives(mutated(raw, draw), name) for _ in range(each))
    return outcomes


def test_damaged_bytes_give_an_image_or_an_error() -> None:
    assert set(fuzz(20, seed=0)) == {"image", "error"}


@pytest.mark.slow
def test_thousands_of_damaged_files_give_an_image_or_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    outcomes = fuzz(400, seed=1)
    assert sum(outcomes.values()) >= 5000
    with capsys.disabled():
        sys.stdout.write(f"\n{sum(outcomes.values())} damaged files of {len(seeds())} kinds: {dict(outcomes)}\n")
