"""The words of a command line before they are parsed: options of earlier versions, and lists with commas."""

import re
from collections.abc import Callable, Collection, Iterator
from itertools import islice
from typing import Any

NUMBERS = re.compile(r"\s*[\d.]+\s*(,\s*[\d.]+\s*)+")
"""Two numbers or more with commas between them."""

RENAMED: dict[str, dict[str, str]] = {
    "adapt": {"--mirror": "--flip", "--no-mirror": "--no-flip"},
    "evaluate": {"--seeds": "--eval-seeds"},
    "compare": {"--networks": "--eval-seeds"},
}
"""Command → the earlier name of an option → its present one, until version 1.0."""


def present(command: str, words: list[str], note: Callable[[str], None]) -> list[str]:
    """The words with the present names of options; `note` hears of each that had another one.

    What follows a lone `--` is no option, and stays as it is.
    """
    end = words.index("--") if "--" in words else len(words)
    return [_present(command, word, note) for word in words[:end]] + words[end:]


def _present(command: str, word: str, note: Callable[[str], None]) -> str:
    name, equals, value = word.partition("=")
    new = RENAMED.get(command, {}).get(name)
    if new is None:
        return word
    note(f"{name} is now called {new}.")
    return new + equals + value


def repeated(command: Any) -> set[str]:
    """The options of a command that may be given several times."""
    return {name for option in command.params if getattr(option, "multiple", False) for name in option.opts}


def one_by_one(words: list[str], lists: Collection[str]) -> list[str]:
    """`--ipc 1,10` as `--ipc 1 --ipc 10`: numbers with commas between them, of the options in `lists`."""
    end = words.index("--") if "--" in words else len(words)
    return list(_one_by_one(words[:end], lists)) + words[end:]


def _one_by_one(words: list[str], lists: Collection[str]) -> Iterator[str]:
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if name not in lists:
            yield word
            continue
        after = [] if equals else list(islice(rest, 1))
        given = value if equals else "".join(after)
        yield from _each(name, given) if NUMBERS.fullmatch(given) else [word, *after]


def _each(name: str, given: str) -> list[str]:
    """An option once for every value in a list with commas."""
    return [word for part in given.split(",") for word in (name, part.strip())]
