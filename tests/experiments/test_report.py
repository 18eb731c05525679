"""The report of a comparison in every format."""

import base64
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from fake_jobs import REQUEST, A, B, finish, job

from ddtool.experiments import report
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Job
from ddtool.experiments.report import files, panels, render
from ddtool.experiments.table import gather
from ddtool.experiments.words import notes


def test_the_report_has_every_format(full: Folder) -> None:
    render(full)
    said = json.loads((full.path / "results.json").read_text())
    assert [row["accuracy"] for row in said["rows"] if row["method"] == "dm"] == [40, 44]
    assert said["speedups"][0]["speedup"] == 4
    lines = list(csv.DictReader(io.StringIO((full.path / "results.csv").read_text())))
    assert [line["total_seconds"] for line in lines if line["method"] == "dm"] == ["12.0", "24.0"]
    text = (full.path / "results.md").read_text()
    assert "| DM | 40.0 ± 1.4 (n=2) | 100 | 10 | 2.0 | – | 101 |" in text
    assert "| MGDD, refined | 50.0 ± 1.4 (n=2) |" in text
    assert "| IDC | failed | 100 | – |" in text
    assert "| 10 | DM | 44.0 | 24 | MGDD, generator alone, 200 steps | 45.0 | 6.0 | 4 |" in text
    assert "| 10 | IDC | 52.0 | 200 | not reached | – | – | – |" in text
    page = (full.path / "report.html").read_text()
    assert '<td class="failed">failed</td>' in page
    assert '<tr class="ours"><td>MGDD, refined</td><td>50.0 ± 1.4 (n=2)</td></tr>' in page


def test_the_report_is_a_function_of_the_folder(full: Folder) -> None:
    render(full)
    before = {path.name: path.read_bytes() for path in full.path.glob("*.*")}
    names = ["report.html", "results.csv", "results.json", "results.md"]
    assert sorted(before) == ["accuracy-over-seconds.png", "accuracy-over-seconds.svg", "compare.json", *names]
    render(full)
    assert {path.name: path.read_bytes() for path in full.path.glob("*.*")} == before


