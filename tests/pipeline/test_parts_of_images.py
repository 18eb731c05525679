"""Runs with --factor: smaller images side by side in each stored one, with labels of their own, through every stage."""

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
import tiny
import torch
from tiny import OPTIONS, done, refused

from ddtool import api
from ddtool.data.images import SyntheticSet
from ddtool.data.parts import decode
from ddtool.errors import RunError
from ddtool.methods import mgdd
from ddtool.runs.run import Run
from ddtool.runtime.signals import Interrupted

SMALL = ("--ipc", "1", "--set", "adapt.seen_ipcs=[1]")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.image_folder(tmp_path_factory.mktemp("data") / "clothes")


def made(dataset: Path, out: Path, factor: int = 2, **settings: Any) -> Run:
    few = {"adapt": tiny.SETTINGS["adapt"] | {"seen_ipcs": [1]}, "factor": factor}
    return tiny.adapt(dataset, out, ipc=1, settings=tiny.SETTINGS | few | settings)


@pytest.mark.parametrize("kind", ["none", "dct"])
def test_every_stage_holds_parts_with_labels(dataset: Path, tmp_path: Path, kind: str) -> None:
    run = made(dataset, tmp_path / "run", whitening={"kind": kind})
    for stage in ("initial", "generated", None):
        found = run.load_set(1, stage)
        assert (found.factor, found.ipc, len(found), found.labels.shape) == (2, 1, 3, (12, 3))
        assert found.decoded().ipc == 4
    initial, refined = run.load_set(1, "initial"), run.load_set(1)
    assert not torch.equal(refined.labels[:3], refined.labels[3:6])
    real = run.load_pool(initial.class_names)[0][:12].float() / 255
    error = (initial.decoded().images - real).square().mean()
    assert error < 0.3 * (real - real.mean(0)).square().mean()  # four real images of a class, smaller
    assert run.results()["facts"]["factor"] == 2


