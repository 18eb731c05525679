"""The Hub from Python, by the keyword names of the ecosystem; tags and collections; how often the Hub is asked."""

# ruff: noqa: F811  (fixtures of test_hub)

import json
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
import typer
from hub_server import HubServer, Status
from test_hub import (  # noqa: F401  fixtures among them
    MODEL_FILES,
    READ,
    WRITE,
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
from tiny import all_bytes, done, refused

import ddtool as package
from ddtool import Generator, api, load_set, pull, push
from ddtool.cli.app import app
from ddtool.config import GeneratorConfig
from ddtool.errors import GeneratorError, HubError, NotOnHubError, UsageError
from ddtool.events import Event, Note, Step
from ddtool.hub import memory
from ddtool.runs.run import Run

SMALL = GeneratorConfig(slots=8, side=16)


def alike(one: Generator, other: Generator) -> bool:
    return all(torch.equal(value, other.state_dict()[name]) for name, value in one.state_dict().items())


@pytest.fixture
def generator() -> Generator:
    return Generator.build(SMALL, seed=3)


# ------------------------------------------------------------------------------------------ a generator of one's own


def test_a_generator_is_saved_pushed_and_loaded(server: HubServer, generator: Generator) -> None:
    generator.save_pretrained("mine")
    assert alike(Generator.from_pretrained("mine"), generator)
    assert alike(Generator.from_pretrained(Path("mine")), generator)
    address = generator.push_to_hub("ann/mine", commit_message="My first")
    head = server.commits("model", "ann/mine")[0]
    assert (address, head.title) == (f"{server.url}/ann/mine/commit/{head.sha}", "My first")
    assert sorted(own(server, "model", "ann/mine")) == ["README.md", "config.json", "model.safetensors"]
    assert alike(Generator.from_pretrained("ann/mine", revision=head.sha), generator)
    assert alike(Generator.from_pretrained("ann/mine", revision="main"), generator)


def test_the_short_card_is_metadata_and_a_snippet_that_runs(server: HubServer, generator: Generator) -> None:
    generator.push_to_hub("ann/mine")
    card = huggingface_hub.ModelCard(own(server, "model", "ann/mine")["README.md"].decode())
    assert (card.data.library_name, card.data.pipeline_tag) == ("ddtool", "image-to-image")
    found: dict[str, Any] = {}
    exec(card.text.partition("```python\n")[2].partition("```")[0], found)
    assert alike(found["generator"], generator)


def test_pushing_the_same_generator_again_changes_nothing(server: HubServer, generator: Generator) -> None:
    first = generator.push_to_hub("ann/mine")
    assert generator.push_to_hub("ann/mine") == first
    assert commits(server, "model", "ann/mine") == 1


def test_a_card_of_a_person_stays(server: HubServer, generator: Generator) -> None:
    server.seed("model", "ann/mine", {"README.md": b"# My words\n"})
    generator.push_to_hub("ann/mine")
    assert own(server, "model", "ann/mine")["README.md"] == b"# My words\n"


def test_a_branch_a_pull_request_and_a_private_repo(server: HubServer, generator: Generator) -> None:
    generator.push_to_hub("ann/mine", private=True)
    assert server.repos["model", "ann/mine"].private
    other = Generator.build(SMALL, seed=4)
    assert other.push_to_hub("ann/mine", create_pr=True).endswith("/ann/mine/discussions/1")
    other.push_to_hub("ann/mine", revision="v2")
    assert alike(Generator.from_pretrained("ann/mine"), generator)
    assert alike(Generator.from_pretrained("ann/mine", revision="v2"), other)
    with pytest.raises(UsageError, match="not a name for a branch"):
        other.push_to_hub("ann/mine", revision="a b")


def test_facts_of_another_generator_are_not_left_beside_it(pushed: HubServer, generator: Generator) -> None:
    with pytest.raises(HubError, match="tells of another generator"):
        generator.push_to_hub("ann/c10")
    assert writes(pushed) == []
    assert Generator.from_pretrained("ann/c10").push_to_hub("ann/c10").startswith(pushed.url)
    assert sorted(own(pushed, "model", "ann/c10")) == MODEL_FILES


@pytest.mark.parametrize("name", ["bundled", ".", "ann/c10@main", "a b"])
def test_a_revision_is_of_a_repo(pushed: HubServer, name: str) -> None:
    with pytest.raises(UsageError):
        Generator.from_pretrained(name, revision="v9")
    with pytest.raises(UsageError, match="not the name of a revision"):
        Generator.from_pretrained("ann/c10", revision="a b")


def test_a_revision_that_is_not_there(pushed: HubServer) -> None:
    for call in (Generator.from_pretrained, pull):
        with pytest.raises(HubError, match="no revision 'v9'"):
            call("ann/c10", revision="v9")
    with pytest.raises(HubError, match="no revision 'v9'"):
        load_set("ann/c10-ddtool", revision="v9")


def test_what_a_set_takes_is_shown_where_that_is_asked_for(pushed: HubServer, capsys: pytest.CaptureFixture) -> None:
    events: list[Event] = []
    load_set("ann/c10", 1, report=events.append)
    load_set("ann/c10", 1, progress=False)
    assert capsys.readouterr().err == ""
    load_set("ann/c10", 1, progress=True)
    (note,) = [event.text for event in events if isinstance(event, Note)]
    assert "ann/c10-ddtool" in note
    assert [e.step for e in events if isinstance(e, Step) and e.phase == "download ann/c10-ddtool"] == [1, 2]
    said = capsys.readouterr().err
    assert note in said
    assert "Downloading ann/c10-ddtool  1/2" in said


# ------------------------------------------------------------------------------------ by which token, into which cache


def calls(name: str) -> list[tuple[Any, str]]:
    """What takes a repo from the Hub, with the repo that it takes."""
    return [(Generator.from_pretrained, name), (pull, name), (load_set, f"{name}-ddtool")]


def test_a_token_is_used_for_one_call(
    server: HubServer, made: Made, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="not logged in"):
        push(run, "ann/own")
    push(run, "ann/own", private=True, token=WRITE)
    for call, name in calls("ann/own"):
        with pytest.raises(NotOnHubError):
            call(name)
        call(name, token=READ)
        with pytest.raises(NotOnHubError):
            call(name)
    monkeypatch.setenv("HF_TOKEN", WRITE)
    for call, name in calls("ann/own"):
        with pytest.raises(NotOnHubError):
            call(name, token=False)


def test_a_token_that_is_none(pushed: HubServer) -> None:
    for call, name in calls("ann/c10"):
        with pytest.raises(HubError, match="letters, spaces or line breaks"):
            call(name, token="hf_a b")


def test_files_go_into_the_cache_that_was_named(pushed: HubServer, tmp_path: Path) -> None:
    for call, name in calls("ann/c10"):
        cache = tmp_path / call.__name__
        call(name, cache_dir=cache)
        pushed.requests.clear()
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cache)  # a second `pull` finds its place free
            call(name, cache_dir=str(cache))
        assert not [r.path for r in pushed.requests if r.method == "GET" and "/resolve/" in r.path]
        assert list(cache.rglob("config.json")) or list(cache.rglob("exact.safetensors"))


