"""Scores and highlights of ranked searches."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from isthmus._path import Path
from isthmus._record import Record
from isthmus._search_hit import Hit, Passage

# Characters of a text that are highlighted (the default of an index setting, which is a limit).
_ANALYZED = 1_000_000


class TextFields(Protocol):
    """Names the analyzed field of a path."""

    def text_field(self, path: Path, needed_by: str) -> str:
        """Return the field's name; raises `UnsupportedError`, which names `needed_by`, if there is none."""
        ...


class Highlights:
    """The highlights of one request.

    The server marks words by tags within the text. Tags are random for each request, so that no text
    can contain them, and are turned into offsets.
    """

    def __init__(self, paths: Sequence[Path], fields: TextFields) -> None:
        self._names = {fields.text_field(path, "a highlight"): str(path) for path in paths}
        tag = secrets.token_hex(8)
        self._before, self._after = f"\ue000{tag}\ue001", f"\ue002{tag}\ue003"

    def clause(self) -> dict[str, Any]:
        """Return the `highlight` part of a search; nothing if there are none."""
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
        """Return the score and highlights of each record of a response, by its id."""
        hits = {}
        for hit, record in zip(found, records, strict=False):
            snippets = hit.get("highlight", {})
            passages = {
                name: tuple(map(self._passage, snippets[field]))
                for field, name in self._names.items()
                if field in snippets
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
