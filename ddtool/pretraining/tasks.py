"""Tasks of large image sets: which classes and images, grey or not, flipped, recoloured. Decided on the host.

The images of a large set stay where they are, memory-mapped when they were read from the cache; a task takes its rows only.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ddtool.config import MetaConfig, WhiteningConfig
from ddtool.data import whitening
from ddtool.data.images import ImageData
from ddtool.errors import DataError
from ddtool.events import Note, Report, silent
from ddtool.runtime.engine import seeded_generator

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue in the brightness of a pixel (ITU-R BT.601)."""


@dataclass(frozen=True)
class LargeSet:
    """One large labelled set I in host memory, its rows by class, and who may see which class.

    rows: int64 (n,), the rows of class c are rows[starts[c] : starts[c] + counts[c]];  train, held: class numbers of the
    tasks and of validation, disjoint.
    """

    data: ImageData
    rows: Tensor
    starts: list[int]
    counts: list[int]
    train: list[int]
    held: list[int]

    @classmethod
    def of(cls, data: ImageData, held_out: int, needed: int, seed: int, report: Report = silent) -> "LargeSet":
        """`held_out` random classes set apart; a class with fewer than `needed` images is left out, said aloud.

        Raises DataError when fewer than 2 classes remain for the tasks.
        """
        counts = data.class_counts()
        usable = [c for c, count in enumerate(counts.tolist()) if count >= needed]
        name = data.source.get("name", "the dataset")
        if len(usable) < data.num_classes:
            few = data.num_classes - len(usable)
            report(Note(f"{few} of {data.num_classes} classes of {name} hold fewer than {needed} images: left out."))
        if len(usable) < held_out + 2:
            raise DataError(
                f"{name} has {len(usable)} classes of at least {needed} images; {held_out} are held out for validation "
                "and tasks need 2 or more.",
                "Hold out fewer (--set held_out=2), ask for fewer images (--set meta.ipc=[1,5]), or add a larger dataset.",
            )
        order = torch.randperm(len(usable), generator=seeded_generator("cpu", seed, "held-out classes")).tolist()
        shuffled = [usable[i] for i in order]
        starts = torch.cumsum(counts, 0) - counts
        rows = torch.argsort(data.labels, stable=True)
        held, train = sorted(shuffled[:held_out]), sorted(shuffled[held_out:])
        return cls(data, rows, starts.tolist(), counts.tolist(), train, held)

    def draw(self, classes: Sequence[int], per_class: int, rng: torch.Generator) -> Tensor:
        """Rows of distinct random images of `classes`, image-major (k·C,): `per_class` of each, or as many as all have."""
        k = min(per_class, *(self.counts[c] for c in classes))
        drawn = [self.starts[c] + torch.randperm(self.counts[c], generator=rng)[:k] for c in classes]
        return self.rows[torch.stack(drawn, 1).flatten()]

    def images(self, rows: Tensor) -> Tensor:
        """The images at `rows`, uint8 (n, c, h, w), read in the order they lie in."""
        rows, order = rows.sort()
        out = torch.empty((len(rows), *self.data.shape), dtype=torch.uint8)
        out[order] = self.data.images[rows]
        return out


@dataclass(frozen=True)
class TaskPlan:
    """What a task is made of, decided from its host stream alone, so that nothing is asked of the device."""

    large: LargeSet
    classes: list[int]
    ipc: int
    per_class: int
    grey: bool
    flip: bool
    colour: Tensor | None  # (4, 3): rows 0-2 mix the channels of pixels in [0, 1], row 3 is added


def plan_task(sets: Sequence[LargeSet], config: MetaConfig, rng: torch.Generator) -> TaskPlan:
    """A random task of one of `sets`, chosen in proportion to its classes; rng is on the host."""
    sizes = torch.tensor([float(len(large.train)) for large in sets])
    large = sets[int(torch.multinomial(sizes, 1, generator=rng))]
    ways, ipc = integer(config.ways, rng), integer(config.ipc, rng)
    order = torch.randperm(len(large.train), generator=rng)[:ways].tolist()
    grey, flip = chance(config.grey, rng), chance(0.5, rng) and config.flip
    colour = recolouring(config.jitter, rng) if config.jitter else None
    return TaskPlan(large, [large.train[i] for i in order], ipc, config.label_images, grey, flip, colour)


