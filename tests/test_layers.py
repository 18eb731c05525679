"""Who may import whom, read off the source: imports go down only, and each outside library has its rooms.

The wings and their order are the table in docs/architecture.md, which is the one place that states them.
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import ddtool

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ddtool"
MODULES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
IN_CLI = {name for name in MODULES if name.startswith("ddtool.cli")}
MATHS = {name for name in MODULES if name.startswith("ddtool.methods")}

HARDWARE = {"torch.cuda", "torch.backends"}
FORBIDDEN_CALLS = {"print", "torch.load", "torch.save", "eval", "exec", "breakpoint", "input"}
BY_STRING = {"import_module", "__import__", "importlib.import_module", "runpy.run_module", "runpy.run_path"}
"""Ways to import that no import statement shows."""


OPEN = re.compile(r"\b(?:dict|Mapping|MutableMapping)\[str, (?:Any|object)\]")
"""A mapping whose values may be anything, however it is spelled. A record, or JSON that is called so, says more."""
MOST_OPEN = 25
"""The most of them in the package: each where JSON, or an option of a library, enters or leaves."""


def stated_wings() -> list[str]:
    """The wings in the table of docs/architecture.md, top to bottom."""
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split("## Wings, top to bottom", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `(\w+?)(?:/|\.py)` \|", table, re.MULTILINE)


WINGS = stated_wings()


@cache
def nodes(module: str) -> tuple[ast.AST, ...]:
    """Every node of a module's syntax tree."""
    return tuple(ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))))


def wing(module: str) -> str:
    """The wing that a module is in: the first name below the package."""
    return module.split(".")[1] if "." in module else ""


@cache
def imports(module: str, typing_too: bool = True) -> frozenset[str]:
    """Full names of what a module imports, inside functions and by string too; a name taken from a module counts with it."""
    package = module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]
    skipped = set() if typing_too else {id(n) for branch in typing_branches(module) for n in ast.walk(branch)}
    return frozenset(name for node in nodes(module) if id(node) not in skipped for name in imported(node, package))


def imported(node: ast.AST, package: str) -> Iterator[str]:
    """Full names of what one node imports, in a module of `package`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        above = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
        base = ".".join(filter(None, [above, node.module]))
        yield base
        yield from (f"{base}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        # a string that is a module's full name is an import in the making, whoever is handed it
        yield from [node.value] if node.value in MODULES and node.value != "ddtool" else []


def dotted(node: ast.AST) -> str:
    """`a.b` of an attribute or a name; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def typing_branches(module: str) -> Iterator[ast.AST]:
    """The bodies of `if TYPE_CHECKING:`."""
    for node in nodes(module):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            yield from node.body


def importers(library: str) -> set[str]:
    """The modules of ddtool that import a library."""
    return {m for m in MODULES if any(name.split(".")[0] == library for name in imports(m))}


@cache
def inner_imports(module: str) -> frozenset[str]:
    """The modules of ddtool that a module needs when it runs."""
    return frozenset(name for name in imports(module, typing_too=False) if name in MODULES) - {module}


def rooms(*names: str) -> set[str]:
    return {f"ddtool.{name}" for name in names}


def test_there_is_something_to_check() -> None:
    assert rooms("methods.mgdd", "runs.run", "cli.app", "sources.load") <= set(MODULES)
    assert "ddtool.data.images" in inner_imports("ddtool.methods.mgdd")
    assert "ddtool.api" in inner_imports("ddtool.cli.adapt")  # imported inside a function
    assert "ddtool.api" in set(imports("ddtool"))  # by a string


def test_every_module_is_in_a_wing_that_the_architecture_page_lists() -> None:
    assert len(WINGS) == len(set(WINGS))
    assert {wing(module) for module in MODULES} - {""} == set(WINGS)


def test_imports_go_down_only() -> None:
    for module in set(MODULES) - {"ddtool"}:  # ddtool itself is lazy
        for name in inner_imports(module) - {"ddtool"}:
            assert WINGS.index(wing(module)) <= WINGS.index(wing(name)), f"{module} imports {name}, which is above it"


def test_no_wing_is_a_circle_inside() -> None:
    for module in MODULES:
        seen, todo = set(), set(inner_imports(module)) - {"ddtool"}
        while todo:
            name = todo.pop()
            seen.add(name)
            todo |= inner_imports(name) - seen - {"ddtool"}
        assert module not in seen, f"{module} imports itself by way of others"


def test_modules_are_imported_by_name_only() -> None:
    """By string only the public names of the package and the registry of commands, on their first use."""
    calls = {
        module
        for module in MODULES
        for node in nodes(module)
        if (isinstance(node, ast.Call) and dotted(node.func) in BY_STRING)
        or (isinstance(node, ast.ImportFrom | ast.Import) and any(a.name == "import_module" for a in node.names))
    }
    assert calls == {"ddtool", "ddtool.cli.commands"}


def test_facts_are_records_and_not_mappings_of_anything() -> None:
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}"
        for path in MODULES.values()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        for _ in OPEN.finditer(line)
    ]
    assert 0 < len(found) <= MOST_OPEN, found
    wings = {place.split("/")[1].removesuffix(".py") for place in found}
    assert not wings & {"config", "data", "models", "pipeline", "pretraining", "runtime", "sources"}


