"""`ddtool` and `python -m ddtool`."""


def main() -> None:
    """Run the command line."""
    from ddtool.cli.app import app

    app(prog_name="ddtool")


if __name__ == "__main__":
    main()
