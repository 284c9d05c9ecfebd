"""A proxy in front of the real node that changes what the node answers, after it did what it was asked."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import orjson
from aiohttp import ClientSession, web

# Takes a request's number among those of its path's last part, its body, and the decoded answer.
Change: TypeAlias = Callable[[int, bytes, Any], Any]

PRODUCT = {"x-elastic-product": "Elasticsearch"}


class AnswerProxy:
    """Passes requests to a node; the answers to `_bulk` go through a test's function."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.bulks: list[bytes] = []
        """The bodies of the bulk requests so far."""
        self.change: Change = lambda number, body, answer: answer
        self.refused: set[tuple[str, str]] = set()
        """Methods and paths for which the node has no memory: their requests do not reach it."""
        self.redirect: tuple[int, str] | None = None
        """A status and a host to which every request is redirected; none of them reaches the node."""
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        """Pass one request on."""
        body = await request.read()
        if self.redirect is not None:
            status, host = self.redirect
            return web.Response(status=status, headers={"location": host + request.raw_path, **PRODUCT})
        if (request.method, request.path) in self.refused:
            return web.json_response(no_memory(request), status=429, headers=PRODUCT)
        async with (
            ClientSession() as session,
            session.request(
                request.method, self._target + request.raw_path, data=body, headers=_passed(request)
            ) as answer,
        ):
            said = await answer.read()
            if request.path.endswith("/_bulk"):
                self.bulks.append(body)
                said = orjson.dumps(self.change(len(self.bulks), body, orjson.loads(said)))
            return web.Response(
                status=answer.status, body=said, content_type="application/json", headers=PRODUCT
            )


def _passed(request: web.Request) -> dict[str, str]:
    return {name: request.headers[name] for name in ("accept", "content-type") if name in request.headers}


@contextlib.asynccontextmanager
async def answering(target: str) -> AsyncIterator[AnswerProxy]:
    """Run a proxy to a node."""
    proxy = AnswerProxy(target)
    application = web.Application(client_max_size=2**28)
    application.router.add_route("*", "/{rest:.*}", proxy.answer)
    runner = web.AppRunner(application)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        proxy.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield proxy
    finally:
        await runner.cleanup()


def no_memory(request: web.Request) -> dict[str, Any]:
    """Return what a node says whose circuit breaker refuses a request."""
    error = {"type": "circuit_breaking_exception", "reason": f"{request.method} {request.path}: too large"}
    return {"status": 429, "error": error}


def unavailable(status: int) -> dict[str, Any]:
    """Return what a node says of an item that it could not finish, or did not begin."""
    kind = {429: "es_rejected_execution_exception", 503: "unavailable_shards_exception"}[status]
    return {"status": status, "error": {"type": kind, "reason": "by the proxy"}}
