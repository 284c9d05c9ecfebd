"""Edge-case values: those that a store is most likely to lose, reorder or reject."""

from __future__ import annotations

import random
from typing import Any

from isthmus._values import JSON

INTEGERS = (
    *(0, 1, -1, 2, 3, 5, 9, 10, 30, 100, 255, -128, 65_536, 10**9),
    *(2**31 - 1, 2**31, -(2**31) - 1),
    *(2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 2**53 + 2),
    *(2**62, 2**63 - 1, 2**63 - 2, -(2**63), -(2**63) + 1),
)
FLOATS = (
    *(0.0, -0.0, 0.5, 1.0, 1.5, 2.0, -1.25, 0.1, 0.30000000000000004, 99.99),
    *(1e300, -1e300, 1.7976931348623157e308, 1e-320, 5e-324, 1e-7, 1e16, 123456789012345680.0),
    *(2.0**53, 2.0**63, -(2.0**63), 2.0**64, 1e22, 1e21, 3.0e-5),
)
# Characters of each Unicode plane, combining marks, control characters, spaces, direction marks, and the
# special characters of LIKE, GLOB, regular expressions, JSON paths, SQL and Lucene.
# fmt: off
TEXTS = (
    "", " ", "  ", "a", "A", "b", "B", "ab", "abc", "abcd", "Alice", "alice", "ALICE", "Bob", "Paris",
    "paris",
    "0", "1", "30", "9", "10", "1.0", "-1", "true", "false", "null", "None", "NaN", "[]", "{}", "[1]",
    '{"a":1}',
    "é", "e\u0301", "É", "ß", "ẞ", "SS", "ss", "İ", "i", "I", "ı", "ſ", "K", "ﬁ", "ς", "σ", "Σ",
    "日本語", "日本", "中文", "한국어", "العربية", "עברית", "ไทย", "हिन्दी", "Ελληνικά", "Кириллица",
    "Հայերեն", "ქართული",
    "💥", "👩‍👩‍👧", "🇫🇷", "𝔘𝔫𝔦", "𐍈", "𠀀", "\U0002fa1d", "\U000e0001", "\U000f0000", "\U0010ffff", "\ufffd",
    "\uffff",
    "\ue000", "\ud7ff", "\ufeff", "\u200b", "\u202e", "\u2028", "\u0085", "\u00a0", "\x01", "\x1f", "\x7f",
    "\t",
    "\n", "\r\n", "a\nb", "a\n", "\na", "line one\nline two", "tab\there",
    "%", "_", "\\", "a%b", "a_b", "a\\b", "\\%", "100%", "a%", "%a", "__", "a\\", "\\\\", "\\n",
    ".", ".*", "a.c", "a+", "a?", "(a)", "[a]", "[%", "a{2}", "^a", "a$", "a|b", "*", "?", "[!a]", "[]",
    "'", '"', "''", "it's", 'say "hi"', "`", ";", "--", "/*", "x'; DROP TABLE y; --", "$1", "${x}", "%s",
    "{0}", "?",
    "a/b", "../x", "a:b", "a AND b", "NOT a", "~", "<a>", "a=b", "#", "@", "&", "a\\u0041", "\\u0000",
    "\\x00",
    "2024-01-01", "2024-01-01T00:00:00.000000Z", "2024-02-30", "2024-02-29T23:30:00+02:00",
    "2024-03-31T00:59:59.999999Z", "2024-10-27T00:30:00.000000Z", "1969-12-31", "9999-12-31T23:59:59Z",
    "12:30", "z", "Z", "zz", "aa", "aaa", "ba",
)
KEYS = (
    "a", "b", "c", "n", "name", "age", "city", "tags", "items", "price", "v",
    "", " ", ".", "..", "a.b", ".a", "a.", "a b", "a'b", 'a"b', "a\\b", "a`b", "é", "e\u0301", "💥", "$x",
    "$", "a-b", "\n", "\x01",
    "%", "_", "*", "?", "[0]", "0", "1", "#", "@", "a/b", "a:b", "A", "x" * 60, "\U0010ffff", "日本",
    "id", "_id", "data", "metadata", "_metadata", "version", "_version", "odd", "obj", "key", "type",
    "value",
    "created_at", "_created_at", "null", "true", "_score", "_source", "__proto__", "constructor",
)
IDS = (
    "a", "A", "b", "0", "1", "10", "9", " ", "  ", "a b", "a/b", "/", "//", "..", ".", "../x", "a/../b",
    "%", "%2F", "%00",
    "é", "e\u0301", "💥", "日本", "\n", "\t", "'", '"', "`", ";", "\\", "*", "?", "#", "&", "=", "+", "a+b",
    "_", "__", "-",
    "\x01", "\x7f", "\ufeff", "\uffff", "\U0010ffff", "NULL", "null", "id", "_id", ".json", "a.json", "CON",
    "~", "{}", "[x]",
    "x" * 512, "é" * 256, "💥" * 128, "x" * 511 + "y", "x" * 200, "x" * 201, "a" * 255 + "/b",
)
# fmt: on
# Sizes in bytes around the limits at which stores truncate, stop indexing or change the storage format.
LONG_SIZES = (255, 256, 257, 2_712, 8_190, 8_191, 8_192, 32_765, 32_766, 32_767)
_ALPHABET = "abcABC019 _%.\\'\"é日💥\n"


