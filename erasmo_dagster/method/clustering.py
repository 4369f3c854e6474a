"""Vectors -> segments, the last step of arXiv 2410.03738.

What holds for every method:

- The same vectors, settings and seed give the same segments, on any number of cores.
- Segments are numbered by size, the largest is 0; ties go by their centres. So a partition has one numbering, whatever
  the order of its rows. The partition itself does not depend on that order either where no start is drawn at random
  (agglomerative, but for equal distances); k-means and spectral draw rows by their position.
- Rows with equal vectors are in one segment.
- Later rows are placed by the result's ``model`` without refitting, and rows of the training go where they were (for
  spectral and HDBSCAN, which place by the nearest row, as long as all different rows are kept: 20,000).
- Memory grows with the rows and not with their pairs: beyond 20,000 agglomerative and spectral work on groups of rows,
  and ``notes`` says so.

By method:

- k-means, with its variants: segments are those of the nearest centre. Agglomerative and spectral ones need not be:
  ``notes`` says how many rows lie nearer to another segment's centre. The ``confidence`` of both is ``(d2 - d1) / d2``:
  d1 the distance to the row's own centre, d2 to the nearest other one; 0 where a row lies nearer to another's. It is
  not a probability.
- Fuzzy c-means and Gaussian mixtures: the largest membership, which is the confidence.
- HDBSCAN: rows in no dense region are noise, -1, with confidence 0; that of the others is the method's own.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.algorithms import Cut, StructureError, prepare
from erasmo_dagster.method.lloyd import by_size, means, number, settle
from erasmo_dagster.method.neighbors import MOST_REFERENCES, distinct_rows, nearest, references_of
from erasmo_dagster.method.quality import internal_metrics
from erasmo_dagster.method.segment_model import (
    Assignment,
    NearestCenter,
    NearestRow,
    SegmentModel,
    beside_centers,
)
from erasmo_dagster.method.space import Space, checked
from erasmo_dagster.method.tables.layout import Layout
from erasmo_dagster.method.tables.mixture import LEAST_SHARE
from erasmo_dagster.method.threads import one_thread
from erasmo_dagster.settings import ClusteringSettings

Floats = npt.NDArray[np.float32]
Labels = npt.NDArray[np.int64]

_SETTLE_ROUNDS = 300
ENOUGH = 0.8  # of the bits that the best number of segments saves


@dataclass(frozen=True)
class SweepPoint:
    """Figures of the partition into ``k`` segments, in the space that was clustered: scaled and reduced.

    ``smallest`` is the number of rows in the smallest segment; ``bits_saved`` how much shorter the segments make a
    row's description, where the method is a model of the rows; ``silhouette_error`` the standard error of sampling.
    """

    k: int
    silhouette: float
    calinski_harabasz: float
    davies_bouldin: float
    smallest: int = 0
    bits_saved: float | None = None
    silhouette_error: float = 0.0


@dataclass(frozen=True, eq=False)
class ClusterResult:
    """A partition of n rows into ``k`` segments.

    ``labels`` int64[n] in 0..k-1, or -1 for noise; ``confidence`` float32[n] in [0, 1]; ``memberships`` float32[n, k],
    None where the method has none. ``model`` places later rows. ``sweep`` has the figures of every k tried, none where
    k was given or is the method's own, and ``reason`` says why it was this k; ``notes`` says what the user should know.
    """

    labels: Labels
    k: int
    confidence: Floats
    memberships: Floats | None
    sweep: tuple[SweepPoint, ...]
    model: SegmentModel
    notes: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, eq=False)
class _Partition:
    """Labels, and what makes a model of them once the number of segments is chosen."""

    labels: Labels
    finish: Callable[[], tuple[SegmentModel, Assignment]]
    bits_saved: float | None = None


def cluster(vectors: Floats, settings: ClusteringSettings, *, seed: int, layout: Layout | None = None) -> ClusterResult:
    """Group the rows of ``vectors`` float32[n, d]; for `mixture` these are points of a table with ``layout``.

    ``k: auto`` tries k_min to k_max, at most n - 1 and the number of different vectors, and takes the best by
    ``choose_by``, of equals the smallest; HDBSCAN finds the number itself.

    Raises ErasmoError for NaN or infinities, fewer than k + 1 rows or k different vectors (k_min for `auto`), for more
    rows than fit in memory where the method works on pairs of them, and where the method finds no segments.
    """
    vectors = checked(vectors)
    _check_rows(len(vectors), settings)
    space = Space.fit(vectors, settings, seed=seed)
    points = space.project(vectors)
    notes: list[str] = []
    if settings.reduce.method and settings.reduction[0] != "none" and space.dimensions < settings.reduction[1]:
        notes.append(f"The vectors give {space.dimensions} dimensions, fewer than clustering.reduce asks for.")
    ks = _segment_counts(points, settings, notes)
    partitions = _partitions(space, points, ks, settings, seed, notes, layout)
    swept = settings.k == "auto" and settings.method != "hdbscan"
    sweep = _sweep(partitions, points, settings, seed) if swept else ()
    k, reason = _best(sweep, settings.choose_by, len(points)) if sweep else (max(partitions), "")
    model, own = partitions[k].finish()
    return ClusterResult(own.labels, k, own.confidence, own.memberships, sweep, model, tuple(notes), reason)


def _check_rows(rows: int, settings: ClusteringSettings) -> None:
    name, least, _ = _asked(settings)
    if rows <= least:
        raise ErasmoError(
            f"Got {rows} row{'s' * (rows != 1)} for {name}",
            expected=f"at least {least + 1}",
            fix=f"{_lower(name, least)}bring more rows",
        )


def _asked(settings: ClusteringSettings) -> tuple[str, int, int]:
    """The setting that says how many segments there are to be, and the least and the most of them."""
    if settings.method == "hdbscan":
        return "clustering.method=hdbscan", 2, 2
    if settings.k == "auto":
        return f"clustering.k_min={settings.k_min}", settings.k_min, settings.k_max
    return f"clustering.k={settings.k}", settings.k, settings.k


def _lower(name: str, least: int) -> str:
    return f"lower {name.partition('=')[0]} or " if least > 2 else ""


def _segment_counts(points: Floats, settings: ClusteringSettings, notes: list[str]) -> range:
    """The numbers of segments to try: the one given, or those of the sweep that the rows allow; 0 for HDBSCAN's own."""
    name, least, most = _asked(settings)
    rows, different = len(points), _count_different(points, most)
    if different < least:
        raise ErasmoError(
            f"Got {different} different vector{'s' * (different != 1)} in {rows} rows for {name}",
            expected=f"at least {least}",
            fix=f"{_lower(name, least)}use columns that tell the rows apart",
        )
    if settings.method == "hdbscan":
        return range(1)
    highest = min(most, rows - 1, different)
    if highest < most:
        reason = f"{rows} rows" if rows - 1 <= different else f"{different} different vectors"
        notes.append(f"The sweep ended at k={highest}, below clustering.k_max={most}: there are only {reason}.")
    return range(least, highest + 1)


