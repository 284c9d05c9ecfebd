"""Texts: like with escapes, ilike with case folding, Python regular expressions, code point order."""

from __future__ import annotations

import re
import string

import pytest

from isthmus import AsyncDatabase, Policy, Query, QueryError, field
from isthmus.testing.conformance._fixtures import find_ids, store

# fmt: off
TEXTS = (
    "Alice", "alice", "ALICE", "abc", "a.c", "aXc", "a%c", "a_c", "a\\c", "a\nc", "[%", "", " ", "%", "_",
    "\\",
    "é", "e\u0301", "É", "ß", "SS", "ss", "ẞ", "İ", "i", "I", "ı", "ſ", "s", "K", "k", "σ", "ς", "Σ", "ﬁ",
    "FI",
    "💥", "💥b", "日本語", "日本", "a\n", "a", "line one\nline two", "10", "9", "Z", "z",
    "\uffff", "\U0010ffff",
)
# fmt: on


async def _match(db: AsyncDatabase, op: str, operand: str) -> set[str]:
    await store(db, {f"{n:03}": {"t": text} for n, text in enumerate(TEXTS)})
    predicate = getattr(field("t"), op)(operand)
    matching = await find_ids(db, predicate)
    others = await find_ids(db, ~predicate)
    assert len(matching) + len(others) == len(TEXTS)
    return {TEXTS[int(id or "")] for id in matching}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("alice", {"alice"}),
        ("a_c", {"abc", "a.c", "aXc", "a%c", "a_c", "a\\c", "a\nc"}),
        ("a.c", {"a.c"}),
        ("a\\_c", {"a_c"}),
        ("a\\%c", {"a%c"}),
        ("a\\\\c", {"a\\c"}),
        ("[%", {"[%"}),
        ("\\%", {"%"}),
        ("\\", {"\\"}),
        ("a\\c", set()),
        ("", {""}),
        ("_", {*(t for t in TEXTS if len(t) == 1)}),
        ("__", {*(t for t in TEXTS if len(t) == 2)}),
        ("💥_", {"💥b"}),
        ("%\n%", {"a\nc", "a\n", "line one\nline two"}),
        ("line%two", {"line one\nline two"}),
        ("%本%", {"日本語", "日本"}),
        ("a%", {t for t in TEXTS if t.startswith("a")}),
        ("%ce", {"Alice", "alice"}),
        ("%%", set(TEXTS)),
        ("a", {"a"}),
    ],
)
@pytest.mark.asyncio
async def test_like_matches_the_whole_text(db: AsyncDatabase, pattern: str, expected: set[str]) -> None:
    r"""`%` is any text, `_` one character, `\` an escape; case-sensitive; line breaks are characters (§3)."""
    assert await _match(db, "like", pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("alice", {"Alice", "alice", "ALICE"}),
        ("ÀLICE", set()),
        ("é", {"é", "É"}),
        ("ss", {"SS", "ss"}),
        ("ß", {"ß", "ẞ"}),
        ("s", {"s", "ſ"}),
        ("K", {"K", "k"}),
        ("σ", {"σ", "ς", "Σ"}),
        ("i", {"i", "I"}),
        ("İ", {"İ"}),
        ("ı", {"ı"}),
        ("fi", {"FI"}),
        ("_", {t for t in TEXTS if len(t) == 1}),
        ("%LIC%", {"Alice", "alice", "ALICE"}),
    ],
)
@pytest.mark.asyncio
async def test_ilike_folds_each_character(db: AsyncDatabase, pattern: str, expected: set[str]) -> None:
    """By its single-character case folding; the length never changes (§3)."""
    assert await _match(db, "ilike", pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("lic", {"Alice", "alice"}),
        ("^A", {"Alice", "ALICE"}),
        ("^a", {t for t in TEXTS if t.startswith("a")}),
        ("c$", {"abc", "a.c", "aXc", "a%c", "a_c", "a\\c", "a\nc"}),
        ("a$", {"a", "a\n"}),
        (r"a\Z", {"a"}),
        ("^$", {""}),
        ("a.c", {"abc", "a.c", "aXc", "a%c", "a_c", "a\\c"}),
        ("(?s)a.c", {"abc", "a.c", "aXc", "a%c", "a_c", "a\\c", "a\nc"}),
        ("(?i)alice", {"Alice", "alice", "ALICE"}),
        (r"^\d+$", {"10", "9"}),
        (r"\s", {" ", "a\nc", "a\n", "line one\nline two"}),
        ("^.$", {*(t for t in TEXTS if len(t) == 1 and t != "\n"), "a\n"}),
        ("[^a-zA-Z]c", {"a.c", "a%c", "a_c", "a\\c", "a\nc"}),
        ("^(abc|9)$", {"abc", "9"}),
        (r"\bone\b", {"line one\nline two"}),
        ("^line two", set()),
        ("(?m)^line two", {"line one\nline two"}),
        ("💥.", {"💥b"}),
        (r"\\", {"a\\c", "\\"}),
        (r"\[%", {"[%"}),
        ("^S?$", {""}),
        ("^S{2}$", {"SS"}),
        ("^s{1,}$", {"s", "ss"}),
        ("^s{1}$", {"s"}),
        (r"[\^_]", {"_", "a_c"}),
        (r"[%\]]", {"%", "[%", "a%c"}),
        (r"[\\-^]", {"\\", "a\\c"}),
        (r"[Z-\\]", {"Z", "[%", "\\", "a\\c"}),
        # A range between characters that classes escape.
        (r"[\[-\]]", {"[%", "\\", "a\\c"}),
        (r"\b日本\b", {"日本"}),
        (r"日\B", {"日本語", "日本"}),
        (r"^\B$", set()),
        ("(?i)^[ß]$", {"ß", "ẞ"}),
        ("(?i)^k$", {"K", "k"}),
        ("(?i:S)S|(?-i:s)s", {"SS", "ss"}),
        ("(?m)o$", {"line one\nline two"}),
        ("e$\n", set()),
        ("^a$\n", {"a\n"}),
    ],
)
@pytest.mark.asyncio
async def test_regex_is_python_search(db: AsyncDatabase, pattern: str, expected: set[str]) -> None:
    """Like `re.search`, with anchors, flags and classes (§3)."""
    assert await _match(db, "regex", pattern) == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(.)\1", {"SS", "ss"}),
        ("a(?!.)", {"a", "a\n", "a\nc"}),
        ("(?<=é)", {"é"}),
        ("(?>a*)b", {"abc", "💥b"}),
        ("a++b", {"abc"}),
        ("(a)?b(?(1)c|z)", {"abc"}),
    ],
)
@pytest.mark.asyncio
async def test_backtracking_is_refused_unless_it_is_allowed(
    db: AsyncDatabase, pattern: str, expected: set[str]
) -> None:
    """What no linear-time engine takes is refused by the handle, on every backend alike (§3)."""
    await store(db, {f"{n:03}": {"t": text} for n, text in enumerate(TEXTS)})
    allowing = db.options(policy=Policy(backtracking="allow"))

    with pytest.raises(QueryError, match="linear"):
        await db.search(field("t").regex(pattern))
    with pytest.raises(QueryError, match="linear"):
        await db.count(~field("t").regex(pattern) | field("t").exists())

    assert {TEXTS[int(id or "")] for id in await find_ids(allowing, field("t").regex(pattern))} == expected


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(a+)+$", {"a"}),
        ("^(a|a)*$", {"a", "none"}),
        ("(x+x+)+y", set()),
        ("(a?){30}a{30}$", {"a"}),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", set()),
        (r"^(\w+\s?)*$", {"a", "none"}),
        (".*.*=.*", set()),
    ],
)
@pytest.mark.asyncio
async def test_no_pattern_takes_exponential_time(db: AsyncDatabase, pattern: str, expected: set[str]) -> None:
    """A backtracking engine would search these for hours; every backend answers (§3)."""
    texts = {"a": "a" * 5_000, "none": "", "a!": "a" * 5_000 + "!", "x": "x" * 5_000 + "-"}
    await store(db, {id: {"t": text} for id, text in texts.items()})

    assert await find_ids(db, field("t").regex(pattern)) == expected


