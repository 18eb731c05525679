"""What an import takes a file for, what it refuses, and what it says of it."""

import io
import json
import re
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_sets import IPC, MEAN, STD, C, field_set, ours, stated
from safetensors.torch import save_file
from tiny import CLASSES, done, refused
from torch import Tensor

from ddtool import api
from ddtool.data.images import SyntheticSet
from ddtool.errors import DataError, RunError, UsageError
from ddtool.events import Event, Note
from ddtool.runs.formats import read_set, write_parquet, write_set
from ddtool.sharing.exchange import exporting, importing, published
from ddtool.sharing.exchange.importing import Imported, ImportOptions
from ddtool.sources.load import Target

CLASS_BY_CLASS = torch.arange(C).repeat_interleave(IPC)


def imported(content: Any, target: Target, tmp_path: Path, name: str = "x.pt", **options: Any) -> list[Imported]:
    """What a file of this content becomes."""
    file = tmp_path / name
    if file.suffix == ".npz":
        np.savez(file, **content)
    elif file.suffix == ".safetensors":
        save_file(content, file)
    else:
        torch.save(content, file)
    return importing.import_sets(file, target.train, tmp_path / "out", ImportOptions(**options), force=True)


def with_images(images: Tensor | np.ndarray, labels: Tensor | np.ndarray = CLASS_BY_CLASS) -> dict[str, Any]:
    """The arrays of a set for an .npz."""
    return {"images": np.asarray(images), "labels": np.asarray(labels)}


def soft_labels() -> Tensor:
    """Distributions whose largest share is the class."""
    return torch.softmax(5 * torch.nn.functional.one_hot(CLASS_BY_CLASS, C).float(), 1)


# ----------------------------------------------------------------------------------------------------------- what is taken


def test_soft_labels_follow_their_classes_to_the_datasets_order(target: Target, tmp_path: Path) -> None:
    names = (CLASSES[2], CLASSES[0], CLASSES[1])
    made = ours(target.train)
    columns = [CLASSES.index(name) for name in names]
    theirs = torch.tensor([names.index(CLASSES[k]) for k in made.hard.tolist()])
    probable = made.probabilities()
    write_parquet(tmp_path / "set.parquet", made.pixels(), theirs, probable[:, columns], names)
    found = importing.foreign_set(str(tmp_path / "set.parquet"), target.train)
    assert torch.equal(found.hard, made.hard)
    assert torch.allclose(found.probabilities(), probable, atol=1e-6)


@pytest.mark.parametrize("kind", ["folder", "webdataset"])
def test_classes_that_are_called_by_other_numbers(target: Target, tmp_path: Path, kind: str) -> None:
    names = ("0", "2", "1")  # as folders of "0" to "10" are, in the order of text
    made, like = replace(ours(target.train), class_names=names), replace(target.train, class_names=names)
    path = exporting.export(made, kind, tmp_path / "out")
    found = importing.foreign_set(str(path), like)
    assert torch.equal(found.hard, made.hard)
    assert torch.equal(found.labels.argmax(1), (made.hard if kind == "folder" else made.labels.argmax(1)))


def test_an_exact_file_of_ours_is_read_as_it_is(colour: Target, tmp_path: Path) -> None:
    file = tmp_path / "exact.safetensors"
    write_set(file, ours(colour.train))
    (back,) = importing.import_sets(file, colour.train, tmp_path / "out", ImportOptions())
    assert (back.folder / "exact.safetensors").read_bytes() == file.read_bytes()
    damaged = bytearray(file.read_bytes())
    damaged[-1] ^= 1
    file.write_bytes(damaged)
    with pytest.raises(DataError, match="not those that were written"):
        importing.import_sets(file, colour.train, tmp_path / "out", ImportOptions(), force=True)


def test_fractions_of_every_kind(colour: Target, tmp_path: Path) -> None:
    pixels = torch.rand(C * IPC, 3, 16, 16)
    order = torch.arange(C * IPC).view(C, IPC).T.flatten()
    for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn):
        content = {"images": pixels.to(dtype), "labels": CLASS_BY_CLASS}
        (made,) = imported(content, colour, tmp_path, "x.safetensors")
        assert torch.equal(made.synthetic.images, pixels.to(dtype).float()[order])


