"""What every algorithm owes: a partition, rows placed again where they were, memberships, noise, one line for a fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.cluster import HDBSCAN
from sklearn.datasets import make_blobs, make_moons
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import clustering
from erasmo_dagster.method.clustering import ClusterResult, cluster
from erasmo_dagster.method.segment_model import FuzzyCenter, NearestRow, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.settings import ClusteringSettings

METHODS: list[dict[str, Any]] = [
    {"method": "kmeans", "n_init": 2},
    {"method": "kmeans++", "n_init": 2},
    {"method": "bisecting_kmeans", "n_init": 2},
    *({"method": "agglomerative", "linkage": linkage} for linkage in ("ward", "complete", "average")),
    *(
        {"method": "spectral", "affinity": affinity, "assign_labels": assign}
        for affinity in ("nearest_neighbors", "rbf")
        for assign in ("kmeans", "discretize", "cluster_qr")
    ),
    {"method": "fuzzy_cmeans", "n_init": 2},
    {"method": "fuzzy_cmeans", "m": 1.2, "n_init": 2},
    *({"method": "gaussian_mixture", "covariance": c, "n_init": 1} for c in ("full", "tied", "diag", "spherical")),
    {"method": "hdbscan", "min_cluster_size": 4},
]
every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: "-".join(str(v) for v in m.values()))


def chosen(method: dict[str, Any], **given: Any) -> ClusteringSettings:
    if method["method"] == "hdbscan":
        given.pop("k", None)
    return ClusteringSettings(**method, **given)


def groups(rows: int = 90, width: int = 5, spread: float = 2.0) -> np.ndarray:
    """Three groups with blurred borders, and a few rows that are there twice."""
    vectors, _ = make_blobs(rows, n_features=width, centers=3, cluster_std=spread, center_box=(-6, 6), random_state=4)
    return np.concatenate([vectors, vectors[:7]]).astype(np.float32)


def assert_same_places(result: ClusterResult, vectors: np.ndarray) -> None:
    again = result.model.place(vectors)
    assert again.labels.dtype == result.labels.dtype == np.int64
    assert again.labels.tobytes() == result.labels.tobytes()
    assert again.confidence.tobytes() == result.confidence.tobytes()
    assert (again.memberships is None) == (result.memberships is None)
    if again.memberships is not None and result.memberships is not None:
        assert again.memberships.tobytes() == result.memberships.tobytes()


# What holds for any method


@every_method
@pytest.mark.parametrize("reduce", [{}, {"method": "pca", "dimensions": 3}, {"method": "truncate", "dimensions": 4}])
@pytest.mark.parametrize("scale", ["none", "standard"])
def test_a_row_of_the_training_is_placed_where_it_was(
    method: dict[str, Any], reduce: dict[str, Any], scale: str
) -> None:
    vectors = groups()
    result = cluster(vectors, chosen(method, k=3, scale=scale, reduce=reduce), seed=3)
    assert result.model.centers.shape == (result.k, reduce.get("dimensions", 5))
    assert_same_places(result, vectors)
    assert result.labels[-7:].tolist() == result.labels[:7].tolist()  # rows that are equal are in one segment
    alone = [result.model.place(row[None]) for row in vectors[::10]]
    assert [one.labels.item() for one in alone] == result.labels[::10].tolist()
    assert [one.confidence.item() for one in alone] == pytest.approx(result.confidence[::10].tolist(), abs=1e-6)


@every_method
def test_a_saved_model_places_alike(method: dict[str, Any]) -> None:
    vectors, new = groups(), groups(60, spread=4.0)
    model = cluster(vectors, chosen(method, k=3), seed=0).model
    again = SegmentModel.from_saved(model.details(), model.arrays())
    first, second = model.place(new), again.place(new)
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.confidence.tobytes() == second.confidence.tobytes()
    assert set(first.labels.tolist()) <= {-1, 0, 1, 2}


@every_method
def test_no_row_is_placed_nowhere(method: dict[str, Any]) -> None:
    model = cluster(groups(), chosen(method, k=3), seed=0).model
    placed = model.place(np.empty((0, 5), np.float32))
    assert (len(placed.labels), len(placed.confidence)) == (0, 0)
    assert placed.memberships is None or placed.memberships.shape == (0, model.k)


def caught(vectors: np.ndarray, settings: ClusteringSettings) -> tuple[str, ClusterResult | None]:
    try:
        return "", cluster(vectors, settings, seed=0)
    except ErasmoError as error:
        return str(error), None


shapes = st.tuples(st.integers(1, 24), st.integers(1, 4))


@settings(max_examples=200)
@given(
    vectors=arrays(np.float32, shapes, elements=st.integers(-3, 3), fill=st.nothing()),
    method=st.sampled_from(METHODS),
    k=st.integers(2, 5),
    scale=st.sampled_from(["none", "standard"]),
)
def test_a_result_is_a_partition(vectors: np.ndarray, method: dict[str, Any], k: int, scale: str) -> None:
    settings = chosen(method, k=k, scale=scale)
    fault, result = caught(vectors, settings)
    if result is None:
        least = 2 if method["method"] == "hdbscan" else k
        may_refuse = method["method"] in ("hdbscan", "fuzzy_cmeans", "gaussian_mixture", "spectral")
        assert len(vectors) <= least or len(np.unique(vectors, axis=0)) < least or may_refuse
        assert fault.startswith("Got ")
        assert "\n" not in fault
        return
    sizes = np.bincount(result.labels[result.labels >= 0])
    assert len(sizes) == result.k == result.model.k
    assert "k" not in settings.model_fields_set or result.k == k or any(f"for k={k}" in note for note in result.notes)
    assert sizes.min() > 0
    assert sizes.tolist() == sorted(sizes, reverse=True)
    assert ((result.confidence >= 0) & (result.confidence <= 1)).all()
    assert_same_places(result, vectors)
    if isinstance(result.model.rule, FuzzyCenter) or result.memberships is not None:
        return
    points = result.model.space.project(vectors)
    for segment in range(result.k):
        mean = points[result.labels == segment].mean(axis=0)
        np.testing.assert_allclose(result.model.centers[segment], mean, atol=1e-5)


# What is refused, whatever the method


@every_method
@pytest.mark.parametrize(
    ("vectors", "message"),
    [
        (np.ones((1, 4), np.float32), "Got 1 row for clustering."),
        (np.ones((3, 4), np.float32), "Got 3 rows for clustering."),
        (np.ones((30, 4), np.float32), "Got 1 different vector in 30 rows for clustering."),
        (np.full((30, 4), np.nan, np.float32), "Got NaN or infinity in the vectors of 30 of 30 rows"),
        (np.full((30, 4), np.inf, np.float32), "Got NaN or infinity in the vectors of 30 of 30 rows"),
    ],
    ids=["one-row", "fewer-than-k", "all-equal", "nan", "infinite"],
)
@pytest.mark.parametrize("reduce", [{}, {"method": "pca", "dimensions": 2}], ids=["whole", "pca"])
def test_a_fault_is_one_line(vectors: np.ndarray, message: str, method: dict[str, Any], reduce: dict[str, Any]) -> None:
    if method["method"] == "hdbscan" and len(vectors) == 3:
        vectors, message = (
            np.eye(7, 4, dtype=np.float32),
            "Got 7 rows for clustering.min_cluster_size=4, expected at least 8",
        )
    with pytest.raises(ErasmoError) as caught:
        cluster(vectors, chosen(method, k=3, reduce=reduce), seed=0)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


# Fuzzy c-means and Gaussian mixtures


@pytest.mark.parametrize("method", [m for m in METHODS if m["method"] in ("fuzzy_cmeans", "gaussian_mixture")])
def test_memberships_add_up_and_the_largest_is_the_confidence(method: dict[str, Any]) -> None:
    result = cluster(groups(width=40), chosen(method, k=3), seed=0)
    assert result.model.space.dimensions == 16
    assert result.memberships is not None
    assert result.memberships.dtype == np.float32
    assert result.memberships.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert result.memberships.max(axis=1).tolist() == result.confidence.tolist()
    assert result.memberships.argmax(axis=1).tolist() == result.labels.tolist()


def test_fuzzy_memberships_by_hand() -> None:
    space, centers = Space(1, np.zeros(1)), np.array([[0], [4]], np.float32)
    rows = np.array([[0], [1], [2], [8]], np.float32)
    placed = SegmentModel(space, centers, FuzzyCenter(2.0)).place(rows)
    # At m = 2 they are as 1 / d^2: 9 to 1 at a third of the distance, and 1 to 4 at twice the distance.
    assert placed.memberships is not None
    np.testing.assert_allclose(placed.memberships, [[1, 0], [0.9, 0.1], [0.5, 0.5], [0.2, 0.8]], rtol=1e-6)
    assert placed.labels.tolist() == [0, 0, 0, 1]
    crisp = SegmentModel(space, centers, FuzzyCenter(1.001)).place(rows).memberships
    assert crisp is not None
    assert crisp.tolist() == [[1, 0], [1, 0], [0.5, 0.5], [0, 1]]
    on_both = SegmentModel(space, np.zeros((2, 1), np.float32), FuzzyCenter(2.0)).place(rows[:1]).memberships
    assert on_both is not None
    assert on_both.tolist() == [[0.5, 0.5]]


def test_fuzzy_cmeans_is_at_a_fixed_point() -> None:
    vectors = groups()
    result = cluster(vectors, ClusteringSettings(method="fuzzy_cmeans", k=3), seed=0)
    assert result.memberships is not None
    weights = result.memberships.astype(np.float64) ** 2
    means = (weights.T @ result.model.space.project(vectors)) / weights.sum(axis=0)[:, None]
    np.testing.assert_allclose(result.model.centers, means, atol=1e-3)


def test_a_fuzzy_result_without_structure_is_refused() -> None:
    cloud = np.random.default_rng(0).normal(size=(300, 12)).astype(np.float32)
    with pytest.raises(
        ErasmoError,
        match=r"^Got a mean largest membership of 0\.\d+ for k=4 .* expected at least 1/k \+ 0.05 = 0.300: lower",
    ):
        cluster(cloud, ClusteringSettings(method="fuzzy_cmeans", k=4, n_init=1), seed=0)
    with pytest.raises(ErasmoError, match="for k=3"):
        cluster(cloud, ClusteringSettings(method="fuzzy_cmeans", k_min=2, k_max=3, n_init=1), seed=0)


def test_a_sweep_leaves_out_what_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = groups()
    prepare = clustering.prepare

    def refusing(*args: Any, **kwargs: Any) -> Any:
        partitioner = prepare(*args, **kwargs)

        def cut(k: int) -> Any:
            if k == 4:
                raise clustering.StructureError("Got nothing")
            return partitioner.cut(k)

        return type(partitioner)(cut, partitioner.by, partitioner.notes)

    monkeypatch.setattr(clustering, "prepare", refusing)
    result = cluster(vectors, ClusteringSettings(method="fuzzy_cmeans", k_min=3, k_max=5, m=1.5), seed=0)
    assert [point.k for point in result.sweep] == [3, 5]
    assert "The sweep left k=4 out: got nothing." in result.notes


def test_fuzzy_cmeans_in_many_dimensions_is_refused() -> None:
    wide = ClusteringSettings.model_validate({"method": "fuzzy_cmeans", "k": 2, "reduce": {"method": "none"}})
    with pytest.raises(ErasmoError, match=r"Got 17 dimensions for clustering.method=fuzzy_cmeans, expected at most 16"):
        cluster(groups(width=17), wide, seed=0)
    assert cluster(groups(width=16), wide, seed=0).k == 2


@pytest.mark.parametrize("covariance", ["full", "tied", "diag", "spherical"])
def test_a_mixture_is_scikit_learns(covariance: str) -> None:
    vectors = groups()
    ours = cluster(vectors, ClusteringSettings(method="gaussian_mixture", covariance=covariance, k=3, n_init=1), seed=2)
    points = ours.model.space.project(vectors).astype(np.float64)
    theirs = GaussianMixture(
        3, covariance_type=covariance, max_iter=300, random_state=2, reg_covar=1e-6 * points.var(axis=0).mean()
    ).fit(points)
    assert adjusted_rand_score(theirs.predict(points), ours.labels) == 1
    np.testing.assert_allclose(np.sort(theirs.predict_proba(points).max(axis=1)), np.sort(ours.confidence), atol=1e-4)


def test_the_global_random_numbers_are_left_alone() -> None:
    np.random.seed(5)
    expected = np.random.rand()
    np.random.seed(5)
    cluster(groups(), ClusteringSettings(method="fuzzy_cmeans", k=3, n_init=1), seed=0)
    assert np.random.rand() == expected


# HDBSCAN


def moons() -> tuple[np.ndarray, np.ndarray]:
    """Two moons, and ten rows far from both and from each other."""
    vectors, shapes = make_moons(200, noise=0.04, random_state=0)
    far = np.random.default_rng(1).choice(np.arange(-40, 40, 4.0), size=(10, 2), replace=False)
    far = np.where(np.abs(far) < 4, far + 20, far)
    return np.concatenate([vectors, far]).astype(np.float32), np.concatenate([shapes, np.full(10, -1)])


def test_noise_is_in_no_segment() -> None:
    vectors, shapes = moons()
    result = cluster(vectors, ClusteringSettings(method="hdbscan", min_cluster_size=15), seed=0)
    assert result.k == 2
    assert adjusted_rand_score(shapes, result.labels) > 0.9
    assert (result.labels == -1).sum() >= 10
    assert result.confidence[result.labels == -1].max() == 0
    assert result.sweep == ()
    theirs = HDBSCAN(min_cluster_size=15, copy=True).fit(vectors)
    assert adjusted_rand_score(theirs.labels_, result.labels) == 1
    np.testing.assert_allclose(result.confidence, theirs.probabilities_, atol=1e-6)


def test_new_rows_are_noise_where_no_segment_reaches() -> None:
    vectors, _ = moons()
    result = cluster(vectors, ClusteringSettings(method="hdbscan", min_cluster_size=15), seed=0)
    rule = result.model.rule
    assert isinstance(rule, NearestRow)
    assert rule.gaps is not None
    member = int(np.flatnonzero(result.labels == 0)[0])
    near, far = vectors[member] + np.float32(0.001), vectors[member] + np.float32(1000)
    placed = result.model.place(np.stack([near, far, vectors[-1]]))
    assert placed.labels.tolist() == [0, -1, -1]
    assert placed.confidence[1:].tolist() == [0, 0]


def test_all_noise_is_refused() -> None:
    spread = np.array([[2.0**i] for i in range(30)], np.float32)
    with pytest.raises(
        ErasmoError, match=r"Got noise in all 30 rows from clustering.method=hdbscan, expected at least two"
    ):
        cluster(spread, ClusteringSettings(method="hdbscan", min_cluster_size=12), seed=0)


def test_more_neighbours_than_rows_are_refused() -> None:
    with pytest.raises(ErasmoError, match=r"Got 97 rows for clustering.min_samples=98, expected at least 98: lower"):
        cluster(groups(), ClusteringSettings(method="hdbscan", min_samples=98), seed=0)


# Rows that stand for the others


def test_few_references_stand_for_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, planted = make_blobs((300, 30, 6), n_features=4, random_state=1)
    vectors = vectors.astype(np.float32)
    monkeypatch.setattr(clustering, "MOST_REFERENCES", 40)
    result = cluster(vectors, ClusteringSettings(method="agglomerative", k=3), seed=0)
    rule = result.model.rule
    assert isinstance(rule, NearestRow)
    assert len(rule.references) <= 42
    assert set(rule.labels.tolist()) == {0, 1, 2}
    assert result.labels.tolist() == planted.tolist()
    assert result.model.place(vectors).labels.tolist() == planted.tolist()
