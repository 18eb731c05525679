"""What a person sees while work goes on."""

import io
import re
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from ddtool.events import Done, Note, Report, Step
from ddtool.reports import progress as progress_module
from ddtool.reports.progress import Progress, shown

SCORING = "Network 1 of 3 trained on 10 refined images per class (frepo-mse)"


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
    assert ("A note." in text and "Refining the images: 2.0 s" in text) == spoken
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
    assert lines[0] == "Adapting the generator  0/200"
    assert lines[1] == "Adapting the generator  20/200  2.0/s  1:30 min left"
    assert lines[-1] == "Adapting the generator  200/200  2.0/s  0 s left"
    assert len(lines) == 11


def test_the_rate_of_a_phase_that_begins_anew_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Jobs of a comparison follow each other under one name."""
    screen, now = Screen(terminal=False), [0.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("ddtool.reports.progress.time.perf_counter", lambda: now[0])
    with shown(None, True) as listener:
        for at, step in ((0, 0), (10, 100), (100, 10), (110, 30)):
            now[0] = at
            listener(Step("job", step, 100, {}))
    assert screen.getvalue().splitlines()[-1] == "The job, in its present phase  30/100  2.0/s  35 s left"


def test_a_phase_that_is_soon_over_has_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, now = Screen(terminal=False), [0.0]
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setattr("ddtool.reports.progress.time.perf_counter", lambda: now[0])
    with shown(None, True) as listener:
        for step in range(0, 201, 10):
            now[0] = step / 200
            listener(Step("labels", step, 200, {}))
        listener(Done("labels", 1.0))
    words = "Computing the analytical labels"
    assert screen.getvalue().splitlines() == [f"{words}  0/200", f"{words}: 1.0 s"]


def test_images_are_counted_once_the_classes_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Screen(terminal=False)
    monkeypatch.setattr(sys, "stderr", screen)
    with shown(None, True) as listener:
        listener(Done("refine ipc10", 1.0))
        listener(Note("Data: toy", classes=10))
        listener(Done("refine ipc10", 1.0))
        listener(Done("quick refined ipc10 net 1/3", 1.0))
    assert screen.getvalue().splitlines() == [
        "Refining 10 images per class: 1.0 s", "Data: toy", "Refining the 100 images: 1.0 s",
        "Network 1 of 3 trained on the 100 refined images (quick): 1.0 s",
    ]  # fmt: skip


@pytest.mark.parametrize(("width", "words"), [(80, "Network 1 of 3 trained on"), (200, SCORING)])
def test_a_bar_has_its_words_at_any_width(width: int, words: str) -> None:
    screen = Screen(terminal=True)
    console = Console(file=screen, force_terminal=True, width=width, height=20, legacy_windows=False)
    with Progress(console) as bars:
        bars.listener(Step("frepo-mse refined ipc10 net 1/3", 1, 4, {"loss": 0.5}))
        assert bars._bars is not None
        bars._bars.refresh()
    lines = [line for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", screen.getvalue()).splitlines() if line.strip()]
    assert lines[-1].lstrip("\r").startswith(words)
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize("widgets", [True, False])
def test_a_notebook_has_bars_where_it_has_widgets(widgets: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[object] = []
    monkeypatch.setattr(progress_module, "find_spec", lambda name: object() if widgets else None)
    monkeypatch.setattr(progress_module, "Bars", lambda *columns, **options: SimpleNamespace(
        start=lambda: begun.append(columns), stop=lambda: None
    ))  # fmt: skip
    console = Console(file=io.StringIO())
    console.is_jupyter = True
    with Progress(console):
        assert bool(begun) is widgets


@pytest.mark.parametrize("terminal", [True, False])
def test_a_terminal_breaks_lines_between_words(terminal: bool) -> None:
    out, path = io.StringIO(), "/a/long/path" * 5
    text = f"Whitening is off: too few images of a class to tell whether it helps, of {path} at least."
    Progress(Console(file=out, force_terminal=terminal, width=40, color_system=None)).say(text)
    lines = out.getvalue().splitlines()
    assert " ".join(line.strip() for line in lines) == text
    assert (len(lines) > 1) is terminal
    assert any(path in line for line in lines)


def test_the_bar_of_a_phase_that_is_through_goes_when_the_next_begins() -> None:
    shown = Progress(Console(file=io.StringIO(), force_terminal=True, width=100))
    with shown:
        for step in (1, 4):
            shown.listener(Step("decode", step, 4, {}))
        shown.listener(Step("adapt", 1, 9, {}))
        shown.listener(Step("refine", 1, 9, {}))
        assert shown._bars is not None
        assert [task.total for task in shown._bars.tasks] == [9, 9]
