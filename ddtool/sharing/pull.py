"""What a Hub repo of ddtool holds, read with suspicion: a generator, a run, or synthetic sets.

Every name, size and value in a repo is somebody else's. Only files that ddtool itself writes are asked for, and each is
checked before it is used: sizes and headers first, values before they reach a run.
"""

import contextlib
import json
import math
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from ddtool.config import RunConfig, from_dict, to_dict
from ddtool.data.images import SyntheticSet
from ddtool.errors import DDToolError, HubError, NotOnHubError, RunError, UsageError
from ddtool.evaluation.measure import Score
from ddtool.events import Note, Report, silent
from ddtool.hub import client as hub
from ddtool.hub.client import DATASET, FACTS, MODEL, MOST_FACTS, Pinned
from ddtool.models.generator import Generator
from ddtool.pipeline import adapt as pipeline
from ddtool.runs.run import (
    STAGES,
    Run,
    check_strangers,
    is_run,
    labels_fit,
    read_parquet,
    read_set,
    staged_folder,
    write_json,
)
from ddtool.sources import load as sources
from ddtool.sources.names import ALIASES, CONVERTED

FORMAT = 1
ADAPTED, META, SETS = "adapted-generator", "meta-generator", "synthetic-dataset"
KINDS = {MODEL: (ADAPTED, META), DATASET: (SETS,)}
"""What a repo of each kind may hold."""

LABELS, POOL, EXACT, PARQUET = "labels.safetensors", "pool/train.parquet", "exact.safetensors", "train.parquet"
LIMITS = {FACTS: MOST_FACTS, LABELS: 2**30, POOL: 2**30, EXACT: 2**32, PARQUET: 2**32}
"""The most bytes that a file may have."""

MOST_OF_SETS = 2**32
"""The most bytes that all files of one request for sets may have."""

WIDEST, MOST_CLASSES, MOST_IPCS, MOST_DIGITS = 4096, 100_000, 1000, 20
"""Bounds on what a description may hold: pixels a side, classes, sets, and digits of a number."""

MOST = {"features.width": 4096, "labels.width": 4096, "fit.networks": 1024, "fit.real_batch": 2**14}
MOST_ELSE = 10**7
"""The largest values of settings that a run from the Hub may have."""

_IPC = re.compile(r"[1-9][0-9]{0,5}")
_METHOD = re.compile("[a-z][a-z0-9-]{0,30}")
_PLAIN = re.compile(r"[\w-][\w .-]{0,199}")
_DATASET = re.compile(r"(?:hf://)?datasets/[^/]+/.*", re.DOTALL)
_SOURCE = {
    "kind", "name", "id", "revision", "content_hash", "config", "converted", "train_split", "test_split",
    "image_column", "label_column", "resolution", "licence", "no_splits", "class_level", "multi_label", "skip_broken", "background",
    "max_megapixels",
}  # fmt: skip
HINT = "The repo was damaged, or not made by `ddtool push`. Take another repo or revision."


class NotOursError(HubError):
    """The repo is there, and not of ddtool."""


@dataclass(frozen=True)
class Found:
    """A repo of ddtool at one commit, with the facts that it states (checked)."""

    repo: Pinned
    facts: dict[str, Any]

    @property
    def kind(self) -> str:
        return self.facts["kind"]

    @property
    def method(self) -> str:
        """The method that made the sets."""
        return str(self.facts.get("method", {}).get("name", pipeline.MGDD))

    @property
    def ipcs(self) -> list[int]:
        return sorted(map(int, self.facts["sets"]))


# -------------------------------------------------------------------------------------------------------------- facts


def find(name: str, first: str = MODEL) -> Found:
    """The repo that a name means: of kind `first` if there is one, else of the other kind (datasets/… names one).

    Raises NotOnHubError when there is neither, HubError when it is not of ddtool or its facts are refused.
    """
    ref = hub.parse(name)
    if ref is None:
        raise HubError(f"'{name}' is not the name of a Hub repo.", "It is namespace/name, or namespace/name@revision.")
    if ref.repo.endswith("-ddtool"):
        first = DATASET
    kinds = [DATASET] if _DATASET.fullmatch(name) else sorted((MODEL, DATASET), key=lambda kind: kind != first)
    errors: list[HubError] = []
    for kind in kinds:
        try:
            repo = hub.resolve(kind, ref)
            return Found(repo, facts_of(repo) or bare_facts(repo))
        except (NotOnHubError, NotOursError) as error:
            errors.append(error)
    raise min(errors, key=lambda error: isinstance(error, NotOnHubError))  # one that is there says more


