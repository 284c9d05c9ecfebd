"""Reading and writing records as JSON lines, CSV, Parquet and tables."""
