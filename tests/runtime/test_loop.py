"""The frame of every optimisation: schedule, reports, checkpoints, Ctrl-C."""

import math
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ddtool.errors import DivergedError, RunError
from ddtool.events import Done, Event, Step, silent
from ddtool.runtime.loop import Deadline, Loop
from ddtool.runtime.signals import STOPS, Interrupted, deferred_interrupt


class Problem:
    """A learned vector whose loss needs the random stream and Adam's memory: all that a checkpoint must hold."""

    def __init__(self, steps: int, seed: int = 0, **options: Any) -> None:
        self.rng = torch.Generator().manual_seed(seed)
        self.x = torch.full((3,), float(seed + 1), requires_grad=True)
        self.optimiser = torch.optim.Adam([self.x], lr=0.1)
        self.events: list[Event] = []
        report = options.pop("report", silent)

        def listen(event: Event) -> None:
            self.events.append(event)
            report(event)

        self.loop = Loop("toy", steps, {"x": self.x}, self.optimiser, self.rng, listen, **options)

    def step(self) -> None:
        self.loop.update((self.x - torch.rand(3, generator=self.rng)).square().sum())

    def run(self) -> "Problem":
        for _ in self.loop:
            self.step()
        return self

    @property
    def reports(self) -> list[Step]:
        return [e for e in self.events if isinstance(e, Step)]


def feed(losses: list[float], **options: Any) -> Problem:
    """A run whose losses are given."""
    problem = Problem(len(losses), **options)
    for step in problem.loop:
        problem.loop.apply(torch.tensor(losses[step]))
    return problem


def press(number: int = signal.SIGINT) -> None:
    os.kill(os.getpid(), number)


pytestmark = pytest.mark.usefixtures("signals")


