"""The field's ConvNet, how its weights are drawn, and random features."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ddtool.errors import UsageError
from ddtool.models import layers
from ddtool.models.convnet import (
    ConvNet,
    RandomFeatures,
    depth_for,
    doubling_widths,
    initialise,
)
from ddtool.models.layers import Halved, InstanceNorm, RectifiedConv, _ByRepetition, _Rectified
from ddtool.runtime.engine import Engine


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ------------------------------------------------------------------------------------------------------------ ConvNet


@pytest.mark.parametrize(
    ("shape", "classes", "parameters"),
    [((3, 32, 32), 10, 320_010), ((1, 28, 28), 10, 317_706), ((3, 32, 32), 100, 504_420)],
)
def test_parameters_of_the_published_convnet(shape: tuple[int, int, int], classes: int, parameters: int) -> None:
    net = ConvNet(shape, classes)
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net.feature_dim == 2048
    assert net(torch.zeros(2, *shape)).shape == (2, classes)


def by_hand(net: ConvNet, x: torch.Tensor, padding: int) -> torch.Tensor:
    """ConvNet-2 with affine instance norm, from functions and the net's raw weights."""
    weights = dict(net.named_parameters())
    for block, pad in ((0, padding), (4, 1)):
        x = F.conv2d(x, weights[f"body.{block}.weight"], weights[f"body.{block}.bias"], padding=pad)
        x = F.instance_norm(x, weight=weights[f"body.{block + 1}.weight"], bias=weights[f"body.{block + 1}.bias"])
        x = F.avg_pool2d(x.clamp_min(0), 2)
    return x.reshape(len(x), -1)


@pytest.mark.parametrize(("shape", "padding"), [((3, 12, 8), 1), ((1, 28, 28), 3)])
def test_convnet_is_conv_norm_relu_pool(shape: tuple[int, int, int], padding: int) -> None:
    net, x = ConvNet(shape, 5, (4, 6), "instance"), torch.randn(3, *shape, generator=rng())
    for p in net.parameters():
        nn.init.normal_(p, generator=rng(p.numel()))
    features = by_hand(net, x, padding)
    assert torch.allclose(net.features(x), features, atol=1e-4)
    assert features.shape[1] == net.feature_dim
    assert torch.allclose(net(x), features @ net.head.weight.T + net.head.bias, atol=1e-3)


@pytest.mark.parametrize(
    ("norm", "kind"), [("none", nn.Identity), ("batch", nn.BatchNorm2d), ("instance", nn.GroupNorm)]
)
def test_norm_options(norm: str, kind: type) -> None:
    body = ConvNet((3, 16, 16), 2, (4, 8), norm).body
    layers = [body[1], body[5]]
    assert all(isinstance(layer, kind) for layer in layers)
    if norm == "instance":
        assert [m.num_groups for m in layers] == [4, 8]


def test_unknown_norm_is_refused() -> None:
    with pytest.raises(UsageError, match="Unknown norm 'instanse'") as caught:
        ConvNet((3, 16, 16), 2, (4,), "instanse")
    assert "'instance'" in caught.value.hint


def test_too_many_blocks_are_refused() -> None:
    assert ConvNet((3, 8, 16), 2, (4, 4, 4)).feature_dim == 4 * 1 * 2
    with pytest.raises(UsageError, match="4 blocks are too many for 8x16 images"):
        ConvNet((3, 8, 16), 2, (4, 4, 4, 4))


