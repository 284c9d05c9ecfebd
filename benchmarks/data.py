"""The record that is measured: ten fields, about 250 bytes of JSON."""

from __future__ import annotations

from typing import Any

CITIES = ("Paris", "Oslo", "Lima", "Kyoto", "Accra")


def document(n: int) -> dict[str, Any]:
    """Return the nth document; `group` is n % 10, so that a tenth matches `group = 3`."""
    return {
        "seq": n,
        "name": f"user-{n:07d}",
        "group": n % 10,
        "score": n * 0.5,
        "active": n % 2 == 0,
        "city": CITIES[n % 5],
        "email": f"user-{n:07d}@example.org",
        "tags": ["a", f"t{n % 7}"],
        "meta": {"level": n % 5, "source": "bench"},
        "note": "a sentence of some length that nobody will ever look for",
    }


def documents(count: int) -> list[dict[str, Any]]:
    """Return the first documents."""
    return [document(n) for n in range(count)]


def name_of(n: int) -> str:
    """Return an id of fixed width, ascending."""
    return f"{n:032d}"
