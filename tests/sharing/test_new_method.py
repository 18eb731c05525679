"""A method that nobody knew before goes everywhere: one class and one registration, and every command can use it."""

import json
from pathlib import Path

import pytest
import test_baselines
import tiny
from forked_jobs import ForkedJobs
from hub_server import HubServer
from test_hub import _quick_pauses, _surroundings, writes  # noqa: F401  fixtures among them
from tiny import done

from ddtool import api
from ddtool.experiments import executors
from ddtool.methods import METHODS

FAST = ["--precision", "fp32", "--set", "evaluate.kernel_ridge=false"]
CHILD = "import test_baselines, tiny\ntest_baselines.methods.METHODS['means'] = test_baselines.Means\ntiny.start()"
"""`ddtool` in a process of its own that knows the new method, too."""


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "means" not in METHODS
    monkeypatch.setitem(METHODS, "means", test_baselines.Means)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tiny.image_folder(tmp_path / "clothes")


def test_adapt_evaluate_info_and_push(data: Path, server: HubServer) -> None:
    done("adapt", data, "--method", "means", "--ipc", 1, "--steps", 2, "--out", "run", *FAST)
    run = api.Run.open(Path("run"))
    assert run.load_set(1).method == "means"
    shown = done("evaluate", "run", "--protocol", "quick", "--eval-seeds", 1, "--no-baseline")
    assert "means" in shown.stdout
    assert json.loads(done("info", "run", "--json").stdout)["method"] == "means"
    plan = json.loads(done("push", "run", "ann/clothes", "--dry-run", "--json").stdout)
    assert list(plan) == ["dataset"]
    assert "Means (Nobody, 2026)" in plan["dataset"]["card"]
    assert writes(server) == []


def test_compare(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "Local", lambda inherited: ForkedJobs(inherited, CHILD))
    said = json.loads(
        done(
            "compare", data, "--ipc", 1, "--methods", "means", "--steps", 2, "--seeds", 1, "--device", "cpu",
            "--precision", "fp32", "--threads", 1, "--out", "out", "--json",
        ).stdout
    )  # fmt: skip
    (row,) = said["rows"]
    assert (row["method"], row["title"], row["steps"], row["failed"]) == ("means", "Means (Nobody, 2026)", 2, 0)
    assert 0 <= row["accuracy"] <= 100
