"""Which precision a machine gets, what becomes of memory that is freed, and of modes of torch that a caller has set."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny
import torch

from ddtool import api
from ddtool.errors import UsageError
from ddtool.models.generator import Generator
from ddtool.runtime import engine as engines
from ddtool.runtime.engine import Engine


@pytest.fixture(autouse=True)
def _measured_anew() -> Iterator[None]:
    engines._bf16_is_no_slower.cache_clear()
    yield
    engines._bf16_is_no_slower.cache_clear()


@pytest.mark.parametrize(
    ("flags", "bf16_takes", "bf16"),
    [
        ({"avx2"}, 0.1, False),
        ({"avx2", "avx512_bf16"}, 0.5, True),
        ({"amx_bf16"}, 1.2, True),
        ({"amx_bf16", "avx512_bf16"}, 8.0, False),  # emulated
    ],
)
def test_bf16_is_taken_where_the_cpu_has_it_and_kernels_use_it(
    flags: set[str], bf16_takes: float, bf16: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_cpu_flags", lambda: flags)
    seconds = {torch.float32: 1.0, torch.bfloat16: bf16_takes}
    monkeypatch.setattr(engines, "_conv_seconds", lambda kind, clock: seconds[kind])
    assert Engine.choose("cpu").bf16 is bf16
    assert Engine.choose("cpu", "bf16").bf16  # what is asked for stands
    assert not Engine.choose("cpu", "fp32").bf16


def test_a_convolution_is_timed_by_the_clock_that_is_given() -> None:
    times = iter([1.0, 3.5])
    assert engines._conv_seconds(torch.bfloat16, lambda: next(times)) == 2.5


def test_the_machine_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []

    def timed(kind: torch.dtype, clock: object) -> float:
        kinds.append(kind)
        return 1.0

    monkeypatch.setattr(engines, "_cpu_flags", lambda: {"amx_bf16"})
    monkeypatch.setattr(engines, "_conv_seconds", timed)
    assert Engine.choose("cpu") == Engine.choose("cpu")
    assert len(kinds) == 8


def test_the_api_takes_a_device_in_the_place_of_an_engine() -> None:
    engine = Engine.choose("cpu", "fp32")
    assert Engine.of(engine) is engine
    for named in ("cpu", torch.device("cpu"), None):
        assert Engine.of(named) == Engine.choose("auto" if named is None else "cpu")
    with pytest.raises(UsageError, match="Unknown device 'tpu'"):
        api.evaluate("sample", engine="tpu")
    with pytest.raises(UsageError, match="Unknown device 'gpu'") as unknown:
        Engine.choose(device="gpu")
    assert unknown.value.hint == "A GPU is called cuda: --device cuda."
    with pytest.raises(UsageError, match="Unknown device '0'"):
        Engine.of(0)  # type: ignore[arg-type]


class Library:
    """A C library that notes what it is told; one without mallopt where `found` is None."""

    def __init__(self, found: list[tuple[int, int]] | None) -> None:
        if found is not None:
            self.mallopt = lambda name, value: found.append((name, value))


@pytest.mark.parametrize(("platform", "told"), [("linux", [(-3, 2**25), (-1, 2**29)]), ("win32", []), ("darwin", [])])
def test_freed_memory_is_kept_for_the_next_step(
    platform: str, told: list[tuple[int, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[tuple[int, int]] = []
    monkeypatch.setattr(engines.ctypes, "CDLL", lambda name: Library(found))
    monkeypatch.setattr(engines.sys, "platform", platform)
    engines.keep_freed_memory.__wrapped__()
    assert found == told


def test_a_c_library_without_the_setting_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.ctypes, "CDLL", lambda name: Library(None))
    monkeypatch.setattr(engines.sys, "platform", "linux")
    engines.keep_freed_memory.__wrapped__()


@pytest.mark.parametrize(("threads", "words"), [(1, ", 1 thread"), (2, ", 2 threads")])
def test_a_device_counts_its_threads(threads: int, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    assert engines.hardware(torch.device("cpu")).endswith(words)


@pytest.mark.parametrize(("bf16", "size"), [(True, 2), (False, 4)])
@pytest.mark.parametrize(("values", "images"), [(2**17, 500), (2**17, 7), (2**12, 10_001), (2**25, 3), (2**17, 0)])
def test_parts_are_equal_and_their_widest_tensor_is_one_that_the_c_library_keeps(
    bf16: bool, size: int, values: int, images: int
) -> None:
    part = Engine(torch.device("cpu"), bf16, memory=2**40).part(values, images)
    widest = part * values * size
    assert part >= 1
    assert part == 1 or part >= images or widest < engines.LARGEST_MMAP_THRESHOLD
    fewest = -(-images * values * size // engines.PART_BYTES)
    sizes = [len(rows) for rows in torch.arange(images).split(part)]
    assert max(sizes) - min(sizes) < len(sizes)  # no small remainder
    assert len(sizes) <= max(1, fewest + 1) or part == 1


def test_parts_fit_the_memory_and_are_whole_where_a_gpu_has_it() -> None:
    memory = engines.PASS_SHARE * engines.BYTES_A_VALUE * 1000 * 10
    for device in ("cpu", "cuda"):
        engine = Engine(torch.device(device), True, memory=memory)
        assert engine.part(1000, 100) == engine.at_once(1000, 100) == 10
        assert engine.part(1000, 35) == 9  # four parts, equal but for the last
    assert Engine(torch.device("cuda"), True, memory=2**40).part(2**17, 1024) == 1024


# -------------------------------------------------------------------------------------------------- a caller's own modes


@contextlib.contextmanager
def double() -> Iterator[None]:
    """New tensors in float64, as some notebooks begin."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


CALLERS: dict[str, Callable[[], contextlib.AbstractContextManager]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64": double,
    "device": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


def modes() -> tuple:
    """Those of this thread."""
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_default_device(), torch.is_autocast_enabled("cpu"), torch.is_autocast_cache_enabled(),
    )  # fmt: skip


@pytest.mark.parametrize("caller", CALLERS)
def test_results_do_not_depend_on_the_modes_of_the_caller(
    caller: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bf16, too: weights that are kept under the caller's autocast would not follow their steps."""
    tiny.shorten_protocols(monkeypatch)
    data, engine = tiny.image_folder(tmp_path / "data"), Engine(torch.device("cpu"), bf16=True)

    def made(name: str) -> tuple:
        run = api.adapt(
            data, ipc=1, out=tmp_path / name, generator="scratch", settings=tiny.SETTINGS, engine=tiny.ENGINE
        )
        scores = api.evaluate(run, protocol="dsa-ce,kernel-ridge", seeds=1, engine=engine)
        sets = [api.load_set(run.folder), api.generate(run, 2, engine=tiny.ENGINE)]
        sums = [(one.images.dtype, one.images.sum().item(), one.labels.sum().item()) for one in sets]
        kind = Generator.load(run.folder / "generator").keys.dtype
        return sums, [(score.protocol, score.stage, score.confusion) for score in scores], kind

    usual = made("usual")
    with CALLERS[caller]():
        before = modes()
        assert made("run") == usual
        assert modes() == before