@pytest.mark.asyncio
async def test_case_is_ignored_beyond_the_basic_plane_too(db: AsyncDatabase) -> None:
    """CPython forgets the other case in sets with such characters; the documentation holds (§3)."""
    await store(db, {"small": {"t": "𐐨"}, "capital": {"t": "𐐀"}, "other": {"t": "𐐁"}})

    assert await find_ids(db, field("t").regex(r"(?i)[𐐀\d]")) == {"small", "capital"}
    assert await find_ids(db, field("t").regex(r"[𐐀\d]")) == {"capital"}


@pytest.mark.parametrize(
    "pattern",
    ["a" * 10_001, "(a{1,100}){1,101}", "(" * 101 + "a" + ")" * 101, "a{1000000000000}", "(?:"],
)
@pytest.mark.asyncio
async def test_a_pattern_that_is_bad_or_too_large_is_refused(db: AsyncDatabase, pattern: str) -> None:
    """At most 10,000 characters, 10,000 states with repeats written out and 100 levels (§3)."""
    with pytest.raises(QueryError, match="regex"):
        await db.search(field("t").regex(pattern))


@pytest.mark.parametrize(
    "part",
    [
        *("", "a", "A", "%", "_", "\\", "é", "日", "💥", "\n", "c", "ss", "[", ".", "\uffff", "\U0010ffff"),
        # Long enough for a trigram index.
        *("a%c", "a_c", "a\\c"),
    ],
)
@pytest.mark.asyncio
async def test_prefix_suffix_and_substring_are_literal(db: AsyncDatabase, part: str) -> None:
    """No character has a special meaning."""
    assert await _match(db, "starts_with", part) == {t for t in TEXTS if t.startswith(part)}
    await db.clear()
    assert await _match(db, "ends_with", part) == {t for t in TEXTS if t.endswith(part)}
    await db.clear()
    assert await _match(db, "contains", part) == {t for t in TEXTS if part in t}


