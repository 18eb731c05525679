"""Runs of other methods than MGDD, as a user types them: files, resuming, budgets in seconds, sets of several images in one."""

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from method_case import ENGINE
from safetensors import safe_open
from tiny import done, refused
from torch import Tensor

from ddtool import api, methods
from ddtool.config import Count, NotNegative, RunConfig, checked, to_dict
from ddtool.data.images import ImageData, SyntheticSet, draw_pool, real_images
from ddtool.data.parts import decode
from ddtool.errors import RunError, UsageError
from ddtool.evaluation import measure as evaluation
from ddtool.events import Event, Step
from ddtool.methods import Method, Record, Settings, Task, mgdd
from ddtool.pipeline import finish, plan, target
from ddtool.pipeline.distil import ExpertStore
from ddtool.pipeline.scoring import load_target
from ddtool.runs.formats import read_set, read_tensors, write_set, write_tensors
from ddtool.runs.run import Run
from ddtool.runtime.signals import Interrupted

SCORED = ["--precision", "fp32", "--set", "evaluate.kernel_ridge=false"]


@checked
class MeansSettings(Settings):
    """Of `Means`."""

    steps: Count = 5
    """Updates."""
    lr: NotNegative = 0.5
    """Of the pixels."""


class Means(Method):
    """Pixels pulled to the mean of some real images of their class: the least that learns."""

    record = Record(name="means", title="Means (Nobody, 2026)", settings=MeansSettings)

    def __init__(self, task: Task, settings: Any, rng: torch.Generator) -> None:
        super().__init__(task, settings, rng)
        self.X = self.initial_images()
        self.optimiser = torch.optim.SGD([self.X], settings.lr)

    def gradient(self, step: int) -> Tensor:
        real, _ = self.task.real.batch(3 * self.task.num_classes, self.rng)  # by class
        mean = real.view(self.task.num_classes, 3, *real.shape[1:]).mean(1)
        loss = (self.X - mean[self.task.classes()]).square().sum()
        (self.X.grad,) = torch.autograd.grad(loss, [self.X])
        return loss.detach()

    def tensors(self) -> dict[str, Tensor]:
        return {"X": self.X}

    def facts(self) -> dict[str, Any]:
        return {"batch": 3}


class Quarters(Means):
    """The same, with four images in each."""

    record = replace(Means.record, name="quarters", title="Quarters (Nobody, 2026)", factor=2)


def register(patch: pytest.MonkeyPatch) -> None:
    for method in (Means, Quarters):
        patch.setitem(methods.METHODS, method.record.name, method)


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
    monkeypatch.chdir(tmp_path)
    tiny.shorten_protocols(monkeypatch)
    register(monkeypatch)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """3 classes of 8 training and 4 test images, 1x16x16."""
    return tiny.image_folder(tmp_path_factory.mktemp("tiny") / "clothes")


@pytest.fixture(scope="module")
def made(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, Any]]]:
    """`ddtool adapt DATASET --method means --ipc 1 --ipc 2 --json`: the run, not to be changed, and what was said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTOOL_CACHE", str(tmp_path_factory.getbasetemp() / "decoded"))
        tiny.shorten_protocols(patch)
        register(patch)
        folder = tmp_path_factory.mktemp("made") / "run"
        words = [
            "adapt",
            dataset,
            "--method",
            "means",
            "--ipc",
            1,
            "--ipc",
            2,
            "--steps",
            4,
            "--set",
            "baseline.lr=0.25",
        ]
        result = done(*words, "--out", folder, "--precision", "fp32", "--json")
    before = {name: (folder / name).read_bytes() for name in tiny.listing(folder)}
    yield folder, json.loads(result.stdout)
    assert {name: (folder / name).read_bytes() for name in tiny.listing(folder)} == before


@pytest.fixture
def run(made: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of the finished run, at run/ in the current folder."""
    shutil.copytree(made[0], tmp_path / "run")
    return Path("run")


