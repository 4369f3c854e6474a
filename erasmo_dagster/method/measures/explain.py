"""How well a few questions about the columns tell the segments apart: a small decision tree, judged on other rows.

Breiman, Friedman, Olshen and Stone (1984), "Classification and Regression Trees", by scikit-learn; that a partition is
as good as the tree which explains it is close by: Moshkovitz et al. (2020), "Explainable k-Means and k-Medians".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.measures.features import Feature, Terms, Values, plain_features, terms_in
from erasmo_dagster.method.measures.leaves import leaf_lines
from erasmo_dagster.method.measures.rows import Ints, Labels, Segmented, segmented, told_columns
from erasmo_dagster.method.profiling.prepare import Column, Mask, TextColumn

_MOST_CELLS = 30_000_000  # of a table of features, in 32 bits
_LEAF = 20  # rows, at least, of a leaf
_LEAST_ROWS = 1_000  # that are looked at however many the features are


@dataclass(frozen=True)
class Explained:
    """``accuracy``: share of rows whose segment a tree tells that has not seen them; ``baseline``: of the largest.

    ``error`` is the standard error of the accuracy over the folds. ``rules``: a line for each leaf of the tree of all
    ``rows``, whose levels are ``depth``.
    """

    accuracy: float
    error: float
    baseline: float
    depth: int
    rules: tuple[str, ...]
    rows: int


def explain(
    frame: pl.DataFrame,
    columns: Sequence[ColumnPlan],
    labels: Labels,
    *,
    seed: int,
    depth: int = 4,
    folds: int = 5,
    max_rows: int = 20_000,
) -> Explained | None:
    """Cross-validated accuracy of a tree that tells segments ``labels`` int[n] apart by ``columns``.

    The tree has at most ``depth`` levels and twice as many leaves as there are segments. It splits by numbers and
    moments, missing ones among them, by the 30 most frequent values of a category, and by whether a text has one of at
    most 50 terms; the terms are chosen by the rows that the tree is fitted on, never by those it is judged on. Rows of
    label -1 are noise and left out; nested columns are, too. Every fold has its share of every segment.

    Beyond ``max_rows`` rows it is of a sample that ``seed`` draws, and of fewer where the columns have very many
    values. ``error`` is the deviation of the folds' accuracies over the square root of their number: folds share rows
    to learn from, so that it is somewhat too small (Bengio and Grandvalet, 2004, JMLR 5).

    Sensitive columns count for the accuracy, but rules come from a tree that has not seen them (none where there are no
    others): as :func:`.leaves.leaf_lines` writes them, largest leaf first.

    None where there are fewer than two segments, as many as rows, or no column that varies. Raises ValueError where
    there is not one label a row, and for fewer than two folds or one level.
    """
    if folds < 2 or depth < 1:
        raise ValueError(f"got {folds} folds and depth {depth}, expected at least 2 and 1")
    sample = segmented(labels, frame.height, seed=seed, most=max_rows)
    if sample is None:
        return None
    told = told_columns(frame, columns, sample.rows)
    plain, texts = _features(told)
    most = max(_LEAST_ROWS, _MOST_CELLS // max(1, len(plain)))
    if len(sample.rows) > most:
        sample = segmented(labels, frame.height, seed=seed, most=most)
        if sample is None:
            return None
        told = told_columns(frame, columns, sample.rows)
        plain, texts = _features(told)
    if not plain and not texts:
        return None
    right, folds_right = _validated(plain, texts, sample, folds=folds, depth=depth, seed=seed)
    every = np.arange(len(sample.rows))
    features, table = _chosen(plain, texts, every, sample.segments)
    tree = _tree(table, sample, every, depth, seed)
    hidden = {column.name for column in columns if column.sensitive}
    shown = [at for at, feature in enumerate(features) if feature.column.plan.name not in hidden]
    features, table = [features[at] for at in shown], table[:, shown]
    rules: tuple[str, ...] = ()
    if features:
        plainer = tree if table.shape[1] == tree.n_features_in_ else _tree(table, sample, every, depth, seed)
        rules = leaf_lines(plainer, features, table, sample.segments, sample.ids)
    return Explained(
        accuracy=float(right.mean()),
        error=float(np.std(folds_right, ddof=1) / np.sqrt(len(folds_right))),
        baseline=float(np.bincount(sample.segments).max() / len(sample.rows)),
        depth=int(tree.get_depth()),
        rules=rules,
        rows=len(sample.rows),
    )


def _features(columns: Sequence[Column]) -> tuple[list[Feature], list[Terms]]:
    found = [terms_in(column) for column in columns if isinstance(column, TextColumn)]
    return plain_features(columns), [terms for terms in found if terms is not None]


def _validated(
    plain: Sequence[Feature], texts: Sequence[Terms], sample: Segmented, *, folds: int, depth: int, seed: int
) -> tuple[Mask, list[float]]:
    """Whether each row's segment was told by the tree of the other folds, and the share of every fold."""
    rows = len(sample.rows)
    fold = np.empty(rows, np.int64)
    # The rows are in random order: dealt out segment by segment, every fold has its share of each.
    fold[np.argsort(sample.segments, kind="stable")] = np.arange(rows) % min(folds, rows)
    right: Mask = np.zeros(rows, dtype=bool)
    shares = []
    for number in range(fold.max() + 1):
        train, test = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        _, table = _chosen(plain, texts, train, sample.segments[train])
        told = _tree(table, sample, train, depth, seed).predict(table[test])
        right[test] = told == sample.segments[test]
        shares.append(float(right[test].mean()))
    return right, shares


def _chosen(
    plain: Sequence[Feature], texts: Sequence[Terms], train: Ints, segments: Ints
) -> tuple[list[Feature], Values]:
    """All features and their table float32[n, f], the terms of texts as the rows ``train`` would have them."""
    features = [*plain]
    for terms in texts:
        features += terms.telling(train, segments)
    if not features:  # a tree without any has one leaf
        return [], np.zeros((texts[0].has.shape[0], 1), np.float32)
    return features, np.column_stack([feature.values for feature in features])


def _tree(table: Values, sample: Segmented, rows: Ints, depth: int, seed: int) -> Any:
    from sklearn.tree import DecisionTreeClassifier

    # A leaf of a few rows among thousands tells of chance, unless a segment is as small.
    smallest = max(1, min(_LEAF, int(np.bincount(sample.segments).min()) // 2))
    model = DecisionTreeClassifier(
        max_depth=depth, max_leaf_nodes=2 * len(sample.ids), min_samples_leaf=smallest, random_state=seed % 2**32
    )
    return model.fit(table[rows], sample.segments[rows])
