"""The rows on which segments are judged by the source's own columns."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.textual import TextPlan, text_hashes, write_clauses
from erasmo_dagster.store.sources import ENTITY_KEY

SAMPLE_ROWS = 2_000  # distances between all pairs of them are held in memory
CHUNK = 50_000  # rows of a table that are held at a time
MEASURED_ROWS = 50_000  # of which each measure draws its own, at most 20,000


class SnapshotTable:
    """The source's columns of some rows (entity_key), in their order, each read from the snapshot when asked for.

    Of the rows themselves 4 bytes each are held, and the column that was asked for last.
    """

    def __init__(self, rows: pl.DataFrame, snapshot: Path) -> None:
        self._snapshot, self.height = snapshot, rows.height
        source = pl.scan_parquet(snapshot, glob=False).select(entity_key=ENTITY_KEY).with_row_index("at")
        wanted = rows.lazy().select("entity_key").with_row_index("to")
        places = source.join(wanted, on="entity_key").select("at", "to").collect(engine="streaming")
        if places.height != rows.height:
            raise ValueError(f"got {rows.height} rows, of which {places.height} are in the snapshot")
        self._at = np.empty(rows.height, dtype=np.uint32)
        self._at[places["to"].to_numpy()] = places["at"].to_numpy()
        self._last: tuple[str, pl.Series] | None = None

    @property
    def columns(self) -> list[str]:
        """Names of the source's columns, the key's of every row left out."""
        return [name for name in pl.scan_parquet(self._snapshot, glob=False).collect_schema() if name != ENTITY_KEY]

    def __getitem__(self, name: str, /) -> pl.Series:
        if self._last is None or self._last[0] != name:
            self._last = None  # before the next one is read
            self._last = name, self._read(name)
        return self._last[1]

    def _read(self, name: str) -> pl.Series:
        return pl.read_parquet(self._snapshot, columns=[name], glob=False)[name].gather(self._at)


def sampled_rows(rows: pl.DataFrame, seed: int, most: int = SAMPLE_ROWS) -> pl.DataFrame:
    """At most ``most`` of ``rows`` (entity_key and more), by entity_key; the same seed and keys, the same rows."""
    chosen = np.sort(np.random.default_rng(seed).permutation(rows.height)[:most])
    return rows[rows["entity_key"].arg_sort().gather(chosen)]


def snapshot_chunks(snapshot: Path, rows: int = CHUNK) -> Iterator[pl.DataFrame]:
    """The source's rows in the snapshot's order, at most ``rows`` at a time."""
    source = pl.scan_parquet(snapshot, glob=False)
    height = source.select(pl.len()).collect().item()
    for start in range(0, height, rows):
        yield source.slice(start, rows).collect()


def text_rows(rows: pl.DataFrame, written: pl.DataFrame, plan: TextPlan) -> pl.DataFrame:
    """The corpus of source rows, of which the clauses are read from ``written``: entity_key, text_hash and clauses."""
    clauses = write_clauses(written, plan)
    return pl.DataFrame([rows[ENTITY_KEY].alias("entity_key"), text_hashes(clauses), clauses.alias("clauses")])


def columns_of(rows: pl.DataFrame, snapshot: Path, columns: Sequence[str]) -> pl.DataFrame:
    """These columns of the source of these rows (entity_key), in their order. Of other rows nothing is held."""
    keys = rows.lazy().select(pl.col("entity_key").alias(ENTITY_KEY))
    told = pl.scan_parquet(snapshot, glob=False).select(ENTITY_KEY, *columns).join(keys, on=ENTITY_KEY, how="semi")
    return _in_order(rows, told.collect(engine="streaming")).drop(ENTITY_KEY)


def planned_columns_of(
    rows: pl.DataFrame, snapshot: Path, columns: Sequence[ColumnPlan], *, label: str | None
) -> tuple[pl.DataFrame, list[ColumnPlan]]:
    """The values of the planned columns of these rows, in their order, and those of ``columns`` that are among them.

    A column that the source no longer has is not, nor is what the YAML has made the ``label`` since the plan. No other
    column is read, and of other rows nothing is held.
    """
    known = pl.scan_parquet(snapshot, glob=False).collect_schema()
    found = [column for column in columns if column.name in known and column.name != label]
    return columns_of(rows, snapshot, [column.name for column in found]), found


def _in_order(rows: pl.DataFrame, source: pl.DataFrame) -> pl.DataFrame:
    keys = rows.select(pl.col("entity_key").alias(ENTITY_KEY))
    return keys.join(source, on=ENTITY_KEY, how="left", maintain_order="left")
