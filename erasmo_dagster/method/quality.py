"""How good segments are: from the vectors alone, and against known groups where there are any.

The figures are scikit-learn's. Those that need known groups are computed in :mod:`erasmo_dagster.method.agreement`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.agreement import external_metrics, majority_reading
from erasmo_dagster.method.compactness import silhouette, spread

__all__ = [
    "METRICS",
    "PAPER_METRICS",
    "MetricInfo",
    "centered",
    "external_metrics",
    "internal_metrics",
    "paper_metrics",
    "read_jaccard",
    "read_metrics",
    "read_stability",
]

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

# Kaufman and Rousseeuw (1990), "Finding Groups in Data", chapter 2: below .25 no substantial structure, from .5 on a
# reasonable one.
LOOSE, CLEAR = 0.25, 0.5
# Hennig (2007), "Cluster-wise assessment of cluster stability", CSDA 52: how a segment's mean Jaccard is read.
DOUBTFUL, VALID, HIGHLY_STABLE = 0.6, 0.75, 0.85
# Steinley (2004), "Properties of the Hubert-Arabie adjusted Rand index", Psychological Methods 9.
POOR, GOOD, EXCELLENT = 0.65, 0.8, 0.9
# Share of the variance that lies between the segments, from which they are called separated: a convention of ours.
SEPARATED = 1 / 3


@dataclass(frozen=True)
class MetricInfo:
    """What a figure says. ``low`` and ``high`` are its bounds; ``higher_is_better`` is None where neither is."""

    name: str
    description: str
    higher_is_better: bool | None
    low: float
    high: float


METRICS: dict[str, MetricInfo] = {
    name: MetricInfo(name, description, higher_is_better, low, high)
    for name, description, higher_is_better, low, high in (
        (
            "silhouette",
            "How much nearer rows are to their own segment than to the next, -1 to 1; compare within one vector space.",
            True,
            -1.0,
            1.0,
        ),
        (
            "silhouette_error",
            "Standard error of silhouette over the rows drawn; two that differ by less than twice it are alike.",
            None,
            0.0,
            math.inf,
        ),
        (
            "gower_silhouette",
            "The silhouette by the table's own columns, free text by its words, missing values by their column's "
            "mean (Gower distance), -1 to 1; compares across models.",
            True,
            -1.0,
            1.0,
        ),
        (
            "gower_silhouette_error",
            "Standard error of gower_silhouette over the rows drawn; two that differ by less than twice it are alike.",
            None,
            0.0,
            math.inf,
        ),
        (
            "separation",
            "Mean share of a column's variance or entropy that segments explain, 0 to 1; it grows with the segments, "
            "so compare at equal numbers of them.",
            True,
            0.0,
            1.0,
        ),
        (
            "separation_error",
            "Standard error of separation over the choice of rows; two that differ by less than twice it are alike.",
            None,
            0.0,
            math.inf,
        ),
        (
            "separation_p",
            "How often segments dealt at random explain as much of the columns; above 0.05 they say no more than "
            "chance.",
            False,
            0.0,
            1.0,
        ),
        (
            "tree_accuracy",
            "Share of unseen rows whose segment a small decision tree on the columns tells, 0 to 1; read it against "
            "tree_baseline.",
            True,
            0.0,
            1.0,
        ),
        (
            "tree_accuracy_error",
            "Standard error of tree_accuracy over the folds; two that differ by less than twice it are alike.",
            None,
            0.0,
            math.inf,
        ),
        (
            "tree_baseline",
            "Share of rows in the largest segment: what tree_accuracy is for who always guesses that one.",
            None,
            0.0,
            1.0,
        ),
        (
            "stability",
            "Agreement (adjusted Rand index) of the segments with those found on resampled rows; 1 is the same, 0 "
            "chance, 0.8 good and below 0.65 poor.",
            True,
            -0.5,
            1.0,
        ),
        (
            "stability_error",
            "Standard error of stability over the resamples; two that differ by less than twice it are alike.",
            None,
            0.0,
            math.inf,
        ),
        (
            "stability_split_half",
            "Agreement (adjusted Rand index) of segments found on two halves of the rows; 1 is the same, 0 chance; "
            "mostly lower than stability, since halves have fewer rows.",
            True,
            -0.5,
            1.0,
        ),
        (
            "stability_seeds",
            "Agreement (adjusted Rand index) of the segments with those found by other seeds; below 0.9 the seed "
            "decides on some of them.",
            True,
            -0.5,
            1.0,
        ),
        (
            "stability_worst_segment",
            "How well the least stable segment is found again on resampled rows (Jaccard, 0 to 1); below 0.6 do not "
            "trust it, from 0.75 on it is valid.",
            True,
            0.0,
            1.0,
        ),
        (
            "stability_orders",
            "Share of rows that keep their segment where their columns are read in another order, 0 to 1; rows are "
            "always read in one order, so that of the source never matters.",
            True,
            0.0,
            1.0,
        ),
        ("silhouette_rows", "Rows on which the silhouette was measured.", None, 0.0, math.inf),
        (
            "calinski_harabasz",
            "Variance between segments over variance within; higher is better, and it grows with the rows.",
            True,
            0.0,
            math.inf,
        ),
        (
            "davies_bouldin",
            "Spread of segments against the distance to their most similar one; lower is better, 0 is perfect.",
            False,
            0.0,
            math.inf,
        ),
        ("rows", "Rows that the figures of the vectors are about; noise is left out.", None, 0.0, math.inf),
        ("segments", "Segments that these rows are in.", None, 0.0, math.inf),
        ("ari", "Agreement with the label beyond chance (adjusted Rand index); 1 is equal, 0 chance.", True, -0.5, 1.0),
        ("nmi", "Information that segments and label share, 0 to 1; it favours many segments.", True, 0.0, 1.0),
        ("ami", "Information that segments and label share beyond chance; 1 is equal, 0 chance.", True, -1.0, 1.0),
        ("homogeneity", "1 where every segment holds rows of one label alone; it favours many.", True, 0.0, 1.0),
        ("completeness", "1 where all rows of a label are in one segment; it favours few segments.", True, 0.0, 1.0),
        ("v_measure", "Harmonic mean of homogeneity and completeness, 0 to 1; it equals nmi.", True, 0.0, 1.0),
        (
            "accuracy",
            "Share of rows whose label is the one matched to their segment, one label a segment.",
            True,
            0.0,
            1.0,
        ),
        ("f1_weighted", "F1 of the labels after the same matching, weighted by their rows.", True, 0.0, 1.0),
        ("f1_macro", "F1 of the labels after the same matching, every label counting alike.", True, 0.0, 1.0),
        (
            "accuracy_majority",
            "Share of rows whose label is the one that most rows of their segment have; it grows with the segments.",
            True,
            0.0,
            1.0,
        ),
        (
            "f1_weighted_majority",
            "F1, weighted by rows, with segments read as the label of most of their rows; it grows with the segments.",
            True,
            0.0,
            1.0,
        ),
        (
            "accuracy_centroid",
            "Share of rows whose label is the one with the mean vector nearest to that of their segment, by cosine.",
            True,
            0.0,
            1.0,
        ),
        (
            "f1_weighted_centroid",
            "F1, weighted by rows, with segments read as the label of the nearest mean vector, by cosine.",
            True,
            0.0,
            1.0,
        ),
        ("label_rows", "Rows that have a label.", None, 0.0, math.inf),
    )
}

_DISTANCE_FIGURES = ("silhouette", "calinski_harabasz", "davies_bouldin")
# What `paper_metrics` gives; no version's figures, so that they stand apart.
PAPER_METRICS: dict[str, MetricInfo] = {
    f"paper_{name}": replace(
        METRICS[name],
        name=f"paper_{name}",
        description=f"{name} as the first paper's code takes it: segments of one majority label are merged first.",
    )
    for name in (*_DISTANCE_FIGURES, "f1_weighted", "ari", "homogeneity")
}


def internal_metrics(vectors: Floats, labels: Labels, *, max_rows: int, seed: int) -> dict[str, float]:
    """Figures of ``labels`` int[n] from the distances between ``vectors`` float[n, d].

    ``silhouette`` with its ``silhouette_error`` (on ``silhouette_rows`` rows: beyond ``max_rows`` a seeded sample with
    at least one row of every segment), ``calinski_harabasz`` and ``davies_bouldin`` of all ``rows`` rows in
    ``segments`` segments. Rows of label -1 are noise and left out. With one segment, or a segment for every row, the
    first four are not defined and not there. No copy of the rows is held.
    """
    if (labels < 0).any():
        vectors, labels = vectors[labels >= 0], labels[labels >= 0]
    ids, codes = np.unique(labels, return_inverse=True)
    segments = len(ids)
    figures = {"silhouette_rows": 0.0, "rows": float(len(labels)), "segments": float(segments)}
    if not 2 <= segments < len(labels):
        return figures
    sample = _sample(labels, max(max_rows, 2 * segments), seed)
    value, error = silhouette(centered(vectors[sample]), codes[sample], of=len(labels), seed=seed)
    apart = spread(vectors, codes)
    return {
        "silhouette": value,
        "silhouette_error": error,
        "calinski_harabasz": apart.calinski_harabasz,
        "davies_bouldin": apart.davies_bouldin,
        **figures,
        "silhouette_rows": float(len(sample)),
    }


def centered(vectors: Floats) -> npt.NDArray[np.float32]:
    """A copy of ``vectors`` [n, d] less their mean, which changes no distance.

    Language models' vectors share a mean far larger than their differences, and sums of 32-bit numbers lose those.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    result = np.empty(vectors.shape, np.float32)
    np.subtract(vectors, mean, out=result, casting="same_kind")
    return result


