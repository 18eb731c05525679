"""A run or a generator on the Hub: which files its repos hold, the facts and cards that go with them, and the push.

A run makes two repos: the model repo (the adapted generator, with what `ddtool generate` needs) and the dataset repo (one
configuration for every IPC). A run of another method than MGDD has no generator, and makes the dataset repo alone. Each push
of a repo is one commit on what was seen there; what is the same is not sent again.
The run directory is only read.
"""

import contextlib
import json
import math
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from ddtool import methods
from ddtool.config import MGDD_SETTINGS, PRESETS, RunConfig, from_dict, merged, to_dict
from ddtool.data.images import SyntheticSet
from ddtool.errors import HubError, RunError, UsageError
from ddtool.events import Note, Report, silent
from ddtool.hub import client as hub
from ddtool.hub.client import DATASET, MODEL, Pinned, Pushed
from ddtool.models.generator import WEIGHTS_FILE, Generator
from ddtool.pipeline import adapt as pipeline
from ddtool.pipeline.adapt import MGDD
from ddtool.runs.run import Run, read_tensors, write_tensors
from ddtool.runtime.engine import PRECISIONS
from ddtool.sharing import cards
from ddtool.sharing import pull as receive
from ddtool.sharing.pull import ADAPTED, EXACT, FACTS, FORMAT, LABELS, LIMITS, META, PARQUET, POOL, SETS
from ddtool.sources.names import ALIASES
from ddtool.version import __version__

CARD, PREVIEW = "README.md", "preview.png"
ENVIRONMENT = ("ddtool", "python", "torch", "platform", "device", "precision", "threads")
"""What of env.json is published."""

SHORT = {repo: alias for alias, repo in ALIASES.items()}
"""The one name under which a dataset that has an alias is published, however it was typed."""

ONLY = {MODEL: "generator", DATASET: "dataset"}
"""What --only calls a repo."""

Files = dict[str, bytes | Path]


@dataclass(frozen=True)
class Options:
    """How a push is made."""

    private: bool = False
    """Make new repos private; one that exists must be private already."""
    branch: str | None = None
    """The branch to push to, made if it is not there; None: main."""
    create_pr: bool = False
    """Propose the commit as a pull request."""
    pool: bool = True
    """Push the initial samples (real images of the target) with the generator, and show them in the picture."""
    only: str | None = None
    """'generator' or 'dataset': that repo alone."""
    dataset_repo: str | None = None
    """Default: the model repo's name and -ddtool."""
    force: bool = False
    """Replace another generator, another set of the same IPC, sets of another source, and files that are not of ddtool."""

    def __post_init__(self) -> None:
        if self.only not in (None, "generator", "dataset"):
            raise UsageError(f"--only takes generator or dataset, got '{self.only}'.", "Leave it out to push both.")
        if self.branch and self.create_pr:
            raise UsageError("--revision and --create-pr exclude each other.", "A pull request is made on main.")
        if self.branch is not None and not hub.is_branch(self.branch):
            hint = "Letters, digits and . _ - / make one, for example v2; no commit, no refs/…."
            raise UsageError(f"'{self.branch}' is not a name for a branch.", hint)

    def by_method(self, method: str) -> "Options":
        """The same for a run of that method: without a generator, there is the dataset repo alone. Raises UsageError."""
        if method == MGDD:
            return self
        if self.only == ONLY[MODEL]:
            raise UsageError(
                f"A run of the method '{method}' has no generator.", "Leave --only out: its sets are pushed."
            )
        return replace(self, only=ONLY[DATASET])


@dataclass
class Parcel:
    """What one repo will hold, beside what it holds already."""

    kind: str
    repo: str
    base: Pinned | None
    files: Files
    facts: dict[str, Any]
    title: str
    removed: list[str] = field(default_factory=list)
    private: bool = False
    """Whether a new repo is made private."""

    def states(self) -> dict[str, str]:
        """new, changed or same, for each file; removed for one that goes."""
        there = hub.listing(self.base, self.files) if self.base else {}
        changed = hub.changes(self.base, self.files)
        states = {name: "new" if name not in there else "same" for name in self.files}
        states |= {name: "changed" for name in changed if name in there}
        return states | dict.fromkeys(hub.listing(self.base, self.removed) if self.base else (), "removed")


# --------------------------------------------------------------------------------------------------------------- push


