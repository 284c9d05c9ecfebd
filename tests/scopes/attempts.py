"""Attempts of one tenant to see, change or learn about another's records, by each method.

After each attempt the records of all tenants are compared with what the attempt may have changed: those of
the tenant that made it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import BaseModel

from isthmus import AsyncDatabase, Query, Record, Transaction, field
from isthmus._unique import declare_unique
from isthmus.errors import AlreadyExistsError, IsthmusError
from tests.stores import Store

TENANTS = ("a", "b", "c")
TENANT, N, EMAIL = field("tenant"), field("n"), field("email")
SECRET = "secret-of-"

State = dict[str, tuple[str, str | None]]
"""The tenant and the version of each record by its id."""


class Item(BaseModel):
    """A record as a model."""

    id: str
    tenant: str
    n: int = 0
    text: str = ""


class Attempt:
    """One attempt: a handle of a tenant, ids of its own and of others, and what it was given back."""

    def __init__(
        self,
        rng: random.Random,
        tenant: str,
        scopes: dict[str, AsyncDatabase],
        ids: dict[str, list[str]],
    ) -> None:
        self.rng = rng
        self.tenant = tenant
        self.scopes = scopes
        self.db: Any = scopes[tenant]
        self.ids = ids

    def id(self) -> str:
        """Return an id, mostly one of another tenant."""
        others = [id for tenant, ids in self.ids.items() if tenant != self.tenant for id in ids]
        pool = others if self.rng.random() < 0.8 else self.ids[self.tenant]
        return self.rng.choice(pool or ["none"])

    def some_ids(self) -> list[str]:
        """Return several ids, own and others'."""
        return [self.id() for _ in range(self.rng.randint(1, 4))]

    def data(self) -> dict[str, Any]:
        """Return data that claims a tenant, or none."""
        data: dict[str, Any] = {"n": self.rng.randint(0, 9), "text": f"{SECRET}{self.tenant}"}
        if self.rng.random() < 0.6:
            data["tenant"] = self.rng.choice([*TENANTS, None, ["a", "b"], {"x": 1}])
        return data

    def claim(self) -> dict[str, Any]:
        """Return data with one of a few values of the unique field."""
        return {"n": 1, "text": f"{SECRET}{self.tenant}", "email": f"mail {self.rng.randrange(12)}"}

    def own_id(self) -> str:
        """Return an id of this tenant's records, or a new one: whatever else is named was not asked for."""
        new = f"{self.tenant}{self.rng.getrandbits(40)}"
        return self.rng.choice([*self.ids[self.tenant], new])

    def condition(self) -> Any:
        """Return a condition that holds for records of others too."""
        return self.rng.choice(
            [
                self.rng.choice(TENANTS) == TENANT,
                self.tenant != TENANT,
                ~(self.tenant == TENANT) | N.exists(),
                self.rng.randint(0, 9) <= N,
                TENANT.in_(list(TENANTS)),
                field("text").contains(SECRET),
                field("_id").in_(self.some_ids()),
            ]
        )


Method = Callable[[Attempt], Awaitable[Any]]


async def _stream(at: Attempt) -> Any:
    return [record async for record in at.db.stream(at.condition())]


async def _consistent(at: Attempt) -> Any:
    async with at.db.stream(at.condition(), consistent=True) as records:
        return [record async for record in records]


async def _foreign_cursor(at: Attempt) -> Any:
    other = at.rng.choice([tenant for tenant in TENANTS if tenant != at.tenant])
    page = await at.scopes[other].page(size=1)
    return (await at.db.page(size=50, cursor=page.cursor)).records


async def _transaction(at: Attempt) -> Any:
    method = at.rng.choice(list(IN_TRANSACTION))
    outer = at.db
    async with outer.transaction() as tx:
        at.db = tx if at.rng.random() < 0.7 else outer
        return await METHODS[method](at)


async def _run(at: Attempt) -> Any:
    id = at.id()

    async def work(tx: Transaction) -> Any:
        record = await tx.get(id)
        await tx.upsert(id, {"n": 1})
        return record

    return await at.db.run(work)


