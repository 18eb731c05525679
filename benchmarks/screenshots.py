"""Pictures for the docs, in docs/images/: of a terminal of 80 columns (SVG), and of the pages that Chromium shows (PNG).

python benchmarks/screenshots.py                                  # minutes: the runs in them are made
python benchmarks/screenshots.py --run RUN --comparison FOLDER    # pages of what is there already, and no terminal
"""

import argparse
import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

IMAGES = Path(__file__).parent.parent / "docs" / "images"
COMMANDS = {
    "adapt": "ddtool adapt sample --ipc 10 --steps 100 --refine-steps 1000 --out runs/sample",
}
COMPARISON = (
    "ddtool compare sample --ipc 1 --steps 50,200 --methods random,dm,frepo,mgdd --seeds 1 --threads 1 --protocol quick "
    "--out runs/compare"
)
COLUMNS = 80
WINDOWS = {"report": (1180, 1330), "comparison": (1180, 1370)}
"""Pixels of the pages' pictures by name."""
COLOURS = 128
"""Of a page's picture, so that it stays small."""
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


def page_picture(name: str, folder: Path) -> None:
    """Write what Chromium shows of the top of a folder's report.html."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        raise SystemExit("No Chromium here.")
    width, height = WINDOWS[name]
    with tempfile.TemporaryDirectory() as temporary:
        shot = Path(temporary) / "page.png"
        words = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", f"--window-size={width},{height}"]
        page = (folder / "report.html").resolve().as_uri()
        subprocess.run([browser, *words, f"--screenshot={shot}", page], check=True, capture_output=True)
        with Image.open(shot) as image:
            image.convert("RGB").quantize(COLOURS, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
                IMAGES / f"{name}.png", optimize=True
            )


def main() -> None:
    """Make the runs in an empty folder, unless they are named, and the pictures of what they show."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--comparison", type=Path)
    args = parser.parse_args()
    IMAGES.mkdir(parents=True, exist_ok=True)
    if args.run or args.comparison:
        for name, folder in (("report", args.run), ("comparison", args.comparison)):
            if folder:
                page_picture(name, folder)
        return
    with tempfile.TemporaryDirectory() as folder:
        for name, command in COMMANDS.items():
            (IMAGES / f"{name}.svg").write_text(picture(command, output_of(command, Path(folder))), encoding="utf-8")
        page_picture("report", Path(folder) / "runs" / "sample")
        output_of(COMPARISON, Path(folder))
        page_picture("comparison", Path(folder) / "runs" / "compare")


if __name__ == "__main__":
    main()
