"""Augmentation: each operation against what it claims to do, image by image."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from torch import Tensor

from ddtool.data import augment
from ddtool.data.augment import (
    FAMILIES,
    Draw,
    augmentation,
    augmented_copies,
    colour,
    crop,
    cutout,
    flip,
    jitter,
    rotate,
    scale,
    translate,
    turns,
    warp,
    zoomed_crop,
)

ALL = [(family, name) for family, operations in FAMILIES.items() for name in operations]


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(n: int = 6, c: int = 3, h: int = 16, w: int = 16) -> Tensor:
    return torch.randn(n, c, h, w, generator=rng(9))


def ramps(n: int, side: int = 33) -> Tensor:
    """Channel 0 holds the column's place in [-1, 1], channel 1 the row's, channel 2 ones."""
    line = torch.linspace(-1, 1, side)
    x, y = line.expand(side, side), line[:, None].expand(side, side)
    return torch.stack([x, y, torch.ones(side, side)]).expand(n, -1, -1, -1)


# ------------------------------------------------------------------------------------------------- every operation


@pytest.mark.parametrize(("family", "name"), ALL)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_keeps_shape_and_type_and_its_input(family: str, name: str, layout: torch.memory_format) -> None:
    x = noise(5, 3, 12, 20).contiguous(memory_format=layout)
    before = x.clone()
    out = FAMILIES[family][name](x, Draw(rng()))
    assert (out.shape, out.dtype) == (x.shape, x.dtype)
    assert torch.equal(x, before)
    assert torch.isfinite(out).all()
    assert FAMILIES[family][name](x[:, :1], Draw(rng())).shape == (5, 1, 12, 20)


@pytest.mark.parametrize(("family", "name"), ALL)
def test_follows_from_the_generator_alone(family: str, name: str, untouched_global_rng: None) -> None:
    operation, x = FAMILIES[family][name], noise()
    assert torch.equal(operation(x, Draw(rng(1))), operation(x, Draw(rng(1))))
    stream = Draw(rng(1))
    assert not torch.equal(operation(x, stream), operation(x, stream))


@pytest.mark.parametrize(("family", "name"), ALL)
def test_every_image_has_parameters_of_its_own(family: str, name: str) -> None:
    """The same image in every place of the batch comes out in more than one way."""
    out = FAMILIES[family][name](noise(1).expand(16, -1, -1, -1), Draw(rng()))
    assert len({tuple(image.flatten().tolist()) for image in out}) >= (2 if name == "flip" else 8)


@pytest.mark.parametrize(("family", "name"), ALL)
def test_gradient_goes_through(family: str, name: str) -> None:
    x = noise().requires_grad_()
    FAMILIES[family][name](x, Draw(rng())).sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


# -------------------------------------------------------------------------------------------------------- one by one


def test_about_half_are_flipped() -> None:
    x = noise(1000, 1, 3, 4)
    out = flip(x, Draw(rng()))
    kept = (out == x).flatten(1).all(1)
    flipped = (out == x[:, :, :, [3, 2, 1, 0]]).flatten(1).all(1)
    assert (kept ^ flipped).all()
    assert 430 < int(flipped.sum()) < 570


def shifted(image: Tensor, dy: int, dx: int) -> Tensor:
    """image moved up by dy and left by dx, zeros moved in, pixel by pixel."""
    out = torch.zeros_like(image)
    height, width = image.shape[1:]
    for i in range(height):
        for j in range(width):
            if 0 <= i + dy < height and 0 <= j + dx < width:
                out[:, i, j] = image[:, i + dy, j + dx]
    return out


def test_crop_is_a_shift_by_whole_pixels_and_zeros() -> None:
    x = noise(1, 2, 8, 16)
    out = crop(0.125)(x.expand(120, -1, -1, -1), Draw(rng()))
    candidates = {(dy, dx): shifted(x[0], dy, dx) for dy in (-1, 0, 1) for dx in (-2, -1, 0, 1, 2)}
    found = [[place for place, image in candidates.items() if torch.equal(image, o)] for o in out]
    assert all(len(places) == 1 for places in found)
    assert {places[0] for places in found} == set(candidates)  # both ends of both ranges, in every combination


def test_cutout_zeroes_one_square() -> None:
    x = torch.ones(300, 2, 32, 32)
    out = cutout(0.25)(x, Draw(rng()))
    assert set(out.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(out[:, 0], out[:, 1])
    heights, widths = [], []
    for hole in out[:, 0] == 0:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()  # one full rectangle, nothing else
        assert int(hole.sum()) == (rows[-1] - rows[0] + 1) * (columns[-1] - columns[0] + 1)
        heights.append(len(rows))
        widths.append(len(columns))
        if rows[0] > 0 and rows[-1] < 31:
            assert len(rows) == 8  # FRePo's 8x8, smaller only where the border cuts it
    for lengths in (heights, widths):
        assert (min(lengths), max(lengths)) == (4, 8)


def test_cutout_is_half_the_side_for_dsa() -> None:
    out = FAMILIES["dsa"]["cutout"](torch.ones(100, 1, 16, 16), Draw(rng()))
    assert int((out == 0).flatten(1).sum(1).max()) == 8 * 8
    kept = FAMILIES["dsa"]["cutout"](noise(20), Draw(rng()))
    assert ((kept == noise(20)) | (kept == 0)).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_rotate_turns_by_up_to_15_degrees(family: str) -> None:
    x = ramps(200)
    out = FAMILIES[family]["rotate"](x, Draw(rng()))[:, :, 9:24, 9:24]  # where no corner comes in
    cx, cy = x[:, 0, 9:24, 9:24], x[:, 1, 9:24, 9:24]
    across, down = (
        torch.stack([(o * cx).sum((1, 2)), (o * cy).sum((1, 2))], 1) / cx.square().sum((1, 2))[:, None]
        for o in (out[:, 0], out[:, 1])
    )  # least squares: what each ramp has become, as (part of x, part of y)
    angle = torch.atan2(down[:, 0], across[:, 0])
    assert torch.allclose(across, torch.stack([angle.cos(), -angle.sin()], 1), atol=1e-4)
    assert torch.allclose(down, torch.stack([angle.sin(), angle.cos()], 1), atol=1e-4)
    assert torch.allclose(out[:, 2], torch.ones(()), atol=1e-5)
    degrees = angle * 180 / math.pi
    assert -15 <= degrees.min() < -12
    assert 12 < degrees.max() <= 15
    assert abs(degrees.mean().item()) < 3


def test_scale_zooms_each_axis_by_itself() -> None:
    x = ramps(300)
    out = FAMILIES["dsa"]["scale"](x, Draw(rng()))  # by up to 1.2
    middle, right, bottom = 16, 22, 22
    place = x[0, 0, middle, right]
    zx, zy = out[:, 0, middle, right] / place, out[:, 1, bottom, middle] / place
    for zoom in (zx, zy):
        assert 1 / 1.2 - 1e-4 <= zoom.min() < 0.86
        assert 1.16 < zoom.max() <= 1.2 + 1e-4
    assert abs(torch.corrcoef(torch.stack([zx, zy]))[0, 1].item()) < 0.25
    assert torch.allclose(out[:, :2, middle, middle], torch.zeros(()), atol=1e-5)  # the centre stays
    assert (out[zx > 1.1][:, 2, middle, 0] == 0).all()  # zeros come in from outside
    assert (out[zx < 0.99][:, 2, middle, 0] > 0.99).all()


NEUTRAL = [
    rotate(0), scale(1.0), crop(0.0), cutout(0.0), colour(0.0, 0.0, 0.0),
    rotate(0, repeat_edge=True), zoomed_crop(1.0, 1.0), translate(0.0), jitter(0.0, 0.0),
]  # fmt: skip


@pytest.mark.parametrize("operation", NEUTRAL)
def test_nothing_happens_at_zero(operation: Callable) -> None:
    x = noise(4, 3, 9, 14)
    assert torch.allclose(operation(x, Draw(rng())), x, atol=2e-5)


def test_warp_by_a_quarter_turn() -> None:
    x = noise(2, 3, 7, 7)
    quarter = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]).expand(2, -1, -1)
    assert torch.allclose(warp(x, quarter), torch.rot90(x, 1, (2, 3)), atol=1e-5)


def spread(values: Tensor, low: float, high: float) -> bool:
    """Whether `values` look uniform on [low, high]."""
    margin = 0.03 * (high - low)
    inside = low - 1e-4 <= values.min() and values.max() <= high + 1e-4
    reaches = values.min() < low + margin and values.max() > high - margin
    return bool(inside and reaches and abs(values.mean() - (low + high) / 2) < 2 * margin)


def test_brightness() -> None:
    x = noise(500, 3, 4, 4)
    added = (colour(1.0, 0.0, 0.0)(x, Draw(rng())) - x).flatten(1)
    assert torch.allclose(added, added[:, :1].expand_as(added), atol=1e-4)
    assert spread(added[:, 0], -0.5, 0.5)


@pytest.mark.parametrize(("saturation", "low", "high"), [(2.0, 0.0, 2.0), (0.5, 0.75, 1.25)])
def test_saturation_scales_the_distance_to_grey(saturation: float, low: float, high: float) -> None:
    x = noise(500, 3, 4, 4)
    out = colour(0.0, saturation, 0.0)(x, Draw(rng()))
    grey = x.mean(1, keepdim=True)
    assert torch.allclose(out.mean(1, keepdim=True), grey, atol=1e-5)
    factor = ((out - grey) * (x - grey)).flatten(1).sum(1) / (x - grey).square().flatten(1).sum(1)
    assert torch.allclose(out, grey + factor.view(-1, 1, 1, 1) * (x - grey), atol=1e-4)
    assert spread(factor, low, high)


def test_contrast_scales_the_distance_to_the_mean() -> None:
    x = noise(500, 3, 4, 4)
    out = colour(0.0, 0.0, 0.5)(x, Draw(rng()))
    mean = x.mean((1, 2, 3), keepdim=True)
    factor = ((out - mean) * (x - mean)).flatten(1).sum(1) / (x - mean).square().flatten(1).sum(1)
    assert torch.allclose(out, mean + factor.view(-1, 1, 1, 1) * (x - mean), atol=1e-4)
    assert spread(factor, 0.5, 1.5)


# ---------------------------------------------------------------------------- FRePo's, against its authors' formulas

SIDES = [(16, 16), (9, 14)]


@dataclass(frozen=True)
class Told(Draw):
    """A draw that keeps the numbers that it gave."""

    numbers: list[np.ndarray] = field(default_factory=list)

    def uniform(self, images: Tensor, low: float, high: float) -> Tensor:
        drawn = super().uniform(images, low, high)
        self.numbers.append(drawn.flatten().double().numpy())
        return drawn


def resampled(image: Tensor, back: np.ndarray) -> np.ndarray:
    """An image pixel by pixel in float64: `back` (2, 3) takes a place (y, x) from the middle, in pixels, to the one that is shown
    there; between pixels linearly, beyond the edge its pixels again."""
    values = image.double().numpy()
    c, height, width = values.shape
    middle, out = np.array([height / 2 - 0.5, width / 2 - 0.5]), np.zeros((c, height, width))
    for i in range(height):
        for j in range(width):
            place = back @ np.array([i - middle[0], j - middle[1], 1.0]) + middle
            low, part = np.floor(place).astype(int), place - np.floor(place)
            for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
                y, x = np.clip(low + np.array([dy, dx]), 0, (height - 1, width - 1))
                out[:, i, j] += values[:, y, x] * abs(1 - dy - part[0]) * abs(1 - dx - part[1])
    return out


def check_resampled(operation: Callable, back: Callable[..., list], sides: tuple[int, int]) -> None:
    """That every image is resampled by the map that `back` makes of its numbers."""
    x, draw = noise(4, 2, *sides), Told(rng())
    out = operation(x, draw)
    for image, shown, *numbers in zip(x, out, *draw.numbers, strict=True):
        assert np.allclose(shown.double().numpy(), resampled(image, np.array(back(*numbers))), atol=2e-5)


@pytest.mark.parametrize("sides", SIDES)
def test_frepos_crop_zooms_and_takes_a_window(sides: tuple[int, int]) -> None:
    height, width = sides

    def back(log_zoom: float, right: float, down: float) -> list:
        z = math.exp(log_zoom)
        dy, dx = down * (z - 1) * height / 2, right * (z - 1) * width / 2  # up to where the window meets the edge
        return [[1 / z, 0, dy / z], [0, 1 / z, dx / z]]

    check_resampled(zoomed_crop(0.8, 1.25), back, sides)
    draw = Told(rng())
    zoomed_crop(0.8, 1.25)(noise(500, 1, 4, 4), draw)
    log_zoom, *places = map(torch.from_numpy, draw.numbers)
    assert spread(log_zoom, math.log(0.8), math.log(1.25))
    assert all(spread(place, -1, 1) for place in places)
    assert abs(torch.corrcoef(torch.stack(places))[0, 1].item()) < 0.25


def test_a_crop_that_zooms_in_shows_nothing_from_outside() -> None:
    """With zoom above 1 the window is inside: no pixel of a ramp comes twice, but for half a one at the very edge."""
    x, draw = torch.arange(32.0).expand(300, 1, 32, 32), Told(rng())
    out = zoomed_crop(0.8, 1.25)(x, draw)[:, 0, 0]
    zoom = torch.from_numpy(draw.numbers[0]).exp()
    repeated = ((out[:, 0] == out[:, 1]) | (out[:, -1] == out[:, -2])).double()
    assert repeated[zoom > 1.05].sum() == 0
    assert repeated[zoom < 0.95].mean() > 0.95
    inner = out[zoom > 1.05].diff(dim=1)[:, 1:-1]
    assert torch.allclose(inner, (1 / zoom[zoom > 1.05, None]).float(), atol=1e-4)


@pytest.mark.parametrize("sides", SIDES)
def test_frepos_shift_is_by_any_distance(sides: tuple[int, int]) -> None:
    height, width = sides
    check_resampled(translate(0.125), lambda x, y: [[1, 0, y * height / 2], [0, 1, x * width / 2]], sides)
    draw = Told(rng())
    translate(0.125)(noise(500, 1, 4, 4), draw)
    assert all(spread(torch.from_numpy(numbers), -0.25, 0.25) for numbers in draw.numbers)  # of half a side


def test_frepos_rotation_repeats_the_edge() -> None:
    def back(angle: float) -> list:
        return [[math.cos(angle), math.sin(angle), 0], [-math.sin(angle), math.cos(angle), 0]]

    check_resampled(FAMILIES["frepo"]["rotate"], back, (16, 16))


def test_frepos_colour_is_brightness_contrast_and_saturation_in_turn() -> None:
    x, draw = noise(400, 3, 4, 4), Told(rng())
    out = FAMILIES["frepo"]["colour"](x, draw)
    for image, shown, bright, contrast, saturation in zip(x.double().numpy(), out, *draw.numbers, strict=True):
        expected = image + bright
        expected = (expected - expected.mean()) * math.exp(contrast) + expected.mean()
        grey = expected.mean(0)
        assert np.allclose(shown.double().numpy(), (expected - grey) * math.exp(saturation) + grey, atol=1e-5)
    assert all(spread(torch.from_numpy(numbers), -0.25, 0.25) for numbers in draw.numbers)


def test_frepos_hole_is_always_whole() -> None:
    out = FAMILIES["frepo"]["cutout"](torch.ones(2000, 2, 32, 32), Draw(rng()))
    assert torch.equal(out[:, 0], out[:, 1])
    places = []
    for hole in out[:, 0] == 0:
        rows, columns = hole.any(1).nonzero().flatten(), hole.any(0).nonzero().flatten()
        assert (len(rows), len(columns), int(hole.sum())) == (8, 8, 64)
        places.append((int(rows[0]), int(columns[0])))
    for begins in zip(*places, strict=True):
        assert set(begins) == set(range(25))


# --------------------------------------------------------------------------------------------------------- the family


def test_families_are_the_published_ones() -> None:
    assert set(FAMILIES["dsa"]) == {"flip", "colour", "crop", "cutout", "scale", "rotate"}
    assert set(FAMILIES["frepo"]) == {"flip", "colour", "crop", "rotate", "translate", "cutout"}
    assert set(FAMILIES["quick"]) == set(FAMILIES["frepo"])
    assert set(FAMILIES["idc"]) == {"flip", "colour", "crop", "scale", "rotate"}  # without cutout, for CutMix


@pytest.mark.parametrize("family", FAMILIES)
def test_families_use_the_published_strengths(family: str) -> None:
    x = noise(400, 3, 16, 16)
    bright = (FAMILIES[family]["colour"](x, Draw(rng())) - x).mean((1, 2, 3))  # the mean moves by the brightness alone
    reach = {"frepo": 0.25, "quick": 0.125}.get(family, 0.5)
    assert spread(bright, -reach, reach)
    flat = torch.ones(400, 1, 16, 16)
    rows_lost = (FAMILIES[family]["crop"](flat, Draw(rng()))[:, 0, :, 8] == 0).sum(1)
    assert int(rows_lost.max()) == (0 if family == "frepo" else 2)
    if family != "idc":
        holes = (FAMILIES[family]["cutout"](flat, Draw(rng())) == 0).flatten(1).sum(1)
        assert int(holes.max()) == {"dsa": 64, "frepo": 16, "quick": 16}[family]


class Spies:
    """Operations that only say that they were called, in place of a family's."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, family: str) -> None:
        self.calls: list[str] = []
        for name in FAMILIES[family]:
            monkeypatch.setitem(augment.FAMILIES[family], name, self.named(name))

    def named(self, name: str) -> Callable[[Tensor, torch.Generator], Tensor]:
        return lambda images, _: self.calls.append(name) or images  # type: ignore[func-returns-value]


