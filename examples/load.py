"""A batch loader: writes JSON lines to any store and reports the lines that fail.

python -m examples.load people.jsonl postgres://app@db/app --id email --rejects bad.jsonl

Each line is an object. It can be run again after a crash, since the ids come from the lines or from
the line numbers: the same records are written again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from isthmus import AsyncDatabase, IsthmusError, Record


@dataclass
class Report:
    """The result of a load."""

    written: int = 0
    rejected: list[tuple[int, str]] = field(default_factory=list)
    """Line numbers and error messages."""


@dataclass
class Line:
    """A line of the file, and its record."""

    number: int
    text: str
    record: Record


def lines(source: TextIO, id_field: str | None, report: Report) -> Iterator[Line]:
    """Yield the valid lines; add the others to the report."""
    for number, text in enumerate(source, 1):
        if not text.strip():
            continue
        try:
            data: Any = json.loads(text)
            if not isinstance(data, dict):
                raise ValueError("not an object")
            key = f"line-{number:09}" if id_field is None else str(data[id_field])
            yield Line(number, text, Record(data, id=key))
        except KeyError:
            report.rejected.append((number, f"no field {id_field!r}"))
        except (ValueError, RecursionError, IsthmusError) as error:
            report.rejected.append((number, str(error)))


def batches(items: Iterator[Line], size: int) -> Iterator[list[Line]]:
    """Yield the lines in batches of `size`."""
    batch: list[Line] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


async def load(
    db: AsyncDatabase, source: TextIO, *, id_field: str | None = None, size: int = 1_000
) -> AsyncIterator[Report]:
    """Write all lines in batches of `size`; yield the report after each batch."""
    report = Report()
    for batch in batches(lines(source, id_field, report), size):
        outcomes = await db.upsert_batch([line.record for line in batch], on_error="collect", atomic=False)
        report.written += len(outcomes) - len(outcomes.errors)
        report.rejected += [(batch[index].number, str(error)) for index, error in outcomes.errors.items()]
        yield report
    report.rejected.sort()
    yield report


async def run(options: argparse.Namespace) -> int:
    """Load a file and return an exit code: 0 if every line was written."""
    start = time.perf_counter()
    report = Report()
    async with await AsyncDatabase.open(options.url, {"resilience": "batch"}) as db:
        with options.file.open(encoding="utf-8") as source:
            async for report in load(db, source, id_field=options.id, size=options.batch):
                print(
                    f"\r{report.written:,} written, {len(report.rejected):,} rejected",
                    end="",
                    file=sys.stderr,
                )
    print(f" in {time.perf_counter() - start:.1f} s", file=sys.stderr)
    if report.rejected and options.rejects:
        with options.rejects.open("w", encoding="utf-8") as target:
            for number, error in report.rejected:
                target.write(json.dumps({"line": number, "error": error}) + "\n")
    return 1 if report.rejected else 0


def main() -> int:
    """Parse the arguments, run and return an exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("file", type=Path)
    parser.add_argument("url")
    parser.add_argument(
        "--id", metavar="FIELD", help="the field with the record's id; default: the line number"
    )
    parser.add_argument("--batch", type=int, default=1_000, metavar="N")
    parser.add_argument("--rejects", type=Path, metavar="FILE", help="write the rejected lines to this file")
    try:
        return asyncio.run(run(parser.parse_args()))
    except IsthmusError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
