"""Ideas about the rows' own vectors: how they are spread out, in which order and with which numbers a row is read."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.quality.ideas_columns import Draw, Readers, Rows
from benchmarks.quality.peers import Labels, calm, kmeans
from benchmarks.quality.reading import Floats, texts_of
from benchmarks.quality.suite import Sample
from erasmo_dagster.method.tables.parts import FEW_NUMBERS, is_measured, numbers_of
from erasmo_dagster.method.textual import join_clauses, shuffle_clauses, write_clauses

Doubles = npt.NDArray[np.float64]
Spread = Callable[[Floats], npt.NDArray[np.floating]]

WHITENED = 16  # components
ORDERS = 4
# Quantiles of a number, and how one above the first and not above the second is read.
_LEVELS = (
    (0.0, "very low (bottom 5 percent)"),
    (0.05, "low (bottom 20 percent)"),
    (0.2, "rather low (bottom 40 percent)"),
    (0.4, "average"),
    (0.6, "rather high (top 40 percent)"),
    (0.8, "high (top 20 percent)"),
    (0.95, "very high (top 5 percent)"),
)


def spread(rows: Rows, by: Spread | None = None) -> Draw:
    """k-means on the rows' vectors, changed ``by`` a function of them all."""

    def draw(sample: Sample, readers: Readers, seed: int) -> Labels:
        vectors: npt.NDArray[np.floating] = rows(readers, sample)
        if by is not None:
            with calm():
                vectors = by(np.asarray(vectors, dtype=np.float32))
        return kmeans(vectors, sample.k, seed)

    return draw


def unit(vectors: Floats) -> Doubles:
    """Centred, then of length 1."""
    centred = _centred(vectors)
    return np.asarray(centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12))


def whitened(vectors: Floats) -> Doubles:
    """The first 16 principal components, each of variance 1."""
    left, values, _ = np.linalg.svd(_centred(vectors), full_matrices=False)
    kept = values[:WHITENED] > 1e-6 * values[0]
    return np.asarray(left[:, :WHITENED][:, kept] * np.sqrt(len(vectors)))


def without_first(count: int) -> Spread:
    """Centred, without the first ``count`` principal directions (Mu and Viswanath, 2018, "All-but-the-top")."""

    def changed(vectors: Floats) -> Doubles:
        centred = _centred(vectors)
        first = np.linalg.svd(centred, full_matrices=False)[2][:count]
        return np.asarray(centred - centred @ first.T @ first)

    return changed


def _centred(vectors: Floats) -> Doubles:
    return np.asarray(vectors - vectors.mean(axis=0, dtype=np.float64))


def orders_averaged(sample: Sample, readers: Readers, seed: int) -> Labels:
    """k-means on the mean of the rows' vectors over four orders of the columns, the same for all rows.

    The canonical one, its reverse, and two that are drawn once for all seeds.
    """
    columns, rng = sample.plan.columns, np.random.default_rng(0)
    orders = [np.arange(len(columns)), np.arange(len(columns))[::-1]]
    orders += [rng.permutation(len(columns)) for _ in range(ORDERS - 2)]
    read = []
    for order in orders:
        plan = sample.plan.model_copy(update={"columns": tuple(columns[at] for at in order)})
        clauses = write_clauses(sample.frame, plan).to_list()
        read.append(readers.sentences([join_clauses(row) for row in clauses]))
    return kmeans(np.mean(read, axis=0), sample.k, seed)


def orders_by_row(sample: Sample, readers: Readers, seed: int) -> Labels:
    """k-means on the rows' vectors, each row read in an order of its own, as the first paper's code does."""
    rng = np.random.default_rng(seed)
    clauses = write_clauses(sample.frame, sample.plan).to_list()
    return kmeans(readers.sentences([join_clauses(shuffle_clauses(row, rng)) for row in clauses]), sample.k, seed)


def numbers_in_words(sample: Sample, readers: Readers, seed: int) -> Labels:
    """k-means on the rows' vectors, every number written in words."""
    columns = tuple(column.model_copy(update={"verbalize": True}) for column in sample.plan.columns)
    plan = sample.plan.model_copy(update={"columns": columns})
    clauses = write_clauses(sample.frame, plan).to_list()
    return kmeans(readers.sentences([join_clauses(row) for row in clauses]), sample.k, seed)


def numbers_relative(sample: Sample, readers: Readers, seed: int) -> Labels:
    """k-means on the rows' vectors, every number written as its place among those of its column."""
    return kmeans(readers.sentences(texts_of(relative(sample))), sample.k, seed)


def relative(sample: Sample) -> Sample:
    """The rows with numbers and moments as words for the quantiles that they lie between, fitted on these rows.

    Columns of at most 12 different numbers stay as they are: those are codes.
    """
    frame, columns = sample.frame, []
    for column in sample.plan.columns:
        if is_measured(column):
            values = numbers_of(frame[column.name], moments=column.kind == "datetime")
            present = values[~np.isnan(values)]
            if len(np.unique(present)) > FEW_NUMBERS:
                told = pl.Series(column.name, _levels(values, present), dtype=pl.String)
                frame = frame.with_columns(told)
                column = column.model_copy(update={"kind": "category", "unit": None})
        columns.append(column)
    plan = sample.plan.model_copy(update={"columns": tuple(columns)})
    return Sample(sample.name, frame, plan, sample.settings, sample.k, sample.seed, sample.id)


def _levels(values: Doubles, present: Doubles) -> list[str | None]:
    ranks = np.argsort(np.argsort(present, kind="stable"), kind="stable")
    # Equal numbers have one place: the middle of theirs.
    _, which = np.unique(present, return_inverse=True)
    places = (np.bincount(which, ranks) / np.bincount(which))[which] + 0.5
    found = np.searchsorted([quantile for quantile, _ in _LEVELS], places / len(present), side="right") - 1
    words: list[str | None] = [None] * len(values)
    for row, level in zip(np.flatnonzero(~np.isnan(values)).tolist(), found.tolist(), strict=True):
        words[row] = _LEVELS[level][1]
    return words
