"""Dataclasses that check their values (by pydantic), and what is wrong with a value in a sentence that names the setting."""

import dataclasses
import functools
import inspect
import json
import operator
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ParamSpec, TypeVar, dataclass_transform

import pydantic
from pydantic import BeforeValidator, ConfigDict, Field, JsonValue, TypeAdapter

from ddtool.config.layers import Notes, Values, unheard, up_to_date
from ddtool.errors import UsageError, did_you_mean

T = TypeVar("T")
P = ParamSpec("P")
SEE_SETTINGS = "`ddtool adapt sample --dry-run` shows all settings as JSON."

# --------------------------------------------------------------------------------------------------- types with bounds


@dataclass(frozen=True)
class MostFromHub:
    """The largest value of a whole number that the configuration of a Hub repo may have, where it takes memory."""

    value: int


def _spelled_out(value: Any) -> Any:
    """The number that a text spells: YAML reads 1e-3 as text."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _listed(value: Any) -> tuple[Any, ...]:
    """One value as a list of one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


ListOfOne = BeforeValidator(_listed)
"""One number may stand for a list of it."""
Number = Annotated[float, BeforeValidator(_spelled_out)]
"""A finite number, or text that spells one."""
NotNegative = Annotated[Number, Field(ge=0)]
Share = Annotated[Number, Field(ge=0, le=1)]
Decay = Annotated[Number, Field(ge=0, lt=1)]
"""A moment decay of Adam."""
Ridge = Annotated[Number, Field(gt=0, lt=1e6)]
"""λ of a ridge regression."""
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
LARGEST_FACTOR = 8
Factor = Annotated[int, Field(ge=1, le=LARGEST_FACTOR)]
"""How many images a side one image of a set holds (`data.parts`)."""
Seed = Annotated[int, Field(ge=0, lt=2**63), MostFromHub(2**63)]
"""What a random stream can be seeded with."""


# -------------------------------------------------------------------------------------------- whole numbers of any kind


def counted(value: Any) -> Any:
    """Whole numbers of any kind as Python's own (`operator.index`), arrays as lists, also inside lists and mappings; anything else,
    truth values among it, as it is."""
    if isinstance(value, dict):
        return {name: counted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(counted, value))
    if hasattr(value, "tolist"):  # an array, or a number of the same package
        return value.tolist()
    return operator.index(value) if hasattr(value, "__index__") and not isinstance(value, bool) else value


ONE, SEVERAL = (int, int | None), (Sequence[int], int | Sequence[int])
"""Annotations of whole numbers: of one, and of several."""


def whole_numbers(call: Callable[P, T]) -> Callable[P, T]:
    """A function whose whole numbers, those by its annotations, may be of any kind: NumPy's, say, and several of them an array.

    It raises UsageError, naming the argument, where one is given that is none; truth values are none.
    """
    signature, run = inspect.signature(call), typing.cast(Any, call)
    kinds = {name: p.annotation for name, p in signature.parameters.items() if p.annotation in (*ONE, *SEVERAL)}

    @functools.wraps(call)
    def counting(*values: P.args, **named: P.kwargs) -> T:
        given = signature.bind(*values, **named)
        wholes = {name: value for name, value in given.arguments.items() if name in kinds}
        given.arguments.update({name: _whole(name, value, kinds[name]) for name, value in wholes.items()})
        result: T = run(*given.args, **given.kwargs)
        return result

    return counting


def _whole(name: str, given: Any, kind: Any) -> Any:
    """The whole number that is given for an argument, a list of them where the annotation `kind` is of several."""
    if given is None and kind == int | None:
        return None
    several, found = kind in SEVERAL, counted(given)
    listed = several and isinstance(found, Iterable) and not isinstance(found, str | bytes)
    numbers = [counted(one) for one in found] if listed else [found]
    if all(type(number) is int for number in numbers):
        return numbers if several else numbers[0]
    what, example = ("whole numbers", f"{name}=[1, 10]") if several else ("a whole number", f"{name}=10")
    raise UsageError(f"{name} must be {what}, got {given!r:.80}.", f"For example {example}.")


# ---------------------------------------------------------------------------------------------------------- dataclasses


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def checked(cls: type[T]) -> type[T]:
    """A frozen dataclass that checks type and bounds of its fields, and runs its validators, whenever one is made.

    Whole numbers may be of any kind (`counted`). A value that does not fit is a UsageError that names the setting.
    """
    strict = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
    made: Any = pydantic.dataclasses.dataclass(frozen=True, config=strict)(cls)
    initialise = made.__init__

    @functools.wraps(initialise)
    def explaining(self: Any, *values: Any, **named: Any) -> None:
        try:
            initialise(self, *map(counted, values), **counted(named))
        except pydantic.ValidationError as error:
            raise explained(made, error) from None

    made.__init__ = explaining
    return made


