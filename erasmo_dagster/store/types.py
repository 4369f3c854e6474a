"""Column types: what a snapshot keeps of a source's types, and what columns of plain text turn out to hold.

A text column (CSV, TSV, dates in SQLite) gets a type only if *every* value has it and the type keeps all of the
value: ``007``, ``+49`` and integers beyond 64 bits stay text, and so do dates other than ISO 8601, which would be a
guess about day and month.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import duckdb

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.store.sql import literal, quote

# Types that Parquet, polars and DuckDB read back as they were written. All others become text.
_KEPT = re.compile(
    r"BOOLEAN|U?(TINYINT|SMALLINT|INTEGER|BIGINT)|FLOAT|DOUBLE|DECIMAL\(\d+,\d+\)|DATE|TIME|VARCHAR|BLOB"
    r"|TIMESTAMP(_S|_MS|_NS)?|TIMESTAMP WITH TIME ZONE"
)
_NESTED = re.compile(r"(STRUCT|MAP)\(.*|.*\[\d*\]", re.DOTALL)
_NOT_KEPT_INSIDE = re.compile(r"\b(U?HUGEINT|INTERVAL|UUID|BIT|UNION|ENUM|VARIANT|BIGNUM|GEOMETRY|WITH TIME ZONE)\b")

_FINITE = r"-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
_MOMENT = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[ T][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?"
_ZONE = r"(Z|[+-][0-9]{2}(:?[0-9]{2})?)"
# One value -> its kind. A cast that gives the same text back has lost nothing.
_KIND_OF_VALUE = f"""
CASE WHEN v IS NULL THEN NULL
     WHEN CAST(TRY_CAST(v AS BIGINT) AS VARCHAR) = v THEN 'integer'
     WHEN lower(v) IN ('nan', 'inf', '-inf', 'infinity', '-infinity') THEN 'number'
     WHEN CAST(TRY_CAST(v AS DATE) AS VARCHAR) = v THEN 'date'
     WHEN lower(v) IN ('true', 'false') THEN 'boolean'
     WHEN regexp_full_match(v, '[+-]?[0-9]{{2,}}') THEN 'code'
     WHEN regexp_full_match(v, '{_FINITE}') AND isfinite(TRY_CAST(v AS DOUBLE)) THEN 'number'
     WHEN regexp_full_match(v, '{_MOMENT}') AND TRY_CAST(v AS TIMESTAMP) IS NOT NULL THEN 'timestamp'
     WHEN regexp_full_match(v, '{_MOMENT}{_ZONE}') AND TRY_CAST(v AS TIMESTAMPTZ) IS NOT NULL THEN 'zoned'
     ELSE 'text' END
"""
NUMBERS = frozenset({"integer", "number"})
DATES = frozenset({"date", "timestamp"})
_TYPES = (
    ("BOOLEAN", frozenset({"boolean"})),
    ("BIGINT", frozenset({"integer"})),
    ("DOUBLE", NUMBERS),
    ("DATE", frozenset({"date"})),
    ("TIMESTAMP", DATES),
    ("TIMESTAMP WITH TIME ZONE", frozenset({"zoned"})),
)
# A column whose values are all but a few numbers (or dates) was meant to be one: refused rather than turned to text.
_MOSTLY, _AT_LEAST = 0.99, 100


@dataclass(frozen=True)
class TextRules:
    """What the settings say of columns read as text: those that stay so, those that must be numbers.

    ``complain=False`` accepts every column as it is.
    """

    as_text: frozenset[str] = frozenset()
    as_number: frozenset[str] = frozenset()
    complain: bool = True


def kept(column: str, kind: str) -> str:
    """The SQL expression by which a column of a DuckDB type enters a snapshot.

    128-bit integers become DECIMAL(38, 0), JSON values and every type that polars does not read become text.
    """
    name = quote(column)
    if _KEPT.fullmatch(kind) or (_NESTED.fullmatch(kind) and not _NOT_KEPT_INSIDE.search(kind)):
        return name
    if kind in ("HUGEINT", "UHUGEINT"):
        return f"CAST({name} AS DECIMAL(38, 0))"
    if kind == "JSON":
        return f"({name} ->> '$')"
    return f"CAST({name} AS VARCHAR)"


def kinds_of(con: duckdb.DuckDBPyConnection, relation: str, column: str) -> dict[str, int]:
    """Kind -> values of it in a text column: integer, number, date, timestamp, zoned, boolean, code (digits with a
    leading zero or plus, or too many for 64 bits) or text. Blank cells are missing ones."""
    values = f"SELECT nullif(trim({quote(column)}), '') AS v FROM {relation}"
    kinds = f"SELECT {_KIND_OF_VALUE} AS kind FROM ({values})"
    return dict(con.execute(f"SELECT kind, count(*) FROM ({kinds}) WHERE kind IS NOT NULL GROUP BY kind").fetchall())


def first_other(con: duckdb.DuckDBPyConnection, relation: str, column: str, kinds: Iterable[str]) -> int:
    """The first row, from 1, with a value of none of these kinds; 0 where there is none."""
    values = f"SELECT nullif(trim({quote(column)}), '') AS v, row_number() OVER () AS number FROM {relation}"
    others = f"({_KIND_OF_VALUE}) NOT IN ({', '.join(map(literal, kinds))})"
    return int((con.execute(f"SELECT min(number) FROM ({values}) WHERE {others}").fetchone() or (0,))[0] or 0)


def type_of(kinds: Iterable[str]) -> str:
    """The DuckDB type that loses nothing of values of these kinds; VARCHAR where there is none."""
    present = set(kinds)
    return next((name for name, fitting in _TYPES if present and present <= fitting), "VARCHAR")


def typed(column: str, kind: str) -> str:
    """The SQL expression that reads a text column as the type of ``type_of``."""
    return quote(column) if kind == "VARCHAR" else f"CAST(nullif(trim({quote(column)}), '') AS {kind})"


def check_kinds(
    con: duckdb.DuckDBPyConnection, relation: str, column: str, kinds: Mapping[str, int], rules: TextRules, shown: str
) -> None:
    """Refuse a column that is numbers (or dates) but for a few values, and one declared a number that is not.

    Raises ErasmoError with the count and the first such row, never a value.
    """
    if not rules.complain or column in rules.as_text:
        return
    declared = column in rules.as_number
    total = sum(kinds.values())
    for what, fitting in (("number", NUMBERS), ("date", DATES)):
        others = sum(count for kind, count in kinds.items() if kind not in fitting)
        mostly = total >= _AT_LEAST and others <= (1 - _MOSTLY) * total and "code" not in kinds
        if others and (mostly or (declared and what == "number")):
            row = first_other(con, relation, column, fitting)
            raise ErasmoError(
                f"Got {others} of {total} values in column {column!r} of {shown} that are no {what}s,"
                f" the first in row {row} below the header",
                expected=f"{what}s" + ("" if declared else " as in the other rows"),
                fix="mend them, list what stands for a missing value under source.null_values,"
                f" or set columns.{column}.kind to category or text",
            )
