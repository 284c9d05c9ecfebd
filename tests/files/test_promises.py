"""The reading half of the shipped suite on files of each format."""

from __future__ import annotations

import pytest

from isthmus import AsyncDatabase
from isthmus.testing.conformance import Database, db  # noqa: F401
from isthmus.testing.conformance.aggregates import *  # noqa: F403
from isthmus.testing.conformance.counting import *  # noqa: F403
from isthmus.testing.conformance.fields import *  # noqa: F403
from isthmus.testing.conformance.filters import *  # noqa: F403
from isthmus.testing.conformance.lists import *  # noqa: F403
from isthmus.testing.conformance.negation import *  # noqa: F403
from isthmus.testing.conformance.nulls import *  # noqa: F403
from isthmus.testing.conformance.numbers import *  # noqa: F403
from isthmus.testing.conformance.order import *  # noqa: F403
from isthmus.testing.conformance.pages import *  # noqa: F403
from isthmus.testing.conformance.projection import *  # noqa: F403
from isthmus.testing.conformance.texts import *  # noqa: F403
from tests.files.seeded import SeededFiles

pytestmark = pytest.mark.backend("files")


@pytest.fixture(params=["jsonl"])
def database(request: pytest.FixtureRequest) -> Database:
    """Return what opens a handle on a new folder."""

    async def fresh() -> AsyncDatabase:
        return await SeededFiles.fresh(request.param)

    return fresh
