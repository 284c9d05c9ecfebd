"""The command `modify`: changes of parts of a record, as text."""

from __future__ import annotations

import re
from typing import Annotated

import orjson
import typer

from isthmus import QueryError
from isthmus._query.changes import FieldChange
from isthmus.cli._commands.record import Id, IfVersion, print_written
from isthmus.cli._filter import parse_field, parse_filter
from isthmus.cli._json import parse_json
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, RequiredStore
from isthmus.cli._stores import resolve_store, run_on_store

Changes = Annotated[
    list[str],
    typer.Argument(
        metavar="CHANGE...",
        help="Changes in order, such as 'stock.inc(-1)' or 'tags.push(\"new\")'; the operands are JSON.",
    ),
]
Where = Annotated[
    str | None,
    typer.Option(
        "--where", "-w", metavar="FILTER", show_default=False, help="Only if this holds for the record."
    ),
]

# How many operands each takes; None is one or more.
_OPERANDS = {"set": 1, "unset": 0, "inc": 1, "max": 1, "min": 1, "push": None, "pull": 1, "add": None}
_CHANGE = re.compile(rf"(?P<field>.*?)\.(?P<name>{'|'.join(_OPERANDS)})\((?P<operands>.*)\)\s*", re.DOTALL)


def modify(
    store: RequiredStore,
    id: Id,
    changes: Changes,
    where: Where = None,
    collection: CollectionName = None,
    *,
    if_version: IfVersion = None,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Change parts of a record atomically; print its id and new version.

    A change is FIELD.set(V), .unset(), .inc(N), .max(V), .min(V), .push(V, ...), .pull(V) or
    .add(V, ...). Exit code 6 if the condition does not hold.
    """
    parsed = [parse_change(text) for text in changes]
    condition = None if where is None else parse_filter(where)
    address = resolve_store(store, collection, prompt=prompt)
    # Without `writes`: a collection that is not there has no such record, so it is not made.
    version = run_on_store(
        address, lambda target: target.modify(id, *parsed, where=condition, if_version=if_version)
    )
    print_written(id, version, as_json=as_json)


def parse_change(text: str) -> FieldChange:
    """Return the change that a text such as `stock.inc(-1)` means; raises `QueryError`."""
    found = _CHANGE.fullmatch(text.strip())
    if found is None:
        raise QueryError(f"{text!r} is not a change such as stock.inc(-1); one of {', '.join(_OPERANDS)}")
    name = found["name"]
    try:
        operands = parse_json(f"[{found['operands']}]")
    except orjson.JSONDecodeError as error:
        raise QueryError(f'{text!r}: the operands are JSON, such as "text" or 1: {error.msg}') from None
    count = _OPERANDS[name]
    if count is not None and len(operands) != count:
        raise QueryError(f"{text!r}: {name} takes {count or 'no'} operand{'s' * (count != 1)}")
    change: FieldChange = getattr(parse_field(found["field"]), name)(*operands)
    return change
