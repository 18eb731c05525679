"""The README says what is there: its commands parse as they stand, its two first ones do what they promise."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from ddtool.cli.app import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = "\n".join(re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL))
COMMANDS = re.findall(r"^(?:pip install \. && )?(ddtool .*?)\s*(?:#.*)?$", BLOCKS, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_of_the_readme_parses(line: str) -> None:
    name, *words = shlex.split(line)[1:]
    group: Any = typer.main.get_command(app)
    assert name in group.commands
    group.commands[name].make_context(name, words)  # raises for an unknown option or a value that does not fit


def test_the_readme_opens_with_the_two_commands() -> None:
    first, second = re.findall(r"```bash\n(.*?)\n```", README, re.DOTALL)[:2]
    assert first.startswith("pip install . && ddtool adapt sample --ipc 10")
    assert second == "pip install -e '.[test]' && python -m pytest"
    assert len(COMMANDS) >= 7


def test_ci_runs_the_second_command() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    pattern = re.search(r"grep -m1 -E '(.*?)' README.md", script)
    assert pattern
    found = [line for line in README.splitlines() if re.search(pattern[1], line)]
    assert found[0] == "pip install -e '.[test]' && python -m pytest"


@pytest.mark.parametrize("page", ["README.md", "docs/architecture.md", "docs/results.md", "docs/log.md"])
def test_links_and_named_files_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target
    for name in re.findall(r"`(ddtool/[\w./-]+|benchmarks/[\w./-]+|tests/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
