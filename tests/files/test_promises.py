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
from tests.files.seeded import FORMATS, SeededFiles

pytestmark = pytest.mark.backend("files")


# These write or look at times, which files have not.
del test_a_write_is_seen_by_the_next_search  # noqa: F821
del test_metadata_and_times_are_fields  # noqa: F821
del test_a_cursor_continues_after_the_page_despite_changes  # noqa: F821


@pytest.fixture(
    params=[pytest.param(format, marks=pytest.mark.breadth(4 * len(FORMATS))) for format in FORMATS]
)
def database(request: pytest.FixtureRequest) -> Database:
    """Return what opens a handle on a new folder."""

    async def fresh() -> AsyncDatabase:
        return await SeededFiles.fresh(request.param)

    return fresh