def press_at(phase: str, step: int) -> Any:
    """A listener that presses Ctrl-C at a step of a phase."""

    def listen(event: Event) -> None:
        if isinstance(event, Step) and (event.phase, event.step) == (phase, step):
            os.kill(os.getpid(), 2)

    return listen


# ---------------------------------------------------------------------------------------------------- what a run holds


def test_a_run_holds_sets_and_no_generator(made: tuple[Path, dict[str, Any]]) -> None:
    run, said = made
    sets = [f"synthetic/ipc{n}/{file}" for n in (1, 2) for file in ("exact.safetensors", "train.parquet")]
    others = ["config.json", "env.json", "metrics.jsonl", "preview.png", "report.html", "results.json"]
    assert tiny.listing(run) == sorted([*sets, *others, *(f"stages/ipc{n}-initial.safetensors" for n in (1, 2))])
    assert said["ipc"] == [1, 2]
    scored = {(s["method"], s["stage"], s["ipc"], s["protocol"]) for s in said["scores"]}
    protocols = ("kernel-ridge", "quick")
    what = (("means", "distilled"), ("random", "random"))
    assert scored == {(*pair, n, protocol) for pair in what for n in (1, 2) for protocol in protocols}
    spent = said["facts"]["spent"]
    assert {ipc: part["steps"] for ipc, part in spent.items()} == {"ipc1": 4, "ipc2": 4}
    assert said["facts"]["means ipc2"] == {"batch": 3}
    for n in (1, 2):
        found = said["facts"][f"nearest_real ipc{n}"]
        assert 0 < found["least"] <= found["median"] < 255
    assert said["facts"]["finished"] is True


def test_the_set_is_what_the_method_made_of_the_initial_one(made: tuple[Path, Any]) -> None:
    run = Run(made[0])
    initial, final = run.load_set(2, "initial"), run.load_set(2)
    assert (final.method, final.stage, final.label_method, final.factor) == ("means", "distilled", "hard", 1)
    assert (initial.method, initial.stage) == ("means", "initial")
    assert torch.equal(initial.labels, final.labels)
    assert torch.equal(final.labels, 4 * (torch.eye(3)[final.hard] - 1 / 3))
    spread = [one.images.view(2, 3, -1).std(0).mean() for one in (initial, final)]
    assert spread[1] < 0.9 * spread[0]  # both images of a class are nearer to its mean


@pytest.mark.parametrize("method", ["random", "herding"])
def test_a_selection_is_of_real_images(method: str, dataset: Path) -> None:
    words = ["--method", method, "--ipc", 2, "--set", "baseline.width=8", "--set", "evaluate.baseline=false"]
    done("adapt", dataset, *words, "--out", "run", *SCORED)
    run = Run(Path("run"))
    train = load_target(run.config(), lambda event: None).train
    final, real = run.load_set(2), {image.numpy().tobytes() for image in train.images}
    images = [image.numpy().tobytes() for image in final.pixels()]
    assert set(images) <= real
    assert len(set(images)) == 6
    first = real_images(train, draw_pool(train, 2, 0), True).images
    assert torch.equal(final.images, first) == (method == "random")
    assert run.results()["facts"]["spent"]["ipc2"]["steps"] == 0
    assert [(s["method"], s["stage"], s["protocol"]) for s in run.results()["scores"]] == [
        (method, "distilled", "quick")
    ]


def test_info_is_readable(run: Path) -> None:
    shown = done("info", run)
    assert "spent on IPC 2" in shown.stdout
    assert "4 steps in" in shown.stdout
    assert "target" not in shown.stdout
    assert "{" not in shown.stdout
    assert "ddtool evaluate run" in shown.stderr
    assert json.loads(done("info", run, "--json").stdout)["method"] == "means"


