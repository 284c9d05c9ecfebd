"""Python's patterns as Lucene's: each class finds the same characters on the server."""

from __future__ import annotations

import re

import pytest

from isthmus._core.executor import Mutation, WriteKind
from isthmus._path import parse_path
from isthmus._query.ast import Regex
from isthmus.backends.elasticsearch.backend import ElasticsearchBackend

pytestmark = [pytest.mark.backend("elasticsearch"), pytest.mark.asyncio]
CLASSES = [
    r"\s",
    r"[^\s]",
    r"\d",
    "[!-/]",
    "[:-@]",
    r"[\[-`]",
    "[{-~]",
    "[ -~]",
    "[^ -~]",
    r"[+\-.]",
    r"[\]\\^]",
    "[a-f0-3]",
    "[\t-\r]",
    "[\u2000-\u2010\U0001f600-\U0001f64f]",
    r"[\\-\]]",
    '["-&]',
]


async def test_each_class_finds_the_characters_that_it_finds_in_python(backend: ElasticsearchBackend) -> None:
    """Ranges between characters that mean something to Lucene included."""
    codes = [*range(1, 0x180), *range(0x1FF0, 0x2070), 0x3000, 0x1F5FF, 0x1F600, 0x1F64F, 0x1F650]
    texts = {f"c{code}": chr(code) for code in codes}
    changes = [Mutation(id, {"t": text}) for id, text in texts.items()]
    await backend.write(backend.default_collection, WriteKind.CREATE, changes, atomic=False)

    for pattern in CLASSES:
        leaf = Regex(parse_path("t"), pattern)
        tally = await backend.count(backend.default_collection, leaf)
        assert tally.count == sum(re.search(pattern, text) is not None for text in texts.values()), pattern
