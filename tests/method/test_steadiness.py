"""How stable the segments of a clustering are, by the clustering itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from erasmo_dagster.method import steadiness as module
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.steadiness import sampled, steadiness
from erasmo_dagster.method.tables.space import TableSpace
from erasmo_dagster.method.textual import fit_text
from erasmo_dagster.settings import ClusteringSettings, DatasetSettings
from erasmo_dagster.settings.clustering import METHODS

ON_VECTORS = [method for method in METHODS if method not in ("mixture", "auto")]


def settings(**given: Any) -> ClusteringSettings:
    return ClusteringSettings.model_validate({"method": "kmeans++", **given})


def groups(rows: int, k: int = 3, apart: float = 12.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(rows) % k
    points = np.random.default_rng(seed).normal(size=(rows, k)) + apart * np.eye(k)[labels]
    return points.astype(np.float32), labels


def ring(rows: int) -> np.ndarray:
    """One cloud without corners: wherever it is cut, it is as well cut elsewhere."""
    turn = 2 * np.pi * (np.arange(rows) + 0.1 * np.random.default_rng(0).normal(size=rows)) / rows
    return np.stack([np.cos(turn), np.sin(turn)], axis=1).astype(np.float32)


@pytest.mark.parametrize("method", ON_VECTORS)
def test_planted_groups_are_found_again_by_every_method(method: str) -> None:
    points, labels = groups(120)
    found = steadiness(points, labels, settings(method=method), seed=0, resamples=3)
    assert found is not None
    least = 0.9 if method == "hdbscan" else 1.0  # by which a row that it was not fitted on may be noise
    assert min(found.ari, found.split_half) >= least
    assert found.seeds == 1.0
    assert found.jaccard == (1.0, 1.0, 1.0)
    assert (found.rows, found.resamples) == (120, 3)


def test_where_one_cloud_is_cut_is_not_found_again() -> None:
    points = ring(300)
    found = steadiness(points, cluster(points, settings(k=4), seed=0).labels, settings(k=4), seed=0)
    assert found is not None
    assert found.ari < 0.8
    assert found.split_half < 0.8
    assert max(found.jaccard) < 0.85


def test_a_mixture_of_a_tables_columns() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(90) % 3
    frame = pl.DataFrame({"id": range(90), "n": rng.normal(size=90) + 20.0 * group, "c": [f"c{g}" for g in group]})
    plan = fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "id"}))
    space, points = TableSpace.fit(frame, plan.columns, lambda texts: np.zeros((len(texts), 1), np.float32), seed=0)
    found = steadiness(points, group, settings(method="mixture", n_init=2), space.layout, seed=0, resamples=3)
    assert found is not None
    assert found.ari == found.split_half == found.seeds == 1.0


def test_the_number_of_segments_is_that_of_the_labels_and_no_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = groups(90)
    asked: list[ClusteringSettings] = []
    shown: list[int] = []

    def recording(points: np.ndarray, settings: ClusteringSettings, **options: Any) -> Any:
        asked.append(settings)
        shown.append(len(points))
        return cluster(points, settings, **options)

    monkeypatch.setattr(module, "cluster", recording)
    given = settings(k="auto", k_min=4, k_max=6, choose_by="davies_bouldin", n_init=3)
    assert steadiness(points, np.where(labels == 2, -1, labels), given, seed=0, resamples=2) is not None
    assert {(own.k, own.n_init, own.method) for own in asked} == {(2, 3, "kmeans++")}
    assert len(asked) == 2 + 6 + 3
    assert max(shown) == 90
    assert shown.count(45) == 6


def test_hdbscan_finds_its_own_number_and_its_rows_are_shares_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    points, labels = groups(400)
    asked: list[tuple[int, ClusteringSettings]] = []

    def recording(points: np.ndarray, settings: ClusteringSettings, **options: Any) -> Any:
        asked.append((len(points), settings))
        return cluster(points, settings, **options)

    monkeypatch.setattr(module, "cluster", recording)
    given = settings(method="hdbscan", min_cluster_size=100, min_samples=3)
    found = steadiness(points, labels, given, seed=0, rows=200, resamples=2)
    assert found is not None
    assert found.jaccard == (1.0, 1.0, 1.0)
    assert {own.min_cluster_size for rows, own in asked if rows == 200} == {50}
    assert {own.min_cluster_size for rows, own in asked if rows == 100} == {25}
    assert {own.min_samples for rows, own in asked if rows == 100} == {1}


def test_noise_belongs_to_no_segment() -> None:
    points, labels = groups(120)
    labels = np.where(np.arange(120) < 12, -1, labels)
    found = steadiness(points, labels, settings(), seed=0, resamples=2)
    assert found is not None
    assert (found.rows, len(found.jaccard)) == (108, 3)
    assert found.ari == 1.0


def test_the_same_seed_gives_the_same_figures_and_another_draws_others() -> None:
    points, labels = groups(300, apart=2.0)
    first, again, other = (
        steadiness(points, labels, settings(n_init=1), seed=seed, rows=100, resamples=2) for seed in (3, 3, 4)
    )
    assert first == again
    assert first != other


def test_names_of_segments_mean_nothing() -> None:
    points, labels = groups(200, apart=2.5)
    first = steadiness(points, labels, settings(n_init=1), seed=0, resamples=2)
    renamed = steadiness(points, np.array([7, 2, 30])[labels], settings(n_init=1), seed=0, resamples=2)
    assert first is not None
    assert renamed is not None
    assert renamed.ari == pytest.approx(first.ari)
    assert renamed.jaccard == pytest.approx([first.jaccard[place] for place in (1, 0, 2)])


# Where there is little to cluster


@pytest.mark.parametrize(
    ("rows", "labels"),
    [
        (60, [0] * 60),  # one segment
        (60, [-1] * 60),
        (60, [-1] * 57 + [0, 1, 1]),  # three rows in segments
        (3, [0, 1, 1]),
        (0, []),
    ],
)
def test_nothing_to_agree_on(rows: int, labels: list[int]) -> None:
    assert steadiness(groups(60)[0][:rows], np.array(labels, dtype=np.int64), settings(), seed=0) is None


def test_more_segments_than_rows_to_look_at() -> None:
    points, _ = groups(60)
    assert steadiness(points, np.arange(60), settings(), seed=0, rows=20) is None


def test_rows_that_are_all_alike_have_nothing_to_be_found() -> None:
    points, labels = np.ones((60, 2), dtype=np.float32), np.arange(60) % 2
    assert steadiness(points, labels, settings(), seed=0, resamples=2) is None


def test_a_part_with_too_few_different_rows_is_told_into_as_many_as_it_can() -> None:
    """Five places, two of them of one row: half of the resamples lack one."""
    which = np.array([0] * 20 + [1] * 20 + [2] * 20 + [3, 4])
    points = (100.0 * np.eye(5)[which]).astype(np.float32)
    found = steadiness(points, which, settings(k=5), seed=0)
    assert found is not None
    assert found.jaccard[:3] == (1.0, 1.0, 1.0)
    assert found.ari > 0.9
    assert found.seeds == 1.0


@pytest.mark.parametrize("rows", range(4, 8))
def test_tiny_tables(rows: int) -> None:
    points, labels = groups(rows, k=2)
    found = steadiness(points, labels, settings(), seed=0, resamples=3)
    assert found is not None
    assert found.seeds == 1.0
    assert found.rows == rows


def test_auto_is_no_method_that_segments_are_drawn_by() -> None:
    points, labels = groups(60)
    with pytest.raises(ValueError, match="auto"):
        steadiness(points, labels, settings(method="auto"), seed=0)


# The sample


def test_all_rows_where_these_are_few() -> None:
    assert sampled(np.zeros(50, dtype=np.int64), 50, seed=0).tolist() == list(range(50))


def test_every_segment_is_in_the_sample_by_twenty_rows_or_all() -> None:
    labels = np.zeros(100_000, dtype=np.int64)
    labels[[5, 9, 77]] = 1
    labels[200:300] = -1
    labels[1_000:60_000] = 2
    found = sampled(labels, 1_000, seed=0)
    assert len(found) == len(set(found.tolist())) == 1_000
    assert (np.diff(found) > 0).all()
    counts = {label: int((labels[found] == label).sum()) for label in (-1, 0, 1, 2)}
    assert counts[1] == 3
    assert 20 <= counts[-1] <= 25
    assert counts[2] / counts[0] == pytest.approx(59 / 40.897, rel=0.15)
    assert sampled(labels, 1_000, seed=0).tolist() == found.tolist() != sampled(labels, 1_000, seed=1).tolist()


def test_of_many_segments_each_has_its_part_of_half_the_sample() -> None:
    labels = np.repeat(np.arange(40), 100)
    labels[0] = 99
    found = sampled(labels, 200, seed=0)
    assert len(found) == 200
    assert np.unique(labels[found]).size == 41
    assert np.bincount(labels[found])[:40].min() >= 2


def test_of_a_million_rows_only_the_sample_is_clustered() -> None:
    rows = 1_000_000
    labels = np.zeros(rows, dtype=np.int64)
    labels[::4] = 1
    points = np.random.default_rng(0).normal(size=(rows, 2)).astype(np.float32) + 20.0 * labels[:, None]
    found = steadiness(points, labels, settings(n_init=1), seed=0, resamples=2)
    assert found is not None
    assert found.rows == 1_000
    assert found.ari == 1.0
