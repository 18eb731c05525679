"""Captured steps without a GPU: a tape stands in for a CUDA graph, and refuses whatever a graph could not hold."""

import contextlib
import copy
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ddtool import api
from ddtool.cli.options import machine_flags
from ddtool.config import AdaptConfig, PretrainConfig, RefineConfig, RunConfig
from ddtool.data.batches import Pool, Real
from ddtool.data.images import ImageData, draw_per_class, one_hot
from ddtool.data.inputs import NetworkInput
from ddtool.data.whitening import fit
from ddtool.errors import DDToolError, UsageError
from ddtool.events import Event, Step, silent
from ddtool.methods import mgdd
from ddtool.models.convnet import RandomFeatures
from ddtool.models.generator import GAIN, Generator, GeneratorConfig
from ddtool.pipeline.plan import check_captured
from ddtool.pretraining import pretrain
from ddtool.runtime import capture
from ddtool.runtime import engine as engines
from ddtool.runtime.capture import WARM_UP, CapturedSteps, CudaGraphs
from ddtool.runtime.engine import Engine
from ddtool.runtime.loop import Checkpoint
from ddtool.runtime.signals import Interrupted
from ddtool.sharing.describe import describe_run

STEPS = 14
ADAPT = AdaptConfig(
    steps=STEPS, lr=3e-3, real_batch=16, seen_ipcs=(1, 2), ridge=1e-2, flip=True, min_lr_ratio=0.1, augmented_copies=0
)  # fmt: skip
REFINE = RefineConfig(steps=STEPS, real_batch=16, ridge=1e-2, flip=True, min_lr_ratio=0.1, augmented_copies=0)
KINDS = {"adapt": 2, "refine": 1}
"""Kinds of steps in each phase without augmented copies: a graph for each IPC that adaptation sees."""
UNSCORED = {"evaluate": {"enabled": False}}


# ------------------------------------------------------------------------------------------------------------ the tape


class NotCapturable(Exception):
    """What a step did that no graph can hold."""


class Tape(TorchDispatchMode):
    """While it is on, every kernel is written down with the very tensors that it reads and fills; `play` runs all of them again on
    those tensors, and no other line of the step. Refuses questions to the host and sizes that depend on values."""

    def __init__(self) -> None:
        super().__init__()
        self.kernels: list[tuple[Any, tuple, dict[str, Any], Any]] = []

    def __torch_dispatch__(self, kernel: Any, types: Any, args: tuple = (), named: dict[str, Any] | None = None) -> Any:
        if kernel.namespace == "profiler" or kernel is torch.ops.aten.promote_types.default:  # about no tensor
            return kernel(*args, **(named or {}))
        masks = kernel is torch.ops.aten.index.Tensor and any(t is not None and t.dtype is torch.bool for t in args[1])
        by_value = torch.Tag.dynamic_output_shape in kernel.tags and kernel is not torch.ops.aten.index.Tensor
        if masks or by_value or torch.Tag.data_dependent_output in kernel.tags:
            raise NotCapturable(f"{kernel} depends on values")
        if kernel is torch.ops.aten.lift_fresh.default:
            raise NotCapturable(f"{kernel} copies from the host")
        out = kernel(*args, **(named or {}))
        if not all(isinstance(leaf, Tensor | None) for leaf in tree_leaves(out)):
            raise NotCapturable(f"{kernel} answers the host")
        self.kernels.append((kernel, args, named or {}, out))
        return out

    def play(self) -> None:
        with torch.no_grad():
            for kernel, args, named, out in self.kernels:
                for old, new in zip(tree_leaves(out), tree_leaves(kernel(*args, **named)), strict=True):
                    if old is not None and old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class Tapes:
    """A recorder without a GPU. What is recorded is also made, so the first replay has nothing to do."""

    replays = 0

    def __init__(self, device: torch.device, rng: torch.Generator) -> None:
        self.rng = rng

    def eagerly(self, step: capture.Step) -> Tensor:
        return step()

    def record(self, step: capture.Step) -> tuple[Callable[[], None], Tensor]:
        tape = Tape()
        with tape:
            loss = step()
        made = iter([lambda: None])

        def replay() -> None:
            Tapes.replays += 1
            next(made, tape.play)()

        return replay, loss


