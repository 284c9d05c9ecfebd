"""Dask: a data frame whose partitions are read by the workers."""

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
    """Return a Dask data frame of the records in `await db.partitions(query, n)`.

    `meta` is an empty pandas frame with the columns and types to read (`_id` is the record's id),
    since the types must be the same in all partitions. Reading is lazy; a value that does not fit
    its column's type fails its partition. Raises `UsageError` if there are no partitions.
    """
    if not partitions:
        raise UsageError("to_dask needs at least one partition")
    frame = import_driver("dask.dataframe", extra="dask")
    result: dask.dataframe.DataFrame = frame.from_map(read_partition, list(partitions), meta=meta, empty=meta)
    return result


def read_partition(partition: Partition, empty: pandas.DataFrame) -> pandas.DataFrame:
    """Return one partition as a pandas frame with the columns and types of `empty`."""
    names = list(empty.columns)
    rows = [{name: row.get(name) for name in names} for row in partition.read()]
    if not rows:
        return empty
    frame = frame_of(table_of(rows))[names]
    for name in names:
        try:
            column = frame[name].astype(empty.dtypes[name])
        except (TypeError, ValueError) as error:
            raise UsageError(f"column {name!r} does not fit {empty.dtypes[name]}: {error}") from None
        _check_column(frame[name].dropna(), column, name)
        frame[name] = column
    return frame


def _check_column(found: pandas.Series[Any], column: pandas.Series[Any], name: str) -> None:
    """Raise `UsageError` for a value that pandas changed to fit: a fraction, or text in place of a number."""
    rounds = column.dtype.kind == "f" and column.dtype.itemsize < 8
    if column.dtype == found.dtype or column.dtype.kind in "mM" or rounds:
        return  # times are read from text, and short floats round
    for value, fitted in zip(found, column.loc[found.index], strict=True):
        if fitted != value or isinstance(value, bool) is not isinstance(fitted, bool):
            raise UsageError(f"column {name!r} has a value that does not fit {column.dtype}: {value!r:.80}")
