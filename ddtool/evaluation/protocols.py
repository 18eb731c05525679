"""What a measurement is: the protocols by which networks are trained on a synthetic set, and the scores that come of it."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ddtool.config import Values
from ddtool.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Protocol:
    """One way to train a network on a synthetic set."""

    steps: Callable[[int], int]
    """Optimiser steps for a set of m images."""
    lr: float
    """Peak learning rate."""
    optimiser: str
    """'adam', or 'sgd' with momentum 0.9 and weight decay 5e-4."""
    schedule: Callable[[float, int], float]
    """(fraction done, steps) → factor of the learning rate."""
    batch: int
    """Images a step at most."""
    loss: str
    """'mse' on centred labels, or 'ce' on label distributions."""
    family: str
    """Augmentation family; empty: none."""
    norm: str
    """Norm layer of networks that have it with each (the ConvNets); others keep their own."""
    init: str
    """How weights are drawn."""
    width: int = 128
    """Width of `convnet`; the other networks have their own."""
    cutmix: float = 0.0
    """How often a batch is mixed by CutMix."""
    version: int = 1
    """Raised with every change after which its figures are other ones."""


MANY = 10_240
"""Images of a set from which on training by epochs grows no longer: 1,000 epochs of these are 205 of CIFAR-10's 50,000."""


def quick_steps(m: int) -> int:
    """500 steps, and with more images as many as there are, up to 5,000: 1,000 of CIFAR-100 have learned little in 500."""
    return min(max(500, m), 5_000)


def frepo_steps(m: int) -> int:
    """Training length by set size, FRePo's table: the entry of the first size that is not smaller."""
    table = {10: 1_000, 100: 2_000, 500: 5_000, 1_000: 10_000, 5_000: 40_000}
    return next((steps for size, steps in table.items() if m <= size), 40_000)


def thousand_epochs(batch: int) -> Callable[[int], int]:
    """1,000 epochs; of more images than `MANY`, such as a whole training set, as many steps as those take."""
    return lambda m: 1000 * math.ceil(min(m, MANY) / batch)


