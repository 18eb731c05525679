"""Real images instead of synthetic ones: herding against a search over all candidates, random against the task's rows."""

import pytest
import torch
from method_case import ENGINE, TINY, method_of, task_of
from torch import Tensor

from ddtool.data.images import ImageData
from ddtool.methods import distil
from ddtool.methods.selection import herd
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
