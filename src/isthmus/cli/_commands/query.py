"""Commands that find: ls, query, count, agg, explain."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from isthmus import Explanation, Query, QueryError
from isthmus._explain import Node
from isthmus.cli._filter import parse_field, parse_query
from isthmus.cli._formats.writer import Format, format_of, writer
from isthmus.cli._options import AsJson, Ask, CollectionName, Filter, Store, run
from isthmus.cli._output import note, out, print_json, print_table
from isthmus.cli._stores import Place, database, opened, place

TABLE_ROWS = 50

Sort = Annotated[
    str | None,
    typer.Option("--sort", "-s", metavar="KEYS", show_default=False, help='Such as "age desc, name".'),
]
Select = Annotated[
    str | None, typer.Option("--select", metavar="FIELDS", show_default=False, help='Such as "name, age".')
]
Limit = Annotated[
    int | None, typer.Option("--limit", "-n", metavar="N", show_default=False, help="At most N.")
]
Offset = Annotated[
    int, typer.Option("--offset", metavar="N", show_default=False, help="Leave out the first N.")
]


COMMANDS = ("ls", "query", "count", "agg", "explain")


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command()(ls)
    app.command()(query)
    app.command()(count)
    app.command()(agg)
    app.command()(explain)


def ls(
    store: Store = None,
    *,
    counts: Annotated[bool, typer.Option("--count", help="Count the records of each.")] = False,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """List the collections that isthmus made in a store."""
    found = run(_ls(place(store, None, ask=ask), counts=counts))
    if as_json:
        print_json(
            [{"collection": name, "records": n} if counts else {"collection": name} for name, n in found]
        )
    elif counts:
        print_table(["collection", "records"], found)
    else:
        sys.stdout.write("".join(f"{name}\n" for name, _ in found))


async def _ls(where: Place, *, counts: bool) -> list[tuple[str, int | None]]:
    async with database(where) as db:
        names = await db.collections()
        return [(name, await db.collection(name).count() if counts else None) for name in names]


def built(filter: str | None, sort: str | None, limit: int | None, offset: int, select: str | None) -> Query:
    """Return the query of a command's options."""
    query = parse_query(None if filter == "-" else filter)
    for key in _parts(sort):
        query = _sorted(query, key)
    if limit is not None:
        query = query.limit(limit)
    if offset:
        query = query.offset(offset)
    if select is not None:
        query = query.select(*(parse_field(name) for name in _parts(select)))
    return query


def _parts(text: str | None) -> list[str]:
    """Return the parts between commas that are in no quotes."""
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


def _sorted(query: Query, key: str) -> Query:
    name, direction, nulls = key, "asc", "last"
    words = key.split()
    if len(words) >= 3 and words[-2].lower() == "nulls":
        nulls, words = words[-1].lower(), words[:-2]
        name = key[: key.lower().rindex("nulls")].rstrip()
    if len(words) >= 2 and words[-1].lower() in ("asc", "desc"):
        direction = words[-1].lower()
        name = name[: -len(direction)].rstrip()
    return query.sort(
        parse_field(name),
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
        typer.Option("--format", "-f", show_default=False, help="Table on a screen, else jsonl."),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", show_default=False, help="Write to a file.")
    ] = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Print matching records as a table, JSON lines, CSV or Parquet.

    A table without --limit shows the first 50; other formats give all, in bounded memory.
    """
    default = Format.TABLE if sys.stdout.isatty() and not as_json else Format.JSONL
    chosen = Format.JSONL if as_json and format is None else format_of(file, format, default)
    found = built(filter, sort, limit, offset, select)
    more = run(_query(place(store, collection, ask=ask), found, chosen, file))
    if more:
        note(f"the first {TABLE_ROWS}; there are more: --limit N, or --format jsonl for all")


async def _query(where: Place, query: Query, format: Format, file: Path | None) -> bool:
    cut = format is Format.TABLE and query.count is None
    # By id if nothing else is said, so that two runs agree.
    asked = query.limit(TABLE_ROWS + 1 if cut else 2**62 if query.count is None else query.count)
    async with opened(where) as store:
        first = [path.keys[0] for path in query.fields or () if path.keys]
        with writer(file, format, first) as sink:
            async with store.stream(asked) as records:
                async for record in records:
                    if cut and sink.count == TABLE_ROWS:
                        return True
                    sink.add(record)
    return False


def count(
    store: Store = None,
    filter: Filter = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Print how many records match."""
    found = built(filter, None, None, 0, None)
    number = run(_count(place(store, collection, ask=ask), found))
    if as_json:
        print_json({"count": number})
    else:
        sys.stdout.write(f"{number}\n")


