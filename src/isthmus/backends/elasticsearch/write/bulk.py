"""Sends bulk requests; repeats items that were rejected for load, and backs off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from isthmus._core.clock import SYSTEM_CLOCK, Clock
from isthmus.backends.elasticsearch.client import ClientPool, decode_response
from isthmus.backends.elasticsearch.config import BulkConfig
from isthmus.backends.elasticsearch.errors import invalid_response_error, reason_of, translate_response
from isthmus.backends.elasticsearch.index import CollectionIndex
from isthmus.backends.elasticsearch.layout import version_of
from isthmus.errors import Applied, IsthmusError, RateLimitedError

# Keeps every item in its position: `items.*.error` alone would drop the successful ones.
_PARTS = ("status", "error.type", "error.reason", "_seq_no")
_UNVERSIONED = "filter_path=errors," + ",".join(f"items.*.{part}" for part in _PARTS)
_VERSIONED = f"{_UNVERSIONED},items.*._primary_term"
# The start of a response without errors, which need not be decoded.
_NO_ERRORS = b'{"errors":false,'
_EXPECTED = frozenset({200, 404, 413, 429})
_BUSY = frozenset({429, 503})
_REFUSALS = frozenset({404, 409})
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 5.0


class BulkItem:
    """The server's response to one line."""

    __slots__ = ("_response", "earlier", "status")

    def __init__(self, response: dict[str, Any]) -> None:
        self.status: int = response["status"]
        self._response = response
        self.earlier: BulkItem | None = None
        """The first response to a line that was sent again and may have been applied before."""

    @property
    def is_ambiguous(self) -> bool:
        """Whether our own earlier attempt may be why the item was refused."""
        return self.earlier is not None and self.status in _REFUSALS

    def version(self, index: CollectionIndex) -> str:
        """Return the new version of the record that the item wrote."""
        return version_of(self._response, index.uuid)

    @property
    def kind(self) -> str:
        """The type of the error; empty if there is none."""
        return str(self._error.get("type", ""))

    @property
    def reason(self) -> str:
        """The message of the error."""
        return str(self._error.get("reason", ""))

    @property
    def _error(self) -> dict[str, Any]:
        return self._response.get("error") or {}

    @property
    def is_busy(self) -> bool:
        """Whether a later attempt may succeed; a node out of disk space answers 429 too, but for long."""
        return self.status in _BUSY and "cluster_block" not in self.kind

    @property
    def is_index_missing(self) -> bool:
        """Whether there is no such index or alias; nothing was applied."""
        return self.status == 404 and "index_not_found" in self.kind

    def error(self, action: str) -> IsthmusError:
        """Return the error of an item that failed; `action` begins its text."""
        body = {"error": {"type": self.kind, "reason": self.reason}}
        error = translate_response(self.status, body, None, action, writes=True)
        if self.earlier is not None:
            error.applied = Applied.MAYBE
        return error


_CREATED = BulkItem({"status": 201})
_TOO_LARGE = {
    "status": 413,
    "error": {"type": "content_too_large", "reason": "the document is larger than http.max_content_length"},
}


def is_all_created(items: list[BulkItem]) -> bool:
    """Return whether these are the items of a response that was not decoded: every document was created."""
    return items.count(_CREATED) == len(items)


