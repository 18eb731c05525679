"""Sets as others make them, and one of ours, so small that a test takes a moment; no tests here."""

from typing import Any

import torch
from tiny import CLASSES, ENGINE
from torch import Tensor

from ddtool.data.images import SyntheticSet, one_hot
from ddtool.evaluation.measure import kernel_ridge

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
IPC, C = 2, 3


def field_set(data: Any, seed: int = 0, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Images normalised by MEAN and STD and their classes, class after class as the field's code orders them."""
    rng = torch.Generator().manual_seed(seed)
    rows = torch.cat([(data.labels == c).nonzero().flatten()[:IPC] for c in range(C)])
    pixels = data.images[rows].float() / 255 + spread * 0.1 * torch.randn(len(rows), *data.shape, generator=rng)
    mean, std = (torch.tensor(v)[: data.shape[0]].view(1, -1, 1, 1) for v in (MEAN, STD))
    return (pixels - mean) / std, torch.arange(C).repeat_interleave(IPC)


def directly(x: Tensor, y: Tensor, like: Any, **more: Any) -> SyntheticSet:
    """The set that those tensors are, written down without the importer."""
    order = torch.arange(C * IPC).view(C, IPC).T.flatten()
    n = like.shape[0]
    mean, std = (torch.tensor(v)[:n].view(1, -1, 1, 1) for v in (MEAN, STD))
    return SyntheticSet(
        images=(x * std + mean)[order], labels=4 * one_hot(y, C)[order], hard=y[order], ipc=IPC, class_names=CLASSES,
        mean=MEAN[:n], std=STD[:n], label_scale=4.0, stage="distilled", **more,
    )  # fmt: skip


def score(synthetic: SyntheticSet, test: Any) -> float:
    return kernel_ridge(synthetic, test, ENGINE, seeds=1).mean


def stated(n: int) -> dict[str, Any]:
    return {"mean": MEAN[:n], "std": STD[:n]}


def ours(like: Any) -> SyntheticSet:
    """A set of ours with soft labels."""
    rng = torch.Generator().manual_seed(5)
    hard = torch.arange(C).repeat(IPC)
    return SyntheticSet(
        images=torch.rand(C * IPC, *like.shape, generator=rng), labels=torch.randn(C * IPC, C, generator=rng), hard=hard,
        ipc=IPC, class_names=CLASSES, mean=like.mean, std=like.std, label_scale=4.0, stage="refined",
        label_method="fitted", source=like.source, learned_lr=0.03,
    )  # fmt: skip
