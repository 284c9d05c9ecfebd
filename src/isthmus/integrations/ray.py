"""Ray: a dataset whose partitions are read by its workers."""

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
    """Return a Ray dataset over `await db.partitions(query, n)`, the id in the column `_id`.

    One read task for each partition, which gives Arrow blocks and holds one batch of records in
    memory. `schema` says columns and types; a value that does not fit is an error of its task. Without
    it each partition keeps that of its first batch, so records of which some lack a field need one.

    Starts Ray as it does by itself if `ray.init` was not called. The workers need isthmus installed.
    """
    if not partitions:
        raise UsageError("to_ray needs at least one partition")
    data = import_driver("ray.data", extra="ray")
    source = import_driver("isthmus.integrations._ray_source", extra="ray")
    # As many blocks as partitions: Ray would cut those of a small source in pieces.
    dataset: ray.data.Dataset = data.read_datasource(
        source.IsthmusDatasource(partitions, schema), override_num_blocks=len(partitions)
    )
    return dataset


__all__ = ["to_ray"]
