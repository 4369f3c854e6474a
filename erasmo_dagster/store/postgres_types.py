"""PostgreSQL's types: what the server sends of a column, and what a snapshot makes of that.

A type that travels natively does so. Of the others the server sends text, so that no type, a user's own included, keeps
a table from being read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from erasmo_dagster.store.types import TextRules

_NATIVE = frozenset({"bool", "int2", "int4", "int8", "float4", "float8", "text", "varchar", "name", "bytea"})
# The driver has no infinite moments, and wraps those at the end of PostgreSQL's own calendar around.
_FIRST, _AFTER = "0001-01-01", "10000-01-01"
_FOREVER = 2**31 - 1  # days
_ZONED = {"timestamp": ("TIMESTAMP", ""), "timestamptz": ("TIMESTAMP WITH TIME ZONE", " 00:00:00+00")}


@dataclass(frozen=True)
class Column:
    """A column: its name, what it is called on the way, and the SQL that the server and then DuckDB apply to it."""

    name: str
    alias: str
    server: str
    ours: str


def column_of(number: int, field: Any, rules: TextRules) -> Column:
    """How a column of a result (an Arrow field with the driver's metadata) is read.

    Numbers with a precision of up to 38 digits become DECIMAL, where NaN is null; other ``numeric`` and ``money``
    DOUBLE, or text where ``rules`` say so, since a key must not be rounded. Dates and timestamps beyond the calendar
    become infinite, JSON values what they are as text, arrays JSON, everything else the server's text.
    """
    metadata = {key.decode(): value.decode() for key, value in (field.metadata or {}).items()}
    kind, alias = metadata.get("POSTGRESQL:type", ""), f"c{number}"
    cell = f"q.{alias}"
    server, ours = f"{cell}::text", alias
    if kind in _NATIVE:
        server = cell
    elif kind in ("numeric", "money"):
        server = f"{cell}::numeric::text"
        ours = _number(alias, int(metadata.get("POSTGRESQL:typmod", "-1")), as_text=field.name in rules.as_text)
    elif kind == "oid":
        server = f"{cell}::bigint"
    elif kind == "date":
        server = (
            f"CASE WHEN {cell} >= '{_AFTER}' THEN {_FOREVER} WHEN {cell} < '{_FIRST}' THEN -{_FOREVER}"
            f" ELSE {cell} - date '1970-01-01' END"
        )
        ours = (
            f"CASE {alias} WHEN {_FOREVER} THEN DATE 'infinity' WHEN -{_FOREVER} THEN DATE '-infinity'"
            f" ELSE DATE '1970-01-01' + {alias} END"
        )
    elif kind in _ZONED:
        server, ours = _moment(cell, alias, *_ZONED[kind])
    elif kind == "time":  # 24:00 is a time in PostgreSQL alone
        server = f"CASE WHEN {cell} = '24:00' THEN '23:59:59.999999' ELSE {cell} END"
    elif kind in ("json", "jsonb"):
        server = (
            f"CASE {kind}_typeof({cell}) WHEN 'string' THEN {cell} #>> '{{}}' WHEN 'null' THEN NULL"
            f" ELSE {cell}::text END"
        )
    elif kind.startswith("_"):
        server = f"to_json({cell})::text"
    return Column(field.name, alias, server, ours)


def _number(alias: str, modifier: int, *, as_text: bool) -> str:
    precision, scale = (modifier - 4) >> 16, (modifier - 4) & 0x7FF
    if modifier >= 4 and precision <= 38 and scale <= precision:  # a negative scale is above 1,000 here
        return f"CAST(nullif({alias}, 'NaN') AS DECIMAL({precision}, {scale}))"
    return alias if as_text else f"CAST({alias} AS DOUBLE)"


def _moment(cell: str, alias: str, kind: str, zone: str) -> tuple[str, str]:
    server = (
        f"CASE WHEN {cell} >= '{_AFTER}{zone}' THEN '{_AFTER}{zone}'"
        f" WHEN {cell} < '{_FIRST}{zone}' THEN '{_FIRST}{zone} BC' ELSE {cell} END"
    )
    ours = (
        f"CASE WHEN {alias} >= {kind} '{_AFTER}{zone}' THEN {kind} 'infinity'"
        f" WHEN {alias} < {kind} '{_FIRST}{zone}' THEN {kind} '-infinity' ELSE {alias} END"
    )
    return server, ours
