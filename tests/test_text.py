"""Words for numbers of things, and the names that people read in place of those of files."""

import pytest

from ddtool.evaluation.protocols import AS_STATED, EXACT, NOT_WHITENED, ROUNDED, Score
from ddtool.runs import words
from ddtool.text import count, dataset_name, duration, is_or_are, parsed_json


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
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"), (7800, "2:10 h")]
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [("peak_memory_mib", "peak memory, MiB"), ("mtt ipc10", "mtt, IPC 10"), ("epochs_kept", "epochs kept")],
)
def test_facts_in_words(name: str, text: str) -> None:
    assert words.fact(name) == text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("labels", "computing the analytical labels"), ("adapt", "adapting the generator"),
        ("refine ipc10", "refining 10 images per class"), ("distil ipc1", "distilling 1 image per class"),
        ("refine", "refining the images"), ("download a/b", "downloading a/b"), ("anything ipc2", "anything, IPC 2"),
        ("quick refined ipc1 net 2/3", "network 2 of 3 trained on 1 refined image per class (quick)"),
        ("dsa-ce vgg11 random ipc2 net 1/1", "network 1 of 1 trained on 2 random real images per class (dsa-ce vgg11)"),
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


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("refine ipc10", "refining the 100 images"), ("fit labels ipc1", "fitting labels to the 10 images"),
        ("frepo-mse refined ipc10 net 1/3", "network 1 of 3 trained on the 100 refined images (frepo-mse)"),
    ],
)  # fmt: skip
def test_phases_of_a_target_whose_classes_are_known(name: str, text: str) -> None:
    assert words.phase(name, classes=10) == text


def test_json_as_deep_as_python_can_follow_is_read_and_deeper_one_is_a_value_error() -> None:
    assert parsed_json('{"a": [1, 2.5, null]}') == {"a": [1, 2.5, None]}
    for damaged in ("[" * 10**6, '{"a":' * 10**6, "[1,", b"\xff"):
        with pytest.raises(ValueError):
            parsed_json(damaged)
