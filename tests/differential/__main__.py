"""`python -m tests.differential --backend sqlite --n 100000 --seed 1`: 0 differences, or a test to paste."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys

from tests.differential import files, native_mariadb, native_postgres, native_sqlite, programs, queries, typed
from tests.files.seeded import FORMATS, SeededStore
from tests.stores import FURTHER, STORES, Store, store_of

_URLS = {
    "postgres": "ISTHMUS_TEST_POSTGRES_URL",
    "elasticsearch": "ISTHMUS_TEST_ELASTICSEARCH_URL",
    "s3": "ISTHMUS_TEST_S3_URL",
    "mariadb": "ISTHMUS_TEST_MARIADB_URL",
}
# S3 has no query language: its everyday queries are evaluated client-side.
EXACT = ("memory", "sqlite", "postgres", "elasticsearch")


def main() -> int:
    """Run, print what was covered, and return 1 if anything differed or fell short."""
    options = _options()
    failed = False
    if options.backend == "files":
        return _files(options)
    if options.backend == "sqlite-native":
        return _native_sqlite(options)
    if options.backend == "postgres-native":
        return _native_postgres(options)
    if options.backend == "mariadb-native":
        return _native_mariadb(options)
    if options.first:
        return _first(options)
    for store in stores(options.backend, options.url):
        print(f"{store.name} seed={options.seed} n={options.n}", flush=True)
        plan = queries.Plan(options.n, options.seed, options.everyday, options.per_set)
        report = queries.run_in_processes(store, plan, options.jobs)
        exact = store.backend in EXACT
        for line in queries.lines(report, exact_required=exact):
            print(line)
        for failure in report.failures:
            print("\n" + failure)
        count = options.programs if options.programs is not None else min(max(options.n // 100, 10), 200)
        ran = asyncio.run(programs.run(store, programs=count, seed=options.seed))
        print(f"{ran.programs} programs of {ran.steps} steps: {len(ran.failures)} differences")
        for failure in ran.failures:
            print("\n" + failure)
        failed |= bool(ran.failures)
        models = asyncio.run(typed.run(store, n=min(max(options.n // 10, 100), 5_000), seed=options.seed))
        for line in (*typed.lines(models), *models.failures):
            print(line)
        failed |= bool(models.failures)
        failed |= bool(report.failures or report.tally.shortcomings(exact_required=exact))
    return 1 if failed else 0


def _files(options: argparse.Namespace) -> int:
    """Run on random folders, and on whole records in files of each format; return 1 if anything differed."""
    folders = asyncio.run(files.run(queries.Plan(options.n, options.seed, per_set=20)))
    print(f"files: {folders.sets} folders, {folders.tally.queries} queries, seed {options.seed}")
    reports = [folders]
    for format in FORMATS:
        plan = queries.Plan(options.n // len(FORMATS), options.seed, per_set=50)
        reports.append(asyncio.run(queries.run(SeededStore(format, "files"), plan)))
        print(f"records in {format}: {reports[-1].sets} sets, {reports[-1].tally.queries} queries")
    failures = [failure for report in reports for failure in report.failures]
    print(f"{len(failures)} differences")
    for failure in failures:
        print("\n" + failure)
    return 1 if failures else 0


def _native_sqlite(options: argparse.Namespace) -> int:
    """Run on random tables made by SQL; return 1 if anything differed."""
    report = asyncio.run(native_sqlite.run(queries.Plan(options.n, options.seed, per_set=40)))
    print(f"{report.tally.queries} queries on {report.sets} tables: {len(report.failures)} differences")
    for failure in report.failures:
        print("\n" + failure)
    return 1 if report.failures else 0


def _native_postgres(options: argparse.Namespace) -> int:
    """Run on random tables made by SQL, with each driver in turn; return 1 if anything differed."""
    url = options.url or os.environ.get(_URLS["postgres"])
    if url is None:
        sys.exit(f"postgres-native needs --url or {_URLS['postgres']}")
    failures = []
    for driver in ("asyncpg", "psycopg"):
        plan = queries.Plan(options.n // 2, options.seed, per_set=50)
        report = asyncio.run(native_postgres.run(url, plan, driver=driver))
        print(f"{driver}: {report.tally.queries} queries on {report.sets} tables, seed {options.seed}")
        failures += report.failures
    print(f"{len(failures)} differences")
    for failure in failures:
        print("\n" + failure)
    return 1 if failures else 0


def _native_mariadb(options: argparse.Namespace) -> int:
    """Run on random tables made by SQL; return 1 if anything differed."""
    url = options.url or os.environ.get(_URLS["mariadb"])
    if url is None:
        sys.exit(f"mariadb-native needs --url or {_URLS['mariadb']}")
    report = asyncio.run(native_mariadb.run(url, queries.Plan(options.n, options.seed, per_set=40)))
    print(f"{report.tally.queries} queries on {report.sets} tables, seed {options.seed}")
    print(f"{len(report.failures)} differences")
    for failure in report.failures:
        print("\n" + failure)
    return 1 if report.failures else 0


def _first(options: argparse.Namespace) -> int:
    """Return 1 at the first difference, or if too little was exact: what a planted bug must cause."""
    for store in stores(options.backend, options.url):
        plan = queries.Plan(options.n, options.seed, per_set=options.per_set, stop_after=1, shrinks=False)
        report = asyncio.run(queries.run(store, plan))
        if report.failures or (store.backend in EXACT and report.tally.inexact() is not None):
            return 1
        count = max(options.n // 100, 3) if options.programs is None else options.programs
        if asyncio.run(programs.run(store, programs=count, seed=options.seed, shrinks=False)).failures:
            return 1
    return 0


def stores(backend: str, url: str | None) -> list[Store]:
    """Return the stores of a backend: one, or one for each layout of S3."""
    if url is None and backend in _URLS:
        url = os.environ.get(_URLS[backend])
        if url is None:
            sys.exit(
                f"{backend} needs --url or {_URLS[backend]} (python -m tests.servers run {backend} -- …)"
            )
    known = STORES if backend in {kind for kind, _, _ in STORES.values()} else STORES | FURTHER
    names = [name for name, (kind, _, _) in known.items() if backend in (kind, name)]
    return [store_of(name, url) for name in names] or [Store(backend, backend, url)]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.differential", description=__doc__)
    parser.add_argument("--backend", default="sqlite")
    parser.add_argument("--n", type=int, default=2_000, help="how many queries")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--url", help="the store; by default the test server's from the environment")
    parser.add_argument("--everyday", action="store_true", help="only everyday records and queries")
    parser.add_argument(
        "--per-set", type=int, default=queries.QUERIES_PER_SET, help="queries on each set of records"
    )
    parser.add_argument("--programs", type=int, help="how many programs; by default one for each 100 queries")
    parser.add_argument("--first", action="store_true", help="stop at the first difference, as it is")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes at once")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
