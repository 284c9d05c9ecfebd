"""Characters that are equal without regard to case."""

from __future__ import annotations

import sys

from isthmus._query.text import fold_character, fold_groups


def test_a_group_has_every_character_of_its_fold() -> None:
    """Patterns of servers name all of them; checked against each code point there is."""
    members: dict[str, set[str]] = {}
    for character in map(chr, range(sys.maxunicode + 1)):
        members.setdefault(fold_character(character), set()).add(character)

    expected = {fold: "".join(sorted(found)) for fold, found in members.items() if found != {fold}}
    assert fold_groups() == expected
    assert expected["s"] == "Ss\u017f"
