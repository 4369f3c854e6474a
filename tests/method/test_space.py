"""The space that segments are drawn in: scaled, truncated, on principal components or on a map."""

from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.decomposition import PCA

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import space as space_module
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.neighbors import distinct_rows, nearest, references_of
from erasmo_dagster.method.space import Space
from erasmo_dagster.settings import ClusteringSettings


def cloud(rows: int = 200, width: int = 12, seed: int = 0) -> np.ndarray:
    """Rows of unlike spread by dimension, on a mean that language models' vectors have."""
    values = np.random.default_rng(seed).normal(size=(rows, width)) * np.linspace(3, 0.2, width) + 300
    return values.astype(np.float32)


def fit(vectors: np.ndarray, seed: int = 0, method: str = "kmeans++", **given: Any) -> Space:
    return Space.fit(vectors, ClusteringSettings.model_validate({"method": method, **given}), seed=seed)


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


SPACES: list[dict[str, Any]] = [
    {},
    {"scale": "standard"},
    {"reduce": {"method": "pca", "dimensions": 4}},
    {"reduce": {"method": "truncate", "dimensions": 5}, "scale": "standard"},
]


@pytest.mark.parametrize("given", SPACES)
def test_a_row_is_projected_alike_beside_any_others(given: dict[str, Any]) -> None:
    vectors = cloud(2100)
    space = fit(vectors, **given)
    whole = space.project(vectors)
    assert whole.dtype == np.float32
    assert whole.shape == (2100, space.dimensions)
    assert [space.project(vectors[i : i + 1]).tolist()[0] for i in range(0, 2100, 150)] == whole[::150].tolist()
    assert space.project(vectors[::-1])[::-1].tobytes() == whole.tobytes()
    assert space.project(np.empty((0, 12), np.float32)).shape == (0, space.dimensions)
    again = Space.from_arrays(space.arrays())
    assert again.project(vectors).tobytes() == whole.tobytes()
    assert fit(vectors, **given).project(vectors).tobytes() == whole.tobytes()


def test_distances_are_kept_and_centred() -> None:
    vectors = cloud()
    points = fit(vectors).project(vectors)
    assert points.mean(axis=0, dtype=np.float64) == pytest.approx(0, abs=1e-6)
    exact = vectors.astype(np.float64)
    np.testing.assert_allclose(points[3] - points[8], exact[3] - exact[8], atol=1e-6)


def test_principal_components_are_scikit_learns_with_signs_of_their_own() -> None:
    vectors = cloud()
    points = fit(vectors, reduce={"method": "pca", "dimensions": 4}).project(vectors)
    theirs = PCA(4, svd_solver="full").fit_transform(vectors.astype(np.float64))
    np.testing.assert_allclose(np.abs(points), np.abs(theirs), atol=1e-4)
    mirrored = fit(-vectors, reduce={"method": "pca", "dimensions": 4})
    assert mirrored.components is not None
    for component in mirrored.components:
        assert component[np.abs(component).argmax()] > 0


def test_components_without_variance_are_left_out_and_said() -> None:
    flat = np.outer(np.arange(30), np.ones(6)).astype(np.float32)
    assert fit(flat, reduce={"method": "pca", "dimensions": 3}).dimensions == 1
    settings = ClusteringSettings.model_validate(
        {"method": "kmeans++", "k": 2, "reduce": {"method": "pca", "dimensions": 3}}
    )
    assert (
        "The vectors give 1 dimensions, fewer than clustering.reduce asks for." in cluster(flat, settings, seed=0).notes
    )
    assert fit(np.ones((5, 3), np.float32), reduce={"method": "pca"}).project(np.ones((1, 3), np.float32)).tolist() == [
        [0]
    ]


@pytest.mark.parametrize(("method", "width", "dimensions"), [("gaussian_mixture", 40, 16), ("kmeans++", 40, 40)])
def test_soft_methods_work_on_few_components(method: str, width: int, dimensions: int) -> None:
    assert fit(cloud(width=width), method=method).dimensions == dimensions
    assert fit(cloud(width=9), method=method).components is None


def test_truncated_vectors_have_the_length_1_that_they_had() -> None:
    vectors = np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32)
    plain = fit(vectors, reduce={"method": "truncate", "dimensions": 3})
    np.testing.assert_allclose(plain.project(vectors) + plain.mean, vectors[:, :3], atol=1e-6)
    of_length_1 = unit(vectors).astype(np.float32)
    space = fit(of_length_1, reduce={"method": "truncate", "dimensions": 3})
    np.testing.assert_allclose(space.project(of_length_1) + space.mean, unit(of_length_1[:, :3]), atol=1e-6)
    nothing = np.eye(8, dtype=np.float32)[7:]  # its first dimensions are all 0
    np.testing.assert_allclose(space.project(nothing) + space.mean, 0, atol=1e-7)
    assert fit(vectors, reduce={"method": "truncate", "dimensions": 99}).dimensions == 8


