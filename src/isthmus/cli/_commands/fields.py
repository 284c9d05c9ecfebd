"""What is in a collection: its fields."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from isthmus import Collection, Query
from isthmus._core.registry import import_driver
from isthmus.cli._commands.query import NO_LIMIT, build_query
from isthmus.cli._options import AsJson, CollectionName, Filter, PromptPassword, Store
from isthmus.cli._output import choose_columns, print_json, print_note, print_table, quote_empty
from isthmus.cli._profile import MAX_DISTINCT, MAX_FIELDS, Profile
from isthmus.cli._stores import StoreAddress, open_collection, open_database, resolve_store
from isthmus.errors import MissingExtraError

SAMPLE = 100_000
"""A collection with more records is described from this many, unless --all is given."""
_SERVER_SAMPLE = 10_000
"""The same on Elasticsearch, whose indices are large, and whose records all travel."""
SECONDS = 3.0
"""No more records are read after this time, unless --all is given."""
COUNT_SECONDS = 1.0
"""Counting ends after this time, unless --all is given."""
TEXT_SECONDS = 1.0
"""Files of which nothing was read in time are read as text for so long."""

All = Annotated[bool, typer.Option("--all", help="Read all records, however many there are.")]


def fields(
    store: Store = None,
    filter: Filter = None,
    collection: CollectionName = None,
    *,
    everything: All = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Describe the fields: types, filled share, distinct values, the commonest and the range.

    Of more than 100,000 records (on Elasticsearch 10,000) a sample is read, for at most 3 s.
    """
    found = build_query(filter)
    address = resolve_store(store, collection, prompt=prompt)
    load_libraries(address)

    async def describe() -> tuple[Profile, int | None]:
        async with open_collection(address) as source:
            profile, total = await build_profile(source, found, everything=everything)
        if profile.records or total is not None:
            return profile, total
        return await build_text_profile(address, found), None

    profile, total = asyncio.run(describe())
    if as_json:
        print_json(profile_to_json(profile, total))
    else:
        print_profile(profile, total)


def load_libraries(address: StoreAddress) -> None:
    """Import what reads files, before the time runs that a description may take."""
    if address.plugin.name == "files":
        with contextlib.suppress(MissingExtraError):  # most formats do without
            import_driver("pyarrow.csv", extra="files")


async def build_profile(source: Collection, query: Query, *, everything: bool) -> tuple[Profile, int | None]:
    """Return the profile of the matching records, or of a sample, and how many records match.

    Unless `everything`, this ends after about 3 s: the number is None where counting takes longer, and
    the profile has the records that came by then.
    """
    profile = Profile()
    if everything:
        total = await source.count(query)
        async with source.stream(query) as records:
            await profile.add_all(records, count=None, seconds=None)
        return profile, total
    end = time.monotonic() + SECONDS
    found: int | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(COUNT_SECONDS):
            found = await source.count(query)
    complete = await _add_sample(profile, source, query, end - time.monotonic())
    return profile, profile.records if complete and found is None else found


async def _add_sample(profile: Profile, source: Collection, query: Query, seconds: float) -> bool:
    """Add the first records, as many as a sample has or as come in time; return whether those were all."""
    sample = _SERVER_SAMPLE if source.capabilities.relevance else SAMPLE
    with contextlib.suppress(TimeoutError):  # the records that came are described
        async with asyncio.timeout(seconds), source.stream(query.limit(NO_LIMIT)) as records:
            return await profile.add_all(records, count=sample, seconds=seconds)
    return False


async def build_text_profile(address: StoreAddress, query: Query) -> Profile:
    """Return the profile of the first records of files of which nothing was read in time.

    The types of the columns of CSV take a pass over all files. Without them every cell is text.
    """
    profile = Profile()
    if address.plugin.name == "files":
        async with open_database(address, {"types": "text"}) as db:
            await _add_sample(profile, db.collection(db.collection_name), query, TEXT_SECONDS)
        print_note("cells are described as text: their types take too long to find (--all reads everything)")
    return profile


def profile_to_json(profile: Profile, total: int | None) -> dict[str, Any]:
    """Return a profile as one JSON document.

    `read` is less than `records` for a sample; `records` is null where counting took too long.
    """
    return {
        "records": total,
        "read": profile.records,
        "fields": [
            {"field": name, **found.to_json(profile.records)} for name, found in profile.fields.items()
        ],
    }


def print_profile(profile: Profile, total: int | None) -> None:
    """Print a profile as a table, with notes on what was left out."""
    if total is None:
        counted = "more records than can be counted in time"
    else:
        counted = f"{total:,} record{'' if total == 1 else 's'}"
    if total is None or profile.records < total:
        counted = f"{counted}; described from the first {profile.records:,} (--all reads all)"
    sys.stdout.write(f"{counted}\n")
    if profile.fields:
        rows = [_row(name, found.to_json(profile.records), profile) for name, found in profile.fields.items()]
        headings = ["field", "type", "filled", "distinct", "commonest", "smallest", "largest"]
        columns = choose_columns(headings, rows, ("commonest", "distinct", "largest", "smallest", "filled"))
        shown = [[row[at] for at in columns] for row in rows]
        print_table([headings[at] for at in columns], shown, right=("filled", "distinct"))
    if profile.left_out:
        print_note(f"only the first {MAX_FIELDS} fields are described")


def _row(name: str, found: dict[str, Any], profile: Profile) -> Sequence[Any]:
    share = found["filled"] / profile.records
    # Never rounded to "all" or "none".
    percent = round(100 * share) if share in (0, 1) else min(99, max(1, round(100 * share)))
    distinct = f"> {MAX_DISTINCT:,}" if found["distinct"] is None else f"{found['distinct']:,}"
    types = ", ".join(found["types"])
    values = [quote_empty(found[key]) for key in ("commonest", "smallest", "largest")]
    return [name, types, f"{percent} %", distinct, *values]
