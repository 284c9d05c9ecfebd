"""Sends prepared lines in bulk requests: retries what was refused for load, and backs off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

import orjson

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus.backends.elasticsearch.client import ClientPool
from isthmus.backends.elasticsearch.config import BulkConfig
from isthmus.backends.elasticsearch.errors import failed_answer, reason_of
from isthmus.backends.elasticsearch.index import Index
from isthmus.errors import Applied, IsthmusError, RateLimitedError

# Keeps every item at its position, and only what a result needs: `items.*.error` alone drops the good ones.
_PARTS = ("status", "error.type", "error.reason", "_seq_no")
_UNVERSIONED = "filter_path=errors," + ",".join(f"items.*.{part}" for part in _PARTS)
_VERSIONED = f"{_UNVERSIONED},items.*._primary_term"
# How an answer begins of which nothing more need be read, but for a first document's number.
_ALL_WELL, _FIRST = b'{"errors":false,', b'"_seq_no":0,'
_TOLD = frozenset({200, 404, 413, 429})
_BUSY = frozenset({429, 503})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


class Item:
    """What the server said of one line."""

    __slots__ = ("_said", "earlier", "status")

    def __init__(self, said: dict[str, Any]) -> None:
        self.status: int = said["status"]
        self._said = said
        self.earlier: Item | None = None
        """The first answer to a line that was sent again and may have been done before."""

    @property
    def version(self) -> str:
        """The version token that a write was given; empty for one that failed."""
        said = self._said
        return f"{said['_seq_no']}.{said['_primary_term']}" if "_seq_no" in said else ""

    @property
    def kind(self) -> str:
        """The type of the error, empty for none."""
        return str(self._error.get("type", ""))

    @property
    def reason(self) -> str:
        """What the error says."""
        return str(self._error.get("reason", ""))

    @property
    def _error(self) -> dict[str, Any]:
        return self._said.get("error") or {}

    @property
    def busy(self) -> bool:
        """Whether it may go well in a moment; a node without disk space says 429 too, for long."""
        return self.status in _BUSY and "cluster_block" not in self.kind

    def failure(self, doing: str) -> IsthmusError:
        """Return the error of an item that failed."""
        body = {"error": {"type": self.kind, "reason": self.reason}}
        error = failed_answer(self.status, body, None, doing, writes=True)
        if self.earlier is not None:
            error.applied = Applied.MAYBE
        return error


_MADE = Item({"status": 201})
_TOO_LARGE = {
    "status": 413,
    "error": {
        "type": "content_too_large",
        "reason": "the document is larger than http.max_content_length",
    },
}


def all_made(items: list[Item]) -> bool:
    """Return whether an answer said no more than that all of its documents were made."""
    return items.count(_MADE) == len(items)


class Bulk:
    """The pace of one index: chunk size and concurrency back off together and recover slowly."""

    def __init__(self, config: BulkConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self._config = config
        self._clock = clock
        self.size = config.size
        self.concurrency = config.concurrency
        self._calm = 0

    async def send(
        self,
        pool: ClientPool,
        index: Index,
        lines: Sequence[bytes],
        doing: str,
        *,
        creates: bool = False,
        once: Sequence[bool] | None = None,
    ) -> list[Item]:
        """Send lines (action and document each) and return an item for each, in order.

        Items of creates have no version: the answer is not even decoded where all went well.
        Items refused for load are sent again with growing pauses; so is a request that was refused
        as a whole, of which nothing was done. One that is too large is sent in two halves.

        `once` says of which lines the server refuses to do what they say a second time (None: of
        all). Only those are sent again after a 503, which may come of what was done; if they are
        refused then, the item's `earlier` answer says why that may be.
        """
        items: list[Item | None] = [None] * len(lines)
        open_: Sequence[int] = range(len(lines))
        doubts: dict[int, Item] = {}
        for attempt in range(self._config.retries + 1):
            sent = lines if len(open_) == len(lines) else [lines[at] for at in open_]
            only = once if once is None or sent is lines else [once[at] for at in open_]
            try:
                answered = await self._request(pool, index, sent, doing, creates=creates, once=only)
            except IsthmusError as error:
                if doubts:
                    error.applied = Applied.MAYBE
                raise
            again = open_
            if answered is not None and all_made(answered) and len(answered) == len(lines):
                self._recover()
                return answered
            if answered is not None:
                for at, item in zip(open_, answered, strict=True):
                    items[at] = item
                # Most items went well: a step of Python for those alone that did not.
                busy = [(at, i) for at, i in zip(open_, answered, strict=True) if i.status in _BUSY]
                again = _repeatable(busy, once, doubts)
            if not again:
                self._recover()
                break
            self._back_off()
            open_ = again
            if attempt < self._config.retries:
                await self._clock.sleep(_pause(attempt))
        if None in items:
            raise RateLimitedError(f"{doing}: the server refused the request for load {attempt + 1} times")
        for at, earlier in doubts.items():
            last = items[at]
            if last is not None and last is not earlier and last.status >= 400:
                last.earlier = earlier
        return items  # type: ignore[return-value]

    async def _request(
        self,
        pool: ClientPool,
        index: Index,
        lines: Sequence[bytes],
        doing: str,
        *,
        creates: bool,
        once: Sequence[bool] | None,
    ) -> list[Item] | None:
        body = b"".join(lines)
        target = f"{index.url}/_bulk?{_UNVERSIONED if creates else _VERSIONED}"
        status, answer = await pool.call(
            "POST", target, body, doing=doing, writes=True, lines=True, told=_TOLD, undecoded=creates
        )
        if status == 404:
            raise index.gone()
        if status == 413:
            return await self._halved(pool, index, lines, doing, creates=creates, once=once)
        if status == 429:
            if "cluster_block" in reason_of(answer)[0]:
                raise failed_answer(status, answer, None, doing, writes=False)
            return None
        if isinstance(answer, bytes):
            if answer.startswith(_ALL_WELL) and _FIRST not in answer:
                return [_MADE] * len(lines)
            answer = orjson.loads(answer)
        told = [said for outcome in answer.get("items", ()) for said in outcome.values()]
        if any(said.get("_seq_no") == 0 for said in told):
            await index.verify(pool)
        return list(map(Item, told))

    async def _halved(
        self,
        pool: ClientPool,
        index: Index,
        lines: Sequence[bytes],
        doing: str,
        *,
        creates: bool,
        once: Sequence[bool] | None,
    ) -> list[Item] | None:
        if len(lines) == 1:
            return [Item(_TOO_LARGE)]
        self._back_off()
        items: list[Item] = []
        half = len(lines) // 2
        for part in (slice(half), slice(half, None)):
            only = None if once is None else once[part]
            items += await self.send(pool, index, lines[part], doing, creates=creates, once=only)
        return items

    def _back_off(self) -> None:
        self._calm = 0
        self.size = max(self.size // 2, 10)
        self.concurrency = 1

    def _recover(self) -> None:
        self._calm += 1
        if self._calm < 4:
            return
        self._calm = 0
        self.size = min(self.size * 2, self._config.size)
        self.concurrency = min(self.concurrency + 1, self._config.concurrency)


def _repeatable(
    busy: Sequence[tuple[int, Item]], once: Sequence[bool] | None, doubts: dict[int, Item]
) -> list[int]:
    """Return the places of items to be sent again, and note those that may have been done."""
    again = []
    for at, item in busy:
        if not item.busy or (item.status == 503 and once is not None and not once[at]):
            continue
        again.append(at)
        if item.status == 503:
            doubts.setdefault(at, item)
    return again


def _pause(attempt: int) -> float:
    longest: float = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
    return longest * (0.5 + random.random() / 2)  # noqa: S311 - spreads load, guards nothing


async def finished(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel what still runs and wait until it has ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
