"""DM: distribution matching (Zhao and Bilen, WACV 2023). With f the features of a network whose weights are drawn afresh in
each step, A a random augmentation, the same for both sides, and T_c, S_c the real and synthetic images of class c:

    Σ_c ‖ mean f(A(T_c)) − mean f(A(S_c)) ‖²
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddtool.config import AtLeastOne, Count, NotNegative, checked
from ddtool.data.augment import siamese
from ddtool.methods.base import Method, Settings, Standard, Task
from ddtool.methods.record import Record
from ddtool.models.convnet import Features, initialise, widest

PASS = 1024
"""Images of one pass with a graph, at most (a class at least), and no more than fit the engine's memory. Ours."""


@checked
class DMSettings(Settings):
    """The published ones."""

    steps: Count = 20_000
    """Updates of the whole synthetic set, each under a fresh network."""
    real_batch: AtLeastOne = 256
    """Real images per class and step."""
    lr: NotNegative | None = None
    """SGD's learning rate on the images; null: 1, from IPC 100 on 10."""
    momentum: NotNegative = 0.5
    """SGD's momentum."""
    standardise: Standard = "published"
    """Mean and deviation of the images that networks see and steps are on."""


class DM(Method):
    """Class means of the features of untrained networks, one network a step."""

    record = Record(
        name="dm",
        title="DM (Zhao and Bilen, 2023)",
        paper="Zhao and Bilen, WACV 2023",
        settings=DMSettings,
        divided=True,
        quick_settings={"real_batch": 64, "standardise": "measured"},
        colour="#ec82c0",
        marker="h",
    )

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        lr = settings.lr if settings.lr is not None else (1.0 if task.ipc < 100 else 10.0)
        self.X = self.initial_images()
        self.optimiser = torch.optim.SGD([self.X], lr, settings.momentum)
        self.net = self.network().requires_grad_(False)
        self.f = Features(self.net, task.engine)
        self.at_once = task.engine.part(widest(task.real.data.shape, self.net.widths), PASS)

    def gradient(self, step: int) -> Tensor:
        task, C = self.task, self.task.num_classes
        initialise(self.net, self.rng, "torch")
        augment = siamese("dsa", task.flip, task.host_rng("augment", step), self.rng)
        rows = task.real.sampler(self.config.real_batch * C, self.rng).view(C, -1)
        loss = torch.zeros((), device=self.X.device)
        for classes in torch.arange(C).split(self.classes_a_pass()):
            pairs = [augment([task.real.at(rows[c])[0], self.X[c::C]]) for c in classes.tolist()]
            with torch.no_grad():
                real = self.means([x for x, _ in pairs])
            part = (real - self.means([s for _, s in pairs])).square().sum()
            part.backward()
            loss += part.detach()
        return loss

    def means(self, classes: Sequence[Tensor]) -> Tensor:
        """Mean features (k, d) of k classes with as many images each, in as few passes as fit."""
        F = self.f(torch.cat(list(classes)))
        return F.view(len(classes), -1, F.shape[1]).mean(1)

    def classes_a_pass(self) -> int:
        """How many classes share a pass; all of them under batch norm, whose statistics would tell a single class away."""
        if self.config.norm == "batch":
            return self.task.num_classes
        return max(1, self.at_once // max(20, self.task.ipc))  # 20: their real images are in memory together, too

    def tensors(self) -> dict[str, Tensor]:
        return {"X": self.X}
