"""The other layouts in which datasets come: tables beside images, archives, save_to_disk, shards, WebDataset."""

import io
import json
import tarfile
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from image_trees import Ear, encoded, picture, plant, used
from PIL import Image

from ddtool.errors import DataError
from ddtool.sources import archives
from ddtool.sources.load import DataOptions, load

Tree = dict[str, bytes | str | int]


def read(name: Path, **options: Any) -> tuple[dict[str, list[int]], dict[str, list[int]], Ear]:
    """(what is trained on, what is scored on, what was said)."""
    ear = Ear()
    target = load(str(name), DataOptions(**options), report=ear)
    return used(target.train), used(target.test()), ear


def together(name: Path, **options: Any) -> dict[str, list[int]]:
    """Every picture by class, where the test part is held out."""
    learned, scored, _ = read(name, **options)
    return {label: sorted(learned[label] + scored[label]) for label in learned}


def refused(name: Path, **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        load(str(name), DataOptions(**options))
    return caught.value


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


# --- tables beside images -------------------------------------------------------------------------------------------

FOUR: Tree = {"images/a1.png": 1, "images/a2.png": 2, "images/a3.png": 3, "images/a4.png": 4}


NAMES = ["cat", "dog", "cat", "dog"]


@pytest.mark.parametrize(
    "table",
    [
        {"train.csv": lines("id,label", "a1,cat", "a2,dog", "a3,cat", "a4,dog")},
        {"train.csv": lines("label,image_id", "cat,a1.png", "dog,a2.png", "cat,a3.png", "dog,a4.png")},
        {"labels.csv": lines("file;breed", "images/a1.png;cat", "images/a2.png;dog", "images/a3.png;cat", "images/a4.png;dog")},
        {"train.tsv": lines("path\tclass\twidth", "./images/a1.png\tcat\t8", "a2\tdog\t8", "images\\a3.png\tcat\t8", "a4\tdog\t8")},
        {"metadata.jsonl": lines(*(f'{{"file_name": "images/a{i}.png", "label": "{n}"}}' for i, n in enumerate(NAMES, 1)))},
        {"images/metadata.csv": lines("file_name,label", "a1.png,cat", "a2.png,dog", "a3.png,cat", "a4.png,dog")},
        {"labels.csv": lines("a1,cat", "a2,dog", "a3,cat", "a4,dog")},
        {"train.csv": "\ufeff" + lines("id,label", '"a1","cat"', "a2,dog", "a3,cat", "a4,dog")},
        {"train.csv": lines("id,label", "a1,cat", "a2,dog", "a3,cat", "a4,dog"), "sample_submission.csv": "id,label\na1,dog\n"},
    ],
)  # fmt: skip
def test_a_table_beside_images(tmp_path: Path, table: Tree) -> None:
    root = plant(tmp_path / "d", FOUR | table)
    assert together(root) == {"cat": [1, 3], "dog": [2, 4]}
    named = next(iter(table))
    if "/" not in named:  # the table itself names the dataset as well
        assert together(root / named) == {"cat": [1, 3], "dog": [2, 4]}


def test_labels_with_leading_zeros_stay_two(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", FOUR | {"train.csv": lines("id,label", "a1,007", "a2,7", "a3,007", "a4,7")})
    assert together(root) == {"007": [1, 3], "7": [2, 4]}


def test_kaggle_folders_with_a_test_table_without_labels(tmp_path: Path) -> None:
    tree: Tree = {f"train/{i}.jpg": picture(i) for i in range(8)} | {
        f"test/{i}.jpg": picture(100 + i) for i in range(3)
    }
    tree["train.csv"] = lines("id,label", *(f"{i},{'cat' if i < 4 else 'dog'}" for i in range(8)))
    tree["test.csv"] = lines("id", "0", "1", "2")
    root = plant(tmp_path / "d", tree)
    learned, scored, ear = read(root)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"cat": [0, 1, 2, 3], "dog": [4, 5, 6, 7]}
    assert ear.said("Split 'test' has no labels and is left out.")
    assert ear.said("The labels are those of column 'label' of train.csv.")


def test_tables_for_each_split(tmp_path: Path) -> None:
    tree: Tree = {f"img/{i}.png": i for i in range(6)}
    tree["train_labels.csv"] = lines("image,label", *(f"{i}.png,{'ab'[i % 2]}" for i in range(4)))
    tree["testLabels.csv"] = lines("image,label", "4.png,a", "5.png,b")
    assert read(plant(tmp_path / "d", tree))[:2] == ({"a": [0, 2], "b": [1, 3]}, {"a": [4], "b": [5]})


def test_metadata_in_each_split_folder(tmp_path: Path) -> None:
    tree: Tree = {"train/0.png": 0, "train/1.png": 1, "test/0.png": 2, "test/1.png": 3}
    tree |= {f"{split}/metadata.csv": lines("file_name,label", "0.png,a", "1.png,b") for split in ("train", "test")}
    assert read(plant(tmp_path / "d", tree))[:2] == ({"a": [0], "b": [1]}, {"a": [2], "b": [3]})


def test_a_column_that_says_the_split(tmp_path: Path) -> None:
    rows = ["0.png,a,train", "1.png,b,train", "2.png,a,test", "3.png,b,test", "4.png,b,val"]
    tree: Tree = {f"pics/{i}.png": i for i in range(5)} | {"birds.csv": lines("file,label,split", *rows)}
    learned, scored, ear = read(plant(tmp_path / "d", tree))
    assert (learned, scored) == ({"a": [0], "b": [1]}, {"a": [2], "b": [3]})
    assert ear.said("Not used: split val.")


def test_class_folders_win_over_a_table_that_lists_all_splits(tmp_path: Path) -> None:
    tree: Tree = {"train/a/0.png": 0, "train/b/1.png": 1, "test/a/2.png": 2, "test/b/3.png": 3}
    tree["birds.csv"] = lines("filepath,label", *(f"{path},x" for path in tree))
    assert read(plant(tmp_path / "d", tree))[:2] == ({"a": [0], "b": [1]}, {"a": [2], "b": [3]})


@pytest.mark.parametrize(
    "table",
    [
        {"metadata.csv": lines("file_name,caption", "cat/0.png,on a mat", "cat/1.png,asleep", "dog/2.png,barks", "dog/3.png,runs")},
        {"train.csv": lines("id,label", "0,0", "1,0", "2,1", "3,1")},
        {"labels.csv": lines("path,label", "cat/0.png,cat", "cat/1.png,cat", "dog/2.png,dog", "dog/3.png,dog")},
        {"sizes.csv": lines("file,bytes", "0.png,100", "1.png,100", "2.png,200", "3.png,200")},
    ],
)  # fmt: skip
def test_class_folders_win_over_a_table_that_says_nothing_else(tmp_path: Path, table: Tree) -> None:
    tree: Tree = {"cat/0.png": 0, "cat/1.png": 1, "dog/2.png": 2, "dog/3.png": 3}
    root = plant(tmp_path / "d", tree | table)
    assert together(root) == {"cat": [0, 1], "dog": [2, 3]}
    (root / next(iter(table))).write_text(
        lines("id,label", "0,x", "1,y", "2,x", "3,y")
    )  # says something else: then it counts
    assert together(root) == {"x": [0, 2], "y": [1, 3]}


def test_folders_that_are_no_classes_lose_to_the_table(tmp_path: Path) -> None:
    tree: Tree = {"train_images/0.png": 0, "train_images/1.png": 1, "test_images/2.png": 2, "test_images/3.png": 3}
    tree["train.csv"] = lines("image_id,label", "0.png,a", "1.png,b")
    learned, scored, ear = read(
        plant(
            tmp_path / "d",
            tree | {"train_images/4.png": 4, "train.csv": lines("image_id,label", "0.png,a", "1.png,b", "4.png,b")},
        )
    )
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"a": [0], "b": [1, 4]}
    assert ear.said("2 images that no table names")


