"""What a run is about to do, in a few lines for people: said before its first stage."""

from collections.abc import Iterator
from dataclasses import replace

from ddtool import methods
from ddtool.config import RunConfig
from ddtool.errors import UsageError
from ddtool.events import Note
from ddtool.methods import mgdd
from ddtool.pipeline.plan import check_ipcs
from ddtool.pipeline.session import Session
from ddtool.runs.facts import ProbedPace
from ddtool.sources.load import Target
from ddtool.text import count, duration

FEW_CLASSES = 20
"""Up to so many classes a factor of 2 is named at one image per class: with ten it is worth 5 to 8 points (docs/results.md), with a
hundred nothing was gained in two minutes."""


def say_overview(session: Session, target: Target) -> None:
    """Say the data, the sets, the device, the stages and the folder of a run, a line each."""
    lines = {
        "Data": data_words(target),
        "To make": sets_words(session.config, target),
        "Copies": copies_words(session.config, target.train.num_classes),
        "Device": session.engine.describe(),
        "Stages": budget_words(session.config) + ", ".join(stages(session)),
        "Folder": str(session.run.folder),
    }
    for name, words in lines.items():
        if not words:
            continue
        session.report(Note(f"{name}: {words}", target.train.num_classes if name == "Data" else None))


def data_words(target: Target) -> str:
    """The dataset: its name, how many images of how many classes, and their size."""
    train = target.train
    _, h, w = train.shape
    images = f"{count(len(train), 'training image')} and {count(target.test_size, 'test image')}"
    return f"{target.name}, {images} of {count(train.num_classes, 'class')}, {w}x{h} pixels"


def sets_words(config: RunConfig, target: Target) -> str:
    """The sets that are asked for, and how to ask for others."""
    C = target.train.num_classes
    sets = " and ".join(f"{count(ipc, 'image')} per class, {ipc * C:,} in all" for ipc in config.ipc)
    if (factor := factor_of(config)) > 1:
        return f"{sets} (--ipc; the default is 10); each holds {factor}x{factor} smaller images (--factor)"
    tip = "; --factor 2 stores four smaller ones in each, which helps much where there is only one"
    return f"{sets} (--ipc; the default is 10{tip if is_for_factor(config, target) else ''})"


def factor_of(config: RunConfig) -> int:
    """The factor of the sets: that of the run, or of a method that has its own, as IDC has."""
    own = methods.settings_of(config.method, config.baseline) if methods.find(config.method).settings else None
    return max(config.factor, getattr(own, "factor", 1))


def copies_words(config: RunConfig, C: int) -> str:
    """The augmented copies that stand beside the images of a set while it is made; empty where there are none."""
    if "refine" not in methods.find(config.method).sections:
        return ""
    stage = config.refine if config.refine.steps else config.adapt
    beside = {ipc: mgdd.copies_of(stage, min(config.samples(ipc) * C, stage.synthetic_batch)) for ipc in config.ipc}
    said = [f"{n} of each image at IPC {ipc}" for ipc, n in beside.items() if n]
    section = "refine" if config.refine.steps else "adapt"
    return f"{' and '.join(said)}, augmented, in each step ({section}.augmented_copies)" if said else ""


def is_for_factor(config: RunConfig, target: Target) -> bool:
    """Whether a factor of 2 is worth naming: where it is known to help much, and such a run would not be refused."""
    if (
        "factor" not in methods.find(config.method).sections
        or config.ipc != (1,)
        or target.train.num_classes > FEW_CLASSES
    ):
        return False
    try:
        check_ipcs(replace(config, factor=2), target.train)
    except UsageError:
        return False
    return True


def budget_words(config: RunConfig) -> str:
    """How long the stages before the scores may take together; empty where steps are counted."""
    return "" if config.seconds is None else f"in {config.seconds:g} s, scores not counted: "


def stages(session: Session) -> Iterator[str]:
    """The stages with their steps, or without where seconds decide, and about how long they take where that was measured."""
    config, chosen = session.config, session.config.evaluate
    of_set = " for each set" if len(config.ipc) > 1 else ""
    counted = config.seconds is None
    if session.method.has_generator:
        labels, adaptation, refinement = estimates(config, measured_pace(session))
        steps, refining = count(config.adapt.steps, "step"), count(config.refine.steps, "step")
        and_sets = "" if labels is None else " and of the sets"
        yield f"labels of the initial samples{and_sets}{in_brackets('', labels)}"
        yield f"adaptation{in_brackets(steps * counted, adaptation)}"
        if config.refine.steps:
            yield f"refinement{in_brackets((refining + of_set) * counted, refinement)}"
    else:
        settings = methods.settings_of(config.method, config.baseline)
        steps = count(settings.steps, "step") + of_set if session.method.learns and counted else ""
        yield f"{session.method.short_title}{in_brackets(steps, None)}"
    if chosen.enabled:
        yield f"scores by {chosen.protocol} ({count(chosen.seeds, 'network')} for each)"


def in_brackets(steps: str, seconds: float | None) -> str:
    """What is known of a stage: its steps, and about how long it takes; empty where nothing is."""
    known = [steps] * bool(steps) + ([] if seconds is None else [f"about {duration(seconds)}"])
    return f" ({', '.join(known)})" if known else ""


def measured_pace(session: Session) -> ProbedPace | None:
    """What the probe of the run has measured; None where there was none, or where it was on another machine."""
    known = session.run.environment()
    return known.pace if known.device == session.engine.describe() else None


def estimates(config: RunConfig, pace: ProbedPace | None) -> tuple[float | None, float | None, float | None]:
    """About how many seconds labels, adaptation and refinement of a set take; None where nothing was measured.

    The labels are those of the initial samples and of every set, with the trials before them: the probe tells them together.
    """
    if pace is None:
        return None, None, None
    if config.seconds is not None:
        left = max(0.0, config.seconds - pace.before_seconds)
        share = config.adapt_share if config.refine.steps else 1.0
        return pace.before_seconds, share * left, (1 - share) * left
    return pace.before_seconds, pace.step_seconds * config.adapt.steps, pace.step_seconds * config.refine.steps
