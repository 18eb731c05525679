"""The methods of the field beside MGDD, each in a file of its own; a new one takes a file and a line here."""

from typing import Any

from ddtool.config import from_dict
from ddtool.errors import UsageError, did_you_mean
from ddtool.methods.base import Method, Settings, Spent, Store, Task, distil
from ddtool.methods.dm import DM
from ddtool.methods.frepo import FRePo
from ddtool.methods.gradient_matching import DC, DSA
from ddtool.methods.idc import IDC
from ddtool.methods.mtt import MTT
from ddtool.methods.selection import Herding, Random

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        Random,
        Herding,
        DM,
        MTT,
        DC,
        DSA,
        IDC,
        FRePo,
    )
}  # fmt: skip
"""By the name that `--method` takes."""


def find(name: str) -> type[Method]:
    """The method of that name, or UsageError."""
    if name not in METHODS:
        raise UsageError(f"Unknown method '{name}'.", did_you_mean(name, ["mgdd", *METHODS]))
    return METHODS[name]


def settings_of(name: str, values: dict[str, Any]) -> Settings:
    """A method's settings: its published defaults with `values` on top; UsageError for what it does not know or cannot use."""
    return from_dict(find(name).settings, values, "baseline.")


__all__ = ["METHODS", "Method", "Settings", "Spent", "Store", "Task", "distil", "find", "settings_of"]
