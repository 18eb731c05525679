"""`ddtool push --space`: what a Space is made of, what stays of a person's, and rights; against tests/hub_server.py."""

# ruff: noqa: F811  (fixtures of test_hub)

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny
from hub_server import HubServer, Status
from packaging.requirements import Requirement
from test_hub import (  # noqa: F401  fixtures among them
    WRITE,
    Made,
    _quick_pauses,
    _surroundings,
    commits,
    made,
    own,
    run,
    writes,
)
from tiny import done, refused

from ddtool import api
from ddtool.errors import HubError
from ddtool.sharing import cards, spaces
from ddtool.sharing.spaces import SpaceFacts

FILES = ["README.md", "app.py", "ddtool.json", "requirements.txt"]
PUSH = ["push", "run", "ann/c10", "--space"]
REPOS = [("dataset", "ann/c10-ddtool"), ("model", "ann/c10"), ("space", "ann/c10")]


@pytest.fixture
def there(server: HubServer, run: Path) -> HubServer:
    """The Hub after a push with a Space."""
    done(*PUSH)
    server.requests.clear()
    return server


def files(server: HubServer) -> dict[str, bytes]:
    return own(server, "space", "ann/c10")


def edit(server: HubServer, name: str, more: bytes) -> bytes:
    """A person's commit on the website; returns the file as it now is."""
    text = files(server)[name] + more
    server.seed("space", "ann/c10", {name: text})
    server.requests.clear()
    return text


def another_version(patch: pytest.MonkeyPatch, app: str = "# a new page\n") -> None:
    """As if another version of ddtool pushed, with another page."""
    patch.setattr(spaces, "__version__", "9.9.9")
    patch.setattr(cards, "template", lambda name: app)


# -------------------------------------------------------------------------------------------------------- what is made


def test_a_space_stands_beside_the_repos(server: HubServer, run: Path) -> None:
    result = json.loads(done(*PUSH, "--json").stdout)
    assert list(result) == ["dataset", "model", "space"]
    assert result["space"]["url"] == f"{server.url}/spaces/ann/c10"
    assert sorted(files(server)) == FILES
    assert [commits(server, *repo) for repo in REPOS] == [1, 1, 1]
    stated = json.loads(files(server)["ddtool.json"])
    assert (stated["kind"], stated["dataset_repo"], stated["model_repo"]) == ("space", "ann/c10-ddtool", "ann/c10")
    assert sorted(stated["files"]) == [name for name in FILES if name != "ddtool.json"]
    assert files(server)["app.py"] == (tiny.ROOT / "hub_cards" / "space_app.py").read_bytes()


def test_the_card_is_what_the_hub_reads(there: HubServer) -> None:
    data = huggingface_hub.SpaceCard(files(there)["README.md"].decode()).data
    assert (data.sdk, data.sdk_version, data.app_file, data.license) == ("gradio", cards.GRADIO, "app.py", "mit")
    assert (data.models, data.datasets) == (["ann/c10"], ["ann/c10-ddtool"])
    assert (data.title, data.python_version) == ("cifar10, distilled", "3.12")
    text = files(there)["README.md"].decode()
    assert "(https://huggingface.co/datasets/ann/c10-ddtool)" in text
    assert "(https://huggingface.co/ann/c10)" in text
    assert "real images" not in text.lower()


def test_nothing_secret_and_no_place_is_in_a_space(there: HubServer, run: Path) -> None:
    for name, data in files(there).items():
        assert WRITE.encode() not in data, name
        assert str(run.resolve().parent).encode() not in data, name


def test_a_run_without_a_generator_has_a_space_too(server: HubServer) -> None:
    done("adapt", "cifar10", "--method", "random", "--ipc", 1, "--out", "chosen", "--precision", "fp32")
    done("push", "chosen", "ann/r", "--space")
    assert not server.exists("model", "ann/r")
    stated = json.loads(own(server, "space", "ann/r")["ddtool.json"])
    assert (stated["dataset_repo"], stated["model_repo"]) == ("ann/r-ddtool", None)
    assert "models" not in huggingface_hub.SpaceCard(own(server, "space", "ann/r")["README.md"].decode()).data.to_dict()


