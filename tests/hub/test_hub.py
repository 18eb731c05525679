"""Push, pull and everything that takes a Hub id, by the true clients over HTTP against tests/hub_server.py."""

import dataclasses
import io
import json
import os
import pickle
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tiny
import torch
from conftest import HUB
from hub_server import (
    Corrupt,
    CutDownload,
    HubServer,
    LoseAnswer,
    ResetBefore,
    ResetDownload,
    ResetUpload,
    Status,
    Truncate,
)
from PIL import Image
from processes import forked
from safetensors.torch import load, save
from tiny import done, refused

import ddtool as package
from ddtool import api, load_set
from ddtool.errors import DDToolError, HubError, UsageError
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Request
from ddtool.hub import client, download, generators, names
from ddtool.models.generator import Generator
from ddtool.runs.run import Run

WRITE, READ = "hf_writesecret0123456789", "hf_readsecret0123456789"
SCRATCH = tiny.OPTIONS
ADAPT = ["adapt", "cifar10", "--ipc", 1, "--out", "run", *SCRATCH]
MODEL_FILES = [
    "README.md",
    "config.json",
    "ddtool.json",
    "labels.safetensors",
    "model.safetensors",
    "pool/train.parquet",
    "preview.png",
]
SET_FILES = ["README.md", "ddtool.json", "ipc1/exact.safetensors", "ipc1/train.parquet", "preview.png"]
WRITES = re.compile(r"POST .*/(create|preupload|commit|branch)|PUT ")


@pytest.fixture(scope="module", autouse=True)
def _quick_pauses() -> Iterator[None]:
    """The client waits seconds before it asks a busy Hub again."""
    sleep = time.sleep
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.005)))
        yield


def surroundings(patch: pytest.MonkeyPatch, folder: Path, decoded: Path) -> None:
    patch.setenv("HF_TOKEN", WRITE)
    patch.setenv("DDTOOL_CACHE", str(decoded))
    patch.chdir(folder)
    tiny.shorten_protocols(patch)


