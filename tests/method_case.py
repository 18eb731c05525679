"""Methods of the field on small images: a task, tiny settings for each method; no tests here."""

from typing import Any

import torch

from ddtool import methods
from ddtool.data import ImageData, draw_pool
from ddtool.engine import Engine
from ddtool.methods import Method, Store, Task
from ddtool.methods.base import Forgetful
from ddtool.mgdd import Real

ENGINE = Engine(torch.device("cpu"), bf16=False)
TINY: dict[str, dict[str, Any]] = {
    "random": {},
    "herding": {"width": 8},
}
"""Settings under which six steps take about a second."""


def task_of(data: ImageData, ipc: int = 2, seed: int = 0, mirror: bool = True, store: Store | None = None) -> Task:
    """The task of distilling `data` in float32 on the CPU."""
    rows = draw_pool(data, ipc, seed)
    return Task(Real.of(data, ENGINE), ipc, rows, mirror, ENGINE, seed, store or Forgetful())


def method_of(name: str, task: Task, **settings: Any) -> Method:
    """A method ready to run, by its tiny settings and those given."""
    chosen = methods.settings_of(name, {"steps": 6} | TINY[name] | settings)
    return methods.find(name)(task, chosen, task.engine.rng(task.seed, name))
