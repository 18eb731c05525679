"""A comparison in words: the title, the cells of its tables, and the notes that a reader needs."""

import math
import re
from collections.abc import Iterator, Sequence

from ddtool.data.images import ImageData
from ddtool.evaluation.protocols import CE, KERNEL_RIDGE, PROTOCOLS, protocols_in
from ddtool.experiments.grid import Job, Request, entry_of
from ddtool.experiments.published import PAPER, TITLES, known_dataset
from ddtool.experiments.table import PLAIN, WHOLE, Comparison, Row, Speedup, in_place_of_one, order
from ddtool.models.registry import DEFAULT
from ddtool.text import count, dataset_name, duration

EQUAL, FULL = "the paper, %", f"published by {CE}, %"
OF_OTHERS = (EQUAL, FULL)
"""The columns that were not measured here."""
HEADERS = (
    "method",
    "IPC",
    "budget",
    "accuracy, %",
    EQUAL,
    FULL,
    "steps",
    "s in steps",
    "s of overhead",
    "pre-training, s",
    "peak MiB",
    "set, KiB",
)
CE_SECONDS = 1.5
"""Seconds that one CPU core with bf16 takes to train a network by dsa-ce, for each image of 32x32 in the set. One of an AMD EPYC
(AVX-512 bf16) took 2.0 with 10 images, and 1.3 with 100."""
SPEEDUP_HEADERS = ("IPC", "baseline", "its accuracy, %", "its s", "reached by", "accuracy, %", "s", "speedup")


def title(found: Comparison) -> str:
    """What is compared."""
    return f"Dataset distillation on {dataset_name(found.request.dataset)}"


def per_class(ipc: int) -> str:
    """An IPC in words."""
    return f"{count(ipc, 'image')} per class"


def heading(found: Comparison, ipc: int, several: bool) -> str:
    """The heading of a table: the IPC, and the protocol where there are several."""
    return per_class(ipc) + (f", protocol {found.request.protocol}" if several else "")


def lead(found: Comparison) -> str:
    """One line on the conditions."""
    names = [one.request.protocol for one in found.by_protocol]
    which = f"Protocol{'s' * (len(names) > 1)} {' and '.join(names)}"
    return f"{which}, {networks(found)} a job; {', '.join(found.devices) or 'nothing is finished yet'}."


def networks(found: Comparison) -> str:
    """How many networks a job's score is the mean of, and which, where they are not the usual ones."""
    number, arch = count(found.request.networks, "fresh network"), found.request.arch
    if arch == DEFAULT:
        return number
    guided = any(one.request.protocol == KERNEL_RIDGE for one in found.by_protocol)
    return f"{number} ({arch}{f', but for {KERNEL_RIDGE}' * guided})"


def cost(request: Request, jobs: Sequence[Job], train: ImageData, whole: bool = False) -> str:
    """What the scores of jobs that are still to do come to: how many networks, and about how long those of dsa-ce take. train: the
    real images;  whole: a network is trained on all of them as well."""
    names = protocols_in(request.protocol)
    trained = count(len(jobs) * request.networks, "network")
    said = f"Scores: {trained} by {' and as many by '.join(names)}; their seconds are in no budget."
    if CE not in names:
        return said
    images = sum(images_trained_on(job, request, train.num_classes) for job in jobs)
    seconds = CE_SECONDS * request.networks * images * math.prod(train.shape[1:]) / 32**2
    advice = f" For a first look: --protocol {names[0]}." if names[0] != CE else ""
    control = (
        f" On the whole training set {CE} takes {PROTOCOLS[CE].steps(len(train)):,} steps, for which it needs a GPU."
    )
    return (
        f"{said} {CE} trains each of its networks for 1,000 epochs, about {duration(seconds)} in all on one CPU core with bf16; a "
        f"GPU takes a small part of that.{advice}{control * whole}"
    )


def images_trained_on(job: Job, request: Request, classes: int) -> int:
    """The images that the networks of a job's scores by dsa-ce train on in an epoch; those by its authors' protocol, too, which
    stand beside them in the run of the job."""
    own = 2 if entry_of(job.method).method.own_protocol else 1
    return job.ipc * classes * request.factor_for(job.method) ** 2 * own


def number(value: float | None) -> str:
    """A figure with the digits that matter; a dash for none."""
    if value is None:
        return "–"
    return f"{value:,.1f}" if 0 < abs(value) < 10 else f"{value:,.0f}"


