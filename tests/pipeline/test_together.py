"""One run by several processes: what they make together is what one makes alone, whoever is lost or asked to stop."""

import re
import signal
import socket
import time
from datetime import timedelta
from pathlib import Path

import pytest
import tiny
import torch
from processes import Forked, launched

from ddtool.config import FeatureConfig, RunConfig
from ddtool.errors import UsageError
from ddtool.pipeline.plan import check_divided
from ddtool.pipeline.together import together
from ddtool.runs.run import Run
from ddtool.runtime import distributed
from ddtool.runtime.distributed import OtherRankError, Ranks
from ddtool.runtime.engine import Engine
from ddtool.runtime.team import Letter, Post, Team

HOOK = """
import os, sys
rank, call, number = (int(sys.argv.pop(1)) for _ in range(3))
from ddtool.methods.gradient_matching import Matching
from ddtool.models.convnet import Features
seen, steps = [], []
def counted(kind):
    rows = kind.rows
    def hooked(self, X, *more):
        seen.append(len(X))
        steps.append(X.requires_grad)
        if X.requires_grad and sum(steps) == call and int(os.environ.get("RANK", "0")) == rank:
            os.kill(os.getpid(), number)
        return rows(self, X, *more)
    kind.rows = hooked
counted(Features), counted(Matching)
import tiny
try:
    tiny.start()
finally:
    print("rows", sum(seen), file=sys.stderr)
"""
"""`ddtool` that says how many rows its process has computed, and sends itself a signal in one of the steps."""
NOTHING = (-1, 0, 0)
"""No signal."""
ADAPTING, REFINING = 2, 5
"""A step of adaptation and one of refinement: the tiny run has three of each."""
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
METHODS = {
    "mgdd": [],
    "dm": ["--set", "baseline.real_batch=6"],
    "dsa": ["--set", "baseline.real_batch=6", "--set", "baseline.inner=1"],
    "idc": ["--set", "baseline.real_batch=6", "--set", "baseline.real_images=12"],
}
"""Those that can be divided, with options that make them small."""


