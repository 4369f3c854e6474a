"""The figures of a partition: against the known groups, by the table's own columns, and under refits."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from benchmarks.quality.suite import Drawn, Sample
from erasmo_dagster import progress
from erasmo_dagster.method.agreement import external_metrics

Labels = npt.NDArray[np.int64]
Positions = npt.NDArray[np.intp]
Refit = Callable[[Positions, int], Labels]  # rows to fit on, the algorithm's seed -> their labels

OTHER_SEEDS = 2
SHARE = 0.8  # of the rows that each of the two subsets has


def external(labels: Labels, truth: tuple[str, ...] | None) -> dict[str, float | None]:
    """``ari``, ``nmi`` and ``acc`` (segments matched one to one with groups); None without known groups."""
    if truth is None:
        return {"ari": None, "nmi": None, "acc": None}
    found = external_metrics(labels, list(truth))
    return {"ari": found["ari"], "nmi": found["nmi"], "acc": found["accuracy"]}


def label_free(sample: Sample, labels: Labels) -> dict[str, float | None]:
    """``gower_silhouette`` and ``eta2``, the mean share of each column that the segments explain.

    Of the table's own columns, so that they compare methods; None where they are not defined. The seed is one for all.
    """
    return {
        "gower_silhouette": _taken("gower_silhouette", lambda: _silhouette(sample, labels)),
        "eta2": _taken("eta2", lambda: _separation(sample, labels)),
    }


def _silhouette(sample: Sample, labels: Labels) -> float | None:
    from erasmo_dagster.method.measures import gower_silhouette_of

    found = gower_silhouette_of(sample.frame, sample.plan.columns, labels, seed=0)
    return None if found is None else found.value


def _separation(sample: Sample, labels: Labels) -> float | None:
    from erasmo_dagster.method.measures import separation

    # No p-value is shown, and permutations are what takes the time.
    found = separation(sample.frame, sample.plan.columns, labels, seed=0, permutations=1)
    return None if found is None else found.share


def _taken(name: str, figure: Callable[[], float | None]) -> float | None:
    """A figure, or None where it fails: the others of the row still count."""
    try:
        return figure()
    except (Exception, pl.exceptions.PanicException) as error:  # a panic inside polars is no Exception
        progress.note(f"{name}: {type(error).__name__}: {error}"[:300])
        return None


def stability(refit: Refit, labels: Labels, *, sample_seed: int, seed: int) -> dict[str, float | None]:
    """``seeds``: mean adjusted Rand index of ``labels`` int[n] with those of two other seeds on the same rows.

    ``stability`` is the mean of both pairs and a third: the labels of two random subsets, of 80 % of the rows each, on
    the rows that both have. None where a refit fails, as on a subset without one of the few rows that tell segments
    apart.
    """
    by_seed: list[float] = []

    def of_seeds() -> float:
        by_seed.extend(_agreement(labels, refit(rows, seed + 1 + other)) for other in range(OTHER_SEEDS))
        return float(np.mean(by_seed))

    def of_all() -> float:
        halves = subsets_agreement(refit, len(labels), sample_seed=sample_seed, seed=seed)
        return float(np.mean([*by_seed, halves]))

    rows = np.arange(len(labels))
    seeds = _taken("seeds", of_seeds)
    return {"seeds": seeds, "stability": None if seeds is None else _taken("stability", of_all)}


def subsets_agreement(refit: Refit, count: int, *, sample_seed: int, seed: int) -> float:
    """Adjusted Rand index of the labels of two random subsets of ``count`` rows, 80 % each, on the rows of both."""
    rng = np.random.default_rng([sample_seed, 1])
    most = max(2, round(SHARE * count))
    these, those = (np.sort(rng.permutation(count)[:most]) for _ in range(2))
    _, first, second = np.intersect1d(these, those, assume_unique=True, return_indices=True)
    return _agreement(refit(these, seed)[first], refit(those, seed)[second])


def _agreement(first: Labels, second: Labels) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(first, second))


def same_segment(labels: Labels, others: Callable[[], Labels]) -> float | None:
    """Share of the rows that are in the same segment in ``labels`` int[n] and another partition of them.

    Segments are matched one to one so that it is greatest (Kuhn, 1955, "The Hungarian method"). None where that
    partition fails.
    """

    def share() -> float:
        return external_metrics(labels, others().tolist())["accuracy"]

    return _taken("order", share)


def judged(drawn: Drawn, labels: Labels) -> dict[str, float | None]:
    """All figures but the stability."""
    return {**external(labels, drawn.truth), **label_free(drawn.sample, labels)}
