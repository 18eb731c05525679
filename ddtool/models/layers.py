"""Layers in forms that are fast in bf16 on a CPU, with the values of torch's own but for rounding; elsewhere they are torch's own.

There the convolutions take little of the time and the passes over memory most of it. So a layer makes few of them, and no gradient
comes in another layout than its images: torch is many times slower with two layouts. Figures are in docs/log.md.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 1e-30
"""The least slope whose products with usual values are no denormal numbers, which are slow."""


def in_bf16(images: Tensor) -> bool:
    """Whether a layer is computed in bf16 on a CPU, and not for a compiler, which makes kernels of its own."""
    if images.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") is torch.bfloat16
    return autocast or images.dtype is torch.bfloat16


def memory_format(images: Tensor) -> torch.memory_format:
    """The layout of images (n, c, h, w)."""
    last = images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


# ------------------------------------------------------------------------------------------------------------ 2x2 pool


class Halved(nn.AvgPool2d):
    """2x2 average pooling, whose gradient is found by repetition: the same bits, three times as fast."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c, ⌊h/2⌋, ⌊w/2⌋)."""
        if images.requires_grad and images.dtype is torch.bfloat16 and in_bf16(images):
            return _ByRepetition.apply(images)
        return super().forward(images)


class _ByRepetition(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.left_over = 0, images.shape[3] % 2, 0, images.shape[2] % 2
        ctx.layout = memory_format(images)
        return F.avg_pool2d(images, 2)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        # Behind the last pool features are flattened channel by channel, and so is their gradient.
        repeated = F.interpolate(gradient.contiguous(memory_format=ctx.layout) / 4, scale_factor=2.0)
        return F.pad(repeated, ctx.left_over) if any(ctx.left_over) else repeated


# ------------------------------------------------------------------------------------------- a convolution and its ReLU


class RectifiedConv(nn.Conv2d):
    """A convolution and the ReLU after it, by one kernel, without a second pass over the result.

    By that kernel values below 0 are not 0 but `SLOPE` times what they were, which is lost in any sum: its own ReLU would make 0 of
    NaN as well, and hide that something has diverged.
    """

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c', h', w')."""
        if not (in_bf16(images) and has_one_kernel()):
            return F.relu_(super().forward(images))
        kind, shape = torch.bfloat16, ([*self.stride], [*self.padding], [*self.dilation], self.groups)
        bias = None if self.bias is None else self.bias.to(kind)
        return _Rectified.apply(images.to(kind), self.weight.to(kind), bias, *shape)


def one_kernel(images: Tensor, weights: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
    """oneDNN's convolution with a leaky ReLU, which torch's compiler uses on CPUs; shape: stride, padding, dilation, groups."""
    stride, padding, dilation, groups = shape
    kernel = torch.ops.mkldnn._convolution_pointwise
    return kernel(images, weights, bias, padding, stride, dilation, groups, "leaky_relu", [SLOPE], "")


@functools.cache
def has_one_kernel() -> bool:
    """Whether this build of torch has that kernel for this CPU, and it keeps what is no number: it is tried on three pixels."""
    images = torch.tensor([2.0, -2.0, math.nan], dtype=torch.bfloat16).view(3, 1, 1, 1)
    try:
        positive, negative, none = one_kernel(images, images[:1], None, [1, 1], [0, 0], [1, 1], 1).flatten().tolist()
    except (AttributeError, RuntimeError):  # another build; a CPU without the instructions
        return False
    return positive == 4 and -1e-20 < negative <= 0 and math.isnan(none)


class _Rectified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, images: Tensor, weights: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
        ctx.shape = shape
        rectified = one_kernel(images, weights, bias, *shape)
        ctx.save_for_backward(images, weights, rectified)
        return rectified

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weights, rectified = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.shape
        gradient = torch.ops.aten.threshold_backward(gradient, rectified, 0)
        gradients = torch.ops.aten.convolution_backward(
            gradient, images, weights, [len(weights)], stride, padding, dilation, False, [0, 0], groups,
            [*ctx.needs_input_grad[:3]],
        )  # fmt: skip
        return *gradients, None, None, None, None


# -------------------------------------------------------------------------------------------------------- instance norm


class InstanceNorm(nn.GroupNorm):
    """GroupNorm of one channel a group. Its statistics are at least float32; in bf16 on a CPU they are sums of centred images, each
    rounded to bf16 once (`_InstanceNorm`)."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, images: Tensor) -> Tensor:
        """(n, c, h, w) → (n, c, h, w)."""
        if images.dtype is torch.bfloat16 and in_bf16(images):
            return _InstanceNorm.apply(images, self.weight, self.bias, self.eps)
        if images.dtype is torch.float32 and images.device.type == "cpu":
            return super().forward(images)
        kind = torch.promote_types(images.dtype, torch.float32)
        var, mean = torch.var_mean(images.to(kind), (2, 3), correction=0, keepdim=True)
        scale = by_channel(self.weight) * (var + self.eps).rsqrt()
        return scaled(images, scale, by_channel(self.bias) - mean * scale)


class _InstanceNorm(torch.autograd.Function):
    """No image is there in float32: what rounding to bf16 does to single pixels is lost in their sum."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        near = middle(images)
        centred = images - near
        rest, inverse = statistics(centred, eps)
        ctx.save_for_backward(images, weight, near, rest, inverse)
        ctx.eps = eps
        scale = by_channel(weight) * inverse
        return scaled(centred, scale, by_channel(bias) - rest * scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight, near, rest, inverse = ctx.saved_tensors
        centred = images - near
        if torch.is_grad_enabled():  # for second derivatives the statistics are functions of the images
            rest, inverse = statistics(centred, ctx.eps)
        gradient, pixels = gradient.contiguous(memory_format=memory_format(images)), images[0, 0].numel()
        total = _PixelSum.apply(gradient)
        along = (_PixelSum.apply(gradient * centred) - rest * total) * inverse
        scale = by_channel(weight) * inverse
        slope = -scale * inverse * along / pixels
        # scale · (gradient − its mean − normed images · the mean of their product with it)
        through = scaled(centred, slope, -slope * rest - scale * total / pixels)
        through = torch.addcmul(through, gradient, scale.to(images.dtype))
        return through, along.sum((0, 2, 3)), total.sum((0, 2, 3)), None


def middle(images: Tensor) -> Tensor:
    """The mean of each channel of each image as bf16 has it, (n, c, 1, 1). Any number near it would do: nothing follows from it."""
    return images.detach().mean((2, 3), keepdim=True)


def statistics(centred: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The mean of each channel of each image, and the inverse of its standard deviation, both float32 (n, c, 1, 1).

    centred: images whose means are small, so that little is lost where the sums are rounded to bf16.
    """
    pixels = centred[0, 0].numel()
    mean = _PixelSum.apply(centred) / pixels
    var = _PixelSum.apply(centred * centred) / pixels - mean.square()
    return mean, (var + eps).rsqrt()


class _PixelSum(torch.autograd.Function):
    """(n, c, h, w) → (n, c, 1, 1) in float32. torch's own gradient of it fills an image in another layout."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        ctx.like = images.shape, images.dtype
        return images.sum((2, 3), keepdim=True).float()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        shape, kind = ctx.like
        return gradient.to(kind).expand(shape)


def scaled(images: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """images · scale + shift in one pass, in the type of the images."""
    return torch.addcmul(shift.to(images.dtype), images, scale.to(images.dtype))


def by_channel(values: Tensor) -> Tensor:
    """(c,) → (1, c, 1, 1)."""
    return values.view(1, -1, 1, 1)
