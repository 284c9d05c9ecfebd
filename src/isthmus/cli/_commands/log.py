"""The command log: maintenance of a collection that is a log (S3, layout `log`)."""

from __future__ import annotations

import asyncio
import enum
from typing import Annotated

import typer

from isthmus import UnsupportedError
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, RequiredStore
from isthmus.cli._output import print_json
from isthmus.cli._stores import StoreAddress, open_database, resolve_store


class LogAction(enum.StrEnum):
    """What is done to a log."""

    COMPACT = "compact"


def log(
    action: Annotated[LogAction, typer.Argument(metavar="ACTION", help="compact.")],
    store: RequiredStore,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Compact a log on S3: write a checkpoint, and remove what it replaced.

    Writers do it by themselves every log.checkpoint_entries entries. It is safe
    beside readers and writers. Entries younger than log.grace stay, and where
    changes are kept those younger than changes_keep.
    """
    address = resolve_store(store, collection, prompt=prompt)
    written, removed = asyncio.run(_compact(address))
    if as_json:
        print_json({"checkpoint": written, "removed": removed})
    else:
        typer.echo(
            f"{'a checkpoint was written' if written else 'nothing new since the last checkpoint'};"
            f" {removed} objects removed"
        )


async def _compact(address: StoreAddress) -> tuple[bool, int]:
    from isthmus.backends.s3.backend import S3Backend  # costs more to import than other commands take

    async with open_database(address, writes=True) as db:
        backend = db._backend
        if not isinstance(backend, S3Backend) or backend.config.layout != "log":
            raise UnsupportedError(f"{address.display_name} is no log: only S3 with layout=log has one")
        return await backend.compact(address.collection or db.collection_name)
