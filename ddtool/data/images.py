"""Images with labels in memory: the real target, its class-balanced samples, and the synthetic set made from it."""

from dataclasses import dataclass, field, replace
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.data.inputs import NetworkInput
from ddtool.data.parts import decode
from ddtool.data.whitening import Whitening
from ddtool.errors import DataError, UsageError
from ddtool.runtime.engine import seeded_generator

CENTRED = "centred"
"""The one label convention of ddtool: a row is (class scores − 1/C) · label_scale, so a hard label is one-hot − 1/C."""


class Source(TypedDict, total=False):
    """Where real images came from, plain JSON values; what nothing is known of is left out.

    Those who read the same data again find in it how it was read: the fields of `sources.DataOptions` that were not as usual.
    """

    name: str
    """As the user typed it, or as others may see it."""
    kind: str
    """hub, local or sample."""
    id: str
    """The repo, where it is on the Hub."""
    path: str
    """The place on this disk, where it is here."""
    revision: str
    """The commit on the Hub."""
    content_hash: str
    config: str | None
    converted: bool
    """Whether it is the Hub's own parquet copy."""
    train_split: str
    test_split: str
    image_column: str
    label_column: str
    resolution: int | None
    no_splits: bool
    class_level: int | None
    multi_label: str | None
    skip_broken: float
    background: str | None
    max_megapixels: float
    max_per_class: int
    test_fraction: float
    seed: int
    licence: str | None


@dataclass(frozen=True)
class ImageData:
    """A labelled image set, decoded once and kept as bytes.

    images: uint8 (n, c, h, w), c in {1, 3};  labels: int64 (n,) in [0, C);  mean, std: per channel, of images in [0, 1];
    source: where it came from (id or path, revision or content hash, config, split, columns), plain JSON values;
    whitening: fitted on the training images where a run whitens, else None.
    """

    images: Tensor
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    source: Source = field(default_factory=Source)
    whitening: Whitening | None = None

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        sides = "x".join(map(str, self.shape))
        return f"<ImageData {self.source.get('name', '')}: {len(self):,} images {sides}, {self.num_classes} classes>"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    def to(self, device: torch.device | str, images: bool = True) -> "ImageData":
        """The same data with its labels on `device`, and its images too unless they stay where they are; still uint8."""
        return replace(self, images=self.images.to(device) if images else self.images, labels=self.labels.to(device))

    def at(self, rows: Tensor) -> Tensor:
        """The images at `rows`, uint8 (n, c, h, w), on the device of the labels, wherever all of them are."""
        return self.images[rows.to(self.images.device)].to(self.labels.device)

    @property
    def transform(self) -> NetworkInput:
        """Pixels → network input, on the device of the labels."""
        return NetworkInput(self.mean, self.std, self.whitening, self.labels.device)

    def head(self, n: int) -> "ImageData":
        """The first n images (all of them when there are fewer)."""
        return replace(self, images=self.images[:n], labels=self.labels[:n])

    def class_counts(self) -> Tensor:
        """How many images each class has, (C,)."""
        return torch.bincount(self.labels, minlength=self.num_classes)


