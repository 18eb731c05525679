"""A synthetic set as others publish it: images and labels with little said about them, and what makes a `SyntheticSet` of it."""

import sys
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from ddtool.config import LARGEST_FACTOR
from ddtool.data.images import ImageData, SyntheticSet, one_hot, usual_label_scale
from ddtool.data.inputs import NetworkInput
from ddtool.data.whitening import Whitening
from ddtool.errors import DataError
from ddtool.runtime.engine import finite

PROBABILITIES, CENTRED = "probabilities", "centred"
CONVENTIONS = (PROBABILITIES, CENTRED)
"""What soft labels can be: distributions over classes, or centred scores for squared error."""
VALUES_HINT = "Save them as bytes from 0 to 255, or as float values."
LABELS_HINT = "Classes are one number for each image, soft labels a row for each image with a column for each class."


@dataclass(frozen=True, kw_only=True)
class Loose:
    """Images and labels as a file holds them.

    images: uint8, or float32 (m, c, h, w);  classes: int64 (m,), or None where only soft labels are there;
    soft: float32 (m, C) or None;  names: of the classes that `classes` counts, in their order, empty where unknown;
    learned_lr: the learning rate that was learned with the images;  factor: each image holds factor x factor images;
    label_scale: the factor in centred labels.
    """

    images: Tensor
    classes: Tensor | None = None
    soft: Tensor | None = None
    names: tuple[str, ...] = ()
    learned_lr: float | None = None
    factor: int = 1
    label_scale: float = 1.0


@dataclass(frozen=True)
class Space:
    """What the values of float images are: (pixels − mean) / std, then whitened; with mean 0 and std 1 pixels in [0, 1]."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    whitening: Whitening | None = None

    @classmethod
    def pixels(cls, channels: int) -> "Space":
        """Values that are pixels in [0, 1]."""
        return cls((0.0,) * channels, (1.0,) * channels)

    @property
    def plain(self) -> bool:
        """Whether values are pixels already."""
        return self.whitening is None and not any(self.mean) and set(self.std) == {1.0}

    def to_pixels(self, images: Tensor) -> Tensor:
        """Values → pixels, which may leave [0, 1]: methods that do not clamp use such values, so nothing is cut here."""
        if images.dtype == torch.uint8:
            return images.float() / 255
        if self.plain:
            return images.float()
        x = images.float() if self.whitening is None else self.whitening.inverse(images.float())
        inputs = NetworkInput(self.mean, self.std)
        return (x * inputs.std + inputs.mean).contiguous()


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a loose set is to be taken.

    like: the dataset that it was made from: its classes, and the mean and std where the set is of plain pixels;
    space: of float images;  labels: one of CONVENTIONS, or None to find out;  flip: whether flipped images keep their class.
    """

    like: ImageData
    space: Space
    labels: str | None = None
    flip: bool = True
    method: str = "imported"
    notes: list[str] = field(default_factory=list)


def as_set(loose: Loose, reading: Reading) -> SyntheticSet:
    """A set that `checked` has seen as one of ours: pixels un-normalised, labels centred, images image-major.

    Raises DataError when classes do not go together or the set is not as large for every class.
    """
    like, space = reading.like, reading.space
    loose = by_name(loose, like, reading)
    classes = class_numbers(loose, like.num_classes)
    order = image_major(classes, like.num_classes)
    labels, scale = centred(loose, classes, reading)
    pixels = space.to_pixels(loose.images)
    if share := outside(pixels):
        reading.notes.append(
            f"{share:.1%} of the pixel values lie outside [0, 1]. Pictures cut them off; `ddtool evaluate --exact` keeps them, "
            "and so scores the set as its authors would."
        )
    return SyntheticSet(
        images=pixels[order].contiguous(),
        labels=labels[order].contiguous(),
        hard=classes[order].contiguous(),
        ipc=len(order) // like.num_classes,
        class_names=like.class_names,
        mean=like.mean if space.plain else space.mean,
        std=like.std if space.plain else space.std,
        flip=reading.flip,
        label_scale=scale,
        method=reading.method,
        stage="distilled",
        label_method="hard" if loose.soft is None else "learned",
        source=like.source,
        factor=loose.factor,
        whitening=space.whitening,
        learned_lr=loose.learned_lr,
    )


def checked(loose: Loose, like: ImageData) -> Loose:
    """The set with images as Loose has them: whole numbers from 0 to 255 as bytes, fractions as float32.

    Raises DataError for other numbers, and unless the parts of the set go together and with the dataset.
    """
    check_shapes(loose, like)
    images = loose.images
    if images.is_floating_point():
        return replace(loose, images=images.float())
    if images.dtype == torch.bool or not 0 <= images.long().min() <= images.long().max() <= 255:
        kind = str(images.dtype).removeprefix("torch.")
        raise DataError(f"The images are {kind} values, and not all of them are from 0 to 255.", VALUES_HINT)
    return replace(loose, images=images.to(torch.uint8))


