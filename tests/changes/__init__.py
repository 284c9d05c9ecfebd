"""Changes on SQLite and PostgreSQL: whoever writes, and whatever becomes of readers."""
