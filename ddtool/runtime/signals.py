"""The signals that ask a process to stop: noted between steps, raised elsewhere; each has its exit code."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name))
"""Ctrl-C, a polite kill, a terminal that closes (not on Windows), and Ctrl-Break (only there)."""
CTRL_C_CODE = 130


class StoppedError(KeyboardInterrupt):
    """A signal of `STOPS` asked this process to stop; without a number another process was asked."""

    def __init__(self, number: int | None = None) -> None:
        super().__init__()
        self.number = number


class Interrupted(StoppedError):
    """The same in a loop, which stopped after a whole step; its checkpoint is saved."""


def exit_code(error: KeyboardInterrupt) -> int:
    """What a shell expects of a process that was asked to stop: 143 after a polite kill, 130 after Ctrl-C."""
    number = getattr(error, "number", None)
    polite = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
    return 128 + number if number in polite and number is not None else CTRL_C_CODE


class Asked:
    """Whether, and by which signal, this process has been asked to stop."""

    def __init__(self) -> None:
        self.number: int | None = None

    def is_set(self) -> bool:
        return self.number is not None


@contextlib.contextmanager
def deferred_interrupt() -> Iterator[Asked]:
    """Ctrl-C, a polite kill or a closed terminal is noted in what is yielded instead of stopping mid-step; a second one stops
    at once. What `nohup` has the process ignore stays ignored."""
    asked = Asked()

    def ask(number: int, frame: object) -> None:
        if asked.is_set():
            raise StoppedError(number)
        asked.number = number

    with caught(ask):
        yield asked


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """A polite kill or a closed terminal ends the work inside as Ctrl-C does: by an exception."""

    def stop(number: int, frame: object) -> None:
        raise StoppedError(number)

    with caught(stop):
        yield


def load_torch() -> None:
    """Import torch as a whole, then stop if that was asked meanwhile: while it is loaded it may swallow an interruption, and the
    process would go on with a part of its modules."""
    with deferred_interrupt() as asked:
        import torch  # noqa: F401
    if asked.is_set():
        raise StoppedError(asked.number)


@contextlib.contextmanager
def caught(handler: Callable[[int, object], None] | signal.Handlers) -> Iterator[None]:
    """Every signal of `STOPS` goes to `handler`, but for those that the process ignores. Only the main thread can catch any."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    chosen = [number for number in STOPS if number == signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
