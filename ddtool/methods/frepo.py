"""FRePo: feature regression with a pool of networks (Zhou, Nezhadarya and Ba, NeurIPS 2022).

A set is as good as the ridge regression on features that it trains: with K the Gram matrices of a network's last features,

    Ŷ = K_ts (K_ss + λ·tr(K_ss)/m·I)⁻¹ Y_s,    L = mean_t ½‖Ŷ − Y_t‖² − mean_s min(top1 − top2, 1/C),

where top1 and top2 are the two largest entries of a learned label. The networks are a pool of different ages: each step takes
one of them at random, moves S down the gradient of L, and then the network by one step of training on S.

Batch norm stands before every convolution but the first. In training it takes the statistics of the synthetic batch; for the
kernel, of real and synthetic images alike, those that training left: nine tenths of the last batch's, a tenth of what was before.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.config import AtLeastOne, Count, NotNegative, checked
from ddtool.data.batches import balanced_part, with_flips
from ddtool.methods.base import InnerNetwork, Method, Norm, Settings, Task
from ddtool.methods.record import Record
from ddtool.models.ridge import ridge_head

LAST = 0.9
"""How much of the running statistics of batch norm is the last batch's."""


@checked
class FRePoSettings(Settings):
    """Published values, but for the width: the paper's networks are 128-256-512, ours the field's 128-128-128."""

    steps: Count = 500_000
    """Updates of the whole synthetic set."""
    norm: Norm = "batch"
    """Norm layer of the pool's networks; evaluation has none."""
    real_batch: AtLeastOne = 1024
    """Real images a step, the same number of each class."""
    synthetic_batch: AtLeastOne = 1000
    """Synthetic images a step at most, the same of every class (flipped ones come on top). In the authors' code, in training only;
    ours for the kernel as well: it bounds memory."""
    flips: bool | None = None
    """Whether flipped copies of S stand beside it in the kernel, where images keep their class when flipped. By case: yes; with 100
    classes and more at IPC 1 alone, with 1,000 never."""
    ridge: NotNegative = 1e-6
    """λ, relative to the mean of K_ss's diagonal."""
    lr_images: NotNegative = 3e-4
    """Adam's learning rate of the images."""
    lr_labels: NotNegative = 3e-4
    """Adam's learning rate of the labels."""
    networks: AtLeastOne = 10
    """Networks in the pool."""
    lr_network: NotNegative = 3e-4
    """Adam's learning rate of the networks."""
    updates: AtLeastOne = 100
    """A network starts afresh after so many updates of its own."""


class FRePo(Method):
    """Feature regression on a pool of networks that train on S: images and labels are learned."""

    record = Record(
        name="frepo",
        title="FRePo (Zhou et al., 2022)",
        paper="Zhou, Nezhadarya and Ba, NeurIPS 2022",
        settings=FRePoSettings,
        quick_settings={"real_batch": 256, "lr_images": 0.03, "lr_labels": 0.01},
        min_lr_ratio=0.01,
        soft=True,
        colour="#9529ff",
        marker="D",
    )

    norm_first = True

    def __init__(self, task: Task, settings: FRePoSettings, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        usual = usual_flips(task.num_classes, task.ipc)
        self.flips = task.flip and (usual if settings.flips is None else settings.flips)
        self.X, self.Y = self.initial_images(), (task.start()[1] / self.label_scale).requires_grad_()
        groups = [{"params": [self.X], "lr": settings.lr_images}, {"params": [self.Y], "lr": settings.lr_labels}]
        self.optimiser = torch.optim.Adam(groups)
        self.pool = [self.inner_network() for _ in range(settings.networks)]
        self.features = [task.engine.wrap(inner.net.features) for inner in self.pool]
        self.predict = [task.engine.wrap(inner.net) for inner in self.pool]
        self.ages = torch.arange(settings.networks) * settings.updates // settings.networks  # on the host, staggered

    @property
    def label_scale(self) -> float:
        """√(C/10): the synthetic labels are divided by it while they are learned."""
        return math.sqrt(self.task.num_classes / 10)

    def inner_network(self) -> InnerNetwork:
        """A fresh network of the pool."""
        net = self.network()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = LAST
        inner = InnerNetwork(net, "adam", self.config.lr_network)
        inner.reset(self.rng, "lecun")
        return inner

    def drawn(self, step: int) -> int:
        """Which network of the pool a step takes."""
        return int(torch.randint(len(self.pool), (1,), generator=self.task.host_rng("frepo network", step)))

    def synthetic(self) -> tuple[Tensor, Tensor]:
        """S, or a random part of at most `synthetic_batch` images."""
        return balanced_part(self.X, self.Y, self.Y.shape[1], self.config.synthetic_batch, self.rng)

    def gradient(self, step: int) -> Tensor:
        k = self.drawn(step)
        self.pool[k].net.eval()
        f = self.features[k]
        X_t, Y_t = self.task.real.batch(self.config.real_batch, self.rng)
        with torch.no_grad():
            F_t = f(X_t)
        X_s, Y_s = with_flips(*self.synthetic(), self.flips)
        loss = regression_loss(F_t, Y_t, f(X_s), Y_s, self.config.ridge) - margin(Y_s)
        loss.backward(inputs=[self.X, self.Y])
        return loss.detach()

    def after_step(self, step: int) -> None:
        """One step of training of the network that the step took, on S; after `updates` of its own it starts afresh."""
        k = self.drawn(step)
        self.pool[k].net.train()
        with torch.no_grad():
            X_s, Y_s = self.synthetic()
        self.pool[k].update(F.mse_loss(self.predict[k](X_s), Y_s))
        self.ages[k] += 1
        if self.ages[k] >= self.config.updates:
            self.pool[k].reset(self.rng, "lecun")
            self.ages[k] = 0

    def tensors(self) -> dict[str, Tensor]:
        out = {"X": self.X, "Y": self.Y, "ages": self.ages}
        for k, inner in enumerate(self.pool):
            out |= inner.tensors(f"network.{k}")
        return out

    def result(self) -> tuple[Tensor, Tensor]:
        """The images, and the labels at the scale where a hard one is one-hot − 1/C."""
        return self.X.detach(), self.Y.detach() * self.label_scale


def regression_loss(F_t: Tensor, Y_t: Tensor, F_s: Tensor, Y_s: Tensor, ridge: float) -> Tensor:
    """mean_t ½‖Ŷ − Y_t‖² for features F_t (n, d), F_s (m, d), labels Y_t (n, C), Y_s (m, C).

    The shift is λ·tr(K_ss)/m also where m > d. Gram matrix and solve are float64: at λ = 1e-6 float32 is off by half a
    percent for 1,000 images, and fails where images are alike. Where float64 fails, too, the loss is not a number, which
    the loop reports. Features may be bf16's: their gradient keeps its direction (cosine 0.997).
    """
    m, d = F_s.shape
    W = ridge_head(F_s.double(), Y_s.double(), ridge * min(m, d) / m)  # (d, C)
    return 0.5 * (F_t.double() @ W - Y_t).square().sum(1).mean().float()


def usual_flips(C: int, ipc: int) -> bool:
    """Whether flipped copies of S stand in the kernel, by the authors' code: of CIFAR-100 and Tiny ImageNet at IPC 1 only, of
    ImageNet never."""
    return C < 100 or (C < 1000 and ipc == 1)


def margin(Y: Tensor) -> Tensor:
    """How far a label's largest entry is above the second, at most 1/C, mean over the rows of Y (m, C)."""
    top = Y.topk(2, dim=1).values
    return (top[:, 0] - top[:, 1]).clamp_max(1 / Y.shape[1]).mean()