def check_shapes(loose: Loose, like: ImageData) -> None:
    """DataError unless images, labels, classes and factor go together and with the dataset."""
    images, m, C = loose.images, loose.images.shape[:1].numel(), like.num_classes
    if images.ndim != 4 or images.shape[1] not in (1, 3) or m == 0:
        raise DataError(f"Images of shape {tuple(images.shape)} are no set of images (m, c, h, w).", "Check the file.")
    if tuple(images.shape[1:]) != like.shape:
        raise DataError(
            f"The set has images of shape {tuple(images.shape[1:])}, the dataset of {like.shape}.",
            "Name the dataset that the set was made from (--on), at the same size (--resolution).",
        )
    if loose.soft is not None and tuple(loose.soft.shape) != (m, C):
        several, hint = loose.soft[:1].numel() // C, LABELS_HINT
        if loose.soft.shape == (m, several * C) and several in {k**2 for k in range(2, LARGEST_FACTOR + 1)}:
            hint = f"There are {several} soft labels for each image, of the parts that it holds: bring the set as npz or pt."
        raise DataError(
            f"Soft labels of shape {tuple(loose.soft.shape)} do not go with {m} images and {C} classes.", hint
        )
    if loose.classes is not None and (tuple(loose.classes.shape) != (m,)):
        raise DataError(f"Labels of shape {tuple(loose.classes.shape)} do not go with {m} images.", LABELS_HINT)
    if loose.classes is None and loose.soft is None:
        raise DataError("The set has neither labels nor soft labels.", "Name the file or column that holds them.")
    if not finite(images.float()) or (loose.soft is not None and not finite(loose.soft)):
        raise DataError("The set has values that are not finite.", "Check the file.")
    if loose.factor > min(images.shape[2:]):
        raise DataError(
            f"Images of {images.shape[2]}x{images.shape[3]} pixels hold no {loose.factor} x {loose.factor} others.",
            "Name a smaller --factor.",
        )


def by_name(loose: Loose, like: ImageData, reading: Reading) -> Loose:
    """The set with its classes, and the columns of its soft labels, in the dataset's order where the names are the same; else as
    it is. DataError for another number of names."""
    names, C = loose.names, like.num_classes
    if names and len(names) != C:
        raise DataError(f"The set has {len(names)} classes, the dataset {C}.", "Name another dataset (--on).")
    if set(names) != set(like.class_names):
        if not all(name.isdigit() for name in names):
            reading.notes.append(
                "The classes of the set have other names than those of the dataset: taken by their order."
            )
        return loose
    columns = [names.index(name) for name in like.class_names]
    position = torch.tensor([like.class_names.index(name) for name in names])
    classes = None if loose.classes is None else position[class_numbers(loose, C)]
    soft = None if loose.soft is None else loose.soft[:, columns]
    return replace(loose, classes=classes, soft=soft, names=like.class_names)


def class_numbers(loose: Loose, C: int) -> Tensor:
    """The class of each image, int64 (m,): the stated one, else that of the largest soft label. DataError outside 0 … C − 1."""
    if loose.classes is None:
        assert loose.soft is not None  # `check_shapes` has seen one of them
        return loose.soft.argmax(1)
    classes = loose.classes.long()
    if int(classes.min()) < 0 or int(classes.max()) >= C:
        raise DataError(f"The set has labels outside the {C} classes of the dataset.", "Name another dataset (--on).")
    return classes


def image_major(classes: Tensor, C: int) -> Tensor:
    """The order (m,) in which every prefix of C·k images has k of each class; DataError when classes differ in number."""
    counts = torch.bincount(classes, minlength=C)
    if int(counts.min()) != int(counts.max()):
        raise DataError(
            f"Classes have from {int(counts.min())} to {int(counts.max())} images each; a set has as many of every class.",
            "Where only soft labels are there, add a column of the classes that images were made for.",
        )
    return torch.argsort(classes, stable=True).view(C, -1).T.flatten()


def centred(loose: Loose, classes: Tensor, reading: Reading) -> tuple[Tensor, float]:
    """Labels in our convention, and their scale: the usual one, unless they are centred already.

    Raises DataError for probabilities that are none.
    """
    C = reading.like.num_classes
    if loose.soft is None:
        scale = usual_label_scale(C)
        return one_hot(classes, C) * scale, scale
    soft = loose.soft.float()
    if convention(soft, reading.labels) == CENTRED:
        if reading.labels is None and loose.label_scale == 1.0:
            reading.notes.append("Soft labels are no distributions: taken as centred scores, at scale 1.")
        return soft, loose.label_scale
    if not distributions(soft):
        hint = "Centred scores for squared error: --labels centred. Class scores: apply softmax first."
        raise DataError("The soft labels are no distributions: rows do not sum to 1, or have negative values.", hint)
    scale = usual_label_scale(C)
    return (soft - 1 / C) * scale, scale


def convention(soft: Tensor, asked: str | None) -> str:
    """One of CONVENTIONS: the one asked for, else the one that soft labels have."""
    return asked or (PROBABILITIES if distributions(soft) else CENTRED)


def distributions(soft: Tensor) -> bool:
    """Whether every row is a distribution over classes."""
    return bool(soft.min() >= -1e-6) and bool((soft.sum(1) - 1).abs().max() < 1e-3)


def outside(pixels: Tensor) -> float:
    """The share of pixel values outside [0, 1], which 8-bit images cut off."""
    return float(((pixels < -1e-4) | (pixels > 1 + 1e-4)).float().mean())


def positive(value: Any) -> bool:
    """Whether a value is one positive, finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= sys.float_info.max


def with_channels(images: Tensor) -> Tensor:
    """Images as (m, c, h, w): grey ones get their channel, channels-last bytes are turned."""
    if images.ndim == 3:
        return images[:, None]
    if images.ndim == 4 and images.shape[1] not in (1, 3) and images.shape[3] in (1, 3):
        return images.permute(0, 3, 1, 2).contiguous()
    return images
