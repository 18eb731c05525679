"""Names, columns, splits, decoding and the cache, on small real images taken from the bundled sample."""

import errno
import io
import json
import multiprocessing.process
import os
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hub_server import Blob, HubServer, ResetBefore, Status
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from PIL import Image
from processes import forked

from ddtool.errors import DataError, UsageError
from ddtool.events import Note, Step
from ddtool.hub.errors import reason
from ddtool.runtime.cache import cache_root
from ddtool.sources import cache as entries
from ddtool.sources import labels, names, schema
from ddtool.sources import load as sources
from ddtool.sources.load import DataOptions, load
from ddtool.sources.pixels import Rules
from ddtool.sources.pixels import decode_image as decode_by_rules

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "ddtool" / "assets" / "sample"
SHARED = ROOT.parent / "shared" / "data"

Row = tuple[bytes | None, Any]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and no switch or token from outside."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_TOKEN", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shirts() -> list[Row]:
    """60 (png, label) rows of the sample: 20 each of its classes 0, 1 and 2."""
    table = pq.read_table(SAMPLE / "data" / "train-00000-of-00001.parquet").slice(0, 400)
    rows = [
        (cell["bytes"], label) for cell, label in zip(*(table[c].to_pylist() for c in ("image", "label")), strict=True)
    ]
    return [row for label in range(3) for row in [r for r in rows if r[1] == label][:20]]


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter at the root of the project."""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, cwd=ROOT, env=os.environ | environment, timeout=120
    )


def decode_image(raw: bytes, resolution: int | None = None, **rules: Any) -> np.ndarray:
    """One image by itself, by the rules of a dataset that asks for no more than a resolution."""
    return decode_by_rules(raw, Rules(resolution, **rules))


class Ear:
    """Collects what `load` reports."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def __call__(self, event: Any) -> None:
        self.events.append(event)

    @property
    def notes(self) -> list[str]:
        return [e.text for e in self.events if isinstance(e, Note)]

    @property
    def steps(self) -> list[Step]:
        return [e for e in self.events if isinstance(e, Step)]


def png(pixels: Any, mode: str | None = None, kind: str = "PNG", **options: Any) -> bytes:
    """An array (h, w[, c]) or a Pillow image as an encoded file."""
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(np.asarray(pixels, np.uint8))
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def grey(value: int, h: int = 8, w: int = 8) -> bytes:
    return png(np.full((h, w), value))


def class_label(*names: str) -> dict[str, Any]:
    return {"names": list(names), "_type": "ClassLabel"}


THREE = class_label("top", "trouser", "pullover")


def write_parquet(path: Path, columns: dict[str, list[Any]], features: dict[str, Any]) -> Path:
    """A parquet file as `datasets` writes it; image columns are lists of bytes, or of {bytes, path}."""
    types = {"Image": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "ClassLabel": pa.int64()}
    arrays, fields = [], []
    for name, values in columns.items():
        kind = features[name]
        if kind["_type"] == "Image":
            values = [v if isinstance(v, dict) else {"bytes": v, "path": None} for v in values]
        column_type = types.get(kind["_type"]) or pa.type_for_alias(kind["dtype"])
        arrays.append(pa.array(values, column_type))
        fields.append(pa.field(name, column_type))
    metadata = {"huggingface": json.dumps({"info": {"features": {name: features[name] for name in columns}}})}
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(arrays, schema=pa.schema(fields, metadata)), path)
    return path


def write(folder: Path, *, label: dict[str, Any] = THREE, **splits: list[Row]) -> str:
    """A local dataset in Hub layout with an image and a label column; its path."""
    for split, rows in splits.items():
        columns = {"image": [raw for raw, _ in rows], "label": [value for _, value in rows]}
        write_parquet(folder / "data" / f"{split}-0.parquet", columns, {"image": {"_type": "Image"}, "label": label})
    return str(folder)


def two_classes(*raws: bytes | None) -> list[Row]:
    """Rows with labels 0, 1, 0, 1, …"""
    return [(raw, i % 2) for i, raw in enumerate(raws)]


TWO = class_label("zero", "one")
PLAIN = [(grey(10 * i), i % 2) for i in range(8)]


# --- the sample and the arrays --------------------------------------------------------------------------------------


def test_sample_loads_with_exact_statistics() -> None:
    target = load("sample")
    train, test = target.train, target.test()
    assert train.images.shape == (4000, 1, 28, 28)
    assert test.images.shape == (1000, 1, 28, 28)
    assert target.test_size == 1000
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert train.class_names[:2] == ("T-shirt/top", "Trouser")
    assert train.class_counts().tolist() == [400] * 10
    assert test.class_counts().tolist() == [100] * 10
    pixels = train.images.numpy().astype(np.float64) / 255
    assert train.mean == (round(pixels.mean(), 6),)
    assert train.std == (round(pixels.std(), 6),)
    assert (test.mean, test.std) == (train.mean, train.std)
    table = pq.read_table(SAMPLE / "data" / "test-00000-of-00001.parquet")
    assert test.labels.tolist() == table["label"].to_pylist()
    for row in (0, 500, 999):
        expected = np.asarray(Image.open(io.BytesIO(table["image"][row].as_py()["bytes"])))
        assert np.array_equal(test.images[row, 0].numpy(), expected)
    assert train.source["kind"] == "sample"
    assert train.source["licence"] == "mit"


