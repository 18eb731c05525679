"""Time a run that one process makes against the same run shared by several, as torchrun starts them on one machine.

    python benchmarks/processes.py OUT.json [--data DIR] [--dataset cifar10] [--processes 1,2] [--rounds 3] [--steps 20]

For each kind of step: seconds of a step, by what the run itself states, and how many times as fast several processes are. The
numbers of processes take turns within a round, and the least of the rounds is reported, since other jobs only ever add. On a CPU
each process has one thread. Sets are not scored.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from ddtool.runs.run import Run

KINDS = {
    "mgdd, small, IPC 1": ("--preset small", 1),
    "mgdd, small, IPC 10": ("--preset small", 10),
    "mgdd, medium, IPC 10": ("--preset medium", 10),
    "mgdd, medium, IPC 50": ("--preset medium", 50),
    "dm, IPC 10": ("--method dm", 10),
    "dsa, IPC 10": ("--method dsa", 10),
    "idc, IPC 10": ("--method idc", 10),
}
"""What is timed: options of `ddtool adapt`, and images per class."""


def seconds_of_a_step(kind: str, processes: int, dataset: str, steps: int) -> tuple[float, str]:
    """Seconds of a step of a run in so many processes, and the device as the run describes it."""
    options, ipc = KINDS[kind]
    words = options.split()
    words += (
        ["--steps", "0", "--refine-steps", str(steps)] if "--preset" in words else ["--steps", str(max(1, steps // 10))]
    )
    with socket.socket() as probe, tempfile.TemporaryDirectory() as work:
        probe.bind(("127.0.0.1", 0))
        launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port"]
        port = str(probe.getsockname()[1])
        probe.close()
        started = [sys.executable, *([*launcher, port] if processes > 1 else []), "-m", "ddtool", "adapt", dataset]
        given = ["--ipc", str(ipc), "--out", f"{work}/run", "--no-evaluate", "--quiet", *words]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        subprocess.run([*started, *given], check=True, env=environment, capture_output=True)
        run = Run.open(Path(work) / "run")
        spent = run.noted().facts.spent[f"ipc{ipc}"]
        return spent.step_seconds / spent.steps, str(run.environment().device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--processes", default="1,2")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--kinds", default=";".join(KINDS), help="names as in KINDS, with semicolons between them")
    args = parser.parse_args()
    dataset = str(args.data / args.dataset) if args.data else args.dataset
    counts = [int(n) for n in args.processes.split(",")]
    found: dict = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else {}
    for kind in args.kinds.split(";"):
        seconds: dict[int, list[float]] = {n: [] for n in counts}
        for _ in range(args.rounds):
            for n in counts:
                took, device = seconds_of_a_step(kind, n, dataset, args.steps)
                seconds[n].append(took)
        least = {n: round(min(took), 4) for n, took in seconds.items()}
        found[kind] = {
            "dataset": args.dataset, "device": device, "rounds": args.rounds, "seconds of a step": least,
            "times as fast": {n: round(least[counts[0]] / least[n], 2) for n in counts[1:]},
        }  # fmt: skip
        print(kind, found[kind], flush=True)
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
