"""The picture of a run: which part of the sets is shown, what is written beside it, and that it is drawn where it should be."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ddtool.data.images import SyntheticSet, one_hot
from ddtool.runs import preview as preview_module
from ddtool.runs.preview import (
    ACROSS,
    MARGIN,
    NAMES,
    PAPER,
    Layout,
    cut,
    enlarged,
    font,
    in_words,
    picture,
    preview,
    remarks,
    top_two,
    wrapped,
)
from ddtool.runs.run import Run


def made(
    C: int, ipc: int = 1, channels: int = 3, side: int = 32, stage: str = "refined", label_method: str = "fitted",
    names: tuple[str, ...] = (), images: Tensor | None = None, factor: int = 1,
) -> SyntheticSet:  # fmt: skip
    """A set whose image of class c is of one grey, c / C, and whose soft label has a second class beside it."""
    hard = torch.arange(C).repeat(ipc)
    grey = (hard / C)[:, None, None, None].expand(-1, channels, side, side)
    labels = 0.75 * one_hot(hard, C) + 0.25 * one_hot((hard + 1) % C, C)
    return SyntheticSet(
        images=grey if images is None else images, labels=labels, hard=hard, ipc=ipc,
        class_names=names or tuple(f"class {c}" for c in range(C)), mean=(0.5,) * channels, std=(0.5,) * channels,
        stage=stage, label_method=label_method, factor=factor,
    )  # fmt: skip


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[float, float]]]:
    """Every text that is drawn, with its place."""
    texts: list[tuple[str, tuple[float, float]]] = []
    draw = ImageDraw.ImageDraw.text

    def note(self: ImageDraw.ImageDraw, xy: tuple[float, float], text: str, **options: object) -> None:
        texts.append((text, xy))
        draw(self, xy, text, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return texts


def words(written: list[tuple[str, tuple[float, float]]]) -> list[str]:
    return [text for text, _ in written]


# ---------------------------------------------------------------------------------------------------------- what is shown


@pytest.mark.parametrize(
    ("C", "ipc", "columns", "rows", "labelled", "says"),
    [
        (1, 1, 1, 1, True, ""),
        (10, 3, 10, 3, True, ""),
        (10, 10, 10, 3, True, "3 of 10 images of each class; "),
        (20, 1, 20, 1, True, ""),
        (21, 1, 20, 1, False, "20 of 21 classes"),
        (100, 10, 20, 3, False, "20 of 100 classes; 3 of 10 images of each class"),
        (1000, 1, 20, 1, False, "20 of 1000 classes"),
    ],
)
def test_of_many_classes_a_part_is_shown_and_the_picture_says_so(
    C: int, ipc: int, columns: int, rows: int, labelled: bool, says: str, written: list[tuple[str, tuple[float, float]]]
) -> None:
    synthetic = made(C, ipc, side=8)
    layout = Layout.of(synthetic)
    assert (len(layout.classes), layout.rows, layout.labelled) == (columns, rows, labelled)
    assert layout.classes == tuple(sorted(set(layout.classes)))
    assert layout.classes[-1] >= C - C / columns - 1  # spread over all of them
    sheet = picture({"refined": synthetic}, "title")
    said = says + "under each image of the last stage: the two largest shares of its soft label" * labelled
    assert remarks({"refined": synthetic}) == said
    assert words(written)[:2] == ["title", said]
    assert max(sheet.size) < 2000


def test_rows_and_columns_have_names(written: list[tuple[str, tuple[float, float]]]) -> None:
    names = ("T-shirt / top", "Ankle boot", "a name of so many words that it cannot be seen whole anywhere")
    stages = {stage: made(3, 2, stage=stage, names=names) for stage in ("initial", "generated", "refined")}
    picture(stages, "title")
    said = words(written)
    assert {"T-shirt / top", "Ankle boot", "random real images", "(initial samples)", "generator", "refined"} <= set(
        said
    )
    assert [text for text in said if text.endswith("…")]
    places = dict(reversed(written))  # the first of each
    assert places["generator"][1] < places["refined"][1]
    assert places["T-shirt / top"][0] < places["Ankle boot"][0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("initial", "random real images (initial samples)"), ("generated", "generator"), ("refined", "refined"),
        ("dm", "distilled by DM"), ("frepo", "distilled by FRePo"), ("random", "random real images"),
        ("herding", "herding"), ("of another version", "of another version"),
    ],
)  # fmt: skip
def test_names_of_rows(name: str, says: str) -> None:
    assert in_words(name) == says


# ----------------------------------------------------------------------------------------------------------- soft labels


def test_every_row_of_the_last_stage_shows_the_two_largest_shares(
    written: list[tuple[str, tuple[float, float]]],
) -> None:
    stages = {"generated": made(4, 2, stage="generated"), "refined": made(4, 2)}
    sheet = picture(stages, "title")
    shares = [(text, y) for text, (_, y) in written if text.endswith("%")]
    assert [text for text, _ in shares] == ["75 %", "25 %"] * 8
    assert len({y for _, y in shares}) == 2 * 2  # two lines below each of two rows, as the line below the title says
    assert "under each image of the last stage: the two largest shares of its soft label" in words(written)
    assert min(y for _, y in shares) > dict(written)["refined"][1]
    assert max(y for _, y in shares) < sheet.height - MARGIN / 2
    below = [text for text, (_, y) in written if y > dict(written)["refined"][1]]
    assert below.count("class 0") == 4  # first of two images, second of those of the class before it


@pytest.mark.parametrize("synthetic", [made(4, label_method="hard"), made(21)])
def test_no_shares_without_soft_labels_or_room(
    synthetic: SyntheticSet, written: list[tuple[str, tuple[float, float]]]
) -> None:
    picture({"refined": synthetic}, "title")
    assert not [text for text in words(written) if "%" in text or "shares" in text]


def test_top_two() -> None:
    assert top_two([0.2, 0.1, 0.7], "abc") == [("c", 0.7), ("a", 0.2)]
    assert top_two([0.5, 0.5, 0.0], "abc") == [("a", 0.5), ("b", 0.5)]
    assert top_two([1.0], "a") == [("a", 1.0)]


# ---------------------------------------------------------------------------------------------------------------- pixels


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "ipc"), [(32, 2), (128, 1)])
def test_images_are_where_they_belong(channels: int, side: int, ipc: int) -> None:
    """Each image is of one grey, its class's: rows are images of a class, columns are classes."""
    C = 5
    synthetic = made(C, ipc, channels, side)
    sheet, layout = np.asarray(picture({"refined": synthetic}, "t")), Layout.of(synthetic)
    top = next(y for y in range(len(sheet)) if (sheet[y, MARGIN + NAMES + 5] == 0).all())  # the first class is black
    for row in range(ipc):
        for c in range(C):
            x, y = MARGIN + NAMES + c * (layout.cell + ACROSS), top + row * layout.row(True)
            cell = sheet[y : y + layout.cell, x : x + layout.cell]
            assert (cell == round(255 * c / C)).all(), (row, c)
            assert (sheet[y : y + layout.cell, x + layout.cell] == PAPER).all()


