"""Folders of images: what is a split, what a class, and that nothing vanishes unsaid."""

import os
import shutil
import sys
import time
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_trees import Ear, encoded, pattern, picture, plant, used
from PIL import Image

from ddtool.errors import DataError
from ddtool.events import silent
from ddtool.sources import files
from ddtool.sources.load import DataOptions, Target, inspect, load

Tree = dict[str, bytes | str | int]

SIMPLE: Tree = {
    "train/cat/1.png": 1, "train/cat/2.png": 2, "train/dog/3.png": 3, "train/dog/4.png": 4,
    "test/cat/5.png": 5, "test/dog/6.png": 6,
}  # fmt: skip


def read(root: Path, **options: object) -> tuple[dict[str, list[int]], dict[str, list[int]], Ear]:
    """(what is trained on, what is scored on, what was said)."""
    ear = Ear()
    target: Target = load(str(root), DataOptions(**options), report=ear)  # type: ignore[arg-type]
    return used(target.train), used(target.test()), ear


def refused(root: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        load(str(root), DataOptions(**options))  # type: ignore[arg-type]
    return caught.value


# --- splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"), ("Train", "TEST"), ("training", "testing"), ("TRAINING", "val"), ("train", "Valid"),
        ("train", "validation"), ("train", "dev"), ("train", "eval"), ("train", "holdout"),
    ],
)  # fmt: skip
def test_splits_are_whole_names_of_folders(tmp_path: Path, train: str, test: str) -> None:
    root = plant(
        tmp_path / "d", {k.replace("train/", train + "/").replace("test/", test + "/"): v for k, v in SIMPLE.items()}
    )
    learned, scored, _ = read(root)
    assert learned == {"cat": [1, 2], "dog": [3, 4]}
    assert scored == {"cat": [5], "dog": [6]}


