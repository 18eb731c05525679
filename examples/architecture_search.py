"""A proxy for architecture search: do networks rank alike when they are trained on a small set and on many real images?

    python examples/architecture_search.py runs/cifar10 --ipc 10 --protocol frepo-mse --real-ipc 500

Prints the test accuracy of each network after training on the set, on as many random real images, and on `--real-ipc` real
images of every class, and Spearman's rank correlation of the first two with the last.
"""

import argparse

import torch

from ddtool.data.images import draw_pool, real_images, seen_alike
from ddtool.evaluation.measure import train_and_test
from ddtool.pipeline.scoring import load_target, random_subset
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine

NETWORKS = "convnet,convnet-wide,alexnet,vgg11,vgg11-batch,resnet18,mlp,lenet"


def ranks(values: list[float]) -> torch.Tensor:
    """The place of each value among all, from the smallest; equal ones share the mean of their places."""
    x = torch.tensor(values)
    return (x[:, None] > x).double().sum(1) + ((x[:, None] == x).double().sum(1) - 1) / 2


def spearman(a: list[float], b: list[float]) -> float:
    """The correlation of ranks: 1 where both order alike, 0 where they have nothing to do with each other (or one is flat)."""
    x, y = (ranks(values) - ranks(values).mean() for values in (a, b))
    scale = float(x.norm() * y.norm())
    return float(x @ y) / scale if scale else 0.0


def main(words: list[str] | None = None) -> dict[str, float]:
    """Train every network three times; print accuracies and return the two correlations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--real-ipc", type=int, default=500)
    parser.add_argument("--protocol", default="frepo-mse")
    parser.add_argument("--networks", default=NETWORKS)
    parser.add_argument("--eval-seeds", type=int, default=1)
    chosen = parser.parse_args(words)
    run, engine = Run.open(chosen.run), Engine.choose()
    target = load_target(run.config(), lambda event: None)
    small, test = run.load_set(chosen.ipc).rounded(), target.test()
    many = min(chosen.real_ipc, int(target.train.class_counts().min()))
    whole = real_images(seen_alike(target.train, small), draw_pool(target.train, many, 1), small.flip).scaled(
        small.label_scale
    )
    sets = {"set": small, "random": random_subset(target.train, small, 0), "real": whole}
    found: dict[str, list[float]] = {name: [] for name in sets}
    for network in chosen.networks.split(","):
        for name, images in sets.items():
            score = train_and_test(images, test, chosen.protocol, engine, arch=network, seeds=chosen.eval_seeds)
            found[name].append(score.mean)
        print(f"{network:14}", *(f"{name} {accuracies[-1]:5.1f}" for name, accuracies in found.items()), flush=True)
    result = {name: spearman(found[name], found["real"]) for name in ("set", "random")}
    print("rank correlation with real images:", *(f"{name} {value:.2f}" for name, value in result.items()))
    return result


if __name__ == "__main__":
    main()
