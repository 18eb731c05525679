"""`ddtool pretrain` from its command line to its generator: validation, kills, several processes, several datasets."""

import itertools
import json
import os
import shlex
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from conftest import toy_images
from processes import forked, launched
from safetensors.torch import load_file
from tiny import done, refused

from ddtool.config import MetaConfig, PretrainConfig, from_dict, to_dict
from ddtool.errors import DivergedError, RunError, UsageError
from ddtool.events import Event, Note
from ddtool.hub import generators
from ddtool.methods import mgdd
from ddtool.models.generator import Generator, GeneratorConfig
from ddtool.pretraining import folder as pretrain_folder
from ddtool.pretraining import pretrain, validation
from ddtool.pretraining.folder import FIGURES, Pretraining
from ddtool.pretraining.tasks import LargeSet, task_source
from ddtool.pretraining.validation import Validation
from ddtool.runs.files import is_run
from ddtool.runtime import distributed
from ddtool.runtime.compiling import Compilation
from ddtool.runtime.distributed import ALONE, Ranks
from ddtool.runtime.engine import Engine
from ddtool.sources import load as sources
from ddtool.sources.names import Origin

SETTINGS: dict[str, Any] = {
    "held_out": 2, "architecture": {"slots": 8, "side": 16}, "features": {"width": 16},
    "validate_every": 2, "validate_tasks": 1, "validate_steps": 3,
    "meta": {
        "iterations": 5, "meta_batch": 3, "inner_steps": 2, "ways": [3, 4], "ipc": [1, 3], "label_images": 20,
        "task": {"real_batch": 12, "augmented_copies": 0}, "fit": {"networks": 2, "real_batch": 12, "augmented_copies": 0},
    },
}  # fmt: skip
OPTIONS = shlex.split(
    "--iterations 5 --meta-batch 3 --inner-steps 2 --precision fp32 --set held_out=2 --set architecture.slots=8 "
    "--set architecture.side=16 --set features.width=16 --set validate_every=2 --set validate_tasks=1 "
    "--set validate_steps=3 --set meta.ways=[3,4] --set meta.ipc=[1,3] --set meta.label_images=20 "
    "--set meta.task.real_batch=12 --set features.width=16 --set meta.fit.networks=2 --set meta.fit.real_batch=12 "
    "--set meta.task.augmented_copies=0 --set meta.fit.augmented_copies=0"
)
"""The same on the command line."""
PICTURES = [f"pictures/iteration-{i:06}.png" for i in (0, 2, 4, 5)]
LAYOUT = [
    "checkpoints/pretrain.safetensors", "config.json", "env.json", "generator/config.json",
    "generator/model.safetensors", "generator/pretraining.json", "metrics.jsonl", *PICTURES,
]  # fmt: skip


class KilledError(BaseException):
    """The end of the process, as far as the code under test can tell."""


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    for name in ("DDTOOL_DEBUG", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    tiny.shorten_protocols(monkeypatch)
    monkeypatch.setattr(validation, "FIT", replace(validation.FIT, networks=2, real_batch=12))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Any]]:
    """`ddtool pretrain sample --json`: the folder, not to be changed, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
        patch.setattr(validation, "FIT", replace(validation.FIT, networks=2, real_batch=12))
        folder = tmp_path_factory.mktemp("made") / "meta"
        result = done("pretrain", "sample", "--out", folder, *OPTIONS, "--json")
    before = {name: (folder / name).read_bytes() for name in tiny.listing(folder)}
    yield folder, result
    assert {name: (folder / name).read_bytes() for name in tiny.listing(folder)} == before


@pytest.fixture
def folder(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A finished pre-training of one's own, at meta/ in the current folder."""
    shutil.copytree(made[0], tmp_path / "meta")
    return Path("meta")


def configured(dataset: str = "sample", **changes: Any) -> PretrainConfig:
    return from_dict(PretrainConfig, SETTINGS | {"datasets": [dataset]} | changes)


def state(folder: Path) -> dict[str, torch.Tensor]:
    """The last checkpoint, without the clock."""
    kept = load_file(folder / "checkpoints" / "pretrain.safetensors")
    del kept["seconds"]
    return kept


