"""What a run is about to do, in a few lines for people: said before its first stage."""

from collections.abc import Iterator

from ddtool import methods
from ddtool.config import RunConfig
from ddtool.events import Note
from ddtool.pipeline.session import Session
from ddtool.sources.load import Target
from ddtool.text import count


def say_overview(session: Session, target: Target) -> None:
    """Say the data, the sets, the device, the stages and the folder of a run, a line each."""
    lines = {
        "Data": data_words(target),
        "To make": sets_words(session.config, target),
        "Device": session.engine.describe(),
        "Stages": budget_words(session.config) + ", ".join(stages(session)),
        "Folder": str(session.run.folder),
    }
    for name, words in lines.items():
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
    return " and ".join(f"{count(ipc, 'image')} per class, {ipc * C:,} in all" for ipc in config.ipc) + " (--ipc)"


def budget_words(config: RunConfig) -> str:
    """How long the stages before the scores may take together; empty where steps are counted."""
    return "" if config.seconds is None else f"in {config.seconds:g} s, scores not counted: "


def stages(session: Session) -> Iterator[str]:
    """The stages with their steps, or without where seconds decide."""
    config, chosen = session.config, session.config.evaluate
    of_set = " for each set" if len(config.ipc) > 1 else ""
    if session.method.has_generator:
        steps = config.seconds is None
        yield "labels of the initial samples"
        yield f"adaptation ({count(config.adapt.steps, 'step')})" if steps else "adaptation"
        if config.refine.steps:
            yield f"refinement ({count(config.refine.steps, 'step')}{of_set})" if steps else "refinement"
    else:
        settings = methods.settings_of(config.method, config.baseline)
        counted = f" ({count(settings.steps, 'step')}{of_set})" if session.method.learns and not config.seconds else ""
        yield f"{session.method.short_title}{counted}"
    if chosen.enabled:
        yield f"scores by {chosen.protocol} ({count(chosen.seeds, 'network')} for each)"
