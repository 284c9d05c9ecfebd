"""The command parity: whether stores answer as isthmus promises."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from isthmus import Query, __version__
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._options import AsJson, PromptPassword
from isthmus.cli._output import print_json
from isthmus.cli._stores import (
    StoreAddress,
    build_settings,
    open_database,
    open_scratch_collection,
    resolve_store,
)

if TYPE_CHECKING:
    from isthmus.testing.parity import ParityPage, StoreColumn

_QUERIES_PER_SET = 40

Stores = Annotated[
    list[str] | None,
    typer.Argument(metavar="STORE...", show_default=False, help="Store URLs; - or omitted: $ISTHMUS_URL."),
]
Seed = Annotated[
    int | None, typer.Option("--seed", metavar="N", show_default=False, help="Seed of a run to repeat.")
]
Folder = Annotated[Path, typer.Option("--out", "-o", metavar="FOLDER", help="Where to write the pages.")]


def parity(
    stores: Stores = None,
    queries: Annotated[
        int, typer.Option("--queries", "-n", metavar="N", min=1, help="Random queries per store.")
    ] = 500,
    seed: Seed = None,
    folder: Folder = Path(),
    *,
    quick: Annotated[bool, typer.Option("--quick", help="Only the random queries.")] = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Check that stores keep the promises of isthmus; write parity.md and parity.html.

    Runs random queries on difficult records, compares each result with the specified one, and runs the
    conformance suite (needs `pip install 'isthmus[testing]'`), in collections of its own. Exit code
    1 if a result differs or a test fails.
    """
    used_seed = random.randrange(2**32) if seed is None else seed  # noqa: S311 - a test's seed
    start = time.monotonic()
    addresses = [resolve_store(store, prompt=prompt) for store in (stores or ["-"])]
    differences: list[str] = []
    for address in addresses:
        differences += asyncio.run(_run_queries(address, queries, used_seed))
    _print_lines(differences[:20], as_json=as_json)
    summary = f"{queries} queries on each, {len(differences)} differences, seed {used_seed}"
    document: dict[str, Any] = {"queries": queries, "differences": differences, "seed": used_seed}
    page = None if quick else _run_suite(addresses, summary)
    if page is not None:
        document |= {"page": _write_page(page, folder), "verdicts": page.counts}
        wrong = [f"{o.verdict.value}: {o.column} {o.test} {o.case}: {o.why}" for o in page.wrong]
        _print_lines(wrong, as_json=as_json)
    document["seconds"] = round(time.monotonic() - start, 3)
    _print_lines([f"{summary}, {document['seconds']:.1f} s"], as_json=as_json)
    if page is not None:
        _print_lines([page.summary, " ".join(document["page"])], as_json=as_json)
    if as_json:
        print_json(document)
    if differences or (page is not None and page.wrong):
        raise CommandError("not every promise is kept", ExitCode.NO)


def _print_lines(lines: list[str], *, as_json: bool) -> None:
    if not as_json:
        sys.stdout.write("".join(f"{line}\n" for line in lines))


async def _run_queries(address: StoreAddress, queries: int, seed: int) -> list[str]:
    """Run random queries on random records, and return the results that differ."""
    from isthmus._query.codec import text
    from isthmus._query.order import sort_records
    from isthmus.testing.queries import QueryMaker
    from isthmus.testing.records import everyday_set, nasty_set

    chance = random.Random(seed)  # noqa: S311 - a test's chance
    differences: list[str] = []
    async with open_scratch_collection(address) as collection:
        for done in range(0, queries, _QUERIES_PER_SET):
            made = (everyday_set if chance.random() < 0.5 else nasty_set)(chance)
            await collection.clear()
            await collection.create_batch(made.records)
            stored = await collection.search()
            maker = QueryMaker(chance, made, stored)
            for _ in range(min(_QUERIES_PER_SET, queries - done)):
                one = maker.generate()
                query = Query(where=one.predicate, order=maker.order(one))
                expected = [record.id for record in sort_records(list(one.matching), query.order)]
                found = [record.id for record in await collection.search(query)]
                if found != expected or await collection.count(one.predicate) != len(expected):
                    differences.append(f"{text(one.predicate)}: {found} instead of {expected}")
    return differences


def _run_suite(addresses: list[StoreAddress], summary: str) -> ParityPage:
    """Run the conformance suite on the stores."""
    from isthmus.testing.parity import ParityPage, SuiteError, run_suite

    columns = [asyncio.run(_describe_column(address, n)) for n, address in enumerate(addresses, 1)]
    try:
        outcomes = run_suite(columns)
    except SuiteError as error:
        raise CommandError(str(error), ExitCode.STORE) from error
    today = time.strftime("%Y-%m-%d")
    return ParityPage(f"isthmus {__version__}, {today}. Random queries: {summary}.", columns, outcomes)


async def _describe_column(address: StoreAddress, number: int) -> StoreColumn:
    from isthmus.testing.parity import StoreColumn, version_of

    async with open_database(address, writes=True) as db:
        version = f"{await version_of(db)}, at {address.display_name}"
        config: dict[str, Any] = {"url": address.url, **build_settings(address, writes=True)}
        if db.backend == "elasticsearch":
            config["fulltext"] = ["text"]  # the suite searches this field for words
        return StoreColumn(f"{number} {db.backend}", db.backend, config, version)


def _write_page(page: ParityPage, folder: Path) -> list[str]:
    """Write the page as Markdown and as HTML; return the names of the files."""
    from isthmus.testing.parity import as_html, markdown

    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for name, text in (("parity.md", markdown(page)), ("parity.html", as_html(page))):
        (folder / name).write_text(text, encoding="utf-8")
        names.append(str(folder / name))
    return names
