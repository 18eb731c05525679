"""A generator by its name: bundled, a local folder, or a Hub repo."""

import json
from importlib import resources
from pathlib import Path
from typing import Any

from ddtool.errors import GeneratorError, did_you_mean
from ddtool.events import Report, silent
from ddtool.hub.download import fetch, or_local, resolve
from ddtool.hub.names import MODEL, parse

BUNDLED = "meta-generator-32"
GENERATOR_FILES = {"config.json": 2**20, "model.safetensors": 2**30}
"""The files of a generator and the most bytes that each may have."""

FACTS, MOST_FACTS = "ddtool.json", 2**22
"""What a repo of ddtool states, and the most bytes of it."""
PRETRAINING = "pretraining.json"
"""Beside a meta generator on a disk: what made it. In a repo it is among the facts."""


def bundled_folder() -> Path:
    """The meta generator that ships with ddtool."""
    return Path(str(resources.files("ddtool") / "assets" / BUNDLED))


def generator_folder(name: str, report: Report = silent) -> Path:
    """The folder of a generator by name: 'bundled', a local folder (or a run), or a Hub repo[@revision].

    Raises GeneratorError when there is none, HubError when the Hub does not give it.
    """
    if name == "bundled":
        return bundled_folder()
    path = Path(name).expanduser()
    if path.is_dir():
        return path / "generator" if (path / "generator" / "config.json").exists() else path
    if path.is_file():
        raise GeneratorError(f"'{name}' is a file.", f"Name the folder: {path.parent}")
    ref = parse(name)
    if ref is None:
        near = "" if "/" in name else did_you_mean(name, ("bundled", "scratch")) + " "
        hint = f"{near}A generator is a folder that exists, or a Hub repo: namespace/name[@revision]."
        raise GeneratorError(f"No generator called '{name}'.", hint)
    with or_local(name, "--generator bundled always works."):
        return fetch(resolve(MODEL, ref), GENERATOR_FILES, report)


def pretraining_of(name: str) -> Any:
    """What a meta generator by name says of its own pre-training: JSON values that nobody has checked. Raises OSError,
    ValueError, LookupError or HubError when it says nothing."""
    folder = generator_folder(name)
    if (ref := parse(name)) is None or Path(name).expanduser().exists():
        return json.loads((folder / PRETRAINING).read_text(encoding="utf-8"))
    facts = fetch(resolve(MODEL, ref), {FACTS: MOST_FACTS}) / FACTS
    return json.loads(facts.read_text(encoding="utf-8"))["pretraining"]


def pinned_generator(name: str) -> str:
    """The same generator, a Hub repo named at its present commit, a folder by its absolute place."""
    ref, path = parse(name), Path(name).expanduser()
    if name not in ("bundled", "scratch") and path.exists():
        return str(path.absolute())
    if ref is None:
        return name
    with or_local(name, "--generator bundled always works."):
        return str(resolve(MODEL, ref))
