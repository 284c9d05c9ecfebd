"""Formats of files: which one a file has, and a reader for each."""
