"""Real images instead of synthetic ones: at random, by herding, as the centres of a cover, or by how hard they are to learn.

With `labels` fitted, they have the labels that MGDD fits to its own images: so one sees what labels do, and what choosing does.
"""

import time
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.config import AtLeastOne, Count, FitConfig, NotNegative, checked
from ddtool.data.batches import in_chunks
from ddtool.events import Report, silent
from ddtool.methods.base import InnerNetwork, Method, Norm, Settings, Task
from ddtool.methods.mgdd import fitted_labels
from ddtool.methods.record import Record, Variant
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths

QUICK = {"fit_networks": 8}
"""Networks that labels are fitted on in minutes, as MGDD has it there."""


@checked
class SelectionSettings(Settings):
    """No steps."""

    steps: Count = 0
    """There are none."""
    norm: Norm = "none"
    """Norm layer of the network whose features are compared. Ours."""
    doubling_widths: bool = True
    """As MGDD's random networks. Ours: the literature takes a network trained on the whole dataset."""
    labels: Literal["hard", "fitted"] = "hard"
    """The classes, or fitted in closed form to the chosen images over random networks, as MGDD's are."""
    fit_networks: AtLeastOne = FitConfig().networks
    """Random networks that labels are fitted on."""


@checked
class EL2NSettings(SelectionSettings):
    """The settings of EL2N, which trains networks for a while."""

    norm: Norm = "instance"
    """Norm layer of the networks. Ours; the paper trains ResNets."""
    networks: AtLeastOne = 10
    """Networks over which an image's score is averaged."""
    epochs: AtLeastOne = 20
    """Passes over the real images before scores are taken."""
    net_lr: NotNegative = 0.01
    """SGD's learning rate, with momentum 0.9. Ours."""
    net_batch: AtLeastOne = 256
    """Real images a step."""
    keep: Literal["hard", "easy"] = "hard"
    """The images with the highest scores, or with the lowest, which do better where few are kept."""


def named(name: str, title: str, **more: Any) -> Record:
    """The record of a selection, which a comparison can run with hard and with fitted labels."""
    with_labels = Variant(name=f"{name}+labels", title=f"{title}, fitted labels", settings={"labels": "fitted"})
    variants = (Variant(name=name, title=title), with_labels)
    plain = Record(name=name, title=title, learns=False, settings=SelectionSettings, quick_settings=QUICK)
    return replace(plain, variants=variants, **more)


