"""How a push is made, and to which repos."""

import shlex
from dataclasses import dataclass, replace
from pathlib import Path

from ddtool.errors import HubError, UsageError
from ddtool.hub.names import DATASET, MODEL, SPACE, Pinned, branch_name, is_branch, is_repo, repo_name, web
from ddtool.hub.upload import find
from ddtool.methods import has_generator
from ddtool.runs.run import Run

ONLY = {MODEL: "generator", DATASET: "dataset"}
"""What --only calls a repo."""


@dataclass(frozen=True)
class Options:
    """How a push is made."""

    private: bool = False
    """Make new repos private; one that exists must be private already."""
    revision: str | None = None
    """The branch to push to, made if it is not there; None: main."""
    create_pr: bool = False
    """Propose the commit as a pull request."""
    pool: bool = True
    """Push the initial samples (real images of the target) with the generator, and show them in the picture."""
    only: str | None = None
    """'generator' or 'dataset': that repo alone."""
    dataset_repo: str | None = None
    """Default: the model repo's name and -ddtool."""
    force: bool = False
    """Replace another generator, another set of the same IPC, sets of another source, and files that are not of ddtool."""
    space: bool = False
    """Make a Space beside the repos, a page that shows the sets, makes others and trains a network on them."""
    overwrite_card: bool = False
    """Write anew what ddtool writes in a README.md, though a person has changed it; their words beside it stay. The files of a
    Space, too."""
    commit_message: str | None = None
    """The title of the commits; None: what was pushed."""
    tag: str | None = None
    """A name for the commits, new in each repo."""
    collection: str | None = None
    """The slug of a collection on the Hub, to which the repos are added."""

    def __post_init__(self) -> None:
        if self.commit_message is not None and not self.commit_message.strip():
            raise UsageError("--commit-message is empty.", "Leave it out for the usual one.")
        if self.only not in (None, "generator", "dataset"):
            raise UsageError(f"--only takes generator or dataset, got '{self.only}'.", "Leave it out to push both.")
        if self.space and self.only == ONLY[MODEL]:
            raise UsageError("A Space shows the sets: --only generator leaves them out.", "Leave --only out.")
        if self.revision and self.create_pr:
            raise UsageError("--revision and --create-pr exclude each other.", "A pull request is made on main.")
        if self.revision is not None:
            branch_name(self.revision)
        if self.tag is not None and (self.create_pr or not is_branch(self.tag)):
            fault = "goes with no pull request, which is no commit yet" if self.create_pr else "is not a name for a tag"
            raise UsageError(
                f"--tag '{self.tag}' {fault}.", "A tag is of letters, digits and . _ - /, for example v1.0."
            )
        if self.collection is not None and not is_repo(self.collection):
            hint = "It is the end of its address, NAMESPACE/TITLE-ID."
            raise UsageError(f"'{self.collection}' is not the name of a collection.", hint)

    def by_method(self, method: str) -> "Options":
        """The same for a run of that method: without a generator, there is the dataset repo alone. Raises UsageError."""
        if has_generator(method):
            return self
        if self.only == ONLY[MODEL]:
            raise UsageError(
                f"A run of the method '{method}' has no generator.", "Leave --only out: its sets are pushed."
            )
        return replace(self, only=ONLY[DATASET])


def repos(repo: str, options: Options, generator: str | None = None) -> dict[str, str]:
    """The repos of a push by kind, in the order in which they are pushed."""
    if generator is not None:
        return {MODEL: repo_name(repo)}
    names = {DATASET: repo_name(options.dataset_repo or f"{repo_name(repo)}-ddtool"), MODEL: repo_name(repo)}
    asked = {kind: name for kind, name in names.items() if options.only in (None, ONLY[kind])}
    return asked | ({SPACE: repo_name(repo)} if options.space else {})


def base_of(kind: str, repo: str, options: Options) -> Pinned | None:
    """The head that a push starts from, None for a new repo; HubError when --private was asked for and it is public."""
    base = find(kind, repo, options.revision)
    if base and options.private and not base.private:
        raise HubError(
            f"{web(kind, repo)} is public, and stays so.", "Make it private in its settings, or leave --private out."
        )
    return base


def again(run: str | Path | Run | None, generator: str | None, repo: str, options: Options) -> str:
    """The push command with the same options, for hints."""
    what = shlex.quote(str(run.folder if isinstance(run, Run) else run))
    flags = {
        "--generator": generator, "--private": options.private, "--create-pr": options.create_pr,
        "--no-pool": not options.pool, "--force": options.force, "--commit-message": options.commit_message,
        "--overwrite-card": options.overwrite_card, "--revision": options.revision, "--only": options.only,
        "--dataset-repo": options.dataset_repo, "--space": options.space, "--tag": options.tag,
        "--collection": options.collection,
    }  # fmt: skip
    words = [f"{flag} {shlex.quote(v)}" if isinstance(v, str) else flag for flag, v in flags.items() if v]
    return " ".join(["ddtool push", *([what] if generator is None else []), repo, *words])
