"""Columns as what a decision tree splits by: numbers as they are, categories and texts as questions of yes or no."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.measures.rows import Ints
from erasmo_dagster.method.profiling.prepare import CategoryColumn, Column, NumberColumn, TextColumn
from erasmo_dagster.method.profiling.terms import stop_words, terms_of

Values = npt.NDArray[np.float32]

_MOST_VALUES = 30  # of a category
_MOST_TERMS = 50  # of a text
_VOCABULARY = 20_000
_LEAST_TEXTS = 2  # that a term must be in


@dataclass(frozen=True, eq=False)
class Feature:
    """``values`` float32[n]: of a number its place among the sorted ``distinct`` ones, NaN where missing.

    Else 1 where a category is the value ``code`` (-1 is missing), or where a text has the ``term``. A tree sees no more
    of numbers than their order, and 32 bits hold every place exactly.
    """

    column: Column
    values: Values
    distinct: tuple[float, ...] = ()
    code: int = -1
    term: str = ""


def plain_features(columns: Sequence[Column]) -> list[Feature]:
    """Those of numbers, moments and categories that vary; of a category its 30 most frequent values and missing."""
    found: list[Feature] = []
    for column in columns:
        if isinstance(column, NumberColumn):
            found += _number(column)
        elif isinstance(column, CategoryColumn):
            found += _values(column)
    return found


@dataclass(frozen=True, eq=False)
class Terms:
    """Which text of a column has which term: a sparse matrix [n, terms] of ones; ``names`` are sorted."""

    column: TextColumn
    has: Any
    names: tuple[str, ...]

    def telling(self, rows: Ints, segments: Ints) -> list[Feature]:
        """At most 50 terms by which ``segments`` int64[m] of ``rows`` int64[m] differ most; others have no say.

        By the chi-squared statistic (Pearson, 1900) of having the term and the segment.
        """
        from scipy.sparse import csr_matrix

        total, ids = len(rows), int(segments.max()) + 1
        sums = csr_matrix((np.ones(total), (segments, np.arange(total))), (ids, total))
        here = np.asarray((sums @ self.has[rows]).todense())
        having, sizes = here.sum(axis=0), np.bincount(segments, minlength=ids)[:, None]
        usual = (having >= _LEAST_TEXTS) & (having < total)
        expected = np.maximum(sizes * having / total, 1e-300)
        squares = np.where(sizes > 0, (here - expected) ** 2 / expected, 0).sum(axis=0)
        # Those without the term add as much as their number against those with it.
        statistic = np.where(usual, squares * total / np.maximum(total - having, 1), 0)
        order = np.argsort(-statistic.round(9), kind="stable")[:_MOST_TERMS]
        chosen = [int(i) for i in order if statistic[i] > 0]
        table = self.has[:, chosen].toarray().astype(np.float32)
        return [Feature(self.column, table[:, at], term=self.names[i]) for at, i in enumerate(chosen)]


def terms_in(column: TextColumn) -> Terms | None:
    """The words of a column's texts, without stop words; at most 20,000. None where no two texts share one."""
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    present = np.flatnonzero(~column.missing)
    stop = stop_words()

    def words(text: str) -> list[str]:
        # No pairs of words: they take most of the time, and a tree of words can ask for both.
        return [term for term in terms_of(text, stop) if " " not in term]

    vectorizer = CountVectorizer(analyzer=words, binary=True, min_df=_LEAST_TEXTS, max_features=_VOCABULARY)
    try:
        has = vectorizer.fit_transform(column.words.drop_nulls().to_list())
    except ValueError:  # no term is left
        return None
    rows = len(column.words)
    spread = csr_matrix((np.ones(len(present), np.int64), (present, np.arange(len(present)))), (rows, len(present)))
    return Terms(column, (spread @ has).tocsr(), tuple(vectorizer.get_feature_names_out().tolist()))


def _number(column: NumberColumn) -> list[Feature]:
    absent = np.isnan(column.values)
    distinct, places = np.unique(column.values[~absent], return_inverse=True)
    if len(distinct) < 2 and not (len(distinct) and absent.any()):
        return []
    values: Values = np.full(len(absent), np.nan, np.float32)
    values[~absent] = places
    return [Feature(column, values, distinct=tuple(distinct.tolist()))]


def _values(column: CategoryColumn) -> list[Feature]:
    counts = np.bincount(column.codes + 1, minlength=len(column.names) + 1)
    if np.count_nonzero(counts) < 2:
        return []
    order = np.argsort(-counts[1:], kind="stable")[:_MOST_VALUES]
    kept = [int(code) for code in order if counts[code + 1]] + ([-1] if counts[0] else [])
    return [Feature(column, (column.codes == code).astype(np.float32), code=code) for code in kept]