def same_end(one: Path, other: Path) -> None:
    """Both ended in the same weights, optimiser and generator, by the same curve."""
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    weights = "generator/model.safetensors"
    assert (one / weights).read_bytes() == (other / weights).read_bytes()
    assert without_clock(one) == without_clock(other)
    assert tiny.listing(one) == tiny.listing(other)


def without_clock(folder: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in Pretraining(folder).curve()]


# ------------------------------------------------------------------------------------------------- as the user types it


def test_a_pretraining_leaves_a_generator_and_the_story_of_it(made: tuple[Path, Any]) -> None:
    folder, result = made
    assert tiny.listing(folder) == sorted(LAYOUT)
    said = json.loads(result.stdout)
    assert (said["run"], said["generator"]) == (str(folder), str(folder / "generator"))
    assert f"Next: ddtool adapt DATASET --ipc 10 --generator {folder}" in result.stderr
    account = json.loads((folder / "generator" / "pretraining.json").read_text())
    assert said["curve"] == account["curve"] == Pretraining(folder).curve()
    assert [row["iteration"] for row in account["curve"]] == [0, 2, 4, 5]
    assert all(set(row) == {"iteration", *FIGURES} for row in account["curve"])
    assert [row["seconds"] for row in account["curve"]] == sorted(row["seconds"] for row in account["curve"])
    assert (account["iterations"], account["tasks"]) == (5, 15)
    assert account["hardware"].startswith("1 x cpu")
    (dataset,) = account["datasets"]
    assert (dataset["name"], dataset["classes"], len(dataset["held_out"])) == ("sample", 10, 2)
    assert dataset["content_hash"]
    assert account["settings"]["meta"]["ways"] == [3, 4]
    assert json.loads((folder / "config.json").read_text())["datasets"] == ["sample"]
    assert "started" in json.loads((folder / "env.json").read_text())


def test_the_generator_is_the_best_and_can_be_adapted(made: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = made
    assert Generator.load(generators.generator_folder(str(folder))).config == GeneratorConfig(8, 16)
    dataset = tiny.image_folder(tmp_path / "clothes")
    options = [*tiny.OPTIONS[2:], "--generator", folder]
    done("adapt", dataset, "--ipc", 2, "--out", "run", *options, "-q")
    assert is_run(Path("run"))


def test_no_account_says_where_a_dataset_lies(tmp_path: Path) -> None:
    dataset = tiny.image_folder(tmp_path / "secret place" / "clothes", ("boot", "coat", "dress", "bag"))
    words = ["--set", "meta.ways=[2,2]", "--iterations", 2, "--set", "validate_every=2"]
    done("pretrain", dataset, "--out", "meta", *OPTIONS, *words, "-q")
    account = (Path("meta") / "generator" / "pretraining.json").read_text()
    assert json.loads(account)["datasets"][0]["name"] == "clothes"
    assert "secret" not in account


def test_quietly_it_prints_its_folder(folder: Path) -> None:
    result = done("pretrain", "--resume", folder, "--precision", "fp32", "-q")
    assert (result.stdout, result.stderr) == ("meta\n", "")
    table = done("pretrain", "--resume", folder, "--precision", "fp32").stdout
    assert "loss before" in table
    assert "accuracy" in table


# ------------------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "No dataset was given"),
        (["sample", "--set", "meta.wayz=3"], "'ways'"),
        (["sample", "--set", "meta.ways=[5,3]"], "meta.ways"),
        (["sample", "--set", "meta.ways=[1,3]"], "meta.ways"),
        (["sample", "--set", "meta.ipc=[0,3]"], "meta.ipc"),
        (["sample", "--set", "meta.label_images=2"], "meta.label_images"),
        (["sample", "--set", "meta.grey=1.5"], "meta.grey"),
        (["sample", "--set", "meta.outer=mam"], "Did you mean 'maml'?"),
        (["sample", "--set", "meta.outer_betas=[0.9,1]"], "meta.outer_betas"),
        (["sample", "--set", "meta.task.ridge=0"], "meta.task.ridge"),
        (["sample", "--set", "features.norm=layer"], "norm"),
        (["sample", "--set", "held_out=1"], "held_out"),
        (["sample", "--set", "validate_every=0"], "validate_every"),
        (["sample", "--preset", "tpu"], "preset"),
        (["--resume", "x", "--iterations", "3"], "--resume takes every setting from the folder"),
    ],
)
def test_a_wrong_request_writes_nothing(words: list[str], said: str, tmp_path: Path) -> None:
    told = refused(2, "pretrain", *words, *(["--out", "meta"] if "--resume" not in words else []))
    assert said in told
    assert list(tmp_path.iterdir()) == []


