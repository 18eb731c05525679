"""The files of a run or a pre-training: what a folder is, and writing whole or not at all. A full disk is a RunError."""

import contextlib
import errno
import itertools
import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from ddtool.config import Values
from ddtool.errors import RunError
from ddtool.events import Event, Note, Step
from ddtool.runtime import files
from ddtool.text import parsed_json

CONFIG, ENVIRONMENT, METRICS, RESULTS, PREVIEW = (
    "config.json",
    "env.json",
    "metrics.jsonl",
    "results.json",
    "preview.png",
)
ANIMATION = "animation.png"
REPORT = "report.html"
"""The page of a run, or of a comparison."""
TABLE, EXACT = "train.parquet", "exact.safetensors"
"""The two files of a set."""
GENERATOR, LABELS, POOL = "generator", "generator/labels.safetensors", "pool/train.parquet"
POINTS = "curve"
"""The folder of what `--curve` keeps of the steps."""
STAGES = "stages"
"""The folder of what sets were before they were finished."""
WHITENING = "checkpoints/whitening.safetensors"
NUMBERS = re.compile(r"(?<=\[)\n[\s\d,.e+-]+(?=\])")
"""What is between the brackets of a list of numbers in indented JSON; the text of a string has no line breaks there."""
RESTORE = "Restore the file, or start a new run."


def dated_folder(name: str) -> Path:
    """runs/NAME-DATE-TIME below the current folder; with a number where something that began in the same second has that name."""
    dated = f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = itertools.chain([dated], (f"{dated}-{number}" for number in itertools.count(2)))
    return next(folder for folder in map(Path("runs").joinpath, names) if not folder.exists())


def is_run(folder: Path) -> bool:
    """Whether a folder is a run directory (of `ddtool adapt`: a pre-training's looks alike)."""
    return (folder / CONFIG).is_file() and (folder / ENVIRONMENT).is_file() and not is_pretraining(folder)


def is_pretraining(folder: Path) -> bool:
    """Whether a folder is one of `ddtool pretrain`: its config.json lists `datasets`."""
    try:
        config = parsed_json((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and "datasets" in config and (folder / ENVIRONMENT).is_file()


def append_event(path: Path, event: Event) -> None:
    """Add one line to metrics.jsonl."""
    line: dict[str, object]
    if isinstance(event, Note):
        line = {"note": event.text}
    elif isinstance(event, Step):
        line = {"phase": event.phase, "step": event.step, "total": event.total} | event.values
    else:
        line = {"phase": event.phase, "seconds": round(event.seconds, 2)}
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise disk_error(path, error) from error


def events(path: Path, last: int | None = None) -> list[Values]:
    """The lines of a metrics.jsonl, or those in its `last` bytes; none where there is no file. A line that a killed process, or the
    beginning of those bytes, tears is passed over."""
    if not path.is_file():
        return []
    found = []
    with path.open("rb") as file:
        file.seek(0 if last is None else max(0, path.stat().st_size - last))
        lines = file.read().decode("utf-8", "replace").splitlines()
    for text in lines:
        with contextlib.suppress(ValueError):
            line = parsed_json(text)
            if isinstance(line, dict):
                found.append(line)
    return found


def ipcs_in(folder: Path) -> list[int]:
    """The images per class of the sets in a folder's ipcN/."""
    names = (path.parent.name[3:] for path in folder.glob(f"ipc*/{EXACT}"))
    return sorted(int(name) for name in names if re.fullmatch("[1-9][0-9]*", name))


def set_folders(folder: Path) -> list[Path]:
    """The folders of the sets in a folder of sets (`ipcN`), or in several of those (`setK/ipcN`, of `ddtool import`)."""
    parents = [folder] if ipcs_in(folder) else sorted(folder.glob("set*"), key=_by_number)
    return [parent / f"ipc{ipc}" for parent in parents for ipc in ipcs_in(parent)]


def _by_number(folder: Path) -> tuple[bool, int, str]:
    """Where a folder `setN` stands among others; those without a number come last, in the order of their names."""
    number = folder.name.removeprefix("set")
    known = number.isdecimal()
    return not known, int(number) if known else 0, folder.name


def run_above(path: Path) -> str:
    """The run directory that a file is in, quoted for a shell; empty when it is in none."""
    return next((shlex.quote(str(folder)) for folder in path.parents if is_run(folder)), "")


def write_json(path: Path, value: object) -> None:
    """A JSON file, whole or not at all; a list of numbers is one line of it."""
    text = NUMBERS.sub(lambda found: re.sub(r"\n\s*", " ", found[0]).strip(), json.dumps(value, indent=2)) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text, encoding="utf-8", newline="\n"))


def write_bytes(path: Path, content: bytes) -> None:
    """A file, whole or not at all."""
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then put it in place; a full disk is a RunError."""
    try:
        files.write_atomically(path, write)
    except (OSError, SafetensorError) as error:
        raise disk_error(path, error) from error


@contextlib.contextmanager
def staged_folder(target: Path, replacing: bool = False) -> Iterator[Path]:
    """A temporary folder whose files move to `target` when all of them are written, each replacing its like.

    replacing: nothing of an older `target` stays.
    """
    named, target = target, target.resolve()  # "." has no name; a link stays one
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        files.synchronise(temporary)
        if replacing and target.exists():
            empty(target)
        if not target.exists():
            os.replace(temporary, target)
        else:
            for file in sorted(temporary.iterdir(), reverse=True):
                os.replace(file, target / file.name)
    except (OSError, SafetensorError) as error:
        raise disk_error(named, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def empty(folder: Path) -> None:
    """Remove what is in a folder, and not the folder: somebody may stand in it."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def sweep(folder: Path) -> None:
    """Remove the temporary files that a killed process left below `folder`."""
    for path in folder.rglob(".*.tmp"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def disk_error(path: Path, error: Exception) -> RunError:
    """A write that failed, explained. What was there before is untouched."""
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
    folder = run_above(path)
    hint = f"Free some space, then go on: `ddtool adapt --resume {folder}`." if folder else "Free some space."
    if not full:
        hint = "Check the folder and its permissions."
    return RunError(f"Cannot write {path}: {'the disk is full' if full else error}.", hint)
