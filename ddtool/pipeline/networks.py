"""The networks of a run with a generator: the meta generator that it begins with, f_θ* that judges, f_θ and W_θ of Eq. 3."""

import math
from dataclasses import replace
from pathlib import Path

import torch

from ddtool.config import RunConfig
from ddtool.errors import HubError, RunError
from ddtool.events import Note, Report, silent
from ddtool.hub import generators
from ddtool.models.convnet import ConvNet, RandomFeatures, depth_for
from ddtool.models.generator import Generator, GeneratorConfig
from ddtool.pipeline.session import Session
from ddtool.runs.files import RESTORE
from ddtool.runs.formats import LabelHead
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, finite

WIDEST = 4096
"""The most channels that a label network may have."""


def load_generator(config: RunConfig, report: Report = silent) -> Generator:
    """The meta generator that a configuration names; it is said when the settings ask for another architecture."""
    if config.generator == "scratch":
        return Generator.build(config.architecture, config.seed)
    generator = Generator.load(generators.generator_folder(config.generator))
    if config.architecture not in (GeneratorConfig(), generator.config):
        slots, side = generator.config.slots, generator.config.side
        report(Note(f"The generator stays at {slots} slots, side {side}: settings of 'architecture' are for scratch."))
    return generator


def pretraining_seconds(config: RunConfig) -> float | None:
    """What the pre-training of the generator took, by what it (untrusted) says of itself; None when it does not say."""
    if config.generator == "scratch":
        return None
    try:
        facts = generators.pretraining_of(config.generator)
        seconds = float(facts["seconds"]) if type(facts["seconds"]) in (int, float) else math.nan
    except (HubError, OSError, ValueError, LookupError, TypeError, OverflowError):
        return None
    return seconds if 0 <= seconds < math.inf else None


def feature_network(session: Session, shape: tuple[int, int, int]) -> RandomFeatures:
    """The network that f_θ* is drawn into, for images of `shape` (c, h, w)."""
    settings = session.config.features
    return RandomFeatures.doubling(shape, settings.width, settings.norm, session.engine, session.rng("features"))


def fixed_features(shape: tuple[int, int, int], width: int, engine: Engine, rng: torch.Generator) -> RandomFeatures:
    """f_θ of Eq. 3: one network, kept for the whole run."""
    return RandomFeatures(shape, (width,) * depth_for(shape), "none", engine, rng)


def load_labels(run: Run, engine: Engine) -> tuple[RandomFeatures, LabelHead]:
    """f_θ of Eq. 3 as the run keeps it, and all that is kept with it, W_θ on the device; RunError when they do not fit."""
    head = run.load_label_head()
    check_labels(head, run.folder)
    f = fixed_features(head.shape, head.label_width, engine, engine.rng(0, "unused"))
    f.net.body.load_state_dict(head.theta)
    return f, replace(head, W=head.W.to(engine.device))


def check_labels(head: LabelHead, folder: Path) -> None:
    """RunError unless θ and W_θ are what their description says; the network itself is not made."""
    shape, width = head.shape, head.label_width
    if not 1 <= width <= WIDEST:
        raise RunError(f"The label network of {folder} is refused: its width is {width}.", RESTORE)
    with torch.device("meta"):
        net = ConvNet(shape, 1, (width,) * depth_for(shape), "none")
    expected = {name: value.shape for name, value in net.body.state_dict().items()}
    if {name: value.shape for name, value in head.theta.items()} != expected:
        raise RunError(f"The label network of {folder} does not fit its description.", RESTORE)
    if head.W.shape != (net.feature_dim, len(head.class_names)):
        raise RunError(f"The label head of {folder} does not fit its description.", RESTORE)
    if not all(value.dtype == torch.float32 and finite(value) for value in (*head.theta.values(), head.W)):
        raise RunError(f"The label network of {folder} has values that are not finite numbers.", RESTORE)
