"""A run directory from beginning to end: what it holds, that it goes on to the last bit, and what it says when it cannot."""

import errno
import json
import math
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import tiny
import torch
from conftest import SHIPPED_TRIAL
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from ddtool import api
from ddtool.config import RunConfig, from_dict
from ddtool.data.batches import Pool, Real
from ddtool.data.images import ImageData, SyntheticSet, one_hot
from ddtool.data.inputs import NetworkInput
from ddtool.errors import DDToolError, DivergedError, GeneratorError, RunError, UsageError
from ddtool.evaluation.protocols import Score
from ddtool.events import Done, Event, Note, Phase, Step
from ddtool.hub import generators
from ddtool.methods import mgdd
from ddtool.methods.mgdd import analytical_labels
from ddtool.models.generator import GeneratorConfig
from ddtool.pipeline import generate as deployment
from ddtool.pipeline import networks, plan, scoring, target
from ddtool.pipeline.adapt import seconds_left
from ddtool.pipeline.session import Session
from ddtool.pipeline.target import flip_keeps_classes, measured_flip
from ddtool.runs import files, formats
from ddtool.runs import run as runs
from ddtool.runs.foreign import check_free
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine
from ddtool.runtime.loop import Loop
from ddtool.runtime.signals import Interrupted

LAYOUT = [
    "config.json", "env.json", "generator/config.json", "generator/labels.safetensors", "generator/model.safetensors",
    "metrics.jsonl", "pool/train.parquet", "preview.png", "report.html", "results.json", "stages/ipc2-generated.safetensors",
    "stages/ipc2-initial.safetensors", "synthetic/ipc2/exact.safetensors", "synthetic/ipc2/train.parquet",
]  # fmt: skip


class KilledError(BaseException):
    """The end of the process, as far as the code under test can tell: nobody catches it, nothing is saved on its way."""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    tiny.shorten_protocols(monkeypatch)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of 8 training and 4 test images, 1x16x16."""
    return tiny.image_folder(tmp_path_factory.mktemp("tiny") / "clothes")


@pytest.fixture(scope="module")
def made(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of IPC 2, not to be changed."""
    folder = tmp_path_factory.mktemp("made") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
        tiny.shorten_protocols(patch)
        tiny.adapt(dataset, folder)
    before = {name: (folder / name).read_bytes() for name in tiny.listing(folder)}
    yield folder
    assert {name: (folder / name).read_bytes() for name in tiny.listing(folder)} == before


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Run:
    """A finished run of one's own."""
    shutil.copytree(made, tmp_path / "run")
    return Run.open(tmp_path / "run")


