"""Commands on many records: ls, query, count, agg, explain."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from isthmus import Collection, Explanation, Query
from isthmus._explain import Node
from isthmus._path import Path as IsthmusPath
from isthmus._path import Root
from isthmus._query.bucket import path_of
from isthmus._query.field import Field
from isthmus.cli._columns import parse_column, parse_group, parse_measure
from isthmus.cli._filter import parse_field, parse_query
from isthmus.cli._formats.csv import CSVStyle
from isthmus.cli._formats.output_file import parse_path
from isthmus.cli._formats.writer import Format, RecordWriter, choose_format, open_writer
from isthmus.cli._missing_fields import collect_paths, note_missing_fields
from isthmus.cli._options import AsJson, CollectionName, Filter, NullText, PlainCells, PromptPassword, Store
from isthmus.cli._output import make_console, print_json, print_note, print_table, quote_empty
from isthmus.cli._store_files import require_other_files
from isthmus.cli._stores import open_database, open_store, resolve_store, run_on_store

TABLE_ROWS = 50
# A stream is in the order of ids only if its query has a sort or a limit.
NO_LIMIT = 2**62

Sort = Annotated[
    str | None,
    typer.Option(
        "--sort", "-s", metavar="KEYS", show_default=False, help='Such as "age desc, name" or -age.'
    ),
]
Select = Annotated[
    str | None, typer.Option("--select", metavar="FIELDS", show_default=False, help='Such as "name, age".')
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", show_default=False, help="Return at most N.")
]
Offset = Annotated[int, typer.Option("--offset", metavar="N", show_default=False, help="Skip the first N.")]


def ls(
    store: Store = None,
    *,
    counts: Annotated[bool, typer.Option("--count", help="Count the records of each.")] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """List the collections that isthmus created in a store."""
    address = resolve_store(store, prompt=prompt)

    async def list_collections() -> list[tuple[str, int | None]]:
        async with open_store(address) as (db, names):
            names = await db.collections() if names is None else names
        if not counts or not names:
            return [(name, None) for name in names]
        async with open_database(replace(address, collection=names[0])) as db:
            return [(name, await db.collection(name).count()) for name in names]

    found = asyncio.run(list_collections())
    if as_json:
        print_json(
            [{"collection": name, "records": n} if counts else {"collection": name} for name, n in found]
        )
    elif counts:
        print_table(["collection", "records"], found)
    else:
        sys.stdout.write("".join(f"{name}\n" for name, _ in found))


def build_query(
    filter: str | None,
    sort: str | None = None,
    limit: int | None = None,
    offset: int = 0,
    select: str | None = None,
) -> Query:
    """Return the query of a command's options."""
    query = parse_query(None if filter == "-" else filter)
    for key in split_list(sort):
        query = _add_sort_key(query, key)
    if limit is not None:
        query = query.limit(limit)
    if offset:
        query = query.offset(offset)
    if select is not None:
        query = query.select(*(parse_field(name) for name in split_list(select)))
    return query


def split_list(text: str | None) -> list[str]:
    """Split at the commas outside quotes."""
    parts, quote = [""], ""
    for character in text or "":
        if character == "," and not quote:
            parts.append("")
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'`":
            quote = character
        parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _add_sort_key(
    query: Query, key: str, parse_name: Callable[[str], Field | IsthmusPath] = parse_field
) -> Query:
    """Sort by a key such as `age desc nulls first`, or `-age`, as well."""
    name, direction, nulls = key, "asc", "last"
    if key.startswith("-"):
        key = name = key[1:].lstrip()
        direction = "desc"
    words = key.split()
    if len(words) >= 3 and words[-2].lower() == "nulls":
        nulls, words = words[-1].lower(), words[:-2]
        name = key[: key.lower().rindex("nulls")].rstrip()
    if len(words) >= 2 and words[-1].lower() in ("asc", "desc"):
        direction = words[-1].lower()
        name = name[: -len(direction)].rstrip()
    return query.sort(
        parse_name(name),
        cast("Literal['asc', 'desc']", direction),
        nulls=cast("Literal['first', 'last']", nulls),
    )


def query(
    store: Store = None,
    filter: Filter = None,
    sort: Sort = None,
    limit: Limit = None,
    offset: Offset = 0,
    select: Select = None,
    format: Annotated[
        Format | None,
        typer.Option("--format", "-f", show_default=False, help="Default: table on a terminal, else jsonl."),
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            metavar="FILE",
            parser=parse_path,
            show_default=False,
            help="Write to a file.",
        ),
    ] = None,
    null: NullText = None,
    collection: CollectionName = None,
    *,
    plain: PlainCells = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Print matching records as a table, JSON lines, CSV or Parquet.

    A table without --limit shows the first 50 records; other formats have all.
    """
    default = Format.TABLE if sys.stdout.isatty() and not as_json else Format.JSONL
    chosen = Format.JSONL if as_json and format is None else choose_format(file, format, default)
    found = build_query(filter, sort, limit, offset, select)
    max_rows = TABLE_ROWS if chosen is Format.TABLE and found.count is None else None
    if found.count is None:
        found = found.limit(NO_LIMIT if max_rows is None else max_rows + 1)
    columns = [path.keys[0] for path in found.fields or () if path.keys]

    full_ids = any(path.root is Root.ID for path in found.fields or ())
    address = resolve_store(store, collection, prompt=prompt)
    require_other_files(address, {"--out": file})

    async def export(source: Collection) -> bool:
        with open_writer(file, chosen, columns, CSVStyle(null, plain), full_ids=full_ids) as writer:
            complete = await write_matches(source, found, writer, max_rows)
        await note_missing_fields(source, collect_paths(found))
        return complete

    complete = run_on_store(address, export)
    if not complete:
        print_note(f"only the first {TABLE_ROWS}; there are more: --limit N, or --format jsonl for all")


async def write_matches(
    source: Collection, query: Query, writer: RecordWriter, max_rows: int | None = None
) -> bool:
    """Write the matching records, at most `max_rows`; return whether those were all."""
    async with source.stream(query) as records:
        async for record in records:
            if writer.count == max_rows:
                return False
            writer.add(record)
    return True


def count(
    store: Store = None,
    filter: Filter = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Print the number of matching records."""
    found = build_query(filter)
    address = resolve_store(store, collection, prompt=prompt)

    async def count_matches(source: Collection) -> int:
        number = await source.count(found)
        await note_missing_fields(source, collect_paths(found))
        return number

    number = run_on_store(address, count_matches)
    if as_json:
        print_json({"count": number})
    else:
        sys.stdout.write(f"{number}\n")