def test_missing_images_and_rows_are_counted(tmp_path: Path) -> None:
    rows = ["a1,cat", "a2,dog", "a9,cat", "a3,dog", "../../secret,cat", "a1,cat"]
    root = plant(tmp_path / "d", FOUR | {"train.csv": lines("id,label", *rows)})
    learned, scored, ear = read(root)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"cat": [1], "dog": [2, 3]}
    assert ear.said("2 of 6 images that train.csv names are not there: 'a9', '../../secret'.")
    assert ear.said("1 rows of train.csv say again what an earlier row says.")
    assert ear.said("1 file skipped: 1 images that no table names.")


def test_a_table_in_the_way_of_several_labels(tmp_path: Path) -> None:
    rows = ["a1,cat", "a1,dog", "a2,dog", "a3,cat", "a4,dog"]
    root = plant(tmp_path / "d", FOUR | {"train.csv": lines("id,label", *rows)})
    error = refused(root)
    assert (
        "1 of 4 rows of split 'train' have more than one label in column 'label'; the first is row 0" in error.message
    )
    assert together(root, multi_label="first") == {"cat": [1, 3], "dog": [2, 4]}
    assert together(root, multi_label="drop") == {"cat": [3], "dog": [2, 4]}


def test_a_table_whose_label_is_not_clear(tmp_path: Path) -> None:
    rows = ["a1,cat,1", "a2,dog,2", "a3,cat,1", "a4,dog,2"]
    root = plant(tmp_path / "d", FOUR | {"train.csv": lines("id,animal,paw", *rows)})
    error = refused(root)
    assert "which of its columns is the label is not clear: id, animal, paw" in error.message
    assert error.hint == "Name the one with the classes: --label-column animal or paw."
    alone = refused(plant(tmp_path / "e", FOUR | {"train.csv": lines("id", *(row[:2] for row in rows))}))
    assert alone.hint == "Add a column with the class of each image: a number or a name."
    assert together(root, label_column="animal") == {"cat": [1, 3], "dog": [2, 4]}
    assert "no column 'animl'" in refused(root, label_column="animl").message


