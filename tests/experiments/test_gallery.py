"""The images of a comparison's page."""

from dataclasses import replace

import tiny
import torch
from browser import Browser
from fake_jobs import job

from ddtool.data.images import SyntheticSet
from ddtool.experiments.folder import Folder
from ddtool.experiments.gallery import gallery
from ddtool.experiments.report import PAGE, render
from ddtool.experiments.table import gather
from ddtool.reports.pictures import pictures
from ddtool.runs.run import Run


def made(value: float, method: str, C: int = 3, ipc: int = 10) -> SyntheticSet:
    """A set of one colour."""
    return SyntheticSet(
        images=torch.full((C * ipc, 3, 8, 8), value),
        labels=torch.eye(C).repeat(ipc, 1) - 1 / C,
        hard=torch.arange(C).repeat(ipc),
        ipc=ipc,
        class_names=tuple(f"<b>{k}" for k in range(C)),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        method=method,
        stage="distilled",
        label_method="learned",
    )


def test_each_method_is_shown_at_its_largest_budget(full: Folder) -> None:
    small, largest = made(0.2, "dm"), made(0.8, "dm")
    Run(full.run(job("dm", 100))).save_final(small)
    Run(full.run(job("dm", 200))).save_final(largest)
    Run(full.run(job("random"))).save_final(made(0.4, "random"))
    shown = gallery(gather(full), full)
    assert [title for title, _ in shown.rows] == ["random real images", "DM"]  # of the others no set is there
    assert shown.rows[1][1] == [pictures(largest, c, 1)[0] for c in range(3)]
    assert shown.heading == "10 images per class"
    assert shown.part.startswith("One image of each class, ")


def test_of_many_classes_the_first_are_shown(full: Folder) -> None:
    Run(full.run(job("dm", 200))).save_final(made(0.5, "dm", C=50))
    shown = gallery(gather(full), full)
    assert shown.part.startswith("One image of the first 20 of 50 classes")
    assert [len(images) for _, images in shown.rows] == [20]


def test_a_comparison_without_sets_has_no_gallery(full: Folder) -> None:
    render(full)
    assert "What the sets look like" not in (full.path / PAGE).read_text(encoding="utf-8")


def test_a_set_that_cannot_be_read_is_left_out(full: Folder) -> None:
    run = Run(full.run(job("dm", 200)))
    run.save_final(made(0.5, "dm"))
    run.set_path(10).write_bytes(b"no tensors")
    assert gallery(gather(full), full).rows == []


def test_a_browser_shows_the_comparison(full: Folder, browser: Browser) -> None:
    for name in ("dm", "mgdd"):
        one = made(0.5, name)
        Run(full.run(job(name, 200))).save_final(replace(one, stage="refined") if name == "mgdd" else one)
    render(full)
    browser.open(full.path / PAGE)
    assert browser.errors == []
    assert browser.value("document.querySelectorAll('figure').length") == 2 * 3
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.value("document.querySelectorAll('td b').length") == 2 * 3  # those of the captions alone
    caption = "getComputedStyle(document.querySelector('figure figcaption')).display"
    assert browser.value(caption) == "none"
    browser.point_at("figure")
    assert browser.value(caption) == "grid"


def test_the_command_renders_a_comparison_anew(full: Folder) -> None:
    assert tiny.done("report", full.path, "-q").stdout.strip() == str(full.path / PAGE)
    assert (full.path / PAGE).is_file()
    assert "--out is for the page of a run" in tiny.refused(2, "report", full.path, "--out", full.path / "x.html")