def test_validation_is_never_trained_on_and_gives_way_to_test(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", SIMPLE | {"val/cat/7.png": 7, "val/dog/8.png": 8})
    learned, scored, ear = read(root)
    assert learned == {"cat": [1, 2], "dog": [3, 4]}
    assert scored == {"cat": [5], "dog": [6]}
    assert ear.said("Not used: split val.")
    assert read(root, test_split="val")[1] == {"cat": [7], "dog": [8]}
    assert read(root, train_split="VAL")[0] == {"cat": [7], "dog": [8]}


@pytest.mark.parametrize("name", ["test", "val"])
def test_a_lone_test_split_is_not_trained_on(tmp_path: Path, name: str) -> None:
    root = plant(
        tmp_path / "d", {f"{name}/cat/{i}.png": i for i in range(4)} | {f"{name}/dog/{i}.png": i for i in (4, 5)}
    )
    error = refused(root)
    assert "no split 'train'" in error.message
    assert "--train-split" in error.hint
    learned, scored, _ = read(root, train_split=name)
    assert sorted(learned["cat"] + scored["cat"]) == [0, 1, 2, 3]


def test_split_words_elsewhere_mean_nothing(tmp_path: Path) -> None:
    tree: Tree = {
        "bus_train/train_0001.png": 1, "bus_train/test_2.png": 2, "testimony/val.png": 3, "testimony/4.png": 4,
        "eval2/train.png": 5, "eval2/6.png": 6,
    }  # fmt: skip
    learned, scored, ear = read(plant(tmp_path / "test" / "train_set", tree))  # the words in the path to it, too
    together = {name: sorted(learned[name] + scored[name]) for name in learned}
    assert together == {"bus_train": [1, 2], "eval2": [5, 6], "testimony": [3, 4]}
    assert ear.said("held out")


def test_classes_may_be_called_train_and_test(tmp_path: Path) -> None:
    tree: Tree = {f"train/{name}/{i}.png": i for i, name in enumerate(["train", "test", "val", "train", "test", "val"])}
    tree |= {"test/train/6.png": 6, "test/test/7.png": 7, "test/val/8.png": 8}
    learned, scored, _ = read(plant(tmp_path / "d", tree))
    assert learned == {"train": [0, 3], "test": [1, 4], "val": [2, 5]}
    assert scored == {"train": [6], "test": [7], "val": [8]}


def test_splits_beside_other_folders_are_an_error_that_shows_the_tree(tmp_path: Path) -> None:
    tree: Tree = {f"{name}/{i}.png": 4 * k + i for k, name in enumerate(["bus", "car", "train"]) for i in range(4)}
    root = plant(tmp_path / "vehicles", tree)
    error = refused(root)
    assert "vehicles/\n  bus/ (4 images)\n  car/ (4 images)\n  train/ (4 images)" in error.message
    assert "--no-splits" in error.hint
    learned, scored, _ = read(root, no_splits=True)
    assert {name: sorted(learned[name] + scored[name]) for name in learned} == {
        "bus": [0, 1, 2, 3], "car": [4, 5, 6, 7], "train": [8, 9, 10, 11],
    }  # fmt: skip


def test_a_user_may_name_the_splits(tmp_path: Path) -> None:
    tree = {k.replace("train/", "Photos 2024/").replace("test/", "new/"): v for k, v in SIMPLE.items()}
    root = plant(tmp_path / "d", tree | {"old/cat/9.png": 9})
    learned, scored, ear = read(root, train_split="photos 2024", test_split="new")
    assert (learned, scored) == ({"cat": [1, 2], "dog": [3, 4]}, {"cat": [5], "dog": [6]})
    assert ear.said("1 file skipped: 1 image outside any class.")


def test_splits_that_differ_in_case_only(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", SIMPLE | {"Train/cat/9.png": 9})
    if len(list(root.iterdir())) == 3:  # not where names are the same in both cases
        assert "differ in case only" in refused(root).message


# --- classes --------------------------------------------------------------------------------------------------------


def test_no_split_folders(tmp_path: Path) -> None:
    root = plant(
        tmp_path / "d", {f"{name}/{i}.png": 10 * k + i for k, name in enumerate(["b", "a"]) for i in range(10)}
    )
    learned, scored, ear = read(root)
    assert list(learned) == ["a", "b"]
    assert sorted(learned["b"] + scored["b"]) == list(range(10))
    assert len(scored["a"]) == len(scored["b"]) == 1
    assert "a single image" not in " ".join(ear.notes)


def test_a_class_of_one_image_is_said_not_to_be_held_out(tmp_path: Path) -> None:
    pictures = {f"{name}/{i}.png": 10 * k + i for k, name in enumerate(["a", "b"]) for i in range(4)}
    _, scored, ear = read(plant(tmp_path / "d", pictures | {"c/0.png": 30}))
    assert scored["c"] == []
    assert "1 class has a single image, which is not held out: 'c'." in ear.notes


def test_deeper_folders_are_an_error_with_a_way_out(tmp_path: Path) -> None:
    tree: Tree = {
        f"{a}/{b}/{k}{i}.png": 10 * k + i
        for k, (a, b) in enumerate([("x", "cat"), ("x", "dog"), ("y", "fish")])
        for i in range(3)
    }
    root = plant(tmp_path / "d", tree)
    error = refused(root)
    assert "'x/cat' lies deeper than the classes" in error.message
    assert "  x/\n    cat/ (3 images)\n    dog/ (3 images)\n  y/" in error.message
    assert "--class-level 2" in error.hint
    learned, scored, _ = read(root, class_level=2)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {
        "cat": [0, 1, 2],
        "dog": [10, 11, 12],
        "fish": [20, 21, 22],
    }
    learned, scored, _ = read(root, class_level=1)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"x": [0, 1, 2, 10, 11, 12], "y": [20, 21, 22]}


def test_batches_below_a_class_are_one_class(tmp_path: Path) -> None:
    tree: Tree = {
        "train/cat/batch1/1.png": 1,
        "train/cat/batch_2/2.png": 2,
        "train/dog/images/3.png": 3,
        "train/dog/4.png": 4,
    }
    root = plant(tmp_path / "d", tree | {"test/cat/5.png": 5, "test/dog/6.png": 6})
    learned, scored, _ = read(root)
    assert learned == {"cat": [1, 2], "dog": [4, 3]} or learned == {"cat": [1, 2], "dog": [3, 4]}
    assert scored == {"cat": [5], "dog": [6]}


def test_folds_above_the_classes_are_taken_together_and_said(tmp_path: Path) -> None:
    tree: Tree = {
        f"fold{k}/{name}/{i}.png": i for i, (k, name) in enumerate([(1, "cat"), (1, "dog"), (2, "cat"), (2, "dog")])
    }
    learned, scored, ear = read(plant(tmp_path / "d", tree), class_level=2)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"cat": [0, 2], "dog": [1, 3]}
    assert ear.said("Folders in several places are taken together for 2 classes: 'cat', 'dog'.")


