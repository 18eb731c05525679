"""Real images instead of synthetic ones: herding against a search over all candidates, random against the task's rows."""

from dataclasses import replace

import pytest
import torch
from conftest import toy_images
from method_case import ENGINE, TINY, method_of, task_of
from torch import Tensor

from ddtool.config import FitConfig
from ddtool.data.images import ImageData
from ddtool.methods import distil
from ddtool.methods.mgdd import predictor
from ddtool.methods.selection import centres, herd
from ddtool.models.convnet import RandomFeatures


def brute_force(F: Tensor, k: int) -> list[int]:
    """Each time the candidate with which the mean of the chosen is nearest to the mean of all."""
    rows = F.double().tolist()
    mean = [sum(column) / len(rows) for column in zip(*rows, strict=True)]
    chosen: list[int] = []
    for _ in range(k):
        distances = {}
        for i in set(range(len(rows))) - set(chosen):
            sums = [sum(column) for column in zip(*(rows[j] for j in [*chosen, i]), strict=True)]
            distances[i] = sum((a - s / (len(chosen) + 1)) ** 2 for a, s in zip(mean, sums, strict=True))
        chosen.append(min(distances, key=lambda i: distances[i]))
    return chosen


@pytest.mark.parametrize("seed", range(5))
def test_herd_chooses_what_a_search_finds(seed: int) -> None:
    F = torch.randn(15, 4, generator=torch.Generator().manual_seed(seed)) + 3
    assert herd(F, 6).tolist() == brute_force(F, 6)


def test_herd_takes_no_row_twice() -> None:
    F = torch.tensor([[0.0], [0.0], [100.0], [-100.0]])  # the first is best again and again
    assert herd(F, 2).tolist() in ([0, 1], [1, 0])
    assert sorted(herd(F, 4).tolist()) == [0, 1, 2, 3]


def rows_of(X: Tensor, task_rows: Tensor) -> list[int]:
    """Which real images those of X (m, c, h, w) are; every one has to be found."""
    same = (X[:, None] == task_rows[None]).flatten(2).all(2)
    assert same.any(1).all()
    return same.float().argmax(1).tolist()


def test_herding_herds_every_class_in_the_features_of_a_random_network(toy: ImageData) -> None:
    task = task_of(toy, ipc=3)
    method = method_of("herding", task)
    f = RandomFeatures(toy.shape, (4, 8), "none", ENGINE, ENGINE.rng(0, "herding"))
    everything, _ = task.real.at(torch.arange(len(toy)))
    spent = distil(method)
    found = rows_of(method.result()[0], everything)
    assert len(set(found)) == 12
    assert toy.labels[found].tolist() == [0, 1, 2, 3] * 3  # image-major, as the labels say
    assert spent.steps == 0
    assert spent.overhead_seconds > 0
    assert TINY["herding"]["width"] == 8
    for label in range(4):
        rows = (toy.labels == label).nonzero().flatten()
        expected = rows[brute_force(f(everything[rows]), 3)].tolist()
        assert found[label::4] == expected


def test_random_is_the_tasks_rows(toy: ImageData) -> None:
    task = task_of(toy, ipc=3, seed=4)
    method = method_of("random", task)
    assert distil(method).steps == 0
    X, Y = method.result()
    for got, expected in zip((X, Y), task.real.at(task.rows), strict=True):
        assert torch.equal(got, expected)
    assert toy.labels[task.rows].tolist() == [0, 1, 2, 3] * 3
    other = method_of("random", task_of(toy, ipc=3, seed=5))
    assert not torch.equal(other.result()[0], X)


@pytest.mark.parametrize("seed", range(5))
def test_centres_are_each_time_the_farthest(seed: int) -> None:
    features = torch.randn(15, 4, generator=torch.Generator().manual_seed(seed)).double()
    distances = (features[:, None] - features[None]).norm(dim=2)
    found = centres(features, 6).tolist()
    assert found[0] == int((features - features.mean(0)).norm(dim=1).argmin())
    for n in range(1, 6):
        left = [i for i in range(15) if i not in found[:n]]
        assert found[n] == max(left, key=lambda i: min(float(distances[i, j]) for j in found[:n]))
    assert sorted(centres(torch.zeros(4, 2), 4).tolist()) == [0, 1, 2, 3]  # alike, and none twice


@pytest.mark.parametrize(("keep", "largest"), [("hard", True), ("easy", False)])
def test_el2n_keeps_the_images_with_the_largest_error(toy: ImageData, keep: str, largest: bool) -> None:
    task = task_of(toy, ipc=3)
    scores = torch.rand(len(toy), generator=torch.Generator().manual_seed(1))
    method = method_of("el2n", task, keep=keep)
    method.errors = lambda: scores  # type: ignore[attr-defined]
    rows = method.chosen()  # type: ignore[attr-defined]
    assert toy.labels[rows].tolist() == [0, 1, 2, 3] * 3
    for label in range(4):
        of_class = scores[toy.labels == label].sort(descending=largest).values[:3]
        assert scores[rows][label::4].tolist() == of_class.tolist()


def test_el2n_is_the_distance_of_softmax_and_class(toy: ImageData) -> None:
    method = method_of("el2n", task_of(toy), epochs=12, net_lr=0.05, net_batch=20)
    errors = method.errors()  # type: ignore[attr-defined]
    assert errors.shape == (len(toy),)
    assert errors.min() > 0
    assert errors.max() < 2**0.5
    chance = (3 / 4) ** 0.5 * 1.0  # of a uniform guess among four: sqrt((3/4)² + 3/16)
    assert errors.mean() < chance  # the network has learned something
    assert distil(method_of("el2n", task_of(toy))).overhead_seconds > 0


@pytest.mark.parametrize("name", ["random", "herding", "k-centre", "el2n"])
def test_fitted_labels_are_better_for_the_same_images(toy: ImageData, name: str) -> None:
    task = task_of(toy, ipc=3)
    plain, fitted = method_of(name, task, width=64), method_of(name, task, labels="fitted", fit_networks=32, width=64)
    for method in (plain, fitted):
        distil(method)
    (X, Y), (same, labels) = plain.result(), fitted.result()
    assert torch.equal(X, same)
    assert (plain.label_method, fitted.label_method) == ("hard", "fitted")
    assert not torch.equal(Y, labels)
    rng = ENGINE.rng(7, "other")
    f = RandomFeatures(toy.shape, (32, 64), "none", ENGINE, rng)
    X_t, Y_t = task.real.at(torch.arange(len(toy)))
    A = torch.cat(
        [torch.matmul(*predictor(f.draw(rng), X_t, X, FitConfig(augmented_copies=0), 0, rng)) for _ in range(20)]
    )
    errors = [float((A @ one - Y_t.repeat(20, 1)).square().mean()) for one in (labels, Y)]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("name", ["herding", "k-centre", "el2n"])
def test_a_class_with_fewer_images_gives_them_again_in_turn(name: str) -> None:
    """As `--set allow_repeat=true` allows."""
    data = toy_images(3, seed=1)
    rows = method_of(name, task_of(data, ipc=3)).chosen().view(3, 4)
    more = method_of(name, replace(task_of(data, ipc=3), ipc=7)).chosen().view(7, 4)
    assert torch.equal(more, torch.cat([rows, rows, rows[:1]]))
