"""One column of values -> one column of texts, null where the value is missing.

Every distinct value is written once, so a column of a million rows and forty values costs forty conversions; where
values hardly repeat, polars writes whole columns, and Python the few values that need a closer look.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan, code_of, collapse
from erasmo_dagster.method.digits import NUMBER, decimal_digits, exact, float_digits, write_digits
from erasmo_dagster.method.distinct import Codes, coded, seldom_repeats
from erasmo_dagster.method.verbalize import (
    is_currency,
    unit_word,
    verbalize_datetime,
    verbalize_digits,
    verbalize_number,
    verbalize_text,
)
from erasmo_dagster.settings import TextSettings

_TRUTH = dict.fromkeys(("true", "t", "yes", "y", "1"), "yes") | dict.fromkeys(("false", "f", "no", "n", "0"), "no")
_PER_SECOND = {"ns": 10**9, "us": 10**6, "ms": 10**3}


def column_texts(series: pl.Series, column: ColumnPlan, settings: TextSettings) -> pl.Series:
    """The text of every value of a column: String, null where the value is missing."""
    texts, codes = coded_texts(series, column, settings)
    return texts.gather(codes).alias(series.name)


def coded_texts(series: pl.Series, column: ColumnPlan, settings: TextSettings) -> tuple[pl.Series, Codes]:
    """Texts, null among them where a value is missing, and the place of each row's text there.

    Texts may repeat: those of ``1`` and ``1.0`` are the same. Columns whose values hardly repeat, and are written
    without looking at each, have one text a row.
    """
    if _in_columns(series.dtype, column) and seldom_repeats(series):
        return _texts(series, column, settings), np.arange(len(series), dtype=np.uint32)
    values, codes = coded(series)
    return _texts(values, column, settings), codes


def _in_columns(dtype: pl.DataType, column: ColumnPlan) -> bool:
    """Whether a column's values are written by expressions, but for a few."""
    if column.values or column.verbalize or column.kind == "boolean":
        return False
    return dtype.is_numeric() or (dtype == pl.String and column.kind != "number")


def _texts(values: pl.Series, column: ColumnPlan, settings: TextSettings) -> pl.Series:
    plain = _plain(values, column, settings)
    texts = _at_once(plain, column, settings)
    left = plain.is_not_null() & texts.is_null()
    if not left.any():
        return texts
    each, codes = coded(plain.filter(left))
    written = pl.Series([write_value(value, column, settings) for value in each.to_list()], dtype=pl.String)
    place = np.arange(len(texts))
    place[left.to_numpy()] = len(texts) + codes.astype(np.int64)
    return pl.concat([texts, written]).gather(place)


def _at_once(plain: pl.Series, column: ColumnPlan, settings: TextSettings) -> pl.Series:
    """:func:`write_value` of all values by expressions; null where it has to look at the value itself."""
    dtype = plain.dtype
    none = pl.Series([None], dtype=pl.String).new_from_index(0, len(plain))
    if column.values or column.kind == "boolean" or (dtype == pl.String and column.kind == "number"):
        return none
    if dtype == pl.String:
        if not column.verbalize:
            return plain
        return none if column.kind == "nested" else none.zip_with(plain.str.contains("[0-9]").fill_null(True), plain)
    if dtype.is_float():
        digits = float_digits(plain, settings.decimals)
    elif dtype.is_decimal():
        digits = decimal_digits(plain)
    elif dtype.is_integer():
        digits = plain.cast(pl.String)
    else:
        return none
    unit = column.unit if column.kind == "number" else None
    if column.verbalize:
        if unit and is_currency(unit):
            return none
        digits = verbalize_digits(digits, settings.language)
    elif unit and is_currency(unit):
        digits = digits.zip_with(~digits.str.contains(r"\.[0-9]$"), digits + "0")
    if unit is None or digits.null_count() == len(digits):
        return digits
    return digits + f" {unit_word(unit, settings.language)}"


def write_value(value: bool | int | float | Decimal | str, column: ColumnPlan, settings: TextSettings) -> str:
    """The text of one value that is not missing; dates, durations and nested values come as text."""
    say = partial(verbalize_text, language=settings.language) if column.verbalize else str
    code = code_of(value) if column.values or column.kind == "boolean" else ""
    if code in column.values:
        return say(column.values[code])
    if column.kind == "boolean" and code.lower() in _TRUTH:
        return _TRUTH[code.lower()]
    if column.kind == "number" and isinstance(value, (bool, str)):
        value = _as_number(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, float, Decimal)):
        return _write_number(value, column, settings)
    if column.verbalize and column.kind == "datetime":
        return verbalize_datetime(value, settings.language)
    if column.verbalize and column.kind == "nested":
        return _nested_in_words(value, settings.language)
    return say(value)


def _as_number(value: bool | str) -> int | Decimal | str:
    """A number where the value is one; else the text, as it is."""
    if isinstance(value, bool):
        return int(value)
    return Decimal(value) if NUMBER.fullmatch(value) else value


