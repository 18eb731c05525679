"""Scores of a synthetic set: fresh networks trained on it alone, tested on the whole test split. Returns data, prints nothing."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.data.augment import augmentation
from ddtool.data.images import ImageData, SyntheticSet, accuracy
from ddtool.data.inputs import NetworkInput
from ddtool.errors import DivergedError, UsageError, did_you_mean
from ddtool.events import Done, Report, Step, silent
from ddtool.methods.mgdd import mirrored, ridge_head
from ddtool.models.convnet import ConvNet, RandomFeatures, depth_for, initialise, pyramid
from ddtool.runtime.engine import Engine, frozen_random_state, seeded_generator


@dataclass(frozen=True)
class Protocol:
    """One way to train a network on a synthetic set."""

    steps: Callable[[int], int]
    """Optimiser steps for a set of m images."""
    lr: float
    """Peak learning rate."""
    optimiser: str
    """'adam', or 'sgd' with momentum 0.9 and weight decay 5e-4."""
    schedule: Callable[[float, int], float]
    """(fraction done, steps) → factor of the learning rate."""
    batch: int
    """Images a step at most."""
    loss: str
    """'mse' on centred labels, or 'ce' on label distributions."""
    family: str
    """Augmentation family."""
    norm: str
    """Norm layer of the ConvNet."""
    init: str
    """How weights are drawn."""
    width: int = 128
    """Width of the ConvNet."""


def quick_steps(m: int) -> int:
    """500 steps, and with more images as many as there are, up to 5,000: 1,000 of CIFAR-100 have learned little in 500."""
    return min(max(500, m), 5_000)


def frepo_steps(m: int) -> int:
    """Training length by set size, FRePo's table: the entry of the first size that is not smaller."""
    table = {10: 1_000, 100: 2_000, 500: 5_000, 1_000: 10_000, 5_000: 40_000}
    return next((steps for size, steps in table.items() if m <= size), 40_000)


def warmup_cosine(warmup: int, floor: float) -> Callable[[float, int], float]:
    """A linear rise over `warmup` steps, then half a cosine to `floor`."""

    def factor(done: float, steps: int) -> float:
        start = min(warmup, steps // 2) / steps
        if done < start:
            return (done + 1 / steps) / start
        return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * (done - start) / (1 - start)))

    return factor


def halved(done: float, steps: int) -> float:
    """A tenth of the rate in the second half."""
    return 1.0 if done < 0.5 else 0.1


PROTOCOLS = {
    "quick": Protocol(quick_steps, 1e-3, "adam", warmup_cosine(50, 0.01), 100, "mse", "frepo", "none", "lecun", 64),
    "frepo-mse": Protocol(frepo_steps, 3e-4, "adam", warmup_cosine(500, 0.01), 500, "mse", "frepo", "none", "lecun"),
    "dsa-ce": Protocol(lambda m: 1000 * math.ceil(m / 256), 1e-2, "sgd", halved, 256, "ce", "dsa", "instance", "torch"),
}
"""quick: ours, a first look. frepo-mse: Zhou et al. 2022. dsa-ce: Zhao and Bilen 2021 (DC, DSA, DM, MTT), 1000 epochs."""


ROUNDED, EXACT, NOT_STATED = "8-bit", "exact", "not stated"
"""Pixels of the set that was trained on."""
AS_STATED, NOT_WHITENED = "as stated", "not whitened"
"""What networks saw of it."""


@dataclass(frozen=True)
class ScoreKey:
    """What makes two scores the same measurement: the only answer to that question. All but the figures themselves."""

    stage: str
    method: str
    ipc: int
    arch: str
    protocol: str
    dataset: str
    seeds: int
    pixels: str
    inputs: str

    @classmethod
    def of(cls, score: Mapping[str, Any]) -> "ScoreKey":
        """The key of a score as a file holds it; those of version 0.1 do not say what pixels and inputs were, and one that somebody
        wrote by hand may miss more."""
        known: dict[str, Any] = {"pixels": NOT_STATED, "inputs": AS_STATED} | dict(score)
        values: Any = {f.name: known.get(f.name) for f in fields(cls)}
        return cls(**values)

    @property
    def usual(self) -> bool:
        """Whether the set was used as people load it: the figure for it, where others stand beside that."""
        return self.pixels != EXACT and self.inputs == AS_STATED


