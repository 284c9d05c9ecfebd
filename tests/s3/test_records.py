"""What a backend owes its records, in both layouts and over both transports."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from isthmus._core.executor import MORE, After, Mutation, PageRequest, WriteKind
from isthmus._path import parse_path
from isthmus._query.ast import FALSE, TRUE, And, Contains, Equal, In, Like, Or, StartsWith
from isthmus._query.evaluate import matches
from isthmus._query.split import Pushdown
from isthmus.backends.s3.backend import DEFAULT, S3Backend
from isthmus.backends.s3.layout import MAX_RECORD_BYTES
from isthmus.backends.s3.object.byte_filter import compile_filter
from isthmus.backends.s3.object.layout import ObjectLayout
from isthmus.backends.s3.transport import conditional_put_probe
from isthmus.errors import (
    AlreadyExistsError,
    ConfigError,
    ConflictError,
    InvalidRecordError,
    NotFoundError,
    NotWrittenError,
    UnsupportedError,
)
from tests.s3.stores import client_of, create, every, ids_of, keys_under, kinds, opened, write

pytestmark = pytest.mark.backend("s3")

WEIRD = [
    "a", "a/b", "a/b/c", "a-b", "..", ".", "%2f", "%", " ", "😀", "'\"\\", "\x01\n", "_layout.json", "!", "~",
    "é" * 256, "x" * 512, "x" * 511 + "y", "x" * 160, "x" * 159 + "z", "\U0010ffff", "UPPER", "upper",
]  # fmt: skip


@pytest.mark.asyncio
async def test_any_id_is_stored_found_listed_in_order_and_deleted(backend: S3Backend) -> None:
    """An id is any text: slashes, dots, emoji, 512 bytes, `a` beside `a/b`."""
    assert await create(backend, *WEIRD, n=1) == WEIRD

    read = await backend.read(DEFAULT, [*WEIRD, "none"])
    assert [record and record.id for record in read] == [*WEIRD, None]
    assert await ids_of(backend) == sorted(WEIRD)
    assert await write(backend, WriteKind.DELETE, *map(Mutation, WEIRD)) == [True] * len(WEIRD)
    assert await ids_of(backend) == []


@pytest.mark.asyncio
async def test_pages_by_id_meet_without_gap_or_overlap(backend: S3Backend) -> None:
    """Whatever the page's size, pages follow each other by the last id, cut ids included."""
    ids = sorted({*WEIRD, *("x" * 160 + f"{n:03}" for n in range(20)), *(f"n{n:03}" for n in range(30))})
    await create(backend, *ids)

    for size in (1, 7, 64):
        seen: list[str] = []
        after: After | None = None
        while True:
            page = await backend.fetch(DEFAULT, PageRequest(TRUE, (), size, after))
            seen += [record.id or "" for record in page.records]
            if page.after is None:
                break
            assert page.after == MORE
            assert len(page.records) == size
            after = After((seen[-1],))
        assert seen == ids


@pytest.mark.asyncio
async def test_unordered_pages_give_each_record_once(backend: S3Backend) -> None:
    """A stream's pages end by themselves and hold every record once."""
    ids = [*(f"{n:04}" for n in range(130)), *("x" * 160 + f"{n:03}" for n in range(20))]
    await create(backend, *ids)

    for size in (7, 60):
        seen: list[str] = []
        after = None
        while True:
            page = await backend.fetch(DEFAULT, PageRequest(TRUE, None, size, after))
            assert len(page.records) <= size
            seen += [record.id or "" for record in page.records]
            after = page.after
            if after is None:
                break
        assert sorted(seen) == ids


@pytest.mark.asyncio
async def test_offset_skips_and_size_cuts(backend: S3Backend) -> None:
    """Offset counts in the order of ids."""
    await create(backend, *"abcdef")

    page = await backend.fetch(DEFAULT, PageRequest(TRUE, (), 2, offset=3))

    assert [record.id for record in page.records] == ["d", "e"]
    assert page.after == MORE
    assert (await backend.fetch(DEFAULT, PageRequest(FALSE, (), 2))).records == []


