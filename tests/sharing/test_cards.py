"""Cards: the Hub's own reader understands them, their snippets run, and what facts hold cannot break out of its place."""

import copy
import dataclasses
import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import pytest
import torch
import typer
import yaml
from huggingface_hub.repocard_data import EvalResult
from hypothesis import given
from hypothesis import strategies as st

from ddtool import api
from ddtool.cli.app import app
from ddtool.config import RunConfig, to_dict
from ddtool.data.images import SyntheticSet
from ddtool.evaluation.protocols import PROTOCOLS, version_of
from ddtool.runs.formats import write_parquet, write_set
from ddtool.sharing import cards, views
from ddtool.sharing.facts import RepoFacts
from ddtool.sources.names import ALIASES
from tests.tiny import ROOT

SHA = "0b2714987fa478483af9968de7c934580d0bb9a2"
TOKEN = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz01234567"
EVIL = (
    "x`|<script>alert(1)</script>\n---\nlicense: evil\n# Big\r\n```\n{{ 123 * 321 }}{% include 'x' %}"
    f"\u2028[a](javascript:b) https://u:{TOKEN}@x.y {TOKEN}"
)


def score(stage: str, protocol: str, mean: float, std: float, seeds: int, ipc: int = 10) -> dict[str, Any]:
    arch = {"quick": "convnet3-w64-none", "kernel-ridge": "convnet3-pyramid128-none"}.get(
        protocol, "convnet3-w128-none"
    )
    method = "random" if stage == "random" else "mgdd"
    return {
        "stage": stage, "method": method, "ipc": ipc, "arch": arch, "protocol": protocol, "dataset": "cifar10",
        "mean": mean, "std": std, "seeds": seeds, "seconds": 1409.2,
        "protocol_version": version_of(protocol),
    }  # fmt: skip


def one_set(ipc: int, stage: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
    phases = {
        "labels": 30.94, "pool labels": 8.0, "adapt": 361.45, f"generate ipc{ipc}": 0.14, f"fit labels ipc{ipc}": 5.96,
        f"refine ipc{ipc}": 260.75,
    }  # fmt: skip
    return {
        "command": f"ddtool adapt cifar10 --ipc {ipc} --seed 0",
        "stage": stage,
        "labels": "learned" if stage == "refined" else "fitted",
        "label_scale": 4.0,
        "images": ipc * 10,
        "config": to_dict(RunConfig(dataset="cifar10", ipc=(ipc,))),
        "env": {"ddtool": "0.1.0", "python": "3.11.7", "torch": "2.13.0+cpu", "device": "cpu (AMD EPYC, 2 threads)"},
        "timings": phases,
        "facts": {"classes": 10, "train_images": 50000, "flip": True, "pool_ipc": 50},
        "scores": scores,
    }


SCORES = [
    score("refined", "kernel-ridge", 49.58, 1.223, 3),
    score("refined", "quick", 49.33, 0.0, 1),
    score("generated", "frepo-mse", 40.51, 0.7, 3),
    score("refined", "frepo-mse", 49.73, 0.225, 3),
    score("random", "frepo-mse", 32.7, 0.6, 3),
]


def adapted(**changes: Any) -> dict[str, Any]:
    """The facts of a model repo, as its ddtool.json has them."""
    facts = {
        "format": 1,
        "kind": "adapted-generator",
        "ddtool": "0.1.0",
        "repo": "me/c10",
        "model_repo": "me/c10",
        "dataset_repo": "me/c10-ddtool",
        "source": {
            "name": "cifar10", "kind": "hub", "id": "uoft-cs/cifar10", "revision": SHA, "config": "plain_text",
            "train_split": "train", "test_split": "test", "licence": "mit",
        },
        "class_names": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
        "shape": [3, 32, 32],
        "generator": f"them/meta@{SHA}",
        "parameters": 134604,
        "pool": 500,
        "sets": {"10": one_set(10, "refined", SCORES), "5": one_set(5, "generated", [])},
        "pretraining": None,
    }  # fmt: skip
    return copy.deepcopy(facts | changes)


def synthetic(**changes: Any) -> dict[str, Any]:
    """The facts of the dataset repo beside it."""
    return adapted(**({"kind": "synthetic-dataset", "repo": "me/c10-ddtool"} | changes))


def distilled(name: str = "idc", title: str = "IDC (Kim et al., ICML 2022)", **changes: Any) -> dict[str, Any]:
    """The facts of a dataset repo of another method than MGDD, whose images hold four each."""
    scores = [score("random", "quick", 30.5, 0.0, 1), score("distilled", "quick", 40.25, 0.0, 1)]
    made = one_set(10, "distilled", scores) | {"labels": "hard", "factor": 2, "timings": {"distil ipc10": 15.5}}
    made["config"] |= {"method": name, "baseline": {"steps": 1200, "init": "real"}}
    made["facts"]["spent"] = {"steps": 1200, "step_seconds": 123.4, "overhead_seconds": 3.21}
    method = {"name": name, "title": title, "learns": True}
    alone: dict[str, Any] = {"model_repo": None, "dataset_repo": None, "generator": None, "parameters": None}
    return synthetic(**(alone | {"method": method, "pool": 100, "sets": {"10": made}} | changes))


def meta(**changes: Any) -> dict[str, Any]:
    """The facts of a meta generator's repo."""
    pretraining = {
        "datasets": ["zh-plus/tiny-imagenet"],
        "iterations": 40,
        "hardware": "1 thread of an AMD EPYC 9004",
        "held_out_accuracy": {"steps": [0, 100], "from scratch": [35.0, 36.7], "this generator": [31.6, 38.8]},
    }
    none: dict[str, Any] = {"source": None, "class_names": [], "shape": None, "generator": None, "dataset_repo": None}
    kind = {"kind": "meta-generator", "repo": "me/meta", "model_repo": "me/meta", "sets": {}, "pool": 0}
    return adapted(**(none | kind | {"pretraining": pretraining} | changes))


def card_of(facts: dict[str, Any]) -> str:
    """The card of a repo with this ddtool.json. Raises ValueError for facts that are refused."""
    return cards.card(RepoFacts.of(facts))


CARDS: dict[str, tuple[Callable[[dict[str, Any]], str], Callable[..., dict[str, Any]]]] = {
    "adapted": (card_of, adapted),
    "meta": (card_of, meta),
    "synthetic": (card_of, synthetic),
    "distilled": (card_of, distilled),
}


def front_and_body(card: str) -> tuple[dict[str, Any], str]:
    empty, front, body = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert empty == ""
    return yaml.safe_load(front), body


def blocks(card: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def cited(card: str) -> list[str]:
    """The keys of the BibTeX entries of a card."""
    return re.findall(r"^@\w+\{(\w+),$", card, re.MULTILINE)


def tables(card: str) -> list[list[str]]:
    """The tables of a card, each the lines of it."""
    return [table.splitlines() for table in re.findall(r"(?:^\|.*\|$\n?)+", card, re.MULTILINE)]


# ------------------------------------------------------------------------------------------------------- the metadata


def test_the_hub_reads_the_metadata_of_a_generator() -> None:
    data = huggingface_hub.ModelCard(card_of(adapted())).data  # raises for metadata that it does not understand
    assert (data.license, data.library_name, data.base_model) == ("mit", "ddtool", "them/meta")
    assert data.datasets == ["uoft-cs/cifar10"]
    assert {"ddtool", "dataset-distillation", "mgdd"} <= set(data.tags)
    assert data.model_name == "c10"


def test_scores_of_an_earlier_protocol_stand_in_a_table_of_their_own() -> None:
    told = copy.deepcopy(synthetic())
    told["sets"]["10"]["scores"].append(score("refined", "frepo-mse", 11.1, 0.2, 3) | {"protocol_version": 1})
    card = card_of(told)
    now, before = card.index("**frepo-mse**:"), card.index("**frepo-mse (version 1)**:")
    assert card.index("49.7 ± 0.2", now) < before < card.index("11.1 ± 0.2", before)


def test_the_model_index_keeps_the_generator_apart_from_the_refined_set() -> None:
    results: list[EvalResult] = huggingface_hub.ModelCard(card_of(adapted())).data.eval_results
    assert [(r.metric_value, r.metric_type) for r in results] == [
        (40.51, "accuracy"),
        (49.73, "accuracy"),
        (49.33, "accuracy"),
    ]
    names = [str(r.metric_name) for r in results]
    assert "generator alone, 10 per class (frepo-mse, convnet3-w128-none, mean of 3 networks, std 0.7)" in names[0]
    assert "refined set, 10 per class (frepo-mse" in names[1]
    assert "refined set" in names[2]
    assert "1 network)" in names[2]
    first = results[0]
    assert (first.task_type, first.dataset_type, first.dataset_name) == (
        "image-classification",
        "uoft-cs/cifar10",
        "cifar10",
    )
    assert (first.dataset_config, first.dataset_split, first.dataset_revision) == ("plain_text", "test", SHA)


def test_the_hub_reads_the_metadata_of_a_dataset() -> None:
    data = huggingface_hub.DatasetCard(card_of(synthetic())).data
    assert data.license == "mit"
    assert data.task_categories == ["image-classification"]
    assert data.size_categories == ["n<1K"]
    assert data.source_datasets == ["uoft-cs/cifar10"]
    assert [c["config_name"] for c in data.configs] == ["ipc5", "ipc10"]
    assert data.configs[1]["data_files"] == [{"split": "train", "path": "ipc10/train.parquet"}]


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ("mit", {"license": "mit"}),
        ("CC-BY-4.0", {"license": "cc-by-4.0"}),
        ("unknown", {"license": "unknown"}),
        ("apache-2.0, mit", {"license": ["apache-2.0", "mit"]}),
        ("My Licence, v2!", {"license": "other", "license_name": "my-licence-v2"}),
        ("other", {"license": "other", "license_name": "terms-of-the-source-dataset"}),
        (None, {"license": "other", "license_name": "terms-of-the-source-dataset"}),
    ],
)
def test_the_licence_is_the_sources_where_the_hub_knows_it(stated: str | None, expected: dict[str, Any]) -> None:
    facts = synthetic()
    facts["source"]["licence"] = stated
    if expected["license"] == "other":
        expected = expected | {"license_link": "https://huggingface.co/datasets/uoft-cs/cifar10"}
    data = front_and_body(card_of(facts))[0]
    assert {key: value for key, value in data.items() if key.startswith("license")} == expected


