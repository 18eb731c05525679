"""Processes that work together: which place each has, and the one sum that they take in an iteration of pre-training.

`accelerate launch` and `torchrun` start the processes and tell each its place in the environment; torch.distributed carries
what they exchange. With one process nothing of it is touched. How they share a run of `adapt`: `runtime.team`.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta

import torch
from torch import Tensor, distributed

from ddtool.errors import DDToolError, UsageError
from ddtool.runtime.engine import Engine, gpu_count
from ddtool.runtime.signals import caught

PATIENCE = timedelta(hours=6)
"""How long a process that pre-trains waits for the others: rank 0 decodes datasets and validates meanwhile."""
MEETING_PATIENCE = timedelta(minutes=15)
"""How long a process waits at the start for the others to be there."""


class OtherRankError(DDToolError):
    """Another process that works with this one has ended; it says why."""


@dataclass(frozen=True)
class Ranks:
    """This process's place: `rank` of `world`, the `local` one of its machine."""

    rank: int = 0
    world: int = 1
    local: int = 0

    @classmethod
    def from_environment(cls) -> "Ranks":
        """What the launcher says (RANK, WORLD_SIZE, LOCAL_RANK); alone when there is no launcher."""
        try:
            rank, world, local = (int(os.environ.get(name, default)) for name, default in PLACES.items())
        except ValueError:
            rank, world, local = 0, 0, 0
        if not 0 <= rank < world or local < 0:
            said = ", ".join(f"{name}={os.environ.get(name)}" for name in PLACES)
            raise UsageError(f"The launcher's environment makes no sense: {said}.", "Unset these variables.")
        return cls(rank, world, local)

    @property
    def main(self) -> bool:
        """Whether this process talks, validates and writes."""
        return self.rank == 0

    def engine(self, engine: Engine) -> Engine:
        """The engine of this process: its own GPU where there are several processes."""
        if self.world == 1 or engine.device.type != "cuda":
            return engine
        if self.local >= (gpus := gpu_count()):
            said = f"Process {self.local + 1} of this machine has no GPU of its own: there {'are' if gpus > 1 else 'is'} {gpus}."
            raise UsageError(said, f"Start {gpus} on this machine (--nproc_per_node {gpus}), or add --device cpu.")
        own = Engine.choose(
            f"cuda:{self.local}", "bf16" if engine.bf16 else "fp32", engine.compile_networks, engine.memory
        )
        return replace(own, compilation=engine.compilation, graphs=engine.graphs)

    @contextmanager
    def joined(self, engine: Engine, patience: timedelta = PATIENCE) -> Iterator[None]:
        """Inside, the processes can reach each other: GPUs over nccl, CPUs over gloo. patience: how long one
        waits for the others once all are there; at the start it is `MEETING_PATIENCE`.

        Raises UsageError where the environment does not say where they meet.
        """
        if self.world == 1:
            yield
            return
        if missing := [name for name in MEETING if name not in os.environ]:
            said = f"WORLD_SIZE is {self.world}, but {' and '.join(missing)} of the launcher's environment are missing."
            raise UsageError(said, "Start it by torchrun or accelerate launch, or unset WORLD_SIZE.")
        cuda = engine.device.type == "cuda"
        meeting = (
            "The processes have not found each other",
            "Is MASTER_PORT free, can MASTER_ADDR be reached, and are all WORLD_SIZE processes started?",
        )
        with explained(*meeting), caught(signal.SIG_DFL):  # torch waits for the others without looking at signals
            store, *_ = next(iter(distributed.rendezvous("env://", timeout=MEETING_PATIENCE)))
            store.set_timeout(patience)
            distributed.init_process_group(
                "cpu:gloo,cuda:nccl" if cuda else "gloo",
                store=store,
                rank=self.rank,
                world_size=self.world,
                timeout=patience,
                device_id=engine.device if cuda else None,
            )
        try:
            yield
        finally:
            distributed.destroy_process_group()

    def share(self, tasks: int) -> range:
        """The numbers of this process's tasks out of `tasks`."""
        return range(self.rank, tasks, self.world)

    def barrier(self) -> None:
        """Wait until every process is here. Raises OtherRankError when one has ended."""
        if self.world > 1:
            with explained():
                distributed.barrier()

    @torch.no_grad()
    def sum_gradients(self, parameters: Sequence[Tensor], loss: Tensor, stop: bool) -> tuple[Tensor, bool | None]:
        """Sum the gradients (in place, a missing one counts as zero), the loss and the wish to stop over all processes.

        One reduction of one flat buffer. Returns the loss and whether any process wishes to stop; None when alone.
        """
        if self.world == 1:
            return loss, None
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        flat = torch.cat(
            [*(gradient.flatten() for gradient in gradients), loss.view(1), loss.new_tensor([float(stop)])]
        )
        with explained():
            distributed.all_reduce(flat)
        parts = flat[:-2].split([p.numel() for p in parameters])
        for p, part in zip(parameters, parts, strict=True):
            p.grad = part.view(p.shape)
        return flat[-2], bool(flat[-1] > 0)


PLACES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
"""What a launcher says of the place of a process, and what that is without one."""
MEETING = ("RANK", "MASTER_ADDR", "MASTER_PORT")
"""What it says beside WORLD_SIZE of where the processes meet."""
ALONE = Ranks()


@contextmanager
def explained(
    message: str = "The processes have lost each other",
    hint: str = "If the process that ended first said why, it is above. The last checkpoint is whole: start again with --resume.",
) -> Iterator[None]:
    """What fails between the processes, as OtherRankError."""
    try:
        yield
    except RuntimeError as error:  # torch.distributed's errors are of this kind
        raise OtherRankError(f"{message}: {str(error).splitlines()[0]}", hint) from error