def test_an_empty_class_is_an_error(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", SIMPLE | {"train/fish/notes.txt": "none yet"})
    assert "1 class folder has no image in 'train': 'fish'. In it: 1 .txt." in refused(root).message
    (root / "train" / "fish" / "notes.txt").unlink()
    assert "1 class folder has no image in 'train': 'fish'." in refused(root).message


def test_a_class_in_one_split_only_is_said(tmp_path: Path) -> None:
    learned, scored, ear = read(plant(tmp_path / "d", SIMPLE | {"train/fish/7.png": 7, "test/bird/8.png": 8}))
    assert learned == {"cat": [1, 2], "dog": [3, 4], "fish": [7]}
    assert scored == {"cat": [5], "dog": [6], "fish": []}
    assert ear.said("1 of 3 classes have no image in split 'test': 'fish'.")
    assert ear.said("1 image of split 'test' is of classes that are not to learn: 'bird'.")


def test_class_names_of_any_length_and_script(tmp_path: Path) -> None:
    names = ["Ж" * 120, "猫", "a" * 200 + "b", "a" * 200 + "c", "می‌روم", "5", "007", "7"]
    tree: Tree = {f"{name}/{i}{j}.png": 10 * i + j for i, name in enumerate(names) for j in range(2)}
    learned, scored, _ = read(plant(tmp_path / "d", tree))
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {
        n: [10 * i, 10 * i + 1] for i, n in enumerate(names)
    }


def test_names_in_two_normal_forms_are_one_class(tmp_path: Path) -> None:
    composed, apart = "caf\u00e9", "cafe\u0301"
    tree: Tree = {f"train/{composed}/1.png": 1, "train/x/2.png": 2, f"test/{apart}/3.png": 3, "test/x/4.png": 4}
    assert read(plant(tmp_path / "d", tree))[:2] == ({composed: [1], "x": [2]}, {composed: [3], "x": [4]})


def test_images_without_folders(tmp_path: Path) -> None:
    error = refused(plant(tmp_path / "d", {"1.png": 1, "2.png": 2}))
    assert "not in folders by class" in error.message
    assert "a folder of its own" in error.hint
    error = refused(plant(tmp_path / "e", {"cat/1.png": 1, "cat/2.png": 2}))
    assert "has 1 class" in error.message


def test_a_folder_around_the_dataset(tmp_path: Path) -> None:
    learned, scored, ear = read(plant(tmp_path / "d", {f"pets/{k}": v for k, v in SIMPLE.items()}))
    assert (learned, scored) == ({"cat": [1, 2], "dog": [3, 4]}, {"cat": [5], "dog": [6]})
    assert ear.said("The dataset is in the folder 'pets'.")


def test_a_test_folder_without_labels(tmp_path: Path) -> None:
    tree: Tree = {f"train/{name}/{i}.png": 20 * k + i for k, name in enumerate(["cat", "dog"]) for i in range(10)}
    for inside in ("", "unknown/"):
        root = plant(tmp_path / f"d{len(inside)}", tree | {f"test/{inside}{i}.png": 100 + i for i in range(3)})
        learned, scored, ear = read(root)
        assert [len(learned["cat"]), len(scored["cat"])] == [9, 1]
        assert sorted(learned["cat"] + scored["cat"]) == list(range(10))
        assert ear.said("Split 'test' has no labels and is left out.")
        assert ear.said("held out")


def test_a_test_folder_of_other_classes(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", {"train/a/1.png": 1, "train/b/2.png": 2, "test/x/3.png": 3, "test/y/4.png": 4})
    assert "none of those to learn ('a', 'b')" in refused(root).message


@pytest.mark.parametrize(
    "tree",
    [
        {"images/1.png": 1, "masks/1.png": 2},
        {"train/images/1.png": 1, "train/labels/1.txt": "0 0.5 0.5 1 1"},
        {"cat/images/1.png": 1, "cat/masks/1.png": 2, "dog/images/3.png": 3},
        {"benign/benign (1).png": 1, "benign/benign (1)_mask.png": 2, "normal/n.png": 3, "normal/n_mask.png": 4},
    ],
)
def test_masks_are_refused_with_the_tree(tmp_path: Path, tree: Tree) -> None:
    error = refused(plant(tmp_path / "d", tree))
    assert "masks or annotations beside the images" in error.message
    assert "\n  " in error.message


# --- links ----------------------------------------------------------------------------------------------------------


def test_links_are_followed(tmp_path: Path) -> None:
    far = plant(tmp_path / "far", {"a/1.png": 1, "a/2.png": 2, "3.png": 3})
    root = plant(tmp_path / "d", {"dog/4.png": 4, "dog/5.png": 5})
    (root / "cat").symlink_to(far / "a")
    (root / "cow").mkdir()
    (root / "cow" / "3.png").symlink_to(far / "3.png")
    (root / "cow" / "6.png").symlink_to(far / "nothing.png")
    learned, scored, ear = read(root)
    assert {n: sorted(learned[n] + scored[n]) for n in learned} == {"cat": [1, 2], "cow": [3], "dog": [4, 5]}
    assert ear.said("1 broken links")
    plant(far, {"a/7.png": 7})  # what a link leads to is part of the content
    learned, scored, _ = read(root)
    assert sorted(learned["cat"] + scored["cat"]) == [1, 2, 7]


def test_what_is_counted_is_part_of_the_content(tmp_path: Path) -> None:
    """Else a cached entry would tell an old number."""
    root = plant(tmp_path / "d", SIMPLE)
    seen = [load(str(root)).skipped]
    for change in (
        lambda: plant(root, {"Thumbs.db": "x"}), (root / ".mine").mkdir, lambda: (root / "no").symlink_to("nothing"),
        lambda: plant(root, {"notes": "x"}), lambda: plant(root, {".git/x": "x", ".cache/huggingface/y": "x"}),
    ):  # fmt: skip
        change()
        seen.append(load(str(root)).skipped)
    assert [sum(skipped.values()) for skipped in seen] == [0, 1, 2, 3, 4, 4]


def test_a_loop_of_links_is_an_error(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", SIMPLE)
    (root / "train" / "cat" / "up").symlink_to(root / "train")
    assert "leads back to a folder that it is in" in refused(root).message


def test_what_is_neither_file_nor_folder_is_not_opened(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", SIMPLE)
    os.mkfifo(root / "train" / "cat" / "pipe.png")
    assert read(root)[2].said("1 neither file nor folder")


# --- nothing vanishes -----------------------------------------------------------------------------------------------


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    tree: Tree = {
        ".DS_Store": "x", "train/cat/.1.png.part": "x", "train/cat/Thumbs.db": "x", "README.md": "# D",
        "train/cat/1.txt": "a caption", "train/dog/3.TXT": "another", "train/dog/raw": "text", "train/loose.png": 9,
        "train/dog/photo.svg": "<svg/>",
    }  # fmt: skip
    root = plant(tmp_path / "d", SIMPLE | tree)
    learned, _, ear = read(root)
    assert learned == {"cat": [1, 2], "dog": [3, 4]}
    assert ear.said("9 files skipped: 3 hidden, 2 .txt, 1 .md, 1 .svg, 1 image outside any class, 1 without an ending.")
    again = Ear()
    assert load(str(root), report=again).skipped == {
        "hidden": 3, ".txt": 2, ".md": 1, ".svg": 1, "image outside any class": 1, "without an ending": 1,
    }  # fmt: skip
    assert again.notes == ear.notes  # from the cache as well


def test_formats_are_told_by_content(tmp_path: Path) -> None:
    tree: Tree = {
        "a/1.Png": 1, "a/2.JPG": picture(2), "a/3": picture(3), "a/4.webp": picture(4, "WEBP"), "a/5.tiff": picture(5, "TIFF"),
        "a/6.dat": picture(6, "BMP"), "b/7.tga": picture(7, "TGA"), "b/8.gif": picture(8, "GIF"), "b/9.jp2": picture(9, "JPEG2000"),
        "b/10.pgm": picture(10, "PPM"), "b/11": picture(11, "TGA"), "b/12.jpeg": picture(12, "BMP"),
    }  # fmt: skip
    learned, scored, ear = read(plant(tmp_path / "d", tree))
    assert sorted(learned["a"] + scored["a"]) == [1, 2, 3, 4, 5, 6]
    assert sorted(learned["b"] + scored["b"]) == [7, 8, 9, 10, 11, 12]
    assert not ear.said("skipped")


def test_avif(tmp_path: Path) -> None:
    from PIL import features

    if not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    root = plant(
        tmp_path / "d", {f"{c}/{i}.avif": encoded(pattern(i), kind="AVIF", quality=100) for i, c in enumerate("aabb")}
    )
    target = load(str(root))
    first = np.asarray(Image.open(root / "a" / "0.avif"))
    rows = np.concatenate([target.train.images.numpy(), target.test().images.numpy()])
    assert any(np.array_equal(row.transpose(1, 2, 0).squeeze(), first.squeeze()) for row in rows)


HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40)


def test_heic_without_its_package_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "heif_is_here", lambda: False)
    root = plant(tmp_path / "d", SIMPLE | {f"train/cat/{i}.heic": HEIC for i in range(9)} | {".hidden": "x"})
    learned, _, ear = read(root)
    assert learned == {"cat": [1, 2], "dog": [3, 4]}
    assert ear.said("10 files skipped: 9 .heic (needs pillow-heif), 1 hidden.")
    shutil.rmtree(root / "train" / "dog")
    plant(root, {"train/dog/1.heic": HEIC})
    error = refused(root)
    assert "pip install pillow-heif" in error.hint


def test_heic_with_its_package(tmp_path: Path) -> None:
    heif = pytest.importorskip("pillow_heif", reason="the extra for HEIC is not installed")
    heif.register_heif_opener()
    tree: Tree = {
        f"{c}/{i}.heic": encoded(Image.new("RGB", (16, 16), (40 * i, 9, 9)), kind="HEIF", quality=-1)
        for i, c in enumerate("aabb")
    }
    target = load(str(plant(tmp_path / "d", tree)))
    rows = np.concatenate([target.train.images.numpy(), target.test().images.numpy()])
    assert sorted(int(row[0, 8, 8]) for row in rows) == pytest.approx([0, 40, 80, 120], abs=2)


def test_an_image_that_cannot_be_decoded_is_not_left_out(tmp_path: Path) -> None:
    root = plant(tmp_path / "d", SIMPLE | {"train/cat/9.jpg": "no picture at all"})
    error = refused(root)
    assert "'train/cat/9.jpg' cannot be decoded (not a picture in a known format)" in error.message


def test_sizes_of_a_mixed_folder_are_listed(tmp_path: Path) -> None:
    tree: Tree = {f"{c}/{i}.png": encoded(pattern(i).repeat(1 + i % 2, 1)) for i, c in enumerate("aaabb")}
    turned = Image.Exif()
    turned[0x0112] = 6
    tree["b/t.jpg"] = encoded(Image.new("L", (40, 10)), kind="JPEG", exif=turned)
    root = plant(tmp_path / "d", tree)
    assert "--resolution" in refused(root).hint
    look = inspect(str(root), sizes=True)
    assert look.sizes == {(8, 8): 3, (16, 8): 2, (10, 40): 1}
    assert (look.images, look.classes, look.cached) == (6, 2, False)


# --- duplicates -----------------------------------------------------------------------------------------------------


def test_images_in_both_splits_are_said_and_strict_refuses_them(tmp_path: Path) -> None:
    tree = SIMPLE | {"test/cat/copy.webp": picture(1, "WEBP"), "test/dog/copy.bmp": picture(4, "BMP")}
    root = plant(tmp_path / "d", tree)
    for _ in range(2):  # decoded, then from the cache
        assert read(root)[2].said("2 images of the test part are also in the training part, pixel for pixel.")
        assert "2 images of the test part" in refused(root, strict=True).message
    read(plant(tmp_path / "e", SIMPLE), strict=True)


# --- random trees against a plain walk ------------------------------------------------------------------------------

SPLITS = ["train", "Training", "test", "TEST", "val", "holdout"]
CLASSES = ["cat", "train", "test_dog", "bus_train", "VAL", "été", "eval.2", "x y"]
NAMES = ["1", "train_1", "test", "val-2", "img.test.3"]
ENDINGS = [".png", ".PNG", ".Jpg", "", ".tiff", ".dat"]
JUNK = ["notes.txt", ".hidden.png", "labels.xml", "Thumbs.db"]

images = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(ENDINGS), st.sampled_from(["", "batch1/", "part 2/"])),
    min_size=1,
    max_size=4,
    unique=True,
)
classes = st.dictionaries(st.sampled_from(CLASSES), images, min_size=2, max_size=4)
splits = st.dictionaries(st.sampled_from(SPLITS), classes, min_size=1, max_size=3)
extras = st.lists(st.tuples(st.sampled_from(JUNK), st.integers(0, 9)), max_size=4)


