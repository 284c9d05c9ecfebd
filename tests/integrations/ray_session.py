"""One Ray session over what `test_ray.py` stored; prints what it held, as JSON.

A process of its own: Ray warns of its own settings, which pytest takes for errors.
"""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow
import ray

from isthmus import UsageError
from isthmus.integrations.ray import to_ray

SECONDS = 500
MIB = 1024 * 1024


def table(dataset: ray.data.Dataset) -> pyarrow.Table:
    """Read a dataset once."""
    return pyarrow.concat_tables(ray.get(dataset.to_arrow_refs()), promote_options="default")


def main() -> None:
    """Read each set of partitions that the file named first holds, and run the page's code on its own."""
    given, page, parts_of_page = pickle.loads(Path(sys.argv[1]).read_bytes())
    signal.signal(signal.SIGALRM, lambda *_: sys.exit(f"not done in {SECONDS} s"))  # by way of `finally`
    signal.alarm(SECONDS)
    told: dict[str, Any] = {}
    # A socket's path has 107 characters, which those of pytest leave too few of.
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=256 * MIB,  # with less Ray Data holds tasks back
            _temp_dir=folder,
            log_to_driver=False,
        )
        try:
            context = ray.data.DataContext.get_current()
            context.target_max_block_size = MIB
            context.enable_progress_bars = False
            for name, (parts, schema) in given.items():
                try:
                    rows = table(to_ray(parts, schema))
                except UsageError as error:
                    told[name] = {"error": str(error)}
                else:
                    told[name] = {
                        "rows": rows.num_rows,
                        "sum": sum(value for value in rows["n"].to_pylist() if value is not None),
                        "types": {column.name: str(column.type) for column in rows.schema},
                    }
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(page, {"parts": parts_of_page})
            told["page"] = printed.getvalue()
        finally:
            ray.shutdown()
        told["folder"] = folder
    print(json.dumps(told))


if __name__ == "__main__":
    main()
