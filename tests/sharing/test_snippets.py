"""What a card tells people to type works as it stands, one snippet after the other, against tests/hub_server.py."""

# ruff: noqa: F811  (fixtures of test_hub)

import re
from pathlib import Path
from typing import Any

import pages
import pytest
from hub_server import HubServer
from PIL import Image
from test_hub import (  # noqa: F401  fixtures among them
    ADAPT,
    Made,
    _quick_pauses,
    _surroundings,
    made,
    own,
    pushed,
    run,
)
from tiny import done, refused

import ddtool


def follow(card: str) -> dict[str, Any]:
    """Run every block of a card in its order, Python in one session; returns the names of that session."""
    names: dict[str, Any] = {}
    found = re.findall(r"^```(bash|python)\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)
    for number, (language, text) in enumerate(found):
        block = pages.Block("README.md", 1, language, False, text)
        if language == "bash":
            pages.run_shell(block)
        else:
            exec(compile(text, f"snippet {number}", "exec"), names)
    assert {language for language, _ in found} == {"bash", "python"}
    return names


def test_the_snippets_of_a_generator_run_one_after_another(pushed: HubServer) -> None:
    names = follow(own(pushed, "model", "ann/c10")["README.md"].decode())
    assert len(names["small"]) == 6
    assert Image.open("generator.png").size == (6 * 32, 2 * 32)
    assert names["made"].shape == names["real"].images.shape
    assert 0 <= names["made"].min() <= names["made"].max() <= 1


def test_the_snippets_of_a_dataset_run_one_after_another(pushed: HubServer) -> None:
    names = follow(own(pushed, "dataset", "ann/c10-ddtool")["README.md"].decode())
    assert len(names["data"]) == len(names["small"]) == len(names["inputs"]) == 3


def test_the_snippets_of_a_meta_generator_run_one_after_another(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages.shorten(monkeypatch)
    done("push", "--generator", "bundled", "ann/meta")
    names = follow(own(server, "model", "ann/meta")["README.md"].decode())
    assert len(names["small"]) == 30
    assert Image.open("generator.png").size == (8 * 32, 2 * 32)


def test_each_repository_links_to_the_other(made: Made) -> None:
    assert "(https://huggingface.co/datasets/ann/c10-ddtool)" in made.model["README.md"].decode()
    assert "(https://huggingface.co/ann/c10)" in made.sets["README.md"].decode()


def test_asking_for_the_same_set_again_returns_it(pushed: HubServer, run: Path) -> None:
    first = ddtool.generate(run, 2)
    path = run / "synthetic" / "ipc2" / "exact.safetensors"
    before = path.stat().st_mtime_ns
    again = ddtool.generate(run, 2)
    assert (again.stage, again.labels.tolist()) == ("generated", first.labels.tolist())
    assert "has this set of ipc 2 already" in done("generate", run, "--ipc", 2).stderr
    assert path.stat().st_mtime_ns == before
    assert "has a set of ipc 2 already" in refused(1, "generate", run, "--ipc", 2, "--labels", "analytical")
    assert "already, refined" in refused(1, "generate", run, "--ipc", 1)
    done("generate", run, "--ipc", 2, "--force")
    assert path.stat().st_mtime_ns != before
