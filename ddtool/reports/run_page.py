"""The page of a run: what it made beside real images, how good that is, and how it was made."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path

from ddtool import methods
from ddtool.config import RunConfig, to_dict
from ddtool.config.layers import leaves
from ddtool.data.images import SyntheticSet
from ddtool.errors import RunError
from ddtool.evaluation.protocols import KERNEL_RIDGE, Confusion, Score
from ddtool.events import Phase
from ddtool.pipeline.adapt import phases
from ddtool.pipeline.plan import owners_of_foreign_settings
from ddtool.reports import figures
from ddtool.reports.canvas import Drawing, drawn
from ddtool.reports.layout import TEMPLATES, data_uri, page
from ddtool.reports.pictures import MOST_CLASSES, images_shown, pictures
from ddtool.runs import files, words
from ddtool.runs.facts import RunFacts
from ddtool.runs.files import write_atomically
from ddtool.runs.preview import in_words, label_words
from ddtool.runs.run import Run
from ddtool.sharing.command import command
from ddtool.sharing.views import SAMPLE_NAME, broken, number, seconds, size_of
from ddtool.text import count, dataset_name, listed, one_line, shell

TEMPLATE = TEMPLATES / "run.html.j2"
WORST = 30
"""The most classes of the plot of accuracy by class; of more those that are recognised least."""
MOST_MISTAKEN = 5
"""How many pairs of classes are named that are taken for each other."""
MAKING = ("adapt", "refine", "distil")
"""Kinds of phases whose losses are shown."""
GUIDES = (KERNEL_RIDGE, "quick")
"""Protocols that give way to others in the headline, the first one most."""
LARGEST_ANIMATION = 4 * 2**20
"""Bytes of the largest animation that a page holds."""
Cells = Sequence[str]


def write_page(run: Run, path: Path | None = None) -> Path:
    """Write the page of a run as one HTML file, by default report.html in the run; returns its path.

    RunError when the run has no finished set yet, or its files are damaged.
    """
    path = path or run.folder / files.REPORT
    text = page(TEMPLATE, **Shown.of(run).values())
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8"))
    return path


@dataclass(frozen=True)
class Shown:
    """What the page is about: a run and the largest of its sets."""

    run: Run
    config: RunConfig
    results: RunFacts
    made: SyntheticSet

    @classmethod
    def of(cls, run: Run) -> "Shown":
        """The largest finished set of a run; RunError when there is none."""
        if not run.ipcs():
            hint = f"Finish it: `{shell('ddtool adapt --resume', run.folder)}`."
            raise RunError(f"{run.folder} has no synthetic set yet.", hint)
        return cls(run, run.config(), run.noted(), run.load_set(max(run.ipcs())))

    def values(self) -> dict[str, object]:
        """All that the template lays out."""
        return {
            "title": f"{self.dataset}: {count(len(self.made), 'synthetic image')}",
            "lead": self.lead,
            "tiles": list(self.tiles()),
            "measured": self.measured(),
            "images": self.images(),
            "nearest": self.nearest(),
            "curves": self.curves(),
            "animation": self.animation(),
            "classes": self.classes(),
            "scores": (SCORE_HEADERS, [score_cells(score) for score in ordered(self.results.scores)]),
            "again": broken(self.command()),
            "costs": list(self.costs()),
            "phases": [(words.phase(name), seconds(took)) for name, took in self.results.timings.items()],
            "settings": list(self.settings()),
        }

    # ------------------------------------------------------------------------------------------------ what it is

    @property
    def dataset(self) -> str:
        """The dataset's name; of a folder on this disk its last part."""
        if self.made.source.get("kind") == "sample":
            return SAMPLE_NAME
        name = str(self.made.source.get("name") or self.config.dataset)
        return one_line(dataset_name(name), 80)

    @property
    def lead(self) -> str:
        """One line on what the set is."""
        made, record = self.made, methods.find(self.made.method)
        parts = [
            f"{count(made.num_classes, 'class')}, {count(made.ipc, 'image')} per class, {size_of(made.shape)}"
            + f", each holding {made.factor**2} smaller images" * (made.factor > 1),
            f"{'distilled' if record.learns else 'chosen'} by {record.title}",
            self.when,
        ]
        return "; ".join(filter(None, parts)) + "."

    @property
    def when(self) -> str:
        """The day on which the run was started; empty where it is not known."""
        try:
            day = datetime.fromisoformat(self.run.environment().started or "")
        except ValueError:
            return ""
        return f"{day.day} {day:%B %Y}"

    # ------------------------------------------------------------------------------------------------ how good it is

    @cached_property
    def headline(self) -> Score | None:
        """The score of the set that says most: by a protocol of the field, of most networks, before the guides."""

        def merit(score: Score) -> tuple[int, bool, int, int]:
            place = GUIDES.index(score.protocol) if score.protocol in GUIDES else len(GUIDES)
            return place, score.arch.startswith("convnet"), score.seeds, score.protocol_version

        return max(self.scores_of(self.made.stage), key=merit, default=None)

    def scores_of(self, stage: str) -> list[Score]:
        """The scores of this size at a stage, by images as people load them, on the run's own dataset."""
        here = [s for s in self.results.scores if (s.ipc, s.stage) == (self.made.ipc, stage) and s.key.usual]
        return [score for score in here if score.dataset in ("", self.config.dataset, self.made.source.get("name"))]

    def beside(self, stage: str) -> Score | None:
        """The score of another stage that compares with the headline."""
        if self.headline is None:
            return None
        wanted = alike(self.headline)
        return next((score for score in self.scores_of(stage) if alike(score) == wanted), None)

    def tiles(self) -> Iterator[dict[str, str | bool]]:
        """The figures at the top: the set, as many random real images, the generator alone."""
        stages = {self.made.stage: self.headline} | {stage: self.beside(stage) for stage in ("random", "generated")}
        names = {"random": self.random_images, "generated": "generator, before refinement"}
        for stage, score in stages.items():
            if score is not None:
                ours = stage == self.made.stage
                yield {"name": "this set" if ours else names[stage], "figure": accuracy(score), "ours": ours}

    @property
    def random_images(self) -> str:
        """What the random real images beside the set are called: where its images hold several each, theirs do not."""
        return "as many random real images" + ", whole ones" * (self.made.factor > 1)

    def measured(self) -> str:
        """How the figures at the top were measured; empty where nothing was."""
        score = self.headline
        if score is None:
            return ""
        tested = sum(map(sum, score.confusion)) // score.seeds if score.confusion and score.seeds > 0 else 0
        on = f" on {count(tested, 'test image')}" if tested else ""
        return f"Test accuracy, %{on}: protocol {score.protocol_text}, {count(score.seeds, 'network')} ({score.arch})."

    def classes(self) -> dict[str, object] | None:
        """The plots by class and what is mistaken most, of the classes that the test split has images of; None where no score
        keeps its confusion."""
        names, ours = self.made.class_names, counts_of(self.headline, len(self.made.class_names))
        if ours is None or not (tested := [c for c, row in enumerate(ours) if any(row)]):
            return None
        random = counts_of(self.beside("random"), len(names))
        accuracies, theirs = recall(ours), recall(random) if random else None
        least = sorted(sorted(tested, key=lambda c: accuracies[c])[:WORST])
        lines = partial(
            figures.by_class,
            [names[c] for c in least],
            [accuracies[c] for c in least],
            [theirs[c] for c in least] if theirs else None,
            ("this set", self.random_images),
        )
        shares = [[100 * n / max(1, sum(row)) for n in row] for row in ours]
        parts = [f"The {WORST} of {len(tested)} classes that are recognised least."] * (len(tested) > WORST)
        missing = [name for name, row in zip(names, ours, strict=True) if not any(row)]
        parts += [f"The test split has no image of {listed(missing, 3)}."] * bool(missing)
        return {
            "part": " ".join(parts),
            "lines": plot(lines, f"Accuracy by class: {by_name(names, accuracies, least)}."),
            "matrix": plot(
                partial(figures.confusion, names, shares), "For each class, how often it is taken for which."
            ),
            "mistaken": list(mistaken(names, ours)),
        }

    # ------------------------------------------------------------------------------------------------ what is in it

    def images(self) -> dict[str, object]:
        """Images by class: real ones of the beginning, where they are kept, beside the set's own."""
        made, record = self.made, methods.find(self.made.method)
        sets = {in_words(made.stage if record.has_generator else made.method): made}
        first = record.stages[0]
        if record.learns and self.run.set_path(made.ipc, first).exists():
            sets = {in_words(first): self.run.load_set(made.ipc, first)} | sets
        number_shown = images_shown(made, len(sets))
        rows = range(min(made.num_classes, MOST_CLASSES))
        return {
            "part": part_shown(made, len(rows), number_shown, self.run.ipcs()),
            "heads": list(sets),
            "wide": number_shown > 5,
            "label": "" if made.label_method == "hard" else label_words(made),
            "rows": [
                (one_line(made.class_names[c], 60), [pictures(one, c, number_shown) for one in sets.values()])
                for c in rows
            ],
        }

    def nearest(self) -> str:
        """How far the images are from real ones; empty where that was not measured, as in runs of earlier versions."""
        found = self.results.facts.stated().get(str(Phase("nearest_real", self.made.ipc)))
        if not isinstance(found, dict):
            return ""
        median, least = (
            number(value) if isinstance(value, float) else "–" for value in map(found.get, ("median", "least"))
        )
        image = "one of the smaller images, enlarged," if self.made.factor > 1 else "an image of the set"
        return (
            f"From {image} to the nearest real training image: {median} of 255 levels in the median, {least} at "
            "least (root mean square over pixel values; 0 is a copy)."
        )

    def curves(self) -> dict[str, str] | None:
        """The losses of the phases that made the sets, and the accuracy after each stage; None where no loss was kept."""
        losses = {
            words.phase(name): values
            for name, values in self.run.losses().items()
            if Phase.parse(name).kind in MAKING and len(values) > 1
        }
        ends = [f"{name} from {next(iter(v.values())):.3g} to {[*v.values()][-1]:.3g}" for name, v in losses.items()]
        reached = self.accuracies()
        ends += [
            f"accuracy by {name} {' then '.join(map(number, points.values()))} %" for name, points in reached.items()
        ]
        return (
            plot(partial(figures.curves, losses, reached), f"Loss over steps: {'; '.join(ends)}.") if losses else None
        )

    def accuracies(self) -> dict[str, dict[float, float]]:
        """Test accuracy by the seconds after which each stage was there, random real images at none; a line for each protocol.
        Empty for a method without a generator, which has one stage."""
        if not methods.find(self.made.method).has_generator:
            return {}
        timings, refining = self.results.timings, Phase("refine", self.made.ipc)
        before = sum(timings.get(str(phase), 0.0) for phase in phases(self.made.ipc) if phase != refining)
        ends = {"random": 0.0, "generated": before, "refined": before + timings.get(str(refining), 0.0)}
        lines: dict[tuple[str, str, str, int], dict[float, float]] = {}
        for stage, end in ends.items():
            for score in self.scores_of(stage):
                lines.setdefault(alike(score), {})[end] = score.mean
        return {protocol: line for (protocol, *_), line in lines.items() if len(line) > 1}

    def animation(self) -> str:
        """The address of the animation of the refinement; empty where there is none, or one that is too large for a page."""
        path = self.run.folder / files.ANIMATION
        there = path.is_file() and path.stat().st_size <= LARGEST_ANIMATION
        return data_uri(path.read_bytes(), "png") if there else ""

    # ------------------------------------------------------------------------------------------------ how it was made

    def command(self) -> str:
        """The command that makes the set again."""
        local = self.made.source.get("kind") == "local"
        shown = replace(self.config, dataset=self.dataset) if local else self.config
        return command(shown, self.made, self.run.environment(), local)

    def costs(self) -> Iterator[tuple[str, str]]:
        """Time, memory and machine, by name."""
        facts, env = self.results.facts, self.run.environment()
        if spent := facts.spent.get(f"ipc{self.made.ipc}"):
            yield "steps", number(spent.steps, 0)
            yield "seconds in steps", seconds(spent.step_seconds)
            yield "seconds of overhead", seconds(spent.overhead_seconds)
        if facts.pretraining_seconds is not None:
            yield "pre-training of the generator, seconds", number(facts.pretraining_seconds, 0)
        if facts.peak_memory_mib is not None:
            yield "peak memory, MiB", number(facts.peak_memory_mib, 0)
        if env.device:
            yield "machine", one_line(env.device, 200)
        versions = {"ddtool": env.ddtool, "torch": env.torch, "Python": env.python}
        yield "versions", ", ".join(f"{name} {one_line(version, 40)}" for name, version in versions.items() if version)

    def settings(self) -> Iterator[tuple[str, str]]:
        """Every setting that the method uses, by the name that `--set` takes."""
        unused = owners_of_foreign_settings(self.config.method)
        used = {name: value for name, value in to_dict(self.config).items() if name not in unused}
        for name, value in leaves(used):
            yield name, one_line(json.dumps(value, ensure_ascii=False), 200)


