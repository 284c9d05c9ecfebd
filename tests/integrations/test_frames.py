"""Arrow, pandas, Polars and Dask: there and back."""

import asyncio
import pickle
import random
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pytest

from isthmus import AsyncDatabase, ConfigError, Query, Record, UnsupportedError, UsageError, field
from isthmus._core.op import Fetch, Op
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._ids import new_id
from isthmus._record import make_record
from isthmus._value import replace
from isthmus.integrations import _json_table, frames
from isthmus.integrations._json_table import read_records
from tests.seeds import drawn

pytestmark = pytest.mark.asyncio
COUNT = 1_000


async def filled(path: Path) -> AsyncDatabase:
    """Return a SQLite handle with records."""
    db = await AsyncDatabase.create("sqlite", {"path": str(path / "frames.db")})
    await db.create_batch([{"n": n, "name": f"n{n}", "half": n / 2 if n % 3 else None} for n in range(COUNT)])
    return db


async def test_a_search_becomes_a_table_and_comes_back(tmp_path: Path) -> None:
    """Ids, values and missing values survive the way through Arrow."""
    async with await filled(tmp_path) as db:
        table = await frames.to_arrow(db, Query().filter("n", "<", 100))

        other = await AsyncDatabase.create("memory", {})
        receipt = await frames.from_arrow(other, table)

        assert (table.num_rows, receipt.written) == (100, 100)
        before, after = await db.search(field("n") < 100), await other.search()
        assert [r.id for r in after] == [r.id for r in before]
        for a, b in zip(after, before, strict=True):
            assert a.data == {k: v for k, v in b.data.items() if v is not None}


class Redaction(Layer):
    """A layer of an application that hides a field in all that is read."""

    order = LayerOrder.CACHE
    ops = (Fetch,)

    async def handle(self, op: Op[Any], call_next: Next, /) -> Any:
        page = await call_next(op)
        hidden = [
            make_record(r.id or "", {**r.data, "name": "hidden"}, {}, r.version, None, None)
            for r in page.records
        ]
        return replace(page, records=hidden)


async def test_a_layer_of_the_application_sees_the_records(tmp_path: Path) -> None:
    """The table has what the layer returned, though texts alone would do for it."""
    async with await filled(tmp_path):
        pass
    settings = {"path": str(tmp_path / "frames.db"), "layers": {"redaction": Redaction()}}
    async with await AsyncDatabase.create("sqlite", settings) as db:
        table = await frames.to_arrow(db)

    assert (table.num_rows, set(table["name"].to_pylist())) == (COUNT, {"hidden"})


async def test_batches_have_one_schema_and_bounded_rows(tmp_path: Path) -> None:
    """Nothing is read ahead of the batch that is asked for, and all batches fit together."""
    async with await filled(tmp_path) as db:
        batches = [batch async for batch in frames.arrow_batches(db, rows=300)]
    assert [batch.num_rows for batch in batches] == [300, 300, 300, 100]
    assert all(batch.schema == batches[0].schema for batch in batches)


async def test_a_column_of_two_types_is_refused_with_its_name() -> None:
    """Arrow cannot hold it, and nothing is turned into text silently."""
    db = await AsyncDatabase.create("memory", {})
    await db.create_batch([{"v": 1}, {"v": "one"}])
    with pytest.raises(UsageError, match="'v'"):
        await frames.to_arrow(db)


async def test_a_batch_drops_no_column() -> None:
    """A field that the first batch had not is an error, unless a schema says which columns are wanted."""
    db = await AsyncDatabase.create("memory", {})
    await db.create_batch([Record({"n": 1}, id="a"), Record({"n": 2, "late": 3}, id="b")])

    with pytest.raises(UsageError, match="'late'"):
        [batch async for batch in frames.arrow_batches(db, rows=1)]
    schema = (await frames.to_arrow(db)).schema.remove(2)
    named = [batch async for batch in frames.arrow_batches(db, rows=1, schema=schema)]

    assert [batch.to_pylist() for batch in named] == [[{"_id": "a", "n": 1}], [{"_id": "b", "n": 2}]]