def test_cache_hit_is_equal_and_imports_no_datasets(tmp_path: Path, shirts: list[Row], cache: Path) -> None:
    name = write(tmp_path / "d", train=shirts, test=shirts[::4])
    first = load(name)
    script = f"""
        import sys
        from ddtool.sources.load import load
        target = load({name!r})
        print(target.train.images.sum().item(), target.train.labels.tolist() == {first.train.labels.tolist()})
        print(target.test().images.sum().item(), {{"datasets", "huggingface_hub", "PIL", "pyarrow"}} & set(sys.modules))
    """
    run = python(textwrap.dedent(script))
    sums = first.train.images.sum().item(), first.test().images.sum().item()
    assert run.stdout == f"{sums[0]} True\n{sums[1]} set()\n", run.stderr


def test_source_is_plain_json(tmp_path: Path, shirts: list[Row]) -> None:
    name = write(tmp_path / "d", train=shirts, test=shirts)
    (tmp_path / "d" / "README.md").write_text("---\nlicense: cc-by-4.0\n---\n# D\n")
    source = load(name).train.source
    assert json.loads(json.dumps(source)) == source
    assert source.pop("content_hash")
    assert source == {
        "name": name,
        "kind": "local",
        "path": name,
        "config": None,
        "train_split": "train",
        "test_split": "test",
        "image_column": "image",
        "label_column": "label",
        "resolution": None,
        "licence": "cc-by-4.0",
    }


def test_writing_to_the_images_does_not_reach_the_cache(tmp_path: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    load(name).train.images.fill_(255)
    assert load(name).train.images[0, 0, 0, 0] == 0


@given(
    npst.arrays(np.uint8, st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 4), st.integers(1, 4)))
)
def test_channel_stats_are_those_of_float64(images: np.ndarray) -> None:
    mean, std = entries.channel_stats(images)
    pixels = images.astype(np.float64) / 255
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-6)
    assert std == pytest.approx(np.maximum(pixels.std((0, 2, 3)), 1e-3), abs=1e-6)


# --- the cache ------------------------------------------------------------------------------------------------------


def test_rewritten_folder_gives_new_rows_and_a_copy_hits(tmp_path: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    before = load(name).train
    ear = Ear()
    copy = write(tmp_path / "elsewhere" / "other", label=TWO, train=PLAIN, test=PLAIN)
    assert torch.equal(load(copy, report=ear).train.images, before.images)
    assert ear.steps == []  # same content: same entry
    write(tmp_path / "d", label=TWO, train=[(grey(200), 0), (grey(210), 1)], test=PLAIN)
    again = load(name, report=ear)
    assert again.train.images[:, 0, 0, 0].tolist() == [200, 210]
    assert len(ear.steps) == 2
    (tmp_path / "d" / "data" / "train-1.parquet").write_bytes((tmp_path / "d" / "data" / "test-0.parquet").read_bytes())
    assert len(load(name).train) == 10  # an added shard


def test_folders_of_the_same_name_do_not_meet(tmp_path: Path) -> None:
    for value in (10, 20):
        name = write(tmp_path / str(value) / "same", label=TWO, train=two_classes(grey(value), grey(value)), test=PLAIN)
        assert load(name).train.images[0, 0, 0, 0] == value


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("meta.json", lambda p: p.write_text(p.read_text()[:40])),
        ("meta.json", lambda p: p.write_text(p.read_text().replace('"mean"', '"nean"'))),
        ("meta.json", lambda p: p.unlink()),
        ("train-images.npy", lambda p: os.truncate(p, p.stat().st_size - 1)),
        ("train-images.npy", lambda p: os.truncate(p, 0)),
        ("train-images.npy", lambda p: p.unlink()),
        ("train-labels.npy", lambda p: np.save(p, np.full(8, 7))),
        ("train-labels.npy", lambda p: np.save(p, np.array([{}] * 8), allow_pickle=True)),
    ],
)
def test_damaged_entry_is_rebuilt(tmp_path: Path, cache: Path, file: str, damage: Callable[[Path], Any]) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    before = load(name).train
    images, labels = before.images.clone(), before.labels.clone()
    damage(next(cache.glob(f"*/{file}")))
    ear = Ear()
    after = load(name, report=ear).train
    assert ear.steps
    assert torch.equal(after.images, images)
    assert torch.equal(after.labels, labels)
    assert not list(cache.glob(".tmp-*"))
    ear = Ear()
    load(name, report=ear)
    assert ear.steps == []


def test_training_never_needs_the_test_arrays(tmp_path: Path, cache: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN[:6])
    load(name)
    for file in cache.glob("*/test-*.npy"):
        file.unlink()
    ear = Ear()
    target = load(name, report=ear)
    assert len(target.train) == 8
    assert not ear.steps
    assert len(target.test()) == 6  # rebuilt now that it is asked for
    assert ear.steps
    assert torch.equal(target.train.images, load(name).train.images)  # the open map outlived the replacement


