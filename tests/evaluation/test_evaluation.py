"""Scores: protocols as published, training that sees the set alone, figures that can be repeated."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ddtool import api
from ddtool.config import EvalConfig, RunConfig
from ddtool.data.images import ImageData, SyntheticSet, draw_per_class, one_hot, real_images
from ddtool.data.inputs import NetworkInput
from ddtool.errors import DivergedError, UsageError
from ddtool.evaluation import measure as evaluation
from ddtool.evaluation.measure import (
    check_fits,
    epoch_batches,
    kernel_ridge,
    make_optimiser,
    predict,
    train_and_test,
    train_network,
)
from ddtool.evaluation.protocols import (
    MOST_CONFUSED,
    PROTOCOLS,
    Protocol,
    ScoreKey,
    check_protocol,
    frepo_steps,
    warmup_cosine,
)
from ddtool.events import Done, Event, Step, silent
from ddtool.models.convnet import ConvNet
from ddtool.pipeline import scoring
from ddtool.runs.facts import RunFacts
from ddtool.runtime.engine import Engine
from ddtool.sources.load import Target


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(autouse=True)
def _short_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    """tiny-mse, tiny-ce: a protocol of each kind that ends in a tenth of a second."""
    schedule = warmup_cosine(5, 0.01)
    mse = Protocol(lambda m: 40, 2e-2, "adam", schedule, 16, "mse", "frepo", "none", "lecun", 8)
    ce = Protocol(lambda m: 40, 5e-2, "sgd", schedule, 16, "ce", "dsa", "instance", "torch", 8)
    monkeypatch.setitem(PROTOCOLS, "tiny-mse", mse)
    monkeypatch.setitem(PROTOCOLS, "tiny-ce", ce)


@pytest.fixture
def subset(toy: ImageData) -> SyntheticSet:
    """5 real images per class, as a synthetic set without flips."""
    return real_images(toy, draw_per_class(toy, 5, rng()), flip=False)


def flat(net: nn.Module) -> Tensor:
    """A copy of all weights in one row."""
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def weights_of(synthetic: SyntheticSet, protocol: str, engine: Engine, seed: tuple[int, int] = (0, 0)) -> Tensor:
    return flat(train_network(synthetic, protocol, engine, seed, "p", silent))


# ----------------------------------------------------------------------------------------------------- the protocols


@pytest.mark.parametrize(("images", "steps"), [(10, 500), (500, 500), (1_000, 1_000), (20_000, 5_000)])
def test_the_quick_protocol_is_longer_for_more_images(images: int, steps: int) -> None:
    assert PROTOCOLS["quick"].steps(images) == steps


def test_frepo_steps() -> None:
    table = {1: 1_000, 10: 1_000, 11: 2_000, 100: 2_000, 101: 5_000, 500: 5_000, 501: 10_000, 1_000: 10_000}
    table |= {1_001: 40_000, 5_000: 40_000, 5_001: 40_000, 50_000: 40_000}
    assert {m: frepo_steps(m) for m in table} == table


@pytest.mark.parametrize("steps", [1_000, 2_000, 40_000])
def test_frepo_schedule_warms_up_for_500_steps_and_falls_to_a_hundredth(steps: int) -> None:
    factor = PROTOCOLS["frepo-mse"].schedule
    lrs = [factor(k / steps, steps) for k in range(steps)]
    assert lrs[:500] == pytest.approx([(k + 1) / 500 for k in range(500)])
    assert lrs[500] == pytest.approx(1)
    middle = 500 + (steps - 500) // 2
    assert lrs[middle] == pytest.approx(0.01 + 0.99 / 2, abs=1e-9)
    assert lrs[-1] == pytest.approx(0.01, abs=1e-3)
    assert lrs[500:] == sorted(lrs[500:], reverse=True)


def test_warm_up_leaves_half_of_a_short_training() -> None:
    lrs = [warmup_cosine(500, 0.01)(k / 8, 8) for k in range(8)]
    assert lrs[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert lrs[4] == pytest.approx(1.0)
    assert lrs[6] == pytest.approx(0.505)
    assert math.isfinite(warmup_cosine(500, 0.01)(0.0, 1))


def test_dsa_protocol_is_the_fields() -> None:
    p = PROTOCOLS["dsa-ce"]
    assert [p.steps(m) for m in (10, 256, 257, 500, 513)] == [1000, 1000, 2000, 2000, 3000]  # 1000 epochs of batch 256
    assert (p.lr, p.optimiser, p.batch, p.loss, p.family, p.norm, p.width) == (
        0.01, "sgd", 256, "ce", "dsa", "instance", 128,
    )  # fmt: skip
    assert [p.schedule(done, 1000) for done in (0.0, 0.499, 0.5, 0.999)] == pytest.approx([1, 1, 0.1, 0.1])
    (group,) = make_optimiser(p, ConvNet((3, 8, 8), 2, (2,))).param_groups
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)


def test_idc_protocol_is_its_authors() -> None:
    p = PROTOCOLS["idc-ce"]
    assert [p.steps(m) for m in (10, 64, 65, 400)] == [1000, 1000, 2000, 7000]  # 1000 epochs of batch 64
    assert (p.lr, p.optimiser, p.batch, p.loss, p.family, p.norm, p.width, p.cutmix) == (
        0.01, "sgd", 64, "ce", "idc", "instance", 128, 0.5,
    )  # fmt: skip
    assert [p.schedule(done, 600) for done in (0.0, 0.666, 0.667, 0.833, 0.834, 0.999)] == [1, 1, 0.2, 0.2, 0.04, 0.04]
    assert all(PROTOCOLS[name].cutmix == 0 for name in ("quick", "frepo-mse", "dsa-ce"))


def test_frepo_protocol_is_the_fields() -> None:
    p = PROTOCOLS["frepo-mse"]
    assert p.steps is frepo_steps
    assert (p.lr, p.optimiser, p.batch, p.loss, p.family, p.norm) == (3e-4, "adam", 500, "mse", "frepo", "none")
    optimiser = make_optimiser(p, ConvNet((3, 8, 8), 2, (2,)))
    assert type(optimiser) is torch.optim.Adam
    assert optimiser.param_groups[0]["weight_decay"] == 0


def test_only_frepo_mse_augments_as_its_authors() -> None:
    assert [PROTOCOLS[name].family for name in ("quick", "frepo-mse", "dsa-ce", "idc-ce")] == [
        "quick",
        "frepo",
        "dsa",
        "idc",
    ]
    versions = {name: protocol.version for name, protocol in PROTOCOLS.items() if not name.startswith("tiny")}
    assert versions == {"quick": 1, "frepo-mse": 2, "dsa-ce": 1, "idc-ce": 1}


def test_scores_of_another_version_of_a_protocol_are_told_apart(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score says by which version it was measured; one of an earlier version is no answer to today's question."""
    monkeypatch.setitem(PROTOCOLS, "tiny-mse", replace(PROTOCOLS["tiny-mse"], version=2))
    now = replace(train_and_test(subset, toy_test, "tiny-mse", engine, seeds=1), pixels="8-bit")
    before = replace(now, protocol_version=1)
    assert (now.protocol_version, now.protocol_text, before.protocol_text) == (2, "tiny-mse", "tiny-mse (version 1)")
    assert now.to_dict()["protocol_version"] == 2
    assert "protocol_version" not in before.to_dict()  # as files have it from before there were versions
    assert ScoreKey.of(before.to_dict()) == before.key != now.key == ScoreKey.of(now.to_dict())
    wanted = scoring.Measurement("tiny-mse", 1)
    assert wanted.done([now], subset, now.dataset)
    assert not wanted.done([before], subset, now.dataset)


