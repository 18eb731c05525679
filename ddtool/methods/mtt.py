"""MTT: matching training trajectories (Cazenavette et al., CVPR 2022). An expert trained on the real data left its weights
θ*_e after each epoch e. A student starts at θ*_t, for a random t in [0, T⁺), and takes N steps of SGD on S with the learned
learning rate α; it should arrive where the expert was M epochs on:

    ‖ θ̂_{t+N} − θ*_{t+M} ‖² / ‖ θ*_t − θ*_{t+M} ‖²,    θ̂_{n+1} = θ̂_n − α ∇_θ ℓ(A(S_n); θ̂_n)

ℓ is cross-entropy with hard labels, S_n a batch of S, A one operation of the DSA family with parameters of its own for every
image, for experts and students alike. Images are what networks see, as for
every method here: whitened where the run whitens, by a matrix of its own where the published runs take another ZCA.
"""

import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ddtool.config import AtLeastOne, Count, NotNegative, Values, checked
from ddtool.data.augment import augmentation
from ddtool.data.images import draw_per_class
from ddtool.errors import DivergedError, RunError, UsageError
from ddtool.events import Done, Note, Report, Step, silent
from ddtool.methods.base import Method, Settings, Standard, Task
from ddtool.methods.record import Record
from ddtool.models.convnet import initialise
from ddtool.runtime.engine import finite

PHASE = "experts"


@checked
class MTTSettings(Settings):
    """Those set to null are the published ones for the dataset's number of classes and the IPC (`PUBLISHED`)."""

    steps: Count = 5000
    """Updates of the whole synthetic set, a student each."""
    experts: AtLeastOne = 100
    """Networks trained on the real data before the first step."""
    expert_epochs: AtLeastOne = 50
    """Epochs an expert may take. Ours: none is trained further than a student can be compared with, T⁺ + M − 1."""
    expert_lr: NotNegative = 0.01
    """SGD's learning rate of the experts, without momentum."""
    expert_batch: AtLeastOne = 256
    """Real images a step of an expert."""
    expert_images: AtLeastOne | None = None
    """Ours, for the CPU: train each expert on a random part of so many images, the same number of each class; null: on all."""
    student_steps: AtLeastOne | None = None
    """N, the student's steps on S."""
    match_epochs: AtLeastOne | None = None
    """M, the expert's epochs that they should be worth."""
    start_before: AtLeastOne | None = None
    """T⁺: students start before this epoch of an expert (at most `expert_epochs` − M + 1)."""
    batch: AtLeastOne | None = None
    """Synthetic images a step of the student, at most."""
    lr_images: NotNegative | None = None
    """SGD's learning rate on the images."""
    lr_lr: NotNegative | None = None
    """SGD's learning rate on α."""
    lr_student: NotNegative | None = None
    """α at the start."""
    momentum: NotNegative = 0.5
    """SGD's momentum, for images and α."""
    standardise: Standard = "published"
    """Mean and deviation of the images that networks see and steps are on; experts are trained on the same ones."""


@dataclass(frozen=True)
class Schedule:
    """What `MTTSettings` leaves to the dataset and the IPC. The defaults here are ours, for where nothing is published."""

    student_steps: int = 20
    match_epochs: int = 2
    start_before: int = 20
    batch: int = 500
    lr_images: float = 1000.0
    lr_lr: float = 1e-5
    lr_student: float = 0.01


PUBLISHED = {
    (10, 1): Schedule(50, 2, 2, 10, 100.0, 1e-7, 0.01),
    (10, 10): Schedule(30, 2, 20, 100, 100.0, 1e-5, 0.001),
    (10, 50): Schedule(30, 2, 40, 500, 1000.0, 1e-5, 0.001),
    (100, 1): Schedule(20, 3, 20, 100, 1000.0, 1e-5, 0.01),
    (100, 10): Schedule(20, 2, 20, 1000, 1000.0, 1e-5, 0.01),
    (100, 50): Schedule(80, 2, 40, 125, 1000.0, 1e-5, 0.01),
}
"""For CIFAR by (classes, IPC), from the paper's appendix. Four of the six are with ZCA there (10-50 and 100-10 are not)."""


