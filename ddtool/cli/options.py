"""Options that several commands share, and how option values become configuration."""

import functools
import inspect
import json
import shlex
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ddtool.errors import UsageError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel="Output")]
Quiet = Annotated[
    bool,
    typer.Option(
        "--quiet", "-q", help="Print the shortest answer alone: a path, a URL or a number.", rich_help_panel="Output"
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel="Machine")]
Precision = Annotated[str, typer.Option(help="auto, bf16 or fp32.", rich_help_panel="Machine")]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the networks (torch.compile).", rich_help_panel="Machine")
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.", rich_help_panel="Machine")]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0.5, metavar="GIB", help="Memory to work in. Default: half of what there is.", rich_help_panel="Machine"
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Every random draw follows from it.")]
Force = Annotated[bool, typer.Option("--force", help="Replace what is there.")]
RunName = Annotated[
    str, typer.Argument(metavar="RUN", help="A run directory, or the Hub repo[@revision] of an adapted generator.")
]
Pool = Annotated[
    bool, typer.Option("--pool/--no-pool", help="Push the initial samples, real images, with the generator.")
]
Private = Annotated[bool, typer.Option("--private", help="Make new Hub repos private.")]

SOURCE = "Dataset"
Moved = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Where the local data of the run is now, if it has moved.",
        rich_help_panel=SOURCE,
    ),
]
READING: dict[str, Any] = {
    "image_column": Annotated[
        str | None, typer.Option(help="Column with the images. Default: found.", rich_help_panel=SOURCE)
    ],
    "label_column": Annotated[
        str | None, typer.Option(help="Column with the class labels. Default: found.", rich_help_panel=SOURCE)
    ],
    "dataset_config": Annotated[
        str | None,
        typer.Option(
            help="Configuration (subset) of the dataset, or the table in its folder. Default: its only one.",
            rich_help_panel=SOURCE,
        ),
    ],
    "train_split": Annotated[
        str | None, typer.Option(help="Split to learn from. Default: train.", rich_help_panel=SOURCE)
    ],
    "test_split": Annotated[
        str | None,
        typer.Option(help="Split to score on. Default: test, validation, or a held-out tenth.", rich_help_panel=SOURCE),
    ],
    "revision": Annotated[
        str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.", rich_help_panel=SOURCE)
    ],
    "resolution": Annotated[
        int | None,
        typer.Option(
            min=8,
            max=512,
            help="Resize and crop to squares of this side. Default: as they are.",
            rich_help_panel=SOURCE,
        ),
    ],
    "no_splits": Annotated[
        bool | None,
        typer.Option("--no-splits", help="In a folder: train, test and the like are classes.", rich_help_panel=SOURCE),
    ],
    "class_level": Annotated[
        int | None,
        typer.Option(min=1, help="In a folder: how deep below the split the classes are.", rich_help_panel=SOURCE),
    ],
    "multi_label": Annotated[
        str | None,
        typer.Option(
            metavar="first|drop",
            help="Of an image with several labels take the first one, or drop the image. Default: an error.",
            rich_help_panel=SOURCE,
        ),
    ],
    "skip_broken": Annotated[
        str | None,
        typer.Option(
            metavar="N|N%", help="Set aside at most so many broken images, by number or share.", rich_help_panel=SOURCE
        ),
    ],
    "background": Annotated[
        str | None,
        typer.Option(
            metavar="COLOUR",
            help="Lay transparency on black, grey or white. Default: black, or white where black hides the drawing.",
            rich_help_panel=SOURCE,
        ),
    ],
    "max_per_class": Annotated[
        int | None,
        typer.Option(min=1, help="Read at most so many training images of every class.", rich_help_panel=SOURCE),
    ],
    "max_megapixels": Annotated[
        float | None, typer.Option(help="Refuse images larger than this. Default: 256.", rich_help_panel=SOURCE)
    ],
    "strict": Annotated[
        bool | None,
        typer.Option("--strict", help="An image in both splits is an error, not a note.", rich_help_panel=SOURCE),
    ],
}
"""How a dataset is read: the options of every command that opens one, by the name of the parameter."""


