"""Programs of operations, run on a real backend and on memory: every answer and the end state must agree."""

from __future__ import annotations

import random
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TextIO

from isthmus import AsyncDatabase, Query, Record
from isthmus import field as query_field
from isthmus._collection import CollectionMethods
from isthmus._core.capabilities import Capabilities
from isthmus._path import Path, Root
from isthmus._query.codec import from_json, to_json
from isthmus._value import replace
from isthmus._values import same
from isthmus.errors import BatchError, IsthmusError, NotWrittenError
from isthmus.testing.queries import QueryMaker
from isthmus.testing.records import RecordSet, nasty_set
from tests.differential import streams
from tests.differential.changes import build_changes, modify_apart, random_changes
from tests.differential.checks import Check, make
from tests.differential.declared import random_columns
from tests.differential.followers import Follower
from tests.differential.shorter import as_test, shrink
from tests.differential.unique import comparable, declare, random_groups
from tests.stores import Declared, Store, store_of

STEPS = 30
# Times, versions and the ids that the library makes are not the same on both sides.
_ATTRIBUTES = (Path(Root.METADATA, ("source",)), Path(Root.METADATA, ("n",)))
_INVALID = "an id of its own"
_MADE = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}").fullmatch
_WRITES = ("create", "replace", "update", "upsert", "delete")
_MODIFIES = ("modify", "modify", "modify_batch", "update_where")
_BATCHES = ("create_batch", "replace_batch", "update_batch", "upsert_batch", "delete_batch")


@dataclass(frozen=True)
class Step:
    """One call. Ids are texts, or numbers for ids that the library made; versions are words."""

    verb: str
    items: tuple[tuple[Any, ...], ...] = ()
    """Of writes: id, data, metadata and which version (None, "current", "stale", "bogus").

    A text in place of data is the id of a record that is read and given; what would be metadata is
    then set in its data. Of modifications: id, changes, condition as JSON or None, and which version;
    `update_where` has one item without an id. Of `unique`: groups of fields, by their keys.
    """
    atomic: bool = False
    check: Check | None = None
    steps: tuple[Step, ...] = ()
    commits: bool = True


class _RolledBack(Exception):
    """Ends a transaction or savepoint that is to be undone."""