def test_the_picture_names_the_method(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[list[str]] = []
    monkeypatch.setattr(finish, "preview", lambda stages, *rest: drawn.append(list(stages)))
    finish.draw_preview(Run(run), 2)
    finish.draw_preview(Run(run), 2, real=False)
    monkeypatch.setattr(Means, "record", replace(Means.record, learns=False))
    finish.draw_preview(Run(run), 2)
    assert drawn == [["initial", "means"], ["means"], ["means"]]


# ------------------------------------------------------------------------------------------------------------ resuming


@pytest.mark.parametrize("step", [2, 4])
def test_ctrl_c_and_resume_give_the_same_bytes(step: int, dataset: Path, made: tuple[Path, Any], signals: None) -> None:
    options: dict[str, Any] = {
        "method": "means",
        "generator": "bundled",
        "settings": {"baseline": {"steps": 4, "lr": 0.25}},
    }
    with pytest.raises(Interrupted):
        tiny.adapt(dataset, Path("run"), press_at("distil ipc2", step), ipc=[1, 2], **options)
    assert "checkpoints/distil-ipc2.safetensors" in tiny.listing(Path("run"))
    assert "finished" not in Run(Path("run")).results()["facts"]
    done("adapt", "--resume", "run", "--precision", "fp32")
    assert tiny.all_bytes(Path("run")) == tiny.all_bytes(made[0])
    assert tiny.listing(Path("run")) == tiny.listing(made[0])
    assert Run(Path("run")).results()["facts"]["spent"]["ipc2"]["steps"] == 4


def test_a_finished_run_is_resumed_without_a_change(run: Path) -> None:
    before = tiny.all_bytes(run)
    scores = Run(run).results()["scores"]
    done("adapt", "--resume", run, "--precision", "fp32")
    assert (tiny.all_bytes(run), Run(run).results()["scores"]) == (before, scores)


def test_a_set_that_is_made_again_is_scored_again(run: Path) -> None:
    """With a budget in seconds it is another one."""
    results = Run(run).results()
    measured = [score["mean"] for score in results["scores"]]
    stale = [score | {"mean": 1.25} for score in results["scores"]]
    Run(run).write_json("results.json", results | {"scores": stale})
    shutil.rmtree(run / "synthetic")
    done("adapt", "--resume", run, "--precision", "fp32")
    assert [score["mean"] for score in Run(run).results()["scores"] if score["stage"] != "random"] == [
        mean for mean, score in zip(measured, stale, strict=True) if score["stage"] != "random"
    ]


def test_changed_data_is_refused(dataset: Path, tmp_path: Path) -> None:
    mine = shutil.copytree(dataset, tmp_path / "mine")
    done("adapt", mine, "--method", "random", "--ipc", 1, "--out", "run", "--no-evaluate")
    shutil.rmtree("run/synthetic")
    (mine / "train" / "boot" / "1.png").write_bytes((mine / "train" / "coat" / "0.png").read_bytes())
    assert "The dataset has changed since run was started" in refused(1, "adapt", "--resume", "run")
    with pytest.raises(RunError, match="has changed"):
        api.resume("run", engine=ENGINE)


def test_other_files_with_the_same_statistics_are_said(dataset: Path, tmp_path: Path) -> None:
    """Two images that change places leave mean and deviation as they are."""
    mine = shutil.copytree(dataset, tmp_path / "mine")
    done("adapt", mine, "--method", "random", "--ipc", 1, "--out", "run", "--no-evaluate")
    shutil.rmtree("run/synthetic")
    assert "Files of the dataset have changed" not in done("adapt", "--resume", "run").stderr
    shutil.rmtree("run/synthetic")
    a, b = mine / "train" / "boot" / "0.png", mine / "train" / "coat" / "0.png"
    a.write_bytes(b.read_bytes())
    b.write_bytes((dataset / "train" / "boot" / "0.png").read_bytes())
    assert "Files of the dataset have changed since run was started." in done("adapt", "--resume", "run").stderr


# ----------------------------------------------------------------------------------------------------- what is refused


def test_the_whole_configuration_of_a_run_may_be_given_for_another_method() -> None:
    """It has a value for every setting, also one of an earlier version that lacks sections of today; a person's own has not."""
    whole = to_dict(RunConfig())
    for left_out in ((), ("whitening", "fit", "measured")):
        plan.check_given("dm", {name: value for name, value in whole.items() if name not in left_out})
    with pytest.raises(UsageError, match=r"'adapt\.steps' is MGDD's"):
        plan.check_given("dm", {"adapt": {"steps": 3}, "seed": 1, "features": {}})


def test_a_dry_run_names_the_files_and_writes_none(dataset: Path) -> None:
    plan = json.loads(done("adapt", dataset, "--method", "means", "--ipc", 2, "--dry-run", "--json").stdout)
    assert "synthetic/ipc2/exact.safetensors" in plan["files"]
    assert not [name for name in plan["files"] if "generat" in name or "pool" in name]
    assert plan["config"]["method"] == "means"
    assert plan["memory_mib"] >= 0
    assert tiny.listing(Path()) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method", "herdin"], "Unknown method 'herdin'"),
        (["--method", "means", "--generator", "scratch"], "--generator and --refine-steps are MGDD's"),
        (["--method", "means", "--refine-steps", 0], "--generator and --refine-steps are MGDD's"),
        (["--method", "means", "--set", "baseline.lr=-1"], "'baseline.lr' must be at least 0"),
        (["--method", "means", "--set", "baseline.speed=1"], "'baseline.speed'"),
        (["--method", "means", "--set", "adapt.steps=5"], "--set baseline.steps=5"),
        (["--method", "means", "--set", "features.norm=batch"], "'features.norm' is MGDD's"),
        (["--method", "means", "--set", "generator=scratch"], "'generator' is MGDD's"),
        (["--method", "means", "--set", "adapt_share=0.5"], "'adapt_share' is MGDD's"),
        (["--set", "baseline.lr=1"], "'baseline' are those of other methods"),
        (["--seconds", 5, "--ipc", 1], "A budget in seconds is for one set"),
        (["--method", "means", "--seconds", 5, "--ipc", 1], "A budget in seconds is for one set"),
        (["--seconds", 0], "'seconds' must be positive"),
        (["--method", "random", "--ipc", 99], "more than class"),
    ],
)
def test_a_wrong_request_is_explained_and_leaves_nothing(words: list[Any], said: str, dataset: Path) -> None:
    assert said in refused(2, "adapt", dataset, "--ipc", 2, "--out", "run", *words)
    assert tiny.listing(Path()) == []