@dataclass(frozen=True)
class Score:
    """Test accuracy in percent of one set under one protocol; std is over networks (0 for one seed).

    pixels: of the set that was trained on: '8-bit', as its PNGs hold them, or 'exact', before rounding;
    inputs: 'as stated', what the set says that networks see, or 'not whitened', where that was left out.
    """

    stage: str
    method: str
    ipc: int
    arch: str
    protocol: str
    dataset: str
    mean: float
    std: float
    seeds: int
    seconds: float
    pixels: str = NOT_STATED
    inputs: str = AS_STATED

    @property
    def key(self) -> "ScoreKey":
        """What was measured."""
        return ScoreKey.of(asdict(self))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def check_protocol(name: str) -> Protocol:
    """The protocol of that name, or UsageError."""
    if name not in PROTOCOLS:
        raise UsageError(f"Unknown evaluation protocol '{name}'.", did_you_mean(name, PROTOCOLS))
    return PROTOCOLS[name]


def check_fits(synthetic: SyntheticSet, test: ImageData) -> None:
    """UsageError when a set of one shape or label space would be tested on another."""
    if synthetic.images.shape[1:] != test.images.shape[1:] or synthetic.num_classes != test.num_classes:
        raise UsageError(
            f"The synthetic set has {synthetic.num_classes} classes of {tuple(synthetic.images.shape[1:])} images, "
            f"the test split {test.num_classes} classes of {test.shape}.",
            "Evaluate on the dataset that the set was made from (--on).",
        )


def train_and_test(
    synthetic: SyntheticSet,
    test: ImageData,
    protocol: str,
    engine: Engine,
    *,
    seeds: int = 3,
    seed: int = 0,
    report: Report = silent,
) -> Score:
    """Train `seeds` fresh ConvNets on the set, test each after its last step on the whole of `test`."""
    check_protocol(protocol)
    check_fits(synthetic, test)
    started = time.perf_counter()
    whole, test = synthetic.decoded().to(engine.device), test.to(engine.device)
    accuracies = []
    for k in range(seeds):
        phase = f"{protocol} {synthetic.stage} ipc{synthetic.ipc} net {k + 1}/{seeds}"
        net = train_network(whole, protocol, engine, (seed, k), phase, report)
        scores = predict(engine.wrap(net), test, whole.transform)
        accuracies.append(accuracy(scores, test.labels))
    arch = f"convnet{depth_for(test.shape)}-w{PROTOCOLS[protocol].width}-{PROTOCOLS[protocol].norm}"
    return _score(synthetic, arch, protocol, accuracies, time.perf_counter() - started)


def kernel_ridge(
    synthetic: SyntheticSet, test: ImageData, engine: Engine, *, seeds: int = 3, seed: int = 0, ridge: float = 1e-3
) -> Score:
    """The score of the best linear head on `seeds` fresh random networks' features of the set: a cheap guide, not a result."""
    check_fits(synthetic, test)
    started = time.perf_counter()
    whole, test = synthetic.decoded().to(engine.device), test.to(engine.device)
    inputs = whole.transform
    X, Y = mirrored(inputs(whole.images), whole.labels, whole.mirror)
    rng = engine.rng(seed, "kernel-ridge")
    depth = depth_for(test.shape)
    f = RandomFeatures(test.shape, pyramid(128, depth), "none", engine, rng)
    accuracies = []
    for _ in range(seeds):
        f.draw(rng)
        with torch.no_grad():
            W = ridge_head(torch.cat([f(part) for part in X.split(500)]), Y, ridge)
        accuracies.append(accuracy(predict(f, test, inputs, W), test.labels))
    return _score(
        synthetic, f"convnet{depth}-pyramid128-none", "kernel-ridge", accuracies, time.perf_counter() - started
    )


