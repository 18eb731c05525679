"""A generator by its name: bundled, a local folder, or a Hub repo."""

from importlib import resources
from pathlib import Path
from typing import Any

from ddtool.errors import GeneratorError, HubError, UsageError, did_you_mean
from ddtool.events import Report, silent
from ddtool.hub.download import fetch, listing, or_local, resolve
from ddtool.hub.names import MODEL, at_revision, branch_name, parse, repo_name, web
from ddtool.hub.upload import Files, Pushed, changes, check_may_write, commit, find
from ddtool.text import parsed_json

BUNDLED = "meta-generator-32"
GENERATOR_FILES = {"config.json": 2**20, "model.safetensors": 2**30}
"""The files of a generator and the most bytes that each may have."""

FACTS, MOST_FACTS = "ddtool.json", 2**22
"""What a repo of ddtool states, and the most bytes of it."""
PRETRAINING = "pretraining.json"
"""Beside a meta generator on a disk: what made it. In a repo it is among the facts."""


SHORT_CARD = """---
library_name: ddtool
pipeline_tag: image-to-image
tags:
- ddtool
- dataset-distillation
---

# {title}

A generator of ddtool, an image-to-image network for dataset distillation: it turns a few real images per class into a small
synthetic training set.

```python
from ddtool import Generator

generator = Generator.from_pretrained("{repo}")
```
"""
"""The README.md of a generator that was pushed from Python; the card of `ddtool push` says more."""


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


def named_generator(name: str | Path, revision: str | None) -> str:
    """The name of a generator with its revision; UsageError for a revision of what has none."""
    if revision is not None and (name == "bundled" or Path(name).expanduser().exists()):
        raise UsageError(f"'{name}' is no Hub repo: it has no revision '{revision}'.", "Leave the revision out.")
    return at_revision(str(name), revision)


def push_folder(
    folder: Path,
    repo: str,
    *,
    message: str,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    report: Report = silent,
) -> Pushed:
    """The generator in a folder to a model repo: weights, configuration and, where there is no README.md, a short one.

    HubError for a repo of `ddtool push`, whose facts tell of the weights that it has.
    """
    if revision is not None:
        branch_name(revision)
    check_may_write(repo_name(repo).partition("/")[0], anywhere=create_pr)
    base = find(MODEL, repo, revision)
    files: Files = {name: folder / name for name in GENERATOR_FILES}
    if base and listing(base, [FACTS]) and changes(base, files):
        hint = "`ddtool push` brings generator and facts together. Or push to another name."
        raise HubError(f"{web(MODEL, repo)} was made by `ddtool push`, and tells of another generator.", hint)
    if base is None or not listing(base, ["README.md"]):
        files = {**files, "README.md": SHORT_CARD.format(title=repo.partition("/")[2], repo=repo).encode()}
    return commit(
        MODEL, repo, base, files, message=message, private=private, branch=revision, create_pr=create_pr, report=report
    )


def pretraining_of(name: str) -> Any:
    """What a meta generator by name says of its own pre-training: JSON values that nobody has checked. Raises OSError,
    ValueError, LookupError or HubError when it says nothing."""
    folder = generator_folder(name)
    if (ref := parse(name)) is None or Path(name).expanduser().exists():
        return parsed_json((folder / PRETRAINING).read_text(encoding="utf-8"))
    facts = fetch(resolve(MODEL, ref), {FACTS: MOST_FACTS}) / FACTS
    return parsed_json(facts.read_text(encoding="utf-8"))["pretraining"]


def pinned_generator(name: str) -> str:
    """The same generator, a Hub repo named at its present commit, a folder by its absolute place."""
    ref, path = parse(name), Path(name).expanduser()
    if name not in ("bundled", "scratch") and path.exists():
        return str(path.absolute())
    if ref is None:
        return name
    with or_local(name, "--generator bundled always works."):
        return str(resolve(MODEL, ref))