@pytest.mark.parametrize("generator", ["bundled", "scratch", None, "runs/mine", "../../x@main", "a/../b@main"])
def test_a_base_model_is_a_hub_repo_or_nothing(generator: str | None) -> None:
    assert "base_model" not in front_and_body(card_of(adapted(generator=generator)))[0]


def test_local_data_is_named_without_its_place_and_is_no_hub_dataset() -> None:
    source = {"kind": "local", "name": "cifar10", "content_hash": "2c1f", "test_split": "10 % of train"}
    with pytest.raises(ValueError, match="is a path"):
        card_of(adapted(source=source | {"name": "/home/me/data/cifar10"}))
    facts = adapted(source=source)
    for one in facts["sets"]["10"]["scores"]:
        one["dataset"] = "/home/me/data/cifar10"
    card = card_of(facts)
    data, _ = front_and_body(card)
    assert "/home" not in card
    assert "datasets" not in data
    result = data["model-index"][0]["results"][0]
    assert result["dataset"] == {"type": "local", "name": "cifar10 (local data)"}
    assert len(result["metrics"]) == 3
    assert front_and_body(card_of(facts | {"kind": "synthetic-dataset"}))[0]["source_datasets"] == ["extended"]


def test_the_sample_names_the_dataset_it_is_drawn_from_and_claims_no_score_on_it() -> None:
    facts = adapted(source={"kind": "sample", "id": "sample", "name": "sample", "content_hash": "ab", "licence": "mit"})
    facts["sets"]["10"]["scores"][1]["dataset"] = "sample"
    data, _ = front_and_body(card_of(facts))
    assert data["datasets"] == [views.SAMPLE_OF]
    (result,) = data["model-index"][0]["results"]
    assert result["dataset"]["type"] == "sample"
    assert [m["value"] for m in result["metrics"]] == [49.33]  # the others were tested on cifar10


