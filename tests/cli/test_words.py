"""The words of a command line before they are parsed."""

import json

import pytest
from tiny import done, refused
from typer.main import get_command

from ddtool.cli import words
from ddtool.cli.app import app


@pytest.mark.parametrize(
    ("command", "earlier", "now"), [(c, a, b) for c, pairs in words.RENAMED.items() for a, b in pairs.items()]
)
def test_an_option_of_an_earlier_version_is_read_with_a_note(command: str, earlier: str, now: str) -> None:
    options = {o for p in get_command(app).commands[command].params for o in (*p.opts, *p.secondary_opts)}
    assert now in options
    assert earlier not in options or (command, earlier) == ("compare", "--seeds")
    notes: list[str] = []
    assert words.present(command, ["x", earlier, "3", f"{earlier}=3", "--", earlier], notes.append) == [
        "x", now, "3", f"{now}=3", "--", earlier,
    ]  # fmt: skip
    assert notes == [f"{earlier} is now called {now}."] * 2


def test_an_option_of_another_command_keeps_its_name() -> None:
    assert words.present("compare", ["--seeds", "3"], pytest.fail) == ["--seeds", "3"]


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--ipc", "1,10"], ["--ipc", "1", "--ipc", "10"]),
        (["--ipc=1, 10,50"], ["--ipc", "1", "--ipc", "10", "--ipc", "50"]),
        (["--seconds", "0.5,30", "x"], ["--seconds", "0.5", "--seconds", "30", "x"]),
        (["--ipc", "1"], ["--ipc", "1"]),
        (["--ipc=1"], ["--ipc=1"]),
        (["--ipc", "1,x"], ["--ipc", "1,x"]),
        (["--ipc"], ["--ipc"]),
        (["--ipc", "", "x"], ["--ipc", "", "x"]),
        (["--seed", "1,2", "1,2", "--", "--ipc", "1,2"], ["--seed", "1,2", "1,2", "--", "--ipc", "1,2"]),
    ],
)
def test_numbers_with_commas_are_read_one_by_one(given: list[str], read: list[str]) -> None:
    assert words.one_by_one(given, {"--ipc", "--seconds"}) == read


def test_commas_and_earlier_names_as_a_user_types_them() -> None:
    result = done("adapt", "sample", "--ipc", "1,2", "--ipc", 5, "--no-mirror", "--dry-run", "--json")
    config = json.loads(result.stdout)["config"]
    assert (config["ipc"], config["flip"]) == ([1, 2, 5], False)
    assert "--no-mirror is now called --no-flip." in result.stderr
    assert "'--ipc'" in refused(2, "adapt", "sample", "--ipc", "1,x")


@pytest.mark.parametrize(
    "given", [("--protocol", "quick,frepo-mse"), ("--protocol", "quick", "--protocol", "frepo-mse")]
)
def test_names_are_taken_with_commas_and_repeated(given: tuple[str, ...]) -> None:
    adapting = done("adapt", "sample", "--preset", "small", *given, "--dry-run", "--json")
    assert json.loads(adapting.stdout)["config"]["evaluate"]["protocol"] == "quick,frepo-mse"
    comparing = done("compare", "sample", "--methods", "random", *given, "--seeds", 1, "--dry-run", "-q")
    assert "--protocol quick,frepo-mse" in comparing.stdout


def test_every_list_says_that_it_takes_commas_and_repeats() -> None:
    many = {"--set", "--set-for"}
    for command in get_command(app).commands.values():
        for option in command.params:
            if (
                getattr(option, "multiple", False)
                and option.param_type_name == "option"
                and not many & set(option.opts)
            ):
                assert "several with commas or repeated" in option.help, (command.name, option.opts)
            assert "with commas" not in (getattr(option, "help", "") or "") or option.multiple, (
                command.name,
                option.opts,
            )