def schedule_for(config: MTTSettings, num_classes: int, ipc: int) -> Schedule:
    """What a run does: settings that were given, else the published plan, else ours.

    Raises UsageError for what cannot be used, such as experts that train for fewer than M epochs.
    """
    usual = PUBLISHED.get((num_classes, ipc), Schedule())
    values = {f.name: getattr(config, f.name) for f in fields(Schedule)}
    values = {name: getattr(usual, name) if value is None else value for name, value in values.items()}
    if config.expert_images is not None and config.expert_images < num_classes:
        raise UsageError(
            f"Setting 'baseline.expert_images' must be at least {num_classes}, got {config.expert_images}.",
            "It is for all classes together; leave it out to train experts on all real images.",
        )
    longest = config.expert_epochs - values["match_epochs"] + 1
    if longest < 1:
        raise UsageError(
            f"Experts of {config.expert_epochs} epochs cannot be matched {values['match_epochs']} epochs on.",
            f"For example --set baseline.expert_epochs={values['match_epochs']}.",
        )
    return Schedule(**values | {"start_before": min(values["start_before"], longest)})


class MTT(Method):
    """Students that train on S should go where experts went that trained on real images."""

    record = Record(
        name="mtt",
        title="MTT (Cazenavette et al., 2022)",
        paper="Cazenavette et al., CVPR 2022",
        settings=MTTSettings,
        quick_settings={
            "experts": 2, "expert_epochs": 3, "expert_images": 2500, "expert_batch": 64, "expert_lr": 0.02, "student_steps": 5,
            "match_epochs": 1, "start_before": 3, "batch": 50, "lr_images": 1000.0, "lr_student": 0.03, "lr_lr": 1e-5,
            "standardise": "measured",
        },
        unbudgeted="experts",
        colour="#29a2ff",
        marker="X",
    )  # fmt: skip

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        self.plan = plan = schedule_for(settings, task.num_classes, task.ipc)
        self.X, self.labels = self.initial_images(), task.classes()
        self.lr = torch.tensor(plan.lr_student, device=task.engine.device, requires_grad=True)
        groups = [{"params": [self.X], "lr": plan.lr_images}, {"params": [self.lr], "lr": plan.lr_lr}]
        self.optimiser = torch.optim.SGD(groups, momentum=settings.momentum)
        self.net = self.network()
        self.experts = Experts(self.task, settings, self.net, plan.start_before - 1 + plan.match_epochs)

    def prepare(self, report: Report = silent) -> float:
        return self.experts.prepare(report)

    def gradient(self, step: int) -> Tensor:
        host, plan = self.task.host_rng("student", step), self.plan
        expert, t = (int(torch.randint(n, (1,), generator=host)) for n in (self.config.experts, plan.start_before))
        start, target = self.experts.weights(expert, t), self.experts.weights(expert, t + plan.match_epochs)
        augment = augmentation("dsa", self.task.flip, host, self.rng)
        batches = [(augment(self.X[rows]), self.labels[rows]) for rows in self.batches()]
        loss, d_batches, d_lr = match(self.loss, start, target, batches, self.lr.detach())
        torch.autograd.backward([x for x, _ in batches], d_batches)
        self.lr.grad = d_lr
        return loss

    def batches(self) -> Iterator[Tensor]:
        """Rows of S for each of the student's N steps: all of them where they fit, else shuffled anew in each pass."""
        m, size = len(self.X), min(self.plan.batch, len(self.X))
        left: list[Tensor] = []
        for _ in range(self.plan.student_steps):
            left = left or list(torch.randperm(m, generator=self.rng, device=self.X.device).split(size))
            yield left.pop(0)

    def loss(self, weights: Tensor, X: Tensor, labels: Tensor) -> Tensor:
        """ℓ: cross-entropy of the network with flat `weights` (P,)."""
        with self.task.engine.autocast():
            scores = functional_call(self.net, unflatten(weights, self.net), X)
        return F.cross_entropy(scores.float(), labels)

    def project(self) -> None:
        super().project()
        self.lr.clamp_(min=self.plan.lr_student / 100)  # ours: a student that stands still teaches nothing

    def tensors(self) -> dict[str, Tensor]:
        return {"X": self.X, "lr": self.lr}

    def learned_lr(self) -> float | None:
        return max(self.lr.item(), 1e-8)

    def facts(self) -> Values:
        experts = {"experts": self.config.experts, "expert_epochs": self.experts.epochs}
        return experts | {"expert_seconds": round(self.experts.seconds, 1), "student_lr": self.lr.item()}