# ------------------------------------------------------------------------------------------------------------- scores

SCORE_HEADERS = ("images", "per class", "protocol", "network", "accuracy, %", "networks", "seconds")


def accuracy(score: Score) -> str:
    """Mean, and the standard deviation over networks where there are several."""
    return number(score.mean) + (f" ± {number(score.std)}" if score.seeds > 1 else "")


def alike(score: Score) -> tuple[str, str, str, int]:
    """What two scores have in common that compare."""
    return score.protocol_text, score.arch, score.dataset, score.seeds


def ordered(scores: Sequence[Score]) -> list[Score]:
    """By size, protocol and network, the best last."""
    return sorted(scores, key=lambda s: (s.ipc, s.protocol_text, s.arch, s.dataset, s.mean))


def score_cells(score: Score) -> Cells:
    """A score by `SCORE_HEADERS`."""
    what = in_words(score.method if score.stage == "distilled" else score.stage) + words.unusual(score)
    return (
        what, str(score.ipc), score.protocol_text, score.arch, accuracy(score), str(score.seeds), seconds(score.seconds),
    )  # fmt: skip


def counts_of(score: Score | None, C: int) -> Confusion | None:
    """The confusion of a score, where it is kept and fits the classes."""
    counts = score.confusion if score else None
    return counts if counts and [len(row) for row in counts] == [C] * C else None