def walked(root: Path) -> dict[str, list[tuple[str, str]]]:
    """What a folder of splits holds by the rules of docs/datasets.md, found plainly: split → (class, file) of images."""
    found: dict[str, list[tuple[str, str]]] = {}
    for folder, _, names in os.walk(root, followlinks=True):
        for name in names:
            parts = PurePosixPath(os.path.relpath(os.path.join(folder, name), root)).parts
            if not name.startswith(".") and Path(folder, name).read_bytes()[:4] == b"\x89PNG":
                found.setdefault(parts[0].lower(), []).append((parts[1], "/".join(parts)))
    return found


@settings(max_examples=40)
@given(splits, extras, st.booleans(), st.data())
def test_random_trees_are_read_as_a_plain_walk_finds_them(tmp_path_factory, tree, junk, link, data) -> None:  # type: ignore[no-untyped-def]
    check_tree(tmp_path_factory, tree, junk, link, data)


@pytest.mark.slow
@settings(max_examples=600)
@given(splits, extras, st.booleans(), st.data())
def test_many_random_trees_are_read_as_a_plain_walk_finds_them(tmp_path_factory, tree, junk, link, data) -> None:  # type: ignore[no-untyped-def]
    check_tree(tmp_path_factory, tree, junk, link, data)


@pytest.mark.slow
def test_a_large_tree_is_read_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """100 classes of 500 images, in two splits, with a caption beside every tenth."""
    raws, started = [picture(i) for i in range(200)], time.process_time()
    for c in range(100):
        for split, count in (("train", 400), ("test", 100)):
            (folder := tmp_path / "d" / split / f"class{c:03}").mkdir(parents=True)
            for i in range(count):
                (folder / f"train_{i}.png").write_bytes(raws[(c + i) % 200])
                if i % 10 == 0:
                    (folder / f"{i}.txt").touch()
    planted = time.process_time()
    target = load(str(tmp_path / "d"))
    with capsys.disabled():
        times = f"written in {planted - started:.0f}, read in {time.process_time() - planted:.0f} CPU seconds"
        sys.stdout.write(f"\n50,000 images {times}\n")
    assert (len(target.train), target.test_size, target.skipped) == (40_000, 10_000, {".txt": 5000})
    assert target.train.class_counts().tolist() == [400] * 100
    for c in (0, 57, 99):
        rows = target.train.images[target.train.labels == c]
        assert sorted(map(bytes, rows.numpy())) == sorted(pattern((c + i) % 200).tobytes() for i in range(400))


