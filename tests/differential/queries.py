"""The run of queries: load a set of records, ask many things, compare each answer with the evaluator's."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import multiprocessing
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from isthmus import AsyncDatabase, Query
from isthmus._query.ast import SortKey
from isthmus._query.order import sort_records
from isthmus._record import Record
from isthmus._values import same
from isthmus.errors import IsthmusError, QueryError
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import RecordSet, everyday_set, nasty_set
from tests.differential.checks import Check, make
from tests.differential.declared import random_columns, random_indexes
from tests.differential.repeated import operands_in, repeats
from tests.differential.shrink import as_test, shrunk
from tests.differential.tally import Tally
from tests.stores import Declared, Store

QUERIES_PER_SET = 200


@dataclass(slots=True)
class Report:
    """What a run found."""

    tally: Tally
    seconds: float = 0.0
    sets: int = 0
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Raised:
    """The answer of a call that raised."""

    error: str


@dataclass(frozen=True, slots=True)
class Plan:
    """Which queries to run; every set of records and queries comes from the seed and its number."""

    n: int
    seed: int
    everyday: bool = False
    per_set: int = QUERIES_PER_SET
    stop_after: int = 3
    shrinks: bool = True

    def sets(self) -> Iterator[tuple[int, int]]:
        """Yield the numbers of the sets, and how many queries each gets."""
        for number in range(-(-self.n // self.per_set)):
            yield number, min(self.per_set, self.n - number * self.per_set)


async def run(store: Store, plan: Plan, *, job: int = 0, jobs: int = 1, log: TextIO = sys.stderr) -> Report:
    """Run every `jobs`-th set from `job` on, until so many differ."""
    report = Report(Tally(everyday_only=plan.everyday))
    started = time.perf_counter()
    for number, wanted in itertools.islice(plan.sets(), job, None, jobs):
        rng = random.Random(f"{plan.seed}/{number}")
        records = everyday_set(rng) if plan.everyday or number % 2 else nasty_set(rng)
        case = await _one_set(store, rng, records, wanted, report.tally)
        report.sets += 1
        if case is not None:
            print(f"difference in set {number} of seed {plan.seed}; shrinking…", file=log)
            report.failures.append(await _told(store, *case) if plan.shrinks else str(case[1]))
            if len(report.failures) >= plan.stop_after:
                break
    report.seconds = time.perf_counter() - started
    return report


def run_in_processes(store: Store, plan: Plan, jobs: int) -> Report:
    """Run in that many processes at once; the sets are the same as in one."""
    if jobs == 1:
        return asyncio.run(run(store, plan))
    started = time.perf_counter()
    whole = Report(Tally(everyday_only=plan.everyday))
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(jobs, mp_context=context) as processes:
        for part in processes.map(_job, itertools.repeat((store, plan, jobs)), range(jobs)):
            whole.tally.merge(part.tally)
            whole.sets += part.sets
            whole.failures += part.failures
    whole.seconds = time.perf_counter() - started
    return whole


def _job(common: tuple[Store, Plan, int], job: int) -> Report:
    store, plan, jobs = common
    return asyncio.run(run(store, plan, job=job, jobs=jobs))


async def _one_set(
    store: Store, rng: random.Random, records: RecordSet, wanted: int, tally: Tally
) -> tuple[Sequence[Record], Check, Declared] | None:
    """Run queries on one set; return the first case that differs."""
    indexes = random_indexes(rng, store.backend, records.records)
    columns = random_columns(rng, store.backend, list(records.records), indexed=indexes)
    declared = {**indexes, **columns}
    async with store.fresh(declared) as db:
        stored = await load(db, records.records)
        maker = QueryMaker(rng, records, stored)
        support = db._backend.support(db.collection_name)
        chance, operands = random.Random(wanted), operands_in(stored)
        for number in range(wanted):
            made = maker.generate()
            check = make(rng, maker, made)
            tally.add(check.verb, made, len(stored), support, everyday=records.everyday)
            if number == wanted - 1 and made.comparisons and db.capabilities.writes:
                check = Check("delete_where", Query(where=made.predicate))
            if await differs(db, stored, check, made.matching) is not None:
                return records.records, check, declared
            for again in repeats(chance, check, operands):
                tally.repeated += 1
                if await differs(db, stored, again) is not None:
                    return records.records, again, declared
    return None


async def load(db: AsyncDatabase, records: Sequence[Record]) -> list[Record]:
    """Store the records, and return them as they were read back, which must be equal."""
    await db.create_batch([Record(r.data, id=r.id, metadata=r.metadata) for r in records])
    stored = await db.search()
    by_id = {record.id: record for record in stored}
    assert len(by_id) == len(stored) == len(records), f"stored {len(records)} records, read {len(stored)}"
    for record in records:
        back = by_id.get(record.id)
        assert back is not None, f"lost {record.id!r}"
        assert same(back.data, record.data), f"stored {record!r}, read {back!r}"
        assert same(back.metadata, record.metadata), f"stored {record!r}, read {back!r}"
    return stored


async def differs(
    db: AsyncDatabase, stored: Sequence[Record], check: Check, matching: Sequence[Record] | None = None
) -> tuple[Any, Any] | None:
    """Return the expected and the actual answer if they are not the same."""
    if (answers := await compare(db, stored, check, matching)) is not None:
        return answers
    if check.verb == "delete_where":
        left = type(check)("search", Query(), id_key=check.id_key)
        kept = [
            r for r in stored if r.id not in {row[0] for row in Check("search", check.query).expected(stored)}
        ]
        return await differs(db, kept, left)
    return None


async def compare(
    db: AsyncDatabase,
    stored: Sequence[Record],
    check: Check,
    matching: Sequence[Record] | None = None,
    *,
    sort: Callable[[Sequence[Record], tuple[SortKey, ...]], list[Record]] = sort_records,
) -> tuple[Any, Any] | None:
    """Return what the evaluator and the store answer to one call, if they are not the same.

    A sum beyond the floats is an error of both, with the same text.
    """
    expected: Any
    actual: Any
    try:
        expected = check.expected(stored, matching, sort=sort)
    except QueryError as error:
        expected = _raised(error)
    try:
        actual = await check.actual(db)
    except IsthmusError as error:
        actual = _raised(error)
    if isinstance(expected, Raised) or isinstance(actual, Raised):
        agree = expected == actual
    else:
        agree = check.agree(stored, expected, actual)
    return None if agree else (expected, actual)


def _raised(error: IsthmusError) -> Raised:
    return Raised(f"{type(error).__name__}: {error}")


async def _told(store: Store, records: Sequence[Record], check: Check, declared: Declared) -> str:
    """Return the failing case, made small, as a test."""

    async def fails(some: Sequence[Record], asked: Check) -> bool:
        return await outcome(store, some, asked, declared) is not None

    some, asked = await shrunk(records, check, fails)
    seen = await outcome(store, some, asked, declared)
    if seen is None:  # it does not fail when loaded again: the store's history matters
        told = ("see the run", "see the run")
        return "not reproducible alone:\n" + as_test(store.name, records, check, told, declared)
    if declared and (plainly := await outcome(store, some, asked)) is not None:
        return as_test(store.name, some, asked, plainly)
    return as_test(store.name, some, asked, seen, declared)


async def outcome(
    store: Store, records: Sequence[Record], check: Check, declared: Declared | None = None
) -> tuple[Any, Any] | None:
    """Load the records into a fresh collection and return the two answers if they differ."""
    async with store.fresh(declared) as db:
        try:
            stored = await load(db, records)
        except AssertionError as error:
            return "equal records back", str(error)
        return await differs(db, stored, check)


def lines(report: Report, *, exact_required: bool) -> Iterator[str]:
    """Yield the report of a run for people."""
    tally = report.tally
    yield tally.table()
    yield "verbs: " + ", ".join(f"{verb} {count}" for verb, count in sorted(tally.verbs.items()))
    yield f"{tally.repeated} queries more with other operands"
    share = tally.exact_share
    yield f"EXACT leaves on everyday queries: {'none asked' if share is None else f'{share:.2%}'}"
    yield f"queries that select some but not all: {tally.some / max(tally.queries, 1):.1%}"
    yield (
        f"{tally.queries} queries on {report.sets} sets in {report.seconds:.1f} s:"
        f" {len(report.failures)} differences"
    )
    for short in tally.shortcomings(exact_required=exact_required):
        yield f"falls short: {short}"