def test_a_whole_configuration_repeats_the_run(run: Path, dataset: Path) -> None:
    """It holds MGDD's settings, too; beside it they are refused like everywhere."""
    done("adapt", "--config", run / "config.json", "--out", "again", "--precision", "fp32")
    assert tiny.all_bytes(Path("again")) == tiny.all_bytes(run)
    words = ["--config", run / "config.json", "--set", "refine.steps=5"]
    assert "--set baseline.steps=5" in refused(2, "adapt", *words, "--out", "third")
    with pytest.raises(UsageError, match=r"'labels.width' is MGDD's"):
        api.adapt(str(dataset), method="means", settings={"labels": {"width": 8}}, engine=ENGINE)


def test_generate_names_what_would_make_another_size(run: Path) -> None:
    stderr = refused(1, "generate", run, "--ipc", 5)
    assert "the method 'means', which has no generator" in stderr
    assert "ddtool adapt DATASET --method means --ipc 5" in stderr
    with pytest.raises(RunError, match="no generator"):
        api.generate(run, 5, engine=ENGINE)
    for words in (["--ipc", 5], ["--ipc", 2, "--stage", "generated"]):
        assert "ddtool generate" not in refused(1, "evaluate", run, *words)


# -------------------------------------------------------------------------------------------------- budgets in seconds


