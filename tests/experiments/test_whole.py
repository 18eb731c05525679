"""The whole training set as a row of a comparison: scored once, in every table, and no job."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from forked_jobs import ForkedJobs
from tiny import done

from ddtool.evaluation.protocols import Score
from ddtool.experiments import executors, report, whole
from ddtool.experiments.folder import Folder
from ddtool.experiments.table import CONTROL, WHOLE, gather


def test_the_row_is_in_every_format(full: Folder) -> None:
    before = gather(full)
    score = Score("full", "full", 10, "net", "quick", "toy", 87.6, 0.0, 1, 3.0)
    other = Score("full", "full", 10, "net", "dsa-ce", "toy", 11.1, 0.0, 1, 3.0)
    (full.path / whole.FILE).write_text(json.dumps([score.to_dict(), other.to_dict()]))
    found = report.render(full)
    assert found.rows[1:] == before.rows
    assert (found.rows[0].title, found.rows[0].accuracy, found.rows[0].jobs) == (WHOLE, 87.6, ())
    assert (found.rows[0].steps, found.rows[0].total_seconds) == (None, None)  # not measured beside the jobs
    assert found.speedups == before.speedups
    for name in ("results.md", "results.csv", "report.html"):
        assert WHOLE in (full.path / name).read_text()
    assert "87.6" in (full.path / "results.md").read_text()
    assert WHOLE in (full.path / "accuracy-over-seconds.svg").read_text()
    assert any("no job" in note for note in json.loads((full.path / "results.json").read_text())["notes"])
    earlier = replace(score, protocol_version=0)  # by the protocol as it was before a change
    (full.path / whole.FILE).write_text(json.dumps([earlier.to_dict()]))
    assert gather(full).rows == before.rows


@pytest.mark.parametrize("content", ["{", '[{"stage": 1}]', "7"])
def test_a_damaged_file_is_no_row(full: Folder, content: str) -> None:
    (full.path / whole.FILE).write_text(content)
    assert gather(full).rows[0].method != CONTROL


def test_the_command_scores_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a job that runs for real: a network is trained on all images by each protocol that trains any; a second command takes
    the row as it is."""
    monkeypatch.setenv("DDTOOL_CACHE", str(tmp_path / "cache"))
    tiny.shorten_protocols(monkeypatch)
    monkeypatch.setattr(executors, "Local", ForkedJobs)
    words = (
        "compare",
        tiny.image_folder(tmp_path / "toy"),
        "--ipc",
        1,
        "--methods",
        "random",
        "--seeds",
        1,
        "--device",
        "cpu",
    )
    words = (
        *words,
        "--precision",
        "fp32",
        "--threads",
        1,
        "--set",
        "whitening.kind=none",
        "--protocol",
        "quick,dsa-ce,kernel-ridge",
        "--out",
        tmp_path / "out",
        "--json",
    )
    rows = json.loads(done(*words, "--whole").stdout)["rows"]
    assert [row["method"] for row in rows] == [CONTROL, "random"]
    kept = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("methods/*/whole-*.json")]
    means = {score["protocol"]: score["mean"] for score in kept}
    assert set(means) == {"quick", "dsa-ce"}
    assert means["quick"] == rows[0]["accuracy"]
    monkeypatch.setattr(whole, "load_target", lambda *_: pytest.fail("nothing is read again"))
    again = json.loads(done(*words).stdout)["rows"]
    assert again == rows
