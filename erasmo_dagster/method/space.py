"""The space that segments are drawn in: vectors truncated, centred, scaled and reduced, as the settings say."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.neighbors import MOST_REFERENCES, distinct_rows, nearest, references_of
from erasmo_dagster.settings import ClusteringSettings
from erasmo_dagster.settings.clustering import ON_COLUMNS

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_CHUNK = 2048  # rows that are projected at a time
_UNIT = 1e-3  # how far from 1 a length may be that was normalized
_MAP_NEIGHBORS = 15  # UMAP's own default
# Components whose variance is a smaller part of the first one's are rounding.
_FLAT = 1e-12


@dataclass(frozen=True, eq=False)
class Space:
    """How vectors of ``width`` dimensions become points.

    The first ``len(mean)`` dimensions are kept (and the vector brought back to length 1 where ``unit`` says so), less
    ``mean`` float64, divided by ``scale`` float64 (None for not at all), then projected onto ``components``
    float64[p, len(mean)], if any. Where there are ``references`` float32[r, len(mean)], points of the space before,
    a point is mapped to the mean of the ``coordinates`` float32[r, p] of the nearest of them, weighted by 1 / distance;
    one that is among them to its own.
    """

    width: int
    mean: Doubles
    unit: bool = False
    scale: Doubles | None = None
    components: Doubles | None = None
    references: Floats | None = None
    coordinates: Floats | None = None

    @classmethod
    def fit(cls, vectors: Floats, settings: ClusteringSettings, *, seed: int) -> Space:
        """The space of ``vectors`` float32[n, d], n > 0.

        Truncation: Kusupati et al. (2022), "Matryoshka Representation Learning". A map by UMAP is drawn from at most
        20,000 different rows, and kept with them, since its own model cannot be saved but by pickling.

        Raises ErasmoError for NaN or infinities, and where UMAP is asked for and not installed.
        """
        vectors = checked(vectors)
        method, most = settings.reduction
        width = vectors.shape[1]
        if settings.method in ON_COLUMNS:
            return cls(width, np.zeros(width))  # as they are: a 0 says that something is missing
        kept = min(most, width) if method == "truncate" else width
        unit = kept < width and _are_of_length_1(vectors)
        whole = cls(width, np.zeros(kept), unit)
        mean = (vectors if kept == width else whole.project(vectors)).mean(axis=0, dtype=np.float64)
        space = cls(width, mean, unit)
        if settings.scale == "standard":
            space = cls(width, mean, unit, _deviations(space.project(vectors)))
        if method == "pca" and (settings.reduce.method or width > most):
            return replace(space, components=_principal(space.project(vectors), most, seed))
        if method == "umap":
            references, coordinates = _map(space.project(vectors), most, seed)
            return replace(space, references=references, coordinates=coordinates)
        return space

    @property
    def dimensions(self) -> int:
        """Dimensions p of the points."""
        if self.coordinates is not None:
            return int(self.coordinates.shape[1])
        return len(self.mean) if self.components is None else len(self.components)

    def project(self, vectors: Floats) -> Floats:
        """The points float32[n, p] of ``vectors`` float32[n, d]; a row's does not depend on the rows beside it.

        Raises ErasmoError for NaN or infinities, and for another number of dimensions than the training's.
        """
        vectors = checked(vectors)
        if vectors.shape[1] != self.width:
            raise ErasmoError(
                f"Got vectors of {vectors.shape[1]} dimensions",
                expected=f"{self.width}, as the segments' centres have",
                fix="embed with the model that the segments were made with, or retrain the dataset",
            )
        width = len(self.mean) if self.components is None else len(self.components)
        points = np.empty((len(vectors), width), dtype=np.float32)
        for start in range(0, len(vectors), _CHUNK):
            points[start : start + _CHUNK] = self._projected(vectors[start : start + _CHUNK])
        if self.references is None or self.coordinates is None:
            return points
        return _mapped(points, self.references, self.coordinates)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What :meth:`from_arrays` makes the same space of."""
        named = {
            "form": np.array([self.width, self.unit], dtype=np.int64),
            "mean": self.mean,
            "scale": self.scale,
            "components": self.components,
            "references": self.references,
            "coordinates": self.coordinates,
        }
        return {name: array for name, array in named.items() if array is not None}

    @classmethod
    def from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Space:
        """The space whose :meth:`arrays` these are. Raises KeyError where one is missing."""
        width, unit = arrays["form"].tolist()
        others = (arrays.get(name) for name in ("scale", "components", "references", "coordinates"))
        return cls(width, arrays["mean"], bool(unit), *others)

    def _projected(self, vectors: Floats) -> Doubles:
        """In 64 bits, up to the map: language models' vectors share a mean far larger than their differences."""
        points = vectors[:, : len(self.mean)].astype(np.float64)
        if self.unit:
            lengths = np.sqrt(np.einsum("ij,ij->i", points, points))
            points /= np.where(lengths > 0, lengths, 1.0)[:, None]
        points -= self.mean
        if self.scale is not None:
            points /= self.scale
        if self.components is None:
            return points
        # One component at a time: the order in which a matrix product adds up depends on the number of rows.
        return np.stack([np.einsum("ij,j->i", points, component) for component in self.components], axis=1)


