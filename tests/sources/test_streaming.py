"""--streaming: a dataset of the Hub is read over HTTP without its files on disk, and is the same as when it is downloaded."""

import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import HUB
from hub_server import CutDownload, HubServer, ResetBefore, ResetDownload
from PIL import Image

from ddtool.errors import DataError
from ddtool.events import Event, Note, Step
from ddtool.sources import load as sources
from ddtool.sources import tables
from ddtool.sources.options import DataOptions

CLASSES = ("ant", "bee", "cat")
STREAMED = DataOptions(streaming=True)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients' pauses between two tries are none."""
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)


def drawing(seed: int, side: int = 12) -> bytes:
    """A PNG of noise that no other seed has."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def shard(images: list[Any], labels: list[int], names: tuple[str, ...] = CLASSES, group: int = 10) -> bytes:
    """A parquet file as `datasets` writes it, in groups of so many rows."""
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    cells = [image if isinstance(image, dict) else {"bytes": image, "path": None} for image in images]
    columns = {
        "image": pa.array(cells, pa.struct({"bytes": pa.binary(), "path": pa.string()})),
        "label": pa.array(labels, pa.int64()),
    }
    told = {"huggingface": json.dumps({"info": {"features": features}})}
    stream = io.BytesIO()
    pq.write_table(pa.table(columns).replace_schema_metadata(told), stream, row_group_size=group)
    return stream.getvalue()


def seed(server: HubServer, repo: str, rows: int = 60, side: int = 12, **files: bytes) -> str:
    """A repo of two shards to train on, of which the second has the names in another order, and one to score on."""
    labels = np.random.default_rng(0).integers(0, 3, rows).tolist()
    half, turned = rows // 2, (CLASSES[2], CLASSES[0], CLASSES[1])
    theirs = [turned.index(CLASSES[label]) for label in labels]
    images = [drawing(i, side) for i in range(rows)]
    content = {
        "data/train-00000-of-00002.parquet": shard(images[:half], labels[:half]),
        "data/train-00001-of-00002.parquet": shard(images[half:], theirs[half:], turned),
        "data/test-00000-of-00001.parquet": shard([drawing(1000 + i, side) for i in range(9)], [0, 1, 2] * 3),
        "README.md": b"---\nlicense: mit\n---\n",
    }
    server.seed("dataset", repo, content | files)
    return repo


def entry(cache: Path) -> tuple[str, dict[str, bytes]]:
    """(name, files) of the only entry of a cache."""
    (folder,) = [path.parent for path in cache.rglob("meta.json")]
    return folder.name, {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def kept_files() -> set[Path]:
    """All files of the clients' caches."""
    return {path for path in Path(os.environ["HF_HOME"]).rglob("*") if path.is_file()}


def fetched(server: HubServer) -> int:
    """How many bytes of large files were answered."""
    return sum(request.answered for request in server.requests if "/storage/" in request.path)


def texts(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Note)]


@pytest.mark.parametrize("options", [{}, {"max_per_class": 4, "seed": 3}, {"resolution": 8}])
def test_streamed_data_is_the_same_as_downloaded(server: HubServer, tmp_path: Path, options: dict[str, Any]) -> None:
    name, heard = seed(server, f"ann/bugs-{len(options)}{sum(options.values())}"), (list[Event](), list[Event]())
    before = kept_files()
    streamed = sources.load(
        name, DataOptions(**options, streaming=True), cache_dir=tmp_path / "a", report=heard[0].append
    )
    left = {path.name for path in kept_files() - before}
    assert not [file for file in left if file.endswith((".parquet", ".arrow", ".png"))], left
    whole = sources.load(name, DataOptions(**options), cache_dir=tmp_path / "b", report=heard[1].append)
    assert any(path.suffix == ".arrow" for path in kept_files() - before)  # which the download leaves
    for part, other in ((streamed.train, whole.train), (streamed.test(), whole.test())):
        assert part.images.equal(other.images)
        assert part.labels.equal(other.labels)
        assert (part.mean, part.std, part.class_names, part.source) == (
            other.mean, other.std, other.class_names, other.source,
        )  # fmt: skip
    assert entry(tmp_path / "a") == entry(tmp_path / "b")
    assert texts(heard[0]) == texts(heard[1])


