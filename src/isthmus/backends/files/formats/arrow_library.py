"""pyarrow, its functions, and values for them.

Arrow's own constructors import pandas where it is installed, for half a second and 40 MB, and so do plain
numbers as arguments of its functions.
"""

from __future__ import annotations

import array
import functools
import itertools
from collections.abc import Sequence
from typing import Any, Literal

from isthmus._core.registry import import_driver


def arrow() -> Any:
    """Return pyarrow; raises `MissingExtraError`."""
    return import_driver("pyarrow", extra="files")


def compute() -> Any:
    """Return pyarrow's functions."""
    return import_driver("pyarrow.compute", extra="files")


def text_array(values: Sequence[str]) -> Any:
    """Return texts as an array."""
    pa = arrow()
    encoded = [value.encode() for value in values]
    offsets = array.array("i", [0, *itertools.accumulate(map(len, encoded))])
    buffers = pa.py_buffer(offsets.tobytes()), pa.py_buffer(b"".join(encoded))
    return pa.StringArray.from_buffers(len(encoded), *buffers)


def text_scalar(value: str) -> Any:
    """Return a text."""
    return text_array([value])[0]


def null_scalar() -> Any:
    """Return a null of the type of texts."""
    return arrow().nulls(1, arrow().string())[0]


def integer_array(values: Any) -> Any:
    """Return integers, an array of numpy or any others, as an array of 64 bits."""
    pa = arrow()
    numbers = array.array("q", values) if isinstance(values, list) else values
    return pa.Array.from_buffers(pa.int64(), len(values), [None, pa.py_buffer(numbers)])


def make_array(values: Sequence[bool | int | float | str], type_: Any) -> Any:
    """Return values as an array of a type of booleans, numbers or texts, which holds them exactly."""
    return text_array([value if isinstance(value, str) else repr(value).lower() for value in values]).cast(
        type_
    )


def make_scalar(value: bool | int | float | str, type_: Any) -> Any:
    """Return a value as `make_array` does."""
    return make_array([value], type_)[0]


@functools.lru_cache(maxsize=64, typed=True)
def make_number(value: int | float) -> Any:
    """Return a constant as a 64-bit integer or a double."""
    return make_scalar(value, arrow().int64() if isinstance(value, int) else arrow().float64())


def fill_false(mask: Any) -> Any:
    """Return a mask that is false where it was null."""
    return compute().fill_null(mask, make_scalar(False, arrow().bool_())) if mask.null_count else mask


def all_true(mask: Any) -> bool:
    """Tell whether a mask is false nowhere; nulls and no rows are no exception."""
    return compute().all(mask).as_py() is not False


def to_numpy(column: Any, kind: Literal["float64", "int64", "int8"]) -> Any:
    """Return numbers or booleans without nulls as an array of numpy, which cannot be written."""
    numpy: Any = import_driver("numpy", extra="files")
    numbers = column.cast(getattr(arrow(), kind)())
    size = numpy.dtype(kind).itemsize
    start, end = numbers.offset * size, (numbers.offset + len(numbers)) * size
    data = numbers.buffers()[1]
    return numpy.frombuffer(memoryview(data or b"")[start:end], kind)