def test_from_python(server: HubServer, run: Path) -> None:
    assert [made.kind for made in api.push("run", "ann/c10", space=True)] == ["dataset", "model", "space"]
    assert [planned.new for planned in api.plan_push("run", "ann/c10", space=True)] == [False] * 3
    assert [planned.kind for planned in api.plan_push("run", "ann/c10")] == ["dataset", "model"]


def test_a_plan_sends_nothing(server: HubServer, run: Path) -> None:
    planned = json.loads(done(*PUSH, "--dry-run", "--json").stdout)["space"]
    assert [(file["file"], file["state"]) for file in planned["files"]] == [(name, "new") for name in FILES]
    assert "sdk: gradio" in planned["card"]
    assert writes(server) == []
    assert "sdk: gradio" in done(*PUSH, "--dry-run").stdout


def test_the_page_that_is_pushed_is_in_the_wheel() -> None:
    compile(cards.template("space_app.py"), "app.py", "exec")


# -------------------------------------------------------------------------------------------------- how to get ddtool


def lines(server: HubServer) -> list[str]:
    """What pip reads of requirements.txt."""
    found = files(server)["requirements.txt"].decode().splitlines()
    return [line for line in found if line and not line.startswith("#")]


def test_while_ddtool_has_no_address_the_space_says_so(
    server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spaces, "ADDRESS", "")
    assert "ddtool has no public address yet" in done(*PUSH).stderr
    assert lines(server) == []
    assert "# ddtool is missing here" in files(server)["requirements.txt"].decode()
    assert "ddtool is missing here until you add it" in files(server)["README.md"].decode()


