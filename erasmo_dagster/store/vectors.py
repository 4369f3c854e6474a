"""Vectors and points of rows in the warehouse: written by joins within DuckDB, read into one array."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.store.corpus import Corpus
from erasmo_dagster.store.sql import literal, read_parquet
from erasmo_dagster.store.warehouse import frame_of, one_row, registered, vector_tables

# Vectors by an encoder, and points of the table's own columns.
VectorKind = Literal["embeddings", "points"]

_BATCH = 8192  # rows that are on their way into an array at a time


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
    table = _table(con, kind, width)
    for other in vector_tables(con, kind):
        con.execute(f"DELETE FROM {other} WHERE dataset = ? AND version = ?", [dataset, version])
    column = pl.Series("vector", np.ascontiguousarray(vectors, dtype=np.float32), dtype=pl.Array(pl.Float32, width))
    with registered(con, "incoming", keys.select("entity_key", "text_hash").with_columns(column)):
        con.execute(f"INSERT INTO {table} BY NAME SELECT ? AS dataset, ?::INTEGER AS version, * FROM incoming",
                    [dataset, version])  # fmt: skip
    return table


def write_joined(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    version: int,
    corpus: Corpus,
    width: int,
    *,
    held: Sequence[int] = (),
    parts: Sequence[Path] = (),
) -> tuple[str, int]:
    """Replace a version's vectors by those of the texts of ``corpus``, joined within DuckDB; the table, and its rows.

    A text's vector is that of the first of the versions ``held`` that has it, which may be ``version`` itself, else
    that of the Parquet files ``parts`` (text_hash, vector); a row whose text is in neither is left out, and not among
    the rows that are counted. No vector passes through Python, and each is the same to the last bit.
    """
    table = _table(con, "embeddings", width)
    (last,) = one_row(con.execute(f"SELECT coalesce(max(rowid), -1) FROM {table}"))
    con.execute(
        "CREATE OR REPLACE TEMP TABLE known_texts AS SELECT text_hash, arg_min(rowid, version) AS place"
        f" FROM {table} SEMI JOIN {corpus.relation} USING (text_hash)"
        " WHERE dataset = ? AND list_contains(?::INTEGER[], version) GROUP BY text_hash",
        [dataset, list(held)],
    )
    found = [f"SELECT k.text_hash, t.vector FROM {table} t JOIN known_texts k ON t.rowid = k.place"]
    if parts:
        found.append(
            f"SELECT text_hash, vector::FLOAT[{width}] AS vector FROM {read_parquet(parts)}"
            " ANTI JOIN known_texts USING (text_hash)"
        )
    with _wide_rows(con):
        written = con.execute(
            f"INSERT INTO {table} BY NAME SELECT ? AS dataset, ?::INTEGER AS version, c.entity_key, c.text_hash,"
            f" v.vector FROM ({' UNION ALL '.join(found)}) v JOIN {corpus.relation} c ON c.text_hash = v.text_hash",
            [dataset, version],
        )
        (rows,) = one_row(written)
    con.execute("DROP TABLE known_texts")
    # The version's rows of before go last: their vectors may have been among those held.
    con.execute(f"DELETE FROM {table} WHERE dataset = ? AND version = ? AND rowid <= ?", [dataset, version, last])
    # A rerun with another model may have left this version's vectors in the table of another dimension.
    for other in vector_tables(con, "embeddings"):
        if other != table:
            con.execute(f"DELETE FROM {other} WHERE dataset = ? AND version = ?", [dataset, version])
    return table, int(rows)


def count_cut(con: duckdb.DuckDBPyConnection, corpus: Corpus, parts: Sequence[Path]) -> int:
    """Rows of ``corpus`` whose text was cut, by the files ``parts`` (text_hash, truncated)."""
    if not parts:
        return 0
    cut = f"(SELECT text_hash FROM {read_parquet(parts)} WHERE truncated)"
    return int(one_row(con.execute(f"SELECT count(*) FROM {corpus.relation} SEMI JOIN {cut} USING (text_hash)"))[0])


def export_unread(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    corpus: Corpus,
    out: Path,
    *,
    held: Mapping[int, Sequence[int]],
    parts: Sequence[Path] = (),
) -> tuple[int, int]:
    """Write the distinct texts of ``corpus`` that no vector is known of to a Parquet file; how many, of how many rows.

    Columns text_hash and clauses, ordered by the text, so that texts that begin alike are neighbours. ``held`` are
    versions by dimensions, ``parts`` files of vectors (text_hash). DuckDB sorts, on the disk where it must.
    """
    known = [
        f"SELECT text_hash FROM embeddings_{int(width)} WHERE dataset = {literal(dataset)}"
        f" AND list_contains({list(map(int, versions))}, version)"
        for width, versions in held.items()
    ]
    if parts:
        known.append(f"SELECT text_hash FROM {read_parquet(parts)}")
    without = f" ANTI JOIN ({' UNION ALL '.join(known)}) USING (text_hash)" if known else ""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE unread AS SELECT min(place) AS place, count(*) AS rows"
        f" FROM {corpus.relation}{without} GROUP BY text_hash"
    )
    texts, rows = one_row(con.execute("SELECT count(*), coalesce(sum(rows), 0) FROM unread"))
    if texts:
        con.execute(
            f"COPY (SELECT text_hash, clauses FROM {corpus.relation} SEMI JOIN unread USING (place)"
            f" ORDER BY array_to_string(clauses, ', '), text_hash)"
            f" TO {literal(out)} (FORMAT parquet, ROW_GROUP_SIZE 4096)"
        )
    con.execute("DROP TABLE unread")
    return int(texts), int(rows)


def read_unread(file: Path, chunk: int) -> Iterator[tuple[list[str], list[list[str]]]]:
    """The texts that :func:`export_unread` wrote, in their order, ``chunk`` at a time: their hashes and clauses."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as texts:
        for batch in texts.iter_batches(chunk, use_threads=False):
            yield batch.column("text_hash").to_pylist(), batch.column("clauses").to_pylist()