@pytest.mark.parametrize("step", ["write", "move"])
def test_full_disk_is_explained_and_leaves_nothing(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    with monkeypatch.context() as patch:
        patch.setattr(*(np.lib.format, "write_array_header_1_0") if step == "write" else (entries.os, "replace"), full)
        with pytest.raises(DataError, match="No space left") as caught:
            load(name)
    assert "DDTOOL_CACHE" in caught.value.hint
    assert list(cache.iterdir()) == []
    assert len(load(name).train) == 8


def test_interruption_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    def interrupt(event: Any) -> None:
        raise KeyboardInterrupt

    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    with pytest.raises(KeyboardInterrupt):
        load(name, report=interrupt)
    assert list(cache.iterdir()) == []


def test_unwritable_cache_is_explained(tmp_path: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be written"):
        load(name, cache_dir=tmp_path / "file" / "cache")


def test_builders_at_the_same_time_do_not_harm_each_other(tmp_path: Path, cache: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    barrier, results = threading.Barrier(3), []

    def one() -> None:
        def wait_once(event: Any) -> None:
            if isinstance(event, Step) and event.phase == "decode train":
                barrier.wait(20)  # all three are decoding: nobody has published yet

        target = load(name, report=wait_once)
        results.append((target.train.images.sum().item(), len(target.test())))

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [(sum(10 * i * 64 for i in range(8)), 8)] * 3
    assert [p.name for p in cache.iterdir() if p.name.startswith(".")] == []
    assert len(list(cache.iterdir())) == 1


def test_cache_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_root() == tmp_path / "cache"
    monkeypatch.delenv("DDTOOL_CACHE")
    assert cache_root() == Path.home() / ".cache" / "ddtool"
    monkeypatch.setenv("XDG_CACHE_HOME", "/x")
    assert cache_root() == Path("/x/ddtool")


def test_abandoned_temporary_folders_are_removed(tmp_path: Path, cache: Path) -> None:
    old, young = cache / ".tmp-old", cache / ".tmp-young"
    for folder in (old, young):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    load(write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN))
    assert not old.exists()
    assert young.exists()


# --- columns --------------------------------------------------------------------------------------------------------

IMAGE, CLASS, VALUE = (schema.Column(kind) for kind in ("image", "class", "value"))
OTHER = schema.Column("other", type="a box")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"img": IMAGE, "target": CLASS}, "target"),
        ({"img": IMAGE, "fine_label": CLASS, "coarse_label": CLASS}, "fine_label"),
        ({"img": IMAGE, "attribute": CLASS, "label": CLASS, "labels": CLASS}, "label"),
        ({"img": IMAGE, "id": VALUE, "label": VALUE}, "label"),
        ({"img": IMAGE, "label": VALUE, "species": CLASS}, "species"),
    ],
)
def test_label_column_is_found(columns: dict[str, schema.Column], expected: str) -> None:
    said: list[str] = []
    assert schema.image_column(columns) == "img"
    assert schema.label_column(columns, say=said.append) == expected
    several = sum(column is CLASS for column in columns.values()) > 1
    assert [f"'{expected}'" in text and "--label-column" in text for text in said] == [True] * several


@pytest.mark.parametrize(
    ("columns", "options", "message", "hint"),
    [
        ({}, {}, r"no image column; it has no columns at all\.", "a column of the type Image"),
        ({"a": CLASS}, {}, "no image column; its columns are a", "a column of the type Image"),
        ({"a": CLASS}, {"image_column": "a"}, "does not hold images", "a column of the type Image"),
        ({"img": IMAGE}, {}, "no label column; its columns are img", "Add a column with the class of each image"),
        ({"img": IMAGE, "box": OTHER}, {}, r"img, box \(a box\)\.", "Add a column with the class of each image"),
        ({"img": IMAGE, "box": OTHER}, {"label_column": "box"}, "does not hold classes but a box", "Add a column"),
        ({"img": IMAGE, "box": OTHER, "mood": VALUE}, {}, "no label column", "--label-column mood."),
        (
            {"left": IMAGE, "right": IMAGE, "label": CLASS},
            {},
            r"several image columns \(left, right\)",
            "--image-column",
        ),
        (
            {"img": IMAGE, "shape": CLASS, "colour": CLASS},
            {},
            r"several label columns \(shape, colour\)",
            "--label-column",
        ),
        ({"img": IMAGE, "caption": VALUE}, {}, "no label column; its columns are img, caption", "--label-column"),
        ({"img": IMAGE, "label": VALUE, "labels": VALUE}, {}, "several label columns", "--label-column"),
        ({"img": IMAGE, "label": CLASS}, {"label_column": "lable"}, "no column 'lable'", "'label'?"),
        ({"img": IMAGE, "label": CLASS}, {"image_column": "imgs"}, "no column 'imgs'", "'img'?"),
        ({"img": IMAGE, "label": CLASS}, {"image_column": "label"}, "does not hold images", "img"),
        ({"img": IMAGE, "box": OTHER, "label": CLASS}, {"label_column": "box"}, "does not hold classes", "label"),
    ],
)
def test_columns_that_cannot_be_chosen(
    columns: dict[str, schema.Column], options: dict[str, str], message: str, hint: str
) -> None:
    def choose() -> None:
        schema.image_column(columns, options.get("image_column"))
        schema.label_column(columns, options.get("label_column"))

    with pytest.raises(DataError, match=message) as caught:
        choose()
    assert hint in caught.value.hint
    for kind, offered in re.findall(r"--(label|image)-column ((?:\w+ or )*\w+)\.", caught.value.hint):
        for name in offered.split(" or "):  # what it offers does not lead back to an error
            options = options | {f"{kind}_column": name}
            choose()


