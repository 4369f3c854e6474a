"""Vectors -> segments, the last step of arXiv 2410.03738.

What holds for every method:

- The same vectors, settings and seed give the same segments, on any number of cores.
- Segments are numbered by size, the largest is 0; ties go by their centres. So a partition has one numbering, whatever
  the order of its rows. The partition itself does not depend on that order either where no start is drawn at random
  (agglomerative, but for equal distances); k-means and spectral draw rows by their position.
- A centre is the mean of its members. ``confidence`` is ``(d2 - d1) / d2``: d1 the distance to the row's own centre, d2
  to the nearest other one; 0 where a row lies nearer to another's. It is not a probability.
- Segments of k-means are those of the nearest centre, as :func:`assign` finds them. Agglomerative and spectral segments
  need not be: ``notes`` says how many rows lie nearer to another segment's centre.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.estimators import prepare
from erasmo_dagster.method.quality import centered, internal_metrics
from erasmo_dagster.settings import ClusteringSettings

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SETTLE_ROUNDS = 300
_CHUNK = 2048  # rows whose distances are taken at a time


@dataclass(frozen=True)
class SweepPoint:
    """Figures of the partition into ``k`` segments, in the space that was clustered: scaled where ``scale`` says so."""

    k: int
    silhouette: float
    calinski_harabasz: float
    davies_bouldin: float


@dataclass(frozen=True, eq=False)
class Scaler:
    """Mean and standard deviation float32[d] of every dimension; the deviation of a constant one is taken as 1."""

    mean: Floats
    scale: Floats


@dataclass(frozen=True, eq=False)
class Assignment:
    """The segment int64[n] with the nearest centre, and the confidence float32[n] in it, for each row."""

    labels: Labels
    confidence: Floats


@dataclass(frozen=True, eq=False)
class ClusterResult:
    """A partition of n rows into ``k`` segments.

    ``labels`` int64[n] in 0..k-1, ``confidence`` float32[n] in [0, 1], ``centers`` float32[k, d] in the space of the
    vectors given, never scaled. ``scaler`` is what distances are scaled by, None for not at all. ``sweep`` has the
    figures of every k tried, none where k was given; ``notes`` says what the user should know.
    """

    labels: Labels
    centers: Floats
    k: int
    confidence: Floats
    sweep: tuple[SweepPoint, ...]
    scaler: Scaler | None
    notes: tuple[str, ...] = ()


def cluster(vectors: Floats, settings: ClusteringSettings, *, seed: int) -> ClusterResult:
    """Group the rows of ``vectors`` float32[n, d].

    ``k: auto`` tries k_min to k_max, at most n - 1 and the number of different vectors, and takes the best by
    ``choose_by``, of equals the smallest.

    Raises ErasmoError for NaN or infinities, fewer than k + 1 rows or k different vectors (k_min for `auto`), and for
    more rows than fit in memory where the method works on pairs of them.
    """
    vectors = _checked(vectors)
    notes: list[str] = []
    ks = _segment_counts(vectors, settings, notes)
    scaler = _fit_scaler(vectors) if settings.scale == "standard" else None
    points = centered(vectors)
    if scaler is not None:
        points /= scaler.scale
    partitions = _partitions(vectors, points, scaler, ks, settings, seed, notes)
    sweep = _sweep(partitions, points, settings, seed) if settings.k == "auto" else ()
    k = _best(sweep, settings.choose_by) if sweep else max(partitions)
    labels = partitions[k]
    centers = _means(vectors, labels)
    distances = _distances(vectors, centers, scaler)
    strays = int((distances.argmin(axis=1) != labels).sum())
    if strays:
        notes.append(f"{strays} of {len(labels)} rows lie nearer to another segment's centre than to their own.")
    confidence = _confidence(distances, labels)
    return ClusterResult(labels, centers, k, confidence, sweep, scaler, tuple(notes))


def assign(vectors: Floats, centers: Floats, scaler: Scaler | None) -> Assignment:
    """The segment of the nearest of ``centers`` float32[k, d] for each of ``vectors`` float32[n, d].

    A row's answer does not depend on the rows beside it; ties go to the lower number. Raises ErasmoError where the
    vectors hold NaN or infinities, or have another number of dimensions than the centres.
    """
    vectors = _checked(vectors)
    if vectors.shape[1] != centers.shape[1]:
        raise ErasmoError(
            f"Got vectors of {vectors.shape[1]} dimensions",
            expected=f"{centers.shape[1]}, as the segments' centres have",
            fix="embed with the model that the segments were made with, or retrain the dataset",
        )
    distances = _distances(vectors, centers, scaler)
    labels = distances.argmin(axis=1)
    return Assignment(labels, _confidence(distances, labels))


def _checked(vectors: Floats) -> Floats:
    vectors = np.ascontiguousarray(vectors, dtype=np.float32)
    if vectors.ndim != 2:
        raise ValueError(f"got vectors of shape {vectors.shape}, expected rows and dimensions")
    broken = len(vectors) - int(np.isfinite(vectors).all(axis=1).sum())
    if broken:
        raise ErasmoError(
            f"Got NaN or infinity in the vectors of {broken} of {len(vectors)} rows",
            expected="finite numbers",
            fix="train again with a lower adapter.learning_rate, or choose another adapter.base_model",
        )
    return vectors


def _segment_counts(vectors: Floats, settings: ClusteringSettings, notes: list[str]) -> range:
    """The numbers of segments to try: the one given, or those of the sweep that the rows allow."""
    if settings.k == "auto":
        name, least, most = "clustering.k_min", settings.k_min, settings.k_max
    else:
        name, least, most = "clustering.k", settings.k, settings.k
    rows = len(vectors)
    lower = f"lower {name} or " if least > 2 else ""
    if rows <= least:
        raise ErasmoError(
            f"Got {rows} row{'s' * (rows != 1)} for {name}={least}",
            expected=f"at least {least + 1}",
            fix=f"{lower}bring more rows",
        )
    different = _count_different(vectors, most)
    if different < least:
        raise ErasmoError(
            f"Got {different} different vector{'s' * (different != 1)} in {rows} rows for {name}={least}",
            expected=f"at least {least}",
            fix=f"{lower}use columns that tell the rows apart",
        )
    highest = min(most, rows - 1, different)
    if highest < most:
        reason = f"{rows} rows" if rows - 1 <= different else f"{different} different vectors"
        notes.append(f"The sweep ended at k={highest}, below clustering.k_max={most}: there are only {reason}.")
    return range(least, highest + 1)


def _count_different(vectors: Floats, enough: int) -> int:
    """Number of different rows, counted up to ``enough``."""
    seen: set[bytes] = set()
    for row in vectors:
        seen.add((row + 0.0).tobytes())  # -0.0 becomes 0.0
        if len(seen) == enough:
            break
    return len(seen)


def _fit_scaler(vectors: Floats) -> Scaler:
    points = centered(vectors)
    scale = np.sqrt(np.einsum("ij,ij->j", points, points, dtype=np.float64) / len(points))
    scale[(vectors == vectors[0]).all(axis=0)] = 1.0  # a rounded mean can leave it a little above 0
    return Scaler(vectors.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32))


def _partitions(
    vectors: Floats,
    points: Floats,
    scaler: Scaler | None,
    ks: range,
    settings: ClusteringSettings,
    seed: int,
    notes: list[str],
) -> dict[int, Labels]:
    """Labels by the number of segments found: ``ks``, but for what a method could not tell apart."""
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    partitions: dict[int, Labels] = {}
    # OpenMP's threads add up in the order in which they finish, and k-means can end elsewhere for it.
    with threadpool_limits(1, user_api="openmp"), warnings.catch_warnings():
        # The notes say both, in the words of the settings.
        warnings.filterwarnings("ignore", r"Number of distinct clusters .* found smaller than n_clusters")
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        partitioner = prepare(points, settings, seed=seed, k_max=ks[-1])
        notes.extend(partitioner.notes)
        for k in ks:
            labels = _number(partitioner.cut(k), vectors)
            if settings.method in ("kmeans", "kmeans++"):
                labels = _settle(labels, vectors, scaler, notes)
            found = int(labels.max()) + 1
            if found < k:
                notes.append(f"Asked for k={k}, {settings.method} told {found} segments apart.")
            partitions.setdefault(found, labels)
    partitions.pop(1, None)
    if not partitions:
        raise ErasmoError(
            f"Got one segment from clustering.method={settings.method}",
            expected="at least two",
            fix="choose another clustering.method, or use columns that tell the rows apart",
        )
    return partitions


def _settle(labels: Labels, vectors: Floats, scaler: Scaler | None, notes: list[str]) -> Labels:
    """Lloyd's last rounds in 64 bits, until every row is in the segment of the nearest centre, as it will be saved.

    The estimator works in 32 bits, so that a row between two centres can be on the other side.
    """
    for _ in range(_SETTLE_ROUNDS):
        nearest = _distances(vectors, _means(vectors, labels), scaler).argmin(axis=1)
        if np.array_equal(nearest, labels):
            return labels
        labels = _number(nearest, vectors)
    notes.append(f"k-means with k={labels.max() + 1} still moved rows after {_SETTLE_ROUNDS} rounds.")
    return labels


def _sweep(
    partitions: dict[int, Labels], points: Floats, settings: ClusteringSettings, seed: int
) -> tuple[SweepPoint, ...]:
    sweep = []
    for k, labels in sorted(partitions.items()):
        figures = internal_metrics(points, labels, max_rows=settings.metrics_rows, seed=seed)
        sweep.append(SweepPoint(k, figures["silhouette"], figures["calinski_harabasz"], figures["davies_bouldin"]))
    return tuple(sweep)


def _best(sweep: tuple[SweepPoint, ...], choose_by: str) -> int:
    sign = -1 if choose_by == "davies_bouldin" else 1
    return max(sweep, key=lambda point: (sign * getattr(point, choose_by), -point.k)).k


def _number(labels: npt.NDArray[np.integer], vectors: Floats) -> Labels:
    """The same partition with its segments numbered by size, descending, then by centre."""
    _, labels, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    centers = _means(vectors, labels)
    order = sorted(range(len(sizes)), key=lambda segment: (-sizes[segment], centers[segment].tolist()))
    return np.asarray(np.argsort(order)[labels], dtype=np.int64)


def _means(vectors: Floats, labels: npt.NDArray[np.integer]) -> Floats:
    """Mean float32[k, d] of each segment's rows, added up in 64 bits."""
    members = (vectors[labels == segment] for segment in range(labels.max() + 1))
    return np.stack([rows.mean(axis=0, dtype=np.float64).astype(np.float32) for rows in members])


