"""Which precision a machine gets, and in how large parts a batch is trained on."""

from collections.abc import Iterator

import pytest
import torch

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


@pytest.mark.parametrize(
    ("device", "memory", "values", "most", "expected"),
    [
        ("cpu", 2**34, 2**16, 100, 50),  # two equal parts, not 80 and 20
        ("cpu", 2**34, 2**10, 100, 100),
        ("cpu", 2**34, 2**30, 100, 1),
        ("cpu", 64 * 2**16 * 30, 2**16, 100, 25),  # four times 16 bytes a value
        ("cuda", 2**34, 2**16, 100, 100),
    ],
)
def test_a_batch_is_trained_on_in_equal_parts(device: str, memory: int, values: int, most: int, expected: int) -> None:
    at_work = Engine(torch.device(device), bf16=False, memory=memory)
    assert at_work.at_once_in_training(values, most) == expected
