"""The control row of a comparison that is no job: a network trained on the whole training set, by each protocol of the request."""

from collections.abc import Sequence

from pydantic import TypeAdapter

from ddtool.config import Values
from ddtool.errors import RunError
from ddtool.evaluation.protocols import Score, protocols_in, version_of
from ddtool.events import Report, silent
from ddtool.experiments.folder import Folder
from ddtool.pipeline.scoring import load_target
from ddtool.pipeline.whole import trained, whole_score
from ddtool.runs.files import write_json
from ddtool.runs.run import Run
from ddtool.runtime.engine import Engine
from ddtool.text import parsed_json

FILE = "whole.json"
SCORES = TypeAdapter(list[Score])


def measure(folder: Folder, engine: Engine, report: Report = silent) -> list[Score]:
    """Score the whole training set by each protocol that trains networks, seen as the sets of the comparison are, and write it down
    in the folder.

    A score that is kept below the cache is not measured again. RunError while no job is finished.
    """
    grid = folder.read()
    done = folder.finished()
    job = next((job for job in grid.jobs if job.name in done), None)
    if job is None:
        raise RunError("No job is finished: there is no set that the whole training set could stand beside.")
    run = Run(folder.run(job))
    config, beside = run.config(), run.load_set(job.ipc)
    target = load_target(config, report)
    scores = [
        whole_score(beside, target, protocol, engine, arch=config.evaluate.arch, report=report)
        for protocol in trained(protocols_in(grid.request.protocol), report)
    ]
    write_json(folder.path / FILE, [score.to_dict() for score in scores])
    return scores


def read(folder: Folder) -> Sequence[Score]:
    """The scores in a folder by the protocols as they are today; none where they were not measured, or cannot be used."""
    try:
        values: Values = parsed_json((folder.path / FILE).read_bytes())
        scores = SCORES.validate_python(values)
    except (OSError, ValueError):
        return ()
    return [score for score in scores if score.protocol_version == version_of(score.protocol)]
