"""What of a folder is not ours: --force replaces what ddtool wrote, and nothing else."""

import re
from pathlib import Path

from ddtool.errors import RunError
from ddtool.runs.files import is_run
from ddtool.text import shell

OURS = re.compile(
    r"(config|env|results|ddtool|pretraining)\.json|(metrics|skipped)\.jsonl|(preview|animation)\.png|report\.html|model\.safetensors"
    r"|(sweep|curve)\.(json|csv|md|svg|png)|curve/[\w-]+-[0-9]+\.safetensors|tracking/.*"
    r"|generator/((config|pretraining)\.json|(model|labels)\.safetensors)|pool/train\.parquet|pictures/iteration-[0-9]+\.png"
    r"|(synthetic/)?ipc[0-9]+/(train\.parquet|exact\.safetensors)|stages/ipc[0-9]+-[a-z]+\.safetensors"
    r"|checkpoints/[\w-]+\.safetensors|(.*/)?\.[^/]+\.tmp(/.*)?"
)
"""The files below a folder that an adaptation, a pre-training or a pull writes."""


def check_free(folder: Path, force: bool) -> None:
    """RunError when a new run cannot be made at `folder`; `force` allows a run there, which will be replaced."""
    check_taken(folder, force, is_run(folder), "run", "ddtool adapt")


def check_taken(folder: Path, force: bool, ours: bool, kind: str, command: str) -> None:
    """RunError when `folder` is taken, unless what is there is `ours` (of that kind) and `force` says to replace it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return
    if not ours:
        hint = f"Choose another --out; --force replaces a {kind} and nothing else, --resume goes on with one."
        raise RunError(f"{folder} exists already and is not a {kind} of ddtool.", hint)
    if not force:
        hint = f"Go on with it by `{shell(f'{command} --resume', folder)}`, replace it with --force, or choose another --out."
        raise RunError(f"{folder} exists already.", hint)
    check_strangers(folder)


def check_strangers(folder: Path) -> None:
    """RunError when --force would remove what ddtool did not write."""
    if others := strangers(folder):
        message = f"{folder} also holds what ddtool did not write: {', '.join(others[:3])}."
        raise RunError(message, "--force would remove it: move it away, or choose another --out.")


def strangers(folder: Path) -> list[str]:
    """What lies below a folder and was written by no adaptation, no pre-training and no pull."""
    below = (path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())
    return sorted(name for path in below if not OURS.fullmatch(name := path.relative_to(folder).as_posix()))