@pytest.mark.asyncio
async def test_a_large_delete_tells_of_each_id(backend: S3Backend) -> None:
    """2,500 ids, of which every third is there: exact, with neighbours left alone."""
    there = [f"n{n:05}" for n in range(0, 2500, 3)]
    await create(backend, *there, "m", "n", "o")

    results = await write(
        backend, WriteKind.DELETE, *(Mutation(f"n{n:05}") for n in range(2500)), Mutation("n")
    )

    assert results == [n % 3 == 0 for n in range(2500)] + [True]
    assert await ids_of(backend) == ["m", "o"]


@pytest.mark.asyncio
async def test_items_of_one_batch_act_one_after_another(backend: S3Backend) -> None:
    """A batch may name an id twice: the second item meets what the first one did."""
    assert kinds(await create(backend, "a", "b", "a")) == ["a", "b", AlreadyExistsError]
    await write(backend, WriteKind.UPDATE, Mutation("a", {"x": 1}), Mutation("a", {"y": None}))
    assert kinds(await write(backend, WriteKind.DELETE, *map(Mutation, "aabz"))) == [True, False, True, False]
    versions = await write(backend, WriteKind.UPSERT, Mutation("c", {"n": 1}), Mutation("c", {"n": 2}))

    [record] = await every(backend)
    assert (record.data, record.version) == ({"n": 2}, versions[1])


@pytest.mark.asyncio
async def test_writes_keep_and_set_what_the_contract_says(backend: S3Backend) -> None:
    """created_at is kept; replace and upsert set metadata, update merges it."""
    await write(backend, WriteKind.CREATE, Mutation("a", {"x": 1, "y": {"z": 1}}, {"m": 1, "n": 2}))
    [made] = await every(backend)
    await write(backend, WriteKind.UPDATE, Mutation("a", {"y": None, "w": [2**53 + 1, 0.1]}, {"n": None}))
    [updated] = await every(backend)
    await write(backend, WriteKind.REPLACE, Mutation("a", {"only": True}))
    [replaced] = await every(backend)

    assert updated.data == {"x": 1, "y": None, "w": [2**53 + 1, 0.1]}
    assert updated.metadata == {"m": 1, "n": None}
    assert (replaced.data, replaced.metadata) == ({"only": True}, {})
    assert made.created_at == updated.created_at == replaced.created_at
    assert made.updated_at is not None
    assert updated.updated_at is not None
    assert made.updated_at <= updated.updated_at
    assert len({made.version, updated.version, replaced.version}) == 3


@pytest.mark.asyncio
async def test_missing_ids_and_stale_versions_are_told_apart(backend: S3Backend) -> None:
    """NotFound, Conflict and False, each where the contract has it."""
    await create(backend, "a")
    [record] = await every(backend)
    await write(backend, WriteKind.UPDATE, Mutation("a", {"n": 1}))
    stale = record.version

    for kind in (WriteKind.REPLACE, WriteKind.UPDATE):
        results = await write(backend, kind, Mutation("no", {}), Mutation("no", {}, if_version="x"))
        assert kinds(results) == [NotFoundError, NotFoundError]
    assert kinds(await write(backend, WriteKind.UPSERT, Mutation("no", {}, if_version="x"))) == [
        ConflictError
    ]
    assert kinds(await write(backend, WriteKind.DELETE, Mutation("no", if_version="x"))) == [ConflictError]
    for kind in (WriteKind.REPLACE, WriteKind.UPDATE, WriteKind.UPSERT, WriteKind.DELETE):
        results = await write(backend, kind, Mutation("a", {"bad": 1}, if_version=stale))
        assert kinds(results) == [ConflictError]
        assert getattr(results[0], "record_id", None) == "a"
    [now] = await every(backend)
    assert now.data == {"n": 1}
    assert await write(backend, WriteKind.DELETE, Mutation("a", if_version=now.version)) == [True]
    assert await every(backend) == []


