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
rows share long prefixes. Columns that say the same in every row are left out. Key, label and
dropped columns are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.cells import column_texts
from erasmo_dagster.method.columns import ColumnPlan, check_columns, labels, plan_column, shorten, some
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


class TextPlan(BaseModel):
    """How the rows of a dataset become text; fitted once, then used unchanged until the next retraining.

    ``columns`` are in canonical order; ``dropped`` says why a column was left out. It holds no
    value of the data.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    columns: tuple[ColumnPlan, ...]
    dropped: dict[str, str]
    settings: TextSettings


def fit_text(frame: pl.DataFrame, settings: DatasetSettings) -> TextPlan:
    """Fit names, kinds and the canonical order of the columns outside ``settings.excluded``.

    Raises ErasmoError where the table has no rows, settings name unknown columns, two columns have
    one name in the text, the language is unknown, or no column is left that varies.
    """
    check_columns(frame, settings)
    if frame.is_empty():
        raise ErasmoError("Got a table without rows", expected="at least two", fix="check `source` in the dataset")
    features = sorted(set(frame.columns) - settings.excluded)
    names = labels(features, settings.columns)
    distinct: dict[str, int] = {}
    plans: dict[str, ColumnPlan] = {}
    dropped: dict[str, str] = {}
    for feature in features:
        plan = plan_column(frame[feature], names[feature], settings)
        # Words tell the same values apart as digits do, and cost more.
        texts = column_texts(frame[feature], plan.model_copy(update={"verbalize": False}), settings.text)
        distinct[feature] = texts.n_unique()
        if distinct[feature] > 1:
            plans[feature] = plan
        else:
            dropped[feature] = ALL_MISSING if texts.null_count() else ONE_VALUE
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
    return TextPlan(columns=tuple(plans[feature] for feature in order), dropped=dropped, settings=settings.text)


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
    # No clause holds a control character, so this one cannot make two rows alike.
    rows = clauses.list.join("\x1f").to_list()
    hashes = [blake2b(row.encode("utf-8"), digest_size=16).hexdigest() for row in rows]
    return pl.Series("text_hash", hashes, dtype=pl.String)


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
    alone = len(plan.columns) == 1 and plan.columns[0].kind == "text"
    columns = [
        _column_clauses(frame[c.name], c, plan.settings, masked=masked, bare=alone).alias(str(i))
        for i, c in enumerate(plan.columns)
    ]
    return pl.DataFrame(columns).select(clauses=pl.concat_list(pl.all()).list.drop_nulls())["clauses"]


def _column_clauses(
    series: pl.Series, column: ColumnPlan, settings: TextSettings, *, masked: bool, bare: bool
) -> pl.Series:
    if masked and column.sensitive:
        texts = pl.Series([MASK]).new_from_index(0, len(series))
    else:
        texts = column_texts(series, column, settings)
        if settings.missing is not None:
            texts = texts.fill_null(settings.missing)
    return texts if bare else f"{column.label} is " + texts
