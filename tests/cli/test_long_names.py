"""Class names of any length: cut where people read them, whole in every file."""

import re
from pathlib import Path

import pytest
import tiny
from datasets import ClassLabel, load_dataset
from image_trees import plant
from tiny import done, refused

from ddtool.runs.run import Run
from ddtool.sharing import cards
from ddtool.sharing.describe import describe_run
from ddtool.sharing.facts import ADAPTED

NAMES = tuple(f"{letter} {'x' * 400} the end" for letter in "abc")
READ = re.compile("x{80}")
"""What nobody should have to read."""


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Six images of each of three classes, named by a table."""
    rows = [f"{i}.png,{NAMES[i % 3]}" for i in range(18)]
    files: dict[str, str | int | bytes] = {f"images/{i}.png": i for i in range(18)}
    return plant(tmp_path / "data", files | {"train.csv": "\n".join(["file,label", *rows])})


def test_long_class_names_are_cut_in_the_terminal_and_on_cards_and_whole_in_files(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shorten_protocols(monkeypatch)
    run = Run(tmp_path / "run")
    steps = ["--ipc", 2, *tiny.OPTIONS, "--protocol", "quick", "--eval-seeds", 1]
    said = [done("info", data), done("adapt", data, *steps, "--out", run.folder), done("info", run.folder)]
    facts = describe_run(run, 0)
    seen = [one.output for one in said] + [cards.card(facts), cards.card(facts.model_copy(update={"kind": ADAPTED}))]
    seen = [re.sub(r"\s", "", text) for text in seen]
    assert not any(READ.search(text) for text in seen)
    assert all("axxx" in text for text in (seen[0], *seen[3:]))
    assert all("**Classes:**3" in text for text in seen[3:])

    assert run.load_set(2).class_names == NAMES
    assert facts.class_names == NAMES
    rows = load_dataset("parquet", data_files=str(run.folder / "synthetic/ipc2/train.parquet"), split="train")
    assert isinstance(rows.features["label"], ClassLabel)
    assert tuple(rows.features["label"].names) == NAMES


def test_errors_cut_long_class_names(data: Path, tmp_path: Path) -> None:
    other = plant(tmp_path / "other", {f"{c}/{i}.png": i for c in "de" for i in range(4)})
    messages = [refused(2, "adapt", data, "--ipc", 9, *tiny.OPTIONS)]
    done("adapt", data, "--method", "random", "--ipc", 1, "--no-evaluate", "--out", tmp_path / "run")
    messages.append(refused(2, "evaluate", tmp_path / "run", "--on", other))
    for text in messages:
        assert "xxx" in text
        assert not READ.search(re.sub(r"\s", "", text))
