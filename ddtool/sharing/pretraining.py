"""What a card tells of a pre-training: a record that anybody may have written, so every part of it may be missing."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated

from pydantic import AliasPath, Field, JsonValue

from ddtool.hub.names import is_repo
from ddtool.runs.facts import Perhaps, Record
from ddtool.sharing.facts import RepoFacts

View = dict[str, object]
"""What a template may use, by name."""

FIGURES = ("loss before", "loss after", "accuracy")
"""Columns of a pre-training's `curve` that the card explains."""

COLUMNS = ("iteration", *FIGURES)
"""Columns of a curve that come first, in this order: JSON with sorted keys has lost the one they were written in."""

Columns = Mapping[str, Sequence[JsonValue]]
"""A table by its columns, all of one length."""


class Code(str):
    """Text for code or a link's target: kept as it is, but for what would end the line or the block."""


class TrainedOn(Record):
    """A dataset of a pre-training."""

    name: Perhaps[str] = None
    images: Perhaps[int] = None
    image: Perhaps[Annotated[list[int], Field(min_length=3, max_length=3)]] = None
    classes: Perhaps[int] = None
    held_out: Perhaps[list[str]] = None
    licence: Perhaps[str] = None


class Pretraining(Record):
    """What `ddtool pretrain` writes beside a generator."""

    datasets: tuple[TrainedOn, ...] = ()
    iterations: Perhaps[float] = None
    weights_of_iteration: Perhaps[float] = None
    tasks: Perhaps[float] = None
    seconds: Perhaps[float] = None
    licence: Perhaps[str] = None
    hardware: Perhaps[str] = None
    settings: Perhaps[dict[str, JsonValue]] = None
    outer: Perhaps[str] = Field(None, validation_alias=AliasPath("settings", "meta", "outer"))
    inner_steps: Perhaps[float] = Field(None, validation_alias=AliasPath("settings", "meta", "inner_steps"))
    validate_steps: Perhaps[float] = Field(None, validation_alias=AliasPath("settings", "validate_steps"))
    validate_tasks: Perhaps[float] = Field(None, validation_alias=AliasPath("settings", "validate_tasks"))


TOLD = {*Pretraining.model_fields, "dataset"}
"""What has its place in the card; the rest, and a `curve` that is no table, is listed as it is."""


def pretraining_of(document: JsonValue) -> Pretraining:
    """What a record of a pre-training tells."""
    told = _told(document)
    listed = [told[key] for key in ("datasets", "dataset") if told.get(key)]
    named = [data for value in listed for data in (value if isinstance(value, list) else [value]) if data]
    datasets = [data if isinstance(data, dict) else {"name": str(data)} for data in named]
    return Pretraining.model_validate_json(json.dumps({**told, "datasets": datasets}))


def pretraining_view(facts: RepoFacts) -> View:
    """What the card has words for, and the rest as a list and tables."""
    told, document = pretraining_of(facts.pretraining), _told(facts.pretraining)
    curve = columns_of(document.get("curve"))
    shown = TOLD | ({"curve"} if curve else set())
    rest = {key: value for key, value in document.items() if key not in shown and value is not None}
    return {
        "datasets": [_dataset_view(data) for data in told.datasets],
        "outer": told.outer or "",
        "iterations": counted(told.iterations),
        "weights_of_iteration": counted(told.weights_of_iteration),
        "tasks": counted(told.tasks),
        "seconds": counted(told.seconds),
        "hardware": told.hardware or "",
        "gain": gained(told, curve),
        "curve": _table_view("", curve) if curve else None,
        "explained": curve.keys() >= set(FIGURES),
        "inner_steps": counted(told.inner_steps),
        "validate_steps": counted(told.validate_steps),
        "validate_tasks": counted(told.validate_tasks),
        "settings": list(_flat(told.settings or {}))[:200],
        "rest": [{"key": _words(key), "value": _inline(value)} for key, value in rest.items() if not columns_of(value)],
        "tables": [_table_view(_words(key), columns) for key, value in rest.items() if (columns := columns_of(value))],
    }


