"""From the Hub: what a name means now, which files a repo holds, and those files by exact name at one commit.

What comes from there is untrusted: sizes are limited before a download, and hashes compared after it.
"""

import contextlib
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ddtool.errors import DDToolError, HubError, NotOnHubError
from ddtool.events import Report, Step, silent
from ddtool.hub import memory
from ddtool.hub.access import access
from ddtool.hub.client import api, patiently
from ddtool.hub.errors import CorruptedError, explained, fetch_once, is_of_connection, why_offline
from ddtool.hub.memory import offline
from ddtool.hub.names import Pinned, Ref, RemoteFile, is_commit
from ddtool.version import __version__

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile, RepoFolder


DAMAGED = "The repo was damaged, or not made by `ddtool push`. Take another repo or revision."
"""What to try when a file of a repo is refused."""


def resolve(kind: str, ref: Ref) -> Pinned:
    """The commit that a name means now; offline, the one it meant when it was last used here."""
    if offline():
        sha = ref.revision if is_commit(ref.revision) else memory.commit_of(kind, ref.repo, ref.branch)
        if sha is None:
            raise NotOnHubError(f"{why_offline()}, and the {kind} '{ref}' was not used here before.", fetch_once(ref))
        return Pinned(kind, ref.repo, sha, branch=ref.branch)
    with explained(kind, ref):
        info = patiently(lambda: api().repo_info(ref.repo, repo_type=kind, revision=ref.revision, timeout=30))
    sha = str(info.sha)
    if not is_commit(sha):
        raise HubError(f"The Hub names no commit of the {kind} '{ref}'.", "Check that the repo is not empty.")
    memory.remember_commit(kind, ref.repo, ref.branch, sha)
    return Pinned(kind, ref.repo, sha, bool(info.private), ref.branch)


@contextlib.contextmanager
def named(folder: Path, name: str) -> Iterator[None]:
    """Inside, a refusal of a file in the `folder` of a repo names the repo, and not the place in a cache."""
    try:
        yield
    except DDToolError as error:
        message = error.message.replace(str(folder), f"'{name}'")
        if message == error.message:
            raise
        raise type(error)(message, DAMAGED) from error


@contextlib.contextmanager
def or_local(name: str, hint: str = "") -> Iterator[None]:
    """For a name that could have been a folder: say so when the Hub does not have it either, or cannot be asked."""
    try:
        yield
    except NotOnHubError as error:
        raise NotOnHubError(
            f"There is no folder '{name}' here. {error.message}", f"Check the name. {error.hint} {hint}".rstrip()
        ) from error
    except HubError as error:
        if not is_of_connection(error):
            raise
        raise HubError(error.message, f"There is no folder '{name}' here. {error.hint} {hint}".rstrip()) from error


def listing(repo: Pinned, names: Iterable[str]) -> dict[str, RemoteFile]:
    """Which of the files `names` the repo holds, with sizes and hashes."""
    names = list(names)
    if offline():
        known = memory.files_of(repo.kind, repo.repo, repo.sha)
        return {name: RemoteFile(*known[name]) for name in names if name in known}
    if unknown := [name for name in names if name not in repo.seen]:
        asked = _ask(repo, unknown)
        memory.remember_files(repo.kind, repo.repo, repo.sha, {name: (f.size, f.oid) for name, f in asked.items()})
        repo.seen.update({name: asked.get(name) for name in unknown})
    return {name: file for name in names if (file := repo.seen[name])}


def _ask(repo: Pinned, names: list[str]) -> dict[str, RemoteFile]:
    """What the Hub says of these files."""
    from huggingface_hub.hf_api import RepoFile

    def ask() -> "list[RepoFile | RepoFolder]":
        return api().get_paths_info(repo.repo, names, revision=repo.sha, repo_type=repo.kind)

    with explained(repo.kind, Ref(repo.repo, repo.sha)):
        found = patiently(ask)
    files = {f.path: RemoteFile(f.size, f.lfs.sha256 if f.lfs else f.blob_id) for f in found if isinstance(f, RepoFile)}
    return {name: files[name] for name in names if name in files}


def licence_of(kind: str, ref: Ref) -> str | None:
    """The licence that a repo's card states (`other` by its own name); None when it states none."""
    with explained(kind, ref):
        info = patiently(lambda: api().repo_info(ref.repo, repo_type=kind, revision=ref.revision, timeout=30))
    card = getattr(info, "card_data", None)
    stated = card.to_dict() if card else {}
    licence = stated.get("license_name") if stated.get("license") == "other" else stated.get("license")
    names = licence if isinstance(licence, list) else [licence or stated.get("license")]
    return ", ".join(name for name in names if isinstance(name, str)) or None


def last_commits(repo: Pinned, names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """(sha, title) of the commit that has changed each file last; empty where the Hub does not say."""
    from huggingface_hub.hf_api import RepoFile

    names = list(names)
    with explained(repo.kind, Ref(repo.repo, repo.sha)):
        found = patiently(
            lambda: api().get_paths_info(repo.repo, names, revision=repo.sha, repo_type=repo.kind, expand=True)
        )
    files = [file for file in found if isinstance(file, RepoFile) and file.last_commit]
    return {file.path: (file.last_commit.oid, file.last_commit.title) for file in files if file.last_commit}


def filenames(repo: Pinned) -> set[str]:
    """The names of all files of a repo."""
    with explained(repo.kind, Ref(repo.repo, repo.sha)):
        return set(patiently(lambda: api().list_repo_files(repo.repo, repo_type=repo.kind, revision=repo.sha)))


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
    if offline():
        name = Ref(repo.repo, None if repo.branch == "main" else repo.branch)
        return f"{why_offline()}, and the file was not used here before: `ddtool pull {name}` with a connection."
    return "Only files of ddtool are read, safetensors and JSON; a pickle (pytorch_model.bin, *.pt) never is."


def _download(repo: Pinned, name: str, listed: RemoteFile) -> Path:
    """One file in the cache, with the content that the Hub lists."""
    import huggingface_hub

    def once() -> Path:
        try:
            got = huggingface_hub.hf_hub_download(
                repo.repo,
                name,
                repo_type=repo.kind,
                revision=repo.sha,
                token=access().token,
                cache_dir=access().cache_dir,
                force_download=access().force_download and not offline(),
                local_files_only=offline(),
                etag_timeout=30,
                library_name="ddtool",
                library_version=__version__,
            )
        except OSError as error:
            if "Consistency check failed" in str(error):  # how the client says that it is of another size
                raise CorruptedError from error
            raise
        path = Path(got)
        if path.stat().st_size != listed.size or hash_of(path, listed.oid) != listed.oid:
            path.resolve().unlink(missing_ok=True)
            path.unlink(missing_ok=True)
            raise CorruptedError
        return path

    with explained(repo.kind, Ref(repo.repo, repo.sha), name):
        return patiently(once, transfer=True)


def hash_of(file: Path | bytes, like: str) -> str:
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
