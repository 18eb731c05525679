"""The machine options of a command as an Engine."""

from dataclasses import replace

from ddtool.cli.output import Output
from ddtool.events import Note
from ddtool.runtime.compiling import Compilation
from ddtool.runtime.engine import Engine


def engine_for(
    device: str,
    precision: str,
    compile_: bool,
    threads: int | None,
    output: Output,
    memory: float | None = None,
    graphs: bool = False,
) -> Engine:
    """Choose the engine and say the choice in one line."""
    if threads:
        import torch

        torch.set_num_threads(threads)
    engine = Engine.choose(device, precision, compile_, None if memory is None else int(memory * 2**30), graphs)
    if compile_:
        engine = replace(engine, compilation=Compilation(output.say))
    output.listener(Note(f"Device: {engine.describe()}"))
    return engine
