"""The commands as a user types them: what goes to stdout and stderr, exit codes, files, hints."""

import builtins
import contextlib
import dataclasses
import errno
import inspect
import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
import torch
import typer
from processes import forked
from rich.console import Console
from safetensors.torch import load_file
from tiny import ddtool, done, refused

import ddtool as package
from ddtool import api
from ddtool.cli import output as output_module
from ddtool.cli.app import app
from ddtool.cli.commands import REGISTRY, function
from ddtool.cli.errors import handled
from ddtool.cli.output import Output, score_table
from ddtool.cli.words import one_by_one, repeated
from ddtool.config import RunConfig, from_dict
from ddtool.data.whitening import fit
from ddtool.evaluation.protocols import Score
from ddtool.events import Done, Event, Note, Step
from ddtool.hub import generators
from ddtool.reports import progress
from ddtool.runs import formats
from ddtool.runs.run import Run

TOKEN = "hf_secret0123456789"


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    for name in ("DDTOOL_DEBUG", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.shorten_protocols(monkeypatch)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of 8 training and 4 test images, 1x16x16."""
    return tiny.image_folder(tmp_path_factory.mktemp("tiny") / "clothes")


@pytest.fixture(scope="module")
def adapted(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """`ddtool adapt DATASET --ipc 2 --ipc 3 --json`: the run, not to be changed, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", TOKEN)
        patch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
        tiny.shorten_protocols(patch)
        folder = tmp_path_factory.mktemp("made") / "run"
        result = done("adapt", dataset, "--ipc", 2, "--ipc", 3, "--out", folder, *tiny.OPTIONS, "--json")
    before = {name: (folder / name).read_bytes() for name in tiny.listing(folder)}
    yield folder, result
    assert {name: (folder / name).read_bytes() for name in tiny.listing(folder)} == before


@pytest.fixture
def run(adapted: tuple[Path, Any], tmp_path: Path) -> Path:
    """A finished run of one's own, at run/ in the current folder."""
    shutil.copytree(adapted[0], tmp_path / "run")
    return Path("run")


def only_json(text: str) -> dict[str, Any]:
    """The one JSON object that stdout holds."""
    assert text.count("\n") == 1
    value = json.loads(text)
    assert isinstance(value, dict)
    return value


def next_command(result: Any) -> str:
    """The command that the last line of stderr names."""
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Next: ")
    return last.removeprefix("Next: ")


# ------------------------------------------------------------------------------------------------------------ adapt


def test_adapt_leaves_a_whole_run(adapted: tuple[Path, Any], tmp_path: Path) -> None:
    run, result = adapted
    sets = [f"synthetic/ipc{n}/{file}" for n in (2, 3) for file in ("exact.safetensors", "train.parquet")]
    stages = [f"stages/ipc{n}-{stage}.safetensors" for n in (2, 3) for stage in ("generated", "initial")]
    others = [
        "config.json",
        "env.json",
        "metrics.jsonl",
        "pool/train.parquet",
        "preview.png",
        "report.html",
        "results.json",
    ]
    generator = [f"generator/{name}" for name in ("config.json", "labels.safetensors", "model.safetensors")]
    assert tiny.listing(run) == sorted(sets + stages + others + generator)
    for ipc in (2, 3):
        table = datasets.load_dataset(str(run / "synthetic" / f"ipc{ipc}"), split="train", cache_dir=str(tmp_path))
        assert len(table) == 3 * ipc
    data = only_json(result.stdout)
    assert (data["run"], data["ipc"]) == (str(run), [2, 3])
    assert {(s["stage"], s["ipc"]) for s in data["scores"]} == {
        (stage, n) for stage in ("random", "generated", "refined") for n in (2, 3)
    }
    assert data["scores"] == json.loads((run / "results.json").read_text())["scores"]


def test_adapt_talks_on_stderr(adapted: tuple[Path, Any]) -> None:
    run, result = adapted
    assert "Device: cpu" in result.stderr
    assert "left-right" in result.stderr
    assert result.stderr.count("left-right") == 1
    assert next_command(result) == f"ddtool evaluate {run} --protocol frepo-mse --eval-seeds 3"


def test_the_token_is_nowhere(adapted: tuple[Path, Any]) -> None:
    run, result = adapted
    assert "hf_secret" not in result.output
    assert not [name for name in tiny.listing(run) if b"hf_secret" in (run / name).read_bytes()]


def test_progress_is_a_line_every_tenth(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "APART", 0.0)
    result = done("adapt", dataset, "--ipc", 1, "--out", "run", *tiny.OPTIONS, "--steps", 60, "--refine-steps", 45)
    for phase, total in (("Adapting the generator", 60), ("Refining the 3 images", 45)):
        lines = [line for line in result.stderr.splitlines() if re.match(rf"{phase}  \d+/{total} ", line)]
        assert 9 <= len(lines) <= 11, lines
        assert all(re.search(r"loss \d+\.\d{4}$", line) for line in lines)
        assert all(re.search(r"\d/s ", line) for line in lines[1:])
    assert "\x1b" not in result.output


def test_quiet_says_the_path_and_nothing_else(dataset: Path) -> None:
    result = done("adapt", dataset, "--ipc", 1, "--out", "a run", *tiny.OPTIONS, "--quiet")
    assert (result.stdout, result.stderr) == ("a run\n", "")


def test_people_get_a_table(dataset: Path) -> None:
    result = done("adapt", dataset, "--ipc", 1, "--out", "a run", *tiny.OPTIONS)
    assert "generator alone" in result.stdout
    assert "random real" in result.stdout
    assert next_command(result) == "ddtool evaluate 'a run' --protocol frepo-mse --eval-seeds 3"


def test_the_run_is_named_after_the_dataset(dataset: Path) -> None:
    result = done("adapt", dataset, "--ipc", 1, *tiny.OPTIONS, "-q")
    assert re.fullmatch(r"runs/clothes-ipc1-\d{8}-\d{6}\n", result.stdout)
    assert Path(result.stdout.strip(), "results.json").is_file()


def test_the_bundled_sample_needs_no_network() -> None:
    plan = only_json(done("adapt", "sample", "--ipc", 5, *tiny.OPTIONS, "--dry-run", "--json").stdout)
    assert (plan["dataset"]["train"], plan["dataset"]["test"], plan["dataset"]["classes"]) == (4000, 1000, 10)


def test_a_dry_run_shows_all_and_writes_nothing(dataset: Path, adapted: tuple[Path, Any]) -> None:
    words = ("adapt", dataset, "--ipc", 2, "--ipc", 3, *tiny.OPTIONS, "--out", "new", "--dry-run")
    result = done(*words)
    plan = json.loads(result.stdout)
    assert plan == only_json(done(*words, "--json").stdout)
    assert from_dict(RunConfig, plan["config"]) == Run.open(adapted[0]).config()
    assert plan["dataset"]["train"] == 24
    assert plan["dataset"]["image"] == [1, 16, 16]
    assert plan["memory_mib"] >= 0
    assert plan["out"] == "new"
    assert sorted(plan["files"]) == tiny.listing(adapted[0])
    assert "--dry-run" in next_command(result)
    assert done(*words, "-q").stdout == "new\n"  # the path alone, as without --dry-run
    assert os.listdir() == []


@pytest.mark.parametrize("words", [["--generator", "bundeld"], ["--ipc", 99], ["--label-column", "x"]])
def test_a_dry_run_finds_what_would_fail(words: list[str], dataset: Path) -> None:
    result = ddtool("adapt", dataset, "--ipc", 1, *tiny.OPTIONS, *words, "--dry-run")
    assert result.exit_code in (1, 2)
    assert "Error:" in result.stderr


def test_a_dry_run_sees_a_taken_folder(run: Path, dataset: Path) -> None:
    assert "exists already" in refused(1, "adapt", dataset, *tiny.OPTIONS, "--ipc", 1, "--out", run, "--dry-run")


# ---------------------------------------------------------------------------------------------------------- settings


def planned(*words: object) -> RunConfig:
    """The configuration that a command would run with."""
    return from_dict(RunConfig, only_json(done("adapt", *words, "--dry-run", "--json").stdout)["config"])


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("c.yaml", "dataset: {}\nipc: [1, 2]\ngenerator: scratch\nseed: 5\nadapt: {{steps: 11, lr: 1e-3}}\n"),
        ("c.json", '{{"dataset": "{}", "ipc": [1, 2], "generator": "scratch", "seed": 5, "adapt": {{"steps": 11, "lr": 1e-3}}}}'),
        ("c.toml", 'dataset = "{}"\nipc = [1, 2]\ngenerator = "scratch"\nseed = 5\n[adapt]\nsteps = 11\nlr = 1e-3\n'),
    ],
)  # fmt: skip
def test_flags_stand_above_the_file_and_the_file_above_the_preset(name: str, text: str, dataset: Path) -> None:
    Path(name).write_text(text.format(dataset))
    config = planned("--config", name)
    assert (config.dataset, config.ipc, config.seed) == (str(dataset), (1, 2), 5)
    assert (config.adapt.steps, config.adapt.lr) == (11, 1e-3)
    config = planned(
        "--config", name, "--ipc", 3, "--steps", 7, "--seed", 6, "--set", "adapt.steps=8", "--set", "refine.steps=9"
    )
    assert (config.ipc, config.seed, config.adapt.steps, config.adapt.lr, config.refine.steps) == ((3,), 6, 7, 1e-3, 9)
    config = planned("--config", name, "--preset", "small", "--set", "features.width=8")
    assert (config.labels.images, config.refine.steps, config.features.width) == (20_000, 2000, 8)


