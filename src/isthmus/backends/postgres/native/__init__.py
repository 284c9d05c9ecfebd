"""`layout="native"`: tables that others made, read and written as they are (meaning §8)."""
