"""Faults, cancellation and crashes on real servers."""
