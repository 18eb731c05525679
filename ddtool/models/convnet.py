"""Networks: the field's ConvNet, for random features and for evaluation, and how their weights are drawn."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from ddtool.errors import UsageError, did_you_mean
from ddtool.models.layers import Halved, InstanceNorm, RectifiedConv
from ddtool.runtime.engine import Engine, frozen_random_state

PASS = 1024
"""Images at once through a network of random features, where memory allows."""


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "none": lambda width: nn.Identity(),
    "batch": nn.BatchNorm2d,
    "instance": InstanceNorm,
}


def known_norm(name: str) -> str:
    """The name of a norm layer as it is; UsageError for an unknown one."""
    if name not in NORMS:
        raise UsageError(f"Unknown norm '{name}'.", did_you_mean(name, NORMS))
    return name


class ConvNet(nn.Module):
    """The field's ConvNet (Gidaris and Komodakis 2018): blocks of 3x3 conv → norm → ReLU → 2x2 average pool, then a linear head.

    `widths` gives the channels of each block; (128, 128, 128) with instance norm is ConvNet-3 with 320,010 parameters
    for 3x32x32 and 10 classes. 28x28 grey images are padded to 32x32 first. With `norm_first` the norm layers
    stand before every convolution but the first (FRePo).
    """

    def __init__(
        self,
        shape: tuple[int, int, int],
        num_classes: int,
        widths: Sequence[int] = (128, 128, 128),
        norm: str = "instance",
        norm_first: bool = False,
    ) -> None:
        super().__init__()
        known_norm(norm)
        channels, height, width = shape
        self.shape, self.norm, self.arguments = shape, norm, (shape, num_classes, tuple(widths), norm, norm_first)
        self.widths, self.edge = tuple(widths), extra_padding(shape)
        height, width = (height + 2 * self.edge) >> len(widths), (width + 2 * self.edge) >> len(widths)
        if min(height, width) < 1:
            raise UsageError(
                f"{len(widths)} blocks are too many for {shape[1]}x{shape[2]} images.",
                "Read the images larger: --resolution 32.",
            )
        rectified = norm_first or norm == "none"  # no norm layer stands between a convolution and its ReLU
        blocks: list[nn.Module] = []
        for i, out in enumerate(widths):
            conv = (RectifiedConv if rectified else nn.Conv2d)(channels, out, 3, padding=1)
            normed = [conv, NORMS[norm](out)] if not norm_first else [NORMS[norm](channels), conv] if i else [conv]
            blocks += [*normed, nn.Identity() if rectified else nn.ReLU(inplace=True), Halved()]
            channels = out
        self.body = nn.Sequential(*blocks)
        self.feature_dim = channels * height * width
        self.head = nn.Linear(self.feature_dim, num_classes)

    @classmethod
    def described(cls, text: str) -> "ConvNet":
        """A network such as the one of a `description`; torch's global random state stays as it is."""
        shape, num_classes, widths, norm, norm_first = json.loads(text)
        with frozen_random_state():
            return cls(tuple(shape), num_classes, widths, norm, norm_first)

    def description(self) -> str:
        """What it was made from, as JSON."""
        return json.dumps(self.arguments)

    def features(self, images: Tensor) -> Tensor:
        """(n, c, h, w) → (n, d), flattened channel-major."""
        # Images are padded beforehand: a convolution of 3x3 that pads by 3 finds the gradient of its bias seven times as slowly.
        return self.body(F.pad(images, (self.edge,) * 4) if self.edge else images).flatten(1)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) → class scores (n, C)."""
        return self.head(self.features(images))


def extra_padding(shape: tuple[int, int, int]) -> int:
    """How many zeros a network puts beyond each edge of an image: 28x28 images become 32x32, as the field has it."""
    return 2 if shape[1:] == (28, 28) else 0


def depth_for(shape: tuple[int, int, int]) -> int:
    """Blocks that bring an image to about 4x4: 3 for 32x32, 4 for 64x64, 5 for 128x128; no more than its shorter side bears."""
    return max(1, min(round(math.log2(max(shape[1:]) / 4)), math.floor(math.log2(min(shape[1:])))))


def doubling_widths(width: int, depth: int) -> tuple[int, ...]:
    """Widths that double while the resolution halves, ending at `width`: (32, 64, 128) for 128 and 3."""
    return tuple(max(1, width >> (depth - 1 - i)) for i in range(depth))


@torch.no_grad()
def initialise(net: nn.Module, rng: torch.Generator, scheme: str = "he") -> None:
    """Draw every weight of `net` afresh, in place: 'he' N(0, 2/fan_in), 'lecun' N(0, 1/fan_in), 'torch' U(±fan_in^-½).

    Biases are zero, except 'torch' (the same uniform); norm layers become the identity. Nothing is asked of the host.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            draw_weights(module, rng, scheme)
        elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm):
            module.reset_parameters()


