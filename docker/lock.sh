#!/usr/bin/env bash
# Writes the two locks of the image, exact versions with the hashes of their files, the newest that pyproject.toml's ranges admit:
#   requirements.lock  all but torch
#   torch.lock         torch and the CUDA libraries that it pins, as the usual index has them
# PIP_CONSTRAINT=FILE holds a version back. Usage: docker/lock.sh [PYTHON]
set -euo pipefail
cd "$(dirname "$0")/.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"${1:-python3}" -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet uv
# For the oldest Python that ddtool runs on, so that every base image's can take them.
"$work/venv/bin/uv" pip compile pyproject.toml --quiet --no-config --generate-hashes --no-annotate --no-header \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 --output-file "$work/all" \
  ${PIP_CONSTRAINT:+--constraint "$PIP_CONSTRAINT"} > /dev/null

split() { # split IS_TORCH TITLE: the entries of torch and its libraries, or all others
  echo "# Made by docker/lock.sh: $2"
  awk -v wanted="$1" '/^[a-z0-9]/ { torch = /^(torch==|triton==|nvidia-|cuda-)/ } torch == wanted' "$work/all"
}
split 0 "what the image holds beside ddtool itself and torch." > "$work/requirements"
split 1 "torch, and the CUDA libraries of its usual build." > "$work/torch"
mv "$work/requirements" docker/requirements.lock
mv "$work/torch" docker/torch.lock