def test_fine_label_is_preferred_and_said_again_on_a_hit(tmp_path: Path) -> None:
    features = {
        "img": {"_type": "Image"},
        "coarse_label": TWO,
        "fine_label": THREE,
        "name": {"dtype": "string", "_type": "Value"},
    }
    columns = {
        "img": [grey(i) for i in range(6)],
        "coarse_label": [0, 0, 1] * 2,
        "fine_label": [0, 1, 2] * 2,
        "name": list("abcdef"),
    }
    path = str(write_parquet(tmp_path / "d.parquet", columns, features))
    for _ in range(2):
        ear = Ear()
        target = load(path, report=ear)
        assert target.train.class_names == ("top", "trouser", "pullover")
        assert any("'fine_label' is used" in note for note in ear.notes)
    assert load(path, DataOptions(label_column="coarse_label")).train.class_names == ("zero", "one")
    with pytest.raises(DataError, match="no column 'imgg'"):
        load(path, DataOptions(image_column="imgg"))
    with pytest.raises(DataError, match="'name' does not hold images"):
        load(path, DataOptions(image_column="name"))


def test_text_labels_become_sorted_classes(tmp_path: Path) -> None:
    text = {"dtype": "string", "_type": "Value"}
    rows = [(grey(1), "dog"), (grey(2), "cat"), (grey(3), "dog\n")]
    target = load(write(tmp_path / "d", label=text, train=rows, test=rows[:2]))
    assert target.train.class_names == ("cat", "dog", "dog (2)")  # the line feed is not printable
    assert target.train.labels.tolist() == [1, 0, 2]
    assert target.test().labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="Row 1 of split 'test' has label 'cow'"):
        load(write(tmp_path / "e", label=text, train=rows, test=[rows[0], (grey(1), "cow")]))


def test_integer_labels_become_sorted_classes(tmp_path: Path) -> None:
    number = {"dtype": "int32", "_type": "Value"}
    rows = [(grey(1), 10), (grey(2), 9), (grey(3), 10)]
    target = load(write(tmp_path / "d", label=number, train=rows, test=rows))
    assert target.train.class_names == ("9", "10")
    assert target.train.labels.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([10, -1, 9, -1], "Row 1 of split 'train' has label -1, which in datasets stands for no label (2 of 4 rows)."),
        ([0, 1, -1, 0], "Row 2 of split 'train' has label -1, which in datasets stands for no label (1 of 4 rows)."),
        (
            [0, -1, 0, 0],
            "Beside -1, which in datasets stands for no label (1 of 4 rows), there is 1 class; distillation needs two.",
        ),
        (
            [-1, -1],
            "Beside -1, which in datasets stands for no label (2 of 2 rows), there are 0 classes; distillation needs two.",
        ),
    ],
)
def test_a_label_of_minus_one_is_said_to_stand_for_none(tmp_path: Path, values: list[int], says: str) -> None:
    number = {"dtype": "int32", "_type": "Value"}
    rows = [(grey(i), value) for i, value in enumerate(values)]
    with pytest.raises(DataError) as caught:
        load(write(tmp_path / "e", label=number, train=rows, test=[(grey(9), 0), (grey(8), 1)]))
    assert caught.value.message == says
    assert caught.value.hint.startswith("Remove these rows, or give each its class.")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (-1, "Row 2 of split '{}' has label -1, which in datasets stands for no label \\(1 of "),
        (None, "Row 2 of split '{}' has no label"),
        (3, "Row 2 of split '{}' has label '3'"),
    ],
)
@pytest.mark.parametrize("split", ["train", "test"])
def test_bad_labels_name_the_row(tmp_path: Path, bad: int | None, message: str, split: str) -> None:
    splits = {"train": PLAIN, "test": PLAIN} | {split: [*PLAIN[:2], (grey(1), bad), *PLAIN[2:]]}
    with pytest.raises(DataError, match=message.format(split)):
        load(write(tmp_path / "d", label=TWO, **splits))


def test_class_without_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="1 of 3 classes have no image in split 'train': 'pullover'"):
        load(write(tmp_path / "d", train=PLAIN, test=[(grey(1), 2)]))


def test_one_class_and_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="1 class"):
        load(write(tmp_path / "d", label=class_label("one"), train=[(grey(1), 0)], test=[(grey(1), 0)]))
    monkeypatch.setattr(labels, "MAX_CLASSES", 2)
    with pytest.raises(DataError, match="3 different values"):
        load(write(tmp_path / "e", train=PLAIN, test=PLAIN))


@given(st.lists(st.text(max_size=6) | st.integers(-3, 3), min_size=2, max_size=12))
def test_class_names_are_clean_and_unique(names: list[Any]) -> None:
    clean = labels.class_names(names)
    assert len(clean) == len(set(clean)) == len(names)
    assert all(name and "\n" not in name and "\x1b" not in name and "\u202e" not in name for name in clean)


# --- splits ---------------------------------------------------------------------------------------------------------


def test_no_test_split_is_held_out_of_every_class(tmp_path: Path, shirts: list[Row], cache: Path) -> None:
    name = write(tmp_path / "d", train=shirts)
    ear = Ear()
    target = load(name, report=ear)
    test = target.test()
    assert any("10% of train" in note for note in ear.notes)
    assert target.train.class_counts().tolist() == [18] * 3
    assert test.class_counts().tolist() == [2] * 3
    assert target.train.source["test_split"] == "10% of train, seed 0"
    rows = {decode_image(raw).tobytes() for raw, _ in shirts}
    parts = [{image.numpy().tobytes() for image in part.images} for part in (target.train, test)]
    assert parts[0] | parts[1] == rows
    assert not parts[0] & parts[1]
    assert torch.equal(load(name, DataOptions(seed=0)).test().images, test.images)
    other = load(name, DataOptions(seed=1, test_fraction=0.2))
    assert other.test_size == 12
    assert len(list(cache.iterdir())) == 2


