"""The Hugging Face Hub: the one boundary with its client for generators, runs and sets, in both directions.

What comes from there is untrusted. Files are asked for by exact name at one commit, their sizes limited before they are
downloaded, their hashes compared after. A push is one commit, made again only when the Hub shows that it is not there.
Every failure is a HubError that says what to try. Tokens and the stored login are huggingface_hub's alone.
"""

import contextlib
import errno
import hashlib
import json
import logging
import random
import re
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ddtool.errors import GeneratorError, HubError, NotOnHubError, did_you_mean
from ddtool.events import Note, Report, Step, silent
from ddtool.hub.transport import offline, read_memory, reason, transport_errors, write_memory
from ddtool.runtime.cache import cache_root

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")
MODEL, DATASET = "model", "dataset"
BUNDLED = "meta-generator-32"
GENERATOR_FILES = {"config.json": 2**20, "model.safetensors": 2**30}
"""The files of a generator and the most bytes that each may have."""

FACTS, MOST_FACTS = "ddtool.json", 2**22
"""What a repo of ddtool states, and the most bytes of it."""
PRETRAINING = "pretraining.json"
"""Beside a meta generator on a disk: what made it. In a repo it is among the facts."""

TRIES = 4
"""How often a request is made when the Hub is busy or the connection breaks."""

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second try (each further wait is twice as long), and the longest wait that a Retry-After gets."""

PATIENCE = 10.0
"""A try that took as many seconds is the last one (but for a commit): the client has asked several times by itself."""

REQUESTS = 20
"""So many of the latest pull requests are looked at for one that brings the same."""

REMEMBERED = 8
"""Commits of a repo whose file lists are kept for offline use."""

LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens)."
_REF = re.compile(
    r"(?:hf://)?(?:datasets/(?=[^/]+/))?([A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95})(?:@([\w./-]+))?", re.ASCII
)
_SHA = re.compile(r"[0-9a-f]{40}")
_BRANCH = re.compile(r"(?!refs/|.*(?:\.\.|//|/\.|\.lock(?:/|$)))[A-Za-z0-9](?:[\w./-]*[\w-])?", re.ASCII)
_BUSY = (408, 429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Ref:
    """A repo as the user names it: namespace/name[@revision]."""

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


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


@dataclass(frozen=True)
class RemoteFile:
    """A file as the Hub lists it: bytes, and the sha256 of its content (LFS) or its Git hash."""

    size: int
    oid: str


@dataclass(frozen=True)
class Pushed:
    """What a push did. `changed`: the files of the commit, none when everything was there already."""

    kind: str
    repo: str
    url: str
    sha: str
    changed: tuple[str, ...]
    pull_request: str | None = None


class _CorruptedError(Exception):
    """A downloaded file is not the one that the Hub lists."""


def parse(name: str) -> Ref | None:
    """A Hub repo by name, with or without hf:// and datasets/; None for anything that cannot be one."""
    found = _REF.fullmatch(name)
    if not found or ".." in found[1] or "--" in found[1] or found[1].endswith((".git", ".parquet")):
        return None
    return Ref(found[1], found[2])


def is_pinned(name: str) -> bool:
    """Whether a name is a Hub repo at a commit: namespace/name@sha."""
    ref = parse(name)
    return ref is not None and bool(_SHA.fullmatch(ref.revision or ""))


def is_branch(name: str) -> bool:
    """Whether a branch can have this name."""
    return len(name) <= 100 and bool(_BRANCH.fullmatch(name)) and not _SHA.fullmatch(name)


def web(kind: str, repo: str) -> str:
    """Where people see a repo."""
    from huggingface_hub import constants

    endpoint = re.sub(r"(?<=://)[^/@\s]+@", "", constants.ENDPOINT)
    return f"{endpoint}/{'datasets/' if kind == DATASET else ''}{repo}"


# --------------------------------------------------------------------------------------------------------- generators


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
    """The same generator, a Hub repo named at its present commit."""
    ref = parse(name)
    if ref is None or Path(name).expanduser().exists():
        return name
    with or_local(name, "--generator bundled always works."):
        return str(resolve(MODEL, ref))


