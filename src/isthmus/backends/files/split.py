"""Divides a catalog into parts at files and row groups, each with hints for the process that reads it."""

from __future__ import annotations

import bisect
from collections.abc import Iterator
from typing import NamedTuple

from isthmus.backends.files.catalog import File
from isthmus.backends.files.formats.column_kinds import Found
from isthmus.backends.files.formats.dialect import Checkpoint
from isthmus.backends.files.ids import row_id
from isthmus.backends.files.reader import FileReader
from isthmus.backends.files.scan import Scanner
from isthmus.errors import UnavailableError


class Hint(NamedTuple):
    """Facts about files, for a process that reads from one of them on."""

    digest: str
    """Of the catalog that was divided; another one means that files have changed."""
    kinds: dict[str, Found]
    key: str
    """The file in which the part begins."""
    start: Checkpoint | None
    """Where in it a text may be read on from."""


def split_rows(reader: FileReader, scanner: Scanner, count: int) -> list[tuple[str, Hint]]:
    """Return the ids of the last rows of up to `count - 1` parts of about as many rows, in order.

    A part ends where a file, a row group or a block of a text ends, if there is one near. Reads each file
    once of which the number of rows is not known.
    """
    files = scanner.catalog.files
    firsts = [0]
    for file in files:
        firsts.append(firsts[-1] + reader.find_rows(file, scanner.kinds))
    total = firsts[-1]
    seams = sorted(
        {first + row for first, file in zip(firsts, files, strict=False) for row in _seams(reader, file)}
    )
    found: list[tuple[str, Hint]] = []
    last = 0
    for part in range(1, count):
        row = _nearest(seams, part * total // count, total / count / 2)
        if not last < row < total:
            continue
        last = row
        index = bisect.bisect_right(firsts, row) - 1
        end = bisect.bisect_right(firsts, row - 1) - 1
        file = files[index]
        start = reader.facts_of(file).nearest(row - firsts[index])
        hint = Hint(scanner.catalog.digest, dict(scanner.kinds), file.key, start)
        found.append((row_id(files[end].key, row - 1 - firsts[end]), hint))
    return found


def _seams(reader: FileReader, file: File) -> Iterator[int]:
    """Yield the rows of a file at which reading may begin without those before them."""
    facts = reader.facts_of(file)
    yield 0
    yield from (checkpoint.row for checkpoint in facts.checkpoints)
    if facts.footer is not None:
        yield from facts.footer.first_rows()


def _nearest(seams: list[int], row: int, reach: float) -> int:
    """Return the seam nearest to a row; the row itself if none is within reach."""
    index = bisect.bisect_left(seams, row)
    near = min(seams[max(index - 1, 0) : index + 1], key=lambda seam: abs(seam - row), default=row)
    return near if abs(near - row) <= reach else row


def take_hint(reader: FileReader, files: list[File], digest: str, hint: Hint) -> None:
    """Note what another process found; raises `UnavailableError` if these are not the files it saw."""
    if digest != hint.digest:
        raise UnavailableError(
            "files: files changed since the partitions were made; make them again", transient=False
        )
    for file in files:
        facts = reader.facts_of(file)
        if facts.kinds is None and reader.is_csv(file):
            facts.kinds = dict(hint.kinds)
        if file.key == hint.key and hint.start is not None:
            facts.note(hint.start)
