"""What stands beside the commits of a push: a tag in each repo, and a place in a collection."""

from typing import Literal, cast

from ddtool.errors import HubError
from ddtool.hub.client import api, patiently
from ddtool.hub.errors import explained, status_of
from ddtool.hub.names import MODEL, Pinned, Ref, web
from ddtool.hub.upload import Files, Pushed, changes


def check_tag(base: Pinned | None, files: Files, tag: str) -> None:
    """HubError when a repo has the tag already, and it is not of the commit that a push of `files` would end at."""
    there = tags_of(base).get(tag) if base else None
    if base and there and (there != base.sha or changes(base, files)):
        hint = "A tag stays where it is: choose another name, or remove it on the website first."
        raise HubError(f"{web(base.kind, base.repo)} has the tag '{tag}' already, at {there[:10]}.", hint)


def tags_of(repo: Pinned) -> dict[str, str]:
    """Tag → commit."""
    with explained(repo.kind, Ref(repo.repo)):
        refs = patiently(lambda: api().list_repo_refs(repo.repo, repo_type=repo.kind))
        return {ref.name: ref.target_commit for ref in refs.tags}


def add_tag(pushed: Pushed, tag: str) -> None:
    """Name the commit of a push; nothing happens when it has that name already."""
    at = {"tag": tag, "revision": pushed.sha, "repo_type": pushed.kind}
    with explained(pushed.kind, Ref(pushed.repo), writing=True):
        patiently(lambda: api().create_tag(pushed.repo, exist_ok=True, **at))


def check_collection(slug: str) -> None:
    """HubError when the Hub has no such collection."""
    with explained(MODEL, Ref(slug)):
        try:
            patiently(lambda: api().get_collection(slug))
        except OSError as error:
            if status_of(error) != 404:
                raise
            hint = "Make it on the website; what names it is the end of its address, NAMESPACE/TITLE-ID."
            raise HubError(f"The Hub has no collection '{slug}', or it is private.", hint) from error


def add_to_collection(pushed: Pushed, slug: str) -> None:
    """Add a repo to a collection; nothing happens when it is in it already."""
    with explained(pushed.kind, Ref(pushed.repo), writing=True):
        kind = cast(Literal["dataset", "model", "space"], pushed.kind)
        patiently(lambda: api().add_collection_item(slug, pushed.repo, kind, exists_ok=True))