def test_two_tables_for_one_split(tmp_path: Path) -> None:
    rows = ["a1,cat", "a2,dog", "a3,cat", "a4,dog"]
    tree = FOUR | {"a.csv": lines("id,label", *rows), "b.csv": lines("id,label", *rows[::-1], "a1,dog")}
    root = plant(tmp_path / "d", tree)
    assert "--dataset-config b.csv" in refused(root).hint
    assert together(root, config="a.csv") == {"cat": [1, 3], "dog": [2, 4]}
    assert "no table 'c.csv'" in refused(root, config="c.csv").message


def test_a_damaged_table(tmp_path: Path) -> None:
    assert "cannot be read" in refused(plant(tmp_path / "d", FOUR | {"metadata.jsonl": '{"file_name": '})).message
    tree: Tree = {"cat/0.png": 0, "cat/1.png": 1, "dog/2.png": 2, "dog/3.png": 3}
    for name in ("metadata.jsonl", "cat/metadata.jsonl"):
        assert "cannot be read" in refused(plant(tmp_path / name, tree | {name: "{"})).message
    assert together(plant(tmp_path / "f", tree | {"log.jsonl": "{"})) == {"cat": [0, 1], "dog": [2, 3]}


def test_columns_of_one_name_are_not_mixed_up(tmp_path: Path) -> None:
    """Without a header the first row is data, and two of its cells may be alike."""
    rows = lines("a1.png,0,0", "a2.png,0,1", "a3.png,1,0", "a4.png,1,1")
    folder = plant(tmp_path / "d", FOUR | {"train.csv": rows})
    assert together(folder, label_column="column 2") == {"0": [1, 2], "1": [3, 4]}
    assert together(folder, label_column="column 3") == {"0": [1, 3], "1": [2, 4]}
    twice = lines("id,label,label", "a1,x,p", "a2,x,q", "a3,y,p", "a4,y,q")
    assert "several columns called 'label'" in refused(plant(tmp_path / "e", FOUR | {"train.csv": twice})).message
    other = lines("id,label,note,note", "a1,x,p,", "a2,y,q,", "a3,x,p,", "a4,y,q,")
    assert together(plant(tmp_path / "f", FOUR | {"train.csv": other})) == {"x": [1, 3], "y": [2, 4]}


# --- archives -------------------------------------------------------------------------------------------------------

PETS: Tree = {"train/cat/1.png": 1, "train/dog/2.png": 2, "test/cat/3.png": 3, "test/dog/4.png": 4}
READ = {"cat": [1], "dog": [2]}, {"cat": [3], "dog": [4]}


