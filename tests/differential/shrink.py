"""Makes a failing case small: fewer records, less data, a smaller query; and prints it as a test."""

from __future__ import annotations

import pprint
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from isthmus._query.ast import TRUE, And, AnyObject, In, Not, Or, Predicate
from isthmus._query.bucket import Bucket, GroupKey
from isthmus._query.codec import path_json, to_json
from isthmus._record import Record
from isthmus._value import replace as replaced
from isthmus._values import JSON
from tests.differential.checks import Check
from tests.stores import Declared

Fails = Callable[[Sequence[Record], Check], Awaitable[bool]]
_ATTEMPTS = 400
_SECONDS = 30.0


async def shrunk(records: Sequence[Record], check: Check, fails: Fails) -> tuple[list[Record], Check]:
    """Return a smaller case that still fails; each attempt loads the store again."""
    left = _ATTEMPTS
    ends = time.monotonic() + _SECONDS
    current = list(records)
    moved = True
    while moved and left > 0:
        moved = False
        for smaller, asked in _smaller(current, check):
            left -= 1
            if left <= 0 or time.monotonic() > ends:
                left = 0
                break
            if await fails(smaller, asked):
                current, check = list(smaller), asked
                moved = True
                break
    return current, check


def _smaller(records: list[Record], check: Check) -> Iterator[tuple[list[Record], Check]]:
    size = len(records)
    step = size // 2
    while step:
        for start in range(0, size, step):
            yield records[:start] + records[start + step :], check
        step //= 2
    for query in _smaller_queries(check):
        yield records, query
    if size <= 4:
        for index, record in enumerate(records):
            for data in _smaller_data(record.data):
                made = Record(data, id=record.id, metadata=record.metadata)
                yield [*records[:index], made, *records[index + 1 :]], check
            if record.metadata:
                yield [*records[:index], Record(record.data, id=record.id), *records[index + 1 :]], check


def _smaller_queries(check: Check) -> Iterator[Check]:
    query = check.query
    for predicate in smaller_predicates(query.where):
        if check.verb == "delete_where" and predicate == TRUE:
            continue  # that is refused: everything is deleted by clear()
        yield replace(check, query=replaced(query, where=predicate))
    for index in range(len(query.order)):
        yield replace(check, query=replaced(query, order=query.order[:index] + query.order[index + 1 :]))
    if query.count is not None:
        yield replace(check, query=replaced(query, count=None))
    if query.skip:
        yield replace(check, query=replaced(query, skip=0))
    if query.fields is not None:
        yield replace(check, query=replaced(query, fields=None))
    if check.verb not in ("search", "aggregate", "delete_where"):
        yield replace(check, verb="search")
    for index in range(len(check.by)):
        yield replace(check, by=check.by[:index] + check.by[index + 1 :])
    if len(check.measures) > 1:
        for index in range(len(check.measures)):
            yield replace(check, measures=check.measures[:index] + check.measures[index + 1 :])


def smaller_predicates(predicate: Predicate) -> Iterator[Predicate]:
    """Yield predicates with a part left out or put in the whole's place."""
    match predicate:
        case And(terms) | Or(terms):
            kind = type(predicate)
            if predicate != TRUE:
                yield TRUE
            yield from terms
            for index, term in enumerate(terms):
                yield kind(terms[:index] + terms[index + 1 :])
                for smaller in smaller_predicates(term):
                    yield kind((*terms[:index], smaller, *terms[index + 1 :]))
        case Not(term):
            yield term
            for smaller in smaller_predicates(term):
                yield Not(smaller)
        case AnyObject(path, where):
            for smaller in smaller_predicates(where):
                yield AnyObject(path, smaller)
        case In(path, values) if len(values) > 1:
            yield In(path, values[: len(values) // 2])
            yield In(path, values[len(values) // 2 :])


def _smaller_data(data: dict[str, JSON]) -> Iterator[dict[str, Any]]:
    for smaller in _smaller_values(data):
        if isinstance(smaller, dict):
            yield smaller


def _smaller_values(value: JSON) -> Iterator[JSON]:
    match value:
        case dict():
            for key, item in value.items():
                yield {k: v for k, v in value.items() if k != key}
                for smaller in _smaller_values(item):
                    yield {**value, key: smaller}
        case list():
            for index, item in enumerate(value):
                yield value[:index] + value[index + 1 :]
                for smaller in _smaller_values(item):
                    yield [*value[:index], smaller, *value[index + 1 :]]
        case str() if len(value) > 1:
            yield value[: len(value) // 2]
            yield value[len(value) // 2 :]


def as_test(
    backend: str,
    records: Sequence[Record],
    check: Check,
    seen: tuple[Any, Any],
    declared: Declared | None = None,
) -> str:
    """Return a test that one can paste, which fails as the case did; `seen` are expected and actual."""
    shape = pprint.pformat(to_json(check.query), width=100, sort_dicts=False)
    listed = pprint.pformat([(r.id, r.data, r.metadata) for r in records], width=100, sort_dicts=False)
    extra = ""
    if check.size:
        extra += f", size={check.size}"
    if check.part:
        extra += f", part={check.part}"
    if check.by:
        extra += f", by=groups({[_group_json(key) for key in check.by]!r})"
    if check.measures:
        spec = {m.name: [m.function.value, m.path and path_json(m.path), m.percent] for m in check.measures}
        extra += f", measures=columns({spec!r})"
    indexed = f", declared={declared!r}" if declared else ""
    return f"""@pytest.mark.backend({backend!r})
@pytest.mark.asyncio
async def test_{check.verb}_means_the_same_here(running_server) -> None:
    \"\"\"Found by the differential run.\"\"\"
    records = {_indented(listed)}
    query = from_json({_indented(shape)})

    await assert_same({backend!r}, records, Check({check.verb!r}, query{extra}){indexed})
# expected: {seen[0]!r:.1000}
# actual:   {seen[1]!r:.1000}
"""


def _group_json(key: GroupKey) -> Any:
    if isinstance(key, Bucket):
        return [path_json(key.path), key.unit, key.zone, key.width]
    return path_json(key)


def _indented(text: str) -> str:
    return text.replace("\n", "\n    ")
