"""DD-Ranking's scores: against figures computed by hand, and what networks are trained on for them."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from ddtool import api, methods
from ddtool.data.images import ImageData, SyntheticSet, draw_per_class, one_hot, real_images
from ddtool.errors import UsageError
from ddtool.evaluation.protocols import PROTOCOLS, Score, check_protocol, version_of
from ddtool.evaluation.robust import Accuracies, squashed
from ddtool.events import Event, Note
from ddtool.pipeline import whole
from ddtool.pipeline.robustness import figures_of, hard, random_alike, robustness
from ddtool.pipeline.scoring import Found, Judge, Measurement
from ddtool.runtime.engine import Engine
from ddtool.sources.load import Target

BY_HAND = Accuracies(0.85, 0.45, 0.60, 0.40, 0.50, 0.45)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Labels of random images are fitted over two narrow networks."""
    usual, few = methods.settings_of, {"width": 16, "fit_networks": 2}

    def settings_of(name: str, values: dict[str, Any]) -> Any:
        return usual(name, values | few if name == "random" else values)

    monkeypatch.setattr(methods, "settings_of", settings_of)


@pytest.fixture
def target(toy: ImageData, toy_test: ImageData) -> Target:
    return Target("toy", toy, len(toy_test), lambda: toy_test)


@pytest.fixture
def subset(toy: ImageData) -> SyntheticSet:
    """Three images a class with soft labels, at another scale."""
    rows = draw_per_class(toy, 3, torch.Generator().manual_seed(1))
    labels = one_hot(toy.labels[rows], toy.num_classes).roll(1, 1) * 0.5
    soft = replace(real_images(toy, rows, False), stage="distilled", method="dm", labels=labels, label_method="learned")
    return soft.scaled(2.0)


def test_scores_are_those_computed_by_hand() -> None:
    """HLR 0.40, IOR 0.20, plain 0.05: α = −0.10 and β = 0.125, whose scores a pocket calculator has as 0.2285 and 0.3256."""
    assert math.isclose(BY_HAND.hard_label_recovery, 0.40)
    assert math.isclose(BY_HAND.improvement_over_random, 0.20)
    assert math.isclose(BY_HAND.improvement_without_augmentation, 0.05)
    assert round(BY_HAND.label_robust(), 4) == 0.2285
    assert round(BY_HAND.augmentation_robust(), 4) == 0.3256
    assert math.isclose(BY_HAND.label_robust(1.0), squashed(0.20))
    assert math.isclose(BY_HAND.label_robust(0.0), squashed(-0.40))
    assert math.isclose(BY_HAND.augmentation_robust(0.0), squashed(0.05))


@pytest.mark.parametrize(("x", "share"), [(-1, 0.0), (0, 0.26894), (1, 1.0)])
def test_the_scale_runs_from_nothing_to_all(x: float, share: float) -> None:
    assert squashed(x) == pytest.approx(share, abs=1e-5)


def test_figures_are_means_and_deviations_over_networks() -> None:
    other = replace(BY_HAND, set_any=0.62, random_any=0.38)
    found = figures_of([BY_HAND, other])
    assert found["ior"] == (22.0, round(2.8284, 4))
    assert found["hlr"] == (40.0, 0.0)
    assert found["set_any"] == (61.0, 1.4142)
    assert found["lrs"][0] == pytest.approx((BY_HAND.label_robust() + other.label_robust()) / 2, abs=1e-4)
    assert figures_of([BY_HAND])["lrs"] == (0.2285, 0.0)


def test_hard_labels_are_the_classes_at_the_same_scale(subset: SyntheticSet) -> None:
    made = hard(subset)
    assert torch.equal(made.labels, 2.0 * one_hot(subset.hard, subset.num_classes))
    assert (made.label_method, made.label_scale) == ("hard", 2.0)
    assert torch.equal(made.images, subset.images)


def test_random_images_have_labels_of_the_same_kind(subset: SyntheticSet, target: Target, engine: Engine) -> None:
    judge = Judge(3, engine)
    soft, bare = random_alike(subset, target, judge), random_alike(hard(subset), target, judge)
    assert torch.equal(soft.images, bare.images)
    assert (soft.label_method, bare.label_method) == ("fitted", "hard")
    assert (soft.ipc, soft.label_scale, bare.label_scale) == (3, 2.0, 2.0)
    assert torch.equal(bare.labels, 2.0 * one_hot(bare.hard, bare.num_classes))
    assert not torch.equal(soft.labels, bare.labels)
    assert torch.equal(soft.labels, random_alike(subset, target, judge).labels)
    assert not torch.equal(soft.images, random_alike(subset, target, replace(judge, seed=4)).images)


