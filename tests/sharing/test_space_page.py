"""The page of a Space, started as the Hub starts it, of repos that were pushed; its endpoints, and what a visitor sees.

Skipped where gradio is not installed: it is no dependency of ddtool.
"""

# ruff: noqa: F811  (fixtures of test_hub)

import contextlib
import importlib.metadata
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from browser import Browser
from hub_server import HubServer
from test_hub import (  # noqa: F401  fixtures among them
    WRITE,
    Made,
    _quick_pauses,
    made,
    own,
    run,
)
from test_space import Repos, _surroundings, repos  # noqa: F401

from ddtool.sharing import cards

gradio_client = pytest.importorskip("gradio_client", reason="no gradio here: pip install gradio")
pytest.importorskip("gradio", reason="no gradio here: pip install gradio")

pytestmark = pytest.mark.timeout(600)  # each starts gradio and torch
PATIENCE = 120.0
"""Seconds that the page may take to start."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def served(folder: Path, **environment: str) -> Iterator[str]:
    """The address of the page in a folder, while it is served by a process of its own."""
    port = free_port()
    surroundings = {"GRADIO_SERVER_PORT": str(port), "GRADIO_ANALYTICS_ENABLED": "False", "HF_TOKEN": WRITE}
    log = folder / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, stdout=out, stderr=subprocess.STDOUT,
            env=os.environ | {"PYTHONPATH": str(tiny.ROOT)} | surroundings | environment,
        )  # fmt: skip
        try:
            address = f"http://127.0.0.1:{port}"
            wait_for(address, process, log)
            yield address
        finally:
            process.kill()
            process.wait()
    said = log.read_text()
    assert WRITE not in said
    assert "Traceback" not in said, said


def wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the page answers."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        assert process.poll() is None, log.read_text()
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


@pytest.fixture
def folder(server: HubServer, repos: Repos, run: Path, tmp_path: Path) -> Path:
    """The files of a Space, as they were pushed."""
    for kind, name, files in repos:
        server.seed(kind, name, files)
    tiny.done("push", run, "ann/c10", "--space")
    place = tmp_path / "space"
    place.mkdir()
    for name, data in own(server, "space", "ann/c10").items():
        (place / name).write_bytes(data)
    return place


def captions(gallery: list[dict[str, Any]]) -> list[str]:
    """The first word below each picture."""
    return [str(item["caption"]).partition(" ")[0] for item in gallery]


def test_the_page_shows_makes_and_trains(folder: Path, server: HubServer) -> None:
    with served(folder) as address:
        client = gradio_client.Client(address, verbose=False)
        all_of_it = client.predict("4 per class, generated", "all classes", api_name="/show")
        assert captions(all_of_it) == [name for name in tiny.CLASSES for _ in range(4)]
        one = client.predict("4 per class, generated", "coat", api_name="/show")
        assert captions(one) == ["coat"] * 4

        made, *choices = client.predict(2, api_name="/generate")
        assert captions(made) == [name for name in tiny.CLASSES for _ in range(2)]
        assert "2 per class, made here" in str(choices[0])

        *_, (plot, said) = client.submit("2 per class, made here", 20, "held-out images of the set", api_name="/train")
        assert said.startswith("Step 20 of 20: ")
        assert said.endswith(" % of 3 images right.")
        assert [point[0] for point in plot["data"]] == list(range(21))
        *_, (_, said) = client.submit(
            "1 per class, refined", 20, "real test images (downloads the dataset)", api_name="/train"
        )
        assert said.endswith(" % of 30 images right.")

        with pytest.raises(Exception, match="none can be held out"):
            client.predict("1 per class, refined", 20, "held-out images of the set", api_name="/train")
        names = set(client.view_api(return_format="dict")["named_endpoints"])
        assert {"/show", "/generate", "/train"} <= names


PICTURES = "[...document.querySelectorAll('img')].filter(i => i.offsetParent && i.alt.includes('%')).length"
"""How many images of a set are seen."""


def open_tab(browser: Browser, name: str) -> None:
    tabs = "[...document.querySelectorAll('button[role=tab]')]"
    browser.value(f"{tabs}.find(tab => tab.innerText.trim() == '{name}').click()")


def press(browser: Browser, name: str) -> None:
    """Click the button of that name that is seen."""
    buttons = "[...document.querySelectorAll('button')].filter(b => b.offsetParent)"
    browser.value(f"{buttons}.find(b => b.innerText.trim() == '{name}').click()")


def test_a_visitor_sees_the_set_and_a_curve(folder: Path, browser: Browser, tmp_path: Path) -> None:
    with served(folder) as address:
        browser.open(address, width=1280, height=1000)
        browser.wait(f"{PICTURES} >= 12")
        assert "cifar10: a small set to train on" in browser.value("document.body.innerText")
        browser.screenshot(tmp_path / "set.png")
        open_tab(browser, "Another size")
        press(browser, "Generate")
        browser.wait(f"{PICTURES} >= 3")
        browser.screenshot(tmp_path / "size.png")
        open_tab(browser, "Train a network")
        press(browser, "Train")
        browser.wait("document.body.innerText.includes('Step 200 of 200')")
        browser.screenshot(tmp_path / "train.png")


def test_a_training_is_stopped(folder: Path, browser: Browser) -> None:
    text = (folder / "app.py").read_text()
    (folder / "app.py").write_text(text.replace("value=200, step=20", "value=500, step=20"))
    step = "document.body.innerText.match(/Step (\\d+) of 500/)"
    with served(folder) as address:
        browser.open(address, width=1280, height=1000)
        browser.wait(f"{PICTURES} >= 12")
        open_tab(browser, "Train a network")
        press(browser, "Train")
        browser.wait(step)
        press(browser, "Stop")
        time.sleep(1)
        stopped = browser.value(f"{step}[1]")
        time.sleep(3)
        assert browser.value(f"{step}[1]") == stopped != "500"


def test_the_page_of_a_space_without_ddtool_says_so(folder: Path) -> None:
    (folder / "ddtool.py").write_text("raise ImportError('not installed')\n")
    with served(folder, PYTHONPATH="") as address:
        assert "ddtool is missing" in urllib.request.urlopen(address).read().decode()


def test_repos_that_cannot_be_read_are_said(folder: Path, server: HubServer) -> None:
    server.repos["dataset", "ann/c10-ddtool"].private = True
    with served(folder, HF_TOKEN="", HF_HOME=str(folder / "hf")) as address:
        page = urllib.request.urlopen(address).read().decode()
    assert "Nothing can be shown" in page
    assert "HF_TOKEN" in page


def test_the_gradio_here_is_of_the_major_version_that_a_space_asks_for() -> None:
    assert importlib.metadata.version("gradio").partition(".")[0] == cards.GRADIO.partition(".")[0]