def test_an_entry_of_either_way_is_opened_by_both(server: HubServer, tmp_path: Path) -> None:
    name = seed(server, "ann/ants")
    for first, second, cache in ((True, False, "a"), (False, True, "b")):
        made = sources.load(name, DataOptions(streaming=first), cache_dir=tmp_path / cache)
        server.requests.clear()
        found = sources.load(name, DataOptions(streaming=second), cache_dir=tmp_path / cache)
        assert found.train.images.equal(made.train.images)
        assert not [request for request in server.requests if "resolve" in request.path or "storage" in request.path]


def test_only_the_label_column_and_the_groups_that_are_used_are_asked_for(server: HubServer, tmp_path: Path) -> None:
    labels = sorted([0, 1, 2] * 40)  # in groups of ten rows: four groups a class
    content = {"train.parquet": shard([drawing(i, 64) for i in range(120)], labels)}
    content["test.parquet"] = shard([drawing(1000 + i, 64) for i in range(3)], [0, 1, 2])
    server.seed("dataset", "ann/large", content)
    whole = sum(map(len, content.values()))
    reader = tables.Tables(sources.names.resolve("ann/large", None, None, tmp_path), streaming=True)
    server.requests.clear()
    assert reader.values("train", "label") == labels
    assert fetched(server) < whole / 100
    server.requests.clear()
    target = sources.load("ann/large", DataOptions(streaming=True, max_per_class=1))
    assert target.train.class_counts().tolist() == [1, 1, 1]
    assert fetched(server) < whole / 2  # three of twelve groups, once to see the first image


@pytest.mark.parametrize("fault", [ResetDownload(100), CutDownload(100), ResetBefore()])
def test_a_connection_that_breaks_is_taken_up_again(server: HubServer, fault: Any) -> None:
    name = seed(server, f"ann/{type(fault).__name__}")
    server.fault(r"GET /storage/", fault, times=4)
    target = sources.load(name, STREAMED)
    assert (len(target.train), target.test_size) == (60, 9)


def test_a_connection_that_is_gone_is_an_error_and_not_a_broken_image(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "LABELS", 5)
    name = seed(server, "ann/gone")
    loose(server, "ann/gone-too")

    def after_the_labels(event: Event) -> None:
        if isinstance(event, Step) and event.phase == "read labels":
            server.fault(r"GET /(storage|datasets)/", ResetBefore(), times=None)

    for repo in (name, "ann/gone-too"):
        with pytest.raises(DataError, match=f"'{repo}' cannot be read") as caught:
            sources.load(
                repo, DataOptions(streaming=True, skip_broken=0.5), cache_dir=tmp_path, report=after_the_labels
            )
        assert "Check the connection" in caught.value.hint
        server.faults.clear()
    assert not list(tmp_path.rglob("meta.json"))
    assert not list(tmp_path.glob(".tmp-*"))