def agg(
    store: Store = None,
    filter: Filter = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--col",
            "-a",
            metavar="COL",
            show_default=False,
            help="n=count, oldest=max:age, p=percentile:ms:95",
        ),
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(
            "--by", "-b", metavar="FIELDS", show_default=False, help='Such as "city, at:day@Europe/Oslo".'
        ),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option("--sort", "-s", metavar="COLS", show_default=False, help='Such as "n desc".'),
    ] = None,
    limit: Limit = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Compute count, sum, avg, min, max, count_distinct, percentile, optionally by group.

    --col may be repeated. A group is a field, a period of its times (at:hour, day, week, month,
    quarter or year, in UTC or at:day@ZONE) or a range of its numbers (price:10). --sort takes the names
    of columns, and --limit the first groups.
    """
    measures = dict(parse_measure(text) for text in columns or ["count"])
    conditions = build_query(filter)
    found = conditions if limit is None else conditions.limit(limit)
    for key in split_list(sort):
        found = _add_sort_key(found, key, parse_column)
    address = resolve_store(store, collection, prompt=prompt)
    groups = [parse_group(name) for name in split_list(by)]
    named = [
        *map(path_of, groups),
        *(of[1].path for of in measures.values() if isinstance(of, tuple)),
    ]

    async def aggregate(source: Collection) -> list[dict[str, Any]]:
        rows = await source.aggregate(found, by=groups, **measures)
        await note_missing_fields(source, collect_paths(conditions, named))
        return rows

    rows = run_on_store(address, aggregate)
    if as_json:
        print_json(rows)
    else:
        cells = [[quote_empty(value) for value in row.values()] for row in rows]
        print_table(list(rows[0]) if rows else list(measures), cells)


def explain(
    store: Store = None,
    filter: Filter = None,
    sort: Sort = None,
    limit: Limit = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Show what the store evaluates, what runs client-side, and the index used."""
    found = build_query(filter, sort, limit)
    address = resolve_store(store, collection, prompt=prompt)
    plan = run_on_store(address, lambda source: source.explain(found))
    if as_json:
        print_json(_plan_to_json(plan))
    else:
        _print_plan(plan)


def _plan_to_json(plan: Explanation) -> dict[str, Any]:
    def convert(node: Node) -> dict[str, Any]:
        document: dict[str, Any] = {"condition": node.label, "grade": node.pushdown.name}
        return {**document, "parts": [convert(part) for part in node.parts]} if node.parts else document

    return {
        "backend": plan.backend,
        "exact": plan.exact,
        "tree": convert(plan.tree),
        "pushed": plan.pushed,
        "residual": plan.residual,
        "order": plan.order,
        "order_pushed": plan.order_pushed,
        "columns": plan.columns,
        "missing_columns": plan.missing_columns,
        "index": plan.index,
        "native": plan.native,
        "details": plan.details,
    }


_EVALUATION = {
    "EXACT": "[green]at the store[/]",
    "SUPERSET": "[yellow]narrowed at the store, rechecked client-side[/]",
    "NONE": "[red]client-side[/]",
}


def _print_plan(plan: Explanation) -> None:
    from rich.markup import escape
    from rich.tree import Tree

    def grow(tree: Tree, node: Node) -> None:
        branch = tree.add(f"{escape(node.label)}  {_EVALUATION[node.pushdown.name]}")
        for part in node.parts:
            grow(branch, part)

    where = "[green]entirely at the store[/]" if plan.exact else "[yellow]partly client-side[/]"
    tree = Tree(f"[bold]{escape(plan.backend)}[/]: {where}")
    grow(tree, plan.tree)
    where = "[green]at the store[/]" if plan.order_pushed else "[yellow]sorted client-side[/]"
    tree.add(f"order: {escape(plan.order)}  {where}")
    if plan.columns:
        tree.add(f"columns: {escape(', '.join(plan.columns))}")
    if plan.missing_columns:
        tree.add(f"[yellow]columns missing: {escape(', '.join(plan.missing_columns))}[/]")
    tree.add(f"index: {escape(plan.index or 'none')}")
    tree.add("native").add(escape(plan.native))
    make_console().print(tree)
