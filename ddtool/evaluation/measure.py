"""Scores of a synthetic set: fresh networks trained on it alone, tested on the whole test split. Returns data, prints nothing."""

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.data.augment import augmentation, cutmix
from ddtool.data.batches import in_chunks, with_flips
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.data.inputs import NetworkInput
from ddtool.errors import DivergedError, UsageError
from ddtool.evaluation.protocols import (
    CE,
    KERNEL_RIDGE,
    LEARNED_LR,
    MOST_CONFUSED,
    Confusion,
    Protocol,
    Score,
    check_protocol,
    protocol_of,
    version_of,
)
from ddtool.events import Done, Report, Step, silent
from ddtool.models import registry
from ddtool.models.convnet import RandomFeatures, depth_for, initialise
from ddtool.models.ridge import ridge_head
from ddtool.runtime.engine import Engine, frozen_random_state, seeded_generator

GUIDE_WIDTH = 128
"""Channels of the last block of the networks of `kernel_ridge`."""
WIDEST = 128
"""Channels that a network of any kind has at full resolution, at most."""


def widest_of(shape: tuple[int, int, int]) -> int:
    """The most values that an image of `shape` (c, h, w) has between two layers of a network of any kind."""
    return WIDEST * shape[1] * shape[2]


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
    arch: str = registry.DEFAULT,
    seeds: int = 3,
    seed: int = 0,
    report: Report = silent,
) -> Score:
    """Train `seeds` fresh networks on the set, test each after its last step on the whole of `test`.

    protocol, arch: names in `PROTOCOLS` (or LEARNED_LR) and in `models.registry`; UsageError for others.
    """
    kind = kind_of(arch, protocol_of(protocol, synthetic.learned_lr))
    check_fits(synthetic, test)
    started = time.perf_counter()
    whole, test = synthetic.decoded().to(engine.device), test.to(engine.device)
    answers = []
    for k in range(seeds):
        other = "" if arch == registry.DEFAULT else f" {arch}"
        phase = f"{protocol}{other} {synthetic.stage} ipc{synthetic.ipc} net {k + 1}/{seeds}"
        net = train_network(whole, protocol, engine, (seed, k), phase, report, arch)
        chunk = engine.part(widest_of(test.shape), 500)
        answers.append(predict(engine.wrap(net.eval()), test, whole.transform, chunk=chunk).argmax(1))
    return _score(synthetic, kind.text(test.shape), protocol, answers, test, started)


def kind_of(arch: str, protocol: Protocol) -> registry.Kind:
    """The kind of network that a name means under a protocol; UsageError for an unknown one."""
    return registry.find(arch).under(protocol.norm, protocol.width)


def arch_text(arch: str, protocol: str, shape: tuple[int, int, int]) -> str:
    """What the scores of a measurement say of their network, for images of a shape (c, h, w)."""
    if protocol == KERNEL_RIDGE:
        return f"convnet{depth_for(shape)}-doubling{GUIDE_WIDTH}-none"
    return kind_of(arch, check_protocol(CE if protocol == LEARNED_LR else protocol)).text(shape)


def kernel_ridge(
    synthetic: SyntheticSet, test: ImageData, engine: Engine, *, seeds: int = 3, seed: int = 0, ridge: float = 1e-3
) -> Score:
    """The score of the best linear head on `seeds` fresh random networks' features of the set: a cheap guide, not a result."""
    check_fits(synthetic, test)
    started = time.perf_counter()
    whole, test = synthetic.decoded().to(engine.device), test.to(engine.device)
    inputs = whole.transform
    X, Y = with_flips(inputs(whole.images), whole.labels, whole.flip)
    rng = engine.rng(seed, "kernel-ridge")
    f = RandomFeatures.doubling(test.shape, GUIDE_WIDTH, "none", engine, rng)
    answers = []
    for _ in range(seeds):
        f.draw(rng)
        with torch.no_grad():
            W = ridge_head(in_chunks(f, X), Y, ridge)
        answers.append(predict(f, test, inputs, W).argmax(1))
    return _score(
        synthetic, arch_text(registry.DEFAULT, KERNEL_RIDGE, test.shape), KERNEL_RIDGE, answers, test, started
    )