@pytest.fixture(autouse=True)
def _surroundings(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    surroundings(monkeypatch, tmp_path, tmp_path_factory.getbasetemp() / "decoded")
    seed_hub(server)


def seed_hub(server: HubServer) -> None:
    """Two accounts, and uoft-cs/cifar10: 3 classes, 30 training and 24 test images, 3x32x32."""
    server.add_token(WRITE, "ann", orgs=["lab"])
    server.add_token(READ, "ann", role="read")
    server.seed("dataset", "uoft-cs/cifar10", cifar())


def cifar() -> dict[str, bytes]:
    if not _CIFAR:
        for split in ("train", "test"):
            rows = [(png, label) for label, name in enumerate(tiny.CLASSES) for png in tiny.pictures(split, 32)[label]]
            images = [{"bytes": coloured(png), "path": None} for png, _ in rows]
            features = {"img": datasets.Image(), "label": datasets.ClassLabel(names=list(tiny.CLASSES))}
            table = datasets.Dataset.from_dict(
                {"img": images, "label": [label for _, label in rows]}, features=datasets.Features(features)
            )
            out = io.BytesIO()
            table.to_parquet(out)
            _CIFAR[f"plain_text/{split}-00000-of-00001.parquet"] = out.getvalue()
        _CIFAR["README.md"] = (
            b"---\nlicense: cc-by-4.0\nconfigs:\n- config_name: plain_text\n  data_files:\n"
            b"  - {split: train, path: plain_text/train-*}\n  - {split: test, path: plain_text/test-*}\n---\n# CIFAR\n"
        )
    return _CIFAR


_CIFAR: dict[str, bytes] = {}


def coloured(png: bytes) -> bytes:
    out = io.BytesIO()
    Image.merge("RGB", [Image.open(io.BytesIO(png)).convert("L")] * 3).save(out, "PNG")
    return out.getvalue()


@dataclasses.dataclass
class Made:
    """A finished run of the Hub's cifar10, and the repos it makes."""

    run: Path
    model: dict[str, bytes]
    sets: dict[str, bytes]


@cache
def make(base: Path) -> tuple[Made, dict[str, bytes]]:
    """`ddtool adapt cifar10 --ipc 1`, pushed once in this process; and the files of the run as they were."""
    folder = base / "made"
    folder.mkdir()
    HUB.reset()
    seed_hub(HUB)
    with pytest.MonkeyPatch.context() as patch:
        surroundings(patch, folder, base / "decoded")
        done(*ADAPT)
        before = {name: (folder / "run" / name).read_bytes() for name in tiny.listing(folder / "run")}
        done("push", "run", "ann/c10")
    made = Made(folder / "run", own(HUB, "model", "ann/c10"), own(HUB, "dataset", "ann/c10-ddtool"))
    HUB.reset()
    return made, before


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    """A finished run and its repos, the same ones for all modules; the run is not to be changed by any test."""
    made, before = make(tmp_path_factory.getbasetemp())
    yield made
    assert {name: (made.run / name).read_bytes() for name in tiny.listing(made.run)} == before


@pytest.fixture
def run(made: Made, tmp_path: Path) -> Path:
    """A copy of the finished run, at run/ in the current folder."""
    shutil.copytree(made.run, tmp_path / "run")
    return Path("run")


@pytest.fixture
def pushed(made: Made, server: HubServer) -> HubServer:
    """The Hub after that push."""
    server.seed("model", "ann/c10", made.model)
    server.seed("dataset", "ann/c10-ddtool", made.sets)
    server.requests.clear()
    return server


def own(server: HubServer, kind: str, repo: str, revision: str = "main") -> dict[str, bytes]:
    """A repo's files without the Hub's own."""
    return {name: data for name, data in server.files(kind, repo, revision).items() if name != ".gitattributes"}


def writes(server: HubServer) -> list[str]:
    return [f"{r.method} {r.path}" for r in server.requests if WRITES.match(f"{r.method} {r.path}")]


def commits(server: HubServer, kind: str, repo: str) -> int:
    """Commits on top of the first one, that every repo has."""
    return len(server.commits(kind, repo)) - 1 if server.exists(kind, repo) else 0


def facts(server: HubServer, kind: str, repo: str, revision: str = "main") -> dict[str, Any]:
    return json.loads(server.files(kind, repo, revision)["ddtool.json"])


# ----------------------------------------------------------------------------------------------------- the whole round


def test_pull_a_generator_adapt_push_and_use_from_the_hub(server: HubServer) -> None:
    done("push", "--generator", "bundled", "ann/meta")
    assert set(own(server, "model", "ann/meta")) == {"README.md", "config.json", "ddtool.json", "model.safetensors"}
    meta = server.commits("model", "ann/meta")[0].sha
    result = done("pull", "ann/meta")
    assert result.stdout == "generators/meta\n"
    for name in ("config.json", "model.safetensors"):
        assert Path("generators/meta", name).read_bytes() == (generators.bundled_folder() / name).read_bytes()

    done(*ADAPT, "--generator", "ann/meta", "--refine-steps", 0)
    said = json.loads((generators.bundled_folder() / "pretraining.json").read_text())
    assert json.loads(Path("run/results.json").read_text())["facts"]["pretraining_seconds"] == said["seconds"]
    config = json.loads(Path("run/config.json").read_text())
    data = server.commits("dataset", "uoft-cs/cifar10")[0].sha
    assert (config["dataset"], config["data"], config["generator"]) == (
        "cifar10",
        {"revision": data},
        f"ann/meta@{meta}",
    )

    result = done("push", "run", "ann/c10", "--json")
    assert json.loads(result.stdout)["model"]["changed"]
    assert sorted(own(server, "model", "ann/c10")) == MODEL_FILES
    assert sorted(own(server, "dataset", "ann/c10-ddtool")) == SET_FILES
    assert commits(server, "model", "ann/c10") == commits(server, "dataset", "ann/c10-ddtool") == 1
    stated = facts(server, "model", "ann/c10")
    assert (stated["generator"], stated["source"]["revision"], stated["source"]["licence"]) == (
        f"ann/meta@{meta}",
        data,
        "cc-by-4.0",
    )

    done("generate", "ann/c10", "--ipc", 2)
    done("evaluate", "ann/c10-ddtool", "--on", "cifar10", "--protocol", "quick", "--eval-seeds", 1)
    assert Path("runs/c10/synthetic/ipc2/exact.safetensors").is_file()


def test_the_set_loads_with_plain_datasets(made: Made, pushed: HubServer) -> None:
    table = datasets.load_dataset("ann/c10-ddtool", "ipc1", split="train")
    assert isinstance(table.features["image"], datasets.Image)
    assert table.features["label"].names == list(tiny.CLASSES)
    exact = load_set("ann/c10-ddtool", ipc=1)
    assert torch.equal(torch.tensor(table["soft_label"][:]), exact.labels)
    assert table["label"][:] == exact.hard.tolist()
    assert table[0]["image"].size == (32, 32)
    local = Run(made.run).load_set(1)
    assert all(torch.equal(getattr(exact, name), getattr(local, name)) for name in ("images", "labels", "hard"))
    assert (exact.source, exact.mean) == (local.source, local.mean)


WITHOUT_DDTOOL = """
import sys
sys.modules["ddtool"] = None  # as where it is not installed
try:
    import ddtool
except ImportError:
    print("no ddtool")
from datasets import load_dataset
print(len(load_dataset("ann/c10-ddtool")["train"]))
print(len(load_dataset("ann/c10-ddtool", "ipc1")["train"]))
"""


def test_the_set_loads_without_ddtool_and_without_a_configuration(pushed: HubServer, run: Path, tmp_path: Path) -> None:
    done("generate", run, "--ipc", 2)
    done("push", run, "ann/c10")
    (tmp_path / "elsewhere").mkdir()
    result = tiny.python(WITHOUT_DDTOOL, HF_HOME=str(tmp_path / "hf"), PYTHONPATH="")
    assert result.stdout == "no ddtool\n6\n3\n", result.stderr


def test_the_cards_are_what_the_hub_reads(pushed: HubServer, made: Made) -> None:
    model = huggingface_hub.ModelCard(made.model["README.md"].decode())
    assert (model.data.library_name, model.data.datasets, model.data.license) == (
        "ddtool",
        ["uoft-cs/cifar10"],
        "cc-by-4.0",  # from scratch: nothing but the source's
    )
    assert {result.dataset_type for result in model.data.eval_results} == {"uoft-cs/cifar10"}
    sets = huggingface_hub.DatasetCard(made.sets["README.md"].decode())
    assert [config["config_name"] for config in sets.data.configs] == ["ipc1"]
    assert "ddtool adapt cifar10 --ipc 1 --seed 0" in sets.text
    assert "secret" not in model.content + sets.content


def test_the_command_on_the_card_makes_the_same_set(made: Made) -> None:
    command = json.loads(made.sets["ddtool.json"])["sets"]["1"]["command"]
    assert "--precision fp32 --threads 1" in command
    done(*shlex.split(command)[1:])
    (again,) = Path("runs").iterdir()
    assert tiny.all_bytes(again) == tiny.all_bytes(made.run)


def test_from_python(pushed: HubServer, made: Made) -> None:
    weights = load(made.model["model.safetensors"])
    assert all(
        torch.equal(value, weights[name]) for name, value in Generator.from_pretrained("ann/c10").state_dict().items()
    )
    assert len(package.generate("ann/c10", 2, engine=tiny.ENGINE)) == 6
    scores = api.evaluate("ann/c10-ddtool", on="cifar10", protocol="kernel-ridge", seeds=1, engine=tiny.ENGINE)
    assert [score.stage for score in scores] == ["refined", "random"]
    assert package.pull("ann/c10-ddtool", out="here") == Path("here")
    assert [made.changed for made in package.push("runs/c10", "ann/c10", only="generator")] == [
        ("ddtool.json", "README.md")
    ]


def test_a_pulled_run_makes_the_same_sets(pushed: HubServer, made: Made, run: Path) -> None:
    done("generate", run, "--ipc", 3, "--precision", "fp32")
    done("pull", "ann/c10", "--out", "pulled")
    done("generate", "pulled", "--ipc", 3, "--precision", "fp32")
    name = "synthetic/ipc3/exact.safetensors"
    assert Path("pulled", name).read_bytes() == (run / name).read_bytes()


def test_without_a_pool_it_is_drawn_again_from_the_pinned_dataset(server: HubServer, run: Path) -> None:
    done("push", run, "ann/c10", "--no-pool")
    assert "pool/train.parquet" not in own(server, "model", "ann/c10")
    server.seed(
        "dataset",
        "uoft-cs/cifar10",
        {"plain_text/train-00000-of-00001.parquet": cifar()["plain_text/test-00000-of-00001.parquet"]},
    )
    result = done("generate", "ann/c10", "--ipc", 1, "--precision", "fp32")
    assert "drawing them from cifar10 again" in result.stderr
    pool, _ = Run(Path("runs/c10")).load_pool(tiny.CLASSES)
    assert torch.equal(pool, Run(run).load_pool(tiny.CLASSES)[0])


def test_without_a_pool_and_without_the_dataset_it_says_why(tmp_path: Path, server: HubServer) -> None:
    tiny.adapt(tiny.image_folder(tmp_path / "clothes"), tmp_path / "run")
    done("push", "run", "ann/clothes", "--no-pool")
    stderr = refused(1, "generate", "ann/clothes", "--ipc", 1)
    assert "has no initial samples" in stderr
    assert "'clothes'" in stderr


def test_the_bundled_sample_goes_round(server: HubServer) -> None:
    done("adapt", "sample", "--ipc", 1, "--out", "run", *SCRATCH, "--max-per-class", 20)
    done("push", "run", "ann/sample", "--no-pool")
    done("generate", "ann/sample", "--ipc", 1)
    assert "fashion_mnist" in server.files("dataset", "ann/sample-ddtool")["README.md"].decode()


def test_a_repo_of_the_other_kind_with_the_same_name_is_no_hindrance(pushed: HubServer) -> None:
    pushed.seed("dataset", "ann/c10", {"notes.txt": b"of something else"})
    assert "in the dataset repo" in done("evaluate", "ann/c10", "--protocol", "kernel-ridge", "--eval-seeds", 1).stderr
    pushed.seed("model", "uoft-cs/cifar10", {"notes.txt": b"of something else"})
    assert "train images" in done("info", "cifar10").stdout + done("info", "uoft-cs/cifar10").stdout


def test_evaluate_a_generator_goes_to_its_sets(pushed: HubServer) -> None:
    result = done("evaluate", "ann/c10", "--protocol", "kernel-ridge", "--eval-seeds", 1)
    assert "are in the dataset repo ann/c10-ddtool" in result.stderr
    assert "of ipc 7" in refused(1, "evaluate", "ann/c10-ddtool", "--ipc", 7)
    assert "are refined" in refused(2, "evaluate", "ann/c10-ddtool", "--stage", "initial")


def test_a_pulled_folder_of_sets_is_evaluated(pushed: HubServer) -> None:
    assert done("pull", "ann/c10-ddtool", "-q").stdout == "sets/c10-ddtool\n"
    assert "refined" in done("evaluate", "sets/c10-ddtool", "--protocol", "kernel-ridge", "--eval-seeds", 1).stdout
    table = datasets.load_dataset("sets/c10-ddtool/ipc1", split="train")
    assert len(table) == 3


@pytest.mark.parametrize(("name", "kind"), [("ann/c10", "adapted-generator"), ("ann/c10-ddtool", "synthetic-dataset")])
def test_info_of_a_repo(pushed: HubServer, name: str, kind: str) -> None:
    shown = json.loads(done("info", name, "--json").stdout)
    assert (shown["repo"], shown["kind"], shown["sets (ipc)"]) == (name, kind, [1])
    assert {score["stage"] for score in shown["scores"]} == {"random", "generated", "refined"}
    assert not [r for r in pushed.requests if "safetensors" in r.path]
    assert "cc-by-4.0" in done("info", name).stdout


def test_info_of_another_dataset_reads_it(server: HubServer) -> None:
    assert "train images" in done("info", "uoft-cs/cifar10").stdout


# ---------------------------------------------------------------------------------------------------------------- push


def test_pushing_again_changes_nothing_and_says_so(pushed: HubServer, run: Path) -> None:
    result = done("push", run, "ann/c10")
    assert result.stderr.count("nothing has changed") == 2
    assert result.stdout.count("none") == 2
    assert writes(pushed) == []


def test_everything_is_written_alike_twice(made: Made, server: HubServer, run: Path) -> None:
    """A second run of the same seed has the same sets, pool and picture to the byte."""
    done(*ADAPT[: -len(SCRATCH)][:4], "--out", "other", *SCRATCH, "--precision", "fp32")
    names = ["synthetic/ipc1/train.parquet", "synthetic/ipc1/exact.safetensors", "pool/train.parquet", "preview.png"]
    assert all(Path("other", name).read_bytes() == (made.run / name).read_bytes() for name in names)


def test_another_ipc_is_added_and_the_rest_kept(pushed: HubServer, made: Made, run: Path) -> None:
    done("generate", run, "--ipc", 2)
    shutil.rmtree(run / "synthetic" / "ipc1")
    done("push", run, "ann/c10")
    files = own(pushed, "dataset", "ann/c10-ddtool")
    assert sorted(files) == sorted([*SET_FILES, "ipc2/exact.safetensors", "ipc2/train.parquet"])
    assert all(files[f"ipc1/{name}"] == made.sets[f"ipc1/{name}"] for name in ("exact.safetensors", "train.parquet"))
    for kind, repo in (("dataset", "ann/c10-ddtool"), ("model", "ann/c10")):
        sets = facts(pushed, kind, repo)["sets"]
        assert sets["1"] == json.loads(made.sets["ddtool.json"])["sets"]["1"]
        assert (sets["2"]["stage"], sets["2"]["images"]) == ("generated", 6)
    assert datasets.get_dataset_config_names("ann/c10-ddtool") == ["ipc1", "ipc2"]
    with pytest.raises(UsageError, match="several sets"):
        load_set("ann/c10-ddtool")


def test_another_generator_needs_force(pushed: HubServer, made: Made) -> None:
    done(*ADAPT, "--seed", 1)
    for option, what in (("generator", "another generator"), ("dataset", "another set of ipc 1")):
        stderr = refused(1, "push", "run", "ann/c10", "--only", option)
        assert what in stderr
        assert "--force" in stderr
    assert writes(pushed) == []
    done("push", "run", "ann/c10", "--force")
    assert facts(pushed, "model", "ann/c10")["sets"]["1"]["config"]["seed"] == 1
    assert own(pushed, "model", "ann/c10")["model.safetensors"] != made.model["model.safetensors"]


def test_sets_of_other_classes_go_elsewhere(pushed: HubServer, tmp_path: Path) -> None:
    tiny.adapt(tiny.image_folder(tmp_path / "clothes", names=("x", "y", "z")), tmp_path / "run")
    assert "of other classes" in refused(1, "push", "run", "ann/c10", "--only", "dataset", "--force")


def test_a_repo_of_something_else_is_left_alone(server: HubServer, run: Path) -> None:
    server.seed("model", "ann/c10", {"README.md": b"mine", "model.safetensors": b"mine too"})
    server.requests.clear()
    assert "was not made by ddtool and holds README.md, model.safetensors" in refused(1, "push", run, "ann/c10")
    assert writes(server) == []
    server.seed("model", "ann/c11", {"README.md": b"a card, made with the repo"})
    done("push", run, "ann/c11", "--dry-run")
    server.seed("model", "ann/c11", {"README.md": b"a card, made with the repo", "notes.txt": b"kept"})
    stderr = refused(1, "push", run, "ann/c11")
    assert "was not made by ddtool and holds README.md" in stderr
    assert writes(server) == []
    done("push", run, "ann/c11", "--force")
    assert own(server, "model", "ann/c11")["notes.txt"] == b"kept"


def test_dry_run_shows_files_sizes_and_cards_and_writes_nothing(server: HubServer, made: Made, run: Path) -> None:
    result = done("push", run, "ann/c10", "--dry-run", "--json")
    plan = json.loads(result.stdout)
    assert [f["file"] for f in plan["model"]["files"]] == MODEL_FILES
    assert [f["file"] for f in plan["dataset"]["files"]] == SET_FILES
    assert {f["state"] for part in plan.values() for f in part["files"]} == {"new"}
    sizes = {f["file"]: f["bytes"] for f in plan["model"]["files"]}
    assert sizes["pool/train.parquet"] == (run / "pool/train.parquet").stat().st_size
    assert plan["model"]["card"].encode() == made.model["README.md"]
    assert writes(server) == []
    shown = done("push", run, "ann/c10", "--dry-run").stdout
    assert "license: cc-by-4.0" in shown
    assert "pool/train.parquet" in shown


def test_dry_run_says_what_would_change(pushed: HubServer, run: Path) -> None:
    done("generate", run, "--ipc", 2)
    plan = json.loads(done("push", run, "ann/c10", "--no-pool", "--dry-run", "--json").stdout)
    states = {f["file"]: f["state"] for part in plan.values() for f in part["files"]}
    assert states["pool/train.parquet"] == "removed"
    assert (states["ipc1/exact.safetensors"], states["ipc2/exact.safetensors"]) == ("same", "new")
    assert (states["README.md"], states["model.safetensors"]) == ("changed", "same")
    assert writes(pushed) == []


def test_the_pool_can_be_taken_back(pushed: HubServer, run: Path) -> None:
    done("push", run, "ann/c10", "--no-pool", "--only", "generator")
    assert sorted(own(pushed, "model", "ann/c10")) == [name for name in MODEL_FILES if "pool" not in name]
    assert facts(pushed, "model", "ann/c10")["pool"] == 0
    assert facts(pushed, "model", "ann/c10")["dataset_repo"] == "ann/c10-ddtool"


@pytest.mark.parametrize(
    ("only", "kind", "repo"), [("generator", "model", "ann/c10"), ("dataset", "dataset", "ann/c10-ddtool")]
)
def test_one_repo_alone(server: HubServer, run: Path, only: str, kind: str, repo: str) -> None:
    done("push", run, "ann/c10", "--only", only)
    assert {key for key in server.repos if key[1].startswith("ann/")} == {(kind, repo)}
    stated = facts(server, kind, repo)
    assert (stated["model_repo"], stated["dataset_repo"]) == (None, None)


def test_an_organisation_and_a_name_for_the_sets(server: HubServer, run: Path) -> None:
    done("push", run, "lab/c10", "--dataset-repo", "ann/small-cifar", "--private")
    assert facts(server, "model", "lab/c10")["dataset_repo"] == "ann/small-cifar"
    assert server.repos["model", "lab/c10"].private
    assert server.repos["dataset", "ann/small-cifar"].private
    done("push", run, "lab/c10", "--dataset-repo", "ann/small-cifar", "--private")
    assert load_set("ann/small-cifar").ipc == 1


def test_private_does_not_publish(pushed: HubServer, run: Path) -> None:
    assert "is public" in refused(1, "push", run, "ann/c10", "--private")
    assert writes(pushed) == []


def test_a_pull_request(pushed: HubServer, run: Path) -> None:
    done("generate", run, "--ipc", 2)
    result = done("push", run, "ann/c10", "--create-pr", "-q")
    assert re.fullmatch(r"(http://\S+/discussions/1\n){2}", result.stdout)
    assert commits(pushed, "dataset", "ann/c10-ddtool") == 1
    assert "ipc2/train.parquet" in own(pushed, "dataset", "ann/c10-ddtool", "refs/pr/1")
    assert done("push", run, "ann/c10", "--create-pr", "-q").stdout == result.stdout
    assert "refs/pr/2" not in pushed.repos["model", "ann/c10"].refs
    assert "exclude each other" in refused(2, "push", run, "ann/c10", "--create-pr", "--revision", "v2")


def test_a_branch_is_made_and_main_stays(pushed: HubServer, run: Path, made: Made) -> None:
    done("generate", run, "--ipc", 2)
    for _ in range(2):
        done("push", run, "ann/c10", "--revision", "v2")
    assert own(pushed, "model", "ann/c10") == made.model
    assert sorted(facts(pushed, "model", "ann/c10", "v2")["sets"]) == ["1", "2"]
    history = pushed.commits("dataset", "ann/c10-ddtool", "v2")
    assert history[0].title == "cifar10, distilled: IPC 1, 2, by ddtool"
    assert len(history) == 3
    done("push", run, "ann/new", "--revision", "v2")
    assert own(pushed, "model", "ann/new") == {}
    assert load_set("ann/new-ddtool@v2", 2).ipc == 2


def test_local_data_goes_without_its_place(server: HubServer, tmp_path: Path) -> None:
    run = tiny.adapt(tiny.image_folder(tmp_path / "clothes"), tmp_path / "run")
    before = tiny.all_bytes(run.folder)
    done("push", "run", "ann/clothes")
    for kind, repo in (("model", "ann/clothes"), ("dataset", "ann/clothes-ddtool")):
        for name, data in server.files(kind, repo).items():
            assert str(tmp_path).encode() not in data, name
        assert facts(server, kind, repo)["source"]["name"] == "clothes"
    assert tiny.all_bytes(run.folder) == before
    done("push", "run", "ann/clothes")
    assert commits(server, "model", "ann/clothes") == 1
    assert torch.equal(load_set("ann/clothes-ddtool").images, run.load_set(2).images)
    done("generate", "ann/clothes", "--ipc", 3)
    assert "--on DATASET" in refused(2, "evaluate", "ann/clothes-ddtool")
    assert (
        "refined"
        in done("evaluate", "ann/clothes-ddtool", "--on", "clothes/", "--protocol", "quick", "--eval-seeds", 1).stdout
    )


def test_an_unfinished_run_is_not_pushed(server: HubServer, run: Path) -> None:
    (run / "checkpoints").mkdir()
    assert f"ddtool adapt --resume {run}" in refused(1, "push", run, "ann/c10")
    assert writes(server) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run"], "Give a run and a repo"),
        (["run", "nobody"], "not a repo to push to"),
        (["run", "ann/c10@v1"], "not a repo to push to"),
        (["run", "ann/../c10"], "not a repo to push to"),
        (["run", "ann/c10", "--only", "model"], "--only takes"),
        (["--generator", "bundled", "run", "ann/meta"], "give the repo alone"),
        (["--generator", "bundled", "ann/meta", "--no-pool"], "one repo and no pool"),
    ],
)
def test_push_refuses_what_it_cannot_mean(words: list[str], said: str, run: Path, server: HubServer) -> None:
    assert said in refused(2, "push", *words)
    assert writes(server) == []