@pytest.mark.parametrize(
    ("images", "name"), [(999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M")]
)
def test_the_size_is_that_of_all_configurations(images: int, name: str) -> None:
    facts = synthetic()
    facts["sets"]["5"]["images"], facts["sets"]["10"]["images"] = 100, images - 100
    assert front_and_body(card_of(facts))[0]["size_categories"] == [name]


# ------------------------------------------------------------------------------------------------------ what they say


@pytest.mark.parametrize("facts", [adapted, synthetic])
def test_the_headline_is_the_fullest_score(facts: Callable[..., dict[str, Any]]) -> None:
    told = facts()
    line = "49.7 % test accuracy with 100 images, 32.7 % with 100 random real ones"
    assert f"\n\n**{line}.**\n\n![" in card_of(told)
    told["sets"]["10"]["scores"].append(score("full", "frepo-mse", 84.1, 0.0, 1))
    assert f"**{line}, 84.1 % with the whole training set.**" in card_of(told)
    told["sets"]["10"]["scores"] = [score("refined", "quick", 49.33, 0.0, 1)]
    assert "**49.3 % test accuracy with 100 images.**" in card_of(told)
    told["sets"]["10"]["factor"] = 2
    assert "**49.3 % test accuracy with 100 images that hold 4 smaller ones each.**" in card_of(told)
    told["sets"]["10"]["factor"] = 1
    for unknown in ([], [score("refined", "kernel-ridge", 49.58, 1.0, 3)]):
        told["sets"]["10"]["scores"] = unknown
        assert "% test accuracy with" not in card_of(told)


def test_the_sample_has_its_true_name() -> None:
    source = {"kind": "sample", "id": "sample", "name": "sample", "content_hash": "ab"}
    for facts in (adapted(source=source), synthetic(source=source)):
        assert "**Fashion-MNIST (a sample)**" in card_of(facts)


def test_one_configuration_is_the_default() -> None:
    configs = huggingface_hub.DatasetCard(card_of(synthetic())).data.configs
    assert [config.get("default") for config in configs] == [None, True]


def test_a_generator_names_its_task_and_what_it_is_to_its_base() -> None:
    data = huggingface_hub.ModelCard(card_of(adapted())).data
    assert (data.pipeline_tag, data.to_dict()["base_model_relation"]) == ("image-to-image", "finetune")
    assert "base_model_relation" not in huggingface_hub.ModelCard(card_of(adapted(generator="scratch"))).data.to_dict()


@pytest.mark.parametrize("card", [card_of(adapted()), card_of(synthetic())])
def test_results_stand_beside_real_images_and_the_generator_alone(card: str) -> None:
    where = "this repository" if "load_dataset" in card else "the dataset repository"
    head = "| images per class | trained on | accuracy, % | networks | seconds to score |"
    rows = [lines[2:] for lines in tables(card) if lines[0] == head]
    assert rows == [
        [
            "| 10 | random real images | 32.7 ± 0.6 | 3 | 1,409 |",
            "| 10 | generator alone | 40.5 ± 0.7 | 3 | 1,409 |",
            f"| 10 | refined (the set in {where}) | 49.7 ± 0.2 | 3 | 1,409 |",
        ],
        [f"| 10 | refined (the set in {where}) | 49.3 | 1 | 1,409 |"],
        [f"| 10 | refined (the set in {where}) | 49.6 ± 1.2 | 3 | 1,409 |"],
    ]
    titles = re.findall(r"^\*\*([\w-]+)\*\*.* Network: (\S+)\.$", card, re.MULTILINE)
    assert titles == [
        ("frepo-mse", "convnet3-w128-none"),
        ("quick", "convnet3-w64-none"),
        ("kernel-ridge", "convnet3-pyramid128-none"),  # a guide: below what was trained
    ]
    assert "No score was recorded for 5 per class." in card
    for word in ("![", "(preview.png)", "ddtool adapt cifar10 --ipc 10 --seed 0", "## Limits", "liu2023mgdd"):
        assert word in card, word


@pytest.mark.parametrize("card", [card_of(adapted()), card_of(synthetic())])
def test_the_cost_has_every_stage_and_a_total(card: str) -> None:
    assert "| 10 | 39 | 361 (1,000 steps) | 0.14 | 6.0 | 261 (1,000 steps) | 667 |" in card
    assert "| 5 | 39 | 361 (1,000 steps) | 0.14 | 6.0 | – | 406 |" in card  # not refined
    assert "Hardware: cpu (AMD EPYC, 2 threads), torch 2.13.0+cpu." in card


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "< 0.01"), (0.026, "0.026"), (0.14, "0.14"), (5.96, "6.0"), (9.96, "10"), (361.45, "361"), (None, "–")],
)
def test_seconds_have_two_significant_digits(value: float | None, text: str) -> None:
    assert views.seconds(value) == text


def test_hardware_that_differs_is_told_by_size() -> None:
    facts = adapted()
    facts["sets"]["5"]["env"]["device"] = "cuda (H100)"
    body = card_of(facts)
    assert "Hardware of 5 per class: cuda (H100), torch 2.13.0+cpu." in body
    assert "Hardware of 10 per class: cpu (AMD EPYC, 2 threads), torch 2.13.0+cpu." in body


def test_an_alias_is_the_end_of_an_id() -> None:
    assert all(repo.rpartition("/")[2] == alias for alias, repo in ALIASES.items())  # `_tested_here` counts on it


@pytest.mark.parametrize(
    "spelled", ["cifar10", "uoft-cs/cifar10", "hf://datasets/uoft-cs/cifar10", f"uoft-cs/cifar10@{SHA}", "cifar10@main"]
)
@pytest.mark.parametrize("source", ["cifar10", "uoft-cs/cifar10"])
def test_a_dataset_is_the_same_however_it_is_spelled(source: str, spelled: str) -> None:
    facts = adapted()
    facts["source"]["name"] = source
    for one in facts["sets"]["10"]["scores"]:
        one["dataset"] = spelled
    data, body = front_and_body(card_of(facts))
    assert "tested on" not in body
    assert "refined (the set in the dataset repository)" in body
    assert "hf://" not in body
    assert len(data["model-index"][0]["results"][0]["metrics"]) == 3