# Texts with characters that are special in some server's patterns, and texts that those would match.
_LITERALS = (
    *(f"a{mark}c" for mark in string.punctuation),
    *("a<1-5>c", "a{2}c", "a(b)c", "a[b]c", 'a"b"c', "a~bc"),
    *("a.*c", "ab?c", "^ac$", "a&&bc", "(?i)abc", "a\\bc"),
)
_SIMILAR = ("ac", "abc", "aac", "abbc", "a3c", "a\nc", "a", "c", "b", "")


def _escape(op: str, text: str) -> str:
    """Return a pattern of the operator that matches exactly this text."""
    if op in ("like", "ilike"):
        escaped = "".join("\\" + c if c in "%_\\" else c for c in text)
        return escaped.upper() if op == "ilike" else escaped
    if op == "regex":
        return f"^{re.escape(text)}\\Z"
    # Python's parser reduces a class of a single character to that character, so each has two.
    return f"^{''.join(f'[{re.escape(c)}é]' for c in text)}\\Z" if op == "classes" else text


@pytest.mark.parametrize("op", ["like", "ilike", "regex", "classes", "starts_with", "ends_with", "contains"])
@pytest.mark.asyncio
async def test_punctuation_is_literal(db: AsyncDatabase, op: str) -> None:
    """No character has a special meaning beyond the contract, alone or in combination (§3)."""
    await store(db, {f"{n:03}": {"t": text} for n, text in enumerate((*_LITERALS, *_SIMILAR))})

    operator = getattr(field("t"), "regex" if op == "classes" else op)
    # All in one query: a pattern that matches too much finds similar texts, one too narrow misses its own.
    matching = await find_ids(db, Query().any_of(*(operator(_escape(op, text)) for text in _LITERALS)))

    assert {(*_LITERALS, *_SIMILAR)[int(id or "")] for id in matching} == set(_LITERALS)


@pytest.mark.asyncio
async def test_texts_compare_by_code_point(db: AsyncDatabase) -> None:
    """Not by the rules of a language: `Z` before `a`, an emoji after U+FFFF."""
    await store(db, {f"{n:03}": {"t": text} for n, text in enumerate(TEXTS)})

    for bound in ("Z", "a", "é", "\uffff", "💥", ""):
        assert {TEXTS[int(i or "")] for i in await find_ids(db, field("t") > bound)} == {
            t for t in TEXTS if t > bound
        }
        assert {TEXTS[int(i or "")] for i in await find_ids(db, field("t") <= bound)} == {
            t for t in TEXTS if t <= bound
        }


@pytest.mark.asyncio
async def test_equal_looking_texts_are_not_equal(db: AsyncDatabase) -> None:
    """No normalization: composed and combining é differ, and so do trailing spaces and case."""
    await store(
        db, {"composed": {"t": "é"}, "combining": {"t": "e\u0301"}, "space": {"t": "é "}, "upper": {"t": "É"}}
    )

    assert await find_ids(db, field("t") == "é") == {"composed"}
    assert await find_ids(db, field("t") == "e\u0301") == {"combining"}
    assert await find_ids(db, field("t").in_(["é ", "É"])) == {"space", "upper"}