def check_tree(tmp_path_factory, tree, junk, link, data) -> None:  # type: ignore[no-untyped-def]
    """Plant a random tree, read it, and compare with what a plain walk finds."""
    root, number = tmp_path_factory.mktemp("tree"), 0
    for inside in {name.lower(): name for name in tree}.values():
        for label, names in tree[inside].items():
            for name, ending, batch in names:
                plant(root, {f"{inside}/{label}/{batch}{name}{ending}": number})
                number += 1
    places = sorted(path for path in root.rglob("*") if path.is_dir() and path.parent != root)
    for name, where in junk:
        plant(places[where % len(places)], {name: "junk"})
    if link:  # one class lies elsewhere
        moved = data.draw(st.sampled_from(sorted(root.glob("*/*"))))
        elsewhere = tmp_path_factory.mktemp("far") / "class"
        shutil.move(moved, elsewhere)
        moved.symlink_to(elsewhere)
    found = walked(root)
    trains = [name for name in found if name in ("train", "training")]
    options = {}
    if "train" not in trains and len(trains) != 1:
        refused(root)
        options = {"train_split": sorted(found)[0]}
    train = options.get("train_split") or ("train" if "train" in trains else trains[0])
    tests = [name for name in ("test", "holdout", "val") if name in found and name != train]
    known = sorted({label for label, _ in found[train]})
    tests = [name for name in tests if {label for label, _ in found[name]} & set(known)]
    if any(not {label for label, _ in found[name]} & set(known) for name in found if name != train):
        return  # a split of none of the classes: refused or without labels, tested above
    if not tests and len(known) == len(found[train]):
        assert "no class has two images" in refused(root, **options).message
        return
    target = load(str(root), DataOptions(**options))
    by_pixels = {pattern(i).tobytes(): i for i in range(number)}
    where = {
        path: by_pixels[np.asarray(Image.open(root / path)).tobytes()]
        for files_ in found.values()
        for _, path in files_
    }
    wanted = {name: sorted(where[path] for label, path in found[train] if label == name) for name in known}
    learned, scored = used(target.train), used(target.test())
    if tests:
        assert {name: sorted(rows) for name, rows in learned.items()} == wanted
        assert {name: sorted(rows) for name, rows in scored.items()} == {
            name: sorted(where[path] for label, path in found[tests[0]] if label == name) for name in known
        }
    else:
        assert {name: sorted(learned[name] + scored[name]) for name in known} == wanted
    visible = sum(1 for folder, _, names in os.walk(root, followlinks=True) for _ in names)
    of_known = sum(label in known for inside in found.values() for label, _ in inside)
    assert visible == of_known + sum(target.skipped.values())


