"""An item that was done, was answered 503 and is sent again: never reported as refused for another's sake."""

from __future__ import annotations

import json
from typing import Any

import pytest

from isthmus._core.executor import Mutation, WriteKind
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.errors import AlreadyExistsError, Applied, RateLimitedError, UnavailableError
from tests.elasticsearch.conftest import Build
from tests.elasticsearch.proxy import AnswerProxy, unavailable

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


@pytest.fixture
def store(proxy: AnswerProxy, build: Build) -> ElasticsearchBackend:
    """Return a backend that speaks through the proxy."""
    return build(hosts=[proxy.url])


async def write(store: ElasticsearchBackend, kind: WriteKind, *changes: Mutation) -> list[Any]:
    """Write changes of one kind to the default collection."""
    return list(await store.write(store.default_collection, kind, changes, atomic=False))


def doubting(proxy: AnswerProxy, id: str, *, status: int = 503, times: int = 1) -> None:
    """Have the next answers about an id say that it could not be done, although it was."""
    left = [times]

    def change(_: int, body: bytes, answer: Any) -> Any:
        ids = [action["_id"] for action in _actions(body)]
        if left[0] and id in ids:
            left[0] -= 1
            (verb,) = answer["items"][ids.index(id)]
            answer["items"][ids.index(id)] = {verb: unavailable(status)}
            answer["errors"] = True
        return answer

    proxy.change = change


def _actions(body: bytes) -> list[dict[str, Any]]:
    shapes = [json.loads(line) for line in body.splitlines()]
    verbs = ("create", "index", "delete")
    actions = [shape.get(verb) for shape in shapes for verb in verbs if len(shape) == 1]
    return [action for action in actions if isinstance(action, dict) and "_id" in action]


async def data_of(store: ElasticsearchBackend, id: str) -> Any:
    """Return the data of a record, None if there is none."""
    (record,) = await store.read(store.default_collection, [id])
    return None if record is None else record.data


async def test_a_create_with_an_id_of_ours_went_well(store: ElasticsearchBackend, proxy: AnswerProxy) -> None:
    """Refused as existing, an id made for this very record can only be our own first attempt."""
    doubting(proxy, "b")
    changes = [Mutation(id, {"n": 1}) for id in "abc"]
    for change in changes:
        change.own_id = True

    results = await write(store, WriteKind.CREATE, *changes)

    assert results == ["a", "b", "c"]
    assert len(proxy.bulks) == 2
    assert [action["_id"] for action in _actions(proxy.bulks[1])] == ["b"]


async def test_a_create_with_an_id_of_the_callers_stays_in_doubt(
    store: ElasticsearchBackend, proxy: AnswerProxy
) -> None:
    """What stands there may be another's, made at the same time with the same data: `applied` is MAYBE."""
    doubting(proxy, "b")

    results = await write(store, WriteKind.CREATE, *(Mutation(id, {"n": 1}) for id in "abc"))

    assert (results[0], results[2]) == ("a", "c")
    assert isinstance(results[1], UnavailableError)
    assert results[1].applied is Applied.MAYBE
    assert "AlreadyExistsError" in results[1].__notes__[0]
    assert await data_of(store, "b") == {"n": 1}


async def test_a_create_of_what_stood_there_before_exists_for_sure(
    store: ElasticsearchBackend, proxy: AnswerProxy
) -> None:
    """A record that was created before our attempt is another's, whatever the first answer was."""
    await write(store, WriteKind.CREATE, Mutation("b", {"n": 1}))
    doubting(proxy, "b")

    (result,) = await write(store, WriteKind.CREATE, Mutation("b", {"n": 1}))

    assert isinstance(result, AlreadyExistsError)
    assert result.applied is Applied.NO


async def test_an_item_refused_for_load_was_not_done(store: ElasticsearchBackend, proxy: AnswerProxy) -> None:
    """429 comes before anything is done, so an id that exists then was there before."""
    await write(store, WriteKind.CREATE, Mutation("b", {"n": 1}))
    doubting(proxy, "b", status=429)

    (result,) = await write(store, WriteKind.CREATE, Mutation("b", {"n": 1}))

    assert isinstance(result, AlreadyExistsError)
    assert result.applied is Applied.NO