def accuracy(row: Row) -> str:
    """Mean ± std (n), or what became of the jobs."""
    troubles = [f"{row.failed} failed"] * (row.failed > 0) + [f"{row.waiting} to go"] * (row.waiting > 0)
    if row.accuracy is None:
        return "failed" if not row.waiting else "to go" if not row.failed else ", ".join(troubles)
    spread = f" ± {row.std:.1f}" if row.std else ""
    return f"{row.accuracy:.1f}{spread} ({', '.join([f'n={row.seeds}', *troubles])})"


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, by `HEADERS`."""
    share = "" if row.pretraining_seconds is None else f" ({number(row.pretraining_share)})"
    steps = "–" if row.steps is None else f"{row.steps:,.0f}"
    return (
        row.title, str(row.ipc), str(row.budget or "–"), accuracy(row), percent(row.equal_steps_accuracy),
        percent(row.published_accuracy) + own_protocol(row), steps, number(row.step_seconds),
        number(row.overhead_seconds), number(row.pretraining_seconds) + share, number(row.peak_memory_mib),
        number(None if row.set_bytes is None else row.set_bytes / 1024),
    )  # fmt: skip


def percent(value: float | None) -> str:
    """A published accuracy; a dash where none is known."""
    return "–" if value is None else f"{value:.1f}"


def own_protocol(row: Row) -> str:
    """The protocol of a published figure, where the header of its column names another."""
    return f" ({row.published_protocol})" if row.published_protocol not in ("", CE) else ""


def columns(found: Comparison) -> list[str]:
    """The headers of the table of one IPC: those that say something here. Where all budgets are steps, `steps` is enough."""
    left_out = {"IPC"}
    if not any(timed(row) for row in found.rows):
        left_out.add("budget")
    if all(row.equal_steps_accuracy is None for row in found.rows):
        left_out.add(EQUAL)
    if all(row.published_accuracy is None for row in found.rows):
        left_out.add(FULL)
    if all(row.pretraining_seconds is None for row in found.rows):
        left_out.add("pre-training, s")
    if all(row.set_bytes is None for row in found.rows):
        left_out.add("set, KiB")
    return [name for name in HEADERS if name not in left_out]


def published_table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """What others have published as a table of its own, for a narrow place: headers, and a line for each method that has a figure
    (at equal steps / at its full budget); no lines where nothing is known."""
    rows = [row for row in found.rows if has_published(row)]
    ipcs, there = sorted({row.ipc for row in rows}), {(row.method, row.ipc): row for row in rows}
    lines = []
    for method in dict.fromkeys(row.method for row in rows):
        own = [there.get((method, ipc)) for ipc in ipcs]
        pairs = [
            f"{percent(row.equal_steps_accuracy)} / {percent(row.published_accuracy)}" if row else "–" for row in own
        ]
        lines.append(
            [method, *pairs, next((row.published_protocol for row in own if row and row.published_protocol), "–")]
        )
    return ["method", *(f"IPC {ipc}" for ipc in ipcs), "published by"], lines


def has_published(row: Row) -> bool:
    """Whether others have a figure for it."""
    return row.equal_steps_accuracy is not None or row.published_accuracy is not None


def line(row: Row, headers: Sequence[str]) -> list[str]:
    """A row as text under some of `HEADERS`; the steps asked for where none were taken."""
    shown = dict(zip(HEADERS, cells(row), strict=True))
    if row.steps is None and "budget" not in headers:
        shown["steps"] = f"{row.budget.amount:,}" if row.budget else "–"
    return [shown[name] for name in headers]


def speedup_cells(found: Speedup) -> tuple[str, ...]:
    """A speed-up as text, by `SPEEDUP_HEADERS`."""
    base, first = found.baseline, found.mgdd
    start = (str(base.ipc), base.title, f"{base.accuracy or 0:.1f}", number(base.total_seconds))
    if first is None or found.speedup is None:
        return (*start, "not reached", "–", "–", "–")
    times = f"{'≥ ' if found.at_least else ''}{found.speedup:.3g}"
    who = f"{first.title}, {first.budget}"
    return (*start, who, f"{first.accuracy or 0:.1f}", number(first.total_seconds), times)


def overview(found: Comparison) -> Iterator[tuple[Row, list[str]]]:
    """The paper's table: each method's accuracy at its largest budget, by IPC."""
    largest: dict[tuple[str, int], Row] = {}
    for row in found.rows:
        rival = largest.get((row.method, row.ipc))
        if rival is None or succeeds(row, rival):
            largest[row.method, row.ipc] = row
    methods = {row.method: row for row in sorted(largest.values(), key=place)}
    for method, row in methods.items():
        there = [largest.get((method, ipc)) for ipc in found.ipcs()]
        yield row, ["–" if cell is None else accuracy(cell) for cell in there]


def succeeds(row: Row, rival: Row) -> bool:
    """Whether a row stands for its method in the place of a rival before it, whose budget is smaller where both are of one unit."""
    if row.accuracy is None or rival.accuracy is None:
        return rival.accuracy is None
    return timed(row) == timed(rival) or (row.total_seconds or 0.0) >= (rival.total_seconds or 0.0)


def place(row: Row) -> tuple[bool, bool, int]:
    """Where a method stands in the paper's table."""
    return row.ours, row.group != PLAIN, order(row.method)[0]