class BulkSender:
    """Sends to one index; chunk size and concurrency are halved under load and recover slowly."""

    def __init__(self, config: BulkConfig, clock: Clock = SYSTEM_CLOCK) -> None:
        self._config = config
        self._clock = clock
        self.size = config.size
        self.concurrency = config.concurrency
        self._successes = 0

    async def send(
        self,
        pool: ClientPool,
        index: CollectionIndex,
        lines: Sequence[bytes],
        action: str,
        *,
        creates: bool = False,
        once: Sequence[bool] | None = None,
    ) -> list[BulkItem]:
        """Send lines (action and document each) and return an item for each, in order.

        Items rejected for load (429, 503) are sent again with growing pauses, up to the config's
        `retries`; so is a request that was rejected as a whole, of which nothing was applied. A
        request that is too large is sent in two halves.

        With `creates` a response without errors is not decoded, and its items have no version.
        `once` tells for each line whether the server would refuse it after it was applied (None:
        all of them). After a 503, which may follow an applied write, only those are sent again;
        one that is refused then has the first response as its `earlier`.

        Raises `RateLimitedError` if every attempt was rejected as a whole; the index's error if it
        does not exist.
        """
        items: list[BulkItem | None] = [None] * len(lines)
        waiting: Sequence[int] = range(len(lines))
        ambiguous: dict[int, BulkItem] = {}
        for attempt in range(self._config.retries + 1):
            sent = lines if len(waiting) == len(lines) else [lines[at] for at in waiting]
            only = once if once is None or sent is lines else [once[at] for at in waiting]
            try:
                answered = await self._request(pool, index, sent, action, creates=creates, once=only)
            except IsthmusError as error:
                if ambiguous:
                    error.applied = Applied.MAYBE
                raise
            again = waiting
            if answered is not None and is_all_created(answered) and len(answered) == len(lines):
                self._recover()
                return answered
            if answered is not None:
                for at, item in zip(waiting, answered, strict=True):
                    items[at] = item
                # Most items succeed: Python code runs only for those that did not.
                busy = [(at, i) for at, i in zip(waiting, answered, strict=True) if i.status in _BUSY]
                again = _select_retries(busy, once, ambiguous)
            if not again:
                self._recover()
                break
            self._back_off()
            waiting = again
            if attempt < self._config.retries:
                await self._clock.sleep(_pause(attempt))
        if None in items:
            raise RateLimitedError(f"{action}: rejected for load in each of {attempt + 1} attempts")
        for at, earlier in ambiguous.items():
            last = items[at]
            if last is not None and last is not earlier and last.status >= 400:
                last.earlier = earlier
        return items  # type: ignore[return-value]

    async def _request(
        self,
        pool: ClientPool,
        index: CollectionIndex,
        lines: Sequence[bytes],
        action: str,
        *,
        creates: bool,
        once: Sequence[bool] | None,
    ) -> list[BulkItem] | None:
        body = b"".join(lines)
        target = f"{index.url}/_bulk?{_UNVERSIONED if creates else _VERSIONED}{index.bulk_options}"
        status, answer = await pool.call(
            "POST", target, body, action=action, writes=True, lines=True, expected=_EXPECTED, raw_body=creates
        )
        if status == 404:
            raise index.mark_gone()
        if status == 413:
            if len(lines) == 1:
                return [BulkItem(_TOO_LARGE)]
            self._back_off()
            items: list[BulkItem] = []
            for half in (slice(len(lines) // 2), slice(len(lines) // 2, None)):
                part, once_part = lines[half], once and once[half]
                items += await self.send(pool, index, part, action, creates=creates, once=once_part)
            return items
        if status == 429:
            if "cluster_block" in reason_of(answer)[0]:
                raise translate_response(status, answer, None, action, writes=False)
            return None
        if isinstance(answer, bytes):
            if answer.startswith(_NO_ERRORS):
                await index.confirm_write(pool)
                return [_CREATED] * len(lines)
            answer = decode_response(answer, action, writes=True)
        responses = [response for item in answer.get("items", ()) for response in item.values()]
        if len(responses) != len(lines):
            problem = f"it has {len(responses)} items of {len(lines)}"
            raise invalid_response_error(action, problem, writes=True)
        if any("_seq_no" in response for response in responses):
            await index.confirm_write(pool)
        return list(map(BulkItem, responses))

    def _back_off(self) -> None:
        self._successes = 0
        self.size = max(self.size // 2, 10)
        self.concurrency = 1

    def _recover(self) -> None:
        self._successes += 1
        if self._successes < 4:
            return
        self._successes = 0
        self.size = min(self.size * 2, self._config.size)
        self.concurrency = min(self.concurrency + 1, self._config.concurrency)


def _select_retries(
    busy: Sequence[tuple[int, BulkItem]], once: Sequence[bool] | None, ambiguous: dict[int, BulkItem]
) -> list[int]:
    """Return the positions of items to be sent again; add those that may be applied to `ambiguous`."""
    again = []
    for at, item in busy:
        if not item.is_busy or (item.status == 503 and once is not None and not once[at]):
            continue
        again.append(at)
        if item.status == 503:
            ambiguous.setdefault(at, item)
    return again


def _pause(attempt: int) -> float:
    longest: float = min(_FIRST_PAUSE * 2**attempt, _LONGEST_PAUSE)
    return longest * (0.5 + random.random() / 2)  # noqa: S311 - jitter, not a secret


async def cancel_and_wait(tasks: set[asyncio.Task[None]]) -> None:
    """Cancel tasks and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
