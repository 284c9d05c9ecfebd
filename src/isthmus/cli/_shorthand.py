"""`isthmus STORE …` without a command: what the arguments mean; a file or a folder is a store too.

`isthmus people.csv` describes the store and opens a prompt, `isthmus people.csv 'age>25' --sort -age`
queries it, and `isthmus people.csv --to postgres://…` copies it. A command's name wins: `./count` is a file.
Commands take a file as their store, too.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from pathlib import Path
from urllib.parse import quote, urlencode

from isthmus._core.conninfo import conninfo_to_url, is_conninfo
from isthmus.cli._errors import CommandError, ExitCode
from isthmus.cli._hints import hint_at_nearest

_DESCRIBE = frozenset({"--json", "--all", "-W", "--password", "-c", "--collection"})
_SETTINGS = frozenset({"--encoding", "--delimiter", "--types", "--zone", "--path"})
_SWITCHES = {"--text": {"types": "text"}, "--no-header": {"header": "false"}, "--round": {"round": "true"}}
"""Settings of files, which have the names of the options of `load`."""
_FILE_SCHEMES = ("files:", "file:", "files+s3:")
_SQLITE_HEADER = b"SQLite format 3\0"


def expand_shorthand(arguments: Sequence[str], commands: Collection[str]) -> list[str]:
    """Return the arguments with the command that they imply, if they begin with a store or a file.

    Settings of files, such as `--encoding`, go into the URL. Raises `CommandError` for the name of a file
    that is not there.
    """
    place = next((at for at, argument in enumerate(arguments) if not argument.startswith("-")), None)
    if place is None or (arguments[place] in commands and not _takes_store(arguments, place)):
        return list(arguments)
    named = arguments[place] in commands
    store_at = place + 1 if named else place
    store = to_store_url(arguments[store_at])
    if store is None:
        if not named:
            _require_command(arguments[place])
        return list(arguments)
    before, after = list(arguments[:place]), list(arguments[store_at + 1 :])
    if store.startswith(_FILE_SCHEMES):
        store, after = _move_settings(store, after)
    if named:
        return [*before, arguments[place], store, *after]
    if "--to" in after:
        at = after.index("--to")
        if at + 1 == len(after):
            raise CommandError("--to needs the URL of the store to copy to", ExitCode.USAGE)
        target, rest = after[at + 1], [*after[:at], *after[at + 2 :]]
        if (to_store_url(target) or "files:").startswith(_FILE_SCHEMES):
            raise CommandError(
                f"--to {target}: give the URL of a store, such as sqlite:///copy.db; a file is written by"
                f" `isthmus query {arguments[place]} -o {target}`",
                ExitCode.USAGE,
            )
        where = ["--where"] if rest and not rest[0].startswith("-") else []
        return [*before, "copy", store, target, *where, *rest]
    command = "show" if _only_describes(after) else "query"
    return [*before, command, store, *after]


def _takes_store(arguments: Sequence[str], index: int) -> bool:
    """Return whether a store or a file follows the command; `load` finds its files itself."""
    following = arguments[index + 1 : index + 2]
    return arguments[index] not in ("load", "log") and bool(following) and not following[0].startswith("-")


def _require_command(name: str) -> None:
    """Raise `CommandError` for the name of a file that is not there."""
    if "." not in name and "/" not in name:
        return  # a misspelled command
    path = Path(name)
    others = (other.name for other in path.parent.iterdir()) if path.parent.is_dir() else ()
    raise CommandError(f"{name}: no such file or folder{hint_at_nearest(path.name, others)}", ExitCode.USAGE)


def _move_settings(store: str, arguments: Sequence[str]) -> tuple[str, list[str]]:
    """Return the URL of files with the settings among the arguments, and the other arguments.

    Raises `CommandError` for a setting without its value.
    """
    settings, others, rest = {}, [], iter(arguments)
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name in _SWITCHES:
            settings.update(_SWITCHES[name])
        elif name in _SETTINGS or name == "--headings":
            given = value if equals else next(rest, None)
            if given is None:
                raise CommandError(f"{name} needs a value", ExitCode.USAGE)
            settings["header" if name == "--headings" else name.removeprefix("--")] = given
        else:
            others.append(argument)
    if not settings:
        return store, others
    return f"{store}{'&' if '?' in store else '?'}{urlencode(settings)}", others


def to_store_url(name: str) -> str | None:
    """Return the URL of a store that is named by its URL, by libpq's text or as a file, else None.

    Raises `ConfigError` for a text of libpq that cannot be read.
    """
    if "://" in name:
        return name
    path = Path(name)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(_SQLITE_HEADER)) == _SQLITE_HEADER:
                return f"sqlite:///{path.resolve()}"
    elif is_conninfo(name):
        return conninfo_to_url(name)
    elif not path.is_dir():
        return None
    return f"files://{quote(os.fsencode(path.resolve()))}"


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
