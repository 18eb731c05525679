"""Rows and speed-ups of a comparison."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from fake_jobs import REQUEST, A, finish, job

from ddtool.experiments.folder import Folder
from ddtool.experiments.table import gather, speedups_of
from ddtool.experiments.words import columns, images_trained_on, line, notes, overview
from ddtool.runs.files import write_json
from ddtool.runs.formats import write_set
from ddtool.runs.run import Run


def test_rows_are_means_over_seeds_by_group(full: Folder) -> None:
    found = gather(full)
    rows = {(row.method, str(row.budget or "")): row for row in found.rows}
    assert [(row.method, str(row.budget)) for row in found.rows][-6:] == [
        ("idc", "100 steps"), ("idc", "200 steps"), ("mgdd-generator", "100 steps"), ("mgdd-generator", "200 steps"),
        ("mgdd", "100 steps"), ("mgdd", "200 steps"),
    ]  # fmt: skip
    assert {row.method: row.group for row in found.rows} == {
        "random": "plain pixels", "herding": "plain pixels", "dm": "plain pixels",
        "idc": "4 images in the place of one", "mgdd": "MGDD", "mgdd-generator": "MGDD",
    }  # fmt: skip
    row = rows["dm", "200 steps"]
    assert (row.accuracy, row.seeds, row.total_seconds, row.peak_memory_mib) == (44, 2, 24, 101)
    assert row.std == pytest.approx(2**0.5)  # of 43 and 45
    assert row.pretraining_seconds is None
    assert (rows["mgdd", "100 steps"].pretraining_seconds, rows["mgdd", "100 steps"].pretraining_share) == (800, 100)
    assert (rows["idc", "100 steps"].accuracy, rows["idc", "100 steps"].failed) == (None, 1)
    assert rows["herding", ""].waiting == found.waiting == 1
    assert found.failures == (("idc, IPC 10, 100 steps, seed 0", "Out of <b>memory</b> | or `worse`."),)


def test_the_largest_budget_is_no_matter_of_seconds(full: Folder) -> None:
    """A machine may be faster, or the overhead smaller, when the larger one is run."""
    for seed in (0, 1):
        finish(full, job("dm", 200, seed), 44.0, 1.0, 1.0)
        finish(full, job("mgdd", 200, seed), 50.0, 2.0, 1.5)
    cells = {row.method: row_cells for row, row_cells in overview(gather(full))}
    assert cells["dm"] == ["44.0 (n=2)"]
    assert cells["mgdd"] == ["50.0 (n=2)"]
    assert cells["idc"] == ["52.0 ± 1.4 (n=2)"]
    full.fail(job("dm", 400), "No luck.")
    full.add(REQUEST, [job("dm", 400)], False)
    cells = {row.method: row_cells for row, row_cells in overview(gather(full))}
    assert cells["dm"] == ["44.0 (n=2)"]


def test_data_that_changed_between_jobs_is_said(folder: Folder) -> None:
    jobs = [job("random", seed=seed) for seed in range(3)]
    folder.add(REQUEST, jobs, False)
    for one, known in zip(jobs, ({}, {"content_hash": "a"}, {"content_hash": "a"}), strict=True):
        finish(folder, one, 30.0)
        write_json(folder.run(one) / "env.json", {"device": "cpu (toy)", "data": known})
    assert not [note for note in notes(gather(folder)) if "changed" in note]
    write_json(folder.run(jobs[0]) / "env.json", {"device": "cpu (toy)", "data": {"content_hash": "b"}})
    assert [note for note in notes(gather(folder)) if "Files of the dataset have changed between jobs" in note]


def test_speedups_until_the_same_accuracy(full: Folder) -> None:
    dm, idc = gather(full).speedups
    # DM's 44.0 takes 24 s. MGDD by seconds: 41 in 3 s, 43 in 4 s, 45 in 6 s.
    assert (dm.baseline.method, str(dm.baseline.budget)) == ("dm", "200 steps")
    assert dm.mgdd is not None
    assert (dm.mgdd.method, str(dm.mgdd.budget), dm.speedup, dm.at_least) == ("mgdd-generator", "200 steps", 4.0, False)
    assert dm.with_pretraining == pytest.approx(24 / 806)
    assert (idc.baseline.method, idc.mgdd, idc.speedup) == ("idc", None, None)
    row = replace(dm.mgdd, pretraining_seconds=None)
    assert [s.with_pretraining for s in speedups_of([dm.baseline, row])] == [None]  # not as if it were for nothing
    for seed in (0, 1):
        finish(full, job("dm", 200, seed), 40.5, 20.0, 4.0)
    dm = gather(full).speedups[0]
    assert dm.mgdd is not None
    assert (str(dm.mgdd.budget), dm.speedup, dm.at_least) == ("100 steps", 8.0, True)


def test_one_seed_has_the_spread_of_its_networks(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 50.0)
    said = json.loads((folder.run(A) / "results.json").read_text())
    said["scores"][0] |= {"std": 1.25}
    (folder.run(A) / "results.json").write_text(json.dumps(said))
    assert [(row.accuracy, row.std) for row in gather(folder).rows] == [(50.0, 1.25)]


def test_a_row_states_the_bytes_of_a_set(data: Path, tmp_path: Path) -> None:
    """Of hard labels, of fitted ones, and of whitened images: 8 bits a pixel, and what has to be kept beside them."""
    base: dict[str, Any] = {"ipc": 2, "generator": "bundled", "method": "random"}
    quiet = {"evaluate": {"enabled": False}}
    found = {}
    for name, more in (("hard", {}), ("fitted", {"baseline": {"labels": "fitted", "fit_networks": 2, "width": 8}})):
        run = tiny.adapt(data, tmp_path / name, settings=quiet | {"whitening": {"kind": "dct"}} | more, **base)
        found[name] = run.load_set(2).stored_bytes
    pixels, whitening = 6 * 16 * 16, 4 * 2 * 16 * 16
    assert found == {"hard": pixels + whitening + 6 * 2, "fitted": pixels + whitening + 6 * 3 * 4}


def test_the_bytes_of_a_set_are_in_the_table(folder: Folder, data: Path, tmp_path: Path) -> None:
    folder.add(REQUEST, [A], False)
    finish(folder, A, 40)
    assert "set, KiB" not in columns(gather(folder))
    quiet = {"evaluate": {"enabled": False}, "whitening": {"kind": "none"}}
    made = tiny.adapt(data, tmp_path / "run", settings=quiet, generator="bundled", method="random", ipc=1).load_set(1)
    write_set(Run(folder.run(A)).set_path(A.ipc), made)
    found = gather(folder)
    assert found.rows[0].set_bytes == made.stored_bytes == 3 * 16 * 16 + 6
    assert line(found.rows[0], columns(found))[-1] == "0.8"


@pytest.mark.parametrize(
    ("method", "settings", "images"),
    [
        ("mgdd", {}, 4), ("mgdd", {"factor": 3}, 36), ("idc", {"baseline": {"factor": 1}}, 4), ("dm", {"factor": 2}, 4),
    ],
)  # fmt: skip
def test_a_plan_counts_the_images_that_networks_see(method: str, settings: Any, images: int) -> None:
    """The factor of MGDD's settings is MGDD's alone."""
    assert images_trained_on(job(method, ipc=2), replace(REQUEST, settings=settings), 2) == images