def test_seed_is_no_part_of_the_key_when_nothing_is_held_out(tmp_path: Path, cache: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    for seed in range(3):
        load(name, DataOptions(seed=seed, test_fraction=0.1 + seed / 10))
    assert len(list(cache.iterdir())) == 1


@settings(max_examples=50)
@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.floats(0.01, 0.99), st.integers(0, 9))
def test_hold_out_leaves_every_class_something(drawn: list[int], fraction: float, seed: int) -> None:
    values = np.array(drawn)
    if len(values) == len(set(drawn)):
        with pytest.raises(DataError, match="two images"):
            labels.hold_out(values, fraction, seed)
        return
    held = labels.hold_out(values, fraction, seed)
    assert np.array_equal(held, labels.hold_out(values, fraction, seed))
    for label in set(drawn):
        count, taken = (values == label).sum(), held[values == label].sum()
        assert taken == min(max(1, round(fraction * count)), count - 1)


def test_validation_is_used_and_said(tmp_path: Path) -> None:
    ear = Ear()
    target = load(write(tmp_path / "d", label=TWO, train=PLAIN, validation=PLAIN[:4]), report=ear)
    assert target.train.source["test_split"] == "validation"
    assert target.test_size == 4
    assert any("'validation' is used" in note for note in ear.notes)


def test_unlabelled_test_split_is_left_out(tmp_path: Path) -> None:
    unlabelled = [(grey(1), -1)] * 3
    ear = Ear()
    name = write(tmp_path / "d", label=TWO, train=PLAIN, validation=PLAIN[:4], test=unlabelled)
    assert load(name, report=ear).train.source["test_split"] == "validation"
    assert "Split 'test' has no labels and is left out." in ear.notes
    with pytest.raises(DataError, match="Row 0 of split 'test'"):
        load(name, DataOptions(test_split="test"))
    held = load(write(tmp_path / "e", label=TWO, train=PLAIN, test=unlabelled))
    assert "% of train" in held.train.source["test_split"]


def test_named_splits(tmp_path: Path) -> None:
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN[:4])
    swapped = load(name, DataOptions(train_split="test", test_split="train"))
    assert (len(swapped.train), swapped.test_size) == (4, 8)
    with pytest.raises(DataError, match="no split 'trian'") as caught:
        load(name, DataOptions(train_split="trian"))
    assert caught.value.hint == "Did you mean 'train'?"
    with pytest.raises(DataError, match="no split 'vlaid'"):
        load(name, DataOptions(test_split="vlaid"))
    with pytest.raises(UsageError, match="both"):
        load(name, DataOptions(test_split="train"))


def test_train_split_must_be_clear() -> None:
    assert schema.train_split(["images"]) == "images"
    with pytest.raises(DataError, match="no split 'train', but a, b"):
        schema.train_split(["a", "b"])


def test_empty_splits(tmp_path: Path) -> None:
    for splits in ({"train": [], "test": PLAIN}, {"train": PLAIN, "test": []}):
        with pytest.raises(DataError, match="a parquet file of it is empty"):
            load(write(tmp_path / "d", label=TWO, **splits))
    with pytest.raises(DataError, match="Split 'test' is empty"):
        labels.Classes(("a", "b")).numbers([], "test")


# --- images ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    "bad", [grey(3)[:50], b"not a picture", png(np.zeros((8, 8, 3)), kind="EPS"), None, b""], ids=list("tneNe")
)
def test_corrupt_image_names_split_and_row(tmp_path: Path, cache: Path, split: str, bad: bytes | None) -> None:
    rows = two_classes(*[grey(i) for i in range(140)])  # the bad one lies in the second chunk
    splits = {"train": rows, "test": rows} | {split: [*rows[:131], (bad, 1), *rows[131:]]}
    with pytest.raises(DataError, match=f"ow 131 of split '{split}'") as caught:
        load(write(tmp_path / "d", label=TWO, **splits))
    assert "--skip-broken" in caught.value.hint
    assert list(cache.iterdir()) == []


def test_sizes(tmp_path: Path) -> None:
    mixed = write(tmp_path / "d", label=TWO, train=two_classes(grey(1), grey(2), grey(3, 8, 9)), test=PLAIN)
    with pytest.raises(DataError, match="row 2 of split 'train' is 9x8, the first image is 8x8") as caught:
        load(mixed)
    assert "--resolution 32" in caught.value.hint
    assert load(mixed, DataOptions(resolution=16)).train.shape == (1, 16, 16)
    large = two_classes(grey(1, 40, 129), grey(2, 129, 40))
    large_name = write(tmp_path / "e", label=TWO, train=large, test=large)
    with pytest.raises(DataError, match="129x40 pixels are too large") as caught:
        load(large_name)
    assert "--resolution 32" in caught.value.hint
    target = load(large_name, DataOptions(resolution=8))
    assert target.train.images.shape == (2, 1, 8, 8)
    assert target.train.source["resolution"] == 8
    assert load(
        write(tmp_path / "f", label=TWO, train=[(grey(1, 6, 9), 0), (grey(1, 6, 9), 1)], test=[(grey(1, 6, 9), 0)])
    ).train.shape == (1, 6, 9)


@pytest.mark.parametrize(
    ("resolution", "fraction"), [(7, 0.1), (0, 0.1), (-32, 0.1), (4096, 0.1), (None, 0.0), (None, 1.0)]
)
def test_options_out_of_range(resolution: int | None, fraction: float) -> None:
    with pytest.raises(UsageError):
        DataOptions(resolution=resolution, test_fraction=fraction)


