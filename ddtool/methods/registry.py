"""The methods by their names: a new one is a file of its own and a line here."""

import torch

from ddtool.config import RunConfig, Values, from_dict
from ddtool.errors import UsageError, did_you_mean
from ddtool.methods.base import Method, Settings, Task
from ddtool.methods.dm import DM
from ddtool.methods.frepo import FRePo
from ddtool.methods.gradient_matching import DC, DSA
from ddtool.methods.idc import IDC
from ddtool.methods.mgdd import MGDD
from ddtool.methods.mtt import MTT
from ddtool.methods.record import Record, Registered
from ddtool.methods.selection import EL2N, Herding, KCentre, Random

METHODS: dict[str, type[Registered]] = {
    method.record.name: method
    for method in (
        Random,
        Herding,
        KCentre,
        EL2N,
        DM,
        MTT,
        DC,
        DSA,
        IDC,
        FRePo,
        MGDD,
    )
}
"""By the name that `--method` takes, in the order of tables."""


def find(name: str) -> Record:
    """What the method of that name can do; UsageError when there is none."""
    if name not in METHODS:
        raise UsageError(f"Unknown method '{name}'.", did_you_mean(name, METHODS, listed=True))
    return METHODS[name].record


def default() -> Record:
    """The method of a run that names none."""
    return find(RunConfig().method)


def has_generator(name: str) -> bool:
    """Whether the method of that name adapts a generator; one that is not known here does not."""
    return name in METHODS and METHODS[name].record.has_generator


def own_protocol(name: str) -> str:
    """The protocol by which the authors of a method score, where it is another than the field's; empty of one not known here."""
    return METHODS[name].record.own_protocol if name in METHODS else ""


def settings_of(name: str, values: Values) -> Settings:
    """A method's own settings: its published defaults with `values` on top. UsageError for what it does not know or cannot use,
    and for a method without any."""
    kind = find(name).settings
    if kind is None:
        raise UsageError("The settings of 'baseline' are those of other methods.", "Name one: --method dm.")
    settings: Settings = from_dict(kind, values, "baseline.")
    return settings


def make(name: str, task: Task, settings: Settings, rng: torch.Generator) -> Method:
    """The method of that name on a task. It must be one that is run by its steps: one without a generator."""
    kind = METHODS[find(name).name]
    assert issubclass(kind, Method), f"{name} has no steps of its own"
    return kind(task, settings, rng)
