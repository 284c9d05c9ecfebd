"""Patterns and texts that make an engine slow or large, each with random numbers and letters."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from isthmus import Query, field
from isthmus._query.ast import Predicate

_TEXT, _LONG = field("t"), field("long")


def short_texts() -> dict[str, str]:
    """Return texts of some thousand characters by id."""
    return {
        "as": "a" * 5_000 + "!",
        "ab": "abbabaabab" * 500,
        "xs": "x" * 5_000,
        "words": "lorem ipsum dolor sit amet " * 200,
        "wide": "é" * 2_500 + "日本" * 1_000 + "𐐀" * 500,
        "lines": "a b\n" * 1_000,
        "digits": "1234567890" * 400,
        "empty": "",
    }


def long_texts(long: int) -> dict[str, str]:
    """Return texts of `long` bytes of UTF-8 by id."""
    return {
        "as-long": "a" * long,
        "ab-long": "abbabaabab" * (long // 10),
        "wide-long": "é日" * (long // 5),
    }


# Each takes a number up to 100 and a set of characters.
_REGEXES: tuple[Callable[[int, str], str], ...] = (
    lambda n, c: f"({c}+)+$",
    lambda n, c: f"^(({c}|{c}{c})+)+z$",
    lambda n, c: f"({c}*)*({c}*)*!z",
    lambda n, c: f"(?:{c}?){{{n}}}{c}{{{n}}}z",
    lambda n, c: f"(?:{c}{{1,{n}}}){{1,{n}}}Z",
    lambda n, c: f"(?:.*{c}){{{n}}}Z",
    lambda n, c: f"{c}.{{{n * 10}}}[bz]Z?!?$",
    lambda n, c: f"(?:a|b)*a(?:a|b){{{n}}}{c}$",
    lambda n, c: f"(?i)(?:[^\\W\\d]{{1,{n}}}\\s?){{1,20}}Z",
    lambda n, c: f"(?:(?:(?:{c}{{0,10}}){{0,10}}){{0,{n}}})Z",
    lambda n, c: "|".join(f"{c}{i}" for i in range(n * 5)),
    lambda n, c: f"{c}{{{n}}}" * n + "$",
    lambda n, c: f".{{0,{n * 10}}}(?:a|b|c).{{0,{n * 10}}}Z?$",
    lambda n, c: f"\\b(?:{c}\\b|\\B{c})*Z$",
    lambda n, c: f"(?m)^(?:{c}|$)*Z",
    lambda n, c: f"(?i)[{c.strip('[]')}\\u0100-\\U0010ffff]{{{n}}}$",
    lambda n, c: "(" * n + c + ")*" * n + "Z",
    lambda n, c: "(?=" * (n % 20 + 1) + c + ")" * (n % 20 + 1),
    lambda n, c: f"({c})\\1+$",
    lambda n, c: f"{c}{{{n * 1000}}}",
    lambda n, c: f"(?:{c}{{{n}}}){{{n}}}",
    lambda n, c: f"[^{c.strip('[]')}]{{{n}}}" * 20 + "Z?$",
)
_SETS = ("a", "x", "[ab]", r"\w", ".", r"[\w\s]", "é", r"\S", "[^z]", r"\d")


def regex(rng: Random) -> str:
    """Return a pattern."""
    return rng.choice(_REGEXES)(rng.randint(1, 100), rng.choice(_SETS))


def like(rng: Random) -> str:
    """Return a LIKE pattern: runs, single characters by the thousand, and pieces that nearly fit."""
    part = rng.choice(("a_", "_", "ab_", "a%", "%_%", "_x", "é_", "b%a_", "a" * 50 + "b", "日%"))
    return "%" + part * rng.choice((1, 10, 100, 1_000, 5_000)) + rng.choice(("%", "z%", "z", "_%", ""))


def text_predicate(rng: Random) -> Predicate:
    """Return a predicate with one or a few patterns; building it may raise `QueryError`."""
    text = _LONG if rng.random() < 0.2 else _TEXT  # the long ones mostly end at the deadline
    chance = rng.random()
    if chance < 0.6:
        return text.regex(regex(rng))
    if chance < 0.75:
        return text.like(like(rng))
    if chance < 0.85:
        return text.ilike(like(rng))
    if chance < 0.9:
        return ~text.regex(regex(rng)) & text.ilike(like(rng))
    if chance < 0.95:
        return text.contains("a" * rng.randint(1, 1_000) + "b" + "a" * rng.randint(0, 1_000))
    return text.regex(regex(rng)) | text.regex(regex(rng)) | text.like(like(rng))


def tree(rng: Random) -> Predicate:
    """Return a wide or deep tree; building it may raise `QueryError`."""
    width = rng.choice((100, 1_000, 5_000, 9_999))
    shape = rng.randrange(6)
    names = [field(rng.choice(("t", f"f{number}"))) for number in range(width)]
    if shape == 0:
        return _any([name == number for number, name in enumerate(names)])
    if shape == 1:
        return ~_any([name != number for number, name in enumerate(names)])
    if shape == 2:
        return _any([name.like(f"%{number}_z%") for number, name in enumerate(names[:2_000])])
    if shape == 3:
        return _any(
            [_TEXT.regex(f"a{number % 50}b+$") for number in range(min(width, rng.choice((500, 1_000))))]
        )
    if shape == 4:
        return _TEXT.in_([f"x{number}" for number in range(width * 10)])
    nested: Predicate = _TEXT == "x"
    for number in range(rng.choice((50, 150, 250))):
        nested = ~(nested & (field(f"f{number}") > number))
    return nested


def _any(terms: list[Predicate]) -> Predicate:

    return Query().any_of(*terms).where
