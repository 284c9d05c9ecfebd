"""Rows of CSV as canonical JSON texts, made by Arrow a column at a time.

A cell that is a number is its own JSON, since it comes back to the letter; so is text without quotes,
backslashes and control characters. Rows with other cells are left to the conversion of values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import orjson

from isthmus.backends.files.formats.arrow_library import arrow, compute, null_scalar, text_array, text_scalar
from isthmus.backends.files.formats.column_kinds import Found

ESCAPED = r'[\x00-\x1f"\\]'
"""Characters of texts that JSON writes in another way."""
_ESCAPED_BYTES = bytes(range(32)) + b'"\\'


class EncodedRows(NamedTuple):
    """Rows of a batch as JSON; `cells` has the JSON of each column."""

    names: Sequence[str]
    cells: list[Any]
    texts: list[Any]
    """The cells as text, with null for those that are null; None for a column that is no id as it is."""
    canonical: bool = True
    """Whether the texts are to the letter those that a store would write."""

    def cut(self, fields: frozenset[str]) -> EncodedRows | None:
        """Return the rows with some fields alone; None if they have none of them."""
        kept = [index for index, name in enumerate(self.names) if name in fields]
        if not kept:
            return None
        names, cells, texts = ([part[at] for at in kept] for part in (self.names, self.cells, self.texts))
        return EncodedRows(names, cells, texts, self.canonical)

    def objects(self) -> list[bytes]:
        """Return each row as a JSON object."""
        values: list[bytes] = self._join().cast(arrow().binary()).to_pylist()
        return values

    def object_texts(self) -> list[str]:
        """Return each row as a JSON object, as text."""
        values: list[str] = self._join().to_pylist()
        return values

    def _join(self) -> Any:
        parts: list[Any] = []
        for index, (name, column) in enumerate(zip(self.names, self.cells, strict=True)):
            parts += [text_scalar(f"{',' if index else '{'}{orjson.dumps(name).decode()}:"), column]
        return compute().binary_join_element_wise(*parts, text_scalar("}"), text_scalar(""))

    def ids(self, fields: Sequence[str]) -> list[str] | None:
        """Return the ids in fields: a cell's text, or several cells as a JSON list.

        None if a cell is null, or a column's values have to be made to say its ids.
        """
        if not set(fields) <= set(self.names):
            return None
        indexes = [self.names.index(name) for name in fields]
        if any(self.texts[index] is None or self.texts[index].null_count for index in indexes):
            return None
        if len(indexes) == 1:
            found: list[str] = self.texts[indexes[0]].to_pylist()
            return found
        parts = [self.cells[index] for index in indexes]
        joined = compute().binary_join_element_wise(*parts, text_scalar(","))
        return [f"[{cells}]" for cells in joined.to_pylist()]


def has_escaped(texts: Any) -> bool:
    """Return whether JSON writes a character of a text in another way."""
    data = texts.buffers()[2]
    if data is not None:
        # All bytes at once, at an eighth of the pattern's cost; a slice shares them with other cells.
        encoded = data.to_pybytes()
        if len(encoded.translate(None, _ESCAPED_BYTES)) == len(encoded):
            return False
    return bool(compute().any(compute().match_substring_regex(texts, ESCAPED)).as_py())


def encode_cells(column: Any, kind: Found, null: frozenset[str], is_plain: Any) -> tuple[Any, Any] | None:
    """Return the cells of a column as JSON and as texts with nulls; None if one needs another look.

    `is_plain` returns whether all filled cells are numbers that are their own JSON.
    """
    pc = compute()
    texts = column
    if null:
        texts = pc.if_else(pc.is_in(texts, value_set=text_array(sorted(null))), null_scalar(), texts)
    if kind in ("text", "empty"):
        if has_escaped(column):
            return None
        quote = text_scalar('"')
        cells = pc.binary_join_element_wise(quote, texts, quote, text_scalar(""))
    else:
        texts = pc.if_else(pc.equal(texts, text_scalar("")), null_scalar(), texts)
        if kind == "number" and not is_plain(texts.drop_null()):
            return None
        cells = texts
    return (pc.fill_null(cells, text_scalar("null")) if cells.null_count else cells), texts
