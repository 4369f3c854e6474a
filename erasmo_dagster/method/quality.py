"""How good segments are: from the vectors alone, and against known groups where there are any.

The figures are scikit-learn's own; the matching of segments to classes is SciPy's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]

# Kaufman and Rousseeuw (1990), "Finding Groups in Data", chapter 2: below .25 no substantial structure, from .5 on a
# reasonable one.
LOOSE, CLEAR = 0.25, 0.5
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
            "gower_silhouette",
            "The silhouette by the table's own columns (Gower distance), -1 to 1; compares across models.",
            True,
            -1.0,
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
        ("rows", "Rows that the figures of separation are about; noise is left out.", None, 0.0, math.inf),
        ("segments", "Segments that these rows are in.", None, 0.0, math.inf),
        ("ari", "Agreement with the label beyond chance (adjusted Rand index); 1 is equal, 0 chance.", True, -0.5, 1.0),
        ("nmi", "Information that segments and label share, 0 to 1; it favours many segments.", True, 0.0, 1.0),
        ("homogeneity", "1 where every segment holds rows of one label alone; it favours many.", True, 0.0, 1.0),
        (
            "accuracy",
            "Share of rows whose label is the one matched to their segment, one label a segment.",
            True,
            0.0,
            1.0,
        ),
        ("f1_weighted", "F1 of the labels after the same matching, weighted by their rows.", True, 0.0, 1.0),
        ("label_rows", "Rows that have a label.", None, 0.0, math.inf),
    )
}


def internal_metrics(vectors: Floats, labels: Labels, *, max_rows: int, seed: int) -> dict[str, float]:
    """Figures of ``labels`` int[n] from the distances between ``vectors`` float[n, d].

    ``silhouette`` (on ``silhouette_rows`` rows: beyond ``max_rows`` a seeded sample with at least one row of every
    segment), ``calinski_harabasz`` and ``davies_bouldin``, of ``rows`` rows in ``segments`` segments. Rows of label -1
    are noise and left out. With one segment, or a segment for every row, the three are not defined and not there.
    """
    from sklearn import config_context
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    if (labels < 0).any():
        vectors, labels = vectors[labels >= 0], labels[labels >= 0]
    segments = np.unique(labels).size
    figures = {"silhouette_rows": 0.0, "rows": float(len(labels)), "segments": float(segments)}
    if not 2 <= segments < len(labels):
        return figures
    vectors = centered(vectors)
    sample = _sample(labels, max(max_rows, 2 * segments), seed)
    with config_context(working_memory=64):  # MiB of distances at a time; the default is 1024
        silhouette = silhouette_score(vectors[sample], labels[sample])
    return {
        "silhouette": float(silhouette),
        "calinski_harabasz": float(calinski_harabasz_score(vectors, labels)),
        "davies_bouldin": float(davies_bouldin_score(vectors, labels)),
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


def external_metrics(labels: Labels, truth: Sequence[str | None]) -> dict[str, float]:
    """Agreement of ``labels`` int[n] with known groups; rows whose ``truth`` is None are left out.

    ``ari``, ``nmi``, ``homogeneity``, and ``accuracy`` and ``f1_weighted`` after matching segments to classes one to
    one so that most rows agree (Kuhn, 1955), of ``label_rows`` rows; that alone where no row has a label. Noise (-1) is
    a group of its own, but matched to no class: its rows count as wrong.
    """
    from sklearn.metrics import (
        accuracy_score,
        adjusted_rand_score,
        f1_score,
        homogeneity_score,
        normalized_mutual_info_score,
    )

    if len(labels) != len(truth):
        raise ValueError(f"got {len(labels)} labels and {len(truth)} known groups, expected as many")
    known = np.array([group is not None for group in truth], dtype=bool)
    if not known.any():
        return {"label_rows": 0.0}
    names, classes = np.unique([group for group in truth if group is not None], return_inverse=True)
    labels = labels[known]
    matched = _matched_classes(labels, classes, len(names))
    return {
        "ari": float(adjusted_rand_score(classes, labels)),
        "nmi": float(normalized_mutual_info_score(classes, labels)),
        "homogeneity": float(homogeneity_score(classes, labels)),
        "accuracy": float(accuracy_score(classes, matched)),
        "f1_weighted": float(f1_score(classes, matched, average="weighted", zero_division=0)),
        "label_rows": float(known.sum()),
    }


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
    others = np.setdiff1d(np.arange(len(labels)), first)
    return np.sort(order[np.concatenate([first, others])[:size]])


def _matched_classes(labels: Labels, classes: Labels, n_classes: int) -> npt.NDArray[np.int64]:
    """The class that each row's segment is matched to, -1 where it is matched to none."""
    from scipy.optimize import linear_sum_assignment

    segments, segment = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(segments), n_classes), np.int64)
    np.add.at(counts, (segment, classes), 1)
    # Where several matchings are best, the choice must not depend on the segments' numbers.
    candidates = np.lexsort(counts.T)
    candidates = candidates[segments[candidates] >= 0]
    row, column = linear_sum_assignment(counts[candidates], maximize=True)
    class_of = np.full(len(segments), -1)
    class_of[candidates[row]] = column
    return class_of[segment]
