"""Sets of other methods than MGDD on the Hub: push, card, pull and use, by the true client against tests/hub_server.py."""

# ruff: noqa: F811  (fixtures of test_hub)

import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import test_baselines
import tiny
import torch
from conftest import HUB
from hub_server import HubServer
from PIL import Image
from test_hub import (  # noqa: F401  fixtures among them
    EXACT,
    READ,
    SET_FILES,
    Made,
    _quick_pauses,
    _surroundings,
    changed,
    facts,
    made,
    own,
    put,
    seed_hub,
    surroundings,
    tensors,
    writes,
)
from tiny import done, refused

from ddtool import api, load_set
from ddtool.config import LabelConfig, RunConfig
from ddtool.data.images import ImageData, SyntheticSet, real_images
from ddtool.errors import HubError, UsageError
from ddtool.runs.facts import Environment
from ddtool.runs.run import Run
from ddtool.sharing import cards
from ddtool.sharing.command import command as command_of
from ddtool.sharing.facts import RepoFacts
from ddtool.sharing.sets import set_fault

ADAPT = ["adapt", "cifar10", "--method", "quarters", "--ipc", 1, "--steps", 3, "--set", "baseline.lr=0.25"]
QUICK = ["--precision", "fp32", "--set", "evaluate.kernel_ridge=false", "--set", "evaluate.baseline=false"]
REPO = "ann/c10-ddtool"


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> None:
    test_baselines.register(monkeypatch)


@pytest.fixture(scope="module")
def quarters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, bytes]]]:
    """A finished run whose images hold four each, not to be changed, and the files of the repo that it makes."""
    folder = tmp_path_factory.mktemp("quarters")
    HUB.reset()
    seed_hub(HUB)
    with pytest.MonkeyPatch.context() as patch:
        surroundings(patch, folder, tmp_path_factory.getbasetemp() / "decoded")
        test_baselines.register(patch)
        done(*ADAPT, "--out", "run", *QUICK)
        before = {name: (folder / "run" / name).read_bytes() for name in tiny.listing(folder / "run")}
        done("push", "run", "ann/c10")
    files = own(HUB, "dataset", REPO)
    assert not HUB.exists("model", "ann/c10")
    HUB.reset()
    yield folder / "run", files
    assert {name: (folder / "run" / name).read_bytes() for name in tiny.listing(folder / "run")} == before


