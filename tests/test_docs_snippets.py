"""Every snippet of the documentation runs, as it stands, on the bundled sample and on the Hub of the tests, with short presets."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pages
import pytest
import tiny
from conftest import HUB
from hub_server import HubServer
from pages import GENERATED, PAGES, blocks
from safetensors import safe_open
from test_hub import cifar

from ddtool import config
from ddtool.data import augment
from ddtool.evaluation import protocols
from ddtool.models import convnet as nets
from ddtool.models import registry
from ddtool.sources import names

TOKEN = "hf_docssecret0123456789"
REGISTRIES: list[dict[str, Any]] = [
    config.PRESETS, protocols.PROTOCOLS, nets.NORMS, names._SHORT, names.ALIASES, augment.FAMILIES,
    registry.NETWORKS,
]  # fmt: skip
NO_RUN = {
    "docs/quickstart.md": 2,
    "docs/pretraining.md": 6,
    "docs/methods.md": 1,
    "docs/docker.md": 4,
    "docs/compare.md": 7,
    "docs/examples.md": 2,
    "docs/faq.md": 1,
}
"""Blocks that are not run, but parsed, by page: installation; GPUs, launchers, SLURM, Jobs; what takes hours."""
PARSED_ONLY = ("README.md",)
"""Pages whose shell lines take long even with short presets, or name what is not here; their Python runs."""


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pages take for granted: runs/sample, runs/meta and my-images."""
    folder = tmp_path_factory.mktemp("workshop")
    with pytest.MonkeyPatch.context() as patch:
        surroundings(patch, folder, tmp_path_factory)
        tiny.done("adapt", "sample", "--ipc", 10, "--out", "runs/sample")
        tiny.done("pretrain", "sample", "--out", "runs/meta")
    tiny.image_folder(folder / "my-images", side=32)
    return folder