def test_a_score_on_another_dataset_says_so_and_stays_out_of_the_model_index() -> None:
    facts = adapted()
    facts["sets"]["10"]["scores"][3]["dataset"] = "someone/cifar10.1"
    data, body = front_and_body(card_of(facts))
    assert "| refined (tested on someone/cifar10.1) | 49.7 ± 0.2 |" in body
    assert 49.73 not in [m["value"] for m in data["model-index"][0]["results"][0]["metrics"]]


def test_the_card_says_whether_real_images_are_in_the_repo() -> None:
    with_pool = card_of(adapted())
    assert "`pool/train.parquet` holds 500 real images" in with_pool
    assert "holds 50 images per class" in with_pool
    without = card_of(adapted(pool=0))
    assert "pool/train.parquet" not in without
    assert "draws them again from the source" in without


@pytest.mark.parametrize(("render", "facts"), [CARDS["adapted"], CARDS["synthetic"]])
def test_the_picture_is_said_to_show_real_images_where_it_does(
    render: Callable[[dict[str, Any]], str], facts: Callable[..., dict[str, Any]]
) -> None:
    shown, hidden = render(facts()), render(facts(pool=0))
    assert (
        "from the top: real images of the source, what the generator makes of them, the refined set](preview" in shown
    )
    assert re.search(r"first rows of\s+`preview.png`", shown)
    assert "from the top: what the generator makes, the refined set](preview.png)" in hidden
    assert "first rows" not in hidden
    unrefined = render(facts(sets={"5": one_set(5, "generated", [])}))
    assert "from the top: real images of the source, what the generator makes of them](preview.png)" in unrefined


@pytest.mark.parametrize(
    ("pool", "pool_ipc", "sets", "shown"),
    [
        (500, 50, [10], 20),
        (500, 50, [10, 20], 50),
        (120, 12, [10], 5),
        (30, 3, [1], 2),
        (30, 3, [1, 2], 3),
        (30, 3, [1, 2, 3], 3),  # all that a class holds was made: one of them
        (0, 12, [10], 5),  # drawn again when it is needed
        (0, None, [4], 2),
        (0, None, [1], 1),
    ],
)
def test_the_size_to_try_is_one_that_the_source_can_fill(
    pool: int, pool_ipc: int | None, sets: list[int], shown: int
) -> None:
    made = {str(n): one_set(n, "refined", []) for n in sets}
    for one in made.values():
        one["facts"] = {"pool_ipc": pool_ipc} if pool_ipc else {}
    model = card_of(adapted(pool=pool, sets=made))
    assert f"ddtool generate me/c10 --ipc {shown}\n" in model
    assert f'ddtool.generate("me/c10", {shown})' in model
    assert f"`ddtool generate me/c10 --ipc {shown}`" in card_of(synthetic(pool=pool, sets=made))
    assert "smallest class of the source" in model


@pytest.mark.parametrize(("pool", "factor", "shown"), [(500, 2, 5), (500, 4, 2), (40, 2, 1)])
def test_the_size_to_try_takes_no_more_samples_than_there_are(pool: int, factor: int, shown: int) -> None:
    made = {"10": one_set(10, "refined", []) | {"factor": factor}}
    assert f"ddtool generate me/c10 --ipc {shown}\n" in card_of(adapted(pool=pool, sets=made))


@pytest.mark.parametrize("factor", [0, -2, 9, 10**400, True, "2"])
def test_a_factor_that_no_set_has_is_refused(factor: Any) -> None:
    made = {"10": one_set(10, "refined", []) | {"factor": factor}}
    with pytest.raises(ValueError, match=r"factor|not readable"):
        card_of(adapted(sets=made))


def test_sets_that_hold_smaller_images_stand_beside_others() -> None:
    """As the questions advise: several in one where images are few, and one in each where they are not."""
    few = one_set(1, "refined", []) | {"factor": 2}
    card = card_of(synthetic(sets={"1": few, "10": one_set(10, "refined", SCORES), "5": one_set(5, "refined", [])}))
    assert "**Each image of IPC 1 holds 2x2 images** of lower resolution" in card
    assert card.count("**Each image") == 1
    card = card_of(synthetic(sets={"10": few, "1": one_set(1, "refined", [])}))
    ours, exact = (next(b for b in blocks(card, "python") if word in b) for word in ("load_set", "hf_hub_download"))
    assert "ipc=1).decoded()" in ours
    assert 'info.get("factor", 1)' in exact  # what IPC 10 needs, too


def test_earlier_versions_said_the_label_scale_in_the_settings_alone() -> None:
    facts = synthetic()
    made = facts["sets"]["5"]
    del made["label_scale"]
    assert "| ipc5 | 5 | 50 | generated | fitted | – | yes |" in card_of(facts)
    made["config"]["label_scale"] = 3.0
    assert "| ipc5 | 5 | 50 | generated | fitted | 3 | yes |" in card_of(facts)


def test_the_card_says_where_labels_come_from() -> None:
    model, dataset = card_of(adapted()), card_of(synthetic())
    assert "fitted to them in closed form, with the real training images of the source" in model
    assert "analytical labels of Eq. 3, from `labels.safetensors`, and ddtool says so" in model
    assert "| ipc5 | 5 | 50 | generated | fitted | 4 | yes |" in dataset
    assert "| ipc10 | 10 | 100 | refined | learned | 4 | yes |" in dataset
    facts = adapted()
    facts["sets"]["10"]["config"]["fit"]["networks"] = 0
    assert "fitted to them" not in card_of(facts)


@pytest.mark.parametrize("stated", ["unknown", "Unknown", "other", None])
def test_a_licence_that_names_none_is_not_quoted(stated: str | None) -> None:
    for render, facts in (CARDS["adapted"], CARDS["synthetic"]):
        given_facts = facts()
        given_facts["source"]["licence"] = stated
        card = render(given_facts)
        assert "states no licence that ddtool could read" in card
        assert "states the licence" not in card
        assert 'states the licence "mit"' in render(facts())


def test_images_are_told_in_words() -> None:
    for shape, words in [([3, 32, 64], "64 x 32 pixels, RGB"), ([1, 28, 28], "28 x 28 pixels, grey")]:
        assert f"- **Images:** {words}\n" in card_of(adapted(shape=shape))
        assert f"- **Images:** {words}\n" in card_of(synthetic(shape=shape))
    assert "4 channels" in card_of(adapted(shape=[4, 8, 8]))
    with pytest.raises(ValueError, match="images of shape None are none"):
        card_of(adapted(shape=None))


