"""PostgreSQL tables and statements as a source: one transaction that only reads, rows in chunks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import TableSettings
from erasmo_dagster.store.paths import Location
from erasmo_dagster.store.postgres import LOCK_WAIT, postgres_connection, server_message, sqlstate
from erasmo_dagster.store.postgres_types import Column, column_of
from erasmo_dagster.store.sql import literal, quote, read_parquet
from erasmo_dagster.store.staging import Part, Staged, check_names, in_groups, pick_table
from erasmo_dagster.store.types import TextRules

# Texts come in one form, whatever the server or the user's role prefers.
_SESSION = {
    "timezone": "UTC",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "extra_float_digits": "1",
    "client_encoding": "UTF8",
    "lock_timeout": LOCK_WAIT,
}
_TABLES = r"""
SELECT n.nspname, c.relname, c.relkind::text, pg_catalog.pg_table_is_visible(c.oid), c.relispartition
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname <> 'information_schema' AND n.nspname NOT LIKE 'pg\_%'
AND pg_catalog.has_schema_privilege(n.oid, 'USAGE')
"""
_STORED = ("r", "p", "m")  # kinds of pg_class whose rows have versions: tables, partitioned ones, materialized views
# A row is as it was while a row version of the same writer lies in the same place.
_SIGNATURES = """
SELECT q.tableoid::bigint, count(*), sum(hashtidextended(q.ctid, q.xmin::text::bigint))::text
FROM {} AS q GROUP BY 1 ORDER BY 1
"""
# A foreign table sends no row versions, or zeros, and only PostgreSQL's own way to store is known to have them.
_OTHERS = """
WITH RECURSIVE members(oid) AS (
    SELECT {}::regclass::oid
    UNION SELECT i.inhrelid FROM pg_catalog.pg_inherits i JOIN members m ON i.inhparent = m.oid
)
SELECT count(*) FROM members JOIN pg_catalog.pg_class c USING (oid) WHERE c.relkind = 'f' OR c.relam NOT IN (0, 2)
"""
_FIRST_WORD = re.compile(r"(?:\s|\(|--[^\n]*|/\*.*?\*/)*(\w*)", re.DOTALL)
_TOKEN = re.compile(
    r"""--[^\n]*|/\*.*?\*/|[eE]'(?:[^'\\]|\\.)*'|'[^']*'|"[^"]*"|\$(\w*)\$.*?\$\1\$|\w+|\s+|.""", re.DOTALL
)
_LOST = re.compile("terminating connection|closed the connection|connection (not open|has been closed)|SYSCALL")

# Another server's row versions are others, and so are those of a server that was set back to an earlier moment. Who may
# not read that much gets when the server was started.
_SERVER = """
SELECT s.system_identifier::text, c.timeline_id::text, d.oid::bigint
FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c, pg_catalog.pg_database d
WHERE d.datname = current_database()
"""
_STARTED = """
SELECT pg_catalog.pg_postmaster_start_time()::text, d.oid::bigint
FROM pg_catalog.pg_database d WHERE d.datname = current_database()
"""
# Columns may come, go and change without a new version of any row.
_COLUMNS = """
SELECT a.attnum, a.attname, a.atttypid::bigint, a.atttypmod, pg_catalog.pg_get_expr(d.adbin, d.adrelid)
FROM pg_catalog.pg_attribute a LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = {}::regclass AND a.attnum > 0 AND NOT a.attisdropped ORDER BY 1
"""
# So may what texts are made of: the labels of enums and the attributes of composites, within arrays and domains too.
_TYPES = """
WITH RECURSIVE kinds(oid, typrelid) AS (
    SELECT t.oid, t.typrelid FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = {}::regclass AND a.attnum > 0
    UNION
    SELECT t.oid, t.typrelid FROM kinds k JOIN pg_catalog.pg_type o ON o.oid = k.oid
    LEFT JOIN pg_catalog.pg_range r ON r.rngtypid = o.oid
    LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = o.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    JOIN pg_catalog.pg_type t ON t.oid IN (o.typelem, o.typbasetype, r.rngsubtype, a.atttypid)
)
SELECT k.oid::bigint, e.oid::bigint, e.enumlabel::text FROM kinds k JOIN pg_catalog.pg_enum e ON e.enumtypid = k.oid
UNION ALL
SELECT k.oid::bigint, a.attnum::bigint, pg_catalog.concat_ws(' ', a.atttypid, a.atttypmod, a.attname)
FROM kinds k JOIN pg_catalog.pg_attribute a ON a.attrelid = k.typrelid AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY 1, 2
"""

Signature = tuple[int, int, str]  # of a partition: its oid, its rows, and the sum over their versions


@dataclass(frozen=True)
class _Opened:
    """A table or statement in an open transaction; ``relation`` goes after FROM."""

    cursor: Any
    location: Location
    relation: str
    columns: Sequence[Column]
    stored: bool

    @property
    def source(self) -> str:
        """The relation as ``q``, its columns ``c0`` and so on: names that need no care."""
        return f"{self.relation} AS q({', '.join(column.alias for column in self.columns)})"

    @property
    def select(self) -> str:
        """The SELECT that gives what the server is to send, without a condition."""
        expressions = ", ".join(f"{column.server} AS {column.alias}" for column in self.columns)
        return f"SELECT {expressions} FROM {self.source}"


