"""Methods of the field on small images: a task, tiny settings for each method; no tests here."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool import methods
from ddtool.data.batches import Real
from ddtool.data.images import ImageData, draw_pool
from ddtool.methods import Method, Store, Task
from ddtool.methods.base import Memory
from ddtool.runtime.engine import Engine

ENGINE = Engine(torch.device("cpu"), bf16=False)
TINY: dict[str, dict[str, Any]] = {
    "random": {},
    "herding": {"width": 8},
    "k-centre": {"width": 8},
    "el2n": {"width": 8, "networks": 2, "epochs": 1},
    "dm": {"width": 8, "real_batch": 16},
    "mtt": {"width": 8, "experts": 1, "expert_epochs": 2, "expert_batch": 64, "student_steps": 2, "batch": 6},
    "dc": {"width": 8, "real_batch": 16, "outer": 2, "inner": 2},
    "dsa": {"width": 8, "real_batch": 16, "outer": 2, "inner": 2},
    "idc": {"width": 8, "real_batch": 16, "inner": 2, "real_images": 16, "net_batch": 8},
    "frepo": {"width": 8, "real_batch": 32, "networks": 2, "updates": 2},
}
"""Settings under which six steps take about a second."""


def by_steps() -> list[str]:
    """The names of the methods that are run by their steps."""
    return [name for name, kind in methods.METHODS.items() if issubclass(kind, Method)]


def task_of(data: ImageData, ipc: int = 2, seed: int = 0, flip: bool = True, store: Store | None = None) -> Task:
    """The task of distilling `data` in float32 on the CPU."""
    rows = draw_pool(data, ipc, seed)
    return Task(
        real=Real.of(data, ENGINE), ipc=ipc, rows=rows, flip=flip, engine=ENGINE, seed=seed, store=store or Memory()
    )


def method_of(name: str, task: Task, **settings: Any) -> Method:
    """A method ready to run, by its tiny settings and those given."""
    chosen = methods.settings_of(name, {"steps": 6} | TINY[name] | settings)
    return methods.make(name, task, chosen, task.engine.rng(task.seed, name))


def plain_features(weights: dict[str, Tensor], X: Tensor) -> Tensor:
    """What a ConvNet with instance norm and these weights makes of images (n, c, h, w): (n, d), written out a second time."""
    for i in sorted({int(name.split(".")[1]) for name in weights if name.startswith("body")})[::2]:
        X = F.conv2d(X, weights[f"body.{i}.weight"], weights[f"body.{i}.bias"], padding=1)
        X = X - X.mean((2, 3), keepdim=True)
        X = X / (X.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        scale, shift = (weights[f"body.{i + 1}.{name}"][:, None, None] for name in ("weight", "bias"))
        X = (X * scale + shift).clamp_min(0)
        X = (X[..., ::2, ::2] + X[..., 1::2, ::2] + X[..., ::2, 1::2] + X[..., 1::2, 1::2]) / 4
    return X.flatten(1)


def doubles(net: nn.Module) -> dict[str, Tensor]:
    """The parameters of a network in float64, by name."""
    return {name: p.detach().double() for name, p in net.named_parameters()}
