"""The records of ddtool.json: what they take, what they refuse, and that files of earlier versions stay as they are."""

import json
from pathlib import Path
from typing import Any

import pytest

from ddtool.data import images
from ddtool.evaluation.protocols import Score
from ddtool.runs.facts import MOST_DIGITS, RunFacts
from ddtool.sharing import cards
from ddtool.sharing.facts import RepoFacts, Source, read_repo
from ddtool.sources.options import DEFAULTS, DataOptions

OLD = Path(__file__).parent / "version-0.1"


@pytest.fixture(params=["model", "dataset"])
def old(request: pytest.FixtureRequest) -> tuple[str, bytes]:
    """The kind and the ddtool.json of a repo that version 0.1 pushed."""
    return request.param, (OLD / f"{request.param}-ddtool.json").read_bytes()


def present(old: bytes) -> bytes:
    """Facts of version 0.1 with the present names of two keys."""
    values = json.loads(old)
    for made in values["sets"].values():
        facts = made["facts"]
        facts["flip"] = facts.pop("mirror")
        if "spent" in facts:
            facts["spent"]["overhead_seconds"] = facts["spent"].pop("outside_seconds")
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def test_facts_of_version_0_1_are_read_and_written_alike(old: tuple[str, bytes]) -> None:
    facts = read_repo(old[1], old[0])
    assert facts.written() == present(old[1])
    assert facts.ipcs == [1]
    assert {type(score) for score in facts.sets[1].scores} == {Score}
    assert facts.sets[1].settings.refine_steps == json.loads(old[1])["sets"]["1"]["config"]["refine"]["steps"]
    assert "## Results" in cards.card(facts)


def test_the_method_is_always_known(old: tuple[str, bytes]) -> None:
    values = json.loads(old[1])
    assert "method" not in values
    usual = RepoFacts.of(values).method
    assert (usual.name, usual.has_generator, usual.learns) == ("mgdd", True, True)
    named = RepoFacts.of(values | {"method": {"name": "dm", "title": "DM (Zhao and Bilen, 2023)"}}).method
    assert (named.name, named.has_generator) == ("dm", False)  # as version 0.1 named those without one
    again = RepoFacts.of(values | {"method": usual.stated()})
    assert again.method == usual
    assert json.loads(again.written())["method"]["has_generator"]


def test_the_kind_of_the_repo_decides_what_it_may_hold(old: tuple[str, bytes]) -> None:
    other = {"model": "dataset", "dataset": "model"}[old[0]]
    with pytest.raises(ValueError, match=f"a {other} repo does not hold"):
        read_repo(old[1], other)


def test_unknown_fields_stay_outside(old: tuple[str, bytes]) -> None:
    values = json.loads(old[1])
    values["news"] = values["sets"]["1"]["news"] = {"of": "a later version"}
    values["sets"]["1"]["scores"][0]["news"] = 1
    facts = RepoFacts.of(values)
    assert facts.written() == present(old[1])
    assert len(facts.sets[1].scores) == len(values["sets"]["1"]["scores"])


def test_what_a_method_notes_is_passed_on(old: tuple[str, bytes]) -> None:
    values = json.loads(present(old[1]))
    values["sets"]["1"]["facts"] |= {"mtt ipc1": {"experts": [1, 2]}, "peak_memory_mib": 12.5}
    assert json.loads(RepoFacts.of(values).written()) == values


@pytest.mark.parametrize(
    ("where", "value"),
    [
        (("parameters",), "many"), (("parameters",), True), (("pool",), 1.5), (("pretraining",), 10**MOST_DIGITS),
        (("sets", "1", "timings", "adapt"), "long"), (("sets", "1", "timings", "adapt"), float("nan")),
        (("sets", "1", "images"), "3"), (("sets", "1", "env", "torch"), 2), (("sets", "1", "facts", "spent"), [1]),
        (("class_names",), ["a", 1]), (("source", "licence"), 3.5), (("repo",), "../x"), (("sets",), {}),
    ],
)  # fmt: skip
def test_values_of_other_types_are_refused(old: tuple[str, bytes], where: tuple[str, ...], value: Any) -> None:
    values = inner = json.loads(old[1])
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    with pytest.raises(ValueError) as refusal:
        RepoFacts.of(values)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) <= 200


def test_a_score_that_is_written_otherwise_is_left_out(old: tuple[str, bytes]) -> None:
    values = json.loads(old[1])
    scores = values["sets"]["1"]["scores"]
    scores[0]["mean"], scores[1] = "high", 7
    assert len(RepoFacts.of(values).sets[1].scores) == len(scores) - 2


def test_the_facts_of_a_run_are_told_by_set() -> None:
    spent = {"steps": 3, "step_seconds": 1.5, "overhead_seconds": 0.5}
    target = {"class_names": ["a"], "shape": [1, 8, 8], "mean": [0.5], "std": [0.2]}
    noted = {
        "flip": True, "train_images": 30, "finished": True, "pulled": "a/b@c", "target": target,
        "idc ipc1": {"n": 1}, "idc ipc10": {"n": 2}, "spent": {"ipc1": spent},
    }  # fmt: skip
    facts = RunFacts.of({"scores": [], "timings": {"distil ipc1": 2}, "facts": noted}).facts
    own = facts.of_set(1).stated()
    assert own == {"flip": True, "train_images": 30, "idc ipc1": {"n": 1}, "spent": spent}
    assert facts.of_set(10).stated() == {"flip": True, "train_images": 30, "idc ipc10": {"n": 2}}


def test_a_source_says_all_that_was_chosen_of_how_it_was_read() -> None:
    every = DataOptions(
        config="a", image_column="i", label_column="l", train_split="t", test_split="u", revision="main", resolution=8,
        test_fraction=0.2, seed=1, no_splits=True, class_level=2, multi_label="drop", skip_broken=0.1, background="white",
        max_megapixels=1.0, max_per_class=7, strict=True, streaming=True,
    )  # fmt: skip
    assert not [name for name, value in vars(DEFAULTS).items() if getattr(every, name) == value]
    chosen = every.chosen()
    assert chosen.keys() <= images.Source.__annotations__.keys()
    values = {"kind": "local", "name": "photos"} | chosen
    assert Source.of(values).stated() == values
