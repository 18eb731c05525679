"""Real images instead of synthetic ones: chosen at random, or by herding (Welling, ICML 2009)."""

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ddtool.config import Count, checked
from ddtool.data.batches import in_chunks
from ddtool.events import Report, silent
from ddtool.methods.base import Method, Norm, Settings, Task
from ddtool.methods.record import Record
from ddtool.models.convnet import RandomFeatures, depth_for, doubling_widths


@checked
class SelectionSettings(Settings):
    """No steps."""

    steps: Count = 0
    """There are none."""
    norm: Norm = "none"
    """Norm layer of the network whose features herding compares. Ours."""
    doubling_widths: bool = True
    """As MGDD's random networks. Ours: the literature takes a network trained on the whole dataset."""


class Random(Method):
    """Real images drawn at random: what every method has to beat."""

    record = Record(name="random", title="random real images", settings=SelectionSettings, learns=False)

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        self.X = task.start()[0]

    def gradient(self, step: int) -> Tensor:
        raise NotImplementedError("A selection has no steps.")

    def tensors(self) -> dict[str, Tensor]:
        return {}


class Herding(Random):
    """The images of each class, one after the other, that bring the mean of the chosen features nearest to the class's."""

    record = replace(Random.record, name="herding", title="herding (Welling, 2009)", paper="Welling, ICML 2009")

    def prepare(self, report: Report = silent) -> float:
        started, task = time.perf_counter(), self.task
        data, shape = task.real.data, task.real.data.shape
        widths = doubling_widths(self.config.width, depth_for(shape))
        widths = widths if self.config.doubling_widths else (self.config.width,) * len(widths)
        f = RandomFeatures(shape, widths, self.config.norm, task.engine, self.rng)
        chosen = []
        for label in range(task.num_classes):
            rows = (data.labels == label).nonzero().flatten()
            with torch.no_grad():
                F = in_chunks(lambda part: f(task.real.at(part)[0]), rows)
            chosen.append(rows[herd(F, task.ipc)])
        self.X, _ = task.real.at(torch.stack(chosen, 1).flatten())  # image-major
        task.engine.synchronise()
        return time.perf_counter() - started


def herd(F: Tensor, k: int) -> Tensor:
    """Indices (k,) of rows of F (n, d), greedily chosen so that their mean comes nearest to the mean of all; no row twice."""
    mean, total = F.mean(0), torch.zeros_like(F[0])
    free = torch.zeros(len(F), device=F.device)
    chosen = []
    for count in range(1, k + 1):
        distance = (mean - (total + F) / count).square().sum(1) + free
        best = distance.argmin()
        free[best] = float("inf")
        total = total + F[best]
        chosen.append(best)
    return torch.stack(chosen)
