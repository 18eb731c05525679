"""What a push leaves alone, replaces, names and refuses; by the true client against tests/hub_server.py."""

# ruff: noqa: F811  (fixtures of test_hub)

import io
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import tiny
from hub_server import HubServer, Status
from PIL import Image
from test_hub import (  # noqa: F401  fixtures among them
    ADAPT,
    SCRATCH,
    Made,
    _quick_pauses,
    _surroundings,
    commits,
    facts,
    made,
    own,
    pushed,
    run,
    writes,
)
from tiny import done, refused

import ddtool as package
from ddtool import api
from ddtool.errors import HubError, UsageError
from ddtool.hub import client, generators, upload
from ddtool.runs.formats import read_tensors, write_tensors
from ddtool.runs.run import Run
from ddtool.sharing.describe import public_test_set
from ddtool.sharing.facts import Source
from ddtool.sharing.options import Options

CARD = "README.md"


@pytest.fixture
def second(pushed: HubServer) -> Iterator[Path]:
    """The same settings and data as `made`, under another name of the dataset and for another IPC."""
    done("adapt", "uoft-cs/cifar10", "--ipc", 2, "--out", "second", *SCRATCH)
    return Path("second")


# --------------------------------------------------------------------------------------------------- names, not places


def test_a_path_of_two_parts_stays_here(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.image_folder(tmp_path / "customers-acme" / "clothes")
    shutil.copytree(generators.bundled_folder(), tmp_path / "secret-gens" / "mine")
    settings = {key: value for key, value in tiny.SETTINGS.items() if key != "architecture"}
    tiny.adapt(Path("customers-acme/clothes"), tmp_path / "run", generator="secret-gens/mine", settings=settings)
    done("push", tmp_path / "run", "ann/clothes")
    repos = [("model", "ann/clothes"), ("dataset", "ann/clothes-ddtool")]
    for kind, repo in repos:
        for name, data in own(server, kind, repo).items():
            assert not re.search(rb"customers-acme|secret-gens", data), name
        stated = facts(server, kind, repo)
        assert (stated["source"]["name"], stated["generator"]) == ("clothes", "mine")
        assert {score["dataset"] for score in stated["sets"]["2"]["scores"]} == {"clothes"}
        assert stated["sets"]["2"]["config"]["dataset"] == "clothes"

    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    server.requests.clear()
    done("push", tmp_path / "run", "ann/clothes")
    assert writes(server) == []
    done("push", tmp_path / "run", "ann/elsewhere")
    weights = [own(server, "model", repo)["labels.safetensors"] for repo in ("ann/clothes", "ann/elsewhere")]
    assert weights[0] == weights[1]
    done("pull", "ann/elsewhere")


@pytest.mark.parametrize(
    ("tested", "published"),
    [
        ("uoft-cs/cifar10", "cifar10"),
        ("cifar10", "cifar10"),
        ("hf://datasets/uoft-cs/cifar10@main", "cifar10"),
        ("zalando-datasets/fashion_mnist", "fashion_mnist"),
        ("customers-acme/birds", "birds"),
        ("/home/ann/cifar10", "cifar10 (other data)"),
        ("./..", "data"),
    ],
)
def test_the_test_set_of_a_score(made: Made, tested: str, published: str) -> None:
    config = Run(made.run).config()
    source = Source(kind="hub", id="uoft-cs/cifar10", name="cifar10", revision="0" * 40)
    assert public_test_set(tested, config, source) == published


def test_a_meta_generator_of_a_folder_and_of_the_hub(server: HubServer) -> None:
    shutil.copytree(generators.bundled_folder(), Path("secret-gens", "mine"))
    done("push", "--generator", "secret-gens/mine", "ann/meta")
    assert facts(server, "model", "ann/meta")["generator"] == "mine"
    sha = server.commits("model", "ann/meta")[0].sha
    done("push", "--generator", "ann/meta", "ann/copy")
    assert facts(server, "model", "ann/copy")["generator"] == f"ann/meta@{sha}"


def test_the_kernel_is_nobodys_business(server: HubServer, run: Path) -> None:
    env = json.loads((run / "env.json").read_text())
    assert not re.search(r"\d+\.\d+", env["platform"])
    (run / "env.json").write_text(json.dumps(env | {"platform": "Linux-5.15.0-76-generic-x86_64-with-glibc2.35"}))
    done("push", run, "ann/c10")
    assert facts(server, "model", "ann/c10")["sets"]["1"]["env"]["platform"] == "Linux"


def test_the_command_of_a_generated_set(server: HubServer, run: Path) -> None:
    done("generate", run, "--ipc", 2, "--precision", "fp32", "--labels", "analytical")
    done("push", run, "ann/c10")
    command = facts(server, "dataset", "ann/c10-ddtool")["sets"]["2"]["command"]
    for words in command.split(" && "):
        done(*shlex.split(words)[1:])
    name = "synthetic/ipc2/exact.safetensors"
    assert Path("runs/new", name).read_bytes() == (run / name).read_bytes()


# ------------------------------------------------------------------------------------------------------ what is in the way


def test_a_card_of_others_is_not_overwritten(server: HubServer, run: Path) -> None:
    server.seed("dataset", "ann/photos", {CARD: b"# My photos", "data/train.parquet": b"x"})
    words = ["push", run, "ann/c10", "--dataset-repo", "ann/photos"]
    assert "was not made by ddtool and holds README.md" in refused(1, *words)
    assert writes(server) == []
    done(*words, "--force")
    assert b"distilled" in own(server, "dataset", "ann/photos")[CARD]
    assert b"# My photos" in own(server, "dataset", "ann/photos")[CARD]
    assert own(server, "dataset", "ann/photos")["data/train.parquet"] == b"x"


def test_a_card_of_another_version_is_written_anew(pushed: HubServer, run: Path, made: Made) -> None:
    old = json.loads(made.model["ddtool.json"]) | {"ddtool": "0.0.1"}
    del old["card"]
    pushed.seed("model", "ann/c10", {CARD: b"as cards were", "ddtool.json": json.dumps(old).encode()})
    done("push", run, "ann/c10", "--only", "generator")
    assert own(pushed, "model", "ann/c10")[CARD] == made.model[CARD]


def test_force_of_adapt_is_for_the_run_alone(pushed: HubServer, made: Made) -> None:
    done(*ADAPT)
    stderr = refused(1, *ADAPT, "--seed", 5, "--force", "--push-to", "ann/c10")
    assert "The run is finished (run), and not pushed" in stderr
    assert "holds another set of ipc 1" in stderr
    assert "`ddtool push … --force`" in stderr
    assert own(pushed, "model", "ann/c10") == made.model
    assert own(pushed, "dataset", "ann/c10-ddtool") == made.sets
    options: dict[str, Any] = {"engine": tiny.ENGINE, "settings": tiny.SETTINGS, "generator": "scratch", "seed": 6}
    with pytest.raises(HubError, match="another set of ipc 1"):
        api.adapt("cifar10", ipc=1, out="run", force=True, push_to="ann/c10", **options)
    assert writes(pushed) == []


def test_sets_of_other_data_do_not_mix(server: HubServer, tmp_path: Path) -> None:
    tiny.adapt(tiny.image_folder(tmp_path / "alpha"), tmp_path / "a", ipc=2)
    tiny.adapt(tiny.image_folder(tmp_path / "beta", train=9), tmp_path / "b", ipc=3)
    done("push", "a", "ann/m")
    server.requests.clear()
    words = ["push", "b", "ann/m", "--only", "dataset"]
    stderr = refused(1, *words)
    assert "sets of other data" in stderr
    assert "--dataset-repo" in stderr
    assert writes(server) == []
    done(*words, "--force")
    stated = facts(server, "dataset", "ann/m-ddtool")
    assert (stated["source"]["name"], list(stated["sets"])) == ("beta", ["3"])
    assert not [name for name in own(server, "dataset", "ann/m-ddtool") if "ipc2" in name]


def test_a_meta_generator_leaves_nothing_of_an_adapted_one(pushed: HubServer) -> None:
    assert "another generator" in refused(1, "push", "--generator", "bundled", "ann/c10")
    done("push", "--generator", "bundled", "ann/c10", "--force")
    assert sorted(own(pushed, "model", "ann/c10")) == [CARD, "config.json", "ddtool.json", "model.safetensors"]
    assert commits(pushed, "model", "ann/c10") == 2


def test_the_same_generator_by_another_name_of_its_data(
    pushed: HubServer,
    second: Path,
    made: Made,
) -> None:
    labels = (second / "generator" / "labels.safetensors").read_bytes()
    assert labels != made.model["labels.safetensors"]
    done("push", second, "ann/c10")
    assert own(pushed, "model", "ann/c10")["labels.safetensors"] == made.model["labels.safetensors"]
    for kind, repo in (("model", "ann/c10"), ("dataset", "ann/c10-ddtool")):
        assert facts(pushed, kind, repo)["source"]["name"] == "cifar10"
        assert sorted(facts(pushed, kind, repo)["sets"]) == ["1", "2"]


def test_what_is_noted_beside_the_labels_makes_no_other_generator(
    pushed: HubServer,
    run: Path,
) -> None:
    path = run / "generator" / "labels.safetensors"
    tensors, info = read_tensors(path)
    write_tensors(path, tensors, info | {"pool_ipc": 5})
    done("push", run, "ann/c10")
    write_tensors(path, tensors | {"W": tensors["W"] + 1}, info)
    stderr = refused(1, "push", run, "ann/c10")
    assert "another generator" in stderr
    assert "--only dataset" in stderr


# ------------------------------------------------------------------------------------------------------------ licences


def licence_of(server: HubServer, kind: str, repo: str) -> tuple[Any, Any, Any]:
    data = huggingface_hub.RepoCard(own(server, kind, repo)[CARD].decode()).data.to_dict()
    return data.get("license"), data.get("license_name"), data.get("license_link")


def test_the_licence_is_that_of_the_images_and_of_the_weights(server: HubServer) -> None:
    weights = {name: (generators.bundled_folder() / name).read_bytes() for name in generators.GENERATOR_FILES}
    server.seed("model", "bob/alike", weights | {CARD: b"---\nlicense: cc-by-4.0\n---\n"})
    server.seed("model", "bob/other", weights | {CARD: b"---\nlicense: other\nlicense_name: bobs-own\n---\n"})
    server.seed("model", "bob/silent", weights)
    words = ["adapt", "cifar10", "--ipc", 1, *tiny.UNCOUNTED, "--steps", 1, "--refine-steps", 0, "--no-evaluate"]
    data, hub = "https://huggingface.co/datasets/", "https://huggingface.co/"
    expected = {
        "bob/alike": ("cc-by-4.0", None, None),
        "bob/other": ("other", "cc-by-4.0-and-bobs-own", f"{hub}bob/other"),
        "bob/silent": ("other", "cc-by-4.0-and-terms-of-the-training-data", f"{hub}bob/silent"),
        "bundled": ("other", "cc-by-4.0-and-terms-of-the-training-data", f"{data}zh-plus/tiny-imagenet"),
    }
    for number, (generator, licence) in enumerate(expected.items()):
        done(*words, "--generator", generator, "--out", f"run{number}")
        done("push", f"run{number}", f"ann/g{number}")
        for kind, repo in (("model", f"ann/g{number}"), ("dataset", f"ann/g{number}-ddtool")):
            assert licence_of(server, kind, repo) == licence
            text = own(server, kind, repo)[CARD].decode()
            assert 'states the licence "cc-by-4.0"' in text
            assert ("bundles" if generator == "bundled" else f"weights of [{generator}]") in text
    assert 'under the licence "bobs-own"' in own(server, "model", "ann/g1")[CARD].decode()


def test_weights_that_are_gone_have_unknown_terms(server: HubServer) -> None:
    weights = {name: (generators.bundled_folder() / name).read_bytes() for name in generators.GENERATOR_FILES}
    server.seed("model", "bob/meta", weights | {CARD: b"---\nlicense: mit\n---\n"})
    done(
        "adapt",
        "cifar10",
        "--ipc",
        1,
        *tiny.OPTIONS[2:],
        "--generator",
        "bob/meta",
        "--out",
        "run",
        "--refine-steps",
        0,
    )
    del server.repos["model", "bob/meta"]
    done("push", "run", "ann/x")
    assert licence_of(server, "model", "ann/x")[1] == "cc-by-4.0-and-terms-of-the-training-data"


# ---------------------------------------------------------------------------------------------------------- real images


def test_real_images_are_announced_before_the_first_byte(server: HubServer, run: Path) -> None:
    notes: list[tuple[str, int]] = []
    api.push(run, "ann/c10", report=lambda event: notes.append((getattr(event, "text", ""), len(writes(server)))))
    told = [(text, sent) for text, sent in notes if "Real images of cifar10" in text]
    assert [text.partition(" for ")[2] for text, _ in told] == [
        "ann/c10-ddtool; --no-pool leaves them out.",
        "ann/c10; --no-pool leaves them out.",
    ]
    assert told[0][1] == 0
    assert "Real images" not in done("push", run, "ann/c10").stderr
    assert "Real images" not in done("push", run, "ann/d10", "--no-pool").stderr


def test_adapt_leaves_real_images_out(server: HubServer) -> None:
    done(*ADAPT, "--push-to", "ann/c10", "--no-pool")
    assert "pool/train.parquet" not in own(server, "model", "ann/c10")
    assert facts(server, "dataset", "ann/c10-ddtool")["pool"] == 0
    assert "--no-pool is for what is pushed" in refused(2, *ADAPT, "--no-pool", "--out", "other")
    server.fault(r"^POST .*/commit/", Status(500), times=None)
    assert "`ddtool push other ann/d10 --no-pool`" in refused(
        1, *ADAPT, "--out", "other", "--push-to", "ann/d10", "--no-pool"
    )


def test_adapt_from_python_leaves_real_images_out(server: HubServer) -> None:
    api.adapt(
        "cifar10", ipc=1, out="run", push_to="ann/c10", pool=False, generator="scratch", engine=tiny.ENGINE,
        settings=tiny.SETTINGS,
    )  # fmt: skip
    assert "pool/train.parquet" not in own(server, "model", "ann/c10")


def test_a_commit_has_the_message_that_was_given(server: HubServer, run: Path) -> None:
    done("push", run, "ann/c10", "--commit-message", "Sets of the first try")
    assert server.commits("model", "ann/c10")[0].title == "Sets of the first try"
    assert server.commits("dataset", "ann/c10-ddtool")[0].title == "Sets of the first try"
    assert "is empty" in refused(2, "push", run, "ann/c10", "--commit-message", " ")
    server.fault(r"^POST .*/commit/", Status(500), times=None)
    assert "`ddtool push run ann/d10 --commit-message 'a b'`" in refused(
        1, "push", run, "ann/d10", "--commit-message", "a b"
    )


def test_every_request_says_who_asks(
    server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    agents: list[str] = []
    answer = server._answer

    def seen(method: str, target: str, headers: dict[str, str], body: bytes) -> Any:
        if method != "PUT":  # to the storage, by a signed address
            agents.append(headers.get("user-agent", ""))
        return answer(method, target, headers, body)

    server._answer = seen  # type: ignore[method-assign]
    try:
        done("push", run, "ann/c10", "--space")
        done("pull", "ann/c10")
        ours = len(agents)
        monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "decoded"))
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
        done("generate", run, "--ipc", 2)
    finally:
        del server._answer
    assert 0 < ours < len(agents)
    assert all(agent.startswith(f"ddtool/{package.__version__};") for agent in agents[:ours]), set(agents)
    assert all(f"ddtool/{package.__version__}" in agent for agent in agents), set(agents)


