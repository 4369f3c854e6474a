"""Vectors become segments: every method, the choice of k, numbering, confidence, and what is refused."""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
from sklearn.cluster import AgglomerativeClustering, KMeans, SpectralClustering
from sklearn.datasets import make_blobs, make_circles
from sklearn.metrics import adjusted_rand_score, silhouette_score
from threadpoolctl import threadpool_info, threadpool_limits

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method import clustering
from erasmo_dagster.method.algorithms import prepare
from erasmo_dagster.method.clustering import SweepPoint, cluster
from erasmo_dagster.method.quality import internal_metrics
from erasmo_dagster.method.segment_model import NearestCenter, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.settings import ClusteringSettings

METHODS: list[dict[str, Any]] = [
    {"method": "kmeans"},
    {"method": "kmeans++"},
    {"method": "bisecting_kmeans"},
    {"method": "agglomerative", "linkage": "ward"},
    {"method": "agglomerative", "linkage": "complete"},
    {"method": "agglomerative", "linkage": "average"},
    {"method": "spectral", "affinity": "nearest_neighbors"},
    {"method": "spectral", "affinity": "rbf"},
    {"method": "spectral", "assign_labels": "discretize"},
    {"method": "spectral", "affinity": "rbf", "assign_labels": "cluster_qr"},
    {"method": "fuzzy_cmeans"},
    {"method": "gaussian_mixture", "covariance": "full"},
    {"method": "gaussian_mixture", "covariance": "tied"},
    {"method": "gaussian_mixture", "covariance": "diag"},
    {"method": "gaussian_mixture", "covariance": "spherical"},
]
HDBSCAN: dict[str, Any] = {"method": "hdbscan"}
PAIRS = [method for method in METHODS if method["method"] in ("agglomerative", "spectral")]


def name(method: dict[str, Any]) -> str:
    return "-".join(method.values())


with_k = pytest.mark.parametrize("method", METHODS, ids=name)
every_method = pytest.mark.parametrize("method", [*METHODS, HDBSCAN], ids=name)
SIZES = (50, 40, 30)


def chosen(method: dict[str, Any], **given: Any) -> ClusteringSettings:
    """Settings of a method; HDBSCAN has no number of segments, and none but methods with starts their number."""
    if method == HDBSCAN:
        given = {option: value for option, value in given.items() if not option.startswith("k")}
    if method["method"] in ("agglomerative", "hdbscan"):
        given.pop("n_init", None)
    return ClusteringSettings(**method, **given)


def nearest_center(centers: Any, space: Space | None = None) -> SegmentModel:
    centers = np.asarray(centers, dtype=np.float32)
    return SegmentModel(space or Space(centers.shape[1], np.zeros(centers.shape[1])), centers, NearestCenter())


