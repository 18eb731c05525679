"""ddtool: fast dataset distillation with a meta generator.

>>> import ddtool
>>> run = ddtool.adapt("sample", ipc=10, out="runs/sample")  # doctest: +SKIP
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ddtool.version import __version__

_PUBLIC = {  # loaded on first use, so that `ddtool -h` does not wait for torch
    "DDToolError": "ddtool.errors",
    "Engine": "ddtool.runtime.engine",
    "Generator": "ddtool.models.generator",
    "ImageData": "ddtool.data.images",
    "Run": "ddtool.runs.run",
    "RunConfig": "ddtool.config",
    "SyntheticSet": "ddtool.data.images",
    "adapt": "ddtool.api",
    "curve": "ddtool.api",
    "evaluate": "ddtool.api",
    "export": "ddtool.api",
    "generate": "ddtool.api",
    "import_sets": "ddtool.api",
    "load_set": "ddtool.api",
    "pull": "ddtool.api",
    "push": "ddtool.api",
    "resume": "ddtool.api",
    "robustness": "ddtool.api",
    "sweep": "ddtool.api",
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
    "curve",
    "evaluate",
    "export",
    "generate",
    "import_sets",
    "load_set",
    "pull",
    "push",
    "resume",
    "robustness",
    "sweep",
]

if TYPE_CHECKING:
    from ddtool.api import (
        adapt,
        curve,
        evaluate,
        export,
        generate,
        import_sets,
        load_set,
        pull,
        push,
        resume,
        robustness,
        sweep,
    )
    from ddtool.config import RunConfig
    from ddtool.data.images import ImageData, SyntheticSet
    from ddtool.errors import DDToolError
    from ddtool.models.generator import Generator
    from ddtool.runs.run import Run
    from ddtool.runtime.engine import Engine


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'ddtool' has no attribute '{name}'")
