"""Ranked searches: scores and passages of the hits of an answer."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from isthmus._path import Path
from isthmus._record import Record
from isthmus._search_hit import Hit, Passage

# Of longer texts the beginning is searched for passages (an index setting's default, which is a limit).
_ANALYZED = 1_000_000


class Words(Protocol):
    """What knows in which field a path's words are searched."""

    def words(self, path: Path, what: str) -> str:
        """Return the field's name; raises `UnsupportedError` if there is none, `what` being asked for."""
        ...


class Highlights:
    """The passages that one request asks for.

    The server marks words by tags within the text; these are made up for each request, so that no
    text can hold them, and the answer says places instead.
    """

    def __init__(self, paths: Sequence[Path], words: Words) -> None:
        self._names = {words.words(path, "a passage"): str(path) for path in paths}
        tag = secrets.token_hex(8)
        self._before, self._after = f"\ue000{tag}\ue001", f"\ue002{tag}\ue003"

    def clause(self) -> dict[str, Any]:
        """Return the part of a search that asks for them; nothing if there are none."""
        if not self._names:
            return {}
        clause = {
            "pre_tags": [self._before],
            "post_tags": [self._after],
            "max_analyzed_offset": _ANALYZED,
            "fields": {field: {} for field in self._names},
        }
        return {"highlight": clause}

    def hits(self, found: Sequence[Mapping[str, Any]], records: Sequence[Record]) -> dict[str, Hit]:
        """Return what was said of each record of an answer, by its id."""
        hits = {}
        for hit, record in zip(found, records, strict=False):
            said = hit.get("highlight", {})
            passages = {
                name: tuple(map(self._passage, said[field]))
                for field, name in self._names.items()
                if field in said
            }
            hits[record.id or ""] = Hit(record, hit["_score"], passages)
        return hits

    def _passage(self, text: str) -> Passage:
        parts, marks, length = [], [], 0
        for number, piece in enumerate(text.split(self._before)):
            word, after, rest = piece.partition(self._after) if number else ("", "", piece)
            if after:
                marks.append((length, length + len(word)))
            parts += [word, rest]
            length += len(word) + len(rest)
        return Passage("".join(parts), tuple(marks))
