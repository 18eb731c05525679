#!/usr/bin/env bash
# The test suite at the lowest versions that pyproject.toml names, in a new environment: benchmarks/lowest.sh [TORCH]
# TORCH: another version of torch, where the CPU build of the lowest cannot be had (for example 2.13.0).
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
# shellcheck disable=SC1091
source "$work/venv/bin/activate"

python3 - "${1:-}" > "$work/lowest.txt" <<'PYTHON'
import re, sys, tomllib
said = tomllib.load(open("pyproject.toml", "rb"))
parts = [*said["project"]["dependencies"], *said["project"]["optional-dependencies"]["test"], *said["build-system"]["requires"]]
lowest = dict(re.fullmatch(r"([\w-]+)>=([\w.]+)(?:;.*)?", part).groups() for part in parts)
lowest["torch"] = sys.argv[1] or lowest["torch"]
print(*(f"{name}=={version}" for name, version in sorted(lowest.items())), sep="\n")
PYTHON
cat "$work/lowest.txt"

export PIP_CONSTRAINT="$work/lowest.txt" PIP_DISABLE_PIP_VERSION_CHECK=1
export DDTOOL_CACHE="$work/cache" HF_HOME="$work/hf" TMPDIR="$work"
unset PYTHONPATH
pip install -q hatchling editables
pip install -q --no-build-isolation -e '.[test]'
python -m pytest