class Side:
    """One of the two databases, with its own names for ids and versions.

    With `apart` each modification of a batch is a call of its own, which is what a batch means.
    """

    def __init__(self, db: AsyncDatabase, *, apart: bool = False) -> None:
        self.db = db
        self._apart = apart
        self._made: list[str] = []
        self._versions: dict[str, list[str]] = {}

    async def answer(self, step: Step, target: CollectionMethods) -> Any:
        """Run a step and return its answer without anything that differs between the sides."""
        try:
            return await self._run(step, target)
        except BatchError as error:
            return ["BatchError", [self._outcome(o) for o in error.outcomes]]
        except IsthmusError as error:
            return [type(error).__name__, self._name(getattr(error, "record_id", None))]

    async def state(self) -> list[Any]:
        """Return all records as they are now, ids by their names."""
        return [[self._name(r.id), r.data, r.metadata] for r in await self.db.search()]

    async def _run(self, step: Step, target: CollectionMethods) -> Any:
        if step.check is not None:
            return self._named(await step.check.actual(target), step.check.verb)  # type: ignore[arg-type]
        match step.verb:
            case "transaction" | "savepoint":
                return await self._block(step, target)
            case "scope":
                scoped = self.db.scope(query_field("tenant") == "x")
                return [await self.answer(inner, scoped) for inner in step.steps]
            case "unique":
                return await declare(self.db, step.items)
            case "clear":
                return await target.clear()
            case "get":
                return self._record(await target.get(self._id(step.items[0][0])))
            case "get_batch":
                ids = [self._id(item[0]) for item in step.items]
                return [self._record(record) for record in await target.get_batch(ids)]
            case "stream_write":
                records = [self._given(item) for item in step.items]
                receipt = await target.stream_write(records, upsert=True, batch_size=3, on_error="collect")
                return [receipt.written, receipt.failed, sorted(receipt.errors)]
        if step.verb in _BATCHES:
            return await self._batch(step, target)
        if step.verb in _MODIFIES:
            return await self._modify(step, target)
        return await self._write(step, target)

    async def _block(self, step: Step, target: CollectionMethods) -> list[Any]:
        answers: list[Any] = []
        opening: Any = self.db.transaction() if step.verb == "transaction" else target.savepoint()  # type: ignore[attr-defined]
        try:
            async with opening as inside:
                answers += [await self.answer(inner, inside) for inner in step.steps]
                if not step.commits:
                    raise _RolledBack
        except _RolledBack:
            answers.append("rolled back")
        return answers

    async def _write(self, step: Step, target: CollectionMethods) -> Any:
        id, data, metadata, which = step.items[0]
        if step.verb == "create":
            made = await target._insert(self._given(step.items[0]))
            if id is None:
                self._made.append(made)
            await self._seen(made, target)
            return self._name(made)
        name = self._id(id)
        version = await self._version(name, which, target)
        if step.verb == "delete":
            return await target.delete(name, if_version=version)
        record = await self._source(data, metadata, target)
        verb = {"replace": target.replace, "update": target.update, "upsert": target.upsert}[step.verb]
        written = await verb(name, record, if_version=version)  # type: ignore[operator]
        stored = await self._seen(name, target)
        # The version that a write returns is the one that the record then has.
        return ["written", stored is not None and stored.version == written]

    async def _batch(self, step: Step, target: CollectionMethods) -> Any:
        if step.verb == "create_batch":
            outcomes: Any = await target.create_batch(
                [self._given(item) for item in step.items], on_error="collect", atomic=step.atomic
            )
            for item, outcome in zip(step.items, outcomes, strict=True):
                if item[0] is None and isinstance(outcome, str):
                    self._made.append(outcome)
        elif step.verb == "delete_batch":
            ids = [self._id(item[0]) for item in step.items]
            outcomes = await target.delete_batch(ids, on_error="collect", atomic=step.atomic)
            return [self._outcome(outcome) for outcome in outcomes]
        else:
            items = []
            for id, data, metadata, which in step.items:
                version = await self._version(self._id(id), which, target)
                items.append((self._id(id), await self._source(data, metadata, target), version))
            verb = getattr(target, step.verb)
            outcomes = await verb(items, on_error="collect", atomic=step.atomic)
        for item in step.items:
            if item[0] is not None:
                await self._seen(self._id(item[0]), target)
        errors = [outcome for outcome in outcomes if isinstance(outcome, IsthmusError)]
        if step.atomic and len(errors) == len(outcomes) and any(item[0] == _INVALID for item in step.items):
            # Which of several reasons is reported is the backend's choice; that there is one is not.
            return ["refused", any(not isinstance(error, NotWrittenError) for error in errors)]
        return [
            self._outcome(outcome, named=item[0] is not None) if outcome in errors else "written"
            for item, outcome in zip(step.items, outcomes, strict=True)
        ]

    async def _modify(self, step: Step, target: CollectionMethods) -> Any:
        if step.verb == "update_where":
            [(_, changes, condition, _)] = step.items
            try:
                return await target.update_where(from_json(condition), *build_changes(changes))
            except BatchError as error:  # which come in the order of a scan
                kinds = [str(self._outcome(o)) for o in error.outcomes if not isinstance(o, NotWrittenError)]
                return ["BatchError", sorted(kinds)]
        if step.verb == "modify":
            [(id, changes, condition, which)] = step.items
            name = self._id(id)
            written = await target.modify(
                name,
                *build_changes(changes),
                where=None if condition is None else from_json(condition).where,
                if_version=await self._version(name, which, target),
            )
            stored = await self._seen(name, target)
            return ["written", stored is not None and stored.version == written]
        items = [
            (self._id(id), build_changes(changes), await self._version(self._id(id), which, target))
            for id, changes, _, which in step.items
        ]
        if self._apart:
            outcomes = await modify_apart(items, target, atomic=step.atomic)
        else:
            outcomes = await target.modify_batch(items, on_error="collect", atomic=step.atomic)
        return [self._outcome(o) if isinstance(o, IsthmusError) else "written" for o in outcomes]

    def _given(self, item: tuple[Any, ...]) -> Record:
        id, data, metadata, _ = item
        return Record(data, id=None if id is None else self._id(id), metadata=metadata)

    async def _source(self, data: Any, metadata: Any, target: CollectionMethods) -> Record:
        if not isinstance(data, str):
            return Record(data, metadata=metadata)
        read = await target.get(self._id(data)) or Record({})
        if metadata:
            read.data.update(metadata)
        return read

    async def _seen(self, id: str, target: CollectionMethods) -> Record | None:
        record = await target.get(id)
        if record is not None and record.version is not None:
            versions = self._versions.setdefault(id, [])
            if record.version not in versions:
                versions.append(record.version)
        return record

    async def _version(self, id: str, which: str | None, target: CollectionMethods) -> str | None:
        if which is None:
            return None
        if which == "current":
            record = await target.get(id)
            return "0" if record is None else record.version
        if which == "stale":
            return self._versions.get(id, ["0", "0"])[0]
        return "bogus"

    def _id(self, id: Any) -> str:
        if isinstance(id, int):
            return self._made[id] if id < len(self._made) else f"never made {id}"
        return str(id)

    def _name(self, id: str | None) -> Any:
        if id in self._made:
            return self._made.index(id)
        # The id of a record that was refused, as the holder of a value or with an impossible one.
        return "made by the library" if id is not None and _MADE(id) else id

    def _record(self, record: Record | None) -> Any:
        return None if record is None else [self._name(record.id), record.data, record.metadata]

    def _outcome(self, outcome: Any, *, named: bool = True) -> Any:
        if isinstance(outcome, IsthmusError):
            id = getattr(outcome, "record_id", None)
            return [type(outcome).__name__, self._name(id) if named else id is not None]
        return outcome

    def _named(self, answer: Any, verb: str) -> Any:
        if verb == "left" and answer[1:] == [True]:
            return answer
        if verb in ("search", "find_one", *streams.VERBS):
            return [[self._name(id), data] for id, data in answer]
        if verb == "page":
            return [[[self._name(id), data] for id, data in page] for page in answer]
        return answer