@pytest.mark.parametrize(("protocol", "arch"), [([], "convnet"), ("", "convnet"), (",", "convnet"), ("quick", [])])
def test_no_protocol_and_no_network_are_refused(protocol: str | list[str], arch: str | list[str]) -> None:
    with pytest.raises(UsageError, match="names nothing to score by"):
        api.evaluate("runs/none", protocol=protocol, arch=arch)


def test_unknown_protocol_is_refused(subset: SyntheticSet, toy_test: ImageData, engine: Engine) -> None:
    assert check_protocol("quick") is PROTOCOLS["quick"]
    for ask in (check_protocol, lambda name: train_and_test(subset, toy_test, name, engine)):
        with pytest.raises(UsageError, match="Unknown evaluation protocol 'dsa_ce'") as caught:
            ask("dsa_ce")
        assert "'dsa-ce'" in caught.value.hint


def test_optimiser_follows_the_schedule(subset: SyntheticSet, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    lrs: list[float] = []

    class Spy(torch.optim.SGD):
        def step(self, closure: object = None) -> None:  # type: ignore[override]
            lrs.append(self.param_groups[0]["lr"])
            super().step()

    monkeypatch.setattr(evaluation, "make_optimiser", lambda p, net: Spy(net.parameters(), lr=99.0))
    monkeypatch.setitem(PROTOCOLS, "tiny", replace(PROTOCOLS["dsa-ce"], steps=lambda m: 2 * m, width=2))
    train_network(subset, "tiny", engine, (0, 0), "p", silent)
    assert lrs == pytest.approx([0.01] * 20 + [0.001] * 20)


# ----------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("protocol", ["tiny-mse", "tiny-ce"])
def test_training_learns(subset: SyntheticSet, toy_test: ImageData, engine: Engine, protocol: str) -> None:
    score = train_and_test(subset, toy_test, protocol, engine, seeds=2)
    assert score.mean > 50  # chance is 25
    assert (score.seeds, score.ipc, score.stage, score.method) == (2, 5, "random", "random")
    assert (score.protocol, score.dataset) == (protocol, "toy")
    assert score.arch == {"tiny-mse": "convnet2-w8-none", "tiny-ce": "convnet2-w8-instance"}[protocol]
    assert score.to_dict()["mean"] == score.mean


def test_mixed_batches_have_mixed_labels(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """About half of them, and the network learns from them all the same."""
    labels: list[Tensor] = []
    real = evaluation.F.cross_entropy
    monkeypatch.setattr(evaluation.F, "cross_entropy", lambda scores, Y: labels.append(Y) or real(scores, Y))
    monkeypatch.setitem(PROTOCOLS, "tiny-ce", replace(PROTOCOLS["tiny-ce"], family="idc", cutmix=0.5))
    assert train_and_test(subset, toy_test, "tiny-ce", engine, seeds=1).mean > 40  # chance is 25
    mixed = sum(bool(((Y > 0.01) & (Y < 0.99)).any()) for Y in labels)
    assert len(labels) == 40
    assert 8 <= mixed <= 32
    assert all(torch.allclose(Y.sum(1), torch.ones(())) for Y in labels)


@pytest.mark.parametrize("protocol", ["tiny-mse", "tiny-ce"])
def test_training_follows_the_soft_labels_not_the_hard_ones(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, protocol: str
) -> None:
    turned = replace(subset, labels=one_hot((subset.hard + 1) % 4, 4))
    expected = replace(toy_test, labels=(toy_test.labels + 1) % 4)
    assert train_and_test(turned, expected, protocol, engine, seeds=1).mean > 50
    assert train_and_test(turned, toy_test, protocol, engine, seeds=1).mean < 20


def test_cross_entropy_is_on_distributions(subset: SyntheticSet, engine: Engine) -> None:
    """Labels that differ as scores and agree as distributions train the same network."""
    doubled = replace(subset, labels=(subset.labels + 0.25) * 2 - 0.25)
    assert torch.equal(weights_of(subset, "tiny-ce", engine), weights_of(doubled, "tiny-ce", engine))
    assert not torch.equal(weights_of(subset, "tiny-mse", engine), weights_of(doubled, "tiny-mse", engine))


def test_label_scale_is_for_squared_error_alone(subset: SyntheticSet, toy_test: ImageData, engine: Engine) -> None:
    scaled = subset.scaled(4.0)
    assert torch.equal(weights_of(subset, "tiny-ce", engine), weights_of(scaled, "tiny-ce", engine))
    assert not torch.equal(weights_of(subset, "tiny-mse", engine), weights_of(scaled, "tiny-mse", engine))
    a, b = (kernel_ridge(s, toy_test, engine, seeds=2) for s in (subset, scaled))
    assert a.mean == pytest.approx(b.mean, abs=0.5)


@pytest.mark.parametrize("protocol", ["tiny-mse", "tiny-ce"])
def test_a_seed_gives_one_network(
    subset: SyntheticSet, engine: Engine, protocol: str, untouched_global_rng: None
) -> None:
    first = weights_of(subset, protocol, engine)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12345)  # nothing may hang on the global state
        assert torch.equal(weights_of(subset, protocol, engine), first)
    assert not torch.equal(weights_of(subset, protocol, engine, (1, 0)), first)
    assert not torch.equal(weights_of(subset, protocol, engine, (0, 1)), first)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights of every network that `train_and_test` trains, in order."""
    kept: list[Tensor] = []
    original = evaluation.train_network

    def spy(*arguments: object) -> ConvNet:
        net = original(*arguments)  # type: ignore[arg-type]
        kept.append(flat(net))
        return net

    monkeypatch.setattr(evaluation, "train_network", spy)
    return kept


def test_score_follows_from_the_seed(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, trained: list[Tensor]
) -> None:
    a, b, c = (train_and_test(subset, toy_test, "tiny-mse", engine, seeds=2, seed=seed) for seed in (0, 0, 1))
    assert (a.mean, a.std) == (b.mean, b.std)
    assert (a.mean, a.std) != (c.mean, c.std)
    assert torch.equal(trained[0], trained[2])
    assert torch.equal(trained[1], trained[3])
    fresh = [trained[k].tolist() for k in (0, 1, 4, 5)]
    assert all(fresh[i] != fresh[j] for i in range(4) for j in range(i))


def test_every_network_begins_with_weights_and_augmentations_of_its_own(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, trained: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen without any training, so that the order of the batches makes no difference."""
    monkeypatch.setitem(PROTOCOLS, "tiny-ce", replace(PROTOCOLS["tiny-ce"], steps=lambda m: 0))
    draws: list[tuple[float, float]] = []
    original = evaluation.augmentation

    def spy(family: str, flip: bool, host: torch.Generator, device: torch.Generator) -> object:
        draws.append((torch.rand(1, generator=host).item(), torch.rand(1, generator=device).item()))
        return original(family, flip, host, device)

    monkeypatch.setattr(evaluation, "augmentation", spy)
    train_and_test(subset, toy_test, "tiny-ce", engine, seeds=3)
    assert len({tuple(weights.tolist()) for weights in trained}) == 3
    assert len({host for host, _ in draws}) == len({device for _, device in draws}) == 3


def test_the_test_split_selects_nothing(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, trained: list[Tensor]
) -> None:
    """Networks are the same whatever the test split holds, and it is read once for each, after its training."""
    poisoned = replace(toy_test, images=255 - toy_test.images.flip(0), labels=(toy_test.labels + 1) % 4)
    for test in (toy_test, poisoned):
        train_and_test(subset, test, "tiny-mse", engine, seeds=1)
    assert torch.equal(trained[0], trained[1])


def test_the_test_split_is_read_after_training(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    predict_ = evaluation.predict
    monkeypatch.setattr(evaluation, "predict", lambda *a, **b: order.append("test") or predict_(*a, **b))

    def listen(event: Event) -> None:
        order.append("trained" if isinstance(event, Done) else "step")

    train_and_test(subset, toy_test, "tiny-mse", engine, seeds=2, report=listen)
    assert order == ["step"] * 20 + ["trained", "test"] + ["step"] * 20 + ["trained", "test"]


def test_training_says_where_it_stands(subset: SyntheticSet, toy_test: ImageData, engine: Engine) -> None:
    events: list[Event] = []
    train_and_test(subset, toy_test, "tiny-mse", engine, seeds=1, report=events.append)
    steps = [e for e in events if isinstance(e, Step)]
    assert [(e.step, e.total) for e in steps] == [(k, 40) for k in range(2, 41, 2)]
    assert {e.phase for e in steps} == {"tiny-mse random ipc5 net 1/1"}
    assert steps[-1].values["loss"] < steps[0].values["loss"]


def test_damaged_labels_are_reported(subset: SyntheticSet, engine: Engine) -> None:
    with pytest.raises(DivergedError, match="'phase x' is not finite"):
        train_network(
            replace(subset, labels=subset.labels * float("nan")), "tiny-mse", engine, (0, 0), "phase x", silent
        )


@pytest.mark.parametrize("flip", [True, False])
def test_training_flips_only_where_classes_do_not_mind(
    subset: SyntheticSet, engine: Engine, monkeypatch: pytest.MonkeyPatch, flip: bool
) -> None:
    flips: list[int] = []
    monkeypatch.setitem(
        evaluation.augmentation.__globals__["FAMILIES"]["frepo"], "flip", lambda x, _: flips.append(1) or x
    )
    train_network(replace(subset, flip=flip), "tiny-mse", engine, (0, 0), "p", silent)
    assert bool(flips) == flip


def test_normalisation_is_the_sets_own(subset: SyntheticSet, toy_test: ImageData, engine: Engine) -> None:
    """Neither training nor testing looks at the statistics of the test split."""
    other = replace(toy_test, mean=(9.0, 9.0, 9.0), std=(0.1, 0.1, 0.1))
    a, b = (train_and_test(subset, test, "tiny-mse", engine, seeds=1) for test in (toy_test, other))
    assert a.mean == b.mean


def test_batches_are_epochs_in_random_order(untouched_global_rng: None) -> None:
    batches = epoch_batches(10, 4, rng())
    epochs = [[next(batches) for _ in range(3)] for _ in range(3)]
    for epoch in epochs:
        assert [len(b) for b in epoch] == [4, 4, 2]
        assert sorted(torch.cat(epoch).tolist()) == list(range(10))
    assert torch.cat(epochs[0]).tolist() != torch.cat(epochs[1]).tolist()


def test_predict_covers_every_image_in_any_chunk(toy_test: ImageData) -> None:
    inputs, W = NetworkInput(toy_test.mean, toy_test.std), torch.randn(12, 4, generator=rng())
    x = (toy_test.images.double() / 255 - torch.tensor(toy_test.mean).view(3, 1, 1)) / torch.tensor(toy_test.std).view(
        3, 1, 1
    )

    def forward(images: Tensor) -> Tensor:
        return images[:, :, ::8, ::8].flatten(1)

    expected = x[:, :, ::8, ::8].flatten(1).float()
    for chunk in (7, 50, 1000):
        assert torch.allclose(predict(forward, toy_test, inputs, chunk=chunk), expected, atol=1e-5)
        assert torch.allclose(predict(forward, toy_test, inputs, W, chunk), expected @ W, atol=1e-4)


# -------------------------------------------------------------------------------------------------------- what is given


def test_sets_are_tested_on_their_own_shape_and_classes(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine
) -> None:
    check_fits(subset, toy_test)
    small = replace(toy_test, images=toy_test.images[:, :, :8])
    more = replace(toy_test, class_names=("a", "b", "c", "d", "e"))
    for test, words in ((small, r"4 classes of \(3, 8, 16\)"), (more, "test split 5 classes")):
        for ask in (
            lambda t: check_fits(subset, t),
            lambda t: train_and_test(subset, t, "tiny-mse", engine),
            lambda t: kernel_ridge(subset, t, engine),
        ):
            with pytest.raises(UsageError, match=words):
                ask(test)


HUB = {"kind": "hub", "id": "ann/birds", "name": "birds", "revision": "ab" * 20, "resolution": 32, "config": "large"}
LOCAL = {"kind": "local", "name": "clothes", "resolution": 32, "image_column": "picture"}


@pytest.mark.parametrize(
    ("source", "on", "name", "data"),
    [
        (HUB, None, "birds", {"resolution": 32, "config": "large", "revision": "ab" * 20}),
        (HUB, "ann/birds", "ann/birds", {"resolution": 32, "config": "large", "revision": "ab" * 20}),
        (HUB | {"converted": True}, None, "birds", {"resolution": 32, "config": "large", "revision": "refs/convert/parquet"}),
        (HUB, "bob/birds", "bob/birds", {"resolution": 32}),
        (LOCAL, "./clothes", "./clothes", {"resolution": 32}),
        (LOCAL | {"path": "/data/clothes"}, "/data/clothes", "/data/clothes", {"resolution": 32, "image_column": "picture"}),
        ({}, "mnist", "mnist", {}),
    ],
)  # fmt: skip
def test_a_set_without_its_run_is_tested_on_data_that_is_read_alike(
    source: dict, on: str | None, name: str, data: dict, subset: SyntheticSet
) -> None:
    config = scoring.tested_on(replace(subset, source=source), on)
    assert (config.dataset, config.data) == (name, data)


@pytest.mark.parametrize("source", [{}, LOCAL])
def test_a_set_whose_data_is_not_here_asks_for_a_dataset(source: dict, subset: SyntheticSet) -> None:
    with pytest.raises(UsageError) as caught:
        scoring.tested_on(replace(subset, source=source), None)
    assert "--on" in caught.value.hint


# -------------------------------------------------------------------------------------------------- spread, kernel ridge


class Projections:
    """Random features that a test can compute by itself: relu(pixels @ P_k), P_k the k-th draw."""

    def __init__(self) -> None:
        self.draws = 0

    @classmethod
    def doubling(cls, *_: object) -> "Projections":
        return cls()

    @staticmethod
    def matrix(k: int) -> Tensor:
        return torch.randn(3 * 16 * 16, 60, generator=rng(k)) / 10

    def draw(self, _: torch.Generator) -> "Projections":
        self.draws += 1
        return self

    def __call__(self, x: Tensor) -> Tensor:
        return (x.flatten(1) @ self.matrix(self.draws)).relu()


@pytest.mark.parametrize("flip", [True, False])
def test_kernel_ridge_is_the_best_linear_head(
    toy: ImageData,
    toy_test: ImageData,
    engine: Engine,
    svd_head: Callable,
    flip: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(evaluation, "RandomFeatures", Projections)
    synthetic = real_images(toy, draw_per_class(toy, 3, rng()), flip=flip)
    synthetic = replace(synthetic, labels=torch.randn(12, 4, generator=rng(4)) / 5 + synthetic.labels)
    score = kernel_ridge(synthetic, toy_test, engine, seeds=4, ridge=0.05)

    def pixels(images: Tensor) -> Tensor:
        return (images.double() - torch.tensor(toy.mean).view(3, 1, 1)) / torch.tensor(toy.std).view(3, 1, 1)

    X, Y, X_test = pixels(synthetic.images), synthetic.labels.double(), pixels(toy_test.images.double() / 255)
    if flip:
        X, Y = torch.cat([X, X[:, :, :, torch.arange(15, -1, -1)]]), torch.cat([Y, Y])
    percents = []
    for k in range(1, 5):
        P = Projections.matrix(k).double()
        W = svd_head((X.flatten(1) @ P).clamp_min(0), Y, 0.05)
        hits = ((X_test.flatten(1) @ P).clamp_min(0) @ W).argmax(1) == toy_test.labels
        percents.append(100 * hits.double().mean().item())
    assert len(set(percents)) > 1
    assert score.mean == pytest.approx(np.mean(percents), abs=1e-3)
    assert score.std == pytest.approx(np.std(percents, ddof=1), abs=1e-3)
    assert (score.protocol, score.seeds) == ("kernel-ridge", 4)


def test_kernel_ridge_of_real_features(toy: ImageData, toy_test: ImageData, engine: Engine) -> None:
    few, many = (real_images(toy, draw_per_class(toy, ipc, rng()), flip=False) for ipc in (1, 20))
    a, b = (kernel_ridge(s, toy_test, engine, seeds=2, seed=3) for s in (few, many))
    assert b.mean > a.mean + 15 > 50
    assert b.mean > 85
    assert b.arch == "convnet2-doubling128-none"
    again = kernel_ridge(many, toy_test, engine, seeds=2, seed=3)
    assert (again.mean, again.std) == (b.mean, b.std)
    assert (kernel_ridge(few, toy_test, engine, seeds=2, seed=4).mean) != a.mean


def test_std_is_of_the_sample_and_zero_for_one(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = iter([40.0, 50.0, 60.0, 71.23456])
    monkeypatch.setattr(evaluation, "accuracy_of", lambda scores, labels: next(values))
    score = train_and_test(subset, toy_test, "tiny-mse", engine, seeds=3)
    assert (score.mean, score.std) == (50.0, 10.0)
    score = train_and_test(subset, toy_test, "tiny-mse", engine, seeds=1)
    assert (score.mean, score.std) == (71.235, 0.0)


# ---------------------------------------------------------------------------------------------------------- confusion


def test_a_score_keeps_how_often_each_class_was_taken_for_each(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine
) -> None:
    for score in (
        train_and_test(subset, toy_test, "tiny-mse", engine, seeds=2),
        kernel_ridge(subset, toy_test, engine),
    ):
        assert score.confusion is not None
        counts = torch.tensor(score.confusion)  # (C, C)
        assert torch.equal(counts.sum(1), score.seeds * toy_test.class_counts())
        assert 100 * counts.trace().item() / counts.sum().item() == pytest.approx(score.mean, abs=1e-3)


def test_rows_of_the_confusion_are_true_classes() -> None:
    answers = [torch.tensor([1, 1, 1]), torch.tensor([0, 1, 0])]
    assert evaluation.confusion_of(answers, torch.tensor([0, 1, 1]), 2) == [[1, 1], [1, 3]]
    assert evaluation.confusion_of(answers, torch.tensor([0, 1, 1]), MOST_CONFUSED + 1) is None


def test_the_confusion_is_no_part_of_what_was_measured(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine
) -> None:
    score = kernel_ridge(subset, toy_test, engine, seeds=1)
    assert score.confusion
    without = replace(score, confusion=None)
    assert without.key == score.key == ScoreKey.of(score.to_dict())
    assert "confusion" not in without.to_dict()
    read = RunFacts.of({"scores": [score.to_dict(), without.to_dict()], "timings": {}, "facts": {}})
    assert read.scores == (score, without)


# ------------------------------------------------------------------------------------------------------ other networks


@pytest.mark.parametrize(
    ("arch", "text"),
    [
        ("convnet-batch", "convnet2-w8-batch"), ("convnet-wide", "convnet2-w128-256-none"),
        ("resnet18-batch", "resnet18-w64-512-batch"), ("vit", "vit-w192-layer"), ("mlp", "mlp-w128-none"),
    ],
)  # fmt: skip
def test_other_networks_are_scored_too(
    arch: str, text: str, subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PROTOCOLS, "tiny-mse", replace(PROTOCOLS["tiny-mse"], steps=lambda m: 1))
    few = toy_test.head(20)
    score = train_and_test(subset, few, "tiny-mse", engine, arch=arch, seeds=1)
    assert score.arch == text == evaluation.arch_text(arch, "tiny-mse", toy_test.shape)
    assert score == replace(train_and_test(subset, few, "tiny-mse", engine, arch=arch, seeds=1), seconds=score.seconds)


def test_a_network_with_batch_norm_judges_each_image_by_itself(
    subset: SyntheticSet, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the statistics of its training, not of the test images beside it."""
    seen: list[Tensor] = []

    def kept(*arguments: Any, **options: Any) -> Tensor:
        seen.append(predict(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(evaluation, "predict", kept)
    few = replace(toy_test, images=toy_test.images[:3], labels=toy_test.labels[:3])
    for test in (toy_test, few):
        train_and_test(subset, test, "tiny-mse", engine, arch="convnet-batch", seeds=1)
    assert torch.allclose(seen[0][:3], seen[1], atol=1e-4)


def test_an_unknown_network_is_refused(subset: SyntheticSet, toy_test: ImageData, engine: Engine) -> None:
    with pytest.raises(UsageError, match="Unknown network 'convnett'"):
        train_and_test(subset, toy_test, "tiny-mse", engine, arch="convnett")


def test_every_pair_of_protocol_and_network_is_asked_for_once() -> None:
    asked = scoring.requested(
        ["quick", "kernel-ridge", "quick"], ["mlp", "convnet", "vit-layer"], 2, "exact", "as stated"
    )
    assert [(m.protocol, m.arch) for m in asked] == [
        ("quick", "mlp"), ("quick", "convnet"), ("quick", "vit-layer"), ("kernel-ridge", "convnet"),
    ]  # fmt: skip
    assert {(m.seeds, m.pixels, m.inputs) for m in asked} == {(2, "exact", "as stated")}
    for protocols, archs in ((["quick", "slow"], ["mlp"]), (["quick"], ["mlp", "milp"])):
        with pytest.raises(UsageError, match=r"slow|milp"):
            scoring.requested(protocols, archs, 2, "exact", "as stated")


def test_networks_that_would_have_no_effect_are_refused() -> None:
    with pytest.raises(UsageError, match="--arch mlp,vit would have no effect"):
        scoring.requested(["kernel-ridge"], ["mlp", "vit"], 2, "exact", "as stated")
    with pytest.raises(UsageError, match="at least 1 network, got 0"):
        scoring.requested(["quick"], ["convnet"], 0, "exact", "as stated")


# ------------------------------------------------------------------------------------------- a learning rate of the set's own


def test_a_learned_learning_rate_is_a_row_beside_the_fields(
    toy: ImageData, toy_test: ImageData, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, float]] = []
    real = evaluation.make_optimiser

    def noted(p: Protocol, net: nn.Module) -> torch.optim.Optimizer:
        seen.append((p.optimiser, p.lr))
        return real(p, net)

    monkeypatch.setattr(evaluation, "make_optimiser", noted)
    short = replace(PROTOCOLS["dsa-ce"], steps=lambda m: 2, width=8)
    monkeypatch.setitem(PROTOCOLS, "dsa-ce", short)
    plain = real_images(toy, draw_per_class(toy, 1, rng()), True)
    learned = replace(plain, learned_lr=0.037)
    judge = scoring.Judge(0, engine)
    target = Target("toy", toy, len(toy_test), lambda: toy_test)
    wanted = scoring.requested(["dsa-ce"], ["convnet"], 1, "8-bit", "as stated")
    scores = [judge.measure(learned, target, one) for one in scoring.by_its_own_rate(wanted, learned)]
    assert [s.protocol for s in scores] == ["dsa-ce", "dsa-ce-lr"]
    assert seen == [("sgd", 0.01), ("sgd", 0.037)]
    assert scores[0].arch == scores[1].arch
    assert scoring.by_its_own_rate(wanted, plain) == wanted
    alone = scoring.requested(["dsa-ce-lr"], ["convnet"], 1, "8-bit", "as stated")
    assert scoring.by_its_own_rate(alone, learned) == alone
    assert scoring.by_its_own_rate(alone, plain) == []
    with pytest.raises(UsageError, match="no learned learning rate"):
        train_and_test(plain, toy_test, "dsa-ce-lr", engine)
    with pytest.raises(UsageError, match="Unknown evaluation protocol"):
        check_protocol("dsa-ce-lr")  # no run or comparison is scored by it alone


def test_the_authors_protocol_is_a_row_beside_the_fields(toy: ImageData) -> None:
    plain = real_images(toy, draw_per_class(toy, 1, rng()), True)
    wanted = scoring.requested(["quick", "dsa-ce"], ["convnet"], 2, "8-bit", "as stated")
    assert scoring.by_its_own_rate(wanted, replace(plain, method="dm")) == wanted
    assert scoring.by_its_own_rate(wanted, replace(plain, method="of somebody")) == wanted
    beside = scoring.by_its_own_rate(wanted, replace(plain, method="idc"))
    assert [one.protocol for one in beside] == ["quick", "dsa-ce", "idc-ce"]
    assert beside[2] == replace(wanted[1], protocol="idc-ce")
    only = scoring.requested(["quick"], ["convnet"], 2, "8-bit", "as stated")
    assert scoring.by_its_own_rate(only, replace(plain, method="idc")) == only


def test_a_run_is_scored_by_each_of_its_protocols(toy: ImageData) -> None:
    config = RunConfig(evaluate=EvalConfig(protocol="tiny-ce, tiny-mse", seeds=2, kernel_ridge=False))
    plain = real_images(toy, draw_per_class(toy, 1, rng()), True)
    assert [(one.protocol, one.seeds) for one in scoring.measurements(plain, config)] == [
        ("tiny-ce", 2),
        ("tiny-mse", 2),
    ]
    with pytest.raises(UsageError, match="Unknown evaluation protocol"):
        scoring.measurements(plain, RunConfig(evaluate=EvalConfig(protocol="tiny-ce,tinny")))


def test_the_cheap_guide_is_a_protocol_like_others(toy: ImageData) -> None:
    plain = real_images(toy, draw_per_class(toy, 1, rng()), True)
    config = RunConfig(evaluate=EvalConfig(protocol="kernel-ridge,tiny-ce", seeds=2, arch="mlp"))
    assert scoring.measurements(plain, config) == [
        scoring.Measurement("kernel-ridge", 2),
        scoring.Measurement("tiny-ce", 2, arch="mlp"),
    ]
    learned = scoring.measurements(replace(plain, stage="refined"), config)
    assert learned[2:] == [scoring.Measurement("kernel-ridge", 2, pixels="exact")]  # as many networks as beside it


@pytest.mark.parametrize("protocol", ["tiny-mse", "tiny-ce"])
def test_batches_that_do_not_fit_the_memory_are_trained_on_in_parts(
    protocol: str, subset: SyntheticSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gradient of a batch is the sum of its parts', the last of which is smaller."""
    monkeypatch.setitem(PROTOCOLS, protocol, replace(PROTOCOLS[protocol], steps=lambda m: 4))
    sizes: list[int] = []
    plain = evaluation.backward

    def watched(forward: Callable, loss_of: Callable, X: Tensor, Y: Tensor, most: int) -> Tensor:
        return plain(lambda x: (sizes.append(len(x)), forward(x))[1], loss_of, X, Y, most)

    monkeypatch.setattr(evaluation, "backward", watched)
    engine = Engine(torch.device("cpu"), bf16=False)
    whole = weights_of(subset, protocol, engine)
    assert sizes == [16, 4] * 2
    sizes.clear()
    small = replace(engine, memory=4 * 16 * evaluation.widest_of(subset.shape) * 6)
    assert torch.allclose(weights_of(subset, protocol, small), whole, rtol=1e-3, atol=1e-4)
    assert sizes == [6, 6, 4, 4] * 2


def test_networks_with_batch_norm_see_whole_batches(subset: SyntheticSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its statistics are those of the batch."""
    monkeypatch.setitem(PROTOCOLS, "tiny-ce", replace(PROTOCOLS["tiny-ce"], norm="batch", steps=lambda m: 2))
    engine = Engine(torch.device("cpu"), bf16=False)
    assert torch.equal(weights_of(subset, "tiny-ce", replace(engine, memory=1)), weights_of(subset, "tiny-ce", engine))