@pytest.fixture(autouse=True)
def _target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, with the tiny target."""
    monkeypatch.chdir(tmp_path)
    tiny.image_folder(Path("target"))


def words_of(method: str, out: str, *more: str) -> list[str]:
    """A run on the tiny target."""
    own = tiny.OPTIONS if method == "mgdd" else ["--precision", "fp32", "--method", method, "--steps", "3"]
    if method != "mgdd":
        own = [*own, "--set", "baseline.width=8", *METHODS[method]]
    return ["adapt", "./target", "--ipc", "2", "--no-evaluate", "--out", out, *own, *more]


def alone(*words: str, hook: tuple[int, int, int] = NOTHING) -> tuple[int | None, str]:
    """The same by one process: exit code and stderr."""
    ended = Forked(HOOK, *hook, *words, **ONE_THREAD).finished()
    return ended.returncode, ended.stderr


def by_several(*words: str, hook: tuple[int, int, int] = NOTHING, world: int = 2) -> list[tuple[int | None, str, str]]:
    """The same by several."""
    return launched(HOOK, *hook, *words, world=world, **ONE_THREAD)


def rows_of(stderr: str) -> int:
    """How many rows a process says that it has computed."""
    return int(re.findall(r"^rows (\d+)$", stderr, re.MULTILINE)[-1])


def same(one: str, other: str) -> None:
    """Two runs have the same set, to rounding, which is not the set that they began with."""
    first, second = (Run.open(Path(folder)).load_set(2) for folder in (one, other))
    begun = Run.open(Path(one)).load_set(2, "initial")
    moved = (first.images - begun.images).norm()
    assert moved > 0.05
    assert (first.images - second.images).norm() < 0.02 * moved
    assert torch.allclose(first.labels, second.labels, atol=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_make_the_set_that_one_makes(method: str) -> None:
    code, said = alone(*words_of(method, "one"))
    assert code == 0, said
    first, second = by_several(*words_of(method, "two"))
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert second[1] == ""  # it says nothing
    all_rows = rows_of(said)
    assert rows_of(first[2]) + rows_of(second[2]) == pytest.approx(all_rows, rel=0.01)
    assert 0.3 * all_rows < rows_of(second[2]) <= 0.5 * all_rows
    same("one", "two")
    assert Run.open(Path("two")).environment().device.endswith(", float32, 2 processes")


def test_four_processes_whose_shares_differ() -> None:
    """Six images for four processes, then three rows of classes: some have one, some two, some none."""
    code, said = alone(*words_of("dsa", "one"))
    assert code == 0, said
    ends = by_several(*words_of("dsa", "four"), world=4)
    assert [code for code, _, _ in ends] == [0] * 4, ends
    assert sum(rows_of(said) for _, _, said in ends) == pytest.approx(rows_of(said), rel=0.01)
    same("one", "four")


def test_a_lost_process_and_an_interrupted_one() -> None:
    """What a run has when a process is killed, or all are asked to stop, is whole, and others go on with it."""
    assert alone(*words_of("mgdd", "one"))[0] == 0
    (code, _, said), (killed, _, _) = by_several(*words_of("mgdd", "two"), hook=(1, ADAPTING, signal.SIGKILL))
    assert (code, killed) == (1, -signal.SIGKILL)
    assert "have lost each other" in said
    assert "--resume" in said
    assert "Traceback" not in said
    resumed = ["adapt", "--resume", "two", "--precision", "fp32"]
    assert not Run.open(Path("two")).ipcs()

    (code, _, said), (let_go, _, other) = by_several(*resumed, hook=(0, REFINING, signal.SIGTERM))
    assert (code, let_go) == (143, 0), said + other
    assert Run.open(Path("two")).has("checkpoints/refine-ipc2.safetensors")
    assert "Go on, by the same launcher: ddtool adapt --resume two" in said
    assert not Run.open(Path("two")).ipcs()

    ends = by_several(*resumed)
    assert [code for code, _, _ in ends] == [0, 0], ends
    same("one", "two")


def test_the_first_process_is_lost() -> None:
    """The other one notices, and says nothing: whoever has started both sees how the first has ended."""
    (code, _, _), (left, _, said) = by_several(*words_of("mgdd", "two"), hook=(0, ADAPTING, signal.SIGKILL))
    assert (code, left) == (-signal.SIGKILL, 1)
    assert said.startswith("rows ")


def test_ctrl_c_reaches_all_and_is_the_first_ones_to_answer() -> None:
    """A signal to one that helps changes nothing."""
    ends = by_several(*words_of("mgdd", "two"), hook=(1, ADAPTING, signal.SIGINT))
    assert [code for code, _, _ in ends] == [0, 0], ends
    assert Run.open(Path("two")).ipcs() == [2]


def test_what_the_first_process_refuses_lets_the_others_go() -> None:
    (code, _, said), (left, _, other) = by_several("adapt", "nowhere-to-be-found", "--ipc", "2")
    assert (code, left) == (1, 0), said + other
    assert "nowhere-to-be-found" in said
    assert other == "rows 0\n"


def test_runs_that_cannot_be_divided_are_refused() -> None:
    two = Engine(torch.device("cpu"), False, processes=2)
    check_divided(RunConfig(dataset="sample"), two)
    for config in (
        RunConfig(dataset="sample", method="mtt"),
        RunConfig(dataset="sample", method="frepo"),
        RunConfig(dataset="sample", features=FeatureConfig(norm="batch")),
        RunConfig(dataset="sample", method="dm", baseline={"norm": "batch"}),
    ):
        check_divided(config, tiny.ENGINE)
        with pytest.raises(UsageError, match="2 processes cannot share"):
            check_divided(config, two)
    captured = Engine(torch.device("cpu"), False, graphs=True)
    with pytest.raises(UsageError, match="there are 2"), together(Ranks(0, 2), captured):
        pass


def test_a_launcher_that_says_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    said = tiny.refused(2, *words_of("mgdd", "two"))
    assert "RANK and MASTER_ADDR and MASTER_PORT of the launcher's environment are missing" in said


def test_another_version_that_answers_other_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    post = Post(1, torch.device("cpu"))
    monkeypatch.setattr(post, "receive", lambda: ({}, [torch.zeros(3, 5)]))
    assert torch.equal(post.answer(3, torch.ones(7, 5)), torch.zeros(3, 5))
    for rows, like in ((2, torch.ones(7, 5)), (3, torch.ones(7, 4)), (3, torch.ones(7, 5, dtype=torch.float64))):
        with pytest.raises(OtherRankError, match="Process 1 answered"):
            post.answer(rows, like)


def test_letters_of_gpus_go_through_host_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[str] = []
    monkeypatch.setattr(torch.distributed, "isend", lambda tensor, to: sent.append(tensor.device.type) or object())
    Post(1, torch.device("meta")).send(Letter("rows"), torch.zeros(2))
    assert sent == ["cpu", "cpu", "meta"]
    backends: list[str] = []
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "0")
    monkeypatch.setattr(torch.distributed, "rendezvous", lambda url, timeout: [(torch.distributed.HashStore(), 0, 2)])
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda backend, **more: backends.append(backend))
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: None)
    for device in ("cuda:0", "cpu"):
        with Ranks(0, 2).joined(Engine(torch.device(device), False)):
            pass
    assert backends == ["cpu:gloo,cuda:nccl", "gloo"]


DIVIDED = """
import torch
from dataclasses import replace
from ddtool.models.convnet import Features, RandomFeatures
from ddtool.pipeline.together import together
from ddtool.runtime.distributed import Ranks
from ddtool.runtime.engine import Engine
alone = Engine(torch.device("cpu"), False, memory=2**17)  # two images at once
with together(Ranks.from_environment(), alone) as engine:
    if engine is not None:
        for shape in ((3, 16, 16), (1, 9, 11)):
            rng, again = engine.rng(0), engine.rng(0)
            one = RandomFeatures(shape, (4, 8), "none", alone, rng)
            several = RandomFeatures(shape, (4, 8), "none", engine, again)
            other = RandomFeatures(shape, (4, 8), "none", engine, engine.rng(1))  # of the same kind
            for n in (1, 2, 3, 4, 11):
                X = torch.randn(n, *shape, dtype=torch.float32)
                results = []
                for f in (one, several):
                    leaf = X.clone().requires_grad_()
                    F = f(leaf)
                    (F.square() * torch.arange(1, n + 1)[:, None]).sum().backward()
                    results.append((F.detach(), leaf.grad))
                    other(X)
                for a, b in zip(*results):
                    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
                one.draw(rng), several.draw(again)
        print("equal")
