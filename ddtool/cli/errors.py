"""One place where exceptions become a sentence, a hint and an exit code."""

import errno
import functools
import json
import os
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from ddtool.errors import DDToolError

EXIT_INTERRUPTED = 130


def handled(command: Callable) -> Callable:
    """A command whose failures are explained: exit code 1 failed, 2 usage, 130 interrupted. DDTOOL_DEBUG=1 shows traces."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except (DDToolError, KeyboardInterrupt, OSError, RuntimeError, MemoryError) as error:
            if os.environ.get("DDTOOL_DEBUG") == "1":
                raise
            message, hint, code = explain(error)
            tell(message, hint, as_json=bool(kwargs.get("json_")))
            raise typer.Exit(code) from None

    return run


def explain(error: BaseException) -> tuple[str, str, int]:
    """Message, hint and exit code of an exception."""
    if isinstance(error, DDToolError):
        return error.message, error.hint, error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "Interrupted.", getattr(error, "hint", ""), EXIT_INTERRUPTED
    if isinstance(error, BrokenPipeError):
        return "The output was closed.", "", 1
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full.", "Free some space and run the same command with --resume RUN.", 1
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return (
            "Out of memory.",
            "Use a smaller batch: --set adapt.synthetic_batch=200 --set refine.synthetic_batch=200 "
            "--set adapt.real_batch=128 --set refine.real_batch=128.",
            1,
        )
    hint = "This is a bug in ddtool if your input is fine: run again with DDTOOL_DEBUG=1 and report the trace."
    return f"{type(error).__name__}: {error}", hint, 1


def tell(message: str, hint: str, as_json: bool = False) -> None:
    """Error and hint on stderr; with --json also one object on stdout."""
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    console.print(f"[bold red]Error:[/] {escape(message)}")
    if hint:
        console.print(f"[bold]Hint:[/] {escape(hint)}")
    if as_json:
        sys.stdout.write(json.dumps({"error": message, "hint": hint}) + "\n")