@pytest.mark.parametrize("dtype", [np.int64, np.uint16, np.uint8])
def test_whole_numbers_are_bytes(colour: Target, tmp_path: Path, dtype: type) -> None:
    whole = colour.train.images[: C * IPC]
    (made,) = imported(with_images(whole.numpy().astype(dtype)), colour, tmp_path, "x.npz")
    order = torch.arange(C * IPC).view(C, IPC).T.flatten()
    assert torch.equal(made.synthetic.images, whole[order].float() / 255)
    assert made.facts["outside"] == 0


def test_whole_numbers_that_are_no_bytes_are_refused(colour: Target, tmp_path: Path) -> None:
    whole = colour.train.images[: C * IPC].long()
    for images in (whole + 1000, whole - 1000, whole > 0):
        with pytest.raises(DataError, match="from 0 to 255"):
            imported(with_images(images), colour, tmp_path, "x.npz")
    save_file({"images": whole + 1000, "labels": CLASS_BY_CLASS}, tmp_path / "x.safetensors")
    with pytest.raises(DataError, match="from 0 to 255"):
        importing.foreign_set(str(tmp_path / "x.safetensors"), colour.train)


def test_what_was_taken_is_said_once(colour: Target, tmp_path: Path) -> None:
    sets = [list(field_set(colour.train, seed)) for seed in range(3)]
    torch.save({"data": sets}, tmp_path / "res.pt")
    heard: list[Event] = []
    importing.import_sets(
        tmp_path / "res.pt", colour.train, tmp_path / "out", ImportOptions(**stated(3)), report=heard.append
    )
    (taken,) = [event.text for event in heard if isinstance(event, Note) and event.text.startswith("Taken as: ")]
    for part in ("mean 0.5, 0.4, 0.3 and std 0.2, 0.25, 0.3", "one image in each", "hard labels", "keep their class"):
        assert part in taken


@pytest.mark.parametrize(("name", "content", "options", "said"), [
    ("x.pt", [torch.rand(C * IPC, 3, 16, 16), CLASS_BY_CLASS], {}, "pixels, 2 x 2 smaller images in each, hard"),
    ("x.npz", with_images(torch.rand(C * IPC, 3, 16, 16), soft_labels()), {"flip": False, "learned_lr": 0.5},
     r"soft labels \(probabilities\), learned learning rate 0.5, flipped images do not"),
    ("x.pt", {"data": [[torch.rand(C * IPC, 3, 16, 16), CLASS_BY_CLASS]]}, {"zca": True}, "whitened by the ZCA"),
])  # fmt: skip
def test_each_guess_is_in_the_sentence(
    colour: Target, tmp_path: Path, name: str, content: Any, options: dict[str, Any], said: str
) -> None:
    heard: list[str] = []
    torch.save(content, tmp_path / name) if name.endswith(".pt") else np.savez(tmp_path / name, **content)
    importing.import_sets(
        tmp_path / name, colour.train, tmp_path / "out", ImportOptions(**options), report=lambda e: heard.append(e.text)
    )
    assert re.search(said, heard[0])


def test_the_next_command_keeps_what_pictures_cut_off(folder: Path, target: Target, tmp_path: Path) -> None:
    for name, spread, exact in (("wide", 5.0, True), ("narrow", 0.0, False)):
        torch.save({"data": [list(field_set(target.train, spread=spread))]}, tmp_path / f"{name}.pt")
        words = ("--on", folder, "--out", tmp_path / name, "--mean", "0.5", "--std", "0.2")
        result = done("import", tmp_path / f"{name}.pt", *words)
        assert ("--exact" in result.stderr.split("Next:")[1]) == exact
        assert "Taken as: images normalised by mean 0.5" in result.stderr


# --------------------------------------------------------------------------------------------------- what stays in a folder


def test_sets_of_a_larger_import_are_not_left_among_those_of_a_smaller_one(colour: Target, tmp_path: Path) -> None:
    def brought(number: int, **options: Any) -> list[Imported]:
        sets = [list(field_set(colour.train, seed)) for seed in range(number)]
        return imported({"data": sets}, colour, tmp_path, **stated(3) | options)

    brought(3)
    for fewer in (2, 1):
        with pytest.raises(RunError, match=r"set3.ipc2\."):
            brought(fewer)
    assert len(brought(3)) == 3
    assert len(brought(4)) == 4


def test_one_set_and_several_do_not_share_a_folder(colour: Target, tmp_path: Path) -> None:
    one, more = ([list(field_set(colour.train, seed)) for seed in range(number)] for number in (1, 2))
    imported({"data": one}, colour, tmp_path, **stated(3))
    with pytest.raises(RunError, match=r"out.ipc2\."):
        imported({"data": more}, colour, tmp_path, **stated(3))


