"""The Hub's client as ddtool uses it: quiet, and asked again while the Hub is busy or the connection breaks.

Tokens and the stored login are huggingface_hub's alone.
"""

import contextlib
import contextvars
import logging
import multiprocessing
import os
import random
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.pool import ThreadPool
from typing import TYPE_CHECKING, TypeVar

from ddtool.errors import HubError, UsageError
from ddtool.hub.access import access
from ddtool.hub.errors import LOGIN, CorruptedError, header_of, is_passing, transport_errors
from ddtool.version import __version__

if TYPE_CHECKING:
    from huggingface_hub import HfApi

T = TypeVar("T")

TRIES = 4
"""How often a request is made when the Hub is busy or the connection breaks."""

PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before the second try (each further wait is twice as long), and the longest wait that a Retry-After gets."""

ANSWER = 120.0
"""The most seconds that the answer to a question may take."""

PATIENCE = 10.0
"""A try that took as many seconds is the last one (but for a commit): the client has asked several times by itself."""


def api() -> "HfApi":
    """The client. HubError for a token that cannot be one."""
    from huggingface_hub import HfApi, get_token

    given = access().token
    stored = os.environ.get("HF_TOKEN", "").strip() or get_token()  # the client takes line breaks out of it
    token = given if isinstance(given, str) else stored if given is None else None
    if token and not (token.isascii() and token.isprintable() and " " not in token):
        raise HubError("The token for the Hub has letters, spaces or line breaks that no token has.", LOGIN)
    return HfApi(token=given, library_name="ddtool", library_version=__version__)


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


def longest() -> float:
    """The most seconds that a question or a transfer may take with all its tries and pauses: DDTOOL_HUB_TIMEOUT, else an hour.
    UsageError for what is no number."""
    given = os.environ.get("DDTOOL_HUB_TIMEOUT", "3600")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise UsageError(f"DDTOOL_HUB_TIMEOUT is '{given}'.", "It is a number of seconds, 3600 for an hour.")
    return seconds


def in_time(act: Callable[[], T], seconds: float) -> T:
    """What `act` returns; HubError when it has not come to an end after so many seconds, whatever it waits for."""
    pool = ThreadPool(1)  # of daemons: one that is stuck does not keep the program
    try:
        return pool.apply_async(contextvars.copy_context().run, (act,)).get(seconds)
    except multiprocessing.TimeoutError:
        hint = (
            "Run the same command again: what has arrived is not sent twice. DDTOOL_HUB_TIMEOUT=SECONDS waits longer."
        )
        raise HubError(f"The Hub has not answered for {seconds:,.0f} seconds.", hint) from None
    finally:
        pool.close()


def patiently(act: Callable[[], T], *, transfer: bool = False) -> T:
    """What `act` returns, asked again after a pause while the Hub is busy or the connection breaks. A question has to be answered
    in `ANSWER` seconds, a `transfer` may take longer."""
    ends = deadline()
    for attempt in range(TRIES):
        started = time.monotonic()
        try:
            with quiet():
                return in_time(act, left(ends) if transfer else min(left(ends), ANSWER))
        except _errors() as error:
            pause = pause_after(attempt, error, ends)
            if pause is None or time.monotonic() - started > PATIENCE:
                raise
            time.sleep(pause)
    raise AssertionError("unreachable")


def _errors() -> tuple[type[Exception], ...]:
    """All that a request may raise."""
    return (*transport_errors(), CorruptedError)


def deadline() -> float:
    """When what begins now has to be over, by the clock of `time.monotonic`."""
    return time.monotonic() + longest()


def left(ends: float) -> float:
    """Seconds until that time."""
    return max(0.0, ends - time.monotonic())


def pause_after(attempt: int, error: Exception, ends: float) -> float | None:
    """Seconds before the next try: they double, with some chance in them, or are the Hub's own Retry-After. None when a failed try
    is not to be repeated, or there would be no time for that."""
    asked = header_of(error, "retry-after")
    pause = PAUSE * 2**attempt * (1 + random.random() / 4)
    pause = min(float(asked), LONGEST_PAUSE) if asked and re.fullmatch(r"\d+(\.\d+)?", asked) else pause
    return None if attempt == TRIES - 1 or not is_passing(error) or pause >= left(ends) else pause