TEXT, INT, FLOAT = pa.string(), pa.int64(), pa.float64()
MISFITS: list[tuple[pa.DataType, Any, Any]] = [
    (INT, 1, 1.5),
    (INT, 1, "2"),
    (INT, 1, True),
    (pa.uint8(), 1, -1),
    (pa.int8(), 1, 300),
    (FLOAT, 0.5, True),
    (FLOAT, 0.5, 2**53 + 1),
    (pa.float32(), 0.5, 1e300),
    (pa.bool_(), True, 1),
    (TEXT, "a", 1.5),
    (pa.list_(INT), [1], [2, 2.5]),
    (pa.list_(TEXT), ["a"], "bc"),
    (pa.list_(TEXT, 2), ["a", "b"], "bc"),
    (pa.list_(pa.list_(INT)), [[1]], [[2.5]]),
    (pa.struct([("a", INT)]), {"a": 1}, {"a": 2.5}),
    (pa.struct([("a", pa.list_(INT))]), {"a": [1]}, {"a": [0.5]}),
    (pa.map_(TEXT, INT), {"a": 1}, {"a": 2.5}),
    (pa.dictionary(pa.int8(), INT), 1, 1.5),
    (pa.timestamp("us", "UTC"), 5, 5.5),
    (pa.timestamp("us", "UTC"), 5, "2020-01-01T00:00:00Z"),
    (pa.decimal128(5, 2), 1, 1.5),
]


@pytest.mark.parametrize(("type", "fits", "other"), MISFITS, ids=[f"{t}: {v!r}" for t, _, v in MISFITS])
async def test_no_value_is_changed_to_fit_a_schema(type: pa.DataType, fits: Any, other: Any) -> None:
    """Arrow cuts fractions, makes numbers of booleans and lists of texts."""
    db = await AsyncDatabase.create("memory", {})
    schema = pa.schema([("v", type)])
    await db.create(Record({"v": fits}, id="a"))
    expected = pa.Table.from_pylist([{"v": fits}], schema=schema)
    assert (await frames.to_arrow(db, schema=schema)).equals(expected)

    await db.create(Record({"v": other}, id="b"))

    with pytest.raises(UsageError, match="does not fit"):
        await frames.to_arrow(db, schema=schema)
    with pytest.raises(UsageError, match="does not fit"):
        [batch async for batch in frames.arrow_batches(db, rows=1, schema=schema)]


@pytest.mark.parametrize(
    "values",
    [
        [1, 2, 2.5],
        [[1], [2], [2.5]],
        [{"a": 1}, {"a": 2}, {"a": 2.5}],
        [{"a": 1}, {"a": 2}, {"a": 3, "b": 4}],
        [["a"], ["b"], "cd"],
        [1.5, 2.5, True],
        [{"a": [{"b": 1}]}, {"a": [{"b": 1, "c": 2}]}],
    ],
    ids=str,
)
async def test_a_batch_that_the_first_one_does_not_foresee_is_refused(values: list[Any]) -> None:
    """Whole floats fit a column of integers, since they are the same numbers."""
    db = await AsyncDatabase.create("sqlite", {})
    await db.create_batch([Record({"v": value}, id=str(n)) for n, value in enumerate(values)])

    with pytest.raises(UsageError, match="pass a schema"):
        [batch async for batch in frames.arrow_batches(db, Query().sort("_id"), rows=1)]
    assert (await frames.to_arrow(db, field("_id") < "2", schema=pa.schema([("_id", TEXT)]))).num_rows == 2


async def test_an_explicit_schema_selects_keys_of_objects_too() -> None:
    """And lacks no row for a key that it names and no object has."""
    db = await AsyncDatabase.create("memory", {})
    await db.create_batch([Record({"o": {"a": 1, "b": 2}}, id="a"), Record({}, id="b")])

    schema = pa.schema([("o", pa.struct([("a", INT), ("c", TEXT)]))])

    table = await frames.to_arrow(db, schema=schema)
    assert table.to_pylist() == [{"o": {"a": 1, "c": None}}, {"o": None}]


