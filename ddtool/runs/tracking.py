"""A run followed by an experiment tracker too: TensorBoard, Weights & Biases or Trackio, each an extra of this package.

tracking/run.json  which tracker follows the run, and under which name
tracking/          beside it, what the tracker itself keeps here
"""

import contextlib
import io
import json
import os
import re
import shlex
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ddtool.config import Values
from ddtool.errors import RunError, UsageError, did_you_mean
from ddtool.evaluation.protocols import AS_STATED, EXACT, Score
from ddtool.events import Event, Note, Report, Step
from ddtool.runs.facts import Record, RunFacts
from ddtool.runs.files import write_json
from ddtool.text import one_line, shell, without_secrets

FOLDER = "tracking"
RECORD = f"{FOLDER}/run.json"
PROJECT = "ddtool"
"""The project of all runs, where WANDB_PROJECT or TRACKIO_PROJECT names no other."""
FAILURES = (AttributeError, ImportError, LookupError, OSError, RuntimeError, TypeError, ValueError)
"""What a client may raise beside errors of its own: network, disk, and mistakes in it. None of it ends a run."""


class Followed(Record):
    """Which run of which tracker a folder is."""

    tracker: str
    project: str
    name: str
    id: str
    begun: bool = False
    """Whether the tracker has seen it: from then on it is continued."""


class Client(Protocol):
    """One tracker. It is made before any work starts, which imports its package; each method may raise FAILURES or `failures`."""

    failures: tuple[type[Exception], ...]

    def open(self, run: Followed, folder: Path, settings: Values) -> str:
        """Begin the run or go on with it; returns the name that it has there."""

    def where(self) -> str:
        """How a person sees it, as the end of a sentence."""

    def log(self, group: str, step: int, values: Mapping[str, float]) -> None:
        """Figures of one step; each group counts its own steps."""

    def close(self, figures: Mapping[str, float], well: bool) -> None:
        """End it with the figures that are of no step; `well`: whether the run was finished."""


class TensorBoard:
    """Event files in tracking/, by the writer that torch has."""

    failures: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._new_writer = SummaryWriter

    def open(self, run: Followed, folder: Path, settings: Values) -> str:
        self._folder = folder / FOLDER
        self._writer = self._new_writer(str(self._folder), flush_secs=10)
        self._writer.add_text("settings", "```json\n" + json.dumps(settings, indent=2) + "\n```")
        return run.name

    def where(self) -> str:
        return f"`{shell('tensorboard --logdir', self._folder)}` shows it"

    def log(self, group: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{group}/{name}", value, step)

    def close(self, figures: Mapping[str, float], well: bool) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, 0)
        self._writer.close()


class WeightsAndBiases:
    """A run at Weights & Biases, or offline in tracking/, as WANDB_MODE and `wandb login` have it."""

    def __init__(self) -> None:
        from wandb import Error, Settings, init

        self.failures: tuple[type[Exception], ...] = (Error,)
        self._init = init
        self._quiet = Settings(console="off", silent=True, init_timeout=30, save_code=False, disable_git=True)
        self._groups: set[str] = set()

    def open(self, run: Followed, folder: Path, settings: Values) -> str:
        self._folder = folder / FOLDER
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # so it asks nothing
            self._run: Any = self._init(
                project=run.project,
                name=run.name,
                id=run.id,
                dir=str(self._folder),
                resume="allow",
                settings=self._quiet,
            )
        self._run.config.update(settings, allow_val_change=True)
        return run.name

    def where(self) -> str:
        if not self._run.offline:
            return str(self._run.url)
        runs = shlex.quote(str(self._folder / "wandb"))
        return f"offline, until `wandb sync {runs}/offline-run-*` sends it"

    def log(self, group: str, step: int, values: Mapping[str, float]) -> None:
        if group not in self._groups:
            self._groups.add(group)
            self._run.define_metric(f"{group}/*", step_metric=f"{group}/step")
        self._run.log({f"{group}/{name}": value for name, value in {"step": step, **values}.items()})

    def close(self, figures: Mapping[str, float], well: bool) -> None:
        self._run.summary.update(dict(figures))
        self._run.finish(exit_code=0 if well else 1)


