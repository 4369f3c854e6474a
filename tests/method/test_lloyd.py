"""Lloyd's last rounds: what is skipped changes no label, and segments are numbered as they are saved."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from threadpoolctl import threadpool_info  # type: ignore[import-untyped]

from erasmo_dagster.method import threads
from erasmo_dagster.method.lloyd import means, number, settle
from erasmo_dagster.method.segment_model import Labels, distances
from erasmo_dagster.method.threads import one_thread


def plainly(labels: np.ndarray, points: np.ndarray, rounds: int) -> tuple[Labels, bool]:
    """Every row looked at in every round."""
    labels = number(labels, points)
    for _ in range(rounds):
        closest = distances(points, means(points, labels)).argmin(axis=1)
        if np.array_equal(closest, labels):
            return labels, True
        labels = number(closest, points)
    return labels, False


def shaped(shape: str, rows: int) -> np.ndarray:
    rng = np.random.default_rng(7)
    if shape == "ties":  # many rows as near to one centre as to another
        return rng.integers(-1, 2, (rows, 3)).astype(np.float32)
    points = rng.normal(size=(rows, 5)).astype(np.float32)
    if shape == "far":  # so long that products in 32 bits tell nothing
        points[:, 0] += np.float32(3e4)
    return points


@pytest.mark.parametrize("rounds", [2, 300])
@pytest.mark.parametrize("shape", ["cloud", "ties", "far"])
def test_rows_that_are_passed_over_would_not_have_moved(shape: str, rounds: int) -> None:
    points = shaped(shape, 900)
    start = np.random.default_rng(1).integers(0, 9, len(points))
    expected, rests = plainly(start, points, rounds)
    found, settled = settle(start, points, rounds=rounds)
    assert found.tolist() == expected.tolist()
    assert settled == rests
    if rounds == 300:
        assert settled
        assert found.tolist() == distances(points, means(points, found)).argmin(axis=1).tolist()


def test_a_segment_that_loses_its_rows_is_gone() -> None:
    points = np.array([[0], [1], [2], [100], [101], [102]], np.float32)
    # The second one's mean lies beside the first's and the third's, and farther from every row than theirs.
    found, settled = settle(np.array([0, 0, 1, 2, 2, 1]), points)
    assert found.tolist() == plainly(np.array([0, 0, 1, 2, 2, 1]), points, 300)[0].tolist()
    assert settled
    assert np.unique(found).tolist() == list(range(int(found.max()) + 1))


def test_libraries_are_looked_for_once_until_another_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with one_thread():
        assert {pool["num_threads"] for pool in threadpool_info()} == {1}
    looked = threads._known
    with one_thread("openmp"):
        assert threads._known is looked
    monkeypatch.setitem(sys.modules, "a_library_that_comes_later", sys)
    with one_thread():
        assert threads._known is not looked
