"""Checks of how the project is built and written: sizes, cycles, names and words; run by `make house`."""
