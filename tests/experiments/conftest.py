"""What the tests of comparisons share: two quick methods, a dataset, an empty folder and one with finished jobs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_jobs import REQUEST, finish, job, process
from tiny import image_folder

from ddtool.experiments import jobs, report
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Job, Request, entry_of
from ddtool.methods import METHODS
from ddtool.methods.selection import Random


@pytest.fixture(autouse=True)
def _methods(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two that learn, known by these titles whatever else there is."""
    for name, factor in (("dm", 1), ("idc", 2)):
        record = replace(
            Random.record, name=name, title=name.upper(), learns=True, factor=factor, variants=(), quick_settings={}
        )
        monkeypatch.setitem(METHODS, name, type(name, (Random,), {"record": record}))


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of three classes with eight images each."""
    return image_folder(tmp_path_factory.mktemp("data") / "toy")


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reports with a stand-in for their plots, which take most of the time; test_report and test_plot draw them."""
    monkeypatch.setattr(report, "draw", lambda *what, kind="svg", **how: b"\x89PNG" if kind == "png" else b"<svg/>")


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "out")


@pytest.fixture
def faked(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Jobs of the command line are fake ones; what is put in here by name says how they end."""
    then: dict[str, dict[str, Any]] = {}

    def command(request: Request, wanted: Job, run: Path, machine: list[str]) -> list[str]:
        protocols = request.protocol.split(",")
        return process(run, wanted, 40.0 + len(wanted.method), protocols, **then.get(wanted.name, {}))

    monkeypatch.setattr(jobs, "command", command)
    return then


@pytest.fixture
def full(folder: Folder) -> Folder:
    """random, DM and IDC at 100 and 200 steps, MGDD at both; two seeds; IPC 10; one failure, one job to do."""
    figures: dict[tuple[str, int | None], tuple[float, float, float]] = {
        ("random", None): (30, 0, 0), ("dm", 100): (40, 10, 2), ("dm", 200): (44, 20, 4), ("idc", 200): (52, 100, 100),
        ("mgdd-generator", 100): (41, 2, 1), ("mgdd-generator", 200): (45, 4, 2), ("mgdd", 100): (43, 3, 1),
        ("mgdd", 200): (50, 6, 2),
    }  # fmt: skip
    jobs = [job(method, steps, seed) for (method, steps) in figures for seed in (0, 1)]
    folder.add(REQUEST, [*jobs, job("idc", 100), job("herding")], False)
    for one in jobs:
        accuracy, inside, overhead = figures[one.method, one.steps]
        more: dict[str, Any] = {"pretraining_seconds": 800.0} if entry_of(one.method).method.has_generator else {}
        more |= {"peak_memory_mib": 100 + one.seed}
        finish(folder, one, accuracy + (2 * one.seed - 1), inside, overhead, **more)
    folder.fail(job("idc", 100), "Out of <b>memory</b> | or `worse`.")
    return folder