@pytest.fixture
def run(quarters: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the finished run, at run/ in the current folder."""
    shutil.copytree(quarters[0], tmp_path / "run")
    return Path("run")


@pytest.fixture
def there(server: HubServer, quarters: tuple[Path, dict[str, bytes]]) -> HubServer:
    """The Hub after that push."""
    server.seed("dataset", REPO, quarters[1])
    server.requests.clear()
    return server


# ----------------------------------------------------------------------------------------------------- the whole round


def test_one_repo_whose_card_is_made_from_its_facts(quarters: tuple[Path, dict[str, bytes]]) -> None:
    files = quarters[1]
    assert sorted(files) == SET_FILES
    stated = json.loads(files["ddtool.json"])
    assert stated["method"] == {"name": "quarters", "title": "Quarters (Nobody, 2026)", "learns": True}
    assert (stated["kind"], stated["model_repo"], stated["generator"]) == ("synthetic-dataset", None, None)
    one = stated["sets"]["1"]
    assert (one["stage"], one["factor"], one["images"]) == ("distilled", 2, 3)
    assert one["config"]["baseline"]["lr"] == 0.25
    assert one["config"]["baseline"]["init"] == "real"  # resolved, not only what was given
    assert one["facts"]["spent"]["steps"] == 3
    assert one["facts"]["quarters ipc1"] == {"batch": 3}
    assert "target" not in one["facts"]
    card = files["README.md"].decode()
    assert card == cards.card(RepoFacts.of(stated))
    assert "by Quarters (Nobody, 2026)" in card
    assert "**Each image holds 2x2 images**" in card
    assert "| steps of distillation |" in card
    assert "| 1 | 3 | " in card


def test_the_command_on_the_card_makes_the_same_set(server: HubServer, quarters: tuple[Path, dict[str, bytes]]) -> None:
    card = quarters[1]["README.md"].decode()
    command = re.findall(r"```bash\n(.*?)```", card, re.DOTALL)[0].replace("\\\n", "")
    assert "--method quarters" in command
    done(*shlex.split(command)[1:], "--out", "again")
    assert Path("again/synthetic", EXACT).read_bytes() == (quarters[0] / "synthetic" / EXACT).read_bytes()


def test_pull_info_evaluate_and_use(there: HubServer, quarters: tuple[Path, dict[str, bytes]]) -> None:
    assert done("pull", REPO, "-q").stdout == "sets/c10-ddtool\n"
    ours = Run(quarters[0]).load_set(1)
    for small in (load_set(REPO), load_set(REPO, ipc=1)):
        assert (small.factor, small.method, small.stage, small.decoded().ipc) == (2, "quarters", "distilled", 4)
        assert torch.equal(small.images, ours.images)
        assert torch.equal(small.labels, ours.labels)
    for where in ("sets/c10-ddtool", REPO):
        shown = done("evaluate", where, "--protocol", "quick", "--eval-seeds", 1, "--no-baseline", "--json")
        (score,) = json.loads(shown.stdout)["scores"]
        assert (score["method"], score["stage"], score["ipc"]) == ("quarters", "distilled", 1)
    shown = done("info", REPO)
    assert "Quarters (Nobody, 2026)" in shown.stdout
    assert "{" not in shown.stdout
    stderr = refused(1, "generate", REPO, "--ipc", 5)
    assert "ddtool adapt DATASET --method quarters --ipc N" in stderr


def test_pushing_again_changes_nothing(there: HubServer, run: Path) -> None:
    assert "nothing has changed" in done("push", run, "ann/c10").stderr
    assert writes(there) == []
    assert api.push(run, "ann/c10")[0].changed == ()
    assert writes(there) == []


def test_another_ipc_is_added(there: HubServer, quarters: tuple[Path, dict[str, bytes]]) -> None:
    done(*ADAPT, "--ipc", 2, "--out", "more", *QUICK)
    shutil.rmtree("more/synthetic/ipc1")
    done("push", "more", "ann/c10")
    files = own(there, "dataset", REPO)
    assert files[EXACT] == quarters[1][EXACT]
    assert sorted(facts(there, "dataset", REPO)["sets"]) == ["1", "2"]
    spent = {n: one["facts"]["spent"]["steps"] for n, one in facts(there, "dataset", REPO)["sets"].items()}
    assert spent == {"1": 3, "2": 3}


def test_local_data_goes_without_its_place(server: HubServer, tmp_path: Path) -> None:
    tiny.image_folder(tmp_path / "customers-acme" / "clothes")
    done("adapt", tmp_path / "customers-acme" / "clothes", "--method", "means", "--ipc", 1, "--out", "run", *QUICK)
    done("push", "run", "ann/clothes")
    for name, data in own(server, "dataset", "ann/clothes-ddtool").items():
        assert b"customers-acme" not in data, name


# -------------------------------------------------------------------------------------------------- real images, seconds


def test_chosen_images_are_said_to_be_real(server: HubServer) -> None:
    words = ["adapt", "cifar10", "--method", "random", "--ipc", 1, "--out", "run", *QUICK, "--push-to", "ann/real"]
    result = done(*words)
    assert "Next: ddtool pull ann/real-ddtool" in result.stderr
    assert "generator/" not in result.stderr
    card = own(server, "dataset", "ann/real-ddtool")["README.md"].decode()
    assert "3 real images of **cifar10**, unchanged" in card
    assert "Every image is a real image of the source, unchanged: no protection of privacy" in card
    for claim in ("synthetic images", "Every synthetic", "stand in for"):
        assert claim not in card
    assert facts(server, "dataset", "ann/real-ddtool")["pool"] == 0
    done("pull", "ann/real-ddtool")


def test_a_command_has_no_settings_that_its_method_refuses(toy: ImageData) -> None:
    made = replace(real_images(toy, torch.arange(4), flip=False), method="means", stage="distilled")
    config = RunConfig(dataset="x", method="means", baseline={"lr": 0.5}, labels=LabelConfig(width=7))
    command = command_of(config, made, Environment(), local=False)
    assert "--set baseline.lr=0.5" in command
    assert "labels" not in command
    assert "--set labels.width=7" in command_of(
        replace(config, method="mgdd", baseline={}), made, Environment(), local=False
    )


def test_a_budget_in_seconds_is_in_the_command(server: HubServer) -> None:
    words = ["adapt", "cifar10", "--ipc", 1, "--seconds", 0.25, *QUICK]
    done(*words, "--method", "means", "--out", "a")
    done("push", "a", "ann/a")
    assert "--method means --seconds 0.25" in facts(server, "dataset", "ann/a-ddtool")["sets"]["1"]["command"]
    done(*words, *tiny.UNCOUNTED, "--out", "b")
    done("push", "b", "ann/b")
    command = facts(server, "dataset", "ann/b-ddtool")["sets"]["1"]["command"]
    assert "--seconds 0.25" in command
    assert "method" not in command


# ---------------------------------------------------------------------------------------------------- what is in the way


def test_there_is_no_generator_to_push(server: HubServer, run: Path) -> None:
    stderr = refused(2, "push", run, "ann/c10", "--only", "generator")
    assert "A run of the method 'quarters' has no generator" in stderr
    with pytest.raises(UsageError, match="no generator"):
        api.push(run, "ann/c10", only="generator")
    assert writes(server) == []


def test_an_unfinished_run_is_not_pushed(server: HubServer, run: Path) -> None:
    results = json.loads((run / "results.json").read_text())
    del results["facts"]["finished"]
    (run / "results.json").write_text(json.dumps(results))
    assert "is not finished" in refused(1, "push", run, "ann/c10")
    assert writes(server) == []


def test_a_set_of_another_method_is_not_replaced_nor_mixed(there: HubServer, quarters: tuple[Path, Any]) -> None:
    words = ["adapt", "cifar10", "--method", "means", "--ipc"]
    done(*words, 1, "--out", "same", *QUICK)
    assert "holds another set of ipc 1" in refused(1, "push", "same", "ann/c10")
    done(*words, 2, "--out", "other", *QUICK)
    assert "holds sets of another method" in refused(1, "push", "other", "ann/c10")
    assert writes(there) == []
    assert own(there, "dataset", REPO) == quarters[1]
    done("push", "other", "ann/c10", "--force")
    assert sorted(facts(there, "dataset", REPO)["sets"]) == ["2"]
    assert not [name for name in own(there, "dataset", REPO) if name.startswith("ipc1/")]


def test_sets_of_mgdd_are_not_mixed_with_others(server: HubServer, made: Made) -> None:
    server.seed("dataset", REPO, made.sets)
    server.seed("model", "ann/c10", made.model)
    server.requests.clear()
    done("adapt", "cifar10", "--method", "means", "--ipc", 2, "--out", "other", *QUICK)
    assert "holds sets of another method" in refused(1, "push", "other", "ann/c10")
    assert writes(server) == []
    done("push", "other", "ann/c10", "--force")
    stated = facts(server, "dataset", REPO)
    assert (stated["model_repo"], sorted(stated["sets"])) == (None, ["2"])
    assert own(server, "model", "ann/c10") == made.model


def test_the_picture_can_do_without_real_images(server: HubServer, run: Path) -> None:
    done("push", run, "ann/a")
    done("push", run, "ann/b", "--no-pool")
    pictures = [own(server, "dataset", f"ann/{name}-ddtool")["preview.png"] for name in "ab"]
    assert pictures[0] == (run / "preview.png").read_bytes()
    heights = [Image.open(io.BytesIO(picture)).size[1] for picture in pictures]
    assert heights[0] > heights[1]
    texts = [own(server, "dataset", f"ann/{name}-ddtool")["README.md"].decode() for name in "ab"]
    assert ["are real images of the source" in text for text in texts] == [True, False]


def test_adapt_asks_before_the_work(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*ADAPT, "--out", "run", *QUICK]
    plan = json.loads(done(*words, "--push-to", "ann/c10", "--dry-run", "--json").stdout)
    assert plan["push_to"] == {"dataset": REPO}
    monkeypatch.setenv("HF_TOKEN", READ)
    assert "can only read" in refused(1, *words, "--push-to", "ann/c10")
    with pytest.raises(HubError, match="can only read"):
        api.adapt("cifar10", method="means", ipc=1, out="run", push_to="ann/c10", engine=tiny.ENGINE)
    assert not Path("run").exists()


def test_a_model_repo_of_that_name_is_left_alone(server: HubServer, run: Path) -> None:
    server.seed("model", "ann/c10", {"README.md": b"# Mine", "model.safetensors": b"x"})
    done("push", run, "ann/c10")
    done("adapt", "--resume", run, "--precision", "fp32", "--push-to", "ann/c10")
    assert own(server, "model", "ann/c10") == {"README.md": b"# Mine", "model.safetensors": b"x"}
    assert facts(server, "dataset", REPO)["model_repo"] is None


# ----------------------------------------------------------------------------------------------------- what is not ours

TRICKS: dict[str, tuple[Any, str]] = {
    "a method that is no name": (
        lambda f: {"ddtool.json": changed(f["ddtool.json"], method={"name": "x\x1b]0;evil"})}, "its method is not named",
    ),
    "a method that is a list": (lambda f: {"ddtool.json": changed(f["ddtool.json"], method=["dm"])}, "its method is not"),
    "no method": (lambda f: {"ddtool.json": changed(f["ddtool.json"], method=None)}, "its method is not named"),
    "another method": (
        lambda f: {"ddtool.json": changed(f["ddtool.json"], method={"name": "dm", "title": "DM"})}, "says otherwise",
    ),
    "a factor of 9": (lambda f: {EXACT: tensors(f[EXACT], put("factor", 9))}, "'factor' is 9"),
    "a factor of 0": (lambda f: {EXACT: tensors(f[EXACT], put("factor", 0))}, "'factor' is 0"),
    "a factor that is true": (lambda f: {EXACT: tensors(f[EXACT], put("factor", True))}, "'factor' is True"),
}  # fmt: skip


@pytest.mark.parametrize("trick", TRICKS)
def test_a_tricky_repo_is_refused(server: HubServer, quarters: tuple[Path, dict[str, bytes]], trick: str) -> None:
    change, said = TRICKS[trick]
    server.seed("dataset", REPO, quarters[1] | change(quarters[1]))
    for command in ("pull", "evaluate"):
        stderr = refused(1, command, REPO)
        assert said in stderr.replace("\n", " ")
        assert "\x1b" not in stderr
    assert tiny.listing(Path()) == []


def test_images_that_would_unpack_to_very_much_are_refused(there: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddtool.sharing.files.MOST_OF_SETS", 2**16)  # the set has 3 images of 12 KiB
    assert "hold 2 x 2 images each, which is too much" in refused(1, "evaluate", REPO, "--ipc", 1)


@pytest.mark.parametrize("each", [1, 64])
def test_labels_that_would_unpack_to_very_much_are_refused(each: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small images of many classes, with one label for each image, or for each of those in it. Taken apart, the images have 1.6 MB,
    the labels 2.6."""
    monkeypatch.setattr("ddtool.sharing.files.MOST_OF_SETS", 2**21)
    C, names = 100, tuple(map(str, range(100)))
    made = SyntheticSet(
        images=torch.rand(C, 1, 8, 8), labels=torch.zeros(C * each, C), hard=torch.arange(C), ipc=1, class_names=names,
        mean=(0.5,), std=(0.2,), factor=8, stage="distilled", source={"kind": "local", "name": "toy"},
    )  # fmt: skip
    facts: Any = SimpleNamespace(class_names=names, made_by="mgdd", shape=(1, 8, 8))
    found: Any = SimpleNamespace(facts=facts)
    assert "hold 8 x 8 images each, which is too much" in set_fault(found, made, 1)
    monkeypatch.setattr("ddtool.sharing.files.MOST_OF_SETS", 2**23)
    assert set_fault(found, made, 1) == ""