@pytest.mark.asyncio
async def test_concurrent_updates_lose_nothing_and_one_create_wins(backend: S3Backend) -> None:
    """Updates of different keys all stay; of racing creates one succeeds."""
    made = await asyncio.gather(*(create(backend, "a", n=n) for n in range(12)))
    await asyncio.gather(*(write(backend, WriteKind.UPDATE, Mutation("a", {f"k{n}": n})) for n in range(12)))

    [record] = await every(backend)
    assert sum(results == ["a"] for results in made) == 1
    assert {f"k{n}" for n in range(12)} <= record.data.keys()


@pytest.mark.asyncio
async def test_of_racing_compare_and_sets_one_wins(backend: S3Backend) -> None:
    """Everybody who read the same version: one write, the others conflict."""
    await create(backend, "a")
    [record] = await every(backend)

    results = await asyncio.gather(
        *(
            write(backend, WriteKind.REPLACE, Mutation("a", {"n": n}, if_version=record.version))
            for n in range(10)
        )
    )

    assert sum(isinstance(result, str) for [result] in results) == 1
    assert sum(isinstance(result, ConflictError) for [result] in results) == 9


@pytest.mark.asyncio
async def test_an_invalid_record_is_that_items_result(backend: S3Backend) -> None:
    """The others of the batch are written; the path is named."""
    results = await write(
        backend, WriteKind.CREATE, Mutation("a", {"n": 1}), Mutation("b", {"n": float("nan")})
    )

    assert kinds(results) == ["a", InvalidRecordError]
    assert getattr(results[1], "record_id", None) == "b"
    assert await ids_of(backend) == ["a"]


@pytest.mark.asyncio
async def test_a_record_above_the_limit_is_refused_before_it_is_sent(backend: S3Backend) -> None:
    """The stated limit is kept on this side."""
    [small, large] = await write(
        backend,
        WriteKind.CREATE,
        Mutation("s", {"t": "x" * 2**20}),
        Mutation("l", {"t": "x" * MAX_RECORD_BYTES}),
    )

    assert (small, type(large)) == ("s", InvalidRecordError)
    assert await ids_of(backend) == ["s"]


@pytest.mark.asyncio
async def test_prefixes_and_collections_do_not_see_each_other(url: str, layout: str, transport: str) -> None:
    """`p` sees neither `p2` nor what is nested below it, and clears neither."""
    settings: dict[str, Any] = {"layout": layout, "transport": transport}
    async with opened(url, **settings) as one:
        prefix = one.config.prefix
        async with (
            opened(url, prefix=prefix + "2", **settings) as two,
            opened(url, prefix=prefix + "/users", **settings) as nested,
        ):
            await create(one, "a", "b")
            await create(one, "c", collection="users")
            await create(one, "d", collection="users 2/é")
            await create(two, "e")
            assert await ids_of(one) == ["a", "b"]
            assert await ids_of(one, "users") == ["c"] == await ids_of(nested)
            assert await ids_of(two) == ["e"]
            assert (await one.count(DEFAULT, TRUE)).count == 2
            assert await one.collections() == [DEFAULT, "users", "users 2/é"]

            assert await one.remove(DEFAULT, TRUE) == 2
            assert await ids_of(one) == []
            assert await ids_of(one, "users") == ["c"]
            assert await ids_of(one, "users 2/é") == ["d"]
            assert await ids_of(two) == ["e"]


