"""The generator g_ω: image to image, residual, an associative memory."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from ddtool.config import GeneratorConfig, from_dict
from ddtool.errors import GeneratorError, UsageError
from ddtool.hub import generators
from ddtool.hub.access import Access, asked
from ddtool.hub.download import named
from ddtool.runtime.digest import digest
from ddtool.runtime.engine import finite, frozen_random_state, torch_as_usual
from ddtool.runtime.files import write_atomically
from ddtool.text import parsed_json

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
DIGEST = "digest"
"""The one key in the metadata of the file of weights: their digest; files of version 0.1 have none."""
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64}
"""Types by the names that safetensors gives them."""
RESTORE = "Copy or download it again."
GAIN, SHARPNESS = 32.0, 5.0
"""Factors on the memory's output (a step of Adam at 1e-3 then moves a pixel by up to 0.03, as a step of refinement does) and on
the cosine similarity (an image then takes a handful of the 512 slots). Half or twice as much makes no difference (docs/log.md)."""

Resampling = Callable[[Tensor, tuple[int, int]], Tensor]


class Generator(nn.Module):
    """g_ω(X) = X + r_ω(X). r_ω, an associative memory, mixes stored images by the image's cosine similarity to their keys.
    Stored images are zero at the start, so that g begins as the identity.

    Ours: images that look different take different slots, so the steps of adaptation move each image by itself, as direct steps
    on pixels do; a convolutional r_ω changes all images alike, which gains nothing (docs/log.md). An image that adaptation
    did not see takes what was stored for those that look like it.

    Works on normalised images (n, c, h, w) of any size, but what it adds has no finer detail than `side` pixels; grey images
    travel as three equal channels and come back grey.
    """

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GeneratorConfig()
        slots, side = config.slots, config.side
        self.keys = nn.Parameter(torch.randn(slots, 3 * (side // 2) ** 2))
        self.values = nn.Parameter(torch.zeros(slots, 3 * side**2))

    def forward(self, images: Tensor) -> Tensor:
        """Normalised images (n, c, h, w), c in {1, 3} → normalised images of the same shape, not clamped."""
        return images + self.residual(images)

    def residual(self, images: Tensor) -> Tensor:
        """What the generator adds, (n, c, h, w)."""
        grey, size = images.shape[1] == 1, images.shape[2:]
        x = images.expand(-1, 3, -1, -1) if grey else images
        x = torch.softmax(SHARPNESS * self.cosine_similarity(x), 1) @ self.values
        x = GAIN * x.view(-1, 3, self.config.side, self.config.side).float()
        x = resampled(x, size, bilinear)
        return x.mean(1, keepdim=True) if grey else x

    def cosine_similarity(self, images: Tensor) -> Tensor:
        """Cosine similarity of images (n, 3, h, w) to the keys, (n, slots), at half the side without what is coarse, times √d, so
        that it is about N(0, 1) for random keys; near zero for an image without detail. float32 always: it is an exponent."""
        with torch.autocast(images.device.type, enabled=False):
            x = resampled(images, (self.config.side // 2,) * 2, averaged)
            x = x - F.avg_pool2d(F.pad(x, (2, 2, 2, 2), mode="replicate"), 5, 1)
            x, keys = F.normalize(x.flatten(1), dim=1, eps=1e-3), F.normalize(self.keys, dim=1)
            return x @ keys.T * math.sqrt(keys.shape[1])

    @classmethod
    def build(cls, config: GeneratorConfig, seed: int) -> "Generator":
        """A generator with fresh weights that depend on `seed` alone."""
        with frozen_random_state():
            torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
            return cls(config)

    def save(self, folder: Path) -> None:
        """Write config.json and model.safetensors into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"ddtool_generator": asdict(self.config)}, indent=2) + "\n"
        (folder / CONFIG_FILE).write_text(text, encoding="utf-8", newline="\n")
        weights = {k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}
        stated = {DIGEST: digest(weights)}
        write_atomically(folder / WEIGHTS_FILE, lambda path: save_file(weights, path, metadata=stated))

    @classmethod
    @torch_as_usual()
    def load(cls, folder: Path) -> "Generator":
        """Read an untrusted generator folder. Raises GeneratorError, naming the file, for anything but an exact fit."""
        config = read_config(folder / CONFIG_FILE)
        with torch.device("meta"):  # shapes without memory: nothing is allocated for a file that does not fit
            generator = cls(config)
        weights = read_weights(folder / WEIGHTS_FILE, generator.state_dict())
        for name, value in weights.items():
            if not finite(value):
                raise GeneratorError(f"{folder / WEIGHTS_FILE}: tensor '{name}' has values that are not finite.")
        generator.load_state_dict(weights, assign=True)
        return generator

    def save_pretrained(self, save_directory: str | Path) -> None:
        """Write config.json and model.safetensors into a folder, which `from_pretrained` takes."""
        self.save(Path(save_directory))

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> "Generator":
        """The generator of a Hub repo[@revision], of a folder or a run, or 'bundled'. Raises GeneratorError or HubError.

        token: default that of the environment or of `hf auth login`;  cache_dir: default HF_HOME;  force_download: also what is
        in the cache;  local_files_only: ask nothing, take what was used here before.
        """
        with asked(Access(token, cache_dir, force_download, local_files_only)):
            named_so = generators.named_generator(name, revision)
            folder = generators.generator_folder(named_so)
            with named(folder, named_so):
                return cls.load(folder)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str = "Generator, by ddtool",
        private: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        create_pr: bool = False,
    ) -> str:
        """Push weights, configuration and (where there is no README.md) a short card to a model repo, as one commit; returns its
        address, or that of the pull request. `ddtool push` writes the full card, and brings what makes sets. Raises HubError.

        private: make a new repo private;  revision: a branch, made if it is not there;  create_pr: propose the commit.
        """
        with asked(Access(token)), TemporaryDirectory(prefix="ddtool-push-") as folder:
            self.save_pretrained(folder)
            pushed = generators.push_folder(
                Path(folder), repo_id, message=commit_message, private=private, revision=revision, create_pr=create_pr
            )
        return pushed.pull_request or f"{pushed.url}/commit/{pushed.sha}"


