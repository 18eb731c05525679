"""Gradient matching: on S, a network should get the gradient that it gets on the real data, class by class.

    min_S  Σ_c D( ∇_θ L(A(T_c); θ), ∇_θ L(A(S_c); θ) ),   L: cross-entropy, A: augmentation

with θ from fresh networks that are trained a little between the steps. DC ("Dataset Condensation with Gradient Matching",
Zhao, Mopuri and Bilen, ICLR 2021) has no A and D = Σ_layers Σ_outputs 1 − cos; DSA ("Dataset Condensation with
Differentiable Siamese Augmentation", Zhao and Bilen, ICML 2021) adds A, the same for T_c and S_c.
"""

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.config import AtLeastOne, Count, NotNegative, Values, checked
from ddtool.data.augment import augmentation, siamese
from ddtool.methods.base import Init, InnerNetwork, Method, Settings, Standard, Task
from ddtool.methods.record import Record
from ddtool.models.convnet import ConvNet
from ddtool.runtime.engine import Engine

Together = Callable[[Sequence[Tensor]], list[Tensor]]
"""Augments several batches with the same parameters."""


class Matching:
    """How far the gradient that a network gets on synthetic images of a class is from the one on real images of it: a row-wise
    function (`runtime.rows`) over classes.

    compared: which weights' gradients, a name of `COMPARED`;  distance: D, a name of `DISTANCES`.
    """

    kind: ClassVar[str] = "matching"

    def __init__(self, net: ConvNet, compared: str, distance: str, engine: Engine) -> None:
        self.net, self.compared, self.distance = net, compared, distance
        self.matched, self._distance = COMPARED[compared](net), DISTANCES[distance]
        self.forward = engine.wrap(net)
        self.forward_twice = replace(engine, compile_networks=False).wrap(net)  # compiled: first derivatives only

    @classmethod
    def described(cls, text: str, engine: Engine) -> "Matching":
        """From a `description`; the weights are to be set."""
        net, compared, distance = json.loads(text)
        return cls(engine.place(ConvNet.described(net)), compared, distance, engine)

    def description(self) -> str:
        """As `Rowwise` has it."""
        return json.dumps([self.net.description(), self.compared, self.distance])

    def weights(self) -> list[Tensor]:
        """As `Rowwise` has it."""
        return list(self.net.parameters())

    def rows(self, X: Tensor, *more: Tensor) -> Tensor:
        """D, (k,), for k classes: synthetic images X (k, n, c, h, w), real ones (k, n', c, h, w), and the classes (k,)."""
        real, classes = more
        return torch.stack([self.of_class(S_c, T_c, c) for S_c, T_c, c in zip(X, real, classes, strict=True)])

    def of_class(self, S_c: Tensor, T_c: Tensor, c: Tensor) -> Tensor:
        """D of one class."""
        S_c, T_c = (images.contiguous(memory_format=torch.channels_last) for images in (S_c, T_c))
        return self._distance(self.weight_gradients(T_c, c), self.weight_gradients(S_c, c, differentiable=True))

    def weight_gradients(self, X: Tensor, label: Tensor, differentiable: bool = False) -> tuple[Tensor, ...]:
        """Gradients of the mean cross-entropy on images X (n, c, h, w) of one class."""
        scores = (self.forward_twice if differentiable else self.forward)(X)
        loss = F.cross_entropy(scores, label.expand(len(X)))
        return torch.autograd.grad(loss, self.matched, create_graph=differentiable)


COMPARED: dict[str, Callable[[ConvNet], list[Tensor]]] = {
    "matrices": lambda net: [p for p in net.parameters() if p.ndim > 1],
    "convolutions": lambda net: [m.weight for m in net.modules() if isinstance(m, nn.Conv2d)],
}
"""The weights whose gradients are compared: all but biases and norms, or those of convolutions alone."""


def cosine_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """Σ_layers Σ_outputs 1 − cos of what the two gradients say about one output's weights (out, ...), eps 1e-6."""
    distance = torch.zeros((), device=synthetic[0].device)
    for a, b in zip(real, synthetic, strict=True):
        a, b = a.flatten(1), b.flatten(1)
        norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
        distance = distance + (1 - (a * b).sum(1) / (norms + 1e-6)).sum()
    return distance


def squared_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """Σ (a − b)² over all weights."""
    return torch.stack([(a - b).square().sum() for a, b in zip(real, synthetic, strict=True)]).sum()


def absolute_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """Σ |a − b| over all weights."""
    return torch.stack([(a - b).abs().sum() for a, b in zip(real, synthetic, strict=True)]).sum()


DISTANCES = {"cosine": cosine_distance, "squared": squared_distance, "absolute": absolute_distance}
"""D of two lists of weight gradients, a scalar."""


