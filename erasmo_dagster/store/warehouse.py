"""The private DuckDB file that holds every version of every dataset.

One process at a time writes it, behind a file lock, one short transaction each; nobody holds the lock while a
model runs. Every row carries (dataset, version). A run writes one new version of its dataset and never touches
another one.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
from filelock import FileLock, Timeout

from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.store.parts import snapshot_files
from erasmo_dagster.store.schema import migrate
from erasmo_dagster.store.sql import describe, read_parquet

_FIGURES = ("bits_saved", "separation", "gower_silhouette", "tree_accuracy", "stability", "smallest", "seconds")
_CANDIDATE: dict[str, type[pl.DataType]] = {
    "candidate": pl.String,
    "chosen": pl.Boolean,
    "rank": pl.Int32,
    **dict.fromkeys(_FIGURES, pl.Float64),
    "refused": pl.String,
}


# What does not fit spills into a folder beside the file: a large table costs time, and not the memory that the model
# needs. What is ordered says so, and the rest need not be held back to keep an order.
_CONFIG: dict[str, str | bool | int | float | list[str]] = {
    "memory_limit": "512MB",
    "threads": min(4, os.cpu_count() or 1),
    "preserve_insertion_order": False,
    "autoinstall_known_extensions": False,
    "autoload_known_extensions": False,
}


@contextmanager
def open_warehouse(
    path: Path, *, lock_timeout: float = 120.0, transaction: bool = True
) -> Iterator[duckdb.DuckDBPyConnection]:
    """The warehouse, locked for this process, as one transaction: committed at the end, rolled back on any error.

    Every reader goes through here too, since DuckDB lets no second process open a file that one process writes.
    Raises ErasmoError when the lock is not free in ``lock_timeout`` seconds, or the file is not a warehouse of ours.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with writer_lock(path, lock_timeout), disk_errors(path.parent):
        con = _connect(path, deadline=time.monotonic() + lock_timeout)
        try:
            migrate(con, path)
            if not transaction:
                yield con
                return
            with in_transaction(con):
                yield con
        finally:
            con.close()