def paper_metrics(
    vectors: Floats, labels: Labels, truth: Sequence[str | None] | None, *, max_rows: int, seed: int
) -> dict[str, float]:
    """The figures as the code of arXiv 2410.03738 computes them, its fault included; never a measure of quality.

    Every segment is replaced by the label that most of its rows have, and all six figures are taken after that, those
    from the distances too. Segments of one label are merged by it, so that ``paper_silhouette``,
    ``paper_calinski_harabasz`` and ``paper_davies_bouldin`` are of fewer and other groups than the algorithm found, and
    have seen the label. ``paper_f1_weighted``, ``paper_ari`` and ``paper_homogeneity`` are of the same merged groups.
    Without ``truth`` (or any label in it) there are the first three alone, of the segments as they are.

    Rows without a label are left out where others have one; noise (-1) as in :func:`internal_metrics`, whose arguments
    ``max_rows`` and ``seed`` are.
    """
    from sklearn.metrics import f1_score

    known = np.array([group is not None for group in truth or ()], dtype=bool)
    figures: dict[str, float] = {}
    if known.any():
        groups = [group for group in truth or () if group is not None]
        vectors, (mapped, classes) = vectors[known], majority_reading(labels[known], groups)
        agreement = external_metrics(mapped, groups)
        figures = {name: agreement[name] for name in ("ari", "homogeneity")}
        figures["f1_weighted"] = float(f1_score(classes, mapped, average="weighted", zero_division=0))
        labels = mapped
    internal = internal_metrics(vectors, labels, max_rows=max_rows, seed=seed)
    figures |= {name: internal[name] for name in _DISTANCE_FIGURES if name in internal}
    return {f"paper_{name}": value for name, value in figures.items()}