# ------------------------------------------------------------------------------------------------------------ pictures


def height(picture: bytes) -> int:
    return Image.open(io.BytesIO(picture)).size[1]


def test_without_a_pool_no_real_image_is_shown(server: HubServer, run: Path) -> None:
    before = (run / "preview.png").read_bytes()
    done("push", run, "ann/c10", "--no-pool")
    for kind, repo in (("model", "ann/c10"), ("dataset", "ann/c10-ddtool")):
        assert height(own(server, kind, repo)["preview.png"]) < height(before)
        assert facts(server, kind, repo)["pool"] == 0
    assert (run / "preview.png").read_bytes() == before
    done("push", run, "ann/c10", "--no-pool")
    assert commits(server, "model", "ann/c10") == 1


def test_a_pool_that_is_taken_back_stays_in_the_history(pushed: HubServer, run: Path) -> None:
    result = done("push", run, "ann/c10", "--no-pool")
    assert "history" in result.stderr
    assert height(own(pushed, "model", "ann/c10")["preview.png"]) < height((run / "preview.png").read_bytes())
    assert "history" not in done("push", run, "ann/c10", "--no-pool").stderr


def test_a_pulled_run_without_a_pool_replaces_the_picture(pushed: HubServer) -> None:
    before = own(pushed, "model", "ann/c10")["preview.png"]
    done("generate", "ann/c10", "--ipc", 2)
    done("push", "runs/c10", "ann/c10", "--only", "generator")
    assert own(pushed, "model", "ann/c10")["preview.png"] == before
    done("push", "runs/c10", "ann/c10", "--only", "generator", "--no-pool")
    drawn = own(pushed, "model", "ann/c10")["preview.png"]
    done("push", "runs/c10", "ann/c10", "--only", "generator")
    assert height(own(pushed, "model", "ann/c10")["preview.png"]) > height(drawn)