def draw_weights(layer: nn.Conv2d | nn.Linear, rng: torch.Generator, scheme: str) -> None:
    """Fresh weights and bias of one layer by `initialise`'s scheme."""
    fan_in = layer.weight[0].numel()
    if scheme == "torch":
        for tensor in layer.parameters():
            tensor.uniform_(-(fan_in**-0.5), fan_in**-0.5, generator=rng)
        return
    std = math.sqrt((2 if scheme == "he" else 1) / fan_in)
    # Drawn into plain rows: on a CPU torch takes eight times as long for normal numbers in channels-last layout.
    drawn = torch.empty_like(layer.weight, memory_format=torch.contiguous_format)
    layer.weight.copy_(drawn.normal_(0, std, generator=rng))
    if layer.bias is not None:
        layer.bias.zero_()


class Features:
    """The features of a network, float32 (n, d), for network input (n, c, h, w): a row-wise function (`runtime.rows`).

    Images go through it in parts where that is faster, or where all of them do not fit the memory of the engine; those that do not
    are computed again for gradients, part by part. Under batch norm all of them go at once, since its statistics are those of all.
    """

    kind: ClassVar[str] = "features"

    def __init__(self, net: ConvNet, engine: Engine) -> None:
        self.net, self.engine, self._features = net, engine, engine.wrap(net.features)
        self.widest = widest(net.shape, net.widths)
        self.at_once = engine.at_once(self.widest, PASS) if net.norm != "batch" else sys.maxsize

    @classmethod
    def described(cls, text: str, engine: Engine) -> "Features":
        """From a `description`; the weights are to be set."""
        return Features(engine.place(ConvNet.described(text)).requires_grad_(False), engine)

    def description(self) -> str:
        """As `Rowwise` has it."""
        return self.net.description()

    def weights(self) -> list[Tensor]:
        """As `Rowwise` has it."""
        return list(self.net.body.parameters())

    def __call__(self, images: Tensor) -> Tensor:
        """Network input (n, c, h, w) → float32 features (n, d)."""
        if self.net.norm == "batch":
            return self._features(images)
        return self.engine.rowwise(self, images)

    def rows(self, X: Tensor, *more: Tensor) -> Tensor:
        """The features of images X, by this process."""
        for_gradients = X.requires_grad and torch.is_grad_enabled()
        if not for_gradients or len(X) <= self.at_once or self.at_once >= PASS:
            size = self.engine.part(self.widest, len(X))
            return torch.cat([self._features(part) for part in X.split(size)])
        if self.engine.graphs:
            hint = "Give more --memory, or take fewer images a step (--set refine.synthetic_batch=N), or leave --graphs out."
            raise UsageError(
                "Steps whose images go through the network in parts, to fit the memory, are not captured.", hint
            )
        again = partial(checkpoint, self._features, use_reentrant=False, preserve_rng_state=False)
        return torch.cat([again(part) for part in X.split(self.at_once)])


class RandomFeatures(Features):
    """f_θ: the features of a network with random weights (He). `draw` makes it f_θ*, a fresh one, in place."""

    def __init__(
        self, shape: tuple[int, int, int], widths: Sequence[int], norm: str, engine: Engine, rng: torch.Generator
    ) -> None:
        with frozen_random_state():
            net = engine.place(ConvNet(shape, 1, widths, norm)).requires_grad_(False)
        super().__init__(net, engine)
        self.width, self.norm = widths[-1], norm
        self.draw(rng)

    @classmethod
    def doubling(
        cls, shape: tuple[int, int, int], width: int, norm: str, engine: Engine, rng: torch.Generator
    ) -> "RandomFeatures":
        """Those of a network whose widths double up to `width`, as deep as images of `shape` (c, h, w) are usually given."""
        return cls(shape, doubling_widths(width, depth_for(shape)), norm, engine, rng)

    def draw(self, rng: torch.Generator) -> "RandomFeatures":
        """Fresh weights from `rng`, asking nothing of the host."""
        initialise(self.net.body, rng)
        return self


def widest(shape: tuple[int, int, int], widths: Sequence[int]) -> int:
    """The most values that an image has between two layers of a ConvNet."""
    _, h, w = shape
    return max(width * (h >> i) * (w >> i) for i, width in enumerate(widths))