@pytest.mark.parametrize(
    "library", ["typer", "rich", "huggingface_hub", "datasets", "pathlib", "os", "ddtool.runs", "ddtool.pretraining"]
)
def test_the_method_knows_no_files_no_hub_and_no_terminal(library: str) -> None:
    for module in MATHS:
        assert not [n for n in imports(module) if n == library or n.startswith(library + ".")], module


@pytest.mark.parametrize("library", ["typer", "rich", "click"])
def test_only_the_command_line_talks_to_the_terminal(library: str) -> None:
    shows_progress = {"ddtool.reports.progress"} if library == "rich" else set()
    assert importers(library) <= (set() if library == "click" else IN_CLI | shows_progress)


def test_datasets_has_its_rooms() -> None:
    assert importers("datasets") <= rooms("sources.tables", "sources.ranges", "sources.names", "runs.formats")


def test_the_hub_has_its_rooms() -> None:
    assert importers("huggingface_hub") <= rooms(
        "hub.names",
        "hub.client",
        "hub.download",
        "hub.upload",
        "hub.errors",
        "sharing.cards",
        "sources.tables",
        "sources.ranges",
        "sources.names",
    )


def test_cards_have_one_writer_that_knows_facts_only() -> None:
    assert importers("jinja2") == rooms("sharing.cards", "reports.layout")
    allowed = rooms(
        "evaluation.protocols",
        "events",
        "hub.names",
        "runs.facts",
        "sharing.facts",
        "sharing.files",
        "sharing.pretraining",
        "sharing.views",
        "text",
        "version",
    )
    for name in ("cards", "views", "pretraining"):
        assert inner_imports(f"ddtool.sharing.{name}") <= allowed


@pytest.mark.parametrize("library", ["pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"])
def test_nothing_is_unpickled(library: str) -> None:
    assert importers(library) == (rooms("sharing.exchange.pickles") if library == "pickle" else set())
    used = {name for name in imports("ddtool.sharing.exchange.pickles") if name.startswith("pickle")}
    assert used == {"pickle", "pickle.UnpicklingError"}  # what torch's weights-only reader raises


def test_only_the_engine_asks_about_hardware() -> None:
    asking = {m for m in MODULES for node in nodes(m) if dotted(node) in HARDWARE}
    assert asking <= rooms("runtime.engine", "runtime.capture")
    capturing = {m for m in MODULES for name in inner_imports(m) if name == "ddtool.runtime.capture"}
    assert capturing == rooms("runtime.engine", "runtime.loop")


def test_only_the_executors_of_a_comparison_start_programs() -> None:
    assert importers("subprocess") == rooms("experiments.executors")


def test_a_report_knows_results_only() -> None:
    assert not {
        m
        for m in ("torch", "subprocess")
        for room in rooms("experiments.report", "experiments.words", "experiments.plot")
        if room in importers(m)
    }
    assert inner_imports("ddtool.experiments.plot") == rooms("reports.canvas")


def test_matplotlib_has_its_rooms_and_pyplot_none() -> None:
    assert importers("matplotlib") <= rooms("experiments.plot", "reports.canvas", "reports.figures", "runs.preview")
    assert not [m for m in MODULES if any(name.startswith("matplotlib.pyplot") for name in imports(m))]


def test_nobody_below_imports_the_command_line() -> None:
    for module in set(MODULES) - IN_CLI - {"ddtool.__main__"}:
        assert not [name for name in inner_imports(module) if name in IN_CLI], module


def test_nothing_prints_and_nothing_runs_foreign_code() -> None:
    calls = {(module, dotted(node.func)) for module in MODULES for node in nodes(module) if isinstance(node, ast.Call)}
    the_converter = {
        ("ddtool.sharing.exchange.pickles", "torch.load"),
        ("ddtool.sharing.exchange.pickles", "torch.save"),
    }
    assert {call for call in calls if call[1] in FORBIDDEN_CALLS} == the_converter


def test_torch_loads_weights_only() -> None:
    loads = [
        n
        for n in nodes("ddtool.sharing.exchange.pickles")
        if isinstance(n, ast.Call) and dotted(n.func) == "torch.load"
    ]
    assert [[k.value.value for k in n.keywords if k.arg == "weights_only"] for n in loads] == [[True]]  # type: ignore[attr-defined]


def test_numpy_files_are_read_without_objects() -> None:
    for module in MODULES:
        for node in nodes(module):
            if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "trust_remote_code"):
                assert ast.unparse(node.value) == "False", module


def test_failures_are_caught_by_name_below_the_command_line() -> None:
    for module in set(MODULES) - IN_CLI:
        for node in nodes(module):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                assert caught not in ("", "Exception", "BaseException"), f"{module} line {node.lineno}"


def test_no_module_hides_a_public_name() -> None:
    """Importing a submodule binds it in the package: `ddtool.evaluate` would become a module once it was used."""
    modules = {path.stem for path in PACKAGE.iterdir()}
    assert not modules & set(ddtool.__all__)