def surroundings(patch: pytest.MonkeyPatch, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    patch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    patch.setenv("HF_TOKEN", TOKEN)
    for name in ("DDTOOL_DEBUG", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        patch.delenv(name, raising=False)
    patch.chdir(folder)
    pages.shorten(patch)


@pytest.fixture
def desk(
    workshop: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch,
    server: HubServer,
) -> Iterator[HubServer]:  # fmt: skip
    """A copy of the workshop as the current folder, and a Hub where the login is NAMESPACE's."""
    surroundings(monkeypatch, tmp_path, tmp_path_factory)
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    server.add_token(TOKEN, "NAMESPACE")
    server.seed("dataset", "uoft-cs/cifar10", cifar())
    before = [dict(table) for table in REGISTRIES]
    yield server
    for table, kept in zip(REGISTRIES, before, strict=True):
        table.clear()
        table.update(kept)


def runnable(page: str) -> list[pages.Block]:
    return [
        block
        for block in blocks(page, "python", "bash")
        if not block.no_run and not (block.language == "bash" and page in PARSED_ONLY)
    ]


@pytest.mark.parametrize("page", [page for page in PAGES if runnable(page) and page not in GENERATED])
def test_the_snippets_of_a_page_run(page: str, desk: HubServer) -> None:
    if page == "docs/formats.md":
        tiny.done("push", "runs/sample", "NAMESPACE/sample")
    names: dict[str, Any] = {"__name__": "snippets"}
    for block in runnable(page):
        if block.language == "python":
            pages.run_python(block, names)
        else:
            pages.run_shell(block)


def test_what_is_not_run_is_listed() -> None:
    counts = {page: sum(block.no_run for block in blocks(page)) for page in PAGES if page not in GENERATED}
    assert {page: count for page, count in counts.items() if count} == NO_RUN
    assert {block.language for page in PAGES for block in blocks(page)} <= {"bash", "python", "text"}


def test_a_wrong_snippet_is_found(desk: HubServer) -> None:
    with pytest.raises(AssertionError, match="1 line here"):
        pages.run_python(pages.Block("docs/x.md", 7, "python", False, "assert False, '1 line here'"), {})
    with pytest.raises(AssertionError, match="no command of ddtool"):
        pages.run_shell(pages.Block("docs/x.md", 7, "bash", False, "ls runs"))
    with pytest.raises(AssertionError):
        pages.run_shell(pages.Block("docs/x.md", 7, "bash", False, "ddtool info runs/none"))


# ------------------------------------------------------------------------------------------------------------- formats


FORMATS = PAGES["docs/formats.md"].read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", FORMATS))


def general(name: str) -> str:
    """A file or tensor name as the page writes it: ipcN, iteration-N, body.I, optimiser.I."""
    name = re.sub(r"ipc\d+", "ipcN", re.sub(r"iteration-\d+", "iteration-N", name))
    return re.sub(r"^(body|theta|optimiser)\.\d+", r"\1.I", name)


@pytest.mark.parametrize("folder", ["runs/sample", "runs/meta"])
def test_the_page_names_every_file(folder: str, desk: HubServer) -> None:
    assert {general(name) for name in tiny.listing(Path(folder))} <= NAMED


def test_the_page_names_every_file_and_fact_of_the_repos(desk: HubServer) -> None:
    tiny.done("push", "runs/sample", "NAMESPACE/sample")
    tiny.done("push", "--generator", "runs/meta", "NAMESPACE/meta")
    for kind, repo in (("model", "sample"), ("dataset", "sample-ddtool"), ("model", "meta")):
        held = {name: data for name, data in HUB.files(kind, f"NAMESPACE/{repo}").items() if name != ".gitattributes"}
        row = next(line for line in FORMATS.splitlines() if line.startswith(ROWS[repo]))
        assert {general(name) for name in held} == set(re.findall(r"`([\w./]+\.\w+)`", row.split("|")[2]))
        facts = json.loads(held["ddtool.json"])
        keys = {*facts, *(key for made in facts["sets"].values() for key in made), facts["kind"]}
        assert keys <= NAMED


def test_types_and_shapes_in_the_table_of_a_set(desk: HubServer) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (F32|I64) \| (\(.*?\)) \|", FORMATS, re.MULTILINE)
    with safe_open("runs/sample/synthetic/ipc10/exact.safetensors", framework="pt") as file:
        parts = {name: file.get_slice(name) for name in list(file.keys())}
    sizes = {"m": 100, "c": 1, "h": 28, "w": 28, "C": 10}
    said = {name: (dtype, [sizes[letter] for letter in re.findall(r"\w", shape)]) for name, dtype, shape in rows}
    assert said == {name: (part.get_dtype(), list(part.get_shape())) for name, part in parts.items()}


ROWS = {"sample": "| `NAMESPACE/NAME` ", "sample-ddtool": "| `NAMESPACE/NAME-ddtool` ", "meta": "| a meta generator's "}


def test_the_page_names_every_tensor_and_key(desk: HubServer) -> None:
    for path in sorted(Path("runs").rglob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            tensors, metadata = list(file.keys()), file.metadata()
        if path.parent.name == "checkpoints":
            tensors = ["tensor.NAME" if name.startswith("tensor.") else name for name in tensors]
        assert {general(name) for name in tensors} <= NAMED, path
        info = json.loads(metadata["ddtool"]) if "ddtool" in metadata else {}
        assert {*info, *info.get("source", {})} <= NAMED, path
        assert info or metadata.keys() <= {"format", "ddtool", "digest"}
    for name in ("runs/sample/env.json", "runs/meta/env.json", "runs/meta/generator/pretraining.json"):
        told = json.loads(Path(name).read_text())
        assert {*told, *(key for data in told.get("datasets", []) for key in data)} <= NAMED, name
    results = json.loads(Path("runs/sample/results.json").read_text())
    assert {*results, *map(general, results["facts"]), *(key for score in results["scores"] for key in score)} <= NAMED
    for name in ("runs/sample/metrics.jsonl", "runs/meta/metrics.jsonl"):
        for line in Path(name).read_text().splitlines():
            assert json.loads(line).keys() <= NAMED, line