def test_a_run_can_be_repeated_from_its_own_configuration(adapted: tuple[Path, Any], tmp_path: Path) -> None:
    done("adapt", "--config", adapted[0] / "config.json", "--out", "again", "--precision", "fp32", "-q")
    assert tiny.all_bytes(tmp_path / "again") == tiny.all_bytes(adapted[0])


def test_every_option_arrives(dataset: Path) -> None:
    config = planned(
        dataset, *tiny.OPTIONS, "--ipc", 1, "--no-flip", "--protocol", "dsa-ce", "--eval-seeds", 4,
        "--image-column", "image", "--label-column", "label", "--train-split", "train", "--test-split", "test",
        "--resolution", 16, "--preset", "large",
    )  # fmt: skip
    assert config.flip is False
    assert (config.evaluate.protocol, config.evaluate.seeds) == ("dsa-ce", 4)
    assert config.data == {
        "image_column": "image", "label_column": "label", "train_split": "train", "test_split": "test", "resolution": 16,
    }  # fmt: skip
    assert config.labels.images == 50_000
    assert config.architecture.slots == 8


# ---------------------------------------------------------------------------------------- what is refused, and how


def new(dataset: object, *words: object) -> tuple:
    """`ddtool adapt DATASET` into a new folder, with a small IPC; further words may say otherwise."""
    return ("adapt", dataset, *tiny.OPTIONS, "--ipc", 1, "--out", "new/run", *words)


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (1, ["fashon_mnist"], "Did you mean 'fashion_mnist'?"),
        (1, ["./nowhere"], "no file or folder './nowhere'"),
        (1, ["DATA", "--label-column", "lable"], "Did you mean 'label'?"),
        (1, ["DATA", "--image-column", "picture"], "no column 'picture'"),
        (1, ["DATA", "--test-split", "tset"], "Did you mean 'test'?"),
        (1, ["DATA", "--dataset-config", "absent"], "absent"),
        (2, ["DATA", "--ipc", 0], "'ipc' must be at least 1"),
        (2, ["DATA", "--ipc", -3], "'ipc' must be at least 1"),
        (2, ["DATA", "--ipc", 9], "more than class 'boot' holds (8)"),
        (2, ["DATA", "--ipc", "ten"], "Invalid value for '--ipc'"),
        (2, ["DATA", "--ipc", 1], "asked for twice"),
        (2, ["DATA", "--steps", -1], "'--steps'"),
        (2, ["DATA", "--refine-steps", -1], "'--refine-steps'"),
        (2, ["DATA", "--eval-seeds", 0], "'--eval-seeds'"),
        (2, ["DATA", "--seed", -1], "'--seed'"),
        (2, ["DATA", "--resolution", 4], "'--resolution'"),
        (2, ["DATA", "--set", "refine.real_batch=0"], "'refine.real_batch' must be at least 1"),
        (2, ["DATA", "--set", "refine.stepz=1"], "Did you mean 'steps'?"),
        (2, ["DATA", "--set", "refine.steps"], "NAME=VALUE"),
        (2, ["DATA", "--set", "data.resolutoin=16"], "Did you mean 'resolution'?"),
        (2, ["DATA", "--set", "adapt.lr=fast"], "'adapt.lr' must be a finite number"),
        (2, ["DATA", "--set", f"adapt.lr={'[' * 10**5}"], "'adapt.lr' must be a finite number"),
        (2, ["DATA", "--protocol", "frepo"], "Did you mean 'frepo-mse'?"),
        (2, ["DATA", "--preset", "smal"], "Did you mean 'small'?"),
        (2, ["DATA", "--device", "cdua"], "Did you mean 'cuda'?"),
        (2, ["DATA", "--device", "cpu:3"], "not available"),
        (2, ["DATA", "--device", "mps"], "Use --device cpu"),
        (2, ["DATA", "--precision", "fp23"], "Did you mean 'fp32'?"),
        (2, ["DATA", "--config", "absent.yaml"], "No such file"),
        (2, ["DATA", "--stepz", 3], "No such option"),
        (1, ["DATA", "--generator", "bundeld"], "Did you mean 'bundled'?"),
        (1, ["DATA", "--generator", "a/b/c"], "No generator called"),
        (1, ["DATA", "--generator", "DATA"], "config.json is missing"),
    ],
)
def test_a_wrong_request_is_explained_and_leaves_nothing(
    code: int, words: list[Any], expected: str, dataset: Path, tmp_path: Path
) -> None:
    words = [str(dataset) if word == "DATA" else word for word in words]
    assert expected in refused(code, *new(*words))
    assert os.listdir(tmp_path) == []


