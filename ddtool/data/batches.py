"""Batches of images: real ones by class, parts of a set, and passes over many images.

X (n, c, h, w): images as networks see them; Y (n, C): their labels; C: the number of classes.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ddtool.data.images import BalancedSampler, ImageData, one_hot
from ddtool.data.inputs import NetworkInput
from ddtool.runtime.engine import Engine


@dataclass
class Real:
    """The target T (or a task drawn from a large set): class-balanced batches on the device, and Z.

    Images that take more than the engine has to work in stay on the host, memory-mapped; then a batch asks the device for its rows,
    and moves those.
    """

    data: ImageData
    sampler: BalancedSampler
    inputs: NetworkInput

    @classmethod
    def of(cls, data: ImageData, engine: Engine, factor: int = 1) -> "Real":
        """factor: how synthetic images are stored, as `NetworkInput` says."""
        data = data.to(engine.device, images=on_device(data, engine))
        inputs = NetworkInput(data.mean, data.std, data.whitening, data.labels.device, factor)
        return cls(data, BalancedSampler(data.labels, data.num_classes), inputs)

    def among(self, rows: Tensor) -> "Real":
        """The same target, its batches drawn from the images at `rows` alone. No image is copied."""
        return replace(self, sampler=BalancedSampler(self.data.labels, self.data.num_classes, rows))

    def batch(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """About n images, the same number of each class: X_t, Y_t."""
        return self.at(self.sampler(n, rng))

    def at(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """The images at `indices` as networks see them, with centred one-hot labels."""
        return self.inputs(self.data.at(indices)), one_hot(self.data.labels[indices], self.data.num_classes)


def on_device(data: ImageData, engine: Engine) -> bool:
    """Whether all images are held on the engine's device: where they take no more bytes than it has to work in."""
    return data.images.nbytes <= engine.memory


@dataclass
class Pool:
    """Z: initial samples X_s, image-major, so that the first k·C rows hold k images of every class; and for every IPC k that is
    seen, labels Y_s (k·C, C) of those."""

    X_s: Tensor
    Y_s: dict[int, Tensor]

    def batch(self, ipc: int, most: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """The first `ipc` images of every class; of more than `most` images, a random class-balanced part."""
        Y = self.Y_s[ipc]
        return balanced_part(self.X_s[: len(Y)], Y, Y.shape[1], most, rng)


def usual_batch(C: int, width: int) -> int:
    """Real images a step: 256, or two for each channel of the last block of the networks, or 10 of each class, up to 2,000; the
    most of these."""
    return max(256, 2 * width, min(10 * C, 2000))


def with_flips(X: Tensor, Y: Tensor, flip: bool) -> tuple[Tensor, Tensor]:
    """S with its images flipped left-right beside it, when they keep their class."""
    return (torch.cat([X, X.flip(3)]), torch.cat([Y, Y])) if flip else (X, Y)


def in_passes(function: Callable, X: Tensor, n: int = 128) -> Tensor:
    """function(X) for images X (m, c, h, w), in passes over exactly n of them, the last one filled up with zeros.

    On some CPUs the bits of a matrix product depend on the number of rows; so the result for an image does not depend on how
    many others there are.
    """
    padded = [nn.functional.pad(part, (0, 0, 0, 0, 0, 0, 0, n - len(part))) for part in X.split(n)]
    return torch.cat([function(part) for part in padded])[: len(X)]


def in_chunks(f: Callable, X: Tensor, chunk: int = 500) -> Tensor:
    """f(X), (n, d), computed part by part."""
    return torch.cat([f(part) for part in X.split(chunk)])


SEEN = 4
"""How many of the parts of `covering_parts` hold an image, at least."""


def covering_parts(m: int, C: int, most: int, parts: int, rng: torch.Generator) -> list[Tensor]:
    """Rows of at least `parts` parts, each with the same random images of each of C classes (at least one; at most `most`
    rows) out of m, image-major; all images are in about as many. Of no more than `most` rows: all of them in every part."""
    n = m // C
    k = n if m <= most else max(1, most // C)
    cuts = math.ceil(n / k)
    if cuts == 1:
        return [torch.arange(m, device=rng.device)] * parts
    rounds = max(math.ceil(parts / cuts), SEEN)
    wrapped = torch.arange(cuts * k, device=rng.device) % n
    images = torch.cat([torch.randperm(n, generator=rng, device=rng.device)[wrapped] for _ in range(rounds)])
    rows = images.view(-1, k, 1) * C + torch.arange(C, device=rng.device)
    return list(rows.flatten(1))


def balanced_part(X: Tensor, Y: Tensor, C: int, most: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    """(X, Y) itself up to `most` rows; else the same random images of each of C classes, at least one. X is image-major."""
    if len(X) <= most:
        return X, Y
    images = torch.randperm(len(X) // C, generator=rng, device=X.device)[: max(1, most // C)]
    chosen = (images[:, None] * C + torch.arange(C, device=X.device)).flatten()
    return X[chosen], Y[chosen]
