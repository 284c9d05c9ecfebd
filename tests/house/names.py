"""Names: classes with two meanings, participles for functions, names that were to go, vague parameters."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from tests.house.definitions import Definition
from tests.house.source import Offender

_HERE = Path(__file__).parent


def read_toml(name: str) -> dict[str, Any]:
    """Return the contents of a data file of this folder."""
    return tomllib.loads((_HERE / name).read_text(encoding="utf-8"))


# Classes


@dataclass(frozen=True)
class Role:
    """A class name that several backends may define, each at most once, because it is one role."""

    name: str
    reason: str
    base: str = ""
    """A class of the core that states the role; a class elsewhere may have the name if it derives from it."""


def ambiguous_classes(defined: Iterable[Definition], roles: Sequence[Role]) -> Iterator[Offender]:
    """Yield classes whose name stands for something else in another module.

    A name may be defined once in each of several folders of `backends/` if it is a listed role; with a
    class that has the role's base, outside of the backends too. Two definitions in one module are one
    (`if`, `try`).
    """
    by_name: dict[str, dict[str, Definition]] = {}
    for one in defined:
        if one.kind == "class":
            by_name.setdefault(one.name, {}).setdefault(one.path, one)
    known = {role.name: role for role in roles}
    for name, places in sorted(by_name.items()):
        if len(places) > 1 and not _is_one_role(list(places.values()), known.get(name)):
            for one in places.values():
                others = ", ".join(path.removeprefix("src/isthmus/") for path in places if path != one.path)
                yield Offender(one.path, one.line, f"class {name}, also in {others}")


def _is_one_role(classes: list[Definition], role: Role | None) -> bool:
    if role is None:
        return False
    rest = [one for one in classes if not (role.base and role.base in one.bases)]
    backends = [_backend(one.path) for one in rest]
    return all(backends) and len(set(backends)) == len(backends)


def _backend(path: str) -> str:
    match = re.search(r"/backends/(\w+)/", path)
    return match[1] if match else ""


# Functions

_PROPERTIES = re.compile(r"(^|\.)(cached_|abstract)?property$|\.(setter|getter|deleter)$")


def read_words(name: str) -> dict[str, frozenset[str]]:
    """Return the word lists of a data file, by their headings."""
    lists: dict[str, set[str]] = {}
    words: set[str] = set()
    for line in (_HERE / name).read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            words = lists.setdefault(line.strip("[]"), set())
        elif not line.startswith("#"):
            words.update(line.split())
    return {heading: frozenset(found) for heading, found in lists.items()}


_WORDS = read_words("participles.txt")


def is_participle(name: str) -> bool:
    """Return whether a name begins with a past participle, or is one present participle or adjective."""
    words = [word for word in name.lower().split("_") if word]
    if not words:
        return False
    first = words[0]
    if first in _WORDS["irregular"] or (first.endswith("ed") and first not in _WORDS["not participles"]):
        return True
    is_present = first.endswith("ing") and first not in _WORDS["not participles"]
    return len(words) == 1 and (is_present or first in _WORDS["adjectives"])


def participles(defined: Iterable[Definition]) -> Iterator[Offender]:
    """Yield functions and methods that are named by a participle or an adjective.

    Left out: properties, dunder names, predicates (`is_…`, `has_…`), functions inside of functions.
    """
    seen: set[tuple[str, str]] = set()
    for one in defined:
        if one.kind != "function" or one.is_nested or one.name.startswith(("__", "is_", "has_")):
            continue
        if any(_PROPERTIES.search(decorator) for decorator in one.decorators):
            continue
        # Overloads are one function.
        if is_participle(one.name) and (one.path, one.qualname) not in seen:
            seen.add((one.path, one.qualname))
            yield Offender(one.path, one.line, one.qualname)


# Names that were to go


_NAMED_BY_ALIAS = ("class", "function", "variable", "attribute")


@dataclass(frozen=True)
class OldName:
    """A name that was to go, and where: `fnmatch` patterns of paths."""

    name: str
    kind: str
    """A kind of `Definition`, or `word`: a part of any name."""
    becomes: str
    within: tuple[str, ...] = ("*",)
    outside: tuple[str, ...] = ()

    def applies_to(self, path: str) -> bool:
        """Return whether the name is meant in a file."""
        return _any_fits(path, self.within) and not _any_fits(path, self.outside)


def old_names_from(data: Mapping[str, Any]) -> list[OldName]:
    """Return the entries of `old_names.toml`."""
    return [
        OldName(
            name,
            entry["kind"],
            becomes,
            within=tuple(entry.get("within", "*")),
            outside=tuple(entry.get("outside", ())),
        )
        for entry in data["old"]
        for name, becomes in entry["names"].items()
    ]


def standing_names(
    defined: Iterable[Definition], old: Sequence[OldName], aliases: Sequence[Mapping[str, str]]
) -> Iterator[Offender]:
    """Yield definitions of names that were to go; an alias is known by its qualified name."""
    kept = {alias["name"] for alias in aliases}
    by_name: dict[tuple[str, str], list[OldName]] = {}
    for entry in old:
        by_name.setdefault((entry.kind, entry.name), []).append(entry)
    for one in defined:
        if one.qualname in kept:
            continue
        # Another name for something new is still the old name, whatever it stands for.
        kinds = _NAMED_BY_ALIAS if one.kind == "alias" else (one.kind,)
        keys = [*((kind, one.name) for kind in kinds), *(("word", word) for word in _words(one.name))]
        for entry in (entry for key in keys for entry in by_name.get(key, ())):
            if entry.applies_to(one.path):
                yield Offender(one.path, one.line, f"{one.kind} {one.qualname} -> {entry.becomes}")
                break


def kept_aliases(defined: Iterable[Definition], aliases: Sequence[Mapping[str, str]]) -> Iterator[Offender]:
    """Yield definitions that are listed as aliases, with the reason."""
    reasons = {alias["name"]: alias["reason"] for alias in aliases}
    for one in defined:
        if one.qualname in reasons:
            yield Offender(one.path, one.line, f"{one.qualname}: {reasons[one.qualname]}")


@cache
def _words(name: str) -> tuple[str, ...]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return tuple(word for word in spaced.split("_") if word)


def _any_fits(path: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(path, "src/isthmus/" + pattern) for pattern in patterns)


# Parameters

_NO_EXCUSE = frozenset({"told", "asked", "most", "way"})
VAGUE = _NO_EXCUSE | {"at", "place", "left"}


def vague_parameters(
    defined: Iterable[Definition], allowed: Sequence[Mapping[str, str]]
) -> Iterator[Offender]:
    """Yield parameters whose name does not say what they hold; `left` next to `right` does."""
    kept = {entry["name"] for entry in allowed}
    for one in defined:
        if one.kind != "parameter" or one.name not in VAGUE:
            continue
        if (one.qualname in kept and one.name not in _NO_EXCUSE) or (
            one.name == "left" and "right" in one.siblings
        ):
            continue
        yield Offender(one.path, one.line, f"{one.owner}({one.name})")