def test_no_dataset_or_no_command() -> None:
    assert "ddtool adapt sample" in refused(2, "adapt")
    assert "No such command 'adopt'" in refused(2, "adopt")
    assert "Missing argument" in refused(2, "evaluate")
    assert "Commands" in ddtool().output


def test_a_configuration_file_with_an_unknown_setting() -> None:
    Path("c.yaml").write_text("adapt:\n  stepz: 3\n")
    said = refused(2, "adapt", "sample", "--config", "c.yaml")
    assert "Unknown setting 'adapt.stepz'" in said
    assert "Did you mean 'steps'?" in said


@pytest.mark.parametrize("name", ["c.yaml", "c.json", "c.toml"])
def test_a_configuration_file_that_is_nested_without_end(name: str) -> None:
    Path(name).write_text("a = " * name.endswith("toml") + "[" * 10**5)
    assert f"{name} is not valid" in refused(2, "adapt", "sample", "--config", name)


def test_a_class_without_images(tmp_path: Path) -> None:
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["boot", "coat", "hat"])}
    )
    cells = [{"bytes": tiny.pictures("train", 16)[label][0], "path": None} for label in (0, 1)]
    table = datasets.Dataset.from_dict({"image": cells, "label": [0, 1]}, features=features)
    (tmp_path / "data").mkdir()
    table.to_parquet(str(tmp_path / "data" / "train.parquet"))
    assert "'hat'" in refused(1, *new("./data"))
    assert os.listdir(tmp_path) == ["data"]


def test_a_corrupt_image(dataset: Path, tmp_path: Path) -> None:
    shutil.copytree(dataset, "data")
    Path("data/train/coat/3.png").write_bytes(Path("data/train/coat/3.png").read_bytes()[:90])
    said = refused(1, *new("./data"))
    assert "cannot be decoded" in said
    assert "'train/coat/3.png'" in said
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize("damage", ["truncated", "pickle"])
def test_a_damaged_generator(damage: str, dataset: Path, adapted: tuple[Path, Any], tmp_path: Path) -> None:
    shutil.copytree(adapted[0] / "generator", "generator")
    path = Path("generator/model.safetensors")
    if damage == "pickle":
        torch.save({"keys": torch.zeros(3)}, path)
    else:
        path.write_bytes(path.read_bytes()[:-100])
    assert "not a readable safetensors file" in refused(1, *new(dataset, "--generator", "./generator"))
    assert os.listdir(tmp_path) == ["generator"]


def test_a_folder_that_is_taken(run: Path, dataset: Path, tmp_path: Path) -> None:
    before = tiny.all_bytes(tmp_path / "run")
    said = refused(1, *new(dataset, "--out", run))
    assert "`ddtool adapt --resume run`" in said
    assert "--force" in said
    Path("mine").mkdir()
    Path("mine/thesis.tex").write_text("years of work")
    assert "is not a run of ddtool" in refused(1, *new(dataset, "--out", "mine", "--force"))
    assert Path("mine/thesis.tex").read_text() == "years of work"
    assert tiny.all_bytes(tmp_path / "run") == before
    done(*new(dataset, "--out", run, "--force"))
    assert Run.open(run).ipcs() == [1]


