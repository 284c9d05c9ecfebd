"""Ray Data's side of a partition: the source that a driver plans with, and what its workers read.

Apart from `ray.py` because a class that Ray pickles by name must stand in a module, and this one
needs Ray to be imported.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncGenerator, Iterator, Sequence
from typing import Any

import pyarrow
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from isthmus._partition import Partition
from isthmus._record import Record
from isthmus.integrations.frames import batched


class IsthmusDatasource(Datasource):  # type: ignore[misc]  # Ray is Any to mypy
    """One task for each partition; Ray shows it as `ReadIsthmus`."""

    def __init__(self, partitions: Sequence[Partition], schema: pyarrow.Schema | None) -> None:
        super().__init__()
        self._partitions = tuple(partitions)
        self._schema = schema

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: no store tells its bytes before it is read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return the tasks; their number was chosen when the partitions were made."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(
                functools.partial(blocks, partition, self._schema),
                unknown,
                schema=self._schema,
                per_task_row_limit=per_task_row_limit,
            )
            for partition in self._partitions
        ]


def blocks(partition: Partition, schema: pyarrow.Schema | None) -> Iterator[pyarrow.Table]:
    """Yield a partition's blocks, one in memory, on a loop of its own; the handle is closed at the end.

    An empty partition gives an empty block if the schema is known, else none.
    """
    records = partition.stream()
    batches = batched(records, schema=schema)
    found = False
    with asyncio.Runner() as runner:
        try:
            while (batch := runner.run(_next(batches))) is not None:
                found = True
                yield pyarrow.Table.from_batches([batch])
        finally:
            runner.run(_close(batches, records))
    if schema is not None and not found:
        yield schema.empty_table()


async def _next(batches: AsyncGenerator[pyarrow.RecordBatch, None]) -> pyarrow.RecordBatch | None:
    return await anext(batches, None)


async def _close(
    batches: AsyncGenerator[pyarrow.RecordBatch, None], records: AsyncGenerator[Record, None]
) -> None:
    # A generator that is left half-way does not close the one it reads from.
    await batches.aclose()
    await records.aclose()
