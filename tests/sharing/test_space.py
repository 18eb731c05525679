"""What the page of a Space computes, of repos that were pushed: pictures, other sizes, a curve; no gradio here."""

# ruff: noqa: F811  (fixtures of test_hub)

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from conftest import HUB
from hub_server import HubServer
from test_hub import (  # noqa: F401  fixtures among them
    Made,
    _quick_pauses,
    _surroundings,
    made,
    own,
    run,
    seed_hub,
)
from tiny import done

from ddtool import load_set, space
from ddtool.data.images import ImageData, SyntheticSet
from ddtool.errors import DDToolError, HubError, UsageError
from ddtool.space import HELD_OUT, TEST_SPLIT, Exhibit

Repos = list[tuple[str, str, dict[str, bytes]]]


@pytest.fixture(scope="module")
def repos(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Repos:
    """The repos of a run with sets of 1 and 4 per class."""
    folder = tmp_path_factory.mktemp("two")
    HUB.reset()
    seed_hub(HUB)
    with pytest.MonkeyPatch.context() as patch:
        from test_hub import surroundings

        surroundings(patch, folder, tmp_path_factory.getbasetemp() / "decoded")
        shutil.copytree(made.run, folder / "run")
        done("generate", "run", "--ipc", 4, "--labels", "analytical", "--precision", "fp32")
        done("push", "run", "ann/c10")
    found = [(kind, name, own(HUB, kind, name)) for kind, name in (("model", "ann/c10"), ("dataset", "ann/c10-ddtool"))]
    HUB.reset()
    return found


@pytest.fixture
def there(server: HubServer, repos: Repos) -> HubServer:
    """The Hub with these repos."""
    for kind, name, files in repos:
        server.seed(kind, name, files)
    return server


@pytest.fixture
def shown(there: HubServer) -> Exhibit:
    return Exhibit("ann/c10-ddtool", "ann/c10")


def points(found: Iterator[space.Point]) -> list[space.Point]:
    return list(found)


# ------------------------------------------------------------------------------------------------------------ the sets


def test_the_sets_are_those_of_the_repo(shown: Exhibit) -> None:
    assert shown.names == ["1 per class, refined", "4 per class, generated"]
    assert torch.equal(shown.named("4 per class, generated").images, load_set("ann/c10-ddtool", 4).images)
    assert shown.source == "cifar10"
    with pytest.raises(UsageError, match="not here"):
        shown.named("another")


def classes(found: list[tuple[Any, str]]) -> list[str]:
    """The first word below each picture."""
    return [re.split("[ :]", text)[0] for _, text in found]


def test_pictures_are_large_and_say_what_the_labels_do(shown: Exhibit) -> None:
    made = shown.named("4 per class, generated")
    found = space.pictures(made)
    assert len(found) == 12
    assert classes(found) == [name for name in tiny.CLASSES for _ in range(4)]
    image, text = found[1]  # the second of the first class
    assert image.size == (128, 128)
    assert list(image.getpixel((0, 0))) == made.pixels()[3][:, 0, 0].tolist()
    assert text.startswith(f"boot {100 * made.probabilities()[3].max().item():.0f} %")
    assert classes(space.pictures(made, 2)) == ["dress"] * 4


def test_pictures_are_not_too_many(shown: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "MOST_PICTURES", 7)
    made = shown.named("4 per class, generated")
    assert classes(space.pictures(made)) == [name for name in tiny.CLASSES for _ in range(2)]
    monkeypatch.setattr(space, "MOST_PICTURES", 2)
    assert len(space.pictures(made)) == 2


def test_names_of_others_are_one_line(shown: Exhibit) -> None:
    made = replace(shown.named("1 per class, refined"), class_names=("a\n\x1b[31mb", "c", "d"))
    assert space.pictures(made)[0][1].startswith("a [31mb ")
    hard = replace(made, label_method="hard")
    assert space.pictures(hard)[1][1] == "c"


def test_a_label_that_is_mostly_of_another_class_names_both(shown: Exhibit) -> None:
    made = shown.named("1 per class, refined")
    turned = replace(made, labels=made.labels.roll(1, 1))
    assert space.pictures(turned)[0][1].startswith("boot: coat ")


# --------------------------------------------------------------------------------------------------------- other sizes


def test_a_set_of_another_size_is_made_and_can_be_chosen(shown: Exhibit, there: HubServer) -> None:
    assert shown.largest == 4
    there.requests.clear()
    name = shown.generate(2)
    assert (name, shown.names[-1]) == ("2 per class, made here", "2 per class, made here")
    made = shown.named(name)
    assert (len(made), made.stage, made.label_method) == (6, "generated", "analytical")
    assert torch.equal(made.images, shown.named("4 per class, generated").images[:6])
    assert not [request for request in there.requests if "cifar10" in request.path], "the dataset is not fetched"
    assert shown.generate(2) == name
    assert len(shown.names) == 3


@pytest.mark.parametrize("ipc", [0, -1, 5, 10**9])
def test_sizes_are_bounded(shown: Exhibit, ipc: int) -> None:
    with pytest.raises(UsageError, match=f"Sets of {ipc} per class"):
        shown.generate(ipc)


def test_many_classes_make_smaller_sets(shown: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "MOST_GENERATED", 8)
    assert shown.largest == 2


def test_without_a_pool_nothing_is_generated(server: HubServer, run: Path) -> None:
    done("push", run, "ann/c10", "--no-pool")
    shown = Exhibit("ann/c10-ddtool", "ann/c10")
    assert shown.largest == 0
    with pytest.raises(UsageError, match="not offered"):
        shown.generate(1)


def test_without_a_generator_nothing_is_generated(there: HubServer) -> None:
    assert Exhibit("ann/c10-ddtool").largest == 0


def test_a_space_that_begins_again_pulls_again(shown: Exhibit) -> None:
    shown.generate(1)
    again = Exhibit("ann/c10-ddtool", "ann/c10")
    assert again.names == ["1 per class, refined", "4 per class, generated"]
    assert again.generate(1) == "1 per class, made here"


# ------------------------------------------------------------------------------------------------------------ training


def test_a_curve_on_real_test_images(shown: Exhibit) -> None:
    assert shown.tests == [HELD_OUT, TEST_SPLIT]
    found = points(shown.train("4 per class, generated", 40, TEST_SPLIT))
    assert [point.step for point in found] == list(range(0, 41, 2))
    assert {point.tested for point in found} == {30}
    assert all(0 <= point.accuracy <= 100 for point in found)
    assert found[0].loss == 0
    assert found == points(shown.train("4 per class, generated", 40, TEST_SPLIT)), "the same seed, the same curve"


def test_a_network_learns_from_held_out_images(shown: Exhibit, toy: ImageData) -> None:
    shown.sets["toy"] = as_set(toy, 20)
    found = points(shown.train("toy", 100))
    assert found[0].tested == 20
    assert found[-1].accuracy > 60 > found[0].accuracy


def as_set(data: ImageData, ipc: int) -> SyntheticSet:
    from ddtool.data.images import draw_pool, real_images

    return real_images(data, draw_pool(data, ipc, 0), flip=False).scaled()


def test_what_is_held_out_is_not_trained_on(toy: ImageData) -> None:
    made = as_set(toy, 5)
    taught, test = space.without_some(made)
    assert (taught.ipc, len(taught), len(test)) == (4, 16, 4)
    assert torch.equal(torch.cat([taught.pixels(), test.images]), made.pixels())
    assert sorted(test.labels.tolist()) == [0, 1, 2, 3]


def test_of_one_image_none_is_held_out(shown: Exhibit) -> None:
    with pytest.raises(UsageError, match="none can be held out"):
        shown.train("1 per class, refined", 20, HELD_OUT)


@pytest.mark.parametrize("steps", [0, -5, space.MOST_STEPS + 1])
def test_steps_are_bounded(shown: Exhibit, steps: int) -> None:
    with pytest.raises(UsageError, match="not offered"):
        shown.train("4 per class, generated", steps)


def test_a_training_ends_when_its_time_is_over(shown: Exhibit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space, "MOST_SECONDS", -1.0)
    assert [point.step for point in shown.train("4 per class, generated", 40)] == [0]


def test_a_training_can_be_left(shown: Exhibit) -> None:
    running = shown.train("4 per class, generated", 40)
    assert next(running).step == 0
    running.close()  # type: ignore[attr-defined]
    assert list(running) == []


def test_a_dataset_that_cannot_be_read_is_said(shown: Exhibit, there: HubServer) -> None:
    del there.repos["dataset", "uoft-cs/cifar10"]
    shown.sets = {name: replace(made, source=gone(made)) for name, made in shown.sets.items()}
    with pytest.raises(DDToolError):
        shown.train("4 per class, generated", 20, TEST_SPLIT)


def gone(made: SyntheticSet) -> Any:
    return dict(made.source) | {"id": "ann/gone", "name": "ann/gone", "revision": "0" * 40}


def test_local_data_is_not_looked_for(shown: Exhibit) -> None:
    shown.sets = {"a": replace(shown.named("4 per class, generated"), source={"kind": "local", "name": "clothes"})}
    assert shown.tests == [HELD_OUT]


def test_repos_that_are_not_there_are_said(server: HubServer) -> None:
    with pytest.raises(HubError, match="has no dataset"):
        Exhibit("ann/nothing-ddtool")
