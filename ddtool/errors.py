"""What goes wrong for a reason the user can act on: a sentence, and the next thing to try."""

import difflib
from collections.abc import Iterable


class DDToolError(Exception):
    """A problem that is explained, not traced. `message` says what is wrong, `hint` what to do (may be empty)."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple:  # survives the trip out of a decoding process
        return type(self), (self.message, self.hint)


class UsageError(DDToolError):
    """The request itself is wrong: an unknown name, a value out of range, options that exclude each other."""

    exit_code = 2


class DataError(DDToolError):
    """A dataset cannot be found, read or used as an image-classification target."""


class GeneratorError(DDToolError):
    """A generator cannot be found or its files are refused."""


class HubError(DDToolError):
    """The Hub refuses a request or cannot be reached, or what a repo holds is refused."""


class NotOnHubError(HubError):
    """There is no such repo, or none that this user may see."""


class RunError(DDToolError):
    """A run directory exists already, is incomplete, or its files are damaged."""


class DivergedError(DDToolError):
    """A loss stopped being finite."""


def did_you_mean(word: str, known: Iterable[str], listed: bool = False) -> str:
    """A sentence that names the nearest of `known`; all of them when nothing is near, or when they are to be `listed`."""
    known = list(known)
    near = difflib.get_close_matches(word.lower(), [k.lower() for k in known], n=1, cutoff=0.5)
    nearest = f"Did you mean '{next(k for k in known if k.lower() == near[0])}'?" if near else ""
    everything = "Known: " + ", ".join(known) + "." if known and (listed or not near) else ""
    return f"{nearest} {everything}".strip()
