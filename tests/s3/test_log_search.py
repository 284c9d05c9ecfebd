"""Searches in a log's view: exact on columns, which follow every write, and without them."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._core.mutation_batch import MutationBatch
from isthmus._query.ast import And, Predicate
from isthmus._query.evaluate import matches
from isthmus._query.normalize import normalize
from isthmus._record import Record
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.envelope import RecordRow, format_lines
from isthmus.backends.s3.log.entry import _split_rows, checksum, entry_body, part_body, read_entry, read_rows
from isthmus.errors import AlreadyExistsError, InvalidRecordError, UnexpectedError
from tests.s3.stores import client_of, config_for, every, ids_of, opened, write
from tests.seeds import drawn

pytestmark = pytest.mark.backend("s3")

VALUES: list[Any] = [
    None, True, False, 0, 1, 2, 1.0, 2.5, 2**53 + 1, float(2**53), "", "a", "A", "ab", "b", "é", [], {},
    [1, "a", None, [2, True]], {"x": 1}, {"x": [{"y": 1}, {"y": "a"}]}, [{"x": 1}, {"x": "a"}],
]  # fmt: skip
PATHS = ["v", "v.x", "v.x.y", "none", "_metadata.m", "_id", "_version", "_created_at"]


def _predicate(rng: random.Random, depth: int = 2) -> Any:
    if depth and rng.random() < 0.5:
        one, other = _predicate(rng, depth - 1), _predicate(rng, depth - 1)
        return rng.choice([one & other, one | other, ~one])
    f = field(rng.choice(PATHS))
    value = rng.choice([v for v in VALUES if type(v) in (bool, int, float, str)])
    text = rng.choice(["a", "A", "%", "a%", "_", "é", ""])
    return rng.choice(
        [
            lambda: f == rng.choice([*VALUES[1:16], {"x": 1}]),
            lambda: f != value,
            lambda: f < value,
            lambda: f >= value,
            lambda: f.in_([value, 1, "a"]),
            lambda: f.between(*rng.choice([(0, 2), ("a", "b"), (False, True), (1.5, 2**60)])),
            lambda: f.like(text),
            lambda: f.ilike(text),
            lambda: f.regex(rng.choice(["^a", "b$", "."])),
            lambda: f.starts_with(text),
            lambda: f.ends_with(text),
            lambda: f.contains(text),
            f.exists,
            f.is_null,
        ]
    )()


def _data(rng: random.Random) -> dict[str, Any]:
    return {} if rng.random() < 0.1 else {"v": rng.choice(VALUES)}


async def _differences(backend: S3Backend, rng: random.Random, queries: int) -> list[Predicate]:
    records = await every(backend)
    wrong = []
    for _ in range(queries):
        where = normalize(_predicate(rng))
        page = await backend.fetch(DEFAULT, PageRequest(where, (), 10_000))
        found = [record.id for record in page.records]
        tally = (await backend.count(DEFAULT, where)).count
        if found != [record.id for record in records if matches(where, record)] or tally != len(found):
            wrong.append(where)
    return wrong


@pytest.mark.parametrize("memory", [2**28, 8_000], ids=["held", "let go"])
@pytest.mark.asyncio
async def test_columns_follow_every_write(url: str, memory: int) -> None:
    """After each write, small or large, random searches are those of the evaluator."""
    seed = drawn()
    rng = random.Random(seed)
    async with opened(url, layout="log", log={"memory_bytes": memory}) as backend:
        for round in range(7):
            count = rng.choice([1, 3, 80])
            ids = [f"r{rng.randrange(150):03}" for _ in range(count)]
            kind = rng.choice([WriteKind.UPSERT, WriteKind.UPSERT, WriteKind.UPDATE, WriteKind.DELETE])
            changes = [Mutation(id, _data(rng), {"m": rng.choice(VALUES)}) for id in ids]
            await write(backend, kind, *changes)
            if round == 4:
                await backend.remove(DEFAULT, And(()))

            assert await _differences(backend, rng, 6) == [], f"seed {seed}, round {round}"


@pytest.mark.asyncio
async def test_pages_of_a_filtered_search_continue_where_they_ended(url: str) -> None:
    """Each page begins behind the last id, whatever the chunks are; a limit stops early."""
    async with await AsyncDatabase.create("s3", config_for(url, layout="log")) as db:
        await db.create_batch([Record({"n": n % 7}, id=f"r{n:05}") for n in range(3_000)])
        wanted = [f"r{n:05}" for n in range(3_000) if n % 7 == 3]
        query = Query(where=field("n") == 3)

        assert [record.id for record in await db.search(query)] == wanted
        assert [record.id for record in await db.search(query.offset(100).limit(5))] == wanted[100:105]
        assert [record.id async for record in db.stream(query)] == wanted
        pages: list[str | None] = []
        cursor = None
        while True:
            page = await db.page(query, size=300, cursor=cursor)
            pages += [record.id for record in page.records]
            cursor = page.cursor
            if cursor is None:
                break
        assert pages == wanted
        plan = await db.explain(query)
        assert "EXACT" in str(plan).upper()


@pytest.mark.asyncio
async def test_an_entry_changed_by_one_letter_is_found_out(url: str) -> None:
    """It is still JSON and as long as before, but its checksum is another."""
    async with opened(url, layout="log") as backend:
        await write(backend, WriteKind.CREATE, Mutation("a", {"n": "one"}))
        client, config = await client_of(backend), backend.config
        key = f"{config.key_prefix}_log/{1:020d}.ndjson"
        body = await (await client.get_object(Bucket=config.bucket, Key=key))["Body"].read()
        await client.put_object(Bucket=config.bucket, Key=key, Body=body.replace(b"one", b"two"))

        with pytest.raises(UnexpectedError, match="checksum"):
            async with opened(url, prefix=config.prefix, layout="log", timeout=21) as other:
                await ids_of(other)


def _rows(*ids: str, metadata: bytes = b"{}") -> list[RecordRow]:
    time = "2026-01-01T00:00:00.000000Z"
    return [RecordRow(id, "v", time, time, metadata, b'{"a":"}\\n\\"","b":{"data":{}}}') for id in ids]


@pytest.mark.parametrize("id", ["a", 'q"uote', "back\\slash", "é😀", '","version":"', "\x01\n", "{}"])
def test_rows_are_cut_out_as_decoding_would_give_them(id: str) -> None:
    """Whatever is in ids and texts; with escaped ids, metadata and deletions lines are decoded instead."""
    rows = _rows("first", id)
    body = part_body(rows)

    assert _split_rows(body, 0) == (None if b"\\" in orjson.dumps(id) else rows)
    assert read_rows(body, "k", checksum(body)) == rows == read_rows(body, "k")
    mixed = [*_rows(id, metadata=b'{"m":1}'), *rows]
    assert _split_rows(part_body(mixed), 0) is None
    assert read_rows(part_body(mixed), "k", checksum(part_body(mixed))) == mixed
    effects: list[Any] = [(row.id, row) for row in mixed] + [(id, None)]
    assert read_entry(entry_body(7, "t", effects, cleared=True), "k") == (7, "t", True, effects, None, None)


def test_an_entry_without_a_checksum_is_read() -> None:
    """As the first version wrote it."""
    [row] = _rows("a")
    header = b'{"isthmus":1,"seq":3,"token":"t","lines":1,"cleared":false}\n'

    assert read_entry(header + row.line() + b"\n", "k").effects == [("a", row)]
    with pytest.raises(UnexpectedError):
        read_entry(header + row.line(), "k")


def test_lines_made_together_are_those_of_each_row() -> None:
    """A batch of new records is written as its rows are one by one, whatever is in the ids."""
    for ids in (["a", "b-1"], ['q"', "back\\slash", "é\n", "\u2028"]):
        rows = [RecordRow(id, f"v{at}", "t", "t", b"{}", '{"n":"é"}'.encode()) for at, id in enumerate(ids)]

        lines = format_lines(ids, [row.version for row in rows], "t", [row.data.decode() for row in rows])

        assert lines == b"".join([row.line() + b"\n" for row in rows])


@pytest.mark.asyncio
async def test_batches_of_plain_records_are_new_only_once(url: str) -> None:
    """The shortcut for new records is not taken where one is there, comes twice or is invalid."""

    def batch(*ids: str, **data: Any) -> MutationBatch:
        return MutationBatch(list(ids), [{"n": 1}] * (len(ids) - 1) + [{"n": 2, **data}])

    async with opened(url, layout="log") as backend:
        first = await backend.write(DEFAULT, WriteKind.CREATE, batch("a", "b"), atomic=False)
        there = await backend.write(DEFAULT, WriteKind.CREATE, batch("c", "a"), atomic=False)
        twice = await backend.write(DEFAULT, WriteKind.CREATE, batch("d", "d"), atomic=False)
        invalid = await backend.write(DEFAULT, WriteKind.CREATE, batch("e", "f", x=object()), atomic=False)
        nothing = await backend.write(DEFAULT, WriteKind.CREATE, batch("g", "a"), atomic=True)
        here = await every(backend)

        async with opened(url, prefix=backend.config.prefix, layout="log", timeout=21) as other:
            read = await every(other)

    assert first == ["a", "b"]
    assert there[0] == "c"
    assert isinstance(there[1], AlreadyExistsError)
    assert twice[0] == "d"
    assert isinstance(twice[1], AlreadyExistsError)
    assert invalid[0] == "e"
    assert isinstance(invalid[1], InvalidRecordError)
    assert isinstance(nothing[1], AlreadyExistsError)
    assert [(record.id, record.data) for record in here] == [
        ("a", {"n": 1}), ("b", {"n": 2}), ("c", {"n": 1}), ("d", {"n": 1}), ("e", {"n": 1}),
    ]  # fmt: skip
    assert [(r.id, r.data, r.version) for r in read] == [(r.id, r.data, r.version) for r in here]