@contextlib.contextmanager
def or_local(name: str, hint: str = "") -> Iterator[None]:
    """For a name that could have been a folder: say so when the Hub does not have it either."""
    try:
        yield
    except NotOnHubError as error:
        raise NotOnHubError(
            f"There is no folder '{name}' here. {error.message}", f"Check the name. {error.hint} {hint}".rstrip()
        ) from error


# -------------------------------------------------------------------------------------------------------- downloading


def resolve(kind: str, ref: Ref) -> Pinned:
    """The commit that a name means now; offline, the one it meant when it was last used here."""
    if _offline():
        sha = ref.revision if _SHA.fullmatch(ref.revision or "") else _memory(kind, ref.repo)["refs"].get(_branch(ref))
        if not isinstance(sha, str):
            raise NotOnHubError(
                f"HF_HUB_OFFLINE is set, and the {kind} '{ref}' was not used here before.",
                f"Fetch it once with a connection (unset HF_HUB_OFFLINE): `ddtool pull {ref}`.",
            )
        return Pinned(kind, ref.repo, sha, branch=_branch(ref))
    with _explained(kind, ref):
        info = _patiently(lambda: _api().repo_info(ref.repo, repo_type=kind, revision=ref.revision, timeout=30))
    if not _SHA.fullmatch(str(info.sha)):
        raise HubError(f"The Hub names no commit of the {kind} '{ref}'.", "Check that the repo is not empty.")
    _remember(kind, ref.repo, refs={_branch(ref): str(info.sha)})
    return Pinned(kind, ref.repo, str(info.sha), bool(info.private), _branch(ref))