async def _count(where: Place, query: Query) -> int:
    async with opened(where) as store:
        return await store.count(query)


def agg(
    store: Store = None,
    filter: Filter = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--col", "-a", metavar="COL", show_default=False, help="n=count, oldest=max:age, sum:price"
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", "-b", metavar="FIELDS", show_default=False, help="Group by these.")
    ] = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Compute count, sum, avg, min, max, by groups if asked; --col may be repeated."""
    wanted = dict(_column(text) for text in columns or ["count"])
    found = built(filter, None, None, 0, None)
    rows = run(_agg(place(store, collection, ask=ask), found, _parts(by), wanted))
    if as_json:
        print_json(rows)
    else:
        headings = list(rows[0]) if rows else list(wanted)
        print_table(headings, [list(row.values()) for row in rows])


async def _agg(where: Place, query: Query, by: list[str], columns: dict[str, Any]) -> list[dict[str, Any]]:
    async with opened(where) as store:
        return await store.aggregate(query, by=[parse_field(name) for name in by], **columns)


def _column(text: str) -> tuple[str, Any]:
    name, equals, what = text.rpartition("=") if "=" in text else ("", "", text)
    function, colon, of = what.partition(":")
    if not function or (equals and not name) or (colon and not of):
        raise QueryError(f"--col {text!r}: expected count, sum:price or total=sum:price")
    label = name or (f"{function}_{of}" if of else function)
    return label, (function, parse_field(of)) if of else function


def explain(
    store: Store = None,
    filter: Filter = None,
    sort: Sort = None,
    limit: Limit = None,
    collection: CollectionName = None,
    *,
    as_json: AsJson = False,
    ask: Ask = False,
) -> None:
    """Show what runs at the store, what is judged here, and the index used."""
    found = built(filter, sort, limit, 0, None)
    plan = run(_explain(place(store, collection, ask=ask), found))
    if as_json:
        print_json(_plan_json(plan))
    else:
        _print_plan(plan)


async def _explain(where: Place, query: Query) -> Explanation:
    async with opened(where) as store:
        return await store.explain(query)


def _plan_json(plan: Explanation) -> dict[str, Any]:
    def node(part: Node) -> dict[str, Any]:
        shape: dict[str, Any] = {"condition": part.label, "grade": part.pushdown.name}
        return {**shape, "parts": [node(p) for p in part.parts]} if part.parts else shape

    return {
        "backend": plan.backend,
        "exact": plan.exact,
        "tree": node(plan.tree),
        "pushed": plan.pushed,
        "residual": plan.residual,
        "order": plan.order,
        "order_pushed": plan.order_pushed,
        "index": plan.index,
        "native": plan.native,
        "details": plan.details,
    }


_STYLES = {"EXACT": "green", "SUPERSET": "yellow", "NONE": "red"}
_WHERE = {"EXACT": "at the store", "SUPERSET": "narrowed at the store, judged here", "NONE": "judged here"}


def _print_plan(plan: Explanation) -> None:
    from rich.markup import escape
    from rich.tree import Tree

    def grow(tree: Tree, node: Node) -> None:
        style = _STYLES[node.pushdown.name]
        branch = tree.add(f"{escape(node.label)}  [{style}]{_WHERE[node.pushdown.name]}[/]")
        for part in node.parts:
            grow(branch, part)

    where = "[green]all at the store[/]" if plan.exact else "[yellow]partly on this side[/]"
    tree = Tree(f"[bold]{escape(plan.backend)}[/]: {where}")
    grow(tree, plan.tree)
    side = "[green]at the store[/]" if plan.order_pushed else "[yellow]sorted here[/]"
    tree.add(f"order: {escape(plan.order)}  {side}")
    tree.add(f"index: {escape(plan.index or 'none')}")
    tree.add("native").add(escape(plan.native))
    out().print(tree)
