"""Any IPC from one adapted generator: its sets of seen and unseen sizes, their scores, a table and a curve in the run's folder.

sweep.json, sweep.csv, sweep.md   a line for each size and kind of images
sweep.svg, sweep.png              accuracy over images per class, a panel for each protocol
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from ddtool.config import RunConfig, Values
from ddtool.data.images import SyntheticSet
from ddtool.errors import RunError, UsageError
from ddtool.evaluation.measure import arch_text
from ddtool.evaluation.protocols import KERNEL_RIDGE, Score, version_of
from ddtool.events import Note
from ddtool.experiments.outcome import as_markdown, write
from ddtool.experiments.plot import Line, Panel, Point, Style
from ddtool.pipeline.generate import generate, restore_stages
from ddtool.pipeline.scoring import Judge, Measurement, load_target, random_subset
from ddtool.pipeline.session import Session
from ddtool.runs.run import Run
from ddtool.sources.load import Target
from ddtool.text import count, dataset_name

USUAL = (KERNEL_RIDGE, "quick")
"""The protocols of a sweep."""
SIZES = (1, 2, 5, 10, 20, 30, 50, 100)
"""Images per class of a sweep."""
GENERATED, RANDOM = "generated", "random"
NAMES = {GENERATED: "generator alone", RANDOM: "random real images"}
STYLES = {GENERATED: Style("#d4351c", "o"), RANDOM: Style("#7f7f7f", "s")}
SEEN, SEEN_STYLE = "seen in adaptation", Style("#1d70b8", "D")
"""The marks on the sizes that the generator was adapted for."""
FILE = "sweep"
HEADERS = ("IPC", "seen", "images", "protocol", "accuracy, %", "std", "networks")
COLUMNS = ("--:", ":--", ":--", ":--", "--:", "--:", "--:")


@dataclass(frozen=True)
class Swept:
    """What a sweep has found: scores of the generator's sets and of random real images, and the sizes seen in adaptation."""

    dataset: str
    scores: tuple[Score, ...]
    seen: tuple[int, ...]

    def rows(self) -> list[Values]:
        """A row for each score, by size, images and protocol."""
        ranked = sorted(self.scores, key=lambda s: (s.ipc, s.protocol, s.stage))
        return [
            {
                "ipc": s.ipc, "seen": s.ipc in self.seen, "images": NAMES[s.stage], "protocol": s.protocol,
                "accuracy": s.mean, "std": s.std, "networks": s.seeds,
            }
            for s in ranked
        ]  # fmt: skip


def sweep(
    session: Session, ipcs: Sequence[int], protocols: Sequence[str] = USUAL, seeds: int = 1, baseline: bool = True
) -> Swept:
    """Make and score the sets of every size that are not there yet; write the table and the curve into the run.

    Every size is the generator's alone, refined sets are left as they are. A score that the run holds is not measured again.
    Raises RunError for a run without a generator, UsageError for a size that the dataset cannot fill.
    """
    run = session.run
    if not session.method.has_generator or not run.has_generator():
        hint = "Only a finished run of MGDD makes sets of any size: `ddtool adapt DATASET`."
        raise RunError(f"{run.folder} has no adapted generator.", hint)
    target = load_target(session.config, session.report)
    sizes = possible(ipcs, session.config, target)
    wanted = [Measurement(protocol, 3 if protocol == KERNEL_RIDGE else seeds) for protocol in protocols]
    judge = Judge(session.config.seed, session.engine, session.report)
    for ipc in sizes:
        made = generated_set(session, ipc)
        sets = [made, random_subset(target.train, made, session.config.seed)] if baseline else [made]
        for synthetic, one in product(sets, wanted):
            if not one.done(run.noted().scores, synthetic, target.name):
                run.record_score(judge.measure(synthetic, target, one))
        found = gathered(run, target, sizes, wanted, baseline)
        save(run.folder, found)
    return found