def listing(repo: Pinned, names: Iterable[str]) -> dict[str, RemoteFile]:
    """Which of the files `names` the repo holds, with sizes and hashes."""
    names = list(names)
    if _offline():
        known = _memory(repo.kind, repo.repo)["files"].get(repo.sha, {})
        return {name: RemoteFile(*known[name]) for name in names if name in known}
    from huggingface_hub.hf_api import RepoFile

    if not names:
        return {}

    def ask() -> list[Any]:
        return _api().get_paths_info(repo.repo, names, revision=repo.sha, repo_type=repo.kind)

    with _explained(repo.kind, Ref(repo.repo, repo.sha)):
        found = _patiently(ask)
    files = {f.path: RemoteFile(f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in found if isinstance(f, RepoFile)}
    files = {name: files[name] for name in names if name in files}
    _remember(repo.kind, repo.repo, files={repo.sha: {name: [f.size, f.oid] for name, f in files.items()}})
    return files


def filenames(repo: Pinned) -> set[str]:
    """The names of all files of a repo."""
    with _explained(repo.kind, Ref(repo.repo, repo.sha)):
        return set(_patiently(lambda: _api().list_repo_files(repo.repo, repo_type=repo.kind, revision=repo.sha)))


def fetch(repo: Pinned, limits: Mapping[str, int], report: Report = silent) -> Path:
    """Download the files `limits` names (exactly these) into the cache; returns the folder that holds them.

    Raises HubError when one is missing, larger than its limit in bytes, or not what the Hub lists; what is corrupted is
    removed from the cache.
    """
    there = listing(repo, limits)
    for name, most in limits.items():
        if name not in there:
            raise HubError(f"The {repo.kind} '{repo.repo}' holds no {name}.", _missing_hint(repo))
        if there[name].size > most:
            raise HubError(
                f"{name} of '{repo.repo}' is refused: {there[name].size:,} bytes are more than the {most:,} it may have.",
                "Nothing was downloaded. Take another repo or revision.",
            )
    folders = set()
    for done, name in enumerate(limits):
        path = _download(repo, name, there[name])
        folders.add(path.parents[name.count("/")])
        report(Step(f"download {repo.repo}", done + 1, len(limits), {}))
    return folders.pop()


def _missing_hint(repo: Pinned) -> str:
    if _offline():
        return f"HF_HUB_OFFLINE is set, and the file was not used here before: `ddtool pull {repo.repo}` with a connection."
    return "Only files of ddtool are read, safetensors and JSON; a pickle (pytorch_model.bin, *.pt) never is."


def _download(repo: Pinned, name: str, listed: RemoteFile) -> Path:
    """One file in the cache, with the content that the Hub lists."""
    from huggingface_hub import hf_hub_download

    def once() -> Path:
        options: dict[str, Any] = {"revision": repo.sha, "local_files_only": _offline(), "etag_timeout": 30}
        path = Path(hf_hub_download(repo.repo, name, repo_type=repo.kind, **options))
        if path.stat().st_size != listed.size or _oid(path, listed.oid) != listed.oid:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise _CorruptedError
        return path

    with _explained(repo.kind, Ref(repo.repo, repo.sha), name):
        return _patiently(once)


def _oid(file: Path | bytes, like: str) -> str:
    """The hash of a file's content, of the sort that `like` is: sha256, or Git's."""
    size = len(file) if isinstance(file, bytes) else file.stat().st_size
    digest = hashlib.sha256() if len(like) == 64 else hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    if isinstance(file, bytes):
        digest.update(file)
        return digest.hexdigest()
    with file.open("rb") as stream:
        while block := stream.read(2**20):
            digest.update(block)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------------- uploading


def check_may_write(namespace: str, anywhere: bool = False) -> None:
    """HubError unless the login may write to `namespace` (with `anywhere`, as for a pull request: unless it may write).

    What the Hub does not say about a token (a fine-grained one) shows when it is used.
    """
    if _offline():
        raise HubError("HF_HUB_OFFLINE is set: nothing can be pushed.", "Unset it, and run the command again.")
    with _explained(MODEL, Ref(f"{namespace}/…")):
        me = _patiently(lambda: _api().whoami())
    token = (me.get("auth") or {}).get("accessToken") or {}
    if token.get("role") == "read":
        raise HubError(f"The token of {me.get('name')} can only read.", LOGIN)
    orgs = {str(org.get("name")).lower(): org.get("roleInOrg") for org in me.get("orgs") or []}
    user = str(me.get("name"))
    if anywhere:
        return
    if namespace.lower() not in (user.lower(), *orgs):
        raise HubError(
            f"You are logged in as {user}, who is not a member of '{namespace}'.",
            f"Push to {user}/NAME, or propose the change with --create-pr.",
        )
    if orgs.get(namespace.lower()) == "read":
        raise HubError(f"{user} may only read in '{namespace}'.", "Ask its administrators, or use your own namespace.")


def find(kind: str, repo: str, branch: str | None = None) -> Pinned | None:
    """The head of a repo's branch, of main while there is no such branch; None when there is no such repo yet."""
    try:
        return resolve(kind, Ref(repo, branch))
    except _NoRevisionError:
        return resolve(kind, Ref(repo))
    except NotOnHubError:
        return None


def changes(base: Pinned | None, files: Mapping[str, bytes | Path]) -> list[str]:
    """The files that are not in the repo with just this content."""
    there = listing(base, files) if base else {}
    return [n for n, file in files.items() if n not in there or _oid(file, there[n].oid) != there[n].oid]


def commit(
    kind: str,
    repo: str,
    base: Pinned | None,
    files: Mapping[str, bytes | Path],
    removed: Sequence[str] = (),
    *,
    message: str,
    private: bool = False,
    branch: str | None = None,
    create_pr: bool = False,
    report: Report = silent,
) -> Pushed:
    """Bring `files` into a repo as one commit on the commit `base`, making repo and branch where there is none.

    No file is sent when all of it is there. After a lost answer the Hub is looked at before anything is sent again.
    """
    removed = list(listing(base, removed)) if base else []
    changed = changes(base, files)
    if base and not changed and not removed:
        if branch and base.branch != branch:
            _branch_off(base, branch, report)
        return Pushed(kind, repo, web(kind, repo), base.sha, ())
    if base and create_pr and (found := _find_request(base, files, removed, _pull_requests(base))):
        return Pushed(kind, repo, web(kind, repo), found[0], (), found[1])
    size = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in (files[name] for name in changed))
    report(Note(f"Sending {len(changed)} files, {size / 2**20:.1f} MiB, to {repo}."))
    base = base or _create(kind, repo, private, report)
    if branch and base.branch != branch:
        base = _branch_off(base, branch, report)
    with _explained(kind, Ref(repo), writing=True):
        sha, request = _commit(base, {name: files[name] for name in changed}, removed, message, create_pr, report)
    return Pushed(kind, repo, web(kind, repo), sha, (*changed, *removed), request)