def push(parcels: list[Parcel], options: Options, again: str, report: Report = silent) -> list[Pushed]:
    """Push the repos one after the other; a failure after the first says what is there. `again`: the command, for hints.

    The dataset comes before the model, whose card and `ddtool evaluate` lead to it: a visitor finds nothing that points
    into the void.
    """
    done: list[Pushed] = []
    for parcel in parcels:
        try:
            made = hub.commit(
                parcel.kind, parcel.repo, parcel.base, parcel.files, parcel.removed, message=parcel.title,
                private=parcel.private, branch=options.branch, create_pr=options.create_pr, report=report,
            )  # fmt: skip
        except HubError as error:
            state = f" {done[0].url} is complete; the {parcel.kind} repo is not pushed." if done else ""
            hint = f"{error.hint} A push repeats safely: `{again}`".lstrip()
            raise type(error)(error.message + state, hint) from error
        done.append(made)
        what = f"{len(made.changed)} files in one commit" if made.changed else "nothing has changed"
        report(Note(f"{made.pull_request or made.url}: {what}."))
    return done


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
    method = run.config().method
    options = options.by_method(method)
    names = repos(repo, options)
    siblings = repos(repo, replace(options, only=None)) if method == MGDD else names
    heads = {k: base_of(k, name, options) if k in names else hub.find(k, name) for k, name in siblings.items()}
    linked = {kind: name for kind, name in siblings.items() if kind in names or heads[kind]}
    pooled = options.pool and run.has(POOL)
    known = run_facts(run) | {"pool": real_images(run) if options.pool else 0}
    head = heads.get(MODEL)
    if not pooled and MODEL in names and head and hub.listing(head, [POOL]):
        said = "keeps the real images that were pushed before: only a repo that is deleted and made anew is without."
        report(Note(f"The history of {hub.web(MODEL, head.repo)} {said}"))
    make = {MODEL: model_parcel, DATASET: dataset_parcel}
    private = options.private or any(head.private for head in heads.values() if head)
    return [replace(make[k](run, linked, heads[k], known, options, temporary), private=private) for k in names]


def of_generator(name: str, repo: str, options: Options, report: Report) -> Parcel:
    """The repo of a meta generator: bundled, or a folder."""
    if options.only or options.dataset_repo or not options.pool:
        raise UsageError(
            "A meta generator has one repo and no pool.", "Leave out --only, --dataset-repo and --no-pool."
        )
    name = hub.pinned_generator(name)
    folder = hub.generator_folder(name, report)
    Generator.load(folder)
    repo = repo_name(repo)
    base = base_of(MODEL, repo, options)
    facts = {
        "format": FORMAT,
        "kind": META,
        "ddtool": __version__,
        "repo": repo,
        "generator": public_generator(name),
        "parameters": parameters(folder / WEIGHTS_FILE),
        "pretraining": pretraining(folder),
        "sets": {},
    }
    files: Files = {file: folder / file for file in hub.GENERATOR_FILES}
    there = old_facts(base, files, options)
    check_same(base, {WEIGHTS_FILE: folder / WEIGHTS_FILE}, there, "another generator", options)
    removed = [LABELS, POOL, PREVIEW] if there and there["kind"] == ADAPTED else []
    return sealed(Parcel(MODEL, repo, base, files, facts, "Meta generator, by ddtool", removed, options.private))


def options_for(run: str | Path | Run | None, options: Options) -> Options:
    """The options as they are for that run (None: a meta generator); RunError when there is none, UsageError as above."""
    if run is None:
        return options
    return options.by_method((run if isinstance(run, Run) else Run.open(Path(run))).config().method)


def check_target(repo: str, options: Options, generator: str | None = None) -> None:
    """HubError, before any long work, unless the login may write to the repos and nothing of others is in the way."""
    names = repos(repo, options, generator)
    for namespace in sorted({name.partition("/")[0] for name in names.values()}):
        hub.check_may_write(namespace, anywhere=options.create_pr)
    for kind, name in names.items():
        old_facts(base_of(kind, name, options), (WEIGHTS_FILE, PREVIEW), options)


def repos(repo: str, options: Options, generator: str | None = None) -> dict[str, str]:
    """The repos of a push by kind, in the order in which they are pushed."""
    if generator is not None:
        return {MODEL: repo_name(repo)}
    names = {DATASET: repo_name(options.dataset_repo or f"{repo_name(repo)}-ddtool"), MODEL: repo_name(repo)}
    return {kind: name for kind, name in names.items() if options.only in (None, ONLY[kind])}