def test_what_is_no_run_is_not_pushed(server: HubServer) -> None:
    assert "No run of ddtool at absent" in refused(1, "push", "absent", "ann/c10")
    assert "No generator" in refused(1, "push", "--generator", "bundeld", "ann/c10")


# ------------------------------------------------------------------------------------------------------ adapt --push-to


def test_adapt_pushes_to(server: HubServer) -> None:
    result = done(*ADAPT, "--push-to", "ann/c10", "--private", "--json")
    assert json.loads(result.stdout)["pushed"]["model"].endswith("/ann/c10")
    assert "secret" not in result.output
    assert not [name for name in tiny.listing(Path("run")) if b"secret" in Path("run", name).read_bytes()]
    assert server.repos["model", "ann/c10"].private
    assert sorted(own(server, "dataset", "ann/c10-ddtool")) == SET_FILES


def test_a_plan_names_the_repos(server: HubServer) -> None:
    plan = json.loads(done(*ADAPT, "--push-to", "ann/c10", "--dry-run", "--json").stdout)
    assert plan["push_to"] == {"dataset": "ann/c10-ddtool", "model": "ann/c10"}
    assert writes(server) == []


@pytest.mark.parametrize(
    ("token", "goal", "said"),
    [("", "ann/c10", "not logged in"), (READ, "ann/c10", "can only read"), (WRITE, "bob/c10", "not a member of 'bob'")],
)
def test_adapt_asks_before_the_work(
    server: HubServer, monkeypatch: pytest.MonkeyPatch, token: str, goal: str, said: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    assert said in refused(1, *ADAPT, "--push-to", goal)
    assert not Path("run").exists()
    with pytest.raises(HubError, match=said):
        api.adapt("cifar10", ipc=1, out="run", push_to=goal, engine=tiny.ENGINE, settings=tiny.SETTINGS)
    assert not Path("run").exists()


def test_a_push_that_fails_leaves_the_finished_run(server: HubServer) -> None:
    server.fault(r"^POST .*/commit/", Status(500), times=None)
    stderr = refused(1, *ADAPT, "--push-to", "ann/c10")
    assert "The run is finished (run)" in stderr
    assert "`ddtool push run ann/c10`" in stderr
    server.faults.clear()
    done("push", "run", "ann/c10")
    done("adapt", "--resume", "run", "--push-to", "ann/c10")
    assert commits(server, "model", "ann/c10") == 1


# -------------------------------------------------------------------------------------------------- faults, on the way up


def complete(server: HubServer) -> bool:
    """Both repos hold exactly one commit with everything."""
    return all(
        commits(server, kind, repo) == 1 and sorted(own(server, kind, repo)) == files
        for kind, repo, files in (("model", "ann/c10", MODEL_FILES), ("dataset", "ann/c10-ddtool", SET_FILES))
    )


def pushed_now(server: HubServer) -> list[str]:
    """The repos with a commit of ours; each holds all or nothing."""
    found = [(kind, repo) for kind, repo in server.repos if repo.startswith("ann/") and commits(server, kind, repo)]
    assert all(
        sorted(own(server, kind, repo)) == (MODEL_FILES if kind == "model" else SET_FILES) for kind, repo in found
    )
    return sorted(repo for _, repo in found)


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "not logged in"), ("hf_wrongsecret0123456789", "does not accept the token"), (READ, "can only read")],
)
def test_who_may_not_push(
    server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, token: str | None, said: str
) -> None:
    monkeypatch.delenv("HF_TOKEN") if token is None else monkeypatch.setenv("HF_TOKEN", token)
    stderr = refused(1, "push", run, "ann/c10")
    assert said in stderr
    assert "hf auth login" in stderr
    assert "secret" not in stderr
    assert pushed_now(server) == []


