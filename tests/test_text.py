"""Words for numbers of things, and the names that people read in place of those of files."""

import pytest

from ddtool.runs import words
from ddtool.text import count, is_or_are


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