@pytest.fixture
def tapes(monkeypatch: pytest.MonkeyPatch) -> type[Tapes]:
    """The recorder of every engine in this test. On a CPU, and nowhere else, F.one_hot looks at its labels."""
    monkeypatch.setattr(engines, "CudaGraphs", Tapes)
    monkeypatch.setattr(Tapes, "replays", 0)
    monkeypatch.setattr(
        F, "one_hot", lambda labels, C: (labels[:, None] == torch.arange(C, device=labels.device)).long()
    )
    return Tapes


@pytest.mark.parametrize(
    "asks",
    [
        lambda x: x * float(x.sum()),
        lambda x: x if x.sum() > 0 else -x,
        lambda x: x[x > 0],
        lambda x: x[x.nonzero()],
        lambda x: x * torch.tensor([1.0, 2.0]),
        lambda x: x.repeat_interleave(torch.ones(2, dtype=torch.long)),
        lambda x: x if torch.equal(x, x) else -x,
    ],
)
def test_the_tape_refuses_what_a_graph_cannot_hold(asks: Callable[[Tensor], Tensor]) -> None:
    x = torch.ones(2)
    with pytest.raises(NotCapturable), Tape():
        asks(x)


def test_the_tape_runs_no_line_of_the_step_again() -> None:
    """A number of Python's is the same at each replay, one in a tensor is not."""
    x, lr, rate = torch.zeros(1), torch.tensor(1.0), 1.0
    with (tape := Tape()):
        y = x.add_(lr).mul(rate)
    lr.fill_(10.0)
    rate = 100.0
    tape.play()
    assert (x.item(), y.item()) == (11.0, 11.0)


def test_labels_are_the_same_without_a_look_at_them(tapes: type[Tapes]) -> None:
    labels = torch.tensor([2, 0, 1, 2])
    expected = torch.eye(3)[labels] - 1 / 3
    assert torch.equal(one_hot(labels, 3), expected)


# ------------------------------------------------------------------------------------------------------------ the steps


class World:
    """A phase on the toy images, by an engine that captures; its start and its random stream follow from `seed`."""

    def __init__(
        self, phase: str, toy: ImageData, norm: str = "none", bf16: bool = False, factor: int = 1, **settings: Any
    ) -> None:
        self.phase, self.norm, self.settings = phase, norm, settings
        self.engine = Engine(torch.device("cpu"), bf16, graphs=True)
        self.real = Real.of(toy, self.engine, factor)
        self.losses: list[float] = []

    def listen(self, event: Event) -> None:
        if isinstance(event, Step):
            self.losses.append(event.values["loss"])

    def run(self, seed: int = 0, report: Callable[[Event], None] = silent, saver: Any = None) -> list[Tensor]:
        """What was learned, and the state of the random stream after it."""
        self.losses = []
        stream = self.engine.rng(seed, "test")
        f = RandomFeatures(self.real.data.shape, (4, 8), self.norm, self.engine, stream)
        rows = draw_per_class(self.real.data, 2, self.engine.rng(0, "rows"))
        X, Y = self.real.inputs(self.real.data.images[rows]), torch.eye(4, device=self.engine.device).repeat(2, 1)

        def both(event: Event) -> None:
            self.listen(event)
            report(event)

        if self.phase == "refine":
            config = replace(REFINE, **self.settings)
            learned = mgdd.refine(X + seed, Y - seed, f, self.real, config, stream, both, saver)
            return [*learned, stream.get_state()]
        g = self.engine.place(Generator.build(GeneratorConfig(slots=8, side=16), seed))
        with torch.no_grad():
            g.values.normal_(0, 0.3 / GAIN, generator=stream)
        pool = Pool(X, {1: Y[:4], 2: Y})
        mgdd.adapt(g, f, self.real, pool, replace(ADAPT, **self.settings), self.engine, stream, both, saver)
        return [*(p.detach() for p in g.parameters()), stream.get_state()]