@pytest.mark.parametrize(
    ("words", "counted"),
    [
        (["--seconds", 5, "--steps", 5], "--steps"),
        (["--seconds", 5, "--steps", 0, "--refine-steps", 5], "--steps"),
        (["--seconds", 5, "--refine-steps", 5], "--refine-steps"),
        (["--method", "means", "--set", "seconds=5", "--steps", 5], "--steps"),
    ],
)
def test_a_budget_is_in_seconds_or_in_steps(words: list[Any], counted: str, dataset: Path) -> None:
    said = refused(2, "adapt", dataset, "--ipc", 1, "--out", "run", *words)
    assert f"takes the place of {counted}; one of them only" in said
    assert f"Leave {counted} out" in said
    assert tiny.listing(Path()) == []
    done("adapt", dataset, "--ipc", 1, "--seconds", 5, "--refine-steps", 0, "--dry-run", "--quiet")


@pytest.mark.parametrize(
    "words", [["--steps", 5], ["--seconds", 5], ["--set", "seconds=5"], ["--set", "baseline.steps=5"]]
)
def test_a_choice_of_real_images_takes_no_budget(words: list[Any], dataset: Path) -> None:
    said = refused(2, "adapt", dataset, "--ipc", 1, "--out", "run", "--method", "herding", *words)
    budget = "--seconds" if "seconds" in str(words) else "--steps"
    assert f"takes no steps: {budget} would have no effect" in said
    assert tiny.listing(Path()) == []


def test_a_budget_in_seconds_ends_a_method(dataset: Path) -> None:
    words = ["adapt", dataset, "--method", "means", "--ipc", 1, "--seconds", 0.2, "--set", "baseline.steps=1000000000"]
    done(*words, "--whiten", "none", "--out", "run", *SCORED, "--set", "evaluate.baseline=false")
    results = Run(Path("run")).results()
    spent, timings = results["facts"]["spent"]["ipc1"], results["timings"]
    assert 1 <= spent["steps"] < 10**8
    taken = timings["whitening"] + timings["distil ipc1"]
    assert spent["step_seconds"] + spent["overhead_seconds"] == pytest.approx(taken, abs=0.2)