@pytest.mark.parametrize("flip", [True, False])
def test_idcs_batches_get_flip_and_colour_and_one_more(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    spies = Spies(monkeypatch, "idc")
    apply, x = augmentation("idc", flip, rng(), rng()), noise(2)
    always, rest = ["flip"] * flip + ["colour"], ["crop", "scale", "rotate"]
    chosen = []
    for _ in range(200):
        apply(x)
        assert spies.calls[:-1] == always
        chosen.append(spies.calls.pop())
        spies.calls.clear()
    assert min(chosen.count(name) for name in rest) > 40
    assert set(chosen) == set(rest)


@pytest.mark.parametrize("family", ["dsa", "frepo", "quick"])
@pytest.mark.parametrize("flip", [True, False])
def test_one_operation_a_batch_and_no_flip_unless_allowed(
    family: str, flip: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spies = Spies(monkeypatch, family)
    apply, x = augmentation(family, flip, rng(), rng()), noise(2)
    for _ in range(300):
        apply(x)
    assert len(spies.calls) == 300
    expected = set(FAMILIES[family]) - (set() if flip else {"flip"})
    assert set(spies.calls) == expected
    assert min(spies.calls.count(name) for name in expected) > 0.5 * 300 / len(expected)


def test_without_flip_a_left_edge_stays_left() -> None:
    """The same by pixels: no operation but `flip` can bring the bright left half to the right."""
    x = torch.zeros(4, 1, 16, 16)
    x[..., :8] = 1
    apply = augmentation("dsa", False, rng(1), rng(2))
    outs = torch.cat([apply(x) for _ in range(150)])
    assert (outs[..., :8].mean((1, 2, 3)) >= outs[..., 8:].mean((1, 2, 3))).all()


def test_the_operation_is_drawn_on_the_host_and_its_parameters_from_the_other_stream(
    untouched_global_rng: None,
) -> None:
    x = noise()

    def outputs(host_seed: int, seed: int) -> list[Tensor]:
        apply = augmentation("frepo", True, rng(host_seed), rng(seed))
        return [apply(x) for _ in range(8)]

    def same(a: list[Tensor], b: list[Tensor]) -> bool:
        return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))

    assert same(outputs(1, 2), outputs(1, 2))
    assert not same(outputs(1, 2), outputs(3, 2))
    assert not same(outputs(1, 2), outputs(1, 4))
    host = rng(1)
    augmentation("frepo", True, host, rng(2))(x)
    expected = rng(1)
    torch.randint(6, (1,), generator=expected)
    assert torch.equal(host.get_state(), expected.get_state())