@pytest.fixture
def always_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint after every step instead of every 30 seconds."""
    monkeypatch.setitem(Loop.__init__.__kwdefaults__, "checkpoint_seconds", -1.0)  # type: ignore[misc]


def generate(run: Run, ipc: int, **options: Any) -> Path:
    """A set of any size from a run, on the CPU."""
    return deployment.generate(Session(run.config(), run, tiny.ENGINE), ipc, **options)


def kill_at(phase: str, step: int | None) -> Callable[[Event], None]:
    """A listener that ends everything at a step of a phase (None: at its end)."""

    def listen(event: Event) -> None:
        here = event.step if isinstance(event, Step) else None
        if not isinstance(event, Note) and (event.phase, here) == (phase, step):
            raise KilledError

    return listen


def resume(folder: Path) -> Run:
    return api.resume(folder, engine=tiny.ENGINE)


# -------------------------------------------------------------------------------------------------- what a run holds


def test_a_run_holds_every_file_and_nothing_else(made: Path) -> None:
    assert tiny.listing(made) == LAYOUT


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_every_file_has_the_mode_that_new_files_of_the_user_have(
    mask: int, dataset: Path, tmp_path: Path, always_checkpoint: None
) -> None:
    before = os.umask(mask)
    try:
        with pytest.raises(KilledError):
            tiny.adapt(dataset, tmp_path / "run", kill_at("refine ipc2", 2))
        begun = modes(tmp_path / "run")
        resume(tmp_path / "run")
    finally:
        os.umask(before)
    assert {"checkpoints/refine-ipc2.safetensors", "generator/model.safetensors"} <= begun.keys()
    assert set(begun.values()) == {0o666 & ~mask}
    assert modes(tmp_path / "run") == dict.fromkeys(LAYOUT, 0o666 & ~mask)


def modes(folder: Path) -> dict[str, int]:
    """The permissions of every file below a folder."""
    return {name: stat.S_IMODE((folder / name).stat().st_mode) for name in tiny.listing(folder)}


def test_the_set_is_read_by_plain_load_dataset(made: Path, tmp_path: Path) -> None:
    folder = made / "synthetic" / "ipc2"
    table = datasets.load_dataset(str(folder), split="train", cache_dir=str(tmp_path))
    exact = load_file(folder / "exact.safetensors")
    assert table.column_names == ["image", "label", "soft_label"]
    assert isinstance(table.features["label"], datasets.ClassLabel)
    assert tuple(table.features["label"].names) == tiny.CLASSES
    assert table.features["soft_label"].length == 3
    assert [cell["image"].format for cell in table] == ["PNG"] * 6
    pixels = np.stack([np.asarray(cell["image"]) for cell in table])
    assert np.array_equal(pixels, np.rint(exact["images"].numpy()[:, 0] * 255).astype(np.uint8))
    assert table["label"][:] == exact["hard"].tolist() == [0, 1, 2, 0, 1, 2]
    assert np.array_equal(np.float32(table["soft_label"][:]), exact["labels"].numpy())


def test_colour_sets_are_written_and_read_too(tmp_path: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    made = SyntheticSet(
        images=torch.rand(4, 3, 8, 8, generator=rng), labels=torch.randn(4, 2, generator=rng),
        hard=torch.tensor([0, 1, 0, 1]), ipc=2, class_names=("a/b", "Ä\"'"), mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 3.0),
        flip=False, source={"name": "x", "deep": {"list": [1, None]}},
    )  # fmt: skip
    folder = Run(tmp_path).save_final(made)
    again = formats.read_set(folder / "exact.safetensors")
    assert all(torch.equal(getattr(again, name), getattr(made, name)) for name in ("images", "labels", "hard"))
    assert (again.class_names, again.mean, again.std) == (made.class_names, made.mean, made.std)
    assert (again.flip, again.source, again.stage) == (False, made.source, "generated")
    images, labels = formats.read_parquet(folder / "train.parquet", 2)
    assert torch.equal(images, made.images.mul(255).round().to(torch.uint8))
    assert torch.equal(labels, made.hard)


def test_every_safetensors_file_can_be_opened(made: Path) -> None:
    for path in made.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            assert len(list(file.keys())) > 0


def test_the_pool_is_what_the_sets_begin_with(made: Path) -> None:
    images, labels = Run.open(made).load_pool(tiny.CLASSES)
    initial = formats.read_set(made / "stages" / "ipc2-initial.safetensors")
    assert images.shape == (12, 1, 16, 16)  # the larger seen IPC, 4
    assert labels.tolist() == [0, 1, 2] * 4
    assert torch.equal(initial.images, images[:6].float() / 255)


def test_scores_are_there_for_every_stage(made: Path) -> None:
    results = json.loads((made / "results.json").read_text())
    scored = {(s["stage"], s["protocol"]) for s in results["scores"]}
    assert scored == {(s, p) for s in ("random", "generated", "refined") for p in ("kernel-ridge", "quick")}
    assert all(0 <= s["mean"] <= 100 and s["ipc"] == 2 for s in results["scores"])
    assert {"labels", "adapt", "generate ipc2", "refine ipc2"} <= set(results["timings"])
    assert (results["facts"]["classes"], results["facts"]["train_images"], results["facts"]["pool_ipc"]) == (3, 24, 4)


def test_a_run_is_scored_by_the_network_that_its_settings_name(dataset: Path, tmp_path: Path) -> None:
    settings = tiny.SETTINGS | {"evaluate": {"arch": "mlp"}}
    run = tiny.adapt(dataset, tmp_path / "run", settings=settings)
    before = run.results()
    assert {s["arch"] for s in before["scores"] if s["protocol"] == "quick"} == {"mlp-w128-none"}
    resume(run.folder)
    assert run.results()["scores"] == before["scores"]
    for arch, words in (("vgg11", "too small for vgg11"), ("vgg12", "Unknown network")):
        with pytest.raises(UsageError, match=words):
            tiny.adapt(dataset, tmp_path / "other", settings=settings | {"evaluate": {"arch": arch}})
    assert os.listdir(tmp_path) == ["run"]


def test_the_facts_of_a_run_are_one_record(run: Run) -> None:
    noted, said = run.noted(), run.results()
    assert noted.stated() == said
    assert (noted.facts.finished, noted.facts.pool_ipc, noted.facts.pulled) == (True, 4, None)
    assert noted.facts.spent["ipc2"].stated() == said["facts"]["spent"]["ipc2"]
    assert run.environment().torch == torch.__version__
    run.record(finished="yes")
    with pytest.raises(RunError, match=r"results.json is damaged: 'facts.finished': "):
        run.noted()
    run.write_json("env.json", {"threads": "many"})
    with pytest.raises(RunError, match=r"env.json is damaged: 'threads': "):
        run.environment()


def test_a_notebook_shows_the_picture(made: Path, tmp_path: Path) -> None:
    assert repr(Run(made)) == f"<Run {made}: sets of IPC 2>"
    assert Run(made)._repr_png_() == (made / "preview.png").read_bytes()
    assert Run(tmp_path)._repr_png_() is None
    with pytest.raises(RunError, match="Hint: Make one with") as caught:
        Run.open(tmp_path)
    assert str(caught.value) == f"{caught.value.message}\nHint: {caught.value.hint}"


def test_every_line_of_the_log_is_json(made: Path) -> None:
    lines = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line.get("phase") == "refine ipc2" and "step" in line] == [1, 2, 3]
    assert all(line["loss"] >= 0 for line in lines if "step" in line)


def test_the_configuration_is_the_resolved_one(made: Path, dataset: Path) -> None:
    config = Run.open(made).config()
    expected = api.resolve(
        tiny.ENGINE, "auto", tiny.SETTINGS, {"dataset": str(dataset), "ipc": [2], "generator": "scratch", "seed": 0}
    )
    assert config == expected == from_dict(RunConfig, json.loads((made / "config.json").read_text()))


# ------------------------------------------------------------------------------------------------- making and opening


def test_a_taken_folder_is_refused_and_stays_as_it_is(run: Run, dataset: Path) -> None:
    before = tiny.listing(run.folder)
    with pytest.raises(RunError, match="exists already") as caught:
        tiny.adapt(dataset, run.folder)
    assert "--resume" in caught.value.hint
    assert "--force" in caught.value.hint
    assert tiny.listing(run.folder) == before


def test_force_replaces_a_run(run: Run, dataset: Path) -> None:
    tiny.adapt(dataset, run.folder, force=True, ipc=1)
    assert run.ipcs() == [1]
    assert tiny.listing(run.folder) == [name.replace("ipc2", "ipc1") for name in LAYOUT]


@pytest.mark.parametrize("files", [["notes.txt"], ["config.json"], ["env.json", "x/y.txt"]])
def test_force_deletes_nothing_but_a_run(files: list[str], dataset: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    with pytest.raises(RunError, match="is not a run"):
        tiny.adapt(dataset, folder, force=True)
    assert tiny.listing(folder) == sorted(files)


def test_force_does_not_take_away_what_others_put_into_a_run(run: Run, dataset: Path) -> None:
    (run.folder / "thesis.txt").write_text("years")
    with pytest.raises(RunError, match=r"holds what ddtool did not write: thesis\.txt"):
        tiny.adapt(dataset, run.folder, force=True)
    assert tiny.listing(run.folder) == sorted([*LAYOUT, "thesis.txt"])


def test_a_file_in_the_way_is_refused(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunError, match="exists already"):
        tiny.adapt(dataset, tmp_path / "run", force=True)
    assert (tmp_path / "run").read_text() == "mine"


def test_an_empty_folder_is_used(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert tiny.listing(tiny.adapt(dataset, tmp_path / "run").folder) == LAYOUT


def test_a_taken_folder_is_noticed_before_the_dataset_is_looked_at(run: Run) -> None:
    with pytest.raises(RunError, match="exists already"):
        tiny.adapt(Path("no/such/data"), run.folder)


@pytest.mark.parametrize("missing", ["config.json", "env.json", "."])
def test_what_is_not_a_run_is_not_opened(missing: str, run: Run) -> None:
    if missing == ".":
        shutil.rmtree(run.folder)
    else:
        (run.folder / missing).unlink()
    with pytest.raises(RunError, match="No run of ddtool"):
        Run.open(run.folder)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"dataset": "./absent"}, DDToolError, "no file or folder"),
        ({"ipc": 0}, UsageError, "at least 1"),
        ({"ipc": 9}, UsageError, "'boot' holds"),
        ({"ipc": []}, UsageError, "No IPC"),
        ({"generator": "bundeld"}, GeneratorError, "No generator called"),
        ({"settings": {"data": {"label_column": "lable"}}}, DDToolError, "no column 'lable'"),
        ({"settings": {"data": {"colour": 1}}}, UsageError, "data.colour"),
        ({"settings": {"data": {"resolution": "big"}}}, UsageError, "data.resolution"),
        ({"settings": {"features": {"norm": "bach"}}}, UsageError, "norm"),
    ],
)
def test_a_failing_start_leaves_nothing(
    changes: dict[str, Any], error: type[DDToolError], message: str, dataset: Path, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message) as caught:
        tiny.adapt(**{"dataset": dataset, "out": tmp_path / "runs" / "new"} | changes)
    assert caught.value.hint
    assert not (tmp_path / "runs").exists()


# --------------------------------------------------------------------------------------------- kill, Ctrl-C and resume


@pytest.mark.parametrize(
    ("phase", "step"),
    [
        ("labels", None), ("adapt", 1), ("adapt", 2), ("adapt", 3), ("adapt", None), ("generate ipc2", None),
        ("refine ipc2", 1), ("refine ipc2", 2), ("refine ipc2", None), ("quick refined ipc2 net 1/1", 2),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("always_checkpoint")
def test_a_killed_run_goes_on_to_the_last_bit(
    phase: str, step: int | None, dataset: Path, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at(phase, step))
    resume(tmp_path / "run")
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)
    assert tiny.listing(tmp_path / "run") == LAYOUT


def test_the_seconds_of_the_command_are_those_of_one_sitting(dataset: Path, made: Path, tmp_path: Path) -> None:
    """Of several the last one alone would be counted, and read as all of the work."""
    name = "adapt command, until the sets were written"
    assert name in Run(made).results()["timings"]
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at("adapt", None))
    assert name not in resume(tmp_path / "run").results()["timings"]


@pytest.mark.usefixtures("always_checkpoint")
def test_a_run_may_be_killed_again_and_again(dataset: Path, made: Path, tmp_path: Path) -> None:
    kills = [("adapt", 2), ("adapt", 3), ("refine ipc2", 2), ("refine ipc2", 3)]
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at(*kills[0]))
    for kill in kills[1:]:
        with pytest.raises(KilledError):
            api.resume(tmp_path / "run", engine=tiny.ENGINE, report=kill_at(*kill))
    resume(tmp_path / "run")
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)


@pytest.mark.parametrize("phase", ["adapt", "refine ipc2"])
def test_ctrl_c_saves_first(phase: str, dataset: Path, made: Path, tmp_path: Path) -> None:
    """Without a periodic checkpoint: the one that Ctrl-C saves is all there is."""

    def press(event: Event) -> None:
        if isinstance(event, Step) and (event.phase, event.step) == (phase, 2):
            os.kill(os.getpid(), 2)

    with pytest.raises(Interrupted):
        tiny.adapt(dataset, tmp_path / "run", press)
    kept = load_file(tmp_path / "run" / "checkpoints" / f"{phase.replace(' ', '-')}.safetensors")
    assert int(kept["step"]) == 2
    resume(tmp_path / "run")
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)


def test_labels_of_the_pool_are_fitted_once(dataset: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at("adapt", 1))
    heard: list[Event] = []
    api.resume(tmp_path / "run", engine=tiny.ENGINE, report=heard.append)
    phases = {event.phase for event in heard if isinstance(event, Done)}
    assert "adapt" in phases
    assert "pool labels" not in phases
    assert "pool labels" in Run(tmp_path / "run").results()["timings"]
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)


def test_the_seed_decides_everything(dataset: Path, made: Path, tmp_path: Path) -> None:
    torch.manual_seed(123)  # of no importance
    same, other = tiny.adapt(dataset, tmp_path / "same"), tiny.adapt(dataset, tmp_path / "other", seed=1)
    assert tiny.all_bytes(same.folder) == tiny.all_bytes(made)
    for name, content in tiny.all_bytes(other.folder).items():
        assert content != tiny.all_bytes(made)[name], name


def test_a_finished_run_is_resumed_without_a_change(run: Run) -> None:
    before, bytes_before = run.results(), tiny.all_bytes(run.folder)
    resume(run.folder)
    after = run.results()
    assert tiny.all_bytes(run.folder) == bytes_before
    assert (after["scores"], after["timings"]) == (before["scores"], before["timings"])
    assert tiny.listing(run.folder) == LAYOUT


def test_a_missing_set_is_made_again(run: Run, made: Path) -> None:
    shutil.rmtree(run.folder / "synthetic")
    (run.folder / "results.json").unlink()
    resume(run.folder)
    assert tiny.all_bytes(run.folder) == tiny.all_bytes(made)
    assert len(run.results()["scores"]) == 7


def test_a_set_that_is_made_again_is_scored_again(run: Run, made: Path) -> None:
    """With a budget in seconds it is another one."""
    shutil.rmtree(run.folder / "synthetic")
    stale = [score | {"mean": 1.25} for score in run.results()["scores"]]
    run.write_json("results.json", run.results() | {"scores": stale})
    resume(run.folder)
    assert {score["stage"] for score in run.results()["scores"] if score["mean"] == 1.25} == {"random"}


def test_what_a_killed_process_left_is_swept_away(run: Run) -> None:
    (run.folder / ".results.json.123.tmp").write_text("half")
    (run.folder / "synthetic" / ".ipc2.123.tmp").mkdir()
    (run.folder / "synthetic" / ".ipc2.123.tmp" / "train.parquet").write_text("half")
    resume(run.folder)
    assert tiny.listing(run.folder) == LAYOUT


def test_a_run_does_not_go_on_with_other_data(dataset: Path, tmp_path: Path) -> None:
    mine = tmp_path / "clothes"
    shutil.copytree(dataset, mine)
    with pytest.raises(KilledError):
        tiny.adapt(mine, tmp_path / "run", kill_at("adapt", None))
    (mine / "train" / "boot" / "1.png").write_bytes((mine / "train" / "coat" / "0.png").read_bytes())
    with pytest.raises(RunError, match="dataset has changed"):
        resume(tmp_path / "run")
    shutil.copyfile(dataset / "train" / "boot" / "1.png", mine / "train" / "boot" / "1.png")
    (mine / "NOTES.md").write_text("a file that is no image changes nothing")
    assert resume(tmp_path / "run").ipcs() == [2]


# ------------------------------------------------------------------------------------------------ a disk that is full


def full_disk(*unused: object, **options: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    "name",
    [
        "pool/train.parquet", "generator/labels.safetensors", "generator/model.safetensors", "generator/config.json",
        "checkpoints/adapt.safetensors", "checkpoints/refine-ipc2.safetensors", "stages/ipc2-generated.safetensors",
        "synthetic/ipc2", "preview.png", "report.html", "results.json",
    ],
)  # fmt: skip
@pytest.mark.usefixtures("always_checkpoint")
def test_a_full_disk_is_said_and_costs_nothing(name: str, dataset: Path, made: Path, tmp_path: Path) -> None:
    run, replace = tmp_path / "run", os.replace

    def fails_for(source: Any, target: Any) -> None:
        full_disk() if Path(target) == run / name else replace(source, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", fails_for)
        with pytest.raises(RunError, match="disk is full") as caught:
            tiny.adapt(dataset, run)
    assert caught.value.hint.endswith(f"`ddtool adapt --resume {run}`.")
    assert not [p for p in tiny.listing(run) if ".tmp" in p or p.startswith(name)]
    there = tiny.all_bytes(run)
    assert {n: b for n, b in there.items() if "checkpoints" not in n}.items() <= tiny.all_bytes(made).items()
    resume(run)
    assert tiny.all_bytes(run) == tiny.all_bytes(made)
    assert tiny.listing(run) == LAYOUT


@pytest.mark.parametrize(
    ("module", "name"), [("models.generator", "model"), ("runs.formats", "exact"), ("runs.formats", "labels")]
)
def test_what_safetensors_says_of_a_full_disk_is_understood(
    module: str, name: str, dataset: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def save(tensors: dict, path: Path, metadata: dict) -> None:
        if name in Path(path).name:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
        save_file(tensors, path, metadata)

    with monkeypatch.context() as patch:
        patch.setattr(f"ddtool.{module}.save_file", save)
        with pytest.raises(RunError, match="disk is full"):
            tiny.adapt(dataset, tmp_path / "run")
    resume(tmp_path / "run")
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)


def test_a_log_that_cannot_grow_is_explained(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "open", full_disk)
    with pytest.raises(RunError, match=r"metrics.jsonl: the disk is full"):
        run.log(Note("x"))


def test_a_run_that_cannot_be_created_leaves_nothing(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "environment", lambda engine: full_disk())
    with pytest.raises(RunError, match="disk is full") as caught:
        tiny.adapt(dataset, tmp_path / "run")
    assert caught.value.hint == "Free some space."
    assert os.listdir(tmp_path) == []


def test_another_failure_to_write_names_the_file(run: Run) -> None:
    shutil.rmtree(run.folder / "stages")
    (run.folder / "stages").write_text("in the way")
    shutil.rmtree(run.folder / "synthetic")
    with pytest.raises((RunError, OSError), match="stages"):
        resume(run.folder)


def test_a_failed_replacement_keeps_the_old_set(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tiny.all_bytes(run.folder)
    with monkeypatch.context() as patch:
        patch.setattr(formats, "write_parquet", full_disk)
        with pytest.raises(RunError, match="disk is full"):
            generate(run, 2, force=True)
    assert tiny.all_bytes(run.folder)["synthetic/ipc2/exact.safetensors"] == before["synthetic/ipc2/exact.safetensors"]


@pytest.mark.parametrize("error", [KilledError, KeyboardInterrupt, ValueError])
def test_a_crash_while_writing_leaves_no_trace(error: type[BaseException], tmp_path: Path) -> None:
    def crash(path: Path) -> None:
        path.write_text("half")
        raise error

    with pytest.raises(error):
        files.write_atomically(tmp_path / "new", crash)
    (tmp_path / "old").write_text("whole")
    with pytest.raises(error):
        files.write_atomically(tmp_path / "old", crash)
    with pytest.raises(error), files.staged_folder(tmp_path / "folder") as folder:
        crash(folder / "file")
    assert os.listdir(tmp_path) == ["old"]
    assert (tmp_path / "old").read_text() == "whole"


# ------------------------------------------------------------------------------------------------ files that are damaged


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def unlabelled(path: Path) -> None:
    save_file(load_file(path), path)


@pytest.mark.parametrize("damage", [truncate, unlabelled, Path.unlink, lambda p: p.write_bytes(b"\x80\x04pickle")])
@pytest.mark.parametrize("name", ["generator/labels.safetensors", "synthetic/ipc2/exact.safetensors"])
def test_a_damaged_tensor_file_is_named(damage: Callable[[Path], Any], name: str, run: Run) -> None:
    damage(run.folder / name)
    with pytest.raises(RunError) as caught:
        run.load_label_head() if "labels" in name else run.load_set(2)
    assert caught.value.hint
    assert str(run.folder) in caught.value.message


@pytest.mark.parametrize(
    ("tensor", "parts", "said"), [("W", (), "misses W"), (None, ("flip", "mean"), "misses mean, flip")]
)
def test_a_label_network_without_its_description_is_refused(
    tensor: str | None, parts: tuple[str, ...], said: str, run: Run
) -> None:
    tensors, info = formats.read_tensors(run.folder / "generator" / "labels.safetensors")
    tensors = {name: value for name, value in tensors.items() if name != tensor}
    info = {name: value for name, value in info.items() if name not in parts}
    formats.write_tensors(run.folder / "generator" / "labels.safetensors", tensors, info)
    with pytest.raises(RunError, match=said):
        run.load_label_head()


def test_a_label_network_of_another_shape_is_refused(run: Run) -> None:
    tensors, info = formats.read_tensors(run.folder / "generator" / "labels.safetensors")
    formats.write_tensors(run.folder / "generator" / "labels.safetensors", tensors, info | {"label_width": 8})
    with pytest.raises(RunError, match="does not fit"):
        generate(run, 1)


@pytest.mark.parametrize(
    "change",
    [
        {"images": torch.full((6, 1, 16, 16), float("nan"))}, {"labels": torch.full((6, 3), float("inf"))},
        {"hard": torch.full((6,), 3)}, {"hard": torch.full((6,), -1)}, {"hard": torch.zeros(6)},
        {"labels": torch.zeros(6, 4)}, {"images": torch.zeros(5, 1, 16, 16)}, {"images": torch.zeros(6, 256)},
    ],
)  # fmt: skip
def test_a_set_that_contradicts_itself_is_refused(change: dict[str, torch.Tensor], run: Run) -> None:
    path = run.set_path(2)
    tensors, info = formats.read_tensors(path)
    formats.write_tensors(path, tensors | change, info)
    with pytest.raises(RunError, match="exact"):
        run.load_set(2)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "null",
        '{"scores": {}, "timings": {}, "facts": {}}',
        "\x00\xff",
        pytest.param("[" * 10**5, id="deep"),
    ]
    + [f'{{"scores": [{score}], "timings": {{}}, "facts": {{}}}}' for score in ("NaN", "null", '"x"')],
)
def test_damaged_results_are_named_and_can_be_made_again(text: str, run: Run) -> None:
    (run.folder / "results.json").write_text(text)
    with pytest.raises(RunError, match=r"results\.json is damaged") as caught:
        resume(run.folder)
    assert "Remove it" in caught.value.hint
    (run.folder / "results.json").unlink()
    resume(run.folder)
    assert len(run.results()["scores"]) == 7


@pytest.mark.parametrize("measured", [api.evaluate, api.robustness])
def test_damaged_results_are_said_before_anything_is_measured(
    measured: Callable[..., object], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.folder / "results.json").write_text("{")
    monkeypatch.setattr("ddtool.pipeline.scoring.Judge.measure", lambda *words: pytest.fail("measured in vain"))
    monkeypatch.setattr("ddtool.pipeline.robustness.whole_score", lambda *words, **more: pytest.fail("in vain"))
    with pytest.raises(RunError, match=r"results\.json is damaged"):
        measured(run, protocol="quick", seeds=1, engine=tiny.ENGINE)


@pytest.mark.skipif(sys.platform == "win32", reason="there folders are not held")
def test_two_processes_do_not_work_on_one_run(run: Run) -> None:
    """The other one may be a resumption in another terminal, of a run that was thought to be dead."""
    waits = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], os.O_RDONLY), fcntl.LOCK_EX); print(flush=True); input()"
    other = subprocess.Popen(
        [sys.executable, "-c", waits, str(run.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(RunError, match=f"Another process is at work on the run {re.escape(str(run.folder))}"):
            api.resume(run.folder, engine=tiny.ENGINE)
        with pytest.raises(RunError, match="Another process is at work"):
            Run.create(run.folder, run.config(), tiny.ENGINE, force=True)
        assert run.ipcs()
    finally:
        other.kill()
        other.communicate()
    api.resume(run.folder, engine=tiny.ENGINE)


def test_a_stage_that_does_not_exist_is_said(run: Run) -> None:
    with pytest.raises(UsageError, match="Unknown stage 'refind'") as caught:
        run.load_set(2, "refind")
    assert caught.value.hint == "Did you mean 'refined'?"


def test_what_is_said_of_a_damaged_or_missing_file_of_a_set_leads_on(run: Run) -> None:
    generate(run, 3)
    (run.folder / "stages" / "ipc2-generated.safetensors").unlink()
    with pytest.raises(RunError, match=r"no synthetic set of ipc 2 \(generated\)") as caught:
        run.load_set(2, "generated")
    assert caught.value.hint == "That set is there as it was refined; leave --stage out."
    hints = {}
    for name in ("synthetic/ipc3/exact", "stages/ipc3-generated", "generator/labels"):
        truncate(run.folder / f"{name}.safetensors")
        with pytest.raises(RunError, match="is damaged") as caught:
            formats.read_tensors(run.folder / f"{name}.safetensors")
        hints[name] = caught.value.hint
    assert f"`ddtool generate {run.folder} --ipc N` if that made it" in hints["synthetic/ipc3/exact"]
    assert hints["stages/ipc3-generated"] == "Remove it; the finished set does not need it."
    assert hints["generator/labels"] == f"Remove it, then `ddtool adapt --resume {run.folder}` makes it again."
    (run.folder / "synthetic" / "ipc2" / "train.parquet").unlink()
    with pytest.raises(RunError, match=r"train\.parquet is missing") as caught:
        formats.read_parquet(run.folder / "synthetic" / "ipc2" / "train.parquet", 3)
    assert caught.value.hint == "Remove exact.safetensors beside it as well, and make the set again."


@pytest.mark.parametrize(("name", "value"), [("seed", 3), ("ipc", [5]), ("generator", "scratch")])
def test_a_setting_that_an_argument_would_overrule_is_refused(name: str, value: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"The setting {name} is ") as caught:
        api.adapt("sample", ipc=2, out=tmp_path / "run", settings={name: value}, engine=tiny.ENGINE)
    assert f"{name}={value!r}" in caught.value.hint
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("stated", [2, [2], (2,)])
def test_a_setting_that_says_what_its_argument_says_is_no_conflict(stated: Any) -> None:
    api.check_settings({"ipc": stated, "seed": 0}, {"ipc": [2], "seed": 0})


def test_functions_take_whole_numbers_of_any_kind(dataset: Path, tmp_path: Path) -> None:
    """NumPy's, as they come from a loop over an array: what is kept and returned holds Python's own."""
    one, few = np.int64(1), np.array([1, 2])
    settings = tiny.SETTINGS | {"ipc": few, "adapt": tiny.SETTINGS["adapt"] | {"steps": np.int32(1)}}
    run = tiny.adapt(dataset, tmp_path / "run", ipc=few, seed=np.int64(0), settings=settings)
    assert (run.ipcs(), run.config().seed, run.config().adapt.steps) == ([1, 2], 0, 1)
    assert api.generate(run, np.int64(3), engine=tiny.ENGINE).ipc == 3
    usual: dict[str, Any] = {"protocol": "quick", "engine": tiny.ENGINE, "seeds": one}
    scores = api.evaluate(run, ipc=one, seed=np.int64(5), data={"max_per_class": np.int64(7)}, **usual)
    assert {(type(score.ipc), score.ipc, type(score.seeds)) for score in scores} == {(int, 1, int)}
    assert {score.ipc for score in api.sweep(run, few, **usual).scores} == {1, 2}
    assert api.export(run, tmp_path / "out", ipc=one, format="npz")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda run: api.adapt("sample", ipc="10", out=run), "ipc must be whole numbers, got '10'"),
        (lambda run: api.adapt("sample", ipc=[1, 2.0], out=run), "ipc must be whole numbers, got [1, 2.0]"),
        (lambda run: api.adapt("sample", seed=np.float64(1), out=run), "seed must be a whole number, got "),
        (lambda run: api.adapt("sample", ipc=True, out=run), "ipc must be whole numbers, got True"),
        (lambda run: api.adapt("sample", seed=None, out=run), "seed must be a whole number, got None"),
        (lambda run: api.generate(run, [1, 2]), "ipc must be a whole number, got [1, 2]"),
        (lambda run: api.sweep(run, np.array([1.5])), "ipcs must be whole numbers, got array([1.5])"),
        (lambda run: api.evaluate(run, ipc=1.0), "ipc must be a whole number, got 1.0"),
        (lambda run: api.robustness(run, seeds="3"), "seeds must be a whole number, got '3'"),
        (lambda run: api.curve(run, seeds=None), "seeds must be a whole number, got None"),
        (lambda run: api.export(run, run, ipc="1"), "ipc must be a whole number, got '1'"),
        (lambda run: api.load_set("ann/c10", [1]), "ipc must be a whole number, got [1]"),
    ],
)
def test_what_is_no_whole_number_is_refused_by_its_name(call: Callable[[Path], Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        call(tmp_path / "run")
    assert caught.value.message.startswith(says)
    assert caught.value.hint.startswith("For example ")
    assert os.listdir(tmp_path) == []


def test_scores_that_miss_a_part_are_in_the_way_of_nothing(run: Run) -> None:
    results = run.results()
    run.write_json("results.json", {**results, "scores": [{}, *results["scores"]]})
    generate(run, 2, force=True)
    assert {score.get("stage") for score in run.results()["scores"]} == {None, "random"}


@pytest.mark.parametrize("text", ["null", "[]", "1", pytest.param("[" * 10**5, id="deep")])
def test_a_damaged_environment_is_named(text: str, run: Run) -> None:
    (run.folder / "env.json").write_text(text)
    with pytest.raises(RunError, match=r"env\.json is damaged"):
        run.content_hash()


def test_a_folder_that_only_looks_like_a_set_is_none(run: Run) -> None:
    for name in ("ipc²", "ipc٣", "ipc02", "ipc0"):
        shutil.copytree(run.folder / "synthetic" / "ipc2", run.folder / "synthetic" / name)
    assert run.ipcs() == [2]


@pytest.mark.parametrize(
    "text", ["", "[]", "null", '{"stepz": 1}', '{"ipc": "x"}', pytest.param("[" * 10**5, id="deep")]
)
def test_a_damaged_configuration_is_named(text: str, run: Run) -> None:
    (run.folder / "config.json").write_text(text)
    with pytest.raises(RunError, match=r"config\.json") as caught:
        resume(run.folder)
    assert caught.value.hint


@pytest.mark.parametrize("damage", [truncate, unlabelled])
@pytest.mark.usefixtures("always_checkpoint")
def test_a_damaged_checkpoint_is_named_and_can_be_removed(
    damage: Callable[[Path], None], dataset: Path, made: Path, tmp_path: Path
) -> None:
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at("refine ipc2", 3))
    checkpoint = tmp_path / "run" / "checkpoints" / "refine-ipc2.safetensors"
    damage(checkpoint)
    with pytest.raises(RunError, match=r"refine-ipc2\.safetensors is damaged") as caught:
        resume(tmp_path / "run")
    assert "Remove it" in caught.value.hint
    checkpoint.unlink()
    resume(tmp_path / "run")
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)


@pytest.mark.parametrize("damage", [truncate, lambda path: path.write_text("no parquet")])
def test_a_damaged_pool_is_named(damage: Callable[[Path], Any], run: Run) -> None:
    damage(run.folder / "pool" / "train.parquet")
    with pytest.raises(RunError, match=r"train\.parquet") as caught:
        generate(run, 1)
    assert caught.value.hint


def test_a_pool_that_is_gone_is_drawn_again(run: Run) -> None:
    pool = run.folder / "pool" / "train.parquet"
    before = pool.read_bytes()
    pool.unlink()
    generate(run, 1)
    assert pool.read_bytes() == before


def test_a_diverging_stage_keeps_the_earlier_ones(dataset: Path, made: Path, tmp_path: Path) -> None:
    settings = tiny.SETTINGS | {"refine": {"steps": 3, "lr_labels": 1e30}}
    with pytest.raises(DivergedError, match="'refine ipc2' is not finite at step 2"):
        tiny.adapt(dataset, tmp_path / "run", settings=settings)
    there = tiny.all_bytes(tmp_path / "run")
    assert "generator/model.safetensors" in there
    assert there.items() <= tiny.all_bytes(made).items()
    assert Run.open(tmp_path / "run").ipcs() == []


# ---------------------------------------------------------------------------------------------------- any other IPC


def test_a_larger_set_begins_with_the_smaller_one(run: Run) -> None:
    generate(run, 3)
    generate(run, 4)
    for stage in ("initial", "generated"):
        two, three, four = (run.load_set(ipc, stage) for ipc in (2, 3, 4))
        assert torch.equal(three.images[:6], two.images)
        assert torch.equal(four.images[:9], three.images)
        assert torch.equal(four.hard, torch.tensor([0, 1, 2] * 4))


def test_beyond_the_pool_the_same_draw_goes_on(run: Run) -> None:
    api.generate(run, 8, engine=tiny.ENGINE)
    images, _ = run.load_pool(tiny.CLASSES)
    initial = run.load_set(8, "initial")
    assert torch.equal(initial.images[:12], images.float() / 255)
    assert len(torch.unique(initial.images.flatten(1), dim=0)) == 24  # no image twice


@pytest.fixture
def moved(dataset: Path, tmp_path: Path) -> tuple[Run, Path]:
    """A run with a dataset of its own, which can be taken away."""
    mine = tmp_path / "mine"
    shutil.copytree(dataset, mine)
    return tiny.adapt(mine, tmp_path / "run"), mine


def test_without_the_dataset_only_the_pool_is_there(moved: tuple[Run, Path]) -> None:
    run, mine = moved
    shutil.rmtree(mine)
    events: list[Event] = []
    four = api.generate(run, 4, engine=tiny.ENGINE, report=events.append)
    assert len(four) == 12
    assert four.label_method == "analytical"
    assert any(isinstance(event, Note) and "to fit better ones takes the dataset" in event.text for event in events)
    with pytest.raises(RunError, match="keeps 4 initial samples per class; for 5 it needs its dataset") as caught:
        generate(run, 5)
    assert "--ipc 4 or less" in caught.value.hint
    assert run.ipcs() == [2, 4]


def test_a_larger_pool_is_not_drawn_from_other_data(moved: tuple[Run, Path]) -> None:
    run, mine = moved
    (mine / "train" / "boot" / "1.png").unlink()
    assert api.generate(run, 4, engine=tiny.ENGINE).label_method == "analytical"
    with pytest.raises(RunError, match="dataset has changed"):
        generate(run, 5)


def test_no_more_than_a_class_holds(run: Run) -> None:
    with pytest.raises(UsageError, match="more than class 'boot' holds"):
        generate(run, 9)


def test_a_set_that_is_there_is_replaced_only_by_force(run: Run, made: Path) -> None:
    with pytest.raises(RunError, match="ipc 2 already, refined") as caught:
        generate(run, 2)
    assert "--force" in caught.value.hint
    generate(run, 2, force=True)
    assert run.load_set(2).stage == "generated"
    assert {s["stage"] for s in run.results()["scores"]} == {"random"}
    resume(run.folder)  # asks for what the configuration asks for
    assert run.load_set(2).stage == "refined"
    assert tiny.all_bytes(run.folder) == tiny.all_bytes(made)
    assert len(run.results()["scores"]) == 7


@pytest.mark.usefixtures("always_checkpoint")
def test_a_set_made_in_between_does_not_stop_the_refinement(dataset: Path, made: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at("refine ipc2", 2))
    generate(Run.open(tmp_path / "run"), 2)
    resume(tmp_path / "run")
    assert tiny.all_bytes(tmp_path / "run") == tiny.all_bytes(made)


def test_nothing_is_generated_before_the_generator_is_adapted(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        tiny.adapt(dataset, tmp_path / "run", kill_at("adapt", 1))
    with pytest.raises(RunError, match="no adapted generator yet") as caught:
        generate(Run.open(tmp_path / "run"), 1)
    assert "--resume" in caught.value.hint


def test_every_stage_has_its_labels_at_the_usual_scale(made: Path) -> None:
    run, scale = Run.open(made), 4.0
    assert run.config().label_scale is None
    for stage in ("initial", "generated", "refined"):
        synthetic = run.load_set(run.ipcs()[0], stage)
        assert synthetic.label_scale == scale
        methods = {"initial": "analytical", "generated": "fitted", "refined": "learned"}
        assert synthetic.label_method == methods[stage]


def test_without_networks_to_fit_on_labels_are_analytical(dataset: Path, tmp_path: Path) -> None:
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"fit": {"networks": 0}})
    features, head = networks.load_labels(run, Engine.choose("cpu", "fp32"))
    initial, scale = run.load_set(2, "initial"), 4.0
    assert initial.label_method == "analytical"
    assert not any("fit" in phase for phase in run.results()["timings"])
    solved = analytical_labels(features, head.W, NetworkInput(head.mean, head.std)(initial.images))
    assert torch.allclose(initial.labels, scale * solved, atol=1e-3)


@pytest.mark.parametrize(("asked", "seen"), [((), (3, 1)), ((2,), (2,)), ((2, 99), (2, 8))])
def test_adaptation_sees_the_sets_that_are_asked_for_with_labels_fitted_to_each(
    asked: tuple[int, ...], seen: tuple[int, ...], dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the IPCs of `adapt.seen_ipcs`, as far as the classes fill them; labels are for parts of the size that a step sees."""
    calls: list[Any] = []
    monkeypatch.setattr(mgdd, "adapt", lambda *a, **named: calls.append(a))
    settings = tiny.SETTINGS | {"adapt": {"real_batch": 12, "seen_ipcs": list(asked), "synthetic_batch": 6}}
    run = tiny.adapt(dataset, tmp_path / "run", settings=settings, ipc=(3, 1))
    assert "pool labels" in run.results()["timings"]
    assert run.results()["facts"]["pool_ipc"] == (8 if 99 in asked or not asked else 3)
    (_, f, real, pool, adapted, engine, *_) = calls[0]
    assert adapted.seen_ipcs == seen
    assert list(pool.Y_s) == list(seen)
    fit = replace(run.config().fit, flip=adapted.flip)
    for ipc, Y in pool.Y_s.items():
        X, rng = pool.X_s[: 3 * ipc], engine.rng(0, "pool labels", ipc)
        assert torch.equal(Y, mgdd.fitted_labels(X, f, real, fit, rng, 6))