def pack(path: Path, files: Tree) -> Path:
    """A zip or tar of files by name."""
    contents = {
        name: picture(c) if isinstance(c, int) else c.encode() if isinstance(c, str) else c for name, c in files.items()
    }
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in contents.items():
                archive.writestr(name, content)
    else:
        with tarfile.open(path, "w:" + {".tar": "", ".tgz": "gz"}.get(path.suffix, path.suffix[1:])) as tar:
            for name, content in contents.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("name", ["d.zip", "d.tar", "d.tar.gz", "d.tgz", "D.TAR.XZ".lower()])
@pytest.mark.parametrize("around", ["", "pets/"])
def test_archives(tmp_path: Path, name: str, around: str) -> None:
    archive = pack(tmp_path / name, {around + k: v for k, v in PETS.items()} | {"__MACOSX/train/._1.png": "x"})
    learned, scored, ear = read(archive)
    assert (learned, scored) == READ
    again = Ear()
    assert used(load(str(archive), report=again).train) == READ[0]
    assert again.steps == []  # the entry is there: nothing is unpacked again
    assert ear.steps
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "cache") == [name]


def test_an_archive_with_a_table(tmp_path: Path) -> None:
    archive = pack(tmp_path / "d.zip", FOUR | {"train.csv": lines("id,label", "a1,x", "a2,y", "a3,x", "a4,y")})
    assert together(archive) == {"x": [1, 3], "y": [2, 4]}


def test_archives_that_are_refused(tmp_path: Path) -> None:
    for number, name in enumerate(["../evil.png", "/evil.png", "a/../../evil.png", "C:/evil.png"]):
        archive = pack(tmp_path / f"{number}.tar", PETS | {name: 9})
        assert "outside of itself" in refused(archive).message
    (tmp_path / "cut.zip").write_bytes(pack(tmp_path / "d.zip", PETS).read_bytes()[:-40])
    assert "cannot be" in refused(tmp_path / "cut.zip").message
    assert not (tmp_path / "evil.png").exists()
    tar = tmp_path / "links.tar"
    with tarfile.open(pack(tar, PETS), "a") as file:
        member = tarfile.TarInfo("train/cat/secret.png")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(member)
    assert read(tar)[:2] == READ


@pytest.mark.parametrize("name", ["d.zip", "d.tar"])
@pytest.mark.parametrize("inside", [".", pytest.param("train/cat/" + "a/" * 150 + "x.png", id="deep")])
def test_archives_with_names_that_lead_nowhere_are_refused(tmp_path: Path, name: str, inside: str) -> None:
    said = refused(pack(tmp_path / name, PETS | {inside: 9})).message
    assert "has no name" in said or "folders deep" in said


def test_a_zip_with_an_empty_name_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(pack(tmp_path / "d.zip", PETS), "a") as file:
        file.writestr(zipfile.ZipInfo(""), b"x")
    assert "has no name" in refused(tmp_path / "d.zip").message


@pytest.mark.parametrize("whole", [True, False])
def test_a_tar_that_is_damaged_or_cut_off_between_two_images_is_refused(tmp_path: Path, whole: bool) -> None:
    tar = pack(tmp_path / "d.tar", PETS)
    with tarfile.open(tar) as file:
        header = file.getmembers()[2].offset
    raw = bytearray(tar.read_bytes())
    raw[header + 10 : header + 20] = b"\xff" * 10
    tar.write_bytes(raw if whole else raw[: header + 100])
    assert "damaged or cut off after 2 of its entries" in refused(tar).message


@pytest.mark.parametrize("name", ["d.zip", "d.tar.xz"])
def test_damaged_lzma_is_explained(tmp_path: Path, name: str) -> None:
    files = PETS | {"train/cat/notes.txt": "".join(str(i**3) for i in range(20_000))}
    if name.endswith(".zip"):
        with zipfile.ZipFile(tmp_path / name, "w", zipfile.ZIP_LZMA) as file:
            for inside, content in files.items():
                file.writestr(inside, content if isinstance(content, str) else picture(int(content)))
    else:
        pack(tmp_path / name, files)
    raw = bytearray((tmp_path / name).read_bytes())
    middle = len(raw) // 2
    raw[middle : middle + 40] = bytes(byte ^ 255 for byte in raw[middle : middle + 40])
    (tmp_path / name).write_bytes(raw)
    assert "cannot be" in refused(tmp_path / name).message