@dataclass(slots=True)
class ProgramReport:
    """What a run of programs found."""

    programs: int = 0
    steps: int = 0
    failures: list[str] = field(default_factory=list)


async def run(
    store: Store, *, programs: int, seed: int, shrinks: bool = True, log: TextIO = sys.stderr
) -> ProgramReport:
    """Run that many programs; each comes from the seed and its number."""
    report = ProgramReport()
    for number in range(programs):
        rng = random.Random(f"{seed}/program/{number}")
        async with store.fresh() as db:
            steps = program(rng, db.capabilities)
        declared = random_columns(rng, store.backend, _records_of(steps))
        report.programs += 1
        report.steps += len(steps)
        if await difference(store, steps, declared) is not None:
            print(f"difference in program {number} of seed {seed}; shrinking…", file=log)
            if shrinks:
                steps = await shrink(steps, partial(_differs, store, declared))
            seen = await difference(store, steps, declared)
            report.failures.append(as_test(store.name, steps, seen, declared))
            if len(report.failures) >= 3:
                break
    return report


def _records_of(steps: Sequence[Step]) -> list[Record]:
    """Return the records that a program writes first, by which columns are declared."""
    items = steps[0].items if steps else ()
    return [Record(item[1]) for item in items if len(item) == 4 and isinstance(item[1], dict)]


async def difference(
    store: Store, steps: Sequence[Step], declared: Declared | None = None
) -> tuple[int, Any, Any] | None:
    """Run a program on memory and on the store; return the first step whose answers differ."""
    async with Store("memory", "memory").fresh() as model, store.fresh(declared) as db:
        left, right = Side(model, apart=True), Side(db)
        followers = [Follower(side) for side in (model, db) if side.capabilities.changes]
        for follower in followers:
            await follower.begin()
        for number, step in enumerate(steps):
            before = await model.search()
            expected = await left.answer(step, model)
            actual = await right.answer(step, db)
            if not _agree(step, [*before, *await model.search()], expected, actual):
                return number, expected, actual
            for follower in followers:
                await follower.follow(number)
        expected, actual = await left.state(), await right.state()
        if not same(expected, actual):
            return len(steps), expected, actual
        for follower in followers:
            if (followed := await follower.difference()) is not None:
                return len(steps), *followed
        return None


async def _differs(store: Store, declared: Declared, steps: list[Step]) -> bool:
    return await difference(store, steps, declared) is not None


def _agree(step: Step, records: Sequence[Record], expected: Any, actual: Any) -> bool:
    if step.check is not None and not _failed(expected) and not _failed(actual):
        return step.check.agree(records, expected, actual)
    if (
        step.steps
        and isinstance(expected, list)
        and isinstance(actual, list)
        and len(expected) == len(actual)
    ):
        answered = zip(step.steps, expected, actual, strict=False)
        return all(_agree(inner, records, left, right) for inner, left, right in answered)
    return same(_listed(expected), _listed(actual))


def _failed(answer: Any) -> bool:
    return isinstance(answer, list) and bool(answer) and str(answer[0]).endswith("Error")


def _listed(answer: Any) -> Any:
    return [_listed(part) for part in answer] if isinstance(answer, list | tuple) else answer


