"""Networks by name: sizes as published or counted by hand, shapes, norms, memory layout."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import nn

from ddtool.errors import UsageError
from ddtool.models import registry
from ddtool.models.convnet import ConvNet, initialise
from ddtool.models.layers import InstanceNorm
from ddtool.models.networks import Shape, ViT, positions
from ddtool.models.registry import NETWORKS, Kind, find

GREY, COLOUR, LARGE = (1, 28, 28), (3, 32, 32), (3, 64, 64)
FORMS = [name for name in registry.names() if name not in NETWORKS]
"""Every network with every norm."""
LAYERS = {"batch": nn.BatchNorm2d, "instance": InstanceNorm, "layer": nn.LayerNorm}


def built(name: str, shape: Shape, classes: int = 10, norm: str = "instance") -> nn.Module:
    """A network by name, as a protocol of that norm and width 128 has it."""
    return find(name).under(norm, 128).build(shape, classes)


def parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def conv(channels: int, out: int, side: int = 3, bias: bool = True) -> int:
    """Parameters of a convolution."""
    return channels * out * side**2 + bias * out


def linear(inputs: int, outputs: int) -> int:
    """Parameters of a linear layer."""
    return inputs * outputs + outputs


def wide(norm: bool) -> int:
    return conv(3, 128) + conv(128, 256) + conv(256, 512) + linear(512 * 16, 10) + norm * 2 * (128 + 256 + 512)


def alexnet(channels: int) -> int:
    convolutions = conv(channels, 128, 5) + conv(128, 192, 5) + conv(192, 256) + conv(256, 192) + conv(192, 192)
    return convolutions + linear(192 * 16, 10)


def vgg11(norm: bool) -> int:
    widths = [3, 64, 128, 256, 256, 512, 512, 512, 512]
    convolutions = sum(conv(a, b) for a, b in pairwise(widths))
    return convolutions + norm * 2 * sum(widths[1:]) + linear(512, 10)


def vit(tokens_of: int) -> int:
    block = linear(192, 3 * 192) + linear(192, 192) + linear(192, 4 * 192) + linear(4 * 192, 192) + 2 * 2 * 192
    return conv(3, 192, tokens_of) + 6 * block + 2 * 192 + linear(192, 10)


@pytest.mark.parametrize(
    ("name", "shape", "count"),
    [
        ("convnet-instance", COLOUR, 320_010),  # published with the ConvNet-3 of DC
        ("convnet-instance", GREY, 317_706),
        ("convnet-wide-instance", COLOUR, wide(norm=True)),
        ("convnet-wide-none", COLOUR, wide(norm=False)),
        ("alexnet", COLOUR, alexnet(3)),
        ("alexnet", GREY, alexnet(1)),
        ("vgg11-batch", COLOUR, 9_231_114),  # published for VGG11 with batch norm on CIFAR-10
        ("vgg11", COLOUR, vgg11(norm=True)),
        ("vgg11-none", COLOUR, vgg11(norm=False)),
        ("resnet18-batch", COLOUR, 11_173_962),  # published for ResNet18 on CIFAR-10
        ("resnet18", COLOUR, 11_173_962),
        ("mlp", COLOUR, linear(3072, 128) + linear(128, 128) + linear(128, 10)),
        ("lenet", COLOUR, 62_006),  # published for LeNet-5 on CIFAR-10
        ("lenet", GREY, 61_706),  # and on MNIST
        ("vit", COLOUR, vit(4)),
        ("vit", LARGE, vit(8)),
    ],
)
def test_parameters(name: str, shape: Shape, count: int) -> None:
    with torch.device("meta"):
        assert parameters(built(name, shape)) == count


def test_the_widths_of_convnets_follow_protocol_and_depth() -> None:
    def widths(name: str, shape: Shape) -> list[int]:
        with torch.device("meta"):
            return [
                m.out_channels
                for m in find(name).under("none", 64).build(shape, 2).modules()
                if isinstance(m, nn.Conv2d)
            ]

    assert widths("convnet", COLOUR) == [64, 64, 64]
    assert widths("convnet-wide", COLOUR) == [128, 256, 512]
    assert widths("convnet-wide", LARGE) == [128, 256, 512, 1024]


@pytest.mark.parametrize("shape", [GREY, COLOUR, LARGE])
@pytest.mark.parametrize("name", FORMS)
def test_images_of_every_usual_shape_get_class_scores(name: str, shape: Shape) -> None:
    with torch.device("meta"):
        assert built(name, shape, 7)(torch.zeros(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", [GREY, (3, 32, 48)])
@pytest.mark.parametrize("name", FORMS)
def test_the_memory_layout_changes_nothing(name: str, shape: Shape, drawn: Callable[[str, Shape], nn.Module]) -> None:
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(1))
    plain = drawn(name, shape).eval()(x)
    last = drawn(name, shape).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    assert torch.isfinite(plain).all()
    assert plain.std() > 0
    assert torch.allclose(last(x.contiguous(memory_format=torch.channels_last)), plain, rtol=1e-3, atol=1e-4)


@pytest.fixture
def drawn() -> Callable[[str, Shape], nn.Module]:
    """Makes a network with weights from one seed."""

    def make(name: str, shape: Shape) -> nn.Module:
        net = built(name, shape, 5)
        initialise(net, torch.Generator().manual_seed(0), "he")
        return net

    return make


@pytest.mark.parametrize("name", FORMS)
def test_all_weights_come_from_the_stream(name: str, drawn: Callable[[str, Shape], nn.Module]) -> None:
    """Whatever the constructor drew: two networks of one seed are alike."""
    torch.manual_seed(3)
    first = drawn(name, COLOUR).state_dict()
    torch.manual_seed(4)
    second = drawn(name, COLOUR).state_dict()
    assert all(torch.equal(value, second[key]) for key, value in first.items())


@pytest.mark.parametrize("name", FORMS)
def test_a_named_norm_is_the_only_one(name: str) -> None:
    wanted = name.rpartition("-")[2]
    with torch.device("meta"):
        kinds = {type(m) for m in built(name, COLOUR).modules() if isinstance(m, tuple(LAYERS.values()))}
    assert kinds == ({LAYERS[wanted]} if wanted in LAYERS else set())


@pytest.mark.parametrize("norm", ["none", "instance", "batch"])
def test_convnets_take_the_norm_of_the_protocol_and_others_their_own(norm: str) -> None:
    texts = {name: kind.under(norm, 128).text(COLOUR) for name, kind in NETWORKS.items()}
    assert texts == {
        "convnet": f"convnet3-w128-{norm}", "convnet-wide": f"convnet3-w128-256-512-{norm}",
        "alexnet": "alexnet-w128-256-none", "vgg11": "vgg11-w64-512-instance", "resnet18": "resnet18-w64-512-instance",
        "mlp": "mlp-w128-none", "lenet": "lenet-w6-16-none", "vit": "vit-w192-layer",
    }  # fmt: skip
    assert find("vgg11-batch").under(norm, 128).text(COLOUR) == "vgg11-w64-512-batch"


@pytest.mark.parametrize(("name", "near"), [("resnet81", "resnet18"), ("vgg11-btach", "vgg11-batch")])
def test_unknown_networks_are_refused(name: str, near: str) -> None:
    with pytest.raises(UsageError, match=f"Unknown network '{name}'") as caught:
        find(name)
    assert f"'{near}'" in caught.value.hint


def test_a_norm_that_a_network_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="'mlp' has no form with batch norm"):
        find("mlp-batch")


@pytest.mark.parametrize("name", ["vgg11", "lenet", "alexnet", "resnet18"])
def test_images_that_are_too_small_are_refused_and_the_smallest_are_not(name: str) -> None:
    kind: Kind = find(name).under("none", 128)
    side = kind.smallest
    with torch.device("meta"):
        assert kind.build((1, side, side + 3), 2)(torch.zeros(2, 1, side, side + 3)).shape == (2, 2)
    with pytest.raises(UsageError, match=f"{side - 1}x{side} pixels are too small for {name}"):
        kind.build((1, side - 1, side), 2)


@pytest.mark.parametrize("name", ["convnet-instance", "alexnet-instance", "vgg11", "resnet18"])
def test_of_the_smallest_images_instance_norm_leaves_something(name: str) -> None:
    """Of a single pixel it would leave the same for every image: a network that sees nothing."""
    side = find(name).smallest
    net = built(name, (1, side, side), 2)
    initialise(net, torch.Generator().manual_seed(0), "torch")
    scores = net(torch.randn(2, 1, side, side, generator=torch.Generator().manual_seed(1)))
    assert (scores[0] - scores[1]).abs().max() > 1e-4


@pytest.mark.parametrize("side", [2, 5, 9, 30])
@pytest.mark.parametrize("name", ["convnet", "mlp", "vit"])
def test_the_others_take_images_of_any_size(name: str, side: int) -> None:
    shape = (1, side, side + 1)
    with torch.device("meta"):
        assert built(name, shape, 2, "none")(torch.zeros(2, *shape)).shape == (2, 2)


def test_a_row_makes_a_network_that_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    row = Kind(
        lambda shape, C, norm, width: ConvNet(shape, C, (width,), norm),
        lambda shape, width: f"one-w{width}",
        follows=True,
    )
    monkeypatch.setitem(NETWORKS, "one", row)
    assert find("one-batch").under("none", 4).text(COLOUR) == "one-w4-batch"
    assert parameters(built("one", (3, 8, 8), 2)) == conv(3, 128) + 2 * 128 + linear(128 * 16, 2)


def test_the_page_of_commands_names_every_network() -> None:
    page = (Path(__file__).parents[2] / "docs" / "commands.md").read_text(encoding="utf-8")
    for row in ("| `--arch TEXT` |", "| `evaluate.arch` |"):
        (line,) = [line for line in page.splitlines() if line.startswith(row)]
        assert set(NETWORKS) <= set(line.replace(",", " ").split()), row


def test_the_vit_knows_where_a_patch_is() -> None:
    net = ViT((1, 16, 16), 3).eval()
    x = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(net(x), net(x.flip(3)), atol=1e-4)
    places = positions(4, 6, 192)
    assert places.shape == (24, 192)
    assert len(places.unique(dim=0)) == 24