@pytest.mark.parametrize("name", ["d.zip", "d.tar"])
def test_an_archive_larger_than_the_disk_is_refused_before_it_is_unpacked(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = pack(tmp_path / name, PETS | {"train/cat/zeros.txt": "0" * 10**6})
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda place: SimpleNamespace(free=10**6))
    assert "and only 1,000,000 are free" in refused(archive).message
    assert not list((tmp_path / "cache").rglob("*.png"))


def test_webdataset(tmp_path: Path) -> None:
    files: Tree = {}
    for i in range(6):
        files |= {f"{i:04}.png": i, f"{i:04}.cls": str(i % 2)}
    assert together(pack(tmp_path / "shard.tar", files)) == {"0": [0, 2, 4], "1": [1, 3, 5]}
    folder = tmp_path / "shards"
    folder.mkdir()
    pack(folder / "train-000000.tar", files)
    pack(folder / "test-000000.tar", {k: v if isinstance(v, str) else v + 10 for k, v in files.items()})
    learned, scored, _ = read(folder)
    assert learned == {"0": [0, 2, 4], "1": [1, 3, 5]}
    assert scored == {"0": [10, 12, 14], "1": [11, 13, 15]}


# --- tables by `datasets` -------------------------------------------------------------------------------------------


def shard(path: Path, rows: list[tuple[int, Any]], names: list[str] | None = None, label_type: Any = None) -> Path:
    """A parquet file with the columns image and label, as `datasets` writes it when `names` are given."""
    cells = [{"bytes": picture(number), "path": None} for number, _ in rows]
    table = pa.table(
        {
            "image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
            "label": pa.array([label for _, label in rows], label_type),
        }
    )
    if names:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_names_in_another_order_are_mapped_by_name(tmp_path: Path) -> None:
    root = tmp_path / "d"
    shard(root / "data" / "train-00000-of-00002.parquet", [(1, 0), (2, 1)], ["cat", "dog"])
    shard(root / "data" / "train-00001-of-00002.parquet", [(3, 0), (4, 1)], ["dog", "cat"])
    shard(root / "data" / "test-00000-of-00001.parquet", [(5, 0), (6, 1)], ["dog", "cat"])
    assert read(root)[:2] == ({"cat": [1, 4], "dog": [2, 3]}, {"cat": [6], "dog": [5]})
    shard(root / "data" / "test-00000-of-00001.parquet", [(5, 0), (6, 1)], ["fox", "cat"])
    assert "has the class 'fox'" in refused(root).message


def test_missing_shards_are_said(tmp_path: Path) -> None:
    root = tmp_path / "d"
    shard(root / "data" / "train-00000-of-00003.parquet", [(1, 0), (2, 1)], ["cat", "dog"])
    shard(root / "data" / "train-00002-of-00003.parquet", [(3, 0), (4, 1)], ["cat", "dog"])
    learned, scored, ear = read(root)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"cat": [1, 3], "dog": [2, 4]}
    assert ear.said("1 of 3 shards of 'train' are missing.")


def test_a_broken_image_of_a_shard_is_named_by_row_and_file(tmp_path: Path) -> None:
    root = tmp_path / "d"
    shard(root / "data" / "train-00000-of-00002.parquet", [(1, 0), (2, 1)], ["cat", "dog"])
    second = shard(root / "data" / "train-00001-of-00002.parquet", [(3, 0), (4, 1)], ["cat", "dog"])
    table = pq.read_table(second)
    cells = table["image"].to_pylist()
    cells[1]["bytes"] = b"broken"
    pq.write_table(table.set_column(0, "image", pa.array(cells, table.schema.field("image").type)), second)
    assert "in row 3 of split 'train' (row 1 of train-00001-of-00002.parquet)" in refused(root).message


