"""What others have published for the methods of a comparison: accuracies in percent of the test split, which stand beside ours.

Two kinds, which do not compare with each other. `EQUAL_STEPS` is one table, by MGDD's authors, of all methods after the same
number of steps. `FULL_BUDGET` has each method at the length of its own publication, which is hours of a GPU.
"""

from dataclasses import dataclass

from ddtool.evaluation.protocols import CE
from ddtool.experiments.grid import entry_of

IPCS = (1, 10, 50)
"""The sizes that the field publishes, images per class."""
Figures = tuple[float | None, float | None, float | None]
"""Means at `IPCS`; None: not published, or not legible."""

TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "fashion_mnist": "FashionMNIST", "mnist": "MNIST"}
"""The datasets that have figures here, by their short names."""

PAPER = "S. Liu and X. Wang, MGDD, NeurIPS 2023"
EQUAL_STEPS: dict[str, dict[str, Figures]] = {
    "mnist": {
        "dm": (87.8, 96.2, 98.0), "mtt": (73.1, 92.8, 96.6), "dc": (88.7, 96.7, 95.7), "dsa": (87.7, 96.7, 98.3),
        "frepo": (64.8, 96.3, 98.5), "idc": (76.1, 95.1, 98.4), "mgdd-generator": (87.8, None, 98.6),
    },
    "fashion_mnist": {
        "dm": (71.3, 83.0, 86.8), "mtt": (None, 80.1, 86.2), "dc": (70.3, 79.8, 78.5), "dsa": (70.3, 79.0, 86.9),
        "frepo": (61.5, 81.2, 85.9), "idc": (64.4, 82.9, 87.0), "mgdd-generator": (71.9, 83.4, 87.2),
    },
    "cifar10": {
        "dm": (26.8, 48.8, None), "mtt": (36.8, 50.8, 56.5), "dc": (28.2, 39.7, 39.1), "dsa": (28.1, 48.7, 56.0),
        "frepo": (25.2, 49.4, 61.8), "idc": (25.3, 49.5, 61.7), "mgdd-generator": (42.6, 58.9, 66.8),
    },
    "cifar100": {
        "dm": (11.9, 30.0, None), "mtt": (13.2, 30.2, None), "dc": (12.4, 21.1, None), "dsa": (13.8, 31.3, None),
        "frepo": (10.1, 26.6, None), "idc": (15.4, 28.9, None), "mgdd-generator": (20.8, 32.2, None),
    },
}  # fmt: skip
"""The table of MGDD's paper (`PAPER`): every method after the same number of steps. It names neither the number nor the protocol.
Its MGDD is the generator alone."""

FULL_BUDGET: dict[str, dict[str, Figures]] = {
    "mnist": {"dsa": (88.7, 97.8, 99.2)},
    "fashion_mnist": {"dsa": (70.6, 84.6, 88.7)},
    "cifar10": {
        "whole": (84.8, 84.8, 84.8), "random": (15.4, 31.0, 50.6), "dm": (26.0, 48.9, 63.0), "mtt": (46.2, 65.4, 71.6),
        "dc": (28.3, 44.9, 53.9), "dsa": (28.8, 52.1, 60.6), "frepo": (46.8, 65.5, 71.7),
    },
    "cifar100": {"frepo": (28.7, 42.5, 44.3)},
}  # fmt: skip
"""Each method's published figures (`source`), by the protocol that `PROTOCOL` names. Those of the whole training set are the same
at every size."""

PROTOCOL = {"frepo": "frepo-mse"}
"""The protocol of a method's published figures, where that is another than dsa-ce. FRePo's networks are also wider."""
TABLE = "Prioritize Alignment in Dataset Distillation (2024), table 1"
"""Where the figures of random real images and of the whole training set stand; it has those of CIFAR-10 for all methods."""


@dataclass(frozen=True)
class Published:
    """What is published for one row of a comparison."""

    equal_steps: float | None
    """In the table of MGDD's paper."""
    full_budget: float | None
    """In the method's own publication."""
    protocol: str
    """By which networks were trained for `full_budget`; empty where there is none."""
    source: str
    """Who published `full_budget`; empty where there is none."""


def known_dataset(name: str) -> str | None:
    """The short name in `TITLES` that the last part of a dataset's name or path says; None where it says none of them."""
    last = name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].partition("@")[0]
    plain = {short.replace("_", ""): short for short in TITLES}
    return plain.get(last.lower().replace("_", "").replace("-", ""))


def published(dataset: str, method: str, ipc: int) -> Published:
    """What is published for a method (a name of `--methods`, or 'whole') on a dataset at an IPC."""
    known = known_dataset(dataset)
    equal, full = (at(table.get(known or "", {}).get(method), ipc) for table in (EQUAL_STEPS, FULL_BUDGET))
    if full is None:
        return Published(equal, None, "", "")
    return Published(equal, full, PROTOCOL.get(method, CE), source(known or "", method))


def at(figures: Figures | None, ipc: int) -> float | None:
    """The figure at an IPC; None where there is none."""
    return None if figures is None else dict(zip(IPCS, figures, strict=True)).get(ipc)


def source(dataset: str, method: str) -> str:
    """Who published the figures of a method at its full budget; those of CIFAR-10 as `TABLE` quotes them."""
    paper = entry_of(method).method.paper
    return f"{paper}, as quoted in {TABLE}" if paper and dataset == "cifar10" else paper or TABLE
