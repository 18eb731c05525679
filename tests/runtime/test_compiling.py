"""What is said and done while networks are compiled; no compiler is used, and no clock of the machine decides."""

import os
import shlex
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from processes import Forked
from torch import Tensor

from ddtool.errors import UsageError
from ddtool.runtime import compiling
from ddtool.runtime.compiling import MESSAGE, Compilation, check_compiler
from ddtool.runtime.engine import Engine, watched
from ddtool.sharing.describe import describe_run


def test_no_compiler_is_an_error_before_any_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(UsageError, match="none is installed") as caught:
        Engine.choose("cpu", "fp32", compile_networks=True)
    assert "leave --compile out" in caught.value.hint
    assert "C++ compiler" in tiny.refused(2, "adapt", "no-such-folder", *tiny.OPTIONS, "--compile")
    assert not Engine.choose("cpu", "fp32").compile_networks


def test_a_named_compiler_has_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = tmp_path / ("cxx.exe" if os.name == "nt" else "cxx")
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(UsageError, match="which CXX names, is not there"):
        check_compiler("cpu")
    compiler.touch(mode=0o755)
    check_compiler("cpu")
    monkeypatch.setattr(compiling.importlib.util, "find_spec", lambda name: None)
    check_compiler("cpu")
    with pytest.raises(UsageError, match="Triton"):
        check_compiler("cuda")


def test_a_compilation_is_said_once_and_ends_with_the_backward_pass() -> None:
    said: list[str] = []
    compilation, weight = Compilation(said.append), torch.ones(1, requires_grad=True)
    states = []

    def run(x: Tensor) -> Tensor:
        states.append(compilation.going_on)
        return x * weight

    call = watched(run, compilation)
    with torch.no_grad():
        call(torch.ones(2))
        assert not compilation.going_on
        call(torch.ones(2))
    loss = call(torch.ones(2)).sum()
    assert compilation.going_on  # the gradient is compiled in the backward pass
    loss.backward()
    assert not compilation.going_on
    call(torch.ones(2))
    call(torch.ones(3))
    call(torch.ones(3))  # nobody asked for the gradient before
    assert states == [True, False, True, False, True, False]
    assert not compilation.going_on
    assert said == [MESSAGE]


def test_handlers_and_the_descriptor_for_signals_are_as_before() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    compilation = Compilation(lambda text: None)
    compilation.finish()
    compilation.begin()
    compilation.begin()
    compilation.finish()
    assert {number: signal.getsignal(number) for number in before} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_what_takes_too_long_is_ended() -> None:
    said: list[str] = []
    codes: list[int] = []
    compilation = Compilation(said.append, seconds=0.001, end=codes.append)
    compilation.begin()
    compilation._thread.join()
    compilation.finish()
    assert codes == [1]
    (told,) = (text for text in said if text != MESSAGE)
    assert "more than 0.001 s" in told
    assert "without --compile" in told


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX systems")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_compilation_that_never_comes_back(number: signal.Signals) -> None:
    code = """
import sys, time
from ddtool.runtime.compiling import Compilation
from ddtool.runtime.loop import deferred_interrupt
def say(text): print(text, flush=True)
with deferred_interrupt():
    Compilation(say, grace=0.1).begin()
    while True:
        time.sleep(3600)  # goes on after a handler, as torch's own code does
"""
    process = Forked(code)
    while process.said() != MESSAGE + "\n":
        assert process.runs()
        time.sleep(0.01)
    process.send(number)
    ended = process.finished()
    assert ended.returncode == 128 + number
    assert "Stopped while the networks were compiled." in ended.stdout.removeprefix(MESSAGE)


def test_a_signal_that_the_step_answers_in_time_is_left_to_it() -> None:
    codes: list[int] = []
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    compilation = Compilation(lambda text: None, grace=60, end=codes.append)
    compilation.begin()
    signal.raise_signal(signal.SIGTERM)
    compilation.finish()
    signal.signal(signal.SIGTERM, before)
    assert (heard, codes) == ([signal.SIGTERM], [])


def test_other_signals_do_not_matter() -> None:
    codes: list[int] = []
    compilation = Compilation(lambda text: None, grace=0, end=codes.append)
    compilation.begin()
    compilation._theirs.send(bytes([28]))  # a window that changes its size
    compilation.finish()
    assert not codes


@pytest.mark.parametrize("compiled", [True, False])
def test_a_run_says_whether_its_networks_were_compiled(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In env.json, and so in the command that makes its sets again: their last bits depend on it."""
    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(tiny, "ENGINE", replace(tiny.ENGINE, compile_networks=compiled))
    settings = tiny.SETTINGS | {"evaluate": {"enabled": False}}
    run = tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run", settings=settings)
    assert run.read_json("env.json").get("compiled", False) == compiled
    made = describe_run(run, 0).sets[2]
    assert ("--compile" in shlex.split(made.command)) == compiled
    assert made.env.stated().get("compiled", False) == compiled