def test_too_few_classes_write_nothing(tmp_path: Path) -> None:
    dataset = tiny.image_folder(tmp_path / "clothes")
    assert "3 classes of at least 6 images" in refused(1, "pretrain", dataset, "--out", "meta", *OPTIONS)
    assert not Path("meta").exists()


def test_info_of_a_pretraining_is_that_of_its_generator(folder: Path) -> None:
    said = json.loads(done("info", folder, "--json").stdout)
    assert (said["slots"], said["side"]) == (8, 16)


def test_a_folder_is_replaced_by_force_only_and_only_if_it_is_a_pretraining(folder: Path, tmp_path: Path) -> None:
    told = refused(1, "pretrain", "sample", "--out", folder, *OPTIONS)
    assert "ddtool pretrain --resume meta" in told
    assert "--force" in told
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    assert "not a pre-training" in refused(1, "pretrain", "sample", "--out", "mine", *OPTIONS, "--force")
    assert (tmp_path / "mine" / "thesis.txt").exists()
    (folder / "thesis.txt").write_text("years")
    assert "thesis.txt" in refused(1, "pretrain", "sample", "--out", folder, *OPTIONS, "--force")
    (folder / "thesis.txt").unlink()
    few = ["--iterations", 1, "--set", "validate_every=1"]
    done("pretrain", "sample", "--out", folder, *OPTIONS, *few, "--force", "-q")
    assert [row["iteration"] for row in Pretraining(folder).curve()] == [0, 1]
    assert "pictures/iteration-000005.png" not in tiny.listing(folder)


def test_a_pretraining_is_no_run_and_a_run_no_pretraining(folder: Path, tmp_path: Path) -> None:
    assert not is_run(folder)
    refused(1, "adapt", "--resume", folder)
    assert "No pre-training" in refused(1, "pretrain", "--resume", tmp_path / "nowhere")
    config = to_dict(configured())
    del config["datasets"]
    (folder / "config.json").write_text(json.dumps(config | {"dataset": "sample"}))
    assert is_run(folder)
    assert "No pre-training" in refused(1, "pretrain", "--resume", folder)


def test_other_data_than_at_the_start_is_refused(folder: Path) -> None:
    env = json.loads((folder / "env.json").read_text())
    env["datasets"][0]["content_hash"] = "other"
    (folder / "env.json").write_text(json.dumps(env))
    assert "The datasets have changed" in refused(1, "pretrain", "--resume", folder)


@pytest.mark.parametrize("name", ["checkpoints/pretrain.safetensors", "env.json"])
def test_a_damaged_file_is_named(name: str, folder: Path) -> None:
    for text in ("{", "[" * 10**5):
        (folder / name).write_text(text)
        assert Path(name).name in refused(1, "pretrain", "--resume", folder)


def test_settings_of_a_folder_are_checked_as_typed_ones_are(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["meta"]["ways"] = [9, 2]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"meta\.ways"):
        Pretraining.open(folder).config()


# --------------------------------------------------------------------------------------------------------- validation


def start(folder: str = "meta", report: Any = lambda event: None, **changes: Any) -> Pretraining:
    return pretrain.start(configured(**changes), Path(folder), tiny.ENGINE, report=report)


def test_classes_held_out_are_for_validation_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, set[str]] = {"train": set(), "validate": set()}
    draw, measure, phase = mgdd.draw_task, Validation.measure, ["train"]

    def watched(data: Any, *rest: Any) -> Any:
        seen[phase[-1]] |= set(data.class_names)
        return draw(data, *rest)

    def measured(self: Any) -> Any:
        phase.append("validate")
        try:
            return measure(self)
        finally:
            phase.pop()

    monkeypatch.setattr(mgdd, "draw_task", watched)
    monkeypatch.setattr(Validation, "measure", measured)
    run = start()
    pretrain.finish(run, tiny.ENGINE)
    held = set(json.loads((run.folder / "env.json").read_text())["datasets"][0]["held_out"])
    assert seen["validate"] == held
    assert len(held) == 2
    assert len(seen["train"]) == 8
    assert not seen["train"] & held