async def test_pandas_and_polars_hold_the_same(tmp_path: Path) -> None:
    """Both come by way of Arrow."""
    async with await filled(tmp_path) as db:
        panda = await frames.to_pandas(db)
        polar = await frames.to_polars(db)
        assert panda["n"].sum() == polar["n"].sum() == sum(range(COUNT))
        target = await AsyncDatabase.create("memory", {})
        await frames.from_pandas(target, panda[["_id", "n"]])
        await frames.from_polars(target, polar.select("_id", "name"), upsert=True)
        assert await target.count(field("name") == "n7") == 1


async def test_numbers_stay_exact_in_pandas_where_others_are_missing() -> None:
    """pandas would make floats of them: 2^53+1 is no float."""
    async with await AsyncDatabase.create("memory", {}) as db:
        given = {
            "n": 2**53 + 1,
            "there": True,
            "all": 2**63 - 1,
            "l": [2**53 + 1, None],
            "o": {"a": 2**53 + 1},
        }
        await db.create_batch([Record(given, id="a"), Record({"all": 1, "o": {"a": None}}, id="b")])

        frame = await frames.to_pandas(db)
        target = await AsyncDatabase.create("memory", {})
        await frames.from_pandas(target, frame)

        assert [str(frame[name].dtype) for name in ("n", "there", "all")] == ["Int64", "boolean", "int64"]
        assert (await target.require("a")).data == given
        assert (await target.require("b")).data == {"all": 1, "o": {"a": None}}


async def test_a_key_that_would_hide_the_ids_is_refused() -> None:
    """Written back, its value would be taken for the id."""
    async with await AsyncDatabase.create("memory", {}) as db:
        await db.create(Record({"_id": "mine", "n": 1}, id="a"))

        with pytest.raises(UsageError, match="'_id'"):
            await frames.to_arrow(db)

        assert (await frames.to_arrow(db, Query().select("n"))).to_pylist() == [{"_id": "a", "n": 1}]


@pytest.mark.parametrize("count", [1, 2, 7, 64])
async def test_partitions_are_disjoint_and_complete(tmp_path: Path, count: int) -> None:
    """Pickled and read alone, they give each record once."""
    async with await filled(tmp_path) as db:
        parts = pickle.loads(pickle.dumps(await db.partitions(field("n") >= 10, count)))
        seen = [record["n"] for part in parts async for record in part.stream()]
    assert len(parts) == count
    assert sorted(seen) == list(range(10, COUNT))


async def test_partitions_of_few_records_are_few(tmp_path: Path) -> None:
    """No range is made for nothing, and an empty collection has one."""
    db = await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "few.db")})
    assert len(await db.partitions(count=8)) == 1
    await db.create(Record({}, id="a"))
    assert len(await db.partitions(count=8)) <= 2


async def test_secrets_do_not_travel() -> None:
    """A password given as an argument is refused unless the workers know where to find the URL."""
    db = AsyncDatabase("postgres", {"host": "h", "password": "hunter2"})
    from isthmus._partition import _worker_settings

    with pytest.raises(ConfigError, match="url_from"):
        _worker_settings(db.config, None)
    assert "hunter2" not in str(_worker_settings(db.config, "DATABASE_URL"))


@pytest.mark.parametrize(
    ("address", "sent"),
    [
        ("mysql+asyncmy://root@localhost:3306/test", True),
        ("postgresql+asyncpg://localhost/test?timeout=5", True),
        ("sqlite+aiosqlite:////tmp/a:b@c.db", True),
        ("mysql+asyncmy://root:hunter2@localhost/test", False),
        ("mysql+asyncmy://root:@localhost/test", False),
        ("postgresql+asyncpg:///test?password=hunter2", False),
        ("mysql+aiomysql://localhost/test?ssl_key=hunter2", False),
    ],
)
async def test_an_address_without_a_password_travels(address: str, sent: bool) -> None:
    """Where it may hold one, workers need a variable with the URL."""
    from isthmus._partition import _worker_settings

    config = AsyncDatabase("sqlalchemy", {"address": address}).config

    if sent:
        assert _worker_settings(config, None) == {"address": address}
        return
    with pytest.raises(ConfigError, match="url_from"):
        _worker_settings(config, None)
    assert "hunter2" not in str(_worker_settings(config, "DATABASE_URL"))


