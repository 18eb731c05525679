"""IDC: gradient matching with several images of lower resolution in each stored one.

    min_S  Σ_c D( ∇_θ L(A(T_c); θ), ∇_θ L(A(decode(S_c)); θ) ),   D: of the convolutions' weights, Σ (a − b)² or Σ |a − b|

with θ from networks on their way through real data ("Dataset Condensation via Efficient Synthetic-Data Parameterization",
Kim et al., ICML 2022). There an update follows each class; here one update follows all of them: a class has rows of its own.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.config import AtLeastOne, Count, Factor, NotNegative, Values, checked
from ddtool.data.augment import FAMILIES, Draw, cutmix
from ddtool.data.parts import decode
from ddtool.errors import UsageError
from ddtool.methods.base import InnerNetwork, Settings, Standard, Task
from ddtool.methods.gradient_matching import GradientMatching, Matching, Together
from ddtool.methods.record import Record


@checked
class IDCSettings(Settings):
    """IDC as published; IDC-I is `factor` 1."""

    steps: Count = 200_000
    """Updates of the whole synthetic set: 2000 networks x `inner`."""
    factor: Factor = 2
    """Each stored image holds factor x factor images that networks see at full size."""
    lr: NotNegative | None = None
    """The learning rate of the images' SGD, for pixels in [0, 1]. By case: 5e-3 · IPC/10 on colour, 1e-4 · IPC/10 on grey."""
    lr_times: NotNegative = 1.0
    """Ours: a factor on the rate by case, for short budgets."""
    momentum: NotNegative = 0.5
    """The momentum of the images' SGD."""
    real_batch: AtLeastOne = 64
    """Real images of every class in a step."""
    synthetic_batch: AtLeastOne = 128
    """The most decoded images of every class in a step; of more, a random part."""
    inner: AtLeastOne = 100
    """Steps on one network before a fresh one."""
    real_images: Count | None = None
    """Real images in the network's one pass after each of these steps but the last. By case: 2000 on colour, 500 on grey."""
    net_batch: AtLeastOne = 64
    """Real images in one update of the network."""
    net_lr: NotNegative = 0.01
    """The learning rate of the network's SGD."""
    net_momentum: NotNegative = 0.9
    """The momentum of the network's SGD."""
    weight_decay: NotNegative = 5e-4
    """The weight decay of the network's SGD."""
    cutmix: NotNegative | None = None
    """How often a batch of the network's is mixed by CutMix. By case: 0.5; on MNIST, with a factor of 2 and more, never."""
    cutout: bool | None = None
    """Whether a square is cut out of the images that are compared. By case: yes; on MNIST, with a factor of 2 and more, not."""
    standardise: Standard = "published"
    """Mean and deviation of the images that networks see; steps are on pixels in [0, 1] in any case."""