def short_title(row: Row) -> str:
    """A method's title without authors and year, with what stands behind them."""
    return re.sub(r" \([^()]*\)", "", row.title)


def timed(row: Row) -> bool:
    """Whether the budget of a row is in seconds."""
    return row.budget is not None and row.budget.unit == "seconds"


def notes(found: Comparison) -> list[str]:
    """What one has to know to read the tables, and what went wrong."""
    return [*of_columns(found), *of_settings(found), *of_jobs(found)]


def of_columns(found: Comparison) -> Iterator[str]:
    """Notes on what the columns hold."""
    yield (
        f"Accuracy: percent of the test split, of {networks(found)} a job. ± is the standard deviation over n seeds; "
        "over the networks where there is one seed."
    )
    yield from of_published(found)
    yield (
        "s of overhead: work of the method that is not a step, such as experts, inner networks and labels. "
        "Data, scores and the start of the process are in no column."
    )
    for method in dict.fromkeys(row.method for row in found.rows if timed(row)):
        if (record := entry_of(method).method).unbudgeted:
            beside = f"{record.short_title}'s {record.unbudgeted} come on top of it."
            yield f"A budget in seconds is for steps and overhead: {beside}"
    if any(row.set_bytes is not None for row in found.rows):
        yield (
            "Set: 8-bit pixels, labels (soft ones in float32, of hard ones two bytes an image) and the whitening. Methods that "
            "store several images in the place of one take the same pixels."
        )
    if any(row.pretraining_seconds is not None for row in found.rows):
        yield (
            "Pre-training: the whole of it, once for all targets, and in brackets its share, divided by the MGDD jobs of "
            "this table. It is neither in the plot's seconds nor in the speed-ups; results.json has the speed-ups with the "
            "whole of it."
        )
    if any(row.title == WHOLE for row in found.rows):
        yield (
            "Whole training set: one network trained on all of it with hard labels, by the same protocol (at most 5,000 steps of "
            "quick, 40,000 of frepo-mse and dsa-ce, 160,000 of idc-ce). It is no job, and the same at every size."
        )
    if found.speedups:
        yield (
            "Speedup: the seconds of a baseline at the budget where it is most accurate, divided by those of MGDD's first "
            "budget with at least that mean accuracy. ≥: that is MGDD's smallest budget, a smaller one might do."
        )


def of_published(found: Comparison) -> Iterator[str]:
    """Notes on the figures of others."""
    dataset = TITLES.get(known_dataset(found.request.dataset) or "", "")
    if any(row.equal_steps_accuracy is not None for row in found.rows):
        yield (
            f"The paper: what the table of MGDD's paper has for {dataset} ({PAPER}), every method after the same number of "
            "steps. It names neither that number nor the protocol."
        )
    whose: dict[str, dict[str, None]] = {}
    for row in found.rows:
        if row.published_accuracy is not None:
            whose.setdefault(row.published_source, {})[short_title(row)] = None
    sources = "; ".join(f"{' and '.join(titles)}: {source}" for source, titles in whose.items())
    if sources:
        yield (
            f"Published: what each method's publication has for {dataset} at its full budget, which is hours of a GPU, by {CE} "
            "or the protocol in brackets. It compares with scores by that protocol alone, and only at that budget. "
            f"Sources: {sources}."
        )


def of_settings(found: Comparison) -> Iterator[str]:
    """Notes on what the methods have in common and where they differ."""
    if found.request.published:
        yield (
            "Every method has the network and the settings of its publication, but for what docs/methods.md lists as ours: "
            "widths differ, MGDD's are those of its preset (32-64-128 where none is named)."
        )
    else:
        yield (
            "Distillation networks have 32-64-128 channels for all, unless a setting says otherwise, and the norm layer of each "
            "method (FRePo batch, MGDD and herding none, the others instance). Settings suit minutes; they were chosen on images "
            "held out of CIFAR-10, learning rates also on FashionMNIST, at IPC 1 and 10."
        )
    for factor in sorted({row.factor for row in found.rows if row.factor > 1}):
        names = ", ".join(dict.fromkeys(row.method for row in found.rows if row.factor == factor))
        yield f"{in_place_of_one(factor)} ({names}): smaller ones, stored at the same size; not the storage of the others."


def of_jobs(found: Comparison) -> Iterator[str]:
    """Notes on where the jobs ran and what became of them."""
    if found.shared:
        yield "Jobs ran beside each other on one device: seconds are longer than those of a job alone."
    if len(found.devices) > 1:
        yield f"Seconds are from different devices: {'; '.join(found.devices)}."
    if found.changed:
        yield (
            "Files of the dataset have changed between jobs. If images are among them, the jobs are not of the same data: begin "
            "anew in another folder."
        )
    yield from (f"Failed: {job}. {reason}" for job, reason in found.failures)
    if found.waiting:
        yield f"{count(found.waiting, 'job')} still to do."