def test_the_content_hash_is_of_names_and_bytes_and_not_of_the_place(tmp_path: Path) -> None:
    def hashed(**given: bytes) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for name, data in given.items():
            place = folder.joinpath(*name.split("__"))
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
        return files.content_hash(folder, silent)

    first = hashed(a__x=b"1", a__y=b"2")
    assert hashed(a__x=b"1", a__y=b"2") == first
    others = [
        hashed(a__x=b"2", a__y=b"1"), hashed(b__x=b"1", b__y=b"2"), hashed(a__x=b"1", a__z=b"2"), hashed(a__x=b"1"),
        hashed(a__x=b"1", b__y=b"2"), hashed(a__x=b"12", a__y=b""), hashed(a__x=b"1", a__y=b"2", a__z=b""),
    ]  # fmt: skip
    assert len({first, *others}) == 8


def test_listing_and_looking_at_a_folder_say_how_far_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, ear = plant(tmp_path / "d", SIMPLE | {"test/cat/notes.txt": "of a cat"}), Ear()
    monkeypatch.setattr(files, "EVERY", 2)
    outlook = inspect(str(root), sizes=True, report=ear)
    assert outlook.sizes == {pattern(0).shape[:2]: 6}
    steps = {
        phase: [(s.step, s.total) for s in ear.steps if s.phase == phase] for phase in {s.phase for s in ear.steps}
    }
    assert steps["read files"] == steps["look at files"] == [(2, 7), (4, 7), (6, 7)]
    assert steps["read sizes"] == [(2, 6), (4, 6), (6, 6)]
    listed = steps["list files"]  # twice, for the content hash and for the reading: folders listed of those known
    assert listed[0] == (0, 3)
    assert len(listed) == 2 * 6
    assert listed[:6] == listed[6:]
    assert all(done < known <= 7 for done, known in listed)


def test_every_file_is_opened_once_to_tell_whether_it_is_an_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, opened = plant(tmp_path / "d", SIMPLE | {"test/cat/notes.txt": "of a cat"}), list[str]()
    true = files._left_out_as
    monkeypatch.setattr(files, "_left_out_as", lambda path, name: (opened.append(name), true(path, name))[1])
    read(root)
    assert sorted(opened) == ["1.png", "2.png", "3.png", "4.png", "5.png", "6.png", "notes.txt"]
