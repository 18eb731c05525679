"""The record of a method is all that the program asks: no line outside the methods' own files decides by a method's name."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ddtool
from ddtool.config import RunConfig
from ddtool.errors import UsageError
from ddtool.methods import METHODS, default, find, has_generator

PACKAGE = Path(ddtool.__file__).parent
OUTSIDE = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.parent.name != "methods"
}
NAMES = {v.name for kind in METHODS.values() for v in kind.record.compared()} | set(METHODS)
ALSO_A_STAGE = {"random"}
"""Names that mean something else, too: real images as a stage of a run."""
NO_BRANCH = {
    ("experiments/report.py", "mgdd"),  # a key of results.json
    ("sharing/cards.py", "mgdd"),  # a tag on a card
    *(
        ("sharing/exchange/containers.py", name) for name in ("dc", "mtt", "idc")
    ),  # formats of files, called after their code
    *(
        ("experiments/published.py", name) for name in ("dm", "mtt", "dc", "dsa", "frepo", "idc", "mgdd-generator")
    ),  # the rows of published tables
    *((file, name) for file in ("data/augment.py", "evaluation/protocols.py") for name in ("dsa", "frepo", "idc")),
}
"""Augmentations are called after the papers that they are from."""


def defaults_of_the_setting(tree: ast.AST) -> Iterator[ast.AST]:
    """The values of `method: str = …`, as a field or an argument."""
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id == "method":
            yield from [node.value] if node.value else []
        if isinstance(node, ast.arguments):
            positional = [*node.posonlyargs, *node.args]
            pairs = [*zip(reversed(positional), reversed(node.defaults), strict=False)]
            pairs += [(a, value) for a, value in zip(node.kwonlyargs, node.kw_defaults, strict=True) if value]
            yield from (value for argument, value in pairs if argument.arg == "method")


def written_names(tree: ast.AST) -> set[str]:
    """The methods whose names stand in a file as values, but for defaults of the setting `method`."""
    allowed = {id(node) for node in defaults_of_the_setting(tree)}
    return {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value in NAMES and id(node) not in allowed
    }


def compared_with_a_method(tree: ast.AST) -> set[str]:
    """The names that something called method is compared with, or looked up by."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare | ast.Match) and "method" in ast.unparse(
            node.left if isinstance(node, ast.Compare) else node.subject
        ):
            found |= {n.value for n in ast.walk(node) if isinstance(n, ast.Constant) and n.value in NAMES}
    return found


def test_the_search_finds_what_it_is_for() -> None:
    for line in ("if config.method == 'dm': pass", "MINE = 'mgdd'", "f = {'mtt': 1}[x]", "def f(name='idc'): pass"):
        assert written_names(ast.parse(line)), line
    for line in ("def f(a, method: str = 'mgdd'): pass", "def f(*, method='mgdd'): pass", "method: str = 'mgdd'"):
        assert not written_names(ast.parse(line)), line
    assert compared_with_a_method(ast.parse("if found.method == 'random': pass")) == {"random"}
    assert compared_with_a_method(ast.parse("if stage == 'random': pass")) == set()


def test_nothing_outside_the_methods_branches_on_a_name() -> None:
    written = {(file, name) for file, tree in OUTSIDE.items() for name in written_names(tree) - ALSO_A_STAGE}
    assert written == NO_BRANCH
    assert {(file, name) for file, tree in OUTSIDE.items() for name in compared_with_a_method(tree)} == set()


def test_every_method_has_a_record_of_its_own() -> None:
    assert [kind.record.name for kind in METHODS.values()] == list(METHODS)
    assert len({id(kind.record) for kind in METHODS.values()}) == len(METHODS)
    for kind in METHODS.values():
        record = kind.record
        assert record.title
        assert record.short_title in record.title
        assert (record.settings is None) == record.has_generator == has_generator(record.name)
        assert record.stages[0] == "initial"


def test_the_default_is_the_methods_own() -> None:
    assert default().name == RunConfig().method
    assert [name for name in METHODS if find(name).ours] == [default().name]
    assert set(default().sections) < set(RunConfig.__dataclass_fields__)


def test_an_unknown_method_is_refused_or_can_do_nothing() -> None:
    with pytest.raises(UsageError, match="Unknown method 'mgd'") as refusal:
        find("mgd")
    assert refusal.value.hint == f"Did you mean 'mgdd'? Known: {', '.join(METHODS)}."
    assert not has_generator("mgd")