def test_sets_of_several_sizes_share_a_folder(colour: Target, tmp_path: Path) -> None:
    x, y = field_set(colour.train)
    imported({"data": [[x, y]]}, colour, tmp_path, **stated(3))
    imported({"data": [[x[::IPC], y[::IPC]]]}, colour, tmp_path, **stated(3))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["ipc1", "ipc2"]


# -------------------------------------------------------------------------------------------- options that would do nothing


@pytest.mark.parametrize("options", [
    {"zca": True, "mean": MEAN}, {"zca": True, "std": STD}, {"zca": True, "normalised": False},
    {"normalised": False, "mean": MEAN, "std": STD}, {"learned_lr": 0.0}, {"learned_lr": -1.0}, {"label_scale": 0.0},
    {"label_scale": float("inf")}, {"learned_lr": float("nan")}, {"std": (0.5, 0.0, 0.5)}, {"mean": (float("nan"),) * 3},
    {"labels": "percent"}, {"factor": 0}, {"factor": 9},
])  # fmt: skip
def test_options_that_cannot_be(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError) as caught:
        ImportOptions(**options)
    assert caught.value.hint


@pytest.mark.parametrize(("options", "said"), [
    ({"labels": "probabilities"}, "classes"), ({"label_scale": 2.0}, "classes"),
])  # fmt: skip
def test_options_of_soft_labels_need_some(colour: Target, tmp_path: Path, options: Any, said: str) -> None:
    pixels = torch.rand(C * IPC, 3, 16, 16)
    with pytest.raises(UsageError, match=said):
        imported(with_images(pixels), colour, tmp_path, "x.npz", **options)


def test_probabilities_have_no_scale(colour: Target, tmp_path: Path) -> None:
    pixels = torch.rand(C * IPC, 3, 16, 16)
    with pytest.raises(UsageError, match="no scale"):
        imported(with_images(pixels, soft_labels()), colour, tmp_path, "x.npz", label_scale=2.0)
    centred = 2 * (soft_labels() - 1 / C)
    (made,) = imported(with_images(pixels, centred), colour, tmp_path, "x.npz", label_scale=2.0)
    assert made.synthetic.label_scale == 2


@pytest.mark.parametrize("options", [{"normalised": True}, {"mean": MEAN, "std": STD}, {"zca": True}])
def test_bytes_are_neither_normalised_nor_whitened(colour: Target, tmp_path: Path, options: dict[str, Any]) -> None:
    whole = colour.train.images[: C * IPC]
    with pytest.raises(UsageError, match="bytes"):
        imported({"data": [[whole, CLASS_BY_CLASS]]}, colour, tmp_path, **options)


@pytest.mark.parametrize("name", ["x.npz", "x.safetensors"])
def test_a_format_that_the_ending_contradicts(colour: Target, tmp_path: Path, name: str) -> None:
    content = {"images": torch.rand(C * IPC, 3, 16, 16), "labels": CLASS_BY_CLASS}
    arrays = with_images(*content.values()) if name == "x.npz" else content
    with pytest.raises(UsageError, match="not of the format mtt"):
        imported(arrays, colour, tmp_path, name, format="mtt")
    assert imported(arrays, colour, tmp_path, name, format=name[2:])


def test_a_file_of_ours_says_all_of_itself(colour: Target, tmp_path: Path) -> None:
    path = exporting.export(ours(colour.train), "npz", tmp_path / "exported")
    for options in ({"factor": 2}, {"method": "dm"}, {"flip": True}):
        with pytest.raises(UsageError, match=f"--{next(iter(options))} would have no effect"):
            importing.import_sets(path, colour.train, tmp_path / "out", ImportOptions(**options))
    other = replace(colour.train, class_names=("hat", "bag", "shoe"))
    with pytest.raises(DataError, match="classes"):
        importing.import_sets(path, other, tmp_path / "out", ImportOptions())
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------------------------------ broken files


