"""What a person sees while work goes on."""

import io
import sys

import pytest

from ddtool.events import Done, Note, Report, Step
from ddtool.reports.progress import duration, shown


class Screen(io.StringIO):
    """Stderr, as a terminal or as a file."""

    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def said(monkeypatch: pytest.MonkeyPatch, terminal: bool, report: Report | None, progress: bool | None) -> str:
    """What stands on stderr after three events."""
    screen = Screen(terminal)
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with shown(report, progress) as listener:
        for event in (Note("A note."), Step("refine", 1, 4, {"loss": 0.5}), Done("refine", 2.0)):
            listener(event)
    return screen.getvalue()


@pytest.mark.parametrize(
    ("terminal", "progress", "spoken"),
    [(True, None, True), (False, None, False), (True, False, False), (False, True, True), (True, True, True)],
)
def test_a_call_shows_progress_where_a_person_sees_it(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, progress: bool | None, spoken: bool
) -> None:
    text = said(monkeypatch, terminal, None, progress)
    assert ("A note." in text and "refine: 2.0 s" in text) == spoken
    assert bool(text) == spoken


def test_a_listener_of_ones_own_hears_everything_and_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[object] = []
    assert said(monkeypatch, True, heard.append, None) == ""
    assert heard == [Note("A note."), Step("refine", 1, 4, {"loss": 0.5}), Done("refine", 2.0)]


def test_lines_say_how_much_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = Screen(terminal=False), [0.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("ddtool.reports.progress.time.perf_counter", lambda: now[0])
    with shown(None, True) as listener:
        for step in range(0, 201, 10):
            now[0] = step / 2
            listener(Step("adapt", step, 200, {}))
    lines = screen.getvalue().splitlines()
    assert lines[0] == "adapt  0/200"
    assert lines[1] == "adapt  20/200  2.0/s  1:30 min left"
    assert lines[-1] == "adapt  200/200  2.0/s  0 s left"
    assert len(lines) == 11


def test_a_phase_that_is_soon_over_has_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = Screen(terminal=False), [0.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("ddtool.reports.progress.time.perf_counter", lambda: now[0])
    with shown(None, True) as listener:
        for step in range(0, 201, 10):
            now[0] = step / 200
            listener(Step("decode", step, 200, {}))
        listener(Done("decode", 1.0))
    assert screen.getvalue().splitlines() == ["decode  0/200", "decode: 1.0 s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1:00 min"), (3599, "59:59 min"), (7800, "2:10 h")]
)
def test_durations_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text