def test_the_name_has_the_sizes() -> None:
    data, _ = front_and_body(card_of(synthetic()))
    assert data["pretty_name"] == "cifar10, distilled: 5 and 10 per class"


@pytest.mark.parametrize(
    "command",
    [
        "ddtool adapt cifar10 --ipc 10 --seed 0",
        "ddtool adapt cifar10 " + " ".join(f"--ipc {n}" for n in range(1, 50)),
        "ddtool adapt './my data' --ipc 1 --set 'a=\"x --b y\"' --set 'c=it'\"'\"'s' " + "--set refine.steps=100 " * 9
        + "--out runs/new && ddtool generate runs/new --ipc 1",
    ],
)  # fmt: skip
def test_a_long_command_is_broken_at_options_and_means_the_same(command: str) -> None:
    facts = adapted(sets={"10": one_set(10, "refined", []) | {"command": command}})
    block = blocks(card_of(facts), "bash")[-1]
    assert shlex.split(block.replace("\\\n", "")) == shlex.split(command)
    lines = block.splitlines()
    assert all(len(line) <= 100 for line in lines)
    assert all(line.startswith(("  -", "  &&")) for line in lines[1:])
    assert (len(lines) == 1) == (len(command) < 80)


def test_a_command_whose_quotation_does_not_end_stays_as_it_is() -> None:
    assert views.broken("ddtool adapt 'x --y" + " --z" * 50) == ["ddtool adapt 'x --y" + " --z" * 50]


@pytest.mark.parametrize("protocol", [*PROTOCOLS, "kernel-ridge"])
def test_every_protocol_is_explained(protocol: str) -> None:
    facts = adapted(sets={"10": one_set(10, "refined", [score("refined", protocol, 40.0, 0.0, 1)])})
    assert f"\n**{protocol}**: " in card_of(facts)


def test_what_is_said_of_quick_is_true() -> None:
    steps = PROTOCOLS["quick"].steps
    assert [steps(m) for m in (1, 500, 777, 5_000, 10**6)] == [500, 500, 777, 5_000, 5_000]


def test_a_meta_generator_shows_its_pretraining() -> None:
    data, body = front_and_body(card_of(meta()))
    assert data["datasets"] == ["zh-plus/tiny-imagenet"]
    assert data["license_name"] == "terms-of-the-training-data"
    assert "model-index" not in data
    assert "Meta-trained on **zh-plus/tiny-imagenet**: 40 iterations on 1 thread of an AMD EPYC 9004." in body
    assert (
        "**held out accuracy**\n\n| steps | from scratch | this generator |\n|---|---|---|\n| 0 | 35.0 | 31.6 |" in body
    )
    assert "preview.png" not in body
    records = [{"steps": 0, "accuracy": 35.0}, {"steps": 100, "accuracy": 36.7}]
    assert "| steps | accuracy |\n|---|---|\n| 0 | 35.0 |" in card_of(meta(pretraining={"check": records}))
    assert "Nothing about its pre-training was recorded." in card_of(meta(pretraining=None))


def test_what_ddtool_pretrain_records_is_readable() -> None:
    large = {
        "name": "zh-plus/tiny-imagenet", "revision": SHA, "images": 100000, "image": [3, 32, 32], "classes": 200,
        "held_out": ["n02099601", "n02165456"], "licence": "mit",
    }  # fmt: skip
    told: dict[str, Any] = {
        "datasets": [large], "iterations": 3000, "weights_of_iteration": 60, "tasks": 12000, "seconds": 774.5,
        "hardware": "2 x cuda (H100)", "note": "a | remark",
        "settings": {
            "seed": 0, "meta": {"inner_steps": 20, "outer": "reptile", "outer_betas": [0.9, 0.99]},
            "validate_steps": 100, "validate_tasks": 2,
        },
        "curve": [{"iteration": 60, "loss before": 0.7433, "loss after": 0.7322, "accuracy": 42.825, "seconds": 435.0}],
    }  # fmt: skip
    data, body = front_and_body(card_of(meta(pretraining=told)))
    huggingface_hub.ModelCard(f"---\n{yaml.safe_dump(data)}---\n{body}")
    assert data["datasets"] == ["zh-plus/tiny-imagenet"]
    assert data["license"] == "mit"
    assert (
        "Meta-trained (Reptile) on **zh-plus/tiny-imagenet** (100,000 images of 32 x 32 pixels, RGB, 200 classes, "
        "2 of them held out, licence mit): 3,000 iterations, 12,000 tasks, 774 seconds on 2 x cuda (H100). "
        "The weights are those of iteration 60,"
    ) in body
    assert "| iteration | loss before | loss after | accuracy | seconds |\n|---|---|---|---|---|" in body
    assert "| 60 | 0.7433 | 0.7322 | 42.8 | 435 |" in body
    for words in ("Eq. 1", "τ = 20 steps", "after 100 steps of adaptation, with fitted labels", "over 2 tasks"):
        assert words in body, words
    details = body[body.index("<details>") : body.index("</details>")]
    assert "| meta.outer_betas | 0.9, 0.99 |" in details
    assert "Held out of zh-plus/tiny-imagenet: n02099601, n02165456" in details
    assert "| note | a / remark |" in body
    assert "{" not in body.partition("## Citation")[0]
    none_stated = told | {"datasets": [large, {"name": "more", "licence": None}]}
    data, body = front_and_body(card_of(meta(pretraining=none_stated)))
    assert data["license_name"] == "mit-and-terms-of-the-training-data"
    assert " and **more**: 3,000" in body
    strange: dict[str, Any] = {"curve": "steep", "datasets": {"a": 1}, "settings": [], "iterations": "many"}
    assert "| curve | steep |" in card_of(meta(pretraining=strange))


def test_the_bundled_generators_own_record_makes_a_card() -> None:
    told = json.loads((ROOT / "ddtool/assets/meta-generator-32/pretraining.json").read_text(encoding="utf-8"))
    _, body = front_and_body(card_of(meta(pretraining=told)))
    assert "Meta-trained (" in body
    assert "held out" in body
    assert "{" not in body.partition("## Citation")[0]
    (curve,) = [lines for lines in tables(body) if lines[0].startswith("| iteration |")]
    assert len(curve) == 2 + len(told["curve"])


