"""Sets of runs of one method and IPC as DatasetCondensation's code writes its results: a file to try `ddtool import` on.

    python benchmarks/foreign_set.py OUT.pt EXACT.safetensors [EXACT.safetensors …] --mean 0.4914 0.4822 0.4465 \\
        --std 0.2023 0.1994 0.2010

EXACT.safetensors: sets with hard labels (`synthetic/ipcN/` of a run). Nothing of ddtool reads or writes here. Images are normalised
and stand class after class, as in that code.
"""

import argparse
from pathlib import Path

import torch
from safetensors.torch import load_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("sets", type=Path, nargs="+")
    parser.add_argument("--mean", type=float, nargs="+", required=True)
    parser.add_argument("--std", type=float, nargs="+", required=True)
    args = parser.parse_args()
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (args.mean, args.std))
    data = []
    for path in args.sets:
        tensors = load_file(path)
        order = tensors["hard"].argsort(stable=True)
        data.append([(tensors["images"].float()[order] - mean) / std, tensors["hard"].long()[order]])
    torch.save({"data": data, "accs_all_exps": {}}, args.out)


if __name__ == "__main__":
    main()
