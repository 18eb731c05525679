"""Time one step of DM and of MTT beside the same step as the authors' code takes it, in float32 on one thread.

    OMP_NUM_THREADS=1 python benchmarks/methods_steps.py [DATASET] [--ipc 1] [--width 32] [--rounds 10] [--out FILE.json]

The authors' form is written anew from their public code: images in NCHW, torch's GroupNorm(C, C), a pass of the network for
every class (DM) and one graph of all the student's steps (MTT). Forms take turns within each round; figures are medians, of the
ratios as well. ddtool's step is timed with each form of instance norm: sums over pixels, torch's GroupNorm (the one that float32
has) and F.instance_norm.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from ddtool import methods
from ddtool.data.augment import augmentation, siamese
from ddtool.data.batches import Real
from ddtool.data.images import draw_pool
from ddtool.methods.base import Task
from ddtool.methods.mtt import MTT
from ddtool.models import convnet
from ddtool.runtime.engine import Engine
from ddtool.sources import load as sources

MTT_STEPS, MTT_BATCH = 10, 100
"""The student's steps and images a step."""


class FunctionalNorm(nn.GroupNorm):
    """Instance norm by torch's function."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.weight, bias=self.bias, eps=self.eps)


class Sums(nn.GroupNorm):
    """Instance norm as sums over pixels, as `InstanceNorm` has it in bf16."""

    def __init__(self, width: int) -> None:
        super().__init__(width, width)

    def forward(self, x: Tensor) -> Tensor:
        var, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
        scale = self.weight.view(1, -1, 1, 1) * (var + self.eps).rsqrt()
        return torch.addcmul(self.bias.view(1, -1, 1, 1) - mean * scale, x, scale)


NORMS: dict[str, Callable[[int], nn.Module]] = {
    "sums": Sums,
    "group norm": lambda width: nn.GroupNorm(width, width),
    "instance_norm": FunctionalNorm,
}


@contextmanager
def norm(kind: str) -> Iterator[None]:
    """ConvNets made inside have that form of instance norm."""
    before = convnet.NORMS["instance"]
    convnet.NORMS["instance"] = NORMS[kind]
    yield
    convnet.NORMS["instance"] = before


class Plain(Engine):
    """Contiguous: the authors' layout."""

    def place(self, module):  # type: ignore[no-untyped-def]
        return module.to(self.device, memory_format=torch.contiguous_format)


def made(name: str, task: Task, **settings: Any) -> Any:
    """A method on a task."""
    return methods.make(name, task, methods.settings_of(name, settings), task.engine.rng(0, name))


def dm_of_the_authors(task: Task, settings: dict[str, Any], batch: int) -> Callable[[], None]:
    """A step of `main_DM.py`: class by class one pass for real and one for synthetic images, one backward pass of the sum."""
    with norm("group norm"):
        method = made("dm", task, real_batch=batch, **settings)
    X, C = method.X.detach().contiguous().requires_grad_(), task.num_classes
    optimiser = torch.optim.SGD([X], 1.0, 0.5)
    real = [task.real.inputs(task.real.data.images[task.real.data.labels == c]).contiguous() for c in range(C)]
    rng = torch.Generator().manual_seed(0)

    def step() -> None:
        convnet.initialise(method.net, rng, "torch")
        loss = torch.zeros(())
        augment = siamese("dsa", task.flip, rng, rng)
        for c in range(C):
            chosen = real[c][torch.randperm(len(real[c]), generator=rng)[:batch]]
            T, S = (part.contiguous() for part in augment([chosen, X[c::C]]))
            loss = loss + (method.net.features(T).detach().mean(0) - method.net.features(S).mean(0)).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()

    return step


