"""Jobs of a comparison that are `ddtool` in a fork of a process with torch imported; no tests here."""

import contextlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from processes import Forked

from ddtool.experiments.executors import Ended


@dataclass(frozen=True)
class ForkedJob:
    """A job of a comparison in a forked process."""

    process: Forked
    log: Path

    def ended(self) -> Ended | None:
        if self.process.runs():
            return None
        found = self.process.finished()
        self.log.write_text(found.stderr, encoding="utf-8")
        return Ended(found.returncode)

    def interrupt(self) -> None:
        self.process.send(signal.SIGINT)

    def kill(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.finished(0)


@dataclass(frozen=True)
class ForkedJobs:
    """In the place of `ddtool.experiments.executors.Local`: each job's command by the code, which stands for
    `python -m ddtool`, in a forked process."""

    inherited: tuple[int, ...] = ()
    code: str = "import tiny; tiny.start()"
    begins: str = "begins"
    lasts: str = "with data and scores"

    def start(self, name: str, words: Sequence[str], log: Path) -> ForkedJob:
        assert list(words[:3]) == [sys.executable, "-m", "ddtool"]
        return ForkedJob(Forked(self.code, *words[3:]), log)

    def close(self) -> None:
        pass
