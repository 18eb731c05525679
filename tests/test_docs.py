"""The documentation says what is there: commands parse, names exist, generated pages are up to date."""

import inspect
import json
import re
import runpy
from collections.abc import Iterable
from operator import attrgetter
from pathlib import Path
from types import ModuleType

import pages
import pytest
from conftest import SHIPPED_TRIAL
from pages import GENERATED, PAGES, blocks

from ddtool.config import PretrainConfig, RunConfig
from ddtool.data import batches
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.methods import METHODS, mgdd
from ddtool.models import ridge
from ddtool.sources.load import DataOptions

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
TEXTS = {page: path.read_text(encoding="utf-8") for page, path in PAGES.items()}
PROSE = {page: re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL) for page, text in TEXTS.items()}
CALLS = [
    pytest.param(words, id=f"{page}: {' '.join(words)}")
    for page in PAGES
    for block in blocks(page, "bash")
    for line in pages.lines(block)
    for words in pages.commands(line)
]
MENTIONED = [
    pytest.param(span, id=f"{page}: {span}")
    for page, text in PROSE.items()
    if page not in ("docs/results.md", "docs/log.md")  # of their day
    for span in re.findall(r"`((?:ddtool|python -m ddtool) [a-z][^`]*)`", text)
]
SECTIONS = "data|architecture|features|labels|adapt|fit|refine|evaluate|meta"


def test_the_glossary_is_in_order_and_leads_nowhere_else() -> None:
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", TEXTS["docs/glossary.md"], re.MULTILINE)[2:]
    words = [word for word, _ in rows]
    assert words == sorted(words, key=str.lower)
    assert len(words) > 30
    plural = {f"{word}s" for word in words}
    assert {name.lower() for _, said in rows for name in re.findall(r"\*([^*]+)\*", said)} <= {
        w.lower() for w in words
    } | plural


# ------------------------------------------------------------------------------------------------------------ commands


@pytest.mark.parametrize("words", CALLS)
def test_every_command_in_a_block_parses(words: list[str]) -> None:
    pages.parse(words)


@pytest.mark.parametrize("span", MENTIONED)
def test_every_command_in_the_text_has_such_options(span: str) -> None:
    _, words = span.split("ddtool ", 1)
    name, *rest = words.replace("…", "").split()
    known = {option for p in pages.GROUP.commands[name].params for option in (*p.opts, *p.secondary_opts)} | {"-h"}
    assert {word.partition("=")[0] for word in rest if word.startswith("-")} <= known


def test_there_are_commands_to_check() -> None:
    assert {param.values[0][0] for param in CALLS} >= pages.GROUP.commands.keys()  # type: ignore[index]
    assert len(MENTIONED) > 20
    with pytest.raises(Exception, match="No such option"):
        pages.parse(["adapt", "sample", "--stepz", "3"])
    launched = "srun torchrun --nproc_per_node 8 -m ddtool pretrain a/b --out x && ddtool env  # twice"
    assert list(pages.commands(launched)) == [["pretrain", "a/b", "--out", "x"], ["env"]]
    assert list(pages.commands("hf jobs run IMAGE bash -c 'ddtool env && ls'")) == [["env"]]


def test_the_readme_opens_with_the_two_commands() -> None:
    first, second = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first.startswith("pip install . && ddtool adapt sample --ipc 10")
    assert second == "pip install -e '.[test]' && python -m pytest"


def test_ci_runs_the_second_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -m1 -E '(.*?)' README.md", script)
    assert pattern
    found = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert found[0] == "pip install -e '.[test]' && python -m pytest"


# --------------------------------------------------------------------------------------------------------------- names