def reads_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with a parameter `data` as one that takes every option of READING instead, and finds in `data` those that
    were given, as fields of `sources.DataOptions`."""
    signature = inspect.signature(command)
    options = [
        inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=annotation)
        for name, annotation in READING.items()
    ]
    at = list(signature.parameters).index("data")
    rest = [parameter for parameter in signature.parameters.values() if parameter.name != "data"]
    shown = signature.replace(parameters=[*rest[:at], *options, *rest[at:]])

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        data = given(**{name: values.pop(name, None) for name in READING})
        if "dataset_config" in data:
            data["config"] = data.pop("dataset_config")
        if "skip_broken" in data:
            data["skip_broken"] = _share(data["skip_broken"])
        return command(**values, data=data)

    run.__signature__ = shown  # type: ignore[attr-defined]
    hints = {name: hint for name, hint in typing.get_type_hints(command, include_extras=True).items() if name != "data"}
    run.__annotations__ = hints | READING
    return run


def as_typed(data: dict[str, Any]) -> str:
    """Reading options as words of a command line."""
    words = []
    for name, value in data.items():
        flag = "--" + ("dataset-config" if name == "config" else name.replace("_", "-"))
        text = f"{value:g}" if isinstance(value, float) and value >= 1 else str(value)
        text = f"{100 * value:g}%" if name == "skip_broken" and 0 < value < 1 else text
        words.append(flag if value is True else f"{flag} {shlex.quote(text)}")
    return " ".join(words)


def _share(text: str) -> float:
    """`12` as a number of images, `1%` as a share of them."""
    try:
        value = float(text.removesuffix("%"))
        if value >= 0 and (not text.endswith("%") or value < 100) and (text.endswith("%") or value == int(value)):
            return value / 100 if text.endswith("%") else value
    except (ValueError, OverflowError):
        pass
    raise UsageError(f"--skip-broken takes a number or a percentage, got '{text}'.", "For example 20, or 1%.")


Whiten = Annotated[
    str | None,
    typer.Option(
        metavar="KIND",
        help="What networks see: auto (whitened where it is measured to help), dct, zca or none. Default auto.",
        rich_help_panel="Method",
    ),
]


def shell(command: str, path: str | Path, options: str = "") -> str:
    """A command that can be pasted into a shell."""
    return f"{command} {shlex.quote(str(path))} {options}".rstrip()


def next_with(kind: str, name: str | Path) -> str:
    """The command that one would run next with a repo of `ddtool push`, or with what was pulled of it."""
    following = {
        "adapted-generator": ("ddtool generate", "--ipc 20"),
        "meta-generator": ("ddtool adapt cifar10 --generator", ""),
    }
    command, options = following.get(kind, ("ddtool evaluate", ""))
    return shell(command, name, options)


def given(**values: Any) -> dict[str, Any]:
    """The options that were given (not None, not an empty list)."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def read_config_file(path: Path | None) -> dict[str, Any]:
    """Settings from a YAML, JSON or TOML file; UsageError when it cannot be read as a mapping."""
    if path is None:
        return {}
    from ddtool.config import SEE_SETTINGS

    try:
        values = _parse(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the configuration {path}: {error.strerror}.", "Check the path.") from error
    except ValueError as error:
        kind = {".toml": "TOML", ".json": "JSON"}.get(path.suffix, "YAML")
        raise UsageError(f"{path} is not valid {kind}: {error}.", SEE_SETTINGS) from error
    if values is not None and not isinstance(values, dict):
        raise UsageError(f"{path} must hold a mapping of settings.", SEE_SETTINGS)
    return values or {}


def _parse(path: Path, text: str) -> Any:
    if path.suffix == ".toml":
        import tomllib

        return tomllib.loads(text)
    if path.suffix == ".json":
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error


def parse_settings(pairs: list[str]) -> dict[str, Any]:
    """`--set a.b=value` pairs as nested settings, later ones on top; a value is JSON where it parses, else a string."""
    from ddtool.config import merged

    out: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes NAME=VALUE, got '{pair}'.", "For example --set refine.lr_pixels=0.05.")
        nested = _json_or_text(value)
        for part in reversed(key.split(".")):
            nested = {part: nested}
        out = merged(out, nested)
    return out


def _json_or_text(value: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        return value
