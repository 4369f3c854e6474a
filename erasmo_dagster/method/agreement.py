"""How well segments agree with known groups.

Accuracy and F1 compare labels with labels, so each segment has to be read as one. There are three readings:

- one to one: each label goes to one segment at most, so that most rows agree (Kuhn, 1955). Segments or labels that are
  left over count as wrong. This is the reading of ``accuracy``, ``f1_weighted`` and ``f1_macro``.
- majority: a segment is the label that most of its rows have, and several may be one label. A segment for every row is
  then perfect. arXiv 2410.03738 reads them so in its code.
- centroid: a segment is the label whose mean vector is nearest to its own by cosine similarity, for arXiv 2403.15112.
  It needs the vectors, and it too may read several as one label.

Noise (-1) is a group of its own, but read as no label: its rows count as wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
Labels = npt.NDArray[np.integer]
Classes = npt.NDArray[np.int64]


def external_metrics(labels: Labels, truth: Sequence[str | None], vectors: Floats | None = None) -> dict[str, float]:
    """Agreement of ``labels`` int[n] with known groups; rows whose ``truth`` is None are left out.

    ``ari``, ``nmi``, ``ami``, ``homogeneity``, ``completeness`` and ``v_measure``, which need no reading of the
    segments; ``accuracy``, ``f1_weighted`` and ``f1_macro`` one to one; ``accuracy_majority`` and
    ``f1_weighted_majority``; with ``vectors`` float[n, d] also ``accuracy_centroid`` and ``f1_weighted_centroid``. All
    of ``label_rows`` rows; that alone where no row has a label.
    """
    from sklearn.metrics import (
        adjusted_mutual_info_score,
        adjusted_rand_score,
        f1_score,
        homogeneity_completeness_v_measure,
        normalized_mutual_info_score,
    )

    if len(labels) != len(truth):
        raise ValueError(f"got {len(labels)} labels and {len(truth)} known groups, expected as many")
    if vectors is not None and len(vectors) != len(labels):
        raise ValueError(f"got {len(labels)} labels and {len(vectors)} vectors, expected as many")
    known = np.array([group is not None for group in truth], dtype=bool)
    if not known.any():
        return {"label_rows": 0.0}
    names, classes = np.unique([group for group in truth if group is not None], return_inverse=True)
    labels = labels[known]
    matched = _one_to_one(labels, classes)
    homogeneity, completeness, v_measure = homogeneity_completeness_v_measure(classes, labels)
    figures = {
        "ari": adjusted_rand_score(classes, labels),
        "nmi": normalized_mutual_info_score(classes, labels),
        "ami": adjusted_mutual_info_score(classes, labels),
        "homogeneity": homogeneity,
        "completeness": completeness,
        "v_measure": v_measure,
        **_read_as(matched, classes, ""),
        # Of the labels alone: that of noise and of what is matched to none is no class.
        "f1_macro": f1_score(classes, matched, labels=np.arange(len(names)), average="macro", zero_division=0),
        **_read_as(_majority(labels, classes), classes, "_majority"),
    }
    if vectors is not None:
        figures |= _read_as(_nearest_centroid(labels, classes, vectors[known]), classes, "_centroid")
    # Sums of logarithms can end a hair above 1.
    return {name: min(float(value), 1.0) for name, value in figures.items()} | {"label_rows": float(known.sum())}


def majority_reading(labels: Labels, truth: Sequence[str]) -> tuple[Classes, Classes]:
    """``labels`` int[n] and ``truth`` as classes int64[n], 0 the first in the order of names.

    A row's first class is the one that most rows of its segment have (of equals the first), -1 for noise; its second is
    its own. As ``align_labels_with_max`` in the code of arXiv 2410.03738.
    """
    classes = np.unique(truth, return_inverse=True)[1]
    return _majority(labels, classes), classes


def _read_as(read: Classes, classes: Classes, suffix: str) -> dict[str, float]:
    from sklearn.metrics import accuracy_score, f1_score

    return {
        f"accuracy{suffix}": accuracy_score(classes, read),
        f"f1_weighted{suffix}": f1_score(classes, read, average="weighted", zero_division=0),
    }


def _counts(labels: Labels, classes: Classes) -> tuple[Labels, npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """The segments' numbers, each row's position among them, and the rows by segment and class."""
    segments, segment = np.unique(labels, return_inverse=True)
    counts = np.zeros((len(segments), classes.max() + 1), np.int64)
    np.add.at(counts, (segment, classes), 1)
    return segments, segment, counts


def _one_to_one(labels: Labels, classes: Classes) -> Classes:
    """The class that each row's segment is matched to, -1 where it is matched to none."""
    from scipy.optimize import linear_sum_assignment

    segments, segment, counts = _counts(labels, classes)
    # Where several matchings are best, the choice must not depend on the segments' numbers.
    candidates = np.lexsort(counts.T)
    candidates = candidates[segments[candidates] >= 0]
    row, column = linear_sum_assignment(counts[candidates], maximize=True)
    class_of = np.full(len(segments), -1)
    class_of[candidates[row]] = column
    return class_of[segment]


def _majority(labels: Labels, classes: Classes) -> Classes:
    """The class that most rows of each row's segment have, -1 for noise."""
    segments, segment, counts = _counts(labels, classes)
    return np.where(segments < 0, -1, counts.argmax(axis=1))[segment]


def _nearest_centroid(labels: Labels, classes: Classes, vectors: Floats) -> Classes:
    """The class with the mean vector nearest to that of each row's segment, by cosine; -1 for noise."""
    segments, segment = np.unique(labels, return_inverse=True)
    similarity = _directions(vectors, segment) @ _directions(vectors, classes).T
    return np.where(segments < 0, -1, similarity.argmax(axis=1))[segment]


def _directions(vectors: Floats, groups: Labels) -> npt.NDArray[np.float64]:
    """The mean of each group's vectors, at length 1: float64[groups, d]; one of length 0 stays."""
    means = np.stack([vectors[groups == group].mean(axis=0, dtype=np.float64) for group in range(groups.max() + 1)])
    return np.asarray(means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12))
