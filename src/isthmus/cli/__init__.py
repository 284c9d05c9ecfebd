"""The command line `isthmus`; no other package of the library imports it."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command line with the process's arguments and exit; the console script."""
    try:
        import rich
        import typer

        _ = rich, typer
    except ModuleNotFoundError as error:
        sys.stderr.write(f"isthmus: the command line needs {error.name}: pip install 'isthmus[cli]'\n")
        sys.exit(3)
    from isthmus.cli._main import run

    sys.exit(run(sys.argv[1:]))
