"""The columns, groups and order of `isthmus agg` as text."""

from __future__ import annotations

import re
from typing import Any

from isthmus import QueryError
from isthmus._path import Path, parse_path
from isthmus._query.bucket import Bucket
from isthmus.cli._filter import parse_field

# The end of a group such as `at:day@Europe/Oslo` or `price:10`; a quoted name may have a colon in it.
_BUCKET = re.compile(r"(?P<field>.+):(?P<size>[^:@\"'`]+)(?:@(?P<zone>[^:@\"'`]+))?")


def parse_measure(text: str) -> tuple[str, Any]:
    """Return the name and the measure of a column such as `total=sum:price` or `percentile:price:95`."""
    name, equals, measure = text.rpartition("=") if "=" in text else ("", "", text)
    function, colon, path = measure.partition(":")
    if not function or (equals and not name) or (colon and not path):
        raise QueryError(f"--col {text!r}: expected count, sum:price or total=sum:price")
    label = name or "_".join(part for part in (function, path.replace(":", "_")) if part)
    if not path:
        return label, function
    if function != "percentile":
        return label, (function, parse_field(path))
    field, _, percent = path.rpartition(":")
    try:
        return label, (function, parse_field(field), float(percent) if "." in percent else int(percent))
    except ValueError:
        raise QueryError(f"--col {text!r}: expected percentile:price:95") from None


def parse_group(text: str) -> Path | Bucket:
    """Return the key of a group such as `city`, `at:day`, `at:day@Europe/Oslo` or `price:10`."""
    found = _BUCKET.fullmatch(text)
    if found is None:
        return parse_field(text).path
    size = found["size"].strip()
    return parse_field(found["field"]).by(int(size) if size.isdecimal() else size, zone=found["zone"])  # type: ignore[arg-type]


def parse_column(text: str) -> Path:
    """Return the name of a column to sort by; a name that is quoted is a field's, as in a filter."""
    return parse_field(text).path if text[:1] in "\"'`" else parse_path(text)
