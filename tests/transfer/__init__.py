"""Tests of copies, comparisons and repairs."""
