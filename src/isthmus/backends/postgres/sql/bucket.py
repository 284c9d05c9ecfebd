"""Buckets as group keys: the server groups by what decides the bucket, the core computes it (meaning §7).

A store's own time zones are never used. Of a time in its canonical form the server cuts off what decides no
bucket, so that a period is few groups and not one for each instant.
"""

from __future__ import annotations

from isthmus._query.bucket import Bucket

_INSTANT = "^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-5][0-9]:[0-5][0-9][.][0-9]{6}Z$"
_EXACT = 2**53
"""Below it an integral float is the number that its decimal text is."""


def deciding_value(bucket: Bucket, value: str, *, number: str, string: str) -> str:
    """Return the JSON text of a value that is in the same bucket as a scalar; NULL if it is in none.

    `value` is the scalar as jsonb, `number` and `string` are NULL unless it is one.
    """
    if bucket.width is not None:
        lower = _lower_bound(number, bucket.width)
        return (
            f"CASE WHEN abs({number}) < {_EXACT} THEN ({lower})::text"
            f" WHEN {number} IS NOT NULL THEN ({value})::text END"
        )
    if bucket.zone == "UTC":
        is_cut, cut = f"{string} ~ '{_INSTANT}'", f"left({string}, 13) || ':00:00Z'"
    else:
        # Since 1973 every offset is whole minutes, and every change of one is at a whole minute.
        is_cut = f"{string} ~ '{_INSTANT}' AND {string} >= '1973'"
        cut = f"left({string}, 16) || ':00Z'"
    return f"CASE WHEN {is_cut} THEN '\"' || {cut} || '\"' WHEN {string} IS NOT NULL THEN ({value})::text END"


def _lower_bound(number: str, width: int) -> str:
    """Return a whole number in the same range as one below 2^53: its lower bound, where that is exact."""
    if width >= _EXACT:
        # Two ranges hold all such numbers. The bound of the lower one may be beyond 64 bits, and is then
        # read as a float, which may lie in the range below it.
        return f"CASE WHEN {number} < 0 THEN -1 ELSE 0 END"
    floor = f"floor({number})"
    return f"{floor} - mod(mod({floor}, {width}) + {width}, {width})"