class Clock:
    """A clock that goes when it is told to."""

    now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of every loop."""
    clock = Clock()
    monkeypatch.setattr("ddtool.runtime.loop.time", clock)
    return clock


# ------------------------------------------------------------------------------------------------ work that goes by parts


def test_a_deadline_ends_where_another_part_would_end_further_beyond_it(clock: Clock) -> None:
    over = Deadline(10)
    for now, said in ((4, False), (7, False), (9.5, True), (9.6, False), (10, True)):
        clock.now = now
        assert over() is said, now


def test_without_a_limit_no_deadline_is_over(clock: Clock) -> None:
    waited: list[int] = []
    over = Deadline(None, lambda: waited.append(1))
    clock.now = 1e9
    assert not over()
    assert not waited  # and the device is not waited for


# ---------------------------------------------------------------------------------------------- steps, reports, schedule


def test_one_step_of_the_optimiser_per_update() -> None:
    ours, plain = Problem(4, seed=7).run(), Problem(4, seed=7)
    for _ in range(4):
        plain.optimiser.zero_grad()
        (plain.x - torch.rand(3, generator=plain.rng)).square().sum().backward()
        plain.optimiser.step()
    assert torch.equal(ours.x, plain.x)


@pytest.mark.parametrize("steps", [1, 2, 99, 100, 101, 150, 199, 200, 250, 999, 1000])
def test_no_more_reports_than_promised(steps: int) -> None:
    problem = feed([1.0] * steps)
    told = [e.step for e in problem.reports]
    assert len(told) <= 100
    assert len(told) >= min(steps, 50)  # and still often enough for a bar
    assert told == sorted(set(told))
    assert told[-1] == steps
    assert isinstance(problem.events[-1], Done)
    assert problem.events[-1].phase == "toy"


def test_reported_loss_is_the_mean_since_the_last_report() -> None:
    problem = feed([1.0, 2.0, 3.0, 5.0, 11.0], reports=3)
    assert [(e.step, e.total, e.values["loss"]) for e in problem.reports] == [(2, 5, 1.5), (4, 5, 4.0), (5, 5, 11.0)]


def test_loss_is_not_asked_for_between_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    item = Tensor.item
    monkeypatch.setattr(Tensor, "item", lambda t: asked.append(1) or item(t))
    feed([1.0] * 40, reports=4)
    assert len(asked) == 4


@pytest.mark.parametrize(("min_lr_ratio", "expected"), [(0.0, [1, 0.8535534, 0.5, 0.1464466]), (1.0, [1, 1, 1, 1])])
def test_half_cosine(min_lr_ratio: float, expected: list[float]) -> None:
    problem = Problem(4, min_lr_ratio=min_lr_ratio)
    problem.optimiser.add_param_group({"params": [torch.zeros(1, requires_grad=True)], "lr": 2.0})
    problem.loop = Loop("toy", 4, {}, problem.optimiser, problem.rng, silent, min_lr_ratio=min_lr_ratio)
    seen = []
    for _ in problem.loop:
        seen.append([group["lr"] for group in problem.optimiser.param_groups])
    assert [a for a, _ in seen] == pytest.approx([0.1 * e for e in expected])
    assert [b for _, b in seen] == pytest.approx([2.0 * e for e in expected])


def test_half_cosine_ends_near_its_ratio() -> None:
    problem = Problem(1000, min_lr_ratio=0.05).run()
    assert problem.optimiser.param_groups[0]["lr"] == pytest.approx(0.1 * 0.05, rel=1e-3)


def test_no_steps() -> None:
    problem = Problem(0).run()
    assert [type(e) for e in problem.events] == [Done]
    assert torch.equal(problem.x, torch.ones(3))


# ------------------------------------------------------------------------------------------------------------ divergence


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_divergence_names_phase_and_step(bad: float) -> None:
    losses = [1.0] * 10
    losses[6] = bad
    with pytest.raises(DivergedError, match=r"phase 'toy' is not finite at step 7\.") as caught:
        feed(losses, reports=2)
    assert "learning rate" in caught.value.hint


def test_a_diverged_state_is_never_saved(saver: Any) -> None:
    with pytest.raises(DivergedError):
        feed([1.0, 2.0, math.nan, 1.0], reports=1, checkpoint_seconds=0.0, saver=saver)
    assert int(saver.kept["step"]) == 2


# ----------------------------------------------------------------------------------------------------------- checkpoints


def test_checkpoints_come_by_the_clock(saver: Any) -> None:
    Problem(5, saver=saver).run()
    assert saver.saves == 0
    Problem(5, saver=saver, checkpoint_seconds=0.0).run()
    assert saver.saves == 5


def test_the_clock_of_checkpoints_begins_anew_at_each(saver: Any, clock: Clock) -> None:
    problem = Problem(20, saver=saver, checkpoint_seconds=10.0)
    saved = []
    for step in problem.loop:
        saved.append(saver.saves)
        clock.now += 4
        problem.step()
        assert step < 20
    assert saved == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3 + [5] * 3 + [6] * 2


def test_checkpoint_is_flat_tensors_on_the_cpu(saver: Any) -> None:
    Problem(2, saver=saver, checkpoint_seconds=0.0).run()
    assert set(saver.kept) == {
        "tensor.x", "optimiser.0.step", "optimiser.0.exp_avg", "optimiser.0.exp_avg_sq", "step", "rng", "seconds", "overhead",
    }  # fmt: skip
    assert all(type(t) is Tensor and t.device.type == "cpu" and not t.requires_grad for t in saver.kept.values())


def test_six_steps_are_three_and_three(saver: Any, interrupt_at: Callable) -> None:
    whole = Problem(6, min_lr_ratio=0.1).run()
    first = Problem(6, min_lr_ratio=0.1, saver=saver, report=interrupt_at(3))
    with pytest.raises(Interrupted):
        first.run()
    assert saver.saves == 1
    second = Problem(6, seed=5, min_lr_ratio=0.1, saver=saver).run()  # another start and stream: the checkpoint decides
    assert torch.equal(second.x, whole.x)
    assert torch.equal(second.rng.get_state(), whole.rng.get_state())
    assert [e.step for e in second.reports] == [4, 5, 6]
    assert [e.values for e in first.reports + second.reports] == [e.values for e in whole.reports]


def test_a_finished_phase_is_not_run_again(saver: Any) -> None:
    done = Problem(3, saver=saver, checkpoint_seconds=0.0).run()
    again = Problem(3, seed=5, saver=saver).run()
    assert again.reports == []
    assert torch.equal(again.x, done.x)


def test_time_adds_up_over_sittings(saver: Any) -> None:
    first = Problem(2, saver=saver, checkpoint_seconds=0.0).run()
    assert 0 < float(saver.kept["seconds"]) <= first.loop.seconds
    saver.kept["seconds"] += 1000
    again = Problem(3, saver=saver).run()
    assert 1000 < again.loop.seconds < 1100


def test_a_checkpoint_of_version_0_1_is_read(saver: Any) -> None:
    """It says nothing of time."""
    Problem(3, saver=saver, checkpoint_seconds=0.0).run()
    del saver.kept["seconds"]
    assert Problem(3, saver=saver).run().reports == []


def test_a_checkpoint_of_another_kind_of_device_is_refused(saver: Any) -> None:
    """The state of CUDA's random stream has another size: it could not go on exactly."""
    Problem(3, saver=saver, checkpoint_seconds=0.0).run()
    saver.kept["rng"] = saver.kept["rng"][:16]
    with pytest.raises(RunError, match="another kind of device") as caught:
        Problem(3, saver=saver).run()
    assert "checkpoints" in caught.value.hint


