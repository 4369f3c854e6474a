"""Ideas that join several ways to segment a table, or choose among them without labels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.quality.ideas_columns import Draw, Readers, mixture, points_kmeans
from benchmarks.quality.judge import subsets_agreement
from benchmarks.quality.peers import Labels, calm, gower_average, kmeans, kprototypes, one_hot_kmeans
from benchmarks.quality.suite import Sample
from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.gower import gower_distances, gower_silhouette
from erasmo_dagster.method.tables.mixture import LEAST_SHARE
from erasmo_dagster.method.tables.referee import Referee

Doubles = npt.NDArray[np.float64]
NEIGHBOURS = 15
_MOST_KEPT = 8  # samples and seeds whose candidates are kept
_DIGITS = 9  # of a figure: one partition in another order of segments adds up to others beyond


def consensus(sample: Sample, readers: Readers, seed: int) -> Labels:
    """Average linkage of how seldom two rows are together in three views: mixture, one-hot and sentence encoder.

    Evidence accumulation (Fred and Jain, 2005, "Combining multiple clusterings").
    """
    from sklearn.cluster import AgglomerativeClustering

    views = [_CANDIDATES[name](sample, readers, seed) for name in ("fused", "onehot-kmeans", "minilm-kmeans")]
    apart = 1 - np.mean([labels[:, None] == labels for labels in views], axis=0)
    with calm():
        found = AgglomerativeClustering(sample.k, metric="precomputed", linkage="average").fit_predict(apart)
    return np.asarray(found, dtype=np.int64)


def fused_graph(sample: Sample, readers: Readers, seed: int) -> Labels:
    """Spectral clustering of the mean of two graphs of 15 neighbours: by Gower distance, and of the sentence encoder's.

    Each row's neighbours weigh 1 together in each graph.
    """
    from sklearn.cluster import SpectralClustering
    from sklearn.metrics import pairwise_distances

    by_columns = gower_distances(sample.frame, sample.plan.columns)
    with calm():
        by_vectors = pairwise_distances(readers.minilm(sample))
        graphs = [_neighbours(apart) for apart in (by_columns, by_vectors) if apart is not None]
        near = np.mean(graphs, axis=0)
        model = SpectralClustering(sample.k, affinity="precomputed", random_state=seed)
        return np.asarray(model.fit_predict((near + near.T) / 2), dtype=np.int64)


def _neighbours(apart: npt.NDArray[np.floating]) -> Doubles:
    """Row-normalised affinities to the nearest other rows, of equals the first."""
    own = apart.astype(np.float64)
    np.fill_diagonal(own, np.inf)
    count = min(NEIGHBOURS, len(own) - 1)
    nearest = np.argsort(own, axis=1, kind="stable")[:, :count]
    near = np.zeros_like(own)
    np.put_along_axis(near, nearest, 1 / count, axis=1)
    return near


# What `auto` compares, by other names.
_CANDIDATES: dict[str, Draw] = {
    "fused": lambda sample, readers, seed: mixture(sample, readers.sentences, seed),
    "columns-kmeans": points_kmeans,
    "onehot-kmeans": lambda sample, _, seed: one_hot_kmeans(sample.frame, sample.plan, sample.k, seed),
    "gower-average": lambda sample, _, seed: gower_average(sample.frame, sample.plan, sample.k, seed),
    "kprototypes": lambda sample, _, seed: kprototypes(sample.frame, sample.plan, sample.k, seed),
    "minilm-kmeans": lambda sample, readers, seed: kmeans(readers.minilm(sample), sample.k, seed),
}


@dataclass(frozen=True, eq=False)
class Candidates:
    """The segments of each candidate that can be drawn and has none below the floor; all where each has one.

    ``seconds`` is what drawing them took.
    """

    labels: dict[str, Labels]
    seconds: float


# A figure of a candidate, the higher the better; None where it is not defined.
Figure = Callable[[str, Labels], float | None]
Judge = Callable[[Sample, Readers, int], Figure]
_kept: dict[tuple[str, int], Candidates] = {}


def drawn(sample: Sample, readers: Readers, seed: int) -> Candidates:
    """The candidates of a sample, drawn once for all ways to choose. Raises ErasmoError where there is none."""
    key = (sample.id, seed)
    if key in _kept:
        readers.shared_seconds += _kept[key].seconds
    else:
        started, found = time.monotonic() + readers.kept_seconds, {}
        for name, draw in _CANDIDATES.items():
            try:
                found[name] = draw(sample, readers, seed)
            except ErasmoError:
                continue
        if not found:
            raise ErasmoError("Got no candidate to choose", expected="at least one that can be drawn")
        enough = {name: labels for name, labels in found.items() if _smallest(labels) >= LEAST_SHARE}
        while len(_kept) >= _MOST_KEPT:
            del _kept[next(iter(_kept))]
        _kept[key] = Candidates(enough or found, time.monotonic() - started + readers.kept_seconds)
    return _kept[key]


def _smallest(labels: Labels) -> float:
    return float(np.unique(labels, return_counts=True)[1].min() / len(labels))


def chosen_by(judge: Judge) -> Draw:
    """The candidate with the highest figure, of equals the first."""

    def draw(sample: Sample, readers: Readers, seed: int) -> Labels:
        candidates = drawn(sample, readers, seed).labels
        if len(candidates) == 1:
            return next(iter(candidates.values()))
        figure = judge(sample, readers, seed)
        told = {name: figure(name, labels) for name, labels in candidates.items()}
        best = max(told, key=lambda name: -np.inf if (value := told[name]) is None else round(value, _DIGITS))
        return candidates[best]

    return draw


def by_bits(sample: Sample, readers: Readers, seed: int) -> Figure:
    """Bits saved, as `auto` chooses."""
    referee = Referee(sample.frame, sample.plan.columns, seed=seed)
    return lambda _, labels: referee.bits_saved(labels)


def by_silhouette(sample: Sample, readers: Readers, seed: int) -> Figure:
    """Silhouette by Gower distance."""
    apart = gower_distances(sample.frame, sample.plan.columns)
    return lambda _, labels: None if apart is None else gower_silhouette(apart, labels)


def by_separation(sample: Sample, readers: Readers, seed: int) -> Figure:
    """The mean share of each column that the segments explain."""
    from erasmo_dagster.method.measures import separation

    def figure(_: str, labels: Labels) -> float | None:
        found = separation(sample.frame, sample.plan.columns, labels, seed=0, permutations=1)
        return None if found is None else found.share

    return figure


def by_stability(sample: Sample, readers: Readers, seed: int) -> Figure:
    """Agreement of the segments of two random subsets of 80 % of the rows."""

    def figure(name: str, labels: Labels) -> float | None:
        def refit(rows: npt.NDArray[np.intp], own: int) -> Labels:
            return _CANDIDATES[name](sample.part(rows), readers, own)

        try:
            return subsets_agreement(refit, len(labels), sample_seed=sample.seed, seed=seed)
        except ErasmoError:
            return None

    return figure
