"""What the page of a Space computes: the sets of a run as pictures, sets of other sizes, a network that learns from one.

The page itself is `hub_cards/space_app.py`, pushed by `ddtool push --space`. Strangers press its buttons on a small machine
without a GPU: every piece has a bound, and everything comes from the Hub by the checks of `pull` and `load_set`.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image

from ddtool import api
from ddtool.data.images import ImageData, SyntheticSet, accuracy
from ddtool.errors import UsageError
from ddtool.evaluation.measure import checked, predict, training
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.pipeline.scoring import check_classes, load_target, tested_on
from ddtool.reports.pictures import largest
from ddtool.runs.preview import as_image
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine, seeded_generator
from ddtool.sharing.sets import sets_of
from ddtool.text import one_line

MOST_GENERATED, MOST_PICTURES = 1000, 120
"""The most images of a generated set, and those of a set that are shown at once."""
MOST_STEPS, MOST_SECONDS, MOST_TESTED = 500, 180.0, 1000
"""The most steps and seconds of a training, and images that its accuracy is measured on."""
SHARES, SIDE = 3, 128
"""Classes named below a picture, and pixels of its shorter side at least."""
POINTS = 20
"""Accuracies of a curve, at most, beside that of the untrained network."""
HELD_OUT, TEST_SPLIT = "held-out images of the set", "real test images (downloads the dataset)"
"""What a training can be tested on."""
POOL = "pool/train.parquet"


@dataclass(frozen=True)
class Point:
    """A point of a curve: how many percent of `tested` images the network gets right after a step."""

    step: int
    loss: float
    accuracy: float
    tested: int


class Exhibit:
    """What a Space shows: the sets of a dataset repo, and the generator of a model repo beside it. Raises HubError or RunError
    for what cannot be had.

    dataset_repo, model_repo: names of repos of `ddtool push`;  folder: where the generator's run is kept.
    """

    def __init__(
        self, dataset_repo: str, model_repo: str | None = None, folder: str | Path = Path("runs", "space")
    ) -> None:
        self.dataset_repo, self.model_repo, self.folder = dataset_repo, model_repo, Path(folder)
        self.engine = Engine(torch.device("cpu"), bf16=False)
        self.sets = {f"{made.ipc} per class, {made.stage}": made for made in sets_of(dataset_repo)}

    @property
    def names(self) -> list[str]:
        """The sets there are now, by the names under which people choose them."""
        return list(self.sets)

    def named(self, name: str) -> SyntheticSet:
        """A set by its name; UsageError for one that is not there."""
        if name not in self.sets:
            raise UsageError("This set is not here any more.", "Choose another, or generate it again.")
        return self.sets[name]

    @property
    def source(self) -> str:
        """What the sets were made from, by name."""
        return one_line(str(next(iter(self.sets.values())).source.get("name", "a dataset")), 60)

    @cached_property
    def run(self) -> Run | None:
        """The run with the generator, pulled anew; None where there is no generator."""
        if self.model_repo is None:
            return None
        return Run.open(api.pull(self.model_repo, out=self.folder, force=True, progress=False))

    @cached_property
    def largest(self) -> int:
        """The largest IPC that can be generated here; 0 without a generator, or without its initial samples."""
        if self.run is None or not self.run.has(POOL):
            return 0
        head, each = self.run.load_label_head(), self.run.config().samples(1)
        return min((head.pool_ipc or 0) // each, max(1, MOST_GENERATED // each // len(head.class_names)))

    def generate(self, ipc: int) -> str:
        """Make a set of that size with labels of Eq. 3, in one pass on the CPU; returns its name. UsageError for a size that is
        not offered."""
        if self.run is None or not 1 <= ipc <= self.largest:
            raise UsageError(f"Sets of {ipc} per class are not offered here.", f"Up to {self.largest} can be made.")
        name = f"{ipc} per class, made here"
        self.sets[name] = api.generate(self.run, ipc, labels="analytical", engine=self.engine, progress=False)
        return name

    @property
    def tests(self) -> list[str]:
        """What a training can be tested on: real images only where the set says which dataset it is from."""
        kind = next(iter(self.sets.values())).source.get("kind")
        return [HELD_OUT, TEST_SPLIT] if kind in ("hub", "sample") else [HELD_OUT]

    @cached_property
    def test_images(self) -> ImageData:
        """Some images of the source's test split, the same each time. Raises DataError where it cannot be read."""
        first = next(iter(self.sets.values()))
        target = load_target(tested_on(first, None), lambda event: None)
        check_classes(first, target.train)
        test = target.test()
        rows = torch.randperm(len(test), generator=seeded_generator("cpu", 0, "space"))[:MOST_TESTED]
        return replace(test, images=test.images[rows], labels=test.labels[rows])

    def train(self, name: str, steps: int, tested: str = HELD_OUT) -> Iterator[Point]:
        """A network of the protocol `quick` that learns from a set: its accuracy before the first step and about `POINTS` times
        on the way. It ends after `steps` or `MOST_SECONDS`; UsageError for more than `MOST_STEPS`, or nothing to test on."""
        if not 1 <= steps <= MOST_STEPS:
            raise UsageError(f"{steps} steps are not offered here.", f"From 1 to {MOST_STEPS} can be made.")
        made = self.named(name)
        taught, test = (made, self.test_images) if tested == TEST_SPLIT else without_some(made)
        return curve(taught, test, steps, self.engine)