def test_a_loop_without_a_stream_of_its_own(saver: Any) -> None:
    problem = Problem(3, saver=saver, checkpoint_seconds=0.0)
    problem.loop.rng = None
    problem.run()
    assert "rng" not in saver.kept
    again = Problem(3, seed=5, saver=saver)
    again.loop.rng = None
    assert torch.equal(again.run().x, problem.x)


def test_a_checkpoint_can_be_asked_for_but_not_of_a_diverged_state(saver: Any) -> None:
    problem = Problem(3, reports=1)
    problem.loop.saver = saver
    for step in problem.loop:
        problem.loop.apply(torch.tensor([1.0, 1.0, math.nan][step]))
        if step == 2:
            with pytest.raises(DivergedError):
                problem.loop.save()
            break
        problem.loop.save()
    assert int(saver.kept["step"]) == 1  # of the body of step 1, which is not over


# ---------------------------------------------------------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("number", STOPS)
def test_interrupt_ends_the_step_first(saver: Any, number: int) -> None:
    problem, ended = Problem(6, saver=saver), []

    def run() -> None:
        for step in problem.loop:
            if step == 1:
                press(number)
            problem.step()
            ended.append(step)

    with pytest.raises(Interrupted):
        run()
    assert ended == [0, 1]
    assert int(saver.kept["step"]) == 2
    assert torch.equal(saver.kept["tensor.x"], problem.x.detach())


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="this platform has no SIGHUP")
def test_a_terminal_that_closes_does_not_end_what_nohup_began(saver: Any) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        problem = Problem(3, saver=saver)
        for _ in problem.loop:
            press(signal.SIGHUP)
            problem.step()
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_terminal_is_a_stop() -> None:
    assert [signal.Signals(number).name for number in STOPS][:2] == ["SIGINT", "SIGTERM"]
    assert (signal.SIGHUP in STOPS) if hasattr(signal, "SIGHUP") else len(STOPS) == 2


def test_interrupt_in_the_last_step_is_not_lost(saver: Any, interrupt_at: Callable) -> None:
    problem = Problem(3, saver=saver, report=interrupt_at(3))
    with pytest.raises(Interrupted):
        problem.run()
    again = Problem(3, seed=5, saver=saver).run()
    assert torch.equal(again.x, problem.x)


