"""Typed queries: collections of pydantic models, and the helpers of their lambdas.

`from isthmus.typed import f, not_` and `people.where(lambda p: (f(p.years) >= 3) & not_(p.active))`.
"""

from isthmus._field_proxy import Condition
from isthmus._model_upgrades import upgrade
from isthmus._typed import TypedCollection
from isthmus._typed_fields import (
    ListField,
    TextField,
    TypedField,
    avg,
    count,
    each,
    f,
    like,
    max_,
    maybe,
    min_,
    not_,
    one_of,
    some,
    sum_,
)
from isthmus._typed_query import TypedQuery
from isthmus._typed_stream import TypedHit, TypedPage, TypedStream
from isthmus._version_annotation import Version

__all__ = [
    "Condition",
    "ListField",
    "TextField",
    "TypedCollection",
    "TypedField",
    "TypedHit",
    "TypedPage",
    "TypedQuery",
    "TypedStream",
    "Version",
    "avg",
    "count",
    "each",
    "f",
    "like",
    "max_",
    "maybe",
    "min_",
    "not_",
    "one_of",
    "some",
    "sum_",
    "upgrade",
]