def test_a_download_can_be_forced(pushed: HubServer) -> None:
    for call, name in calls("ann/c10"):
        call(name)
        pushed.requests.clear()
        options = {"out": f"again-{call.__name__}"} if call is pull else {}
        call(name, force_download=True, **options)
        assert [r.path for r in pushed.requests if r.method == "GET" and "storage" in r.path]


def test_what_was_used_here_needs_no_hub(pushed: HubServer, tmp_path: Path) -> None:
    for call, name in calls("ann/c10"):
        with pytest.raises(HubError, match="local_files_only was asked for") as error:
            call(name, local_files_only=True, cache_dir=tmp_path / "empty")
        assert "leave local_files_only out" in error.value.hint
        memory_before = memory.offline()
        call(name)
        pushed.requests.clear()
        options = {"out": f"again-{call.__name__}"} if call is pull else {}
        call(name, local_files_only=True, **options)
        assert pushed.requests == []
        assert memory.offline() is memory_before is False


def test_no_command_takes_a_token() -> None:
    """A token on the command line would be in the shell's history, and in the list of processes."""
    group: Any = typer.main.get_command(app)
    options = {option for command in group.commands.values() for p in command.params for option in p.opts}
    assert "--private" in options
    assert not [option for option in options if "token" in option or "login" in option]


