"""The end of every run: the peak of memory, the picture, the scores."""

from itertools import takewhile
from pathlib import Path

from ddtool import methods
from ddtool.evaluation.nearest import nearness
from ddtool.events import Note, Phase
from ddtool.pipeline.scoring import score_run
from ddtool.pipeline.session import Session
from ddtool.runs.preview import preview
from ddtool.runs.run import Run
from ddtool.sources.load import Target
from ddtool.text import count, shell


def finish(session: Session, target: Target) -> None:
    """Show the sets of a run that has all of them, score them unless that was left out, and record that all is done.

    Nothing to resume is kept.
    """
    record_peak(session)
    record_nearness(session, target)
    draw_preview(session.run, max(session.config.ipc))
    if session.config.evaluate.enabled:
        score_run(session, target)
    else:
        session.report(Note(f"No scores, as asked. `{shell('ddtool evaluate', session.run.folder)}` makes them."))
    session.run.record(finished=True)
    session.run.drop_checkpoints()


def record_peak(session: Session) -> None:
    """Record the peak of memory until the sets were there: what scoring takes is not the method's."""
    peak, run = session.engine.peak_memory_mib(), session.run
    if peak is not None:
        run.record(peak_memory_mib=max(round(peak), run.noted().facts.peak_memory_mib or 0))


def record_nearness(session: Session, target: Target) -> None:
    """Record how far the learned images of each set are from the nearest real training image."""
    for ipc in session.config.ipc:
        if session.method.learns:
            session.run.record(**{str(Phase("nearest_real", ipc)): nearness(session.run.load_set(ipc), target.train)})


def draw_preview(run: Run, ipc: int, path: Path | None = None, real: bool = True) -> None:
    """preview.png of one set, in the run or at `path`: its stages above each other, those that the run has; without
    `real` not the initial ones."""
    final = run.load_set(ipc)
    method = methods.find(final.method)
    first, *between = takewhile(lambda stage: stage != final.stage, method.stages)
    shown = [first] * (real and method.learns) + between
    stages = {stage: run.load_set(ipc, stage) for stage in shown if run.set_path(ipc, stage).exists()}
    stages[final.stage if method.has_generator else final.method] = final
    name = Path(str(final.source.get("name", "dataset"))).name
    title = f"ddtool · {name} · {count(ipc, 'image')} per class"
    preview(stages, title, path or run.folder / "preview.png")