def recall(counts: Confusion) -> list[float]:
    """The percentage of each class that is recognised."""
    return [100 * row[c] / max(1, sum(row)) for c, row in enumerate(counts)]


def mistaken(names: Sequence[str], counts: Confusion) -> Iterator[str]:
    """The pairs of classes that are mistaken most, in words."""
    C = len(names)
    wrong = sorted((counts[a][b] / max(1, sum(counts[a])), a, b) for a in range(C) for b in range(C) if a != b)
    for share, a, b in reversed(wrong[-MOST_MISTAKEN:]):
        if share > 0:
            yield f"{one_line(names[a], 40)} is taken for {one_line(names[b], 40)} in {100 * share:.0f} % of its images"


def by_name(names: Sequence[str], values: Sequence[float], chosen: Sequence[int]) -> str:
    """Figures in words, the least first."""
    return ", ".join(f"{one_line(names[c], 40)} {values[c]:.0f} %" for c in sorted(chosen, key=lambda c: values[c]))


# -------------------------------------------------------------------------------------------------------------- words


def part_shown(made: SyntheticSet, classes: int, images: int, ipcs: Sequence[int]) -> str:
    """Which part of the run's images is shown; empty where it is all."""
    parts = [f"the first {classes} of {count(made.num_classes, 'class')}"] * (classes < made.num_classes)
    parts += [f"the first {images} of {count(made.ipc, 'image')} of each class"] * (images < made.ipc)
    others = [str(ipc) for ipc in ipcs if ipc != made.ipc]
    parts += [f"of the largest set (there are others with {' and '.join(others)} per class)"] * bool(others)
    return f"Shown: {', '.join(parts)}." if parts else ""


def plot(figure: Drawing, alt: str) -> dict[str, str]:
    """A figure, on white whatever the screen, and what it shows for those who do not see it."""
    return {"address": data_uri(drawn(figure), "svg"), "alt": one_line(alt, 2000)}
