"""The generator: shapes, a start at the identity, and files that are trusted in nothing."""

import json
import math
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddtool.config import from_dict
from ddtool.errors import GeneratorError, UsageError
from ddtool.models.generator import Generator, GeneratorConfig, averaged, bilinear, resampled

SMALL = GeneratorConfig(slots=8, side=16)


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def shaken(config: GeneratorConfig = SMALL, amount: float = 0.2) -> Generator:
    """A generator that is far from the identity, in every weight."""
    g = Generator.build(config, 0)
    with torch.no_grad():
        for i, p in enumerate(g.parameters()):
            p.add_(torch.randn(p.shape, generator=rng(i)), alpha=amount)
    return g


# ---------------------------------------------------------------------------------------------------------- the network


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 16, 16), (1, 28, 28), (3, 20, 36), (3, 5, 3), (1, 1, 1)], ids=str)
def test_starts_as_the_identity_and_keeps_shapes(shape: tuple[int, int, int]) -> None:
    x = torch.randn(2, *shape, generator=rng())
    assert torch.equal(Generator.build(SMALL, 3)(x), x)
    moved = shaken()(x)
    assert moved.shape == x.shape
    assert moved.dtype == torch.float32
    assert ((moved - x).abs().mean((1, 2, 3)) > 1e-4).all()


def test_grey_travels_as_three_equal_channels() -> None:
    g, x = shaken(), torch.randn(2, 1, 28, 28, generator=rng())
    assert torch.allclose(g(x), x + g.residual(x.expand(-1, 3, -1, -1)).mean(1, keepdim=True), atol=1e-6)


def test_images_do_not_mix_in_a_batch() -> None:
    g, x = shaken(), torch.randn(4, 3, 16, 16, generator=rng())
    assert torch.allclose(g(x)[1:2], g(x[1:2]), atol=1e-5)


def test_residual_is_a_softmax_over_slots_written_out() -> None:
    """In float64, slot by slot, with the local mean as a loop: the formula of docs/formats.md."""
    g, x = shaken(), torch.randn(3, 3, 16, 16, generator=rng())
    d = 3 * 8 * 8
    for image, made in zip(x.double(), g.residual(x), strict=True):
        small = image.view(3, 8, 2, 8, 2).mean((2, 4))
        fine = torch.empty_like(small)
        for i in range(8):
            for j in range(8):
                around = [
                    small[:, min(max(i + a, 0), 7), min(max(j + b, 0), 7)] for a in range(-2, 3) for b in range(-2, 3)
                ]
                fine[:, i, j] = small[:, i, j] - torch.stack(around).mean(0)
        fine = fine.flatten() / fine.norm()
        cosines = torch.stack([fine @ key / key.norm() for key in g.keys.detach().double()])
        weights = (5 * math.sqrt(d) * cosines).exp()
        weights = weights / weights.sum()
        values = g.values.detach().double().view(8, 3, 16, 16)
        expected = 32 * sum(w * value for w, value in zip(weights, values, strict=True))
        assert torch.allclose(made.double(), expected, atol=1e-4, rtol=1e-4)


def test_images_that_differ_are_moved_apart_and_brightness_does_not_matter() -> None:
    """The point of the memory: a step for one image leaves another alone, but takes with it the same at other brightness."""
    g = Generator.build(GeneratorConfig(slots=256, side=16), 0)
    x = torch.randn(2, 3, 16, 16, generator=rng())
    optimiser = torch.optim.SGD(g.parameters(), lr=1e-3)
    (g(x[:1]) - x[:1] - 1).square().mean().backward()
    optimiser.step()
    moved, other, brighter = g.residual(torch.cat([x, x[:1] / 2 + 3])).detach().flatten(1).norm(dim=1)
    assert moved > 1e-3
    assert other < moved / 5
    assert brighter == pytest.approx(moved.item(), rel=1e-3)


@pytest.mark.parametrize("size", [(16, 16), (28, 28), (9, 20)], ids=str)
def test_other_sizes_are_interpolated(size: tuple[int, int]) -> None:
    g = shaken()
    with torch.no_grad():
        g.values.copy_(torch.linspace(-1, 1, 3).repeat_interleave(16 * 16).expand_as(g.values))
    made = g.residual(torch.randn(2, 3, *size, generator=rng()))
    assert torch.allclose(made, 32 * torch.linspace(-1, 1, 3)[:, None, None].expand_as(made), atol=1e-3)


