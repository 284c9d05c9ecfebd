"""What a predicate says of ids is exact, and is what the listing goes by."""

from __future__ import annotations

import random
from typing import Any

import pytest

from isthmus import AsyncDatabase, Query, field
from isthmus._core.executor import After, Mutation, PageRequest, WriteKind
from isthmus._path import Path, Root, parse_path
from isthmus._query.ast import (
    TRUE,
    And,
    Between,
    Contains,
    EndsWith,
    Equal,
    In,
    Leaf,
    Not,
    Or,
    Order,
    Ordered,
    Predicate,
    StartsWith,
)
from isthmus._query.evaluate import matches
from isthmus._query.normalize import normalize
from isthmus._record import Record
from isthmus.backends.s3.backend import DEFAULT
from isthmus.backends.s3.id_filter import compile_id_test, id_range, is_id_leaf
from isthmus.backends.s3.keys import name_before, record_name, upper_bound
from isthmus.errors import ConfigError
from tests.s3.proxy import proxied
from tests.s3.stores import config_for, create, endpoint_of, every, ids_of, keys_under, opened, write
from tests.seeds import drawn

pytestmark = pytest.mark.backend("s3")

ID = Path(Root.ID, ())
LONG = "long/" * 40
IDS = [
    "a", "a!", "a-", "a/b", "ab", "b", "B", "é", "z", "~", "_", "0", "\U0010ffff", "\U0010ffffx", "\ud7ff",
    LONG, LONG + "1", LONG + "2", "long/", LONG[:-1],
]  # fmt: skip


def _leaf(rng: random.Random) -> Leaf:
    one, other = rng.choice([*IDS, "", "aa", "zz", LONG + "15"]), rng.choice(IDS)
    part = one[: rng.randint(0, 3)]
    return rng.choice(
        [
            Equal(ID, one),
            Equal(ID, 7),
            In(ID, (one, other, 1)),
            Ordered(ID, rng.choice(list(Order)), one),
            Ordered(ID, Order.LT, 3),
            Between(ID, min(one, other), max(one, other)),
            Between(ID, 1, 2),
            StartsWith(ID, part if rng.random() < 0.7 else one),
            EndsWith(ID, one[-1:]),
            Contains(ID, part),
        ]
    )


def _predicate(rng: random.Random, depth: int = 2) -> Predicate:
    if depth == 0 or rng.random() < 0.4:
        return _leaf(rng)
    terms = tuple(_predicate(rng, depth - 1) for _ in range(rng.randint(1, 3)))
    return rng.choice([And(terms), And(terms), Or(terms), Not(terms[0])])


def test_ids_are_judged_as_the_evaluator_does() -> None:
    """2,000 random predicates: the same verdict, every match in the span and between the span's names."""
    seed = drawn()
    rng = random.Random(seed)
    records = [Record({}, id=id) for id in IDS]
    for _ in range(2_000):
        where = normalize(_predicate(rng))
        test, span = compile_id_test(where), id_range(where)
        for record in records:
            id = record.id or ""
            expected = matches(where, record)
            assert test(id) is expected, f"seed {seed}: {where} of {id!r}"
            if expected:
                assert span.low <= id, f"seed {seed}: {where} of {id!r}"
                assert span.only is None or id in span.only, f"seed {seed}: {where} of {id!r}"
                name = record_name(id)
                assert not span.low or name_before(span.low) < name, f"seed {seed}: {where} of {id!r}"
                if span.high is not None:
                    end = upper_bound(span.high)
                    assert name[: len(end)] <= end, f"seed {seed}: {where} of {id!r}"


def test_a_leaf_about_ids_with_others_passes_what_it_cannot_judge() -> None:
    """Together with other leaves the test of ids stays a superset."""
    name = Equal(parse_path("name"), "x")

    assert not is_id_leaf(name)
    assert compile_id_test(Or((Equal(ID, "a"), name)))("b")
    assert not compile_id_test(And((Equal(ID, "a"), name)))("b")
    assert compile_id_test(Not(name))("b")
    assert compile_id_test(TRUE)("b")


