"""The prompt after `isthmus STORE` on a terminal: filters and commands on that store."""

from __future__ import annotations

import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from isthmus._core.home import expand_home
from isthmus.cli._output import print_note
from isthmus.cli._stores import StoreAddress

_COMMANDS = ("query", "count", "agg", "fields", "explain", "get", "dump", "ls", "stats")
_WORDS = ("and", "or", "not", "in", "between", "is", "null", "exists", "like", "ilike", "regex")
_HELP = f"""\
A filter prints the matching records: age>=25 and city="Oslo"
A command works on this store: count age<10, agg --by city
Commands: {", ".join(_COMMANDS)}
An empty line or Ctrl-D ends.\
"""
_HISTORY = 1_000
_OPERATOR = re.compile(r"\s*(?:[=<>!~]|(?:not|in|between|is|exists|like|ilike|regex)\b)", re.IGNORECASE)
"""What follows a field, which may have the name of a command."""


@dataclass(frozen=True)
class Prompt:
    """What a command returns in order to ask for questions about a store, whose fields have these names."""

    address: StoreAddress
    names: Sequence[str]

    def ask(self, run: Callable[[list[str]], int], commands: Collection[str]) -> None:
        """Run the commands that a terminal gives, until an empty line or its end; `commands` are all."""
        print_note(_HELP)
        options = [] if self.address.collection is None else ["-c", self.address.collection]
        with _line_editor([*self.names, *_COMMANDS, *_WORDS]):
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
                first, _, rest = line.partition(" ")
                if first in commands and first not in _COMMANDS and not _OPERATOR.match(rest):
                    print_note(f"{first} is not available here: leave the prompt with Ctrl-D")
                    continue
                run(_to_arguments(line, self.address.url, options))


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
    file = Path(expand_home("~/.cache/isthmus/history"))
    if file.is_absolute():  # a user may have no home
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
        if file.is_absolute():
            # A home folder that cannot be written has no history.
            with contextlib.suppress(OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                readline.write_history_file(file)


def _completer(words: Sequence[str]) -> Callable[[str, int], Any]:
    def complete(text: str, state: int) -> str | None:
        found = [word for word in words if word.startswith(text)]
        return found[state] if state < len(found) else None

    return complete