def possible(ipcs: Sequence[int], config: RunConfig, target: Target) -> list[int]:
    """The sizes in order, once each; UsageError when there is none, or one that the smallest class cannot fill."""
    sizes, held, each = sorted(set(ipcs)), int(target.train.class_counts().min()), config.samples(1)
    most = held // each
    if not sizes or sizes[0] < 1:
        raise UsageError("A sweep takes sizes of at least 1 image per class.", "For example --ipc 1,2,5,10,20.")
    if sizes[-1] > most and not config.allow_repeat:
        fitting = ",".join(str(n) for n in sizes if n <= most) or str(most)
        taken = f", of which each image of a set takes {each}" if each > 1 else ""
        message = f"ipc {sizes[-1]} is more than the smallest class holds ({held}{taken})."
        raise UsageError(message, f"Try --ipc {fitting}.")
    return sizes


def generated_set(session: Session, ipc: int) -> SyntheticSet:
    """The set of the generator alone: that of the run, beside a refined one too, or else a new one."""
    run = session.run
    if not run.set_path(ipc).exists():
        session.report(Note(f"Generating {count(ipc, 'image')} per class."))
        generate(session, ipc)
    final = run.load_set(ipc)
    if final.stage != GENERATED and not run.set_path(ipc, GENERATED).exists():
        restore_stages(session, ipc)  # a pulled run has none
    return final if final.stage == GENERATED else run.load_set(ipc, GENERATED)


def gathered(run: Run, target: Target, sizes: Sequence[int], wanted: Sequence[Measurement], baseline: bool) -> Swept:
    """The scores of a sweep that the run holds by now; those by other networks stay outside."""
    stages, config = (GENERATED, RANDOM) if baseline else (GENERATED,), run.config()
    keys = {(one.protocol, arch_text(one.arch, one.protocol, target.train.shape), one.seeds) for one in wanted}
    scores = tuple(
        s for s in run.noted().scores
        if s.ipc in sizes and s.stage in stages and s.key.usual and s.dataset == target.name
        and (s.protocol, s.arch, s.seeds) in keys and s.protocol_version == version_of(s.protocol)
    )  # fmt: skip
    return Swept(target.name, scores, config.adapt.seen_ipcs or config.ipc)


# ---------------------------------------------------------------------------------------------------------------- files


def save(folder: Path, found: Swept) -> None:
    """Write the table and the curve."""
    markdown = as_markdown(HEADERS, COLUMNS, [cells(row) for row in found.rows()])
    write(folder, FILE, found.dataset, found.rows(), markdown, panels(found), "images per class (logarithmic)")


def cells(row: Values) -> list[str]:
    """A row as text, by HEADERS."""
    return [
        str(row["ipc"]), "yes" if row["seen"] else "no", str(row["images"]), str(row["protocol"]), f"{row['accuracy']:.1f}",
        f"{row['std']:.1f}", str(row["networks"]),
    ]  # fmt: skip


def panels(found: Swept) -> list[Panel]:
    """Accuracy over size, a panel for each protocol; the sizes seen in adaptation are marked."""
    return [
        Panel(dataset_name(found.dataset), protocol, tuple(lines(found, protocol)))
        for protocol in sorted({score.protocol for score in found.scores})
    ]


def lines(found: Swept, protocol: str) -> list[Line]:
    """The lines of one panel."""
    out = []
    for stage, words in NAMES.items():
        there = sorted((s for s in found.scores if (s.stage, s.protocol) == (stage, protocol)), key=lambda s: s.ipc)
        points = tuple(Point(s.ipc, s.mean, s.std) for s in there)
        if points:
            out.append(Line(words, points, STYLES[stage], strong=stage == GENERATED))
        if stage == GENERATED and (seen := tuple(point for point in points if point.x in found.seen)):
            out.append(Line(SEEN, seen, SEEN_STYLE, strong=True, joined=False))
    return out
