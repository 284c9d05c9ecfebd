"""Commands for one record: get, put, update, delete."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

from isthmus import QueryError, Record
from isthmus.cli._errors import Code, CommandError
from isthmus.cli._options import AsJson, Ask, CollectionName, run
from isthmus.cli._output import envelope, print_facts, print_json
from isthmus.cli._stores import Place, opened, place

Url = Annotated[str, typer.Argument(metavar="STORE", help="The store's URL; -: $ISTHMUS_URL.")]
Id = Annotated[str, typer.Argument(metavar="ID", help="The record's id.")]
Data = Annotated[
    str, typer.Argument(metavar="JSON", help="The data as a JSON object; -: from standard input.")
]
Metadata = Annotated[
    str | None, typer.Option("--metadata", metavar="JSON", show_default=False, help="The metadata.")
]
IfVersion = Annotated[
    str | None,
    typer.Option("--if-version", metavar="V", show_default=False, help="Only if it is at this version."),
]


COMMANDS = ("get", "put", "update", "delete")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(get)
    app.command()(put)
    app.command()(update)
    app.command()(delete)


def get(
    store: Url,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The records' ids.")],
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Print records by id; exit code 1 if one is not there."""
    records = run(_get(place(store, collection, ask=ask), ids))
    for record in records:
        if record is None:
            continue
        if as_json:
            print_json(envelope(record))
        else:
            _print(record)
    missing = [id for id, record in zip(ids, records, strict=True) if record is None]
    if missing:
        raise CommandError(f"no record has the id {', '.join(map(repr, missing))}", Code.NO)


def _print(record: Record) -> None:
    facts: list[tuple[str, Any]] = [("_id", record.id), *record.data.items()]
    facts += [(f"_metadata.{key}", value) for key, value in record.metadata.items()]
    facts += [("_version", record.version), ("_updated_at", record.updated_at)]
    print_facts(facts)


async def _get(where: Place, ids: list[str]) -> list[Record | None]:
    async with opened(where) as store:
        return await store.get_batch(ids)


def put(
    store: Url,
    id: Id,
    data: Data,
    metadata: Metadata = None,
    collection: CollectionName = None,
    *,
    create: Annotated[bool, typer.Option("--create", help="Refuse an id that exists.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Refuse an id that does not exist.")] = False,
    if_version: IfVersion = None,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Write a whole record whether its id exists or not; print id and new version."""
    if create and (replace or if_version):
        raise QueryError("--create goes with neither --replace nor --if-version")
    record = Record(_object(data, "JSON"), metadata=_object(metadata, "--metadata") if metadata else None)
    version = run(_put(place(store, collection, ask=ask), id, record, create, replace, if_version))
    _wrote(id, version, as_json=as_json)


async def _put(
    where: Place, id: str, record: Record, create: bool, replace: bool, if_version: str | None
) -> str | None:
    async with opened(where, writes=True) as store:
        if create:
            await store.create(Record(record.data, id=id, metadata=record.metadata))
            return None
        if replace:
            return await store.replace(id, record, if_version=if_version)
        return await store.upsert(id, record, if_version=if_version)


def update(
    store: Url,
    id: Id,
    data: Data,
    metadata: Metadata = None,
    collection: CollectionName = None,
    *,
    if_version: IfVersion = None,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Merge top-level keys into a record; null stores null; print id and new version."""
    patch = Record(_object(data, "JSON"), metadata=_object(metadata, "--metadata") if metadata else None)
    version = run(_update(place(store, collection, ask=ask), id, patch, if_version))
    _wrote(id, version, as_json=as_json)


async def _update(where: Place, id: str, patch: Record, if_version: str | None) -> str:
    async with opened(where, writes=True) as store:
        return await store.update(id, patch, if_version=if_version)


def delete(
    store: Url,
    ids: Annotated[list[str], typer.Argument(metavar="ID...", help="The records' ids.")],
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Delete records by id; exit code 1 if one was not there."""
    found = run(_delete(place(store, collection, ask=ask), ids))
    if as_json:
        print_json(dict(zip(ids, found, strict=True)))
    else:
        sys.stdout.write(f"{sum(found)} deleted\n")
    missing = [id for id, there in zip(ids, found, strict=True) if not there]
    if missing:
        raise CommandError(f"no record had the id {', '.join(map(repr, missing))}", Code.NO)


async def _delete(where: Place, ids: list[str]) -> list[bool]:
    async with opened(where, writes=True) as store:
        return list(await store.delete_batch(ids))


def _object(text: str, what: str) -> dict[str, Any]:
    """Return the object of a JSON argument."""
    if text == "-":
        text = sys.stdin.read()
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise QueryError(f"{what}: not JSON, character {error.pos + 1}: {error.msg}") from None
    if not isinstance(value, dict):
        raise QueryError(f'{what}: expected an object such as \'{{"name": "Ada"}}\'')
    return value


def _wrote(id: str, version: str | None, *, as_json: bool) -> None:
    if as_json:
        print_json({"id": id, "version": version} if version else {"id": id})
    else:
        sys.stdout.write(f"{id} {version}\n" if version else f"{id}\n")
