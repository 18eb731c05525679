"""Runs whose images are whitened: from the choice to the set, its scores, other sizes, other methods, resuming."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import SHIPPED_TRIAL
from method_case import TINY
from safetensors import safe_open
from safetensors.torch import save_file
from tiny import done, refused

from ddtool import api
from ddtool.config import RunConfig, WhiteningConfig
from ddtool.data.batches import Real
from ddtool.data.images import ImageData
from ddtool.errors import RunError
from ddtool.events import Note, Report, Step, silent
from ddtool.methods import mgdd
from ddtool.pipeline import scoring, target
from ddtool.pipeline.networks import load_labels
from ddtool.pipeline.session import Problem, Session
from ddtool.runs.formats import read_set
from ddtool.runs.run import Run
from ddtool.runtime.signals import Interrupted

DCT = {"whitening": {"kind": "dct"}}


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.image_folder(tmp_path_factory.mktemp("data") / "clothes")


def unkept(config: RunConfig, report: Report = silent) -> Session:
    """A session that writes nothing down."""
    return Session(config, Run(Path("nowhere")), tiny.ENGINE, report)


def made(dataset: Path, out: Path, **settings: Any) -> Run:
    return tiny.adapt(dataset, out, settings=tiny.SETTINGS | DCT | settings)


def test_every_stage_and_the_labels_hold_the_whitening(dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run")
    kept = run.load_label_head().whitening
    assert (kept.kind, kept.fitted_on) == ("dct", 24)
    for stage in ("initial", "generated", None):
        found = run.load_set(2, stage)
        assert found.whitening is not None
        assert torch.equal(found.whitening.matrix, kept.matrix)
        assert found.images.min() >= 0
        assert found.images.max() <= 1
    train = scoring.load_target(run.config(), silent).train
    fitted = target.fitted_whitening(unkept(RunConfig()), Real.of(train, tiny.ENGINE), "dct")
    assert torch.equal(fitted.matrix, kept.matrix)
    assert run.results()["facts"]["whitening"] == "dct"


def test_a_set_is_scored_as_it_is_loaded_and_as_it_is_when_that_is_overlooked(dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run")
    found = {(s["stage"], s["protocol"], s["pixels"], s["inputs"]) for s in run.results()["scores"]}
    assert found == {
        (stage, protocol, "8-bit", "as stated")
        for stage in ("random", "generated", "refined")
        for protocol in ("quick", "kernel-ridge")
    } | {("refined", "kernel-ridge", "exact", "as stated"), ("refined", "quick", "8-bit", "not whitened")}
    before = run.results()["scores"]
    api.resume(run.folder, engine=tiny.ENGINE)
    assert run.results()["scores"] == before  # nothing is measured twice


def test_evaluate_can_leave_out_rounding_or_whitening(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(dataset, tmp_path / "run")
    options: dict[str, Any] = {"protocol": "kernel-ridge", "baseline": False, "engine": tiny.ENGINE}
    usual, exact, plain = (
        api.evaluate(run, **options, **extra)[0] for extra in ({}, {"exact": True}, {"whiten": False})
    )
    assert [(s.pixels, s.inputs) for s in (usual, exact, plain)] == [
        ("8-bit", "as stated"), ("exact", "as stated"), ("8-bit", "not whitened"),
    ]  # fmt: skip
    bare = replace(run.load_set(2).rounded(), whitening=None)
    test = scoring.load_target(run.config(), silent).test()
    assert plain.mean == scoring.kernel_ridge(bare, test, tiny.ENGINE).mean
    monkeypatch.setenv("COLUMNS", "200")
    shown = done("evaluate", run.folder, "--no-whiten", "--protocol", "quick", "--no-baseline").stdout
    assert "refined, not whitened" in shown


def test_another_size_is_made_and_labelled_in_the_whitened_space(dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run")
    three = api.generate(run, 3, engine=tiny.ENGINE)
    assert three.whitening is not None
    assert torch.equal(three.images[:6], run.load_set(2, "generated").images)
    analytical = api.generate(run, 3, labels="analytical", engine=tiny.ENGINE, force=True)
    f, head = load_labels(run, tiny.ENGINE)
    initial = run.load_set(3, "initial")
    assert torch.allclose(
        initial.labels, mgdd.analytical_labels(f, head.W, initial.inputs) * initial.label_scale, atol=1e-4
    )
    assert analytical.label_method == "analytical"


def test_resuming_gives_the_same_bits(dataset: Path, tmp_path: Path) -> None:
    whole = made(dataset, tmp_path / "whole")

    def interrupt(event: Any) -> None:
        if isinstance(event, Step) and event.phase == "refine ipc2":
            raise Interrupted

    with pytest.raises(Interrupted):
        tiny.adapt(dataset, tmp_path / "part", report=interrupt, settings=tiny.SETTINGS | DCT)
    api.resume(tmp_path / "part", engine=tiny.ENGINE)
    assert tiny.all_bytes(tmp_path / "part") == tiny.all_bytes(whole.folder)


@pytest.mark.parametrize("method", ["random", "dm", "idc", "frepo", "mtt"])
def test_other_methods_are_whitened_alike(method: str, dataset: Path, tmp_path: Path) -> None:
    run = tiny.adapt(
        dataset, tmp_path / "run", method=method, generator="bundled", settings=DCT | {"baseline": {"steps": 2} | TINY[method]}
        if method != "random" else DCT,
    )  # fmt: skip
    found = run.load_set(2)
    assert found.whitening is not None
    assert found.whitening.kind == "dct"
    if method == "random":
        assert torch.equal(found.images, run.load_set(2, "initial").images)
    assert not run.has("checkpoints")


def test_a_method_goes_on_with_the_whitening_it_began_with(dataset: Path, tmp_path: Path) -> None:
    settings = DCT | {"baseline": {"steps": 4} | TINY["dm"]}
    whole = tiny.adapt(dataset, tmp_path / "whole", method="dm", generator="bundled", settings=settings)

    def interrupt(event: Any) -> None:
        if isinstance(event, Step) and event.phase == "distil ipc2":
            raise Interrupted

    with pytest.raises(Interrupted):
        tiny.adapt(dataset, tmp_path / "part", method="dm", generator="bundled", settings=settings, report=interrupt)
    run = Run(tmp_path / "part")
    assert run.has("checkpoints/whitening.safetensors")
    api.resume(run.folder, engine=tiny.ENGINE)
    assert tiny.all_bytes(tmp_path / "part") == tiny.all_bytes(whole.folder)


def test_a_whitening_that_is_lost_is_not_made_up(dataset: Path, tmp_path: Path) -> None:
    def interrupt(event: Any) -> None:
        if isinstance(event, Step) and event.phase == "distil ipc2":
            raise Interrupted

    settings = DCT | {"baseline": {"steps": 4} | TINY["dm"]}
    with pytest.raises(Interrupted):
        tiny.adapt(dataset, tmp_path / "run", method="dm", generator="bundled", settings=settings, report=interrupt)
    (tmp_path / "run" / "checkpoints" / "whitening.safetensors").unlink()
    with pytest.raises(RunError, match=r"whitening\.safetensors is missing"):
        api.resume(tmp_path / "run", engine=tiny.ENGINE)


# ------------------------------------------------------------------------------------------------------------- the choice


def waves(n: int, shape: tuple[int, int, int], hidden: bool) -> ImageData:
    """Three classes told apart by a fine pattern; with `hidden`, below a coarse shade that is a hundred times as strong."""
    rng = torch.Generator().manual_seed(0)
    labels = torch.arange(3).repeat(n)
    patterns = torch.randn(3, *shape, generator=rng)
    images = patterns[labels] + 0.5 * torch.randn(3 * n, *shape, generator=rng)
    if hidden:
        shade = torch.randn(3 * n, shape[0], 1, 1, generator=rng) * torch.linspace(-1, 1, shape[1])[:, None]
        images = 0.02 * images + shade + torch.randn(3 * n, 1, 1, 1, generator=rng)
    images = images.sub(images.min()).div(images.max() - images.min()).mul(255).round().to(torch.uint8)
    pixels = images.float() / 255
    return ImageData(
        images, labels, ("a", "b", "c"), (pixels.mean().item(),) * shape[0], (pixels.std().item(),) * shape[0]
    )


@pytest.mark.parametrize("hidden", [True, False])
def test_whitening_is_chosen_where_it_helps(hidden: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SHIPPED_TRIAL.items():
        monkeypatch.setattr(target, name, value)
    said: list[str] = []
    real = Real.of(waves(100, (3, 16, 16), hidden), tiny.ENGINE)

    def hear(event: Any) -> None:
        said.extend([event.text] * isinstance(event, Note))

    found = target.chosen_whitening(unkept(RunConfig(), hear), Problem(real, False))
    assert (found is not None) is hidden
    assert said[0].startswith(f"Whitening (dct) is {'on' if hidden else 'off'}: ")


@pytest.mark.parametrize(
    ("without", "with_it", "worth"),
    [
        (42.3, 45.2, True),
        (42.3, 43.2, False),
        (14.8, 15.7, True),
        (14.8, 15.1, False),
        (81.8, 81.5, False),
        (95, 95.9, False),
    ],
)
def test_a_small_gain_is_worth_more_where_there_are_many_classes(without: float, with_it: float, worth: bool) -> None:
    assert target.is_worth_it(without, with_it) is worth


def test_too_few_images_to_tell_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    real = Real.of(waves(1, (1, 16, 16), True).head(3), tiny.ENGINE)
    monkeypatch.setattr(target, "TRIAL_HELD_OUT", 3)
    real.data = replace(
        real.data, images=real.data.images.repeat(5, 1, 1, 1), labels=torch.tensor([0, 1, 2, *[0, 1] * 6])
    )
    for seed in range(20):
        session = unkept(RunConfig(seed=seed), lambda e: said.append(getattr(e, "text", "")))
        found = target.chosen_whitening(session, Problem(real, False))
        if "too few images" in said[-1]:
            assert found is None
            return
    raise AssertionError("In twenty draws the one image of a class was never held out.")


@pytest.mark.parametrize("kind", ["none", "dct", "zca"])
def test_what_is_asked_for_is_not_tried(kind: str, toy: ImageData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(target, "whitening_accuracy", None)
    real = Real.of(toy, tiny.ENGINE)
    found = target.chosen_whitening(unkept(RunConfig(whitening=WhiteningConfig(kind))), Problem(real, True))
    assert (found.kind if found else "none") == kind


def test_the_test_split_has_no_part_in_the_statistics(toy: ImageData) -> None:
    real = Real.of(toy, tiny.ENGINE)
    few = RunConfig(whitening=WhiteningConfig(images=10))
    assert target.fitted_whitening(unkept(few), real, "dct").fitted_on == 10
    first, second = (target.fitted_whitening(unkept(replace(few, seed=n)), real, "dct") for n in (0, 1))
    assert torch.equal(first.matrix, second.matrix)  # it belongs to the dataset, not to the run


def test_on_the_command_line(dataset: Path, tmp_path: Path) -> None:
    said = refused(2, "adapt", dataset, "--whiten", "dtc", "--out", tmp_path / "run", *tiny.OPTIONS)
    assert "must be" in said
    assert "dtc" in said
    assert "Did you mean 'dct'?" in said
    run = done("adapt", dataset, "--ipc", 1, "--whiten", "none", "--out", tmp_path / "run", *tiny.OPTIONS, "--json")
    assert json.loads(run.stdout)["scores"]
    assert Run(tmp_path / "run").load_set(1).whitening is None


# ------------------------------------------------------------------------------------------------------------- on the disk


Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda tensors, info: tensors.pop("whitening.mean"), "does not go with"),
        (lambda tensors, info: info.update(whitening=None), "unknown tensor 'whitening"),
        (lambda tensors, info: tensors["whitening.matrix"].zero_(), "cannot be inverted"),
        (lambda tensors, info: tensors.update({"whitening.mean": tensors["whitening.mean"].half()}), "other types"),
        (lambda tensors, info: info["whitening"].update(format=9), "another version"),
    ],
)
def test_a_damaged_whitening_is_refused(change: Change, said: str, dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run")
    path = run.set_path(2)
    with safe_open(path, framework="pt") as file:
        info = json.loads(file.metadata()["ddtool"])
        tensors = {name: file.get_tensor(name).clone() for name in list(file.keys())}
    del info["digest"]  # which would be missed first
    change(tensors, info)
    save_file(tensors, path, metadata={"ddtool": json.dumps(info)})
    with pytest.raises(RunError, match=said):
        read_set(path)


def test_a_set_of_an_earlier_version_has_no_whitening(dataset: Path, tmp_path: Path) -> None:
    run = tiny.adapt(dataset, tmp_path / "run", settings=tiny.SETTINGS | {"whitening": {"kind": "none"}})
    for path in (run.set_path(2), run.folder / "generator" / "labels.safetensors"):
        with safe_open(path, framework="pt") as file:
            info = json.loads(file.metadata()["ddtool"])
            tensors = {name: file.get_tensor(name) for name in list(file.keys())}
        assert info.pop("whitening") is None
        del info["digest"]
        save_file(tensors, path, metadata={"ddtool": json.dumps(info)})
    assert read_set(run.set_path(2)).whitening is None
    assert api.generate(run, 3, engine=tiny.ENGINE).whitening is None
