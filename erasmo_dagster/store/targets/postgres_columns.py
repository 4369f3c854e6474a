"""How DuckDB's columns become PostgreSQL's: names, types, and the expression that is sent."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.targets.base import FileColumn

_NAME_BYTES = 63  # PostgreSQL cuts longer names silently
_SYSTEM_COLUMNS = {"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"}

# DuckDB's type -> the one that it is sent as and PostgreSQL's for it. The binary COPY takes no other for these.
_SENT = {
    "BOOLEAN": ("BOOLEAN", "boolean"),
    "TINYINT": ("SMALLINT", "smallint"),
    "UTINYINT": ("SMALLINT", "smallint"),
    "SMALLINT": ("SMALLINT", "smallint"),
    "USMALLINT": ("INTEGER", "integer"),
    "INTEGER": ("INTEGER", "integer"),
    "UINTEGER": ("BIGINT", "bigint"),
    "BIGINT": ("BIGINT", "bigint"),
    "UBIGINT": ("DECIMAL(20, 0)", "numeric(20, 0)"),
    "FLOAT": ("FLOAT", "real"),
    "DOUBLE": ("DOUBLE", "double precision"),
    "BLOB": ("BLOB", "bytea"),
    "DATE": ("DATE", "date"),
    "TIME": ("TIME", "time"),
    "TIME_NS": ("TIME", "time"),
    "TIMESTAMP": ("TIMESTAMP", "timestamp"),
    "TIMESTAMP_S": ("TIMESTAMP", "timestamp"),
    "TIMESTAMP_MS": ("TIMESTAMP", "timestamp"),
    "TIMESTAMP_NS": ("TIMESTAMP", "timestamp"),
    "TIMESTAMP WITH TIME ZONE": ("TIMESTAMP WITH TIME ZONE", "timestamptz"),
}
# Sent as text, and converted by PostgreSQL.
_AS_TEXT = {
    "HUGEINT": "numeric",
    "UHUGEINT": "numeric",
    "BIGNUM": "numeric",
    "UUID": "uuid",
    "INTERVAL": "interval",
    "TIME WITH TIME ZONE": "timetz",
}
_MOMENTS = ("DATE", "TIMESTAMP")
_DECIMAL = re.compile(r"DECIMAL\((\d+),(\d+)\)")
_NESTED = re.compile(r"(STRUCT|MAP|UNION)\(.*|.*\[\d*\]|VARIANT", re.DOTALL)
# Of JSON: its texts (1), and numbers that it knows and jsonb does not. A control character can be in no JSON text.
_NO_NUMBER = r'("(?:[^"\\]|\\.)*")|-?(?:NaN|Infinity)'
_MARK = "chr(1)"


@dataclass(frozen=True)
class Mapped:
    """A column on its way: its name in PostgreSQL, the DuckDB expression that is sent, and two types.

    ``loaded`` is the type that it is loaded as, ``kind`` the one that it has in the end.
    """

    name: str
    expression: str
    loaded: str
    kind: str


def map_columns(columns: Iterable[FileColumn], has_infinite: Callable[[FileColumn], bool]) -> list[Mapped]:
    """Every column with its name and types in PostgreSQL.

    ``has_infinite`` is asked of dates and moments: no infinite one can be sent in binary.
    """
    taken: set[str] = set()
    mapped = []
    for column in columns:
        name = _free(column.name, taken)
        taken.add(name)
        text = column.kind.startswith(_MOMENTS) and has_infinite(column)
        mapped.append(Mapped(name, *(_moments_as_text(column) if text else _types(column))))
    return mapped


def short(name: str) -> str:
    """The name itself, or one of at most 63 bytes that no other name shares: its beginning and a hash of all of it."""
    encoded = name.encode()
    if len(encoded) <= _NAME_BYTES:
        return name
    hashed = hashlib.sha256(encoded).hexdigest()[:8]
    return encoded[: _NAME_BYTES - 9].decode(errors="ignore") + "_" + hashed


def _free(name: str, taken: set[str]) -> str:
    name = short(name)
    while name in taken or name in _SYSTEM_COLUMNS:
        name = short(f"{name}_")
    return name


def _types(column: FileColumn) -> tuple[str, str, str]:
    """The expression that is sent, the type that it is loaded as, the type in the end."""
    name, kind = quote(column.name), column.kind
    if kind in _SENT:
        sent, there = _SENT[kind]
        return (name if sent == kind else f"CAST({name} AS {sent})"), there, there
    if found := _DECIMAL.fullmatch(kind):
        there = f"numeric({found[1]}, {found[2]})"
        return name, there, there
    if kind in _AS_TEXT:
        return f"CAST({name} AS VARCHAR)", "text", _AS_TEXT[kind]
    if kind == "JSON":
        return _jsonb(f"CAST({name} AS VARCHAR)"), "text", "jsonb"
    if _NESTED.fullmatch(kind):
        return _jsonb(f"CAST(to_json({name}) AS VARCHAR)"), "text", "jsonb"
    # Texts, enums, bits and whatever is added to DuckDB. PostgreSQL holds no character NUL.
    return f"replace(CAST({name} AS VARCHAR), chr(0), chr(65533))", "text", "text"


def _moments_as_text(column: FileColumn) -> tuple[str, str, str]:
    return f"replace(CAST({quote(column.name)} AS VARCHAR), '(BC)', 'BC')", "text", _SENT[column.kind][1]


def _jsonb(text: str) -> str:
    """JSON as jsonb takes it: null for numbers that are none, and no NUL character."""
    backslashes, nul, instead = literal("\\\\"), literal("\\u0000"), literal("\\ufffd")
    # A backslash that is itself escaped comes first, so that what follows it is no escape.
    told = f"replace({text}, {backslashes}, {_MARK})"
    told = f"replace(replace({told}, {nul}, {instead}), {_MARK}, {backslashes})"
    marked = f"regexp_replace({told}, {literal(_NO_NUMBER)}, '\\1' || {_MARK}, 'g')"
    finite = f"replace(replace({marked}, '\"' || {_MARK}, '\"'), {_MARK}, 'null')"
    return f"CASE WHEN regexp_matches({text}, 'NaN|Infinity') THEN {finite} ELSE {told} END"