def test_whoever_renders_has_the_last_word(full: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that another process finishes while this one writes is in the report all the same."""
    write = report.write_bytes

    def and_meanwhile(path: Path, content: bytes) -> None:
        write(path, content)
        finish(full, job("herding"), 33.0)

    monkeypatch.setattr(report, "write_bytes", and_meanwhile)
    assert render(full).waiting == 0
    assert json.loads((full.path / "results.json").read_text())["waiting"] == 0


def test_nothing_in_a_report_is_taken_for_markup(folder: Folder) -> None:
    name = 'x"><script>alert(1)</script> & | `y`'
    request = replace(REQUEST, dataset=name)
    jobs = [job("dm"), job("mgdd"), job("dm", seed=1)]
    folder.add(request, jobs, False)
    for one in jobs[:2]:
        finish(folder, one, 40.0, 2.0, device="cpu <img src=x>")
    folder.fail(jobs[2], "</li><script>evil()</script>")
    made = {name: content for name, content in files(gather(folder), folder).items() if not name.endswith(".png")}
    page = made["report.html"].decode()
    sources = re.findall(r"(?:src|srcset)=\"(.*?)\"", page)
    assert len(sources) == 2
    plots = [base64.b64decode(source.removeprefix("data:image/svg+xml;base64,"), validate=True) for source in sources]
    assert made["accuracy-over-seconds.svg"] in plots
    for plot in plots:
        text = plot.decode()
        ElementTree.fromstring(text)
        assert not re.search(r"<(script|image|style type=\"text/html|foreignObject)|\bon\w+=|@import|var\(", text)
        assert set(re.findall(r"href=\"(.)", text)) <= {"#"}
        assert set(re.findall(r"url\((.)", text)) <= {"#"}
    assert not re.search(r"<(script|link|iframe|object|img src=x)|\bon\w+=|url\(|@import|https?://", page)
    assert "&lt;/li&gt;&lt;script&gt;" in page
    assert "cpu &lt;img src=x&gt;" in page
    assert "<script>" not in made["results.md"].decode().replace("\\<", "")


def test_a_budget_in_seconds_is_shown_beside_the_steps_taken(folder: Folder) -> None:
    timed = Job("dm", 10, None, 60.0, 0)
    folder.add(REQUEST, [timed, replace(timed, seconds=2.5)], False)
    finish(folder, timed, 50.0, 55.0, 5.0, spent={"ipc10": {"steps": 1234, "step_seconds": 55, "overhead_seconds": 5}})
    text = files(gather(folder), folder)["results.md"].decode()
    assert "| method | budget | accuracy, % | steps | s in steps | s of overhead | peak MiB |" in text
    assert "| DM | 60 s | 50.0 (n=1) | 1,234 | 55 | 5.0 | 100 |" in text
    assert "| DM | 2.5 s | to go | – | – | – | – |" in text


def test_a_report_of_nothing_yet(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    found = render(folder)
    assert found.waiting == 1
    assert not list(folder.path.glob("accuracy-over-seconds.*"))
    assert "<picture>" not in (folder.path / "report.html").read_text()
    assert "to go" in (folder.path / "results.md").read_text()


def test_a_page_for_light_and_dark_screens(full: Folder) -> None:
    made = files(gather(full), full)
    page = made["report.html"].decode()
    (light,) = re.findall(r'<img alt="Test accuracy over seconds[^"]*" src="data:image/svg\+xml;base64,(.*?)">', page)
    (dark,) = re.findall(r'<source media="\(prefers-color-scheme: dark\)" srcset="data:[^,]*,(.*?)">', page)
    assert base64.b64decode(light) == made["accuracy-over-seconds.svg"]
    assert b"#15181c" in base64.b64decode(dark)
    assert b"#15181c" not in base64.b64decode(light)
    assert "MGDD, refined 50.0 % in 8 s" in page  # for those who do not see it
    assert "default-src 'none'" in page


def test_a_page_is_well_formed(full: Folder) -> None:
    """Every element that is opened is closed where it should be."""
    page = files(gather(full), full)["report.html"].decode()
    body = re.sub(r"<(img|meta|source)([^>]*)>", r"<\1\2/>", page.removeprefix("<!doctype html>\n"))
    tree = ElementTree.fromstring(body)
    tables = tree.findall(".//table")
    assert len(tables) == 3  # the overview, the speed-ups, IPC 10
    for table in tables:
        widths = {sum(int(cell.get("colspan", 1)) for cell in line) for line in table.iter("tr")}
        assert len(widths) == 1


def test_lines_of_the_plot(full: Folder) -> None:
    (panel,) = panels(gather(full))
    assert (panel.dataset, panel.title) == ("sample", "10 images per class")
    names = ["DM", "IDC (4 images in the place of one)", "MGDD, generator alone", "MGDD, refined"]
    assert [line.name for line in panel.lines] == names
    assert [(p.x, p.y) for p in panel.lines[0].points] == [(12, 40), (24, 44)]
    assert panel.lines[0].points[0].std == pytest.approx(2**0.5)
    assert [line.dashed for line in panel.lines] == [False, True, False, False]
    assert [line.strong for line in panel.lines] == [False, False, True, True]
    assert [(level.name, level.y) for level in panel.levels] == [("random real images", 30)]


def test_lines_and_notes_of_sets_that_hold_more_images(folder: Folder) -> None:
    ours, theirs, plain = job("mgdd"), job("idc"), job("dm")
    folder.add(replace(REQUEST, own={"mgdd": {"factor": 2}}), [ours, theirs, plain], False)
    for one, factor in ((ours, 2), (theirs, 2), (plain, 1)):
        finish(folder, one, 45.0, 2.0, factor=factor)
    found = gather(folder)
    (panel,) = panels(found)
    assert {line.name: line.dashed for line in panel.lines} == {
        "DM": False, "IDC (4 images in the place of one)": True, "MGDD, refined, 4 images in the place of one": True,
    }  # fmt: skip
    assert [note for note in notes(found) if "in the place of one (" in note] == [
        "4 images in the place of one (idc, mgdd): smaller ones, stored at the same size; not the storage of the others."
    ]


def test_panels_dataset_by_dataset_and_ipc_by_ipc(tmp_path: Path) -> None:
    found = []
    for name in ("cifar10", "mnist"):
        folder = Folder(tmp_path / name)
        jobs = [job("dm", ipc=ipc) for ipc in (10, 1)] + [job("random", ipc=50)]
        folder.add(replace(REQUEST, dataset=name), jobs, False)
        for one in jobs:
            finish(folder, one, 40.0, 2.0)
        found.append(gather(folder))
    shown = [(panel.dataset, panel.title) for panel in panels(*found)]  # of a selection alone there is no line
    assert shown == [(name, f"{n} per class") for name in ("cifar10", "mnist") for n in ("1 image", "10 images")]


def test_every_table_is_there_for_every_protocol(folder: Folder) -> None:
    """A job is finished when it has a score by each; its place in the second table is by the second one."""
    request = replace(REQUEST, protocol="quick,dsa-ce")
    folder.add(request, [A, B, job("mgdd", 100)], False)
    for one, accuracy in ((A, 40.0), (job("mgdd", 100), 60.0)):
        finish(folder, one, accuracy)
        path = folder.run(one) / "results.json"
        results = json.loads(path.read_text())
        (score,) = results["scores"]
        results["scores"].append(score | {"protocol": "dsa-ce", "mean": accuracy - 15})
        path.write_text(json.dumps(results))
    finish(folder, B, 41)  # by the first protocol alone
    found = render(folder)
    rows = [[(row.accuracy, row.seeds, row.failed) for row in one.rows] for one in found.by_protocol]
    assert rows == [[(40.5, 2, 0), (60, 1, 0)], [(25, 1, 1), (45, 1, 0)]]
    markdown = (folder.path / "results.md").read_text()
    assert markdown.count("protocol quick") == markdown.count("protocol dsa-ce") >= 2
    page = (folder.path / "report.html").read_text()
    assert "protocol dsa-ce" in page
    lines = (folder.path / "results.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == {"quick", "dsa-ce"}
    said = json.loads((folder.path / "results.json").read_text())
    assert said["others"][0]["request"]["protocol"] == "dsa-ce"
    assert folder.outcome(B, request).state == "failed"  # it is scored again
