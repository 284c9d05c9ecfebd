"""Loads that take minutes: `make load`, `make load-dask`, `make load-ray`; no part of the tests."""
