"""Where an export goes, what it never replaces, and what it says of what a form does not hold."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_sets import field_set, ours, stated
from tiny import done, refused

from ddtool import api
from ddtool.data.images import SyntheticSet, one_hot
from ddtool.data.whitening import DCT, fit
from ddtool.errors import RunError
from ddtool.events import Event, Note
from ddtool.runs.formats import read_set, write_set_folder
from ddtool.sharing.exchange import exporting, importing
from ddtool.sharing.exchange.importing import ImportOptions
from ddtool.sources.load import Target


def test_sets_of_one_size_are_all_kept(colour: Target, tmp_path: Path) -> None:
    sets = [list(field_set(colour.train, seed)) for seed in range(3)]
    torch.save({"data": sets}, tmp_path / "res.pt")
    made = importing.import_sets(tmp_path / "res.pt", colour.train, tmp_path / "sets", ImportOptions(**stated(3)))
    paths = api.export(tmp_path / "sets", tmp_path / "out", format="npz")
    assert paths == [tmp_path / "out" / f"set{k}" / "ipc2.npz" for k in (1, 2, 3)]
    for path, one in zip(paths, made, strict=True):
        assert np.array_equal(np.load(path)["images"], one.synthetic.images.numpy())


def test_folders_of_several_sets() -> None:
    assert exporting.told_apart([1, 10, 50]) == ["", "", ""]
    assert exporting.told_apart([1, 10, 1, 10, 50]) == ["set1", "set1", "set2", "set2", ""]


def test_nothing_is_written_where_a_part_is_taken(colour: Target, tmp_path: Path) -> None:
    small, large = ours(colour.train), ours(colour.train)
    large = replace(large.decoded(), images=large.images.repeat(2, 1, 1, 1), labels=large.labels.repeat(2, 1),
                    hard=large.hard.repeat(2), ipc=4)  # fmt: skip
    exporting.export(large, "npz", tmp_path / "out")
    with pytest.raises(RunError, match="ipc4"):
        exporting.export_sets([small, large], "npz", tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["ipc4.npz"]


def test_images_never_replace_a_set(colour: Target, tmp_path: Path) -> None:
    made = ours(colour.train)
    write_set_folder(tmp_path / "sets" / "ipc2", made)
    before = {path.name: path.read_bytes() for path in (tmp_path / "sets" / "ipc2").iterdir()}
    assert "set of ddtool" in refused(1, "export", tmp_path / "sets", "--out", tmp_path / "sets", "--force")
    assert {path.name: path.read_bytes() for path in (tmp_path / "sets" / "ipc2").iterdir()} == before
    done("export", tmp_path / "sets", "--out", tmp_path / "out")
    done("export", tmp_path / "sets", "--out", tmp_path / "out", "--force")
    assert torch.equal(read_set(tmp_path / "sets" / "ipc2" / "exact.safetensors").images, made.images)


def test_sets_of_others_are_not_exported(colour: Target, tmp_path: Path) -> None:
    pictures = exporting.export(ours(colour.train), "folder", tmp_path / "out")
    said = refused(2, "export", pictures, "--out", tmp_path / "again")
    assert "ddtool import" in said
    assert "--on DATASET." not in said  # an option that `ddtool export` does not have


def test_paths_may_begin_at_home(colour: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    write_set_folder(tmp_path / "ipc2", ours(colour.train))
    assert api.export("~/ipc2", "~/given", format="npz") == [tmp_path / "given" / "ipc2.npz"]


def test_what_a_form_loses_is_shown_where_that_is_asked_for(
    colour: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_set_folder(tmp_path / "ipc2", ours(colour.train))
    events: list[Event] = []
    api.export(tmp_path / "ipc2", tmp_path / "heard", report=events.append)
    api.export(tmp_path / "ipc2", tmp_path / "quiet", progress=False)
    assert capsys.readouterr().err == ""
    api.export(tmp_path / "ipc2", tmp_path / "shown", progress=True)
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes
    assert capsys.readouterr().err.splitlines() == notes


# ------------------------------------------------------------------------------------------------------- what is said of it


def plain(target: Target) -> SyntheticSet:
    """A set of which every form holds all."""
    made = ours(target.train)
    labels = one_hot(made.hard, made.num_classes)
    return replace(made, labels=labels, label_method="hard", label_scale=1.0, learned_lr=None)


def whitened(target: Target, made: SyntheticSet) -> SyntheticSet:
    """The set with a whitening."""
    images = target.train.transform
    rows = torch.arange(len(target.train))
    return replace(made, whitening=fit(lambda part: images(target.train.images[part]), rows, DCT, 0.1))


@pytest.mark.parametrize(("change", "words", "kinds"), [
    ({"label_method": "learned"}, "soft labels", {"folder", "pt"}),
    ({"factor": 2}, "2 x 2", {"folder", "webdataset"}),
    ({"learned_lr": 0.1}, "learning rate", {"folder", "webdataset"}),
    ({"images": 2.0}, "cut them off", {"folder", "webdataset"}),
    ({"whitening": True}, "whitened", {"folder", "webdataset", "pt"}),
    ({"class_names": ("a/b", "b", "c")}, "these are numbers: 0 is 'a/b'", {"folder"}),
    ({}, "", set()),
])  # fmt: skip
def test_what_a_form_does_not_hold_is_said(
    colour: Target, tmp_path: Path, change: dict[str, Any], words: str, kinds: set[str]
) -> None:
    made = plain(colour)
    if "whitening" in change:
        made = whitened(colour, made)
    elif "images" in change:
        made = replace(made, images=made.images * change["images"])
    else:
        made = replace(made, **change)
    for kind in exporting.FORMATS:
        heard: list[Event] = []
        exporting.export_sets([made, made], kind, tmp_path / "out", report=heard.append)
        texts = [event.text for event in heard if isinstance(event, Note)]
        assert len(texts) == (kind in kinds), (kind, texts)
        assert all(words in text for text in texts)


def test_the_command_says_it(colour: Target, tmp_path: Path) -> None:
    write_set_folder(tmp_path / "ipc2", ours(colour.train))
    said = done("export", tmp_path / "ipc2", "--out", tmp_path / "out").stderr
    assert "the soft labels are left out" in said.replace("\n", " ")
