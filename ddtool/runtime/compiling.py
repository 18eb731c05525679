"""Compilation of networks: whether it can be done here, and a watch over it, since nothing else happens for a minute or more."""

import importlib.util
import os
import shutil
import signal
import socket
import threading
from collections.abc import Callable

from ddtool.errors import UsageError
from ddtool.runtime.signals import STOPS

SECONDS, GRACE = 300.0, 2.0
"""What one compilation may take; and how long a process that is asked to stop may go on before it is ended."""
MESSAGE = "Compiling the networks; this can take a minute."
COMPILERS = ("g++", "clang++", "c++") if os.name == "posix" else ("cl", "clang-cl", "g++")


def check_compiler(device_type: str) -> None:
    """UsageError unless torch.compile finds what it needs: Triton for a GPU, and a compiler in any case."""
    hint = "Install it, or leave --compile out."
    if device_type == "cuda" and importlib.util.find_spec("triton") is None:
        raise UsageError("--compile takes Triton on a GPU, and it is not installed.", hint)
    named = os.environ.get("CXX")
    if not any(shutil.which(name) for name in ([named] if named else COMPILERS)):
        missing = f"'{named}', which CXX names, is not there" if named else "none is installed"
        raise UsageError(f"--compile takes a C++ compiler, and {missing}.", hint)


class Compilation:
    """Says when networks are compiled, and ends the process when it is asked to stop meanwhile or when it takes too long.

    The main thread may be in torch's own code all that time, where no handler of a signal is called, and a loop that is asked
    to stop finishes its step first: so a thread of its own listens for the signals.
    say: hears the sentences;  seconds: the most that a compilation may take;  end: ends the process with an exit code.
    """

    def __init__(
        self,
        say: Callable[[str], None],
        seconds: float = SECONDS,
        grace: float = GRACE,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        self.say, self.seconds, self.grace, self.end = say, seconds, grace, end
        self._over: threading.Event | None = None
        self._before: int | None = None
        self._said = False

    @property
    def going_on(self) -> bool:
        """Whether networks may be in compilation now."""
        return self._over is not None and not self._over.is_set()

    def begin(self) -> None:
        """A compilation begins."""
        self.finish()
        self._over = threading.Event()
        self._ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._before = (
            signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False) if in_main_thread() else None
        )
        self._thread = threading.Thread(target=self._watch, args=(self._over,), daemon=True)
        self._thread.start()
        if not self._said:  # when it can be ended already
            self.say(MESSAGE)
            self._said = True

    def over(self) -> None:
        """The compilation is over; from any thread."""
        if self.going_on:
            self._over.set()  # type: ignore[union-attr]
            self._theirs.send(b"\0")

    def finish(self) -> None:
        """The compilation is over, and signals go where they went before; nothing where there was none."""
        if self._over is None or (self._before is not None and not in_main_thread()):
            return
        self.over()
        self._thread.join()
        if self._before is not None:
            signal.set_wakeup_fd(self._before)
        self._ours.close()
        self._theirs.close()
        self._over = None

    def _watch(self, over: threading.Event) -> None:
        """Wait until the compilation is over, takes too long, or the process is asked to stop."""
        self._ours.settimeout(self.seconds)
        try:
            while (number := self._ours.recv(1)[0]) and number not in STOPS:
                pass
        except TimeoutError:
            hint = "Run it again without --compile; a run goes on with --resume RUN."
            return self._stop(
                over, f"Error: Compiling the networks took more than {self.seconds:g} s.\nHint: {hint}", 1
            )
        if number and not over.wait(self.grace):
            self._stop(over, "Stopped while the networks were compiled.", 128 + number)

    def _stop(self, over: threading.Event, message: str, code: int) -> None:
        if not over.is_set():
            self.say(message)
            self.end(code)


def in_main_thread() -> bool:
    """Whether this is the thread that may handle signals."""
    return threading.current_thread() is threading.main_thread()