class BalancedSampler:
    """Draws class-balanced index batches on the device, without asking the host.

    A batch of n has n // C images of every class (at least one); inside a class images are drawn with replacement.
    Only images at `among` are drawn, where that is given.
    """

    def __init__(self, labels: Tensor, num_classes: int, among: Tensor | None = None) -> None:
        labels = labels if among is None else labels[among]
        counts = torch.bincount(labels, minlength=num_classes)
        order = torch.argsort(labels, stable=True)
        self.order = order if among is None else among[order]
        self.counts, self.starts = counts, torch.cumsum(counts, 0) - counts
        self.num_classes = num_classes

    def __call__(self, n: int, rng: torch.Generator) -> Tensor:
        """n' = max(1, n // C) · C indices, grouped by class, (n',)."""
        per_class = max(1, n // self.num_classes)
        u = torch.rand(self.num_classes, per_class, generator=rng, device=self.order.device)
        offsets = (u * self.counts[:, None]).long().clamp_max_((self.counts - 1)[:, None])
        return self.order[(self.starts[:, None] + offsets).flatten()]


def draw_per_class(
    data: ImageData, ipc: int, rng: torch.Generator, repeat: bool = False, among: Tensor | None = None
) -> Tensor:
    """Indices of `ipc` distinct random images per class, (C·ipc,), image-major: every prefix of C·k has k per class.

    among: the indices that are drawn from, where not all are. Raises UsageError when a class holds fewer than `ipc` images; with
    `repeat` those of such a class come again, in turn.
    """
    if ipc < 1:
        raise UsageError(f"ipc must be at least 1, got {ipc}.", "IPC is the number of synthetic images per class.")
    labels = data.labels if among is None else data.labels[among]
    counts = torch.bincount(labels, minlength=data.num_classes)
    if int(counts.min()) < (1 if repeat else ipc):
        name = data.class_names[int(counts.argmin())]
        raise UsageError(
            f"ipc {ipc} is more than class '{name}' holds ({int(counts.min())} training images).",
            f"Use --ipc {int(counts.min())} or less." if counts.min() > 0 else "Remove the empty class.",
        )
    shuffled = torch.randperm(len(labels), generator=rng, device=rng.device).to(labels.device)
    by_class = shuffled[torch.argsort(labels[shuffled], stable=True)]  # random order inside each class
    starts = torch.cumsum(counts, 0) - counts
    rows = starts[None, :] + torch.arange(ipc, device=counts.device)[:, None] % counts[None, :]  # (ipc, C)
    drawn = by_class[rows.flatten()]
    return drawn if among is None else among[drawn]


def draw_pool(data: ImageData, ipc: int, seed: int, repeat: bool = False) -> Tensor:
    """Indices of Z, image-major: the same on every device, and a larger Z begins with the smaller one. Raises as above."""
    return draw_per_class(data, ipc, seeded_generator("cpu", seed, "pool"), repeat)


def one_hot(labels: Tensor, num_classes: int) -> Tensor:
    """int64 (n,) → centred one-hot labels, float32 (n, C): 1 − 1/C at the class, −1/C elsewhere."""
    return F.one_hot(labels, num_classes).float() - 1 / num_classes


@dataclass(frozen=True)
class SyntheticSet:
    """A distilled dataset: what is trained on, and how to read it.

    images: float32 (m, c, h, w) in [0, 1];  labels: float32 (m, C) soft, convention `label_convention`; or (m·factor², C), one for
    each image of `decoded`, in its order;
    hard: int64 (m,), the class each image was drawn for;  mean, std: by channel, to standardise with;
    whitening: what follows before networks see the images, real ones too; None: nothing (`transform` is all of it in one);
    label_method: how the labels were found: hard | analytical (Eq. 3) | fitted | learned (with the images);
    label_scale: the factor in the labels; accuracy does not see it, but training by squared error goes better with more than 1;
    flip: whether images keep their class when flipped left-right (networks are trained with flips only then);
    factor: each image holds factor x factor images of lower resolution side by side, as IDC has it; `decoded` takes them out;
    source: of the real data;  stage: random | initial | generated | refined (MGDD) | distilled (other methods);
    learned_lr: the learning rate for cross-entropy that was learned with the images (MTT).
    Images of others' sets may leave [0, 1], where their method does not clamp: `rounded` cuts them, as PNGs do.
    Images are image-major (every prefix of C·k rows has k per class).
    """

    images: Tensor
    labels: Tensor
    hard: Tensor
    ipc: int
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = True
    label_scale: float = 1.0
    method: str = "mgdd"
    stage: str = "generated"
    label_method: str = "analytical"
    source: Source = field(default_factory=Source)
    label_convention: str = CENTRED
    factor: int = 1
    whitening: Whitening | None = None
    learned_lr: float | None = None

    def __post_init__(self) -> None:
        m, C = len(self.images), len(self.class_names)
        labelled = tuple(self.labels.shape) in ((m, C), (m * self.factor**2, C))
        if self.images.ndim != 4 or not labelled or self.hard.shape != (m,) or m != self.ipc * C:
            raise DataError(
                f"A synthetic set of ipc {self.ipc} and {C} classes needs {self.ipc * C} images, labels ({self.ipc * C}, "
                f"{C}); got images {tuple(self.images.shape)}, labels {tuple(self.labels.shape)}."
            )

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        made, sides = dict.fromkeys([self.method, self.stage]), map(str, self.images.shape[1:])
        what = f"{' '.join(made)}: {len(self)} images {'x'.join(sides)}"
        return f"<SyntheticSet {what}, {self.ipc} per class, {self.num_classes} classes, {self.label_method} labels>"

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def to(self, device: torch.device | str) -> "SyntheticSet":
        return replace(self, images=self.images.to(device), labels=self.labels.to(device), hard=self.hard.to(device))

    @property
    def transform(self) -> NetworkInput:
        """Pixels (bytes, or floats in [0, 1]) → what networks are trained and tested on; for synthetic and real images alike."""
        return NetworkInput(self.mean, self.std, self.whitening, self.images.device)

    @property
    def inputs(self) -> Tensor:
        """The images ready to train on, float32 (m', c, h, w): those of `decoded`, as `transform` gives them."""
        return self.transform(self.decoded().images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one image."""
        c, h, w = self.images.shape[1:]
        return c, h, w

    @property
    def stored_bytes(self) -> int:
        """Bytes of what has to be kept to train on the set: 8-bit pixels, labels (soft ones in float32, of hard ones a class
        in two bytes), and the whitening."""
        labels = 2 * len(self) if self.label_method == "hard" else 4 * self.labels.numel()
        kept = [] if self.whitening is None else self.whitening.tensors().values()
        return self.images.numel() + labels + sum(4 * tensor.numel() for tensor in kept)

    def rounded(self) -> "SyntheticSet":
        """The set as its PNGs hold it: 8 bits a pixel value."""
        return replace(self, images=self.pixels().float() / 255)

    def decoded(self) -> "SyntheticSet":
        """The set that networks train on: itself, or with a factor all the images that its images hold, enlarged."""
        if self.factor == 1:
            return self
        parts = self.factor**2
        return replace(
            self,
            images=decode(self.images, self.factor),
            labels=self.labels.repeat(parts * len(self) // len(self.labels), 1),
            hard=self.hard.repeat(parts),
            ipc=self.ipc * parts,
            factor=1,
        )

    def scaled(self, scale: float | None = None) -> "SyntheticSet":
        """The same set with its labels at another scale (default: 4, or 0.4 a class where that is more)."""
        scale = scale or usual_label_scale(self.num_classes)
        return replace(self, labels=self.labels * (scale / self.label_scale), label_scale=scale)

    def pixels(self) -> Tensor:
        """Images as bytes, uint8 (m, c, h, w)."""
        return self.images.mul(255).round().clamp(0, 255).to(torch.uint8)

    def labels_by_image(self) -> Tensor:
        """The label of each image, (m, C); or (m, factor², C) where each of the images that it holds has one of its own."""
        if len(self.labels) == len(self):
            return self.labels
        return self.labels.view(-1, len(self), self.num_classes).transpose(0, 1)

    def probabilities(self) -> Tensor:
        """Labels as distributions over classes, (m, C): the convention undone, negatives cut, rows sum to 1. Of an image that holds
        several with labels of their own, their mean."""
        scores = (
            (self.labels / self.label_scale + 1 / self.num_classes).clamp_min(0).view(-1, len(self), self.num_classes)
        )
        fallback = F.one_hot(self.hard, self.num_classes).float()
        total = scores.sum(2, keepdim=True)
        return torch.where(total > 0, scores / total.clamp_min(1e-12), fallback).mean(0)


def usual_label_scale(C: int) -> float:
    """4, or 0.4 a class where that is more: entries of centred labels shrink as there are more classes, and against an untrained
    network's outputs small ones are learned late (docs/log.md)."""
    return max(4.0, 0.4 * C)


def seen_alike(data: ImageData, beside: SyntheticSet) -> ImageData:
    """The same images, standardised and whitened as those of a set are."""
    return replace(data, mean=beside.mean, std=beside.std, whitening=beside.whitening)


def real_images(
    data: ImageData,
    indices: Tensor,
    flip: bool,
    stage: str = "random",
    labels: Tensor | None = None,
    kind: type[SyntheticSet] = SyntheticSet,
) -> SyntheticSet:
    """Real images as a synthetic set: the random-subset baseline, or (with solved `labels`) the initial samples."""
    hard = data.labels[indices]
    made = kind(
        images=data.at(indices).float() / 255,
        labels=one_hot(hard, data.num_classes) if labels is None else labels,
        hard=hard,
        ipc=len(indices) // data.num_classes,
        class_names=data.class_names,
        mean=data.mean,
        std=data.std,
        whitening=data.whitening,
        flip=flip,
        stage=stage,
        label_method="hard" if labels is None else "analytical",
        source=data.source,
    )
    return replace(made, method=stage) if stage == "random" else made


def accuracy(scores: Tensor, labels: Tensor) -> float:
    """Percent of rows whose largest score is at the label; scores (n, C), labels (n,)."""
    return 100.0 * (scores.argmax(1) == labels).float().mean().item()