def _create(kind: str, repo: str, private: bool, report: Report) -> Pinned:
    """A new repo; the Hub gives it a first commit."""
    with _explained(kind, Ref(repo), writing=True):
        _patiently(lambda: _api().create_repo(repo, repo_type=kind, private=private or None, exist_ok=True))
    report(Note(f"Made the {'private ' if private else ''}{kind} repo {repo}."))
    return resolve(kind, Ref(repo))


def _branch_off(base: Pinned, branch: str, report: Report) -> Pinned:
    """The branch, made at `base` when it is not there."""
    with _explained(base.kind, Ref(base.repo), writing=True):
        where = {"branch": branch, "revision": base.sha, "repo_type": base.kind}
        _patiently(lambda: _api().create_branch(base.repo, exist_ok=True, **where))
    report(Note(f"Made the branch {branch} of {base.repo}."))
    return replace(base, branch=branch)


def _commit(
    base: Pinned, files: dict[str, bytes | Path], removed: list[str], message: str, create_pr: bool, report: Report
) -> tuple[str, str | None]:
    """(sha, URL of the pull request), after as many tries as it takes; before each further one the Hub is looked at."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    requests = _pull_requests(base) if create_pr else {}
    for attempt in range(TRIES):
        operations = [CommitOperationAdd(name, file) for name, file in files.items()]  # a try uses them up
        try:
            with _quiet():
                made = _api().create_commit(
                    base.repo, [*operations, *map(CommitOperationDelete, removed)], commit_message=message,
                    repo_type=base.kind, revision=None if create_pr and base.branch == "main" else base.branch,
                    create_pr=create_pr, parent_commit=base.sha,
                )  # fmt: skip
            return made.oid, made.pr_url
        except transport_errors() as error:
            found = _look_again(base, files, removed, requests if create_pr else None, error)
            if found:
                return found
            if _is_last(attempt, error):  # however long the upload took: what has arrived is not sent again
                raise
            report(Note(f"The Hub did not take the commit to {base.repo} ({reason(error)}); trying again."))
            _wait(attempt, error)
    raise AssertionError("unreachable")


def _look_again(
    base: Pinned, files: dict[str, bytes | Path], removed: list[str], requests: dict[str, str] | None, error: Exception
) -> tuple[str, str | None] | None:
    """The commit that a failed call has made after all; None when there is none, so that it may be made again."""
    if not _passing(error) and _status(error) != 412:
        return None
    if requests is not None:
        made = {name: sha for name, sha in _pull_requests(base).items() if name not in requests}
        return _find_request(base, files, removed, made)
    head = resolve(base.kind, Ref(base.repo, base.branch))
    return (head.sha, None) if head.sha != base.sha and _holds(head, files, removed) else None


def _find_request(
    base: Pinned, files: Mapping[str, bytes | Path], removed: Sequence[str], requests: dict[str, str]
) -> tuple[str, str] | None:
    """(sha, URL) of the newest of the latest pull requests that brings just this."""
    for name, sha in sorted(requests.items(), key=lambda item: _number(item[0]), reverse=True)[:REQUESTS]:
        if _holds(replace(base, sha=sha), files, removed):
            return sha, f"{web(base.kind, base.repo)}/discussions/{_number(name)}"
    return None


def _holds(repo: Pinned, files: Mapping[str, bytes | Path], removed: Sequence[str]) -> bool:
    return not changes(repo, files) and not listing(repo, removed)


def _number(request: str) -> int:
    """N of refs/pr/N."""
    number = request.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _pull_requests(repo: Pinned) -> dict[str, str]:
    """refs/pr/N → commit."""
    with _explained(repo.kind, Ref(repo.repo), writing=True):
        refs = _patiently(lambda: _api().list_repo_refs(repo.repo, repo_type=repo.kind, include_pull_requests=True))
    return {ref.ref: ref.target_commit for ref in refs.pull_requests or []}


# ------------------------------------------------------------------------------------------------------------- client


def _api() -> "HfApi":
    from huggingface_hub import HfApi

    return HfApi(library_name="ddtool")


def _offline() -> bool:
    """By the environment now, or by the environment when huggingface_hub was imported."""
    if offline():
        return True
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _branch(ref: Ref) -> str:
    return ref.revision or "main"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the client's bars, log lines and warnings: they would stand between our own, and in --quiet."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown, logger = not are_progress_bars_disabled(), logging.getLogger("huggingface_hub")
    level = logger.level
    disable_progress_bars()
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of data files in a model repo: the pool
            yield
    finally:
        logger.setLevel(level)
        if shown:
            enable_progress_bars()


def _patiently(act: Callable[[], T]) -> T:
    """`act`, again after a pause while the Hub is busy or the connection breaks."""
    for attempt in range(TRIES):
        started = time.monotonic()
        try:
            with _quiet():
                return act()
        except _errors() as error:
            if _is_last(attempt, error) or time.monotonic() - started > PATIENCE:
                raise
            _wait(attempt, error)
    raise AssertionError("unreachable")


def _is_last(attempt: int, error: Exception) -> bool:
    """Whether a failed try is not to be repeated."""
    return attempt == TRIES - 1 or not _passing(error)


def _errors() -> tuple[type[Exception], ...]:
    """All that a request may raise."""
    return (*transport_errors(), _CorruptedError)


def _wait(attempt: int, error: Exception) -> None:
    """A pause that doubles, with some chance in it; the Hub's own Retry-After where it gives one."""
    asked = _header(error, "retry-after")
    pause = PAUSE * 2**attempt * (1 + random.random() / 4)
    time.sleep(min(float(asked), LONGEST_PAUSE) if asked and re.fullmatch(r"\d+(\.\d+)?", asked) else pause)