def test_the_stored_login_is_used(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    stored = Path(huggingface_hub.constants.HF_TOKEN_PATH)
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(WRITE)
    try:
        done("push", run, "ann/c10")
    finally:
        stored.unlink()
    assert complete(server)


def test_a_password_in_the_endpoint_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", f"https://me:{WRITE}@hub.example")
    assert names.web("dataset", "ann/c10") == "https://hub.example/datasets/ann/c10"


def test_a_namespace_of_others(server: HubServer, run: Path) -> None:
    stderr = refused(1, "push", run, "bob/c10")
    assert "logged in as ann" in stderr
    assert "ann/NAME" in stderr


def test_a_permission_that_only_the_server_knows(server: HubServer, run: Path) -> None:
    server.fault(r"^POST /api/repos/create", Status(403), times=None)
    assert "may not write to 'ann'" in refused(1, "push", run, "ann/c10")


BUSY = [
    r"^GET /api/whoami", r"^GET /api/datasets/ann", r"^POST /api/repos/create", r"^POST .*/preupload/",
    r"^POST .*/lfs/objects/batch", r"^PUT /storage/", r"^POST .*/commit/", r"^POST /api/validate-yaml",
]  # fmt: skip


@pytest.mark.parametrize("where", BUSY)
@pytest.mark.parametrize(
    "fault", [Status(429, {"Retry-After": "1"}), Status(503), ResetBefore()], ids=["429", "503", "reset"]
)
def test_a_busy_hub_is_asked_again(server: HubServer, run: Path, where: str, fault: Any) -> None:
    server.fault(where, fault)
    done("push", run, "ann/c10")
    assert server.faults[0].left == 0
    assert complete(server)


def test_retry_after_is_waited_for(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("ddtool.hub.client.time.sleep", waited.append)
    server.fault(r"^GET /api/whoami", Status(429, {"Retry-After": "17"}))
    server.fault(r"^POST .*/commit/", Status(429, {"Retry-After": "86400"}))
    done("push", run, "ann/c10", "--only", "generator")
    assert [seconds for seconds in waited if seconds > 9] == [17, client.LONGEST_PAUSE]


@pytest.mark.parametrize(("status", "said"), [(429, "too many requests"), (503, "answered 503")])
def test_a_hub_that_stays_busy(server: HubServer, run: Path, status: int, said: str) -> None:
    server.fault(r"^POST .*/commit/", Status(status), times=None)
    stderr = refused(1, "push", run, "ann/c10")
    assert said in stderr
    assert "`ddtool push run ann/c10`" in stderr
    assert pushed_now(server) == []
    server.faults.clear()
    done("push", run, "ann/c10")
    assert complete(server)


def test_a_connection_reset_in_the_middle_of_an_upload(server: HubServer, run: Path) -> None:
    server.fault(r"^PUT /storage/", ResetUpload(1000))
    server.fault(r"^POST .*/commit/", ResetUpload(100))
    done("push", run, "ann/c10")
    assert [fault.left for fault in server.faults] == [0, 0]
    assert complete(server)


@pytest.mark.parametrize("options", [[], ["--create-pr"], ["--revision", "v2"]])
def test_a_lost_answer_makes_no_second_commit(server: HubServer, run: Path, options: list[str]) -> None:
    if options == ["--create-pr"]:  # there must be something to propose a change of
        server.seed("model", "ann/c10", {})
        server.seed("dataset", "ann/c10-ddtool", {})
    server.fault(r"^POST .*/commit/", LoseAnswer(), times=2)
    result = done("push", run, "ann/c10", *options)
    assert [r.path.split("?")[0] for r in server.requests if "/commit/" in r.path and r.method == "POST"] == [
        f"/api/{kind}/commit/{'v2' if 'v2' in options else 'main'}"
        for kind in ("datasets/ann/c10-ddtool", "models/ann/c10")
    ]
    revision = {"": "main", "--create-pr": "refs/pr/1", "--revision": "v2"}[options[0] if options else ""]
    assert sorted(own(server, "model", "ann/c10", revision)) == MODEL_FILES
    assert result.stderr.count("/discussions/1: ") == (2 if options == ["--create-pr"] else 0)


def test_somebody_else_pushes_meanwhile(pushed: HubServer, run: Path) -> None:
    done("generate", run, "--ipc", 2)
    create = huggingface_hub.HfApi.create_commit

    def late(self: Any, repo: str, *arguments: Any, **options: Any) -> Any:
        pushed.seed("dataset", "ann/c10-ddtool", {"theirs.txt": b"theirs"})
        return create(self, repo, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(huggingface_hub.HfApi, "create_commit", late)
        stderr = refused(1, "push", run, "ann/c10")
    assert "has changed while it was being pushed to" in stderr
    assert "ipc2/train.parquet" not in own(pushed, "dataset", "ann/c10-ddtool")
    done("push", run, "ann/c10")
    assert {"theirs.txt", "ipc2/train.parquet"} < set(own(pushed, "dataset", "ann/c10-ddtool"))


def test_a_failure_between_the_repos_says_what_is_there(server: HubServer, run: Path) -> None:
    server.fault(r"^POST /api/models/ann/c10/commit/", Status(500), times=None)
    stderr = refused(1, "push", run, "ann/c10", "--private")
    assert "/datasets/ann/c10-ddtool is complete; the model repo is not pushed" in stderr
    assert "`ddtool push run ann/c10 --private`" in stderr
    assert pushed_now(server) == ["ann/c10-ddtool"]
    server.faults.clear()
    done("push", run, "ann/c10", "--private")
    assert complete(server)


def test_the_server_is_gone(server: HubServer, run: Path) -> None:
    server.stop()
    try:
        assert "cannot be reached" in refused(1, "push", run, "ann/c10")
        assert "cannot be reached" in refused(1, "pull", "ann/c10")
        said = refused(1, "adapt", "sample", "--generator", "ann/c10", "--out", "new")
        assert "cannot be reached" in said
        assert "There is no folder 'ann/c10' here." in said
    finally:
        server.start()
    assert not Path("new").exists()
    done("push", run, "ann/c10")
    assert complete(server)


def test_the_server_goes_in_the_middle(server: HubServer, run: Path) -> None:
    server.fault(r"^PUT /storage/", ResetUpload(10), times=None)
    assert "cannot be reached" in refused(1, "push", run, "ann/c10")
    assert pushed_now(server) == []


# ------------------------------------------------------------------------------------------------ faults, on the way down


@pytest.fixture
def empty_cache(made: Made) -> None:
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)


@pytest.mark.parametrize(
    "fault",
    [Status(503), Status(429), ResetBefore(), ResetDownload(2000), CutDownload(2000), Truncate(2000), Corrupt()],
    ids=lambda fault: f"{type(fault).__name__}{getattr(fault, 'code', '')}",
)
@pytest.mark.parametrize("where", [r"^GET .*/resolve/.*/config.json", r"^GET /storage/"], ids=["git", "lfs"])
@pytest.mark.usefixtures("empty_cache")
def test_a_download_that_fails_is_finished(pushed: HubServer, made: Made, fault: Any, where: str) -> None:
    if hasattr(fault, "after_bytes") or hasattr(fault, "length"):
        size = {"after_bytes" if hasattr(fault, "after_bytes") else "length": 20}
        fault = dataclasses.replace(fault, **size)
    pushed.fault(where, fault)
    done("pull", "ann/c10")
    assert pushed.faults[0].left == 0
    for name in ("config.json", "labels.safetensors", "model.safetensors"):
        assert Path("runs/c10/generator", name).read_bytes() == made.model[name]


@pytest.mark.usefixtures("empty_cache")
def test_a_download_that_stays_damaged_is_reported_and_not_kept(pushed: HubServer) -> None:
    pushed.fault(r"^GET /storage/models", Corrupt(), times=None)
    stderr = refused(1, "pull", "ann/c10")
    assert "model.safetensors of 'ann/c10' arrives damaged" in stderr
    assert tiny.listing(Path()) == []
    pushed.faults.clear()
    done("pull", "ann/c10")


def test_a_file_that_changed_in_the_cache_is_fetched_again(pushed: HubServer, made: Made) -> None:
    done("pull", "ann/c10")
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--ann--c10"
    weights = next(cache.glob("snapshots/*/model.safetensors")).resolve()
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    done("pull", "ann/c10", "--force")
    assert Path("runs/c10/generator/model.safetensors").read_bytes() == made.model["model.safetensors"]


@pytest.mark.parametrize("fault", [Status(500), ResetBefore()])
@pytest.mark.usefixtures("empty_cache")
def test_a_pull_that_cannot_be_finished_leaves_nothing(pushed: HubServer, fault: Any) -> None:
    pushed.fault(r"^(GET|HEAD) /(storage|.*model.safetensors)", fault, times=None)
    refused(1, "pull", "ann/c10")
    refused(1, "generate", "ann/c10", "--ipc", 2)
    assert tiny.listing(Path()) == []


def test_what_is_not_there(pushed: HubServer) -> None:
    assert "The Hub has no model 'ann/nothing'" in refused(1, "pull", "ann/nothing")
    stderr = refused(1, "generate", "ann/nothing", "--ipc", 1)
    assert "There is no folder 'ann/nothing' here" in stderr
    assert "has no revision 'v9'" in refused(1, "pull", "ann/c10@v9")
    assert "not the name of a Hub repo" in refused(1, "pull", "nothing")
    assert "There is no folder" in refused(1, "adapt", "sample", "--generator", "ann/nothing")
    assert "not a repo of ddtool" in refused(1, "pull", "uoft-cs/cifar10")
    assert tiny.listing(Path()) == []


def test_a_gated_and_a_private_repo(pushed: HubServer, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed.seed("model", "bob/gated", made.model, gated=True)
    pushed.seed("model", "bob/private", made.model, private=True)
    stderr = refused(1, "pull", "bob/gated")
    assert "restricted (gated)" in stderr
    assert "/bob/gated" in stderr
    assert "or it is private" in refused(1, "pull", "bob/private")
    monkeypatch.delenv("HF_TOKEN")
    assert "restricted (gated)" in refused(1, "pull", "bob/gated")
    assert "hf auth login" in refused(1, "pull", "bob/private")
    monkeypatch.setenv("HF_TOKEN", "hf_wrongsecret0123456789")
    assert "does not accept the token" in refused(1, "pull", "ann/c10")


def test_a_full_disk(pushed: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    assert "The disk is full" in refused(1, "pull", "ann/c10")
    monkeypatch.undo()


def test_a_cache_that_cannot_be_written(pushed: HubServer) -> None:
    Path("taken").write_text("a file stands where the cache is to be")
    with pytest.raises(HubError, match=r"A file cannot be written: .*taken") as error:
        Generator.from_pretrained("ann/c10", cache_dir="taken")
    assert "HF_HOME" in error.value.hint


def test_what_is_there_is_not_overwritten(pushed: HubServer) -> None:
    done("pull", "ann/c10")
    assert "--force" in refused(1, "pull", "ann/c10")
    done("pull", "ann/c10", "--force")
    Path("mine").mkdir()
    Path("mine/thing.txt").write_text("mine")
    for option in ([], ["--force"]):
        assert "not made by ddtool" in refused(1, "pull", "ann/c10", "--out", "mine", *option)
    done("generate", "ann/c10", "--ipc", 2)
    weights = tensors(pushed.files("model", "ann/c10")["model.safetensors"], poison("values", 1.0))
    pushed.seed("model", "ann/c10", {"model.safetensors": weights})
    stderr = refused(1, "generate", "ann/c10", "--ipc", 3)
    assert "runs/c10 is there already" in stderr
    assert "--out" in stderr


@pytest.mark.usefixtures("empty_cache")
def test_one_commit_is_read_whatever_happens_meanwhile(
    pushed: HubServer, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha, listing = pushed.commits("model", "ann/c10")[0].sha, download.listing

    def late(*arguments: Any) -> Any:
        pushed.seed("model", "ann/c10", dict.fromkeys(MODEL_FILES, b"of a later commit"))
        return listing(*arguments)

    monkeypatch.setattr(download, "listing", late)
    done("pull", "ann/c10")
    assert pushed.commits("model", "ann/c10")[0].sha != sha
    for name in ("config.json", "labels.safetensors", "model.safetensors"):
        assert Path("runs/c10/generator", name).read_bytes() == made.model[name]
    paths = [r.path for r in pushed.requests if "/resolve/" in r.path or "/paths-info/" in r.path]
    assert paths
    assert all(sha in path for path in paths)
    assert json.loads(Path("runs/c10/results.json").read_text())["facts"]["pulled"] == f"ann/c10@{sha}"


# ------------------------------------------------------------------------------------------- what comes from a repo


def changed(data: bytes, **changes: Any) -> bytes:
    """A JSON file with other values."""
    return json.dumps(json.loads(data) | changes, separators=(",", ":")).encode()


def config_of(data: bytes, /, **changes: Any) -> bytes:
    """ddtool.json with another run configuration."""
    stated = json.loads(data)
    for part in stated["sets"].values():
        for key, value in changes.items():
            part["config"][key] = {**part["config"][key], **value} if isinstance(value, dict) else value
    return json.dumps(stated).encode()


def tensors(data: bytes, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], Any]) -> bytes:
    """A safetensors file of ours with other tensors or another description, and without the digest that would tell."""
    values, size = load(data), int.from_bytes(data[:8], "little")
    metadata = json.loads(data[8 : 8 + size]).get("__metadata__", {})
    info = json.loads(metadata.get("ddtool", "{}"))
    for stated in (metadata, info):
        stated.pop("digest", None)
    change(values, info)
    return save(values, {"ddtool": json.dumps(info)} if info else metadata)


def put(name: str, value: Any) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    return lambda values, info: (values if isinstance(value, torch.Tensor) else info).__setitem__(name, value)


def poison(name: str, value: float = float("nan")) -> Callable[[dict[str, torch.Tensor], dict[str, Any]], None]:
    def change(values: dict[str, torch.Tensor], info: dict[str, Any]) -> None:
        values[name].view(-1)[0] = value

    return change


def absurd_header(data: bytes) -> bytes:
    """A safetensors header that claims 2^60 numbers."""
    header = {"out.bias": {"dtype": "F32", "shape": [2**30, 2**30], "data_offsets": [0, 4]}}
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + b"\0\0\0\0"


class Bomb:
    def __reduce__(self) -> tuple:
        return Path.touch, (Path("executed"),)


def pool(pictures: list[bytes], labels: list[int], **options: Any) -> bytes:
    out = io.BytesIO()
    cells = pa.array(
        [{"bytes": png, "path": None} for png in pictures], pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    )
    pq.write_table(pa.table({"image": cells, "label": labels}), out, **{"use_dictionary": False} | options)
    return out.getvalue()


def picture(side: int, mode: str = "RGB") -> bytes:
    out = io.BytesIO()
    Image.new(mode, (side, side)).save(out, "PNG")
    return out.getvalue()


MODEL_TRICKS: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "absurd size": (lambda f: {"config.json": b'{"ddtool_generator": {"slots": 1000000000, "side": 16}}'}, "'slots' must be"),
    "large, other weights": (lambda f: {"config.json": b'{"ddtool_generator": {"slots": 8192, "side": 44}}'}, "tensor 'keys'"),
    "unknown setting": (lambda f: {"config.json": b'{"ddtool_generator": {"depth": 1}}'}, "Unknown setting 'depth'"),
    "no JSON": (lambda f: {"config.json": b"[" * 100_000}, "not a generator's configuration"),
    "large config": (lambda f: {"config.json": b" " * 2**20 + b"{}"}, "config.json of 'ann/c10' is refused: 1,048,578 bytes"),
    "wrong shape": (lambda f: {"model.safetensors": tensors(f["model.safetensors"], put("keys", torch.ones(9)))}, "'keys' is (9,)"),
    "wrong type": (
        lambda f: {"model.safetensors": tensors(f["model.safetensors"], put("values", torch.zeros(8, 768).half()))},
        "float16",
    ),
    "extra tensor": (lambda f: {"model.safetensors": tensors(f["model.safetensors"], put("evil", torch.zeros(1)))}, "'evil'"),
    "missing tensor": (
        lambda f: {"model.safetensors": tensors(f["model.safetensors"], lambda v, i: v.pop("values"))},
        "misses tensor 'values'",
    ),
    "NaN": (lambda f: {"model.safetensors": tensors(f["model.safetensors"], poison("values"))}, "not finite"),
    "absurd header": (lambda f: {"model.safetensors": absurd_header(b"")}, "not a readable safetensors file"),
    "pickle": (lambda f: {"model.safetensors": pickle.dumps(Bomb())}, "not a readable safetensors file"),
    "cut": (lambda f: {"model.safetensors": f["model.safetensors"][:-4]}, "not a readable safetensors file"),
    "labels: pickle": (lambda f: {"labels.safetensors": pickle.dumps(Bomb())}, "damaged or not a file of ddtool"),
    "labels: absurd width": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("label_width", 10**9))}, "its width is 1000000000",
    ),
    "labels: absurd image": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("shape", [3, 10**6, 10**6]))}, "too large",
    ),
    "labels: odd image": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("shape", [3, -32, "32"]))}, "of shape",
    ),
    "labels: NaN": (lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], poison("W"))}, "not finite"),
    "labels: wrong head": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("W", torch.zeros(2, 3)))}, "does not fit",
    ),
    "labels: no std": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("std", [0.0, 1.0, 1.0]))}, "'std'",
    ),
    "labels: a path": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("source", {"kind": "local", "path": "/etc"}))},
        "described by other things",
    ),
    "labels: absurd pool": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("pool_ipc", 10**12))}, "images per class",
    ),
    "labels: other classes": (
        lambda f: {"labels.safetensors": tensors(f["labels.safetensors"], put("class_names", ["x", "y", "z"]))},
        "not those of ddtool.json",
    ),
    "pool: a picture bomb": (lambda f: {"pool/train.parquet": pool([picture(9000, "L")] * 3, [0, 1, 2])}, "9000x9000"),
    "pool: many sizes": (lambda f: {"pool/train.parquet": pool([picture(32), picture(64), picture(32)], [0, 1, 2])}, "64x64"),
    "pool: another size": (lambda f: {"pool/train.parquet": pool([picture(16)] * 3, [0, 1, 2])}, "pool/train.parquet"),
    "pool: no picture": (lambda f: {"pool/train.parquet": pool([b"GIF89a"] * 3, [0, 1, 2])}, "damaged"),
    "pool: other codec": (
        lambda f: {"pool/train.parquet": pool([picture(32)] * 3, [0, 1, 2], compression="zstd")}, "packed by ZSTD",
    ),
    "pool: unbalanced": (lambda f: {"pool/train.parquet": pool([picture(32)] * 3, [0, 0, 2])}, "every class"),
    "pool: classes": (lambda f: {"pool/train.parquet": pool([picture(32)] * 3, [0, 1, 9])}, "outside the 3 classes"),
    "facts: no JSON": (lambda f: {"ddtool.json": b"{"}, "not readable"),
    "facts: deep": (lambda f: {"ddtool.json": b"[" * 200_000}, "ddtool.json"),
    "facts: another format": (lambda f: {"ddtool.json": changed(f["ddtool.json"], format=2)}, "not of format 1"),
    "facts: another kind": (lambda f: {"ddtool.json": changed(f["ddtool.json"], kind="synthetic-dataset")}, "does not hold"),
    "facts: a set that climbs": (
        lambda f: {"ddtool.json": changed(f["ddtool.json"], sets={"../../evil": json.loads(f["ddtool.json"])["sets"]["1"]})},
        "not named by their images per class",
    ),
    "facts: no set": (lambda f: {"ddtool.json": changed(f["ddtool.json"], sets={"1": 7})}, "'sets.1': input should be"),
    "facts: another repo": (lambda f: {"ddtool.json": changed(f["ddtool.json"], dataset_repo="../../x")}, "not a repo"),
    "facts: a path": (lambda f: {"ddtool.json": changed(f["ddtool.json"], source={"kind": "local", "name": "/etc"})}, "is a path"),
    "config: a path": (lambda f: {"ddtool.json": config_of(f["ddtool.json"], dataset="/etc")}, "dataset '/etc' is a path"),
    "config: climbs": (lambda f: {"ddtool.json": config_of(f["ddtool.json"], generator="../../evil")}, "is a path"),
    "config: unknown": (lambda f: {"ddtool.json": config_of(f["ddtool.json"], evil=1)}, "Unknown setting 'evil'"),
    "config: absurd": (lambda f: {"ddtool.json": config_of(f["ddtool.json"], features={"width": 10**9})}, "features.width"),
    "config: NaN": (lambda f: {"ddtool.json": config_of(f["ddtool.json"], label_scale=float("nan"))}, "label_scale"),
}  # fmt: skip


