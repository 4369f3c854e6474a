"""Row -> clauses ``<feature> is <value>`` (arXiv 2410.03738, section 3.1).

=========  ================================  ======================================================
kind       which columns, unless set         how a value is written
=========  ================================  ======================================================
number     numeric types; strings with a     integers and decimals exactly (``41``, ``1200.5``);
           `unit`                            fractional floats at `text.decimals` significant
                                             digits, never rounded above their units (``0.333333``);
                                             floats from 1e15 on and below 1e-6 as ``1.5e-7``;
                                             infinities as ``infinity``, ``minus infinity``; a unit
                                             after it (``12.5 percent``, ``12.50 EUR``, ``70 kg``)
category   categorical types; strings that   the text on one line: each run of white space and
           are not text                      control characters becomes one space
boolean    truth values                      ``yes`` or ``no``; with `kind` set also 1/0,
                                             true/false, t/f, yes/no, y/n
datetime   dates, times, durations           ISO 8601 (``2021-03-04T14:30:00``, offset or ``Z`` with
                                             a time zone); the date alone where every time in the
                                             column was midnight when fitted and this one is;
                                             durations as ``1 day 2 hours``
text       strings of more than 40           as a category; never cut, but see `text.summarize`; where
           characters or at least 6 words,   it is the only column, alone: the row is the text, without
           on average of distinct values     ``<feature> is`` before it
nested     lists, structs, binary, objects   compact JSON with sorted keys, dates as ISO text; bytes
                                             as the UTF-8 text they hold, else ``hex 00ff``
missing    null, NaN, blank text, in any     the word of `text.missing`; null there leaves the
                                             clause out
=========  ================================  ======================================================

Coded values (`columns.<name>.values`) come first in every kind. A value that its column's kind
does not fit (text in a column of numbers) is written by its own type. `verbalize` puts the numbers
in words: see :mod:`erasmo_dagster.method.verbalize`. The feature's name is `columns.<name>.name`, or
the column's name with ``_`` read as a space, on one line; names are never put in words. ``yes``,
``infinity``, ``day`` and the like are English in every language; `values` gives others.

Columns are written in ascending order of their number of distinct texts (ties by name), so that
rows share long prefixes; or, where that has fewer tokens of distinct prefixes on a sample of
rows, in an order that :mod:`erasmo_dagster.method.ordering` finds. Neither depends on the order
of the table's rows or columns. Columns that say the same in
every row are left out. Key, label and dropped columns are not looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.cells import coded_texts
from erasmo_dagster.method.columns import Column, ColumnPlan, check_columns, labels, plan_column, shorten, some
from erasmo_dagster.method.distinct import Codes, Met, coded, seldom_repeats
from erasmo_dagster.method.ordering import sample_rows, shared_order
from erasmo_dagster.method.words import known_language
from erasmo_dagster.settings import DatasetSettings, TextSettings

__all__ = [
    "ColumnPlan",
    "TextPlan",
    "fit_text",
    "join_clauses",
    "sample_texts",
    "shuffle_clauses",
    "text_hashes",
    "write_clauses",
]

MASK = "***"
ALL_MISSING = "every value is missing"
ONE_VALUE = "one value in every row"

_PIECE = 2_500_000  # cells that are worked on at once, some 100 MB; each piece of a column has its own cost
_ROWS = 32_768
_HASHED = 4_096  # rows that are Python's at once
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, and half of its bits are set: the golden ratio's


class TextPlan(BaseModel):
    """How the rows of a dataset become text; fitted once, then used unchanged until the next retraining.

    ``columns`` are in canonical order; ``dropped`` says why a column was left out. It holds no
    value of the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[ColumnPlan, ...]
    dropped: dict[str, str]
    settings: TextSettings


