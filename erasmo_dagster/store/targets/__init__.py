"""Copies of the published file where a team reads: PostgreSQL, and Parquet in a folder or an object store."""

from erasmo_dagster.store.targets.log import Standing, read_standings
from erasmo_dagster.store.targets.sending import Sent, TargetError, send

__all__ = ["Sent", "Standing", "TargetError", "read_standings", "send"]
