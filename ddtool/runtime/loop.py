"""The frame of every optimisation: count steps, update, report, stop when asked, checkpoint, resume exactly."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from ddtool.errors import DivergedError, RunError
from ddtool.events import Done, Report, Step
from ddtool.runtime.capture import CapturedSteps
from ddtool.runtime.signals import Asked, Interrupted, deferred_interrupt

Checkpoint = dict[str, Tensor]
"""Everything a loop needs to go on, flat: name → tensor (CPU)."""


class Saver(Protocol):
    """Keeps the checkpoint of one phase. `runs.Run.saver` writes it to disk; tests keep it in memory."""

    def load(self) -> Checkpoint | None:
        """The last checkpoint of this phase, or None."""

    def save(self, checkpoint: Checkpoint) -> None:
        """Keep this one instead."""


class NoSaver:
    """Keeps nothing."""

    def load(self) -> Checkpoint | None:
        return None

    def save(self, checkpoint: Checkpoint) -> None:
        pass


class Deadline:
    """Says after each part of some work whether to end it: when another part, as long as the last one, would end further beyond
    the limit than it is away now. With no limit (None) all parts are done."""

    def __init__(self, seconds: float | None, synchronise: Callable[[], None] = lambda: None) -> None:
        self.seconds, self.synchronise = seconds, synchronise
        self._started = self._last = time.perf_counter()

    def __call__(self) -> bool:
        if self.seconds is None:
            return False
        self.synchronise()
        now = time.perf_counter()
        part, self._last = now - self._last, now
        return now - self._started + part / 2 > self.seconds


NEVER = Deadline(None)
"""No limit: all parts are done."""


class Loop:
    """Iterate over the steps of one phase; call `take(loss)`, `update(loss)` or `apply(loss)` once in each.

    tensors: what is being learned, by name;  optimiser: over those tensors, its lr scaled by a half cosine that falls to
    `min_lr_ratio` of the start over `steps` (1 keeps it constant);  rng: the one source of randomness, saved and restored; None
    when every step has a stream of its own;  seconds: time spent in the phase so far, over all sittings;  limit: a wall clock
    in seconds that decides, in place of `steps`, when to end and where on the cosine a step is;  captured: makes the steps that
    are taken, where they are captured;  visit: sees the loop before each step, and once more when it has `ended`.
    Where several processes share the steps, they decide together when to stop: `stopping` is set in each step to whether
    any was `asked`; left at None, a process that is asked stops by itself.
    The loss stays on the device between reports: at most `reports` host synchronisations in the whole phase.
    Raises DivergedError at the first report that finds a loss not finite.
    """

    def __init__(
        self,
        phase: str,
        steps: int,
        tensors: dict[str, Tensor],
        optimiser: torch.optim.Optimizer,
        rng: torch.Generator | None,
        report: Report,
        saver: Saver | None = None,
        *,
        min_lr_ratio: float = 1.0,
        limit: float | None = None,
        captured: CapturedSteps | None = None,
        visit: Callable[["Loop"], None] = lambda loop: None,
        reports: int = 100,
        checkpoint_seconds: float = 30.0,
    ) -> None:
        self.phase, self.steps, self.tensors, self.optimiser, self.rng = phase, steps, tensors, optimiser, rng
        self.report, self.saver, self.min_lr_ratio, self.limit = report, saver or NoSaver(), min_lr_ratio, limit
        self.captured = captured
        self.every, self.checkpoint_seconds = max(1, math.ceil(steps / reports)), checkpoint_seconds
        self._told, self._told_every = 0.0, (limit or 0.0) / reports
        self.visit, self.ended = visit, False
        self.step, self._losses = 0, []  # type: tuple[int, list[Tensor]]
        self._base_lrs = [float(group["lr"]) for group in optimiser.param_groups]
        self._asked, self.stopping = Asked(), None  # type: tuple[Asked, bool | None]
        self._before, self._started = 0.0, time.perf_counter()
        self.overhead, self._last_step = 0.0, 0.0

    @property
    def asked(self) -> bool:
        """Whether this process has been asked to stop after the step."""
        return self._asked.is_set()

    @property
    def seconds(self) -> float:
        """Wall clock spent in this phase, over all sittings."""
        return self._before + time.perf_counter() - self._started

    @property
    def done(self) -> float:
        """How much of the phase is behind us, 0 to 1."""
        if self.limit is None:
            return self.step / self.steps if self.steps else 1.0
        return min(1.0, self.seconds / self.limit) if self.limit > 0 else 1.0

    @contextlib.contextmanager
    def untimed(self, synchronise: Callable[[], None]) -> Iterator[None]:
        """Work between steps that is not part of one; its seconds are added to `overhead` as well."""
        synchronise()
        started = time.perf_counter()
        yield
        synchronise()
        self.overhead += time.perf_counter() - started

    @contextlib.contextmanager
    def paused(self, synchronise: Callable[[], None]) -> Iterator[None]:
        """Work between steps that is no part of the phase: its seconds are not counted."""
        synchronise()
        began = time.perf_counter()
        yield
        self._started += time.perf_counter() - began

    def __iter__(self) -> Iterator[int]:
        """The steps still to do, from a checkpoint where there is one."""
        saved = self.saver.load()
        if saved is not None:
            self._restore(saved)
        self._started = last_saved = time.perf_counter()
        with deferred_interrupt() as self._asked:
            while self.done < 1 and not self._nearer_without():
                self.visit(self)
                self._schedule()
                began = time.perf_counter()
                yield self.step
                self._last_step = time.perf_counter() - began
                self.step += 1
                if self._due():
                    self._tell()
                if self.asked if self.stopping is None else self.stopping:
                    self.save()
                    raise Interrupted(self._asked.number)
                if time.perf_counter() - last_saved > self.checkpoint_seconds:
                    self.save()
                    last_saved = time.perf_counter()
            if self.asked and self.stopping is None:  # since the last step was looked at
                self.save()
                raise Interrupted(self._asked.number)
        self._tell()
        self.report(Done(self.phase, self.seconds))
        self.ended = True
        self.visit(self)

    def take(self, loss: Callable[[], Tensor]) -> None:
        """One optimiser step down the gradient of what `loss` computes: captured, where the steps of this loop are."""
        if self.captured is None:
            self.update(loss())
        else:
            self._losses.append(self.captured(loss))

    def update(self, loss: Tensor) -> None:
        """One optimiser step down the gradient of `loss`."""
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        self.apply(loss)

    def apply(self, loss: Tensor) -> None:
        """One optimiser step down the gradients that are there already; `loss` is only reported."""
        self.optimiser.step()
        self._losses.append(loss.detach())

    def save(self) -> None:
        """Keep a checkpoint now; a state that has diverged is not kept."""
        self._tell()
        self.saver.save(self._checkpoint())

    def _schedule(self) -> None:
        half_cosine = 0.5 * (1 + math.cos(math.pi * self.done))
        for group, lr in zip(self.optimiser.param_groups, self._base_lrs, strict=True):
            now = lr * (self.min_lr_ratio + (1 - self.min_lr_ratio) * half_cosine)
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(now)  # where a captured step reads it
            else:
                group["lr"] = now

    def _nearer_without(self) -> bool:
        """Whether another step, as long as the last one, would end further beyond the limit than it is away now."""
        return self.limit is not None and self.seconds + self._last_step / 2 > self.limit

    def _due(self) -> bool:
        if self.limit is None:
            return self.step % self.every == 0 or self.step == self.steps
        return self.seconds - self._told >= self._told_every

    def _tell(self) -> None:
        self._told = self.seconds
        if not self._losses:
            return
        losses = torch.stack(self._losses)
        self._losses = []
        mean = losses.mean().item()
        if not math.isfinite(mean):
            bad = int((~torch.isfinite(losses)).nonzero()[0, 0])
            raise DivergedError(
                f"The loss of phase '{self.phase}' is not finite at step {self.step - len(losses) + bad + 1}.",
                "Lower the learning rate or raise the ridge (λ); with bf16, try --precision fp32.",
            )
        total = self.steps if self.limit is None else max(self.step, round(self.step / max(self.done, 1e-9)))
        self.report(Step(self.phase, self.step, total, {"loss": mean}))

    def _checkpoint(self) -> Checkpoint:
        out = {f"tensor.{name}": t.detach().cpu() for name, t in self.tensors.items()}
        for i, state in self.optimiser.state_dict()["state"].items():
            out |= {f"optimiser.{i}.{key}": torch.as_tensor(value).cpu() for key, value in state.items()}
        if self.rng is not None:
            out["rng"] = self.rng.get_state()
        clocks = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("seconds", "overhead")}
        return out | {"step": torch.tensor(self.step)} | clocks

    @torch.no_grad()
    def _restore(self, saved: Checkpoint) -> None:
        for name, t in self.tensors.items():
            t.copy_(saved[f"tensor.{name}"])
        learned = [t for group in self.optimiser.param_groups for t in group["params"]]
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in saved.items():
            if name.startswith("optimiser."):
                _, index, key = name.split(".")
                state.setdefault(int(index), {})[key] = in_layout_of(learned[int(index)], value)
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": state, "param_groups": groups})
        self.step = int(saved["step"])
        self._before, self.overhead = (float(saved.get(name, 0.0)) for name in ("seconds", "overhead"))  # 0.1 has none
        if self.rng is not None:
            if saved["rng"].shape != self.rng.get_state().shape:
                raise RunError(
                    f"The checkpoint of phase '{self.phase}' was made on another kind of device: it cannot go on exactly here.",
                    "Resume where it was begun, or remove the folder checkpoints, so that the phase begins again.",
                )
            self.rng.set_state(saved["rng"])


def in_layout_of(learned: Tensor, state: Tensor) -> Tensor:
    """What an optimiser keeps for each value of a tensor, in that tensor's layout (files keep none): fused ones need it so."""
    return torch.empty_like(learned).copy_(state) if state.ndim and state.shape == learned.shape else state
