"""Sets of others: files made as their authors make them, imported, scored as the same tensors are; ours, exported and back."""

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_sets import IPC, MEAN, STD, C, directly, field_set, ours, score, stated
from hub_server import HubServer
from safetensors.torch import save_file
from tiny import CLASSES, ENGINE, done, refused
from torch import Tensor

from ddtool import api
from ddtool.data.images import one_hot
from ddtool.errors import DataError, UsageError
from ddtool.evaluation.measure import kernel_ridge
from ddtool.runs.formats import read_set, write_parquet, write_set
from ddtool.sharing.exchange import exporting, importing, pickles
from ddtool.sharing.exchange.containers import read
from ddtool.sharing.exchange.importing import ImportOptions
from ddtool.sharing.exchange.published import FIELD, mtt_whitening, prepared
from ddtool.sources.load import Target
from ddtool.sources.names import ALIASES

# ------------------------------------------------------------------------------------------------- the field's own formats


def test_five_sets_of_dataset_condensation(colour: Target, tmp_path: Path) -> None:
    sets = [list(field_set(colour.train, seed)) for seed in range(5)]
    accuracies = {"ConvNet": [np.float64(0.25), np.float64(0.5)], "seen": [np.int64(7)]}
    torch.save({"data": sets, "accs_all_exps": accuracies}, tmp_path / "res_DC.pt")
    made = importing.import_sets(
        tmp_path / "res_DC.pt", colour.train, tmp_path / "out", ImportOptions(**stated(3), method="dc")
    )
    assert [one.folder.relative_to(tmp_path / "out").as_posix() for one in made] == [
        f"set{k}/ipc2" for k in range(1, 6)
    ]
    for one, (x, y) in zip(made, sets, strict=True):
        kept = read_set(one.folder / "exact.safetensors")
        expected = directly(x, y, colour.train)
        assert torch.allclose(kept.inputs, expected.inputs, atol=1e-6)
        assert torch.allclose(kept.inputs[::C], x[:IPC], atol=1e-5)  # networks see what the authors' see
        assert kept.hard.tolist() == [0, 1, 2, 0, 1, 2]
        assert score(kept, colour.test()) == score(expected, colour.test())
        facts = json.loads((one.folder / "import.json").read_text())
        assert facts["normalisation"] == {"mean": list(MEAN), "std": list(STD)}
        assert (facts["of"], facts["format"], facts["zca"], facts["labels"]) == (5, "dc", None, "hard")


def test_pixels_beyond_the_range_stay_and_are_said(colour: Target, tmp_path: Path) -> None:
    x, y = field_set(colour.train, spread=5.0)
    torch.save({"data": [[x, y]]}, tmp_path / "wide.pt")
    (made,) = importing.import_sets(tmp_path / "wide.pt", colour.train, tmp_path / "out", ImportOptions(**stated(3)))
    beyond = float(((made.synthetic.images < 0) | (made.synthetic.images > 1)).float().mean())
    assert beyond > 0.1
    assert made.facts["outside"] == pytest.approx(beyond, abs=0.01)
    assert torch.allclose(
        read_set(made.folder / "exact.safetensors").inputs, directly(x, y, colour.train).inputs, atol=1e-5
    )
    rounded = made.synthetic.rounded()
    assert rounded.images.min() >= 0
    assert rounded.images.max() <= 1


def test_mtt_with_its_whitening_and_its_learning_rate(colour: Target, tmp_path: Path) -> None:
    X = (colour.train.images.double() / 255).flatten(1)
    centred = X - X.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / (len(X) - 1))
    M = vectors @ torch.diag((values + 0.1).rsqrt()) @ vectors.T
    rows = torch.cat([(colour.train.labels == c).nonzero().flatten()[:IPC] for c in range(C)])
    x = (centred[rows] @ M).float().view(-1, *colour.train.shape)
    torch.save(x, tmp_path / "images_best.pt")
    torch.save(torch.arange(C).repeat_interleave(IPC), tmp_path / "labels_best.pt")
    torch.save(torch.tensor(0.0213), tmp_path / "lr_best.pt")
    (made,) = importing.import_sets(
        tmp_path / "images_best.pt", colour.train, tmp_path / "out", ImportOptions(zca=True, method="mtt")
    )
    kept = read_set(made.folder / "exact.safetensors")
    assert kept.learned_lr == pytest.approx(0.0213)
    assert made.facts["zca"]["kind"] == "zca"  # type: ignore[index, call-overload]
    order = torch.arange(C * IPC).view(C, IPC).T.flatten()
    assert torch.allclose(kept.inputs, x[order], atol=1e-3)
    assert torch.allclose(kept.images, colour.train.images[rows][order].float() / 255, atol=1e-3)
    real = mtt_whitening(colour.train)
    assert torch.allclose(real.matrix.double(), M, atol=1e-4)


