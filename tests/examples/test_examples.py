"""The scripts of examples/ at small size."""

import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pages
import pytest
import tiny
import torch

from ddtool.config import RunConfig
from ddtool.data.images import SyntheticSet, draw_pool, real_images
from ddtool.data.whitening import fit
from ddtool.pipeline.scoring import load_target
from ddtool.runs.formats import write_set
from ddtool.runs.run import Run

EXAMPLES = tiny.ROOT / "examples"


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    tiny.shorten_protocols(monkeypatch)
    data = tiny.image_folder(tmp_path / "clothes", side=32)
    settings = {"evaluate": {"baseline": False, "kernel_ridge": False}}
    return tiny.adapt(data, tmp_path / "run", settings=settings, generator="bundled", method="random")


def test_architecture_search(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    script = example("architecture_search")
    assert script.spearman([1, 5, 3], [10, 30, 20]) == pytest.approx(1)
    assert script.spearman([1, 5, 3], [30, 10, 20]) == pytest.approx(-1)
    assert script.spearman([1, 1, 2], [5, 5, 9]) == pytest.approx(1)
    words = [str(run.folder), "--ipc", "2", "--real-ipc", "4", "--protocol", "quick", "--networks", "convnet,mlp,lenet"]
    assert all(-1 <= value <= 1 for value in script.main(words).values())
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_all_networks_of_the_search_see_what_the_set_says(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    train = load_target(run.config(), lambda event: None).train
    fitted = fit(lambda rows: train.transform(train.images[rows]), torch.arange(len(train)), "dct", 0.1)
    write_set(run.set_path(2), replace(run.load_set(2), mean=(0.1,), std=(0.9,), whitening=fitted))
    script, seen = example("architecture_search"), []
    train_and_test = script.train_and_test

    def watched(made: SyntheticSet, *more: Any, **options: Any) -> Any:
        seen.append(made)
        return train_and_test(made, *more, **options)

    monkeypatch.setattr(script, "train_and_test", watched)
    script.main([str(run.folder), "--ipc", "2", "--real-ipc", "4", "--protocol", "quick", "--networks", "mlp"])
    assert [len(made) for made in seen] == [6, 6, 12]
    for made in seen:
        assert (made.mean, made.std) == ((0.1,), (0.9,))
        assert made.whitening is not None
        assert torch.equal(made.whitening.matrix, fitted.matrix)


def test_replay_memory(run: Run) -> None:
    found = example("replay_memory").main([str(run.folder), "--ipc", "2", "--tasks", "3", "--steps", "5"])
    assert set(found) == {"set", "random"}
    assert all(len(accuracies) == 3 and accuracies[0] == 100 for accuracies in found.values())  # one class is no choice


def test_a_network_without_ddtool(tmp_path: Path) -> None:
    text = (EXAMPLES / "train_without_ddtool.py").read_text(encoding="utf-8")
    assert not re.search(r"^\s*(import|from) ddtool", text, re.MULTILINE)
    train = load_target(RunConfig(dataset="sample"), lambda event: None).train
    write_set(tmp_path / "exact.safetensors", real_images(train, draw_pool(train, 10, 0), True).scaled())
    (test,) = (tiny.SAMPLE / "data").glob("test-*")
    before = torch.get_rng_state()
    try:
        accuracy = example("train_without_ddtool").main(str(tmp_path / "exact.safetensors"), str(test), steps=20)
    finally:
        torch.set_rng_state(before)
    assert accuracy > 30  # of ten classes; chance is 10


@pytest.mark.parametrize(("factor", "says"), [(2, "holds several smaller ones"), (1, None)])
def test_images_that_hold_several_are_not_trained_on_as_they_are(tmp_path: Path, factor: int, says: str | None) -> None:
    train = load_target(RunConfig(dataset="sample"), lambda event: None).train
    file = tmp_path / "exact.safetensors"
    write_set(file, replace(real_images(train, draw_pool(train, 1, 0), True), factor=factor))
    script = example("train_without_ddtool")
    if says is None:
        assert len(script.read_set(str(file))[1]) == 10
    else:
        with pytest.raises(SystemExit, match=says):
            script.read_set(str(file))


def test_the_notebook_runs_from_top_to_bottom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    pages.shorten(monkeypatch)
    cells = json.loads((EXAMPLES / "first_set.ipynb").read_text(encoding="utf-8"))["cells"]
    names: dict[str, Any] = {}
    before = torch.get_rng_state()
    try:
        for cell in cells:
            if cell["cell_type"] == "code":
                text = re.sub(r'("steps": |steps: int = )\d+', r"\g<1>2", "".join(cell["source"]))
                exec(compile(text, "first_set.ipynb", "exec"), names)
    finally:
        torch.set_rng_state(before)
    assert len(names["small"]) == 10
    assert [len(axis.images) for axis in names["axes"].flat] == [1] * 10
    assert (
        len(re.findall(r"^10 (synthetic|random real) images +\d+\.\d %$", capsys.readouterr().out, re.MULTILINE)) == 2
    )