class GradientMatching(Method):
    """One step for all methods of the kind. Subclasses set `optimiser`, `inner_network` and `matching`."""

    inner_network: InnerNetwork
    """The network whose gradients are compared."""
    matching: Matching
    """How they are compared."""

    @abstractmethod
    def together(self, step: int) -> Together:
        """The augmentation A of a step, called once for every class."""

    def seen(self, S_c: Tensor) -> Tensor:
        """What the network gets to see of a class's stored images (k, c, h, w)."""
        return S_c

    def gradient(self, step: int) -> Tensor:
        """One class at a time in each process, so that memory does not grow with the number of classes. Real images are drawn with
        replacement."""
        task, C = self.task, self.task.num_classes
        rows = task.real.sampler(self.config.real_batch * C, self.rng).view(C, -1)
        augment = self.together(step)
        self.X.grad, total = torch.empty_like(self.X), torch.zeros((), device=self.X.device)
        for classes in torch.arange(C).split(task.engine.processes):
            numbers = classes.tolist()
            stored = [self.X.detach()[c::C].requires_grad_() for c in numbers]
            pairs = [
                augment([task.real.at(rows[c])[0], self.seen(S_c)]) for c, S_c in zip(numbers, stored, strict=True)
            ]
            T, S = (torch.stack(images) for images in zip(*pairs, strict=True))
            losses = task.engine.rowwise(self.matching, S, T, classes.to(self.X.device))
            gradients = torch.autograd.grad(losses.sum(), stored)
            for c, gradient in zip(numbers, gradients, strict=True):
                self.X.grad[c::C] = gradient
            total += losses.detach().sum()
        return total

    def tensors(self) -> dict[str, Tensor]:
        return {"X": self.X} | self.inner_network.tensors("inner")


@checked
class DCSettings(Settings):
    """DC as published."""

    steps: Count = 10_000
    """Updates of the whole synthetic set: 1000 networks x `outer`, here for IPC 10 (1 000 at IPC 1, 50 000 at IPC 50)."""
    init: Init = "noise"
    """The synthetic images at the start: real or noise."""
    lr: NotNegative = 0.1
    """The learning rate of the images' SGD, constant."""
    momentum: NotNegative = 0.5
    """The momentum of the images' SGD."""
    real_batch: AtLeastOne = 256
    """Real images of every class in a step."""
    outer: AtLeastOne | None = None
    """Steps on one network before a fresh one; null: as many as the IPC, up to 50."""
    inner: Count | None = None
    """Epochs of that network on S after each of these steps but the last; null: by IPC, as `schedule` has it."""
    net_lr: NotNegative = 0.01
    """The learning rate of the network's plain SGD."""
    net_batch: AtLeastOne = 256
    """Synthetic images in one update of the network."""
    standardise: Standard = "published"
    """Mean and deviation of the images that networks see and steps are on."""


@checked
class DSASettings(DCSettings):
    """DSA as published."""

    init: Init = "real"
    """The synthetic images at the start: real or noise."""


INNER = {10: 50, 20: 25, 30: 20, 40: 15, 50: 10}
"""`DCSettings.inner` by IPC in the authors' code; at IPC 1 a network is never trained."""


def schedule(ipc: int) -> tuple[int, int]:
    """(outer, inner) of `DCSettings` for an IPC: the authors' table, and the straight line between its entries. Ours beyond it,
    where the authors' code ends: below 10 and above 50 those of the nearest entry."""
    return min(ipc, 50), round(float(np.interp(ipc, list(INNER), list(INNER.values()))))


class DC(GradientMatching):
    """The network is trained on S itself between the steps."""

    record = Record(
        name="dc",
        title="DC (Zhao et al., 2021)",
        paper="Zhao, Mopuri and Bilen, ICLR 2021",
        settings=DCSettings,
        divided=True,
        quick_settings={"init": "real", "real_batch": 64, "inner": 2, "lr": 3.0, "standardise": "measured"},
        colour="#a2a887",
        marker="v",
    )

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        outer, inner = schedule(task.ipc)
        self.outer, self.inner = settings.outer or outer, inner if settings.inner is None else settings.inner
        self.X = self.initial_images()
        self.optimiser = torch.optim.SGD([self.X], settings.lr, settings.momentum)
        self.inner_network = InnerNetwork(self.network(), "sgd", settings.net_lr)
        self.matching = Matching(self.inner_network.net, "matrices", "cosine", task.engine)

    def together(self, step: int) -> Together:
        return list

    def alone(self, step: int) -> Callable[[Tensor], Tensor]:
        """The augmentation of the network's training after a step."""
        return lambda images: images

    def after_step(self, step: int) -> None:
        """A fresh network after `outer` steps, else `inner` epochs on S."""
        if (step + 1) % self.outer == 0:
            return self.inner_network.reset(self.rng)
        X, classes, augment = self.X.detach(), self.task.classes(), self.alone(step)
        for _ in range(self.inner):
            for rows in torch.randperm(len(X), generator=self.rng, device=X.device).split(self.config.net_batch):
                self.inner_network.update(F.cross_entropy(self.matching.forward(augment(X[rows])), classes[rows]))

    def facts(self) -> Values:
        return {"outer": self.outer, "inner": self.inner}


class DSA(DC):
    """DC with one random operation a class and step, the same for its real and its synthetic images."""

    record = Record(
        name="dsa",
        title="DSA (Zhao and Bilen, 2021)",
        paper="Zhao and Bilen, ICML 2021",
        settings=DSASettings,
        divided=True,
        quick_settings={"real_batch": 64, "inner": 2, "lr": 3.0, "standardise": "measured"},
        colour="#0e7a74",
        marker="^",
    )

    def together(self, step: int) -> Together:
        return siamese("dsa", self.task.flip, self.task.host_rng("match", step), self.rng)

    def alone(self, step: int) -> Callable[[Tensor], Tensor]:
        return augmentation("dsa", self.task.flip, self.task.host_rng("train", step), self.rng)