def integer(rng: random.Random) -> int:
    """Return a 64-bit integer, often an edge case."""
    if rng.random() < 0.5:
        return rng.choice(INTEGERS)
    return rng.randint(-20, 120) if rng.random() < 0.7 else rng.randint(-(2**63), 2**63 - 1)


def real(rng: random.Random) -> float:
    """Return a finite float, often an edge case."""
    if rng.random() < 0.5:
        return rng.choice(FLOATS)
    return (
        round(rng.uniform(-100, 100), rng.randint(0, 6)) if rng.random() < 0.7 else rng.uniform(-1e18, 1e18)
    )


def text(rng: random.Random) -> str:
    """Return a text, mostly a short edge case."""
    chance = rng.random()
    if chance < 0.7:
        return rng.choice(TEXTS)
    if chance < 0.9:
        return "".join(rng.choices(_ALPHABET, k=rng.randint(1, 12)))
    return rng.choice(TEXTS) + rng.choice(TEXTS)


def long_text(rng: random.Random) -> str:
    """Return a text whose size in UTF-8 bytes is at a limit of some store, or next to it."""
    size = rng.choice(LONG_SIZES)
    unit = rng.choice(("x", "é", "日", "💥", "ab%"))
    repeated = unit * (size // len(unit.encode()))
    return repeated + "y" * (size - len(repeated.encode()))


def scalar(rng: random.Random) -> bool | int | float | str:
    """Return a bool, an integer, a float or a text."""
    match rng.randrange(10):
        case 0:
            return rng.random() < 0.5
        case 1 | 2 | 3:
            return integer(rng)
        case 4 | 5:
            return real(rng)
    return text(rng)


def value(rng: random.Random, depth: int = 3) -> JSON:
    """Return any JSON value, nested at most `depth` levels."""
    chance = rng.random()
    if depth == 0 or chance < 0.6:
        return None if rng.random() < 0.1 else scalar(rng)
    if chance < 0.8:
        return [value(rng, depth - 1) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
    return {key(rng): value(rng, depth - 1) for _ in range(rng.choice((0, 1, 2, 3)))}


def key(rng: random.Random) -> str:
    """Return a key of an object; every second one is an edge case."""
    return rng.choice(KEYS[:11]) if rng.random() < 0.5 else rng.choice(KEYS)


def ids(rng: random.Random, count: int) -> list[str]:
    """Return `count` distinct ids, about half of them edge cases."""
    chosen: dict[str, Any] = dict.fromkeys(rng.sample(IDS, min(len(IDS), count // 2)))
    while len(chosen) < count:
        chosen[rng.choice(("", "k", "日", "x/")) + str(rng.randrange(10**6))] = None
    shuffled = list(chosen)[:count]
    rng.shuffle(shuffled)
    return shuffled