@pytest.mark.parametrize("kind", [WriteKind.UPDATE, WriteKind.REPLACE, WriteKind.UPSERT])
async def test_a_record_that_stands_as_we_sent_it_was_written(
    store: ElasticsearchBackend, proxy: AnswerProxy, kind: WriteKind
) -> None:
    """Its version is the one that the lost answer would have told, and it was written once."""
    await write(store, WriteKind.CREATE, Mutation("b", {"n": 1, "m": 1}))
    doubting(proxy, "b")

    (version,) = await write(store, kind, Mutation("b", {"n": 2}))

    (record,) = await store.read(store.default_collection, ["b"])
    assert record is not None
    assert record.version == version
    assert record.data == ({"n": 2, "m": 1} if kind is WriteKind.UPDATE else {"n": 2})
    # Sequence numbers count the writes of a shard; a refused one has none.
    assert version.partition(".")[0] == "1"


async def test_an_upsert_of_a_new_id_that_stands_as_we_sent_it_was_written(
    store: ElasticsearchBackend, proxy: AnswerProxy
) -> None:
    """It went as a create, which was refused as existing when it was sent again."""
    doubting(proxy, "new")

    (version,) = await write(store, WriteKind.UPSERT, Mutation("new", {"n": 2}))

    (record,) = await store.read(store.default_collection, ["new"])
    assert record is not None
    assert (record.version, record.data) == (version, {"n": 2})


async def test_a_change_that_was_ours_and_was_changed_since_is_not_made_again(
    store: ElasticsearchBackend, proxy: AnswerProxy, build: Build
) -> None:
    """To do it once more would undo the other's change: the unknown outcome is reported instead."""
    await write(store, WriteKind.CREATE, Mutation("b", {"n": 1}))
    other = build(index=store.default_collection)
    doubting(proxy, "b")

    class Meanwhile:
        """A clock in whose pauses another writer comes."""

        def now(self) -> float:
            return 0.0

        async def sleep(self, seconds: float) -> None:
            await write(other, WriteKind.UPDATE, Mutation("b", {"n": 3}))

    store._collection(store.default_collection).bulk._clock = Meanwhile()

    (result,) = await write(store, WriteKind.UPDATE, Mutation("b", {"n": 2}))

    assert isinstance(result, UnavailableError)
    assert result.applied is Applied.MAYBE
    assert await data_of(store, "b") == {"n": 3}


async def test_a_change_on_a_version_stays_in_doubt(store: ElasticsearchBackend, proxy: AnswerProxy) -> None:
    """Two processes that count from 1 to 2 write the same record: which of them did is not known."""
    await write(store, WriteKind.CREATE, Mutation("b", {"n": 1}))
    (record,) = await store.read(store.default_collection, ["b"])
    assert record is not None
    doubting(proxy, "b")

    (result,) = await write(store, WriteKind.UPDATE, Mutation("b", {"n": 2}, if_version=record.version))

    assert isinstance(result, UnavailableError)
    assert result.applied is Applied.MAYBE


async def test_a_delete_without_a_version_is_not_sent_again(
    store: ElasticsearchBackend, proxy: AnswerProxy
) -> None:
    """It would delete what another writer made in between. With a version it is sent again."""
    await write(store, WriteKind.CREATE, Mutation("a", {}), Mutation("b", {}), Mutation("c", {}))
    (record,) = await store.read(store.default_collection, ["c"])
    assert record is not None
    sent = len(proxy.bulks)

    doubting(proxy, "b")
    deleted = await write(store, WriteKind.DELETE, Mutation("a"), Mutation("b"))
    doubting(proxy, "c")
    (stale,) = await write(store, WriteKind.DELETE, Mutation("c", if_version=record.version))

    assert len(proxy.bulks) - sent == 3
    assert deleted[0] is True
    for result in (deleted[1], stale):
        assert isinstance(result, UnavailableError)
        assert result.applied is Applied.MAYBE
    assert await data_of(store, "b") is None


async def test_an_item_that_stays_refused_says_whether_it_may_be_done(
    proxy: AnswerProxy, build: Build
) -> None:
    """After 503 to the last attempt the outcome is unknown; after 429 it is not."""
    store = build(hosts=[proxy.url], bulk={"retries": 1})
    doubting(proxy, "a", times=9)
    (maybe,) = await write(store, WriteKind.CREATE, Mutation("a", {}))
    doubting(proxy, "b", status=429, times=9)
    (never,) = await write(store, WriteKind.CREATE, Mutation("b", {}))

    assert isinstance(maybe, UnavailableError)
    assert maybe.applied is Applied.MAYBE
    assert isinstance(never, RateLimitedError)
    assert never.applied is Applied.NO