def test_resizing_keeps_the_centre() -> None:
    picture = np.zeros((16, 48, 3), np.uint8)
    picture[:, 16:32] = (200, 100, 50)
    for kind in ("PNG", "JPEG"):
        small = decode_image(png(picture, kind=kind, **({"quality": 95} if kind == "JPEG" else {})), 8)
        assert small.shape == (8, 8, 3)
        assert np.abs(small[:, 2:6].astype(int) - (200, 100, 50)).max() <= 8
    photo = decode_image(png(np.full((400, 640, 3), 90), kind="JPEG"), 16)
    assert photo.shape == (16, 16, 3)
    assert np.abs(photo.astype(int) - 90).max() <= 1


@given(st.integers(1, 70), st.integers(1, 70), st.integers(8, 40))
@settings(max_examples=40, deadline=None)
def test_resized_images_are_square(h: int, w: int, side: int) -> None:
    assert decode_image(grey(77, h, w), side).tolist() == [[77] * side] * side


def test_modes() -> None:
    ramp = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    colour = Image.merge("RGB", [ramp, ramp.transpose(Image.Transpose.ROTATE_90), ramp])
    as_array = decode_image
    assert as_array(png(ramp)).tolist() == np.asarray(ramp).tolist()
    assert set(np.unique(as_array(png(ramp, "1")))) <= {0, 255}
    deep = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    assert as_array(png(deep), scales=(("integer", 0, 65535),)).tolist() == np.asarray(ramp).tolist()
    assert as_array(png(colour)).tolist() == np.asarray(colour).tolist()
    assert as_array(png(colour, "P")).shape == (8, 8, 3)
    assert as_array(png(colour, "CMYK", "TIFF")).shape == (8, 8, 3)
    faint = colour.copy()
    faint.putalpha(0)
    for background, value in (("white", 255), ("grey", 128), ("black", 0)):
        assert as_array(png(faint), background=background).tolist() == np.full((8, 8, 3), value).tolist()
    half = ramp.copy()
    half.putalpha(255)
    assert as_array(png(half)).tolist() == np.asarray(ramp).tolist()  # grey with alpha stays grey
    floats = png(ramp, "F", "TIFF")
    assert as_array(floats, scales=(("float", 0, 255),)).tolist() == np.asarray(ramp).tolist()
    turned = Image.Exif()
    turned[0x0112] = 6
    assert as_array(png(Image.new("L", (8, 4)), kind="JPEG", exif=turned)).shape == (8, 4)


def test_one_colour_image_makes_all_of_them_colour(tmp_path: Path) -> None:
    colour = png(np.full((8, 8, 3), (10, 20, 30)))
    grey_only = load(write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN))
    assert grey_only.train.shape == (1, 8, 8)
    for split in ("train", "test"):
        splits = {"train": PLAIN, "test": PLAIN} | {split: [*PLAIN, (colour, 0)]}
        target = load(write(tmp_path / split, label=TWO, **splits))
        assert target.train.shape == target.test().shape == (3, 8, 8)
        assert len(target.train.mean) == 3
        part = target.train if split == "train" else target.test()
        assert part.images[8, :, 0, 0].tolist() == [10, 20, 30]
        assert part.images[3, :, 0, 0].tolist() == [30, 30, 30]


def test_many_threads_decode_as_one_does(tmp_path: Path, shirts: list[Row]) -> None:
    rows = [*shirts * 5, (png(np.zeros((28, 28, 3))), 0)]
    name = write(tmp_path / "d", train=rows, test=shirts)
    alone = load(name, cache_dir=tmp_path / "alone", workers=1)
    ear = Ear()
    together = load(name, cache_dir=tmp_path / "together", workers=3, report=ear)
    assert together.train.shape == (3, 28, 28)
    assert torch.equal(together.train.images, alone.train.images)
    assert torch.equal(together.test().images, alone.test().images)
    assert [(s.phase, s.step, s.total) for s in ear.steps][-4:-1] == [("decode train", n, 301) for n in (128, 256, 301)]