def test_with_an_address_ddtool_is_installed_from_there(
    server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (spaces, cards):
        monkeypatch.setattr(module, "ADDRESS", "https://git.example/ddtool")
    assert "no public address" not in done(*PUSH).stderr
    (needed,) = map(Requirement, lines(server))
    assert (needed.name, needed.url) == ("ddtool", "git+https://git.example/ddtool")
    assert "missing" not in files(server)["README.md"].decode()


def test_a_line_that_a_person_added_is_enough(there: HubServer, run: Path) -> None:
    text = edit(there, "requirements.txt", b"https://ann.example/ddtool-0.1.0-py3-none-any.whl\n")
    stderr = done(*PUSH).stderr
    assert "requirements.txt is not as ddtool wrote" in stderr
    assert "no public address" not in stderr
    assert files(there)["requirements.txt"] == text


# ---------------------------------------------------------------------------------------------------- pushing it again


def test_pushing_again_changes_nothing(there: HubServer) -> None:
    done(*PUSH)
    assert writes(there) == []
    done("push", "run", "ann/c10")
    assert writes(there) == []


def test_an_untouched_page_is_renewed(there: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    another_version(monkeypatch)
    done(*PUSH)
    assert files(there)["app.py"] == b"# a new page\n"
    assert json.loads(files(there)["ddtool.json"])["ddtool"] == "9.9.9"


@pytest.mark.parametrize("name", ["app.py", "README.md", "requirements.txt"])
def test_what_a_person_has_changed_stays_push_after_push(there: HubServer, name: str) -> None:
    text = edit(there, name, b"\n# mine\n")
    assert f"{name} is not as ddtool wrote" in done(*PUSH).stderr
    assert writes(there) == []
    with pytest.MonkeyPatch.context() as patch:
        another_version(patch)
        done(*PUSH)
    done(*PUSH, "--force")
    assert files(there)[name] == text
    assert commits(there, "space", "ann/c10") == 4
    assert "stay; --overwrite-card" in done(*PUSH, "--dry-run").stderr
    done(*PUSH, "--overwrite-card")
    assert b"# mine" not in files(there)[name]
    assert "not as ddtool wrote" not in done(*PUSH).stderr


def test_two_files_that_were_changed_are_both_named(there: HubServer) -> None:
    edit(there, "README.md", b"more\n")
    edit(there, "app.py", b"# more\n")
    assert "README.md and app.py are not as ddtool wrote them" in done(*PUSH).stderr


def test_a_new_file_of_a_person_stays(there: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    there.seed("space", "ann/c10", {"mine.py": b"1\n"})
    another_version(monkeypatch)
    done(*PUSH)
    assert files(there)["mine.py"] == b"1\n"


# --------------------------------------------------------------------------------------------- Spaces of other people


def test_a_space_that_the_website_made_is_taken(server: HubServer, run: Path) -> None:
    huggingface_hub.HfApi().create_repo("ann/c10", repo_type="space", space_sdk="gradio")
    assert "not as ddtool wrote" not in done(*PUSH).stderr
    assert b"app_file: app.py" in files(server)["README.md"]


def test_words_in_a_new_space_stay(server: HubServer, run: Path) -> None:
    server.seed("space", "ann/c10", {"README.md": b"---\nsdk: gradio\n---\nMy own words\n"})
    assert "README.md is not as ddtool wrote" in done(*PUSH).stderr
    assert files(server)["README.md"].endswith(b"My own words\n")
    assert sorted(files(server)) == FILES


def test_a_page_of_others_is_not_overwritten(server: HubServer, run: Path) -> None:
    server.seed("space", "ann/c10", {"README.md": b"My own words\n", "app.py": b"of others\n"})
    stderr = refused(1, *PUSH)
    assert "spaces/ann/c10 was not made by ddtool and holds README.md, app.py" in stderr.replace("\n", " ")
    assert writes(server) == []
    done(*PUSH, "--force")
    assert files(server)["app.py"] != b"of others\n"
    assert files(server)["README.md"] == b"My own words\n"


@pytest.mark.parametrize("text", [b"{", b'{"format": 1, "kind": "space"}', b'{"format": 2}', b"[" * 5000])
def test_facts_of_others_are_refused(server: HubServer, run: Path, text: bytes) -> None:
    server.seed("space", "ann/c10", {"ddtool.json": text})
    assert "ddtool.json of the Space 'ann/c10' is refused" in refused(1, *PUSH).replace("\n", " ")
    assert writes(server) == []
    done(*PUSH, "--force")
    assert SpaceFacts.read(files(server)["ddtool.json"]).kind == "space"


# ------------------------------------------------------------------------------------------------------ rights, options


def test_a_space_beside_private_repos_is_private(server: HubServer, run: Path) -> None:
    done("push", "run", "ann/c10", "--private")
    done(*PUSH)
    assert server.repos["space", "ann/c10"].private
    server.seed("space", "ann/c10", {})
    assert "spaces/ann/c10 is public, and stays so" in refused(1, *PUSH, "--private").replace("\n", " ")


def test_a_hub_that_refuses_a_space_says_what_is_complete(server: HubServer, run: Path) -> None:
    done("push", "run", "ann/c10")
    server.fault(r"^POST /api/repos/create", Status(402, {"X-Error-Message": "Spaces are for members"}), times=None)
    stderr = refused(1, *PUSH).replace("\n", " ")
    assert "Spaces are for members" in stderr
    assert (
        f"{server.url}/datasets/ann/c10-ddtool and {server.url}/ann/c10 are complete; the space repo is not" in stderr
    )
    assert "`ddtool push run ann/c10 --space`" in stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "ann/c10", "--only", "generator"], "--only generator leaves them out"),
        (["--generator", "bundled", "ann/c10"], "a meta generator has none"),
    ],
)
def test_a_space_needs_sets(server: HubServer, run: Path, words: list[Any], said: str) -> None:
    assert said in refused(2, "push", *words, "--space").replace("\n", " ")
    assert writes(server) == []


def test_a_tag_a_collection_and_a_message_are_for_the_space_too(server: HubServer, run: Path) -> None:
    server.collections["ann/mine-1"] = []
    done(*PUSH, "--tag", "v1.0", "--collection", "ann/mine-1", "--commit-message", "First")
    assert server.collections["ann/mine-1"] == REPOS
    assert [server.repos[repo].tags for repo in REPOS] == [{"v1.0": server.commits(*repo)[0].sha} for repo in REPOS]
    assert server.commits("space", "ann/c10")[0].title == "First"


def test_a_space_changes_by_pull_request(there: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    another_version(monkeypatch)
    made = api.push("run", "ann/c10", space=True, create_pr=True)
    assert made[-1].pull_request == f"{there.url}/spaces/ann/c10/discussions/1"
    assert commits(there, "space", "ann/c10") == 1


def test_a_read_token_makes_no_space(server: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.add_token("hf_onlyread0123456789", "ann", role="read")
    monkeypatch.setenv("HF_TOKEN", "hf_onlyread0123456789")
    with pytest.raises(HubError, match="can only read"):
        api.push("run", "ann/c10", space=True)
