"""One cell of the fault matrix: a verb, a fault, a backend; what came of it, and whether that is true."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any, Self

import orjson

from isthmus import Applied, AsyncDatabase, DeadlineError, IsthmusError, UnavailableError
from isthmus._ids import new_id
from isthmus.testing.proxy import Fault, FaultProxy
from tests.faults.targets import Target
from tests.faults.verbs import RECORDS, Verb

DEADLINE = 1.0
# A call that has not ended by then hangs, whatever it comes to later.
HANG = DEADLINE * 8 + 1.5
# A cut request that has come to nothing for so long will come to nothing.
SETTLED = 0.15
# Enough tokens for all cells: the budget has its own tests.
RETRY = {"attempts": 4, "base": 0.02, "cap": 0.1, "reserve": 100_000}


@dataclass(frozen=True)
class Outcome:
    """What a call came to under a fault.

    `word` is answer, unavailable (nothing was done), doubt (nobody knows), late (the deadline,
    nothing done) or late-doubt.
    """

    word: str
    seconds: float
    fired: int
    lies: str | None
    """How the store contradicts the word, if it does."""
    error: str


Truth = list[bytes]


async def truth(db: AsyncDatabase) -> Truth:
    """Return the contents of a collection, as they are compared: ids that were made are left out."""
    await db.refresh()  # the writes of another handle are not this one's to see
    return sorted(
        orjson.dumps([r.id if len(r.id or "") < 5 else None, r.data], option=orjson.OPT_SORT_KEYS)
        for r in await db.search()
    )


class Bench:
    """A backend behind a proxy, with a direct handle on the same records."""

    def __init__(self, target: Target, proxy: FaultProxy) -> None:
        self._target = target
        self._proxy = proxy

    async def __aenter__(self) -> Self:
        name = f"faults_{new_id().replace('-', '')}"
        url = self._target.url()
        self.direct = await self._target.open(url, name)
        through = self._proxy.through(url)
        self.once = await self._target.open(through, name, deadline=DEADLINE * 8, layers={"retry": RETRY})
        self.bare = await self._target.open(through, name, deadline=DEADLINE)
        self.model = await AsyncDatabase.create("memory", {"changes": True})
        for db in (self.direct, self.once.options(deadline=60.0), self.bare.options(deadline=60.0)):
            # What a client imports, opens and maps on first use is not to be counted in a cell: else
            # what a cell comes to would hang on the cells before it.
            record = await db.require(await db.create({"n": 0, "m": 0, "name": "warm"}))
            await db.delete(record.id or "", if_version=record.version)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._proxy.heal()
        for db in (self.bare, self.once, self.direct):
            await db.close()

    async def cell(self, verb: Verb, fault: Fault, *, lasting: bool) -> Outcome:
        """Run one cell: `lasting` until the call has ended, without retries; else one strike, with them."""
        await self.direct.clear()
        await self.direct.create_batch(RECORDS)
        records = await self.direct.get_batch(["a", "b", "c"])
        versions = {r.id or "": r.version or "" for r in records if r is not None}
        before = await truth(self.direct)
        db = self.bare if lasting else self.once
        await self._awake(db)
        await self.direct.refresh()
        already = self._proxy.fired(fault)
        self._proxy.inject(fault, times=None if lasting else 1, delay=0.02)
        if fault is Fault.STALL and not lasting:
            asyncio.get_running_loop().call_later(0.1, self._proxy.heal)
        begun = time.monotonic()
        call = asyncio.ensure_future(_run(verb, db, versions))
        done, _ = await asyncio.wait([call], timeout=HANG)
        if done:
            word, error = call.result()
        else:
            self._proxy.heal()
            call.cancel()
            word, error = "hangs", repr(await asyncio.gather(call, return_exceptions=True))
        seconds = time.monotonic() - begun
        fired = self._proxy.fired(fault) - already
        self._proxy.heal()
        await self._awake(db)
        lies = await self._checked(verb, word, before)
        return Outcome(word, seconds, fired, lies, error)

    async def _awake(self, db: AsyncDatabase) -> None:
        """Wait until the handle serves again, as it must by itself."""
        for _ in range(60):
            try:
                await db.get("a")
                await db.count()
                # A write after some time first reads the marker of S3's collection again: not in a cell.
                await db.delete("no such record")
            except IsthmusError:
                await asyncio.sleep(0.05)
            else:
                return
        raise AssertionError("the handle did not serve again within 3 s after the fault was healed")

    async def _checked(self, verb: Verb, word: str, before: Truth) -> str | None:
        after = await self._after(verb)
        if "doubt" in word:
            await self._settled()
        for _ in range(40):
            found = await truth(self.direct)
            if (word == "answer" and found == after) or (word != "answer" and found in (before, after)):
                break
            # A batch that is not atomic may be half done, and says so by being in doubt.
            if (
                "doubt" in word
                and not self.direct.capabilities.atomic_batch
                and _between(found, before, after)
            ):
                break
            await asyncio.sleep(0.05)
        else:
            return f"the store holds {found[:6]} after {word}"
        if word in ("unavailable", "late") and verb.kind not in ("read", "changes") and found != before:
            return "it was done although the error says applied=NO"
        return None

    async def _settled(self) -> None:
        """Wait until the store holds the same for a while: it may still be at a request that was cut.

        What it does of that later would be found in the next cell.
        """
        found: Truth | None = None
        for _ in range(20):
            last, found = found, await truth(self.direct)
            if found == last:
                return
            await asyncio.sleep(SETTLED)

    async def _after(self, verb: Verb) -> Truth:
        await self.model.clear()
        await self.model.create_batch(RECORDS)
        records = await self.model.get_batch(["a", "b", "c"])
        await verb.call(self.model, {r.id or "": r.version or "" for r in records if r is not None})
        return await truth(self.model)


def _between(found: Truth, before: Truth, after: Truth) -> bool:
    """Return whether each record is as before or as after, and none is doubled."""
    left = list(found)
    for item in found:
        if item not in before and item not in after:
            return False
    return all(left.count(item) <= max(before.count(item), after.count(item)) for item in set(left))


async def _run(verb: Verb, db: AsyncDatabase, versions: dict[str, str]) -> tuple[str, str]:
    try:
        answer: Any = await verb.call(db, versions)
    except IsthmusError as error:
        doubt = error.applied is Applied.MAYBE
        text = f"{type(error).__name__}: {error}"
        if isinstance(error, DeadlineError):
            return ("late-doubt" if doubt else "late"), text
        if isinstance(error, UnavailableError) or error.transient:
            return ("doubt" if doubt else "unavailable"), text
        return f"{type(error).__name__}{' in doubt' if doubt else ''}", text
    return "answer", repr(answer)[:80]
