"""Natural names, types that never change, and records that disagree with them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from isthmus import field
from isthmus._core.executor import Mutation, PageRequest, WriteKind
from isthmus._query.ast import TRUE, Predicate
from isthmus._query.evaluate import matches
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend
from isthmus.errors import ConfigError
from tests.elasticsearch.conftest import Build

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]


async def create(backend: ElasticsearchBackend, **records: Any) -> None:
    """Create records by their ids."""
    changes = [Mutation(id, data) for id, data in records.items()]
    results = await backend.write(backend.default_collection, WriteKind.CREATE, changes, atomic=False)
    assert results == list(records)


async def answer(backend: ElasticsearchBackend, where: Predicate) -> tuple[set[str], set[str]]:
    """Return the ids that the server is sure of, and those that it leaves to be rechecked."""
    page = await backend.fetch(backend.default_collection, PageRequest(where, (), 1_000))
    return {str(r.id) for r in page.records}, {str(r.id) for r in page.recheck}


async def source(backend: ElasticsearchBackend, id: str) -> dict[str, Any]:
    """Return a document as the server has it."""
    native = await backend.native()
    found = await native.get(index=backend.default_collection, id=id)
    return dict(found["_source"])


async def types(backend: ElasticsearchBackend) -> dict[str, str]:
    """Return the mapped fields of the data."""
    native = await backend.native()
    mapping = await native.indices.get_mapping(index=backend.default_collection)
    properties = mapping[backend.default_collection]["mappings"]["properties"]["data"]["properties"]
    return {name: field["type"] for name, field in properties.items()}


async def test_fields_keep_their_names_and_get_plain_types(backend: ElasticsearchBackend) -> None:
    """What Kibana shows is the record: nothing is renamed, dates are text, nothing is analyzed."""
    await create(
        backend,
        a={"name": "x", "age": 1, "big": 2**60 + 1, "ok": True, "at": "2026-01-01", "in": {"er": [1.5]}},
    )

    assert await types(backend) == {
        "name": "keyword",
        "age": "double",
        "big": "long",
        "ok": "boolean",
        "at": "keyword",
        "in.er": "double",
    }
    document = await source(backend, "a")
    assert document["data"]["in"] == {"er": [1.5]}
    assert "odd" not in document
    assert document["obj"] == ["data.in"]


async def test_only_records_that_disagree_are_judged_here(backend: ElasticsearchBackend) -> None:
    """A number among texts, an object among numbers: stored, found, and the only recheck candidate."""
    await create(backend, **{f"n{at}": {"population": at} for at in range(20)})
    await create(backend, text={"population": "about 5"}, thing={"population": {"low": 1}}, other={"x": 1})

    sure, recheck = await answer(backend, field("population") >= 5)
    assert sure == {f"n{at}" for at in range(5, 20)}
    assert recheck == {"text"}
    sure, recheck = await answer(backend, field("population").exists())
    assert sure == {*(f"n{at}" for at in range(20)), "thing"}
    assert recheck == {"text"}


@pytest.mark.parametrize(
    "data",
    [
        {"": 1},
        {" ": 1},
        {"\n": {"x": 1}},
        {"a": {"": 1}},
        {"a": [{"": 1}, {" ": 2}]},
        {"a.b": 1, "a": {"b": 2}},
        {".": 1, "a..b": 2, ".a": 3, "a.": 4},
        {"*": 1, "a*": 2},
        {"k" * 40_000: 1},
        {"k" * 60_000: {"x": "y"}},
        {f"k{at}": at for at in range(12_000)},
        {"id": 1, "odd": ["*"], "obj": 2, "raw": 3, "data": {"data": 1}, "_id": 5, "_source": 6},
        {"t": "x" * 1_000_000, "l": ["y" * 9_000, "z"]},
        {"t": "\u2028 \x7f \U0010ffff"},
        {"n": [2**63 - 1, -(2**63), 2**53 + 1, 1e308, 5e-324]},
        {"e": [[], [[]], {}, [{}], None, [None]]},
    ],
    ids=lambda data: repr(data)[:30],
)
async def test_no_record_that_the_contract_accepts_is_refused_or_lost(
    backend: ElasticsearchBackend, data: dict[str, Any]
) -> None:
    """It comes back as it was, and every query on its keys finds it or hands it over to be rechecked."""
    await create(backend, plain={"a": "x", "n": 1, "t": "t"}, hard=data)

    (record,) = await backend.read(backend.default_collection, ["hard"])

    assert record is not None
    assert record.data == data
    for key in list(data)[:20]:
        for where in (field([key]).exists(), field([key]) == 1, field([key]) >= "", ~field([key]).exists()):
            sure, recheck = await answer(backend, where)
            assert "hard" in sure | recheck or not matches(where, record), (key[:50], where)
            assert "hard" not in sure or matches(where, record), (key[:50], where)


async def test_ninety_levels_are_stored(backend: ElasticsearchBackend) -> None:
    """The contract allows a hundred; the server's own limit counts mapped ones."""
    data: dict[str, Any] = {"leaf": 1}
    for _ in range(90):
        data = {"x": data}

    await create(backend, deep=data)

    (record,) = await backend.read(backend.default_collection, ["deep"])
    assert record is not None
    assert record.data == data


