"""Requests to one bucket: two transports, their sessions, and the pool that bounds and repeats requests."""
