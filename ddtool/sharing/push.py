"""A run or a generator to the Hub: which repos, what they hold already, what may be replaced, and the push.

A run makes two repos: the model repo (the adapted generator, with what `ddtool generate` needs) and the dataset repo (one
configuration for every IPC). A run of a method without a generator makes the dataset repo alone. A Space can stand
beside them. Each push of a repo is one commit on what was seen there; what is the same is not sent again.
"""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from ddtool.errors import HubError
from ddtool.events import Note, Report, silent
from ddtool.hub.download import listing
from ddtool.hub.names import DATASET, MODEL, SPACE, web
from ddtool.hub.tags import add_tag, add_to_collection, check_collection, check_tag
from ddtool.hub.upload import Pushed, check_may_write, commit, find
from ddtool.methods import has_generator
from ddtool.models.generator import WEIGHTS_FILE
from ddtool.runs.run import Run
from ddtool.sharing.describe import check_finished, check_whole, describe_run, real_images
from ddtool.sharing.files import POOL, PREVIEW
from ddtool.sharing.options import Options, again, base_of, repos
from ddtool.sharing.parcels import Parcel, PlannedRepo, dataset_parcel, model_parcel, of_generator, old_facts
from ddtool.sharing.readme import check_card
from ddtool.sharing.spaces import old_space, space_parcel
from ddtool.text import count, is_or_are


def push(
    run: str | Path | Run | None, generator: str | None, repo: str, options: Options, report: Report = silent
) -> list[Pushed]:
    """Push a run, or a meta `generator`; HubError, before anything else, when the login may not."""
    options = options_for(run, options)
    check_target(repo, options, generator)
    with parcels(run, generator, repo, options, report) as made:
        return send(made, options, again(run, generator, repo, options), report)


def plan(
    run: str | Path | Run | None, generator: str | None, repo: str, options: Options, report: Report = silent
) -> list[PlannedRepo]:
    """What that push would bring to each repo; nothing is sent."""
    with parcels(run, generator, repo, options_for(run, options), report) as made:
        return [parcel.planned() for parcel in made]


def send(parcels: list[Parcel], options: Options, again: str, report: Report = silent) -> list[Pushed]:
    """Push the repos one after the other; a failure after the first says what is there. `again`: the command, for hints.

    The dataset comes before the model, whose card and `ddtool evaluate` lead to it, and the Space last: a visitor finds
    nothing that points into the void.
    """
    check_marks(parcels, options)
    done: list[Pushed] = []
    for parcel in parcels:
        if shown := parcel.real_images():
            report(Note(f"Real images of {shown} are among the files for {parcel.repo}; --no-pool leaves them out."))
        try:
            made = commit(
                parcel.kind, parcel.repo, parcel.base, parcel.files, parcel.removed, message=options.commit_message or parcel.title,
                private=parcel.private, branch=options.revision, create_pr=options.create_pr, report=report,
            )  # fmt: skip
        except HubError as error:
            whole = f"{' and '.join(made.url for made in done)} {is_or_are(len(done))} complete"
            state = f" {whole}; the {parcel.kind} repo is not pushed." if done else ""
            hint = f"{error.hint} A push repeats safely: `{again}`".lstrip()
            raise type(error)(error.message + state, hint) from error
        done.append(made)
        what = f"{count(len(made.changed), 'file')} in one commit" if made.changed else "nothing has changed"
        report(Note(f"{made.pull_request or made.url}: {what}."))
        mark(made, options, again)
    return done


def check_marks(parcels: list[Parcel], options: Options) -> None:
    """HubError, before anything is sent, when a repo has the tag elsewhere or there is no such collection."""
    if options.tag:
        for parcel in parcels:
            check_tag(parcel.base, parcel.files, options.tag)
    if options.collection:
        check_collection(options.collection)


def mark(made: Pushed, options: Options, again: str) -> None:
    """Give the commit its tag, and the repo its place in the collection; a failure says that the commit is there."""
    try:
        if options.tag:
            add_tag(made, options.tag)
        if options.collection:
            add_to_collection(made, options.collection)
    except HubError as error:
        hint = f"{error.hint} A push repeats safely: `{again}`".lstrip()
        raise type(error)(f"{error.message} {made.url} is complete, but for its tag and collection.", hint) from error


@contextlib.contextmanager
def parcels(
    run: str | Path | Run | None, generator: str | None, repo: str, options: Options, report: Report = silent
) -> Iterator[list[Parcel]]:
    """What a push would bring to each repo, for as long as the block runs: files that had to be rewritten are temporary."""
    with tempfile.TemporaryDirectory(prefix="ddtool-push-") as temporary:
        if generator is not None:
            yield [of_generator(generator, repo, options, report)]
        else:
            assert run is not None
            opened = run if isinstance(run, Run) else Run.open(Path(run))
            yield of_run(opened, repo, options, Path(temporary), report)


def of_run(run: Run, repo: str, options: Options, temporary: Path, report: Report = silent) -> list[Parcel]:
    """The repos of a run. Raises RunError for an unfinished run, HubError when a repo holds what only `force` replaces.

    With --only, the other repo is named where it is there already. A new repo beside a private one is private.
    """
    check_finished(run, report)
    check_whole(run)
    method = run.config().method
    options = options.by_method(method)
    names = repos(repo, options)
    siblings = repos(repo, replace(options, only=None)) if has_generator(method) else names
    heads = {k: base_of(k, name, options) if k in names else find(k, name) for k, name in siblings.items()}
    linked = {kind: name for kind, name in siblings.items() if kind in names or heads[kind]}
    known = describe_run(run, real_images(run) if options.pool else 0)
    head = heads.get(MODEL)
    if not (options.pool and run.has(POOL)) and MODEL in names and head and listing(head, [POOL]):
        said = "keeps the real images that were pushed before: only a repo that is deleted and made anew is without."
        report(Note(f"The history of {web(MODEL, head.repo)} {said}"))
    make = {MODEL: model_parcel, DATASET: dataset_parcel}
    made = [make[k](run, linked, heads[k], known, options, temporary) for k in names if k in make]
    if SPACE in names:
        made.append(space_parcel(linked, heads[SPACE], known, options, report))
    private = options.private or any(head.private for head in heads.values() if head)
    return [replace(parcel, private=private) for parcel in made]


def options_for(run: str | Path | Run | None, options: Options) -> Options:
    """The options as they are for that run (None: a meta generator); RunError when there is none, UsageError as above."""
    if run is None:
        return options
    return options.by_method((run if isinstance(run, Run) else Run.open(Path(run))).config().method)


def check_target(repo: str, options: Options, generator: str | None = None) -> None:
    """HubError, before any long work, unless the login may write to the repos and nothing of others is in the way."""
    names = repos(repo, options, generator)
    for namespace in sorted({name.partition("/")[0] for name in names.values()}):
        check_may_write(namespace, anywhere=options.create_pr)
    for kind, name in names.items():
        base = base_of(kind, name, options)
        if kind == SPACE:
            old_space(base, options)
            continue
        check_card(base, old_facts(base, (WEIGHTS_FILE, PREVIEW), options), options.overwrite_card)
