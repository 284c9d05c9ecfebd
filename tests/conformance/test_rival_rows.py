"""Each row in which the rival's backends break or disagree has a test here."""

from __future__ import annotations

import ast
import contextlib
from pathlib import Path
from typing import Any

import pytest

from isthmus import AsyncDatabase, Collection, Query, Record, field
from isthmus.errors import ConfigError, UnavailableError
from isthmus.testing import conformance
from tests.stores import store_of

# The worst, by their numbers there. A test is one of the shipped suite, or a file and a name.
_WORST: dict[int, tuple[str, ...]] = {
    1: ("test_a_stream_applies_every_filter", "test_a_stream_honours_limit_offset_and_sort"),
    2: ("test_clear_deletes_this_collection_alone",),
    3: ("test_a_large_batch_is_written_read_searched_and_deleted", "test_forty_thousand_operands"),
    4: ("test_datetimes_dates_decimals_uuids_and_bytes_have_one_form",),
    5: ("test_a_field_of_mixed_types_can_be_compared",),
    6: ("test_each_operator_by_name",),
    7: ("test_replace_removes_all_old_fields",),
    8: (
        "test_a_large_batch_is_written_read_searched_and_deleted",
        "test_limit_and_offset_work_without_each_other",
        "test_records_come_in_this_order",
    ),
    9: ("test_a_long_text_is_stored_and_found", "test_texts_compare_by_code_point"),
    10: ("test_records_come_in_this_order",),
    11: ("test_mixed_types_in_one_field_are_all_stored",),
    12: (
        "tests/conformance/test_rival_rows.py::test_an_outage_never_looks_like_not_found",
        "tests/s3/test_failures.py::test_wrong_keys_and_missing_buckets_are_named",
    ),
    13: (
        "test_regex_is_python_search",
        "test_limit_and_offset_work_without_each_other",
        "test_clear_deletes_this_collection_alone",
        "test_records_come_in_this_order",
        "test_a_closed_handle_can_be_opened_again",
    ),
    14: ("test_a_batch_keeps_the_ids_given",),
    15: ("test_creating_an_existing_id_is_refused",),
    16: ("test_a_batch_of_updates_returns_versions_and_keeps_ids",),
    17: ("test_text_that_looks_like_a_statement_is_not_executed",),
    18: (
        "test_a_filter_finds_exactly_these",
        "test_regex_is_python_search",
        "test_like_matches_the_whole_text",
    ),
    19: ("test_limit_and_offset_work_without_each_other", "test_an_unknown_operator_suggests_a_known_one"),
    20: ("test_an_unknown_setting_is_refused_with_a_hint",),
}
# The table of differences, by what was tried, in its order.
_DIFFERING: dict[str, tuple[str, ...]] = {
    'age = "30"': ("test_a_filter_finds_exactly_these",),
    "active = 1": ("test_a_filter_finds_exactly_these",),
    "city = None": ("test_null_missing_and_empty_list_have_no_value",),
    "city != None": ("test_null_missing_and_empty_list_have_no_value",),
    'city != "Paris"': ("test_a_complement_includes_null_and_missing",),
    "not_in, not_like, not_between, int !=": ("test_a_complement_includes_null_and_missing",),
    'NOT(city = "Paris")': ("test_a_complement_includes_null_and_missing",),
    'age > "9"': ("test_a_filter_finds_exactly_these",),
    'like "alice" on "Alice"': ("test_like_matches_the_whole_text",),
    'like "a.c"': ("test_like_matches_the_whole_text",),
    'like "[%"': ("test_like_matches_the_whole_text",),
    "like with an escape": ("test_like_matches_the_whole_text",),
    'regex "li", "^A"': ("test_regex_is_python_search",),
    'tags = "red"': ("test_a_condition_on_a_list_finds_exactly_these",),
    'tags = ["red", "blue"]': ("test_a_condition_on_a_list_finds_exactly_these",),
    "between [1]": ("test_an_invalid_comparison_is_refused_when_built",),
    "sort age: null": ("test_records_come_in_this_order",),
    "sort score: missing": ("test_records_come_in_this_order",),
    "sort text desc: missing": ("test_records_come_in_this_order",),
    "limit -1": ("test_an_invalid_limit_is_refused",),
    "offset 2, no limit": ("test_limit_and_offset_work_without_each_other",),
    "count with limit 1": ("test_count_with_a_limit_is_refused",),
    "stream limit 2, offset 3": ("test_a_stream_honours_limit_offset_and_sort",),
    "stream sort": ("test_a_stream_honours_limit_offset_and_sort",),
    "2**63, 2**70": ("test_a_value_that_no_store_can_hold_is_refused",),
    "1e308": ("test_a_value_is_read_back_with_the_same_type",),
    "NUL, lone surrogate": ("test_a_value_that_no_store_can_hold_is_refused",),
    "nan, inf": ("test_a_value_that_no_store_can_hold_is_refused",),
    'list [1, "a", None, 2.5], list of number and dict': ("test_a_value_is_read_back_with_the_same_type",),
    "a dict like a vector": ("test_a_value_is_read_back_with_the_same_type",),
    "fields with blanks, quotes, accents": ("test_every_key_is_a_field",),
    "field a.b": ("test_a_key_with_a_dot_is_not_a_path",),
    "batch with an existing id": (
        "test_an_atomic_batch_writes_all_or_nothing",
        "test_a_batch_that_is_not_atomic_writes_the_valid_items",
    ),
    "batch with an unserialisable record": (
        "test_an_atomic_batch_with_an_invalid_record_writes_nothing",
        "test_an_invalid_record_in_a_batch_is_that_items_error",
    ),
    "delete, delete_batch of a missing id": (
        "test_delete_returns_whether_the_record_existed",
        "test_a_batch_of_deletes_returns_it_for_each_id",
    ),
    "metadata read back": ("test_metadata_is_read_back_as_given",),
    'id "../x"': ("test_an_unusual_id_works_with_every_method",),
    "id of 600 characters": ("test_an_invalid_id_is_refused",),
    'id ""': ("test_an_invalid_id_is_refused",),
    "use after close": ("test_a_closed_handle_refuses_every_call",),
    "a table name with a statement in it": (
        "tests/conformance/test_rival_rows.py::test_a_table_name_is_only_a_name",
    ),
}
# What is said below that table.
_FURTHER: dict[str, tuple[str, ...]] = {
    "ids with slash, quote, unicode, space, %2F, newline, *?": ("test_every_id_is_kept_unchanged",),
    "40 concurrent creates": ("test_concurrent_creates_are_all_stored",),
    "stream_write with a bad record": (
        "test_a_stream_of_writes_reports_what_was_written",
        "test_a_stream_of_writes_stops_at_the_first_failed_batch_by_default",
    ),
}
ROWS: dict[str, tuple[str, ...]] = {f"row {n}": tests for n, tests in _WORST.items()} | _DIFFERING | _FURTHER


