"""What a method of the field is here: a `Task` goes in, learned images and labels come out; a step is one optimiser update
of the whole synthetic set.

The letters are those of `mgdd.py`. A method never sees a path, a terminal or the Hub.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Protocol

import torch
from pydantic import AfterValidator
from torch import Tensor

from ddtool.config import AtLeastOne, Count, Values, checked
from ddtool.data.batches import Real
from ddtool.events import Report, silent
from ddtool.methods.record import Registered
from ddtool.models.convnet import ConvNet, depth_for, doubling_widths, initialise, known_norm
from ddtool.runtime.engine import Engine, frozen_random_state, seeded_generator
from ddtool.runtime.loop import Loop, Saver


class Store(Protocol):
    """Where a method keeps what it makes once for a dataset and uses again (MTT's experts)."""

    def load(self, name: str) -> dict[str, Tensor] | None:
        """The tensors kept under a name, or None."""

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        """Keep tensors under a name."""


class Memory:
    """A store that lasts as long as the process."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Tensor]] = {}

    def load(self, name: str) -> dict[str, Tensor] | None:
        return self.kept.get(name)

    def save(self, name: str, tensors: dict[str, Tensor]) -> None:
        self.kept[name] = tensors


CIFAR = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
"""Mean and standard deviation by channel that the code of DC, DSA, DM, IDC and MTT standardises both CIFARs by. The deviation of
all pixels of CIFAR-10 is 0.247, 0.244, 0.262; for MNIST and FashionMNIST theirs are those of all pixels, as here."""
STANDARDS = {"cifar10": CIFAR, "cifar100": CIFAR}
"""By the name of a dataset."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """What every method is given: the target on the device, and the same real images to start from.

    rows: indices of `ipc` distinct images per class, image-major;  flip: whether images keep their class when flipped left-right.
    """

    real: Real
    ipc: int
    rows: Tensor
    flip: bool
    engine: Engine
    seed: int
    store: Store = field(default_factory=Memory)

    @property
    def num_classes(self) -> int:
        return self.real.data.num_classes

    @property
    def dataset(self) -> str:
        """What the dataset is called, in small letters and digits, without owner, folder and revision."""
        source = self.real.data.source
        name = str(source.get("id") or source.get("name") or "").partition("@")[0]
        return re.sub(r"[\W_]", "", re.split(r"[/\\]", name.rstrip("/\\"))[-1].lower())

    def as_published(self) -> "Task":
        """The task with images standardised by what the authors' code takes, where that is known and networks see no whitened
        ones: so steps on pixels, and augmentation, are as large as there. SGD's steps grow with the square of the deviation."""
        data = self.real.data
        if data.whitening is not None or self.dataset not in STANDARDS:
            return self
        mean, std = STANDARDS[self.dataset]
        data = replace(data, mean=mean, std=std)
        return replace(self, real=replace(self.real, data=data, inputs=data.transform))

    def start(self) -> tuple[Tensor, Tensor]:
        """The images at `rows` as networks see them, (m, c, h, w), with centred one-hot labels (m, C)."""
        return self.real.at(self.rows)

    def classes(self) -> Tensor:
        """The class of each row of S, (m,)."""
        return self.real.data.labels[self.rows]

    def noise(self, rng: torch.Generator) -> Tensor:
        """Standard normal images of S's shape, channels last."""
        shape = (len(self.rows), *self.real.data.shape)
        X = torch.randn(shape, generator=rng, device=self.engine.device)
        return X.contiguous(memory_format=torch.channels_last)

    def host_rng(self, *purpose: str | int) -> torch.Generator:
        """A generator on the CPU for one purpose, such as the augmentation of a step: nothing of it needs saving."""
        return seeded_generator("cpu", self.seed, *purpose)


Norm = Annotated[str, AfterValidator(known_norm)]
"""The name of a norm layer."""
Init = Literal["real", "noise"]
"""What synthetic images are at the start."""
Standard = Literal["measured", "published"]
"""By what images are standardised."""


@checked
class Settings:
    """What all methods can be told. Each has a subclass, also `checked`, with its published values as defaults."""

    steps: Count = 1000
    """Updates of the whole synthetic set."""
    width: AtLeastOne = 128
    """Channels of the distillation network: in every block, or of the last one with `doubling_widths`."""
    doubling_widths: bool = False
    """Half the channels in each earlier block (32-64-128), as MGDD's random networks have it. Ours: a quarter of the time."""
    norm: Norm = "instance"
    """Norm layer of the distillation network: none, instance or batch."""
    init: Init = "real"
    """The synthetic images at the start: real or noise."""
    standardise: Standard = "measured"
    """Mean and deviation of the images that networks see and steps are on: measured, or on CIFAR those of the authors' code
    (`Task.as_published`)."""


class Method(Registered, ABC):
    """A method that is run by its steps. Subclasses have a `record`, build all their tensors in `__init__`, and change them in
    place only."""

    X: Tensor
    """The stored synthetic images as networks see them, (m, c, h, w), a leaf: image-major, as `task.rows`."""
    optimiser: torch.optim.Optimizer
    """Over what is learned."""
    factor: int
    """Each stored image holds factor x factor images of lower resolution: as the record says, or a setting."""
    norm_first: ClassVar[bool] = False
    """Whether its networks have their norm layers before the convolutions, as `ConvNet` says."""

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        self.task = task.as_published() if settings.standardise == "published" else task
        self.config, self.rng = settings, rng
        self.factor = self.record.factor

    def prepare(self, report: Report = silent) -> float:
        """What is made once before the steps (experts); returns the seconds that it took, or took when it was made."""
        return 0.0

    @abstractmethod
    def gradient(self, step: int) -> Tensor:
        """Leave the gradient of one step in `.grad` of what the optimiser holds; returns the loss, detached."""

    def project(self) -> None:
        """Pixels back into [0, 1] after each update, where images are not whitened. Ours where the paper does not clamp: a set has
        to be viewable."""
        self.task.real.inputs.bound_(self.X)

    def after_step(self, step: int) -> None:
        """Work after the update of a step that is not the step: training of networks. Timed apart."""

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """Everything that a step changes, by name: what is learned, networks in training and their optimisers."""

    def result(self) -> tuple[Tensor, Tensor]:
        """Stored images (m, c, h, w) and centred labels (m, C) as they stand; hard labels unless a method learns them."""
        return self.X.detach(), self.task.start()[1]

    def pixels(self) -> Tensor:
        """The stored images as pixels, cut to [0, 1]."""
        return self.task.real.inputs.inverse(self.X.detach())

    @property
    def label_method(self) -> str:
        """How the labels of the result were found, as `SyntheticSet.label_method` has it."""
        return "learned" if self.record.soft else "hard"

    def learned_lr(self) -> float | None:
        """The learning rate for cross-entropy that was learned with the images; None where none was."""
        return None

    def facts(self) -> Values:
        """Further figures worth recording, by name."""
        return {}

    def network(self, norm: str | None = None) -> ConvNet:
        """A ConvNet of the settings' shape on the device; its weights are to be drawn."""
        data, config = self.task.real.data, self.config
        depth = depth_for(data.shape)
        widths: Sequence[int] = (
            doubling_widths(config.width, depth) if config.doubling_widths else (config.width,) * depth
        )
        with frozen_random_state():
            net = ConvNet(data.shape, data.num_classes, widths, norm or config.norm, self.norm_first)
        net = self.task.engine.place(net)
        initialise(net, self.rng, "torch")
        return net

    def initial_images(self) -> Tensor:
        """The images of S at the start by `settings.init`, a leaf that requires a gradient."""
        X = self.task.noise(self.rng) if self.config.init == "noise" else self.task.start()[0]
        return X.clone().requires_grad_()


class InnerNetwork:
    """A network in training whose whole state are tensors that change in place, so that a checkpoint holds it.

    kind: 'sgd' (lr, momentum, weight_decay) or 'adam' (lr).
    """

    def __init__(self, net: ConvNet, kind: str, lr: float, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        self.net = net
        self.optimiser: torch.optim.Optimizer = (
            torch.optim.SGD(net.parameters(), lr, momentum, weight_decay=weight_decay)
            if kind == "sgd"
            else torch.optim.Adam(net.parameters(), lr, weight_decay=weight_decay)
        )
        for p in net.parameters():
            if kind == "adam":
                step = torch.zeros((), dtype=torch.float32)
                self.optimiser.state[p] = {
                    "step": step, "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)
                }  # fmt: skip
            elif momentum:
                self.optimiser.state[p] = {"momentum_buffer": torch.zeros_like(p)}

    @torch.no_grad()
    def reset(self, rng: torch.Generator, scheme: str = "torch") -> None:
        """Fresh weights; the optimiser forgets."""
        initialise(self.net, rng, scheme)
        for state in self.optimiser.state.values():
            for value in state.values():
                value.zero_()

    def update(self, loss: Tensor) -> None:
        """One step of the network down the gradient of `loss`."""
        parameters = list(self.net.parameters())
        for p, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            p.grad = gradient
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)

    def tensors(self, prefix: str) -> dict[str, Tensor]:
        """Weights, buffers and the optimiser's state, named below `prefix`."""
        out = {f"{prefix}.{name}": value for name, value in self.net.state_dict(keep_vars=True).items()}
        for i, p in enumerate(self.net.parameters()):
            out |= {f"{prefix}.{key}.{i}": value for key, value in self.optimiser.state.get(p, {}).items()}
        return out


@dataclass(frozen=True)
class Spent:
    """What a method took: its steps, seconds in them, and seconds of overhead (inner networks, experts)."""

    steps: int
    step_seconds: float
    overhead_seconds: float


def distil(
    method: Method,
    seconds: float | None = None,
    report: Report = silent,
    saver: Saver | None = None,
    phase: str = "distil",
    visit: Callable[[Loop], None] = lambda loop: None,
) -> Spent:
    """Run a method for its `settings.steps` steps, or for `seconds` of wall clock instead (what `prepare` takes is beside
    both); it resumes from the saver's checkpoint. A budget in steps gives the same bits again, one in seconds does not.
    `visit`: as `Loop` says."""
    prepared = method.prepare(report)
    if not method.record.learns:
        return Spent(0, 0.0, prepared)
    loop = Loop(
        phase, method.config.steps, method.tensors(), method.optimiser, method.rng, report, saver,
        min_lr_ratio=method.record.min_lr_ratio, limit=seconds, visit=visit,
    )  # fmt: skip
    synchronise, idle = method.task.engine.synchronise, type(method).after_step is Method.after_step
    for step in loop:
        method.optimiser.zero_grad(set_to_none=True)
        loop.apply(method.gradient(step))
        with torch.no_grad():
            method.project()
        if idle:
            continue
        with loop.untimed(synchronise):
            method.after_step(step)
    return Spent(loop.step, loop.seconds - loop.overhead, loop.overhead + prepared)