def test_without_steps_no_labels_are_fitted_to_the_pool(dataset: Path, tmp_path: Path) -> None:
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"adapt": {"steps": 0}})
    assert "pool labels" not in run.results()["timings"]
    assert run.load_set(2).stage == "refined"


def test_with_no_networks_to_fit_on_the_pool_has_the_labels_of_equation_3(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[Pool] = []
    monkeypatch.setattr(mgdd, "adapt", lambda *a, **named: pools.append(a[3]))
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"fit": {"networks": 0}})
    features, head = networks.load_labels(run, tiny.ENGINE)
    for ipc in (2, 4):
        assert torch.equal(pools[0].Y_s[ipc], analytical_labels(features, head.W, pools[0].X_s[: 3 * ipc]))


def test_the_sizes_that_are_asked_for_are_adapted_for(dataset: Path, tmp_path: Path) -> None:
    """From beginning to end with the defaults, no `seen_ipcs`; then a size that was not seen."""
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"adapt": {"steps": 3, "real_batch": 12}})
    assert run.config().adapt.seen_ipcs == ()
    assert run.results()["facts"]["pool_ipc"] == 8
    assert generate(run, 5).exists()


def test_a_run_of_an_earlier_version_can_be_read(made: Path, tmp_path: Path) -> None:
    """Its sets, that is; its generator is refused by name."""
    shutil.copytree(made, old := tmp_path / "old")
    values = json.loads((old / "config.json").read_text())
    values["architecture"], values["refine"]["uses"] = {"width": 64, "blocks": 3}, 1
    (old / "config.json").write_text(json.dumps(values))
    (old / "generator" / "config.json").write_text('{"ddtool_generator": {"width": 64, "blocks": 3}}')
    run = Run.open(old)
    assert run.config() == replace(Run.open(made).config(), architecture=run.config().architecture)
    assert len(run.load_set(run.ipcs()[0])) == len(Run.open(made).load_set(run.ipcs()[0]))
    with pytest.raises(GeneratorError, match="an earlier version's convolutional generator"):
        generate(run, 3, labels="analytical")


