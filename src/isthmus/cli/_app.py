"""The commands, gathered."""

from __future__ import annotations

from typing import Annotated

import typer

from isthmus import __version__
from isthmus.cli import (
    _commands_files,
    _commands_find,
    _commands_records,
    _commands_store,
    _commands_transfer,
)
from isthmus.cli._exit import MEANINGS

app = typer.Typer(
    name="isthmus",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 yes, 1 no, 2 usage, 3 config, 4 unreachable, 5 access, 6 records, "
    "7 store, 8 files, 70 bug, 130 Ctrl-C, 141 pipe closed.",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")] = False,
) -> None:
    """One command for PostgreSQL, Elasticsearch, S3, SQLite: a query means the same."""


for module in (
    _commands_store,
    _commands_records,
    _commands_find,
    _commands_files,
    _commands_transfer,
):
    module.register(app)

__all__ = ["MEANINGS", "app"]
