"""Code in a process of its own that begins with torch imported: a fork of a server that imports it once; no tests here.

Python and torch take seconds to start. What a test says of a process that is killed or interrupted, of its files or of what it
says, does not depend on them. What depends on how Python starts is run by `tiny.python`, a fresh interpreter.
"""

import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from subprocess import CompletedProcess, TimeoutExpired
from typing import Any

IMPORTED = [
    "PIL.Image", "fsspec", "httpx", "httpx2", "jinja2", "matplotlib.figure", "pandas", "pyarrow.parquet", "pydantic",
    "rich.progress", "safetensors.torch", "torch", "torch._dynamo", "torch.distributed", "torch.func", "typer",
]  # fmt: skip
"""What the server imports, of it what is there: outside libraries that read nothing of the environment which a test would give
another value. The optimisers of torch import torch._dynamo, in over a second."""


def begin(code: str, arguments: list[str], environment: dict[str, str], folder: str, streams: tuple[str, str]) -> None:
    """Run code as `python -c` does, in `folder`, stdout and stderr into files."""
    os.environ.clear()
    os.environ.update(environment)
    sys.path[1:1] = [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]
    os.chdir(folder)
    for number, path in enumerate(streams, 1):
        os.dup2(os.open(path, os.O_WRONLY), number)
    sys.argv = ["-c", *arguments]
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})


class Forked:
    """A process that runs code, with `environment` beside the present one; `sys.argv[1:]` are the arguments."""

    def __init__(self, code: str, *arguments: object, **environment: str) -> None:
        context = multiprocessing.get_context("forkserver")
        assert isinstance(context, ForkServerContext)
        context.set_forkserver_preload(IMPORTED)
        self.streams = tuple(tempfile.mkstemp(prefix="ddtool-tests-") for _ in range(2))
        words, files = [str(word) for word in arguments], tuple(path for _, path in self.streams)
        given: tuple[Any, ...] = (code, words, dict(os.environ) | environment, os.getcwd(), files)
        self.process: ForkServerProcess = context.Process(target=begin, args=given)
        self.process.start()

    @staticmethod
    def all_finished(processes: Sequence["Forked"], seconds: float = 120) -> list[CompletedProcess[str]]:
        """How they end; one that does not end in time takes the others with it."""
        try:
            return [one.finished(seconds) for one in processes]
        finally:
            for one in processes:
                one.process.kill()

    def runs(self) -> bool:
        return self.process.is_alive()

    def said(self) -> str:
        """What it has written to stdout so far."""
        return Path(self.streams[0][1]).read_text(encoding="utf-8", errors="replace")

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def finished(self, seconds: float = 120) -> CompletedProcess[str]:
        """Its exit code, stdout and stderr; TimeoutExpired, and it is killed, when it does not end in so many seconds."""
        self.process.join(seconds)
        ended = self.process.exitcode is not None
        self.process.kill()
        self.process.join()
        said = []
        for number, path in self.streams:
            os.close(number)
            said.append(Path(path).read_text(encoding="utf-8", errors="replace"))
            os.unlink(path)
        if not ended:
            raise TimeoutExpired("a forked process", seconds, *said)
        return CompletedProcess([], self.process.exitcode or 0, *said)


def forked(code: str, *arguments: object, **environment: str) -> CompletedProcess[str]:
    """Run `code` in such a process to its end."""
    return Forked(code, *arguments, **environment).finished()


def launched(code: str, *arguments: object, world: int = 2, **environment: str) -> list[tuple[int | None, str, str]]:
    """`world` processes over gloo, as torchrun and accelerate start them: exit code, stdout and stderr of each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    place = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)} | environment
    all_ = [Forked(code, *arguments, **place, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in range(world)]
    return [(ended.returncode, ended.stdout, ended.stderr) for ended in Forked.all_finished(all_)]
