"""How far rows lie apart by the source's own columns, whatever a language model made of them.

Gower (1971), "A General Coefficient of Similarity and Some of Its Properties", Biometrics 27: the mean over the columns
of a dissimilarity between 0 and 1 that suits each column's kind. Missing values count otherwise than there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan, code_of
from erasmo_dagster.method.profiling.prepare import TextColumn, prepare

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.integer]

_MEASURED = ("number", "datetime")
_NAMED = ("category", "boolean")
# Not nested: nearly every pair of them differs, which would add the same distance to all.
_CHARACTERS = (400, 4_000)  # of a text that are read, least and most
_ALL_CHARACTERS = 5_000_000  # of all texts of a column; the words of a million characters take some tenths of a second
_ROWS_AT_ONCE = 500
_ROUNDING = 1e-6  # of the cosine of equal texts in 32 bits
# Scripts that put no spaces between words: Thai to Burmese, Khmer, Japanese and Chinese.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]")


def gower_distances(frame: pl.DataFrame, columns: Sequence[ColumnPlan]) -> Floats | None:
    """Dissimilarities float32[n, n] between the rows of ``frame``: symmetric, 0 to 1, 0 on the diagonal.

    The mean over ``columns``, which ``frame`` holds by their names: |a - b| / range for numbers and moments, where the
    range is that of the rows given and infinities count as the finite extremes; 0 for equal texts and 1 for others in
    categories and booleans; for free text 1 - cosine of the TF-IDF vectors of its words (:func:`text_weights`), weighed
    by the rows given: 0 for the same words and 1 where no word is shared. Nested values are left out.

    Where one row of a pair lacks a column, or both do, the column counts for it with its mean dissimilarity over the
    pairs that have it. Gower leaves it out there: then rows without a text, in which all others differ, are nearer to
    everything than any two rows with one, and segments of such rows are taken for bad. Missing are null, NaN, blank
    text, free text without a word, and text where a number or a moment is due that does not read as a number. A column
    that fewer than two rows have counts for no pair.

    None where every column is so. An array of n x n is held, and twice as much again for a column at work; of texts no
    more than a few million characters are read (:func:`text_columns`).
    """
    total: Floats = np.zeros((frame.height, frame.height), np.float32)
    counted = 0
    for column in columns:
        if column.kind in _MEASURED:
            values = measured(frame[column.name])
            present = ~np.isnan(values)
            apart = values[:, None] - values
            np.abs(apart, out=apart)
        elif column.kind in _NAMED:
            codes = _named(frame[column.name])
            present = codes >= 0
            apart = (codes[:, None] != codes).astype(np.float32)
        elif column.kind == "text":
            apart, present = _unlike(frame, column)
        else:
            continue
        if np.count_nonzero(present) < 2:
            continue
        _fill(apart, present)
        total += apart
        counted += 1
    if not counted:
        return None
    total /= counted
    np.fill_diagonal(total, 0)  # also of a row that lacks a column
    return total


def _fill(apart: Floats, present: npt.NDArray[np.bool_]) -> None:
    """Give every pair with a row that lacks the column the mean over the others; the diagonal of ``apart`` is 0."""
    if present.all():
        return
    absent, rows = ~present, np.count_nonzero(present)
    apart[absent] = apart[:, absent] = 0
    # In 64 bits: the sum of millions of numbers.
    mean = apart.sum(dtype=np.float64) / (rows * (rows - 1))
    apart[absent] = apart[:, absent] = mean


def gower_silhouette(distances: npt.NDArray[np.floating], labels: Labels) -> float | None:
    """Mean silhouette, -1 to 1, of ``labels`` int[n] by ``distances`` float[n, n]; those labelled -1 are left out.

    Rousseeuw (1987), "Silhouettes", by scikit-learn; -1 is noise. None where fewer than two segments remain, or as many
    as rows. Raises ValueError where the two do not belong together.
    """
    from sklearn.metrics import silhouette_score

    if distances.shape != (len(labels), len(labels)):
        raise ValueError(f"got distances of shape {distances.shape} for {len(labels)} labels")
    kept = np.flatnonzero(labels >= 0)
    if not 2 <= len(np.unique(labels[kept])) < len(kept):
        return None
    return float(silhouette_score(distances[np.ix_(kept, kept)], labels[kept], metric="precomputed"))


def measured(series: pl.Series) -> Floats:
    """A column of numbers or moments as float32[n] from 0, the least, to 1, the greatest; NaN where missing."""
    dtype = series.dtype
    if dtype.is_temporal():
        series = series.to_physical()
    elif isinstance(dtype, (pl.String, pl.Categorical, pl.Enum)):
        series = series.cast(pl.String).str.strip_chars()  # the number of a category is no value
    elif not (dtype.is_numeric() or dtype in (pl.Boolean, pl.Null)):
        return np.full(len(series), np.nan, np.float32)
    values = series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().copy()
    finite = values[np.isfinite(values)]
    if not len(finite):
        values, finite = np.sign(values), np.array([-1.0, 1.0])  # only infinities: those of one sign are alike
    values = values.clip(finite.min(), finite.max()) / 2  # halves, as the range itself can exceed a float
    low, high = finite.min() / 2, finite.max() / 2
    # In 64 bits up to here: moments in microseconds have more digits than 32 bits hold.
    scaled = (values - low) / (high - low) if high > low else values * 0
    return np.asarray(scaled, dtype=np.float32)


def _named(series: pl.Series) -> npt.NDArray[np.int64]:
    """A number for each different text, -1 where missing."""
    # A text that says "nan" is a value; a float that is NaN differs from itself.
    texts = ["" if value is None or value != value else code_of(value) for value in series.to_list()]
    codes = {text: code for code, text in enumerate(dict.fromkeys(text for text in texts if text))}
    return np.array([codes.get(text, -1) for text in texts], dtype=np.int64)


def text_columns(frame: pl.DataFrame, columns: Sequence[ColumnPlan]) -> pl.DataFrame:
    """``frame`` with its columns of free text cut, so that no more than is needed of long ones is read.

    To 4,000 characters a text, and to fewer (at least 400) where a column has more than 1,250 texts: what is left of
    all of them is about five million characters, or 400 a row.
    """
    cuts = []
    for column in columns:
        if column.kind == "text" and frame[column.name].dtype == pl.String:
            texts = frame.height - frame[column.name].null_count()
            most = min(_CHARACTERS[1], max(_CHARACTERS[0], _ALL_CHARACTERS // max(1, texts)))
            cuts.append(pl.col(column.name).str.strip_chars_start().str.slice(0, most))
    return frame.with_columns(cuts)


def text_weights(words: pl.Series, *, least: int = 1) -> Any:
    """TF-IDF of texts: a scipy CSR matrix float64[n, terms] with rows of length 1.

    ``words`` are texts as :func:`erasmo_dagster.method.profiling.prepare.words_of` writes them; null, and a text
    without any term, is a row of zeros. Terms are the words, and neighbouring pairs of characters in scripts that put
    no spaces between words; those of fewer than ``least`` texts are left out, unless none would remain. Frequencies
    count as 1 + log (Salton and Buckley, 1988, "Term-weighting approaches in automatic text retrieval"); by
    scikit-learn, with its smoothed inverse document frequencies.
    """
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import TfidfVectorizer

    present = np.flatnonzero(words.is_not_null().to_numpy())
    texts = words.drop_nulls().to_list()
    for fewest in sorted({least, 1}, reverse=True):
        try:
            weights = TfidfVectorizer(analyzer=_terms, sublinear_tf=True, min_df=fewest).fit_transform(texts)
        except ValueError:  # no term is left
            continue
        spread = csr_matrix((np.ones(len(present)), (present, np.arange(len(present)))), (len(words), len(present)))
        return (spread @ weights).tocsr()
    return csr_matrix((len(words), 1))


def _terms(words: str) -> list[str]:
    found: list[str] = []
    for word in words.split():
        if _UNSPACED.search(word) and len(word) > 1:
            found += [a + b for a, b in pairwise(word)]
        elif word != "|":
            found.append(word)
    return found


def _unlike(frame: pl.DataFrame, column: ColumnPlan) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """1 - cosine between the texts of a column, float32[n, n], and which rows have a word, bool[n]."""
    plain = column.model_copy(update={"sensitive": False})
    (told,) = prepare(text_columns(frame, [plain]), [plain])
    assert isinstance(told, TextColumn)
    weights = text_weights(told.words)
    apart: Floats = np.empty((frame.height, frame.height), np.float32)
    for start in range(0, frame.height, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        apart[part] = (weights[part] @ weights.T).toarray()
    np.subtract(1, apart, out=apart)
    apart[apart < _ROUNDING] = 0
    return apart, np.asarray(np.diff(weights.indptr) > 0)
