"""Dagster: thin adapters over the method and the store."""