@pytest.mark.parametrize(
    ("side", "depth"), [(4, 1), (8, 1), (16, 2), (28, 3), (32, 3), (64, 4), (96, 5), (128, 5), (224, 6)]
)
def test_depth_brings_images_to_about_4x4(side: int, depth: int) -> None:
    assert depth_for((3, side, side)) == depth_for((1, side // 2, side)) == depth
    ConvNet((3, side, side), 2, (2,) * depth)


@pytest.mark.parametrize("size", [(8, 64), (16, 128), (96, 12), (20, 200), (32, 512), (2, 3), (3, 100)])
def test_depth_is_no_more_than_the_shorter_side_bears(size: tuple[int, int]) -> None:
    depth = depth_for((3, *size))
    assert ConvNet((3, *size), 2, (2,) * depth).feature_dim >= 2
    assert min(size) < 2 ** (depth + 1) or depth == depth_for((3, max(size), max(size)))  # as deep as it can be


def test_doubling_widths() -> None:
    assert doubling_widths(128, 3) == (32, 64, 128)
    assert doubling_widths(128, 1) == (128,)
    assert doubling_widths(2, 4) == (1, 1, 1, 2)


# ------------------------------------------------------------------------------------------------------- initial weights


def spoiled(norm: str = "none") -> ConvNet:
    """A net with weights, biases and statistics that no scheme would give."""
    net = ConvNet((3, 16, 16), 50, (64, 128), norm)
    with torch.no_grad():
        for t in net.state_dict().values():
            t.fill_(7)
    return net


@pytest.mark.parametrize(("scheme", "gain"), [("he", 2.0), ("lecun", 1.0), ("torch", 1 / 3)])
def test_variance_of_weights_by_fan_in(scheme: str, gain: float) -> None:
    net = spoiled()
    initialise(net, rng(), scheme)
    for layer, fan_in in ((net.body[0], 3 * 9), (net.body[4], 64 * 9), (net.head, 128 * 4 * 4)):
        w = layer.weight.double()
        error = 5 / math.sqrt(2 * w.numel())  # five standard errors of a normal sample's standard deviation
        assert w.std().item() == pytest.approx(math.sqrt(gain / fan_in), rel=error)
        assert abs(w.mean().item()) < 5 * math.sqrt(gain / fan_in / w.numel())
        kurtosis = (w / w.std()).pow(4).mean().item()
        assert kurtosis == pytest.approx(9 / 5 if scheme == "torch" else 3, abs=0.45)  # uniform, normal
        if scheme == "torch":
            assert w.abs().max() <= fan_in**-0.5
            assert 0.5 * fan_in**-0.5 < layer.bias.abs().max() <= fan_in**-0.5
        else:
            assert (layer.bias == 0).all()


@pytest.mark.parametrize("norm", ["batch", "instance"])
def test_norm_layers_become_the_identity(norm: str) -> None:
    net = spoiled(norm)
    initialise(net, rng())
    for layer in (net.body[1], net.body[5]):
        assert (layer.weight == 1).all()
        assert (layer.bias == 0).all()
        if norm == "batch":
            assert (layer.running_mean == 0).all()
            assert (layer.running_var == 1).all()


@pytest.mark.parametrize("scheme", ["he", "lecun", "torch"])
def test_weights_are_drawn_in_place_from_the_generator_alone(scheme: str, untouched_global_rng: None) -> None:
    with torch.random.fork_rng(devices=[]):
        a, b, c = spoiled("instance"), spoiled("instance"), spoiled("instance")
    places = [p.data_ptr() for p in a.parameters()]
    for net, seed in ((a, 1), (b, 1), (c, 2)):
        initialise(net, rng(seed), scheme)
    assert [p.data_ptr() for p in a.parameters()] == places
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.head.weight, c.head.weight)
    assert not torch.equal(a.body[0].weight, c.body[0].weight)
    stream = rng(1)
    initialise(a, stream, scheme)
    initialise(b, stream, scheme)
    assert not torch.equal(a.head.weight, b.head.weight)


# ------------------------------------------------------------------------------------------------------ random features


def test_random_features_are_a_he_convnet_before_its_head(engine: Engine, untouched_global_rng: None) -> None:
    f = RandomFeatures((3, 16, 16), (4, 8), "none", engine, rng(3))
    x = torch.randn(5, 3, 16, 16, generator=rng())
    with torch.random.fork_rng(devices=[]):
        net = ConvNet((3, 16, 16), 1, (4, 8), "none").to(memory_format=torch.channels_last)
    initialise(net.body, rng(3), "he")
    assert torch.allclose(f(x), net.features(x), atol=1e-6)
    assert f(x).shape == (5, 8 * 4 * 4)


def test_draw_gives_new_features_each_time(engine: Engine, untouched_global_rng: None) -> None:
    f, x = RandomFeatures((3, 16, 16), (4, 8), "none", engine, rng(3)), torch.ones(2, 3, 16, 16)
    first, stream = f(x), rng(3)
    again = f.draw(stream)(x)
    other = f.draw(stream)(x)
    assert torch.equal(first, again)
    assert not torch.allclose(other, first, atol=1e-2)
    assert f.draw(stream) is f


def test_gradient_goes_to_the_images_and_not_to_the_weights(engine: Engine) -> None:
    f = RandomFeatures((3, 16, 16), (4, 8), "instance", engine, rng())
    x = torch.randn(2, 3, 16, 16, generator=rng()).requires_grad_()
    f(x).square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0
    assert all(not p.requires_grad and p.grad is None for p in f.net.parameters())


def test_features_are_float32_under_bf16() -> None:
    x = torch.randn(4, 3, 16, 16, generator=rng())
    exact, coarse = (
        RandomFeatures((3, 16, 16), (4, 8), "none", Engine(torch.device("cpu"), bf16), rng())(x)
        for bf16 in (False, True)
    )
    assert exact.dtype == coarse.dtype == torch.float32
    error = (exact - coarse).norm() / exact.norm()
    assert 1e-4 < error < 2e-2  # bf16 was used, and only bf16's error came of it


def test_instance_norm_in_bf16_is_that_in_float64_but_for_rounding() -> None:
    """Its output, gradients and second derivatives; every tensor off by less than some roundings of bf16."""
    ours, theirs = InstanceNorm(3), nn.GroupNorm(3, 3).double()
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.copy_(torch.randn(3, generator=rng()) + 1)
            b.copy_(a)
    x = (1 + 2 * torch.randn(4, 3, 8, 6, generator=rng(1))).to(torch.bfloat16)
    to = torch.randn(4, 3, 8, 6, generator=rng(2)).to(torch.bfloat16)
    results = []
    for norm in (ours, theirs):
        kind = torch.bfloat16 if norm is ours else torch.float64
        leaf = x.to(kind).contiguous(memory_format=torch.channels_last).requires_grad_()
        out = norm(leaf)
        weights = list(norm.parameters())
        first = torch.autograd.grad((out * to.to(kind)).double().sum(), [leaf, *weights], create_graph=True)
        along = sum((g.double() * torch.randn(g.shape, generator=rng(3))).sum() for g in first)
        second = torch.autograd.grad(along, [leaf, weights[0]])
        results.append([out, *first, *second])
    assert results[0][0].grad_fn.name().startswith("_InstanceNorm")
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in (results[0][0], results[0][1]))
    for a, b in zip(*results, strict=True):
        assert (a - b).norm() < 2**-6 * b.norm()


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_instance_norm_is_torchs_with_its_derivatives(dtype: torch.dtype, tolerance: float) -> None:
    rng = torch.Generator().manual_seed(0)
    ours, theirs = InstanceNorm(3).to(dtype), nn.GroupNorm(3, 3).to(dtype)
    with torch.no_grad():
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            a.copy_(torch.randn(3, generator=rng))
            b.copy_(a)
    x = (1 + 5 * torch.randn(4, 3, 5, 6, generator=rng)).to(dtype).contiguous(memory_format=torch.channels_last)
    results = []
    for norm in (ours, theirs):
        leaf = x.clone().requires_grad_()
        out = norm(leaf)
        weights = list(norm.parameters())
        first = torch.autograd.grad(out.sin().sum(), [leaf, *weights], create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in first), [leaf, *weights])
        results.append([out, *first, *second])
    assert results[0][0].is_contiguous(memory_format=torch.channels_last)
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, rtol=tolerance, atol=tolerance)


