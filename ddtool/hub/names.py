"""Names on the Hub: repos, revisions, branches and web addresses. The one place that says what such a name looks like."""

import re
from dataclasses import dataclass, field, replace
from typing import Final

from ddtool.errors import UsageError
from ddtool.text import without_login

MODEL: Final = "model"
DATASET: Final = "dataset"
SPACE: Final = "space"

LONGEST = 96
"""The most characters of a repo's name, without its namespace."""

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
class RemoteFile:
    """A file as the Hub lists it: bytes, and the sha256 of its content (LFS) or its Git hash."""

    size: int
    oid: str


@dataclass(frozen=True)
class Pinned:
    """A repo at one commit."""

    kind: str
    repo: str
    sha: str
    private: bool = False
    branch: str = "main"
    seen: dict[str, RemoteFile | None] = field(default_factory=dict, compare=False, repr=False)
    """Files that were asked for, by name; None for one that is not there. A commit does not change, so nobody asks twice."""

    def __str__(self) -> str:
        return f"{self.repo}@{self.sha}"

    def at(self, sha: str) -> "Pinned":
        """The same repo at another commit."""
        return replace(self, sha=sha, seen={})


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


def at_revision(name: str, revision: str | None) -> str:
    """The name of a repo at a revision (None: as it is); UsageError when it names another one already, or is no repo."""
    if revision is None:
        return name
    ref = parse(name)
    if ref is None:
        raise UsageError(f"'{name}' is not a Hub repo: it has no revision '{revision}'.", "Leave the revision out.")
    if ref.revision not in (None, revision):
        raise UsageError(f"'{name}' names another revision than '{revision}'.", "Give one of them.")
    named = name if ref.revision else f"{name}@{revision}"
    if parse(named) is None:
        raise UsageError(f"'{revision}' is not the name of a revision.", "It is a branch, a tag or a commit.")
    return named


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


def branch_name(name: str) -> str:
    """A branch to push to; UsageError for what cannot be one."""
    if not is_branch(name):
        hint = "Letters, digits and . _ - / make one, for example v2; no commit, no refs/…."
        raise UsageError(f"'{name}' is not a name for a branch.", hint)
    return name


def repo_name(name: str) -> str:
    """A repo to push to; UsageError for anything else."""
    ref = parse(name)
    if ref is None and len(name.partition("/")[2]) > LONGEST and name.count("/") == 1:
        hint = "Choose a shorter one; `ddtool push … --dataset-repo NAMESPACE/NAME` names the repo of the sets."
        raise UsageError(f"The name '{name}' is longer than the {LONGEST} characters that the Hub allows.", hint)
    if ref is None or ref.repo != name:
        hint = "It is NAMESPACE/NAME, your user name or organisation first; a branch goes with --revision."
        raise UsageError(f"'{name}' is not a repo to push to.", hint)
    return name


def web(kind: str, repo: str) -> str:
    """Where people see a repo."""
    from huggingface_hub import constants

    below = {DATASET: "datasets/", SPACE: "spaces/"}.get(kind, "")
    return f"{without_login(constants.ENDPOINT)}/{below}{repo}"
