"""What networks see of an image: one map, used for real images, synthetic ones, the generator, scores and pictures alike."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddtool.data.whitening import Whitening


class NetworkInput:
    """Pixels → network input, and back: each channel standardised, then whitened where the target is.

    Three spaces: *pixels* in [0, 1] (or bytes); *standardised*, (pixels − mean) / std by channel; *network input*, which is the
    standardised image, or the whitened one. All images are (n, c, h, w).
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        whitening: Whitening | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
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
        return self.pixels(seen.float() if self.whitening is None else self.whitening.inverse(seen))

    def bound(self, seen: Tensor) -> Tensor:
        """Network input whose pixels are in [0, 1]. Whitened images stay as they are: half of what whitening gains is that steps
        are free there (docs/log.md); their pixels are cut once, by `inverse`."""
        return self.cut(seen) if self.whitening is None else seen

    def bound_(self, seen: Tensor) -> None:
        """`bound`, in place, for images that steps are taken on: no copy of all of them in each."""
        if self.whitening is None:
            seen.clamp_(self.low, self.high)

    def standardise(self, images: Tensor) -> Tensor:
        """uint8 or [0, 1] float images → standardised, channels last."""
        pixels = images.float().div(255) if images.dtype == torch.uint8 else images
        return ((pixels - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def whiten(self, standardised: Tensor) -> Tensor:
        """Standardised images → network input, channels last. Gradients flow through."""
        if self.whitening is None:
            return standardised
        return self.whitening.forward(standardised).contiguous(memory_format=torch.channels_last)

    def pixels(self, standardised: Tensor) -> Tensor:
        """Standardised images → pixels, cut to [0, 1]."""
        return (standardised * self.std + self.mean).clamp(0, 1)

    def cut(self, standardised: Tensor) -> Tensor:
        """Standardised images whose pixels are cut to [0, 1]."""
        return torch.minimum(torch.maximum(standardised, self.low), self.high)
