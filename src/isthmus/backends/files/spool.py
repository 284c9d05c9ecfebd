"""Records by their own ids: a temporary SQLite file, in which order by id and repeated ids are found."""

from __future__ import annotations

import sqlite3
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson

from isthmus._query.ast import TRUE, Predicate
from isthmus._query.evaluate import matches
from isthmus._query.find import check
from isthmus._record import Record, make_record
from isthmus.backends.files.catalog import Catalog
from isthmus.errors import InvalidRecordError, UnexpectedError

_BATCH = 1_000
_CACHE_KB = 32_768


class Spool:
    """The records of one catalog, sorted by id, on disk until it is closed."""

    def __init__(self, catalog: Catalog, placed: Iterable[tuple[int, str, Record]]) -> None:
        self._catalog = catalog
        self._folder = tempfile.TemporaryDirectory(prefix="isthmus-files-")
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(
            Path(self._folder.name) / "records.db", check_same_thread=False, isolation_level=None
        )
        try:
            self._fill(placed)
        except sqlite3.Error as error:
            self.close()
            raise UnexpectedError(f"files: the temporary file for order by id failed: {error}") from error
        except BaseException:
            self.close()
            raise

    def _fill(self, placed: Iterable[tuple[int, str, Record]]) -> None:
        run = self._connection.execute
        for pragma in ("journal_mode = OFF", "synchronous = OFF", f"cache_size = -{_CACHE_KB}"):
            run(f"PRAGMA {pragma}")
        run(
            "CREATE TABLE records (id TEXT PRIMARY KEY, file INTEGER, place TEXT, data BLOB, metadata BLOB)"
            " WITHOUT ROWID"
        )
        run("BEGIN")
        for number, (file, place, record) in enumerate(placed):
            try:
                run(
                    "INSERT INTO records VALUES (?, ?, ?, ?, ?)",
                    (record.id, file, place, orjson.dumps(record.data), orjson.dumps(record.metadata)),
                )
            except sqlite3.IntegrityError:
                raise self._repetition_error(record.id or "", place) from None
            if number % _BATCH == 0:
                check()
        run("COMMIT")

    def _repetition_error(self, id: str, second: str) -> InvalidRecordError:
        (first,) = self._connection.execute("SELECT place FROM records WHERE id = ?", (id,)).fetchone()
        error = InvalidRecordError(
            f"the id {id!r} is repeated: {first}, and {second}", path="id", record_id=id
        )
        error.stored = True
        return error

    def _record(self, row: tuple[str, int, bytes, bytes]) -> Record:
        id, file, data, metadata = row
        version = self._catalog.files[file].version
        return make_record(id, orjson.loads(data), orjson.loads(metadata), version, None, None)

    def read(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records with these ids."""
        found = {}
        with self._lock:
            for id in ids:
                row = self._connection.execute(
                    "SELECT id, file, data, metadata FROM records WHERE id = ?", (id,)
                ).fetchone()
                if row is not None:
                    found[id] = self._record(row)
        return found

    def records(self, where: Predicate, after: str | None) -> Iterator[Record]:
        """Yield the matching records by id, those after an id."""
        last = after or ""
        while True:
            with self._lock:
                rows = self._connection.execute(
                    "SELECT id, file, data, metadata FROM records WHERE id > ? ORDER BY id LIMIT ?",
                    (last, _BATCH),
                ).fetchall()
            check()
            for row in rows:
                record = self._record(row)
                if where == TRUE or matches(where, record):
                    yield record
            if len(rows) < _BATCH:
                return
            last = rows[-1][0]

    def close(self) -> None:
        """Remove the file."""
        with self._lock:
            self._connection.close()
        self._folder.cleanup()
