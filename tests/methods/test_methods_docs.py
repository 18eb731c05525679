"""docs/methods.md says what is there: a row for every method with its true defaults, and an example that works as it stands."""

import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_methods
from method_case import TINY, by_steps, method_of, task_of

from ddtool.data.images import ImageData
from ddtool.methods import METHODS, Method, distil, find, settings_of
from ddtool.methods.mgdd import ridge_loss

PAGE = (Path(__file__).parents[2] / "docs" / "methods.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("`"): cells[1:]
    for line in PAGE.splitlines()
    if line.startswith("| `") and len(cells := [cell.strip() for cell in line.strip("| ").split(" | ")]) > 1
}


@pytest.fixture
def linear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Method]:
    """The example: its file imported, its line in METHODS."""
    (code,) = re.findall(r"```python\n(.*?)\n```", PAGE, re.DOTALL)
    file = tmp_path / "linear.py"
    file.write_text(code, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("linear_example", file)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "linear_example", module)
    spec.loader.exec_module(module)
    monkeypatch.setitem(METHODS, "linear", module.Linear)
    monkeypatch.setitem(TINY, "linear", {"real_batch": 40})
    return module.Linear


def test_the_example_distils(linear: type[Method], toy: ImageData, toy_test: ImageData) -> None:
    task, test = task_of(toy), task_of(toy_test, ipc=50)

    def error(method: Method) -> float:
        X_t, Y_t = test.start()
        return float(ridge_loss(lambda X: X.flatten(1), X_t, Y_t, *method.result(), 0.01))

    method = method_of("linear", task, steps=40, lr=0.03)
    assert isinstance(method, linear)
    before = error(method)
    assert distil(method).steps == 40
    assert error(method) < 0.8 * before


def test_the_example_keeps_what_every_method_promises(
    linear: type[Method], toy: ImageData, grey_toy: ImageData, saver: Any, interrupt_at: Callable
) -> None:
    test_methods.test_every_method_is_tested_here()
    test_methods.test_a_grey_set_without_flip_works_as_well("linear", grey_toy)
    test_methods.test_changes_every_image("linear", toy)
    test_methods.test_resumes_to_the_same_bits("linear", toy, saver, interrupt_at)


def test_every_method_has_its_row() -> None:
    assert set(ROWS) == set(METHODS)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_the_rows_defaults_are_the_settings(name: str) -> None:
    """`setting` number, wherever it stands in the row."""
    record = find(name)
    settings = record.settings and record.settings()
    assert ROWS[name][0] == (record.paper or "–")
    stated = re.findall(r"`(\w+)` (\d[\d.,e-]*\d|\d)", " ".join(ROWS[name]))
    assert bool(stated) == (record.settings is not None and record.learns and name != "dsa")
    for setting, number in stated:
        assert getattr(settings, setting) == float(number.replace(",", "")), setting


def test_settings_that_are_named_exist() -> None:
    known = {field for name in by_steps() for field in vars(settings_of(name, {}))}
    for setting in re.findall(r"baseline\.(\w+)", PAGE):
        assert setting in known, setting