def warmup_cosine(warmup: int, lowest: float) -> Callable[[float, int], float]:
    """A linear rise over `warmup` steps, then half a cosine to `lowest` times the highest."""

    def factor(done: float, steps: int) -> float:
        start = min(warmup, steps // 2) / steps
        if done < start:
            return (done + 1 / steps) / start
        return lowest + (1 - lowest) * 0.5 * (1 + math.cos(math.pi * (done - start) / (1 - start)))

    return factor


def halved(done: float, steps: int) -> float:
    """A tenth of the rate in the second half."""
    return 1.0 if done < 0.5 else 0.1


def in_thirds(done: float, steps: int) -> float:
    """A fifth of the rate after two thirds, and a fifth of that after five sixths."""
    return 1.0 if done < 2 / 3 else 0.2 if done < 5 / 6 else 0.04


PROTOCOLS = {
    "quick": Protocol(quick_steps, 1e-3, "adam", warmup_cosine(50, 0.01), 100, "mse", "quick", "none", "lecun", 64),
    "frepo-mse": Protocol(
        frepo_steps, 3e-4, "adam", warmup_cosine(500, 0.01), 500, "mse", "frepo", "none", "lecun", version=2
    ),
    "dsa-ce": Protocol(thousand_epochs(256), 1e-2, "sgd", halved, 256, "ce", "dsa", "instance", "torch"),
    "idc-ce": Protocol(thousand_epochs(64), 1e-2, "sgd", in_thirds, 64, "ce", "idc", "instance", "torch", cutmix=0.5),
}
"""quick: ours, a first look. frepo-mse: Zhou et al. 2022; version 1 had the augmentation of quick. dsa-ce: Zhao and Bilen 2021
(DC, DSA, DM, MTT), 1000 epochs. idc-ce: Kim et al. 2022, whose code trains on sets of other methods by it as well, 1000 epochs
with CutMix."""


CE, LEARNED_LR = "dsa-ce", "dsa-ce-lr"
"""The protocol of the field, and the same with the learning rate that a set carries (MTT): a row beside the first, not in its
place, and nothing that a run or a comparison can be asked for."""
PLAIN = "-plain"
"""Behind the name of a protocol: without its augmentation."""
KERNEL_RIDGE = "kernel-ridge"
"""The cheap guide beside the protocols: a linear head on random features (`measure.kernel_ridge`)."""
ROUNDED, EXACT, NOT_STATED = "8-bit", "exact", "not stated"
"""Pixels of the set that was trained on."""
AS_STATED, NOT_WHITENED = "as stated", "not whitened"
"""What networks saw of it."""
Confusion = list[list[int]]
"""How often each class was taken for each: a row for every true class, a column for every answer."""
MOST_CONFUSED = 100
"""The most classes of a score that keeps its confusion."""


@dataclass(frozen=True)
class ScoreKey:
    """What makes two scores the same measurement: the only answer to that question. All but the figures themselves."""

    stage: str
    method: str
    ipc: int
    arch: str
    protocol: str
    dataset: str
    seeds: int
    pixels: str
    inputs: str
    protocol_version: int

    @classmethod
    def of(cls, score: Mapping[str, object]) -> "ScoreKey":
        """The key of a score as a file holds it; those of version 0.1 do not say what pixels and inputs were, and one that somebody
        wrote by hand may miss more."""
        known = {"pixels": NOT_STATED, "inputs": AS_STATED, "protocol_version": 1} | dict(score)
        values: Any = {f.name: known.get(f.name) for f in fields(cls)}
        return cls(**values)

    @property
    def usual(self) -> bool:
        """Whether the set was used as people load it: the figure for it, where others stand beside that."""
        return self.pixels != EXACT and self.inputs == AS_STATED


@dataclass(frozen=True)
class Score:
    """Test accuracy in percent of one set under one protocol; std is over networks (0 for one seed).

    pixels: of the set that was trained on: '8-bit', as its PNGs hold them, or 'exact', before rounding;
    inputs: 'as stated', what the set says that networks see, or 'not whitened', where that was left out;
    protocol_version: `Protocol.version`, by which figures of a protocol before and after a change are told apart;
    confusion: counts of test images, summed over networks; None of many classes, and in files of earlier versions.
    """

    stage: str
    method: str
    ipc: int
    arch: str
    protocol: str
    dataset: str
    mean: float
    std: float
    seeds: int
    seconds: float
    pixels: str = NOT_STATED
    inputs: str = AS_STATED
    protocol_version: int = 1
    confusion: Confusion | None = field(default=None, hash=False, repr=False)

    @property
    def key(self) -> "ScoreKey":
        """What was measured."""
        return ScoreKey.of(vars(self))

    @property
    def protocol_text(self) -> str:
        """The protocol for people: with its version where that is an earlier one than today's."""
        now = version_of(self.protocol)
        return self.protocol + ("" if self.protocol_version == now else f" (version {self.protocol_version})")

    def to_dict(self) -> Values:
        """The score as a file holds it: one of version 0.1, which does not say what was trained on, stays as it was."""
        unstated = {"pixels", "inputs"} if (self.pixels, self.inputs) == (NOT_STATED, AS_STATED) else set()
        unstated |= {"protocol_version"} if self.protocol_version == 1 else set()
        unstated |= {"confusion"} if self.confusion is None else set()
        return {name: value for name, value in asdict(self).items() if name not in unstated}


def protocol_of(name: str, learned_lr: float | None = None) -> Protocol:
    """The protocol of that name for a set with or without a learned learning rate; UsageError for one that it lacks."""
    if name != LEARNED_LR:
        return check_protocol(name)
    if learned_lr is None:
        raise UsageError(f"The set carries no learned learning rate, which {LEARNED_LR} takes.", f"Use {CE}.")
    return replace(PROTOCOLS[CE], lr=learned_lr)


def version_of(name: str) -> int:
    """The version of a protocol today; 1 for those beside `PROTOCOLS`."""
    name = name.removesuffix(PLAIN)
    return PROTOCOLS[name].version if name in PROTOCOLS else 1


def once_each(text: str) -> str:
    """A text of names with commas between them, as they are, but each once."""
    return ",".join(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def protocols_in(text: str) -> list[str]:
    """The protocols of a text with commas between them, once each; UsageError for one that there is not, or for none."""
    names = [name for name in once_each(text).split(",") if name]
    for name in names or [text]:
        if name != KERNEL_RIDGE:
            check_protocol(name)
    return names


def check_protocol(name: str) -> Protocol:
    """The protocol of that name, with `PLAIN` behind it the same without augmentation; UsageError for one that there is not."""
    augmented = name.removesuffix(PLAIN)
    if augmented not in PROTOCOLS:
        raise UsageError(f"Unknown evaluation protocol '{name}'.", did_you_mean(name, (*PROTOCOLS, KERNEL_RIDGE)))
    usual = PROTOCOLS[augmented]
    return usual if name == augmented else replace(usual, family="", cutmix=0.0)
