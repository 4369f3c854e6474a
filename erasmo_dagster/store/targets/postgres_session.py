"""A connection to PostgreSQL whose errors are one line, without the address and without cell values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.postgres import postgres_connection, sqlstate

_SAID = re.compile(r"(?:ERROR|FATAL|PANIC):\s+([^\n]+)")
# Classes of SQLSTATE whose messages quote values: data exceptions, violated constraints.
_WITH_VALUES = ("22", "23")


class ServerError(ErasmoError):
    """What the server refused; ``sqlstate`` is empty where the connection was lost."""

    def __init__(self, got: str, sqlstate: str) -> None:
        super().__init__(got)
        self.sqlstate = sqlstate


class Session:
    """One connection; a statement is a transaction of its own unless it is within :meth:`transaction`."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def run(self, statement: str) -> None:
        """Run a statement that gives no rows. Raises ServerError."""
        with _told("run a statement"):
            self._cursor.execute(statement)

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """The rows of a query with values in the place of $1, $2 … Raises ServerError."""
        with _told("run a query"):
            self._cursor.execute(query, list(values) or None)
            rows: list[tuple[Any, ...]] = self._cursor.fetchall()
            return rows

    def load(self, schema: str, table: str, rows: pa.RecordBatchReader) -> int:
        """Append rows to a table by a binary COPY; their number. Raises ServerError."""
        with _told(f"load the table {table}"):
            return max(0, int(self._cursor.adbc_ingest(table, rows, mode="append", db_schema_name=schema)))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Commit at the end of the block, roll back on any error."""
        self.run("BEGIN")
        try:
            yield
        except BaseException:
            self._roll_back()
            raise
        self.run("COMMIT")

    def _roll_back(self) -> None:
        try:
            self.run("ROLLBACK")
        except ErasmoError:
            return  # the connection is lost, and the server rolls back by itself


@contextmanager
def connected(url: str, shown: str) -> Iterator[Session]:
    """A session with the server whose address ``url`` refers to; ``shown`` names the target in messages.

    Raises ErasmoError where there is no driver or no connection.
    """
    # Transactions are begun and ended in SQL: the driver's own way refuses savepoints.
    with postgres_connection(url, shown) as con, con.cursor() as cursor:
        # Notices would be printed. What is written as text is read by these formats.
        session = Session(cursor)
        for setting, value in (
            ("client_min_messages", "warning"),
            ("search_path", "pg_catalog"),
            ("standard_conforming_strings", "on"),
            ("datestyle", "ISO, YMD"),
            ("intervalstyle", "postgres"),
            ("timezone", "UTC"),
        ):
            session.rows("SELECT set_config($1, $2, false)", setting, value)
        yield session


@contextmanager
def _told(doing: str) -> Iterator[None]:
    from adbc_driver_postgresql import dbapi

    try:
        yield
    except dbapi.Error as error:
        raise _fault(error, doing) from None


def _fault(error: Any, doing: str) -> ServerError:
    state, text = sqlstate(error), str(error)
    said = _SAID.search(text)
    if state.startswith(_WITH_VALUES):
        told = f"a value that PostgreSQL does not take (SQLSTATE {state})"
    elif said:
        told = said[1].strip() + (f" (SQLSTATE {state})" if state else "")
    elif "nanoarrow" in text:
        told = "the published file cannot be read"
    else:
        told = "the connection was lost"
    return ServerError(f"Got an error of PostgreSQL where it was to {doing}: {told}", state)
