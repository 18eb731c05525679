"""The methods of the field beside MGDD, each in a file of its own; a new one takes a file and a line here."""

from typing import Any

from ddtool.config import check_least, from_dict
from ddtool.data.images import LARGEST_FACTOR
from ddtool.errors import UsageError, did_you_mean
from ddtool.methods.base import LEAST, Method, Settings, Spent, Store, Task, distil
from ddtool.methods.dm import DM
from ddtool.methods.frepo import FRePo
from ddtool.methods.gradient_matching import DC, DSA
from ddtool.methods.idc import IDC
from ddtool.methods.mtt import MTT
from ddtool.methods.selection import Herding, Random
from ddtool.models.convnet import NORMS

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

INITS = ("real", "noise")


def find(name: str) -> type[Method]:
    """The method of that name, or UsageError."""
    if name not in METHODS:
        raise UsageError(f"Unknown method '{name}'.", did_you_mean(name, ["mgdd", *METHODS]))
    return METHODS[name]


def settings_of(name: str, values: dict[str, Any]) -> Settings:
    """A method's settings: its published defaults with `values` on top; UsageError for what it does not know or cannot use."""
    method = find(name)
    settings = from_dict(method.settings, values, "baseline.")
    least = {key: bound for key, bound in (LEAST | method.least).items() if getattr(settings, key) is not None}
    check_least(settings, least, "baseline.")
    if (factor := getattr(settings, "factor", 1)) > LARGEST_FACTOR:
        raise UsageError(
            f"Setting 'baseline.factor' must be at most {LARGEST_FACTOR}, got {factor}.",
            f"For example --set baseline.factor={method.factor}, its default.",
        )
    if settings.init not in INITS:
        raise UsageError(
            f"Setting 'baseline.init' must be real or noise, got '{settings.init}'.", "Its default is real."
        )
    if settings.norm not in NORMS:
        raise UsageError(f"Unknown norm '{settings.norm}'.", did_you_mean(settings.norm, NORMS))
    return settings


__all__ = ["METHODS", "Method", "Settings", "Spent", "Store", "Task", "distil", "find", "settings_of"]