@pytest.mark.parametrize("content", [
    {"data": torch.rand(2, 2)}, {"data": 5}, {"data": []}, {"data": [[torch.rand(6, 3, 16, 16), 5]]},
    {"data": [[torch.rand(6), CLASS_BY_CLASS]]}, {"data": [[torch.rand(0, 3, 16, 16), torch.zeros(0)]]},
    {"data": [[torch.tensor(0.5), CLASS_BY_CLASS]]}, {"data": [[torch.rand(6, 3, 16, 16), CLASS_BY_CLASS + 0.5]]},
    {"data": [[torch.rand(6, 3, 16, 16), CLASS_BY_CLASS * float("nan")]]},
    {"data": [[torch.rand(6, 3, 16, 16).to_sparse(), CLASS_BY_CLASS]]},
    {"data": [[torch.rand(6, 3, 16, 16), torch.tensor(1)]]},
    {"data": [[torch.rand(6, 3, 16, 16), torch.zeros(1).expand(10**12)]]},
    {"data": [[torch.rand(1).expand(10**12, 3, 16, 16), CLASS_BY_CLASS]]},
    [torch.nested.nested_tensor([torch.rand(3, 16, 16)]), CLASS_BY_CLASS],
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_broken_files_of_torch(colour: Target, tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError) as caught:
        imported(content, colour, tmp_path, **stated(3))
    assert caught.value.hint


@pytest.mark.parametrize("changed", [
    {"images": np.zeros(6)}, {"images": np.zeros((0, 3, 16, 16)), "labels": np.zeros(0)}, {"labels": np.arange(6) / 2},
    {"lr": np.array([0.1, 0.2])}, {"lr": np.array(-1.0)}, {"lr": np.array(np.nan)}, {"soft_labels": np.zeros(6)},
    {"images": np.zeros((6, 3, 16, 16), np.complex64)},
])  # fmt: skip
def test_broken_arrays(colour: Target, tmp_path: Path, changed: dict[str, Any]) -> None:
    arrays = with_images(torch.rand(C * IPC, 3, 16, 16)) | changed
    with pytest.raises(DataError) as caught:
        imported(arrays, colour, tmp_path, "x.npz")
    assert caught.value.hint
    tensors = {name: torch.from_numpy(np.atleast_1d(array)) for name, array in arrays.items()}
    try:
        save_file(tensors, tmp_path / "x.safetensors")
    except KeyError:  # earlier versions of safetensors know no complex numbers, so there is no such file
        assert tensors["images"].is_complex()
        return
    with pytest.raises(DataError):
        importing.foreign_set(str(tmp_path / "x.safetensors"), colour.train)


def test_a_file_of_ours_that_claims_very_much(colour: Target, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"refused|not a synthetic set"):
        imported({"ddtool": "{}", "images": torch.rand(1).expand(10**12)}, colour, tmp_path)


@pytest.mark.parametrize("rate", [torch.tensor([0.1, 0.2]), torch.zeros(1, device="meta"), 10**400])
def test_a_learning_rate_that_is_none(colour: Target, tmp_path: Path, rate: Any) -> None:
    torch.save(CLASS_BY_CLASS, tmp_path / "labels_best.pt")
    torch.save(rate, tmp_path / "lr_best.pt")
    with pytest.raises(DataError, match="learning rate"):
        imported(torch.rand(C * IPC, 3, 16, 16), colour, tmp_path, "images_best.pt", **stated(3))


def npz(path: Path, packed_by: int = zipfile.ZIP_STORED, **files: bytes) -> Path:
    """A .npz file of images and labels, and of other files in it by name."""
    with zipfile.ZipFile(path, "w", packed_by) as packed:
        for name, array in with_images(torch.rand(C * IPC, 3, 16, 16)).items():
            np.lib.format.write_array(content := io.BytesIO(), np.asarray(array))
            packed.writestr(f"{name}.npy", files.pop(name, content.getvalue()))
        for name, text in files.items():
            packed.writestr(name, text)
    return path


def test_a_file_beside_the_arrays_is_left_alone(colour: Target, tmp_path: Path) -> None:
    assert importing.import_sets(npz(tmp_path / "x.npz", readme=b"hi"), colour.train, tmp_path / "out", ImportOptions())


@pytest.mark.parametrize("header", [
    "{'descr': (", "{'descr': '<f4,(', 'fortran_order': False, 'shape': (1,)}",
    f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30},)}}",
    f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({2**55},)}}",
])  # fmt: skip
def test_headers_that_numpy_cannot_take(colour: Target, tmp_path: Path, header: str) -> None:
    told = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()
    with pytest.raises(DataError, match="refused"):
        importing.import_sets(npz(tmp_path / "x.npz", images=told), colour.train, tmp_path / "out", ImportOptions())


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_torch_file_that_is_cut_off(colour: Target, tmp_path: Path, share: float) -> None:
    torch.save([torch.rand(C * IPC, 3, 16, 16), CLASS_BY_CLASS], tmp_path / "x.pt")
    raw = (tmp_path / "x.pt").read_bytes()
    (tmp_path / "x.pt").write_bytes(raw[: int(len(raw) * share)])
    with pytest.raises(DataError, match="refused"):
        importing.import_sets(tmp_path / "x.pt", colour.train, tmp_path / "out", ImportOptions())


