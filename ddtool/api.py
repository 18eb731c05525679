"""The Python API: what the commands do, in one call each. Whole numbers may be NumPy's, and several of them an array."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue

from ddtool.config import RunConfig, Values, counted, from_dict, layered, preset, to_dict, whole_numbers
from ddtool.config.presets import Pace
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.errors import UsageError
from ddtool.evaluation.protocols import AS_STATED, EXACT, NOT_WHITENED, ROUNDED, Score
from ddtool.events import Event, Note, Report, silent
from ddtool.experiments import curve as curves
from ddtool.experiments import sweep as sweeps
from ddtool.hub import download, generators, names
from ddtool.hub.access import Access, asked
from ddtool.hub.names import at_revision
from ddtool.hub.upload import Pushed
from ddtool.pipeline import plan, scoring, speed
from ddtool.pipeline.adapt import adapt as adapt_and_make
from ddtool.pipeline.distil import distil
from ddtool.pipeline.generate import generate as generate_set
from ddtool.pipeline.moved import follow
from ddtool.pipeline.robustness import Robustness
from ddtool.pipeline.robustness import robustness as robust_scores
from ddtool.pipeline.session import Session
from ddtool.pipeline.whole import whole_scores
from ddtool.reports.progress import shown
from ddtool.reports.run_page import write_page
from ddtool.runs import tracking
from ddtool.runs.files import EXACT as EXACT_FILE
from ddtool.runs.files import dated_folder, is_run, set_folders
from ddtool.runs.foreign import check_free
from ddtool.runs.run import Run, check_stage
from ddtool.runtime.engine import Engine, torch_as_usual
from ddtool.sharing import pull as pulling
from ddtool.sharing import push as pushing
from ddtool.sharing import sets as shared_sets
from ddtool.sharing.exchange import exporting, importing
from ddtool.sharing.exchange.importing import Imported, ImportOptions
from ddtool.sharing.found import NotOursError
from ddtool.sharing.options import Options
from ddtool.sharing.parcels import PlannedRepo
from ddtool.sharing.pull import Pulled
from ddtool.sources.load import Target
from ddtool.text import file_name, shell


@whole_numbers
@torch_as_usual()
def adapt(
    dataset: str | Path,
    *,
    ipc: int | Sequence[int] = 10,
    out: str | Path | None = None,
    generator: str | Path = "bundled",
    method: str = "mgdd",
    seed: int = 0,
    engine: Engine | torch.device | str | None = None,
    settings: Mapping[str, Any] | None = None,
    preset_name: str = "auto",
    force: bool = False,
    push_to: str | None = None,
    pool: bool = True,
    track: str | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> Run:
    """Adapt a meta generator to `dataset` and distil a synthetic set for every `ipc`; returns the finished run.

    dataset: alias, Hub id, path or 'sample';  generator: bundled, scratch, a folder or a Hub repo[@revision];
    method: one of `ddtool.methods.METHODS`; one without a generator takes its settings from "baseline";
    settings: nested values of RunConfig on top of the preset, for example {"refine": {"steps": 300}};
    engine: where and how to compute, or a device by its name, as 'cpu' or 'cuda:1' (None: chosen);
    preset_name: small, medium or large; 'auto' chooses width and steps by the speed of the machine, for a set in two minutes;
    force: replace a run at `out`;  push_to: namespace/name, where `push` takes the finished run (checked before the work
    begins; what is different on the Hub is replaced only by `push` itself, with its `force`);  pool: push the initial samples,
    real images, too;  track: follow the run by tensorboard, wandb or trackio as well, each an extra of ddtool;  report: hears every
    event;  progress: show it on stderr (None: on a terminal or in a notebook, unless there is a `report`).
    Raises DDToolError (its message and hint say what to do).
    """
    if push_to:
        pushing.check_target(push_to, Options(pool=pool).by_method(method))
    tracking.check(track)
    engine = Engine.of(engine)
    ipcs = [ipc] if isinstance(ipc, int) else list(ipc)
    names_given: Values = {"dataset": name_of(dataset), "method": method, "generator": name_of(generator)}
    chosen: Values = {**names_given, "ipc": [*ipcs], "seed": seed}
    stated: Values = counted(dict(settings or {}))
    check_settings(stated, chosen)
    with shown(report, progress) as listener:
        config = resolve(engine, preset_name, stated, chosen, report=listener)
        run = start(config, Path(out).expanduser() if out else default_folder(config), engine, force, listener)
        work(run, engine, listener, track)
        if push_to:
            push(run, push_to, pool=pool, report=listener)
    return run


def name_of(data: str | Path) -> str:
    """The name of a dataset or a generator: of a path the absolute one, which cannot be taken for a name of something else."""
    return str(data.expanduser().absolute()) if isinstance(data, Path) else data


def check_settings(settings: Values, chosen: Values) -> None:
    """UsageError for a setting that an argument of the same name would overrule."""
    for name, value in chosen.items():
        stated = settings.get(name, value)
        alike = [value, tuple(value), *(value if len(value) == 1 else ())] if isinstance(value, list) else [value]
        if stated not in alike:
            message = f"The setting {name} is {stated!r}, and the argument {name} is {value!r}."
            raise UsageError(message, f"Give it as an argument alone: {name}={stated!r}.")


def work(run: Run, engine: Engine, report: Report, track: str | None = None) -> None:
    """Bring a run to its end by its method, followed by the tracker `track`, or by the one that has followed it so far."""
    config = run.config()
    plan.check_captured(config, engine)
    plan.check_divided(config, engine)
    with run.at_work(), tracking.tracked(run.folder, track, to_dict(config), report) as tracker:
        run.sweep()
        session = Session(config, run, engine, recorded(run, tracker.listener))
        bring_to_its_end = adapt_and_make if session.method.has_generator else distil
        bring_to_its_end(session)
        tracker.conclude(run.noted())
        write_page(run)


@torch_as_usual()
def resume(
    folder: str | Path,
    *,
    moved: str | Path | None = None,
    track: str | None = None,
    engine: Engine | torch.device | str | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> Run:
    """Go on with an unfinished run; on the CPU the result is the same, bit for bit, as without the interruption.

    moved: where its local data is now, if that has moved (DataError unless it is the same data);
    track: as in `adapt`; a run that is tracked already goes on in the same tracked run, named or not;
    report, progress: as in `adapt`.
    """
    tracking.check(track)
    run = Run.open(Path(folder).expanduser())
    with shown(report, progress) as listener:
        follow(run, moved, shell("ddtool adapt --resume", folder), listener)
        work(run, Engine.of(engine), listener, track)
    return run


@whole_numbers
@torch_as_usual()
def generate(
    run: str | Path | Run,
    ipc: int,
    *,
    labels: str | None = None,
    engine: Engine | torch.device | str | None = None,
    force: bool = False,
    report: Report | None = None,
    progress: bool | None = None,
) -> SyntheticSet:
    """A set of any IPC from an adapted run, in one pass; also written into the run.

    run: a run, its folder, or a Hub repo[@revision], which is pulled to runs/NAME;
    labels: 'fitted' to the images with the original dataset (RunError when it cannot be had), 'analytical' without it;
    default: fitted where the dataset can be had;  report, progress: as in `adapt`.
    """
    with shown(report, progress) as listener:
        run = run if isinstance(run, Run) else open_run(run, listener)
        session = Session(run.config(), run, Engine.of(engine), recorded(run, listener))
        generate_set(session, ipc, labels=labels, force=force)
    return run.load_set(ipc)


@whole_numbers
@torch_as_usual()
def sweep(
    run: str | Path | Run,
    ipcs: Sequence[int] = sweeps.SIZES,
    *,
    protocol: str | Sequence[str] = sweeps.USUAL,
    seeds: int = 1,
    baseline: bool = True,
    engine: Engine | torch.device | str | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> sweeps.Swept:
    """Sets of every size in `ipcs` from one adapted generator, scored; sweep.svg, .md and others appear in the run.

    run: as in `generate`;  ipcs: images per class, by default from 1 to 100;  protocol: one or several, as in `evaluate`, by
    default kernel-ridge and quick;  seeds: fresh networks per score (kernel-ridge takes 3);  baseline: score as many random
    real images beside each;  report, progress: as in `adapt`.
    The result has the `scores`, and `rows()` of the table. What the run holds already is not measured again.
    """
    protocols = list(dict.fromkeys(several(protocol)))
    scoring.requested(protocols, ["convnet"], seeds, ROUNDED, AS_STATED)  # refuses what does not exist
    with shown(report, progress) as listener:
        opened = run if isinstance(run, Run) else open_run(run, listener)
        session = Session(opened.config(), opened, Engine.of(engine), recorded(opened, listener))
        return sweeps.sweep(session, ipcs, protocols, seeds, baseline)


@whole_numbers
@torch_as_usual()
def curve(
    run: str | Path | Run,
    *,
    protocol: str | Sequence[str] = sweeps.USUAL,
    seeds: int = 1,
    engine: Engine | torch.device | str | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> curves.Curve:
    """Scores along the steps of a run that was made with the setting `curve`; curve.svg, .md and others appear in the run.

    run: a run or its folder;  protocol: one or several, as in `evaluate`, by default kernel-ridge and quick;  seeds: fresh networks
    per score (kernel-ridge takes 3);  report, progress: as in `adapt`.
    The result has `rows()` of the table: for each kept point (steps 0, 1, 2, 4, 8, ... and the last of each phase) and protocol the
    accuracy in percent, with the steps and seconds until there. What was scored before is not scored again.
    Raises RunError for a run that kept no points, is not finished, or has a damaged point.
    """
    protocols = list(dict.fromkeys(several(protocol)))
    scoring.requested(protocols, ["convnet"], seeds, ROUNDED, AS_STATED)  # refuses what does not exist
    with shown(report, progress) as listener:
        opened = run if isinstance(run, Run) else open_run(run, listener)
        session = Session(opened.config(), opened, Engine.of(engine), listener)  # the run's own timings stay
        return curves.curve(session, protocols, seeds)


@whole_numbers
@torch_as_usual()
def evaluate(
    run_or_set: str | Path | Run | SyntheticSet,
    *,
    ipc: int | None = None,
    stage: str | None = None,
    on: str | Path | None = None,
    moved: str | Path | None = None,
    protocol: str | Sequence[str] = "frepo-mse",
    arch: str | Sequence[str] = "convnet",
    seeds: int = 3,
    seed: int = 0,
    baseline: bool = True,
    whole: bool = False,
    exact: bool = False,
    whiten: bool = True,
    data: Mapping[str, JsonValue] | None = None,
    engine: Engine | torch.device | str | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> list[Score]:
    """Scores of the sets of a run (or of one set, its exact.safetensors or folder, or a Hub repo) on a whole test split.

    A set of others is scored too, with `on`: a Hub dataset or parquet with the columns image and label or soft_label, a
    safetensors file with images and labels, a folder of images by class, a WebDataset.

    on: the dataset to test on (default: the run's);  moved: where the run's local data is now, if that has moved (DataError
    unless it is the same data);  stage: initial, generated or refined (default: the final one);
    protocol: one of `ddtool.evaluation.protocols.PROTOCOLS`, or kernel-ridge;  arch: one of `ddtool.models.registry.NETWORKS`,
    with its usual norm layer or one that is named (vgg11-batch). Of both several can be asked for, and each pair is scored;
    baseline: score as many random real images too;
    whole: score one network trained on the whole training set, too (once for a dataset and protocol, then it is kept below the
    cache; by frepo-mse and dsa-ce 40,000 steps, by idc-ce 160,000);  exact: train on the pixels before they were rounded to 8 bits;
    whiten: train and test as the set says, or (False) without its whitening, as those do who overlook it;
    data: reading options of that dataset, fields of `sources.DataOptions`, on top of those that the set was made with;
    report, progress: as in `adapt`. Scores of a run are recorded in its results.json, unless `data` has other images of its dataset
    tested or drawn from.
    """
    seen = (EXACT if exact else ROUNDED, AS_STATED if whiten else NOT_WHITENED)
    wanted = scoring.requested(several(protocol), several(arch), seeds, *seen)
    with shown(report, progress) as listener:
        judge = scoring.Judge(seed, Engine.of(engine), listener)
        found, target = _to_score(run_or_set, ipc, stage, on, moved, data or {}, listener)
        scores = scoring.evaluate(found, wanted, judge, target, baseline=baseline)
        return scores + whole_scores(found, wanted, judge, target) if whole else scores


@whole_numbers
@torch_as_usual()
def robustness(
    run_or_set: str | Path | Run | SyntheticSet,
    *,
    ipc: int | None = None,
    stage: str | None = None,
    on: str | Path | None = None,
    moved: str | Path | None = None,
    protocol: str | Sequence[str] = "dsa-ce",
    arch: str | Sequence[str] = "convnet",
    seeds: int = 3,
    seed: int = 0,
    whole_accuracy: float | None = None,
    data: Mapping[str, JsonValue] | None = None,
    engine: Engine | torch.device | str | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> list[Robustness]:
    """DD-Ranking's label-robust and augmentation-robust scores of the sets of a run, or of one set, on a whole test split.

    seeds: networks for each of the five sets that are trained on, each time beside another draw of random real images;
    whole_accuracy: in percent, that of the whole training set with hard labels, where it is known; by default a network is trained
    on it, once for a dataset and protocol. The rest is as in `evaluate`. Scores of a run are recorded in its results.json.
    """
    wanted = scoring.requested(several(protocol), several(arch), seeds, ROUNDED, AS_STATED)
    with shown(report, progress) as listener:
        judge = scoring.Judge(seed, Engine.of(engine), listener)
        found, target = _to_score(run_or_set, ipc, stage, on, moved, data or {}, listener)
        return robust_scores(found, wanted, judge, target, whole_accuracy)


def _to_score(
    run_or_set: str | Path | Run | SyntheticSet, ipc: int | None, stage: str | None, on: str | Path | None,
    moved: str | Path | None, data: Mapping[str, JsonValue], report: Report,
) -> tuple[scoring.Found, Target]:  # fmt: skip
    """The sets that are meant, and the dataset to test them on."""
    check_stage(stage)
    other = name_of(on) if on else None
    if other and moved:
        raise UsageError("--on and --data exclude each other.", "--data is for the set's own dataset, if it has moved.")
    found = _sets_to_score(run_or_set, ipc, stage, other, data, report)
    if found.run and not other:
        follow(found.run, moved, shell("ddtool evaluate", str(run_or_set)), report)
        moved = None
    target = scoring.target_of(found, report, on=other, moved=moved, data=data)
    own = found.run is not None and target.name == found.run.config().dataset
    if own and data and not scoring.read_alike(found.sets[0], target.train):
        report(Note("The dataset is read otherwise than by the run, so these scores are not recorded in it."))
        found = replace(found, run=None)
    return found, target


def _sets_to_score(
    run_or_set: str | Path | Run | SyntheticSet, ipc: int | None, stage: str | None, on: str | None,
    data: Mapping[str, JsonValue], report: Report,
) -> scoring.Found:  # fmt: skip
    if isinstance(run_or_set, SyntheticSet):
        scoring.check_asked(run_or_set, "This", ipc, stage)
        return scoring.Found(None, [run_or_set])
    path = run_or_set.folder if isinstance(run_or_set, Run) else Path(run_or_set).expanduser()
    if path.exists() or not names.parse(str(run_or_set)):
        if path.exists() and importing.is_foreign(path):
            _check_whole(ipc, stage)
            return scoring.Found(None, [_foreign_set(str(path), on, data, report)])
        return scoring.find_sets(path, ipc, stage)
    try:
        with download.or_local(str(run_or_set)):
            return scoring.Found(None, shared_sets.sets_of(str(run_or_set), ipc, stage, report))
    except NotOursError:
        if not on:
            raise
        _check_whole(ipc, stage)
        return scoring.Found(None, [_foreign_set(str(run_or_set), on, data, report)])


def _check_whole(ipc: int | None, stage: str | None) -> None:
    """UsageError where a part of a set of others is asked for: such a set is one, of one size and stage."""
    if ipc is not None or stage is not None:
        raise UsageError("A set of others is one set, of one size and stage.", "Leave --ipc and --stage out.")


def _foreign_set(name: str, on: str | None, data: Mapping[str, JsonValue], report: Report) -> SyntheticSet:
    """A set of others, read as the dataset `on` is; UsageError without one."""
    if not on:
        raise UsageError(f"{name} is a set of others: it does not say what to test on.", "Name it: --on DATASET.")
    return importing.foreign_set(name, _dataset(on, data, report), report)


def _dataset(name: str, data: Mapping[str, JsonValue], report: Report) -> ImageData:
    """The training images of a dataset."""
    return scoring.load_target(RunConfig(dataset=name, data=dict(data)), report).train


def several(names: str | Sequence[str]) -> list[str]:
    """Names that are given one by one or with commas between them."""
    given = [names] if isinstance(names, str) else names
    return [name.strip() for part in given for name in part.split(",") if name.strip()]


@torch_as_usual()
def import_sets(
    file: str | Path,
    out: str | Path,
    *,
    on: str | Path,
    force: bool = False,
    data: Mapping[str, JsonValue] | None = None,
    report: Report | None = None,
    progress: bool | None = None,
    **options: Any,
) -> list[Imported]:
    """Bring the synthetic sets in a published .pt, .npz or .safetensors file into the folder `out`, as sets of ours.

    on: the dataset that they were made from: its classes, and where the field's code normalises it its mean and std;
    data: reading options of that dataset;  force: replace sets in `out`;  report, progress: as in `adapt`; what is assumed of the
    file is said there, too.
    What the file does not say is said by `options`, fields of `ddtool.sharing.exchange.importing.ImportOptions`. No code in a file
    is ever run. Raises DataError, UsageError or RunError.
    """
    taken = ImportOptions(**counted(options))  # refuses what cannot be, before a dataset is read
    with shown(report, progress) as listener:
        like = _dataset(name_of(on), data or {}, listener)
        return importing.import_sets(Path(file).expanduser(), like, Path(out).expanduser(), taken, force, listener)


@whole_numbers
@torch_as_usual()
def export(
    run_or_set: str | Path | Run | SyntheticSet,
    out: str | Path,
    *,
    format: str = "folder",
    ipc: int | None = None,
    stage: str | None = None,
    force: bool = False,
    report: Report | None = None,
    progress: bool | None = None,
) -> list[Path]:
    """Write sets (those of a run, one set or its folder, or a Hub repo) into the folder `out` for others; returns what was written.

    format: folder (PNGs by class), webdataset (a tar), npz or pt (every tensor to the bit; pt also as the field's code reads
    it);  ipc, stage: which set, as in `evaluate`;  force: replace what is there;  report, progress: as in `adapt`; what a form
    does not hold of a set is said there, too.
    Of several sets of one IPC (those of an import) the k-th goes into `out`/setK. Raises RunError, HubError or UsageError.
    """
    check_stage(stage)
    if isinstance(run_or_set, str | Path) and importing.is_foreign(Path(run_or_set).expanduser()):
        hint = "A .pt, .npz or .safetensors file can be brought here: `ddtool import FILE --on DATASET --out DIR`."
        raise UsageError(f"{run_or_set} is a set of others; those of ddtool are exported.", hint)
    with shown(report, progress) as listener:
        found = _sets_to_score(run_or_set, ipc, stage, None, {}, listener)
        return exporting.export_sets(found.sets, format, Path(out).expanduser(), force, listener)


def push(
    run: str | Path | Run | None,
    repo: str,
    *,
    generator: str | None = None,
    private: bool = False,
    create_pr: bool = False,
    revision: str | None = None,
    pool: bool = True,
    only: str | None = None,
    dataset_repo: str | None = None,
    space: bool = False,
    force: bool = False,
    overwrite_card: bool = False,
    commit_message: str | None = None,
    tag: str | None = None,
    collection: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    report: Report | None = None,
    progress: bool | None = None,
) -> list[Pushed]:
    """Push a finished run to the model repo `repo` and the dataset repo `repo`-ddtool, or a meta `generator` to `repo`.

    A run of a method without a generator makes the dataset repo alone. One commit a repo; pushing the
    same again changes nothing, another IPC is added to what is there. Raises HubError, with nothing half-made: the same
    call repeats safely.

    private: make new repos private;  create_pr: propose the commit as a pull request;  revision: a branch to push to;
    pool: push the initial samples, real images, too;  only: 'generator' or 'dataset', that repo alone;
    dataset_repo: where the sets go;  space: make a Space `repo`, too, a page that shows the sets and trains a network on them;
    force: replace another generator, other sets, or files that are not of ddtool;  overwrite_card: write ddtool's part of a
    README.md (and the files of a Space) anew though a person has changed it (words beside it always stay);
    commit_message: the title of the commits;  tag: a name for these commits, new in each repo;  collection: the slug of a
    collection on the Hub, to which the repos are added;  token, cache_dir, force_download: as `load_set` has them;
    report, progress: as in `adapt`.
    """
    options = Options(
        private=private,
        revision=revision,
        create_pr=create_pr,
        pool=pool,
        only=only,
        dataset_repo=dataset_repo,
        space=space,
        force=force,
        overwrite_card=overwrite_card,
        commit_message=commit_message,
        tag=tag,
        collection=collection,
    )
    with asked(Access(token, cache_dir, force_download)), shown(report, progress) as listener:
        return pushing.push(run, generator, repo, options, listener)


def plan_push(
    run: str | Path | Run | None, repo: str, *, generator: str | None = None, report: Report = silent, **options: Any
) -> list[PlannedRepo]:
    """What `push` with the same options would bring to each repo; nothing is sent."""
    return pushing.plan(run, generator, repo, Options(**options), report)


def pull(
    repo: str,
    *,
    out: str | Path | None = None,
    with_sets: bool = False,
    force: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    report: Report | None = None,
    progress: bool | None = None,
) -> Path:
    """Bring a repo[@revision] of `push` here: a run, a meta generator or synthetic sets; returns its folder.

    out: default runs/NAME, generators/NAME or sets/NAME;  with_sets: into a run also the sets of the dataset repo that it names,
    and their scores;  force: replace what was pulled there before;  revision, token, cache_dir, force_download,
    local_files_only: as `load_set` has them;  report, progress: as in `adapt`. Everything that comes is checked; HubError for
    what is refused.
    """
    with asked(Access(token, cache_dir, force_download, local_files_only)), shown(report, progress) as listener:
        return pulled(at_revision(repo, revision), out=out, with_sets=with_sets, force=force, report=listener).path


def pulled(
    repo: str, *, out: str | Path | None = None, with_sets: bool = False, force: bool = False, report: Report = silent
) -> Pulled:
    """As `pull`; says also what was brought: its kind, commit and sets."""
    return pulling.pull(repo, Path(out).expanduser() if out else None, force, with_sets, report)


@whole_numbers
@torch_as_usual()
def load_set(
    repo: str | Path,
    ipc: int | None = None,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    local_files_only: bool = False,
    report: Report | None = None,
    progress: bool | None = None,
) -> SyntheticSet:
    """The exact tensors of a set in a dataset repo[@revision] of `ddtool push`, or here: in a run, in what `ddtool import` or
    `ddtool pull` left, or in the folder of a set; `ipc` where there are several.

    revision: a branch, a tag or a commit;  token: default that of the environment or of `hf auth login`, False for none;
    cache_dir: default HF_HOME;  force_download: also what is in the cache;  local_files_only: ask nothing, take what was used
    here before;  report, progress: as in `adapt`.
    Raises HubError or RunError when the set cannot be had or is refused; UsageError where there are several, and for the
    revision of a place on this machine.
    """
    here = Path(repo).expanduser()
    holds_sets = is_run(here) or here.is_file() or (here / EXACT_FILE).is_file() or set_folders(here)
    if holds_sets or (here.exists() and not names.parse(str(repo))):
        if revision is not None:
            raise UsageError(f"'{repo}' is no Hub repo: it has no revision '{revision}'.", "Leave the revision out.")
        return scoring.local_set(here, ipc)
    with asked(Access(token, cache_dir, force_download, local_files_only)), shown(report, progress) as listener:
        return shared_sets.load_set(at_revision(str(repo), revision), ipc, listener)


def open_run(name: str | Path, report: Report = silent) -> Run:
    """A run by its folder, or by the Hub repo of an adapted generator, pulled to runs/NAME. RunError or HubError."""
    if Path(name).expanduser().exists() or not names.parse(str(name)):
        return Run.open(Path(name).expanduser())
    with download.or_local(str(name)):
        return pulling.pulled_run(str(name), report)


def resolve(engine: Engine, preset_name: str, *layers: Mapping[str, Any], report: Report = silent) -> RunConfig:
    """defaults < preset < layers, left to right; UsageError for an unknown key, or one that the method does not use.

    With the preset 'auto' the result names the settings that `start` chooses by the speed of the machine (`measured`).
    `report` hears of presets and settings that are given by the name of an earlier version.
    """
    usual = preset(preset_name, lambda text: report(Note(text)))
    config = from_dict(RunConfig, layered(usual, *layers, note=lambda text: report(Note(text))))
    if not config.dataset:
        raise UsageError("No dataset was given.", "For a first try: `ddtool adapt sample --ipc 10`.")
    plan.check_config(config)
    plan.check_given(config.method, *layers)
    # the whole configuration of a run of MGDD may say one
    if "factor" in plan.owners_of_foreign_settings(config.method):
        config = replace(config, factor=1)
    return replace(config, measured=speed.left_open(preset_name, config.method, config.seconds, layers))


def start(config: RunConfig, folder: Path, engine: Engine, force: bool, report: Report) -> Run:
    """A new run directory for a configuration whose dataset and generator can be had; nothing is written before that.

    What comes from the Hub is recorded at its present commit; what was left open is chosen by the speed of the machine.

    Raises RunError, before any data is loaded, when the folder is taken and `force` does not replace it.
    """
    check_free(folder, force)
    plan.check_captured(config, engine)
    plan.check_divided(config, engine)
    config = replace(config, generator=generators.pinned_generator(config.generator))
    target = plan.check_start(config, report)
    plan.check_held(target.train, engine)
    source = target.train.source
    paces: list[Pace] = []
    config = speed.fitted_to_machine(config, target.train, engine, report, keep=paces.append)
    run = Run.create(folder, plan.pinned(config, source), engine, force, source)
    for pace in paces:
        run.save_pace(pace)
    return run


def default_folder(config: RunConfig) -> Path:
    """runs/NAME-ipcN-DATE-TIME below the current folder, with a number behind it where that is taken."""
    return dated_folder(f"{file_name(config.dataset)}-ipc{'-'.join(map(str, config.ipc))}")


def recorded(run: Run, report: Report) -> Report:
    """A listener that writes metrics.jsonl and passes events on."""

    def listen(event: Event) -> None:
        run.log(event)
        report(event)

    return listen


__all__ = ["adapt", "curve", "evaluate", "export", "generate", "import_sets", "pull", "push", "resume", "sweep"]
