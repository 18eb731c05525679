"""Write what the code itself says into docs/commands.md and docs/api.md: `python docs/generate.py`.

tests/test_docs.py compares the two pages with what is generated here.
"""

import ast
import dataclasses
import inspect
import re
import textwrap
import types
import typing
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import typer

import ddtool
from ddtool.cli.app import app
from ddtool.cli.commands import REGISTRY, function
from ddtool.config import PRESETS, PRETRAIN_PRESETS, PretrainConfig, RunConfig, from_dict
from ddtool.sources.load import DataOptions

DOCS = Path(__file__).parent
COMMAND = "python docs/generate.py"
"""What renews the pages."""

START, END = f"<!-- what follows is written by `{COMMAND}` -->", "<!-- end of what is generated -->"
"""Around the generated part of a page; the words outside are written by hand."""

WORDS = {int: "N", float: "X", Path: "PATH", str: "TEXT"}
"""What stands for a value in a table of options."""

FROM_SETTINGS = {
    ("adapt", "steps"): "adapt.steps",
    ("adapt", "refine_steps"): "refine.steps",
    ("adapt", "protocol"): "evaluate.protocol",
    ("adapt", "eval_seeds"): "evaluate.seeds",
    ("adapt", "generator"): "generator",
    ("pretrain", "iterations"): "meta.iterations",
    ("pretrain", "meta_batch"): "meta.meta_batch",
    ("pretrain", "inner_steps"): "meta.inner_steps",
}
"""Options whose default is that of a setting, so that it may depend on the preset."""

SHOWN = {
    "Engine": ("choose", "describe", "peak_memory_mib"),
    "Generator": ("from_pretrained", "save_pretrained", "push_to_hub", "load", "save", "forward"),
    "Run": ("open", "config", "results", "ipcs", "load_set", "set_path"),
}
"""Of classes with methods that only ddtool itself calls: those for users."""

CONFIGS: dict[str, tuple[type, Mapping[str, Any]]] = {
    "adapt": (RunConfig, PRESETS),
    "pretrain": (PretrainConfig, PRETRAIN_PRESETS),
}


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    commands, api = DOCS / "commands.md", DOCS / "api.md"
    return {commands: filled(commands, "\n\n".join(command_parts())), api: filled(api, "\n\n".join(api_parts()))}


def filled(page: Path, generated: str) -> str:
    """A page with `generated` between its marks."""
    before, rest = page.read_text(encoding="utf-8").split(START)
    return f"{before}{START}\n\n{generated}\n\n{END}{rest.split(END)[1]}"


# ------------------------------------------------------------------------------------------------------------ commands


def command_parts() -> Iterator[str]:
    """Commands, their options, and all settings, as Markdown."""
    group: Any = typer.main.get_command(app)
    rows = [[f"[`ddtool {name}`](#ddtool-{name})", cell(summary)] for name, (_, summary) in REGISTRY.items()]
    yield table(["command", "what it does"], rows)
    for name, command in group.commands.items():
        yield from one_command(name, command, function(name))
    for name, (cls, presets) in CONFIGS.items():
        yield f"## Settings of ddtool {name}"
        rows = [setting_row(key, doc, cls, presets) for key, doc in documented(cls)]
        yield table(["`--set`", "default", "what it is"], rows)


def one_command(name: str, command: Any, callback: Any) -> Iterator[str]:
    """One command: what it does, how it is called, a table for each panel, examples."""
    yield f"## ddtool {name}"
    text, _, examples = inspect.getdoc(callback).partition("\n\nExample")  # type: ignore[union-attr]
    yield text
    groups: dict[str, list[list[str]]] = {}
    usage = [f"ddtool {name}"]
    hints, signature = typing.get_type_hints(callback, include_extras=True), inspect.signature(callback)
    for parameter in command.params:
        if parameter.name not in hints:
            continue  # --help
        annotation, info = typing.get_args(hints[parameter.name])
        default = signature.parameters[parameter.name].default
        if isinstance(info, typer.models.ArgumentInfo):
            word = info.metavar or parameter.name.upper()
            usage.append(f"[{word}]" if default is None else word)
            groups.setdefault("Arguments", []).append([f"`{word}`", cell(info.help or ""), ""])
        else:
            kind = inner(annotation)
            value = "" if kind is bool else " " + (info.metavar or WORDS.get(kind, "VALUE"))
            names = [f"{parameter.opts[0]}{value}", *parameter.opts[1:], *parameter.secondary_opts]
            help_text, usual = split_default(info.help or "")
            usual = usual or default_of(name, parameter.name, default)
            row = [" or ".join(f"`{word}`" for word in names), help_text, usual]
            groups.setdefault(info.rich_help_panel or "Options", []).append(row)
    yield "```text\n" + " ".join([*usage, "[OPTIONS]"]) + "\n```"
    for panel, rows in groups.items():
        if panel == "Arguments":
            yield table(["Argument", "what it is"], [row[:2] for row in rows])
        else:
            yield table([panel, "what it does", "default"], rows)
    if examples:
        lines = [line.strip() for line in examples.splitlines()[1:] if line.strip()]
        yield "```bash no-run\n" + "\n".join(lines) + "\n```"