def test_without_refinement_the_generated_set_is_the_set(dataset: Path, tmp_path: Path) -> None:
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"refine": {"steps": 0}})
    assert run.load_set(2).stage == "generated"
    assert {s["stage"] for s in run.results()["scores"]} == {"random", "generated"}
    with pytest.raises(RunError, match=r"no synthetic set of ipc 2 \(refined\)"):
        run.load_set(2, "refined")


def test_a_refinement_batch_holds_every_class(dataset: Path, tmp_path: Path) -> None:
    settings = tiny.SETTINGS | {"refine": {"steps": 2, "real_batch": 1, "synthetic_batch": 1}}
    assert tiny.adapt(dataset, tmp_path / "run", settings=settings).load_set(2).stage == "refined"


def test_flips_can_be_switched_off_stage_by_stage(dataset: Path, made: Path, tmp_path: Path) -> None:
    settings = tiny.SETTINGS | {"refine": tiny.SETTINGS["refine"] | {"flip": False}}
    there = tiny.all_bytes(tiny.adapt(dataset, tmp_path / "run", settings=settings).folder)
    assert there["generator/model.safetensors"] == tiny.all_bytes(made)["generator/model.safetensors"]
    assert there["synthetic/ipc2/exact.safetensors"] != tiny.all_bytes(made)["synthetic/ipc2/exact.safetensors"]