def repo_name(name: str) -> str:
    """A repo to push to; UsageError for anything else."""
    ref = hub.parse(name)
    if ref is None or ref.repo != name:
        hint = "It is NAMESPACE/NAME, your user name or organisation first; a branch goes with --revision."
        raise UsageError(f"'{name}' is not a repo to push to.", hint)
    return name


def base_of(kind: str, repo: str, options: Options) -> Pinned | None:
    """The head that a push starts from, None for a new repo; HubError when --private was asked for and it is public."""
    base = hub.find(kind, repo, options.branch)
    if base and options.private and not base.private:
        page = hub.web(kind, repo)
        raise HubError(f"{page} is public, and stays so.", "Make it private in its settings, or leave --private out.")
    return base


# ------------------------------------------------------------------------------------------------------------- repos


def model_parcel(
    run: Run, names: dict[str, str], base: Pinned | None, known: dict[str, Any], options: Options, temporary: Path
) -> Parcel:
    """The adapted generator with its labels and pool."""
    files: Files = {file: run.folder / "generator" / file for file in hub.GENERATOR_FILES}
    files[LABELS] = without_paths(run.folder / "generator" / LABELS, temporary / LABELS)
    there = old_facts(base, files, options)
    same = holds_generator(base, files)
    if not same:
        heart = {name: files[name] for name in (WEIGHTS_FILE, LABELS)}
        check_same(base, heart, there, "another generator", options, ", or push the sets alone: --only dataset")
    if known["pool"]:
        files[POOL] = run.folder / POOL
    old = there or {}
    files |= picture(run, base, old, known, temporary)
    recorded = old.get("dataset_repo") if options.only and not options.dataset_repo else None
    facts = known | {
        "kind": ADAPTED,
        "repo": names[MODEL],
        "model_repo": None,
        "dataset_repo": recorded or names.get(DATASET, old.get("dataset_repo")),
        "sets": (old.get("sets", {}) if same else {}) | known["sets"],
    }
    title = f"Generator adapted to {cards.source_name(facts)}, by ddtool"
    return sealed(Parcel(MODEL, names[MODEL], base, files, facts, title, [] if known["pool"] else [POOL]))


def dataset_parcel(
    run: Run, names: dict[str, str], base: Pinned | None, known: dict[str, Any], options: Options, temporary: Path
) -> Parcel:
    """The synthetic sets, beside those of other IPCs that the repo has; `force` replaces those of another source."""
    files: Files = {}
    for n in run.ipcs():
        folder = run.set_path(n).parent
        files[f"ipc{n}/{PARQUET}"] = folder / PARQUET
        files[f"ipc{n}/{EXACT}"] = without_paths(folder / EXACT, temporary / f"ipc{n}-{EXACT}")
    there = old_facts(base, files, options)
    if there and (there["class_names"], there["shape"]) != (known["class_names"], known["shape"]):
        message = f"'{names[DATASET]}' holds sets of other classes or of images of another size."
        raise HubError(message, "Push to another repo: --dataset-repo NAMESPACE/OTHER-NAME.")
    for n in run.ipcs():
        name = f"ipc{n}/{EXACT}"
        check_same(base, {name: files[name]}, there, f"another set of ipc {n}", options)
    old, removed = there or {}, []
    kept = {n: made for n, made in old.get("sets", {}).items() if n not in known["sets"]}
    if kept and provenance(old) != provenance(known):
        if not options.force:
            same_method = of_method(old) == of_method(known)
            other = "other data, or of another revision of it" if same_method else "another method"
            message = f"{hub.web(DATASET, names[DATASET])} holds sets of {other}."
            hint = "Push to another repo: --dataset-repo NAMESPACE/OTHER-NAME; `ddtool push … --force` replaces all of them."
            raise HubError(message, hint)
        removed, kept = [f"ipc{n}/{file}" for n in kept for file in (PARQUET, EXACT)], {}
    files |= picture(run, base, old, known, temporary)
    facts = known | {
        "kind": SETS,
        "repo": names[DATASET],
        "model_repo": names.get(MODEL, old.get("model_repo") if "method" not in known else None),
        "dataset_repo": None,
        "sets": kept | known["sets"],
    }
    how = f"by {of_method(facts)}" if "method" in facts else "distilled"
    title = f"{cards.source_name(facts)}, {how}: IPC {', '.join(map(str, run.ipcs()))}, by ddtool"
    return sealed(Parcel(DATASET, names[DATASET], base, files, facts, title, removed))


def provenance(facts: Mapping[str, Any]) -> list[Any]:
    """Which data, at which state, facts are about, and the method."""
    source = facts["source"]
    return [source.get(key) for key in ("kind", "id", "config", "revision", "content_hash")] + [of_method(facts)]


