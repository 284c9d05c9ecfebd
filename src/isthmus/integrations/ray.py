"""Ray: a dataset whose partitions are read by the workers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from isthmus._core.registry import import_driver
from isthmus._partition import Partition
from isthmus.errors import UsageError

if TYPE_CHECKING:
    import pyarrow
    import ray.data


def to_ray(partitions: Sequence[Partition], schema: pyarrow.Schema | None = None) -> ray.data.Dataset:
    """Return a Ray dataset of the records in `await db.partitions(query, n)`, with ids in column `_id`.

    Each partition is one read task, which yields Arrow blocks and holds one batch of records in
    memory. `schema` sets the columns and types; a value that does not fit fails its task. Without a
    schema each partition uses that of its first batch, so pass one if some records lack a field.

    Ray starts itself if `ray.init` was not called. The workers need isthmus installed. Raises
    `UsageError` if there are no partitions.
    """
    if not partitions:
        raise UsageError("to_ray needs at least one partition")
    data = import_driver("ray.data", extra="ray")
    source = import_driver("isthmus.integrations._ray_source", extra="ray")
    # One block for each partition: Ray would split the blocks of a small source.
    dataset: ray.data.Dataset = data.read_datasource(
        source.IsthmusDatasource(partitions, schema), override_num_blocks=len(partitions)
    )
    return dataset


__all__ = ["to_ray"]
