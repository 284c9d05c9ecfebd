"""Flights in PostgreSQL tables made by plain SQL, served as they are: `python -m examples.own_tables PG ES`.

Queried through their own indexes, modified in a transaction, copied to Elasticsearch and verified.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg
from rich.console import Console

from isthmus import AsyncDatabase, InvalidRecordError, Query, field
from isthmus.transfer import copy, verify

TABLES = """
DROP SCHEMA IF EXISTS airline CASCADE;
CREATE SCHEMA airline;
CREATE TYPE airline.status AS ENUM ('planned', 'departed', 'landed', 'cancelled');
CREATE TABLE airline.flights (
  carrier char(2), number integer, day date,
  origin text NOT NULL, destination text NOT NULL, status airline.status NOT NULL DEFAULT 'planned',
  departure timestamp with time zone, delay interval, fare numeric(8, 2) CHECK (fare > 0),
  seats integer NOT NULL, sold integer NOT NULL DEFAULT 0 CHECK (sold <= seats), crew text[],
  free integer GENERATED ALWAYS AS (seats - sold) STORED,
  PRIMARY KEY (carrier, number, day)
);
CREATE INDEX flights_route ON airline.flights (origin, destination);
CREATE INDEX flights_departure ON airline.flights (departure);
INSERT INTO airline.flights (carrier, number, day, origin, destination, departure, fare, seats, sold, crew)
SELECT (ARRAY['UA', 'DL', 'AA'])[1 + n % 3], n % 900, date '2026-01-01' + n / 900,
  (ARRAY['JFK', 'LGA', 'EWR'])[1 + n % 3], (ARRAY['LAX', 'SFO', 'ORD', 'MIA'])[1 + n % 4],
  timestamptz '2026-01-01 05:00:00+00' + n * interval '97 seconds', 50 + n % 400 + 0.99, 180, n % 181,
  ARRAY['captain ' || n % 40, 'purser ' || n % 70]
FROM generate_series(1, 20000) AS n;
ANALYZE airline.flights;
"""
console = Console()


async def main(postgres: str, elasticsearch: str) -> None:
    """Make the tables by SQL, then use them."""
    owner = await asyncpg.connect(postgres)
    await owner.execute(TABLES)
    settings = {"url": postgres, "schema": "airline", "table": "flights", "layout": "native"}
    db = await AsyncDatabase.create("postgres", settings)
    try:
        await _query(db)
        await _modify(db)
        await _copy(db, elasticsearch)
    finally:
        await db.close()
        await owner.execute("DROP SCHEMA airline CASCADE")
        await owner.close()


async def _query(db: AsyncDatabase) -> None:
    console.print(f"[bold]a row is a record[/]\n{await db.find_one(field('carrier') == 'UA')}")
    route = (field("origin") == "JFK") & (field("destination") == "SFO")
    soon = Query(where=field("departure") >= "2026-01-05T00:00:00.000000Z").sort("departure").limit(3)
    console.print(f"\nJFK to SFO: {await db.count(route)} flights")
    for record in await db.search(soon):
        console.print(f"  {record.id}: {record['departure']}, {record['free']} seats free")
    console.print(await db.aggregate(route, by="carrier", flights="count", cheapest=("min", "fare")))
    for query in (Query(where=route), soon, Query(where=field("_id") == '["UA",3,"2026-01-01"]')):
        plan = await db.explain(query)
        console.print(f"  index used: [green]{plan.index}[/]")


async def _modify(db: AsyncDatabase) -> None:
    flight = (await db.search(Query(where=field("free") > 10).limit(1)))[0].id or ""
    async with db.transaction() as tx:
        await tx.modify(flight, field("sold").inc(2), where=field("free") >= 2)
        await tx.update(flight, {"status": "departed", "delay": "00:12:00"})
    console.print(f"\n[bold]two seats sold in a transaction[/]\n{(await db.require(flight)).data}")
    try:
        await db.modify(flight, field("sold").inc(1_000))
    except InvalidRecordError as error:
        console.print(f"[red]refused[/]: {error}")


async def _copy(db: AsyncDatabase, elasticsearch: str) -> None:
    target = await AsyncDatabase.create(
        "elasticsearch", {"url": elasticsearch, "index": "airline", "replicas": 0}
    )
    try:
        await target.clear()
        receipt = await copy(db, target)
        same = await verify(db, target)
        console.print(f"\n[bold]copied {receipt.written} flights to Elasticsearch[/], equal: {same.equal}")
        late = field("status") == "departed"
        console.print(f"departed, here and there: {await db.count(late)} and {await target.count(late)}")
    finally:
        await target.clear()
        await target.close()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
