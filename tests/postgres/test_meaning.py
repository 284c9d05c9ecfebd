"""The compiler against the evaluator: on ICU and C, with indexes, and with what random runs rarely make."""

from __future__ import annotations

import random
import re

import pytest

from isthmus import AsyncDatabase, Query, QueryError, field
from isthmus._query.ast import And, Like, Or, Predicate, Regex
from isthmus._query.evaluate import matches
from isthmus._query.order import sort_records
from isthmus._query.split import Pushdown
from isthmus.backends.postgres.sql.leaf import pushdown
from tests.differential import queries
from tests.postgres.databases import opened, url
from tests.seeds import drawn
from tests.stores import Store

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("postgres")]

SEED = drawn()


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("postgres-icu", {}),
        ("postgres", {"gin": True}),
        (
            "postgres",
            {
                "gin": ["tags", "items.price", "a", "v", "address.city", "age"],
                "substring": ["name", "v", "tags", "address.city"],
                "prefix": ["name", "v.a"],
            },
        ),
        ("postgres", {"driver": "psycopg", "merge": False}),
    ],
    ids=["icu", "gin", "indexes", "psycopg"],
)
async def test_random_queries_mean_what_the_evaluator_says(kind: str, config: dict[str, object]) -> None:
    """0 differences, whatever the collation, the indexes and the driver are."""
    print(f"seed {SEED}")
    store = Store(name="postgres", backend="postgres", url=url(kind), config=config)

    report = await queries.run(store, queries.Plan(n=400, seed=SEED, per_set=100))

    assert not report.failures, "\n\n".join(report.failures)


async def _same(db: AsyncDatabase, where: Predicate) -> None:
    records = await db.search()
    found = await db.search(where)
    assert {r.id for r in found} == {r.id for r in records if matches(where, r)}, repr(where)[:300]


PARTS = ["a", "b", "A", "é", "ß", "1", "٣", " ", "\n", ".", "[a-c]", "[^a]", "[^\\d]", "[\\w-]", "[^\\W_]"]
PARTS += [
    "\\d",
    "\\w",
    "\\s",
    "\\D",
    "\\W",
    "\\S",
    "\\.",
    "\\n",
    "^",
    "$",
    "\\A",
    "\\Z",
    "(?:ab)",
    "(a|b)",
    "(|a)",
]
PARTS += ["\\\\", "\\*", "[]a]", "[^]]", "💥", "[à-ü]", "(?i:a)", "\\b", "#", "'", '"', "[-a]", "(?:)"]
TIMES = ["", "", "", "*", "+", "?", "{2}", "{1,3}", "{0,2}", "*?", "+?", "{,2}", "{2,}"]
FOLDED = ["%", "_", "\\", "İ", "ı", "ſ", "K", "Σ", "ς", "ŉ", "ß", "é", "É", "a", "A", "[", "$", "\n"]
TEXTS = [
    "",
    "a",
    "b",
    "ab",
    "A",
    "éa",
    "ß",
    "1",
    "٣",
    " ",
    "\n",
    "a\n",
    "\na",
    "aab",
    "x-y_z",
    "a.b",
    "[a]",
    "]",
]
TEXTS += [
    "💥",
    "a\\b",
    "*",
    "ü",
    "É",
    "a b\tc",
    "_",
    "a1 b2",
    "bbb\n\n",
    "\u2028",
    "\u00a0",
    "a\u0300",
    "#",
    "'",
]
TEXTS += ['"', "-", "\r\n", "\x1c", "\x85", "İ", "ı", "ſ", "K", "Σ", "ς", "σ", "ŉ", "K"]


async def test_regular_expressions_and_folded_patterns_match_as_in_python() -> None:
    """Random patterns, each translated exactly or evaluated client-side, on the same random texts."""
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    path = field("v").path
    exact = 0
    async with opened() as db:
        some = ["".join(rng.choices(TEXTS, k=rng.randint(0, 4))) for _ in range(150)]
        await db.create_batch([{"v": t} for t in [*TEXTS, *some]] + [{"v": some[:2]}, {"v": [[some[2]]]}])
        for _ in range(300):
            pattern = "".join(rng.choice(PARTS) + rng.choice(TIMES) for _ in range(rng.randint(0, 4)))
            try:
                re.compile(pattern)
            except re.error:
                continue
            exact += pushdown(Regex(path, pattern)) is Pushdown.EXACT
            await _same(db, Regex(path, pattern))
        for _ in range(150):
            pattern = "".join(rng.choices(FOLDED, k=rng.randint(0, 4)))
            assert pushdown(Like(path, pattern, fold=True)) is Pushdown.EXACT
            await _same(db, Like(path, pattern, fold=True))
    assert exact > 200


@pytest.mark.parametrize(
    ("pattern", "is_exact"),
    [
        ("b" * 250, True),
        ("a?" + "b" * 250, True),
        ("a{0,2}" + "b" * 250, False),
        ("(?:a{2}c)*" + "b" * 250, False),
        ("a{0,2}", True),
    ],
)
async def test_a_long_pattern_with_bounded_repeats_is_evaluated_here(pattern: str, is_exact: bool) -> None:
    """The server would expand the repeats."""
    wanted = Pushdown.EXACT if is_exact else Pushdown.SUPERSET
    assert pushdown(Regex(field("v").path, pattern)) is wanted