def averaged(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images at another size: means over areas."""
    return F.adaptive_avg_pool2d(images, size)


def bilinear(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Images at another size: bilinear, antialiased."""
    return F.interpolate(images, size, mode="bilinear", antialias=True)


def resampled(images: Tensor, size: Sequence[int], how: Resampling) -> Tensor:
    """Images (n, c, h, w) at another size: `how` of them, as a product with the weights of each side.

    So its gradients are summed in the same order each time: on CUDA those of torch's kernels are not.
    """
    if images.shape[2:] == torch.Size(size):
        return images
    rows, columns = (side_weights(how, n, to, images.device) for n, to in zip(images.shape[2:], size, strict=True))
    with torch.autocast(images.device.type, enabled=False):
        return rows.to(images) @ images @ columns.T.to(images)


@lru_cache(maxsize=64)
def side_weights(how: Resampling, n: int, to: int, device: torch.device) -> Tensor:
    """The weights (to, n) of a side's n pixels in each of its `to` new ones."""
    with torch.autocast("cpu", enabled=False), torch.inference_mode(False), torch.no_grad():
        return how(torch.eye(n)[None, None], (to, n))[0, 0].to(device)


def read_config(path: Path) -> GeneratorConfig:
    """The architecture in a config.json of ours; GeneratorError for anything else."""
    hint = (
        "A generator folder holds config.json and model.safetensors; `ddtool adapt --generator bundled` always works."
    )
    try:
        if path.stat().st_size > 2**20:
            raise GeneratorError(f"{path} is too large for a configuration.", hint)
        values = parsed_json(path.read_text(encoding="utf-8"))["ddtool_generator"]
        if values.keys() >= {"width", "blocks"}:
            raise GeneratorError(
                f"{path} is of an earlier version's convolutional generator.", "Adapt or pre-train again."
            )
        return from_dict(GeneratorConfig, values)
    except FileNotFoundError:
        raise GeneratorError(f"No generator at {path.parent}: {path.name} is missing.", hint) from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise GeneratorError(f"{path} is not a generator's configuration ({type(error).__name__}).", hint) from error
    except UsageError as error:
        raise GeneratorError(f"{path}: {error.message}", error.hint or hint) from error


def read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a safetensors file, whose header is compared with `expected` (names, shapes, types) before any is read.

    Raises GeneratorError when the file is missing, damaged or not for this network.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = {name: file.get_slice(name) for name in list(file.keys())}
            stated = {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in header.items()}
            if fault := header_fault(stated, expected):
                raise GeneratorError(f"{path}{fault}.", "The file is not for this config.json.")
            weights = {name: file.get_tensor(name) for name in header}
            written = (file.metadata() or {}).get(DIGEST)
    except FileNotFoundError:
        raise GeneratorError(f"No generator at {path.parent}: {path.name} is missing.", RESTORE) from None
    except (SafetensorError, OSError, ValueError) as error:
        raise GeneratorError(f"{path} is not a readable safetensors file: {error}", RESTORE) from error
    if written is not None and written != digest(weights):
        raise GeneratorError(f"{path} is damaged: its values are not those that were written.", RESTORE)
    return weights


def header_fault(header: dict[str, tuple[tuple[int, ...], str]], expected: dict[str, Tensor]) -> str:
    """In what a header (shape and type of each tensor) differs from the expected tensors, as the end of a sentence; empty when
    in nothing."""
    for name in sorted(expected.keys() ^ header.keys()):
        return f" {'misses' if name in expected else 'has the unknown'} tensor '{name}'"
    for name, (shape, type_) in header.items():
        kind, wanted = DTYPES.get(type_), expected[name]
        if shape != wanted.shape or kind != wanted.dtype:
            said = f"is {shape} {kind or type_}, expected {tuple(wanted.shape)} {wanted.dtype}"
            return f": tensor '{name}' {said}"
    return ""
