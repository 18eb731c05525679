"""Settings before they are checked: on top of each other, and those of earlier versions under their present names."""

import copy
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from ddtool.errors import UsageError

Values = dict[str, JsonValue]
"""Settings or other facts by name, as JSON has them."""
Notes = Callable[[str], None]
"""Hears, in a sentence for people, what was read in another way than it was written."""

EARLIER: dict[str, str | None] = {
    "adapt.lr_floor": "adapt.min_lr_ratio",
    "refine.lr_floor": "refine.min_lr_ratio",
    "meta.lr_floor": "meta.min_lr_ratio",
    "meta.task.lr_floor": "meta.task.min_lr_ratio",
    "mirror": "flip",
    "adapt.mirror": "adapt.flip",
    "refine.mirror": "refine.flip",
    "fit.mirror": "fit.flip",
    "meta.task.mirror": "meta.task.flip",
    "meta.fit.mirror": "meta.fit.flip",
    "baseline.pyramid": "baseline.doubling_widths",
    "architecture.width": None,
    "architecture.blocks": None,
    "refine.uses": None,
}
"""The full name of a setting in an earlier version → its present one; None: it no longer means anything. Until version 1.0."""

UNSAID = ("adapt", "refine", "fit", "meta.task", "meta.fit")
"""Sections of a configuration whose `augmented_copies` runs of earlier versions do not state: they had none."""

_ABSENT = object()


def unheard(note: str) -> None:
    """Ignore a note."""


def up_to_date(values: Mapping[str, JsonValue], note: Notes = unheard) -> Values:
    """A copy of nested settings with the present names; `note` hears of each other name that was found.

    Raises UsageError when both names of a setting are given.
    """
    present = copy.deepcopy(dict(values))
    for old, new in EARLIER.items():
        value = _taken(present, old)
        if value is _ABSENT:
            continue
        if new is None:
            note(f"Setting '{old}' no longer means anything, and is left out.")
            continue
        if not _put(present, new, value):
            raise UsageError(f"Setting '{old}' is now called '{new}', and both are given.", f"Leave '{old}' out.")
        note(f"Setting '{old}' is now called '{new}'.")
    return present


def as_begun(values: Any) -> Any:
    """A configuration of a run as its version meant it, where it says less than a present one does; what is none stays as it is."""
    if not isinstance(values, Mapping):
        return values
    present = copy.deepcopy(dict(values))
    for section in UNSAID:
        inner: Any = present
        for name in section.split("."):
            inner = inner.get(name) if isinstance(inner, dict) else None
        if isinstance(inner, dict):
            inner.setdefault("augmented_copies", 0)
    return present


def merged(base: Mapping[str, JsonValue], over: Mapping[str, JsonValue]) -> Values:
    """`over` on top of `base`, key by key through nested mappings."""
    out = dict(base)
    for key, value in over.items():
        below = out.get(key)
        out[key] = merged(below, value) if isinstance(value, Mapping) and isinstance(below, Mapping) else value
    return out


def leaves(values: Mapping[str, JsonValue], above: str = "") -> Iterator[tuple[str, JsonValue]]:
    """The full name of each nested setting, as 'refine.steps', and its value. An empty section is one of them."""
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def nested(values: Mapping[str, JsonValue]) -> Values:
    """Settings by their full names, nested: the inverse of `leaves`."""
    out: Values = {}
    for name, value in values.items():
        inner: Any = value
        for part in reversed(name.split(".")):
            inner = {part: inner}
        out = merged(out, inner)
    return out


def layered(*layers: Mapping[str, JsonValue], note: Notes = unheard) -> Values:
    """Settings on top of each other, first to last, each by its present name."""
    empty: Values = {}
    return functools.reduce(merged, (up_to_date(layer, note) for layer in layers), empty)


def _taken(values: Any, name: str) -> Any:
    """Remove the setting a.b from nested values, and return what it was."""
    *sections, last = name.split(".")
    for section in sections:
        values = values.get(section) if isinstance(values, dict) else None
    return values.pop(last, _ABSENT) if isinstance(values, dict) else _ABSENT


def _put(values: Any, name: str, value: Any) -> bool:
    """Set a.b in nested values; False when it is there already."""
    *sections, last = name.split(".")
    for section in sections:
        values = values.setdefault(section, {})
    return values.setdefault(last, value) is value
