"""A copy has every record once, in bounded memory, and goes on where it was."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from isthmus import (
    AsyncDatabase,
    BatchError,
    ConfigError,
    ConnectError,
    InvalidRecordError,
    Query,
    QueryError,
    Record,
    UnavailableError,
    UsageError,
    field,
)
from isthmus.transfer import Progress, copy, verify
from tests.transfer.conftest import FastClock, Open

pytestmark = [pytest.mark.asyncio, pytest.mark.backend("sqlite")]

ODD: list[dict[str, Any]] = [
    {"": "empty key", "a.b": 1, "id": "data, not the id"},
    {"n": 2**63 - 1, "m": -(2**63), "f": 1e300, "tiny": 5e-324, "half": 0.5, "whole": 1.0},
    {"list": [1, [2, None], {"x": []}], "null": None, "empty": {}},
    {"text": "\U0001f600 \u2028 \\ ' \" %_", "long": "x" * 50_000},
    {},
]


async def fill(store: AsyncDatabase, count: int) -> None:
    await store.create_batch([Record({"n": i, "even": i % 2 == 0}, id=f"k{i:06}") for i in range(count)])


class Failing:
    """A target that fails as it is told and else is the store it stands before."""

    def __init__(self, store: AsyncDatabase, failures: Sequence[Exception | None]) -> None:
        self._store = store
        self._failures = list(failures)
        self.batches: list[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def upsert_batch(self, records: list[Record], **options: Any) -> Any:
        failure = self._failures.pop(0) if self._failures else None
        if failure is not None:
            raise failure
        self.batches.append([record.id or "" for record in records])
        return await self._store.upsert_batch(records, **options)


async def test_a_copy_is_equal_to_its_source(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """Odd ids, odd values and metadata arrive as they are; the digest is the verified one."""
    ids = ["a", "A", "z/../%", "\U0001f600", "é", "e\u0301", " ", "0", "x" * 512]
    await source.create_batch(
        [Record(ODD[i % len(ODD)], id=id, metadata={"i": i, "m": None}) for i, id in enumerate(ids)]
    )

    receipt = await copy(source, target, page_size=2)

    assert await target.search() == await source.search()
    compared = await verify(source, target)
    assert compared.equal
    assert receipt.digest == compared.source == compared.target
    assert (receipt.read, receipt.written, receipt.rejected) == (9, 9, 0)


async def test_a_query_chooses_what_is_copied(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """Only matching records are copied, and a limit takes the first ids."""
    await fill(source, 100)

    receipt = await copy(source, target, Query().filter("even", "=", True).limit(30), page_size=7)

    assert receipt.read == 30
    assert [r.id for r in await target.search()] == [f"k{i:06}" for i in range(0, 60, 2)]


async def test_an_order_or_offset_is_refused(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """Ranges of ids have neither."""
    for query in (Query().sort("n"), Query().offset(1)):
        with pytest.raises(QueryError):
            await copy(source, target, query)


async def test_an_empty_source_is_copied(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """Nothing to copy is no error, resumed or not."""
    journal = tmp_path / "journal"

    for resume in (False, True):
        receipt = await copy(source, target, journal=journal, resume=resume)
        assert (receipt.read, receipt.written) == (0, 0)


async def test_fields_are_renamed_and_left_out_and_the_hook_has_the_last_word(
    source: AsyncDatabase, target: AsyncDatabase
) -> None:
    """Two fields may change places; a hook may be async and may leave records out."""
    await source.create_batch(
        [Record({"a": i, "b": {"c": -i}, "secret": "x"}, id=f"{i}", metadata={"m": i}) for i in range(5)]
    )

    async def hook(record: Record) -> Record | None:
        await asyncio.sleep(0)
        if record["a"] == -3:
            return None
        when = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
        return Record({**record.data, "at": when}, metadata=record.metadata)

    fields = {"a": "b.c", "b.c": "a", "secret": None}
    receipt = await copy(source, target, fields=fields, transform=hook)

    found = await target.search()
    assert [r.id for r in found] == ["0", "1", "2", "4"]
    assert found[1].data == {"a": -1, "b": {"c": 1}, "at": "2024-01-01T00:00:00.000000Z"}
    assert found[1].metadata == {"m": 1}
    assert (receipt.read, receipt.written, receipt.left_out) == (5, 4, 1)
    compared = await verify(source, target, fields=fields, transform=hook)
    assert compared.equal
    assert compared.target == receipt.digest


async def test_a_copy_goes_on_after_the_last_acknowledged_range(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """What was acknowledged is not sent again, the rest is, and the receipt covers both runs."""
    await fill(source, 100)
    journal = tmp_path / "journal"
    broken = Failing(target, [None, None, None, QueryError("the end")])
    with pytest.raises(QueryError):
        await copy(source, broken, journal=journal, page_size=10)  # type: ignore[arg-type]
    whole = Failing(target, [])

    receipt = await copy(source, whole, journal=journal, resume=True, page_size=10)  # type: ignore[arg-type]

    assert [batch[0] for batch in broken.batches] == ["k000000", "k000010", "k000020"]
    assert [batch[0] for batch in whole.batches] == [f"k{i:06}" for i in range(30, 100, 10)]
    assert (receipt.read, receipt.written, receipt.earlier) == (100, 100, 30)
    assert receipt.resumed_at == "k000029"
    compared = await verify(source, target)
    assert compared.equal
    assert receipt.digest == compared.target


async def test_a_copy_goes_on_by_cursor_and_by_id_if_the_cursor_is_no_longer_good(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """A journal of a run with another cursor_secret still says where to go on."""
    await fill(source, 50)
    asked: list[Any] = []

    class Watched(Failing):
        async def page(self, query: Query, **options: Any) -> Any:
            asked.append((query.where, options["cursor"]))
            return await self._store.page(query, **options)

    for damage in (False, True):
        journal = tmp_path / f"journal-{damage}"
        with pytest.raises(QueryError):
            broken = Failing(target, [None, None, QueryError("the end")])
            await copy(Watched(source, []), broken, journal=journal, page_size=10)  # type: ignore[arg-type]
        if damage:
            journal.write_bytes(journal.read_bytes().replace(b'"cursor":"', b'"cursor":"x'))
        asked.clear()

        receipt = await copy(
            Watched(source, []),  # type: ignore[arg-type]
            Failing(target, []),  # type: ignore[arg-type]
            journal=journal,
            resume=True,
            page_size=10,
        )

        assert (receipt.earlier, receipt.read) == (20, 50)
        assert (asked[1][0] == Query().where) is not damage
        assert receipt.digest == (await verify(source, target)).target


async def test_a_cancelled_copy_leaves_a_journal_to_go_on_with(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """Cancelled at each acknowledged range in turn, a copy ends with each record once."""
    await fill(source, 60)
    journal = tmp_path / "journal"

    running: list[asyncio.Task[Any]] = []

    def cancel(progress: Progress) -> None:
        if progress.done < 60:
            running[-1].cancel()

    for _ in range(20):
        running.append(
            asyncio.ensure_future(
                copy(source, target, journal=journal, resume=True, page_size=5, progress=cancel)
            )
        )
        try:
            receipt = await running[-1]
            break
        except asyncio.CancelledError:
            pass

    assert len(running) == 12
    assert receipt.read == 60
    assert receipt.digest == (await verify(source, target)).target
    assert await target.count() == 60


async def test_a_torn_last_line_is_dropped(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """A kill in the middle of a line costs that range only."""
    await fill(source, 50)
    journal = tmp_path / "journal"
    await copy(source, target, journal=journal, page_size=10)
    text = journal.read_bytes()
    journal.write_bytes(text[:-7])

    receipt = await copy(source, target, journal=journal, resume=True, page_size=10)

    assert receipt.earlier == 40
    assert receipt.read == 50
    assert [orjson.loads(line) for line in journal.read_bytes().splitlines()]
    assert receipt.digest == (await verify(source, target)).target


async def test_a_journal_fits_only_its_own_copy(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """Another target, query or shape is refused, and so is a second start over a copy that has begun."""
    await fill(source, 10)
    journal = tmp_path / "journal"
    await copy(source, target, journal=journal)
    text = journal.read_bytes()

    with pytest.raises(UsageError, match="resume"):
        await copy(source, target, journal=journal)
    with pytest.raises(ConfigError, match="query"):
        await copy(source, target, field("n") > 3, journal=journal, resume=True)
    with pytest.raises(ConfigError, match="shape"):
        await copy(source, target, journal=journal, resume=True, fields={"n": "m"})
    with pytest.raises(ConfigError, match="target"):
        await copy(source, target.collection("other"), journal=journal, resume=True)
    with pytest.raises(UsageError, match="journal"):
        await copy(source, target, resume=True)

    assert journal.read_bytes() == text


@pytest.mark.parametrize("text", [b"hello\n", b'{"a": 1}\n', b'[1]\n{"to": 1}\n'])
async def test_a_file_that_is_no_journal_is_left_alone(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path, text: bytes
) -> None:
    """A wrong file name destroys nothing."""
    journal = tmp_path / "notes.txt"
    journal.write_bytes(text)

    with pytest.raises(ConfigError, match="not the journal"):
        await copy(source, target, journal=journal, resume=True)

    assert journal.read_bytes() == text


async def test_two_copies_cannot_share_a_journal(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """The second one is told so and does nothing."""
    await fill(source, 20)
    journal = tmp_path / "journal"
    refused: list[str] = []

    async def second(record: Record) -> Record:
        if not refused:
            refused.append("")
            with pytest.raises(UsageError, match="another copy") as caught:
                await copy(source, target, journal=journal, resume=True, transform=second)
            refused.append(str(caught.value))
        return record

    await copy(source, target, journal=journal, transform=second)

    assert len(refused) == 2


async def test_a_copy_into_memory_begins_anew(source: AsyncDatabase, tmp_path: Path) -> None:
    """A store that forgets is not trusted to have what it acknowledged."""
    await fill(source, 20)
    journal = tmp_path / "journal"
    async with AsyncDatabase("memory") as first:
        await copy(source, first, journal=journal)

    async with AsyncDatabase("memory") as second:
        receipt = await copy(source, second, journal=journal, resume=True)

        assert await second.count() == 20
    assert receipt.earlier == 0


async def test_a_passing_failure_is_waited_out(
    source: AsyncDatabase, target: AsyncDatabase, clock: FastClock
) -> None:
    """Transient errors are tried again, after as long as the store asks; others end the copy."""
    await fill(source, 10)
    busy = Failing(target, [ConnectError("gone"), UnavailableError("busy", retry_after=7.0)])

    receipt = await copy(source, busy, clock=clock)  # type: ignore[arg-type]

    assert receipt.written == 10
    assert clock.slept == [0.2, 7.0]


async def test_a_store_that_stays_away_ends_the_copy(
    source: AsyncDatabase, target: AsyncDatabase, clock: FastClock
) -> None:
    """After some attempts the store's own error is raised."""
    await fill(source, 10)

    with pytest.raises(ConnectError):
        await copy(source, Failing(target, [ConnectError("gone")] * 50), clock=clock)  # type: ignore[arg-type]

    assert 3 < len(clock.slept) < 20


