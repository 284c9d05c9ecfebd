"""Random and mutated input for the parsers: only typed errors, and none takes a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from random import Random
from typing import Any

import orjson

from isthmus import Query, field
from isthmus._core.registry import BACKENDS, backend_names, plugin
from isthmus._query.codec import from_json, to_json
from isthmus._query.cursor import decode_cursor, encode_cursor
from isthmus.errors import ConfigError, IsthmusError, QueryError
from tests.security.payloads import SEEDS

SLOW = 1.0
_URLS = (
    "postgres://user:secret@h1:5432,h2/app?pool.max_size=20&sslmode=require",
    "postgresql:///app?host=/run/pg",
    "sqlite:///file.db",
    "sqlite://:memory:",
    "memory://",
    "es+https://elastic:secret@host:9200/index?pool.maxsize=10",
    "es+http://[::1]:9200/i",
    "s3://bucket/prefix?region=eu-west-1&endpoint_url=http://127.0.0.1:9000&layout=log",
)
_KEYS = (
    "host",
    "port",
    "user",
    "password",
    "database",
    "pool",
    "pool.max_size",
    "url",
    "dsn",
    "table",
    "index",
    "bucket",
    "prefix",
    "region",
    "resilience",
    "layers",
    "deadline",
    "cursor_secret",
    "sort_cap",
    "ssl",
    "hosts",
    "layout",
    "x",
)
_QUERY = to_json(
    Query()
    .filter("a.b", ">=", 1)
    .filter("name", "like", "A%")
    .any_of(field("x") == 1, field("y").regex("^a"), ~field("z").exists())
    .sort("n", "desc", nulls="first")
    .limit(10)
    .select("a", "b")
)


def mangled(rng: Random, text: str) -> str:
    """Return text with some pieces cut, doubled, swapped or replaced."""
    for _ in range(rng.randint(1, 4)):
        at, end = sorted((rng.randrange(len(text) + 1), rng.randrange(len(text) + 1)))
        piece = rng.choice(
            ("", rng.choice(SEEDS), text[at:end] * 2, chr(rng.randrange(1, 0xD7FF)), "%", "0" * 50)
        )
        text = text[:at] + piece + text[min(end, at + rng.randrange(0, 9)) :]
    return text


def junk(rng: Random, depth: int = 0) -> Any:
    """Return any JSON-like value, and some that JSON has not."""
    kind = rng.randrange(14 if depth < 6 else 9)
    match kind:
        case 0:
            return None
        case 1:
            return rng.random() < 0.5
        case 2:
            return rng.choice((0, -1, 1, 2**31, 2**63, -(2**63), 2**70, rng.randrange(100)))
        case 3:
            return rng.choice((0.5, -0.0, 1e308, float("inf"), float("nan")))
        case 4 | 5 | 6:
            return rng.choice(SEEDS)
        case 7:
            return b"bytes"
        case 8:
            return object()
        case 9 | 10:
            return [junk(rng, depth + 1) for _ in range(rng.randrange(4))]
        case _:
            words = (
                "where",
                "sort",
                "limit",
                "offset",
                "select",
                "and",
                "or",
                "not",
                "field",
                "op",
                "value",
                "match",
            )
            return {rng.choice(words): junk(rng, depth + 1) for _ in range(rng.randrange(4))}


def _altered(rng: Random, value: Any) -> Any:
    """Return a JSON value with one part of it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        changed = {**value, key: _altered(rng, value[key])}
        if rng.random() < 0.1:
            changed[rng.choice(_KEYS)] = junk(rng)
        return changed
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], _altered(rng, value[at]), *value[at + 1 :]]
    return junk(rng)


def _url(rng: Random) -> None:
    url = mangled(rng, rng.choice(_URLS))
    plugin(url.split("://", 1)[0]).config().load({"url": url}, environ={})


def _config(rng: Random) -> None:
    chosen = plugin(rng.choice(BACKENDS)).config()
    chosen.load({rng.choice(_KEYS): junk(rng) for _ in range(rng.randrange(5))}, environ={})


def _query(rng: Random) -> None:
    shape = junk(rng) if rng.random() < 0.2 else _altered(rng, _QUERY)
    query = from_json(shape)
    if from_json(to_json(query)) != query:
        raise AssertionError(f"{query!r} does not survive its own JSON")


def _query_text(rng: Random) -> None:
    text = mangled(rng, orjson.dumps(_QUERY).decode())
    try:
        shape = orjson.loads(text)
    except orjson.JSONDecodeError:
        return
    from_json(shape)


_CURSOR_QUERY = Query().filter("a", ">", 1).sort("n")
_TOKEN = encode_cursor(((3, 17), "some-id"), _CURSOR_QUERY, "records", b"")


def _cursor(rng: Random) -> None:
    token: Any = mangled(rng, _TOKEN) if rng.random() < 0.9 else junk(rng)
    if token == _TOKEN:
        return
    decode_cursor(token, _CURSOR_QUERY, "records", b"")
    raise AssertionError(f"a changed cursor was accepted: {token!r}")


PARSERS: dict[str, Callable[[Random], None]] = {
    "url": _url,
    "config": _config,
    "query": _query,
    "query text": _query_text,
    "cursor": _cursor,
}


def fuzz(name: str, count: int, seed: int) -> tuple[int, float, list[str]]:
    """Feed a parser; return how many inputs it refused, the slowest time, and what was wrong."""
    rng = Random(seed)
    parser = PARSERS[name]
    for backend in backend_names():
        plugin(backend).config()  # importing is not parsing
    refused, slowest = 0, 0.0
    wrong: list[str] = []
    for number in range(count):
        begun = time.perf_counter()
        try:
            parser(rng)
        except IsthmusError as error:
            refused += 1
            if not isinstance(error, (QueryError, ConfigError)):
                wrong.append(f"{name} #{number} seed {seed}: {error!r}"[:300])
        except (Exception, RecursionError) as error:  # that is what is looked for
            wrong.append(f"{name} #{number} seed {seed}: {type(error).__name__}: {error}"[:300])
        seconds = time.perf_counter() - begun
        slowest = max(slowest, seconds)
        if seconds > SLOW:
            wrong.append(f"{name} #{number} seed {seed}: took {seconds:.1f} s")
    return refused, slowest, wrong


def mutated_cursors(count: int, seed: int) -> list[str]:
    """Change one character, one bit or one length of a good cursor; return those that were accepted."""
    rng = Random(seed)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=+/ ."
    accepted = []
    for secret in (b"", b"a secret"):
        token = encode_cursor(((3, 17), "some-id"), _CURSOR_QUERY, "records", secret)
        for _ in range(count // 2):
            at = rng.randrange(len(token))
            changed = rng.choice(
                (
                    token[:at] + rng.choice(alphabet) + token[at + 1 :],
                    token[:at] + token[at + 1 :],
                    token[:at] + rng.choice(alphabet) + token[at:],
                    token[:at],
                )
            )
            if changed == token:
                continue
            try:
                decode_cursor(changed, _CURSOR_QUERY, "records", secret)
            except QueryError:
                continue
            accepted.append(changed)
    return accepted
