"""Names on the Hub: repos, revisions, branches and web addresses. The one place that says what such a name looks like."""

import re
from dataclasses import dataclass
from typing import Final

from ddtool.text import without_login

MODEL: Final = "model"
DATASET: Final = "dataset"

_REPO = r"[\w.-]+/[\w.-]+"
_NAME = re.compile(rf"(?:hf://)?(?P<kind>datasets/(?=[^/]+/))?(?P<repo>{_REPO})(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"(?!refs/|.*(?:\.\.|//|/\.|\.lock(?:/|$)))[A-Za-z0-9](?:[\w./-]*[\w-])?", re.ASCII)


@dataclass(frozen=True)
class Ref:
    """A repo as the user names it: namespace/name[@revision]."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo

    @property
    def branch(self) -> str:
        """The revision, or the branch that is meant without one."""
        return self.revision or "main"


@dataclass(frozen=True)
class Pinned:
    """A repo at one commit."""

    kind: str
    repo: str
    sha: str
    private: bool = False
    branch: str = "main"

    def __str__(self) -> str:
        return f"{self.repo}@{self.sha}"


def is_repo(name: object) -> bool:
    """Whether `name` is namespace/name, by the Hub's own rules."""
    if not isinstance(name, str) or not re.fullmatch(_REPO, name, re.ASCII):
        return False
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True


def parse(name: str) -> Ref | None:
    """A Hub repo by name, with or without hf:// and datasets/; None for anything that cannot be one."""
    found = _NAME.fullmatch(name)
    if not found or found["repo"].endswith(".parquet") or not is_repo(found["repo"]):
        return None
    return Ref(found["repo"], found["revision"])


def names_dataset(name: str) -> bool:
    """Whether a name says by its prefix that it is a dataset: [hf://]datasets/namespace/name."""
    found = _NAME.fullmatch(name)
    return bool(found and found["kind"])


def is_commit(revision: object) -> bool:
    """Whether a revision is the full hash of a commit."""
    return isinstance(revision, str) and bool(_COMMIT.fullmatch(revision))


def is_pinned(name: str) -> bool:
    """Whether a name is a Hub repo at a commit: namespace/name@sha."""
    ref = parse(name)
    return ref is not None and is_commit(ref.revision)


def is_branch(name: str) -> bool:
    """Whether a branch can have this name."""
    return len(name) <= 100 and bool(_BRANCH.fullmatch(name)) and not is_commit(name)


def web(kind: str, repo: str) -> str:
    """Where people see a repo."""
    from huggingface_hub import constants

    return f"{without_login(constants.ENDPOINT)}/{'datasets/' if kind == DATASET else ''}{repo}"
