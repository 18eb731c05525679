"""The Hub's client as ddtool uses it: quiet, and asked again while the Hub is busy or the connection breaks.

Tokens and the stored login are huggingface_hub's alone.
"""

import contextlib
import logging
import random
import re
import time
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

from ddtool.hub.errors import CorruptedError, header_of, is_passing, transport_errors

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

TRIES = 4
"""How often a request is made when the Hub is busy or the connection breaks."""

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second try (each further wait is twice as long), and the longest wait that a Retry-After gets."""

PATIENCE = 10.0
"""A try that took as many seconds is the last one (but for a commit): the client has asked several times by itself."""


def api() -> "HfApi":
    """The client."""
    from huggingface_hub import HfApi

    return HfApi(library_name="ddtool")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Inside, the client shows no bars, log lines and warnings: they would stand between our own, and in --quiet."""
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    shown, logger = not are_progress_bars_disabled(), logging.getLogger("huggingface_hub")
    level = logger.level
    disable_progress_bars()
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of data files in a model repo: the pool
            yield
    finally:
        logger.setLevel(level)
        if shown:
            enable_progress_bars()


def patiently(act: Callable[[], T]) -> T:
    """What `act` returns, asked again after a pause while the Hub is busy or the connection breaks."""
    for attempt in range(TRIES):
        started = time.monotonic()
        try:
            with quiet():
                return act()
        except _errors() as error:
            if is_last(attempt, error) or time.monotonic() - started > PATIENCE:
                raise
            wait(attempt, error)
    raise AssertionError("unreachable")


def _errors() -> tuple[type[Exception], ...]:
    """All that a request may raise."""
    return (*transport_errors(), CorruptedError)


def is_last(attempt: int, error: Exception) -> bool:
    """Whether a failed try is not to be repeated."""
    return attempt == TRIES - 1 or not is_passing(error)


def wait(attempt: int, error: Exception) -> None:
    """A pause that doubles, with some chance in it; the Hub's own Retry-After where it gives one."""
    asked = header_of(error, "retry-after")
    pause = PAUSE * 2**attempt * (1 + random.random() / 4)
    time.sleep(min(float(asked), LONGEST_PAUSE) if asked and re.fullmatch(r"\d+(\.\d+)?", asked) else pause)