def test_result_is_channels_last() -> None:
    apply = augmentation("dsa", True, rng(), rng())
    assert all(apply(noise()).is_contiguous(memory_format=torch.channels_last) for _ in range(20))


def test_padding_of_warp_is_zero() -> None:
    shift = torch.tensor([[1.0, 0.0, 2.5], [0.0, 1.0, 0.0]]).expand(1, -1, -1)
    assert (warp(torch.ones(1, 1, 5, 5), shift) == 0).all()


@pytest.mark.parametrize("flip", [True, False])
def test_copies_take_the_operations_in_turn(flip: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy gets one operation, the next copy the next one; a turn goes on where the one before ended."""
    names = [name for name in FAMILIES["frepo"] if flip or name != "flip"]
    marked = {name: (lambda x, draw, k=k: x + k + 1) for k, name in enumerate(FAMILIES["frepo"])}
    monkeypatch.setitem(FAMILIES, "frepo", marked)
    order = [list(marked).index(name) + 1.0 for name in names]
    X = torch.zeros(2, 1, 4, 4)
    for copies in (1, 4, 13):
        for turn in range(turns(flip) + 1):
            made = augmented_copies(X, copies, turn, flip, torch.Generator()).view(copies, -1)
            wanted = [order[(turn * copies + k) % len(order)] for k in range(copies)]
            assert sorted(made[:, 0].tolist()) == sorted(wanted)
            assert (made == made[:, :1]).all()
    assert turns(flip) == len(names)


def test_copies_are_those_of_the_operations_each_image_with_its_own_parameters() -> None:
    X = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    copies = augmented_copies(X, 6, 0, True, torch.Generator().manual_seed(1))
    stream = torch.Generator().manual_seed(1)
    alone = torch.cat([operation(X, Draw(stream)) for operation in FAMILIES["frepo"].values()])
    assert torch.equal(copies, alone)
    assert copies.is_contiguous(memory_format=torch.channels_last)
    twice = augmented_copies(X, 12, 0, True, torch.Generator().manual_seed(1))
    assert not torch.equal(twice[3:6] - X, twice[9:12] - X)
