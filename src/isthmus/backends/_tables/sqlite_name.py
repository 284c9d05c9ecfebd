"""The file names of SQLite: which of them name a database without a file."""

from __future__ import annotations

from urllib.parse import parse_qsl, unquote

_MEMORY = ":memory:"


def lives_in_memory(name: str, *, uri: bool) -> bool:
    """Return whether a database is in memory, or temporary, so that no other process can open it.

    `uri` is whether a name that starts with `file:` is a URI (https://www.sqlite.org/uri.html): then
    `mode=memory`, the VFS memdb, the name `:memory:` and an empty path have no file, with a shared cache too.
    """
    if not uri or not name.startswith("file:"):
        return name in ("", _MEMORY)
    path, _, query = name.removeprefix("file:").partition("#")[0].partition("?")
    if path.startswith("//"):  # an authority, which is empty or localhost
        path = "".join(path[2:].partition("/")[1:])
    options = dict(parse_qsl(query, keep_blank_values=True))  # of two of one name the last counts
    return unquote(path) in ("", _MEMORY) or options.get("mode") == "memory" or options.get("vfs") == "memdb"