@pytest.mark.parametrize("flip", [False, True])
def test_every_stage_follows_whether_flips_keep_their_class(
    flip: bool, dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, set[bool]] = {}

    def spied(name: str) -> Callable[..., Any]:
        original = getattr(mgdd, name)

        def spy(*arguments: Any, **named: Any) -> Any:
            (settings,) = (one for one in arguments if hasattr(one, "flip") and hasattr(one, "ridge"))
            seen.setdefault(name, set()).add(settings.flip)
            return original(*arguments, **named)

        return spy

    for name in ("adapt", "refine", "fitted_labels"):
        monkeypatch.setattr(mgdd, name, spied(name))
    monkeypatch.setattr(target, "flip_keeps_classes", lambda session, real: (flip, 1.0))
    settings = tiny.SETTINGS | {"whitening": {"kind": "none"}}
    tiny.adapt(dataset, tmp_path / "run", settings=settings)
    assert seen == {name: {flip} for name in ("adapt", "refine", "fitted_labels")}


def test_what_takes_a_place_is_on_the_disk_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the order of the calls: each file that is moved, or lies in a folder that is, was written out by then."""
    written: set[int] = set()
    fsync, replaced = os.fsync, os.replace

    def sync(file: int) -> None:
        written.add(os.fstat(file).st_ino)
        fsync(file)

    def move(source: Any, target: Any) -> None:
        source = Path(source)
        found = [source] if source.is_file() else [path for path in source.rglob("*") if path.is_file()]
        assert found
        assert {path.stat().st_ino for path in found} <= written
        replaced(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    files.write_json(tmp_path / "one.json", {})
    for replacing in (False, True):
        with files.staged_folder(tmp_path / "folder", replacing) as folder:
            (folder / "plain.txt").write_text("x")
    formats.write_tensors(tmp_path / "x.safetensors", {"x": torch.zeros(2)}, {})
    tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run")


SAYS_OF_FLIPS = {
    True: r"Images flipped left-right show the same here \(\d+% of accuracy left on them\), so they are used too\.$",
    False: r"Flipping images left-right changes what they show here \(\d+% of accuracy left\), so it is off\.$",
    None: r"There are too few images to tell whether flipping them left-right keeps their class, so it is off",
}


@pytest.mark.parametrize(
    ("where", "count", "flip"),
    [
        ((slice(8), slice(16)), 40, True),
        ((slice(16), slice(8)), 40, False),
        (None, 40, None),
        ((slice(8), slice(16)), 2, None),
    ],
    ids=["top or bottom", "left or right", "nothing to see", "too few images"],
)
def test_whether_flips_keep_their_class_is_measured(
    where: Any, count: int, flip: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes: a bright half, or the other half."""
    monkeypatch.setattr(target, "FLIP_WIDTH", SHIPPED_TRIAL["FLIP_WIDTH"])
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(2 * count) % 2
    images = torch.randint(0, 100, (2 * count, 1, 16, 16), generator=rng)
    if where is not None:
        bright = torch.zeros(16, 16, dtype=torch.long)
        bright[where] = 100
        images += torch.where(labels[:, None, None, None] == 0, bright, 100 - bright)
    data = ImageData(images.to(torch.uint8), labels, ("a", "b"), (0.4,), (0.2,))
    heard: list[Event] = []
    session = Session(RunConfig(), Run(Path("nowhere")), tiny.ENGINE, heard.append)
    assert measured_flip(session, Real.of(data, tiny.ENGINE)) is bool(flip)
    (note,) = heard
    assert isinstance(note, Note)
    assert re.match(SAYS_OF_FLIPS[flip], note.text)
    keeps, kept = flip_keeps_classes(session, Real.of(data, tiny.ENGINE))
    assert keeps is (flip or False)
    assert math.isnan(kept) if flip is None else kept == pytest.approx(1.0 if flip else 0.0, abs=0.1)