def in_parts(norm: str, memory: int) -> tuple[RandomFeatures, torch.Tensor, torch.Tensor]:
    """Features of 24 images under an engine with so much memory, and the gradient of a sum of them in the images."""
    f = RandomFeatures((3, 16, 16), (4, 8), norm, Engine(torch.device("cpu"), False, memory=memory), rng())
    x = torch.randn(24, 3, 16, 16, generator=rng()).requires_grad_()
    features = f(x)
    (features * torch.linspace(0.5, 2, features.shape[1])).square().sum().backward()
    assert x.grad is not None
    return f, features.detach(), x.grad


@pytest.mark.parametrize("norm", ["none", "instance"])
def test_images_that_do_not_fit_the_memory_go_through_in_parts(norm: str) -> None:
    """A quarter of the memory holds so many images of 4 channels at 16x16, four times in float32."""
    whole, features, gradient = in_parts(norm, 2**33)
    parts, same, in_passes = in_parts(norm, 4 * 16 * 4 * 16 * 16 * 5)
    assert (whole.at_once > 24, parts.at_once) == (True, 5)
    assert torch.allclose(same, features, rtol=1e-4, atol=1e-5)
    assert torch.allclose(in_passes, gradient, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        x = torch.randn(24, 3, 16, 16, generator=rng())
        assert torch.allclose(parts(x), whole(x), rtol=1e-4, atol=1e-5)


def test_batch_norm_sees_all_images_whatever_the_memory() -> None:
    """Its statistics are those of the batch: parts would have others."""
    _, features, gradient = in_parts("batch", 2**33)
    _, same, again = in_parts("batch", 1)
    assert torch.equal(same, features)
    assert torch.equal(again, gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("side", [(8, 8), (7, 6), (5, 5), (2, 3)])
def test_pooling_has_the_gradient_of_torchs_own_to_the_last_bit(side: tuple[int, int], dtype: torch.dtype) -> None:
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(3, 4, *side, generator=rng).to(dtype).contiguous(memory_format=torch.channels_last)
    ours, theirs = (images.clone().requires_grad_() for _ in range(2))
    made, expected = Halved()(ours), F.avg_pool2d(theirs, 2)
    above = torch.randn(made.shape, generator=rng).to(dtype)
    made.backward(above)
    expected.backward(above)
    assert torch.equal(made, expected)
    assert torch.equal(ours.grad, theirs.grad)
    assert ours.grad.shape == images.shape


def test_the_gradient_of_pooling_has_the_layout_of_its_images() -> None:
    """Features are flattened channel by channel, and what came before would be slow in two layouts."""
    images = torch.randn(3, 4, 6, 6).to(torch.bfloat16).contiguous(memory_format=torch.channels_last).requires_grad_()
    Halved()(images).flatten(1).square().sum().backward()
    assert images.grad.is_contiguous(memory_format=torch.channels_last)


def test_pooling_has_second_derivatives() -> None:
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda z: _ByRepetition.apply(z).square(), x)


# --------------------------------------------------------------------------------------- a convolution and its ReLU


needs_the_kernel = pytest.mark.skipif(
    not layers.has_one_kernel(),
    reason="this CPU or build of torch has no kernel for a convolution and its ReLU in bf16",
)


@needs_the_kernel
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_and_its_relu_by_one_kernel(bias: bool) -> None:
    """Output and all gradients, in bf16, beside float64 on the numbers that bf16 has."""
    conv = RectifiedConv(4, 6, 3, padding=1, bias=bias).to(memory_format=torch.channels_last)
    images = torch.randn(5, 4, 7, 6, generator=rng()).to(torch.bfloat16).float()
    images = images.contiguous(memory_format=torch.channels_last).requires_grad_()
    above = torch.randn(5, 6, 7, 6, generator=rng(1)).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        made = conv(images)
    assert made.grad_fn.name().startswith("_Rectified")
    assert made.dtype is torch.bfloat16
    made.backward(above)

    tensors = [t.detach().to(torch.bfloat16).double().requires_grad_() for t in (images, *conv.parameters())]
    X, W, *rest = tensors
    expected = F.relu(F.conv2d(X, W, *rest, padding=1))
    kept = (made > 0).double()  # where a value is nearly zero, rounding may say on which side
    assert torch.allclose(made.double(), expected, rtol=2**-7, atol=2**-7)
    gradients = torch.autograd.grad(F.conv2d(X, W, *rest, padding=1), tensors, above.double() * kept)
    for tensor, gradient in zip((images, *conv.parameters()), gradients, strict=True):
        assert (tensor.grad - gradient).norm() < 2**-6 * gradient.norm()


@needs_the_kernel
@pytest.mark.parametrize("where", ["images", "weights"])
def test_one_kernel_does_not_hide_what_is_no_number(where: str) -> None:
    conv, images = RectifiedConv(3, 4, 3, padding=1), torch.randn(2, 3, 8, 8, generator=rng())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert conv(images).isfinite().all()
        (images if where == "images" else conv.weight)[1, 2, 1, 1] = math.nan  # a weight in the middle meets no padding
        made = conv(images)
    assert torch.equal(made.isnan(), F.relu(F.conv2d(images, conv.weight, conv.bias, padding=1)).isnan())
    assert made.isnan().any()


def test_elsewhere_a_convolution_and_its_relu_are_two() -> None:
    """In float32, and in what is compiled."""
    conv, plain = RectifiedConv(3, 4, 3, padding=1), torch.nn.Conv2d(3, 4, 3, padding=1)
    plain.load_state_dict(conv.state_dict())
    images = torch.randn(2, 3, 5, 5, generator=rng(), requires_grad=True)
    made = conv(images)
    assert made.grad_fn.name().startswith("Relu")
    assert torch.equal(made, F.relu(plain(images)))


def raising(error: Exception) -> Callable[..., torch.Tensor]:
    def kernel(*given: Any) -> torch.Tensor:
        raise error

    return kernel


@pytest.mark.parametrize(
    "kernel",
    [
        raising(RuntimeError("bf16 path needs the cpu support avx512bw")),
        raising(AttributeError("no such operator")),
        lambda images, weights, *given: torch.nan_to_num(images * weights).clamp_min(0),  # hides what is no number
        lambda images, weights, *given: images,
    ],
    ids=["another CPU", "another build", "NaN is hidden", "wrong"],
)
def test_without_the_kernel_a_convolution_and_its_relu_are_two(
    kernel: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "one_kernel", kernel)
    monkeypatch.setattr(layers, "has_one_kernel", layers.has_one_kernel.__wrapped__)
    conv, images = RectifiedConv(3, 4, 3, padding=1), torch.randn(2, 3, 5, 5, generator=rng())
    with torch.autocast("cpu", torch.bfloat16):
        made, expected = conv(images), F.relu(F.conv2d(images, conv.weight, conv.bias, padding=1))
    assert not layers.has_one_kernel()
    assert torch.equal(made, expected)


@needs_the_kernel
def test_a_convolution_and_its_relu_have_second_derivatives() -> None:
    """In float32, which the kernel takes too."""
    weights = torch.randn(4, 3, 3, 3, generator=rng()).requires_grad_()
    images = torch.randn(2, 3, 5, 5, generator=rng(1)).requires_grad_()
    shape = [1, 1], [1, 1], [1, 1], 1
    seconds = []
    for made in (_Rectified.apply(images, weights, None, *shape), F.relu(F.conv2d(images, weights, padding=1))):
        first = torch.autograd.grad(made.square().sum(), (images, weights), create_graph=True)
        seconds.append(torch.autograd.grad(sum(g.square().sum() for g in first), (images, weights)))
    for ours, theirs in zip(*seconds, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3)
