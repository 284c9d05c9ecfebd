"""The backends; each imports its driver on first use only."""