def _passing(error: Exception) -> bool:
    """Whether the same request may succeed later: a busy Hub or a broken connection, and nothing that was decided."""
    from huggingface_hub.errors import EntryNotFoundError, LocalTokenNotFoundError

    causes, status = list(_causes(error)), _status(error)
    if status is not None:
        return status in _BUSY
    if isinstance(error, _CorruptedError | json.JSONDecodeError):  # an answer that was cut short
        return True
    if isinstance(causes[-1], EntryNotFoundError):  # the connection was not even tried
        return False
    decided = (LocalTokenNotFoundError, ValueError, PermissionError)
    return not any(isinstance(cause, decided) or _disk_full(cause) for cause in causes)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def _status(error: Exception) -> int | None:
    """The HTTP status of an answer, wherever in the chain of causes it is."""
    for cause in _causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def _header(error: Exception, name: str) -> str | None:
    for cause in _causes(error):
        if response := getattr(cause, "response", None):
            return response.headers.get(name)
    return None


def _disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


# ------------------------------------------------------------------------------------------------------------- errors


class _NoRevisionError(HubError):
    """The repo is there, the revision is not."""


@contextlib.contextmanager
def _explained(kind: str, ref: Ref, file: str = "", *, writing: bool = False) -> Iterator[None]:
    """Whatever the client raises, as a HubError with the next thing to try."""
    try:
        yield
    except _CorruptedError as error:
        raise HubError(
            f"{file} of '{ref.repo}' arrives damaged: its hash is not the one that the Hub lists.",
            "It was removed from the cache. Run the command again; if it stays so, the connection or a proxy changes files.",
        ) from error
    except transport_errors() as error:
        raise _explanation(error, kind, ref, writing) from error