def test_a_loss_that_is_not_finite_names_its_step(dataset: Path) -> None:
    said = refused(1, *new(dataset, "--set", "refine.lr_labels=1e30"))
    assert "not finite at step 2" in said
    assert "learning rate" in said
    assert Path("new/run/generator/model.safetensors").is_file()


def test_a_full_disk_is_said_with_the_command_to_go_on(
    dataset: Path, adapted: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = ("adapt", dataset, "--ipc", 2, "--ipc", 3, *tiny.OPTIONS, "--out", "my run")
    write = formats.write_parquet

    def full(path: Path, *values: Any) -> None:
        if "ipc3" in str(path):
            raise OSError(28, "No space left on device")
        write(path, *values)

    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_parquet", full)
        said = refused(1, *words)
    assert "the disk is full" in said
    assert "`ddtool adapt --resume 'my run'`" in said
    assert Run.open(Path("my run")).ipcs() == [2]
    done("adapt", "--resume", "my run", "--precision", "fp32")
    assert tiny.all_bytes(tmp_path / "my run") == tiny.all_bytes(adapted[0])


def test_an_error_is_json_too(dataset: Path) -> None:
    for code, words in ((1, new("fashon_mnist")), (2, new(dataset, "--ipc", 0)), (2, ("adapt", "--stepz"))):
        result = ddtool(*words, "--json")
        assert result.exit_code == code
        said = only_json(result.stdout)
        assert said["error"] in result.stderr
        assert said["hint"] in result.stderr


def test_what_nobody_foresaw_is_no_traceback_either(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*unused: object, **options: object) -> None:
        raise ZeroDivisionError("of all things")

    monkeypatch.setattr(api, "start", broken)
    said = refused(1, *new(dataset))
    assert "ZeroDivisionError: of all things" in said
    assert "DDTOOL_DEBUG=1" in said
    monkeypatch.setenv("DDTOOL_DEBUG", "1")
    from typer.testing import CliRunner

    result = CliRunner().invoke(app, [str(word) for word in new(dataset)])
    assert isinstance(result.exception, ZeroDivisionError)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_smaller_batches(error: Exception, dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*unused: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(api, "start", too_large)
    assert "--set refine.synthetic_batch=200" in refused(1, *new(dataset))


# ----------------------------------------------------------------------------------------------------------- resume


def test_resume_takes_nothing_but_the_run(run: Path) -> None:
    for words in (
        ["sample"], ["--ipc", 4], ["--steps", 4], ["--out", "x"], ["--seed", 0], ["--force"], ["--dry-run"],
        ["--set", "a=1"], ["--config", "c"], ["--preset", "large"], ["--protocol", "quick"], ["--label-column", "x"],
    ):  # fmt: skip
        assert "ddtool adapt --resume run" in refused(2, "adapt", "--resume", run, *words)


def test_resume_of_a_finished_run_shows_its_scores(run: Path) -> None:
    before = tiny.all_bytes(run)
    result = done("adapt", "--resume", run, "--json")
    assert len(only_json(result.stdout)["scores"]) == 14
    assert tiny.all_bytes(run) == before


@pytest.mark.parametrize("where", ["absent", ".", "run/generator", "run/config.json"])
def test_resume_of_what_is_no_run(where: str, run: Path) -> None:
    assert f"No run of ddtool at {Path(where)}" in refused(1, "adapt", "--resume", where)


@pytest.mark.parametrize("name", ["results.json", "config.json", "generator/labels.safetensors", "pool/train.parquet"])
def test_resume_of_a_damaged_run(name: str, run: Path) -> None:
    (run / name).write_text("{")
    shutil.rmtree(run / "synthetic")
    assert name.split("/")[-1] in refused(1, "adapt", "--resume", run)


KILL_OR_INTERRUPT = """
import os, sys
from ddtool.cli.output import Output
from ddtool.cli.words import one_by_one, repeated
from ddtool.runtime.loop import Loop
phase, step, number = sys.argv.pop(1), int(sys.argv.pop(1)), int(sys.argv.pop(1))
Loop.__init__.__kwdefaults__["checkpoint_seconds"] = -1.0 if number == 9 else 1e9
show = Output.listener
def listener(self, event):
    show(self, event)
    if (event.phase, getattr(event, "step", None)) == (phase, step) if hasattr(event, "phase") else False:
        os.kill(os.getpid(), number)
Output.listener = listener
from ddtool.__main__ import main
main()
"""


def test_a_killed_and_interrupted_process_goes_on_to_the_last_bit(
    dataset: Path, adapted: tuple[Path, Any], tmp_path: Path
) -> None:
    """kill -9 in the middle of the adaptation, Ctrl-C in the middle of the refinement, then to the end."""
    words = ["adapt", dataset, "--ipc", 2, "--ipc", 3, *tiny.OPTIONS, "--out", "my run"]
    killed = forked(KILL_OR_INTERRUPT, "adapt", 2, 9, *words)
    assert killed.returncode == -9
    assert "checkpoints/adapt.safetensors" in tiny.listing(tmp_path / "my run")
    again = ["adapt", "--resume", "my run", "--precision", "fp32"]
    stopped = forked(KILL_OR_INTERRUPT, "refine ipc3", 2, 2, *again)
    assert stopped.returncode == 130, stopped.stderr
    assert "Traceback" not in stopped.stderr
    error, hint = stopped.stderr.splitlines()[-2:]
    assert error == "Interrupted."
    assert hint.endswith("Go on: ddtool adapt --resume 'my run' --precision fp32")
    assert int(load_file(tmp_path / "my run" / "checkpoints" / "refine-ipc3.safetensors")["step"]) == 2
    done(*shlex.split(hint.partition("ddtool ")[2]))
    assert tiny.all_bytes(tmp_path / "my run") == tiny.all_bytes(adapted[0])
    assert tiny.listing(tmp_path / "my run") == tiny.listing(adapted[0])


# --------------------------------------------------------------------------------------------------------- generate


def test_generate_needs_neither_the_dataset_nor_a_network(dataset: Path) -> None:
    shutil.copytree(dataset, "data")
    done("adapt", "./data", "--ipc", 2, *tiny.OPTIONS, "--out", "run", "-q")
    shutil.rmtree("data")
    result = done("generate", "run", "--ipc", 3, "--ipc", 4, "--precision", "fp32", "--json")
    said = only_json(result.stdout)
    assert said == {"run": "run", "sets": {"3": "run/synthetic/ipc3", "4": "run/synthetic/ipc4"}}
    assert next_command(result) == "ddtool evaluate run --ipc 3"
    initial = [load_file(f"run/stages/ipc{n}-initial.safetensors")["images"] for n in (2, 3, 4)]
    assert torch.equal(initial[1][:6], initial[0])
    assert torch.equal(initial[2][:9], initial[1])
    said = refused(1, "generate", "run", "--ipc", 5)
    assert "keeps 4 initial samples per class" in said
    assert "--ipc 4 or less" in said


def test_generate_draws_more_from_the_dataset(run: Path) -> None:
    result = done("generate", run, "--ipc", 6, "--precision", "fp32")
    assert "drawing 6 from" in result.stderr
    assert result.stdout == "run/synthetic/ipc6\n"
    pool, _ = Run.open(run).load_pool(tiny.CLASSES)
    assert torch.equal(load_file("run/stages/ipc6-initial.safetensors")["images"][:12], pool.float() / 255)


def test_a_size_that_is_named_twice_is_generated_once(run: Path) -> None:
    assert done("generate", run, "--ipc", "4,4", "--ipc", 4, "-q").stdout == "run/synthetic/ipc4\n"


def test_generate_replaces_only_by_force(run: Path) -> None:
    assert "--force" in refused(1, "generate", run, "--ipc", 2)
    assert done("generate", run, "--ipc", 2, "--force", "-q").stdout == "run/synthetic/ipc2\n"
    exact = load_file("run/synthetic/ipc2/exact.safetensors")["images"]
    assert torch.equal(exact, load_file("run/stages/ipc2-generated.safetensors")["images"])


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (2, ["run", "--ipc", 0], "at least 1"),
        (2, ["run", "--ipc", 9], "class 'boot' holds"),
        (2, ["run"], "Missing option '--ipc'"),
        (1, ["absent", "--ipc", 1], "No run of ddtool at absent"),
    ],
)
@pytest.mark.usefixtures("run")
def test_generate_explains_what_it_cannot_do(code: int, words: list, expected: str) -> None:
    assert expected in refused(code, "generate", *words)


