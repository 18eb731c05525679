"""The points of a curve: what the set of a run is at doubling steps of each phase, kept while the steps go on (`--curve`)."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from ddtool.data.images import SyntheticSet
from ddtool.events import Phase
from ddtool.runs import files, formats
from ddtool.runs.run import Run
from ddtool.runtime.loop import Loop


class Points:
    """A visitor of the loop of one phase: keeps points at steps 0, 1, 2, 4, 8, ... and the last.

    It draws nothing, changes nothing, and its time is not counted. A point that is there is not made again, so an interrupted run
    keeps its points; but for those beyond the checkpoint that a killed run goes on from, which its steps may not pass again.
    """

    def __init__(
        self, run: Run, phase: Phase, tensors: Callable[[Loop], dict[str, Tensor]], synchronise: Callable[[], None]
    ) -> None:
        """tensors: what is kept, as it stands;  synchronise: waits until the device has done it."""
        self.run, self.phase, self.tensors, self.synchronise = run, phase, tensors, synchronise
        self.begun = False

    def __call__(self, loop: Loop) -> None:
        if not self.begun:
            self.begun = True
            for step in steps_kept(self.run, self.phase):
                if step > loop.step:
                    point_path(self.run, self.phase, step).unlink()
        path = point_path(self.run, self.phase, loop.step)
        if not (loop.ended or loop.step & (loop.step - 1) == 0) or path.exists():
            return
        with loop.paused(self.synchronise):
            formats.write_point(path, formats.Point(loop.step, loop.seconds, self.tensors(loop)))


def learned(synthetic: SyntheticSet) -> dict[str, Tensor]:
    """What a point holds of a set: pixels and labels. The rest of it is the finished set's."""
    return {"images": synthetic.images, "labels": synthetic.labels}


def point_path(run: Run, phase: Phase, step: int) -> Path:
    """The file of a point."""
    return run.folder / files.POINTS / f"{phase.file_name}-{step}.safetensors"


def steps_kept(run: Run, phase: Phase) -> list[int]:
    """The steps of a phase that a run has points of, in their order."""
    names = (path.stem.rpartition("-") for path in (run.folder / files.POINTS).glob("*.safetensors"))
    return sorted(int(step) for start, _, step in names if start == phase.file_name and step.isdecimal())
