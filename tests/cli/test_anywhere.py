"""A command works from any folder, in any terminal, whoever ends it; and what it says is true of the command line."""

import ast
import json
import os
import re
import shutil
import signal
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import click
import pytest
import tiny
import typer
from processes import forked
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import done, refused

from ddtool import api
from ddtool.cli.app import app
from ddtool.cli.words import RENAMED
from ddtool.config import MetaConfig, PretrainConfig, RunConfig, to_dict
from ddtool.runs.run import Run

BUDGET = ("--protocol", "quick", "--seeds", 1)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.chdir(tmp_path)
    tiny.shorten_protocols(monkeypatch)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a run of IPC 2 in `run`, made of `data`."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTOOL_CACHE", str(tmp_path_factory.mktemp("cache")))
        tiny.shorten_protocols(patch)
        tiny.adapt(tiny.image_folder(folder / "data"), folder / "run")
    return folder


@pytest.fixture
def moved(finished: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the run whose data has gone from where it was to `elsewhere`: both."""
    shutil.copytree(finished / "run", tmp_path / "run")
    shutil.copytree(finished / "data", tmp_path / "elsewhere")
    Run(tmp_path / "run").move_data(str(tmp_path / "gone" / "data"))
    return tmp_path / "run", tmp_path / "elsewhere"


# -------------------------------------------------------------------------------------------------- where the data is


@pytest.mark.parametrize("method", ["mgdd", "dm"])
def test_a_run_keeps_the_absolute_place_of_its_data(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.image_folder(Path("data"))
    options = tiny.OPTIONS if method == "mgdd" else ["--method", "dm", "--steps", "2"]
    done("adapt", "./data", "--ipc", 1, *options, "--out", "run", "-q")
    assert Run(Path("run")).config().dataset == str(tmp_path / "data")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    shutil.rmtree(tmp_path / "run" / "synthetic")
    done("adapt", "--resume", "../run", "-q")
    done("evaluate", "../run", *BUDGET, "-q")


def test_a_generator_is_found_again_from_another_folder(tmp_path: Path, finished: Path) -> None:
    shutil.copytree(finished / "run" / "generator", "mine")
    done("adapt", finished / "data", "--ipc", 1, "--generator", "./mine", *tiny.OPTIONS[2:], "--out", "run", "-q")
    assert Run(Path("run")).config().generator == str(tmp_path / "mine")


def test_data_that_has_moved_is_asked_for_and_then_known(moved: tuple[Path, Path]) -> None:
    run, place = moved
    shutil.rmtree(run / "synthetic")
    said = refused(1, "adapt", "--resume", run)
    assert f"ddtool adapt --resume {run} --data PATH" in said
    done("adapt", "--resume", run, "--data", os.path.relpath(place), "-q")
    assert Run(run).config().dataset == str(place)
    done("evaluate", run, *BUDGET, "-q")


def test_scores_of_data_that_has_moved_are_those_of_the_run(moved: tuple[Path, Path]) -> None:
    run, place = moved
    before = len(Run(run).results()["scores"])
    assert f"ddtool evaluate {run} --data PATH" in refused(1, "evaluate", run, *BUDGET)
    done("evaluate", run, *BUDGET, "--data", place, "-q")
    scores = Run(run).results()["scores"]
    assert len(scores) == before
    assert {score["dataset"] for score in scores} == {str(place)}


@pytest.mark.parametrize("command", ["adapt", "evaluate"])
def test_other_data_is_refused(command: str, moved: tuple[Path, Path]) -> None:
    run, place = moved
    (place / "train" / "boot" / "0.png").write_bytes((place / "train" / "coat" / "0.png").read_bytes())
    words = ["adapt", "--resume", run] if command == "adapt" else ["evaluate", run, *BUDGET]
    assert "is not that of the run" in refused(1, *words, "--data", place)
    assert Run(run).config().dataset != str(place)


def test_a_set_alone_is_told_where_its_data_is(moved: tuple[Path, Path]) -> None:
    run, place = moved
    shutil.move(run / "synthetic" / "ipc2", "set")
    done("evaluate", "set", *BUDGET, "--data", place, "-q")
    (place / "train" / "boot" / "0.png").unlink()
    assert "is not that of the run" in refused(1, "evaluate", "set", *BUDGET, "--data", place)


def test_a_moved_table_is_found_in_its_folder(finished: Path, tmp_path: Path) -> None:
    images = sorted((finished / "data" / "train").glob("*/*.png"))
    Path("table").mkdir()
    for i, image in enumerate(images):
        shutil.copy(image, f"table/{i}.png")
    rows = "".join(f"{i}.png,{image.parent.name}\n" for i, image in enumerate(images))
    Path("table/train.csv").write_text("file,label\n" + rows)
    done("adapt", "table/train.csv", "--ipc", 1, *tiny.OPTIONS, "--out", "run", "-q")
    Path("table").rename("other")
    done("evaluate", "run", *BUDGET, "--data", "other", "-q")
    assert Run(Path("run")).config().dataset == str(tmp_path / "other" / "train.csv")


def test_where_data_is_means_nothing_elsewhere(moved: tuple[Path, Path]) -> None:
    run, place = moved
    assert "--data goes with --resume" in refused(2, "adapt", place, "--data", place)
    assert "exclude each other" in refused(2, "evaluate", run, "--data", place, "--on", "sample")
    few = ["--max-per-class", 8, "--no-evaluate"]
    done("adapt", "sample", "--ipc", 1, *tiny.OPTIONS, *few, "--out", "bundled", "-q")
    assert "is not that of the run" in refused(1, "evaluate", "bundled", "--data", place)


def test_a_home_folder_is_meant_by_a_tilde_everywhere(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    shutil.copytree(finished / "data", tmp_path / "home" / "data")
    done("adapt", "~/data", "--ipc", 1, *tiny.OPTIONS, "--out=~/a run", "-q")
    run = tmp_path / "home" / "a run"
    assert Run(run).ipcs() == [1]
    assert Run(run).config().dataset == str(tmp_path / "home" / "data")
    done("adapt", "--resume=~/a run", "-q")
    done("evaluate", "~/a run", *BUDGET, "--data=~/data", "-q")
    done("generate", "~/a run", "--ipc", 2, "-q")
    done("info", "~/a run", "-q")
    api.resume("~/a run", engine=tiny.ENGINE)
    assert not Path("~").exists()


# ----------------------------------------------------------------------------------------------------------- terminals


COMMAND = "import sys; sys.path.insert(0, sys.argv.pop(1)); import ddtool.__main__ as m; m.main()"
END = "-- end of a command --"
COMMANDS = f"""
import json, sys
sys.path.insert(0, sys.argv[1])
import ddtool.__main__ as m
from ddtool.reports import run_page
run_page.drawn = lambda figure: b"<svg/>"  # as in the tests' own process: no plots
for code, *words in json.loads(sys.argv[2]):
    sys.argv[1:] = words
    try:
        m.main()
        ended = 0
    except SystemExit as error:
        ended = error.code or 0
    assert ended == code, (words, ended)
    for stream in (sys.stdout, sys.stderr):
        print("{END}", file=stream, flush=True)
"""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_of_another_encoding_gets_replacements(encoding: str, tmp_path: Path) -> None:
    names = ("靴", "пальто", "naïve—robe")
    data, run = tiny.image_folder(tmp_path / "клас", names=names), tmp_path / "прогон"
    plain = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8", "HF_HUB_OFFLINE": "1"}
    adapting = ["adapt", data, "--ipc", "1", *tiny.OPTIONS, "--no-evaluate", "--out", run]
    long = [[0, *adapting], [0, "info", run]] if encoding == "ascii" else []
    commands = [*long, [0, "info", data], [1, "adapt", tmp_path / "ничто" / "нет"]]
    result = tiny.python(COMMANDS, tiny.ROOT, json.dumps(commands, default=str), **plain)
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr
    parts = zip(result.stdout.split(END)[:-1], result.stderr.split(END)[:-1], strict=True)
    assert ["?" in out + said for out, said in parts] == [True] * len(commands)
    if encoding == "ascii":
        assert Run(run).load_set(1).class_names == tuple(sorted(names))


def test_a_system_of_another_encoding_reads_and_writes_the_same(tmp_path: Path) -> None:
    names = ("靴", "пальто", "naïve—robe")
    data, run = tiny.image_folder(tmp_path / "data", names=names), tmp_path / "run"
    plain = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C", "HF_HUB_OFFLINE": "1"}
    words = ["adapt", data, "--ipc", "1", *tiny.OPTIONS, "--no-evaluate", "--out", run]
    result = tiny.python(COMMAND, tiny.ROOT, *words, **plain)
    assert result.returncode == 0, result.stderr
    assert set(Run(run).load_set(1).class_names) == set(names)


# -------------------------------------------------------------------------------------------------- options that exist

OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]")
OF_OTHERS = {"--nproc_per_node", "--nproc", "--logdir", "--project"}
"""Options of launchers and of experiment trackers."""


def commands() -> dict[str, set[str]]:
    """Every command with its options."""
    group = typer.main.get_command(app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    return {
        name: {word for option in command.params for word in (*option.opts, *option.secondary_opts)} | {"--help"}
        for name, command in group.commands.items()  # type: ignore[attr-defined]
    }


@cache
def texts() -> list[tuple[str, str]]:
    """(place, text) of every string in the package, the constant parts of a formatted one with … between them."""
    return [said for path in sorted((tiny.ROOT / "ddtool").rglob("*.py")) for said in texts_of(path)]


def texts_of(path: Path) -> Iterator[tuple[str, str]]:
    """Those of one file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            said = [str(p.value) if isinstance(p, ast.Constant) else "…" for p in node.values]
            yield f"{path.name}:{node.lineno}", "".join(said)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield f"{path.name}:{node.lineno}", node.value


def test_every_option_that_is_spoken_of_exists() -> None:
    earlier = {name for renamed in RENAMED.values() for name in renamed}
    known, seen = set().union(*commands().values()) | OF_OTHERS | earlier | {"--version"}, 0
    for place, text in texts():
        for option in OPTION.findall(text.replace("--nproc_per_node", "")):
            assert option in known, f"{place}: {option}"
            seen += 1
    assert seen > 150


def test_every_command_that_is_spoken_of_takes_the_options_beside_it() -> None:
    known, seen = commands(), 0
    for place, text in texts():
        for said in re.findall(r"`ddtool ([a-z]+)([^`&]*)`", text):
            assert said[0] in known, f"{place}: {said}"
            assert set(OPTION.findall(said[1])) <= known[said[0]], f"{place}: {said}"
            seen += 1
    assert seen > 25


def settings(values: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in values.items():
        yield above + name
        if isinstance(value, dict):
            yield from settings(value, f"{above}{name}.")


def test_every_setting_that_is_spoken_of_exists() -> None:
    known = {*settings(to_dict(RunConfig())), *settings(to_dict(PretrainConfig())), *settings(to_dict(MetaConfig()))}
    seen = 0
    for place, text in texts():
        for name in re.findall(r"--set ([a-z_.]+)=", text):
            assert name in known or name.startswith("baseline.") or name == "a.b", f"{place}: {name}"
            seen += 1
    assert seen > 8


def test_nothing_speaks_of_a_depth_that_cannot_be_set() -> None:
    assert not [place for place, text in texts() if "smaller depth" in text]


def test_a_compiler_that_is_missing_is_said_before_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    said = refused(2, "adapt", "sample", "--compile", "--out", "run")
    assert "--compile takes a C++ compiler, and 'no-such-compiler', which CXX names, is not there." in said
    assert not Path("run").exists()


# -------------------------------------------------------------------------------------------------------- damaged files


def flip(path: Path) -> None:
    """Another lowest bit in the middle of the values: finite, plausible, and wrong."""
    raw = bytearray(path.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    raw[start + (len(raw) - start) // 2 // 4 * 4] ^= 1
    path.write_bytes(bytes(raw))


@pytest.mark.parametrize(
    "name",
    ["generator/model.safetensors", "generator/labels.safetensors", "synthetic/ipc2/exact.safetensors",
     "stages/ipc2-generated.safetensors"],
)  # fmt: skip
def test_a_flipped_bit_is_an_error(name: str, finished: Path) -> None:
    shutil.copytree(finished / "run", "run")
    flip(Path("run") / name)
    words = ["evaluate", "run", *BUDGET, *(["--stage", "generated"] if "stages" in name else [])]
    said = refused(1, *(["generate", "run", "--ipc", 3] if "generator" in name else words))
    assert Path(name).name in said
    assert "are not those that were written" in said


def test_a_changed_description_is_an_error(finished: Path) -> None:
    shutil.copytree(finished / "run", "run")
    path = Path("run/synthetic/ipc2/exact.safetensors")
    path.write_bytes(path.read_bytes().replace(b"boot", b"book", 1))
    assert "are not those that were written" in refused(1, "evaluate", "run", *BUDGET)


def test_files_of_earlier_versions_have_no_digest_and_are_read(finished: Path) -> None:
    shutil.copytree(finished / "run", "run")
    weights = Path("run/generator/model.safetensors")
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    for path in Path("run").rglob("*.safetensors"):
        if path != weights:
            with safe_open(path, framework="pt") as file:
                said = re.sub(r', "digest": "\w+"}$', "}", file.metadata()["ddtool"])
            assert "digest" not in said
            save_file(load_file(path), path, metadata={"ddtool": said})
    done("generate", "run", "--ipc", 3, "-q")
    done("evaluate", "run", *BUDGET, "-q")


# ------------------------------------------------------------------------------------------------------- polite kills

ENDED = """
import os, sys
from ddtool.cli.output import Output
phase, number = sys.argv.pop(1), int(sys.argv.pop(1))
show = Output.listener
def listener(self, event):
    show(self, event)
    if getattr(event, "phase", "").startswith(phase):
        os.kill(os.getpid(), number)
Output.listener = listener
from ddtool.__main__ import main
main()
"""
"""`ddtool` that is sent a signal whenever it reports a phase."""


@pytest.mark.parametrize(
    ("number", "code", "phase"),
    [
        (signal.SIGTERM, 143, "decode"), (signal.SIGTERM, 143, "adapt"), (signal.SIGINT, 130, "adapt"),
        pytest.param(signal.SIGTERM, 143, "fit labels", marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, 143, "quick", marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_polite_kill_ends_as_ctrl_c_does_wherever_it_comes(
    number: int, code: int, phase: str, finished: Path, tmp_path: Path
) -> None:
    words = ["adapt", finished / "data", "--ipc", 2, *tiny.OPTIONS, "--out", "run"]
    result = forked(ENDED, phase, int(number), *words)
    assert result.returncode == code, result.stderr
    assert "Traceback" not in result.stderr
    error, hint = result.stderr.splitlines()[-2:]
    assert error == "Interrupted."
    if phase == "decode":
        assert not Path("run").exists()
        return
    assert "Everything so far is kept. Go on: ddtool adapt --resume run" in hint
    assert Path("run/checkpoints/adapt.safetensors").exists() == (phase == "adapt")
    done("adapt", "--resume", "run", "--precision", "fp32", "-q")
    whole = tiny.all_bytes(finished / "run")
    ours = tiny.all_bytes(Path("run"))
    assert whole.keys() == ours.keys()