def test_colours_and_sides_are_kept() -> None:
    images = torch.zeros(1, 3, 16, 32)
    images[:, 0] = 1.0
    red = made(1, images=images)
    image = enlarged(red, 0, 96)
    assert image.size == (96, 48)
    assert image.getpixel((50, 20)) == (255, 0, 0)
    assert enlarged(made(1, channels=1, images=torch.full((1, 1, 40, 20), 1.5)), 0, 72).getpixel((0, 0)) == (255,) * 3


def test_a_sheet_is_as_wide_as_its_words() -> None:
    narrow = {"refined": made(1)}
    title = "ddtool · a dataset with quite a long name · 10 images per class"
    assert picture(narrow, title).width >= 2 * MARGIN + font(17).getlength(title)
    assert picture({"refined": made(10, factor=2)}, title).width > 2 * MARGIN + 10 * 96
    assert remarks({"refined": made(3, factor=2, label_method="hard")}) == "each holds 4 smaller images"


def test_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        preview({"refined": made(3)}, "title", tmp_path / name)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert tiny.listing(tmp_path) == ["a.png", "b.png"]


# ------------------------------------------------------------------------------------------------------------------ text


@pytest.mark.parametrize(
    "text", ["aquarium fish", "lawn_mower", "T-shirt/top", "Straße", "a" * 60, "я люблю кошек", "", "…"]
)
@pytest.mark.parametrize(("width", "most"), [(20, 1), (56, 2), (96, 2), (400, 3)])
def test_text_fits(text: str, width: int, most: int) -> None:
    lines = wrapped(text, 11, width, most)
    assert 1 <= len(lines) <= most
    assert all(font(11).getlength(line) <= width for line in lines)
    if width == 400:
        assert lines in ([text], [text.replace(" ", "")]) or lines[0].endswith("…")


def test_lines_break_between_words() -> None:
    assert wrapped("aquarium fish", 11, 60, 2) == ["aquarium", "fish"]
    assert wrapped("lawn_mower", 11, 56, 2) == ["lawn_", "mower"]
    assert wrapped("one two three", 11, 30, 2)[0] == "one"
    assert wrapped("one two three", 11, 30, 2)[1].endswith("…")
    assert cut("abc", 11, 1) == "a…"  # something stays


def test_letters_of_many_languages_are_drawn() -> None:
    for letters in ("éüßñ", "яжю", "λΩ"):
        shapes = {bytes(font(12).getmask(letter)) for letter in letters}
        assert len(shapes) == len(letters)
        assert bytes(font(12).getmask("\uffff")) not in shapes


# ------------------------------------------------------------------------------------------------------------ of a run


@pytest.fixture
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    tiny.shorten_protocols(monkeypatch)


@pytest.mark.usefixtures("surroundings")
def test_a_run_leaves_a_picture_of_three_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: list[tuple[str, tuple[float, float]]]
) -> None:
    run = tiny.adapt(tiny.image_folder(tmp_path / "clothes"), tmp_path / "run", ipc=4)
    with Image.open(run.folder / "preview.png") as shown:
        assert shown.format == "PNG"
        size = shown.size
    said = words(written)
    assert said[0] == "ddtool · clothes · 4 images per class"
    assert said[1].startswith("3 of 4 images of each class; under each image of the last stage")
    assert said.index("random real images") < said.index("generator") < said.index("refined")
    assert {*tiny.CLASSES} <= set(said)
    assert len([text for text in said if text.endswith(" %")]) == 2 * 9
    stages = {stage: Run(run.folder).load_set(4, stage) for stage in ("initial", "generated", "refined")}
    assert preview_module.picture(stages, said[0]).size == size
