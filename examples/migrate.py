"""A migration from dataknobs-data: loads exported records into a store, copies them and verifies the copy.

python -m examples.migrate export.jsonl sqlite:///staging.db postgres://app@db/app

The export has one line for each record, written by `json.dumps(record.to_dict(include_metadata=True))`:
`{"fields": {"name": {"value": "Ada", "type": "string"}}, "metadata": {}, "id": "…"}`, or the flat form
`{"name": "Ada", "_id": "…"}`. The first store keeps the records unchanged; the copy renames fields. If
the program is run again, it resumes the copy.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from isthmus import AsyncDatabase, IsthmusError, Record, transfer

# Old name to new name; None drops a field.
FIELDS: Mapping[str, str | None] = {"full_name": "name", "tmp": None}


def parse_record(exported: dict[str, Any]) -> Record:
    """Return the record of an exported object in either form."""
    if isinstance(exported.get("fields"), dict):
        data = {
            name: part["value"] if isinstance(part, dict) and "value" in part else part
            for name, part in exported["fields"].items()
        }
        key = exported.get("storage_id") or exported.get("id")
        return Record(data, id=None if key is None else str(key), metadata=exported.get("metadata") or {})
    data = dict(exported)
    key = data.pop("_id", None)
    metadata = data.pop("_metadata", None) or {}
    return Record(data, id=None if key is None else str(key), metadata=metadata)


def read_export(path: Path) -> Iterator[Record]:
    """Yield the records of an export; one without an id gets its line number as id."""
    with path.open(encoding="utf-8") as source:
        for number, line in enumerate(source, 1):
            if line.strip():
                record = parse_record(json.loads(line))
                yield Record(record.data, id=record.id or f"line-{number:09}", metadata=record.metadata)


async def migrate(path: Path, staging: str, target: str) -> transfer.Comparison:
    """Load the export into `staging`, copy it to `target` and return the comparison of both."""
    async with await AsyncDatabase.open(staging) as old, await AsyncDatabase.open(target) as new:
        loaded = await old.stream_write(read_export(path), upsert=True)
        journal = path.with_suffix(".journal")
        receipt = await transfer.copy(old, new, fields=FIELDS, journal=journal, resume=journal.exists())
        print(f"{loaded.written} loaded, {receipt.written} copied, {receipt.rejected} rejected")
        return await transfer.verify(old, new, fields=FIELDS)


def main() -> int:
    """Migrate and return an exit code: 0 if both stores hold the same records."""
    try:
        path, staging, target = sys.argv[1:]
    except ValueError:
        print(__doc__)
        return 2
    try:
        comparison = asyncio.run(migrate(Path(path), staging, target))
    except (IsthmusError, OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    print("equal" if comparison.equal else json.dumps(comparison.to_json()))
    return 0 if comparison.equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