def _distances(vectors: Floats, centers: Floats, scaler: Scaler | None) -> npt.NDArray[np.float64]:
    """Euclidean distances float64[n, k], scaled; from differences, since a.a - 2 a.b + b.b loses the small ones."""
    scale = 1.0 if scaler is None else scaler.scale.astype(np.float64)
    exact = centers.astype(np.float64)
    distances = np.empty((len(vectors), len(centers)))
    for start in range(0, len(vectors), _CHUNK):
        chunk = vectors[start : start + _CHUNK].astype(np.float64)
        for segment, center in enumerate(exact):
            difference = (chunk - center) / scale
            distances[start : start + _CHUNK, segment] = np.einsum("ij,ij->i", difference, difference)
    return np.sqrt(distances, out=distances)


def _confidence(distances: npt.NDArray[np.float64], labels: Labels) -> Floats:
    """(d2 - d1) / d2 of the row's own centre and the nearest other, at least 0; 0 where both are at distance 0."""
    rows = np.arange(len(labels))
    own = distances[rows, labels]
    others = distances.copy()
    others[rows, labels] = np.inf
    other = others.min(axis=1)
    ratio = np.divide(other - own, other, out=np.zeros_like(own), where=other > 0)
    return np.asarray(ratio.clip(0, 1), dtype=np.float32)