def read_metrics(metrics: Mapping[str, float]) -> str:
    """One sentence on what the internal figures say together.

    It rests on two figures: the silhouette (below .25 loose, from .5 on clear) and the share of the variance that lies
    between the segments, which the Calinski-Harabasz index gives with rows and segments (from a third on separated).
    """
    silhouette, share = metrics.get("silhouette"), _variance_between(metrics)
    if silhouette is None or share is None:
        return "Separation needs at least two segments, and one with more than one row, so there is nothing to read."
    apart = share >= SEPARATED
    if silhouette >= CLEAR:
        verdict = (
            "Clear: the segments are compact and apart"
            if apart
            else "Compact, yet little of what tells rows apart lies between the segments, so look for a few stray rows"
        )
    elif silhouette >= LOOSE:
        verdict = "Visible: the segments stand apart, with rows in between"
    elif apart:
        verdict = "Separated but loose: the segments differ on average, but they are wide and their borders blur"
    else:
        verdict = "Hardly grouped: the segments cut one cloud of rows into regions rather than find groups"
    return (
        f"{verdict} (silhouette {silhouette:.2f}: below {LOOSE} is loose, from {CLEAR} on clear; Calinski-Harabasz "
        f"{metrics['calinski_harabasz']:.4g}: {share:.0%} of the variance lies between segments, a third or more is "
        "separated); compare these figures only with others of the same vectors."
    )


def read_stability(metrics: Mapping[str, float]) -> str:
    """One sentence on whether the segments are found again; empty where that is not known."""
    agreement = metrics.get("stability")
    if agreement is None:
        return ""
    if agreement >= EXCELLENT:
        verdict = "Stable: resampled rows give much the same segments"
    elif agreement >= GOOD:
        verdict = "Mostly stable: resampled rows move the borders of segments"
    elif agreement >= POOR:
        verdict = "Stable in part: resampled rows give some other segments"
    else:
        verdict = "Not stable: resampled rows give other segments, so take these for one cut of many"
    parts = [f"{verdict} (adjusted Rand index {agreement:.2f}: below {POOR} is poor, from {GOOD} on good)"]
    if (worst := metrics.get("stability_worst_segment")) is not None:
        parts.append(f"the least stable one is {read_jaccard(worst)} (Jaccard {worst:.2f})")
    if (seeds := metrics.get("stability_seeds")) is not None and seeds < EXCELLENT:
        parts.append(f"the seed decides on some of them (other seeds agree by {seeds:.2f})")
    return "; ".join(parts) + "."


def read_jaccard(jaccard: float) -> str:
    """What Hennig says of a segment that is found again with this mean Jaccard similarity, 0 to 1."""
    if jaccard < DOUBTFUL:
        return "not to be trusted"
    if jaccard < VALID:
        return "a pattern whose rows are doubtful"
    return "valid" if jaccard < HIGHLY_STABLE else "highly stable"


def _variance_between(metrics: Mapping[str, float]) -> float | None:
    """Share of the variance that lies between segments: the Calinski-Harabasz index, solved for it."""
    try:
        ratio, rows, segments = (metrics[name] for name in ("calinski_harabasz", "rows", "segments"))
    except KeyError:
        return None
    between = ratio * (segments - 1)
    return between / (between + rows - segments)


def _sample(labels: Labels, size: int, seed: int) -> npt.NDArray[np.intp]:
    """At most ``size`` rows, ascending: one of each segment, the others at random."""
    if len(labels) <= size:
        return np.arange(len(labels))
    order = np.random.default_rng(seed).permutation(len(labels))
    first = np.unique(labels[order], return_index=True)[1]
    others = np.flatnonzero(~np.isin(np.arange(len(labels)), first))
    return np.sort(order[np.concatenate([first, others])[:size]])