def _count_different(points: Floats, enough: int) -> int:
    """Number of different rows, counted up to ``enough``."""
    seen: set[bytes] = set()
    for row in points:
        seen.add((row + 0.0).tobytes())  # -0.0 becomes 0.0
        if len(seen) == enough:
            break
    return len(seen)


def _partitions(
    space: Space,
    points: Floats,
    ks: range,
    settings: ClusteringSettings,
    seed: int,
    notes: list[str],
    layout: Layout | None,
) -> dict[int, _Partition]:
    """Partitions by the number of segments found: ``ks``, but for what a method could not tell apart."""
    partitions: dict[int, _Partition] = {}
    refused: StructureError | None = None
    # OpenMP's threads add up in the order in which they finish, and k-means can end elsewhere for it.
    with one_thread("openmp"), warnings.catch_warnings():
        # The notes say both, in the words of the settings.
        warnings.filterwarnings("ignore", r"Number of distinct clusters .* found smaller than n_clusters")
        warnings.filterwarnings("ignore", "Graph is not fully connected")
        partitioner = prepare(points, settings, seed=seed, k_max=ks[-1], layout=layout)
        notes.extend(partitioner.notes)
        finishers = {"centers": _by_centers, "rows": _by_rows, "memberships": _by_memberships}
        for k in ks:
            try:
                cut = partitioner.cut(k)
            except StructureError as error:
                refused = error
                if len(ks) > 1:
                    notes.append(f"The sweep left k={k} out: {error.got[0].lower()}{error.got[1:]}.")
                continue
            notes.extend(cut.notes)
            partition = finishers[partitioner.by](cut, space, points, seed, notes)
            found = int(partition.labels.max()) + 1
            if found < k:
                notes.append(f"Asked for k={k}, {settings.method} told {found} segments apart.")
            partitions.setdefault(found, partition)
    partitions.pop(1, None)
    if not partitions:
        raise refused or ErasmoError(
            f"Got one segment from clustering.method={settings.method}",
            expected="at least two",
            fix="choose another clustering.method, or use columns that tell the rows apart",
        )
    return partitions


def _by_centers(cut: Cut, space: Space, points: Floats, seed: int, notes: list[str]) -> _Partition:
    # The estimator works in 32 bits, so that a row between two centres can be on the other side.
    labels, settled = settle(cut.labels, points, rounds=_SETTLE_ROUNDS)
    if not settled:
        notes.append(f"k-means with k={labels.max() + 1} still moved rows after {_SETTLE_ROUNDS} rounds.")

    def finish() -> tuple[SegmentModel, Assignment]:
        model = SegmentModel(space, means(points, labels), NearestCenter())
        return model, model.rule.place(points, model.centers)

    return _Partition(labels, finish)