@pytest.mark.parametrize("trick", MODEL_TRICKS)
def test_a_tricky_model_repo_is_refused(server: HubServer, made: Made, trick: str) -> None:
    change, said = MODEL_TRICKS[trick]
    server.seed("model", "ann/c10", made.model | change(made.model))
    stderr = refused(1, "generate", "ann/c10", "--ipc", 2)
    assert said in stderr.replace("\n", " ")
    assert tiny.listing(Path()) == []
    if "config.json" in change(made.model) and "bytes" in said:
        assert not [r for r in server.requests if "resolve" in r.path and r.path.endswith("config.json")]


EXACT = "ipc1/exact.safetensors"
SET_TRICKS: dict[str, tuple[Callable[[dict[str, bytes]], dict[str, bytes]], str]] = {
    "NaN": (lambda f: {EXACT: tensors(f[EXACT], poison("images"))}, "not finite"),
    "infinite label": (lambda f: {EXACT: tensors(f[EXACT], poison("labels", float("inf")))}, "not finite"),
    "no class": (lambda f: {EXACT: tensors(f[EXACT], put("hard", torch.tensor([0, 1, 7])))}, "name no class"),
    "absurd ipc": (lambda f: {EXACT: tensors(f[EXACT], put("ipc", 10**9))}, "do not go with"),
    "another ipc": (lambda f: {f"ipc2/{file}": f[f"ipc1/{file}"] for file in ("exact.safetensors", "train.parquet")}
                    | {"ddtool.json": changed(f["ddtool.json"], sets={"2": json.loads(f["ddtool.json"])["sets"]["1"]})},
                    "says otherwise"),
    "extra tensor": (lambda f: {EXACT: tensors(f[EXACT], put("evil", torch.zeros(1)))}, "do not go with"),
    "missing tensor": (lambda f: {EXACT: tensors(f[EXACT], lambda v, i: v.pop("hard"))}, "do not go with"),
    "wrong type": (lambda f: {EXACT: tensors(f[EXACT], put("labels", torch.zeros(3, 3, dtype=torch.float64)))}, "other types"),
    "five channels": (lambda f: {EXACT: tensors(f[EXACT], put("images", torch.zeros(3, 5, 32, 32)))}, "of shape"),
    "short mean": (lambda f: {EXACT: tensors(f[EXACT], put("mean", [0.5]))}, "'mean'"),
    "names": (lambda f: {EXACT: tensors(f[EXACT], put("class_names", [1, 2, 3]))}, "class names"),
    "unknown": (lambda f: {EXACT: tensors(f[EXACT], put("evil", "x"))}, "evil"),
    "a stage that climbs": (lambda f: {EXACT: tensors(f[EXACT], put("stage", "../x"))}, "its stage is '../x'"),
    "a path": (lambda f: {EXACT: tensors(f[EXACT], put("source", {"kind": "local", "name": "x", "path": "/etc"}))}, "described"),
    "pickle": (lambda f: {EXACT: pickle.dumps(Bomb())}, "damaged or not a file of ddtool"),
    "absurd header": (lambda f: {EXACT: absurd_header(b"")}, "damaged or not a file of ddtool"),
    "a file that is not there": (
        lambda f: {"ddtool.json": changed(f["ddtool.json"], sets={"5": json.loads(f["ddtool.json"])["sets"]["1"]})},
        "holds no ipc5/exact.safetensors",
    ),
}  # fmt: skip


