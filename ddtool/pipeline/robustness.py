"""DD-Ranking's label-robust and augmentation-robust scores of sets: what is trained and tested for them (`evaluation.robust`).

Each network's accuracy is that after its last step, by the protocol's own learning rate; nothing is chosen on the test split.
"""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from ddtool import methods
from ddtool.config import Values
from ddtool.data.batches import Real
from ddtool.data.images import SyntheticSet, draw_pool, one_hot, real_images, seen_alike
from ddtool.errors import UsageError
from ddtool.evaluation.protocols import PLAIN
from ddtool.evaluation.robust import Accuracies
from ddtool.events import Note
from ddtool.pipeline.scoring import Found, Judge, Measurement, random_subset
from ddtool.pipeline.whole import UNFIT, whole_score
from ddtool.sources.load import Target
from ddtool.text import dataset_name


@dataclass(frozen=True)
class Robustness:
    """The scores of one set by one protocol and network: figures by name, each (mean, standard deviation) over networks.

    In percent: hlr, ior, ior_plain, and the accuracies that they are made of (`Accuracies`); in [0, 1]: lrs and ars.
    """

    stage: str
    method: str
    ipc: int
    arch: str
    protocol: str
    dataset: str
    networks: int
    figures: dict[str, tuple[float, float]]

    @property
    def values(self) -> Values:
        """As JSON holds it."""
        return asdict(self) | {"figures": {name: list(pair) for name, pair in self.figures.items()}}


def robustness(
    found: Found, wanted: Sequence[Measurement], judge: Judge, target: Target, whole_accuracy: float | None = None
) -> list[Robustness]:
    """The scores of every set by every measurement, recorded in their run; UsageError for one that trains no network.

    whole_accuracy: in percent, that of the whole training set with hard labels, where it is known; else it is measured, once.
    """
    if unfit := next((one.protocol for one in wanted if one.protocol in UNFIT), None):
        raise UsageError(f"There are no robust scores by {unfit}.", "Name another --protocol, such as dsa-ce.")
    if any(one.protocol.endswith(PLAIN) for one in wanted):
        raise UsageError("Robust scores compare a protocol with and without its augmentation.", f"Leave out '{PLAIN}'.")
    if whole_accuracy is not None and not 1 < whole_accuracy <= 100:
        message = f"The accuracy of the whole training set is in percent, got {whole_accuracy}."
        raise UsageError(message, "For example 84.8, or leave it out.")
    other = ""
    if found.run:
        if (tested := dataset_name(target.name)) != dataset_name(found.run.config().dataset):
            other = f" on {tested}"
        found.run.record()  # refuses, before the work, a damaged results.json and a folder that cannot be written
    scores = []
    for one in wanted:
        for synthetic in found.sets:
            score = robustness_of(synthetic, one, judge, target, whole_accuracy)
            if found.run:
                name = f"robustness {one.protocol} {score.arch} {synthetic.stage} ipc{synthetic.ipc}{other}"
                found.run.record(**{name: score.values})
            scores.append(score)
    return scores


def robustness_of(
    synthetic: SyntheticSet, wanted: Measurement, judge: Judge, target: Target, whole_accuracy: float | None
) -> Robustness:
    """The scores of one set: for each network a draw of random images of its own, as the package has it."""
    if whole_accuracy is None:
        beside = whole_score(
            synthetic, target, wanted.protocol, judge.engine, arch=wanted.arch, seed=judge.seed, report=judge.report
        )
        whole_accuracy = beside.mean
    plain, arch, runs = replace(wanted, protocol=wanted.protocol + PLAIN, seeds=1), wanted.arch, []
    for k in range(wanted.seeds):
        own = replace(judge, seed=judge.seed + k)
        random = random_alike(synthetic, target, own)
        pairs = [(hard(synthetic), False), (synthetic, False), (random, False), (synthetic, True), (random, True)]
        scores = [own.measure(s, target, plain if bare else replace(wanted, seeds=1)) for s, bare in pairs]
        runs.append(Accuracies(whole_accuracy / 100, *(score.mean / 100 for score in scores)))
        arch = scores[0].arch
    return Robustness(
        stage=synthetic.stage,
        method=synthetic.method,
        ipc=synthetic.ipc,
        arch=arch,
        protocol=wanted.protocol,
        dataset=target.name,
        networks=len(runs),
        figures=figures_of(runs),
    )


def figures_of(runs: Sequence[Accuracies]) -> dict[str, tuple[float, float]]:
    """Every figure by name, its mean and standard deviation over networks."""
    percent = {name: [100 * getattr(run, name) for run in runs] for name in asdict(runs[0])}
    percent |= {
        "hlr": [100 * run.hard_label_recovery for run in runs],
        "ior": [100 * run.improvement_over_random for run in runs],
        "ior_plain": [100 * run.improvement_without_augmentation for run in runs],
    }
    shares = {"lrs": [run.label_robust() for run in runs], "ars": [run.augmentation_robust() for run in runs]}
    spread = {name: statistics.stdev(values) if len(values) > 1 else 0.0 for name, values in (percent | shares).items()}
    return {name: (round(statistics.fmean(v), 4), round(spread[name], 4)) for name, v in (percent | shares).items()}


def hard(synthetic: SyntheticSet) -> SyntheticSet:
    """The set with the classes that its images were drawn for as labels, at the same scale."""
    labels = one_hot(synthetic.hard, synthetic.num_classes)
    bare = replace(synthetic, labels=labels, label_scale=1.0, label_method="hard")
    return bare.scaled(synthetic.label_scale)


def random_alike(synthetic: SyntheticSet, target: Target, judge: Judge) -> SyntheticSet:
    """As many random real images, with labels of the same kind: their classes, or fitted as MGDD's where the set's are soft."""
    if synthetic.label_method == "hard":
        return random_subset(target.train, synthetic, judge.seed)
    data, engine = seen_alike(target.train, synthetic), judge.engine
    rows = draw_pool(data, synthetic.ipc, judge.seed, repeat=True)
    task = methods.Task(
        real=Real.of(data, engine),
        ipc=synthetic.ipc,
        rows=rows.to(engine.device),
        flip=synthetic.flip,
        engine=engine,
        seed=judge.seed,
    )
    settings = methods.settings_of("random", {"labels": "fitted"})
    chosen = methods.make("random", task, settings, engine.rng(judge.seed, "robust", synthetic.ipc))
    judge.report(Note("Fitting labels to random real images."))
    chosen.prepare(judge.report)
    labels = chosen.result()[1].cpu()
    return replace(real_images(data, rows, synthetic.flip), labels=labels, label_method="fitted").scaled(
        synthetic.label_scale
    )
