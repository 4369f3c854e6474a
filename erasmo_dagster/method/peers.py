"""What else one would try on a table: common procedures without a model of it, to compare segments with.

None says where a later row belongs by the table's points. So each is drawn on some rows, and every other row, of the
training or later, goes with the nearest of these by the points, as agglomerative segments do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.baselines import OneHotOptions, one_hot
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.columns import ColumnPlan
from erasmo_dagster.method.gower import gower_distances, measured
from erasmo_dagster.method.measures import Stability, stability
from erasmo_dagster.method.neighbors import distinct_rows, nearest, sums_by
from erasmo_dagster.method.segment_model import NearestRow, SegmentModel, beside_centers
from erasmo_dagster.method.space import Space
from erasmo_dagster.method.steadiness import sampled
from erasmo_dagster.method.tables.parts import Encode, codes_of
from erasmo_dagster.method.textual import TextPlan, join_clauses, write_clauses
from erasmo_dagster.method.threads import one_thread
from erasmo_dagster.settings import ClusteringSettings

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]
# Rows, how they are read, number of segments, starts, seed, sentence encoder -> a segment of each row, int64[n].
Peer = Callable[[pl.DataFrame, TextPlan, int, int, int, Encode], Labels]

# Starts of k-prototypes: a run of a thousand rows takes half a second.
PROTOTYPE_STARTS = 3


def one_hot_k_means(frame: pl.DataFrame, plan: TextPlan, k: int, n_init: int, seed: int, encode: Encode) -> Labels:
    """k-means of numbers standardised and categories one-hot; texts are left out."""
    known = plan.model_copy(update={"columns": _in_order(frame, plan)})
    return _k_means(one_hot(frame, known, OneHotOptions(), seed, Path()).vectors, k, n_init, seed)


def k_prototypes(frame: pl.DataFrame, plan: TextPlan, k: int, n_init: int, seed: int, encode: Encode) -> Labels:
    """k-prototypes (Huang, 1998, Data Mining and Knowledge Discovery 2) by kmodes, started after Cao et al. (2009).

    Of numbers standardised, the mean where missing, and categories, with a value of their own where missing; texts are
    left out. Without numbers it is k-modes, and k-means without categories. At most PROTOTYPE_STARTS starts.

    Raises ErasmoError where no column can be used, for fewer than ``k`` + 1 different rows, and where no start gives
    every segment a row.
    """
    from kmodes.kmodes import KModes
    from kmodes.kprototypes import KPrototypes

    numbers, codes = _numbers_and_codes(frame, _in_order(frame, plan))
    if not codes.shape[1]:
        return _k_means(numbers.astype(np.float32), k, n_init, seed)
    table = np.concatenate([numbers, codes], axis=1)
    if len(table) <= k or (different := len(np.unique(table, axis=0))) <= k:
        found = f"{len(table)} rows" if len(table) <= k else f"{different} different rows"
        raise ErasmoError(f"Got {found} for {k} segments", expected=f"at least {k + 1}")
    options = {"n_clusters": k, "init": "Cao", "n_init": min(n_init, PROTOTYPE_STARTS), "random_state": seed}
    with one_thread(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library says of its own ways is of no use to anyone here
        if not numbers.shape[1]:
            labels = KModes(**options).fit(codes).labels_
        else:
            named = list(range(numbers.shape[1], table.shape[1]))
            try:
                labels = KPrototypes(**options).fit(table, categorical=named).labels_
            except ValueError as error:
                raise ErasmoError(f"Got no start of k-prototypes with {k} segments that all have rows") from error
    return np.asarray(labels, dtype=np.int64)


def _numbers_and_codes(
    frame: pl.DataFrame, columns: Sequence[ColumnPlan]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Numbers and moments of mean 0 and variance 1, float64[n, p], and categories as numbers from 0, float64[n, q]."""
    numbers: list[npt.NDArray[np.float64]] = []
    categories: list[npt.NDArray[np.float64]] = []
    for column in columns:
        if column.kind in ("number", "datetime"):
            values = measured(frame[column.name]).astype(np.float64)
            present = values[~np.isnan(values)]
            if len(present) and (spread := present.std()) > 0:
                numbers.append(np.nan_to_num((values - present.mean()) / spread))
        elif column.kind in ("category", "boolean"):
            texts = codes_of(frame[column.name])
            if texts.n_unique() > 1:
                categories.append((texts.rank("dense").fill_null(0)).cast(pl.Float64).to_numpy())
    if not numbers and not categories:
        raise ErasmoError(
            "Got a table without numbers, moments, categories or truth values that vary", expected="at least one"
        )
    none = np.empty((frame.height, 0))
    return np.stack(numbers, axis=1) if numbers else none, np.stack(categories, axis=1) if categories else none


