"""Networks by name, for scores: `convnet`, `vgg11`, …, or with a norm layer of one's choice, `vgg11-batch`.

A network is one row of `NETWORKS`: how it is made, which norm layers it can have, and how scores call it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import nn

from ddtool.errors import UsageError, did_you_mean
from ddtool.models import networks
from ddtool.models.convnet import NORMS, ConvNet, depth_for, extra_padding
from ddtool.models.networks import Shape

DEFAULT = "convnet"
FIRST_WIDTH = 128
"""Channels of the first block of `convnet-wide`, whose further blocks have twice as many each (FRePo)."""

Widths = Callable[[int, int], tuple[int, ...]]
"""(a protocol's width, depth) → channels of each block."""


@dataclass(frozen=True)
class Kind:
    """A kind of network, ready to be made for images of any shape from its smallest side on."""

    make: Callable[[Shape, int, str, int], nn.Module]
    """(shape, classes, norm, width) → a network with weights that are yet to be drawn."""
    label: Callable[[Shape, int], str]
    """(shape, width) → what scores call it, without its norm."""
    norms: tuple[str, ...] = tuple(NORMS)
    """The norm layers that it can have, the one that the field gives it first."""
    follows: bool = False
    """Whether it takes the norm layer of the protocol that it is trained by, unless one is named."""
    smallest: int = 1
    """Pixels of the shorter side of an image at least, once 28x28 images are padded to 32x32."""
    norm: str = ""
    """The norm layer that was chosen; empty: none was yet."""
    width: int = 0
    """The protocol's width."""

    def under(self, norm: str, width: int) -> "Kind":
        """The same kind with what a protocol says of norm and width, where it listens to it."""
        return replace(self, norm=self.norm or (norm if self.follows else self.norms[0]), width=width)

    def check(self, shape: Shape) -> None:
        """UsageError when images of a shape (c, h, w) are too small for it."""
        if min(shape[1:]) + 2 * extra_padding(shape) < self.smallest:
            message = f"Images of {shape[1]}x{shape[2]} pixels are too small for {self.label(shape, self.width)}."
            raise UsageError(message, f"It takes {self.smallest}x{self.smallest} pixels and more.")

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        """A network for images of a shape (c, h, w); UsageError when they are too small for it."""
        self.check(shape)
        return self.make(shape, num_classes, self.norm, self.width)

    def text(self, shape: Shape) -> str:
        """Network, width and norm, as scores state them: 'convnet3-w128-none'."""
        return f"{self.label(shape, self.width)}-{self.norm}"


def _convnet(widths: Widths) -> Kind:
    """A ConvNet of as many blocks as the image bears, with these widths."""

    def make(shape: Shape, num_classes: int, norm: str, width: int) -> nn.Module:
        return ConvNet(shape, num_classes, widths(width, depth_for(shape)), norm)

    def label(shape: Shape, width: int) -> str:
        channels = dict.fromkeys(widths(width, depth_for(shape)))  # equal ones once
        return f"convnet{depth_for(shape)}-w{'-'.join(map(str, channels))}"

    return Kind(make, label, follows=True, smallest=2)


def _plain(cls: Callable[[Shape, int], nn.Module], label: str, norm: str = "none", smallest: int = 1) -> Kind:
    """A network that comes in one form."""
    return Kind(lambda shape, C, norm, width: cls(shape, C), lambda shape, width: label, (norm,), smallest=smallest)


def _normed(cls: Callable[[Shape, int, str], nn.Module], label: str, norms: tuple[str, ...], smallest: int = 1) -> Kind:
    """A network with a choice of norm layers."""
    return Kind(lambda shape, C, norm, width: cls(shape, C, norm), lambda shape, width: label, norms, smallest=smallest)


NETWORKS: dict[str, Kind] = {
    DEFAULT: _convnet(lambda width, depth: (width,) * depth),
    "convnet-wide": _convnet(lambda width, depth: tuple(FIRST_WIDTH << block for block in range(depth))),
    "alexnet": _normed(networks.AlexNet, "alexnet-w128-256", ("none", "instance", "batch"), smallest=8),
    "vgg11": _normed(networks.VGG11, "vgg11-w64-512", ("instance", "batch", "none"), smallest=32),
    "resnet18": _normed(networks.ResNet18, "resnet18-w64-512", ("instance", "batch", "none"), smallest=9),
    "mlp": _plain(networks.MLP, "mlp-w128"),
    "lenet": _plain(networks.LeNet, "lenet-w6-16", smallest=16),
    "vit": _plain(networks.ViT, f"vit-w{networks.ViT.WIDTH}", norm="layer"),
}
"""convnet: the field's (Gidaris and Komodakis 2018), of the protocol's width. convnet-wide: 128-256-512, as FRePo has it.
alexnet, vgg11, resnet18, mlp, lenet: as in DC and DSA. vit: a small one of ours. Of 8x8 pixels
resnet18 would leave one, of which instance norm leaves nothing."""


def find(name: str) -> Kind:
    """The kind of network that a name means, 'resnet18' or 'resnet18-batch'; UsageError for an unknown one."""
    if name in NETWORKS:
        return NETWORKS[name]
    network, _, norm = name.rpartition("-")
    if network in NETWORKS and norm in NETWORKS[network].norms:
        return replace(NETWORKS[network], norm=norm)
    if network in NETWORKS and norm in NORMS:
        raise UsageError(f"The network '{network}' has no form with {norm} norm.", f"Ask for '{network}' alone.")
    raise UsageError(f"Unknown network '{name}'.", did_you_mean(name, names()))


def names() -> list[str]:
    """Every name that `find` knows."""
    return [*NETWORKS, *(f"{name}-{norm}" for name, kind in NETWORKS.items() for norm in kind.norms)]
