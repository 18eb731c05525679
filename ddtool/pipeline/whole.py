"""The whole training set as a control: what a network reaches on all real images, measured once for a dataset and kept."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from pydantic import TypeAdapter

from ddtool.data.images import ImageData, SyntheticSet, real_images, seen_alike
from ddtool.errors import UsageError
from ddtool.evaluation.measure import train_and_test
from ddtool.evaluation.protocols import KERNEL_RIDGE, LEARNED_LR, NOT_WHITENED, ROUNDED, Score, version_of
from ddtool.events import Note, Report, silent
from ddtool.models.registry import DEFAULT
from ddtool.pipeline.distil import ExpertStore
from ddtool.pipeline.scoring import Found, Judge, Measurement
from ddtool.runs.files import write_json
from ddtool.runtime.engine import Engine
from ddtool.sources.load import Target
from ddtool.text import count

FULL = "full"
"""The stage of its scores."""
SCORE = TypeAdapter(Score)
COPIES = 3
"""Of the images in float32 while networks are trained on them."""
UNFIT = {KERNEL_RIDGE: "it trains no network", LEARNED_LR: "its learning rate was learned with a synthetic set"}
"""Protocols that the whole training set cannot be scored by, and why."""


@dataclass(frozen=True)
class WholeSet(SyntheticSet):
    """All training images with hard labels, to train on as on a set. Its classes need not be equally large: `ipc` is their mean."""

    def __post_init__(self) -> None:
        """Nothing to check."""


def whole_set(train: ImageData, beside: SyntheticSet) -> SyntheticSet:
    """All images of `train`, seen as those of the set beside them are, with labels at the same scale."""
    everything = torch.arange(len(train))
    made = real_images(seen_alike(train, beside), everything, beside.flip, FULL, kind=WholeSet)
    return replace(made, method=FULL, ipc=max(1, made.ipc)).scaled(beside.label_scale)


def whole_score(
    beside: SyntheticSet,
    target: Target,
    protocol: str,
    engine: Engine,
    *,
    arch: str = DEFAULT,
    seed: int = 0,
    report: Report = silent,
) -> Score:
    """The accuracy of one network trained on the whole training set by a protocol, at the IPC of the set that it stands beside.

    It is measured once for a dataset, protocol, network and what networks see, and kept below the cache. UsageError where the
    images do not fit into memory.
    """
    file = kept(beside, target, protocol, arch, seed)
    score = read(file)
    if score is None:
        check_fits_memory(target.train, engine)
        images = count(len(target.train), "training image")
        report(Note(f"Training a network on all {images} by {protocol}: once for this dataset, and it may take long."))
        whole = whole_set(target.train, beside)
        score = train_and_test(whole, target.test(), protocol, engine, arch=arch, seeds=1, seed=seed, report=report)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, score.to_dict())
    return replace(score, ipc=beside.ipc, dataset=target.name, pixels=ROUNDED)


def trained(protocols: Sequence[str], report: Report = silent) -> list[str]:
    """Those protocols by which the whole training set can be scored; `report` hears why not by another."""
    for protocol in dict.fromkeys(p for p in protocols if p in UNFIT):
        report(Note(f"The whole training set is not scored by {protocol}: {UNFIT[protocol]}."))
    return [protocol for protocol in protocols if protocol not in UNFIT]


def whole_scores(found: Found, wanted: Sequence[Measurement], judge: Judge, target: Target) -> list[Score]:
    """The whole training set beside every set that was found, by each measurement that trains networks; recorded in their run."""
    scores = []
    fit = trained([one.protocol for one in wanted], judge.report)
    for one in (one for one in wanted if one.protocol in fit):
        for synthetic in {s.ipc: s for s in found.sets}.values():
            seen = replace(synthetic, whitening=None) if one.inputs == NOT_WHITENED else synthetic
            score = whole_score(
                seen, target, one.protocol, judge.engine, arch=one.arch, seed=judge.seed, report=judge.report
            )
            scores.append(replace(score, inputs=one.inputs))
            if found.run:
                found.run.record_score(scores[-1])
    return scores


def kept(beside: SyntheticSet, target: Target, protocol: str, arch: str, seed: int) -> Path:
    """The file of a score: its name follows from all that the score depends on."""
    what = [protocol, version_of(protocol), arch, seed, beside.flip, beside.label_scale, beside.mean, beside.std]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]
    return ExpertStore(seen_alike(target.train, beside)).folder / f"whole-{digest}.json"


def read(file: Path) -> Score | None:
    """The score in a file; None where there is none that can be used."""
    try:
        return SCORE.validate_json(file.read_bytes())
    except (OSError, ValueError):
        return None


def check_fits_memory(train: ImageData, engine: Engine) -> None:
    """UsageError where all images in float32 would take more memory than there is to work in."""
    needed = COPIES * 4 * train.images.numel()
    if needed > engine.memory:
        sizes = f"{needed / 2**30:,.1f} GiB; there are {engine.memory / 2**30:,.1f} GiB to work in"
        raise UsageError(f"To train on the whole training set takes {sizes}.", "Leave it out, or raise --memory.")
