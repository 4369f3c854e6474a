"""Shares of segments that moved, and rows that lie beyond the reach of their segment."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.clustering import cluster
from erasmo_dagster.method.drift import own_distances, population_stability_index, segment_reach, share_beyond
from erasmo_dagster.method.segment_model import NearestCenter, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.settings import ClusteringSettings

COUNTS = st.dictionaries(st.integers(0, 5), st.integers(0, 1000), min_size=1).filter(
    lambda rows: sum(rows.values()) > 0
)


# Shares


def test_the_index_is_the_one_worked_by_hand() -> None:
    # Shares .5, .3, .2 become .4, .4, .2: -.1 ln .8 + .1 ln 4/3 = .0223144 + .0287682.
    assert population_stability_index({0: 50, 1: 30, 2: 20}, {0: 80, 1: 80, 2: 40}) == pytest.approx(
        0.0510826, abs=1e-7
    )


def test_an_empty_segment_has_half_a_row() -> None:
    # .5 becomes .995 and .5 becomes .005 of 100 rows: shares that need not add up to 1.
    expected = (1.0 - 0.5) * math.log(2) + (0.005 - 0.5) * math.log(0.01)
    assert population_stability_index({0: 5, 1: 5}, {0: 100}) == pytest.approx(expected, rel=1e-12)
    assert population_stability_index({0: 5, 1: 5}, {0: 100, 1: 0}) == pytest.approx(expected, rel=1e-12)
    assert population_stability_index({0: 100}, {0: 5, 1: 5}) == pytest.approx(expected, rel=1e-12)


def test_a_segment_that_is_empty_on_both_sides_does_not_count() -> None:
    assert population_stability_index({0: 3, 1: 7, 2: 0}, {0: 30, 1: 70, 3: 0}) == 0.0


@given(COUNTS, COUNTS)
def test_the_index_is_finite_and_the_same_either_way(before: dict[int, int], after: dict[int, int]) -> None:
    index = population_stability_index(before, after)
    assert math.isfinite(index)
    assert index >= 0
    assert index == population_stability_index(after, before)


@given(COUNTS, st.integers(1, 9))
def test_more_rows_in_the_same_shares_are_no_change(before: dict[int, int], times: int) -> None:
    more = {segment: times * rows for segment, rows in before.items()}
    assert population_stability_index(before, more) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("empty", [{}, {0: 0}, {0: -1, 1: 3}])
def test_both_sides_need_rows(empty: dict[int, int]) -> None:
    with pytest.raises(ValueError, match="rows"):
        population_stability_index(empty, {0: 1})
    with pytest.raises(ValueError, match="rows"):
        population_stability_index({0: 1}, empty)


# Reach

CENTERS = np.array([[0, 0], [10, 0], [99, 99]], np.float32)
VECTORS = np.array([[3, 4], [0, 1], [0, 2], [10, 7]], np.float32)
LABELS = np.array([0, 0, 0, 1])
PLAIN = SegmentModel(Space(2, np.zeros(2)), CENTERS, NearestCenter())
SPACE = Space(2, np.array([5.0, 5.0]), scale=np.array([3.0, 2.0]))
SCALED = SegmentModel(SPACE, SPACE.project(CENTERS), NearestCenter())


def test_distances_are_to_the_rows_own_centre() -> None:
    assert own_distances(VECTORS, LABELS, PLAIN).tolist() == [5, 1, 2, 7]
    assert own_distances(VECTORS, LABELS, SCALED) == pytest.approx([math.sqrt(5), 0.5, 1, 3.5], rel=1e-6)
    assert own_distances(VECTORS, np.array([0, -1, 0, -1]), PLAIN).tolist() == [5, math.inf, 2, math.inf]


def test_the_reach_of_each_segment_and_of_an_empty_one() -> None:
    reach = segment_reach(VECTORS, LABELS, PLAIN, quantile=0.75)
    assert reach.dtype == np.float64
    assert reach.tolist() == [3.5, 7, math.inf]  # halfway from 2 to 5
    assert segment_reach(VECTORS, LABELS, SCALED, quantile=1.0) == pytest.approx([math.sqrt(5), 3.5, math.inf])
    assert segment_reach(VECTORS, LABELS, PLAIN)[0] == pytest.approx(2 + 3 * 0.98)


def test_rows_beyond_their_own_segments_reach_are_counted() -> None:
    reach = np.array([2.0, 6.5, np.inf])
    assert share_beyond(VECTORS, LABELS, PLAIN, reach) == 0.5  # 5 and 7; 2 is just within
    assert share_beyond(VECTORS, LABELS, SCALED, reach) == 0.25
    assert share_beyond(VECTORS, np.full(4, 2), PLAIN, reach) == 0.0


def test_noise_is_beyond_but_for_as_much_as_there_was() -> None:
    reach = np.array([2.0, 6.5, np.inf])
    labels = np.array([0, -1, 0, -1])
    assert share_beyond(VECTORS, labels, PLAIN, reach) == 0.75  # 5 and both that are noise
    assert share_beyond(VECTORS, labels, PLAIN, reach, noise_share=0.25) == 0.5
    assert share_beyond(VECTORS, labels, PLAIN, reach, noise_share=0.75) == 0.25
    assert segment_reach(VECTORS, labels, PLAIN, quantile=1.0).tolist() == [5, math.inf, math.inf]


def test_no_rows() -> None:
    none, labels = np.empty((0, 2), np.float32), np.empty(0, np.int64)
    assert share_beyond(none, labels, PLAIN, np.ones(3)) == 0.0
    assert segment_reach(none, labels, PLAIN).tolist() == [math.inf] * 3


def test_many_rows_are_as_one_by_one() -> None:
    """More than two chunks, the last of them not full."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(5000, 2)).astype(np.float32)
    labels = random.integers(0, 3, 5000)
    expected = [math.dist(row, CENTERS[label]) for row, label in zip(vectors.tolist(), labels, strict=True)]
    assert own_distances(vectors, labels, PLAIN) == pytest.approx(expected, rel=1e-12)
    reach = segment_reach(vectors, labels, PLAIN, quantile=0.9)
    over = sum(distance > reach[label] for distance, label in zip(expected, labels, strict=True))
    assert share_beyond(vectors, labels, PLAIN, reach) == over / 5000
    assert over == pytest.approx(500, abs=3)