class IDC(GradientMatching):
    """The network is trained on real images between the steps.

    Stored images are standardised, and whitened where the target is only after `decode`: an enlarged part of a whitened image would
    not be the whitened part. Gradients pass the whitening unchanged, which is ours: multiplied by its matrix, as the chain rule has
    it, they would move high frequencies many times faster than low ones (docs/log.md).
    """

    record = Record(
        name="idc",
        title="IDC (Kim et al., 2022)",
        paper="Kim et al., ICML 2022",
        settings=IDCSettings,
        divided=True,
        quick_settings={"real_batch": 32, "real_images": 256, "lr_times": 60.0, "standardise": "measured"},
        factor=2,
        own_protocol="idc-ce",
        colour="#ca00b6",
        marker="P",
    )

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        self.factor = settings.factor
        channels, *sides = task.real.data.shape
        if self.factor > min(sides):
            raise UsageError(f"Setting 'baseline.factor' is {self.factor}, images have {sides} pixels.", "Try 2.")
        self.grey = channels == 1
        published_lr, published_images = (1e-4, 500) if self.grey else (5e-3, 2000)
        self.lr = published_lr * settings.lr_times * task.ipc / 10 if settings.lr is None else settings.lr
        self.real_images = published_images if settings.real_images is None else settings.real_images
        mixes = not (task.dataset == "mnist" and self.factor > 1)
        self.cutmix = 0.5 * mixes if settings.cutmix is None else settings.cutmix
        cutout = mixes if settings.cutout is None else settings.cutout
        self.operations = ("colour", "crop", *["cutout"] * cutout)
        self.X = self.initial_images()
        self.optimiser = torch.optim.SGD([self.X], self.lr, settings.momentum)
        sgd = (settings.net_lr, settings.net_momentum, settings.weight_decay)
        self.inner_network = InnerNetwork(self.network(), "sgd", *sgd)
        distance = "absolute" if self.grey else "squared"
        self.matching = Matching(self.inner_network.net, "convolutions", distance, task.engine)

    def initial_images(self) -> Tensor:
        """With real images, the task's own come first in each stored image; the others are drawn."""
        if self.config.init == "noise":
            return super().initial_images()
        task, others = self.task, self.factor**2 - 1
        rows = task.rows
        if others:
            drawn = task.real.sampler(others * len(rows), self.rng)  # by class
            rows = torch.cat([rows, drawn.view(task.num_classes, -1).T.flatten()])
        images = task.real.inputs.standardise(task.real.data.at(rows))
        return encode(images, self.factor).requires_grad_()

    def seen(self, S_c: Tensor) -> Tensor:
        images = decode(S_c, self.factor)
        if len(images) > self.config.synthetic_batch:
            chosen = torch.randperm(len(images), generator=self.rng, device=images.device)
            images = images[chosen[: self.config.synthetic_batch]]
        whitened = self.task.real.inputs.whiten(images.detach())
        return whitened + (images - images.detach())

    def project(self) -> None:
        self.X.copy_(self.task.real.inputs.cut(self.X))

    def pixels(self) -> Tensor:
        return self.task.real.inputs.pixels(self.X.detach())

    def together(self, step: int) -> Together:
        draw = Draw(self.rng, siamese=True)
        return lambda batches: list(
            augmented(torch.cat(list(batches)), draw, *self.operations).split([len(b) for b in batches])
        )

    def gradient(self, step: int) -> Tensor:
        """With respect to pixels in [0, 1], times what makes a step on standardised images the same step."""
        loss = super().gradient(step)
        assert self.X.grad is not None
        self.X.grad /= self.task.real.inputs.std.square()
        return loss

    def after_step(self, step: int) -> None:
        """A fresh network after `inner` steps, else one pass over some real images, augmented and half of them mixed."""
        if (step + 1) % self.config.inner == 0:
            return self.inner_network.reset(self.rng)
        real, host_rng = self.task.real, self.task.host_rng("cutmix", step)
        rows = torch.randperm(len(real.data), generator=self.rng, device=self.X.device)[: self.real_images]
        for part in rows.split(self.config.net_batch) if self.real_images else ():
            X = augmented(real.at(part)[0], Draw(self.rng), "colour", "crop")
            Y = F.one_hot(real.data.labels[part], self.task.num_classes).float()
            X, Y = cutmix(X, Y, self.cutmix, host_rng, self.rng)
            self.inner_network.update(F.cross_entropy(self.matching.forward(X), Y))

    def facts(self) -> Values:
        return {"factor": self.factor, "lr": self.lr, "real_images": self.real_images}


def encode(images: Tensor, factor: int) -> Tensor:
    """`decode`'s counterpart: images (m·factor², c, h, w) averaged down into the parts of m images (m, c, h, w)."""
    groups = iter(images.chunk(factor**2))
    heights, widths = ([len(part) for part in torch.arange(side).tensor_split(factor)] for side in images.shape[2:])
    bands = [torch.cat([F.interpolate(next(groups), size=(h, w), mode="area") for w in widths], 3) for h in heights]
    return torch.cat(bands, 2).contiguous(memory_format=torch.channels_last)


def augmented(images: Tensor, draw: Draw, *names: str) -> Tensor:
    """DSA's operations of these names one after the other."""
    for name in names:
        images = FAMILIES["dsa"][name](images, draw)
    return images.contiguous(memory_format=torch.channels_last)
