"""The command line `isthmus`; no other package of the library imports it."""

from __future__ import annotations

import io
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

    _buffer_output()
    sys.exit(run(sys.argv[1:]))


def _buffer_output() -> None:
    """Give standard output the buffer that PYTHONUNBUFFERED leaves out.

    Without it nothing writes the rest of what a pipe or a full disk took in part.
    """
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper) and isinstance(output.buffer, io.RawIOBase):
        encoding, errors = output.encoding, output.errors
        buffer = io.BufferedWriter(output.detach())
        sys.stdout = io.TextIOWrapper(buffer, encoding, errors, line_buffering=True)