@pytest.mark.asyncio
async def test_searches_by_id_are_exact_on_the_store(url: str, layout: str) -> None:
    """Random predicates about ids: pages and counts are those of the evaluator, in both orders of pages."""
    seed = drawn()
    rng = random.Random(seed)
    async with opened(url, layout=layout) as backend:
        await write(backend, WriteKind.CREATE, *(Mutation(id, {"t": id[:1]}) for id in IDS))
        records = await every(backend)
        assert [record.id for record in records] == sorted(IDS)
        for _ in range(40):
            where = normalize(_predicate(rng))
            wanted = [record.id for record in records if matches(where, record)]
            found: list[Any] = []
            after: Any = None
            while True:
                page = await backend.fetch(DEFAULT, PageRequest(where, (), 4, after=after))
                found += [record.id for record in page.records]
                if page.after is None:
                    break
                after = After((page.records[-1].id,))
            assert found == wanted, f"seed {seed}: {where}"
            assert (await backend.count(DEFAULT, where)).count == len(wanted), f"seed {seed}: {where}"


@pytest.mark.asyncio
async def test_only_what_is_asked_for_by_id_is_got(url: str) -> None:
    """`_id >` begins the listing there and `_id <=` ends it; `in` needs no listing; a count gets nothing.

    A listing of a thousand, the marker among them, is one request: that nothing follows is known.
    """
    async with (
        proxied(endpoint_of(url)) as proxy,
        await AsyncDatabase.create("s3", config_for(url, endpoint_url=proxy.endpoint)) as db,
    ):
        await db.upsert_batch([Record({"n": n}, id=f"r{n:04}") for n in range(999)])

        async def seen(query: Any) -> tuple[int, int, int]:
            proxy.seen.clear()
            found = await db.search(query)
            lists = sum("list-type" in seen.path for seen in proxy.seen)
            return len(found), lists, len(proxy.seen) - lists

        assert await seen(Query()) == (999, 1, 999)
        await db.upsert_batch([Record({"n": n}, id=f"r{n:04}") for n in range(999, 1_300)])
        assert await seen(Query()) == (1_300, 2, 1_300)
        assert await seen(field("_id") > "r1289") == (10, 1, 10)
        assert await seen((field("_id") >= "r0003") & (field("_id") < "r0010")) == (7, 1, 7)
        assert await seen((field("_id") > "r1199") & (field("n") == 1250)) == (1, 1, 100)
        assert await seen(field("_id").in_(["r0001", "no", "r1299"])) == (2, 0, 3)
        assert await seen(Query(where=field("_id").starts_with("r12")).limit(5)) == (5, 1, 6)
        proxy.seen.clear()
        assert await db.count(field("_id") > "r0999") == 300
        assert len(proxy.seen) == 1
        plan = await db.explain(field("_id") > "r1289")
        assert "after" in plan.native


@pytest.mark.asyncio
async def test_who_only_reads_writes_nothing(url: str, layout: str, transport: str) -> None:
    """No marker is made by opening and reading; the first write makes it, and then a reader minds it."""
    other = {"object": "log", "log": "object"}[layout]
    async with (
        proxied(endpoint_of(url)) as proxy,
        opened(url, layout=other, transport=transport, endpoint_url=proxy.endpoint) as reader,
        opened(url, layout=layout, prefix=reader.config.prefix) as writer,
    ):
        assert await ids_of(reader) == []
        assert await reader.read(DEFAULT, ["a"]) == [None]
        assert (await reader.count(DEFAULT, TRUE)).count == 0
        assert set(proxy.methods()) == {"GET"}
        assert await keys_under(writer, writer.config.key_prefix) == []

        assert await create(writer, "a") == ["a"]

        assert writer.config.key_prefix + "_layout.json" in await keys_under(writer, writer.config.key_prefix)
        with pytest.raises(ConfigError, match=layout):
            await ids_of(reader)