@pytest.mark.parametrize("name", CARDS)
def test_a_card_is_a_function_of_the_facts(name: str) -> None:
    render, facts = CARDS[name]
    given_facts = facts()
    card = render(given_facts)
    assert given_facts == facts()
    assert render(json.loads(json.dumps(facts()))) == card
    assert "None" not in card
    assert card.endswith("\n")


@pytest.mark.parametrize("name", CARDS)
def test_a_card_can_do_with_little(name: str) -> None:
    whole = CARDS[name][1]()
    kind, repo = whole["kind"], whole["repo"]
    little: dict[str, Any] = {"format": 1, "kind": kind, "repo": repo, "sets": {}}
    if kind != "meta-generator":
        bare = {"config": {}, "env": {}, "timings": {}, "facts": {}, "scores": []}
        little |= {
            "sets": {"3": bare},
            "source": {"kind": "local", "name": "x"},
            "class_names": ["a"],
            "shape": [1, 8, 8],
        }
    data, body = front_and_body(card_of(little))
    assert data["license"] == "other"
    assert f"# {repo.split('/')[1]}" in body
    assert "No scores were recorded." in body or kind == "meta-generator"


# ----------------------------------------------------------------------------------- installing, citing, pre-training


@pytest.mark.parametrize("name", CARDS)
def test_the_address_of_the_project_is_one_setting(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    render, facts = CARDS[name]
    assert "`pip install .` in a checkout of its source" in render(facts()) or name == "distilled"
    assert "git+" not in render(facts())
    monkeypatch.setattr(cards, "ADDRESS", "https://host.example/ddtool")
    card = render(facts())
    assert "`pip install git+https://host.example/ddtool`" in card
    assert "  url = {https://host.example/ddtool}\n}" in card
    assert "in a checkout" not in card


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("adapted", ["liu2023mgdd", "krizhevsky2009cifar", "ddtool"]),
        ("synthetic", ["liu2023mgdd", "krizhevsky2009cifar", "ddtool"]),
        ("distilled", ["kim2022idc", "krizhevsky2009cifar", "ddtool"]),
        ("meta", ["liu2023mgdd", "ddtool"]),
    ],
)
def test_source_paper_and_program_are_cited(name: str, keys: list[str]) -> None:
    render, facts = CARDS[name]
    entries = blocks(render(facts()), "bibtex")
    assert cited(render(facts())) == keys
    for entry in entries:
        assert entry.endswith("}\n}\n")
        lines = entry.splitlines()[1:-1]
        assert all(re.fullmatch(r"  \w+ *= \{.+\},", line) for line in lines[:-1]), entry
        assert re.fullmatch(r"  \w+ *= \{.+\}", lines[-1]), entry
    assert "  version = {0.1.0}" in entries[-1]


@pytest.mark.parametrize(("alias", "repo"), [pair for pair in ALIASES.items() if pair[0] != "sample"])
def test_every_dataset_with_a_short_name_has_its_paper(alias: str, repo: str) -> None:
    source = {"kind": "hub", "name": alias, "id": repo, "revision": SHA}
    assert len(blocks(card_of(synthetic(source=source)), "bibtex")) == 3
    other = {"kind": "hub", "name": "a/b", "id": "a/b", "revision": SHA}
    assert "as [its card](https://huggingface.co/datasets/a/b) says" in card_of(synthetic(source=other))


def test_a_generator_from_scratch_has_no_word_of_pre_training() -> None:
    for facts in (adapted(generator="scratch"), synthetic(generator="scratch")):
        assert "pre-training" not in card_of(facts)
        assert "meta generator" not in card_of(facts).replace(
            "ddtool: fast dataset distillation with a meta generator", ""
        )
    assert "adapted from random weights\n" in card_of(adapted(generator="scratch"))


@pytest.mark.parametrize(
    ("kept", "figures", "said"),
    [
        (60, [40.0, 42.84, 41.0], "40.0 % before pre-training, 42.8 % with these weights, 2.8 points more:"),
        (None, [40.0, 42.84, 39.0], "40.0 % before pre-training, 39.0 % with these weights, 1.0 points less:"),
        (60, [40.0, 40.01, 41.0], "40.0 % before pre-training, 40.0 % with these weights, no more:"),
        (60, [40.0, "high", 41.0], None),
        (7, [40.0, 42.0, 41.0], None),
    ],
)
def test_the_card_says_what_pre_training_gained(kept: int | None, figures: list[Any], said: str | None) -> None:
    rows = [{"iteration": i, "accuracy": figure} for i, figure in zip((0, 60, 120), figures, strict=True)]
    card = card_of(meta(pretraining={"curve": rows, "weights_of_iteration": kept}))
    assert ("What it gained: " in card) == (said is not None)
    assert said is None or f"What it gained: {said} kernel-ridge accuracy" in card


# ----------------------------------------------------------------------------------------------------- snippets that run


@pytest.mark.parametrize("name", CARDS)
def test_commands_parse_and_python_compiles(name: str) -> None:
    render, facts = CARDS[name]
    card, group = render(facts()), typer.main.get_command(app)
    lines = [line for block in blocks(card, "bash") for line in block.replace("\\\n", "").splitlines()]
    lines += re.findall(r"`(ddtool [^`]* --ipc \d+)`", card)
    for line in lines:
        program, command, *words = shlex.split(line)
        assert program == "ddtool"
        group.commands[command].make_context(command, words)  # type: ignore[attr-defined]
    snippets = blocks(card, "python")
    for snippet in snippets:
        compile(snippet, "card", "exec")
    assert lines
    assert snippets


@pytest.fixture
def repo(tmp_path: Path) -> tuple[Path, SyntheticSet, str]:
    """A dataset repo on disk, with its card: the folder, the set of IPC 2, the card."""
    rng, names = torch.Generator().manual_seed(0), ("boot", "coat", "dress")
    small = SyntheticSet(
        images=torch.rand(6, 3, 8, 8, generator=rng),
        labels=torch.randn(6, 3, generator=rng),
        hard=torch.tensor([0, 1, 2, 0, 1, 2]),
        ipc=2,
        class_names=names,
        mean=(0.5, 0.4, 0.3),
        std=(0.2, 0.2, 0.1),
        label_scale=4.0,
    )
    facts = synthetic(class_names=list(names), shape=[3, 8, 8], sets={"2": one_set(2, "refined", [])})
    write_parquet(
        tmp_path / "ipc2" / "train.parquet",
        small.images.mul(255).round().to(torch.uint8), small.hard, small.labels, names,
    )  # fmt: skip
    write_set(tmp_path / "ipc2" / "exact.safetensors", small)
    card = card_of(facts)
    (tmp_path / "README.md").write_text(card, encoding="utf-8")
    return tmp_path, small, card


