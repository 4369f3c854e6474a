"""One reader a format: a table of a source -> Parquet files that are ours to read as often as needed.

Parquet is read where it is; everything else is copied in one pass, so that what follows (types, checks, queries,
the fingerprint) sees one state of it.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from glob import escape
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.settings import Project, TableSettings
from erasmo_dagster.store.delimited import stage_delimited
from erasmo_dagster.store.parquet_parts import parquet_parts
from erasmo_dagster.store.paths import Location, locate
from erasmo_dagster.store.plain_text import stage_text
from erasmo_dagster.store.postgres_source import highest_in_postgres, stage_postgres
from erasmo_dagster.store.sql import (
    confine,
    connect,
    copy_to_parquet,
    describe,
    faults,
    first_line,
    literal,
    quote,
    read_parquet,
)
from erasmo_dagster.store.sqlite import highest_in_sqlite, stage_sqlite
from erasmo_dagster.store.staging import Staged, check_names, pick_table
from erasmo_dagster.store.types import TextRules, kept


def stage(
    table: TableSettings, project: Project, folder: Path, rules: TextRules, known: Collection[str] = ()
) -> Staged:
    """Read one table of a source. ``folder``, its own and empty, takes the copy; ``rules`` concern columns of text, and
    ``known`` are identities of parts that need not be copied.

    Raises ErasmoError for anything that keeps the table from being read whole.
    """
    location = locate(table, project)
    match location.format:
        case "csv" | "tsv":
            return stage_delimited(location, table, folder, rules)
        case "parquet":
            return _stage_parquet(location, folder)
        case "jsonl":
            return _stage_json_lines(location, folder)
        case "duckdb":
            return _stage_duckdb(location, table, folder)
        case "sqlite":
            return stage_sqlite(location, table, folder)
        case "text":
            return stage_text(location, folder)
        case "postgresql":
            return stage_postgres(location, table, folder, rules, known)


def highest(
    table: TableSettings, project: Project, folder: Path, column: str, check: Callable[[Sequence[str], str], None]
) -> tuple[int, object] | None:
    """Number of rows of a table in a database and the highest value of ``column``, without copying the table.

    None for other formats. ``check`` gets the table's columns, and its name for messages, before any row is read.
    Raises ErasmoError as ``stage`` does.
    """
    location = locate(table, project)
    if location.format == "sqlite":
        return highest_in_sqlite(location, table, column, check)
    if location.format == "postgresql":
        return highest_in_postgres(location, table, column, check)
    if location.format != "duckdb":
        return None
    with _open_duckdb(location, table, folder) as opened:
        check([name for name, _ in opened.columns], location.shown)
        with faults(opened.failing):
            aggregate = f"SELECT count(*), CAST(max({quote(column)}) AS VARCHAR) FROM {opened.relation}"
            rows, value = opened.con.execute(aggregate).fetchone() or (0, None)
        return int(rows), value


def _stage_parquet(location: Location, folder: Path) -> Staged:
    def unreadable(_: Exception) -> ErasmoError:
        return ErasmoError(
            f"Got {location.shown}, which cannot be read as Parquet",
            expected="whole Parquet files",
            fix="write it anew",
        )

    # Files of one table may have gained or lost columns: by name, nothing of any file is left out. Hive partitions
    # are columns only where the settings' own path ranges over them.
    hive = "true" if re.search(r"=[^/]*\*", location.shown) else "false"
    relation = read_parquet(location.files, f"union_by_name = true, hive_partitioning = {hive}")
    with connect(folder) as con, faults(unreadable):
        confine(con, location.files, folder)
        for file in location.files:
            check_names(pq.read_schema(file).names, location.shown)
        columns = describe(con, f"FROM {relation}")
        parts = parquet_parts(con, location.files, columns, hive)
        return Staged(location.files, relation, {name: kept(name, kind) for name, kind in columns}, parts)


def _stage_json_lines(location: Location, folder: Path) -> Staged:
    def unreadable(_: Exception) -> ErasmoError:
        return _fault_in_json_lines(location)

    relation = (
        f"read_json({literal(escape(str(location.file)))}, format = 'newline_delimited', records = true,"
        " sample_size = -1)"  # types by every line; a sample would fail on the first line that differs
    )
    with connect(folder) as con:
        confine(con, [location.file], folder)
        with faults(unreadable):
            columns = describe(con, f"FROM {relation}")
        _check_keys(con, location, [name for name, _ in columns])
        return _copy(con, relation, columns, folder, unreadable)


def _check_keys(con: duckdb.DuckDBPyConnection, location: Location, names: list[str]) -> None:
    """Refuse keys that differ by case alone. DuckDB renames the second to ``name_1``, so only then are they read."""
    folded = {name.casefold() for name in names}
    if any((match := re.fullmatch(r"(.+)_\d+", name)) and match[1].casefold() in folded for name in names):
        objects = f"read_ndjson_objects({literal(escape(str(location.file)))})"
        keys = con.execute(f"SELECT DISTINCT unnest(json_keys(json)) FROM {objects} ORDER BY 1").fetchall()
        names = [key for (key,) in keys]
    check_names(names, location.shown)


def _fault_in_json_lines(location: Location) -> ErasmoError:
    """Name the first line that is no JSON object; DuckDB's own line numbers are off by one at times."""
    rows = 0
    try:
        with location.open() as lines:
            for number, line in enumerate(lines, start=1):
                rows += bool(line.strip())
                if fault := _fault_in_line(line):
                    return ErasmoError(
                        f"Got {fault} in line {number} of {location.shown}",
                        expected="one whole JSON object a line, in UTF-8",
                        fix="mend the line",
                    )
    except (OSError, EOFError, zlib.error):
        return ErasmoError(f"Got {location.shown}, which cannot be read to its end", expected="a whole file")
    if not rows:
        return ErasmoError(f"Got {location.shown} without any row", expected="at least 2 rows")
    return ErasmoError(
        f"Got {location.shown}, whose lines do not make one table", expected="objects that have most keys in common"
    )