def _write_number(value: int | float | Decimal, column: ColumnPlan, settings: TextSettings) -> str:
    if isinstance(value, float) and math.isinf(value):
        return "infinity" if value > 0 else "minus infinity"
    unit = column.unit if column.kind == "number" else None
    if column.verbalize:
        return verbalize_number(value, settings.language, unit, settings.decimals)
    digits = write_digits(value, settings.decimals)
    if unit is None:
        return digits
    if is_currency(unit) and "e" not in digits and len(digits.partition(".")[2]) == 1:
        digits += "0"
    return f"{digits} {unit_word(unit, settings.language)}"


def _plain(series: pl.Series, column: ColumnPlan, settings: TextSettings) -> pl.Series:
    """The column as String, Boolean or number; null where missing (null, NaN, blank text)."""
    dtype = series.dtype
    if dtype == pl.Boolean or dtype.is_integer() or dtype.is_decimal():
        return series
    if dtype.is_float():
        # By way of text a 32-bit 0.1 stays 0.1 and does not become 0.10000000149.
        wide = series if dtype == pl.Float64 else series.cast(pl.String).cast(pl.Float64)
        return wide.fill_nan(None)
    if dtype.is_temporal():
        return _iso(series, column)
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        one_line = series.cast(pl.String).str.replace_all(r"[\s\p{Cc}]+", " ").str.strip_chars(" ")
        return one_line.replace("", None)
    return _each(series, partial(_nested, decimals=settings.decimals))


def _each(series: pl.Series, write: Callable[[Any], str]) -> pl.Series:
    """The texts of values by a function; null where the value is missing or its text empty."""
    texts = [None if value is None else write(value) or None for value in series.to_list()]
    return pl.Series(series.name, texts, dtype=pl.String)


def _iso(series: pl.Series, column: ColumnPlan) -> pl.Series:
    dtype = series.dtype
    if isinstance(dtype, pl.Duration):
        return _each(series.to_physical(), partial(_duration, per_second=_PER_SECOND[dtype.time_unit]))
    if isinstance(dtype, pl.Date):
        return series.dt.strftime("%Y-%m-%d")
    if not isinstance(dtype, pl.Datetime):
        return series.dt.strftime("%H:%M:%S%.f")
    zone = {None: "", "UTC": "Z"}.get(dtype.time_zone, "%:z")
    moments = series.dt.strftime(f"%Y-%m-%dT%H:%M:%S%.f{zone}")
    if not column.dates_only:
        return moments
    return moments.zip_with(series.dt.time() != time(), series.dt.strftime("%Y-%m-%d"))


def _duration(amount: int, per_second: int) -> str:
    """``1 day 2 hours 4.5 seconds``; parts that are zero are left out."""
    seconds, rest = divmod(abs(amount), per_second)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    exact_seconds = Decimal(seconds) + Decimal(rest) / per_second
    amounts = ((days, "day"), (hours, "hour"), (minutes, "minute"), (exact_seconds, "second"))
    said = [f"{write_digits(n, 17)} {name}{'' if n == 1 else 's'}" for n, name in amounts if n]
    return ("minus " if amount < 0 else "") + (" ".join(said) or "0 seconds")


def _nested(value: Any, decimals: int) -> str:
    """Compact JSON with sorted keys; text and bytes that stand alone without quotes."""
    ready = _jsonable(value, decimals)
    return ready if isinstance(ready, str) else _json(ready)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _jsonable(value: Any, decimals: int) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, (float, Decimal)):
        return _json_number(value, decimals)
    if isinstance(value, dict):
        return {str(key): _jsonable(item, decimals) for key, item in value.items()}
    if isinstance(value, (list, tuple, pl.Series)):
        return [_jsonable(item, decimals) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_jsonable(item, decimals) for item in value), key=_json)
    if isinstance(value, timedelta):
        return _duration(value // timedelta(microseconds=1), 10**6)
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return _bytes(bytes(value))
    return collapse(str(value))


def _json_number(value: float | Decimal, decimals: int) -> int | float | str | None:
    if not math.isfinite(value):
        return None if math.isnan(value) else "infinity" if value > 0 else "minus infinity"
    number = exact(value, decimals)
    if number == number.to_integral_value() and abs(number) < 10**15:
        return int(number)
    # JSON of the standard library has no exact decimals: what a float cannot hold is written as text.
    return float(number) if Decimal(repr(float(number))) == number else write_digits(number, decimals)


def _bytes(value: bytes) -> str:
    try:
        return collapse(value.decode("utf-8"))
    except UnicodeDecodeError:
        return f"hex {value.hex()}"


def _nested_in_words(text: str, language: str) -> str:
    """JSON with its numbers in words, keys unchanged; what is no list or object goes as text."""
    try:
        value = json.loads(text, parse_float=Decimal)
    except ValueError:
        value = None
    if not isinstance(value, (dict, list)):
        return verbalize_text(text, language)
    return _json(_in_words(value, language))


def _in_words(value: Any, language: str) -> Any:
    if isinstance(value, dict):
        return {key: _in_words(item, language) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_words(item, language) for item in value]
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool):
        return verbalize_number(value, language)
    return verbalize_text(value, language) if isinstance(value, str) else value
