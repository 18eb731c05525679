#!/usr/bin/env bash
# Installs what would be released as a user does, in a new environment, and tries it. Results so far: docs/releasing.md.
#   tests/release/check.sh wheel PYTHON      from the wheel, with the newest dependencies: a run of the bundled sample
#   tests/release/check.sh sdist PYTHON      the same from the sdist
#   tests/release/check.sh lowest PYTHON     the lowest versions that pyproject.toml admits (by uv): the tests below
#   tests/release/check.sh no-torch PYTHON   where no torch is at hand: all else, and what of ddtool needs none
# PIP_CONSTRAINT=FILE holds torch at a version, such as that of a CPU build; build and uv must be on the PATH.
set -euo pipefail
cd "$(dirname "$0")/../.."
what=$1 python=$2
files=(tests/test_{config,cli,hub_server,hub,cards,runs,sources}.py)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DDTOOL_CACHE=$work/cache HF_HOME=$work/hf OMP_NUM_THREADS=${OMP_NUM_THREADS:-2} PIP_DISABLE_PIP_VERSION_CHECK=1
python3 -m build --outdir "$work" . > "$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$python" -m venv "$work/venv"
PATH=$work/venv/bin:$PATH
install() { pip install --quiet "$@" 2> >(grep -v '^WARNING' >&2); }

dependencies() { # one a line
  python -c 'import tomllib
print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")'
}

try_a_run() {
  cd "$work" # not in the checkout
  pip check
  ddtool adapt sample --ipc 1 --steps 5 --refine-steps 5 --out run 2>&1 | tail -n 2
}

case $what in
  wheel) install "$work"/*.whl && try_a_run ;;
  sdist) install "$work"/*.tar.gz && try_a_run ;;
  lowest)
    uv pip compile --quiet --resolution lowest-direct --python "$(command -v python)" --no-header --no-annotate \
      ${PIP_CONSTRAINT:+--constraint "$PIP_CONSTRAINT"} pyproject.toml |
      grep -vE '^(nvidia|cuda|triton)' > "$work/lowest.txt"
    install --requirement "$work/lowest.txt" hypothesis pytest pytest-timeout pytest-xdist hatchling
    grep -iE "^($(dependencies | sed -E 's/[>=].*//; s/_/[-_]/' | paste -sd '|'))==" "$work/lowest.txt" | paste -sd ' '
    PYTHONPATH=$PWD python -m pytest -p no:cacheprovider "${files[@]}" 2>&1 | tail -n 1 ;;
  no-torch)
    dependencies | grep -v '^torch' > "$work/others.txt"
    install --requirement "$work/others.txt"
    install --no-deps "$work"/*.whl
    cd "$work"
    python -W error -m compileall -q -f "$(python -c 'import ddtool; print(ddtool.__path__[0])')"
    for command in "" adapt compare pretrain generate evaluate push pull info env; do ddtool $command --help > /dev/null; done
    python -c 'import ddtool.sharing.cards, ddtool.events, ddtool.hub.names' ;;
  *) echo "What is '$what'?" >&2; exit 2 ;;
esac
echo "done: $what, $(python --version), ddtool $(python -c 'import ddtool; print(ddtool.__version__)')"
