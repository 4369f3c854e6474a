"""DuckDB as the store uses it: names quoted, connections confined, faults told without cell values."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from glob import escape
from pathlib import Path
from types import ModuleType

import duckdb
import pyarrow as pa

from erasmo_dagster.errors import ErasmoError

# A copy from file to file streams in far less. Joins, sorts and duplicate counts beyond it spill to disk, so that
# a large table costs time and not the memory that the model beside it needs.
_MEMORY = "1GB"
# `WITH x AS (COPY …) SELECT` is a SELECT by its type, and would write. These words begin whatever DuckDB takes there;
# its JSON of the statement tells. A quote within a text is escaped in it, so that no text can look like a node.
_MAY_WRITE = re.compile(r"\b(insert|update|delete|copy|merge|truncate)\b", re.IGNORECASE)
_WRITES = re.compile(r'"type":"(\w+)_QUERY_NODE"')
_DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded|File too large|max_temp_directory_size")
_DISK_FULL_ERRNO = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


ONE_SELECT = ["SELECT"]


def statement_kinds(con: duckdb.DuckDBPyConnection | ModuleType, query: str) -> list[str]:
    """What each statement of ``query`` is; ``ONE_SELECT`` for a single one that only reads.

    A SELECT that would write, by a ``COPY`` in its WITH for instance, is told as such. Raises duckdb.Error where the
    query does not parse.
    """
    kinds = [statement.type.name for statement in con.extract_statements(query)]
    if kinds == ONE_SELECT and (found := _writes_within(query)) is not None:
        return [f"{found} within a SELECT"]
    return kinds


def _writes_within(query: str) -> str | None:
    if not _MAY_WRITE.search(query):
        return None
    with duckdb.connect(":memory:", config={"enable_external_access": "false", "threads": 1}) as con:
        found = _WRITES.search(str(con.execute("SELECT json_serialize_sql(?)", [query]).fetchall()[0][0]))
    return found[1] if found else None


def quote(identifier: str) -> str:
    """A name as a DuckDB (and SQLite) identifier, whatever characters are in it.

    Raises ErasmoError for a NUL character, which SQL text cannot hold.
    """
    if "\0" in identifier:
        raise ErasmoError(f"Got a NUL character in the name {identifier!r}", fix="rename it")
    return '"' + identifier.replace('"', '""') + '"'


def literal(text: str | Path) -> str:
    """A text as a SQL string literal."""
    return "'" + str(text).replace("'", "''") + "'"


def connect(spill: Path) -> duckdb.DuckDBPyConnection:
    """An in-memory connection that loads no extension, sees no Python variable and spills into ``spill``.

    One thread: rows then keep the order of their source without DuckDB having to hold them back for it, so memory is
    bounded by a row group and the same source gives the same file. Reading is never what a run waits for.
    """
    con = duckdb.connect(
        ":memory:",
        config={
            "threads": 1,
            "memory_limit": _MEMORY,
            "temp_directory": str(spill),
            "preserve_insertion_order": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_persistent_secrets": False,
            "python_enable_replacements": False,
        },
    )
    con.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return con


def confine(con: duckdb.DuckDBPyConnection, files: Iterable[Path], folder: Path) -> None:
    """From here on the connection reaches these files, and ``folder`` for what it writes, and nothing else."""
    # A path goes through DuckDB's globbing, so its escaped form has to be allowed as well as the file itself.
    paths = [text for file in files for text in (str(file), escape(str(file)))]
    con.execute("SET allowed_paths = ?", [paths])
    con.execute("SET allowed_directories = ?", [[str(folder)]])
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")


def read_parquet(files: Iterable[Path], options: str = "hive_partitioning = false") -> str:
    """``read_parquet(…)`` over these files for a FROM clause, their names taken literally."""
    paths = ", ".join(literal(escape(str(file))) for file in files)
    return f"read_parquet([{paths}], {options})"


def copy_to_parquet(con: duckdb.DuckDBPyConnection, select: str, out: Path, *, compression: str = "zstd") -> None:
    """Stream a SELECT into a Parquet file. Row groups are bounded in bytes, for tables with very long cells."""
    con.execute(
        f"COPY ({select}) TO {literal(out)} (FORMAT parquet, COMPRESSION {compression}, ROW_GROUP_SIZE_BYTES '64MB')"
    )


def describe(con: duckdb.DuckDBPyConnection, select: str) -> list[tuple[str, str]]:
    """Name and DuckDB type of a SELECT's columns, names as the SELECT gives them (duplicates included)."""
    return [(name, kind) for name, kind, *_ in con.execute(f"DESCRIBE {select}").fetchall()]


def first_line(error: Exception) -> str:
    """What DuckDB says, without the SQL it repeats. Only for errors that arise before rows are read: later ones
    quote cell values."""
    return str(error).strip().splitlines()[0].rstrip(" :.")


@contextmanager
def faults(tell: Callable[[Exception], ErasmoError]) -> Iterator[None]:
    """Turn what DuckDB, Arrow or the operating system raises in the block into an ErasmoError.

    A full disk and spent memory are told here, the rest by ``tell``. The original is left out of the error's chain
    (``from None``), since its message may hold cell values and chains end up in logs.
    """
    try:
        yield
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise _resource_fault(error) or tell(error) from None


def _resource_fault(error: Exception) -> ErasmoError | None:
    if getattr(error, "errno", None) in _DISK_FULL_ERRNO or _DISK_FULL.search(str(error)):
        return ErasmoError(
            "Got no space left on the disk while copying the source",
            fix="free some space where $ERASMO_HOME is and run again",
        )
    if isinstance(error, duckdb.OutOfMemoryException):
        return ErasmoError(
            f"Got a source that needs more than {_MEMORY} of memory at once",
            expected="rows that fit, one group at a time",
            fix="shorten the longest cells, or aggregate less in source.query",
        )
    return None
