"""To the Hub: whether the login may write, what has changed, and a push as one commit on the commit that was seen.

The commit is made again only when the Hub shows that it is not there.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ddtool.errors import HubError, NotOnHubError
from ddtool.events import Note, Report, Step, silent
from ddtool.hub.client import TRIES, api, deadline, in_time, left, patiently, pause_after, quiet
from ddtool.hub.download import hash_of, listing, resolve
from ddtool.hub.errors import (
    LOGIN,
    NoRevisionError,
    explained,
    is_passing,
    reason,
    status_of,
    transport_errors,
    why_offline,
)
from ddtool.hub.memory import offline
from ddtool.hub.names import MODEL, SPACE, Pinned, Ref, web
from ddtool.text import count

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo, CommitOperationAdd

GROUP = 2**25
"""Bytes that are sent together before it is said how far an upload is."""

REQUESTS = 20
"""So many of the latest pull requests are looked at for one that brings the same."""

Files = Mapping[str, bytes | Path]
"""Name in the repo → content, or a file that holds it."""


@dataclass(frozen=True)
class Pushed:
    """What a push did. `changed`: the files of the commit, none when everything was there already."""

    kind: str
    repo: str
    url: str
    sha: str
    changed: tuple[str, ...]
    pull_request: str | None = None


def check_may_write(namespace: str, anywhere: bool = False) -> None:
    """HubError unless the login may write to `namespace` (with `anywhere`, as for a pull request: unless it may write).

    What the Hub does not say about a token (a fine-grained one) shows when it is used.
    """
    if offline():
        raise HubError(
            f"{why_offline()}: nothing can be pushed.", "A push needs a connection: ask for one, and try again."
        )
    with explained(MODEL, Ref(f"{namespace}/…")):
        me = patiently(lambda: api().whoami())
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
            raise HubError(
                f"{user} may only read in '{namespace}'.", "Ask its administrators, or use your own namespace."
            )


def find(kind: str, repo: str, branch: str | None = None) -> Pinned | None:
    """The head of a repo's branch, of main while there is no such branch; None when there is no such repo yet."""
    try:
        return resolve(kind, Ref(repo, branch))
    except NoRevisionError:
        return resolve(kind, Ref(repo))
    except NotOnHubError:
        return None


def changes(base: Pinned | None, files: Files) -> list[str]:
    """The files that are not in the repo with just this content."""
    there = listing(base, files) if base else {}
    return [n for n, file in files.items() if n not in there or hash_of(file, there[n].oid) != there[n].oid]