# --------------------------------------------------------------------------------------------------------- evaluate


def test_evaluate_records_the_scores_of_a_run(run: Path) -> None:
    result = done("evaluate", run, "--protocol", "dsa-ce", "--eval-seeds", 2, "--json")
    scores = only_json(result.stdout)["scores"]
    assert [(s["stage"], s["ipc"]) for s in scores] == [("refined", 2), ("refined", 3), ("random", 2), ("random", 3)]
    assert {(s["protocol"], s["seeds"]) for s in scores} == {("dsa-ce", 2)}
    assert Run.open(run).results()["scores"][-4:] == scores
    assert next_command(result) == "ddtool evaluate run --protocol frepo-mse --eval-seeds 2"


@pytest.mark.parametrize(
    ("protocols", "following"),
    [(["quick,frepo-mse"], "dsa-ce"), (["quick", "dsa-ce, quick"], "frepo-mse"), (["dsa-ce,frepo-mse"], None)],
)
def test_evaluate_names_what_is_not_measured_yet(
    protocols: list[str], following: str | None, run: Path, dataset: Path
) -> None:
    shutil.copytree(dataset, "my clothes")
    words = [word for protocol in protocols for word in ("--protocol", protocol)]
    read = ["--on", "./my clothes", "--label-column", "label", "--max-per-class", 7]
    result = done("evaluate", run, "--ipc", 2, "--no-baseline", "--eval-seeds", 1, *words, *read)
    if following is None:
        assert "Next: " not in result.stderr
    else:
        where = "--ipc 2 --on './my clothes' --label-column label --max-per-class 7"
        last = f"--protocol {following} --eval-seeds 1 --no-baseline"
        assert next_command(result) == f"ddtool evaluate run {where} {last}"


def test_the_next_command_of_evaluate_measures_the_same_by_the_other_protocol(run: Path) -> None:
    which = "--ipc 2 --stage initial --arch convnet-batch,mlp --seed 5"
    how = "--eval-seeds 1 --no-baseline --exact --no-whiten --device cpu --precision fp32 --threads 1"
    following = next_command(done("evaluate", run, *shlex.split(f"{which} --protocol quick {how}")))
    assert following == f"ddtool evaluate run {which} --protocol frepo-mse {how}"
    scores = only_json(done(*shlex.split(following)[1:], "--json").stdout)["scores"]
    assert [(s["protocol"], s["stage"], s["ipc"], s["pixels"], s["seeds"]) for s in scores] == [
        ("frepo-mse", "initial", 2, "exact", 1)
    ] * 2


