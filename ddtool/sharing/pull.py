"""From the Hub into a folder: an adapted generator as a run, a meta generator, or synthetic sets.

Every name, size and value in a repo is somebody else's. Only files that ddtool itself writes are asked for, and each is
checked before it is used.
"""

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from ddtool.config import RunConfig, from_dict, most_from_hub, to_dict
from ddtool.config.layers import as_begun
from ddtool.data.parts import cuts
from ddtool.errors import DDToolError, HubError, RunError, UsageError
from ddtool.events import Note, Phase, Report, silent
from ddtool.hub.download import DAMAGED, fetch, listing, named
from ddtool.hub.generators import FACTS, GENERATOR_FILES, PRETRAINING
from ddtool.hub.names import parse
from ddtool.hub.upload import changes
from ddtool.methods import has_generator
from ddtool.models.generator import Generator
from ddtool.pipeline.networks import check_labels
from ddtool.pipeline.plan import check_config
from ddtool.runs.files import is_run, staged_folder, write_json
from ddtool.runs.foreign import check_strangers
from ddtool.runs.formats import labels_fit
from ddtool.runs.run import Run
from ddtool.sharing.facts import ADAPTED, META, MOST_CLASSES, PLAIN, SETS, Kind, RepoFacts, Source
from ddtool.sharing.files import LABELS, LIMITS, POOL
from ddtool.sharing.found import Found, find, sets_beside
from ddtool.sharing.sets import checked_sets, fetch_sets, files_of_sets
from ddtool.sources import load as sources
from ddtool.sources.names import CONVERTED

MOST_ELSE = 10**7
"""The largest value of a setting that a run from the Hub may have, where the setting itself does not declare another."""


@dataclass(frozen=True)
class Pulled:
    """What was brought from the Hub, and where it is."""

    path: Path
    kind: Kind
    """adapted-generator (a run), meta-generator or synthetic-dataset."""
    repo: str
    revision: str
    """The commit."""
    ipc: tuple[int, ...]
    """The images per class of the sets that the repo tells of."""


def pull(
    name: str, out: Path | None = None, force: bool = False, with_sets: bool = False, report: Report = silent
) -> Pulled:
    """Bring what a repo holds into a folder: a run, a generator or synthetic sets.

    out: default runs/NAME, generators/NAME or sets/NAME;  with_sets: into a run also the sets of the dataset repo that it
    names, and their scores. Raises RunError when something is there that `force` does not
    replace, HubError for what is refused; then nothing is left behind.
    """
    found = find(name)
    folder = out or default_folder(found)
    check_place(folder, force)
    if found.kind == ADAPTED:
        bring_run(found, folder, report, fitting_sets(found, name) if with_sets else None)
        if found.facts.dataset_repo and not with_sets:
            report(Note(f"Its sets are in {found.facts.dataset_repo}; --with-sets brings them, and their scores."))
    else:
        if with_sets and found.kind == META:
            raise UsageError(f"'{name}' is a meta generator, which has no sets.", "Leave --with-sets out.")
        bring = bring_generator if found.kind == META else bring_sets
        bring(found, folder, report)
    return Pulled(folder, found.kind, found.repo.repo, found.repo.sha, tuple(found.ipcs))


def default_folder(found: Found) -> Path:
    """runs/NAME, generators/NAME or sets/NAME below the current folder."""
    return Path({ADAPTED: "runs", META: "generators", SETS: "sets"}[found.kind]) / found.repo.repo.split("/")[1]


