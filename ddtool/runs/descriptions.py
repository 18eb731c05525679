"""What a safetensors file of a run says of its tensors: records, checked with the header before a tensor is read."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, ValidationError

from ddtool.config import Factor
from ddtool.data import whitening
from ddtool.runs.facts import Record
from ddtool.text import one_line

Header = dict[str, tuple[str, tuple[int, ...]]]
"""Type and shape of each tensor in a safetensors file."""
LARGEST_SIDE = 4096
"""The most pixels a side that a file may claim its images have."""


def _image(shape: object) -> object:
    """The shape (c, h, w) of an image; ValueError for anything else, and for one that is too large."""
    if not isinstance(shape, list | tuple) or len(shape) != 3 or not all(type(n) is int for n in shape):
        raise ValueError(f"images of shape {shape!r:.60} are none")
    if shape[0] not in (1, 3) or min(shape[1:]) < 1:
        raise ValueError(f"images of shape {tuple(shape)!r:.60} are none")
    if max(shape[1:]) > LARGEST_SIDE:
        raise ValueError(f"images of {shape[1]}x{shape[2]} pixels are too large")
    return tuple(shape)


class Description(Record):
    """What is said of any images: their classes, how to standardise and whiten them, where they came from."""

    class_names: Annotated[tuple[str, ...], Field(min_length=1)]
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]
    flip: bool
    source: dict[str, JsonValue]
    whitening: JsonValue = None
    """As `Whitening.description` gives it, checked by `whitening.fault`; None in files of version 0.1."""

    @classmethod
    def fault(cls, error: ValidationError) -> str:
        """The first fault, with the value that is refused; of parts that are missing all."""
        faults = error.errors(include_url=False)
        first = faults[0]
        if missing := [str(fault["loc"][0]) for fault in faults if fault["type"] == "missing"]:
            return f"it misses {', '.join(missing)}"
        if first["type"] in ("value_error", "json_invalid"):
            return super().fault(error)
        if first["loc"][0] == "class_names":
            return "its class names are no list of names"
        name = one_line(str(first["loc"][0]), 40)
        return f"it says '{name}'" if first["type"] == "extra_forbidden" else f"'{name}' is {first['input']!r:.40}"

    def channels_fault(self, shape: Sequence[int]) -> str:
        """What does not go with images of shape (c, h, w); empty when all does."""
        wrong = [name for name in ("mean", "std") if len(getattr(self, name)) != shape[0]]
        return f"'{wrong[0]}' is not {shape[0]} numbers" if wrong else ""

    def whitening_fault(self, header: Header, shape: Sequence[int]) -> str:
        """What is wrong with the whitening of images of shape (c, h, w); empty when nothing is, or there is none."""
        return whitening.fault(self.whitening, {name: shape for name, (_, shape) in header.items()}, shape)


class SetDescription(Description):
    """What exact.safetensors says of a synthetic set: all of `SyntheticSet` but its tensors, and nothing else."""

    model_config = ConfigDict(extra="forbid")

    ipc: Annotated[int, Field(ge=1)]
    label_scale: Annotated[float, Field(gt=0)]
    method: str
    stage: str
    label_method: Literal["hard", "analytical", "fitted", "learned"]
    label_convention: Literal["centred"]
    factor: Factor = 1
    """Files of version 0.1 have none."""
    learned_lr: Annotated[float, Field(gt=0)] | None = None
    """Only where one was learned with the images."""

    def header_fault(self, header: Header) -> str:
        """In what the tensors differ from the description; empty when in nothing."""
        shapes = {name: shape for name, (_, shape) in header.items() if not name.startswith("whitening.")}
        images, C = shapes.get("images", ()), len(self.class_names)
        m = self.ipc * C
        rows = (m, m * self.factor**2)  # a label for each image, or for each of those that it holds
        expected = [{"images": (m, *images[1:]), "labels": (n, C), "hard": (m,)} for n in rows]
        if len(images) != 4 or shapes not in expected:
            return f"ipc {self.ipc} and {C} classes do not go with tensors {shapes}"
        if any(dtype != ("I64" if name == "hard" else "F32") for name, (dtype, _) in header.items()):
            return "its tensors are of other types"
        try:
            _image(images[1:])
        except ValueError as error:
            return str(error)
        if self.factor > min(images[2:]):
            return f"'factor' is {self.factor}"
        return self.channels_fault(images[1:]) or self.whitening_fault(header, images[1:])


class PointDescription(Record):
    """What a point of a curve says beside its tensors."""

    model_config = ConfigDict(extra="forbid")

    step: Annotated[int, Field(ge=0)]
    """Steps of the phase."""
    seconds: Annotated[float, Field(ge=0)]
    """Wall clock of the phase so far."""


class LabelDescription(Description):
    """What labels.safetensors says beside θ and W_θ: all that is needed to use them."""

    shape: Annotated[tuple[int, int, int], BeforeValidator(_image)]
    label_width: int
    pool_ipc: int | None = None

    def header_fault(self, header: Header) -> str:
        """In what the tensors differ from the description; empty when in nothing."""
        if "W" not in header:
            return "it misses W"
        return self.channels_fault(self.shape) or self.whitening_fault(header, self.shape)
