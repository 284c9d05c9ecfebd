"""Drivers behind one protocol: asyncpg and psycopg 3."""
