"""The commands, gathered."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isthmus import __version__
from isthmus.cli._commands import files, parity, query, record, store, transfer

GROUPS = {
    "a store": store,
    "a record": record,
    "many records": query,
    "files": files,
    "two stores": transfer,
    "proof": parity,
}


class _Grouped(TyperGroup):
    """Lists commands by what they are about, so that the help fits a screen."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one line for each group."""
        with formatter.section("Commands (isthmus COMMAND --help says more)"):
            formatter.write_dl([(name, "  ".join(module.COMMANDS)) for name, module in GROUPS.items()])

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of their groups."""
        return [name for module in GROUPS.values() for name in module.COMMANDS]


app = typer.Typer(
    name="isthmus",
    cls=_Grouped,
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
    """PostgreSQL, Elasticsearch, S3, SQLite: a query means the same everywhere."""


for module in GROUPS.values():
    module.register(app)
