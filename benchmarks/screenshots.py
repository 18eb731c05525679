"""The README's pictures of a terminal, docs/images/*.svg, from what the commands really show in one of 80 columns.

python benchmarks/screenshots.py        # minutes: the run in it is made
"""

import os
import pty
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COMMANDS = {
    "adapt": "ddtool adapt sample --ipc 10 --steps 100 --refine-steps 1000 --out runs/sample",
}
COLUMNS = 80
SHOW_CURSOR = "\x1b[?25h"


def output_of(command: str, folder: Path) -> str:
    """What `command` leaves on a terminal of 80 columns: bars, which it wipes away, are left out."""
    own, its = pty.openpty()
    words = [sys.executable, "-m", "ddtool", *shlex.split(command)[1:]]
    env = os.environ | {"COLUMNS": str(COLUMNS), "LINES": "50", "TERM": "xterm-256color", "COLORTERM": "truecolor"}
    with subprocess.Popen(words, stdin=its, stdout=its, stderr=its, cwd=folder, env=env) as process:
        os.close(its)
        shown = b""
        while chunk := _read(own):
            shown += chunk
    os.close(own)
    if process.returncode:
        raise SystemExit(f"{command}\n{shown.decode()}")
    after_the_bars = shown.decode().rpartition(SHOW_CURSOR)[2]
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-ln-z]|\r", "", after_the_bars).strip("\n")


def _read(terminal: int) -> bytes:
    """The next bytes; none when the last process with the terminal is gone."""
    try:
        return os.read(terminal, 65536)
    except OSError:
        return b""


def picture(command: str, output: str) -> str:
    """An SVG without outside fonts of a command and its output."""
    console = Console(record=True, width=COLUMNS, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text.assemble(("$ ", "bold green"), command), soft_wrap=False)
    console.print(Text.from_ansi(output))
    svg = console.export_svg(title="ddtool", theme=MONOKAI, unique_id="ddtool")
    return re.sub(r"\s*@font-face \{.*?\}", "", svg, flags=re.DOTALL).replace("Fira Code", "Fira Code, Menlo, Consolas")


def main() -> None:
    """Run the commands in an empty folder, one after the other, and write their pictures."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for name, command in COMMANDS.items():
            (IMAGES / f"{name}.svg").write_text(picture(command, output_of(command, Path(folder))), encoding="utf-8")


if __name__ == "__main__":
    main()