def figures(monkeypatch: pytest.MonkeyPatch, values: list[tuple[float, float]]) -> list[bytes]:
    """Let each validation find the next (loss after, accuracy); returns where the weights judged will be kept."""
    measure, weights, left = Validation.measure, [], iter(values)

    def measured(self: Any) -> Any:
        weights.append(b"".join(p.detach().numpy().tobytes() for p in self.g.parameters()))
        after, accuracy = next(left)
        return [1.0, after, accuracy], measure(self)[1]

    monkeypatch.setattr(Validation, "measure", measured)
    return weights


@pytest.mark.parametrize(
    ("values", "best"),
    [
        ([(0.1, 90.0), (0.5, 50.0), (0.4, 60.0), (0.3, 59.9)], 2),  # what was not trained does not count
        ([(0.9, 10.0), (0.5, 60.0), (0.4, 60.0), (0.3, 41.0)], 2),  # accuracy decides, the loss breaks ties
        pytest.param([(0.9, 10.0), (0.5, 60.0), (0.6, 60.0), (0.3, 61.0)], 3, marks=pytest.mark.slow),
        pytest.param([(0.9, 10.0), (0.5, 60.0), (0.6, 60.0), (0.3, 41.0)], 1, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_the_best_by_validation_is_kept(
    values: list[tuple[float, float]], best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = figures(monkeypatch, values)
    run = start(meta=SETTINGS["meta"] | {"meta_batch": 1})
    pretrain.finish(run, tiny.ENGINE)
    kept = Generator.load(run.generator)
    assert b"".join(p.detach().numpy().tobytes() for p in kept.parameters()) == weights[best]
    account = json.loads((run.generator / "pretraining.json").read_text())
    assert account["weights_of_iteration"] == [0, 2, 4, 5][best]
    assert account["iterations"] == 5
    assert [(row["loss after"], row["accuracy"]) for row in account["curve"]] == values


def test_a_validation_that_is_not_finite_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    figures(monkeypatch, [(0.9, 10.0), (float("nan"), 10.0)])
    run = start(meta=SETTINGS["meta"] | {"meta_batch": 1})
    with pytest.raises(DivergedError, match="validation at iteration 2"):
        pretrain.finish(run, tiny.ENGINE)
    assert [row["iteration"] for row in run.curve()] == [0]


def test_validation_changes_nothing(made: tuple[Path, Any]) -> None:
    """Twice as many validations, the same weights."""
    run = start(validate_every=1)
    pretrain.finish(run, tiny.ENGINE)
    ours, other = state(run.folder), state(made[0])
    assert [name for name in other if not torch.equal(ours[name], other[name])] == []
    assert [row for row in without_clock(run.folder) if row["iteration"] in (0, 2, 4, 5)] == without_clock(made[0])


def test_validation_measures_what_it_says(engine: Engine, tmp_path: Path) -> None:
    """Classes that are easy to tell: accuracy far above chance, and adaptation lowers the loss of an ω that is far off."""
    large = LargeSet.of(toy_images(60, 5, classes=8), 4, 10, 0)
    meta = {
        "ipc": [2, 2],
        "inner_steps": 10,
        "task": {"lr": 3e-3, "real_batch": 32, "flip": False, "augmented_copies": 0},
    }
    more = {"validate_tasks": 2, "validate_steps": 20, "features": {"width": 64}}
    config = configured(held_out=4, meta=SETTINGS["meta"] | meta, **more)
    g = engine.place(Generator.build(GeneratorConfig(8, 16), 0))
    with torch.no_grad():
        g.values.normal_(0, 0.1, generator=torch.Generator().manual_seed(0))
    features = pretrain.feature_networks(config, [large], engine)
    judge = Validation(Pretraining(tmp_path), config, g, features, [large], engine, ALONE, lambda event: None)
    before = [p.clone() for p in g.parameters()]
    (loss_before, loss_after, accuracy), pictures = judge.measure()
    assert all(torch.equal(a, b) for a, b in zip(before, g.parameters(), strict=True))
    assert loss_after < 0.97 * loss_before
    assert 50 < accuracy <= 100  # of 4 classes
    assert judge.measure()[0] == [loss_before, loss_after, accuracy]
    assert list(pictures) == ["initial", "generated", "adapted"]
    real = large.data.images[torch.isin(large.data.labels, torch.tensor(large.held))]
    shown = pictures["initial"].images.mul(255).round().to(torch.uint8)
    assert all((image == real).flatten(1).all(1).any() for image in shown)
    assert not torch.equal(pictures["generated"].images, pictures["adapted"].images)


def test_real_images_that_judge_are_not_those_adapted_to(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = LargeSet.of(toy_images(60, 5, classes=8), 4, 10, 0)
    config = configured(held_out=4)
    config = replace(config, meta=replace(config.meta, whitening="none"))
    features = pretrain.feature_networks(config, [large], engine)
    g = engine.place(Generator.build(GeneratorConfig(8, 16), 0))
    fitted: list[torch.Tensor] = []
    draw, solve, judged = mgdd.draw_task, mgdd.analytical_labels, []
    monkeypatch.setattr(mgdd, "draw_task", lambda data, *rest: fitted.append(data.images) or draw(data, *rest))
    judge = Validation(Pretraining(tmp_path), config, g, features, [large], engine, ALONE, lambda event: None)
    monkeypatch.setattr(mgdd, "analytical_labels", lambda f, W, X: judged.append(X) or solve(f, W, X))
    judge.measure_task(0)
    fit = fitted[0].float().div(255)
    held = (
        judged[-1] * torch.tensor(large.data.std).view(3, 1, 1) + torch.tensor(large.data.mean).view(3, 1, 1)
    ).float()
    assert (len(fit), len(held)) == (80, 20)
    nearest = torch.cdist(held.flatten(1).double(), fit.flatten(1).double()).min()
    assert nearest > 0.1


# ------------------------------------------------------------------------------------------------------- kill and resume


HOOK = """
import os, sys
from dataclasses import replace
from ddtool.methods import mgdd
from ddtool.pretraining import validation
validation.FIT = replace(validation.FIT, networks=2, real_batch=12)
rank, call, number = (int(sys.argv.pop(1)) for _ in range(3))
gradient, calls = mgdd.meta_gradient, []
def hooked(*arguments):
    calls.append(1)
    if len(calls) == call and int(os.environ.get("RANK", "0")) == rank:
        os.kill(os.getpid(), number)
    return gradient(*arguments)
mgdd.meta_gradient = hooked
from ddtool.__main__ import main
main()
"""
"""`ddtool` that sends its process of some rank a signal at some task."""


def test_kill_9_and_resume(made: tuple[Path, Any]) -> None:
    killed = forked(HOOK, 0, 11, 9, "pretrain", "sample", "--out", "my meta", *OPTIONS)
    assert killed.returncode == -9, killed.stderr
    assert int(state(Path("my meta"))["step"]) == 2
    with open("my meta/metrics.jsonl", "a") as file:
        file.write('{"phase": "validate", "step": 4, "tot')  # torn
    (Path("my meta") / ".generator.1.tmp").mkdir()
    result = done("pretrain", "--resume", "my meta", "--precision", "fp32")
    assert "Next: ddtool adapt DATASET --ipc 10 --generator 'my meta'" in result.stderr
    same_end(Path("my meta"), made[0])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_and_resume(
    number: int, code: int, made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch, signals: None
) -> None:
    gradient, calls = mgdd.meta_gradient, []

    def interrupted(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 8:
            os.kill(os.getpid(), number)
        return gradient(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(mgdd, "meta_gradient", interrupted)
        told = refused(code, "pretrain", "sample", "--out", "meta", *OPTIONS)
    assert len(calls) == 9  # the whole iteration
    hint = told.splitlines()[-1]
    assert hint.endswith("Go on: ddtool pretrain --resume meta --precision fp32")
    assert int(state(Path("meta"))["step"]) == 3
    done(*shlex.split(hint.partition("ddtool ")[2]))
    same_end(Path("meta"), made[0])


@pytest.mark.parametrize(
    ("moment", "at"),
    [
        ("preview", 0), ("append_event", 5),
        pytest.param("preview", 2, marks=pytest.mark.slow), pytest.param("append_event", 2, marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_kill_during_validation(
    moment: str, at: int, made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before or after its generator is kept; the validation is done again, once."""
    room = validation if moment == "preview" else pretrain_folder
    original = getattr(room, moment)

    def kill(*arguments: Any) -> None:
        validating = moment == "preview" or getattr(arguments[1], "phase", "") == "validate"
        if validating and f"iteration {at}" in f"{arguments[1]} iteration {getattr(arguments[1], 'step', '')}":
            raise KilledError
        original(*arguments)

    run = start()
    with monkeypatch.context() as patch:
        patch.setattr(room, moment, kill)
        with pytest.raises(KilledError):
            pretrain.finish(run, tiny.ENGINE)
    assert int(state(run.folder)["step"]) == at
    assert at not in [row["iteration"] for row in run.curve()]
    pretrain.finish(run, tiny.ENGINE)
    same_end(run.folder, made[0])


def test_an_older_checkpoint_brings_back_its_own_time(made: tuple[Path, Any]) -> None:
    """Rows after it go, seconds go on from its own."""
    run = start()
    checkpoint = run.folder / "checkpoints" / "pretrain.safetensors"
    kept: list[bytes] = []

    def keep(event: Event) -> None:
        if getattr(event, "phase", "") == "validate" and not kept and event.step == 2:
            kept.append(checkpoint.read_bytes())

    pretrain.finish(run, tiny.ENGINE, report=keep)
    checkpoint.write_bytes(kept[0])
    run.rewind(2)
    assert [row["iteration"] for row in run.curve()] == [0, 2]
    pretrain.finish(run, tiny.ENGINE)
    same_end(run.folder, made[0])


# ----------------------------------------------------------------------------------------------------- several processes


def launch(words: list[Any], hook: tuple[int, int, int] = (0, 0, 0), world: int = 2) -> list[tuple[int, str, str]]:
    """`world` processes over gloo: exit code, stdout and stderr of each."""
    return launched(HOOK, *hook, "pretrain", *words, "--precision", "fp32", world=world)


def test_two_processes_are_one(made: tuple[Path, Any]) -> None:
    """One is killed, then one is interrupted; what both did together is what one does alone, but for rounding."""
    meta = Path("meta")
    main, other = launch(["sample", "--out", meta, *OPTIONS], (1, 4, 9))
    assert other[0] == -9
    assert main[0] == 1
    assert "have lost each other" in main[2]
    assert "--resume" in main[2]
    assert "Traceback" not in main[2]
    assert int(state(meta)["step"]) == 2  # whole
    assert [row["iteration"] for row in Pretraining(meta).curve()] == [0, 2]

    main, other = launch(["--resume", meta], (1, 3, 2))  # in the last iteration, the one without the files is asked
    assert (main[0], other[0]) == (130, 130), main[2] + other[2]
    assert "by the same launcher: ddtool pretrain --resume meta --precision fp32" in main[2]
    assert other[1:] == ("", "")
    assert int(state(meta)["step"]) == 5

    same_but_for_rounding(made[0], meta)
    done("pretrain", "--resume", meta, "--precision", "fp32", "-q")  # one process may end what two began
    assert tiny.listing(meta) == sorted(LAYOUT)


def same_but_for_rounding(one: Path, other: Path) -> None:
    """Two pre-trainings have gone the same way."""
    alone, together = state(one), state(other)
    names = [name for name in alone if name.startswith("tensor.")]
    first, second = (torch.cat([kept[name].flatten() for name in names]) for kept in (alone, together))
    fresh = Generator.build(GeneratorConfig(8, 16), 0).state_dict()
    start = torch.cat([fresh[name.removeprefix("tensor.")].flatten() for name in names])
    assert (first - second).norm() < 0.02 * (first - start).norm()


@pytest.mark.slow
def test_four_processes_are_one() -> None:
    """One of them is lost in the third iteration; four others go on from the last checkpoint."""
    words = ["sample", *OPTIONS, "--meta-batch", 4, "--iterations", 4]
    done("pretrain", *words, "--out", "alone", "-q")
    said = launch([*words, "--out", "four"], (3, 3, 9), world=4)
    assert [code for code, _, _ in said] == [1, 1, 1, -9]
    assert "have lost each other" in said[0][2]
    assert "Traceback" not in said[0][2]
    said = launch(["--resume", "four"], world=4)
    assert [code for code, _, _ in said] == [0] * 4, said
    assert int(state(Path("four"))["step"]) == 4
    same_but_for_rounding(Path("alone"), Path("four"))


def test_each_task_is_one_processs() -> None:
    shares = [list(Ranks(rank, 3).share(8)) for rank in range(3)]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert list(ALONE.share(3)) == [0, 1, 2]


def test_a_processs_own_gpu_keeps_the_settings_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[object, ...]] = []

    def choose(device: str, precision: str, compile_networks: bool, memory: int) -> Engine:
        made.append((device, precision, compile_networks, memory))
        return Engine(torch.device(device), precision == "bf16", compile_networks, memory=memory)

    monkeypatch.setattr(Engine, "choose", choose)
    monkeypatch.setattr(distributed, "gpu_count", lambda: 2)
    asked = Engine(torch.device("cuda"), True, True, compilation=Compilation(print), memory=7 * 2**30)
    own = Ranks(3, 4, 1).engine(asked)
    assert made == [("cuda:1", "bf16", True, 7 * 2**30)]
    assert own == replace(asked, device=torch.device("cuda:1"))
    assert Ranks().engine(asked) is asked


def test_more_processes_than_tasks_are_refused() -> None:
    with pytest.raises(UsageError, match="4 processes for 3 tasks"):
        pretrain.start(configured(), Path("meta"), tiny.ENGINE, Ranks(0, 4))


@pytest.mark.parametrize("place", [{"RANK": "x"}, {"RANK": "2", "WORLD_SIZE": "2"}, {"WORLD_SIZE": "0"}])
def test_a_nonsensical_launcher_is_named(place: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in place.items():
        monkeypatch.setenv(name, value)
    assert "WORLD_SIZE" in refused(2, "pretrain", "sample", "--out", "meta")


def test_several_processes_need_a_name_for_their_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--out" in refused(2, "pretrain", "sample")


# ------------------------------------------------------------------------------------------------ datasets, grey, dry run


def test_several_datasets(tmp_path: Path) -> None:
    clothes = tiny.image_folder(tmp_path / "clothes", ("boot", "coat", "dress", "bag"), side=28)
    both = pretrain.load_sets(configured(datasets=["sample", str(clothes)]), lambda event: None)
    assert [(len(large.train), len(large.held)) for large in both] == [(8, 2), (2, 2)]
    small = tiny.image_folder(tmp_path / "small", ("boot", "coat", "dress", "bag"), side=16)
    told = refused(2, "pretrain", "sample", small, "--out", "meta", *OPTIONS)
    assert "sample has 28x28" in told
    assert "16x16" in told
    assert "--resolution" in told
    words = ["--resolution", 16, "--iterations", 1, "--set", "validate_every=1", "--set", "meta.ways=[2,3]", "-q"]
    done("pretrain", "sample", small, "--out", "meta", *OPTIONS, *words)
    account = json.loads(Path("meta/generator/pretraining.json").read_text())
    assert [d["name"] for d in account["datasets"]] == ["sample", "small"]
    assert all(d["image"] == [1, 16, 16] for d in account["datasets"])


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="needs /proc")
def test_rows_of_a_large_set_are_read_without_those_around_them() -> None:
    (large,) = pretrain.load_sets(configured(), lambda event: None)
    assert large.data.shape == (1, 28, 28)
    maps = Path("/proc/self/smaps").read_text().split("VmFlags:")
    flags = [after.split("\n")[0].split() for before, after in itertools.pairwise(maps) if "train-im" in before]
    assert any("rr" in found for found in flags)  # MADV_RANDOM


def test_colour_and_grey_tasks_share_a_generator(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    large = LargeSet.of(toy_images(20, 5, classes=8), 2, 6, 0)
    meta = SETTINGS["meta"] | {
        "iterations": 4,
        "grey": 0.5,
        "task": {"real_batch": 12, "flip": False, "augmented_copies": 1},
    }
    config = configured(meta=meta)
    features, shapes = pretrain.feature_networks(config, [large], engine), []
    draw = mgdd.draw_task
    monkeypatch.setattr(mgdd, "draw_task", lambda data, *rest: shapes.append(data.shape) or draw(data, *rest))
    g = engine.place(Generator.build(GeneratorConfig(8, 16), 0))
    before = g.values.clone()
    mgdd.meta_train(g, features, task_source([large], config.meta, engine.device), config.meta, engine, 0)
    assert set(shapes) == {(1, 16, 16), (3, 16, 16)}
    assert len(shapes) == 12
    assert not torch.equal(g.values, before)


def test_a_dry_run_writes_nothing_and_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    clothes = tiny.image_folder(tmp_path / "clothes", ("boot", "coat", "dress", "bag"))
    before = tiny.listing(tmp_path)
    words = ["pretrain", clothes, "--out", "meta", *OPTIONS, "--set", "meta.ways=[2,2]", "--dry-run", "--json"]
    plan = json.loads(done(*words).stdout)
    assert tiny.listing(tmp_path) == before
    assert plan["datasets"] == [
        {"name": "clothes", "train": 32, "classes": 4, "image": [1, 16, 16], "cached": False, "cache_mb": 0}
    ]
    assert plan["tasks"] == 15
    assert plan["seconds_an_iteration"] > 0
    assert plan["hours"] >= 0
    assert plan["memory_mib"] > 10
    assert plan["config"]["meta"]["ways"] == [2, 2]
    assert done(*words[:-1], "-q").stdout == "meta\n"
    sources.load(str(clothes))
    assert json.loads(done(*words).stdout)["datasets"][0]["cached"]
    assert not Path("meta").exists()


def test_the_hub_tells_sizes_before_anything_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    """ImageNet's own figures; reading it would fail here."""
    import datasets

    splits = {"train": 1_281_167, "validation": 50_000, "test": 100_000}
    info = SimpleNamespace(
        splits={name: SimpleNamespace(num_examples=n) for name, n in splits.items()},
        features=datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(num_classes=1000)}),
    )
    monkeypatch.setattr(sources.tables, "hub_builder", lambda origin: SimpleNamespace(info=info))
    origin = Origin("hub", "timm/imagenet-1k-wds", "c0ffee", None)
    monkeypatch.setattr(sources.names, "resolve", lambda *arguments: origin)
    options = sources.DataOptions(resolution=64)
    look = sources.inspect("timm/imagenet-1k-wds", options)
    assert (look.train, look.classes, look.shape, look.cached) == (1_281_167, 1000, (3, 64, 64), False)
    assert look.cache_bytes == (1_281_167 + 100_000) * 3 * 64 * 64  # 17 GB
    assert sources.inspect("timm/imagenet-1k-wds").cache_bytes is None
    info.splits = None
    assert sources.inspect("timm/imagenet-1k-wds", options).images is None


def test_a_plan_without_sizes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "inspect", lambda *a, **k: sources.Outlook(None, None, None, None, False))
    plan = pretrain.plan(configured("some/dataset"), tiny.ENGINE)
    assert (plan["cache_mb"], plan["seconds_an_iteration"], plan["hours"]) == (None, None, None)
    assert plan["tasks"] == 15


def test_more_validation_takes_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An iteration of a hundred seconds: 3 tasks of 2 + 1 losses and gradients."""
    monkeypatch.setattr(pretrain, "trial", lambda meta, *rest: 90.0 * meta.meta_batch / 3)
    meta = SETTINGS["meta"] | {"iterations": 8}
    plan = pretrain.plan(configured(meta=meta), tiny.ENGINE)  # validations at 0, 2, 4, 6, 8, of 2 + 3 steps of 10 s
    assert plan["hours"] == pytest.approx((8 * 90 + 5 * 5 * 10) / 3600, abs=0.01)
    shared = pretrain.plan(configured(meta=meta | {"meta_batch": 6}), tiny.ENGINE, Ranks(0, 2))
    assert shared["seconds_an_iteration"] == 90.0


def test_left_out_classes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[Event] = []
    data = toy_images(8, 0, classes=6)
    keep = (data.labels != 3) | (torch.cumsum(data.labels == 3, 0) <= 5)
    fewer = replace(data, images=data.images[keep], labels=data.labels[keep])
    monkeypatch.setattr(sources, "load", lambda *a, **k: SimpleNamespace(train=fewer))
    (large,) = pretrain.load_sets(configured(), events.append)
    assert events == [Note("1 of 6 classes of toy hold fewer than 6 images: left out.")]
    assert 3 not in large.train + large.held


def test_defaults_are_usable() -> None:
    config = replace(PretrainConfig(), datasets=("sample",))
    pretrain.check_config(config)
    assert config.meta == MetaConfig()
    for device in ("cpu", "cuda"):
        engine = Engine(torch.device(device), bf16=False)
        pretrain.check_config(pretrain.resolve(engine, "auto", {"datasets": ["sample"]}))
