"""Several processes for one run: the first one makes it, the others compute a share of the rows of what it asks for.

The first process draws everything, decides everything and writes everything, as it does alone. Where it needs a function of many
rows (`Rowwise`: features of images, distances of classes), each process computes some of them, and their gradients. So a run is
the same, to rounding, for any number of processes, and it can go on with another number. Images, weights and results travel
between the first process and each other one; the others hold nothing that is needed later.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd.function import once_differentiable

from ddtool.runtime.distributed import OtherRankError, Ranks, explained
from ddtool.runtime.engine import Engine
from ddtool.runtime.rows import Rowwise
from ddtool.runtime.signals import caught

PATIENCE = timedelta(days=7)
"""How long a process waits to be asked: scores and decoding of data are the first process's alone."""
Build = Callable[[str, Engine], Rowwise]
"""Makes a function from its description."""


@dataclass(frozen=True)
class Letter:
    """What one process tells another: what to `do`, and which tensors come after it."""

    do: str
    """begin, weights, rows, gradient or end; from a process that helps: answer."""
    of: tuple[str, str] = ("", "")
    """Kind and description of the function."""
    ticket: int = 0
    """Which rows: their gradient is asked for by the same number."""
    gradient: bool = False
    """Whether it will be."""
    bf16: bool = False
    """How the first process computes. The choice may be measured, and another process would choose otherwise."""
    dropped: tuple[int, ...] = ()
    """Tickets whose gradient will not be asked for any more."""
    tensors: tuple[tuple[list[int], str], ...] = ()
    """Shape and type of each tensor."""

    def written(self) -> bytes:
        """As JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def read(cls, text: bytes) -> "Letter":
        """A letter that was `written`."""
        said = json.loads(text)
        return cls(**said | {"of": tuple(said["of"])})


class Post:
    """Letters between this process and one other, with tensors. The letters go through host memory, over gloo: there a process that
    is lost is noticed at once, and waiting costs nothing. nccl on a GPU would wait on, and keep the GPU busy."""

    def __init__(self, other: int, device: torch.device) -> None:
        self.other, self.device = other, device
        self.dropped: list[int] = []
        """Tickets that the next letter gives up."""
        self._leaving: list[tuple[distributed.Work, Tensor]] = []

    def send(self, letter: Letter, *tensors: Tensor) -> None:
        """Begin to send a letter; the tensors may not change until all is `sent`."""
        plain = [in_rows(t) for t in tensors]
        announced = tuple((list(t.shape), str(t.dtype).removeprefix("torch.")) for t in plain)
        dropped, self.dropped = tuple(self.dropped), []
        text = replace(letter, dropped=dropped, tensors=announced).written()
        head = torch.tensor([len(text)]), torch.frombuffer(bytearray(text), dtype=torch.uint8)
        for tensor in (*head, *(t.to(self.device) for t in plain)):
            with explained():
                work = distributed.isend(tensor, self.other)
            assert work is not None
            self._leaving.append((work, tensor))

    def sent(self) -> None:
        """Wait until all has been sent."""
        with explained():
            for work, _ in self._leaving:
                work.wait()
        self._leaving.clear()

    def receive(self) -> tuple[Letter, list[Tensor]]:
        """The next letter with its tensors."""
        (length,) = self.received(torch.empty(1, dtype=torch.int64)).tolist()
        letter = Letter.read(bytes(self.received(torch.empty(length, dtype=torch.uint8)).tolist()))
        expected = [
            torch.empty(shape, dtype=getattr(torch, kind), device=self.device) for shape, kind in letter.tensors
        ]
        return letter, [as_images(self.received(tensor)) for tensor in expected]

    def answer(self, rows: int, like: Tensor) -> Tensor:
        """What the other process answers: so many rows like those of a tensor."""
        (found,) = self.receive()[1]
        if found.shape != (rows, *like.shape[1:]) or found.dtype != like.dtype:
            said = f"Process {self.other} answered {list(found.shape)} numbers for {[rows, *like.shape[1:]]}."
            raise OtherRankError(said, "Start the same version of ddtool in each process.")
        return found

    def received(self, tensor: Tensor) -> Tensor:
        """The tensor, filled with what the other process sends."""
        with explained():
            distributed.recv(tensor, self.other)
        return tensor


def in_rows(t: Tensor) -> Tensor:
    """A contiguous tensor to send; of images, which are channels last, their values as they lie (n, h, w, c)."""
    return (t.permute(0, 2, 3, 1) if t.ndim == 4 else t).contiguous()


def as_images(t: Tensor) -> Tensor:
    """What `in_rows` was made from."""
    return t.permute(0, 3, 1, 2) if t.ndim == 4 else t


# ------------------------------------------------------------------------------------------------------ the first process


@dataclass
class Asked:
    """Rows that were asked for: what gradients are found from."""

    ticket: int
    X: Tensor
    """The first process's own part of X, and `out` its rows."""
    out: Tensor
    helped: list[tuple[Post, int]]
    """Who was asked for how many rows."""

    def __del__(self) -> None:
        """The graph that this was part of is gone, so the others need not keep theirs."""
        for other, _ in self.helped:
            other.dropped.append(self.ticket)