def test_scores_are_of_the_decoded_images(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[SyntheticSet] = []
    refine = mgdd.refine

    def noted(X: torch.Tensor, Y: torch.Tensor, *rest: Any, **options: Any) -> tuple[torch.Tensor, torch.Tensor]:
        X, Y = refine(X, Y, *rest, **options)
        seen.append((X, Y))  # type: ignore[arg-type]
        return X, Y

    monkeypatch.setattr(mgdd, "refine", noted)
    run = made(dataset, tmp_path / "run", whitening={"kind": "none"})
    (X, Y), kept = seen[0], run.load_set(1).decoded()  # type: ignore[misc]
    assert torch.allclose(kept.transform(kept.images), X, atol=1e-3)
    assert torch.allclose(kept.labels, Y * kept.label_scale)
    assert torch.equal(decode(run.load_set(1).images, 2), kept.images)


def test_an_interrupted_run_goes_on_to_the_bit(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = made(dataset, tmp_path / "whole")
    step = mgdd.refinement_loss
    left = [2]

    def stopped(*arguments: Any) -> torch.Tensor:
        left[0] -= 1
        if left[0] < 0:
            raise Interrupted("SIGTERM")
        return step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(mgdd, "refinement_loss", stopped)
        with pytest.raises(Interrupted):
            made(dataset, tmp_path / "parted")
    api.resume(tmp_path / "parted", engine=tiny.ENGINE)
    assert tiny.all_bytes(tmp_path / "parted") == tiny.all_bytes(whole.folder)


def test_other_sizes_take_as_many_samples_as_they_hold(dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run")
    kept = run.load_label_head().pool_ipc
    assert kept == 4
    with pytest.raises(RunError, match="keeps 4 initial samples per class"):
        api.generate(run, 2, labels="analytical", engine=tiny.ENGINE)
    two = api.generate(run, 2, engine=tiny.ENGINE)
    assert (two.ipc, two.factor, two.labels.shape) == (2, 2, (24, 3))
    said = refused(2, "generate", run.folder, "--ipc", 3)
    assert "--ipc 3 times 2x2 is more than class 'boot' holds (8)" in said
    assert "Use --ipc 2 or less." in said


def test_the_command_line(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done("adapt", dataset, "--factor", 2, "--animation", *OPTIONS, *SMALL, "--out", out)
    table = datasets.load_dataset(str(out / "synthetic" / "ipc1"), split="train")
    exact = Run(out).load_set(1)
    stated = torch.tensor(table["soft_label"][:])
    assert torch.equal(stated, exact.labels_by_image())
    assert stated.shape == (3, 4, 3)
    assert (out / "animation.png").exists()
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "3 classes, 1 image per class, 16 x 16 pixels, grey, each holding 4 smaller images; distilled" in page
    assert "Point at an image to see the mean of its soft labels: how much" in page
    done("sweep", out, "--ipc", "1,2", "--protocol", "kernel-ridge", "--no-baseline")
    assert Run(out).load_set(2).factor == 2
    said = refused(2, "sweep", out, "--ipc", "1,2,3", "--protocol", "kernel-ridge")
    assert "more than the smallest class holds (8, of which each image of a set takes 4)" in said
    assert "Try --ipc 1,2." in said


def test_a_curve_is_of_the_same_parts(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    done("adapt", dataset, "--factor", 2, "--curve", *OPTIONS, *SMALL, "--out", out)
    done("curve", out, "--protocol", "kernel-ridge")
    assert (out / "curve.json").exists()


def test_images_that_come_again_make_any_size(dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run", factor=4, allow_repeat=True)
    found = api.sweep(run, [1, 2], protocol="kernel-ridge", baseline=False, engine=tiny.ENGINE)
    assert [score.ipc for score in found.scores] == [1, 2]
    assert run.load_set(2).decoded().ipc == 32


@pytest.mark.parametrize("factor", [1, 2])
def test_what_people_read_says_that_an_image_holds_several(factor: int, dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run", factor)
    page, several = (run.folder / "report.html").read_text(encoding="utf-8"), factor > 1
    assert ("16 x 16 pixels, grey, each holding 4 smaller images; distilled" in page) == several
    assert f"From {'one of the smaller images, enlarged,' if several else 'an image of the set'} to the nearest" in page
    assert f"<span>as many random real images{', whole ones' * several}</span>" in page
    assert bool(re.search(r"smaller images in each image +2x2\b", done("info", run.folder).stdout)) == several


def test_a_factor_that_does_not_cut_the_images_is_refused(dataset: Path, tmp_path: Path) -> None:
    said = refused(2, "adapt", dataset, "--factor", 3, *OPTIONS, *SMALL, "--out", tmp_path / "run")
    assert "does not cut images of 16x16 pixels into equal parts" in said
    assert "Use 1, 2, 4 or 8" in said
    assert not (tmp_path / "run").exists()


def test_more_images_than_a_class_holds_are_refused(dataset: Path, tmp_path: Path) -> None:
    said = refused(2, "adapt", dataset, "--factor", 2, *OPTIONS, "--ipc", 3, "--out", tmp_path / "run")
    assert "--ipc 3 times 2x2 is more than class 'boot' holds (8)" in said
    assert "Use --ipc 2 or less" in said
    said = refused(2, "adapt", dataset, "--factor", 4, *OPTIONS, "--ipc", 1, "--out", tmp_path / "run")
    assert "a smaller --factor" in said


def test_a_pool_that_could_not_be_read_again_is_refused(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ddtool.pipeline.plan.MOST_BYTES", 2000)  # a set of IPC 1 has 768, its pool four times as many
    said = refused(2, "adapt", dataset, "--factor", 2, *OPTIONS, *SMALL, "--out", tmp_path / "run")
    assert "more than a run can keep" in said
    assert not (tmp_path / "run").exists()


def test_the_factor_of_another_method_is_its_own_setting(dataset: Path, tmp_path: Path) -> None:
    out, quick = (
        tmp_path / "run",
        ("--precision", "fp32", "--set", "baseline.width=8", "--set", "baseline.real_batch=4"),
    )
    done(
        "adapt", dataset, "--method", "idc", "--factor", 4, "--ipc", 1, "--steps", 1, *quick, "--out", out,
        "--set", "baseline.real_images=8",
    )  # fmt: skip
    assert Run(out).load_set(1).factor == 4
    for words in (["--method", "dm"], ["--set", "method=random"]):
        said = refused(2, "adapt", dataset, *words, "--factor", 2, "--out", tmp_path / "other")
        assert f"The method '{words[1].removeprefix('method=')}' takes no --factor" in said
        assert "the methods that take it are idc and mgdd" in said
        assert "baseline" not in said
    assert "takes every setting from the run" in refused(2, "adapt", "--resume", out, "--factor", 2)


def test_the_settings_of_such_a_run_make_plain_sets_by_another_method(dataset: Path, tmp_path: Path) -> None:
    """What the run says of MGDD alone is left aside, as its other settings are."""
    run = made(dataset, tmp_path / "run", factor=2)
    words = ("--config", run.folder / "config.json", "--method", "random", "--ipc", 5)
    shown = done("adapt", dataset, *words, "--out", tmp_path / "random")
    assert "smaller images" not in shown.stderr
    again = Run(tmp_path / "random")
    assert (again.load_set(5).factor, again.config().factor) == (1, 1)


def test_a_run_of_others_that_cannot_be_cut_is_refused(dataset: Path, tmp_path: Path) -> None:
    run = made(dataset, tmp_path / "run")
    config = json.loads((run.folder / "config.json").read_text())
    (run.folder / "config.json").write_text(json.dumps(config | {"factor": 5}))
    with pytest.raises(RunError, match="cannot be cut 5 x 5"):
        api.generate(run.folder, 1, force=True, engine=tiny.ENGINE)
