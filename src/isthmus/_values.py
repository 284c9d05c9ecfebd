"""The values that data may hold, and their one canonical JSON form (meaning §1).

`encode` is the hot path: orjson walks the record in C, and a few byte tests on its output find the
rare records that orjson writes differently from the contract. Only those take the slow walk in
Python, which also names the path of a refused value.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, TypeAlias

import orjson

from isthmus._arguments import shorten
from isthmus._conversion import PLAIN, UnstorableError, convert, describe_failure, raise_interrupt
from isthmus.errors import InvalidRecordError

JSON: TypeAlias = "None | bool | int | float | str | list[JSON] | dict[str, JSON]"
Scalar: TypeAlias = "bool | int | float | str"


MAX_DEPTH = 100
INT_MIN, INT_MAX = -(2**63), 2**63 - 1
_EXACT = 2**53

_OPTIONS = (
    orjson.OPT_PASSTHROUGH_SUBCLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS
)
# Every digit becomes "0", so that "sixteen digits in a row" and "a digit before an exponent" are
# substring searches, which cost tens of nanoseconds where a regex costs microseconds.
_DIGITS = bytes(48 if 48 <= b <= 57 else b for b in range(256))
_LONG = b"0" * 16
# A long run after a decimal point is a fraction, as every second `random()` has one, and harmless.
_LONG_INTEGERS = tuple(sign + _LONG for sign in (b":", b",", b"[", b"-"))
_TOGETHER = 32
_first_byte = operator.itemgetter(0)


def encode(data: Mapping[str, Any], where: str = "data") -> bytes:
    """Return the canonical JSON of an object; about 1 µs for a record of ten fields.

    Raises `InvalidRecordError` with the path (`data.items[3].price`) for every value that
    meaning §1 refuses.
    """
    try:
        text = orjson.dumps(data, convert, _OPTIONS)
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise_interrupt(error.__cause__)
        return orjson.dumps(canonical(data, where))
    # Each test is a search in C; a single byte is found ten times as fast as a substring, so the
    # rare bytes (a backslash, a plus, a minus) guard the substrings that need them.
    if (
        (b"null" in text and not _finite(data))  # orjson writes NaN and infinities as null
        or (92 in text and b"\\u0000" in text)
        or (45 in text and b"-0.0" in text)
        or _may_be_deep(text)
        or text[0] != 123
    ):
        return orjson.dumps(canonical(data, where))
    return orjson.dumps(canonical(data, where)) if _has_unsafe_numbers(text) else text


# Up to this length two copies cost less than a view and one.
_VIEWED = 4_096


def trim(text: bytes) -> bytes:
    """Return a copy that has no spare room, for text that is kept: orjson leaves up to 4 KiB."""
    if len(text) > _VIEWED:
        return bytes(memoryview(text))
    return text[:-1] + text[-1:] if len(text) > 2 else text


def _has_unsafe_numbers(text: bytes) -> bool:
    """Return whether there may be integers from 2^63 or integral floats from 2^53 on, which orjson takes."""
    # Sixteen digits in a row are four at every fourth byte; a quarter is quickly looked through.
    if 43 not in text and b"0000" not in text[::4].translate(_DIGITS):
        return False
    zeros = text.translate(_DIGITS)
    return (_LONG in zeros and any(start in zeros for start in _LONG_INTEGERS)) or b"0e+0" in zeros


def encode_many(items: Sequence[Any], where: str = "data") -> Iterator[str]:
    """Yield the canonical JSON of each object as text, as `encode` would, at half its cost.

    The tests of `encode` run on several objects at once.
    """
    for start in range(0, len(items), _TOGETHER):
        yield from _encode_chunk(items[start : start + _TOGETHER], where)


def _encode_chunk(items: Sequence[Any], where: str) -> Iterator[str]:
    first = items[0]
    if first is items[-1] and all(item is first for item in items):  # one patch for many records
        return repeat(encode(first, where).decode(), len(items))
    try:
        # Few at once: orjson's buffers cost ten times as much where thousands are alive.
        texts = [orjson.dumps(item, convert, _OPTIONS) for item in items]
    except (orjson.JSONEncodeError, RecursionError) as error:
        raise_interrupt(error.__cause__)
        return (encode(item, where).decode() for item in items)
    together = b"\n".join(texts)
    if (
        (b"null" in together and not _all_finite(items, texts))
        or (92 in together and b"\\u0000" in together)
        or (45 in together and b"-0.0" in together)
        # Each has one bracket at least: none has more than what is left of all of them.
        or (
            together.count(91) + together.count(123) - len(texts) >= MAX_DEPTH
            and any(map(_may_be_deep, texts))
        )
        or set(map(_first_byte, texts)) != {123}
        or _has_unsafe_numbers(together)
    ):
        return (encode(item, where).decode() for item in items)
    return map(bytes.decode, texts)


def _may_be_deep(text: bytes) -> bool:
    return len(text) > 2 * MAX_DEPTH and text.count(91) + text.count(123) > MAX_DEPTH


def _all_finite(items: Sequence[Any], texts: Sequence[bytes]) -> bool:
    return all(_finite(item) for item, text in zip(items, texts, strict=True) if b"null" in text)


def _finite(value: Any) -> bool:
    """Return whether every float is finite, as far as plain JSON types tell."""
    kind = type(value)
    if kind is float:
        return math.isfinite(value)
    if kind is dict:
        return all(map(_finite, value.values()))
    if kind is list or kind is tuple:
        return all(map(_finite, value))
    return kind is str or kind is int or kind is bool or value is None


def decode(text: bytes | str) -> Any:
    """Return the value of JSON that `encode` wrote and a store kept as it was."""
    return orjson.loads(text)


def decode_numeric(text: bytes | str) -> Any:
    """Return the value of JSON whose numbers a store rewrote as plain digits (PostgreSQL's jsonb).

    An integer outside 64 bits can only have been a float. orjson reads those beyond 2^64 as
    floats already; those between 2^63 and 2^64 are converted here.
    """
    value = orjson.loads(text)
    plain = text if isinstance(text, str) else text.decode()
    # A float has 17 significant digits at most, so that as plain digits it ends in zeros.
    if "00" in plain and ("00," in plain or "00}" in plain or "00]" in plain or plain.endswith("00")):
        return restore_floats(value) if b"0" * 19 in plain.encode().translate(_DIGITS) else value
    return value


def restore_floats(value: Any) -> Any:
    """Return decoded JSON whose integers above 64 bits are floats."""
    match value:
        case dict():
            return {key: restore_floats(item) for key, item in value.items()}
        case list():
            return [restore_floats(item) for item in value]
        case int() if value > INT_MAX:
            return float(value)
    return value


def canonical(value: Any, where: str = "data") -> dict[str, JSON]:
    """Return a private canonical copy of an object, walking it in Python (some µs a field)."""
    plain = _unwrap(value, where)
    if type(plain) is not dict:
        raise InvalidRecordError(
            f"{where}: a record's data must be an object, got {type(value).__name__}", path=where
        )
    return _walk(plain, where, 1)  # type: ignore[return-value]


def canonical_operand(value: Any, where: str) -> JSON:
    """Return the canonical form of a query operand; the same conversion as for stored values."""
    return _walk(value, where, 1)


def _walk(value: Any, where: str, depth: int) -> JSON:
    kind = type(value)
    if kind is str:
        return check_text(value, where)
    if kind is bool or value is None:
        return value  # type: ignore[no-any-return]
    if kind is int:
        return _integer(value, where)
    if kind is float:
        return _float(value, where)
    if kind is dict or kind is list or kind is tuple:
        if depth > MAX_DEPTH:
            raise InvalidRecordError(
                f"{where}: nested deeper than {MAX_DEPTH} levels (or in a cycle)", path=_cut(where)
            )
        if kind is dict:
            named = ((_key(key, where), item) for key, item in value.items())
            return {key: _walk(item, f"{where}.{key}", depth + 1) for key, item in named}
        return [_walk(item, f"{where}[{index}]", depth + 1) for index, item in enumerate(value)]
    return _walk(_unwrap(value, where), where, depth)


def _unwrap(value: Any, where: str) -> Any:
    """Return a value of a plain JSON type; its items may be of others.

    An exception of the value's own code becomes the `InvalidRecordError`'s cause, except what is no
    fault of the value: `MemoryError`, and exceptions that end a task or the program.
    """
    try:
        for _ in range(MAX_DEPTH):  # an enum's value may be a model, and so on
            if type(value) in PLAIN:
                return value
            value = convert(value)
    except UnstorableError as refusal:
        raise InvalidRecordError(f"{where}: {refusal}", path=_cut(where)) from None
    except Exception as error:
        raise_interrupt(error)
        raise InvalidRecordError(
            f"{where}: a value of type {type(value).__name__} cannot be converted: {describe_failure(error)}",
            path=_cut(where),
        ) from error
    raise InvalidRecordError(
        f"{where}: a value of type {type(value).__name__} never becomes JSON", path=_cut(where)
    )


def check_text(value: str, where: str) -> str:
    if "\0" in value:
        raise InvalidRecordError(f"{where}: text with U+0000 cannot be stored", path=_cut(where))
    try:
        value.encode()
    except UnicodeEncodeError:
        raise InvalidRecordError(
            f"{where}: text with a lone surrogate cannot be stored", path=_cut(where)
        ) from None
    return value


def _key(key: Any, where: str) -> str:
    if not issubclass(type(key), str):  # a mock of a text is none
        raise InvalidRecordError(
            f"{where}: keys must be text, got {type(key).__name__} ({shorten(key)})", path=_cut(where)
        )
    return check_text(str.__str__(key), f"{where}, a key")


def _integer(value: int, where: str) -> int:
    if INT_MIN <= value <= INT_MAX:
        return value
    raise InvalidRecordError(f"{where}: an integer beyond 64 bits cannot be stored", path=_cut(where))


def _float(value: float, where: str) -> int | float:
    if not math.isfinite(value):
        raise InvalidRecordError(f"{where}: {value} is not a finite number", path=_cut(where))
    if value == 0.0:
        return 0.0
    # From 2^53 on each float is an integer; as one it is compared exactly by every store.
    if _EXACT <= value < 2.0**63 or -(2.0**63) <= value <= -_EXACT:
        return int(value)
    return value


def _cut(where: str) -> str:
    return where if len(where) <= 200 else where[:200] + "…"


def kind_of(value: JSON) -> str:
    """Return `bool`, `number`, `text`, `object`, `list` or `null`."""
    return _KINDS[type(value)]


def kinds_of(values: Iterable[JSON]) -> set[str]:
    """Return the kinds of all values, in C's time: there may be 100,000 of them."""
    return {_KINDS[type] for type in set(map(type, values))}


_KINDS: dict[type, str] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    dict: "object",
    list: "list",
    type(None): "null",
}


def same(left: JSON, right: JSON) -> bool:
    """Return deep equality: numbers by value and exactly, never a bool with a number."""
    if isinstance(left, dict):
        return (
            isinstance(right, dict)
            and left.keys() == right.keys()
            and all(same(item, right[key]) for key, item in left.items())
        )
    if isinstance(left, list):
        return (
            isinstance(right, list)
            and len(left) == len(right)
            and all(same(a, b) for a, b in zip(left, right, strict=True))
        )
    return _KINDS[type(left)] == _KINDS[type(right)] and left == right
