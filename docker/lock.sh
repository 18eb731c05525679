#!/usr/bin/env bash
# Writes docker/requirements.lock: the newest versions that pyproject.toml's ranges admit, without those of the CUDA build
# of torch, which pins them itself. PIP_CONSTRAINT=FILE holds a version back. Usage: docker/lock.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet .
{
  echo "# Made by docker/lock.sh: what the image holds beside ddtool itself."
  "$work/venv/bin/pip" freeze --all --exclude ddtool --exclude pip | sed -E 's/\+[[:alnum:].]+$//; /^(nvidia|cuda|triton)/d'
} > "$work/lock"
mv "$work/lock" docker/requirements.lock