async def test_two_writers_agree_on_types(build: Build) -> None:
    """The second one, which would have chosen another type, follows the first."""
    first = build()
    await first.open(first.default_collection)
    second = build(index=first.default_collection)
    await second.open(second.default_collection)

    await create(first, a={"v": 1})
    await create(second, b={"v": "text"}, c={"v": 2})

    for backend in (first, second):
        await backend.refresh(backend.default_collection)
        assert await answer(backend, field("v") >= 0) == ({"a", "c"}, {"b"})


async def test_fifty_writers_that_meet_a_new_field_at_once_agree(build: Build) -> None:
    """Half of them hold a number there, half a text; none is refused and none is lost."""
    first = build()
    await first.open(first.default_collection)
    second = build(index=first.default_collection)
    jobs = [
        create((first, second)[at % 2], **{f"r{at}": {"v": at if at % 3 else str(at), f"f{at % 4}": True}})
        for at in range(50)
    ]

    await asyncio.gather(*jobs)

    await first.refresh(first.default_collection)
    page = await first.fetch(first.default_collection, PageRequest(field("v") >= 0, (), 100))
    found = list(page.records) + [r for r in page.recheck if matches(field("v") >= 0, r)]
    assert {r.id for r in found} == {f"r{at}" for at in range(50) if at % 3}
    assert (await first.count(first.default_collection, TRUE)).count == 50


async def test_a_reader_learns_of_a_field_that_another_process_added(build: Build) -> None:
    """A path that this process has no mapping for makes it read the mapping again."""
    reader = build()
    await reader.open(reader.default_collection)
    writer = build(index=reader.default_collection)
    assert await answer(reader, field("late") == 1) == (set(), set())

    await create(writer, a={"late": 1})
    await writer.refresh(writer.default_collection)

    assert await answer(reader, field("late") == 1) == ({"a"}, set())


async def test_beyond_the_field_limit_records_are_judged_here(build: Build) -> None:
    """The limit is the index's; nothing is refused, and fields that came first stay exact."""
    backend = build(field_limit=30)
    await create(backend, first={"a": 1})
    await create(backend, many={f"k{at:02}": at for at in range(40)}, later={"a": 2, "new": "x"})

    mapped = await types(backend)
    assert len(mapped) <= 22
    assert await answer(backend, field("a") >= 1) == ({"first", "later"}, set())
    sure, recheck = await answer(backend, field("k39") == 39)
    assert (sure, recheck) == (set(), {"many"})
    assert (await answer(backend, field("new") == "x"))[1] == {"later"}


