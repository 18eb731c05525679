"""A name → data that is pinned: a Hub repo at a commit, or local files with a hash of their content.

The one place that asks the Hub about datasets, and that turns what the Hub and `datasets` raise into explanations.
Imports huggingface_hub only for what may be a name on the Hub.
"""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import NoReturn

from pydantic import StrictStr, TypeAdapter

from ddtool.config import Values
from ddtool.errors import DataError, HubError, NotOnHubError, UsageError, did_you_mean
from ddtool.events import Report, silent
from ddtool.hub.client import api
from ddtool.hub.errors import explained, is_of_connection, reason, transport_errors
from ddtool.hub.memory import fitting, offline, read_memory, write_memory
from ddtool.hub.names import DATASET, Ref, is_commit, parse
from ddtool.sources.files import content_hash
from ddtool.text import shell

CONVERTED = "refs/convert/parquet"
"""The branch on which the Hub keeps its own parquet copy of a dataset, one folder per configuration."""

CONFIG_FLAG = "--dataset-config"
"""The command-line option that names a dataset's configuration, for hints."""

SAMPLE = "sample"
"""The bundled dataset."""

REVISIONS = "revisions.json"
""" "repo@revision" → [sha, licence], as last seen online; beside the decoded data."""

TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
"""Endings of tables that name image files and their labels."""

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Endings of archives that are read as the folder that they hold."""

FILES = (".parquet", ".arrow", *TABLES, *ARCHIVES)
"""Endings of all the files that are data by themselves."""

_SHORT: dict[str, tuple[str, str | None, str | None]] = {  # name → repo, configuration, revision
    "cifar10": ("uoft-cs/cifar10", None, None),
    "cifar100": ("uoft-cs/cifar100", None, None),
    "mnist": ("ylecun/mnist", None, None),
    "fashion_mnist": ("zalando-datasets/fashion_mnist", None, None),
    "tiny-imagenet": ("zh-plus/tiny-imagenet", None, None),
    "svhn": ("ufldl-stanford/svhn", "cropped_digits", None),
    "imagenette": ("frgfm/imagenette", "160px", CONVERTED),  # its main branch is a loading script
}

ALIASES: dict[str, str] = {name: repo for name, (repo, _, _) in _SHORT.items()} | {SAMPLE: SAMPLE}
"""Short names and what they stand for."""

_SEEN = TypeAdapter(tuple[StrictStr, StrictStr | None])  # sha and licence


@dataclass(frozen=True)
class Origin:
    """Data that was found and pinned."""

    kind: str
    """hub, local or sample."""

    where: str
    """Repo id, absolute path, or "sample"."""

    version: str
    """Commit sha (hub) or content hash (local, sample)."""

    config: str | None
    """Configuration, None for the only one."""

    converted: bool = False
    """Whether it is the Hub's own parquet copy."""

    licence: str | None = None
    """As the dataset card states it."""

    @property
    def path(self) -> Path:
        """Where local data lies."""
        return _sample_folder() if self.kind == SAMPLE else Path(self.where)

    def identity(self) -> Values:
        """What a cache key holds of it: the content, not the name or the place."""
        repo = self.where if self.kind == "hub" else None
        return {"repo": repo, "version": self.version, "config": self.config, "converted": self.converted}

    def describe(self) -> Values:
        """The part of `ImageData.source` that says what the data is."""
        return {
            "kind": self.kind,
            "path" if self.kind == "local" else "id": self.where,
            "revision" if self.kind == "hub" else "content_hash": self.version,
            "config": self.config,
            **({"converted": True} if self.converted else {}),
        }


def resolve(name: str, config: str | None, revision: str | None, cache: Path, report: Report = silent) -> Origin:
    """What `name` means: an alias, a path that exists, or a Hub id, in this order.

    Raises DataError when it is none of these or cannot be reached, UsageError for a revision that contradicts it.
    """
    bare, _, at = name.partition("@")
    if bare in _SHORT:
        repo, usual, branch = _SHORT[bare]
        return _hub_origin(repo, config or usual, _one(at, revision) or branch, cache)
    if name == SAMPLE:
        return _local_origin(SAMPLE, _sample_folder(), config, revision, report)
    path = Path(os.path.expanduser(name))
    if _looks_like_path(name) and os.path.exists(path):
        return _local_origin("local", path, config, revision, report)
    if not bare.lower().endswith(FILES) and (ref := parse(name)):
        return _hub_origin(ref.repo, config, _one(ref.revision or "", revision), cache)
    _not_found(name, path)


def placed(name: str) -> str:
    """The same data by a name that means it from any folder: of a path that exists the absolute one."""
    path = os.path.expanduser(name)
    known = name == SAMPLE or name.partition("@")[0] in _SHORT
    return os.path.abspath(path) if not known and _looks_like_path(name) and os.path.exists(path) else name


def _one(at: str, revision: str | None) -> str | None:
    if at and revision and at != revision:
        raise UsageError(f"Two revisions were given, '{at}' and '{revision}'.", "Name one.")
    return at or revision


def _looks_like_path(name: str) -> bool:
    return name.startswith((".", "~")) or name.lower().endswith(FILES) or "/" in name or os.sep in name


def _not_found(name: str, path: Path) -> NoReturn:
    if _looks_like_path(name):
        raise DataError(f"There is no file or folder '{name}'.", "Check the path. A Hub dataset is namespace/name.")
    if name and os.path.exists(path):
        raise DataError(f"'{name}' is not the name of a dataset.", shell("For the local data write", f"./{name}"))
    hint = f"{did_you_mean(name, ALIASES)} A Hub dataset is namespace/name."
    raise DataError(f"'{name}' is not the name of a dataset.", hint)