def program(rng: random.Random, can: Capabilities) -> list[Step]:
    """Return the steps of one program that the capabilities allow."""
    pool = nasty_set(rng, 14)
    maker = QueryMaker(rng, pool, attributes=_ATTRIBUTES)
    ids = [record.id for record in pool.records[:6]]
    there = tuple((record.id, record.data, record.metadata, None) for record in pool.records[:6])
    first = [Step("upsert_batch", there)] if rng.random() < 0.8 else []
    steps = first + [_step(rng, can, pool, maker, ids, 0) for _ in range(rng.randint(5, STEPS))]
    if can.unique and rng.random() < 0.5:
        steps = comparable(steps, transactions=can.transactions)
        return [Step("unique", random_groups(rng, pool)), *steps]
    return steps


def _step(
    rng: random.Random, can: Capabilities, pool: RecordSet, maker: QueryMaker, ids: list[Any], depth: int
) -> Step:
    def item(*, version: bool = False) -> tuple[Any, ...]:
        record = rng.choice(pool.records)
        which = rng.choice((None, None, "current", "current", "stale", "bogus")) if version else None
        data = rng.choice(ids) if version and rng.random() < 0.3 else record.data
        return (rng.choice([*ids, 0, 1, 2]), data, record.metadata, which)

    chance = rng.random()
    if rng.random() < 0.05 and depth == 0 and can.compare_and_set:
        # An atomic batch of a scope needs transactions.
        confined = replace(can, atomic_batch=can.atomic_batch and can.transactions)
        steps = tuple(_step(rng, confined, pool, maker, ids, 2) for _ in range(rng.randint(2, 8)))
        return Step("scope", steps=steps)
    if chance < 0.1 and can.transactions and depth < 2:
        verb = "transaction" if depth == 0 else "savepoint"
        if depth == 0 or can.savepoints:
            steps = tuple(_step(rng, can, pool, maker, ids, depth + 1) for _ in range(rng.randint(1, 6)))
            return Step(verb, steps=steps, commits=rng.random() < 0.6)
    if chance < 0.2:
        return _modification(rng, can, pool, maker, ids)
    if chance < 0.35:
        verb = rng.choice(_WRITES)
        if verb == "create":
            record = rng.choice(pool.records)
            id = None if rng.random() < 0.3 else rng.choice(ids)
            return Step(verb, ((id, record.data, record.metadata, None),))
        return Step(verb, (item(version=True),))
    if chance < 0.6:
        verb = rng.choice((*_BATCHES, "stream_write"))
        if verb == "create_batch":
            items = tuple((rng.choice([*ids, None]), *item()[1:]) for _ in range(rng.randint(1, 5)))
            if rng.random() < 0.15:
                items = (*items, (_INVALID, {"bad": [1, float("nan")]}, {}, None))
        elif verb == "stream_write":
            items = tuple((rng.choice(ids), *item()[1:]) for _ in range(rng.randint(0, 8)))
        else:
            items = tuple(item(version=verb != "delete_batch") for _ in range(rng.randint(1, 5)))
        return Step(verb, items, atomic=can.atomic_batch and rng.random() < 0.6)
    if chance < 0.61:
        return Step("clear")
    if chance < 0.7:
        verb = rng.choice(("get", "get_batch"))
        return Step(verb, tuple(item() for _ in range(1 if verb == "get" else rng.randint(0, 5))))
    made = maker.generate()
    if chance < 0.74 and made.comparisons:
        return Step("check", check=Check("delete_where", from_json(to_json(Query(where=made.predicate)))))
    return Step("check", check=make(rng, maker, made))


def _modification(
    rng: random.Random, can: Capabilities, pool: RecordSet, maker: QueryMaker, ids: list[Any]
) -> Step:
    verb = rng.choice(_MODIFIES)
    made = maker.generate()
    condition = to_json(Query(where=made.predicate))
    if verb == "update_where" and made.comparisons:
        # Elsewhere the other records are changed where one does not admit it, and memory changes none.
        changes = random_changes(rng, pool, harmless=not can.transactions)
        return Step(verb, ((None, changes, condition, None),))

    def item() -> tuple[Any, ...]:
        which = rng.choice((None, None, None, "current", "stale", "bogus"))
        return (rng.choice([*ids, *ids, 0]), random_changes(rng, pool), None, which)

    if verb == "modify_batch":
        items = tuple(item() for _ in range(rng.randint(1, 5)))
        return Step(verb, items, atomic=can.atomic_batch and rng.random() < 0.5)
    id, changes, _, which = item()
    return Step("modify", ((id, changes, condition if rng.random() < 0.3 else None, which),))


__all__ = ["Check", "Step", "difference", "run", "store_of"]
