"""Tables that others made, served as they are through SQLAlchemy: `layout="native"` (meaning §8)."""