@pytest.mark.parametrize(
    ("labels", "label_type", "wanted"),
    [
        ([0.0, 1.0, 0.0, 1.0], pa.float64(), {"0": [1, 3], "1": [2, 4]}),
        ([-1, 1, -1, 1], pa.int64(), {"-1": [1, 3], "1": [2, 4]}),
        ([True, False, True, False], pa.bool_(), {"False": [2, 4], "True": [1, 3]}),
        (["b", "a", "b", "a"], pa.string(), {"a": [2, 4], "b": [1, 3]}),
        ([b"b", b"a", b"b", b"a"], pa.binary(), {"a": [2, 4], "b": [1, 3]}),
        ([[5], [7], [5], [7]], pa.list_(pa.int64()), {"5": [1, 3], "7": [2, 4]}),
        ([["x"], ["y"], ["x"], ["y"]], pa.list_(pa.string()), {"x": [1, 3], "y": [2, 4]}),
        ([3, 200, 3, 200], pa.uint8(), {"3": [1, 3], "200": [2, 4]}),
    ],
)
def test_labels_as_people_have_them(
    tmp_path: Path, labels: list[Any], label_type: Any, wanted: dict[str, list[int]]
) -> None:
    path = shard(tmp_path / "d.parquet", list(zip((1, 2, 3, 4), labels, strict=True)), label_type=label_type)
    assert together(path, label_column="label") == wanted
    if label_type != pa.binary():  # two columns of bytes: which holds the images has to be said
        assert together(path) == wanted


@pytest.mark.parametrize(
    ("labels", "label_type", "said"),
    [
        (
            [0.5, 1.25, 2.0, 0.5],
            pa.float32(),
            "Column 'label' of split 'train' has values that are no classes: 0.5, 1.25 (float)",
        ),
        ([{"a": 1}] * 4, pa.struct({"a": pa.int64()}), "no label column"),
        ([b"\xff\xfe"] * 4, pa.binary(), "are no classes: b'\\xff\\xfe' (bytes)"),
    ],
)
def test_labels_that_cannot_be_classes(tmp_path: Path, labels: list[Any], label_type: Any, said: str) -> None:
    path = shard(tmp_path / "d.parquet", list(zip((1, 2, 3, 4), labels, strict=True)), label_type=label_type)
    error = refused(path, label_column="label") if label_type == pa.binary() else refused(path)
    assert said in error.message
    assert error.hint.startswith(("Make whole numbers or names of them", "Add a column with the class of each image"))


def test_a_label_column_of_another_type_is_refused_with_its_values(tmp_path: Path) -> None:
    boxes = [{"x": 1}, {"x": 2}, {"x": 3}, {"x": 4}]
    path = shard(
        tmp_path / "d.parquet", list(zip((1, 2, 3, 4), boxes, strict=True)), label_type=pa.struct({"x": pa.int64()})
    )
    message = refused(path, label_column="label").message
    assert "Column 'label' does not hold classes but {'x': Value('int64')}" in message
    assert "{'x': 1}, {'x': 2}, {'x': 3}" in message


def test_several_labels_an_image(tmp_path: Path) -> None:
    labels = [["a"], ["b", "a"], ["a"], ["b"], []]
    path = shard(
        tmp_path / "d.parquet", list(zip((1, 2, 3, 4, 5), labels, strict=True)), label_type=pa.list_(pa.string())
    )
    error = refused(path)
    assert (
        "1 of 5 rows of split 'train' have more than one label in column 'label'; the first is row 1" in error.message
    )
    assert "--multi-label first" in error.hint
    assert together(path, multi_label="drop") == {"a": [1, 3], "b": [4]}
    assert "Row 4 of split 'train' has no label" in refused(path, multi_label="first").message


def test_plain_binary_columns_are_images(tmp_path: Path) -> None:
    table = pa.table({"png": pa.array([picture(i) for i in range(4)], pa.binary()), "label": ["a", "b", "a", "b"]})
    pq.write_table(table, tmp_path / "d.parquet")
    assert together(tmp_path / "d.parquet") == {"a": [0, 2], "b": [1, 3]}


def test_save_to_disk(tmp_path: Path) -> None:
    import datasets

    def part(numbers: list[int], names: list[str]) -> Any:
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=names)})
        rows = {"image": [{"bytes": picture(n), "path": None} for n in numbers], "label": [0, 1]}
        return datasets.Dataset.from_dict(rows, features=features)

    both = datasets.DatasetDict({"train": part([1, 2], ["cat", "dog"]), "test": part([3, 4], ["dog", "cat"])})
    both.save_to_disk(tmp_path / "both")
    assert read(tmp_path / "both")[:2] == ({"cat": [1], "dog": [2]}, {"cat": [4], "dog": [3]})
    (tmp_path / "both" / "train" / "cache-0123456789abcdef.arrow").write_bytes(b"left by map()")
    ear = Ear()
    assert used(load(str(tmp_path / "both"), report=ear).train) == {"cat": [1], "dog": [2]}
    assert ear.steps == []  # what `datasets` leaves there is no content
    part([5, 6], ["cat", "dog"]).save_to_disk(tmp_path / "one")
    with pytest.raises(DataError, match="no class has two images"):
        load(str(tmp_path / "one"))