def test_no_process_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a script without `if __name__ == "__main__"` reads its data like any other."""

    def refused(*_: Any) -> None:
        raise AssertionError("a process is started")

    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refused)
    monkeypatch.setattr(subprocess.Popen, "__init__", refused)
    name = write(tmp_path / "d", label=TWO, train=PLAIN, test=PLAIN)
    assert len(load(name, workers=4).train) == len(PLAIN)
    with pytest.raises(AssertionError, match="is started"):
        multiprocessing.get_context("spawn").Process(target=print).start()


# --- names ----------------------------------------------------------------------------------------------------------


def test_a_row_without_a_label_is_said() -> None:
    known = labels.Classes(("a", "b"), ("a", "b"))
    with pytest.raises(DataError, match=r"Row 1 of split 'train' has no label\.") as caught:
        known.numbers(["a", None, "b"], "train")
    assert caught.value.hint.startswith("1 of 3 rows is affected")
    with pytest.raises(DataError, match="has label 'c', which is none of the 2 classes"):
        known.numbers(["a", "c", "b"], "test")


def test_parquet_file(tmp_path: Path, shirts: list[Row]) -> None:
    write(tmp_path / "d", train=shirts)
    path = tmp_path / "d" / "data" / "train-0.parquet"
    target = load(str(path))
    assert (len(target.train), target.test_size) == (54, 6)
    assert target.train.source["path"] == str(path)
    (tmp_path / "notes.csv").write_text("a,b\n")
    with pytest.raises(DataError, match="names no image"):
        load(str(tmp_path / "notes.csv"))
    (tmp_path / "notes.csv").write_text("")
    with pytest.raises(DataError, match=r"'notes\.csv' is empty"):
        load(str(tmp_path / "notes.csv"))
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        load(str(tmp_path / "bad.parquet"))


def test_image_folder(tmp_path: Path, shirts: list[Row]) -> None:
    for split, rows in (("train", shirts[:30]), ("test", shirts[10:30])):
        for i, (raw, label) in enumerate(rows):
            folder = tmp_path / "d" / split / ("shirt" if label else "trouser")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{i:03}.png").write_bytes(raw or b"")
    moved = (tmp_path / "d" / "train" / "shirt" / "020.png").rename(tmp_path / "moved.png")
    (tmp_path / "d" / "train" / "shirt" / "020.png").symlink_to(moved)
    target = load(str(tmp_path / "d"))
    assert target.train.class_names == ("shirt", "trouser")
    assert sorted(target.train.class_counts().tolist()) == [10, 20]
    row = target.train.labels.tolist().index(0)
    assert np.array_equal(target.train.images[row, 0], decode_image(shirts[20][0] or b""))
    (tmp_path / "d" / "train" / "shirt" / "025.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"train/shirt/025.png' cannot be decoded"):
        load(str(tmp_path / "d"))


def test_rows_may_not_point_outside_the_dataset(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(grey(7))
    rows: list[Row] = [(raw, label) for raw, label in PLAIN]
    rows[3] = ({"bytes": None, "path": str(tmp_path / "secret.png")}, 1)  # type: ignore[assignment]
    with pytest.raises(DataError, match=r"row 3 of split 'train' is not in the dataset"):
        load(write(tmp_path / "d", label=TWO, train=rows, test=PLAIN))


def test_names_that_mean_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "cifra10", label=TWO, train=PLAIN, test=PLAIN)
    for name, message, hint in [
        ("cifar1", "not the name of a dataset", "Did you mean 'cifar10'?"),
        ("fashion-mnist", "not the name of a dataset", "Did you mean 'fashion_mnist'?"),
        ("qqqqqq", "not the name of a dataset", "tiny-imagenet"),
        ("cifra10", "not the name of a dataset", "./cifra10"),
        ("./nowhere", "no file or folder './nowhere'", "Check the path"),
        ("nowhere.parquet", "no file or folder", "Check the path"),
        ("a/b/c", "no file or folder", "Check the path"),
        ("", "not the name of a dataset", "sample"),
        ("~nobody/at/home", "no file or folder", "Check the path"),
        ("x" * 5000, "not the name of a dataset", "sample"),
    ]:
        with pytest.raises(DataError, match=message) as caught:
            load(name)
        assert hint in caught.value.hint
    assert len(load("./cifra10").train) == 8
    with pytest.raises(UsageError, match="no revisions"):
        load("./cifra10", DataOptions(revision="main"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no images in .*It is empty"):
        load("./empty")


def test_an_alias_always_means_the_alias(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    write(tmp_path / "mnist", label=TWO, train=PLAIN, test=PLAIN)
    write(tmp_path / "ns" / "name", label=TWO, train=PLAIN, test=PLAIN)
    with pytest.raises(DataError, match="'ylecun/mnist' was not loaded here before") as caught:
        load("mnist")
    assert caught.value.hint.startswith("Load it once")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    with pytest.raises(DataError) as caught:
        load("runs/typo")
    assert caught.value.hint.startswith("There is no folder 'runs/typo' here.")
    assert len(load("ns/name").train) == 8  # a path that exists wins over a Hub id
    for name in ("other/name", "hf://datasets/ns/name", "ns/name@v1", "mnist@v1"):
        with pytest.raises(DataError, match="was not loaded here before"):
            load(name)
    with pytest.raises(UsageError, match="Two revisions"):
        load("ns/name@v1", DataOptions(revision="v2"))


def test_aliases_name_real_repositories() -> None:
    assert sources.ALIASES["cifar10"] == "uoft-cs/cifar10"
    assert set(sources.ALIASES) >= {"mnist", "svhn", "imagenette", "sample", "tiny-imagenet"}


def test_reasons_hold_no_credentials() -> None:
    error = OSError("GET https://user:pa55@hub/x with hf_abcdefghijklmnop failed\nmore")
    error.__cause__ = ValueError("https://me:hunter2@host said no to hf_ABCDEFGHIJKLMNOP")
    assert reason(error) == "https://***@host said no to ***"


# --- the Hub --------------------------------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    """Every file below, as a repo holds it."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def hub(server: HubServer, tmp_path: Path, shirts: list[Row], monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub with parquet files, shards of differing class names, image files, and a scripted dataset with its copy."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    write(tmp_path / "shirts", train=shirts, test=shirts[::4])
    (tmp_path / "shirts" / "README.md").write_text("---\nlicense: mit\n---\n")
    sha = server.seed("dataset", "acme/shirts", files(tmp_path / "shirts"))
    server.repos["dataset", "acme/shirts"].refs["old"] = sha
    turned = class_label("one", "zero")
    for shard, order, values in [
        ("train-00000-of-00002", TWO, (10, 20)), ("train-00001-of-00002", turned, (30, 40)),
        ("test-00000-of-00001", turned, (50, 60)),
    ]:  # fmt: skip
        columns = {"image": [grey(value) for value in values], "label": [0, 1]}
        place = tmp_path / "mixed" / "data" / f"{shard}.parquet"
        write_parquet(place, columns, {"image": {"_type": "Image"}, "label": order})
    server.seed("dataset", "acme/mixed", files(tmp_path / "mixed"))
    photos = {
        f"train/{'shirt' if label else 'trouser'}/{i}.png": raw or b"" for i, (raw, label) in enumerate(shirts[17:23])
    }
    server.seed("dataset", "acme/photos", photos)
    server.seed("dataset", "frgfm/imagenette", {"imagenette.py": b"raise SystemExit('never run')"})
    copies = {}
    for config, rows in {"160px": shirts[::2], "320px": shirts}.items():
        made = files(Path(write(tmp_path / config, train=rows)))
        copies |= {f"{config}/{split}/0000.parquet": made["data/train-0.parquet"] for split in ("train", "validation")}
    repo, blobs = (
        server.repos["dataset", "frgfm/imagenette"],
        {path: Blob(raw, lfs=True) for path, raw in copies.items()},
    )
    repo.commit(names.CONVERTED, None, "converted", blobs)
    return server


