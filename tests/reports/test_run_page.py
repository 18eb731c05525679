"""The page of a run: what it shows, what it escapes, that it stays small, and that a browser shows it as it is meant."""

import base64
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import tiny
import torch
from browser import Browser

from ddtool.data.images import SyntheticSet
from ddtool.errors import RunError
from ddtool.evaluation.protocols import Score
from ddtool.reports import figures
from ddtool.reports.layout import data_uri
from ddtool.reports.pictures import MOST_CLASSES, MOST_VALUES, images_shown, pictures
from ddtool.reports.run_page import Shown, write_page
from ddtool.runs.run import Run
from ddtool.sharing.describe import describe_run

EVIL = 'x"><script>alert(1)</script>'


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny finished run of three classes, IPC 2."""
    folder = tmp_path_factory.mktemp("page")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDTOOL_CACHE", str(folder / "cache"))
        tiny.shorten_protocols(patch)
        tiny.adapt(tiny.image_folder(folder / "clothes"), folder / "run")
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Run:
    """A copy of it that a test may change."""
    return Run(Path(shutil.copytree(finished, tmp_path / "run")))


def shown(run: Run) -> str:
    """The page of a run."""
    return write_page(run).read_text(encoding="utf-8")


def edit(run: Run, name: str, change: Callable[[Any], Any]) -> None:
    """Change a JSON file of a run."""
    run.write_json(name, change(run.read_json(name)))


def tree(page: str) -> ElementTree.Element:
    """The elements of a page; an error where one is not closed where it should be."""
    return ElementTree.fromstring(re.sub(r"<(img|meta)\b([^>]*)>", r"<\1\2/>", page.removeprefix("<!doctype html>\n")))


# ------------------------------------------------------------------------------------------------------ what it shows


def test_an_adaptation_leaves_its_page(finished: Path) -> None:
    page = (finished / "report.html").read_text(encoding="utf-8")
    assert "<h1>clothes: 6 synthetic images</h1>" in page
    assert "3 classes, 2 images per class, 16 x 16 pixels, grey; distilled by MGDD" in page
    for heading in ("The images", "Class by class", "Loss and accuracy", "All scores", "How it was made"):
        assert f"<h2>{heading}</h2>" in page
    assert "ddtool adapt ./clothes --ipc 2" in page.replace(" \\\n  ", " ")
    assert "peak memory, MiB" in page


def test_the_headline_is_the_set_beside_random_real_images(run: Run) -> None:
    page = shown(run)
    scores = [s for s in run.noted().scores if s.protocol == "quick" and s.inputs == "as stated"]
    by_stage = {score.stage: f"{score.mean:.1f}" for score in scores}
    tiles = re.findall(r"<strong>([\d.]+)<small> %</small></strong><span>(.*?)</span>", page)
    assert tiles == [
        (by_stage["refined"], "this set"),
        (by_stage["random"], "as many random real images"),
        (by_stage["generated"], "generator, before refinement"),
    ]
    assert "Test accuracy, % on 12 test images: protocol quick, 1 network" in page


def test_the_page_says_how_near_the_images_are_to_real_ones(run: Run) -> None:
    found = run.results()["facts"]["nearest_real ipc2"]
    words = (
        f"nearest real training image: {found['median']:.1f} of 255 levels in the median, {found['least']:.1f} at least"
    )
    assert words in shown(run)
    for damaged in (7, {}, {"median": "x"}):
        run.record(**{"nearest_real ipc2": damaged})
        assert ("nearest real training image: –" in shown(run)) == isinstance(damaged, dict)
    edit(run, "results.json", lambda r: r | {"facts": {k: v for k, v in r["facts"].items() if "nearest" not in k}})
    assert "nearest real" not in shown(run)


def test_a_protocol_of_the_field_goes_first(run: Run) -> None:
    quick = next(s for s in run.noted().scores if (s.protocol, s.stage) == ("quick", "refined"))
    run.record_score(replace(quick, protocol="frepo-mse", mean=12.3))
    page = shown(run)
    assert "<strong>12.3<small>" in page
    assert page.count("<strong>") == 1  # of the others there is no such score


def test_every_image_is_there_with_its_label(run: Run) -> None:
    images = tree(shown(run)).findall(".//figure")
    assert len(images) == 2 * 3 * 2
    made = run.load_set(2)
    last = images[-1]  # the second image of the last class
    address = last.find("img")
    assert address is not None
    assert address.attrib["src"] == pictures(made, 2, 2)[1].address
    said = [span.text for span in last.iter("span")]
    best = made.probabilities()[5].max().item()
    assert said[1] == f"{100 * best:.1f} %"
    assert set(said[::2]) <= {*tiny.CLASSES}


def test_a_damaged_or_earlier_run_shows_what_it_has(run: Run) -> None:
    parts = ("Class by class", "Loss and accuracy", "All scores", "random real images (initial samples)")
    assert [part for part in parts if part not in shown(run)] == []
    edit(run, "results.json", lambda r: r | {"scores": [s | {"confusion": [[1], [2]]} for s in r["scores"]]})
    assert "Class by class" not in shown(run)
    edit(run, "results.json", lambda r: r | {"scores": []})
    edit(run, "env.json", lambda env: {"started": "yesterday"})
    (run.folder / "metrics.jsonl").unlink()
    shutil.rmtree(run.folder / "stages")
    page = shown(run)
    assert "No score yet" in page
    assert [part for part in parts if part in page] == []
    assert len(tree(page).findall(".//figure")) == 3 * 2


def test_the_confusion_stays_in_the_run(run: Run) -> None:
    assert all(score.confusion for score in run.noted().scores)
    shared = describe_run(run, 0)
    assert shared.sets[2].scores
    assert not any(score.confusion for score in shared.sets[2].scores)
    assert "confusion" not in json.dumps(shared.stated())
    assert "started" not in json.dumps(shared.stated())


def test_a_run_without_a_set_has_no_page(run: Run) -> None:
    shutil.rmtree(run.folder / "synthetic")
    with pytest.raises(RunError, match="has no synthetic set yet") as caught:
        write_page(run)
    assert "--resume" in caught.value.hint


def test_the_command_writes_it_where_it_is_told(run: Run, tmp_path: Path) -> None:
    (run.folder / "report.html").unlink()
    out = tmp_path / "elsewhere.html"
    assert json.loads(tiny.done("report", run.folder, "--json", "--out", out).stdout) == {"page": str(out)}
    assert tiny.done("report", run.folder, "-q").stdout.strip() == str(run.folder / "report.html")
    assert out.read_bytes() == (run.folder / "report.html").read_bytes()
    assert "No run of ddtool" in tiny.refused(1, "report", tmp_path / "none")


def test_losses_are_read_once_for_each_step(run: Run) -> None:
    lines = [
        {"phase": "adapt", "step": 1, "total": 3, "loss": 9.0}, {"phase": "adapt", "step": 2, "total": 3, "loss": 5.0},
        {"phase": "adapt", "step": 1, "total": 3, "loss": 4.0}, {"phase": "adapt", "step": 3, "loss": float("nan")},
        {"phase": ["adapt"], "step": 3, "loss": 1.0}, {"phase": "adapt", "step": "3", "loss": 1.0}, {"note": "n"},
    ]  # fmt: skip
    text = "\n".join(map(json.dumps, lines)) + '\n{"phase": "ad'
    (run.folder / "metrics.jsonl").write_text(text, encoding="utf-8")
    assert run.losses() == {"adapt": {1: 4.0, 2: 5.0}}
    assert "Loss over steps: adapting the generator from 4 to 5; " in shown(run)


def test_accuracy_after_each_stage_is_a_curve_over_seconds(run: Run) -> None:
    seconds = {"labels": 3.0, "adapt": 4.0, "fit labels ipc2": 1.0, "refine ipc2": 10.0, "refine ipc9": 99.0}
    run.write_json("results.json", run.read_json("results.json") | {"timings": seconds})
    by_stage = {score.stage: score.mean for score in run.noted().scores if score.protocol == "quick"}
    lines = Shown.of(run).accuracies()
    assert list(lines) == ["kernel-ridge", "quick"]
    assert lines["quick"] == {0.0: by_stage["random"], 8.0: by_stage["generated"], 18.0: by_stage["refined"]}
    words = " then ".join(f"{by_stage[stage]:.1f}" for stage in ("random", "generated", "refined"))
    assert f"accuracy by quick {words} %" in shown(run)


def test_long_curves_are_thinned() -> None:
    steps, losses = figures.thinned({k: float(k) for k in range(10_001)})
    assert len(steps) <= figures.MOST_POINTS
    assert (steps[0], losses[0]) == (0, 0.0)
    assert figures.smoothed([3.0] * 50) == [3.0] * 50


# ---------------------------------------------------------------------------------------------------- safe and bounded


def test_nothing_in_a_run_is_taken_for_markup(run: Run) -> None:
    names = (EVIL, "</td><img src=x onerror=alert(1)>", "$x_1$")
    made = run.load_set(2)
    for stage in ("initial", "generated"):
        run.save_stage(replace(run.load_set(2, stage), class_names=names))
    run.save_final(replace(made, class_names=names, source=made.source | {"name": EVIL}), force=True)  # type: ignore[arg-type]
    edit(run, "config.json", lambda c: c | {"dataset": EVIL, "generator": f"{EVIL}/y"})
    edit(run, "env.json", lambda env: {key: f"{EVIL}{key}" for key in env if key != "threads"})
    edit(
        run, "results.json", lambda r: r | {"timings": {EVIL: 1.0}, "scores": [s | {"arch": EVIL} for s in r["scores"]]}
    )
    with (run.folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        for step in (1, 2):
            file.write(json.dumps({"phase": f"refine ipc2 {EVIL}", "step": step, "loss": 1.0}) + "\n")
    page = shown(run)
    elements = list(tree(page).iter())
    assert not {element.tag for element in elements} & {"script", "link", "iframe", "object", "embed", "a", "form"}
    assert not [name for element in elements for name in element.attrib if name.startswith("on")]
    assert {element.attrib["src"][:11] for element in elements if "src" in element.attrib} == {"data:image/"}
    assert "&lt;script&gt;" in page
    assert not re.search(r"url\(|@import|https?://", page)
    for plot in re.findall(r"data:image/svg\+xml;base64,([\w+/=]+)", page):
        text = base64.b64decode(plot).decode()
        assert not re.search(r"<(script|foreignObject)|\bon\w+=|@import|var\(", text)
        assert set(re.findall(r"href=\"(.)", text)) <= {"#"}


def large(C: int, ipc: int, side: int) -> SyntheticSet:
    """A set of many classes of noise."""
    rng = torch.Generator().manual_seed(0)
    return SyntheticSet(
        images=torch.rand(C * ipc, 3, side, side, generator=rng),
        labels=torch.randn(C * ipc, C, generator=rng),
        hard=torch.arange(C).repeat(ipc),
        ipc=ipc,
        class_names=tuple(f"class {k}" for k in range(C)),
        mean=(0.5,) * 3,
        std=(0.2,) * 3,
        stage="refined",
    )


def test_of_many_classes_and_images_a_part_is_shown_and_that_is_said(run: Run) -> None:
    C = 60
    counts = [[5 if a == b else int(b == (a + 1) % C) for b in range(C)] for a in range(C)]
    counts[7] = [6 if b == 8 else 0 for b in range(C)]
    score = Score("refined", "mgdd", 12, "convnet", "quick", "", 50.0, 0.0, 1, 1.0, confusion=counts)
    run.save_final(large(C, 12, 32))
    run.record_score(score)
    page = shown(run)
    assert "the first 20 of 60 classes, the first 10 of 12 images of each class, of the largest set" in page
    assert "The 30 of 60 classes that are recognised least." in page
    assert "<li>class 7 is taken for class 8 in 100 % of its images</li>" in page
    assert len(tree(page).findall(".//figure")) == MOST_CLASSES * 10
    assert len(page) < 4 * 2**20


def test_a_class_without_test_images_has_no_accuracy(run: Run) -> None:
    """It is not one that is recognised least."""
    counts = [[3, 1, 0], [0, 0, 0], [1, 0, 1]]
    run.record_score(Score("refined", "mgdd", 2, "convnet", "dsa-ce", "", 66.7, 0.0, 1, 1.0, confusion=counts))
    page = shown(run)
    assert "Accuracy by class: dress 50 %, boot 75 %." in page
    assert "The test split has no image of &#39;coat&#39;." in page
    nothing = [[0] * 3] * 3
    run.record_score(Score("refined", "mgdd", 2, "convnet", "dsa-ce", "", 0.0, 0.0, 2, 1.0, confusion=nothing))
    assert "Accuracy by class" not in shown(run)


@pytest.mark.parametrize(("C", "ipc", "side", "sets"), [(3, 2, 16, 2), (200, 50, 64, 2), (1000, 10, 224, 3)])
def test_the_pixels_of_a_page_are_bounded(C: int, ipc: int, side: int, sets: int) -> None:
    like = replace(large(2, 1, side), class_names=("a", "b"))
    number = images_shown(_sized(like, C, ipc), sets)
    assert 1 <= number <= min(ipc, 10)
    side = min(side, 128)
    assert number * min(C, MOST_CLASSES) * sets * 3 * side**2 <= max(MOST_VALUES, MOST_CLASSES * sets * 3 * side**2)


def _sized(like: SyntheticSet, C: int, ipc: int) -> Any:
    """What `images_shown` asks of a set, without its pixels."""
    return type("Like", (), {"shape": like.shape, "num_classes": C, "ipc": ipc})()


def test_images_of_a_page_are_those_of_the_set() -> None:
    made = large(2, 1, 16)
    first = pictures(made, 0, 1)[0]
    assert first.address.startswith(data_uri(b"\x89PNG", "png")[:27])
    assert sum(share.percent for share in first.shares) == pytest.approx(100, abs=0.2)
    assert pictures(replace(made, label_method="hard"), 0, 1)[0].shares == ()


# -------------------------------------------------------------------------------------------------------- in a browser


def test_a_browser_shows_the_page(run: Run, browser: Browser) -> None:
    write_page(run)
    browser.open(run.folder / "report.html")
    assert browser.errors == []
    assert browser.value("document.title") == "clothes: 6 synthetic images"
    assert browser.value("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.value("document.documentElement.scrollWidth <= innerWidth")


def test_a_soft_label_is_seen_by_pointing_at_its_image(run: Run, browser: Browser) -> None:
    write_page(run)
    browser.open(run.folder / "report.html")
    for cell in ("tr:first-child td:last-child", "tr:last-child td:nth-child(2)"):
        figure = f"{cell} figure"
        shown_as = f"getComputedStyle(document.querySelector('{figure} figcaption')).display"
        assert browser.value(shown_as) == "none"
        browser.point_at(figure)
        assert browser.value(shown_as) == "grid"
        box = f"document.querySelector('{figure} figcaption').getBoundingClientRect()"
        on_top = f"(r => document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2))({box}).closest('figcaption')"
        assert browser.value(f"{on_top} === document.querySelector('{figure} figcaption')"), cell
    assert browser.errors == []


def test_settings_open_by_a_click(run: Run, browser: Browser) -> None:
    write_page(run)
    browser.open(run.folder / "report.html")
    height = "document.querySelector('#settings dl').getBoundingClientRect().height"
    assert not browser.value("document.querySelector('#settings').open")
    browser.click("#settings summary")
    assert browser.value("document.querySelector('#settings').open")
    assert browser.value(height) > 100
    assert browser.errors == []


def test_a_browser_takes_nothing_of_a_run_for_markup(run: Run, browser: Browser) -> None:
    edit(run, "env.json", lambda env: {key: f"{EVIL}{key}" for key in env if key != "threads"})
    write_page(run)
    browser.open(run.folder / "report.html")
    assert browser.value("document.scripts.length") == 0
    assert browser.errors == []
