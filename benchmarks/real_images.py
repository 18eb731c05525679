"""Score random real images (hard labels) under a protocol: the baseline of every table.

    python benchmarks/real_images.py DATASET --ipc 10 --protocol frepo-mse --seeds 3 [--compile] [--out FILE.json]

The images are those that `ddtool adapt` with the same seed scores as its baseline.
"""

import argparse
import json
from pathlib import Path

import torch

from ddtool.data.images import draw_pool, real_images
from ddtool.evaluation.measure import train_and_test
from ddtool.runtime.engine import Engine
from ddtool.sources import load as sources


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--protocol", default="frepo-mse")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-flip", dest="flip", action="store_false")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    engine = Engine.choose(compile_networks=args.compile)
    target = sources.load(args.dataset)
    chosen = real_images(target.train, draw_pool(target.train, args.ipc, args.seed), args.flip).scaled()
    score = train_and_test(chosen, target.test(), args.protocol, engine, seeds=args.seeds, seed=args.seed)
    options = f"--ipc {args.ipc} --protocol {args.protocol} --seeds {args.seeds}"
    result = {
        "command": f"python benchmarks/real_images.py {Path(args.dataset).name} {options}",
        "hardware": engine.describe(),
        "scores": [score.to_dict() | {"dataset": Path(args.dataset).name}],
    }
    print(json.dumps(result, indent=2))
    if args.out:
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