# ------------------------------------------------------------------------------------------------------------- scores


def test_scores_are_kept_once_for_each_measurement(run: Run) -> None:
    score = Score(
        stage="refined", method="mgdd", ipc=2, arch="a", protocol="p", dataset="d", mean=1, std=0, seeds=1, seconds=1
    )
    run.record_score(score)
    run.record_score(replace(score, mean=2))
    run.record_score(replace(score, mean=3, dataset="other"))
    for n, other in enumerate(({"seeds": 3}, {"pixels": "exact"}, {"inputs": "not whitened"}, {"arch": "b"})):
        run.record_score(replace(score, mean=4 + n, **other))
    run.record_seconds("x", 1)
    run.record(colour="grey")
    results = run.results()
    assert [s["mean"] for s in results["scores"] if s["protocol"] == "p"] == [2, 3, 4, 5, 6, 7]
    assert (results["timings"]["x"], results["facts"]["colour"]) == (1, "grey")


def test_a_budget_counts_the_phases_before_and_not_an_earlier_attempt_at_the_same(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [
        "labels",
        "pool labels",
        "adapt",
        "generate ipc2",
        "fit labels ipc2",
        "refine ipc2",
        "refine ipc3",
        "scores",
    ]
    took = {name: 2.0**i for i, name in enumerate(names)}
    monkeypatch.setattr(Run, "results", lambda run: {"scores": [], "timings": took, "facts": {}})
    run = Run.open(made)
    config = replace(run.config(), seconds=1000.0, ipc=(2,))
    session, refining = Session(config, run, tiny.ENGINE), Phase("refine", 2)
    assert seconds_left(session, Phase("adapt")) == 1000 - (1 + 2)
    assert seconds_left(session, refining) == 1000 - (1 + 2 + 4 + 8 + 16)
    assert seconds_left(replace(session, config=replace(config, seconds=30.0)), refining) == 0.0
    assert seconds_left(replace(session, config=run.config()), Phase("adapt")) is None


def test_a_refined_set_that_was_lost_is_refined_again_within_the_budget(dataset: Path, tmp_path: Path) -> None:
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"seconds": 2.0})
    shutil.rmtree(run.folder / "synthetic")
    run = api.resume(run.folder, engine=tiny.ENGINE)
    assert run.load_set(2).stage == "refined"
    assert run.steps()["refine ipc2"] > 0
    assert not torch.equal(run.load_set(2).images, run.load_set(2, "generated").images)