def check_place(folder: Path, force: bool) -> None:
    """RunError when a folder is taken; `force` replaces a run or what was pulled, and nothing else that lies there."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    ours = folder.is_dir() and (is_run(folder) or (folder / FACTS).is_file())
    hint = "Replace it with --force, or choose another --out." if ours else "Choose another --out."
    if not ours or not force:
        raise RunError(f"{folder} exists already{'' if ours else ' and was not made by ddtool'}.", hint)
    check_strangers(folder)


def pulled_run(name: str, report: Report = silent) -> Run:
    """The run directory of an adapted generator on the Hub: pulled to runs/NAME, or as it was pulled there before.

    A later commit with the same generator, labels and pool (of a push of more sets, say) is as good.
    """
    found = find(name)
    if found.kind != ADAPTED:
        raise HubError(f"'{found.repo.repo}' holds no adapted generator ({found.kind}).", _generator_hint(found.facts))
    folder = default_folder(found)
    if not is_run(folder):
        check_place(folder, force=False)
        bring_run(found, folder, report)
        report(Note(f"Pulled {found.repo} to {folder}."))
    elif not same_run(Run(folder), found):
        there = Run(folder).noted().facts.pulled
        raise RunError(
            f"{folder} is there already and is not {found.repo}" + (f", but {there}." if there else "."),
            f"Use it by its path, {folder}, or pull to another place: `ddtool pull {name} --out FOLDER`.",
        )
    return Run(folder)


def _generator_hint(facts: RepoFacts) -> str:
    """What to do with a repo that holds no adapted generator."""
    if not facts.method.has_generator:
        return f"A set of another size is another run: `ddtool adapt DATASET --method {facts.made_by} --ipc N`."
    if facts.model_repo:
        return f"Its generator is {facts.model_repo}."
    return "Adapt it first: `ddtool adapt DATASET --generator REPO`."


def same_run(run: Run, found: Found) -> bool:
    """Whether a run was pulled from this repo, and has the generator, labels and pool that the repo has now."""
    if (run.noted().facts.pulled or "").partition("@")[0] != found.repo.repo:
        return False
    files = {name: run.folder / "generator" / name for name in (*GENERATOR_FILES, LABELS)}
    files |= {name: run.folder / name for name in listing(found.repo, [POOL])}
    return all(file.is_file() for file in files.values()) and not changes(found.repo, files)


# ---------------------------------------------------------------------------------------------------------------- a run


def fitting_sets(found: Found, name: str) -> Found:
    """The dataset repo that a generator's repo names as its own; HubError when there is none, or it is of other data."""
    if not found.facts.dataset_repo:
        raise HubError(f"'{name}' names no repo with its sets.", "Leave --with-sets out.")
    beside = sets_beside(found)
    alike = beside.kind == SETS and (beside.facts.class_names, beside.facts.shape) == (
        found.facts.class_names,
        found.facts.shape,
    )
    if not alike or beside.facts.provenance != found.facts.provenance:
        message = f"The sets of '{beside.repo.repo}' are of other data than the generator of '{name}'."
        raise HubError(message, f"Leave --with-sets out, or pull them alone: `ddtool pull {beside.repo.repo}`.")
    return beside


def bring_run(found: Found, folder: Path, report: Report, beside: Found | None = None) -> None:
    """A run directory with generator, labels and pool, as the run that was pushed had them; with the sets of `beside` and their
    scores."""
    config = run_config(found)
    there = listing(found.repo, [POOL])
    limits = {**GENERATOR_FILES, LABELS: LIMITS[LABELS], **dict.fromkeys(there, LIMITS[POOL])}
    files = fetch(found.repo, limits, report)
    made = found.facts.sets[found.ipcs[-1]]
    timings = {phase: s for phase, s in made.timings.items() if Phase.parse(phase).ipc is None}
    stated = {name: value for name, value in made.facts.stated().items() if type(value) in (int, float, bool)}
    with staged_folder(folder, replacing=True) as temporary:
        run = Run(temporary)
        copy(files, temporary / "generator", (*GENERATOR_FILES, LABELS))
        copy(files, temporary, there)
        run.write_json("config.json", to_dict(config))
        run.write_json("env.json", made.env.stated())
        facts = stated | {"pulled": str(found.repo)}
        run.write_json("results.json", {"scores": [], "timings": timings, "facts": facts})
        if beside:
            add_sets(run, beside, report)
        with named(temporary, found.repo.repo):
            check_run(run, found)


def add_sets(run: Run, beside: Found, report: Report) -> None:
    """The sets of a dataset repo into a run, with their scores and seconds."""
    files = fetch_sets(beside, beside.ipcs, report)
    checked_sets(beside, files, beside.ipcs)
    copy(files, run.folder / "synthetic", files_of_sets(beside.ipcs))
    for made in beside.facts.sets.values():
        for phase, seconds in made.timings.items():
            run.record_seconds(phase, seconds)
        for score in made.scores:
            run.record_score(score)