def facts_of(repo: Pinned) -> dict[str, Any] | None:
    """The facts in a repo's ddtool.json, checked; None when it has none."""
    if FACTS not in hub.listing(repo, [FACTS]):
        return None
    path = hub.fetch(repo, {FACTS: LIMITS[FACTS]}) / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"), parse_int=whole)
        json.dumps(facts, ensure_ascii=False).encode()  # half a character could not be written again
    except (OSError, ValueError, RecursionError) as error:
        raise HubError(f"{FACTS} of '{repo.repo}' is not readable ({type(error).__name__}).", HINT) from error
    if fault := facts_fault(facts, repo.kind):
        raise HubError(f"{FACTS} of '{repo.repo}' is refused: {fault}.", HINT)
    return facts


def whole(digits: str) -> int:
    """A whole number in JSON; ValueError for one that nothing is counted by."""
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"a number of {len(digits)} digits")
    return int(digits)


def bare_facts(repo: Pinned) -> dict[str, Any]:
    """Of a repo that holds a generator and says nothing more; HubError for any other one."""
    if repo.kind != MODEL or hub.GENERATOR_FILES.keys() - hub.listing(repo, hub.GENERATOR_FILES).keys():
        raise NotOursError(
            f"The {repo.kind} '{repo.repo}' is not a repo of ddtool: it has no {FACTS}.",
            "A generator's repo holds config.json and model.safetensors; a pickle (pytorch_model.bin) is never read.",
        )
    return {"format": FORMAT, "kind": META, "repo": repo.repo, "sets": {}, "pretraining": None}


def facts_fault(facts: Any, repo_kind: str) -> str:
    """What is wrong with the facts of a repo; empty when nothing that ddtool uses is."""
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        return f"it is not of format {FORMAT}"
    if facts.get("kind") not in KINDS[repo_kind]:
        return f"a {repo_kind} repo does not hold '{facts.get('kind')!s:.40}'"
    sets = facts.get("sets")
    if not isinstance(sets, dict) or len(sets) > MOST_IPCS or not all(_IPC.fullmatch(key) for key in sets):
        return "its sets are not named by their images per class"
    for ipc, made in sets.items():
        parts = {"config": dict, "env": dict, "timings": dict, "facts": dict, "scores": list}
        if not isinstance(made, dict) or not all(isinstance(made.get(k), t) for k, t in parts.items()):
            return f"its set {ipc} is not described as ddtool does"
    method = facts.get("method", {"name": pipeline.MGDD})
    if not isinstance(method, dict) or not _METHOD.fullmatch(str(method.get("name"))):
        return "its method is not named as ddtool does"
    for key in ("model_repo", "dataset_repo"):
        if facts.get(key) is not None and hub.parse(str(facts[key])) != hub.Ref(facts[key]):
            return f"'{key}' is not a repo"
    if facts["kind"] == META:
        return "a meta generator has no sets" if sets else source_fault(facts["source"]) if facts.get("source") else ""
    if not sets:
        return "it names no set"
    names = facts.get("class_names")
    if not isinstance(names, list) or not 1 <= len(names) <= MOST_CLASSES or not all(isinstance(n, str) for n in names):
        return "its class names are no list of names"
    shape = facts.get("shape")
    if not isinstance(shape, list) or len(shape) != 3 or not all(type(n) is int and 1 <= n <= WIDEST for n in shape):
        return f"images of shape {shape!r:.60} are none"
    return source_fault(facts.get("source"))


def source_fault(source: Any) -> str:
    """What is wrong with the description of where data came from: it may name a Hub dataset, but no place on a disk."""
    if not isinstance(source, dict) or source.keys() - _SOURCE:
        return "its source is described by other things than ddtool does"
    if not all(value is None or type(value) in (str, int, float, bool) for value in source.values()):
        return "its source has values of other types"
    kind, name = source.get("kind"), str(source.get("name"))
    if kind == "hub":
        ref = hub.parse(str(source.get("id")))
        named = source.get("id") in (name, ALIASES.get(name))
        if ref is None or ref.revision or not named or not re.fullmatch("[0-9a-f]{40}", str(source.get("revision"))):
            return "its source names no dataset on the Hub"
        return ""
    if kind not in ("local", "sample") or not _PLAIN.fullmatch(name) or (kind == "sample" and name != "sample"):
        return f"its source '{name:.60}' is a path"
    return ""


