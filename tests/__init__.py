"""Tests of isthmus, by kind: see CONTRIBUTING.md."""
