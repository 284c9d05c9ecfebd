"""Changes on SQLite and PostgreSQL: every kind of writer; readers that are killed or cancelled."""