def scores_of(made: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The scores that a repo states of a set, those that are written as ours are."""
    wanted = {field.name: (int, float) if field.type in (int, float) else (str,) for field in fields(Score)}
    return [
        {name: score[name] for name in wanted}
        for score in made["scores"]
        if isinstance(score, dict) and all(type(score.get(name)) in kinds for name, kinds in wanted.items())
        if all(isinstance(score[name], str) or math.isfinite(score[name]) for name in wanted)
    ]


def run_config(found: Found) -> RunConfig:
    """The configuration that the repo's run had, checked: it names no place on a disk and nothing of an absurd size.

    Its dataset is the one that the facts name as the source, at the commit that was read.
    """
    made = found.facts["sets"][str(found.ipcs[-1])]
    try:
        config = from_dict(RunConfig, made["config"])
        pipeline.check_config(config)
        from_dict(sources.DataOptions, config.data, "data.")
    except DDToolError as error:
        raise HubError(
            f"The configuration in {FACTS} of '{found.repo.repo}' is refused: {error.message}", HINT
        ) from error
    if config.method != pipeline.MGDD:
        message = f"{FACTS} of '{found.repo.repo}' is refused: its method '{config.method:.40}' adapts no generator."
        raise HubError(message, HINT)
    for name, value in (("dataset", config.dataset), ("generator", config.generator)):
        if not (hub.parse(value) or _PLAIN.fullmatch(value)):
            raise HubError(f"{FACTS} of '{found.repo.repo}' is refused: its {name} '{value:.60}' is a path.", HINT)
    for name, size in sizes(to_dict(config)):
        most = MOST.get(name, MOST_ELSE)
        if not 0 <= size <= most and name != "seed":
            raise HubError(f"{FACTS} of '{found.repo.repo}' is refused: {name} is {size:,}, of {most:,} at most.", HINT)
    if not config.ipc or min(config.ipc) < 1:
        raise HubError(f"{FACTS} of '{found.repo.repo}' is refused: its run made no set.", HINT)
    return of_source(config, found.facts["source"])


def sizes(values: Mapping[str, Any], where: str = "") -> Iterator[tuple[str, int]]:
    """(a.b, value) of every whole number in a configuration, those in lists too."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from sizes(value, f"{where}{key}.")
        yield from ((where + key, n) for n in (value if isinstance(value, list) else [value]) if type(n) is int)


def of_source(config: RunConfig, source: Mapping[str, Any]) -> RunConfig:
    """The configuration with the dataset that a (checked) source names; its options say how that one is read."""
    if source["kind"] != "hub":
        return replace(config, dataset=source["name"])
    at = {"revision": CONVERTED if source.get("converted") else source["revision"]}
    return replace(config, dataset=source["name"], data=config.data | at)


# --------------------------------------------------------------------------------------------------------------- sets


def load_sets(found: Found, ipc: int | None = None, report: Report = silent) -> list[SyntheticSet]:
    """The sets of a dataset repo (all, or that of one IPC), exact tensors; HubError or RunError for what is refused."""
    if ipc is not None and ipc not in found.ipcs:
        there = ", ".join(map(str, found.ipcs))
        raise RunError(f"'{found.repo.repo}' has no synthetic set of ipc {ipc}.", f"Sets there: {there}.")
    ipcs = found.ipcs if ipc is None else [ipc]
    folder = fetch_sets(found, [f"ipc{n}/{EXACT}" for n in ipcs], report)
    return [exact_set(found, folder, n) for n in ipcs]


def fetch_sets(found: Found, names: list[str], report: Report) -> Path:
    """The folder with these files of sets; HubError, before a download, when they are too much together."""
    total = sum(file.size for file in hub.listing(found.repo, names).values())
    if total > MOST_OF_SETS:
        message = f"The sets of '{found.repo.repo}' are refused: {total:,} bytes are more than {MOST_OF_SETS:,}."
        raise HubError(message, "Nothing was downloaded. `ddtool evaluate REPO --ipc N` takes one of the sets.")
    return hub.fetch(found.repo, {name: LIMITS[name.split("/")[1]] for name in names}, report)


def exact_set(found: Found, folder: Path, ipc: int) -> SyntheticSet:
    """One set of a repo whose files are in `folder`; HubError or RunError when it is not what the facts say."""
    name = f"ipc{ipc}/{EXACT}"
    made = read_set(folder / name)
    fault = source_fault(made.source) or ("" if made.stage in STAGES else f"its stage is '{made.stage:.40}'")
    if not fault and (made.ipc, list(made.class_names)) != (ipc, found.facts["class_names"]):
        fault = f"it has {made.ipc} images per class of {made.num_classes} classes, and {FACTS} says otherwise"
    if not fault and made.method != found.method:
        fault = f"it is of the method '{made.method:.40}', and {FACTS} says otherwise"
    if not fault and made.images.nbytes * made.factor**2 > MOST_OF_SETS:
        fault = f"its images hold {made.factor} x {made.factor} images each, which is too much"
    if not fault and list(made.images.shape[1:]) != found.facts["shape"]:
        fault = f"its images are of another size than {FACTS} says"
    if fault:
        raise HubError(f"{name} of '{found.repo.repo}' is refused: {fault}.", HINT)
    return made


def check_table(found: Found, folder: Path, exact: SyntheticSet) -> None:
    """HubError or RunError unless a set's parquet file holds the same images and classes as its exact tensors."""
    name = f"ipc{exact.ipc}/{PARQUET}"
    images, labels = read_parquet(folder / name, exact.num_classes)
    if not torch.equal(labels, exact.hard) or not torch.equal(images, exact.pixels()):
        raise HubError(f"{name} of '{found.repo.repo}' is refused: it is not the set of {EXACT}.", HINT)


def sets_of(name: str, ipc: int | None = None, stage: str | None = None, report: Report = silent) -> list[SyntheticSet]:
    """The sets that a repo's name means: of a dataset repo, or of the one that a generator's repo names as its own."""
    found = find(name, DATASET)
    if found.repo.kind == MODEL:
        other = found.facts.get("dataset_repo")
        if not other:
            raise HubError(f"'{name}' holds a generator and no sets.", f"Make one: `ddtool generate {name} --ipc 10`.")
        report(Note(f"The sets of {name} are in the dataset repo {other}."))
        found = find(other, DATASET)
    if found.kind != SETS:
        raise HubError(f"'{found.repo.repo}' holds no synthetic sets.", HINT)
    sets = load_sets(found, ipc, report)
    if other_stages := {made.stage for made in sets} - {stage or made.stage for made in sets}:
        hint = "Earlier stages are not pushed; leave --stage out."
        raise UsageError(f"The sets of '{found.repo.repo}' are {', '.join(sorted(other_stages))}.", hint)
    return sets


def load_set(name: str, ipc: int | None = None) -> SyntheticSet:
    """One set of a dataset repo; `ipc` may be left out when there is only one."""
    found = sets_of(name, ipc)
    if len(found) != 1:
        there = ", ".join(str(made.ipc) for made in found)
        raise UsageError(
            f"'{name}' holds several sets.", f"Name one of them, ipc={there.partition(',')[0]} say: {there}."
        )
    return found[0]


# --------------------------------------------------------------------------------------------------------------- pull


def pull(name: str, out: Path | None = None, force: bool = False, report: Report = silent) -> tuple[Found, Path]:
    """Bring what a repo holds into a folder: a run, a generator or synthetic sets. Returns the repo and the folder.

    out: default runs/NAME, generators/NAME or sets/NAME. Raises RunError when something is there that `force` does not
    replace, HubError for what is refused; then nothing is left behind.
    """
    found = find(name)
    folder = out or default_folder(found)
    check_place(folder, force)
    bring = {ADAPTED: bring_run, META: bring_generator, SETS: bring_sets}[found.kind]
    bring(found, folder, report)
    return found, folder


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
        other = found.facts.get("model_repo")
        hint = f"Its generator is {other}." if other else "Adapt it first: `ddtool adapt DATASET --generator REPO`."
        if found.method != pipeline.MGDD:
            hint = f"A set of another size is another run: `ddtool adapt DATASET --method {found.method} --ipc N`."
        raise HubError(f"'{found.repo.repo}' holds no adapted generator ({found.kind}).", hint)
    folder = default_folder(found)
    if not is_run(folder):
        check_place(folder, force=False)
        bring_run(found, folder, report)
        report(Note(f"Pulled {found.repo} to {folder}."))
    elif not same_run(Run(folder), found):
        there = Run(folder).results()["facts"].get("pulled")
        raise RunError(
            f"{folder} is there already and is not {found.repo}" + (f", but {there}." if there else "."),
            f"Use it by its path, {folder}, or pull to another place: `ddtool pull {name} --out FOLDER`.",
        )
    return Run(folder)


def same_run(run: Run, found: Found) -> bool:
    """Whether a run was pulled from this repo, and has the generator, labels and pool that the repo has now."""
    if str(run.results()["facts"].get("pulled")).partition("@")[0] != found.repo.repo:
        return False
    files = {name: run.folder / "generator" / name for name in (*hub.GENERATOR_FILES, LABELS)}
    files |= {name: run.folder / name for name in hub.listing(found.repo, [POOL])}
    return all(file.is_file() for file in files.values()) and not hub.changes(found.repo, files)


def bring_run(found: Found, folder: Path, report: Report) -> None:
    """A run directory with generator, labels and pool, as the run that was pushed had them."""
    config = run_config(found)
    there = hub.listing(found.repo, [POOL])
    limits = {**hub.GENERATOR_FILES, LABELS: LIMITS[LABELS], **dict.fromkeys(there, LIMITS[POOL])}
    files = hub.fetch(found.repo, limits, report)
    made = found.facts["sets"][str(found.ipcs[-1])]
    numbers = {phase: s for phase, s in made["timings"].items() if type(s) in (int, float) and math.isfinite(s)}
    timings = {phase: s for phase, s in numbers.items() if "ipc" not in phase}
    stated = {name: value for name, value in made["facts"].items() if type(value) in (int, float, bool)}
    facts = stated | {"pulled": str(found.repo)}
    with staged_folder(folder, replacing=True) as temporary:
        run = Run(temporary)
        copy(files, temporary / "generator", (*hub.GENERATOR_FILES, LABELS))
        copy(files, temporary, there)
        run.write_json("config.json", to_dict(config))
        run.write_json("env.json", made["env"])
        run.write_json("results.json", {"scores": [], "timings": timings, "facts": facts})
        with named(temporary, found.repo.repo):
            check_run(run, found)


def check_run(run: Run, found: Found) -> None:
    """Everything that `generate` will use of a pulled run, looked at once."""
    run.load_generator()
    theta, W, info = run.load_label_head()
    pipeline.check_labels(theta, W, info, run.folder)
    fault = source_fault(info["source"])
    if not fault and (info["class_names"], info["shape"]) != (found.facts["class_names"], found.facts["shape"]):
        fault = f"its classes and image size are not those of {FACTS}"
    if not fault and info["source"] != found.facts["source"]:
        fault = f"its source is not that of {FACTS}"
    if type(info.get("pool_ipc")) is not int or not 1 <= info["pool_ipc"] <= MOST_CLASSES:
        fault = f"its pool is of {info.get('pool_ipc')!r:.40} images per class"
    if fault:
        raise HubError(f"{LABELS} of '{found.repo.repo}' is refused: {fault}.", HINT)
    if run.has(POOL):
        images, labels = run.load_pool(tuple(info["class_names"]))
        C = len(info["class_names"])
        balanced = len(labels) % C == 0 and all(len(set(rows.tolist())) == C for rows in labels.split(C))
        if tuple(images.shape[1:]) != tuple(info["shape"]) or not balanced or not labels_fit(labels, C):
            raise HubError(f"{POOL} of '{found.repo.repo}' is refused: it is not image by image of every class.", HINT)


def bring_generator(found: Found, folder: Path, report: Report) -> None:
    """A generator folder, with what its repo says of its pre-training."""
    files = hub.fetch(found.repo, hub.GENERATOR_FILES, report)
    with staged_folder(folder, replacing=True) as temporary:
        copy(files, temporary, hub.GENERATOR_FILES)
        write_json(temporary / FACTS, found.facts)
        if isinstance(found.facts.get("pretraining"), dict):
            write_json(temporary / hub.PRETRAINING, found.facts["pretraining"])
        with named(temporary, found.repo.repo):
            Generator.load(temporary)


def bring_sets(found: Found, folder: Path, report: Report) -> None:
    """ipcN/train.parquet and ipcN/exact.safetensors of every set."""
    names = [f"ipc{n}/{file}" for n in found.ipcs for file in (EXACT, PARQUET)]
    files = fetch_sets(found, names, report)
    for n in found.ipcs:
        check_table(found, files, exact_set(found, files, n))
    with staged_folder(folder, replacing=True) as temporary:
        copy(files, temporary, names)
        write_json(temporary / FACTS, found.facts)


def copy(source: Path, target: Path, names: Iterable[str]) -> None:
    """Files by name from one folder into another."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


@contextlib.contextmanager
def named(folder: Path, repo: str) -> Iterator[None]:
    """Inside, a refusal of a file in the temporary `folder` names the repo instead."""
    try:
        yield
    except DDToolError as error:
        raise HubError(error.message.replace(str(folder), f"'{repo}'"), HINT) from error