class Told(Judge):
    """A judge that trains nothing: its accuracies follow from what it was asked, and it keeps that."""

    asked: list[tuple[str, str, int]]

    def measure(self, synthetic: SyntheticSet, target: Target, wanted: Measurement) -> Score:
        self.asked.append((wanted.protocol, f"{synthetic.stage} {synthetic.label_method}", self.seed))
        mean = {"distilled learned": 60.0, "distilled hard": 45.0, "random fitted": 40.0}[self.asked[-1][1]]
        plain = {60.0: 50.0, 40.0: 45.0}
        mean = plain[mean] if wanted.protocol.endswith("-plain") else mean
        return Score("s", "m", 3, "net", wanted.protocol, "toy", mean, 0.0, 1, 0.0)


def test_five_sets_are_trained_on_for_each_network(subset: SyntheticSet, target: Target, engine: Engine) -> None:
    Told.asked = []
    (found,) = robustness(
        Found(None, [subset]), [Measurement("dsa-ce", 2)], Told(7, engine), target, whole_accuracy=85.0
    )
    assert [(protocol, what) for protocol, what, seed in Told.asked if seed == 7] == [
        ("dsa-ce", "distilled hard"), ("dsa-ce", "distilled learned"), ("dsa-ce", "random fitted"),
        ("dsa-ce-plain", "distilled learned"), ("dsa-ce-plain", "random fitted"),
    ]  # fmt: skip
    assert [seed for *_, seed in Told.asked] == [7] * 5 + [8] * 5
    assert found.networks == 2
    assert found.figures["lrs"] == (0.2285, 0.0)
    assert found.figures["ars"] == (0.3256, 0.0)


@pytest.mark.parametrize("protocol", ["kernel-ridge", "dsa-ce-lr", "dsa-ce-plain"])
def test_protocols_without_such_scores_are_refused(
    protocol: str, subset: SyntheticSet, target: Target, engine: Engine
) -> None:
    with pytest.raises(UsageError):
        robustness(Found(None, [subset]), [Measurement(protocol, 1)], Judge(0, engine), target, 80.0)


# ----------------------------------------------------------------------------------------------- without augmentation


@pytest.mark.parametrize("share", [0.848, 1, -3, 100.5])
def test_an_accuracy_that_is_no_percentage_is_refused(
    share: float, subset: SyntheticSet, target: Target, engine: Engine
) -> None:
    """DD-Ranking's own package has shares: 0.848 would be less than one percent here, and the score higher than any."""
    with pytest.raises(UsageError, match="is in percent, got"):
        robustness(Found(None, [subset]), [Measurement("quick", 1)], Judge(0, engine), target, share)


@pytest.mark.parametrize("name", ["quick", "frepo-mse", "dsa-ce", "idc-ce"])
def test_a_plain_protocol_is_the_same_without_augmentation(name: str) -> None:
    usual, plain = PROTOCOLS[name], check_protocol(f"{name}-plain")
    assert plain == replace(usual, family="", cutmix=0.0)
    assert version_of(f"{name}-plain") == usual.version
    with pytest.raises(UsageError, match="Unknown evaluation protocol"):
        check_protocol(f"{name}-plain-plain")


def test_without_augmentation_networks_see_the_images_themselves(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ddtool.evaluation import measure

    seen: list[Tensor] = []
    original = measure.backward
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], steps=lambda m: 3, width=8, batch=100))
    monkeypatch.setattr(
        measure,
        "backward",
        lambda forward, loss, X, Y, most: (seen.append(X.clone()), original(forward, loss, X, Y, most))[1],
    )
    measure.train_and_test(subset, toy_test, "quick-plain", engine, seeds=1)
    plain = subset.transform(subset.images)
    for X in seen:
        distance = torch.cdist(X.flatten(1), plain.flatten(1)).min(1)
        assert (distance.values < 1e-4).all()
        assert sorted(distance.indices.tolist()) == list(range(len(plain)))  # an epoch: each image once


# ------------------------------------------------------------------------------------------- the whole training set


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], steps=lambda m: 3, width=8))
    return tmp_path / "cache"


