"""The machine options of a command as an Engine."""

from ddtool.cli.output import Output
from ddtool.events import Note
from ddtool.runtime.engine import Engine


def engine_for(device: str, precision: str, compile_: bool, threads: int | None, output: Output) -> Engine:
    """Choose the engine and say the choice in one line."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    engine = Engine.choose(device, precision, compile_)
    output.listener(Note(f"Device: {engine.describe()}"))
    return engine