def test_labels_leave_time_for_the_steps(dataset: Path, tmp_path: Path) -> None:
    """Fitted on as many networks as are asked for, the labels alone would take hours."""
    settings = tiny.SETTINGS | {"seconds": 4.0, "fit": {"networks": 1_000_000, "real_batch": 12}}
    run = tiny.adapt(dataset, tmp_path / "run", settings=settings)
    assert run.steps()["adapt"] > 0
    assert run.steps()["refine ipc2"] > 0


def large(classes: int, side: int, each: int = 60) -> ImageData:
    """Black images that take no memory."""
    images = torch.zeros(1, dtype=torch.uint8).expand(classes * each, 3, side, side)
    names = tuple(f"c{k}" for k in range(classes))
    return ImageData(images, torch.arange(classes * each) % classes, names, (0.5,) * 3, (0.2,) * 3)


@pytest.mark.parametrize(
    ("classes", "side", "ipc", "seen", "kept"),
    [
        (10, 32, 10, (), 50), (10, 32, 55, (), 55), (10, 32, 10, (20,), 20), (10, 32, 80, (), 60),
        (1000, 224, 1, (), 7), (1000, 224, 10, (), 10), (1000, 1000, 1, (), 1),
    ],
)  # fmt: skip
def test_the_pool_has_room_for_other_sizes_within_a_gigabyte(
    classes: int, side: int, ipc: int, seen: tuple[int, ...], kept: int
) -> None:
    config = RunConfig(ipc=(ipc,))
    config = replace(config, adapt=replace(config.adapt, seen_ipcs=seen))
    assert plan.pool_size(config, large(classes, side)) == kept


def test_pixels_that_no_run_can_keep_are_refused() -> None:
    plan.check_ipcs(RunConfig(ipc=(20,)), large(1000, 224))
    with pytest.raises(UsageError, match="The pixels of --ipc 50 are 7 GiB"):
        plan.check_ipcs(RunConfig(ipc=(50,)), large(1000, 224))


def test_labels_of_too_many_images_are_refused_before_anything_is_made(dataset: Path, tmp_path: Path) -> None:
    config = RunConfig()
    plan.check_fit(config, 100, 200)
    with pytest.raises(UsageError, match=r"50,000 images at once \(IPC 50\) would take about 84 GiB") as caught:
        plan.check_fit(config, 1000, 50)
    assert "fit.networks=0" in caught.value.hint
    plan.check_fit(replace(config, fit=replace(config.fit, networks=0)), 1000, 50)


def test_a_phase_that_ends_again_replaces_its_seconds(run: Run) -> None:
    run.log(Done("phase", 1.5))
    run.log(Done("phase", 2.0))
    assert run.results()["timings"]["phase"] == 2.0


@pytest.mark.parametrize(
    "torn",
    [
        '{"phase": "adapt", "st',
        "3",
        "[]",
        '{"step": 9}',
        '{"phase": [], "step": 1}',
        "\x00",
        pytest.param("[" * 10**5, id="deep"),
    ],
)
def test_a_torn_line_of_the_metrics_hides_no_other(torn: str, tmp_path: Path) -> None:
    lines = [torn, '{"phase": "adapt", "step": 2, "total": 3}', torn, '{"phase": "adapt", "seconds": 1}']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert Run(tmp_path).steps() == {"adapt": 2}
    assert Run(tmp_path / "nowhere").steps() == {}


def test_a_score_on_another_dataset_stands_beside_the_own_one(run: Run, tmp_path: Path) -> None:
    other = tiny.image_folder(tmp_path / "other", train=3, test=2)
    own = [s for s in run.results()["scores"] if s["protocol"] == "quick"]
    scores = api.evaluate(run, on=str(other), protocol="quick", seeds=1, baseline=False, engine=tiny.ENGINE)
    assert [s.dataset for s in scores] == [str(other)]
    after = [s for s in run.results()["scores"] if s["protocol"] == "quick"]
    assert own == after[:-1]
    assert after[-1] == scores[0].to_dict()


def test_other_classes_are_not_scored(run: Run, tmp_path: Path) -> None:
    for names in (("boot", "coat"), ("boot", "coat", "glove")):
        other = tiny.image_folder(tmp_path / str(len(names)), names=names, train=2, test=1)
        with pytest.raises(UsageError, match="an accuracy would mean nothing") as caught:
            api.evaluate(run, on=str(other), protocol="quick", engine=tiny.ENGINE)
        assert "--on" in caught.value.hint


def test_a_set_alone_is_tested_on_its_data_read_alike(tmp_path: Path) -> None:
    data = tiny.image_folder(tmp_path / "large", side=20)
    run = tiny.adapt(data, tmp_path / "run", settings=tiny.SETTINGS | {"data": {"resolution": 16}})
    shutil.copytree(run.folder / "synthetic" / "ipc2", tmp_path / "set")
    inside = api.evaluate(run, protocol="kernel-ridge", baseline=False, engine=tiny.ENGINE)
    for path in (tmp_path / "set", tmp_path / "set" / "exact.safetensors"):
        outside = api.evaluate(path, protocol="kernel-ridge", baseline=False, engine=tiny.ENGINE)
        assert [s.mean for s in outside] == [s.mean for s in inside]


def test_a_set_of_unknown_origin_asks_for_a_dataset(run: Run, dataset: Path) -> None:
    tensors, info = formats.read_tensors(run.set_path(2))
    formats.write_tensors(run.folder / "anonymous.safetensors", tensors, info | {"source": {}})
    with pytest.raises(UsageError, match="does not say which dataset") as caught:
        api.evaluate(run.folder / "anonymous.safetensors", protocol="kernel-ridge", engine=tiny.ENGINE)
    assert "--on" in caught.value.hint
    [score, baseline] = api.evaluate(
        run.folder / "anonymous.safetensors", on=str(dataset), protocol="kernel-ridge", engine=tiny.ENGINE
    )
    assert (score.stage, baseline.stage) == ("refined", "random")


