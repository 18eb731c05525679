"""ddtool: fast dataset distillation with a meta generator.

>>> import ddtool
>>> run = ddtool.adapt("sample", ipc=10, out="runs/sample")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {  # loaded on first use, so that `ddtool -h` does not wait for torch
    "DDToolError": "ddtool.errors",
    "Engine": "ddtool.engine",
    "Generator": "ddtool.generator",
    "ImageData": "ddtool.data",
    "Run": "ddtool.runs",
    "RunConfig": "ddtool.config",
    "SyntheticSet": "ddtool.data",
    "adapt": "ddtool.api",
    "evaluate": "ddtool.api",
    "generate": "ddtool.api",
    "pull": "ddtool.api",
    "push": "ddtool.api",
}
__all__ = [
    "DDToolError",
    "Engine",
    "Generator",
    "ImageData",
    "Run",
    "RunConfig",
    "SyntheticSet",
    "__version__",
    "adapt",
    "evaluate",
    "generate",
    "pull",
    "push",
]

if TYPE_CHECKING:
    from ddtool.api import adapt, evaluate, generate, pull, push
    from ddtool.config import RunConfig
    from ddtool.data import ImageData, SyntheticSet
    from ddtool.engine import Engine
    from ddtool.errors import DDToolError
    from ddtool.generator import Generator
    from ddtool.runs import Run


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ddtool' has no attribute '{name}'")