def test_whitening_is_a_part_of_every_methods_seconds(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its trial and fit took is taken from the budget, and is overhead of the set; MGDD's budget has it as well."""
    asked: dict[str, float] = {}
    real = methods.distil

    def shortened(method: methods.Method, seconds: float, *arguments: Any) -> methods.Spent:
        asked["seconds"] = seconds
        return real(method, 0.05, *arguments)

    monkeypatch.setattr(methods, "distil", shortened)
    monkeypatch.setattr(target, "fitted_whitening", slowly(target.fitted_whitening))
    words = ["adapt", dataset, "--method", "means", "--ipc", 1, "--seconds", 1000, "--whiten", "dct"]
    done(*words, "--out", "run", *SCORED, "--set", "evaluate.baseline=false")
    results = Run(Path("run")).results()
    whitening = results["timings"]["whitening"]
    assert whitening >= 0.3
    assert asked["seconds"] == pytest.approx(1000 - whitening)
    assert results["facts"]["spent"]["ipc1"]["overhead_seconds"] == pytest.approx(whitening, abs=0.02)


def test_seconds_that_whitening_takes_up_are_said(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No step is left then, and the set is the real images that it begins with."""
    monkeypatch.setattr(target, "fitted_whitening", slowly(target.fitted_whitening))
    words = ["adapt", dataset, "--method", "means", "--ipc", 1, "--seconds", 0.25, "--whiten", "dct"]
    said = done(*words, "--out", "run", "--no-evaluate")
    assert "The 0.25 seconds were over before the first step: raise --seconds." in said.stderr
    assert Run(Path("run")).results()["facts"]["spent"]["ipc1"]["steps"] == 0


def slowly(work: Callable[..., Any]) -> Callable[..., Any]:
    """The same work, 0.3 s later."""

    def later(*arguments: Any) -> Any:
        time.sleep(0.3)
        return work(*arguments)

    return later


def test_mgdd_shares_its_seconds_out(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptation has a fifth of what the labels leave, refinement all that is left; the clocks here are shortened."""
    asked: dict[str, float] = {}
    timings: dict[str, dict[str, float]] = {}

    def shortened(name: str) -> None:
        real = getattr(mgdd, name)

        def work(*arguments: Any, seconds: float, **named: Any) -> Any:
            asked[name], timings[name] = seconds, Run(Path("run")).results()["timings"]
            return real(*arguments, seconds=0.05, **named)

        monkeypatch.setattr(mgdd, name, work)

    shortened("adapt")
    shortened("refine")
    settings = {**tiny.SETTINGS, "seconds": 1000, "adapt": {"steps": 10**9}, "refine": {"steps": 10**9}}
    run = tiny.adapt(dataset, Path("run"), settings=settings, ipc=1)
    assert asked["adapt"] == pytest.approx(0.2 * (1000 - sum(timings["adapt"].values())))
    around = ("whitening", "labels", "pool labels", "generate ipc1", "fit labels ipc1")
    assert set(timings["refine"]) == {"adapt", *around}
    assert asked["refine"] == pytest.approx(1000 - sum(timings["refine"].values()))
    results = run.results()
    spent, took = results["facts"]["spent"]["ipc1"], results["timings"]
    assert spent["steps"] == sum(run.steps()[phase] for phase in ("adapt", "refine ipc1"))
    assert spent["step_seconds"] == pytest.approx(took["adapt"] + took["refine ipc1"], abs=0.011)
    assert spent["overhead_seconds"] == pytest.approx(sum(took[phase] for phase in around), abs=0.011)


def test_mgdd_ends_by_the_clock(dataset: Path) -> None:
    done("adapt", dataset, "--ipc", 1, "--seconds", 0.5, "--out", "run", *tiny.UNCOUNTED, *SCORED)
    run = Run(Path("run"))
    assert run.load_set(1).stage == "refined"
    assert run.results()["facts"]["spent"]["ipc1"]["steps"] < 10**8


# ---------------------------------------------------------------------------------------------------- what is made once


def test_the_store_keeps_what_was_made_for_a_dataset(toy: ImageData, grey_toy: ImageData) -> None:
    store = ExpertStore(toy)
    assert store.load("experts") is None
    store.save("experts", {"w": torch.arange(3.0)})
    kept = ExpertStore(toy).load("experts")
    assert kept is not None
    assert torch.equal(kept["w"], torch.arange(3.0))
    assert ExpertStore(grey_toy).load("experts") is None
    assert ExpertStore(replace(toy, source={"name": "another"})).load("experts") is None
    assert store.folder.is_relative_to(os.environ["DDTOOL_CACHE"])
    (store.folder / "experts.safetensors").write_bytes(b"half a file")
    assert store.load("experts") is None
    store.save("experts", {"w": torch.zeros(1)})
    assert store.load("experts") == {"w": torch.zeros(1)}


# ------------------------------------------------------------------------------------------------ several images in one


@pytest.mark.parametrize(
    ("shape", "factor"), [((2, 3, 8, 8), 2), ((3, 1, 9, 12), 3), ((1, 3, 9, 9), 4), ((2, 1, 4, 4), 1)]
)
def test_decode_is_a_plain_loop(shape: tuple[int, ...], factor: int) -> None:
    images = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    edges = [[round_up(i * side, factor) for i in range(factor + 1)] for side in shape[2:]]
    expected = []
    for row in range(factor):
        for column in range(factor):
            for image in images:
                part = image[:, edges[0][row] : edges[0][row + 1], edges[1][column] : edges[1][column + 1]]
                expected.append(torch.nn.functional.interpolate(part[None], shape[2:], mode="bilinear")[0])
    assert torch.equal(decode(images, factor), torch.stack(expected))


def round_up(n: int, by: int) -> int:
    return -(-n // by)


def packed(toy: ImageData, factor: int = 2) -> SyntheticSet:
    """Real images of `toy`, each taken for factor x factor ones."""
    found = real_images(toy, draw_pool(toy, 2, 0), True, "random")
    return SyntheticSet(**{**vars(found), "factor": factor})


def test_a_decoded_set_is_one_of_more_images(toy: ImageData) -> None:
    small = packed(toy)
    whole = small.decoded()
    assert (whole.ipc, whole.factor, len(whole)) == (8, 1, 32)
    assert torch.equal(whole.images, decode(small.images, 2))
    assert torch.equal(whole.hard, torch.cat([small.hard] * 4))
    assert torch.equal(whole.labels.argmax(1), whole.hard)
    assert whole.decoded() is whole


def test_networks_are_trained_on_the_decoded_images(
    toy: ImageData, toy_test: ImageData, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[SyntheticSet] = []
    train = evaluation.train_network
    monkeypatch.setattr(evaluation, "train_network", lambda made, *rest: seen.append(made) or train(made, *rest))
    small = packed(toy)
    for score in (evaluation.train_and_test, evaluation.kernel_ridge):
        rest = ("quick",) if score is evaluation.train_and_test else ()
        ours, whole = (score(made, toy_test, *rest, ENGINE, seeds=1) for made in (small, small.decoded()))
        assert (ours.mean, ours.ipc, whole.ipc) == (whole.mean, 2, 8)
    assert [made.ipc for made in seen] == [8, 8]


def test_the_factor_is_kept_and_files_without_one_are_read(toy: ImageData, tmp_path: Path) -> None:
    path = tmp_path / "exact.safetensors"
    write_set(path, packed(toy))
    assert read_set(path).factor == 2
    tensors, info = read_tensors(path)
    del info["factor"]
    write_tensors(path, tensors, info)
    assert read_set(path).factor == 1


@pytest.mark.parametrize("factor", [0, 9, -1, True, 2.0, "2", None])
def test_a_factor_that_is_none_is_refused(factor: Any, toy: ImageData, tmp_path: Path) -> None:
    path = tmp_path / "exact.safetensors"
    write_set(path, packed(toy))
    tensors, info = read_tensors(path)
    write_tensors(path, tensors, info | {"factor": factor})
    with pytest.raises(RunError, match="'factor' is"):
        read_set(path)


def test_a_factor_of_more_images_than_pixels_is_refused(tmp_path: Path) -> None:
    small = SyntheticSet(
        torch.rand(2, 1, 4, 4), torch.rand(2, 2), torch.arange(2), 1, ("a", "b"), (0.5,), (0.5,), factor=5
    )
    write_set(tmp_path / "exact.safetensors", small)
    with pytest.raises(RunError, match="'factor' is 5"):
        read_set(tmp_path / "exact.safetensors")


def test_a_run_of_a_method_that_packs(dataset: Path) -> None:
    done("adapt", dataset, "--method", "quarters", "--ipc", 1, "--steps", 2, "--out", "run", *SCORED)
    with safe_open("run/synthetic/ipc1/exact.safetensors", framework="pt") as file:
        assert json.loads(file.metadata()["ddtool"])["factor"] == 2
    small = api.Run(Path("run")).load_set(1)
    assert (small.factor, small.decoded().ipc) == (2, 4)
    shown = done("evaluate", "run", "--protocol", "quick", "--eval-seeds", 1, "--no-baseline").stdout
    assert "quarters" in shown


def test_unknown_settings_are_named_from_python(dataset: Path) -> None:
    with pytest.raises(UsageError, match=r"'baseline\.speed'"):
        tiny.adapt(dataset, Path("run"), method="means", settings={"baseline": {"speed": 1}})
    assert not Path("run").exists()


def test_each_ipc_has_a_random_stream_of_its_own(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    streams: list[int] = []
    original = methods.make

    def spy(name: str, task: methods.Task, settings: Any, rng: torch.Generator) -> methods.Method:
        streams.append(rng.initial_seed())
        return original(name, task, settings, rng)

    monkeypatch.setattr(methods, "make", spy)
    settings = {"baseline": {"steps": 1, "width": 8}, "evaluate": {"enabled": False}}
    tiny.adapt(dataset, tmp_path / "run", ipc=[1, 2], generator="bundled", method="dm", settings=settings)
    assert len(set(streams)) == 2
