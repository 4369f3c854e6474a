"""The rows on which segments are judged by the source's own columns."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.store.sources import ENTITY_KEY

SAMPLE_ROWS = 2_000  # distances between all pairs of them are held in memory
MEASURED_ROWS = 50_000  # of which each measure draws its own, at most 20,000


def sampled_rows(rows: pl.DataFrame, seed: int, most: int = SAMPLE_ROWS) -> pl.DataFrame:
    """At most ``most`` of ``rows`` (entity_key and more), by entity_key; the same seed and keys, the same rows."""
    ordered = rows.sort("entity_key")
    return ordered[np.sort(np.random.default_rng(seed).permutation(ordered.height)[:most])]


def columns_of(rows: pl.DataFrame, snapshot: Path) -> pl.DataFrame:
    """The source's columns of these rows, in their order."""
    return _in_order(rows, pl.read_parquet(snapshot))


def planned_columns_of(
    rows: pl.DataFrame, snapshot: Path, columns: Sequence[ColumnPlan], *, label: str | None
) -> tuple[pl.DataFrame, list[ColumnPlan]]:
    """The values of the planned columns of these rows, in their order, and those of ``columns`` that are among them.

    A column that the source no longer has is not, nor is what the YAML has made the ``label`` since the plan. No other
    column is read, and of other rows nothing is held.
    """
    source = pl.scan_parquet(snapshot)
    known = source.collect_schema()
    found = [column for column in columns if column.name in known and column.name != label]
    keys = rows.lazy().select(pl.col("entity_key").alias(ENTITY_KEY))
    told = source.select(ENTITY_KEY, *(column.name for column in found)).join(keys, on=ENTITY_KEY, how="semi")
    return _in_order(rows, told.collect(engine="streaming")), found


def _in_order(rows: pl.DataFrame, source: pl.DataFrame) -> pl.DataFrame:
    keys = rows.select(pl.col("entity_key").alias(ENTITY_KEY))
    return keys.join(source, on=ENTITY_KEY, how="left", maintain_order="left")