@pytest.mark.parametrize("scale", ["none", "standard"])
def test_distances_are_those_of_clustering(scale: str) -> None:
    vectors = np.random.default_rng(1).normal(size=(60, 4)).astype(np.float32) * np.array([1, 5, 1, 1], np.float32)
    result = cluster(vectors, ClusteringSettings(method="kmeans++", k=2, scale=scale), seed=0)
    own = own_distances(vectors, result.labels, result.model)
    other = own_distances(vectors, 1 - result.labels, result.model)
    assert result.confidence == pytest.approx((other - own) / other, abs=1e-6)
    everywhere = segment_reach(vectors, result.labels, result.model, quantile=1.0)
    assert share_beyond(vectors, result.labels, result.model, everywhere) == 0.0


@pytest.mark.parametrize("label", [-2, 3])
def test_labels_without_a_centre(label: int) -> None:
    with pytest.raises(ValueError, match="expected -1 to 2"):
        own_distances(VECTORS, np.array([0, 0, 1, label]), PLAIN)


def test_arrays_that_do_not_belong_together() -> None:
    with pytest.raises(ValueError, match="labels of shape"):
        own_distances(VECTORS, LABELS[:2], PLAIN)
    with pytest.raises(ErasmoError, match="vectors of 1 dimensions"):
        own_distances(VECTORS[:, :1], LABELS, PLAIN)
    with pytest.raises(ValueError, match="reach of shape"):
        share_beyond(VECTORS, LABELS, PLAIN, np.ones(2))
    with pytest.raises(ValueError, match="quantile"):
        segment_reach(VECTORS, LABELS, PLAIN, quantile=99)