"""


def test_rows_and_gradients_are_those_of_one_process() -> None:
    """More processes than rows, more rows than fit the memory, images of one channel and odd sides, weights that change, two
    networks of one kind."""
    (code, said, wrong), *others = launched(DIVIDED, world=3, **ONE_THREAD)
    assert (code, said) == (0, "equal\n"), wrong
    assert [end[0] for end in others] == [0, 0], others


WEIGHTS = """
import sys, weakref
import torch
from ddtool.models.convnet import Features, RandomFeatures
from ddtool.pipeline.together import together
from ddtool.runtime.distributed import Ranks
from ddtool.runtime.engine import Engine
alone = Engine(torch.device("cpu"), False)
rows, made, most = Features.rows, [], 0
def counted(self, X, *more):
    global most
    out = rows(self, X, *more)
    most = max(most, sum(one() is not None for one in made))
    made.append(weakref.ref(out))
    return out
with together(Ranks.from_environment(), alone) as engine:
    if engine is None:
        print(most)
        sys.exit()
    def network(engine, seed):
        return RandomFeatures((3, 8, 8), (4, 8), "none", engine, engine.rng(seed))
    one, several, other = network(alone, 0), network(engine, 0), network(engine, 1)
    X = torch.randn(5, 3, 8, 8)
    def gradient(f, between=lambda: None):
        leaf = X.clone().requires_grad_()
        F = f(leaf)
        between()
        F.square().sum().backward()
        return leaf.grad
    def equal():
        torch.testing.assert_close(gradient(several), gradient(one))
    equal()
    for seed in (2, 3):
        drawn = network(alone, seed).net.body.state_dict()
        for f in (one, several):
            f.net.body.load_state_dict({name: w.clone() for name, w in drawn.items()}, assign=True)
        equal()
    for f in (one, several):
        for w in f.net.body.parameters():
            w.data.mul_(2)
    equal()
    torch.testing.assert_close(gradient(several, between=lambda: other(X)), gradient(one))
    (first,) = torch.autograd.grad(several(leaf := X.clone().requires_grad_()).square().sum(), leaf, create_graph=True)
    try:
        first.square().sum().backward()
    except RuntimeError as error:
        print(error)
    for _ in range(9):
        several(X.clone().requires_grad_())
    print("equal")