def anchors(page: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    heads = re.findall(r"^#+ (.*)$", re.sub(r"^```.*?^```$", "", page, flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES)
def test_links_and_named_files_exist(page: str) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)(?:#([^)]+))?\)", PROSE[page]):
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), f"{target}#{anchor}"
    for name in re.findall(r"`((?:ddtool|benchmarks|tests|docs)/[\w./-]+)`", TEXTS[page]):
        assert (ROOT / name).exists(), name


def test_the_page_on_imagenet_has_the_tables_of_its_script(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHIPPED_TRIAL.items():
        monkeypatch.setattr(f"ddtool.pipeline.target.{name}", value)
    script = runpy.run_path(str(ROOT / "benchmarks/imagenet.py"))
    measured = json.loads((ROOT / "benchmarks/results/large.json").read_text(encoding="utf-8"))
    for table in script["tables"](measured):
        assert table in TEXTS["docs/large.md"]


def test_the_index_leads_to_every_page() -> None:
    linked = set(re.findall(r"\]\(([\w.-]+)\)", TEXTS["docs/index.md"]))
    missing = {path.name for path in pages.DOCS.glob("*.md")} - linked - {"index.md"}
    assert not missing, "give them a row in docs/index.md"


@pytest.mark.parametrize("page", [page for page in PAGES if page not in ("docs/results.md", "docs/log.md")])
def test_settings_that_are_named_exist(page: str) -> None:
    for name in re.findall(rf"(?:`|--set '?)((?:{SECTIONS})\.[a-z_.]+)\b(?!/)", TEXTS[page]):
        if name.endswith((".json", ".py", ".safetensors")):
            continue
        if name.startswith("data."):
            assert hasattr(DataOptions(), name[5:]), name
        else:
            attrgetter(name)(PretrainConfig() if name.startswith("meta.") else RunConfig())


@pytest.mark.parametrize("module", [mgdd, batches, ridge], ids=lambda module: module.__name__)
def test_the_method_page_names_every_function_and_no_other(module: ModuleType) -> None:
    public = {
        name
        for name, thing in vars(module).items()
        if not name.startswith("_") and getattr(thing, "__module__", "") == module.__name__
        if inspect.isfunction(thing) or inspect.isclass(thing)
    }
    last = module.__name__.rpartition(".")[2]
    assert set(re.findall(rf"`{last}\.(\w+)`", TEXTS["docs/method.md"])) == public


# ----------------------------------------------------------------------------------------------------- generated pages


@pytest.mark.parametrize("page", ["docs/commands.md", "docs/api.md"])
def test_generated_pages_are_up_to_date(page: str) -> None:
    generate = runpy.run_path(str(pages.DOCS / "generate.py"))
    wanted = generate["pages"]()[PAGES[page]]
    assert TEXTS[page] == wanted, f"{page} differs from what the code says: renew it by `{generate['COMMAND']}`"


def test_every_option_is_on_the_page() -> None:
    """Read off the parser, not off the signatures from which the page is made."""
    for name, command in pages.GROUP.commands.items():
        section = TEXTS["docs/commands.md"].split(f"## ddtool {name}\n")[1].split("\n## ")[0]
        for parameter in command.params:
            if parameter.opts[0].startswith("-") and parameter.name != "help":
                for option in (*parameter.opts, *parameter.secondary_opts):
                    assert re.search(rf"`{option}[` ]", section), f"{name} {option}"


@pytest.mark.parametrize(
    ("command", "option", "names"),
    [
        ("adapt", "method", METHODS), ("adapt", "protocol", PROTOCOLS), ("compare", "protocol", PROTOCOLS),
        ("evaluate", "protocol", PROTOCOLS),
    ],
)  # fmt: skip
def test_the_help_of_an_option_has_every_name_that_it_takes(command: str, option: str, names: Iterable[str]) -> None:
    (parameter,) = [p for p in pages.GROUP.commands[command].params if p.name == option]
    words = re.findall(r"[\w-]+", parameter.help)
    assert set(names) | ({"kernel-ridge"} if option == "protocol" else set()) <= set(words)


def test_there_is_a_row_for_every_setting() -> None:
    assert "| `refine.lr_pixels` | `0.03` |" in TEXTS["docs/commands.md"]
    assert "| `adapt.steps` | `600` (large), `500` (medium), `300` (small) |" in TEXTS["docs/commands.md"]
    assert not re.search(r"^\| `[\w.]+` \| .* \|  \|$", TEXTS["docs/commands.md"].split("## Settings")[1], re.MULTILINE)
    assert set(GENERATED) <= set(PAGES)
