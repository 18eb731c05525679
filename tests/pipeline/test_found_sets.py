"""Which sets a path means."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from conftest import toy_images

from ddtool import api
from ddtool.data.images import real_images
from ddtool.errors import UsageError
from ddtool.events import Note
from ddtool.pipeline.scoring import find_sets
from ddtool.runs.formats import write_set_folder


def test_folders_of_several_sets_come_by_their_numbers(tmp_path: Path) -> None:
    made = real_images(toy_images(2, seed=1), torch.arange(8), flip=True)
    for name, scale in {"set10": 10, "set2": 2, "set1": 1, "setb": 12, "seta": 11}.items():
        write_set_folder(tmp_path / name / "ipc2", replace(made, label_scale=float(scale)))
    assert [found.label_scale for found in find_sets(tmp_path, None, None).sets] == [1, 2, 10, 11, 12]


def test_a_set_in_memory_is_scored_and_exported_as_its_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.shorten_protocols(monkeypatch)
    run = tiny.adapt(tiny.image_folder(tmp_path / "data"), tmp_path / "run")
    made, file = run.load_set(2), run.set_path(2)
    ways = ({"protocol": "dsa-ce"}, {"protocol": "kernel-ridge", "ipc": 2, "stage": "refined"})
    for how in ways:
        of_file, of_set = (api.evaluate(one, seeds=1, engine=tiny.ENGINE, **how) for one in (file, made))
        assert [replace(score, seconds=0) for score in of_set] == [replace(score, seconds=0) for score in of_file]
        assert [score.stage for score in of_set] == ["refined", "random"]
    worse = replace(made, labels=made.labels.roll(1, 1))
    before, after = (
        api.evaluate(one, protocol="kernel-ridge", baseline=False, engine=tiny.ENGINE)[0].mean for one in (made, worse)
    )
    assert before > after
    (written,) = api.export(made, tmp_path / "out", format="npz")
    assert written.read_bytes() == api.export(file, tmp_path / "other", format="npz")[0].read_bytes()
    with pytest.raises(UsageError, match="is one set, of ipc 2, refined"):
        api.evaluate(made, ipc=10)
    with pytest.raises(UsageError, match="does not say which dataset"):
        api.evaluate(replace(made, source={}))


def test_scores_on_another_split_do_not_take_the_place_of_those_of_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shorten_protocols(monkeypatch)
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    data = tiny.image_folder(tmp_path / "data")
    shutil.copytree(data / "test", data / "valid")
    for picture in data.glob("valid/*/0.png"):  # one image less of each class
        picture.unlink()
    run = tiny.adapt(data, tmp_path / "run")
    before, heard, images = run.results(), [], []
    for split in ("valid", "test"):
        options = {"protocol": "quick", "seeds": 1, "data": {"test_split": split}, "engine": tiny.ENGINE}
        scores = api.evaluate(run, **options, whole=True, report=heard.append)
        images.append([sum(map(sum, score.confusion or [])) for score in scores])
        api.robustness(run, **options, whole_accuracy=80)
        if split == "valid":
            assert run.results() == before
    assert images == [[9] * 3, [12] * 3]
    assert len([event for event in heard if isinstance(event, Note) and "not recorded" in event.text]) == 1
    assert {score["stage"] for score in run.results()["scores"]} == {"generated", "refined", "random", "full"}
    assert any(name.startswith("robustness") for name in run.results()["facts"])