@contextlib.contextmanager
def all_eager() -> Iterator[None]:
    """No step is captured: the same optimiser, the same stream."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(capture, "WARM_UP", 10**9)
        yield


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.usefixtures("untouched_global_rng")
@pytest.mark.parametrize(
    ("phase", "options"),
    [
        ("adapt", {}),
        ("adapt", {"synthetic_batch": 4, "flip": False}),
        ("adapt", {"norm": "instance", "bf16": True}),
        ("adapt", {"factor": 2}),
        ("refine", {}),
        ("refine", {"synthetic_batch": 4, "flip": False}),
        ("refine", {"norm": "batch"}),
    ],
    ids=str,
)
def test_a_replay_gives_the_bits_of_an_eager_step(
    phase: str, options: dict[str, Any], toy: ImageData, tapes: type[Tapes]
) -> None:
    world = World(phase, toy, **options)
    captured, losses = world.run(), world.losses
    assert tapes.replays == STEPS - WARM_UP * KINDS[phase]
    with all_eager():
        assert same(world.run(), captured)
    assert world.losses == losses
    assert len(set(losses)) == STEPS
    assert tapes.replays == STEPS - WARM_UP * KINDS[phase]
    assert not same(world.run(1), captured)


@pytest.mark.usefixtures("untouched_global_rng")
@pytest.mark.parametrize("phase", KINDS)
def test_steps_with_augmented_copies_are_captured_by_the_operations_that_come_first(
    phase: str, toy: ImageData, tapes: type[Tapes]
) -> None:
    """FRePo's family has six operations: with one copy, six kinds of steps for each IPC."""
    kinds = 6 * KINDS[phase]
    world = World(phase, toy, augmented_copies=1, steps=4 * kinds + 3)
    captured = world.run()
    assert tapes.replays == 4 * kinds + 3 - WARM_UP * kinds
    with all_eager():
        assert same(world.run(), captured)


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("phase", KINDS)
def test_whitened_images_are_captured_too(phase: str, factor: int, toy: ImageData, tapes: type[Tapes]) -> None:
    plain = Real.of(toy, Engine(torch.device("cpu"), False))
    whitening = fit(lambda rows: plain.at(rows)[0], torch.arange(len(toy)), "dct", 0.1)
    world = World(phase, replace(toy, whitening=whitening), factor=factor)
    captured = world.run()
    assert tapes.replays
    with all_eager():
        assert same(world.run(), captured)


@pytest.mark.parametrize("phase", KINDS)
def test_captured_steps_are_those_of_a_run_without(phase: str, toy: ImageData, tapes: type[Tapes]) -> None:
    """But for the last bits, in which torch's two forms of Adam differ: a few steps have not enlarged them yet."""
    world = World(phase, toy)
    *captured, stream = world.run()
    world.engine = replace(world.engine, graphs=False)
    losses = world.losses
    *plain, plain_stream = world.run()
    assert torch.equal(stream, plain_stream)
    assert losses == pytest.approx(world.losses, rel=1e-3)
    assert all((a - b).abs().mean() < 1e-4 for a, b in zip(captured, plain, strict=True))


class FileLike:
    """Keeps a checkpoint as a file does: the values, in the usual layout."""

    kept: Checkpoint | None = None

    def load(self) -> Checkpoint | None:
        return copy.deepcopy(self.kept)

    def save(self, checkpoint: Checkpoint) -> None:
        self.kept = {name: t.clone(memory_format=torch.contiguous_format) for name, t in checkpoint.items()}


@pytest.mark.parametrize("stop", [2, 11], ids=["before it is captured", "between replays"])
@pytest.mark.parametrize("phase", KINDS)
def test_an_interrupted_phase_goes_on_bit_for_bit(
    phase: str, stop: int, toy: ImageData, tapes: type[Tapes], interrupt_at: Callable
) -> None:
    world, saver = World(phase, toy), FileLike()
    expected, losses = world.run(), world.losses
    with pytest.raises(Interrupted):
        world.run(0, interrupt_at(stop), saver)
    first = world.losses
    assert saver.kept is not None
    assert int(saver.kept["step"]) == stop == len(first)
    assert same(world.run(1, saver=saver), expected)  # the start is another one in every way
    assert first + world.losses == losses


