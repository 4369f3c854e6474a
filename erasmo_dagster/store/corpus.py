"""The rows of a dataset as text, wherever they lie: in the warehouse or in a file of a run's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import duckdb
import polars as pl

from erasmo_dagster.errors import disk_errors
from erasmo_dagster.rows import BATCH, ClauseRows, write_clause_rows
from erasmo_dagster.store.sql import literal, read_parquet
from erasmo_dagster.store.warehouse import frame_of, one_row


@dataclass(frozen=True)
class Corpus:
    """``relation`` goes after FROM on the warehouse's connection and has columns place, entity_key, text_hash, clauses;
    ``place`` is a number of the row's own."""

    relation: str


def corpus_of(dataset: str, version: int) -> Corpus:
    """The corpus that a version holds in the warehouse."""
    return Corpus(
        "(SELECT rowid AS place, entity_key, text_hash, clauses FROM corpus"
        f" WHERE dataset = {literal(dataset)} AND version = {int(version)})"
    )


def corpus_in(file: Path) -> Corpus:
    """The corpus in a Parquet file of entity_key, text_hash and clauses."""
    source = read_parquet([file], "hive_partitioning = false, file_row_number = true")
    return Corpus(f"(SELECT file_row_number AS place, entity_key, text_hash, clauses FROM {source})")


@contextmanager
def corpus_file(frames: Iterable[pl.DataFrame], beside: Path) -> Iterator[Path]:
    """A Parquet file of ``frames``, which are alike in their columns, in a folder within ``beside``; then it is gone.

    One frame is held at a time. ``beside`` is the run's own. Raises ErasmoError where the disk is full.
    """
    import pyarrow.parquet as pq

    with _own_folder(beside) as folder:
        file = folder / "corpus.parquet"
        with ExitStack() as open_file:
            out: pq.ParquetWriter | None = None
            for frame in frames:
                # Offsets of 64 bits: the texts of one frame may be more than 2 GiB.
                table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
                with disk_errors(beside):
                    out = out or open_file.enter_context(pq.ParquetWriter(file, table.schema))
                    out.write_table(table, row_group_size=BATCH * 16)
        yield file


@contextmanager
def _own_folder(beside: Path) -> Iterator[Path]:
    """A folder in ``beside``, which one run alone writes, stage by stage; what it left when it was killed is removed.

    It is called as what :func:`~erasmo_dagster.store.upkeep.collect` removes of runs that nobody started again.
    """
    folder = beside / ".rows.tmp-run"
    shutil.rmtree(folder, ignore_errors=True)
    with disk_errors(beside):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def count_rows(
    con: duckdb.DuckDBPyConnection, corpus: Corpus, *, without: Corpus | None = None, by: Sequence[str] = ()
) -> int:
    """Rows of ``corpus``; of those that ``without`` has not, by the columns ``by``."""
    others = "" if without is None else f" ANTI JOIN {without.relation} USING ({', '.join(by)})"
    return int(one_row(con.execute(f"SELECT count(*) FROM {corpus.relation}{others}"))[0])


def read_hashes(con: duckdb.DuckDBPyConnection, corpus: Corpus) -> pl.DataFrame:
    """A corpus without its texts: columns entity_key and text_hash, by entity_key."""
    return frame_of(con, f"SELECT entity_key, text_hash FROM {corpus.relation} ORDER BY entity_key")


@contextmanager
def clause_rows(
    connect: Callable[[], AbstractContextManager[duckdb.DuckDBPyConnection]], dataset: str, version: int, beside: Path
) -> Iterator[ClauseRows]:
    """The clauses of a version's corpus, by entity_key, in a folder within ``beside`` that is gone afterwards.

    ``connect`` opens the warehouse, which is closed again before the rows are handed over; ``beside`` is the run's own.
    Raises ErasmoError where the disk is full.
    """
    with _own_folder(beside) as folder:
        file = folder / "clauses.arrow"
        with disk_errors(beside), connect() as con:
            _write(con, dataset, version, file)
        with ClauseRows(file) as rows:
            yield rows


def _write(con: duckdb.DuckDBPyConnection, dataset: str, version: int, file: Path) -> None:
    own = f"FROM corpus WHERE dataset = {literal(dataset)} AND version = {int(version)}"
    (rows,) = con.execute(f"SELECT count(*) {own}").fetchall()[0]
    reader = con.sql(f"SELECT clauses {own} ORDER BY entity_key").to_arrow_reader(BATCH * 64)
    write_clause_rows(file, reader, reader.schema, rows)
