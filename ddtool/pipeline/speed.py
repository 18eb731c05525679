"""How wide and how long a run can be on the machine at hand: a short probe before the first step, where no preset is named."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from pydantic import JsonValue

from ddtool import methods
from ddtool.config import AdaptConfig, RefineConfig, RunConfig, from_dict, to_dict
from ddtool.config.layers import leaves, merged, nested
from ddtool.config.presets import PRESETS, SECONDS, START, Choice, Pace, widest_that_pays
from ddtool.data.batches import Real, usual_batch
from ddtool.data.images import ImageData
from ddtool.events import Note, Report
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.runtime.engine import Engine

STEPS = ("adapt.steps", "refine.steps")
"""The settings that the budget decides."""
TIMED, LONG = 3, 3.0
"""Steps of a width that are timed, after one that warms up; and seconds in all after which no other is. One step alone says little:
beside other work a step may take thirty times as long as the next one."""
TRIALS = 110
"""What the work before the labels takes (trials of flips and whitening, W_θ), in steps of the smallest preset."""

Clock = Callable[[], float]


def left_open(
    preset_name: str, method: str, seconds: float | None, layers: Sequence[Mapping[str, JsonValue]]
) -> tuple[str, ...]:
    """The settings that the speed of the machine is to choose: those of the presets that no layer gives. None where a preset is
    named, where the method has no such networks, or where width and steps (or a budget in seconds) are given."""
    if preset_name != "auto" or "features" not in methods.find(method).sections:
        return ()
    given = {name for layer in layers for name, _ in leaves(layer)}
    names = dict.fromkeys(name for settings in PRESETS.values() for name, _ in leaves(settings))
    missing = [name for name in names if name not in given and not (name in STEPS and seconds is not None)]
    decisive = {"features.width", *STEPS} & set(missing)
    return tuple(missing) if decisive else ()


def fitted_to_machine(
    config: RunConfig, data: ImageData, engine: Engine, report: Report, clock: Clock = time.perf_counter,
    keep: Callable[[Pace], object] = lambda pace: None,
) -> RunConfig:  # fmt: skip
    """The configuration with what was left open (`config.measured`) chosen by a probe and said in a sentence; as it is where
    nothing was. `keep` is called with the pace that was measured of what is chosen."""
    if not config.measured:
        return config
    real, first = Real.of(data, engine, config.factor), []  # type: Real, list[Pace]

    def pace_of(name: str) -> Pace:
        tried = with_preset(config, name)
        step = step_seconds(tried, real, engine, clock)
        first.append(Pace(step, 0.0))
        return Pace(step, seconds_before(tried, real.data.num_classes, step, first[0].step))

    sets = adapting(config) + len(config.ipc) * (1 - adapting(config))
    choice = widest_that_pays(config.seconds or SECONDS, pace_of, sets, given_steps(config))
    chosen = with_steps(with_preset(config, choice.name), choice.steps)
    engine.reset_peak_memory()  # a wider preset that was tried is not the run's
    report(Note(sentence(chosen, choice, data.num_classes)))
    keep(choice.pace)
    return chosen


def with_preset(config: RunConfig, name: str) -> RunConfig:
    """The configuration with what was left open as a preset has it; a setting that the preset does not name is the default."""
    usual = to_dict(RunConfig())
    values = {setting: value_at(merged(usual, PRESETS[name]), setting) for setting in config.measured}
    return from_dict(RunConfig, merged(to_dict(config), nested(values)))


def with_steps(config: RunConfig, steps: int) -> RunConfig:
    """The configuration with so many steps of a set, shared between adaptation and refinement, where they were left open."""
    share = adapting(config)
    shared = {"adapt.steps": max(1, round(share * steps)), "refine.steps": max(1, round((1 - share) * steps))}
    open_steps = {name: count for name, count in shared.items() if name in config.measured}
    return from_dict(RunConfig, merged(to_dict(config), nested(open_steps)))


def adapting(config: RunConfig) -> float:
    """The share of a set's steps that are adaptation's: all of them where nothing is refined."""
    return config.adapt_share if config.refine.steps or "refine.steps" in config.measured else 1.0


def given_steps(config: RunConfig) -> int | None:
    """The steps of a set where both counts were given, else None."""
    return None if set(STEPS) & set(config.measured) or config.seconds else config.adapt.steps + config.refine.steps


def seconds_before(config: RunConfig, C: int, step: float, small: float) -> float:
    """What the labels take, in seconds: of the pool and of the generator's output, each fitted on `fit.networks` networks; before
    them trials and W_θ. step, small: seconds of a step of this configuration, and of the smallest preset.

    A step judges its real images once and works through the synthetic ones, their flips and their augmented copies three times
    (a forward and a backward pass); a network of the fit sees each once.
    """
    m, flips = config.samples(max(config.ipc)) * C, 1 if config.flip is False else 2
    part = min(m, config.refine.synthetic_batch)
    in_a_step = real_batch(config.refine, config, C) + 3 * part * (flips + mgdd.copies_of(config.refine, part))
    in_a_fit = max(config.fit.real_batch, flips * m) + m * (flips + mgdd.copies_of(config.fit, m))
    fits = (1 + len(config.ipc)) * config.fit.networks
    return TRIALS * small + fits * step * in_a_fit / in_a_step


def step_seconds(config: RunConfig, real: Real, engine: Engine, clock: Clock = time.perf_counter) -> float:
    """Seconds of one step of Eq. 1 as the configuration has it: the least of a few, after one that warms up. Networks are not
    compiled for it, and steps not captured."""
    shape, C, settings = real.data.shape, real.data.num_classes, config.refine
    engine, rng = replace(engine, compile_networks=False, graphs=False), engine.rng(config.seed, "probe")
    f = RandomFeatures.doubling(shape, config.features.width, config.features.norm, engine, rng)
    m = C * min(config.samples(max(config.ipc)), max(1, settings.synthetic_batch // C))
    X = torch.randn(m, *shape, generator=rng, device=engine.device).contiguous(memory_format=torch.channels_last)
    Y = torch.randn(m, C, generator=rng, device=engine.device)
    flip = settings.flip and config.flip is not False
    one = replace(settings, steps=1, real_batch=real_batch(config.refine, config, C), flip=flip)

    def timed() -> float:
        engine.synchronise()
        started = clock()
        mgdd.refine(X, Y, f, real, one, rng)
        engine.synchronise()
        return clock() - started

    timed()
    times = [timed()]
    while len(times) < TIMED and sum(times) < LONG:
        times.append(timed())
    return min(times)


def real_batch(settings: AdaptConfig | RefineConfig, config: RunConfig, C: int) -> int:
    """Real images of a step of adaptation or refinement."""
    return settings.real_batch or usual_batch(C, config.features.width)


def sentence(config: RunConfig, choice: Choice, C: int) -> str:
    """What was chosen and why, and how to have the same elsewhere."""
    networks = f"{config.features.width} channels, {real_batch(config.refine, config, C)} real images a step"
    took = 1000 * choice.pace.step
    step = f"{took:.3g}" if took < 1000 else f"{took:,.0f}"
    pace = f"A step takes about {step} ms on this machine, so the preset is {choice.name} ({networks})"
    if config.seconds is not None:
        return f"{pace}, for {config.seconds:g} s. The same networks on any machine: --preset {choice.name}"
    if given_steps(config) is not None:
        return f"{pace}. The same on any machine: --preset {choice.name}"
    seconds = (
        START + choice.pace.before + choice.pace.step * (config.adapt.steps + len(config.ipc) * config.refine.steps)
    )
    minutes = f"about {max(1, round(seconds / 30)) / 2:g} minutes"
    counts = f"{config.adapt.steps} steps of adaptation and {config.refine.steps} of refinement in {minutes}"
    again = f"--preset {choice.name} --steps {config.adapt.steps} --refine-steps {config.refine.steps}"
    return f"{pace}, with {counts}. The same on any machine: {again}"


def value_at(values: JsonValue, name: str) -> JsonValue:
    """The value of a full name in nested settings."""
    for part in name.split("."):
        assert isinstance(values, dict)
        values = values[part]
    return values
