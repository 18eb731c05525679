"""The reading options, shared by every command that opens a dataset, and what `info` says of one."""

import json
import shutil
from pathlib import Path

import pages
import pytest
import tiny
from image_trees import encoded, pattern, plant
from tiny import ddtool, done, refused

COMMANDS = ("adapt", "pretrain", "compare", "evaluate", "info")


@pytest.fixture
def deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Classes two folders deep, two broken images, a caption."""
    monkeypatch.chdir(tmp_path)
    tiny.shorten_protocols(monkeypatch)
    folder = tiny.image_folder(tmp_path / "flat")
    for split in ("train", "test"):
        (tmp_path / "deep" / split).mkdir(parents=True)
        shutil.move(folder / split, tmp_path / "deep" / split / "clothes")
    plant(
        tmp_path / "deep",
        {"train/clothes/boot/empty.png": b"", "test/clothes/coat/cut.png": pattern(1).tobytes(), "a.txt": "x"},
    )
    return tmp_path / "deep"


READ = ["--class-level", "2", "--skip-broken", "2"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_that_opens_data_takes_the_same_options(command: str) -> None:
    from ddtool.cli.options import READING

    taken = {option for parameter in pages.GROUP.commands[command].params for option in parameter.opts}
    assert {"--" + option.name.replace("_", "-") for option in READING} <= taken


def test_a_run_keeps_how_its_data_was_read_and_what_was_set_aside(deep: Path) -> None:
    done("adapt", "./deep", "--ipc", 2, "--out", "run", "--protocol", "quick", "--eval-seeds", 1, *READ, *tiny.OPTIONS)
    broken = [json.loads(line) for line in Path("run/skipped.jsonl").read_text().splitlines()]
    assert [(image["split"], image["image"]) for image in broken] == [
        ("train", "'train/clothes/boot/empty.png'"), ("test", "'test/clothes/coat/cut.png'"),
    ]  # fmt: skip
    for what in ("run", "run/synthetic/ipc2"):  # the set alone says how to read the data that it is tested on
        done("evaluate", what, "--protocol", "quick", "--eval-seeds", 1)
    assert "class_level" in refused(2, "evaluate", "run/synthetic/ipc2", "--class-level", 99)


def test_another_dataset_to_test_on_is_read_by_the_options(deep: Path) -> None:
    done(
        "adapt",
        "./deep",
        "--ipc",
        2,
        "--out",
        "run",
        "--method",
        "random",
        "--protocol",
        "quick",
        "--eval-seeds",
        1,
        *READ,
    )
    shutil.copytree("deep", "other")
    failed = ddtool("evaluate", "run", "--on", "./other", "--protocol", "quick", "--eval-seeds", 1)
    assert failed.exit_code == 1
    assert "--class-level" in failed.stderr
    done("evaluate", "run", "--on", "./other", "--protocol", "quick", "--eval-seeds", 1, *READ)


def test_info_says_what_was_found_used_and_skipped(deep: Path) -> None:
    told = json.loads(done("info", "./deep", "--json", *READ).stdout)
    assert (told["train images"], told["test images"], told["classes"]) == (24, 12, 3)
    assert told["files skipped"] == {".txt": 1}
    assert told["broken images set aside"] == 2
    said = done("info", "./deep", *READ).stderr
    assert "1 file skipped: 1 .txt." in said
    assert "2 broken images are set aside" in said
    assert "ddtool adapt ./deep --class-level 2 --skip-broken 2 --ipc 8" in said
    failed = ddtool("info", "./deep")
    assert failed.exit_code == 1
    assert "  clothes/\n    boot/ (9 images)" in failed.stderr.replace("\r", "")
    assert failed.stderr.splitlines()[-1].startswith("Hint: Say how deep the classes are: --class-level 2")


def test_info_lists_the_sizes_of_a_mixed_folder(tmp_path: Path) -> None:
    tree = {f"{c}/{i}.png": encoded(pattern(i).repeat(1 + i % 2, 1)) for i, c in enumerate("aaabb")}
    root = plant(tmp_path / "d", tree)
    result = done("info", root)
    assert "3 of 8x8, 2 of 16x8" in result.stdout
    assert "--resolution 32" in result.stderr
    assert json.loads(done("info", root, "--json").stdout)["sizes"] == {"8x8": 3, "16x8": 2}
    assert json.loads(done("info", root, "--json", "--resolution", 8).stdout)["image"] == "1x8x8"


@pytest.mark.parametrize("share", ["x", "-1", "1.5", "100%", "-3%", "inf"])
def test_a_share_that_is_none(share: str, tmp_path: Path) -> None:
    assert "a number or a percentage" in refused(2, "info", "sample", f"--skip-broken={share}")
