"""The sets of a run along its steps: each point that `ddtool adapt --curve` kept, as a set that can be scored."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import Tensor

from ddtool.data.images import ImageData, SyntheticSet
from ddtool.errors import RunError
from ddtool.events import Phase
from ddtool.pipeline.adapt import ADAPT
from ddtool.pipeline.generate import Adapted, fit_labels, problem_of
from ddtool.pipeline.plan import check_same_data
from ddtool.pipeline.session import JudgedProblem, Session
from ddtool.runs.formats import POINT_HINT, Point, describe_point, read_point
from ddtool.runs.points import learned, point_path, steps_kept
from ddtool.text import shell


@dataclass(frozen=True)
class Place:
    """A point on the way to the set of one IPC: a step of a phase.

    steps, seconds: those of the earlier phases too. The seconds are what a set of this point took: what was beside the steps
    (labels, experts) is in all of them.
    """

    ipc: int
    phase: Phase
    step: int
    steps: int
    seconds: float


def phases_to(session: Session, ipc: int) -> list[Phase]:
    """The phases whose steps lead to a set, in their order."""
    return [ADAPT, Phase("refine", ipc)] if session.method.has_generator else [Phase("distil", ipc)]


def check_points(session: Session) -> None:
    """RunError for a run that kept no points, or is not finished. Asks for no data."""
    run, ipcs = session.run, session.config.ipc
    if not any(steps_kept(run, phase) for ipc in ipcs for phase in phases_to(session, ipc)):
        hint = "They are kept during the steps, in a new run: `ddtool adapt DATASET --curve`."
        raise RunError(f"{run.folder} has no points of a curve.", hint)
    if not all(run.set_path(ipc).exists() for ipc in ipcs):
        hint = f"Finish it: `{shell('ddtool adapt --resume', run.folder)}`."
        raise RunError(f"{run.folder} is not finished.", hint)


def check_step(path: Path, said: int, step: int) -> None:
    """RunError unless a point is of the step that the name of its file says."""
    if said != step:
        raise RunError(f"{path} is not the point of its name: it says step {said:,}.", POINT_HINT)


class PointSets:
    """The points of a finished run (`check_points`), and the sets at them; RunError where its dataset has changed since."""

    def __init__(self, session: Session, train: ImageData) -> None:
        """train: the training images of the run's dataset, to fit the labels of what a generator makes."""
        self.session, self.run, self.train = session, session.run, train
        known = self.adapted.head if session.method.has_generator else self.run.noted().facts.target
        if known is not None:
            check_same_data(known, train, self.run, session.report)
        self.finished = {ipc: self.run.load_set(ipc) for ipc in session.config.ipc}

    def places(self) -> Iterator[Place]:
        """Every point of every set, in order. The generator's points lead to each of them."""
        known: dict[Phase, list[tuple[int, float]]] = {}  # those of the generator are the same for each IPC
        for ipc in self.finished:
            phases = phases_to(self.session, ipc)
            known |= {phase: self.points(phase, ipc) for phase in phases if phase not in known}
            series = [(phase, known[phase]) for phase in phases]
            steps, seconds = 0, max(0.0, self.spent(ipc) - sum(points[-1][1] for _, points in series if points))
            for phase, points in series:
                yield from (Place(ipc, phase, n, steps + n, seconds + s) for n, s in points)
                if points:
                    steps, seconds = steps + points[-1][0], seconds + points[-1][1]

    def points(self, phase: Phase, ipc: int) -> list[tuple[int, float]]:
        """Step and seconds of each point of a phase, by what its file says; its tensors are not read. Raises as `point`."""
        found = []
        for step in steps_kept(self.run, phase):
            path = point_path(self.run, phase, step)
            said = describe_point(path, self.like(phase, ipc))
            check_step(path, said.step, step)
            found.append((said.step, said.seconds))
        return found

    def spent(self, ipc: int) -> float:
        """The seconds that a finished set took."""
        spent = self.run.noted().facts.spent.get(f"ipc{ipc}")
        if spent is None:
            message = f"{self.run.folder / 'results.json'} does not say what the set of ipc {ipc} took."
            raise RunError(message, "Make the run again: `ddtool adapt DATASET --curve`.")
        return spent.step_seconds + spent.overhead_seconds

    def point(self, phase: Phase, ipc: int, step: int) -> Point:
        """One point; RunError for a file that is damaged, or not of this run."""
        path = point_path(self.run, phase, step)
        found = read_point(path, self.like(phase, ipc))
        check_step(path, found.step, step)
        return found

    def like(self, phase: Phase, ipc: int) -> Mapping[str, Tensor]:
        """Tensors with the names, types and shapes of those that a point of a phase has."""
        return self.adapted.generator.state_dict() if phase == ADAPT else learned(self.finished[ipc])

    def set_at(self, place: Place) -> SyntheticSet:
        """The set of a point. Of a generator's: what it makes in one pass, with labels as `ddtool generate` fits them."""
        found = self.point(place.phase, place.ipc, place.step).tensors
        if place.phase != ADAPT:
            images, labels = found["images"], found["labels"]
            return replace(self.finished[place.ipc], images=images, labels=labels, learned_lr=None)  # of the last step
        self.adapted.generator.load_state_dict(found)
        _, generated = self.adapted.synthesise(place.ipc)
        return fit_labels(self.session, self.problem, generated).scaled(self.session.config.label_scale)

    @cached_property
    def adapted(self) -> Adapted:
        """The run's generator, whose weights `set_at` replaces."""
        return Adapted.load(self.run, self.session.engine)

    @cached_property
    def problem(self) -> JudgedProblem:
        """The target, to fit labels on."""
        return problem_of(self.session, self.train, self.adapted.head)
