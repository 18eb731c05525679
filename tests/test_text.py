"""Words for numbers of things, and the names that people read in place of those of files."""

import pytest

from ddtool.evaluation.protocols import AS_STATED, EXACT, NOT_WHITENED, ROUNDED, Score
from ddtool.runs import words
from ddtool.text import count, dataset_name, is_or_are


@pytest.mark.parametrize(
    ("number", "thing", "text"),
    [(0, "job", "0 jobs"), (1, "job", "1 job"), (2, "class", "2 classes"), (1, "class", "1 class"),
     (1234, "test image", "1,234 test images")],
)  # fmt: skip
def test_a_number_of_things(number: int, thing: str, text: str) -> None:
    assert count(number, thing) == text


def test_the_verb_after_a_number() -> None:
    assert [is_or_are(number) for number in (0, 1, 2)] == ["are", "is", "are"]


@pytest.mark.parametrize(
    ("dataset", "name"),
    [("cifar10", "cifar10"), ("some/toy@v1", "some/toy@v1"), ("/home/me/photos", "photos"), ("./photos/", "photos"),
     ("~/photos.zip", "photos.zip")],
)  # fmt: skip
def test_a_dataset_is_shown_without_its_place(dataset: str, name: str) -> None:
    assert dataset_name(dataset) == name


@pytest.mark.parametrize(
    ("name", "text"),
    [("peak_memory_mib", "peak memory, MiB"), ("mtt ipc10", "mtt, IPC 10"), ("epochs_kept", "epochs kept")],
)
def test_facts_in_words(name: str, text: str) -> None:
    assert words.fact(name) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels", "analytical labels"), ("refine ipc10", "refinement, IPC 10"),
        ("quick refined ipc1 net 2/3", "quick refined, IPC 1, network 2/3"), ("anything", "anything"),
    ],
)  # fmt: skip
def test_phases_in_words(name: str, text: str) -> None:
    assert words.phase(name) == text


@pytest.mark.parametrize(
    ("stage", "pixels", "inputs", "text"),
    [
        ("refined", ROUNDED, AS_STATED, ""), ("refined", EXACT, AS_STATED, ", not rounded"),
        ("refined", EXACT, NOT_WHITENED, ", not rounded, not whitened"), ("random", EXACT, NOT_WHITENED, ", not whitened"),
    ],
)  # fmt: skip
def test_an_unusual_use_of_images_is_said(stage: str, pixels: str, inputs: str, text: str) -> None:
    assert words.unusual(Score(stage, "mgdd", 1, "convnet", "quick", "x", 1.0, 0.0, 1, 1.0, pixels, inputs)) == text