def test_nobody_is_told_to_run_what_a_file_holds(colour: Target, tmp_path: Path) -> None:
    torch.save([print, CLASS_BY_CLASS], tmp_path / "x.pt")
    with pytest.raises(DataError, match="Unsupported global") as caught:
        importing.import_sets(tmp_path / "x.pt", colour.train, tmp_path / "out", ImportOptions())
    assert not {"weights_only", "safe_globals"} & set(re.findall(r"\w+", str(caught.value)))


def test_damaged_lzma(colour: Target, tmp_path: Path) -> None:
    file = npz(tmp_path / "x.npz", zipfile.ZIP_LZMA)
    content = bytearray(file.read_bytes())
    content[100:300] = b"\xff" * 200
    file.write_bytes(content)
    with pytest.raises(DataError, match="refused"):
        importing.import_sets(file, colour.train, tmp_path / "out", ImportOptions())


def test_damaged_compression(colour: Target, tmp_path: Path) -> None:
    file = npz(tmp_path / "x.npz", zipfile.ZIP_DEFLATED)
    with zipfile.ZipFile(file) as packed:
        entry = packed.getinfo("images.npy")
    content = bytearray(file.read_bytes())
    start = entry.header_offset + 30 + len(entry.filename) + 20  # within the compressed stream, beyond its local header
    content[start : start + 200] = b"\xff" * 200
    file.write_bytes(content)
    with pytest.raises(DataError, match="refused"):
        importing.import_sets(file, colour.train, tmp_path / "out", ImportOptions())


def test_images_too_small_for_the_factor(colour: Target, tmp_path: Path) -> None:
    tiny = replace(colour.train, images=colour.train.images[..., :4, :4])
    np.savez(tmp_path / "x.npz", **with_images(torch.rand(C * IPC, 3, 4, 4)))
    with pytest.raises(DataError, match="8 x 8"):
        importing.import_sets(tmp_path / "x.npz", tiny, tmp_path / "out", ImportOptions(factor=8))


# --------------------------------------------------------------------------------------------- sets that are only scored


def test_a_set_of_others_has_no_parts(folder: Path, target: Target, tmp_path: Path) -> None:
    made = ours(target.train)
    write_parquet(tmp_path / "set.parquet", made.pixels(), made.hard, None, CLASSES)
    for words in (("--ipc", "2"), ("--stage", "refined")):
        assert "one set" in refused(2, "evaluate", tmp_path / "set.parquet", "--on", folder, *words)


def test_hints_of_a_set_name_no_options_of_the_dataset(target: Target, tmp_path: Path) -> None:
    import datasets

    made = ours(target.train)
    write_parquet(tmp_path / "set.parquet", made.pixels(), made.hard, None, CLASSES)
    rows = datasets.Dataset.from_parquet(str(tmp_path / "set.parquet"), cache_dir=str(tmp_path / "hf"))
    needed = {"label": "Add a column with the class of each image", "image": "Save the images as files, or as a column"}
    for number, (removed, needs) in enumerate(needed.items()):
        rows.remove_columns(removed).to_parquet(tmp_path / f"{number}.parquet")
        with pytest.raises(DataError) as caught:
            importing.foreign_set(str(tmp_path / f"{number}.parquet"), target.train)
        assert "--" not in caught.value.hint
        assert caught.value.hint.startswith(needs)


def test_hints_of_values_out_of_range_are_for_the_command_that_was_typed(
    folder: Path, target: Target, tmp_path: Path
) -> None:
    save_file({"images": 3 * torch.randn(C * IPC, 1, 16, 16), "labels": CLASS_BY_CLASS}, tmp_path / "x.safetensors")
    said = refused(2, "evaluate", tmp_path / "x.safetensors", "--on", folder)
    assert "ddtool import" in said
    assert "--mean" not in said
    torch.save({"data": [list(field_set(target.train))]}, tmp_path / "x.pt")
    assert "--no-normalised" in refused(2, "import", tmp_path / "x.pt", "--on", folder, "--out", tmp_path / "out")


