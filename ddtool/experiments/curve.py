"""How good the set of a run was along its steps: the points that `ddtool adapt --curve` kept, their scores, a table and a plot.

curve.json, curve.csv, curve.md   a line for each point and protocol
curve.svg, curve.png              accuracy over steps and over seconds, for each size and protocol

The seconds of a row are all that a set took, so those before the first step (of labels, of experts) are in every row. On an axis of
seconds they would push the points together at its end. So it begins after them, and its name says how many they are.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ddtool.config import Values
from ddtool.errors import RunError
from ddtool.evaluation.measure import arch_text
from ddtool.evaluation.protocols import KERNEL_RIDGE, version_of
from ddtool.events import Note
from ddtool.experiments.outcome import as_markdown, write, write_rows
from ddtool.experiments.plot import Line, Panel, Point, Style
from ddtool.experiments.sweep import USUAL
from ddtool.pipeline.points import Place, PointSets, check_points
from ddtool.pipeline.scoring import Judge, Measurement, load_target
from ddtool.pipeline.session import Session
from ddtool.runs.facts import Record
from ddtool.runs.run import Run
from ddtool.text import count, dataset_name, shell

FILE = "curve"
HEADERS = ("IPC", "phase", "step", "total", "seconds", "protocol", "accuracy, %", "std", "networks")
COLUMNS = ("--:", ":--", "--:", "--:", "--:", ":--", "--:", "--:", "--:")
NAMES = {"adapt": "adaptation (generator alone)", "refine": "refinement", "distil": "distillation"}
STYLES = {"adapt": Style("#9c5c38", "s"), "refine": Style("#d55e00", "o"), "distil": Style("#1d70b8", "o")}
STEPS, SECONDS = "steps (logarithmic)", "seconds (logarithmic)"


class Row(Record):
    """The score of one point by one protocol. step: of its phase; steps, seconds: as `Place` has them."""

    ipc: int
    phase: str
    step: int
    steps: int
    seconds: float
    protocol: str
    protocol_version: int
    arch: str
    accuracy: float
    std: float
    networks: int


class Rows(Record):
    """What curve.json holds."""

    dataset: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Curve:
    """What is known of the points of a run: scores by size, point and protocol."""

    dataset: str
    scored: tuple[Row, ...]

    def rows(self) -> list[Values]:
        """A row for each score, as JSON values."""
        return [row.stated() for row in self.scored]


def curve(session: Session, protocols: Sequence[str] = USUAL, seeds: int = 1) -> Curve:
    """Score the points of a run that have no score yet, and write the table and the plot into the run.

    Each score is kept as soon as it is there. Raises RunError for a run that kept no points, that is not finished, or with a
    damaged point.
    """
    check_points(session)
    run, target = session.run, load_target(session.config, session.report)
    sets, judge = PointSets(session, target.train), Judge(session.config.seed, session.engine, session.report)
    wanted = [Measurement(protocol, 3 if protocol == KERNEL_RIDGE else seeds) for protocol in protocols]
    places = list(sets.places())
    known = {key(row): row for row in read(run)}
    for number, place in enumerate(places, 1):
        missing = [one for one in wanted if not done(known, place, one, target.train.shape)]
        if not missing:
            continue
        session.report(Note(f"Scoring point {number} of {len(places)}: {place.phase}, step {place.step:,}."))
        synthetic = sets.set_at(place)
        for one in missing:
            score = judge.measure(synthetic, target, one)
            row = Row(
                ipc=place.ipc, phase=place.phase.kind, step=place.step, steps=place.steps,
                seconds=round(place.seconds, 3), protocol=score.protocol, protocol_version=score.protocol_version,
                arch=score.arch, accuracy=score.mean, std=score.std, networks=score.seeds,
            )  # fmt: skip
            known[key(row)] = row
            found = ordered(target.name, known, places)
            write_rows(run.folder, FILE, found.dataset, found.rows())
    found = ordered(target.name, known, places)
    save(run.folder, found)
    return found


Key = tuple[int, str, int, str]


def key(row: Row) -> Key:
    """What a row is of: a point and a protocol."""
    return row.ipc, row.phase, row.step, row.protocol


def done(known: dict[Key, Row], place: Place, one: Measurement, shape: tuple[int, int, int]) -> bool:
    """Whether a point was scored by such networks, by the protocol as it is today."""
    row = known.get((place.ipc, place.phase.kind, place.step, one.protocol))
    wanted = (version_of(one.protocol), arch_text(one.arch, one.protocol, shape), one.seeds)
    return row is not None and (row.protocol_version, row.arch, row.networks) == wanted


def ordered(dataset: str, known: dict[Key, Row], places: Sequence[Place]) -> Curve:
    """The rows of the points that are there, in their order; those by earlier versions of a protocol are left out."""
    order = {(place.ipc, place.phase.kind, place.step): k for k, place in enumerate(places)}
    today = [row for row in known.values() if row.protocol_version == version_of(row.protocol)]
    rows = [row for row in today if (row.ipc, row.phase, row.step) in order]
    return Curve(dataset, tuple(sorted(rows, key=lambda row: (row.protocol, order[row.ipc, row.phase, row.step]))))


# ---------------------------------------------------------------------------------------------------------------- files


def read(run: Run) -> tuple[Row, ...]:
    """The scores that a run holds of its points; RunError when they cannot be used."""
    path = run.folder / f"{FILE}.json"
    if not path.exists():
        return ()
    try:
        return Rows.read(path.read_bytes()).rows
    except (OSError, ValueError) as error:
        hint = f"Remove it; `{shell('ddtool curve', run.folder)}` measures the scores again."
        raise RunError(f"{path} is damaged: {error}.", hint) from error


def save(folder: Path, found: Curve) -> None:
    """Write the table and the plot."""
    markdown = as_markdown(HEADERS, COLUMNS, [cells(row) for row in found.scored])
    write(folder, FILE, found.dataset, found.rows(), markdown, panels(found), STEPS)


def cells(row: Row) -> list[str]:
    """A row as text, by HEADERS."""
    return [
        str(row.ipc), row.phase, f"{row.step:,}", f"{row.steps:,}", f"{row.seconds:.2f}", row.protocol, f"{row.accuracy:.1f}",
        f"{row.std:.1f}", str(row.networks),
    ]  # fmt: skip


def panels(found: Curve) -> list[Panel]:
    """Accuracy over steps and, beside it, over seconds from the first step on, for each size and protocol."""
    shown = []
    for ipc, protocol in sorted({(row.ipc, row.protocol) for row in found.scored}):
        rows = [row for row in found.scored if (row.ipc, row.protocol) == (ipc, protocol)]
        before = seconds_before(rows)
        name, title = dataset_name(found.dataset), f"{count(ipc, 'image')} per class, {protocol}"
        shown.append(Panel(name, title, lines(rows, lambda row: row.steps), (), STEPS))
        after = lines(rows, lambda row, before=before: max(0.0, row.seconds - before))  # type: ignore[misc]
        shown.append(Panel(name, title, after, (), seconds_name(before)))
    return shown


def seconds_before(rows: Sequence[Row]) -> float:
    """The seconds before the first step of a set: those of its points of no step; where there is none, of its first point."""
    return max((row.seconds for row in rows if row.steps == 0), default=min(row.seconds for row in rows))


def seconds_name(before: float) -> str:
    """The name of an axis of seconds that begins after so many."""
    return f"seconds after the first {before:,.1f} (logarithmic)" if before >= 0.05 else SECONDS


def lines(rows: Sequence[Row], x: Callable[[Row], float]) -> tuple[Line, ...]:
    """A line for each phase."""
    return tuple(
        Line(NAMES[kind], points, STYLES[kind], strong=True)
        for kind in NAMES
        if (points := tuple(Point(x(row), row.accuracy, row.std) for row in rows if row.phase == kind))
    )
