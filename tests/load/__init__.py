"""Loads that take minutes: `make load` and `make load-dask`; no part of the tests."""
