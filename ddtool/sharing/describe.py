"""A run, or a generator's folder, as others will see it: the files of its repos and the facts that go with them.

No place on this disk is named: of a path only its end. The run directory is only read.
"""

import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path

from pydantic import JsonValue
from safetensors import safe_open

from ddtool import methods
from ddtool.config import RunConfig, to_dict
from ddtool.data import images
from ddtool.errors import HubError, NotOnHubError, RunError
from ddtool.events import Note, Phase, Report
from ddtool.hub.download import licence_of
from ddtool.hub.errors import NoRevisionError
from ddtool.hub.generators import PRETRAINING, bundled_folder
from ddtool.hub.names import DATASET, MODEL, is_pinned, parse
from ddtool.models.generator import WEIGHTS_FILE
from ddtool.runs.facts import Environment, RunFacts
from ddtool.runs.files import RESTORE, TABLE
from ddtool.runs.formats import read_parquet, read_tensors, write_tensors
from ddtool.runs.run import Run
from ddtool.sharing.command import command
from ddtool.sharing.facts import FORMAT, META, SETS, LicenceFacts, MethodFacts, RepoFacts, SetFacts, Source
from ddtool.sharing.files import LABELS, POOL
from ddtool.sharing.pretraining import pretraining_of
from ddtool.sources.names import ALIASES
from ddtool.text import parsed_json, shell
from ddtool.version import __version__

SHORT = {repo: alias for alias, repo in ALIASES.items()}
"""The one name under which a dataset that has an alias is published, however it was typed."""


def check_finished(run: Run, report: Report) -> None:
    """RunError unless a run has all that is pushed; sets that it was to have and has not are said aloud."""
    facts, generator = run.noted().facts, run.has_generator() and run.has(f"generator/{LABELS}")
    made = generator if methods.has_generator(run.config().method) else facts.finished
    ready = made and run.ipcs() and not run.has("checkpoints")
    resume = f"`{shell('ddtool adapt --resume', run.folder)}`"
    if not ready:
        if facts.pulled:
            resume = f"`{shell('ddtool generate', run.folder, '--ipc 10')}`"
        raise RunError(f"{run.folder} is not finished: nothing is pushed.", f"Make its sets first: {resume}.")
    if not facts.pulled and (missing := sorted(set(run.config().ipc) - set(run.ipcs()))):
        report(Note(f"Not in {run.folder}, so not pushed: the set of ipc {', '.join(map(str, missing))} ({resume})."))


def check_whole(run: Run) -> None:
    """RunError or GeneratorError, as every command has them, for a damaged file among those that are pushed."""
    classes = len(target_of(run)[0])
    if methods.has_generator(run.config().method):
        run.load_generator()
    for path in [run.folder / POOL] * run.has(POOL) + [run.set_path(ipc).with_name(TABLE) for ipc in run.ipcs()]:
        read_parquet(path, classes)


def describe_run(run: Run, pool: int) -> RepoFacts:
    """What both repos of a run say: what it was made from, and each set. pool: the real images that go with it."""
    config, (class_names, shape, made_from) = run.config(), target_of(run)
    source = public_source(made_from)
    dataset = config.dataset if source.kind == "hub" else source.name
    public = replace(config, dataset=dataset, generator=public_generator(config.generator))
    method = MethodFacts.of_record(methods.find(config.method))
    results, environment = run.noted(), public_environment(run)
    return RepoFacts(
        format=FORMAT,
        kind=SETS,
        ddtool=__version__,
        source=source,
        class_names=class_names,
        shape=shape,
        method=method,
        generator=public.generator if method.has_generator else None,
        generator_licence=generator_licence(config.generator) if method.has_generator else None,
        parameters=parameters(run.folder / "generator" / WEIGHTS_FILE) if method.has_generator else None,
        sets={n: describe_set(run, n, public, source, results, environment) for n in run.ipcs()},
        pretraining=None,
        pool=pool,
    )


def describe_set(
    run: Run, ipc: int, public: RunConfig, source: Source, results: RunFacts, environment: Environment
) -> SetFacts:
    """One set of a run: the command, settings, seconds and scores."""
    made, config, settings = run.load_set(ipc), run.config(), to_dict(public)
    if methods.find(config.method).settings is not None:
        settings["baseline"] = asdict(methods.settings_of(config.method, config.baseline))
    facts = SetFacts(
        command=command(public, made, environment, local=source.kind == "local"),
        stage=made.stage,
        labels=made.label_method,
        label_scale=made.label_scale,
        images=len(made),
        config=json.loads(json.dumps(settings)),
        env=environment,
        timings={name: v for name, v in results.timings.items() if Phase.parse(name).ipc in (None, ipc)},
        facts=results.facts.of_set(ipc),
        scores=tuple(
            replace(score, dataset=public_test_set(score.dataset, config, source), confusion=None)
            for score in results.scores
            if score.ipc == ipc
        ),
    )
    more: dict[str, object] = {"factor": made.factor} if made.factor > 1 else {}
    return facts.but(**more | ({"whitening": made.whitening.kind} if made.whitening else {}))


