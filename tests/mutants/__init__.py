"""Planted bugs: the tests must notice each one."""
