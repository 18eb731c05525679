"""What is released holds what it should and nothing else; its versions, workflows, image and lock agree with pyproject.toml."""

import contextlib
import importlib.metadata
import re
import subprocess
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement

import ddtool
from tests.tiny import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
VERSION = ddtool.__version__
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
SOURCES = {str(path.relative_to(ROOT)) for path in (ROOT / "ddtool").rglob("*") if path.is_file()} - {
    str(path.relative_to(ROOT)) for path in (ROOT / "ddtool").rglob("__pycache__/*")
}
CARDS = {f"hub_cards/{path.name}" for path in (ROOT / "hub_cards").iterdir()}
LICENCES = {"LICENSE", "THIRD_PARTY_NOTICES.md"}
MEGABYTES_20 = 20_000_000


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# ------------------------------------------------------------------------------------------------- wheel and sdist


def test_the_wheel_holds_the_package_and_no_more(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    info = {name for name in names if name.startswith(f"ddtool-{VERSION}.dist-info/")}
    assert names - info == SOURCES | {f"ddtool/{name}" for name in CARDS}
    assert {f"ddtool-{VERSION}.dist-info/licenses/{name}" for name in LICENCES} <= info
    assert {"ddtool/py.typed", "ddtool/hub_cards/model.md.j2", "ddtool/assets/sample/README.md"} <= names
    assert any(name.startswith("ddtool/assets/meta-generator") and name.endswith(".safetensors") for name in names)
    assert wheel.stat().st_size < MEGABYTES_20


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    (dist,) = importlib.metadata.distributions(path=[str(wheel)])
    said = dist.metadata
    assert (said["Name"], said["Version"]) == ("ddtool", VERSION)
    assert (said["License-Expression"], said["Requires-Python"]) == ("MIT", PROJECT["requires-python"])
    assert set(said.get_all("License-File") or []) == LICENCES
    assert "ddtool adapt sample" in str(said.get_payload())
    assert {e.value for e in dist.entry_points if e.name == "ddtool"} == {"ddtool.__main__:main"}
    versions = re.findall(r"Python :: (3\.\d+)$", "\n".join(said.get_all("Classifier") or []), re.MULTILINE)
    (ci,) = (yaml.safe_load(path.read_text()) for path in WORKFLOWS if path.name == "ci.yml")
    assert versions == ci["jobs"]["run"]["strategy"]["matrix"]["python"]
    assert PROJECT["requires-python"] == f">={versions[0]}"


def test_the_sdist_holds_what_a_build_and_a_test_need(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    tests = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests").rglob("*.py")}
    assert names >= SOURCES | CARDS | LICENCES | tests | {"pyproject.toml", "README.md", "Dockerfile", ".ci/run"}
    assert {"docker/requirements.lock", "docker/torch.lock"} <= names
    kept = ("benchmarks", "ddtool", "docker", "docs", "examples", "hub_cards", "tests", ".ci", ".github")
    assert {name.partition("/")[0] for name in names if "/" in name} == set(kept)
    assert not {name for name in names if re.search(r"__pycache__|\.pyc$|(^|/)(dist|\.\w+_cache)/|^runs/", name)}
    assert sdist.stat().st_size < MEGABYTES_20


def test_all_public_names_are_there() -> None:
    assert ddtool.__all__ == sorted(set(ddtool.__all__))
    assert all(getattr(ddtool, name) is not None for name in ddtool.__all__)


# --------------------------------------------------------------------------------------------- versions and workflows


def test_versions_agree() -> None:
    assert re.fullmatch(r"\d+\.\d+\.\d+", VERSION)
    released = re.findall(r"^## \[(\d[^\]]*)\] - \d{4}-\d\d-\d\d$", text("CHANGELOG.md"), re.MULTILINE)
    assert released[0] == VERSION
    citation = yaml.safe_load(text("CITATION.cff"))
    assert (citation["version"], citation["cff-version"]) == (VERSION, "1.2.0")
    assert f"[{VERSION}] - {citation['date-released']}" in text("CHANGELOG.md")
    assert citation["license"] == PROJECT["license"]
    assert "version" in PROJECT["dynamic"]
    assert "version" not in PROJECT


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job.get("steps", [])]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_little(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    assert "group" in workflow["concurrency"]
    for used in (step["uses"] for step in steps(workflow) if "uses" in step):
        assert re.search(r"@(v\d+|release/v\d+)$", used), used
    for ran in (step["run"] for step in steps(workflow) if "run" in step):
        assert "${{" not in ran, "an expression inside a script is an injection: use env"
    for job in workflow["jobs"].values():
        assert "timeout-minutes" in job or "uses" in job


def test_the_workflows_test_before_they_release() -> None:
    ci, release = (yaml.safe_load(text(f".github/workflows/{name}.yml")) for name in ("ci", "release"))
    assert ".ci/run" in [step.get("run") for step in steps(ci)]
    assert release["jobs"]["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert "workflow_call" in ci[True]  # YAML 1.1 reads the key `on` so
    for name in ("publish", "image"):
        assert "ci" in release["jobs"][name]["needs"]
    assert release["jobs"]["publish"]["permissions"] == {"id-token": "write"}
    assert "password" not in str(release["jobs"]["publish"])


# ------------------------------------------------------------------------------------------------------------ Docker


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, each on one line, without comments."""
    lines = re.sub(r"^\s*#.*\n", "", text("Dockerfile"), flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines if line)]


def test_the_image_runs_ddtool_as_nobody_special() -> None:
    found = instructions()
    assert re.fullmatch(r"BASE_IMAGE=python:3\.\d+\.\d+-slim-\w+", found[0][1]), "an exact version"
    assert [rest.split()[0] for word, rest in found if word == "FROM"] == ["${BASE_IMAGE}"] * 2
    last = found[[word for word, _ in found].index("FROM", 2) :]
    users = [rest for word, rest in last if word == "USER"]
    assert users
    assert not re.match(r"(root|0)(:|$)", users[-1])
    assert ("ENTRYPOINT", '["ddtool"]') in last
    (volumes,) = (yaml.safe_load(rest) for word, rest in last if word == "VOLUME")
    (workdir,) = (rest for word, rest in last if word == "WORKDIR")
    assert workdir in volumes
    env = dict(re.findall(r"(\w+)=(\S+)", " ".join(rest for word, rest in last if word == "ENV")))
    for name in ("HF_HOME", "DDTOOL_CACHE"):
        assert any(env[name].startswith(f"{volume}/") for volume in volumes)


def test_the_image_takes_only_what_is_named_and_no_secret() -> None:
    found = instructions()
    assert "ADD" not in [word for word, _ in found]
    assert not [
        rest
        for word, rest in found
        if word == "COPY" and re.search(r"--link|<<|https?:| \. |/root|site-packages", rest)
    ]
    assert not re.search(r"token|password|secret|hf_[a-z]", text("Dockerfile").replace("HF_HOME", ""), re.IGNORECASE)
    ignored = [line for line in text(".dockerignore").splitlines() if not line.startswith("#")]
    assert ignored[0] == "*"
    copied = {name for word, rest in found if word == "COPY" and "--from" not in rest for name in rest.split()[:-1]}
    assert {line[1:] for line in ignored if line.startswith("!")} == copied


def as_numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.partition("+")[0]))


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    """The entries of a lock: package → (version, hashes). Nothing else may stand in it."""
    entries: dict[str, tuple[str, list[str]]] = {}
    for line in text(name).replace("\\\n", " ").splitlines():
        if line.startswith("#"):
            continue
        package, *hashes = line.split()
        found = re.fullmatch(r"([a-z0-9-]+)==(\d[\w.]*)", package)
        assert found, f"an exact version, no host, no path: {line[:80]}"
        assert hashes, f"{package} has no hash"
        assert all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", part) for part in hashes), package
        assert found[1] not in entries
        entries[found[1]] = found[2], hashes
    return entries


def test_the_locks_pin_every_dependency_within_its_range_by_hash() -> None:
    others, torch = locked("docker/requirements.lock"), locked("docker/torch.lock")
    assert not others.keys() & torch.keys()
    assert {name for name in torch if not re.match(r"nvidia-|cuda-|triton$", name)} == {"torch"}
    assert not [name for name in others if re.match(r"nvidia-|cuda-|triton$", name)]
    for dependency in PROJECT["dependencies"]:
        name, lowest = re.fullmatch(r"([\w-]+)>=([\d.]+)", dependency).groups()  # type: ignore[union-attr]
        version, _ = (others | torch)[name.replace("_", "-")]
        assert as_numbers(version) >= as_numbers(lowest), dependency


def test_the_locks_hold_what_their_packages_need() -> None:
    """As far as the packages are installed here, as locked or later: each of their own dependencies is locked, too."""
    others, torch = locked("docker/requirements.lock"), locked("docker/torch.lock")
    for package, (version, _) in others.items():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            if as_numbers(importlib.metadata.version(package)) < as_numbers(version):
                continue  # what an earlier version needed may be needed no more
            for line in importlib.metadata.requires(package) or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    assert needed.name.lower().replace("_", "-") in others | torch, f"{package} needs {line}"


def test_the_image_is_built_from_hashes_with_a_cache() -> None:
    runs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert all(rest.startswith("--mount=type=cache,target=/root/.cache/pip ") for rest in runs)
    for name in ("requirements", "torch"):
        assert f"--require-hashes --requirement /src/docker/{name}.lock" in " ".join(runs)
    assert "PIP_NO_CACHE_DIR" not in text("Dockerfile"), "the cache is a mount"


def test_the_image_says_where_its_source_is() -> None:
    last = [rest for word, rest in instructions() if word == "LABEL"][-1]
    assert 'org.opencontainers.image.source="${SOURCE}"' in last
    release = yaml.safe_load(text(".github/workflows/release.yml"))
    (built,) = (step for step in steps(release) if "build-push-action" in step.get("uses", ""))
    given = dict(line.split("=", 1) for line in built["with"]["build-args"].split("\n") if line)
    arguments = {rest.partition("=")[0] for word, rest in instructions() if word == "ARG"}
    assert given.keys() <= arguments
    assert given["SOURCE"] == "${{ github.server_url }}/${{ github.repository }}"


def test_the_line_for_a_cpu_comes_first() -> None:
    for page in ("README.md", "docs/docker.md"):
        first = next(line for line in text(page).splitlines() if line.startswith("docker build"))
        assert '--build-arg TORCH_INDEX="$TORCH_CPU_INDEX"' in first


@pytest.mark.parametrize("script", ["docker/lock.sh", "tests/docker/check.sh", "tests/release/check.sh"])
def test_a_script_can_be_run(script: str) -> None:
    assert (ROOT / script).stat().st_mode & 0o111
    subprocess.run(["bash", "-n", str(ROOT / script)], check=True)