def _by_memberships(cut: Cut, space: Space, points: Floats, seed: int, notes: list[str]) -> _Partition:
    """Segments by size, without those that no row has its largest membership in."""
    assert cut.soft is not None
    centers, rule = cut.soft
    placed = rule.place(points, centers)
    for _ in range(_SETTLE_ROUNDS):
        order = by_size(np.bincount(placed.labels, minlength=len(centers)), centers)
        if order.tolist() == list(range(len(centers))):
            break
        centers, rule = centers[order], rule.subset(order)
        placed = rule.place(points, centers)  # a row between two segments may go to the other one now
    model = SegmentModel(space, centers, rule)
    # The memberships of one partition are kept, and not those of all that a sweep tries.
    return _Partition(placed.labels, lambda: (model, rule.place(points, centers)), cut.bits_saved)


def _by_rows(cut: Cut, space: Space, points: Floats, seed: int, notes: list[str]) -> _Partition:
    first, which = distinct_rows(points)
    labels = number(_of_most(cut.labels, which, len(first)), points)

    def finish() -> tuple[SegmentModel, Assignment]:
        centers = means(points, labels)
        kept = first[references_of(labels[first], MOST_REFERENCES, seed=seed)]
        references, their_labels = points[kept], labels[kept]
        if cut.references is not None:
            references, own = cut.references
            their_labels = labels[np.unique(cut.labels, return_index=True)[1]][own]
        if cut.confidence is None:
            closest, confidence = beside_centers(points, centers, labels)
            strays = int((closest != labels).sum())
            if strays:
                notes.append(
                    f"{strays} of {len(labels)} rows lie nearer to another segment's centre than to their own."
                )
            rule = NearestRow(references, their_labels)
            return SegmentModel(space, centers, rule), Assignment(labels, confidence)
        highest = np.zeros(len(first), dtype=np.float32)
        np.maximum.at(highest, which, cut.confidence.astype(np.float32))
        confidence = np.where(labels < 0, np.float32(0), highest[which])
        gaps = np.array([_gap(references[their_labels == segment]) for segment in range(len(centers))])
        rule = NearestRow(references, their_labels, confidence[kept], gaps)
        return SegmentModel(space, centers, rule), Assignment(labels, confidence)

    return _Partition(labels, finish)


def _of_most(labels: npt.NDArray[np.integer], which: Labels, different: int) -> npt.NDArray[np.integer]:
    """The label that most of the equal rows have, of equals the lowest: a graph or a tree may cut between them."""
    if different == len(which):
        return labels
    low, wide = int(labels.min()), int(labels.max()) - int(labels.min()) + 1
    pairs, counts = np.unique(which * wide + (labels - low), return_counts=True)
    place, label = pairs // wide, pairs % wide + low
    order = np.lexsort((label, -counts, place))
    best = order[np.unique(place[order], return_index=True)[1]]
    return np.asarray(label[best][which])


def _gap(references: Floats) -> float:
    """The largest distance between one of some different rows and the next of them; 0 for a single one."""
    return float(nearest(references, references, 2)[1][:, -1].max())


def _sweep(
    partitions: dict[int, _Partition], points: Floats, settings: ClusteringSettings, seed: int
) -> tuple[SweepPoint, ...]:
    sweep = []
    for k, partition in sorted(partitions.items()):
        figures = internal_metrics(points, partition.labels, max_rows=settings.metrics_rows, seed=seed)
        smallest = int(np.bincount(partition.labels[partition.labels >= 0]).min())
        separation = (figures["silhouette"], figures["calinski_harabasz"], figures["davies_bouldin"])
        sweep.append(SweepPoint(k, *separation, smallest, partition.bits_saved, figures["silhouette_error"]))
    return tuple(sweep)


def _best(sweep: tuple[SweepPoint, ...], criterion: str, rows: int) -> tuple[int, str]:
    """The number of segments that the sweep speaks for, and why; of equals the smallest."""
    if criterion == "bits_saved":
        return _fewest_that_save(sweep, rows)
    sign = -1 if criterion == "davies_bouldin" else 1
    best = max(sweep, key=lambda point: (sign * getattr(point, criterion), -point.k))
    extreme = "lowest" if sign < 0 else "highest"
    name = criterion.replace("_", "-").title() if "_" in criterion else criterion
    return best.k, f"{best.k} segments have the {extreme} {name}, {getattr(best, criterion):.3g}."


def _fewest_that_save(sweep: tuple[SweepPoint, ...], rows: int) -> tuple[int, str]:
    """The fewest segments that save ENOUGH of what any number saves; of those with segments of LEAST_SHARE and more."""
    least = max(2, round(LEAST_SHARE * rows))
    large = [point for point in sweep if point.smallest >= least] or list(sweep)
    best = max(large, key=lambda point: (point.bits_saved or 0.0, -point.k))
    most = best.bits_saved or 0.0
    if most <= 0:
        return min(point.k for point in large), "No number of segments describes the rows more briefly than none does."
    chosen = next(point for point in sorted(large, key=lambda p: p.k) if (point.bits_saved or 0.0) >= ENOUGH * most)
    own = chosen.bits_saved or 0.0
    if chosen is best:
        return chosen.k, f"{best.k} segments save the most bits in describing a row, {most:.2g}."
    return chosen.k, (
        f"{chosen.k} are the fewest segments that save {ENOUGH:.0%} of the bits a row that any number saves: "
        f"{own:.2g} of {most:.2g}, at {best.k} segments."
    )