def fit_text(frame: pl.DataFrame | pl.LazyFrame, settings: DatasetSettings) -> TextPlan:
    """Fit names, kinds and the canonical order of the columns outside ``settings.excluded``.

    Of a lazy frame one column is read at a time, in pieces, or several that are small, and eight bytes a row are held
    beside: a table may be larger than memory. Raises ErasmoError where the table has no rows, settings name unknown
    columns, two columns have one name in the text, the language is unknown, or no column is left that varies.
    """
    lazy = frame.lazy()
    schema = lazy.collect_schema()
    check_columns(schema.names(), settings)
    rows = frame.height if isinstance(frame, pl.DataFrame) else int(lazy.select(pl.len()).collect().item())
    if not rows:
        raise ErasmoError("Got a table without rows", expected="at least two", fix="check `source` in the dataset")
    features = sorted(set(schema.names()) - settings.excluded)
    names = labels(features, settings.columns)
    distinct: dict[str, int] = {}
    plans: dict[str, ColumnPlan] = {}
    dropped: dict[str, str] = {}
    hashes = np.full(rows, np.random.default_rng(settings.seed).integers(2**64, dtype=np.uint64))
    for column in _columns(frame, features, rows):
        plan = plan_column(column, names[column.name], settings)
        met, missing = _texts_met(column, plan, settings.text, hashes)
        distinct[column.name] = met
        if met > 1:
            plans[column.name] = plan
        else:
            dropped[column.name] = ALL_MISSING if missing else ONE_VALUE
    if not plans:
        reasons = ", ".join(f"{shorten(name)} ({reason})" for name, reason in list(dropped.items())[:10])
        raise ErasmoError(
            f"Got no column to write as text beside key, label and drop: {reasons or 'there are no others'}",
            expected="at least one whose values differ",
            fix="check `source`, `key` and `drop` in the dataset",
        )
    if any(plan.verbalize for plan in plans.values()):
        known_language(settings.text.language)
    order = sorted(plans, key=lambda feature: (distinct[feature], feature))
    if len(sample := sample_rows(hashes, len(plans))):
        columns = _columns(frame, list(plans), rows)
        texts = {column.name: _sampled(column, plans[column.name], settings.text, sample) for column in columns}
        order = shared_order(order, texts, names)
    return TextPlan(columns=tuple(plans[feature] for feature in order), dropped=dropped, settings=settings.text)


