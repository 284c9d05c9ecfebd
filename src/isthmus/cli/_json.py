"""JSON text in and out: integers stay exact where orjson would round or refuse them."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import orjson

from isthmus.backends.files.formats.json_text import parse_json

__all__ = ["format_json", "parse_json"]


def format_json(value: Any) -> bytes:
    """Return a value as JSON on one line, in UTF-8.

    orjson refuses what a sum or a file name may be: an integer beyond 64 bits, and text that is not
    UTF-8, which is escaped.
    """
    try:
        return orjson.dumps(value, default=str)
    except TypeError:
        return json.dumps(value, default=_format_rare, separators=(",", ":")).encode()


def _format_rare(value: Any) -> str:
    return value.isoformat() if isinstance(value, dt.datetime | dt.date) else str(value)