# --------------------------------------------------------------------------------------------------- branches and tries


def test_a_branch_is_made_where_nothing_has_changed(pushed: HubServer, run: Path) -> None:
    head = pushed.commits("model", "ann/c10")[0].sha
    result = done("push", run, "ann/c10", "--revision", "v2")
    assert "Made the branch v2 of ann/c10." in result.stderr
    assert pushed.commits("model", "ann/c10", "v2")[0].sha == head
    done("pull", "ann/c10@v2")
    pushed.requests.clear()
    done("push", run, "ann/c10", "--revision", "v2")
    assert writes(pushed) == []


@pytest.mark.parametrize(
    "name", ["bad branch", "a..b", "refs/pr/9", "-x", "x/", "x.lock", "a//b", "a/.b", "0" * 40, ""]
)
def test_a_branch_needs_a_name(server: HubServer, run: Path, name: str) -> None:
    assert "not a name for a branch" in refused(2, "push", run, "ann/c10", f"--revision={name}")
    assert server.requests == []


@pytest.mark.parametrize("name", ["main", "v2", "v1.0-rc_1", "me/try"])
def test_names_for_a_branch(name: str) -> None:
    assert Options(revision=name).revision == name


def test_a_commit_is_tried_again_after_a_slow_upload(
    server: HubServer,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    create, clock = huggingface_hub.HfApi.create_commit, [0.0]

    def slow(self: Any, *arguments: Any, **options: Any) -> Any:
        clock[0] += 10 * client.PATIENCE
        return create(self, *arguments, **options)

    own_clock = SimpleNamespace(monotonic=lambda: clock[0], sleep=lambda seconds: None)
    monkeypatch.setattr("ddtool.hub.client.time", own_clock)  # not `time` itself: everybody else waits by that
    monkeypatch.setattr(huggingface_hub.HfApi, "create_commit", slow)
    server.fault(r"^POST .*/commit/", Status(503))
    done("push", run, "ann/c10", "--only", "generator")
    assert commits(server, "model", "ann/c10") == 1
    uploads = [request.path for request in server.requests if request.method == "PUT"]
    assert len(uploads) == len(set(uploads))


# ---------------------------------------------------------------------------------------------------- siblings, rights


def test_one_repo_after_the_other_is_linked(server: HubServer, run: Path) -> None:
    done("push", run, "ann/z", "--only", "dataset")
    done("push", run, "ann/z", "--only", "generator")
    assert facts(server, "model", "ann/z")["dataset_repo"] == "ann/z-ddtool"
    done("push", run, "ann/z", "--only", "dataset")
    assert facts(server, "dataset", "ann/z-ddtool")["model_repo"] == "ann/z"


def test_a_recorded_sibling_stays(server: HubServer, run: Path) -> None:
    done("push", run, "ann/z", "--dataset-repo", "ann/small")
    done("push", run, "ann/other", "--only", "dataset", "--dataset-repo", "ann/z-ddtool")
    done("push", run, "ann/z", "--only", "generator")
    assert facts(server, "model", "ann/z")["dataset_repo"] == "ann/small"


@pytest.mark.parametrize("only", [[], ["--only", "dataset"]])
def test_a_repo_beside_a_private_one_is_private(server: HubServer, run: Path, only: list[str]) -> None:
    done("push", run, "ann/p", "--only", "generator", "--private")
    done("push", run, "ann/p", *only)
    assert server.repos["dataset", "ann/p-ddtool"].private


def test_an_organisation_in_other_letters(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"name": "ann", "orgs": [{"name": "Lab", "roleInOrg": "read"}]}
    monkeypatch.setattr(huggingface_hub.HfApi, "whoami", lambda self: answer)
    for name in ("Lab", "lab"):
        with pytest.raises(HubError, match="may only read"):
            upload.check_may_write(name)


# ------------------------------------------------------------------------------------------------------------ the talk


def test_missing_sets_are_said_aloud(server: HubServer) -> None:
    done("adapt", "cifar10", "--ipc", 1, "--ipc", 2, "--out", "run", *SCRATCH)
    assert "Not in run" not in done("push", "run", "ann/u", "--dry-run").stderr
    shutil.rmtree("run/synthetic/ipc2")
    result = done("push", "run", "ann/u")
    assert "Not in run, so not pushed: the set of ipc 2 (`ddtool adapt --resume run`)" in result.stderr


def test_adapt_names_what_it_has_pushed(server: HubServer) -> None:
    stderr = done(*ADAPT, "--push-to", "ann/c10").stderr
    assert f"On the Hub: {server.url}/datasets/ann/c10-ddtool, {server.url}/ann/c10" in stderr
    assert "Next: ddtool pull ann/c10" in stderr


def test_options_are_checked_first() -> None:
    with pytest.raises(UsageError, match="not a name for a branch"):
        Options(revision="a b")


@pytest.mark.parametrize("changes", [{"content_hash": {"a": 1}}, {"kind": "elsewhere"}, {"kind": "hub", "id": ["x"]}])
def test_a_run_that_does_not_say_where_its_data_is_from_is_not_pushed(
    changes: dict[str, Any], run: Path, server: HubServer
) -> None:
    path = run / "generator" / "labels.safetensors"
    tensors, info = read_tensors(path)
    write_tensors(path, tensors, info | {"source": info["source"] | changes})
    assert "does not say where its data is from" in refused(1, "push", run, "ann/new")
    assert writes(server) == []


@pytest.mark.parametrize(
    ("name", "cut"),
    [("generator/model.safetensors", False), ("generator/labels.safetensors", False), ("pool/train.parquet", True),
     ("synthetic/ipc1/train.parquet", True), ("synthetic/ipc1/exact.safetensors", False),
     ("generator/model.safetensors", True)],
)  # fmt: skip
def test_a_damaged_file_is_named_as_other_commands_name_it(name: str, cut: bool, run: Path, server: HubServer) -> None:
    path = run / name
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw[: len(raw) // 2] if cut else raw)
    said = refused(1, "push", run, "ann/new")
    assert path.name in said
    assert "bug" not in said
    assert writes(server) == []
    if "generator" in name or "pool" in name:
        told = refused(1, "generate", run, "--ipc", 1, "--force")
        assert told.splitlines()[-2:] == said.splitlines()[-2:]