def test_offline_a_set_that_was_not_read_before_cannot_be_streamed(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = seed(server, "ann/later")
    made = sources.load(name, STREAMED)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    server.requests.clear()
    assert sources.load(name, STREAMED).train.images.equal(made.train.images)
    with pytest.raises(DataError, match="HF_HUB_OFFLINE is set, so 'ann/later' cannot be streamed") as caught:
        sources.load(name, DataOptions(streaming=True, resolution=8))
    assert "Leave --streaming out" in caught.value.hint
    assert not server.requests


def test_a_private_set_is_streamed_by_the_token_that_the_storage_never_sees(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = seed(server, "ann/secret")
    server.repos["dataset", name].private = True
    with pytest.raises(DataError, match="no dataset on the Hub"):
        sources.load(name, STREAMED)
    server.add_token("hf_ann", "ann", "read")
    monkeypatch.setenv("HF_TOKEN", "hf_ann")
    assert len(sources.load(name, STREAMED).train) == 60
    asked = [request for request in server.requests if "/storage/" in request.path]
    assert asked
    assert not any(request.authorised for request in asked)


def test_a_broken_image_is_named_by_row_and_shard(server: HubServer) -> None:
    rows = [drawing(0), drawing(1), b"nothing", drawing(3)]
    name = seed(server, "ann/torn", **{"data/train-00001-of-00002.parquet": shard(rows, [0, 1, 2, 0])})
    said = []
    for options in (STREAMED, DataOptions()):
        with pytest.raises(
            DataError, match=r"row 32 of split 'train' \(row 2 of train-00001-of-00002.parquet\)"
        ) as caught:
            sources.load(name, options)
        said.append(str(caught.value))
    assert said[0] == said[1]


# --- what is not in parquet -----------------------------------------------------------------------------------------


def loose(server: HubServer, repo: str) -> str:
    """A repo of image files in folders by class."""
    files = {
        f"{split}/{name}/{i}.png": drawing(100 * k + i + 7 * len(split))
        for split in ("train", "test") for k, name in enumerate(CLASSES) for i in range(4)
    }  # fmt: skip
    server.seed("dataset", repo, files)
    return repo


def webdataset(server: HubServer, repo: str) -> str:
    """A repo of a tar for each split, of samples with a picture and the number of a class."""
    files = {}
    for split, first in (("train", 0), ("test", 50)):
        with tarfile.open(fileobj=(stream := io.BytesIO()), mode="w") as archive:
            for i in range(9):
                for name, raw in ((f"{i:03}.png", drawing(first + i)), (f"{i:03}.cls", str(i % 3).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(raw)
                    archive.addfile(member, io.BytesIO(raw))
        files[f"data/{split}-00000.tar"] = stream.getvalue()
    server.seed("dataset", repo, files)
    return repo


@pytest.mark.parametrize("seeded", [loose, webdataset])
def test_image_files_and_webdataset_are_streamed_too(
    server: HubServer, tmp_path: Path, seeded: Callable[[HubServer, str], str]
) -> None:
    name, before = seeded(server, f"ann/{seeded.__name__}"), kept_files()
    part = {"max_per_class": 2}
    streamed = sources.load(name, DataOptions(streaming=True, **part), cache_dir=tmp_path / "a")
    assert not [path for path in kept_files() - before if path.suffix in (".png", ".tar", ".arrow")]
    sources.load(name, DataOptions(**part), cache_dir=tmp_path / "b")
    assert streamed.train.class_counts().tolist() == [2, 2, 2]
    assert entry(tmp_path / "a") == entry(tmp_path / "b")


def test_archives_have_to_be_downloaded(server: HubServer) -> None:
    with zipfile.ZipFile(stream := io.BytesIO(), "w") as archive:
        for i in range(6):
            archive.writestr(f"{CLASSES[i % 3]}/{i}.png", drawing(i))
    server.seed("dataset", "ann/zipped", {"train.zip": stream.getvalue()})
    with pytest.raises(DataError, match=r"in archives \('train.zip'\), which have to be downloaded") as caught:
        sources.load("ann/zipped", STREAMED)
    assert "Leave --streaming out" in caught.value.hint


def test_rows_may_name_no_file_outside_the_repo(server: HubServer) -> None:
    for place in ("hf://datasets/ann/other@main/1.png", "/etc/hostname", f"{HUB.url}/1.png"):
        rows = [drawing(0), {"bytes": None, "path": place}]
        server.seed("dataset", "ann/rows", {"train.parquet": shard(rows * 3, [0, 1, 2] * 2)})
        with pytest.raises(DataError, match="row 1 of split 'train' is not in the dataset"):
            sources.load("ann/rows", STREAMED)


def test_reading_says_how_far_it_is(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "LABELS", 10)
    name, heard = seed(server, "ann/far"), list[Event]()
    sources.load(name, STREAMED, report=heard.append)
    steps = [event for event in heard if isinstance(event, Step)]
    assert [(step.step, step.total) for step in steps if step.phase == "read labels"][:6] == [
        (10 * i, 60) for i in range(1, 7)
    ]
    assert [(step.step, step.total) for step in steps if step.phase == "decode train"][-1] == (60, 60)
