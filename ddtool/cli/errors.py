"""One place where exceptions become a sentence, a hint and an exit code."""

import errno
import functools
import json
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from ddtool.errors import DDToolError
from ddtool.runtime.signals import exit_code, interruptible, load_torch
from ddtool.text import printable

EXIT_USAGE = 2
INTERRUPTED = "Interrupted."
REFUSED: type[Exception] = typer.BadParameter.__bases__[0]
"""What the parser raises; where it lives depends on the version of typer."""


def handled(command: Callable) -> Callable:
    """A command whose failures are explained: exit code 1 failed, 2 usage, 130 Ctrl-C, 143 ended politely. DDTOOL_DEBUG=1
    shows traces. A shell leaves the ~ in `--out=~/x` to the command: paths arrive without it."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        paths = {name: value for name, value in kwargs.items() if isinstance(value, Path)}
        kwargs |= {name: Path(os.path.expanduser(path)) for name, path in paths.items()}
        try:
            with interruptible():
                if "device" in kwargs:  # of every command that computes
                    load_torch()
                return command(*args, **kwargs)
        except BrokenPipeError:  # the reader of a pipe has seen enough; nothing more is written, at exit neither
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except (Exception, KeyboardInterrupt) as error:
            if os.environ.get("DDTOOL_DEBUG") == "1":
                raise
            message, hint, code = explain(error)
            tell(message, hint, as_json=bool(kwargs.get("json_")))
            raise typer.Exit(code) from None

    return run


def refuse(error: Any, as_json: bool) -> None:
    """Say what is wrong with the command line. A command without arguments has shown its help already."""
    if type(error).__name__ == "NoArgsIsHelpError":
        return
    where = error.ctx.command_path if error.ctx else "ddtool"
    message = error.format_message().rstrip(".")
    tell(message if message.endswith("?") else message + ".", f"`{where} -h` shows how it is used.", as_json)


OUT_OF_MEMORY = re.compile("out of memory|can(no|')t allocate memory", re.IGNORECASE)
"""As torch says it on GPUs, and on Linux of a CPU."""
UNUSABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)
"""What the system says of a place that may not be read or written, or that cannot be."""


def explain(error: BaseException) -> tuple[str, str, int]:
    """Message, hint and exit code of an exception."""
    if isinstance(error, DDToolError):
        return error.message, error.hint or "DDTOOL_DEBUG=1 shows where it happened.", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, getattr(error, "hint", "Run the command again."), exit_code(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full.", "Free some space, then run the command again (a run goes on with --resume RUN).", 1
    if isinstance(error, OSError) and error.errno in UNUSABLE and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}.", "Check the path and its permissions.", 1
    if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(str(error)):
        return (
            "Out of memory.",
            "Work in less, for example --memory 2; or use a smaller batch: --set adapt.synthetic_batch=200 "
            "--set refine.synthetic_batch=200 "
            "--set adapt.real_batch=128 --set refine.real_batch=128. For more than 10,000 images at once, the labels of Eq. 3: "
            "--set fit.networks=0.",
            1,
        )
    hint = "This is a bug in ddtool if your input is fine: run again with DDTOOL_DEBUG=1 and report the trace."
    return f"{type(error).__name__}: {error}", hint, 1


def harmless(text: str) -> str:
    """Text as a terminal can show it: no escapes or other controls, which names on the Hub may hold, but line breaks."""
    return printable(text, keep="\n\t")


def tell(message: str, hint: str, as_json: bool = False) -> None:
    """Error and hint on stderr; with --json also one object on stdout."""
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    message, hint = harmless(message), harmless(hint)
    console.print(escape(message) if message == INTERRUPTED else f"[bold red]Error:[/] {escape(message)}")
    console.print(f"[bold]Hint:[/] {escape(hint)}")
    if as_json:
        sys.stdout.write(json.dumps({"error": message, "hint": hint}) + "\n")