def cut_unread(file: Path, folder: Path, texts: int) -> list[Path]:
    """Cut what :func:`export_unread` wrote into files of ``texts`` neighbours each; ``folder`` is made anew."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = []
    with pq.ParquetFile(file) as whole:
        for number, batch in enumerate(whole.iter_batches(texts, use_threads=False), start=1):
            part = folder / f"{number:06}.parquet"
            pq.write_table(pa.Table.from_batches([batch]), part)
            written.append(part)
    return written


def read_embeddings(
    con: duckdb.DuckDBPyConnection, dataset: str, version: int, width: int, *, kind: VectorKind = "embeddings"
) -> tuple[pl.Series, npt.NDArray[np.float32]]:
    """A version's entity keys and vectors (float32 [n, d]), by entity_key."""
    own = f"FROM {kind}_{int(width)} WHERE dataset = {literal(dataset)} AND version = {int(version)}"
    # Only the keys are sorted; a vector goes from the file to its place.
    keys = frame_of(con, f"SELECT entity_key, rowid AS place {own} ORDER BY entity_key, rowid")
    return keys["entity_key"], _array(con, f"SELECT rowid AS place, vector {own}", keys["place"].to_numpy(), width)


def read_vectors(
    con: duckdb.DuckDBPyConnection,
    dataset: str,
    versions: Sequence[int],
    width: int,
    texts: pl.Series,
    *,
    kind: VectorKind = "embeddings",
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Of each of n ``texts`` (text_hash) whether versions hold a vector, and the vectors float32[n, d], zeros for none.

    A text's vector is that of the first version that has it.
    """
    table = f"{kind}_{int(width)}"
    wanted = pl.DataFrame({"text_hash": texts}, schema={"text_hash": pl.String})
    # The smallest version's row, and not its vector: what an aggregate holds of vectors could not go to the disk.
    with registered(con, "wanted", wanted.unique()):
        known = frame_of(
            con,
            f"SELECT text_hash, arg_min(rowid, version) AS place FROM {table} SEMI JOIN wanted USING (text_hash)"
            " WHERE dataset = ? AND list_contains(?::INTEGER[], version) GROUP BY text_hash",
            [dataset, list(versions)],
        )
    places = wanted.join(known, on="text_hash", how="left", maintain_order="left")["place"].fill_null(-1).to_numpy()
    with registered(con, "places", known.select("place")), _wide_rows(con):
        query = (
            f"SELECT rowid AS place, vector FROM {table} SEMI JOIN places ON {table}.rowid = places.place"
            f" WHERE dataset = {literal(dataset)} AND list_contains({list(map(int, versions))}, version)"
        )
        return places >= 0, _array(con, query, places, width)


def _array(
    con: duckdb.DuckDBPyConnection, query: str, places: npt.NDArray[np.int64], width: int
) -> npt.NDArray[np.float32]:
    """The vectors that ``query`` gives (place, vector), at each of ``places`` that is theirs; zeros at the others."""
    vectors = np.zeros((len(places), width), dtype=np.float32)
    order = np.argsort(places)
    ordered = places[order]
    for batch in con.sql(query).to_arrow_reader(_BATCH):
        found = batch.column("place").to_numpy()
        first, end = (np.searchsorted(ordered, found, side) for side in ("left", "right"))
        times = end - first
        at = np.arange(times.sum()) + np.repeat(first - np.cumsum(times) + times, times)
        read = batch.column("vector").flatten().to_numpy().reshape(-1, width)
        vectors[order[at]] = np.repeat(read, times, axis=0)
    return vectors


@contextmanager
def _wide_rows(con: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """For joins with vectors on their left: these pass by, while the right side is held, in one thread.

    Each thread holds a hundred thousand rows before it writes them: several of 3,000 dimensions are gigabytes.
    """
    threads = one_row(con.execute("SELECT current_setting('threads')"))[0]
    con.execute("SET disabled_optimizers = 'join_order,build_side_probe_side'; SET threads = 1")
    try:
        yield
    finally:
        con.execute(f"RESET disabled_optimizers; SET threads = {int(threads)}")


def _table(con: duckdb.DuckDBPyConnection, kind: VectorKind, width: int) -> str:
    table = f"{kind}_{int(width)}"
    con.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (dataset VARCHAR NOT NULL, version INTEGER NOT NULL,"
        f" entity_key VARCHAR NOT NULL, text_hash VARCHAR NOT NULL, vector FLOAT[{int(width)}] NOT NULL)"
    )
    return table
