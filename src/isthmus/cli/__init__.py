"""The command line `isthmus`; no other package of the library imports it."""

from __future__ import annotations

import io
import os
import sys
from typing import Literal

__all__ = ["main"]


def main() -> None:
    """Run the command line with the process's arguments and exit; the console script."""
    _replace_closed_streams()
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


def _replace_closed_streams() -> None:
    """Put streams that fail in place of a closed standard input or output, a silent one for the errors.

    Python has None there, and the next file that is opened would be standard output to whatever writes to it.
    """
    if sys.stdin is None:
        sys.stdin = _open_null(os.O_WRONLY, "r")
    if sys.stdout is None:
        sys.stdout = _open_null(os.O_RDONLY, "w")
    if sys.stderr is None:
        sys.stderr = _open_null(os.O_WRONLY, "w")


def _open_null(flags: int, mode: Literal["r", "w"]) -> io.TextIOWrapper:
    """Return a stream on the lowest free descriptor, whose reads or writes fail if the flags forbid them."""
    return os.fdopen(os.open(os.devnull, flags), mode)


def _buffer_output() -> None:
    """Give standard output the buffer that PYTHONUNBUFFERED leaves out.

    Without it nothing writes the rest of what a pipe or a full disk took in part.
    """
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper) and isinstance(output.buffer, io.RawIOBase):
        encoding, errors = output.encoding, output.errors
        buffer = io.BufferedWriter(output.detach())
        sys.stdout = io.TextIOWrapper(buffer, encoding, errors, line_buffering=True)