def blobs(width: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """Three planted groups of 50, 40 and 30 rows, numbered by size, on a mean that language models' vectors have."""
    vectors, groups = make_blobs(SIZES, n_features=width, cluster_std=1.0, random_state=3)
    return (vectors + 200).astype(np.float32), groups


def cloud(rows: int = 300, width: int = 8, seed: int = 0) -> np.ndarray:
    """Rows without any groups, so that many lie near a border."""
    return np.random.default_rng(seed).normal(size=(rows, width)).astype(np.float32)


# Planted groups


@every_method
@pytest.mark.parametrize("k", [3, "auto"])
def test_every_method_finds_planted_groups(method: dict[str, Any], k: int | str) -> None:
    vectors, groups = blobs()
    result = cluster(vectors, chosen(method, k=k, k_max=6), seed=1)
    assert result.k == 3
    assert result.labels.dtype == np.int64
    assert result.labels.tolist() == groups.tolist()  # the planted ones are numbered by size, too
    assert result.confidence.mean() > 0.5
    points = result.model.space.project(vectors)
    means = np.stack([points[groups == g].mean(axis=0, dtype=np.float64) for g in range(3)])
    fuzzy = method["method"] == "fuzzy_cmeans"  # whose centres are pulled a little by all rows
    np.testing.assert_allclose(result.model.centers, means, rtol=1e-6, atol=1.5 if fuzzy else 1e-5)
    assert result.model.centers.dtype == result.confidence.dtype == np.float32


def test_spectral_follows_shapes_that_have_no_centre() -> None:
    vectors, rings = make_circles((120, 80), noise=0.02, factor=0.4, random_state=0)
    settings = ClusteringSettings(method="spectral", k=2)
    result = cluster(vectors.astype(np.float32), settings, seed=0)
    assert adjusted_rand_score(rings, result.labels) == 1
    # Both centres are in the middle, so half the rows are nearer to the other one: said, and worth no confidence.
    (strays,) = [note for note in result.notes if "nearer to another segment's centre" in note]
    assert int(strays.split()[0]) == int((result.confidence == 0).sum()) > 20


def test_scaling_lets_small_units_count() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat([0, 1], (60, 40))
    vectors = np.column_stack([rng.normal(size=100) * 1000, groups + rng.normal(size=100) * 0.05, np.full(100, 0.1)])
    vectors = vectors.astype(np.float32)
    plain = cluster(vectors, ClusteringSettings(method="kmeans++", k=2), seed=0)
    scaled = cluster(vectors, ClusteringSettings(method="kmeans++", k=2, scale="standard"), seed=0)
    assert adjusted_rand_score(groups, plain.labels) < 0.1
    assert plain.model.space.scale is None
    assert adjusted_rand_score(groups, scaled.labels) > 0.9
    scale = scaled.model.space.scale
    assert scale is not None
    assert scale[0] == pytest.approx(vectors[:, 0].std(dtype=np.float64), rel=1e-5)
    assert scale[2] == 1  # a constant dimension says nothing and is not blown up
    centers = scaled.model.centers * scale + scaled.model.space.mean
    assert centers[:, 1] == pytest.approx([0, 1], abs=0.1)


def test_the_kernel_is_as_wide_as_the_rows_are_apart() -> None:
    vectors, groups = blobs(width=576)
    result = cluster(vectors * 10, ClusteringSettings(method="spectral", affinity="rbf", k=3), seed=0)
    assert result.labels.tolist() == groups.tolist()


# scikit-learn's own estimators


def test_kmeans_is_scikit_learns() -> None:
    vectors = cloud()
    ours = cluster(vectors, ClusteringSettings(method="kmeans", k=5, n_init=3), seed=7)
    theirs = KMeans(5, init="random", n_init=3, tol=0, random_state=7).fit(vectors - vectors.mean(axis=0))
    assert adjusted_rand_score(theirs.labels_, ours.labels) > 0.99


@pytest.mark.parametrize("linkage", ["ward", "complete", "average"])
def test_one_tree_is_cut_as_scikit_learn_cuts_it(linkage: str) -> None:
    vectors = cloud(80)
    for k in (2, 3, 7, 79):
        ours = cluster(vectors, ClusteringSettings(method="agglomerative", linkage=linkage, k=k), seed=0)
        theirs = AgglomerativeClustering(k, linkage=linkage).fit_predict(vectors)
        assert ours.k == k
        assert adjusted_rand_score(theirs, ours.labels) == 1


@pytest.mark.parametrize("assign_labels", ["kmeans", "discretize", "cluster_qr"])
def test_spectral_is_scikit_learns(assign_labels: str) -> None:
    vectors = cloud(150, width=2)
    for k in (2, 4):
        ours = cluster(vectors, ClusteringSettings(method="spectral", assign_labels=assign_labels, k=k), seed=5)
        theirs = SpectralClustering(
            k, affinity="nearest_neighbors", assign_labels=assign_labels, random_state=5
        ).fit_predict(vectors)
        # Its discretize goes on with the random numbers that the eigenvectors left over.
        assert adjusted_rand_score(theirs, ours.labels) > (0.95 if assign_labels == "discretize" else 1 - 1e-9)


def test_spectral_swept_is_spectral_given() -> None:
    vectors = cloud(150, width=2)
    swept = cluster(vectors, ClusteringSettings(method="spectral", k_max=8), seed=0)
    given = cluster(vectors, ClusteringSettings(method="spectral", k=swept.k), seed=0)
    assert swept.k < 8
    assert swept.labels.tolist() == given.labels.tolist()


# The same answer every time


@every_method
def test_the_same_seed_gives_the_same_segments(method: dict[str, Any]) -> None:
    vectors = cloud()
    vectors = blobs(8)[0] if method == {"method": "fuzzy_cmeans"} else vectors  # it finds nothing in a cloud
    kept = vectors.copy()
    first, second = (cluster(vectors, chosen(method, k=4, n_init=2), seed=11) for _ in range(2))
    assert first.labels.tobytes() == second.labels.tobytes()
    assert first.confidence.tobytes() == second.confidence.tobytes()
    assert first.model.centers.tobytes() == second.model.centers.tobytes()
    assert all(array.tobytes() == second.model.arrays()[name].tobytes() for name, array in first.model.arrays().items())
    assert vectors.tobytes() == kept.tobytes()


def test_one_thread_adds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sums of several threads differ in their last bits from run to run, too rarely for a test to wait for it."""
    threads = []

    def watched(*args: Any, **kwargs: Any) -> Any:
        threads.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "openmp")
        return prepare(*args, **kwargs)

    monkeypatch.setattr(clustering, "prepare", watched)
    with threadpool_limits(4, user_api="openmp"):
        cluster(cloud(), ClusteringSettings(method="kmeans++", k=2), seed=0)
    assert threads
    assert set(threads) == {1}


def test_the_seed_matters_where_starts_are_random() -> None:
    settings = ClusteringSettings(method="kmeans", k=8, n_init=1)
    found = {cluster(cloud(), settings, seed=seed).labels.tobytes() for seed in range(3)}
    assert len(found) > 1


def test_row_order_changes_no_segment_where_nothing_is_drawn() -> None:
    vectors, order = cloud(120), np.random.default_rng(2).permutation(120)
    settings = ClusteringSettings(method="agglomerative", k=9)
    there, here = cluster(vectors[order], settings, seed=0), cluster(vectors, settings, seed=0)
    assert there.labels.tolist() == here.labels[order].tolist()


def test_layout_and_width_of_the_array_change_nothing() -> None:
    vectors = cloud(100)
    first = cluster(vectors, ClusteringSettings(method="kmeans++", k=4), seed=0)
    for other in (np.asfortranarray(vectors), vectors.astype(np.float64)):
        result = cluster(other, ClusteringSettings(method="kmeans++", k=4), seed=0)
        assert result.labels.tobytes() == first.labels.tobytes()
        assert result.model.centers.dtype == np.float32


def test_segments_of_one_size_are_numbered_by_centre() -> None:
    vectors = np.array([[5, 1], [5, 3], [-5, 9], [-5, 7], [-5, 2], [-5, 0]], np.float32)
    result = cluster(vectors, ClusteringSettings(method="kmeans++", k=3), seed=0)
    assert result.labels.tolist() == [2, 2, 1, 1, 0, 0]


def test_only_vectors_settings_and_seed_enter() -> None:
    assert list(inspect.signature(cluster).parameters) == ["vectors", "settings", "seed", "layout"]
    assert not hasattr(clustering, "external_metrics")


# Confidence, and rows that come later


def test_confidence_by_hand() -> None:
    vectors = np.array([[-1], [1], [9], [11]], np.float32)
    result = cluster(vectors, ClusteringSettings(method="kmeans++", k=2), seed=0)
    assert (result.model.centers + result.model.space.mean).tolist() == [[0], [10]]
    np.testing.assert_allclose(result.confidence, [10 / 11, 8 / 9, 8 / 9, 10 / 11], rtol=1e-6)


def test_assignment_by_hand() -> None:
    centers = np.array([[0, 0], [4, 0], [0, 30]], np.float32)
    rows = np.array([[1, 0], [2, 0], [0, 20], [4, 0]], np.float32)
    plain = nearest_center(centers).place(rows)
    assert plain.labels.tolist() == [0, 0, 2, 1]  # between two centres, the lower number
    np.testing.assert_allclose(plain.confidence, [2 / 3, 0, 1 / 2, 1], rtol=1e-6)
    # The second dimension counts a tenth: the third row is at 2 from the origin and at 1 from (0, 30).
    space = Space(2, mean=np.array([9.0, 9.0]), scale=np.array([1.0, 10.0]))
    scaled = nearest_center(space.project(centers), space).place(np.array([[0, 20]], np.float32))
    assert scaled.labels.tolist() == [2]
    np.testing.assert_allclose(scaled.confidence, [1 / 2], rtol=1e-6)


def test_no_confidence_on_top_of_two_centres() -> None:
    on_both = nearest_center(np.ones((2, 3))).place(np.ones((1, 3), np.float32))
    assert on_both.confidence.tolist() == [0]


@pytest.mark.parametrize("scale", ["none", "standard"])
@pytest.mark.parametrize("offset", [0, 3000])
def test_an_unchanged_row_keeps_its_segment_of_kmeans(scale: str, offset: float) -> None:
    vectors = cloud(2100, 24) * np.linspace(0.1, 3, 24, dtype=np.float32) + np.float32(offset)
    result = cluster(vectors, ClusteringSettings(method="kmeans++", k=7, n_init=1, scale=scale), seed=0)
    again = result.model.place(vectors)
    assert again.labels.tobytes() == result.labels.tobytes()
    assert again.confidence.tobytes() == result.confidence.tobytes()
    alone = [result.model.place(vectors[i : i + 1]) for i in range(0, 2100, 100)]
    assert [float(one.confidence[0]) for one in alone] == result.confidence[::100].tolist()


def test_assigning_vectors_of_another_model_is_refused() -> None:
    with pytest.raises(ErasmoError, match=r"Got vectors of 3 dimensions, expected 5"):
        nearest_center(np.zeros((2, 5))).place(np.zeros((2, 3), np.float32))


# The sweep


def test_the_sweep_keeps_the_figures_of_every_k() -> None:
    vectors, groups = blobs()
    result = cluster(vectors, ClusteringSettings(method="kmeans++", k_min=2, k_max=5), seed=0)
    assert [point.k for point in result.sweep] == [2, 3, 4, 5]
    assert result.sweep[1].silhouette == pytest.approx(silhouette_score(vectors.astype(float), groups), rel=1e-5)
    assert result.notes == ()
    assert cluster(vectors, ClusteringSettings(method="kmeans++", k=3), seed=0).sweep == ()


def test_the_sweep_takes_the_silhouette_of_as_many_rows_as_set() -> None:
    vectors = cloud(400)
    result = cluster(vectors, ClusteringSettings(method="kmeans++", k_max=3, metrics_rows=100), seed=4)
    (point,) = [point for point in result.sweep if point.k == result.k]
    sampled = internal_metrics(vectors, result.labels, max_rows=100, seed=4)
    assert sampled["silhouette_rows"] == 100
    assert point.silhouette == pytest.approx(sampled["silhouette"], rel=1e-4)
    assert point.calinski_harabasz == pytest.approx(sampled["calinski_harabasz"], rel=1e-4)  # of all rows


@pytest.mark.parametrize("choose_by", ["silhouette", "calinski_harabasz", "davies_bouldin"])
def test_the_best_figure_chooses_k(choose_by: str) -> None:
    result = cluster(cloud(90), ClusteringSettings(method="kmeans++", k_max=7, choose_by=choose_by), seed=0)
    figures = {point.k: getattr(point, choose_by) for point in result.sweep}
    best = min(figures.values()) if choose_by == "davies_bouldin" else max(figures.values())
    assert figures[result.k] == best
    same = cluster(cloud(90), ClusteringSettings(method="kmeans++", k=result.k), seed=0)
    assert same.labels.tolist() == result.labels.tolist()


@pytest.mark.parametrize("choose_by", ["silhouette", "davies_bouldin"])
def test_of_equal_figures_the_smaller_k_is_chosen(choose_by: str) -> None:
    sweep = tuple(SweepPoint(k, 0.5, 1.0, 0.5) for k in (2, 3, 4))
    assert clustering._best(sweep, choose_by, 100)[0] == 2


@pytest.mark.parametrize(
    ("vectors", "highest", "reason"),
    [
        (cloud(4), 3, "there are only 4 rows"),
        (np.repeat(cloud(3), 20, axis=0), 3, "there are only 3 different vectors"),
    ],
    ids=["rows", "vectors"],
)
@with_k
def test_the_sweep_ends_where_the_rows_do(
    vectors: np.ndarray, highest: int, reason: str, method: dict[str, Any]
) -> None:
    result = cluster(vectors, chosen(method), seed=0)
    assert max(point.k for point in result.sweep) == highest
    assert f"The sweep ended at k={highest}, below clustering.k_max=10: {reason}." in result.notes


def test_a_graph_in_pieces_is_said() -> None:
    result = cluster(blobs()[0], ClusteringSettings(method="spectral", k=3), seed=0)
    assert any("is in 3 pieces" in note and "clustering.affinity" in note for note in result.notes)


@with_k
def test_segments_that_cannot_be_told_apart_are_said(method: dict[str, Any]) -> None:
    # Different numbers, but their squared distances are 0 in 32 bits, or next to it.
    vectors = np.array([[0], [1e-25], [2e-25], [1], [-1]], np.float32)
    result = cluster(vectors, chosen(method, k=4), seed=0)
    assert result.k == 4 or f"Asked for k=4, {method['method']} told {result.k} segments apart." in result.notes
    assert sorted(set(result.labels.tolist())) == list(range(result.k))


def test_one_segment_is_no_result() -> None:
    vectors = np.array([[0], [1e-25], [2e-25]], np.float32)
    with pytest.raises(ErasmoError, match=r"^Got one segment from clustering.method=kmeans, expected at least two"):
        cluster(vectors, ClusteringSettings(method="kmeans", k=2), seed=0)


# What is refused


@pytest.mark.parametrize(
    ("vectors", "given", "message"),
    [
        (cloud(1), {}, "Got 1 row for clustering.k_min=2, expected at least 3: bring more rows."),
        (cloud(2), {"k": 2}, "Got 2 rows for clustering.k=2, expected at least 3: bring more rows."),
        (
            cloud(5),
            {"k": 8},
            "Got 5 rows for clustering.k=8, expected at least 9: lower clustering.k or bring more rows.",
        ),
        (
            np.ones((9, 4), np.float32),
            {},
            "Got 1 different vector in 9 rows for clustering.k_min=2, expected at least 2: "
            "use columns that tell the rows apart.",
        ),
        (
            np.repeat(cloud(3), 4, axis=0),
            {"k": 4},
            "Got 3 different vectors in 12 rows for clustering.k=4, expected at least 4: "
            "lower clustering.k or use columns that tell the rows apart.",
        ),
        (
            np.array([[0.0], [-0.0], [0.0], [1.0]], np.float32),
            {"k": 3},
            "Got 2 different vectors in 4 rows for clustering.k=3, expected at least 3: "
            "lower clustering.k or use columns that tell the rows apart.",
        ),
    ],
)
@with_k
def test_too_few_rows(vectors: np.ndarray, given: dict[str, Any], message: str, method: dict[str, Any]) -> None:
    with pytest.raises(ErasmoError) as caught:
        cluster(vectors, chosen(method, **given), seed=0)
    assert str(caught.value) == message


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_vectors_that_are_no_numbers(bad: float) -> None:
    vectors = cloud(20)
    vectors[[3, 7], 1] = bad
    with pytest.raises(ErasmoError, match=r"Got NaN or infinity in the vectors of 2 of 20 rows, expected finite"):
        cluster(vectors, ClusteringSettings(method="kmeans++"), seed=0)
    with pytest.raises(ErasmoError, match="2 of 20 rows"):
        nearest_center(np.zeros((2, 8))).place(vectors)


def test_auto_is_of_tables_and_not_of_vectors() -> None:
    with pytest.raises(ValueError, match="segment_table draws"):
        cluster(cloud(20), ClusteringSettings(k=2), seed=0)


@pytest.mark.parametrize("method", PAIRS, ids=name)
def test_pairs_of_rows_that_do_not_fit_in_memory(method: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=50_000))
    with pytest.raises(ErasmoError, match=r"Got 100 rows for clustering.method=\w+, which needs.*kmeans\+\+"):
        cluster(cloud(100), ClusteringSettings(**method), seed=0)
    assert cluster(cloud(100), ClusteringSettings(method="kmeans++", k=2), seed=0).k == 2