def match(
    loss: Any, start: Tensor, target: Tensor, batches: list[tuple[Tensor, Tensor]], lr: Tensor
) -> tuple[Tensor, list[Tensor], Tensor]:
    """The student's walk from `start` over `batches` of (X, labels), its loss against `target`, and the exact gradients of
    that loss for every batch's X and for `lr`.

    `loss(weights, X, labels)` is ℓ. The gradients are carried back through the walk step by step, each computed again from
    the weights it began at, so that memory holds the graph of one step, whatever N: with λ_N = ∂L/∂θ̂_N and v = λ_{n+1}·∇ℓ,

        λ_n = λ_{n+1} − α ∂v/∂θ̂_n,    ∂L/∂X_n = −α ∂v/∂X_n,    ∂L/∂α = −Σ v
    """
    path, weights = [], start
    for X, labels in batches:
        path.append(weights.requires_grad_())
        (g,) = torch.autograd.grad(loss(weights, X.detach(), labels), weights)
        weights = weights.detach() - lr * g
    scale = (start.detach() - target).square().sum()
    gap = weights - target
    adjoint, d_lr = 2 * gap / scale, torch.zeros_like(lr)
    d_batches: list[Tensor] = []
    for weights, (X, labels) in zip(reversed(path), reversed(batches), strict=True):
        X = X.detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(weights, X, labels), weights, create_graph=True)
        v = g @ adjoint
        d_weights, d_X = torch.autograd.grad(v, (weights, X))
        adjoint, d_lr = adjoint - lr * d_weights, d_lr - v.detach()
        d_batches.insert(0, -lr * d_X)
    return gap.square().sum() / scale, d_batches, d_lr


