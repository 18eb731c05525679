"""Hashes of the sets that short seeded runs make: a change that only moves code leaves all of them as they were.

    python benchmarks/fingerprint.py before.json                       (about two minutes on two cores)
    python benchmarks/fingerprint.py after.json --against before.json

MGDD and each method of the field, a few steps on the bundled sample in float32. Bits differ between kinds of machines, so both
files must come from the same one. Exits 1 and names what differs: a hash, or a score that both versions measure (a later version
may measure more).
"""

import argparse
import hashlib
import json
import tempfile
from pathlib import Path
from typing import Any

import ddtool

METHODS = ("mgdd", "random", "herding", "dm", "dc", "dsa", "idc", "mtt", "frepo")
SETTINGS: dict[str, dict[str, Any]] = {
    "mgdd": {
        "features": {"width": 128},
        "adapt": {"steps": 4},
        "refine": {"steps": 4},
        "labels": {"images": 1000, "width": 128},
        "fit": {"networks": 2},
    },
    "mtt": {"steps": 2, "experts": 1, "expert_epochs": 3, "expert_images": 500, "start_before": 1, "student_steps": 2},
    "dm": {"steps": 2, "real_batch": 8},
    "dc": {"steps": 2, "real_batch": 8},
    "dsa": {"steps": 2, "real_batch": 8},
    "idc": {"steps": 2, "real_batch": 8, "real_images": 64},
    "frepo": {"steps": 2, "real_batch": 50, "networks": 2},
}


def settings_of(method: str) -> dict[str, Any]:
    """A few steps, no scores that take long, nothing whitened: that is how the first recorded files were made."""
    chosen = SETTINGS.get(method, {})
    few = {
        "whitening": {"kind": "none"},
        "evaluate": {"baseline": False, "kernel_ridge": True, "protocol": "quick", "seeds": 1},
    }
    return few | (chosen if method == "mgdd" else {"baseline": chosen})


def fingerprint(run: ddtool.Run) -> dict[str, str]:
    """SHA-256 of each stage's images and labels, and the accuracies by kernel ridge and by the protocol, in their order."""
    hashes = {}
    for path in sorted(run.folder.rglob("*.safetensors")):
        if path.name == "exact.safetensors" or path.parent.name == "stages":
            synthetic = run.load_set(
                run.ipcs()[0], None if path.name == "exact.safetensors" else path.stem.split("-")[1]
            )
            digest = hashlib.sha256(synthetic.images.numpy().tobytes() + synthetic.labels.numpy().tobytes())
            hashes[f"{path.parent.name}/{path.name}"] = digest.hexdigest()[:16]
    scores = [score["mean"] for score in run.results()["scores"]]
    return hashes | {"scores": json.dumps(scores)}


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """The names of the hashes and of the list of scores that differ between two fingerprints of a method, of what both have."""
    different = [name for name in before if name != "scores" and before[name] != after.get(name)]
    ours, theirs = (json.loads(one["scores"]) for one in (before, after))
    return different + ["scores"] * (len(ours) == len(theirs) and ours != theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--against", type=Path)
    options = parser.parse_args()
    engine, found = ddtool.Engine.choose("cpu", "fp32"), {}
    for method in METHODS:
        with tempfile.TemporaryDirectory() as folder:
            run = ddtool.adapt(
                "sample", ipc=2, method=method, out=Path(folder) / "run", engine=engine, settings=settings_of(method)
            )
            found[method] = fingerprint(run)
            print(method, found[method], flush=True)
    options.out.write_text(json.dumps(found, indent=2) + "\n")
    if options.against:
        before = json.loads(options.against.read_text())
        different = [f"{method} {name}" for method in METHODS for name in differences(before[method], found[method])]
        print("the same" if not different else f"different: {', '.join(different)}")
        raise SystemExit(bool(different))


if __name__ == "__main__":
    main()