async def test_the_largest_query_is_one_statement() -> None:
    """As many conditions as a query may have, and more values than the protocol has placeholders."""
    async with opened() as db:
        await db.create_batch([{"n": n, "s": f"t{n}"} for n in range(100)])
        many = tuple(field("s").like(f"t{n}%x") for n in range(1_000))
        ranges = tuple(field("n").between(n + 0.25, n + 0.75) for n in range(998))
        values = field("s").in_(["t8", *(f"no{n}" for n in range(40_000))])

        assert await db.count(Or((*many, *ranges, field("n") == 7, values))) == 2
        assert await db.count(And((~Or(many), field("n") < 50))) == 50
        with pytest.raises(QueryError, match="2000 different conditions"):
            await db.count(Or((*many, *ranges, field("n") == 7, values, field("n").exists())))


async def test_every_key_and_every_depth_can_be_asked_for() -> None:
    """Keys with quotes, backslashes, dots, line breaks and nothing; lists in lists; a hundred levels."""
    keys = [
        '"',
        "'",
        "\\",
        "a.b",
        "",
        " ",
        "\n",
        "\x01",
        "$1",
        "💥",
        "%s",
        "0",
        "{v}",
        "E'",
        "\\'; --",
        "[*]",
    ]
    async with opened() as db:
        for key in keys:
            deep: object = 5
            for _ in range(30):
                deep = [deep]
            await db.create_batch(
                [{key: 5}, {key: [5]}, {key: {key: [[5]]}}, {key: [{key: 5}]}, {key: deep}, {key: "5"}]
            )
        for key in keys:
            for path in ([key], [key, key]):
                for where in (
                    field(path) == 5,
                    field(path).exists(),
                    ~field(path).starts_with("5"),
                    field(path) >= 5,
                    field(path).regex("5"),
                ):
                    await _same(db, where)
            records = await db.search()
            query = Query().sort([key], "desc").sort([key, key]).limit(40)
            expected = sort_records(records, query.order)[:40]
            assert [r.id for r in await db.search(query)] == [r.id for r in expected]

        chain: object = "end"
        for _ in range(99):
            chain = {"k": chain}
        await db.create({"k": chain} if isinstance(chain, str) else chain)  # type: ignore[arg-type]
        assert await db.count(field(["k"] * 99) == "end") == 1


async def test_numbers_are_exact_to_the_last_digit() -> None:
    """Integers of 64 bits never pass through a float; floats come back as they were."""
    numbers: list[float] = [2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 1e300, -1e300, 5e-324, 0.1]
    numbers += [2.0**63, 1.5, 0, 0.0, 1e22, 123456789.123456789, 1.7976931348623157e308, 9.5e18, 1.2e19]
    async with opened(indexes=["n"]) as db:
        ids = await db.create_batch([{"n": n} for n in numbers])

        for id, number in zip(ids, numbers, strict=True):
            stored = (await db.require(id)).data["n"]
            assert stored == number
            assert type(stored) is type(number)
            assert {r.data["n"] for r in await db.search(field("n") == number)} == {number}
            assert await db.count(field("n") > number) == sum(n > number for n in numbers)
        found = [r.data["n"] for r in await db.search(Query().sort("n").limit(100))]
        assert found == sorted(numbers)
        paged = [r.data["n"] async for r in db.stream(Query().sort("n", "desc"), page_size=1)]
        assert paged == sorted(numbers, reverse=True)


async def test_statements_hold_no_value() -> None:
    """The text of a statement is the same for any operand of a shape; operands are bound."""
    async with opened() as db:
        texts = set()
        for value in ("x", "'; DROP TABLE x; --", "$1", "\\", "%", '"', "{v}"):
            where = And((field("a") == value, field("b").contains(value), ~field("c").like(value)))
            plan = await db.explain(Query(where=where).sort("a").limit(3))
            texts.add(plan.native)
        assert len(texts) == 1


async def test_one_of_several_types_keeps_its_values_bound_where_the_order_splits_by_type() -> None:
    """Found by the differential run: each arm of a sorted page binds only what it writes."""
    async with opened(indexes=["a"]) as db:
        await db.create_batch([{}, {"a": "x"}, {"a": False}, {"a": [False]}, {"a": 1}])

        page = await db.page(Query(where=field("a").in_(["x", False])).sort("a", nulls="first"), size=8)

        assert [r.data["a"] for r in page.records] == [False, [False], "x"]


async def test_a_mean_beyond_the_floats_on_the_way_is_right() -> None:
    """Found by the differential run: the sum of the largest floats overflows, their mean does not."""
    largest = 1.7976931348623157e308
    async with opened() as db:
        await db.create_batch([{"a": largest}, {"a": largest}])

        rows = await db.aggregate(mean=("avg", "a"))

        assert [row["mean"] for row in rows] == [largest]
