"""The files of a Space: a page beside the repos of a run, which shows the sets, makes others and trains a network on them.

A Space is there to be changed by its owner. A file that is no longer as ddtool wrote it, which hashes in ddtool.json tell, stays
as it is; `--overwrite-card` writes it anew.
"""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator

from ddtool.errors import HubError
from ddtool.events import Note, Report
from ddtool.hub.download import DAMAGED, fetch, hash_of, last_commits, listing
from ddtool.hub.generators import FACTS, MOST_FACTS
from ddtool.hub.names import DATASET, MODEL, SPACE, Pinned, web
from ddtool.runs.facts import Record
from ddtool.sharing import cards
from ddtool.sharing.facts import FORMAT, SETS, Repo, RepoFacts, format_of
from ddtool.sharing.files import CARD
from ddtool.sharing.options import Options
from ddtool.sharing.parcels import Parcel, read_if_ours
from ddtool.text import is_or_are
from ddtool.version import ADDRESS, __version__

APP, REQUIREMENTS = "app.py", "requirements.txt"
KIND: Final = "space"
GIT = "0" * 40
"""Git's hash of nothing: a file of a Space is known by its hash of that sort, which the Hub lists."""
BY_THE_HUB = "initial commit"
"""The title of the commit by which the Hub gives a new Space a README.md."""

WITHOUT_ADDRESS = """\
# ddtool is missing here: its source has no public address yet. Add a line by which pip finds it, for example the address of a
# wheel, https://HOST/ddtool-{version}-py3-none-any.whl. Until then the page says only that ddtool is missing.
"""


class SpaceFacts(Record):
    """What a Space states in its ddtool.json: which repos its page shows, and what ddtool has written."""

    format: Annotated[int, BeforeValidator(format_of)]
    kind: Literal["space"]
    ddtool: str = ""
    """The version that wrote it."""
    dataset_repo: Repo
    model_repo: Repo = None
    """The repo of the generator, where there is one."""
    files: dict[str, str]
    """Git's hash of each other file, as ddtool wrote it."""


def space_parcel(
    names: dict[str, str], base: Pinned | None, known: RepoFacts, options: Options, report: Report
) -> Parcel:
    """The Space beside the repos `names`: its page, what the page needs, and the card. Files that a person changed are not
    among them."""
    ours: dict[str, bytes | Path] = {name: text.encode() for name, text in written(names, known).items()}
    there = old_space(base, options)
    kept = changed_by_hand(base, there, ours, options)
    if base and kept:
        said = f"{' and '.join(kept)} {is_or_are(len(kept))} not as ddtool wrote them and stay; --overwrite-card writes them anew."
        report(Note(f"In {web(SPACE, base.repo)} {said}"))
    if not ADDRESS and REQUIREMENTS not in kept:
        said = f"{REQUIREMENTS} of {web(SPACE, names[SPACE])} says what to add, and its page waits for it."
        report(Note(f"ddtool has no public address yet: {said}"))
    facts = SpaceFacts(
        format=FORMAT,
        kind=KIND,
        ddtool=__version__,
        dataset_repo=names[DATASET],
        model_repo=names.get(MODEL),
        files={name: hash_of(content, GIT) for name, content in ours.items()},
    )
    files = {name: content for name, content in ours.items() if name not in kept}
    files[FACTS] = (json.dumps(facts.stated(), indent=1, sort_keys=True) + "\n").encode()
    return Parcel(SPACE, names[SPACE], base, files, None, f"Page of {cards.source_name(known)}, by ddtool")


def written(names: dict[str, str], known: RepoFacts) -> dict[str, str]:
    """The files of a Space but for its facts: the same names and source give the same text."""
    facts = known.but(kind=SETS, repo=names[SPACE], dataset_repo=names[DATASET], model_repo=names.get(MODEL))
    return {CARD: cards.space_card(facts), APP: cards.template("space_app.py"), REQUIREMENTS: requirements()}


def requirements() -> str:
    """What pip is to install for the page; gradio comes with the Space."""
    return f"ddtool @ git+{ADDRESS}\n" if ADDRESS else WITHOUT_ADDRESS.format(version=__version__)


def old_space(base: Pinned | None, options: Options) -> SpaceFacts | None:
    """The facts of a Space that is pushed to again; HubError when it has files like ours and is not ours, unless `force`
    replaces them."""
    return read_if_ours(base, facts_of, (APP, REQUIREMENTS), options, "what is not its README.md")


def facts_of(base: Pinned) -> SpaceFacts | None:
    """The facts in a Space's ddtool.json; None when it has none, HubError when they are refused."""
    if FACTS not in listing(base, [FACTS, CARD, APP, REQUIREMENTS]):
        return None
    try:
        return SpaceFacts.read((fetch(base, {FACTS: MOST_FACTS}) / FACTS).read_bytes())
    except ValueError as error:
        raise HubError(f"{FACTS} of the Space '{base.repo}' is refused: {error}.", DAMAGED) from error


def changed_by_hand(
    base: Pinned | None, there: SpaceFacts | None, ours: dict[str, bytes | Path], options: Options
) -> list[str]:
    """The files of a Space that are neither what ddtool wrote there nor what it would write now. In a Space that ddtool has not
    made a README.md that somebody wrote is alone at stake: whoever has more there has said --force."""
    if base is None or options.overwrite_card:
        return []
    if there is None and last_commits(base, [CARD]).get(CARD, ("", BY_THE_HUB))[1] == BY_THE_HUB:
        return []
    sealed = there.files if there else {}
    at_stake = listing(base, ours if there else [CARD])
    return [
        name for name, file in at_stake.items() if file.oid not in (sealed.get(name), hash_of(ours[name], file.oid))
    ]