def test_the_snippets_of_a_dataset_card_run_as_they_stand(
    repo: tuple[Path, SyntheticSet, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, small, card = repo
    plain, exact = (
        next(b for b in blocks(card, "python") if word in b) for word in ("load_dataset", "hf_hub_download")
    )
    load_dataset, places = datasets.load_dataset, {"me/c10-ddtool": str(folder)}
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *rest, **more: load_dataset(places[name], *rest, **more))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, path, repo_type: str(Path(places[name], path)))
    found: dict[str, Any] = {}
    exec(plain, found)  # the card's metadata says where ipc2 is
    assert found["data"].column_names == ["image", "label", "soft_label"]
    assert found["data"].features["label"].names == ["boot", "coat", "dress"]
    assert torch.equal(torch.tensor(found["data"]["soft_label"]), small.labels)
    assert "boot" in capsys.readouterr().out
    exec(exact, found)
    assert torch.equal(found["images"], small.images)
    assert torch.equal(found["labels"], small.labels)
    expected = (small.images - torch.tensor(small.mean).view(1, 3, 1, 1)) / torch.tensor(small.std).view(1, 3, 1, 1)
    assert torch.equal(found["inputs"], expected)


def test_the_snippets_take_apart_what_one_image_holds(
    repo: tuple[Path, SyntheticSet, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, small, _ = repo
    small = dataclasses.replace(small, factor=2)
    write_set(folder / "ipc2" / "exact.safetensors", small)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, path, repo_type: str(folder / path))
    monkeypatch.setattr(api, "load_set", lambda name, ipc: small)
    sets = distilled()["sets"]
    card = card_of(distilled(sets={"2": sets["10"]}))
    whole = small.decoded()
    found: dict[str, Any] = {}
    ours, exact = (next(b for b in blocks(card, "python") if word in b) for word in ("load_set", "hf_hub_download"))
    exec(ours, found)
    assert torch.equal(found["small"].images, whole.images)
    assert "torch.Size([24, 3, 8, 8])" in capsys.readouterr().out
    exec(exact, found)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (small.mean, small.std))
    assert torch.equal(found["inputs"], (whole.images - mean) / std)
    assert torch.equal(found["labels"], whole.labels)


# ------------------------------------------------------------------------------------------------ other methods than MGDD


def test_the_card_of_another_method_makes_none_of_mgdds_claims() -> None:
    card = card_of(distilled())
    for claim in ("MGDD", "mgdd", "Eq. 3", "enerator", "efine", "itted", "ddtool generate", "liu2023"):
        assert claim not in card.rpartition("The program")[0], claim
    assert "distilled with ddtool by IDC (Kim et al., ICML 2022)." in card
    assert "![By class, from the top: real images of the source, the distilled set](preview.png)" in card
    assert "| ipc10 | 10 | 100 | distilled | hard | 4 | yes |" in card
    assert "| 10 | 1,200 | 123 | 3.2 | 127 |" in card
    assert "| 10 | random real images | 30.5 | 1 | 1,409 |" in card
    assert "| 10 | distilled set (the set in this repository) | 40.2 | 1 | 1,409 |" in card
    data = front_and_body(card)[0]
    assert "model-index" not in data
    assert data["tags"] == ["ddtool", "dataset-distillation", "dataset-condensation", "idc", "synthetic"]
    assert "began as noise" not in card
    assert "Where real images must not be published, neither must these; `--set baseline.init=noise` makes" in card


def test_the_card_says_what_each_image_holds() -> None:
    assert "**Each image holds 2x2 images**" in card_of(distilled())
    facts = distilled("dm", "DM (Zhao and Bilen, WACV 2023)")
    del facts["sets"]["10"]["factor"]
    facts["sets"]["10"]["config"]["baseline"]["init"] = "noise"
    card = card_of(facts | {"pool": 0})
    assert "Each image holds" not in card
    assert "decoded" not in card
    assert "interpolate" not in card
    assert "Every synthetic image began as noise" in card
    assert "must not be published" not in card
    assert "from the top: the distilled set](preview.png)" in card
    assert "first rows" not in card


def test_images_that_were_chosen_are_real_ones() -> None:
    chosen = {"name": "herding", "title": "herding (Welling, 2009)", "learns": False}
    facts = distilled(method=chosen, pool=0)
    del facts["sets"]["10"]["factor"]
    card = card_of(facts)
    assert "100 real images of **cifar10**, unchanged" in card
    assert "by herding (Welling, 2009) from the 50,000 training images" in card
    assert "Every image is a real image of the source, unchanged: no protection of privacy" in card
    assert "must not be published" not in card
    assert "| 10 | chosen images (the set in this repository) | 40.2" in card
    assert "the images are chosen" in card
    assert "synthetic" not in front_and_body(card)[0]["tags"]
    by_chance = {"name": "random", "title": "random real images", "learns": False}
    card = card_of(facts | {"method": by_chance})
    assert "chosen with ddtool by chance" in card
    assert cited(card) == ["krizhevsky2009cifar", "ddtool"]


def test_steps_that_a_clock_decided_are_not_told() -> None:
    facts = adapted()
    counted = card_of(facts)
    assert "361 (1,000 steps)" in counted
    assert "261 (1,000 steps)" in counted
    facts["sets"]["10"]["config"]["seconds"] = 600.0
    timed = card_of(facts)
    assert "| 10 | 39 | 361 | 0.14 | 6.0 | 261 | 667 |" in timed


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("herding", "welling2009herding"), ("dc", "zhao2021dc"), ("dsa", "zhao2021dsa"), ("dm", "zhao2023dm"),
        ("idc", "kim2022idc"), ("mtt", "cazenavette2022mtt"), ("frepo", "zhou2022frepo"),
    ],
)  # fmt: skip
def test_the_paper_of_the_method_is_cited(name: str, key: str) -> None:
    entry, *_ = blocks(card_of(distilled(name, f"{name} (Somebody)")), "bibtex")
    assert entry.startswith(f"@inproceedings{{{key},\n")
    assert entry.endswith(f"  year = {{{re.sub('[a-z]', '', key)}}}\n}}\n")
    assert entry.count("{") == entry.count("}")
    assert all(line.rstrip(",").endswith("}") for line in entry.splitlines()[1:])