async def _typed(at: Attempt) -> Any:
    items = at.db.collection(at.db.collection_name, Item)
    if at.rng.random() < 0.5:
        return await items.search(N >= 0)
    id = at.id()
    return await items.upsert(id, Item(id=id, tenant=at.rng.choice(TENANTS), n=1))


async def _partitions(at: Attempt) -> Any:
    found = []
    for part in await at.db.partitions(at.condition(), 2):
        found += [record async for record in part.stream()]
    return found


async def _nested(at: Attempt) -> Any:
    return await at.db.scope(at.rng.choice(TENANTS) == TENANT).search()


async def _claim_in_transaction(at: Attempt) -> Any:
    async with at.db.transaction() as tx:
        try:
            return await tx.create(at.claim())
        except AlreadyExistsError as error:
            return error


CLAIMS: dict[str, Method] = {
    "claim": lambda at: at.db.create(at.claim()),
    "claim_batch": lambda at: at.db.create_batch([at.claim() for _ in range(3)]),
    "claim_each": lambda at: at.db.create_batch([at.claim() for _ in range(3)], atomic=False),
    "claim_by_upsert": lambda at: at.db.upsert(at.own_id(), at.claim()),
    "claim_by_update": lambda at: at.db.update_batch([(at.own_id(), at.claim())], atomic=False),
    "claim_by_modify": lambda at: at.db.modify(at.own_id(), EMAIL.set(at.claim()["email"])),
    "claim_where": lambda at: at.db.update_where(N == 1, EMAIL.set(at.claim()["email"])),
    "claim_in_transaction": _claim_in_transaction,
}
"""Writes of a unique field: its values are taken by other tenants too, whose ids no answer may name."""
METHODS: dict[str, Method] = {
    **CLAIMS,
    "get": lambda at: at.db.get(at.id()),
    "require": lambda at: at.db.require(at.id()),
    "exists": lambda at: at.db.exists(at.id()),
    "get_batch": lambda at: at.db.get_batch(at.some_ids()),
    "exists_batch": lambda at: at.db.exists_batch(at.some_ids()),
    "search": lambda at: at.db.search(at.condition()),
    "search_sorted": lambda at: at.db.search(Query().sort("n", "desc").limit(20)),
    "find_one": lambda at: at.db.find_one(at.condition()),
    "stream": _stream,
    "consistent_stream": _consistent,
    "page": lambda at: at.db.page(at.condition(), size=20),
    "page_by_foreign_cursor": _foreign_cursor,
    "aggregate": lambda at: at.db.aggregate(by=["tenant", "text"], n="count", d=("count_distinct", "tenant")),
    "explain": lambda at: at.db.explain(at.condition()),
    "collection": lambda at: at.db.collection(at.db.collection_name).search(at.condition()),
    "create": lambda at: at.db.create(Record(at.data(), id=at.id())),
    "create_batch": lambda at: at.db.create_batch([Record(at.data(), id=id) for id in at.some_ids()]),
    "replace": lambda at: at.db.replace(at.id(), at.data()),
    "update": lambda at: at.db.update(at.id(), at.data()),
    "upsert": lambda at: at.db.upsert(at.id(), at.data()),
    "delete": lambda at: at.db.delete(at.id()),
    "replace_batch": lambda at: at.db.replace_batch([(id, at.data()) for id in at.some_ids()]),
    "update_batch": lambda at: at.db.update_batch([(id, at.data()) for id in at.some_ids()]),
    "upsert_batch": lambda at: at.db.upsert_batch([(id, at.data()) for id in at.some_ids()]),
    "upsert_each": lambda at: at.db.upsert_batch([(id, at.data()) for id in at.some_ids()], atomic=False),
    "delete_batch": lambda at: at.db.delete_batch(at.some_ids()),
    "modify": lambda at: at.db.modify(at.id(), N.inc(1), TENANT.set(at.rng.choice(TENANTS))),
    "modify_where": lambda at: at.db.modify(at.id(), N.inc(1), where=at.condition()),
    "modify_batch": lambda at: at.db.modify_batch([(id, [N.inc(1)]) for id in at.some_ids()]),
    "update_where": lambda at: at.db.update_where(at.condition(), N.set(7)),
    "steal_where": lambda at: at.db.update_where(at.condition(), TENANT.set(at.tenant)),
    "delete_where": lambda at: at.db.delete_where(at.condition() & (at.rng.randint(0, 9) == N)),
    "stream_write": lambda at: at.db.stream_write([Record(at.data(), id=at.id())], upsert=True),
    "transaction": _transaction,
    "run": _run,
    "typed": _typed,
    "partitions": _partitions,
    "nested_scope": _nested,
}
_OUTSIDE = (
    "claim_in_transaction",
    "transaction",
    "run",
    "partitions",
    "nested_scope",
    "page_by_foreign_cursor",
    "consistent_stream",
)
IN_TRANSACTION = [name for name in METHODS if name not in _OUTSIDE]