def from_dict(cls: type[T], values: Mapping[str, JsonValue], where: str = "", note: Notes = unheard) -> T:
    """A checked dataclass from JSON values on top of its defaults; names of earlier versions are read, and `note` hears so.

    Raises UsageError, naming the setting below `where`, for an unknown key or a value that does not fit. A number may stand
    for a list of one, a whole number be of any kind (`counted`), and a float be text (YAML reads 1e-3 as text).
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"A configuration must be a mapping of settings, got {values!r:.80}.", SEE_SETTINGS)
    try:
        text = json.dumps(up_to_date(values, note), default=_as_json)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"A configuration must be JSON values ({error}).", SEE_SETTINGS) from error
    try:
        return TypeAdapter(cls).validate_json(text)
    except pydantic.ValidationError as error:
        raise explained(cls, error, where) from None


def _as_json(value: Any) -> Any:
    """What JSON knows in place of a value that it does not know: its numbers, else its text."""
    plain = counted(value)
    return str(value) if plain is value else plain


def to_dict(config: Any) -> Values:
    """A checked dataclass as plain JSON values."""
    return {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def most_from_hub(cls: Any, where: str = "") -> dict[str, int]:
    """(a.b → the largest value) of the whole numbers below a dataclass that declare a `MostFromHub`."""
    most: dict[str, int] = {}
    for name, hint in typing.get_type_hints(cls, include_extras=True).items():
        if dataclasses.is_dataclass(hint):
            most |= most_from_hub(hint, f"{where}{name}.")
        for part in getattr(hint, "__metadata__", ()):
            if isinstance(part, MostFromHub):
                most[where + name] = part.value
    return most


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return list(value) if isinstance(value, tuple) else dict(value) if isinstance(value, dict) else value


# ----------------------------------------------------------------------------------------------------------- sentences

_KINDS = {
    "int_type": "must be of type int",
    "bool_type": "must be of type bool",
    "string_type": "must be of type str",
    "dict_type": "must be of type dict",
    "float_type": "must be a finite number",
    "finite_number": "must be a finite number",
    "dataclass_type": "must be a mapping",
    "tuple_type": "must be a list",
}
"""What a value should have been, by pydantic's name of the fault."""
_BOUNDS = {
    "greater_than": "must be positive",  # the only such bound is 0
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "value_error": "{error}",
}
"""The same for a value of the right type; the parts in braces are the fault's."""


def explained(cls: Any, error: pydantic.ValidationError, where: str = "") -> UsageError:
    """The first thing that is wrong with the values for a checked dataclass, as a sentence and a hint."""
    fault = error.errors(include_url=False)[0]
    path, kind, got = [str(part) for part in fault["loc"] if isinstance(part, str)], fault["type"], fault["input"]
    name, parts = where + ".".join(path), {k: _short(v) for k, v in fault.get("ctx", {}).items()}
    if kind == "unexpected_keyword_argument":
        known = [f.name for f in dataclasses.fields(_hint_at(cls, path[:-1]))]
        return UsageError(f"Unknown setting '{name}' in the configuration.", did_you_mean(path[-1], known))
    if kind in _BOUNDS:
        message = f"Setting '{name}' {_BOUNDS[kind].format(**parts)}, got {got!r:.80}."
        usual = f"For example --set {name}={json.dumps(_usual(cls, path))}, its default."
        return UsageError(message, usual)
    if kind == "literal_error":
        choices = typing.get_args(_hint_at(cls, path))
        return UsageError(
            f"Setting '{name}' must be {parts['expected']}, got {got!r:.80}.", did_you_mean(str(got), choices)
        )
    if kind in ("too_long", "missing") and typing.get_origin(hint := _hint_at(cls, path)) is tuple:
        return UsageError(
            f"Setting '{name}' must be a list of {len(typing.get_args(hint))}, got {got!r:.80}.", SEE_SETTINGS
        )
    if kind in _KINDS:
        return UsageError(f"Setting '{name}' {_KINDS[kind]}, got {got!r:.80}.", SEE_SETTINGS)
    if kind == "missing":
        return UsageError(f"Setting '{name}' is missing.", SEE_SETTINGS)
    return UsageError(f"The configuration cannot be read: {fault['msg']}.", SEE_SETTINGS)


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _hint_at(cls: Any, path: list[str]) -> Any:
    """The type of the setting at a path below a dataclass."""
    for name in path:
        cls = typing.get_type_hints(cls)[name]
    return cls


def _usual(cls: Any, path: list[str]) -> Any:
    """The default of the setting at a path below a dataclass, as JSON."""
    value = cls
    for name in path:
        if isinstance(value, type):
            usual = next(f for f in dataclasses.fields(value) if f.name == name)
            value = usual.default if usual.default_factory is dataclasses.MISSING else usual.default_factory()
        else:
            value = getattr(value, name)
    return _plain(value)
