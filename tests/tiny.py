"""A dataset, settings and a command line so small that a whole `ddtool adapt` takes under a second; no tests here."""

import dataclasses
import io
import os
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from ddtool import api
from ddtool.cli.app import app
from ddtool.evaluation import measure
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.events import Report, silent
from ddtool.pipeline import target
from ddtool.reports import run_page
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "ddtool" / "assets" / "sample"
CLASSES = ("boot", "coat", "dress")
ENGINE = Engine(torch.device("cpu"), bf16=False)
SETTINGS: dict[str, Any] = {
    "architecture": {"slots": 8, "side": 16},
    "features": {"width": 16},
    "labels": {"width": 16},
    "adapt": {"steps": 3, "seen_ipcs": [2, 4], "real_batch": 12, "augmented_copies": 1},
    "fit": {"networks": 2, "real_batch": 12, "augmented_copies": 1},
    "refine": {"steps": 3, "real_batch": 12, "augmented_copies": 1},
}
"""Of a run through the Python API; the generator is 'scratch'."""
UNCOUNTED = shlex.split(
    "--generator scratch --precision fp32 --set architecture.slots=8 "
    "--set architecture.side=16 --set features.width=16 --set labels.width=16 --set adapt.seen_ipcs=[2,4] "
    "--set adapt.real_batch=12 --set refine.real_batch=12 --set fit.networks=2 --set fit.real_batch=12 "
    "--set adapt.augmented_copies=1 --set refine.augmented_copies=1 --set fit.augmented_copies=1"
)
"""The same on the command line, for a budget in seconds."""
OPTIONS = [*UNCOUNTED, "--steps", "3", "--refine-steps", "3"]
"""The same, by steps."""


@cache
def pictures(split: str, side: int) -> dict[int, list[bytes]]:
    """PNGs of the sample's classes 0 to 3, `side` pixels square, by class."""
    table = pq.read_table(next((SAMPLE / "data").glob(f"{split}-*")))
    found: dict[int, list[bytes]] = {label: [] for label in range(4)}
    for cell, label in zip(table["image"], table["label"].to_pylist(), strict=True):
        if label in found and len(found[label]) < 10:
            out = io.BytesIO()
            Image.open(io.BytesIO(cell["bytes"].as_py())).resize((side, side)).save(out, "PNG")
            found[label].append(out.getvalue())
    return found


def image_folder(folder: Path, names: tuple[str, ...] = CLASSES, train: int = 8, test: int = 4, side: int = 16) -> Path:
    """folder/train/NAME/0.png …: what a user has at hand."""
    for split, count in (("train", train), ("test", test)):
        for label, name in enumerate(names):
            place = folder / split / name
            place.mkdir(parents=True)
            for i, png in enumerate(pictures(split, side)[label][:count]):
                (place / f"{i}.png").write_bytes(png)
    return folder


def shorten_protocols(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every protocol for four steps on a narrow network, the guide on a narrow one, and one network to try whitening with."""
    monkeypatch.setattr(measure, "GUIDE_WIDTH", 16)
    monkeypatch.setattr(target, "TRIAL_NETWORKS", 1)
    for name, protocol in PROTOCOLS.items():
        short = dataclasses.replace(protocol, steps=lambda m: 4, width=8)
        monkeypatch.setitem(PROTOCOLS, name, short)


def start() -> None:
    """`ddtool`, as a process that a test starts runs it: short protocols, and no plots on the page of a run."""
    patch = pytest.MonkeyPatch()
    shorten_protocols(patch)
    patch.setattr(run_page, "drawn", lambda figure: b'<svg xmlns="http://www.w3.org/2000/svg"/>')
    app()


def adapt(dataset: Path, out: Path, report: Report = silent, seed: int = 0, **changes: Any) -> Run:
    """A tiny run through the Python API, for IPC 2 on float32."""
    options: dict[str, Any] = {"ipc": 2, "generator": "scratch", "settings": SETTINGS} | changes
    return api.adapt(str(dataset), out=out, seed=seed, engine=ENGINE, report=report, **options)


def ddtool(*words: object) -> Result:
    """`ddtool WORDS` in this process. Whatever happens, nobody sees a traceback."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def done(*words: object) -> Result:
    """`ddtool WORDS`, which must succeed."""
    result = ddtool(*words)
    assert result.exit_code == 0, result.output
    return result


def refused(code: int, *words: object) -> str:
    """`ddtool WORDS`, which must fail with that exit code, an `Error:` and a `Hint:`; returns what stderr says."""
    result = ddtool(*words)
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    label, hint = (line.split(":")[0] for line in lines[-2:])
    assert (label, hint) in (("Error", "Hint"), ("Interrupted.", "Hint")), result.stderr
    assert all(len(line.split(":", 1)[-1].strip()) > 5 for line in lines[-2:])
    return result.stderr


def python(code: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh interpreter that finds ddtool; `sys.argv[1:]` are the arguments."""
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True, text=True, errors="replace", timeout=120, check=False,
    )  # fmt: skip


def all_bytes(run: Path) -> dict[str, bytes]:
    """The tensors of a run by file: what two runs of one seed share to the last bit."""
    names = sorted(p.relative_to(run).as_posix() for p in run.rglob("*.safetensors"))
    return {name: (run / name).read_bytes() for name in names}


def listing(folder: Path) -> list[str]:
    """Every file below, hidden ones too."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
