"""Hostile text as value, field, sort key, id and collection name: the answer is the evaluator's, the
statement's text depends on the shape of the query alone."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from dataclasses import field as made
from typing import Any

import orjson

from isthmus import AsyncDatabase, ConfigError, Query, Record, UsageError, field
from isthmus._ids import new_id
from isthmus._query.evaluate import matches
from isthmus._query.order import sort_records
from isthmus.errors import InvalidRecordError, IsthmusError
from tests.security.payloads import payloads

GROUP = 50


@dataclass
class Findings:
    """What was tried, and what went wrong."""

    tried: Counter[str] = made(default_factory=Counter)
    wrong: list[str] = made(default_factory=list)

    def note(self, place: str, payload: str, problem: str) -> None:
        """Keep a finding."""
        self.wrong.append(f"{place} {payload!r:.80}: {problem}"[:1500])


async def inject(db: AsyncDatabase, count: int, seed: int) -> Findings:
    """Try so many payloads in each place on one store."""
    found = Findings()
    texts: dict[str, set[str]] = {}
    everything = list(payloads(count, seed))
    for start in range(0, count, GROUP):
        group = everything[start : start + GROUP]
        await db.clear()
        await _group(db, group, found, texts)
    for shape, seen in texts.items():
        # A store may have a second form for keys that its paths cannot name; never one for each key.
        if len(seen) > 2:
            examples = sorted(seen, key=len)[:2]
            found.wrong.append(f"{shape}: {len(seen)} statement texts, such as {examples!r:.1500}")
    return found


async def _group(db: AsyncDatabase, group: list[str], found: Findings, texts: dict[str, set[str]]) -> None:
    records = []
    for n, payload in enumerate(group):
        id = payload if len(payload.encode()) <= 512 else f"{n}"
        records.append(Record({"v": payload, payload: n, "in": {payload: [payload]}}, id=id))
    records = list({record.id: record for record in records}.values())
    outcomes = await db.create_batch(records, atomic=False, on_error="collect")
    for record, outcome in zip(records, outcomes, strict=True):
        if isinstance(outcome, IsthmusError):
            found.note("create", str(record.id), repr(outcome))
    stored = [r for r in await db.get_batch([r.id or "" for r in records]) if r is not None]
    if [r.data for r in stored] != [r.data for r in records]:
        found.note("id", group[0], "not all came back by id as they were stored")
    found.tried["id"] += len(records)
    for payload in group:
        key = [payload]
        queries = {
            "value =": Query().filter("v", "=", payload),
            "value like": Query().filter("v", "like", payload),
            "value starts_with": Query().filter("v", "starts_with", payload),
            "value contains": Query().filter("v", "contains", payload),
            "value in": Query().filter("v", "in", [payload, "x"]),
            "field exists": Query().filter(field(key), "exists"),
            "field =": Query().filter(field(key), "=", 7),
            "nested field": Query().filter(field(["in", payload]), "=", payload),
            "sort key": Query().sort(field(key), "desc").limit(5),
        }
        for place, query in queries.items():
            found.tried[place] += 1
            try:
                answer = [r.id for r in await db.search(query)]
            except IsthmusError as error:
                found.note(place, payload, repr(error))
                continue
            right = sort_records([r for r in stored if matches(query.where, r)], query.order)
            wanted = [r.id for r in right][: query.count]
            if answer != wanted:
                found.note(place, payload, f"{len(answer)} records, not {len(wanted)}")
        if db.backend != "memory":  # which has no statements
            await _texts(db, queries, payload, texts)


async def _texts(
    db: AsyncDatabase, queries: dict[str, Query], payload: str, texts: dict[str, set[str]]
) -> None:
    """Keep the native text of each query's shape; where it is JSON, its skeleton."""
    for place in ("value =", "field =", "sort key"):
        native = (await db.explain(queries[place])).native
        # What a value's kind or length decides is part of the shape.
        shape = f"{place} ({'long' if len(payload) > 100 else 'short'})"
        texts.setdefault(shape, set()).add(_skeleton(native))


# A field's name may stand in a statement as a literal, quoted as the server reads it, and nowhere
# else: if a name broke out of its quotes, what is left after removing literals would differ.
_LITERAL = re.compile(r"""\bE'(?:[^'\\]|''|\\.)*'|'(?:[^']|'')*'""", re.DOTALL)


def _skeleton(native: str) -> str:
    """Return what a statement is without its literals; of JSON, the structure."""
    if native.startswith(("SELECT", "WITH")):
        return _LITERAL.sub("'*'", native)
    start = native.find("{")
    if start < 0:
        return native
    try:
        return repr(_shape(orjson.loads(native[start:])))
    except orjson.JSONDecodeError:
        return native


def _shape(value: Any) -> Any:
    """Return JSON with its texts left out, and with them the names of fields."""
    if isinstance(value, dict):
        return sorted(((k if re.fullmatch("[a-z_]+", k) else "*"), _shape(v)) for k, v in value.items())
    if isinstance(value, list):
        return [_shape(item) for item in value]
    return "*" if isinstance(value, str) else value


async def names(db: AsyncDatabase, count: int, seed: int) -> Findings:
    """Try payloads as collection names: each is refused before I/O, or is a collection of its own."""
    found = Findings()
    await db.clear()
    await db.create(Record({"mine": True}, id="mine"))
    for payload in payloads(count, seed):
        found.tried["collection"] += 1
        name = payload[:40]
        try:
            other = db.collection(name)
            await other.create(Record({"n": name}, id=new_id()))
            if [r["n"] for r in await other.search()] != [name]:
                found.note("collection", name, "holds something else")
            drop = getattr(db._backend, "drop", None)
            await (drop(name) if drop is not None else other.clear())
        except (UsageError, ConfigError, InvalidRecordError):
            continue
        except IsthmusError as error:
            found.note("collection", name, repr(error))
    if await db.count() != 1:
        found.note("collection", "", "the default collection changed")
    return found
