"""Columns of a table as arrays: what profiles, rules and counts are computed from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.cells import column_texts
from erasmo_dagster.method.columns import ColumnPlan, code_of
from erasmo_dagster.method.profiling.results import NOISE
from erasmo_dagster.method.profiling.shown import VALUE_LENGTH, clean, label_of
from erasmo_dagster.settings import TextSettings

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_PER_SECOND = {"ns": 1e9, "us": 1e6, "ms": 1e3}
# Seconds of the years 1 to 9999, and of what 64 bits of microseconds hold. Beyond them databases keep their "infinity",
# and polars ends the process when it is to write a date.
_CALENDAR = (-62_135_596_800.0, 253_402_300_799.0)
_SPAN = (-9e12, 9e12)
_MOST_CODED = 50  # distinct values of a column of numbers whose codes have names


class Table(Protocol):
    """A table that is asked for one column at a time: a frame is one, and so is what reads columns from a file."""

    @property
    def height(self) -> int:
        """Rows."""
        ...

    def __getitem__(self, name: str, /) -> pl.Series:
        """A column of as many values."""
        ...


@dataclass(frozen=True, eq=False)
class NumberColumn:
    """Numbers, or moments in seconds: ``values`` float64[n], NaN where missing. ``dtype`` is that of the moments."""

    plan: ColumnPlan
    label: str
    values: Floats
    dtype: pl.DataType | None = None

    @property
    def missing(self) -> Mask:
        """bool[n]."""
        return np.asarray(np.isnan(self.values))


@dataclass(frozen=True, eq=False)
class CategoryColumn:
    """Values in human words: ``codes`` int64[n] into ``names``, which are sorted; -1 where missing."""

    plan: ColumnPlan
    label: str
    codes: Ints
    names: tuple[str, ...]

    @property
    def missing(self) -> Mask:
        """bool[n]."""
        return self.codes < 0


@dataclass(frozen=True, eq=False)
class TextColumn:
    """Free text as words between single spaces, one at each end (:func:`words_of`); null where missing."""

    plan: ColumnPlan
    label: str
    words: pl.Series

    @property
    def missing(self) -> Mask:
        """bool[n]."""
        return np.asarray(self.words.is_null().to_numpy(), dtype=bool)

    def holds(self, term: str, rows: Ints | None = None) -> Mask:
        """Which rows mention a term: bool[n], or of ``rows`` alone."""
        words = self.words if rows is None else self.words[rows]
        return np.asarray(words.str.contains(f" {term} ", literal=True).fill_null(False).to_numpy(), dtype=bool)


Column = NumberColumn | CategoryColumn | TextColumn


@dataclass(frozen=True, eq=False)
class Membership:
    """``codes`` int64[n]: each row's place in ``ids``, which are sorted with noise last; ``sizes`` int64[k]."""

    codes: Ints
    ids: tuple[int, ...]
    sizes: Ints

    def of(self, place: int) -> Mask:
        """The rows of one segment: bool[n]."""
        return np.asarray(self.codes == place)


def memberships(segment_ids: npt.NDArray[np.integer], rows: int) -> Membership:
    """Raises ValueError where there is not one id a row."""
    if segment_ids.shape != (rows,):
        raise ValueError(f"got segment ids of shape {segment_ids.shape} for {rows} rows")
    ids, codes = np.unique(segment_ids.astype(np.int64), return_inverse=True)
    if len(ids) and ids[0] == NOISE:
        ids, codes = np.roll(ids, -1), (codes - 1) % len(ids)
    return Membership(codes, tuple(int(i) for i in ids), np.bincount(codes, minlength=len(ids)).astype(np.int64))


def prepare(frame: Table, columns: Sequence[ColumnPlan], *, texts: bool = True) -> list[Column]:
    """The columns that may be told of, in the order given; sensitive and nested ones may not.

    Numbers and moments as by :func:`erasmo_dagster.method.gower.gower_distances`: what does not read as one is missing,
    infinities count as the finite extremes. Numbers of which at least half have names (`values`) are categories.
    Strings are cut to ``VALUE_LENGTH`` characters. With ``texts=False`` free text is left out as well.
    """
    told: list[Column] = []
    for plan in columns:
        if plan.sensitive or plan.kind == "nested" or (plan.kind == "text" and not texts):
            continue
        series = frame[plan.name]
        if plan.kind == "text":
            told.append(TextColumn(plan, label_of(plan), words_of(_written(series, plan))))
        elif plan.kind == "datetime":
            told.append(NumberColumn(plan, label_of(plan), *_moments(series)))
        elif plan.kind == "number" and not _is_coded(series, plan):
            told.append(NumberColumn(plan, label_of(plan), _clipped(_numbers(series))))
        else:
            told.append(_category(series, plan))
    return told


def words_of(texts: pl.Series) -> pl.Series:
    """Texts in lower case, the words between single spaces; other signs than hyphens stand as ``|`` between words."""
    return (
        " "
        + texts.str.to_lowercase()
        .str.replace_all("’", "'", literal=True)
        .str.replace_all(r"[-‐‑_\s]+", " ")
        .str.replace_all(r"[^\w\s']+|\B'+|'+\B", " | ")
        .str.replace_all(r"\s+", " ")
        .str.strip_chars(" ")
        + " "
    )


def _written(series: pl.Series, plan: ColumnPlan) -> pl.Series:
    return column_texts(series, plan.model_copy(update={"verbalize": False, "unit": None}), TextSettings())


