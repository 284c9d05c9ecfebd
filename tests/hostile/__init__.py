"""Patterns, texts and trees that are meant to exhaust, against every store: `make hostile`."""
