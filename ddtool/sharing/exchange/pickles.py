"""The one place where files of torch are read and written: the field publishes its sets as pickles.

Read with `weights_only`: an unpickler that makes tensors and plain values and runs nothing of the file. The accuracies that the
field's files hold beside the sets are numbers of numpy; they are read by two stand-ins that know numbers only.
"""

import io
import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from ddtool.errors import DataError

NUMBERS = {"f8": "d", "f4": "f", "i8": "q", "i4": "i", "b1": "?"}
"""Kinds of numpy numbers, and how their bytes are read."""


class Kind:
    """Stands in for a numpy dtype: its name, and the order of its bytes, which is always the usual one."""

    def __init__(self, name: str = "", *ignored: Any) -> None:
        self.name = name

    def __setstate__(self, state: Any) -> None:
        """Take no state: what numpy keeps there does not change how a number is read."""


def number(kind: Kind, raw: Any) -> float | int | bool:
    """Stands in for what makes a numpy number; ValueError for anything that is none."""
    name = kind.name.decode() if isinstance(kind.name, bytes) else kind.name
    if not isinstance(kind, Kind) or name not in NUMBERS or not isinstance(raw, bytes | str):
        raise ValueError("it holds a value of numpy that is no number")
    value: float | int | bool = struct.unpack(
        "<" + NUMBERS[name], raw if isinstance(raw, bytes) else raw.encode("latin1")
    )[0]
    return value


STAND_INS: list[Any] = [
    (number, "numpy.core.multiarray.scalar"),
    (number, "numpy._core.multiarray.scalar"),
    (Kind, "numpy.dtype"),
]
"""What the unpickler is given under the names that it meets; nothing of numpy runs."""


def load(path: Path) -> Any:
    """What a .pt file holds: tensors, numbers and text in lists and mappings. DataError for a file that holds anything else."""
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, EOFError, AttributeError,
            AssertionError, ArithmeticError, MemoryError, OSError, struct.error) as error:  # fmt: skip
        raise DataError(
            f"{path} is refused: {reason(error):.200}.",
            "Only tensors, numbers and text are read from a .pt file; whatever would run code is not.",
        ) from error


def reason(error: Exception) -> str:
    """Why a file is refused, in a line; what the unpickler met, without torch's advice, which is to run what the file holds."""
    said = str(error).rpartition("WeightsUnpickler error: ")[2].strip() or type(error).__name__
    return said.splitlines()[0].partition(" Please use ")[0].rstrip(".")


def save(path: Path, content: Any) -> None:
    """Write tensors and plain values as a .pt file."""
    whole = io.BytesIO()  # on a full disk torch's own writer raises a RuntimeError that says nothing of the disk
    torch.save(content, whole)
    path.write_bytes(whole.getbuffer())