class Trackio:
    """A run of Trackio, on this machine or in the Space that TRACKIO_SPACE_ID names.

    Trackio knows runs by their names, so one that is new has a name that no other run here has. What it prints is kept from
    stdout, which is for results.
    """

    def __init__(self) -> None:
        import sqlite3

        from httpx import HTTPError
        from trackio import Api, finish, init

        self.failures: tuple[type[Exception], ...] = (HTTPError, sqlite3.Error)
        self._init, self._finish, self._api = init, finish, Api

    def open(self, run: Followed, folder: Path, settings: Values) -> str:
        self._project, self._space = run.project, os.environ.get("TRACKIO_SPACE_ID")
        with contextlib.redirect_stdout(io.StringIO()):
            self._run: Any = self._init(
                project=run.project, name=self._name(run), config=dict(settings), space_id=self._space, embed=False,
                resume="allow" if run.begun else "never",
            )  # fmt: skip
        return str(self._run.name)

    def where(self) -> str:
        if self._space:
            return f"https://huggingface.co/spaces/{self._space}"
        return f"`{shell('trackio show --project', self._project)}` shows it"

    def log(self, group: str, step: int, values: Mapping[str, float]) -> None:
        self._run.log({f"{group}/{name}": value for name, value in values.items()}, step=step)

    def close(self, figures: Mapping[str, float], well: bool) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            if figures:
                self._run.log(dict(figures), step=0)
            self._finish()

    def _name(self, run: Followed) -> str:
        """The name of a run that is begun, or the one that a new run can have."""
        try:
            taken = {one.name for one in self._api().runs(run.project)}
        except ValueError:  # there is no such project yet
            taken = set()
        return f"{run.name}-{run.id}" if run.name in taken and not run.begun else run.name


