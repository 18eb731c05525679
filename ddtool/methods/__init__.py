"""The methods of the field, each in a file of its own, and what the rest of the program may ask of them."""

from ddtool.methods.base import Method, Settings, Spent, Store, Task, distil
from ddtool.methods.record import Record, Registered, Variant
from ddtool.methods.registry import METHODS, default, find, has_generator, make, own_protocol, settings_of

__all__ = [
    "METHODS",
    "Method",
    "Record",
    "Registered",
    "Settings",
    "Spent",
    "Store",
    "Task",
    "Variant",
    "default",
    "distil",
    "find",
    "has_generator",
    "make",
    "own_protocol",
    "settings_of",
]
