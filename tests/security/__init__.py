"""Hostile input: injection, fuzzing, secrets, TLS, cursors, limits. `make security` runs it at length."""