CLIENTS: dict[str, Callable[[], Client]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def check(name: str | None) -> None:
    """UsageError for a tracker that does not exist or whose package is not installed; None stands for no tracker."""
    if name is not None:
        client_of(name)


def client_of(name: str) -> Client:
    """The client of a tracker, not yet open; UsageError as in `check`."""
    if name not in CLIENTS:
        raise UsageError(f"Unknown tracker '{name}'.", did_you_mean(name, CLIENTS, listed=True))
    try:
        return CLIENTS[name]()
    except ImportError as error:
        message = f"The package of the tracker {name} cannot be loaded: {one_line(str(error), 150)}."
        raise UsageError(message, f"Install it: pip install 'ddtool[{name}]'. Or leave --track out.") from error


class Tracker:
    """A listener that hands figures to a tracker, and every event on to `report`.

    A tracker that fails is given up and said once: what it would have been told is in metrics.jsonl and results.json as well.
    """

    def __init__(self, client: Client | None, report: Report) -> None:
        self.client, self.report = client, report
        self.figures: dict[str, float] = {}

    def listener(self, event: Event) -> None:
        """Hear an event and pass it on."""
        if isinstance(event, Step) and event.values:
            self._tell(lambda client: client.log(group(event.phase), event.step, event.values))
        self.report(event)

    def conclude(self, results: RunFacts) -> None:
        """Keep what a finished run has come to, its scores and seconds, for the end of the tracked run."""
        self.figures = figures(results)

    def open(self, run: Followed, folder: Path, settings: Values) -> None:
        """Begin the tracked run or go on with it, and say where it is."""
        self._tell(lambda client: self._open(client, run, folder, settings))

    def close(self, well: bool) -> None:
        """End the tracked run; `well`: whether the run was finished."""
        self._tell(lambda client: client.close(self.figures, well))

    def _open(self, client: Client, run: Followed, folder: Path, settings: Values) -> None:
        (folder / FOLDER).mkdir(exist_ok=True)
        write_json(folder / RECORD, run.stated())
        name = client.open(run, folder, shareable(settings))
        write_json(folder / RECORD, run.but(name=name, begun=True).stated())
        self.report(Note(f"Tracked by {run.tracker} as {name}: {client.where()}."))

    def _tell(self, action: Callable[[Client], None]) -> None:
        if self.client is None:
            return
        failures: tuple[type[Exception], ...] = (*FAILURES, *self.client.failures)
        try:
            action(self.client)
        except failures as error:
            self.client = None
            why = one_line(without_secrets(str(error))) or type(error).__name__
            self.report(Note(f"The tracker has failed and is left alone from here on; the run goes on. It said: {why}"))


@contextlib.contextmanager
def tracked(folder: Path, name: str | None, settings: Values, report: Report, main: bool = True) -> Iterator[Tracker]:
    """The run in `folder`, followed while the work inside lasts: by the tracker `name` from now on, or by the one that has
    followed it so far; by none where there is neither, or in a process that is not the `main` one.

    UsageError, before the work begins, for a package that is missing and for a second tracker.
    """
    run = followed(folder, name) if main else None
    tracker, well = Tracker(client_of(run.tracker) if run else None, report), False
    if run:
        tracker.open(run, folder, settings)
    try:
        yield tracker
        well = True
    finally:
        tracker.close(well)


def followed(folder: Path, name: str | None) -> Followed | None:
    """Which run of which tracker a folder is: what it says so far, or a new one where it says nothing and `name` asks for it.

    UsageError when it is another tracker's already, RunError when the file is damaged.
    """
    known = recorded(folder)
    if known and name not in (None, known.tracker):
        raise UsageError(f"{folder} is followed by {known.tracker} already.", "Leave --track out to go on there.")
    if known or name is None:
        return known
    project = os.environ.get(f"{name.upper()}_PROJECT") or PROJECT
    return Followed(tracker=name, project=project, name=title(folder), id=uuid.uuid4().hex[:12])


def recorded(folder: Path) -> Followed | None:
    """What a folder says of its tracker; None where it has none."""
    path = folder / RECORD
    if not path.is_file():
        return None
    try:
        return Followed.read(path.read_bytes())
    except (OSError, ValueError) as error:
        hint = "Remove the folder tracking to go on without a tracker."
        raise RunError(f"{path} is damaged: {error}.", hint) from error


def title(folder: Path) -> str:
    """The name of a tracked run: the folder's, of a job of a comparison (NAME/jobs/JOB) with the comparison's before it."""
    place = folder.resolve()
    return f"{place.parent.parent.name}-{place.name}" if place.parent.name == "jobs" else place.name


def group(phase: str) -> str:
    """The name of a phase as one part of a figure's name: 'quick refined ipc1 net 1/3' is quick-refined-ipc1-net-1-of-3."""
    return re.sub(r"[^\w.-]+", "-", phase.replace("/", "-of-"))


def figures(results: RunFacts) -> dict[str, float]:
    """The scores of a run, in percent, and the seconds of its phases, by names for a tracker."""
    scores = {f"scores/{score_name(score)}": score.mean for score in results.scores}
    return scores | {f"seconds/{group(phase)}": seconds for phase, seconds in results.timings.items()}


def score_name(score: Score) -> str:
    """What a score is of and how it was measured, as one part of a figure's name."""
    unusual = [score.pixels] * (score.pixels == EXACT) + [score.inputs] * (score.inputs != AS_STATED)
    return group(" ".join([score.stage, f"ipc{score.ipc}", score.protocol_text, score.arch, *unusual]))


def shareable(settings: Values) -> Values:
    """Settings without anything that looks like a credential."""
    return dict(json.loads(without_secrets(json.dumps(settings))))