def test_a_signal_after_the_last_step_is_not_lost(saver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a limit in seconds the loop ends where it looks at the clock; the signal comes just then."""

    def ends(loop: Loop) -> bool:
        if loop.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return loop.step == 2

    monkeypatch.setattr(Loop, "_nearer_without", ends)
    with pytest.raises(Interrupted) as caught:
        Problem(3, saver=saver).run()
    assert caught.value.number == signal.SIGTERM
    assert int(saver.load()["step"]) == 2


def test_processes_that_share_the_steps_stop_together(saver: Any) -> None:
    """What all of them decided counts, not what this one was asked."""
    problem, asked = Problem(6, saver=saver), []

    def run() -> None:
        for step in problem.loop:
            if step == 1:
                press()
            asked.append(problem.loop.asked)
            problem.loop.stopping = step == 3
            problem.step()

    with pytest.raises(Interrupted):
        run()
    assert asked == [False, True, True, True]
    assert int(saver.kept["step"]) == 4


def test_second_interrupt_stops_at_once(saver: Any) -> None:
    reached: list[str] = []

    def run() -> None:
        for _ in Problem(6, saver=saver).loop:
            press()
            reached.append("after the first")
            press()
            reached.append("after the second")

    with pytest.raises(KeyboardInterrupt) as caught:
        run()
    assert not isinstance(caught.value, Interrupted)
    assert reached == ["after the first"]
    assert saver.saves == 0


def test_interrupted_is_an_ordinary_ctrl_c_to_those_outside() -> None:
    assert issubclass(Interrupted, KeyboardInterrupt)


@pytest.mark.parametrize("leave", ["error", "break"])
def test_handlers_come_back_when_the_body_leaves(leave: str) -> None:
    before = signal.getsignal(signal.SIGINT)

    def body() -> None:
        for _ in Problem(3).loop:
            assert signal.getsignal(signal.SIGINT) is not before
            if leave == "break":
                break
            raise ZeroDivisionError

    if leave == "break":
        body()
    else:
        with pytest.raises(ZeroDivisionError):
            body()
    assert signal.getsignal(signal.SIGINT) is before


def test_works_off_the_main_thread() -> None:
    results: list[Tensor] = []
    inside: list[Any] = []
    before = signal.getsignal(signal.SIGINT)

    def work() -> None:
        with deferred_interrupt() as asked:
            inside.append((asked.is_set(), signal.getsignal(signal.SIGINT)))
        results.append(Problem(4).run().x)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert inside == [(False, before)]
    assert torch.equal(results[0], Problem(4).run().x)


def test_a_visitor_sees_the_loop_before_each_step_and_at_its_end() -> None:
    seen: list[tuple[int, bool, list[float]]] = []
    problem = Problem(2, visit=lambda loop: seen.append((loop.step, loop.ended, loop.tensors["x"].tolist()))).run()
    assert [(step, ended) for step, ended, _ in seen] == [(0, False), (1, False), (2, True)]
    assert (seen[0][2], seen[2][2]) == ([1.0] * 3, problem.x.tolist())
    assert seen[1][2] not in (seen[0][2], seen[2][2])


# ------------------------------------------------------------------------------------------------- a budget in seconds


@pytest.mark.parametrize("steps", [0, 3, 10**9])
def test_a_limit_decides_in_place_of_the_steps(steps: int, clock: Clock) -> None:
    problem = Problem(steps, limit=10.0, min_lr_ratio=0.2)
    rates = []
    for _ in problem.loop:
        rates.append(problem.optimiser.param_groups[0]["lr"])
        problem.step()
        clock.now += 1
    assert rates == pytest.approx([0.1 * (0.6 + 0.4 * math.cos(math.pi * k / 10)) for k in range(10)])
    assert [(e.step, e.total) for e in problem.reports] == [(k, 10) for k in range(1, 11)]
    assert problem.events[-1] == Done("toy", 10.0)


def test_steps_that_take_longer_make_fewer(clock: Clock) -> None:
    problem = Problem(1000, limit=10.0, reports=4)
    for step in problem.loop:
        problem.step()
        clock.now += 0.25 if step < 8 else 4
    assert problem.loop.step == 10
    assert [e.step for e in problem.reports] == [9, 10]  # no oftener than every quarter of the limit


@pytest.mark.parametrize(("length", "steps"), [(7.0, 14), (9.0, 11), (3.0, 33), (30.0, 3), (300.0, 1)])
def test_a_limit_is_met_as_nearly_as_whole_steps_can(length: float, steps: int, clock: Clock) -> None:
    problem = Problem(1, limit=100.0)
    for _ in problem.loop:
        clock.now += length
        problem.step()
    assert problem.loop.step == steps


def test_the_clock_is_paused_while_a_visitor_works(clock: Clock) -> None:
    synchronised: list[float] = []

    def visit(loop: Loop) -> None:
        with loop.paused(lambda: synchronised.append(loop.seconds)):
            clock.now += 100

    problem = Problem(0, limit=3.0, visit=visit)
    for _ in problem.loop:
        problem.step()
        clock.now += 1
    assert synchronised == [0, 1, 2, 3]
    assert problem.loop.step == 3
    assert problem.events[-1] == Done("toy", 3.0)


def test_without_time_there_is_no_step(clock: Clock) -> None:
    problem = Problem(5, limit=0.0).run()
    assert problem.events == [Done("toy", 0.0)]
    assert torch.equal(problem.x, torch.ones(3))


def test_seconds_and_those_beside_the_steps_are_kept_over_a_resume(saver: Any, clock: Clock) -> None:
    synchronised: list[float] = []

    def work(problem: Problem, until: int | None = None) -> None:
        for step in problem.loop:
            problem.step()
            clock.now += 1
            with problem.loop.untimed(lambda: synchronised.append(clock.now)):
                clock.now += 2
            if step == until:
                press()

    first, second = (Problem(0, limit=12.0, saver=saver) for _ in range(2))
    with pytest.raises(Interrupted):
        work(first, until=1)
    assert (first.loop.seconds, first.loop.overhead) == (6.0, 4.0)
    assert synchronised == [1, 3, 4, 6]
    clock.now += 100  # between the sittings
    work(second)
    assert (second.loop.step, second.loop.overhead) == (4, 8.0)
    assert second.events[-1] == Done("toy", 12.0)
