"""The pages of the documentation: their code blocks, the commands in them, and a workshop to run them in; no tests here."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import typer

from ddtool import config
from ddtool.cli.app import app
from ddtool.cli.words import one_by_one, repeated
from ddtool.evaluation import measure as evaluation
from ddtool.pipeline import speed
from ddtool.pretraining import validation

DOCS = tiny.ROOT / "docs"
PAGES = {path.relative_to(tiny.ROOT).as_posix(): path for path in (tiny.ROOT / "README.md", *sorted(DOCS.glob("*.md")))}
GENERATED = ("docs/commands.md",)
GROUP: Any = typer.main.get_command(app)

PRESET: dict[str, Any] = {
    "flip": False,
    "features": {"width": 8},
    "labels": {"width": 8, "images": 500},
    "adapt": {"steps": 2, "seen_ipcs": [1, 2], "real_batch": 20, "synthetic_batch": 20, "augmented_copies": 1},
    "fit": {"networks": 1, "real_batch": 20, "augmented_copies": 1},
    "refine": {"steps": 2, "real_batch": 20, "synthetic_batch": 20, "augmented_copies": 1},
}
PRETRAIN_PRESET: dict[str, Any] = {
    "held_out": 3,
    "architecture": {"slots": 8, "side": 16},
    "features": {"width": 8},
    "meta": {
        "iterations": 2, "meta_batch": 2, "inner_steps": 1, "ways": [2, 3], "ipc": [1, 2], "label_images": 4,
        "fit": {"networks": 1, "real_batch": 12, "augmented_copies": 0}, "task": {"real_batch": 12, "augmented_copies": 0},
    },
    "validate_every": 2,
    "validate_tasks": 1,
    "validate_steps": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; `line` is that of its first line of text."""

    page: str
    line: int
    language: str
    no_run: bool
    text: str


def blocks(page: str, *languages: str) -> list[Block]:
    """The fenced blocks of a page in these languages, or all of them."""
    text = PAGES[page].read_text(encoding="utf-8")
    found = [
        Block(page, text[: match.start(3)].count("\n") + 1, match[1], match[2].split() == ["no-run"], match[3])
        for match in re.finditer(r"^```(\w*)([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    ]
    return [block for block in found if not languages or block.language in languages]


def lines(block: Block) -> list[str]:
    """The lines of a shell script, continued ones in one piece."""
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]


def commands(line: str) -> Iterator[list[str]]:
    """The words after `ddtool` of every call in a shell line: `ddtool …`, `python -m ddtool …`, through a launcher too."""
    words = shlex.split(line, comments=True)
    for i, word in enumerate(words):
        if " " in word:  # bash -c "…"
            yield from commands(word)
        starts = i == 0 or words[i - 1] in ("-m", "&&", "srun") or "=" in words[i - 1]
        if word == "ddtool" and starts:
            rest = words[i + 1 :]
            ends = [j for j, other in enumerate(rest) if other in ("&&", "|", ">", "&")]
            yield rest[: ends[0]] if ends else rest


def parse(words: list[str]) -> None:
    """Raise for an unknown command or option, or a value that does not fit."""
    if words and words[0] in ("-h", "--help", "--version"):
        return
    command = GROUP.commands[words[0]]
    if words[1:] != ["-h"]:
        command.make_context(words[0], one_by_one(words[1:], repeated(command)))


def shorten(patch: pytest.MonkeyPatch) -> None:
    """Presets and protocols so small that the commands of the pages take a second as they stand."""
    for name in config.PRESETS:
        patch.setitem(config.PRESETS, name, PRESET)
    for name in config.PRETRAIN_PRESETS:
        patch.setitem(config.PRETRAIN_PRESETS, name, PRETRAIN_PRESET)
    patch.setattr(speed, "SECONDS", 0.0)
    tiny.shorten_protocols(patch)
    patch.setattr(evaluation, "GUIDE_WIDTH", 8)
    patch.setattr(validation, "FIT", config.FitConfig(networks=1, real_batch=12))


def run_python(block: Block, names: dict[str, Any]) -> None:
    """Execute a block; a traceback names the page and its line."""
    exec(compile("\n" * (block.line - 1) + block.text, block.page, "exec"), names)


def run_shell(block: Block) -> None:
    """Run the `ddtool` lines of a block in this process; there must be no others."""
    for line in lines(block):
        found = list(commands(line))
        assert found, f"{block.page}: '{line}' is no command of ddtool (mark the block no-run)"
        for words in found:
            tiny.done(*words)
