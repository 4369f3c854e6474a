"""The speed benchmark's part on clustering, on a few rows."""

from __future__ import annotations

import pytest

from benchmarks.speed import clustering
from erasmo_dagster.method.algorithms import micro, tree


def test_groups_of_rows_are_compared_with_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clustering, "_CLOSE", {"agglomerative, ward": {"method": "agglomerative"}})
    monkeypatch.setattr(tree, "GROUPS", 60)
    found = {shape: own["agglomerative, ward"] for shape, own in clustering.closeness(700, 1, seed=0).items()}
    assert set(found) == {"groups", "blobs", "moons"}
    for shape in ("groups", "blobs"):  # two moons are no segments of Ward's linkage, however it is drawn
        assert 0.85 < found[shape]["ari"] < 1
        assert found[shape]["within"] == pytest.approx(1, abs=0.02)
    assert all(-0.5 < figures["itself"] <= 1 for figures in found.values())
    # Of fewer groups than segments there are the trees can only be others.
    monkeypatch.setattr(tree, "GROUPS", 3)
    few = clustering._compared((clustering.planted(300, 0)[0], 10), {"method": "agglomerative"}, seed=0)
    assert few["ari"] < 0.6
    assert few["within"] > 1.1
    assert micro.EXACT_ROWS == 20_000


@pytest.mark.slow
def test_every_engine_is_measured_in_a_process_of_its_own() -> None:
    for name in ("kmeans", "scikit-learn KMeans", "internal_metrics"):
        figures = clustering._alone(name, 2_000, seed=0)
        assert figures["seconds"] >= 0
        assert figures["peak_mb"] > 20