def stage_postgres(
    location: Location, table: TableSettings, folder: Path, rules: TextRules, known: Collection[str] = ()
) -> Staged:
    """Copy a table, or the result of a statement, into ``folder``, in one transaction that only reads.

    A table comes in parts, one a partition; those whose identity is ``known`` are not copied. Memory is bounded by what
    the driver holds at once. Raises ErasmoError for a server that cannot be reached, a table that it does not have or
    does not let be read, a statement that is not one SELECT, and a connection that ends before the rows do.
    """
    with _reading(location) as cursor:
        opened = _open(cursor, location, table, rules)
        columns = {column.name: column.ours for column in opened.columns}
        files, parts = [], []
        for number, (oids, identity) in enumerate(_partitions(opened, columns)):
            file = folder / f"rows_{number}.parquet"
            if identity not in known:
                files.append(_copy(opened, f"WHERE q.tableoid IN ({', '.join(oids)})", file))
            parts.append(Part(identity, Staged((), read_parquet([file]), columns).select))
        if not files:
            files.append(_copy(opened, "WHERE false" if parts else "", folder / "rows.parquet"))
    return Staged(tuple(files), read_parquet(files), columns, tuple(parts), location.shown)


def highest_in_postgres(
    location: Location, table: TableSettings, column: str, check: Callable[[Sequence[str], str], None]
) -> tuple[int, object]:
    """Number of rows of a table or statement, and of ``column`` the highest value and the sum of all values' hashes, as
    texts; the server finds them. The sum tells of a transaction that began before another and was committed after it.

    ``check`` gets the columns, and the table's name for messages. Raises ErasmoError as ``stage_postgres`` does.
    """
    with _reading(location) as cursor:
        opened = _open(cursor, location, table, TextRules())
        check([one.name for one in opened.columns], location.shown)
        alias = next(one.alias for one in opened.columns if one.name == column)
        hashes = f"""sum(hashtextextended(q.{alias}::text COLLATE "C", 0))::text"""
        aggregate = f"SELECT count(*), max(q.{alias})::text, {hashes} FROM {opened.source}"
        with _told(location, planning=True):
            cursor.adbc_execute_schema(aggregate)
        rows, *values = _rows(cursor, aggregate, location)[0]
        return int(rows), values


def seen_in_postgres(location: Location, table: TableSettings) -> list[tuple[str, int]] | None:
    """What tells one state of a table from another: of each partition with rows, a digest and the number of rows.

    The server reads the table for it, and sends no row. None for what has no row versions: a statement, a view, a
    foreign table. Raises ErasmoError as ``stage_postgres`` does.
    """
    with _reading(location) as cursor:
        opened = _open(cursor, location, table, TextRules())
        signatures = _signatures(opened)
        if signatures is None:
            return None
        definition = _definition(opened)
        return [(_digest(definition, one), one[1]) for one in signatures]