@pytest.mark.parametrize("given", SPACES)
def test_other_vectors_are_refused(given: dict[str, Any]) -> None:
    space = fit(cloud(), **given)
    with pytest.raises(ErasmoError, match=r"Got vectors of 3 dimensions, expected 12, as the segments' centres have"):
        space.project(np.zeros((2, 3), np.float32))
    with pytest.raises(ErasmoError, match="Got NaN or infinity in the vectors of 1 of 2 rows"):
        space.project(np.array([[np.nan] * 12, [0] * 12], np.float32))


# A map; the library takes seconds to load and compile itself


@pytest.mark.slow
def test_a_map_puts_rows_of_the_training_where_they_are_and_others_among_their_neighbours() -> None:
    middles = np.random.default_rng(3).normal(size=(2, 10)) * 20
    vectors = (np.repeat(middles, 40, axis=0) + np.random.default_rng(4).normal(size=(80, 10))).astype(np.float32)
    vectors[79] = vectors[78]
    chosen = ClusteringSettings.model_validate(
        {"method": "kmeans++", "k": 2, "reduce": {"method": "umap", "dimensions": 2}}
    )
    result = cluster(vectors, chosen, seed=0)
    assert result.labels.tolist() in ([0] * 40 + [1] * 40, [1] * 40 + [0] * 40)
    space = result.model.space
    assert space.references is not None
    assert space.coordinates is not None
    assert (len(space.references), space.dimensions) == (79, 2)
    assert space.project(vectors)[:79].tobytes() == space.coordinates.tobytes()
    assert result.model.place(vectors).labels.tolist() == result.labels.tolist()
    new = vectors[[0, 50]] + np.float32(0.01)
    assert result.model.place(new).labels.tolist() == result.labels[[0, 50]].tolist()
    low, high = space.coordinates.min(axis=0), space.coordinates.max(axis=0)
    assert ((space.project(new) >= low) & (space.project(new) <= high)).all()
    assert Space.from_arrays(space.arrays()).project(new).tobytes() == space.project(new).tobytes()
    assert cluster(vectors, chosen, seed=0).model.centers.tobytes() == result.model.centers.tobytes()


@pytest.mark.slow
def test_a_map_of_a_sample_takes_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(space_module, "MOST_REFERENCES", 30)
    vectors = cloud(50)
    space = fit(vectors, reduce={"method": "umap", "dimensions": 3})
    assert space.references is not None
    assert len(space.references) == 30
    assert space.project(vectors).shape == (50, 3)


@pytest.mark.slow
def test_too_few_rows_for_a_map() -> None:
    with pytest.raises(ErasmoError, match=r"Got 9 different vectors for clustering.reduce.dimensions=16 of umap"):
        fit(np.concatenate([cloud(9), cloud(9)]), reduce={"method": "umap"})


def test_a_map_without_the_library_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "umap":
            raise ImportError(name)
        return whole(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ErasmoError, match=r'pip install "erasmo-dagster\[umap\]"'):
        fit(cloud(), reduce={"method": "umap"})


# Neighbours


def naive(point: np.ndarray, references: np.ndarray) -> list[tuple[float, int]]:
    apart = np.sqrt(((references.astype(np.float64) - point.astype(np.float64)) ** 2).sum(axis=1))
    return sorted(zip(apart.tolist(), range(len(references)), strict=True))


@settings(max_examples=60)
@given(
    references=arrays(np.float32, st.tuples(st.integers(1, 30), st.just(3)), elements=st.integers(-9, 9)),
    points=arrays(np.float32, st.tuples(st.integers(0, 9), st.just(3)), elements=st.integers(-9, 9)),
    count=st.integers(1, 5),
)
def test_neighbours_are_the_nearest(references: np.ndarray, points: np.ndarray, count: int) -> None:
    references = references[distinct_rows(references)[0]]
    places, distances = nearest(points, references, count)
    assert places.shape == (len(points), min(count, len(references)))
    for row, point in enumerate(points):
        found = naive(point, references)[:count]
        assert distances[row].tolist() == pytest.approx([apart for apart, _ in found])
        if len(references) <= count + 8:  # every one of them is measured
            assert places[row].tolist() == [at for _, at in found]


def test_a_row_is_its_own_nearest_beside_ones_that_hardly_differ() -> None:
    references = np.full((300, 600), 300, np.float32)
    references[np.arange(300), np.arange(300)] = np.nextafter(np.float32(300), np.float32(301))
    places, distances = nearest(references, references, 1)
    assert places[:, 0].tolist() == list(range(300))
    assert distances.max() == 0


def test_different_rows_and_which_is_which() -> None:
    rows = np.array([[0.0, 1], [2, 3], [-0.0, 1], [2, 3], [4, 5]], np.float32)
    first, which = distinct_rows(rows)
    assert first.tolist() == [0, 1, 4]
    assert which.tolist() == [0, 1, 0, 1, 2]


def test_every_label_has_references() -> None:
    labels = np.repeat([-1, 0, 1], [100, 1000, 1])
    kept = references_of(labels, 110, seed=0)
    assert kept.tolist() == sorted(set(kept.tolist()))
    assert np.unique(labels[kept], return_counts=True)[1].tolist() == [9, 99, 1]
    assert references_of(labels, 110, seed=0).tolist() == kept.tolist()
    assert references_of(labels, 1101, seed=0).tolist() == list(range(1101))
