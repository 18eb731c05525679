"""What several processes can divide: functions that make each row of their output from the same row of their inputs alone."""

from collections.abc import Callable
from typing import ClassVar, Protocol

from torch import Tensor


class Rowwise(Protocol):
    """Such a function: the features of images under a network, or the distances of classes."""

    kind: ClassVar[str]
    """Which function it is: a process that helps builds its own from the kind and the description."""

    def description(self) -> str:
        """What another process builds the same function from, but for its weights."""

    def weights(self) -> list[Tensor]:
        """The weights, in an order that follows from the description."""

    def rows(self, X: Tensor, *more: Tensor) -> Tensor:
        """A row for each row of the inputs. Gradients are taken with respect to X alone."""


Divide = Callable[..., Tensor]
"""(function, X, *more) → function.rows(X, *more), its rows computed by several processes."""