@pytest.mark.parametrize("trick", SET_TRICKS)
def test_a_tricky_dataset_repo_is_refused(server: HubServer, made: Made, trick: str) -> None:
    change, said = SET_TRICKS[trick]
    server.seed("dataset", "ann/c10-ddtool", made.sets | change(made.sets))
    for command in ("evaluate", "pull"):
        assert said in refused(1, command, "ann/c10-ddtool").replace("\n", " ")
    with pytest.raises(DDToolError):
        load_set("ann/c10-ddtool")
    assert tiny.listing(Path()) == []


def test_files_that_climb_out_are_never_asked_for(server: HubServer, made: Made, tmp_path: Path) -> None:
    evil = dict.fromkeys(("../../evil.txt", "/tmp/evil.txt", "ipc1/../../../evil.txt", "pytorch_model.bin"), b"evil")
    server.seed("model", "ann/c10", made.model | evil)
    server.seed("dataset", "ann/c10-ddtool", made.sets | evil)
    done("pull", "ann/c10", "--out", "a/run")
    done("pull", "ann/c10-ddtool", "--out", "a/sets")
    assert not [r for r in server.requests if "evil" in r.path or "pytorch" in r.path]
    assert not [name for name in tiny.listing(tmp_path) if "evil" in name]


def test_a_pickle_is_never_taken_instead(server: HubServer) -> None:
    server.seed("model", "eve/pickled", {"config.json": b"{}", "pytorch_model.bin": pickle.dumps(Bomb())})
    for words in (["pull", "eve/pickled"], ["generate", "eve/pickled", "--ipc", 1]):
        assert "is never read" in refused(1, *words)
    assert "model.safetensors" in refused(1, "adapt", "sample", "--generator", "eve/pickled")
    assert tiny.listing(Path()) == []