def run_config(found: Found) -> RunConfig:
    """The configuration that the repo's run had, checked: it names no place on a disk and nothing of an absurd size.

    Its dataset is the one that the facts name as the source, at the commit that was read.
    """
    made = found.facts.sets[found.ipcs[-1]]
    try:
        config = from_dict(RunConfig, as_begun(made.config))
        check_config(config)
        from_dict(sources.DataOptions, config.data, "data.")
    except DDToolError as error:
        message = f"The configuration in {FACTS} of '{found.repo.repo}' is refused: {error.message}"
        raise HubError(message, DAMAGED) from error
    assert found.facts.source is not None
    assert found.facts.shape is not None
    fault = config_fault(config)
    if not cuts(config.factor, found.facts.shape):
        fault = f"its images cannot be cut {config.factor} x {config.factor}"
    if fault:
        raise found.refused(FACTS, fault)
    return of_source(config, found.facts.source)


def config_fault(config: RunConfig) -> str:
    """What a run from the Hub may not have; empty when it has nothing of it."""
    if not has_generator(config.method):
        return f"its method '{config.method:.40}' adapts no generator"
    for name, value in (("dataset", config.dataset), ("generator", config.generator)):
        if not (parse(value) or PLAIN.fullmatch(value)):
            return f"its {name} '{value:.60}' is a path"
    declared = most_from_hub(RunConfig)
    for name, size in sizes(to_dict(config)):
        most = declared.get(name, MOST_ELSE)
        if not 0 <= size <= most:
            return f"{name} is {size:,}, of {most:,} at most"
    return "" if config.ipc and min(config.ipc) >= 1 else "its run made no set"


def sizes(values: Mapping[str, object], where: str = "") -> Iterator[tuple[str, int]]:
    """(a.b, value) of every whole number in a configuration, those in lists too."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from sizes(value, f"{where}{key}.")
        yield from ((where + key, n) for n in (value if isinstance(value, list) else [value]) if type(n) is int)


def of_source(config: RunConfig, source: Source) -> RunConfig:
    """The configuration with the dataset that a (checked) source names; its options say how that one is read."""
    if source.kind != "hub":
        return replace(config, dataset=source.name)
    at = {"revision": CONVERTED if source.converted else source.revision}
    return replace(config, dataset=source.name, data=config.data | at)


def check_run(run: Run, found: Found) -> None:
    """Everything that `generate` will use of a pulled run, looked at once."""
    run.load_generator()
    head = run.load_label_head()
    check_labels(head, run.folder)
    facts, names, shape = found.facts, head.class_names, head.shape
    fault = ""
    try:
        source = Source.of(head.source)
    except ValueError as error:
        raise found.refused(LABELS, str(error)) from error
    if (names, shape) != (facts.class_names, facts.shape):
        fault = f"its classes and image size are not those of {FACTS}"
    elif source != facts.source:
        fault = f"its source is not that of {FACTS}"
    elif not 1 <= (head.pool_ipc or 0) <= MOST_CLASSES:
        fault = f"its pool is of {head.pool_ipc} images per class"
    if fault:
        raise found.refused(LABELS, fault)
    if run.has(POOL):
        images, labels = run.load_pool(names)
        C = len(names)
        balanced = len(labels) % C == 0 and all(len(set(rows.tolist())) == C for rows in labels.split(C))
        if tuple(images.shape[1:]) != shape or not balanced or not labels_fit(labels, C):
            raise found.refused(POOL, "it is not image by image of every class")


# --------------------------------------------------------------------------------------------------- generators and sets


def bring_generator(found: Found, folder: Path, report: Report) -> None:
    """A generator folder, with what its repo says of its pre-training."""
    files = fetch(found.repo, GENERATOR_FILES, report)
    with staged_folder(folder, replacing=True) as temporary:
        copy(files, temporary, GENERATOR_FILES)
        write_json(temporary / FACTS, found.facts.stated())
        if isinstance(found.facts.pretraining, dict):
            write_json(temporary / PRETRAINING, found.facts.pretraining)
        with named(temporary, found.repo.repo):
            Generator.load(temporary)


def bring_sets(found: Found, folder: Path, report: Report) -> None:
    """ipcN/train.parquet and ipcN/exact.safetensors of every set."""
    files = fetch_sets(found, found.ipcs, report)
    checked_sets(found, files, found.ipcs)
    with staged_folder(folder, replacing=True) as temporary:
        copy(files, temporary, files_of_sets(found.ipcs))
        write_json(temporary / FACTS, found.facts.stated())


def copy(source: Path, target: Path, names: Iterable[str]) -> None:
    """Files by name from one folder into another."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)
