"""The presets: one for each width of the networks that judge, and which of them a measured speed can pay for."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ddtool.config.layers import Notes, Values, unheard
from ddtool.errors import UsageError, did_you_mean

PRESETS: dict[str, Values] = {
    "small": {
        "features": {"width": 128},
        "labels": {"images": 20_000},
        "adapt": {"steps": 300, "synthetic_batch": 200},
        "refine": {"steps": 2000, "synthetic_batch": 500},
    },
    "medium": {
        "features": {"width": 256},
        "labels": {"images": 20_000},
        "adapt": {"steps": 500, "synthetic_batch": 500},
        "refine": {"steps": 2000},
    },
    "large": {
        "features": {"width": 512},
        "adapt": {"steps": 600},
        "refine": {"steps": 2400},
    },
}
"""What differs from the defaults by preset, narrow to wide. 'auto' takes the widest that pays (`widest_that_pays`), and as many
steps as there is time for."""

PAYS_FROM = {"small": 0, "medium": 300, "large": 1500}
"""Fewer steps of a set than these are better spent on the next smaller preset: measured for medium (`benchmarks/widths.py`,
docs/results.md); for large by trials on a GPU alone."""

SECONDS = 120.0
"""What a run may take where nothing else is said."""
START, SPARE = 8.0, 0.1
"""Seconds of a run that go to its start and to writing its set; and the share of the rest that is kept in hand, as a machine's
speed varies."""

EARLIER_PRESETS = {"cpu": "small", "gpu": "large"}
"""The name of a preset in an earlier version → its present one. Until version 1.0."""
EARLIER_WORDS = {
    "cpu": "which is the same",
    "gpu": "with wider networks and another number of steps, so it takes much longer",
}
"""How the present one differs from it."""

PRETRAIN_PRESETS: dict[str, Values] = {
    "gpu": {},
    "cpu": {
        "meta": {"iterations": 400, "meta_batch": 2, "task": {"synthetic_batch": 100, "real_batch": 128}},
        "validate_every": 50,
    },
}
"""What differs from the defaults of `ddtool pretrain` by device. 'auto' takes 'gpu' on cuda and 'cpu' elsewhere."""


def preset(name: str, note: Notes = unheard) -> Values:
    """The settings of a preset of `ddtool adapt`, of 'auto' those that it begins with; UsageError for an unknown one.

    `note` hears when the name is of an earlier version.
    """
    if name == "auto":
        return next(iter(PRESETS.values()))
    if name in EARLIER_PRESETS and name not in PRESETS:
        note(f"There is no preset '{name}' any more: '{EARLIER_PRESETS[name]}' is taken, {EARLIER_WORDS[name]}.")
        name = EARLIER_PRESETS[name]
    return known(name, PRESETS)


def by_device(name: str, device_type: str) -> Values:
    """The settings of a preset of `ddtool pretrain`; UsageError for an unknown one."""
    if name == "auto":
        name = "gpu" if device_type == "cuda" else "cpu"
    return known(name, PRETRAIN_PRESETS)


def known(name: str, presets: Mapping[str, Values]) -> Values:
    """The preset of that name, or UsageError."""
    if name not in presets:
        raise UsageError(f"Unknown preset '{name}'.", did_you_mean(name, ["auto", *presets]))
    return presets[name]


# --------------------------------------------------------------------------------------------------- by measured speed


@dataclass(frozen=True)
class Pace:
    """What a step of one preset takes on this machine, and the work before the steps, both in seconds."""

    step: float
    before: float


@dataclass(frozen=True)
class Choice:
    """A preset, its pace, and the steps of a set, adaptation and refinement together, that there is time for."""

    name: str
    pace: Pace
    steps: int


def widest_that_pays(
    seconds: float, pace_of: Callable[[str], Pace], sets: float = 1.0, most: int | None = None
) -> Choice:
    """The widest preset that has at least `PAYS_FROM` steps in so many seconds; the first one where none has.

    pace_of: measures a preset; it is not asked for those that cannot pay, as a wider one takes twice as long at least;
    sets: how many times the steps of one set are taken;  most: the steps of a set, where they were given.
    """
    chosen: Choice | None = None
    for name, pays_from in PAYS_FROM.items():
        if chosen is not None and chosen.steps < 2 * pays_from and most is None:
            break
        pace = pace_of(name)
        there = max(0.0, seconds - START - pace.before) * (1 - SPARE) / pace.step / sets
        steps = max(1, rounded_down(there))
        pays = there >= most >= pays_from if most is not None else steps >= pays_from
        if chosen is None or pays:
            chosen = Choice(name, pace, steps)
        else:
            break
    assert chosen is not None
    return chosen


def rounded_down(steps: float) -> int:
    """A number of steps with two digits that say something: 1,234 are 1,200."""
    whole = int(steps)
    unit = 10 ** max(0, len(str(whole)) - 2)
    return whole // unit * unit