async def test_an_engine_and_a_database_in_memory_do_not_travel() -> None:
    """Both are of this process."""
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine("sqlite+aiosqlite:////tmp/unused.db")
    with pytest.raises(ConfigError, match="url_from"):
        await AsyncDatabase("sqlalchemy", {"engine": engine}).partitions()
    for address in ("sqlite+aiosqlite://", "sqlite+aiosqlite:///:memory:"):
        with pytest.raises(UnsupportedError):
            await AsyncDatabase("sqlalchemy", {"address": address}).partitions()


async def test_a_dask_frame_sums_what_the_store_holds(tmp_path: Path) -> None:
    """Its partitions are read by its workers."""
    import asyncio

    import pandas as pd

    from isthmus.integrations.dask import to_dask

    async with await filled(tmp_path) as db:
        parts = await db.partitions(count=4)
    meta = pd.DataFrame({"_id": pd.Series(dtype="object"), "n": pd.Series(dtype="int64")})

    frame = to_dask(parts, meta)
    total = await asyncio.to_thread(lambda: int(frame["n"].sum().compute(scheduler="threads")))

    assert total == sum(range(COUNT))


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int64", 1.5), ("bool", "x"), ("bool", 2), ("str", 1), ("int64", "x"), ("float64", True)],
)
async def test_no_value_is_changed_to_fit_a_column_of_dask(tmp_path: Path, dtype: str, value: Any) -> None:
    """pandas cuts fractions, and makes booleans of texts."""
    import pandas as pd

    from isthmus.integrations.dask import read_partition

    async with await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "db")}) as db:
        await db.create({"v": value})
        (part,) = await db.partitions(count=1)

    with pytest.raises(UsageError, match="'v'"):
        await asyncio.to_thread(read_partition, part, pd.DataFrame({"v": pd.Series(dtype=dtype)}))


@pytest.mark.backend("s3")
@pytest.mark.parametrize("layout", ["object", "log"])
async def test_partitions_of_a_store_without_filters_are_disjoint_and_complete(layout: str) -> None:
    """S3 begins behind an id and ends at one; conditions are evaluated as well."""
    from tests.servers import server

    running = server("s3")
    place = f"/isthmus-test/parts-{new_id()}"
    url = f"{running.url.replace('/isthmus-test', place, 1)}&layout={layout}"

    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**running.env, "ISTHMUS_TEST_PARTITIONS": url}.items():
            patch.setenv(name, value)
        async with await AsyncDatabase.open(url) as db:
            await db.create_batch([Record({"n": n}, id=f"id/{n:03}é") for n in range(97)])
            parts = await db.partitions(field("n") >= 10, 5, url_from="ISTHMUS_TEST_PARTITIONS")
        found = [[row["n"] for row in await asyncio.to_thread(part.read)] for part in parts]

    assert len(parts) == 5
    assert [n for part in found for n in part] == list(range(10, 97))


def _values(rng: random.Random, kind: str) -> Any:
    """Return a value of a kind, now and then None."""
    if rng.random() < 0.1:
        return None
    match kind:
        case "integer":
            return rng.choice((0, -5, 2**53 + 1, -(2**63), 2**63 - 1))
        case "number":
            return rng.choice((1, 0.5, 2.0, 2**53 + 1, 1e16, 1e19, 1e300, 5e-324))
        case "text":
            return rng.choice(("", 'a\n"é😀', "2020-01-01", "2020-01-01T00:00:00Z", "12", "null"))
        case "time":
            return rng.choice(("2020-01-01", "2021-05-05T10:00:00", "2021-05-05 10:00:00"))
        case "any":
            return rng.choice((1, "1", True, 0.5, [], {}))
        case "list":
            inner = rng.choice(("integer", "text", "time", "object"))
            return [_values(rng, inner) for _ in range(rng.randint(0, 3))]
        case "object":
            keys = rng.sample(("a", "b", "c", ""), rng.randint(0, 3))
            return {
                key: _values(rng, {"a": "integer", "b": "time", "c": "text"}.get(key, "number"))
                for key in keys
            }
        case _:
            return rng.random() < 0.5


