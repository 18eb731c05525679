"""`ddtool compare` on the command line."""

import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny
import typer
from fake_jobs import WORDS
from forked_jobs import ForkedJobs
from tiny import OPTIONS, ROOT, ddtool, done, refused

from ddtool.cli.app import app
from ddtool.evaluation.protocols import Score
from ddtool.experiments import executors
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import USUAL
from ddtool.experiments.table import gather
from ddtool.pipeline import scoring
from ddtool.runs.run import Run


def test_compare_runs_what_is_left_and_shows_the_table(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    faked["random-ipc1-seed1"] = {"say": "Error: No luck.", "exit": 1}
    shown = ddtool("compare", data, *WORDS, "--out", out)
    assert shown.exit_code == 1
    assert re.search(r"^ *random +46.0 \(n=1, 1 failed\) +0 ", shown.stdout, re.MULTILINE)
    assert re.search(r"^ *mgdd +44.0 \(n=2\) +5 ", shown.stdout, re.MULTILINE)
    assert "No luck." in shown.stderr
    assert "bug" not in shown.stderr
    assert "random-ipc1-seed0 --protocol frepo-mse" in shown.stderr
    faked.clear()
    shown = done("compare", data, *WORDS, "--out", out, "--json")
    said = json.loads(shown.stdout)
    assert [(row["method"], row["accuracy"], row["seeds"]) for row in said["rows"]] == [
        ("random", 46, 2),
        ("mgdd", 44, 2),
    ]
    assert (said["failed"], said["waiting"], said["folder"]) == (0, 0, str(out))
    assert "Finished already: 3 of 4 jobs." in shown.stderr
    assert done("compare", data, *WORDS, "--out", out, "--seeds", 3, "--quiet").stdout == f"{out}\n"
    assert len(gather(Folder(out)).rows[0].jobs) == 3
    message = refused(2, "compare", data, *WORDS, "--out", out, "--protocol", "dsa-ce")
    assert 'protocol "quick,dsa-ce"' in message


def test_a_protocol_that_is_named_twice_counts_once(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    twice = ("--protocol", "quick", "--protocol", "quick, quick")
    for k, (first, then) in enumerate([(("--protocol", "quick"), twice), (twice, ("--protocol", "quick"))]):
        words = ("compare", data, *WORDS, "--out", tmp_path / str(k))
        done(*words, *first)
        shown = done(*words, *then, "--methods", "random,mgdd,random", "--ipc", "1,1", "--json")
        assert "Finished already: 4 of 4 jobs." in shown.stderr
        assert json.loads(shown.stdout)["request"]["protocol"] == "quick"
    file = tmp_path / "0" / "compare.json"  # as an earlier version wrote what was named twice
    file.write_text(file.read_text().replace('"protocol": "quick"', '"protocol": "quick,quick"'))
    assert "Finished already: 4 of 4 jobs." in done("compare", data, *WORDS, "--out", file.parent, *twice).stderr


def test_info_of_a_comparison(tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]) -> None:
    out = tmp_path / "my out"
    faked["random-ipc1-seed1"] = {"say": "Error: No luck.", "exit": 1}
    assert ddtool("compare", data, *WORDS, "--out", out).exit_code == 1
    said = json.loads(done("info", out, "--json").stdout)
    assert said == {
        "comparison": str(out), "dataset": str(data), "protocols": ["quick", "dsa-ce"], "methods": ["random", "mgdd"],
        "sets (ipc)": [1], "budgets": ["5 steps"], "seeds": [0, 1], "jobs": 4, "finished": 3, "failed": 1,
    }  # fmt: skip
    shown = done("info", out)
    assert re.search(r"^ *methods +random, mgdd *$", shown.stdout, re.MULTILINE)
    assert shown.stderr.splitlines()[-1] == f"Next: the same `ddtool compare` again, into {out}: finished jobs stay"
    faked.clear()
    done("compare", data, *WORDS, "--out", out)
    shown = done("info", out)
    assert shown.stderr.splitlines()[-1] == f"Next: ddtool report '{out}'"
    done(*shlex.split(shown.stderr.splitlines()[-1])[2:])
    (out / "compare.json").write_text("{")
    assert "compare.json is damaged" in refused(1, "info", out).replace("\n", "")


def test_processes_of_a_launcher_share_the_jobs(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    faked["mgdd-ipc1-5steps-seed1"] = {"say": "Error: No luck.", "exit": 1}
    monkeypatch.setenv("WORLD_SIZE", "2")
    ran = {}
    for rank in (0, 1):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("LOCAL_RANK", str(rank))
        shown = done(
            "compare", data, *WORDS, "--out", tmp_path / "out"
        )  # a failed job ends no process: the launcher would end the others
        ran[rank] = re.findall(r"^(.*): begins \(job \d of \d\)$", shown.stderr, re.MULTILINE)
        assert ("others are still at work" in shown.stderr) == (rank == 0)
        assert ("mgdd" in shown.stdout) == (rank == 1)
    assert ran == {
        0: ["random, IPC 1, seed 0", "random, IPC 1, seed 1"],
        1: ["mgdd, IPC 1, 5 steps, seed 0", "mgdd, IPC 1, 5 steps, seed 1"],
    }


@pytest.mark.skipif(sys.platform == "win32", reason="there folders are not held")
def test_a_second_command_in_the_same_folder_is_refused(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    with Folder(out).held(launched=False):
        assert "is at work in" in refused(1, "compare", data, *WORDS, "--out", out)
        done("compare", data, *WORDS, "--out", out, "--dry-run")
    assert not (out / "compare.json").exists()
    done("compare", data, *WORDS, "--out", out)


def test_jobs_that_were_finished_before_did_not_share_a_device(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    out = tmp_path / "out"
    done("compare", data, *WORDS, "--out", out)
    done("compare", data, *WORDS, "--out", out, "--workers", 2)
    assert not Folder(out).read().shared
    done("compare", data, *WORDS, "--out", out, "--workers", 2, "--ipc", 2)
    assert Folder(out).read().shared


def test_a_dry_run_lists_the_jobs_and_writes_nothing(tmp_path: Path, data: Path) -> None:
    shown = done("compare", data, *WORDS, "--out", tmp_path / "out", "--dry-run", "--json", "--workers", 2)
    plan = json.loads(shown.stdout)["jobs"]
    assert [one["job"] for one in plan][:2] == ["random-ipc1-seed0", "mgdd-ipc1-5steps-seed0"]
    assert {one["state"] for one in plan} == {"missing"}
    assert plan[1]["command"].startswith(
        f"ddtool adapt {data} --method mgdd --steps 1 --refine-steps 4 --ipc 1 --seed 0"
    )
    assert "--threads" in plan[1]["command"]  # two beside each other share the cores
    assert not (tmp_path / "out").exists()
    assert "4 jobs" in done("compare", data, *WORDS, "--out", tmp_path / "out", "--dry-run").stderr


def test_jobs_read_the_data_as_the_comparison_does(tmp_path: Path, data: Path) -> None:
    read = ("--strict", "--skip-broken", "1%", "--class-level", 1, "--max-megapixels", 100, "--max-per-class", 7,
            "--streaming")  # fmt: skip
    shown = done("compare", data, *WORDS, *read, "--out", tmp_path / "out", "--dry-run", "--quiet")
    commands = [shlex.split(line)[1:] for line in shown.stdout.splitlines()]
    assert len(commands) == 4
    for words in commands:
        assert words.pop() == "--quiet"
        told = json.loads(done(*words, "--dry-run").stdout)
        assert told["config"]["data"] == {
            "strict": True, "skip_broken": 0.01, "class_level": 1, "max_megapixels": 100, "max_per_class": 7,
            "streaming": True,
        }  # fmt: skip


def test_the_next_command_scores_by_what_is_not_measured_yet(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    for protocols, following in (("quick,frepo-mse", "dsa-ce"), ("dsa-ce,frepo-mse", None)):
        words = (*WORDS[:2], "--methods", "random", *WORDS[6:], "--protocol", protocols, "--out", tmp_path / protocols)
        said = done("compare", data, *words).stderr
        assert (f"--protocol {following} " in said) == ("Next: " in said) == (following is not None)


def test_both_sides_are_scored_by_their_own_rules(tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]) -> None:
    """Without --protocol there is a table by quick and one by dsa-ce, with a row of each method; what that takes is said before."""
    out = tmp_path / "out"
    shown = done("compare", data, *WORDS, "--out", out, "--json")
    said = json.loads(shown.stdout)
    tables = [said, *said["others"]]
    assert [one["request"]["protocol"] for one in tables] == ["quick", "dsa-ce"]
    assert [[(row["method"], row["seeds"]) for row in one["rows"]] for one in tables] == [
        [("random", 2), ("mgdd", 2)]
    ] * 2
    assert "4 networks by quick and as many by dsa-ce; their seconds are in no budget" in shown.stderr
    assert "--protocol quick" in shown.stderr
    again = done("compare", data, *WORDS, "--out", out)
    assert "networks by" not in again.stderr  # nothing is to do


def test_a_dry_run_says_what_the_scores_take(tmp_path: Path, data: Path) -> None:
    def told(*words: object) -> str:
        return done("compare", data, *WORDS, *words, "--out", tmp_path / "out", "--dry-run").stderr

    # 4 jobs of 3 images of 16x16: 1.5 s for an image of 32x32
    assert "about 9 s in all on one CPU core with bf16" in " ".join(told("--eval-seeds", 2).split())
    assert "about 27 s in all" in " ".join(told("--eval-seeds", 6).split())
    assert "whole training set" not in told()
    assert "On the whole training set dsa-ce takes 1,000 steps, for which it needs a GPU." in " ".join(
        told("--whole").split()
    )
    alone = told("--protocol", "quick")
    assert "Scores: 4 networks by quick; their seconds are in no budget." in alone
    assert "dsa-ce" not in alone
    assert "first look" not in told("--protocol", "dsa-ce")


def test_a_comparison_that_was_begun_keeps_its_protocol(
    tmp_path: Path, data: Path, faked: dict[str, dict[str, Any]]
) -> None:
    """One of an earlier version, whose default was quick: the same command goes on, adds jobs, and scores them by quick alone."""
    out = tmp_path / "out"
    done("compare", data, *WORDS, "--protocol", "quick", "--out", out)
    before = (out / "compare.json").read_text()
    assert json.loads(before)["request"]["protocol"] == "quick"
    shown = done("compare", data, *WORDS, "--out", out, "--json")
    assert "Finished already: 4 of 4 jobs." in shown.stderr
    assert (out / "compare.json").read_text() == before
    more = (*WORDS, "--seeds", 3, "--out", out)
    plan = json.loads(done("compare", data, *more, "--dry-run", "--json").stdout)
    assert (plan["protocol"], [one["state"] for one in plan["jobs"]].count("missing")) == ("quick", 2)
    said = json.loads(done("compare", data, *more, "--json").stdout)
    assert "others" not in said
    assert [row["seeds"] for row in said["rows"]] == [3, 3]
    message = refused(2, "compare", data, *WORDS, "--out", out, "--protocol", "quick,dsa-ce")
    assert 'protocol "quick"' in message  # one that is named has to be the same


@pytest.mark.parametrize("method", ["dsa", "mgdd"])
def test_scores_are_in_no_budget(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """What a set took is written down before the first network is trained on it, and stays as it is."""
    tiny.shorten_protocols(monkeypatch)
    real, spent, out = scoring.train_and_test, [], tmp_path / "run"

    def measured(*words: Any, **more: Any) -> Score:
        spent.append(Run(out).noted().facts.spent)
        return real(*words, **more)

    monkeypatch.setattr(scoring, "train_and_test", measured)
    words = tiny.UNCOUNTED if method == "mgdd" else ["--set", "baseline.width=8"]
    done("adapt", data, "--method", method, "--ipc", 1, "--seconds", 0.3, "--protocol", USUAL, *words, "--out", out,
         "--device", "cpu", "--precision", "fp32", "--threads", 1, "-q")  # fmt: skip
    assert len(spent) >= 2
    assert spent[0]
    assert [*spent, Run(out).noted().facts.spent] == [spent[0]] * (len(spent) + 1)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--methods", "mdgg"], "Did you mean 'mgdd'?"),
        (["--steps", 5, "--seconds", 5], "steps or in seconds"),
        (["--seconds", "nan"], "--seconds must be positive"),
        (["--set-for", "random"], "METHOD:NAME=VALUE"),
        (["--set-for", "randon:baseline.width=3"], "Did you mean 'random'?"),
        (["--methods", "random", "--set", "baseline.wdth=3"], "baseline.wdth"),
        (["--methods", "random", "--set-for", "random:adapt.lr=3"], "random: Setting 'adapt.lr' is MGDD's"),
        (["--methods", "random", "--set", "evaluate.enabled=false"], "Setting 'evaluate.enabled'"),
        (["--methods", "random", "--ipc", 9], "--ipc 9 is more than class"),
        (["--device", "gpu9"], "gpu9"),
    ],
)
def test_bad_requests_are_refused(tmp_path: Path, data: Path, words: list[object], says: str) -> None:
    assert says in refused(2, "compare", data, *words, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_every_command_of_the_page_parses() -> None:
    page = (ROOT / "docs" / "compare.md").read_text(encoding="utf-8")
    lines = re.findall(r"^(?:.* -m )?ddtool compare (.*?)(?:  +#.*)?$", page, re.MULTILINE)
    group: Any = typer.main.get_command(app)
    for line in lines:
        group.commands["compare"].make_context("compare", shlex.split(line))
    assert len(lines) >= 6


def test_jobs_are_runs_of_adapt(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "Local", ForkedJobs)
    settings = [part for word in (*OPTIONS, "whitening.kind=none") if "=" in word for part in ("--set", word)]
    shown = done(
        "compare", data, "--ipc", 1, "--methods", "random,mgdd", "--steps", 5, "--seeds", 1, "--generator", "scratch",
        "--device", "cpu", "--precision", "fp32", "--threads", 1, "--out", tmp_path / "out", "--json", *settings,
    )  # fmt: skip
    said = json.loads(shown.stdout)
    assert [(row["method"], row["seeds"], row["steps"]) for row in said["rows"]] == [("random", 1, 0), ("mgdd", 1, 5)]
    assert all(0 <= row["accuracy"] <= 100 and row["peak_memory_mib"] > 0 for row in said["rows"])
    assert said["rows"][1]["step_seconds"] > 0
    assert "of 2 jobs" not in shown.stderr


def test_a_job_is_a_process_of_its_own(tmp_path: Path, data: Path) -> None:
    """`python -m ddtool adapt`, as users have it."""
    shown = done(
        "compare", data, "--ipc", 1, "--methods", "random", "--seeds", 1, "--protocol", "kernel-ridge", "--device", "cpu",
        "--precision", "fp32", "--threads", 1, "--set", "whitening.kind=none", "--out", tmp_path / "out", "--json",
    )  # fmt: skip
    (row,) = json.loads(shown.stdout)["rows"]
    assert (row["method"], row["seeds"], row["failed"]) == ("random", 1, 0)
    assert 0 <= row["accuracy"] <= 100