@contextmanager
def in_transaction(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Commit at the end of the block, roll back on any error."""
    con.begin()
    try:
        yield
    except BaseException:
        con.rollback()
        raise
    con.commit()


@contextmanager
def writer_lock(path: Path, timeout: float) -> Iterator[None]:
    """The lock of all who read or write the warehouse, without opening it. Raises ErasmoError where it stays taken."""
    lock = FileLock(path.with_suffix(".lock"), timeout=timeout)
    try:
        lock.acquire()
    except Timeout as error:
        raise ErasmoError(
            f"Got no access to {path} in {timeout:g} s: another process is writing it",
            fix="wait for the other run to end, or raise lock_timeout in erasmo.yaml",
        ) from error
    try:
        yield
    finally:
        lock.release()


def _connect(path: Path, deadline: float) -> duckdb.DuckDBPyConnection:
    while True:
        try:
            return duckdb.connect(path, config=_CONFIG)
        except duckdb.IOException as error:
            # Somebody else, a shell for instance, has the file open without our lock.
            if "lock" not in str(error).lower():
                raise ErasmoError(f"Got an error opening {path}: {str(error).splitlines()[0]}") from error
            if time.monotonic() > deadline:
                raise ErasmoError(
                    f"Got {path} locked by another program",
                    expected="no other program on the private warehouse",
                    fix="close it, and read the published file instead",
                ) from error
            time.sleep(0.1)


def now(con: duckdb.DuckDBPyConnection) -> Any:
    """This moment in UTC, without a zone."""
    return one_row(con.execute("SELECT epoch_ms(epoch_ms(get_current_timestamp()))"))[0]


def write_corpus(con: duckdb.DuckDBPyConnection, dataset: str, version: int, corpus: pl.DataFrame | Path) -> int:
    """Replace a version's corpus by a frame or a Parquet file; the number of its distinct texts.

    Columns entity_key, text_hash, clauses, and where texts were summarized summaries: these are entries
    (List(Struct(key, value))) of a map from a column to the summary of the row's text in it. Of a file a few rows at a
    time are held.
    """
    if isinstance(corpus, Path):
        _insert_corpus(con, dataset, version, read_parquet([corpus]))
    else:
        with registered(con, "incoming", corpus):
            _insert_corpus(con, dataset, version, "incoming")
    texts = "SELECT DISTINCT text_hash FROM corpus WHERE dataset = ? AND version = ?"
    return int(one_row(con.execute(f"SELECT count(*) FROM ({texts})", [dataset, version]))[0])


def _insert_corpus(con: duckdb.DuckDBPyConnection, dataset: str, version: int, source: str) -> None:
    columns = [name for name, _ in describe(con, f"SELECT * FROM {source}")]
    maps = "* REPLACE (map_from_entries(summaries) AS summaries)" if "summaries" in columns else "*"
    con.execute("DELETE FROM corpus WHERE dataset = ? AND version = ?", [dataset, version])
    # One statement for all rows: of each of its own DuckDB would keep a row group in memory until the commit.
    con.execute(
        f"INSERT INTO corpus BY NAME SELECT ? AS dataset, ?::INTEGER AS version, {maps} FROM {source}",
        [dataset, version],
    )


def read_corpus(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, *, keys: Sequence[str] | None = None
) -> pl.DataFrame:
    """A version's corpus by entity_key, of all rows or those of ``keys``: columns entity_key, text_hash, clauses."""
    some = "" if keys is None else " AND list_contains(?, entity_key)"
    return frame_of(
        con,
        "SELECT entity_key, text_hash, clauses FROM corpus WHERE dataset = ? AND version = ?"
        + some
        + " ORDER BY entity_key",
        [dataset, version, *([] if keys is None else [list(keys)])],
    )


def write_segments(con: duckdb.DuckDBPyConnection, dataset: str, version: int, segments: pl.DataFrame) -> None:
    """Replace a version's segments: columns entity_key, segment_id, confidence, assigned_at.

    ``assigned_at`` may be null, which means now.
    """
    _replace(con, "segments", dataset, version, segments.with_columns(pl.col("assigned_at").fill_null(now(con))))


def read_segments(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """A version's segments by entity_key: entity_key, segment_id, confidence, assigned_at."""
    return frame_of(
        con,
        "SELECT entity_key, segment_id, confidence, assigned_at FROM segments"
        " WHERE dataset = ? AND version = ? ORDER BY entity_key",
        [dataset, version],
    )


def segment_sizes(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> dict[int, int]:
    """Rows by segment of a version, noise left out."""
    rows = con.execute(
        "SELECT segment_id, count(*) FROM segments WHERE dataset = ? AND version = ? AND segment_id >= 0"
        " GROUP BY 1 ORDER BY 1",
        [dataset, version],
    ).fetchall()
    return dict(rows)


def write_memberships(con: duckdb.DuckDBPyConnection, dataset: str, version: int, memberships: pl.DataFrame) -> None:
    """Replace a version's memberships: columns entity_key, segment_id, membership; no rows where it has none."""
    _replace(con, "segment_memberships", dataset, version, memberships)


def write_candidates(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, candidates: Sequence[Mapping[str, Any]]
) -> None:
    """Replace the ways that a version's training compared: rows with the columns of segment_candidates; often none."""
    rows = [{name: candidate[name] for name in _CANDIDATE} for candidate in candidates]
    _replace(con, "segment_candidates", dataset, version, pl.DataFrame(rows, schema=_CANDIDATE))


def write_metrics(con: duckdb.DuckDBPyConnection, dataset: str, version: int, metrics: pl.DataFrame) -> None:
    """Replace a version's figures: columns metric, value, description."""
    _replace(con, "segment_metrics", dataset, version, metrics)


def write_profile(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    version: int,
    *,
    descriptions: pl.DataFrame,
    traits: pl.DataFrame,
    values: pl.DataFrame,
) -> None:
    """Replace a version's profile; the columns are those of the tables segment_descriptions, _profile and _values."""
    _replace(con, "segment_descriptions", dataset, version, descriptions)
    _replace(con, "segment_profile", dataset, version, traits)
    _replace(con, "segment_values", dataset, version, values)


def read_names(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> dict[int, str]:
    """What a version calls its segments, by id; ``version`` is the one that holds the profile."""
    rows = con.execute(
        "SELECT segment_id, segment_name FROM segment_descriptions WHERE dataset = ? AND version = ?"
        " ORDER BY segment_id",
        [dataset, version],
    ).fetchall()
    return dict(rows)


def read_metrics_of(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> dict[str, float]:
    """A version's figures by name."""
    rows = con.execute(
        "SELECT metric, value FROM segment_metrics WHERE dataset = ? AND version = ? AND value IS NOT NULL"
        " ORDER BY metric",
        [dataset, version],
    ).fetchall()
    return dict(rows)


def count_strays(con: duckdb.DuckDBPyConnection, dataset: str, version: int, snapshot: Path) -> dict[str, int]:
    """Source rows without a segment, entities in several, and segmented rows that the source does not have."""
    missing, repeated, unknown = one_row(
        con.execute(
            f"WITH source AS (SELECT __entity_key AS entity_key FROM {read_parquet(snapshot_files(snapshot))}),"
            " held AS (SELECT entity_key, count(*) AS n FROM segments WHERE dataset = ? AND version = ? GROUP BY 1)"
            " SELECT (SELECT count(*) FROM source ANTI JOIN held USING (entity_key)),"
            " (SELECT count(*) FROM held WHERE n > 1), (SELECT count(*) FROM held ANTI JOIN source USING (entity_key))",
            [dataset, version],
        )
    )
    return {
        "rows_without_a_segment": missing,
        "rows_in_several_segments": repeated,
        "rows_that_the_source_lacks": unknown,
    }


def delete_version(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> None:
    """Forget the rows of one version; its files are the caller's."""
    own = (
        "corpus",
        "segments",
        "segment_memberships",
        "segment_candidates",
        "segment_metrics",
        "segment_descriptions",
        "segment_profile",
        "segment_values",
        "check_results",
        "stage_outputs",
        "versions",
    )
    for table in (*own, *vector_tables(con, "embeddings"), *vector_tables(con, "points")):
        con.execute(f"DELETE FROM {table} WHERE dataset = ? AND version = ?", [dataset, version])


def vector_tables(con: duckdb.DuckDBPyConnection, kind: str) -> list[str]:
    """The tables of vectors of a kind, `embeddings` or `points`: one for each number of dimensions."""
    rows = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE regexp_full_match(table_name, ? || '_[0-9]+')", [kind]
    ).fetchall()
    return [name for (name,) in rows]


def _replace(con: duckdb.DuckDBPyConnection, table: str, dataset: str, version: int, frame: pl.DataFrame) -> None:
    """Delete a version's rows of a table and insert those of ``frame`` in their place, by column name."""
    con.execute(f"DELETE FROM {table} WHERE dataset = ? AND version = ?", [dataset, version])
    with registered(con, "incoming", frame):
        con.execute(
            f"INSERT INTO {table} BY NAME SELECT ? AS dataset, ?::INTEGER AS version, * FROM incoming",
            [dataset, version],
        )


@contextmanager
def registered(con: duckdb.DuckDBPyConnection, name: str, frame: pl.DataFrame) -> Iterator[None]:
    """``frame`` as the view ``name`` on the connection, in the block.

    After an error it stays until the connection is closed: DuckDB refuses all but a rollback then, and would tell of
    that in the error's place.
    """
    con.register(name, frame.to_arrow())
    yield
    con.unregister(name)


def frame_of(con: duckdb.DuckDBPyConnection, query: str, params: Sequence[Any] = ()) -> pl.DataFrame:
    """The rows of a query."""
    frame = pl.from_arrow(con.sql(query, params=list(params)).to_arrow_table())
    assert isinstance(frame, pl.DataFrame)
    return frame


def one_row(result: duckdb.DuckDBPyConnection) -> Sequence[Any]:
    """The first row of a query that always has one."""
    row = first_row(result)
    assert row is not None
    return row


def first_row(result: duckdb.DuckDBPyConnection) -> Sequence[Any] | None:
    """The first row of a query, or None; read to the end, since DuckDB lets nothing else run before."""
    rows: list[Sequence[Any]] = result.fetchall()
    return rows[0] if rows else None