def test_arrow_file(tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([picture(i) for i in range(4)], pa.binary()), "label": [0, 1, 0, 1]})
    with pa.ipc.new_stream(tmp_path / "d.arrow", table.schema) as writer:
        writer.write_table(table)
    assert together(tmp_path / "d.arrow") == {"0": [0, 2], "1": [1, 3]}


def test_a_readme_that_says_where_the_data_is(tmp_path: Path) -> None:
    root = tmp_path / "d"
    shard(root / "a.parquet", [(1, 0), (2, 1)], ["x", "y"])
    shard(root / "b.parquet", [(3, 0), (4, 1)], ["x", "y"])
    files = [{"split": "train", "path": "b.parquet"}, {"split": "test", "path": "a.parquet"}]
    front = json.dumps({"configs": [{"config_name": "default", "data_files": files}]})  # JSON is YAML
    (root / "README.md").write_text(f"---\n{front}\n---\n")
    assert read(root)[:2] == ({"x": [3], "y": [4]}, {"x": [1], "y": [2]})


def test_a_readme_that_names_the_classes(tmp_path: Path) -> None:
    shard(tmp_path / "d" / "train.parquet", [(1, 0), (2, 1), (3, 0), (4, 1)])
    names = {"class_label": {"names": {"0": "cat", "1": "dog"}}}
    features = [{"name": "image", "dtype": "image"}, {"name": "label", "dtype": names}]
    front = json.dumps({"dataset_info": {"features": features}})  # JSON is YAML
    (tmp_path / "d" / "README.md").write_text(f"---\n{front}\n---\n")
    assert together(tmp_path / "d") == {"cat": [1, 3], "dog": [2, 4]}


def test_a_readme_beside_image_folders_is_said_not_to_count(tmp_path: Path) -> None:
    readme = "---\nconfigs:\n- config_name: default\n  data_files: 'test/**'\n---\n"
    learned, scored, ear = read(plant(tmp_path / "d", PETS | {"README.md": readme}))
    assert (learned, scored) == READ
    assert ear.said("`configs` is not followed")


def test_tables_beside_other_files_are_counted(tmp_path: Path) -> None:
    root = tmp_path / "d"
    shard(root / "data" / "train-0.parquet", [(1, 0), (2, 1)], ["x", "y"])
    shard(root / "data" / "test-0.parquet", [(3, 0), (4, 1)], ["x", "y"])
    plant(root, {"README.md": "# D", "extra/9.png": 9})
    assert read(root)[2].said("1 file skipped: 1 .png.")


def test_a_csv_of_pixels_is_refused(tmp_path: Path) -> None:
    header = "label," + ",".join(f"pixel{i}" for i in range(64))
    root = plant(tmp_path / "d", {"train.csv": lines(header, "1," + ",".join("0" * 64), "2," + ",".join("1" * 64))})
    assert "holds pixels in 65 columns" in refused(root).message
    assert "holds pixels" in refused(root / "train.csv").message


def test_json_lines_with_other_kinds_of_labels(tmp_path: Path) -> None:
    rows = [{"file": f"a{i}.png", "label": [7] if i % 2 else ["7"]} for i in (1, 2, 3, 4)]
    root = plant(tmp_path / "d", FOUR | {"metadata.jsonl": lines(*map(json.dumps, rows))})
    assert {tuple(v) for v in together(root).values()} == {(1, 3), (2, 4)}


def test_a_grey_png_in_a_table_of_colour(tmp_path: Path) -> None:
    tree: Tree = {
        "images/0.png": encoded(Image.new("RGB", (8, 8), (10, 20, 30))),
        "images/1.png": 1,
        "images/2.png": 2,
        "images/3.png": 3,
    }
    tree["train.csv"] = lines("id,label", "0,a", "1,a", "2,b", "3,b")
    target = load(str(plant(tmp_path / "d", tree)))
    assert target.train.shape == (3, 8, 8)
