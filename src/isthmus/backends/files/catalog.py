"""The files of a collection as they were listed, and patterns of names."""

from __future__ import annotations

import bisect
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import BinaryIO, NamedTuple, Protocol, TypeVar

from isthmus.backends.files.ids import parse_row_id
from isthmus.errors import ConfigError

R = TypeVar("R")
MAX_FILES = 1_000_000
"""The most files of a collection; each costs about 300 bytes of memory."""


class File(NamedTuple):
    """A file by its name relative to the collection, its size in bytes, and its version."""

    key: str
    size: int
    version: str


class Storage(Protocol):
    """Lists and opens files; called in threads, never on the event loop."""

    @property
    def name(self) -> str:
        """Return where the files are, without secrets."""
        ...

    def bind(self, work: Callable[[], R]) -> Callable[[], R]:
        """Return work that is called in a thread for the running loop."""
        ...

    async def close(self) -> None:
        """Release the connections."""
        ...

    def list_files(self) -> list[File]:
        """Return the files of the collection in any order; raises `ConfigError` for a missing place."""
        ...

    def open(self, file: File) -> BinaryIO:
        """Open a file as it was listed; raises `UnavailableError` if it changed since."""
        ...

    def check(self, file: File, stream: BinaryIO) -> None:
        """Raise `UnavailableError` if the file changed since it was opened."""
        ...


class Catalog:
    """The files of one listing, in the order of their rows' ids."""

    def __init__(self, files: Iterable[File]) -> None:
        self.files = sorted(files, key=_start_of)
        if len(self.files) > MAX_FILES:
            raise ConfigError(
                f"files: there are more than {MAX_FILES:,} files; name fewer by a pattern, or merge them"
            )
        digest = hashlib.blake2b(digest_size=8)
        for file in self.files:
            digest.update(f"{file.key}\0{file.version}\0".encode("utf-8", "surrogatepass"))
        self.digest = digest.hexdigest()
        """A hash of all names and versions: two listings with the same one are the same."""

    def find(self, id: str) -> tuple[int, int] | None:
        """Return the index of the file and the number of the row that an id names."""
        parsed = parse_row_id(id)
        if parsed is None:
            return None
        index = bisect.bisect_left(self.files, f"{parsed[0]}#", key=_start_of)
        found = index < len(self.files) and self.files[index].key == parsed[0]
        return (index, parsed[1]) if found else None

    def first_after(self, id: str, *, inclusive: bool = False) -> tuple[int, int]:
        """Return the file and row at which the ids above any text begin, or from it on (`inclusive`)."""
        for index, file in enumerate(self.files):
            start = _start_of(file)
            if id < start:
                return index, 0
            if id.startswith(start):
                row = _row_after(id[len(start) :], inclusive=inclusive)
                if row is not None:
                    return index, row
        return len(self.files), 0


def _start_of(file: File) -> str:
    """Return the text with which the ids of a file's rows begin."""
    return f"{file.key}#"


def _row_after(rest: str, *, inclusive: bool) -> int | None:
    """Return the first row whose 12 digits are above a text; None if there is none."""
    digits = re.match(r"[0-9]{0,12}", rest)
    assert digits is not None
    known, more = digits[0], rest[len(digits[0]) :]
    if len(known) == 12:
        return int(known) + (0 if inclusive and not more else 1)
    row = int(known.ljust(12, "0"))
    if more and more[0] > "9":  # above every row that begins with these digits
        row += 10 ** (12 - len(known))
    return row if row < 10**12 else None


def split_pattern(location: str) -> tuple[str, str | None]:
    """Return the folder before the first part with a wildcard, and the pattern below it."""
    parts = location.replace("\\", "/").split("/") if "\\" in location else location.split("/")
    for index, part in enumerate(parts):
        if any(character in part for character in "*?["):
            return "/".join(parts[:index]) or ("/" if location.startswith("/") else "."), "/".join(
                parts[index:]
            )
    return location, None


def names_hidden(key: str) -> bool:
    """Return whether a part of a key, or of a pattern, begins with a dot: other patterns skip such keys."""
    return any(part.startswith(".") for part in key.split("/"))


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return what matches whole keys: `**` is any folders, `*` and `?` stay within one name."""
    result = ""
    parts = pattern.split("/")
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            result += ".*" if last else "(?:[^/]+/)*"
        else:
            result += _translate(part) + ("" if last else "/")
    return re.compile(result, re.DOTALL)


def _translate(part: str) -> str:
    result, index = "", 0
    while index < len(part):
        character = part[index]
        index += 1
        if character == "*":
            result += "[^/]*"
        elif character == "?":
            result += "[^/]"
        elif character == "[" and (end := part.find("]", index + 1 + (part[index : index + 1] == "!"))) > 0:
            inner = part[index:end].replace("\\", "\\\\")
            negated = inner.startswith("!")
            inner = inner[1:] if negated else inner
            inner = re.sub(r"([\[\]^&~|])", r"\\\1", inner)
            result += f"[^/{inner}]" if negated else f"[{inner}]"
            index = end + 1
        else:
            result += re.escape(character)
    return result
