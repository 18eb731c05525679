"""What each repo of a push will hold: its files, its facts and its card, merged with what is there.

What only `force` replaces is refused here, before anything is sent.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch

from ddtool.errors import HubError, RunError, UsageError
from ddtool.events import Report
from ddtool.hub.download import fetch, filenames, listing
from ddtool.hub.generators import FACTS, GENERATOR_FILES, generator_folder, pinned_generator
from ddtool.hub.names import DATASET, MODEL, Pinned, repo_name, web
from ddtool.hub.upload import changes
from ddtool.models.generator import WEIGHTS_FILE, Generator
from ddtool.pipeline.finish import draw_preview
from ddtool.runs.formats import read_tensors
from ddtool.runs.run import Run
from ddtool.sharing import cards
from ddtool.sharing.describe import describe_generator, without_paths
from ddtool.sharing.facts import ADAPTED, SETS, RepoFacts, SetFacts
from ddtool.sharing.files import CARD, EXACT, LABELS, LIMITS, PARQUET, POOL, PREVIEW
from ddtool.sharing.found import facts_of
from ddtool.sharing.options import Options, base_of
from ddtool.sharing.readme import Readme, merged_card

F = TypeVar("F")
Files = dict[str, bytes | Path]


@dataclass
class Parcel:
    """What one repo will hold, beside what it holds already."""

    kind: str
    repo: str
    base: Pinned | None
    files: Files
    facts: RepoFacts | None
    """None: of a Space, which has facts of its own."""
    title: str
    removed: list[str] = field(default_factory=list)
    private: bool = False
    """Whether a new repo is made private."""

    def states(self) -> dict[str, str]:
        """new, changed or same, for each file; removed for one that goes."""
        there = listing(self.base, self.files) if self.base else {}
        changed = changes(self.base, self.files)
        states = {name: "new" if name not in there else "same" for name in self.files}
        states |= {name: "changed" for name in changed if name in there}
        return states | dict.fromkeys(listing(self.base, self.removed) if self.base else (), "removed")

    def real_images(self) -> str:
        """The dataset whose images would now go into the repo, unchanged; empty when none would."""
        sent = set(changes(self.base, self.files)) & {POOL, PREVIEW}
        return cards.source_name(self.facts) if self.facts and self.facts.pool and sent else ""

    def planned(self) -> "PlannedRepo":
        """What the push would bring, for people to see."""
        sizes = {name: len(f) if isinstance(f, bytes) else f.stat().st_size for name, f in self.files.items()}
        files = [PlannedFile(name, sizes.get(name), state) for name, state in sorted(self.states().items())]
        card = self.files.get(CARD, b"")
        assert isinstance(card, bytes)
        return PlannedRepo(self.kind, self.repo, self.base is None, tuple(files), card.decode())


@dataclass(frozen=True)
class PlannedFile:
    """A file of a push that was not made; `state`: new, changed, same or removed."""

    file: str
    bytes: int | None
    state: str


@dataclass(frozen=True)
class PlannedRepo:
    """A repo of a push that was not made."""

    kind: str
    repo: str
    new: bool
    files: tuple[PlannedFile, ...]
    card: str
    """Its README.md; empty where that of a Space stays as it is."""


def of_generator(name: str, repo: str, options: Options, report: Report) -> Parcel:
    """The repo of a meta generator: bundled, or a folder."""
    if options.only or options.dataset_repo or not options.pool:
        raise UsageError(
            "A meta generator has one repo and no pool.", "Leave out --only, --dataset-repo and --no-pool."
        )
    if options.space:
        raise UsageError("A Space shows the sets of a run, and a meta generator has none.", "Leave --space out.")
    name = pinned_generator(name)
    folder = generator_folder(name, report)
    Generator.load(folder)
    repo = repo_name(repo)
    base = base_of(MODEL, repo, options)
    files: Files = {file: folder / file for file in GENERATOR_FILES}
    there = old_facts(base, files, options)
    check_same(base, {WEIGHTS_FILE: folder / WEIGHTS_FILE}, there, "another generator", options)
    removed = [LABELS, POOL, PREVIEW] if there and there.kind == ADAPTED else []
    facts = describe_generator(name, folder, repo)
    return sealed(
        Parcel(MODEL, repo, base, files, facts, "Meta generator, by ddtool", removed, options.private), there, options
    )


def model_parcel(
    run: Run, names: dict[str, str], base: Pinned | None, known: RepoFacts, options: Options, temporary: Path
) -> Parcel:
    """The adapted generator with its labels and pool."""
    files: Files = {file: run.folder / "generator" / file for file in GENERATOR_FILES}
    files[LABELS] = without_paths(run.folder / "generator" / LABELS, temporary / LABELS)
    there = old_facts(base, files, options)
    same = holds_generator(base, files)
    if not same:
        heart = {name: files[name] for name in (WEIGHTS_FILE, LABELS)}
        check_same(base, heart, there, "another generator", options, ", or push the sets alone: --only dataset")
    if known.pool:
        files[POOL] = run.folder / POOL
    files |= picture(run, base, there, known, temporary)
    before = there.dataset_repo if there else None
    recorded = before if options.only and not options.dataset_repo else None
    facts = known.but(
        kind=ADAPTED,
        repo=names[MODEL],
        model_repo=None,
        dataset_repo=recorded or names.get(DATASET, before),
        sets=(there.sets if there and same else {}) | known.sets,
    )
    title = f"Generator adapted to {cards.source_name(facts)}, by ddtool"
    return sealed(Parcel(MODEL, names[MODEL], base, files, facts, title, [] if known.pool else [POOL]), there, options)


def dataset_parcel(
    run: Run, names: dict[str, str], base: Pinned | None, known: RepoFacts, options: Options, temporary: Path
) -> Parcel:
    """The synthetic sets, beside those of other IPCs that the repo has; `force` replaces those of another source."""
    files: Files = {}
    for n in run.ipcs():
        folder = run.set_path(n).parent
        files[f"ipc{n}/{PARQUET}"] = folder / PARQUET
        files[f"ipc{n}/{EXACT}"] = without_paths(folder / EXACT, temporary / f"ipc{n}-{EXACT}")
    there = old_facts(base, files, options)
    if there and (there.class_names, there.shape) != (known.class_names, known.shape):
        message = f"'{names[DATASET]}' holds sets of other classes or of images of another size."
        raise HubError(message, "Push to another repo: --dataset-repo NAMESPACE/OTHER-NAME.")
    for n in run.ipcs():
        name = f"ipc{n}/{EXACT}"
        check_same(base, {name: files[name]}, there, f"another set of ipc {n}", options)
    kept, removed = sets_to_keep(there, known, names[DATASET], options)
    files |= picture(run, base, there, known, temporary)
    before = there.model_repo if there and known.method.has_generator else None
    facts = known.but(
        kind=SETS,
        repo=names[DATASET],
        model_repo=names.get(MODEL, before),
        dataset_repo=None,
        sets=kept | known.sets,
    )
    how = "distilled" if facts.method.has_generator else f"by {facts.made_by}"
    title = f"{cards.source_name(facts)}, {how}: IPC {', '.join(map(str, run.ipcs()))}, by ddtool"
    return sealed(Parcel(DATASET, names[DATASET], base, files, facts, title, removed), there, options)


def sets_to_keep(
    there: RepoFacts | None, known: RepoFacts, repo: str, options: Options
) -> tuple[dict[int, SetFacts], list[str]]:
    """Sets of other IPCs that stay in the repo, and the files of those that `force` replaces because they are of another
    source or method; HubError without `force`."""
    kept = {n: made for n, made in there.sets.items() if n not in known.sets} if there else {}
    if not there or not kept or there.provenance == known.provenance:
        return kept, []
    if not options.force:
        same_method = there.made_by == known.made_by
        other = "other data, or of another revision of it" if same_method else "another method"
        message = f"{web(DATASET, repo)} holds sets of {other}."
        hint = (
            "Push to another repo: --dataset-repo NAMESPACE/OTHER-NAME; `ddtool push … --force` replaces all of them."
        )
        raise HubError(message, hint)
    return {}, [f"ipc{n}/{file}" for n in kept for file in (PARQUET, EXACT)]


def sealed(parcel: Parcel, there: RepoFacts | None, options: Options) -> Parcel:
    """With ddtool.json and the card that is made from it: the same facts give the same bytes.

    What a person has written into the README.md that is there stays; HubError where they have changed what ddtool writes.
    """
    assert parcel.facts is not None
    ours = cards.card(parcel.facts)
    parcel.facts = facts = parcel.facts.but(card=Readme.read(ours).seal())
    parcel.files[FACTS] = facts.written()
    parcel.files[CARD] = merged_card(ours, parcel.base, there, options.overwrite_card).encode()
    return parcel


def old_facts(base: Pinned | None, files: Iterable[str], options: Options) -> RepoFacts | None:
    """The facts of a repo that is pushed to again, as `read_if_ours` has it."""
    return read_if_ours(base, facts_of, files, options, "these files")


def read_if_ours(
    base: Pinned | None, read: Callable[[Pinned], F | None], files: Iterable[str], options: Options, replaced: str
) -> F | None:
    """What `read` finds in a repo that is pushed to again; None where nothing of ours is there.

    HubError when it has files like `files` and is not ours; `force` overwrites them, which the hint calls `replaced`.
    """
    if base is None:
        return None
    try:
        there = read(base)
    except HubError:
        if not options.force:
            raise
        return None
    if there is None and not options.force and (theirs := like_ours(base, files)):
        page = web(base.kind, base.repo)
        message = f"{page} was not made by ddtool and holds {', '.join(sorted(theirs)[:3])}."
        raise HubError(message, f"Push to another name; `ddtool push … --force` replaces {replaced}.")
    return there


def like_ours(base: Pinned, files: Iterable[str]) -> list[str]:
    """Files of others that a push would overwrite; a card that is all that a repo has was made with it."""
    there = filenames(base) - {".gitattributes"}
    return sorted(there & {*files, CARD}) if there != {CARD} else []


def check_same(
    base: Pinned | None, files: Files, there: RepoFacts | None, what: str, options: Options, otherwise: str = ""
) -> None:
    """HubError when the repo holds other content than `files` under their names, unless `force` replaces it."""
    if base is None or there is None or options.force:
        return
    if any(name in listing(base, files) for name in changes(base, files)):
        hint = (
            f"`ddtool push … --force` replaces it; the history keeps the old one. Or push to another name{otherwise}."
        )
        raise HubError(f"{web(base.kind, base.repo)} holds {what}.", hint)


def holds_generator(base: Pinned | None, files: Files) -> bool:
    """Whether the repo has the weights and the label network of `files`, whatever is noted beside the tensors."""
    if base is None or changes(base, {WEIGHTS_FILE: files[WEIGHTS_FILE]}):
        return False
    if not changes(base, {LABELS: files[LABELS]}):
        return True
    if not listing(base, [LABELS]):
        return False
    ours = read_tensors(Path(str(files[LABELS])))[0]
    try:
        theirs = read_tensors(fetch(base, {LABELS: LIMITS[LABELS]}) / LABELS)[0]
    except RunError:
        return False
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def picture(run: Run, base: Pinned | None, there: RepoFacts | None, known: RepoFacts, temporary: Path) -> Files:
    """The run's preview; for a run without one that of the repo stays, or one is drawn. Without a pool: no real images."""
    if known.pool and run.has(PREVIEW):
        return {PREVIEW: run.folder / PREVIEW}
    if not run.has(PREVIEW) and base and there and bool(there.pool) == bool(known.pool) and listing(base, [PREVIEW]):
        return {}
    draw_preview(run, max(run.ipcs()), temporary / PREVIEW, real=bool(known.pool))
    return {PREVIEW: temporary / PREVIEW}
