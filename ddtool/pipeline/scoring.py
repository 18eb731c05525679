"""Which sets to score, on which test split, beside which baseline; scores of a run are recorded in it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import cast

from pydantic import JsonValue

from ddtool.config import RunConfig, Values, from_dict
from ddtool.data.images import ImageData, SyntheticSet, draw_pool, real_images, seen_alike
from ddtool.errors import RunError, UsageError
from ddtool.evaluation.measure import arch_text, kernel_ridge, train_and_test
from ddtool.evaluation.protocols import (
    AS_STATED,
    CE,
    EXACT,
    KERNEL_RIDGE,
    LEARNED_LR,
    NOT_WHITENED,
    ROUNDED,
    Score,
    check_protocol,
    protocol_of,
    protocols_in,
    version_of,
)
from ddtool.events import Report, silent
from ddtool.methods import own_protocol
from ddtool.models.registry import DEFAULT, find
from ddtool.pipeline.moved import check_same_content, moved_to
from ddtool.pipeline.session import Session
from ddtool.runs.files import is_run, set_folders
from ddtool.runs.formats import read_set
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine
from ddtool.sources import load as sources
from ddtool.sources.load import Target
from ddtool.sources.names import CONVERTED
from ddtool.text import listed, shell


def load_target(config: RunConfig, report: Report) -> Target:
    """The dataset of a configuration; UsageError for an option of the data source that does not exist."""
    return sources.load(config.dataset, from_dict(sources.DataOptions, config.data, "data."), report=report)


def score_run(session: Session, target: Target) -> None:
    """Score every set of the run: refined, generator alone, and as many random real images, by the configured protocol."""
    config, run = session.config, session.run
    for ipc in config.ipc:
        final = run.load_set(ipc)
        sets = [final]
        if final.stage == "refined":
            sets.insert(0, run.load_set(ipc, "generated"))
        if config.evaluate.baseline:
            sets.append(random_subset(target.train, final, config.seed))
        for synthetic in sets:
            score_set(session, synthetic, target)


def random_subset(train: ImageData, beside: SyntheticSet, seed: int) -> SyntheticSet:
    """The baseline beside a set: as many random real images (the first of Z), hard labels at the same scale. Those of a class
    that holds fewer come again."""
    rows = draw_pool(train, beside.ipc, seed, repeat=True)
    return real_images(seen_alike(train, beside), rows, beside.flip).scaled(beside.label_scale)


@dataclass(frozen=True)
class Measurement:
    """One way to score a set: by which protocol, with how many networks of which kind, of which pixels, seen how."""

    protocol: str
    seeds: int
    pixels: str = ROUNDED
    inputs: str = AS_STATED
    arch: str = DEFAULT

    def done(self, scores: Sequence[Score], synthetic: SyntheticSet, dataset: str) -> bool:
        """Whether the scores of a run hold this one already."""
        wanted = {"stage": synthetic.stage, "ipc": synthetic.ipc, "dataset": dataset} | asdict(self)
        wanted |= {"arch": arch_text(self.arch, self.protocol, synthetic.shape)}
        wanted |= {"protocol_version": version_of(self.protocol)}
        return any(wanted.items() <= asdict(score.key).items() for score in scores)


@dataclass(frozen=True)
class Judge:
    """Who measures: from which seed, on what hardware, and who hears of it."""

    seed: int
    engine: Engine
    report: Report = silent

    def measure(self, synthetic: SyntheticSet, target: Target, wanted: Measurement) -> Score:
        """One score on the test split of `target`."""
        seen = synthetic.rounded() if wanted.pixels == ROUNDED else synthetic
        seen = seen if wanted.inputs == AS_STATED else replace(seen, whitening=None)
        test, engine = target.test(), self.engine
        if wanted.protocol == KERNEL_RIDGE:
            score = kernel_ridge(seen, test, engine, seeds=wanted.seeds, seed=self.seed)
        else:
            score = train_and_test(
                seen, test, wanted.protocol, engine,
                seeds=wanted.seeds, seed=self.seed, arch=wanted.arch, report=self.report,
            )  # fmt: skip
        return replace(score, dataset=target.name, pixels=wanted.pixels, inputs=wanted.inputs)


def score_set(session: Session, synthetic: SyntheticSet, target: Target) -> None:
    """Scores of one set, recorded in the run; those it has already are not repeated."""
    judge = Judge(session.config.seed, session.engine, session.report)
    for wanted in measurements(synthetic, session.config):
        if not wanted.done(session.run.noted().scores, synthetic, target.name):
            session.run.record_score(judge.measure(synthetic, target, wanted))


def measurements(synthetic: SyntheticSet, config: RunConfig) -> list[Measurement]:
    """What a run measures of a set: the protocols, the cheap guide, and for a set that is learned what rounding costs by that
    guide and, where it is to be whitened, what it is worth to those who do not."""
    chosen = config.evaluate
    named = protocols_in(chosen.protocol)
    guide = Measurement(KERNEL_RIDGE, chosen.seeds if KERNEL_RIDGE in named else 3)
    main = [Measurement(name, chosen.seeds, arch=DEFAULT if name == KERNEL_RIDGE else chosen.arch) for name in named]
    wanted = [guide, *main] if chosen.kernel_ridge and KERNEL_RIDGE not in named else main
    if synthetic.stage in ("refined", "distilled"):
        wanted = [*wanted, *([replace(guide, pixels=EXACT)] if chosen.kernel_ridge else [])]
        unseen = synthetic.whitening and chosen.without_whitening
        wanted = [*wanted, *(replace(one, inputs=NOT_WHITENED) for one in main if unseen)]
    return by_its_own_rate(wanted, synthetic)


def by_its_own_rate(wanted: Sequence[Measurement], synthetic: SyntheticSet) -> list[Measurement]:
    """The measurements, and beside those of the field's protocol one with the learning rate that the set carries, if it does, and
    one by the protocol of its method's authors, if they have another."""
    fitting = [one for one in wanted if synthetic.learned_lr is not None or one.protocol != LEARNED_LR]
    own = [LEARNED_LR] * (synthetic.learned_lr is not None) + list(filter(None, [own_protocol(synthetic.method)]))
    beside = [replace(one, protocol=protocol) for one in fitting if one.protocol == CE for protocol in own]
    return list(dict.fromkeys([*fitting, *beside]))