@contextmanager
def _reading(location: Location) -> Iterator[Any]:
    """A cursor in a transaction that sees one state of the database and writes nothing."""
    with postgres_connection(location.server, location.shown) as connection:
        cursor = connection.cursor()
        try:
            with _told(location):
                cursor.execute("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
                for name, value in _SESSION.items():
                    cursor.execute(f"SET LOCAL {name} = '{value}'")
            yield cursor
        finally:
            with suppress(Exception):  # lost with its connection; what happened is told already
                cursor.close()


def _open(cursor: Any, location: Location, table: TableSettings, rules: TextRules) -> _Opened:
    if table.statement is None:
        relation, stored = _named(cursor, location, table.table)
    else:
        relation, stored = f"({_statement(table.statement, location)}\n)", False
    with _told(location, planning=True):
        schema = cursor.adbc_execute_schema(f"SELECT * FROM {relation} AS q")
    check_names(schema.names, location.shown)
    columns = [column_of(number, one, rules) for number, one in enumerate(schema)]
    return _Opened(cursor, location, relation, columns, stored)


def _statement(statement: str, location: Location) -> str:
    """A statement as it may stand between brackets: without a semicolon, or comments, at its end."""
    found = _FIRST_WORD.match(statement)
    word = found[1].upper() if found else ""
    if word not in ("SELECT", "WITH", "VALUES", "TABLE"):
        raise ErasmoError(
            f"Got {location.shown}, which begins with {word or 'no word'}",
            expected="one SELECT that only reads",
            fix="mend source.statement",
        )
    end = 0
    for token in _TOKEN.finditer(statement):
        if not (token[0].isspace() or token[0] == ";" or token[0].startswith(("--", "/*"))):
            end = token.end()
    return statement[:end]


def _named(cursor: Any, location: Location, wanted: str | None) -> tuple[str, bool]:
    """The quoted name of a table, and whether its rows have versions."""
    known: dict[str, tuple[str, bool]] = {}
    partitions: dict[str, tuple[str, bool]] = {}
    for schema, name, kind, visible, partition in _rows(cursor, _TABLES, location):
        found = (f"{quote(schema)}.{quote(name)}", kind in _STORED)
        if wanted == f"{schema}.{name}":
            return found
        (partitions if partition else known)[name if visible else f"{schema}.{name}"] = found
    if wanted is not None and wanted in partitions:
        return partitions[wanted]
    return known[pick_table(wanted, known, location.server)]


def _partitions(opened: _Opened, columns: dict[str, str]) -> Iterator[tuple[list[str], str]]:
    """Oids of partitions that are read together, and what they are to be known by."""
    if signatures := _signatures(opened):
        named = {str(oid): (oid, rows, total) for oid, rows, total in signatures}
        read_as = [opened.select, columns, _definition(opened)]
        for oids in in_groups(named):
            yield oids, _digest(read_as, [named[oid] for oid in oids])


def _definition(opened: _Opened) -> list[list[tuple[Any, ...]]]:
    """What a row is beside its version: of which server and database, of what columns and types."""
    server = _tried(opened, _SERVER) or _rows(opened.cursor, _STARTED, opened.location)
    name = literal(opened.relation)
    return [server, *(_rows(opened.cursor, query.format(name), opened.location) for query in (_COLUMNS, _TYPES))]


def _digest(*content: object) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def _signatures(opened: _Opened) -> list[Signature] | None:
    """The partitions of a table that have rows; None where row versions are not to be had."""
    if not opened.stored:
        return None
    if _tried(opened, _OTHERS.format(literal(opened.relation))) != [(0,)]:
        return None
    # None for a server before release 14, and for a right to some columns alone.
    found = _tried(opened, _SIGNATURES.format(opened.relation))
    return None if found is None else [(int(oid), int(rows), str(total)) for oid, rows, total in found]


def _tried(opened: _Opened, query: str) -> list[tuple[Any, ...]] | None:
    """Rows of a query that the server may not know or allow; None then, and the transaction goes on."""
    _execute(opened, "SAVEPOINT tried")
    try:
        return _rows(opened.cursor, query, opened.location)
    except ErasmoError:
        _execute(opened, "ROLLBACK TO tried")  # a lost connection shows here
        return None


def _execute(opened: _Opened, statement: str) -> None:
    with _told(opened.location):
        opened.cursor.execute(statement)


def _rows(cursor: Any, query: str, location: Location) -> list[tuple[Any, ...]]:
    with _told(location):
        cursor.execute(query)
        return list(cursor.fetchall())


def _copy(opened: _Opened, condition: str, out: Path) -> Path:
    with _told(opened.location):
        opened.cursor.execute(f"{opened.select} {condition}")
        reader = opened.cursor.fetch_record_batch()
    with reader, pq.ParquetWriter(out, reader.schema, compression="lz4") as writer:
        while (batch := _next(reader, opened.location)) is not None:
            writer.write_batch(batch)
    return out


def _next(reader: Any, location: Location) -> pa.RecordBatch | None:
    with _told(location):
        try:
            batch = reader.read_next_batch()
        except StopIteration:
            return None
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid:  # of a database without an encoding
        raise ErasmoError(
            f"Got text that is not UTF-8 in {location.shown}", expected="UTF-8 text", fix="store the text as UTF-8"
        ) from None
    return batch


@contextmanager
def _told(location: Location, *, planning: bool = False) -> Iterator[None]:
    """Turn what the driver raises in the block into an ErasmoError. ``planning`` is before any row is read, where the
    server speaks of the SQL alone."""
    from adbc_driver_manager import Error

    try:
        yield
    except (Error, OSError, pa.ArrowException) as error:
        raise _fault(error, location, planning=planning) from None


def _fault(error: Exception, location: Location, *, planning: bool) -> ErasmoError:
    code, shown = sqlstate(error), location.shown
    if code == "42501":
        return ErasmoError(
            f"Got {shown}, which its user may not read", expected="the right to", fix="GRANT SELECT on it to that user"
        )
    if code.startswith(("08", "57P")) or _LOST.search(str(error)):
        return ErasmoError(
            f"Got {shown}, whose connection was lost", expected="one that lasts to the last row", fix="run again"
        )
    if code == "55P03":
        return ErasmoError(
            f"Got {shown}, which another session holds locked", expected=f"it free within {LOCK_WAIT}", fix="run again"
        )
    if code in ("57014", "40001") or "canceling statement" in str(error):
        return ErasmoError(
            f"Got {shown}, whose reading the server cancelled",
            expected="time to read it to its end",
            fix="raise statement_timeout for that user, or run again",
        )
    if code == "25006" or "read-only transaction" in str(error):
        return ErasmoError(
            f"Got {shown}, which writes", expected="one SELECT that only reads", fix="mend source.statement"
        )
    if planning:
        return ErasmoError(
            f"Got {shown}, which the server does not take ({server_message(error)})",
            expected="one SELECT over tables that it has",
            fix="mend source.statement" if "statement" in shown else "mend `source`",
        )
    return ErasmoError(f"Got {shown}, which cannot be read to its end", expected="a SELECT that holds for every row")
