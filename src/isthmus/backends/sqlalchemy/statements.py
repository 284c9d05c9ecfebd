"""Statements with many arguments."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

CHUNK = 500


def chunks(items: Sequence[Any]) -> Iterator[list[Any]]:
    """Yield the items in lists of at most 500: servers limit the number of a statement's arguments."""
    source = iter(items)
    while part := list(itertools.islice(source, CHUNK)):
        yield part