def train_network(
    synthetic: SyntheticSet,
    protocol: str,
    engine: Engine,
    seed: tuple[int, int],
    phase: str,
    report: Report,
    arch: str = registry.DEFAULT,
) -> nn.Module:
    """One fresh network trained on the set (already on the device) by the protocol; raises DivergedError on a NaN loss."""
    p = protocol_of(protocol, synthetic.learned_lr)
    steps = p.steps(len(synthetic))
    taught = training(synthetic, p, steps, engine, seed, arch)
    (net, _), started = next(taught), time.perf_counter()
    for step, (_, loss) in enumerate(taught, 1):
        if step % max(1, steps // 20) == 0:
            report(Step(phase, step, steps, {"loss": checked(loss, phase)}))
    report(Done(phase, time.perf_counter() - started))
    return net


def training(
    synthetic: SyntheticSet,
    p: Protocol,
    steps: int,
    engine: Engine,
    seed: tuple[int, int],
    arch: str = registry.DEFAULT,
) -> Iterator[tuple[nn.Module, Tensor]]:
    """A fresh network and the loss of its last step: before the first step (a loss of zero), and after each of `steps`."""
    rng, host_rng = engine.rng(seed[0], "evaluate", seed[1]), seeded_generator("cpu", seed[0], "augment", seed[1])
    kind = kind_of(arch, p)
    with frozen_random_state():
        net = engine.place(kind.build(synthetic.shape, synthetic.num_classes))
    initialise(net, rng, p.init)
    X = synthetic.transform(synthetic.images)
    Y = synthetic.labels if p.loss == "mse" else synthetic.probabilities()
    loss_of = F.mse_loss if p.loss == "mse" else F.cross_entropy
    augment, forward = augmentation(p.family, synthetic.flip, host_rng, rng), engine.wrap(net)
    batch = min(len(X), p.batch)
    most = batch if kind.norm == "batch" else engine.part(widest_of(synthetic.shape), batch)
    batches = epoch_batches(len(X), batch, rng)
    optimiser = make_optimiser(p, net)
    yield net, torch.zeros(())
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = p.lr * p.schedule(step / steps, steps)
        rows = next(batches)
        seen, labels = augment(X[rows]), Y[rows]
        if p.cutmix:
            seen, labels = cutmix(seen, labels, p.cutmix, host_rng, rng)
        optimiser.zero_grad(set_to_none=True)
        loss = backward(forward, loss_of, seen, labels, most)
        optimiser.step()
        yield net, loss


def backward(
    forward: Callable[[Tensor], Tensor], loss_of: Callable[[Tensor, Tensor], Tensor], X: Tensor, Y: Tensor, most: int
) -> Tensor:
    """The mean loss of a batch, its gradient left in the weights, computed on at most so many images at once."""
    total = X.new_zeros(())
    for x, y in zip(X.split(most), Y.split(most), strict=True):
        loss = loss_of(forward(x), y) * (len(x) / len(X))
        loss.backward()
        total += loss.detach()
    return total


def make_optimiser(p: Protocol, net: nn.Module) -> torch.optim.Optimizer:
    """The protocol's optimiser over all weights of `net`."""
    if p.optimiser == "adam":
        return torch.optim.Adam(net.parameters(), lr=p.lr)
    return torch.optim.SGD(net.parameters(), lr=p.lr, momentum=0.9, weight_decay=5e-4)


def epoch_batches(m: int, batch: int, rng: torch.Generator) -> Iterator[Tensor]:
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


def confusion_of(answers: Sequence[Tensor], labels: Tensor, num_classes: int) -> Confusion | None:
    """How often each class was taken for each, over all networks; None where there are too many classes to keep it.

    answers: the class (n,) that each network takes an image for;  labels: (n,).
    """
    if num_classes > MOST_CONFUSED:
        return None
    places = torch.cat([labels * num_classes + taken for taken in answers])
    counts = torch.bincount(places, minlength=num_classes**2).view(num_classes, num_classes)
    confusion: Confusion = counts.tolist()
    return confusion


def accuracy_of(answers: Tensor, labels: Tensor) -> float:
    """Percent of images that are taken for their class;  answers, labels: (n,)."""
    return 100 * float((answers == labels).float().mean())


def _score(
    synthetic: SyntheticSet, arch: str, protocol: str, answers: Sequence[Tensor], test: ImageData, started: float
) -> Score:
    accuracies = [accuracy_of(taken, test.labels) for taken in answers]
    return Score(
        stage=synthetic.stage,
        method=synthetic.method,
        ipc=synthetic.ipc,
        arch=arch,
        protocol=protocol,
        protocol_version=version_of(protocol),
        dataset=str(synthetic.source.get("name", "")),
        mean=round(statistics.fmean(accuracies), 3),
        std=round(statistics.stdev(accuracies), 3) if len(accuracies) > 1 else 0.0,
        seeds=len(accuracies),
        seconds=round(time.perf_counter() - started, 1),
        confusion=confusion_of(answers, test.labels, test.num_classes),
    )