def _fault_in_line(line: bytes) -> str:
    """What keeps a line from being a row, or nothing."""
    try:
        text = line.decode("utf-8")
        pairs = json.loads(text, object_pairs_hook=tuple) if text.strip() else ()
    except UnicodeDecodeError:
        return "bytes that are not UTF-8"
    except (ValueError, RecursionError):
        return "text that is not JSON"
    if not isinstance(pairs, tuple):  # an object is a tuple here, an array a list
        return "JSON that is no object"
    keys = [key for key, _ in pairs]
    if "" in keys:
        return "a key without a name"
    return "a key twice" if len(set(keys)) < len(keys) else ""


@dataclass(frozen=True)
class _InDuckDB:
    """A table of an attached DuckDB file; ``failing`` tells of an error while its rows are read."""

    con: duckdb.DuckDBPyConnection
    relation: str
    columns: list[tuple[str, str]]
    failing: Callable[[Exception], ErasmoError]


def _stage_duckdb(location: Location, table: TableSettings, folder: Path) -> Staged:
    with _open_duckdb(location, table, folder) as opened:
        return _copy(opened.con, opened.relation, opened.columns, folder, opened.failing)


@contextmanager
def _open_duckdb(location: Location, table: TableSettings, folder: Path) -> Iterator[_InDuckDB]:
    def unreadable(error: Exception) -> ErasmoError:
        if re.search("set lock|already attached", str(error)):
            return ErasmoError(
                f"Got {location.shown}, which another process (or connection) is writing",
                expected="a DuckDB file that nobody holds open to write",
                fix="close it there and run again, or read an export of it",
            )
        return ErasmoError(
            f"Got {location.shown}, which DuckDB {duckdb.__version__} cannot open ({first_line(error)})",
            expected="a whole DuckDB file",
        )

    with connect(folder) as con:
        with faults(unreadable):
            con.execute(f"ATTACH {literal(location.file)} AS src (TYPE duckdb, READ_ONLY)")
            # Views in the file may name other files; they do not get them.
            confine(con, [location.file, location.file.with_name(location.file.name + ".wal")], folder)
            known = {
                name if schema == "main" else f"{schema}.{name}": f"src.{quote(schema)}.{quote(name)}"
                for schema, name in con.execute(_TABLES).fetchall()
            }
        wanted = table.table
        if wanted not in known and wanted is not None:
            wanted = wanted.removeprefix("main.")
        name = pick_table(wanted, known, location.shown)

        def failing(error: Exception) -> ErasmoError:
            told = f" ({type(error).__name__})" if isinstance(error, duckdb.Error) else ""
            return ErasmoError(
                f"Got table {name!r} of {location.shown}, which cannot be read{told}",
                expected="a table, or a view over tables of that file",
            )

        with faults(failing):
            columns = describe(con, f"FROM {known[name]}")
        check_names([name for name, _ in columns], f"table {name!r} of {location.shown}")
        yield _InDuckDB(con, known[name], columns, failing)


_TABLES = """
SELECT schema_name, table_name FROM duckdb_tables() WHERE database_name = 'src' AND NOT internal
UNION ALL SELECT schema_name, view_name FROM duckdb_views() WHERE database_name = 'src' AND NOT internal
"""


def _copy(
    con: duckdb.DuckDBPyConnection,
    relation: str,
    columns: list[tuple[str, str]],
    folder: Path,
    tell: Callable[[Exception], ErasmoError],
) -> Staged:
    rows = folder / "rows.parquet"
    expressions = {name: kept(name, kind) for name, kind in columns}
    with faults(tell):
        copy_to_parquet(con, Staged((), relation, expressions).select, rows, compression="lz4")
    return Staged((rows,), read_parquet([rows]), {name: quote(name) for name in expressions})
