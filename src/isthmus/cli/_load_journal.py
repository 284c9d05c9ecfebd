"""The journal of a load: the rows that the store acknowledged, from which a killed load resumes.

An acknowledgement holds the counts so far and the refused lines of its batch. Before a batch whose
rows have ids of their own, the ids that the store has already are noted: what a killed run wrote of
the batch can then be told from what was there before, and counts stay true. Rows without an id get
one that is made of the journal's id and the row's number, so that a repeated batch writes the same
records.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from isthmus import ConfigError, UsageError
from isthmus._ids import new_id
from isthmus.cli._formats.output_file import open_output
from isthmus.cli._load_report import RefusedLines
from isthmus.transfer._journal_file import JournalFile, escape_names

_ROW_DIGITS = 9  # the last ones of an id, in hexadecimal


class RowIds:
    """Ids of rows: UUIDs of version 7 that share a load's own id and end with the number of the row."""

    def __init__(self, load_id: str) -> None:
        self._prefix = load_id[:-_ROW_DIGITS]

    def make_ids(self, rows: range) -> list[str]:
        """Return the ids of rows; those of one load ascend."""
        prefix = self._prefix
        return [f"{prefix}{row:09x}" for row in rows]

    def owns(self, id: str) -> bool:
        """Return whether `make_id` made an id."""
        return id.startswith(self._prefix)


@dataclass
class LoadProgress:
    """What a journal says of the runs before: counts, refused lines, and what is known of the next batch."""

    counts: dict[str, int] = field(default_factory=dict)
    refused: RefusedLines = field(default_factory=RefusedLines)
    existing: frozenset[str] | None = None
    """Of the batch after the acknowledged ones, ids that the store had before; None if not noted."""
    resumed: bool = False
    """Whether there was a run before."""
    complete: bool = False
    rejects: tuple[str, int] | None = None
    """The file of rejects and its acknowledged size."""


class LoadJournal:
    """A journal file of a load into one target; raises `ConfigError` for another load's journal."""

    def __init__(
        self,
        path: Path,
        *,
        files: Sequence[Mapping[str, Any]],
        target: str,
        settings: Mapping[str, Any],
    ) -> None:
        self._path = path
        self._file = JournalFile(path, "load")
        self._files = escape_names(list(files))
        self._identity = {"target": target, "settings": dict(settings)}
        self._rejects: IO[bytes] | None = None
        self._rejects_path = ""
        self.ids = RowIds(new_id())
        self.batch_size = 0

    def open(self, *, resume: bool, batch_size: int) -> LoadProgress:
        """Open and lock the file; return what earlier runs did.

        `batch_size` is that of a new load; the batches of a resumed one stay as they were. Raises
        `ConfigError` if a file changed or the journal is of another load, and as `JournalFile.open`.
        """
        kept = {"files": self._files, "id": new_id(), "batch_size": batch_size}
        header, entries = self._file.open(self._identity, resume=resume, kept=kept)
        resumed = header.get("id") != kept["id"]
        self._check_files(header.get("files"))
        progress = LoadProgress(resumed=resumed)
        try:
            self.ids = RowIds(str(header["id"]))
            self.batch_size = int(header["batch_size"])
        except (KeyError, TypeError, ValueError):
            raise self._file.damage(1) from None
        for number, entry in enumerate(entries, 2):
            try:
                _apply(entry, progress)
            except (KeyError, TypeError, ValueError):
                raise self._file.damage(number) from None
        return progress

    def _check_files(self, before: Any) -> None:
        """Raise `ConfigError` unless these are the files that the load began with."""
        if before == self._files:
            return
        old = {file["name"]: file for file in before or []}
        changed = [file["name"] for file in self._files if old.get(file["name"]) not in (None, file)]
        if changed:
            what = f"{changed[0]} changed since the load began"
        else:
            what = f"it belongs to the load of {', '.join(old) or 'no file'}"
        raise ConfigError(f"journal {self._path}: {what}; load into a new journal, or remove this one")

    @contextlib.contextmanager
    def open_rejects(self, path: Path, progress: LoadProgress) -> Iterator[IO[bytes]]:
        """Yield the file of rejects, cut to what was acknowledged; its size goes into the journal.

        A FIFO or a device is written to as it is, and may see the lines of a repeated batch twice.
        """
        if path.exists() and not stat.S_ISREG(path.stat().st_mode):
            with open_output(path) as stream:
                yield stream
            return
        name = escape_names(os.path.realpath(path))
        size = progress.rejects[1] if progress.rejects is not None and progress.rejects[0] == name else 0
        with path.open("ab") as stream:
            if os.fstat(stream.fileno()).st_size > size:
                stream.truncate(size)
            self._rejects, self._rejects_path = stream, name
            yield stream

    def begin_batch(self, existing: Sequence[str]) -> None:
        """Note before a batch is written which of its ids the store has already."""
        self._file.append({"existing": list(existing)})

    def acknowledge(self, counts: Mapping[str, int], refused: RefusedLines) -> None:
        """Note that all rows so far are done; `refused` are those since the last acknowledgement."""
        entry: dict[str, Any] = {"counts": dict(counts)}
        if refused.kinds:
            entry["errors"], entry["kinds"] = refused.errors, refused.kinds
        if self._rejects is not None:
            self._rejects.flush()
            os.fsync(self._rejects.fileno())
            entry["rejects"] = [self._rejects_path, self._rejects.tell()]
        self._file.append(entry)

    def complete(self) -> None:
        """Note that the files were loaded to their end: to resume then does nothing."""
        self._file.append({"complete": True})

    def close(self) -> None:
        """Close and unlock the file."""
        self._file.close()


def _apply(entry: dict[str, Any], progress: LoadProgress) -> None:
    """Add an entry of a journal to what is known of the load."""
    if "existing" in entry:
        progress.existing = frozenset(map(str, entry["existing"]))
    elif "complete" in entry:
        progress.complete = True
    else:
        progress.counts = {str(name): int(count) for name, count in entry["counts"].items()}
        progress.existing = None
        errors = [(str(file), int(line), str(text)) for file, line, text in entry.get("errors", [])]
        kinds: dict[str, tuple[int, str]] = {}
        for kind, (count, note) in entry.get("kinds", {}).items():
            kinds[str(kind)] = int(count), str(note)
        progress.refused.extend(RefusedLines(errors, kinds))
        if "rejects" in entry:
            progress.rejects = str(entry["rejects"][0]), int(entry["rejects"][1])


def require_rereadable(files: Sequence[Path]) -> None:
    """Raise `UsageError` for standard input and FIFOs, which cannot be read again on resuming."""
    for file in files:
        if str(file) == "-" or (file.exists() and not file.is_file() and not file.is_dir()):
            name = "standard input" if str(file) == "-" else str(file)
            raise UsageError(
                f"{name} cannot be read again to resume a load; save it to a file to use --journal"
            )
