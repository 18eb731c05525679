"""What networks see of an image: one map, used for real images, synthetic ones, the generator, scores and pictures alike."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddtool.data.parts import enlarged, reduced, tiled
from ddtool.data.whitening import Whitening


class NetworkInput:
    """Pixels → network input, and back: each channel standardised, then whitened where the target is.

    Three spaces: *pixels* in [0, 1] (or bytes); *standardised*, (pixels − mean) / std by channel; *network input*, which is the
    standardised image, or the whitened one. All images are (n, c, h, w).
    factor: synthetic images are stored as parts of images, factor x factor in each (`data.parts`), and `bound` keeps them such.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        whitening: Whitening | None = None,
        device: torch.device | str = "cpu",
        factor: int = 1,
    ) -> None:
        self.factor = factor
        shape = (1, len(mean), 1, 1)
        self.mean = torch.tensor(mean, dtype=torch.float32, device=device).view(shape)
        self.std = torch.tensor(std, dtype=torch.float32, device=device).view(shape)
        self.low, self.high = -self.mean / self.std, (1 - self.mean) / self.std
        self.whitening = None if whitening is None else whitening.to(device)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 or [0, 1] float images → network input, float32, channels last."""
        return self.whiten(self.standardise(images))

    def inverse(self, seen: Tensor) -> Tensor:
        """Network input → pixels, cut to [0, 1]."""
        return self.pixels(self.unwhiten(seen))

    def parts(self, seen: Tensor) -> Tensor:
        """Network input (n, c, h, w) → pixels of what is stored of each image: all of it, or with a factor its part."""
        return self.inverse(seen) if self.factor == 1 else self.pixels(reduced(self.unwhiten(seen), self.factor))

    def stored(self, seen: Tensor) -> Tensor:
        """Network input (m·factor², c, h, w) → pixels of the images that a set keeps, (m, c, h, w)."""
        return tiled(self.parts(seen), self.factor)

    def bound(self, seen: Tensor) -> Tensor:
        """Network input whose pixels are in [0, 1], and with a factor the nearest that is made of enlarged parts.

        Whitened images may leave [0, 1]: that steps are free there is more than a third of what whitening gains (docs/log.md).
        Their pixels are cut once, at the end."""
        if self.factor > 1:
            parts = reduced(self.unwhiten(seen), self.factor)
            parts = parts if self.whitening else self.cut(parts)
            return self.whiten(enlarged(parts, self.factor))
        return self.cut(seen) if self.whitening is None else seen

    def bound_(self, seen: Tensor) -> None:
        """`bound`, in place, for images that steps are taken on: no copy of all of them in each."""
        if self.factor > 1:
            seen.copy_(self.bound(seen))
        elif self.whitening is None:
            seen.clamp_(self.low, self.high)

    def start(self, images: Tensor) -> Tensor:
        """Real images (uint8 or [0, 1] floats) → the network input that synthetic ones begin as."""
        return self(images) if self.factor == 1 else self.bound(self(images))

    def standardise(self, images: Tensor) -> Tensor:
        """uint8 or [0, 1] float images → standardised."""
        pixels = images.float().div(255) if images.dtype == torch.uint8 else images
        return (pixels - self.mean) / self.std

    def whiten(self, standardised: Tensor) -> Tensor:
        """Standardised images → network input, channels last. Gradients flow through."""
        seen = standardised if self.whitening is None else self.whitening.forward(standardised)
        return seen.contiguous(memory_format=torch.channels_last)

    def unwhiten(self, seen: Tensor) -> Tensor:
        """Network input → standardised images: the inverse of `whiten`."""
        return seen.float() if self.whitening is None else self.whitening.inverse(seen)

    def pixels(self, standardised: Tensor) -> Tensor:
        """Standardised images → pixels, cut to [0, 1]."""
        return (standardised * self.std + self.mean).clamp(0, 1)

    def cut(self, standardised: Tensor) -> Tensor:
        """Standardised images whose pixels are cut to [0, 1]."""
        return torch.minimum(torch.maximum(standardised, self.low), self.high)
