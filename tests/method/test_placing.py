"""Rows into segments that stand: those that are new go where the fitted model puts them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from erasmo_dagster.method.fitted import FittedClustering
from erasmo_dagster.method.placing import Placement, place_rows
from erasmo_dagster.method.segment_model import FuzzyCenter, NearestCenter, NearestRow, Rule, SegmentModel
from erasmo_dagster.method.space import Space
from erasmo_dagster.settings import ClusteringSettings

# Three centres on a line. The segments are called as those published before, so not 0, 1, 2.
CENTERS = np.array([[0.0], [10.0], [20.0]], dtype=np.float32)
IDS = (7, 2, 31)


def fitted(rule: Rule | None = None) -> FittedClustering:
    model = SegmentModel(Space(1, np.zeros(1)), CENTERS, rule or NearestCenter())
    return FittedClustering(ClusteringSettings(), model, 3, IDS, (1, 1, 1), 0, np.zeros(3))


def place(rows: dict[str, float | tuple[int, float]], rule: Rule | None = None) -> Placement:
    """Rows by key: where a new one is on the line, or the segment and confidence of one that stands."""
    new = np.array([not isinstance(row, tuple) for row in rows.values()], dtype=bool)
    stood = [row if isinstance(row, tuple) else (0, 0.0) for row in rows.values()]
    points: npt.NDArray[np.float32] = np.array(
        [[row] for row in rows.values() if not isinstance(row, tuple)], dtype=np.float32
    ).reshape(-1, 1)
    keys = pl.Series([key for key, row in rows.items() if not isinstance(row, tuple)], dtype=pl.String)
    ids = np.array([segment for segment, _ in stood], dtype=np.int32)
    confidence = np.array([sure for _, sure in stood], dtype=np.float32)
    for array in (ids, confidence):
        array.flags.writeable = False  # as they come from the warehouse
    return place_rows(ids, confidence, new, keys, points, fitted(rule))


def test_a_row_that_stands_keeps_its_segment() -> None:
    got = place({"1": (7, 0.25), "2": (2, 0.5)})
    assert got.segment_ids.tolist() == [7, 2]
    assert got.confidence.tolist() == [0.25, 0.5]
    assert [str(array.dtype) for array in (got.segment_ids, got.confidence)] == ["int32", "float32"]


def test_a_new_row_goes_to_the_nearest_centre() -> None:
    got = place({"1": 19.0, "new": 6.0, "2": (31, 0.5)})
    assert got.segment_ids.tolist() == [31, 2, 31]
    assert got.confidence.tolist() == pytest.approx([8 / 9, 2 / 6, 0.5])


def test_distances_are_scaled_as_they_were_in_the_training() -> None:
    centers = np.array([[0.0, 0.0], [8.0, 2.0]], dtype=np.float32)
    for scale, expected in (([1.0, 1.0], 4), ([100.0, 1.0], 3)):
        space = Space(2, np.zeros(2), scale=np.array(scale))
        model = SegmentModel(space, space.project(centers), NearestCenter())
        state = FittedClustering(ClusteringSettings(), model, 2, (4, 3), (1, 1), 0, np.zeros(2))
        nothing = np.zeros(1, np.int32), np.zeros(1, np.float32), np.array([True])
        got = place_rows(*nothing, pl.Series(["1"]), np.array([[0.0, 2.0]], np.float32), state)
        assert got.segment_ids.tolist() == [expected]


def test_noise_stays_noise_and_new_rows_can_become_it() -> None:
    rule = NearestRow(CENTERS, np.arange(3), np.full(3, 0.5, np.float32), gaps=np.ones(3))
    got = place({"1": (-1, 0.0), "new": 10.5, "2": 14.0}, rule)
    assert got.segment_ids.tolist() == [-1, 2, -1]
    assert got.confidence.tolist() == [0, 0.5, 0]


def test_rows_that_are_placed_have_memberships() -> None:
    got = place({"2": (2, 0.5), "new": 1.0, "like 1": (7, 0.25)}, FuzzyCenter(2.0))
    assert got.memberships["entity_key"].to_list() == ["new"] * 3
    assert got.memberships["segment_id"].to_list() == list(IDS)
    weights = np.array([1, 1 / 9**2, 1 / 19**2])
    assert got.memberships["membership"].to_list() == pytest.approx(weights / weights.sum())
    assert got.confidence[1] == got.memberships["membership"].max()
    assert place({"2": (2, 0.5), "new": 1.0}).memberships.is_empty()


def test_no_row_and_nothing_standing() -> None:
    none = place({})
    assert (len(none.segment_ids), len(none.confidence)) == (0, 0)
    assert place({"1": 0.0, "2": 11.0}).segment_ids.tolist() == [7, 2]