class Experts:
    """Networks trained on the real data, their weights kept after each epoch in `task.store`, an entry an epoch.

    An entry that is there is used, whoever made it, so a longer run goes on where a shorter one ended; one that is damaged
    is made again, with those after it. An epoch's random streams are its own.
    """

    def __init__(self, task: Task, config: MTTSettings, net: nn.Module, epochs: int) -> None:
        self.task, self.config, self.net, self.epochs = task, config, net, epochs
        self.run = task.engine.wrap(net)
        self.optimiser = torch.optim.SGD(net.parameters(), config.expert_lr)
        self.size = sum(p.numel() for p in net.parameters())
        self.seconds = 0.0

    def prepare(self, report: Report = silent) -> float:
        """Train what is not there; returns the seconds that all took, also those that were there."""
        self.seconds, there = 0.0, 0
        for expert in range(self.config.experts):
            weights, whole = None, True
            for epoch in range(self.epochs + 1):
                found = self.kept(expert, epoch) if whole else None
                if found is None:
                    whole, found = False, self.made(expert, epoch, weights, report)
                there += whole and epoch > 0
                weights, self.seconds = found["weights"], self.seconds + float(found["seconds"])
        if there:
            report(Note(f"{there} of {self.config.experts * self.epochs} epochs of experts were there already."))
        report(Done(PHASE, self.seconds))
        return self.seconds

    def weights(self, expert: int, epoch: int) -> Tensor:
        """θ* of an expert after an epoch, flat (P,), on the device."""
        found = self.kept(expert, epoch)
        if found is None:
            raise RunError("The trajectory of an expert is gone or damaged.", "Resume the run: it will be made again.")
        return found["weights"].to(self.task.engine.device, copy=True)

    def kept(self, expert: int, epoch: int) -> dict[str, Tensor] | None:
        """An entry of the store, or None where it is missing or cannot be one."""
        found = self.task.store.load(self.entry(expert, epoch)) or {}
        weights, seconds = found.get("weights"), found.get("seconds")
        if weights is None or seconds is None or weights.shape != (self.size,) or seconds.shape != ():
            return None
        sound = weights.dtype == torch.float32 and finite(weights) and 0 <= float(seconds) < float("inf")
        return found if sound else None

    def entry(self, expert: int, epoch: int) -> str:
        """The name of an entry: everything that decides on its weights is in it, but for the dataset, which has a store of
        its own."""
        c, task, data = self.config, self.task, self.task.real.data
        source = (len(data), data.num_classes, data.shape, data.mean, data.std, task.flip)
        training = (c.expert_lr, c.expert_batch, c.expert_images, c.width, c.doubling_widths, c.norm)
        digest = hashlib.sha256(repr((1, source, training, task.seed, task.engine.describe())).encode()).hexdigest()[
            :16
        ]
        return f"expert-{digest}-{expert:03d}-{epoch:03d}"

    def made(self, expert: int, epoch: int, before: Tensor | None, report: Report) -> dict[str, Tensor]:
        """A new entry, kept: fresh weights for epoch 0, else those `before` after an epoch of training."""
        started, rng = time.perf_counter(), self.task.engine.rng(self.task.seed, "expert", expert, epoch)
        if before is None:
            initialise(self.net, rng, "torch")
        else:
            with torch.no_grad():
                for p, value in zip(self.net.parameters(), unflatten(before, self.net).values(), strict=True):
                    p.copy_(value)
            loss = self.train(expert, epoch, rng)
            report(Step(PHASE, expert * self.epochs + epoch, self.config.experts * self.epochs, {"loss": loss}))
        weights = torch.cat([p.detach().flatten() for p in self.net.parameters()]).cpu()
        if not finite(weights):
            raise DivergedError(
                f"An expert's weights are not finite after epoch {epoch}.", "Lower 'baseline.expert_lr', or try fp32."
            )
        seconds = torch.tensor(time.perf_counter() - started, dtype=torch.float64)
        self.task.store.save(self.entry(expert, epoch), entry := {"weights": weights, "seconds": seconds})
        return entry

    def train(self, expert: int, epoch: int, rng: torch.Generator) -> float:
        """One epoch of the network; returns its mean loss."""
        task, labels, size = self.task, self.task.real.data.labels, self.config.expert_batch
        augment = augmentation("dsa", task.flip, task.host_rng("expert", expert, epoch), rng)
        rows, losses = self.images(expert), []
        for part in rows[torch.randperm(len(rows), generator=rng, device=rows.device)].split(size):
            loss = F.cross_entropy(self.run(augment(task.real.at(part)[0])), labels[part])
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            losses.append(loss.detach())
        return torch.stack(losses).mean().item()

    def images(self, expert: int) -> Tensor:
        """Rows of the real images that an expert is trained on."""
        data = self.task.real.data
        if self.config.expert_images is None:
            return torch.arange(len(data), device=data.labels.device)
        each = min(self.config.expert_images // data.num_classes, int(data.class_counts().min()))
        return draw_per_class(data, each, self.task.host_rng("images of expert", expert))


def unflatten(weights: Tensor, net: nn.Module) -> dict[str, Tensor]:
    """Flat weights (P,) as views in the shapes of the network's parameters, by name."""
    parameters = dict(net.named_parameters())
    parts = weights.split([p.numel() for p in parameters.values()])
    return {name: part.view(p.shape) for (name, p), part in zip(parameters.items(), parts, strict=True)}
