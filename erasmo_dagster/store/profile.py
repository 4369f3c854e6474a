"""Look at a snapshot's columns: what `erasmo add` decides by."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import duckdb

from erasmo_dagster.store.sql import literal, quote
from erasmo_dagster.store.types import DATES, NUMBERS, first_other, kinds_of

# Cells that people and programs write for a missing value.
MARKERS = ("NA", "N/A", "n/a", "#N/A", "NULL", "Null", "null", "None", "none", "?", "-", ".")

_EMAIL = r"[^@\s]+@[^@\s]+\.[A-Za-z]{2,}"
_PHONE = r"(\+|0|\()[0-9 ()/-]{8,18}|[0-9]{3}[-. ][0-9]{3}[-. ][0-9]{4}"
_UUID = r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}"
_CODE = r"\S*[0-9]\S*"
_NAMED_KEY = re.compile(r"(^|[\W_])(?i:id|uuid|guid|key|nr|no)$|[a-z](ID|Id|UUID|Key)$")
_NAMED_PHONE = re.compile(r"phone|mobile|(^|[\W_])(tel|fax)($|[\W_])", re.IGNORECASE)
_MOSTLY = 0.9
_UNIQUE = 0.95
_FEW_ROWS = 10  # below, any column may be unique by chance


@dataclass(frozen=True)
class Profile:
    """One column of a snapshot: its DuckDB type, its rows, and counts of its values.

    The shares are of the values that are there; texts only. ``low`` and ``high`` are of whole numbers only.
    """

    name: str
    type: str
    rows: int
    values: int
    distinct: int
    low: int | None = None
    high: int | None = None
    words: float = 0.0
    emails: float = 0.0
    phones: float = 0.0
    uuids: float = 0.0
    codes: float = 0.0

    @property
    def whole(self) -> bool:
        """Whether it holds whole numbers."""
        return is_whole(self.type)

    @property
    def unique(self) -> bool:
        """Whether nearly every row has a value of its own."""
        return self.values >= _FEW_ROWS and self.distinct >= _UNIQUE * self.values

    @property
    def contact(self) -> str:
        """What personal address it holds, if any."""
        if self.emails >= _MOSTLY:
            return "e-mail addresses"
        named = bool(_NAMED_PHONE.search(self.name))
        if self.phones >= _MOSTLY or (named and self.low is not None and self.low >= 10**6):
            return "phone numbers"
        return ""

    @property
    def identifier(self) -> str:
        """Why it looks like a name of the row rather than a property of it, if it does."""
        if self.uuids >= _MOSTLY:
            return "UUIDs"
        if not self.unique:
            return ""
        if self.whole and self.low is not None and self.high is not None and self.high - self.low + 1 == self.values:
            return "a running number"
        if (self.whole or (self.type == "VARCHAR" and self.words <= 1)) and _NAMED_KEY.search(self.name):
            return "a number or code of its own in nearly every row, and named like a key"
        return "a code of its own in nearly every row" if self.codes >= _MOSTLY else ""

    @property
    def kind(self) -> str:
        """Its kind in the settings, or nothing where there is none to name."""
        if self.type == "BOOLEAN":
            return "boolean"
        if self.whole or self.type.startswith(("FLOAT", "DOUBLE", "DECIMAL")):
            return "number"
        if self.type.startswith(("DATE", "TIMESTAMP")):
            return "datetime"
        if self.type.startswith(("STRUCT", "MAP")) or self.type.endswith("]"):
            return "nested"
        if self.type == "VARCHAR":
            return "text" if self.words >= 5 or (self.unique and self.words >= 2) else "category"
        return ""


def is_whole(kind: str) -> bool:
    """Whether a DuckDB type is one of whole numbers."""
    return bool(re.fullmatch(r"U?(TINYINT|SMALLINT|INTEGER|BIGINT)", kind))


def distinct(relation: str, name: str) -> str:
    """The SQL expression that counts a column's different values. Grouping spills to disk; count(DISTINCT) does not."""
    column = quote(name)
    return f"(SELECT count(*) FROM (SELECT {column} FROM {relation} WHERE {column} IS NOT NULL GROUP BY 1))"


def profile(con: duckdb.DuckDBPyConnection, relation: str, name: str, kind: str, rows: int) -> Profile:
    """Profile one column of a table in Parquet files."""
    column = quote(name)
    figures = {"values": f"count({column})", "distinct": distinct(relation, name)}
    if is_whole(kind):
        figures |= {"low": f"min({column})", "high": f"max({column})"}
    elif kind == "VARCHAR":
        figures |= {
            "words": f"coalesce(avg(len(regexp_extract_all({column}, '\\S+'))), 0)",
        }
        for figure, pattern in (("emails", _EMAIL), ("phones", _PHONE), ("uuids", _UUID), ("codes", _CODE)):
            figures[figure] = f"coalesce(avg(CAST(regexp_full_match(trim({column}), '{pattern}') AS INTEGER)), 0)"
    row = con.execute(f"SELECT {', '.join(figures.values())} FROM {relation}").fetchone() or ()
    counted: dict[str, Any] = dict(zip(figures, row, strict=True))
    return Profile(name=name, type=kind, rows=rows, **counted)


def missing_markers(con: duckdb.DuckDBPyConnection, relation: str, names: Iterable[str]) -> dict[str, int]:
    """Marker -> cells of it in these text columns, for those that prove to stand for a missing value.

    A marker is proved by a column in which everything but markers is numbers, dates or truth values.
    """
    proved: set[str] = set()
    cells: Counter[str] = Counter()
    for name in names:
        found = _markers_in(con, relation, name)
        cells.update(found)
        if found:
            kinds = kinds_of(con, relation, name)
            others = kinds.keys() - {"text"}
            if others and "code" not in others and kinds["text"] == sum(found.values()):
                proved |= found.keys()
    return {marker: cells[marker] for marker in MARKERS if marker in proved}


def odd_values(con: duckdb.DuckDBPyConnection, relation: str, names: Iterable[str]) -> dict[str, str]:
    """Text column -> a remark, where it holds markers, or is numbers or dates but for some values."""
    remarks = {}
    for name in names:
        kinds = kinds_of(con, relation, name)
        total = sum(kinds.values())
        for what, fitting in (("numbers", NUMBERS), ("dates", DATES)):
            odd = sum(count for kind, count in kinds.items() if kind not in fitting)
            if 0 < odd <= (1 - _MOSTLY) * total and "code" not in kinds:
                row = first_other(con, relation, name, fitting)
                remarks[name] = f"text, for {odd:,} of {total:,} values are no {what}, the first in row {row:,}"
        if name not in remarks and (found := _markers_in(con, relation, name)):
            shown = ", ".join(f"{marker!r}" for marker in found)
            remarks[name] = f"holds {shown}; if that means missing, list it under source.null_values"
    return remarks


def _markers_in(con: duckdb.DuckDBPyConnection, relation: str, name: str) -> dict[str, int]:
    value, markers = f"trim({quote(name)})", ", ".join(map(literal, MARKERS))
    return dict(
        con.execute(f"SELECT {value}, count(*) FROM {relation} WHERE {value} IN ({markers}) GROUP BY 1").fetchall()
    )
