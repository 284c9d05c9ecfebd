"""A canary in each secret place, and every surface on which it must not be seen."""

from __future__ import annotations

import contextlib
import io
import logging
import pickle
import traceback
from collections.abc import Iterator
from typing import Any

from isthmus import AsyncDatabase
from isthmus._core.registry import plugin
from isthmus.errors import IsthmusError

CANARY = "c4n4ry-s3cr3t"

# Backend, config; port 9 on loopback refuses at once.
_PLACES: dict[str, tuple[str, dict[str, Any]]] = {
    "postgres password": ("postgres", {"host": "127.0.0.1", "port": 9, "user": "u", "password": CANARY}),
    "postgres URL": ("postgres", {"url": f"postgres://u:{CANARY}@127.0.0.1:9/app"}),
    "postgres dsn": ("postgres", {"dsn": f"postgresql://u:{CANARY}@127.0.0.1:9/app"}),
    "postgres URL query": ("postgres", {"url": f"postgres://127.0.0.1:9/app?user=u&password={CANARY}"}),
    "postgres bad port": ("postgres", {"url": f"postgres://u:{CANARY}@127.0.0.1:port/app"}),
    "postgres bad host": ("postgres", {"url": f"postgres://u:{CANARY}@[::1/app"}),
    "postgres unknown setting": ("postgres", {"url": f"postgres://u:{CANARY}@127.0.0.1:9/app?nonsense=1"}),
    "postgres bad type": ("postgres", {"password": [CANARY]}),
    "postgres key password": ("postgres", {"host": "127.0.0.1", "port": 9, "ssl_key_password": CANARY}),
    "elasticsearch password": (
        "elasticsearch", {"hosts": ["http://127.0.0.1:9"], "user": "u", "password": CANARY},
    ),
    "elasticsearch URL": ("elasticsearch", {"url": f"es+http://u:{CANARY}@127.0.0.1:9/i"}),
    "elasticsearch host": ("elasticsearch", {"hosts": [f"http://u:{CANARY}@127.0.0.1:9"]}),
    "elasticsearch api_key": ("elasticsearch", {"hosts": ["http://127.0.0.1:9"], "api_key": CANARY}),
    "elasticsearch token": ("elasticsearch", {"hosts": ["http://127.0.0.1:9"], "bearer_token": CANARY}),
    "s3 secret": (
        "s3",
        {
            "bucket": "bucket-1", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1",
            "aws_access_key_id": "key", "aws_secret_access_key": CANARY,
        },
    ),
    "s3 session token": (
        "s3",
        {
            "bucket": "bucket-1", "endpoint_url": "http://127.0.0.1:9", "region": "us-east-1",
            "aws_access_key_id": "key", "aws_secret_access_key": "x", "aws_session_token": CANARY,
        },
    ),
    "s3 URL": ("s3", {"url": f"s3://key:{CANARY}@bucket-1/p?endpoint_url=http://127.0.0.1:9&region=us-east-1"}),
    "sqlalchemy URL": ("sqlalchemy", {"url": f"mysql+asyncmy://u:{CANARY}@127.0.0.1:9/app"}),
    "cursor_secret": ("memory", {"cursor_secret": CANARY}),
    "a replica": (
        "memory", {"layers": {"failover": {"replicas": [f"memory://u:{CANARY}@host/records"]}}},
    ),
    "a bad replica": (
        "postgres", {"layers": {"failover": {"replicas": [f"postgres://u:{CANARY}@[bad/x"]}}},
    ),
    "an unknown scheme": ("nonsense", {"url": f"nonsense://u:{CANARY}@host"}),
}  # fmt: skip


@contextlib.contextmanager
def _listening() -> Iterator[io.StringIO]:
    """Collect all that is logged, at DEBUG and below."""
    text = io.StringIO()
    channel = logging.StreamHandler(text)
    root = logging.getLogger()
    before = root.level
    root.addHandler(channel)
    root.setLevel(1)
    try:
        yield text
    finally:
        root.removeHandler(channel)
        root.setLevel(before)


async def surfaces() -> tuple[int, list[str]]:
    """Show every place on every surface; return how many surfaces there were, and where it was seen."""
    count = 0
    seen: list[str] = []
    for place, (backend, config) in _PLACES.items():
        with _listening() as logged:
            shown: dict[str, str] = {}
            try:
                url = config.get("url")
                if url is not None and len(config) == 1:
                    db = await AsyncDatabase.open(url, lazy=True)
                else:
                    db = AsyncDatabase(backend, config)
                shown |= show_handle(db)
                await _failed(db, shown)
            except IsthmusError as error:
                show_error(error, "refused", shown)
            shown["log"] = logged.getvalue()
        count += len(shown)
        seen += [f"{place}: {name}: {text[:200]}" for name, text in shown.items() if CANARY in text]
    return count, seen


def show_handle(db: AsyncDatabase) -> dict[str, str]:
    config = db.config
    return {
        "repr of the handle": repr(db),
        "repr of the config": repr(config),
        "str of the config": str(config),
        "config.explain()": repr(config.explain()),
        "config dumped": repr(config.model_dump()),
        "config as JSON": _json(config),
        "stats": repr(db.stats) and repr(db._optional_layers),
        "collection": repr(db.collection("other")),
        "backend": repr(db._backend),
        "options": repr(db.options(deadline=1.0)),
        "schema": repr(plugin(db.backend).config().model_json_schema(mode="serialization"))
        if db.backend == "memory"
        else "",
    }


def _json(config: Any) -> str:
    try:
        return str(config.model_dump_json())
    except Exception as error:  # what pydantic cannot serialize; the message counts
        return repr(error)


async def _failed(db: AsyncDatabase, shown: dict[str, str]) -> None:
    for name, call in {
        "connect": db.connect,
        "ping": db.ping,
        "get": lambda: db.get("a"),
        "create": lambda: db.create({"a": 1}),
    }.items():
        try:
            await call()
        except IsthmusError as error:
            show_error(error, name, shown)
    await db.close()


def show_error(error: IsthmusError, name: str, shown: dict[str, str]) -> None:
    """Show an error in every form, its causes and their local variables' names included."""
    shown[f"{name}: str"] = str(error)
    shown[f"{name}: repr"] = repr(error)
    shown[f"{name}: notes"] = repr(getattr(error, "__notes__", ()))
    shown[f"{name}: traceback"] = "".join(traceback.format_exception(error))
    shown[f"{name}: state"] = repr(error.__dict__)
    shown[f"{name}: pickle"] = repr(pickle.dumps(error))
    cause: BaseException | None = error
    chain = []
    while cause is not None:
        chain.append(f"{cause!r} {cause.args!r}")
        cause = cause.__cause__ or cause.__context__
    shown[f"{name}: chain"] = " ".join(chain)
