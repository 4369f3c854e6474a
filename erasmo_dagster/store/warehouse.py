"""The private DuckDB file that holds every version of every dataset.

One process at a time writes it, behind a file lock, one short transaction each; nobody holds the lock while a
model runs. Every row carries (dataset, version). A run writes one new version of its dataset and never touches
another one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from typing import Any, Literal

import duckdb
import numpy as np
import polars as pl
from filelock import FileLock, Timeout

from erasmo_dagster.errors import ErasmoError, disk_errors
from erasmo_dagster.store.schema import migrate

# Vectors by an encoder, and points of the table's own columns.
VectorKind = Literal["embeddings", "points"]

_FIGURES = ("bits_saved", "separation", "gower_silhouette", "tree_accuracy", "stability", "smallest", "seconds")
_CANDIDATE: dict[str, type[pl.DataType]] = {
    "candidate": pl.String,
    "chosen": pl.Boolean,
    "rank": pl.Int32,
    **dict.fromkeys(_FIGURES, pl.Float64),
    "refused": pl.String,
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
    with _locked(path, lock_timeout), disk_errors(path.parent):
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
def _locked(path: Path, timeout: float) -> Iterator[None]:
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
            return duckdb.connect(
                path, config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"}
            )
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


def write_corpus(con: duckdb.DuckDBPyConnection, dataset: str, version: int, corpus: pl.DataFrame) -> None:
    """Replace a version's corpus: columns entity_key, text_hash, clauses, and where texts were summarized summaries.

    ``summaries`` are entries (List(Struct(key, value))) of a map from a column to the summary of the row's text in it.
    """
    maps = "* REPLACE (map_from_entries(summaries) AS summaries)" if "summaries" in corpus.columns else "*"
    _replace(con, "corpus", dataset, version, corpus, select=maps)


def read_corpus(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """A version's corpus by entity_key: columns entity_key, text_hash, clauses."""
    return _frame(
        con,
        "SELECT entity_key, text_hash, clauses FROM corpus WHERE dataset = ? AND version = ? ORDER BY entity_key",
        [dataset, version],
    )


def write_embeddings(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    version: int,
    keys: pl.DataFrame,
    vectors: np.ndarray,
    *,
    kind: VectorKind = "embeddings",
) -> str:
    """Replace a version's vectors (float32 [n, d], rows as in ``keys``: entity_key, text_hash); the table's name.

    ``kind`` `points` are those of the table's own columns, which segments may be drawn in.
    """
    width = vectors.shape[1]
    table = f"{kind}_{width}"
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (dataset VARCHAR NOT NULL, version INTEGER NOT NULL,"
        f" entity_key VARCHAR NOT NULL, text_hash VARCHAR NOT NULL, vector FLOAT[{width}] NOT NULL)"
    )
    column = pl.Series("vector", np.ascontiguousarray(vectors, dtype=np.float32), dtype=pl.Array(pl.Float32, width))
    # A rerun with another model may have left this version's vectors in the table of another dimension.
    for other in _vector_tables(con, kind):
        con.execute(f"DELETE FROM {other} WHERE dataset = ? AND version = ?", [dataset, version])
    _replace(con, table, dataset, version, keys.select("entity_key", "text_hash").with_columns(column))
    return table


def read_embeddings(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, width: int, *, kind: VectorKind = "embeddings"
) -> tuple[pl.Series, np.ndarray]:
    """A version's entity keys and vectors (float32 [n, d]), by entity_key."""
    frame = _frame(
        con,
        f"SELECT entity_key, vector FROM {kind}_{int(width)} WHERE dataset = ? AND version = ? ORDER BY entity_key",
        [dataset, version],
    )
    return frame["entity_key"], frame["vector"].to_numpy()


def read_vectors(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    versions: Sequence[int],
    width: int,
    texts: pl.DataFrame,
    *,
    kind: VectorKind = "embeddings",
) -> pl.DataFrame:
    """The vectors that versions hold of some texts (``texts``: text_hash): columns text_hash and vector.

    One row a text, from the first version that has it.
    """
    con.register("wanted", texts.select(pl.col("text_hash").unique()).to_arrow())
    try:
        return _frame(
            con,
            f"SELECT text_hash, arg_min(vector, version) AS vector FROM {kind}_{int(width)} SEMI JOIN wanted"
            " USING (text_hash) WHERE dataset = ? AND list_contains(?::INTEGER[], version)"
            " GROUP BY text_hash ORDER BY text_hash",
            [dataset, list(versions)],
        )
    finally:
        con.unregister("wanted")


