"""What a clustering leaves behind: where its segments are, and how rows that come later are put into them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from erasmo_dagster.method.neighbors import nearest
from erasmo_dagster.method.space import Space

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

_CHUNK = 2048  # rows whose distances are taken at a time


@dataclass(frozen=True, eq=False)
class Assignment:
    """The segment int64[n] of each row, -1 for noise, and the confidence float32[n] in it, 0 to 1.

    ``memberships`` float32[n, k], each row's adding up to 1, where the method has them; else None.
    """

    labels: Labels
    confidence: Floats
    memberships: Floats | None = None


class Rule(Protocol):
    """How points are put into segments with ``centers`` float32[k, p], without refitting."""

    kind: ClassVar[str]

    def place(self, points: Floats, centers: Floats) -> Assignment:
        """The segments of ``points`` float32[n, p]."""
        ...

    def arrays(self) -> Arrays:
        """Its arrays, by the names of its fields."""
        ...

    def details(self) -> dict[str, Any]:
        """Its other fields, as JSON."""
        ...


class SoftRule(Rule, Protocol):
    """A rule by memberships, whose segments can be taken apart."""

    def subset(self, segments: Labels) -> SoftRule:
        """The same rule for some of its segments alone, in the order given."""
        ...


@dataclass(frozen=True)
class NearestCenter:
    """Into the segment of the nearest centre, the lower one of equals; confidence as :func:`beside_centers`."""

    kind: ClassVar[str] = "center"

    def place(self, points: Floats, centers: Floats) -> Assignment:
        """As :meth:`Rule.place`."""
        return Assignment(*beside_centers(points, centers))

    def arrays(self) -> Arrays:
        """None."""
        return {}

    def details(self) -> dict[str, Any]:
        """None."""
        return {}


@dataclass(frozen=True)
class FuzzyCenter:
    """Bezdek's memberships by the distances to the centres: u_i = 1 / sum_j (d_i / d_j)^(2 / (m - 1)).

    Bezdek (1981), "Pattern Recognition with Fuzzy Objective Function Algorithms", section 11. The label is that of the
    largest, which is the confidence.
    """

    kind: ClassVar[str] = "fuzzy"

    m: float

    def place(self, points: Floats, centers: Floats) -> Assignment:
        """As :meth:`Rule.place`."""
        apart = distances(points, centers)
        labels = apart.argmin(axis=1)
        own = apart[np.arange(len(apart)), labels][:, None]
        # Relative to the nearest, and as logarithms, so that no power overflows.
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = np.where(apart > own, np.log(own) - np.log(apart), 0.0)
        weights = np.exp(ratio * (2 / (self.m - 1)))
        memberships = np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
        return Assignment(labels, memberships[np.arange(len(apart)), labels], memberships)

    def subset(self, segments: Labels) -> FuzzyCenter:
        """Itself: the centres say all."""
        return self

    def arrays(self) -> Arrays:
        """None."""
        return {}

    def details(self) -> dict[str, Any]:
        """The fuzzifier."""
        return {"m": self.m}


@dataclass(frozen=True, eq=False)
class Mixture:
    """By the posterior of a Gaussian mixture whose means are the centres; the largest one is the confidence.

    ``weights`` float64[k] and ``precisions`` are scikit-learn's ``weights_`` and ``precisions_cholesky_`` for
    ``covariance``.
    """

    kind: ClassVar[str] = "mixture"

    covariance: str
    weights: Doubles
    precisions: Doubles

    def place(self, points: Floats, centers: Floats) -> Assignment:
        """As :meth:`Rule.place`."""
        from sklearn.mixture import GaussianMixture

        if not len(points):
            none = np.empty((0, len(centers)), dtype=np.float32)
            return Assignment(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32), none)
        mixture = GaussianMixture(len(centers), covariance_type=self.covariance)
        mixture.weights_, mixture.means_ = self.weights, centers.astype(np.float64)
        mixture.precisions_cholesky_ = self.precisions
        memberships = np.concatenate(
            [
                np.asarray(mixture.predict_proba(points[start : start + _CHUNK].astype(np.float64)), dtype=np.float32)
                for start in range(0, len(points), _CHUNK)
            ]
        )
        labels = memberships.argmax(axis=1)
        return Assignment(labels, memberships[np.arange(len(labels)), labels], memberships)

    def subset(self, segments: Labels) -> Mixture:
        """With their shares of the weights."""
        weights = self.weights[segments]
        precisions = self.precisions if self.covariance == "tied" else self.precisions[segments]
        return replace(self, weights=weights / weights.sum(), precisions=precisions)

    def arrays(self) -> Arrays:
        """Weights and precisions."""
        return {"weights": self.weights, "precisions": self.precisions}

    def details(self) -> dict[str, Any]:
        """The kind of covariance."""
        return {"covariance": self.covariance}


@dataclass(frozen=True, eq=False)
class NearestRow:
    """Into the segment of the nearest of ``references`` float32[r, p], different rows of the training.

    ``labels`` int64[r] are their segments. ``confidence`` float32[r], where the method has one, goes with them; else it
    is that of :func:`beside_centers`. ``gaps`` float64[k] is for methods with noise: the largest distance between a row
    of the segment and the next of its rows; a row that is farther from its nearest reference is noise.
    """

    kind: ClassVar[str] = "row"

    references: Floats
    labels: Labels
    confidence: Floats | None = None
    gaps: Doubles | None = None

    def place(self, points: Floats, centers: Floats) -> Assignment:
        """As :meth:`Rule.place`."""
        places, apart = nearest(points, self.references, 1)
        labels = self.labels[places[:, 0]]
        if self.gaps is not None:
            labels = np.where(apart[:, 0] > np.append(self.gaps, np.inf)[labels], -1, labels)
        if self.confidence is None:
            return Assignment(labels, beside_centers(points, centers, labels)[1])
        return Assignment(labels, np.where(labels < 0, np.float32(0), self.confidence[places[:, 0]]))

    def arrays(self) -> Arrays:
        """All fields that are there."""
        named: dict[str, npt.NDArray[Any] | None] = {
            "references": self.references,
            "labels": self.labels,
            "confidence": self.confidence,
            "gaps": self.gaps,
        }
        return {name: array for name, array in named.items() if array is not None}

    def details(self) -> dict[str, Any]:
        """None."""
        return {}


_RULES: dict[str, Callable[..., Rule]] = {rule.kind: rule for rule in (NearestCenter, FuzzyCenter, Mixture, NearestRow)}


def _made(kind: str) -> Callable[..., Rule]:
    if kind == "mixed":
        from erasmo_dagster.method.tables.rule import MixedRule  # which is made of what is declared here

        return MixedRule.from_saved
    return _RULES[kind]


@dataclass(frozen=True, eq=False)
class SegmentModel:
    """Segments 0..k-1 in ``space``: their ``centers`` float32[k, p] there, and the ``rule`` that puts rows into them.

    A centre is the mean of the segment's rows, but for fuzzy c-means (weighted by membership to the power of m) and
    Gaussian mixtures (weighted by posterior).
    """

    space: Space
    centers: Floats
    rule: Rule

    @property
    def k(self) -> int:
        """Number of segments, noise not counted."""
        return len(self.centers)

    def place(self, vectors: Floats) -> Assignment:
        """The segments of the rows of ``vectors`` float32[n, d], new ones or those of the training.

        Raises ErasmoError for NaN or infinities, and for another number of dimensions than the training's.
        """
        return self.rule.place(self.space.project(vectors), self.centers)

    def arrays(self) -> Arrays:
        """Every array by a name of its own."""
        parts = {"space": self.space.arrays(), "rule": self.rule.arrays()}
        return {
            "centers": self.centers,
            **{f"{part}.{name}": array for part, arrays in parts.items() for name, array in arrays.items()},
        }

    def details(self) -> dict[str, Any]:
        """What is no array, as JSON."""
        return {"rule": self.rule.kind, **self.rule.details()}

    @classmethod
    def from_saved(cls, details: dict[str, Any], arrays: Arrays) -> SegmentModel:
        """The model whose :meth:`details` and :meth:`arrays` these are; KeyError or TypeError where they are none."""
        options = {name: value for name, value in details.items() if name != "rule"}
        own = {name.removeprefix("rule."): array for name, array in arrays.items() if name.startswith("rule.")}
        space = {name.removeprefix("space."): array for name, array in arrays.items() if name.startswith("space.")}
        rule = _made(details["rule"])(**options, **own)
        return cls(Space.from_arrays(space), arrays["centers"], rule)


def distances(points: Floats, centers: Floats) -> Doubles:
    """Euclidean distances float64[n, k]; from differences, since a.a - 2 a.b + b.b loses the small ones."""
    exact = centers.astype(np.float64)
    found = np.empty((len(points), len(centers)))
    for start in range(0, len(points), _CHUNK):
        chunk = points[start : start + _CHUNK].astype(np.float64)
        for segment, center in enumerate(exact):
            difference = chunk - center
            found[start : start + _CHUNK, segment] = np.einsum("ij,ij->i", difference, difference)
    return np.sqrt(found, out=found)


def beside_centers(points: Floats, centers: Floats, labels: Labels | None = None) -> tuple[Labels, Floats]:
    """The nearest of ``centers`` float32[k, p] to each of ``points`` float32[n, p], int64[n], and its confidence.

    That, float32[n], is (d2 - d1) / d2 of the row's own centre and the nearest other, at least 0; 0 where both are at
    distance 0. The row's own is that of ``labels`` int64[n], of which -1 is noise and has none; the nearest without.
    """
    closest, confidence = np.empty(len(points), dtype=np.int64), np.empty(len(points), dtype=np.float32)
    for start in range(0, len(points), _CHUNK):
        part = slice(start, start + _CHUNK)
        apart = distances(points[part], centers)
        closest[part] = apart.argmin(axis=1)
        own = closest[part] if labels is None else labels[part]
        rows = np.arange(len(own))
        near = apart[rows, own]
        apart[rows, own] = np.inf
        other = apart.min(axis=1)
        ratio = np.divide(other - near, other, out=np.zeros_like(near), where=other > 0)
        confidence[part] = np.where(own < 0, 0, ratio.clip(0, 1))
    return closest, confidence
