"""What the Hub's client raises, translated once: every failure is a HubError that says what to try."""

import contextlib
import errno
import json
import re
from collections.abc import Iterator

from ddtool.errors import HubError, NotOnHubError
from ddtool.hub.access import access
from ddtool.hub.memory import offline
from ddtool.hub.names import Ref, web
from ddtool.text import one_line, without_secrets

LOGIN = "Log in with `hf auth login`, or set HF_TOKEN to a token with write access (https://huggingface.co/settings/tokens)."
OFFLINE = "HF_HUB_OFFLINE=1 takes what was used here before."
NO_HUB = "A network's sign-in page or a proxy may stand between, or HF_ENDPOINT is no Hub: open it in a browser."
HINTS = {
    402: "The quota or the plan does not allow it: see https://huggingface.co/settings/billing.",
    409: "Somebody else may be changing the repo: run the same command again.",
    413: "Push fewer sets at once, or leave the pool out: --no-pool.",
}
"""What to try after an answer of that status."""
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
        return status in BUSY or (status == 403 and is_of_storage(error))  # an upload address that has expired
    if _refused_by_xet(error):
        return False
    if isinstance(error, CorruptedError | json.JSONDecodeError):  # an answer that was cut short
        return True
    if isinstance(chain[-1], EntryNotFoundError):  # the connection was not even tried
        return False
    decided = (LocalTokenNotFoundError, ValueError)
    return not any(isinstance(cause, decided) or _disk_full(cause) or _of_a_file(cause) for cause in chain)


def is_of_connection(error: BaseException) -> bool:
    """Whether the connection broke, or the Hub was busy, so that nothing is said of what was asked for."""
    *_, transport = transport_errors()
    broken = (ConnectionError, TimeoutError, transport)
    return status_of(error) in (None, *BUSY) and any(isinstance(cause, broken) for cause in causes(error))


def address_of(error: BaseException) -> str:
    """The address of the request whose answer is the error, without its query; empty when there was no answer."""
    for cause in causes(error):
        request = getattr(getattr(cause, "response", None), "request", None)
        if request is not None:
            return str(request.url).partition("?")[0]
    return ""


def is_of_storage(error: BaseException) -> bool:
    """Whether an error is the answer of the storage that files go to and come from, and not of the Hub itself."""
    from huggingface_hub import constants

    address = address_of(error)
    return bool(address) and not address.startswith(constants.ENDPOINT + "/")


def sentence_of(error: BaseException) -> str:
    """What the server says of its refusal, one sentence without its full stop; empty when it says nothing."""
    for cause in causes(error):
        said = getattr(cause, "server_message", None)
        if isinstance(said, str) and said.strip():
            return without_secrets(one_line(said, 2000))[:300].rstrip(". ")
    return ""


def _disk_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _of_a_file(error: BaseException) -> bool:
    """Whether it is of a place on the disk: those of a connection name no file."""
    return isinstance(error, PermissionError) or (isinstance(error, OSError) and error.filename is not None)


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
    except (LookupError, TypeError, AttributeError) as error:  # the client has met an answer that it did not expect
        what = f"{type(error).__name__}: {reason(error)}"
        raise HubError(f"The Hub's answer for '{ref.repo}' lacks what it should hold ({what}).", NO_HUB) from error


def explanation(error: Exception, kind: str, ref: Ref, writing: bool = False) -> HubError:
    """The HubError for what the client has raised about a repo."""
    return (
        _by_class(error, kind, ref)
        or _by_storage(error, ref, writing)
        or _by_status(error, ref, writing)
        or _by_answer(error, ref)
        or _by_circumstance(error, ref, writing)
    )


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
    if among(errors.DisabledRepoError):
        return HubError(
            f"The {kind} '{ref.repo}' is disabled.", "The Hub has closed it: ask its owner, or take another."
        )
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


def _by_storage(error: Exception, ref: Ref, writing: bool) -> HubError | None:
    """What the storage of large files says, Xet or another."""
    status, address, refused = status_of(error), address_of(error), _refused_by_xet(error)
    if "/xet-" in address or refused:
        number = status or refused
        meaning = {
            401: "the token may not",
            402: "the quota is used up",
            403: "the token may not, or the quota is used up",
        }
        said = sentence_of(error) or meaning.get(number, "this server may have no Xet")
        owner = ref.repo.partition("/")[0]
        hint = f"Check the token's rights and the quota of '{owner}'. If the server has no Xet: HF_HUB_DISABLE_XET=1."
        return HubError(f"Xet, the storage of large files, refuses '{ref.repo}' ({number}): {said}.", hint)
    if status == 403 and is_of_storage(error):
        what = "uploads" if writing else "downloads"
        hint = "Run the same command again: new addresses are asked for, and what has arrived is not sent twice."
        return HubError(f"The storage does not take its own address for {what} to '{ref.repo}': it has expired.", hint)
    return None


def _refused_by_xet(error: BaseException) -> int:
    """The status of a refusal that Xet's own library has raised, as a builtin error without an errno; 0 where there is none."""
    *_, deepest = causes(error)
    builtin = (
        type(deepest) in (ConnectionError, RuntimeError, PermissionError) and getattr(deepest, "errno", None) is None
    )
    found = re.search(r"\b(401|402|403|404)\b", str(deepest)) if builtin and status_of(error) is None else None
    return int(found[1]) if found else 0


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
    if status is not None:
        said = sentence_of(error) or f"it answered {status}"
        return HubError(f"The Hub refuses '{ref.repo}': {said}.", HINTS.get(status, "Check the name and the options."))
    return None


def _by_answer(error: Exception, ref: Ref) -> HubError | None:
    """An answer that is not the Hub's, or a request that cannot be written."""
    from huggingface_hub.errors import FileMetadataError

    if any(isinstance(cause, json.JSONDecodeError | FileMetadataError) for cause in causes(error)):
        return HubError(f"What answers for '{ref.repo}' is not the Hub: it sends a page, or half an answer.", NO_HUB)
    if any(isinstance(cause, UnicodeError) for cause in causes(error)):
        return HubError("The token, or another setting of the Hub's client, has letters that cannot be sent.", LOGIN)
    if isinstance(error, ValueError):
        return HubError(f"The Hub refuses '{ref.repo}': {reason(error)}.", "Check the name and the options.")
    return None


def why_offline() -> str:
    """What it was that said that nothing may be asked: the beginning of a sentence."""
    return "local_files_only was asked for" if access().local_files_only else "HF_HUB_OFFLINE is set"


def fetch_once(ref: Ref) -> str:
    """What to do about a repo that was not used here before."""
    other = "leave local_files_only out" if access().local_files_only else "unset HF_HUB_OFFLINE"
    return f"Fetch it once with a connection ({other}): `ddtool pull {ref}`."


def _by_circumstance(error: Exception, ref: Ref, writing: bool) -> HubError:
    """What is left: nothing was answered at all."""
    if offline():
        return HubError(f"{why_offline()}, and '{ref}' is not whole in the cache.", fetch_once(ref))
    if any(_of_a_file(cause) for cause in causes(error)):
        return HubError(f"A file cannot be written: {reason(error)}.", "Check HF_HOME and its permissions.")
    hint = "Check the connection" + (" (HF_ENDPOINT is set)" if "huggingface.co" not in web("model", "") else "") + "."
    hint += " Then run the same command again." if writing else f" {OFFLINE}"
    return HubError(f"The Hub cannot be reached for '{ref.repo}': {reason(error)}.", hint)
