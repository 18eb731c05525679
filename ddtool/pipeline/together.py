"""One run by several processes: which functions they divide, and who makes the run."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from ddtool.errors import UsageError
from ddtool.methods.gradient_matching import Matching
from ddtool.models.convnet import Features
from ddtool.runtime.distributed import Ranks
from ddtool.runtime.engine import Engine
from ddtool.runtime.team import PATIENCE, Build, Team, help_first

DIVIDED: Mapping[str, Build] = {kind.kind: kind.described for kind in (Features, Matching)}
"""What makes each kind of row-wise function in a process that helps."""


@contextmanager
def together(ranks: Ranks, engine: Engine) -> Iterator[Engine | None]:
    """The engine of a run that all processes of a launcher share, in the first of them, which makes it; in the others None, as soon
    as the first lets them go. One process alone gets its engine as it is.

    Raises UsageError for steps that are to be captured.
    """
    if ranks.world == 1:
        yield engine
        return
    if engine.graphs:
        hint = "Leave --graphs out, or start it without the launcher."
        raise UsageError(f"--graphs captures the steps of one process, and there are {ranks.world}.", hint)
    with ranks.joined(engine, PATIENCE):
        if not ranks.main:
            help_first(engine, DIVIDED)
            yield None
            return
        team = Team(ranks, engine)
        try:
            yield replace(engine, processes=ranks.world, divide=team.divide)
        finally:
            team.end()
