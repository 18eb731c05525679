"""What people read in place of names in files: of the facts in results.json, and of phases, wherever they are shown."""

import re
from typing import TYPE_CHECKING

from ddtool.events import Phase
from ddtool.text import count

if TYPE_CHECKING:
    from ddtool.evaluation.protocols import Score

FACTS = {
    "train_images": "training images",
    "flip": "images may be flipped",
    "pool_ipc": "initial samples kept per class",
    "pretraining_seconds": "pre-training, seconds",
    "peak_memory_mib": "peak memory, MiB",
    "factor": "smaller images in each image",
    "pulled": "pulled from",
    "nearest_real": "distance to the nearest real image, levels of 255",
}
"""Facts of a run; others are called in words already."""
PHASES = {
    "list files": "listing the files",
    "look at files": "telling images from other files",
    "read files": "reading the files",
    "read sizes": "reading the sizes of the images",
    "read labels": "reading the labels",
    "unpack": "unpacking the archive",
    "decode train": "decoding the training images",
    "decode test": "decoding the test images",
    "whitening": "trying out whitening",
    "labels": "computing the analytical labels",
    "pool labels": "fitting labels to the initial samples",
    "adapt": "adapting the generator",
    "generate": "generating {images}",
    "fit labels": "fitting labels to {images}",
    "refine": "refining {images}",
    "distil": "distilling {images}",
    "experts": "training the experts",
    "pretrain": "pre-training the generator",
    "job": "the job, in its present phase",
    "validate": "validating on held-out classes",
    "adapt command, until the sets were written": "all until the sets were written",
}
"""Kinds of phases; {images} are those of the set that a phase is of. Phases of scores have words of their own."""
TRANSFERS = {"download": "downloading", "upload": "uploading"}
"""Kinds of phases that end with the name of a repo."""
SCORED = {"random": "random real", "initial": "initial", "full": "real"}
"""What the images of a set that is scored are called, where that is not the name of its stage."""
STAGES = {
    "initial": "random real images (initial samples)",
    "random": "random real images",
    "generated": "generator",
    "refined": "refined",
    "full": "whole training set",
}
"""The stages of MGDD, and of what stands beside them."""


def fact(name: str) -> str:
    """The name of a fact in words."""
    of = Phase.parse(name)
    words = FACTS.get(of.kind, of.kind.replace("_", " "))
    return words if of.ipc is None else f"{words}, IPC {of.ipc}"


def unusual(score: "Score") -> str:
    """How the images of a score were used where that is not as usual, to follow their name. Real images are bytes already."""
    from ddtool.evaluation.protocols import EXACT, NOT_WHITENED  # not for `ddtool -h`, which needs the words alone

    exact = score.pixels == EXACT and score.stage != "random"
    return ", not rounded" * exact + ", not whitened" * (score.inputs == NOT_WHITENED)


def phase(name: str, classes: int | None = None) -> str:
    """A phase in words, such as 'refining the 100 images'; where `classes` is not known 'refining 10 images per class'."""
    of = Phase.parse(name)
    if trained := re.fullmatch(r"net (\d+)/(\d+)", of.part):
        protocol, _, stage = of.kind.rpartition(" ")
        on = images(of.ipc, classes, SCORED.get(stage, stage))
        return f"network {trained[1]} of {trained[2]} trained on {on} ({protocol})"
    first, _, rest = of.kind.partition(" ")
    words = PHASES.get(of.kind) or (f"{TRANSFERS[first]} {rest}" if first in TRANSFERS else of.kind)
    if "{images}" in words:
        words = words.replace("{images}", images(of.ipc, classes))
    elif of.ipc is not None:
        words = f"{words}, IPC {of.ipc}"
    return f"{words}, {of.part}" if of.part else words


def images(ipc: int | None, classes: int | None, kind: str = "") -> str:
    """The images of a set: 'the 100 refined images', '10 refined images per class', or 'the images' where no IPC is named."""
    thing = f"{kind} image".lstrip()
    if ipc is None:
        return f"the {thing}s"
    return f"{count(ipc, thing)} per class" if classes is None else f"the {count(ipc * classes, thing)}"
