"""Presets by name, and which of them a measured speed pays for: a function of seconds, without a clock."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddtool import config
from ddtool.config.presets import (
    EARLIER_PRESETS,
    PAYS_FROM,
    PRESETS,
    SECONDS,
    SPARE,
    START,
    Choice,
    Pace,
    preset,
    rounded_down,
    widest_that_pays,
)
from ddtool.errors import UsageError

NAMES = list(PRESETS)
TWO_CORES, GPU = (0.046, 0.16, 0.65), (0.003, 0.004, 0.02)
"""Seconds of a step, small to large."""


def chosen(
    seconds: float, steps: tuple[float, ...], sets: float = 1.0, most: int | None = None
) -> tuple[Choice, list[str]]:
    """The choice at such a speed, and which presets were measured for it."""
    asked: list[str] = []

    def pace_of(name: str) -> Pace:
        asked.append(name)
        return Pace(steps[NAMES.index(name)], 0.0)

    return widest_that_pays(seconds, pace_of, sets, most), asked


def test_presets_are_named_narrow_to_wide_and_make_configurations() -> None:
    made = [config.from_dict(config.RunConfig, settings) for settings in PRESETS.values()]
    assert [one.features.width for one in made] == sorted({one.features.width for one in made})
    assert list(PAYS_FROM) == NAMES
    assert list(PAYS_FROM.values()) == sorted(set(PAYS_FROM.values()))
    assert preset("auto") == PRESETS[NAMES[0]]


def test_names_of_earlier_versions_are_read_with_a_note() -> None:
    notes: list[str] = []
    assert preset("cpu", notes.append) == PRESETS["small"]
    assert preset("gpu", notes.append) == PRESETS["large"]
    assert notes == [
        "There is no preset 'cpu' any more: 'small' is taken, which is the same.",
        "There is no preset 'gpu' any more: 'large' is taken, with wider networks and another number of steps, so it takes much "
        "longer.",
    ]
    assert set(EARLIER_PRESETS.values()) <= set(NAMES)
    with pytest.raises(UsageError, match="Unknown preset 'smal'") as caught:
        preset("smal")
    assert "'small'" in caught.value.hint


def test_a_slow_machine_gets_the_narrow_networks_and_is_not_asked_for_wide_ones() -> None:
    choice, asked = chosen(SECONDS, (0.2, 0.9, 4.0))
    assert (choice.name, asked) == ("small", ["small"])
    assert choice.steps == rounded_down((SECONDS - START) * (1 - SPARE) / 0.2)


def test_more_seconds_buy_wider_networks() -> None:
    names = [chosen(seconds, TWO_CORES)[0].name for seconds in (10, 120, 1200, 12_000)]
    assert [NAMES.index(name) for name in names] == sorted(NAMES.index(name) for name in names)
    assert (names[0], names[-1]) == ("small", "large")
    assert chosen(60, GPU)[0].name == "large"


def test_work_before_the_steps_is_taken_off() -> None:
    def slow_labels(name: str) -> Pace:
        return Pace(0.02, 100.0)

    choice = widest_that_pays(120, slow_labels)
    assert (choice.name, choice.steps) == ("small", rounded_down((120 - START - 100) * (1 - SPARE) / 0.02))
    assert widest_that_pays(60, slow_labels).steps == 1  # there is always one


def test_several_sets_share_the_time() -> None:
    choice, _ = chosen(SECONDS, TWO_CORES, sets=10)
    assert 0.5 * SECONDS < 10 * choice.steps * choice.pace.step < SECONDS
    assert NAMES.index(chosen(1200, TWO_CORES, sets=20)[0].name) < NAMES.index(chosen(1200, TWO_CORES)[0].name)


def test_given_steps_are_kept_where_they_fit_and_have_to_be_enough() -> None:
    enough = PAYS_FROM["large"]
    assert chosen(SECONDS, GPU, most=enough)[0].name == "large"
    assert chosen(SECONDS, GPU, most=enough - 1)[0].name == "medium"
    assert chosen(SECONDS, GPU, most=1)[0].name == "small"
    assert chosen(SECONDS, TWO_CORES, most=100_000)[0].name == "small"  # none fits: the least


@given(st.floats(1, 1e5), st.floats(1e-4, 10), st.floats(2, 8), st.floats(2, 8), st.floats(1, 20))
def test_a_choice_is_within_the_time_and_has_enough_steps(
    seconds: float, small: float, second: float, third: float, sets: float
) -> None:
    choice, asked = chosen(seconds, (small, small * second, small * second * third), sets)
    assert asked == NAMES[: len(asked)]
    assert choice.name in asked
    assert choice.name == "small" or choice.steps >= PAYS_FROM[choice.name]
    assert choice.steps == 1 or choice.steps * choice.pace.step * sets <= seconds


@pytest.mark.parametrize(
    ("steps", "round_ones"), [(0.4, 0), (7.9, 7), (99, 99), (101, 100), (1234.5, 1200), (98_765, 98_000)]
)
def test_counts_are_round(steps: float, round_ones: int) -> None:
    assert rounded_down(steps) == round_ones