"""


def test_weights_however_they_change_and_graphs_however_they_end() -> None:
    """Weights replaced by others or changed behind the back of autograd; a network of the same kind used before a gradient is
    taken; a second derivative; and graphs that no gradient is taken of, of which the other process keeps none."""
    first, second = launched(WEIGHTS, **ONE_THREAD)
    assert first[0] == 0, first[2] + second[2]
    refused, ended = first[1].splitlines()
    assert "once_differentiable" in refused
    assert ended == "equal"
    assert second[0] == 0, second[2]
    assert int(second[1]) <= 2


MEETING = """
import torch
from ddtool.runtime.distributed import Ranks
from ddtool.runtime.engine import Engine
from ddtool.runtime.signals import interruptible
with interruptible(), Ranks(0, 2).joined(Engine(torch.device("cpu"), False)):
    pass
"""


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def first_of_two(port: int) -> Forked:
    """The first of two processes at that port, of which the other is not started."""
    place = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    return Forked(MEETING, **place, **ONE_THREAD)


def test_a_process_that_waits_for_the_others_can_be_stopped() -> None:
    port = free_port()
    alone = first_of_two(port)
    while alone.runs():
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    alone.send(signal.SIGTERM)
    assert alone.finished(20).returncode == -signal.SIGTERM


@pytest.mark.parametrize("rank", [0, 1])
def test_the_others_are_waited_for_at_the_start_for_a_while_only(rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "MEETING_PATIENCE", timedelta(seconds=1))
    place = {"RANK": f"{rank}", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": f"{free_port()}"}
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    with (
        pytest.raises(OtherRankError, match="not found each other") as error,
        Ranks(rank, 2).joined(Engine(torch.device("cpu"), False)),
    ):
        pass
    assert "are all WORLD_SIZE processes started" in (error.value.hint or "")


def test_a_port_that_is_taken() -> None:
    """Nothing was begun, so nothing goes on with --resume."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ended = first_of_two(other.getsockname()[1]).finished()
    assert ended.returncode == 1
    assert "OtherRankError: The processes have not found each other" in ended.stderr


def test_a_process_that_is_lost_after_its_last_answer_spoils_nothing() -> None:
    """And the others are let go."""

    class Gone:
        def send(self, letter: Letter) -> None:
            raise OtherRankError("It has gone.")

    class There:
        told: str | None = None

        def send(self, letter: Letter) -> None:
            self.told = letter.do

        def sent(self) -> None:
            pass

    team, there = Team.__new__(Team), There()
    team.busy, team.others = False, [Gone(), there]  # type: ignore[list-item]
    team.end()
    assert there.told == "end"


def test_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "gpu_count", lambda: 2)
    with pytest.raises(UsageError, match=r"Process 3 of this machine has no GPU of its own: there are 2\."):
        Ranks(2, 4, 2).engine(Engine(torch.device("cuda"), False))


def test_commands_of_one_process_under_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    """One process says that each would write the same files. WORLD_SIZE alone is no launcher."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "No run of ddtool" in tiny.refused(1, "sweep", "nowhere")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    for command in ("evaluate", "generate", "sweep", "curve", "push"):
        assert "a launcher has started 2" in tiny.refused(2, command, "nowhere")
    assert tiny.ddtool("env").exit_code == 0
    monkeypatch.setenv("RANK", "1")
    assert tiny.ddtool("sweep", "nowhere").output == ""
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert "No run of ddtool" in tiny.refused(1, "sweep", "nowhere")
