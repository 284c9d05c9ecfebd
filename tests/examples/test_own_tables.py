"""`examples.own_tables` runs: tables of others are queried, modified and copied to Elasticsearch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.servers import server


@pytest.mark.backend("elasticsearch")
def test_flights_are_served_from_the_airlines_own_table() -> None:
    """Its own indexes serve, its own check refuses, and the copy is equal."""
    postgres, elasticsearch = server("postgres").url, f"es+{server('elasticsearch').url}"
    command = [sys.executable, "-m", "examples.own_tables", postgres, elasticsearch]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert done.returncode == 0, done.stderr
    for shown in ("flights_route", "flights_departure", "flights_pkey", "flights_check", "equal: True"):
        assert shown in done.stdout
