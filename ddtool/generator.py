"""The generator g_ω: image to image, residual, a few residual blocks over patches."""

import json
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool import hub
from ddtool.engine import finite, frozen_random_state
from ddtool.errors import GeneratorError, UsageError, did_you_mean

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
"""Types by the names that safetensors gives them."""
PATCH = 4
"""Pixels of a patch's side."""


@dataclass(frozen=True)
class GeneratorConfig:
    """The architecture of a generator."""

    width: int = 64
    """Channels at a quarter of the resolution. 8 to 512."""
    blocks: int = 3
    """Residual blocks. 1 to 8."""

    def __post_init__(self) -> None:
        for name, low, high in (("width", 8, 512), ("blocks", 1, 8)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
                raise UsageError(f"Generator {name} must be a whole number from {low} to {high}, got {value!r}.")
        if self.width % 8:
            raise UsageError(f"Generator width must be a multiple of 8, got {self.width}.")

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "GeneratorConfig":
        """From untrusted JSON values; an unknown key or a value out of range is a UsageError."""
        known = [f.name for f in fields(cls)]
        for key in values:
            if key not in known:
                raise UsageError(f"Unknown generator setting '{key}'.", did_you_mean(key, known))
        return cls(**values)


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(relu(norm(x))))), the last convolution zero at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.conv1 = nn.GroupNorm(8, width), nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.relu(self.norm(x)))
        return x + self.conv2(F.relu(h))


class Generator(nn.Module):
    """g_ω(X) = X + r_ω(X): residual blocks over 4x4 patches whose output is zero at the start, so that g begins as the
    identity. Ours: many channels at a low resolution take a third of a U-Net's time over 2x2 patches (docs/log.md).

    Works on normalised images (n, c, h, w) of any size: grey images travel as three equal channels and come back grey,
    sizes are padded by reflection to a multiple of 4 and cropped back.
    """

    def __init__(self, config: GeneratorConfig = GeneratorConfig()) -> None:
        super().__init__()
        self.config = config
        w, pixels = config.width, 3 * PATCH * PATCH
        self.stem = nn.Conv2d(pixels, w, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(w) for _ in range(config.blocks)))
        self.norm, self.out = nn.GroupNorm(8, w), nn.Conv2d(w, pixels, 3, padding=1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, c, h, w), c in {1, 3} → normalised images of the same shape, not clamped."""
        return images + self.residual(images)

    def residual(self, images: Tensor) -> Tensor:
        """What the generator adds, (n, c, h, w)."""
        grey, (height, width) = images.shape[1] == 1, images.shape[2:]
        x = images.expand(-1, 3, -1, -1) if grey else images
        x = self.body(self.stem(F.pixel_unshuffle(pad_to_multiple(x, PATCH), PATCH)))
        x = F.pixel_shuffle(self.out(F.relu(self.norm(x))), PATCH)
        x = centre_crop(x, height, width).float()
        return x.mean(1, keepdim=True) if grey else x

    @classmethod
    def build(cls, config: GeneratorConfig, seed: int) -> "Generator":
        """A generator with fresh weights that depend on `seed` alone."""
        with frozen_random_state():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            return cls(config)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CONFIG_FILE).write_text(json.dumps({"ddtool_generator": asdict(self.config)}, indent=2) + "\n")
        weights = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})

    @classmethod
    def load(cls, folder: Path) -> "Generator":
        """Read an untrusted generator folder. Raises GeneratorError, naming the file, for anything but an exact fit."""
        config = read_config(folder / CONFIG_FILE)
        with torch.device("meta"):  # shapes without memory: nothing is allocated for a file that does not fit
            expected = cls(config).state_dict()
        weights = read_weights(folder / WEIGHTS_FILE, expected)
        for name, value in weights.items():
            if not finite(value):
                raise GeneratorError(f"{folder / WEIGHTS_FILE}: tensor '{name}' has values that are not finite.")
        generator = cls.build(config, 0)
        generator.load_state_dict(weights)
        return generator

    @classmethod
    def from_pretrained(cls, name: str) -> "Generator":
        """The generator of a Hub repo[@revision], of a folder or a run, or 'bundled'. Raises GeneratorError or HubError."""
        return cls.load(hub.generator_folder(name))


def read_config(path: Path) -> GeneratorConfig:
    """The architecture in a config.json of ours; GeneratorError for anything else."""
    hint = (
        "A generator folder holds config.json and model.safetensors; `ddtool adapt --generator bundled` always works."
    )
    try:
        if path.stat().st_size > 2**20:
            raise GeneratorError(f"{path} is too large for a configuration.", hint)
        values = json.loads(path.read_text(encoding="utf-8"))["ddtool_generator"]
        return GeneratorConfig.from_dict(values)
    except FileNotFoundError:
        raise GeneratorError(f"No generator at {path.parent}: {path.name} is missing.", hint) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise GeneratorError(f"{path} is not a generator's configuration ({type(error).__name__}).", hint) from error
    except UsageError as error:
        raise GeneratorError(f"{path}: {error.message}", error.hint or hint) from error


def read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose header is compared with `expected` (names, shapes, types) before any is read.

    Raises GeneratorError when the file is missing, damaged or not for this network.
    """
    hint = "The file is not for this config.json."
    try:
        with safe_open(path, framework="pt") as file:
            header = {name: file.get_slice(name) for name in list(file.keys())}
            for name in sorted(expected.keys() ^ header.keys()):
                how = "misses" if name in expected else "has the unknown"
                raise GeneratorError(f"{path} {how} tensor '{name}'.", hint)
            for name, part in header.items():
                shape, kind, wanted = tuple(part.get_shape()), DTYPES.get(part.get_dtype()), expected[name]
                if shape != wanted.shape or kind != wanted.dtype:
                    said = f"is {shape} {kind or part.get_dtype()}, expected {tuple(wanted.shape)} {wanted.dtype}"
                    raise GeneratorError(f"{path}: tensor '{name}' {said}.", hint)
            return {name: file.get_tensor(name) for name in header}
    except FileNotFoundError:
        raise GeneratorError(f"No generator at {path.parent}: {path.name} is missing.") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise GeneratorError(
            f"{path} is not a readable safetensors file: {error}", "Copy or download it again."
        ) from error


def pad_to_multiple(images: Tensor, multiple: int) -> Tensor:
    """Pad height and width on all sides, by reflection, to multiples of `multiple`."""
    height, width = images.shape[2:]
    extra_h, extra_w = -height % multiple, -width % multiple
    if not extra_h and not extra_w:
        return images
    top, left = extra_h // 2, extra_w // 2
    mode = "reflect" if math.ceil(max(extra_h, extra_w) / 2) < min(height, width) else "replicate"
    return F.pad(images, (left, extra_w - left, top, extra_h - top), mode=mode)


def centre_crop(images: Tensor, height: int, width: int) -> Tensor:
    """The inverse of `pad_to_multiple`."""
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]
