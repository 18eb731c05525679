"""Text that comes from elsewhere, made safe to show: without control characters and without secrets; and words for people."""

import json
import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

_TOKEN = re.compile(r"hf_[A-Za-z0-9]{8,}")
_LOGIN = re.compile(r"(?<=://)[^/@\s]+@")
"""The user and password in front of a host."""
_QUERY = re.compile(r"(?<=://)([^\s?'\"<>]+)\?[^\s'\"<>]+")
"""An address with what follows its question mark: of a signed one, the signature."""


def printable(text: str, instead: str = "\N{REPLACEMENT CHARACTER}", keep: str = "") -> str:
    """Text without control characters, invisible ones and half characters; white space of other kinds becomes a space.

    keep: characters that stay although they are not printable, "\\n" for example.
    """
    return "".join(c if c.isprintable() or c in keep else " " if c.isspace() else instead for c in text)


def one_line(text: str, limit: int = 300) -> str:
    """Printable text on one line, of at most `limit` characters."""
    line = " ".join(printable(text[: 10 * limit], " ").split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def listed(names: Iterable[str], most: int = 5, each: int = 60) -> str:
    """The first `most` names in their order, each in quotation marks and of at most `each` characters."""
    names = list(names)
    return ", ".join(f"'{one_line(name, each)}'" for name in names[:most]) + (", …" if len(names) > most else "")


def shell(command: str, path: str | Path, options: str = "") -> str:
    """A command that can be pasted into a shell."""
    return f"{command} {shlex.quote(str(path))} {options}".rstrip()


def count(number: int, thing: str) -> str:
    """A number of things: 1 job, 2 jobs, 1,000 classes."""
    plural = "" if number == 1 else "es" if thing.endswith("s") else "s"
    return f"{number:,} {thing}{plural}"


def duration(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3:05 min, 2:10 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"


def parsed_json(text: str | bytes, parse_int: Callable[[str], Any] | None = None) -> Any:
    """The value of a JSON text; ValueError where it is none, also for one that is nested deeper than Python can follow."""
    try:
        return json.loads(text, parse_int=parse_int)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def is_or_are(number: int) -> str:
    """The verb after a number of things."""
    return "is" if number == 1 else "are"


def file_name(dataset: str) -> str:
    """A name for files after a dataset: the last part of its name or path, without a revision."""
    last = Path(dataset.rstrip("/")).name.partition("@")[0]
    return re.sub(r"[^\w.-]+", "-", last) or "dataset"


def dataset_name(dataset: str) -> str:
    """A dataset as others may see it: by its name, and a path on this disk by its last part alone."""
    return Path(dataset).name if dataset[:1] in ("/", ".", "~") else dataset


def without_login(address: str) -> str:
    """An address without the user and password that it may hold."""
    return _LOGIN.sub("", address)


def without_secrets(text: str) -> str:
    """Text with everything that looks like a credential replaced by ***."""
    return _QUERY.sub(r"\1", _TOKEN.sub("***", _LOGIN.sub("***@", text)))
