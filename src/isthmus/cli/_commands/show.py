"""`isthmus STORE`: what is in a store, and a prompt for questions."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from isthmus import Query
from isthmus.cli._commands.fields import All, build_profile, print_profile, profile_to_json
from isthmus.cli._options import AsJson, CollectionName, PromptPassword, RequiredStore
from isthmus.cli._output import print_json, print_note
from isthmus.cli._profile import Profile
from isthmus.cli._stores import StoreAddress, open_store, resolve_store

_COMMANDS = ("query", "count", "agg", "fields", "explain", "get", "dump", "ls", "stats")
_WORDS = ("and", "or", "not", "in", "between", "is", "null", "exists", "like", "ilike", "regex")
_HELP = f"""\
A filter prints the matching records: age>=25 and city="Oslo"
A command works on this store: {", ".join(_COMMANDS)}; such as: count age<10, agg --by city
An empty line or Ctrl-D ends.\
"""
_HISTORY = 1_000


def show(
    store: RequiredStore,
    collection: CollectionName = None,
    *,
    everything: All = False,
    as_json: AsJson = False,
    prompt: PromptPassword = False,
) -> None:
    """Describe a store or a file, and ask for questions where there is a terminal.

    Nothing is written or created. The same as `isthmus STORE`.
    """
    address = resolve_store(store, collection, prompt=prompt)
    profile, total, names = asyncio.run(_describe(address, everything=everything))
    if as_json:
        described = {} if profile is None else profile_to_json(profile, total)
        print_json({"store": address.display_name, "collections": names, **described})
        return
    sys.stdout.write(f"{address.display_name}\n")
    if names is not None:
        listed = "\n".join(f"  {name}" for name in names)
        sys.stdout.write(f"collections (-c NAME describes one):\n{listed}\n" if names else "no collections\n")
    if profile is None:
        return
    print_profile(profile, total)
    if sys.stdin.isatty() and sys.stdout.isatty():
        ask(address, list(profile.fields))


async def _describe(
    address: StoreAddress, *, everything: bool
) -> tuple[Profile | None, int, list[str] | None]:
    """Return the profile of the collection and its size, or the names of all if none is chosen."""
    async with open_store(address) as (db, names):
        if names is not None:
            if len(names) != 1:
                return None, 0, names
            address = StoreAddress(address.url, names[0], address.password)
        else:
            return (
                *await build_profile(db.collection(db.collection_name), Query(), everything=everything),
                None,
            )
    return await _describe(address, everything=everything)


def ask(address: StoreAddress, names: Sequence[str]) -> None:
    """Answer questions from a terminal until an empty line or its end; fields' names are completed."""
    from isthmus.cli._main import run

    print_note(_HELP)
    options = [] if address.collection is None else ["-c", address.collection]
    with _line_editor([*names, *_COMMANDS, *_WORDS]):
        while True:
            try:
                line = input("isthmus> ").strip()
            except EOFError:
                sys.stdout.write("\n")
                return
            except KeyboardInterrupt:
                sys.stdout.write("\n")
                continue
            if line in ("", "quit", "exit"):
                return
            if line in ("help", "?"):
                print_note(_HELP)
                continue
            run(_to_arguments(line, address.url, options))


def _to_arguments(line: str, url: str, options: Sequence[str]) -> list[str]:
    """Return the command that a line at the prompt stands for."""
    command, _, rest = line.partition(" ")
    if command not in _COMMANDS:
        return ["query", url, line, *options]
    if command in ("count", "explain", "query", "fields") and not rest.lstrip().startswith("-"):
        # The rest is a filter, whose quotes are its own.
        return [command, url, *([rest.strip()] if rest.strip() else []), *options]
    try:
        words = shlex.split(rest)
    except ValueError:
        words = rest.split()
    return [command, url, *words, *([] if command == "ls" else options)]


@contextlib.contextmanager
def _line_editor(words: Sequence[str]) -> Iterator[None]:
    """Complete these words, and keep a history in the user's cache, where Python has readline."""
    try:
        import readline
    except ImportError:  # Windows
        yield
        return
    file = Path.home() / ".cache" / "isthmus" / "history"
    with contextlib.suppress(OSError):
        readline.read_history_file(file)
    readline.set_completer(_completer(words))
    readline.set_completer_delims(" \t\n=<>!~()[],&|")
    readline.parse_and_bind("tab: complete")
    try:
        yield
    finally:
        readline.set_completer(None)
        readline.set_history_length(_HISTORY)
        # A home folder that cannot be written has no history.
        with contextlib.suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)


def _completer(words: Sequence[str]) -> Callable[[str, int], Any]:
    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(text)]
        return found[state] if state < len(found) else None

    return complete