def test_evaluate_several_networks_by_several_protocols(run: Path) -> None:
    words = ("--arch", "convnet,mlp", "--arch", "convnet-batch", "--protocol", "quick, kernel-ridge", "--eval-seeds", 1)
    result = done("evaluate", run, "--ipc", 2, "--no-baseline", *words, "--json")
    scores = only_json(result.stdout)["scores"]
    assert [(s["protocol"], s["arch"]) for s in scores] == [
        ("quick", "convnet2-w8-none"), ("quick", "mlp-w128-none"), ("quick", "convnet2-w8-batch"),
        ("kernel-ridge", "convnet2-doubling16-none"),
    ]  # fmt: skip
    kept = [s for s in Run.open(run).results()["scores"] if (s["ipc"], s["stage"]) == (2, "refined")]
    assert [s for s in kept if s in scores] == scores
    shown = done("evaluate", run, "--ipc", 2, "--no-baseline", "--arch", "mlp", "--protocol", "quick").stdout
    assert "mlp-w128-none" in shown


def test_networks_that_cannot_be_scored_are_refused_before_any_work(run: Path) -> None:
    assert "'vgg11'" in refused(2, "evaluate", run, "--arch", "convnet,vgg12")
    before = (run / "results.json").read_bytes()
    assert "16x16 pixels are too small for vgg11" in refused(2, "evaluate", run, "--arch", "convnet,vgg11")
    assert (run / "results.json").read_bytes() == before


def test_evaluate_one_stage_of_one_set(run: Path) -> None:
    words = ("--ipc", 3, "--stage", "initial", "--protocol", "quick", "--eval-seeds", 1, "--no-baseline")
    result = done("evaluate", run, *words)
    assert "initial" in result.stdout
    assert "random" not in result.stdout
    assert re.fullmatch(r"\d+\.\d\d\n", done("evaluate", run, *words, "-q").stdout)


@pytest.mark.parametrize("name", ["run/synthetic/ipc2", "run/synthetic/ipc2/exact.safetensors"])
def test_evaluate_a_set_alone(name: str, run: Path) -> None:
    before = (run / "results.json").read_bytes()
    scores = only_json(done("evaluate", name, "--protocol", "kernel-ridge", "--json").stdout)["scores"]
    assert [s["stage"] for s in scores] == ["refined", "random"]
    assert (run / "results.json").read_bytes() == before


def test_evaluate_on_other_classes(run: Path, tmp_path: Path) -> None:
    tiny.image_folder(tmp_path / "other", names=("cat", "dog", "emu"), train=2, test=1)
    said = refused(2, "evaluate", run, "--on", "./other")
    assert "3 classes ('boot', 'coat', 'dress')" in said
    assert "('cat', 'dog', 'emu')" in said