def commit(
    kind: str,
    repo: str,
    base: Pinned | None,
    files: Files,
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
    if not base and create_pr:
        hint = "Leave --create-pr out: the first push makes the repo."
        raise HubError(f"There is no {kind} '{repo}' to propose a change of.", hint)
    size = sum(len(f) if isinstance(f, bytes) else f.stat().st_size for f in (files[name] for name in changed))
    report(Note(f"Sending {count(len(changed), 'file')}, {size / 2**20:.1f} MiB, to {repo}."))
    base = base or _create(kind, repo, private, report)
    if branch and base.branch != branch:
        base = _branch_off(base, branch, report)
    with explained(kind, Ref(repo), writing=True):
        sha, request = _commit(base, {name: files[name] for name in changed}, removed, message, create_pr, report)
    return Pushed(kind, repo, web(kind, repo), sha, (*changed, *removed), request)


def _create(kind: str, repo: str, private: bool, report: Report) -> Pinned:
    """A new repo; the Hub gives it a first commit."""
    with explained(kind, Ref(repo), writing=True):
        sdk = "gradio" if kind == SPACE else None
        patiently(
            lambda: api().create_repo(repo, repo_type=kind, private=private or None, exist_ok=True, space_sdk=sdk)
        )
    report(Note(f"Made the {'private ' if private else ''}{kind} repo {repo}."))
    return resolve(kind, Ref(repo))


def _branch_off(base: Pinned, branch: str, report: Report) -> Pinned:
    """The branch, made at `base` when it is not there."""
    with explained(base.kind, Ref(base.repo), writing=True):
        where = {"branch": branch, "revision": base.sha, "repo_type": base.kind}
        patiently(lambda: api().create_branch(base.repo, exist_ok=True, **where))
    report(Note(f"Made the branch {branch} of {base.repo}."))
    return replace(base, branch=branch)


def _commit(
    base: Pinned, files: Files, removed: list[str], message: str, create_pr: bool, report: Report
) -> tuple[str, str | None]:
    """(sha, URL of the pull request), after as many tries as it takes; before each further one the Hub is looked at."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    requests = _pull_requests(base) if create_pr else {}
    revision = None if create_pr and base.branch == "main" else base.branch

    def once() -> "CommitInfo":
        additions = [CommitOperationAdd(name, file) for name, file in files.items()]  # a try uses them up
        _send_large(base, additions, revision, create_pr, report)
        return api().create_commit(
            base.repo,
            [*additions, *map(CommitOperationDelete, removed)],
            commit_message=message,
            repo_type=base.kind,
            revision=revision,
            create_pr=create_pr,
            parent_commit=base.sha,
        )

    ends = deadline()
    for attempt in range(TRIES):
        try:
            with quiet():
                made = in_time(once, left(ends))
            return made.oid, made.pr_url
        except transport_errors() as error:
            found = _look_again(base, files, removed, requests if create_pr else None, error)
            if found:
                return found
            pause = pause_after(attempt, error, ends)
            if pause is None:  # else again, however long the upload took: what has arrived is not sent twice
                raise
            report(Note(f"The Hub did not take the commit to {base.repo} ({reason(error)}); trying again."))
            time.sleep(pause)
    raise AssertionError("unreachable")


def _send_large(
    base: Pinned, additions: "list[CommitOperationAdd]", revision: str | None, create_pr: bool, report: Report
) -> None:
    """Send the large files of a commit, a few at a time, and say how far it is."""
    sizes = [addition.upload_info.size for addition in additions]
    sent, first = 0, 0
    for last, size in enumerate(sizes, 1):
        sent += size
        if last == len(sizes) or sum(sizes[first:last]) >= GROUP:
            api().preupload_lfs_files(
                base.repo,
                additions[first:last],
                repo_type=base.kind,
                revision=revision,
                create_pr=create_pr,
                free_memory=False,
            )
            report(Step(f"upload {base.repo}", last, len(sizes), {"MiB": sent / 2**20, "of MiB": sum(sizes) / 2**20}))
            first = last


def _look_again(
    base: Pinned, files: Files, removed: list[str], requests: dict[str, str] | None, error: Exception
) -> tuple[str, str | None] | None:
    """The commit that a failed call has made after all; None when there is none, so that it may be made again."""
    if not is_passing(error) and status_of(error) != 412:
        return None
    if requests is not None:
        made = {name: sha for name, sha in _pull_requests(base).items() if name not in requests}
        return _find_request(base, files, removed, made)
    head = resolve(base.kind, Ref(base.repo, base.branch))
    return (head.sha, None) if head.sha != base.sha and _holds(head, files, removed) else None


def _find_request(
    base: Pinned, files: Files, removed: Sequence[str], requests: dict[str, str]
) -> tuple[str, str] | None:
    """(sha, URL) of the newest of the latest pull requests that brings just this."""
    for name, sha in sorted(requests.items(), key=lambda item: _number(item[0]), reverse=True)[:REQUESTS]:
        if _holds(base.at(sha), files, removed):
            return sha, f"{web(base.kind, base.repo)}/discussions/{_number(name)}"
    return None


def _holds(repo: Pinned, files: Files, removed: Sequence[str]) -> bool:
    return not changes(repo, files) and not listing(repo, removed)


def _number(request: str) -> int:
    """N of refs/pr/N."""
    number = request.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


def _pull_requests(repo: Pinned) -> dict[str, str]:
    """refs/pr/N → commit."""
    with explained(repo.kind, Ref(repo.repo), writing=True):
        refs = patiently(lambda: api().list_repo_refs(repo.repo, repo_type=repo.kind, include_pull_requests=True))
        return {ref.ref: ref.target_commit for ref in refs.pull_requests or []}
