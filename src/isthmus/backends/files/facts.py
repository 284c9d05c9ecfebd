"""What is known of files that were read: layouts, types of columns, numbers of rows; kept by version."""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

from isthmus.backends.files.formats.column_kinds import Found
from isthmus.backends.files.formats.delimited import CsvLayout
from isthmus.backends.files.formats.dialect import Checkpoint
from isthmus.backends.files.formats.parquet_footer import Footer

_MAX_FILES = 20_000
_NOTING = threading.Lock()


@dataclass(slots=True)
class FileFacts:
    """What is known of one file as it was at one version, read in one dialect."""

    layout: CsvLayout | None = None
    kinds: dict[str, Found] | None = None
    """The types of the columns of CSV over the whole file; None until they are found."""
    rows: int | None = None
    """The number of rows, refused ones included; None until the file was read to its end."""
    checkpoints: list[Checkpoint] = field(default_factory=list)
    footer: Footer | None = None
    """The footer of a Parquet file."""

    def note(self, checkpoint: Checkpoint) -> None:
        """Keep where reading may begin again."""
        with _NOTING:  # several threads may read one file
            if not self.checkpoints or checkpoint.row > self.checkpoints[-1].row:
                self.checkpoints.append(checkpoint)

    def nearest(self, row: int) -> Checkpoint | None:
        """Return the last checkpoint at or before a row; None if the beginning is the nearest."""
        index = bisect.bisect_right(self.checkpoints, row, key=lambda checkpoint: checkpoint.row)
        return self.checkpoints[index - 1] if index else None


class FactsCache:
    """Facts by file, version and dialect, of the files that were used last; shared by all handles."""

    def __init__(self) -> None:
        self._facts: OrderedDict[Any, FileFacts] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, key: Any) -> FileFacts:
        """Return the facts of a file, empty ones if it is new."""
        with self._lock:
            facts = self._facts.get(key)
            if facts is None:
                facts = self._facts[key] = FileFacts()
                if len(self._facts) > _MAX_FILES:
                    self._facts.popitem(last=False)
            self._facts.move_to_end(key)
            return facts

    def forget(self) -> None:
        """Let go of everything, as in a new process."""
        with self._lock:
            self._facts.clear()


CACHE = FactsCache()
