"""DuckDB and files: what Dagster's assets read and write."""
