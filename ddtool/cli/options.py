"""Options that several commands share, and how option values become configuration."""

import functools
import inspect
import shlex
import typing
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ddtool.errors import UsageError
from ddtool.text import parsed_json, shell

if TYPE_CHECKING:
    from ddtool.config import Values

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
Graphs = Annotated[
    bool,
    typer.Option(
        "--graphs",
        help="Capture the steps in CUDA graphs. It has never run on a GPU: it was built and tested without one.",
        rich_help_panel="Machine",
    ),
]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads. Default: all cores.", rich_help_panel="Machine")]
Memory = Annotated[
    float | None,
    typer.Option(
        min=0.5, metavar="GIB", help="Memory to work in. Default: half of what there is.", rich_help_panel="Machine"
    ),
]
Track = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Follow it by tensorboard, wandb or trackio as well; each is an extra: pip install 'ddtool[NAME]'.",
        rich_help_panel="Output",
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

Moved = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Where the local data of the run is now, if it has moved.",
        rich_help_panel="Dataset",
    ),
]
Given = dict[str, str | int | float | bool]
"""The options of reading a dataset that were given, as fields of `sources.DataOptions`."""


def _reading(name: str, kind: Any, help_: str, *flags: str, **more: Any) -> inspect.Parameter:
    """One option of reading a dataset, as a parameter of a command."""
    option = typer.Option(*flags, help=help_, rich_help_panel="Dataset", **more)
    return inspect.Parameter(
        name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=None, annotation=Annotated[kind | None, option]
    )


READING = (
    _reading("image_column", str, "Column with the images. Default: found."),
    _reading("label_column", str, "Column with the class labels. Default: found."),
    _reading(
        "dataset_config",
        str,
        "Configuration (subset) of the dataset, or the table in its folder. Default: its only one.",
    ),
    _reading("train_split", str, "Split to learn from. Default: train."),
    _reading("test_split", str, "Split to score on. Default: test, validation, or a held-out tenth."),
    _reading("revision", str, "Branch, tag or commit of a Hub dataset."),
    _reading("resolution", int, "Resize and crop to squares of this side. Default: as they are.", min=8, max=1024),
    _reading("no_splits", bool, "In a folder: train, test and the like are classes.", "--no-splits"),
    _reading("class_level", int, "In a folder: how deep below the split the classes are.", min=1),
    _reading(
        "multi_label",
        str,
        "Of an image with several labels take the first one, or drop the image. Default: an error.",
        metavar="first|drop",
    ),
    _reading("skip_broken", str, "Set aside at most so many broken images, by number or share.", metavar="N|N%"),
    _reading(
        "background",
        str,
        "Lay transparency on black, grey or white. Default: black, or white where black hides the drawing.",
        metavar="COLOUR",
    ),
    _reading("max_per_class", int, "Read at most so many training images of every class.", min=1),
    _reading("streaming", bool, "Read a Hub dataset without downloading its files.", "--streaming"),
    _reading("max_megapixels", float, "Refuse images larger than this. Default: 256."),
    _reading("strict", bool, "An image in both splits is an error, not a note.", "--strict"),
)
"""How a dataset is read: the options of every command that opens one."""


def reads_data(command: Callable[..., Any]) -> Callable[..., Any]:
    """A command with a parameter `data` as one that takes every option of READING instead, and finds in `data` those that
    were given, as fields of `sources.DataOptions`."""
    signature = inspect.signature(command)
    at = list(signature.parameters).index("data")
    rest = [parameter for parameter in signature.parameters.values() if parameter.name != "data"]
    shown = signature.replace(parameters=[*rest[:at], *READING, *rest[at:]])

    @functools.wraps(command)
    def run(**values: Any) -> Any:
        data = given(**{option.name: values.pop(option.name, None) for option in READING})
        if "dataset_config" in data:
            data["config"] = data.pop("dataset_config")
        if "skip_broken" in data:
            data["skip_broken"] = _share(str(data["skip_broken"]))
        return command(**values, data=data)

    run.__signature__ = shown  # type: ignore[attr-defined]
    hints = {name: hint for name, hint in typing.get_type_hints(command, include_extras=True).items() if name != "data"}
    run.__annotations__ = hints | {option.name: option.annotation for option in READING}
    return run


def as_typed(data: Given) -> str:
    """Reading options as words of a command line."""
    words = []
    for name, value in data.items():
        flag = "--" + ("dataset-config" if name == "config" else name.replace("_", "-"))
        words.append(flag if value is True else f"{flag} {shlex.quote(_word(name, value))}")
    return " ".join(words)


def _word(name: str, value: str | float) -> str:
    """The value of a reading option as it is typed."""
    if name == "skip_broken" and isinstance(value, float) and 0 < value < 1:
        return f"{100 * value:g}%"
    return f"{value:g}" if isinstance(value, float) and value >= 1 else str(value)


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


def next_with(kind: str, name: str | Path) -> str:
    """The command that one would run next with a repo of `ddtool push`, or with what was pulled of it."""
    following = {
        "adapted-generator": ("ddtool generate", "--ipc 20"),
        "meta-generator": ("ddtool adapt cifar10 --generator", ""),
    }
    command, options = following.get(kind, ("ddtool evaluate", ""))
    return shell(command, name, options)


def given(**values: Any) -> "Values":
    """The options that were given (not None, not an empty list)."""
    return {name: value for name, value in values.items() if value is not None and value != []}


def together(names: list[str] | None) -> str | None:
    """Names of an option that was given once or several times, with commas between them; None where it was not given."""
    return ",".join(names) if names else None


def read_config_file(path: Path | None) -> "Values":
    """Settings from a YAML, JSON or TOML file; UsageError when it cannot be read as a mapping."""
    if path is None:
        return {}
    from ddtool.config import SEE_SETTINGS

    try:
        values = _parse(path, path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Cannot read the configuration {path}: {error.strerror}.", "Check the path.") from error
    except (ValueError, RecursionError) as error:  # the parsers of TOML and YAML have no limit of their own
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
        return parsed_json(text)
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error).replace("\n", " ")) from error


def parse_settings(pairs: list[str]) -> "Values":
    """`--set a.b=value` pairs as nested settings, later ones on top; a value is JSON where it parses, else a string."""
    from ddtool.config.layers import merged, nested

    out: Values = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--set takes NAME=VALUE, got '{pair}'.", "For example --set refine.lr_pixels=0.05.")
        out = merged(out, nested({key: _json_or_text(value)}))
    return out


def _json_or_text(value: str) -> Any:
    try:
        return parsed_json(value)
    except ValueError:
        return value


def machine_flags(
    device: str,
    precision: str,
    threads: int | None,
    compile_: bool,
    memory: float | None = None,
    graphs: bool = False,
) -> str:
    """The options that a run does not remember and that its last bits depend on, as they were given."""
    given = {"--device": device, "--precision": precision, "--threads": threads, "--memory": memory}
    words = [f"{flag} {value}" for flag, value in given.items() if value not in (None, "auto")]
    return " ".join(words + ["--compile"] * compile_ + ["--graphs"] * graphs)
