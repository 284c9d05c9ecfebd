"""Compiles queries to SQL; does no I/O."""
