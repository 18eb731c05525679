"""Gradient matching: on S, a network should get the gradient that it gets on the real data, class by class.

    min_S  Σ_c D( ∇_θ L(A(T_c); θ), ∇_θ L(A(S_c); θ) ),   L: cross-entropy, A: augmentation

with θ from fresh networks that are trained a little between the steps. DC ("Dataset Condensation with Gradient Matching",
Zhao, Mopuri and Bilen, ICLR 2021) has no A and D = Σ_layers Σ_outputs 1 − cos; DSA ("Dataset Condensation with
Differentiable Siamese Augmentation", Zhao and Bilen, ICML 2021) adds A, the same for T_c and S_c.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.config import AtLeastOne, Count, NotNegative, Values, checked
from ddtool.data.augment import augmentation, siamese
from ddtool.methods.base import Init, InnerNetwork, Method, Settings, Standard, Task
from ddtool.methods.record import Record

Together = Callable[[Sequence[Tensor]], list[Tensor]]
"""Augments several batches with the same parameters."""


class GradientMatching(Method):
    """One step for all methods of the kind. Subclasses set `optimiser` and `inner_network`, and call `match`."""

    inner_network: InnerNetwork
    """The network whose gradients are compared."""

    def match(self, weights: list[Tensor]) -> None:
        """Compare gradients of these weights of the inner network."""
        self.weights, engine, net = weights, self.task.engine, self.inner_network.net
        self.forward = engine.wrap(net)
        self.forward_twice = replace(engine, compile_networks=False).wrap(net)  # compiled: first derivatives only

    @abstractmethod
    def together(self, step: int) -> Together:
        """The augmentation A of a step, called once for every class."""

    @abstractmethod
    def distance(self, real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
        """D of two lists of weight gradients, a scalar."""

    def seen(self, S_c: Tensor) -> Tensor:
        """What the network gets to see of a class's stored images (k, c, h, w)."""
        return S_c

    def gradient(self, step: int) -> Tensor:
        """Class by class, so that memory does not grow with their number. Real images are drawn with replacement."""
        task, C = self.task, self.task.num_classes
        rows = task.real.sampler(self.config.real_batch * C, self.rng).view(C, -1)
        augment = self.together(step)
        self.X.grad, total = torch.empty_like(self.X), torch.zeros((), device=self.X.device)
        for c in range(C):
            S_c = self.X.detach()[c::C].requires_grad_()
            T, S = augment([task.real.at(rows[c])[0], self.seen(S_c)])
            loss = self.distance(self.weight_gradients(T, c), self.weight_gradients(S, c, differentiable=True))
            (self.X.grad[c::C],) = torch.autograd.grad(loss, S_c)
            total += loss.detach()
        return total

    def weight_gradients(self, X: Tensor, label: int, differentiable: bool = False) -> tuple[Tensor, ...]:
        """Gradients of the mean cross-entropy on images X (n, c, h, w) of one class."""
        scores = (self.forward_twice if differentiable else self.forward)(X)
        loss = F.cross_entropy(scores, torch.full((len(X),), label, device=X.device))
        return torch.autograd.grad(loss, self.weights, create_graph=differentiable)

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


def cosine_distance(real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
    """Σ_layers Σ_outputs 1 − cos of what the two gradients say about one output's weights (out, ...), eps 1e-6."""
    distance = torch.zeros((), device=synthetic[0].device)
    for a, b in zip(real, synthetic, strict=True):
        a, b = a.flatten(1), b.flatten(1)
        norms = torch.linalg.vector_norm(a, dim=1) * torch.linalg.vector_norm(b, dim=1)
        distance = distance + (1 - (a * b).sum(1) / (norms + 1e-6)).sum()
    return distance


class DC(GradientMatching):
    """The network is trained on S itself between the steps."""

    record = Record(
        name="dc",
        title="DC (Zhao et al., 2021)",
        paper="Zhao, Mopuri and Bilen, ICLR 2021",
        settings=DCSettings,
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
        self.match([p for p in self.inner_network.net.parameters() if p.ndim > 1])

    def together(self, step: int) -> Together:
        return list

    def alone(self, step: int) -> Callable[[Tensor], Tensor]:
        """The augmentation of the network's training after a step."""
        return lambda images: images

    def distance(self, real: Sequence[Tensor], synthetic: Sequence[Tensor]) -> Tensor:
        return cosine_distance(real, synthetic)

    def after_step(self, step: int) -> None:
        """A fresh network after `outer` steps, else `inner` epochs on S."""
        if (step + 1) % self.outer == 0:
            return self.inner_network.reset(self.rng)
        X, classes, augment = self.X.detach(), self.task.classes(), self.alone(step)
        for _ in range(self.inner):
            for rows in torch.randperm(len(X), generator=self.rng, device=X.device).split(self.config.net_batch):
                self.inner_network.update(F.cross_entropy(self.forward(augment(X[rows])), classes[rows]))

    def facts(self) -> Values:
        return {"outer": self.outer, "inner": self.inner}


class DSA(DC):
    """DC with one random operation a class and step, the same for its real and its synthetic images."""

    record = Record(
        name="dsa",
        title="DSA (Zhao and Bilen, 2021)",
        paper="Zhao and Bilen, ICML 2021",
        settings=DSASettings,
        quick_settings={"real_batch": 64, "inner": 2, "lr": 3.0, "standardise": "measured"},
        colour="#0e7a74",
        marker="^",
    )

    def together(self, step: int) -> Together:
        return siamese("dsa", self.task.flip, self.task.host_rng("match", step), self.rng)

    def alone(self, step: int) -> Callable[[Tensor], Tensor]:
        return augmentation("dsa", self.task.flip, self.task.host_rng("train", step), self.rng)
