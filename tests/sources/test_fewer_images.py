"""Fewer images than there are, and more than there are: --max-per-class, --allow-repeat."""

from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from conftest import toy_images

from ddtool import api
from ddtool.data.images import draw_per_class
from ddtool.errors import UsageError
from ddtool.events import Event, Note
from ddtool.sources import labels
from ddtool.sources import load as sources
from ddtool.sources.options import DataOptions


def test_at_most_so_many_of_every_class_at_random_and_the_same_for_a_seed() -> None:
    given = np.array([0] * 50 + [1] * 3 + [-1] * 4 + [2] * 20)
    kept = labels.at_most(given, 10, 0)
    assert [int((kept == c).sum()) for c in range(3)] == [10, 3, 10]
    assert set(given[kept >= 0] - kept[kept >= 0]) == {0}
    assert (kept == labels.at_most(given, 10, 0)).all()
    assert (kept != labels.at_most(given, 10, 1)).any()
    assert np.flatnonzero(kept == 0).max() > 10  # not the first ones
    assert (labels.at_most(given, 50, 0) == given).all()


def test_a_dataset_is_read_in_part(tmp_path: Path) -> None:
    folder, events = tiny.image_folder(tmp_path / "data"), list[Event]()
    part = sources.load(str(folder), DataOptions(max_per_class=5), report=events.append)
    whole = sources.load(str(folder)).train
    assert part.train.class_counts().tolist() == [5, 5, 5]
    assert part.test_size == 12
    for image, label in zip(part.train.images, part.train.labels, strict=True):
        same = (whole.images == image).flatten(1).all(1)
        assert int(label) in whole.labels[same].tolist()
    assert "15 of 24 images of split 'train'" in "".join(e.text for e in events if isinstance(e, Note))
    assert part.train.source["max_per_class"] == 5


def test_whole_chunks_may_hold_no_image_that_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ddtool.sources.readers.CHUNK", 2)
    folder = tiny.image_folder(tmp_path / "data")
    part = sources.load(str(folder), DataOptions(max_per_class=1)).train
    assert part.class_counts().tolist() == [1, 1, 1]


def test_the_part_of_another_seed_is_another_also_from_the_cache(tmp_path: Path) -> None:
    folder = tiny.image_folder(tmp_path / "data")  # it has a test split: nothing is held out
    parts = [sources.load(str(folder), DataOptions(max_per_class=2, seed=seed)).train for seed in (0, 1, 0)]
    assert torch.equal(parts[0].images, parts[2].images)
    assert not torch.equal(parts[0].images, parts[1].images)
    assert [part.source.get("seed", 0) for part in parts] == [0, 1, 0]
    wholes = [sources.load(str(folder), DataOptions(seed=seed)).train for seed in (0, 1)]
    assert torch.equal(wholes[0].images, wholes[1].images)


def test_images_of_a_small_class_come_again_in_turn() -> None:
    data = toy_images(3, seed=1)
    rows = draw_per_class(data, 7, torch.Generator().manual_seed(0), repeat=True).view(7, 4)
    assert (data.labels[rows] == torch.arange(4)).all()
    assert torch.equal(rows[3:6], rows[:3])
    assert torch.equal(rows[6], rows[0])
    assert all(len(set(rows[:3, c].tolist())) == 3 for c in range(4))
    assert torch.equal(rows[:2].flatten(), draw_per_class(data, 2, torch.Generator().manual_seed(0)))


def test_an_ipc_above_a_class_takes_its_images_again_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.shorten_protocols(monkeypatch)
    folder = tiny.image_folder(tmp_path / "data", train=3)
    plain = {"whitening": {"kind": "none"}}
    settings = tiny.SETTINGS | plain | {"adapt": tiny.SETTINGS["adapt"] | {"seen_ipcs": []}}
    with pytest.raises(UsageError, match=r"--ipc 5 is more than class .* holds \(3\)") as caught:
        tiny.adapt(folder, tmp_path / "run", ipc=5, settings=settings)
    assert "--allow-repeat" in caught.value.hint
    run = tiny.adapt(folder, tmp_path / "run", ipc=5, settings=settings | {"allow_repeat": True})
    initial = run.load_set(5, "initial").images.view(5, 3, -1)
    assert torch.equal(initial[3], initial[0])
    assert not torch.equal(initial[2], initial[0])
    assert {s["stage"] for s in run.results()["scores"]} == {"random", "generated", "refined"}
    assert len(api.generate(run, 7, engine=tiny.ENGINE)) == 21
    dm = tiny.adapt(folder, tmp_path / "dm", ipc=5, generator="bundled", method="dm",
                    settings=plain | {"allow_repeat": True, "evaluate": {"enabled": False}, "baseline": {"steps": 1}})  # fmt: skip
    assert dm.ipcs() == [5]
