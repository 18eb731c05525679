"""The field's other networks for evaluation, as DC and DSA (Zhao and Bilen 2021) define them, and a small ViT.

Every network takes images (n, c, h, w) and gives class scores (n, C). The same definition serves any size of image from the
one that `registry` states: where the originals are for 32x32, the linear layer follows the size, or an average over the image
comes before it, which at 32x32 is the original. 28x28 images are padded to 32x32 by the first convolution, as in the field.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.models.convnet import NORMS, extra_padding

Shape = tuple[int, int, int]
"""(c, h, w) of an image."""


class MLP(nn.Sequential):
    """Two hidden layers of 128 units on the pixels."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(math.prod(shape), 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, 128),
            nn.ReLU(inplace=True),
            nn.Linear(128, num_classes),
        )


class LeNet(nn.Sequential):
    """LeNet-5 with ReLU and max pooling: 6 and 16 channels of 5x5, then 120 and 84 units."""

    def __init__(self, shape: Shape, num_classes: int) -> None:
        padding = extra_padding(shape)
        height, width = (((side + 2 * padding - 4) // 2 - 4) // 2 for side in shape[1:])
        super().__init__(
            nn.Conv2d(shape[0], 6, 5, padding=padding),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(6, 16, 5),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(16 * height * width, 120),
            nn.ReLU(inplace=True),
            nn.Linear(120, 84),
            nn.ReLU(inplace=True),
            nn.Linear(84, num_classes),
        )


def conv_block(channels: int, out: int, size: int, padding: int, norm: str) -> list[nn.Module]:
    """A convolution that keeps the resolution but for `padding`, a norm layer, ReLU."""
    return [nn.Conv2d(channels, out, size, padding=padding), NORMS[norm](out), nn.ReLU(inplace=True)]


class AlexNet(nn.Sequential):
    """AlexNet for small images: five convolutions with three poolings, one linear layer."""

    def __init__(self, shape: Shape, num_classes: int, norm: str) -> None:
        grown = extra_padding(shape)
        height, width = ((side + 2 * grown) // 8 for side in shape[1:])
        super().__init__(
            *conv_block(shape[0], 128, 5, 2 + grown, norm),
            nn.MaxPool2d(2),
            *conv_block(128, 192, 5, 2, norm),
            nn.MaxPool2d(2),
            *conv_block(192, 256, 3, 1, norm),
            *conv_block(256, 192, 3, 1, norm),
            *conv_block(192, 192, 3, 1, norm),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(192 * height * width, num_classes),
        )


class VGG11(nn.Sequential):
    """VGG11 for small images: eight convolutions with five poolings, an average over what is left, one linear layer."""

    STAGES = ((64,), (128,), (256, 256), (512, 512), (512, 512))

    def __init__(self, shape: Shape, num_classes: int, norm: str) -> None:
        channels, padding = shape[0], 1 + extra_padding(shape)
        layers: list[nn.Module] = []
        for stage in self.STAGES:
            for width in stage:
                layers += conv_block(channels, width, 3, padding, norm)
                channels, padding = width, 1
            layers.append(nn.MaxPool2d(2))
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut, which is a 1x1 convolution where sizes differ."""

    def __init__(self, channels: int, out: int, stride: int, norm: str) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, out, 3, stride, 1, bias=False),
            NORMS[norm](out),
            nn.ReLU(inplace=True),
            nn.Conv2d(out, out, 3, 1, 1, bias=False),
            NORMS[norm](out),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), NORMS[norm](out))

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) → (n, out, h/stride, w/stride)."""
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet18(nn.Sequential):
    """ResNet18 for small images: a 3x3 convolution without pooling in front, four stages of two blocks."""

    def __init__(self, shape: Shape, num_classes: int, norm: str) -> None:
        layers: list[nn.Module] = [nn.Conv2d(shape[0], 64, 3, 1, 1, bias=False), NORMS[norm](64), nn.ReLU(inplace=True)]
        channels = 64
        for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
            layers += [ResidualBlock(channels, width, stride, norm), ResidualBlock(width, width, 1, norm)]
            channels = width
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


class TransformerBlock(nn.Module):
    """Self-attention, then two linear layers, each on normalised tokens and added to them."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.inward, self.outward = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (n, t, width) → tokens of the same shape."""
        x = x + self.outward(self.attention(self.before(x)))
        return x + self.mlp(self.between(x))

    def attention(self, x: Tensor) -> Tensor:
        """What each token takes from all of them, (n, t, width)."""
        q, k, v = self.inward(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # each (n, heads, t, d)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class ViT(nn.Module):
    """A small vision transformer: 8x8 patches of an image, six blocks of width 192 with three heads.

    Ours, after the plain ViT of Beyer et al. (2022): positions are fixed sines, the class is read off the mean of the tokens.
    """

    WIDTH, DEPTH, HEADS = 192, 6, 3

    def __init__(self, shape: Shape, num_classes: int) -> None:
        super().__init__()
        side = max(1, math.ceil(min(shape[1:]) / 8))
        self.patches = nn.Conv2d(shape[0], self.WIDTH, side, stride=side)
        self.blocks = nn.Sequential(*(TransformerBlock(self.WIDTH, self.HEADS) for _ in range(self.DEPTH)))
        self.norm, self.head = nn.LayerNorm(self.WIDTH), nn.Linear(self.WIDTH, num_classes)
        places = positions(shape[1] // side, shape[2] // side, self.WIDTH)
        self.register_buffer("places", places, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) → class scores (n, C)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.blocks(tokens)).mean(1))


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed sines and cosines of the place of each patch, row by row, (rows · columns, width)."""
    rates = 10_000 ** -torch.linspace(0, 1, width // 4)
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [place.flatten()[:, None] * rates for place in (y, x)]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)
