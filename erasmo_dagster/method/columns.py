"""What each column is: its kind, its name in the text, its place in the canonical order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import time
from decimal import Decimal
from typing import Any, Literal

import polars as pl
from pydantic import BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.distinct import Met
from erasmo_dagster.settings import ColumnSettings, DatasetSettings

Kind = Literal["number", "category", "boolean", "datetime", "text", "nested"]

# White space as Unicode has it, and the C0 and C1 control characters; the same set as in cells.py.
_BLANKS = re.compile(r"[\s\x00-\x1f\x7f-\x9f]+")

# A column of strings is text, and not categories, from these means over its distinct values on.
TEXT_CHARACTERS = 40
TEXT_WORDS = 6


class ColumnPlan(BaseModel):
    """How one column becomes a clause."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    label: str
    kind: Kind
    values: dict[str, str]
    unit: str | None
    verbalize: bool
    sensitive: bool
    dates_only: bool = False


@dataclass(frozen=True, eq=False)
class Column:
    """A column, read when ``pieces`` is called: its values in the order of their rows, some at a time."""

    name: str
    dtype: pl.DataType
    pieces: Callable[[], Iterable[pl.Series]]


def plan_column(column: pl.Series | Column, label: str, settings: DatasetSettings) -> ColumnPlan:
    """The plan of one column, from its type and values and what the settings say of it.

    Raises ErasmoError for a unit on what is no number.
    """
    if isinstance(column, pl.Series):
        series = column
        column = Column(series.name, series.dtype, lambda: [series])
    own = settings.columns.get(column.name, ColumnSettings())
    kind = own.kind or infer_kind(column)
    if own.unit and not own.kind and column.dtype in (pl.String, pl.Null):
        kind = "number"
    if own.unit and kind != "number":
        raise ErasmoError(
            f"Got unit {own.unit!r} for column {shorten(column.name)}, which is read as {kind}",
            expected="a unit only on a number",
            fix="remove columns.<name>.unit, or set columns.<name>.kind to number",
        )
    return ColumnPlan(
        name=column.name,
        label=label,
        kind=kind,
        values=_codes(own.values),
        unit=own.unit,
        verbalize=settings.text.verbalize if own.verbalize is None else own.verbalize,
        sensitive=column.name in settings.sensitive,
        dates_only=kind == "datetime" and _all_midnight(column),
    )


def code_of(value: Any) -> str:
    """The text by which a value is looked up among coded values: 1, 1.0 and "1" are ``1``, True is ``true``."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return collapse(str(value))


def _codes(values: dict[str, str]) -> dict[str, str]:
    # A YAML key 1.0 arrives as "1.0"; it also means the value 1, unless that has a name of its own.
    codes = {collapse(code): collapse(name) for code, name in values.items()}
    for code, name in list(codes.items()):
        if re.fullmatch(r"[+-]?[0-9]+\.0+", code):
            codes.setdefault(code.partition(".")[0], name)
    return codes


def collapse(text: str) -> str:
    """A text on one line: each run of white space and control characters is one space, none at the ends."""
    return _BLANKS.sub(" ", text).strip(" ")


def infer_kind(column: Column) -> Kind:
    """The kind of a column by its type; strings are told apart by their length."""
    dtype = column.dtype
    if dtype == pl.Boolean:
        return "boolean"
    if dtype.is_numeric():
        return "number"
    if dtype.is_temporal():
        return "datetime"
    if dtype == pl.String:
        return "text" if _is_prose(column) else "category"
    if isinstance(dtype, (pl.Categorical, pl.Enum)):
        return "category"
    return "nested"


def _is_prose(column: Column) -> bool:
    met = Met()
    for piece in column.pieces():
        values = piece.drop_nulls().unique()
        met.add(values, values.str.len_chars(), values.str.count_matches(r"\S+"))
    _, characters, words = met.rows().T
    if not len(words):
        return False
    return bool(characters.mean() > TEXT_CHARACTERS or words.mean() >= TEXT_WORDS)


def _all_midnight(column: Column) -> bool:
    midnight = time()
    return isinstance(column.dtype, pl.Datetime) and all(
        (piece.drop_nulls().dt.time() == midnight).all() for piece in column.pieces()
    )


def labels(columns: list[str], settings: Mapping[str, ColumnSettings]) -> dict[str, str]:
    """Column -> name in the text: the one that is set, else the column's own with ``_`` read as a space.

    Where that gives two columns one name, their own names stay as they are. Raises ErasmoError
    where two still agree.
    """
    given = {column: settings[column].name for column in columns if column in settings}
    own = {column: collapse(column) or "unnamed" for column in columns}
    wanted = {column: collapse(given.get(column) or own[column].replace("_", " ")) or own[column] for column in columns}
    uses = Counter(wanted.values())
    chosen = {
        column: own[column] if uses[label] > 1 and not given.get(column) else label for column, label in wanted.items()
    }
    for label, count in Counter(chosen.values()).items():
        if count > 1:
            same = [column for column in columns if chosen[column] == label]
            raise ErasmoError(
                f"Got columns {' and '.join(map(shorten, sorted(same)))} with one name in the text, {shorten(label)}",
                expected="a name of its own for each column",
                fix="set columns.<name>.name for one of them",
            )
    return chosen


def check_columns(columns: list[str], settings: DatasetSettings) -> None:
    """Raise ErasmoError where `columns` or `sensitive` name a column that the table lacks."""
    for field, named in (("columns", settings.columns), ("sensitive", settings.sensitive)):
        unknown = sorted(set(named) - set(columns) - settings.excluded)
        if unknown:
            raise ErasmoError(
                f"Got {field} with {', '.join(map(shorten, unknown[:5]))}, which the table lacks",
                expected=f"columns of the table: {some(columns)}",
                fix=f"correct the name under `{field}`",
            )


def some(names: list[str], most: int = 10) -> str:
    """At most ten names, for a message."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(shorten, names[:most])) + more


def shorten(name: str, most: int = 60) -> str:
    """A name in quotes on one line, cut for a message."""
    one_line = re.sub(r"\s+", " ", name)
    return repr(one_line if len(one_line) <= most else one_line[: most - 1] + "…")
