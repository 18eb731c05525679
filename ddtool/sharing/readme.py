"""A repo's README.md between two authors: ddtool writes the part between its marks and its own keys of the metadata, and
whatever a person writes beside them stays.

What ddtool has written is known again by hashes in ddtool.json. Where a person has changed that, it is a conflict, which
`--overwrite-card` decides.
"""

import hashlib
import json
import re
from dataclasses import dataclass

import yaml

from ddtool.errors import HubError
from ddtool.hub.download import fetch, last_commits, listing
from ddtool.hub.generators import FACTS
from ddtool.hub.names import Pinned, web
from ddtool.sharing.facts import CardFacts, RepoFacts
from ddtool.sharing.files import BEGIN, CARD, END, LIMITS

_FRONT = re.compile(r"\A\s*---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
_KEY = re.compile(r"""(["']?)([\w.-]+)\1[ \t]*:(?=\s|$)""")


class CardConflictError(HubError):
    """A person has changed what ddtool writes."""


@dataclass(frozen=True)
class Readme:
    """A README.md in parts, line ends as \\n."""

    metadata: dict[str, str]
    """Each key of the front matter with its lines, as they stand there; a comment has a key of its own."""
    before: str
    part: str | None
    """What is between the marks; None without marks."""
    after: str

    @classmethod
    def read(cls, text: str) -> "Readme":
        """The parts of a text; ValueError for front matter that is no YAML mapping."""
        text = text.replace("\r\n", "\n").replace("\r", "\n")
        front = _FRONT.match(text)
        body = text[front.end() :] if front else text
        begin, end = body.find(BEGIN), body.rfind(END)
        metadata = blocks(front[1]) if front else {}
        if not 0 <= begin < end:
            return cls(metadata, body.strip("\n"), None, "")
        part = body[begin + len(BEGIN) : end].strip("\n")
        return cls(metadata, body[:begin].strip("\n"), part, body[end + len(END) :].strip("\n"))

    def text(self) -> str:
        """The whole text."""
        assert self.part is not None
        body = [self.before, f"{BEGIN}\n\n{self.part}\n\n{END}", self.after]
        return "---\n" + "".join(self.metadata.values()) + "---\n\n" + "\n\n".join(filter(None, body)) + "\n"

    def seal(self) -> CardFacts:
        """Hashes of what is in it, to know it again."""
        return CardFacts(
            part=_hash(self.part or ""), metadata={key: _hash(value_of(b)) for key, b in self.metadata.items()}
        )


def merged_card(ours: str, base: Pinned | None, there: RepoFacts | None, overwrite: bool) -> str:
    """The README.md to push to a repo: `ours`, with what a person has written in the one that is there.

    there: the facts that the repo states;  overwrite: replace, too, what a person has changed of ddtool's own part: else that
    is a CardConflictError.
    """
    theirs = card_of(base)
    if base is None or theirs is None:
        return ours
    check_card(base, there, overwrite)
    try:
        return merged(ours, theirs, there.card if there else None, known=bool(there), overwrite=overwrite)
    except CardConflictError as conflict:
        raise explained(base, conflict.message) from conflict


def check_card(base: Pinned | None, there: RepoFacts | None, overwrite: bool) -> None:
    """CardConflictError when somebody has changed what ddtool wrote into a repo's README.md, unless that is to be replaced."""
    theirs = card_of(base)
    if base is None or theirs is None or there is None or overwrite:
        return
    if there.card is None:
        if not is_as_pushed(base):
            raise explained(base, "the text, or it is of a version that did not mark its part")
        return
    try:
        changed = conflicts(Readme({}, "", None, ""), Readme.read(theirs), there.card)
    except ValueError as error:
        raise explained(base, f"its metadata, which cannot be read ({error})") from error
    if changed:
        raise explained(base, " and ".join(changed))


def card_of(base: Pinned | None) -> str | None:
    """The README.md that is in a repo; None when there is none."""
    if base is None or CARD not in listing(base, [CARD]):
        return None
    return (fetch(base, {CARD: LIMITS[CARD]}) / CARD).read_bytes().decode(errors="replace")


def is_as_pushed(base: Pinned) -> bool:
    """Whether the README.md of a repo is the one that a push has made: the Hub knows which commit changed it last."""
    last = last_commits(base, [CARD, FACTS])
    return CARD in last and (last[CARD] == last.get(FACTS) or last[CARD][1].endswith(", by ddtool"))


def explained(base: Pinned, what: str) -> CardConflictError:
    """The explanation for a card that is not overwritten without being told to."""
    hint = (
        "`ddtool push … --overwrite-card` writes ddtool's part anew; the history keeps the old one. Words above or below that "
        "part, and metadata with keys of your own, always stay."
    )
    return CardConflictError(
        f"Nothing is pushed to {web(base.kind, base.repo)}: in its {CARD} somebody has changed {what}.", hint
    )


def merged(ours: str, theirs: str | None, seal: CardFacts | None, *, known: bool, overwrite: bool) -> str:
    """The README.md to push: `ours`, with what a person has written beside it in `theirs`, the one that is there.

    seal: the hashes of what ddtool had written there;  known: without a seal, `theirs` is wholly an earlier version's card;
    overwrite: in a conflict ours replaces what a person wrote; else CardConflictError names it.
    """
    new = Readme.read(ours)
    if theirs is None or (known and seal is None):
        return ours
    try:
        old = Readme.read(theirs)
    except ValueError as error:
        if overwrite:
            return ours
        raise CardConflictError(f"its metadata cannot be read ({error})") from error
    if not overwrite and (changed := conflicts(new, old, seal)):
        raise CardConflictError(" and ".join(changed))
    replaced = new.metadata.keys() | (seal.metadata.keys() if seal else set())
    kept = {key: block for key, block in old.metadata.items() if key not in replaced}
    fresh, there = new.seal(), old.seal()
    if fresh.part == there.part and fresh.metadata == {k: v for k, v in there.metadata.items() if k not in kept}:
        return theirs  # ddtool has nothing new to say
    before = "" if old.part is None and overwrite else old.before
    return Readme(new.metadata | kept, before, new.part, old.after).text()


def conflicts(new: Readme, old: Readme, seal: CardFacts | None) -> list[str]:
    """What a person has changed of what ddtool writes, or has written where ddtool writes."""
    there = {key: _hash(value_of(block)) for key, block in old.metadata.items()}
    fresh = new.seal()
    if seal is None:
        keys = [key for key, value in fresh.metadata.items() if there.get(key, value) != value]
        text = old.part is not None and _hash(old.part) != fresh.part
    else:
        ours = {
            key: value for key, value in fresh.metadata.items() if key not in seal.metadata and key in there
        } | seal.metadata
        keys = [key for key, value in ours.items() if there.get(key) != value]
        text = old.part is None or _hash(old.part) != seal.part
    named = [f"{', '.join(map(repr, keys))} of the metadata"] if keys else []
    return named + (["the text between ddtool's marks" if old.part is not None else "ddtool's marks"] if text else [])


def blocks(front: str) -> dict[str, str]:
    """The lines of each top-level key of front matter, by key; ValueError when it is no YAML mapping."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(front, yaml.SafeLoader)):
            raise ValueError("it refers to itself")
        values = yaml.safe_load(front)
    except yaml.YAMLError as error:
        raise ValueError("it is not YAML") from error
    if not isinstance(values, dict | None):
        raise ValueError("it is no mapping")
    found: dict[str, str] = {}
    current = "#"
    for number, line in enumerate(front.splitlines()):
        if key := _KEY.match(line):
            current = key[2]
        elif line.startswith("#"):
            current = f"#{number}"
        found[current] = found.get(current, "") + line + "\n"
    if {key for key in found if not key.startswith("#")} != set(map(str, values or {})):
        raise ValueError("it is written in a way that ddtool does not keep")
    return found


def value_of(block: str) -> object:
    """The value of one key of front matter."""
    values = yaml.safe_load(block)
    return next(iter(values.values())) if isinstance(values, dict) else None


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]