def _columns(frame: pl.DataFrame | pl.LazyFrame, names: Sequence[str], rows: int) -> Iterator[Column]:
    """The columns of these names; of a lazy frame those that are small are read several at once."""
    schema = frame.collect_schema()
    at_once = max(_ROWS // rows, 1)
    for start in range(0, len(names), at_once):
        own = names[start : start + at_once]
        some = frame.select(own).lazy().collect() if rows <= _ROWS else frame.select(own)
        for name in own:
            yield Column(name, schema[name], partial(_pieces, some, name, rows))


def _pieces(table: pl.DataFrame | pl.LazyFrame, name: str, rows: int) -> Iterator[pl.Series]:
    for start in range(0, rows, _ROWS):
        if isinstance(table, pl.DataFrame):
            yield table[name].slice(start, _ROWS)
        else:
            yield table.select(name).slice(start, _ROWS).collect().to_series()


def _texts_met(
    column: Column, plan: ColumnPlan, settings: TextSettings, hashes: npt.NDArray[np.uint64]
) -> tuple[int, bool]:
    """How many distinct texts a column has, missing as one of them, and whether one is; ``hashes`` take them in."""
    met, missing, start = Met(), False, 0
    for piece in column.pieces():
        texts, codes = coded_texts(piece, _in_digits(plan), settings)
        met.add(texts.unique())
        missing |= texts.null_count() > 0
        rows = hashes[start : start + len(piece)]
        rows *= _FACTOR
        rows += texts.hash().to_numpy()[codes]
        rows ^= rows >> np.uint64(32)
        start += len(piece)
    return len(met.rows()), missing


def _sampled(column: Column, plan: ColumnPlan, settings: TextSettings, sample: npt.NDArray[np.int64]) -> pl.Series:
    """The texts of the rows at ``sample`` (ascending), null for a clause left out."""
    values, start = [], 0
    for piece in column.pieces():
        first, end = np.searchsorted(sample, (start, start + len(piece)))
        values.append(piece.gather(sample[first:end] - start))
        start += len(piece)
    texts, codes = coded_texts(pl.concat(values), _in_digits(plan), settings)
    texts = texts.gather(codes)
    return texts if settings.missing is None else texts.fill_null(settings.missing)


def _in_digits(plan: ColumnPlan) -> ColumnPlan:
    """Words tell the same values apart as digits do, and cost more."""
    return plan.model_copy(update={"verbalize": False})


def write_clauses(frame: pl.DataFrame, plan: TextPlan) -> pl.Series:
    """The clauses of every row in canonical order: List(String), as long as the frame.

    A row's clauses depend on that row and the plan alone. Raises ErasmoError where the frame lacks
    a planned column.
    """
    return _clauses(frame, plan, masked=False)


def join_clauses(clauses: Sequence[str]) -> str:
    """One row's text: its clauses, joined by a comma and a space."""
    return ", ".join(clauses)


def shuffle_clauses(clauses: Sequence[str], rng: np.random.Generator) -> list[str]:
    """One row's clauses in a random order (feature permutation, arXiv 2410.03738, section 3.1).

    Call it anew for every row and epoch of training.
    """
    return [clauses[i] for i in rng.permutation(len(clauses))]


def text_hashes(clauses: pl.Series) -> pl.Series:
    """A hash of every row's clauses, 32 hexadecimal digits, the same in every release and on every machine."""
    pieces = [_piece_hashes(clauses.slice(start, _ROWS)) for start in range(0, len(clauses), _ROWS)]
    return pl.concat([pl.Series("text_hash", [], dtype=pl.String), *pieces])


def _piece_hashes(clauses: pl.Series) -> pl.Series:
    # No clause holds a control character, so this one cannot make two rows alike.
    rows = clauses.list.join("\x1f").cast(pl.Binary)
    if seldom_repeats(rows):
        return _hashes(rows)
    each, codes = coded(rows)
    return _hashes(each).gather(codes)


def _hashes(rows: pl.Series) -> pl.Series:
    pieces = (rows.slice(start, _HASHED).to_list() for start in range(0, len(rows), _HASHED))
    digests = [blake2b(row, digest_size=16).digest() for piece in pieces for row in piece]
    return pl.Series("text_hash", digests, dtype=pl.Binary).bin.encode("hex")


def sample_texts(frame: pl.DataFrame, plan: TextPlan, n: int, seed: int) -> list[str]:
    """Texts of at most ``n`` random rows, fit to be shown: sensitive columns read ``***`` in every row.

    Only whole columns are masked. What a free text in another column says is not searched.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(frame.height)[:n])
    return [join_clauses(clauses) for clauses in _clauses(frame[rows], plan, masked=True).to_list()]


def _clauses(frame: pl.DataFrame, plan: TextPlan, *, masked: bool) -> pl.Series:
    lacking = [column.name for column in plan.columns if column.name not in frame.columns]
    if lacking:
        raise ErasmoError(
            f"Got a table without {some(lacking)}",
            expected=f"the columns that the text was fitted on: {some([column.name for column in plan.columns])}",
            fix="bring them back in `source`, or retrain the dataset",
        )
    if not frame.height:
        return pl.Series("clauses", [], dtype=pl.List(pl.String))
    pieces = frame.iter_slices(max(_PIECE // len(plan.columns), 1))
    return pl.concat([_piece_clauses(piece, plan, masked=masked) for piece in pieces])


def _piece_clauses(frame: pl.DataFrame, plan: TextPlan, *, masked: bool) -> pl.Series:
    # One dictionary of all columns' clauses and the place of each cell's there: rows are put together from numbers.
    alone = len(plan.columns) == 1 and plan.columns[0].kind == "text"
    cells = np.empty((frame.height, len(plan.columns)), dtype=np.uint32)
    dictionary: list[pl.Series] = []
    size = 0
    for i, column in enumerate(plan.columns):
        clauses, codes = _column_clauses(frame[column.name], column, plan.settings, masked=masked, bare=alone)
        np.add(codes, size, out=cells[:, i], casting="unsafe")
        dictionary.append(clauses)
        size += len(clauses)
    written = pl.concat(dictionary, rechunk=True).gather(cells.reshape(-1))
    rows = written.reshape(cells.shape).arr.to_list().alias("clauses")
    return rows.list.drop_nulls() if plan.settings.missing is None else rows


def _column_clauses(
    series: pl.Series, column: ColumnPlan, settings: TextSettings, *, masked: bool, bare: bool
) -> tuple[pl.Series, Codes]:
    if masked and column.sensitive:
        texts, codes = pl.Series([MASK]), np.zeros(len(series), dtype=np.uint32)
    else:
        texts, codes = coded_texts(series, column, settings)
        if settings.missing is not None:
            texts = texts.fill_null(settings.missing)
    return (texts if bare else f"{column.label} is " + texts).alias(""), codes
