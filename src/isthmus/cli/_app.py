"""The typer application: every command, listed by group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from isthmus import __version__
from isthmus.cli._commands import (
    bench,
    changes,
    fields,
    files,
    index,
    log,
    migrate,
    modify,
    parity,
    query,
    record,
    show,
    store,
    top,
    transfer,
)

GROUPS: dict[str, dict[str, Callable[..., object]]] = {
    "a store": {
        "show": show.show,
        "ping": store.ping,
        "doctor": store.doctor,
        "stats": store.stats,
        "index": index.index,
        "log": log.log,
        "top": top.top,
    },
    "a record": {
        "get": record.get,
        "put": record.put,
        "update": record.update,
        "modify": modify.modify,
        "delete": record.delete,
    },
    "many records": {
        "ls": query.ls,
        "fields": fields.fields,
        "query": query.query,
        "count": query.count,
        "agg": query.agg,
        "explain": query.explain,
        "changes": changes.changes,
    },
    "files": {"load": files.load, "dump": files.dump},
    "a model": {"migrate": migrate.migrate},
    "two stores": {"copy": transfer.copy, "diff": transfer.diff, "verify": transfer.verify},
    "proof": {"parity": parity.parity, "bench": bench.bench},
}


class _CommandGroup(TyperGroup):
    """Lists the commands on one line for each group, so that the help fits one screen."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write one line for each group."""
        with formatter.section("Commands (isthmus COMMAND --help shows details)"):
            formatter.write_dl([(name, "  ".join(commands)) for name, commands in GROUPS.items()])

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of their groups."""
        return [name for commands in GROUPS.values() for name in commands]


app = typer.Typer(
    name="isthmus",
    cls=_CommandGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
    epilog="Exit codes: 0 yes, 1 no, 2 usage, 3 config, 4 unreachable, 5 access, 6 records, "
    "7 store, 8 files, 70 bug, 130 Ctrl-C, 141 pipe closed.",
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"isthmus {__version__}")
        raise typer.Exit


@app.callback()
def root(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Print tracebacks; may be placed anywhere.")] = False,
) -> None:
    """Query PostgreSQL, Elasticsearch, S3 and SQLite with the same semantics."""


for group in GROUPS.values():
    for name, command in group.items():
        app.command(name)(command)
