"""What every target does, and the published file as it reads it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol

import duckdb
import pyarrow as pa

from erasmo_dagster.store.releases import Release
from erasmo_dagster.store.sql import connect, describe, literal, quote

_ATTACHED = "published"
BATCH_ROWS = 10_000


@dataclass(frozen=True)
class FileColumn:
    """A column of the published file; ``kind`` is DuckDB's type."""

    name: str
    kind: str
    comment: str | None


@dataclass(frozen=True)
class Table:
    """A table or view of the published file."""

    name: str
    columns: tuple[FileColumn, ...]
    comment: str | None


@dataclass(frozen=True)
class Written:
    """What a target took: rows of all its tables, their number, and what should be known of it, one line each."""

    rows: int
    tables: int
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """The release that a target's readers see; ``digest`` tells what it holds."""

    number: int
    digest: str


class Target(Protocol):
    """A place that gets whole releases, each of which its readers see at once or not at all.

    All methods raise ErasmoError without any secret in it; readers then see what they saw before.
    """

    def release(self) -> Seen | None:
        """The release that readers see; None where there is none yet."""
        ...

    def publish(self, file: PublishedFile) -> Written:
        """Copy a release, let readers see it, and remove the old ones that are not kept.

        Kept are as many as the settings say, but none that has a table or a column which the new one has not.
        """
        ...

    def tidy(self) -> tuple[str, ...]:
        """Remove releases that are not kept and could not be removed before; what still stays, one line each."""
        ...


class PublishedFile:
    """One published file, open for reading; it stays the same whatever is published meanwhile."""

    def __init__(self, con: duckdb.DuckDBPyConnection, release: Release) -> None:
        self._con = con
        self.release = release

    def tables(self, leave_out: Sequence[str]) -> list[Table]:
        """The tables and views by name, without those whose names fit one of the patterns of ``leave_out``."""
        with self._cursor() as con:
            names = con.execute(
                "SELECT table_name, comment FROM duckdb_tables() WHERE database_name = $1 UNION ALL"
                " SELECT view_name, comment FROM duckdb_views() WHERE database_name = $1 AND NOT internal ORDER BY 1",
                [_ATTACHED],
            ).fetchall()
            told: Mapping[tuple[str, str], str] = {
                (table, column): comment
                for table, column, comment in con.execute(
                    "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE database_name = ?", [_ATTACHED]
                ).fetchall()
            }
            return [
                Table(
                    name,
                    tuple(
                        FileColumn(column, kind, told.get((name, column)))
                        for column, kind in describe(con, f"SELECT * FROM {quote(name)}")
                    ),
                    comment,
                )
                for name, comment in names
                if not any(fnmatchcase(name, pattern) for pattern in leave_out)
            ]

    def value(self, select: str) -> tuple[object, ...]:
        """The one row of a query."""
        with self._cursor() as con:
            row: tuple[object, ...] = con.execute(select).fetchall()[0]
            return row

    @contextmanager
    def batches(self, select: str) -> Iterator[pa.RecordBatchReader]:
        """The rows of a query, a few thousand at a time."""
        with self._cursor() as con:
            yield con.sql(select).to_arrow_reader(BATCH_ROWS)

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        # One for each query: DuckDB runs nothing else on a connection whose rows are not read to their end.
        con = self._con.cursor()
        try:
            con.execute(f"USE {_ATTACHED}")
            con.execute("SET TimeZone = 'UTC'")
            yield con
        finally:
            con.close()


@contextmanager
def attached(path: Path, spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A connection to the DuckDB file at ``path`` that only reads, and spills into ``spill``.

    An instance of its own: two connections of one process to one path share what is open, and a file that has taken
    the place of an older one would not be seen.
    """
    con = connect(spill)
    try:
        con.execute(f"ATTACH {literal(path)} AS {_ATTACHED} (READ_ONLY)")
        con.execute(f"USE {_ATTACHED}")
        yield con
    finally:
        con.close()
