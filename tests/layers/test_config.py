"""Layers asked for in config: presets, names, errors, what derived handles and transactions share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from isthmus import AsyncDatabase, ConfigError, ConnectError, IsthmusError, NotFoundError, SerializationError
from isthmus._core.executor import PageRequest
from isthmus._core.op import Fetch, Op, Write
from isthmus._core.stack import Layer, LayerOrder, Next
from isthmus._query.ast import TRUE
from isthmus.layers import PRESETS
from isthmus.layers.failover import Failover
from isthmus.layers.trace import Call
from tests.layers.stores import READ, Scripted, create, memory, mutations, refused, stack


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_is_one_word_and_seen(preset: str) -> None:
    """repr names each layer that was asked for; none of them without asking."""
    db = AsyncDatabase("memory", {"resilience": preset})

    for name in PRESETS[preset]:
        assert name in repr(db)
    if preset == "none":
        assert repr(db) == repr(AsyncDatabase("memory"))


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"resilience": "servce"}, "did you mean 'service'"),
        ({"layers": {"rety": True}}, "did you mean 'retry'"),
        ({"layers": {"retry": {"atempts": 2}}}, "did you mean 'attempts'"),
        ({"layers": {"retry": {"attempts": 0}}}, "at least 1"),
        ({"layers": {"retry": {"attempts": 2.5}}}, "whole number"),
        ({"layers": {"retry": {"base": "soon"}}}, "a number"),
        ({"layers": {"retry": {"jitter": "some"}}}, "decorrelated"),
        ({"layers": {"deadline": 0}}, "more than 0"),
        ({"layers": {"deadline": float("nan")}}, "more than 0"),
        ({"layers": {"metrics": 3}}, "True, False or a mapping"),
        ({"layers": {"trace": True}}, "needs 'spans'"),
        ({"layers": {"trace": {"spans": 3}}}, "function"),
        ({"layers": {"failover": {"replicas": []}}}, "list of URLs"),
        ({"layers": {"failover": "sqlite:///x"}}, "failover"),
        ({"deadline": -1}, "deadline"),
    ],
)
def test_a_wrong_setting_is_named_before_any_io(config: dict[str, Any], said: str) -> None:
    """A ConfigError that names the setting, and the nearest known one."""
    with pytest.raises(ConfigError, match=said):
        AsyncDatabase("memory", config)


def test_settings_come_from_a_url_too() -> None:
    """As text, that is read as numbers and words."""
    config = AsyncDatabase(
        "memory",
        {"url": "memory://records?resilience=batch&layers.retry.attempts=4&layers.limit=true&deadline=2"},
    )

    assert all(name in repr(config) for name in ("retry", "limit", "deadline", "metrics"))


def test_a_layer_of_a_preset_can_be_left_out_or_changed() -> None:
    """False leaves it out; settings go on top of the preset's."""
    db = AsyncDatabase("memory", {"resilience": "service", "layers": {"breaker": False, "retry": 7}})

    assert "breaker" not in repr(db)
    assert next(layer for layer in db._optional_layers if layer.order is LayerOrder.RETRY)._attempts == 7  # type: ignore[attr-defined]


@pytest.mark.asyncio
async def test_derived_handles_share_what_is_equal() -> None:
    """One budget, one breaker and one set of counts for a handle and what is derived from it."""
    db = await AsyncDatabase.create("memory", {"resilience": "service"})
    derived = db.options(deadline=1.0)

    await derived.create({"n": 1})

    assert db.stats().layers["metrics"]["create.calls"] == 1
    assert "deadline" in repr(derived)
    await derived.close()
    assert await db.count() == 1
    await db.close()


class Failing(Layer):
    """Fails every operation."""

    order = LayerOrder.CONTEXT
    in_transaction = True
    calls = 0

    async def handle(self, op: Op[Any], call_next: Next, /) -> Any:
        """Fail."""
        self.calls += 1
        raise ConnectError("no")


@pytest.mark.asyncio
async def test_nothing_is_repeated_inside_a_transaction() -> None:
    """The transaction is the unit: its statements are not repeated alone."""
    failing = Failing()
    layers = {"retry": {"attempts": 5}, "failing": failing}
    db = await AsyncDatabase.create("memory", {"layers": layers})

    with pytest.raises(ConnectError):
        async with db.transaction() as tx:
            await tx.create({"n": 1})

    assert failing.calls == 1
    await db.close()


@pytest.mark.asyncio
async def test_metrics_count_calls_items_errors_and_time() -> None:
    """By operation; the buckets are cumulative in the flat form."""
    db = await AsyncDatabase.create("memory", {"layers": {"metrics": True}})

    await db.create_batch([{"n": n} for n in range(5)])
    with pytest.raises(NotFoundError):
        await db.update("missing", {"n": 1})

    counts = db.stats().layers["metrics"]
    assert counts["create.calls"] == 1
    assert counts["create.items"] == 5
    assert counts["update.errors.NotFoundError"] == 1
    assert counts["create.le_10"] == 1
    assert 0 < counts["create.seconds"] < 10
    await db.close()


@pytest.mark.asyncio
async def test_a_span_is_around_each_call_and_sees_its_error() -> None:
    """With names and sizes, never with the user's values."""
    seen: list[tuple[Call, str]] = []

    @contextlib.contextmanager
    def spans(call: Call) -> Iterator[None]:
        try:
            yield
        except IsthmusError as error:
            seen.append((call, type(error).__name__))
            raise
        seen.append((call, "done"))

    db = await AsyncDatabase.create("memory", {"layers": {"trace": spans, "retry": True}})
    await db.create_batch([{"secret": "text"}] * 3)
    with contextlib.suppress(SerializationError):
        await db.get("a")

    assert [(c.operation, c.size, how) for c, how in seen] == [("create", 3, "done"), ("get", 1, "done")]
    assert "text" not in repr(seen)
    await db.close()


@pytest.mark.asyncio
async def test_a_read_is_answered_by_a_replica_while_the_store_is_down() -> None:
    """Reads only, and only what another store can go on with."""
    replica = memory()
    await replica.write("records", create("a").kind, mutations(["a"]), atomic=False)
    layer = Failover(replicas=[lambda: replica])
    stacked = stack(layer, Scripted(*[refused] * 4))

    (found,) = await stacked.run(READ)

    assert found is not None
    with pytest.raises(ConnectError):
        await stacked.run(create("b"))
    with pytest.raises(ConnectError):
        await stacked.run(Fetch("records", PageRequest(TRUE, None, 10, after=("x",))))
    with pytest.raises(ConnectError):
        await stacked.run(Fetch("records", PageRequest(TRUE, (), 10, consistent=True)))
    assert layer.counts() == {"failed_over": 1}


@pytest.mark.asyncio
async def test_when_the_replicas_are_down_too_the_first_error_is_raised() -> None:
    """With a note for each replica."""

    class Down:
        async def open(self, collection: str) -> None:
            raise ConnectError("replica is down")

        async def close(self) -> None:
            return

    layer = Failover(replicas=[Down])  # type: ignore[list-item]

    with pytest.raises(ConnectError, match="refused") as caught:
        await stack(layer, Scripted(refused)).run(READ)

    assert "replica 1 failed too" in caught.value.__notes__[0]
    await layer.close()


def test_a_write_is_never_moved() -> None:
    """Failover does not even see writes."""
    assert Write not in (Failover.ops or ())
