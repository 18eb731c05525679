"""A target of more bytes than there is to work in: no stage takes all of its images at once."""

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch

from ddtool import api
from ddtool.data.images import ImageData
from ddtool.errors import UsageError
from ddtool.evaluation import nearest
from ddtool.events import silent
from ddtool.pipeline import plan
from ddtool.sources import load as sources

EACH = 500
"""Training images of each of the three classes."""
ALL = 3 * EACH
SIZE = ALL * 16 * 16
"""Their bytes: grey, 16x16."""
MOST = 1000
"""Images that any step takes at once: the real images of a network of the trial."""


class Watched(torch.Tensor):
    """Images that remember how many of them were ever indexed or moved at once."""

    taken = 0

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = super().__torch_function__(function, types, args, kwargs or {})
        if function in (torch.Tensor.to, torch.Tensor.__getitem__) and out.dtype == torch.uint8:
            Watched.taken = max(Watched.taken, len(out))
        return out


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tiny.image_folder(tmp_path_factory.mktemp("data") / "clothes", train=10)
    for picture in sorted((folder / "train").rglob("*.png")):
        for copy in range(1, EACH // 10):
            shutil.copy(picture, picture.with_name(f"{picture.stem}-{copy}.png"))
    return folder


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> type[Watched]:
    """The images of whatever is loaded."""
    load = sources.load

    def watching(*args: Any, **options: Any) -> sources.Target:
        target = load(*args, **options)
        images = target.train.images.as_subclass(Watched)
        return dataclasses.replace(target, train=dataclasses.replace(target.train, images=images))

    monkeypatch.setattr(sources, "load", watching)
    monkeypatch.setattr(nearest, "AT_ONCE", 2**14)
    monkeypatch.setattr(Watched, "taken", 0)
    tiny.shorten_protocols(monkeypatch)
    return Watched


FEW = tiny.SETTINGS | {"labels": {"width": 16, "images": 100}, "whitening": {"images": 100}}
FIELD = {"baseline": {"width": 8, "real_batch": 4, "steps": 2}, "whitening": {"kind": "none"}, "flip": False}


@pytest.mark.parametrize(
    ("method", "memory", "most"), [("dm", SIZE, ALL), ("dm", SIZE - 1, MOST), ("mgdd", SIZE - 1, MOST)]
)
def test_images_that_are_too_many_stay_where_they_are(
    method: str, memory: int, most: int, dataset: Path, watched: type[Watched], tmp_path: Path
) -> None:
    engine = dataclasses.replace(tiny.ENGINE, memory=memory)
    options = {"generator": "scratch", "settings": FEW} if method == "mgdd" else {"settings": FIELD}
    run = api.adapt(str(dataset), ipc=2, out=tmp_path / "run", method=method, engine=engine, **options)
    assert len(run.load_set(2)) == 6
    assert 0 < watched.taken <= most
    assert (watched.taken == ALL) is (memory == SIZE)


def test_captured_steps_are_refused_where_images_stay_on_the_host(dataset: Path, tmp_path: Path) -> None:
    engine, folder = dataclasses.replace(tiny.ENGINE, graphs=True, memory=SIZE - 1), tmp_path / "run"
    options = {"generator": "scratch", "settings": FEW}
    with pytest.raises(UsageError, match="captured steps cannot read") as caught:
        api.adapt(str(dataset), ipc=2, out=folder, engine=engine, **options)
    assert "leave --graphs out" in caught.value.hint
    assert not folder.exists()
    begun = api.start(
        api.resolve(engine, "small", {"dataset": str(dataset), "ipc": [2]} | FEW), folder, tiny.ENGINE, False, silent
    )
    with pytest.raises(UsageError, match="captured steps cannot read"):
        api.resume(begun.folder, engine=engine)


def test_the_estimate_counts_images_where_all_are_on_the_device(toy: ImageData) -> None:
    config, size = api.RunConfig(dataset="toy", method="dm"), toy.images.nbytes
    larger, smaller = (
        plan.memory(config, toy, dataclasses.replace(tiny.ENGINE, memory=memory)) for memory in (size, size - 1)
    )
    assert larger - smaller == size


def test_what_adaptation_has_seen_is_gone_when_it_is_over(tmp_path: Path) -> None:
    """In a process of its own, where the run makes the first optimiser; Python collects no garbage there by itself."""
    code = """
import gc, sys, weakref, tiny
from pathlib import Path
from ddtool.pipeline import adapt as stages

seen, pool_of, adapt_generator = [], stages.pool_of, stages.adapt_generator

def noted(*what):
    pool = pool_of(*what)
    seen.append(weakref.ref(pool.X_s))
    return pool

def watched(*what):
    adapt_generator(*what)
    print("held" if seen[0]() is not None else "gone")
    sys.exit()

gc.disable()
assert "torch._dynamo" not in sys.modules
stages.pool_of, stages.adapt_generator = noted, watched
folder = Path(sys.argv[1])
tiny.adapt(tiny.image_folder(folder / "data"), folder / "run", settings=tiny.SETTINGS)
"""
    ended = tiny.python(code, tmp_path, PYTHONPATH=os.pathsep.join([str(tiny.ROOT), str(tiny.ROOT / "tests")]))
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.split() == ["gone"]
