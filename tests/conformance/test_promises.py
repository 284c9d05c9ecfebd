"""Every promise, on every store: the suite that is shipped as `isthmus.testing.conformance`."""

from __future__ import annotations

import pytest

from isthmus.testing.conformance import *  # noqa: F403
from isthmus.testing.conformance import Database
from tests.stores import opener, parameters


@pytest.fixture(params=parameters())
def database(request: pytest.FixtureRequest) -> Database:
    """Return what opens a fresh handle on one of the stores."""
    return opener(request.param)