# ------------------------------------------------------------------------------------------------ tags and collections


def test_a_push_is_tagged_once(server: HubServer, run: Path) -> None:
    done("push", run, "ann/c10", "--tag", "v1.0")
    for kind, repo in (("model", "ann/c10"), ("dataset", "ann/c10-ddtool")):
        assert server.repos[kind, repo].tags == {"v1.0": server.commits(kind, repo)[0].sha}
    done("push", run, "ann/c10", "--tag", "v1.0")  # the same again
    load_set("ann/c10-ddtool", revision="v1.0")
    done("generate", run, "--ipc", 2)
    server.requests.clear()
    assert "has the tag 'v1.0' already" in refused(1, "push", run, "ann/c10", "--tag", "v1.0")
    assert writes(server) == []
    done("push", run, "ann/c10", "--tag", "v1.1")
    assert set(server.repos["model", "ann/c10"].tags) == {"v1.0", "v1.1"}


def test_a_failure_of_the_tag_says_that_the_commit_is_there(server: HubServer, run: Path) -> None:
    server.fault(r"^POST .*/tag/", Status(403), times=None)
    said = refused(1, "push", run, "ann/c10", "--tag", "v1")
    assert "ann/c10-ddtool is complete, but for its tag" in said
    assert "`ddtool push run ann/c10 --tag v1`" in said
    server.faults.clear()
    done("push", run, "ann/c10", "--tag", "v1")
    assert commits(server, "dataset", "ann/c10-ddtool") == 1
    assert set(server.repos["dataset", "ann/c10-ddtool"].tags) == {"v1"}


def test_repos_are_added_to_a_collection(server: HubServer, run: Path) -> None:
    server.collections["ann/small-sets-1f"] = []
    for _ in range(2):
        push(run, "ann/c10", collection="ann/small-sets-1f")
        assert server.collections["ann/small-sets-1f"] == [("dataset", "ann/c10-ddtool"), ("model", "ann/c10")]


def test_a_collection_that_is_not_there(server: HubServer, run: Path) -> None:
    assert "no collection 'ann/none-1f'" in refused(1, "push", run, "ann/c10", "--collection", "ann/none-1f")
    assert not server.exists("model", "ann/c10")
    server.collections["bob/his-1f"] = []
    said = refused(1, "push", run, "ann/c10", "--collection", "bob/his-1f")
    assert "complete, but for its tag and collection" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tag", "a b"], "is not a name for a tag"),
        (["--tag", "v1", "--create-pr"], "goes with no pull request"),
        (["--collection", "small sets"], "is not the name of a collection"),
    ],
)
def test_marks_that_cannot_be(server: HubServer, run: Path, words: list[str], said: str) -> None:
    assert said in refused(2, "push", run, "ann/c10", *words)
    assert server.requests == []


# ------------------------------------------------------------------------------------------------------- with its sets


def test_a_run_is_pulled_with_its_sets_and_scores(pushed: HubServer, made: Made) -> None:
    said = done("pull", "ann/c10")
    assert "Its sets are in ann/c10-ddtool; --with-sets brings them" in said.stderr
    assert not Path("runs/c10/synthetic").exists()
    done("pull", "ann/c10", "--with-sets", "--force")
    there = Path("runs/c10")
    names = [name for name in all_bytes(made.run) if name.startswith(("synthetic", "generator"))]
    assert {name: (there / name).read_bytes() for name in names} == {n: all_bytes(made.run)[n] for n in names}
    results, before = (json.loads((folder / "results.json").read_text()) for folder in (there, made.run))
    shared = [{key: value for key, value in score.items() if key != "confusion"} for score in before["scores"]]
    assert results["scores"] == shared
    assert results["timings"] == before["timings"]
    assert done("info", there).stdout
    pushed.requests.clear()
    done("push", there, "ann/c10", "--only", "dataset", "--no-pool", "--force")
    assert facts(pushed, "dataset", "ann/c10-ddtool")["sets"]["1"]["scores"] == shared


