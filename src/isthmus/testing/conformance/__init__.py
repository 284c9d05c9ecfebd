"""The conformance suite that every backend passes, with one module for each promise.

A section sign (§3) refers to a section of the contract, docs/explanation/meaning.md. A third-party
backend runs the suite with one import and one fixture:

```python
import pytest
from isthmus import AsyncDatabase
from isthmus.testing.conformance import *

@pytest.fixture
def database():
    async def open_new():
        return await AsyncDatabase.create("mine", {"table": f"test_{uuid4().hex}"})
    return open_new
```

The fixture returns an async function that opens a database on an empty collection of its own. With
the capability `relevance` its field `text` must have a full-text index, and with `vectors` its field
`embedding` must hold vectors of three numbers. If a capability is missing, the tests that need it
assert that the call raises `UnsupportedError`: no test is skipped.
"""

import pytest

_MODULES = (
    "values",
    "ids",
    "creating",
    "replacing",
    "scopes",
    "modifying",
    "deleting",
    "unique",
    "versions",
    "changes",
    "batches",
    "filters",
    "negation",
    "nulls",
    "lists",
    "objects",
    "texts",
    "numbers",
    "fields",
    "order",
    "pages",
    "streams",
    "projection",
    "aggregates",
    "buckets",
    "columns",
    "counting",
    "transactions",
    "transaction_ends",
    "failures",
    "lifecycle",
    "relevance",
    "vectors",
)
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))

from isthmus.testing.conformance._fixtures import Database, db, requires  # noqa: E402
from isthmus.testing.conformance.aggregates import *  # noqa: E402, F403
from isthmus.testing.conformance.batches import *  # noqa: E402, F403
from isthmus.testing.conformance.buckets import *  # noqa: E402, F403
from isthmus.testing.conformance.changes import *  # noqa: E402, F403
from isthmus.testing.conformance.columns import *  # noqa: E402, F403
from isthmus.testing.conformance.counting import *  # noqa: E402, F403
from isthmus.testing.conformance.creating import *  # noqa: E402, F403
from isthmus.testing.conformance.deleting import *  # noqa: E402, F403
from isthmus.testing.conformance.failures import *  # noqa: E402, F403
from isthmus.testing.conformance.fields import *  # noqa: E402, F403
from isthmus.testing.conformance.filters import *  # noqa: E402, F403
from isthmus.testing.conformance.ids import *  # noqa: E402, F403
from isthmus.testing.conformance.lifecycle import *  # noqa: E402, F403
from isthmus.testing.conformance.lists import *  # noqa: E402, F403
from isthmus.testing.conformance.modifying import *  # noqa: E402, F403
from isthmus.testing.conformance.negation import *  # noqa: E402, F403
from isthmus.testing.conformance.nulls import *  # noqa: E402, F403
from isthmus.testing.conformance.numbers import *  # noqa: E402, F403
from isthmus.testing.conformance.objects import *  # noqa: E402, F403
from isthmus.testing.conformance.order import *  # noqa: E402, F403
from isthmus.testing.conformance.pages import *  # noqa: E402, F403
from isthmus.testing.conformance.projection import *  # noqa: E402, F403
from isthmus.testing.conformance.relevance import *  # noqa: E402, F403
from isthmus.testing.conformance.replacing import *  # noqa: E402, F403
from isthmus.testing.conformance.scopes import *  # noqa: E402, F403
from isthmus.testing.conformance.streams import *  # noqa: E402, F403
from isthmus.testing.conformance.texts import *  # noqa: E402, F403
from isthmus.testing.conformance.transaction_ends import *  # noqa: E402, F403
from isthmus.testing.conformance.transactions import *  # noqa: E402, F403
from isthmus.testing.conformance.unique import *  # noqa: E402, F403
from isthmus.testing.conformance.values import *  # noqa: E402, F403
from isthmus.testing.conformance.vectors import *  # noqa: E402, F403
from isthmus.testing.conformance.versions import *  # noqa: E402, F403

__all__ = ["Database", "db", "requires"]
__all__ += [name for name in globals() if name.startswith("test_")]