# --- local data -----------------------------------------------------------------------------------------------------


def _sample_folder() -> Path:
    return Path(str(resources.files("ddtool.assets") / "sample"))


def _local_origin(kind: str, path: Path, config: str | None, revision: str | None, report: Report) -> Origin:
    if revision:
        raise UsageError(f"Local data has no revisions, so '{revision}' means nothing.", "Leave the revision out.")
    path = path.resolve()
    if path.is_file() and path.suffix.lower() in TABLES:
        path, config = path.parent, path.name  # the table names images beside it, which belong to the data
    elif path.is_file() and not path.name.lower().endswith((".parquet", ".arrow", *ARCHIVES)):
        kinds = ", ".join((".parquet", ".arrow", *TABLES, *ARCHIVES))
        raise DataError(f"'{path}' is not a file of a kind that is read: {kinds}.", "Or name the folder of the data.")
    where = SAMPLE if kind == SAMPLE else str(path)
    return Origin(kind, where, content_hash(path, report), config, licence=_card_licence(path))


def front_matter(folder: Path) -> str:
    """What stands between the first two lines of dashes in the folder's README.md; empty when there is nothing."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    front = re.match(r"---\r?\n(.*?)^---\s*$", text, re.DOTALL | re.MULTILINE)
    return front[1] if front else ""


def _card_licence(path: Path) -> str | None:
    """The `license` in the front matter of the folder's README.md, if it has one."""
    line = re.search(r"^license:[ \t]*([\w.-]+)[ \t]*\r?$", front_matter(path), re.MULTILINE)
    return line[1] if line else None


# --- the Hub --------------------------------------------------------------------------------------------------------


def _hub_origin(repo: str, config: str | None, revision: str | None, cache: Path) -> Origin:
    sha, licence = _remembered(repo, revision, cache) if offline() else _ask(repo, revision, cache)
    return Origin("hub", repo, sha, config, revision == CONVERTED, licence)


def _ask(repo: str, revision: str | None, cache: Path) -> tuple[str, str | None]:
    """(commit sha, licence) of a Hub dataset now; remembered for offline use."""
    with _hub_errors(repo, revision):
        info = api().dataset_info(repo, revision=revision, timeout=30)
    licence = info.card_data.get("license") if info.card_data else None
    answer = str(info.sha), ", ".join(licence) if isinstance(licence, list) else licence
    seen: Values = {_revision_key(repo, name): list(answer) for name in (revision, answer[0])}
    write_memory(cache / REVISIONS, read_memory(cache / REVISIONS) | seen)
    return answer


def _remembered(repo: str, revision: str | None, cache: Path) -> tuple[str, str | None]:
    known = fitting(_SEEN, read_memory(cache / REVISIONS).get(_revision_key(repo, revision)))
    if known is not None:
        return known
    if revision and is_commit(revision):
        return revision, None
    raise DataError(
        f"HF_HUB_OFFLINE is set, and '{repo}' was not loaded here before.",
        _no_folder_either(
            repo, "Load it once with a connection (unset HF_HUB_OFFLINE), or take local data or the bundled `sample`."
        ),
    )


def _revision_key(repo: str, revision: str | None) -> str:
    return f"{repo}@{revision or 'main'}"


# --- what can go wrong ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _hub_errors(repo: str, revision: str | None) -> Iterator[None]:
    """Whatever asking the Hub can raise, as a DataError with the next thing to try."""
    try:
        with explained(DATASET, Ref(repo, revision)):
            yield
    except NotOnHubError as error:
        hint = f"{did_you_mean(repo.split('/')[1], ALIASES)} {error.hint}"
        raise DataError(f"'{repo}' is no folder here, and no dataset on the Hub (or a private one).", hint) from error
    except HubError as error:
        hint = _no_folder_either(repo, error.hint) if is_of_connection(error) else error.hint
        raise DataError(error.message, hint) from error


def _no_folder_either(repo: str, hint: str) -> str:
    """A hint for a name that the Hub could not be asked for, which may have been meant as a path; that of an alias was not."""
    return hint if repo in ALIASES.values() else f"There is no folder '{repo}' here. {hint}"


def _admission(repo: str) -> str:
    page = f"https://huggingface.co/datasets/{repo}"
    return f"Accept its terms at {page}, then log in with `hf auth login` or set HF_TOKEN."


@contextlib.contextmanager
def reading(origin: Origin) -> Iterator[None]:
    """Whatever `datasets` raises while it opens or reads `origin`, as a DataError with the next thing to try."""
    try:
        yield
    except _reading_errors() as error:
        said = reason(error)
        raise DataError(f"The dataset '{origin.where}' cannot be read: {said}.", _hint(origin, error, said)) from error


def _hint(origin: Origin, error: Exception, said: str) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free some space, or set HF_HOME to a folder on another disk."
    if origin.kind == "hub" and is_of_connection(error):
        return "Check the connection, then run the same command again."
    if "gated dataset" in said:
        return _admission(origin.where)
    if "scripts are no longer supported" in said:
        return f"Try '{origin.where}@{CONVERTED}', the Hub's own parquet copy, with {CONFIG_FLAG} NAME."
    if "config" in said.lower():
        return f"Name the dataset's configuration with {CONFIG_FLAG} NAME."
    return "It should hold an image and a label column that `datasets.load_dataset` can read."


def _reading_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises for damaged, missing or unreachable data."""
    import yaml
    from datasets.exceptions import DatasetsError
    from pyarrow import ArrowException

    return (*transport_errors(), LookupError, TypeError, EOFError, DatasetsError, ArrowException, yaml.YAMLError)
