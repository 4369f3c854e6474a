"""Common procedures without a model of the table, and how rows that they never saw are placed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from erasmo_dagster.errors import ErasmoError
from erasmo_dagster.method.peers import PEERS, by_nearest_row
from erasmo_dagster.method.textual import TextPlan, fit_text
from erasmo_dagster.settings import DatasetSettings


def people() -> pl.DataFrame:
    """Three groups by age and job; income varies a little."""
    rng, group = np.random.default_rng(0), np.arange(90) % 3
    age, income = 20.0 * group + rng.normal(size=90), group + rng.normal(0, 0.1, 90)
    return pl.DataFrame({"age": age, "income": income, "job": [f"job {g}" for g in group]})


def plan_of(frame: pl.DataFrame) -> TextPlan:
    return fit_text(frame, DatasetSettings.model_validate({"source": {"path": "-"}, "key": "none"}))


def test_peers_tell_plain_groups_apart() -> None:
    frame, group = people(), np.arange(90) % 3
    plan = plan_of(frame)
    for peer in PEERS.values():
        labels = peer(frame, plan, 3, 3, 0)
        assert adjusted_rand_score(group, labels) == 1.0
        assert labels.dtype == np.int64
        with pytest.raises(ErasmoError, match=r"Got 3 rows for "):
            peer(frame[:3], plan, 3, 3, 0)


def test_peers_take_columns_that_no_row_of_the_sample_has() -> None:
    frame = people()
    plan = plan_of(frame)
    holes = frame.with_columns(job=pl.lit(None, pl.String), income=pl.lit(None, pl.Float64))
    for peer in PEERS.values():
        assert len(set(peer(holes, plan, 3, 3, 0).tolist())) == 3


def test_rows_go_with_the_nearest_of_those_that_were_drawn() -> None:
    points = np.array([[0.0], [0.1], [5.0], [5.1], [4.9], [0.2], [4.0]], dtype=np.float32)
    found = by_nearest_row(points, np.array([0, 1, 3]), np.array([7, 7, 2]))
    assert found.labels.tolist() == [1, 1, 0, 0, 0, 1, 0]
    assert found.model.centers.ravel() == pytest.approx([4.75, 0.1])
    assert found.model.place(np.array([[2.0], [3.0]], dtype=np.float32)).labels.tolist() == [1, 0]
    np.testing.assert_array_equal(found.model.place(points).labels, found.labels)


def test_rows_at_one_point_are_in_the_segment_of_most_of_them() -> None:
    points = np.array([[0.0], [0.0], [0.0], [1.0], [1.0], [3.0]], dtype=np.float32)
    found = by_nearest_row(points, np.arange(6), np.array([0, 1, 1, 0, 2, 2]))
    assert found.labels.tolist() == [0, 0, 0, 1, 1, 2]
    with pytest.raises(ErasmoError, match="Got one segment"):
        by_nearest_row(points[:3], np.arange(3), np.array([0, 1, 1]))


def test_the_order_of_the_columns_changes_nothing() -> None:
    frame = people().with_columns(age=pl.Series(np.random.default_rng(1).normal(size=90)))
    plan = plan_of(frame)
    turned = plan.model_copy(update={"columns": plan.columns[::-1]})
    for peer in PEERS.values():
        expected = peer(frame, plan, 4, 2, 0)
        np.testing.assert_array_equal(peer(frame.select("job", "income", "age"), turned, 4, 2, 0), expected)
