"""What a person writes into a repo's README.md stays, push after push; by the true client against tests/hub_server.py."""

# ruff: noqa: F811  (fixtures of test_hub)

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import tiny
import yaml
from hub_server import HubServer
from hypothesis import given
from hypothesis import strategies as st
from test_hub import (  # noqa: F401  fixtures among them
    ADAPT,
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

from ddtool import api
from ddtool.errors import HubError
from ddtool.hub import download
from ddtool.sharing import describe, readme
from ddtool.sharing.files import BEGIN, END

CARD, FACTS = "README.md", "ddtool.json"
OLD = Path(__file__).parent / "version-0.1"
PUSH = ["push", "run", "ann/c10", "--only", "generator"]


def card(server: HubServer, kind: str = "model", repo: str = "ann/c10") -> str:
    return own(server, kind, repo)[CARD].decode()


def edit(server: HubServer, text: str, kind: str = "model", repo: str = "ann/c10") -> None:
    """A person's commit on the website."""
    server.seed(kind, repo, {CARD: text.encode()})
    server.requests.clear()


def with_words(text: str) -> str:
    """The card with words above and below ddtool's part, and metadata of a person's own."""
    text = text.replace("---\n", "---\n# my remark\nthumbnail: https://ann.example/x.png\nlanguage:\n- en\n", 1)
    return text.replace(BEGIN, f"> Read me first.\n\n{BEGIN}") + "\n## Thanks\n\nTo Bob.\n"


def has_words(text: str) -> bool:
    data = huggingface_hub.ModelCard(text).data
    assert text.index("Read me first") < text.index(BEGIN) < text.index(END) < text.index("To Bob.")
    assert (data.to_dict()["thumbnail"], data.language) == ("https://ann.example/x.png", ["en"])
    return "# my remark\n" in text


# ------------------------------------------------------------------------------------------------- words beside ddtool's


@pytest.mark.parametrize(
    ("only", "kind", "repo"), [("generator", "model", "ann/c10"), ("dataset", "dataset", "ann/c10-ddtool")]
)
def test_words_survive_three_pushes_by_two_versions(
    pushed: HubServer, run: Path, only: str, kind: str, repo: str
) -> None:
    push = ["push", "run", "ann/c10", "--only", only]
    edit(pushed, with_words(card(pushed, kind, repo)), kind, repo)
    done(*push)
    assert writes(pushed) == []  # nothing of ddtool's has changed
    done("generate", run, "--ipc", 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(describe, "__version__", "9.9.9")
        done(*push)
    assert has_words(card(pushed, kind, repo))
    assert "ddtool 9.9.9" in card(pushed, kind, repo)
    assert "| 2 |" in card(pushed, kind, repo)
    done(*push)
    assert has_words(card(pushed, kind, repo))
    assert "9.9.9" not in card(pushed, kind, repo).partition("## Results")[0]
    assert commits(pushed, kind, repo) == 4


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("## Results", "## My results", "the text between ddtool's marks"),
        ("library_name: ddtool", "library_name: mine", "'library_name' of the metadata"),
        ("- ddtool\n", "- ddtool\n- mine\n", "'tags' of the metadata"),
        (END, "", "ddtool's marks"),
        ("---\n", "---\n: [\n", "its metadata, which cannot be read (it is not YAML)"),
    ],
)
def test_a_change_of_ddtools_own_part_is_a_conflict(
    pushed: HubServer, run: Path, made: Made, old: str, new: str, said: str
) -> None:
    edit(pushed, card(pushed).replace(old, new, 1))
    for option in ([], ["--force"]):
        stderr = refused(1, *PUSH, *option)
        assert f"somebody has changed {said}" in stderr.replace("\n", " ")
        assert "--overwrite-card" in stderr
    assert writes(pushed) == []
    done(*PUSH, "--overwrite-card")
    assert readme.Readme.read(card(pushed)).seal() == readme.Readme.read(made.model[CARD].decode()).seal()


def test_overwriting_the_card_is_no_force(pushed: HubServer, made: Made) -> None:
    edit(pushed, with_words(card(pushed)).replace("## Results", "## My results"))
    done(*ADAPT, "--seed", 1)
    assert "another generator" in refused(1, *PUSH, "--overwrite-card")
    assert "somebody has changed" in refused(1, *PUSH, "--force")
    done(*PUSH, "--force", "--overwrite-card")
    assert has_words(card(pushed))
    assert "## My results" not in card(pushed)


def test_line_ends_of_a_browser_change_nothing(pushed: HubServer, run: Path) -> None:
    edit(pushed, with_words(card(pushed)).replace("\n", "\r\n"))
    done(*PUSH)
    assert writes(pushed) == []
    done("generate", run, "--ipc", 2)
    done(*PUSH)
    assert has_words(card(pushed))
    assert "\r" not in card(pushed)


def test_adapt_says_so_before_the_work(pushed: HubServer, made: Made) -> None:
    edit(pushed, card(pushed).replace("## Results", "## My results"))
    assert "somebody has changed" in refused(1, *ADAPT, "--push-to", "ann/c10")
    with pytest.raises(HubError, match="somebody has changed"):
        api.adapt("cifar10", ipc=1, out="run", push_to="ann/c10", engine=tiny.ENGINE, settings=tiny.SETTINGS)
    assert not Path("run").exists()


