"""Nesting, sizes and patterns that are meant to exhaust: refused early, by a typed error."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from isthmus import AsyncDatabase, Query, Record, field
from isthmus._query.codec import from_json
from isthmus._query.cursor import decode_cursor
from isthmus.errors import IsthmusError


def _nested(depth: int, *, listed: bool) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value] if listed else {"a": value}
    return value


def _cycle() -> Any:
    value: dict[str, Any] = {}
    value["a"] = value
    return value


def _deep_query(depth: int) -> Any:
    shape: Any = {"field": "a", "op": "=", "value": 1}
    for _ in range(depth):
        shape = {"not": shape}
    return {"where": shape}


def _wide_query(terms: list[tuple[str, Any]]) -> Any:
    return {"where": {"or": [{"field": "a", "op": op, "value": value} for op, value in terms]}}


async def check() -> tuple[int, list[str]]:
    """Try each; return how many, and those that were accepted, untyped or slow."""
    db = await AsyncDatabase.create("memory")
    deep = _deep_query(100_000)  # which takes longer to make than to refuse
    wide = _wide_query([("=", number) for number in range(50_000)])
    patterns = _wide_query([("regex", f"{number}{'b' * 9_000}") for number in range(500)])
    attempts: dict[str, Callable[[], Any]] = {
        "data 101 deep": lambda: db.create({"a": _nested(101, listed=False)}),
        "lists 10,000 deep": lambda: db.create({"a": _nested(10_000, listed=True)}),
        "a cycle": lambda: db.create(_cycle()),
        "an id of 513 bytes": lambda: db.create(Record({}, id="x" * 513)),
        "an id with U+0000": lambda: db.create(Record({}, id="a\0b")),
        "an empty id": lambda: db.get(""),
        "a lone surrogate": lambda: db.create({"a": "\ud800"}),
        "a lone surrogate as key": lambda: db.create({"\udfff": 1}),
        "an operand 200 deep": lambda: db.search(field("a") == _nested(200, listed=False)),
        "a query 100,000 deep": lambda: from_json(deep),
        "a query 300 deep": lambda: from_json(_deep_query(300)),
        "50,000 leaves": lambda: from_json(wide),
        "500 patterns of 9,000": lambda: from_json(patterns),
        "a LIKE pattern of 1 MB": lambda: db.search(field("a").like("a_" * 500_000)),
        "a look-ahead over 1,900 sets": lambda: db.search(
            field("a").regex("(?i)(?=x)" + "[Ā-\uffff]" * 1_900)
        ),
        "a pattern of 100,000": lambda: db.search(field("a").regex("a" * 100_000)),
        "a bad pattern": lambda: db.search(field("a").regex("(")),
        "a pattern 5,000 deep": lambda: db.search(field("a").regex("(" * 5_000 + ")" * 5_000)),
        "a repetition of 10^9": lambda: db.search(field("a").regex("a{1000000000000}")),
        "a cursor of 10 MB": lambda: decode_cursor("A" * 10_000_000, Query(), "records", b""),
        "a cursor of bytes": lambda: decode_cursor(b"AAAA", Query(), "records", b""),
        "a limit of -1": lambda: Query().limit(-1),
        "a limit of text": lambda: Query().limit("10"),  # type: ignore[arg-type]
        "a page of 0": lambda: db.page(size=0),
        "an unknown operator": lambda: Query().filter("a", "; DROP", 1),
    }
    wrong = []
    for name, attempt in attempts.items():
        begun = time.process_time()  # not the clock: the machine may run others meanwhile
        try:
            result = attempt()
            if hasattr(result, "__await__"):
                await result
            wrong.append(f"{name}: accepted")
        except IsthmusError:
            pass
        except (Exception, RecursionError) as error:  # that is what is looked for
            wrong.append(f"{name}: {type(error).__name__}: {error}"[:200])
        if time.process_time() - begun > 1.0:
            wrong.append(f"{name}: took {time.process_time() - begun:.1f} s of the processor")
    await db.close()
    return len(attempts), wrong
