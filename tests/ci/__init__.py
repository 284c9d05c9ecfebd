"""Planted faults that `.ci/run` has to see, run by `make test-ci`: cases.py says which."""
