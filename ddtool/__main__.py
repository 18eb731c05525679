"""`ddtool` and `python -m ddtool`."""

import io
import sys


def main() -> None:
    """Run the command line."""
    from ddtool.cli.app import app

    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a pipe on Windows does not take every character
    app(prog_name="ddtool")


if __name__ == "__main__":
    main()
