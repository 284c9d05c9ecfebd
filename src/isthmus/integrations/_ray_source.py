"""The Ray Data source of partitions, and the function that workers run to read one.

Separate from `ray.py` because Ray pickles the class by name, so it must be at module level, and
defining it imports Ray.
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
from isthmus.integrations.frames import batch_records


class IsthmusDatasource(Datasource):  # type: ignore[misc]  # Ray is Any to mypy
    """One read task for each partition; Ray displays it as `ReadIsthmus`."""

    def __init__(self, partitions: Sequence[Partition], schema: pyarrow.Schema | None) -> None:
        super().__init__()
        self._partitions = tuple(partitions)
        self._schema = schema

    def estimate_inmemory_data_size(self) -> int | None:
        """Return None: the size is not known before the records are read."""
        return None

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ReadTask]:
        """Return one task for each partition, whatever parallelism Ray suggests."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [
            ReadTask(
                functools.partial(read_blocks, partition, self._schema),
                unknown,
                schema=self._schema,
                per_task_row_limit=per_task_row_limit,
            )
            for partition in self._partitions
        ]


def read_blocks(partition: Partition, schema: pyarrow.Schema | None) -> Iterator[pyarrow.Table]:
    """Yield a partition's blocks, one in memory, using an event loop and a handle of its own.

    An empty partition yields one empty block if there is a schema, else none.
    """
    records = partition.stream()
    batches = batch_records(records, schema=schema)
    empty = True
    with asyncio.Runner() as runner:
        try:
            while (batch := runner.run(_next(batches))) is not None:
                empty = False
                yield pyarrow.Table.from_batches([batch])
        finally:
            runner.run(_close(batches, records))
    if schema is not None and empty:
        yield schema.empty_table()


async def _next(batches: AsyncGenerator[pyarrow.RecordBatch, None]) -> pyarrow.RecordBatch | None:
    return await anext(batches, None)


async def _close(
    batches: AsyncGenerator[pyarrow.RecordBatch, None], records: AsyncGenerator[Record, None]
) -> None:
    # Closing a generator early does not close the one that it reads from.
    await batches.aclose()
    await records.aclose()
