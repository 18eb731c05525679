"""`ddtool` and `python -m ddtool`."""

import io
import sys


def main() -> None:
    """Run the command line."""
    from ddtool.cli.app import app

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # terminals and pipes of other encodings do not take every character
    app(prog_name="ddtool")


if __name__ == "__main__":
    main()
