"""The sides by hand on PostgreSQL and Elasticsearch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import asyncpg
import orjson

from benchmarks.questions.asked import NAMES
from benchmarks.questions.by_hand import answer_of, statements
from benchmarks.questions.data import COLUMNS
from elasticsearch import AsyncElasticsearch

NAIVE = 'CREATE TABLE naive (id text COLLATE "C" PRIMARY KEY, data jsonb NOT NULL)'
TYPED = (
    'CREATE TABLE typed (id text COLLATE "C" PRIMARY KEY, name text COLLATE "C",'
    ' countrycode text COLLATE "C", timezone text COLLATE "C",'
    " population bigint, alternatenames text[], rest jsonb NOT NULL)"
)
NAIVE_SQL = statements(
    "naive",
    lambda column: "(data->>'population')::int" if column == "population" else f"data->>'{column}'",
    "data->>'name' ~ '^San (Jo|Ma)'",
    "data->'alternatenames' ? 'London'",
    fence=" OFFSET 0",
    row="id, data",
)
TYPED_SQL = statements(
    "typed",
    lambda column: column,
    "name ~ '^San (Jo|Ma)'",
    "alternatenames @> ARRAY['London']",
    row="id, name, countrycode, timezone, population, alternatenames, rest",
)
# Written at first thought: without a fence, and with the records in the sort.
PLAIN_SQL = {
    "group by one path": (
        "SELECT data->>'countrycode', count(*), sum((data->>'population')::int),"
        " max((data->>'population')::int) FROM naive GROUP BY 1"
    ),
    "sort + limit 20": ("SELECT id, data FROM naive ORDER BY (data->>'population')::int DESC, id LIMIT 20"),
}


async def fill(connection: asyncpg.Connection, records: Mapping[str, dict[str, Any]]) -> None:
    """Make the tables by hand again; a field that its typed column cannot hold leaves the typed one empty."""
    await connection.execute("DROP TABLE IF EXISTS naive, typed")
    await connection.execute(NAIVE)
    await connection.execute(TYPED)
    naive = ((id, orjson.dumps(data).decode()) for id, data in records.items())
    await connection.copy_records_to_table("naive", records=naive, columns=("id", "data"))
    await connection.copy_records_to_table("typed", records=typed_rows(records))
    await connection.execute("VACUUM ANALYZE naive, typed")


def typed_rows(records: Mapping[str, dict[str, Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of the typed table: the columns, and the rest of the record as JSON."""
    for id, data in records.items():
        rest = {key: value for key, value in data.items() if key not in COLUMNS}
        yield (id, *(data[column] for column in COLUMNS), orjson.dumps(rest).decode())


async def ask_sql(connection: asyncpg.Connection, question: str, sql: str) -> Any:
    """Return the answer of a statement; a stream is read through a cursor."""
    if question == "sorted stream":
        count, first, last = 0, None, None
        async with connection.transaction():
            async for row in connection.cursor(sql, prefetch=1_000):
                first, last, count = first or row[0], row[0], count + 1
        return count, first, last
    rows = [tuple(row) for row in await connection.fetch(sql)]
    return answer_of(question, rows, _name)


def _name(row: Any) -> Any:
    return orjson.loads(row[1])["name"] if row[1].startswith("{") else row[1]


MAPPING = {
    "dynamic": False,
    "properties": {
        **{name: {"type": "keyword"} for name in ("id", "name", "countrycode", "timezone", "alternatenames")},
        "population": {"type": "long"},
    },
}
_MEASURES = {"total": {"sum": {"field": "population"}}, "most": {"max": {"field": "population"}}}
_FILTERS: dict[str, Any] = {
    "count by range": {"range": {"population": {"gte": 100_000}}},
    "count by like": {"prefix": {"name": "San "}},
    "count by in": {"terms": {"name": NAMES}},
    "count by three conditions": {
        "bool": {
            "filter": [
                {"range": {"population": {"gte": 20_000}}},
                {"term": {"countrycode": "US"}},
                {"prefix": {"name": "S"}},
            ]
        }
    },
    "count by list membership": {"term": {"alternatenames": "London"}},
    "count by regex": {"regexp": {"name": "San (Jo|Ma).*"}},
}


async def fill_index(client: AsyncElasticsearch, index: str, records: Mapping[str, dict[str, Any]]) -> None:
    """Make the index by hand again."""
    await client.options(ignore_status=404).indices.delete(index=index)
    settings = {"number_of_shards": 1, "number_of_replicas": 0, "max_terms_count": 65_536}
    await client.indices.create(index=index, mappings=MAPPING, settings=settings)
    items = list(records.items())
    for start in range(0, len(items), 5_000):
        lines: list[Any] = []
        for id, data in items[start : start + 5_000]:
            lines += [{"index": {"_id": id}}, {"id": id, **data}]
        response = await client.bulk(index=index, operations=lines)
        assert not response["errors"]
    await client.indices.refresh(index=index)


async def ask_index(client: AsyncElasticsearch, index: str, question: str) -> Any:
    """Return the answer of plain queries and aggregations."""
    match question:
        case "sum":
            found = await client.search(index=index, size=0, aggs={"total": _MEASURES["total"]})
            return int(found["aggregations"]["total"]["value"])
        case "group by one path":
            terms = {"terms": {"field": "countrycode", "size": 1_000}, "aggs": _MEASURES}
            found = await client.search(index=index, size=0, aggs={"by": terms})
            return sorted(
                (b["key"], b["doc_count"], int(b["total"]["value"]), int(b["most"]["value"]))
                for b in found["aggregations"]["by"]["buckets"]
            )
        case "group by two paths":
            sources = [{name: {"terms": {"field": name}}} for name in ("countrycode", "timezone")]
            pairs = {"composite": {"size": 10_000, "sources": sources}}
            found = await client.search(index=index, size=0, aggs={"by": pairs})
            return sorted(
                (*b["key"].values(), b["doc_count"]) for b in found["aggregations"]["by"]["buckets"]
            )
        case "sort + limit 20":
            found = await client.search(index=index, size=20, sort=_order())
            return [hit["_source"]["name"] for hit in found["hits"]["hits"]]
        case "distinct":
            terms = {"terms": {"field": "timezone", "size": 10_000}}
            found = await client.search(index=index, size=0, aggs={"by": terms})
            return sorted(b["key"] for b in found["aggregations"]["by"]["buckets"])
        case "sorted stream":
            return await _stream(client, index)
        case _:
            return (await client.count(index=index, query=_FILTERS[question]))["count"]


def _order() -> list[dict[str, str]]:
    return [{"population": "desc"}, {"id": "asc"}]


async def _stream(client: AsyncElasticsearch, index: str) -> tuple[int, Any, Any]:
    count, first, last, after = 0, None, None, None
    while True:
        more = {} if after is None else {"search_after": after}
        found = await client.search(index=index, size=5_000, sort=_order(), track_total_hits=False, **more)
        hits = found["hits"]["hits"]
        if not hits:
            return count, first, last
        first, last, count, after = (
            first or hits[0]["_id"],
            hits[-1]["_id"],
            count + len(hits),
            hits[-1]["sort"],
        )
