"""Loaded by `tests.parity` into the run whose outcomes it collects."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.parity import Collecting


def pytest_configure(config: pytest.Config) -> None:
    """Collect into the file that the caller named."""
    config.pluginmanager.register(Collecting(Path(os.environ["ISTHMUS_PARITY"])), "isthmus-parity")
