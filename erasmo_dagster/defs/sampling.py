"""The rows on which segments are judged by the source's own columns."""

from pathlib import Path

import numpy as np
import polars as pl

from erasmo_dagster.store.sources import ENTITY_KEY

SAMPLE_ROWS = 2_000  # distances between all pairs of them are held in memory


def sampled_rows(rows: pl.DataFrame, seed: int) -> pl.DataFrame:
    """At most SAMPLE_ROWS of ``rows`` (entity_key and more), by entity_key; the same seed and keys, the same rows."""
    ordered = rows.sort("entity_key")
    return ordered[np.sort(np.random.default_rng(seed).permutation(ordered.height)[:SAMPLE_ROWS])]


def columns_of(rows: pl.DataFrame, snapshot: Path) -> pl.DataFrame:
    """The source's columns of these rows, in their order."""
    source = pl.read_parquet(snapshot)
    keys = rows.select(pl.col("entity_key").alias(ENTITY_KEY))
    return keys.join(source, on=ENTITY_KEY, how="left", maintain_order="left")
