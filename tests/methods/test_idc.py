"""IDC: images in images by hand, the loss by loops in float64, its gradient by differences, training on real images."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from conftest import toy_images
from method_case import method_of, task_of
from test_gradient_matching import alike, calls, double_gradients
from torch import Tensor, nn

from ddtool.data import whitening
from ddtool.data.augment import cutmix
from ddtool.data.images import ImageData
from ddtool.data.parts import decode
from ddtool.errors import DataError, UsageError
from ddtool.methods import distil
from ddtool.methods.idc import IDC, encode


def idc_of(data: ImageData, ipc: int = 2, **settings: object) -> IDC:
    method = method_of("idc", task_of(data, ipc), **settings)
    assert isinstance(method, IDC)
    return method


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# -------------------------------------------------------------------------------------------------- images in images


def stretched(line: list[float], size: int) -> list[float]:
    """Linear interpolation between the centres of pixels; beyond the outer centres the outer pixel."""
    out = []
    for i in range(size):
        place = min(max((i + 0.5) * len(line) / size - 0.5, 0.0), len(line) - 1.0)
        low = min(int(place), len(line) - 1)
        high = min(low + 1, len(line) - 1)
        out.append(line[low] + (place - low) * (line[high] - line[low]))
    return out


@pytest.mark.parametrize(("h", "w", "factor"), [(4, 6, 2), (5, 7, 2), (7, 7, 3), (5, 5, 4)])
def test_decode_by_hand(h: int, w: int, factor: int) -> None:
    images = torch.randn(2, 1, h, w, generator=rng(), dtype=torch.float64)

    def cuts(side: int) -> list[int]:
        """The first `side % factor` parts are a pixel longer."""
        lengths = [side // factor + (i < side % factor) for i in range(factor)]
        return [sum(lengths[:i]) for i in range(factor + 1)]

    expected = []
    for i in range(factor):
        for j in range(factor):
            for image in images:
                part = image[0, cuts(h)[i] : cuts(h)[i + 1], cuts(w)[j] : cuts(w)[j + 1]]
                wide = torch.tensor([stretched(row, w) for row in part.tolist()])
                expected.append(torch.tensor([stretched(column, h) for column in wide.T.tolist()]).T)
    assert torch.allclose(decode(images, factor)[:, 0].float(), torch.stack(expected), atol=1e-5)


@pytest.mark.parametrize(("side", "factor"), [(28, 2), (16, 2), (15, 2), (10, 3), (8, 1)])
def test_encode_puts_images_where_decode_finds_them(side: int, factor: int) -> None:
    shades = torch.arange(3.0 * factor**2).view(-1, 1, 1, 1).expand(-1, 2, side, side)
    stored = encode(shades, factor)
    assert stored.shape == (3, 2, side, side)
    middle = (slice(None), slice(None), side // 2, side // 2)
    assert torch.allclose(decode(stored, factor)[middle], shades[middle], atol=1e-5)


def test_encode_keeps_means() -> None:
    images = torch.rand(4, 3, 8, 8, generator=rng())
    parts = encode(images, 2).unfold(2, 4, 4).unfold(3, 4, 4).flatten(2, 3)[0]  # (c, part, 4, 4)
    assert torch.allclose(parts.mean((2, 3)).T, images.mean((2, 3)), atol=1e-6)


def test_one_image_in_an_image_is_that_image() -> None:
    images = torch.rand(2, 3, 5, 5, generator=rng())
    assert torch.equal(decode(images, 1), images)


@pytest.mark.parametrize("factor", [0, 5])
def test_more_parts_than_pixels_are_refused(factor: int) -> None:
    with pytest.raises(DataError, match="cannot be cut"):
        decode(torch.zeros(1, 1, 4, 9), factor)


def test_a_factor_that_images_do_not_hold_is_refused(toy: ImageData) -> None:
    with pytest.raises(UsageError, match=r"'baseline\.factor' must be at most 8, got 17"):
        idc_of(toy, factor=17)
    with pytest.raises(UsageError, match=r"'baseline\.factor' is 8, images have \[6, 6\] pixels"):
        idc_of(toy_images(4, seed=2, size=6), factor=8)
    with pytest.raises(UsageError, match=r"'baseline\.factor' must be at least 1"):
        idc_of(toy, factor=0)


def test_28_pixels_and_odd_sides_work() -> None:
    for side in (28, 15):
        method = idc_of(toy_images(4, seed=2, channels=1, size=side), ipc=1, steps=1)
        distil(method)
        assert method.result()[0].shape == (4, 1, side, side)
        assert decode(method.result()[0], method.factor).shape == (16, 1, side, side)


def test_starts_from_real_images_of_the_right_classes_the_tasks_own_first(toy: ImageData) -> None:
    """In a dataset whose images are one shade for each image, shades come back exactly."""
    shades = torch.arange(len(toy), dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 3, 16, 16)
    flat = replace(toy, images=shades)
    method = idc_of(flat)
    seen = method.task.real.inputs.inverse(decode(method.X.detach(), 2)).mean((1, 2, 3)).mul(255).round().long()
    middle = method.task.real.inputs.inverse(decode(method.X.detach(), 2))[:, 0, 8, 8].mul(255).round().long()
    assert torch.equal(seen, middle)
    assert torch.equal(middle[:8], method.task.rows)
    assert torch.equal(flat.labels[middle], method.task.classes().repeat(4))
    assert len(set(middle.tolist())) > 16


def test_the_first_ones_are_the_same_as_of_other_methods(toy: ImageData) -> None:
    assert torch.equal(idc_of(toy, factor=1).X, task_of(toy).start()[0])


def test_gradients_pass_the_whitening_unchanged(toy: ImageData) -> None:
    rows = torch.arange(len(toy))
    fitted = whitening.fit(lambda rows: toy.transform.standardise(toy.images[rows]), rows, "dct", 0.1)
    method = idc_of(replace(toy, whitening=fitted))
    stored = method.X.detach().requires_grad_()
    seen, plain = method.seen(stored), decode(stored, 2)
    assert torch.allclose(seen, fitted.forward(plain.detach()), atol=1e-6)
    assert not torch.allclose(seen, plain, atol=0.1)
    weights = torch.randn(seen.shape, generator=rng())
    (gradient,) = torch.autograd.grad((seen * weights).sum(), stored)
    (expected,) = torch.autograd.grad((plain * weights).sum(), stored)
    assert torch.allclose(gradient, expected, atol=1e-5)


# ---------------------------------------------------------------------------------------------------------- the loss


@pytest.mark.parametrize("channels", [3, 1])
def test_loss_and_image_gradient_by_brute_force(channels: int) -> None:
    data = toy_images(10, seed=2, channels=channels)
    method = idc_of(data, width=3, real_batch=5)
    method.together = lambda step: list  # type: ignore[method-assign, assignment, return-value]
    task, net = method.task, copy.deepcopy(method.inner_network.net).double()
    rows = task.real.sampler(5 * 4, rng_like(method.rng)).view(4, 5)
    convolutions = [i for i, p in enumerate(net.parameters()) if p.ndim == 4]
    assert len(convolutions) == 2

    def loss_of(X: Tensor) -> float:
        total = 0.0
        for c in range(4):
            T = task.real.inputs(data.images[rows[c]]).double()
            S = torch.cat([decode(X[i : i + 1], 2) for i in range(8) if task.classes()[i] == c])
            assert len(S) == 8
            real, synthetic = double_gradients(net, T, c), double_gradients(net, S, c)
            for k in convolutions:
                d = real[k] - synthetic[k]
                total += (d.abs() if channels == 1 else d**2).sum().item()
        return total

    loss = method.gradient(0)
    X = method.X.detach().double()
    assert loss.item() == pytest.approx(loss_of(X), rel=1e-3)
    assert method.X.grad is not None
    for place in [(0, 0, 3, 4), (3, channels - 1, 8, 8), (7, 0, 10, 6)]:
        up, down = X.clone(), X.clone()
        pixel = 1e-4 / data.std[place[1]]  # of pixels in [0, 1]
        up[place] += pixel
        down[place] -= pixel
        difference = (loss_of(up) - loss_of(down)) / 2e-4
        assert method.X.grad[place].item() * data.std[place[1]] == pytest.approx(difference, rel=2e-2, abs=1e-4)


def rng_like(other: torch.Generator) -> torch.Generator:
    out = torch.Generator()
    out.set_state(other.get_state())
    return out


def test_the_same_augmentation_for_real_and_synthetic(toy: ImageData) -> None:
    method = idc_of(alike(toy), factor=1)
    assert all(abs(method.gradient(step).item()) < 1e-6 for step in range(5))
    assert idc_of(toy, factor=1).gradient(0).item() > 1e-4


def test_augmentation_is_colour_crop_and_cutout_at_once(toy: ImageData) -> None:
    method = idc_of(toy)
    ramp = torch.rand(1, 3, 16, 16, generator=rng(5)) + 1
    outs = torch.cat([method.together(0)([ramp])[0] for _ in range(30)])
    assert ((outs == 0).all(1).flatten(1).sum(1) >= 16).all()  # at least a quarter of the hole is inside
    assert len({tuple(out[out != 0].tolist()) for out in outs}) == 30


@pytest.mark.parametrize(
    ("name", "factor", "settings", "cut", "mixed"),
    [
        ("mnist", 2, {}, False, 0.0), ("ylecun/mnist", 3, {}, False, 0.0), ("mnist", 1, {}, True, 0.5),
        ("fashion_mnist", 2, {}, True, 0.5), ("cifar10", 2, {}, True, 0.5),
        ("mnist", 2, {"cutout": True, "cutmix": 0.2}, True, 0.2), ("cifar10", 2, {"cutout": False}, False, 0.5),
    ],
)  # fmt: skip
def test_neither_cutout_nor_cutmix_on_mnist_with_several_images_in_one(
    grey_toy: ImageData, name: str, factor: int, settings: dict, cut: bool, mixed: float
) -> None:
    method = idc_of(replace(grey_toy, source={"name": name}), factor=factor, **settings)
    ramp = torch.rand(1, 1, 16, 16, generator=rng(5)) + 1
    outs = torch.cat([method.together(0)([ramp])[0] for _ in range(30)])
    inner = outs[:, :, 4:12, 4:12]  # no crop brings zeros in so far
    assert bool((inner == 0).any()) == cut
    assert method.cutmix == mixed


def test_no_more_decoded_images_than_asked(toy: ImageData) -> None:
    method = idc_of(toy, ipc=3, synthetic_batch=5, init="noise")
    S = method.X.detach()[0::4]
    seen, everything = method.seen(S), {tuple(x.flatten().tolist()) for x in decode(S, 2)}
    chosen = {tuple(x.flatten().tolist()) for x in seen}
    assert len(seen) == len(chosen) == 5
    assert chosen < everything
    assert len(idc_of(toy, ipc=3, synthetic_batch=12).seen(S)) == 12


def test_published_rates_by_case(toy: ImageData, grey_toy: ImageData) -> None:
    colour, grey = (idc_of(data, ipc=5, real_images=None) for data in (toy, grey_toy))
    assert colour.facts() == {"factor": 2, "lr": 5e-3 / 2, "real_images": 2000}
    assert grey.facts() == {"factor": 2, "lr": 1e-4 / 2, "real_images": 500}
    assert colour.optimiser.param_groups[0]["lr"] == 5e-3 / 2
    assert colour.optimiser.param_groups[0]["momentum"] == 0.5
    assert idc_of(toy, lr=0.3).facts()["lr"] == 0.3


# ------------------------------------------------------------------------------------------------------- the network


def test_one_pass_over_some_real_images_after_each_step_but_the_last(
    toy: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = calls(monkeypatch)
    distil(idc_of(toy, inner=3, real_images=20, net_batch=8, steps=4))
    assert seen == ["update"] * 6 + ["reset"] + ["update"] * 3
    seen.clear()
    distil(idc_of(toy, inner=3, real_images=0, steps=3))
    assert seen == ["reset"]


def test_the_network_learns_the_classes_of_real_images(toy: ImageData, toy_test: ImageData) -> None:
    method = idc_of(toy, inner=1000, real_images=160, net_batch=32, net_lr=0.05)
    X, labels = method.task.real.inputs(toy_test.images), toy_test.labels

    def right() -> float:
        with torch.no_grad():
            return (method.matching.forward(X).argmax(1) == labels).float().mean().item()

    before = right()
    for step in range(8):
        method.after_step(step)
    assert before < 0.5 < 0.6 < right()


def test_sgd_of_the_network_is_the_published_one(toy: ImageData) -> None:
    group = idc_of(toy).inner_network.optimiser.param_groups[0]
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 5e-4)


def test_only_convolutions_are_compared(toy: ImageData) -> None:
    method = idc_of(toy)
    convolutions = [m for m in method.inner_network.net.modules() if isinstance(m, nn.Conv2d)]
    assert [id(w) for w in method.matching.matched] == [id(m.weight) for m in convolutions]


def test_cutmix_takes_a_rectangle_and_its_share_of_the_label() -> None:
    n, side, host, device_rng = 6, 12, rng(1), rng(2)
    X = torch.arange(float(n)).view(n, 1, 1, 1).expand(-1, 2, side, side)  # image i is i everywhere
    Y = torch.eye(n)
    shares = []
    for _ in range(200):
        mixed, labels = cutmix(X, Y, 1.0, host, device_rng)
        assert torch.allclose(labels.sum(1), torch.ones(n))
        for i in range(n):
            foreign = mixed[i, 0] != i
            counts = torch.bincount(mixed[i, 0].long().flatten(), minlength=n) / side**2
            assert torch.equal(mixed[i, 0], mixed[i, 1])
            assert torch.allclose(counts, labels[i], atol=1e-6)
            if foreign.any():
                rows, columns = foreign.any(1).nonzero(), foreign.any(0).nonzero()
                assert foreign[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        shares.append(1 - labels.diagonal().min().item())
    assert min(shares) < 0.02
    assert max(shares) > 0.5
    assert 0.2 < sum(shares) / len(shares) < 0.5
    assert torch.equal(X[:, 0, 0, 0], torch.arange(float(n)))  # the input stays


@pytest.mark.parametrize(("chance", "most", "least"), [(0.0, 0, 0), (0.5, 130, 70), (1.0, 200, 160)])
def test_how_often_cutmix_mixes(chance: float, most: int, least: int) -> None:
    host, X, Y = rng(3), torch.rand(4, 1, 8, 8, generator=rng()), torch.eye(4)
    mixed = sum(cutmix(X, Y, chance, host, rng())[0] is not X for _ in range(200))
    assert least <= mixed <= most


def test_network_images_are_augmented_one_by_one(toy: ImageData, untouched_global_rng: None) -> None:
    method, inputs = idc_of(alike(toy), real_images=64, net_batch=64, cutmix=0.0), []  # type: IDC, list[Tensor]
    forward: Callable = method.matching.forward
    method.matching.forward = lambda X: inputs.append(X) or forward(X)  # type: ignore[func-returns-value]
    method.after_step(0)
    assert len({tuple(x.flatten().tolist()) for x in inputs[0]}) > 50
