"""Options of earlier versions under their present names, until version 1.0."""

from collections.abc import Callable

RENAMED: dict[str, dict[str, str]] = {
    "adapt": {"--mirror": "--flip", "--no-mirror": "--no-flip"},
    "evaluate": {"--seeds": "--eval-seeds"},
    "compare": {"--networks": "--eval-seeds"},
}
"""Command → the earlier name of an option → its present one."""


def present(command: str, words: list[str], note: Callable[[str], None]) -> list[str]:
    """The words of a command line with the present names of options; `note` hears of each that had another one.

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
