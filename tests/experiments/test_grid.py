"""What `ddtool compare` is asked for, and the `ddtool adapt` of each job."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from fake_jobs import REQUEST, A, finish, job

from ddtool.cli.app import app
from ddtool.config.layers import nested
from ddtool.errors import UsageError
from ddtool.experiments import jobs
from ddtool.experiments.folder import Folder
from ddtool.experiments.grid import Budget, Job, Request, entry_of, find_methods, jobs_of
from ddtool.methods import METHODS

FORCED = {f"evaluate.{name}": "false" for name in ("baseline", "kernel_ridge", "without_whitening")}
"""What no job does."""


def test_methods_are_found_by_name() -> None:
    assert find_methods(["mgdd, dm", "random"]) == ["random", "dm", "mgdd"]
    assert find_methods(["all"]) == [
        *(
            variant
            for name in METHODS
            if name != "mgdd"
            for variant in ((name,) if METHODS[name].record.learns else (name, f"{name}+labels"))
        ),
        "mgdd-generator",
        "mgdd",
    ]
    with pytest.raises(UsageError) as refusal:
        find_methods(["mgdd-generater"])
    assert refusal.value.hint.startswith("Did you mean 'mgdd-generator'? Known: all, ")
    with pytest.raises(UsageError):
        find_methods([","])


def test_a_selection_is_one_job_whatever_the_budgets() -> None:
    jobs = jobs_of(["random", "dm", "mgdd"], [10, 1], [300, 100, 100], [], 2)
    assert len(jobs) == len(set(jobs)) == len({j.name for j in jobs}) == 2 * 2 * (1 + 2 + 2)
    assert [j.seed for j in jobs] == [0] * 10 + [1] * 10  # something of everything first
    assert jobs[0] == Job("random", 1, None, None, 0)
    assert jobs[0].name == "random-ipc1-seed0"
    assert jobs[1].name == "dm-ipc1-100steps-seed0"
    assert jobs[1].words == "dm, IPC 1, 100 steps, seed 0"


def test_budgets_are_of_one_kind() -> None:
    jobs = jobs_of(["dm"], [1], [], [60, 2.5], 1)
    assert [j.name for j in jobs] == ["dm-ipc1-2.5s-seed0", "dm-ipc1-60s-seed0"]
    with pytest.raises(UsageError):
        jobs_of(["dm"], [1], [10], [60], 1)


def options_of(request: Request, wanted: Job) -> dict[str, Any]:
    """A job's command as {option: value}, `--set` as a mapping."""
    words = jobs.command(request, wanted, Path("runs/x/jobs/y"), ["--device", "cpu"])
    assert words[1:5] == ["-m", "ddtool", "adapt", request.dataset]
    assert words[-1] == "--quiet"
    pairs = list(zip(words[5:-1:2], words[6:-1:2], strict=True))
    return dict(pairs) | {"--set": dict(value.split("=", 1) for name, value in pairs if name == "--set")}


def test_each_method_gets_its_budget_and_the_same_network() -> None:
    dm = options_of(REQUEST, job("dm", 1003))
    assert (dm["--method"], dm["--steps"], dm["--ipc"], dm["--seed"]) == ("dm", "1003", "10", "0")
    assert dm["--set"] == {"baseline.doubling_widths": "true"} | FORCED
    assert "--refine-steps" not in dm
    assert dm["--device"] == "cpu"
    assert (dm["--protocol"], dm["--eval-seeds"], dm["--precision"]) == ("quick", "1", "auto")
    refined, alone = (options_of(REQUEST, job(method, 1003)) for method in ("mgdd", "mgdd-generator"))
    assert (refined["--method"], refined["--steps"], refined["--refine-steps"]) == ("mgdd", "200", "803")
    assert (alone["--method"], alone["--steps"], alone["--refine-steps"]) == ("mgdd", "1003", "0")
    short = {"features.width": "128", "labels.images": "4000", "fit.networks": "8"}
    assert refined["--set"] == short | FORCED
    assert not {"--steps", "--seconds"} & options_of(REQUEST, job("random")).keys()


def test_settings_for_minutes_unless_the_published_ones_are_asked_for() -> None:
    ours = {f"baseline.{name}": json.dumps(value) for name, value in METHODS["dsa"].record.quick_settings.items()}
    assert ours
    assert options_of(REQUEST, job("dsa"))["--set"] == {"baseline.doubling_widths": "true"} | ours | FORCED
    assert options_of(replace(REQUEST, published=True), job("dsa"))["--set"] == FORCED
    assert options_of(replace(REQUEST, published=True), job("mgdd"))["--set"] == FORCED


def test_a_budget_in_seconds_is_left_to_the_pipeline() -> None:
    timed = {m: options_of(REQUEST, Job(m, 10, None, 60.0, 0)) for m in ("dm", "mgdd", "mgdd-generator")}
    assert {options["--seconds"] for options in timed.values()} == {"60"}
    assert not any("--steps" in options for options in timed.values())
    assert [m for m, options in timed.items() if "--refine-steps" in options] == ["mgdd-generator"]


def test_settings_reach_whom_they_are_for() -> None:
    request = Request(
        "x", published=True, data={"config": "a", "train_split": "t"},
        settings={"baseline": {"width": 64}, "refine": {"ridge": 0.5}}, own={"dm": {"baseline": {"width": 32, "init": "noise"}}},
    )  # fmt: skip
    dm = options_of(request, job("dm"))
    read = {"data.config": '"a"', "data.train_split": '"t"'}
    assert dm["--set"] == {"baseline.width": "32", "baseline.init": '"noise"'} | read | FORCED
    assert options_of(request, job("idc"))["--set"]["baseline.width"] == "64"
    assert options_of(request, job("mgdd"))["--set"] == {"refine.ridge": "0.5"} | read | FORCED


