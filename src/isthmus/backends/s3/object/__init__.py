"""Layout `object`: one readable JSON object per record."""