def test_a_revision_of_a_generator_leads_to_that_of_its_sets(server: HubServer, run: Path) -> None:
    done("push", run, "ann/c10", "--tag", "v1")
    done("generate", run, "--ipc", 2)
    done("push", run, "ann/c10", "--revision", "next")
    for name, ipcs in (("ann/c10", [1]), ("ann/c10@v1", [1]), ("ann/c10@next", [1, 2])):
        done("pull", name, "--with-sets", "--out", name.replace("/", "-"))
        assert Run(Path(name.replace("/", "-"))).ipcs() == ipcs
    words = ["--protocol", "kernel-ridge", "--eval-seeds", 1, "--ipc", 2]
    assert "of ipc 2" in refused(1, "evaluate", "ann/c10", *words)
    assert "ddtool evaluate ann/c10@next" in done("evaluate", "ann/c10@next", *words).stderr
    del server.repos["dataset", "ann/c10-ddtool"].refs["next"]
    done("pull", "ann/c10@next", "--with-sets", "--out", "main")  # the sets have no such branch
    assert Run(Path("main")).ipcs() == [1]


def test_sets_of_other_data_are_not_put_beside_a_generator(pushed: HubServer, made: Made) -> None:
    stated = json.loads(made.sets["ddtool.json"])
    stated["source"]["revision"] = "0" * 40
    pushed.seed("dataset", "ann/c10-ddtool", {"ddtool.json": json.dumps(stated).encode()})
    assert "are of other data than the generator" in refused(1, "pull", "ann/c10", "--with-sets")
    assert not Path("runs").exists()
    stated = json.loads(made.model["ddtool.json"])
    pushed.seed("model", "ann/c10", {"ddtool.json": json.dumps(stated | {"dataset_repo": None}).encode()})
    assert "names no repo with its sets" in refused(1, "pull", "ann/c10", "--with-sets")
    done("push", "--generator", "bundled", "ann/meta")
    assert "has no sets" in refused(2, "pull", "ann/meta", "--with-sets")


def test_a_tricky_set_does_not_come_with_its_run(pushed: HubServer, made: Made) -> None:
    data = made.sets["ipc1/exact.safetensors"]
    pushed.seed("dataset", "ann/c10-ddtool", {"ipc1/exact.safetensors": data[:-4] + b"\x00\x00\xc0\x7f"})
    assert "ann/c10-ddtool" in refused(1, "pull", "ann/c10", "--with-sets")
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


# -------------------------------------------------------------------------------------------- how often the Hub is asked


def questions(server: HubServer, *words: object) -> int:
    """How often a command asks which files there are."""
    server.requests.clear()
    done(*words)
    return sum("/paths-info/" in request.path for request in server.requests)


def test_nobody_asks_twice_which_files_a_commit_has(pushed: HubServer, run: Path) -> None:
    """Before it was 27, 29, 4, 4, 4 and 2."""
    assert questions(pushed, "push", run, "ann/c10") <= 6
    done("generate", run, "--ipc", 2)
    assert questions(pushed, "push", run, "ann/c10") <= 7
    assert questions(pushed, "pull", "ann/c10") == 1
    assert questions(pushed, "pull", "ann/c10-ddtool") == 2
    assert questions(pushed, "generate", "ann/c10", "--ipc", 3, "--labels", "analytical") == 1
    assert questions(pushed, "info", "ann/c10") == 1


def test_api_pull_and_push_have_the_words_of_the_ecosystem() -> None:
    import inspect

    words = {"revision", "token", "cache_dir", "force_download", "local_files_only"}
    for call in (Generator.from_pretrained, package.load_set, package.pull):
        assert words <= set(inspect.signature(call).parameters)
    assert {"revision", "token", "cache_dir", "force_download", "commit_message", "private", "create_pr"} <= set(
        inspect.signature(api.push).parameters
    )
    mixin = set(inspect.signature(huggingface_hub.ModelHubMixin.push_to_hub).parameters)
    ours = set(inspect.signature(Generator.push_to_hub).parameters)
    assert ours - mixin == {"revision"}


def test_a_refused_generator_names_repo_and_revision(pushed: HubServer) -> None:
    sha = pushed.seed("model", "ann/c10", {"config.json": b"{}"})
    with pytest.raises(GeneratorError, match=rf"'ann/c10@{sha}'"):
        Generator.from_pretrained("ann/c10", revision=sha)