def pictures(made: SyntheticSet, label: int | None = None) -> list[tuple[Image.Image, str]]:
    """Images of a set, those of a class beside each other, with what their soft labels say: of one class, or of all."""
    C = made.num_classes
    classes = [label] if label is not None else list(range(C))
    each = max(1, min(made.ipc, MOST_PICTURES // len(classes)))
    rows = [k * C + c for c in classes for k in range(each)][:MOST_PICTURES]  # a set is image-major
    shares = made.probabilities()[rows].tolist()
    return [
        (enlarged(as_image(made.images[row])), caption(made, row, share))
        for row, share in zip(rows, shares, strict=True)
    ]


def enlarged(image: Image.Image) -> Image.Image:
    """A small image in larger pixels, so that a browser does not blur it."""
    times = max(1, -(-SIDE // min(image.size)))
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def caption(made: SyntheticSet, row: int, share: list[float]) -> str:
    """The classes of which the soft label of an image has most, its own class before them where that is not the first."""
    name = one_line(made.class_names[int(made.hard[row])], 40)
    if made.label_method == "hard":
        return name
    parts = largest(share, made.class_names)[:SHARES]
    said = ", ".join(f"{part.name} {part.percent:.0f} %" for part in parts)
    return said if parts[0].name == name else f"{name}: {said}"


def without_some(made: SyntheticSet) -> tuple[SyntheticSet, ImageData]:
    """The set without the last quarter of its images (at least one of each class), and those as a test split.

    Raises UsageError for a set of one image per class.
    """
    whole = made.decoded()
    kept = whole.ipc - max(1, whole.ipc // 4)
    if kept < 1:
        raise UsageError("Of one image per class none can be held out.", "Choose another set, or real test images.")
    m = kept * whole.num_classes
    images, labels = whole.pixels(), whole.hard
    taught = replace(whole, images=whole.images[:m], labels=whole.labels[:m], hard=labels[:m], ipc=kept)
    return taught, ImageData(images[m:], labels[m:], whole.class_names, whole.mean, whole.std, whole.source)


def curve(taught: SyntheticSet, test: ImageData, steps: int, engine: Engine) -> Iterator[Point]:
    """The accuracy on `test` of a network that learns from `taught`."""
    whole, began = taught.decoded(), time.monotonic()
    for step, (net, loss) in enumerate(training(whole, PROTOCOLS["quick"], steps, engine, (0, 0))):
        late = time.monotonic() - began > MOST_SECONDS
        if step % max(1, steps // POINTS) == 0 or step == steps or late:
            scores = predict(engine.wrap(net.eval()), test, whole.transform)
            net.train()
            yield Point(step, checked(loss, "training"), accuracy(scores, test.labels), len(test))
        if late:
            return