def inner(annotation: Any) -> type:
    """The type of one value: int of `list[int] | None`."""
    parts = [part for part in typing.get_args(annotation) if part is not type(None)]
    return inner(parts[0]) if parts else annotation


def split_default(help_text: str) -> tuple[str, str]:
    """A help text without what it says of the default, and that."""
    found = re.fullmatch(r"(.*?)\s*Default:? (.*)\.", help_text, re.DOTALL)
    return (cell(found[1]), cell(found[2])) if found else (cell(help_text), "")


def default_of(command: str, name: str, default: Any) -> str:
    """A default as the table shows it."""
    if (command, name) in FROM_SETTINGS:
        cls, presets = CONFIGS[command]
        return by_preset(FROM_SETTINGS[command, name], cls, presets)
    if default is None or default is False:
        return ""
    if default is inspect.Parameter.empty:
        return "required"
    return "yes" if default is True else f"`{default}`"


# ------------------------------------------------------------------------------------------------------------ settings


def documented(cls: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """(a.b, docstring) of every setting below a config class; of `data` the options of a source."""
    docs = field_docs(cls)
    for field in dataclasses.fields(cls):
        kind = typing.get_type_hints(cls)[field.name]
        if field.name == "data" and not where:
            yield from documented(DataOptions, "data.")
        elif dataclasses.is_dataclass(kind):
            yield from documented(kind, f"{where}{field.name}.")
        else:
            yield where + field.name, docs[field.name]


def field_docs(cls: type) -> dict[str, str]:
    """The text below each field of a dataclass."""
    body = source_of(cls).body
    return {
        field.target.id: cell(inspect.cleandoc(text.value.value))  # type: ignore[arg-type]
        for field, text in pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
    }


def setting_row(key: str, doc: str, cls: Any, presets: Mapping[str, Any]) -> list[str]:
    return [f"`{key}`", by_preset(key, cls, presets), doc]


def by_preset(key: str, cls: Any, presets: Mapping[str, Any]) -> str:
    """The default of a setting, one for each preset where they differ."""
    if key.startswith("data."):
        return shown(getattr(DataOptions(), key[5:]))
    values = {name: shown(value_at(from_dict(cls, changes), key)) for name, changes in presets.items()}
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    return ", ".join(f"{value} ({name})" for name, value in sorted(values.items()))


def value_at(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = getattr(config, part)
    return config


def shown(value: Any) -> str:
    """A value as it is typed after --set."""
    if value is None:
        return "`null`"
    if value == "":
        return ""
    if isinstance(value, tuple):
        return "`[" + ", ".join(map(str, value)) + "]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# ----------------------------------------------------------------------------------------------------------------- api


def api_parts() -> Iterator[str]:
    """Every public name with its signature and docstring, as Markdown."""
    things = {name: getattr(ddtool, name) for name in ddtool.__all__ if name != "__version__"}
    things = dict(sorted(things.items(), key=lambda item: inspect.isclass(item[1])))  # functions first
    rows = [[f"[`ddtool.{name}`](#ddtool{name.lower()})", first_line(thing)] for name, thing in things.items()]
    yield table(["name", "what it is"], [*rows, ["`ddtool.__version__`", "The version, as text."]])
    for name, thing in things.items():
        node = source_of(thing)
        yield f"### ddtool.{name}"
        if inspect.isclass(thing):
            yield from one_class(thing, node)
        else:
            yield f"```text\n{signature(node, f'ddtool.{name}')}\n```"
            yield prose(node, {arg.arg for arg in (*node.args.args, *node.args.kwonlyargs)})


def one_class(cls: type, node: Any) -> Iterator[str]:
    """A class: its docstring, fields, and the methods for users."""
    name, fields = cls.__name__, [part for part in node.body if isinstance(part, ast.AnnAssign)]
    yield prose(node, {part.target.id for part in fields if isinstance(part.target, ast.Name)})
    if fields:
        yield "```text\n" + "\n".join(field_line(cls, field) for field in fields) + "\n```"
    methods = {part.name: part for part in node.body if isinstance(part, ast.FunctionDef)}
    wanted = SHOWN.get(name) or [m for m in methods if m[0] != "_" and ast.get_docstring(methods[m])]
    if wanted:
        yield "\n".join(one_method(name, methods[method]) for method in wanted)


def field_line(cls: type, node: ast.AnnAssign) -> str:
    """A field as it stands in the source, but that bounds of its type are left out."""
    if dataclasses.is_dataclass(cls) and hasattr(cls, "__pydantic_fields__"):
        hint = typing.get_type_hints(cls)[ast.unparse(node.target)]
        node.annotation = ast.parse(plain_type(hint, cls.__module__), mode="eval").body
    return ast.unparse(node)


def plain_type(hint: Any, module: str) -> str:
    """A type as one writes it in a module."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        return " | ".join(plain_type(part, module) for part in typing.get_args(hint))
    return "None" if hint is type(None) else inspect.formatannotation(hint, module).replace("typing.", "")


def one_method(owner: str, node: ast.FunctionDef) -> str:
    """A list item: how a method is called, and the first paragraph of what it does."""
    kinds = {ast.unparse(decorator) for decorator in node.decorator_list}
    if not kinds & {"classmethod", "staticmethod"}:
        owner = re.sub(r"(?<!^)(?=[A-Z])", "_", owner).lower()
    name = f"{owner}.{node.name}"
    line = name if "property" in kinds else signature(node, name, skip=1, width=1000)
    return f"- `{line}`: {cell((ast.get_docstring(node) or '').split(chr(10) * 2)[0])}"


def signature(node: ast.FunctionDef, name: str, skip: int = 0, width: int = 100) -> str:
    """A function's signature as it stands in the source, one argument a line where it is long."""
    args = node.args
    usual = [*[None] * (len(args.args) - len(args.defaults)), *args.defaults]
    words = [argument(arg, default) for arg, default in zip(args.args, usual, strict=True)][skip:]
    if args.vararg or args.kwonlyargs:
        words.append(f"*{argument(args.vararg, None) if args.vararg else ''}")
    words += [argument(arg, default) for arg, default in zip(args.kwonlyargs, args.kw_defaults, strict=True)]
    words += [f"**{argument(args.kwarg, None)}"] if args.kwarg else []
    result = f" -> {annotation_text(node.returns)}" if node.returns else ""
    line = f"{name}({', '.join(words)}){result}"
    return line if len(line) <= width else f"{name}(\n" + "".join(f"    {word},\n" for word in words) + f"){result}"


def argument(arg: ast.arg, default: ast.expr | None) -> str:
    text = arg.arg + (f": {annotation_text(arg.annotation)}" if arg.annotation else "")
    return text + (f" = {ast.unparse(default)}" if default else "")


def annotation_text(node: ast.expr) -> str:
    """An annotation without the quotes of a name that is not known yet."""
    return str(node.value) if isinstance(node, ast.Constant) and node.value else ast.unparse(node)


def prose(node: Any, names: set[str]) -> str:
    """A docstring as Markdown: what it says of `names`, one by one, becomes a list."""
    lines: list[str] = []
    for line in (ast.get_docstring(node) or "").replace(";  ", ";\n").splitlines():
        item = re.match(r"(\w+(?:, \w+)*): ", line)
        listed = bool(lines) and lines[-1].startswith(("- ", "  "))
        if item and set(item[1].split(", ")) <= names:
            lines.append(f"- `{item[1]}`: {line[item.end() :]}")
        elif listed and line and line[0].isupper():
            lines += ["", line]
        else:
            lines.append(f"  {line}" if listed and line else line)
    return "\n".join(lines)


# ------------------------------------------------------------------------------------------------------------- helpers


def source_of(thing: Any) -> Any:
    """The node of a function or class in its source."""
    return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]


def first_line(thing: Any) -> str:
    """The first sentence of a docstring."""
    return cell((inspect.getdoc(thing) or "").split("\n\n")[0])


def cell(text: str) -> str:
    """Text on one line that a table can hold."""
    return " ".join(text.split()).replace("|", "\\|")


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
