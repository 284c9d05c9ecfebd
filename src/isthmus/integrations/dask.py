"""Dask: a frame whose partitions are read by its workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from isthmus._core.registry import import_driver
from isthmus._partition import Partition
from isthmus.errors import UsageError
from isthmus.integrations.frames import frame_of, table_of

if TYPE_CHECKING:
    import dask.dataframe
    import pandas


def to_dask(partitions: Sequence[Partition], meta: Any) -> dask.dataframe.DataFrame:
    """Return a Dask frame over `await db.partitions(query, n)`.

    `meta` is an empty pandas frame with the columns and types that are wanted (`_id` is the
    record's id): a worker cannot ask another one what it found. A value that does not fit its
    column's type is an error of that partition.
    """
    if not partitions:
        raise UsageError("to_dask needs at least one partition")
    frame = import_driver("dask.dataframe", extra="dask")
    result: dask.dataframe.DataFrame = frame.from_map(read, list(partitions), meta=meta, empty=meta)
    return result


def read(partition: Partition, empty: pandas.DataFrame) -> pandas.DataFrame:
    """Return one partition as a pandas frame with the columns and types of `empty`."""
    names = list(empty.columns)
    rows = [{name: row.get(name) for name in names} for row in partition.read()]
    if not rows:
        return empty
    found = frame_of(table_of(rows))
    return found[names].astype(empty.dtypes.to_dict())
