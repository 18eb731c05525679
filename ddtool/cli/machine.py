"""The machine options of a command as an Engine; and the processes that a launcher has started."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from ddtool.cli.output import Output
from ddtool.errors import DivergedError
from ddtool.events import Note
from ddtool.runtime.compiling import Compilation
from ddtool.runtime.distributed import OtherRankError, Ranks
from ddtool.runtime.engine import Engine
from ddtool.runtime.signals import exit_code


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


@contextmanager
def one_voice(ranks: Ranks) -> Iterator[None]:
    """What ends every process is explained by rank 0 alone."""
    try:
        yield
    except (KeyboardInterrupt, OtherRankError, DivergedError) as error:
        if ranks.main:
            raise
        raise SystemExit(exit_code(error) if isinstance(error, KeyboardInterrupt) else 1) from None