def test_a_tricky_repo_is_not_merged_into(pushed: HubServer, run: Path) -> None:
    pushed.seed("model", "ann/c10", {"ddtool.json": b"{"})
    pushed.requests.clear()
    assert "ddtool.json of 'ann/c10'" in refused(1, "push", run, "ann/c10", "--only", "generator")
    assert writes(pushed) == []
    done("push", run, "ann/c10", "--only", "generator", "--force")
    assert facts(pushed, "model", "ann/c10")["kind"] == "adapted-generator"


def test_control_characters_do_not_reach_the_terminal(pushed: HubServer, made: Made) -> None:
    source = json.loads(made.model["ddtool.json"])["source"] | {
        "label_column": "\x1b]0;evil\x07",
        "config": "[bold]x[/bold]",
    }
    pushed.seed(
        "model", "ann/c10", {"ddtool.json": changed(made.model["ddtool.json"], source=source, kind="adapted-generator")}
    )
    shown = done("info", "ann/c10").stdout
    assert "\x1b" not in shown
    assert "[bold]x[/bold]" in shown
    pushed.seed("model", "ann/c10", {"ddtool.json": changed(made.model["ddtool.json"], kind="\x1b[31mred")})
    assert "\x1b" not in refused(1, "pull", "ann/c10")