@pytest.mark.parametrize("how", [averaged, bilinear])
@pytest.mark.parametrize(
    ("size", "to"), [((28, 28), (16, 16)), ((32, 32), (28, 28)), ((9, 20), (32, 7)), ((1, 3), (4, 4))]
)
def test_resampling_by_products_is_what_torch_has(how: Callable, size: tuple[int, int], to: tuple[int, int]) -> None:
    x, y = (torch.randn(2, 3, *size, generator=rng(), requires_grad=True) for _ in range(2))
    made, expected = resampled(x, to, how), how(y, to)
    assert made.shape == (2, 3, *to)
    assert torch.allclose(made, expected, atol=1e-5)
    (made**2).sum().backward()
    (expected**2).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=1e-4)
    assert resampled(x, size, how) is x


def test_resampling_does_not_lose_digits_under_autocast() -> None:
    x = torch.randn(2, 3, 32, 32, generator=rng())
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        made = resampled(x, (21, 21), bilinear)
    assert made.dtype == torch.float32
    assert torch.allclose(made, bilinear(x, (21, 21)), atol=1e-5)


def test_an_image_without_detail_is_served() -> None:
    """And takes about the same of every slot, not of one that rounding chose."""
    g = shaken()
    for x in (torch.full((1, 3, 16, 16), 0.3), torch.full((1, 3, 16, 16), 0.31), torch.ones(1, 1, 1, 1)):
        assert g(x).isfinite().all()
        weights = torch.softmax(5 * g.cosine_similarity(x.expand(-1, 3, -1, -1)), 1)
        assert weights.max() < 1.5 / 8


def test_gradient_at_the_start_reaches_what_is_stored() -> None:
    g = Generator.build(SMALL, 0)
    g(torch.randn(2, 3, 16, 16, generator=rng())).square().sum().backward()
    assert g.values.grad is not None
    assert g.values.grad.abs().sum() > 0
    assert g.keys.grad is not None
    assert g.keys.grad.isfinite().all()


def test_build_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = Generator.build(SMALL, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    b, c = Generator.build(SMALL, 1), Generator.build(SMALL, 2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.keys, c.keys)


def test_build_leaves_the_gpus_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    Generator.build(SMALL, 1)
    assert seeded == []


# ----------------------------------------------------------------------------------------------------------- the config


@pytest.mark.parametrize("name", ["slots", "side"])
@pytest.mark.parametrize("value", [4, 10**9, 64.0, True, "64", None])
def test_values_out_of_range_are_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"'{name}' must be (at least 8|at most|of type int)"):
        from_dict(GeneratorConfig, {name: value})
    with pytest.raises(UsageError, match=f"'{name}' must be (at least 8|at most|of type int)"):
        GeneratorConfig(**{name: value})  # type: ignore[arg-type]


def test_settings() -> None:
    assert from_dict(GeneratorConfig, {}) == GeneratorConfig(512, 32)
    assert from_dict(GeneratorConfig, {"slots": 8192, "side": 44}) == GeneratorConfig(8192, 44)
    with pytest.raises(UsageError, match="'side' must be a multiple of 2, got 33"):
        GeneratorConfig(side=33)
    assert GeneratorConfig(256, 256).slots == 256
    with pytest.raises(UsageError, match="slots times side² must be at most 16777216, got 16842752"):
        GeneratorConfig(257, 256)
    with pytest.raises(UsageError, match="Unknown setting 'slot'") as caught:
        from_dict(GeneratorConfig, {"slot": 8})
    assert "'slots'" in caught.value.hint


# ----------------------------------------------------------------------------------------------------------- the files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shaken().save(tmp_path / "made" / "g")
    return tmp_path / "made" / "g"


def test_round_trip_is_bit_for_bit(folder: Path, untouched_global_rng: None) -> None:
    with torch.random.fork_rng(devices=[]):
        original = shaken()
    loaded = Generator.load(folder)
    assert loaded.config == SMALL
    assert sorted(p.name for p in folder.iterdir()) == ["config.json", "model.safetensors"]
    for name, value in original.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_channels_last_generator_round_trips(tmp_path: Path) -> None:
    original = shaken().to(memory_format=torch.channels_last)
    original.save(tmp_path)
    assert all(torch.equal(v, original.state_dict()[k]) for k, v in Generator.load(tmp_path).state_dict().items())


def tensors(change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        weights = {k: v.clone() for k, v in weights.items()}
        change(weights)
        save_file(weights, folder / "model.safetensors")

    return damage


def with_value(value: float) -> Callable[[dict[str, Tensor]], object]:
    return lambda w: w["keys"].view(-1)[17].fill_(value)


def weights_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(
        change((folder / "model.safetensors").read_bytes())
    )


def config(text: str | bytes) -> Callable[[Path], object]:
    raw = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / "config.json").write_bytes(raw)


def setting(**values: object) -> Callable[[Path], object]:
    return config(json.dumps({"ddtool_generator": {"slots": 8, "side": 16} | values}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"keys": [1.0]}))