def of_method(facts: Mapping[str, Any]) -> str:
    """The method that made the sets of a repo."""
    return str(facts.get("method", {}).get("name", MGDD))


def sealed(parcel: Parcel) -> Parcel:
    """With ddtool.json and the card that is made from it: the same facts give the same bytes."""
    text = json.dumps(parcel.facts, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    parcel.files[FACTS], parcel.files[CARD] = text.encode(), card(parcel.kind, json.loads(text))
    return parcel


def card(kind: str, facts: Mapping[str, Any]) -> bytes:
    """The README.md that goes with the facts of a repo of that kind."""
    return (cards.dataset_card if kind == DATASET else cards.model_card)(facts).encode()


def old_facts(base: Pinned | None, files: Iterable[str], options: Options) -> dict[str, Any] | None:
    """The facts of a repo that is pushed to again.

    HubError when it has files like ours and is not ours, or a card with words of others; `force` overwrites them.
    """
    if base is None:
        return None
    try:
        there = receive.facts_of(base)
    except HubError:
        if not options.force:
            raise
        return None
    ours = there is not None and there.get("ddtool") == __version__  # another version's cards look otherwise
    if there is not None and ours and not options.force:
        check_same(base, {CARD: card(base.kind, there)}, there, f"a {CARD} that was changed by hand", options)
    if there is None and not options.force and (theirs := like_ours(base, files)):
        page = hub.web(base.kind, base.repo)
        message = f"{page} was not made by ddtool and holds {', '.join(sorted(theirs)[:3])}."
        raise HubError(message, "Push to another name; `ddtool push … --force` replaces these files.")
    return there


def like_ours(base: Pinned, files: Iterable[str]) -> list[str]:
    """Files of others that a push would overwrite; a card that is all that a repo has was made with it."""
    there = hub.filenames(base) - {".gitattributes"}
    return sorted(there & {*files, CARD}) if there != {CARD} else []


def check_same(
    base: Pinned | None, files: Files, there: object, what: str, options: Options, otherwise: str = ""
) -> None:
    """HubError when the repo holds other content than `files` under their names, unless `force` replaces it."""
    if base is None or there is None or options.force:
        return
    if any(name in hub.listing(base, files) for name in hub.changes(base, files)):
        hint = (
            f"`ddtool push … --force` replaces it; the history keeps the old one. Or push to another name{otherwise}."
        )
        raise HubError(f"{hub.web(base.kind, base.repo)} holds {what}.", hint)


def holds_generator(base: Pinned | None, files: Files) -> bool:
    """Whether the repo has the weights and the label network of `files`, whatever is noted beside the tensors."""
    if base is None or hub.changes(base, {WEIGHTS_FILE: files[WEIGHTS_FILE]}):
        return False
    if not hub.changes(base, {LABELS: files[LABELS]}):
        return True
    if not hub.listing(base, [LABELS]):
        return False
    ours = read_tensors(Path(str(files[LABELS])))[0]
    try:
        theirs = read_tensors(hub.fetch(base, {LABELS: LIMITS[LABELS]}) / LABELS)[0]
    except RunError:
        return False
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def picture(run: Run, base: Pinned | None, old: Mapping[str, Any], known: Mapping[str, Any], temporary: Path) -> Files:
    """The run's preview; for a run without one that of the repo stays, or one is drawn. Without a pool: no real images."""
    if known["pool"] and run.has(PREVIEW):
        return {PREVIEW: run.folder / PREVIEW}
    if known["pool"] and base and old.get("pool") and hub.listing(base, [PREVIEW]):
        return {}
    pipeline.draw_preview(run, max(run.ipcs()), temporary / PREVIEW, real=bool(known["pool"]))
    return {PREVIEW: temporary / PREVIEW}


def without_paths(file: Path, rewritten: Path) -> Path:
    """The file as it is, or a copy whose description of the source names no place on this disk."""
    with safe_open(file, framework="pt") as opened:
        source = json.loads(opened.metadata()["ddtool"])["source"]
    if public_source(source) == source:
        return file
    tensors, info = read_tensors(file)
    write_tensors(rewritten, tensors, info | {"source": public_source(source)})
    return rewritten


# ------------------------------------------------------------------------------------------------------------- facts


def check_finished(run: Run, report: Report) -> None:
    """RunError unless a run has all that is pushed; sets that it was to have and has not are said aloud."""
    facts, generator = run.results()["facts"], run.has_generator() and run.has(f"generator/{LABELS}")
    made = generator if run.config().method == MGDD else facts.get("finished")
    ready = made and run.ipcs() and not run.has("checkpoints")
    resume, pulled = f"`ddtool adapt --resume {shlex.quote(str(run.folder))}`", facts.get("pulled")
    if not ready:
        if pulled:
            resume = f"`ddtool generate {shlex.quote(str(run.folder))} --ipc 10`"
        raise RunError(f"{run.folder} is not finished: nothing is pushed.", f"Make its sets first: {resume}.")
    if not pulled and (missing := sorted(set(run.config().ipc) - set(run.ipcs()))):
        report(Note(f"Not in {run.folder}, so not pushed: the set of ipc {', '.join(map(str, missing))} ({resume})."))


def run_facts(run: Run) -> dict[str, Any]:
    """What both repos of a run say: what it was made from, and of each set the command, settings, seconds and scores."""
    config, info = run.config(), target_of(run)
    source = public_source(info["source"])
    results, environment = run.results(), run.read_json("env.json")
    dataset = config.dataset if source["kind"] == "hub" else source["name"]
    public = replace(config, dataset=dataset, generator=public_generator(config.generator))
    resolved, method = to_dict(public), {}
    if config.method != MGDD:
        resolved["baseline"] = asdict(methods.settings_of(config.method, config.baseline))
        kind = methods.find(config.method)
        method = {"method": {"name": config.method, "title": kind.title, "learns": kind.learns}}
    published = {key: environment[key] for key in ENVIRONMENT if key in environment}
    if "platform" in published:  # older runs kept the kernel's release after a dash
        published["platform"] = str(published["platform"]).partition("-")[0]
    sets = {}
    for n in run.ipcs():
        made = run.load_set(n)
        timings = {k: v for k, v in results["timings"].items() if f"ipc{n}" in k.split() or "ipc" not in k}
        sets[str(n)] = {
            "command": command(public, made, published, local=source["kind"] == "local"),
            "stage": made.stage,
            "labels": made.label_method,
            "label_scale": made.label_scale,
            "images": len(made),
            "config": resolved,
            "env": published,
            "timings": timings,
            "facts": facts_of_set(results["facts"], n),
            "scores": [
                score | {"dataset": public_test_set(score["dataset"], config, source)}
                for score in results["scores"]
                if score["ipc"] == n
            ],
        } | ({"factor": made.factor} if made.factor > 1 else {})
    return {
        "format": FORMAT,
        "ddtool": __version__,
        "source": source,
        "class_names": info["class_names"],
        "shape": info["shape"],
        "generator": None if method else public.generator,
        "parameters": None if method else parameters(run.folder / "generator" / WEIGHTS_FILE),
        "sets": sets,
        "pretraining": None,
    } | method


def target_of(run: Run) -> dict[str, Any]:
    """What the run was made from: class names, shape and source; RunError when the run does not say."""
    if run.config().method == MGDD:
        return run.load_label_head()[2]
    made = run.load_set(run.ipcs()[0])
    return {"class_names": list(made.class_names), "shape": list(made.images.shape[1:]), "source": made.source}


def facts_of_set(facts: Mapping[str, Any], ipc: int) -> dict[str, Any]:
    """Of a run's facts those that are not said elsewhere and not of another set."""
    own = {k: v for k, v in facts.items() if k not in ("source", "pulled", "target", "spent", "finished")}
    own = {k: v for k, v in own.items() if not re.search(r" ipc\d+$", k) or k.endswith(f" ipc{ipc}")}
    spent = facts.get("spent", {}).get(f"ipc{ipc}")
    return own | ({"spent": spent} if spent else {})


def public_source(source: Mapping[str, Any]) -> dict[str, Any]:
    """Where data came from, without a place on this disk: of a folder its name, of a Hub dataset its alias or id."""
    public = {key: value for key, value in source.items() if key != "path"}
    if source.get("kind") == "hub":
        return public | {"name": SHORT.get(source["id"], source["id"])}
    return public | {"name": last_part(str(source.get("path") or source.get("name")))}


def public_generator(name: str) -> str:
    """A generator as others may see it: a repo only at its commit, as every run records it; of a path the end."""
    return name if hub.is_pinned(name) else last_part(name)


def public_test_set(name: str, config: RunConfig, source: Mapping[str, Any]) -> str:
    """The dataset of a score as others may see it: the run's own, or one that is known on the Hub; of others the end."""
    bare = name.removeprefix("hf://datasets/").partition("@")[0]
    if name == config.dataset or (source["kind"] == "hub" and ALIASES.get(bare, bare) == source["id"]):
        return str(source["name"])
    if ALIASES.get(bare, bare) in SHORT:
        return SHORT[ALIASES.get(bare, bare)]
    end = last_part(name)
    return f"{end} (other data)" if end in ALIASES else end


def last_part(path: str) -> str:
    """The last component of a path, by its text alone: what is on this disk decides nothing that is published."""
    return re.sub(r"[^\w .-]", "-", Path(path).name).strip(". ") or "data"


def parameters(weights: Path) -> int:
    """How many numbers a safetensors file holds."""
    with safe_open(weights, framework="pt") as file:
        shapes = [file.get_slice(name).get_shape() for name in list(file.keys())]
    return sum(math.prod(shape) for shape in shapes)


def real_images(run: Run) -> int:
    """The real images that go with a run's sets: its pool, or what a method that learns began with."""
    from pyarrow import parquet

    if run.has(POOL):
        return parquet.read_metadata(run.folder / POOL).num_rows
    method = run.config().method
    return len(run.load_set(max(run.ipcs()))) if method != MGDD and methods.find(method).learns else 0


def pretraining(folder: Path) -> dict[str, Any] | None:
    """The facts beside a meta generator; HubError when the file is not JSON."""
    path = folder / hub.PRETRAINING
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HubError(f"{path} is not readable JSON: {error}.", "Correct it, or remove it.") from error


def command(config: RunConfig, made: SyntheticSet, env: Mapping[str, Any], local: bool) -> str:
    """The command that makes a set: every setting that is not of the nearer preset, the precision, a CPU's threads."""
    by_preset = {name: list(differences(to_dict(config), name)) for name in PRESETS}
    name = min(by_preset, key=lambda name: len(by_preset[name]))
    words = ["ddtool adapt", shlex.quote(f"./{config.dataset}" if local else config.dataset)]
    words += [f"--ipc {n}" for n in config.ipc] + [f"--seed {config.seed} --preset {name}"]
    if config.method != MGDD:
        words += [f"--method {shlex.quote(config.method)}"]
    elif config.generator != "bundled":
        words += ["--generator " + shlex.quote(config.generator)]
    words += [f"--seconds {config.seconds:.12g}"] if config.seconds is not None else []
    unused = MGDD_SETTINGS if config.method != MGDD else ()  # a run may have them, its command would be refused
    given = [(key, value) for key, value in by_preset[name] if key.partition(".")[0] not in unused]
    words += [f"--set {shlex.quote(f'{key}={json.dumps(value)}')}" for key, value in given]
    precision = [f"--precision {env['precision']}"] if env.get("precision") in PRECISIONS else []
    words += precision + ([f"--threads {env['threads']}"] if type(env.get("threads")) is int else [])
    if made.stage == "generated" and config.refine.steps > 0:
        words += [f"--out runs/new && ddtool generate runs/new --ipc {made.ipc}", *precision]
        words += ["--labels analytical"] if made.label_method == "analytical" and config.fit.networks else []
    return " ".join(words)


def differences(config: Mapping[str, Any], preset: str) -> Iterator[tuple[str, Any]]:
    """(a.b, value) of every setting that differs from a preset's, but for those with an option of their own."""
    usual = to_dict(from_dict(RunConfig, merged({}, PRESETS[preset])))
    for key, value in config.items():
        if key in ("dataset", "ipc", "seed", "generator", "method", "seconds"):
            continue
        if isinstance(value, dict):
            inner = usual[key] if isinstance(usual[key], dict) else {}
            yield from ((f"{key}.{k}", v) for k, v in value.items() if inner.get(k) != v)
        elif value != usual[key]:
            yield key, value


def again(run: str | Path | Run | None, generator: str | None, repo: str, options: Options) -> str:
    """The push command with the same options, for hints."""
    what = shlex.quote(str(run.folder if isinstance(run, Run) else run))
    flags = {
        "--generator": generator, "--private": options.private, "--create-pr": options.create_pr,
        "--no-pool": not options.pool, "--force": options.force, "--revision": options.branch, "--only": options.only,
        "--dataset-repo": options.dataset_repo,
    }  # fmt: skip
    words = [f"{flag} {shlex.quote(v)}" if isinstance(v, str) else flag for flag, v in flags.items() if v]
    return " ".join(["ddtool push", *([what] if generator is None else []), repo, *words])