def train_network(
    synthetic: SyntheticSet, protocol: str, engine: Engine, seed: tuple[int, int], phase: str, report: Report
) -> ConvNet:
    """One fresh ConvNet trained on the set (already on the device) by the protocol; raises DivergedError on a NaN loss."""
    p = PROTOCOLS[protocol]
    rng, host_rng = engine.rng(seed[0], "evaluate", seed[1]), seeded_generator("cpu", seed[0], "augment", seed[1])
    shape = (synthetic.images.shape[1], synthetic.images.shape[2], synthetic.images.shape[3])
    with frozen_random_state():
        net = engine.place(ConvNet(shape, synthetic.num_classes, (p.width,) * depth_for(shape), p.norm))
    initialise(net, rng, p.init)
    X = synthetic.transform(synthetic.images)
    Y = synthetic.labels if p.loss == "mse" else synthetic.probabilities()
    loss_of = F.mse_loss if p.loss == "mse" else F.cross_entropy
    augment, forward = augmentation(p.family, synthetic.mirror, host_rng, rng), engine.wrap(net)
    steps, batch = p.steps(len(X)), min(len(X), p.batch)
    optimiser = make_optimiser(p, net)
    batches = epoch_batches(len(X), batch, rng)
    started, loss = time.perf_counter(), torch.zeros(())
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = p.lr * p.schedule(step / steps, steps)
        rows = next(batches)
        loss = loss_of(forward(augment(X[rows])), Y[rows])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if (step + 1) % max(1, steps // 20) == 0:
            report(Step(phase, step + 1, steps, {"loss": checked(loss, phase)}))
    report(Done(phase, time.perf_counter() - started))
    return net


def make_optimiser(p: Protocol, net: ConvNet) -> torch.optim.Optimizer:
    """The protocol's optimiser over all weights of `net`."""
    if p.optimiser == "adam":
        return torch.optim.Adam(net.parameters(), lr=p.lr)
    return torch.optim.SGD(net.parameters(), lr=p.lr, momentum=0.9, weight_decay=5e-4)


def epoch_batches(m: int, batch: int, rng: torch.Generator):  # type: ignore[no-untyped-def]
    """Endless index batches, a new random order each epoch; the last batch of an epoch may be smaller."""
    while True:
        yield from torch.randperm(m, generator=rng, device=rng.device).split(batch)


@torch.no_grad()
def predict(
    forward: Callable[[Tensor], Tensor],
    data: ImageData,
    inputs: NetworkInput,
    W: Tensor | None = None,
    chunk: int = 500,
) -> Tensor:
    """Class scores of every image, (n, C): those of a network, or of features with a head W (d, C)."""
    out = [forward(inputs(part)) for part in data.images.split(chunk)]
    return torch.cat(out if W is None else [features @ W for features in out])


def checked(loss: Tensor, phase: str) -> float:
    """The loss as a number; DivergedError when it is not finite."""
    value = loss.item()
    if not math.isfinite(value):
        raise DivergedError(f"The loss of '{phase}' is not finite.", "The synthetic set or its labels may be damaged.")
    return value


def _score(synthetic: SyntheticSet, arch: str, protocol: str, accuracies: list[float], seconds: float) -> Score:
    return Score(
        stage=synthetic.stage,
        method=synthetic.method,
        ipc=synthetic.ipc,
        arch=arch,
        protocol=protocol,
        dataset=str(synthetic.source.get("name", "")),
        mean=round(statistics.fmean(accuracies), 3),
        std=round(statistics.stdev(accuracies), 3) if len(accuracies) > 1 else 0.0,
        seeds=len(accuracies),
        seconds=round(seconds, 1),
    )
