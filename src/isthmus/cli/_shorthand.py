"""`isthmus STORE …` without a command: what the arguments mean; a file or a folder is a store too.

`isthmus people.csv` describes the store and opens a prompt, `isthmus people.csv 'age>25' --sort -age`
queries it, and `isthmus people.csv --to postgres://…` copies it. A command's name wins: `./count` is a file.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import quote

from isthmus.cli._errors import CommandError, ExitCode

_DESCRIBE = frozenset({"--json", "--all", "-W", "--password", "-c", "--collection"})
_SQLITE_HEADER = b"SQLite format 3\0"


def expand_shorthand(arguments: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return the arguments with the command that they imply, if they begin with a store or a file."""
    place = next((at for at, argument in enumerate(arguments) if not argument.startswith("-")), None)
    if place is None or arguments[place] in commands:
        return list(arguments)
    store = to_store_url(arguments[place])
    if store is None:
        return list(arguments)
    before, after = list(arguments[:place]), list(arguments[place + 1 :])
    if "--to" in after:
        at = after.index("--to")
        if at + 1 == len(after):
            raise CommandError("--to needs the URL of the store to copy to", ExitCode.USAGE)
        return [*before, "copy", store, after[at + 1], *after[:at], *after[at + 2 :]]
    command = "show" if _only_describes(after) else "query"
    return [*before, command, store, *after]


def to_store_url(name: str) -> str | None:
    """Return the URL of a store that is given as its URL or as a file; None if it is neither."""
    if "://" in name:
        return name
    path = Path(name)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER:
                return f"sqlite:///{path.resolve()}"
    elif not path.is_dir():
        return None
    return f"files://{quote(str(path.resolve()))}"


def _only_describes(arguments: Sequence[str]) -> bool:
    """Return whether these are options of `show` alone."""
    rest = iter(arguments)
    for argument in rest:
        name = argument.partition("=")[0]
        if name not in _DESCRIBE:
            return False
        if argument in ("-c", "--collection"):
            next(rest, None)
    return True
