"""Digests of records, independent of key order and of how a store writes numbers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus import Record
from isthmus._values import encode

# An integral float or an exponent: the two ways in which stores write equal numbers differently.
# Text that looks like one merely takes the slower path to the same digest.
_VARIABLE_NUMBER = re.compile(rb"\d(?:\.0(?!\d)|e)")
_MODULUS = 2**128


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys and one form for equal numbers; `value` is plain JSON."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if _VARIABLE_NUMBER.search(text) is None:
        return text
    return orjson.dumps(_normalize_numbers(value), option=orjson.OPT_SORT_KEYS)


def _normalize_numbers(value: Any) -> Any:
    match value:
        case dict():
            return {key: _normalize_numbers(item) for key, item in value.items()}
        case list():
            return [_normalize_numbers(item) for item in value]
        case float() if value.is_integer() and -(2.0**63) <= value < 2.0**63:
            return int(value)
    return value


def record_digest(record: Record) -> int:
    """Return a 128-bit hash of a record's id, data and metadata; about 4 µs for ten fields.

    Version and timestamps are set by each store and are not included.
    """
    if record.version is None:  # not read from a store, so its values may not be plain JSON yet
        data, metadata = (orjson.loads(encode(part)) for part in (record.data, record.metadata))
    else:
        data, metadata = record.data, record.metadata
    text = b"\0".join(((record.id or "").encode(), canonical_json(data), canonical_json(metadata)))
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


@dataclass(slots=True)
class Digest:
    """The number of records and the sum of their digests modulo 2^128.

    A sum does not depend on order or on page boundaries, so digests of adjacent ranges add up to
    the digest of both. It detects accidental differences, not forgeries.
    """

    count: int = 0
    total: int = 0

    def add(self, digest: int) -> None:
        """Add the digest of one record."""
        self.count += 1
        self.total = (self.total + digest) % _MODULUS

    def __iadd__(self, other: Digest) -> Digest:
        self.count += other.count
        self.total = (self.total + other.total) % _MODULUS
        return self

    @property
    def hex(self) -> str:
        """The sum as 32 hexadecimal digits."""
        return f"{self.total:032x}"
