"""What Windows lacks is not needed to import ddtool. (`mypy --platform win32`, in `.ci/run`, sees it inside functions too.)"""

import subprocess

import pytest
from processes import forked
from test_layers import MODULES

MODULES_OF_POSIX = ("resource", "fcntl", "pwd", "grp", "termios", "tty", "pty", "syslog", "posix", "_posixsubprocess")
NAMES_OF_POSIX = {
    "os": (
        "fork",
        "forkpty",
        "killpg",
        "getpgid",
        "setsid",
        "getuid",
        "geteuid",
        "chown",
        "mkfifo",
        "uname",
        "sysconf",
    ),
    "signal": ("SIGKILL", "SIGHUP", "SIGALRM", "SIGUSR1", "SIGCHLD", "alarm", "pause", "pthread_sigmask"),
    "mmap": ("MADV_RANDOM", "MADV_DONTNEED", "PROT_READ"),
}
"""Windows has none of them."""

HIDING = f"""
import builtins, importlib, sys
import datasets, huggingface_hub, jinja2, PIL.Image, pyarrow, pydantic, rich.progress, safetensors.torch, torch, typer, yaml
import torch.distributed, torch.func

usual = builtins.__import__

def hiding(name, globals=None, locals=None, fromlist=(), level=0):
    asking = str((globals or {{}}).get("__name__"))
    if level == 0 and name in {MODULES_OF_POSIX} and asking.partition(".")[0] == "ddtool":
        raise ModuleNotFoundError(f"No module named '{{name}}'")
    return usual(name, globals, locals, fromlist, level)

builtins.__import__ = hiding
for module, names in {NAMES_OF_POSIX}.items():
    for name in names:
        delattr(sys.modules.get(module) or importlib.import_module(module), name)
"""
"""Outside libraries are there already: they look at the system's name, and that is still ours."""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Python code in a process of its own, in which nothing of POSIX alone is there for ddtool."""
    return forked(HIDING + code)


def test_every_module_is_imported_without_what_windows_lacks() -> None:
    names = sorted(set(MODULES) - {"ddtool.__main__"})
    done = run(f"for name in {names}:\n    importlib.import_module(name)\nprint(len({names}))")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(names) > 70


@pytest.mark.parametrize(
    "line", ["import resource", "from fcntl import flock", "import os; os.killpg", "import signal; signal.SIGHUP"]
)
def test_what_windows_lacks_would_be_missed(line: str) -> None:
    done = run(f"exec({line!r}, {{'__name__': 'ddtool.some'}})")
    assert done.returncode == 1
    assert "No module named" in done.stderr or "has no attribute" in done.stderr