async def test_refused_records_stop_the_copy_or_are_named(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """`stop` acknowledges nothing of the range; `skip` writes the good ones and names the rest."""
    await fill(source, 30)

    def spoil(record: Record) -> Record:
        return Record({"bad": float("nan")}) if record["n"] % 10 == 4 else record

    with pytest.raises(BatchError, match="k000014"):
        await copy(
            source,
            target,
            field("n") >= 10,
            transform=spoil,
            page_size=10,
            journal=tmp_path / "journal",
        )
    receipt = await copy(source, target, transform=spoil, page_size=10, on_error="skip")

    assert len((tmp_path / "journal").read_bytes().splitlines()) == 1
    assert [r.id for r in receipt.rejections] == ["k000004", "k000014", "k000024"]
    assert all(isinstance(r.error, InvalidRecordError) for r in receipt.rejections)
    assert (receipt.read, receipt.written, receipt.rejected) == (30, 27, 3)
    assert await target.count() == 27


async def test_a_dry_run_writes_nothing_and_tells_what_would_be(
    source: AsyncDatabase, target: AsyncDatabase, tmp_path: Path
) -> None:
    """Records to create, to change and the same ones are counted; there is no journal."""
    await fill(source, 10)
    await target.create_batch([Record({"n": 0, "even": True}, id="k000000"), Record({}, id="k000001")])

    receipt = await copy(source, target, dry_run=True, journal=tmp_path / "journal")

    assert (receipt.would_create, receipt.would_change, receipt.unchanged) == (8, 1, 1)
    assert receipt.written == 0
    assert await target.count() == 2
    assert not (tmp_path / "journal").exists()


async def test_throttle_holds_the_rate(
    source: AsyncDatabase, target: AsyncDatabase, clock: FastClock
) -> None:
    """A thousand records at a hundred a second take ten seconds; progress tells rate and time left."""
    await fill(source, 1_000)
    seen: list[Progress] = []

    receipt = await copy(source, target, throttle=100, clock=clock, page_size=100, progress=seen.append)

    assert receipt.seconds == pytest.approx(10)
    assert [p.done for p in seen] == list(range(100, 1001, 100))
    assert seen[4].rate == pytest.approx(100)
    assert seen[4].left == pytest.approx(5)
    assert seen[-1].left == 0


async def test_the_next_page_is_read_while_this_one_is_written_and_no_more(
    source: AsyncDatabase, target: AsyncDatabase
) -> None:
    """A slow target holds back the reading: back-pressure, so memory stays bounded."""
    await fill(source, 100)
    reads: list[int] = []
    gate = asyncio.Event()

    class Counted(Failing):
        async def page(self, *args: Any, **options: Any) -> Any:
            page = await self._store.page(*args, **options)
            reads.append(len(page.records))
            if len(reads) == 2:
                gate.set()
            return page

    class Slow(Failing):
        async def upsert_batch(self, records: list[Record], **options: Any) -> Any:
            await gate.wait()  # the second page is read although the first is not written
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(reads) <= len(self.batches) + 2
            return await super().upsert_batch(records, **options)

    slow = Slow(target, [])
    await copy(Counted(source, []), slow, page_size=10)  # type: ignore[arg-type]

    assert len(slow.batches) == 10


async def test_large_records_make_small_pages(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """A page is cut by bytes, so memory does not grow with the size of records."""
    await source.create_batch([Record({"x": "y" * 100_000}, id=f"{i:04}") for i in range(700)])
    watched = Failing(target, [])

    await copy(source, watched)  # type: ignore[arg-type]

    assert max(map(len, watched.batches[1:])) <= 45
    assert sum(map(len, watched.batches)) == 700


async def test_a_store_that_cannot_sort_by_id_is_read_in_one_scan(target: AsyncDatabase) -> None:
    """Where pages in order cannot be had from the store, the order is made once and not per page."""
    async with AsyncDatabase("memory") as store:
        await fill(store, 50)
        fetches: list[Any] = []

        class Unsorted(Failing):
            async def explain(self, query: Any) -> Any:
                return type("Plan", (), {"order_pushed": False})()

            async def page(self, *args: Any, **options: Any) -> Any:
                fetches.append(args)
                raise AssertionError("a page would be a scan")

        receipt = await copy(Unsorted(store, []), target, page_size=7)  # type: ignore[arg-type]

        assert receipt.written == 50
        assert (await verify(store, target)).equal


async def test_bad_arguments_are_refused(source: AsyncDatabase, target: AsyncDatabase) -> None:
    """A call that cannot mean anything says so."""
    for options in ({"on_error": "ignore"}, {"in_flight": 0}, {"page_size": 0}, {"throttle": 0}):
        with pytest.raises(UsageError):
            await copy(source, target, **options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="same name"):
        await copy(source, target, fields={"a": "c", "b": "c"})


async def test_records_pass_undecoded_where_digests_are_not_wanted(
    source: AsyncDatabase, target: AsyncDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between stores that keep our text as it is, nobody looks into it."""
    await source.create_batch([Record(data, id=f"{i}", metadata={"i": i}) for i, data in enumerate(ODD)])

    def looked(self: Record) -> Any:
        raise AssertionError("a record was decoded")

    with monkeypatch.context() as patched:
        patched.setattr(Record, "data", property(looked))
        patched.setattr(Record, "metadata", property(looked))
        receipt = await copy(source, target, digests=False)

    assert receipt.digest is None
    assert (await verify(source, target)).equal


async def test_several_ranges_in_flight_are_acknowledged_in_order(opened: Open, tmp_path: Path) -> None:
    """A range is noted only when all before it are taken, so a kill never skips."""
    source, target = await opened("a"), await opened("b")
    await fill(source, 100)

    class Uneven(Failing):
        async def upsert_batch(self, records: list[Record], **options: Any) -> Any:
            first = int((records[0].id or "k0")[1:])
            for _ in range(100 - first):  # earlier ranges take longer
                await asyncio.sleep(0)
            if first == 20:
                raise QueryError("the third range fails")
            return await super().upsert_batch(records, **options)

    journal = tmp_path / "journal"
    with pytest.raises(QueryError):
        await copy(source, Uneven(target, []), journal=journal, page_size=10, in_flight=4)  # type: ignore[arg-type]

    noted = [orjson.loads(line)["to"] for line in journal.read_bytes().splitlines()[1:]]
    assert noted == ["k000009", "k000019"]