@pytest.mark.parametrize("phase", KINDS)
def test_a_captured_phase_can_go_on_without_graphs(
    phase: str, toy: ImageData, tapes: type[Tapes], interrupt_at: Callable
) -> None:
    """And the other way round: a checkpoint is the same for both."""
    world, saver = World(phase, toy), FileLike()
    *expected, stream = world.run()
    for graphs in (True, False):
        world.engine = replace(world.engine, graphs=graphs)
        with pytest.raises(Interrupted):
            world.run(0, interrupt_at(11), saver)
        world.engine = replace(world.engine, graphs=not graphs)
        *learned, state = world.run(1, saver=saver)
        assert torch.equal(state, stream)
        assert all((a - b).abs().mean() < 1e-4 for a, b in zip(learned, expected, strict=True))
        saver.kept = None


@pytest.mark.parametrize("phase", KINDS)
def test_what_a_step_works_on_stays_where_it_is(
    phase: str, toy: ImageData, tapes: type[Tapes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned tensors, the optimiser's state and learning rates in all steps; gradients from one replay to the next."""
    places: list[tuple[int, ...]] = []
    gradients: list[tuple[int, ...]] = []
    rates: list[float] = []
    step = CapturedSteps.__call__

    def watched(self: CapturedSteps, loss: capture.Step) -> Tensor:
        rates.append(float(self.optimiser.param_groups[0]["lr"]))
        out = step(self, loss)
        learned = [p for group in self.optimiser.param_groups for p in group["params"]]
        kept = [t for p in learned for t in self.optimiser.state[p].values()]
        kept += [group["lr"] for group in self.optimiser.param_groups]
        places.append(tuple(t.data_ptr() for t in [*learned, *kept]))
        gradients.append(tuple(p.grad.data_ptr() for p in learned))
        return out

    monkeypatch.setattr(CapturedSteps, "__call__", watched)
    World(phase, toy).run()
    assert len(set(places)) == 1
    captured = (WARM_UP + 1) * KINDS[phase]
    assert len(set(gradients[captured - 1 :])) == 1
    assert len(set(rates)) == STEPS  # a half cosine, filled in place
    assert rates == sorted(rates, reverse=True)


def test_a_loss_that_is_kept_is_not_that_of_a_later_step(tapes: type[Tapes]) -> None:
    x = torch.ones(3, requires_grad=True)
    engine = Engine(torch.device("cpu"), False, graphs=True)
    optimiser = engine.adam([x], lr=0.1)
    captured = engine.captured(optimiser, engine.rng(0))
    assert captured is not None

    def loss() -> Tensor:
        return x.square().sum()

    kept = [captured(loss) for _ in range(WARM_UP + 4)]
    assert tapes.replays == 4
    values = [value.item() for value in kept]
    assert values == sorted(set(values), reverse=True)
    assert not any(value.requires_grad for value in kept)


@pytest.mark.parametrize(
    ("norm", "factor", "copies"), [("none", 1, 0), ("none", 1, None), ("instance", 1, 0), ("none", 2, 0)]
)
@pytest.mark.parametrize("phase", KINDS)
def test_a_step_needs_no_values_at_all(
    phase: str, norm: str, factor: int, copies: int | None, toy: ImageData, tapes: type[Tapes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """On torch's device 'meta', where tensors have shapes and no values: a question to the host, a size that depends on a value and
    a tensor left on the CPU raise. Layers that ask for the kind of device take the way of a GPU."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())
    meta = torch.device("meta")
    whole = Real.of(toy, Engine(torch.device("cpu"), False))
    data, sampler = whole.data.to(meta), copy.copy(whole.sampler)
    for name in ("order", "counts", "starts"):
        setattr(sampler, name, getattr(sampler, name).to(meta))
    real, stream = Real(data, sampler, NetworkInput(data.mean, data.std, None, meta, factor)), torch.Generator()
    f = RandomFeatures(toy.shape, (4, 8), norm, Engine(meta, False), stream)
    X, Y = torch.empty(8, *toy.shape, device=meta), torch.empty(8, 4, device=meta)
    if phase == "adapt":
        g = Generator(GeneratorConfig(slots=8, side=8)).to(meta)  # smaller than the images, which are resampled
        loss = mgdd.training_loss(
            g, f, real, Pool(X, {2: Y}), 2, replace(ADAPT, synthetic_batch=4, augmented_copies=copies), stream
        )
    else:
        X.requires_grad_()
        loss = mgdd.refinement_loss(X, Y, f, real, replace(REFINE, synthetic_batch=4, augmented_copies=copies), stream)
    loss.backward()
    assert loss.device == meta
    assert (g.values if phase == "adapt" else X).grad is not None


# -------------------------------------------------------------------------------------------------------- what is refused


def test_captured_steps_need_cuda_and_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="the device is cpu") as caught:
        Engine.choose("cpu", "fp32", graphs=True)
    assert "Leave --graphs out" in caught.value.hint
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(UsageError, match="--graphs and --compile exclude each other"):
        Engine.choose("cuda", "fp32", compile_networks=True, graphs=True)
    assert not Engine.choose("cpu", "fp32").graphs
    assert Engine(torch.device("cpu"), False, graphs=True).describe().endswith("float32, captured steps")


def test_captured_steps_are_counted_and_those_of_mgdd() -> None:
    engine = Engine(torch.device("cpu"), False, graphs=True)
    check_captured(RunConfig(dataset="sample"), engine)
    with pytest.raises(UsageError, match="--graphs and --seconds exclude each other"):
        check_captured(RunConfig(dataset="sample", seconds=10.0), engine)
    with pytest.raises(UsageError, match="those of the method 'dm' are not captured"):
        check_captured(RunConfig(dataset="sample", method="dm"), engine)
    check_captured(RunConfig(dataset="sample", seconds=10.0, method="dm"), replace(engine, graphs=False))


@pytest.mark.parametrize("phase", KINDS)
def test_images_in_parts_are_refused(phase: str, toy: ImageData, tapes: type[Tapes]) -> None:
    world = World(phase, toy)
    world.engine = replace(world.engine, memory=2**16)
    with pytest.raises(UsageError, match="in parts, to fit the memory, are not captured") as caught:
        world.run()
    assert "leave --graphs out" in caught.value.hint
    assert not world.losses  # no step was made


def test_the_command_line_refuses_what_cannot_be_captured() -> None:
    said = tiny.refused(2, "adapt", "sample", "--device", "cpu", "--graphs", "--out", "run")
    assert "the device is cpu" in said
    assert (
        machine_flags("cuda", "auto", None, False, None, True) == "--device cuda --graphs"
    )  # of the command to go on by


def test_other_methods_and_pretraining_are_refused_before_any_data_is_read(tmp_path: Path) -> None:
    engine = Engine(torch.device("cpu"), False, graphs=True)
    with pytest.raises(UsageError, match="those of the method 'dm' are not captured"):
        api.adapt("no-such-folder", method="dm", engine=engine, out=tmp_path / "run")
    with pytest.raises(UsageError, match="The steps of pre-training are not captured"):
        pretrain.start(replace(PretrainConfig(), datasets=("no-such-folder",)), tmp_path / "run", engine)
    assert not (tmp_path / "run").exists()


def test_a_whole_run_is_captured(tmp_path: Path, tapes: type[Tapes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny, "ENGINE", replace(tiny.ENGINE, graphs=True))
    settings = tiny.SETTINGS | {
        "adapt": tiny.SETTINGS["adapt"] | {"steps": 8, "augmented_copies": 0},
        "refine": tiny.SETTINGS["refine"] | {"steps": 8, "augmented_copies": 0},
        **UNSCORED,
    }
    run = tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run", settings=settings)
    assert tapes.replays == (8 - 2 * WARM_UP) + (8 - WARM_UP)
    assert run.load_set(2).stage == "refined"
    made = describe_run(run, 0).sets[2]
    assert (made.env.graphs, shlex.split(made.command or "")[-1]) == (True, "--graphs")
    assert "--graphs" in (run.folder / "report.html").read_text(encoding="utf-8")
    run.write_json("env.json", {k: v for k, v in run.read_json("env.json").items() if k != "graphs"})  # an earlier one
    made = describe_run(run, 0).sets[2]
    assert "graphs" not in made.env.stated()
    assert "--graphs" not in (made.command or "")


def test_a_run_whose_steps_are_not_captured_says_nothing_of_it(tmp_path: Path) -> None:
    run = tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run", settings=tiny.SETTINGS | UNSCORED)
    assert "graphs" not in run.read_json("env.json")
    assert "--graphs" not in (describe_run(run, 0).sets[2].command or "")


# ----------------------------------------------------------------------------------------------------------- CUDA graphs


class Calls:
    """Stands in for torch.cuda, and writes down in which order it is used."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def note(self, text: str) -> None:
        self.made.append(text)

    def Stream(self, device: torch.device) -> "FakeStream":
        return FakeStream(self, "side", device)

    def current_stream(self, device: torch.device) -> "FakeStream":
        return FakeStream(self, "usual", device)

    def graph_pool_handle(self) -> str:
        return "pool"

    @contextlib.contextmanager
    def stream(self, stream: "FakeStream") -> Iterator[None]:
        self.note(f"on {stream.name}")
        yield
        self.note("off")

    def CUDAGraph(self) -> "FakeGraph":
        return FakeGraph(self)

    @contextlib.contextmanager
    def graph(self, graph: "FakeGraph", pool: str, stream: "FakeStream") -> Iterator[None]:
        self.note(f"capture with {pool} on {stream.name}")
        yield
        self.note("captured")


class FakeStream:
    def __init__(self, calls: Calls, name: str, device: torch.device) -> None:
        self.calls, self.name, self.device = calls, name, device

    def wait_stream(self, other: "FakeStream") -> None:
        self.calls.note(f"{self.name} waits for {other.name}")


class FakeGraph:
    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    def register_generator_state(self, rng: torch.Generator) -> None:
        self.calls.note(f"registered {rng.initial_seed()}")

    def replay(self) -> None:
        self.calls.note("replay")


def test_the_order_of_calls_to_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls()
    monkeypatch.setattr(capture.torch, "cuda", calls)
    recorder = CudaGraphs(torch.device("cuda"), torch.Generator().manual_seed(7))

    def step() -> Tensor:
        calls.note("step")
        return torch.tensor(1.5)

    assert recorder.eagerly(step).item() == 1.5
    assert calls.made == ["side waits for usual", "on side", "step", "off", "usual waits for side"]
    calls.made.clear()
    replay, loss = recorder.record(step)
    assert calls.made == ["registered 7", "capture with pool on side", "step", "captured"]
    replay()
    assert calls.made[4:] == ["replay"]
    assert loss.item() == 1.5


def test_what_torch_cannot_capture_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture.torch, "cuda", Calls())

    def step() -> Tensor:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nand more")

    with pytest.raises(DDToolError, match=r"not permitted when stream is capturing") as caught:
        CudaGraphs(torch.device("cuda"), torch.Generator()).record(step)
    assert "--graphs" in caught.value.hint


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("phase", KINDS)
def test_on_a_gpu_replays_give_what_eager_steps_give(phase: str, toy: ImageData) -> None:
    """The random stream exactly; losses as far as kernels give the same bits twice."""
    world = World(phase, toy)
    world.engine = replace(world.engine, device=torch.device("cuda"))
    world.real = Real.of(toy, world.engine)
    *captured, stream = world.run()
    losses = world.losses
    with all_eager():
        *eager, eager_stream = world.run()
    assert torch.equal(stream, eager_stream)
    assert losses == pytest.approx(world.losses, rel=1e-2)
    assert all((a - b).abs().mean() < 1e-2 * a.abs().mean() for a, b in zip(captured, eager, strict=True))
