"""Tables as Parquet that DuckDB, Spark and BigQuery read as it stands."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pyarrow as pa

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import quote
from erasmo_dagster.store.targets.base import FileColumn, PublishedFile, Table

# A part is closed once it is as long as this; a row group holds this many rows, or fewer that are this large.
PART_BYTES = 256 << 20
_GROUP_ROWS = 122_880
_GROUP_BYTES = 64 << 20

_PLAIN = re.compile(
    r"BOOLEAN|SMALLINT|INTEGER|BIGINT|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|VARCHAR|BLOB|DATE|TIMESTAMP( WITH TIME ZONE)?"
)
# Type of DuckDB -> the nearest that every reader has. All others become text.
_NEAREST = {
    "TINYINT": "INTEGER",
    "UTINYINT": "INTEGER",
    "USMALLINT": "INTEGER",
    "UINTEGER": "BIGINT",
    "UBIGINT": "DECIMAL(20, 0)",
    "TIMESTAMP_S": "TIMESTAMP",
    "TIMESTAMP_MS": "TIMESTAMP",
    "TIMESTAMP_NS": "TIMESTAMP",
    "HUGEINT": "DECIMAL(38, 0)",
    "UHUGEINT": "DECIMAL(38, 0)",
}
_NESTED = re.compile(r"(STRUCT|MAP)\(.*|.*\[\d*\]", re.DOTALL)
_NOT_INSIDE = re.compile(
    r"\b(U\w+|HUGEINT|TINYINT|INTERVAL|BIT|ENUM|VARIANT|BIGNUM|GEOMETRY|TIME|TIME_NS|TIMESTAMP_\w+|JSON"
    r"|WITH TIME ZONE)\b"
)
_ARRAY = re.compile(r"\[\d+\]")
_TO_JSON = re.compile(r"(STRUCT|MAP|UNION)\(.*|.*\[\d*\]|VARIANT", re.DOTALL)


def select_plain(table: Table) -> str:
    """A SELECT of all the table's columns, of types that every reader of Parquet has."""
    columns = ", ".join(f"{_plain(column)} AS {quote(column.name)}" for column in table.columns)
    return f"SELECT {columns} FROM {quote(table.name)}"


def _plain(column: FileColumn) -> str:
    name, kind = quote(column.name), column.kind
    if _PLAIN.fullmatch(kind):
        return name
    if kind in _NEAREST:
        return f"CAST({name} AS {_NEAREST[kind]})"
    if _NESTED.fullmatch(kind) and not _NOT_INSIDE.search(kind):
        listed = _ARRAY.sub("[]", kind)
        return name if listed == kind else f"CAST({name} AS {listed})"
    return f"CAST(to_json({name}) AS VARCHAR)" if _TO_JSON.fullmatch(kind) else f"CAST({name} AS VARCHAR)"


def check_digits(file: PublishedFile, table: Table) -> None:
    """Raise ErasmoError where a number has more digits than a DECIMAL holds, which is what a HUGEINT becomes."""
    for column in table.columns:
        if column.kind not in ("HUGEINT", "UHUGEINT"):
            continue
        name, limit = quote(column.name), "9" * 38
        beyond = f"{name} > {limit}" + (f" OR {name} < -{limit}" if column.kind == "HUGEINT" else "")
        (found,) = file.value(f"SELECT coalesce(bool_or({beyond}), false) FROM {quote(table.name)}")
        if found:
            raise ErasmoError(
                f"Got a number of more than 38 digits in {table.name}.{column.name}",
                expected="numbers that fit DECIMAL(38, 0) in Parquet",
                fix="cast the column to DOUBLE or VARCHAR in the mart, or list the table under leave_out",
            )


def write_parts(
    batches: pa.RecordBatchReader, create: Callable[[str], AbstractContextManager[Any]]
) -> list[tuple[str, int]]:
    """Write rows to as many files as their size asks for, one at least; name and rows of each.

    ``create`` opens a new file of a name for writing. A few row groups at most are held in memory.
    """
    groups = _groups(batches)
    parts: list[tuple[str, int]] = []
    following = next(groups, None)
    while following is not None or not parts:
        name, rows = f"part-{len(parts):05d}.parquet", 0
        with create(name) as file, _writer(file, batches.schema) as writer:
            while following is not None and (rows == 0 or file.tell() < PART_BYTES):
                rows += following.num_rows
                writer.write_table(following, row_group_size=following.num_rows)
                following = next(groups, None)
        parts.append((name, rows))
    return parts


def _writer(file: Any, schema: pa.Schema) -> Any:
    from pyarrow import parquet

    return parquet.ParquetWriter(file, schema, compression="zstd")


def _groups(batches: pa.RecordBatchReader) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        held.append(batch)
        rows, size = rows + batch.num_rows, size + batch.nbytes
        if rows >= _GROUP_ROWS or size >= _GROUP_BYTES:
            yield pa.Table.from_batches(held, batches.schema)
            held, rows, size = [], 0, 0
    if rows:
        yield pa.Table.from_batches(held, batches.schema)
