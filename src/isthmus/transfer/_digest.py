"""Digests of records that depend neither on key order nor on how a store spells numbers."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import orjson

from isthmus import Record
from isthmus._values import encode

# An integral float or an exponent, the two ways in which equal numbers are spelt differently. Text
# that looks like one only takes the slower way to the same digest.
_SPELLED = re.compile(rb"\d(?:\.0(?!\d)|e)")
_MODULUS = 2**128


def canonical_json(value: Any) -> bytes:
    """Return JSON with sorted keys in which equal numbers have one spelling; `value` is plain JSON."""
    text = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    if _SPELLED.search(text) is None:
        return text
    return orjson.dumps(_one_spelling(value), option=orjson.OPT_SORT_KEYS)


def _one_spelling(value: Any) -> Any:
    match value:
        case dict():
            return {key: _one_spelling(item) for key, item in value.items()}
        case list():
            return [_one_spelling(item) for item in value]
        case float() if value.is_integer() and -(2.0**63) <= value < 2.0**63:
            return int(value)
    return value


def record_digest(record: Record) -> int:
    """Return 128 bits over id, data and metadata; about 4 µs for a record of ten fields.

    Version and times are the store's own and not part of it.
    """
    if record.version is None:  # not from a store: its values may still be any that can be written
        data, metadata = (orjson.loads(encode(part)) for part in (record.data, record.metadata))
    else:
        data, metadata = record.data, record.metadata
    text = b"\0".join(((record.id or "").encode(), canonical_json(data), canonical_json(metadata)))
    return int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())


@dataclass(slots=True)
class Digest:
    """How many records there are and the sum of their digests modulo 2^128.

    A sum does not depend on how a range was cut into pages, so digests of neighbouring ranges add
    up to the digest of both. It finds accidents, not forgers.
    """

    count: int = 0
    total: int = 0

    def add(self, digest: int) -> None:
        """Count in one record's digest."""
        self.count += 1
        self.total = (self.total + digest) % _MODULUS

    def __iadd__(self, other: Digest) -> Digest:
        self.count += other.count
        self.total = (self.total + other.total) % _MODULUS
        return self

    @property
    def hex(self) -> str:
        """The digest as 32 hexadecimal digits."""
        return f"{self.total:032x}"