async def test_a_table_from_texts_equals_the_one_from_values() -> None:
    """Types, order of columns and values are the same, or the texts are not used."""
    rng = random.Random(drawn())
    kinds = ("integer", "number", "text", "time", "bool", "list", "object", "any")
    used = 0
    for _ in range(400):
        columns = {name: rng.choice(kinds) for name in rng.sample(("x", "y", "z", ""), rng.randint(1, 3))}
        rows = [
            {name: _values(rng, kind) for name, kind in columns.items() if rng.random() < 0.9}
            for _ in range(rng.randint(1, 6))
        ]
        texts = [orjson.dumps(data) for data in rows]
        records = [Record.stored(str(n), text, None, "1", 0, 0) for n, text in enumerate(texts)]

        table = read_records(records)

        if table is not None:
            used += 1
            expected = frames.table_of([frames.row(record) for record in records])
            assert table.schema == expected.schema, texts
            assert table.equals(expected), texts
    assert used > 100


@pytest.mark.parametrize(
    "rows",
    [
        [{"v": 2**53 + 1}, {"v": 0.5}],
        [{"v": [None, 1]}],
        [{"_id": 1}],
        [{}],
        [{"v": 1}, {"v": "1"}],
    ],
)
async def test_what_a_reader_of_texts_would_change_is_converted_by_value(rows: list[dict[str, Any]]) -> None:
    """Rounded integers, lost nulls, hidden ids and mixed types."""
    records = [Record.stored(str(n), orjson.dumps(d), None, "1", 0, 0) for n, d in enumerate(rows)]

    assert read_records(records) is None


async def test_records_that_were_read_before_become_the_same_table() -> None:
    """A change of a record's data before the conversion is in the table."""
    records = [Record.stored("a", b'{"n":1}', None, "1", 0, 0)]
    records[0].data["n"] = 2

    assert frames.table_of_records(records).to_pylist() == [{"_id": "a", "n": 2}]


async def test_a_table_read_by_the_types_of_its_first_lines_equals_the_one_from_values(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Later lines of other types, or with other keys, lead to types that hold all."""
    rng = random.Random(drawn())
    kinds = ("integer", "number", "text", "time", "bool", "list", "object", "any")
    used = 0
    for _ in range(300):
        columns = {name: rng.choice(kinds) for name in rng.sample(("x", "y", "z"), rng.randint(1, 3))}
        rows = [
            {name: _values(rng, kind) for name, kind in columns.items() if rng.random() < 0.97}
            for _ in range(rng.randint(2, 12))
        ]
        texts = [orjson.dumps(data) for data in rows]
        monkeypatch.setattr(_json_table, "SAMPLE", len(b"\n".join(texts[: len(texts) // 2])) + 1)

        table = _json_table.read_texts([str(n) for n in range(len(rows))], texts)

        if table is not None:
            used += 1
            expected = frames.table_of([{"_id": str(n), **data} for n, data in enumerate(rows)])
            assert table.schema == expected.schema, texts
            assert table.equals(expected), texts
    assert used > 50


@pytest.mark.parametrize("query", [None, Query().sort("n", "desc").limit(7), field("n") < 5])
async def test_a_table_of_texts_equals_the_one_of_the_records(tmp_path: Path, query: Any) -> None:
    """A search of ids and texts alone returns the same rows in the same order, with a limit and an offset."""
    async with await AsyncDatabase.create("sqlite", {"path": str(tmp_path / "a.db")}) as db:
        data = [{"n": n, "s": str(n), "at": "2020-01-01"} for n in range(12)]
        await db.create_batch([Record(item, id=f"{n:02}") for n, item in enumerate(data)])

        table = await frames.to_arrow(db, query)

        assert table.equals(frames.table_of_records(await db.search(query)))