def test_a_copy_named_as_a_dataset_of_the_field_has_its_normalisation_in_the_hint(target: Target) -> None:
    """It is not taken, as a name may be wrong."""
    hints = {}
    for name in ("/data/mnist", "/data/clothes"):
        with pytest.raises(UsageError) as caught:
            published.published_space(replace(target.train, source={"name": name}))
        hints[name] = caught.value.hint
    assert hints["/data/mnist"].endswith("For mnist the field's code takes --mean 0.1307 --std 0.3081.")
    assert "the field's code takes" not in hints["/data/clothes"]


@pytest.mark.parametrize("changes", [
    {3: {"label_scale": 2.0}}, {0: {"label_scale": 0.0}}, {k: {"label_scale": "4"} for k in range(6)},
])  # fmt: skip
def test_soft_labels_have_one_scale(target: Target, tmp_path: Path, changes: dict[int, Any]) -> None:
    told = [{"soft_label": [0.5, -0.25, -0.25], "label_scale": 4.0} for _ in range(C * IPC)]
    web_dataset(tmp_path / "set.tar", ours(target.train), [row | changes.get(k, {}) for k, row in enumerate(told)])
    with pytest.raises(DataError, match="one positive number") as caught:
        importing.foreign_set(str(tmp_path / "set.tar"), target.train)
    assert caught.value.hint


@pytest.mark.parametrize("row", [0, 3])
def test_all_images_have_soft_labels_or_none(target: Target, tmp_path: Path, row: int) -> None:
    import pyarrow
    from pyarrow import parquet

    made, file = ours(target.train), tmp_path / "set.parquet"
    write_parquet(file, made.pixels(), made.hard, made.probabilities(), CLASSES)
    whole = parquet.read_table(file).replace_schema_metadata(None)
    at = whole.schema.get_field_index("soft_label")
    rows = [None if i == row else soft for i, soft in enumerate(whole["soft_label"].to_pylist())]
    column = pyarrow.array(
        rows, pyarrow.list_(pyarrow.float32())
    )  # a missing list of a fixed size is not for every pyarrow
    parquet.write_table(whole.set_column(at, "soft_label", column), file)
    with pytest.raises(DataError, match="Some images"):
        importing.foreign_set(str(file), target.train)


def web_dataset(path: Path, made: SyntheticSet, told: list[dict[str, Any]]) -> None:
    """A tar of images and classes with what is told of each."""
    import io
    import tarfile

    with tarfile.open(path, "w") as tar:
        for row, (image, label) in enumerate(zip(made.pixels(), made.hard.tolist(), strict=True)):
            parts = {"png": exporting.png(image), "cls": str(label).encode(), "json": json.dumps(told[row]).encode()}
            for ending, content in parts.items():
                entry = tarfile.TarInfo(f"{row:06d}.{ending}")
                entry.size = len(content)
                tar.addfile(entry, io.BytesIO(content))


# ------------------------------------------------------------------------------------------------------------- from Python


def test_paths_may_begin_at_home(folder: Path, target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(tmp_path))
    torch.save({"data": [list(field_set(target.train))]}, tmp_path / "x.pt")
    (made,) = api.import_sets("~/x.pt", "~/sets", on=str(folder), mean=(0.5,), std=(0.2,))
    assert made.folder == tmp_path / "sets" / "ipc2"
    assert read_set(made.folder / "exact.safetensors").ipc == IPC


def test_what_is_assumed_is_shown_where_that_is_asked_for(
    folder: Path, target: Target, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"data": [list(field_set(target.train))]}, tmp_path / "x.pt")
    options: dict[str, Any] = {"on": str(folder), "mean": (0.5,), "std": (0.2,)}
    events: list[Event] = []
    api.import_sets(tmp_path / "x.pt", tmp_path / "heard", report=events.append, **options)
    assert capsys.readouterr().err == ""
    api.import_sets(tmp_path / "x.pt", tmp_path / "shown", progress=True, **options)
    said = capsys.readouterr().err
    notes = [event.text for event in events if isinstance(event, Note)]
    assert notes
    assert [text for text in notes if text not in said.replace("\n", " ")] == []


def test_a_bad_option_is_found_before_a_dataset_is_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="learned-lr"):
        api.import_sets(tmp_path / "x.pt", tmp_path / "out", on="no/such-dataset", learned_lr=0)
