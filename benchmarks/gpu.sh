#!/usr/bin/env bash
# What a GPU is measured by, in one call of less than nine minutes: benchmarks/gpu.sh OUT.json
#
# Tests (with --device, where the suite has that option) and those of captured steps, step times (on a GPU also of loops, eager and
# captured), `ddtool adapt` end to end on the sample (on a GPU also with --graphs), and CIFAR-10 at IPC 10
# and 50, 60 s each, scored by two networks. Every command has a limit of its own (with a hard end 5 s later), and one that fails
# or is cut off leaves its last lines in the JSON in place of a result; the others go on.
# From the environment: DEVICE (cuda), DATA (a folder of local datasets; default: the Hub's), SECONDS_EACH (60), SHORT (1: a
# trial of the script itself: few steps, the protocol quick).
set -uo pipefail
cd "$(dirname "$0")/.."

out=$(realpath -m "${1:?OUT.json}")
device=${DEVICE:-cuda} seconds=${SECONDS_EACH:-60} short=${SHORT:-0}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cifar10=${DATA:+$DATA/}cifar10
row=$([ "$device" = cpu ] && echo cpu-2min || echo gpu-60s)
trial=() goals=(--networks 2 --spare 8)
[ "$seconds" = 60 ] || goals+=(--seconds "$seconds")
if [ "$short" = 1 ]; then
  trial=(--rounds 1)
  goals+=(--protocol quick --options "--preset small --generator scratch --set fit.networks=2 --set labels.images=500")
fi

limited() { # NAME LIMIT COMMAND…: its output, exit code and seconds below $work
  local name=$1 limit=$2 started=$SECONDS
  shift 2
  echo "+ $*" >&2
  timeout -k 5 "$limit" "$@" > "$work/$name.log" 2>&1
  printf '{"name": "%s", "exit": %d, "seconds": %d, "limit": %d}\n' "$name" $? $((SECONDS - started)) "$limit" > "$work/$name.run"
  tail -n 3 "$work/$name.log" >&2
}

if grep -q -- '"--device"' tests/conftest.py; then
  limited tests 60 python -m pytest -q -n0 -p no:cacheprovider tests/methods/test_mgdd.py --device "$device"
else
  limited tests 60 python -m pytest -q -n0 -p no:cacheprovider tests/methods/test_mgdd.py -k "golden or ridge"
fi
limited capture 40 python -m pytest -q -n0 -p no:cacheprovider tests/runtime/test_capture.py
limited steps 60 python benchmarks/steps.py "$cifar10" --device "$device" --out "$work/steps.json" "${trial[@]}"
adapt=(python -m ddtool adapt sample --ipc 10 --steps 100 --refine-steps $((short ? 10 : 1000)) --preset small --device "$device" --json)
limited adapt 60 "${adapt[@]}" --out "$work/run"
[ "$device" = cpu ] || limited captured 45 "${adapt[@]}" --graphs --out "$work/captured"
limited goals 260 python benchmarks/goals.py "$work/goals.json" --row "$row" --cells cifar10:10,cifar10:50 ${DATA:+--data "$DATA"} \
  "${goals[@]}"

python - "$work" "$out" "$device" <<'PYTHON'
import json, sys
from pathlib import Path
import torch
from ddtool.runtime.engine import Engine
work, out, device = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
found = {"torch": torch.__version__, "commands": {}}
try:
    found["hardware"] = Engine.choose(device).describe()
except Exception as error:
    found["hardware"] = f"{device}: {error}"
for path in sorted(work.glob("*.run")):
    run = json.loads(path.read_text())
    if run["exit"]:
        run["last lines"] = (work / f"{run['name']}.log").read_text(errors="replace").splitlines()[-5:]
    found["commands"][run.pop("name")] = run
for name in ("tests", "capture"):
    found[name] = (work / f"{name}.log").read_text(errors="replace").strip().splitlines()[-1:]
for name in ("steps", "goals"):
    if (work / f"{name}.json").exists():
        found[name] = json.loads((work / f"{name}.json").read_text())
for name, folder in (("adapt", "run"), ("captured", "captured")):
    results = work / folder / "results.json"
    if results.exists():
        found[name] = {key: json.loads(results.read_text())[key] for key in ("timings", "scores")}
out.write_text(json.dumps(found, indent=1) + "\n")
PYTHON
echo "$out"
