"""Quoting: the one place where names and keys become part of a statement."""

from __future__ import annotations

import orjson


def quoted(name: str) -> str:
    """Return a table's, schema's or index's name as SQL writes it."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Return text as an SQL constant; right whatever `standard_conforming_strings` says."""
    doubled = text.replace("'", "''")
    if "\\" in doubled:
        return "E'" + doubled.replace("\\", "\\\\") + "'"
    return f"'{doubled}'"


def path_key(key: str) -> str:
    """Return a key as a jsonpath accessor."""
    # jsonpath takes the escapes of JSON; U+007F and the rest may stand as they are.
    return "." + orjson.dumps(key).decode()