def task_source(
    sets: Sequence[LargeSet], config: MetaConfig, device: torch.device
) -> Callable[[torch.Generator], tuple[ImageData, int]]:
    """Draws tasks of `sets` for `mgdd.meta_train`: from a stream on the host to images on `device` and an IPC."""

    def draw(rng: torch.Generator) -> tuple[ImageData, int]:
        plan = plan_task(sets, config, rng)
        return whitened(task_images(plan, rng, device), config), plan.ipc

    return draw


def whitened(data: ImageData, config: MetaConfig) -> ImageData:
    """A task with the whitening of its own images, where tasks are whitened."""
    if config.whitening == "none":
        return data
    rows = torch.arange(len(data), device=data.images.device)
    fitted = whitening.fit(
        lambda part: data.transform.standardise(data.images[part]), rows, config.whitening, WhiteningConfig().eps
    )
    return replace(data, whitening=fitted)


def task_images(plan: TaskPlan, rng: torch.Generator, device: torch.device) -> ImageData:
    """The images of a task on `device`, image-major, labels 0 … C−1 in the order of its classes; rng is on the host.

    Mean and std are those of the large set, or of the task's own brightness where it is grey.
    """
    large, data = plan.large, plan.large.data
    images = large.images(large.draw(plan.classes, plan.per_class, rng))
    mean, std = data.mean, data.std
    if plan.grey and images.shape[1] == 3:
        images = luminance(images)
        pixels = images.float().div(255)
        mean, std = (pixels.mean().item(),), (max(pixels.std().item(), 1e-3),)
    if device.type == "cuda":
        images = images.pin_memory()  # else the copy would wait for the work that is queued
    images = images.to(device, non_blocking=True)
    if plan.flip:
        images = images.flip(3)
    if plan.colour is not None:
        images = recoloured(images, plan.colour.to(device, non_blocking=True))
    labels = torch.arange(len(plan.classes), device=device).repeat(len(images) // len(plan.classes))
    names = tuple(data.class_names[c] for c in plan.classes)
    return replace(data, images=images, labels=labels, class_names=names, mean=mean, std=std)


def luminance(images: Tensor) -> Tensor:
    """uint8 (n, 3, h, w) → uint8 (n, 1, h, w)."""
    weights = torch.tensor(LUMINANCE).view(3, 1, 1)
    return (images * weights).sum(1, keepdim=True).round().to(torch.uint8)


def recolouring(strength: float, rng: torch.Generator) -> Tensor:
    """Random brightness, contrast and saturation and a gain of each channel, each a factor in 1 ± `strength`, as (4, 3)."""
    factors = 1 + strength * (2 * torch.rand(6, generator=rng) - 1)
    brightness, contrast, saturation, gains = factors[0], factors[1], factors[2], factors[3:]
    grey = torch.tensor(LUMINANCE)[:, None].expand(3, 3)  # a pixel times this is its brightness, three times
    mix = saturation * torch.eye(3) + (1 - saturation) * grey
    middle = 0.5 * (1 - contrast) * torch.ones(1, 3)
    return torch.cat([mix * contrast, middle]) * gains * brightness


def recoloured(images: Tensor, colour: Tensor) -> Tensor:
    """uint8 images (n, c, h, w) through `recolouring`; grey ones take the mean of its channels."""
    mix, offset = colour[:3], colour[3]
    if images.shape[1] == 1:
        mix, offset = mix.sum(0).mean().view(1, 1), offset.mean().view(1)
    pixels = torch.einsum("nihw,io->nohw", images.float(), mix) + 255 * offset.view(-1, 1, 1)
    return pixels.round().clamp(0, 255).to(torch.uint8)


def integer(bounds: tuple[int, int], rng: torch.Generator) -> int:
    """A random whole number, both bounds included."""
    return int(torch.randint(bounds[0], bounds[1] + 1, (1,), generator=rng))


def chance(share: float, rng: torch.Generator) -> bool:
    """True in this share of the draws."""
    return bool(torch.rand(1, generator=rng) < share)
