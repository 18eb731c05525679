"""What travels through the pipeline together: a run at work, and the problem that its method is to solve."""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ddtool.config import RunConfig
from ddtool.data.batches import Real
from ddtool.events import Done, Phase, Report, silent
from ddtool.methods import Record, find
from ddtool.models.convnet import RandomFeatures
from ddtool.runs.formats import FileSaver
from ddtool.runs.points import Points
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine
from ddtool.runtime.loop import Loop


@dataclass(frozen=True)
class Session:
    """A run at work: what it was asked for, where it is kept, what it computes on, and who hears of it."""

    config: RunConfig
    run: Run
    engine: Engine
    report: Report = silent

    @property
    def method(self) -> Record:
        """What the method of the run can do."""
        return find(self.config.method)

    @property
    def final_stage(self) -> str:
        """The stage of the sets that the run leaves when it is finished."""
        return final_stage(self.method, self.config)

    def rng(self, *purpose: str | int) -> torch.Generator:
        """The random stream of the run for one purpose, on its device."""
        return self.engine.rng(self.config.seed, *purpose)

    def seconds_of(self, phases: Iterable[Phase]) -> float:
        """What some phases of the run took, by the events that were logged."""
        timings = self.run.noted().timings
        return sum(timings.get(str(phase), 0.0) for phase in phases)

    def seconds_left(self, before: Iterable[Phase]) -> float | None:
        """What the phases before leave of a budget in seconds; None when steps are counted."""
        return None if self.config.seconds is None else max(0.0, self.config.seconds - self.seconds_of(before))

    def saver(self, phase: Phase) -> FileSaver:
        """Keeps the checkpoint of a phase."""
        return self.run.saver(phase.file_name)

    def visitor(self, phase: Phase, tensors: Callable[[Loop], dict[str, Tensor]]) -> Callable[[Loop], None]:
        """Sees the loop of a phase; where the run is to have a curve, it keeps points of it: the `tensors` as they stand."""
        if not self.config.curve:
            return lambda loop: None
        return Points(self.run, phase, tensors, self.engine.synchronise)

    @contextlib.contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """Report what the work inside takes, when it has ended well."""
        started = time.perf_counter()
        yield
        self.engine.synchronise()
        self.report(Done(str(phase), time.perf_counter() - started))


@dataclass(frozen=True)
class Problem:
    """What every method is given: the target as networks see it, on the device, and whether flipped images keep their class."""

    real: Real
    flip: bool


@dataclass(frozen=True)
class JudgedProblem(Problem):
    """The same with the network into which the random ones are drawn that judge a synthetic set (f_θ*)."""

    features: RandomFeatures


def final_stage(method: Record, config: RunConfig) -> str:
    """The stage of the sets that a run of a method leaves when it is finished."""
    refines = not method.has_generator or config.refine.steps > 0
    return method.stages[-1 if refines else -2]