# ------------------------------------------------------------------------------------------ cards without ddtool's marks


def test_words_in_an_empty_repository_stay(server: HubServer, run: Path) -> None:
    server.seed("model", "ann/c10", {CARD: b"---\nlanguage: en\n---\n# My plan\n\nA generator will be here.\n"})
    done(*PUSH)
    text = card(server)
    assert text.index("A generator will be here.") < text.index(BEGIN)
    assert huggingface_hub.ModelCard(text).data.language == "en"
    done(*PUSH)
    assert card(server) == text


def test_a_licence_that_a_person_chose_is_not_replaced(server: HubServer, run: Path) -> None:
    server.seed("model", "ann/c10", {CARD: b"---\nlicense: gpl-3.0\n---\n"})
    assert "'license' of the metadata" in refused(1, *PUSH)
    assert writes(server) == []
    done(*PUSH, "--overwrite-card")
    assert huggingface_hub.ModelCard(card(server)).data.license != "gpl-3.0"


@pytest.fixture
def of_version_0_1(pushed: HubServer) -> HubServer:
    """The repo as version 0.1 has pushed it: a card without marks, facts without hashes."""
    files = {CARD: (OLD / "model-README.md").read_bytes(), FACTS: (OLD / "model-ddtool.json").read_bytes()}
    pushed.seed("model", "ann/c10", files)
    pushed.requests.clear()
    return pushed


def test_a_card_of_version_0_1_is_renewed(of_version_0_1: HubServer, run: Path) -> None:
    done(*PUSH)
    assert BEGIN in card(of_version_0_1)
    assert "card" in facts(of_version_0_1, "model", "ann/c10")


def test_a_card_of_version_0_1_that_was_edited_stays(of_version_0_1: HubServer, run: Path) -> None:
    edit(of_version_0_1, card(of_version_0_1) + "\nMy own words.\n")
    assert "a version that did not mark its part" in refused(1, *PUSH)
    assert writes(of_version_0_1) == []
    done(*PUSH, "--overwrite-card")
    assert "My own words" not in card(of_version_0_1)


def test_a_hub_that_does_not_tell_its_history(
    of_version_0_1: HubServer, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readme, "last_commits", lambda *_: {})
    assert "a version that did not mark its part" in refused(1, *PUSH)


def test_what_the_hub_says_of_its_history(of_version_0_1: HubServer) -> None:
    repo = download.resolve("model", download.Ref("ann/c10"))
    head = of_version_0_1.commits("model", "ann/c10")[0]
    assert download.last_commits(repo, [CARD, FACTS, "absent"]) == dict.fromkeys([CARD, FACTS], (head.sha, "seed"))


# -------------------------------------------------------------------------------------------------------------- by itself

OURS = f"---\nlicense: mit\ntags:\n- ddtool\n---\n\n{BEGIN}\n\n# Ours\n\n{END}\n"
NEWER = f"---\nlicense: mit\nnew: 1\n---\n\n{BEGIN}\n\n# Ours, newer\n\n{END}\n"


def merged(theirs: str | None, **options: Any) -> str:
    seal = readme.Readme.read(OURS).seal()
    return readme.merged(NEWER, theirs, seal, **({"known": True, "overwrite": False} | options))


def test_nothing_of_a_person_is_only_ours() -> None:
    assert merged(None) == NEWER
    assert merged(OURS) == NEWER


WORDS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=40)


@given(WORDS, WORDS, WORDS)
def test_any_words_stay(before: str, after: str, value: str) -> None:
    theirs = OURS.replace(BEGIN, f"{before}\n\n{BEGIN}") + f"\n{after}\n"
    theirs = theirs.replace("---\n", f"---\n{yaml.safe_dump({'own': value}, allow_unicode=True, width=10**6)}", 1)
    text = merged(theirs)
    new = readme.Readme.read(text)
    assert (new.before, new.after, new.part) == (before.strip("\n"), after.strip("\n"), "# Ours, newer")
    assert yaml.safe_load("".join(new.metadata.values())) == {"license": "mit", "new": 1, "own": value}
    assert readme.merged(NEWER, text, readme.Readme.read(NEWER).seal(), known=True, overwrite=False) == text


def test_a_key_that_ddtool_begins_to_write() -> None:
    assert merged(OURS.replace("tags:", "new: 1\ntags:")) == NEWER
    with pytest.raises(readme.CardConflictError, match="'new' of the metadata"):
        merged(OURS.replace("tags:", "new: 2\ntags:"))


@pytest.mark.parametrize("front", ["- a\n", "a: &x 1\nb: *x\n", "{a: 1}\n", "a: [\n", "? a\n: 1\n"])
def test_metadata_that_cannot_be_kept_is_a_conflict(front: str) -> None:
    theirs = f"---\n{front}---\n" + OURS.partition("---\n\n")[2]
    with pytest.raises(readme.CardConflictError, match="its metadata"):
        merged(theirs)
    assert merged(theirs, overwrite=True) == NEWER


def test_facts_and_card_agree(pushed: HubServer) -> None:
    stated = json.loads(own(pushed, "model", "ann/c10")[FACTS])["card"]
    assert readme.Readme.read(card(pushed)).seal().stated() == stated
    shutil.rmtree("run", ignore_errors=True)
