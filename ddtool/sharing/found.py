"""A repo of ddtool on the Hub: which one a name means, and what it states."""

import contextlib
from dataclasses import dataclass

from ddtool.errors import HubError, NotOnHubError
from ddtool.hub.download import DAMAGED, fetch, listing, resolve
from ddtool.hub.errors import NoRevisionError
from ddtool.hub.generators import FACTS, GENERATOR_FILES
from ddtool.hub.names import DATASET, MODEL, Pinned, is_branch, names_dataset, parse
from ddtool.sharing.facts import FORMAT, META, Kind, RepoFacts, read_repo
from ddtool.sharing.files import LIMITS, USUAL


class NotOursError(HubError):
    """The repo is there, and not of ddtool."""


@dataclass(frozen=True)
class Found:
    """A repo of ddtool at one commit, with the facts that it states (checked)."""

    repo: Pinned
    facts: RepoFacts

    @property
    def kind(self) -> Kind:
        """adapted-generator, meta-generator or synthetic-dataset."""
        return self.facts.kind

    @property
    def ipcs(self) -> list[int]:
        """The images per class of its sets."""
        return self.facts.ipcs

    def refused(self, file: str, why: str) -> HubError:
        """The explanation for a file of the repo that is not taken."""
        return HubError(f"{file} of '{self.repo.repo}' is refused: {why}.", DAMAGED)


def find(name: str, first: str = MODEL) -> Found:
    """The repo that a name means: of kind `first` if there is one, else of the other kind (datasets/… names one).

    Raises NotOnHubError when there is neither, HubError when it is not of ddtool or its facts are refused.
    """
    ref = parse(name)
    if ref is None:
        raise HubError(f"'{name}' is not the name of a Hub repo.", "It is namespace/name, or namespace/name@revision.")
    if ref.repo.endswith("-ddtool"):
        first = DATASET
    kinds = [DATASET] if names_dataset(name) else sorted((MODEL, DATASET), key=lambda kind: kind != first)
    errors: list[HubError] = []
    for kind in kinds:
        try:
            repo = resolve(kind, ref)
            return Found(repo, facts_of(repo) or bare_facts(repo))
        except (NotOnHubError, NotOursError) as error:
            errors.append(error)
    raise min(errors, key=lambda error: isinstance(error, NotOnHubError))  # one that is there says more


def sets_beside(found: Found) -> Found:
    """The dataset repo that a generator's repo names, at the branch or tag by which the generator was asked for; at main where the
    sets have none of that name."""
    name, revision = str(found.facts.dataset_repo), found.repo.branch
    if revision != "main" and is_branch(revision):
        with contextlib.suppress(NoRevisionError, NotOnHubError):
            return find(f"{name}@{revision}", DATASET)
    return find(name, DATASET)


def facts_of(repo: Pinned) -> RepoFacts | None:
    """The facts in a repo's ddtool.json, checked; None when it has none."""
    if FACTS not in listing(repo, USUAL[repo.kind]):
        return None
    path = fetch(repo, {FACTS: LIMITS[FACTS]}) / FACTS
    try:
        return read_repo(path.read_bytes(), repo.kind)
    except ValueError as error:
        raise HubError(f"{FACTS} of '{repo.repo}' is refused: {error}.", DAMAGED) from error


def bare_facts(repo: Pinned) -> RepoFacts:
    """Of a repo that holds a generator and says nothing more; HubError for any other one."""
    if repo.kind != MODEL or GENERATOR_FILES.keys() - listing(repo, GENERATOR_FILES).keys():
        raise NotOursError(
            f"The {repo.kind} '{repo.repo}' is not a repo of ddtool: it has no {FACTS}.",
            "A generator's repo holds config.json and model.safetensors; a pickle (pytorch_model.bin) is never read.",
        )
    return RepoFacts(format=FORMAT, kind=META, repo=repo.repo, sets={}, pretraining=None)