def test_a_method_without_a_paper_here_is_named() -> None:
    card = card_of(distilled("mine", "Mine (Me, 2026)"))
    assert "The method: Mine (Me, 2026)." in card
    assert cited(card) == ["krizhevsky2009cifar", "ddtool"]


# -------------------------------------------------------------------------------------------------- facts are untrusted


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where the values are in nested facts."""
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*path, key))
    else:
        yield path


def places(facts: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Where the values are that a card may show: of two sets, which have the same fields, those of the one with scores."""
    return [path for path in leaves(facts) if path[:2] != ("sets", "5")]


def with_value(facts: dict[str, Any], path: tuple[Any, ...], new: Any) -> dict[str, Any]:
    *above, last = path
    inner: Any = facts
    for key in above:
        inner = inner[key]
    inner[last] = new
    return facts


@pytest.mark.parametrize("name", CARDS)
def test_no_text_breaks_out_of_its_place(name: str) -> None:
    render, facts = CARDS[name]
    sound, shown = render(facts()), 0
    for path in places(facts()):
        if path == ("kind",):
            continue
        try:
            card = render(with_value(facts(), path, EVIL))
        except ValueError:  # refused where it enters
            continue
        data, body = front_and_body(card)
        where = f"{path}:\n{card}"
        assert data["license"] != "evil", where
        assert not {"evil"} & set(data), where
        assert TOKEN not in card, where
        assert "39483" not in card, where  # nothing was evaluated
        assert not re.search(r"\u2028|^---$|^# Big|^license:", body, re.MULTILINE), where
        assert not re.search(r"<script|(?<!\\)\[a\S*\]\(", re.sub(r"```bash\n.*\n```", "", body)), where
        assert body.count("\n```") == sound.count("\n```"), where
        for lines in tables(body):
            assert len({line.count("|") for line in lines}) == 1, where
        shown += "alert(1)" in body or "alert(1)" in json.dumps(data)
    assert shown >= 3  # the text did get that far


@pytest.mark.parametrize("name", CARDS)
@pytest.mark.parametrize("value", [float("nan"), "many", None, True])
def test_values_of_another_kind_do_no_harm(name: str, value: Any) -> None:
    render, facts = CARDS[name]
    shown = 0
    for path in places(facts()):
        if path[0] in ("kind", "repo"):
            continue
        try:
            data, body = front_and_body(render(with_value(facts(), path, value)))
        except ValueError:  # refused where it enters
            continue
        shown += 1
        assert "nan" not in body or path[-1] not in ("mean", "std", "seeds", "seconds", "images", "parameters"), path
        assert ".nan" not in yaml.safe_dump(data), path
    assert shown > 5


@given(st.text())
def test_one_line_is_one_line(text: str) -> None:
    for line in (cards.harmless(text), cards.code(text)):
        assert len(line.splitlines()) <= 1
        assert "`" not in line
        line.encode("utf-8")
    assert not re.search(r"[|<>]|(?<!\\)[\[\]*~]", cards.harmless(text).replace("\\\\", ""))
    assert cards.harmless(text) == text or not re.fullmatch(r"[^\W_]+", text)
    assert len(cards.code(text * 1000, 50)) <= 50


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("https://evil.example/x", "https:\u2060//evil.example/x"),
        ("see WWW.evil.example", "see WWW\u2060.evil.example"),
        ("ftp://a.b mailto:me@evil.example", "ftp:\u2060//a.b mailto:me\u2060@evil.example"),
        ("_a_ a_b __c__", r"\_a\_ a_b \_\_c\_\_"),
        ("~~b~~ 2 @ 3 GHz: x", r"\~\~b\~\~ 2 @ 3 GHz: x"),
    ],
)
def test_one_line_has_no_link_and_no_emphasis(text: str, line: str) -> None:
    assert cards.harmless(text) == line


def test_an_underscore_stays_in_links_and_code() -> None:
    facts = adapted(repo="me/_a_b", dataset_repo="me/_a_b_")
    facts["source"] |= {"name": "ylecun/mnist_x_", "id": "ylecun/mnist_x_"}
    card = card_of(facts)
    for text in ("datasets/ylecun/mnist_x_)", "ddtool generate me/_a_b --ipc", "datasets/me/_a_b_)"):
        assert text in card, text
    assert "\n# \\_a_b\n" in card


# ---------------------------------------------------------------------------------------------------------- the wheel


def test_a_wheel_renders_the_cards(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import json, sys; from ddtool.sharing import cards; from ddtool.sharing.facts import RepoFacts; "
        "made = [cards.card(RepoFacts.read(open(name).read())) for name in sys.argv[1:]]; "
        "json.dump([cards.__file__, *made], sys.stdout)"
    )
    (tmp_path / "model.json").write_text(json.dumps(adapted()), encoding="utf-8")
    (tmp_path / "dataset.json").write_text(json.dumps(synthetic()), encoding="utf-8")
    done = subprocess.run(  # elsewhere than in the checkout, which `python -c` would find first
        [sys.executable, "-c", code, "model.json", "dataset.json"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    file, model, dataset = json.loads(done.stdout)
    assert Path(file) == site / "ddtool" / "sharing" / "cards.py"
    assert (model, dataset) == (card_of(adapted()), card_of(synthetic()))


def test_the_columns_of_a_validation_have_their_order_whatever_the_json_did() -> None:
    rows = [{"accuracy": 43.2, "iteration": 0, "loss after": 0.7, "loss before": 0.8, "seconds": 5.0}]
    card = card_of(meta(pretraining={"curve": rows}))
    assert "| iteration | loss before | loss after | accuracy | seconds |" in card
    assert "| 0 | 0.8 | 0.7 | 43.2 | 5 |" in card
