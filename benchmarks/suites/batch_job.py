"""A batch job: load, total by city, double the scores of a tenth, delete another tenth, read the rest."""

from __future__ import annotations

from typing import Any

import orjson

from benchmarks.data import document, name_of
from benchmarks.harness import Row, Timer, measure
from benchmarks.rivals.client import Rival
from benchmarks.suites.postgres import COLUMNS, TABLE
from isthmus import AsyncDatabase, Record, field

SIZE = 20_000
CHUNK = 5_000
LEFT = SIZE - SIZE // 10


async def row(url: str, pool: Any, rival: Rival) -> Row:
    """Run the job by isthmus, by hand on asyncpg, and by the rival."""
    db = await AsyncDatabase.create("postgres", {"url": url, "table": "scenario_batch"})
    data = [document(n) for n in range(SIZE)]
    made = [Record(d, id=name_of(n)) for n, d in enumerate(data)]
    answers: set[tuple[float, ...]] = set()

    async def ours() -> float:
        await db.clear()
        with Timer() as timer:
            for start in range(0, SIZE, CHUNK):
                await db.create_batch(made[start : start + CHUNK])
            totals = await db.aggregate(by="city", total=("sum", "score"))
            found = await db.search(field("group") == 3)
            await db.update_batch((record.id or "", {"score": record["score"] * 2}) for record in found)
            await db.delete_where(field("group") == 7)
            seen, score = 0, 0.0
            async for record in db.stream():
                seen += 1
                score += record["score"]
        assert seen == LEFT
        answers.add((score, *sorted(line["total"] for line in totals)))
        return timer.seconds

    async def bare() -> float:
        async with pool.acquire() as connection:
            await connection.execute(TABLE)
            with Timer() as timer:
                totals, seen, score = await _by_hand(connection, data)
        assert seen == LEFT
        answers.add((score, *sorted(totals)))
        return timer.seconds

    rivals = rival.side("batch", backend="postgres", n=SIZE, chunk=CHUNK)
    done = await measure("batch job of 20,000", {"ours": ours, "bare": bare, "rival": rivals}, rounds=3)
    assert len(answers) <= 1, "ours and the bare driver differ"
    await db.clear()
    await db.close()
    return done


async def _by_hand(connection: Any, data: list[dict[str, Any]]) -> tuple[list[float], int, float]:
    for start in range(0, SIZE, CHUNK):
        some = data[start : start + CHUNK]
        encoded = [(name_of(d["seq"]), orjson.dumps(d).decode()) for d in some]
        await connection.copy_records_to_table("bare", records=encoded, columns=COLUMNS)
    totals = await connection.fetch(
        "SELECT data->>'city', sum((data->'score')::float) AS total FROM bare GROUP BY 1"
    )
    found = await connection.fetch("SELECT id, data FROM bare WHERE data->'group' = '3' ORDER BY id")
    changed = []
    for line in found:
        score = orjson.loads(line["data"])["score"] * 2
        changed.append((line["id"], orjson.dumps({"score": score}).decode()))
    async with connection.transaction():
        await connection.execute("CREATE TEMP TABLE staged (id text, data jsonb) ON COMMIT DROP")
        await connection.copy_records_to_table("staged", records=changed, columns=COLUMNS)
        await connection.execute(
            "UPDATE bare SET data = bare.data || staged.data, version = version + 1, updated_at = now()"
            " FROM staged WHERE bare.id = staged.id"
        )
    await connection.execute("DELETE FROM bare WHERE data->'group' = '7'")
    seen, sum_, after = 0, 0.0, ""
    statement = "SELECT id, data FROM bare WHERE id > $1 ORDER BY id LIMIT 2000"
    while page := await connection.fetch(statement, after):
        seen, after = seen + len(page), page[-1]["id"]
        sum_ += sum(orjson.loads(line["data"])["score"] for line in page)
    return [line["total"] for line in totals], seen, sum_
