"""Figures of others beside those of a comparison: which they are, and that every format shows them."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_jobs import REQUEST, WORDS, A, finish, job
from tiny import done, image_folder

from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import known_methods
from ddtool.experiments.published import EQUAL_STEPS, FULL_BUDGET, PROTOCOL, TITLES, Published, known_dataset, published
from ddtool.experiments.report import render
from ddtool.experiments.table import CONTROL, gather
from ddtool.experiments.words import lead, notes
from ddtool.methods import METHODS

QUOTED = ", as quoted in Prioritize Alignment in Dataset Distillation (2024), table 1"
"""Where the figures of CIFAR-10 are from."""


@pytest.mark.parametrize(
    ("dataset", "method", "ipc", "says"),
    [
        ("cifar10", "dsa", 10, (48.7, 52.1, "dsa-ce", f"Zhao and Bilen, ICML 2021{QUOTED}")),
        ("cifar10", "frepo", 1, (25.2, 46.8, "frepo-mse", f"Zhou, Nezhadarya and Ba, NeurIPS 2022{QUOTED}")),
        ("cifar100", "frepo", 50, (None, 44.3, "frepo-mse", "Zhou, Nezhadarya and Ba, NeurIPS 2022")),
        ("cifar10", "mtt", 50, (56.5, 71.6, "dsa-ce", f"Cazenavette et al., CVPR 2022{QUOTED}")),
        ("mnist", "dsa", 50, (98.3, 99.2, "dsa-ce", "Zhao and Bilen, ICML 2021")),
        ("fashion_mnist", "mgdd-generator", 50, (87.2, None, "", "")),
        ("cifar10", "mgdd", 10, (None, None, "", "")),  # refined: ours
        ("cifar10", "random+labels", 10, (None, None, "", "")),
        ("cifar10", "dsa", 20, (None, None, "", "")),
        ("sample", "dsa", 10, (None, None, "", "")),
    ],
)
def test_figures_are_those_of_their_sources(dataset: str, method: str, ipc: int, says: tuple[Any, ...]) -> None:
    assert published(dataset, method, ipc) == Published(*says)


def test_real_images_have_the_table_of_another_paper_as_their_source() -> None:
    for method, figure in (("random", 31.0), (CONTROL, 84.8)):
        found = published("cifar10", method, 10)
        assert (found.equal_steps, found.full_budget, found.protocol) == (None, figure, "dsa-ce")
        assert "table 1" in found.source


def test_figures_are_of_methods_and_datasets_that_there_are() -> None:
    for table in (EQUAL_STEPS, FULL_BUDGET):
        assert set(table) <= set(TITLES)
        for figures in table.values():
            assert set(figures) <= {CONTROL, *known_methods()}
            for one in figures.values():
                assert all(value is None or 0 < value < 100 for value in one)
    assert set(PROTOCOL) <= set(METHODS)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("cifar10", "cifar10"), ("uoft-cs/cifar10@abc", "cifar10"), ("/data/CIFAR-10/", "cifar10"),
        ("zalando-datasets/fashion_mnist", "fashion_mnist"), ("C:\\data\\FashionMNIST", "fashion_mnist"),
        ("hf://datasets/ylecun/mnist", "mnist"), ("sample", None), ("cifar10-corrupted", None), ("", None),
    ],
)  # fmt: skip
def test_a_dataset_is_known_by_the_last_part_of_its_name(name: str, short: str | None) -> None:
    assert known_dataset(name) == short


@pytest.fixture
def cifar(folder: Folder) -> Folder:
    """Finished jobs on CIFAR-10, by quick."""
    jobs = [A, *(job(method, ipc=1) for method in ("dsa", "frepo", "mgdd-generator", "mgdd"))]
    folder.add(replace(REQUEST, dataset="cifar10"), jobs, False)
    for one in jobs:
        finish(folder, one, 20.0, 2.0)
    return folder


def test_every_format_shows_them(cifar: Folder) -> None:
    render(cifar)
    text = (cifar.path / "results.md").read_text()
    assert "| method | accuracy, % | the paper, % | published by dsa-ce, % | steps |" in text
    assert "| random real images | 20.0 (n=1) | – | 15.4 | 0 |" in text
    assert "| DSA (Zhao and Bilen, 2021) | 20.0 (n=1) | 28.1 | 28.8 | 100 |" in text
    assert "| FRePo (Zhou et al., 2022) | 20.0 (n=1) | 25.2 | 46.8 (frepo-mse) | 100 |" in text
    assert "| MGDD, generator alone | 20.0 (n=1) | 42.6 | – | 100 |" in text
    page = (cifar.path / "report.html").read_text()
    assert '<td class="aside">28.1</td><td class="aside">28.8</td>' in page
    assert '<td class="aside">46.8 (frepo-mse)</td>' in page
    lines = {line["method"]: line for line in csv.DictReader(io.StringIO((cifar.path / "results.csv").read_text()))}
    said = json.loads((cifar.path / "results.json").read_text())
    (frepo,) = (row for row in said["rows"] if row["method"] == "frepo")
    names = ("equal_steps_accuracy", "published_accuracy", "published_protocol", "published_source")
    assert [frepo[name] for name in names] == [
        25.2,
        46.8,
        "frepo-mse",
        f"Zhou, Nezhadarya and Ba, NeurIPS 2022{QUOTED}",
    ]
    assert [lines["frepo"][name] for name in names] == [str(frepo[name]) for name in names]
    assert [lines["mgdd"][name] for name in names] == [""] * 4
    for shown in (text, page, "\n".join(said["notes"])):
        assert "DSA: Zhao and Bilen, ICML 2021" in shown
        assert "S. Liu and X. Wang, MGDD, NeurIPS 2023" in shown


def test_figures_are_not_of_sets_that_hold_more_images(folder: Folder) -> None:
    ours, theirs = job("mgdd-generator", ipc=1), job("idc", ipc=1)
    folder.add(replace(REQUEST, dataset="cifar10"), [ours, theirs], False)
    finish(folder, ours, 45.0, 2.0, factor=2)
    finish(folder, theirs, 30.0, 2.0, factor=2)
    rows = {row.method: row for row in gather(folder).rows}
    assert rows["mgdd-generator"].title == "MGDD, generator alone, 4 images in the place of one"
    assert (rows["mgdd-generator"].factor, rows["mgdd-generator"].equal_steps_accuracy) == (2, None)
    assert rows["idc"].equal_steps_accuracy == 25.3


def test_a_job_that_waits_has_the_factor_that_it_was_asked_for(folder: Folder) -> None:
    own: dict[str, Any] = {"mgdd-generator": {"factor": 2}, "idc": {"baseline": {"factor": 1}}}
    jobs = [job("mgdd-generator", ipc=1), job("idc", ipc=1)]
    folder.add(replace(REQUEST, dataset="cifar10", own=own), jobs, False)
    rows = {row.method: row for row in gather(folder).rows}
    assert rows["mgdd-generator"].title == "MGDD, generator alone, 4 images in the place of one"
    assert (rows["idc"].factor, rows["idc"].group) == (1, "plain pixels")
    assert [row.equal_steps_accuracy for row in rows.values()] == [None, None]


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"label_column": "coarse_label"}},
        {"settings": {"data": {"resolution": 64}}},
        {"settings": {"evaluate": {"arch": "resnet18"}}},
    ],
    ids=str,
)
def test_figures_are_not_of_other_labels_sizes_or_networks(changes: dict[str, Any], folder: Folder) -> None:
    for more, there in ((changes, False), ({"data": {"revision": "abc"}}, True)):
        one = Folder(folder.path / str(there))
        one.add(replace(REQUEST, dataset="cifar10", **more), [A], False)
        found = gather(one)
        assert all((row.published_accuracy is not None) == there for row in found.rows)
        named = (
            "1 fresh network (resnet18) a job" if "evaluate" in more.get("settings", {}) else "1 fresh network a job"
        )
        assert named in lead(found)
        assert any(named in note for note in notes(found))
        guided = Folder(folder.path / f"guided {there}")
        guided.add(replace(REQUEST, dataset="cifar10", protocol="quick,kernel-ridge", **more), [A], False)
        assert ("(resnet18, but for kernel-ridge)" in lead(gather(guided))) == (named.count("resnet18") > 0)


def test_a_terminal_shows_them_in_a_table_of_their_own(tmp_path: Path, faked: dict[str, dict[str, Any]]) -> None:
    """As a user types it, on a folder of images that is called as the dataset."""
    data = image_folder(tmp_path / "cifar10")
    shown = done(
        "compare", data, *WORDS[:2], "--methods", "random,mgdd-generator", *WORDS[4:], "--out", tmp_path / "out"
    )
    assert re.search(r"^ *random +– / 15.4 +dsa-ce *$", shown.stdout, re.MULTILINE)
    assert re.search(r"^ *mgdd-generator +42.6 / – +– *$", shown.stdout, re.MULTILINE)
    assert shown.stdout.count("15.4") == 1  # once for both protocols
    assert "hours of a GPU" in shown.stderr


def test_a_dataset_without_published_figures_has_no_such_columns(full: Folder) -> None:
    found = render(full)
    for name in ("results.md", "report.html"):
        text = (full.path / name).read_text()
        assert "the paper" not in text
        assert "published by" not in text
    assert all(row.published_source == "" for row in gather(full).rows)
    assert found.rows == gather(full).rows
