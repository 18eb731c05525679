"""What the Hub's client raises, translated once: every failure is a HubError that says what to try."""

import contextlib
import errno
import json
from collections.abc import Iterator

from ddtool.errors import HubError, NotOnHubError
from ddtool.hub.memory import offline
from ddtool.hub.names import Ref, web
from ddtool.text import one_line, without_secrets

LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens)."
OFFLINE = "HF_HUB_OFFLINE=1 takes what was used here before."
BUSY = (408, 429, 500, 502, 503, 504)
"""Answers after which the same request may succeed."""


class NoRevisionError(HubError):
    """The repo is there, the revision is not."""


class CorruptedError(Exception):
    """A downloaded file is not the one that the Hub lists."""


def transport_errors() -> tuple[type[Exception], ...]:
    """What the client raises for an unreachable or refusing Hub: httpx's errors, httpx2's from huggingface_hub 2 on."""
    from huggingface_hub.errors import HfHubHTTPError

    transport = [base for base in HfHubHTTPError.__mro__ if base.__name__ == "HTTPError"]
    return (OSError, ValueError, RuntimeError, *transport)


def reason(error: BaseException) -> str:
    """The first lines of the deepest cause, without anything that looks like a credential."""
    *_, deepest = causes(error)
    line = without_secrets(one_line(str(deepest), 2000)) or type(deepest).__name__
    if "BatchSize must be greater than 0" in line:  # how pyarrow says it
        return "a parquet file of it is empty"
    return one_line(line).rstrip(".")


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it came from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__


def status_of(error: BaseException) -> int | None:
    """The HTTP status of an answer, wherever in the chain of causes it is."""
    for cause in causes(error):
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            return status
    return None


def header_of(error: BaseException, name: str) -> str | None:
    """A header of that answer."""
    for cause in causes(error):
        if (response := getattr(cause, "response", None)) is not None:
            return response.headers.get(name)
    return None


def is_passing(error: BaseException) -> bool:
    """Whether the same request may succeed later: a busy Hub or a broken connection, and nothing that was decided."""
    from huggingface_hub.errors import EntryNotFoundError, LocalTokenNotFoundError

    chain, status = list(causes(error)), status_of(error)
    if status is not None:
        return status in BUSY
    if isinstance(error, CorruptedError | json.JSONDecodeError):  # an answer that was cut short
        return True
    if isinstance(chain[-1], EntryNotFoundError):  # the connection was not even tried
        return False
    decided = (LocalTokenNotFoundError, ValueError, PermissionError)
    return not any(isinstance(cause, decided) or _disk_full(cause) for cause in chain)


def _disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def explained(kind: str, ref: Ref, file: str = "", *, writing: bool = False) -> Iterator[None]:
    """Whatever the client raises, as a HubError with the next thing to try."""
    try:
        yield
    except CorruptedError as error:
        raise HubError(
            f"{file} of '{ref.repo}' arrives damaged: its hash is not the one that the Hub lists.",
            "It was removed from the cache. Run the command again; if it stays so, the connection or a proxy changes files.",
        ) from error
    except transport_errors() as error:
        raise explanation(error, kind, ref, writing) from error


def explanation(error: Exception, kind: str, ref: Ref, writing: bool = False) -> HubError:
    """The HubError for what the client has raised about a repo."""
    return _by_class(error, kind, ref) or _by_status(error, ref, writing) or _by_circumstance(error, ref, writing)


def _by_class(error: Exception, kind: str, ref: Ref) -> HubError | None:
    """What the client itself names: a full disk, no login, no such repo or revision."""
    from huggingface_hub import errors

    chain = list(causes(error))

    def among(wanted: type[Exception]) -> bool:
        return any(isinstance(cause, wanted) for cause in chain)

    if any(_disk_full(cause) for cause in chain):
        return HubError("The disk is full.", "Free some space, or set HF_HOME to a folder on another disk.")
    if among(errors.LocalTokenNotFoundError):
        return HubError("You are not logged in to the Hub.", LOGIN)
    if among(errors.GatedRepoError):
        page = web(kind, ref.repo)
        hint = f"Ask for access at {page}, then log in with `hf auth login` or set HF_TOKEN."
        return HubError(f"Access to the {kind} '{ref.repo}' is restricted (gated).", hint)
    if among(errors.RevisionNotFoundError):
        message = f"The {kind} '{ref.repo}' has no revision '{ref.revision}'."
        return NoRevisionError(message, "Check its branches and tags.")
    if among(errors.RepositoryNotFoundError):
        hint = "For a private one log in first: `hf auth login`, or set HF_TOKEN."
        return NotOnHubError(f"The Hub has no {kind} '{ref.repo}', or it is private.", hint)
    return None


def _by_status(error: Exception, ref: Ref, writing: bool) -> HubError | None:
    """What the status of an answer says."""
    status, namespace = status_of(error), ref.repo.partition("/")[0]
    if status == 401:
        return HubError("The Hub does not accept the token, or needs one.", LOGIN)
    if status == 403:
        said = f"may not write to '{namespace}'" if writing else f"may not read '{ref.repo}'"
        return HubError(f"The Hub refuses: the token {said}.", LOGIN)
    if status == 412:
        message = f"'{ref.repo}' has changed while it was being pushed to."
        return HubError(message, "Run the same command again: it adds to what is there now.")
    if status == 429:
        return HubError("The Hub says: too many requests.", "Wait a few minutes, then run the same command again.")
    if status is not None and status >= 500:
        hint = "Run the same command again later (https://status.huggingface.co)." + ("" if writing else f" {OFFLINE}")
        return HubError(f"The Hub has a fault: it answered {status} for '{ref.repo}'.", hint)
    if status is not None or isinstance(error, ValueError):
        return HubError(f"The Hub refuses '{ref.repo}': {reason(error)}.", "Check the name and the options.")
    return None


def _by_circumstance(error: Exception, ref: Ref, writing: bool) -> HubError:
    """What is left: nothing was answered at all."""
    if offline():
        hint = f"Fetch it once with a connection (unset HF_HUB_OFFLINE): `ddtool pull {ref}`."
        return HubError(f"HF_HUB_OFFLINE is set, and '{ref}' is not whole in the cache.", hint)
    if any(isinstance(cause, PermissionError) for cause in causes(error)):
        return HubError(f"A file cannot be written: {reason(error)}.", "Check HF_HOME and its permissions.")
    hint = "Check the connection" + (" (HF_ENDPOINT is set)" if "huggingface.co" not in web("model", "") else "") + "."
    hint += " Then run the same command again." if writing else f" {OFFLINE}"
    return HubError(f"The Hub cannot be reached for '{ref.repo}': {reason(error)}.", hint)