def mtt_of_the_authors(method: MTT) -> Callable[[], None]:
    """A step of `distill.py`: one graph through all the student's steps."""
    task, net, plan = method.task, method.net, method.plan
    X, lr = method.X.detach().contiguous().requires_grad_(), torch.tensor(0.01, requires_grad=True)
    optimiser = torch.optim.SGD([X], 1.0, 0.5)
    rng = torch.Generator().manual_seed(0)
    start, target = method.experts.weights(0, 0), method.experts.weights(0, plan.match_epochs)
    shapes = {name: p.shape for name, p in net.named_parameters()}

    def loss_of(flat: Tensor, images: Tensor, labels: Tensor) -> Tensor:
        parts = flat.split([shape.numel() for shape in shapes.values()])
        weights = {name: part.view(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}
        return F.cross_entropy(functional_call(net, weights, images), labels)

    def step() -> None:
        weights = start.clone().requires_grad_()
        augment = augmentation("dsa", task.flip, rng, rng)
        for _ in range(plan.student_steps):
            rows = torch.randperm(len(X), generator=rng)[:MTT_BATCH]
            loss = loss_of(weights, augment(X[rows]).contiguous(), method.labels[rows])
            (g,) = torch.autograd.grad(loss, weights, create_graph=True)
            weights = weights - lr * g
        optimiser.zero_grad()
        ((weights - target).square().sum() / (start - target).square().sum()).backward()
        optimiser.step()

    return step


def ours(method: methods.Method) -> Callable[[], None]:
    """A step of ddtool."""
    steps = iter(range(10**9))

    def step() -> None:
        method.optimiser.zero_grad(set_to_none=True)
        method.gradient(next(steps))
        method.optimiser.step()
        with torch.no_grad():
            method.project()

    return step


def forms_of(args: argparse.Namespace) -> dict[str, dict[str, Callable[[], None]]]:
    """Method → form → one step; the authors' form first."""
    target = sources.load(args.dataset)
    engine, plain = Engine.choose("cpu", "fp32"), Plain(torch.device("cpu"), False)
    rows = draw_pool(target.train, args.ipc, 0)

    def task(engine: Engine) -> Task:
        return Task(real=Real.of(target.train, engine), ipc=args.ipc, rows=rows, flip=True, engine=engine, seed=0)

    settings = {"width": args.width, "standardise": "measured"}
    student = {"student_steps": MTT_STEPS, "batch": MTT_BATCH, "experts": 1, "expert_epochs": 2, "expert_images": 500}
    student |= {"start_before": 1, "match_epochs": 2}
    forms: dict[str, dict[str, Callable[[], None]]] = {
        "dm": {"authors": dm_of_the_authors(task(plain), settings, args.real_batch)},
        "mtt": {},
    }
    with norm("group norm"):
        theirs = made("mtt", task(plain), **settings | student)
    theirs.prepare()
    assert isinstance(theirs, MTT)
    forms["mtt"]["authors"] = mtt_of_the_authors(theirs)
    for kind in NORMS:
        with norm(kind):
            dm = made("dm", task(engine), real_batch=args.real_batch, **settings)
            mtt = made("mtt", task(engine), **settings | student)
        mtt.prepare()
        forms["dm"][f"ddtool, {kind}"], forms["mtt"][f"ddtool, {kind}"] = ours(dm), ours(mtt)
    return forms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="sample")
    parser.add_argument("--ipc", type=int, default=1)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--real-batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for method, forms in forms_of(args).items():
        times: dict[str, list[float]] = {name: [] for name in forms}
        for round_ in range(args.rounds + 1):
            for name, step in forms.items():
                started = time.process_time()
                step()
                if round_:  # the first round warms up
                    times[name].append(time.process_time() - started)
        for name, taken in times.items():
            ratio = statistics.median(a / b for a, b in zip(taken, times["authors"], strict=True))
            milliseconds = round(1000 * statistics.median(taken), 1)
            rows.append(
                {"method": method, "form": name, "milliseconds": milliseconds, "to the authors'": round(ratio, 2)}
            )
            print(f"{method:<5} {name:<24} {milliseconds:>9.1f} ms  {ratio:>5.2f}")
    if args.out:
        command = f"python benchmarks/methods_steps.py {Path(args.dataset).name} --ipc {args.ipc} --width {args.width}"
        result = {
            "command": f"OMP_NUM_THREADS=1 {command} --real-batch {args.real_batch} --rounds {args.rounds}",
            "hardware": Engine.choose("cpu", "fp32").describe(),
            "torch": torch.__version__,
            "seconds": "of the processor",
            "rows": rows,
        }
        args.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
