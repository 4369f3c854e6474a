"""SQLite files, through Python's own driver: DuckDB's would have to be downloaded."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import TableSettings
from erasmo_dagster.store.paths import Location
from erasmo_dagster.store.sql import confine, connect, faults, quote, read_parquet
from erasmo_dagster.store.staging import Staged, check_names, pick_table
from erasmo_dagster.store.types import kinds_of, type_of, typed

_BATCH = 2_000  # rows: small enough for cells of 100,000 characters
_PROFILED = 200  # columns a query; SQLite allows 2,000 results
_WAIT = 10.0  # seconds for another process to finish writing


@dataclass(frozen=True)
class _Column:
    """A column and the storage classes of its values: SQLite types values, not columns."""

    name: str
    declared: str
    integers: int
    reals: int
    texts: int
    blobs: int
    truths: int  # integers that are 0 or 1

    def storage(self) -> tuple[pa.DataType, Callable[[Any], Any] | None]:
        """The Arrow type that holds every value, and how to convert to it where values differ."""
        if self.blobs:
            others = self.integers or self.reals or self.texts
            return pa.binary(), (lambda v: v if isinstance(v, bytes) else str(v).encode()) if others else None
        if self.texts:
            return pa.string(), str if self.integers or self.reals else None
        if self.reals:
            return pa.float64(), float if self.integers else None
        if not self.integers:  # all missing
            return pa.string(), None
        if "BOOL" in self.declared and self.integers == self.truths:
            return pa.bool_(), bool
        return pa.int64(), None

    @property
    def may_hold_dates(self) -> bool:
        return bool(self.texts) and any(word in self.declared for word in ("DATE", "TIME"))


def stage_sqlite(location: Location, table: TableSettings, folder: Path) -> Staged:
    """Copy a table or view of a SQLite file into ``folder``, in one read transaction.

    Integers become BIGINT, or BOOLEAN where the column is declared so and holds 0 and 1 alone; integers and reals
    DOUBLE; any text VARCHAR, or a date or timestamp where the column is declared one and every value is ISO 8601.
    Raises ErasmoError for a file that is not SQLite or is locked, and for a table that it does not have.
    """
    rows = folder / "rows.parquet"
    with _sqlite_faults(location), closing(_open(location.file)) as con:
        con.execute("BEGIN")  # both passes see one state
        name = _pick(con, table, location)
        columns = _profile(con, name, location.shown)
        with faults(lambda _: ErasmoError(f"Got table {name!r} of {location.shown}, which cannot be copied")):
            _copy(con, name, columns, rows)
    return Staged((rows,), read_parquet([rows]), _expressions(columns, rows, folder))


def highest_in_sqlite(
    location: Location, table: TableSettings, column: str, check: Callable[[Sequence[str], str], None]
) -> tuple[int, object]:
    """Number of rows of a table and the highest value of ``column``, as SQLite orders values of several types.

    ``check`` gets the table's columns, and its name for messages: SQLite takes an unknown name for a text. Raises
    ErasmoError as ``stage_sqlite`` does.
    """
    with _sqlite_faults(location), closing(_open(location.file)) as con:
        con.execute("BEGIN")
        name = _pick(con, table, location)
        check(_names(con, name), location.shown)
        # The value itself: as text, SQLite would round a REAL.
        rows, value = con.execute(f"SELECT count(*), max({quote(column)}) FROM {quote(name)}").fetchone()
        return rows, value


def _pick(con: sqlite3.Connection, table: TableSettings, location: Location) -> str:
    names = con.execute(
        "SELECT name FROM sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
    )
    return pick_table(table.table, [name for (name,) in names], location.shown)


def _names(con: sqlite3.Connection, table: str) -> list[str]:
    return [column[0] for column in con.execute(f"SELECT * FROM {quote(table)} LIMIT 0").description]


def _open(file: Path) -> sqlite3.Connection:
    con = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=_WAIT, isolation_level=None)
    con.execute("PRAGMA trusted_schema = OFF")  # a view in the file calls no function with side effects
    return con


def _profile(con: sqlite3.Connection, table: str, shown: str) -> list[_Column]:
    names = _names(con, table)
    check_names(names, f"table {table!r} of {shown}")
    declared = {row[1]: str(row[2]).upper() for row in con.execute(f"PRAGMA table_xinfo({quote(table)})")}
    columns = []
    for start in range(0, len(names), _PROFILED):
        part = names[start : start + _PROFILED]
        counts = con.execute(f"SELECT {', '.join(map(_counts, part))} FROM {quote(table)}").fetchone()
        for i, name in enumerate(part):
            columns.append(_Column(name, declared.get(name, ""), *(n or 0 for n in counts[5 * i : 5 * i + 5])))
    return columns


def _counts(name: str) -> str:
    column = quote(name)
    classes = ", ".join(f"sum(typeof({column}) = '{kind}')" for kind in ("integer", "real", "text", "blob"))
    return f"{classes}, sum(typeof({column}) = 'integer' AND {column} IN (0, 1))"


def _copy(con: sqlite3.Connection, table: str, columns: Sequence[_Column], out: Path) -> None:
    storage = [column.storage() for column in columns]
    schema = pa.schema([pa.field(column.name, kind) for column, (kind, _) in zip(columns, storage, strict=True)])
    # A cursor left open in an error's traceback would keep its lock, and the file's owner from writing.
    with (
        closing(con.execute(f"SELECT * FROM {quote(table)}")) as cursor,
        pq.ParquetWriter(out, schema, compression="lz4") as writer,
    ):
        while batch := cursor.fetchmany(_BATCH):
            arrays = [
                pa.array([v if v is None or convert is None else convert(v) for v in values], kind)
                for values, (kind, convert) in zip(zip(*batch, strict=True), storage, strict=True)
            ]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def _expressions(columns: Sequence[_Column], rows: Path, folder: Path) -> dict[str, str]:
    with connect(folder) as con:
        confine(con, [rows], folder)
        return {
            column.name: typed(column.name, type_of(kinds_of(con, read_parquet([rows]), column.name)))
            if column.may_hold_dates
            else quote(column.name)
            for column in columns
        }


@contextmanager
def _sqlite_faults(location: Location) -> Iterator[None]:
    # SQLite's messages are told apart by their text: Python 3.11's error codes miss the decoding of text.
    try:
        yield
    except sqlite3.Error as error:
        text = str(error)
        if "locked" in text:
            told = ErasmoError(
                f"Got {location.shown}, which another process is writing",
                expected=f"it free within {_WAIT:.0f} s",
                fix="run again when that process is done",
            )
        elif "decode to UTF-8" in text:
            told = ErasmoError(
                f"Got text that is not UTF-8 in {location.shown}", expected="UTF-8 text", fix="store the text as UTF-8"
            )
        elif "not a database" in text or "malformed" in text:
            told = ErasmoError(f"Got {location.shown}, which is not a whole SQLite file", expected="one")
        else:
            told = ErasmoError(f"Got {location.shown}, which SQLite cannot read ({text})", expected="a SQLite file")
        raise told from None