class Team:
    """The other processes, for the first one. `divide` is `engine.divide`; between calls nobody is asked for anything."""

    def __init__(self, ranks: Ranks, engine: Engine) -> None:
        self.others = [Post(rank, engine.device) for rank in range(1, ranks.world)]
        self.busy = False
        self._known: dict[tuple[str, str], Tensor] = {}
        """The weights that the others have, by function."""
        self._ticket = 0
        with self.at_work():
            for other in self.others:
                other.send(Letter("begin", bf16=engine.bf16))

    def end(self) -> None:
        """Let the others go; where one of them may be at work still, they notice when this process has gone."""
        for other in self.others if not self.busy else ():
            with suppress(OtherRankError):  # one that was lost since it last answered is not needed any more
                other.send(Letter("end"))
                other.sent()

    def divide(self, function: Rowwise, X: Tensor, *more: Tensor) -> Tensor:
        """`function.rows(X, *more)`: equal parts of the rows, one for each process."""
        if X.requires_grad and torch.is_grad_enabled():
            rows: Tensor = Divided.apply(self, function, X, *more)
            return rows
        return self.ask(function, (X, *more), gradient=False)[0]

    def ask(self, function: Rowwise, inputs: Sequence[Tensor], gradient: bool) -> tuple[Tensor, Asked]:
        """The rows, with what their gradient is found from."""
        name = function.kind, function.description()
        self._ticket += 1
        with self.at_work():
            self.make_known(name, function)
            own, *parts = zip(*(t.detach().tensor_split(len(self.others) + 1) for t in inputs), strict=True)
            helping = [(other, part) for other, part in zip(self.others, parts, strict=True) if len(part[0])]
            for other, part in helping:
                other.send(Letter("rows", of=name, ticket=self._ticket, gradient=gradient), *part)
            X = own[0].requires_grad_(gradient)
            with torch.set_grad_enabled(gradient):
                out = function.rows(X, *own[1:])
            asked = Asked(self._ticket, X, out, [(other, len(part[0])) for other, part in helping])
            answers = [other.answer(rows, out) for other, rows in asked.helped]
        return torch.cat([out.detach(), *answers]), asked

    def gradient(self, asked: Asked, out: Tensor) -> Tensor:
        """The gradient with respect to X, by that of the rows."""
        own, *parts = out.split([len(asked.X), *(rows for _, rows in asked.helped)])
        with self.at_work():
            for (other, _), part in zip(asked.helped, parts, strict=True):
                other.send(Letter("gradient", ticket=asked.ticket), part)
            (first,) = torch.autograd.grad(asked.out, asked.X, own)
            answers = [other.answer(rows, asked.X) for other, rows in asked.helped]
        return torch.cat([first, *answers])

    def make_known(self, name: tuple[str, str], function: Rowwise) -> None:
        """Send the weights of a function where the others have not these already. Their values are compared: that costs little
        beside the rows, and misses no way in which they can change."""
        weights = torch.cat([w.detach().flatten() for w in function.weights()])
        if name in self._known and torch.equal(self._known[name], weights):
            return
        for other in self.others:
            other.send(Letter("weights", of=name), weights)
        self._known[name] = weights

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While the others may be at work; what goes wrong inside leaves them so."""
        self.busy = True
        yield
        for other in self.others:
            other.sent()
        self.busy = False


class Divided(torch.autograd.Function):
    """A row-wise function whose rows and gradients are computed by a team."""

    @staticmethod
    def forward(ctx: Any, team: Team, function: Rowwise, X: Tensor, *more: Tensor) -> Tensor:
        ctx.team = team
        rows, ctx.asked = team.ask(function, (X, *more), gradient=True)
        ctx.others = len(more)
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, ctx.team.gradient(ctx.asked, *gradients), *[None] * ctx.others


# ------------------------------------------------------------------------------------------------------ the other processes


def help_first(engine: Engine, builds: Mapping[str, Build]) -> None:
    """Compute what the first process asks for, until it lets this one go. Whoever asks for an end asks the first process; signals
    to this one are left alone, as it has nothing to keep.

    builds: how each kind of function is made.  Raises OtherRankError when the first process has gone.
    """
    functions: dict[tuple[str, str], Rowwise] = {}
    graphs: dict[int, tuple[tuple[str, str], Tensor, Tensor]] = {}
    with caught(lambda number, frame: None):
        first = Post(0, engine.device)
        while True:
            letter, tensors = first.receive()
            for ticket in letter.dropped:
                graphs.pop(ticket, None)
            match letter.do:
                case "begin":
                    engine = replace(engine, bf16=letter.bf16)
                case "weights":
                    if letter.of not in functions or any(of == letter.of for of, _, _ in graphs.values()):
                        kind, description = letter.of
                        functions[letter.of] = builds[kind](description, engine)
                    set_weights(functions[letter.of].weights(), tensors[0])
                case "rows":
                    X = tensors[0].requires_grad_(letter.gradient)
                    with torch.set_grad_enabled(letter.gradient):
                        out = functions[letter.of].rows(X, *tensors[1:])
                    if letter.gradient:
                        graphs[letter.ticket] = letter.of, X, out
                    first.send(Letter("answer"), out.detach())
                case "gradient":
                    _, X, out = graphs.pop(letter.ticket)
                    first.send(Letter("answer"), *torch.autograd.grad(out, X, tensors[0]))
                case "end":
                    return
            first.sent()


@torch.no_grad()
def set_weights(weights: Sequence[Tensor], flat: Tensor) -> None:
    """Give weights the values that `flat` holds one after the other."""
    for w, values in zip(weights, flat.split([math.prod(w.shape) for w in weights]), strict=True):
        w.copy_(values.view(w.shape))
