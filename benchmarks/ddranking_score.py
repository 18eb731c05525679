"""A set scored by the public package `ddranking`, beside our own score: its last epoch, and its best one on the test split.

    python -m venv ENV; ENV/bin/pip install --no-deps ddranking==0.2.0 torchvision==0.28.0 kornia kornia_rs timm scipy
    echo SITE_PACKAGES_OF_DDTOOL > ENV/lib/python3.11/site-packages/ddtool.pth
    OMP_NUM_THREADS=1 ENV/bin/python benchmarks/ddranking_score.py OUT.json SET --on DATASET [--networks 3] [--tests 10]

SET: exact.safetensors of a run, or of a set that was pulled or imported. The package trains its ConvNet-3 on the set with hard
labels by its own loop (`LabelRobustScoreHard`: DSA, 1,000 epochs, SGD 0.01), as dsa-ce does; it tests every few epochs (here
`--tests` times) and keeps the best. Ours trains on the same tensors by dsa-ce and tests after the last step, both on the first
`--test-images`. The package would download the dataset: it is given the images that ddtool reads. torchvision's compiled
operators do not load beside a CPU build of torch from another place; the package needs none of them, and their declarations are
enough for its import.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import ddtool
from ddtool.config import RunConfig
from ddtool.data.images import ImageData
from ddtool.evaluation.measure import train_and_test
from ddtool.pipeline.robustness import hard
from ddtool.pipeline.scoring import load_target
from ddtool.runs.formats import read_set

NAMES = (
    "nms", "qnms", "roi_align", "qroi_align", "_roi_align_backward", "roi_pool", "_roi_pool_backward", "ps_roi_align",
    "_ps_roi_align_backward", "ps_roi_pool", "_ps_roi_pool_backward", "deform_conv2d", "_deform_conv2d_backward",
)  # fmt: skip
"""Operators that torchvision asks for when it is imported."""
LIBRARY = torch.library.Library("torchvision", "FRAGMENT")
EPOCHS = 1_000
DSA = {
    "siamese": False, "latestseed": -1, "flip": 0.5, "rotate": 15.0, "saturation": 2.0, "brightness": 1.0, "contrast": 0.5,
    "scale": 1.2, "crop": 0.125, "cutout": 0.5,
}  # fmt: skip


def package() -> Any:
    """`ddranking.metrics.hard_label`, with torchvision's operators declared before the import."""
    for name in NAMES:
        LIBRARY.define(f"{name}(Tensor x) -> Tensor")
    from ddranking.metrics import hard_label  # type: ignore[import-not-found]

    return hard_label


def by_the_package(
    X: Tensor, labels: Tensor, train: Any, test: Any, networks: int, tests: int
) -> tuple[list[float], list[float]]:
    """Accuracies of the best and of the last of `tests` evaluations, a pair for each network."""
    module, C = package(), int(labels.max()) + 1
    same = {c: c for c in range(C)}
    module.get_dataset = lambda *_: (X.shape[1], X.shape[2:], None, None, C, train, test, test, same, same)
    heard: list[float] = []
    validate = module.validate

    def listened(**words: Any) -> float:
        heard.append(validate(**words))
        return heard[-1]

    module.validate = listened
    with tempfile.TemporaryDirectory() as folder:
        metric = module.LabelRobustScoreHard(
            dataset="CIFAR10", ipc=len(X) // C, data_aug_func="dsa", aug_params=DSA, step_size=EPOCHS // 2, num_epochs=EPOCHS,
            num_workers=0, device="cpu", save_path=f"{folder}/scores.csv",
        )  # fmt: skip
    metric.test_interval = EPOCHS // tests
    best, last = [], []
    for k in range(networks):
        torch.manual_seed(k)
        net = module.build_model(model_name="ConvNet-3", num_classes=C, im_size=metric.im_size, device="cpu")
        best.append(metric._compute_hard_label_metrics(net, X, None, 0.01, labels, mode="syn"))
        last.append(heard[-1])
    return best, last


def spread(values: list[float]) -> dict[str, float]:
    """Mean and standard deviation."""
    return {"mean": statistics.fmean(values), "std": statistics.stdev(values) if len(values) > 1 else 0.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("set", type=Path)
    parser.add_argument("--on", required=True)
    parser.add_argument("--networks", type=int, default=3)
    parser.add_argument("--tests", type=int, default=10)
    parser.add_argument("--test-images", type=int, default=10_000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    target, engine = load_target(RunConfig(dataset=args.on), lambda event: None), ddtool.Engine.choose("cpu", "fp32")
    tested = target.test().head(args.test_images)
    made = hard(read_set(args.set).rounded())
    train, test = tensors(target.train.head(1000), made.transform), tensors(tested, made.transform)
    best, last = by_the_package(made.inputs, made.hard, train, test, args.networks, args.tests)
    ours = train_and_test(made, tested, "dsa-ce", engine, seeds=args.networks)
    found = {
        "set": f"{len(made)} images, hard labels", "networks": args.networks, "test images": len(tested),
        "tests of the package": args.tests,
        "package, best epoch on the test split": spread(best), "package, last epoch": spread(last),
        "ddtool, dsa-ce": {"mean": ours.mean, "std": ours.std}, "torch": torch.__version__, "hardware": engine.describe(),
    }  # fmt: skip
    print(json.dumps(found, indent=1))
    args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def tensors(data: ImageData, transform: Any) -> Any:
    """Images as networks see them, with their labels, as the package takes them."""
    X = torch.cat([transform(part) for part in data.images.split(1000)])
    return torch.utils.data.TensorDataset(X, data.labels)


if __name__ == "__main__":
    main()
