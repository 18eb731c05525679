"""The names of phases."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddtool.events import Phase


@pytest.mark.parametrize(
    ("text", "phase"),
    [
        ("adapt", Phase("adapt")),
        ("fit labels ipc10", Phase("fit labels", 10)),
        ("quick refined ipc2 net 1/3", Phase("quick refined", 2, "net 1/3")),
        ("adapt command, until the sets were written", Phase("adapt command, until the sets were written")),
        ("ipc3", Phase("ipc3")),
        ("a recipc3", Phase("a recipc3")),
    ],
)
def test_a_phase_is_read_as_it_is_written(text: str, phase: Phase) -> None:
    assert Phase.parse(text) == phase
    assert str(phase) == text


@given(st.text())
def test_any_text_is_a_phase(text: str) -> None:
    assert str(Phase.parse(text)).rstrip() == text.rstrip()


def test_a_phase_names_a_file() -> None:
    assert Phase("refine", 10).file_name == "refine-ipc10"