@pytest.mark.asyncio
async def test_what_is_not_a_record_is_reported_and_left_alone(
    objects: S3Backend, caplog: pytest.LogCaptureFixture
) -> None:
    """A foreign object is neither found nor counted nor cleared, and does not break a search."""
    await create(objects, "a", "b")
    client, config = await client_of(objects), objects.config
    for name in ("readme.txt", "sub/dir/x.json", "zz", "_other"):
        await client.put_object(Bucket=config.bucket, Key=config.key_prefix + name, Body=b"hello")
    await client.put_object(Bucket=config.bucket, Key=f"{config.key_prefix}c!.json", Body=b'{"id": "c"')

    assert await ids_of(objects) == ["a", "b"]
    assert await objects.read(DEFAULT, ["c"]) == [None]
    assert "readme.txt" in caplog.text
    assert "c!.json" in caplog.text
    await objects.remove(DEFAULT, TRUE)
    left = await keys_under(objects, config.key_prefix)
    assert [key.removeprefix(config.key_prefix) for key in left if "readme" in key or "sub" in key] == [
        "readme.txt",
        "sub/dir/x.json",
    ]


@pytest.mark.asyncio
async def test_another_layout_and_a_newer_format_are_refused(url: str, layout: str) -> None:
    """The marker object says what is there; nothing is written over it."""
    other = {"object": "log", "log": "object"}[layout]
    async with opened(url, layout=layout) as backend:
        config = backend.config
        await create(backend, "a")
        with pytest.raises(ConfigError, match=layout):
            async with opened(url, layout=other, prefix=config.prefix):
                pass
        client = await client_of(backend)
        marker = {"Bucket": config.bucket, "Key": config.key_prefix + "_layout.json"}
        await client.put_object(**marker, Body=b'{"isthmus":99,"layout":"object"}')
        with pytest.raises(ConfigError, match="99"):
            async with opened(url, layout=layout, prefix=config.prefix):
                pass


@pytest.mark.asyncio
async def test_a_log_batch_is_all_or_nothing(url: str) -> None:
    """With atomic, one failed item keeps the whole batch out, and the others say so."""
    async with opened(url, layout="log") as backend:
        await create(backend, "a")

        results = await write(
            backend,
            WriteKind.CREATE,
            Mutation("b", {}),
            Mutation("a", {}),
            Mutation("c", {"x": {1}}),
            atomic=True,
        )

        assert kinds(results) == [NotWrittenError, AlreadyExistsError, InvalidRecordError]
        assert await ids_of(backend) == ["a"]


@pytest.mark.asyncio
async def test_the_byte_filter_passes_every_match(backend: S3Backend) -> None:
    """A pushed leaf is a superset of its meaning: escapes, lists, other spellings of JSON."""
    texts = ['say "hi"', "back\\slash", "é", "line\nbreak", "\x01", "a/b", "a%b", "plain", "😀", ""]
    datas: list[dict[str, Any]] = [{"t": text} for text in texts]
    datas += [{"t": [1, [text]]} for text in texts] + [{"o": {"t": text}} for text in texts] + [{"t": 1}]
    await write(backend, WriteKind.CREATE, *(Mutation(f"r{n:02}", data) for n, data in enumerate(datas)))
    records = await every(backend)
    if backend.config.layout == "object":  # as another tool might write it
        client = await client_of(backend)
        key = f"{backend.config.key_prefix}r02!.json"
        body = await (await client.get_object(Bucket=backend.config.bucket, Key=key))["Body"].read()
        spelled = body.replace("é".encode(), b"\\u00e9")
        assert spelled != body
        await client.put_object(Bucket=backend.config.bucket, Key=key, Body=spelled)
    path = parse_path("t")
    leaves: list[Any] = []
    for text in texts:
        leaves += [
            Equal(path, text),
            StartsWith(path, text[:2]),
            Like(path, f"%{text[1:]}"),
            In(path, (text, "no")),
        ]
        leaves += [Contains(path, text[1:]), Or((Equal(path, text), Equal(path, "plain")))]

    support = backend.support(DEFAULT)
    for leaf in leaves:
        if not isinstance(leaf, Or) and support.pushdown(leaf) is Pushdown.NONE:
            continue
        page = await backend.fetch(DEFAULT, PageRequest(leaf, (), 1000))
        wanted = {record.id for record in records if matches(leaf, record)}
        assert wanted <= {record.id for record in page.records}, leaf


