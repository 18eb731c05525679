"""Options that several commands share, and how option values become configuration."""

import json
import shlex
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
ImageColumn = Annotated[
    str | None, typer.Option(help="Column with the images. Default: found.", rich_help_panel=SOURCE)
]
LabelColumn = Annotated[
    str | None, typer.Option(help="Column with the class labels. Default: found.", rich_help_panel=SOURCE)
]
DatasetConfig = Annotated[
    str | None,
    typer.Option(help="Configuration (subset) of the dataset. Default: its only one.", rich_help_panel=SOURCE),
]
TrainSplit = Annotated[str | None, typer.Option(help="Split to learn from. Default: train.", rich_help_panel=SOURCE)]
TestSplit = Annotated[
    str | None,
    typer.Option(help="Split to score on. Default: test, validation, or a held-out tenth.", rich_help_panel=SOURCE),
]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit of a Hub dataset.", rich_help_panel=SOURCE)]
Resolution = Annotated[
    int | None,
    typer.Option(
        min=8, max=512, help="Resize and crop to squares of this side. Default: as they are.", rich_help_panel=SOURCE
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
