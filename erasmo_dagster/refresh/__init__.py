"""Deciding, without Dagster: when a dataset is run, and what a change of its source costs."""