def test_idc_and_its_factor(colour: Target, tmp_path: Path) -> None:
    images = torch.rand(C * IPC, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.save([images, torch.arange(C).repeat_interleave(IPC)], tmp_path / "data_best.pt")
    (made,) = importing.import_sets(tmp_path / "data_best.pt", colour.train, tmp_path / "out", ImportOptions())
    assert made.synthetic.factor == 2
    assert made.facts["normalisation"] is None
    assert made.synthetic.mean == colour.train.mean  # pixels: networks see them as the dataset's own
    order = torch.arange(C * IPC).view(C, IPC).T.flatten()
    assert torch.equal(made.synthetic.images, images[order])
    assert len(made.synthetic.decoded()) == 4 * C * IPC


def test_arrays_by_name_with_soft_labels(colour: Target, tmp_path: Path) -> None:
    x, y = field_set(colour.train)
    soft = torch.softmax(4 * torch.nn.functional.one_hot(y, C).float(), 1)
    np.savez(tmp_path / "set.npz", images=x.numpy(), labels=y.numpy(), soft_labels=soft.numpy(), learned_lr=0.02)
    with pytest.raises(UsageError, match="how they were normalised"):
        importing.import_sets(tmp_path / "set.npz", colour.train, tmp_path / "out", ImportOptions())
    (made,) = importing.import_sets(tmp_path / "set.npz", colour.train, tmp_path / "out", ImportOptions(**stated(3)))
    order = torch.arange(C * IPC).view(C, IPC).T.flatten()
    assert torch.allclose(made.synthetic.probabilities(), soft[order], atol=1e-6)
    assert made.synthetic.learned_lr == pytest.approx(0.02)
    assert made.synthetic.label_method == "learned"


def test_the_fields_numbers_are_known_for_its_datasets(colour: Target) -> None:
    assert set(FIELD) <= set(ALIASES)
    like = replace(colour.train, source={"id": ALIASES["cifar10"], "kind": "hub"})
    known = prepared(like)
    assert known is not None
    assert known.std == (0.2023, 0.1994, 0.2010)
    assert prepared(colour.train) is None


# ----------------------------------------------------------------------------------------------------------- what is refused


class Hostile:
    """Writes a file when it is unpickled by anything that runs code."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def test_a_hostile_pickle_runs_nothing(tmp_path: Path) -> None:
    trace = tmp_path / "was-run"
    for number, content in enumerate([{"data": [[Hostile(trace), torch.zeros(2)]]}, Hostile(trace)]):
        path = tmp_path / f"bad{number}.pt"
        torch.save(content, path)
        with pytest.raises(DataError, match="refused"):
            read(path)
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(DataError, match="refused"):
            read(path)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Hostile(trace)))  # noqa: S301
    assert trace.exists()  # it would have


@pytest.mark.parametrize("value", [np.array([1, 2], dtype=object)[0:1], np.datetime64("2020-01-01"), np.complex128(1j)])
def test_values_of_numpy_that_are_no_numbers_are_refused(tmp_path: Path, value: Any) -> None:
    torch.save({"data": [[torch.zeros(2, 1, 4, 4), torch.zeros(2)]], "more": value}, tmp_path / "x.pt")
    with pytest.raises(DataError, match="refused"):
        read(tmp_path / "x.pt")


def test_arrays_of_objects_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "objects.npz", images=np.array([{}], dtype=object), labels=np.zeros(1))
    with pytest.raises(DataError, match="refused"):
        read(tmp_path / "objects.npz")
    monkeypatch.setattr("ddtool.sharing.exchange.containers.MOST_BYTES", 10_000)
    np.savez_compressed(tmp_path / "bomb.npz", images=np.zeros(20_000, np.uint8), labels=np.zeros(1))
    with pytest.raises(DataError, match="unpacks to"):
        read(tmp_path / "bomb.npz")
    (tmp_path / "text.npz").write_text("no zip")
    with pytest.raises(DataError, match="refused"):
        read(tmp_path / "text.npz")


def test_sets_that_do_not_fit_are_explained(colour: Target, tmp_path: Path) -> None:
    def imported(x: Tensor, y: Tensor, **options: Any) -> None:
        torch.save({"data": [[x, y]]}, tmp_path / "x.pt")
        importing.import_sets(tmp_path / "x.pt", colour.train, tmp_path / "no", ImportOptions(**stated(3) | options))

    x, y = field_set(colour.train)
    for tensors, what in (
        ((x[:, :, :8, :8], y), "images of shape"),
        ((x[:5], y[:5]), "from 1 to 2 images"),
        ((x, y + 1), "outside the 3 classes"),
        ((x, y[:4]), "do not go with"),
        ((x * float("nan"), y), "not finite"),
    ):
        with pytest.raises(DataError, match=what):
            imported(*tensors)
    with pytest.raises(DataError, match="no distributions"):
        imported(x, 2 * one_hot(y, C), labels="probabilities")
    with pytest.raises(UsageError, match="No mean and std"):
        imported(x, y, mean=None, std=None)
    with pytest.raises(UsageError, match="3 numbers each"):
        imported(x, y, mean=(0.5,))
    assert not (tmp_path / "no").exists()


# ------------------------------------------------------------------------------------------------------- ours for others


@pytest.mark.parametrize("kind", ["npz", "pt"])
def test_export_and_import_give_the_same_bits(colour: Target, tmp_path: Path, kind: str) -> None:
    made = ours(colour.train)
    path = exporting.export(made, kind, tmp_path / "out")
    (back,) = importing.import_sets(path, colour.train, tmp_path / "back", ImportOptions())
    write_set(tmp_path / "made.safetensors", made)
    assert (back.folder / "exact.safetensors").read_bytes() == (tmp_path / "made.safetensors").read_bytes()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is full, on Linux")
def test_a_full_disk_is_said_of_a_pt_as_of_any_file() -> None:
    with pytest.raises(OSError, match="No space left"):
        pickles.save(Path("/dev/full"), {"images": torch.zeros(1000)})


def test_the_fields_code_reads_an_exported_pt(colour: Target, tmp_path: Path) -> None:
    made = replace(ours(colour.train), factor=2)
    path = exporting.export(made, "pt", tmp_path / "out")
    ((images, labels),) = torch.load(path, weights_only=True)["data"]
    assert torch.equal(images, made.inputs)
    assert torch.equal(labels, made.decoded().hard)


@pytest.mark.parametrize(("kind", "soft"), [("folder", False), ("webdataset", True)])
def test_pictures_come_back_to_8_bits(target: Target, tmp_path: Path, kind: str, soft: bool) -> None:
    made = ours(target.train)
    path = exporting.export(made, kind, tmp_path / "out")
    back = importing.foreign_set(str(path), target.train)
    assert torch.equal(back.images, made.rounded().images)
    assert torch.equal(back.hard, made.hard)
    if soft:
        assert torch.equal(back.labels, made.labels)
        assert back.label_scale == made.label_scale
    else:
        assert torch.equal(back.labels, 4 * one_hot(made.hard, C))


def test_classes_that_cannot_be_folders_are_numbered(target: Target, tmp_path: Path) -> None:
    made = replace(ours(target.train), class_names=("a/b", "A", "a"))
    path = exporting.export(made, "folder", tmp_path / "out")
    assert sorted(p.name for p in (path / "train").iterdir()) == ["0", "1", "2"]
    like = replace(target.train, class_names=made.class_names)
    assert torch.equal(importing.foreign_set(str(path), like).hard, made.hard)


def test_a_damaged_description_is_refused(colour: Target, tmp_path: Path) -> None:
    path = exporting.export(ours(colour.train), "npz", tmp_path / "out")
    arrays = dict(np.load(path))
    for told in ("{", "{}", "[]", "null", "[" * 100_000, json.dumps(json.loads(str(arrays["ddtool"])) | {"ipc": 3})):
        np.savez(tmp_path / "bad.npz", **arrays | {"ddtool": np.array(told)})
        with pytest.raises(DataError) as caught:
            importing.import_sets(tmp_path / "bad.npz", colour.train, tmp_path / "no", ImportOptions())
        assert "bad.npz" in caught.value.message
    assert not (tmp_path / "no").exists()


# --------------------------------------------------------------------------------------------------- evaluate takes them all


def evaluated(place: Path | str, folder: Path, **options: Any) -> list[float]:
    scores = api.evaluate(
        place, on=str(folder), protocol="kernel-ridge", seeds=1, engine=ENGINE, baseline=False, **options
    )
    return [one.mean for one in scores]


def test_evaluate_takes_every_form_of_a_set(folder: Path, target: Target, tmp_path: Path) -> None:
    made = ours(target.train)
    probable = made.probabilities()
    expected = replace(made.rounded(), labels=4 * (probable - 1 / C), learned_lr=None)
    write_parquet(tmp_path / "set.parquet", made.pixels(), made.hard, probable, CLASSES)
    tensors = {"images": made.pixels(), "labels": made.hard, "soft_labels": probable}
    save_file(tensors, tmp_path / "set.safetensors")
    for name in ("set.parquet", "set.safetensors"):
        assert evaluated(tmp_path / name, folder) == [score(expected, target.test())]
    pictures = exporting.export(made, "folder", tmp_path / "out")
    hard = replace(made.rounded(), labels=4 * one_hot(made.hard, C))
    assert evaluated(pictures, folder) == [score(hard, target.test())]


def test_evaluate_takes_a_dataset_of_the_hub_that_is_not_ours(
    folder: Path, target: Target, tmp_path: Path, server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import HfApi

    server.add_token("hf_write", "ann")
    monkeypatch.setenv("HF_TOKEN", "hf_write")
    made = ours(target.train)
    write_parquet(tmp_path / "data" / "train.parquet", made.pixels(), made.hard, made.probabilities(), CLASSES)
    hub = HfApi(token="hf_write")
    hub.create_repo("ann/theirs", repo_type="dataset")
    hub.upload_file(
        path_or_fileobj=tmp_path / "data" / "train.parquet", path_in_repo="data/train.parquet", repo_id="ann/theirs",
        repo_type="dataset",
    )  # fmt: skip
    expected = replace(made.rounded(), labels=4 * (made.probabilities() - 1 / C))
    assert evaluated("ann/theirs", folder) == [score(expected, target.test())]
    refused(1, "evaluate", "ann/theirs")  # without --on: not a repo of ddtool


def test_soft_labels_alone_name_their_classes(folder: Path, target: Target, tmp_path: Path) -> None:
    made = ours(target.train)
    probable = torch.softmax(5 * torch.nn.functional.one_hot(made.hard, C).float(), 1)
    save_file({"images": made.pixels(), "labels": probable}, tmp_path / "set.safetensors")
    found = importing.foreign_set(str(tmp_path / "set.safetensors"), target.train)
    assert torch.equal(found.hard, made.hard)
    save_file({"images": made.pixels(), "labels": torch.full((6, C), 1 / C)}, tmp_path / "flat.safetensors")
    with pytest.raises(DataError, match="add a column"):
        importing.foreign_set(str(tmp_path / "flat.safetensors"), target.train)


def test_several_imported_sets_are_scored_together(folder: Path, target: Target, tmp_path: Path) -> None:
    sets = [list(field_set(target.train, seed)) for seed in range(3)]
    torch.save({"data": sets}, tmp_path / "res.pt")
    done("import", tmp_path / "res.pt", "--on", folder, "--out", tmp_path / "sets", "--mean", "0.5", "--std", "0.2")
    result = done("evaluate", tmp_path / "sets", "--protocol", "kernel-ridge", "--no-baseline", "--exact", "--json")
    scores = json.loads(result.stdout)["scores"]
    expected = [kernel_ridge(directly(x, y, target.train), target.test(), ENGINE, seeds=3).mean for x, y in sets]
    assert [one["mean"] for one in scores] == expected


def test_commands_say_what_is_missing(folder: Path, target: Target, tmp_path: Path) -> None:
    made = ours(target.train)
    write_parquet(tmp_path / "set.parquet", made.pixels(), made.hard, None, CLASSES)
    assert "--on DATASET" in refused(2, "evaluate", tmp_path / "set.parquet")
    torch.save({"data": [list(field_set(target.train))]}, tmp_path / "res.pt")
    assert "ddtool import" in refused(2, "evaluate", tmp_path / "res.pt", "--on", folder)
    assert "list of numbers" in refused(
        2, "import", tmp_path / "res.pt", "--on", folder, "--out", tmp_path / "o", "--mean", "x"
    )


def test_export_of_a_set_by_the_command(target: Target, tmp_path: Path) -> None:
    write_set(tmp_path / "ipc2" / "exact.safetensors", ours(target.train))
    result = done("export", tmp_path / "ipc2", "--format", "npz", "--out", tmp_path / "out", "--quiet")
    assert result.stdout.strip() == str(tmp_path / "out" / "ipc2.npz")
    refused(1, "export", tmp_path / "ipc2", "--format", "npz", "--out", tmp_path / "out")
    refused(2, "export", tmp_path / "ipc2", "--format", "zip", "--out", tmp_path / "out")