def _explanation(error: Exception, kind: str, ref: Ref, writing: bool) -> HubError:
    from huggingface_hub import errors

    kinds = [type(cause) for cause in _causes(error)]

    def among(*wanted: type[Exception]) -> bool:
        return any(issubclass(found, wanted) for found in kinds)

    status, namespace = _status(error), ref.repo.partition("/")[0]
    if any(_disk_full(cause) for cause in _causes(error)):
        return HubError("The disk is full.", "Free some space, or set HF_HOME to a folder on another disk.")
    if among(errors.LocalTokenNotFoundError):
        return HubError("You are not logged in to the Hub.", LOGIN)
    if among(errors.GatedRepoError):
        page = web(kind, ref.repo)
        hint = f"Ask for access at {page}, then log in with `hf auth login` or set HF_TOKEN."
        return HubError(f"Access to the {kind} '{ref.repo}' is restricted (gated).", hint)
    if among(errors.RevisionNotFoundError):
        return _NoRevisionError(
            f"The {kind} '{ref.repo}' has no revision '{ref.revision}'.", "Check its branches and tags."
        )
    if among(errors.RepositoryNotFoundError):
        return NotOnHubError(
            f"The Hub has no {kind} '{ref.repo}', or it is private.",
            "For a private one log in first: `hf auth login`, or set HF_TOKEN.",
        )
    if status == 401:
        return HubError("The Hub does not accept the token, or needs one.", LOGIN)
    if status == 403:
        said = f"may not write to '{namespace}'" if writing else f"may not read '{ref.repo}'"
        return HubError(f"The Hub refuses: the token {said}.", LOGIN)
    if status == 412:
        message = f"'{ref.repo}' has changed while it was being pushed to."
        return HubError(message, "Run the same command again: it adds to what is there now.")
    if status == 429:
        return HubError("The Hub says: too many requests.", "Wait a few minutes, then run the same command again.")
    if status is not None and status >= 500:
        hint = "Run the same command again later (https://status.huggingface.co)."
        return HubError(f"The Hub has a fault: it answered {status} for '{ref.repo}'.", hint)
    if status is not None or isinstance(error, ValueError):
        return HubError(f"The Hub refuses '{ref.repo}': {reason(error)}.", "Check the name and the options.")
    if _offline():
        hint = f"Fetch it once with a connection (unset HF_HUB_OFFLINE): `ddtool pull {ref}`."
        return HubError(f"HF_HUB_OFFLINE is set, and '{ref}' is not whole in the cache.", hint)
    if among(PermissionError):
        return HubError(f"A file cannot be written: {reason(error)}.", "Check HF_HOME and its permissions.")
    hint = "Check the connection" + (" (HF_ENDPOINT is set)" if "huggingface.co" not in web(kind, "") else "") + "."
    hint += " Then run the same command again." if writing else " HF_HUB_OFFLINE=1 takes what was used here before."
    return HubError(f"The Hub cannot be reached for '{ref.repo}': {reason(error)}.", hint)


# ------------------------------------------------------------------------------------------------ memory, for offline


def _memory_file(kind: str, repo: str) -> Path:
    return cache_root() / "hub" / f"{kind}--{repo.replace('/', '--')}.json"


def _memory(kind: str, repo: str) -> dict[str, dict[str, Any]]:
    """{"refs": {branch: sha}, "files": {sha: {name: [size, hash]}}} as last seen online."""
    known = read_memory(_memory_file(kind, repo))
    parts = {name: known.get(name) for name in ("refs", "files")}
    found = {name: part if isinstance(part, dict) else {} for name, part in parts.items()}
    return found | {"files": {sha: listed for sha, listed in found["files"].items() if _is_listing(listed)}}


def _is_listing(listed: Any) -> bool:
    """Whether it is {name: [size, hash]}: what is damaged is forgotten."""
    return isinstance(listed, dict) and all(
        isinstance(file, list) and list(map(type, file)) == [int, str] for file in listed.values()
    )


def _remember(kind: str, repo: str, refs: dict[str, str] | None = None, files: dict[str, Any] | None = None) -> None:
    """Add what was seen to the memory; the oldest commits' lists go first."""
    known = _memory(kind, repo)
    known["refs"] |= refs or {}
    for sha, listed in (files or {}).items():
        known["files"][sha] = {**known["files"].pop(sha, {}), **listed}
    known["files"] = dict(list(known["files"].items())[-REMEMBERED:])
    write_memory(_memory_file(kind, repo), known)