def checked(vectors: Floats) -> Floats:
    """``vectors`` as float32[n, d], row by row in memory. Raises ErasmoError for NaN and infinities."""
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


def _are_of_length_1(vectors: Floats) -> bool:
    lengths = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    return bool((np.abs(lengths - 1) < _UNIT).all())


def _deviations(points: Floats) -> Doubles:
    """Standard deviation float64[d] of every dimension of centred points; that of a constant one is taken as 1."""
    deviations = np.sqrt(np.einsum("ij,ij->j", points, points, dtype=np.float64) / len(points))
    deviations[(points == points[0]).all(axis=0)] = 1.0  # a rounded mean can leave it a little above 0
    return np.asarray(deviations, dtype=np.float64)


def _principal(points: Floats, most: int, seed: int) -> Doubles:
    """The first principal directions float64[p, d], the largest entry of each positive; none without variance."""
    from sklearn.decomposition import PCA

    if not points.any():
        return np.eye(1, points.shape[1])
    pca = PCA(min(most, *points.shape), random_state=seed).fit(points.astype(np.float64))
    varies = int((pca.explained_variance_ > _FLAT * pca.explained_variance_[0]).sum())
    components: Doubles = np.asarray(pca.components_[: max(varies, 1)], dtype=np.float64)
    largest = np.abs(components).argmax(axis=1)
    return np.ascontiguousarray(components * np.sign(components[np.arange(len(components)), largest])[:, None])


def _map(points: Floats, dimensions: int, seed: int) -> tuple[Floats, Floats]:
    """Different points and their places on a map (McInnes, Healy and Melville, 2018), drawn for clustering."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ImportWarning)  # of a network of its own that it could do with
            from umap import UMAP
    except ImportError as error:
        raise ErasmoError(
            "Got clustering.reduce.method=umap without the library",
            expected="umap-learn",
            fix='pip install "erasmo-dagster[umap]"',
        ) from error
    first, _ = distinct_rows(points)
    kept = references_of(np.zeros(len(first), dtype=np.int64), MOST_REFERENCES, seed=seed)
    references = np.ascontiguousarray(points[first[kept]])
    if len(references) <= dimensions + 1:
        raise ErasmoError(
            f"Got {len(references)} different vectors for clustering.reduce.dimensions={dimensions} of umap",
            expected=f"at least {dimensions + 2}",
            fix="lower clustering.reduce.dimensions or bring more rows",
        )
    neighbors = min(_MAP_NEIGHBORS, len(references) - 1)
    # Segments are to lie apart on it: rows of one may lie on top of each other.
    drawn = UMAP(n_components=dimensions, n_neighbors=neighbors, min_dist=0.0, random_state=seed, n_jobs=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on graphs in pieces, and of methods that it turns to by itself
        return references, np.ascontiguousarray(drawn.fit_transform(references), dtype=np.float32)


def _mapped(points: Floats, references: Floats, coordinates: Floats) -> Floats:
    places, distances = nearest(points, references, _MAP_NEIGHBORS)
    at = distances[:, :1] == 0
    weights = np.where(at, np.arange(places.shape[1]) == 0, 1 / np.where(distances > 0, distances, 1.0))
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(np.einsum("ij,ijk->ik", weights, coordinates[places].astype(np.float64)), dtype=np.float32)