def test_the_random_baseline_is_the_beginning_of_the_pool_at_the_label_scale_of_the_set(made: Path) -> None:
    run = Run.open(made)
    target, final = scoring.load_target(run.config(), lambda event: None), run.load_set(2)
    images, _ = run.load_pool(tiny.CLASSES)
    baseline = scoring.random_subset(target.train, replace(final, label_scale=5.0), 0)
    assert torch.equal(baseline.images, images[:6].float() / 255)
    assert baseline.label_scale == 5.0
    assert torch.allclose(baseline.labels, 5 * one_hot(final.hard, 3))
    assert (baseline.flip, baseline.ipc) == (final.flip, 2)


# --------------------------------------------------------------------------------------------------------- generators


def test_a_run_serves_as_a_generator(made: Path, dataset: Path, tmp_path: Path) -> None:
    assert generators.generator_folder(str(made)) == made / "generator"
    run = tiny.adapt(
        dataset, tmp_path / "run", generator=str(made), settings=tiny.SETTINGS | {"adapt": {"steps": 0, "seen_ipcs": 4}}
    )
    mine, theirs = load_file(run.folder / "generator" / "model.safetensors"), made / "generator" / "model.safetensors"
    assert all(torch.equal(mine[name], t) for name, t in load_file(theirs).items())


@pytest.mark.parametrize(("slots", "notes"), [(8, 0), (16, 1)])
def test_it_is_said_when_settings_ask_for_another_architecture(made: Path, slots: int, notes: int) -> None:
    events: list[Event] = []
    architecture = GeneratorConfig(slots=slots, side=16)
    config = replace(Run.open(made).config(), generator=str(made), architecture=architecture)
    assert networks.load_generator(config, events.append).config == GeneratorConfig(slots=8, side=16)
    assert [event.text for event in events] == notes * [
        "The generator stays at 8 slots, side 16: settings of 'architecture' are for scratch."
    ]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "not a readable safetensors file"),
        (lambda path: path.write_bytes(b"\x80\x04\x95pickle"), "not a readable safetensors file"),
        (Path.unlink, "model.safetensors is missing"),
        (lambda path: (path.parent / "config.json").write_text("{"), "not a generator's configuration"),
        (lambda path: save_file({"x": torch.zeros(1)}, path), "tensor"),
    ],
)
def test_a_damaged_generator_is_refused(
    damage: Callable[[Path], Any], message: str, made: Path, dataset: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "generator", tmp_path / "generator")
    damage(tmp_path / "generator" / "model.safetensors")
    with pytest.raises(GeneratorError, match=message):
        tiny.adapt(dataset, tmp_path / "run", generator=str(tmp_path / "generator"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("bundeld", "'bundled'"),
        ("scrach", "'scratch'"),
        ("a/b/c", "folder that exists"),
        ("../x/..", "folder"),
    ],
)
def test_a_generator_that_is_none_of_these(name: str, hint: str) -> None:
    with pytest.raises(GeneratorError, match="No generator called") as caught:
        generators.generator_folder(name)
    assert hint in caught.value.hint


def test_a_generator_is_a_folder_not_its_file(made: Path) -> None:
    with pytest.raises(GeneratorError, match="is a file") as caught:
        generators.generator_folder(str(made / "generator" / "model.safetensors"))
    assert str(made / "generator") in caught.value.hint


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ('{"seconds": 12}', 12.0), ('{"seconds": 0.5}', 0.5), ('{"seconds": 0}', 0.0), ('{"seconds": -1}', None),
        ('{"seconds": true}', None), ('{"seconds": "12"}', None), ('{"seconds": NaN}', None),
        ('{"seconds": Infinity}', None), (f'{{"seconds": 1{"0" * 400}}}', None), ("{}", None), ("[]", None),
        ("[" * 100_000, None),
    ],
)  # fmt: skip
def test_the_seconds_of_a_pretraining_are_a_number_or_nothing(said: str, seconds: float | None, tmp_path: Path) -> None:
    (tmp_path / generators.PRETRAINING).write_text(said)
    found = networks.pretraining_seconds(RunConfig(generator=str(tmp_path)))
    assert (found, type(found)) == (seconds, type(seconds))


def test_the_last_events_are_those_at_the_end(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    assert files.events(file, 100) == []
    file.write_text("".join(f'{{"step": {i}}}\n' for i in range(1000)) + '{"torn', encoding="utf-8")
    everything = [{"step": i} for i in range(1000)]
    assert files.events(file) == everything
    found = files.events(file, 200)
    assert 5 < len(found) < 20
    assert found == everything[-len(found) :]


@pytest.mark.parametrize("kind", [str, Path])
def test_a_set_of_this_machine_is_loaded_by_its_place(
    made: Path, monkeypatch: pytest.MonkeyPatch, kind: type[str] | type[Path]
) -> None:
    monkeypatch.chdir(made.parent.parent)
    run = made.relative_to(made.parent.parent)  # two words with a slash between them, as a repo has
    wanted = Run.open(made).load_set(2)
    for name in (run, run / "synthetic", run / "synthetic" / "ipc2", run / "synthetic" / "ipc2" / files.EXACT):
        found = api.load_set(kind(name), 2)
        assert torch.equal(found.images, wanted.images)
        assert torch.equal(found.labels, wanted.labels)
    with pytest.raises(UsageError, match="it has no revision 'v1'"):
        api.load_set(kind(run), 2, revision="v1")


def test_a_place_without_a_set_or_with_several_is_explained(made: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="No run and no synthetic set"):
        api.load_set(tmp_path)
    for name in ("set10", "set2"):
        shutil.copytree(made / "synthetic" / "ipc2", tmp_path / name / "ipc2")
    with pytest.raises(UsageError, match="holds several sets") as caught:
        api.load_set(tmp_path)
    assert caught.value.hint == "Name the folder of one of them: set2/ipc2, set10/ipc2."
    shutil.copytree(made / "synthetic" / "ipc2", tmp_path / "ipc2")
    two = Run.open(made).load_set(2)
    few = {name: getattr(two, name)[: two.num_classes] for name in ("images", "labels", "hard")}
    one = replace(two, ipc=1, **few)
    formats.write_set_folder(tmp_path / "ipc1", one)
    with pytest.raises(UsageError, match="holds several sets") as caught:
        api.load_set(tmp_path)
    assert caught.value.hint == "Name one of them: ipc=1 or ipc=2."
    with pytest.raises(RunError, match="has no set of ipc 7") as missing:
        api.load_set(tmp_path, 7)
    assert missing.value.hint == "Sets there: 1, 2."


def test_paths_name_a_dataset_and_a_generator(
    dataset: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(dataset.parent)
    evaluate = {**tiny.SETTINGS, "evaluate": {"protocol": "kernel-ridge"}}
    named = {"generator": made, "engine": tiny.ENGINE, "settings": evaluate, "progress": False}
    run = api.adapt(Path(dataset.name), ipc=1, out=tmp_path / "run", **named)  # type: ignore[arg-type]
    assert (run.config().dataset, run.config().generator) == (str(dataset), str(made))
    scores = api.evaluate(run, on=Path(dataset.name), protocol="kernel-ridge", seeds=1, engine=tiny.ENGINE)
    assert {score.dataset for score in scores} == {str(dataset)}


def test_a_run_below_the_home_folder_is_opened(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(made.parent))
    assert Run.open(Path("~") / made.name).folder == made


def test_commands_in_hints_can_be_pasted(made: Path, tmp_path: Path) -> None:
    run = tmp_path / "my run"
    shutil.copytree(made, run)
    with pytest.raises(RunError) as caught:
        check_free(run, force=False)
    assert f"`ddtool adapt --resume '{run}'`" in caught.value.hint
    with pytest.raises(RunError) as caught:
        Run.open(run).load_set(7)
    assert f"`ddtool generate '{run}' --ipc 7`" in caught.value.hint


def test_runs_of_one_second_have_folders_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "20261127-195151")
    names = []
    for _ in range(3):
        folder = files.dated_folder("cifar10-ipc10")
        folder.mkdir(parents=True)
        names.append(folder.as_posix())
    first = "runs/cifar10-ipc10-20261127-195151"
    assert names == [first, f"{first}-2", f"{first}-3"]
