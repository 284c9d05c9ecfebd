"""The arguments and options that several commands share."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

Store = Annotated[
    str | None,
    typer.Argument(
        metavar="STORE", show_default=False, help="Store URL or file; - or omitted: $ISTHMUS_URL."
    ),
]
RequiredStore = Annotated[str, typer.Argument(metavar="STORE", help="Store URL or file; -: $ISTHMUS_URL.")]
CollectionName = Annotated[
    str | None,
    typer.Option("--collection", "-c", metavar="NAME", show_default=False, help="Collection to use."),
]
Filter = Annotated[
    str | None,
    typer.Argument(metavar="FILTER", show_default=False, help='age>=25 and city="Oslo", or JSON; -: all.'),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, also for errors.")]
PromptPassword = Annotated[bool, typer.Option("--password", "-W", help="Prompt for the password.")]

NullText = Annotated[
    str | None,
    typer.Option("--null", metavar="TEXT", show_default=False, help="Of nulls and absent fields in CSV."),
]

PlainCells = Annotated[bool, typer.Option("--plain", help="CSV without ids, its text as it is.")]


class OnError(enum.StrEnum):
    """The treatment of a rejected record."""

    STOP = "stop"
    SKIP = "skip"