def _category(series: pl.Series, plan: ColumnPlan) -> CategoryColumn:
    texts = _written(series, plan)
    distinct = texts.drop_nulls().unique().to_list()
    short = {text: clean(text, VALUE_LENGTH) for text in distinct}
    names = tuple(sorted(set(short.values()) - {""}))
    place = {name: index for index, name in enumerate(names)}
    table = pl.DataFrame(
        {"value": distinct, "code": [place.get(short[text], -1) for text in distinct]},
        schema={"value": pl.String, "code": pl.Int64},
    )
    joined = texts.alias("value").to_frame().join(table, on="value", how="left", maintain_order="left")["code"]
    return CategoryColumn(plan, label_of(plan), joined.fill_null(-1).to_numpy().astype(np.int64), names)


def _is_coded(series: pl.Series, plan: ColumnPlan) -> bool:
    if not plan.values:
        return False
    distinct = series.drop_nulls().unique()
    if len(distinct) > _MOST_CODED:
        return False
    values = [value for value in distinct.to_list() if value == value]
    return 2 * sum(code_of(value) in plan.values for value in values) >= len(values) > 0


def _numbers(series: pl.Series) -> Floats:
    dtype = series.dtype
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        series = series.cast(pl.String).str.strip_chars()
    elif dtype.is_float() and dtype != pl.Float64:
        series = series.cast(pl.String)  # a 32-bit 0.1 stays 0.1
    elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return np.full(len(series), np.nan)
    return _floats(series.cast(pl.Float64, strict=False))


def _floats(series: pl.Series) -> Floats:
    values: Floats = series.fill_null(np.nan).to_numpy().astype(np.float64)
    return values + 0.0  # minus zero is zero


def _clipped(values: Floats) -> Floats:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.sign(values)  # only infinities: those of one sign are alike
    return values.clip(finite.min(), finite.max())


def _moments(series: pl.Series) -> tuple[Floats, pl.DataType]:
    dtype = series.dtype
    if isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        series = _read_moments(series.cast(pl.String))
        dtype = series.dtype
    if not dtype.is_temporal():
        return np.full(len(series), np.nan), pl.Datetime("us")
    per_second = 1e9
    if isinstance(dtype, pl.Date):
        per_second = 1 / 86_400
    elif isinstance(dtype, (pl.Datetime, pl.Duration)):
        per_second = _PER_SECOND[dtype.time_unit]
    seconds = _floats(series.to_physical().cast(pl.Float64)) / per_second
    low, high = _SPAN if isinstance(dtype, pl.Duration) else _CALENDAR
    seconds[seconds < low], seconds[seconds > high] = -np.inf, np.inf
    return _clipped(seconds), dtype


def _read_moments(texts: pl.Series) -> pl.Series:
    """Texts in ISO 8601 as moments, null where they are none; days alone where no text has a time."""
    read: dict[str, datetime] = {}
    for text in texts.drop_nulls().unique().to_list():
        try:
            when = datetime.fromisoformat(text.strip())
        except ValueError:
            continue
        read[text] = when.astimezone(UTC).replace(tzinfo=None) if when.tzinfo else when
    table = pl.DataFrame(
        {"text": list(read), "when": list(read.values())}, schema={"text": pl.String, "when": pl.Datetime("us")}
    )
    joined = texts.alias("text").to_frame().join(table, on="text", how="left", maintain_order="left")["when"]
    return joined.cast(pl.Date) if all(when.time() == datetime.min.time() for when in read.values()) else joined


def canonical_sample(columns: Sequence[Column], members: Membership, *, most: int, seed: int) -> Ints:
    """Rows int64[m] of a sample, in an order that follows from what the rows hold and not from where they stand.

    Beyond ``most`` rows each segment gives its share, but at least ``most / (4 k)`` where it has as many.
    """
    keys = _row_keys(columns, members, seed)
    order = np.argsort(keys, kind="stable")
    total, segments = len(order), len(members.ids)
    if total <= most or not segments:
        return order
    kept = []
    for place, size in enumerate(members.sizes.tolist()):
        rows = order[members.codes[order] == place]
        kept.append(rows[: min(size, max(1, round(most * size / total), most // (4 * segments)))])
    chosen = np.zeros(total, dtype=bool)
    chosen[np.concatenate(kept)] = True
    return order[chosen[order]]


def _row_keys(columns: Sequence[Column], members: Membership, seed: int) -> npt.NDArray[np.uint64]:
    # Ranks of the values and not their hashes, which change with the release of a library.
    keys = _mix(np.full(len(members.codes), seed % 2**64, dtype=np.uint64) + members.codes.astype(np.uint64))
    for column in columns:
        if isinstance(column, CategoryColumn):
            ranks = column.codes
        elif isinstance(column, NumberColumn):
            ranks = np.unique(column.values, return_inverse=True)[1].astype(np.int64)
        else:
            ranks = column.words.rank("dense").fill_null(0).to_numpy().astype(np.int64)
        keys = _mix(keys ^ ranks.astype(np.uint64))
    # Equal rows get keys of their own, else a sample would take all of them or none.
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(order) else np.zeros(0, np.int64)
    nth = np.empty(len(order), dtype=np.uint64)
    nth[order] = np.arange(len(order)) - np.repeat(starts, np.diff(np.r_[starts, len(order)]))
    return _mix(keys + nth)


def _mix(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea and Flood, 2014, "Fast splittable pseudorandom number generators", figure 17)."""
    keys = keys + np.uint64(0x9E3779B97F4A7C15)
    keys = (keys ^ (keys >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    keys = (keys ^ (keys >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return keys ^ (keys >> np.uint64(31))