class Selection(Method):
    """What selections have in common: which images they take, and how those are labelled."""

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        self.X, self.Y = task.start()

    @abstractmethod
    def chosen(self) -> Tensor:
        """The rows of the real images that are taken, (m,), image-major."""

    def prepare(self, report: Report = silent) -> float:
        started = time.perf_counter()
        self.X, _ = self.task.real.at(self.chosen())
        if self.config.labels == "fitted":
            fit = FitConfig(networks=self.config.fit_networks, flip=self.task.flip)
            self.Y = fitted_labels(self.X, self.features("none"), self.task.real, fit, self.rng)
        self.task.engine.synchronise()
        return time.perf_counter() - started

    def features(self, norm: str | None = None) -> RandomFeatures:
        """A random network of the settings' shape, its weights drawn; labels are fitted without a norm layer, as MGDD's."""
        shape = self.task.real.data.shape
        widths = doubling_widths(self.config.width, depth_for(shape))
        widths = widths if self.config.doubling_widths else (self.config.width,) * len(widths)
        return RandomFeatures(shape, widths, norm or self.config.norm, self.task.engine, self.rng)

    def by_class(self, choose: Callable[[Tensor, int], Tensor]) -> Tensor:
        """Rows, image-major, `ipc` of each class, by `choose`: rows of a class (n,) and a number k ≤ n → positions in them (k,).

        Of a class that holds fewer they come again, in turn.
        """
        labels, ipc, taken = self.task.real.data.labels, self.task.ipc, []
        for label in range(self.task.num_classes):
            rows = (labels == label).nonzero().flatten()
            chosen = rows[choose(rows, min(ipc, len(rows)))]
            taken.append(chosen.repeat(-(-ipc // len(chosen)))[:ipc])
        return torch.stack(taken, 1).flatten()

    def result(self) -> tuple[Tensor, Tensor]:
        return self.X.detach(), self.Y

    @property
    def label_method(self) -> str:
        return str(self.config.labels)

    def gradient(self, step: int) -> Tensor:
        raise NotImplementedError("A selection has no steps.")

    def tensors(self) -> dict[str, Tensor]:
        return {}


class Random(Selection):
    """Real images drawn at random: what every method has to beat."""

    record = named("random", "random real images")

    def chosen(self) -> Tensor:
        return self.task.rows


class Herding(Selection):
    """The images of each class, one after the other, that bring the mean of the chosen features nearest to the class's."""

    record = named("herding", "herding (Welling, 2009)", paper="Welling, ICML 2009")

    def chosen(self) -> Tensor:
        f = self.features()
        return self.by_class(lambda rows, k: herd(self.of(f, rows), k))

    def of(self, f: RandomFeatures, rows: Tensor) -> Tensor:
        """Features of the real images at rows, (n, d)."""
        with torch.no_grad():
            return in_chunks(lambda part: f(self.task.real.at(part)[0]), rows)


class KCentre(Herding):
    """The images of each class, one after the other, that are farthest from those chosen already, in the features."""

    record = named("k-centre", "k-centre (Sener and Savarese, 2018)", paper="Sener and Savarese, ICLR 2018")

    def chosen(self) -> Tensor:
        f = self.features()
        return self.by_class(lambda rows, k: centres(self.of(f, rows), k))


class EL2N(Selection):
    """The images of each class with the largest mean ‖softmax − one-hot‖₂ over networks early in their training."""

    record = replace(
        named("el2n", "EL2N (Paul et al., 2021)", paper="Paul, Ganguli and Dziugaite, NeurIPS 2021"),
        settings=EL2NSettings,
        quick_settings=QUICK | {"networks": 1, "epochs": 3},
    )

    def chosen(self) -> Tensor:
        scores = torch.stack([self.errors() for _ in range(self.config.networks)]).mean(0)
        largest = self.config.keep == "hard"
        return self.by_class(lambda rows, k: scores[rows].topk(k, largest=largest).indices)

    def errors(self) -> Tensor:
        """EL2N of every real image by one fresh network after its epochs, (n,)."""
        real, config = self.task.real, self.config
        labels, n = real.data.labels, len(real.data.labels)
        inner = InnerNetwork(self.network(), "sgd", config.net_lr, 0.9)
        run = self.task.engine.wrap(inner.net)
        for _ in range(config.epochs):
            for rows in torch.randperm(n, generator=self.rng, device=self.rng.device).split(config.net_batch):
                inner.update(F.cross_entropy(run(real.at(rows)[0]), labels[rows]))
        everything = torch.arange(n, device=labels.device)
        with torch.no_grad():
            p = in_chunks(lambda rows: run(real.at(rows)[0]), everything).float().softmax(1)
        return (p - F.one_hot(labels, self.task.num_classes)).norm(dim=1)


def herd(features: Tensor, k: int) -> Tensor:
    """Indices (k,) of rows of features (n, d), greedily chosen so that their mean comes nearest to the mean of all; none twice."""
    mean, total = features.mean(0), torch.zeros_like(features[0])
    free = torch.zeros(len(features), device=features.device)
    chosen = []
    for count in range(1, k + 1):
        distance = (mean - (total + features) / count).square().sum(1) + free
        best = distance.argmin()
        free[best] = float("inf")
        total = total + features[best]
        chosen.append(best)
    return torch.stack(chosen)


def centres(features: Tensor, k: int) -> Tensor:
    """Indices (k,) of rows of features (n, d): the one nearest to the mean, then each time the farthest from those; none twice."""
    best = (features - features.mean(0)).square().sum(1).argmin()
    nearest = torch.full((len(features),), float("inf"), device=features.device)
    chosen = [best]
    for _ in range(k - 1):
        nearest = torch.minimum(nearest, (features - features[best]).square().sum(1))
        nearest[torch.stack(chosen)] = -1.0
        best = nearest.argmax()
        chosen.append(best)
    return torch.stack(chosen)
