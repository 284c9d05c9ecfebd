"""The arguments and options that commands share, in one wording."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar

import typer

R = TypeVar("R")

Store = Annotated[
    str | None,
    typer.Argument(metavar="STORE", show_default=False, help="The store's URL; - or nothing: $ISTHMUS_URL."),
]
CollectionName = Annotated[
    str | None,
    typer.Option("--collection", "-c", metavar="NAME", show_default=False, help="Not the default one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, errors too.")]
Ask = Annotated[bool, typer.Option("--password", "-W", help="Ask for the password.")]
Filter = Annotated[
    str | None,
    typer.Argument(metavar="FILTER", show_default=False, help='age>=25 and city="Oslo", or JSON; - for all.'),
]


def run(work: Coroutine[Any, Any, R]) -> R:
    """Run a command's work in an event loop of its own."""
    return asyncio.run(work)