@pytest.mark.parametrize(
    ("code", "words", "expected"),
    [
        (2, ["run", "--protocol", "frepo"], "Did you mean 'frepo-mse'?"),
        (2, ["run", "--stage", "refind"], "Did you mean 'refined'?"),
        (2, ["run", "--eval-seeds", 0], "'--eval-seeds'"),
        (1, ["run", "--ipc", 7], "no synthetic set of ipc 7"),
        (1, ["absent"], "No run and no synthetic set at absent"),
        (1, ["run/generator"], "No run and no synthetic set"),
        (1, ["run/preview.png"], "not a file of ddtool"),
        (2, ["run/synthetic/ipc2", "--ipc", 3], "is one set, of ipc 2, refined"),
        (2, ["run/synthetic/ipc2", "--stage", "initial"], "is one set, of ipc 2, refined"),
        (1, ["run", "--on", "fashon_mnist"], "Did you mean 'fashion_mnist'?"),
        (2, ["run", "--protocol", "kernel-ridge", "--arch", "mlp"], "--arch mlp would have no effect"),
    ],
)
@pytest.mark.usefixtures("run")
def test_evaluate_explains_what_it_cannot_do(code: int, words: list, expected: str) -> None:
    assert expected in refused(code, "evaluate", *words)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_a_place_that_cannot_be_written_is_no_bug(
    number: int, run: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = Path.mkdir

    def mkdir(path: Path, *args: Any, **options: Any) -> None:
        if any(part.lstrip(".").startswith("locked") for part in path.parts):
            raise OSError(number, os.strerror(number), str(path))
        make(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    comparison = ["compare", dataset, "--methods", "random", "--steps", 2, "--protocol", "quick", "--ipc", 2]
    for words in (["export", run], ["adapt", dataset, *tiny.OPTIONS, "--ipc", 2], comparison):
        said = refused(1, *words, "--out", "locked")
        assert os.strerror(number) in said
        assert "permissions" in said
        assert "bug" not in said


# -------------------------------------------------------------------------------------------- info, env, version, help


def test_info_of_a_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # room for the whole path of the dataset, wherever tests keep theirs
    result = done("info", run)
    assert "clothes" in result.stdout
    assert "refined" in result.stdout
    assert next_command(result) == "ddtool generate run --ipc 4"  # it keeps four initial samples of each class
    said = only_json(done("info", run, "--json").stdout)
    assert (said["sets (ipc)"], len(said["scores"])) == ([2, 3], 14)
    shutil.copytree(run / "synthetic" / "ipc3", run / "synthetic" / "ipc6")
    assert next_command(done("info", run)) == "ddtool evaluate run --protocol frepo-mse --eval-seeds 3"  # no larger one
    shutil.rmtree(run / "synthetic")
    Run.open(run).record(pulled="ann/c10@main")  # without its sets, as `ddtool pull` brings it
    assert next_command(done("info", run)) == "ddtool generate run --ipc 4"
    (run / "results.json").unlink()
    assert next_command(done("info", run)) == "ddtool adapt --resume run"


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("run/synthetic/ipc2", "refined"), ("run/synthetic/ipc2/exact.safetensors", "refined"),
        ("run/stages/ipc2-initial.safetensors", "initial"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("run")
def test_info_of_a_set(name: str, stage: str) -> None:
    result = done("info", name)
    assert re.search(rf"^ *stage +{stage} *$", result.stdout, re.MULTILINE)
    assert "smaller images" not in result.stdout
    assert next_command(result) == f"ddtool evaluate {name} --protocol frepo-mse --eval-seeds 3"
    said = only_json(done("info", name, "--json").stdout)
    made = Run.open(Path("run")).load_set(2, stage)
    assert said == {
        "set": name, "method": "mgdd", "stage": stage, "ipc": 2, "images": 6, "classes": 3, "image": "1x16x16",
        "labels": made.label_method, "whitening": made.whitening.kind if made.whitening else "none", "factor": 1,
        "bytes": made.stored_bytes,
    }  # fmt: skip
    assert done("info", name, "-q").stdout == f"{name}\n"


def test_info_of_a_set_that_is_whitened_and_holds_smaller_images(run: Path) -> None:
    images = torch.rand(40, 1, 16, 16)
    whitening = fit(lambda rows: images[rows], torch.arange(40), "dct", 0.1)
    synthetic = dataclasses.replace(Run.open(run).load_set(2), factor=2, whitening=whitening)
    formats.write_set_folder(Path("ipc2"), synthetic)
    said = only_json(done("info", "ipc2", "--json").stdout)
    assert (said["whitening"], said["factor"], said["bytes"]) == ("dct", 2, synthetic.stored_bytes)
    assert re.search(r"smaller images in each image +2x2\b", done("info", "ipc2").stdout)


def test_info_of_a_folder_of_sets(run: Path) -> None:
    """As `ddtool import` and `ddtool pull` leave it; it is no dataset to distil again."""
    folder = run / "synthetic"
    result = done("info", folder)
    assert re.findall(r"^ *set +(\S+) *$", result.stdout, re.MULTILINE) == [f"{folder}/ipc2", f"{folder}/ipc3"]
    assert next_command(result) == f"ddtool evaluate {folder} --protocol frepo-mse --eval-seeds 3"
    said = only_json(done("info", folder, "--json").stdout)["sets"]
    assert [(one["ipc"], one["stage"]) for one in said] == [(2, "refined"), (3, "refined")]
    assert done("info", folder, "-q").stdout == f"{folder}\n"
    for k in (1, 2):
        shutil.copytree(folder / "ipc2", Path(f"several/set{k}/ipc2"))
    said = only_json(done("info", "several", "--json").stdout)["sets"]
    assert [one["set"] for one in said] == ["several/set1/ipc2", "several/set2/ipc2"]


def test_info_of_tensors_of_others(run: Path) -> None:
    assert "not a synthetic set of ddtool" in refused(1, "info", run / "generator" / "labels.safetensors")


def test_info_of_a_dataset(dataset: Path) -> None:
    result = done("info", dataset)
    assert "boot, coat, dress" in result.stdout
    assert next_command(result) == f"ddtool adapt {dataset} --ipc 8"
    assert only_json(done("info", "sample", "--json").stdout)["train images"] == 4000
    assert only_json(done("info", dataset, "--json").stdout)["class names"] == ["boot", "coat", "dress"]


def test_info_of_a_generator(run: Path) -> None:
    result = done("info", run / "generator")
    assert "parameters" in result.stdout
    assert next_command(result) == "ddtool adapt sample --generator run/generator"


@pytest.mark.skipif(not generators.bundled_folder().is_dir(), reason="the bundled generator is not there yet")
def test_info_of_the_bundled_generator() -> None:
    result = done("info", "bundled")
    assert "parameters" in result.stdout
    assert next_command(result) == "ddtool adapt sample --generator bundled"


def test_info_of_nothing() -> None:
    assert "Did you mean 'svhn'?" in refused(1, "info", "svnh")


def test_a_local_folder_without_its_path_is_told_as_one_can_paste_it() -> None:
    Path("my photos").mkdir()
    assert "Hint: For the local data write './my photos'" in refused(1, "info", "my photos")


def test_names_are_shown_as_they_are(tmp_path: Path) -> None:
    """What looks like markup, in a class or a folder, is text."""
    tiny.image_folder(tmp_path / "data", names=(":boot:", "[b", "[red]x"), train=2, test=1)
    assert ":boot:, [b, [red]x" in done("info", "./data").stdout
    assert "'[/bold]'" in refused(1, "info", "./[/bold]").replace("./", "")


def test_env_tells_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"https://me:{TOKEN}@hub.example")
    result = done("env")
    assert re.search(r"HF_TOKEN +set\b", result.stdout)
    assert "https://***@hub.example" in result.stdout
    said = only_json(done("env", "--json").stdout)
    assert said["ddtool"] == package.__version__
    assert said["torch"] == torch.__version__
    assert done("env", "-q").stdout == package.__version__ + "\n"
    for words in (["env"], ["env", "--json"], ["env", "-q"]):
        assert "hf_secret" not in done(*words).output


def test_version() -> None:
    assert done("--version").stdout == f"ddtool {package.__version__}\n"


@pytest.mark.parametrize("command", REGISTRY)
def test_every_command_has_help(command: str) -> None:
    text = done(command, "-h").stdout
    assert text == done(command, "--help").stdout
    assert "--json" in text
    assert "--quiet" in text


def test_examples_in_the_help_are_commands_that_exist() -> None:
    parser = typer.main.get_command(app)
    examples = 0
    for command in parser.commands.values():  # type: ignore[attr-defined]
        for line in (command.help or "").splitlines():
            if line.strip().startswith("ddtool "):
                _, name, *words = shlex.split(line)
                example = parser.commands[name]  # type: ignore[attr-defined]
                example.make_context(name, one_by_one(words, repeated(example)))
                examples += 1
    assert examples >= 5


def test_the_list_of_commands_says_what_each_says_of_itself() -> None:
    parser: Any = typer.main.get_command(app)
    for name, (_, summary) in REGISTRY.items():
        assert summary == (inspect.getdoc(function(name)) or "").partition("\n")[0]
        assert summary == (parser.commands[name].help or "").partition("\n")[0].strip()


def test_help_waits_for_no_heavy_library() -> None:
    code = """
import sys
from ddtool.__main__ import main
for words in (["-h"], ["adapt", "-h"], ["--version"]):
    sys.argv = ["ddtool", *words]
    try:
        main()
    except SystemExit as end:
        assert not end.code
    assert words != ["-h"] or not {"pydantic", "ddtool.cli.adapt"} & set(sys.modules)
heavy = {"torch", "datasets", "huggingface_hub", "numpy", "PIL", "pyarrow", "yaml"} & set(sys.modules)
assert not heavy, heavy
"""
    result = tiny.python(code)
    assert result.returncode == 0, result.stderr


def test_python_dash_m() -> None:
    command = [sys.executable, "-m", "ddtool", "--version"]
    result = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": str(tiny.ROOT)}, capture_output=True, text=True, check=True
    )
    assert result.stdout == f"ddtool {package.__version__}\n"


def test_a_closed_pipe_is_no_error_worth_telling() -> None:
    """`ddtool env --json | head -0`"""
    environment = os.environ | {"PYTHONPATH": str(tiny.ROOT), "PYTHONUNBUFFERED": ""}
    command = [sys.executable, "-m", "ddtool", "env", "--json"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stderr
    process.stdout.close()
    said = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 1
    assert said == ""


# ------------------------------------------------------------------------------------------------------ in a terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def shown_in_a_terminal(
    monkeypatch: pytest.MonkeyPatch, events: list[Event], quiet: bool = False, kind: str = "xterm-256color"
) -> str:
    """What the output of `events` looks like to a person at a terminal, control codes included."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", kind)
    monkeypatch.setenv("COLUMNS", "120")
    with Output(json_=False, quiet=quiet) as output:
        for event in events:
            output.listener(event)
        if output.progress._bars:
            output.progress._bars.refresh()
    return screen.getvalue()


EVENTS: list[Event] = [
    Note("A [note] :smile:"),
    Note("A [note] :smile:"),
    Step("adapt [/x]", 5, 100, {"loss": 0.5}),
    Step("adapt [/x]", 50, 100, {"loss": 0.25}),
    Done("adapt [/x]", 2.0),
    Step("refine", 1, 2, {}),
]


def test_a_terminal_shows_a_bar_with_loss_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_in_a_terminal(monkeypatch, EVENTS)
    assert shown.count("A [note] :smile:") == 1
    assert "Adapt [/x]: 2.0 s" in shown
    assert "━" in shown
    assert "1/2" in shown


def test_bars_show_what_the_loop_says(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = shown_in_a_terminal(monkeypatch, EVENTS[:4])
    assert "Adapt [/x]" in shown
    assert "50/100" in shown
    assert "loss 0.2500" in shown
    assert "/s" in shown


def test_a_dumb_terminal_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """It cannot show a bar, which is drawn over itself."""
    shown = shown_in_a_terminal(monkeypatch, EVENTS[1:4], kind="dumb")
    assert shown == "A [note] :smile:\nAdapt [/x]  5/100    loss 0.5000\n"


def test_quiet_is_quiet_in_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown_in_a_terminal(monkeypatch, EVENTS, quiet=True) == ""


def test_scores_are_shown_as_they_are(run: Path) -> None:
    score = Score("[/x]", "mgdd", 2, "a", ":smile:", "d", mean=1.0, std=0.0, seeds=1, seconds=1)
    Run.open(run).record_score(score)
    shown = done("info", run).stdout
    assert "[/x]" in shown
    assert ":smile:" in shown


@pytest.mark.parametrize("several", [False, True])
def test_a_table_of_scores_keeps_its_figures_in_80_columns(several: bool, run: Path) -> None:
    score = Score("initial", "mgdd", 2, "convnet3-doubling128-none", "kernel-ridge", "d", mean=61.1, std=0.9, seeds=3,
                  seconds=7, pixels="exact", inputs="not whitened")  # fmt: skip
    scores = [score, dataclasses.replace(score, arch="convnet3-doubling128-batch", seconds=8)][: 1 + several]
    console = Console(width=80, file=io.StringIO())
    console.print(score_table(scores))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in shown
    assert re.search(r"kernel-ridge │.* 61.1 ± 0.9 │ +3 │ +7 │", shown)
    cells = [line.split("│") for line in shown.splitlines() if line.startswith("│")]
    assert "initial, not rounded, not whitened" in " ".join(" ".join(row[2].strip() for row in cells).split())
    if several:
        assert score.arch in "".join(row[4].strip() for row in cells)


def test_no_color_is_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[1;31mError:" in ddtool("info", "svnh").stderr
    monkeypatch.setenv("NO_COLOR", "1")
    assert "31mError:" not in ddtool("info", "svnh").stderr


def test_nothing_is_said_to_stdout_by_the_libraries(run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither by `print` nor by C code: stdout is data."""
    api.generate(run, 4, engine=tiny.ENGINE)
    api.evaluate(run, ipc=4, protocol="kernel-ridge", engine=tiny.ENGINE)
    assert capfd.readouterr() == ("", "")
    assert output_module.sys is sys


def test_an_interruption_that_torch_would_swallow_stops_the_command(
    monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    real, worked = builtins.__import__, []

    def swallowing(name: str, *rest: Any, **more: Any) -> Any:
        if name == "torch":
            with contextlib.suppress(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(0.1)
        return real(name, *rest, **more)

    @handled
    def command(device: str) -> None:
        import torch  # noqa: F401

        worked.append(device)

    monkeypatch.setattr(builtins, "__import__", swallowing)
    with pytest.raises(typer.Exit) as caught:
        command(device="cpu")
    assert (caught.value.exit_code, worked) == (130, [])