# ------------------------------------------------------------------------------------------------ token, offline, names


SCENARIO = """
import sys, tiny, pytest
from ddtool.cli.app import app
from ddtool.reports import run_page
tiny.shorten_protocols(pytest.MonkeyPatch())
run_page.drawn = lambda figure: b"<svg/>"  # as in the tests' own process: no plots
for line in sys.argv[1:]:
    try:
        app(line.split("|"), prog_name="ddtool")
    except SystemExit as end:
        print("EXIT", end.code, flush=True)
"""


def scenario(*lines: list[object], **environment: str) -> Any:
    """Commands one after the other in one fresh process, with the libraries of this one."""
    return forked(SCENARIO, *["|".join(map(str, line)) for line in lines], **environment)


def test_the_token_is_nowhere(server: HubServer, run: Path, tmp_path: Path) -> None:
    server.fault(r"^POST .*/commit/", Status(503))
    server.fault(r"/resolve/.*labels", Status(403), times=None)
    cache = {"HF_HOME": str(tmp_path / "hf"), "DDTOOL_CACHE": str(tmp_path / "cache"), "HF_TOKEN": WRITE}
    result = scenario(
        ["push", run, "ann/c10"], ["push", run, "ann/c10", "--dry-run"], ["push", run, "bob/c10"],
        ["push", "--generator", "bundled", "ann/meta"], ["info", "ann/c10"], ["env"], ["pull", "ann/c10"],
        ["pull", "ann/c10-ddtool"], ["pull", "ann/nothing"], **cache,
    )  # fmt: skip
    assert re.findall(r"EXIT (\d)", result.stdout) == list("001000101"), result.stdout + result.stderr
    assert "secret" not in result.stdout + result.stderr
    found = [name for name in tiny.listing(tmp_path) if b"secret" in (tmp_path / name).read_bytes()]
    assert found == []
    for (kind, repo), kept in server.repos.items():
        for sha in kept.commits:
            assert not [name for name, data in server.files(kind, repo, sha).items() if b"secret" in data]
    assert any(request.authorised for request in server.requests)
    assert not [request for request in server.requests if "secret" in request.path]


def test_offline_after_one_pull(pushed: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE, ignore_errors=True)
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    done("push", "--generator", "bundled", "ann/meta")
    for words in (["pull", "ann/meta"], ["pull", "ann/c10"], ["pull", "ann/c10-ddtool"], ["info", "cifar10"]):
        done(*words)
    pushed.requests.clear()
    offline: list[list[object]] = [
        ["adapt", "cifar10", "--ipc", 1, "--out", "new", *SCRATCH, "--generator", "ann/meta"],
        ["generate", "ann/c10", "--ipc", 2], ["generate", "new", "--ipc", 5],
        ["evaluate", "ann/c10-ddtool", "--on", "cifar10", "--protocol", "kernel-ridge", "--eval-seeds", 1],
        ["evaluate", "ann/c10", "--protocol", "kernel-ridge", "--eval-seeds", 1], ["info", "ann/c10"],
        ["pull", "ann/c10", "--out", "second"],
        ["pull", "ann/never"], ["push", "new", "ann/c10"],
    ]  # fmt: skip
    result = scenario(*offline, HF_HUB_OFFLINE="1")
    assert re.findall(r"EXIT (\d)", result.stdout) == list("000000011"), result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert pushed.requests == []
    assert "was not used here before" in result.stderr
    assert "nothing can be pushed" in result.stderr


@pytest.mark.parametrize(
    ("name", "repo", "revision"),
    [
        ("ann/c10", "ann/c10", None), ("ann/c10@v1", "ann/c10", "v1"), ("hf://ann/c10", "ann/c10", None),
        ("hf://datasets/ann/c10@refs/pr/1", "ann/c10", "refs/pr/1"), ("datasets/ann/c10", "ann/c10", None),
    ],
)  # fmt: skip
def test_names_of_repos(name: str, repo: str, revision: str | None) -> None:
    assert names.parse(name) == names.Ref(repo, revision)


@pytest.mark.parametrize(
    "name", ["c10", "ann/c10/x", "../c10", "ann/..", "/ann/c10", "-ann/c10", "ann/c10.git", "ann/a b", "ann/ä", ""]
)
def test_what_is_no_name_of_a_repo(name: str) -> None:
    assert names.parse(name) is None


def test_the_cache_can_be_lost(pushed: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A memory that is damaged is as none."""
    done("pull", "ann/c10")
    for file in (Path(os.environ["DDTOOL_CACHE"]) / "hub").iterdir():
        file.write_text("{" if "c10.json" in file.name else '{"refs": 7}')
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "was not used here before" in refused(1, "pull", "ann/c10", "--out", "other")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    done("pull", "ann/c10", "--out", "other")


# ---------------------------------------------------------------------------------------------------------- compare


def test_a_comparison_stays_at_the_commit_that_it_was_begun_with(server: HubServer, tmp_path: Path) -> None:
    def revisions(out: str, *words: object) -> set[str]:
        plan = done("compare", "cifar10", "--ipc", 1, "--seeds", 2, "--out", out, "--dry-run", "--quiet", *words)
        return set(re.findall(r'data\.revision="?(\w+)', plan.stdout))

    def head() -> str:
        return server.commits("dataset", "uoft-cs/cifar10")[0].sha

    first = head()
    assert revisions("one") == {first}
    Folder(Path("one")).add(Request("cifar10", data={"revision": first}), [], False)
    Folder(Path("early")).add(Request("cifar10"), [], False)  # of a version that did not pin
    server.seed("dataset", "uoft-cs/cifar10", cifar() | {"NOTES.md": b"a second commit"})
    assert head() != first
    assert revisions("one") == {first}
    assert revisions("two") == {head()}
    assert revisions("early") == set()
    assert revisions("three", "--revision", first) == {first}
    assert "another request" in refused(2, "compare", "cifar10", "--ipc", 1, "--out", "one", "--revision", head())
