"""A backend from another package: found by its entry point, proved by the shipped suite."""