@pytest.mark.asyncio
async def test_transactions_and_aggregates_are_refused(backend: S3Backend) -> None:
    """What S3 cannot do, it says."""
    from isthmus._core.executor import AggregateRequest, TransactionOptions

    with pytest.raises(UnsupportedError):
        backend.begin(TransactionOptions())
    with pytest.raises(UnsupportedError):
        await backend.aggregate(DEFAULT, AggregateRequest(TRUE, ()))
    with pytest.raises(UnsupportedError):
        await backend.remove(DEFAULT, Equal(parse_path("a"), 1))
    assert "GET" in (await backend.explain(DEFAULT, PageRequest(TRUE, (), 1))).native


@pytest.mark.asyncio
async def test_moto_agrees(
    running_server: Callable[[str], Any], layout: str, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second opinion: the main verbs on another server, with keys that a file system cannot hold."""
    url = str(running_server("moto").url)
    async with opened(url, layout=layout, transport=transport) as backend:
        client, config = await client_of(backend), backend.config
        # It checks and writes in two steps, as a race now and then finds out; here one task writes.
        monkeypatch.setitem(conditional_put_probe._puts, (config.endpoint_url, config.bucket), True)
        await client.put_object(Bucket=config.bucket, Key=f"{config.key_prefix}x//y", Body=b"foreign")
        made = await create(backend, "a", "a/b", "é" * 256, "a")
        assert kinds(made) == ["a", "a/b", "é" * 256, AlreadyExistsError]
        [version] = await write(backend, WriteKind.UPDATE, Mutation("a", {"n": 1}))
        assert kinds(await write(backend, WriteKind.REPLACE, Mutation("a", {}, if_version="stale"))) == [
            ConflictError
        ]
        assert isinstance(
            (await write(backend, WriteKind.REPLACE, Mutation("a", {}, if_version=str(version))))[0], str
        )
        assert await ids_of(backend) == ["a", "a/b", "é" * 256]
        assert await write(backend, WriteKind.DELETE, Mutation("a/b"), Mutation("no")) == [True, False]
        assert await backend.remove(DEFAULT, TRUE) == 2
        assert await ids_of(backend) == []


@pytest.mark.asyncio
async def test_a_search_gets_only_what_changed_with_a_cache(url: str, tmp_path: Any) -> None:
    """With the cache a second search lists; a changed record is got again; a folder outlives the handle."""
    from tests.s3.proxy import proxied
    from tests.s3.stores import endpoint_of

    for cache in ({}, {"folder": str(tmp_path / "tags")}):
        async with (
            proxied(endpoint_of(url)) as proxy,
            opened(url, endpoint_url=proxy.endpoint, cache=cache) as backend,
        ):
            await create(backend, *"abcdef")
            await every(backend)
            await write(backend, WriteKind.UPDATE, Mutation("c", {"n": 2}))
            proxy.seen.clear()

            assert [record.data.get("n") for record in await every(backend)] == [
                None,
                None,
                2,
                None,
                None,
                None,
            ]

            assert sum("list-type" not in seen.path for seen in proxy.seen) == 1
            assert isinstance(backend._layout_of(await backend._requests()), ObjectLayout)


def test_a_large_body_is_searched_for_few_operands_only() -> None:
    """Looking for 1,500 in 10 MB took seconds of the loop: such a body passes; conditions on ids hold."""
    wide = Or(tuple(Contains(parse_path(f"f{n}"), f"text {n}") for n in range(1_500)))
    keep, one = compile_filter(wide), compile_filter(Contains(parse_path("t"), "absent"))
    by_id = compile_filter(And((Equal(parse_path("_id"), "a"), wide)))
    assert keep is not None
    assert one is not None
    assert by_id is not None
    large, short = b"x" * 1_000_000, b"x" * 1_000
    started = time.thread_time()

    assert (keep("a", large), keep("a", short), one("a", large)) == (True, False, False)
    assert (by_id("a", large), by_id("b", large)) == (True, False)
    assert time.thread_time() - started < 0.5