def generator_licence(name: str) -> LicenceFacts | None:
    """The terms of the weights that an adaptation began with; None when those were random."""
    if name == "scratch":
        return None
    if is_pinned(name) and (ref := parse(name)):
        try:
            stated = licence_of(MODEL, ref)
        except (NotOnHubError, NoRevisionError):  # it is there no longer
            stated = None
        return LicenceFacts(what=ref.repo, licence=stated, repo=ref.repo, kind=MODEL)
    if name != "bundled":
        return LicenceFacts(what=last_part(name))
    trained_on = pretraining_of(pretraining(bundled_folder())).datasets[0]
    return LicenceFacts(what=name, licence=trained_on.licence, repo=trained_on.name, kind=DATASET)


def describe_generator(name: str, folder: Path, repo: str) -> RepoFacts:
    """What the repo of a meta generator says."""
    return RepoFacts(
        format=FORMAT,
        kind=META,
        ddtool=__version__,
        repo=repo,
        generator=public_generator(name),
        parameters=parameters(folder / WEIGHTS_FILE),
        pretraining=pretraining(folder),
        sets={},
    )


def target_of(run: Run) -> tuple[tuple[str, ...], tuple[int, int, int], images.Source]:
    """What the run was made from: class names, shape (c, h, w) and source; RunError when the run does not say."""
    if methods.has_generator(run.config().method):
        head = run.load_label_head()
        return head.class_names, head.shape, head.source
    made = run.load_set(run.ipcs()[0])
    c, h, w = made.images.shape[1:]
    return made.class_names, (c, h, w), made.source


def public_environment(run: Run) -> Environment:
    """What of a run's env.json is published."""
    env = run.environment()
    if env.platform is not None:  # older runs kept the kernel's release after a dash
        return env.but(platform=env.platform.partition("-")[0])
    return env


def public_source(source: images.Source) -> Source:
    """Where data came from, without a place on this disk: of a folder its name, of a Hub dataset its alias or id. RunError where
    a file of the run does not say it as ddtool does."""
    public = {key: value for key, value in source.items() if key != "path"}
    known = str(source.get("id") if source.get("kind") == "hub" else source.get("path") or source.get("name"))
    name = SHORT.get(known, known) if source.get("kind") == "hub" else last_part(known)
    try:
        return Source.of(public | {"name": name})
    except ValueError as error:
        raise RunError(f"The run does not say where its data is from: {error}.", RESTORE) from error


def public_generator(name: str) -> str:
    """A generator as others may see it: a repo only at its commit, as every run records it; of a path the end."""
    return name if is_pinned(name) else last_part(name)


def public_test_set(name: str, config: RunConfig, source: Source) -> str:
    """The dataset of a score as others may see it: the run's own, or one that is known on the Hub; of others the end."""
    bare = name.removeprefix("hf://datasets/").partition("@")[0]
    if name == config.dataset or (source.kind == "hub" and ALIASES.get(bare, bare) == source.id):
        return source.name
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
    method = methods.find(run.config().method)
    return len(run.load_set(max(run.ipcs()))) if method.learns and not method.has_generator else 0


def pretraining(folder: Path) -> JsonValue:
    """The facts beside a meta generator, None when there are none; HubError when the file is not JSON."""
    path = folder / PRETRAINING
    if not path.is_file():
        return None
    try:
        return parsed_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise HubError(f"{path} is not readable JSON: {error}.", "Correct it, or remove it.") from error


def without_paths(file: Path, rewritten: Path) -> Path:
    """The file as it is, or a copy whose description of the source names no place on this disk."""
    with safe_open(file, framework="pt") as opened:
        source = parsed_json(opened.metadata()["ddtool"])["source"]
    stated = public_source(source).stated()
    if stated == source:
        return file
    public = {key: stated[key] for key in source if key in stated} | stated  # in the order in which a run writes them
    tensors, info = read_tensors(file)
    write_tensors(rewritten, tensors, info | {"source": public})
    return rewritten
