"""Commands on single records: get, put, update, delete."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import orjson
import typer

from isthmus import Collection, QueryError, Record
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._json import parse_json
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, RequiredStore
from isthmus.cli._output import print_facts, print_json, record_to_json
from isthmus.cli._stores import resolve_store, run_on_store

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the record.")]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Ids of the records.")]
Data = Annotated[str, typer.Argument(metavar="JSON", help="Data as a JSON object; -: standard input.")]
Metadata = Annotated[
    str | None,
    typer.Option("--metadata", metavar="JSON", show_default=False, help="Metadata as a JSON object."),
]
IfVersion = Annotated[
    str | None,
    typer.Option(
        "--if-version", metavar="V", show_default=False, help="Only if the record has this version."
    ),
]


def get(
    store: RequiredStore,
    ids: Ids,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Print records by id; exit code 1 if one does not exist."""
    address = resolve_store(store, collection, prompt=prompt)
    records = run_on_store(address, lambda target: target.get_batch(ids))
    for record in records:
        if record is not None and as_json:
            print_json(record_to_json(record))
        elif record is not None:
            _print_record(record)
    _require_found(ids, [record is not None for record in records])


def _print_record(record: Record) -> None:
    metadata = [(f"_metadata.{key}", value) for key, value in record.metadata.items()]
    attributes = [("_version", record.version), ("_updated_at", record.updated_at)]
    print_facts([("_id", record.id), *record.data.items(), *metadata, *attributes])


def _require_found(ids: list[str], found: list[bool]) -> None:
    missing = [id for id, exists in zip(ids, found, strict=True) if not exists]
    if missing:
        raise CommandError(f"no record has the id {', '.join(map(repr, missing))}", ExitCode.NO)


def put(
    store: RequiredStore,
    id: Id,
    data: Data,
    metadata: Metadata = None,
    collection: CollectionName = None,
    *,
    create: Annotated[bool, typer.Option("--create", help="Fail if the id exists.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Fail if the id does not exist.")] = False,
    if_version: IfVersion = None,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Create or replace a record; print its id and new version."""
    if create and (replace or if_version is not None):
        raise QueryError("--create excludes --replace and --if-version")
    record = _parse_record(data, metadata)

    async def write(target: Collection) -> str | None:
        if create:
            await target.create(Record(record.data, id=id, metadata=record.metadata))
            return None
        if replace:
            return await target.replace(id, record, if_version=if_version)
        return await target.upsert(id, record, if_version=if_version)

    address = resolve_store(store, collection, prompt=prompt)
    print_written(id, run_on_store(address, write, writes=True), as_json=as_json)


def update(
    store: RequiredStore,
    id: Id,
    data: Data,
    metadata: Metadata = None,
    collection: CollectionName = None,
    *,
    if_version: IfVersion = None,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Merge top-level keys into a record; print its id and new version.

    A null is stored as null.
    """
    patch = _parse_record(data, metadata)
    address = resolve_store(store, collection, prompt=prompt)
    version = run_on_store(address, lambda target: target.update(id, patch, if_version=if_version))
    print_written(id, version, as_json=as_json)


def delete(
    store: RequiredStore,
    ids: Ids,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Delete records by id; exit code 1 if one does not exist."""
    address = resolve_store(store, collection, prompt=prompt)
    found = list(run_on_store(address, lambda target: target.delete_batch(ids)))
    if as_json:
        print_json(dict(zip(ids, found, strict=True)))
    else:
        sys.stdout.write(f"{sum(found)} deleted\n")
    _require_found(ids, found)


def _parse_record(data: str, metadata: str | None) -> Record:
    return Record(
        _parse_object(data, "JSON"), metadata=_parse_object(metadata, "--metadata") if metadata else None
    )


def _parse_object(text: str, parameter: str) -> dict[str, Any]:
    """Return the JSON object that a command's parameter holds, or `-` for standard input."""
    try:
        value = parse_json(sys.stdin.buffer.read() if text == "-" else text)
    except orjson.JSONDecodeError as error:
        raise QueryError(f"{parameter}: not JSON, character {error.pos + 1}: {error.msg}") from None
    if not isinstance(value, dict):
        raise QueryError(f'{parameter}: expected an object such as \'{{"name": "Ada"}}\'')
    return value


def print_written(id: str, version: str | None, *, as_json: bool) -> None:
    """Print what a write returned: the id, and the new version if there is one."""
    if as_json:
        print_json({"id": id, "version": version} if version else {"id": id})
    else:
        sys.stdout.write(f"{id} {version}\n" if version else f"{id}\n")
