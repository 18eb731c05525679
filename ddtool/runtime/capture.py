"""Captured steps: a step is recorded once as a CUDA graph, and from then on made by a single call.

A step of MGDD is hundreds of small kernels. A fast GPU is done with each sooner than Python asks for the next, so it mostly
waits. A CUDA graph is the list of what the GPU was asked to do: while a step is *captured*, its kernels are written down and not
run; a *replay* runs all of them at once, on the same memory, and no line of Python is executed. So in a step that is captured

- shapes are fixed, and nothing is asked of the host: no number decides what comes next;
- what changes from step to step lies in tensors that stay where they are (what is learned, the optimiser's state, the learning
  rates, which `runtime.loop` fills in place), or is drawn from a random stream that is registered with the graph;
- gradients are allocated while it is captured, and each replay writes them anew.

The first steps of each kind are made eagerly on the stream that captures later. They are steps of the run like any other; they
allocate what lasts, and let libraries make their choices. Everything between steps (reports, checkpoints, deadlines, Ctrl-C) is
outside of the graph and works as it does without one. None of this has run on a GPU yet (docs/log.md).
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ddtool.errors import DDToolError

WARM_UP = 3
"""Steps of each kind that are made eagerly before one is captured."""

Step = Callable[[], Tensor]
"""A whole step, or the loss of one: nothing goes in, the loss () comes out."""


class Recorder(Protocol):
    """Makes steps as they can be captured, and captures them. `CudaGraphs` does so; tests have one that needs no GPU."""

    def eagerly(self, step: Step) -> Tensor:
        """Make a step now; returns its loss."""

    def record(self, step: Step) -> tuple[Callable[[], None], Tensor]:
        """Capture a step without making it; returns what makes it, and the tensor in which that leaves its loss."""


class CudaGraphs:
    """Captures on a CUDA device. Its graphs share their memory: none is replayed beside another, and what a replay leaves in that
    memory (the loss) is copied before the next one.

    rng: the stream from which the steps draw; each replay takes it as far as the step does that is made eagerly.
    """

    def __init__(self, device: torch.device, rng: torch.Generator) -> None:
        self.rng, self.stream, self.pool = rng, torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    def eagerly(self, step: Step) -> Tensor:
        """Make a step on the side stream, in turn with all other work."""
        usual = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(usual)
        with torch.cuda.stream(self.stream):
            loss = step()
        usual.wait_stream(self.stream)
        return loss

    def record(self, step: Step) -> tuple[Callable[[], None], Tensor]:
        """Capture a step. Raises DDToolError with torch's reason where something in it cannot be captured."""
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(self.rng)
        try:
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream):
                loss = step()
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            hint = "Leave --graphs out: a run goes on with --resume RUN."
            raise DDToolError(f"A step could not be captured in a CUDA graph: {reason}", hint) from error
        return graph.replay, loss


class CapturedSteps:
    """Makes the steps of a loop: of each kind a few eagerly, then one is captured, and all others are replays of it.

    The kinds are the different functions that compute a loss, told apart by identity: a loop has a fixed one for each shape.
    """

    def __init__(self, optimiser: torch.optim.Optimizer, recorder: Recorder) -> None:
        self.optimiser, self.recorder = optimiser, recorder
        self._made: Counter[Step] = Counter()
        self._captured: dict[Step, tuple[Callable[[], None], Tensor]] = {}

    def __call__(self, loss: Step) -> Tensor:
        """One optimiser step down the gradient of what `loss` computes, which is returned, (), and stays as it is."""
        if self._made[loss] < WARM_UP:
            self._made[loss] += 1
            return self.recorder.eagerly(lambda: self._whole(loss))
        if loss not in self._captured:
            self._captured[loss] = self.recorder.record(lambda: self._whole(loss))
        replay, left = self._captured[loss]
        replay()
        return left.clone()

    def _whole(self, loss: Step) -> Tensor:
        """The step: no gradient is left of the one before, so that the backward pass writes instead of adding."""
        self.optimiser.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        self.optimiser.step()
        return value.detach()