@dataclass(frozen=True)
class Found:
    """The sets that a name means (at least one), and the run that they are of; None where they are of no run here."""

    run: Run | None
    sets: list[SyntheticSet]


def evaluate(
    found: Found, wanted: Sequence[Measurement], judge: Judge, target: Target, *, baseline: bool
) -> list[Score]:
    """Every wanted score of every set on the target, with `baseline` those of as many random real images too. Scores of a run are
    recorded in it."""
    run, sets = found.run, found.sets
    for one in wanted:
        find(one.arch).check(sets[0].shape)
    if run:
        run.record()  # refuses, before the work, a damaged results.json and a folder that cannot be written
    if not any(by_its_own_rate(wanted, synthetic) for synthetic in sets):
        protocol_of(LEARNED_LR)  # says that no set has one
    if baseline:
        sizes = sorted({s.ipc: s for s in sets}.items())
        sets = [*sets, *(random_subset(target.train, s, judge.seed) for _, s in sizes)]
    scores = []
    for synthetic in sets:
        for one in by_its_own_rate(wanted, synthetic):
            scores.append(judge.measure(synthetic, target, one))
            if run:
                run.record_score(scores[-1])
    return scores


def target_of(
    found: Found, report: Report, *, on: str | None, moved: str | Path | None = None, data: Mapping[str, JsonValue]
) -> Target:
    """The dataset that sets are tested on, their own or `on`; UsageError for one of other classes.

    moved: where the local data of a set that is of no run is now;  data: options of reading that dataset, on top of those that
    the set was made with.
    """
    first = found.sets[0] if moved is None else moved_set(found.sets[0], moved, report)
    config = found.run.config() if found.run and not on else tested_on(first, on)
    config = replace(config, data=config.data | dict(data))
    target = load_target(config, report)
    check_classes(found.sets[0], target.train)
    return target


READING = (
    "config", "revision", "train_split", "test_split", "image_column", "label_column", "no_splits", "class_level", "multi_label",
    "background", "max_per_class", "test_fraction", "seed",
)  # fmt: skip
"""What a source says of the reading of its data that changes which images, or what of them, are trained or tested on."""


def read_alike(synthetic: SyntheticSet, train: ImageData) -> bool:
    """Whether a dataset was read as the one that the set was made from."""
    ours, theirs = cast(Values, synthetic.source), cast(Values, train.source)
    return all(ours.get(name) == theirs.get(name) for name in READING)


def requested(
    protocols: Sequence[str], archs: Sequence[str], seeds: int, pixels: str, inputs: str
) -> list[Measurement]:
    """A measurement for every protocol and kind of network, the guide once; UsageError for names that do not exist, and for kinds
    of network that would have no effect."""
    if seeds < 1:
        raise UsageError(f"A score takes at least 1 network, got {seeds}.", "Ask for 1 or more seeds (--eval-seeds).")
    if not protocols or not archs:
        option = "--arch" if protocols else "--protocol"
        raise UsageError(f"{option} names nothing to score by.", f"Name one, or leave {option} out.")
    for name in archs:
        find(name)
    for name in set(protocols) - {KERNEL_RIDGE, LEARNED_LR}:
        check_protocol(name)
    if set(protocols) == {KERNEL_RIDGE} and set(archs) != {DEFAULT}:
        message = f"{KERNEL_RIDGE} has networks of its own: --arch {','.join(archs)} would have no effect."
        raise UsageError(message, "Leave --arch out, or name another --protocol, such as quick.")
    pairs = [(p, DEFAULT if p == KERNEL_RIDGE else arch) for p, arch in product(protocols, archs)]
    return [Measurement(p, seeds, pixels, inputs, arch) for p, arch in dict.fromkeys(pairs)]


