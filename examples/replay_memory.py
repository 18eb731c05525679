"""Replay memory in continual learning: classes come task by task, and of earlier tasks only a memory of a few images is kept.

    python examples/replay_memory.py runs/cifar10 --ipc 10 --tasks 5 --steps 500 --seeds 3

The memory holds the images of a distilled set, or as many random real ones. Prints the accuracy on all classes seen so far
after each task for both, for each seed (another network, and other random images), and then the mean.
(The set was distilled for all classes at once: in earnest each task distils its own.)
"""

import argparse

import torch
from torch import Tensor
from torch.nn import functional as F

from ddtool.data.images import ImageData, SyntheticSet
from ddtool.evaluation.measure import kind_of
from ddtool.evaluation.protocols import PROTOCOLS
from ddtool.models.convnet import initialise
from ddtool.pipeline.scoring import load_target, random_subset
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine


def learn(
    memory: SyntheticSet, train: ImageData, test: ImageData, tasks: int, steps: int, engine: Engine, seed: int = 0
) -> list[float]:
    """Train one network on the tasks, one after the other, each beside the memory of those before; accuracy after each."""
    rng = torch.Generator().manual_seed(seed)
    net = kind_of("convnet", PROTOCOLS["dsa-ce"]).build(train.shape, train.num_classes)
    initialise(net, rng, "torch")
    scores_of = engine.wrap(engine.place(net))  # on the device, in the precision that suits it
    optimiser, kept = torch.optim.SGD(net.parameters(), 0.01, momentum=0.9), memory.decoded()
    remembered = kept.probabilities().to(engine.device)  # its soft labels; those of random real images are hard

    def inputs(images: Tensor) -> Tensor:
        return memory.transform(images).to(engine.device)

    accuracies, seen = [], torch.tensor([], dtype=torch.long)
    for classes in torch.arange(train.num_classes).chunk(tasks):
        new = torch.isin(train.labels, classes).nonzero().flatten()
        old = torch.isin(kept.hard, seen).nonzero().flatten()
        for _ in range(steps):
            rows = new[torch.randint(len(new), (64,), generator=rng)]
            X = inputs(train.images[rows])
            Y = F.one_hot(train.labels[rows], train.num_classes).float().to(engine.device)
            if len(old):
                again = old[torch.randint(len(old), (64,), generator=rng)]
                X, Y = torch.cat([X, inputs(kept.images[again])]), torch.cat([Y, remembered[again.to(Y.device)]])
            optimiser.zero_grad()
            F.cross_entropy(scores_of(X), Y).backward()
            optimiser.step()
        seen = torch.cat([seen, classes])
        judged = torch.isin(test.labels, seen).nonzero().flatten()
        with torch.no_grad():
            guesses = torch.cat(
                [scores_of(inputs(test.images[part])).cpu()[:, seen].argmax(1) for part in judged.split(500)]
            )
        accuracies.append(100 * float((seen[guesses] == test.labels[judged]).double().mean()))
    return accuracies


def main(words: list[str] | None = None) -> dict[str, list[float]]:
    """Learn with both memories; print the accuracies after each task and return their means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--ipc", type=int, default=10)
    parser.add_argument("--tasks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--seeds", type=int, default=1)
    chosen = parser.parse_args(words)
    run, engine = Run.open(chosen.run), Engine.choose()
    target = load_target(run.config(), lambda event: None)
    small, test = run.load_set(chosen.ipc).rounded(), target.test()
    found: dict[str, list[list[float]]] = {"set": [], "random": []}
    for seed in range(chosen.seeds):
        for name, memory in {"set": small, "random": random_subset(target.train, small, seed)}.items():
            accuracies = learn(memory, target.train, test, chosen.tasks, chosen.steps, engine, seed)
            found[name].append(accuracies)
            print(f"{name:8}", *(f"{accuracy:5.1f}" for accuracy in accuracies), flush=True)
    means = {name: torch.tensor(rows, dtype=torch.float64).mean(0).tolist() for name, rows in found.items()}
    if chosen.seeds > 1:
        print("mean of", chosen.seeds)
        for name, accuracies in means.items():
            print(f"{name:8}", *(f"{accuracy:5.1f}" for accuracy in accuracies))
    return means


if __name__ == "__main__":
    main()