def gained(told: Pretraining, curve: Columns) -> str:
    """What pre-training has brought, by its own validation: the accuracy with the weights that were kept beside that at the start;
    empty where the record does not say."""
    rows = list(zip(curve.get("iteration", ()), curve.get("accuracy", ()), strict=False))
    figures = {
        i: a for i, a in rows if isinstance(i, int | float) and isinstance(a, int | float) and not isinstance(a, bool)
    }
    last = max(figures, default=0)
    kept = told.weights_of_iteration if told.weights_of_iteration is not None else last
    if 0 not in figures or kept not in figures or not kept:
        return ""
    before, after = figures[0], figures[kept]
    what = f"{number(before)} % before pre-training, {number(after)} % with these weights"
    change = round(after - before, 1)
    words = f"{number(change)} points more" if change > 0 else f"{number(-change)} points less" if change else "no more"
    return f"{what}, {words}: kernel-ridge accuracy on classes that were held out, after the same steps of adaptation."


def _told(document: JsonValue) -> dict[str, JsonValue]:
    return document if isinstance(document, dict) else {}


def _dataset_view(data: TrainedOn) -> View:
    """What a dataset of a pre-training was."""
    held = data.held_out or []
    return {
        "name": short_name(data.name or "dataset"),
        "images": counted(data.images),
        "size": size_of(tuple(data.image) if data.image else None),
        "classes": counted(data.classes),
        "held": str(len(held) or ""),
        "held_names": ", ".join(held[:100]) + (f" and {len(held) - 100} more" if len(held) > 100 else ""),
        "licence": known_licence(data.licence),
    }


def columns_of(value: JsonValue) -> Columns:
    """A value as columns of a table, empty when it is none: lists of one length by name, or a list of alike rows."""
    if isinstance(value, list) and value:
        rows = [row for row in value if isinstance(row, dict)]
        if len(rows) < len(value) or any(row.keys() != rows[0].keys() for row in rows):
            return {}
        return {key: [row[key] for row in rows] for key in rows[0]}
    if not isinstance(value, dict):
        return {}
    columns = {key: column for key, column in value.items() if isinstance(column, list)}
    alike = len(columns) == len(value) and len({len(column) for column in columns.values()}) == 1
    return columns if alike else {}


def _table_view(title: str, columns: Columns) -> View:
    """A table: its title, names of columns and rows of text."""
    if COLUMNS[0] in columns:
        columns = {name: columns[name] for name in (*COLUMNS, *columns) if name in columns}
    rows = [
        [_figure(name, cell) for name, cell in zip(columns, row, strict=True)]
        for row in zip(*columns.values(), strict=True)
    ]
    return {"title": title, "header": list(columns), "rows": rows[:100]}


def _figure(name: str, value: JsonValue) -> str:
    """A cell of a table; percent and seconds without digits that mean nothing."""
    digits = {"accuracy": 1, "seconds": 0}.get(name)
    if digits is None or isinstance(value, bool) or not isinstance(value, int | float):
        return _inline(value)
    return number(value, digits)


def _flat(settings: Mapping[str, JsonValue], above: str = "") -> Iterator[View]:
    """Every setting as a.b and its value."""
    for key, value in settings.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{above}{key}.")
        else:
            yield {"key": f"{above}{key}", "value": _inline(value)}


def _inline(value: JsonValue) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_inline(v)}" for k, v in value.items())
    return ", ".join(map(_inline, value)) if isinstance(value, list) else str(value)


def _words(key: str) -> str:
    return key.replace("_", " ")


# ---------------------------------------------------------------------------------------------------- words for figures


def number(value: float | None, digits: int = 1) -> str:
    """A number with so many decimals, or a dash."""
    return "–" if value is None else f"{value:,.{digits}f}"


def counted(value: float | None) -> str:
    """A whole number, or nothing."""
    return "" if value is None else number(value, 0)


def size_of(shape: tuple[int, ...] | None) -> str:
    """What images of shape (c, h, w) are, in words; empty when that is not known."""
    if shape is None:
        return ""
    channels, height, width = shape
    return f"{width} x {height} pixels, " + ({1: "grey", 3: "RGB"}.get(channels) or f"{channels} channels")


def known_licence(stated: str | None) -> str:
    """The licence that a dataset states, empty for none and for words that name none."""
    stated = (stated or "").strip()
    return "" if stated.lower() in ("unknown", "other") else stated


def short_name(name: str) -> str:
    """A dataset's name; of a path only the end."""
    bare = without_revision(name)
    return bare if is_repo(bare) else Path(bare).name


def without_revision(name: str) -> str:
    """A Hub dataset's name without prefix and revision."""
    return name.removeprefix("hf://datasets/").partition("@")[0]