def test_every_row_of_the_rival_is_here() -> None:
    """Twenty of the worst, forty-one differences, three further cases: none was left out."""
    assert list(_WORST) == list(range(1, 21))
    assert (len(_DIFFERING), len(_FURTHER)) == (41, 3)
    assert all(ROWS.values())


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_rival_has_its_test(row: str) -> None:
    """It is in the shipped suite, so that it runs on every store, or in a file of ours."""
    for test in ROWS[row]:
        file, _, name = test.rpartition("::")
        if not file:
            assert test in conformance.__all__
        else:
            tree = ast.parse((Path(__file__).parents[2] / file).read_text())
            assert name in {node.name for node in tree.body if isinstance(node, ast.AsyncFunctionDef)}


_NOBODY: list[tuple[str, dict[str, Any]]] = [
    ("postgres", {"url": "postgres://postgres@127.0.0.1:9/none"}),
    ("elasticsearch", {"hosts": ["http://127.0.0.1:9"], "index": "none"}),
    (
        "s3",
        {
            "url": "s3://bucket/none?endpoint_url=http://127.0.0.1:9&region=us-east-1",
            "access_key_id": "a",
            "secret_access_key": "b",
        },
    ),
]


@pytest.mark.parametrize(
    ("backend", "config"), [pytest.param(b, c, id=b, marks=pytest.mark.backend(b)) for b, c in _NOBODY]
)
@pytest.mark.asyncio
async def test_an_outage_never_looks_like_not_found(backend: str, config: dict[str, Any]) -> None:
    """Row 12: connecting fails at once, and a lazy handle's calls raise instead of giving None or False."""
    with pytest.raises(UnavailableError):
        await AsyncDatabase.create(backend, config)

    lazy = await AsyncDatabase.create(backend, config, lazy=True)
    try:
        for call in (lambda: lazy.get("x"), lambda: lazy.exists("x"), lambda: lazy.delete("x"), lazy.count):
            with pytest.raises(UnavailableError):
                await call()
    finally:
        await lazy.close()


@pytest.mark.parametrize("name", ["x; DROP TABLE y", 'a"b', "a'b", "a`b", "ü", "select"])
@pytest.mark.parametrize("store", ["sqlite", "postgres"])
@pytest.mark.asyncio
async def test_a_table_name_is_only_a_name(store: str, name: str) -> None:
    """It is quoted or refused, with an index too; nothing else in the store is touched."""
    where = store_of(store)
    async with where.fresh() as db:
        await db.upsert("kept", {"n": 1})
        settings = {**where.config, "table": name, "indexes": ["n"]}
        if where.url is not None:
            settings["url"] = where.url
        with contextlib.suppress(ConfigError):
            async with await AsyncDatabase.create(where.backend, settings) as indexed:
                await _every_verb(indexed)
        with contextlib.suppress(ConfigError):
            await _every_verb(db.collection(name))
        assert (await db.require("kept")).data == {"n": 1}


async def _every_verb(notes: Collection) -> None:
    """Use a collection that may be there from before, and leave it empty."""
    await notes.clear()
    await notes.upsert("x", {"n": 2})
    await notes.create_batch([Record({"n": 3}, id="y"), Record({"n": 3}, id="z")])
    assert [r.id for r in await notes.search(field("n") == 2)] == ["x"]
    assert [r.id for r in await notes.search(Query().sort("n", "desc"))] == ["y", "z", "x"]
    assert [r.id for r in await notes.search(Query().sort("n").limit(1))] == ["x"]
    assert [r.id async for r in notes.stream(field("n") == 3, page_size=1)] == ["y", "z"]
    assert await notes.count(field("n") > 1) == 3
    rows = await notes.aggregate(total=("sum", "n"), by="n")
    assert rows == [{"n": 2, "total": 2}, {"n": 3, "total": 6}]
    assert [r and r.id for r in await notes.get_batch(["x", "none"])] == ["x", None]
    await notes.update("x", {"n": 4})
    assert await notes.delete_batch(["x", "none"]) == [True, False]
    assert await notes.delete_where(field("n") == 3) == 2
    await notes.clear()