async def run_attempts(
    store: Store, count: int, seed: int, made: Counter[str], *, confined: bool = True
) -> list[str]:
    """Run attempts and return a line for each that saw or changed what it must not.

    With `confined=False` by handles without a scope, to show that leaks are noticed.
    """
    rng = random.Random(seed)
    leaks: list[str] = []
    async with store.fresh() as db:
        if db.capabilities.unique:
            await declare_unique(db, ["email"])
        scopes = {tenant: db.scope(tenant == TENANT) if confined else db for tenant in TENANTS}
        while made.total() < count:
            await _refill(db, scopes, rng)
            before = await _state(db)
            for _ in range(min(25, count - made.total())):
                ids = {t: [id for id, (owner, _) in before.items() if owner == t] for t in TENANTS}
                tenant = rng.choice(TENANTS)
                method = rng.choice(list(METHODS))
                made[method] += 1
                at = Attempt(rng, tenant, scopes, ids)
                try:
                    answer: Any = await METHODS[method](at)
                except IsthmusError as error:
                    answer = error
                after = await _state(db)
                found = _leaks(tenant, answer, before, after)
                if method in CLAIMS:
                    found += _named_ids(tenant, answer, before)
                leaks += [f"{tenant}.{method}: {leak}" for leak in found]
                before = after
    return leaks


async def _refill(db: AsyncDatabase, scopes: dict[str, AsyncDatabase], rng: random.Random) -> None:
    """Have each tenant own at least five records."""
    for tenant, scope in scopes.items():
        missing = 5 - await scope.count()
        if missing > 0:
            data = {"tenant": tenant, "n": rng.randint(0, 9), "text": f"{SECRET}{tenant}"}
            await db.upsert_batch([(f"{tenant}{rng.getrandbits(40)}", data) for _ in range(missing)])


async def _state(db: AsyncDatabase) -> State:
    return {str(r.id): (str(r.data.get("tenant")), r.version) for r in await db.search()}


def _leaks(tenant: str, answer: Any, before: State, after: State) -> list[str]:
    """Return what an attempt of a tenant saw or changed of others."""
    found = [
        f"{id} of {owner} was {before[id]}, is {after.get(id)}"
        for id, (owner, _) in before.items()
        if owner != tenant and after.get(id) != before[id]
    ]
    found += [
        f"{id} was made for {owner}"
        for id, (owner, _) in after.items()
        if owner != tenant and id not in before
    ]
    found += [
        f"{id} was taken from {before[id][0]}"
        for id, (owner, _) in after.items()
        if id in before and owner != before[id][0]
    ]
    shown = _text(answer)
    others = [other for other in TENANTS if other != tenant and SECRET + other in shown]
    return found + [f"saw {SECRET}{other}: {shown[:200]}" for other in others]


def _named_ids(tenant: str, answer: Any, before: State) -> list[str]:
    """Return which ids of others an answer names."""
    shown = _text(answer)
    return [
        f"named {id}: {shown[:200]}" for id, (owner, _) in before.items() if owner != tenant and id in shown
    ]


def _text(answer: Any) -> str:
    """Return everything that an answer holds, as text."""
    if isinstance(answer, Record):
        return repr((answer.id, answer.data, answer.metadata))
    if isinstance(answer, IsthmusError):
        outcomes = getattr(answer, "outcomes", ())
        return f"{answer} {getattr(answer, 'record_id', '')} {[_text(outcome) for outcome in outcomes]}"
    if isinstance(answer, list | tuple):
        return " ".join(map(_text, answer))
    records = getattr(answer, "records", None)
    return repr(answer) if records is None else _text(list(records))
