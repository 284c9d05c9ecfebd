"""Keys: ids in any characters, in their own order, within the limits of S3."""

from __future__ import annotations

import random

import pytest

from isthmus.backends.s3.keys import (
    escape,
    folder_name,
    is_record_name,
    name_before_stem,
    record_name,
    stem_of,
    unescape,
)
from isthmus.errors import UsageError

pytestmark = pytest.mark.backend("s3")

ALPHABET = [chr(number) for number in range(1, 0x180)] + list("aab/.-_z!~(é😀\U0010ffff\ue000\uffff") * 5


def _ids(seed: int, count: int, longest: int) -> set[str]:
    rng = random.Random(seed)
    made = {"".join(rng.choices(ALPHABET, k=rng.randint(1, longest))) for _ in range(count)}
    return {id for id in made if len(id.encode()) <= 512} | {"a", "a/b", "a-b", "a.b", "..", ".", "/", "%2f"}


def test_names_sort_as_ids_do() -> None:
    """The order of keys by bytes is the order of whole ids by code point."""
    print("seed 1")
    ids = {id for id in _ids(1, 20_000, 8) if len(escape(id)) <= 160}

    by_name = sorted(ids, key=lambda each: record_name(each).encode())

    assert by_name == sorted(ids)


def test_a_name_leads_back_to_its_id_and_to_no_other() -> None:
    """Escaping is reversible, and only what it makes is read back."""
    print("seed 2")
    ids = _ids(2, 20_000, 8)

    assert len({record_name(id) for id in ids}) == len(ids)
    assert all(unescape(escape(id)) == id for id in ids)
    assert unescape("(41") is None
    assert unescape("a/b") is None
    assert unescape("~ff") is None


def test_every_name_is_safe_and_short() -> None:
    """A component stays within 200 bytes of characters that no server or proxy rewrites."""
    print("seed 3")
    names = [record_name(id) for id in _ids(3, 5_000, 512)]

    assert all(len(name) <= 200 and is_record_name(name) for name in names)
    assert all(
        set(name) <= set("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-(.=_~!")
        for name in names
    )


def test_long_ids_tie_with_those_that_begin_alike_only() -> None:
    """A cut name sorts after the id that is the cut itself and before what comes after the cut."""
    long, other, next_one = "x" * 160 + "b", "x" * 160 + "a" * 300, "x" * 159 + "y"

    assert stem_of(record_name(long)) == stem_of(record_name(other)) == "x" * 160
    assert stem_of(record_name("x" * 160)) is None
    assert (
        record_name("x" * 160) <= (name_before_stem(long) or "") < record_name(long) < record_name(next_one)
    )
    assert name_before_stem("short") is None


def test_what_is_no_record_of_ours_is_told_by_its_name() -> None:
    """Foreign objects, markers and probes are not taken for records."""
    for name in ("readme.txt", "_layout.json", "a.json", "!.json", "_probe-x", "a b!.json", "é!.json", "dir"):
        assert not is_record_name(name)


def test_a_collection_that_fits_no_component_is_refused() -> None:
    """A folder's name has the same limit as a record's."""
    assert folder_name("users") == "users"
    assert folder_name("a/b") == "a.fb"
    with pytest.raises(UsageError):
        folder_name("é" * 100)
    with pytest.raises(UsageError):
        folder_name("")