def read_text_hashes(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """A version's corpus without its texts: columns entity_key and text_hash, by entity_key."""
    return _frame(
        con,
        "SELECT entity_key, text_hash FROM corpus WHERE dataset = ? AND version = ? ORDER BY entity_key",
        [dataset, version],
    )


def write_segments(con: duckdb.DuckDBPyConnection, dataset: str, version: int, segments: pl.DataFrame) -> None:
    """Replace a version's segments: columns entity_key, segment_id, confidence, assigned_at.

    ``assigned_at`` may be null, which means now.
    """
    _replace(con, "segments", dataset, version, segments.with_columns(pl.col("assigned_at").fill_null(now(con))))


def read_segments(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """A version's segments by entity_key: entity_key, segment_id, confidence, assigned_at."""
    return _frame(
        con,
        "SELECT entity_key, segment_id, confidence, assigned_at FROM segments"
        " WHERE dataset = ? AND version = ? ORDER BY entity_key",
        [dataset, version],
    )


def write_memberships(con: duckdb.DuckDBPyConnection, dataset: str, version: int, memberships: pl.DataFrame) -> None:
    """Replace a version's memberships: columns entity_key, segment_id, membership; no rows where it has none."""
    _replace(con, "segment_memberships", dataset, version, memberships)


def read_memberships(con: duckdb.DuckDBPyConnection, dataset: str, version: int) -> pl.DataFrame:
    """A version's memberships by entity_key and segment_id: entity_key, segment_id, membership."""
    return _frame(
        con,
        "SELECT entity_key, segment_id, membership FROM segment_memberships"
        " WHERE dataset = ? AND version = ? ORDER BY entity_key, segment_id",
        [dataset, version],
    )


def write_candidates(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, candidates: Sequence[Mapping[str, Any]]
) -> None:
    """Replace the ways that a version's training compared: rows with the columns of segment_candidates; often none."""
    rows = [{name: candidate[name] for name in _CANDIDATE} for candidate in candidates]
    _replace(con, "segment_candidates", dataset, version, pl.DataFrame(rows, schema=_CANDIDATE))


def read_standing(
    con: duckdb.DuckDBPyConnection, dataset: str, corpus_version: int, segments_version: int
) -> pl.DataFrame:
    """Segments beside the texts that they were drawn from: entity_key, text_hash, segment_id, confidence,
    assigned_at."""
    return _frame(
        con,
        "SELECT c.entity_key, c.text_hash, s.segment_id, s.confidence, s.assigned_at FROM corpus c"
        " JOIN segments s ON s.entity_key = c.entity_key AND s.dataset = c.dataset"
        " WHERE c.dataset = ? AND c.version = ? AND s.version = ? ORDER BY c.entity_key",
        [dataset, corpus_version, segments_version],
    )


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
            "WITH source AS (SELECT __entity_key AS entity_key FROM read_parquet(?)),"
            " held AS (SELECT entity_key, count(*) AS n FROM segments WHERE dataset = ? AND version = ? GROUP BY 1)"
            " SELECT (SELECT count(*) FROM source ANTI JOIN held USING (entity_key)),"
            " (SELECT count(*) FROM held WHERE n > 1), (SELECT count(*) FROM held ANTI JOIN source USING (entity_key))",
            [escape(str(snapshot)), dataset, version],
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
    for table in (*own, *_vector_tables(con, "embeddings"), *_vector_tables(con, "points")):
        con.execute(f"DELETE FROM {table} WHERE dataset = ? AND version = ?", [dataset, version])


def _vector_tables(con: duckdb.DuckDBPyConnection, kind: VectorKind) -> list[str]:
    rows = con.execute(
        "SELECT table_name FROM duckdb_tables() WHERE regexp_full_match(table_name, ? || '_[0-9]+')", [kind]
    ).fetchall()
    return [name for (name,) in rows]


def _replace(
    con: duckdb.DuckDBPyConnection, table: str, dataset: str, version: int, frame: pl.DataFrame, select: str = "*"
) -> None:
    """Delete a version's rows of a table and insert ``select`` of ``frame`` in their place, by column name."""
    con.execute(f"DELETE FROM {table} WHERE dataset = ? AND version = ?", [dataset, version])
    con.register("incoming", frame.to_arrow())
    try:
        con.execute(
            f"INSERT INTO {table} BY NAME SELECT ? AS dataset, ?::INTEGER AS version, {select} FROM incoming",
            [dataset, version],
        )
    finally:
        con.unregister("incoming")


def _frame(con: duckdb.DuckDBPyConnection, query: str, params: list[Any]) -> pl.DataFrame:
    frame = pl.from_arrow(con.sql(query, params=params).to_arrow_table())
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