async def test_a_list_of_objects_is_searched_inside(backend: ElasticsearchBackend) -> None:
    """The list's own path is mapped first, or the server would silently not index what is in it."""
    await create(
        backend, a={"items": [{"price": 1}, {"price": 5}]}, b={"items": []}, c={"items": {"price": 9}}
    )

    assert await answer(backend, field("items.price") >= 5) == ({"a", "c"}, set())
    assert await answer(backend, ~field("items.price").exists()) == ({"b"}, set())


async def test_an_index_that_others_made_is_refused(build: Build) -> None:
    """Its answers could not be exact."""
    backend = build()
    native = await backend.native()
    await native.indices.create(index=backend.default_collection, mappings={"properties": {}})

    with pytest.raises(ConfigError, match="not made by isthmus"):
        await backend.open(backend.default_collection)
    await native.indices.delete(index=backend.default_collection)


async def test_a_newer_format_is_refused(build: Build) -> None:
    """A later isthmus may have changed the layout."""
    backend = build()
    native = await backend.native()
    meta = {"isthmus": {"format": 99}}
    await native.indices.create(index=backend.default_collection, mappings={"_meta": meta})

    with pytest.raises(ConfigError, match="format 99"):
        await backend.open(backend.default_collection)
    await native.indices.delete(index=backend.default_collection)


async def test_a_missing_index_is_not_made_where_that_is_forbidden(build: Build) -> None:
    """`create_index="never"` is for people without the privilege."""
    backend = build(create_index="never")

    with pytest.raises(ConfigError, match="never"):
        await backend.open(backend.default_collection)


async def test_an_alias_serves_as_well_as_an_index(build: Build) -> None:
    """People who roll their indices point an alias at one of them."""
    first = build()
    await create(first, a={"n": 1})
    native = await first.native()
    alias = first.default_collection + "-alias"
    await native.indices.put_alias(index=first.default_collection, name=alias)
    second = build(index=alias)

    await create(second, b={"n": 2, "new": "x"})

    assert await answer(second, field("n") >= 1) == ({"a", "b"}, set())
    await native.indices.delete_alias(index=first.default_collection, name=alias)


async def test_a_template_decides_what_the_config_leaves_open(build: Build) -> None:
    """Settings are sent only where they were given."""
    backend = build()
    native = await backend.native()
    name = backend.default_collection
    settings = {"number_of_replicas": 0, "refresh_interval": "7s"}
    await native.indices.put_index_template(
        name=name, index_patterns=[name], template={"settings": settings}, priority=500
    )
    try:
        await backend.open(name)
        found = await native.indices.get_settings(index=name)
    finally:
        await native.indices.delete_index_template(name=name)

    assert found[name]["settings"]["index"]["refresh_interval"] == "7s"


async def test_the_server_never_makes_an_index_of_its_own(backend: ElasticsearchBackend) -> None:
    """It would, with a guessed mapping, for a bulk request to an index that somebody deleted."""
    index = backend.default_collection
    await create(backend, a={"n": 1})
    native = await backend.native()
    await native.indices.delete(index=index)

    await create(backend, b={"n": 2})

    mapping = await native.indices.get_mapping(index=index)
    assert mapping[index]["mappings"]["_meta"] == {"isthmus": {"format": 1}}
    assert await types(backend) == {"n": "double"}


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "Upper",
        "-a",
        "_a",
        "+a",
        ".a",
        "a*b",
        "a b",
        "a,b",
        "a/b",
        "a\\b",
        "a#b",
        "a:b",
        "é" * 128,
    ],
)
async def test_an_index_name_that_is_not_allowed_is_refused_before_any_io(build: Build, name: str) -> None:
    """As the default and as another collection."""
    with pytest.raises(ConfigError, match="cannot name an index"):
        build(index=name)
    backend = build()
    with pytest.raises(ConfigError, match="cannot name an index"):
        await backend.open(name)
    with pytest.raises(ConfigError, match="cannot name an index"):
        backend.support(name)