def torch_saved(folder: Path) -> None:
    torch.save(Generator.build(SMALL, 0).state_dict(), folder / "model.safetensors")


def unknown_type(raw: bytes) -> bytes:
    size = struct.unpack("<Q", raw[:8])[0]
    return raw[:8] + raw[8 : 8 + size].replace(b'"F32"', b'"X32"') + raw[8 + size :]


WEIGHTS = {
    "a tensor is missing": (tensors(lambda w: w.pop("keys")), "misses tensor 'keys'"),
    "a tensor too many": (tensors(lambda w: w.update(extra=torch.zeros(1))), "unknown tensor 'extra'"),
    "wrong shape": (tensors(lambda w: w.update({"values": torch.zeros(9)})), "'values' is (9,)"),
    "wrong shape, right size": (
        tensors(lambda w: w.update(values=w["values"].view(8, 3, 16, 16))),
        "'values' is (8, 3, 16, 16)",
    ),
    "wrong type": (tensors(lambda w: w.update(values=w["values"].double())), "float64, expected"),
    "half": (tensors(lambda w: w.update(values=w["values"].half())), "float16, expected"),
    "NaN": (tensors(with_value(float("nan"))), "'keys' has values that are not finite"),
    "infinity": (tensors(with_value(float("-inf"))), "'keys' has values that are not finite"),
    "truncated": (weights_bytes(lambda raw: raw[:-5]), "not a readable safetensors file"),
    "truncated in the header": (weights_bytes(lambda raw: raw[:20]), "not a readable safetensors file"),
    "bytes too many": (weights_bytes(lambda raw: raw + b"junk"), "not a readable safetensors file"),
    "empty": (weights_bytes(lambda raw: b""), "not a readable safetensors file"),
    "absurd header": (weights_bytes(lambda raw: b"\xff" * 8 + raw[8:]), "not a readable safetensors file"),
    "unknown number type": (weights_bytes(unknown_type), "not a readable safetensors file"),
    "pickle": (pickled, "not a readable safetensors file"),
    "torch.save": (torch_saved, "not a readable safetensors file"),
    "not there": (lambda folder: (folder / "model.safetensors").unlink(), "No generator at"),
}
CONFIG = {
    "other slots": (setting(slots=16), "model.safetensors"),
    "other side": (setting(side=8), "model.safetensors"),
    "unknown key": (setting(depth=3), "Unknown setting 'depth'"),
    "text": (setting(slots="8"), "'slots' must be of type int"),
    "not JSON": (config("slots: 8"), "not a generator's configuration"),
    "not text": (config(b"\xff\xfe\x00{"), "not a generator's configuration"),
    "a list": (config("[1, 2]"), "not a generator's configuration"),
    "a list of settings": (config('{"ddtool_generator": [["slots", 8]]}'), "not a generator's configuration"),
    "nothing": (config('{"ddtool_generator": null}'), "not a generator's configuration"),
    "somebody else's": (config('{"model_type": "bert"}'), "not a generator's configuration"),
    "nested without end": (config("[" * 200_000), "not a generator's configuration"),
    "too large": (config(" " * (2**20 + 1)), "too large"),
    "not there": (lambda folder: (folder / "config.json").unlink(), "No generator at"),
}


@pytest.mark.parametrize(("damage", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_damaged_weights_are_refused(folder: Path, damage: Callable, message: str) -> None:
    damage(folder)
    with pytest.raises(GeneratorError, match=re.escape(message)) as caught:
        Generator.load(folder)
    assert "model.safetensors" in caught.value.message
    assert str(folder) in caught.value.message


@pytest.mark.parametrize(("damage", "message"), CONFIG.values(), ids=CONFIG)
def test_damaged_config_is_refused(folder: Path, damage: Callable, message: str) -> None:
    damage(folder)
    with pytest.raises(GeneratorError, match=re.escape(message)) as caught:
        Generator.load(folder)
    assert str(folder) in caught.value.message
    file = "model.safetensors" if message == "model.safetensors" else "config.json"
    assert file in caught.value.message


def test_an_absurd_size_is_refused_before_anything_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting(slots=10**9)(folder)

    def build(*_: object) -> None:
        raise AssertionError("a generator was built")

    monkeypatch.setattr(Generator, "__init__", build)
    with pytest.raises(GeneratorError, match=r"config\.json: Setting 'slots' must be at most 8192"):
        Generator.load(folder)


def test_a_pickle_is_not_executed(folder: Path, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple:
            return Path.touch, (tmp_path / "executed",)

    (folder / "model.safetensors").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(GeneratorError):
        Generator.load(folder)
    assert not (tmp_path / "executed").exists()


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g").write_text("x")
    with pytest.raises(GeneratorError):
        Generator.load(tmp_path / "g")