def find_sets(path: Path, ipc: int | None, stage: str | None) -> Found:
    """The sets that a path means: of a run, of a folder of sets or of several (`ddtool import`), or one exact.safetensors."""
    if is_run(path):
        run = Run.open(path)
        ipcs = [ipc] if ipc is not None else run.ipcs()
        if not ipcs:
            raise RunError(f"{path} has no synthetic set yet.", f"Finish it: `{shell('ddtool adapt --resume', path)}`.")
        return Found(run, [run.load_set(n, stage) for n in ipcs])
    if folders := set_folders(path):
        asked = [folder for folder in folders if ipc is None or folder.name == f"ipc{ipc}"]
        if not asked:
            there = ", ".join(sorted({folder.name[3:] for folder in folders}, key=int))
            raise RunError(f"{path} has no set of ipc {ipc}.", f"Sets there: {there}.")
        return Found(None, [one_set(folder, int(folder.name[3:]), stage) for folder in asked])
    return Found(None, [one_set(path, ipc, stage)])


def local_set(path: Path, ipc: int | None) -> SyntheticSet:
    """The one set that a path and an IPC mean. Raises as `find_sets`; UsageError where there are several."""
    sets = find_sets(path, ipc, None).sets
    if len(sets) > 1:
        sizes = {made.ipc for made in sets}
        hint = f"Name one of them: ipc={' or ipc='.join(map(str, sorted(sizes)))}."
        if len(sizes) < len(sets):
            folders = (folder.relative_to(path).as_posix() for folder in set_folders(path))
            hint = f"Name the folder of one of them: {', '.join(folders)}."
        raise UsageError(f"'{path}' holds several sets.", hint)
    return sets[0]


def one_set(path: Path, ipc: int | None, stage: str | None) -> SyntheticSet:
    """The set in a folder or file; UsageError when it is of another IPC or stage."""
    file = path / "exact.safetensors" if path.is_dir() else path
    if not file.is_file():
        hint = "Give a run directory, an exact.safetensors file, or a Hub repo: namespace/name."
        raise RunError(f"No run and no synthetic set at {path}.", hint)
    synthetic = read_set(file)
    check_asked(synthetic, str(path), ipc, stage)
    return synthetic


def check_asked(synthetic: SyntheticSet, name: str, ipc: int | None, stage: str | None) -> None:
    """UsageError where one set is given, and another IPC or stage is asked for."""
    if ipc not in (None, synthetic.ipc) or stage not in (None, synthetic.stage):
        message = f"{name} is one set, of ipc {synthetic.ipc}, {synthetic.stage}."
        raise UsageError(message, "Leave --ipc and --stage out, or give the run directory.")


def tested_on(synthetic: SyntheticSet, on: str | None) -> RunConfig:
    """Where to test a set that is judged without its run: on dataset `on` (at the same resolution), else on the one it was
    made from, read alike."""
    source = synthetic.source
    stated: Values = {key: value for key, value in cast(Values, source).items() if value is not None}
    own = source.get("path") or (source.get("name") or "").partition("@")[0]
    name = on or own
    if not name:
        raise UsageError("The set does not say which dataset it was made from.", "Name it: --on DATASET.")
    if on and on not in (own, source.get("id")):
        return RunConfig(dataset=on, data={key: stated[key] for key in ("resolution",) if key in stated})
    if not on and source.get("kind") == "local" and not source.get("path"):
        raise UsageError(
            f"The set was made from data that is not here ('{name}').",
            "Name its place, --data PATH, or another dataset, --on DATASET.",
        )
    known = (*sources.DEFAULTS.key(), "config")
    data: Values = {key: stated[key] for key in known if key in stated}
    if not re.fullmatch(r"\w+(\.\w+)*", str(data.get("test_split", ""))):
        data.pop("test_split", None)  # not a split, but a note of what was held out
    if source.get("kind") == "hub":
        data["revision"] = CONVERTED if source.get("converted") else source["revision"]
    return RunConfig(dataset=name, data=data)


def moved_set(synthetic: SyntheticSet, moved: str | Path, report: Report) -> SyntheticSet:
    """The set with its local data at another place. UsageError where it has none, DataError where other data lies there."""
    source = synthetic.source
    if (known := source.get("content_hash")) is None or source.get("kind") != "local":
        raise UsageError("The set was not made from local data.", "Leave --data out, or name a dataset: --on DATASET.")
    place = moved_to(moved, str(source.get("path") or source.get("name")))
    check_same_content(place, known, report)
    return replace(synthetic, source=source | {"path": place})


def check_classes(synthetic: SyntheticSet, train: ImageData) -> None:
    """UsageError when a set would be tested on a dataset of other classes."""
    ours, theirs = list(synthetic.class_names), list(train.class_names)
    if ours != theirs:
        raise UsageError(
            f"The synthetic set has {len(ours)} classes ({listed(ours, 3)}), the dataset {len(theirs)} "
            f"({listed(theirs, 3)}): an accuracy would mean nothing.",
            "Test on a dataset with the same classes in the same order (--on).",
        )
