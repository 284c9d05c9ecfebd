"""Hits of a ranked search: records with scores and highlights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from isthmus._record import Record
from isthmus._value import Value


class Passage(Value):
    """A snippet of a text that matched.

    `marks` are the offsets of the matched words in `text`, as (start, end) in characters.
    """

    text: str
    marks: tuple[tuple[int, int], ...]

    def marked(
        self, before: str = "<em>", after: str = "</em>", *, escape: Callable[[str], str] | None = None
    ) -> str:
        """Return the text with `before` and `after` around each mark.

        `escape` is applied to the text itself; `escape=html.escape` makes the result safe HTML.
        """
        clean = escape or str
        parts, position = [], 0
        for start, end in self.marks:
            parts += [clean(self.text[position:start]), before, clean(self.text[start:end]), after]
            position = end
        return "".join([*parts, clean(self.text[position:])])


class Hit(Value):
    """A record found by a ranked search.

    `score` is the store's own measure: higher is better, and scores are comparable within one
    result only. `highlights` holds the matching snippets by field name, for the fields that the
    search asked to highlight.
    """

    record: Record
    score: float | None = None
    highlights: Mapping[str, tuple[Passage, ...]] = MappingProxyType({})

    @property
    def passages(self) -> Mapping[str, tuple[Passage, ...]]:
        """The name of `highlights` in 0.1.0."""
        return self.highlights