def test_the_whole_set_is_every_training_image_seen_alike(subset: SyntheticSet, toy: ImageData) -> None:
    uneven = replace(toy, images=toy.images[:-1], labels=toy.labels[:-1])
    made = whole.whole_set(uneven, subset)
    assert torch.equal(made.pixels(), uneven.images)
    assert torch.equal(made.labels, 2.0 * one_hot(uneven.labels, uneven.num_classes))
    assert (made.mean, made.std, made.flip, made.label_scale) == (subset.mean, subset.std, False, 2.0)
    assert (made.stage, made.label_method) == ("full", "hard")


def test_the_whole_set_is_trained_on_once(
    subset: SyntheticSet, target: Target, engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time the score is read below the cache; what networks see, protocol and version have files of their own."""
    trained: list[int] = []
    original = whole.train_and_test
    monkeypatch.setattr(
        whole, "train_and_test", lambda made, *a, **k: (trained.append(len(made)), original(made, *a, **k))[1]
    )

    def score(beside: SyntheticSet = subset, **changes: object) -> Score:
        return whole.whole_score(beside, target, "quick", engine, **changes)  # type: ignore[arg-type]

    first = score()
    assert trained == [len(target.train)]
    assert (first.stage, first.ipc, first.seeds, first.dataset, first.pixels) == ("full", 3, 1, "toy", "8-bit")
    assert score() == first
    assert score(replace(subset, ipc=3, stage="refined")) == first
    assert len(trained) == 1
    (file,) = cache.glob("methods/*/whole-*.json")
    file.write_text("{")
    assert score().mean == first.mean
    assert len(trained) == 2
    score(replace(subset, flip=True))
    score(seed=1)
    score(arch="mlp")
    monkeypatch.setitem(PROTOCOLS, "quick", replace(PROTOCOLS["quick"], version=9))
    score()
    assert len(trained) == 6


def test_a_training_set_that_does_not_fit_is_refused(subset: SyntheticSet, target: Target, cache: Path) -> None:
    small = Engine(torch.device("cpu"), bf16=False, memory=1000)
    with pytest.raises(UsageError, match="whole training set"):
        whole.whole_score(subset, target, "quick", small)


def test_training_by_epochs_grows_no_longer_from_10240_images_on() -> None:
    assert [PROTOCOLS["dsa-ce"].steps(m) for m in (10, 500, 10_240, 50_000)] == [1_000, 2_000, 40_000, 40_000]
    assert PROTOCOLS["idc-ce"].steps(50_000) == 160_000


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_shows_and_keeps_robust_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    tiny.shorten_protocols(monkeypatch)
    run = tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run")
    words = ("evaluate", run.folder, "--robust", "--protocol", "quick", "--eval-seeds", 2)
    shown = json.loads(tiny.done(*words, "--json").stdout)["robustness"][0]
    assert (shown["ipc"], shown["protocol"], shown["networks"]) == (2, "quick", 2)
    means = {name: pair[0] / 100 for name, pair in shown["figures"].items()}
    assert means["hlr"] == pytest.approx(means["whole_hard"] - means["set_hard"], abs=1e-5)
    assert 0 <= shown["figures"]["lrs"][0] <= 1
    noted = run.results()["facts"][f"robustness quick {shown['arch']} refined ipc2"]
    assert noted["figures"] == shown["figures"]
    other = tiny.image_folder(tmp_path / "other")
    tiny.done(*words, "--on", other, "--whole-accuracy", 80)
    facts = run.results()["facts"]
    assert facts[f"robustness quick {shown['arch']} refined ipc2"] == noted
    assert facts[f"robustness quick {shown['arch']} refined ipc2 on other"] != noted
    assert "LRS" in tiny.done(*words, "--whole-accuracy", 80).stdout
    assert "exclude each other" in tiny.refused(2, *words, "--exact")
    assert "is for --robust" in tiny.refused(2, "evaluate", run.folder, "--whole-accuracy", 80)


def test_the_whole_training_set_stands_beside_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    tiny.shorten_protocols(monkeypatch)
    run = tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run")
    heard: list[Event] = []
    scores = api.evaluate(
        run, protocol="quick,kernel-ridge", seeds=1, whole=True, engine=tiny.ENGINE, report=heard.append
    )
    assert "The whole training set is not scored by kernel-ridge: it trains no network." in [
        event.text for event in heard if isinstance(event, Note)
    ]
    (full,) = [score for score in scores if score.stage == "full"]
    assert (full.protocol, full.ipc, full.seeds) == ("quick", 2, 1)
    assert full.key in {score.key for score in run.noted().scores}
    assert "whole training set" in tiny.done("evaluate", run.folder, "--protocol", "quick", "--whole").stdout