def test_datasets_of_the_hub_are_read_at_a_commit(hub: HubServer, tmp_path: Path) -> None:
    target, sha = load("acme/shirts"), hub.repos["dataset", "acme/shirts"].refs["main"]
    wanted = {"kind": "hub", "id": "acme/shirts", "revision": sha, "licence": "mit", "test_split": "test"}
    assert wanted.items() <= target.train.source.items()
    assert (len(target.train), target.test_size) == (60, 15)
    ear = Ear()
    assert len(load("hf://datasets/acme/shirts@old", report=ear).train) == 60
    assert ear.steps == []  # decoded before, under another name of the commit
    mixed = load("acme/mixed")  # its second shard and its test split have the names in another order
    assert mixed.train.class_names == ("zero", "one")
    assert mixed.train.images[mixed.train.labels == 0, 0, 0, 0].tolist() == [10, 40]
    assert mixed.test().labels.tolist() == [1, 0]
    assert load("acme/photos").train.class_names == ("shirt", "trouser")  # image files, not parquet
    imagenette = load("imagenette").train  # the Hub's parquet copy of a scripted dataset
    sha = hub.repos["dataset", "frgfm/imagenette"].refs[names.CONVERTED]
    assert (imagenette.source["config"], imagenette.source["revision"], len(imagenette)) == ("160px", sha, 30)


@pytest.mark.parametrize(
    ("name", "message", "hint"),
    [
        ("acme/gated", "gated dataset", "hf auth login"),
        ("acme/broken", "answered 500", "HF_HUB_OFFLINE"),
        ("acme/nothing", "no dataset on the Hub", "hf auth login"),
        ("acme/cifar1", "no dataset on the Hub", "Did you mean 'cifar10'?"),
        ("acme/shirts@v9", "no revision 'v9'", "branches"),
        ("frgfm/imagenette", "scripts are no longer supported", names.CONVERTED),
    ],
)
def test_what_the_hub_does_not_give_is_explained(hub: HubServer, name: str, message: str, hint: str) -> None:
    hub.seed("dataset", "acme/gated", {"a.txt": b"x"}, gated=True)
    hub.fault("/api/datasets/acme/broken", Status(500), None)
    with pytest.raises(DataError, match=message) as caught:
        load(name)
    assert hint in caught.value.hint, caught.value.hint


def test_files_that_do_not_come_and_a_hub_that_is_gone(hub: HubServer) -> None:
    hub.seed("dataset", "acme/absent", hub.files("dataset", "acme/shirts"))
    hub.fault(r"/resolve/.*parquet|/storage/", Status(404), None)
    with pytest.raises(DataError, match="cannot be read"):
        load("acme/absent")
    hub.fault("", ResetBefore(), None)
    with pytest.raises(DataError, match="cannot be reached") as caught:
        load("acme/photos")
    assert "There is no folder 'acme/photos' here." in caught.value.hint


OFFLINE = """
from ddtool.sources.load import DataOptions, load
assert load("acme/photos").train.source["kind"] == "hub"
assert load("acme/mixed", DataOptions(resolution=16)).test().labels.tolist() == [1, 0]
assert len(load("acme/shirts@old").test()) == 15
assert load("acme/shirts@old", DataOptions(resolution=16)).train.shape == (1, 16, 16)  # from the cache of datasets
"""


def test_offline_what_was_read_before_is_read_again(hub: HubServer) -> None:
    for name in ("acme/photos", "acme/mixed", "acme/shirts", "acme/shirts@old"):
        load(name)
    hub.requests.clear()
    run = forked(OFFLINE, HF_HUB_OFFLINE="1")
    assert run.returncode == 0, run.stderr[-3000:]
    assert not hub.requests


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared copies of CIFAR-100 are not here")
def test_cifar100() -> None:
    ear = Ear()
    target = load(str(SHARED / "cifar100" / "data" / "test-00000-of-00001.parquet"), workers=1, report=ear)
    assert target.train.images.shape == (9000, 3, 32, 32)
    assert target.test().class_counts().tolist() == [10] * 100
    assert target.train.class_names[0] == "apple"
    assert any("'fine_label' is used" in note for note in ear.notes)
    assert target.train.mean == pytest.approx((0.507, 0.487, 0.441), abs=0.01)