def gower_average(frame: pl.DataFrame, plan: TextPlan, k: int, n_init: int, seed: int, encode: Encode) -> Labels:
    """Average linkage of Gower's dissimilarities (:func:`gower_distances`); pairs of rows are held in memory."""
    from sklearn.cluster import AgglomerativeClustering

    if frame.height <= k:
        raise ErasmoError(f"Got {frame.height} rows for {k} segments", expected=f"at least {k + 1}")
    apart = gower_distances(frame, _in_order(frame, plan))
    if apart is None:
        raise ErasmoError("Got rows without a value that two of them have", expected="values to compare")
    found = AgglomerativeClustering(k, metric="precomputed", linkage="average").fit_predict(apart)
    return np.asarray(found, dtype=np.int64)


def row_texts_k_means(frame: pl.DataFrame, plan: TextPlan, k: int, n_init: int, seed: int, encode: Encode) -> Labels:
    """k-means of whole rows as a sentence encoder reads them: written as the corpus has them but for
    summaries, one vector a text.

    Raises ErasmoError as ``encode`` does, where there is no encoder to be had.
    """
    texts = [join_clauses(clauses) for clauses in write_clauses(frame, plan).to_list()]
    place = {text: at for at, text in enumerate(dict.fromkeys(texts))}
    return _k_means(encode(list(place))[[place[text] for text in texts]], k, n_init, seed)


# By the name on the leaderboard.
ROW_TEXTS = "rows as text, k-means"
PEERS: dict[str, Peer] = {
    "one-hot, k-means": one_hot_k_means,
    "k-prototypes": k_prototypes,
    "Gower, average linkage": gower_average,
    ROW_TEXTS: row_texts_k_means,
}


def _k_means(vectors: Floats, k: int, n_init: int, seed: int) -> Labels:
    return cluster(vectors, ClusteringSettings(method="kmeans++", k=k, n_init=n_init), seed=seed).labels


def _in_order(frame: pl.DataFrame, plan: TextPlan) -> tuple[ColumnPlan, ...]:
    """The columns that any of the rows has, by name: sums depend on the order of what is added up."""
    held = [column for column in plan.columns if frame[column.name].null_count() < frame.height]
    return tuple(sorted(held, key=lambda column: column.name))


def by_nearest_row(points: Floats, drawn: npt.NDArray[np.int64], labels: Labels) -> ClusterResult:
    """Segments of all ``points`` float32[n, d], of which those at ``drawn`` int64[m] have ``labels`` int64[m].

    Rows at one point are in one segment, that of most of them, of equals the lower. Segments are numbered by size, then
    by centre; one that has the most of no point is none.

    Raises ErasmoError where fewer than two remain.
    """
    first, which = distinct_rows(points[drawn])
    votes = np.zeros((len(first), int(labels.max()) + 1), dtype=np.int64)
    np.add.at(votes, (which, labels), 1)
    references, own = points[drawn][first], votes.argmax(axis=1)
    placed = own[nearest(points, references, 1)[0][:, 0]]
    sizes = np.bincount(placed, minlength=votes.shape[1])
    held = np.flatnonzero(sizes)
    if len(held) < 2:
        raise ErasmoError("Got one segment of the table's rows", expected="at least two")
    sums = sums_by(points, placed, len(sizes))
    centers = {int(s): sums[s] / sizes[s] for s in held}
    order = sorted(centers, key=lambda s: (-sizes[s], centers[s].tolist()))
    number = np.zeros(votes.shape[1], dtype=np.int64)
    number[order] = np.arange(len(order))
    space = Space(points.shape[1], np.zeros(points.shape[1]))
    center = np.stack([centers[s] for s in order]).astype(np.float32)
    model = SegmentModel(space, center, NearestRow(references, number[own]))
    confidence = beside_centers(points, center, number[placed])[1]
    return ClusterResult(number[placed], len(order), confidence, None, (), model)


def peer_steadiness(
    name: str,
    frame: pl.DataFrame,
    plan: TextPlan,
    points: Floats,
    labels: Labels,
    *,
    n_init: int,
    encode: Encode,
    seed: int,
    rows: int = 1_000,
    resamples: int = 10,
) -> Stability | None:
    """As :func:`~.steadiness.steadiness`, of the peer ``name`` that drew ``labels`` int[n] on the rows of ``frame``.

    Its segments of a part of the rows are those of the others by ``points`` float32[n, d]. A part that it can do
    nothing with counts as one in which it has found nothing. None where fewer than two segments or four rows are.
    """
    sample = sampled(labels, rows, seed=seed)
    told, at, own = frame[sample], points[sample], labels[sample]
    k = len(np.unique(labels))
    if k < 2 or len(np.unique(own)) < k:
        return None

    def refit(part: npt.NDArray[np.intp], seed: int) -> Labels:
        try:
            found = PEERS[name](told[part], plan, k, n_init, seed, encode)
            return by_nearest_row(at, part.astype(np.int64), found).labels
        except ErasmoError:
            return np.full(len(at), -1, dtype=np.int64)

    try:
        return stability(refit, own, seed=seed, resamples=resamples)
    except ErasmoError:  # too few rows
        return None
