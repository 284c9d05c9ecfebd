"""Hits: what a ranked search says of a record beside the record itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from isthmus._record import Record
from isthmus._value import Value


class Passage(Value):
    """A piece of a text that matched; `marks` are where in it the words stand, as (start, end)."""

    text: str
    marks: tuple[tuple[int, int], ...]

    def marked(
        self, before: str = "<em>", after: str = "</em>", *, escape: Callable[[str], str] | None = None
    ) -> str:
        """Return the text with something around each mark; `escape=html.escape` makes it safe HTML."""
        clean = escape or str
        parts, at = [], 0
        for start, end in self.marks:
            parts += [clean(self.text[at:start]), before, clean(self.text[start:end]), after]
            at = end
        return "".join([*parts, clean(self.text[at:])])


class Hit(Value):
    """A record that a ranked search found.

    `score` is the store's own measure: higher is better, and it compares within one answer only.
    `passages` has the pieces that matched by the field's name, for the fields asked for.
    """

    record: Record
    score: float | None = None
    passages: Mapping[str, tuple[Passage, ...]] = MappingProxyType({})
