"""The generator: shapes, a start at the identity, and files that are trusted in nothing."""

import json
import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor

from ddtool.errors import GeneratorError, UsageError
from ddtool.generator import Generator, GeneratorConfig, centre_crop, pad_to_multiple

SMALL = GeneratorConfig(width=8, blocks=1)


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
    assert ((moved - x).abs().mean((1, 2, 3)) > 1e-2).all()


def test_grey_travels_as_three_equal_channels() -> None:
    g, x = shaken(), torch.randn(2, 1, 28, 28, generator=rng())
    assert torch.allclose(g(x), x + g.residual(x.expand(-1, 3, -1, -1)).mean(1, keepdim=True), atol=1e-6)


def test_images_do_not_mix_in_a_batch() -> None:
    g, x = shaken(), torch.randn(4, 3, 16, 16, generator=rng())
    assert torch.allclose(g(x)[1:2], g(x[1:2]), atol=1e-5)


def test_every_convolution_takes_part() -> None:
    g, x = shaken(), torch.randn(2, 3, 16, 16, generator=rng()).requires_grad_()
    g.residual(x)[0, 0, 8, 8].backward()
    assert x.grad is not None
    assert (x.grad[0].abs().sum((1, 2)) > 0).all()  # every colour counts for every other
    convolutions = {name: p for name, p in g.named_parameters() if p.ndim == 4}
    assert len(convolutions) == 2 + 2 * g.config.blocks
    for name, p in convolutions.items():
        assert p.grad is not None, name
        assert p.grad.abs().sum() > 1e-6, name


def test_gradient_at_the_start_reaches_the_last_layer() -> None:
    g = Generator.build(SMALL, 0)
    g(torch.randn(2, 3, 16, 16, generator=rng())).square().sum().backward()
    assert g.out.weight.grad is not None
    assert g.out.weight.grad.abs().sum() > 0


@given(height=st.integers(1, 40), width=st.integers(1, 40))
def test_padding_is_to_a_multiple_and_crops_back(height: int, width: int) -> None:
    x = torch.randn(1, 2, height, width, generator=rng(height * 50 + width))
    padded = pad_to_multiple(x, 8)
    assert padded.shape[2] % 8 == padded.shape[3] % 8 == 0
    assert padded.shape[2] - height < 8
    assert padded.shape[3] - width < 8
    assert torch.equal(centre_crop(padded, height, width), x)
    assert set(padded.flatten().tolist()) <= set(x.flatten().tolist())  # reflected or repeated, no invented values


def test_28x28_is_reflected_by_two_on_every_side() -> None:
    x = torch.randn(1, 1, 28, 28, generator=rng())
    padded = pad_to_multiple(x, 8)
    assert torch.equal(padded[0, 0, 2:30, 1], x[0, 0, :, 1])
    assert torch.equal(padded[0, 0, 2:30, 31], x[0, 0, :, 25])
    assert torch.equal(padded[0, 0, 0, 2:30], x[0, 0, 2])


def test_build_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a = Generator.build(SMALL, 1)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    b, c = Generator.build(SMALL, 1), Generator.build(SMALL, 2)
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.stem.weight, c.stem.weight)


def test_build_leaves_the_gpus_random_state_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    Generator.build(SMALL, 1)
    assert seeded == []


# ----------------------------------------------------------------------------------------------------------- the config


@pytest.mark.parametrize(
    "value",
    [4, 12, 520, 64.0, True, "64", None],
)
def test_widths_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="Generator width must be"):
        GeneratorConfig.from_dict({"width": value})


@pytest.mark.parametrize("value", [0, 9, 2.0, True, None])
def test_numbers_of_blocks_out_of_range_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="Generator blocks must be a whole number from 1 to 8"):
        GeneratorConfig.from_dict({"blocks": value})


def test_settings() -> None:
    assert GeneratorConfig.from_dict({}) == GeneratorConfig(64, 3)
    assert GeneratorConfig.from_dict({"width": 512, "blocks": 8}) == GeneratorConfig(512, 8)
    with pytest.raises(UsageError, match="Unknown generator setting 'widht'") as caught:
        GeneratorConfig.from_dict({"widht": 8})
    assert "'width'" in caught.value.hint


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
    return lambda w: w["stem.weight"].view(-1)[17].fill_(value)


def weights_bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors").write_bytes(
        change((folder / "model.safetensors").read_bytes())
    )


def config(text: str | bytes) -> Callable[[Path], object]:
    raw = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / "config.json").write_bytes(raw)


def setting(**values: object) -> Callable[[Path], object]:
    return config(json.dumps({"ddtool_generator": {"width": 8, "blocks": 1} | values}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(pickle.dumps({"stem.weight": [1.0]}))


def torch_saved(folder: Path) -> None:
    torch.save(Generator.build(SMALL, 0).state_dict(), folder / "model.safetensors")


def unknown_type(raw: bytes) -> bytes:
    size = struct.unpack("<Q", raw[:8])[0]
    return raw[:8] + raw[8 : 8 + size].replace(b'"F32"', b'"X32"') + raw[8 + size :]


WEIGHTS = {
    "a tensor is missing": (tensors(lambda w: w.pop("stem.weight")), "misses tensor 'stem.weight'"),
    "a tensor too many": (tensors(lambda w: w.update(extra=torch.zeros(1))), "unknown tensor 'extra'"),
    "wrong shape": (tensors(lambda w: w.update({"stem.bias": torch.zeros(9)})), "'stem.bias' is (9,)"),
    "wrong shape, right size": (tensors(lambda w: w.update({"stem.bias": torch.zeros(1, 8)})), "'stem.bias' is (1, 8)"),
    "wrong type": (tensors(lambda w: w.update({"stem.bias": torch.zeros(8).double()})), "float64, expected"),
    "half": (tensors(lambda w: w.update({"stem.bias": torch.zeros(8).half()})), "float16, expected"),
    "NaN": (tensors(with_value(float("nan"))), "'stem.weight' has values that are not finite"),
    "infinity": (tensors(with_value(float("-inf"))), "'stem.weight' has values that are not finite"),
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
    "other width": (setting(width=16), "model.safetensors"),
    "more blocks": (setting(blocks=2), "misses tensor"),
    "unknown key": (setting(depth=3), "Unknown generator setting 'depth'"),
    "text": (setting(width="8"), "width must be a whole number"),
    "not JSON": (config("width: 8"), "not a generator's configuration"),
    "not text": (config(b"\xff\xfe\x00{"), "not a generator's configuration"),
    "a list": (config("[1, 2]"), "not a generator's configuration"),
    "a list of settings": (config('{"ddtool_generator": [["width", 8]]}'), "not a generator's configuration"),
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
    file = "model.safetensors" if message in ("model.safetensors", "misses tensor") else "config.json"
    assert file in caught.value.message


def test_an_absurd_width_is_refused_before_anything_is_built(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setting(width=10**9)(folder)

    def build(*_: object) -> None:
        raise AssertionError("a generator was built")

    monkeypatch.setattr(Generator, "__init__", build)
    with pytest.raises(GeneratorError, match=r"config\.json: Generator width must be a whole number from 8 to 512"):
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