def test_a_begun_job_is_resumed(folder: Folder) -> None:
    folder.add(REQUEST, [A], False)
    run = folder.run(A)
    assert "--resume" not in jobs.command(REQUEST, A, run, [])
    finish(folder, A, 50.0, finished=False)
    words = jobs.command(replace(REQUEST, compiled=True), A, run, ["--device", "cpu"])
    assert words[3:] == [
        "adapt",
        "--resume",
        str(run),
        "--device",
        "cpu",
        "--precision",
        "auto",
        "--compile",
        "--quiet",
    ]


@pytest.mark.parametrize("method", ["random", "dm", "mgdd", "mgdd-generator"])
@pytest.mark.parametrize("seconds", [None, 60.0])
def test_adapt_knows_the_options_of_a_job(method: str, seconds: float | None) -> None:
    wanted = Job(method, 10, None if seconds else 10, seconds, 0)
    words = jobs.command(Request("sample", data={"config": "a"}, compiled=True), wanted, Path("x"), ["--threads", "1"])
    group: Any = typer.main.get_command(app)
    group.commands["adapt"].make_context("adapt", words[4:])


def test_what_a_job_would_refuse_is_refused_before_the_first(data: Path) -> None:
    jobs.check(replace(REQUEST, dataset=str(data)), [A, job("mgdd", ipc=1)])
    cases: list[tuple[Request, str]] = [
        (replace(REQUEST, own={"random": {"baseline": {"wdth": 3}}}), "random: Unknown setting 'baseline.wdth'"),
        (replace(REQUEST, settings={"adapt": {"lr": -1}}), "adapt.lr"),
        (replace(REQUEST, protocol="quik"), "protocol"),
        (replace(REQUEST, own={"mtd": {}}), "Unknown method 'mtd'"),
        (replace(REQUEST, preset="tpu"), "tpu"),
    ]
    for request, words in cases:
        with pytest.raises(UsageError) as refusal:
            jobs.check(request, [A, job("mgdd", ipc=1)])
        assert words in refusal.value.message
        assert refusal.value.hint
    with pytest.raises(UsageError, match="--ipc 9"):
        jobs.check(replace(REQUEST, dataset=str(data)), [Job("random", 9, None, None, 0)])
    for factor, words in ((3, "--factor 3 does not cut"), (4, "--ipc 1 times 4x4")):
        request = replace(REQUEST, dataset=str(data), own={"mgdd-generator": {"factor": factor}})
        with pytest.raises(UsageError, match=words):
            jobs.check(request, [job("mgdd-generator", ipc=1), job("mgdd", ipc=1)])


@pytest.mark.parametrize("name", [*jobs.DECIDED, "data.seed", "evaluate.arch"])
def test_what_the_comparison_decides_is_no_setting_of_its_jobs(name: str) -> None:
    own = replace(REQUEST, own={"random": nested({name: 1})})
    every = [replace(REQUEST, settings=nested({name: 1}))] if name in jobs.DECIDED else []
    for request in (own, *every):
        with pytest.raises(UsageError, match=r"comparison") as refusal:
            jobs.check(request, [A])
        assert refusal.value.hint == jobs.DECIDED.get(name, f"Use --set {name.partition('.')[0]}.NAME=VALUE.")


def test_settings_of_reading_count_in_the_check(data: Path) -> None:
    request = Request(str(data), settings={"data": {"max_per_class": 3}}, data={"resolution": 8})
    source = jobs.check(request, [A]).source
    assert (source["max_per_class"], source["resolution"]) == (3, 8)
    with pytest.raises(UsageError, match="--ipc 4"):
        jobs.check(request, [Job("random", 4, None, None, 0)])


def test_a_budget_is_read_as_it_is_written() -> None:
    for budget in (Budget("steps", 1), Budget("steps", 1000), Budget("seconds", 60.0), Budget("seconds", 2.5)):
        assert Budget.parse(str(budget)) == budget
    assert [str(Budget("steps", 1)), str(Budget("seconds", 60.0))] == ["1 step", "60 s"]
    assert Budget.parse("") is None
    for text in ("100", "steps", "1 day", "-1 steps"):
        with pytest.raises(ValueError, match="is no budget"):
            Budget.parse(text)


def test_a_method_of_another_version_can_do_nothing_special() -> None:
    entry = entry_of("later")
    assert (entry.method.name, entry.variant.title) == ("later", "later")
    assert not entry.method.has_generator
    assert not entry.method.ours


def test_control_rows_have_fitted_labels() -> None:
    """The same images with the labels that MGDD's would have: what labels do, and what choosing does."""
    plain, fitted = (options_of(REQUEST, job(name)) for name in ("herding", "herding+labels"))
    assert fitted["--method"] == plain["--method"] == "herding"
    assert "baseline.labels" not in plain["--set"]
    assert fitted["--set"]["baseline.labels"] == '"fitted"'
    mgdd = options_of(REQUEST, job("mgdd"))["--set"]
    assert fitted["--set"]["baseline.fit_networks"] == mgdd["fit.networks"]
    assert job("herding+labels").name == "herding+labels-ipc10-seed0"


def test_several_protocols_are_checked_and_passed_on(data: Path) -> None:
    several = replace(REQUEST, protocol="quick,dsa-ce")
    assert options_of(several, job("dm"))["--protocol"] == "quick,dsa-ce"
    assert [one.protocol for one in several.by_protocol()] == ["quick", "dsa-ce"]
    with pytest.raises(UsageError, match="Unknown evaluation protocol 'dsa'"):
        jobs.check(replace(REQUEST, dataset=str(data), protocol="quick,dsa"), [Job("random", 1, None, None, 0)])
